"""What the benchmarks share: data to time on, a training step, interleaved rounds, a record of the machine."""
import json
import os
import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode
from tqdm.auto import tqdm

from mmvae.checkpoint import write_atomically
from mmvae.experiment.recipe import Recipe
from mmvae.faces import Grid, Pairs
from mmvae.train import optimiser_of, update, versions

RESULTS = Path(__file__).resolve().parent / "results"


def machine(device: str = "cpu") -> dict:
    """What a rate depends on beside the code. No names: neither of the machine nor of its folders."""
    return {"cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "vectors": torch.backends.cpu.get_cpu_capability(), "threads": torch.get_num_threads(), **versions(device)}


def random_pairs(size: int, identities: int) -> Pairs:
    """A grid of the heads' shape filled with noise: it costs a step what heads cost, and no rendering."""
    generator = torch.Generator().manual_seed(0)
    shape = (identities, 21, 11, size, size)  # as `python -m mmvae.faces` writes it
    I, T = (torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in "IT")  # noqa: E741
    return Pairs(Grid(I, T, identity=torch.arange(identities), azimuth=torch.linspace(-90, 90, 21),
                      elevation=torch.linspace(-30, 30, 11), light=torch.linspace(-80, 80, 11), test_identities=0))


def trainer(model, pairs: Pairs, recipe: Recipe):
    """(draw, step): `step(draw())` is one iteration of `mmvae.fit`: a batch of pairs, then the update."""
    settings = recipe.training
    optimiser = optimiser_of(model.train(), settings)
    return (lambda: pairs.sample(settings.batch)[0],
            lambda x: update(model, optimiser, x, settings, settings.warmup))  # always at the full rate


def repeat(draw, step, steps: int):
    """So many iterations of `trainer`."""
    for _ in range(steps):
        step(draw())


def flops(work) -> int:
    """Floating-point operations of matrix products and convolutions in work(), a multiply-add being two."""
    with FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def interleave(arms: dict, rounds: int) -> dict[str, list[float]]:
    """arms: {name: (run, units)}, run() doing that many units of work -> {name: units per CPU second, a round each}.

    Every round runs each arm once, every second round in the opposite order, so that a machine that drifts hits all
    alike. A round before the first warms up and is not kept. CPU seconds, since with one thread on a core of its own
    they are seconds, and on a shared core they still mean the same.
    """
    rates: dict[str, list[float]] = {name: [] for name in arms}
    for k in tqdm(range(rounds + 1), unit="round"):
        for name in list(arms)[:: 1 if k % 2 else -1]:
            run, units = arms[name]
            started = time.process_time()
            run()
            if k:
                rates[name].append(float(f"{units / (time.process_time() - started):.5g}"))
    return rates


def save(name: str, record: dict, folder: Path = RESULTS):
    """Write folder/NAME.json, complete or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / f"{name}.json", (json.dumps(record, indent=1) + "\n").encode())
