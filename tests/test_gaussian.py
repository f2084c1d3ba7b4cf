"""gaussian.py against torch.distributions, quadrature and brute force."""
import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from mmvae import Gaussian, prior, product_of_experts


def random_gaussian(*shape, seed=0, scale=1.0):
    g = torch.Generator().manual_seed(seed)
    return Gaussian(*(scale * torch.randn(*shape, generator=g, dtype=torch.float64) for _ in range(2)))


def as_normal(q):
    return Normal(q.mu, (0.5 * q.logvar).exp())


def test_log_prob_is_that_of_torch_distributions():
    q, z = random_gaussian(5, 3), torch.randn(5, 3, dtype=torch.float64)
    torch.testing.assert_close(q.log_prob(z), as_normal(q).log_prob(z).sum(-1))


def test_kl_to_the_prior_and_to_another_gaussian():
    q, p = random_gaussian(5, 3, seed=1), random_gaussian(5, 3, seed=2)
    torch.testing.assert_close(q.kl(), kl_divergence(as_normal(q), Normal(0.0, 1.0)).sum(-1))
    torch.testing.assert_close(q.kl(p), kl_divergence(as_normal(q), as_normal(p)).sum(-1))
    torch.testing.assert_close(q.kl(prior(5, 3, q.mu)), q.kl())


def test_kl_is_the_mean_log_ratio_of_its_samples():
    torch.manual_seed(0)
    q, p = random_gaussian(1, 2, seed=3), random_gaussian(1, 2, seed=4)
    many = Gaussian(q.mu.expand(200_000, 2), q.logvar.expand(200_000, 2))
    z = many.sample()
    ratio = many.log_prob(z) - p.log_prob(z)
    assert abs(ratio.mean() - q.kl(p)) < 4 * ratio.std() / math.sqrt(len(ratio))


def test_sample_has_the_stated_mean_and_variance_and_passes_gradients():
    torch.manual_seed(0)
    mu, logvar = torch.tensor([[1.5, -2.0]], requires_grad=True), torch.tensor([[0.7, -1.3]], requires_grad=True)
    z = Gaussian(mu.expand(100_000, 2), logvar.expand(100_000, 2)).sample()
    torch.testing.assert_close(z.mean(0), mu[0], atol=0.02, rtol=0)
    torch.testing.assert_close(z.var(0), logvar[0].exp(), rtol=0.02, atol=0)
    z.square().sum().backward()
    assert (mu.grad != 0).all() and (logvar.grad != 0).all()


@pytest.mark.parametrize("with_prior", [True, False])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_product_is_the_normalised_pointwise_product(count, with_prior):
    """Quadrature of a one-dimensional product of densities: the mean and the variance of p(z)^prior * prod q_i(z)."""
    experts = [random_gaussian(1, 1, seed=s, scale=0.7) for s in range(count)]
    z = torch.linspace(-12, 12, 200_001, dtype=torch.float64)[:, None]
    log_density = sum(e.log_prob(z) for e in experts) + (Normal(0.0, 1.0).log_prob(z[:, 0]) if with_prior else 0)
    weight = log_density.softmax(0)
    mean = (weight * z[:, 0]).sum()
    variance = (weight * (z[:, 0] - mean).square()).sum()
    q = product_of_experts(experts, prior=with_prior)
    torch.testing.assert_close(q.mu[0, 0], mean, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(q.logvar.exp()[0, 0], variance, atol=1e-8, rtol=1e-8)


def test_product_adds_precisions():
    experts = [random_gaussian(4, 3, seed=s) for s in range(3)]
    q = product_of_experts(experts)
    precision = 1 + sum(e.precision for e in experts)
    torch.testing.assert_close(q.precision, precision)
    torch.testing.assert_close(q.mu, sum(e.precision * e.mu for e in experts) / precision)


def test_one_expert_without_the_prior_is_itself():
    q = random_gaussian(4, 3)
    same = product_of_experts([q], prior=False)
    torch.testing.assert_close(same.mu, q.mu)
    torch.testing.assert_close(same.logvar, q.logvar)


@pytest.mark.parametrize("low, high", [(-30.0, 30.0), (-30.0, -30.0), (30.0, 30.0)])
def test_float32_survives_log_variances_from_minus_30_to_30(low, high):
    a = Gaussian(torch.tensor([[3.0]], requires_grad=True), torch.tensor([[low]], requires_grad=True))
    b = Gaussian(torch.tensor([[-5.0]], requires_grad=True), torch.tensor([[high]], requires_grad=True))
    q = product_of_experts([a, b])
    exact = 1 + math.exp(-low) + math.exp(-high)
    assert q.mu.item() == pytest.approx((3 * math.exp(-low) - 5 * math.exp(-high)) / exact, rel=1e-5)
    assert q.logvar.item() == pytest.approx(-math.log(exact), rel=1e-5, abs=1e-6)
    value = q.kl() + q.kl(b) + a.kl(b) + b.kl(a) + q.log_prob(torch.zeros(1, 1)) + q.sample().sum()
    value.sum().backward()
    for tensor in (value, a.mu.grad, a.logvar.grad, b.mu.grad, b.logvar.grad):
        assert tensor.isfinite().all()


def test_errors_name_what_was_found():
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 4\)"):
        Gaussian(torch.zeros(2, 3), torch.zeros(2, 4))
    with pytest.raises(ValueError, match="no expert"):
        product_of_experts([])
    with pytest.raises(ValueError, match="expected one shape"):
        product_of_experts([prior(2, 3), prior(2, 4)])
