"""The private factor that turns: its numbers against the oracle's matrices, in Python and on the page."""
import json
import math
import shutil
import subprocess

import pytest
import torch

import browser
import worlds
from mmvae import MuMoVAE
from mmvae.evaluate import asking, oracle
from mmvae.show import spare, widgets

AT = [(angle, r, weight, diagonal) for angle in (0.0, 30.0, 45.0, 80.0, 90.0) for r in (1.0, 4.0, 9.0)
      for weight in (0.0, 2.5) for diagonal in (False, True)]


def world(r, angle):
    """The same world by matrices: a latent of each picture alone, one of both, and a spare one, all at right angles."""
    size, noise, W = spare.SIZE, spare.NOISE, torch.zeros(2 * spare.SIZE, 3, dtype=torch.float64)  # z_I, z_S, z_T
    W[0, 0] = W[size, 2] = noise * math.sqrt(r)
    W[1, 1] = W[size + 1, 1] = noise * math.sqrt(spare.SHARED)
    truth = oracle.LinearGaussian(W, torch.zeros(2 * size).double(), noise, {"I": 1, "S": 1, "T": 1}, {"I": size, "T": size})
    return asking.solution(truth, {"I": torch.tensor([[math.sin(math.radians(angle))]], dtype=torch.float64)})


@pytest.mark.parametrize("angle, r, weight, diagonal", AT)
def test_elbos_gap_and_loss_are_those_of_matrices(angle, r, weight, diagonal):
    found, model = spare.summary(angle, r, weight, diagonal), world(r, angle)
    x, home = model.sigma_points(), world(r, 0.0)
    for name, subset in (("first", ("I",)), ("second", ("T",)), ("both", ("I", "T"))):
        exact = model.exact_log_likelihood({m: x[m] for m in subset}).mean().item()
        assert found[name] == pytest.approx(exact - diagonal * model.mean_field(subset), abs=1e-9)
    if not diagonal:
        assert found["gap"] == pytest.approx(asking.gap(model), abs=1e-9)
        assert found["loss"] == pytest.approx(weight * (asking.gap(model) - asking.gap(home)), abs=1e-9)
    else:
        apart = asking.charged(model, x, weight) - asking.charged(home, x, weight)
        assert found["loss"] == pytest.approx(apart.item(), abs=1e-9)


def test_at_the_price_of_a_mixture_and_of_a_whole_move():
    assert spare.summary(90.0, 4.0)["gap"] - spare.summary(0.0, 4.0)["gap"] == pytest.approx(0.5 * math.log(5))
    lost = spare.summary(0.0, 4.0)["first"] - spare.summary(45.0, 4.0, diagonal=True)["first"]
    assert lost == pytest.approx(0.5 * math.log((1 + 2) ** 2 / (1 + 4)))  # eq-oracle-mix


def test_training_finds_no_more_than_the_bars_say():
    """MuMo's encoders at their best, the decoders held half way: the ELBOs of the bars."""
    model = world(4.0, 45.0)
    torch.manual_seed(0)
    trained = oracle.give_decoders(oracle.linear(MuMoVAE, model), model)
    x = model.sigma_points()
    worlds.fit_exactly(trained, x, trained.encoders.parameters())
    elbos = {s: v.mean().item() for s, v in oracle.exact_elbos(trained, x).items()}
    bars = spare.summary(45.0, 4.0, diagonal=True)
    for name, subset in (("first", ("I",)), ("second", ("T",)), ("both", ("I", "T"))):
        assert elbos[subset] == pytest.approx(bars[name], abs=1e-4)


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_the_page_computes_the_same():
    code = "".join((widgets.JS / f"{name}.js").read_text() for name in widgets.SCRIPTS["explorables"])
    config = json.dumps({"size": spare.SIZE, "noise": spare.NOISE, "shared": spare.SHARED})
    code += f"console.log(JSON.stringify({json.dumps(AT)}.map((at) => turnedBy(...at, {config}))));"
    done = subprocess.run(["node", "-e", code], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for at, found in zip(AT, json.loads(done.stdout)):
        made = spare.summary(*at)
        assert found["elbos"] == pytest.approx([-made[k] for k in ("first", "second", "both")])
        assert (found["gap"], found["loss"]) == pytest.approx((made["gap"], made["loss"]), abs=1e-12)


def test_traits_and_refusals():
    widget, seen = spare.spare(names=("I", "T")), []
    widget.on_change(seen.append)
    widget.set_state({"angle": 90.0})
    assert seen[-1] == {"angle": 90.0, "sharpness": 4.0, "weight": 0.0, "diagonal": False}
    for name, value in (("angle", 91.0), ("angle", math.nan), ("sharpness", 0.0), ("weight", -1.0)):
        with pytest.raises(ValueError, match=f"{name}: found"):
            setattr(widget, name, value)
    with pytest.raises(ValueError, match="angle: found 100"):
        spare.summary(100.0)
    page = widget.page()
    assert browser.state(page)["kind"] == "spare" and "the gap grows from 0.64 to 1.44 nats" in page


@browser.needs_chromium
@pytest.mark.parametrize("theme, width", [("light", 800), ("dark", 390)])
def test_in_the_page_the_elbos_stay_and_the_gap_grows(tmp_path, theme, width):
    page = browser.write(tmp_path, spare.spare(names=("I", "T")), theme=theme)
    with browser.browser() as running:
        tab = browser.opened(running, page, viewport={"width": width, "height": 900})
        says, cells = tab.locator(".words"), lambda: tab.locator(".meters tbody tr td:last-child").all_inner_texts()
        button = lambda name: tab.get_by_role("button", name=name, exact=True)  # noqa: E731
        assert cells() == ["0", "0", "0", "0"]
        tab.focus("[data-slider=angle]")
        tab.keyboard.press("End")
        assert cells() == ["0", "0", "0", "+0.80"] and says.inner_text().startswith("No ELBO has moved")
        button("diagonal").click()
        button("half way").click()
        assert cells()[:3] == ["\N{MINUS SIGN}0.29", "0", "\N{MINUS SIGN}0.29"] or cells()[:3] == ["+0.29", "0", "+0.29"]
        browser.slide(tab, "weight", 6)
        assert "the loss falls all the way there" in says.inner_text()
        assert tab.locator(".tasks .done").count() == 3
        button("at home").click()
        knob = tab.locator('[data-k="turn"]').bounding_box()  # dragged up, towards the spare latent
        tab.mouse.move(knob["x"] + knob["width"] / 2, knob["y"] + knob["height"] / 2)
        tab.mouse.down()
        tab.mouse.move(knob["x"] + knob["width"] / 2 - 30, knob["y"] - 60, steps=4)
        tab.mouse.up()
        assert tab.eval_on_selector("[data-slider=angle]", "s => +s.value") > 20
        assert not tab.errors and tab.evaluate("document.documentElement.scrollWidth") <= width
