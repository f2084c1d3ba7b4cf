"""What chapters 12 and 13 read off runs that stand side by side: of the same seeds, and by the same measures."""
from collections.abc import Sequence

import numpy as np

from .. import evaluate, strict
from ..faces import HOME
from . import results, table, weights
from .recipe import WHOLE

MODELS = tuple(name for name in table.MODELS if name != "wg-v2-full")  # of the study "field"; that one has its own
STEPS = {"machine": {str: (str, WHOLE)}, "settings": {str: WHOLE}, "digest": str,
         "seconds": dict.fromkeys(table.MODELS, [strict.number(0)]), "parameters": dict.fromkeys(table.MODELS, WHOLE)}


def common(cells: dict[str, list[dict]]) -> dict[str, list[dict]]:
    """Of the runs {cell: records} those of the seeds that every cell has, seed by seed, so that the k-th of all are of one
    seed. Raises ValueError if there is no such seed."""
    seeds = set.intersection(*({run["seed"] for run in runs} for runs in cells.values()))
    if not seeds:
        raise ValueError(f"cells: found no seed that all of {', '.join(cells)} have, expected at least one")
    return {name: sorted((run for run in runs if run["seed"] in seeds), key=lambda run: run["seed"])
            for name, runs in cells.items()}


def runs(models: Sequence[str] = MODELS) -> dict[str, list[dict]]:
    """{model: its runs of the study "field"}, of the seeds that all of these models have: 32x32, weight 4, the same networks,
    latents in all, data and steps. Raises ValueError if one has none, or there is no such seed."""
    return common({name: results.runs(study="field", model=name) for name in models})


def beyond(run: dict, m: str) -> float:
    """By how many nats KL(q(z_S | x) || q_m(z_S | x_m)) is above what the chain rule promises for exact posteriors, the KL to
    the prior given all less that given x_m: how much too sure one picture is [eq-mumo-chain, eq-learned-gap]. NaN for a model
    that cannot infer from one picture."""
    if f"kl.{m}" not in run["experts"]:
        return float("nan")
    return run["experts"][f"kl.{m}"] - run["heldout"]["I+T.kl.S"] + run["heldout"][f"{m}.kl.S"]


def roles(run: dict) -> tuple[int, int, int]:
    """How many shared latents only picture I speaks of, both do, only T does (precision above `evaluate.SPEAKS`, and below
    `evaluate.SILENT` for the silent one); zeros for a model without experts."""
    one, other = (np.array(run["experts"].get(f"precision.{m}", [])) for m in table.NAMES)
    speaks, silent = evaluate.SPEAKS, evaluate.SILENT
    counts = (one > speaks) & (other < silent), (one > speaks) & (other > speaks), (other > speaks) & (one < silent)
    return tuple(int(of.sum()) for of in counts)


def leaks(runs: list[dict]) -> np.ndarray:
    """The worst leakage of each run: the highest R² with which a block reads an angle that is not its own, (n,)."""
    return np.array([evaluate.partition(run["probes"], HOME)["leak"] for run in runs])


def floors(runs: list[dict]) -> np.ndarray:
    """Nats above the floor of {I, T}, of likelihood weight 1, of each run and each person held out: (seeds, people)."""
    return np.array([run["above_floor"]["unseen"] for run in runs])


def placed(run: dict) -> dict | None:
    """The partition of a run of "field", as `evaluate.partition` has it: by its blocks or, where all latents are shared, by
    who speaks of them. None for a model that has neither."""
    if not any(".S." in name for name in run["probes"]):
        return None
    return evaluate.partition(run["sorted"]["probes"] if "sorted" in run else run["probes"], HOME)


def timed() -> dict:
    """What `benchmarks/steps.py` measured, as it says at its top. Raises ValueError for a damaged file, OSError for none."""
    return weights.read_record(weights.FOLDER / "steps.json", STEPS, "python benchmarks/steps.py", _rounds)


def _rounds(record: dict):
    if len({len(of) for of in record["seconds"].values()}) > 1:
        raise ValueError("seconds: found lists of several lengths, expected a number a round for each model")


def steps() -> dict[str, float]:
    """{model: CPU time of a step of training, as a multiple of one of MMPOE v2}, the median over the rounds in which all
    models took turns; raises as `timed`."""
    seconds = timed()["seconds"]
    return {name: float(np.median(np.divide(of, seconds["poe-v2"]))) for name, of in seconds.items()}
