"""Diagrams: drawn from the model, and different on paper exactly where the models differ in code."""
import re
import xml.etree.ElementTree as ET

import pytest
import torch

import mmvae
from mmvae.experiment import MODELS, figures
from mmvae.gaussian import Gaussian
from mmvae.show.diagram import diagram

small = {name: model(size=16) for name, model in MODELS.items()}


def pieces(model):
    """What is drawn, one string a piece, without the words about it."""
    svg = re.sub(r' aria-label="[^"]*"|<title>.*?</title>|<desc>.*?</desc>', "", diagram(model).data.decode())
    root = ET.fromstring(svg)
    return [ET.tostring(child, encoding="unicode") for child in root]


def filled(model):
    """{subset: does its badge say that the loss has it}."""
    svg = diagram(model).data.decode()
    badges = re.findall(r'data-subset="([^"]+)"[^>]*?(fill="#6b6b6b"|stroke-dasharray)', svg)
    return {subset: how.startswith("fill") for subset, how in badges}


@pytest.mark.parametrize("name", MODELS)
def test_badges_are_filled_for_the_elbos_of_the_loss(name):
    assert filled(small[name]) == {s: tuple(s.split("+")) in small[name].subsets for s in ("I", "T", "I+T")}


@pytest.mark.parametrize("kind", ["poe", "wg"])
def test_v1_and_v2_differ_in_the_badges_of_single_modalities_alone(kind):
    v1, v2 = pieces(small[f"{kind}-v1"]), pieces(small[f"{kind}-v2"])
    assert len(v1) == len(v2)
    differ = [(a, b) for a, b in zip(v1, v2) if a != b]
    assert len(differ) == 4  # the box and the text of ELBO{I} and of ELBO{T}
    assert all("ELBO" in a or "data-subset" in a for a, _ in differ)


def test_models_share_every_place_that_they_have_in_common():
    mumo, poe = set(pieces(small["mumo"])), set(pieces(small["poe-v2"]))
    shared = "".join(mumo & poe)
    for block in ("#0072B2", "#009E73", "#D55E00"):
        assert f'fill="{block}"' in shared  # the same blocks at the same places
    assert any(' r="14"' in p for p in poe) and not any(' r="14"' in p for p in mumo)  # the product


def test_the_drawing_follows_the_model_not_its_name():
    assert pieces(MODELS["mumo"](size=16, subsets=[("I", "T")])) != pieces(small["mumo"])
    assert filled(MODELS["mumo"](size=16, subsets=[("I",), ("T",)])) == {"I": True, "T": True, "I+T": False}
    dots = "".join(pieces(MODELS["poe-v2"](size=16, private=3, shared=4))).count('r="2.4"')
    assert dots == 3 + 4 + 3
    prior = "".join(pieces(MODELS["poe-v2"](size=16, single_prior=True)))
    assert prior.count("×") == 2 + 1 + 1  # {I,T} has two products, each single posterior one
    assert "".join(pieces(small["poe-v2"])).count("×") == 2


def test_the_vanilla_vae_has_no_posterior_of_one_modality():
    assert "".join(pieces(small["vanilla"])).count("no posterior") == 2
    assert "no posterior" not in "".join(pieces(small["mumo"]))


def test_in_words():
    p = figures.diagram("poe-v1")
    assert "MMPOE-VAE v1" in p.alt and "an ELBO for {I, T}, none for {I}, {T}" in p.alt and "product" in p.alt
    html = p._repr_html_()
    assert 'role="img"' in html and "<title>MMPOE-VAE v1</title>" in html and "currentColor" in html
    assert not re.search(r'\bid="', html)  # two diagrams on a page share no id
    assert min(float(s) for s in re.findall(r'font-size="([\d.]+)"', html)) >= 16


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match='found "mvae", expected one of vanilla, mumo'):
        figures.diagram("mvae")


WORDS = "image", "sound", "text", "touch", "smell"


def several(kind, count, **options):
    return kind({m: mmvae.vectors(4, private=1) for m in WORDS[:count]}, **options)


@pytest.mark.parametrize("kind", [mmvae.PoEVAE, mmvae.MuMoVAE, mmvae.VanillaVAE])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_any_number_of_modalities_is_drawn_by_its_names(kind, count):
    model = several(kind, count)
    p = diagram(model)
    svg = p.data.decode()
    drawing = "".join(pieces(model))
    root = ET.fromstring(svg)
    width, height = map(float, root.get("viewBox").split()[2:])
    boxes = [[float(box.get(k)) for k in ("x", "y", "width", "height")] for box in root.iter() if box.tag.endswith("rect")]
    assert all(x >= 0 and y >= 0 and x + w <= width and y + h <= height for x, y, w, h in boxes)
    assert not any(a != b and a[0] < b[0] + b[2] and b[0] < a[0] + a[2] and a[1] < b[1] + b[3] and b[1] < a[1] + a[3]
                   for a in boxes for b in boxes)  # none lies on another
    for m in WORDS[:count]:
        assert f">{m}<" in drawing and f"x {m}" in p.alt
    assert "head" not in p.alt and "image" in p.alt and ("product" in p.alt) == (kind is mmvae.PoEVAE and count > 1)
    assert len(re.findall("ELBO", drawing)) == (1 if count == 5 else 2 ** count - 1)  # of five, 31 badges are one
    assert drawing.count("no posterior") == (2 ** count - 2 if kind is mmvae.VanillaVAE and count < 5 else 0)


def test_of_five_modalities_the_losses_elbos_alone_have_a_badge():
    model = several(mmvae.PoEVAE, 5, subsets=[("sound",), ("image", "touch")])
    assert filled(model) == {"sound": True, "image+touch": True}


class Own(mmvae.PoEVAE):
    """The joint posterior is a mixture, as the Gaussian of its moments."""

    def fuse(self, experts):
        q = {m: experts[m][m] for m in experts}
        q["S"] = mmvae.mixture_of_experts([e["S"] for e in experts.values()]).moments()
        assert isinstance(q["S"], Gaussian)
        return q


class Mixed(Own):
    def fuse(self, experts):
        return super().fuse(experts)

    fuse.sign = "+"


class Sharp(Own):
    def fuse(self, experts):
        return super().fuse(experts)

    fuse.sign, fuse.prior = "×", False


def test_what_is_no_product_is_called_none():
    own = several(Own, 2)
    drawing = "".join(pieces(own))
    assert "product" not in diagram(own).alt and "×" not in drawing and "own rule" in drawing
    assert "own rule" in diagram(own).alt and "l12 12m0" not in drawing  # no cross in its node
    mixed = several(Mixed, 3)
    assert "mixture" in diagram(mixed).alt and "product" not in diagram(mixed).alt
    drawing = "".join(pieces(mixed))
    assert drawing.count(" + ") == 3 + 2 and 'stroke-dasharray="2 6"' not in drawing  # and no prior
    sharp = diagram(several(Sharp, 2))
    assert "product of the two encoders' Gaussians." in sharp.alt and "and the prior" not in sharp.alt


def test_a_model_without_networks_by_subset_is_one_box():
    class Mine(mmvae.MultiModalVAE):
        pass

    model = several(Mine, 2, shared=3)
    drawing = "".join(pieces(model))
    assert "Mine" in drawing and "own rule" not in drawing and "no posterior" not in drawing
    assert "networks of its own" in diagram(model).alt
    assert filled(model) == {"image": True, "sound": True, "image+sound": True}
    model.encoders = torch.nn.ModuleDict({"everything": torch.nn.Identity()})
    assert "Mine" in "".join(pieces(model))


def test_long_names_stay_in_their_boxes():
    model = mmvae.PoEVAE({m: mmvae.vectors(3, private=1) for m in ("spectrogram", "left_eye", "left eye")})
    drawing = "".join(pieces(model))
    assert "spectrogram<" in drawing and "…<" in drawing and "ELBO {spectrogram, left_eye, left eye}" in drawing
