"""What came out of the grid of runs behind chapters 8 and 9 (`grid.py`): what a chapter reads of it, and whether it is still
what the code computes.
"""
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from .. import evaluate
from ..behaviour import moved
from ..faces import HOME
from . import measure, prints, weights
from .recipe import Recipe

FILE = weights.FOLDER / "results.json"
HEADS = "versions", "machine", "size", "reader", "real_distance", "behaviour", "published", "runs"


@cache
def read(path: str | Path = FILE) -> dict:
    """results.json: "runs", a record a run ("study", "variant", "model", "seed", "identities", "settings", "seconds" of
    training, "train": the last row of its log, and its numbers, as `measure.everything` names them); "published": {name: what
    `published` says}; "versions", "machine", "size"; "reader": errors of the read-out, and "real_distance" of a real image to
    the nearest other, the ceilings; "behaviour": {"train": {key of a recipe: print}, "measure": {measurement: print}}, what
    the code that made all this computes.

    Raises FileNotFoundError, or ValueError for a damaged file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `make results` computes and writes it")
    try:
        found = json.loads(path.read_bytes())
        missing = set(HEADS) - set(found)
        if missing:
            raise ValueError(f"{', '.join(sorted(missing))} missing")
    except (ValueError, TypeError) as e:
        raise ValueError(f"{path}: found a damaged file ({e}), expected what `make results` writes") from e
    return found


def select(**wanted) -> list[dict]:
    """The runs whose record has these values: select(study="main", model="mumo"). ValueError if there are none."""
    found = [run for run in read()["runs"] if all(run[k] == v for k, v in wanted.items())]
    if not found:
        raise ValueError(f"runs: found none with {wanted} in {FILE.name}")
    return found


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


# ---- what is no longer what the code computes

def stale(only: Callable[[str], bool] = lambda name: True) -> dict[str, list[str]]:
    """The stored runs and measurements that the code of today would compute otherwise: {name: which numbers moved}.

    Names: "runs MODEL-STUDY-VARIANT", "measured NAME" and "published NAME". only: look at those of which this is true.
    """
    stored, found = read(), {}
    runs: dict[str, list[str]] = {}  # by what they compute
    for run in stored["runs"]:
        key = Recipe(**run["settings"]).key
        runs.setdefault(key, []).append(f"runs {run['model']}-{run['study']}-{run['variant'].replace(', ', '-')}")
    for key, names in runs.items():
        for name in filter(only, dict.fromkeys(names)):
            found[name] = _moved(stored["behaviour"]["train"].get(key), lambda: prints.training(Recipe.from_key(key)))
    for name in measure.MEASURES:
        if only(f"measured {name}"):
            before = stored["behaviour"]["measure"].get(name)
            found[f"measured {name}"] = _moved(before, lambda: measure.computes((name,))[name])
    for name in weights.RECIPES:
        if only(f"published {name}"):
            info = weights.info(name)
            found[f"published {name}"] = _moved(info["behaviour"], lambda: prints.training(Recipe(**info["settings"]))) + [
                f"measured {k}: {number}" for k, of in info["measured"].items() if only(f"measured {k}")
                for number in _moved(of, lambda: measure.computes((k,))[k])]
    return {name: wrong for name, wrong in found.items() if wrong}


def _moved(before: dict | None, now: Callable[[], dict]) -> list[str]:
    return ["found no print of what it computed"] if before is None else moved(before, now())
