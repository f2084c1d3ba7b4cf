"""What a run leaves in its folder: settings.json, log.csv, and checkpoints that are whole or absent.

A checkpoint is one safetensors file, checkpoint-ITERATION.safetensors, with JSON in its metadata: nothing unpickles.
Its SHA-256 covers every tensor and all that the metadata say, so that a file which was cut short, damaged, or written
by another run is named and refused, and the one before it is used.
"""
import hashlib
import json
import os
import platform
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from safetensors.torch import save
from torch import Tensor, nn

from . import behaviour, strict, terms
from .files import checkpoints_in as _checkpoints, write_atomically
from .observed import joined

LIMIT = 2 ** 32  # bytes of a checkpoint, where it is not known what it should hold
MOMENTS = "step", "exp_avg", "exp_avg_sq"  # of Adam
RUN = {"settings": dict, "model": dict, "data": str}
META = {"iteration": range(2 ** 53), "seconds": strict.number(0), "run": RUN,
        "machine": {str: (str, bool, int, float, [int])}}
COUNT, AMOUNT = range(2 ** 63), strict.number(0)
TRAINING = dict.fromkeys(("iterations", "batch", "warmup", "seed", "log_every", "checkpoint_every"), COUNT) | {
    "learning_rate": AMOUNT, "clip": AMOUNT, "weight_decay": float, "weight": (AMOUNT, {str: AMOUNT}), "cross": AMOUNT,
    "cross_until": (COUNT, None), "extra?": ({str: AMOUNT}, None), "extra_until?": (COUNT, None)}  # as `train.Settings`
OPTIONS = {str: (bool, str, complex, [[str]])}
MODEL = ({"name": str, "size": COUNT, "options": OPTIONS},  # of a recipe, or as `about` says it
         {"class": str, "modalities": {str: [COUNT]}, "likelihoods": {str: str}, "blocks": {str: COUNT}, "subsets": [str],
          "options": OPTIONS})
SETTINGS = {"settings": TRAINING, "model": MODEL, "data": str, "versions": {str: str}, "machine?": META["machine"],
            "behaviour": {str: [complex]}}  # of settings.json


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
    found = _unpacked(data)
    if changed := difference(found.run, run):
        raise ValueError(f"a checkpoint of another run ({changed})")
    theirs = {k: tuple(v.shape) for k, v in found.part("model").items()}
    if changed := changes(theirs, {k: tuple(v.shape) for k, v in weights.items()}):
        raise ValueError(f"a checkpoint of another model ({changed})")
    strict.same_kind(found.part("model"), {k: v.dtype for k, v in weights.items()})
    return found


def _read(path: Path, limit: int) -> bytes:
    try:
        return strict.read(path, limit, strict.begins)
    except ValueError as e:
        raise ValueError(f"not a whole checkpoint of mmvae.fit ({e})") from e


def _unpacked(data: bytes) -> Checkpoint:
    """A checkpoint of any run; raises ValueError for what is none."""
    try:
        meta, tensors = strict.tensors(data)
        digest = meta.pop("sha256", None)
        told = strict.check({k: strict.loads(v, finite=False) for k, v in meta.items()}, META)
    except ValueError as e:
        raise ValueError(f"not a whole checkpoint of mmvae.fit ({e})") from e
    if digest != _digest(meta, tensors):
        raise ValueError("not a whole checkpoint: its content is not that of its SHA-256")
    last = told["run"]["settings"].get("iterations", told["iteration"])
    if isinstance(last, int) and told["iteration"] > last:
        raise ValueError(f"a checkpoint after {told['iteration']} iterations of {last}")
    return Checkpoint(**told, tensors=tensors)


def keep(run_dir: Path, checkpoint: Checkpoint):
    """Write a checkpoint, then remove all but it and the one before it."""
    path = named(run_dir, checkpoint.iteration)
    write_atomically(path, pack(checkpoint))
    for old in [p for p in _checkpoints(run_dir) if p.name <= path.name][:-2]:
        old.unlink()


def named(run_dir: Path, iteration: int) -> Path:
    """The file of the checkpoint after so many iterations."""
    return run_dir / f"checkpoint-{iteration:08d}.safetensors"


def newest(run_dir: Path, run: dict, weights: dict[str, Tensor]) -> Checkpoint | None:
    """The newest checkpoint that can be used, or None in a folder that has none; those refused are named on stderr.

    Arguments as of `unpack`. Raises ValueError if there are checkpoints, but not one that can be used.
    """
    paths = _checkpoints(run_dir)[::-1]
    limit = 16 * strict.MIB + 4 * sum(v.nbytes for v in weights.values())  # they, two moments of Adam, and the rest
    for path in paths:
        try:
            found = unpack(_read(path, limit), run, weights)
            if path != named(run_dir, found.iteration):
                raise ValueError(f"it is that of iteration {found.iteration}")
            return found
        except (ValueError, OSError) as e:
            print(f"{path}: refused: {e}", file=sys.stderr)
    if paths:
        raise ValueError(f"{run_dir}: none of its checkpoints can be used ({', '.join(p.name for p in paths)}); "
                         "to train from the start, move them away or name another folder")
    return None


def settings_of(run_dir: Path) -> dict:
    """settings.json: "settings", "model", "data", "versions", "machine", "behaviour". A damaged one is named on stderr, and
    the newest whole checkpoint says the same, all but the behaviour, which is then empty. Raises FileNotFoundError without
    one, ValueError if it is damaged and there is no such checkpoint."""
    path = run_dir / "settings.json"
    if not path.exists():
        raise FileNotFoundError(f"{run_dir}: no settings.json; expected a folder that `mmvae.fit` wrote")
    try:
        return strict.check(strict.loads(strict.read(path, 16 * strict.MIB), finite=False), SETTINGS)
    except ValueError as e:
        for kept in _checkpoints(run_dir)[::-1]:
            try:
                found = _unpacked(_read(kept, LIMIT))
            except (ValueError, OSError):
                continue
            print(f"{path}: damaged ({e}); {kept.name} says the same", file=sys.stderr)
            known = versions()
            return found.run | {"versions": {k: v for k, v in found.machine.items() if k in known}, "behaviour": {},
                                "machine": {k: v for k, v in found.machine.items() if k not in known}}
        raise ValueError(f"{path}: damaged ({e}), and no whole checkpoint says the same; move it away to train anew") from e


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
    terms.prepare(model, run["settings"].get("extra"))
    if run["model"].keys() == about(model).keys() and (changed := changes(run["model"], about(model))):
        raise ValueError(f"{run_dir}: holds a run of another model ({changed})")
    found = newest(run_dir, run, model.state_dict())
    if found is None:
        raise FileNotFoundError(f"{run_dir}: no checkpoint yet; fit goes on from here")
    model.load_state_dict(found.part("model"))
    return model.eval()


def refuse_other(run_dir: Path, run: dict, now: dict[str, list[float]]) -> bool:
    """Refuse a folder that holds another run, or one whose code computed other numbers than it does `now`, as
    `behaviour.of_training` says them: ValueError with the difference. Else whether there is a whole settings.json."""
    if not (run_dir / "settings.json").exists():
        return False
    found = settings_of(run_dir)
    if changed := difference(found, run):
        raise ValueError(f"{run_dir}: holds a run with other settings, model or data ({changed})")
    if found["behaviour"] and (wrong := behaviour.moved(found["behaviour"], now)):
        raise ValueError(f"{run_dir}: holds a run of code that computed something else ({'; '.join(wrong[:3])}); "
                         "train anew in another folder")
    return bool(found["behaviour"])


def state_of(model: nn.Module, optimiser: torch.optim.Optimizer, generator: torch.Generator) -> dict[str, Tensor]:
    """A checkpoint's tensors: "model.*" weights, "adam.*" their moments, "random.*" the states of what the models'
    noise is drawn from, the device's own generator, and of the `generator` of the batches.
    """
    tensors = {f"model.{k}": v for k, v in model.state_dict().items()}
    for i, moments in optimiser.state_dict()["state"].items():
        tensors |= {f"adam.{i}.{k}": v for k, v in moments.items()}
    return tensors | {"random.noise": _noise(generator).get_state(), "random.batches": generator.get_state()}


def restore(found: Checkpoint, model: nn.Module, optimiser: torch.optim.Optimizer, generator: torch.Generator):
    """The reverse of `state_of`. On another kind of device random states do not fit: it goes on with new numbers. Raises
    ValueError for moments of other shapes than the weights', and for states that are none."""
    shapes = [{k: () if k == "step" else tuple(p.shape) for k in MOMENTS} for p in model.parameters()]
    expected = {f"{i}.{k}": shape for i, of in enumerate(shapes) for k, shape in of.items()}
    theirs, random = found.part("adam"), found.part("random")
    for key in dict.fromkeys([*theirs, *(f"{k.split('.')[0]}.{name}" for k in theirs for name in MOMENTS)]):
        value = theirs.get(key)
        if value is None or expected.get(key) != value.shape or not (value.is_floating_point() and value.isfinite().all()):
            raise ValueError(f"adam.{key}: found {'none' if value is None else tuple(value.shape)}, expected finite numbers "
                             f"of shape {expected.get(key, 'none')}, as the model's weights; move this checkpoint away")
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in theirs.items():
        i, name = key.split(".")
        state.setdefault(int(i), {})[name] = value
    model.load_state_dict(found.part("model"))
    optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
    for name, ours in (("noise", _noise(generator)), ("batches", generator)):
        value = random.get(name, torch.empty(0))
        if value.dtype != torch.uint8 or value.dim() != 1:
            raise ValueError(f"random.{name}: found {value.dtype} of shape {tuple(value.shape)}, expected bytes")
        if value.shape == ours.get_state().shape:
            try:
                ours.set_state(value)
            except RuntimeError as e:
                raise ValueError(f"random.{name}: found bytes that are no state of a random generator ({e})") from e
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
    if os.path.lexists(run_dir) and not run_dir.is_dir():
        raise NotADirectoryError(f"{run_dir}: found a file, expected a folder, or none")
    run_dir.mkdir(parents=True, exist_ok=True)
    strict.replaceable(run_dir / ".lock")
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
