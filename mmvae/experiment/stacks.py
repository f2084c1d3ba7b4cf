"""The grid on a GPU: the seeds of a cell are one `mmvae.stacked.Stack`, and many stacks share the GPU."""
import hashlib
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import groupby

import torch
from tqdm.auto import tqdm

from ..files import checkpoints_in
from ..stacked import Stack
from . import profiles
from .grid import Run, pairs

TOGETHER = 14  # stacks that train at a time


def cells(runs: list[Run]) -> list[list[Run]]:
    """The runs that differ by their seeds alone, together; those of most iterations first, for they take longest."""
    def of(run: Run) -> tuple:
        return run.study, run.variant, run.recipe.model

    order = list(dict.fromkeys(map(of, runs)))
    found = groupby(sorted(runs, key=lambda run: (order.index(of(run)), run.recipe.seed)), of)
    return sorted((list(some) for _, some in found), key=lambda some: -some[0].recipe.iterations)


def trained(runs: list[Run], device: str, hours: float, compile: bool = False) -> Iterator[str | None]:
    """Train these runs: the name of each as its folder is whole, and None in between. What is left after so many hours, or
    when it is closed, is kept in the build folder, and goes on from there when it is asked for again."""
    start, waiting, active = time.monotonic(), cells(runs), {}
    bar = tqdm(total=sum(len(some) * some[0].recipe.iterations for some in waiting), unit="it", unit_scale=True, desc="training")
    try:
        while (waiting or active) and time.monotonic() - start < 3600 * hours:
            while waiting and len(active) < TOGETHER:
                whole = [run for run in waiting[0] if _whole(run)]
                yield from (run.name for run in whole)
                some = [run for run in waiting.pop(0) if run not in whole]
                bar.update(sum(run.recipe.iterations for run in whole))
                if not some:
                    continue
                active[some[0].name] = some, (stack := begun(some, device, compile))
                bar.update(stack.done * len(some))
            idle = [name for name, (_, stack) in active.items() if stack.idle]
            for name in idle:
                some, stack = active[name]
                if stack.finished:
                    for k, run in enumerate(some):
                        if stack.finite(k):  # another one is left to `mmvae.fit`, which says where it failed
                            stack.keep(k, run.folder, run.recipe.record())
                        yield run.name
                    _path(some).unlink(missing_ok=True)
                    del active[name], stack
                else:
                    stack.advance()
                    bar.update(100 * len(some))
            yield time.sleep(0 if idle else 1e-3)
    finally:
        for some, stack in active.values():
            stack.save(_path(some))


def begun(some: list[Run], device: str, compile: bool = False) -> Stack:
    """The stack of a cell, as it was left."""
    rows, first = pairs("train", some[0].people, some[0].recipe.size, device), some[0].recipe
    with torch.random.fork_rng([device] if torch.device(device).type == "cuda" else []):
        stack = Stack([run.recipe.build() for run in some], [run.recipe.training for run in some], rows, compile)
    stack.steps = _steps(len(some), replace(first, iterations=1).key)
    if (path := _path(some)).exists():
        stack.restore(path)
    return stack


def _whole(run: Run) -> bool:
    return any(int(path.stem.split("-")[1]) == run.recipe.iterations for path in checkpoints_in(run.folder))


@cache
def _steps(seeds: int, key: str) -> dict:
    """The compiled iterations of stacks that compute the same."""
    return {}


def _path(some: list[Run]):
    words = " ".join(run.folder.name for run in some)
    return profiles.build_folder() / "results" / f"stack-{hashlib.sha256(words.encode()).hexdigest()[:16]}.safetensors"
