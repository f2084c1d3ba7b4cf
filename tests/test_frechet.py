"""frechet.py: the distance of two Gaussians, against closed forms and SciPy's root of a matrix."""
import math

import numpy as np
import pytest
import torch

from mmvae.evaluate import frechet


def cloud(n, d, seed=0):
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, d, generator=g, dtype=torch.float64) @ torch.randn(d, d, generator=g, dtype=torch.float64)


def with_moments(mu, sigma, n=500):
    """Rows whose mean and standard deviations are exactly these, without correlations."""
    z = torch.randn(n, len(mu), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    z = torch.linalg.qr(z - z.mean(0))[0] * math.sqrt(n - 1)
    return z * torch.tensor(sigma) + torch.tensor(mu)


def test_of_independent_features_it_is_the_distance_of_means_and_deviations():
    """|mu_a - mu_b|^2 + sum (s_a - s_b)^2."""
    a, b = with_moments([0.0, 1.0, -2.0], [1.0, 2.0, 0.0]), with_moments([3.0, 1.0, 2.0], [4.0, 0.5, 1.5], n=90)
    assert frechet(a, b) == pytest.approx(9 + 16 + 9 + 1.5 ** 2 + 1.5 ** 2, rel=1e-9)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-9)


@pytest.mark.parametrize("rows", [(300, 200), (9, 200), (9, 5)])  # 12 features: also covariances without full rank
def test_it_is_that_of_the_root_of_the_product(rows):
    from scipy.linalg import sqrtm
    a, b = cloud(rows[0], 12), cloud(rows[1], 12, seed=1) + 0.3
    A, B = (np.cov(x.numpy(), rowvar=False) for x in (a, b))
    expected = float((a.mean(0) - b.mean(0)).square().sum()) + np.trace(A) + np.trace(B) - 2 * np.trace(sqrtm(A @ B)).real
    assert frechet(a, b) == pytest.approx(expected, rel=1e-4)
    assert frechet(a.float(), b.float()) == pytest.approx(expected, rel=1e-4)


def test_it_is_nothing_from_itself_and_a_shift_squared_from_its_shift():
    for n in (200, 6):  # fewer rows than features
        a = cloud(n, 12)
        scale = a.var(0).sum().item()
        assert 0 <= frechet(a, a) < 1e-6 * scale and 0 <= frechet(a, a[torch.randperm(n)]) < 1e-6 * scale
        assert frechet(a, a + 2.0) == pytest.approx(12 * 4, rel=1e-4)
    turned = torch.linalg.qr(cloud(12, 12))[0]
    a, b = cloud(80, 12, 2), cloud(70, 12, 3)
    assert frechet(a @ turned, b @ turned) == pytest.approx(frechet(a, b), rel=1e-9)


def test_constant_features_have_the_distance_of_their_values():
    assert frechet(torch.ones(5, 3), torch.ones(2, 3) * 3) == pytest.approx(12)


@pytest.mark.parametrize("a, b, message", [
    (torch.zeros(5), torch.zeros(5, 2), r"a: found shape \(5,\), expected \(N, D\)"),
    (torch.zeros(5, 2), torch.zeros(5, 2, 1), r"b: found shape \(5, 2, 1\), expected \(N, D\)"),
    (torch.zeros(5, 2), torch.zeros(1, 2), r"b: found shape \(1, 2\), expected \(N, D\), at least 2 rows"),
    (torch.zeros(5, 0), torch.zeros(5, 0), r"a: found shape \(5, 0\)"),
    (torch.zeros(5, 2), torch.zeros(5, 3), "b: found 3 features, expected 2, as of a"),
    (torch.tensor([[0.0], [math.nan]]), torch.zeros(5, 1), "a: found NaN or infinite features"),
    (torch.zeros(5, 1), torch.tensor([[0.0], [math.inf]]), "b: found NaN or infinite features")])
def test_what_are_no_features_is_refused(a, b, message):
    with pytest.raises(ValueError, match=message):
        frechet(a, b)
