"""What a chapter reads of runs and of published models (any such files); the committed ones: every file in published/runs is of
the grid, and published.json of all published models."""
import json
import math

import numpy as np
import pytest

import mmvae
from mmvae.experiment import grid, results, weights
from mmvae.experiment.results import spread

# ---------------------------------------------------------------- reading

def record(model, seed, elevation):
    scores = {f"I+T.{b}.{f}.knn": float(f == {"I": "elevation", "T": "light", "S": "azimuth"}[b])
              for b in "IST" for f in ("elevation", "light", "azimuth")}
    return dict(study="main", variant="plain", model=model, seed=seed, identities=50, heldout={"I+T.elbo": -100.0 - seed},
                probes=scores | {"I+T.S.elevation.knn": elevation})


@pytest.fixture
def written():
    """Three runs."""
    return [record("mumo", 0, 0.1), record("mumo", 1, 0.5), record("poe-v2", 0, 0.2)]


def test_values_are_one_number_a_run(written):
    assert results.values(written, "heldout", "I+T.elbo").tolist() == [-100, -101, -100]
    assert results.values(written, "seed").dtype == np.float64
    with pytest.raises(KeyError):
        results.values(written, "heldout", "I+T.elbow")


def test_runs_that_found_the_partition_are_counted(written):
    assert results.found(written) == 2 and results.found(written[1:2]) == 0


@pytest.mark.parametrize("numbers, digits, text", [
    ([0.93, 0.95, 0.97], 2, "0.95 ± 0.02"), ([0.5], 2, "0.50"), ([-1234.5, -1230.5], 1, "−1,232.5 ± 2.8"),
    (np.array([1e6, 1e6]), 0, "1,000,000 ± 0"), ([-3.0], 0, "−3")])
def test_spread_is_the_mean_and_the_deviation_of_the_sample(numbers, digits, text):
    assert spread(numbers, digits) == text


def test_six_digits_are_kept_of_every_number():
    value = {"a": [1 / 3, {"b": -123456.789}], "c": 12345678, "d": "text", "e": None, "g": 1e-12 / 3}
    short = {"a": [0.333333, {"b": -123457.0}], "c": 12345678, "d": "text", "e": None, "g": 3.33333e-13}
    assert results._rounded(value) == short


def test_a_missing_or_damaged_file_of_the_published_models_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FILE", tmp_path / "published.json")
    with pytest.raises(FileNotFoundError, match="published.json: no such file; `python -m .* results --published` measures"):
        results.published()
    for content, problem in (("{", "Expecting property name"), ("[]", "digest missing"), (sealed({}), "vanilla.* missing"),
                             (sealed(dict.fromkeys(weights.RECIPES, 3)), "expected .*"), (sealed({})[:-3] + '0"}', "digest")):
        results.FILE.write_text(content)
        with pytest.raises(ValueError, match=rf"published.json: found a damaged file \(.*{problem}.*results --published"):
            results.published()


WHOLE = results.RUNS / "mumo-main-plain-0.json"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Three runs, a file each."""
    monkeypatch.setattr(results, "RUNS", tmp_path)
    plain = {k: v for k, v in json.loads(WHOLE.read_text()).items() if k != "digest"}
    for study, model, seed in (("main", "mumo", 10), ("main", "mumo", 9), ("base", "poe-v2", 0)):
        results.keep(tmp_path / f"{model}-{study}-plain-{seed}.json", plain | dict(study=study, model=model, seed=seed))
    return tmp_path


def sealed(record: dict) -> str:
    return json.dumps(record | {"digest": weights.digest_of(record)})


def test_runs_are_selected_from_their_folder(folder):
    assert [(run["study"], run["seed"]) for run in results.runs()] == [("base", 0), ("main", 9), ("main", 10)]
    assert [run["seed"] for run in results.runs(study="main", model="mumo")] == [9, 10]
    first = results.runs()
    assert all(a is b for a, b in zip(results.runs(), first))  # read once
    results.keep(folder / "mumo-main-plain-11.json", first[1] | {"seed": 11})
    assert len(results.runs(study="main")) == 3
    with pytest.raises(ValueError, match="runs: found none with {'model': 'gan'} in .*`make results`"):
        results.runs(model="gan")


@pytest.mark.parametrize("content, problem", [
    ("{", "Expecting property name"), ("[]", "digest missing"), (sealed({}), "study, variant, .* missing"),
    (sealed(json.loads(WHOLE.read_text()) | {"settings": {"sise": 3}}), "sise")])
def test_a_damaged_run_is_named(folder, content, problem):
    (folder / "mumo-main-plain-9.json").write_text(content)
    with pytest.raises(ValueError, match=rf"mumo-main-plain-9.json: found a damaged file \(.*{problem}.*make results"):
        results.runs()


def test_prints_are_kept_once_for_all_that_agree(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "RUNS", tmp_path)
    now = {"heldout": {"total": [100.0, 2.0]}, "mig": {"mean": [0.5]}}
    name = results.keep_prints(now)
    assert results.prints_of(name) == now
    assert results.keep_prints(now | {"mig": {"mean": [0.50001]}}) == name  # as another machine has it
    assert len({name, results.keep_prints(now | {"mig": {"mean": [0.6]}}), results.keep_prints({"mig": now["mig"]})}) == 3
    (tmp_path / "measured" / "spoilt.json").write_text("[1]")
    for wrong in ("spoilt", "absent"):
        with pytest.raises(ValueError, match=f"{wrong}.json: found none, or a damaged file"):
            results.prints_of(wrong)


# ---------------------------------------------------------------- the committed files

FILES = sorted(results.RUNS.glob("*.json"))


@pytest.fixture(scope="module")
def committed():
    """The runs."""
    return [results.record(path) for path in FILES]


def test_all_that_is_stored_is_what_the_code_computes():
    """The runs, and how they were measured; the published models': tests/test_weights.py."""
    assert results.stale(lambda name: not name.startswith("published")) == {}


def numbers_in(value, path=""):
    """(path, number) of everything that is one."""
    if isinstance(value, dict | list):
        for k, v in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers_in(v, f"{path}/{k}")
    elif isinstance(value, int | float):
        yield path, value


def test_the_numbers_of_the_published_models_are_whole_and_of_their_weights():
    shown = results.published()
    assert list(shown) == list(weights.RECIPES)
    for name, of in shown.items():
        assert {"likelihood", "experts", "cross", "coherence", "prior", "measured"} <= set(of), name
        assert of["sha256"] == weights.info(name)["sha256"], f"{name}: {results.PUBLISHED}"
    assert not [path for path, number in numbers_in(shown) if not math.isfinite(number)]


def test_shares_are_between_0_and_1(committed):
    shares = ("/probes", "/verification/", "/mig/", "/dci/", "identity")
    for path, number in numbers_in([*committed, *results.published().values()]):
        if any(part in path for part in shares) and "/settings/" not in path:
            assert 0 <= number <= 1 + 1e-6, path


def test_a_likelihood_grows_with_its_draws(committed):
    """Of one draw it is the ELBO, here of fewer pairs and with the KL by those draws."""
    elbos = [(of["likelihood"], weights.info(name)["shown"]) for name, of in results.published().items()]
    for found, record in elbos + [(r["likelihood"], r) for r in committed if "likelihood" in r]:
        for s in set(found) - {"n"}:
            assert list(found[s].values()) == sorted(found[s].values())
        assert found["I+T"]["1"] == pytest.approx(record["heldout"]["I+T.elbo"], rel=0.05)


def test_reevaluating_the_published_weights_stays_within_tolerance(unseen):
    """What needs no training head, of one model; the same pairs and noise, so that it moves with CPUs and versions alone.

    Of all models the held-out terms: tests/test_weights.py.
    """
    wanted, found = results.published()["poe-v2"], grid.published(mmvae.load("poe-v2"), (None, unseen), None)
    assert found["likelihood"]["n"] == wanted["likelihood"]["n"]
    for s in ("I", "T", "I+T"):
        assert found["likelihood"][s] == pytest.approx(wanted["likelihood"][s], abs=weights.TOLERANCE), s
    for k, value in found["experts"].items():
        assert value == pytest.approx(wanted["experts"][k], rel=0.02), k


def test_every_file_is_a_run_of_the_grid():
    """Of at most 12 kB; not all of them are there yet."""
    runs = {run.name: run for run in grid.grid()}
    assert [path.name for path in FILES if path.stem not in runs] == []
    for path in FILES:
        record, run = results.record(path), runs[path.stem]
        assert {k: record[k] for k in run.about} == run.about, path
        assert not [where for where, number in numbers_in(record) if not math.isfinite(number)], path
        people = 0 if run.study == "likelihood" else grid.HELD_OUT  # there is a floor for a Bernoulli alone
        assert path.stat().st_size <= 12_000 and len(record["above_floor"].get("unseen", ())) == people, path
        assert record["data"] != record["test_data"] and record["machine"]["threads"] == 1, path
        long = {"likelihood", "coherence"} & set(record)
        assert len(long) == (2 if run.study in grid.THOROUGH else 0), path
        assert "sorted" in record or run.study not in grid.THOROUGH, path
    used = {record["measured"] for record in [*map(results.record, FILES), *results.published().values()]}
    assert {path.stem for path in results.RUNS.glob("measured/*.json")} == used


def test_the_package_as_built_has_the_runs():
    """tests/test_weights.py builds it: here what it is told to take."""
    asked = (results.weights.FOLDER.parents[2] / "pyproject.toml").read_text()
    assert '"published/runs/*.json"' in asked and '"published/runs/measured/*.json"' in asked
