"""train.py: the loss falls, runs repeat and resume bit for bit, compiled or not, and nothing in the loop waits."""
import itertools
import json
import math
import os
import shutil
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import mmvae
import tiny
from mmvae import MODELS, distributed, train
from mmvae.data import Rows
from mmvae.likelihoods import Bernoulli
from mmvae.train import Settings, fit, read_log, update
from tiny import BASE, load, names, run, same, stop_at, stopped, weights


@pytest.fixture(scope="module")
def rows():
    return tiny.rows()


@pytest.mark.parametrize("name", mmvae.MODELS)
def test_every_model_trains_and_its_loss_falls(name, tmp_path):
    run(tmp_path, model=name)
    log = read_log(tmp_path)
    assert log["iteration"].tolist() == list(range(5, 41, 5))
    assert log["total"][-1] < log["total"][0]
    assert (log["seconds"][1:] >= log["seconds"][:-1]).all()


def test_the_log_holds_every_term_of_the_loss(tmp_path):
    model = run(tmp_path)
    assert set(read_log(tmp_path)) == {"iteration", "seconds", *model.loss(tiny.rows().sample(4)[0])}


def test_same_seed_same_weights_other_seed_others(tmp_path):
    a, b, c = (weights(run(tmp_path / str(i), seed=s))
               for i, s in enumerate((1, 1, 2)))
    assert same(a, b) and not same(a, c)


@pytest.mark.parametrize("iteration", [3, 10, 27, 39])
def test_interrupted_and_resumed_is_uninterrupted(iteration, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, iteration)
        run(tmp_path / "cut")
    torch.manual_seed(99)  # the resumed run must not depend on the caller's random state
    resumed = run(tmp_path / "cut")
    assert same(weights(whole), weights(resumed))
    logs = [read_log(tmp_path / name) for name in ("whole", "cut")]
    assert all((logs[0][k] == logs[1][k]).all() for k in logs[0] if k != "seconds")


def test_a_finished_run_is_loaded_not_trained(tmp_path, monkeypatch):
    trained, loss, calls = run(tmp_path), mmvae.PoEVAE.loss, []
    monkeypatch.setattr(mmvae.PoEVAE, "loss", lambda *a, **k: (calls.append(1), loss(*a, **k))[1])
    assert same(weights(trained), weights(run(tmp_path)))
    assert same(weights(trained), weights(load(tmp_path)))
    assert len(calls) == 3  # of the behaviour print
    assert not load(tmp_path).training


def test_the_last_two_checkpoints_are_kept(tmp_path):
    run(tmp_path)
    assert names(tmp_path) == ["checkpoint-00000030.safetensors", "checkpoint-00000040.safetensors"]


def test_a_non_finite_loss_stops_with_the_iteration_and_the_term(tmp_path, monkeypatch):
    log_prob, calls = Bernoulli.log_prob, []

    def failing(self, logits, image):
        calls.append(1)
        value = log_prob(self, logits, image)
        return value * math.nan if len(calls) == 4 * (3 + 23) + 1 else value  # MMPOE v2 calls it four times an iteration

    monkeypatch.setattr(Bernoulli, "log_prob", failing)  # three iterations are those of the behaviour print
    with pytest.raises(FloatingPointError, match=r"iteration 23: total is nan.*last good checkpoint"):
        run(tmp_path)
    assert sorted(tmp_path.glob("checkpoint-*"))[-1].name == "checkpoint-00000020.safetensors"
    assert all(p.isfinite().all() for p in load(tmp_path).parameters())


def test_weights_that_are_not_finite_are_never_a_checkpoint(tmp_path, monkeypatch):
    clip = torch.nn.utils.clip_grad_norm_

    def overflowing(parameters, limit):  # of the 20th gradient, after three of the print: the loss before it is still finite
        clip(parameters, limit if next(calls) < 23 else math.nan)

    calls = itertools.count(1)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", overflowing)
    with pytest.raises(FloatingPointError, match=r"iteration 19: model.* is not finite.*last good checkpoint"):
        run(tmp_path)
    assert names(tmp_path)[-1] == "checkpoint-00000010.safetensors"


def test_the_likelihood_weighs_one_unless_somebody_says_otherwise():
    assert Settings().weight == 1 and Settings(weight={"I": 2.0}).weight == {"I": 2.0}


def test_the_learning_rate_warms_up_and_decays_to_zero():
    s = Settings(iterations=1000, warmup=100, learning_rate=1.0)
    rates = [s.rate(i) for i in range(1000)]
    assert rates[0] == pytest.approx(0.01) and max(rates) == pytest.approx(1, abs=0.05)
    assert rates[-1] < 1e-4 and all(a >= b for a, b in zip(rates[100:], rates[101:]))


@pytest.mark.parametrize("changes, message", [({"batch": 0}, "batch: found 0"), ({"weight": math.nan}, "weight: found nan"),
                                              ({"weight": {"I": -1.0}}, "weight: found -1.0, expected a positive number"),
                                              ({"clip": "much"}, "clip: found 'much'"),
                                              ({"iterations": 3.5}, "iterations: found 3.5, expected a whole number, at least 1"),
                                              ({"warmup": None}, "warmup: found None, expected a whole number, at least 0")])
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        Settings(**BASE | changes)


def test_errors_name_the_folder(tmp_path):
    with pytest.raises(FileNotFoundError, match="no settings.json"):
        load(tmp_path)
    run(tmp_path)
    with pytest.raises(ValueError, match="holds a run of another model .class: found PoEVAE, asked for MuMoVAE"):
        load(tmp_path, "mumo")


def test_rows_that_the_model_does_not_take_are_refused_before_anything_is_written(rows, tmp_path):
    model = MODELS["poe-v2"](size=32)
    with pytest.raises(ValueError, match=r'x\["I"\]: found shape \(8, 1, 16, 16\), expected \(B, 1, 32, 32\)'):
        fit(model, rows, tmp_path / "run", batch=8)
    with pytest.raises(TypeError, match="rows: found a DataLoader, expected its dataset"):
        fit(model, torch.utils.data.DataLoader([1, 2]), tmp_path / "run")
    with pytest.raises(TypeError, match="rows: found dict without batch"):
        fit(model, {"I": 1}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_settings_record_what_the_numbers_depend_on(rows, tmp_path):
    run(tmp_path)
    record = json.loads((tmp_path / "settings.json").read_text())
    assert record["settings"] == Settings(**BASE).__dict__ and record["data"] == rows.fingerprint
    assert record["model"] == {"class": "PoEVAE", "modalities": {"I": [1, 16, 16], "T": [1, 16, 16]},
                               "likelihoods": {"I": "Bernoulli", "T": "Bernoulli"}, "blocks": {"I": 2, "S": 5, "T": 2},
                               "subsets": ["I", "T", "I+T"], "options": {"single_prior": False}}
    assert set(record["versions"]) == {"python", "torch", "numpy", "device"}
    assert record["machine"] == {"threads": torch.get_num_threads(), "processes": 1, "compile": False,
                                 "float32 products": "highest"}
    assert record["behaviour"] == train.behaviour_of(tiny.build(), Settings(**BASE))


def test_a_folder_of_code_that_computed_something_else_is_refused(tmp_path, monkeypatch):
    run(tmp_path, iterations=10)
    monkeypatch.setattr(mmvae.Gaussian, "kl", lambda self: 0.501 * (self.mu.square() + self.logvar.exp() - self.logvar - 1).sum(-1))
    with pytest.raises(ValueError, match=r"code that computed something else \(.*kl.*: found .*, now "):
        run(tmp_path, iterations=10)


def test_training_leaves_the_callers_random_state(tmp_path):
    model = tiny.build()
    before = torch.get_rng_state()
    fit(model, tiny.rows(), tmp_path, Settings(**BASE), progress=False)
    assert torch.equal(torch.get_rng_state(), before)


def test_loading_leaves_the_random_state(tmp_path):
    run(tmp_path)
    before = torch.get_rng_state()
    load(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_update_is_the_textbook_step(rows):
    """`update` against autograd, the clipping of Pascanu et al. (2013) and AdamW written out, for the first step."""
    s = Settings(**BASE | {"clip": 5.0})
    ours, theirs = tiny.build(), tiny.build()
    x, _ = rows.sample(8)
    torch.manual_seed(1)
    terms = update(ours, train.optimiser_of(ours, s), x, s, iteration=2)
    torch.manual_seed(1)
    loss = theirs.loss(x, s.weight)
    gradient = torch.autograd.grad(loss["total"], list(theirs.parameters()))
    norm = torch.cat([g.flatten() for g in gradient]).norm()
    assert norm > s.clip and not any(v.requires_grad for v in terms.values())
    assert all(torch.equal(terms[k], loss[k].detach()) for k in loss)
    eps, kept = 1e-8, 1 - s.rate(2) * s.weight_decay  # after one step Adam's moments are the gradient and its square
    for p, q, g in zip(ours.parameters(), theirs.parameters(), gradient):
        g = g * s.clip / norm
        torch.testing.assert_close(p, kept * q - s.rate(2) * g / (g.abs() + eps), atol=2e-6, rtol=1e-5)


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for a GPU: a value read, a number or a list sent, a copy between devices."""
    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        self.count += any(w in name for w in ("_local_scalar_dense", "lift_fresh", "nonzero", "masked_select"))
        self.count += "_to_copy" in name and "device" in (kwargs or {}) and kwargs["device"] is not None
        return function(*args, **kwargs or {})


@pytest.mark.parametrize("gaps", [False, True])
def test_nothing_in_the_loop_waits_for_the_device(gaps):
    """Not even where rows have gaps: which rows they are is never read."""
    s, model, data = Settings(**BASE), tiny.build("mumo"), tiny.rows()
    data = Rows(data.x, {"T": torch.arange(60) % 2 == 0} if gaps else None, images="IT")
    optimiser, generator = train.optimiser_of(model, s), torch.Generator().manual_seed(0)
    with Waits() as checked:
        model.loss(*data.batch(data.draw(8, generator))[:1])
    with Waits() as loop:
        for iteration in range(3):
            x, present = data.batch(data.draw(8, generator))
            update(model, optimiser, x, s, iteration, present)
    assert loop.count == 0 and checked.count > 0  # the second shows that the first could be otherwise


@pytest.fixture
def compiler(monkeypatch):
    """The real one where there is a C++ compiler, else all of torch.compile but its last step."""
    if not shutil.which(os.environ.get("CXX", "g++")):
        monkeypatch.setenv("CXX", sys.executable)
        monkeypatch.setattr(distributed, "COMPILER", {"backend": "aot_eager"})


def test_a_compiled_run_is_close_to_an_eager_one_and_resumes_bit_for_bit(compiler, tmp_path, monkeypatch):
    changes = dict(model="vanilla", iterations=20)
    eager = weights(run(tmp_path / "eager", **changes))
    whole = weights(run(tmp_path / "whole", compile=True, **changes))
    stopped(tmp_path / "cut", monkeypatch, 15, compile=True, **changes)
    resumed = weights(run(tmp_path / "cut", compile=True, **changes))
    assert same(resumed, whole)
    start = weights(tiny.build("vanilla"))
    moved, apart = (sum((a[k] - eager[k]).square().sum() for k in a).sqrt() for a in (start, whole))
    assert apart < 1e-3 * moved


def test_without_a_compiler_compile_says_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"compile: found no C\+\+ compiler"):
        run(tmp_path / "run", compile=True)
