"""Pages in headless Chromium, for the tests of what is alive in them. Skipped, by name, where there is no Chromium."""
import json
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book"))
import stage  # noqa: E402
from check import CHROMIUM, HEADLESS  # noqa: E402

needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: `apt-get install chromium`, or another's package")


def write(folder: Path, *widgets, name: str = "index.html") -> Path:
    """A page of these widgets as the site has them, with their assets; its path."""
    (folder / "widgets").mkdir(parents=True, exist_ok=True)
    for widget in widgets:
        widget.export(folder / "widgets")
    (folder / "widgets/widgets.js").write_text(stage.bundle())
    body = "".join(f"{widget.page()}<script defer src=widgets/widgets.js></script>" for widget in widgets)
    page = folder / name
    page.write_text('<!doctype html><html lang=en data-theme=light><meta charset=utf-8><meta name=viewport '
                    f'content="width=device-width"><body style="margin:0 auto;max-width:720px">{body}')
    return page


@contextmanager
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        running = play.chromium.launch(executable_path=CHROMIUM, args=HEADLESS)
        yield running
        running.close()


def opened(running, page, alive: bool = True, **options):
    """The page in a window of its own; `.asked` lists its requests, `.errors` those of its scripts."""
    context = running.new_context(**{"viewport": {"width": 800, "height": 1000}} | options)
    tab = context.new_page()
    tab.asked, tab.errors = [], []
    tab.on("request", lambda request: tab.asked.append(request.url))
    tab.on("pageerror", lambda error: tab.errors.append(str(error)))
    tab.goto(page if isinstance(page, str) else page.as_uri())
    if alive:
        tab.wait_for_selector(".mmvae-widget.alive")
    return tab


def pixels(tab, canvas: str):
    """The grey levels of a canvas, (H, W) uint8."""
    import numpy as np

    found = tab.evaluate("""(selector) => { const c = document.querySelector(selector);
        return [c.width, [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data].filter((_, i) => i % 4 === 0)] }""",
                         canvas)
    return np.array(found[1], dtype=np.uint8).reshape(-1, found[0])


def slide(tab, name: str, value: float):
    """Move a slider as a hand does: its value, then its event."""
    tab.evaluate("""([name, value]) => { const range = document.querySelector(`[data-slider="${name}"]`);
        range.value = value; range.dispatchEvent(new Event("input", { bubbles: true })) }""", [name, value])


def settled(tab):
    """Wait until the explorers have nothing left to load or to infer."""
    tab.wait_for_timeout(20)
    tab.wait_for_function("() => [...document.querySelectorAll('.status')].every((line) => !line.textContent)")
    tab.wait_for_timeout(20)


def state(page: str) -> dict:
    """The JSON that a widget's HTML carries."""
    return json.loads(page.partition('<script type="application/json">')[2].partition("</script>")[0])
