"""The figures that know the book's data and models: heads, their four factors, the blocks I, S and T, models by name."""
from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from ..faces import HOME
from ..show import charts, diagram as diagrams, plot
from ..show.picture import Picture
from . import table

heatmap = partial(charts.heatmap, colours=table.COLOURS)  # rows named "I", "S", "T" are blocks


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
                  azimuths: Sequence[float] = range(-80, 81, 20), size: int = 64, alt: str | None = None) -> Picture:
    """Identity by pose: a row for each identity, a column for each azimuth. render: as for `sweeps`."""
    images = [render(k, azimuth=float(a), size=size) for k in identities for a in azimuths]
    alt = alt or (f"Contact sheet: {len(identities)} heads, one a row, turned from {azimuths[0]} to "
                  f"{azimuths[-1]} degrees.")
    return plot.grid(torch.stack(images)[:, None], len(azimuths), heads=[plot.signed(a, "°") for a in azimuths],
                     names=[str(k) for k in identities], alt=alt)
