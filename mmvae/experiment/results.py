"""What came out of the runs behind chapters 8 and 9, and of the published models: what a chapter reads, and whether the
code of today computes the same.

The runs are those of `grid.py`, a file a run in published/runs: `runs()`. The published models' numbers beside those in their
own records are in published/published.json: `published()`.
"""
import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from .. import checkpoint, evaluate, strict
from ..behaviour import Print, moved
from ..faces import HOME
from ..files import tidy
from ..train import write_atomically
from . import measure, prints, weights
from .recipe import Recipe, WHOLE

FILE, PUBLISHED = weights.FOLDER / "published.json", "python -m mmvae.experiment results --published"
RUNS = weights.FOLDER / "runs"  # every file of a run has these keys:
NUMBERS, WHO = {str: float}, {str: (float, [float])}
LIKELIHOODS = {"n": WHOLE, **dict.fromkeys(("I?", "T?", "I+T?"), {str: float})}
MEASURED = {"cross": NUMBERS, "experts": WHO}  # of a run and of a published model
RUN = {"study": str, "variant": str, "model": str, "seed": WHOLE, "people": WHOLE, "held_out": WHOLE, "generator": WHOLE,
       "settings": weights.FORM["settings"], "data": str, "test_data": str, "versions": {str: str},
       "machine": checkpoint.META["machine"], "seconds": strict.number(0), "measuring": strict.number(0),
       "behaviour": {str: [float]}, "measured": str, "reader": NUMBERS, "real_distance": strict.number(0), "n": WHOLE,
       "heldout": NUMBERS, "probes": NUMBERS, "parameters": WHOLE, **MEASURED,
       "above_floor": {"seen?": float, "unseen?": [float]}, "train": NUMBERS}  # what the file of every run has, and of some:
MORE = {"sorted?": {"latents?": {str: WHOLE}, "probes?": NUMBERS}, "likelihood?": LIKELIHOODS, "probes_of_samples?": NUMBERS,
        "verification?": NUMBERS, "effects?": {str: [float]}, "mig?": NUMBERS, "dci?": NUMBERS, "coherence?": NUMBERS}
SHOWN = {"likelihood": LIKELIHOODS, **MEASURED, "coherence": NUMBERS, "prior": NUMBERS, "sha256": str, "measured": str}


def runs(**wanted) -> list[dict]:
    """The finished runs of the grid whose record has these values: runs(study="main", model="mumo"), by their names and
    seeds. A record, beside the numbers, as `measure` names them: "study", "variant", "model", "seed", "people" (how many it
    learnt from), "held_out", "generator" (the faces' version), "settings", "data" and "test_data" (fingerprints), "versions",
    "machine", "seconds" of training and "measuring" (one thread), the ceilings "reader" (errors of the read-out) and
    "real_distance" (of a real image to the nearest other), "train" (the last row of the log), "above_floor" ({"seen": mean of
    the people learnt from, "unseen": each person's who is held out}, nats a pair, of likelihood weight 1), "behaviour", and
    "measured", of which `prints_of` says the prints. Between two records compare "above_floor", not "heldout": a CPU and a
    GPU draw other pairs, whose floors lie many nats apart.

    Raises ValueError if there are none, and for a damaged file.
    """
    found = sorted((record(path) for path in RUNS.glob("*.json")), key=lambda run: (
        run["study"], run["variant"], run["model"], run["seed"]))
    found = [run for run in found if all(run[k] == v for k, v in wanted.items())]
    if not found:
        raise ValueError(f"runs: found none with {wanted} in {RUNS}; `make results` trains, measures and writes them")
    return found


def record(path: Path) -> dict:
    """What the file of a run holds: see `runs`. Raises ValueError for a damaged one."""
    return _record(path, path.stat().st_mtime_ns)


@cache
def _record(path: Path, changed: int) -> dict:
    try:
        found = strict.check(_kept(path), RUN | MORE)
        Recipe(**found["settings"])
    except ValueError as e:
        raise ValueError(f"{path}: found a damaged file ({e}), expected what `make results` writes") from e
    return found


def _kept(path: Path) -> dict:
    """What `keep` wrote, without its digest. Raises ValueError for a damaged one."""
    found = strict.loads(strict.read(path, weights.LIMIT))
    if not isinstance(found, dict) or "digest" not in found:
        raise ValueError("digest missing")
    weights.sealed(found).pop("digest")
    return found


@cache
def prints_of(name: str) -> dict[str, Print]:
    """{measurement: print} of the code that measured runs, by the name under which they say it. Raises ValueError if its file
    is missing or damaged."""
    path = RUNS / "measured" / f"{name}.json"
    try:
        return strict.check(_kept(path), {str: {str: [(float, None)]}})
    except (OSError, ValueError) as e:
        raise ValueError(f"{path}: found none, or a damaged file ({e}), expected the prints of a run's measurements") from e


def published() -> dict[str, dict]:
    """{name: what `grid.published` says of this published model, "sha256" of the weights of which it says so, and "measured",
    as of a run}.

    Raises FileNotFoundError or ValueError for a missing or damaged file.
    """
    if not FILE.exists():
        raise FileNotFoundError(f"{FILE}: no such file; `{PUBLISHED}` measures and writes it")
    try:
        return strict.check(_kept(FILE), dict.fromkeys(weights.RECIPES, SHOWN))
    except ValueError as e:
        raise ValueError(f"{FILE}: found a damaged file ({e}), expected what `{PUBLISHED}` writes") from e


def values(runs: list[dict], *path: str) -> np.ndarray:
    """One number of each run: values(runs, "heldout", "I+T.elbo")."""
    out = []
    for run in runs:
        for key in path:
            run = run[key]
        out.append(run)
    return np.array(out, float)


def spread(numbers, digits: int = 2) -> str:
    """Mean ± standard deviation (of the sample): "0.95 ± 0.02"; one number alone has none."""
    numbers = np.asarray(numbers, float)
    text = f"{round(numbers.mean(), digits) + 0.0:,.{digits}f}"
    if len(numbers) > 1:
        text += f" ± {numbers.std(ddof=1):,.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def found(runs: list[dict]) -> int:
    """How many of these runs found the partition."""
    return sum(evaluate.partition(run["probes"], HOME)["found"] for run in runs)


# ---- writing

def keep(path: Path, record: dict):
    """Write a file of results: a line a key, six digits a number, and the digest of all of it. What a process left
    there that was killed while it wrote goes. Raises OSError, as `mmvae.fit` does, if it cannot be written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    tidy(path)
    record = json.loads(json.dumps(_rounded(record)))
    record |= {"digest": weights.digest_of(record)}
    write_atomically(path, f"{{{_lines(record, ' ', (',', ':'))}}}\n".encode())


def keep_prints(now: dict[str, Print]) -> str:
    """The name under which runs refer to what these measurements compute: it is ten kilobytes, the same for all of them. A
    file that says it within the tolerance of `mmvae.behaviour` is used, or else a new one written; see `prints_of`."""
    folder = RUNS / "measured"
    for path in sorted(folder.glob("*.json")):
        if set(before := prints_of(path.stem)) == set(now) and not prints.changed(before, now):
            return path.stem
    name = hashlib.sha256(json.dumps(_rounded(now)).encode()).hexdigest()[:12]
    keep(folder / f"{name}.json", now)
    return name


def keep_published(shown: dict[str, dict]):
    """Write these numbers of the published models, as `published` reads them."""
    measured = keep_prints(measure.computes())
    keep(FILE, {name: of | {"sha256": weights.info(name)["sha256"], "measured": measured} for name, of in shown.items()})


def _lines(of: dict, indent: str, marks: tuple[str, str]) -> str:
    return f",\n{indent}".join(f"{json.dumps(k)}: {json.dumps(_rounded(v), separators=marks)}" for k, v in of.items())


def _rounded(value):
    """Six significant digits are plenty."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


# ---- what is no longer what the code computes

def stale(only: Callable[[str], bool] = lambda name: True) -> dict[str, list[str]]:
    """The stored runs and measurements that the code of today would compute otherwise: {name: which numbers moved}.

    Names: "run MODEL-STUDY-VARIANT" and "published NAME"; "measured NAME" of what either was measured by. only: look at those
    of which this is true.
    """
    found: dict[str, list[str]] = {}
    for path in sorted(RUNS.glob("*.json")):
        if only(name := f"run {_cell(run := record(path))}"):
            found[name] = list(dict.fromkeys(found.get(name, []) + moved_in(run, only)))
    for name in weights.RECIPES:
        if only(f"published {name}"):
            found[f"published {name}"] = _moved_since(info := weights.info(name), info["measured"], only)
            found[f"published {name}"] += _shown_moved(published()[name], info, only)
    return {name: wrong for name, wrong in found.items() if wrong}


def moved_in(run: dict, only: Callable[[str], bool] = lambda name: True) -> list[str]:
    """Which numbers of the training and of the measurements of this run move with the code of today, in words; only: as of
    `stale`."""
    return _moved_since(run, _measured(run), only)


def _measured(record: dict) -> dict[str, Print]:
    """The prints of what this record was measured by."""
    return {k: v for k, v in prints_of(record["measured"]).items() if k in record or k == "reading"}


def _shown_moved(shown: dict, info: dict, only: Callable[[str], bool]) -> list[str]:
    """The same of a published model's numbers in published.json."""
    other = [] if shown["sha256"] == info["sha256"] else [f"{FILE.name} is of other weights; `{PUBLISHED}` measures these"]
    return other + _measured_moved(_measured(shown), only)


def _moved_since(run: dict, measured: dict[str, Print], only: Callable[[str], bool]) -> list[str]:
    return moved(run["behaviour"], prints.training(Recipe(**run["settings"]))) + _measured_moved(measured, only)


def _measured_moved(measured: dict[str, Print], only: Callable[[str], bool]) -> list[str]:
    return [f"measured {k}: {number}" for k, of in measured.items() if only(f"measured {k}")
            for number in moved(of, measure.computes((k,))[k])]


def _cell(run: dict) -> str:
    return f"{run['model']}-{run['study']}-{run['variant'].replace(', ', '-')}"
