"""experts.py: what each expert claims to know, by hand; and latents sorted by who speaks of them."""
import math

import pytest
import torch

import mmvae
import planted
from mmvae import evaluate
from mmvae.data import Rows
from mmvae.observed import joined

IT = "I", "T"


@pytest.fixture(scope="module")
def pairs():
    return planted.splits()[1]


def is_by_hand(found, model, x, names):
    with torch.no_grad():
        q = {s: model.posterior({m: x[m] for m in s})["S"] for s in (*((m,) for m in names), names)}
    normal = {joined(s): torch.distributions.Normal(g.mu, (g.logvar / 2).exp()) for s, g in q.items()}
    whole = joined(names)
    assert set(found) == {f"precision.{s}" for s in normal} | {f"{k}.{m}" for k in ("kl", "shift") for m in names}
    for s, p in normal.items():
        assert found[f"precision.{s}"] == pytest.approx((1 / p.variance).mean(0).tolist(), rel=1e-5)
    for m in names:
        kl = torch.distributions.kl_divergence(normal[whole], normal[m]).sum(1).mean()
        assert found[f"kl.{m}"] == pytest.approx(kl.item(), rel=1e-4)
        assert found[f"kl.{m}"] == pytest.approx(q[names].kl(q[(m,)]).mean().item(), rel=1e-6)
        shift = ((normal[whole].mean - normal[m].mean) / normal[m].stddev).square().mean().sqrt()
        assert found[f"shift.{m}"] == pytest.approx(shift.item(), rel=1e-5)


@pytest.mark.parametrize("name", ["mumo", "poe-v2", "wg-v1"])
def test_experts_are_compared_by_hand(name, pairs):
    torch.manual_seed(0)
    model = mmvae.MODELS[name](size=16)
    found = evaluate.experts(model, pairs, n=100, seed=3)
    is_by_hand(found, model, pairs.sample(100, torch.Generator().manual_seed(3))[0], IT)


def test_exact_posteriors_of_one_model_are_calibrated():
    """eq-mumo-ratio and eq-mumo-chain, in a linear-Gaussian model with one shared latent: all about it is known."""
    g, noise = torch.Generator().manual_seed(0), {"I": 0.5, "T": 1.0}
    z = torch.randn(400_000, 1, generator=g, dtype=torch.float64)
    x = {m: z + s * torch.randn(z.shape, generator=g, dtype=torch.float64) for m, s in noise.items()}

    def exact(*seen):  # precision 1 + sum of 1 / noise^2
        precision = torch.full_like(z, 1 + sum(noise[m] ** -2 for m in seen))
        return mmvae.Gaussian(sum(x[m] * noise[m] ** -2 for m in seen) / precision, -precision.log())

    for m in IT:
        found = {k: v.mean().item() for k, v in evaluate.calibration(exact(*IT), exact(m)).items()}
        assert found["ratio"] == pytest.approx(1, abs=0.01)
        information = 0.5 * math.log(6.0 / (1 + noise[m] ** -2))  # of z and the other one, given x_m
        assert [found["kl"], found["promised"]] == pytest.approx([information] * 2, abs=0.005)
    vague = evaluate.calibration(exact(*IT), mmvae.Gaussian(exact("I").mu, exact("I").logvar + 1))  # not the exact one
    assert vague["ratio"].mean() == pytest.approx(math.exp(-1), abs=0.01)
    with pytest.raises(ValueError, match="single: found means of shape"):
        evaluate.calibration(exact(*IT), mmvae.prior(2, 3))


@pytest.mark.parametrize("gaps", [False, True])
@pytest.mark.parametrize("cls", [mmvae.PoEVAE, mmvae.MuMoVAE])
def test_experts_of_three_modalities_are_compared_in_the_rows_that_have_all(cls, gaps):
    torch.manual_seed(0)
    names, b = ("words", "label", "sound"), torch.rand(80) < 0.5
    model = cls({"words": mmvae.categories(5, length=3), "label": mmvae.categories(4, private=1), "sound": mmvae.vectors(6)},
                shared=3)
    rows = Rows({"words": torch.randint(5, (80, 3)), "label": torch.randint(4, (80,)), "sound": torch.randn(80, 6)},
                {"label": b} if gaps else None)
    found = evaluate.experts(model, rows, n=60, seed=2)
    x, masks = rows.batch(rows.draw(60, torch.Generator().manual_seed(2)))
    is_by_hand(found, model, {m: v[masks["label"]] for m, v in x.items()} if gaps else x, names)
    if cls is mmvae.PoEVAE:
        said = torch.tensor([found[f"precision.{m}"] for m in names])
        assert found["precision.words+label+sound"] == pytest.approx((1 + said.sum(0)).tolist(), rel=1e-5)


def test_in_a_product_precisions_add(pairs):
    """With the prior's 1; and a model without inference from one image has no experts."""
    torch.manual_seed(0)
    found = evaluate.experts(mmvae.MODELS["poe-v2"](size=16), pairs, n=50)
    added = [1 + i + t for i, t in zip(found["precision.I"], found["precision.T"])]
    assert found["precision.I+T"] == pytest.approx(added, rel=1e-5)
    assert evaluate.experts(mmvae.MODELS["vanilla"](size=16), pairs) == {}


def test_the_experts_of_a_mixture_are_those_of_its_moments(pairs):
    class Mixed(mmvae.PoEVAE):
        def fuse(self, experts):
            return super().fuse(experts) | {"S": mmvae.mixture_of_experts([q["S"] for q in experts.values()])}

    torch.manual_seed(0)
    model, state = Mixed({m: mmvae.images(16, private=2) for m in IT}), torch.get_rng_state()
    found = evaluate.experts(model, pairs, n=40, seed=3)
    assert torch.equal(state, torch.get_rng_state())
    x = pairs.sample(40, torch.Generator().manual_seed(3))[0]
    a, b = model.posterior(x)["S"].moments(), model.posterior({"T": x["T"]})["S"].moments()
    assert found["kl.T"] == pytest.approx(a.kl(b).mean().item(), rel=1e-5)


class Experts(mmvae.MultiModalVAE):
    """Experts of these precisions, whatever they see."""

    def __init__(self, precisions):
        super().__init__({m: mmvae.images(16) for m in precisions if "+" not in m}, 4)
        self.precisions = precisions

    def posteriors(self, x, subsets):
        said = {s: torch.tensor(self.precisions[joined(s)]).expand(len(next(iter(x.values()))), 4) for s in subsets}
        return {s: {"S": mmvae.Gaussian(torch.arange(4.0).expand_as(p), -p.log())} for s, p in said.items()}


def test_latents_are_sorted_by_who_speaks_of_them(pairs):
    """Expert I is silent about the second latent, T about the third, I whispers about the fourth."""
    model = Experts({"I": [50.0, 1.0, 50.0, 3.0], "T": [50.0, 50.0, 1.0, 50.0], "I+T": [99.0, 50.0, 50.0, 52.0]})
    by_silence = evaluate.Sorted(model, pairs)
    assert {b: at.tolist() for b, at in by_silence.latents.items()} == {"I": [2], "S": [0, 3], "T": [1]}
    assert by_silence.blocks == {"I": 1, "S": 2, "T": 1}
    q = by_silence.posterior(pairs.sample(5)[0])
    assert q["S"].mu[0].tolist() == [0, 3] and q["T"].precision[0].tolist() == pytest.approx([50])
    assert evaluate.all_shared(model) and not evaluate.all_shared(mmvae.MODELS["mumo"](size=16))
    with pytest.raises(ValueError, match="expected all latents in S"):
        evaluate.Sorted(mmvae.MODELS["mumo"](size=16), pairs)


def test_a_latent_of_one_of_three_is_one_of_which_both_others_are_silent():
    model = Experts({"a": [9.0, 9.0, 1.0, 9.0], "b": [1.0, 9.0, 9.0, 3.0], "c": [1.0, 1.0, 1.0, 1.0], "a+b+c": [9.0] * 4})
    rows = Rows({m: torch.rand(9, 1, 16, 16) for m in "abc"}, factors={"k": torch.arange(9) % 2})
    by_silence = evaluate.Sorted(model, rows, 20)
    assert {b: at.tolist() for b, at in by_silence.latents.items()} == {"a": [0], "b": [2], "S": [1, 3], "c": []}
    assert list(by_silence.blocks) == list(model.blocks) and by_silence.seen == model.seen
    scores = evaluate.probes(by_silence, rows, rows, 40, subsets=[("a", "b", "c")])
    assert len(scores) == 8 and all(k.startswith("a+b+c.") for k in scores)
