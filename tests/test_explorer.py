"""The explorer in a real browser: its pictures are torch's, each slider moves what it reaches, and everybody can use it."""
import functools
import http.server
import io
import re
import threading

import numpy as np
import pytest
import torch
from PIL import Image

import mmvae
from browser import browser, in_kernel, needs_chromium, opened, pixels, settled, slide, write
from mmvae.experiment import FIRST
from mmvae.faces import Pairs
from mmvae.show import labels, views, widgets

pytestmark = needs_chromium
torch.set_num_threads(1)


@pytest.fixture(scope="module")
def models():
    return {name: mmvae.load(name) for name in FIRST}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "faces.h5"
    mmvae.faces.write(path, identities=3, test_identities=1, size=64, progress=False)
    return [Pairs(path), Pairs(path, "test")]


@pytest.fixture(scope="module")
def made(models, data, tmp_path_factory):
    """(the explorer of all six models, its page)."""
    x, factors = data[0].fixed(3)
    widget = widgets.explorer({"mumo": models["mumo"], **models}, x, factors, data)
    return widget, write(tmp_path_factory.mktemp("page"), widget)


@pytest.fixture(scope="module")
def chromium():
    with browser() as running:
        yield running


@pytest.fixture
def tab(chromium, made):
    tab = opened(chromium, made[1])
    yield tab
    assert not tab.errors
    assert all(url.startswith(("file:", "data:", "blob:")) for url in tab.asked)  # and nothing of anybody else's
    tab.context.close()


def pick(tab, name):
    tab.select_option("select", name)
    settled(tab)


def torch_picture(model, z, m):
    """What torch decodes: (H, W), grey levels."""
    with torch.no_grad():
        return 255 * model.means({b: torch.as_tensor(v)[None] for b, v in z.items()})[m][0, 0].numpy()


@pytest.mark.parametrize("name", FIRST)
def test_the_pictures_are_those_of_torch(name, tab, models, data):
    """At the posterior means of the three presets, and at a sample of the prior: at most 2 of 255 grey levels apart."""
    pick(tab, name)
    model, (x, _) = models[name], data[0].fixed(3)
    with torch.no_grad():
        means = {b: q.mu for b, q in model.posterior(x).items()}
    for k in range(3):
        tab.get_by_text(f"pair {k + 1}").click()
        settled(tab)
        for m in "IT":
            expected = torch_picture(model, {b: mu[k] for b, mu in means.items()}, m)
            assert np.abs(pixels(tab, f"[data-made={m}]") - expected).max() <= 2
            assert np.abs(pixels(tab, f"[data-seen={m}]") - 255 * x[m][k, 0].numpy()).max() <= 0.5
    z = {b: torch.randn(dim, generator=torch.Generator().manual_seed(5)).mul(20).round() / 20 for b, dim in model.blocks.items()}
    for b, values in z.items():
        for k, value in enumerate(values.tolist()):
            slide(tab, f"{b}{k}", value)
    for m in "IT":
        assert np.abs(pixels(tab, f"[data-made={m}]") - torch_picture(model, z, m)).max() <= 2


@pytest.mark.parametrize("name", FIRST)
def test_each_slider_moves_what_its_block_reaches_and_nothing_else(name, tab, models):
    pick(tab, name)
    for b, dim in models[name].blocks.items():
        for k in range(dim):
            before = {m: pixels(tab, f"[data-made={m}]") for m in "IT"}
            at = float(tab.eval_on_selector(f'[data-slider="{b}{k}"]', "range => range.value"))
            slide(tab, f"{b}{k}", 2.5 if at < 0 else -2.5)
            for m in "IT":
                moved = not np.array_equal(before[m], pixels(tab, f"[data-made={m}]"))
                assert not moved or b in ("S", "Z", m), f"{b}{k} moved x{m}"
            reached = [m for m in "IT" if b in ("S", "Z", m)]
            used = any(not np.array_equal(before[m], pixels(tab, f"[data-made={m}]")) for m in reached)
            assert used, f"{b}{k} moved nothing"


def marks(tab, b, dim):
    """The posterior as the sliders of a block show it: (mean, sd)."""
    titles = [tab.get_attribute(f'[data-slider="{b}{k}"]', "title") for k in range(dim)]
    found = [re.search(r"posterior (\S+) ± (\S+)", title).groups() for title in titles]
    return tuple(np.array([float(pair[i].replace("\N{MINUS SIGN}", "-")) for pair in found]) for i in (0, 1))


@pytest.mark.parametrize("name", [name for name in FIRST if name != "vanilla"])
def test_without_a_picture_the_posterior_is_that_of_the_other(name, tab, models, data):
    pick(tab, name)
    model, (x, _) = models[name], data[0].fixed(3)
    for missing, left in (("T", "I"), ("I", "T")):
        tab.uncheck(f"[data-switch={missing}]")
        settled(tab)
        with torch.no_grad():
            q = model.posterior({left: x[left][:1]})
        for b, dim in model.blocks.items():
            if dim:
                mean, sd = marks(tab, b, dim)
                np.testing.assert_allclose(mean, q[b].mu[0], atol=0.03)
                np.testing.assert_allclose(sd, q[b].logvar[0].mul(0.5).exp(), atol=0.02)
        samples = pixels(tab, f"[data-made={missing}]")
        if model.blocks[missing]:  # nine, of which no two are alike, and each its own slider does not move
            tiles = [samples[r:r + 64, c:c + 64] for r in (0, 64, 128) for c in (0, 64, 128)]
            assert samples.shape == (192, 192) and len({tile.tobytes() for tile in tiles}) > 1
            assert tab.is_disabled(f'[data-slider="{missing}0"]')
        else:
            assert samples.shape == (64, 64)
        tab.check(f"[data-switch={missing}]")
        settled(tab)
    assert pixels(tab, "[data-made=I]").shape == (64, 64)


def test_vanilla_says_why_nothing_can_be_switched_off(tab):
    pick(tab, "vanilla")
    assert tab.is_disabled("[data-switch=I]") and tab.is_disabled("[data-switch=T]")
    assert "It needs both: nothing can be switched off." in tab.inner_text(".why")
    pick(tab, "mumo")
    assert tab.is_enabled("[data-switch=I]") and not tab.inner_text(".why")


def test_turning_a_factor_turns_the_input_and_the_posterior_follows(tab, made, models):
    widget, _ = made
    sheet = np.array(Image.open(io.BytesIO(widget.assets[widget.config["sprites"]])).convert("L"))
    lengths = {f: len(words) for f, words in widget.config["factors"].items()}
    at = {"identity": 3, "azimuth": 4, "elevation": 5, "light": 2}  # the fourth was never seen in training
    assert widget.config["factors"]["identity"][3] == "4 new"
    for f, k in at.items():
        before = {m: pixels(tab, f"[data-seen={m}]") for m in "IT"}
        slide(tab, f, k)
        settled(tab)
        moved = "".join(m for m in "IT" if not np.array_equal(before[m], pixels(tab, f"[data-seen={m}]")))
        assert moved == {"elevation": "I", "light": "T"}.get(f, "IT"), f
    cell = at["identity"] * lengths["azimuth"] + at["azimuth"]
    tiles = {"I": cell * lengths["elevation"] + at["elevation"],
             "T": lengths["identity"] * lengths["azimuth"] * lengths["elevation"] + cell * lengths["light"] + at["light"]}
    x = {}
    for m, k in tiles.items():
        row, column = divmod(k, 32)
        tile = sheet[64 * row:64 * row + 64, 64 * column:64 * column + 64]
        assert np.abs(tile.astype(int) - pixels(tab, f"[data-seen={m}]")).max() <= 1
        x[m] = torch.from_numpy(tile.copy())[None, None].float() / 255
    with torch.no_grad():
        q = models["mumo"].posterior(x)
    for b, dim in models["mumo"].blocks.items():
        np.testing.assert_allclose(marks(tab, b, dim)[0], q[b].mu[0], atol=0.05)


def test_the_encoders_and_the_faces_are_fetched_while_idle(chromium, made):
    """After the first picture, and nothing of the models that were not picked; who saves data fetches them when needed."""
    tab, about = opened(chromium, made[1]), made[0].config["models"]["mumo"]
    late = [about["encoders"], made[0].config["sprites"]]
    for _ in range(200):
        if all(any(name in url for url in tab.asked) for name in late):
            break
        tab.wait_for_timeout(50)
    order = [next(k for k, url in enumerate(tab.asked) if name in url) for name in (about["decoders"], *late)]
    assert order[0] == min(order)
    assert not any(made[0].config["models"]["poe-v2"][part] in url for url in tab.asked for part in ("decoders", "encoders"))
    tab.context.close()
    context = chromium.new_context()
    context.add_init_script("Object.defineProperty(navigator, 'connection', { value: { saveData: true } })")
    tab, asked = context.new_page(), []
    tab.on("request", lambda request: asked.append(request.url))
    tab.goto(made[1].as_uri())
    tab.wait_for_selector(".mmvae-widget.alive")
    tab.wait_for_timeout(300)
    assert not any(name in url for url in asked for name in late)
    tab.uncheck("[data-switch=T]")
    settled(tab)
    assert any(late[0] in url for url in asked) and not any(late[1] in url for url in asked)
    context.close()


def test_keys_move_a_slider_and_stay_inside(tab):
    tab.evaluate("() => { window.leaked = 0; document.addEventListener('keydown', () => window.leaked++) }")
    tab.focus('[data-slider="I0"]')
    before = float(tab.eval_on_selector('[data-slider="I0"]', "range => range.value"))
    tab.keyboard.press("ArrowRight")
    after = float(tab.eval_on_selector('[data-slider="I0"]', "range => range.value"))
    assert after > before and tab.evaluate("window.leaked") == 0


def test_every_control_has_a_name_and_every_slider_says_its_value(tab):
    nameless = tab.evaluate("""() => [...document.querySelectorAll(".mmvae :is(input, button, select, canvas)")].filter((e) =>
        !(e.getAttribute("aria-label") || e.labels?.length || e.textContent.trim())).map((e) => e.outerHTML)""")
    assert not nameless
    said = tab.get_attribute('[data-slider="S0"]', "aria-valuetext")
    assert re.fullmatch(r"[+\N{MINUS SIGN}]\d\.\d\d", said)
    assert tab.get_attribute('[data-slider="S0"]', "aria-label") == "z S 1, shared"
    assert "°" in tab.get_attribute('[data-slider="azimuth"]', "aria-valuetext")


def test_nothing_moves_before_a_click_and_play_swings_one_latent(tab):
    value = lambda: float(tab.eval_on_selector('[data-slider="T1"]', "range => range.value"))  # noqa: E731
    first = value(), pixels(tab, "[data-made=T]")
    tab.wait_for_timeout(300)
    assert value() == first[0] and np.array_equal(first[1], pixels(tab, "[data-made=T]"))
    tab.click('[aria-label="play z T 2"]')
    tab.wait_for_timeout(400)
    moving = value()
    assert moving != first[0]
    tab.click('[aria-label="play z T 2"]')
    still = value()
    tab.wait_for_timeout(200)
    assert value() == still


def test_who_asks_for_no_motion_gets_a_step_a_click(chromium, made):
    tab = opened(chromium, made[1], reduced_motion="reduce")
    value = lambda: float(tab.eval_on_selector('[data-slider="T1"]', "range => range.value"))  # noqa: E731
    tab.click('[aria-label="play z T 2"]')
    one = value()
    tab.wait_for_timeout(200)
    assert value() == one == round(one)
    tab.context.close()


def test_prior_and_reset(tab):
    first = pixels(tab, "[data-made=I]")
    tab.get_by_text("sample from the prior").click()
    assert not np.array_equal(first, pixels(tab, "[data-made=I]"))
    tab.get_by_text("reset").click()
    assert np.abs(first.astype(int) - pixels(tab, "[data-made=I]")).max() <= 1


def test_a_phone_needs_no_scrolling_sideways(chromium, made):
    tab = opened(chromium, made[1], viewport={"width": 360, "height": 740})
    assert tab.evaluate("document.documentElement.scrollWidth") <= 360
    widths = tab.evaluate("[...document.querySelectorAll('canvas:not(.pad)')].map((c) => c.getBoundingClientRect().width)")
    assert set(widths) == {128}  # a whole number of times 64
    tab.context.close()


def test_the_still_picture_is_there_until_the_sliders_are_and_in_print(chromium, made):
    tab = opened(chromium, made[1], alive=False, java_script_enabled=False)
    assert tab.is_visible(".mmvae-still img") and not tab.query_selector(".mmvae")
    tab.context.close()
    tab = opened(chromium, made[1])
    assert not tab.is_visible(".mmvae-still img")
    tab.emulate_media(media="print")
    assert tab.is_visible(".mmvae-still img") and not tab.is_visible(".mmvae")
    tab.context.close()


def test_what_cannot_be_loaded_is_said_and_the_still_picture_stays(chromium, made, tmp_path):
    page = write(tmp_path, made[0])
    name = made[0].config["models"]["mumo"]["decoders"]
    (tmp_path / f"widgets/{name}.js").unlink()
    tab = opened(chromium, page, alive=False)
    tab.wait_for_selector(".mmvae-failed")
    assert f"{name}.js could not be loaded" in tab.inner_text(".mmvae-failed") and tab.is_visible(".mmvae-still img")
    tab.context.close()


def test_it_works_from_a_subfolder_of_a_server(chromium, made):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(made[1].parent.parent))
    handler.log_message = lambda *args: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tab = opened(chromium, f"http://127.0.0.1:{server.server_port}/{made[1].parent.name}/index.html")
        assert not tab.errors
        tab.context.close()
        server.shutdown()


def test_in_a_kernel_it_is_two_way(chromium, models, data, tmp_path):
    x, factors = data[0].fixed(3)
    tab = in_kernel(chromium, write(tmp_path), widgets.explorer(models["mumo"], x, factors))
    before = pixels(tab, "[data-made=I]")
    z = {"I": [2.0, -1.0], "S": [0.5] * 5, "T": [0.0, 0.0]}
    tab.evaluate("z => kernel.set('latents', z)", z)  # from Python
    assert np.abs(pixels(tab, "[data-made=I]") - torch_picture(models["mumo"], z, "I")).max() <= 2
    assert not np.array_equal(before, pixels(tab, "[data-made=I]"))
    slide(tab, "S2", -1.5)  # from the page
    assert tab.evaluate("kernel.state.latents.S[2]") == -1.5 and tab.evaluate("kernel.saved") >= 1
    assert not tab.errors
    tab.context.close()


def test_text_has_the_contrast_of_wcag_aa():
    css = (widgets.JS / "widgets.css").read_text()
    themes = [dict(re.findall(r"--(\w+): (#\w+)", theme)) for theme in re.findall(r"(--grey: .*?)--line", css, re.S)]
    grounds = ["#" + "".join(2 * c for c in t["ground"][1:]) if len(t["ground"]) == 4 else t["ground"] for t in themes]
    assert tuple(g.lower() for g in grounds) == ("#ffffff", "#121212")
    inks = [views.inks(colour) for colour in (labels.SHARED, labels.GREY, *labels.PRIVATE)]
    for k, (ground, theme) in enumerate(zip(grounds, themes)):
        for colour in [theme["grey"], theme["focus"], *(ink[k] for ink in inks)]:
            a, b = sorted((labels.luminance(colour), labels.luminance(ground)))
            assert (b + 0.05) / (a + 0.05) >= 4.5, colour


def test_a_module_can_be_read_in_one_sitting():
    for path in widgets.JS.glob("*.js"):
        lines = [line for line in path.read_text().splitlines() if line.strip()]
        assert len(lines) <= 320 and sum(len(line) > 200 for line in lines) <= 1, path.name


def test_no_module_names_a_modality_or_a_factor():
    for path in widgets.JS.glob("*.js"):
        assert not re.findall(r"""["'](?:I|T|IT|I\+T)["']|identity|azimuth|elevation|\blight\b(?! ground)""",
                              path.read_text().replace("--light", "")), path.name
