"""The published weights: all six models, trained to the end of the recipe, in this package's folder `published`, and two
of them with the cross-reconstruction of chapter 9 in their loss, `mumo-cross` and `poe-v2-cross`.

    model = mmvae.load("mumo")                   python -m mmvae.experiment publish [NAME ...]

loads one; trains, measures and writes them anew. A model is two files. NAME.safetensors: its weights, in half
precision. NAME.json: "settings", its recipe (seed and iterations among them), "data" and "test_data" (the
fingerprints of the pairs it learnt from and was measured on), "versions" (of the software, and the device), "machine"
(threads, processes, compilation), "seconds" of the training, "log" (its log in at most 100 rows), "n", "heldout",
"probes" and "parameters" (what `measure.numbers` says of the weights as published), "shown" (`measure.repeatable` on
the people whom the cpu profile renders, the first of those held out), "people" (the distance to the floor of each, seen and
held out), "behaviour" and "measured" (what the code of its training, and of these measurements, computes: see `prints`),
"bytes" and "sha256" of the weights, and "digest", of all these.
"""
import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save as to_bytes

from .. import checkpoint, strict
from ..files import tidy
from ..models import MultiModalVAE
from ..train import load_run, read_log, write_atomically
from .recipe import FORM as SETTINGS, OPTIONS, Recipe, WHOLE
from .table import FIRST

FOLDER = Path(__file__).parent / "published"
COMMAND = "python -m mmvae.experiment publish"
LIMIT = 16 * strict.MIB  # bytes of a record, and of its weights
NUMBERS, PRINT, PERSONS = {str: float}, {str: [float]}, {"value": [int], "above_floor": [float], "n": [int]}
FORM = {"settings": SETTINGS | {"options": OPTIONS}, "data": str, "test_data": str, "versions": {str: str},
        "machine": checkpoint.META["machine"], "seconds": strict.number(0), "log": PRINT, "n": WHOLE, "heldout": NUMBERS,
        "probes": NUMBERS, "parameters": WHOLE, "shown": {"heldout": NUMBERS, "probes": NUMBERS},
        "people": {"seen": PERSONS, "unseen": PERSONS},
        "behaviour": PRINT, "measured": {str: PRINT}, "bytes": range(1, LIMIT), "sha256": str, "digest": str}
KEYS = tuple(FORM)
RECIPES = {name: (name, {}) for name in FIRST} | {  # name: its model, and what its settings change
    "mumo-cross": ("mumo", {"cross": 1.0, "iterations": 30_000}), "poe-v2-cross": ("poe-v2", {"cross": 1.0})}
TOLERANCE = 0.5  # nats per pair: how far a held-out number may move on another CPU, with other versions
LOG_ROWS = 100


def info(name: str) -> dict:
    """The record of a published model: NAME.json, keys as at the top of this file.

    Raises ValueError for an unknown name or a damaged record, FileNotFoundError for one that is not there.
    """
    if name not in RECIPES:
        raise ValueError(f'name: found "{name}", expected one of {", ".join(RECIPES)}')
    path = _existing(FOLDER / f"{name}.json")
    record = read_record(path, FORM, f"{COMMAND} {name}", lambda record: Recipe(**record["settings"]))
    if name != (found := named(Recipe(**record["settings"]))):
        raise ValueError(f'{path}: found the record of "{found}", expected that of "{name}"')
    return record


def read_record(path: Path, form: dict, command: str, sound: Callable[[dict], object] = lambda record: None) -> dict:
    """A record of this form, in a file that `write_record` has written and `command` writes anew. sound: raises ValueError
    for what else is wrong with it. Raises FileNotFoundError, or ValueError for a damaged one."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; `{command}` measures and writes it")
    try:
        record = sealed(strict.check(strict.loads(strict.read(path, LIMIT)), form))
        sound(record)
    except ValueError as error:
        raise ValueError(f"{path}: found a damaged record ({error}), expected what `{command}` writes") from error
    return record


def write_record(path: Path, record: dict) -> dict:
    """Write a record with its digest; returns it as the file has it."""
    record = seal(record)
    write_atomically(path, text_of(record).encode())
    return record


def seal(record: dict) -> dict:
    """A record as a file gives it back, with its "digest". Raises ValueError for a number that is not finite."""
    record = strict.loads(json.dumps(record))
    return record | {"digest": digest_of(record)}


def digest_of(record: dict) -> str:
    """The SHA-256 of what a record says beside it, whatever the order of its keys."""
    return hashlib.sha256(json.dumps({k: v for k, v in record.items() if k != "digest"}, sort_keys=True).encode()).hexdigest()


def sealed(record: dict) -> dict:
    """The record, if what it says is that of its "digest"; else ValueError."""
    if record["digest"] != digest_of(record):
        raise ValueError("its content is not that of its digest")
    return record


def named(recipe: Recipe) -> str:
    """The name of a published model of this recipe."""
    return recipe.model + ("-cross" if recipe.cross else "")


def load(name: str | Path, model: MultiModalVAE | None = None, device: str | torch.device | None = None) -> MultiModalVAE:
    """A trained model, in eval mode: a published one by its name, or that of a run by its folder.

    name: a key of `RECIPES`, one of the experiment's six models or with "-cross" after it: its weights' SHA-256, names and
    shapes are checked, they become float32, and one line says what it is. Or the folder of a run of `mmvae.fit`, with a model
    that was built as the run's was; one of the book's models, trained by a recipe, is built from it. Nothing is unpickled.
    device: default the CPU, or where the model that is handed over is.
    Raises FileNotFoundError or ValueError naming the file, what was found and what was expected.
    """
    if model is None and name in RECIPES:
        return _published(name).to(device or "cpu").eval()
    if not Path(name).is_dir():
        raise ValueError(f'name: found "{name}", expected one of {", ".join(RECIPES)}, or the folder of a run of mmvae.fit')
    if model is None:
        try:
            model = Recipe.of(checkpoint.settings_of(Path(name))).build()
        except ValueError as e:
            raise ValueError(f"{name}: {e}; hand over a model that is built as the run's was: mmvae.load({str(name)!r}, "
                             "model)") from e
    model = load_run(name, model)
    return model if device is None else model.to(device)


def _published(name: str) -> MultiModalVAE:
    record = info(name)
    path = _existing(FOLDER / f"{name}.safetensors")
    content = strict.read(path, LIMIT)
    found, expected = hashlib.sha256(content).hexdigest(), record["sha256"]
    if found != expected:
        raise ValueError(f"{path}: truncated or replaced: found {len(content):,} bytes with SHA-256 {found}, "
                         f"expected {record['bytes']:,} bytes with {expected}, as {name}.json says")
    try:
        tensors = strict.tensors(content)[1]
    except ValueError as e:
        raise ValueError(f"{path}: not a safetensors file ({e})") from e
    recipe = Recipe(**record["settings"])
    model = recipe.build()
    theirs, ours = ({k: tuple(v.shape) for k, v in weights.items()} for weights in (tensors, model.state_dict()))
    wrong = [f"{k}: found {theirs.get(k, 'none')}, expected {ours.get(k, 'none')}"
             for k in ours | theirs if ours.get(k) != theirs.get(k)]
    if wrong:
        raise ValueError(f"{path}: weights of other networks than this version's; {len(wrong)} differ, among them "
                         f"{'; '.join(wrong[:3])}")
    try:
        strict.same_kind(tensors, dict.fromkeys(tensors, torch.float16))
    except ValueError as e:
        raise ValueError(f"{path}: {e}") from e
    model.load_state_dict({k: v.float() for k, v in tensors.items()})
    print(f"{name}: published, {recipe.size}x{recipe.size}, {recipe.iterations:,} iterations, seed {recipe.seed}; "
          f"held-out ELBO {{I,T}} {record['heldout']['I+T.elbo']:,.1f} nats")  # as wide as a page of the book
    return model


def publish(run_dir: str | Path, train, test, n: int = 4096, folder: str | Path | None = None, shown=None) -> dict:
    """Write the two files of a finished run of a recipe into `folder` (default: the package's); the record.

    train, test: the `Pairs` of both splits; shown: those that a reader has of the second, default all. The numbers are those
    of the weights after rounding to half precision, on n pairs. The weights are written first: whatever stops this in between
    leaves a hash that does not match, never a wrong model that loads. Raises ValueError for an unfinished run, one on other
    data than `train`, or weights that half precision cannot hold.
    """
    from . import measure  # needs scikit-learn; a reader who loads does not wait for it
    run_dir, folder = Path(run_dir), Path(folder or FOLDER)
    record, log = checkpoint.settings_of(run_dir), read_log(run_dir)
    recipe = Recipe.of(record)
    if log["iteration"][-1] != recipe.iterations:
        raise ValueError(f"{run_dir}: found {log['iteration'][-1]:.0f} iterations, expected {recipe.iterations}")
    if record["data"] != train.fingerprint:
        raise ValueError(f"{run_dir}: found a run on data {record['data'][:12]}, expected {train.fingerprint[:12]}")
    if not record["behaviour"]:
        raise ValueError(f"{run_dir}: found a damaged settings.json, expected a whole one; train its last iterations again")
    model = load_run(run_dir, recipe.build())
    half = {k: v.half() for k, v in model.state_dict().items()}
    if wrong := [k for k, v in half.items() if not v.isfinite().all()]:
        raise ValueError(f"{run_dir}: found weights in {', '.join(wrong)} that half precision cannot hold")
    model.load_state_dict({k: v.float() for k, v in half.items()})
    content = to_bytes(half)
    record = recipe.head(record) | {
        "test_data": test.fingerprint, "seconds": float(log["seconds"][-1]), "log": _thin(log),
        **measure.numbers(model, train, test, recipe.weight, n), "people": measure.by_person(model, train, test, n),
        "shown": measure.repeatable(model, shown or test, recipe.weight, n),
        "measured": measure.computes(("heldout", "probes")),
        "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    name = named(recipe)
    folder.mkdir(parents=True, exist_ok=True)
    record = seal(record)
    for path in (folder / f"{name}.safetensors", folder / f"{name}.json"):
        tidy(path)  # what one left that was killed while it wrote
    write_atomically(folder / f"{name}.safetensors", content)
    write_atomically(folder / f"{name}.json", text_of(record).encode())
    return record


def text_of(record: dict) -> str:
    """A record as its file has it: a line a list."""
    return re.sub(r"\[[^\[\]]*\]", lambda row: " ".join(row[0].split()), json.dumps(record, indent=1)) + "\n"


def _existing(path: Path) -> Path:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; `{COMMAND} {path.stem}` trains and writes it")
    return path


def _thin(log: dict[str, np.ndarray]) -> dict[str, list[float]]:
    """A log in at most 100 rows: "iteration" and "seconds" at the end of each, the other columns its mean."""
    steps = np.diff(log["iteration"], prepend=0)  # what each row is the mean of
    parts = np.array_split(np.arange(len(steps)), min(LOG_ROWS, len(steps)))
    thin = {k: [float(v[part[-1]]) if k in ("iteration", "seconds") else np.average(v[part], weights=steps[part])
                for part in parts] for k, v in log.items()}
    return {k: [round(value, 3) for value in v] for k, v in thin.items()}
