"""What five_views.py found, as tables: every model by our code and by multivae's, and one loss of each at equal weights."""
import json
from pathlib import Path

import numpy as np
from measure import RESULTS
from table import number, rows

from mmvae.experiment.table import SHORT

FOLDER = RESULTS / "five_views"
ORDER = ("mvae", "mmvae", "mopoe", "mvtcae", "dmvae", "mmvae+", "jmvae", "mmvm", "code", "helvae", "hoelder", "idmvae")
TITLES = SHORT | {"mvae": "MVAE"}
PAPERS = {  # PolyMNIST, coherence in percent: the paper, its numbers, those that multivae's authors reach
    "mopoe": ("Sutter et al. (2021)", "66 / 77 / 81 / 83", "67 / 79 / 84 / 85"),
    "mvtcae": ("Hwang et al. (2021)", "69 / 77 / 83 / 86", "64 / 82 / 88 / 91"),
    "mmvae+": ("Palumbo et al. (2023)", "86.9 over all", "88.6 over all")}


def papers() -> str:
    """The papers' coherence on PolyMNIST, beside which a table of it stands."""
    body = [(TITLES[m], *of) for m, of in PAPERS.items()]
    return ("\n\nOn PolyMNIST, coherence in percent given 1 / 2 / 3 / 4 views, with larger networks and longer trainings, as "
            "quoted in the README of multivae 1.0.3, \"Reproducibility statement\":\n\n"
            + rows("model | paper | its numbers | multivae's authors", body, "llll"))


def spread(values: list[float], digits: int) -> str:
    """The mean of the seeds and their range: "0.71 (0.70–0.72)"."""
    low, mean, high = (number(f(values), digits) for f in (np.min, np.mean, np.max))
    return f"{mean} ({low}–{high})" if len(values) > 1 else mean


COLUMNS = {**{f"given {k}": (lambda r, k=k: 100 * r["coherence"][k], 1) for k in "1234"},
           "from the prior": (lambda r: 100 * r["coherence"]["prior"], 1), "Fréchet": (lambda r: r["frechet"]["prior"], 2),
           "log p(x)": (lambda r: r["log_likelihood"]["mean"], 1), "rows/s": (lambda r: r["rows_per_second"], 0)}


def table(records: list[dict]) -> str:
    """Every model and side, and where the sides differ by more than their seeds: their ranges have no number in common."""
    groups = {(m, s): [r for r in records if (r["model"], r["side"]) == (m, s)] for m in ORDER for s in ("ours", "theirs")}
    groups, apart = {key: of for key, of in groups.items() if of}, []
    body = [(TITLES[m], side, len(of), number(np.mean([r["steps"] for r in of])),
             *(spread([value(r) for r in of], digits) for value, digits in COLUMNS.values()),
             number(np.median([r["log_likelihood"]["ess"] for r in of]), 1)) for (m, side), of in groups.items()]
    for m in ORDER:
        pair = [groups.get((m, side), []) for side in ("ours", "theirs")]
        for column, (value, digits) in COLUMNS.items() if min(map(len, pair)) > 1 else ():
            a, b = ([value(r) for r in of] for of in pair)
            if max(a) < min(b) or max(b) < min(a):
                apart.append(f"- {TITLES[m]}, {column}: ours {spread(a, digits)}, theirs {spread(b, digits)}")
    first = records[0]
    s = first["settings"]
    floor = first["frechet"]["training pictures"]
    text = (f"{s['minutes']:g} CPU minutes a run, batch {s['batch']}; the mean of the seeds, in brackets their range. "
            f"Coherence in percent: the classifiers read {100 * first['accuracy']:.1f} % of the test pictures rightly. The "
            f"Fréchet distance of training pictures to test pictures is {floor:.2f}. log p(x) in nats a row, {s['draws']} "
            f"draws; where their effective number is under 10, read it as a bound.\n\n")
    text += rows(" | ".join(("model", "side", "seeds", "steps", *COLUMNS, "draws that count")), body, "ll" + 11 * "r")
    told = "\n".join(apart) or "None."
    return text + f"\n\nWhere ours and theirs differ by more than their seeds:\n\n{told}{papers() if s['polymnist'] else ''}"


def losses_table(record: dict) -> str:
    """Ours, theirs, and what is left when ours follows the rule of theirs that is named."""
    body = [(TITLES[m], *(number(v[k], 2) for k in ("ours", "theirs")), number(v["theirs"] - v["ours"], 2, "+"),
             number(v["theirs"] - v["ours"] - v["rule"], 2, "+"),
             *(number(v["nll"][k], 1) if v["nll"][k] else "" for k in ("ours", "theirs", "theirs, row by row")))
            for m, v in record["models"].items()]
    header = "model | loss, ours | theirs | difference | left by their rule | −log p(x), ours | theirs | theirs, row by row"
    text = "After {steps} steps of ours; nats a row, the loss of a batch of {batch}, −log p(x) of four rows.\n\n"
    return text.format(**record["settings"]) + rows(header, body, "l" + 7 * "r")


def texts(folder: Path = FOLDER) -> dict[str, str]:
    """What belongs between the markers of README.md."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("*-[0-9]*.json"))]
    kept = folder / "losses.json"
    waits = "Not measured yet: `python benchmarks/five_views.py {}--install`."
    return {"five_views": table(found) if found else waits.format(""),
            "five_views_losses": losses_table(json.loads(kept.read_text())) if kept.exists() else waits.format("--losses ")}
