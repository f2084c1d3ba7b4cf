"""The figures of the book, one family: every chapter asks the same of every model and shows it in the same way.

A modality is shown as what it is: a picture, an array, bars, a curve, probabilities of classes (`tiles.py`), always by the
mean of its likelihood. Columns of a traversal run truth, then each block's latents, z_I, z_S, z_T; a row a modality; a
block's name stands above its columns in its colour. Every function returns a `Picture` (the last line of a cell shows it;
`.save(path)` writes it) and takes `alt`, the alternative text, to say more than the derived one does; and, where data are
shown,

    x: {modality: (B, ...)}, of some or all modalities; present: {modality: bool (B,)}, the rows in which it was observed;
    classes: {modality: words for its classes}.
"""
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .charts import block, figure, heatmap, loss_curves, style, table
from .labels import GREY, Label, colours, symbol
from .picture import Picture, grid, stack
from .tiles import as_values, look, sheet, tile

__all__ = ["GREY", "Picture", "block", "colours", "cross_modal", "figure", "grid", "heatmap", "imagined", "look",
           "loss_curves", "pairs", "prior_samples", "reconstructions", "signed", "stack", "style", "table", "tile",
           "traversal", "traversal_gif", "traversal_strip"]
Masks = dict[str, Tensor] | None
Words = dict[str, Sequence[str]] | None


# What a model is asked

def _latents(model) -> list[tuple[str, int]]:
    """[("I", 0), ("I", 1), ("S", 0), ...]: every latent, in the order of the columns."""
    return [(block, k) for block, dim in model.blocks.items() for k in range(dim)]


@torch.no_grad()
def traversal(model, x: dict[str, Tensor], values: Sequence[float] | None = None, span: float = 2.5,
              present: Masks = None) -> dict[str, Tensor]:
    """Move one latent at a time, the others at their posterior mean given what was observed, and decode.

    values: of the moving latent; default, 11 from -span to span (the prior's standard deviations). Returns the likelihoods'
    means, {modality: (V, K, B, ...)}: V values, K latents in the order of the model's blocks.
    """
    values = torch.linspace(-span, span, 11).tolist() if values is None else list(values)
    means = {block: q.mu for block, q in model.posterior(x, present).items()}  # (B, D)
    shots = []
    for block, k in _latents(model):
        for value in values:
            moved = means[block].clone()
            moved[:, k] = value
            shots.append(means | {block: moved})
    z = {block: torch.cat([shot[block] for shot in shots]) for block in means}  # (K V B, D)
    return {m: made.unflatten(0, (-1, len(values), _rows(x))).transpose(0, 1) for m, made in model.means(z).items()}


@torch.no_grad()
def imagined(model, x: dict[str, Tensor], given: str | Sequence[str], target: str, samples: int = 3,
             generator: torch.Generator | None = None) -> Tensor:
    """Means of p(x_target | z), for draws of z given some modalities, (B, samples, ...), on the CPU [eq-side-cross]."""
    given = (given,) if isinstance(given, str) else tuple(given)
    draws = [model.predict({m: x[m] for m in given}, (target,), 1, generator=generator)[target][0] for _ in range(samples)]
    return torch.stack(draws, 1).cpu()


# Words and labels

def _rows(x: dict[str, Tensor]) -> int:
    return len(next(iter(x.values())))


def _noun(count: int, modalities) -> str:
    """"1 pair", "3 triples"."""
    return f"{count} {_one(modalities)}" + "s" * (count != 1)


def _one(modalities) -> str:
    return {2: "pair", 3: "triple"}.get(len(modalities), "row")


def spoken(letter: str, name: str) -> str:
    """A variable in alternative texts: "xI", "x digit"."""
    return letter + " " * (len(name) > 1) + name


def _listed(modalities, with_kind: bool = True) -> str:
    """"xI (grey picture of 64 × 64), xT (...)", as `sheet` completes it."""
    return ", ".join(spoken("x", m) + f" ({{{m}}})" * with_kind for m in modalities)


def signed(value: float, unit: str = "") -> str:
    """+2, 0, −2 (with a true minus sign)."""
    text = f"{value:+g}" if round(value, 6) else "0"
    return text.replace("-", "\N{MINUS SIGN}") + unit


def _columns(model) -> dict:
    """The labels above a traversal: truth, then block by block with the latents' numbers."""
    dims, tints = {block: dim for block, dim in model.blocks.items() if dim}, colours(model.blocks)
    names = {block: "z" if block == "Z" else symbol("z", block) for block in dims}
    return {"columns": 1 + sum(dims.values()),
            "groups": [("truth", 1)] + [((names[b], tints[b]), dim) for b, dim in dims.items()],
            "heads": [""] + [(str(k + 1), tints[b]) for b, dim in dims.items() for k in range(dim)]}


def _block_list(model) -> str:
    return ", then ".join(("z" if block == "Z" else spoken("z", block)) + (f" 1 to {dim}" if dim > 1 else " 1")
                          for block, dim in model.blocks.items() if dim)


def truth(model, x: dict[str, Tensor], made: dict[str, Tensor], present: Masks = None) -> dict[str, Tensor]:
    """The data as values, {modality: float (B, ...)}, of every modality in `made`, {modality: (B, ...)} of means; NaN where
    nothing was observed."""
    return {m: as_values(model.modalities.get(m), x[m], (present or {}).get(m)) if m in x else
            torch.full_like(v, math.nan, device="cpu") for m, v in made.items()}


def pixel(values: Tensor) -> int:
    """By how much a small picture is magnified to be about 64 wide."""
    return max(1, 64 // values.shape[-1]) if values.dim() > 1 else 1


# Traversals

def traversal_gif(model, x: dict[str, Tensor], path=None, frames: int = 24, span: float = 2.5, alt: str | None = None,
                  present: Masks = None, classes: Words = None) -> Picture:
    """The traversal in motion: every latent swings from -span to span and back, for each row of x.

    Columns truth, then each latent; a row for each modality. An animated WebP that loops; readers who ask for reduced motion
    get a still. path: also write it there (".webp" or ".gif").
    """
    values = [-span * math.cos(2 * math.pi * k / frames) for k in range(frames)]
    half = frames // 2 + 1  # the way back shows the same
    moved = {m: v.cpu() for m, v in traversal(model, x, values[:half], present=present).items()}  # (V, K, B, ...)
    true = truth(model, x, {m: v[0, 0] for m, v in moved.items()}, present)
    lines = [(symbol("x", m), [(m, true[m][k].expand(half, 1, *true[m].shape[1:])), (m, v[:, :, k])])
             for k in range(_rows(x)) for m, v in moved.items()]
    said = (f"Animated traversal of {_noun(_rows(x), moved)}. First column: the truth, from top to bottom: {_listed(moved)}. "
            f"Then one column for each latent ({_block_list(model)}), which swings between {-span:g} and {span:g} while the "
            "others stay at their posterior mean.")
    picture = sheet(model.modalities, lines, rows=[len(moved)] * _rows(x), values=values, most=64, alt=said, own=alt,
                    magnify=pixel(next(iter(moved.values()))[0, 0]), duration=100, classes=classes,
                    order=[min(k, frames - k) for k in range(frames)], **_columns(model))
    if path:
        picture.save(path)
    return picture


def traversal_strip(model, x: dict[str, Tensor], pair: int = 0, values: Sequence[float] = (-2, 0, 2),
                    alt: str | None = None, present: Masks = None, classes: Words = None) -> Picture:
    """The traversal of one row of x, still, for print: some values of each latent, one modality above the other."""
    one, seen = ({m: v[pair:pair + 1] for m, v in (of or {}).items()} for of in (x, present))
    moved = traversal(model, one, values, present=seen)
    true = truth(model, one, {m: v[0, 0] for m, v in moved.items()}, seen)
    lines, middle = [], len(values) // 2
    for m, made in moved.items():
        for k, value in enumerate(values):  # the truth is shown once
            first = (m, true[m]) if k == middle else (None, 1)
            lines.append(((symbol("x", m) + "  ") * (k == middle) + signed(value), [first, (m, made[k, :, 0].cpu())]))
    said = (f"Traversal of one {_one(moved)}. First column: the truth. Then one column for each latent "
            f"({_block_list(model)}) at {', '.join(map(signed, values))}, of one modality above the other: {_listed(moved)}.")
    return sheet(model.modalities, lines, rows=[len(values)] * len(moved), most=64, alt=said, own=alt, classes=classes,
                 magnify=pixel(next(iter(moved.values()))[0, 0]), **_columns(model))


# Reconstruction and synthesis

@torch.no_grad()
def reconstructions(model, x: dict[str, Tensor], alt: str | None = None, present: Masks = None,
                    classes: Words = None) -> Picture:
    """The truth above what the model makes of it: decoded from the posterior mean given what was observed. What was not, the
    model imagines: it stands by itself, or, where some rows lack it, under a dashed frame, and is named so."""
    made = {m: v.cpu() for m, v in model.means({b: q.mu for b, q in model.posterior(x, present).items()}).items()}
    true, n = truth(model, x, made, present), _rows(x)
    lines, rows, under = [], [], []
    gone = {m: v.flatten(1).isnan().all(1).tolist() for m, v in true.items()}
    some = any(map(any, gone.values()))
    for m in made:
        if not all(gone[m]):
            lines.append((symbol("x", m) + "\ngiven" * some, [(m, true[m])]))
        lines.append(("model" if not all(gone[m]) else symbol("x", m) + "\nimagined", [(m, made[m])]))
        rows.append(1 if all(gone[m]) else 2)
        under += [""] * n * (rows[-1] - 1) + ["imagined" if g and not all(gone[m]) else "" for g in gone[m]]
    listed = ", ".join((f"{spoken('x', m)} ({{{m}}}), " if not all(gone[m]) else "") + f"the model's {spoken('x', m)}"
                       + (", imagined, since it was not given" if all(gone[m]) else
                          f", imagined in {sum(gone[m])} of {n}" if any(gone[m]) else "") for m in made)
    return sheet(model.modalities, lines, n, rows=rows, classes=classes, own=alt, captions=under if any(under) else (),
                 alt=f"Reconstructions of {_noun(n, made)}. Rows: {listed}.")


@torch.no_grad()
def prior_samples(model, n: int = 10, seed: int = 0, alt: str | None = None, classes: Words = None) -> Picture:
    """Pure synthesis: n rows decoded from z ~ N(0, 1)."""
    made = model.sample(n, generator=torch.Generator().manual_seed(seed))  # on the CPU, so that every device draws the same
    said = f"{_noun(n, made)} decoded from the prior, one a column, from top to bottom: {_listed(made)}."
    return sheet(model.modalities, [(symbol("x", m), [(m, v.cpu())]) for m, v in made.items()], n, alt=said, own=alt,
                 classes=classes)


def cross_modal(model, x: dict[str, Tensor], samples: int = 3, seed: int = 0, alt: str | None = None,
                directions: Sequence[tuple[str | Sequence[str], str]] | None = None, classes: Words = None) -> Picture:
    """Cross-modal synthesis: what is given, its true partner, samples of the partner.

    Everything is drawn: z_S from the posterior of what is given, the partner's private block from its prior. directions:
    (given, target), given a name or several; default, each modality of x to each other, both ways side by side.
    Raises the model's ValueError if it has no posterior of what is given (the Vanilla VAE).
    """
    generator, names = torch.Generator().manual_seed(seed), tuple(model.modalities)
    if directions is None:
        both = [(a, b) for k, a in enumerate(names) for b in names[k + 1:]]
        directions = [way for a, b in both for way in ((a, b), (b, a)) if way[0] in x]
    ways = [((given,) if isinstance(given, str) else tuple(given), target) for given, target in directions]
    parts = [_direction(model, x, given, target, samples, generator) for given, target in ways]
    wide = max(len(given) for given, _ in ways) > 1 or len(parts) == 1
    lines = [parts[k:k + (1 if wide else 2)] for k in range(0, len(parts), 1 if wide else 2)]
    shown = dict.fromkeys(m for given, target in ways for m in (*given, target))
    said = f"Cross-modal synthesis for {_noun(_rows(x), names)}: {_listed(shown)}. "
    said += " ".join(f"Given {_listed(given, False)}: " + f"the true {spoken('x', target)}, and " * (target in x)
                     + f"{samples} samples of it." for given, target in ways)
    pictures, shown = [], [part for line in lines for part in line]
    side = min(128, 700 // max(sum(p["columns"] for p in line) for line in lines))
    looks = _looks(model, shown, classes)
    for line in lines:
        columns, groups, heads = [], [], []
        for part in line:
            columns += part["parts"]
            groups += [*part["groups"], ("", 0), ("", 0)]
            heads += part["heads"]
        across = [[(m, v[k:k + 1]) for m, v in columns] for k in range(_rows(x))]
        one = sheet(model.modalities, [("", parts) for parts in across], len(columns), alt=said, own=alt, groups=groups[:-2],
                    heads=heads, rows=[1] * _rows(x), looks=looks, classes=classes,
                    **({} if len(lines) == 1 else {"most": side, "magnify": max(1, side // columns[0][1].shape[-1])}))
        pictures.append(one)
    return pictures[0] if len(pictures) == 1 else stack(pictures, pictures[0].alt)


def _direction(model, x, given: tuple[str, ...], target: str, samples: int, generator) -> dict:
    """The columns of one direction, with their labels."""
    made, here = imagined(model, x, given, target, samples, generator), target in x
    parts = [(m, as_values(model.modalities[m], x[m])) for m in (*given, *[target] * here)]
    drawn: Label = "samples"
    if model.blocks.get(target, 0):
        drawn = (symbol("z", target) + " from prior", colours(model.blocks)[target])
    return {"parts": parts + [(target, v) for v in made.unbind(1)], "columns": len(given) + here + samples,
            "groups": [("given", len(given)), *[("truth", 1)] * here, (drawn, samples)],
            "heads": [symbol("x", m) for m in (*given, *[target] * here, *[target] * samples)]}


def _looks(model, directions, classes):
    shown = {}
    for m, v in (part for direction in directions for part in direction["parts"]):
        shown.setdefault(m, []).append(v)
    return {m: look(model.modalities.get(m), values, (classes or {}).get(m, ())) for m, values in shown.items()}


# The data

def pairs(x: dict[str, Tensor], factors: dict[str, Tensor] | None = None, homes: dict[str, str] | None = None,
          unit: str = "", alt: str | None = None, modalities=None, present: Masks = None, classes: Words = None) -> Picture:
    """Rows of data as the models see them, one a column, a modality below the other.

    factors: {name: (B,)}, written below the modality that is their home, homes[name], or above the column where they have
    none there. unit: of those that are not whole numbers. modalities: of the model, if x alone does not say what it is.
    """
    n, homes, modalities = _rows(x), homes or {}, modalities or dict.fromkeys(x)
    factors = {f: [signed(v, unit) if isinstance(v, float) else str(v) for v in values.tolist()]
               for f, values in (factors or {}).items() if not homes or f in homes}
    above = [", ".join(f"{f} {values[k]}" for f, values in factors.items() if homes.get(f) not in x) for k in range(n)]
    below = {m: [", ".join(f"{f} {values[k]}" for f, values in factors.items() if homes.get(f) == m) for k in range(n)]
             for m in x}
    captions = [text for m in x for text in below[m]]
    said = f"{_noun(n, x)} of data, one a column, from top to bottom: {_listed(x)}." + (
        f" With {', '.join(factors)} of each." * bool(factors))
    return sheet(modalities, [(symbol("x", m), [(m, as_values(modalities.get(m), v, (present or {}).get(m)))])
                              for m, v in x.items()], n, rows=[1] * len(x), groups=[(text, 1) for text in above],
                 captions=captions if any(captions) else (), alt=said, own=alt, classes=classes)
