import os
from concurrent.futures.process import BrokenProcessPool
from unittest import mock

import h5py
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from mmvae import faces
from mmvae.faces import file as data_file
from mmvae.faces import cloud, renderer, shape


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    path = tmp_path_factory.mktemp("faces") / "small.h5"
    faces.write(path, identities=2, test_identities=1, size=16, progress=False, jobs=1)
    return path


# ---- pictures

@pytest.mark.parametrize("size", [16, 33, 64, 512])
def test_a_picture_is_a_square_of_floats_between_0_and_1(size):
    image = faces.render(3, 20.0, -10.0, 40.0, size=size)
    assert image.shape == (size, size) and image.dtype == torch.float32
    assert torch.isfinite(image).all() and image.min() >= 0 and image.max() <= 1
    assert image[:, 0].max() == 0 and 0.15 < (image > 0).float().mean() < 0.75  # black ground, a head on it


def test_the_same_arguments_give_the_same_picture_and_touch_no_global_generator():
    torch.manual_seed(0), np.random.seed(0)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = faces.render(5, 30, 10, -40)
    renderer.recent.cache_clear()
    assert torch.equal(first, faces.render(5, 30, 10, -40))
    assert torch.equal(states[0], torch.get_rng_state()) and (states[1] == np.random.get_state()[1]).all()


@pytest.mark.parametrize("pose", [(0, 0, 0), (45, 15, 40), (-90, -30, -80)])
def test_a_large_picture_averaged_down_is_the_small_one(pose):
    large, small = faces.render(2, *pose, size=128), faces.render(2, *pose, size=64)
    difference = (F.avg_pool2d(large[None], 2)[0] - small).abs()
    assert difference.mean() < 0.012 and torch.quantile(difference, 0.99) < 0.15


def test_edges_are_smooth():
    small, large = faces.render(1, size=64), faces.render(1, size=256)
    exact = F.avg_pool2d((large > 0).float()[None], 4)[0]  # how much of each pixel the head covers
    edge = (exact > 0.2) & (exact < 0.8)
    inside = (exact == 1).float()
    near = F.max_pool2d((small * inside)[None], 3, 1, 1)[0]  # the head's own grey beside the edge
    assert (small[edge] < near[edge]).float().mean() > 0.8


@pytest.mark.parametrize("azimuth", [-90, -45, 0, 45, 90])
@pytest.mark.parametrize("elevation", [-30, 0, 30])
def test_no_hole_shows_the_ground_through_the_head(azimuth, elevation):
    black = (faces.render(1, azimuth, elevation, 0, size=64) == 0).float()[None, None]
    ground = torch.zeros_like(black)
    ground[..., 0, :], ground[..., :, 0], ground[..., :, -1] = 1, 1, 1
    ground = ground * black
    for _ in range(200):  # flood from the frame's top and sides: any black left is inside
        ground = F.max_pool2d(ground, 3, 1, 1) * black
    assert (black - ground).sum() == 0


def test_other_pictures_need_another_generator_version():
    """Data files are kept under its number: raise it, and store these means anew, if heads are to look otherwise."""
    poses = {(0, 0, 0, 0): 0.151957, (3, 45, 0, 60): 0.150063, (7, -60, 20, -40): 0.150802, (21, 90, -30, 0): 0.135867}
    found = [faces.render(*pose, size=32)[16 * (k % 2):16 * (k % 2) + 16].mean().item() for k, pose in enumerate(poses)]
    assert faces.GENERATOR_VERSION == 2 and found == pytest.approx(list(poses.values()), rel=1e-3)


# ---- the same picture, point by point

def foremost(cloud, turn, pixels):
    """(index, depth) of the foremost point at each pixel, -1 and -inf for none: all, one after another."""
    x, y, z = turn @ cloud.rows[:, :3].T.double().numpy()
    scale = pixels / 2 / renderer.EXTENT
    column, row = np.floor(x * scale + pixels / 2), np.floor((renderer.CENTRE - y) * scale + pixels / 2)
    index, depth = np.full((pixels, pixels), -1), np.full((pixels, pixels), -np.inf)
    for k in np.flatnonzero((column >= 0) & (column < pixels) & (row >= 0) & (row < pixels)):
        place = int(row[k]), int(column[k])
        if z[k] > depth[place]:
            index[place], depth[place] = k, z[k]
    filled = index.copy(), depth.copy()
    for i, j in np.ndindex(pixels, pixels - 2):  # a lone gap takes the farther neighbour
        if index[i, j + 1] < 0 <= min(index[i, j], index[i, j + 2]):
            source = j if depth[i, j] < depth[i, j + 2] else j + 2
            filled[0][i, j + 1], filled[1][i, j + 1] = index[i, source], depth[i, source]
    return filled


def straightforward(head, caster, azimuth, elevation, light, size):
    """A picture as `view` makes it, from its description alone."""
    turn, pixels = renderer.rotation(azimuth, elevation).double().numpy(), 2 * size
    index, _ = foremost(head, turn, pixels)
    field = head.rows.T.double().numpy()[:, index.clip(0)]  # (8, pixels, pixels)
    a, e = np.radians([light, renderer.LAMP])
    lamp = np.array([np.sin(a) * np.cos(e), np.sin(e), np.cos(a) * np.cos(e)])
    own = lamp @ turn  # the lamp as the head has it
    right = np.cross([0, 1, 0], own) / np.linalg.norm(np.cross([0, 1, 0], own))
    sight = np.stack([right, np.cross(own, right), own])
    heights = foremost(caster, sight, renderer.SHADOW)[1] + 3
    heights = torch.from_numpy(np.where(heights > -9, heights, 2.5))
    maps = F.avg_pool2d(torch.stack([heights, heights ** 2])[None], 5, 1, 2, count_include_pad=False)
    x, y, z = np.einsum("ij,jhw->ihw", sight, field[:3])
    spot = torch.from_numpy(np.stack([x, renderer.CENTRE - y], -1) / renderer.EXTENT)
    mean, square = F.grid_sample(maps, spot[None], align_corners=False)[0].numpy()
    spread, above = (square - mean ** 2).clip(1e-4), (mean - 3 - z - 0.02).clip(0)
    reach = 1 - renderer.SHADE * (1 - spread / (spread + above ** 2))
    n, half = np.einsum("ij,jhw->ihw", turn, field[3:6]), lamp + [0, 0, 1]
    diffuse, glossy = (np.einsum("i,ihw->hw", v / np.linalg.norm(v), n).clip(0) for v in (lamp, half))
    grey = field[6] * (renderer.AMBIENT + renderer.LAMBERT * diffuse * reach) + renderer.SPECULAR * glossy ** 16 * reach
    grey = np.where(index < 0, 0, field[7] * grey).reshape(size, 2, size, 2).mean((1, 3))
    return grey.clip(0, 1) ** renderer.GAMMA


@pytest.mark.parametrize("identity, pose", [(1, (20, -10, 40)), (3, (-90, 30, 0)), (9, (0, 0, -80))])
def test_a_picture_is_what_one_point_after_another_makes(identity, pose):
    """To 1/255: what is left out, tiles that show their backs or lie outside, is hidden anyway."""
    head, caster = faces.clouds(identity, 0, 32)
    exact = straightforward(head, caster, *pose, 32)
    apart = np.abs(faces.view(head, caster, *pose[:2], [pose[2]], 32)[0].numpy() - exact)
    assert apart.max() <= 1 / 255 and apart.mean() < 1e-4


@pytest.mark.parametrize("identity", [0, 3, 1_000_150])
def test_what_the_lamp_does_not_draw_casts_no_shadow(identity):
    """Each picture is, to its last bit, what it is with all of the head in the lamps' views."""
    head, caster = faces.clouds(identity, 0, 64)
    whole = caster._replace(reach=caster.reach + 9)
    for pose in ((0, [-30, 0, 30], [0]), (33, [0], [-80, 16, 64]), (-90, [12], [48])):
        assert torch.equal(renderer.views(head, caster, *pose, 64), renderer.views(head, whole, *pose, 64))


def test_many_poses_at_once_are_each_of_them_alone():
    head, caster = faces.clouds(2, 0, 32)
    several = renderer.views(head, caster, 27.0, [-30.0, 0.0, 12.0], [-48.0, 0.0, 80.0], 32)
    for k, elevation in enumerate((-30.0, 0.0, 12.0)):
        for i, light in enumerate((-48.0, 0.0, 80.0)):
            alone = faces.view(head, caster, 27.0, elevation, [light], 32)[0]
            assert (several[k, i] - alone).abs().max() < 1e-4


@pytest.mark.parametrize("identity", [0, 3, 1_000_150])
def test_a_feature_is_nothing_where_it_is_not_drawn(identity, monkeypatch):
    """To the accuracy of float32, the points and their albedo are what they are with all features and paint everywhere."""
    some = faces.clouds(identity, 0, 32)
    monkeypatch.setattr(shape, "run", lambda mask: slice(None))
    for one, other in zip(some, faces.clouds(identity, 0, 32)):
        assert (one.rows - other.rows)[:, [0, 1, 2, 6]].abs().max() < 1e-6


def test_a_crease_is_a_point_below_the_mean_of_means_about_it():
    p, n = torch.rand(2, 3, 9, 12, generator=torch.Generator().manual_seed(0)).double()
    exact, k = torch.zeros(9, 12), 2
    for t, a in np.ndindex(9, 12):
        mean = torch.zeros(3, dtype=torch.float64)
        for i, j in np.ndindex(5, 5):  # twice a box of 5: a triangle of 9 in either direction
            for u, v in np.ndindex(5, 5):
                row = min(max(min(max(t + i - k, 0), 8) + u - k, 0), 8)
                mean += p[:, row, (a + j + v - 2 * k) % 12] / 5 ** 4
        exact[t, a] = (mean - p[:, t, a]) @ n[:, t, a]
    torch.testing.assert_close(cloud.crease(p.float(), n.float(), 5), exact, atol=1e-5, rtol=1e-4)


class Factories(TorchFunctionMode):
    """Refuses to make a tensor out of nothing on a device that nobody named."""
    made = {torch.tensor, torch.as_tensor, torch.zeros, torch.ones, torch.full, torch.empty, torch.arange, torch.linspace}

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in self.made:
            assert "device" in (kwargs or {}), f"{function.__name__} without a device"
        return function(*args, **(kwargs or {}))


def test_every_tensor_is_made_on_the_device_of_the_head():
    renderer.means.cache_clear(), renderer.lamps.cache_clear()
    with Factories():
        pair = renderer.clouds(1, 0, 16, device="cpu")
        renderer.view(*pair, 10.0, 5.0, [0.0, 30.0], 16)


# ---- signs, as the top of renderer.py states them

def middle(image):
    """Column at which the picture's matter balances."""
    return ((image > 0).float().sum(0) * torch.arange(image.shape[1])).sum() / (image > 0).sum()


def test_a_lamp_on_the_right_lights_the_right_half():
    bald = next(k for k in range(100) if faces.coefficients(k)["hair_length"] < shape.SHAVEN)
    left, right = faces.render(bald, light=-60), faces.render(bald, light=60)
    assert right[:, 32:].sum() > 1.5 * right[:, :32].sum()
    assert left[:, :32].sum() > 1.5 * left[:, 32:].sum()
    assert (left - right.flip(1)).abs().mean() < 0.01  # a bald head is its own mirror image


def test_positive_azimuth_turns_the_face_to_the_right():
    nose = torch.tensor([0.0, -0.2, 0.9])  # x right, y up, z to the viewer
    assert (renderer.rotation(90, 0) @ nose)[0] > 0.85 and (renderer.rotation(-90, 0) @ nose)[0] < -0.85
    bald = next(k for k in range(100) if faces.coefficients(k)["hair_length"] < shape.SHAVEN)
    right, left = faces.render(bald, azimuth=60), faces.render(bald, azimuth=-60)
    assert middle(right[56:]) < 31 < 33 < middle(left[56:])  # the neck stays behind the face
    assert (left - right.flip(1)).abs().mean() < 0.01


def test_positive_elevation_raises_the_chin():
    nose = torch.tensor([0.0, 0.0, 0.9])
    assert (renderer.rotation(0, 30) @ nose)[1] > 0.4
    torch.testing.assert_close(renderer.rotation(0, 0), torch.eye(3))
    up, down = faces.render(1, elevation=30), faces.render(1, elevation=-30)
    assert (up - down).abs().mean() > 0.03
    assert (up[:12] > 0).sum() < (down[:12] > 0).sum()  # a raised chin lowers the crown


def test_the_lamp_stays_when_the_head_turns():
    bald = next(k for k in range(100) if faces.coefficients(k)["hair_length"] < shape.SHAVEN)
    turned = faces.render(bald, azimuth=60, light=80)
    assert turned[:28, 32:].sum() > turned[:28, :32].sum()


# ---- identities

def test_an_identity_depends_on_its_index_and_the_seed_alone():
    c = faces.coefficients(7)
    assert c == faces.coefficients(7) and set(c) == set(shape.COEFFICIENTS)
    assert c != faces.coefficients(8) and c != faces.coefficients(7, seed=1)
    assert all(-2.2 <= v <= 2.2 for k in range(200) for v in faces.coefficients(k).values())
    draws = np.array([list(faces.coefficients(k).values()) for k in range(400)])
    assert abs(draws.mean()) < 0.03 and 0.9 < draws.std() < 1.02
    assert np.abs(np.corrcoef(draws.T) - np.eye(draws.shape[1])).max() < 0.25


def test_sixty_identities_are_all_different():
    images = torch.stack([faces.render(k, size=32) for k in range(60)]).flatten(1)
    apart = torch.cdist(images, images, p=1) / images.shape[1] + torch.eye(60)
    assert apart.min() > 0.01
    turns = (faces.render(0, size=32) - faces.render(0, azimuth=9, size=32)).abs().mean()
    assert apart.median() > 2 * turns  # more than one step of the pose


# ---- the file

def test_layout(small):
    with h5py.File(small) as file:
        assert file["I"].shape == file["T"].shape == (3, 21, 11, 16, 16)
        assert file["I"].dtype == file["T"].dtype == np.uint8
        assert file["I"].shuffle and file["I"].compression and file["I"].chunks == (1, 1, 11, 16, 16)
        assert list(file["identity"]) == [0, 1, renderer.TEST_FROM] and file["identity"].dtype.kind == "i"
        for name in ("azimuth", "elevation", "light"):
            values = getattr(faces, name.upper() + "S")
            assert file[name].dtype == np.float32 and np.array_equal(file[name][:], values)
        for name, last in (("I", "elevation"), ("T", "light")):
            for dim, axis in zip(file[name].dims, ("identity", "azimuth", last)):
                assert dim.label == axis and dim[axis].name == "/" + axis
        found = dict(file.attrs)
        assert found.pop("cpu_seconds") > 0 and len(found.pop("sha256")) == 64
        assert all(file[name].fletcher32 for name in file)
        assert found == dict(format="mmvae-faces, with sha256", generator_version=faces.GENERATOR_VERSION, seed=0, size=16,
                             identities=2, test_identities=1)


def test_the_grid_is_the_experiment_s():
    assert len(faces.AZIMUTHS) == 21 and faces.AZIMUTHS[0] == -90 and faces.AZIMUTHS[-1] == 90
    assert len(faces.ELEVATIONS) == 11 and faces.ELEVATIONS[5] == 0 and faces.ELEVATIONS[-1] == 30
    assert len(faces.LIGHTS) == 11 and faces.LIGHTS[5] == 0 and faces.LIGHTS[-1] == 80


def test_the_file_holds_what_render_returns(small):
    with h5py.File(small) as file:
        for k, a, i in ((0, 0, 0), (1, 10, 5), (2, 13, 9)):
            pose = dict(identity=file["identity"][k], azimuth=faces.AZIMUTHS[a], size=16)
            for name, axis, values in (("I", "elevation", faces.ELEVATIONS), ("T", "light", faces.LIGHTS)):
                image = faces.render(**pose, **{axis: values[i]})
                assert np.abs(file[name][k, a, i] / 255.0 - image.numpy()).max() <= 0.5 / 255 + 1e-6
        neutral = file["I"][:, :, 5].astype(int) - file["T"][:, :, 5]
        assert np.abs(neutral).max() <= 1  # both modalities have the neutral picture


def stored(path):
    with h5py.File(path) as file:
        return {name: file[name][:] for name in file}


def test_any_number_of_processes_writes_the_same(small, tmp_path):
    faces.write(tmp_path / "two.h5", identities=2, test_identities=1, size=16, progress=False, jobs=2)
    one, two = stored(small), stored(tmp_path / "two.h5")
    assert set(one) == set(two) and all(np.array_equal(one[name], two[name]) for name in one)
    assert [p.name for p in tmp_path.iterdir()] == ["two.h5"]


def test_the_same_people_are_held_out_whatever_the_number_to_learn_from(small, tmp_path):
    faces.write(tmp_path / "one.h5", identities=1, test_identities=1, size=16, progress=False)
    two, one = stored(small), stored(tmp_path / "one.h5")
    assert list(one["identity"]) == [0, renderer.TEST_FROM]
    assert all(np.array_equal(one[name][-1], two[name][-1]) for name in "IT")
    test = faces.Pairs(tmp_path / "one.h5", "test")
    assert test.values["identity"].tolist() == [renderer.TEST_FROM]


def test_a_file_for_a_few_heads_is_rendered_in_this_process_and_one_for_many_on_every_core(tmp_path):
    asked = []

    def none(people, seed, size, device, jobs):
        asked.append(jobs)
        raise InterruptedError
        yield

    for count in (1, 15, 16, 800):
        with mock.patch.object(data_file, "heads", none), mock.patch("os.cpu_count", lambda: 4):
            with pytest.raises(InterruptedError):
                faces.write(tmp_path / "x.h5", identities=count, test_identities=0, progress=False)
    assert asked == [1, 1, 2, 4]


def fails(*_):
    raise RuntimeError("no such head")


def is_interrupted(*_):
    raise KeyboardInterrupt


def dies(*_):
    os._exit(3)


@pytest.mark.parametrize("head, error", [
    (fails, RuntimeError), (is_interrupted, KeyboardInterrupt), (dies, BrokenProcessPool)])
def test_a_process_that_fails_leaves_no_file_and_no_process(head, error, tmp_path, monkeypatch):
    monkeypatch.setattr(data_file, "head", head)
    pools, pool = [], data_file.ProcessPoolExecutor
    monkeypatch.setattr(data_file, "ProcessPoolExecutor", lambda *a, **k: pools.append(pool(*a, **k)) or pools[0])
    with pytest.raises(error):
        faces.write(tmp_path / "x.h5", identities=3, test_identities=0, size=16, progress=False, jobs=2)
    assert not list(tmp_path.iterdir()) and not pools[0]._processes


def test_same_arguments_same_bytes_and_other_counts_same_heads(small, tmp_path):
    faces.write(tmp_path / "one.h5", identities=1, test_identities=0, size=16, progress=False)
    faces.write(tmp_path / "again.h5", identities=1, test_identities=0, size=16, progress=False)
    two, one, again = ({name: h5py.File(path)[name][:] for name in "IT"}
                       for path in (small, tmp_path / "one.h5", tmp_path / "again.h5"))
    for name in "IT":
        assert np.array_equal(one[name], again[name]) and np.array_equal(one[name][0], two[name][0])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["again.h5", "one.h5"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_write_keeps_the_old_file_and_leaves_nothing_else(error, tmp_path, monkeypatch):
    path = tmp_path / "faces.h5"
    path.write_text("old")
    monkeypatch.setattr(renderer, "grid", lambda *_: (_ for _ in ()).throw(error()))
    with pytest.raises(error):
        faces.write(path, identities=1, test_identities=0, size=16, progress=False, jobs=1)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


# ---- bad input

@pytest.mark.parametrize("name, value", [
    ("size", 15), ("size", 513), ("size", 32.5), ("identity", -1), ("identity", 0.5), ("seed", -1),
    ("azimuth", 181), ("azimuth", float("nan")), ("azimuth", "east"), ("elevation", 61),
    ("light", float("inf")), ("light", None)])
def test_a_bad_argument_is_named(name, value):
    with pytest.raises(ValueError, match=rf"^{name}: expected .* from .* to .*, found"):
        faces.render(**{"identity": 0, name: value})


def test_a_bad_file_request_is_named(tmp_path):
    with pytest.raises(ValueError, match="^identities: expected a whole number from 1"):
        faces.write(tmp_path / "x.h5", identities=0)
    with pytest.raises(ValueError, match="^test_identities"):
        faces.write(tmp_path / "x.h5", test_identities=-1)
    with pytest.raises(ValueError, match="^jobs: expected a whole number from 1"):
        faces.write(tmp_path / "x.h5", jobs=0)
    with pytest.raises(ValueError, match="^jobs: expected 1 on device cuda, found 2"):
        faces.write(tmp_path / "x.h5", jobs=2, device="cuda")
    with pytest.raises(FileNotFoundError, match="^path: expected a folder that exists, found none at"):
        faces.write(tmp_path / "nowhere" / "x.h5")
    assert not list(tmp_path.iterdir())
