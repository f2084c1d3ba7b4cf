"""The grid of runs: which they are, and the command that trains and measures them, a small committed file each.

    python -m mmvae.experiment results [--study main] [--hours 2]           (make results)

trains and measures every run that `published/runs` does not have, side by side, the most telling first, and writes
`published/runs/NAME.json`. Stop it at any time: the same command goes on where it was, and another machine may do a part.
`--device cuda` trains the seeds of a cell as one (`stacks.py`), and then measures on the GPU, by so many processes.
`--status` says how many are done, `--check` what the code of today computes otherwise. A chapter reads the numbers by
`results.runs()`. `--published` measures the published models anew, into published.json.
"""
import hashlib
import json
import math
import multiprocessing
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, ProcessPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from time import monotonic, process_time

import torch
from tqdm.auto import tqdm

from .. import checkpoint, evaluate, faces, train
from ..faces import Pairs
from ..faces import judge as judging
from ..faces.file import begin
from ..incomplete import Incomplete
from ..train import write_atomically
from . import measure, prints, profiles, results, studies, weights
from .recipe import Recipe
from .table import FIRST, NAMES

LONG, SHORT, FULL = 10_000, 3_000, 80_000  # iterations: of the main table, of a cell of a sweep, of the published models
BOTH, MANY = ("mumo", "poe-v2"), ("mumo", "poe-v1", "poe-v2", "wg-v2")
THOROUGH = "main", "control", "long", "full"  # studies of which every run is measured in every way, the others in brief
PEOPLE, HELD_OUT = profiles.PEOPLE
COUNTS = 50, 150, 500, 1500  # of people, in the study of people
JUDGED = 50  # people of the training whom the judge knows, beside those held out: the same for every run


@dataclass(frozen=True)
class Run:
    """One training of the grid: its recipe, how many people it learns from, and what it is to show."""
    study: str
    variant: str
    recipe: Recipe
    people: int = PEOPLE
    missing: float = 0.0  # the share of the rows to learn from that show one picture alone

    @property
    def name(self) -> str:
        return f"{self.recipe.model}-{self.study}-{self.variant.replace(', ', '-')}-{self.recipe.seed}"

    @property
    def measured_on(self) -> tuple[str, int]:
        """The split of `pairs` that it is measured on, and of how many people that is."""
        return ("choice", studies.CHOICE) if self.study == studies.PILOT else ("test", HELD_OUT)

    def rows(self, device: str = "cpu") -> Pairs | Incomplete:
        """What it learns from."""
        found = pairs("train", self.people, self.recipe.size, device)
        return Incomplete(found, self.missing) if self.missing else found

    @property
    def folder(self) -> Path:
        """Where it is trained: under a hash of what it is a function of, its recipe and its data."""
        data = self.rows().fingerprint
        words = f"{sorted(self.recipe.settings.items())} {data}"
        return profiles.build_folder() / "results" / f"{self.name}-{hashlib.sha256(words.encode()).hexdigest()[:12]}"

    @property
    def about(self) -> dict:
        """What its record must say to be of this run. The data are known by their generator and numbers of people: another
        processor may render a grey level otherwise, so that their fingerprint is kept, but not asked for."""
        return {"study": self.study, "variant": self.variant, "model": self.recipe.model, "seed": self.recipe.seed,
                "people": self.people, "held_out": self.measured_on[1], "generator": faces.GENERATOR_VERSION,
                "settings": json.loads(json.dumps(self.recipe.settings))}


def _variants():
    """(study, variant, model, seeds, people, changes of the recipe), the most telling first; at 64x64, where none is said.

    A cell that two studies share is a run of one of them alone: the base is also shared 5, private 2, weight 1 and no cross;
    500 people with shared 8 are a run of "shared"; 500 people at 64x64 in the study of people are the main table's poe-v2,
    and the Bernoulli among the likelihoods is the main table's. Seed 0 of "long" is what is published.
    """
    alone = [[[m], list(NAMES)] for m in NAMES]  # the ELBOs of one modality and of both
    for model in FIRST:
        yield "main", "plain", model, range(20 if model in MANY else 10), PEOPLE, {"iterations": LONG}
    yield "control", "7", "wg-v2", range(20), PEOPLE, {"iterations": LONG, "options": {"shared": 7}}
    for size in (32, 64):
        for people in COUNTS:
            if (size, people) != (64, PEOPLE):
                small = studies.SMALL if size == 32 else {}
                yield "people", f"{size}, {people}", "poe-v2", range(3), people, {"iterations": LONG} | small
    for model in BOTH:
        for likelihood in ("normal", "continuous"):
            changes = {"iterations": LONG, "options": {"likelihood": likelihood}}
            yield "likelihood", likelihood, model, range(5), PEOPLE, changes
    for model in BOTH:
        yield "base", "plain", model, range(10), PEOPLE, {}
        for shared in (3, 8, 4, 7, 6):
            yield "shared", f"{shared}", model, range(10), PEOPLE, {"options": {"shared": shared}}
        for people in (10, 50):
            for shared in (5, 8):
                yield "identities", f"{people}, {shared}", model, range(5), people, {"options": {"shared": shared}}
        for weight in (4.0, 0.25):  # 1 / beta
            for shared in (5, 8):
                changes = {"weight": weight, "options": {"shared": shared}}
                yield "weight", f"{weight:g}, {shared}", model, range(5), PEOPLE, changes
        for private in (1, 3, 4, 5):
            yield "private", f"{private}", model, range(5), PEOPLE, {"options": {"private": private}}
    yield "marginals", "none", "poe-v1", range(5), PEOPLE, {}
    yield "marginals", "I", "poe-v2", range(5), PEOPLE, {"options": {"subsets": alone[0]}}
    yield "marginals", "T", "poe-v2", range(5), PEOPLE, {"options": {"subsets": alone[1]}}
    yield "prior", "inside", "poe-v2", range(5), PEOPLE, {"options": {"single_prior": True}}
    for model in BOTH:
        yield "cross", "warm-up", model, range(5), PEOPLE, {"cross": 1.0, "cross_until": 1000}
        yield "cross", "throughout", model, range(5), PEOPLE, {"cross": 1.0}
    for name, (model, changes) in weights.RECIPES.items():
        variant = name.removeprefix(model)[1:] or "plain"
        yield "long", variant, model, range(1), PEOPLE, {"iterations": FULL} | changes
    yield from studies.field(PEOPLE)
    yield from studies.asks(PEOPLE)
    yield from studies.full(PEOPLE, LONG)


def grid() -> list[Run]:
    """All runs, study after study, and seed after seed within one: whatever was stopped is a balanced table."""
    runs: dict[str, list[Run]] = {}
    for study, variant, model, seeds, people, changes in _variants():
        changes = {"iterations": SHORT} | changes
        changes["options"] = {k: v for k, v in changes.get("options", {}).items() if (k, v) != ("shared", 5)}  # their own
        lost = changes.pop("missing", 0.0)
        runs.setdefault(study, []).extend(Run(study, variant, Recipe(model, seed=k, **changes), people, lost) for k in seeds)
    return [run for of in runs.values() for run in sorted(of, key=lambda run: run.recipe.seed)]


# ---- the work

@lru_cache(1)
def _heads(people: int) -> faces.Grid:
    """The heads of so many people to learn from, or of more, and of all who are held out; rendered if the build folder has no
    such file. 500 are 1.3 GB."""
    files = [replace(profiles.PROFILES["book"], identities=n) for n in COUNTS if n >= max(people, PEOPLE)]
    return faces.read_faces(next((f for f in files if f.data_path.exists()), files[0]).data_file)


@lru_cache(4)
def pairs(split: str, people: int, size: int, device: str = "cpu") -> Pairs:
    """The first so many people to learn from ("train"), all who are held out ("test"), or the last of those to learn from, on
    whom a pilot is measured that learns from others ("choice")."""
    if split == "choice":
        heads = _heads(PEOPLE)
        factors = {f: getattr(heads, f)[:PEOPLE] if f == heads.first else getattr(heads, f) for f in heads.factors}
        some = faces.Grid(heads.I[:PEOPLE], heads.T[:PEOPLE], axes=heads.axes, test_identities=studies.CHOICE,
                          unit=heads.unit, **factors)
        return Pairs(some, "test", device, size)
    return Pairs(_heads(people), split, device, size, identities=people if split == "train" else None)


@lru_cache(1)
def _judge(size: int, device: str, split: str = "test") -> tuple[judging.Judge, float]:
    """Who judges the grid's runs of this size, and the distance of a real picture to the nearest other, grey levels."""
    of = pairs("train", JUDGED, size, device), pairs(split, PEOPLE, size, device)
    who = measure.judge(*of, profiles.build_folder(), progress=False)
    return who, who.real_distance()


def finished(run: Run) -> dict | None:
    """Its committed record, if that is of this recipe and data and today's code computes what it did; see `results.runs`."""
    path = results.RUNS / f"{run.name}.json"
    if not path.exists():
        return None
    try:
        record = results.record(path)
        whole = "sorted" in record or not evaluate.all_shared(run.recipe.build())  # else it is measured again
        valid = whole and {k: record[k] for k in run.about} == run.about and not results.moved_in(record)
    except ValueError as e:  # what is damaged is made again
        tqdm.write(str(e))
        return None
    return record if valid else None


def _work(run: Run, device: str = "cpu"):
    """Train a run, or go on with it, measure it, the thorough studies' in every way, and write its record."""
    torch.set_num_threads(1)
    size, weight = run.recipe.size, run.recipe.weight
    train_on, folder, (split, _) = pairs("train", run.people, size, device), run.folder, run.measured_on
    test = pairs(split, PEOPLE, size, device)
    folder.parent.mkdir(parents=True, exist_ok=True)
    model = run.recipe.fit(run.rows(device), folder, progress=False)
    log = {k: float(v[-1]) for k, v in train.read_log(folder).items()}  # its last row
    (who, real_distance), start = _judge(size, device, split), process_time()
    numbers = _numbers(model, train_on, test, who, weight, run.study in THOROUGH)
    numbers["above_floor"] = {}  # there is a floor for a Bernoulli alone
    if "likelihood" not in run.recipe.options:
        persons = {k: of["above_floor"] for k, of in measure.by_person(model, train_on, test).items()}
        numbers["above_floor"] = {"seen": sum(persons["seen"]) / len(persons["seen"]),
                                  "unseen": [round(v, 1) for v in persons["unseen"]]}
    record = run.about | run.recipe.head(checkpoint.settings_of(folder)) | {
        "test_data": test.fingerprint, "seconds": log["seconds"], "measuring": process_time() - start,
        "measured": results.keep_prints(measure.computes()), "reader": who.errors, "real_distance": real_distance, **numbers,
        "train": {k: v for k, v in log.items() if k not in ("iteration", "seconds")}}
    results.keep(results.RUNS / f"{run.name}.json", record)


def _numbers(model, train_on: Pairs, test: Pairs, who: judging.Judge, weight: float, thorough: bool) -> dict:
    if thorough:
        return measure.everything(model, train_on, test, weight, who, progress=False)
    numbers = measure.numbers(model, train_on, test, weight, 2048, subsets=(NAMES,))
    numbers |= {"cross": judging.cross_modal(model, who, 256), "experts": evaluate.experts(model, test, 2048)}
    return numbers | ({"sorted": measure.by_role(model, train_on, test, 2048)} if evaluate.all_shared(model) else {})


# ---- the published models' numbers, in published.json

def published(model, pairs: tuple[Pairs, Pairs], who: judging.Judge | None) -> dict:
    """Numbers of a published model beside those in its own record (`weights.info`): "likelihood", K to 100, and
    "experts", as `measure.everything` has them; with a judge also "cross", "coherence" and "prior": see `mmvae.faces.judge`.
    """
    found = {"likelihood": measure.likelihoods(model, pairs[1], 1.0, samples=measure.SAMPLES[:3]),
             "experts": evaluate.experts(model, pairs[1])}
    if who:
        found |= {"cross": judging.cross_modal(model, who), "coherence": judging.joint_coherence(model, who),
                  "prior": judging.prior_distance(model, who, evaluate.frechet, 1024)}
    return found


def _publish(name: str) -> dict:
    """`published` of this model, judged on the people whom the cpu profile renders; what the build folder has is kept."""
    torch.set_num_threads(1)
    info, shown = weights.info(name), profiles.profile("cpu")
    pairs = [shown.pairs(split, info["settings"]["size"]) for split in ("train", "test")]
    words = f"{info['sha256']} {[p.fingerprint for p in pairs]}"
    path = profiles.build_folder() / "results" / f"published-{name}-{hashlib.sha256(words.encode()).hexdigest()[:12]}.json"
    now = measure.computes(("likelihood", "experts", "cross", "coherence", "reading"))
    stored = json.loads(path.read_bytes()) if path.exists() else {"measured": {}}
    if not stored["measured"] or prints.changed(stored["measured"], now):
        who = measure.judge(*pairs, profiles.build_folder(), progress=False)
        stored = {"measured": now, "numbers": published(weights.load(name), pairs, who)}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, json.dumps(stored).encode())
    return stored["numbers"]


def refresh(jobs: int) -> list[str]:
    """Put the `published` numbers of all published models into published.json; the names of those that could not be
    measured: then nothing is written."""
    found, failed = side_by_side(_publish, {name: name for name in weights.RECIPES}, jobs)
    if not failed:
        results.keep_published({name: found[name] for name in weights.RECIPES})
    return failed


# ---- many at once

def fill(runs: list[Run], jobs: int = 2, hours: float = math.inf, device: str = "cpu") -> list[str]:
    """Train and measure those of these runs that are not finished: the names of those that failed. Arguments as of
    `side_by_side`; device: where they are trained and measured."""
    missing = {run.name: run for run in runs if not finished(run)}
    return side_by_side(partial(_work, device=device), missing, jobs, hours)[1] if missing else []


def side_by_side(work, tasks: dict, jobs: int, hours: float = math.inf) -> tuple[dict, list[str]]:
    """work(task) for {name: task}, in this order, by so many processes: {name: what came of it}, and the names of those that
    failed, which stop no other. None starts after so many hours. Interrupted, it ends the processes that it started."""
    start, others, waiting, running, found, failed = monotonic(), multiprocessing.active_children(), list(tasks), {}, {}, []
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(jobs, spawn, begin) as pool, tqdm(total=len(tasks), unit="run") as bar:
        try:
            while True:
                while waiting and len(running) < jobs and monotonic() - start < 3600 * hours:
                    name = waiting.pop(0)
                    running[pool.submit(work, tasks[name])] = name
                if not running:
                    return found, failed
                for task in wait(running, return_when=FIRST_COMPLETED).done:
                    name, error = running.pop(task), task.exception()
                    bar.set_postfix_str(name, refresh=False)
                    bar.update()
                    if error is None:
                        found[name] = task.result()
                        continue
                    failed.append(name)
                    tqdm.write(f"{name}: {str(error) or type(error).__name__}")
                    if isinstance(error, BrokenExecutor):  # a process was killed, for its memory say: no other can start
                        waiting = []
        except KeyboardInterrupt:
            for process in multiprocessing.active_children():
                if process not in others:
                    process.terminate()
            raise
