"""train.py: the loss falls, runs repeat and resume bit for bit, compiled or not, and nothing in the loop waits."""
import itertools
import json
import math
import os
import re
import shutil
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import mmvae
import tiny
from mmvae import train
from mmvae.train import Settings, fit, load_run, read_log, update
from tiny import BASE, names, same, stop_at, stopped, weights


@pytest.fixture(scope="module")
def pairs():
    return tiny.pairs()


@pytest.mark.parametrize("name", mmvae.MODELS)
def test_every_model_trains_and_its_loss_falls(name, pairs, tmp_path):
    fit(Settings(**BASE | {"model": name}), pairs, tmp_path, progress=False)
    log = read_log(tmp_path)
    assert log["iteration"].tolist() == list(range(5, 41, 5))
    assert log["total"][-1] < log["total"][0]
    assert (log["seconds"][1:] >= log["seconds"][:-1]).all()


def test_the_log_holds_every_term_of_the_loss(pairs, tmp_path):
    model = fit(Settings(**BASE), pairs, tmp_path, progress=False)
    assert set(read_log(tmp_path)) == {"iteration", "seconds", *model.loss(pairs.sample(4)[0])}


def test_same_seed_same_weights_other_seed_others(pairs, tmp_path):
    a, b, c = (weights(fit(Settings(**BASE | {"seed": s}), pairs, tmp_path / str(i), progress=False))
               for i, s in enumerate((1, 1, 2)))
    assert same(a, b) and not same(a, c)


@pytest.mark.parametrize("iteration", [3, 10, 27, 39])
def test_interrupted_and_resumed_is_uninterrupted(iteration, pairs, tmp_path, monkeypatch):
    whole = fit(Settings(**BASE), pairs, tmp_path / "whole", progress=False)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        stop_at(patch, iteration)
        fit(Settings(**BASE), pairs, tmp_path / "cut", progress=False)
    torch.manual_seed(99)  # the resumed run must not depend on the caller's random state
    resumed = fit(Settings(**BASE), pairs, tmp_path / "cut", progress=False)
    assert same(weights(whole), weights(resumed))
    logs = [read_log(tmp_path / name) for name in ("whole", "cut")]
    assert all((logs[0][k] == logs[1][k]).all() for k in logs[0] if k != "seconds")


def test_a_finished_run_is_loaded_not_trained(pairs, tmp_path, monkeypatch):
    trained = fit(Settings(**BASE), pairs, tmp_path, progress=False)
    monkeypatch.setattr(mmvae.models.MultiModalVAE, "loss", lambda *a: pytest.fail("trained again"))
    assert same(weights(trained), weights(fit(Settings(**BASE), pairs, tmp_path, progress=False)))
    assert same(weights(trained), weights(load_run(tmp_path)))
    assert not load_run(tmp_path).training


def test_the_last_two_checkpoints_are_kept(pairs, tmp_path):
    fit(Settings(**BASE), pairs, tmp_path, progress=False)
    assert names(tmp_path) == ["checkpoint-00000030.safetensors", "checkpoint-00000040.safetensors"]


def test_a_non_finite_loss_stops_with_the_iteration_and_the_term(pairs, tmp_path, monkeypatch):
    log_likelihood, calls = mmvae.models.bernoulli_log_likelihood, []

    def failing(logits, image):
        calls.append(1)
        value = log_likelihood(logits, image)
        return value * math.nan if len(calls) == 4 * 23 + 1 else value  # MMPOE v2 calls it four times an iteration

    monkeypatch.setattr(mmvae.models.MultiModalVAE, "log_likelihood", staticmethod(failing))
    with pytest.raises(FloatingPointError, match=r"iteration 23: total is nan.*last good checkpoint"):
        fit(Settings(**BASE), pairs, tmp_path, progress=False)
    assert sorted(tmp_path.glob("checkpoint-*"))[-1].name == "checkpoint-00000020.safetensors"
    assert all(p.isfinite().all() for p in load_run(tmp_path).parameters())


def test_weights_that_are_not_finite_are_never_a_checkpoint(pairs, tmp_path, monkeypatch):
    clip = torch.nn.utils.clip_grad_norm_

    def overflowing(parameters, limit):  # of the 20th gradient: the loss before it is still finite
        clip(parameters, limit if next(calls) < 20 else math.nan)

    calls = itertools.count(1)
    monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", overflowing)
    with pytest.raises(FloatingPointError, match=r"iteration 19: model.* is not finite.*last good checkpoint"):
        fit(Settings(**BASE), pairs, tmp_path, progress=False)
    assert names(tmp_path) == ["checkpoint-00000010.safetensors"]


def test_the_weight_of_the_likelihood_makes_an_image_weigh_the_same():
    assert [Settings(size=s).weight for s in (16, 32, 64)] == [16, 4, 1]
    assert Settings(size=32, weight=1.0).weight == 1


def test_the_learning_rate_warms_up_and_decays_to_zero():
    s = Settings(iterations=1000, warmup=100, learning_rate=1.0)
    rates = [s.rate(i) for i in range(1000)]
    assert rates[0] == pytest.approx(0.01) and max(rates) == pytest.approx(1, abs=0.05)
    assert rates[-1] < 1e-4 and all(a >= b for a, b in zip(rates[100:], rates[101:]))


@pytest.mark.parametrize("changes, message", [({"model": "gan"}, 'model: found "gan", expected one of vanilla'),
                                              ({"batch": 0}, "batch: found 0"),
                                              ({"weight": math.nan}, "weight: found nan")])
def test_bad_settings_are_named(changes, message):
    with pytest.raises(ValueError, match=message):
        Settings(**BASE | changes)


def test_errors_name_the_folder(pairs, tmp_path):
    with pytest.raises(FileNotFoundError, match="no settings.json"):
        load_run(tmp_path)
    with pytest.raises(ValueError, match="found images of size 16, the settings expect 32"):
        fit(Settings(**BASE | {"size": 32}), pairs, tmp_path)


def test_settings_record_what_the_numbers_depend_on(pairs, tmp_path):
    fit(Settings(**BASE), pairs, tmp_path, progress=False)
    record = json.loads((tmp_path / "settings.json").read_text())
    assert record["settings"] == Settings(**BASE).__dict__ and record["data"] == pairs.fingerprint
    assert set(record["versions"]) == {"python", "torch", "numpy", "device"}
    assert record["machine"] == {"threads": torch.get_num_threads(), "processes": 1, "compile": False,
                                 "float32 products": "highest"}


def test_loading_leaves_the_random_state(pairs, tmp_path):
    fit(Settings(**BASE), pairs, tmp_path, progress=False)
    before = torch.get_rng_state()
    load_run(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


def test_an_update_is_the_textbook_step(pairs):
    """`update` against autograd, the clipping of Pascanu et al. (2013) and AdamW written out, for the first step."""
    s = Settings(**BASE | {"clip": 5.0})
    ours, theirs = train.build(s), train.build(s)
    x, _ = pairs.sample(8)
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


def test_the_loop_draws_the_pairs_of_sample(pairs):
    a, b = (torch.Generator().manual_seed(5) for _ in range(2))
    x, y = pairs.sample(64, a)[0], train._draw(pairs, 64, b, slice(None))
    assert same(x, y) and torch.equal(a.get_state(), b.get_state())


class Waits(TorchDispatchMode):
    """Counts what makes the host wait for a GPU: a value read, a number or a list sent, a copy between devices."""
    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name = str(function)
        self.count += any(w in name for w in ("_local_scalar_dense", "lift_fresh", "nonzero", "masked_select"))
        self.count += "_to_copy" in name and "device" in (kwargs or {}) and kwargs["device"] is not None
        return function(*args, **kwargs or {})


def test_nothing_in_the_loop_waits_for_the_device(pairs):
    s = Settings(**BASE | {"model": "mumo"})
    model = train.build(s)
    optimiser, generator = train.optimiser_of(model, s), torch.Generator().manual_seed(0)
    with Waits() as sample:
        pairs.sample(8, generator)
    with Waits() as loop:
        for iteration in range(3):
            update(model, optimiser, train._draw(pairs, 8, generator, slice(None)), s, iteration)
    assert loop.count == 0 and sample.count > 0  # the second shows that the first could be otherwise


@pytest.fixture
def compiler(monkeypatch):
    """The real one where there is a C++ compiler, else all of torch.compile but its last step."""
    if not shutil.which(os.environ.get("CXX", "g++")):
        monkeypatch.setenv("CXX", sys.executable)
        monkeypatch.setattr(train, "COMPILER", {"backend": "aot_eager"})


def test_a_compiled_run_is_close_to_an_eager_one_and_resumes_bit_for_bit(compiler, pairs, tmp_path, monkeypatch):
    changes = BASE | {"model": "vanilla", "iterations": 20}
    eager = weights(fit(Settings(**changes), pairs, tmp_path / "eager", progress=False))
    whole = weights(fit(Settings(**changes), pairs, tmp_path / "whole", progress=False, compile=True))
    stopped(tmp_path / "cut", monkeypatch, 15, compile=True, model="vanilla", iterations=20)
    resumed = weights(fit(Settings(**changes), pairs, tmp_path / "cut", progress=False, compile=True))
    assert same(resumed, whole)
    start = weights(train.build(Settings(**changes)))
    moved, apart = (sum((a[k] - eager[k]).square().sum() for k in a).sqrt() for a in (start, whole))
    assert apart < 1e-3 * moved


def test_without_a_compiler_compile_says_so(pairs, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"compile: found no C\+\+ compiler"):
        fit(Settings(**BASE), pairs, tmp_path / "run", progress=False, compile=True)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "faces.h5"
    mmvae.faces.write(path, identities=1, test_identities=1, size=16, progress=False)
    return str(path)


SHORT = ["--device", "cpu", "--size", "16", "--batch", "8", "--iterations", "20", "--checkpoint-every", "10"]


@pytest.mark.parametrize("error, message, changes", [
    (FileNotFoundError, "no such file", {"data": "no.h5"}),
    (ValueError, "other settings or data .batch: found 8, asked for 9", {"more": ["--batch", "9"]}),
    (ValueError, "none of its checkpoints can be used", {"damage": True}),
    (OSError, "Not a directory|File exists", {"folder": "faces.h5"})])
def test_the_command_says_each_error_in_one_line(error, message, changes, faces, tmp_path, capsys):
    command = ["mumo", faces, str(tmp_path / "run"), *SHORT]
    train.main(command)
    assert capsys.readouterr().out.startswith("mumo: 20 iterations")
    if "damage" in changes:
        for path in (tmp_path / "run").glob("checkpoint-*"):
            path.write_bytes(b"")
    if "folder" in changes:
        command[2] = faces
    command[1] = changes.get("data", command[1])
    with pytest.raises(SystemExit) as stop:
        train.main([*command, *changes.get("more", [])])
    said = [line for line in capsys.readouterr().err.splitlines() if "%|" not in line and ": refused: " not in line]
    assert stop.value.code == 1 and len(said) == 1 and re.search(message, said[0])


def test_ctrl_c_leaves_a_run_that_the_same_command_ends(faces, tmp_path, monkeypatch, capsys):
    command = ["mumo", faces, str(tmp_path / "run"), *SHORT]
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        stop_at(patch, 15)
        train.main(command)
    assert stop.value.code == 130 and "goes on from the last checkpoint" in capsys.readouterr().err
    assert names(tmp_path / "run") == ["checkpoint-00000010.safetensors"]
    train.main(command)
    train.main(["mumo", faces, str(tmp_path / "whole"), *SHORT])
    assert same(*(weights(load_run(tmp_path / name)) for name in ("run", "whole")))


def test_tf32_is_recorded(faces, tmp_path):
    try:
        train.main(["mumo", faces, str(tmp_path), *SHORT, "--tf32"])
    finally:
        torch.set_float32_matmul_precision("highest")
    assert json.loads((tmp_path / "settings.json").read_text())["machine"]["float32 products"] == "high"


def test_publish_is_handed_over(monkeypatch):
    handed = []
    monkeypatch.setattr(mmvae.weights, "main", handed.append)
    train.main(["--publish", "mumo", "--jobs", "2"])
    assert handed == [["mumo", "--jobs", "2"]]
