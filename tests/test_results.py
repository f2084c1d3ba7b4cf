"""results.py: the grid, what the build folder gives to results.json, and what a chapter reads of it."""
import json
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial

import pytest
import torch

import mmvae
import planted
import tiny
from mmvae import evaluate, results, synthesis, weights
from mmvae.results import Run, grid
from mmvae.train import Settings

# ---------------------------------------------------------------- the grid


def test_the_grid_has_unique_runs_the_main_table_first():
    runs = grid()
    assert len({run.name for run in runs}) == len({run.folder for run in runs}) == len(runs)
    main = [run for run in runs if run.study == "main"]
    assert runs[:30] == main and {run.settings.model for run in main} == set(mmvae.MODELS)
    assert Counter((run.settings.model, run.settings.seed) for run in main) == Counter(
        (model, seed) for model in mmvae.MODELS for seed in range(5))
    assert {run.settings.iterations for run in main} == {results.LONG} and {run.settings.size for run in runs} == {32}
    seeds = {}
    for run in runs:
        seeds.setdefault((run.study, run.variant, run.settings.model), []).append(run.settings.seed)
    assert all(found == list(range(len(found))) for (study, *_), found in seeds.items() if study != "length")


def test_runs_of_a_study_differ_by_what_it_is_about_alone():
    """From the base of the same model and seed."""
    plain = {(r.settings.model, r.settings.seed): asdict(r.settings) for r in grid() if r.study == "base"}
    fields = {"cross": {"cross", "cross_until"}, "shared": {"options"}, "private": {"options"}, "prior": {"options"},
              "weight": {"weight", "options"}, "identities": {"options"}, "length": {"iterations"}}
    for run in grid():
        if run.study in fields:
            base, mine = plain[run.settings.model, run.settings.seed], asdict(run.settings)
            assert {k for k in mine if mine[k] != base[k]} <= fields[run.study]
            assert run.identities == (10 if run.study == "identities" else 50)
    options = {(r.study, r.variant): r.settings.options for r in grid()}
    assert (options["shared", "3"], options["private", "1"]) == ({"shared": 3}, {"private": 1})
    assert options["weight", "16, 5"] == {}  # the models' own size


def test_every_run_of_the_grid_has_a_model():
    for options, name in {(json.dumps(r.settings.options), r.settings.model) for r in grid()}:
        mmvae.MODELS[name](size=32, **json.loads(options))


def test_a_folder_is_of_all_that_a_run_depends_on(tmp_path, monkeypatch):
    monkeypatch.setenv("MMVAE_BUILD", str(tmp_path))
    runs = [Run("main", "a, b", Settings(seed=1)), Run("main", "a, b", Settings(seed=1, batch=8)),
            Run("main", "a, b", Settings(seed=1), identities=10)]
    assert {run.name for run in runs} == {"mumo-main-a-b-1"} and len({run.folder for run in runs}) == 3
    assert all(run.folder.parent == tmp_path / "results" for run in runs)
    before = runs[0].folder
    monkeypatch.setitem(results.profiles.SOURCE, results.models, b"other networks")
    assert runs[0].folder != before


# ---------------------------------------------------------------- the work, on tiny runs


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A grid of two runs on planted images, measured on 64 pairs, in a build folder of its own; its two runs."""
    threads, made = torch.get_num_threads(), dict(zip(("train", "test"), planted.splits()))
    runs = [Run(study, "plain", Settings(model, size=16, iterations=4, batch=8, log_every=2))
            for study, model in (("main", "vanilla"), ("base", "poe-v2"))]
    numbers, everything, cross = evaluate.numbers, evaluate.everything, synthesis.cross_modal
    monkeypatch.setenv("MMVAE_BUILD", str(tmp_path / "build"))
    monkeypatch.setattr(results, "grid", lambda: runs)
    monkeypatch.setattr(results, "SIZE", 16)
    monkeypatch.setattr(results, "_pairs", lambda split, *_: made[split])
    monkeypatch.setattr(evaluate, "judge", partial(evaluate.judge, free=False, iterations=3))
    monkeypatch.setattr(evaluate, "numbers", lambda *pairs_of, n=0, subsets=(): numbers(*pairs_of[:4], 64, subsets))
    monkeypatch.setattr(evaluate, "everything", partial(everything, n=64))
    monkeypatch.setattr(synthesis, "cross_modal", lambda model, judge, n=0: cross(model, judge, 8))
    monkeypatch.setattr(evaluate, "LIKELIHOOD_PAIRS", 4)
    monkeypatch.setattr(results, "ProcessPoolExecutor", ThreadPoolExecutor)  # its threads take what is patched here
    monkeypatch.setattr(results, "_die_with_parent", lambda: None)
    monkeypatch.setattr(weights, "info", lambda name: {"settings": {"size": 16}, "sha256": "5" * 64})
    monkeypatch.setattr(weights, "load", lambda name: mmvae.MODELS[weights.RECIPES[name][0]](size=16))
    yield runs
    torch.set_num_threads(threads)


LONG = {"likelihood", "probes_of_samples", "verification", "mig", "dci", "coherence"}


def test_the_command_trains_measures_and_writes_what_a_chapter_reads(small, tmp_path, monkeypatch):
    out = tmp_path / "results.json"
    results.main(["--jobs", "1", "--out", str(out)])
    found = results.read(out)
    assert found["size"] == 16 and set(found["reader"]) == {"identity", "azimuth", "elevation", "light"}
    assert found["test_data"] == planted.splits()[1].fingerprint and found["real_distance"] > 0
    assert set(found["versions"]) == {"python", "torch", "numpy", "device"} and "threads" in found["machine"]
    assert list(found["published"]) == list(weights.RECIPES)
    assert all(set(of) == {"likelihood", "experts", "cross", "coherence"} for of in found["published"].values())
    main, base = found["runs"]
    assert [r["settings"] for r in found["runs"]] == [asdict(run.settings) for run in small]
    about = dict(study="main", variant="plain", model="vanilla", seed=0, identities=50)
    assert {k: main[k] for k in about} == about
    assert LONG < set(main) and not LONG & set(base) and {"cross", "experts", "heldout"} < set(base)
    assert {k.split(".")[0] for k in base["probes"]} == {"IT"} and "measured_by" not in main
    log = results.train.read_log(small[1].folder)
    assert base["train"] == pytest.approx({k: v[-1] for k, v in log.items() if k not in ("iteration", "seconds")}, rel=1e-5)
    judge = evaluate.judge(*planted.splits(), results.profiles.build_folder(), progress=False)
    exact = synthesis.experts(results.train.load_run(small[1].folder), planted.splits()[1], 2048)
    assert {k: pytest.approx(v, rel=1e-5) for k, v in exact.items()} == base["experts"]
    assert found["reader"] == pytest.approx(judge.errors, rel=1e-5)
    assert len(out.read_text().splitlines()) < 30  # a run a line

    def again(*args, **kwargs):
        pytest.fail("did again what the build folder has")

    before = out.read_bytes()
    for module, name in ((results.train, "fit"), (evaluate, "numbers"), (evaluate, "everything"), (results, "published")):
        monkeypatch.setattr(module, name, again)
    results.main(["--jobs", "1", "--out", str(out)])
    assert out.read_bytes() == before


def test_what_other_code_measured_is_measured_again_and_not_trained(small, monkeypatch):
    results._work(small[1])
    first = results._measured(small[1])
    assert first["seconds"] > 0
    monkeypatch.setattr(results, "CODE", "of another version")
    assert results._measured(small[1]) is None
    monkeypatch.setattr(mmvae.models.MultiModalVAE, "loss", lambda *a: pytest.fail("trained again"))
    results._work(small[1])
    second = results._measured(small[1])
    assert second | {"measured_by": ""} == first | {"measured_by": ""}


def test_one_that_fails_is_named_and_stops_no_other(small, tmp_path, monkeypatch, capsys):
    fit = results.train.fit

    def failing(settings, *args, **kwargs):
        if settings.model == "vanilla":
            raise FloatingPointError("total is nan")
        return fit(settings, *args, **kwargs)

    monkeypatch.setattr(results.train, "fit", failing)
    monkeypatch.setattr(results, "_publish", lambda name: {})
    with pytest.raises(SystemExit, match="failed: vanilla-main-plain-0; the same command goes on"):
        results.main(["--jobs", "1", "--out", str(tmp_path / "results.json")])
    assert "vanilla-main-plain-0: total is nan" in capsys.readouterr().out
    assert results._measured(small[1]) and not (tmp_path / "results.json").exists()


def test_runs_of_two_versions_are_not_written_together(small, tmp_path):
    for run in small:
        results._work(run)
    path = small[1].folder / "metrics.json"
    record = json.loads(path.read_text())
    record["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=f"{small[1].folder}: found .*1.0.*, expected .* remove it"):
        results.write(small, {}, tmp_path / "results.json")


def _worker(ends):
    """Stands for the command: starts a worker that says its name and sleeps."""
    if os.fork() == 0:
        results._die_with_parent()
        ends.send(os.getpid())
        time.sleep(100)
        os._exit(0)
    time.sleep(100)


def test_a_worker_lives_as_long_as_its_command_and_no_longer():
    """The pipe closes when the last process that holds it has ended."""
    ours, theirs = tiny.CLEAN.Pipe(duplex=False)
    command = tiny.start(theirs, target=_worker)
    theirs.close()
    assert ours.poll(60) and ours.recv() != command.pid
    assert not ours.poll(1.5) and command.is_alive()
    command.kill()
    assert ours.poll(10)
    with pytest.raises(EOFError):
        ours.recv()
    command.join()
