"""The grid of runs behind chapters 8 and 9: which they are, and what came out of them.

    python -m mmvae.results [--jobs 2]           (make results)

trains and measures every run that the build folder does not have, side by side, and writes `published/results.json`.
Stop it at any time: the same command goes on where it was. A chapter reads the numbers by `results.read()`.
"""
import argparse
import json
import multiprocessing
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from tqdm.auto import tqdm

from . import checkpoint, data, gaussian, models, nets, profiles, train
from .data import Pairs
from .train import Settings

SIZE = 32  # pixels a side
LONG, SHORT = 10_000, 4_000  # iterations of the main table, and of a study that compares many variants
FIVE, THREE = range(5), range(3)  # seeds
BOTH = "mumo", "poe-v2"
TRAINED_BY = gaussian, nets, models, data, checkpoint, train


@dataclass(frozen=True)
class Run:
    """One training: settings, and the identities that it learns from. name: unique in the grid."""
    name: str
    settings: Settings
    identities: int = 50

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
    for shared in (2, 8, 3, 6, 4, 7):
        for model in BOTH:
            yield "shared", f"{shared}", model, THREE, 50, {"options": {"shared": shared}}
    yield "marginals", "none", "poe-v1", FIVE, 50, {}
    yield "marginals", "I", "poe-v2", FIVE, 50, {"options": {"subsets": ["I", "IT"]}}
    yield "marginals", "T", "poe-v2", FIVE, 50, {"options": {"subsets": ["T", "IT"]}}
    yield "prior", "inside", "poe-v2", FIVE, 50, {"options": {"single_prior": True}}
    for weight in (16.0, 1.0):  # 4 / beta at this size
        for shared in (5, 2, 8):
            for model in BOTH:
                yield "weight", f"{weight:g}, {shared}", model, THREE, 50, {
                    "weight": weight, "options": {"shared": shared}}
    for private in (1, 3, 5, 4):
        for model in BOTH:
            yield "private", f"{private}", model, THREE, 50, {"options": {"private": private}}
    for shared in (5, 2, 8):
        for model in BOTH:
            yield "identities", f"10, {shared}", model, THREE, 10, {"options": {"shared": shared}}
    yield "length", "80000", "mumo", range(2), 50, {"iterations": 80_000}


def grid() -> dict[str, list[Run]]:
    """{study: its runs}. A run may serve several studies: it is trained once."""
    studies = {}
    for study, variant, model, seeds, identities, changes in _variants():
        for seed in seeds:
            changes = {"size": SIZE, "iterations": SHORT} | changes
            if changes.get("options", {}).get("shared") == 5:
                changes = {k: v for k, v in changes.items() if k != "options"}
            name = f"{model}-{study}-{variant.replace(', ', '-')}-{seed}"
            run = Run(name, Settings(model, seed=seed, **changes), identities)
            studies.setdefault(study, []).append(run)
    return studies


def pairs(run: Run, split: str) -> Pairs:
    """What a run learns from, or is measured on."""
    return _pairs(split, run.identities if split == "train" else None)


def _pairs(split, identities, made={}):
    if (split, identities) not in made:
        made[split, identities] = Pairs(profiles.profile("cpu").data_file, split, size=SIZE, identities=identities)
    return made[split, identities]


def _work(run: Run):
    torch.set_num_threads(1)
    run.folder.parent.mkdir(parents=True, exist_ok=True)
    train.fit(run.settings, pairs(run, "train"), run.folder, progress=False)
    return run.name


def main(argv: list[str] | None = None):
    parser = argparse.ArgumentParser(prog="python -m mmvae.results", description="Run the grid, write its results.")
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side, one thread each")
    args = parser.parse_args(argv)
    runs = [run for study in grid().values() for run in study]
    with ProcessPoolExecutor(args.jobs, multiprocessing.get_context("spawn")) as pool:
        tasks = {pool.submit(_work, run): run for run in runs}
        bar = tqdm(as_completed(tasks), total=len(tasks), unit="run")
        for task in bar:
            bar.set_postfix_str(tasks[task].name, refresh=False)
            task.result()


if __name__ == "__main__":
    main()
