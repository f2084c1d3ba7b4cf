"""Pairs per second of one training on 1 and on 2 processes, and the time in which they exchange a gradient.

    python benchmarks/scaling.py        (about 15 minutes on two idle cores)

Three ways to run the very same training, MuMo at 64x64, one thread a process: `python -m mmvae.experiment train`, and
torchrun with one and with two processes. They take turns, round by round, for every global batch, each a short run of its
own; the rate is read from its log.csv, first row left out, so that no start is in it. These are seconds of the clock: what
matters is when the training is done. In every round two processes also average a tensor as large as the gradient by
one all-reduce of gloo, which is what they have to say to each other in a step.

Writes benchmarks/results/scaling.json; `python benchmarks/report.py` puts two tables into the README, what was
measured, and what follows from it on paper for 10^9 pairs.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import measure
import report
import torch
import torch.distributed as dist
from tqdm.auto import tqdm

import mmvae
from mmvae.experiment.recipe import Recipe
from mmvae.faces import Pairs
from mmvae.train import read_log

BATCHES = (64, 256, 1024)  # pairs of all processes together
PROCESSES = {"plain": 0, "torchrun, 1 process": 1, "torchrun, 2 processes": 2}  # 0: without torchrun


def python(*arguments, processes: int) -> str:
    """What Python, or torchrun if processes > 0, prints with these arguments; every process has one thread.

    Raises RuntimeError with the end of what it complained of if it fails.
    """
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes else []
    command = [sys.executable, *torchrun, *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[1:])}: exit status {done.returncode}\n{done.stderr[-2000:]}")
    return done.stdout


def rate(log: dict, batch: int) -> float:
    """Pairs per second between the first and the last row of a log.csv, as `mmvae.train.read_log` reads it.

    Raises ValueError if it has fewer than two rows, or rows too close for a clock of hundredths of a second.
    """
    iterations, seconds = (log[key][-1] - log[key][0] for key in ("iteration", "seconds"))
    if seconds < 0.1:
        raise ValueError(f"log.csv: found {len(log['seconds'])} rows within {seconds:.2f} s, expected two or more, "
                         "0.1 s apart; ask for more seconds")
    return float(f"{batch * iterations / seconds:.5g}")


def run(data: Path | str, batch: int, row: int, rows: int, size: int, processes: int) -> float:
    """Pairs per second of one short run of the training command that logs every `row` iterations."""
    with tempfile.TemporaryDirectory() as folder:
        python("-m", "mmvae.experiment", "train", "mumo", data, folder, "--device", "cpu", "--threads", 1, "--size", size,
               "--batch", batch, "--iterations", row * rows, "--log-every", row, "--checkpoint-every", row * rows,
               processes=processes)
        return rate(read_log(folder), batch)


def exchange(count: int, repeats: int = 50) -> float:
    """Seconds of one all-reduce of `count` floats, in a process of torchrun: the median."""
    dist.init_process_group("gloo")
    gradient, times = torch.ones(count), []
    for _ in range(repeats):
        dist.barrier()
        started = time.perf_counter()
        dist.all_reduce(gradient)
        times.append(time.perf_counter() - started)
        gradient.fill_(1)
    dist.destroy_process_group()
    return sorted(times)[repeats // 2]


def scaling(data: Path | str, batches: tuple[int, ...], rounds: int, rows: int, seconds: float, size: int) -> dict:
    """Time every way to train for every batch in every round; a row of a log takes about `seconds` of one process."""
    recipe = Recipe("mumo", size=size)
    model, pairs = recipe.build(), Pairs(data, size=size)
    count = sum(p.numel() for p in model.parameters())
    draw, step = measure.trainer(model, pairs, replace(recipe, batch=max(batches)))
    step(draw())
    started = time.perf_counter()
    step(draw())
    pairs_per_second = max(batches) / (time.perf_counter() - started)
    row = {batch: max(1, round(seconds * pairs_per_second / batch)) for batch in batches}
    rates = {str(batch): {name: [] for name in PROCESSES} for batch in batches}  # as JSON has it
    exchanges = []
    with tqdm(total=rounds * (len(batches) * len(PROCESSES) + 1), unit="run") as bar:
        for k in range(rounds):
            for batch in batches:
                for name in list(PROCESSES)[:: -1 if k % 2 else 1]:  # in turn, so that a drift hits all alike
                    rates[str(batch)][name].append(run(data, batch, row[batch], rows, size, PROCESSES[name]))
                    bar.update()
            exchanges.append(json.loads(python(__file__, "--exchange", count, processes=2)))
            bar.update()
    about = {"rounds": rounds, "rows of a log": rows, "seconds a row": seconds}
    return {"machine": measure.machine(), "settings": about, "rates": rates, "exchange_seconds": exchanges,
            "gradient_bytes": 4 * count, "pair_bytes": sum(image[0, 0, 0].nbytes for image in pairs.images.values())}


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rows", type=int, default=6, help="of a run's log")
    parser.add_argument("--seconds", type=float, default=1.5, help="of a row")
    parser.add_argument("--out", type=Path, default=measure.RESULTS, help="folder for scaling.json")
    parser.add_argument("--exchange", type=int, metavar="FLOATS", help="what torchrun runs: time one all-reduce")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    if args.exchange:
        seconds = exchange(args.exchange)
        if os.environ["RANK"] == "0":
            print(seconds)
        return
    record = scaling(mmvae.profile("cpu").data_file, BATCHES, args.rounds, args.rows, args.seconds, size=64)
    measure.save("scaling", record, args.out)
    print(report.scaling(record), report.scaling_estimate(record), sep="\n\n")


if __name__ == "__main__":
    main()
