"""Sliders that move with a kernel and without: what all widgets share, and the explorer of trained models.

Each is an anywidget: JupyterLab, VS Code and Colab run its module in `js/`, and so does the book's static page, which
has no kernel. A widget's state is small. What is large, an asset, the module asks for when it first needs it: by a
message, answered here in a kernel, and from a file on the page. An asset's name is a hash of its bytes, so pages share
it. With MMVAE_ASSETS in the environment, a folder, a widget leaves its assets' files there: book/stage.py takes them.
"""
import base64
import hashlib
import html
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import anywidget
import torch
import traitlets as t
from torch import Tensor, nn

from ..checkpoint import write_atomically
from ..observed import joined
from . import page, plot, views
from .labels import colours
from .picture import Picture

JS = Path(__file__).parent / "js"
SCRIPTS = {k: f"common draw {v}".split() for k, v in {
    "explorer": "nets explorer", "dials": "nets dials", "explorables": "explorables pools"}.items()}
MODULES = {"explorer": "explorer", "dials": "dials"} | dict.fromkeys(("faces", "experts", "rate", "pools"), "explorables")
CLIP, NOUNS = 12_000, {2: "pair", 3: "triple"}  # bytes of a sound, at most; of what the sliders start from


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
        return (f'<div class="mmvae-widget"><script type="application/json">{text}</script><figure class="mmvae-still">'
                f'{self.still._repr_html_()}<figcaption>{caption}</figcaption></figure></div>')

    def _repr_mimebundle_(self, **kwargs):
        data, metadata = super()._repr_mimebundle_(**kwargs)
        return data | {"text/html": self.page()}, metadata


def keep(assets: dict[str, bytes], data: bytes) -> str:
    """Put an asset among the others, under its name."""
    name = hashlib.sha256(data).hexdigest()[:16]
    assets[name] = data
    return name


class Explorer(Widget):
    """What `explorer` returns. In a kernel each trait follows the page, and the page follows each.

    model: the shown one's name. pair: the preset, from 0, or -1 where the factors were turned. observed: what the model
    sees, "I+T", or "". factors: {factor: index of its value}. latents: {block: [value of each latent]}, finite.
    """
    kind = "explorer"
    model = t.Unicode().tag(sync=True)
    pair = t.Int(0).tag(sync=True)
    observed = t.Unicode().tag(sync=True)
    factors = t.Dict().tag(sync=True)
    latents = t.Dict().tag(sync=True)

    def __init__(self, models: dict[str, nn.Module], x: dict[str, Tensor], faces: views.Faces | None, listen: dict,
                 *args, **state):
        self.models, self.x, self.faces, self.listen = models, x, faces, listen
        super().__init__(*args, **state)

    def on_change(self, callback: Callable[[dict], None]) -> None:
        """Call callback(latents) whenever a latent has moved, there or here; what it prints for there is shown there."""
        self.observe(lambda change: self.tell(callback, change["new"]), "latents")

    @t.validate("latents")
    def _sound(self, proposal):
        found, fits = proposal["value"], [model.blocks for model in self.models.values()]
        if {b: len(z) for b, z in found.items()} not in fits:
            raise ValueError(f"latents: found { {b: len(z) for b, z in found.items()} }, expected {fits[0]}")
        for b, z in found.items():
            if not all(math.isfinite(v) for v in z):
                raise ValueError(f'latents["{b}"]: found {list(z)}, expected finite numbers')
        return {b: [float(v) for v in z] for b, z in found.items()}

    # ---- what a kernel does for the models that the page cannot compute

    def _answer(self, _, message: dict, buffers: list) -> None:
        if "ask" not in message:
            return super()._answer(_, message, buffers)
        try:
            found, data = self._compute(message)
        except Exception as error:  # whatever a reader's model raises is told where the sliders are
            found, data = {"error": f"{type(error).__name__}: {error}"}, []
        self.send({"answer": message["ask"], **found}, buffers=data)

    def _compute(self, message: dict) -> tuple[dict, list[bytes]]:
        """{"subset", "pair", "factors"}: the posterior. {"means": {modality: [latents, ...]}}: those, a float32 buffer a
        modality. {"listen": modality, "values": numbers}: a sound."""
        model = self.models[message["model"]]
        if m := message.get("listen"):
            shape = self.shapes[m]
            return {}, [self.listen[m](torch.tensor(message["values"]).view(shape))]
        with page.quiet(model):
            if "subset" in message:
                k = message["pair"]
                x = self.faces.at(message["factors"]) if k < 0 else {m: v[k:k + 1] for m, v in self.x.items()}
                q = model.posterior(page.there(model, {m: x[m] for m in message["subset"]}))
                return {"posterior": page.told(q, 0)}, []
            made = {}
            for m, draws in message["means"].items():
                z = {b: torch.tensor([draw[b] for draw in draws]).view(len(draws), dim).to(model.like)
                     for b, dim in model.blocks.items()}
                made[m] = model.means(z, (m,))[m].flatten(1).float().cpu()
        return {"means": list(made)}, [v.numpy().tobytes() for v in made.values()]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of one row of each modality, where it is known."""
        model = self.models[self.model]
        return {m: tuple(self.x[m].shape[1:]) if m in self.x else of.shape for m, of in model.modalities.items()}


def explorer(models: nn.Module | dict[str, nn.Module], x: dict[str, Tensor], factors: dict[str, Tensor] | None = None,
             faces: Sequence = (), classes: dict[str, Sequence[str]] | None = None,
             listen: dict[str, Callable[[Tensor], bytes]] | None = None, titles: dict[str, str] | None = None) -> Explorer:
    """Sliders for every latent, switches for what the model sees, sliders for the factors of what it sees.

    models: one, or several of the same modalities to pick from by name; the first is shown. Any model will do. What the
    package builds, its posteriors, networks and likelihoods, the static page computes by itself: `page.own`, `page.rule`.
    For any other the page asks a kernel, and without one the still picture stands, with the reason.
    x: rows to start from, {modality: (B, ...)}, all of a model's modalities or some that it can see alone.
    factors: theirs, as `faces.Pairs.sample` returns them. faces: `Pairs` whose first three people each the factor sliders
    go through; none: no such sliders. classes: names of classes, {modality: [one a class]}. listen: {modality: one row's
    values, in its shape -> the bytes of a WAV file, at most 12,000}. titles: of the models.

        sliders = explorer(my_model, x)
        sliders.on_change(print)                          # {"I": [0.3, -1.2], ...} whenever the page moves one
        sliders.latents = {"I": [2.0, 0.0], "S": 5 * [0.0], "T": 2 * [0.0]}     # and the page follows

    Raises ValueError for no model, no row, data that a model does not take, models of different modalities, faces without
    factors or of another size, posteriors that are not finite, names or sounds that do not fit; TypeError for what is no
    model.
    """
    models = models if isinstance(models, dict) else {"model": models}
    if not models or not x or not len(next(iter(x.values()))):
        raise ValueError(f"explorer: found {len(models)} models and {len(x)} modalities, expected some rows for each")
    first, assets, classes, listen = next(iter(models.values())), {}, classes or {}, listen or {}
    for name, model in models.items():
        _fits(name, model, first)
    ms = [m for m in first.modalities if m in x]
    for what, names in (("classes", classes), ("listen", listen)):
        if wrong := set(names) - set(first.modalities):
            raise ValueError(f"explorer: {what}: found {sorted(wrong)}, expected some of {tuple(first.modalities)}")
    if faces and factors is None:
        raise ValueError("explorer: found faces, but not the factors of x; expected those that Pairs.sample returned")
    with page.quiet(first):
        q = first.posterior(page.there(first, x))
        _starts(next(iter(models)), q)
        made = first.means({b: g.mu for b, g in q.items()})
    drawn, given, flat = {}, {}, {}
    for m, mean in made.items():
        if not mean.isfinite().all():
            wrong = mean[~mean.isfinite()][0].item()
            raise ValueError(f'explorer: the decoding of "{m}": found {wrong}, expected finite numbers')
        try:
            drawn[m] = views.view(first.likelihood(m), x.get(m), mean, classes.get(m))
        except ValueError as error:
            raise ValueError(f'explorer: classes["{m}"]: {error}') from None
        if m in x:
            given[m], flat[m] = views.given(drawn[m], x[m], mean)
    about = {name: {"label": (titles or {}).get(name, name)} | _about(name, model, x, flat, assets)
             for name, model in models.items()}
    grid = views.Faces(faces) if faces else None
    if grid and (set(grid.tiles) != set(x) or any(list(grid.tiles[m].shape[1:]) != drawn[m].get("size") for m in ms)):
        found, expected = ({m: tuple(v.shape[k:]) for m, v in of.items()} for of, k in ((grid.tiles, 1), (x, 2)))
        raise ValueError(f"explorer: found faces of {found}, expected pictures as in x, {expected}")
    at = grid.nearest(factors) if grid else len(x[ms[0]]) * [{}]
    tints = colours(dict.fromkeys([*first.modalities, *(b for model in models.values() for b in model.blocks)]))
    noun = "image" if [drawn[m]["kind"] for m in ms] == ["picture"] else NOUNS.get(len(ms), "row")
    config = {"modalities": drawn, "given": given, "models": about, "pairs": at, "noun": noun,
              "factors": grid.words if grid else {}, "axes": grid.axes if grid else {}, "owners": grid.owners if grid else {},
              "sprites": keep(assets, grid.sheet()) if grid else "", "colours": {b: views.inks(c) for b, c in tints.items()},
              "clips": {m: [keep(assets, _clip(m, f, row)) for row in x[m].cpu()] if m in x else []
                        for m, f in listen.items()}}
    caption = "Every latent at three values, the others at rest. With JavaScript there are sliders here."
    live = [model["live"] for model in about.values()]
    why = next(iter(live)) if all(live) else ""
    with page.quiet(first):
        still = plot.traversal_strip(first, page.there(first, x), classes=classes or None)
    return Explorer(models, x, grid, listen, still, "" if why else caption, assets, why, config=config,
                    model=next(iter(models)), factors=at[0], observed=joined(ms),
                    latents={block: q["mu"] for block, q in next(iter(about.values()))["start"][0].items()})


def _fits(name: str, model: nn.Module, first: nn.Module) -> None:
    asked = "modalities", "blocks", "seen", "posterior", "means", "likelihood", "like"
    if missing := [k for k in asked if not hasattr(model, k)]:
        raise TypeError(f'explorer: "{name}" is a {type(model).__name__} without {", ".join(missing)}, expected a model '
                        "as of mmvae.MultiModalVAE")
    shapes = [{m: of.shape for m, of in each.modalities.items()} for each in (model, first)]
    if shapes[0] != shapes[1]:
        raise ValueError(f'explorer: "{name}" has modalities {shapes[0]}, expected those of the first, {shapes[1]}')


def _starts(name: str, q: dict) -> list[dict]:
    """The posterior of each row as JSON."""
    try:
        return [page.told(q, k) for k in range(len(next(iter(q.values())).mu))]
    except ValueError as error:
        raise ValueError(f'explorer: "{name}": {error}') from None


def _clip(m: str, listen: Callable, row: Tensor) -> bytes:
    sound = listen(row)
    if not isinstance(sound, bytes) or len(sound) > CLIP:
        found = f"{len(sound):,} bytes" if isinstance(sound, bytes) else type(sound).__name__
        raise ValueError(f'listen["{m}"]: found {found}, expected at most {CLIP:,} bytes of a WAV file')
    return sound


def _about(name: str, model: nn.Module, x: dict[str, Tensor], given: dict[str, Tensor], assets: dict[str, bytes]) -> dict:
    """What the page needs to know of a model; its networks go to the assets. given: x as the page has it."""
    x = page.there(model, {m: x[m] for m in model.modalities if m in x})
    seen = [s for s in model.seen if set(s) <= set(x)]
    with page.quiet(model):
        start = _starts(name, model.posterior(x))
        rule, files, why = page.static(model, seen, x, given)
    named = {"S": "shared", "Z": "not partitioned"} | {m: f"private to {m}" for m in model.modalities}
    titles = {b: named.get(b, "") for b in model.blocks}
    about = {"blocks": dict(model.blocks), "titles": titles, "start": start, "live": "", "whole": joined(tuple(x)),
             "infer": dict.fromkeys(map(joined, seen))}
    if why:
        return about | {"live": f"This model {why}: its sliders move in a notebook, not on this page."}
    return about | rule | {part: keep(assets, data) for part, data in files.items()}
