"""The explorer touched as a reader touches it: what it says of each move, a picture of one's own, the space that it keeps,
what there is to try."""
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
from browser import browser, needs_chromium, opened, pixels, settled, slide, write
from mmvae.faces import Pairs
from mmvae.show import known, widgets

pytestmark = needs_chromium
torch.set_num_threads(1)
DOES = {"mumo": {"I": ["≈ person 0.95", "≈ nod <b>0.95</b>"], "S": [f"role {k}" for k in range(5)],
                 "T": ["idle", "≈ person"]}}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "faces.h5"
    mmvae.faces.write(path, identities=3, test_identities=1, size=64, progress=False)
    return [Pairs(path), Pairs(path, "test")]


@pytest.fixture(scope="module")
def models():
    return {name: mmvae.load(name) for name in ("mumo", "vanilla", "wg-v2")}


@pytest.fixture(scope="module")
def made(models, data, tmp_path_factory):
    """(the explorer, its page)."""
    widget = widgets.explorer(models, *data[0].fixed(3), data, does=DOES)
    return widget, write(tmp_path_factory.mktemp("page"), widget)


@pytest.fixture(scope="module")
def chromium():
    with browser() as running:
        yield running


@pytest.fixture
def tab(chromium, made):
    tab = opened(chromium, made[1])
    yield tab
    assert not tab.errors and all(url.startswith(("file:", "data:", "blob:")) for url in tab.asked)
    tab.context.close()


def said(tab):
    return tab.inner_text(".words").replace("\n", "")


def notes(tab):
    """{modality: what stands under its picture on the right}."""
    texts = tab.locator(".mmvae section:last-child figcaption").all_inner_texts()
    return dict(zip("IT", (text.replace("\n", "") for text in texts)))


def heads(tab):
    return tab.locator(".halves section > .head").all_inner_texts()


def outlined(tab):
    """On the right, on the left."""
    return tuple("".join(tab.evaluate(f"[...document.querySelectorAll('.moved[data-{side}]')].map((e) => e.dataset.{side})"))
                 for side in ("made", "seen"))


def ticked(tab):
    return set(tab.evaluate("[...document.querySelectorAll('.tasks .done')].map((line) => line.dataset.task)"))


# ---- what moved, and what is given

def test_latents_wear_what_they_do_as_text(tab):
    worn = tab.locator(".dial .does").all_inner_texts()
    assert worn == sum(DOES["mumo"].values(), [])  # "<b>" is text
    assert tab.get_attribute('[data-slider="I1"]', "aria-label") == "z I 2, private to I, ≈ nod <b>0.95</b>"
    tab.select_option("select", "vanilla")  # of which nothing is on record
    settled(tab)
    assert not tab.query_selector(".dial .does")


def test_labels_that_do_not_fit_are_refused(models, data):
    few = {"mumo": {"I": ["a"], "S": 5 * ["b"], "T": ["c", "d"]}}
    for does, message in (({"other": {}}, 'does."other".: found {} words, expected one of mumo'),
                          (few, 'does."mumo".: found .* words, expected one a latent')):
        with pytest.raises(ValueError, match=message):
            widgets.explorer({"mumo": models["mumo"]}, data[0].fixed(1)[0], does=does)


def test_what_moved_is_outlined_and_said(tab):
    assert said(tab) == "Move a latent. Which pictures will change?" and outlined(tab) == ("", "")
    before = {m: pixels(tab, f"[data-made={m}]").astype(float) for m in "IT"}
    slide(tab, "I1", 1.0)
    slide(tab, "I1", 2.0)  # one touch: both moves count
    moved = np.abs(pixels(tab, "[data-made=I]") - before["I"]).mean()
    found = re.fullmatch(r"zI 2 \(≈ nod <b>0.95</b>\): only xI has changed, by (\d+) grey levels a pixel; xT has kept "
                         r"every pixel\.", said(tab))
    assert abs(float(found[1]) - moved) <= 0.5 + 1e-6 and outlined(tab) == ("I", "") and heads(tab)[1] == "Moved by hand"
    slide(tab, "S1", 2.0)
    assert re.match(r"zS 2 \(role 1\): xI and xT have changed, by [\d.]+ and [\d.]+ grey levels a pixel\.", said(tab))
    assert outlined(tab) == ("IT", "")
    slide(tab, "T0", 2.0)  # idle, and its decoder hardly reads it
    assert "zT 1 (idle): only xT has changed, by less than 0.1 grey levels" in said(tab) or "nothing has changed" in said(tab)
    slide(tab, "elevation", 9)
    settled(tab)
    assert re.match(r"elevation: only xI has changed, by \d+ grey levels a pixel; xT has kept every pixel\. The posterior of "
                    r"zI 2 .* has moved most, by [+−]\d\.\d\d\.", said(tab))
    assert outlined(tab) == ("", "I")
    tab.click("button:has-text('reset')")
    tab.wait_for_timeout(100)
    assert said(tab).startswith("Back at the means") and outlined(tab) == ("", "")


def test_given_and_imagined_are_named_rightly(tab, models, data):
    assert heads(tab) == ["The model sees", "It makes of it"] and notes(tab) == {"I": "xI rebuilt", "T": "xT rebuilt"}
    slide(tab, "S0", 1.0)
    assert notes(tab) == {m: f"x{m} rebuilt, moved by hand" for m in "IT"}
    tab.uncheck("[data-switch=T]")
    settled(tab)
    assert notes(tab) == {"I": "xI rebuilt", "T": "xT imagined, zT from the prior, 9 times"}
    assert said(tab) == "xT is hidden, and the model imagines it: zT comes from the prior."
    tab.uncheck("[data-switch=I]")
    settled(tab)
    assert heads(tab) == ["The model sees nothing", "It imagines"]
    assert notes(tab) == {"I": "xI imagined, zI and zS from the prior, 9 times",
                          "T": "xT imagined, zS and zT from the prior, 9 times"}
    assert said(tab) == "Nothing is given: zI, zS and zT come from the prior, the shared one too."
    assert tab.locator("[data-slider^=S]:enabled").count() == tab.locator(".play:enabled").count() == 0
    tiles = pixels(tab, "[data-made=I]")
    assert len({tiles[r:r + 64, c:c + 64].tobytes() for r in (0, 64, 128) for c in (0, 64, 128)}) == 9  # nine heads, not one
    tab.check("[data-switch=I]")
    settled(tab)
    tab.click("button:has-text('sample from the prior')")
    assert heads(tab) == ["The model sees nothing", "It imagines"]
    assert notes(tab) == {m: f"x{m} imagined from the prior" for m in "IT"} and pixels(tab, "[data-made=T]").shape == (64, 64)
    assert said(tab) == "No picture is given: every latent is a draw from the prior."
    labels = tab.locator(".halves section:first-child label").all_inner_texts()
    assert [label.replace("\n", "").strip() for label in labels[:2]] == ["xI put aside", "xT put aside"]
    assert not tab.locator(".mark").first.is_visible()
    slide(tab, "T1", 1.5)
    assert notes(tab) == {m: f"x{m} imagined from the prior" for m in "IT"} and "only xT has changed" in said(tab)
    tab.click("button:has-text('reset')")
    settled(tab)
    assert notes(tab)["I"] == "xI rebuilt" and notes(tab)["T"].startswith("xT imagined, zT")
    tab.select_option("select", "wg-v2")
    settled(tab)
    tab.uncheck("[data-switch=I]")
    settled(tab)
    assert notes(tab) == {m: f"x{m} imagined, zS from the prior, 9 times" for m in "IT"}


# ---- a picture of the reader's own

def posterior(tab, b, dim):
    titles = [tab.get_attribute(f'[data-slider="{b}{k}"]', "title").replace("\N{MINUS SIGN}", "-") for k in range(dim)]
    return np.array([float(re.search(r"posterior (\S+) ", title)[1]) for title in titles])


def far(tab):
    """What the page says of it: (nats, of how many pictures it is farther than, in percent)."""
    tab.wait_for_timeout(150)
    settled(tab)
    text = tab.inner_text(".far")
    rank = re.search(r"(worse|better) than (?:(all)|(\d+)\s%)", text)
    share = 100 * (rank[1] == "worse") if rank[2] else int(rank[3])
    return float(re.search(r"rebuilt (\d+) nats above the floor", text)[1]), share


def truth(model, picture, rows):
    """The same by torch, of a picture (1, 1, 64, 64): (its posterior, nats, percent of the rows that are nearer)."""
    def distance(x):
        q = model.posterior({"I": x})
        p = model.means({b: g.mu for b, g in q.items()}, ("I",))["I"].clamp(1e-6, 1 - 1e-6).double().flatten(1)
        x = x.double().flatten(1)
        cost = torch.nn.functional.binary_cross_entropy(p, x, reduction="none").sum(1)
        return q, cost + (torch.xlogy(x, x) + torch.xlogy(1 - x, 1 - x)).sum(1)
    with torch.no_grad():
        (q, own), (_, others) = distance(picture), distance(rows)
    return q, own.item(), 100 * (others < own).double().mean().item()


def test_a_picture_is_drawn_encoded_and_weighed(tab, models, made):
    tab.click("[data-own]")
    settled(tab)
    assert heads(tab)[0] == "The model sees yours" and notes(tab)["T"] == "xT imagined, zT from the prior, 9 times"
    assert np.array_equal(pixels(tab, ".pad"), pixels(tab, "[data-seen=I]"))  # it begins with the one that was given
    rows = made[0].faces.unseen(known.ROWS)["I"]
    nats, share = far(tab)
    _, own, nearer = truth(models["mumo"], torch.from_numpy(pixels(tab, ".pad") / 255)[None, None].float(), rows)
    assert abs(nats - own) <= 2 and abs(share - nearer) <= 6
    box = tab.locator(".pad").bounding_box()
    tab.mouse.move(box["x"] + 30, box["y"] + 30)
    tab.mouse.down()
    tab.mouse.move(box["x"] + 160, box["y"] + 150, steps=6)
    tab.mouse.up()
    nats, share = far(tab)
    drawn = pixels(tab, "[data-seen=I]")
    assert (drawn == 255).sum() > 60 and np.array_equal(drawn, pixels(tab, ".pad"))
    q, own, nearer = truth(models["mumo"], torch.from_numpy(drawn / 255)[None, None].float(), rows)
    assert abs(nats - own) < 0.02 * own and (share, nearer) == (100, 100)
    assert "knows nothing like it" in tab.inner_text(".far")
    for b in "IS":
        np.testing.assert_allclose(posterior(tab, b, len(q[b].mu[0])), q[b].mu[0], atol=0.08)
    assert "far" in ticked(tab)
    tab.select_option("select", "vanilla")  # which needs both: it is shown the same one twice
    settled(tab)
    assert np.array_equal(pixels(tab, "[data-seen=T]"), drawn) and said(tab).startswith("Yours is given as xI and xT")
    tab.click("text=pair 2")
    settled(tab)
    assert not tab.inner_text(".far") and tab.is_hidden(".pad") and heads(tab)[0] == "The model sees"


def test_a_file_is_cropped_and_scaled_in_the_page(tab, models, data, tmp_path):
    x = data[0].fixed(3)[0]["I"][2:]
    tab.click("[data-own]")
    settled(tab)

    def load(picture):
        path = tmp_path / "mine.png"
        Image.fromarray(picture).save(path)
        tab.set_input_files(".own input[type=file]", path)
        tab.wait_for_timeout(200)
        return far(tab)

    face = (255 * x[0, 0]).round().to(torch.uint8).numpy()
    load(face)
    assert np.abs(pixels(tab, "[data-seen=I]").astype(int) - face).max() <= 1
    with torch.no_grad():
        q = models["mumo"].posterior({"I": x})
    np.testing.assert_allclose(posterior(tab, "S", 5), q["S"].mu[0], atol=0.08)
    wide = np.zeros((128, 384), np.uint8)
    wide[:, 128:256] = face.repeat(2, 0).repeat(2, 1)  # the middle, twice as large, with black at both sides
    load(wide)
    assert np.abs(pixels(tab, "[data-seen=I]").astype(int) - face).mean() < 3
    colour = np.zeros((64, 64, 3), np.uint8)
    colour[..., 1] = 200
    load(colour)
    assert np.abs(pixels(tab, "[data-seen=I]").astype(int) - round(0.7152 * 200)).max() <= 1
    slide(tab, "own zoom", 2)
    slide(tab, "own across", 1)
    far(tab)
    (tmp_path / "no.png").write_text("this is text")
    tab.set_input_files(".own input[type=file]", tmp_path / "no.png")
    tab.wait_for_timeout(200)
    assert "no.png is no picture that this browser can read" in tab.inner_text(".own")


# ---- one space

SHIFT = """new PerformanceObserver((list) => { for (const e of list.getEntries()) window.shift = (window.shift ?? 0) + e.value
    }).observe({ type: "layout-shift", buffered: true })"""


def serve(folder):
    handler = functools.partial(type("Quiet", (http.server.SimpleHTTPRequestHandler,), {"log_message": lambda *a: None}),
                                directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.mark.parametrize("width", [360, 640, 720])
def test_one_space_and_nothing_jumps(chromium, made, width):
    """The still; then, before the networks are here, the pictures and sliders that cannot be moved yet; then they can."""
    server, (widget, page) = serve(made[1].parent), made
    context, held = chromium.new_context(viewport={"width": width, "height": 900}), []
    tab = context.new_page()
    tab.add_init_script(SHIFT)
    decoders = widget.config["models"]["mumo"]["decoders"]
    tab.route(f"**/{decoders}.js", lambda route: held.append(route))
    tab.goto(f"http://127.0.0.1:{server.server_port}/{page.name}")
    tab.evaluate("document.body.append(Object.assign(document.createElement('p'), { id: 'after', textContent: 'after' }))")
    top = lambda: tab.evaluate("document.querySelector('#after').getBoundingClientRect().top")  # noqa: E731
    tab.wait_for_selector(".mmvae-space[data-drawn]")
    before = top()
    tab.wait_for_function("document.querySelector('.status').textContent.startsWith('Loading the decoders')")
    assert tab.is_visible("progress") and tab.query_selector(".halves[inert]") and tab.is_hidden(".mmvae-still")
    first = pixels(tab, "[data-made=I]").astype(float)
    for _ in range(50):
        if held:
            break
        tab.wait_for_timeout(20)
    assert held[0].request.resource_type == "fetch"  # from a server, whose progress can be told
    held[0].continue_()
    tab.wait_for_selector(".mmvae-widget.alive")
    settled(tab)
    assert tab.is_hidden("progress") and not tab.query_selector(".halves[inert]")
    assert np.abs(first - pixels(tab, "[data-made=I]")).mean() < 6  # a WebP of quality 90
    assert (tab.evaluate("window.shift") or 0) < 0.02 and top() == before
    spare = tab.evaluate("""document.querySelector('.mmvae-space').getBoundingClientRect().height -
        document.querySelector('.mmvae').getBoundingClientRect().height""")
    assert 0 <= spare < 90
    tab.uncheck("[data-switch=T]")
    settled(tab)
    slide(tab, "azimuth", 2)
    settled(tab)
    assert top() == before
    context.close()
    server.shutdown()


def test_what_fails_later_can_be_tried_again(chromium, made, models, data):
    context = chromium.new_context(viewport={"width": 800, "height": 1000})
    tab, name = context.new_page(), made[0].config["models"]["mumo"]["encoders"]
    tab.route(f"**/{name}.js", lambda route: route.abort())
    tab.goto(made[1].as_uri())
    tab.wait_for_selector(".mmvae-widget.alive")
    tab.wait_for_timeout(300)
    tab.uncheck("[data-switch=T]")
    tab.wait_for_selector(".status button")
    assert tab.inner_text(".status") == f"This failed: {name}.js could not be loaded. Try again"
    tab.unroute(f"**/{name}.js")
    tab.click(".status button")
    settled(tab)
    with torch.no_grad():
        q = models["mumo"].posterior({"I": data[0].fixed(1)[0]["I"]})
    np.testing.assert_allclose(posterior(tab, "S", 5), q["S"].mu[0], atol=0.03)
    context.close()


def test_animations_wait_for_the_sliders(chromium, made):
    """One that is not here yet gives way, and comes when they stand."""
    picture = '<div class="mmvae-picture"><picture><img src="slow.webp" alt="moves"></picture></div>'
    page, held, later = made[1].with_name("animated.html"), [], []
    page.write_text(made[1].read_text().replace('720px">', f'720px">{picture}', 1))
    tab, decoders = chromium.new_context().new_page(), made[0].config["models"]["mumo"]["decoders"]
    tab.route(f"**/{decoders}.js", lambda route: held.append(route))
    tab.route("**/slow.webp", lambda route: later.append(route))  # never answered
    tab.goto(page.as_uri(), wait_until="commit")
    tab.wait_for_selector(".mmvae-space[data-drawn]", state="attached")
    assert tab.get_attribute(".mmvae-picture img", "src").startswith("data:")
    while not held:
        tab.wait_for_timeout(20)
    held[0].continue_()
    tab.wait_for_selector(".mmvae-widget.alive")
    assert tab.get_attribute(".mmvae-picture img", "src") == "slow.webp"
    tab.context.close()


def test_play_stops_off_screen(tab):
    tab.evaluate("document.body.append(Object.assign(document.createElement('div'), { style: 'height: 3000px' }))")
    tab.click('[aria-label="play z T 2"]')
    tab.wait_for_timeout(200)
    assert tab.query_selector(".playing")
    tab.evaluate("scrollTo(0, 2800)")
    tab.wait_for_function("!document.querySelector('.playing')")
    at = tab.evaluate("document.querySelector('[data-slider=T1]').value")
    tab.wait_for_timeout(200)
    assert tab.evaluate("document.querySelector('[data-slider=T1]').value") == at


def test_a_vertical_swipe_scrolls_and_a_horizontal_one_slides(chromium, made):
    tab = opened(chromium, made[1], viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    tab.evaluate("document.body.append(Object.assign(document.createElement('div'), { style: 'height: 3000px' }))")
    slider, hand = tab.locator('[data-slider="S0"]'), tab.context.new_cdp_session(tab)
    slider.scroll_into_view_if_needed()
    box, value = slider.bounding_box(), slider.input_value()
    x, y, scrolled = box["x"] + 0.9 * box["width"], box["y"] + box["height"] / 2, tab.evaluate("scrollY")

    def swipe(points):
        hand.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [points[0]]})
        for point in points[1:]:
            hand.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [point]})
            tab.wait_for_timeout(16)
        hand.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        tab.wait_for_timeout(200)

    before = pixels(tab, "[data-made=I]")
    swipe([{"x": x, "y": y - 12 * k} for k in range(13)])
    assert tab.evaluate("scrollY") > scrolled + 60 and slider.input_value() == value
    assert np.array_equal(before, pixels(tab, "[data-made=I]")) and said(tab).startswith("Move a latent")  # not for a moment
    box = slider.bounding_box()
    y = box["y"] + box["height"] / 2
    swipe([{"x": box["x"] + f * box["width"], "y": y} for f in (0.5, 0.6, 0.7, 0.8)])
    assert float(slider.input_value()) > 1 and said(tab).startswith("zS 1")
    swipe([{"x": box["x"] + 0.2 * box["width"], "y": y}])  # a tap
    assert float(slider.input_value()) < -1 and not np.array_equal(before, pixels(tab, "[data-made=I]"))
    tab.context.close()


def test_nothing_floats_over_the_controls(tab):
    tab.evaluate("document.body.append(Object.assign(document.createElement('button'), "
                 "{ id: 'pst-back-to-top', textContent: 'up' }))")
    assert tab.is_hidden("#pst-back-to-top")


# ---- three things to try

def test_tasks_tick_themselves_off(tab):
    lines = tab.locator(".tasks li")
    assert lines.count() == 3 and not ticked(tab)
    slide(tab, "S0", 1.5)
    slide(tab, "S0", 2.0)
    assert "one" not in ticked(tab) or "only" in said(tab)
    slide(tab, "I1", 1.5)
    assert ticked(tab) == {"one"} and lines.first.inner_text().endswith("(done)")
    tab.uncheck("[data-switch=T]")
    settled(tab)
    assert ticked(tab) == {"one", "hide"}
    tab.click("[data-own]")
    settled(tab)
    tab.click("text=empty")
    far(tab)
    assert ticked(tab) == {"one", "hide", "far"}


def test_a_model_without_private_blocks_has_other_tasks(chromium, models, data, tmp_path):
    widget = widgets.explorer({"vanilla": models["vanilla"]}, *data[0].fixed(2), data)
    tab = opened(chromium, write(tmp_path, widget))
    assert [line.get_attribute("data-task") for line in tab.locator(".tasks li").all()] == ["far", "turn", "idle"]
    for k in range(0, 11, 5):
        slide(tab, "elevation", k)
        settled(tab)
    assert "turn" in ticked(tab)
    assert not tab.errors
    tab.context.close()


def test_the_distances_of_pictures_not_learnt_from(models, data, made):
    """Their quantiles, by torch's own cross-entropy; and of data that are no greys, the root mean square."""
    of, rows = made[0].config["models"]["mumo"]["known"]["I"], made[0].faces.unseen(known.ROWS)
    assert (of["subset"], of["unit"], of["n"]) == ("I", "nats", len(rows["I"]))
    each = [truth(models["mumo"], row[None], rows["I"][:1])[1] for row in rows["I"][:40]]
    assert of["at"][0] <= min(each) + 0.01 and max(each) <= of["at"][-1] + 0.01
    both = made[0].config["models"]["vanilla"]["known"]["T"]
    assert both["subset"] == "I+T" and sorted(both["at"]) == both["at"]
    a, b = torch.rand(3, 1, 4, 4), torch.rand(3, 1, 4, 4)
    from mmvae.likelihoods import Normal
    np.testing.assert_allclose(known.distance(Normal(), a, b), (a - b).square().mean((1, 2, 3)).sqrt(), rtol=1e-5)


def test_a_picture_of_the_page_before_its_networks_is_the_first_one(made, models, data):
    from base64 import b64decode
    with torch.no_grad():
        mean = models["mumo"].means({b: q.mu for b, q in models["mumo"].posterior(data[0].fixed(3)[0]).items()})
    for m in "IT":
        image = Image.open(io.BytesIO(b64decode(made[0].config["begin"][m].partition(",")[2])))
        assert np.abs(np.array(image.convert("L")).astype(float) - 255 * mean[m][0, 0].numpy()).mean() < 3
