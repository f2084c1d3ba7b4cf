"""Pictures: whole-number magnification, the order of columns, animations that loop, alternative text."""
import io
import math

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence

from mmvae.experiment import COLOURS, MODELS, figures
from mmvae.show import labels, picture, plot

matplotlib.use("Agg")
torch.set_num_threads(1)
R = picture.RETINA


@pytest.fixture(scope="module")
def x():
    g = torch.Generator().manual_seed(0)
    return {m: torch.rand(3, 1, 16, 16, generator=g) for m in "IT"}


@pytest.fixture(scope="module")
def mumo():
    torch.manual_seed(0)
    return MODELS["mumo"](size=16).eval()


def frames(data):
    return [f.convert("RGBA").copy() for f in ImageSequence.Iterator(Image.open(io.BytesIO(data)))]


def pixels(image):
    return np.asarray(image.convert("RGBA"))


def test_every_pixel_becomes_a_square_and_nothing_else():
    images = torch.rand(6, 1, 5, 4)
    shown = pixels(plot.grid(images, 3, alt="noise", magnify=3).image())
    by = 3 * R
    assert shown.shape == (2 * 5 * by, 3 * 4 * by, 4)
    grey = (images * 255).round().to(torch.uint8).reshape(2, 3, 5, 4).permute(0, 2, 1, 3)
    expected = grey.reshape(10, 12).numpy().repeat(by, 0).repeat(by, 1)
    for channel in range(3):
        assert (shown[..., channel] == expected).all()
    assert (shown[..., 3] == 255).all()


def test_gaps_labels_and_missing_images_are_transparent():
    images = torch.ones(4, 1, 8, 8)
    images[3] = math.nan
    shown = plot.grid(images, 2, alt="ones", magnify=2, groups=[("a", 1), (("z_I", "#0072B2"), 1)],
                      rows=[1, 1], names=["x_I", "x_T"])
    a = pixels(shown.image())
    left = a.shape[1] - R * (2 * 16 + picture.GAP)
    top = a.shape[0] - R * (2 * 16 + picture.GAP)
    assert a[0, 0, 3] == 0 and a[-1, -1, 3] == 0  # the corner, and the image that is not there
    assert (a[top:top + 16 * R, left:left + 16 * R] == 255).all()
    gap = left + 16 * R
    assert (a[top:, gap:gap + picture.GAP * R, 3] == 0).all()
    header = a[:top, gap:]  # the block's name, in its colour
    solid = header[header[..., 3] == 255][:, :3]
    assert len(solid) and (solid == (0x00, 0x72, 0xB2)).all()


@pytest.mark.parametrize("size, expected", [(16, 4), (32, 2), (64, 1)])
def test_faces_of_a_traversal_are_64_wide_at_any_size(size, expected):
    model, ones = MODELS["mumo"](size=size).eval(), {m: torch.rand(1, 1, size, size) for m in "IT"}
    p = plot.traversal_gif(model, ones, frames=4)
    assert p.box[2] == expected and p.width <= 720 and len(p.data) < 1_500_000


@pytest.mark.parametrize("name", ["mumo", "vanilla", "wg-v1"])
def test_traversal_moves_one_latent_and_holds_the_others(name, x):
    model = MODELS[name](size=16).eval()
    values = [-1.0, 2.0]
    moved = plot.traversal(model, x, values)
    latents = [(b, k) for b, dim in model.blocks.items() for k in range(dim)]
    assert moved["I"].shape == (2, len(latents), 3, 1, 16, 16)
    with torch.no_grad():
        z = {b: q.mu.clone() for b, q in model.posterior(x).items()}
        block, k = latents[-1]
        z[block][:, k] = values[1]
        torch.testing.assert_close(moved["T"][1, -1], model.means(z)["T"])


def test_columns_run_truth_then_zi_zs_zt(mumo):
    labels = plot._columns(mumo)
    names = [g[0] if isinstance(g[0], str) else g[0][0] for g in labels["groups"]]
    assert names == ["truth", "z_I", "z_S", "z_T"]
    assert [g[1] for g in labels["groups"]] == [1, 2, 5, 2] and labels["columns"] == 10
    assert [g[0][1] for g in labels["groups"][1:]] == ["#0072B2", "#009E73", "#D55E00"]
    assert [h[0] for h in labels["heads"][1:]] == list("121234512")
    assert [g[1] for g in plot._columns(MODELS["vanilla"](size=16))["groups"]] == [1, 10]
    assert [g[1] for g in plot._columns(MODELS["wg-v1"](size=16))["groups"]] == [1, 10]


def test_animation_loops_there_and_back_over_the_decoded_images(mumo, x):
    p = plot.traversal_gif(mumo, x, frames=8)
    shown, file = frames(p.data), Image.open(io.BytesIO(p.data))
    assert len(shown) == 8 and file.info["loop"] == 0
    for k in range(1, 4):  # the way back is the way there
        assert (pixels(shown[k]) == pixels(shown[8 - k])).all()
    assert (pixels(shown[0]) != pixels(shown[4])).any()
    lane = shown[0].height - (6 * 16 + 2 * -(-picture.GAP // p.box[2]))  # above the images
    truth = pixels(shown[3])[lane:lane + 16, :16, 0]
    assert (truth == (x["I"][0, 0] * 255).round().numpy()).all()
    values = [-2.5 * math.cos(2 * math.pi * k / 8) for k in range(5)]
    last = plot.traversal(mumo, x, values)["T"][3, -1, -1, 0]  # frame 3, latent zT2, third pair
    assert (pixels(shown[3])[-16:, -16:, 0] == (last * 255).round().numpy()).all()
    html = p._repr_html_()
    assert "image-rendering:pixelated" in html and "prefers-reduced-motion" in html


def test_an_animation_too_large_keeps_its_size_with_fewer_greys():
    noise = torch.rand(6, 4, 1, 64, 64)
    large = plot.grid(noise, 2, alt="noise", limit=10**9)
    small = plot.grid(noise, 2, alt="noise", limit=len(large.data) * 3 // 4)
    assert len(small.data) <= len(large.data) * 3 // 4
    assert frames(small.data)[0].size == frames(large.data)[0].size


def test_saved_files_hold_the_labels_and_nothing_is_left_behind(mumo, x, tmp_path):
    p = plot.traversal_gif(mumo, x, frames=4, path=tmp_path / "t.gif")
    p.save(tmp_path / "t.webp"), p.save(tmp_path / "t.png")
    assert sorted(f.name for f in tmp_path.iterdir()) == ["t.gif", "t.png", "t.webp"]
    for name, scale in (("t.gif", 1), ("t.webp", R), ("t.png", R)):
        file = Image.open(tmp_path / name)
        assert file.width == scale * p.width and getattr(file, "n_frames", 1) == (1 if name == "t.png" else 4)
    assert Image.open(tmp_path / "t.gif").info["loop"] == 0
    colours = set(map(tuple, pixels(Image.open(tmp_path / "t.gif"))[..., :3].reshape(-1, 3).tolist()))
    assert {(255, 255, 255), (0x00, 0x72, 0xB2), (0x00, 0x9E, 0x73), (0xD5, 0x5E, 0x00)} <= colours
    assert (pixels(Image.open(tmp_path / "t.png"))[:20 * R, 100 * R:, 3] > 0).any()
    with pytest.raises(ValueError, match=r'found suffix ".bmp", expected ".webp", ".gif" or ".png"'):
        p.save(tmp_path / "t.bmp")


def test_strip_shows_the_truth_once_in_each_group(mumo, x):
    a = pixels(plot.traversal_strip(mumo, x, pair=1).image())
    face, gap = 64 * R, -(-picture.GAP // 4) * 4 * R
    left = a.shape[1] - (10 * face + 3 * gap)
    top = a.shape[0] - (6 * face + gap)
    column = a[top:, left:left + face, 3]
    assert (column[face:2 * face] == 255).all()
    assert (column[:face] == 0).all() and (column[2 * face:3 * face] == 0).all()
    grey = (x["T"][1, 0] * 255).round().numpy().repeat(4 * R, 0).repeat(4 * R, 1)
    middle = top + 4 * face + gap  # x_T at 0
    assert (a[middle:middle + face, left:left + face, 0] == grey).all()


def test_cross_modal_gives_truth_samples_and_needs_a_posterior_of_one(mumo, x):
    p = plot.cross_modal(mumo, x, samples=2, seed=3)
    assert p.data == plot.cross_modal(mumo, x, samples=2, seed=3).data
    assert p.data != plot.cross_modal(mumo, x, samples=2, seed=4).data
    a = pixels(p.image())
    by = 5  # the largest whole number that keeps 8 columns within the page
    face, gap = 16 * R * by, 2 * by * R  # a gap is a whole number of the images' pixels
    grey = (x["I"][0, 0] * 255).round().numpy().repeat(face // 16, 0).repeat(face // 16, 1)
    top = a.shape[0] - (3 * face + 2 * gap)
    assert (a[top:top + face, :face, 0] == grey).all()  # the given image comes first
    with pytest.raises(ValueError, match="VanillaVAE"):
        plot.cross_modal(MODELS["vanilla"](size=16).eval(), x)


def test_reconstructions_and_prior_samples(mumo, x):
    assert "xI" in plot.reconstructions(mumo, x).alt
    assert plot.prior_samples(mumo, 4, seed=1).data == plot.prior_samples(mumo, 4, seed=1).data


def test_data_figures():
    calls = []

    def render(identity, azimuth=0.0, elevation=0.0, light=0.0, size=64):
        calls.append((identity, azimuth, elevation, light))
        return torch.zeros(size, size)

    figures.sweeps(render, identity=2, size=16)
    assert len(calls) == 28 and calls[0] == (2, -90.0, 0.0, 0.0) and calls[-1][0] == 8
    assert all(sum(v != 0 for v in call[1:]) <= 1 for call in calls)  # one factor at a time
    assert "8 heads" in figures.contact_sheet(render, size=16).alt
    factors = {k: torch.tensor([-18.0, 0.0]) for k in ("azimuth", "elevation", "light")}
    x = {m: torch.rand(2, 1, 16, 16) for m in "IT"}
    assert "heads" in figures.pairs(x, factors).alt
    homes = {"elevation": "I", "light": "T", "azimuth": "S"}
    assert figures.pairs(x, factors).data == plot.pairs(x, factors, homes, "°").data != plot.pairs(x).data


def test_every_picture_has_text_for_those_who_cannot_see(mumo, x):
    with pytest.raises(ValueError, match="alt"):
        plot.grid(torch.rand(1, 1, 4, 4), 1, alt=" ")
    p = plot.prior_samples(mumo, 2, alt='Two "heads" <b>')
    bundle, metadata = p._repr_mimebundle_()
    assert 'alt="Two &quot;heads&quot; &lt;b&gt;"' in bundle["text/html"] and bundle["text/plain"] == p.alt
    assert f'width="{p.width}"' in bundle["text/html"] and metadata["image/png"]["width"] == p.width


@pytest.mark.parametrize("change, message", [
    ({"columns": 4}, "multiple of 4"), ({"heads": ["a"]}, "heads: found 1 for 3"),
    ({"names": ["a"]}, "names: found 1"),
    ({"groups": [("a", 2)]}, "groups: found 2"), ({"captions": ["a"]}, "captions: found 1 for 6"),
    ({"images": torch.zeros(6, 4, 4)}, r"expected \(N, 1, h, w\)")])
def test_counts_that_do_not_match_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        plot.grid(**{"images": torch.zeros(6, 1, 4, 4), "columns": 3, "alt": "x"} | change)


def test_loss_curves_draw_each_term_and_take_the_page_s_colour():
    log = {"iteration": np.arange(5.0), "total": np.ones(5), "I+T.reconstruction.I": np.arange(5.0),
           "I+T.kl.S": np.arange(5.0), "S.kl.S": np.arange(5.0)}
    svg = plot.loss_curves(log, smooth=2).data.decode()
    assert "currentColor" in svg and picture.GREY.lower() not in svg.lower()
    assert svg.lower().count("#0072b2") >= 1 and "#009e73" in svg.lower() and 'role="img"' in svg
    with pytest.raises(ValueError, match="reconstruction"):
        plot.loss_curves({"iteration": np.arange(2.0), "total": np.ones(2)})


def test_heatmap_prints_its_numbers_and_two_charts_share_no_id(tmp_path):
    import re
    a = plot.heatmap({"I": {"light": 0.25}, "S": {"light": float("nan")}}, colours=COLOURS)
    assert "I: light 0.25" in a.alt
    b = plot.heatmap(np.eye(2), ["I", "T"], ["light", "azimuth"])
    ids = [set(re.findall(r'id="([^"]+)"', p.data.decode())) for p in (a, b)]
    assert not ids[0] & ids[1]
    used = set(re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', a.data.decode()))
    assert {u or v for u, v in used} <= ids[0]
    b.save(tmp_path / "b.svg")
    assert b"currentColor" not in (tmp_path / "b.svg").read_bytes()
    with pytest.raises(ValueError, match=r"expected \(2, 1\)"):
        plot.heatmap(np.eye(2), ["I", "T"], ["light"])
