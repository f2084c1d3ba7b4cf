"""pooling.py and frontier.py against matrices, quadrature, and losses written out row by row with torch.distributions."""
import inspect
import itertools
import math
from functools import partial

import pytest
import torch
from torch import distributions as D

import mmvae
import worlds
from mmvae import Gaussian, Mixture, frontier, gaussian, product_of_experts
from mmvae.frontier import HELVAE, IDMVAE, CoDEVAE, HoelderVAE, MMVMVAE
from mmvae.observed import all_subsets, joined
from mmvae.pooling import consensus_of_experts, geometric_mean, hoelder_pool, moment_match

F64 = torch.float64
MODELS = {"mmvm": partial(MMVMVAE, prior=True), "mmvm by draws": partial(MMVMVAE, prior=True, bound=False),
          "mmvm without the prior": MMVMVAE, "code": CoDEVAE, "code, all learnt": partial(CoDEVAE, correlation=None),
          "helvae": HELVAE, "hoelder": HoelderVAE, "idmvae": IDMVAE}


def random_gaussian(*shape, seed=0, scale=1.0):
    g = torch.Generator().manual_seed(seed)
    return Gaussian(*(scale * torch.randn(*shape, generator=g, dtype=F64) for _ in range(2)))


def row(q, k):
    return Gaussian(q.mu[k:k + 1], q.logvar[k:k + 1])


# ---- the consensus of dependent experts

def by_matrix(experts, rho):
    """1' S^-1 1 and 1' S^-1 mu over it, by solving for the matrix, latent by latent."""
    mu, s = (torch.stack(v, -1) for v in zip(*[(e.mu, (0.5 * e.logvar).exp()) for e in experts]))  # (B, D, E)
    count = len(experts)
    rho = torch.as_tensor(rho, dtype=F64).expand(mu.shape[1])
    precision, mean = torch.empty_like(mu[..., 0]), torch.empty_like(mu[..., 0])
    for b, d in itertools.product(*map(range, precision.shape)):
        S = torch.diag(s[b, d]) @ (rho[d] + (1 - rho[d]) * torch.eye(count, dtype=F64)) @ torch.diag(s[b, d])
        solved = torch.linalg.solve(S, torch.ones(count, dtype=F64))
        precision[b, d], mean[b, d] = solved.sum(), (solved * mu[b, d]).sum() / solved.sum()
    return precision, mean


@pytest.mark.parametrize("rho", [0.0, 0.3, 0.5, 0.95, torch.tensor([0.0, 0.4, 0.9], dtype=F64)])
@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_the_consensus_is_that_of_the_covariance_matrix(count, rho):
    experts = [random_gaussian(4, 3, seed=s) for s in range(count)]
    precision, mean = by_matrix(experts, rho)
    q = consensus_of_experts(experts, rho)
    torch.testing.assert_close(q.precision, precision)
    torch.testing.assert_close(q.mu, mean)


def test_the_consensus_is_the_posterior_of_a_flat_prior_by_quadrature():
    """Two experts report mu of a number z with errors ~ N(0, S): p(z | mu) on a grid, by the density of S alone."""
    mu, s, rho = torch.tensor([0.3, -0.8], dtype=F64), torch.tensor([0.7, 1.9], dtype=F64), 0.6
    S = torch.outer(s, s) * (rho + (1 - rho) * torch.eye(2, dtype=F64))
    z = torch.linspace(-15, 15, 60_001, dtype=F64)
    w = D.MultivariateNormal(torch.zeros(2, dtype=F64), S).log_prob(mu - z[:, None]).softmax(0)
    mean = (w * z).sum()
    q = consensus_of_experts([Gaussian(m.view(1, 1), 2 * v.log().view(1, 1)) for m, v in zip(mu, s)], rho)
    torch.testing.assert_close(q.mu[0, 0], mean, rtol=0, atol=1e-8)
    torch.testing.assert_close(q.logvar.exp()[0, 0], (w * (z - mean).square()).sum(), rtol=1e-8, atol=0)


def test_independent_experts_are_their_product_without_the_prior_and_one_is_itself():
    experts = [random_gaussian(4, 3, seed=s) for s in range(3)]
    q, product = consensus_of_experts(experts, 0.0), product_of_experts(experts, prior=False)
    torch.testing.assert_close(q.mu, product.mu)
    torch.testing.assert_close(q.logvar, product.logvar)
    alone = consensus_of_experts(experts[:1], 0.7)
    torch.testing.assert_close(alone.mu, experts[0].mu)
    torch.testing.assert_close(alone.logvar, experts[0].logvar)


def weight_of_the_wide(ratio, rho):
    """Of two experts, the weight of the one whose deviation is `ratio` >= 1 times the other's: the mean, where it says 1 and
    the other 0."""
    logvar = torch.tensor([[0.0]], dtype=F64)
    sharp, wide = Gaussian(logvar, logvar), Gaussian(logvar + 1, logvar + 2 * math.log(ratio))
    return consensus_of_experts([sharp, wide], rho).mu.item()


@pytest.mark.parametrize("rho", [0.2, 0.5, 0.9, 0.99])
def test_a_weight_is_negative_where_rho_is_above_the_ratio_of_the_deviations_and_has_a_floor(rho):
    ratios = [*torch.linspace(1, 3 / rho, 2001).tolist(), 1e3, 1e6]
    weights = [weight_of_the_wide(r, rho) for r in ratios]
    for ratio, weight in zip(ratios, weights):
        if abs(rho * ratio - 1) > 1e-9:
            assert (weight < 0) == (rho > 1 / ratio)
    floor = (1 - 1 / math.sqrt(1 - rho ** 2)) / 2
    assert min(weights) == pytest.approx(floor, abs=2e-3 * abs(floor)) and min(weights) >= floor - 1e-12


def test_the_precision_is_never_below_the_sharpest_experts():
    experts = [random_gaussian(200, 3, seed=s, scale=2.0) for s in range(4)]
    best = torch.stack([e.precision for e in experts]).amax(0)
    for rho in (0.0, 0.5, 0.99):
        assert (consensus_of_experts(experts, rho).precision >= best * (1 - 1e-9)).all()


@pytest.mark.parametrize("rho", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("low, high", [(-30.0, 30.0), (-30.0, -30.0), (30.0, 30.0), (-30.0, -29.9)])
def test_the_consensus_survives_extreme_log_variances_in_float32(low, high, rho):
    a = Gaussian(torch.full((1, 1), 3.0, requires_grad=True), torch.full((1, 1), low, requires_grad=True))
    b = Gaussian(torch.full((1, 1), -5.0, requires_grad=True), torch.full((1, 1), high, requires_grad=True))
    q = consensus_of_experts([a, b], rho)
    precision, mean = by_matrix([Gaussian(g.mu.double().detach(), g.logvar.double().detach()) for g in (a, b)], rho)
    assert q.logvar.item() == pytest.approx(-precision.log().item(), rel=1e-4, abs=1e-4)
    assert q.mu.item() == pytest.approx(mean.item(), rel=1e-3, abs=1e-4)
    (q.kl() + q.sample().sum()).sum().backward()
    assert all(t.grad.isfinite().all() for t in (a.mu, a.logvar, b.mu, b.logvar))


# ---- Hölder pooling

def grid(*sides, count=401, reach=9.0):
    z = torch.linspace(-reach, reach, count, dtype=F64)
    return torch.cartesian_prod(*[z for _ in sides]).view(-1, len(sides)), (z[1] - z[0]) ** len(sides)


@pytest.mark.parametrize("count, dim, weights", [(1, 1, None), (2, 1, None), (3, 1, [1, 2, 3.5]), (3, 1, [0, 2.0, 1]),
                                                 (2, 2, None), (3, 2, torch.tensor([1.0, 0.2, 3.0], dtype=F64))])
def test_the_pool_is_the_square_of_the_sum_of_roots_normalised_by_quadrature(count, dim, weights):
    experts = [random_gaussian(1, dim, seed=s + 1, scale=0.8) for s in range(count)]
    z, cell = grid(*range(dim), count=8001 if dim == 1 else 601)
    w = torch.ones(count, dtype=F64) if weights is None else torch.as_tensor(weights, dtype=F64)
    density = sum(v * (0.5 * e.log_prob(z)).exp() for v, e in zip(w, experts)).square()
    density = density / (density.sum() * cell)
    pool = hoelder_pool(experts, weights)
    assert len(pool.parts) == count * (count + 1) // 2 and pool.weights.sum().item() == pytest.approx(1)
    torch.testing.assert_close(pool.log_prob(z.unsqueeze(1))[:, 0].exp(), density, rtol=1e-6, atol=1e-9)
    match = moment_match(pool)
    mean = (density.unsqueeze(1) * z).sum(0) * cell
    torch.testing.assert_close(match.mu[0], mean, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(match.logvar[0].exp(), (density.unsqueeze(1) * (z - mean).square()).sum(0) * cell,
                               rtol=1e-6, atol=1e-7)


def test_the_root_of_a_product_and_its_overlap_by_quadrature():
    a, b = random_gaussian(1, 2, seed=1), random_gaussian(1, 2, seed=2)
    z, cell = grid(0, 1, count=801)
    root = (0.5 * (a.log_prob(z) + b.log_prob(z))).exp()
    mean, overlap = geometric_mean(a, b)
    torch.testing.assert_close(overlap.exp()[0], root.sum() * cell, rtol=1e-6, atol=0)
    torch.testing.assert_close(mean.log_prob(z).exp(), root / (root.sum() * cell), rtol=1e-6, atol=1e-12)
    same, nothing = geometric_mean(a, a)
    torch.testing.assert_close(same.mu, a.mu)
    torch.testing.assert_close(nothing, torch.zeros(1, dtype=F64), atol=1e-12, rtol=0)


def test_the_pool_of_experts_far_apart_is_their_mixture_and_of_equal_ones_each_of_them():
    a, b = (Gaussian(torch.full((1, 1), m, dtype=F64), torch.zeros(1, 1, dtype=F64)) for m in (-40.0, 40.0))
    torch.testing.assert_close(hoelder_pool([a, b], [1.0, 3.0]).weights, torch.tensor([[0.1, 0.9, 0.0]], dtype=F64))
    same = moment_match(hoelder_pool([a, a]))
    torch.testing.assert_close(same.mu, a.mu)
    torch.testing.assert_close(same.logvar, a.logvar)


def test_the_matched_gaussian_is_the_nearest():
    """E log g over the pool, by quadrature, falls with every step away from the matched g."""
    pool = hoelder_pool([random_gaussian(1, 1, seed=s) for s in range(3)])
    z, cell = grid(0, count=8001)
    density, best = pool.log_prob(z.unsqueeze(1))[:, 0].exp(), moment_match(pool)

    def score(mu, logvar):
        return ((density * Gaussian(mu, logvar).log_prob(z)).sum() * cell).item()

    for step in (-0.1, 0.1):
        assert score(best.mu + step, best.logvar) < score(best.mu, best.logvar) > score(best.mu, best.logvar + step)


def test_the_pool_and_its_weights_have_finite_gradients_for_extreme_experts():
    for mu, low, high in ((1e10, -30.0, 30.0), (1e3, -30.0, -30.0), (0.0, 30.0, -30.0)):
        tensors = [torch.full((2, 3), v, requires_grad=True) for v in (mu, -mu, low, high)]
        weights = torch.tensor([0.7, 0.3], requires_grad=True)
        pool = hoelder_pool([Gaussian(tensors[0], tensors[2]), Gaussian(tensors[1], tensors[3])], weights)
        assert pool.weights.isfinite().all() and (pool.weights.sum(1) - 1).abs().max() < 1e-6
        value = (pool.weights * torch.arange(3.0)).sum() + pool.parts[2].mu.sum() + pool.parts[2].logvar.sum()
        value.backward()
        assert value.isfinite() and all(t.grad.isfinite().all() for t in (*tensors, weights))


# ---- both, with gaps

MASKS = [None, torch.tensor([True, True, False, False]), torch.tensor([True, False, True, False])]


@pytest.mark.parametrize("fuse", [partial(consensus_of_experts, correlation=0.6), hoelder_pool,
                                  lambda experts, masks=(): moment_match(hoelder_pool(experts, masks=masks))])
def test_fusing_with_gaps_is_fusing_what_is_there(fuse):
    experts = [random_gaussian(4, 3, seed=s) for s in range(3)]
    z = torch.randn(4, 3, dtype=F64)
    found = fuse(experts, masks=MASKS)
    for k in range(4):
        there = [row(e, k) for e, mask in zip(experts, MASKS) if mask is None or mask[k]]
        torch.testing.assert_close(found.log_prob(z)[k], fuse(there).log_prob(z[k:k + 1])[0])


@pytest.mark.parametrize("fuse", [partial(consensus_of_experts, correlation=0.6), hoelder_pool])
def test_no_gradient_of_what_is_not_there_passes(fuse):
    mu, logvar = torch.randn(2, 3, requires_grad=True), torch.randn(2, 3, requires_grad=True)
    q = fuse([Gaussian(mu, logvar), Gaussian(torch.ones(2, 3), torch.zeros(2, 3))],
             masks=[torch.tensor([True, False]), None])
    (q.mu.square() + q.logvar).sum().backward()
    for t in (mu, logvar):
        assert (t.grad[0] != 0).all() and (t.grad[1] == 0).all()


def test_a_row_that_nobody_speaks_of():
    experts = [random_gaussian(2, 3, seed=s) for s in range(2)]
    nobody = [torch.tensor([False, True])] * 2
    q = consensus_of_experts(experts, 0.5, nobody)
    assert (q.mu[0] == 0).all() and (q.logvar[0] == 0).all() and (q.mu[1] != 0).all()
    weights = hoelder_pool(experts, masks=nobody).weights
    assert (weights[0] == 0).all() and weights[1].sum() == pytest.approx(1)


@pytest.mark.parametrize("make, message", [
    (lambda g: consensus_of_experts([], 0.5), "consensus_of_experts: got no expert"),
    (lambda g: consensus_of_experts([g, random_gaussian(2, 3)], 0.5), "consensus_of_experts: experts of shapes"),
    (lambda g: consensus_of_experts([g, g], 1.0), "correlation: found 1.0, expected a number from 0, below 1"),
    (lambda g: consensus_of_experts([g, g], -0.1), "correlation: found -0.1"),
    (lambda g: consensus_of_experts([g, g], math.nan), "correlation: found nan"),
    (lambda g: consensus_of_experts([g, g], 0.5, [None]), "masks: found 1, expected one for each of 2 experts"),
    (lambda g: hoelder_pool([]), "hoelder_pool: got no expert"),
    (lambda g: hoelder_pool([g, g], [1.0]), r"weights: found shape \(1,\), expected \(2,\): a number for each expert"),
    (lambda g: hoelder_pool([g, g], [1.0, -1.0]), r"weights: found \[1.0, -1.0\], expected numbers that are not negative"),
    (lambda g: hoelder_pool([g, g], [0.0, 0.0]), r"weights: found \[0.0, 0.0\]")])
def test_what_cannot_be_fused_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(random_gaussian(4, 3))


# ---- the losses, row by row

EPS = 0.3  # what stands for every draw of noise


@pytest.fixture
def still(monkeypatch):
    monkeypatch.setattr(gaussian, "noise", lambda like: torch.full_like(like, EPS))


def built(make, world="three"):
    torch.manual_seed(0)
    model = make(worlds.WORLDS[world]()).double()
    g = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for p in model.parameters():  # so that experts differ from each other and from the prior
            p.add_(0.2 * torch.randn(p.shape, generator=g, dtype=F64))
    x = {m: v.double() if v.is_floating_point() else v for m, v in worlds.data(world, 6).items()}
    return model, x


def experts_of(model, x, k):
    """{modality: {block: (mean, deviation)}} of row k, each (D,)."""
    said = {m: model.encoders[m](x[m]) for m in x}
    return {m: {b: (g.mu[k], (0.5 * g.logvar[k]).exp()) for b, g in of.items()} for m, of in said.items()}


def log_p(model, m, x, k, z_m, z_S):
    output = model.decoders[m](torch.cat([z_m, z_S]).unsqueeze(0))
    return model.likelihood(m).log_prob(output, x[m][k:k + 1])[0]


def normal(pair):
    return D.Normal(*pair)


def drawn(pair):
    return pair[0] + EPS * pair[1]


def to_prior(pair):
    return D.kl_divergence(normal(pair), D.Normal(torch.zeros_like(pair[0]), torch.ones_like(pair[0]))).sum()


def elbo_of(model, x, k, q, names, shared):
    """The ELBO of `names` with z_S from `shared`, a mean and a deviation, in row k."""
    value = -to_prior(shared)
    for m in names:
        value = value + log_p(model, m, x, k, drawn(q[m][m]), drawn(shared)) - to_prior(q[m][m])
    return value


def some(x, observed):
    return {m: x[m] for m in observed}


OBSERVED = [("sound", "label", "word"), ("sound", "word"), ("label",)]


@pytest.mark.parametrize("observed", OBSERVED)
@pytest.mark.parametrize("prior", [False, True])
@pytest.mark.parametrize("bound", [False, True])
def test_the_loss_of_mmvm_written_out(still, observed, prior, bound):
    model, x = built(partial(MMVMVAE, prior=prior, bound=bound))
    found = model.terms(some(x, observed))
    for k in range(6):
        q = experts_of(model, some(x, observed), k)
        components = [normal(q[m]["S"]) for m in observed]
        if prior:
            components.append(D.Normal(torch.zeros(10, dtype=F64), torch.ones(10, dtype=F64)))
        total = 0.0
        for m in observed:
            z = drawn(q[m]["S"])
            if bound:
                apart = sum(D.kl_divergence(normal(q[m]["S"]), c).sum() for c in components) / len(components)
            else:
                h = D.MixtureSameFamily(D.Categorical(torch.ones(len(components), dtype=F64)), D.Independent(D.Normal(
                    torch.stack([c.loc for c in components]), torch.stack([c.scale for c in components])), 1))
                apart = normal(q[m]["S"]).log_prob(z).sum() - h.log_prob(z)
            total = total - log_p(model, m, x, k, drawn(q[m][m]), z) + to_prior(q[m][m]) + apart
            torch.testing.assert_close(found[f"{joined(observed)}.apart.{m}"][k], apart)
        torch.testing.assert_close(found["total"][k], total)


def test_the_bound_of_mmvm_is_above_its_kl_which_is_below_the_log_of_the_components():
    experts = [random_gaussian(1, 3, seed=s, scale=3.0) for s in range(3)]
    for components in (experts, [*experts, gaussian.prior(1, 3, experts[0].mu)]):
        for q in experts:
            many = Gaussian(q.mu.expand(20_000, 3), q.logvar.expand(20_000, 3))
            parts = [Gaussian(g.mu.expand(20_000, 3), g.logvar.expand(20_000, 3)) for g in components]
            sampled = frontier._apart(many, parts, False)
            error = sampled.std() / math.sqrt(20_000)
            assert sampled.mean() - 4 * error < math.log(len(components))
            assert sampled.mean() - 4 * error < frontier._apart(q, components, True).item()
    far = [Gaussian(torch.full((1, 3), m), torch.zeros(1, 3)) for m in (-50.0, 50.0)]
    assert frontier._apart(far[0], far, True) > 3000
    assert frontier._apart(far[0], far, False).item() == pytest.approx(math.log(2))


def test_mmvm_draws_where_it_has_something_to_draw_from():
    model, x = built(MMVMVAE)
    with pytest.raises(ValueError, match="sample: found MMVMVAE with prior=False, whose prior is made of data, expected"):
        model.sample(3)
    assert len(built(partial(MMVMVAE, prior=True))[0].sample(3)["sound"]) == 3
    q = model.posterior(x)["S"]
    torch.testing.assert_close(q.weights, torch.full((6, 3), 1 / 3, dtype=F64))
    for part, m in zip(q.parts, x):
        torch.testing.assert_close(part.mu, model.encoders[m](x[m])["S"].mu)


def consensus(pairs, rho):
    mu, s = (torch.stack(v) for v in zip(*pairs))  # (E, D)
    mean, deviation = [], []
    for d in range(mu.shape[1]):
        S = torch.outer(s[:, d], s[:, d]) * (rho[d] + (1 - rho[d]) * torch.eye(len(pairs), dtype=F64))
        P = torch.linalg.inv(S)
        mean.append((P.sum(1) * mu[:, d]).sum() / P.sum())
        deviation.append(P.sum() ** -0.5)
    return torch.stack(mean), torch.stack(deviation)


@pytest.mark.parametrize("observed", OBSERVED)
@pytest.mark.parametrize("options", [{}, {"correlation": None}, {"correlation": 0.8, "weights": [1, 2, 3, 4, 5, 6, 7.0]}])
def test_the_loss_of_code_written_out(still, observed, options):
    model, x = built(partial(CoDEVAE, **options))
    names = tuple(x)
    found = model.terms(some(x, observed))
    rho = [options.get("correlation", 0.5)] * 5 if model.correlations is None else 0.99 * torch.sigmoid(model.correlations)
    logits = torch.tensor(options["weights"], dtype=F64).log() if "weights" in options else model.learnt
    inside = [k for k, s in enumerate(all_subsets(names)) if set(s) <= set(observed)]
    pi = D.Categorical(logits=logits[inside])
    for k in range(6):
        q = experts_of(model, some(x, observed), k)
        total = -pi.entropy()
        for weight, subset in zip(pi.probs, (all_subsets(names)[i] for i in inside)):
            total = total - weight * elbo_of(model, x, k, q, observed, consensus([q[m]["S"] for m in subset], rho))
        torch.testing.assert_close(found["total"][k], total)
        torch.testing.assert_close(found[f"{joined(observed)}.entropy"][k], pi.entropy())
        torch.testing.assert_close(found[f"{joined(observed)}.elbo"][k], -total - pi.entropy())


def pairs_of(pairs, w):
    """The parts of a Hölder pool, (weight, (mean, deviation)), by loops over its pairs."""
    parts = []
    for i, j in itertools.combinations_with_replacement(range(len(pairs)), 2):
        (a, s), (b, t) = pairs[i], pairs[j]
        precision = 0.5 / s ** 2 + 0.5 / t ** 2
        mean = (0.5 * a / s ** 2 + 0.5 * b / t ** 2) / precision
        overlap = torch.prod(torch.sqrt(2 * s * t / (s ** 2 + t ** 2)) * torch.exp(-0.25 * (a - b) ** 2 / (s ** 2 + t ** 2)))
        parts.append(((2 - (i == j)) * w[i] * w[j] * overlap, (mean, precision ** -0.5)))
    whole = sum(weight for weight, _ in parts)
    return [(weight / whole, pair) for weight, pair in parts]


W = {"sound": 1.0, "label": 2.0, "word": 0.5}


@pytest.mark.parametrize("observed", OBSERVED)
@pytest.mark.parametrize("weights", [None, W])
def test_the_loss_of_helvae_written_out(still, observed, weights):
    model, x = built(partial(HELVAE, weights=weights))
    found = model.terms(some(x, observed))["total"]
    for k in range(6):
        q = experts_of(model, some(x, observed), k)
        parts = pairs_of([q[m]["S"] for m in observed], [(weights or dict.fromkeys(W, 1.0))[m] for m in observed])
        mean = sum(w * a for w, (a, _) in parts)
        square = sum(w * (a ** 2 + s ** 2) for w, (a, s) in parts)
        torch.testing.assert_close(found[k], -elbo_of(model, x, k, q, observed, (mean, (square - mean ** 2).sqrt())))


@pytest.mark.parametrize("observed", OBSERVED)
@pytest.mark.parametrize("weights", [None, W])
def test_the_loss_of_hoelder_written_out(still, observed, weights):
    model, x = built(partial(HoelderVAE, weights=weights))
    found = model.terms(some(x, observed))
    subsets = list(dict.fromkeys([*[(m,) for m in observed], observed]))
    assert [k for k in found if k.endswith(".elbo")] == [f"{joined(s)}.elbo" for s in subsets]
    for k in range(6):
        q = experts_of(model, some(x, observed), k)
        for s in subsets:
            parts = pairs_of([q[m]["S"] for m in s], [(weights or dict.fromkeys(W, 1.0))[m] for m in s])
            mixture = D.MixtureSameFamily(D.Categorical(torch.stack([w for w, _ in parts])), D.Independent(D.Normal(
                *(torch.stack(v) for v in zip(*[pair for _, pair in parts]))), 1))
            value = -sum(to_prior(q[m][m]) for m in s)
            for w, pair in parts:
                z = drawn(pair)
                log_q, prior = mixture.log_prob(z), D.Normal(0.0, 1.0).log_prob(z).sum()
                value = value + w * (sum(log_p(model, m, x, k, drawn(q[m][m]), z) for m in s) - log_q + prior)
            if len(s) == 1:  # one expert: the KL in closed form
                value = elbo_of(model, x, k, q, s, q[s[0]]["S"])
            torch.testing.assert_close(found[f"{joined(s)}.elbo"][k], value)
        torch.testing.assert_close(found["total"][k], -sum(found[f"{joined(s)}.elbo"][k] for s in subsets))


def test_the_stratified_elbo_has_a_gradient_in_the_weights_of_the_pool_and_is_the_mean_of_draws():
    """The exact ELBO of a pool, by quadrature over one shared latent, and the mean of many stratified ones."""
    torch.manual_seed(0)
    model = HoelderVAE({m: mmvae.vectors(3, likelihood=mmvae.likelihoods.Normal(0.7)) for m in ("a", "b")}, shared=1).double()
    x = {m: torch.randn(1, 3, dtype=F64) for m in "ab"}
    z, cell = grid(0, count=4001)
    with torch.no_grad():
        pool = model.posterior(x)["S"]
        density = pool.log_prob(z.unsqueeze(1))[:, 0]
        inside = sum(model.likelihood(m).log_prob(model.decoders[m](z), x[m].expand(len(z), 3)) for m in "ab")
        exact = ((density.exp() * (inside - density + D.Normal(0.0, 1.0).log_prob(z[:, 0]))).sum() * cell).item()
        values = model.terms({m: v.expand(20_000, 3) for m, v in x.items()})["a+b.elbo"]
    assert abs(values.mean().item() - exact) < 4 * values.std().item() / math.sqrt(20_000)
    model.weights.requires_grad_()
    model.terms(x)["total"].sum().backward()
    assert model.weights.grad.abs().min() > 0


def test_idmvae_is_mmvae_plus_with_the_two_terms(still):
    model, x = built(partial(IDMVAE, contrast=2.0, retain=3.0), "pair")
    plain = mmvae.later.MMVAEPlus(worlds.WORLDS["pair"]()).double()
    plain.load_state_dict(model.state_dict())
    found, without = model.terms(x), plain.terms(x)
    posteriors = model.posteriors(x, [(m,) for m in x])
    contrast, retain = (mmvae.terms.ADDED[k](model, x, posteriors, {}) for k in ("contrast", "retain"))
    torch.testing.assert_close(found["total"], without["total"] + 2 * sum(contrast.values()) + 3 * sum(retain.values()))
    torch.testing.assert_close(model.terms(x, extra={"contrast": 0.0, "retain": 0.0})["total"], without["total"])
    bounds = model.terms(x, subsets=model.seen)  # what `evaluate` asks for
    assert not any(k.startswith(("contrast", "retain")) for k in bounds)
    few = built(partial(IDMVAE, retain=0), "three")
    assert {k for k in few[0].terms(few[1]) if "." in k} >= {"contrast.S"}
    with pytest.raises(ValueError, match='found "retain" with modality "label"'):
        built(IDMVAE)[0].loss(few[1])


# ---- all of them

KINDS = [(name, world) for name in MODELS for world in ("pair", "two", "three", "own") if (name, world) not in
         (("idmvae", "three"), ("idmvae", "own"))]  # classes cannot be encoded again


@pytest.mark.parametrize("name, world", KINDS)
def test_any_modalities_with_gaps(name, world, monkeypatch):
    """What is missing adds no loss and no gradient; a mask is deleting the rows; NaN in its place changes no bit."""
    torch.manual_seed(0)
    model, x = MODELS[name](worlds.WORLDS[world]()), worlds.data(world)
    masks = worlds.rows(world, gaps=True).present
    torch.manual_seed(1)
    total = model.terms(x, present=masks)["total"]
    hidden = {m: v.masked_fill(~masks[m].view(-1, *[1] * (v.dim() - 1)), math.nan) if m in masks and v.is_floating_point()
              else v for m, v in x.items()}
    torch.manual_seed(1)
    assert torch.equal(total, model.terms(hidden, present=masks)["total"]) and total.isfinite().all()
    total.sum().backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    if name == "idmvae":  # its rows are compared with each other: tests/test_terms.py
        return
    monkeypatch.setattr(gaussian, "noise", lambda like: torch.full_like(like, EPS))
    total = model.terms(x, present=masks)["total"]
    for k in range(8):
        there = {m: v[k:k + 1] for m, v in x.items() if m not in masks or masks[m][k]}
        torch.testing.assert_close(total[k:k + 1], model.terms(there)["total"])


@pytest.mark.parametrize("name", MODELS)
def test_of_a_row_that_lacks_a_modality_no_weight_of_its_networks_has_a_gradient(name):
    model, x = MODELS[name](worlds.WORLDS["pair"]()), worlds.data("pair", 4)
    model.loss(x, present={"T": torch.zeros(4, dtype=torch.bool)})["total"].backward()
    parts = [p for net in (model.encoders["T"], model.decoders["T"]) for p in net.parameters()]
    assert all(p.grad is None or (p.grad == 0).all() for p in parts)
    assert any((p.grad != 0).any() for p in model.encoders["I"].parameters())


@pytest.mark.parametrize("name", MODELS)
def test_losses_and_gradients_are_finite_where_the_encoders_shout(name):
    torch.manual_seed(0)
    model, x = MODELS[name](worlds.WORLDS["pair"]()), worlds.data("pair", 4)
    with torch.no_grad():
        for k, m in enumerate(model.encoders):
            model.encoders[m].net.mu.bias.fill_((-1) ** k * 50.0)
            model.encoders[m].net.logvar.bias.fill_((-1) ** k * 40.0)  # `bounded` leaves 19 of it
    total = model.loss(x)["total"]
    total.backward()
    assert total.isfinite() and all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.parametrize("name", ["mmvm", "code, all learnt", "hoelder"])
def test_the_means_can_be_exported_with_a_free_batch(name):
    worlds.exports(MODELS[name](worlds.WORLDS["pair"]()).eval(), *(worlds.data("pair", n, seed=n) for n in (7, 11)))


@pytest.mark.parametrize("make, message", [
    (partial(CoDEVAE, correlation=1.5), "correlation: found 1.5, expected a number from 0, below 1"),
    (partial(CoDEVAE, weights=[1.0, 2.0]), r"weights: found \[1.0, 2.0\], expected 3 positive numbers"),
    (partial(CoDEVAE, weights=[1.0, 2.0, 0.0]), r"weights: found \[1.0, 2.0, 0.0\], expected 3 positive"),
    (partial(HELVAE, weights={"I": 1.0}), r"weights: found \{'I': 1.0\}, expected a positive number for each of \('I'"),
    (partial(HoelderVAE, weights={"I": 1.0, "T": math.inf}), "expected a positive number for each"),
    (partial(IDMVAE, contrast=-1.0), "contrast: found -1.0, expected 0 or a positive number")])
def test_options_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make(worlds.WORLDS["pair"]())


def test_each_is_a_class_of_at_most_forty_lines():
    for kind in (MMVMVAE, CoDEVAE, HELVAE, HoelderVAE, IDMVAE):
        assert len(inspect.getsource(kind).strip().splitlines()) <= 40
