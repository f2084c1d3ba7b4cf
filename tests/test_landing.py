"""The dials of the welcome page: a model of one head that lives in the page, with no kernel and no network."""
import gzip
import sys
from pathlib import Path

import pytest
import torch

import browser
from mmvae.experiment import dials
from mmvae.show import page
from mmvae.show.widgets import bundle

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book"))
import landing  # noqa: E402

torch.set_num_threads(1)
MOBILE = 1.6e6 / 8  # bytes a second of a phone's network


# ---- the model

def test_the_published_model_is_whole_and_a_spoilt_one_is_refused(tmp_path):
    model, record = dials.load()
    assert not model.training and dict(model.blocks) == {"I": 1, "S": 1, "T": 1} and record["settings"] == dials.SETTINGS
    for end in ("json", "safetensors"):
        (tmp_path / f"dials.{end}").write_bytes((dials.FOLDER / f"dials.{end}").read_bytes())
    assert dials.load(tmp_path)[1] == record
    weights = bytearray((tmp_path / "dials.safetensors").read_bytes())
    weights[-1] ^= 1
    (tmp_path / "dials.safetensors").write_bytes(weights)
    with pytest.raises(ValueError, match=r"dials.safetensors: found [\d,]+ bytes with SHA-256 .*, as dials.json says"):
        dials.load(tmp_path)
    (tmp_path / "dials.json").write_text((tmp_path / "dials.json").read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(ValueError, match="found a damaged record .*its content is not that of its digest"):
        dials.load(tmp_path)


def test_the_dials_are_named_after_what_they_do():
    model, record = dials.load()
    pairs = dials.head()
    assert dials.start(model, pairs) == pytest.approx(record["start"], abs=0.02)
    found = dials.does(model, pairs)
    for block, of in found.items():
        assert of == pytest.approx(record["does"][block], abs=0.01)
    assert dials.names(found) == record["names"] == {"I": "nod", "S": "turn", "T": "lamp"}
    shares = {of: found[b][f] for f, of in dials.CALLED.items() for b in found if record["names"][b] == of}
    assert min(shares.values()) > 0.8  # and what is left to the others is little
    assert all(found[b][f] < 0.2 for b in found for f, of in dials.CALLED.items() if record["names"][b] != of)


def test_a_share_is_one_where_a_latent_decides_and_zero_where_it_has_no_say():
    z = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    assert dials.share(z, z.sign()) > 0.95 and dials.share(z, z.abs().gt(1).float()) > 0.8  # of any shape
    assert dials.share(z, torch.randn(4096, generator=torch.Generator().manual_seed(1))) < 0.02
    with pytest.raises(ValueError, match="expected a latent for each factor"):
        dials.names({b: {"elevation": 0.9, "azimuth": 0.0, "light": 0.1} for b in "IST"})


def test_training_is_the_books_loop_and_repeats_itself(tmp_path):
    pairs = dials.head.__wrapped__(0, 16)
    small = {"size": 16, "decoder": 8, "encoder": 8, "iterations": 3, "sharpen": 2, "batch": 4}
    first, again = (dials.train(pairs, tmp_path / name, **small).state_dict() for name in "ab")
    assert all(torch.equal(value, again[key]) for key, value in first.items())


def test_the_decoders_are_light_and_draw_what_the_model_draws():
    model, record = dials.load()
    [packed] = dials.dials().assets.values()
    assert len(packed) <= dials.LIMIT == 150_000
    about, weights = page.rule(model, [("I", "T")]), page.unpack(packed)
    z = {b: torch.randn(16, 1, generator=torch.Generator().manual_seed(0)) for b in model.blocks}
    with torch.no_grad():
        truth = model.means(z)
    for m, value in page.means(about, weights, {b: v.double() for b, v in z.items()}).items():
        assert (value - truth[m].flatten(1)).abs().max() < 4 / 255


def test_script_and_decoders_come_within_a_second_on_a_phones_network(tmp_path):
    three = dials.dials()
    three.export(tmp_path)
    files = [bundle().encode(), *(path.read_bytes() for path in tmp_path.glob("*.js"))]
    assert sum(len(gzip.compress(data, 6)) for data in files) < MOBILE


# ---- in the page

@pytest.fixture(scope="module")
def chromium():
    with browser.browser() as running:
        yield running


@pytest.fixture(scope="module")
def welcome(tmp_path_factory):
    """The part of the welcome page that lives, with the book's own style sheet, as stage.py writes it; in light and dark."""
    folder = tmp_path_factory.mktemp("site")
    (folder / "book").mkdir()
    (folder / "widgets").mkdir()
    body = "".join(landing.live(folder / "widgets"))
    (folder / "widgets/widgets.js").write_text(bundle())
    css = (ROOT / "book/_static/book.css").read_text()
    for theme, colours in (("light", "#fff;color:#222832"), ("dark", "#14181e;color:#ced6dd")):
        (folder / f"book/{theme}.html").write_text(
            f'<!doctype html><html lang=en data-theme={theme}><meta charset=utf-8><title>x</title><meta name=viewport '
            f'content="width=device-width"><style>{css}</style><body style="margin:0 auto;padding:16px;max-width:720px;'
            f'background:{colours}"><h1>One</h1><main class=bd-content>{body}<p id=after>after</p></main>')
    return folder / "book/light.html"


def words(tab):
    return tab.inner_text(".words").replace("\n", "")


def lamps(tab):
    image = browser.pixels(tab, "[data-made=T]").astype(int)
    return [image[64 * r:64 * (r + 1), 64 * c:64 * (c + 1)] for r in range(3) for c in range(3)]


@browser.needs_chromium
def test_each_touch_says_what_it_has_done_with_no_network_and_no_kernel(chromium, welcome):
    tab = browser.opened(chromium, welcome)
    assert tab.errors == [] and all(url.startswith("file://") for url in tab.asked)
    x = {m: browser.pixels(tab, f"[data-made={m}]") for m in "IT"}
    model, record = dials.load()
    with torch.no_grad():
        truth = model.means({b: torch.tensor([[v]]) for b, v in record["start"].items()})
    assert all(abs(x[m].astype(int) - 255 * truth[m][0, 0].numpy()).max() < 5 for m in "IT")
    assert words(tab).startswith("Move a dial")
    for block, said, moves in (("I", "Nod: only xI has changed; xT has kept every pixel.", "I"),
                               ("T", "Lamp: only xT has changed; xI has kept every pixel.", "T"),
                               ("S", "Turn: xI and xT have changed: this latent is shared.", "IT")):
        browser.slide(tab, block, 1.6)
        tab.wait_for_timeout(50)
        now = {m: browser.pixels(tab, f"[data-made={m}]") for m in "IT"}
        assert words(tab) == said and "".join(m for m in "IT" if (now[m] != x[m]).any()) == moves
        assert tab.locator("canvas.moved").count() == len(moves)
        x = now
    tab.click("button:has-text('reset')")
    tab.wait_for_timeout(50)
    assert words(tab).startswith("Back at the pair") and tab.errors == []


@browser.needs_chromium
def test_hiding_the_second_picture_shows_nine_lamps_around_one_head(chromium, welcome):
    tab = browser.opened(chromium, welcome)
    own, first = browser.pixels(tab, "[data-made=T]"), browser.pixels(tab, "[data-made=I]")
    tab.check("[data-switch=T]")
    tab.wait_for_timeout(50)
    nine = lamps(tab)
    assert browser.pixels(tab, "[data-made=T]").shape == (192, 192) and len({tile.tobytes() for tile in nine}) == 9
    assert "xT is hidden" in words(tab) and "nine times" in words(tab) and "prior" in words(tab)
    assert tab.is_disabled("[data-slider=T]") and tab.locator("canvas.sampled").count() == 1
    assert "imagined" in tab.inner_text(".dials figure:nth-child(2) figcaption")
    assert (browser.pixels(tab, "[data-made=I]") == first).all()
    inside = [tile[8:56, 8:56] > 12 for tile in nine]  # the outline is the head's, whatever the lamp
    union, common = inside[0].copy(), inside[0].copy()
    for part in inside[1:]:
        union, common = union | part, common & part
    assert common.sum() > 0.5 * union.sum()
    browser.slide(tab, "I", 1.0)
    tab.wait_for_timeout(50)
    assert words(tab) == "Nod: only xI has changed; all nine xT have kept every pixel."
    assert all((a == b).all() for a, b in zip(lamps(tab), nine))
    browser.slide(tab, "S", 1.0)
    tab.wait_for_timeout(50)
    assert words(tab) == "Turn: xI and all nine xT have changed: this latent is shared."
    tab.click("button:has-text('reset')")
    tab.wait_for_timeout(50)
    assert "seen again" in words(tab) and not tab.is_checked("[data-switch=T]") and not tab.is_disabled("[data-slider=T]")
    assert (browser.pixels(tab, "[data-made=T]") == own).all() and tab.errors == []


SHIFT = """new PerformanceObserver((list) => {
    for (const e of list.getEntries()) window.shift = (window.shift ?? 0) + e.value
    }).observe({ type: "layout-shift", buffered: true })"""


@browser.needs_chromium
@pytest.mark.parametrize("width", [360, 390, 1280])
def test_nothing_jumps_and_nothing_is_cut(chromium, welcome, width):
    context = chromium.new_context(viewport={"width": width, "height": 900})
    tab = context.new_page()
    tab.add_init_script(SHIFT)
    tab.goto(welcome.as_uri())
    before = tab.evaluate("document.querySelector('#after').getBoundingClientRect().top")
    tab.wait_for_selector(".mmvae-widget.alive")
    tab.check("[data-switch=T]")
    tab.wait_for_timeout(100)
    assert tab.evaluate("document.querySelector('#after').getBoundingClientRect().top") == before
    assert (tab.evaluate("window.shift") or 0) < 0.02
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    context.close()


@browser.needs_chromium
def test_without_its_decoders_the_still_stands_and_can_be_tried_again(chromium, welcome):
    context = chromium.new_context(viewport={"width": 800, "height": 900})
    tab = context.new_page()
    [name] = dials.dials().assets
    tab.route(f"**/{name}.js", lambda route: route.abort())
    tab.goto(welcome.as_uri())
    tab.wait_for_selector(".mmvae-failed button")
    assert tab.is_visible(".mmvae-still img") and "could not be loaded" in tab.inner_text(".mmvae-failed")
    tab.unroute(f"**/{name}.js")
    tab.click(".mmvae-failed button")
    tab.wait_for_selector(".mmvae-widget.alive")
    assert not tab.locator(".mmvae-failed").count()
    context.close()


NAMELESS = """[...document.querySelectorAll("main :is(button, input, canvas, img, summary)")].filter((e) => {
    if (e.closest(".mmvae-still") && document.querySelector(".mmvae-widget.alive")) return false;
    const label = e.labels?.length ? e.labels[0].textContent : "";
    return !(e.getAttribute("aria-label") || e.alt || label || e.textContent).trim() }).map((e) => e.outerHTML)"""
FAINT = """[...document.querySelectorAll("main :is(p, span, i, output, label, button, figcaption, b)")].filter((e) =>
    [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) && e.offsetParent).map((e) => {
    const level = (text) => { const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255).map((v) =>
        v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4); return 0.2126 * r + 0.7152 * g + 0.0722 * b };
    const [a, b] = [level(getComputedStyle(e).color), level(getComputedStyle(document.body).backgroundColor)];
    return [e.textContent.trim(), (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05)] }).filter(([, c]) => c < 4.5)"""


@browser.needs_chromium
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everything_has_a_name_and_every_word_stands_out(chromium, welcome, theme):
    tab = browser.opened(chromium, welcome.with_name(f"{theme}.html"))
    tab.check("[data-switch=T]")
    browser.slide(tab, "S", 1.0)
    tab.wait_for_timeout(50)
    assert tab.evaluate(NAMELESS) == [] and tab.evaluate(FAINT) == []
    tab.focus("[data-slider=I]")
    value = tab.input_value("[data-slider=I]")
    tab.keyboard.press("ArrowRight")
    assert tab.input_value("[data-slider=I]") != value and "nod, z I" == tab.get_attribute("[data-slider=I]", "aria-label")
