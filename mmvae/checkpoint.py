"""What a run leaves in its folder: settings.json, log.csv, and checkpoints that are whole or absent.

A checkpoint is one safetensors file, checkpoint-ITERATION.safetensors, with JSON in its metadata: nothing unpickles.
Its SHA-256 covers every tensor and all that the metadata say, so that a file which was cut short, damaged, or written
by another run is named and refused, and the one before it is used.
"""
import hashlib
import json
import platform
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

from . import behaviour
from .files import checkpoints_in as _checkpoints, write_atomically
from .observed import joined


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
        raise ValueError(f"not a whole checkpoint of mmvae.fit ({type(e).__name__}: {e})") from e
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
    """settings.json: "settings", "model", "data", "versions", "machine", "behaviour". Raises FileNotFoundError without one,
    ValueError if damaged."""
    path = run_dir / "settings.json"
    if not path.is_file():
        raise FileNotFoundError(f"{run_dir}: no settings.json; expected a folder that `mmvae.fit` wrote")
    try:
        record = json.loads(path.read_bytes())
        if not all(isinstance(record[k], t) for k, t in (("settings", dict), ("model", dict), ("data", str),
                                                              ("versions", dict), ("behaviour", dict))):
            raise ValueError("settings, model, data, versions or behaviour are not what they should be")
        return record
    except (ValueError, KeyError, TypeError) as e:
        raise ValueError(f"{path}: damaged ({type(e).__name__}: {e}); without it, training goes on if it is started "
                         "with the settings of the checkpoints") from e


def about(model: nn.Module) -> dict:
    """What a model is, as a run's settings.json says it."""
    def named(likelihood) -> str:
        given = getattr(likelihood, "given", None)
        return type(likelihood).__name__ + ("" if given is None else f"({given.exp().item():.6g})")

    options = {k: v for k, v in vars(model).items()
               if isinstance(v, bool | int | float | str) and k[0] != "_" and k != "training"}
    return {"class": type(model).__name__, "modalities": {m: list(of.shape or ()) for m, of in model.modalities.items()},
            "likelihoods": {m: named(model.likelihood(m)) for m in model.modalities}, "blocks": dict(model.blocks),
            "subsets": [joined(s) for s in model.subsets], "options": options}


def versions(device: str | torch.device = "cpu") -> dict[str, str]:
    """What a number in the book was computed with."""
    gpu = torch.device(device).type == "cuda"
    return {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__,
            "device": torch.cuda.get_device_name(device) if gpu else f"{platform.machine()} CPU"}


def load_run(run_dir: str | Path, model: nn.Module) -> nn.Module:
    """Give a model, built as the run's was, the weights of the newest whole checkpoint in run_dir; in eval mode.

    Raises FileNotFoundError if there is none yet, ValueError if there are but none can be used, or if the run is of another
    model.
    """
    run_dir = Path(run_dir)
    run = settings_of(run_dir)
    if run["model"].keys() == about(model).keys() and (changed := changes(run["model"], about(model))):
        raise ValueError(f"{run_dir}: holds a run of another model ({changed})")
    found = newest(run_dir, run, model.state_dict())
    if found is None:
        raise FileNotFoundError(f"{run_dir}: no checkpoint yet; fit goes on from here")
    model.load_state_dict(found.part("model"))
    return model.eval()


def refuse_other(run_dir: Path, run: dict, now: dict[str, list[float]]):
    """Refuse a folder that holds another run, or one whose code computed other numbers than it does `now`, as
    `behaviour.of_training` says them: ValueError with the difference."""
    if not (run_dir / "settings.json").exists():
        return
    found = settings_of(run_dir)
    if changed := difference(found, run):
        raise ValueError(f"{run_dir}: holds a run with other settings, model or data ({changed})")
    if wrong := behaviour.moved(found["behaviour"], now):
        raise ValueError(f"{run_dir}: holds a run of code that computed something else ({'; '.join(wrong[:3])}); "
                         "train anew in another folder")


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


def difference(found: dict, asked: dict) -> str:
    """What differs between two runs, {"settings": {}, "model": {}, "data": fingerprint}: "batch: found 8, asked for 9"."""
    return changes(*(run.get("settings", {}) | run.get("model", {}) | {"data": run.get("data", "")[:12]}
                     for run in (found, asked)))


def changes(found: dict, asked: dict) -> str:
    """What differs between two dictionaries, in words."""
    return "; ".join(f"{k}: found {found.get(k)}, asked for {asked.get(k)}" for k in asked | found
                     if found.get(k) != asked.get(k))


def _digest(meta: dict[str, str], tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(json.dumps(meta, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
