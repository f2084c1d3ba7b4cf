"""The figures of the book, one family: every chapter asks the same of every model and shows it in the same
way.

Columns of a traversal run truth, zI, zS, zT; rows xI, xT; a block's name stands above its columns in its
colour. Every function returns a `Picture` (the last line of a cell shows it; `.save(path)` writes it) and
takes `alt`, the alternative text, to say more than the derived one does.
"""
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .charts import block, figure, heatmap, loss_curves, style, table
from .picture import COLOURS, GREY, Label, Picture, grid

__all__ = ["COLOURS", "GREY", "Picture", "block", "contact_sheet", "cross_modal", "figure", "grid", "heatmap",
           "loss_curves", "pairs", "prior_samples", "reconstructions", "style", "sweeps", "table", "traversal",
           "traversal_gif", "traversal_strip"]


# What a model is asked

def _latents(model) -> list[tuple[str, int]]:
    """[("I", 0), ("I", 1), ("S", 0), ...]: every latent, in the order of the columns."""
    return [(block, k) for block, dim in model.blocks.items() for k in range(dim)]


def _decode(model, z: dict[str, Tensor]) -> dict[str, Tensor]:
    """The means of both images, (B, 1, H, W) in [0, 1]."""
    return {m: logits.sigmoid() for m, logits in model.decode(z).items()}


def _seeded(model, seed: int) -> tuple[torch.Generator, torch.device]:
    """A generator on the CPU, so that every device draws the same."""
    return torch.Generator().manual_seed(seed), next(model.parameters()).device


def _draw(q, generator: torch.Generator) -> Tensor:
    """One sample of a Gaussian, (B, D)."""
    return q.mu + (0.5 * q.logvar).exp() * torch.randn(q.mu.shape, generator=generator).to(q.mu)


@torch.no_grad()
def traversal(model, x: dict[str, Tensor], values: Sequence[float] | None = None,
              span: float = 2.5) -> dict[str, Tensor]:
    """Move one latent at a time, the others at their posterior mean given both images, and decode.

    x: {"I": (B, 1, H, W), "T": same}. values: of the moving latent; default, 11 from -span to span (the
    prior's standard deviations). Returns {"I": (V, K, B, 1, H, W), "T": same} in [0, 1]: V values, K latents
    in the order of the model's blocks.
    """
    values = torch.linspace(-span, span, 11).tolist() if values is None else list(values)
    means = {block: q.mu for block, q in model.posterior(x).items()}  # (B, D)
    shots = []
    for block, k in _latents(model):
        for value in values:
            moved = means[block].clone()
            moved[:, k] = value
            shots.append(means | {block: moved})
    z = {block: torch.cat([shot[block] for shot in shots]) for block in means}  # (K V B, D)
    images = _decode(model, z)
    return {m: im.unflatten(0, (-1, len(values), len(x["I"]))).transpose(0, 1) for m, im in images.items()}


def _columns(model) -> dict:
    """The labels above a traversal: truth, then block by block with the latents' numbers."""
    dims = {block: dim for block, dim in model.blocks.items() if dim}
    names = {block: "z" if block == "Z" else f"z_{block}" for block in dims}
    return {"columns": 1 + sum(dims.values()),
            "groups": [("truth", 1)] + [((names[b], COLOURS[b]), dim) for b, dim in dims.items()],
            "heads": [""] + [(str(k + 1), COLOURS[b]) for b, dim in dims.items() for k in range(dim)]}


def _block_list(model) -> str:
    return ", then ".join(f"z 1 to {dim}" if block == "Z" else f"z{block} 1 to {dim}"
                          for block, dim in model.blocks.items() if dim)


def traversal_gif(model, x: dict[str, Tensor], path=None, frames: int = 24, span: float = 2.5,
                  alt: str | None = None) -> Picture:
    """The traversal in motion: every latent swings from -span to span and back, for each pair of x.

    Columns truth, then each latent; rows xI, xT of each pair. An animated WebP that loops; readers who ask
    for reduced motion get a still. path: also write it there (".webp" or ".gif").
    """
    values = [-span * math.cos(2 * math.pi * k / frames) for k in range(frames)]
    half = frames // 2 + 1  # the way back shows the same images
    moved = traversal(model, x, values[:half])
    images = torch.stack([moved[m] for m in "IT"], 3).cpu()  # (V, K, B, 2, 1, H, W)
    images = images[[min(k, frames - k) for k in range(frames)]]
    truth = torch.stack([x[m] for m in "IT"], 1).cpu().expand(frames, 1, -1, -1, -1, -1, -1)
    rows = torch.cat([truth, images], 1).permute(0, 2, 3, 1, 4, 5, 6)  # (V, B, 2, 1 + K, 1, H, W)
    alt = alt or (f"Animated traversal of {len(x['I'])} pairs of heads. First column: the true images, xI "
                  f"above xT. Then one column for each latent ({_block_list(model)}), which swings between "
                  f"{-span:g} and {span:g} while the others stay at their posterior mean.")
    picture = grid(rows.flatten(1, 3), names=["x_I", "x_T"] * len(x["I"]), rows=[2] * len(x["I"]),
                   values=values, magnify=max(1, 64 // model.size), alt=alt, duration=100, **_columns(model))
    if path:
        picture.save(path)
    return picture


def traversal_strip(model, x: dict[str, Tensor], pair: int = 0, values: Sequence[float] = (-2, 0, 2),
                    alt: str | None = None) -> Picture:
    """The traversal of one pair, still, for print: three values of each latent, xI above xT."""
    one = {m: image[pair:pair + 1] for m, image in x.items()}
    moved = traversal(model, one, values)
    rows, names, middle = [], [], len(values) // 2
    for m in "IT":
        for k, value in enumerate(values):
            truth = one[m].cpu() if k == middle else torch.full_like(one[m], math.nan).cpu()  # shown once
            rows.append(torch.cat([truth, moved[m][k, :, 0].cpu()]))  # (1 + K, 1, H, W)
            names.append((f"x_{m}  " if k == middle else "") + signed(value))
    alt = alt or ("Traversal of one pair of heads. First column: the true images. Then one column for each "
                  f"latent ({_block_list(model)}) at {', '.join(map(signed, values))}: above xI, below xT.")
    return grid(torch.cat(rows), names=names, rows=[len(values)] * 2, magnify=max(1, 64 // model.size),
                alt=alt, **_columns(model))


def signed(value: float, unit: str = "") -> str:
    """+2, 0, −2 (with a true minus sign)."""
    text = f"{value:+g}" if round(value, 6) else "0"
    return text.replace("-", "\N{MINUS SIGN}") + unit


@torch.no_grad()
def reconstructions(model, x: dict[str, Tensor], alt: str | None = None) -> Picture:
    """The truth above what the model makes of it: decoded from the posterior mean given both images."""
    decoded = _decode(model, {block: q.mu for block, q in model.posterior(x).items()})
    images = torch.cat([x["I"].cpu(), decoded["I"].cpu(), x["T"].cpu(), decoded["T"].cpu()])
    alt = alt or f"Reconstructions of {len(x['I'])} pairs. Rows: xI, the model's xI, xT, the model's xT."
    return grid(images, len(x["I"]), names=["x_I", "model", "x_T", "model"], rows=[2, 2], alt=alt)


@torch.no_grad()
def prior_samples(model, n: int = 10, seed: int = 0, alt: str | None = None) -> Picture:
    """Pure synthesis: n pairs decoded from z ~ N(0, 1)."""
    generator, device = _seeded(model, seed)
    z = {block: torch.randn(n, dim, generator=generator).to(device) for block, dim in model.blocks.items()}
    images = _decode(model, z)
    alt = alt or f"{n} pairs of heads decoded from the prior, one pair a column: xI above, xT below."
    return grid(torch.cat([images["I"], images["T"]]), n, names=["x_I", "x_T"], alt=alt)


@torch.no_grad()
def cross_modal(model, x: dict[str, Tensor], samples: int = 3, seed: int = 0,
                alt: str | None = None) -> Picture:
    """Cross-modal synthesis, both directions: the given image, its true partner, samples of the partner.

    Everything is drawn: zS from the posterior of the given image, the partner's private block from its prior.
    Raises the model's ValueError if it has no posterior of one modality (the Vanilla VAE).
    """
    generator, _ = _seeded(model, seed)
    columns, groups, heads = [], [], []
    for given, other in ("IT", "TI"):
        q = model.posterior({given: x[given]})
        draws = [{block: _draw(g, generator) for block, g in q.items()} for _ in range(samples)]
        made = [_decode(model, z)[other] for z in draws]
        columns += [x[given], x[other], *made]
        private = model.blocks.get(other, 0)
        drawn: Label = (f"z_{other} from prior", COLOURS[other]) if private else "samples"
        groups += [("given", 1), ("truth", 1), (drawn, samples), ("", 0), ("", 0)]
        heads += [f"x_{given}", f"x_{other}"] + [f"x_{other}"] * samples
    images = torch.stack([c.cpu() for c in columns], 1).flatten(0, 1)  # (B columns, 1, H, W)
    alt = alt or (f"Cross-modal synthesis for {len(x['I'])} pairs. Left: given xI, the true xT, and "
                  f"{samples} samples of xT. Right: given xT, the true xI, and as many samples of xI.")
    return grid(images, len(columns), groups=groups[:-2], heads=heads, rows=[1] * len(x["I"]), alt=alt)


# The data

def pairs(x: dict[str, Tensor], factors: dict[str, Tensor] | None = None, unit: str = "°",
          alt: str | None = None) -> Picture:
    """Pairs as the models see them, xI above xT; below each its private factor, above the azimuth."""
    n = len(x["I"])
    groups, captions = [("", 1)] * n, []
    if factors is not None:
        groups = [(f"azimuth {signed(float(a), unit)}", 1) for a in factors["azimuth"]]
        captions = [f"{k} {signed(float(v), unit)}" for k in ("elevation", "light") for v in factors[k]]
    alt = alt or (f"{n} pairs of heads, one pair a column: above xI, with an elevation of its own; below xT, "
                  "with a light of its own.")
    return grid(torch.cat([x["I"], x["T"]]), n, names=["x_I", "x_T"], rows=[1, 1], groups=groups,
                captions=captions, alt=alt)


def sweeps(render: Callable[..., Tensor], identity: int = 0, size: int = 64,
           alt: str | None = None) -> Picture:
    """One factor at a time, the others neutral: rows azimuth, elevation, light, identity.

    render(identity, azimuth=, elevation=, light=, size=) -> (size, size), as `mmvae.faces.render`.
    """
    factors = {"azimuth": range(-90, 91, 30), "elevation": range(-30, 31, 10), "light": range(-75, 76, 25)}
    images = [render(identity, **{f: float(v)}, size=size) for f, values in factors.items() for v in values]
    images += [render(k, size=size) for k in range(identity, identity + 7)]
    captions = [signed(v, "°") for values in factors.values() for v in values]
    captions += [str(k) for k in range(identity, identity + 7)]
    alt = alt or ("Four rows of heads: the pose turns from left to right, it nods from down to up, the "
                  "light goes round, and in the last row the identity changes.")
    return grid(torch.stack(images)[:, None], 7, names=[*factors, "identity"], captions=captions, alt=alt)


def contact_sheet(render: Callable[..., Tensor], identities: Sequence[int] = range(8),
                  azimuths: Sequence[float] = range(-80, 81, 20), size: int = 64,
                  alt: str | None = None) -> Picture:
    """Identity by pose: a row for each identity, a column for each azimuth. render: as for `sweeps`."""
    images = [render(k, azimuth=float(a), size=size) for k in identities for a in azimuths]
    alt = alt or (f"Contact sheet: {len(identities)} heads, one a row, turned from {azimuths[0]} to "
                  f"{azimuths[-1]} degrees.")
    return grid(torch.stack(images)[:, None], len(azimuths), heads=[signed(a, "°") for a in azimuths],
                names=[str(k) for k in identities], alt=alt)
