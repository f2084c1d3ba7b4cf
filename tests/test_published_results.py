"""published/results.json: what a chapter reads of it (any such file); the committed one is whole and repeatable."""
import json
import math
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest

import mmvae
from mmvae.experiment import grid, results, weights
from mmvae.experiment.results import spread

# ---------------------------------------------------------------- reading

HEADS = dict(published={}, behaviour={}, versions={}, machine={}, size=32, reader={}, real_distance=1.0)


def record(model, seed, elevation):
    scores = {f"I+T.{b}.{f}.knn": float(f == {"I": "elevation", "T": "light", "S": "azimuth"}[b])
              for b in "IST" for f in ("elevation", "light", "azimuth")}
    return dict(study="main", variant="plain", model=model, seed=seed, identities=50, heldout={"I+T.elbo": -100.0 - seed},
                probes=scores | {"I+T.S.elevation.knn": elevation})


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Three runs in a file that `select` reads."""
    runs = [record("mumo", 0, 0.1), record("mumo", 1, 0.5), record("poe-v2", 0, 0.2)]
    path = tmp_path / "results.json"
    path.write_text(json.dumps(HEADS | {"runs": runs}))
    read = results.read
    monkeypatch.setattr(results, "read", lambda: read(path))
    return runs


def test_runs_are_selected_by_what_their_record_says(written):
    assert results.select(study="main") == written and results.select(model="mumo", seed=1) == written[1:2]
    with pytest.raises(ValueError, match="runs: found none with {'model': 'gan'} in results.json"):
        results.select(model="gan")


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
    assert grid._rounded(value) == short


def test_a_missing_or_damaged_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.json: no such file; `make results`"):
        results.read(tmp_path / "none.json")
    damage = {"{": "Expecting property name", json.dumps(HEADS): "runs missing", "[]": "missing",
              '{"runs": []}': "machine, published, reader, real_distance, size, versions missing"}
    for k, (content, problem) in enumerate(damage.items()):
        path = tmp_path / f"{k}.json"
        path.write_text(content)
        with pytest.raises(ValueError, match=rf"{k}.json: found a damaged file \(.*{problem}.*expected what `make results`"):
            results.read(path)


# ---------------------------------------------------------------- the committed file


@pytest.fixture(scope="module")
def committed():
    return results.read()


def test_it_holds_every_run_of_the_grid_with_its_settings(committed):
    found = {tuple(r[k] for k in ("study", "variant", "model", "seed", "identities")): r["settings"]
             for r in committed["runs"]}
    wanted = {(r.study, r.variant, r.recipe.model, r.recipe.seed, r.identities): asdict(r.recipe)
              for r in grid.grid()}
    assert len(committed["runs"]) == len(found) and found == wanted and committed["size"] == grid.SIZE


def test_its_main_table_has_five_seeds_of_six_models(committed):
    main = Counter((r["model"], r["seed"]) for r in committed["runs"] if r["study"] == "main")
    assert main == Counter((model, seed) for model in mmvae.MODELS for seed in range(5))
    assert len({r["data"] for r in committed["runs"]}) == 2  # fifty people, or ten of them
    assert {r["data"] for r in committed["runs"] if r["identities"] == 50} != {committed["test_data"]}


def numbers_in(value, path=""):
    """(path, number) of everything that is one."""
    if isinstance(value, dict | list):
        for k, v in value.items() if isinstance(value, dict) else enumerate(value):
            yield from numbers_in(v, f"{path}/{k}")
    elif isinstance(value, int | float):
        yield path, value


def test_all_its_numbers_are_finite_and_its_versions_recorded(committed):
    assert not [path for path, number in numbers_in(committed) if not math.isfinite(number)]
    assert {"python", "torch", "numpy", "device"} <= set(committed["versions"]) and committed["machine"]["threads"] == 1
    assert set(committed["published"]) == set(weights.RECIPES)
    long = {"likelihood", "probes_of_samples", "verification", "effects", "mig", "dci", "cross", "coherence", "experts",
            "sorted"}
    assert all(long <= set(r) for r in committed["runs"] if r["study"] == "main")
    assert all({"likelihood", "experts", "cross", "coherence"} == set(of) for of in committed["published"].values())


def test_its_shares_are_between_0_and_1(committed):
    shares = ("/probes", "/verification/", "/mig/", "/dci/", "identity")
    for path, number in numbers_in(committed["runs"]):
        if any(part in path for part in shares) and "/settings/" not in path and "/identities" not in path:
            assert 0 <= number <= 1 + 1e-6, path


def test_a_likelihood_grows_with_its_draws(committed):
    """Of one draw it is the ELBO, here of fewer pairs and with the KL by those draws."""
    elbos = [(of["likelihood"], weights.info(name)) for name, of in committed["published"].items()]
    for found, record in elbos + [(r["likelihood"], r) for r in committed["runs"] if r["study"] == "main"]:
        for s in set(found) - {"n"}:
            assert list(found[s].values()) == sorted(found[s].values())
        assert found["I+T"]["1"] == pytest.approx(record["heldout"]["I+T.elbo"], rel=0.05)


def test_reevaluating_the_published_weights_stays_within_tolerance(committed, unseen):
    """What needs no training head, of one model; the same pairs and noise, so that it moves with CPUs and versions alone.

    Of all models the held-out terms: tests/test_weights.py.
    """
    wanted, found = committed["published"]["poe-v2"], grid.published(mmvae.load("poe-v2"), (None, unseen), None)
    assert found["likelihood"]["n"] == wanted["likelihood"]["n"]
    for s in ("I", "T", "I+T"):
        assert found["likelihood"][s] == pytest.approx(wanted["likelihood"][s], abs=weights.TOLERANCE), s
    for k, value in found["experts"].items():
        assert value == pytest.approx(wanted["experts"][k], rel=0.02), k
