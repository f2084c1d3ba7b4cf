"""train.py: the loss falls, runs repeat and resume bit for bit, and nothing good is lost."""
import json
import math
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

import mmvae
from mmvae import train
from mmvae.data import Grid, Pairs
from mmvae.train import Settings, fit, load_run, read_log

BASE = dict(model="poe-v2", size=16, iterations=40, batch=8, warmup=5, log_every=5, checkpoint_every=10)


@pytest.fixture(scope="module")
def pairs():
    g = torch.Generator().manual_seed(0)
    images = {m: torch.randint(0, 256, (3, 4, 5, 16, 16), generator=g, dtype=torch.uint8) for m in "IT"}
    five = torch.arange(5.0)
    values = dict(identity=torch.arange(3), azimuth=torch.arange(4.0), elevation=five, light=five)
    return Pairs(Grid(**images, **values, test_identities=1))


def weights(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a, b):
    return all(torch.equal(a[k], b[k]) for k in a)


def stop_at(monkeypatch, iteration):
    """Interrupt `fit` when it asks for the learning rate of this iteration."""
    rate = Settings.rate

    def interrupted(self, i):
        if i == iteration:
            raise KeyboardInterrupt
        return rate(self, i)

    monkeypatch.setattr(Settings, "rate", interrupted)


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


def test_killed_and_resumed_is_uninterrupted(tmp_path):
    """SIGKILL a training process as soon as it has a checkpoint, resume it from the command line, compare."""
    data, faces = tmp_path / "faces.h5", mmvae.faces
    faces.write(data, identities=1, test_identities=1, size=16, progress=False)
    options = ["--size", "16", "--iterations", "60", "--batch", "16", "--checkpoint-every", "5", "--device", "cpu"]
    command = [sys.executable, "-m", "mmvae.train", "mumo", str(data)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    killed = subprocess.Popen([*command, str(tmp_path / "killed"), *options], env=environment,
                              stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "killed").glob("checkpoint-*")) and time.monotonic() < deadline:
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    assert list((tmp_path / "killed").glob("checkpoint-*"))
    for name in ("killed", "whole"):
        subprocess.run([*command, str(tmp_path / name), *options], env=environment, check=True, capture_output=True)
    assert same(weights(load_run(tmp_path / "killed")), weights(load_run(tmp_path / "whole")))


def test_a_finished_run_is_loaded_not_trained(pairs, tmp_path, monkeypatch):
    trained = fit(Settings(**BASE), pairs, tmp_path, progress=False)
    monkeypatch.setattr(mmvae.models.MultiModalVAE, "loss", lambda *a: pytest.fail("trained again"))
    assert same(weights(trained), weights(fit(Settings(**BASE), pairs, tmp_path, progress=False)))
    assert same(weights(trained), weights(load_run(tmp_path)))
    assert not load_run(tmp_path).training


def test_the_last_two_checkpoints_are_kept_and_a_truncated_one_is_named(pairs, tmp_path, capsys):
    whole = fit(Settings(**BASE), pairs, tmp_path, progress=False)
    names = sorted(p.name for p in tmp_path.glob("checkpoint-*"))
    assert names == ["checkpoint-00000030.safetensors", "checkpoint-00000040.safetensors"]
    newest = tmp_path / names[1]
    newest.write_bytes(newest.read_bytes()[:1000])
    assert same(weights(whole), weights(fit(Settings(**BASE), pairs, tmp_path, progress=False)))  # from iteration 30
    assert f"{names[1]}: not a whole checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("changes, message", [({"batch": 9}, "batch: found 8, asked for 9"),
                                              ({"seed": 3}, "seed: found 0, asked for 3")])
def test_a_folder_with_another_run_is_refused(changes, message, pairs, tmp_path):
    fit(Settings(**BASE), pairs, tmp_path, progress=False)
    with pytest.raises(ValueError, match=message):
        fit(Settings(**BASE | changes), pairs, tmp_path, progress=False)


def test_a_folder_with_other_data_is_refused(pairs, tmp_path):
    fit(Settings(**BASE), pairs, tmp_path, progress=False)
    other = Pairs(Grid(**pairs.images, **pairs.values, test_identities=1))
    with pytest.raises(ValueError, match="data: found"):
        fit(Settings(**BASE), other, tmp_path, progress=False)


def test_a_non_finite_loss_stops_with_the_iteration_and_the_term(pairs, tmp_path, monkeypatch):
    log_likelihood, calls = mmvae.models.bernoulli_log_likelihood, []

    def failing(logits, image):
        calls.append(1)
        value = log_likelihood(logits, image)
        return value * math.nan if len(calls) == 4 * 23 + 1 else value  # MMPOE v2 calls it four times an iteration

    monkeypatch.setattr(mmvae.models, "bernoulli_log_likelihood", failing)
    with pytest.raises(FloatingPointError, match=r"iteration 23: total is nan.*last good checkpoint"):
        fit(Settings(**BASE), pairs, tmp_path, progress=False)
    assert sorted(tmp_path.glob("checkpoint-*"))[-1].name == "checkpoint-00000020.safetensors"
    assert all(p.isfinite().all() for p in load_run(tmp_path).parameters())


def test_a_full_disk_leaves_the_last_checkpoint(pairs, tmp_path, monkeypatch):
    replace = os.replace

    def full(source, target):
        if str(target).endswith("00000020.safetensors"):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        fit(Settings(**BASE), pairs, tmp_path, progress=False)
    assert [p.name for p in tmp_path.glob("*checkpoint-*")] == ["checkpoint-00000010.safetensors"]


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
    with pytest.raises(SystemExit):
        train.main(["mumo", str(tmp_path / "no.h5"), str(tmp_path / "run")])


def test_settings_record_what_the_numbers_depend_on(pairs, tmp_path):
    fit(Settings(**BASE), pairs, tmp_path, progress=False)
    record = json.loads((tmp_path / "settings.json").read_text())
    assert record["settings"] == Settings(**BASE).__dict__ and record["data"] == pairs.fingerprint
    assert set(record["versions"]) == {"python", "torch", "numpy", "device"}
