"""Damage that nobody thought of: each reader takes what is whole and refuses all else in a sentence.

Seeded, and at most a minute; `make fuzz` looks longer, by other seeds, and prints how often what came out.
"""
import contextlib
import io
import json
import os
import shutil
import warnings
from collections import Counter
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st
from safetensors.torch import save

import tiny
from mmvae import checkpoint, faces, files, strict
from mmvae.experiment import __main__ as command, weights
from mmvae.faces import __main__ as render, read_basel, read_faces

LONG = int(os.environ.get("MMVAE_FUZZ", 0))  # examples a test, beyond those of CI
OUTCOMES = Counter()


def fuzz(examples: int, *strategies):
    """A property of so many examples: the same ones in each run, unless it is a long one."""
    quick = dict(suppress_health_check=list(HealthCheck), deadline=None, database=None, print_blob=True)
    return lambda test: settings(**quick, max_examples=LONG or examples, derandomize=not LONG)(given(*strategies)(test))


@pytest.fixture(scope="module", autouse=True)
def counted():
    yield
    if LONG:
        print("", *(f"{number:8,} {what}" for what, number in sorted(OUTCOMES.items())), sep="\n")


def refused(what: str, read, *expected) -> object:
    """What a reader found, or None where it refused in one line; any other error is a failure."""
    try:
        found = read()
    except expected or (ValueError, OSError) as e:
        assert 0 < len(str(e)) < 1500
        OUTCOMES[f"{what}: refused"] += 1
        return None
    OUTCOMES[f"{what}: read"] += 1
    return found


@st.composite
def damage(draw):
    """A function from bytes to other bytes: some bits flipped, a piece cut out, doubled, or replaced by noise."""
    at, kind = draw(st.floats(0, 1, exclude_max=True)), draw(st.sampled_from(["flip", "cut", "end", "noise", "double"]))
    size, noise = draw(st.integers(1, 40)), draw(st.binary(min_size=1, max_size=40))

    def spoil(data: bytes, head: int | None = None) -> bytes:
        i = int(at * min(len(data), head or len(data)))
        if kind == "flip":
            return data[:i] + bytes([data[i] ^ (1 << size % 8)]) + data[i + 1:]
        if kind == "end":
            return data[:i]
        middle = {"cut": b"", "noise": noise, "double": 2 * data[i:i + size]}[kind]
        return data[:i] + middle + data[i + (len(noise) if kind == "noise" else size):]

    return spoil


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
                    lambda of: st.lists(of, max_size=4) | st.dictionaries(st.text(max_size=5), of, max_size=4), max_leaves=12)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A rendered file, a tensor in both formats, a run, and a published model."""
    folder = tmp_path_factory.mktemp("fuzz")
    faces.write(folder / "faces.h5", identities=1, test_identities=1, size=16, progress=False)
    for name, new in (("new.pth", True), ("old.pth", False)):
        torch.save(torch.zeros(2, 21, 11, 11, 2, 2, dtype=torch.uint8), folder / name, _use_new_zipfile_serialization=new)
    tiny.run(folder / "run", model="vanilla")
    for end in ("json", "safetensors"):
        shutil.copy(weights.FOLDER / f"vanilla.{end}", folder)
    return folder


@fuzz(60, damage(), st.booleans())
def test_hdf5(place, spoil, early):
    """What is read is what was written: a bit that flipped where nothing is kept changes nothing."""
    data = (place / "faces.h5").read_bytes()
    (place / "spoilt.h5").write_bytes(spoil(data, 8000 if early else None))
    if found := refused("HDF5", lambda: read_faces(place / "spoilt.h5")):
        whole = read_faces(place / "faces.h5")
        assert all(torch.equal(getattr(found, k), getattr(whole, k)) for k in ("I", "T", *whole.factors))
        assert found.test_identities == whole.test_identities


@fuzz(60, damage(), st.booleans(), st.booleans())
def test_pth(place, spoil, new, early):
    data = (place / ("new.pth" if new else "old.pth")).read_bytes()
    (place / "spoilt.pth").write_bytes(spoil(data, 600 if early else None))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = refused("pth", lambda: read_basel(place / "spoilt.pth", test_identities=1))
    assert found is None or found.I.shape[1:3] == (21, 11)


@fuzz(60, damage(), st.booleans())
def test_checkpoints(place, spoil, early):
    data = (place / "run" / "checkpoint-00000040.safetensors").read_bytes()
    state, run = tiny.build("vanilla").state_dict(), json.loads((place / "run" / "settings.json").read_text())
    changed = spoil(data, 3000 if early else None)
    found = refused("checkpoint", lambda: checkpoint.unpack(changed, run, state))
    assert found is None or changed == data or tiny.same(found.tensors, checkpoint.unpack(data, run, state).tensors)


@fuzz(80, st.sampled_from(["iteration", "seconds", "machine", "run"]), JSON)
def test_signed_headers(place, key, value):
    """Rightly signed, of any content: refused, or of the form that the reader states."""
    data = (place / "run" / "checkpoint-00000040.safetensors").read_bytes()
    state, run = tiny.build("vanilla").state_dict(), json.loads((place / "run" / "settings.json").read_text())
    meta, tensors = strict.tensors(data)
    meta = {k: v for k, v in meta.items() if k != "sha256"} | {key: json.dumps(value)}
    signed = save(tensors, meta | {"sha256": checkpoint._digest(meta, tensors)})
    if found := refused("signed header", lambda: checkpoint.unpack(signed, run, state)):
        assert type(found.iteration) is int and 0 <= found.iteration <= 40 and found.seconds >= 0
        assert found.run == {k: run[k] for k in found.run} and isinstance(found.machine, dict)


@fuzz(60, damage(), JSON, st.booleans())
def test_settings_and_logs(place, spoil, value, damaged):
    folder = place / "spoilt"
    folder.mkdir(exist_ok=True)
    for name in ("settings.json", "log.csv"):
        (folder / name).write_bytes(spoil((place / "run" / name).read_bytes()) if damaged else json.dumps(value).encode())
    found = refused("settings.json", lambda: checkpoint.settings_of(folder))
    assert found is None or isinstance(found["settings"], dict)
    refused("log.csv", lambda: files.read_log(folder))


@fuzz(60, damage(), st.booleans())
def test_records(place, spoil, of_record):
    """Nothing that was damaged is taken: a digest is over each of its keys."""
    whole = {end: (place / f"vanilla.{end}").read_bytes() for end in ("json", "safetensors")}
    spoilt = place / "published"
    spoilt.mkdir(exist_ok=True)
    end = "json" if of_record else "safetensors"
    changed = spoil(whole[end])
    for name, data in (whole | {end: changed}).items():
        (spoilt / f"vanilla.{name}").write_bytes(data)
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()):
        patch.setattr(weights, "FOLDER", spoilt)
        found = refused("published", lambda: weights.load("vanilla"))
        assert found is None or of_record and weights.info("vanilla") == json.loads(whole["json"]) or changed == whole[end]


@fuzz(300, st.text(max_size=40) | JSON.map(json.dumps) | st.binary(max_size=40))
def test_json(text):
    """It is what Python's own reads, or refused."""
    found = refused("JSON", lambda: [strict.loads(text)])
    assert found is None or found == [json.loads(text)]


@fuzz(300, JSON, st.sampled_from([int, float, str, dict, [float], {str: int}, range(9), (None, int), strict.number(0, 1)]))
def test_forms(value, form):
    found = refused("form", lambda: [strict.check(value, form, "value")])
    assert (found is not None) == strict.fits(value, form)


OPTIONS = ["--size", "--iterations", "--batch", "--learning-rate", "--warmup", "--clip", "--weight-decay", "--weight",
    "--cross",
           "--cross-until", "--seed", "--log-every", "--checkpoint-every", "--threads", "--device", "--options"]
VALUES = st.integers().map(str) | st.floats().map(str) | st.text(max_size=20) | JSON.map(json.dumps)


@fuzz(120, st.lists(st.tuples(st.sampled_from(OPTIONS), VALUES), min_size=1, max_size=2), st.booleans())
def test_command_lines(place, options, of_faces):
    """Exit code 1, for the data are not there, or 2, one line, and nothing is left behind."""
    lines = [f"{name}={value}" for name, value in options]
    if of_faces:
        lines = [line for line in lines if line.startswith(("--size", "--seed", "--device"))] or ["--jobs=x"]
        main, argv = render.main, [str(place / "nowhere" / "x.h5"), *lines]
    else:
        main, argv = command.main, ["train", "vanilla", str(place / "none.h5"), str(place / "left"), *lines]
    said, before = io.StringIO(), torch.get_num_threads()
    with contextlib.redirect_stderr(said), pytest.raises(SystemExit) as end:
        main(argv)
    torch.set_num_threads(before)
    OUTCOMES[f"command line: exit code {end.value.code}"] += 1
    assert end.value.code in (1, 2) and said.getvalue().count("\n") == 1 and not (place / "left").exists()
