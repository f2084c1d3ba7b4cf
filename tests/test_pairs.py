"""faces/pairs.py, file.py, basel.py: what a pair shares, where splits end, and an error for every bad file."""
import h5py
import numpy as np
import pytest
import torch

from mmvae.faces import FACTORS, Grid, Pairs, read_basel, read_faces

N, A, E, L, H = 5, 4, 3, 6, 16


def arrays(dtype=np.uint8):
    """Images whose pixels tell their own factors: rows 0..3 hold identity, azimuth, elevation, light."""
    axes = {"azimuth": (-90, 90, A), "elevation": (-30, 30, E), "light": (-80, 80, L)}
    values = {"identity": np.arange(N)} | {k: np.linspace(*axis, dtype=np.float32) for k, axis in axes.items()}
    images = {"I": np.zeros((N, A, E, H, H), np.uint8), "T": np.zeros((N, A, L, H, H), np.uint8)}
    for m, third in (("I", E), ("T", L)):
        n, a, k = np.meshgrid(np.arange(N), np.arange(A), np.arange(third), indexing="ij")
        for row, index in enumerate((n, a, k)):
            images[m][:, :, :, row] = index[..., None] * 10
    if dtype != np.uint8:
        images = {m: (image / 255).astype(dtype) for m, image in images.items()}
    return values | images


def store(path, test_identities=2, **changes):
    data = {k: v for k, v in (arrays() | changes).items() if v is not None}
    with h5py.File(path, "w") as f:
        for k, v in data.items():
            f[k] = v
        f.attrs["test_identities"] = test_identities
    return path


@pytest.fixture
def path(tmp_path):
    return store(tmp_path / "faces.h5")


def test_a_pair_shares_identity_and_azimuth_and_nothing_else(path):
    pairs = Pairs(path)
    x, factors = pairs.sample(200)
    cells = {m: (image[:, 0, :3, 0] * 25.5).round().long() for m, image in x.items()}  # (B, 3) grid indices
    assert torch.equal(cells["I"][:, :2], cells["T"][:, :2])
    for m, private in (("I", "elevation"), ("T", "light")):
        for column, name in enumerate(("identity", "azimuth", private)):
            assert torch.equal(pairs.values[name][cells[m][:, column]], factors[name])
    assert len({(int(e), int(light)) for e, light in zip(cells["I"][:, 2], cells["T"][:, 2])}) == E * L
    assert x["I"].shape == (200, 1, H, H) and x["I"].dtype == torch.float32
    assert factors["identity"].dtype == torch.int64


def test_a_batch_is_uniform_over_the_grid(path):
    pairs = Pairs(path)
    _, factors = pairs.sample(20_000)
    for k, length in zip(FACTORS, pairs.shape):
        counts = torch.unique(factors[k], return_counts=True)[1]
        assert len(counts) == length
        assert (counts / 20_000 - 1 / length).abs().max() < 0.02


def test_splits_are_disjoint_and_together_everything(path):
    train, test = Pairs(path), Pairs(path, "test")
    assert train.values["identity"].tolist() == [0, 1, 2] and test.values["identity"].tolist() == [3, 4]
    assert len(train) == 3 * A * E * L and len(test) == 2 * A * E * L


def test_fewer_identities_are_the_first_of_the_split(path):
    for split, first in (("train", 0), ("test", 3)):
        all_of_them, two = Pairs(path, split), Pairs(path, split, identities=2)
        assert two.values["identity"].tolist() == [first, first + 1] and two.shape == (2, A, E, L)
        assert all(torch.equal(two.images[m], all_of_them.images[m][:2]) for m in "IT")
        assert two.sample(500)[1]["identity"].unique().tolist() == [first, first + 1]
    assert Pairs(path, identities=3).fingerprint == Pairs(path).fingerprint != Pairs(path, identities=2).fingerprint
    for wrong in (0, -1, 4):
        with pytest.raises(ValueError, match=f'identities: found {wrong}, expected 1 to 3, as many as split "train" of'):
            Pairs(path, identities=wrong)


def test_sampling_is_reproducible_from_a_seed(path):
    first, second, other = Pairs(path, seed=1), Pairs(path, seed=1), Pairs(path, seed=2)
    for _ in range(3):
        a, b, c = (p.sample(50)[0]["I"] for p in (first, second, other))
        assert torch.equal(a, b) and not torch.equal(a, c)
    g = [torch.Generator().manual_seed(5) for _ in range(2)]
    assert torch.equal(first.sample(9, g[0])[0]["T"], other.sample(9, g[1])[0]["T"])


def test_at_takes_numbers_and_tensors(path):
    pairs = Pairs(path)
    x, factors = pairs.at(1, torch.arange(A), 2, 3)
    assert x["T"].shape == (A, 1, H, H)
    assert factors["azimuth"].tolist() == pairs.values["azimuth"].tolist() and factors["identity"].tolist() == [1] * A
    assert torch.equal(pairs.fixed()[0]["I"], Pairs(path).fixed()[0]["I"])


def test_size_averages_pixels(path):
    small, full = Pairs(path, size=8).at(1, 2, 1, 0)[0]["I"], Pairs(path).at(1, 2, 1, 0)[0]["I"]
    expected = torch.nn.functional.avg_pool2d(full * 255, 2).round() / 255
    torch.testing.assert_close(small, expected)
    with pytest.raises(ValueError, match="size: found 5"):
        Pairs(path, size=5)


def test_the_fingerprint_is_that_of_the_data(path, tmp_path):
    same = store(tmp_path / "same.h5")
    images = arrays()["I"]
    images[0, 0, 0, 9, 9] += 1
    other = store(tmp_path / "other.h5", I=images)
    assert Pairs(path).fingerprint == Pairs(same).fingerprint != Pairs(other).fingerprint
    assert Pairs(path).fingerprint != Pairs(path, "test").fingerprint


def test_float_images_are_accepted_in_0_1(tmp_path, path):
    floats = store(tmp_path / "float.h5", **{m: arrays(np.float32)[m] for m in "IT"})
    assert torch.equal(Pairs(floats).images["I"], Pairs(path).images["I"])


def test_a_grid_of_your_own_makes_pairs():
    data = {k: torch.from_numpy(v) for k, v in arrays().items()}
    x, _ = Pairs(Grid(**data, test_identities=1)).sample(4)
    assert x["I"].shape == (4, 1, H, H)


def own(n=12, **changes):
    """The arguments of a grid with other factors: digit and angle shared, ink I's own, paper T's own."""
    images = {m: torch.randint(0, 256, (n, 5, k, H, H), dtype=torch.uint8) for m, k in (("I", 3), ("T", 4))}
    return images | dict(digit=torch.arange(n), angle=torch.arange(5.0), ink=torch.arange(3.0), paper=torch.arange(4.0),
                         unit="index", test_identities=2) | changes


def test_factors_have_any_names():
    pairs, test = Pairs(Grid(**own())), Pairs(Grid(**own()), "test")
    assert pairs.axes == {"I": ("digit", "angle", "ink"), "T": ("digit", "angle", "paper")}
    assert pairs.factors == ("digit", "angle", "ink", "paper") and pairs.shape == (10, 5, 3, 4)
    assert test.values["digit"].tolist() == [10, 11]
    x, factors = pairs[torch.arange(len(pairs))]
    assert set(factors) == set(pairs.factors) and factors["digit"].dtype == torch.int64
    for m, axes in pairs.axes.items():
        index = torch.stack([factors[f] for f in axes]).long()
        assert torch.equal(x[m][:, 0], pairs.images[m][tuple(index)] / 255)
    assert torch.equal(pairs.at(1, 2, ink=0, paper=3)[0]["T"][0, 0], pairs.images["T"][1, 2, 3] / 255)
    with pytest.raises(TypeError, match="found 3 indices and .'elevation'., expected one for each of .'digit', 'angle'"):
        pairs.at(1, 2, 3, elevation=0)


def test_axes_may_be_named():
    """Two factors that are T's own, none that is I's."""
    T = torch.randint(0, 256, (6, 4, 3, H, H), dtype=torch.uint8)
    axes = {"I": ("who",), "T": ("who", "where", "when")}
    pairs = Pairs(Grid(T[:, 0, 0], T, axes=axes, who=np.arange(6), where=np.arange(4), when=np.arange(3.0),
                       test_identities=1))
    assert pairs.shape == (5, 4, 3) and pairs.sample(7)[0]["I"].shape == (7, 1, H, H)
    assert pairs.values["where"].dtype == torch.int64 and pairs.fixed(2)[0]["T"].shape == (2, 1, H, H)
    with pytest.raises(ValueError, match="axes: found .* the same first in both"):
        Grid(T[:, 0, 0], T, axes={"I": ("who",), "T": ("where", "who", "when")}, who=np.arange(6), where=np.arange(4),
             when=np.arange(3))


def test_arrays_and_floats_are_taken():
    given = own()
    floats = given | {m: given[m].numpy() / 255 for m in "IT"}
    arrays = {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in given.items()}
    want = Pairs(Grid(**given))
    for other in (floats, arrays, vars(Grid(**given))):
        assert Pairs(Grid(**other)).fingerprint == want.fingerprint


REFUSED = {
    "bytes of another type": (dict(I=torch.zeros(12, 5, 3, H, H, dtype=torch.int32)), "I: found torch.int32, expected uint8"),
    "floats of 0 to 255": (dict(T=torch.full((12, 5, 4, H, H), 200.0)), "T: found float values from 200 to 200, expected"),
    "one angle too few": (dict(angle=torch.arange(4.0)),
                          r"I: found shape \(12, 5, 3, 16, 16\), expected \(12, 4, 3\) \+"),
    "one ink too many": (dict(ink=torch.arange(4.0)), r"I: found shape .* the lengths of digit, angle, ink"),
    "one paper too few": (dict(paper=torch.arange(3.0)), r"T: found shape .* the lengths of digit, angle, paper"),
    "no square": (dict(I=torch.zeros(12, 5, 3, H, 8)), "I: found shape"),
    "a colour": (dict(I=torch.zeros(12, 5, 3, 3, H, H)), "I: found shape"),
    "more held out than there are": (dict(test_identities=13), "test_identities: found 13, expected 0 to 12, as many as"),
    "fewer than none": (dict(test_identities=-1), "test_identities: found -1"),
    "half of one": (dict(test_identities=1.5), "test_identities: found 1.5"),
    "a quantity held out": (dict(digit=torch.arange(12.0)), "digit: found torch.float32, expected whole numbers"),
    "one in both splits": (dict(digit=torch.tensor([*range(11), 0])), "digit: found some values twice, expected each once"),
    "NaN": (dict(ink=torch.tensor([0.0, 1.0, float("nan")])), "ink: found NaN or infinite values"),
    "a table": (dict(ink=torch.zeros(3, 1)), "ink: found torch.float32 of shape"),
    "no unit": (dict(unit=None), "unit: found None, expected a word"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_grid_that_does_not_fit_is_refused(case):
    changes, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        Grid(**own(**changes))


def test_what_is_no_array_is_refused():
    with pytest.raises(TypeError, match="ink: found list, expected a tensor or an array"):
        Grid(**own(ink=[0, 1, 2]))
    with pytest.raises(ValueError, match="factors: found .*, expected at least three"):
        Grid(*[torch.zeros(3, H, H)] * 2, digit=torch.arange(3))


def test_the_rows_of_pairs_are_those_of_its_cells(path):
    """The protocol of mmvae.data.Rows."""
    pairs = Pairs(path)
    index = pairs.draw(50, torch.Generator().manual_seed(3))
    x, missing = pairs.batch(index)
    again, factors = pairs.at(*torch.unravel_index(index, pairs.shape))
    drawn, of_drawn = pairs.sample(50, torch.Generator().manual_seed(3))
    assert missing == {} and all(torch.equal(x[m], again[m]) and torch.equal(x[m], drawn[m]) for m in "IT")
    known = pairs.factors_at(index)
    assert all(torch.equal(known[f], factors[f]) and torch.equal(known[f], of_drawn[f]) for f in FACTORS)
    azimuth = torch.searchsorted(pairs.values["azimuth"], factors["azimuth"])
    assert torch.equal(pairs.half_at(index), azimuth % 2 == 0)
    assert pairs[3][0]["I"].shape == (1, 1, H, H) and pairs[:5][1]["light"].shape == (5,)
    with pytest.raises(IndexError):
        pairs[len(pairs)]


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.h5: no such file"):
        Pairs(tmp_path / "nowhere.h5")


def test_not_hdf5(tmp_path):
    (tmp_path / "text.h5").write_text("hello")
    with pytest.raises(ValueError, match="text.h5: not an HDF5 file"):
        read_faces(tmp_path / "text.h5")


@pytest.mark.parametrize("keep", [0.3, 0.9])
def test_truncated(path, keep):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(ValueError, match="truncated or damaged"):
        read_faces(path)


BAD = {
    "a data set is missing": ({"T": None}, r"data sets \['T'\] are missing; found"),
    "wrong shape": ({"I": np.zeros((N, A, E, H, H + 2), np.uint8)}, r"I: found shape \(5, 4, 3, 16, 18\), expected"),
    "factor of another length": ({"light": np.zeros(L + 1, np.float32)}, r"T: found shape"),
    "integers of another dtype": ({"T": arrays()["T"].astype(np.int32)}, r"T: found torch.int32, expected uint8"),
    "floats above 1": ({"I": arrays()["I"].astype(np.float32)}, r"float values from 0 to 40, expected them within"),
    "NaN": ({"I": np.full((N, A, E, H, H), np.nan, np.float32)}, "float values from nan"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_content_is_named(tmp_path, case):
    changes, message = BAD[case]
    with pytest.raises(ValueError, match=message) as error:
        read_faces(store(tmp_path / "bad.h5", **changes))
    assert "bad.h5" in str(error.value)


def test_no_identities_left(tmp_path):
    path = store(tmp_path / "few.h5", test_identities=N)
    with pytest.raises(ValueError, match='few.h5: no identities left in split "train": 5 in all, 5 of them held out'):
        Pairs(path)
    assert len(Pairs(path, "test").values["identity"]) == N
    with pytest.raises(ValueError, match='split "test"'):
        Pairs(store(tmp_path / "all.h5", test_identities=0), "test")
    with pytest.raises(ValueError, match='split: found "valid"'):
        Pairs(path, "valid")


def basel(identities=3):
    images = torch.zeros(identities, 21, 11, 11, 16, 16, dtype=torch.uint8)
    grid = torch.meshgrid(*(torch.arange(k) for k in images.shape[:4]), indexing="ij")
    for row, index in enumerate(grid):
        images[..., row, :] = index[..., None].to(torch.uint8) * 10
    return images


def test_basel_file(tmp_path):
    torch.save(basel(), tmp_path / "basel.pth")
    pairs = Pairs.from_basel(tmp_path / "basel.pth", test_identities=1)
    x, factors = pairs.sample(50)
    rows = {m: (image[:, 0, :4, 0] * 25.5).round() for m, image in x.items()}  # identity, azimuth, elevation, light
    assert pairs.unit == "index" and pairs.shape == (2, 21, 11, 11)
    for m, fixed, free, name in (("I", 3, 2, "elevation"), ("T", 2, 3, "light")):
        assert (rows[m][:, fixed] == 5).all() and torch.equal(rows[m][:, free], factors[name])
    degrees = {k: np.linspace(-90, 90, n) for k, n in (("azimuth", 21), ("elevation", 11), ("light", 11))}
    assert Pairs.from_basel(tmp_path / "basel.pth", test_identities=1, degrees=degrees).values["azimuth"][0] == -90
    torch.save(basel(), tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert Pairs.from_basel(tmp_path / "old.pth", test_identities=1).fingerprint == pairs.fingerprint


def test_bad_basel_files(tmp_path):
    path = tmp_path / "basel.pth"
    with pytest.raises(FileNotFoundError, match="basel.pth"):
        read_basel(path)
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="basel.pth: not a file of torch.save"):
        read_basel(path)
    torch.save({"images": basel()}, path)
    with pytest.raises(ValueError, match="found dict, expected one uint8 tensor"):
        read_basel(path)
    torch.save(basel()[:, :20], path)
    with pytest.raises(ValueError, match=r"found shape \(3, 20, 11, 11, 16, 16\), expected \(50, 21, 11, 11, 64, 64\)"):
        read_basel(path)
    torch.save(basel().int(), path)
    with pytest.raises(ValueError, match="found torch.int32, expected uint8"):
        read_basel(path)


def test_nothing_is_unpickled(tmp_path):
    """A file that would run code when unpickled is refused, and its code does not run."""
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    torch.save(Evil(), tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="evil.pth"):
        read_basel(tmp_path / "evil.pth")
    assert not marker.exists()
