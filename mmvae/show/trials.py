"""An explorable: studies of a few runs each, drawn again and again, with the interval that each would have printed.

`Trials` moves in a notebook and on the static page; `drawn` is what the page draws, `long_run` what comes of it in the long
run, for a reader to check and a test to compare.
"""
import math
from collections.abc import Mapping

import matplotlib.pyplot as plt
import traitlets as t
from matplotlib.figure import Figure

from ..evaluate.intervals import wilson
from .charts import STYLE, figure
from .explorables import Explorable, within
from .labels import GREY
from .picture import Picture
from .views import inks

PRESETS = {"a coin": 0.5, "three in four": 0.75, "nine in ten": 0.9}  # true shares to begin with
RUNS, MOST, SHOWN = (3, 5, 10, 20), 50, 20  # runs of a study: on buttons, at most; studies that are drawn
MISSED = "#CC79A7"  # of intervals that miss the truth: no block wears it


class Trials(Explorable):
    """What `trials` returns. share: the truth. runs: of a study. studies: how many have been drawn."""
    kind = "trials"
    room = 915, 755, 735
    share = t.Float(0.75).tag(sync=True)
    runs = t.Int(5).tag(sync=True)
    studies = t.Int(1).tag(sync=True)

    @t.validate("share")
    def _part(self, proposal):
        return _share(proposal["value"])

    @t.validate("runs", "studies")
    def _count(self, proposal):
        return _whole(proposal["trait"].name, proposal["value"])


def _share(value: float) -> float:
    return within("share", value, 0, 1)


def _whole(name: str, value: int) -> int:
    most = MOST if name == "runs" else 10_000
    if not 1 <= value <= most:
        raise ValueError(f"{name}: found {value}, expected a whole number from 1 to {most:,}")
    return value


def drawn(share: float, runs: int, study: int) -> int:
    """In how many of its runs this study, from 1, has found what is there in `share` of all runs. The same dice for every
    share and every number of runs, so that a study changes little when a dial does (mulberry32, as the page has it)."""
    state, found = _whole("studies", study) * 0x9E3779B9 & 0xFFFFFFFF, 0
    for _ in range(_whole("runs", runs)):
        state = state + 0x6D2B79F5 & 0xFFFFFFFF
        a = (state ^ state >> 15) * (state | 1) & 0xFFFFFFFF
        a ^= a + ((a ^ a >> 7) * (a | 61) & 0xFFFFFFFF) & 0xFFFFFFFF
        found += (a ^ a >> 14) / 2 ** 32 < _share(share)
    return found


def answer(count: int, runs: int) -> str:
    """What the book's rule makes of a count: "confirmed" if the whole interval [eq-learned-wilson] lies above one half,
    "refuted" if it lies below, else "undecided"."""
    low, high = wilson(count, runs)
    return "confirmed" if low > 0.5 else "refuted" if high < 0.5 else "undecided"


def long_run(share: float, runs: int) -> dict[str, float]:
    """Of endlessly many studies, the share whose interval holds the truth, "holds", and the shares that say "confirmed" and
    "refuted": sums over the binomial distribution, exact. Raises ValueError for a share or a number of runs that is none."""
    n, p = _whole("runs", runs), _share(share)
    found = dict.fromkeys(("holds", "confirmed", "refuted"), 0.0)
    for k in range(n + 1):
        chance, (low, high) = math.comb(n, k) * p ** k * (1 - p) ** (n - k), wilson(k, n)
        found["holds"] += chance * (low <= p <= high)
        if (said := answer(k, n)) in found:
            found[said] += chance
    return found


def trials(share: float = 0.75, runs: int = 5, studies: int = 1, presets: Mapping[str, float] | None = None) -> Trials:
    """A truth to set, studies of it to draw, and the interval of each: how often it holds the truth, and how often such a
    study would have decided.

    share: the truth. runs: of a study. studies: drawn to begin with. presets: {name: share}, buttons for other truths.

        dice = trials(presets={"a coin": 0.5})
        dice.on_change(print)                      # {"share": 0.75, "runs": 5, "studies": 2}
        dice.runs = 20

    Raises ValueError for a share that is not from 0 to 1, and for other numbers of runs or studies than 1 to MOST, to 10,000.
    """
    presets = {name: _share(v) for name, v in (presets or PRESETS).items()}
    caption = ("Studies of one and the same truth (dotted), each with its count and the interval of its share. "
               "With JavaScript you can draw more.")
    config = {"presets": presets, "runs": list(RUNS), "most": MOST, "shown": SHOWN, "missed": inks(MISSED)}
    return Trials(_still(share, runs), caption, config=config, share=share, runs=runs, studies=studies)


@plt.rc_context(STYLE)
def _still(share: float, runs: int, studies: int = 12) -> Picture:
    """The still picture of `trials`: the first studies."""
    fig = Figure(figsize=(7, 3.4), layout="constrained", dpi=100)
    ax, missed = fig.subplots(), 0
    for study in range(1, studies + 1):
        count = drawn(share, runs, study)
        low, high = wilson(count, runs)
        off = not low <= share <= high
        missed += off
        ax.plot((low, high), (study, study), color=MISSED if off else GREY, lw=3, solid_capstyle="butt")
        ax.plot(count / runs, study, "o", color=MISSED if off else GREY, markersize=6)
        ax.text(1.03, study, f"{count} of {runs}", va="center", fontsize=10)
    ax.axvline(0.5, color=GREY, lw=1.2, ls=(0, (3, 2)))
    ax.axvline(share, color=GREY, lw=1.6, ls=":")
    ax.set(xlim=(-0.02, 1.16), ylim=(studies + 0.6, 0.4), xlabel="share", yticks=[], ylabel="studies")
    ax.set_xticks([0, 0.25, 0.5, 0.75, 1], ["0", "0.25", "0.5", "0.75", "1"])
    often = long_run(share, runs)
    said = f"In the long run {often['holds']:.0%} hold it, and {often['confirmed']:.0%} say confirmed."
    return figure(fig, f"{studies} studies of {runs} runs, each an interval on an axis from 0 to 1; {missed} of them miss "
                       f"the truth, {share:g}. {said}")
