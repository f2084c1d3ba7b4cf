"""What came out of the runs behind chapters 8 and 9: what a chapter reads of it, and whether it is still what the code
computes.

There are two grids. The old one, results.json, is 157 runs of dense decoders on 50 people (generator version 1), of which
chapter 9 shows the sweeps: `read()`, `select()`. The new one, a file a run in published/runs, is what `grid.py` is filling,
and chapter 8 reads its main table: `runs()`. When it is complete, chapter 9 reads it too, and the old one goes.
"""
import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from .. import evaluate, strict
from ..behaviour import Print, moved
from ..faces import HOME
from ..files import tidy
from ..train import write_atomically
from . import measure, prints, weights
from .recipe import Recipe

FILE = weights.FOLDER / "results.json"  # the old grid
RUNS = weights.FOLDER / "runs"  # the new one; every file of a run has these keys:
RUN = ("study", "variant", "model", "seed", "people", "held_out", "generator", "settings", "data", "test_data", "versions",
       "machine", "seconds", "measuring", "behaviour", "measured", "reader", "real_distance", "n", "heldout", "probes",
       "parameters", "cross", "experts", "above_floor", "train")
HEADS = "versions", "machine", "size", "reader", "real_distance", "behaviour", "published", "runs"


@cache
def read(path: str | Path = FILE) -> dict:
    """results.json, the old grid: "runs", a record a run ("study", "variant", "model", "seed", "identities", "settings",
    "seconds" of training, "train": the last row of its log, and its numbers, as `measure.everything` names them);
    "published": {name: what `grid.published` says}; "versions", "machine", "size"; "reader": errors of the read-out, and
    "real_distance" of a real image to the nearest other, the ceilings; "behaviour": {"train": {key of a recipe: print},
    "measure": {measurement: print}}, what the code that made all this computes.

    Raises FileNotFoundError, or ValueError for a damaged file.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; expected the old grid's results, which the repository has")
    try:
        found = strict.loads(strict.read(path, weights.LIMIT))
        missing = set(HEADS) - set(found)
        if missing:
            raise ValueError(f"{', '.join(sorted(missing))} missing")
    except (ValueError, TypeError) as e:
        raise ValueError(f"{path}: found a damaged file ({e}), expected the old grid's results") from e
    return found


def select(**wanted) -> list[dict]:
    """The runs of the old grid whose record has these values: select(study="main", model="mumo"). ValueError if there are
    none."""
    found = [run for run in read()["runs"] if all(run[k] == v for k, v in wanted.items())]
    if not found:
        raise ValueError(f"runs: found none with {wanted} in {FILE.name}")
    return found


def runs(**wanted) -> list[dict]:
    """The finished runs of the new grid whose record has these values: runs(study="main", model="mumo"), by their names and
    seeds. A record, beside the numbers, as `measure` names them: "study", "variant", "model", "seed", "people" (how many it
    learnt from), "held_out", "generator" (the faces' version), "settings", "data" and "test_data" (fingerprints), "versions",
    "machine", "seconds" of training and "measuring" (one thread), "reader" and "real_distance" (the ceilings, as in `read`),
    "train" (the last row of the log), "above_floor" ({"seen": mean of the people learnt from, "unseen": each person's who is
    held out}, nats a pair, of likelihood weight 1), "behaviour", and "measured", of which `prints_of` says the prints.

    Raises ValueError if there are none, and for a damaged file.
    """
    found = sorted((record(path) for path in RUNS.glob("*.json")), key=lambda run: (
        run["study"], run["variant"], run["model"], run["seed"]))
    found = [run for run in found if all(run[k] == v for k, v in wanted.items())]
    if not found:
        raise ValueError(f"runs: found none with {wanted} in {RUNS}; `make results` trains, measures and writes them")
    return found


def record(path: Path) -> dict:
    """What the file of a run of the new grid holds: see `runs`. Raises ValueError for a damaged one."""
    return _record(path, path.stat().st_mtime_ns)


@cache
def _record(path: Path, changed: int) -> dict:
    try:
        found = _kept(path)
        if missing := set(RUN) - set(found):
            raise ValueError(f"{', '.join(sorted(missing))} missing")
        Recipe(**found["settings"])
    except (ValueError, TypeError) as e:
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
    """{measurement: print} of the code that measured runs of the new grid, by the name under which they say it. Raises
    ValueError if its file is missing or damaged."""
    path = RUNS / "measured" / f"{name}.json"
    try:
        return strict.check(_kept(path), {str: {str: [(float, None)]}})
    except (OSError, ValueError) as e:
        raise ValueError(f"{path}: found none, or a damaged file ({e}), expected the prints of a run's measurements") from e


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
    """Write a file of the new grid: a line a key, six digits a number, and the digest of all of it. What a process left
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
    """Put these numbers of the published models into results.json; the rest stays, byte for byte. Raises ValueError for a
    file that has no place for them."""
    begin, end = '\n "published": {\n', '},\n "runs": [\n'
    before, _, rest = FILE.read_text().partition(begin)
    after = rest.partition(end)[2]
    if not after:
        raise ValueError(f'{FILE}: found no "published" before "runs", expected the results of the old grid')
    write_atomically(FILE, f"{before}{begin}  {_lines(shown, '  ', (', ', ': '))}{end}{after}".encode())


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

    Names: of the old grid "runs MODEL-STUDY-VARIANT" and "measured NAME", of the new one "run MODEL-STUDY-VARIANT", and
    "published NAME". only: look at those of which this is true. The old grid's heads are of another generator and cannot be
    made again, nor who reads them: "reading" is looked at in the new grid alone.
    """
    stored, found = read(), {}
    old: dict[str, list[str]] = {}  # by what they compute
    for run in stored["runs"]:
        old.setdefault(Recipe(**run["settings"]).key, []).append(f"runs {_cell(run)}")
    for key, names in old.items():
        for name in filter(only, dict.fromkeys(names)):
            found[name] = _moved(stored["behaviour"]["train"].get(key), lambda: prints.training(Recipe.from_key(key)))
    for path in sorted(RUNS.glob("*.json")):
        if only(name := f"run {_cell(run := record(path))}"):
            found[name] = list(dict.fromkeys(found.get(name, []) + moved_in(run, only)))
    for name in measure.MEASURES:
        if name != "reading" and only(f"measured {name}"):
            before = stored["behaviour"]["measure"].get(name)
            found[f"measured {name}"] = _moved(before, lambda: measure.computes((name,), dense=True)[name])
    for name in weights.RECIPES:
        if only(f"published {name}"):
            found[f"published {name}"] = _moved_since(weights.info(name), weights.info(name)["measured"], only)
    return {name: wrong for name, wrong in found.items() if wrong}


def moved_in(run: dict, only: Callable[[str], bool] = lambda name: True) -> list[str]:
    """Which numbers of the training and of the measurements of this run of the new grid move with the code of today, in
    words; only: as of `stale`."""
    return _moved_since(run, {k: v for k, v in prints_of(run["measured"]).items() if k in run or k == "reading"}, only)


def _moved_since(run: dict, measured: dict[str, dict], only: Callable[[str], bool]) -> list[str]:
    return _moved(run["behaviour"], lambda: prints.training(Recipe(**run["settings"]))) + [
        f"measured {k}: {number}" for k, of in measured.items() if only(f"measured {k}")
        for number in _moved(of, lambda: measure.computes((k,))[k])]


def _cell(run: dict) -> str:
    return f"{run['model']}-{run['study']}-{run['variant'].replace(', ', '-')}"


def _moved(before: dict | None, now: Callable[[], dict]) -> list[str]:
    return ["found no print of what it computed"] if before is None else moved(before, now())
