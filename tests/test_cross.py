"""The cross-reconstruction, in the loss of a model (models.py) and in a run's settings (train.py)."""
import pytest
import torch
from torch.distributions import Bernoulli, Normal

import mmvae
import tiny
from mmvae import MODELS
from mmvae.train import Settings, read_log
from tiny import noiseless, same, stop_at, weights

MODELS_WITH_IT = [name for name in MODELS if name not in ("vanilla", "idmvae")]  # it has none; its own terms draw after it


@pytest.fixture
def x():
    g = torch.Generator().manual_seed(0)
    return {m: torch.rand(6, 1, 16, 16, generator=g) for m in "IT"}


def make(name):
    return tiny.build(name, seed=1)


def cross(model, x):
    return model.cross_reconstruction(x, {s[0]: q for s, q in model.posteriors(x, (("I",), ("T",))).items()}, {})


# ---------------------------------------------------------------- in the loss


@pytest.mark.parametrize("name", ["mumo", "poe-v1", "poe-v2"])
def test_the_cross_reconstruction_written_out(name, x):
    """x_I from z_I given x_I and z_S given x_T, and the other way round; the single posteriors as the encoders say."""
    model = make(name)
    torch.manual_seed(7)
    found = cross(model, x)
    torch.manual_seed(7)
    q = {m: model.encoders[m](x[m]) for m in "IT"}
    for m, other in ("IT", "TI"):
        z = [Normal(g.mu, (0.5 * g.logvar).exp()).rsample() for g in (q[m][m], q[other]["S"])]
        p = Bernoulli(logits=model.decoders[m](torch.cat(z, 1)), validate_args=False)
        torch.testing.assert_close(found[m], -p.log_prob(x[m]).flatten(1).sum(1))


@pytest.mark.parametrize("name", MODELS_WITH_IT)
def test_it_adds_to_the_total_by_its_weight_and_the_likelihoods(name, x):
    """Also to a loss that has the joint ELBO alone."""
    model, losses = make(name), {}
    for cross in (None, 0.0, 0.5, 2.0):
        torch.manual_seed(3)
        losses[cross] = model.terms(x, weight=4.0, cross=cross)
    plain, extra = losses[None], {"cross.reconstruction.I", "cross.reconstruction.T"}
    assert not any(k.startswith("cross") for k in plain)
    for cross in (0.0, 0.5, 2.0):
        terms = losses[cross]
        assert set(terms) == set(plain) | extra and terms["total"].shape == (6,)
        assert all(torch.equal(terms[k], plain[k]) for k in plain if k != "total")
        torch.testing.assert_close(terms["total"], plain["total"] + cross * 4 * sum(terms[k] for k in extra))
    assert torch.equal(losses[0.0]["total"], plain["total"])
    torch.manual_seed(3)
    assert torch.equal(model.loss(x, 4.0, cross=0.5)["total"], losses[0.5]["total"].mean())


@pytest.mark.parametrize("name", ["mumo", "poe-v1"])
def test_at_weight_zero_it_is_watched_and_carries_no_gradient(name, x):
    model, gradients = make(name), {}
    for cross in (None, 0.0, 1.0):
        torch.manual_seed(3)
        terms = model.loss(x, cross=cross)
        gradients[cross] = torch.autograd.grad(terms["total"], list(model.parameters()))
        if cross is not None:
            assert all(terms[f"cross.reconstruction.{m}"].requires_grad == (cross > 0) for m in "IT")
    assert all(torch.equal(a, b) for a, b in zip(gradients[None], gradients[0.0]))
    assert not all(torch.allclose(a, b) for a, b in zip(gradients[None], gradients[1.0]))
    with torch.no_grad():
        assert not model.loss(x, cross=1.0)["total"].requires_grad


def test_its_gradient_reaches_the_other_modalitys_encoder(x):
    """What z_S from x_T should say is what x_I needs: no ELBO of v1 asks the single posteriors for that."""
    model = make("poe-v1")
    found = cross(model, x)["I"].sum()
    found.backward()
    dims = model.encoders["T"].blocks
    moved = [g.abs().sum() > 0 for g in model.encoders["T"].net.mu.weight.grad.split(list(dims.values()))]
    assert dict(zip(dims, map(bool, moved))) == {"S": True, "T": False}
    assert model.decoders["T"].pixels.weight.grad is None


def test_a_model_of_pairs_refuses_it(x):
    with pytest.raises(ValueError, match="x: found rows of .I. alone, expected all of .*VanillaVAE has no posterior of fewer"):
        make("vanilla").loss(x, cross=1.0)


def test_another_likelihood_is_used_in_every_term(x):
    class Shifted:
        def log_prob(self, output, image):
            return -(output - image).square().flatten(1).sum(1) - 1000

        def mean(self, output):
            return output

        def sample(self, output, generator=None):
            return output

        def check(self, x, name):
            pass

    torch.manual_seed(1)
    model = mmvae.PoEVAE({m: mmvae.images(16, private=2, likelihood=Shifted()) for m in "IT"})
    torch.manual_seed(3)
    terms = model.terms(x, cross=1.0)
    torch.manual_seed(3)
    q = model.posteriors(x, (("I",), ("T",), ("I", "T")))
    z = {b: g.sample() for b, g in q["I",].items()}
    expected = 1000 + (model.decode(z, "I")["I"] - x["I"]).square().flatten(1).sum(1)
    torch.testing.assert_close(terms["I.reconstruction.I"], expected)
    assert all((value >= 1000).all() for k, value in terms.items() if "reconstruction" in k)


def test_of_three_modalities_it_is_the_sum_over_the_others():
    g = torch.Generator().manual_seed(0)
    x = {"a": torch.randn(5, 3, generator=g), "b": torch.randn(5, 4, generator=g), "c": torch.randint(0, 3, (5,), generator=g)}
    model = mmvae.PoEVAE({"a": mmvae.vectors(3, 1), "b": mmvae.vectors(4, 2), "c": mmvae.categories(3)}, shared=2)
    with noiseless():
        terms = model.terms(x, cross=2.0)
        q = model.posteriors(x, [(m,) for m in x])
        for m in x:
            parts = [-model.likelihood(m).log_prob(model.decoders[m](torch.cat([q[m,][m].mu, q[o,]["S"].mu], 1)), x[m])
                     for o in x if o != m]
            torch.testing.assert_close(terms[f"cross.reconstruction.{m}"], sum(parts))
    masks = {"b": torch.tensor([True, False, True, False, False])}
    with noiseless():
        gaps, whole = model.terms(x, present=masks, cross=1.0), model.terms({m: x[m] for m in "ac"}, cross=1.0)
    assert (gaps["cross.reconstruction.b"][~masks["b"]] == 0).all()
    torch.testing.assert_close(gaps["cross.reconstruction.a"][~masks["b"]], whole["cross.reconstruction.a"][~masks["b"]])


# ---------------------------------------------------------------- in a run


def test_the_schedule():
    assert [Settings().cross_at(i) for i in (0, 79_999)] == [None, None]
    assert Settings(cross_until=10).cross_at(0) is None  # nothing to end
    assert [Settings(cross=0.5).cross_at(i) for i in (0, 79_999)] == [0.5, 0.5]
    assert [Settings(cross=0.5, cross_until=10).cross_at(i) for i in (0, 9, 10, 11)] == [0.5, 0.5, 0.0, 0.0]
    for wrong in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="cross: found .*, expected 0 or a positive number"):
            Settings(cross=wrong)


@pytest.mark.parametrize("model, iteration", [("mumo", 13), ("poe-v1", 20), ("poe-v2", 27)])
def test_a_run_with_it_resumes_bit_for_bit(model, iteration, tmp_path, monkeypatch):
    """Stopped while it is added, when it ends, and after."""
    settings = dict(model=model, cross=1.0, cross_until=20)
    whole = weights(tiny.run(tmp_path / "whole", **settings))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, iteration)
        tiny.run(tmp_path / "cut", **settings)
    assert same(weights(tiny.run(tmp_path / "cut", **settings)), whole)
    log = read_log(tmp_path / "cut")
    extra = sum(log[f"cross.reconstruction.{m}"] for m in "IT")
    elbos = sum(log[k] for k in log if k.endswith(".elbo"))
    added = (log["total"] + elbos) / extra
    assert added == pytest.approx([1.0] * 4 + [0.0] * 4, abs=1e-4)  # a row every 5 iterations
    for other in ({"cross": 0.0}, {"cross_until": None}):
        assert not same(weights(tiny.run(tmp_path / str(other), **settings | other)), whole)


def test_on_several_processes_it_is_that_of_one(tmp_path):
    changes = dict(model="poe-v2", cross=1.0, cross_until=6, iterations=12, checkpoint_every=6)
    assert tiny.side_by_side(2, changes, tmp_path / "two", target=tiny.train) == [0, 0]
    one = tiny.run(tmp_path / "one", **changes)
    for a, b in zip(tiny.load(tmp_path / "two").parameters(), one.parameters()):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-2)
    assert read_log(tmp_path / "two")["cross.reconstruction.I"] == pytest.approx(
        read_log(tmp_path / "one")["cross.reconstruction.I"], rel=1e-3)
