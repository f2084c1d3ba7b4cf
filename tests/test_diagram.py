"""Diagrams: drawn from the model, and different on paper exactly where the models differ in code."""
import re
import xml.etree.ElementTree as ET
from functools import partial

import pytest

from mmvae.diagram import diagram
from mmvae.models import MODELS, MuMoVAE, PoEVAE

small = {name: model(size=16) for name, model in MODELS.items()}


def pieces(model):
    """What is drawn, one string a piece, without the words about it."""
    svg = re.sub(r' aria-label="[^"]*"|<title>.*?</title>|<desc>.*?</desc>', "", diagram(model).data.decode())
    root = ET.fromstring(svg)
    return [ET.tostring(child, encoding="unicode") for child in root]


def filled(model):
    """{subset: does its badge say that the loss has it}."""
    svg = diagram(model).data.decode()
    badges = re.findall(r'data-subset="(\w+)"[^>]*?(fill="#6b6b6b"|stroke-dasharray)', svg)
    return {subset: how.startswith("fill") for subset, how in badges}


@pytest.mark.parametrize("name", MODELS)
def test_badges_are_filled_for_the_elbos_of_the_loss(name):
    assert filled(small[name]) == {s: s in small[name].subsets for s in ("I", "T", "IT")}


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
    assert pieces(MuMoVAE(size=16, subsets=("IT",))) != pieces(small["mumo"])
    assert filled(MuMoVAE(size=16, subsets=("I", "T"))) == {"I": True, "T": True, "IT": False}
    dots = "".join(pieces(PoEVAE(size=16, private=3, shared=4))).count('r="2.4"')
    assert dots == 3 + 4 + 3
    prior = "".join(pieces(partial(PoEVAE, single_prior=True)(size=16)))
    assert prior.count("×") == 2 + 1 + 1  # {I,T} has two products, each single posterior one
    assert "".join(pieces(small["poe-v2"])).count("×") == 2


def test_the_vanilla_vae_has_no_posterior_of_one_modality():
    assert "".join(pieces(small["vanilla"])).count("no posterior") == 2
    assert "no posterior" not in "".join(pieces(small["mumo"]))


def test_in_words():
    p = diagram("poe-v1")
    assert "MMPOE-VAE v1" in p.alt and "an ELBO for {I, T}, none for {I}, {T}" in p.alt and "product" in p.alt
    html = p._repr_html_()
    assert 'role="img"' in html and "<title>MMPOE-VAE v1</title>" in html and "currentColor" in html
    assert not re.search(r'\bid="', html)  # two diagrams on a page share no id
    assert min(float(s) for s in re.findall(r'font-size="([\d.]+)"', html)) >= 16


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match='found "mvae", expected one of vanilla, mumo'):
        diagram("mvae")
