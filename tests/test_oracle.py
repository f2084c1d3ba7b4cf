"""oracle.py: the closed forms by other routes, and the book's classes and estimators against them."""
import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from mmvae import Gaussian, MuMoVAE, PoEVAE, VanillaVAE, mixture_of_experts, product_of_experts
from mmvae.evaluate import log_likelihood, log_likelihoods, log_weights, oracle
from mmvae.evaluate.oracle import LinearGaussian
from mmvae.observed import joined

I, T, IT = ("I",), ("T",), ("I", "T")  # noqa: E741
SUBSETS = I, T, IT


@pytest.fixture(scope="module", params=(0.0, 0.5), ids=("orthogonal", "correlated"))
def truth(request):
    return oracle.toy(request.param, names=IT)


@pytest.fixture(scope="module")
def orthogonal():
    return oracle.toy(names=IT)


def some(truth, n=6, seed=1):
    return truth.draw(n, torch.Generator().manual_seed(seed))[0]


def of(x, subset):
    return {m: x[m] for m in subset}


MODELS = {"vanilla": (VanillaVAE, {}), "mumo": (MuMoVAE, {}), "poe-v1": (PoEVAE, {"subsets": [IT]}), "poe-v2": (PoEVAE, {}),
          "wg-v1": (PoEVAE, {"private": 0, "shared": 7, "subsets": [IT]}), "wg-v2": (PoEVAE, {"private": 0, "shared": 7})}


def linear(name, truth, **options):
    cls, usual = MODELS[name]
    return oracle.linear(cls, truth, **usual | options)


class Inexact(LinearGaussian):
    """The exact model with a proposal that is off: means shifted, variances doubled."""

    def posteriors(self, x, subsets):
        return {s: {b: Gaussian(g.mu + 0.1, g.logvar + math.log(2)) for b, g in q.items()}
                for s, q in super().posteriors(x, subsets).items()}


def inexact(truth):
    return Inexact(truth.loadings, truth.offset, truth.noise, truth.blocks)


@torch.no_grad()
def tell_the_truth(model, truth):
    """Set the linear networks of a MuMo-VAE or an MMPOE-VAE to the truth's own values.

    MuMo's encoders: mean and diagonal precision of the exact posteriors. An MMPOE expert's z_S: that precision less the
    prior's 1, which the product adds, with precision * mean unchanged.
    """
    oracle.give_decoders(model, truth)
    for name, encoder in model.encoders.items():
        s = tuple(name.split("+"))
        W, precision = truth.loadings[truth.rows(s)], truth.precision(s)
        columns = torch.cat([torch.arange(7)[truth.columns(b)] for b in encoder.blocks])
        gain = (torch.linalg.inv(precision) @ W.T)[columns] / truth.noise ** 2
        lam = precision.diagonal()[columns]
        if isinstance(model, PoEVAE):
            expert = lam - torch.cat([torch.full((dim,), float(b == "S")) for b, dim in encoder.blocks.items()])
            gain, lam = gain * (lam / expert)[:, None], expert
        encoder.net.mu.weight.copy_(gain)
        encoder.net.mu.bias.copy_(-gain @ truth.offset[truth.rows(s)])
        encoder.net.logvar.copy_(-lam.log())
    return model


# ---- the closed forms

def test_toy_data_are_what_they_say():
    for rho in (0.0, 0.5):
        truth = oracle.toy(rho, names=IT)
        for m in "IT":
            A = truth.loadings[truth.rows((m,))]
            other = "T" if m == "I" else "I"
            assert not A[:, truth.columns(other)].any()
            A = A[:, [c for b in "IST" if b != other for c in range(7)[truth.columns(b)]]]
            cosine = (A.T @ A) / A.norm(dim=0).outer(A.norm(dim=0)) - torch.eye(5)
            torch.testing.assert_close(cosine.abs(), rho * (1 - torch.eye(5).double()), atol=1e-12, rtol=0)
    lengths = [oracle.toy(rho, names=IT).loadings.norm(dim=0) for rho in (0.0, 0.5)]
    torch.testing.assert_close(*lengths)
    with pytest.raises(ValueError, match=r"expected a row and an offset for each number"):
        LinearGaussian(truth.loadings[:, 1:], truth.offset, 0.5, truth.blocks)


def test_samples_and_sigma_points_have_the_exact_moments(truth):
    x, z = truth.draw(100_000, torch.Generator().manual_seed(0))
    both, exact = torch.cat([x["I"], x["T"]], 1), truth.covariance(IT, IT)
    torch.testing.assert_close(both.mean(0), truth.offset, atol=0.03, rtol=0)
    torch.testing.assert_close(both.T.cov(), exact, atol=0.06, rtol=0)
    assert {b: v.shape[1] for b, v in z.items()} == truth.blocks
    points = torch.cat(list(truth.sigma_points().values()), 1)
    torch.testing.assert_close(points.mean(0), truth.offset)
    torch.testing.assert_close(points.T.cov(correction=0), exact)


def test_means_over_sigma_points_are_expectations(truth):
    for s in SUBSETS:  # the mean log-likelihood is minus the entropy of the normal
        covariance = truth.covariance(s, s)
        entropy = MultivariateNormal(torch.zeros(len(covariance)).double(), covariance).entropy()
        torch.testing.assert_close(truth.exact_log_likelihood(of(truth.sigma_points(), s)).mean(), -entropy)


def test_log_likelihood_is_that_of_the_joint_normal(truth):
    x, eye = some(truth), torch.eye(12).double()
    A, B = truth.loadings[:12, :5], truth.loadings[12:, 2:]  # columns of A: I I S S S; of B: S S S T T
    across = A[:, 2:] @ B[:, :3].T
    left, right = torch.cat([A @ A.T + 0.25 * eye, across.T]), torch.cat([across, B @ B.T + 0.25 * eye])
    covariance = torch.cat([left, right], 1)
    expected = MultivariateNormal(truth.offset, covariance).log_prob(torch.cat([x["I"], x["T"]], 1))
    torch.testing.assert_close(truth.exact_log_likelihood(x), expected)
    expected = MultivariateNormal(truth.offset[12:], covariance[12:, 12:]).log_prob(x["T"])
    torch.testing.assert_close(truth.exact_log_likelihood({"T": x["T"]}), expected)


@pytest.mark.parametrize("subset, blocks", [(I, {"I": 1, "S": 1, "T": 0}), (IT, {"I": 1, "S": 1, "T": 0}),
                                            (T, {"I": 0, "S": 1, "T": 1})])
def test_log_likelihood_and_posterior_by_quadrature(subset, blocks):
    """p(x) and the moments of p(z | x) by summation over a grid of the two latents."""
    g = torch.Generator().manual_seed(3)
    W = torch.randn(6, 2, generator=g, dtype=torch.float64)
    W[slice(3, 6) if blocks["I"] else slice(0, 3), 0 if blocks["I"] else 1] = 0
    truth = LinearGaussian(W, torch.randn(6, generator=g, dtype=torch.float64), 0.6, blocks)
    x = of(some(truth, 1), subset)
    line = torch.linspace(-7, 7, 1401, dtype=torch.float64)
    z = torch.cartesian_prod(line, line)  # (N, 2)
    mean = truth.offset + z @ W.T
    mean = {"I": mean[:, :3], "T": mean[:, 3:]}
    log_p = -0.5 * z.square().sum(1) - math.log(2 * math.pi)
    for m in subset:
        log_p = log_p + torch.distributions.Normal(mean[m], 0.6).log_prob(x[m]).sum(1)
    log_p = log_p + 2 * math.log(line[1] - line[0])
    torch.testing.assert_close(truth.exact_log_likelihood(x)[0], log_p.logsumexp(0), atol=1e-8, rtol=0)
    p = log_p.softmax(0)
    m, covariance = truth.exact_posterior(x)
    torch.testing.assert_close(p @ z, m[0], atol=1e-8, rtol=0)
    torch.testing.assert_close((z.T * p) @ z - m[0].outer(m[0]), covariance, atol=1e-8, rtol=0)


@pytest.mark.parametrize("subset", SUBSETS)
def test_posterior_is_the_conditional_of_the_joint_normal(truth, subset):
    """The covariance form, cov(z, x) cov(x)^-1 (x - b), against the precision form of the module."""
    x, W = some(truth), truth.loadings[truth.rows(subset)]
    gain = W.T @ torch.linalg.inv(W @ W.T + 0.25 * torch.eye(len(W)).double())
    mean, covariance = truth.exact_posterior(of(x, subset))
    both = torch.cat([x[m] for m in subset], 1)
    torch.testing.assert_close(mean, (both - truth.offset[truth.rows(subset)]) @ gain.T)
    torch.testing.assert_close(covariance, torch.eye(7).double() - gain @ W)


def test_posterior_against_simulation(truth):
    """What is left of z after its posterior mean has the posterior's covariance, and nothing to do with x."""
    x, z = truth.draw(100_000, torch.Generator().manual_seed(2))
    for subset in SUBSETS:
        mean, covariance = truth.exact_posterior(of(x, subset))
        left = torch.cat(list(z.values()), 1) - mean
        torch.testing.assert_close(left.T @ left / len(left), covariance, atol=0.02, rtol=0)
        torch.testing.assert_close(left.T @ x[subset[0]] / len(left), torch.zeros(7, 12).double(), atol=0.03, rtol=0)


def test_as_a_model_it_has_the_book_s_form(truth):
    x = some(truth)
    q = truth.posterior({"I": x["I"]})
    assert list(q) == ["I", "S", "T"] and not q["T"].mu.any() and not q["T"].logvar.any()
    decoded = truth.decode({b: g.mu for b, g in truth.posterior(x).items()})
    assert decoded["T"].shape == x["T"].shape and truth.likelihood("T").log_prob(decoded["T"], x["T"]).shape == (6,)
    torch.testing.assert_close(truth.likelihood("I").log_prob(decoded["I"], x["I"]),
                               torch.distributions.Normal(decoded["I"], 0.5).log_prob(x["I"]).sum(1))


def test_the_mean_field_posterior_is_the_nearest_and_its_gap_the_formula(truth):
    x = some(truth)
    for s in SUBSETS:
        gap = oracle.inference_gap(truth, of(x, s))
        torch.testing.assert_close(gap, torch.full_like(gap, truth.mean_field(s)), atol=1e-10, rtol=0)
        mean, covariance = truth.exact_posterior(of(x, s))
        for factor in (0.9, 1.0, 1.1):  # any other variance is farther away
            variance = factor / truth.precision(s).diagonal()
            q = MultivariateNormal(mean, torch.diag(variance))
            kl = torch.distributions.kl_divergence(q, MultivariateNormal(mean, covariance))
            assert (kl > gap - 1e-10 if factor == 1 else kl > gap + 1e-3).all()
    assert (truth.mean_field(IT) > 0.1) == (truth.precision(IT)[0, 2].abs() > 1e-6)


# ---- ELBO and importance-weighted estimates

@pytest.mark.parametrize("subset", SUBSETS)
def test_elbo_at_the_exact_posterior_is_the_log_likelihood_for_every_sample(orthogonal, subset):
    x = of(some(orthogonal), subset)
    weights = log_weights(orthogonal, x, 50)
    exact = orthogonal.exact_log_likelihood(x)
    torch.testing.assert_close(weights, exact[:, None].expand_as(weights), atol=1e-9, rtol=0)
    q = {b: g for b, g in orthogonal.posterior(x).items()}
    z = {b: g.sample() for b, g in q.items()}
    log_p = sum(orthogonal.likelihood(m).log_prob(orthogonal.decode(z, (m,))[m], x[m]) for m in subset)
    ratio = sum(Gaussian(0 * g.mu, 0 * g.mu).log_prob(z[b]) - g.log_prob(z[b]) for b, g in q.items())
    torch.testing.assert_close(log_p + ratio, exact, atol=1e-9, rtol=0)


@pytest.mark.parametrize("subset", SUBSETS)
def test_importance_weighted_estimate_finds_the_exact_value(truth, subset):
    """Within 4 standard errors (delta method: sd of the weights over their mean and sqrt(K)), batch 6, K = 1000."""
    x = of(some(truth), subset)
    estimate = log_likelihoods(inexact(truth), x, (1000,))[1000]
    w = (log_weights(inexact(truth), x, 1000) - estimate[:, None]).exp()
    error = w.std(1) / math.sqrt(1000)
    exact = truth.exact_log_likelihood(x)
    assert (error < 0.2).all() and ((estimate - exact).abs() < 4 * error).all()
    torch.testing.assert_close(estimate.mean(), exact.mean(), atol=0.1, rtol=0)


def test_neither_the_batch_nor_the_chunk_changes_a_digit_and_k_only_raises(truth):
    x, model = some(truth, 6), inexact(truth)
    whole = log_likelihoods(model, x, (1, 10, 100))
    for chunk in (1, 7, 64):
        for k, value in log_likelihoods(model, x, (1, 10, 100), chunk=chunk).items():
            torch.testing.assert_close(value, whole[k], atol=1e-9, rtol=0)
    for batch in (1, 2, 5):
        part = log_likelihoods(model, {m: v[:batch] for m, v in x.items()}, (1, 10, 100))
        for k, value in part.items():
            torch.testing.assert_close(value, whole[k][:batch], atol=1e-9, rtol=0)
    many = some(truth, 200)
    bounds = [value.mean() for value in log_likelihoods(model, many, (1, 10, 100)).values()]
    assert bounds == sorted(bounds) and bounds[-1] < truth.exact_log_likelihood(many).mean() + 0.1
    elbo = truth.exact_log_likelihood(x) - oracle.inference_gap(model, x)  # K = 1 is the ELBO
    torch.testing.assert_close(log_likelihoods(model, x, (1, 2000))[1], elbo, atol=0.4, rtol=0)
    with pytest.raises(ValueError, match="expected divisors of the largest"):
        log_likelihoods(model, x, (3, 10))


# ---- products of experts, and the other modality

def test_product_of_experts_in_its_three_writings(orthogonal):
    x = some(orthogonal)
    single = {m: orthogonal.posterior({m: x[m]})["S"] for m in "IT"}
    joint = orthogonal.posterior(x)["S"]
    experts = []  # proportional to p(x_m | z_S), z_m integrated out
    for m in "IT":
        W = orthogonal.loadings[orthogonal.rows((m,))]
        private, B = W[:, orthogonal.columns(m)], W[:, orthogonal.columns("S")]
        inverse = torch.linalg.inv(private @ private.T + 0.25 * torch.eye(12).double())
        precision = B.T @ inverse @ B
        mean = (x[m] - orthogonal.offset[orthogonal.rows((m,))]) @ inverse @ B @ torch.linalg.inv(precision)
        experts.append(Gaussian(mean, -precision.diagonal().log().expand_as(mean)))
    first = product_of_experts(experts)
    precision = single["I"].precision + single["T"].precision - 1
    mean = sum(q.precision * q.mu for q in single.values()) / precision
    for q in (first, Gaussian(mean, -precision.log())):
        torch.testing.assert_close(q.mu, joint.mu)
        torch.testing.assert_close(q.logvar, joint.logvar)
    for expert, m in zip(experts, "IT"):  # the prior inside the single posteriors
        torch.testing.assert_close(product_of_experts([expert]).mu, single[m].mu)
        torch.testing.assert_close(product_of_experts([expert]).logvar, single[m].logvar)
    twice = product_of_experts(list(single.values()))  # single posteriors as experts: too sure
    assert (twice.precision > joint.precision + 1.9).all()


def test_poe_gets_all_three_posteriors_right_only_with_the_prior_inside(orthogonal):
    x = some(orthogonal)
    for single_prior in (True, False):
        model = tell_the_truth(linear("poe-v2", orthogonal, single_prior=single_prior), orthogonal)
        for s in SUBSETS:
            gap = oracle.inference_gap(model, of(x, s))
            right = single_prior or s == IT
            assert (gap < 1e-9).all() if right else (gap > 1e-2).all()


def test_cross_modal_synthesis_is_the_exact_conditional(truth):
    """By simulation: z_S from its posterior given x_I, z_T from its prior, decode, add noise."""
    x = some(truth, 1)
    for given, target in IT, IT[::-1]:
        mean, covariance = truth.conditional({given: x[given]})
        m, V = truth.exact_posterior({given: x[given]})
        draw = MultivariateNormal(m[0], V)
        torch.manual_seed(0)
        z = draw.sample((100_000,))
        torch.testing.assert_close(V[truth.columns(target), truth.columns(target)], torch.eye(2).double())
        made = truth.decode({b: z[:, truth.columns(b)] for b in truth.blocks}, (target,))[target]
        made = made + truth.noise * torch.randn_like(made)
        torch.testing.assert_close(made.mean(0), mean[0], atol=0.03, rtol=0)
        torch.testing.assert_close(made.T.cov(), covariance, atol=0.05, rtol=0)
        joint = truth.exact_log_likelihood(x) - truth.exact_log_likelihood({given: x[given]})
        torch.testing.assert_close(oracle.log_normal(x[target], mean, covariance), joint)
    with pytest.raises(ValueError, match="expected one or more to be left"):
        truth.conditional(x)


def test_cross_log_likelihood_of_an_exact_model_is_exact(orthogonal):
    x = some(orthogonal)
    model = tell_the_truth(linear("mumo", orthogonal), orthogonal)
    for given in "IT":
        exact = orthogonal.exact_log_likelihood(x) - orthogonal.exact_log_likelihood({given: x[given]})
        torch.testing.assert_close(oracle.cross_log_likelihood(model, x, (given,)), exact)


# ---- the book's classes

def test_reading_the_decoders_back(truth):
    for name in ("mumo", "poe-v1"):
        back = oracle.learnt(oracle.give_decoders(linear(name, truth), truth))
        torch.testing.assert_close(back.loadings, truth.loadings)
        torch.testing.assert_close(back.offset, truth.offset)
    torch.manual_seed(0)
    for name, options in (("vanilla", {}), ("wg-v2", {}), ("mumo", {"private": 1, "shared": 6})):
        model = linear(name, truth, **options)
        z = {b: torch.randn(4, dim).double() for b, dim in model.blocks.items()}
        for m, mean in model.decode(z).items():
            torch.testing.assert_close(oracle.learnt(model).decode(z)[m], mean)


@pytest.mark.parametrize("name, options", [("mumo", {}), ("poe-v2", {"single_prior": True})])
def test_loss_of_an_exact_model_is_minus_the_log_likelihoods(orthogonal, name, options):
    """Pair by pair the KL and the sampled reconstruction only agree on average: 20,000 draws of each pair's noise."""
    model, x = tell_the_truth(linear(name, orthogonal, **options), orthogonal), some(orthogonal, 2)
    exact = {s: orthogonal.exact_log_likelihood(of(x, s)) for s in SUBSETS}
    torch.manual_seed(0)
    terms = model.terms({m: v.repeat_interleave(20_000, 0) for m, v in x.items()})
    for s in SUBSETS:
        found = terms[f"{joined(s)}.elbo"].unflatten(0, (2, -1)).mean(1)
        torch.testing.assert_close(found, exact[s], atol=0.06, rtol=0)
        assert (oracle.inference_gap(model, of(x, s)) < 1e-9).all()
    torch.testing.assert_close(terms["total"].unflatten(0, (2, -1)).mean(1), -sum(exact.values()), atol=0.12, rtol=0)


def test_loss_of_poe_with_the_prior_outside_has_the_closed_form_gap(orthogonal):
    """Experts right for the pair: each single posterior is short by KL(expert || true single posterior)."""
    model, x = tell_the_truth(linear("poe-v2", orthogonal), orthogonal), some(orthogonal, 2)
    for m in "IT":
        gap = model.encoders[m](x[m])["S"].kl(orthogonal.posterior({m: x[m]})["S"])
        assert (gap > 1e-2).all()
        torch.testing.assert_close(oracle.inference_gap(model, {m: x[m]}), gap, atol=1e-9, rtol=1e-7)
        torch.manual_seed(0)
        elbo = model.terms({m: v.repeat_interleave(20_000, 0) for m, v in x.items()}, subsets=[(m,)])[f"{m}.elbo"]
        expected = orthogonal.exact_log_likelihood({m: x[m]}) - gap
        torch.testing.assert_close(elbo.unflatten(0, (2, -1)).mean(1), expected, atol=0.1, rtol=0)


@pytest.mark.parametrize("name", ["vanilla", "mumo", "poe-v1", "poe-v2", "wg-v1", "wg-v2"])
def test_sampled_loss_of_any_linear_model_is_log_likelihood_minus_gap(truth, name):
    torch.manual_seed(0)
    model, x = linear(name, truth), some(truth, 2)
    exact = oracle.exact_elbos(model, x)
    assert tuple(exact) == model.subsets
    for s in model.subsets:
        gap = oracle.inference_gap(model, of(x, s))
        torch.testing.assert_close(exact[s], oracle.learnt(model).exact_log_likelihood(of(x, s)) - gap)
    with torch.no_grad():
        terms = model.terms({m: v.repeat_interleave(20_000, 0) for m, v in x.items()})
    for s, expected in exact.items():
        elbo = terms[f"{joined(s)}.elbo"].unflatten(0, (2, -1))
        error = elbo.std(1) / math.sqrt(20_000)
        assert ((elbo.mean(1) - expected).abs() < 5 * error + 1e-9).all()


def test_the_gap_to_the_truth_splits_into_two_divergences(truth):
    """Means over the sigma points: log p - log p_theta is the KL of two normals, and the rest the inference gap."""
    torch.manual_seed(0)
    model, x = linear("poe-v2", truth), truth.sigma_points()
    model = oracle.give_decoders(model, oracle.toy(0.2, seed=1, names=IT))
    p_theta = oracle.learnt(model)
    for s, elbo in oracle.exact_elbos(model, x).items():
        normals = [MultivariateNormal(p.offset[p.rows(s)], p.covariance(s, s)) for p in (truth, p_theta)]
        split = torch.distributions.kl_divergence(*normals) + oracle.inference_gap(model, of(x, s)).mean()
        torch.testing.assert_close((truth.exact_log_likelihood(of(x, s)) - elbo).mean(), split)


def test_importance_weighted_estimate_of_a_linear_model(truth):
    torch.manual_seed(0)
    model, x = linear("mumo", truth), some(truth, 4)
    estimate = log_likelihoods(tell_the_truth(model, truth), x, (1000,))[1000]
    np.testing.assert_allclose(estimate.numpy(), truth.exact_log_likelihood(x).numpy(), atol=0.3)


def test_a_private_latent_in_a_spare_shared_one_changes_no_likelihood_and_no_exact_bound(orthogonal):
    """eq-mumo-move, exactly."""
    W = orthogonal.loadings
    spare, blocks = torch.zeros(24, 1).double(), {"I": 2, "S": 4, "T": 2}
    home = LinearGaussian(torch.cat([W[:, :5], spare, W[:, 5:]], 1), orthogonal.offset, 0.5, blocks)
    moved = LinearGaussian(torch.cat([spare, W[:, 1:5], W[:, :1], W[:, 5:]], 1), orthogonal.offset, 0.5, blocks)
    x = some(orthogonal)
    for s in SUBSETS:
        exact = orthogonal.exact_log_likelihood(of(x, s))
        for other in (home, moved):
            torch.testing.assert_close(other.exact_log_likelihood(of(x, s)), exact)
            assert (oracle.inference_gap(other, of(x, s)).abs() < 1e-9).all()


def test_a_rotation_within_a_block_changes_no_likelihood_but_the_mean_field_bound(orthogonal):
    turn = torch.eye(7).double()
    c, s = math.cos(0.5), math.sin(0.5)
    turn[2:4, 2:4] = torch.tensor([[c, -s], [s, c]])
    turned = LinearGaussian(orthogonal.loadings @ turn, orthogonal.offset, 0.5, orthogonal.blocks)
    x = some(orthogonal)
    for subset in SUBSETS:
        torch.testing.assert_close(turned.exact_log_likelihood(of(x, subset)),
                                   orthogonal.exact_log_likelihood(of(x, subset)))
        assert turned.mean_field(subset) > 0.01 > 1e-9 > orthogonal.mean_field(subset)


# ---- log p(x | given) in every direction; three modalities of other names

ABC = "a", "b", "c"


@pytest.fixture(scope="module")
def three():
    """Of three modalities, with correlated loadings: the posterior is off, as the mean field is."""
    return oracle.toy(0.5, size=5, names=ABC)


def exactly(truth, x, given):
    return truth.exact_log_likelihood(x | given) - (truth.exact_log_likelihood(given) if given else 0)


def is_right(truth, x, given, samples=4000):
    """Within 4 standard errors, of some size where the posterior is not exact, as is the number of draws that count."""
    estimate = log_likelihood(inexact(truth), x, given, samples)
    exact = exactly(truth, x, given)
    assert (estimate.error < 0.25).all() and (estimate.error > 1e-4).all()
    assert ((estimate.value - exact).abs() < 4 * estimate.error).all(), (list(x), list(given))
    assert (estimate.ess > 30).all() and (estimate.ess < samples).all()


@pytest.mark.parametrize("want, given", [(I, ()), (T, ()), (IT, ()), (I, T), (T, I)], ids=str)
def test_the_conditional_of_two_modalities_is_exact_within_its_error(truth, want, given):
    x = some(truth, 4)
    is_right(truth, of(x, want), of(x, given))


@pytest.mark.parametrize("want, given", [(("a",), ("b",)), (("b",), ("a", "c")), (("a", "c"), ("b",)), (("c", "a"), ()),
                                         (("c",), ("b", "a")), (ABC, ()), (("a", "b"), ("c",))], ids=str)
def test_the_conditional_of_three_modalities_is_exact_within_its_error(three, want, given):
    x = some(three, 4)
    is_right(three, of(x, want), of(x, given))
    if given:  # and the exact one is that of the joint normal
        mean, covariance = three.conditional(of(x, given), tuple(m for m in ABC if m in want))
        found = oracle.log_normal(torch.cat([x[m] for m in ABC if m in want], 1), mean, covariance)
        torch.testing.assert_close(found, exactly(three, of(x, want), of(x, given)))


def test_the_error_is_the_spread_of_repetitions(truth):
    """Of a conditional, whose parts share their noise."""
    x = some(truth, 2)
    runs = [log_likelihood(inexact(truth), of(x, I), of(x, T), 300, seed=s) for s in range(60)]
    spread = torch.stack([run.value for run in runs]).std(0)
    said = torch.stack([run.error for run in runs]).square().mean(0).sqrt()
    assert (spread / said).log().abs().max() < 0.5


def test_an_exact_posterior_leaves_no_error_and_every_draw_counts(orthogonal):
    x = some(orthogonal)
    value, error = estimate = log_likelihood(orthogonal, of(x, I), of(x, T), 10)
    torch.testing.assert_close(value, exactly(orthogonal, of(x, I), of(x, T)))
    assert (error < 1e-9).all() and torch.allclose(estimate.ess, torch.tensor(10.0).double())


def test_a_mixture_of_experts_has_the_exact_likelihood_too(three):
    """Any posterior will do: here a mixture of those of the single modalities."""
    class Mixed(LinearGaussian):
        def posteriors(self, x, subsets):
            found = super().posteriors(x, [*subsets, *((m,) for m in x)])
            return {s: found[s] | {"S": mixture_of_experts([found[(m,)]["S"] for m in s])} for s in subsets}

    model, x = Mixed(three.loadings, three.offset, three.noise, three.blocks), some(three, 3)
    value, error = log_likelihood(model, x, samples=20_000)
    assert ((value - three.exact_log_likelihood(x)).abs() < 4 * error + 0.02).all() and (error < 0.4).all()


def test_a_row_with_gaps_has_the_exact_likelihood_of_what_it_has(three):
    x, present = some(three, 4), {"b": torch.arange(4) % 2 == 0, "c": torch.arange(4) < 2}
    exact = torch.stack([three.exact_log_likelihood({m: v[k:k + 1] for m, v in x.items() if m == "a" or present[m][k]})[0]
                         for k in range(4)])
    value, error = log_likelihood(inexact(three), x, samples=4000, present=present)
    assert ((value - exact).abs() < 4 * error).all()


def test_three_modalities_have_the_joint_normals_moments(three):
    assert list(three.blocks) == ["a", "b", "S", "c"] and three.sizes == dict.fromkeys(ABC, 5)
    x, z = three.draw(60_000, torch.Generator().manual_seed(0))
    every = torch.cat([x[m] for m in ABC], 1)
    torch.testing.assert_close(every.T.cov(), three.covariance(ABC, ABC), atol=0.15, rtol=0)
    W = three.loadings[three.rows(("c", "a"))]
    assert not W[:5, three.columns("a")].any() and not W[:, three.columns("b")].any() and W[5:, three.columns("a")].any()
    for s in three.seen:
        mean, covariance = three.exact_posterior(of(x, s))
        left = torch.cat(list(z.values()), 1) - mean
        torch.testing.assert_close(left.T @ left / len(left), covariance, atol=0.03, rtol=0)


@pytest.mark.parametrize("cls, options", [(VanillaVAE, {}), (MuMoVAE, {}), (PoEVAE, {}), (PoEVAE, {"single_prior": True}),
                                          (PoEVAE, {"private": 0, "shared": 9}),
                                          (MuMoVAE, {"subsets": [("a",), ("b", "c")]})])
def test_a_linear_model_of_three_modalities_has_the_exact_bounds_of_its_decoders(three, cls, options):
    torch.manual_seed(0)
    model, x = oracle.linear(cls, three, **options), some(three, 2)
    exact = oracle.exact_elbos(model, x)
    assert tuple(exact) == model.subsets and sum(model.blocks.values()) == 9
    p_theta = oracle.learnt(model)
    for s in model.subsets:
        torch.testing.assert_close(exact[s], p_theta.exact_log_likelihood(of(x, s)) - oracle.inference_gap(model, of(x, s)))
    with torch.no_grad():
        terms = model.terms({m: v.repeat_interleave(8000, 0) for m, v in x.items()})
    for s, expected in exact.items():
        elbo = terms[f"{joined(s)}.elbo"].unflatten(0, (2, -1))
        assert ((elbo.mean(1) - expected).abs() < 5 * elbo.std(1) / math.sqrt(8000) + 1e-9).all()
    z = {b: torch.randn(4, dim).double() for b, dim in model.blocks.items()}
    for m, mean in model.decode(z).items():
        torch.testing.assert_close(p_theta.decode(z)[m], mean)


def test_modalities_of_unequal_sizes(three):
    kept = [0, 1, 2, 3, 4, 5, 6, 7, 8, 10, 11]
    truth = LinearGaussian(three.loadings[kept], three.offset[kept], 0.5, three.blocks, {"a": 5, "b": 4, "c": 2})
    x = some(truth)
    assert {m: v.shape[1] for m, v in x.items()} == truth.sizes
    model = oracle.give_decoders(oracle.linear(MuMoVAE, truth), truth)
    torch.testing.assert_close(oracle.learnt(model).loadings, truth.loadings)
    exact = exactly(truth, of(x, ("c",)), of(x, ("b",)))
    q = truth.posterior(of(x, ("b",)))
    assert oracle.cross_log_likelihood(model, x, ("b",)).shape == (6,) and list(q) == list(truth.blocks)
    mean, covariance = truth.conditional(of(x, ("b",)), ("c",))
    torch.testing.assert_close(oracle.log_normal(x["c"], mean, covariance), exact)


@pytest.mark.parametrize("name", list(MODELS))
def test_the_seed_alone_decides_where_a_linear_model_starts(truth, name):
    def weights(seed):
        torch.manual_seed(seed)
        return torch.cat([p.detach().flatten() for p in linear(name, truth).parameters()])

    first = weights(0)
    torch.testing.assert_close(weights(0), first, atol=0, rtol=0)
    assert (weights(1) != first).any() and first.isfinite().all()
