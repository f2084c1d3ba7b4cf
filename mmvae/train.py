"""The training loop: progress, a log, checkpoints that are whole or absent, and a resume to the same weights.

    python -m mmvae.train MODEL data.h5 RUN_DIR [--size 32 --iterations 5000 ...]

trains one of the models of `mmvae.MODELS`, or resumes it where RUN_DIR stopped.
"""
import argparse
import csv
import json
import math
import os
import platform
import sys
import time
import types
import typing
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from tqdm.auto import tqdm

from .data import Pairs
from .models import MODELS, MultiModalVAE


@dataclass(frozen=True)
class Settings:
    """Everything that a run is a function of, beside the data, the device and the versions.

    Raises ValueError for an unknown model, or a number that is not positive where it must be.
    """
    model: str = "mumo"  # a key of mmvae.MODELS
    size: int = 64  # pixels a side; images are averaged down to it
    iterations: int = 80_000
    batch: int = 64
    learning_rate: float = 6e-3  # hot for Adam: warm-up and clipping make it safe, the decay makes it end well
    warmup: int = 300  # iterations of linear warm-up: at the start Adam's second moments are still a guess
    clip: float = 200.0  # largest norm of the gradient, nats per pair; tight, since Adam ignores its scale anyway
    weight: float | None = None  # of the likelihood; None: (64 / size)^2, an image weighs as it does at 64x64
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

    def rate(self, iteration: int) -> float:
        """The learning rate of this iteration, from 0: linear warm-up, then half a cosine down to zero."""
        warm = min(1.0, (iteration + 1) / max(self.warmup, 1))
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * iteration / self.iterations))


def build(settings: Settings) -> MultiModalVAE:
    """The untrained model of these settings; its weights depend on the seed alone."""
    torch.manual_seed(settings.seed)
    return MODELS[settings.model](size=settings.size)


def fit(settings: Settings, pairs: Pairs, run_dir: str | Path, progress: bool = True) -> MultiModalVAE:
    """Train to `settings.iterations`, or go on from the last checkpoint in run_dir; returns the model in eval mode.

    Writes to run_dir: settings.json, log.csv (a row every `log_every` iterations: means of the loss terms, nats per
    pair, and seconds of training so far), and the last two checkpoints. Raises ValueError if run_dir holds a run with
    other settings or data, and FloatingPointError at a non-finite loss, naming the iteration and the term; the last
    good checkpoint stays.
    """
    if pairs.size != settings.size:
        raise ValueError(f"pairs: found images of size {pairs.size}, the settings expect {settings.size}")
    run_dir = Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    _claim(run_dir, settings, pairs)
    model = build(settings).to(pairs.device).train()
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.learning_rate, fused=True)
    generator = torch.Generator(pairs.device).manual_seed(settings.seed)
    done, seconds = _restore(run_dir, model, optimiser, generator)
    log = _Log(run_dir / "log.csv", done)
    started, unread = time.perf_counter() - seconds, []

    bar = tqdm(range(done, settings.iterations), initial=done, total=settings.iterations, disable=not progress,
               desc=settings.model, unit="it", mininterval=0.5)
    for iteration in bar:
        x, _ = pairs.sample(settings.batch, generator)
        terms = model.loss(x, settings.weight)
        optimiser.zero_grad()
        terms["total"].backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimiser.param_groups[0]["lr"] = settings.rate(iteration)
        optimiser.step()
        unread.append(torch.stack([value.detach() for value in terms.values()]))  # stays on the device

        done, last = iteration + 1, iteration + 1 == settings.iterations
        if done % settings.log_every == 0 or done % settings.checkpoint_every == 0 or last:
            seconds = time.perf_counter() - started
            row = _read(unread, list(terms), iteration, run_dir)
            if done % settings.log_every == 0 or last:
                log.write({"iteration": done, "seconds": round(seconds, 2)} | row)
            bar.set_postfix({k: f"{row[k]:.0f}" for k in row if k == "total" or k.endswith("elbo")}, refresh=False)
            unread = []
        if done % settings.checkpoint_every == 0 or last:
            _save(run_dir, done, seconds, settings, model, optimiser, generator)
    return model.eval()


def load_run(run_dir: str | Path, device: str | torch.device = "cpu") -> MultiModalVAE:
    """The model of the newest whole checkpoint in run_dir, in eval mode. Raises FileNotFoundError if there is none."""
    run_dir = Path(run_dir)
    if not (run_dir / "settings.json").is_file():
        raise FileNotFoundError(f"{run_dir}: no settings.json; expected a folder that `python -m mmvae.train` wrote")
    settings = Settings(**json.loads((run_dir / "settings.json").read_text())["settings"])
    model = build(settings)
    if not _restore(run_dir, model)[0]:
        raise FileNotFoundError(f"{run_dir}: no whole checkpoint yet; `python -m mmvae.train` goes on from here")
    return model.to(device).eval()


def read_log(run_dir: str | Path) -> dict[str, np.ndarray]:
    """log.csv as {column: float array}: "iteration", "seconds", and the loss terms in nats per pair."""
    with open(Path(run_dir) / "log.csv", newline="") as f:
        rows = list(csv.DictReader(f))
    return {column: np.array([float(row[column]) for row in rows]) for column in rows[0]}


def versions(device: str | torch.device = "cpu") -> dict[str, str]:
    """What a number in the book was computed with."""
    gpu = torch.device(device).type == "cuda"
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__,
            "device": torch.cuda.get_device_name(device) if gpu else f"{platform.machine()} CPU"}


def write_atomically(path: Path, data: bytes):
    """The file is complete or absent: a temporary name, fsync, rename."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _claim(run_dir: Path, settings: Settings, pairs: Pairs):
    """Write settings.json, or refuse a folder that holds another run."""
    ours = {"settings": asdict(settings), "data": pairs.fingerprint}
    path = run_dir / "settings.json"
    if not path.exists():
        record = ours | {"versions": versions(pairs.device)}
        return write_atomically(path, json.dumps(record, indent=1).encode())
    theirs = json.loads(path.read_text())
    found, asked = (record["settings"] | {"data": record["data"][:12]} for record in (theirs, ours))
    changed = [f"{k}: found {found.get(k)}, asked for {asked[k]}" for k in asked if found.get(k) != asked[k]]
    if changed:
        raise ValueError(f"{run_dir}: holds a run with other settings or data ({'; '.join(changed)})")


def _read(unread: list[Tensor], names: list[str], iteration: int, run_dir: Path) -> dict[str, float]:
    """The means of the terms since the last reading; refuses anything that is not finite."""
    values = torch.stack(unread).cpu()  # (iterations, terms)
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise FloatingPointError(f"iteration {iteration - len(values) + row + 1}: {names[column]} is "
                                 f"{values[row, column]}; stopped, and the last good checkpoint in {run_dir} is kept")
    return dict(zip(names, values.double().mean(0).tolist()))


class _Log:
    """A CSV that is cut back to the checkpoint on resume, then appended to."""

    def __init__(self, path: Path, done: int):
        self.path = path
        if path.exists():
            lines = path.read_text().splitlines(keepends=True)
            kept = lines[:1] + [line for line in lines[1:] if line.endswith("\n") and int(line.split(",")[0]) <= done]
            write_atomically(path, "".join(kept if done else []).encode())

    def write(self, row: dict[str, float]):
        new = not self.path.exists() or not self.path.stat().st_size
        with open(self.path, "a", newline="") as f:
            writer = csv.DictWriter(f, list(row))
            if new:
                writer.writeheader()
            writer.writerow({k: v if k in ("iteration", "seconds") else f"{v:.4f}" for k, v in row.items()})


def _save(run_dir, done, seconds, settings, model, optimiser, generator):
    """One safetensors file: weights, Adam's moments, and both random states. The last two are kept."""
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    for i, state in optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{i}.{k}": torch.as_tensor(v) for k, v in state.items()}
    tensors |= {"random.noise": _noise_state(generator.device), "random.batches": generator.get_state()}
    meta = {"iteration": str(done), "seconds": str(seconds), "settings": json.dumps(asdict(settings))}
    data = save({k: v.cpu().contiguous() for k, v in tensors.items()}, meta)
    write_atomically(run_dir / f"checkpoint-{done:08d}.safetensors", data)
    for old in sorted(run_dir.glob("checkpoint-*.safetensors"))[:-2]:
        old.unlink()


def _restore(run_dir, model, optimiser=None, generator=None) -> tuple[int, float]:
    """Load the newest whole checkpoint; returns its iteration and seconds, or (0, 0.0) without one."""
    for path in sorted(run_dir.glob("checkpoint-*.safetensors"), reverse=True):
        try:
            with safe_open(path, "pt") as f:
                meta, tensors = f.metadata(), {k: f.get_tensor(k) for k in f.keys()}
            done, seconds = int(meta["iteration"]), float(meta["seconds"])
        except (SafetensorError, OSError, TypeError, KeyError) as e:
            print(f"{path}: not a whole checkpoint ({e}); using the one before it", file=sys.stderr)
            continue
        model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        if optimiser:
            state: dict[int, dict] = {}
            for k, v in tensors.items():
                if k.startswith("adam."):
                    _, i, name = k.split(".")
                    state.setdefault(int(i), {})[name] = v
            optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
            generator.set_state(tensors["random.batches"])
            _set_noise_state(generator.device, tensors["random.noise"])
        return done, seconds
    return 0, 0.0


def _noise_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _set_noise_state(device: torch.device, state: Tensor):
    torch.cuda.set_rng_state(state, device) if device.type == "cuda" else torch.set_rng_state(state)


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(prog="python -m mmvae.train", description="Train, or resume, one model.")
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("data", help="HDF5 file of `python -m mmvae.faces`, or basel_face_renders.pth")
    parser.add_argument("run_dir", help="where settings, log and checkpoints go")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's)")
    for f in fields(Settings)[1:]:  # `weight: float | None` is a float on the command line
        kind = typing.get_args(f.type)[0] if isinstance(f.type, types.UnionType) else f.type
        parser.add_argument(f"--{f.name.replace('_', '-')}", type=kind, default=f.default)
    args = vars(parser.parse_args(argv))
    data, run_dir, device, threads = (args.pop(k) for k in ("data", "run_dir", "device", "threads"))
    if threads:
        torch.set_num_threads(threads)
    try:
        settings = Settings(**args)
        read = Pairs.from_basel if data.endswith(".pth") else Pairs
        model = fit(settings, read(data, device=device, size=settings.size), run_dir)
    except (ValueError, FileNotFoundError, FloatingPointError) as e:
        parser.exit(1, f"{e}\n")
    count = sum(p.numel() for p in model.parameters())
    print(f"{settings.model}: {settings.iterations} iterations, likelihood weight {settings.weight:g}, "
          f"{count:,} parameters, in {run_dir}")


if __name__ == "__main__":
    main()
