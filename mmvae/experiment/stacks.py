"""The grid's trainings on a GPU: the seeds of a cell are one `mmvae.stacked.Stack`, and a few stacks share the GPU.

All in one process: several would take turns on the GPU, and each leaves most of it idle in its own.
"""
import hashlib
import time
from itertools import groupby
from pathlib import Path

import torch
from tqdm.auto import tqdm

from .. import checkpoint
from ..distributed import gpus
from ..stacked import CHUNK, Stack
from . import profiles
from .grid import Run

TOGETHER = 4  # stacks that train at a time: what one leaves idle of the GPU, others take


def cells(runs: list[Run]) -> list[list[Run]]:
    """The runs that differ by their seeds alone, together; in the order of the first of each."""
    def of(run: Run) -> tuple:
        return run.study, run.variant, run.recipe.model

    order = list(dict.fromkeys(map(of, runs)))
    found = groupby(sorted(runs, key=lambda run: (order.index(of(run)), run.recipe.seed)), of)
    return [list(some) for _, some in found]


def whole(run: Run) -> bool:
    """Whether its folder holds the last checkpoint."""
    return checkpoint.named(run.folder, run.recipe.iterations).exists()


def train(runs: list[Run], device: str, hours: float):
    """Train these runs, each in its folder. What is not done after so many hours, or when it is interrupted, is kept in the
    build folder and goes on from there, to the same weights. A run whose loss is not finite has no folder: it is left to
    `mmvae.fit`, which says where it failed."""
    start, waiting, active = time.monotonic(), cells(runs), {}
    bar = tqdm(total=sum(run.recipe.iterations for run in runs), unit="it", unit_scale=True, desc="training")
    try:
        while (waiting or active) and time.monotonic() - start < 3600 * hours:
            while waiting and len(active) < TOGETHER:
                some = [run for run in waiting[0] if not whole(run)]
                bar.update(sum(run.recipe.iterations for run in waiting.pop(0) if run not in some))
                if some:
                    active[some[0].name] = some, (stack := begun(some, device))
                    bar.update(stack.done * len(some))
            for name, (some, stack) in list(active.items()):
                if not stack.idle:
                    continue
                if not stack.finished:
                    stack.advance()
                    bar.update(CHUNK * len(some))
                    continue
                for k, run in enumerate(some):
                    if stack.finite(k):
                        run.folder.parent.mkdir(parents=True, exist_ok=True)
                        stack.keep(k, run.folder, run.recipe.record())
                path_of(some).unlink(missing_ok=True)
                del active[name]
            time.sleep(1e-4)
    finally:
        for some, stack in active.values():
            stack.save(path_of(some))


def begun(some: list[Run], device: str) -> Stack:
    """The stack of a cell, as it was left."""
    rows = some[0].rows(device)
    with torch.random.fork_rng(gpus(rows.device)):
        stack = Stack([run.recipe.build() for run in some], [run.recipe.training for run in some], rows)
    if (path := path_of(some)).exists():
        stack.restore(path)
    return stack


def path_of(some: list[Run]) -> Path:
    """Where the stack of a cell is kept while it is not finished."""
    words = " ".join(run.folder.name for run in some)
    return profiles.build_folder() / "results" / f"stack-{hashlib.sha256(words.encode()).hexdigest()[:16]}.safetensors"
