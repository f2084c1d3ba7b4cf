"""experiment/measure.py: every row of the table in one record, a judge that is trained once, and the command."""
import json
import math
from functools import partial

import pytest
import torch

import mmvae
import planted
from mmvae import evaluate
from mmvae.experiment import measure, prints
from mmvae.experiment.__main__ import evaluate as evaluate_runs
from mmvae.experiment.recipe import Recipe
from mmvae.faces import FACTORS, Pairs
from mmvae.faces import judge as judging
from mmvae.train import fit, load_run

SHORT = {"n", "heldout", "probes", "parameters"}
LONG = SHORT | {"likelihood", "probes_of_samples", "verification", "effects", "mig", "dci", "cross", "coherence",
                "experts", "sorted"}


@pytest.fixture(scope="module")
def splits():
    return planted.splits()


@pytest.fixture(scope="module")
def by_hand(splits):
    return judging.Judge(dict(zip(("train", "test"), splits)), planted.Reader(), {})


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "faces.h5"
    mmvae.faces.write(path, identities=2, test_identities=2, size=16, progress=False)
    return path


def train_run(model, pairs, folder, **changes):
    recipe = Recipe(model, size=16, batch=8, **changes)
    return fit(recipe.build(), pairs, folder, recipe.training, recipe=recipe.record(), progress=False)


def finite(value):
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return math.isfinite(value) if parts is None else all(map(finite, parts))


@pytest.mark.parametrize("name", ["vanilla", "mumo", "wg-v1"])
def test_everything_is_what_each_measurement_says(name, splits, by_hand):
    torch.manual_seed(0)
    model, (train, test) = mmvae.MODELS[name](size=16), splits
    state = torch.get_rng_state()
    found = measure.everything(model, train, test, 16.0, by_hand, n=64, progress=False)
    assert torch.equal(state, torch.get_rng_state())
    assert set(found) == LONG and finite(found) and json.loads(json.dumps(found)) == found
    assert {k: found[k] for k in SHORT} == measure.numbers(model, train, test, 16.0, 64)
    assert found["heldout"] == evaluate.heldout(model, test, 16.0, 64)
    assert found["parameters"] == sum(p.numel() for p in model.parameters())
    assert found["probes"] == evaluate.probes(model, train, test, 64) != found["probes_of_samples"]
    assert found["verification"] == evaluate.verification(model, train, test, "identity", 64)
    assert found["effects"] == evaluate.effects(model, test, test.fixed(8)[0], ("identity", "azimuth"))
    assert found["mig"] == evaluate.mig(model, test, 256, average=FACTORS[1:])
    assert found["dci"] == evaluate.dci(model, train, test, 256)
    assert found["cross"] == judging.cross_modal(model, by_hand, 8)
    assert found["coherence"] == judging.joint_coherence(model, by_hand, 16)
    assert found["sorted"] == measure.by_role(model, train, test, 64) and (found["sorted"] != {}) == (name == "wg-v1")
    assert found["experts"] == evaluate.experts(model, test, 64) and (found["experts"] == {}) == (name == "vanilla")


def test_the_likelihood_is_of_each_subset_and_grows_with_the_draws(splits, by_hand, monkeypatch):
    """The cheap measurements aside: the same pairs for every subset, a quarter of n of them."""
    aside = {evaluate: ("probes", "verification", "effects", "mig", "dci"), judging: ("cross_modal", "joint_coherence")}
    for module, name in ((module, name) for module, names in aside.items() for name in names):
        monkeypatch.setattr(module, name, lambda *a, **k: {})
    torch.manual_seed(0)
    model = mmvae.MODELS["poe-v2"](size=16)
    found = measure.everything(model, *splits, 4.0, by_hand, n=12, progress=False)["likelihood"]
    assert found.pop("n") == 3 and set(found) == {"I", "T", "I+T"}
    x, _ = splits[1].sample(3, torch.Generator().manual_seed(1))
    for s, values in found.items():
        assert list(values) == ["1", "10", "100", "1000"] and sorted(values.values()) == list(values.values())
        again = evaluate.log_likelihoods(model, {m: x[m] for m in s.split("+")}, (10, 1000), weight=4.0)
        assert {k: values[str(k)] for k in again} == pytest.approx({k: v.mean().item() for k, v in again.items()})
    most = measure.everything(model, *splits, 4.0, by_hand, n=1, progress=False)["likelihood"]
    assert most["n"] == 1


# ---------------------------------------------------------------- the judge


def test_a_judge_is_trained_once(faces, tmp_path, monkeypatch):
    """On the images of both splits and, if asked, on heads rendered freely; found again under a hash of the data."""
    train, test = Pairs(faces), Pairs(faces, "test")
    trained, learn, said = [], judging.read_out, prints.reading()
    monkeypatch.setattr(prints, "reading", lambda: said)  # it trains a read-out too

    def spy(images, factors, iterations, **options):
        trained.append((len(images), {k: len(v) for k, v in factors.items()}, factors["identity"].unique().tolist()))
        return learn(images, factors, iterations, **options)

    monkeypatch.setattr(judging, "read_out", spy)
    first = measure.judge(train, test, tmp_path, free=False, iterations=3, progress=False)
    grid = 4 * 21 * 22  # four people, 21 azimuths, 11 elevations and 11 lights
    assert trained == [(grid, dict.fromkeys(FACTORS, grid), [0, 1, 2, 3])] and set(first.errors) == set(FACTORS)
    again = measure.judge(train, test, tmp_path, free=False, iterations=3, progress=False)
    assert len(trained) == 1 and first.errors == again.errors and first.reader.scale == again.reader.scale
    assert all(torch.equal(a, b) for a, b in zip(first.reader.parameters(), again.reader.parameters()))
    assert again.people.tolist() == [1_000_000, 1_000_001] and again.unseen == slice(2, 4) and not again.reader.training
    measure.judge(train, test, tmp_path, free=True, iterations=3, progress=False)
    assert trained[1] == (grid + 480, dict.fromkeys(FACTORS, grid + 480), [0, 1, 2, 3])  # 40 poses, 3 lamps, 4 people
    measure.judge(train, test, tmp_path, free=False, iterations=4, progress=False)
    other = Pairs(planted.grid())
    measure.judge(other, planted.splits()[1], tmp_path, free=False, iterations=3, progress=False)
    assert len(trained) == 4 and len(list(tmp_path.glob("read-out-16-*.safetensors"))) == 4
    monkeypatch.setattr(prints, "reading", lambda: {k: [2 * v for v in values] for k, values in said.items()})
    measure.judge(train, test, tmp_path, free=False, iterations=3, progress=False)  # of code that computes something else
    assert len(trained) == 5 and len(list(tmp_path.glob("read-out-16-*.safetensors"))) == 4


# ---------------------------------------------------------------- a run


@pytest.mark.parametrize("name", ["vanilla", "wg-v1"])
def test_measure_writes_a_record_with_everything_a_number_depends_on(name, splits, by_hand, tmp_path):
    train, test = splits
    train_run(name, train, tmp_path, iterations=5)
    record = measure.measure(tmp_path, train, test, n=64)
    assert json.loads((tmp_path / "metrics.json").read_text()) == record
    about = {"settings", "data", "versions", "machine", "behaviour"}
    assert set(record) == SHORT | about and record["data"] == train.fingerprint
    model = load_run(tmp_path, mmvae.MODELS[name](size=16))
    assert record["heldout"] == evaluate.heldout(model, test, 16.0, 64)  # weighted as in training
    record = measure.measure(tmp_path, train, test, 64, by_hand)
    assert set(record) == LONG | about and json.loads((tmp_path / "metrics.json").read_text()) == record
    with pytest.raises(ValueError, match="trained on data .* asked to measure on"):
        measure.measure(tmp_path, test, train, n=64)


@pytest.fixture
def command(faces, tmp_path, monkeypatch):
    """Two runs, a build folder of their own, and a judge that has hardly been trained."""
    monkeypatch.setenv("MMVAE_BUILD", str(tmp_path / "build"))
    monkeypatch.setattr(measure, "judge", partial(measure.judge, iterations=3))
    runs = [str(tmp_path / name) for name in ("mumo", "vanilla")]
    for run in runs:
        train_run(run.rsplit("/", 1)[1], Pairs(faces), run, iterations=3)
    out = tmp_path / "out.json"
    return runs, ["--data", str(faces), "--out", str(out), "--pairs", "32"], out


def test_the_command_prints_what_it_writes(command, capsys):
    runs, options, out = command
    evaluate_runs([*runs, *options])
    found, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert list(found) == runs and all(LONG < set(record) and record["n"] == 32 for record in found.values())
    for run in runs:
        assert found[run] == json.loads(open(f"{run}/metrics.json").read())
        assert f"{run}: ELBO of {{I,T}}, held out: {found[run]['heldout']['I+T.elbo']:.1f} nats per pair" in printed
    shown = [line.split() for line in printed.splitlines() if line.startswith("  ")]
    assert [name for name, _ in shown] == [f"I+T.{b}.{f}.knn" for b in "ISTZ" for f in FACTORS]
    assert shown[0][1] == f"{found[runs[0]]['probes']['I+T.I.identity.knn']:.2f}"


def test_the_command_keeps_what_it_has_when_a_run_cannot_be_measured(command, capsys):
    """Here one on other data; a folder without a run is named before anything is measured."""
    runs, options, out = command
    other = f"{runs[1]}-other"
    train_run("vanilla", planted.splits()[0], other, iterations=3)
    for bad, message in ((other, "trained on data"), (f"{runs[1]}-none", "no settings.json")):
        with pytest.raises(SystemExit) as stop:
            evaluate_runs([runs[0], bad, *options])
        error = [line for line in capsys.readouterr().err.splitlines() if message in line]
        assert stop.value.code == 1 and len(error) == 1 and bad in error[0]
    assert list(json.loads(out.read_text())) == runs[:1]


def test_a_missing_data_file_is_named(command, capsys):
    runs, options, _ = command
    with pytest.raises(SystemExit):
        evaluate_runs([*runs, "--data", "nowhere.h5"])
    assert "nowhere.h5: no such file" in capsys.readouterr().err
