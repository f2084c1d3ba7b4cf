"""Several models, one question, one picture: a row, or two, for each model.

models: {name of `mmvae.MODELS`: a model}. x: pairs as everywhere. Every function returns a `Picture`.
"""
import math

import torch
from torch import Tensor

from . import plot
from .diagram import SHORT
from .picture import COLOURS, GREY, Picture


def _labels(models) -> list[str]:
    return [SHORT.get(name, name) for name in models]


@torch.no_grad()
def reconstructions(models, x: dict[str, Tensor]) -> Picture:
    """The truth, then a row for each model: decoded from the posterior mean given both images; all xI, then all xT."""
    rows, n = [torch.cat([x["I"], x["T"]]).cpu()], len(x["I"])
    for model in models.values():
        made = model.decode({block: q.mu for block, q in model.posterior(x).items()})
        rows.append(torch.cat([made["I"], made["T"]]).sigmoid().cpu())
    return plot.grid(torch.cat(rows), 2 * n, names=["truth", *_labels(models)], rows=[1, len(models)],
                     groups=[("x_I", n), ("x_T", n)], alt=f"Reconstructions of {n} pairs, a row for each model.")


def traversals(models, x: dict[str, Tensor], pairs=(0,), frames: int = 24, span: float = 2.5) -> Picture:
    """Every latent in motion, rows xI and xT for each model and each of these pairs; models of the same blocks."""
    values, rows, under = [-span * math.cos(2 * math.pi * k / frames) for k in range(frames)], [], []
    blocks = {b: d for b, d in next(iter(models.values())).blocks.items() if d}
    columns = 1 + sum(blocks.values())
    for name, model in models.items():
        for pair in pairs:
            one = {m: image[pair:pair + 1] for m, image in x.items()}
            moved = plot.traversal(model, one, values)  # {m: (V, K, 1, 1, H, W)}
            for m in "IT":
                truth = one[m].cpu().expand(len(values), -1, -1, -1, -1)
                rows.append(torch.cat([truth, moved[m][:, :, 0].cpu()], 1))  # (V, 1 + K, 1, H, W)
                last = m == "T" and pair == pairs[-1]  # a model's name stands below its last row
                under += [SHORT.get(name, name) if last else ""] + [""] * (columns - 1)
    whole = len(blocks) == 1
    groups = [(f"{columns - 1} latents, no private block", GREY) if whole else (f"z_{b}", COLOURS[b]) for b in blocks]
    heads = [""] + [(str(k + 1), GREY if whole else COLOURS[b]) for b, d in blocks.items() for k in range(d)]
    alt = (f"Animated traversals of {len(pairs)} {'pair' if len(pairs) == 1 else 'pairs'} by "
           f"{', '.join(_labels(models))}: truth, then each latent.")
    return plot.grid(torch.cat(rows, 1), columns, groups=[("truth", 1), *zip(groups, blocks.values())], heads=heads,
                     captions=under, names=["x_I", "x_T"] * (len(rows) // 2), rows=[2] * (len(rows) // 2), alt=alt,
                     values=values, magnify=max(1, 64 // next(iter(models.values())).size), duration=100)


@torch.no_grad()
def prior_samples(models, n: int = 8, real: dict[str, Tensor] | None = None, seed: int = 0) -> Picture:
    """Pure synthesis: n pairs of each model from z ~ N(0, 1), xI above xT; before them real pairs, if given."""
    shown = {} if real is None else {"real pairs": real}
    for label, model in zip(_labels(models), models.values()):
        generator, device = torch.Generator().manual_seed(seed), next(model.parameters()).device
        z = {b: torch.randn(n, d, generator=generator).to(device) for b, d in model.blocks.items()}
        shown[label] = {m: logits.sigmoid() for m, logits in model.decode(z).items()}
    return plot.grid(torch.cat([made[m].cpu() for made in shown.values() for m in "IT"]), n, rows=[2] * len(shown),
                     names=[label for name in shown for label in (f"{name}  x_I", "x_T")],
                     alt=f"{n} samples of each model, xI above xT: {', '.join(shown)}.")


@torch.no_grad()
def crossed(model, x: dict[str, Tensor], given: str, target: str, samples: int = 3, seed: int = 0) -> Tensor:
    """Samples of x_target from x_given: (B, samples, 1, H, W) in [0, 1] [eq-side-cross]."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        q = model.posterior({given: x[given]})
        draws = [{b: g.sample() for b, g in q.items()} for _ in range(samples)]
        return torch.stack([model.decode(z, target)[target] for z in draws], 1).sigmoid().cpu()


def cross_modal(models, x: dict[str, Tensor], given: str, target: str, samples: int = 3) -> Picture:
    """Cross-modal synthesis: the given and the true image, then a row of samples for each model that can."""
    able = {name: model for name, model in models.items() if "Z" not in model.blocks}
    top = torch.stack([x[given], x[target], *[x[given] * math.nan] * (samples - 2)], 1).flatten(0, 1).cpu()
    rows = [top, *(crossed(model, x, given, target, samples).flatten(0, 1) for model in able.values())]
    return plot.grid(torch.cat(rows), samples * len(x[given]), rows=[1, len(able)],
                     names=[f"x_{given}, true x_{target}", *_labels(able)],
                     groups=[(f"pair {k + 1}", samples) for k in range(len(x[given]))],
                     alt=f"The given x{given}, the true x{target}, samples of x{target} by each model.")
