"""The grid of runs behind chapters 8 and 9: which they are, and what came out of them.

    python -m mmvae.experiment results [--jobs 2]           (make results)

trains and measures every run that the build folder does not have, side by side, and writes `published/results.json`.
Stop it at any time: the same command goes on where it was; `--check` says what the code of today computes otherwise. A
chapter reads the numbers by `results.read()`.
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
from pathlib import Path

import torch
from tqdm.auto import tqdm

from .. import checkpoint, evaluate, train
from ..faces import Pairs
from ..faces import judge as judging
from ..train import write_atomically
from . import measure, prints, profiles, weights
from .recipe import Recipe
from .results import FILE, stale
from .table import MODELS, NAMES

SIZE = 32  # pixels a side
LONG, SHORT = 10_000, 3_000  # iterations of the main table, and of a study that compares many variants
FIVE, THREE, TWO = range(5), range(3), range(2)  # seeds
BOTH = "mumo", "poe-v2"


@dataclass(frozen=True)
class Run:
    """One training of the grid: its recipe, the identities that it learns from, and what it is to show."""
    study: str
    variant: str
    recipe: Recipe
    identities: int = 50

    @property
    def name(self) -> str:
        return f"{self.recipe.model}-{self.study}-{self.variant.replace(', ', '-')}-{self.recipe.seed}"

    @property
    def folder(self) -> Path:
        """Under a hash of what the run is a function of: its recipe, and its data."""
        words = f"{sorted(asdict(self.recipe).items())} {_pairs('train', self.identities).fingerprint}"
        return profiles.build_folder() / "results" / f"{self.name}-{hashlib.sha256(words.encode()).hexdigest()[:12]}"


def _variants():
    """(study, variant, model, seeds, identities, changes of the recipe), the most telling first."""
    alone = [[[m], list(NAMES)] for m in NAMES]  # the ELBOs of one modality and of both
    for model in MODELS:
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
    yield "marginals", "I", "poe-v2", FIVE, 50, {"options": {"subsets": alone[0]}}
    yield "marginals", "T", "poe-v2", FIVE, 50, {"options": {"subsets": alone[1]}}
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
            runs.append(Run(study, variant, Recipe(model, seed=seed, **changes), identities))
    return runs


# ---- the work

def _pairs(split: str, identities: int | None = None, size: int = SIZE, made: dict = {}) -> Pairs:  # noqa: B006
    if (split, identities, size) not in made:
        file = profiles.profile("cpu").data_file
        made[split, identities, size] = Pairs(file, split, size=size, identities=identities)
    return made[split, identities, size]


def _measured(run: Run) -> dict | None:
    """The numbers of a run, if the build folder has them and today's code computes what it did."""
    path = run.folder / "metrics.json"
    record = json.loads(path.read_bytes()) if path.exists() else {"measured": {}}
    if not record["measured"] or prints.changed({"": record["behaviour"]}, {"": prints.training(run.recipe)}):
        return None
    return None if prints.changed(record["measured"], measure.computes(tuple(record["measured"]))) else record


def _work(run: Run):
    """Train a run, or go on with it, and measure it: the main table's in every way, the others in brief."""
    torch.set_num_threads(1)
    if _measured(run):
        return
    train_on, test = _pairs("train", run.identities), _pairs("test")
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    model = run.recipe.fit(train_on, run.folder, progress=False)
    who = measure.judge(_pairs("train", 50), test, profiles.build_folder(), progress=False)
    log = {k: float(v[-1]) for k, v in train.read_log(run.folder).items()}  # its last row
    record = run.recipe.head(checkpoint.settings_of(run.folder)) | {"seconds": log["seconds"]}
    record |= _numbers(model, train_on, test, who, run.recipe.weight, thorough=run.study == "main")
    record["train"] = {k: v for k, v in log.items() if k not in ("iteration", "seconds")}
    record["measured"] = measure.computes(tuple(k for k in measure.MEASURES if k in record or k == "reading"))
    write_atomically(run.folder / "metrics.json", json.dumps(record).encode())


def _numbers(model, train_on: Pairs, test: Pairs, who: judging.Judge, weight: float, thorough: bool) -> dict:
    if thorough:
        return measure.everything(model, train_on, test, weight, who, progress=False)
    numbers = measure.numbers(model, train_on, test, weight, 2048, subsets=(NAMES,))
    return numbers | {"cross": judging.cross_modal(model, who, 256), "experts": evaluate.experts(model, test, 2048)}


def published(model, pairs: tuple[Pairs, Pairs], who: judging.Judge | None) -> dict:
    """Numbers of a published model beside those in its own record (`weights.info`): "likelihood", K to 100, and
    "experts", as `measure.everything` has them; with a judge also "cross" and "coherence".
    """
    found = {"likelihood": measure.likelihoods(model, pairs[1], 1.0, samples=measure.SAMPLES[:3]),
             "experts": evaluate.experts(model, pairs[1])}
    if who:
        found |= {"cross": judging.cross_modal(model, who), "coherence": judging.joint_coherence(model, who)}
    return found


def _publish(name: str) -> dict:
    torch.set_num_threads(1)
    path, info = profiles.build_folder() / "results" / f"published-{name}.json", weights.info(name)
    now = measure.computes(("likelihood", "experts", "cross", "coherence", "reading"))
    stored = json.loads(path.read_bytes()) if path.exists() else {}
    if stored.get("sha256") != info["sha256"] or prints.changed(stored["measured"], now):
        pairs = _pairs("train", 50, info["settings"]["size"]), _pairs("test", None, info["settings"]["size"])
        who = measure.judge(*pairs, profiles.build_folder(), progress=False)
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = {"sha256": info["sha256"], "measured": now, "numbers": published(weights.load(name), pairs, who)}
        write_atomically(path, json.dumps(stored).encode())
    return stored["numbers"]


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
    records, about, behaviour = [], None, {"train": {}, "measure": {}}
    for run in runs:
        record = _measured(run)
        if record is None:
            raise ValueError(f"{run.folder}: not measured yet")
        mine = {"versions": record.pop("versions"), "machine": record.pop("machine")}
        if about and mine != about:
            raise ValueError(f"{run.folder}: found {mine}, expected {about}, as of the other runs; remove it")
        about = mine
        behaviour["train"][run.recipe.key] = record.pop("behaviour")
        behaviour["measure"] |= record.pop("measured")
        records.append({"study": run.study, "variant": run.variant, "model": run.recipe.model, "seed": run.recipe.seed,
                        "identities": run.identities} | {k: v for k, v in record.items() if k != "n"})
    who = measure.judge(_pairs("train", 50), _pairs("test"), profiles.build_folder(), progress=False)
    write_atomically(path, text_of(about | {
        "size": SIZE, "test_data": _pairs("test").fingerprint, "reader": who.errors, "real_distance": who.real_distance(),
        "behaviour": behaviour, "published": shown, "runs": records}).encode())


def text_of(found: dict) -> str:
    """results.json's text: a line a run, a published model, a print."""
    def lines(of: dict, indent: str) -> str:
        return f",\n{indent}".join(f"{json.dumps(k)}: {json.dumps(_rounded(v))}" for k, v in of.items())

    prints_of = ",\n  ".join(f"{json.dumps(k)}: {{\n   {lines(v, '   ')}}}" for k, v in found["behaviour"].items())
    runs = ",\n  ".join(json.dumps(_rounded(record)) for record in found["runs"])
    heads = lines({k: v for k, v in found.items() if k not in ("behaviour", "published", "runs")}, " ")
    return (f'{{{heads},\n "behaviour": {{\n  {prints_of}}},\n "published": {{\n  {lines(found["published"], "  ")}}},\n'
            f' "runs": [\n  {runs}]}}\n')


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(prog="python -m mmvae.experiment results",
                                     description="Run the grid, write its results.")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side, one thread each")
    parser.add_argument("--out", type=Path, default=FILE)
    parser.add_argument("--check", action="store_true", help="only say what is stored and would now be computed otherwise")
    args = parser.parse_args(argv)
    if args.check:
        if found := stale():
            sys.exit("\n".join(f"{name}: {'; '.join(wrong[:3])}" for name, wrong in found.items()))
        return print("every stored run and measurement is what the code computes")
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
