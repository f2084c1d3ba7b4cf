"""The figures that know the book's data and models: heads, their four factors, the blocks I, S and T, models by name."""
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from ..evaluate import wilson
from ..faces import HOME
from ..show import charts, diagram as diagrams, plot
from ..show.picture import Picture
from . import table

heatmap = partial(charts.heatmap, colours=table.COLOURS)  # rows named "I", "S", "T" are blocks


SERIES = "#CC79A7", "#B8860B", plot.GREY  # of numbers that belong to no block


def block(name: str) -> str:
    """A block's name in its colour, as HTML."""
    return charts.block(name, table.COLOURS[name])


def diagram(name: str) -> Picture:
    """The diagram of one of `mmvae.MODELS`, by its name. Raises ValueError for another."""
    if name not in table.MODELS:
        raise ValueError(f'model: found "{name}", expected one of {", ".join(table.MODELS)}')
    return diagrams.diagram(table.MODELS[name](size=16), table.TITLES[name])


def pairs(x: dict[str, Tensor], factors: dict[str, Tensor] | None = None, unit: str = "°", alt: str | None = None) -> Picture:
    """Pairs as the models see them, xI above xT; below each its private factor, above the azimuth."""
    alt = alt or (f"{len(x['I'])} pairs of heads, one pair a column: above xI, with an elevation of its own; below xT, "
                  "with a light of its own.")
    return plot.pairs(x, factors, HOME, unit, alt)


def sweeps(render: Callable[..., Tensor], identity: int = 0, size: int = 64, alt: str | None = None) -> Picture:
    """One factor at a time, the others neutral: rows azimuth, elevation, light, identity.

    render(identity, azimuth=, elevation=, light=, size=) -> (size, size), as `mmvae.faces.render`.
    """
    factors = {"azimuth": range(-90, 91, 30), "elevation": range(-30, 31, 10), "light": range(-75, 76, 25)}
    images = [render(identity, **{f: float(v)}, size=size) for f, values in factors.items() for v in values]
    images += [render(k, size=size) for k in range(identity, identity + 7)]
    captions = [plot.signed(v, "°") for values in factors.values() for v in values]
    captions += [str(k) for k in range(identity, identity + 7)]
    alt = alt or ("Four rows of heads: the pose turns from left to right, it nods from down to up, the "
                  "light goes round, and in the last row the identity changes.")
    return plot.grid(torch.stack(images)[:, None], 7, names=[*factors, "identity"], captions=captions, alt=alt)


def contact_sheet(render: Callable[..., Tensor], identities: Sequence[int] = range(8),
                  azimuths: Sequence[float] = range(-80, 81, 20), size: int = 64, alt: str | None = None,
                  names: Sequence[str] = ()) -> Picture:
    """Identity by pose: a row for each identity, a column for each azimuth. render: as for `sweeps`. names: of the rows;
    default, the identities' numbers."""
    images = [render(k, azimuth=float(a), size=size) for k in identities for a in azimuths]
    alt = alt or (f"Contact sheet: {len(identities)} heads, one a row, turned from {azimuths[0]} to "
                  f"{azimuths[-1]} degrees.")
    return plot.grid(torch.stack(images)[:, None], len(azimuths), heads=[plot.signed(a, "°") for a in azimuths],
                     names=list(names) or [str(k) for k in identities], alt=alt)


def counts(found: dict[str, tuple[int, int]], alt: str) -> Picture:
    """How many of how many, a row each, with the interval of the share, from 0 to 1; the dashed line is one half.

    found: {name: (count, n)}. Raises ValueError for a count that is not from 0 to n.
    """
    fig = Figure(figsize=(7, 0.7 + 0.36 * len(found)), layout="constrained", dpi=100)
    ax = fig.subplots()
    for row, (count, n) in enumerate(found.values()):
        ax.plot(wilson(count, n), (row, row), color=SERIES[0], lw=4, solid_capstyle="butt")
        ax.plot(count / n, row, "o", color=plot.GREY, markersize=7)
        ax.text(1.03, row, f"{count} of {n}", va="center")
    ax.axvline(0.5, color=plot.GREY, lw=1.2, linestyle=(0, (3, 2)))
    ax.set(xlim=(-0.02, 1.14), ylim=(len(found) - 0.5, -0.5), xlabel="share")
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    ax.set_yticks(range(len(found)), list(found))
    ax.tick_params(axis="y", length=0)
    return plot.figure(fig, alt)


def by_seed(values: dict[str, dict[str, Sequence[float]]], ylabel: str, alt: str, log: Sequence[float] = (),
            lines: dict[str, float] | None = None, height: float = 3.2) -> Picture:
    """A dot for each seed, a column for each model; of several series, side by side. A short line is the median of the dots.

    values: {series: {model: a number a seed (n,)}}. log: the ticks of a logarithmic axis. lines: {name: height} of dashed
    lines across, such as chance.
    """
    fig = Figure(figsize=(7, height), layout="constrained", dpi=100)
    ax, models = fig.subplots(), list(dict.fromkeys(name for of in values.values() for name in of))
    for k, (series, of) in enumerate(values.items()):
        side = (k - (len(values) - 1) / 2) * 0.8 / len(values)
        for name, numbers in of.items():
            x = models.index(name) + side
            ax.plot(x + np.linspace(-0.25, 0.25, len(numbers)) / len(values), numbers, "o", color=SERIES[k], alpha=0.75,
                    markersize=5, markeredgewidth=0, label=series if name == next(iter(of)) else None)
            ax.hlines(np.median(numbers), x - 0.32 / len(values), x + 0.32 / len(values), color=plot.GREY, lw=2)
    for name, at in (lines or {}).items():
        ax.axhline(at, color=plot.GREY, lw=1.2, linestyle=(0, (3, 2)))
        ax.annotate(name, (1, at), xycoords=("axes fraction", "data"), xytext=(0, 3), textcoords="offset points", ha="right")
    ax.set_xticks(range(len(models)), models)
    ax.set_ylabel(ylabel)
    if log:
        ax.set(yscale="log")
        ax.set_yticks(log, [f"{v:g}" for v in log])
        ax.set_yticks([], minor=True)
    if len(values) > 1:
        fig.legend(*ax.get_legend_handles_labels(), ncols=len(values), loc="outside lower center")
    return plot.figure(fig, alt)


def by_row(values: dict[str, dict[str, Sequence[float]]], alt: str, log: Sequence[str] = (),
           lines: dict[str, float] | None = None, bold: Sequence[str] = ()) -> Picture:
    """Many models, a row each, and a panel for each measure: a dot for each seed, a short line at their median.

    values: {measure: {model: a number a seed (n,)}}; a model without one has no dot, NaN neither. log: the measures on a
    logarithmic axis. lines: {measure: where a dashed line stands}. bold: the models whose name is.
    """
    names = list(dict.fromkeys(name for of in values.values() for name in of))
    fig = Figure(figsize=(7, 1.0 + 0.3 * len(names)), layout="constrained", dpi=100)
    for ax, (measure, of) in zip(fig.subplots(1, len(values), sharey=True, squeeze=False)[0], values.items()):
        for name, numbers in of.items():
            row, numbers = names.index(name), np.asarray(numbers, float)
            ax.axhline(row, color=plot.GREY, lw=0.6, alpha=0.35)
            ax.plot(numbers, np.full(len(numbers), row), "o", color=SERIES[0], markersize=5, markeredgewidth=0, alpha=0.75)
            if not np.isnan(numbers).all():
                ax.vlines(np.nanmedian(numbers), row - 0.3, row + 0.3, color=plot.GREY, lw=2)
        if measure in (lines or {}):
            ax.axvline(lines[measure], color=plot.GREY, lw=1.2, linestyle=(0, (3, 2)))
        ax.set(title=measure, ylim=(len(names) - 0.5, -0.5), xscale="log" if measure in log else "linear")
        ax.set_yticks(range(len(names)), names)
        ax.tick_params(axis="y", length=0)
        for label in (label for label in ax.get_yticklabels() if label.get_text() in bold):
            label.set_fontweight("bold")
    return plot.figure(fig, alt)
