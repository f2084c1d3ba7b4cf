"""weights.py: what is published is whole, of this code, and as good as its record says; nothing else loads."""
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
import types
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

import mmvae
from mmvae import faces, train
from mmvae.experiment import grid, measure, profiles, publish, results, weights
from mmvae.experiment.recipe import Recipe
from mmvae.faces import Pairs

ROOT = Path(__file__).resolve().parent.parent
CPU = profiles.PROFILES["cpu"]
NAMES = {f"{name}.{end}" for name in weights.RECIPES for end in ("json", "safetensors")}
every_model = pytest.mark.parametrize("name", weights.RECIPES)


def states_equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


# ---------------------------------------------------------------- the committed files


@every_model
def test_the_published_numbers_are_those_of_the_published_weights(name, unseen):
    """Every held-out term; and the identity probes, the ones that no training head is needed for. Of the people whom the cpu
    profile renders: the record's other numbers are of 200."""
    record, model = weights.info(name), mmvae.load(name)
    found = measure.repeatable(model, unseen, record["settings"]["weight"], record["n"])
    assert found["heldout"] == pytest.approx(record["shown"]["heldout"], abs=weights.TOLERANCE)
    assert found["probes"] == pytest.approx(record["shown"]["probes"], abs=0.02)
    assert (len(record["people"]["seen"]["value"]), len(record["people"]["unseen"]["value"])) == profiles.PEOPLE


@every_model
def test_a_published_model_is_of_the_profile_that_the_book_states(name):
    record, (model, changes) = weights.info(name), weights.RECIPES[name]
    settings = Recipe(**record["settings"])
    assert settings == CPU.settings(model, **changes), "publish anew, or set PROFILES['cpu'] to what is published"
    assert record["settings"]["weight"] == 1 and record["data"] != record["test_data"]
    people, same = record["people"], weights.info("mumo")["people"]  # known by their numbers: another processor may render a
    assert all(people[split]["value"] == same[split]["value"] for split in people)  # grey level otherwise
    assert record["parameters"] == sum(p.numel() for p in mmvae.MODELS[model](size=CPU.size).parameters())
    assert {"python", "torch", "numpy", "device"} <= set(record["versions"]) and record["machine"]["threads"] >= 1
    assert record["seconds"] == record["log"]["seconds"][-1] > 0
    assert record["log"]["iteration"][-1] == settings.iterations and len(record["log"]["total"]) <= weights.LOG_ROWS
    for s in ("I+T",) if name == "vanilla" else ("I", "T", "I+T"):
        parts = {k: v for k, v in record["heldout"].items() if k.startswith(f"{s}.") and not k.endswith("elbo")}
        assert record["heldout"][f"{s}.elbo"] == pytest.approx(-sum(parts.values()), rel=1e-5)


def test_two_files_a_model_beside_the_results_and_at_most_30_megabytes():
    dials = {"dials.json", "dials.safetensors"}  # the welcome page's: tests/test_landing.py
    assert {path.name for path in weights.FOLDER.iterdir()} - {results.RUNS.name} - dials == NAMES | {
        results.FILE.name, "roles.json", "steps.json", "annealed.json"}
    assert sum(path.stat().st_size for path in weights.FOLDER.rglob("*") if path.is_file()) <= 30e6


def test_the_package_as_installed_holds_them(tmp_path):
    """Builds a wheel from a copy of what it is made of; needs no network."""
    source = tmp_path / "source"
    shutil.copytree(ROOT / "mmvae", source / "mmvae", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-text"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", str(source), "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "-w", str(tmp_path)], check=True, capture_output=True)
    [wheel] = tmp_path.glob("*.whl")
    packed = set(zipfile.ZipFile(wheel).namelist())
    assert {f"mmvae/experiment/published/{name}" for name in NAMES} <= packed


# ---------------------------------------------------------------- on tiny models, in a folder of their own


def run(recipe, pairs, folder):
    return train.fit(recipe.build(), pairs, folder, recipe.training, progress=False, recipe=recipe.record())


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with two published models, and the run and the pairs of the first."""
    folder = tmp_path_factory.mktemp("made")
    faces.write(folder / "faces.h5", identities=2, test_identities=2, size=16, progress=False)
    pairs = [Pairs(folder / "faces.h5", split) for split in ("train", "test")]
    for name in ("poe-v2", "vanilla"):
        run(Recipe(name, size=16, iterations=7, batch=8, log_every=2, checkpoint_every=5), pairs[0], folder / name)
        weights.publish(folder / name, *pairs, n=64, folder=folder / "published")
    return folder, pairs


@pytest.fixture
def published(made, tmp_path, monkeypatch):
    """The folder `published`, to be spoilt."""
    shutil.copytree(made[0] / "published", tmp_path / "published")
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "published")
    return tmp_path / "published"


def test_a_model_comes_back_as_published_and_says_what_it_is(made, published, capsys):
    trained, record = mmvae.load(made[0] / "poe-v2"), weights.info("poe-v2")
    before = torch.get_rng_state()
    model = mmvae.load("poe-v2")
    assert torch.equal(before, torch.get_rng_state())
    assert states_equal(model.state_dict(), {k: v.half().float() for k, v in trained.state_dict().items()})
    assert not model.training and {p.dtype for p in model.parameters()} == {torch.float32}
    numbers = measure.numbers(model, *made[1], 16.0, 64)
    assert numbers == {k: record[k] for k in ("n", "heldout", "probes", "parameters")}
    line = capsys.readouterr().out
    assert line.startswith("poe-v2: published, 16x16, 7 iterations, seed 0; ") and line.count("\n") == 1
    assert line.endswith(f"held-out ELBO {{I,T}} {record['heldout']['I+T.elbo']:,.1f} nats\n")


def test_the_record_tells_all(made, published):
    record, (learnt, unseen) = weights.info("poe-v2"), made[1]
    assert set(record) == set(weights.KEYS)
    assert (record["data"], record["test_data"]) == (learnt.fingerprint, unseen.fingerprint)
    content = (published / "poe-v2.safetensors").read_bytes()
    assert (record["bytes"], record["sha256"]) == (len(content), hashlib.sha256(content).hexdigest())
    assert record["log"]["iteration"] == [2, 4, 6, 7] and record["seconds"] == record["log"]["seconds"][-1]


def test_a_long_log_is_thinned_to_means():
    rows = 450
    log = {"iteration": np.arange(1, rows + 1) * 10.0, "seconds": np.arange(rows) / 2, "total": np.arange(rows) * 1.0}
    log["iteration"][-1] -= 5  # the last row is the mean of five iterations only
    thin = weights._thin(log)
    assert {len(v) for v in thin.values()} == {100}
    assert thin["iteration"][0] == 50 and thin["iteration"][-1] == 4495 and thin["seconds"][-1] == 224.5
    last = ((446 + 447 + 448) * 10 + 449 * 5) / 35
    assert thin["total"][0] == 2 and thin["total"][-1] == pytest.approx(last, abs=1e-3)


def reseal(folder, name, content):
    """Other weights, with a record that vouches for them."""
    record = json.loads((folder / f"{name}.json").read_text())
    record |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    record["digest"] = weights.digest_of(record)
    (folder / f"{name}.json").write_text(json.dumps(record))
    (folder / f"{name}.safetensors").write_bytes(content)


def spoil_truncated(folder):
    path = folder / "poe-v2.safetensors"
    path.write_bytes(path.read_bytes()[:1000])


def spoil_one_bit(folder):
    path = folder / "poe-v2.safetensors"
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.write_bytes(content)


def spoil_renamed(folder):
    shutil.copy(folder / "vanilla.safetensors", folder / "poe-v2.safetensors")


def spoil_both_renamed(folder):
    spoil_renamed(folder)
    shutil.copy(folder / "vanilla.json", folder / "poe-v2.json")


def spoil_json(folder):
    path = folder / "poe-v2.json"
    path.write_bytes(path.read_bytes()[:500])


def spoil_key(folder):
    path = folder / "poe-v2.json"
    path.write_text(path.read_text().replace('"sha256"', '"sha1"'))


def spoil_setting(folder):
    path = folder / "poe-v2.json"
    path.write_text(path.read_text().replace('"clip"', '"clap"'))


DAMAGE = {
    spoil_truncated: r"poe-v2.safetensors: truncated or replaced: found 1,000 bytes .*expected [\d,]+ bytes",
    spoil_one_bit: "poe-v2.safetensors: truncated or replaced: found .* SHA-256 [0-9a-f]{64}, expected",
    spoil_renamed: "poe-v2.safetensors: truncated or replaced",
    spoil_both_renamed: 'poe-v2.json: found the record of "vanilla", expected that of "poe-v2"',
    spoil_json: r"poe-v2.json: found a damaged record \(.*\), expected what `python -m mmvae.experiment publish poe-v2`",
    spoil_key: r"poe-v2.json: found a damaged record \(sha256 missing; found 'sha1'",
    spoil_setting: r"poe-v2.json: found a damaged record \(.*clap",
    lambda folder: reseal(folder, "poe-v2", b"PK not safetensors"): "poe-v2.safetensors: not a safetensors file",
    lambda folder: reseal(folder, "poe-v2", save({"a": torch.ones(2)})):
        r"poe-v2.safetensors: weights of other networks .*encoders.*found none, expected \(",
    lambda folder: reseal(folder, "poe-v2", save(mmvae.MODELS["poe-v2"](size=32).half().state_dict())):
        r"hidden1.weight: found \(\d+, \d+\), expected \(\d+, \d+\)",
}


@pytest.mark.parametrize("spoil", DAMAGE, ids=[f"damage{k + 1}" for k in range(len(DAMAGE))])
def test_a_damaged_or_foreign_file_is_refused(spoil, published):
    spoil(published)
    with pytest.raises(ValueError, match=DAMAGE[spoil]):
        mmvae.load("poe-v2")


@pytest.mark.parametrize("end", ["json", "safetensors"])
def test_a_missing_file_is_named_with_the_command_that_makes_it(end, published):
    (published / f"poe-v2.{end}").unlink()
    with pytest.raises(FileNotFoundError, match=rf"poe-v2.{end}: no such file; `{weights.COMMAND} poe-v2`"):
        mmvae.load("poe-v2")


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match='name: found "MuMo", expected one of vanilla, mumo, poe-v1.*, or the folder of'):
        mmvae.load("MuMo")


def test_a_run_of_one_s_own_is_loaded_from_its_folder(made, tmp_path):
    """With a model that is built as the run's was; without one if the run has a recipe."""
    folder, pairs = made
    trained, untrained = mmvae.load(folder / "poe-v2"), mmvae.MODELS["poe-v2"](size=16)
    assert states_equal(mmvae.load(str(folder / "poe-v2"), untrained).state_dict(), trained.state_dict())
    assert not trained.training and isinstance(trained, mmvae.PoEVAE)
    mine = mmvae.MuMoVAE({m: mmvae.images(16, private=1) for m in "IT"}, shared=2)
    train.fit(mine, pairs[0], tmp_path / "mine", progress=False, iterations=2, batch=4)
    again = mmvae.load(tmp_path / "mine", mmvae.MuMoVAE({m: mmvae.images(16, private=1) for m in "IT"}, shared=2))
    assert states_equal(mine.state_dict(), again.state_dict())
    with pytest.raises(ValueError, match=r"mine: found a run of MuMoVAE, expected .*; hand over a model .*mmvae.load\("):
        mmvae.load(tmp_path / "mine")
    with pytest.raises(ValueError, match="holds a run of another model .class: found MuMoVAE, asked for PoEVAE"):
        mmvae.load(tmp_path / "mine", untrained)
    with pytest.raises(FileNotFoundError, match="no settings.json"):
        mmvae.load(tmp_path)


def test_a_publication_that_is_killed_between_its_files_does_not_load(made, published, monkeypatch):
    """New weights beside the old record: refused by the hash."""
    def killed(path, content):
        if path.suffix == ".json":
            raise KeyboardInterrupt
        train.write_atomically(path, content)

    folder, pairs = made
    run(Recipe("vanilla", size=16, iterations=3, batch=8), pairs[0], folder / "other")
    monkeypatch.setattr(weights, "write_atomically", killed)
    with pytest.raises(KeyboardInterrupt):
        weights.publish(folder / "other", *pairs, n=64, folder=published)
    with pytest.raises(ValueError, match="vanilla.safetensors: truncated or replaced"):
        mmvae.load("vanilla")


def test_what_should_not_be_published_is_refused(made, tmp_path):
    folder, (learnt, unseen) = made
    with pytest.raises(ValueError, match="found a run on data .* expected"):
        weights.publish(folder / "poe-v2", unseen, learnt, folder=tmp_path)
    shutil.copytree(folder / "poe-v2", tmp_path / "cut")
    lines = (tmp_path / "cut" / "log.csv").read_text().splitlines(keepends=True)
    (tmp_path / "cut" / "log.csv").write_text("".join(lines[:-1]))
    with pytest.raises(ValueError, match="found 6 iterations, expected 7"):
        weights.publish(tmp_path / "cut", learnt, unseen, folder=tmp_path)
    assert not list(tmp_path.glob("*.*"))


def test_the_command_trains_by_the_profile_and_goes_on_where_it_was_stopped(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MMVAE_BUILD", str(tmp_path))
    tiny = replace(profiles.PROFILES["smoke"], name="cpu", iterations=4, identities=1, test_identities=1,
                   stored_size=16, published=True)
    monkeypatch.setitem(profiles.PROFILES, "cpu", tiny)
    monkeypatch.setitem(profiles.PROFILES, "book", replace(tiny, name="book", published=False))
    publish.main(["mumo", "vanilla", "--out", str(tmp_path / "out")])
    assert "mumo: " in capsys.readouterr().out
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "out")
    assert weights.info("mumo")["settings"] == tiny.settings("mumo").settings
    monkeypatch.setattr(train, "_read", lambda *a: pytest.fail("trained again"))
    publish.main(["mumo", "--out", str(tmp_path / "out")])
    with pytest.raises(SystemExit):
        publish.main(["gan"])
    assert "NAME: found gan, expected some of vanilla" in capsys.readouterr().err


def test_the_command_publishes_a_run_of_the_grid_once_it_is_there(made, tmp_path, monkeypatch, capsys):
    folder, (learnt, unseen) = made
    recipe = Recipe("poe-v2", size=16, iterations=7, batch=8, log_every=2, checkpoint_every=5)
    monkeypatch.setattr(grid, "grid", lambda: [grid.Run("main", "plain", recipe), grid.Run("long", "plain", recipe)])
    monkeypatch.setattr(grid, "pairs", lambda split, people, size: {"train": learnt, "test": unseen}[split])
    monkeypatch.setattr(publish, "profile", lambda name: types.SimpleNamespace(pairs=lambda split, size=None: unseen))
    monkeypatch.setattr(publish, "replace", lambda of, **_: of)
    for place, code in ((tmp_path / "none", 1), (folder / "poe-v2", 0)):
        monkeypatch.setattr(grid.Run, "folder", place)
        try:
            publish.main(["poe-v2", "--grid", "--out", str(tmp_path / "out")])
            found = 0
        except SystemExit as e:
            found = e.code
        assert found == code
    said = capsys.readouterr()
    assert "found no finished run of poe-v2; train it first: python -m mmvae.experiment results --study long" in said.err
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "out")
    assert said.out.count("poe-v2: ") == 1 and weights.info("poe-v2")["settings"]["iterations"] == 7


def test_side_by_side_each_model_has_a_process_and_a_failure_is_named(tmp_path, monkeypatch):
    python = tmp_path / "python"  # stands for the interpreter: says what it was called with, and fails for MuMo
    python.write_text(f'#!/bin/sh\nsleep 0.3\necho "$TQDM_POSITION $*" >> {tmp_path}/calls\n'
                      'case "$*" in *mumo) exit 3;; esac')
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(SystemExit, match="failed: mumo; the same command goes on"):
        publish.main(["vanilla", "mumo", "poe-v1", "--jobs", "2", "--threads", "3", "--out", "folder"])
    calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    assert {call[-1] for call in calls[:2]} == {"vanilla", "mumo"} and calls[2][-1] == "poe-v1"
    assert {call[0] for call in calls[:2]} == {"0", "1"}
    asked = "-m mmvae.experiment publish --profile book --threads 3 --out folder"
    assert {" ".join(call[1:-1]) for call in calls} == {asked}


def test_its_processes_end_with_it(tmp_path):
    """SIGTERM at the command stops what it started; the next call finds no training under way."""
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho $$ >> {tmp_path}/started\nexec sleep 60")
    python.chmod(0o755)
    code = (f"import sys; from mmvae.experiment import publish; sys.executable = {str(python)!r}; "
            "publish.main(['--jobs', '2'])")
    command = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    started = tmp_path / "started"
    while not started.exists() or len(started.read_text().split()) < 2:
        assert command.poll() is None
        time.sleep(0.05)
    command.terminate()
    assert "stopped; the same command goes on" in command.communicate(timeout=10)[1] and command.returncode
    for pid in started.read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)
