"""Pages in headless Chromium, for the tests of what is alive in them. Skipped, by name, where there is no Chromium."""
import base64
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book"))
from check import CHROMIUM, chromium as browser  # noqa: E402
from mmvae.show.widgets import bundle  # noqa: E402

needs_chromium = pytest.mark.skipif(not CHROMIUM, reason="no Chromium here: `apt-get install chromium`, or another's package")


def write(folder: Path, *widgets, name: str = "index.html", theme: str = "light", width: int = 720) -> Path:
    """A page of these widgets as the site has them, with their assets; its path."""
    (folder / "widgets").mkdir(parents=True, exist_ok=True)
    for widget in widgets:
        widget.export(folder / "widgets")
    (folder / "widgets/widgets.js").write_text(bundle())
    body = "".join(f"{widget.page()}<script defer src=widgets/widgets.js></script>" for widget in widgets)
    page = folder / name
    colours = {"light": "", "dark": ";background:#121212;color:#ced6dd"}[theme]
    page.write_text(f'<!doctype html><html lang=en data-theme={theme}><meta charset=utf-8><meta name=viewport '
                    f'content="width=device-width"><body style="margin:0 auto;max-width:{width}px{colours}">{body}')
    return page


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


def pixels(tab, canvas: str, colour: bool = False):
    """The grey levels of a canvas, (H, W) uint8; or its colours, (H, W, 3)."""
    import numpy as np

    found = tab.evaluate("""([selector, n]) => { const c = document.querySelector(selector);
        return [c.width, [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data].filter((_, i) => i % 4 < n)] }""",
                         [canvas, 3 if colour else 1])
    image = np.array(found[1], dtype=np.uint8).reshape(-1, found[0], 3 if colour else 1)
    return image if colour else image[..., 0]


def slide(tab, name: str, value: float):
    """Move a slider as a hand does: its value, then its event."""
    tab.evaluate("""([name, value]) => { const range = document.querySelector(`[data-slider="${name}"]`);
        range.value = value; range.dispatchEvent(new Event("input", { bubbles: true })) }""", [name, value])


def settled(tab):
    """Wait until the explorers have nothing left to load or to infer."""
    tab.wait_for_timeout(20)
    tab.wait_for_function("() => [...document.querySelectorAll('.status')].every((line) => !line.textContent)"
                          " && !document.querySelector('.mmvae [inert]')")
    tab.wait_for_timeout(20)


KERNEL = """([config, state]) => {  // anywidget's model, and a kernel behind it: Python, in this very test
    const listeners = {};
    const fire = (event, ...values) => (listeners[event] ?? []).forEach((listener) => listener(...values));
    window.kernel = { state: { config, ...state }, saved: 0, sent: [], get(name) { return this.state[name] },
        set(name, value) { if (JSON.stringify(this.state[name]) === JSON.stringify(value)) return;
            this.state[name] = value; fire(`change:${name}`) }, save_changes() { this.saved++ },
        on(event, listener) { (listeners[event] ??= []).push(listener) },
        async send(message) { this.sent.push(message);
            for (const [content, buffers] of await window.python(message)) fire("msg:custom", content, buffers.map((text) =>
                new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer))) } };
    const el = document.body.appendChild(document.createElement("div"));
    return globalThis.mmvae.explorer.render({ model: window.kernel, el }).then(() => true) }"""


def in_kernel(running, page: Path, widget):
    """A window with the widget as a notebook shows it: its messages are answered by its own `_answer`."""
    tab = opened(running, page, alive=False)
    tab.add_script_tag(path=page.parent / "widgets/widgets.js")

    def python(message):
        sent = []
        widget.send = lambda content, buffers=None: sent.append([content, [base64.b64encode(b).decode() for b in buffers or ()]])
        widget._answer(widget, message, [])
        return sent

    tab.expose_function("python", python)
    values = {name: getattr(widget, name) for name in ("model", "pair", "observed", "factors", "latents")}
    assert tab.evaluate(KERNEL, [widget.config, values])
    return tab


def state(page: str) -> dict:
    """The JSON that a widget's HTML carries."""
    return json.loads(page.partition('<script type="application/json">')[2].partition("</script>")[0])
