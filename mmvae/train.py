"""The training loop: progress, a log, checkpoints that are whole or absent, and a resume to the same weights.

    python -m mmvae.train MODEL data.h5 RUN_DIR [--size 32 --iterations 5000 ...]

trains one of the models of `mmvae.MODELS`, or resumes it where RUN_DIR stopped; `--publish` makes the published weights.
"""
import argparse
import json
import math
import os
import platform
import shutil
import sys
import time
import types
import typing
from contextlib import nullcontext
from copy import copy
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from . import checkpoint, distributed
from .checkpoint import Checkpoint, read_log, write_atomically
from .data import Pairs
from .models import MODELS, MultiModalVAE

__all__ = ["Settings", "build", "fit", "load_run", "optimiser_of", "read_log", "update", "versions", "write_atomically"]
COMPILER = {"backend": "inductor", "options": {"fallback_random": True, "triton.cudagraphs": True}}
BETAS = 0.9, 0.98  # of Adam: with a hot rate, a second moment that remembers 50 iterations rather than 1000


@dataclass(frozen=True)
class Settings:
    """Everything that a run is a function of, beside the data, the device and the versions.

    Raises ValueError for an unknown model, or a number that is not positive where it must be.
    """
    model: str = "mumo"  # a key of mmvae.MODELS
    size: int = 64  # pixels a side; images are averaged down to it
    iterations: int = 80_000
    batch: int = 64
    learning_rate: float = 5e-3  # hot for Adam: warm-up and clipping make it safe, the decay makes it end well
    warmup: int = 50  # iterations of linear warm-up: at the start Adam's second moments are still a guess
    clip: float = 200.0  # largest norm of the gradient, nats per pair; tight, since Adam ignores its scale anyway
    weight_decay: float = 0.1  # times the learning rate: what every weight loses of itself in an iteration
    weight: float | None = None  # of the likelihood; None: (64 / size)^2, an image weighs as it does at 64x64
    cross: float = 0.0  # of the cross-reconstruction, beside the likelihood's weight; 0: the book's loss
    cross_until: int | None = None  # iterations that it is added for; None: all of them
    options: dict = field(default_factory=dict)  # further arguments of the model: {"shared": 3}
    seed: int = 0
    log_every: int = 100  # iterations; losses are read from the device only then
    checkpoint_every: int = 1000  # iterations

    def __post_init__(self):
        if self.model not in MODELS:
            raise ValueError(f'model: found "{self.model}", expected one of {", ".join(MODELS)}')
        if self.weight is None:
            object.__setattr__(self, "weight", (64 / self.size) ** 2)
        for name in ("size", "iterations", "batch", "learning_rate", "clip", "weight", "log_every", "checkpoint_every"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}: found {getattr(self, name)}, expected a positive number")
        if not self.cross >= 0:
            raise ValueError(f"cross: found {self.cross}, expected 0 or a positive number")
        object.__setattr__(self, "options", json.loads(json.dumps(self.options)))  # as a file gives it back

    def cross_at(self, iteration: int) -> float | None:
        """The weight of the cross-reconstruction in this iteration; None in a run that never has it."""
        over = self.cross_until is not None and iteration >= self.cross_until
        return None if not self.cross else 0.0 if over else self.cross

    def rate(self, iteration: int) -> float:
        """The learning rate of this iteration, from 0: linear warm-up, then half a cosine down to zero."""
        warm = min(1.0, (iteration + 1) / max(self.warmup, 1))
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * iteration / self.iterations))


def build(settings: Settings) -> MultiModalVAE:
    """The untrained model of these settings; its weights depend on the seed alone. ValueError: it has no such options."""
    torch.manual_seed(settings.seed)
    try:
        return MODELS[settings.model](size=settings.size, **settings.options)
    except TypeError as e:
        raise ValueError(f"options: found {settings.options}, expected arguments of {settings.model} ({e})") from e


def optimiser_of(model: torch.nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay: Loshchilov & Hutter (2019). One kernel updates every weight."""
    return torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=BETAS, fused=True,
                             weight_decay=settings.weight_decay)


def update(model: MultiModalVAE, optimiser: torch.optim.Optimizer, x: dict[str, Tensor], settings: Settings,
           iteration: int) -> dict[str, Tensor]:
    """One iteration on the pairs x, {"I": (B, 1, H, W), "T": same}: the terms of the loss before it, nats per pair.

    The terms stay on the device, and nothing in here waits for it.
    """
    group = optimiser.param_groups[0]
    optimiser.zero_grad()
    terms = model.loss(x, settings.weight, settings.cross_at(iteration))
    terms["total"].backward()
    torch.nn.utils.clip_grad_norm_(group["params"], settings.clip)
    group["lr"] = settings.rate(iteration)
    optimiser.step()
    return {name: value.detach() for name, value in terms.items()}


def fit(settings: Settings, pairs: Pairs, run_dir: str | Path, progress: bool = True,
        compile: bool = False) -> MultiModalVAE:
    """Train to `settings.iterations`, or go on from the last checkpoint in run_dir; returns the model in eval mode.

    Writes to run_dir: settings.json, log.csv (a row every `log_every` iterations: means of the loss terms since the
    last row or checkpoint, nats per pair, and seconds of training so far), and the last two checkpoints. Whatever ends
    it, called again it goes on from the last checkpoint, to the weights that it would have reached: bit for bit on the
    same device, threads, processes and versions; a change of these is named on stderr.
    compile: forward and backward by torch.compile, which takes a minute at first and pays on a GPU.
    Raises ValueError if run_dir holds a run with other settings or data, or checkpoints of which none can be used;
    BlockingIOError if another process trains there; OSError if it cannot be written, by a full disk say; and
    FloatingPointError at a loss or a weight that is not finite, naming it. The last good checkpoint stays.
    """
    if pairs.size != settings.size:
        raise ValueError(f"pairs: found images of size {pairs.size}, the settings expect {settings.size}")
    rows, run_dir = distributed.rows(settings.batch), Path(run_dir)
    torch.backends.cudnn.deterministic = True  # else its convolutions may add up in any order
    with checkpoint.lock(run_dir) if distributed.rank() == 0 else nullcontext(), distributed.together():
        return _train(settings, pairs, run_dir, rows, progress and distributed.rank() == 0, compile)


def _train(settings: Settings, pairs: Pairs, run_dir: Path, rows: slice, progress: bool,
           compile: bool) -> MultiModalVAE:
    """`fit`, by this process's rows of each batch."""
    run = {"settings": asdict(settings), "data": pairs.fingerprint}
    about = {"versions": versions(pairs.device), "machine": {
        "threads": torch.get_num_threads(), "processes": distributed.size(), "compile": compile,
        "float32 products": torch.get_float32_matmul_precision()}}
    machine = about["versions"] | about["machine"]
    model = build(settings).to(pairs.device).train()
    optimiser = optimiser_of(model, settings)
    generator = torch.Generator(pairs.device).manual_seed(settings.seed)

    def now(done: int, seconds: float) -> Checkpoint:
        return Checkpoint(done, seconds, run, machine, checkpoint.state_of(model, optimiser, generator))

    first, before = distributed.rank() == 0, b""
    if first:
        checkpoint.refuse_other(run_dir, run)
        before = checkpoint.pack(checkpoint.newest(run_dir, run, model.state_dict()) or now(0, 0.0))
        if not (run_dir / "settings.json").exists():
            write_atomically(run_dir / "settings.json", json.dumps(run | about, indent=1).encode())
    before = checkpoint.unpack(distributed.from_first(before, pairs.device), run, model.state_dict())
    checkpoint.restore(before, model, optimiser, generator)
    if first:
        log = checkpoint.Log(run_dir / "log.csv", before.iteration, settings.log_every)
        changed = checkpoint.changes(before.machine, machine)
        if changed and before.iteration < settings.iterations:
            print(f"{run_dir}: goes on, but not bit for bit as it would have ({changed})", file=sys.stderr)

    stepped = _prepared(model, pairs, settings, rows, compile)
    started, unread = time.perf_counter() - before.seconds, []
    bar = tqdm(range(before.iteration, settings.iterations), initial=before.iteration, total=settings.iterations,
               disable=not progress, desc=settings.model, unit="it", mininterval=0.5)
    for iteration in bar:
        terms = update(stepped, optimiser, _draw(pairs, settings.batch, generator, rows), settings, iteration)
        unread.append(torch.stack(list(terms.values())))  # stays on the device

        done, last = iteration + 1, iteration + 1 == settings.iterations
        log_now, save_now = (done % every == 0 or last for every in (settings.log_every, settings.checkpoint_every))
        if not (log_now or save_now):
            continue
        row, unread = _read(unread, list(terms), iteration, run_dir), []
        seconds = time.perf_counter() - started
        bar.set_postfix({k: f"{row[k]:.0f}" for k in row if k == "total" or k.endswith("elbo")}, refresh=False)
        if first and log_now:
            log.write({"iteration": done, "seconds": round(seconds, 2)} | row)
        if first and save_now:
            after = now(done, seconds)
            if wrong := [k for k, v in after.tensors.items() if not v.isfinite().all()]:
                raise FloatingPointError(f"iteration {iteration}: {wrong[0]} is not finite after it; stopped, and the "
                                         f"last good checkpoint in {run_dir} is kept")
            log.sync()
            checkpoint.keep(run_dir, after)
    return model.eval()


def load_run(run_dir: str | Path, device: str | torch.device = "cpu") -> MultiModalVAE:
    """The model of the newest whole checkpoint in run_dir, in eval mode.

    Raises FileNotFoundError if there is none yet, ValueError if there are but none can be used.
    """
    run_dir = Path(run_dir)
    run = checkpoint.settings_of(run_dir)
    try:
        settings = Settings(**run["settings"])
    except TypeError as e:
        raise ValueError(f"{run_dir / 'settings.json'}: settings of another version of mmvae ({e})") from e
    with torch.random.fork_rng(devices=[]):  # building draws random weights; the caller's random state stays
        model = build(settings)
    found = checkpoint.newest(run_dir, run, model.state_dict())
    if found is None:
        raise FileNotFoundError(f"{run_dir}: no checkpoint yet; `python -m mmvae.train` goes on from here")
    model.load_state_dict(found.part("model"))
    return model.to(device).eval()


def versions(device: str | torch.device = "cpu") -> dict[str, str]:
    """What a number in the book was computed with."""
    gpu = torch.device(device).type == "cuda"
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__,
            "device": torch.cuda.get_device_name(device) if gpu else f"{platform.machine()} CPU"}


def _draw(pairs: Pairs, batch: int, generator: torch.Generator, rows: slice) -> dict[str, Tensor]:
    """These rows of the images of `pairs.sample(batch, generator)`, without waiting for a GPU as that does."""
    cell, index = torch.randint(len(pairs), (batch,), generator=generator, device=pairs.device)[rows], []
    for n in reversed(pairs.shape):
        index.insert(0, cell % n)
        cell = cell // n
    return pairs.at(*index)[0]


def _prepared(model: MultiModalVAE, pairs: Pairs, settings: Settings, rows: slice, compile: bool):
    """What `update` takes for the model: it itself, compiled, or on several processes."""
    if distributed.size() == 1:
        return _compiled(model, pairs.device) if compile else model
    if compile:
        raise ValueError(f"compile: found {distributed.size()} processes, expected one")
    stepped = distributed.DataParallel(model)
    index = torch.zeros(rows.stop - rows.start, dtype=torch.int64, device=pairs.device)
    stepped.settle(pairs.at(index, index, index, index)[0], settings.weight)
    return stepped


def _compiled(model: MultiModalVAE, device: torch.device) -> MultiModalVAE:
    """The same weights with a compiled loss, and the noise as it is without: on a GPU one CUDA graph each way."""
    if device.type == "cpu" and not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "clang++", "cl")):
        raise ValueError("compile: found no C++ compiler (CXX, g++, clang++ or cl), which it needs on a CPU")
    loss = model.loss

    def compiled(x: dict[str, Tensor], weight: float, cross: float | None = None) -> dict[str, Tensor]:
        terms = loss(x, weight, cross)  # only the total has a backward
        return {name: value if name == "total" else value.detach() for name, value in terms.items()}

    model = copy(model)  # shares its weights
    model.loss = torch.compile(compiled, fullgraph=True, dynamic=False, **COMPILER)
    return model


def _read(unread: list[Tensor], names: list[str], iteration: int, run_dir: Path) -> dict[str, float]:
    """The means of the terms since the last reading; refuses anything that is not finite."""
    values = distributed.average(torch.stack(unread)).cpu()  # (iterations, terms)
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise FloatingPointError(f"iteration {iteration - len(values) + row + 1}: {names[column]} is "
                                 f"{values[row, column]}; stopped, and the last good checkpoint in {run_dir} is kept")
    return dict(zip(names, values.double().mean(0).tolist()))


def main(argv: list[str] | None = None):
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="python -m mmvae.train", description="Train, or resume, one model.",
                                     epilog="With --publish [NAME ...]: train, measure and write the published models.")
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("data", help="HDF5 file of `python -m mmvae.faces`, or basel_face_renders.pth")
    parser.add_argument("run_dir", help="where settings, log and checkpoints go")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads of a process (default: PyTorch's)")
    parser.add_argument("--compile", action="store_true", help="by torch.compile: a minute at first, pays on a GPU")
    parser.add_argument("--tf32", action="store_true", help="products of fewer digits, faster on a GPU")
    for f in fields(Settings)[1:]:  # `weight: float | None` is a float on the command line, options are JSON
        kind = typing.get_args(f.type)[0] if isinstance(f.type, types.UnionType) else f.type
        default = {} if kind is dict else f.default
        parser.add_argument(f"--{f.name.replace('_', '-')}", type=json.loads if kind is dict else kind, default=default)
    try:
        if "--publish" in argv:
            from .weights import main as publish  # it trains by this module
            return publish([a for a in argv if a != "--publish"])
        _run(**vars(parser.parse_args(argv)))
    except (ValueError, OSError, FloatingPointError) as e:
        parser.exit(1, f"{_who()}{e}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"\n{_who()}interrupted; the same command goes on from the last checkpoint\n")
    finally:
        distributed.stop()


def _run(data: str, run_dir: str, device: str, threads: int | None, compile: bool, tf32: bool, **changes):
    settings = Settings(**changes)
    if threads:
        torch.set_num_threads(threads)
    if tf32:
        torch.set_float32_matmul_precision("high")
    device = distributed.start(device)
    read = Pairs.from_basel if data.endswith(".pth") else Pairs
    model = fit(settings, read(data, device=device, size=settings.size), run_dir, compile=compile)
    if distributed.rank() == 0:
        count = sum(p.numel() for p in model.parameters())
        print(f"{settings.model}: {settings.iterations} iterations, likelihood weight {settings.weight:g}, "
              f"{count:,} parameters, in {run_dir}")


def _who() -> str:
    return f"process {distributed.rank()}: " if distributed.size() > 1 else ""


if __name__ == "__main__":
    main()
