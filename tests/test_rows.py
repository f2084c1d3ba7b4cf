"""data.py: rows of any modalities, from tensors, arrays and Datasets; drawn the same whoever reads them."""
import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

import mmvae
import tiny
import worlds
from mmvae.data import Rows
from mmvae.incomplete import Incomplete
from mmvae.lazy import LazyRows
from tiny import same, weights


class Items(Dataset):
    """Ten rows: a picture, a class that every third row lacks, factors."""

    def __len__(self):
        return 10

    def __getitem__(self, i):
        x = {"picture": np.full((1, 8, 8), i / 10, dtype="float32")} | ({} if i % 3 == 0 else {"name": i % 2})
        return x, {"angle": float(i)}


def test_tensors_and_arrays_become_tensors_of_one_kind():
    rows = Rows({"a": np.random.rand(6, 3), "b": torch.arange(6, dtype=torch.int32), "c": [[1.0], [2.0]] * 3},
                factors={"kind": np.arange(6, dtype="uint16"), "angle": np.linspace(0, 1, 6)})
    x, factors = rows[torch.tensor([5, 0])]
    assert (x["a"].dtype, x["b"].dtype, x["c"].dtype) == (torch.float32, torch.int64, torch.float32)
    assert x["b"].tolist() == [5, 0] and factors["kind"].dtype == torch.int64 and factors["angle"].tolist() == [1, 0]
    assert Rows({"a": np.random.rand(6, 3)}, dtype=torch.float64).x["a"].dtype == torch.float64
    assert len(rows) == 6 and rows[2][0]["b"].tolist() == [2] and rows[1:3][0]["b"].tolist() == [1, 2]


def test_bytes_are_pictures_where_it_is_said_and_nowhere_else():
    images = np.arange(6 * 64, dtype="uint8").reshape(6, 1, 8, 8)
    rows = Rows({"picture": images}, images=("picture",))
    assert rows.x["picture"].dtype == torch.uint8
    torch.testing.assert_close(rows[0][0]["picture"], torch.from_numpy(images[:1]).float() / 255)
    with pytest.raises(ValueError, match=r'x\["picture"\]: found torch.uint8, expected floating point or int64; for pictures '
                                         r'in bytes say images=\("picture",\)'):
        Rows({"picture": images})
    with pytest.raises(ValueError, match=r'found torch.float32, expected bytes, as `images` says'):
        Rows({"picture": images / 255}, images=("picture",))


NAN = torch.tensor([[1.0], [float("nan")]])


@pytest.mark.parametrize("arguments, message", [
    (({"a": torch.rand(3, 2), "b": torch.rand(4, 2)},), r'x\["b"\]: found 4 rows, expected 3, as of the first modality'),
    (({"a": torch.rand(3, 2)}, None, {"f": torch.rand(2)}), r'factors\["f"\]: found 2 rows, expected 3'),
    (({"a": torch.rand(3, 2)}, {"a": torch.ones(2, dtype=torch.bool)}), r'present\["a"\]: found 2 rows, expected 3'),
    (({"a": torch.rand(0, 2)},), r'x\["a"\]: found 0 rows, expected at least one'),
    (({"a": NAN},), r'x\["a"\]: found NaN or infinite values, expected finite ones, or present\["a"\] False'),
    (({"a": torch.rand(2, 1)}, {"a": torch.ones(2)}), r'present\["a"\]: found torch.float32 of shape \(2,\), expected bool'),
    (({"a": torch.rand(2, 1)}, {"b": torch.ones(2, dtype=torch.bool)}), r'present\["b"\]: found .* for one of'),
    (({"a": torch.rand(2, 1)}, {"a": torch.tensor([True, False])}), "present: found nothing observed in row 1"),
    (({"a": torch.tensor(1.0)},), r'x\["a"\]: found a single number'),
    (({"a": {1, 2}},), r'x\["a"\]: found set, expected a tensor or an array'),
    ((torch.rand(3, 2),), "x: found Tensor, expected a dictionary of modalities")])
def test_what_makes_no_rows_is_refused(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Rows(*arguments)


def test_nan_is_taken_where_nothing_was_observed():
    rows = Rows({"a": NAN, "b": torch.rand(2, 1)}, {"a": torch.tensor([True, False])})
    x, present = rows.batch(torch.tensor([0, 1]))
    assert present["a"].tolist() == [True, False] and x["a"].isnan().any() and set(present) == {"a"}


def test_draws_depend_on_the_seed_alone():
    a, b, c = (Rows({"a": torch.arange(50.0)[:, None]}, seed=s).sample(20)[0]["a"] for s in (1, 1, 2))
    assert torch.equal(a, b) and not torch.equal(a, c)
    rows, g = Rows({"a": torch.arange(50.0)[:, None]}), torch.Generator().manual_seed(3)
    assert torch.equal(rows.sample(9, g)[0]["a"][:, 0].long(), rows.draw(9, torch.Generator().manual_seed(3)))


def test_a_fingerprint_is_of_everything_that_training_depends_on():
    def of(**changes):
        arguments = dict(x={"a": torch.arange(6.0).view(3, 2)}, present=None, factors={"f": torch.arange(3)}) | changes
        return Rows(**arguments).fingerprint

    x = {"a": torch.arange(6.0).view(3, 2)}
    others = [of(x={"a": x["a"] + 1}), of(x={"b": x["a"]}), of(present={"a": torch.ones(3, dtype=torch.bool)}), of(factors={}),
              of(x={"a": x["a"].view(3, 2, 1)})]
    assert of() == of() and len({of(), *others}) == 6


def test_a_dataset_is_read_once_or_when_drawn_to_the_same_rows():
    kept = Rows.of(Items(), progress=False)
    assert kept.present["name"].tolist() == [i % 3 != 0 for i in range(10)] and kept.factors["angle"].tolist() == list(range(10))
    index = torch.tensor([3, 4, 0])
    for workers in (0, 3):
        lazy = LazyRows(Items(), workers)
        assert len(lazy) == 10
        (x, present), (y, masks) = kept.batch(index), lazy.batch(index)
        assert same(x, y) and same(present, masks) and same(kept.factors_at(index), lazy.factors_at(index))
        assert torch.equal(kept.draw(5, torch.Generator().manual_seed(0)), lazy.draw(5, torch.Generator().manual_seed(0)))
        assert (lazy.batch(torch.tensor([0, 3]))[1]["name"] == 0).all()  # none of these rows has it
    assert lazy.fingerprint == LazyRows(Items()).fingerprint != kept.fingerprint
    assert LazyRows(Items(), fingerprint="v2").fingerprint == "v2"


def test_a_row_that_lacks_what_the_first_ones_had_is_named():
    class Late(Items):
        def __len__(self):
            return 200

        def __getitem__(self, i):
            return {"a": torch.zeros(2)} | ({"b": 1} if i != 100 else {})

    with pytest.raises(ValueError, match=r"dataset\[100\]: found none of \['b'\], expected it, .* say missing=\['b'\]"):
        LazyRows(Late()).batch(torch.tensor([100]))
    assert not LazyRows(Late(), missing=["b"]).batch(torch.tensor([100]))[1]["b"]


@pytest.mark.parametrize("dataset, message", [
    (iter([1]), "dataset: found list_iterator, expected a map-style Dataset"), ([], "dataset: found no rows"),
    ([1, 2], r"dataset\[0\]: found int, expected .modality: value., or that and .factor: value."),
    ([{"a": torch.zeros(2)}, {"a": torch.zeros(3)}], "dataset: found items that do not fit each other"),
    (torch.utils.data.DataLoader([1, 2]), "found DataLoader, expected a map-style Dataset, .*hand over its `.dataset`")])
def test_what_is_no_dataset_is_refused(dataset, message):
    with pytest.raises((ValueError, TypeError), match=message):
        Rows.of(dataset, progress=False)


MODALITIES = {"picture": mmvae.images(8, private=1), "name": mmvae.categories(2)}


def model():
    torch.manual_seed(0)
    return mmvae.PoEVAE(MODALITIES, shared=2)


def test_fit_takes_a_dataset_and_lazy_rows_and_resumes_to_the_same_weights(tmp_path, monkeypatch):
    """Whoever reads the rows: at once, when drawn, or by threads; and a run that is resumed draws what it would have."""
    settings = dict(iterations=12, batch=4, checkpoint_every=4, progress=False)
    whole = weights(mmvae.fit(model(), Items(), tmp_path / "kept", **settings))
    for workers in (0, 2):
        rows = LazyRows(Items(), workers)
        assert same(whole, weights(mmvae.fit(model(), rows, tmp_path / f"lazy{workers}", **settings)))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        tiny.stop_at(patch, 7)
        mmvae.fit(model(), LazyRows(Items(), workers=2), tmp_path / "cut", **settings)
    resumed = mmvae.fit(model(), LazyRows(Items()), tmp_path / "cut", **settings)
    assert same(whole, weights(resumed))


def test_the_caller_s_first_weights_are_part_of_the_run(tmp_path, monkeypatch):
    """Stopped before its first checkpoint, and called again with other first weights: it goes on with its own."""
    settings = dict(iterations=12, batch=4, checkpoint_every=6, progress=False)
    whole = weights(mmvae.fit(model(), Items(), tmp_path / "whole", **settings))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        tiny.stop_at(patch, 4)
        mmvae.fit(model(), Items(), tmp_path / "cut", **settings)
    torch.manual_seed(99)
    assert same(whole, weights(mmvae.fit(mmvae.PoEVAE(MODALITIES, shared=2), Items(), tmp_path / "cut", **settings)))


def test_gaps_train(tmp_path):
    rows = worlds.rows("three", gaps=True)
    model = worlds.build("poe", "three")
    mmvae.fit(model, rows, tmp_path, iterations=60, batch=8, log_every=20, progress=False)
    log = mmvae.train.read_log(tmp_path)
    assert log["total"][-1] < log["total"][0] and "sound+label+word.elbo" in log


@pytest.mark.parametrize("keep", [True, False])
def test_fit_looks_at_every_row_once(keep, tmp_path):
    """A picture of bytes taken for floats far behind the first batch: refused before training, or, if lazy, when drawn."""
    class Late(Items):
        def __len__(self):
            return 300

        def __getitem__(self, i):
            return {"picture": torch.full((1, 8, 8), 255.0 if i == 290 else 0.5), "name": i % 2}

    rows = Rows.of(Late(), progress=False) if keep else LazyRows(Late())
    with pytest.raises(ValueError, match=r'x\["picture"\]: found values from 0.5 to 255, expected them within'):
        mmvae.fit(model(), rows, tmp_path / "run", iterations=200, batch=32, progress=False)
    assert keep != (tmp_path / "run").exists()
    with pytest.raises(ValueError, match=r"images: found \['photo'\], expected some of \('picture',\)"):
        Rows({"picture": torch.rand(2, 1, 8, 8)}, images=("photo",))


def test_what_is_missing_is_nan_or_minus_one_where_no_mask_goes_with_it():
    rows = Rows.of(Items(), progress=False)
    x, _ = rows[torch.tensor([0, 1])]
    assert x["name"].tolist() == [-1, 1] and "name" not in rows[torch.tensor([0, 3])][0]
    with pytest.raises(ValueError, match=r'x\["name"\]: found classes from -1 to 1, expected 0 to 1'):
        model().loss(x)


@pytest.mark.parametrize("make, message", [
    (lambda: Rows({"a": torch.zeros(2, 3, dtype=torch.complex64)}), "found torch.complex64, expected real numbers"),
    (lambda: Rows({"a": np.array(["x", "y"])}), r'x\["a"\]: found ndarray of what are no numbers'),
    (lambda: Rows({"a": np.zeros((2, 3))}, factors={"u": np.full((2, 1), 1.0)}), r'factors\["u"\]: found shape \(2, 1\), expected a fin'),
    (lambda: Rows({"a": np.zeros((2, 3))}, factors={"u": np.full(2, np.nan)}), r'factors\["u"\]: found shape \(2,\) with NaN'),
    (lambda: Rows.of([{"a": "cat"}], progress=False), r"dataset\[0\]: found what are no numbers"),
    (lambda: LazyRows(Items(), missing=["sound"]), r"missing: found \['sound'\], expected some of \('picture', 'name'\)")])
def test_more_that_makes_no_rows(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_arrays_may_be_views_and_factors_bytes():
    rows = Rows({"a": np.arange(6.0).reshape(3, 2)[::-1]}, factors={"kind": np.arange(3, dtype="uint8"), "odd": np.array([True, False, True])})
    assert rows.x["a"][0].tolist() == [4, 5] and {v.dtype for v in rows.factors.values()} == {torch.int64}


def test_a_run_of_other_options_or_likelihood_is_not_loaded(tmp_path):
    def make(scale=0.1, **options):
        return mmvae.PoEVAE({"v": mmvae.vectors(3, 1, likelihood=mmvae.likelihoods.Normal(scale))}, shared=2, **options)

    mmvae.fit(make(), Rows({"v": torch.randn(20, 3)}), tmp_path, iterations=2, batch=4, progress=False)
    assert mmvae.load(tmp_path, make())
    for other in (make(5.0), make(single_prior=True)):
        with pytest.raises(ValueError, match="holds a run of another model"):
            mmvae.load(tmp_path, other)


def test_rows_that_a_model_cannot_infer_from_are_refused_before_anything_is_written(tmp_path):
    rows = Rows({"picture": torch.rand(8, 1, 8, 8), "name": torch.arange(8) % 2}, {"name": torch.arange(8) > 3})
    with pytest.raises(ValueError, match="VanillaVAE has no posterior of fewer"):
        mmvae.fit(mmvae.VanillaVAE(MODALITIES), rows, tmp_path / "run", batch=4, progress=False)
    assert not (tmp_path / "run").exists()


def test_rows_that_lose_some_modalities_lose_the_same_ones_each_time():
    n = 3000
    whole = Rows({m: torch.randn(n, 2) for m in "abc"}, present={"c": torch.arange(n) % 5 > 0}, factors={"k": torch.arange(n)})
    rows, index = Incomplete(whole, 0.4, seed=3), torch.randperm(n)
    x, present = rows.batch(index)
    assert same(x, whole.batch(index)[0]) and rows.factors_at(index)["k"].equal(index) and len(rows) == n
    there = torch.stack(list(present.values()))[:, index.argsort()]
    for i in range(n):  # by hand: as it was, or one alone that was observed
        before = torch.tensor([True, True, i % 5 > 0])
        assert there[:, i].equal(before) or there[:, i].sum() == 1 and (there[:, i] <= before).all()
    lost = (there.sum(0) == 1)[torch.arange(n) % 5 > 0]
    assert abs(lost.float().mean() - 0.4) < 0.03
    assert (there[:, there.sum(0) == 1].float().mean(1) > 0.25).all()  # each is kept as often
    again = Incomplete(whole, 0.4, seed=3)
    assert same(again.batch(torch.arange(9))[1], rows.batch(torch.arange(9))[1]) and again.fingerprint == rows.fingerprint
    assert len({rows.fingerprint, whole.fingerprint, Incomplete(whole, 0.4).fingerprint, Incomplete(whole, 0.3, 3).fingerprint}) == 4
    assert not any(torch.stack(list(Incomplete(whole, 1.0).batch(torch.tensor([1]))[1].values())).sum(0) - 1)
    for wrong in (1.5, -0.1, float("nan")):
        with pytest.raises(ValueError, match="share: found"):
            Incomplete(whole, wrong)
    with pytest.raises(ValueError, match="alone, expected two or more"):
        Incomplete(Rows({"a": torch.randn(4, 2)}))


def test_what_such_rows_have_lost_teaches_nothing(tmp_path):
    x = {"a": torch.randn(64, 3), "b": torch.randn(64, 2)}
    rows = Incomplete(Rows(x), 0.5)
    present = rows.batch(torch.arange(64))[1]
    other = Rows({m: torch.where(present[m].unsqueeze(1), v, torch.full_like(v, 9.0)) for m, v in x.items()})
    trained = []
    for k, some in enumerate((rows, Incomplete(other, 0.5))):
        torch.manual_seed(0)
        model = mmvae.PoEVAE({"a": mmvae.vectors(3), "b": mmvae.vectors(2)})
        trained.append(mmvae.fit(model, some, tmp_path / str(k), iterations=20, progress=False))
    assert same(weights(trained[0]), weights(trained[1]))
