"""What each further term of `mmvae.terms` adds to the time of a training step, beside the step without any.

    python benchmarks/terms.py [--model poe-v2 --size 32 --rounds 15]            (about 2 minutes on one core)

Every term is added alone, by weight 1, to one model, batch 64, on one thread; all of them, and the plain step, take turns,
round by round, every second round in the opposite order. The pictures are noise. Printed: the ratio of the two medians, in CPU
seconds of a step, and in brackets the middle half of the ratios within a round.
"""
import argparse
import statistics
from functools import partial

import measure
import torch

from mmvae.experiment.recipe import Recipe
from mmvae.terms import ADDED


def terms(model: str, size: int, batch: int, rounds: int, steps: int) -> dict[str, list[float]]:
    """{term, or "plain": steps per CPU second, a round each}."""
    pairs, arms = measure.random_pairs(size, 5), {}
    for name in ("plain", *ADDED):
        recipe = Recipe(model, size=size, batch=batch, extra=None if name == "plain" else {name: 1.0})
        arms[name] = partial(measure.repeat, *measure.trainer(recipe.build(), pairs, recipe), steps), steps
    return measure.interleave(arms, rounds)


def ratios(rates: dict[str, list[float]]) -> dict[str, tuple[float, float, float]]:
    """{term: how many times as long a step takes as the plain one: by the medians, and the quartiles of the rounds}."""
    plain, found = rates["plain"], {}
    for name, of in rates.items():
        within = statistics.quantiles((a / b for a, b in zip(plain, of)), n=4) if len(of) > 1 else 3 * [plain[0] / of[0]]
        found[name] = statistics.median(plain) / statistics.median(of), within[0], within[2]
    return found


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="poe-v2")
    parser.add_argument("--size", type=int, default=32, help="pixels a side")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=40, help="of each term in a round")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    rates = terms(args.model, args.size, args.batch, args.rounds, args.steps)
    print(f"{args.model}, {args.size}x{args.size}, batch {args.batch}: ms a step, and times the plain one")
    for name, (ratio, low, high) in ratios(rates).items():
        print(f"{name:<14}{1000 / statistics.median(rates[name]):>7.2f}{ratio:>7.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
