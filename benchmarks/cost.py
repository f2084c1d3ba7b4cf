"""Pairs per second of the training step, by batch, size of the images, number of identities, and model.

    python benchmarks/cost.py            (about 6 minutes on one core, 2.5 GB of memory)

One thing varies at a time, from MuMo, batch 64, 64x64, 50 identities. All configurations take turns, round by round;
the images are noise. Writes benchmarks/results/cost.json; `python benchmarks/report.py` puts it into the README.
"""
import argparse
import time
from functools import partial
from pathlib import Path

import measure
import report
import torch

import mmvae
from mmvae.experiment.recipe import Recipe
from mmvae.experiment.table import FIRST

BASE = {"model": "mumo", "batch": 64, "size": 64, "identities": 50}
VARIED = {"batch": (16, 32, 64, 128, 256, 512, 1024), "size": (32, 64, 128), "identities": (50, 500),
          "model": FIRST}


def cost(base: dict, varied: dict, rounds: int, seconds: float) -> dict:
    """Time every configuration for about `seconds` in each round; those that occur twice are measured once."""
    configurations = [base | {key: value} for key, values in varied.items() for value in values]
    data = {key: measure.random_pairs(*key) for key in {(c["size"], c["identities"]) for c in configurations}}
    arms, rows = {}, {}
    for c in configurations:
        name = report.label(c)
        if name in arms:
            continue
        recipe = Recipe(c["model"], size=c["size"], batch=c["batch"])
        model, pairs = recipe.build(), data[c["size"], c["identities"]]
        draw, step = measure.trainer(model, pairs, recipe)
        flops = measure.flops(lambda: step(draw()))
        started = time.process_time()
        step(draw())
        steps = max(1, round(seconds / (time.process_time() - started)))
        arms[name] = partial(measure.repeat, draw, step, steps), steps * c["batch"]
        rows[name] = c | {"flops_per_pair": flops // c["batch"], "steps_per_round": steps,
                          "parameters": sum(p.numel() for p in model.parameters()),
                          "data_bytes": sum(image.nbytes for image in pairs.images.values())}
    for name, rates in measure.interleave(arms, rounds).items():
        rows[name]["pairs_per_second"] = rates
    return {"machine": measure.machine(), "settings": {"rounds": rounds, "seconds a turn": seconds},
            "base": base, "varied": varied, "rows": rows}


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each configuration in a round")
    parser.add_argument("--out", type=Path, default=measure.RESULTS, help="folder for cost.json")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    record = cost(BASE, VARIED, args.rounds, args.seconds)
    measure.save("cost", record, args.out)
    print(report.cost(record))


if __name__ == "__main__":
    main()
