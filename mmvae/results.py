"""The grid of runs behind chapters 8 and 9: which they are, and what came out of them.

    python -m mmvae.results [--jobs 2]           (make results)

trains and measures every run that the build folder does not have, side by side, and writes `published/results.json`.
Stop it at any time: the same command goes on where it was. A chapter reads the numbers by `results.read()`.
"""
import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from . import checkpoint, data, evaluate, gaussian, likelihood, models, nets, probes, profiles, synthesis, train, weights
from .data import Pairs
from .train import Settings, write_atomically

SIZE = 32  # pixels a side
LONG, SHORT = 10_000, 3_000  # iterations of the main table, and of a study that compares many variants
FIVE, THREE, TWO = range(5), range(3), range(2)  # seeds
BOTH = "mumo", "poe-v2"
TRAINED_BY = gaussian, nets, models, data, checkpoint, train
MEASURED_BY = likelihood, probes, synthesis, evaluate
CODE = hashlib.sha256(b"".join(Path(m.__file__).read_bytes() for m in MEASURED_BY)).hexdigest()[:12]  # as imported
FILE = weights.FOLDER / "results.json"


@dataclass(frozen=True)
class Run:
    """One training of the grid: its settings, the identities that it learns from, and what it is to show."""
    study: str
    variant: str
    settings: Settings
    identities: int = 50

    @property
    def name(self) -> str:
        return f"{self.settings.model}-{self.study}-{self.variant.replace(', ', '-')}-{self.settings.seed}"

    @property
    def folder(self) -> Path:
        """Under a hash of everything that the run is a function of."""
        words = f"{sorted(asdict(self.settings).items())} {self.identities}"
        folder = profiles.build_folder() / "results"
        return folder / f"{self.name}-{profiles._digest(words, *TRAINED_BY)[:12]}"


def _variants():
    """(study, variant, model, seeds, identities, changes of the settings), the most telling first."""
    for model in models.MODELS:
        yield "main", "plain", model, FIVE, 50, {"iterations": LONG}
    for model in BOTH:
        yield "base", "plain", model, FIVE, 50, {}
    for model in BOTH:
        yield "cross", "warm-up", model, FIVE, 50, {"cross": 1.0, "cross_until": 1000}
        yield "cross", "throughout", model, FIVE, 50, {"cross": 1.0}
    yield "length", "40000", "mumo", (4,), 50, {"iterations": 40_000}  # the seed that fails in the main table
    for shared in (2, 8, 3, 6, 4, 7):
        for model in BOTH:
            yield "shared", f"{shared}", model, THREE, 50, {"options": {"shared": shared}}
    yield "marginals", "none", "poe-v1", FIVE, 50, {}
    yield "marginals", "I", "poe-v2", FIVE, 50, {"options": {"subsets": ["I", "IT"]}}
    yield "marginals", "T", "poe-v2", FIVE, 50, {"options": {"subsets": ["T", "IT"]}}
    yield "prior", "inside", "poe-v2", FIVE, 50, {"options": {"single_prior": True}}
    for private in (1, 3, 5, 4):
        for model in BOTH:
            yield "private", f"{private}", model, TWO, 50, {"options": {"private": private}}
    for weight in (16.0, 1.0):  # 4 / beta at this size
        for shared in (5, 8):
            for model in BOTH:
                yield "weight", f"{weight:g}, {shared}", model, TWO, 50, {
                    "weight": weight, "options": {"shared": shared}}
    for shared in (5, 8):
        for model in BOTH:
            yield "identities", f"10, {shared}", model, TWO, 10, {"options": {"shared": shared}}


def grid() -> list[Run]:
    """All runs, those of the main table first."""
    runs = []
    for study, variant, model, seeds, identities, changes in _variants():
        for seed in seeds:
            changes = {"size": SIZE, "iterations": SHORT} | changes
            if changes.get("options", {}).get("shared") == 5:
                changes = {k: v for k, v in changes.items() if k != "options"}
            runs.append(Run(study, variant, Settings(model, seed=seed, **changes), identities))
    return runs


# ---- the work

def _pairs(split: str, identities: int | None = None, size: int = SIZE, made: dict = {}) -> Pairs:  # noqa: B006
    if (split, identities, size) not in made:
        file = profiles.profile("cpu").data_file
        made[split, identities, size] = Pairs(file, split, size=size, identities=identities)
    return made[split, identities, size]


def _measured(run: Run) -> dict | None:
    """The numbers of a run, if the build folder has them, of this version's measuring code."""
    path = run.folder / "metrics.json"
    record = json.loads(path.read_bytes()) if path.exists() else {}
    return record if record.get("measured_by") == CODE else None


def _work(run: Run):
    """Train a run, or go on with it, and measure it: the main table's in every way, the others in brief."""
    torch.set_num_threads(1)
    if _measured(run):
        return
    train_on, test = _pairs("train", run.identities), _pairs("test")
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    model = train.fit(run.settings, train_on, run.folder, progress=False)
    who = evaluate.judge(_pairs("train", 50), test, profiles.build_folder(), progress=False)
    record = json.loads((run.folder / "settings.json").read_text())
    log = {k: float(v[-1]) for k, v in train.read_log(run.folder).items()}  # its last row
    record |= {"measured_by": CODE, "seconds": log["seconds"]}
    record |= _numbers(model, train_on, test, who, run.settings.weight, thorough=run.study == "main")
    record["train"] = {k: v for k, v in log.items() if k not in ("iteration", "seconds")}
    write_atomically(run.folder / "metrics.json", json.dumps(record).encode())


def _numbers(model, train_on: Pairs, test: Pairs, who: synthesis.Judge, weight: float, thorough: bool) -> dict:
    if thorough:
        return evaluate.everything(model, train_on, test, weight, who, progress=False)
    numbers = evaluate.numbers(model, train_on, test, weight, 2048, subsets=("IT",))
    return numbers | {"cross": synthesis.cross_modal(model, who, 256), "experts": synthesis.experts(model, test, 2048)}


def published(model, pairs: tuple[Pairs, Pairs], who: synthesis.Judge | None) -> dict:
    """Numbers of a published model beside those in its own record (`mmvae.weights.info`): "likelihood", K to 100, and
    "experts", as `mmvae.evaluate.everything` has them; with a judge also "cross" and "coherence".
    """
    found = {"likelihood": evaluate.likelihoods(model, pairs[1], 1.0, evaluate.LIKELIHOOD_PAIRS, evaluate.SAMPLES[:3]),
             "experts": synthesis.experts(model, pairs[1])}
    if who:
        found |= {"cross": synthesis.cross_modal(model, who), "coherence": synthesis.joint_coherence(model, who)}
    return found


def _publish(name: str) -> dict:
    torch.set_num_threads(1)
    path, info = profiles.build_folder() / "results" / f"published-{name}.json", weights.info(name)
    key = f"{CODE} {info['sha256']}"
    if not path.exists() or json.loads(path.read_bytes())["key"] != key:
        pairs = _pairs("train", 50, info["settings"]["size"]), _pairs("test", None, info["settings"]["size"])
        who = evaluate.judge(*pairs, profiles.build_folder(), progress=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        record = {"key": key, "numbers": published(weights.load(name), pairs, who)}
        write_atomically(path, json.dumps(record).encode())
    return json.loads(path.read_bytes())["numbers"]


def _die_with_parent():
    """No worker outlives the command, however that ends."""
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _rounded(value):
    """Six significant digits are plenty."""
    if isinstance(value, dict):
        return {k: _rounded(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def write(runs: list[Run], shown: dict[str, dict], path: Path = FILE):
    """results.json, a run a line, from what the build folder holds of these runs. ValueError if versions differ."""
    records, about = [], None
    for run in runs:
        record = _measured(run)
        if record is None:
            raise ValueError(f"{run.folder}: not measured yet")
        if record["data"] != _pairs("train", run.identities).fingerprint:
            raise ValueError(f"{run.folder}: found a run on data {record['data'][:12]}, expected "
                             f"{_pairs('train', run.identities).fingerprint[:12]}; remove it")
        mine = {"versions": record.pop("versions"), "machine": record.pop("machine")}
        if about and mine != about:
            raise ValueError(f"{run.folder}: found {mine}, expected {about}, as of the other runs; remove it")
        about = mine
        record = {k: v for k, v in record.items() if k not in ("measured_by", "n")}
        records.append({"study": run.study, "variant": run.variant, "model": run.settings.model,
                        "seed": run.settings.seed, "identities": run.identities} | record)
    who = evaluate.judge(_pairs("train", 50), _pairs("test"), profiles.build_folder(), progress=False)
    top = about | {"size": SIZE, "test_data": _pairs("test").fingerprint,
                   "reader": who.errors, "real_distance": who.real_distance()}
    line = ",\n  ".join(json.dumps(_rounded(record)) for record in records)
    heads = ",\n ".join(f"{json.dumps(k)}: {json.dumps(_rounded(v))}" for k, v in top.items())
    shown = ",\n  ".join(f"{json.dumps(k)}: {json.dumps(_rounded(v))}" for k, v in shown.items())
    write_atomically(path, f'{{{heads},\n "published": {{\n  {shown}}},\n "runs": [\n  {line}]}}\n'.encode())


# ---- what the chapters read

@cache
def read(path: str | Path = FILE) -> dict:
    """results.json: "runs", a record a run ("study", "variant", "model", "seed", "identities", "settings", "seconds" of
    training, "train": the last row of its log, and its numbers, as `mmvae.evaluate` names them); "published": {name: what
    `published` says}; "versions", "machine", "size"; "reader": errors of the read-out, and
    "real_distance" of a real image to the nearest other, the ceilings.

    Raises FileNotFoundError, or ValueError for a damaged file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; `make results` computes and writes it")
    try:
        found = json.loads(path.read_bytes())
        missing = {"runs", "published", "versions", "machine", "size", "reader", "real_distance"} - set(found)
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
    """One number of each run: values(runs, "heldout", "IT.elbo")."""
    out = []
    for run in runs:
        for key in path:
            run = run[key]
        out.append(run)
    return np.array(out, float)


def spread(numbers, digits: int = 2) -> str:
    """Mean ± standard deviation (of the sample): "0.95 ± 0.02"; one number alone has none."""
    numbers = np.asarray(numbers, float)
    text = f"{round(numbers.mean(), digits) + 0.0:,.{digits}f}" + (f" ± {numbers.std(ddof=1):,.{digits}f}" if len(numbers) > 1 else "")
    return text.replace("-", "\N{MINUS SIGN}")


def found(runs: list[dict]) -> int:
    """How many of these runs found the partition."""
    return sum(probes.partition(run["probes"])["found"] for run in runs)


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(prog="python -m mmvae.results", description="Run the grid, write its results.")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side, one thread each")
    parser.add_argument("--out", type=Path, default=FILE)
    args = parser.parse_args(argv)
    runs, names, failed, shown = grid(), list(weights.RECIPES), [], {}
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn"), _die_with_parent) as pool:
        tasks = {pool.submit(_work, run): run.name for run in runs} | {pool.submit(_publish, k): k for k in names}
        bar = tqdm(as_completed(tasks), total=len(tasks), unit="run")
        for task in bar:
            bar.set_postfix_str(tasks[task], refresh=False)
            if task.exception():
                failed.append(tasks[task])
                tqdm.write(f"{tasks[task]}: {task.exception()}")
            elif tasks[task] in names:
                shown[tasks[task]] = task.result()
    if failed:
        sys.exit(f"failed: {', '.join(failed)}; the same command goes on with them")
    write(runs, {name: shown[name] for name in names}, args.out)


if __name__ == "__main__":
    main()
