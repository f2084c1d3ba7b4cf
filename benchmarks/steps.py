"""What a step of training costs, of every model of the book on the small pictures of the study "field".

    python benchmarks/steps.py [--rounds 9 --steps 12]            (about 2 minutes on one core)

Batch 64, 32x32, one thread; the pictures are noise. All models take turns, round by round, every second round in the opposite
order. Writes mmvae/experiment/published/steps.json, which chapters 12 and 13 read: {"machine", "settings", "seconds": {model:
CPU seconds of a step, a round each}, "parameters": {model: how many}, "digest": of all these}.
"""
import argparse
import sys
from functools import partial
from pathlib import Path

import measure
import torch

from mmvae.experiment import weights
from mmvae.experiment.recipe import Recipe
from mmvae.experiment.table import MODELS


def steps(size: int, batch: int, rounds: int, each: int, models: tuple[str, ...] = tuple(MODELS)) -> dict:
    """{"seconds": {model: CPU seconds of a step, a round each}, "parameters": {model: how many}}."""
    pairs, arms, parameters = measure.random_pairs(size, 5), {}, {}
    for name in models:
        recipe = Recipe(name, size=size, batch=batch)
        model = recipe.build()
        arms[name] = partial(measure.repeat, *measure.trainer(model, pairs, recipe), each), each
        parameters[name] = sum(p.numel() for p in model.parameters())
    rates = measure.interleave(arms, rounds)
    return {"seconds": {name: [float(f"{1 / rate:.4g}") for rate in of] for name, of in rates.items()},
            "parameters": parameters}


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", type=int, default=32, help="pixels a side")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=12, help="of each model in a round")
    parser.add_argument("--out", type=Path, default=weights.FOLDER, help="folder for steps.json")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    settings = {"size": args.size, "batch": args.batch, "rounds": args.rounds, "steps a turn": args.steps}
    found = steps(args.size, args.batch, args.rounds, args.steps)
    measure.save("steps", weights.seal({"machine": measure.machine(), "settings": settings} | found), args.out)


if __name__ == "__main__":
    sys.exit(main())
