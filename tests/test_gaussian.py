"""gaussian.py against torch.distributions, quadrature and brute force."""
import math

import pytest
import torch
from torch import distributions as D
from torch.distributions import Normal, kl_divergence

from mmvae import Gaussian, Mixture, mixture_of_experts, mixture_of_products, prior, product_of_experts
from mmvae.gaussian import bounded


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


# ---------------------------------------------------------------- mixtures, and fusing with gaps


def reference(parts, weights):
    components = D.Independent(Normal(torch.stack([g.mu for g in parts], 1),
                                      torch.stack([g.logvar for g in parts], 1).mul(0.5).exp()), 1)
    return D.MixtureSameFamily(D.Categorical(probs=weights), components)


@pytest.fixture
def mixture():
    parts = tuple(random_gaussian(4, 3, seed=s) for s in range(3))
    weights = torch.tensor([[0.2, 0.3, 0.5], [1, 0, 0], [0, 0.5, 0.5], [1 / 3] * 3], dtype=torch.float64)
    return Mixture(parts, weights)


def test_a_mixtures_density_and_moments_are_those_of_torch_distributions(mixture):
    p, z = reference(mixture.parts, mixture.weights), torch.randn(7, 4, 3, dtype=torch.float64)
    torch.testing.assert_close(mixture.log_prob(z), torch.stack([p.log_prob(part) for part in z]))
    torch.testing.assert_close(mixture.log_prob(z[0]), p.log_prob(z[0]))
    torch.testing.assert_close(mixture.mu, p.mean)
    torch.testing.assert_close(mixture.logvar.exp(), p.variance)
    torch.testing.assert_close(mixture.precision, 1 / p.variance)


def test_a_mixtures_samples_and_its_kl(mixture):
    torch.manual_seed(0)
    many = Mixture(tuple(Gaussian(g.mu[:1].expand(100_000, 3), g.logvar[:1].expand(100_000, 3)) for g in mixture.parts),
                   mixture.weights[:1].expand(100_000, 3))
    z = many.sample()
    torch.testing.assert_close(z.mean(0), mixture.mu[0], atol=0.03, rtol=0)
    torch.testing.assert_close(z.var(0), mixture.logvar[0].exp(), rtol=0.04, atol=0)
    ratio, kl = many.log_prob(z) - prior(*z.shape, like=z).log_prob(z), many.kl()
    error = (ratio.var() / 100_000 + kl.var() / 100_000).sqrt()
    assert abs(ratio.mean() - kl.mean()) < 4 * error and kl.var() < ratio.var()  # strata take the noise of the choice away
    strata = many.stratified()
    assert strata.shape == (3, 100_000, 3)
    torch.testing.assert_close(strata.mean(1), torch.stack([g.mu[0] for g in mixture.parts]), atol=0.03, rtol=0)


def test_a_mixture_never_draws_from_what_is_not_there(mixture):
    far = Gaussian(torch.full((500, 3), 1e6), torch.zeros(500, 3))
    near = Gaussian(torch.zeros(500, 3), torch.zeros(500, 3))
    for parts, weights in (((far, near, far), [0.0, 1, 0]), ((near, far), [1.0, 0]), ((far, near), [0.0, 1])):
        assert Mixture(parts, torch.tensor(weights).expand(500, -1)).sample().abs().max() < 10


def test_generators_repeat_what_they_draw(mixture):
    for q in (mixture, mixture.parts[0]):
        a, b = (q.sample(torch.Generator().manual_seed(3)) for _ in range(2))
        assert torch.equal(a, b) and not torch.equal(a, q.sample(torch.Generator().manual_seed(4)))


MASKS = [None, torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])]


def test_fusing_with_gaps_is_fusing_what_is_there():
    experts = [random_gaussian(4, 3, seed=s) for s in range(3)]
    z = torch.randn(4, 3, dtype=torch.float64)
    for fuse in (product_of_experts, mixture_of_experts, mixture_of_products):
        found = fuse(experts, masks=MASKS)
        for row in range(4):
            there = [Gaussian(e.mu[row:row + 1], e.logvar[row:row + 1]) for e, mask in zip(experts, MASKS)
                     if mask is None or mask[row]]
            torch.testing.assert_close(found.log_prob(z)[row], fuse(there).log_prob(z[row:row + 1])[0])


def test_a_product_of_nothing_is_the_prior():
    experts = [random_gaussian(2, 3, seed=s) for s in range(2)]
    nothing = product_of_experts(experts, masks=[torch.tensor([False, True])] * 2)
    assert (nothing.mu[0] == 0).all() and (nothing.logvar[0] == 0).all() and (nothing.mu[1] != 0).all()


def test_a_mixture_of_products_has_every_non_empty_set():
    experts = [random_gaussian(1, 1, seed=s) for s in range(3)]
    found = mixture_of_products(experts)
    sets = [[0], [1], [2], [0, 1], [0, 2], [1, 2], [0, 1, 2]]
    expected = [product_of_experts([experts[k] for k in some]) for some in sets]
    assert len(found.parts) == 7 and torch.allclose(found.weights, torch.full((1, 7), 1 / 7, dtype=torch.float64))
    for a, b in zip(found.parts, expected):
        torch.testing.assert_close(a.mu, b.mu)
        torch.testing.assert_close(a.logvar, b.logvar)


def test_a_mask_lets_no_gradient_of_what_is_not_there_pass():
    mu = torch.randn(2, 3, requires_grad=True)
    q = product_of_experts([Gaussian(mu, torch.zeros(2, 3)), Gaussian(torch.ones(2, 3), torch.zeros(2, 3))],
                           masks=[torch.tensor([True, False]), None])
    q.mu.square().sum().backward()
    assert (mu.grad[0] != 0).all() and (mu.grad[1] == 0).all()


@pytest.mark.parametrize("make, message", [
    (lambda g: mixture_of_experts([]), "mixture_of_experts: got no expert"),
    (lambda g: mixture_of_products([g, random_gaussian(2, 3)]), "mixture_of_products: experts of shapes"),
    (lambda g: Mixture((g,), torch.ones(4, 2)), r"weights have shape \(4, 2\), expected \(4, 1\)")])
def test_what_cannot_be_fused_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(random_gaussian(4, 3))


def test_bounded_is_the_identity_in_between_and_never_flat():
    t = torch.tensor([-1e30, -1e6, -15.5, -15.0, -3.0, 0.0, 7.0, 15.0, 15.5, 1e6, 1e30], requires_grad=True)
    b = bounded(t)
    assert torch.equal(b[3:8], t[3:8]) and b.isfinite().all() and b.abs().max() < 85
    assert b[9] < 30 and (b[1:] > b[:-1]).all()
    b[1:10].sum().backward()
    assert (t.grad[1:10] > 0).all() and (t.grad[3:8] == 1).all()


def test_a_part_that_is_not_there_has_no_say_however_sharp():
    sharp, wide = (Gaussian(torch.zeros(1, 20), torch.full((1, 20), v)) for v in (-15.0, 0.0))
    mixture = Mixture((sharp, wide), torch.tensor([[0.0, 1.0]]))
    torch.testing.assert_close(mixture.log_prob(torch.zeros(1, 20)), wide.log_prob(torch.zeros(1, 20)))
    nothing = Gaussian(torch.full((1, 20), math.nan), torch.zeros(1, 20))
    assert Mixture((wide, nothing), torch.tensor([[1.0, 0.0]])).kl().isfinite()
    with pytest.raises(ValueError, match="masks: found 1, expected one for each of 2 experts"):
        product_of_experts([sharp, wide], masks=[torch.tensor([True])])
