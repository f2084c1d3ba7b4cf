"""The headline numbers of the main table, each with its interval: `python -m mmvae.evaluate` without a run prints them."""
import numpy as np

from .. import evaluate
from . import results
from .results import HOME
from .table import FIRST, SHORT

WAYS = "IT", "TI"  # cross-modal synthesis: from the first picture to the second, and back


def headlines() -> str:
    """A line a model and number: value, 95 % interval, and of how many runs; of study "main".

    "above the floor": nats per pair of {I, T} on people held out, over people and seeds (`evaluate.over_people`), less
    MMPOE v2's, and how far that moves as each person in turn is left out (`evaluate.without_one`). "partition": runs that
    found it, by blocks or, where all latents are shared, by silence (`evaluate.wilson`). "same person": share of pictures
    from the other modality that show the person, as the read-out says, over seeds (`evaluate.mean_interval`).
    Raises ValueError if there are no such runs.
    """
    main = {name: results.runs(study="main", model=name) for name in FIRST}
    floor = {name: np.array([run["above_floor"]["unseen"] for run in runs]) for name, runs in main.items()}
    lines = [f"{'':<10}{'runs':>5}  {'above the floor, nats':<26}{'less MMPOE v2':<24}{'without one person':<22}"
             f"{'partition':<24}{'same person, I to T':<24}T to I"]
    for name, runs in main.items():
        apart, rest, kept = "–", "–", []
        if name != "poe-v2":
            apart = _said(*evaluate.over_people(floor[name], floor["poe-v2"]))
            rest = evaluate.without_one(floor[name], floor["poe-v2"])
            rest = f"{rest.min():+.1f} to {rest.max():+.1f}"
        for way in WAYS:
            shares = [run["cross"][key] for run in runs if (key := f"{way}.prior.identity") in run["cross"]]
            kept.append(_said(np.mean(shares), *evaluate.mean_interval(shares), 2) if shares else "–")
        lines.append(f"{SHORT[name]:<10}{len(runs):>5}  {_said(*evaluate.over_people(floor[name])):<26}{apart:<24}{rest:<22}"
                     f"{_found(runs):<24}{kept[0]:<24}{kept[1]}")
    return "\n".join(lines)


def _found(runs: list[dict]) -> str:
    if not any(".S." in name for name in runs[0]["probes"]):  # nothing is shared, as in the Vanilla VAE
        return "–"
    scores = [run["sorted"]["probes"] if run["sorted"] else run["probes"] for run in runs]
    count = sum(evaluate.partition(of, HOME)["found"] for of in scores)
    low, high = evaluate.wilson(count, len(runs))
    return f"{count} ({low:.2f} to {high:.2f})"


def _said(value: float, low: float, high: float, digits: int = 1) -> str:
    return f"{value:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
