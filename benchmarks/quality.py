"""Time to quality in words, tables and a figure: what report.py shows of the records of time_to_quality.py."""
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from table import how, number, rows

from mmvae.experiment import COLOURS
from mmvae.show.charts import DASHED, STYLE
from mmvae.show.picture import GREY


def time_to_quality(record: dict) -> str:
    """What each recipe has after which time, and the answer in words."""
    by_mark = {who: {row["mark"]: row for row in record[who]} for who in ("common", "ours")}
    body = []
    for mark in sorted(by_mark["common"] | by_mark["ours"]):
        cells = []
        for who in by_mark:
            row = by_mark[who].get(mark)
            cells += [number(row["seconds"], 1), number(row["iterations"]), number(row["unseen"], 1),
                      number(row["seen"], 1)] if row else [""] * 4
        body.append((number(mark), *cells))
    header = ("CPU s, about | common: CPU s | iterations | −ELBO unseen | seen "
              "| ours: CPU s | iterations | −ELBO unseen | seen")
    return answer(record) + "\n\n" + how(record, rates=False) + rows(header, body, 9 * "r")


def first_as_good(record: dict) -> dict | None:
    """Our first run in order of CPU seconds that is at least as good, unseen, as the common recipe at its end."""
    good = [row for row in record["ours"] if row["unseen"] <= record["common"][-1]["unseen"]]
    return min(good, key=lambda row: row["seconds"], default=None)


def sooner(record: dict) -> str:
    """How many times fewer CPU seconds that run took, rounded."""
    return number(record["common"][-1]["seconds"] / first_as_good(record)["seconds"])


def answer(record: dict) -> str:
    """How much sooner ours is as good as the common recipe at its end, and whether it stays so."""
    last, first = record["common"][-1], first_as_good(record)
    text = (f"After {number(last['seconds'])} CPU seconds ({number(last['seconds'] / 60, 1)} minutes) the common "
            f"recipe stands at {number(last['unseen'], 1)} nats per pair on unseen identities. ")
    if not first:
        return text + "No run of ours is as good as that."
    text += (f"The first run of ours that is at least as good, at {number(first['unseen'], 1)}, took "
             f"**{number(first['seconds'], 1)} CPU seconds, {sooner(record)} times less**. ")
    later = [row for row in record["ours"] if row["seconds"] > first["seconds"]]
    worse = [row for row in later if row["unseen"] >= last["unseen"]]
    if not later:
        return text + "No longer run of ours was made."
    if worse:
        return text + "But not every longer run of ours is better than the common recipe's end: " + ", ".join(
            f"{number(row['unseen'], 1)} after {number(row['seconds'])} s" for row in worse) + "."
    return text + (f"Each of the {len(later)} longer runs of ours is better than that, by "
                   f"{number(last['unseen'] - max(row['unseen'] for row in later), 1)} nats at least.")


@plt.rc_context(STYLE)
def figure(record: dict) -> Figure:
    """−ELBO of unseen identities against CPU seconds, a line for each recipe; what lies far above is cut off."""
    fig = Figure(figsize=(7, 3.8), layout="constrained", dpi=100)
    ax = fig.subplots()
    colours, names = {"common": GREY, "ours": COLOURS["I"]}, {"common": "common recipe", "ours": "ours"}
    lines = {who: np.array([(row["seconds"], row["unseen"]) for row in record[who]]) for who in colours}
    for who, line in lines.items():
        ax.plot(*line.T, color=colours[who], marker="o", markersize=5)
        place = {"xytext": (8, 0), "va": "center"} if who == "common" else {"xytext": (0, -8), "va": "top", "ha": "center"}
        ax.annotate(names[who], line[-1], textcoords="offset points", color=colours[who], **place)
    last, first = record["common"][-1], first_as_good(record)
    if first:
        level, text = last["unseen"], f"as good {sooner(record)} times sooner"
        ax.plot([first["seconds"], last["seconds"]], [level, level], color=GREY, linewidth=1, linestyle=DASHED)
        ax.annotate(text, (np.sqrt(first["seconds"] * last["seconds"]), level), xytext=(0, 5),
                    textcoords="offset points", ha="center", va="bottom")
    seconds, unseen = np.concatenate(list(lines.values())).T
    low, high = unseen.min(), max(lines["ours"][:, 1].max(), np.median(lines["common"][:, 1]))
    ax.set(xscale="log", xlabel="CPU seconds of training", xlim=(0.8 * seconds.min(), 6 * seconds.max()),
           ylim=(low - 0.1 * (high - low), high + 0.05 * (high - low)))
    ax.set_title("−ELBO of unseen identities, nats per pair", loc="left")
    ax.set_xticks([15, 60, 300, 1800], ["15", "60", "300", "1,800"])
    ax.xaxis.minorticks_off()
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    return fig


def changes(record: dict) -> str:
    """What each choice of the recipe is worth: the best first."""
    runs = {}
    for run in record["runs"]:
        runs.setdefault(run["change"], []).append(run)
    unseen = {name: [run["unseen"] for run in found] for name, found in runs.items()}
    ours, spreads = np.mean(unseen["ours"]), {name: np.ptp(values) for name, values in unseen.items()}
    noise = max(spreads["ours"], np.median(list(spreads.values())))
    body = []
    for name in sorted(runs, key=lambda name: np.mean(unseen[name])):
        effect = np.mean(unseen[name]) - ours
        step = np.median([1000 * run["seconds"] / run["iterations"] for run in runs[name]])
        if name == "ours":
            verdict = ""
        else:
            verdict = number(effect, 1, "+") + (" (noise)" if abs(effect) <= noise else "")
        body.append((f"**{name}**" if name == "ours" else name, number(step, 1),
                     number(np.mean([run["iterations"] for run in runs[name]])), number(np.mean(unseen[name]), 1),
                     number(spreads[name], 1), number(np.mean([run["seen"] for run in runs[name]]), 1), verdict))
    text = (f"Over its {len(unseen['ours'])} seeds ours spreads by {number(spreads['ours'], 1)} nats, and the median "
            f"change by {number(np.median(list(spreads.values())), 1)}, so a difference of up to {number(noise, 1)} is "
            "noise. ")
    header = "change | ms a step | iterations | −ELBO unseen | spread | seen | than ours"
    return text + how(record, rates=False) + rows(header, body, "l" + 6 * "r")
