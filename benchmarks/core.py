"""Pairs per second of the book's six models, of this code and of another version of it, in turns.

    git worktree add /somewhere d8604f5 && python benchmarks/core.py --other /somewhere      (about 6 minutes on one core)

Each version trains in a process of its own, on one thread, as its `fit` does: a batch drawn, then the update. The two take
turns of a few seconds, model by model and round by round, every second round in the opposite order; what is not its turn
waits. The images are noise. The ratio is that of the medians; in brackets the middle half of the ratios within a round.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODELS = ("vanilla", "mumo", "poe-v1", "poe-v2", "wg-v1", "wg-v2")
BATCH, SIZE = 64, 64


# ---- in a version's own process; nothing of this repository is imported here but the version's `mmvae`

def trainer(name: str, batch: int, size: int):
    """step(): one iteration of this model, as the version at hand makes it."""
    from dataclasses import fields

    import torch
    from mmvae.train import Settings, optimiser_of, update

    if any(field.name == "model" for field in fields(Settings)):  # up to d8604f5
        from mmvae.data import Grid, Pairs
        from mmvae.train import _draw, build

        settings = Settings(name, size=size, batch=batch)
        model = build(settings)

        def draw(pairs, generator):
            return _draw(pairs, batch, generator, slice(batch)), ()
    else:
        import mmvae
        from mmvae.faces import Grid, Pairs

        settings = Settings(batch=batch, weight=(64 / size) ** 2)
        torch.manual_seed(settings.seed)
        model = mmvae.MODELS[name](size=size)

        def draw(pairs, generator):
            x, present = pairs.batch(torch.randint(len(pairs), (batch,), generator=generator))
            return x, (present,)

    generator = torch.Generator().manual_seed(0)
    shape = 5, 21, 11, size, size
    one, other = (torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator) for _ in "IT")
    degrees = {"azimuth": torch.linspace(-90, 90, 21), "elevation": torch.linspace(-30, 30, 11),
               "light": torch.linspace(-80, 80, 11)}
    pairs = Pairs(Grid(one, other, identity=torch.arange(5), **degrees, test_identities=0))
    optimiser = optimiser_of(model.train(), settings)

    def step():
        x, present = draw(pairs, generator)
        return update(model, optimiser, x, settings, settings.warmup, *present)

    return step


def work(batch: int, size: int):
    """For each line "model steps" from stdin: make so many steps, and say in a line how many CPU seconds they took."""
    import torch

    torch.set_num_threads(1)
    import mmvae

    print(json.dumps({"file": mmvae.__file__, "torch": torch.__version__}), flush=True)
    steps = {}
    for line in sys.stdin:
        name, count = line.split()
        steps.setdefault(name, None) or steps.update({name: trainer(name, batch, size)})
        started = time.process_time()
        for _ in range(int(count)):
            steps[name]()
        print(time.process_time() - started, flush=True)


# ---- here

class Worker:
    """The process of one version, a checkout's folder."""

    def __init__(self, folder: Path, batch: int, size: int):
        environment = os.environ | {"PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, str(Path(__file__).resolve()), "--work", "--batch", str(batch), "--size", str(size)]
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        about = self.answer()
        if not Path(about["file"]).resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{folder}: found the package in {Path(about['file']).parent}, expected {folder / 'mmvae'}")

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"a version's process ended with exit status {self.process.wait()}; see its words above")
        return json.loads(line)

    def seconds(self, name: str, steps: int) -> float:
        """CPU seconds of so many steps of a model."""
        self.process.stdin.write(f"{name} {steps}\n")
        self.process.stdin.flush()
        return self.answer()

    def end(self):
        self.process.stdin.close()
        self.process.wait()


def compare(other: Path, models: tuple[str, ...], rounds: int, seconds: float, batch: int, size: int) -> dict:
    """{model: {"here": pairs per CPU second, a round each, "other": same}}."""
    from tqdm.auto import tqdm

    workers = {"here": Worker(ROOT, batch, size), "other": Worker(other, batch, size)}
    rates = {name: {who: [] for who in workers} for name in models}
    try:
        steps = {}
        for name in models:  # a first turn warms up, and tells how many steps a turn has
            each = [worker.seconds(name, 5) and worker.seconds(name, 10) / 10 for worker in workers.values()]
            steps[name] = max(1, round(seconds / statistics.mean(each)))
        for k in tqdm(range(rounds), unit="round"):
            for name in models[:: -1 if k % 2 else 1]:
                for who in list(workers)[:: -1 if k % 2 else 1]:
                    rates[name][who].append(batch * steps[name] / workers[who].seconds(name, steps[name]))
    finally:
        for worker in workers.values():
            worker.end()
    return rates


def ratio(rates: dict[str, list[float]]) -> tuple[float, float, float]:
    """Here over other: the ratio of the medians, and the quartiles of the ratios within a round."""
    within = sorted(a / b for a, b in zip(rates["here"], rates["other"]))
    low, _, high = statistics.quantiles(within, n=4, method="inclusive") if len(within) > 1 else within * 3
    return statistics.median(rates["here"]) / statistics.median(rates["other"]), low, high


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--other", type=Path, help="folder of a checkout of another version")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS, metavar="NAME")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=3.0, help="CPU seconds of a turn")
    parser.add_argument("--batch", type=int, default=BATCH)
    parser.add_argument("--size", type=int, default=SIZE, help="pixels a side")
    parser.add_argument("--least", type=float, default=0.97, help="exit status 1 if a ratio is less")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.work:
        return work(args.batch, args.size)
    if not args.other or not (args.other / "mmvae/__init__.py").exists():
        parser.error(f"--other: found {args.other}, expected the folder of a checkout, with mmvae/ in it")
    rates = compare(args.other, tuple(args.models), args.rounds, args.seconds, args.batch, args.size)
    print(f"{'model':10} {'here':>8} {'other':>8}  pairs per CPU second     ratio")
    found = {name: ratio(of) for name, of in rates.items()}
    for name, (middle, low, high) in found.items():
        here, other = (statistics.median(rates[name][who]) for who in ("here", "other"))
        print(f"{name:10} {here:8,.0f} {other:8,.0f}  {middle:29.3f} ({low:.3f}-{high:.3f})" + " low" * (middle < args.least))
    return int(any(middle < args.least for middle, *_ in found.values()))


if __name__ == "__main__":
    sys.exit(main())
