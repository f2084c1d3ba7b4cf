"""Modalities of every kind as pictures: what they are by their values, one scale for all, what is missing, any model."""
import math
import re

import numpy as np
import pytest
import torch

import mmvae
from mmvae.likelihoods import Normal
from mmvae.nets import Modality
from mmvae.show import compare, labels, picture, plot, tiles

torch.set_num_threads(1)
R = labels.RETINA
KINDS = {  # name: (modality, data (3, ...), kind)
    "grey": (mmvae.images(8, private=1), torch.rand(3, 1, 8, 8), "grey"),
    "colour": (mmvae.images(16, 3, private=1), torch.rand(3, 3, 16, 16), "colour"),
    "wide": (mmvae.images((24, 300), private=1), torch.rand(3, 1, 24, 300), "grey"),
    "sound": (mmvae.images((24, 28), likelihood=Normal()), 3 * torch.randn(3, 1, 24, 28), "grey"),
    "stereo": (mmvae.images((8, 12), 2, likelihood=Normal()), torch.randn(3, 2, 8, 12), "array"),
    "table": (mmvae.vectors((6, 9)), torch.randn(3, 6, 9), "array"),
    "block": (mmvae.vectors((2, 3, 4, 5)), torch.randn(3, 2, 3, 4, 5), "array"),
    "genes": (mmvae.vectors(8), torch.randn(3, 8), "bars"),
    "one": (mmvae.vectors(1), torch.randn(3, 1), "bars"),
    "wave": (mmvae.vectors(100), torch.randn(3, 100), "curve"),
    "label": (mmvae.categories(10), torch.tensor([7, 0, 9]), "classes"),
    "thousand": (mmvae.categories(1000), torch.tensor([7, 0, 999]), "classes"),
    "text": (mmvae.categories(12, length=5), torch.randint(12, (3, 5)), "sequence")}


def pixels(p):
    return np.asarray(p.image())


def model_of(*names, kind=mmvae.PoEVAE, **options):
    torch.manual_seed(0)
    return kind({m: KINDS[m][0] for m in names}, **options).eval(), {m: KINDS[m][1] for m in names}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_becomes_pictures_of_one_size(name):
    modality, x, kind = KINDS[name]
    values = tiles.as_values(modality, x)
    how = tiles.look(modality, [values])
    made = tiles.tile(modality, values, 48, 64)
    assert how.kind == kind and made.dtype == torch.uint8 and made.shape == (3, 4, 48 * R, 64 * R)
    assert all(len(t.unique()) > 1 for t in made) and (made[0] != made[1]).any() and str(how)
    unknown = Modality(modality.encoder, modality.decoder, modality.likelihood)  # its shape is None
    assert (tiles.tile(unknown, values, 48, 64) == made).all()


def test_a_picture_s_pixels_are_squares_and_its_colours_its_own():
    x = torch.tensor([[1, 0.0], [0.2, 1]]).expand(1, 3, 2, 2).clone()
    x[0, 1, 0, 0] = 0.4
    made = tiles.tile(KINDS["colour"][0], x, 16)[0]
    inside = made[:, 2:-2, 2:-2]
    assert (inside[:, :14, :14].flatten(1) == torch.tensor([255, 102, 255, 255])[:, None]).all()
    assert (inside[:3, 14:, :14] == 51).all() and (made[3, :2] == 0).all()


def test_what_is_beyond_the_range_of_pictures_is_scaled_and_says_so():
    modality = KINDS["sound"][0]
    low = torch.full((1, 1, 4, 4), -3.0)
    how = tiles.look(modality, [torch.cat([low, -low])])
    assert (how.low, how.high) == (-3, 3) and how.note == "−3 to 3" and "−3 to 3" in str(how)
    made = tiles.tile(modality, torch.cat([low, -low, 0 * low]), 16, how=how)
    assert [t[0, 16, 16].item() for t in made] == [0, 255, 128]
    assert not tiles.look(modality, [torch.rand(2, 1, 4, 4)]).note  # a picture with another likelihood stays as it is
    model, x = model_of("sound", "label")
    p = plot.reconstructions(model, x)
    assert " to " in p.alt and "x sound (grey picture of 24 × 28, −" in p.alt


def test_bars_share_one_scale_and_begin_at_zero():
    modality, how = mmvae.vectors(3), tiles.Look("bars", 0.0, 4.0, (3,))
    made = tiles.tile(modality, torch.tensor([[4.0, 2, 0], [2, 2, 2]]), 60, how=how)
    solid = (made[:, 3] == 255).float()
    heights = solid[:, :, [20, 60, 100]].sum(1)  # of three bars, and of the line that they stand on
    assert heights[0, 0] > 1.8 * heights[0, 1] > 3 * heights[0, 2] and heights[1].tolist() == [heights[0, 1]] * 3
    down = tiles.tile(modality, torch.tensor([[-1.0, 0, 1]]), 60)[0, 3]
    assert (down[61:100, 20] == 255).all() and (down[20:58, 100] == 255).all() and (down[20:58, 20] < 255).all()


def test_the_most_probable_class_is_named_in_the_reader_s_words():
    modality = KINDS["label"][0]
    values = tiles.as_values(modality, torch.tensor([3, 3]))
    how = [tiles.look(modality, [values], words) for words in ((), ("n",) * 3 + ("three",) + ("n",) * 6, ("n",) * 10)]
    shown = [tiles.tile(modality, values, 60, how=h)[0] for h in how]
    assert not any((a == b).all() for a, b in ((shown[0], shown[1]), (shown[1], shown[2])))
    assert (shown[0][:, 60:] == shown[1][:, 60:]).all()  # the bars are the same
    tiles.tile(modality, values, 40, how=tiles.look(modality, [values], ["a word that is much too long for its tile"] * 10))


def test_what_was_not_observed_is_a_dashed_frame():
    modality, x, _ = KINDS["label"]
    values = tiles.as_values(modality, x, torch.tensor([True, False, True]))
    assert values[1].isnan().all() and values[[0, 2]].sum() == 2
    made = tiles.tile(modality, values, 40)
    assert (made[1, 3, 20:60, 20:60] == 0).all() and 0 < (made[1, 3, 4] == 255).sum() < 70


def test_a_grid_of_tiles_is_exact_and_checks_its_counts():
    cells = torch.randint(255, (4, 4, 20, 12), dtype=torch.uint8)
    cells[:, 3] = 255
    shown = np.asarray(picture.grid(cells, 2, alt="noise").image())
    assert shown.shape == (40, 24, 4) and (shown[20:, 12:] == cells[3].permute(1, 2, 0).numpy()).all()
    with pytest.raises(ValueError, match=r"expected \(N, 1, h, w\) or \(N, 3, h, w\)"):
        picture.grid(torch.zeros(2, 2, 4, 4), 1, alt="x")
    colour = torch.rand(2, 3, 4, 4)
    shown = np.asarray(picture.grid(colour, 2, alt="x", magnify=1).image())
    assert (shown[::R, 4 * R::R, :3] == (colour[1] * 255).round().permute(1, 2, 0).numpy()).all()
    assert (shown[..., 3] == 255).all()
    film = picture.grid(torch.rand(3, 2, 3, 8, 8), 2, alt="x")
    assert film.kind == "webp" and not film.tints and film.film("gif")[:3] == b"GIF"


@pytest.mark.parametrize("kind, names", [(mmvae.VanillaVAE, ("grey",)), (mmvae.PoEVAE, ("genes", "colour")), (
    mmvae.MuMoVAE, ("grey", "sound", "label")), (mmvae.VanillaVAE, ("table", "text"))])
def test_every_figure_takes_any_modalities(kind, names):
    model, x = model_of(*names, kind=kind)
    x, two = {m: v[:1] for m, v in x.items()}, {"one": model, "two": model}
    before = [plot.traversal_strip(model, x), plot.reconstructions(model, x), plot.prior_samples(model, 2),
              plot.pairs(x, {"age": torch.tensor([1.0])}, modalities=model.modalities), plot.pairs(x),
              plot.traversal_gif(model, x, frames=4)]
    before += [compare.reconstructions(two, x), compare.prior_samples(two, 1, x), compare.traversals(two, x, frames=4)]
    if kind is not mmvae.VanillaVAE:
        before += [plot.cross_modal(model, x, samples=2), compare.cross_modal(two, x, *names[:2])]
    for p in before:
        assert p.width <= 800 and "{" not in p.alt and not {"head", "elevation", "light"} & set(p.alt.split())
        assert any(m in p.alt for m in names)
    moved = plot.traversal(model, x, values=[0.0, 1.0])
    latents = sum(model.blocks.values())
    assert all(moved[m].shape[:3] == (2, latents, 1) for m in names)


def test_a_figure_shows_the_likelihood_s_mean():
    model, x = model_of("grey", "sound")
    net = model.decoders["sound"]
    torch.nn.init.zeros_(net.pixels.weight)
    torch.nn.init.constant_(net.pixels.bias, 0.2)
    assert torch.allclose(plot.traversal(model, x, [0.0])["sound"], torch.tensor(0.2))
    assert torch.allclose(compare.crossed(model, x, "grey", "sound"), torch.tensor(0.2))
    given = compare.crossed(model, x, ("grey",), "sound", 2)
    assert given.shape == (3, 2, 1, 24, 28)


def test_given_and_imagined_are_told_apart():
    model, x = model_of("grey", "sound", "label")
    some = plot.reconstructions(model, {m: x[m] for m in ("grey", "label")})
    assert "the model's x sound, imagined, since it was not given" in some.alt
    gaps = plot.reconstructions(model, x, present={"label": torch.tensor([True, False, True])})
    assert "the model's x label, imagined in 1 of 3" in gaps.alt
    whole = plot.reconstructions(model, x)
    assert "imagined" not in whole.alt and pixels(gaps).shape != pixels(whole).shape
    plot.traversal_gif(model, {"grey": x["grey"]}, frames=4)
    strip = plot.traversal_strip(model, {"label": x["label"]}, present={"label": torch.tensor([True] * 3)})
    assert "x sound" in strip.alt
    model, x = model_of("grey", "label", kind=mmvae.VanillaVAE)
    with pytest.raises(ValueError, match="VanillaVAE has no posterior of fewer"):
        plot.reconstructions(model, {"grey": x["grey"]})


def test_cross_modal_goes_from_any_subset_to_any_other():
    model, x = model_of("grey", "sound", "label")
    every = plot.cross_modal(model, x, samples=2)
    assert every.alt.count("Given") == 6
    one = plot.cross_modal(model, x, samples=2, directions=[(("grey", "label"), "sound")])
    assert one.alt.count("Given") == 1 and "Given x grey, x label: the true x sound" in one.alt
    blind = plot.cross_modal(model, {"label": x["label"]}, samples=2)
    assert blind.alt.count("Given x label") == 2 and "the true" not in blind.alt


def test_pictures_of_one_size_are_drawn_pixel_by_pixel_in_grey_and_colour():
    model = mmvae.PoEVAE({"I": mmvae.images(16, private=2), "T": mmvae.images(16, 3, private=2)}).eval()
    x = {"I": torch.rand(2, 1, 16, 16), "T": torch.rand(2, 3, 16, 16)}
    shown = pixels(plot.pairs(x))
    face = 128 * R
    colour = (x["T"][1] * 255).round().permute(1, 2, 0).numpy().repeat(8 * R, 0).repeat(8 * R, 1)
    assert (shown[-face:, -face:, :3] == colour).all()
    assert plot.traversal_gif(model, x, frames=4).box[2] == 4


def test_colours_follow_the_order_of_private_blocks():
    assert labels.colours(("I", "S", "T", "Z", "x")) == {"I": "#0072B2", "S": "#009E73", "T": "#D55E00", "Z": "#797979",
                                                         "x": "#797979"}
    many = labels.colours([*"abcdefgh", "S"])
    assert len(set(many.values())) == 7 and many["g"] == many["a"]
    assert labels.ink("#0072B2") == "#0072B2" and labels.ink("#D55E00") == "#D55E00" and labels.ink("#009E73") == "#009E73"
    assert all(1.05 / (labels.luminance(labels.ink(c)) + 0.05) >= 3 for c in labels.PRIVATE)


def test_a_subscript_is_a_word():
    def said(label):
        return [(text, low > 0) for text, _, low in labels.parts(label, labels.LABEL)]

    assert said("z_I from prior") == [("z", False), ("I", True), (" from prior", False)]
    assert said("x_I  +2") == [("x", False), ("I", True), ("  +2", False)]
    assert said("z_digit") == [("z", False), ("digit", True)]
    assert said(labels.symbol("x", "left_eye 2")) == [("x", False), ("left_eye 2", True)]
    assert labels.length(labels.cut("z_spectrogram", labels.SMALL, 50), labels.SMALL) <= 50
    assert labels.cut("a long label that has none", labels.SMALL, 20) == "a long label that has none"


def test_loss_curves_and_tables_take_any_names():
    names = [f"{s}.{t}" for s in ("digit+sound+left eye", "digit") for t in ("reconstruction.digit", "kl.S", "kl.left eye")]
    log = {"iteration": np.arange(4.0), "total": np.ones(4)} | {name: np.arange(4.0) for name in names}
    svg = plot.loss_curves(log).data.decode()
    assert "#0072b2" in svg.lower() and "#009e73" in svg.lower() and "#cc79a7" in svg.lower()  # the third modality's
    single = {name.replace("digit+sound+left eye", "sound"): v for name, v in log.items()}
    plot.loss_curves(single)
    tints = labels.colours(("left_eye", "S"))
    assert "left_eye: age 0.50" in plot.heatmap({"left_eye": {"age": 0.5}, "S": {"age": math.nan}}, colours=tints).alt
    assert "z<sub>digit</sub>" in plot.block("digit", tints["S"]) and "&lt;" in plot.block("<b>")


def cells(table):
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in re.findall("<tr>(.*?)</tr>", table.html)]


def test_a_table_holds_one_number_a_cell():
    rows = [["a", "−8.3 (−10.3 to −6.5), p&nbsp;=&nbsp;0.02", "2 to 3", "1.2 ± 0.1°"], ["b", "–", "1", "left to right"]]
    table = plot.table(["model", "difference", "latents", "error"], rows)
    assert '<th>latents: from</th><th class="end">to</th>' in table.html
    assert cells(table) == [["model", "difference", "from", "to", "p", "latents: from", "to", "error"],
                            ["a", "−8.3", "−10.3", "−6.5", "0.02", "2", "3", "1.2\xa0±\xa00.1°"],
                            ["b", "–", "", "", "", "1", "1", "left to right"]]
    assert re.findall('class="bound">(.*?)<', table.html)[:5] == ["from", "to", "p", "−10.3", "−6.5"]
    assert cells(plot.table(["seeds", "found"], [["2 to 3", "15 of 20 (0.53 to 0.89)"]])) == [
        ["seeds", "found", "from", "to"], ["2 to 3", "15\xa0of\xa020", "0.53", "0.89"]]
    assert cells(plot.table(["given", "nats"], [["{I, T}", "-2.5"]]))[1] == ["{I,\xa0T}", "−2.5"]
    assert cells(plot.table(["from xI", "v1"], [["zS of x<sub>T</sub>", "maxI"]])) == [
        ["from x<sub>I</sub>", "v1"], ["z<sub>S</sub> of x<sub>T</sub>", "maxI"]]
    assert cells(plot.table(["a", "b"], [])) == [["a", "b"]]
    with pytest.raises(ValueError, match="rows: expected 2 cells in each, as in the head, found 1 in row 1"):
        plot.table(["a", "b"], [["x", "y"], ["z"]])


def test_rows_of_a_reader_s_own_modality_are_shown_by_their_values():
    own = Modality(lambda n: torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, n)),
                   lambda n: torch.nn.Sequential(torch.nn.Linear(n, 12), torch.nn.Unflatten(1, (3, 4))), Normal())
    model = mmvae.PoEVAE({"mine": own, "label": mmvae.categories(3)}).eval()
    p = plot.reconstructions(model, {"mine": torch.randn(2, 3, 4), "label": torch.tensor([0, 2])})
    assert "3 × 4 numbers as greys" in p.alt
    assert p.image().width == R * p.width
