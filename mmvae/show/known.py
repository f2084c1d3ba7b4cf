"""How far a reader's own picture is from what a model knows: the Python half of js/own.js.

A picture is encoded, decoded at the mean of its posterior, and compared with what came of it. The number alone says little;
beside it stand those of pictures that the model has not learnt from.
"""
import torch
from torch import Tensor, nn

from ..likelihoods import Bernoulli
from ..observed import joined
from . import page

LEAST = 1e-6  # what a decoder's brightness is at least, and at most one less: a page's numbers have seven digits
ROWS, POINTS = 200, 21  # pictures that stand for what is known; quantiles of theirs, from the least to the most


def distance(like, x: Tensor, mean: Tensor) -> Tensor:
    """Of pictures x (B, C, H, W) from what they were decoded to, (B,): with a Bernoulli likelihood the cross-entropy above
    that of x with itself, nats [eq-vae-floor]; else the root mean square of the difference, in the data's unit."""
    x, mean = x.detach().double().cpu().flatten(1), mean.detach().double().cpu().flatten(1)
    if not isinstance(like, Bernoulli):
        return (x - mean).square().mean(1).sqrt()
    p = mean.clamp(LEAST, 1 - LEAST)
    return (torch.xlogy(x, x / p) + torch.xlogy(1 - x, (1 - x) / (1 - p))).sum(1)


def known(model: nn.Module, rows: dict[str, Tensor], drawn: dict[str, dict]) -> dict[str, dict]:
    """Of each modality that a reader can draw, how near its pictures in `rows` come: {modality: {"subset": what is observed
    then, "unit", "n": pictures, "at": quantiles of `distance`}}.

    rows: {modality: (B, ...)}, not learnt from. drawn: its view. Where the model cannot see the picture alone, it is shown
    the same one in all places, if these are pictures of one size; else there is no drawing.
    """
    found = {}
    for m, of in drawn.items():
        if of["kind"] != "picture" or of["channels"] not in (1, 3) or m not in rows:
            continue
        subset = (m,) if (m,) in model.seen else tuple(rows)
        if subset not in model.seen or any(rows[o].shape != rows[m].shape for o in subset):
            continue
        x = page.there(model, {o: rows[o] for o in subset})
        with page.quiet(model):
            mean = model.means({b: q.mu for b, q in model.posterior(x).items()})[m]
        if mean.flatten(1).shape != x[m].flatten(1).shape:  # a grid of classes has probabilities, not a mean
            continue
        like = model.likelihood(m)
        at = distance(like, x[m], mean).quantile(torch.linspace(0, 1, POINTS, dtype=torch.float64))
        found[m] = {"subset": joined(subset), "unit": "nats" if isinstance(like, Bernoulli) else "", "n": len(x[m]),
                    "at": [float(f"{v:.5g}") for v in at.tolist()]}
    return found
