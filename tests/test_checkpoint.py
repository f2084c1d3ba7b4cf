"""checkpoint.py: nothing good is lost, whenever a run is killed and whatever is wrong with the files or the disk."""
import json
import os
import random
import re
import signal
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

import mmvae
from mmvae import checkpoint, files, train
from mmvae.train import Settings, fit, read_log
import tiny
from tiny import BASE, names, run, same, start, stopped, weights

LAST = "checkpoint-00000040.safetensors"


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(moment: str, call: int):
    """From now on, SIGKILL this process at a moment of its call-th write of a checkpoint."""
    calls, fsync = [], os.fsync

    def counting(function, before):
        def wrapped(*args, **kwargs):
            mine = "checkpoint-" in str(args[0]) or function is fsync
            calls.extend([1] * mine)
            fatal = mine and len(calls) == call
            if fatal and before:
                die()
            result = function(*args, **kwargs)
            if fatal:
                die()
            return result
        return wrapped

    def half(path, mode, *rest):
        f = open(path, mode, *rest)
        if "checkpoint-" in str(path):
            calls.append(1)
            if len(calls) == call:
                write = f.write
                f = type("Half", (), {"__enter__": lambda s: s, "__exit__": lambda s, *a: f.close(),
                                      "write": lambda s, data: (write(data[:len(data) // 2]), die())})()
        return f

    if moment == "half written":
        files.open = half
    elif moment == "before fsync":
        os.fsync = counting(os.fsync, True)
    elif moment == "before rename":
        os.replace = counting(os.replace, True)
    elif moment == "after rename":
        os.replace = counting(os.replace, False)
    elif moment == "between removals":
        Path.unlink = counting(Path.unlink, False)


def die_during(call: int, milliseconds: float):
    """SIGKILL this process so long after its call-th iteration from now has begun."""
    rate, calls = Settings.rate, []

    def counting(self, iteration):
        calls.append(1)
        if len(calls) == call:
            threading.Timer(milliseconds / 1000, die).start()
        return rate(self, iteration)

    Settings.rate = counting


def test_killed_at_twenty_moments_is_uninterrupted(tmp_path):
    """Twelve random moments and eight inside a write; the next process goes on from what the last one left."""
    short = dict(model="vanilla", batch=4, iterations=300, checkpoint_every=3, log_every=2)
    whole, cut, rng = start(short, tmp_path / "whole"), tmp_path / "cut", random.Random(0)
    writes = ["half written", "before fsync", "before rename", "after rename"] * 2
    moments = [(die_at, moment, rng.randint(1, 4)) for moment in writes[1:]] + [(die_at, "between removals", 3)]
    moments += [(die_during, rng.randint(1, 10), rng.uniform(0, 10)) for _ in range(12)]
    for moment in rng.sample(moments, len(moments)):
        process = start(short, cut, *moment)
        process.join(30)
        assert process.exitcode == -signal.SIGKILL, moment
    assert read_log(cut)["iteration"][-1] < 300  # never finished: each of them hit a run at work
    whole.join()
    last = start(short, cut)
    last.join()
    assert whole.exitcode == last.exitcode == 0
    states = [checkpoint.unpack((f / "checkpoint-00000300.safetensors").read_bytes(), json.loads(
        (f / "settings.json").read_text()), weights(tiny.load(f, "vanilla"))) for f in (cut, tmp_path / "whole")]
    assert same(states[0].tensors, states[1].tensors)  # weights, moments, and both random states
    logs = [read_log(f) for f in (cut, tmp_path / "whole")]
    assert all((logs[0][k] == logs[1][k]).all() for k in logs[0] if k != "seconds")
    assert names(cut) == names(tmp_path / "whole") and len(names(cut)) == 2


def refused(folder, capsys, message):
    """A newer checkpoint in `folder` is named and refused, and the run ends as it did, from the older one."""
    whole = weights(run(folder.with_name("whole")))
    assert same(weights(run(folder)), whole)
    assert re.search(f"{LAST}: refused: {message}", capsys.readouterr().err)
    assert same(weights(tiny.load(folder)), whole)  # it was written anew


@pytest.mark.parametrize("damage, message", [
    (lambda data: data[:1000], "not a whole checkpoint"),
    (lambda data: data[:-1], "not a whole checkpoint"),
    (lambda data: b"", "not a whole checkpoint"),
    (lambda data: data[:-1] + bytes([data[-1] ^ 1]), "not a whole checkpoint: its content is not that of its SHA-256"),
    (lambda data: data.replace(b'"iteration":"40"', b'"iteration":"39"'), "not a whole checkpoint: its content is not"),
    (lambda data: save({"w": torch.zeros(3)}), "not a whole checkpoint of mmvae.fit"),
    (lambda data: save({"w": torch.zeros(3)}, {"iteration": "40"}), "not a whole checkpoint of mmvae.fit"),
    (lambda data: b"PK\x03\x04" + data, "not a whole checkpoint of mmvae.fit")])
def test_a_damaged_checkpoint_is_named_and_the_older_one_used(damage, message, tmp_path, capsys):
    run(tmp_path / "run")
    path = tmp_path / "run" / LAST
    damaged = damage(path.read_bytes())
    assert damaged != path.read_bytes()
    path.write_bytes(damaged)
    refused(tmp_path / "run", capsys, message)


@pytest.mark.parametrize("changes, message", [
    ({"seed": 1}, r"a checkpoint of another run \(seed: found 1, asked for 0\)"),
    ({"model": "mumo"}, r"a checkpoint of another run \(class: found MuMoVAE, asked for PoEVAE")])
def test_a_checkpoint_of_another_run_is_named_and_the_older_one_used(changes, message, tmp_path, capsys):
    run(tmp_path / "run")
    run(tmp_path / "other", **changes)
    (tmp_path / "run" / LAST).write_bytes((tmp_path / "other" / LAST).read_bytes())
    refused(tmp_path / "run", capsys, message)


def test_a_checkpoint_of_other_networks_is_refused(tmp_path, capsys):
    run(tmp_path / "run")
    path = tmp_path / "run" / LAST
    record, model = json.loads((tmp_path / "run" / "settings.json").read_text()), tiny.load(tmp_path / "run")
    found = checkpoint.unpack(path.read_bytes(), record, model.state_dict())
    key = "model.decoders.I.hidden1.bias"  # by name: safetensors lists its tensors in no fixed order
    path.write_bytes(checkpoint.pack(replace(found, tensors=found.tensors | {key: torch.zeros(7)})))
    refused(tmp_path / "run", capsys, rf"a checkpoint of another model \({key[6:]}: found \(7,\), asked for \(192,\)")


def test_what_was_packed_is_unpacked(tmp_path):
    tensors = {"model.w": torch.randn(2, 3), "adam.0.step": torch.tensor(3.0), "random.noise": torch.get_rng_state()}
    packed = checkpoint.Checkpoint(7, 1.5, {"settings": {"batch": 8}, "model": {}, "data": "ab"}, {"threads": 1}, tensors)
    found = checkpoint.unpack(checkpoint.pack(packed), packed.run, {"w": tensors["model.w"]})
    assert same(found.tensors, tensors)
    assert all(getattr(found, k) == getattr(packed, k) for k in ("iteration", "seconds", "run", "machine"))


def test_without_a_usable_checkpoint_nothing_starts_over(tmp_path, capsys):
    run(tmp_path)
    for path in tmp_path.glob("checkpoint-*"):
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="none of its checkpoints can be used .checkpoint-00000040.safetensors, check"):
        run(tmp_path)
    with pytest.raises(ValueError, match="none of its checkpoints can be used"):
        tiny.load(tmp_path)


@pytest.mark.parametrize("changes, message", [({"batch": 9}, r"\(batch: found 8, asked for 9\)"),
                                              ({"seed": 3, "clip": 1.0}, "clip: found 200.0, asked for 1.0; seed:")])
def test_other_settings_are_refused_with_the_difference(changes, message, tmp_path, capsys):
    run(tmp_path)
    with pytest.raises(ValueError, match=message):
        run(tmp_path, **changes)
    (tmp_path / "settings.json").unlink()  # the checkpoints alone say so too
    with pytest.raises(ValueError, match="none of its checkpoints can be used"):
        run(tmp_path, **changes)
    assert re.search(message, capsys.readouterr().err) and not (tmp_path / "settings.json").exists()


def test_other_data_are_refused_with_the_difference(tmp_path):
    run(tmp_path)
    with pytest.raises(ValueError, match="other settings, model or data .data: found .*, asked for"):
        run(tmp_path, data=tiny.rows(seed=1))


def test_a_damaged_settings_file_is_named_and_can_be_done_without(tmp_path, capsys):
    whole, path = weights(run(tmp_path)), tmp_path / "settings.json"
    record = path.read_bytes()
    path.write_bytes(record[:100])
    with pytest.raises(ValueError, match="none of its checkpoints|other settings"):
        run(tmp_path, seed=1)
    assert same(weights(tiny.load(tmp_path)), whole) and same(weights(run(tmp_path)), whole)
    assert "settings.json: damaged" in capsys.readouterr().err and json.loads(path.read_bytes()) == json.loads(record)
    path.unlink()
    assert same(weights(run(tmp_path)), whole) and json.loads(path.read_bytes()) == json.loads(record)
    path.write_text(json.dumps(json.loads(record) | {"settings": {"momentum": 1}}))  # of another version: the checkpoints say
    assert same(weights(run(tmp_path)), whole)
    assert "settings.json: damaged (settings: iterations, batch" in capsys.readouterr().err


def test_another_machine_is_warned_of_not_refused(tmp_path, monkeypatch, capsys):
    stopped(tmp_path, monkeypatch)
    stopped(tmp_path, monkeypatch)
    assert not capsys.readouterr().err  # the same machine: nothing to say
    monkeypatch.setattr(train, "versions", lambda device="cpu": {"torch": "9.9"})
    threads = torch.get_num_threads()
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    run(tmp_path)
    said = capsys.readouterr().err
    assert "goes on, but not bit for bit" in said and f"torch: found {torch.__version__}, asked for 9.9" in said
    assert f"threads: found {threads}, asked for {threads + 1}" in said


def test_random_states_of_another_kind_of_device_give_way_to_new_ones(tmp_path):
    model = tiny.build()
    optimiser, generator = train.optimiser_of(model, Settings(**BASE)), torch.Generator().manual_seed(0)
    tensors = checkpoint.state_of(model, optimiser, generator)
    short = {k: torch.zeros(16, dtype=torch.uint8) for k in tensors if k.startswith("random.")}  # as a GPU's are
    found = checkpoint.Checkpoint(20, 1.0, {"settings": {"seed": 0}, "data": ""}, {}, tensors | short)
    draws = []
    for done in (20, 20, 30):
        checkpoint.restore(replace(found, iteration=done), model, optimiser, generator)
        draws.append(torch.cat([torch.rand(4), torch.rand(4, generator=generator)]))
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])


def test_two_processes_never_train_in_one_folder(tmp_path):
    with checkpoint.lock(tmp_path):
        other = start({}, tmp_path, refused_quietly)
        other.join()
    assert other.exitcode == 3
    run(tmp_path)


def refused_quietly():
    def fit_in_vain(*args, **kwargs):
        try:
            fit(*args, **kwargs)
        except BlockingIOError as e:
            os._exit(3 if "another process is training in this folder" in str(e) else 4)

    tiny.fit = fit_in_vain


def test_nothing_unpickles():
    """In the whole package: no pickle but the name of an error, and torch.load of tensors only."""
    for path in Path(mmvae.__file__).parent.rglob("*.py"):
        text = path.read_text()
        assert not re.search(r"pickle\.loads?\(|Unpickler\(|joblib|allow_pickle=True|object_list|weights_only=False", text)
        calls = re.findall(r"torch\.load\([^)]*\)", text)
        assert all("weights_only=True" in call for call in calls), path
