"""What all widgets share: their scripts, their state, their assets, and the room that is kept for them on a page.

Each is an anywidget: JupyterLab, VS Code and Colab run its module in `js/`, and so does the book's static page, which
has no kernel. A widget's state is small. What is large, an asset, the module asks for when it first needs it: by a
message, answered here in a kernel, and from a file on the page. An asset's name is a hash of its bytes, so pages share
it. With MMVAE_ASSETS in the environment, a folder, a widget leaves its assets' files there: book/stage.py takes them.
"""
import base64
import hashlib
import html
import json
import os
from collections.abc import Callable
from pathlib import Path

import anywidget
import traitlets as t

from ..checkpoint import write_atomically
from . import page
from .picture import Picture

JS = Path(__file__).parent / "js"
SCRIPTS = {k: f"common draw {v}".split() for k, v in {
    "explorer": "nets told own explorer", "dials": "nets dials", "explorables": "explorables pools spare trials"}.items()}
MODULES = {"explorer": "explorer", "dials": "dials"} | dict.fromkeys(("faces", "experts", "rate", "pools", "spare", "trials"),
                                                                    "explorables")
# Before a script runs: the still and the sliders lie one over the other, in a space that is kept for both, so nothing jumps.
SPACE = ("<style>.mmvae-widget{container-type:inline-size}"
         ".mmvae-space{display:grid;align-items:start;min-height:var(--narrow,0)}"
         ".mmvae-space>*{grid-area:1/1;min-width:0;margin:0}.mmvae-space:not([data-drawn])>div{visibility:hidden}"
         ".mmvae-still figcaption{margin-top:0.5rem}@container(min-width:560px){.mmvae-space{min-height:var(--wide,0)}}"
         "@container(min-width:680px){.mmvae-space{min-height:var(--full,0)}}@media print{.mmvae-space{min-height:0}}</style>"
         "<noscript><style>.mmvae-space{min-height:0!important}</style></noscript>")


def module(kind: str) -> str:
    """The ES module of a widget, but for its export: its file, behind those with what it needs."""
    return "".join((JS / f"{name}.js").read_text() for name in SCRIPTS[MODULES[kind]])


def bundle() -> str:
    """One script for a static page's widgets: their modules, each in a scope of its own, the style sheet, the host."""
    scopes = "".join(f"(() => {{\n{module(name)}for (const kind in renderers) globalThis.mmvae[kind] = "
                     "{ render: renderers[kind] };\n})();\n" for name in ("dials", "explorer", "experts"))
    css = json.dumps((JS / "widgets.css").read_text())
    style = f"document.head.append(Object.assign(document.createElement('style'), {{ textContent: {css} }}));\n"
    host = (JS / "host.js").read_text()
    return f"if (!globalThis.mmvae) (() => {{\nglobalThis.mmvae = {{}};\n{scopes}{style}{host}}})();\n"  # once a page


class Widget(anywidget.AnyWidget):
    """A module of `js/`, its state, its assets, and a still picture for where no module runs.

    Without a kernel it shows as HTML: the picture and its caption, and the state beside them, from which the static
    page brings it to life; or, if `needs_kernel`, a sentence, the picture and its caption alone.
    """
    _css = (JS / "widgets.css").read_text()
    kind = ""  # a key of MODULES
    room = 0, 0, 0  # the height that is kept for it: in a column below 560 CSS pixels, below 680, and in a wider one
    config = t.Dict().tag(sync=True)  # what never changes
    _moved = False  # by the page, at this moment

    def __init__(self, still: Picture, caption: str, assets: dict[str, bytes] | None = None, needs_kernel: str = "", **state):
        self._esm = module(self.kind) + f"export default {{ render: heard(renderers.{self.kind}) }};\n"
        self.still, self.caption, self.assets, self.needs_kernel = still, caption, assets or {}, needs_kernel
        super().__init__(**state)
        self.on_msg(self._answer)
        if folder := os.environ.get("MMVAE_ASSETS"):
            self.export(Path(folder))

    def _answer(self, _, message: dict, buffers: list) -> None:
        name = message.get("need")
        found = self.assets.get(name)
        error = {} if found else {"error": f"no asset {name}"}
        self.send({"asset": name, **error}, buffers=[found] if found else [])

    def set_state(self, sync_data: dict) -> None:  # what the page has moved
        self._moved = True
        try:
            super().set_state(sync_data)
        finally:
            self._moved = False

    def tell(self, callback: Callable, value) -> None:
        """Call callback(value). If the page moved it, and no cell runs, what it prints or raises stands under the widget."""
        if not self._moved:
            callback(value)
        elif any(found := page.printed(callback, value)):
            self.send(dict(zip(("told", "pictures"), found)))

    def export(self, folder: Path) -> None:
        """Write each asset to folder/NAME.js, a script that hands it to the static page's js/host.js."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self.assets.items():
            path = folder / f"{name}.js"
            if not path.exists():
                write_atomically(path, f'mmvaeAsset("{name}","{base64.b64encode(data).decode()}");\n'.encode())

    def page(self) -> str:
        """What stands on the static page: HTML."""
        names = [name for cls in type(self).__mro__ if issubclass(cls, Widget) for name in vars(cls)]
        values = {name: getattr(self, name) for name in self.traits(sync=True) if name in names and name[0] != "_"}
        told = {"kind": self.kind} | ({"still": True} if self.needs_kernel else {"state": values})
        text = json.dumps(told, ensure_ascii=True, allow_nan=False).replace("</", "<\\/")
        caption = html.escape(" ".join(filter(None, (self.needs_kernel, self.caption))))
        kept = "" if self.needs_kernel else "--narrow:{}px;--wide:{}px;--full:{}px".format(*self.room)
        still = self.still._repr_html_().replace("<img ", '<img fetchpriority="low" ', 1)  # it is there when a script is not
        return (f'<div class="mmvae-widget" style="{kept}">{SPACE}<script type="application/json">{text}</script>'
                f'<div class="mmvae-space"><figure class="mmvae-still">{still}<figcaption>{caption}</figcaption></figure>'
                "</div></div>")

    def _repr_mimebundle_(self, **kwargs):
        data, metadata = super()._repr_mimebundle_(**kwargs)
        return data | {"text/html": self.page()}, metadata


def keep(assets: dict[str, bytes], data: bytes) -> str:
    """Put an asset among the others, under its name."""
    name = hashlib.sha256(data).hexdigest()[:16]
    assets[name] = data
    return name
