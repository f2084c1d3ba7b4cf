"""Behaviour prints of the book's trainings and measurements: what the code of today computes, beside what is stored.

A stored run is valid as long as training its recipe gives, in a few fixed steps, the numbers that it gave then; a stored
measurement as long as it says of two tiny models what it said then: see `mmvae.behaviour`, and `measure.computes`.
"""
from functools import cache

import torch

from .. import behaviour
from ..behaviour import Print, moved
from ..faces import Grid, Pairs
from ..faces import judge as judging
from ..models import MultiModalVAE
from ..train import behaviour_of
from .recipe import Recipe
from .table import MODELS

SHAPE, UNSEEN = (6, 4, 3, 3), 2  # people, azimuths, elevations, lights; of these people


def training(recipe: Recipe) -> Print:
    """What training this recipe computes; the seed does not matter."""
    return _training(recipe.key)


@cache
def _training(key: str) -> Print:
    recipe = Recipe.from_key(key)
    return behaviour_of(recipe.build(), recipe.training)


@cache
def reading() -> Print:
    """What the making of a read-out computes."""
    images, factors = judging.rendered_freely([1], 16, poses=1, lights=2, progress=False)
    return flat({"errors": tiny_judge().errors, "greys": images.float().mean((1, 2)).tolist(),
                 "factors": {k: v.tolist() for k, v in factors.items()}})


def changed(stored: dict[str, Print], now: dict[str, Print]) -> dict[str, list[str]]:
    """{name: which numbers moved}, of those that did."""
    return {name: wrong for name, of in stored.items() if (wrong := moved(of, now[name]))}


def flat(value, name: str = "") -> Print:
    """{"a.b": [numbers]} of nested dictionaries, lists and numbers."""
    if not isinstance(value, dict):
        return {name: [float(f"{v:.7g}") for v in (value if isinstance(value, list) else [value])]}
    return {k: v for key, part in value.items() for k, v in flat(part, f"{name}.{key}".strip(".")).items()}


@cache
def tiny_pairs() -> tuple[Pairs, Pairs]:
    """Both splits of a grid that is made by arithmetic."""
    n, a, e, l, row, column = torch.meshgrid(*(torch.arange(float(k), dtype=torch.float64) for k in (*SHAPE, 16, 16)),
                                             indexing="ij")
    shared = torch.sin(0.4 * (row + 1) * (1 + 0.03 * n) + 0.9 * a)
    I, T = ((128 + 100 * shared * torch.cos(0.3 * (column + 1) + 0.8 * own)).round().to(torch.uint8)  # noqa: E741
            for own in (e, -l))
    values = {"azimuth": 30.0, "elevation": 15.0, "light": 40.0}
    values = {f: step * (torch.arange(float(k)) - k // 2) for (f, step), k in zip(values.items(), SHAPE[1:])}
    grid = Grid(I[:, :, :, 0], T[:, :, 0], identity=torch.arange(SHAPE[0]), **values, test_identities=UNSEEN)
    return Pairs(grid), Pairs(grid, "test")


@cache
def tiny_judge() -> judging.Judge:
    """Whose read-out was trained for a few iterations."""
    train, test = tiny_pairs()
    parts = [judging.all_images(p) for p in (train, test)]
    factors = {k: torch.cat([f[k].float() for _, f in parts]) for k in parts[0][1]}
    reader, errors = judging.read_out(torch.cat([images for images, _ in parts]), factors, 30, batch=16, progress=False)
    return judging.Judge({"train": train, "test": test}, reader, errors)


@torch.no_grad()
def lively(name: str) -> MultiModalVAE:
    """One of the book's models with fixed weights, whose means differ between pairs, and of whose shared latents each expert
    speaks of some and is silent about others."""
    model = behaviour.fixed_weights(MODELS[name](size=16)).eval()
    parts = [[p for k, p in model.named_parameters() if k.endswith(end)] for end in (".mu.weight", ".logvar.bias")]
    for k, (weight, bias) in enumerate(zip(*parts)):
        weight *= 10
        bias -= 2.0 * ((torch.arange(len(bias)) + k) % 3)
    return model
