"""Studies drawn again and again: intervals and the long run against scipy and simulation, in Python and on the page."""
import json
import math
import shutil
import subprocess

import numpy as np
import pytest
from scipy.stats import binom, binomtest

import browser
from mmvae.evaluate import wilson
from mmvae.show import trials, widgets

AT = [(p, n) for p in (0.0, 0.3, 0.5, 0.75, 1.0) for n in (1, 5, 20, 50)]


@pytest.mark.parametrize("p, n", AT)
def test_the_long_run_is_that_of_scipys_binomial(p, n):
    found, k = trials.long_run(p, n), np.arange(n + 1)
    ends = np.array([binomtest(int(v), n).proportion_ci(0.95, "wilson") for v in k])
    chance = binom(n, p).pmf(k)
    assert found["holds"] == pytest.approx(chance[(ends[:, 0] <= p) & (p <= ends[:, 1])].sum())
    assert found["confirmed"] == pytest.approx(chance[ends[:, 0] > 0.5].sum())
    assert found["refuted"] == pytest.approx(chance[ends[:, 1] < 0.5].sum())


def test_the_dice_are_fair_and_the_same_for_every_share():
    counts = np.array([trials.drawn(0.3, 50, k) for k in range(1, 801)])
    assert abs(counts.mean() - 15) < 4 * math.sqrt(50 * 0.3 * 0.7 / 800)
    assert abs(counts.var() - 50 * 0.3 * 0.7) < 2
    assert abs(np.corrcoef(counts[1:], counts[:-1])[0, 1]) < 4 / 800 ** 0.5
    for k in range(1, 60):
        found = [trials.drawn(share, 20, k) for share in (0.0, 0.4, 0.6, 1.0)]
        assert found == sorted(found) and found[0] == 0 and found[-1] == 20
        assert 0 <= trials.drawn(0.4, 21, k) - trials.drawn(0.4, 20, k) <= 1


def test_answers_are_those_of_the_books_rule():
    assert [trials.answer(*of) for of in ((4, 5), (5, 5), (15, 20), (3, 20), (10, 20))] == [
        "undecided", "confirmed", "confirmed", "refuted", "undecided"]


@pytest.mark.skipif(not shutil.which("node"), reason="needs node")
def test_the_page_draws_and_computes_the_same():
    code = "".join((widgets.JS / f"{name}.js").read_text() for name in widgets.SCRIPTS["explorables"])
    code += f"""console.log(JSON.stringify({json.dumps(AT)}.map(([p, n]) => [longRun(p, n), wilson(Math.round(p * n), n),
      Array.from({{ length: 40 }}, (_, k) => drawn(p, n, k + 1)), answered(Math.round(p * n), n)])));"""
    done = subprocess.run(["node", "-e", code], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    for (p, n), (often, ends, counts, said) in zip(AT, json.loads(done.stdout)):
        k = math.floor(p * n + 0.5)
        assert {name: often[name] for name in ("holds", "confirmed", "refuted")} == pytest.approx(trials.long_run(p, n))
        assert ends == pytest.approx(wilson(k, n), abs=1e-9) and said == trials.answer(k, n)
        assert counts == [trials.drawn(p, n, study) for study in range(1, 41)]


def test_traits_and_refusals():
    widget, seen = trials.trials(presets={"ours": 0.9}), []
    widget.on_change(seen.append)
    widget.set_state({"runs": 20})
    assert seen[-1] == {"share": 0.75, "runs": 20, "studies": 1} and widget.config["presets"] == {"ours": 0.9}
    for name, value in (("share", 1.1), ("share", math.nan), ("runs", 0), ("runs", 51), ("studies", 0)):
        with pytest.raises(ValueError, match=f"{name}: found"):
            setattr(widget, name, value)
    with pytest.raises(ValueError, match="share: found 2"):
        trials.trials(presets={"a": 2.0})
    page = widget.page()
    assert browser.state(page)["kind"] == "trials" and "12 studies of 5 runs" in page


@browser.needs_chromium
@pytest.mark.parametrize("theme, width", [("light", 800), ("dark", 390)])
def test_in_the_page_five_runs_seldom_decide(tmp_path, theme, width):
    page = browser.write(tmp_path, trials.trials(presets={"a coin": 0.5}), theme=theme)
    with browser.browser() as running:
        tab = browser.opened(running, page, viewport={"width": width, "height": 900})
        button = lambda name: tab.get_by_role("button", name=name, exact=True)  # noqa: E731
        k = trials.drawn(0.75, 5, 1)
        assert tab.locator(".words").inner_text().startswith(f"Study 1: {k} of 5 runs.")
        button("a hundred more").click()
        row = tab.locator("tbody tr").nth(1).locator("td").all_inner_texts()
        counted = sum(trials.answer(trials.drawn(0.75, 5, s), 5) == "confirmed" for s in range(1, 102))
        assert row == [str(counted), f"{100 * trials.long_run(0.75, 5)['confirmed']:.0f}\N{NO-BREAK SPACE}%"]
        browser.slide(tab, "share", 0.97)
        browser.slide(tab, "share", 0.75)
        browser.slide(tab, "runs", 40)
        assert tab.locator(".tasks .done").count() == 3
        tab.focus("[data-slider=share]")
        tab.keyboard.press("ArrowRight")
        assert tab.locator("[data-slider=share]").input_value() == "0.76"
        assert not tab.errors and tab.evaluate("document.documentElement.scrollWidth") <= width
