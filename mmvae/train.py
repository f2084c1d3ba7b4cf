"""The training loop: progress, a log, checkpoints that are whole or absent, and a resume to the same weights.

`mmvae.fit(model, rows, "runs/mine", iterations=5000)` trains any model, or goes on where runs/mine stopped.
"""
import json
import math
import sys
import time
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm.auto import tqdm

from . import behaviour, checkpoint, distributed, observed, terms as further
from .checkpoint import Checkpoint, about, load_run, versions
from .files import Log, read_log, write_atomically
from .lazy import as_rows
from .data import Rows
from .models import MultiModalVAE

__all__ = ["Settings", "fit", "load_run", "optimiser_of", "read_log", "update", "versions", "write_atomically"]
BETAS = 0.9, 0.98  # of Adam: with a hot rate, a second moment that remembers 50 iterations rather than 1000


@dataclass(frozen=True)
class Settings:
    """Everything that a run is a function of, beside the model, the data, the device and the versions. Raises ValueError for
    a number that is not positive where it must be."""
    iterations: int = 80_000
    batch: int = 64
    learning_rate: float = 5e-3  # hot for Adam: warm-up and clipping make it safe, the decay makes it end well
    warmup: int = 50  # iterations of linear warm-up: at the start Adam's second moments are still a guess
    clip: float = 200.0  # largest norm of the gradient, nats a row; tight, since Adam ignores its scale anyway
    weight_decay: float = 0.1  # times the learning rate: what every weight loses of itself in an iteration
    weight: float | dict[str, float] = 1.0  # of the likelihood, or of each modality's; 1: the ELBO itself
    cross: float = 0.0  # of the cross-reconstruction, beside the likelihood's weight; 0: the book's loss
    cross_until: int | None = None  # iterations that it is added for; None: all of them
    extra: dict[str, float] | None = None  # of terms of `mmvae.terms`, {term: weight}; None: the book's loss
    extra_until: int | None = None  # iterations that they are added for; None: all of them
    seed: int = 0  # of the batches; first weights and noise are PyTorch's own, as torch.manual_seed leaves it
    log_every: int = 100  # iterations; losses are read from the device only then
    checkpoint_every: int = 1000  # iterations

    def __post_init__(self):
        put = partial(object.__setattr__, self)
        for name in ("iterations", "batch", "log_every", "checkpoint_every", "warmup", "seed"):
            put(name, observed.number(name, getattr(self, name), 0 if name in ("warmup", "seed") else 1, whole=True))
        for name in ("learning_rate", "clip", "cross"):
            put(name, observed.number(name, getattr(self, name), 0 if name == "cross" else None))
        put("extra", further.checked(self.extra, self.cross or None))
        if self.extra_until is not None:
            put("extra_until", observed.number("extra_until", self.extra_until, 0, whole=True))
        w, number = self.weight, partial(observed.number, "weight")
        put("weight", {m: number(v) for m, v in w.items()} if isinstance(w, dict) else number(w))

    def cross_at(self, iteration: int) -> float | None:
        """The weight of the cross-reconstruction in this iteration; None in a run that never has it."""
        over = self.cross_until is not None and iteration >= self.cross_until
        return None if not self.cross else 0.0 if over else self.cross

    def added_at(self, iteration: int) -> dict:
        """What is added to the loss in this iteration, as arguments of `MultiModalVAE.loss`: `cross` and `extra`."""
        over = self.extra_until is not None and iteration >= self.extra_until
        extra = dict.fromkeys(self.extra, 0.0) if over and self.extra else self.extra
        return {"cross": self.cross_at(iteration), "extra": extra}

    def rate(self, iteration: int) -> float:
        """The learning rate of this iteration, from 0: linear warm-up, then half a cosine down to zero."""
        warm = min(1.0, (iteration + 1) / max(self.warmup, 1))
        return self.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * iteration / self.iterations))


def optimiser_of(model: torch.nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay: Loshchilov & Hutter (2019). One kernel updates every weight."""
    return torch.optim.AdamW(model.parameters(), lr=settings.learning_rate, betas=BETAS, fused=True,
                             weight_decay=settings.weight_decay)


def update(model: MultiModalVAE, optimiser: torch.optim.Optimizer, x: dict[str, Tensor], settings: Settings,
           iteration: int, present: dict[str, Tensor] | None = None, check: bool = False) -> dict[str, Tensor]:
    """One iteration on the rows x, {modality: (B, ...)}: the terms of the loss before it, nats a row. They stay on the
    device, and nothing in here waits for it: the values of x are not looked at, unless `check` says so."""
    group = optimiser.param_groups[0]
    optimiser.zero_grad()
    terms = model.loss(x, settings.weight, present, check=check, **settings.added_at(iteration))
    terms["total"].backward()
    torch.nn.utils.clip_grad_norm_(group["params"], settings.clip)
    group["lr"] = settings.rate(iteration)
    optimiser.step()
    return {name: value.detach() for name, value in terms.items()}


def fit(model: MultiModalVAE, rows: Rows, run_dir: str | Path, settings: Settings | None = None, *, progress: bool = True,
        compile: bool = False, recipe: dict | None = None, **changes) -> MultiModalVAE:
    """Train the model, or go on from the last checkpoint in run_dir; returns it in eval mode, on the rows' device.

    rows: `mmvae.data.Rows`, a map-style `Dataset` (see `Rows.of`), or what has their methods. settings: default `Settings`;
    changes: fields of them, fit(..., iterations=5000). recipe: how to build the model again, kept in settings.json.
    Writes to run_dir: settings.json, log.csv (a row every `log_every` iterations: means of the loss terms since the
    last row or checkpoint, nats a row, and seconds of training so far), and the last two checkpoints. Whatever ends
    it, called again with a model built in the same way it goes on from the last checkpoint, to the weights that it would
    have reached: bit for bit on the same device, threads, processes and versions; a change of these is named on stderr.
    compile: forward and backward by torch.compile, which takes a minute at first and pays on a GPU.
    Raises ValueError for rows that the model does not take, if run_dir holds a run with other settings, model, data or
    behaviour, or checkpoints of which none can be used; BlockingIOError if another process trains there; OSError if it
    cannot be written, by a full disk say; and FloatingPointError at a loss or a weight that is not finite, naming it. The
    last good checkpoint stays.
    """
    settings = Settings(**asdict(settings or Settings()) | changes)
    rows = as_rows(rows, progress)
    part, run_dir = distributed.rows(settings.batch), Path(run_dir)
    further.prepare(model, settings.extra).to(rows.device)
    some = torch.arange(min(settings.batch, len(rows)), device=rows.device)
    observed.cases(model, *model.check(*rows.batch(some)), model.subsets)  # in a sentence, before anything is written
    for m, values in getattr(rows, "observed", dict)().items():
        model.likelihood(m).check(values, m)
    torch.backends.cudnn.deterministic = True  # else its convolutions may add up in any order
    with checkpoint.lock(run_dir) if distributed.rank() == 0 else nullcontext(), distributed.together(), \
            torch.random.fork_rng(distributed.gpus(rows.device)):
        return _train(model, settings, rows, run_dir, part, progress and distributed.rank() == 0, compile, recipe)


def behaviour_of(model: MultiModalVAE, settings: Settings) -> behaviour.Print:
    """What training this model under these settings computes: see `mmvae.behaviour`."""
    def start(model):
        optimiser = optimiser_of(model, settings)
        return lambda x, iteration: update(model, optimiser, x, settings, iteration)

    return behaviour.of_training(model, start)


def _train(model: MultiModalVAE, settings: Settings, rows: Rows, run_dir: Path, part: slice, progress: bool, compile: bool,
           recipe: dict | None) -> MultiModalVAE:
    """`fit`, by this process's part of each batch."""
    run = {"settings": asdict(settings), "model": recipe or about(model), "data": rows.fingerprint}
    run = json.loads(json.dumps(run))  # as a file gives it back
    extra = {"versions": versions(rows.device), "machine": {
        "threads": torch.get_num_threads(), "processes": distributed.size(), "compile": compile,
        "float32 products": torch.get_float32_matmul_precision()}}
    machine = extra["versions"] | extra["machine"]
    optimiser = optimiser_of(model.train(), settings)
    generator = torch.Generator(rows.device).manual_seed(settings.seed)

    def now(done: int, seconds: float) -> Checkpoint:
        return Checkpoint(done, seconds, run, machine, checkpoint.state_of(model, optimiser, generator))

    first, before = distributed.rank() == 0, b""
    if first:
        extra["behaviour"] = behaviour_of(model, settings)
        there = checkpoint.refuse_other(run_dir, run, extra["behaviour"])
        found = checkpoint.newest(run_dir, run, model.state_dict())
        if not there:
            write_atomically(run_dir / "settings.json", json.dumps(run | extra, indent=1).encode())
        if found is None:  # the weights that the caller gave are part of the run
            checkpoint.keep(run_dir, found := now(0, 0.0))
        before = checkpoint.pack(found)
    before = checkpoint.unpack(distributed.from_first(before, rows.device), run, model.state_dict())
    checkpoint.restore(before, model, optimiser, generator)
    if first:
        log = Log(run_dir / "log.csv", before.iteration, settings.log_every)
        changed = checkpoint.changes(before.machine, machine)
        if changed and before.iteration < settings.iterations:
            print(f"{run_dir}: goes on, but not bit for bit as it would have ({changed})", file=sys.stderr)

    stepped = distributed.prepared(model, rows, settings, part, compile)
    started, unread = time.perf_counter() - before.seconds, []
    bar = tqdm(range(before.iteration, settings.iterations), initial=before.iteration, total=settings.iterations,
               disable=not progress, desc=(recipe or {}).get("name", type(model).__name__), unit="it", mininterval=0.5)
    for iteration in bar:
        index = torch.randint(len(rows), (settings.batch,), generator=generator, device=rows.device)[part]
        x, present = rows.batch(index)
        terms = update(stepped, optimiser, x, settings, iteration, present, getattr(rows, "lazy", False))
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


def _read(unread: list[Tensor], names: list[str], iteration: int, run_dir: Path) -> dict[str, float]:
    """The means of the terms since the last reading; refuses anything that is not finite."""
    values = distributed.average(torch.stack(unread)).cpu()  # (iterations, terms)
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        row, column = bad[0].tolist()
        raise FloatingPointError(f"iteration {iteration - len(values) + row + 1}: {names[column]} is "
                                 f"{values[row, column]}; stopped, and the last good checkpoint in {run_dir} is kept")
    return dict(zip(names, values.double().mean(0).tolist()))
