"""What code computes, as numbers: a run is known by them, and not by how the code is written.

The print of a model under some settings: the terms of its loss in three iterations, from fixed weights, on four rows that it
has made itself. Two prints are of one behaviour if no number differs by more than 1e-4 of itself, which is more than
machines and versions differ, and less than a change of a formula makes.
"""
import copy
import math
from collections.abc import Callable

import torch

TOLERANCE, STEPS, ROWS = 1e-4, 3, 4
Print = dict[str, list[float]]


@torch.no_grad()
def fixed_weights(model: torch.nn.Module) -> torch.nn.Module:
    """Fill all parameters, in their order, with numbers that need no random generator; returns the model."""
    for k, p in enumerate(model.parameters()):
        i = torch.arange(p.numel(), dtype=torch.float64)
        scale = 2 / math.sqrt(p[0].numel()) if p.dim() > 1 and p.numel() else 0.1
        p.copy_((scale * torch.sin(1.7 * i * i % 97 + 0.3 * k + 0.11 * i)).view_as(p))
    return model


def of_training(model, start: Callable) -> Print:
    """{term: its value before each of the first iterations, nats a row}, on the CPU; the model is left as it is.

    start(model) begins a training and returns its iteration, step(x, i) -> {term: a number}: see `train.behaviour_of`.
    """
    model = fixed_weights(copy.deepcopy(model).cpu()).train()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)  # and no GPU's
        with torch.no_grad():
            z = {b: torch.randn(ROWS, dim).to(model.like) for b, dim in model.blocks.items()}
            x = {m: model.likelihood(m).sample(output) for m, output in model.decode(z).items()}
        step = start(model)
        found = [step(x, i) for i in range(STEPS)]
    return {k: [float(f"{terms[k].item():.7g}") for terms in found] for k in found[0]}


def moved(before: Print, now: Print) -> list[str]:
    """Which numbers differ, in words: "I.kl.S: found 3.1, now 3.2"; empty if none does."""
    if set(before) != set(now):
        return [f"terms: found {sorted(before)}, now {sorted(now)}"]
    wrong = []
    for k in before:
        pair = next(((a, b) for a, b in zip(before[k], now[k]) if _differ(a, b)), None)
        if pair or len(before[k]) != len(now[k]):
            wrong.append(f"{k}: found {pair[0]:.7g}, now {pair[1]:.7g}" if pair else f"{k}: found another number of them")
    return wrong


def _differ(a: float, b: float) -> bool:
    if not (math.isfinite(a) and math.isfinite(b)):
        return repr(a) != repr(b)
    return abs(a - b) > TOLERANCE * max(abs(a), abs(b), 1e-3)
