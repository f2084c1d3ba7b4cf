"""python -m mmvae.experiment train | evaluate | publish | results: the book's models, trained, measured, published.

    python -m mmvae.experiment train MODEL data.h5 RUN_DIR [--size 32 --iterations 5000 ...]

trains one of the models of `mmvae.MODELS`, or goes on with it where RUN_DIR stopped; by torchrun on several processes.
"""
import argparse
import json
import math
import sys
import time
from dataclasses import fields
from pathlib import Path

import torch
from tqdm.auto import tqdm

from .. import checkpoint, distributed, strict
from ..faces import Pairs
from ..observed import joined
from ..train import write_atomically
from . import grid, measure, publish, stacks
from . import results as stored
from .headlines import headlines
from .profiles import build_folder, profile
from .recipe import FORM, Recipe
from .table import MODELS, NAMES


def train(argv: list[str] | None = None):
    parser = strict.Parser(prog="python -m mmvae.experiment train", description="Train, or go on with, one model.")
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("data", help="HDF5 file of `python -m mmvae.faces`, or basel_face_renders.pth")
    parser.add_argument("run_dir", type=strict.out_folder, help="where settings, log and checkpoints go")
    parser.add_argument("--device", type=strict.device, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=strict.whole(1, strict.THREADS), help="of a process, on a CPU (default: PyTorch's)")
    parser.add_argument("--compile", action="store_true", help="by torch.compile: a minute at first, pays on a GPU")
    parser.add_argument("--tf32", action="store_true", help="products of fewer digits, faster on a GPU")
    for f in fields(Recipe)[1:]:
        form = FORM[f.name if f.name in FORM else f"{f.name}?"]
        form = dict if isinstance(form, dict) else form  # what is in it, the recipe refuses
        default = {} if form is dict else f.default
        parser.add_argument(f"--{f.name.replace('_', '-')}", type=strict.argument(form), default=default)
    args = vars(parser.parse_args(argv))
    try:
        recipe = Recipe(**{f.name: args.pop(f.name) for f in fields(Recipe)})
        recipe.build()  # refuses its options, before anything is read or written
    except ValueError as e:
        parser.error(f"argument {'' if str(e).startswith('model') else '--'}{e}")
    try:
        _train(recipe, **args)
    except (ValueError, OSError, FloatingPointError) as e:
        parser.exit(1, f"{_who()}{e}\n")
    except RuntimeError as e:
        if "memory" not in str(e):
            raise
        parser.exit(1, f"{_who()}--batch, --size: found more than the memory of {args['device']} holds "
                       f"({strict.brief(e, plain=True)})\n")
    except KeyboardInterrupt:
        parser.exit(130, f"\n{_who()}interrupted; the same command goes on from the last checkpoint\n")
    finally:
        distributed.stop()


def _train(recipe: Recipe, data: str, run_dir: Path, device: str, threads: int | None, compile: bool, tf32: bool):
    if threads:
        torch.set_num_threads(threads)
    if tf32:
        torch.set_float32_matmul_precision("high")
    device = distributed.start(device)
    read = Pairs.from_basel if data.endswith(".pth") else Pairs
    pairs = read(data, device=device, size=recipe.size)
    model = recipe.fit(pairs, run_dir, compile=compile)
    if distributed.rank() == 0:
        count = sum(p.numel() for p in model.parameters())
        print(f"{recipe.model}: {recipe.iterations} iterations, likelihood weight {recipe.weight:g}, "
              f"{count:,} parameters, in {run_dir}")


def _who() -> str:
    return f"process {distributed.rank()}: " if distributed.size() > 1 else ""


def evaluate(argv: list[str] | None = None):
    parser = strict.Parser(prog="python -m mmvae.experiment evaluate", description="Measure runs of a recipe.")
    parser.add_argument("run_dir", type=Path, nargs="*", help="folders of runs; none: the book's headline numbers")
    parser.add_argument("--data", help="the HDF5 file that the runs were trained on (default: the book's)")
    parser.add_argument("--out", type=strict.out, default="metrics.json", help="where {run_dir: its numbers} goes")
    parser.add_argument("--pairs", type=strict.whole(1, 10 ** 7), default=4096, help="unseen pairs to measure on")
    args = parser.parse_args(argv)
    if not args.run_dir:
        return print(headlines())
    found = {}
    try:
        sizes = {run_dir: Recipe.of(checkpoint.settings_of(run_dir)).size for run_dir in args.run_dir}
        source = args.data or profile("cpu").data_file
        for run_dir in tqdm(args.run_dir, unit="run"):
            pairs = [Pairs(source, split, size=sizes[run_dir]) for split in ("train", "test")]
            who = measure.judge(*pairs, build_folder(), free=not args.data)
            found[str(run_dir)] = measure.measure(run_dir, *pairs, args.pairs, who, progress=True)
            write_atomically(args.out, json.dumps(found, indent=1).encode())
    except (ValueError, OSError) as e:
        parser.exit(1, f"{e}\n")
    both = joined(NAMES)
    for run_dir, record in found.items():
        print(f"{run_dir}: ELBO of {{{','.join(NAMES)}}}, held out: {record['heldout'][f'{both}.elbo']:.1f} nats per pair")
        for name, score in record["probes"].items():
            if name.endswith("knn") and name.startswith(both):
                print(f"  {name:28s} {score:.2f}")


def results(argv: list[str] | None = None):
    every = grid.grid()
    parser = strict.Parser(prog="python -m mmvae.experiment results",
                                     description="Train and measure what the grid lacks, or goes on with it.")
    parser.add_argument("--jobs", type=strict.whole(1, 1024), default=2, help="processes side by side, one thread each")
    parser.add_argument("--device", type=strict.device, default="cpu", help="cuda: the seeds of a cell are trained as one")
    hours = strict.argument(strict.number(0))
    parser.add_argument("--hours", type=hours, default=math.inf, help="start no run after so many")
    parser.add_argument("--study", nargs="+", choices=list(dict.fromkeys(run.study for run in every)), help="of these alone")
    parser.add_argument("--models", nargs="+", choices=MODELS, help="of these alone")
    parser.add_argument("--seeds", nargs="+", type=_seeds, help="of these alone: 3, or 0-4")
    parser.add_argument("--status", action="store_true", help="only say how many runs are done")
    parser.add_argument("--check", action="store_true", help="only say what is stored and would now be computed otherwise")
    parser.add_argument("--published", action="store_true", help="only measure the published models, into published.json")
    args = parser.parse_args(argv)
    torch.set_num_threads(1)
    if args.check:
        if found := stored.stale():
            sys.exit("\n".join(f"{name}: {'; '.join(wrong[:3])}" for name, wrong in found.items()))
        return print("every stored run and measurement is what the code computes")
    runs = [run for run in every if (not args.study or run.study in args.study) and (not args.models or run.recipe.model in
            args.models) and (not args.seeds or any(run.recipe.seed in seeds for seeds in args.seeds))]
    if not runs:
        parser.error("found no run of the grid with these --study, --models and --seeds")
    failed = []
    try:
        if args.published:
            failed = grid.refresh(args.jobs)
        elif not args.status:
            start = time.monotonic()
            if args.device != "cpu":
                stacks.train([run for run in runs if not grid.finished(run)], args.device, args.hours)
            failed = grid.fill(runs, args.jobs, args.hours - (time.monotonic() - start) / 3600, args.device)
    except KeyboardInterrupt:
        parser.exit(130, "\ninterrupted; the same command goes on from the last checkpoints\n")
    if not args.published:
        print(_status(runs))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; the same command goes on with them")


def _status(runs: list[grid.Run]) -> str:
    """How many of these runs are done, a line a study, and the seconds of one core that those cost."""
    cost = {run.name: of["seconds"] + of["measuring"] for run in runs if (of := grid.finished(run))}
    studies = {study: [run for run in runs if run.study == study] for study in dict.fromkeys(run.study for run in runs)}
    lines = [f"{'study':<12}{'done':>6}{'wanted':>8}{'iterations':>13}{'seconds':>11}"]
    for study, of in (studies | {"all": runs}).items():
        done, steps = [cost[run.name] for run in of if run.name in cost], sum(run.recipe.iterations for run in of)
        lines.append(f"{study:<12}{len(done):>6}{len(of):>8}{steps:>13,}{sum(done):>11,.0f}")
    return "\n".join(lines)


def _seeds(text: str) -> range:
    first, _, last = text.partition("-")
    if not (first.isdecimal() and (last or first).isdecimal()):
        raise argparse.ArgumentTypeError(f'found "{text}", expected a seed, 3, or the first and the last, 0-4')
    return range(int(first), int(last or first) + 1)


def main(argv: list[str] | None = None):
    commands = {"train": train, "evaluate": evaluate, "publish": publish.main, "results": results}
    parser = strict.Parser(prog="python -m mmvae.experiment", description=__doc__.splitlines()[0])
    parser.add_argument("command", choices=commands)
    argv = sys.argv[1:] if argv is None else argv
    commands[parser.parse_args(argv[:1]).command](argv[1:])


if __name__ == "__main__":
    main()
