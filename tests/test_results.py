"""experiment/grid.py: the grid, what the build folder gives to results.json, and what a chapter reads of it."""
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
from mmvae import evaluate, train
from mmvae.experiment import grid as making, measure, prints, profiles, recipe, results, weights
from mmvae.experiment.grid import Run, grid
from mmvae.experiment.recipe import Recipe
from mmvae.faces import judge as judging

# ---------------------------------------------------------------- the grid


def test_the_grid_has_unique_runs_the_main_table_first():
    runs = grid()
    assert len({run.name for run in runs}) == len(runs)
    main = [run for run in runs if run.study == "main"]
    assert runs[:30] == main and {run.recipe.model for run in main} == set(mmvae.MODELS)
    assert Counter((run.recipe.model, run.recipe.seed) for run in main) == Counter(
        (model, seed) for model in mmvae.MODELS for seed in range(5))
    assert {run.recipe.iterations for run in main} == {making.LONG} and {run.recipe.size for run in runs} == {32}
    seeds = {}
    for run in runs:
        seeds.setdefault((run.study, run.variant, run.recipe.model), []).append(run.recipe.seed)
    assert all(found == list(range(len(found))) for (study, *_), found in seeds.items() if study != "length")


def test_runs_of_a_study_differ_by_what_it_is_about_alone():
    """From the base of the same model and seed."""
    plain = {(r.recipe.model, r.recipe.seed): asdict(r.recipe) for r in grid() if r.study == "base"}
    fields = {"cross": {"cross", "cross_until"}, "shared": {"options"}, "private": {"options"}, "prior": {"options"},
              "weight": {"weight", "options"}, "identities": {"options"}, "length": {"iterations"}}
    for run in grid():
        if run.study in fields:
            base, mine = plain[run.recipe.model, run.recipe.seed], asdict(run.recipe)
            assert {k for k in mine if mine[k] != base[k]} <= fields[run.study]
            assert run.identities == (10 if run.study == "identities" else 50)
    options = {(r.study, r.variant): r.recipe.options for r in grid()}
    assert (options["shared", "3"], options["private", "1"]) == ({"shared": 3}, {"private": 1})
    assert options["weight", "16, 5"] == {}  # the models' own size


def test_every_run_of_the_grid_has_a_model():
    for options, name in {(json.dumps(r.recipe.options), r.recipe.model) for r in grid()}:
        mmvae.MODELS[name](size=32, **json.loads(options))


def test_a_folder_is_of_all_that_a_run_depends_on(tmp_path, monkeypatch):
    class Data:
        def __init__(self, split, identities):
            self.fingerprint = f"{split} of {identities}"

    monkeypatch.setenv("MMVAE_BUILD", str(tmp_path))
    monkeypatch.setattr(making, "_pairs", Data)
    runs = [Run("main", "a, b", Recipe(seed=1)), Run("main", "a, b", Recipe(seed=1, batch=8)),
            Run("main", "a, b", Recipe(seed=1), identities=10)]
    assert {run.name for run in runs} == {"mumo-main-a-b-1"} and len({run.folder for run in runs}) == 3
    assert all(run.folder.parent == tmp_path / "results" for run in runs)


# ---------------------------------------------------------------- the work, on tiny runs


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A grid of two runs on planted images, measured on 64 pairs, in a build folder of its own; its two runs."""
    threads, made = torch.get_num_threads(), dict(zip(("train", "test"), planted.splits()))
    runs = [Run(study, "plain", Recipe(model, size=16, iterations=4, batch=8, log_every=2))
            for study, model in (("main", "vanilla"), ("base", "poe-v2"))]
    numbers, everything, cross = measure.numbers, measure.everything, judging.cross_modal
    monkeypatch.setenv("MMVAE_BUILD", str(tmp_path / "build"))
    monkeypatch.setattr(making, "grid", lambda: runs)
    monkeypatch.setattr(making, "SIZE", 16)
    monkeypatch.setattr(making, "_pairs", lambda split, *_: made[split])
    monkeypatch.setattr(measure, "judge", partial(measure.judge, free=False, iterations=3))
    monkeypatch.setattr(measure, "numbers", lambda *pairs_of, n=0, subsets=(): numbers(*pairs_of[:4], 64, subsets))
    monkeypatch.setattr(measure, "everything", partial(everything, n=64))
    monkeypatch.setattr(judging, "cross_modal", lambda model, judge, n=0: cross(model, judge, 8))
    monkeypatch.setattr(measure, "LIKELIHOOD_PAIRS", 4)
    monkeypatch.setattr(making, "ProcessPoolExecutor", ThreadPoolExecutor)  # its threads take what is patched here
    monkeypatch.setattr(making, "_die_with_parent", lambda: None)
    monkeypatch.setattr(weights, "info", lambda name: {"settings": {"size": 16}, "sha256": "5" * 64})
    monkeypatch.setattr(weights, "load", lambda name: mmvae.MODELS[weights.RECIPES[name][0]](size=16))
    yield runs
    torch.set_num_threads(threads)


LONG = {"likelihood", "probes_of_samples", "verification", "mig", "dci", "coherence"}


def test_the_command_trains_measures_and_writes_what_a_chapter_reads(small, tmp_path, monkeypatch):
    out = tmp_path / "results.json"
    making.main(["--jobs", "1", "--out", str(out)])
    found = results.read(out)
    assert found["size"] == 16 and set(found["reader"]) == {"identity", "azimuth", "elevation", "light"}
    assert found["test_data"] == planted.splits()[1].fingerprint and found["real_distance"] > 0
    assert set(found["versions"]) == {"python", "torch", "numpy", "device"} and "threads" in found["machine"]
    assert list(found["published"]) == list(weights.RECIPES)
    assert all(set(of) == {"likelihood", "experts", "cross", "coherence"} for of in found["published"].values())
    main, base = found["runs"]
    assert [r["settings"] for r in found["runs"]] == [asdict(run.recipe) for run in small]
    about = dict(study="main", variant="plain", model="vanilla", seed=0, identities=50)
    assert {k: main[k] for k in about} == about
    assert LONG < set(main) and not LONG & set(base) and {"cross", "experts", "heldout"} < set(base)
    assert {k.split(".")[0] for k in base["probes"]} == {"I+T"} and not {"measured", "behaviour"} & set(main)
    log = train.read_log(small[1].folder)
    assert base["train"] == pytest.approx({k: v[-1] for k, v in log.items() if k not in ("iteration", "seconds")}, rel=1e-5)
    judge = measure.judge(*planted.splits(), profiles.build_folder(), progress=False)
    exact = evaluate.experts(train.load_run(small[1].folder, small[1].recipe.build()), planted.splits()[1], 2048)
    assert {k: pytest.approx(v, rel=1e-5) for k, v in exact.items()} == base["experts"]
    assert found["reader"] == pytest.approx(judge.errors, rel=1e-5)
    assert len(out.read_text().splitlines()) < 40  # a line a run, and a print

    def again(*args, **kwargs):
        pytest.fail("did again what the build folder has")

    before = out.read_bytes()
    for module, name in ((train, "fit"), (measure, "numbers"), (measure, "everything"), (making, "published")):
        monkeypatch.setattr(module, name, again)
    making.main(["--jobs", "1", "--out", str(out)])
    assert out.read_bytes() == before


def test_what_other_code_measured_is_measured_again_and_not_trained(small, monkeypatch):
    making._work(small[1])
    first = making._measured(small[1])
    assert first["seconds"] > 0 and set(first["measured"]) == {"heldout", "probes", "cross", "experts", "reading"}
    path = small[1].folder / "metrics.json"
    path.write_text(json.dumps(first | {"measured": first["measured"] | {"heldout": {"total": [1.0]}}}))
    assert making._measured(small[1]) is None
    monkeypatch.setattr(train, "_read", lambda *a: pytest.fail("trained again"))
    making._work(small[1])
    assert making._measured(small[1]) == first


def test_what_other_code_trained_is_refused_with_the_numbers(small, monkeypatch):
    making._work(small[1])
    assert making._measured(small[1])
    kl = mmvae.Gaussian.kl
    monkeypatch.setattr(mmvae.Gaussian, "kl", lambda self, other=None: 1.01 * kl(self, other))
    prints._training.cache_clear()
    assert making._measured(small[1]) is None
    with pytest.raises(ValueError, match="holds a run of code that computed something else .*kl.* found .*, now"):
        making._work(small[1])
    prints._training.cache_clear()


def test_one_that_fails_is_named_and_stops_no_other(small, tmp_path, monkeypatch, capsys):
    fit = recipe.fit

    def failing(model, *args, **kwargs):
        if isinstance(model, mmvae.VanillaVAE):
            raise FloatingPointError("total is nan")
        return fit(model, *args, **kwargs)

    monkeypatch.setattr(recipe, "fit", failing)
    monkeypatch.setattr(making, "_publish", lambda name: {})
    with pytest.raises(SystemExit, match="failed: vanilla-main-plain-0; the same command goes on"):
        making.main(["--jobs", "1", "--out", str(tmp_path / "results.json")])
    assert "vanilla-main-plain-0: total is nan" in capsys.readouterr().out
    assert making._measured(small[1]) and not (tmp_path / "results.json").exists()


def test_runs_of_two_versions_are_not_written_together(small, tmp_path):
    for run in small:
        making._work(run)
    path = small[1].folder / "metrics.json"
    record = json.loads(path.read_text())
    record["versions"]["torch"] = "1.0"
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match=f"{small[1].folder}: found .*1.0.*, expected .* remove it"):
        making.write(small, {}, tmp_path / "results.json")


def _worker(ends):
    """Stands for the command: starts a worker that says its name and sleeps."""
    if os.fork() == 0:
        making._die_with_parent()
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
