"""What came after 2018 (later.py): the expected loss of each model, written out from its paper and integrated on a grid.

Nothing here uses the package's formulas: an expert is a density on the points of a grid, a product is the normalised product
of such densities, a mixture their mean, and every expectation a sum over points.
"""
import math
from itertools import combinations

import pytest
import torch
from torch.distributions import Categorical, Laplace, Normal

import mmvae
import tiny
import worlds
from mmvae import categories, gaussian, later, likelihoods, vectors
from mmvae.experiment.recipe import Recipe

NAMES = "a", "b", "c"
N = 4096  # draws of a row
WEIGHT = {"a": 2.0, "c": 0.5}
POINTS = torch.linspace(-8, 8, 161, dtype=torch.float64)
STEP = (POINTS[1] - POINTS[0]).item()
PRIOR = Normal(0.0, 1.0).log_prob(POINTS).exp()
SIX = {"mmvae": later.MMVAE, "mopoe": later.MoPoE, "dmvae": later.DMVAE, "mmvae+": later.MMVAEPlus, "mvtcae": later.MVTCAE,
       "jmvae": later.JMVAE}
CASES = [(name, {}) for name in SIX] + [
    ("mopoe", {"beta": 2.0}), ("dmvae", {"alone": 0.3, "single_prior": False}), ("mmvae+", {"beta": 2.5}),
    ("mvtcae", {"alpha": 0.2, "beta": 1.0}), ("jmvae", {"alpha": 3.0})]
PAPERS = {"mopoe": {"beta": 1.0}, "dmvae": {"alone": 1.0, "single_prior": True}, "mmvae+": {"beta": 1.0},
          "mvtcae": {"alpha": 5 / 6, "beta": 2.5}, "jmvae": {"alpha": 0.1}, "mmvae": {}}


def modalities():
    """Of three kinds, each with one private latent."""
    return {"a": vectors(2, private=1, likelihood=likelihoods.Normal(0.7)),
            "b": vectors(3, private=1, likelihood=likelihoods.Laplace(0.8)), "c": categories(3, private=1)}


def lively(name, **options):
    """A model with one latent a block, whose experts and decoders differ from row to row and from each other."""
    torch.manual_seed(3)
    model = SIX[name](modalities(), shared=1, **options).double()
    with torch.no_grad():
        for k, p in model.named_parameters():
            if k.endswith(".mu.weight"):
                p *= 4
            elif k.endswith(".logvar.bias"):
                p -= 0.3 + torch.rand(p.shape, dtype=p.dtype)
            elif k == "auxiliary":
                p += torch.tensor([0.5, -0.4, 0.9])
    return model


def row():
    return {"a": torch.tensor([[0.4, -1.1]], dtype=torch.float64), "b": torch.tensor([[1.2, 0.1, -0.6]], dtype=torch.float64),
            "c": torch.tensor([2])}


class Even:
    """Noise that is spread evenly (Sobol's points): the mean over rows is an expectation, to a hundredth of a nat."""

    def __init__(self, seed=0):
        points = torch.quasirandom.SobolEngine(60, scramble=True, seed=seed).draw(N, dtype=torch.float64)
        self.columns = iter(torch.special.ndtri(points.clamp(1e-9, 1 - 1e-9)).T)

    def __call__(self, like):
        return torch.stack([next(self.columns) for _ in range(like.shape[1])], 1) if like.shape[1] else like


def expected_terms(model, x, monkeypatch, **arguments):
    """{term: its mean over the noise} of one row."""
    monkeypatch.setattr(gaussian, "noise", Even())
    with torch.no_grad():
        terms = model.terms({m: v.expand(N, *v.shape[1:]) for m, v in x.items()}, check=False, **arguments)
    return {k: v.mean().item() for k, v in terms.items()}


def density(q):
    return Normal(q.mu.item(), (0.5 * q.logvar).exp().item()).log_prob(POINTS).exp()


def product(densities):
    found = torch.stack(densities).prod(0)
    return found / (found.sum() * STEP)


def kl(q, p):
    return (torch.special.xlogy(q, q / p).nan_to_num().sum() * STEP).item()


class Written:
    """What the papers ask of one row of which some modalities were observed, as numbers."""

    def __init__(self, model, x):
        self.x, self.seen = x, tuple(x)
        with torch.no_grad():
            encoded = {m: model.encoders[m](x[m]) for m in x}
            z, w = (t.reshape(-1, 1) for t in torch.meshgrid(POINTS, POINTS, indexing="ij"))
            self.log_p = {}
            for m in x:
                out = model.decoders[m](torch.cat([w, z], 1))
                p = {"a": lambda: Normal(out, 0.7).log_prob(x["a"]).sum(1),
                     "b": lambda: Laplace(out, 0.8).log_prob(x["b"]).sum(1),
                     "c": lambda: Categorical(logits=out).log_prob(x["c"])}[m]()
                self.log_p[m] = p.view(len(POINTS), len(POINTS))  # log p(x_m | z_S, z_m), by rows z_S
        self.experts = {m: density(q["S"]) for m, q in encoded.items()}
        self.own = {m: density(q[m]) for m, q in encoded.items()}

    def reconstruction(self, m, shared, private):
        """-E log p(x_m | z), weighed."""
        return -WEIGHT.get(m, 1.0) * (shared @ self.log_p[m] @ private).item() * STEP ** 2

    def minus_elbo(self, shared, own=None):
        own = own or self.own
        return sum(self.reconstruction(m, shared, own[m]) + kl(own[m], PRIOR) for m in self.seen) + kl(shared, PRIOR)

    def log_likelihood(self):
        """log p(x), the decoders' own, exactly."""
        each = [(self.log_p[m].exp() @ PRIOR).log() + math.log(STEP) for m in self.seen]
        return (torch.stack(each).sum(0).exp() @ PRIOR * STEP).log().item()

    def mmvae(self, model, foreign=None, beta=1.0):
        """Shi et al.: the mean over the experts of E_q_m log p(x, z) / q(z | x), q the mixture."""
        mixture, total = torch.stack([*self.experts.values()]).mean(0), 0.0
        for m in self.seen:
            for n in self.seen:
                other = PRIOR if foreign is None else foreign[n]
                total += self.reconstruction(n, self.experts[m], self.own[n] if n == m else other)
            q = self.experts[m]
            total += beta * ((q * (mixture / PRIOR).log()).sum().item() * STEP + kl(self.own[m], PRIOR))
        return total / len(self.seen)

    def mmvaeplus(self, model, beta=1.0):
        """Palumbo et al.: the same with the auxiliary priors."""
        learnt = {m: Normal(0.0, (0.5 * v).exp().item()).log_prob(POINTS).exp() for m, v in zip(NAMES, model.auxiliary)}
        return self.mmvae(model, learnt, beta)

    def mopoe(self, model, beta=1.0):
        """Sutter et al.: z from the mixture of the products of all subsets, and the mean of their KLs."""
        parts = [product([self.experts[m] for m in some]) for k in range(1, len(self.seen) + 1)
                 for some in combinations(self.seen, k)]
        mixture = torch.stack(parts).mean(0)
        inside = sum(kl(part, PRIOR) for part in parts) / len(parts) + sum(kl(self.own[m], PRIOR) for m in self.seen)
        assert kl(mixture, PRIOR) <= sum(kl(part, PRIOR) for part in parts) / len(parts) + 1e-9
        return sum(self.reconstruction(m, mixture, self.own[m]) for m in self.seen) + beta * inside

    def dmvae(self, model, alone=1.0, single_prior=True):
        """Lee & Pavlovic: the joint ELBO, and one with z_S from each modality alone."""
        single = {m: product([e, PRIOR] if single_prior else [e]) for m, e in self.experts.items()}
        if len(self.seen) == 1:
            return self.minus_elbo(*single.values())
        joint = product([*self.experts.values(), PRIOR])
        return self.minus_elbo(joint) + alone * sum(self.minus_elbo(single[m]) for m in self.seen)

    def mvtcae(self, model, alpha=5 / 6, beta=2.5):
        """Hwang et al.: their code's weights of reconstructions, KL to the prior and KLs to the experts."""
        n, q = len(self.seen), product([*self.experts.values()])
        private = {m: kl(self.own[m], PRIOR) for m in self.seen}
        gaps = sum(kl(q, self.experts[m]) + sum(v for k, v in private.items() if k != m) for m in self.seen)
        reconstructed = sum(self.reconstruction(m, q, self.own[m]) for m in self.seen)
        inside = (1 - alpha) * (kl(q, PRIOR) + sum(private.values())) + alpha / n * gaps
        return (n - alpha) / n * reconstructed + beta * inside

    def jmvae(self, model, alpha=0.1):
        """Suzuki et al.: the ELBO of the joint encoder, and its KLs to those of one modality."""
        if self.seen == NAMES:
            with torch.no_grad():
                q = model.encoders["a+b+c"](*self.x.values())
            shared, own = density(q["S"]), {m: density(q[m]) for m in NAMES}
        else:  # ours: the single encoder, or Bayes' rule: all likelihoods q_m / p, and the prior once
            shared, own = [*self.experts.values()], self.own
            shared = shared[0] if len(shared) == 1 else product([*(q / PRIOR for q in shared), PRIOR])
        gaps = sum(kl(shared, self.experts[m]) + sum(kl(own[k], self.own[m] if k == m else PRIOR) for k in self.seen)
                   for m in self.seen)
        return self.minus_elbo(shared, own) + alpha * gaps


@pytest.mark.parametrize("seen", [NAMES, ("a", "c"), ("b",)], ids="+".join)
@pytest.mark.parametrize("name, options", CASES, ids=[f"{name}{list(options)}" for name, options in CASES])
def test_the_expected_loss_is_the_papers_by_numerical_integration(name, options, seen, monkeypatch):
    """Of a row that lacks the other modalities, by their masks; nats."""
    x, model = row(), lively(name, **options)
    masks = {m: torch.full((N,), m in seen) for m in NAMES}
    found = expected_terms(model, x, monkeypatch, weight=WEIGHT, present=masks)["total"]
    expected = getattr(Written(model, {m: x[m] for m in seen}), name.replace("+", "plus"))(model, **options)
    assert found == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("name", SIX)
def test_what_is_called_elbo_is_a_bound_in_training_and_in_evaluation(name, monkeypatch):
    x, model = row(), lively(name)
    whole, few = Written(model, x).log_likelihood(), Written(model, {m: x[m] for m in "ac"}).log_likelihood()
    trained = expected_terms(model, x, monkeypatch)
    found = expected_terms(model, x, monkeypatch, subsets=[("a", "c"), NAMES])
    assert max(trained["a+b+c.elbo"], found["a+b+c.elbo"]) < whole and found["a+c.elbo"] < few
    assert set(found) - {"total"} == {f"{s}.{k}" for s in ("a+c", "a+b+c") for k in (
        "elbo", "kl.S", *(f"{part}.{m}" for part in ("kl", "reconstruction") for m in s.split("+")))}
    assert found["total"] == pytest.approx(-found["a+b+c.elbo"] - found["a+c.elbo"])


def test_without_its_auxiliary_prior_mmvaeplus_is_mmvae_and_its_loss_leaves_out_the_priors_kl():
    plain, plus, x = lively("mmvae"), lively("mmvae+"), row()
    plus.load_state_dict(plain.state_dict() | {"auxiliary": torch.zeros(3, dtype=torch.float64)})
    found = []
    for model in (plain, plus):
        torch.manual_seed(1)
        found.append(model.terms(x, WEIGHT)["total"])
    torch.testing.assert_close(*found)
    with torch.no_grad():
        plus.auxiliary += torch.tensor([0.5, -0.4, 0.9])
    terms = plus.terms(x)
    free = 2 / 3 * sum(0.5 * (math.exp(v) - v - 1) for v in (0.5, -0.4, 0.9))
    torch.testing.assert_close(terms["total"], -terms["a+b+c.elbo"] - free)
    assert torch.autograd.grad(terms["total"].sum(), plus.auxiliary)[0].abs().min() > 0


# ---------------------------------------------------------------- what is missing

def gradients(model, x, masks):
    torch.manual_seed(0)
    terms = model.terms(x, WEIGHT, masks, check=False)
    found = torch.autograd.grad(terms["total"].sum(), list(model.parameters()), allow_unused=True)
    named = zip(dict(model.named_parameters()), found)
    return terms["total"], {k: torch.zeros(()) if g is None else g for k, g in named}


@pytest.mark.parametrize("name", SIX)
def test_what_is_missing_adds_no_loss_no_gradient_and_changes_no_bit(name):
    model = lively(name)
    x = {m: v.expand(6, *v.shape[1:]).clone() for m, v in row().items()}
    masks = {"a": torch.tensor([1, 1, 0, 1, 0, 0]).bool(), "b": torch.tensor([1, 0, 1, 0, 1, 0]).bool()}
    total, slopes = gradients(model, x, masks)
    spoilt = {**x, **{m: torch.where(masks[m].unsqueeze(1), x[m], torch.nan) for m in masks}}
    again, found = gradients(model, spoilt, masks)
    assert torch.equal(total, again) and all(torch.equal(slopes[k], found[k]) for k in slopes) and total.isfinite().all()
    for m, rows in (("a", [2, 4, 5]), ("b", [1, 3, 5])):  # of rows that lack it nothing comes to its networks
        few = {k: v[rows] for k, v in x.items()}
        _, slopes = gradients(model, few, {k: v[rows] for k, v in masks.items()})
        assert all(not g.any() for k, g in slopes.items() if k.startswith((f"encoders.{m}.", f"decoders.{m}.")))
    q, alone = model.posterior(x, masks), model.posterior({"c": x["c"]})
    for block in model.blocks:
        torch.testing.assert_close(q[block].mu[5], alone[block].mu[5])
        torch.testing.assert_close(q[block].logvar[5], alone[block].logvar[5])


# ---------------------------------------------------------------- their place among the others

@pytest.mark.parametrize("name", SIX)
def test_the_table_of_models(name):
    model = mmvae.MODELS[name](size=16)
    assert type(model) is SIX[name] and list(model.subsets) == [("I", "T")] and set(model.decoders) == {"I", "T"}
    private = name in ("dmvae", "mmvae+")
    assert model.blocks == ({"I": 2, "S": 5, "T": 2} if private else {"I": 0, "S": 10, "T": 0})
    assert set(model.encoders) == {"I", "T"} | ({"I+T"} if name == "jmvae" else set())
    assert {k: getattr(model, k) for k in PAPERS[name]} == pytest.approx(PAPERS[name])
    assert isinstance(model.posterior({m: torch.rand(2, 1, 16, 16) for m in "IT"})["S"], mmvae.Mixture) == (
        name in ("mmvae", "mopoe", "mmvae+"))
    recipe = Recipe(model=name, size=16, options=PAPERS[name])
    assert type(recipe.build()) is SIX[name] and Recipe.from_key(recipe.key) == recipe


@pytest.mark.parametrize("name, wrong, said", [
    ("mopoe", {"beta": -1.0}, r"^beta: found -1.0, expected 0 or a positive number$"),
    ("mmvae+", {"beta": math.inf}, r"^beta: found inf, expected 0 or a positive number$"),
    ("dmvae", {"alone": -0.1}, r"^alone: found -0.1, expected 0 or a positive number$"),
    ("mvtcae", {"alpha": 1.5}, r"^alpha: found 1.5, expected a number from 0 to 1$"),
    ("mvtcae", {"beta": math.nan}, r"^beta: found nan, expected 0 or a positive number$"),
    ("jmvae", {"alpha": "much"}, r"^alpha: found 'much', expected 0 or a positive number$")])
def test_a_weight_that_is_none_is_refused(name, wrong, said):
    with pytest.raises(ValueError, match=said):
        SIX[name](modalities(), **wrong)


@pytest.mark.parametrize("name", SIX)
def test_one_modality_and_no_private_latents(name):
    """What is left of each: a VAE, up to the weights of its terms."""
    torch.manual_seed(0)
    model = SIX[name]({"a": vectors(2, likelihood=likelihoods.Normal(0.7))}, shared=2)
    x = {"a": torch.randn(5, 2)}
    terms = model.terms(x)
    alpha, beta = (model.alpha, model.beta) if name == "mvtcae" else (0.0, 1.0)
    expected = (1 - alpha) * (terms["a.reconstruction.a"] + beta * terms["a.kl.S"])
    torch.testing.assert_close(terms["total"], expected)
    model.loss(x)["total"].backward()
    assert all(p.grad is not None for p in model.parameters())  # as several processes need it


@pytest.mark.parametrize("name", SIX)
def test_export_with_a_free_batch(name):
    worlds.exports(worlds.build(name, "three").eval(), worlds.data("three", 7), worlds.data("three", 11, seed=3))


@pytest.mark.parametrize("name", ["mopoe"])  # whose draw is of a part that the noise chooses
def test_compiled_it_learns_the_same(name, tmp_path):
    plain, compiled = (tiny.run(tmp_path / f"{c}", compile=c, model=name, iterations=10) for c in (False, True))
    for a, b in zip(plain.parameters(), compiled.parameters()):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4)
