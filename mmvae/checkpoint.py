"""What a run leaves in its folder: settings.json, log.csv, and checkpoints that are whole or absent.

A checkpoint is one safetensors file, checkpoint-ITERATION.safetensors, with JSON in its metadata: nothing unpickles.
Its SHA-256 covers every tensor and all that the metadata say, so that a file which was cut short, damaged, or written
by another run is named and refused, and the one before it is used.
"""
import hashlib
import json
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn


@dataclass(frozen=True)
class Checkpoint:
    """All that the next iteration depends on.

    iteration: how many are done. seconds: of training so far. run: {"settings": ..., "data": fingerprint}, which must
    be those of the run that goes on from it. machine: versions, device, threads, processes, for which bit-identity
    holds. tensors: those of `state_of`; on the CPU when read.
    """
    iteration: int
    seconds: float
    run: dict
    machine: dict
    tensors: dict[str, Tensor]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors "name.*", without that beginning."""
        return {k.removeprefix(f"{name}."): v for k, v in self.tensors.items() if k.startswith(f"{name}.")}


def pack(checkpoint: Checkpoint) -> bytes:
    """The content of a checkpoint's file."""
    tensors = {k: v.detach().cpu().contiguous() for k, v in checkpoint.tensors.items()}
    meta = {k: json.dumps(v) for k, v in vars(checkpoint).items() if k != "tensors"}
    return save(tensors, meta | {"sha256": _digest(meta, tensors)})


def unpack(data: bytes, run: dict, weights: dict[str, Tensor]) -> Checkpoint:
    """What `pack` packed; raises ValueError, saying what is wrong, if anything is.

    run: whose checkpoint it must be. weights: a `state_dict` that its "model.*" must fit.
    """
    try:
        tensors = load(data)
        header = 8 + int.from_bytes(data[:8], "little")  # safetensors: its length, a JSON header, the tensors' bytes
        meta = json.loads(data[8:header])["__metadata__"]
        digest = meta.pop("sha256")
        found = Checkpoint(**{k: json.loads(v) for k, v in meta.items()}, tensors=tensors)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as e:
        raise ValueError(f"not a whole checkpoint of mmvae.train ({type(e).__name__}: {e})") from e
    if digest != _digest(meta, tensors):
        raise ValueError("not a whole checkpoint: its content is not that of its SHA-256")
    if changed := difference(found.run, run):
        raise ValueError(f"a checkpoint of another run ({changed})")
    theirs = {k: tuple(v.shape) for k, v in found.part("model").items()}
    if changed := changes(theirs, {k: tuple(v.shape) for k, v in weights.items()}):
        raise ValueError(f"a checkpoint of another model ({changed})")
    return found


def keep(run_dir: Path, checkpoint: Checkpoint):
    """Write a checkpoint, then remove all but it and the one before it."""
    path = run_dir / f"checkpoint-{checkpoint.iteration:08d}.safetensors"
    write_atomically(path, pack(checkpoint))
    for old in [p for p in _checkpoints(run_dir) if p.name <= path.name][:-2]:
        old.unlink()


def newest(run_dir: Path, run: dict, weights: dict[str, Tensor]) -> Checkpoint | None:
    """The newest checkpoint that can be used, or None in a folder that has none; those refused are named on stderr.

    Arguments as of `unpack`. Raises ValueError if there are checkpoints, but not one that can be used.
    """
    paths = _checkpoints(run_dir)[::-1]
    for path in paths:
        try:
            return unpack(path.read_bytes(), run, weights)
        except (ValueError, OSError) as e:
            print(f"{path}: refused: {e}", file=sys.stderr)
    if paths:
        raise ValueError(f"{run_dir}: none of its checkpoints can be used ({', '.join(p.name for p in paths)}); "
                         "to train from the start, move them away or name another folder")
    return None


def settings_of(run_dir: Path) -> dict:
    """settings.json: "settings", "data", "versions", "machine". Raises FileNotFoundError without one, ValueError if damaged."""
    path = run_dir / "settings.json"
    if not path.is_file():
        raise FileNotFoundError(f"{run_dir}: no settings.json; expected a folder that `python -m mmvae.train` wrote")
    try:
        record = json.loads(path.read_bytes())
        if not all(isinstance(record[k], t) for k, t in (("settings", dict), ("data", str), ("versions", dict))):
            raise ValueError("settings, data or versions are not what they should be")
        return record
    except (ValueError, KeyError, TypeError) as e:
        raise ValueError(f"{path}: damaged ({type(e).__name__}: {e}); without it, training goes on if it is started "
                         "with the settings of the checkpoints") from e


def refuse_other(run_dir: Path, run: dict):
    """Refuse a folder that holds another run: ValueError with the difference."""
    if (run_dir / "settings.json").exists() and (changed := difference(settings_of(run_dir), run)):
        raise ValueError(f"{run_dir}: holds a run with other settings or data ({changed})")


def state_of(model: nn.Module, optimiser: torch.optim.Optimizer, generator: torch.Generator) -> dict[str, Tensor]:
    """A checkpoint's tensors: "model.*" weights, "adam.*" their moments, "random.*" the states of what the models'
    noise is drawn from, the device's own generator, and of the `generator` of the batches.
    """
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    for i, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{i}.{k}": v for k, v in moments.items()}
    return tensors | {"random.noise": _noise(generator).get_state(), "random.batches": generator.get_state()}


def restore(found: Checkpoint, model: nn.Module, optimiser: torch.optim.Optimizer, generator: torch.Generator):
    """The reverse of `state_of`. On another kind of device random states do not fit: it goes on with new numbers."""
    model.load_state_dict(found.part("model"))
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in found.part("adam").items():
        i, name = key.split(".")
        state.setdefault(int(i), {})[name] = value
    optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
    for name, ours in (("noise", _noise(generator)), ("batches", generator)):
        theirs = found.part("random")[name]
        if theirs.shape == ours.get_state().shape:
            ours.set_state(theirs)
        else:
            ours.manual_seed(found.run["settings"]["seed"] + found.iteration)  # not the numbers of the start again


def _noise(generator: torch.Generator) -> torch.Generator:
    device = generator.device
    if device.type == "cpu":
        return torch.default_generator
    return torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]


@contextmanager
def lock(run_dir: Path):
    """One process at a time trains in a folder; what a killed one was writing is removed. Makes the folder."""
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(run_dir / ".lock", timeout=0):  # the system opens it when the process ends, however it ends
            for name in ("checkpoint-*", "settings.json", "log.csv"):
                for leftover in run_dir.glob(f".{name}.*.tmp"):
                    leftover.unlink()
            yield
    except Timeout:
        raise BlockingIOError(f"{run_dir}: another process is training in this folder") from None


def write_atomically(path: Path, data: bytes):
    """The file is complete or absent, also after a power cut: a temporary name, fsync, rename, fsync of the folder."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with writing(path):
        try:
            with open(temporary, "wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        if os.name == "posix":  # elsewhere a folder cannot be opened
            folder = os.open(path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)


@contextmanager
def writing(path: Path):
    """An error of the system in here, a full disk say, names the file, its folder, and the checkpoint that is left."""
    try:
        yield
    except OSError as e:
        last = _checkpoints(path.parent)[-1:]
        rest = f"; the last good checkpoint, {last[0].name}, is intact" if last else ""
        raise OSError(e.errno, f"{e.strerror}: could not write {path.name} in {path.parent}{rest}") from e


class Log:
    """log.csv: cut back to the checkpoint that a run goes on from, then appended to, a row at a time.

    done: iterations of that checkpoint. every: iterations between rows. Raises ValueError for a file that is no log;
    rows that are damaged or missing are named on stderr, and the run goes on without them.
    """

    def __init__(self, path: Path, done: int, every: int):
        self.path = path
        columns, rows = _rows(path)[:2] if path.exists() else ([], [])
        if columns and columns[:2] != ["iteration", "seconds"]:
            raise ValueError(f"{path}: found columns {', '.join(columns)[:80]}, expected iteration, seconds and the "
                             "terms of the loss; move it away to go on with a new one")
        rows = [row for row in rows if float(row[0]) <= done]
        last = int(float(rows[-1][0])) if rows else 0
        if last < done - done % every:
            print(f"{path}: rows between iteration {last} and {done} are damaged or missing; the run goes on "
                  "without them", file=sys.stderr)
        if path.exists():
            kept = [columns, *rows] if rows else []
            write_atomically(path, "".join(",".join(line) + "\n" for line in kept).encode())

    def write(self, row: dict[str, float]):
        """Append a row: {"iteration", "seconds", terms of the loss in nats per pair}."""
        cells = [str(v) if k in ("iteration", "seconds") else f"{v:.4f}" for k, v in row.items()]
        with writing(self.path), open(self.path, "a") as f:
            if not f.tell():
                f.write(",".join(row) + "\n")
            f.write(",".join(cells) + "\n")

    def sync(self):
        """A checkpoint is about to say that the rows so far exist: let them survive a power cut too."""
        with writing(self.path), open(self.path, "a") as f:
            os.fsync(f.fileno())


def read_log(run_dir: str | Path) -> dict[str, np.ndarray]:
    """log.csv as {column: float array}: "iteration", "seconds", and the loss terms in nats per pair.

    A last row that is still being written is left out. Raises ValueError, naming the line, for one that is damaged.
    """
    path = Path(run_dir) / "log.csv"
    columns, rows, damaged = _rows(path)
    if damaged or not rows:
        wrong = f"line {damaged} is damaged" if damaged else "no rows"
        raise ValueError(f"{path}: {wrong}, expected a number for each of {', '.join(columns)[:80] or 'the columns'}")
    return {column: np.array(values, float) for column, values in zip(columns, zip(*rows))}


def _rows(path: Path) -> tuple[list[str], list[list[str]], int]:
    """The columns, the rows before the first that is damaged, and the number of its line (0: none is)."""
    lines = path.read_text(errors="replace").split("\n")[:-1]  # what has no line end is not a whole row
    columns, rows = lines[0].split(",") if lines else [], []
    for number, line in enumerate(lines[1:], 2):
        cells = line.split(",")
        try:
            whole = len(cells) == len(columns) and np.isfinite([float(c) for c in cells]).all()
        except ValueError:
            whole = False
        if not whole:
            return columns, rows, number
        rows.append(cells)
    return columns, rows, 0


def difference(found: dict, asked: dict) -> str:
    """What differs between two runs, {"settings": {...}, "data": fingerprint}: "batch: found 8, asked for 9"."""
    return changes(*(run.get("settings", {}) | {"data": run.get("data", "")[:12]} for run in (found, asked)))


def changes(found: dict, asked: dict) -> str:
    """What differs between two dictionaries, in words."""
    return "; ".join(f"{k}: found {found.get(k)}, asked for {asked.get(k)}" for k in asked | found
                     if found.get(k) != asked.get(k))


def _checkpoints(run_dir: Path) -> list[Path]:
    return sorted(run_dir.glob("checkpoint-*.safetensors"))


def _digest(meta: dict[str, str], tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
