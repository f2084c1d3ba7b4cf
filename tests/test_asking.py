"""What asks for the partition, on the exact oracle: chapter 10's third proposition, each step of its proof, and the six terms,
against draws, sums and optimisations that know none of the formulas."""
import math

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from mmvae import MuMoVAE
from mmvae.evaluate import asking, oracle
from mmvae.evaluate.identified import leakage, turn
from mmvae.terms import info_nce

I, T, IT = ("I",), ("T",), ("I", "T")  # noqa: E741
TERMS = {"cross": asking.cross, "gap": asking.gap, "contrast": asking.contrast, "retain": asking.retain,
         "all-from-one": asking.all_from_one, "auxiliary": lambda model: asking.all_from_one(model, 0.0)}


@pytest.fixture(scope="module", params=(0.0, 0.5), ids=("orthogonal", "correlated"))
def truth(request):
    return oracle.toy(request.param, size=6, names=IT)


def part(truth, degrees=0.0, m="I", spare=1):
    """One private latent of m, turned so far into the first spare one."""
    P = torch.zeros(2, spare, dtype=torch.float64)
    P[0, 0] = math.sin(math.radians(degrees))
    return {m: P}


def several(seed, spare=3):
    """Directions of both private blocks at random, of at most `spare` in all: one of I's, two of T's, by any amounts."""
    g = torch.Generator().manual_seed(seed)
    axes = torch.linalg.qr(torch.randn(spare, spare, generator=g, dtype=torch.float64))[0]
    P = torch.randn(2, 1, generator=g).double() @ axes[:1]
    R = torch.linalg.qr(torch.randn(2, 2, generator=g).double())[0]
    return {"I": P / P.norm() * torch.rand(1, generator=g), "T": R @ torch.diag(torch.rand(2, generator=g).double()) @ axes[1:3]}


# ---- the solutions of one likelihood

@pytest.mark.parametrize("seed", range(3))
def test_a_solution_has_the_truths_likelihood_of_every_subset(truth, seed):
    """eq-oracle-moved; and Q of z = Q z' says what was moved."""
    moved = several(seed)
    model = asking.solution(truth, moved)
    x, _ = truth.draw(6, torch.Generator().manual_seed(seed))
    for given in (x, {"I": x["I"]}, {"T": x["T"]}):
        torch.testing.assert_close(model.exact_log_likelihood(given), truth.exact_log_likelihood(given))
    Q = turn(truth, model)
    for m in IT:
        found = Q[truth.columns(m), model.columns("S")]
        torch.testing.assert_close(found @ found.T, moved[m] @ moved[m].T)


def test_every_solution_that_is_searched_for_is_one_of_them(truth):
    """The likeliest models from random starts, with three spare latents: Q has the zeros and right angles of the proof."""
    from mmvae.evaluate.identified import likeliest
    for seed in range(2):
        model, lost = likeliest(truth, 6, seed)
        assert lost < 1e-5
        Q = turn(truth, model)
        S = model.columns("S")
        P, shared = {m: Q[truth.columns(m), S] for m in IT}, Q[truth.columns("S"), S]
        for found, what in ((shared @ shared.T, torch.eye(3)), (P["I"] @ P["T"].T, torch.zeros(2, 2)),
                            *((shared @ P[m].T, torch.zeros(3, 2)) for m in IT)):
            torch.testing.assert_close(found, what.double(), atol=0.01, rtol=0)
        assert asking.gap(model) == pytest.approx(asking.gap(truth) + asking.charge(truth, P), abs=0.01)


# ---- the gap

def test_the_gap_is_the_mean_divergence(truth):
    """eq-oracle-told, by PyTorch's KL of two normals at points of the truth's mean and covariance."""
    model = asking.solution(truth, several(1))
    x, at, total = truth.sigma_points(), model.columns("S"), 0.0
    (mean, covariance), all_S = model.exact_posterior(x), []
    for m in IT:
        own, its = model.exact_posterior({m: x[m]})
        all_S.append(kl_divergence(MultivariateNormal(mean[:, at], covariance[at, at]),
                                   MultivariateNormal(own[:, at], its[at, at])).mean())
    total = sum(all_S).item()
    assert asking.gap(model) == pytest.approx(total, abs=1e-9)
    whole = truth.covariance(IT, IT)
    assert asking.gap_on(model, whole).item() == pytest.approx(total, abs=1e-9)


def test_the_gap_on_rows_of_another_model_is_the_mean_divergence_too(truth):
    model = asking.solution(truth, several(2))
    model.loadings = model.loadings * 1.3
    x, at, total = truth.sigma_points(), model.columns("S"), 0.0
    mean, covariance = model.exact_posterior(x)
    for m in IT:
        own, its = model.exact_posterior({m: x[m]})
        total += kl_divergence(MultivariateNormal(mean[:, at], covariance[at, at]),
                               MultivariateNormal(own[:, at], its[at, at])).mean().item()
    assert asking.gap_on(model, truth.covariance(IT, IT)).item() == pytest.approx(total, abs=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_what_has_moved_is_charged_once_a_nat(truth, seed):
    """eq-oracle-charge, and that it is what a picture tells of the moved part once z_S of the truth is known."""
    moved = several(seed)
    model, home = asking.solution(truth, moved), asking.solution(truth, part(truth, spare=3))
    assert asking.charge(truth, moved) > 0
    assert asking.gap(model) - asking.gap(home) == pytest.approx(asking.charge(truth, moved), abs=1e-9)
    at = model.columns("S")
    known = slice(at.start, at.start + 3)  # the truth's own shared latents
    told = 0.0
    for m in IT:
        W = model.loadings[model.rows((m,))]
        v, own = W[:, at.start + 3:at.stop], W[:, model.columns(m)]
        noise = own @ own.T + model.noise ** 2 * torch.eye(6).double()  # of x_m, once z_S is known
        told += 0.5 * (torch.logdet(noise + v @ v.T) - torch.logdet(noise)).item()
    assert known.stop - known.start == 3 and told == pytest.approx(asking.charge(truth, moved), abs=1e-9)


def test_from_every_solution_a_path_of_one_likelihood_leads_home_and_the_gap_falls_all_along(truth):
    for seed in range(4):
        moved = several(seed)
        gaps = [asking.gap(asking.solution(truth, {m: t * P for m, P in moved.items()})) for t in torch.linspace(1, 0, 11)]
        assert all(b < a - 1e-6 for a, b in zip(gaps, gaps[1:]))
        assert gaps[-1] == pytest.approx(asking.gap(truth), abs=1e-9)


@pytest.mark.parametrize("spare", [1, 3])
def test_any_small_weight_finds_home_from_random_starts(spare):
    """Exact posteriors, encoders and decoders free: without a weight what is found leaks, with a hundredth it does not."""
    truth = oracle.toy(size=5, names=IT)
    leaks = {0.0: [], 0.01: []}
    for weight, found in leaks.items():
        for seed in range(2):
            model, lost = asking.asked(truth, spare, weight, seed, 200)
            assert -1e-9 < lost < 1e-3
            found.append(max(v for k, v in leakage(truth, model).items() if k in ("I in S", "T in S")))
    assert max(leaks[0.0]) > 0.1 and max(leaks[0.01]) < 1e-3


def test_a_weight_that_is_not_small_costs_as_its_square():
    truth = oracle.toy(size=5, names=IT)
    (_, little), (model, much) = (asking.asked(truth, 1, weight, 0, 300) for weight in (0.05, 0.1))
    assert 3.3 < much / little < 4.2
    told = [asking.informs(p, "S", IT) for p in (truth, model)]
    assert told[1] < told[0] - 1e-3  # z_S is told less


# ---- the other terms

def test_what_is_drawn_anew_costs_what_draws_cost(truth):
    """`redrawn` of each kind of source, by draws of x and z."""
    model, n = asking.solution(truth, several(3)), 200_000
    x, _ = truth.draw(n, torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)

    def draws(block, subset):
        mean, covariance = model.exact_posterior({m: x[m] for m in subset})
        at = model.columns(block)
        root = torch.linalg.cholesky(covariance[at, at])
        return mean[:, at] + torch.randn(n, len(root), generator=g).double() @ root.T

    prior = torch.randn(n, 2, generator=g).double()
    for z, sources, spread in (({"I": draws("I", I), "S": draws("S", T)}, {"I": I, "S": T}, 1.0),
                               ({"I": prior, "S": draws("S", T)}, {"I": None, "S": T}, 1.0),
                               ({"I": 0.3 * prior, "S": draws("S", T)}, {"I": None, "S": T}, 0.3)):
        made = model.decode(z | {"T": torch.zeros(n, 2).double()}, I)["I"]
        log_p = model.likelihood("I").log_prob(made, x["I"])
        expected = asking.redrawn(model, "I", sources, spread)
        assert -log_p.mean().item() == pytest.approx(expected, abs=5 * log_p.std().item() / n ** 0.5)


@pytest.mark.parametrize("m", IT)
def test_which_of_the_six_terms_prefers_home(truth, m):
    """eq-ask-oracle-cross, eq-ask-oracle-one: along the turn of a private latent into the spare one."""
    at = {k: asking.solution(truth, part(truth, k, m)) for k in (0, 30, 60, 90)}
    rises = {name: [term(model) - term(at[0]) for model in at.values()] for name, term in TERMS.items()}
    for name in ("cross", "gap", "auxiliary"):
        assert all(b > a + 1e-3 for a, b in zip(rises[name], rises[name][1:])), name
    for name in ("contrast", "all-from-one"):
        assert rises[name] == pytest.approx([0] * 4, abs=1e-8), name
    assert min(rises["retain"][1:3]) > 0.05 and rises["retain"][3] < 1e-8  # a mixture is charged, the wholly moved one not


@pytest.mark.parametrize("seed", range(3))
def test_two_of_them_are_linear_in_what_has_moved(truth, seed):
    """eq-ask-oracle-cross and eq-ask-oracle-one, from the truth's loadings alone."""
    moved, noise = several(seed), truth.noise ** 2
    model, home = asking.solution(truth, moved), asking.solution(truth, part(truth, spare=3))
    crossed, aside = 0.0, 0.0
    for m, other in ((I, T), (T, I)):
        A, P = truth.loadings[truth.rows(m), truth.columns(m[0])], moved[m[0]]
        C, own, its = truth.covariance(m, other), truth.covariance(m, m), truth.covariance(other, other)
        H = C @ torch.linalg.inv(its) @ C.T @ torch.linalg.inv(own)
        crossed += ((torch.eye(6).double() - H) @ A @ P @ P.T @ A.T).trace().item() / noise
        aside += (A @ P @ P.T @ A.T).trace().item() / noise
    assert asking.cross(model) - asking.cross(home) == pytest.approx(crossed, abs=1e-8)
    for spread in (0.0, 0.5, 1.0, 1.5):
        lost = asking.all_from_one(model, spread) - asking.all_from_one(home, spread)
        assert lost == pytest.approx(0.5 * (1 - spread ** 2) * aside, abs=1e-8)


def test_the_cross_reconstruction_does_not_always_ask():
    """A truth in which x_I tells one shared latent far more sharply than the other, and x_T only their sum: moved costs less."""
    truth = counterexample()
    home, moved = (asking.solution(truth, {"I": torch.full((1, 1), s).double()}) for s in (0.0, 1.0))
    assert torch.linalg.matrix_rank(truth.loadings) == 4
    assert asking.cross(moved) < asking.cross(home) - 0.3
    assert asking.gap(moved) > asking.gap(home) + 0.3


def counterexample():
    a = torch.tensor([0.6, 0.6, math.sqrt(0.28)])
    A = torch.stack([a, torch.tensor([20.0, 0, 0]), torch.tensor([0.0, 1, 0])], 1)  # z_I, z_S1, z_S2
    B = torch.tensor([[7.0, 7.0, 0], [-0.035, 0.035, 0], [0, 0, 1.0]])  # z_S1, z_S2, z_T
    W = torch.zeros(6, 4)
    W[:3, :3], W[3:, 1:] = A, B
    return oracle.LinearGaussian(W.double(), torch.zeros(6).double(), 1.0, {"I": 1, "S": 2, "T": 1}, {"I": 3, "T": 3})


def test_the_two_means_of_z_s_agree_as_much_as_the_two_pictures_do(truth):
    """contrast at its best is minus the mutual information of x_I and x_T, which is one number for all solutions."""
    whole = truth.covariance(IT, IT)
    told = 0.5 * (torch.logdet(truth.covariance(I, I)) + torch.logdet(truth.covariance(T, T)) - torch.logdet(whole)).item()
    for seed in range(3):
        assert asking.contrast(asking.solution(truth, several(seed))) == pytest.approx(-told, abs=1e-7)


def test_whether_a_cosine_in_the_critics_place_asks_is_a_matter_of_its_temperature(truth):
    """InfoNCE as it is used, over batches of 64: at temperature 1 what has moved is charged, at 0.1 it is not."""
    x, _ = truth.draw(64 * 64, torch.Generator().manual_seed(0))

    def value(degrees, temperature):
        model = asking.solution(truth, part(truth, degrees))
        S = model.columns("S")
        one, two = (model.exact_posterior({m: x[m]})[0][:, S].split(64) for m in IT)
        return torch.stack([info_nce(a, b, None, temperature).mean() + info_nce(b, a, None, temperature).mean()
                            for a, b in zip(one, two)]) / 2

    for temperature, rises in ((1.0, True), (0.1, False)):
        charged = value(90, temperature) - value(0, temperature)
        assert ((charged.mean() - 3 * charged.std() / 8).item() > 0) == rises


def test_how_much_a_code_is_retained_is_a_mutual_information(truth):
    """-I(z; x) by the log-ratio of two densities, at points of the model's moments."""
    model = asking.solution(truth, several(0))
    x, z = model.draw(100_000, torch.Generator().manual_seed(0))
    total = 0.0
    for m in IT:
        mean, covariance = model.exact_posterior({m: x[m]})
        for block in ("S", m):
            at = model.columns(block)
            log_ratio = oracle.log_normal(z[block], mean[:, at], covariance[at, at]) + 0.5 * (
                z[block].square().sum(1) + z[block].shape[1] * math.log(2 * math.pi))
            total -= log_ratio.mean().item()
    assert asking.retain(model) == pytest.approx(total, abs=0.1)


# ---- with diagonal posteriors

def test_between_moved_and_home_stands_what_a_diagonal_posterior_lacks():
    """eq-ask-oracle-barrier: the two ELBOs that see the private latent, by `mean_field`; none at either end."""
    truth = oracle.toy(size=5, names=IT)
    r = truth.gram("I")[0, 0].item()
    for degrees in (0, 30, 45, 90):
        model = asking.solution(truth, part(truth, degrees))
        c, s = (f(math.radians(degrees)) ** 2 for f in (math.cos, math.sin))
        formula = 0.5 * math.log((1 + r * c) * (1 + r * s) / (1 + r))
        for subset, lacks in ((I, formula), (IT, formula), (T, 0.0)):
            assert model.mean_field(subset) == pytest.approx(lacks, abs=1e-9)


def test_the_charged_loss_of_a_model_is_its_elbos_and_its_gap():
    """By the terms that training computes, over many draws."""
    truth = oracle.toy(size=5, names=IT)
    x = truth.sigma_points()
    torch.manual_seed(0)
    model = oracle.linear(MuMoVAE, truth, shared=4)
    many = {m: v.repeat(400, 1) for m, v in x.items()}
    with torch.no_grad():
        loss = model.terms(many, extra={"gap": 2.0})["total"]
        exact = asking.charged(model, x, 2.0).item()
    spread = loss.unflatten(0, (-1, len(x["I"]))).mean(1).std().item() / 400 ** 0.5
    assert loss.mean().item() == pytest.approx(exact, abs=5 * spread)


# ---- what is refused

@pytest.mark.parametrize("moved, message", [
    ({}, "moved: found {}, expected matrices"),
    ({"I": (3, 1)}, r"found {'I': \(3, 1\)}, expected matrices"),
    ({"x": (2, 1)}, "expected matrices of as many rows"),
    ({"I": (2, 1), "T": (2, 2)}, "one number of columns")])
def test_what_is_no_move_is_refused(truth, moved, message):
    with pytest.raises(ValueError, match=message):
        asking.solution(truth, {m: torch.zeros(*shape).double() for m, shape in moved.items()})


def test_too_much_moved_and_two_in_one_place_are_refused(truth):
    with pytest.raises(ValueError, match="moved by more than 1, expected singular values of at most 1"):
        asking.solution(truth, {"I": torch.ones(2, 1).double()})
    with pytest.raises(ValueError, match="two modalities in one direction of the spare latents"):
        asking.solution(truth, part(truth, 30) | part(truth, 30, "T"))
    with pytest.raises(ValueError, match="weight, spare: found -1 and 1"):
        asking.asked(truth, 1, -1)
