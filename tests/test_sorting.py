"""Diagonal posteriors and marginal ELBOs sort the latents: each step of chapter 10's proposition, and its prices, against
sums over a grid, searches, and models that are trained on the exact objective."""
import math

import pytest
import torch

from mmvae import MuMoVAE, PoEVAE
from mmvae.evaluate import identified, oracle
from mmvae.evaluate.oracle import LinearGaussian
from worlds import fit_exactly

I, T, IT = ("I",), ("T",), ("I", "T")  # noqa: E741
SUBSETS = I, T, IT
WHOLE = {"private": 0, "shared": 7}  # all latents shared
INSIDE = {"single_prior": True}


@pytest.fixture(scope="module")
def orthogonal():
    return oracle.toy(names=IT)


@pytest.fixture(scope="module")
def correlated():
    return oracle.toy(0.5, names=IT)


def of(x, subset):
    return {m: x[m] for m in subset}


def turned(truth, R):
    """The truth with its latents turned, all shared."""
    return LinearGaussian(truth.loadings @ R, truth.offset, truth.noise, {"S": len(R)}, truth.sizes)


def rotation(size, seed):
    return torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64))[0]


def off_diagonal(A):
    return (A - torch.diag(A.diagonal())).abs().max().item()


def ceiling(truth, x, subsets):
    return sum(truth.exact_log_likelihood(of(x, s)).mean() for s in subsets).item()


def made(cls, truth, seed=0, **options):
    torch.manual_seed(seed)
    return oracle.linear(cls, truth, **options)


@torch.no_grad()
def with_decoders(model, truth):
    for m, decoder in model.decoders.items():
        decoder.weight.copy_(truth.loadings[truth.rows((m,))])
        decoder.bias.copy_(truth.offset[truth.rows((m,))])
    return model


def sharpness(model):
    """The diagonals of both Gram matrices, (2, D)."""
    exact = oracle.learnt(model)
    return torch.stack([exact.gram(m).diagonal() for m in IT]).detach()


def axes(truth):
    """A rotation that makes both Gram matrices diagonal if they commute: the axes of a sum without equal entries."""
    return torch.linalg.eigh(truth.gram("I") + math.sqrt(2) * truth.gram("T"))[1]


# ---- the steps of the proof

@pytest.mark.parametrize("correlation", [0.0, 0.5])
def test_what_a_picture_adds_to_the_precision(correlation):
    """eq-oracle-gram, from the products of columns, and the sum over a subset."""
    truth = oracle.toy(correlation, names=IT)
    for m in IT:
        W = truth.loadings[truth.rows((m,))]
        for j in range(7):
            for k in range(7):
                assert truth.gram(m)[j, k].item() == pytest.approx((W[:, j] @ W[:, k]).item() / 0.25, abs=1e-12)
    both = torch.eye(7).double() + truth.gram("I") + truth.gram("T")
    torch.testing.assert_close(truth.precision(IT), both)


def test_an_elbo_of_a_diagonal_posterior_is_tight_exactly_if_the_precision_is_diagonal(orthogonal):
    x = orthogonal.sigma_points()
    for seed in range(4):
        R = torch.eye(7).double() if seed == 0 else rotation(7, seed)
        p = turned(orthogonal, R)
        for s in SUBSETS:
            gap = oracle.inference_gap(p, of(x, s)).mean().item()
            assert (gap < 1e-9) == (off_diagonal(p.precision(s)) < 1e-9) == (seed == 0)


@pytest.mark.parametrize("ranks", [(2, 3, 2, 0), (1, 2, 3, 2), (0, 2, 2, 1), (3, 0, 1, 0), (2, 2, 0, 3)])
def test_columns_at_right_angles_vanish_but_for_the_rank_and_the_ranks_count_the_kinds(ranks):
    """eq-oracle-count, against a truth whose kinds are planted and hidden by a turn."""
    private, shared, other, idle = ranks
    D, P = sum(ranks), 8
    W = torch.zeros(2 * P, D, dtype=torch.float64)
    W[:P, :private + shared] = rotation(P, 1)[:, :private + shared] * torch.linspace(1, 2, private + shared)
    W[P:, private:D - idle] = rotation(P, 2)[:, :shared + other] * torch.linspace(2.1, 0.7, shared + other)
    hidden = LinearGaussian(W @ rotation(D, 3), torch.zeros(2 * P).double(), 0.5, {"S": D}, {"I": P, "T": P})
    found = turned(hidden, axes(hidden))
    speaks = torch.stack([found.gram(m).diagonal() > 1e-9 for m in IT])
    rank = {s: torch.linalg.matrix_rank(hidden.loadings[hidden.rows(s)]).item() for s in SUBSETS}
    for m, who in zip(IT, speaks):
        assert off_diagonal(found.gram(m)) < 1e-9 and (~who).sum().item() == D - rank[(m,)]
    counts = ((speaks[0] & ~speaks[1]).sum().item(), speaks.all(0).sum().item(), (speaks[1] & ~speaks[0]).sum().item(),
              (~speaks.any(0)).sum().item())
    assert counts == (rank[IT] - rank[T], rank[I] + rank[T] - rank[IT], rank[IT] - rank[I], D - rank[IT]) == ranks


@pytest.mark.parametrize("idle", [0, 2])
def test_who_speaks_is_the_truth_s_partition(orthogonal, idle):
    """Step 6: each kind of latent of the sorted solution spans its block of the truth, and those added in vain none."""
    wide = LinearGaussian(torch.cat([orthogonal.loadings, torch.zeros(24, idle).double()], 1), orthogonal.offset, 0.5,
                          {"S": 7 + idle}, orthogonal.sizes)
    R = rotation(7 + idle, 5)
    hidden = turned(wide, R)
    sort = R @ axes(hidden)  # columns: the sorted latents in the truth's own
    speaks = torch.stack([(orthogonal.loadings[orthogonal.rows((m,))] @ sort[:7]).norm(dim=0) > 1e-6 for m in IT])
    homes = {"I": speaks[0] & ~speaks[1], "S": speaks.all(0), "T": speaks[1] & ~speaks[0]}
    for block, at in homes.items():
        inside = sort[orthogonal.columns(block)][:, at]
        torch.testing.assert_close(inside @ inside.T, torch.eye(len(inside)).double(), atol=1e-8, rtol=0)
        assert sort[:, at].square().sum().item() == pytest.approx(len(inside))  # and nothing elsewhere


def test_two_matrices_have_common_axes_exactly_if_they_commute(orthogonal, correlated):
    """eq-oracle-commute, in both its forms; and no turn changes whether they do."""
    for truth, yes in ((orthogonal, True), (correlated, False)):
        for R in (torch.eye(7).double(), rotation(7, 1)):
            p = turned(truth, R)
            G, H = p.gram("I"), p.gram("T")
            assert (torch.allclose(G @ H, H @ G, atol=1e-9)) == yes
            sort = turned(p, axes(p))
            assert all((off_diagonal(sort.gram(m)) < 1e-9) == yes for m in IT)


@pytest.mark.parametrize("across_I, across_T, axes_differ", [(0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 1)])
def test_what_commuting_means_for_the_blocks(across_I, across_T, axes_differ):
    """eq-oracle-commute: each of its three conditions broken in turn, against the whole matrices."""
    A_S = torch.eye(6, 2).double() * torch.tensor([2.0, 1.0])
    B_S = A_S @ (rotation(2, 6) if axes_differ else torch.diag(torch.tensor([0.5, 3.0])).double())
    along = torch.randn(6, 2, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    own = along * (torch.arange(6) > 1)[:, None]  # at right angles to the shared columns
    A_I, B_T = (along if across else own for across in (across_I, across_T))
    zero = torch.zeros(6, 2).double()
    W = torch.cat([torch.cat([A_I, A_S, zero], 1), torch.cat([zero, B_S, B_T], 1)])
    truth = LinearGaussian(W, torch.zeros(12).double(), 0.5, {"I": 2, "S": 2, "T": 2})
    G, H = truth.gram("I"), truth.gram("T")
    c, d = A_S.T @ A_S, B_S.T @ B_S
    conditions = [not (A_I.T @ A_S).any(), not (B_T.T @ B_S).any(), torch.allclose(c @ d, d @ c)]
    assert conditions == [not across_I, not across_T, not axes_differ]
    assert torch.allclose(G @ H, H @ G) == all(conditions)


def test_a_product_with_the_prior_inside_takes_the_sorted_solution_as_it_is(orthogonal):
    """Step 7: experts of precision G_jj, and precision times mean w_j (x - b) / sigma^2."""
    p = turned(orthogonal, rotation(7, 1))
    p = turned(p, axes(p))
    model = with_decoders(made(PoEVAE, p, **WHOLE, **INSIDE), p)
    with torch.no_grad():
        for m, encoder in model.encoders.items():
            W, lam = p.loadings[p.rows((m,))], p.gram(m).diagonal().clamp_min(1e-12)  # as good as silent
            encoder.net.mu.weight.copy_(W.T / p.noise ** 2 / lam[:, None])
            encoder.net.mu.bias.copy_(-encoder.net.mu.weight @ p.offset[p.rows((m,))])
            encoder.net.logvar.copy_(-lam.log())
    x = orthogonal.sigma_points()
    for s in SUBSETS:
        assert (oracle.inference_gap(model, of(x, s)) < 1e-7).all()


# ---- the statement, by training from random weights

@pytest.mark.parametrize("cls, options", [(MuMoVAE, {}), (PoEVAE, INSIDE), (PoEVAE, INSIDE | {"subsets": [I, IT]})],
                         ids=["encoders", "product", "one-marginal"])
def test_trained_on_orthogonal_truth_all_latents_are_sorted(orthogonal, cls, options):
    x = orthogonal.sigma_points()
    model = made(cls, orthogonal, **WHOLE, **options)
    assert ceiling(orthogonal, x, model.subsets) - fit_exactly(model, x, iterations=500) < 1e-3
    quiet, loud = sharpness(model).sort(0).values
    assert (quiet < 1e-2 * loud).sum().item() == 4 and (quiet > 0.1 * loud).sum().item() == 3
    found = sharpness(model)
    torch.testing.assert_close(found.sort(1).values, sharpness(orthogonal).sort(1).values, atol=0.02, rtol=0)
    Q = identified.turn(orthogonal, oracle.learnt(model)).detach()  # rows: z_I, z_S, z_T
    for block, silent in (("I", found[1] < 1e-2), ("T", found[0] < 1e-2)):  # of what is private, the other says nothing
        assert Q[orthogonal.columns(block)][:, silent].square().sum().item() == pytest.approx(2, abs=1e-2)


def test_the_pair_alone_is_tight_in_every_truth_and_its_axes_are_those_of_the_sum(orthogonal, correlated):
    for truth in (orthogonal, correlated):
        p = turned(truth, torch.linalg.eigh(truth.gram("I") + truth.gram("T"))[1])
        assert p.mean_field(IT) < 1e-9
        assert (max(p.mean_field(s) for s in (I, T)) < 1e-9) == (truth is orthogonal)  # no two entries of its sum agree


def test_where_the_matrices_do_not_commute_no_model_is_tight(correlated):
    """All three ELBOs, by two kinds of encoders; with the pair alone one is."""
    x = correlated.sigma_points()
    for cls, options in ((MuMoVAE, {}), (PoEVAE, INSIDE)):
        model = made(cls, correlated, **WHOLE, **options)
        assert 0.2 < ceiling(correlated, x, SUBSETS) - fit_exactly(model, x) < 0.5
        p = oracle.learnt(model)
        errors = [(correlated.exact_log_likelihood(of(x, s)) - p.exact_log_likelihood(of(x, s))).mean() for s in SUBSETS]
        assert sum(errors) > 0.05  # some likelihood is given up
    model = made(PoEVAE, correlated, **WHOLE, subsets=[IT])
    assert ceiling(correlated, x, [IT]) - fit_exactly(model, x) < 5e-3


# ---- the price of a mixture

def two(r, angle, other=None):
    """Two shared latents, one seen by each picture, of sharpness r, turned."""
    W = torch.zeros(2, 2, dtype=torch.float64)
    W[0, 0], W[1, 1] = 0.5 * math.sqrt(r), 0.5 * math.sqrt(r if other is None else other)
    c, s = math.cos(angle), math.sin(angle)
    R = torch.tensor([[c, -s], [s, c]], dtype=torch.float64)
    return LinearGaussian(W @ R, torch.zeros(2, dtype=torch.float64), 0.5, {"S": 2}, {"I": 1, "T": 1})


def price(r):
    return 0.5 * math.log((1 + r / 2) ** 2 / (1 + r))


@pytest.mark.parametrize("r", [1.0, 9.0, 50.0])
def test_the_price_of_mixing_two_private_latents_by_search(r):
    """eq-oracle-mix and eq-oracle-askew: encoders fitted to a decoder that mixes; the pair pays nothing."""
    p = two(r, math.pi / 4)
    torch.testing.assert_close(p.precision(I).abs(), torch.tensor([[1 + r / 2, r / 2], [r / 2, 1 + r / 2]]).double())
    assert p.precision(I).det().item() == pytest.approx(1 + r)
    x = p.sigma_points()
    model = with_decoders(made(MuMoVAE, p, private=0, shared=2), p)
    fit_exactly(model, x, list(model.encoders.parameters()))
    for s, expected in ((I, price(r)), (T, price(r)), (IT, 0.0)):
        assert oracle.inference_gap(model, of(x, s)).mean().item() == pytest.approx(expected, abs=1e-7)
    product = with_decoders(made(PoEVAE, p, private=0, shared=2, **INSIDE), p)
    fit_exactly(product, x, list(product.encoders.parameters()))
    assert all(oracle.inference_gap(product, of(x, s)).mean() > price(r) / 10 for s in SUBSETS)
    assert sum(oracle.inference_gap(product, of(x, s)).mean().item() for s in SUBSETS) > 2 * price(r)


@pytest.mark.parametrize("r", [1.0, 9.0])
def test_the_price_of_mixing_two_private_latents_by_quadrature(r):
    """log p(x) and the best ELBO of a diagonal Gaussian, each a sum over a grid of both latents; no formula of the module."""
    a = torch.tensor(math.sqrt(r / 2), dtype=torch.float64)
    line = torch.linspace(-7, 7, 701, dtype=torch.float64)
    z, cell = torch.cartesian_prod(line, line), (line[1] - line[0]).square()
    x = torch.tensor(1.3, dtype=torch.float64)  # = a z_1 + a z_2 + noise, standard normal
    joint = -0.5 * (z.square().sum(1) + (x - a * z.sum(1)).square()) - 1.5 * math.log(2 * math.pi)
    q = torch.tensor([0.3, 0.3, -0.5, -0.5], dtype=torch.float64, requires_grad=True)  # means, log-variances
    optimiser = torch.optim.LBFGS([q], max_iter=60, line_search_fn="strong_wolfe")

    def elbo():
        log_q = (-0.5 * ((z - q[:2]).square() / q[2:].exp() + q[2:]) - 0.5 * math.log(2 * math.pi)).sum(1)
        return (log_q.exp() * (joint - log_q)).sum() * cell

    def loss():
        optimiser.zero_grad()
        lost = -elbo()
        lost.backward()
        return lost

    optimiser.step(loss)
    log_p = joint.logsumexp(0) + cell.log()
    assert (log_p - elbo()).item() == pytest.approx(price(r), abs=1e-6)


@pytest.mark.parametrize("angle", [0.0, 0.2, math.pi / 4, 1.0])
def test_the_pair_is_indifferent_to_a_mixture_only_of_latents_equally_sharp(angle):
    assert two(9, angle).mean_field(IT) < 1e-9
    assert (two(9, angle, 4).mean_field(IT) < 1e-9) == (angle == 0)
    assert all((two(9, angle, other).mean_field(s) < 1e-9) == (angle == 0) for s in (I, T) for other in (9, 4))


def test_training_leaves_a_mixture_with_the_pair_alone_and_none_with_a_marginal_elbo():
    p = two(9, math.pi / 4)
    x, mixed = p.sigma_points(), []
    for seed in range(3):
        alone, one = (made(PoEVAE, p, seed, private=0, shared=2, **INSIDE, subsets=s) for s in ([IT], [I, IT]))
        for model in (alone, one):
            assert ceiling(p, x, model.subsets) - fit_exactly(model, x) < 1e-6
        mixed.append(sharpness(alone).amin().item())
        assert sharpness(one).amin(0).max() < 1e-6
    assert max(mixed) > 0.1


# ---- silence

@pytest.mark.parametrize("r, silent, lost", [(50.0, 0.967, 0.018), (0.0, 0.836, 0.196)])
def test_the_best_silence_with_the_prior_outside_is_not_complete(r, silent, lost):
    """One latent of which x_I speaks with sharpness r and x_T not at all: MMPOE v2, trained; with the prior inside it is."""
    W = torch.tensor([[0.5 * math.sqrt(r)], [0.0]], dtype=torch.float64)
    p = LinearGaussian(W, torch.zeros(2, dtype=torch.float64), 0.5, {"S": 1}, {"I": 1, "T": 1})
    x = p.sigma_points()
    for options, precision, short in (({}, silent, lost), (INSIDE, 0.0, 0.0)):
        model = with_decoders(made(PoEVAE, p, private=0, shared=1, **options), p)
        total = fit_exactly(model, x, list(model.encoders.parameters()))
        assert ceiling(p, x, SUBSETS) - total == pytest.approx(short, abs=1e-3)
        assert model.encoders["T"](x["T"])["S"].precision[0, 0].item() == pytest.approx(precision, abs=2e-3)
    both = with_decoders(made(MuMoVAE, p, private=0, shared=1), p)
    fit_exactly(both, x, list(both.encoders.parameters()))
    assert both.posterior({"T": x["T"]})["S"].precision[0, 0].item() == pytest.approx(1, abs=1e-5)
