"""Files, folders and command lines that mean harm, or were damaged: each is refused in one sentence, at once, and nothing of
theirs runs, hangs, or is replaced."""
import contextlib
import io
import json
import math
import os
import re
import resource
import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from safetensors.torch import save

import mmvae
import tiny
from mmvae import checkpoint, faces, files, strict
from mmvae.experiment import __main__ as command, publish, results, weights
from mmvae.faces import __main__ as render, read_basel, read_faces

LAST = "checkpoint-00000040.safetensors"
HUGE = 2 ** 36


def sparse(path: Path, size: int = HUGE, begin: bytes = b""):
    path.unlink(missing_ok=True)
    path.write_bytes(begin)
    os.truncate(path, size)


# ---- HDF5

@pytest.fixture(scope="module")
def rendered(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("faces") / "faces.h5"
    faces.write(path, identities=1, test_identities=1, size=16, progress=False)
    return path


@pytest.fixture
def data(rendered, tmp_path) -> Path:
    return Path(shutil.copy(rendered, tmp_path / "faces.h5"))


def put(f, key, **dataset):
    """Another data set in the place of this one."""
    del f[key]
    return f.create_dataset(key, **dataset)


def link(f, key, to):
    del f[key]
    f[key] = to


def virtual(f):
    layout = h5py.VirtualLayout((2, 21, 11, 16, 16), "uint8")
    layout[:] = h5py.VirtualSource("other.h5", "I", (2, 21, 11, 16, 16))
    del f["I"]
    f.create_virtual_dataset("I", layout)


def twice():
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    for _ in range(2):
        plan.set_deflate(9)
    return plan


def bomb(f, size=10 ** 6):
    """A chunk of 2,816 bytes that unpacks to so many."""
    f["I"].id.write_direct_chunk((1, 3, 0, 0, 0), zlib.compress(bytes(size)), 4)  # 4: without Fletcher's sum


def attribute(f, **of):
    f.attrs.update(of)


HOSTILE = {
    "external link": (lambda f: link(f, "I", h5py.ExternalLink("other.h5", "/I")), "I: found ExternalLink"),
    "soft link": (lambda f: link(f, "I", h5py.SoftLink("/T")), "I: found SoftLink, expected a data set in this file"),
    "dangling link": (lambda f: link(f, "azimuth", h5py.SoftLink("/nowhere")), "azimuth: found SoftLink"),
    "circular link": (lambda f: link(f, "T", h5py.SoftLink("/T")), "T: found SoftLink"),
    "group": (lambda f: (f.pop("I"), f.create_group("I")), "I: found Group, expected a data set"),
    "named type": (lambda f: link(f, "light", np.dtype("f4")), "light: found Datatype, expected a data set"),
    "external storage": (lambda f: put(f, "light", shape=(11,), dtype="f4", external=[("raw", 0, 44)]),
                         "light: found a data set whose values lie in other files"),
    "virtual": (virtual, "I: found a data set whose values lie in other files"),
    "scalar": (lambda f: put(f, "light", data=1.0), r"light: found float64 of shape \(\), expected"),
    "text": (lambda f: put(f, "light", data="east"), "light: found object of shape"),
    "empty": (lambda f: put(f, "light", data=h5py.Empty("f4")), "light: found float32 of shape None, expected numbers"),
    "no values": (lambda f: put(f, "I", shape=(0, 21, 11, 16, 16), dtype="u1"), r"I: found uint8 of shape \(0,"),
    "complex": (lambda f: put(f, "light", data=np.zeros(11, complex)), "light: found complex128"),
    "terabytes": (lambda f: put(f, "I", shape=(2 ** 20,) * 2, dtype="u1", chunks=(1, 64)), r"I: found shape .*at most"),
    "large chunks": (lambda f: put(f, "I", shape=(2 ** 14,) * 2, dtype="u1", chunks=(2 ** 14,) * 2), "in chunks of"),
    "more than is there": (lambda f: put(f, "I", shape=(2 ** 14,) * 2, dtype="u1", chunks=(64, 64)),
    "I: .* more than the file"),
    "a chunk is not there": (lambda f: put(f, "light", shape=(11,), dtype="f4", chunks=(2,)).__setitem__(slice(0, 4), 1),
                             "light: .* more than the file holds"),
    "bomb": (bomb, r"I: found a chunk at \(1, 3, 0, 0, 0\) that unpacks to more than the 2,816 bytes that it says"),
    "a little too much": (lambda f: bomb(f, 2821), "unpacks to more than the 2,816 bytes"),
    "no packing": (lambda f: f["I"].id.write_direct_chunk((0,) * 5, b"nothing", 4), "I: found a damaged chunk at"),
    "packed twice": (lambda f: put(f, "light", shape=(11,), dtype="f4", chunks=(11,), dcpl=twice()), "found filters"),
    "NaN": (lambda f: put(f, "light", data=np.full(11, np.nan, "f4")), "light: found NaN"),
    "overflow": (lambda f: put(f, "light", data=np.full(11, 1e300)), "light: found NaN or infinite"),
    "wrong length": (lambda f: put(f, "light", data=np.zeros(5, "f4")), "T: found shape"),
    "huge identity": (lambda f: put(f, "identity", data=np.array([0, 2 ** 63], "u8")),
    "identity: found torch.float64, expected whole numbers"),
    "held out, text": (lambda f: attribute(f, test_identities="three"), "test_identities: found 'three', expected a whole"),
    "held out, half": (lambda f: attribute(f, test_identities=1.5), "test_identities: found 1.5, expected a whole number"),
    "held out, negative": (lambda f: attribute(f, test_identities=-1), "test_identities: found -1"),
    "held out, many": (lambda f: attribute(f, test_identities=9), "test_identities: found 9, expected 0 to 2"),
    "held out, array": (lambda f: attribute(f, test_identities=np.zeros(9)),
    r"test_identities: found float64 of shape \(9,\)"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_hdf5_file_is_refused(case, data):
    spoil, message = HOSTILE[case]
    with h5py.File(data, "a") as f:
        for key in ("sha256", "format"):  # as of before there was a digest, which would find all of it
            del f.attrs[key]
        spoil(f)
    with pytest.raises(ValueError, match=message) as error:
        read_faces(data)
    assert str(data) in str(error.value) and "\n" not in str(error.value)


def test_a_chunk_that_unpacks_to_gigabytes_is_refused_in_little_memory(data):
    """HDF5 unpacks it whole; a process that reads it here grows by a few megabytes."""
    pack, zeros = zlib.compressobj(9), bytes(2 ** 20)
    packed = b"".join([*(pack.compress(zeros) for _ in range(1024)), pack.flush()])
    with h5py.File(data, "a") as f:
        f["I"].id.write_direct_chunk((1, 3, 0, 0, 0), packed, 4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match="that unpacks to more than the 2,816 bytes that it says"):
        read_faces(data)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024  # KB


@pytest.mark.parametrize("change", [
    lambda f: f["light"].__setitem__(0, 7), lambda f: f["I"].__setitem__((0, 3, 2, 5, 5), 1), lambda f: attribute(f, seed=5),
    lambda f: attribute(f, format="mmvae-faces"), lambda f: f.attrs.pop("sha256"), lambda f: f.attrs.pop("format")])
def test_what_is_not_of_its_digest_is_refused(change, data):
    with h5py.File(data, "a") as f:
        change(f)
    with pytest.raises(ValueError, match="its content is not that of its SHA-256"):
        read_faces(data)


def test_files_from_before_the_digest_are_read(data):
    new = read_faces(data)
    with h5py.File(data, "a") as f:
        del f.attrs["sha256"]
        f.attrs["format"] = "mmvae-faces"
    old = read_faces(data)
    assert all(torch.equal(getattr(old, k), getattr(new, k)) for k in ("I", "T", *new.factors))


# ---- .pth

def images(n=2, size=2) -> torch.Tensor:
    return torch.zeros(n, 21, 11, 11, size, size, dtype=torch.uint8)


@pytest.mark.parametrize("make, message", [
    (lambda: images().to(torch.float8_e4m3fn), "found torch.float8_e4m3fn, expected uint8"),
    (lambda: images(1, 1).to_sparse(), "pixels .torch.sparse|not a file of torch.save"),
    (lambda: images().to("meta"), "pixels .torch.strided, meta|not a file of torch.save"),
    (lambda: images(1, 1)[..., :1].expand(1, 21, 11, 11, 2 ** 20, 2 ** 20), "more than its|pixels .torch.strided, cpu. in"),
    (lambda: images().transpose(4, 5), "pixels .torch.strided, cpu. in"),
    (lambda: images(0), r"found shape \(0, 21|more than its"),
    (lambda: torch.nn.Parameter(images().float()), "found Parameter, expected one uint8 tensor"),
    (lambda: [images()], "found list, expected one uint8 tensor")])
def test_a_tensor_of_another_kind_is_refused(make, message, tmp_path):
    torch.save(make(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message) as error:
        read_basel(tmp_path / "a.pth")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("spoil", [lambda data: data.replace(b"K\x15K\x0bK\x0b", b"\x8a\x06\0\0\0\0\0\x01K\x0bK\x0b", 1),
                                   lambda data: data[:len(data) // 2], lambda data: data[:20] + b"\xff" * 20 + data[40:]])
def test_a_damaged_tensor_is_refused(spoil, zipped, tmp_path):
    torch.save(images(), tmp_path / "a.pth", _use_new_zipfile_serialization=zipped)
    (tmp_path / "a.pth").write_bytes(spoil((tmp_path / "a.pth").read_bytes()))
    with pytest.raises(ValueError, match="a.pth: not a file of torch.save that holds one tensor"):
        read_basel(tmp_path / "a.pth", test_identities=0)


@pytest.mark.parametrize("more, message", [
    ({"neutral_light": 11}, "neutral_light: found 11, expected a whole number from 0 to 10"),
    ({"neutral_elevation": -1}, "neutral_elevation: found -1"),
    ({"neutral_elevation": True}, "neutral_elevation: found True"),
    ({"degrees": {"light": ["east"] * 11}}, r'degrees\["light"\]: found'), ({"degrees": {"tilt": [1]}}, "degrees: found"),
    ({"degrees": {"light": [math.nan] * 11}}, r'degrees\["light"\]: found'), ({"degrees": [1]}, "degrees: found"),
    ({"degrees": {"light": [1.0] * 10}}, r'degrees\["light"\]: found .*expected 11 finite numbers'),
    ({"degrees": {"light": [[1], 2]}}, r'degrees\["light"\]: found'),
    ({"degrees": {"azimuth": None}}, r'degrees\["azimuth"\]'),
    ({"test_identities": 3}, "test_identities: found 3, expected 0 to 2")])
def test_arguments_that_are_none_are_refused(more, message, tmp_path):
    torch.save(images(), tmp_path / "a.pth")
    with pytest.raises(ValueError, match=message):
        read_basel(tmp_path / "a.pth", **{"test_identities": 1} | more)


# ---- what is no regular file

@pytest.mark.parametrize("read", [read_faces, read_basel, lambda p: strict.read(p, 10), lambda p: files.read_log(p.parent)])
@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_regular_file_is_not_waited_for(read, kind, tmp_path):
    path = tmp_path / "log.csv"
    {"pipe": lambda: os.mkfifo(path), "device": lambda: path.symlink_to("/dev/zero"), "folder": path.mkdir}[kind]()
    with pytest.raises(ValueError, match=f"log.csv: found a {kind}, expected a regular file"):
        read(path)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "link"])
def test_nothing_but_a_regular_file_is_replaced(kind, tmp_path):
    path = tmp_path / "out"
    {"pipe": lambda: os.mkfifo(path), "device": lambda: None, "folder": path.mkdir,
     "link": lambda: path.symlink_to(tmp_path / "other")}[kind]()
    path = Path("/dev/null") if kind == "device" else path
    before = os.lstat(path)
    for write in (lambda: files.write_atomically(path, b"new"), lambda: faces.write(path, 1, 0, 16, progress=False)):
        with pytest.raises(FileExistsError, match=f"found a {kind}, expected a regular file to replace, or none"):
            write()
    assert os.lstat(path) == before and not list(tmp_path.glob(".*"))


def test_two_that_write_one_file_at_once_leave_it_whole(tmp_path):
    processes = [tiny.start(tmp_path / "a", bytes([k]) * 10 ** 6, target=write_often) for k in range(2)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    data = (tmp_path / "a").read_bytes()
    assert len(data) == 10 ** 6 and len(set(data)) == 1 and [p.name for p in tmp_path.iterdir()] == ["a"]


def write_often(path, data):
    for _ in range(10):
        files.write_atomically(path, data)
        files.tidy(path)


# ---- runs

@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    tiny.run(folder)
    return folder


@pytest.fixture
def folder(trained, tmp_path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def signed(folder: Path, tensors=None, **changes):
    """The last checkpoint with other content, rightly signed."""
    path = folder / LAST
    meta, before = strict.tensors(path.read_bytes())
    told = {k: json.loads(v) for k, v in meta.items() if k != "sha256"} | changes
    path.write_bytes(checkpoint.pack(SimpleCheckpoint(told, before | (tensors or {}))))


class SimpleCheckpoint:
    """What `checkpoint.pack` takes, of any content."""

    def __init__(self, told: dict, tensors: dict):
        vars(self).update(told, tensors=tensors)


@pytest.mark.parametrize("changes", [
    {"iteration": -1}, {"iteration": 39.5}, {"iteration": True}, {"iteration": math.inf}, {"iteration": "40"},
    {"iteration": 41},
    {"iteration": 10 ** 30}, {"iteration": None}, {"seconds": None}, {"seconds": -1.0}, {"seconds": math.nan},
    {"machine": ["cpu"]}, {"machine": None}, {"machine": {"threads": {}}}, {"run": []}, {"more": 1},
    {"run": {"settings": [], "model": {}, "data": ""}}, {"iteration": 20}])
def test_a_rightly_signed_header_that_makes_no_sense_is_refused(changes, folder, capsys):
    signed(folder, **changes)
    (folder / "log.csv").unlink()
    assert checkpoint.newest(folder, checkpoint.settings_of(folder), tiny.build().state_dict()).iteration == 30
    assert f"{LAST}: refused: " in capsys.readouterr().err


@pytest.mark.parametrize("spoil, message", [
    (lambda path: (path.unlink(), os.mkfifo(path)), "found a pipe"),
    (lambda path: (path.unlink(), path.mkdir()), "found a folder"),
    (lambda path: (path.unlink(), path.symlink_to("/dev/zero")), "found a device"),
    (sparse, "found 68,719,476,736 bytes, exp"),
    (lambda path: sparse(path, 10 ** 6, path.read_bytes()[:1000]), "not a whole checkpoint"),
    (lambda path: path.write_bytes(b"\xff" * 64), "not a whole checkpoint")])
def test_a_checkpoint_that_is_no_file_of_its_size_is_refused_at_once(spoil, message, folder, capsys):
    spoil(folder / LAST)
    assert checkpoint.newest(folder, checkpoint.settings_of(folder), tiny.build().state_dict()).iteration == 30
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("tensors, message", [
    ({"adam.0.exp_avg": torch.zeros(3)}, r"adam.0.exp_avg: found \(3,\), expected"),
    ({"adam.999.step": torch.zeros(())}, "adam.999.step: found"), ({"adam.x.step": torch.zeros(())}, "adam.x.step: found"),
    ({"adam.0.step": torch.zeros(4)}, "adam.0.step: found"), ({"random.noise": torch.zeros(3)}, "random.noise: found"),
    ({"random.batches": torch.full((5056,), 255, dtype=torch.uint8)}, "random.batches: found bytes")])
def test_moments_and_states_that_do_not_fit_are_refused(tensors, message, folder):
    """Two tensors of other shapes crashed the interpreter."""
    signed(folder, tensors)
    with pytest.raises(ValueError, match=message):
        tiny.run(folder)


@pytest.mark.parametrize("tensors, message", [
    ({"model.decoders.I.hidden1.bias": torch.full((192,), math.nan)}, "NaN or infinite"),
    ({"model.decoders.I.hidden1.bias": torch.zeros(192, dtype=torch.float64)},
    "found torch.float64, expected torch.float32")])
def test_weights_that_are_none_are_refused(tensors, message, folder, capsys):
    signed(folder, tensors)
    assert checkpoint.newest(folder, checkpoint.settings_of(folder), tiny.build().state_dict()).iteration == 30
    assert message in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "[]", "nonsense", '{"settings": {}}', "[" * 10 ** 5, '{"data": "a", "data": "b"}'])
def test_a_damaged_settings_file_gives_way_to_the_checkpoints(text, folder, capsys):
    record = json.loads((folder / "settings.json").read_text())
    (folder / "settings.json").write_text(text)
    found = checkpoint.settings_of(folder)
    assert "settings.json: damaged" in capsys.readouterr().err
    assert {k: found[k] for k in ("settings", "model", "data")} == {k: record[k] for k in ("settings", "model", "data")}
    for path in folder.glob("checkpoint-*"):
        path.unlink()
    with pytest.raises(ValueError, match="settings.json: damaged .*no whole checkpoint says the same"):
        checkpoint.settings_of(folder)


def test_a_lock_that_is_no_file_and_a_folder_that_is_none_are_refused(folder):
    (folder / ".lock").unlink(missing_ok=True)
    (folder / ".lock").symlink_to(folder / "settings.json")
    with pytest.raises(FileExistsError, match=r"\.lock: found a link"):
        tiny.run(folder)
    assert (folder / "settings.json").read_text()
    with pytest.raises(NotADirectoryError, match="log.csv: found a file, expected a folder"):
        tiny.run(folder / "log.csv")


# ---- published weights and records

@pytest.fixture
def published(tmp_path, monkeypatch) -> Path:
    for end in ("json", "safetensors"):
        shutil.copy(weights.FOLDER / f"vanilla.{end}", tmp_path)
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    return tmp_path


def resealed(folder: Path, change, content: bytes | None = None):
    """Another record, rightly signed, and other weights."""
    record = json.loads((folder / "vanilla.json").read_text())
    if content is not None:
        (folder / "vanilla.safetensors").write_bytes(content)
        record |= {"bytes": len(content), "sha256": weights.hashlib.sha256(content).hexdigest()}
    change(record)
    record["digest"] = weights.digest_of(record)
    (folder / "vanilla.json").write_text(json.dumps(record))


@pytest.mark.parametrize("change, message", [
    (lambda r: r.update(seconds="1"), "seconds: found '1', expected a finite number"),
    (lambda r: r.update(n=True), "n: found True"),
    (lambda r: r.update(bytes=2 ** 40), "bytes: found"), (lambda r: r.update(more=1), "found 'more', expected none but"),
    (lambda r: r["heldout"].update(total=math.nan), "found 'NaN'|found NaN"),
    (lambda r: r["log"].update(total=3), "log.total: found 3"),
    (lambda r: r["log"].update(total=[None]), r"log.total\[0\]: found None"),
    (lambda r: r["settings"].pop("clip"), "clip missing"),
    (lambda r: r["settings"].update(size=-1), "settings.size: found -1"),
    (lambda r: r["settings"].update(seed=1.5), "settings.seed"),
    (lambda r: r["settings"].update(options={"latent": 10 ** 12}), "options.latent: found 1000000000000"),
    (lambda r: r["people"].update(seen=[]), "people.seen: found"),
    (lambda r: r.update(versions={"a": {}}), "versions.a: found")])
def test_a_record_of_another_form_is_refused_though_signed(change, message, published):
    resealed(published, change)
    with pytest.raises(ValueError, match=rf"vanilla.json: found a damaged record \(.*({message})"):
        mmvae.load("vanilla")


def test_a_record_of_which_a_bit_flipped_is_refused(published):
    text = (published / "vanilla.json").read_text()
    digit = text.index('"parameters": ') + 15
    (published / "vanilla.json").write_text(text[:digit] + str((int(text[digit]) + 1) % 10) + text[digit + 1:])
    with pytest.raises(ValueError, match="its content is not that of its digest"):
        mmvae.load("vanilla")


@pytest.mark.parametrize("spoil", [lambda v: v.float(), lambda v: v.fill_(math.nan), lambda v: v.fill_(math.inf),
                                   lambda v: v.to(torch.int32), lambda v: v.bool(), lambda v: v.to(torch.float8_e5m2)])
def test_weights_of_another_kind_are_refused_though_signed(spoil, published):
    state = {k: v.half() for k, v in mmvae.load("vanilla").state_dict().items()}
    name = next(iter(state))
    resealed(published, lambda record: None, save(state | {name: spoil(state[name].clone())}))
    with pytest.raises(ValueError, match=rf"vanilla.safetensors: (not a safetensors file \()?{re.escape(name)}: found"):
        mmvae.load("vanilla")


@pytest.mark.parametrize("end", ["json", "safetensors"])
def test_a_published_file_of_gigabytes_is_not_read(end, published):
    sparse(published / f"vanilla.{end}")
    with pytest.raises(ValueError, match="found 68,719,476,736 bytes, expected at most"):
        mmvae.load("vanilla")


@pytest.mark.parametrize("spoil, message", [
    (lambda text: text.replace('"n":', '"n":1,"n":', 1), "twice"),
    (lambda text: text.replace('"n":', '"digest":"0","n":', 1), "digest"),
    (lambda text: re.sub(r',\n "digest": "\w+"', "", text), "digest missing"),
    (lambda text: "[" * 10 ** 5, "nested more than 32 deep"),
    (lambda text: text.replace('"n":', '"m":NaN,"n":', 1), "finite")])
def test_a_hostile_record_of_a_run_is_refused(spoil, message, tmp_path):
    path = next(iter(sorted(results.RUNS.glob("*.json"))))
    (tmp_path / path.name).write_text(spoil(path.read_text()))
    with pytest.raises(ValueError, match=f"{path.name}: found a damaged file .*{message}"):
        results.record(tmp_path / path.name)


# ---- JSON and safetensors

@pytest.mark.parametrize("text, message", [
    ('{"a": 1, "a": 2}', "found 'a' twice"), ("[" * 33 + "]" * 33, "nested more than 32 deep"),
    ("[" * 10 ** 6, "nested more"),
    ("NaN", "found NaN, expected a finite"), ("-Infinity", "found -Infinity"), ("1e999", "found 1e999"),
    ("9" * 30, "of 30 digits"),
    (b"\xff", "utf-8"), ("", "Expecting value"), ("{} {}", "Extra data")])
def test_json_of_another_form_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        strict.loads(text)


@pytest.mark.parametrize("value, form, message", [
    (True, int, "a: found True, expected a whole number"), (1.0, int, "a: found 1.0"), (math.nan, float, "a: found nan"),
    ({"b": 1}, {"b": str}, "a.b: found 1, expected a text"), ([1, "c"], [float],
    r"a\[1\]: found 'c', expected a finite number"),
    ({}, {"b": int, "c?": int}, "a: b missing"), ("x" * 999, int, "a: found 'x+ ..., expected"),
    (11, range(10), "a: found 11, expected a whole number from 0 to 9"),
    (None, (int, str), "a: found None, expected a whole number or")])
def test_a_value_of_another_form_is_named(value, form, message):
    with pytest.raises(ValueError, match=message):
        strict.check(value, form, "a")


def header(**tensors) -> bytes:
    text = json.dumps(tensors).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize("content, message", [
    (b"", "found 0 bytes"), (b"\xff" * 8, "found 8 bytes that begin otherwise"), (header(a=1) + b"0", "a: found 1"),
    (header(a={"dtype": "F8_E4M3", "shape": [1], "data_offsets": [0, 1]}) + b"0", "found 'F8_E4M3', expected one of"),
    (header(a={"dtype": "F32", "shape": [2 ** 38], "data_offsets": [0, 2 ** 39]}), "as its header says"),
    (header(a={"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}) + b"0000", r"a.shape\[0\]: found -1"),
    (header(a={"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}) + b"0000", "damaged safetensors file")])
def test_safetensors_that_are_none_are_refused(content, message):
    with pytest.raises(ValueError, match=message):
        strict.tensors(content)


# ---- command lines

def outcome(main, *argv) -> tuple[int, str]:
    """The exit code of a command and what it said on stderr."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            main([str(a) for a in argv])
        except SystemExit as e:
            return e.code or 0, said.getvalue()
    return 0, said.getvalue()


TRAIN = "train", "vanilla", "f.h5", "run", "--size", "16", "--iterations", "1"
THIRTY = "9" * 30
WRONG = [(command.main, *TRAIN, option, value) for option, values in {
    "--size": ("0", "-8", "3000", THIRTY), "--iterations": ("0", "-1", THIRTY, "1.5", "true"), "--batch": ("0", "-1", THIRTY),
    "--learning-rate": ("nan", "-1", "0", "inf"), "--warmup": ("-1",), "--clip": ("0", "nan"), "--weight": ("-1", "0", "inf"),
    "--cross": ("-1",), "--cross-until": ("-1", "x"), "--seed": ("-1", THIRTY), "--log-every": ("0",),
    "--checkpoint-every": ("0",),
    "--threads": ("-1", "0", "100000"), "--device": ("cuda:99", "gpu", "meta", "mps", "cpu:7", ""),
    "--options": ('{"latent": -1}', '{"latent": 0}', '{"latent": 999999999}', '{"latent": true}', '{"latent": 1.5}', "3",
                  "nonsense", '{"a":' * 900 + "1" + "}" * 900, '{"latent": 1, "latent": 2}', '{"no": 1}', '{"dense": 1}',
                  '{"modalities": 1}')
}.items() for value in values] + [
    (command.main,), (command.main, "gan"), (command.main, "train", "gan", "f.h5", "run"),
    (command.main, "evaluate", "run", "--pairs", "0"), (command.main, "evaluate", "run", "--pairs", THIRTY),
    (command.main, "evaluate", "run", "--out", "/dev/null"), (command.main, "evaluate", "run", "--out", "pipe"),
    (command.main, "evaluate", "run", "--out", "nowhere/m.json"), (command.main, "evaluate", "run", "--out", "link"),
    (command.main, "results", "--status", "--jobs", "0"), (command.main, "results", "--status", "--hours", "nan"),
    (command.main, "results", "--status", "--seeds", "x"), (command.main, "results", "--status", "--device", "cuda:9"),
    (publish.main, "vanilla", "--jobs", "0"), (publish.main, "vanilla", "--threads", THIRTY), (publish.main, "gan"),
    (publish.main, "vanilla", "--out", "/dev/null"), (command.main, *TRAIN[:3], "pipe"),
    (command.main, *TRAIN[:3], "f.h5/run"),
    (command.main, *TRAIN[:3], "x" * 5000), (command.main, *TRAIN[:3], "a\0b")] + [
    (render.main, "x.h5", option, value) for option, values in {
        "--identities": ("0", "-1", THIRTY), "--test-identities": ("-1",), "--size": ("0", "15", "9999"), "--seed": ("-1",),
        "--jobs": ("0", "-1", "9999"), "--device": ("gpu", "cuda:99")}.items() for value in values] + [
    (render.main, path) for path in ("/dev/null", "pipe", "link", ".", "nowhere/x.h5", "a\0b", "x" * 5000)]


@pytest.mark.parametrize("line", WRONG,
        ids=lambda line: f"{line[0].__module__.split('.')[-2]} {' '.join(line[1:])}"[:60].strip())
def test_a_wrong_command_line_ends_with_2_and_one_line_and_leaves_nothing(line, tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "f.h5").write_text("no data")
    (tmp_path / "link").symlink_to("f.h5")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MMVAE_BUILD", str(tmp_path))
    before = set(os.listdir())
    code, said = outcome(*line)
    assert code == 2 and said.count("\n") == 1 and "error: " in said and len(said) < 700, said
    assert set(os.listdir()) == before and (tmp_path / "f.h5").read_text() == "no data"


@pytest.mark.parametrize("path", ["none.h5", "pipe", "f.h5", "/dev/zero"])
def test_data_that_are_none_leave_no_folder(path, tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "f.h5").write_text("no data")
    monkeypatch.chdir(tmp_path)
    code, said = outcome(command.main, "train", "vanilla", path, "run", "--size", "16")
    assert code == 1 and said.count("\n") == 1 and Path(path).name in said and not (tmp_path / "run").exists()


def test_a_disk_that_is_full_ends_rendering_in_one_line(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    code, said = outcome(render.main, tmp_path / "x.h5", "--identities", 1, "--test-identities", 0, "--size", 16)
    assert code == 1 and "No space left on device" in said.splitlines()[-1] and not list(tmp_path.iterdir())
