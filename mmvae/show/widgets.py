"""The explorer of trained models: sliders for every latent, switches for what the model sees, a picture of one's own."""
import math
from collections.abc import Callable, Sequence

import torch
import traitlets as t
from torch import Tensor, nn

from ..observed import joined
from . import known, page, plot, views
from .alive import JS, MODULES, SCRIPTS, Widget, bundle, keep, module  # noqa: F401
from .labels import colours

CLIP, NOUNS = 12_000, {2: "pair", 3: "triple"}  # bytes of a sound, at most; of what the sliders start from


class Explorer(Widget):
    """What `explorer` returns. In a kernel each trait follows the page, and the page follows each.

    model: the shown one's name. pair: the preset, from 0, -1 where the factors were turned, or -2 for a picture of the
    reader's own, which stays in the page. observed: what the model sees, "I+T", or "". factors: {factor: index of its value}.
    latents: {block: [value of each latent]}, finite.
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
        self.room = views.room(state["config"])
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
             listen: dict[str, Callable[[Tensor], bytes]] | None = None, titles: dict[str, str] | None = None,
             does: dict[str, dict[str, Sequence[str]]] | None = None) -> Explorer:
    """Sliders for every latent, switches for what the model sees, sliders for the factors of what it sees, and where that is
    a picture, a place to draw or load one's own: nothing of it leaves the page.

    models: one, or several of the same modalities to pick from by name; the first is shown. Any model will do. What the
    package builds, its posteriors, networks and likelihoods, the static page computes by itself: `page.own`, `page.rule`.
    For any other the page asks a kernel, and without one the still picture stands, with the reason.
    x: rows to start from, {modality: (B, ...)}, all of a model's modalities or some that it can see alone.
    factors: theirs, as `faces.Pairs.sample` returns them. faces: `Pairs` whose first three people each the factor sliders
    go through; none: no such sliders. classes: names of classes, {modality: [one a class]}. listen: {modality: one row's
    values, in its shape -> the bytes of a WAV file, at most 12,000}. titles: of the models. does: what each latent does, in
    words that it wears, {model: {block: [one a latent]}}.

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
    for name, words in (does or {}).items():
        if name not in models or {b: len(of) for b, of in words.items()} != dict(models[name].blocks):
            found = {b: len(of) for b, of in words.items()}
            expected = f"one a latent, {dict(models[name].blocks)}" if name in models else f"one of {', '.join(models)}"
            raise ValueError(f'explorer: does["{name}"]: found {found} words, expected {expected}')
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
    grid = views.Faces(faces) if faces else None
    if grid and (set(grid.tiles) != set(x) or any(list(grid.tiles[m].shape[1:]) != drawn[m].get("size") for m in ms)):
        found, expected = ({m: tuple(v.shape[k:]) for m, v in of.items()} for of, k in ((grid.tiles, 1), (x, 2)))
        raise ValueError(f"explorer: found faces of {found}, expected pictures as in x, {expected}")
    rows = grid.unseen(known.ROWS) if grid else x
    words = {name: {b: list(v) for b, v in of.items()} for name, of in (does or {}).items()}
    about = {name: {"label": (titles or {}).get(name, name), "does": words.get(name, {})}
             | _about(name, model, x, flat, rows, drawn, assets) for name, model in models.items()}
    at = grid.nearest(factors) if grid else len(x[ms[0]]) * [{}]
    begin = {m: views.tile(drawn[m], mean[:1]) for m, mean in made.items()}
    tints = colours(dict.fromkeys([*first.modalities, *(b for model in models.values() for b in model.blocks)]))
    noun = "image" if [drawn[m]["kind"] for m in ms] == ["picture"] else NOUNS.get(len(ms), "row")
    config = {"modalities": drawn, "given": given, "models": about, "pairs": at, "noun": noun,
              "factors": grid.words if grid else {}, "axes": grid.axes if grid else {}, "owners": grid.owners if grid else {},
              "sprites": keep(assets, grid.sheet()) if grid else "", "begin": begin,
              "unseen": len(grid.new) if grid else 0, "colours": {b: views.inks(c) for b, c in tints.items()},
              "clips": {m: [keep(assets, _clip(m, f, row)) for row in x[m].cpu()] if m in x else []
                        for m, f in listen.items()}}
    config["bytes"] = {name: len(data) for name, data in assets.items()}
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


def _about(name: str, model: nn.Module, x: dict[str, Tensor], given: dict[str, Tensor], rows: dict[str, Tensor],
           drawn: dict[str, dict], assets: dict[str, bytes]) -> dict:
    """What the page needs to know of a model; its networks go to the assets. given: x as the page has it. rows: what it has
    not learnt from. drawn: the views."""
    x = page.there(model, {m: x[m] for m in model.modalities if m in x})
    seen = [s for s in model.seen if set(s) <= set(x)]
    with page.quiet(model):
        start = _starts(name, model.posterior(x))
        rule, files, why = page.static(model, seen, x, given)
    named = {"S": "shared", "Z": "not partitioned"} | {m: f"private to {m}" for m in model.modalities}
    titles = {b: named.get(b, "") for b in model.blocks}
    about = {"blocks": dict(model.blocks), "titles": titles, "start": start, "live": "", "known": {},
             "whole": joined(tuple(x)), "infer": dict.fromkeys(map(joined, seen))}
    if why:
        return about | {"live": f"This model {why}: its sliders move in a notebook, not on this page."}
    about["known"] = known.known(model, rows, drawn)
    return about | rule | {part: keep(assets, data) for part, data in files.items()}
