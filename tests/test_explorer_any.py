"""The explorer of models that are not the book's, in a real browser: any modalities, any kinds of data; and those that only a
kernel can compute."""
import re

import numpy as np
import pytest
import torch

from browser import browser, in_kernel, needs_chromium, opened, pixels, settled, slide, write
from mmvae import MuMoVAE, PoEVAE, VanillaVAE, categories, images, vectors
from mmvae.likelihoods import NegativeBinomial, Normal
from mmvae.show import widgets
from test_page import Moments, Mixed, lively, made, own_encoders, X

pytestmark = needs_chromium
torch.set_num_threads(1)

LABELS = ["zero", "one", "two", "three & <b>"]


def three(kind=PoEVAE, **options):
    """A picture of 8x8, a spectrogram of 16x24 that goes below 0, a class."""
    torch.manual_seed(4)
    model = lively(kind({"image": images(8, private=2), "sound": images((16, 24), private=1, likelihood=Normal()),
                         "name": categories(4)}, **options))
    with torch.no_grad():  # so that its classes differ
        for key, value in model.decoders.named_parameters():
            value.mul_(3) if "name.last" in key else None
    return model, {"image": torch.rand(3, 1, 8, 8), "sound": 2 * torch.randn(3, 1, 16, 24), "name": torch.tensor([1, 3, 0])}


def colour(kind=MuMoVAE, **options):
    torch.manual_seed(3)
    model = lively(kind({"photo": images((10, 28), 3, private=1), "table": vectors(5, private=1),
                         "curve": vectors(40, likelihood=NegativeBinomial())}, **options))
    return model, {"photo": torch.rand(2, 3, 10, 28), "table": 9 * torch.randn(2, 5), "curve": torch.randint(0, 30, (2, 40)).float()}


@pytest.fixture(scope="module")
def chromium():
    with browser() as running:
        yield running


def shown(tab, m, side="made"):
    """The classes as they stand: {label: share}."""
    return dict(tab.evaluate(f"""[...document.querySelectorAll('[data-{side}={m}] .class')].map((line) =>
        [line.firstChild.textContent, +line.style.getPropertyValue('--p')])"""))


def of_torch(model, z, m):
    with torch.no_grad():
        return model.means({b: torch.as_tensor(v)[None] for b, v in z.items()})[m][0]


def latents(tab, model):
    return {b: [float(tab.eval_on_selector(f'[data-slider="{b}{k}"]', "s => s.value")) for k in range(dim)]
            for b, dim in model.blocks.items()}


def posterior(tab, b, dim):
    titles = [tab.get_attribute(f'[data-slider="{b}{k}"]', "title").replace("\N{MINUS SIGN}", "-") for k in range(dim)]
    return np.array([[float(v) for v in re.search(r"posterior (\S+) ± (\S+)", title).groups()] for title in titles])


@pytest.mark.parametrize("make", [three, lambda: three(MuMoVAE), lambda: three(single_prior=True),
                                  lambda: three(VanillaVAE, latent=4)])
def test_three_modalities_are_computed_as_torch_does(chromium, tmp_path, make):
    model, x = make()
    widget = widgets.explorer(model, x, classes={"name": LABELS})
    tab = opened(chromium, write(tmp_path, widget))
    low, high = (widget.config["modalities"]["sound"][k] for k in ("low", "high"))
    grey = {"image": lambda v: 255 * v, "sound": lambda v: 255 * ((v - low) / (high - low)).clamp(0, 1)}
    z = {b: [0.05 * round(20 * v) for v in torch.randn(dim).tolist()] for b, dim in model.blocks.items()}
    for b, values in z.items():
        for k, value in enumerate(values):
            slide(tab, f"{b}{k}", value)
    for m in ("image", "sound"):
        assert np.abs(pixels(tab, f"[data-seen={m}]") - grey[m](x[m][0, 0]).numpy()).max() <= 1
        assert np.abs(pixels(tab, f"[data-made={m}]") - grey[m](of_torch(model, z, m)[0]).numpy()).max() <= 2
    assert shown(tab, "name", "seen") == {label: float(label == "one") for label in LABELS}
    np.testing.assert_allclose(list(shown(tab, "name").values()), of_torch(model, z, "name"), atol=0.01)
    assert list(shown(tab, "name")) == LABELS  # "&" and "<" are text
    assert "one 100" in tab.get_attribute("[data-seen=name]", "aria-label")
    if isinstance(model, VanillaVAE):
        assert "It needs all of them" in tab.inner_text(".halves .why") and not tab.query_selector("[data-switch]:enabled")
    else:
        for gone in (("image",), ("sound",), ("name",), ("image", "name"), ("sound", "image")):
            for m in gone:
                tab.uncheck(f"[data-switch={m}]")
            settled(tab)
            with torch.no_grad():
                q = model.posterior({m: v[:1] for m, v in x.items() if m not in gone})
            for b, dim in model.blocks.items():
                if dim:
                    expected = torch.stack([q[b].mu[0], q[b].logvar[0].mul(0.5).exp()], 1)
                    np.testing.assert_allclose(posterior(tab, b, dim), expected, atol=0.08, rtol=0.05)  # 8 bits a weight
            for m in gone:
                tab.check(f"[data-switch={m}]")
            settled(tab)
        for m in ("image", "sound"):
            tab.uncheck(f"[data-switch={m}]")
        settled(tab)
        assert pixels(tab, "[data-made=image]").shape == (26, 26)  # nine, with a line between
        assert tab.is_disabled('[data-slider="image0"]') and tab.is_disabled('[data-slider="sound0"]')
        tab.uncheck("[data-switch=name]")
        settled(tab)
        assert not posterior(tab, "S", model.blocks["S"])[:, 0].any()  # nothing is observed: the prior
    assert not tab.errors
    tab.context.close()


def test_colours_numbers_and_curves(chromium, tmp_path):
    model, x = colour()
    widget = widgets.explorer(model, x)
    tab = opened(chromium, write(tmp_path, widget))
    assert np.abs(pixels(tab, "[data-seen=photo]", colour=True) - 255 * x["photo"][0].permute(1, 2, 0).numpy()).max() <= 1
    z = {b: [0.5 - 0.5 * k for k in range(dim)] for b, dim in model.blocks.items()}
    for b, values in z.items():
        for k, value in enumerate(values):
            slide(tab, f"{b}{k}", value)
    expected = 255 * of_torch(model, z, "photo").permute(1, 2, 0).numpy()
    assert np.abs(pixels(tab, "[data-made=photo]", colour=True) - expected).max() <= 2
    assert len(tab.query_selector_all("[data-made=table] rect")) == 5
    assert tab.query_selector("[data-made=curve] path.line:not(.axis)")
    whiskers = """[...document.querySelectorAll('[data-made=table] .whisker')].map((w) => w.getTotalLength())"""
    assert max(tab.evaluate(whiskers)) == 0
    tab.uncheck("[data-switch=table]")
    settled(tab)
    assert max(tab.evaluate(whiskers)) > 0  # they spread as the prior does
    assert not tab.errors and tab.evaluate("document.documentElement.scrollWidth") <= 800
    tab.context.close()


AUDIO = """() => { window.Audio = class {
    constructor(url) { window.heard = url } async play() { window.played = true } } }"""


def test_a_sound_can_be_heard(chromium, tmp_path):
    model, x = three()
    listen = {"sound": lambda v: b"RIFF" + bytes(v.shape)}
    widget = widgets.explorer(model, x, listen=listen)
    tab = opened(chromium, write(tmp_path, widget))
    tab.evaluate(AUDIO)
    tab.click('[aria-label="play x sound, given"]')
    tab.wait_for_function("window.played")
    heard = tab.evaluate("fetch(window.heard).then((r) => r.arrayBuffer()).then((b) => [...new Uint8Array(b)])")
    assert heard == list(b"RIFF\x01\x10\x18")
    assert not tab.query_selector('[aria-label="play x sound, decoded"]')  # what is imagined needs Python
    tab.context.close()
    tab = in_kernel(chromium, write(tmp_path, widget), widgets.explorer(model, x, listen=listen))
    tab.evaluate(AUDIO)
    tab.click('[aria-label="play x sound, decoded"]')
    tab.wait_for_function("window.played")
    tab.context.close()


# ---- what only a kernel can compute

@pytest.mark.parametrize("make", [own_encoders, lambda: made(Moments), lambda: made(Mixed)])
def test_on_the_page_it_stands_still_and_says_why(chromium, tmp_path, make):
    widget = widgets.explorer(make(), X)
    page = write(tmp_path, widget)
    for options in ({}, {"java_script_enabled": False}):
        tab = opened(chromium, page, alive=not options, **options)
        assert tab.is_visible(".mmvae-still img") and not tab.query_selector(".mmvae-still canvas, .mmvae")
        said = r"This model has its own .*: its sliders move in a notebook, not on this page\."
        assert re.search(said, tab.inner_text("figcaption"))
        assert not tab.errors
        tab.context.close()


@pytest.mark.parametrize("make", [own_encoders, lambda: made(Moments), lambda: made(Mixed)])
def test_in_a_kernel_it_moves_by_the_models_own_rule(chromium, tmp_path, make):
    torch.manual_seed(0)
    model = make()
    tab = in_kernel(chromium, write(tmp_path), widgets.explorer(model, X))
    z = {b: [0.5 - 0.3 * k for k in range(dim)] for b, dim in model.blocks.items()}
    tab.evaluate("z => kernel.set('latents', z)", z)
    tab.wait_for_timeout(300)
    for m in "IT":
        assert np.abs(pixels(tab, f"[data-made={m}]") - 255 * of_torch(model, z, m)[0].numpy()).max() <= 1
    tab.uncheck("[data-switch=I]")
    tab.wait_for_timeout(600)
    with torch.no_grad():
        q = model.posterior({"T": X["T"][:1]})
    expected = torch.stack([q["S"].mu[0], q["S"].logvar[0].mul(0.5).exp()], 1)
    np.testing.assert_allclose(posterior(tab, "S", 5), expected, atol=0.02)
    assert pixels(tab, "[data-made=I]").shape == (50, 50) and tab.is_disabled('[data-slider="I0"]')
    assert not tab.errors
    tab.context.close()


def test_the_latest_request_wins(chromium, tmp_path):
    """Forty moves while the kernel is slow: it is asked a few times, never two at once, and the last move is what stands."""
    model = made(Moments)
    widget = widgets.explorer(model, X)
    tab = in_kernel(chromium, write(tmp_path), widget)
    asked = tab.evaluate("""async () => { const python = window.python, before = kernel.sent.length;
        window.open = 0; window.most = 0;
        window.python = async (message) => { window.most = Math.max(window.most, ++window.open);
            await new Promise((done) => setTimeout(done, 60)); const found = await python(message); window.open--; return found; };
        const range = document.querySelector('[data-slider="S0"]');
        for (let k = 0; k < 40; k++) { range.value = -2 + 0.1 * k; range.dispatchEvent(new Event("input"));
            await new Promise((done) => setTimeout(done, 5)); }
        await new Promise((done) => setTimeout(done, 800));
        return kernel.sent.length - before }""")
    assert 2 <= asked <= 20 and tab.evaluate("window.most") == 1
    z = latents(tab, model) | {b: v for b, v in widget.latents.items() if b != "S"}
    z["S"] = [tab.evaluate("kernel.state.latents.S[0]"), *widget.latents["S"][1:]]
    assert z["S"][0] == pytest.approx(1.9)
    assert np.abs(pixels(tab, "[data-made=I]") - 255 * of_torch(model, z, "I")[0].numpy()).max() <= 1
    tab.context.close()


def test_what_a_models_own_code_raises_is_said(chromium, tmp_path):
    class Fails(PoEVAE):
        def decode(self, z, modalities=None):
            if z["S"][0, 0] > 2:
                raise RuntimeError("out of its domain")
            return super().decode(z, modalities)

    tab = in_kernel(chromium, write(tmp_path), widgets.explorer(made(Fails), X))
    slide(tab, "S0", 2.5)
    tab.wait_for_function("document.querySelector('.status').textContent.includes('RuntimeError: out of its domain')")
    slide(tab, "S0", 0.0)
    tab.wait_for_timeout(300)
    assert not tab.errors
    tab.context.close()


def test_of_several_models_those_of_the_package_move_on_the_page(chromium, tmp_path):
    widget = widgets.explorer({"mine": made(Moments), "product": made()}, X, titles={"mine": "My own"})
    tab = opened(chromium, write(tmp_path, widget))
    assert tab.eval_on_selector("select", "s => s.value") == "product"
    assert tab.eval_on_selector("option[value=mine]", "o => o.disabled && o.textContent") == "My own"
    assert "My own: This model has its own posterior (Moments.fuse)" in tab.inner_text(".mmvae")
    assert not tab.errors
    tab.context.close()


@pytest.mark.parametrize("make", [three, colour])
def test_everything_has_a_name_and_a_phone_needs_no_scrolling(chromium, tmp_path, make):
    model, x = make()
    tab = opened(chromium, write(tmp_path, widgets.explorer(model, x)), viewport={"width": 360, "height": 740})
    nameless = tab.evaluate("""() => [...document.querySelectorAll(".mmvae :is(input, button, select, [role=img])")].filter((e) =>
        !(e.getAttribute("aria-label") || e.labels?.length || e.textContent.trim())).map((e) => e.outerHTML)""")
    assert not nameless and tab.evaluate("document.documentElement.scrollWidth") <= 360
    tab.context.close()
