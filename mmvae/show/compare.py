"""Several models, one question, one picture: a row, or a row a modality, for each model.

models: {title: model}, of the same modalities. x: {modality: (B, ...)}, all of them. Every function returns a `Picture` and
takes `classes`, {modality: words for its classes}.
"""
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from . import plot
from .labels import GREY, colours, symbol
from .picture import Picture
from .tiles import as_values, sheet

Words = dict[str, Sequence[str]] | None


def _first(models):
    return next(iter(models.values()))


@torch.no_grad()
def reconstructions(models, x: dict[str, Tensor], classes: Words = None) -> Picture:
    """The truth, then a row for each model: decoded from the posterior mean given all; one modality after the other."""
    n, of, rows = len(next(iter(x.values()))), _first(models).modalities, []
    rows.append(("truth", [(m, as_values(of[m], x[m])) for m in of]))
    for title, model in models.items():
        made = model.means({block: q.mu for block, q in model.posterior(x).items()})
        rows.append((title, [(m, made[m].cpu()) for m in of]))
    return sheet(of, rows, n * len(of), rows=[1, len(models)], groups=[(symbol("x", m), n) for m in of], classes=classes,
                 alt=f"Reconstructions of {plot._noun(n, of)}, a row for each model: {', '.join(models)}. "
                     f"From left to right: {plot._listed(of)}.")


def traversals(models, x: dict[str, Tensor], pairs=(0,), frames: int = 24, span: float = 2.5,
               classes: Words = None) -> Picture:
    """Every latent in motion, a row a modality for each model and each of these rows of x; models of the same blocks."""
    values, lines, under = [-span * math.cos(2 * math.pi * k / frames) for k in range(frames)], [], []
    first, half = _first(models), frames // 2 + 1  # the way back shows the same
    blocks, of, tints = {b: d for b, d in first.blocks.items() if d}, first.modalities, colours(first.blocks)
    columns = 1 + sum(blocks.values())
    for title, model in models.items():
        for pair in pairs:
            one = {m: v[pair:pair + 1] for m, v in x.items()}
            moved = plot.traversal(model, one, values[:half])  # {m: (V, K, 1, ...)}
            for m in of:
                true = as_values(of[m], one[m])
                lines.append((symbol("x", m), [(m, true.expand(half, *true.shape)), (m, moved[m][:, :, 0].cpu())]))
                last = m == tuple(of)[-1] and pair == pairs[-1]  # a model's title stands below its last row
                under += [title if last else ""] + [""] * (columns - 1)
    whole = len(blocks) == 1
    groups = [(f"{columns - 1} latents, no private block", GREY) if whole else (symbol("z", b), tints[b]) for b in blocks]
    heads = [""] + [(str(k + 1), GREY if whole else tints[b]) for b, d in blocks.items() for k in range(d)]
    alt = (f"Animated traversals of {plot._noun(len(pairs), of)} by {', '.join(models)}: truth, then each latent. "
           f"One above the other: {plot._listed(of)}.")
    return sheet(of, lines, columns, groups=[("truth", 1), *zip(groups, blocks.values())], heads=heads, most=64, alt=alt,
                 captions=under, rows=[len(of)] * (len(lines) // len(of)), values=values, duration=100, classes=classes,
                 magnify=plot.pixel(next(iter(x.values()))), order=[min(k, frames - k) for k in range(frames)])


@torch.no_grad()
def prior_samples(models, n: int = 8, real: dict[str, Tensor] | None = None, seed: int = 0, classes: Words = None) -> Picture:
    """Pure synthesis: n rows of each model from z ~ N(0, 1), one modality above the other; first real ones, if given."""
    of = _first(models).modalities
    shown = {} if real is None else {f"real {plot._one(of)}s": {m: as_values(of[m], real[m]) for m in of}}
    shown |= {title: model.sample(n, generator=torch.Generator().manual_seed(seed)) for title, model in models.items()}
    rows = [((f"{title}  " if not k else "") + symbol("x", m), [(m, made[m].cpu())])
            for title, made in shown.items() for k, m in enumerate(of)]
    return sheet(of, rows, n, rows=[len(of)] * len(shown), classes=classes,
                 alt=f"{n} samples of each model, {_above(of)}: {', '.join(shown)}.")


def _above(of) -> str:
    return " above ".join(plot.spoken("x", m) for m in of)


def crossed(model, x: dict[str, Tensor], given: str | Sequence[str], target: str, samples: int = 3, seed: int = 0) -> Tensor:
    """Samples of x_target from what is given: the likelihood's means, (B, samples, ...) [eq-side-cross]."""
    return plot.imagined(model, x, given, target, samples, torch.Generator().manual_seed(seed))


def cross_modal(models, x: dict[str, Tensor], given: str, target: str, samples: int = 3, classes: Words = None) -> Picture:
    """Cross-modal synthesis: the given and the true modality, then a row of samples for each model that can."""
    able, of = {title: model for title, model in models.items() if model.can_see((given,))}, _first(models).modalities
    true, n = {m: as_values(of[m], x[m]) for m in (given, target)}, len(x[given])
    above = [part for k in range(n) for part in ((given, true[given][k:k + 1]), (target, true[target][k:k + 1]),
                                                 (None, samples - 2))]
    rows = [(f"{symbol('x', given)}, true {symbol('x', target)}", above)]
    rows += [(title, [(target, crossed(model, x, given, target, samples).flatten(0, 1))]) for title, model in able.items()]
    return sheet(of, rows, samples * n, rows=[1, len(able)], classes=classes,
                 groups=[(f"{plot._one(of)} {k + 1}", samples) for k in range(n)],
                 alt=f"The given {plot._listed([given])}, the true {plot._listed([target])}, samples of "
                     f"{plot.spoken('x', target)} by each model: {', '.join(able)}.")
