"""published/results.json: what a chapter reads of it (any such file), and that the committed one is whole and repeatable."""
import json
import math
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest
import torch

import mmvae
from mmvae import evaluate, likelihood, results, synthesis, weights
from mmvae.results import spread

# ---------------------------------------------------------------- reading

HEADS = dict(published={}, versions={}, machine={}, size=32, reader={}, real_distance=1.0)


def record(model, seed, elevation):
    scores = {f"IT.{b}.{f}.knn": float(f == {"I": "elevation", "T": "light", "S": "azimuth"}[b])
              for b in "IST" for f in ("elevation", "light", "azimuth")}
    return dict(study="main", variant="plain", model=model, seed=seed, identities=50, heldout={"IT.elbo": -100.0 - seed},
                probes=scores | {"IT.S.elevation.knn": elevation})


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
    assert results.values(written, "heldout", "IT.elbo").tolist() == [-100, -101, -100]
    assert results.values(written, "seed").dtype == np.float64
    with pytest.raises(KeyError):
        results.values(written, "heldout", "IT.elbow")


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
    wanted = {(r.study, r.variant, r.settings.model, r.settings.seed, r.identities): asdict(r.settings)
              for r in results.grid()}
    assert len(committed["runs"]) == len(found) and found == wanted and committed["size"] == results.SIZE


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
    assert set(committed["published"]) == set(mmvae.MODELS)
    long = {"likelihood", "probes_of_samples", "verification", "effects", "mig", "dci", "cross", "coherence", "experts"}
    for of in (*committed["published"].values(), *(r for r in committed["runs"] if r["study"] == "main")):
        assert long <= set(of)


def test_its_shares_are_between_0_and_1(committed):
    shares = ("/probes", "/verification/", "/mig/", "/dci/", "identity")
    for path, number in numbers_in(committed["runs"]):
        if any(part in path for part in shares) and "/settings/" not in path and "/identities" not in path:
            assert 0 <= number <= 1 + 1e-6, path


def test_a_likelihood_grows_with_its_draws(committed):
    """Of one draw it is the ELBO, here of fewer pairs and with the KL by those draws."""
    for of in (*committed["published"].values(), *(r for r in committed["runs"] if r["study"] == "main")):
        for s in ("I", "T", "IT"):
            if s in of["likelihood"]:
                values = [of["likelihood"][s][k] for k in ("1", "10", "100", "1000")]
                assert values == sorted(values)
        assert of["likelihood"]["IT"]["1"] == pytest.approx(of["heldout"]["IT.elbo"], rel=0.05)


def test_reevaluating_the_published_weights_stays_within_tolerance(committed, unseen):
    """What needs no training head. The terms and the experts are of the same pairs and noise: they move with CPUs and
    versions alone. The likelihood is of the same pairs, from 20 draws for 1000: where K = 1 and 10 are six to eight nats
    apart, each is within one.
    """
    published, model = committed["published"]["poe-v2"], mmvae.load("poe-v2")
    heldout = likelihood.heldout(model, unseen, 1.0, published["n"])
    assert heldout == pytest.approx(published["heldout"], abs=weights.TOLERANCE)
    for k, value in synthesis.experts(model, unseen, published["n"]).items():
        assert value == pytest.approx(published["experts"][k], rel=0.02), k
    x, _ = unseen.sample(published["likelihood"]["n"], torch.Generator().manual_seed(1))
    assert len(x["I"]) == evaluate.LIKELIHOOD_PAIRS
    for s in ("I", "T", "IT"):
        found = likelihood.log_likelihood(model, {m: x[m] for m in s}, (1, 10, 20))
        for k in (1, 10):
            assert found[k].mean().item() == pytest.approx(published["likelihood"][s][str(k)], abs=1.0), (s, k)
