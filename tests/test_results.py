"""experiment/grid.py: the grid, and the command that fills it, a file a run."""
import json
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch

import mmvae
import planted
import tiny
from mmvae import evaluate, train
from mmvae.experiment import FIRST, grid as making, measure, prints, profiles, recipe, results, weights
from mmvae.experiment.__main__ import results as command
from mmvae.experiment.grid import Run, grid
from mmvae.experiment.recipe import Recipe
from mmvae.faces import judge as judging
from mmvae.incomplete import Incomplete

# ---------------------------------------------------------------- the grid

MANY = {"mumo", "poe-v1", "poe-v2", "wg-v2"}
CELLS = {  # study: its models, seeds a cell, iterations, and {variant: people}
    "main": (set(FIRST), None, 10_000, {"plain": 500}),
    "control": ({"wg-v2"}, 20, 10_000, {"7": 500}),
    "people": ({"poe-v2"}, 3, 10_000, {f"{s}, {n}": n for s in (32, 64) for n in (50, 150, 500, 1500) if (s, n) != (64, 500)}),
    "likelihood": ({"mumo", "poe-v2"}, 5, 10_000, dict.fromkeys(("normal", "continuous"), 500)),
    "base": ({"mumo", "poe-v2"}, 10, 3_000, {"plain": 500}),
    "shared": ({"mumo", "poe-v2"}, 10, 3_000, dict.fromkeys("34678", 500)),
    "identities": ({"mumo", "poe-v2"}, 5, 3_000, {f"{n}, {k}": n for n in (10, 50) for k in (5, 8)}),
    "weight": ({"mumo", "poe-v2"}, 5, 3_000, {f"{w}, {k}": 500 for w in ("4", "0.25") for k in (5, 8)}),
    "private": ({"mumo", "poe-v2"}, 5, 3_000, dict.fromkeys("1345", 500)),
    "marginals": (None, 5, 3_000, dict.fromkeys(("none", "I", "T"), 500)),
    "prior": ({"poe-v2"}, 5, 3_000, {"inside": 500}),
    "cross": ({"mumo", "poe-v2"}, 5, 3_000, dict.fromkeys(("warm-up", "throughout"), 500)),
    "long": (set(FIRST), 1, 80_000, dict.fromkeys(("plain", "cross"), 500))}


def test_the_grid_is_what_was_asked_for_the_most_telling_first():
    """The first studies; of those that came after, test_studies.py."""
    runs = [run for run in grid() if run.study in CELLS]
    assert [run.name for run in grid()[:len(runs)]] == [run.name for run in runs]
    assert list(dict.fromkeys(run.study for run in runs)) == list(CELLS) and len({run.name for run in runs}) == len(runs)
    for study, (models, seeds, iterations, variants) in CELLS.items():
        of = [run for run in runs if run.study == study]
        assert {run.variant: run.people for run in of} == variants
        own = {its.get("iterations", iterations) for _, its in weights.RECIPES.values()}
        assert {run.recipe.iterations for run in of} == (own if study == "long" else {iterations})
        assert {run.recipe.model for run in of} == (models or {"poe-v1", "poe-v2"})
        assert [run.recipe.seed for run in of] == sorted(run.recipe.seed for run in of)  # stopped, it is balanced
        cells: dict[tuple, list[int]] = {}
        for run in of:
            cells.setdefault((run.variant, run.recipe.model), []).append(run.recipe.seed)
        assert len(cells) == {"marginals": 3, "long": 8}.get(study, len(variants) * len(models or ()))
        for (_, model), found in cells.items():
            assert found == list(range(seeds or (20 if model in MANY else 10)))
    assert Counter((run.recipe.model, run.recipe.seed) for run in runs[:30]) == Counter(
        (model, seed) for model in FIRST for seed in range(5))
    assert {run.recipe.size for run in runs if run.study != "people"} == {64}
    assert {run.recipe.weight for run in runs if run.study not in ("people", "weight")} == {1.0}
    assert all(str(run.recipe.size) == run.variant.split(", ")[0] for run in runs if run.study == "people")
    assert (len(runs), sum(run.recipe.iterations for run in runs if run.study != "long")) == (449, 2_450_000)


def test_a_cell_that_two_studies_share_is_trained_once():
    assert max(Counter((run.recipe.key, run.recipe.seed, run.people, run.missing) for run in grid()).values()) == 1


def test_runs_of_a_study_differ_by_what_it_is_about_alone():
    """From the base of the same model and seed."""
    plain = {(r.recipe.model, r.recipe.seed): asdict(r.recipe) for r in grid() if r.study == "base"}
    fields = {"cross": {"cross", "cross_until"}, "shared": {"options"}, "private": {"options"}, "prior": {"options"},
              "weight": {"weight", "options"}, "identities": {"options"}}
    for run in grid():
        if run.study in fields:
            base, mine = plain[run.recipe.model, run.recipe.seed], asdict(run.recipe)
            assert {k for k in mine if mine[k] != base[k]} <= fields[run.study]
    options = {(r.study, r.variant): r.recipe.options for r in grid()}
    assert (options["shared", "3"], options["private", "1"], options["control", "7"]) == (
        {"shared": 3}, {"private": 1}, {"shared": 7})
    assert options["weight", "4, 5"] == options["base", "plain"] == options["main", "plain"] == {}  # the models' own size
    assert {r.recipe.weight for r in grid() if r.study == "main"} == {1}


def test_every_run_of_the_grid_has_a_model():
    for options, name in {(json.dumps(r.recipe.options), r.recipe.model) for r in grid()}:
        mmvae.MODELS[name](size=32, **json.loads(options))


def test_a_folder_is_of_all_that_a_run_depends_on(tmp_path, monkeypatch):
    class Data:
        def __init__(self, split, people, size, device):
            self.fingerprint = f"{split} of {people}, {size}"

    monkeypatch.setenv("MMVAE_BUILD", str(tmp_path))
    monkeypatch.setattr(making, "pairs", Data)
    runs = [Run("main", "a, b", Recipe(seed=1)), Run("main", "a, b", Recipe(seed=1, batch=8)),
            Run("main", "a, b", Recipe(seed=1), people=10)]
    assert {run.name for run in runs} == {"mumo-main-a-b-1"} and len({run.folder for run in runs}) == 3
    assert all(run.folder.parent == tmp_path / "results" for run in runs)
    monkeypatch.setattr(making, "pairs", lambda *_: prints.tiny_pairs()[0])
    whole, half = (Run("main", "a, b", Recipe(seed=1), missing=share) for share in (0.0, 0.5))
    assert whole.folder != half.folder and isinstance(half.rows(), Incomplete) and not isinstance(whole.rows(), Incomplete)


def test_one_data_file_serves_all_who_ask_for_no_more_than_it_has(tmp_path, monkeypatch):
    monkeypatch.setenv("MMVAE_BUILD", str(tmp_path))
    monkeypatch.setattr(profiles.Profile, "data_file", property(lambda self: (self.identities, self.test_identities)))
    monkeypatch.setattr(mmvae.faces, "read_faces", lambda file: file)
    monkeypatch.setattr(making, "Pairs", lambda grid, split, device, size, identities: (grid, split, device, size, identities))
    making._heads.cache_clear(), making.pairs.cache_clear()
    assert making.pairs("train", 10, 32) == ((500, 200), "train", "cpu", 32, 10)
    assert making.pairs("test", 500, 64, "cuda") == ((500, 200), "test", "cuda", 64, None)
    assert making.pairs("train", 1500, 32) == ((1500, 200), "train", "cpu", 32, 1500)
    making._heads.cache_clear(), making.pairs.cache_clear()
    replace(profiles.PROFILES["book"], identities=1500).data_path.touch()  # what is there already serves those of fewer
    assert making.pairs("train", 10, 32)[0] == making.pairs("test", 500, 64)[0] == (1500, 200)
    making._heads.cache_clear(), making.pairs.cache_clear()


# ---------------------------------------------------------------- the work, on tiny runs


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A grid of two runs on planted images, measured on 64 pairs, in folders of their own; its two runs."""
    threads, made = torch.get_num_threads(), dict(zip(("train", "test"), planted.splits()))
    runs = [Run(study, "plain", Recipe(model, size=16, iterations=5, batch=8, log_every=2, checkpoint_every=1))
            for study, model in (("main", "vanilla"), ("base", "poe-v2"))]
    numbers, everything, cross = measure.numbers, measure.everything, judging.cross_modal
    monkeypatch.setenv("MMVAE_BUILD", str(tmp_path / "build"))
    monkeypatch.setattr(results, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(making, "grid", lambda: runs)
    monkeypatch.setattr(making, "pairs", lambda split, *_: made[split])
    monkeypatch.setattr(profiles, "profile", lambda name: SimpleNamespace(pairs=lambda split, size: made[split]))
    monkeypatch.setattr(measure, "judge", partial(measure.judge, free=False, iterations=3))
    monkeypatch.setattr(measure, "numbers", lambda *pairs_of, n=0, subsets=(): numbers(*pairs_of[:4], 64, subsets))
    monkeypatch.setattr(measure, "everything", partial(everything, n=64))
    monkeypatch.setattr(measure, "by_person", partial(measure.by_person, n=9))
    monkeypatch.setattr(judging, "cross_modal", lambda model, judge, n=0: cross(model, judge, 8))
    monkeypatch.setattr(measure, "LIKELIHOOD_PAIRS", 4)
    monkeypatch.setattr(making, "ProcessPoolExecutor", ThreadPoolExecutor)  # its threads take what is patched here
    monkeypatch.setattr(making, "begin", lambda: None)
    making._judge.cache_clear()
    yield runs
    making._judge.cache_clear()
    torch.set_num_threads(threads)


BRIEF = {"heldout", "probes", "parameters", "cross", "experts", "above_floor", "n"}
LONG = {"likelihood", "probes_of_samples", "verification", "effects", "mig", "dci", "coherence", "sorted"}


def rows(printed: str) -> dict[str, list[str]]:
    """{study: done, wanted, iterations, seconds} of the table."""
    return {line.split()[0]: line.split()[1:] for line in printed.splitlines() if line[:1].isalpha()}


def test_the_command_trains_measures_and_writes_a_file_a_run(small, tmp_path, monkeypatch, capsys):
    command(["--jobs", "1"])
    said = rows(capsys.readouterr().out)
    assert said["study"] == ["done", "wanted", "iterations", "seconds"]
    assert [said[study][:3] for study in ("main", "base", "all")] == [["1", "1", "5"], ["1", "1", "5"], ["2", "2", "10"]]
    [base], [main] = results.runs(study="base"), results.runs(study="main")
    about = dict(study="main", variant="plain", model="vanilla", seed=0, people=500, held_out=200)
    assert {k: main[k] for k in about} == about and main["settings"] == small[0].recipe.settings
    assert set(base) == set(results.RUN) and set(main) == set(base) | LONG and BRIEF < set(base)
    assert {k.split(".")[0] for k in base["probes"]} == {"I+T"} and base["n"] == 64
    assert [main["data"], main["test_data"]] == [pairs.fingerprint for pairs in planted.splits()]
    assert set(main["versions"]) == {"python", "torch", "numpy", "device"} and main["machine"]["threads"] == 1
    log, model = train.read_log(small[1].folder), train.load_run(small[1].folder, small[1].recipe.build())
    assert base["train"] == pytest.approx({k: v[-1] for k, v in log.items() if k not in ("iteration", "seconds")}, rel=1e-5)
    for k, value in evaluate.experts(model, planted.splits()[1], 2048).items():
        assert value == pytest.approx(base["experts"][k], rel=1e-5)
    persons = measure.by_person(model, *planted.splits())
    assert base["above_floor"]["unseen"] == pytest.approx(persons["unseen"]["above_floor"], abs=0.051)
    assert base["above_floor"]["seen"] == pytest.approx(sum(persons["seen"]["above_floor"]) / 3, rel=1e-5)
    judge = measure.judge(*planted.splits(), profiles.build_folder(), progress=False)
    assert main["reader"] == pytest.approx(judge.errors, rel=1e-5) and main["real_distance"] > 0
    [shared] = (tmp_path / "runs" / "measured").iterdir()  # what both were measured by
    assert shared.stem == main["measured"] == base["measured"]
    assert set(results.prints_of(shared.stem)) == set(measure.MEASURES)
    text = (tmp_path / "runs" / "vanilla-main-plain-0.json").read_text()
    assert len(text.splitlines()) == len(main) + 1 and main["heldout"]["total"] == float(f"{main['heldout']['total']:.6g}")
    assert results.stale(lambda name: name.startswith(("run ", "measured heldout"))) == {}

    def again(*args, **kwargs):
        pytest.fail("did again what is done")

    for module, name in ((train, "fit"), (recipe, "fit"), (measure, "numbers"), (measure, "everything")):
        monkeypatch.setattr(module, name, again)
    command(["--jobs", "1"])
    assert (tmp_path / "runs" / "vanilla-main-plain-0.json").read_text() == text


def test_a_file_is_of_few_kilobytes_whatever_the_study():
    """A main run's longest model, with 200 people; its prints are in another file."""
    model, (seen, unseen) = mmvae.MODELS["wg-v2"](size=16), planted.splits()
    judge = judging.Judge({"train": seen, "test": unseen}, planted.Reader(), {})
    record = measure.everything(model, seen, unseen, 4.0, judge, n=64, progress=False) | {
        "above_floor": {"seen": 1 / 3, "unseen": [1234.5] * 200}, "behaviour": prints.training(Recipe("wg-v2", 16))}
    record = {k: record.get(k, "of some hundred letters" * 4) for k in results.RUN} | record
    assert len(f"{{{results._lines(record, ' ', (',', ':'))}}}") < 12_000


def test_it_says_what_is_done_and_stops(small, tmp_path, monkeypatch, capsys):
    making._work(small[0])
    monkeypatch.setattr(making, "_work", lambda run, device: pytest.fail("trained"))
    command(["--status"])
    said = rows(capsys.readouterr().out)
    assert [said[study][:2] for study in ("main", "base", "all")] == [["1", "1"], ["0", "1"], ["1", "2"]]
    record = results.record(tmp_path / "runs" / "vanilla-main-plain-0.json")
    assert said["main"][3] == said["all"][3] == f"{record['seconds'] + record['measuring']:,.0f}"


def test_no_run_starts_after_so_many_hours(small, monkeypatch, capsys):
    """One that began in time goes on to its end."""
    started, clock = [], iter((0, 3599, 3601, 3601))
    monkeypatch.setattr(making, "monotonic", lambda: next(clock))
    monkeypatch.setattr(making, "_work", lambda run, device: started.append(run.name))
    command(["--jobs", "1", "--hours", "1"])
    assert started == ["vanilla-main-plain-0"] and rows(capsys.readouterr().out)["all"][:2] == ["0", "2"]


def test_interrupted_it_goes_on_where_it_was(small, tmp_path, monkeypatch, capsys):
    """Stopped as Ctrl-C does in a process, then as it does in the command itself, and to the same numbers as without."""
    making._work(small[1])
    whole = results.record(tmp_path / "runs" / "poe-v2-base-plain-0.json")
    monkeypatch.setenv("MMVAE_BUILD", str(tmp_path / "another"))
    monkeypatch.setattr(results, "RUNS", tmp_path / "others")
    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="failed: poe-v2-base-plain-0; the same command"):
        tiny.stop_at(patch, 4)  # the print of the code asks for the first three
        command(["--study", "base"])
    assert "poe-v2-base-plain-0: KeyboardInterrupt" in capsys.readouterr().out and not results.RUNS.exists()
    assert tiny.names(small[1].folder)[-1] == "checkpoint-00000004.safetensors"
    with monkeypatch.context() as patch, pytest.raises(SystemExit) as stop:
        patch.setattr(making, "wait", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        patch.setattr(making, "_work", lambda run, device: None)
        command(["--study", "base"])
    assert stop.value.code == 130 and "interrupted; the same command goes on" in capsys.readouterr().err
    rate, asked = train.Settings.rate, []
    monkeypatch.setattr(train.Settings, "rate", lambda self, i: asked.append(i) or rate(self, i))
    command(["--study", "base"])
    assert 4 in asked and 3 not in asked
    [found], times = results.runs(study="base"), ("seconds", "measuring")
    assert {k: v for k, v in found.items() if k not in times} == {k: v for k, v in whole.items() if k not in times}


def test_an_interruption_ends_the_processes(monkeypatch):
    monkeypatch.setattr(making, "wait", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
    before, start = set(making.multiprocessing.active_children()), time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        making.side_by_side(time.sleep, {"long": 100}, 1)
    assert set(making.multiprocessing.active_children()) <= before and time.monotonic() - start < 60


def test_runs_are_chosen_by_study_model_and_seed(small, monkeypatch, capsys):
    small[:] = [Run("main", "plain", Recipe(model, seed=seed)) for seed in range(4) for model in ("mumo", "poe-v2")]
    small.append(Run("base", "plain", Recipe("mumo")))
    started = []
    monkeypatch.setattr(making, "_work", lambda run, device: started.append(run.name))
    command(["--jobs", "1", "--study", "main", "--models", "mumo", "--seeds", "0-1", "3"])
    assert started == [f"mumo-main-plain-{seed}" for seed in (0, 1, 3)]
    capsys.readouterr()
    for argv, said in ((["--study", "none"], "invalid choice: 'none'"), (["--seeds", "x"], 'found "x", expected a seed'),
                       (["--seeds", "9"], "found no run of the grid"), (["--jobs", "0"], "--jobs: found 0, expected a whole number from 1")):
        with pytest.raises(SystemExit):
            command(argv)
        assert said in capsys.readouterr().err


def test_what_other_code_measured_is_measured_again_and_not_trained(small, tmp_path, monkeypatch):
    making._work(small[1])
    first, path = making.finished(small[1]), tmp_path / "runs" / "poe-v2-base-plain-0.json"
    other = results.prints_of(first["measured"]) | {"heldout": {"total": [1.0]}}
    results.keep(tmp_path / "runs" / "measured" / "othercode.json", other)
    results.keep(path, first | {"measured": "othercode"})
    assert making.finished(small[1]) is None
    assert any("heldout: terms: found ['total']" in wrong for wrong in results.stale(
        lambda name: name in ("run poe-v2-base-plain", "measured heldout"))["run poe-v2-base-plain"])
    monkeypatch.setattr(train, "_read", lambda *a: pytest.fail("trained again"))
    making._work(small[1])
    again = making.finished(small[1])
    assert again | {"measuring": 0} == first | {"measuring": 0}


def test_what_is_of_another_recipe_or_other_data_or_damaged_is_not_done(small, tmp_path, capsys):
    making._work(small[1])
    first, path = making.finished(small[1]), tmp_path / "runs" / "poe-v2-base-plain-0.json"
    for change in ({"settings": first["settings"] | {"batch": 9}}, {"generator": 1}, {"people": 50}, {"measured": "nothing"}):
        results.keep(path, first | change)
        assert making.finished(small[1]) is None
    assert "nothing.json: found none" in capsys.readouterr().out
    path.write_text("<<<<<<< HEAD")
    assert making.finished(small[1]) is None
    assert f"{path}: found a damaged file" in capsys.readouterr().out
    (path.parent / f".{path.name}.123.tmp").write_text("of one that was killed")
    making._work(small[1])
    assert making.finished(small[1]) and len(list(path.parent.iterdir())) == 2


def test_what_other_code_trained_is_refused_with_the_numbers(small, monkeypatch):
    making._work(small[1])
    assert making.finished(small[1])
    kl = mmvae.Gaussian.kl
    monkeypatch.setattr(mmvae.Gaussian, "kl", lambda self, other=None: 1.01 * kl(self, other))
    prints._training.cache_clear()
    assert making.finished(small[1]) is None
    with pytest.raises(ValueError, match="holds a run of code that computed something else .*kl.* found .*, now"):
        making._work(small[1])
    prints._training.cache_clear()


def test_one_that_fails_is_named_and_stops_no_other(small, monkeypatch, capsys):
    fit = recipe.fit

    def failing(model, *args, **kwargs):
        if isinstance(model, mmvae.VanillaVAE):
            raise FloatingPointError("total is nan")
        return fit(model, *args, **kwargs)

    monkeypatch.setattr(recipe, "fit", failing)
    with pytest.raises(SystemExit, match="failed: vanilla-main-plain-0; the same command goes on"):
        command(["--jobs", "1"])
    assert "vanilla-main-plain-0: total is nan" in capsys.readouterr().out
    assert making.finished(small[1]) and not making.finished(small[0])


# ---------------------------------------------------------------- the published models


def test_the_published_models_are_measured_once_and_their_numbers_kept(small, tmp_path, monkeypatch):
    path = tmp_path / "published.json"
    monkeypatch.setattr(results, "FILE", path)
    monkeypatch.setattr(weights, "info", lambda name: {"settings": {"size": 16}, "sha256": "5" * 64})
    monkeypatch.setattr(weights, "load", lambda name: mmvae.MODELS[weights.RECIPES[name][0]](size=16))
    monkeypatch.setattr(weights, "RECIPES", {name: weights.RECIPES[name] for name in ("vanilla", "poe-v2")})
    command(["--published", "--jobs", "1"])
    shown = results.published()
    assert list(shown) == list(weights.RECIPES) and {of["sha256"] for of in shown.values()} == {"5" * 64}
    about = {"sha256", "measured"}
    assert all(set(of) - about == {"likelihood", "experts", "cross", "coherence", "prior"} for of in shown.values())
    assert set(results.prints_of(shown["vanilla"]["measured"])) == set(measure.MEASURES)
    assert shown["vanilla"]["prior"].keys() == {f"{kind}{m}" for kind in ("", "seen.", "floor.") for m in "IT"}

    monkeypatch.setattr(making, "published", lambda *a: pytest.fail("measured again"))
    text = path.read_text()
    command(["--published", "--jobs", "1"])
    assert path.read_text() == text
    monkeypatch.setattr(weights, "info", lambda name: {"settings": {"size": 16}, "sha256": "6" * 64})
    monkeypatch.setattr(making, "published", lambda *a: 1 / 0)
    with pytest.raises(SystemExit, match="failed: vanilla, poe-v2"):
        command(["--published", "--jobs", "1"])
    assert path.read_text() == text


# ---------------------------------------------------------------- processes


def _worker(ends):
    """Stands for the command: starts a worker that says its name and sleeps."""
    if os.fork() == 0:
        making.begin()
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
