"""Seconds of a whole training on a GPU: the plain loop, the compiled one, both with tf32, and twenty seeds as one.

    python benchmarks/gpu.py                         (80,000 iterations four times: some minutes on one H100)
    python benchmarks/gpu.py --iterations 2000       (a first look)

MuMo at 64x64, batch 64, by `mmvae.fit` itself, with its log and its checkpoints. Compiled means a CUDA graph of
the loss and one of its gradient. tf32 keeps 10 bits of a factor's mantissa in a product; whether that changes a result
is shown by the held-out ELBO beside that of fp32. The clock of a run starts before its first iteration, so the time of
compiling is in its seconds; it is given apart too, as the time of the first hundred iterations. Twenty seeds as one are a
`mmvae.stacked.Stack`, by which the grid trains: its seconds are a twentieth, its model is that of seed 0.

Writes benchmarks/results/gpu.json; `python benchmarks/report.py` puts it into the README.
"""
import argparse
import tempfile
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import measure
import report
import torch
from tqdm.auto import tqdm

import mmvae
from mmvae.evaluate import heldout
from mmvae.experiment.recipe import Recipe
from mmvae.faces import Pairs
from mmvae.stacked import Stack
from mmvae.train import fit, read_log

ARMS = {"fp32, eager": (False, False), "fp32, compiled": (True, False),  # (compile, tf32)
        "tf32, eager": (False, True), "tf32, compiled": (True, True)}

SEEDS = 20


@contextmanager
def precision(tf32: bool):
    """In here products and convolutions round to tf32, or neither does (by itself PyTorch lets convolutions do so)."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = tf32
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


def compare(train: Pairs, test: Pairs, recipe: Recipe, arms: dict, n: int) -> dict:
    """Train once in each way, after a short run that wakes the device up. Negative ELBOs of {I,T}: fp32, of n pairs."""
    rows, settings = {}, recipe.training
    with tempfile.TemporaryDirectory() as folder:
        with precision(False):
            fit(recipe.build(), train, Path(folder) / "first", replace(settings, iterations=100), progress=False)
        for name, (compile, tf32) in tqdm(arms.items(), unit="training"):
            with precision(tf32):
                model = fit(recipe.build(), train, Path(folder) / name, settings, progress=False, compile=compile)
            seconds = read_log(Path(folder) / name)["seconds"]
            with precision(False):
                losses = {key: -heldout(model, pairs, settings.weight, n)["I+T.elbo"]
                          for key, pairs in (("unseen", test), ("seen", train))}
            rows[name] = {"seconds": float(seconds[-1]), "first_row_seconds": float(seconds[0])} | losses
    with precision(False):
        rows[f"fp32, {SEEDS} seeds as one, each"] = together(train, test, recipe, n)
    return {"machine": measure.machine(train.device), "rows": rows, "settings": {
        "iterations": settings.iterations, "batch": settings.batch, "size": recipe.size,
        "log_every": settings.log_every, "n": n}}


def together(train: Pairs, test: Pairs, recipe: Recipe, n: int) -> dict:
    """The row of a stack."""
    seeds = [replace(recipe, seed=k) for k in range(SEEDS)]
    stack, seconds = Stack([r.build() for r in seeds], [r.training for r in seeds], train), []
    while not stack.finished:
        stack.advance()
        stack.wait()
        seconds.append(stack.seconds / SEEDS)
    model = stack.model_of(0).eval()
    losses = {key: -heldout(model, pairs, recipe.weight, n)["I+T.elbo"] for key, pairs in (("unseen", test), ("seen", train))}
    return {"seconds": seconds[-1], "first_row_seconds": seconds[0]} | losses


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--iterations", type=int, default=80_000)
    parser.add_argument("--pairs", type=int, default=4096, help="pairs that a held-out number is measured on")
    parser.add_argument("--out", type=Path, default=measure.RESULTS, help="folder for gpu.json")
    args = parser.parse_args(argv)
    if not torch.cuda.is_available():
        parser.exit(1, "gpu.py needs a CUDA device, and PyTorch sees none; nothing was measured\n")
    profile = mmvae.profile("gpu")
    recipe = profile.settings("mumo", iterations=args.iterations)
    record = compare(profile.pairs("train"), profile.pairs("test"), recipe, ARMS, args.pairs)
    measure.save("gpu", record, args.out)
    print(report.gpu(record))


if __name__ == "__main__":
    main()
