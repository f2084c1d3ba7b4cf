"""The cross-reconstruction, in the loss of a model (models.py) and in a run's settings (train.py)."""
import json

import pytest
import torch
from torch.distributions import Bernoulli, Normal

import mmvae
import tiny
from mmvae import train
from mmvae.models import MODELS
from mmvae.train import Settings, fit, load_run, read_log
from tiny import BASE, same, stop_at, weights

MODELS_WITH_IT = [name for name in MODELS if name != "vanilla"]


@pytest.fixture
def x():
    g = torch.Generator().manual_seed(0)
    return {m: torch.rand(6, 1, 16, 16, generator=g) for m in "IT"}


@pytest.fixture(scope="module")
def pairs():
    return tiny.pairs()


def make(name):
    torch.manual_seed(1)
    return MODELS[name](size=16)


# ---------------------------------------------------------------- in the loss


@pytest.mark.parametrize("name", ["mumo", "poe-v1", "poe-v2"])
def test_the_cross_reconstruction_written_out(name, x):
    """x_I from z_I given x_I and z_S given x_T, and the other way round; the single posteriors as the encoders say."""
    model = make(name)
    torch.manual_seed(7)
    found = model.cross_reconstruction(x, model.posteriors(x, ("I", "T")))
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
    found = model.cross_reconstruction(x, model.posteriors(x, ("I", "T")))["I"].sum()
    found.backward()
    dims = model.encoders["T"].latents
    moved = [g.abs().sum() > 0 for g in model.encoders["T"].mu.weight.grad.split(list(dims.values()))]
    assert dict(zip(dims, map(bool, moved))) == {"S": True, "T": False}
    assert model.decoders["T"].pixels.weight.grad is None


def test_a_model_of_pairs_refuses_it(x):
    with pytest.raises(ValueError, match="VanillaVAE: asked for the posterior of .*its encoder needs"):
        make("vanilla").loss(x, cross=1.0)


def test_another_likelihood_is_used_in_every_term(x):
    model = make("poe-v2")
    model.log_likelihood = lambda output, image: -(output - image).square().flatten(1).sum(1) - 1000
    torch.manual_seed(3)
    terms = model.terms(x, cross=1.0)
    torch.manual_seed(3)
    q = model.posteriors(x, ("I", "T", "IT"))
    z = {b: g.sample() for b, g in q["I"].items()}
    expected = 1000 + (model.decode(z, "I")["I"] - x["I"]).square().flatten(1).sum(1)
    torch.testing.assert_close(terms["I.reconstruction.I"], expected)
    assert all((value >= 1000).all() for k, value in terms.items() if "reconstruction" in k)
    assert make("poe-v2").log_likelihood is mmvae.models.bernoulli_log_likelihood


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
def test_a_run_with_it_resumes_bit_for_bit(model, iteration, pairs, tmp_path, monkeypatch):
    """Stopped while it is added, when it ends, and after."""
    settings = Settings(**BASE | dict(model=model, cross=1.0, cross_until=20))
    whole = weights(fit(settings, pairs, tmp_path / "whole", progress=False))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, iteration)
        fit(settings, pairs, tmp_path / "cut", progress=False)
    assert same(weights(fit(settings, pairs, tmp_path / "cut", progress=False)), whole)
    log = read_log(tmp_path / "cut")
    extra = sum(log[f"cross.reconstruction.{m}"] for m in "IT") * settings.weight
    elbos = sum(log[k] for k in log if k.endswith(".elbo"))
    added = (log["total"] + elbos) / extra
    assert added == pytest.approx([1.0] * 4 + [0.0] * 4, abs=1e-4)  # a row every 5 iterations
    for other in ({"cross": 0.0}, {"cross_until": None}):
        changed = Settings(**vars(settings) | other)
        assert not same(weights(fit(changed, pairs, tmp_path / str(other), progress=False)), whole)


def test_on_several_processes_it_is_that_of_one(pairs, tmp_path):
    changes = dict(model="poe-v2", cross=1.0, cross_until=6, iterations=12, checkpoint_every=6)
    assert tiny.side_by_side(2, changes, tmp_path / "two", target=tiny.train) == [0, 0]
    one = fit(Settings(**BASE | changes), pairs, tmp_path / "one", progress=False)
    for a, b in zip(load_run(tmp_path / "two").parameters(), one.parameters()):
        torch.testing.assert_close(a, b, atol=1e-3, rtol=1e-2)
    assert read_log(tmp_path / "two")["cross.reconstruction.I"] == pytest.approx(
        read_log(tmp_path / "one")["cross.reconstruction.I"], rel=1e-3)


# ---------------------------------------------------------------- options of a model


def test_options_are_passed_to_the_model_and_come_back_from_a_file(pairs, tmp_path):
    settings = Settings(**BASE | dict(iterations=3, options={"shared": 3, "subsets": ("I", "IT"), "single_prior": True}))
    assert settings == Settings(**json.loads(json.dumps(vars(settings))))
    model = fit(settings, pairs, tmp_path, progress=False)
    assert model.blocks == {"I": 2, "S": 3, "T": 2} and model.subsets == ("I", "IT") and model.single_prior
    found = load_run(tmp_path)
    assert same(weights(found), weights(model)) and (found.blocks, found.subsets) == (model.blocks, model.subsets)
    assert json.loads((tmp_path / "settings.json").read_text())["settings"] == vars(settings)
    assert found.single_prior and train.build(Settings("vanilla", size=16, options={"latent": 4})).blocks == {"Z": 4}
    with pytest.raises(ValueError, match="options: found .*shared.*: 3.*, asked for|holds a run with other settings"):
        fit(Settings(**vars(settings) | {"options": {"shared": 4}}), pairs, tmp_path, progress=False)


@pytest.mark.parametrize("model, options", [("vanilla", {"shared": 3}), ("mumo", {"latents": 3}), ("mumo", {"size": 32}),
                                            ("mumo", {"single_prior": True})])
def test_options_that_a_model_has_not_are_named(model, options):
    with pytest.raises(ValueError, match=f"options: found .*{next(iter(options))}.*, expected arguments of {model}"):
        train.build(Settings(model, size=16, options=options))


def test_options_on_the_command_line(tmp_path, capsys):
    mmvae.faces.write(tmp_path / "faces.h5", identities=1, test_identities=1, size=16, progress=False)
    command = ["poe-v2", str(tmp_path / "faces.h5"), str(tmp_path / "run"), "--device", "cpu", "--size", "16",
               "--batch", "8", "--iterations", "4"]
    train.main([*command, "--options", '{"shared": 3}', "--cross", "0.5", "--cross-until", "2"])
    record = json.loads((tmp_path / "run" / "settings.json").read_text())["settings"]
    assert (record["options"], record["cross"], record["cross_until"]) == ({"shared": 3}, 0.5, 2)
    assert load_run(tmp_path / "run").blocks["S"] == 3
    for wrong, code in (('{"shades": 3}', 1), ("shared=3", 2)):
        with pytest.raises(SystemExit) as stop:
            train.main([*command[:2], str(tmp_path / "other"), *command[3:], "--options", wrong])
        assert stop.value.code == code and wrong.strip('{"').split('"')[0] in capsys.readouterr().err
