"""Five views of a digit: the data, one run of ours from end to end, the report by hand. multivae's side needs its own
environment; here the loss of ours is compared with the lines of theirs, written out."""
import json
import sys
from itertools import combinations
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "benchmarks"))
import five_views  # noqa: E402
import five_views_data as data  # noqa: E402
import five_views_report as tables  # noqa: E402
import report  # noqa: E402


@pytest.fixture(scope="module")
def rows():
    return data.made("train", 40), data.made("test", 20)


@pytest.fixture
def archive(tmp_path):
    """A folder as the published archive has it: MMNIST/train/m0/INDEX.LABEL.png and so on, 20 and 10 rows."""
    rng = np.random.default_rng(0)
    for split, n in (("train", 20), ("test", 10)):
        for m in data.VIEWS:
            folder = tmp_path / "MMNIST" / split / m
            folder.mkdir(parents=True)
            for k in range(n):
                matplotlib.image.imsave(folder / f"{k // 10}.{k % 10}.png", rng.integers(0, 256, (28, 28, 3), dtype=np.uint8))
    return tmp_path


# the data


def test_no_example_that_tests_has_trained_and_each_view_has_its_own():
    used = {}
    for split in ("train", "test"):
        chosen, labels = data.pairing(split, 200, np.random.default_rng(0))
        numbers, digit = data.examples(split)
        of = dict(zip(numbers, digit))
        assert all(of[k] == d for row, d in zip(chosen, labels) for k in row)
        assert all(len(set(row)) == len(data.VIEWS) for row in chosen)
        assert set(np.bincount(labels)) == {20}
        used[split] = set(chosen.flatten())
    assert not used["train"] & used["test"]


def test_rows_are_pictures_of_the_digit_and_the_seed_is_all_they_depend_on(rows):
    train, test = rows
    assert {tuple(v.shape) for v in train.x.values()} == {(40, 3, 28, 28)} and tuple(train.x) == data.VIEWS
    assert train.fingerprint == data.made("train", 40).fingerprint != data.made("train", 40, seed=1).fingerprint
    x, factors = train[:3]
    assert set(factors) == {"digit"} and 0 <= x["m0"].min() and x["m0"].max() <= 1
    with pytest.raises(ValueError, match='split: found \'dev\', expected "train" or "test"'):
        data.made("dev")


def test_a_digit_is_the_texture_inverted_and_stands_out_of_every_texture():
    rng, ink = np.random.default_rng(0), np.zeros((50, 8, 8))
    ink[:, 2:6, 2:6] = 1
    for m in data.VIEWS:
        texture = data.textures(m, 50, rng)
        picture = data.written(ink, texture, rng) / 255
        assert np.abs(picture[..., :4] - texture[..., :4]).max() < 0.02
        assert np.abs(picture[..., 14, 14] - (1 - texture[..., 14, 14])).max() < 0.02
        contrast = np.abs(1 - 2 * texture).max(1)  # of the colour that tells it best
        assert np.quantile(contrast, 0.02) > 0.25, m
        assert texture.std((2, 3)).mean() > 0.02 and texture.mean((1, 2, 3)).std() > 0.01, m


def test_the_sheet_has_a_row_of_pictures_for_each_view(rows, tmp_path):
    data.sheet(rows[0], tmp_path / "sheet.png", columns=4)
    assert matplotlib.image.imread(tmp_path / "sheet.png").shape[:2] == (3 * 5 * 28, 3 * 4 * 28)


# PolyMNIST's own folder


def test_the_published_folder_is_read(archive):
    train, test = (data.polymnist(archive, split) for split in ("train", "test"))
    assert len(train) == 20 and len(test) == 10 and test.factors["digit"].tolist() == list(range(10))
    picture = matplotlib.image.imread(archive / "MMNIST/train/m3/1.7.png")[..., :3]
    row = sorted(path.name for path in (archive / "MMNIST/train/m3").iterdir()).index("1.7.png")
    np.testing.assert_array_equal(train.x["m3"][row].permute(1, 2, 0).numpy(), np.round(255 * picture))
    assert len(data.polymnist(archive / "MMNIST", "test")) == 10  # the folder that holds train and test itself


def test_a_wrong_or_incomplete_folder_is_refused_in_a_sentence(archive, tmp_path, capsys):
    place = archive / "MMNIST" / "train"

    def refused(message):
        with pytest.raises(ValueError, match=message):
            data.polymnist(archive, "train")

    with pytest.raises(ValueError, match="found no folder train in .*, expected train and test, with m0 to m4 in each"):
        data.polymnist(tmp_path / "nothing", "train")
    (place / "m2" / "0.4.png").rename(place / "m2" / "four.png")
    refused("found 20 pictures in .*m0, expected 21, among them four.png")
    for m in data.VIEWS:
        (place / m / ("four.png" if m == "m2" else "0.4.png")).rename(place / m / "four.4.png")
    refused("found four.4.png in .*m0, expected INDEX.LABEL.png, such as 12.3.png")
    for m in data.VIEWS:
        (place / m / "four.4.png").rename(place / m / "0.4.png")
    matplotlib.image.imsave(place / "m4" / "0.4.png", np.zeros((32, 28, 3)))
    refused(r"found .*0.4.png of shape \(32, 28, 4\), expected \(28, 28, 3\)")
    (place / "m4" / "0.4.png").unlink()
    refused("found 19 pictures in .*m4, expected 20, among them 0.4.png, which another view has")
    with pytest.raises(SystemExit):
        five_views.main(["--polymnist", str(archive), "--ours", "--out", str(tmp_path / "out")])
    assert capsys.readouterr().err.startswith("--polymnist: found 19 pictures")
    for m in data.VIEWS:
        for path in (place / m).iterdir():
            path.unlink()
    refused("found no INDEX.LABEL.png in .*m0")


# a run


@pytest.fixture
def small(monkeypatch, rows):
    monkeypatch.setattr(data, "made", lambda split: rows[split == "test"])
    keep = five_views.readers
    monkeypatch.setattr(five_views, "readers", lambda train, test, build: keep(train, test, build, iterations=2))


def test_every_model_of_five_views_has_a_finite_loss_and_the_same_size(rows):
    x = rows[0].batch(torch.arange(2))[0]
    for name, build in five_views.MODELS.items():
        model = build()
        assert model.loss(x)["total"].isfinite(), name
        assert sum(model.blocks.values()) == 64, name


def test_a_run_leaves_a_record_and_is_not_run_again(small, tmp_path, monkeypatch, capsys):
    given = ["--ours", "--models", "mvtcae", "--seeds", "0", "--steps", "2", "--minutes", "0.1", "--rows", "20", "--draws",
             "4", "--out", str(tmp_path), "--build", str(tmp_path / "build")]
    five_views.main(given)
    record = json.loads((tmp_path / "mvtcae-ours-0.json").read_text())
    assert record["steps"] == 2 and record["seconds"] > 0 and record["rows_per_second"] > 0
    assert set(record["coherence"]) == {"1", "2", "3", "4", "prior"}
    assert all(0 <= share <= 1 for share in record["coherence"].values()) and 0 <= record["accuracy"] <= 1
    assert record["frechet"]["prior"] > 0 and record["frechet"]["training pictures"] > 0
    assert record["log_likelihood"]["mean"] < 0 and 0.99 < record["log_likelihood"]["ess"] <= 4
    assert "| MVTCAE | ours | 1 | 2 |" in capsys.readouterr().out
    monkeypatch.setattr(five_views, "run", None)  # what is finished is not run again
    five_views.main(given)
    assert "| MVTCAE | ours | 1 | 2 |" in capsys.readouterr().out
    monkeypatch.setattr(five_views, "steps_in", None)  # and another seed takes its steps
    args = five_views.arguments(["--out", str(tmp_path)])[1]
    assert five_views.steps_of("mvtcae", args, tmp_path, None) == 2
    with pytest.raises(SystemExit) as stopped:
        five_views.main([*given, "--rows", "10"])
    assert stopped.value.code == 1
    assert capsys.readouterr().err.startswith("mvtcae-ours-0.json: found a run of 2 steps with {'minutes': 0.1, 'rows': 20")


def test_several_jobs_are_this_command_with_one_run_each(small, tmp_path, monkeypatch):
    ran, parsed = [], five_views.arguments
    monkeypatch.setattr(five_views.subprocess, "run", lambda line, check, stdout: ran.append(parsed(line[2:])[1]))
    monkeypatch.setattr(five_views, "steps_in", lambda name, train, minutes: {"mmvae": 7, "helvae": 9}[name])
    five_views.main(["--ours", "--models", "mmvae", "helvae", "--jobs", "2", "--out", str(tmp_path / "out"), "--build",
                     str(tmp_path)])
    assert sorted((a.models[0], a.seeds[0], a.steps) for a in ran) == [
        ("helvae", 0, 9), ("helvae", 1, 9), ("mmvae", 0, 7), ("mmvae", 1, 7)]
    assert all(a.ours and not a.theirs and a.jobs == 1 and a.minutes == 5 for a in ran)


def test_without_multivae_it_says_so(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(five_views.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SystemExit) as stopped:
        five_views.main(["--out", str(tmp_path)])
    assert stopped.value.code == 1 and "multivae: not installed; --install does it" in capsys.readouterr().err


def test_steps_are_what_the_time_allows(monkeypatch):
    monkeypatch.setattr(five_views, "trained", lambda model, train, settings: {"rows_per_second": 640.0})
    assert five_views.steps_in("jmvae", None, 5.0) == 3000


# the report


def made_up(name, side, seed, coherence):
    return {"model": name, "side": side, "seed": seed, "steps": 1000, "accuracy": 0.98, "rows_per_second": 500.0 + seed,
            "settings": {"minutes": 5.0, "rows": 1000, "draws": 200, "batch": 64, "polymnist": False},
            "coherence": dict.fromkeys(["1", "2", "3", "4", "prior"], coherence),
            "frechet": {"prior": 30.0, "training pictures": 2.0}, "log_likelihood": {"mean": -5000.0, "ess": 3.0}}


def test_the_table_by_hand_and_what_differs_by_more_than_its_seeds():
    records = [made_up("mopoe", side, seed, c) for side, of in (("ours", (0.70, 0.74)), ("theirs", (0.75, 0.77)))
               for seed, c in enumerate(of)] + [made_up("code", "ours", 0, 0.5)]
    text = tables.table(records)
    row = next(line for line in text.splitlines() if line.startswith("| MoPoE | ours"))
    assert row.startswith("| MoPoE | ours | 2 | 1,000 | 72.0 (70.0–74.0) |")
    assert row.endswith("| 30.00 (30.00–30.00) | −5,000.0 (−5,000.0–−5,000.0) | 500 (500–501) | 3.0 |")
    assert "| CoDE | ours | 1 | 1,000 | 50.0 |" in text and "read 98.0 % of the test pictures rightly" in text
    told = text.split("differ by more than their seeds:\n\n")[1].splitlines()
    assert len(told) == 5 and told[0] == "- MoPoE, given 1: ours 72.0 (70.0–74.0), theirs 76.0 (75.0–77.0)"
    assert tables.table(records[-1:]).endswith("None.")
    public = [made_up("mvtcae", "ours", 0, 0.5)]
    public[0]["settings"]["polymnist"] = True
    assert tables.table(public).endswith(tables.papers())
    assert "| MVTCAE | Hwang et al. (2021) | 69 / 77 / 83 / 86 | 64 / 82 / 88 / 91 |" in tables.papers()


def test_readme_has_the_tables_of_the_committed_runs():
    text = report.README.read_text()
    assert report.written(text, tables.texts()) == text, "run: python benchmarks/five_views.py --report"


# what multivae computes otherwise, by its lines


def test_the_loss_of_mopoe_by_the_rule_of_multivae(rows, monkeypatch):
    """What `by_their_rule` adds to ours gives the loss that theirs has: the KLs in equal parts, but the reconstructions by
    blocks of the batch, and the prior among the experts of all five alone."""
    monkeypatch.setattr(five_views.gaussian, "noise", torch.zeros_like)
    model = five_views.MODELS["mopoe"]().eval()
    x = {m: v.expand(64, -1, -1, -1).contiguous() for m, v in rows[0].batch(torch.tensor([0]))[0].items()}
    with torch.no_grad():
        experts = [model.encoders[m](x[m])["S"] for m in data.VIEWS]
        kls, means = [], []
        for size in range(1, 6):
            for some in combinations(range(5), size):
                precision = sum(experts[k].precision for k in some) + (size == 5)
                mu = sum(experts[k].precision * experts[k].mu for k in some) / precision
                kls.append(0.5 * (mu.square() + 1 / precision + precision.log() - 1).sum(1).mean())
                means.append(mu)
        z = torch.cat([mu[2 * k:2 * k + (64 if k == 30 else 2)] for k, mu in enumerate(means)])  # floor(64 / 31) rows each
        likelihood = sum(torch.distributions.Laplace(model.decoders[m](z), 0.75).log_prob(x[m]).sum((1, 2, 3)).mean()
                         for m in data.VIEWS)
    expected = torch.stack(kls).mean() - likelihood
    found = five_views.loss_of_ours("mopoe", model, x) + five_views.by_their_rule("mopoe", model, x)
    assert found == pytest.approx(expected.item(), abs=0.01)


def test_the_loss_of_mmvae_plus_by_the_rule_of_multivae(rows, monkeypatch):
    """Theirs has the KL of a private block by one draw of it, which at the mean is log q(mu) - log p(mu)."""
    monkeypatch.setattr(five_views.gaussian, "noise", torch.zeros_like)
    model, x = five_views.MODELS["mmvae+"]().eval(), rows[0].batch(torch.arange(3))[0]
    with torch.no_grad():
        q = {m: model.encoders[m](x[m])[m] for m in data.VIEWS}
        by_draw = sum(g.log_prob(g.mu) - five_views.gaussian.prior(3, 8).log_prob(g.mu) for g in q.values()).mean() / 5
        closed = sum(g.kl() for g in q.values()).mean() / 5
    assert five_views.by_their_rule("mmvae+", model, x) == pytest.approx((by_draw - closed).item(), abs=1e-4)
