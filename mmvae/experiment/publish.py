"""python -m mmvae.experiment publish [NAME ...]: train, measure and write the published models, side by side.

With --grid the runs are those of the grid's study "long", which a GPU trains as `results --study long --device cuda` says.
"""
import argparse
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import torch

from .. import strict
from . import grid, stacks
from .profiles import PROFILES, profile
from .weights import COMMAND, FOLDER, RECIPES, named, publish


LONG = "python -m mmvae.experiment results --study long --device cuda"


def main(argv: list[str] | None = None):
    parser = strict.Parser(prog=COMMAND, description="Train, measure and write the published models.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECIPES)} (default: all)")
    parser.add_argument("--profile", default="book", choices=PROFILES, help="whose settings to train by")
    parser.add_argument("--grid", action="store_true", help="of the runs that the grid's study \"long\" has trained")
    parser.add_argument("--threads", type=strict.whole(1, strict.THREADS), default=1,
                        help="CPU threads of a model; one is the most efficient")
    parser.add_argument("--jobs", type=strict.whole(1, 1024), default=1, help="models that train side by side")
    parser.add_argument("--out", type=strict.out_folder, default=FOLDER, help="the folder to write (default: the package's)")
    args = parser.parse_args(argv)
    names = args.names or list(RECIPES)
    if unknown := [name for name in names if name not in RECIPES]:
        parser.error(f"NAME: found {', '.join(unknown)}, expected some of {', '.join(RECIPES)}")
    try:
        recipe = replace(profile(args.profile), published=False)
    except RuntimeError as e:  # no GPU for "gpu"
        parser.error(str(e))
    if args.jobs > 1 and len(names) > 1:
        return _side_by_side(names, args)
    torch.set_num_threads(args.threads)
    on_cpu = replace(recipe, device="cpu")  # the numbers are the CPU's, so that everybody can repeat them
    for name in names:
        if args.grid:
            run = next(run for run in grid.grid() if run.study == "long" and named(run.recipe) == name)
            if not stacks.whole(run):
                parser.exit(1, f"{run.folder}: found no finished run of {name}; train it first: {LONG}\n")
            run_dir, pairs = run.folder, [grid.pairs(split, run.people, run.recipe.size) for split in ("train", "test")]
        else:
            model, changes = RECIPES[name]
            recipe.train(model, **changes)  # goes on where it was stopped
            run_dir, pairs = recipe.run_dir(model, **changes), [on_cpu.pairs(split) for split in ("train", "test")]
        record = publish(run_dir, *pairs, folder=args.out, shown=profile("cpu").pairs("test"))
        print(f"{name}: {record['bytes'] / 1e6:.1f} MB after {record['seconds']:,.0f} s of training; "
              f"held-out ELBO of {{I,T}} {record['heldout']['I+T.elbo']:,.1f} nats per pair")


def _side_by_side(names: list[str], args: argparse.Namespace):
    """One process a model, `args.jobs` at a time; one that fails stops no other. None outlives the command."""
    command = [sys.executable, "-m", "mmvae.experiment", "publish", "--profile", args.profile,
               "--threads", str(args.threads), "--out", str(args.out), *["--grid"] * args.grid]
    waiting, running, failed = list(names), {}, []
    word = "stopped; the same command goes on from the last checkpoints"
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(word))
    try:
        while waiting or running:
            for row in range(args.jobs):  # each progress bar has a line of its own
                if row in running and running[row][1].poll() is not None:
                    name, process = running.pop(row)
                    failed += [name] if process.returncode else []
                if row not in running and waiting:
                    name, environment = waiting.pop(0), os.environ | {"TQDM_POSITION": str(row)}
                    running[row] = name, subprocess.Popen([*command, name], env=environment)
            time.sleep(0.1)
    finally:
        for _, process in running.values():
            process.terminate()
            process.wait()
        signal.signal(signal.SIGTERM, before)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; the same command goes on where they stopped")
