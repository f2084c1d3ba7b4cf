"""The tables and the figure of README.md, from results/*.json, so that no number in it is typed by hand.

    python benchmarks/report.py          rewrites every table between its markers, <!-- NAME --> ... <!-- end -->
"""
import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from quality import changes, figure, time_to_quality
from table import how, middle, number, ratio, rows

from mmvae.show.charts import STYLE

HERE = Path(__file__).resolve().parent
README, RESULTS = HERE / "README.md", HERE / "results"
PROCESSES = 1, 2, 8, 64  # of the estimate
PAIRS = 10**9  # of the estimate
DAY = 24 * 60 * 60  # s


def machine(records: dict[str, dict]) -> str:
    """Every machine and its versions, once, with the names of what was measured on it."""
    found = {}
    for name, record in records.items():
        m = record["machine"]
        found.setdefault(f"{m['device']}, {m['cores']} cores, {m['vectors']}, {m['threads']} thread"
                         f"{'s' * (m['threads'] > 1)} a process; Python {m['python']}, torch {m['torch']}, "
                         f"NumPy {m['numpy']}", []).append(name)
    if len(found) == 1:
        return f"{next(iter(found))}."
    return "\n".join(f"- {', '.join(names)}: {about}." for about, names in found.items())


def label(c: dict) -> str:
    return f"{c['model']} batch {c['batch']} size {c['size']} identities {c['identities']}"


def cost(record: dict) -> str:
    """One table: each group varies one thing and keeps the rest; before it, how the rate changes from end to end."""
    base, body = record["base"], []
    reference = np.median(record["rows"][label(base)]["pairs_per_second"])
    for key, values in record["varied"].items():
        for value in values:
            row = record["rows"][label(base | {key: value})]
            rate = np.median(row["pairs_per_second"])
            body.append((f"{key} {value}", *middle(row["pairs_per_second"]), f"{rate / reference:.2f}",
                         number(1000 * row["batch"] / rate, 1), f"{row['flops_per_pair'] / 1e6:.1f}",
                         f"{row['flops_per_pair'] * rate / 1e9:.1f}", f"{row['parameters'] / 1e6:.2f}",
                         number(row["data_bytes"] / 1e6)))
    header = ("varied | pairs/s | middle half | × base | ms a step | MFLOP a pair | GFLOP/s | parameters, M "
              "| images, MB")
    found = []
    for key, values in record["varied"].items():
        if key != "model":  # a word, with no first and last
            first, last = (record["rows"][label(base | {key: values[k]})]["pairs_per_second"] for k in (0, -1))
            found.append(f"from {key} {values[0]} to {values[-1]} × {ratio(last, first)}")
    text = f"Base: {label(base)}. **Pairs per second change {', '.join(found)}.** "
    return text + how(record) + rows(header, body, "l" + 8 * "r")


def throughput(record: dict) -> str:
    """Ours against multivae, then ours against the machine's matrix products."""
    rates, body, found = record["rates"], [], []
    for name, arm in record["arms"].items():
        against = "" if name == arm["ours"] else ratio(rates[arm["ours"]], rates[name])
        body.append((name, arm["encoder_passes"], arm["decoder_passes"], *middle(rates[name]), against))
        if against:
            found.append(f"{against.split()[0]} × {name}")
    peak = rates["matrix product"]
    shares = [100 * flops * np.median(rates[name]) / np.median(peak)
              for name, flops in record["flops_per_pair"].items()]
    text = (f"**In pairs per second ours is at {'; '.join(found)}. A step of ours reaches {number(min(shares))} to "
            f"{number(max(shares))} % of the rate of a large matrix product.** ") + how(record)
    text += rows("trained | encoder passes | decoder passes | pairs/s | middle half | ours / this", body, "lrrrrr")
    body = []
    for name, flops in record["flops_per_pair"].items():
        speed = np.multiply(rates[name], flops)
        body.append((name, f"{flops / 1e6:.1f}", middle(speed / 1e9, 1)[0], ratio(100 * speed, peak, 0, " %")))
    text += "\n\nA large fp32 matrix product runs at {} GFLOP/s ({}).\n\n".format(*middle(np.divide(peak, 1e9), 1))
    return text + rows("step | MFLOP a pair | GFLOP/s | of the matrix product", body, "lrrr")


def step_seconds(record: dict, batch: int, processes: int, measured: int | None = None) -> float:
    """Of one step, by t(N) = c B / N + 2 (N - 1) / N P / b: Patarasuk & Yuan (2009) for the second term.

    c is one process's at batch `measured` (default: B); P / b is what two need, as measured.
    """
    c = 1 / np.median(record["rates"][str(measured or batch)]["plain"])
    return c * batch / processes + 2 * (processes - 1) / processes * np.median(record["exchange_seconds"])


def scaling(record: dict) -> str:
    """Pairs per second of one and of two processes."""
    body, pays = [], []
    for batch, rates in record["rates"].items():
        for name, values in rates.items():
            count = 2 if "2" in name else 1
            gain = np.median(values) / np.median(rates["plain"])
            cells = ratio(values, rates["plain"]), f"{100 * gain / count:.0f} %"
            formula = step_seconds(record, int(batch), 1) / step_seconds(record, int(batch), count)
            body.append((number(int(batch)), name, *middle(values), *(cells if name != "plain" else ("", "")),
                         number(formula, 2) if count > 1 else ""))
            if count > 1 and gain > 1:
                pays.append(number(int(batch)))
    low, high = np.min(record["exchange_seconds"]), np.max(record["exchange_seconds"])
    exchange = np.median(record["exchange_seconds"])
    text = (f"\n\nThe gradient has {record['gradient_bytes'] / 1e6:.1f} MB. One all-reduce of it between the two takes "
            f"{1000 * exchange:.1f} ms ({1000 * low:.1f}–{1000 * high:.1f}), so $b$ is "
            f"{record['gradient_bytes'] / exchange / 1e9:.2f} GB/s. Of the batches measured, two processes are the "
            f"faster way for {' and '.join(pays) or 'none'}.")
    header = "batch | run as | pairs/s | middle half | speed-up | efficiency | speed-up by the formula"
    m = record["machine"]
    return (f"On {m['cores']} cores of an {m['device']} ({m['vectors']}). " + how(record)
            + rows(header, body, "rlrrrrr") + text)


def scaling_estimate(record: dict) -> str:
    """Days for one pass over a billion pairs, by `step_seconds`, with a fixed batch and with one that grows."""
    fixed, share = max(map(int, record["rates"])), min(map(int, record["rates"]))
    body = []
    for n in PROCESSES:
        cells = []
        for batch, measured in ((fixed, fixed), (share * n, share)):
            t = step_seconds(record, batch, n, measured)
            days = t * PAIRS / batch / DAY
            cells += [number(batch), number(1000 * t, 1), number(days, 0 if days >= 10 else 1 if days >= 1 else 2),
                      number(PAIRS * record["pair_bytes"] / DAY / days / 1e6)]
        body.append((n, *cells))
    header = "processes | " + " | ".join(2 * ["batch | ms a step | days | MB/s of images"])
    text = (f"\n\nThe images of 10⁹ pairs, as bytes of grey, are {PAIRS * record['pair_bytes'] / 1e12:.1f} TB "
            f"({record['pair_bytes']:,} bytes a pair). Left, the batch stays {fixed:,}; right, every process has "
            f"{share} pairs, so the batch grows with them.")
    return rows(header, body, 9 * "r") + text


def gpu(record: dict) -> str:
    """Seconds of a whole training in each way, and what it did to the result."""
    first, body = next(iter(record["rows"].values())), []
    for name, row in record["rows"].items():
        body.append((name, number(row["seconds"], 1), number(row["first_row_seconds"], 1),
                     f"{first['seconds'] / row['seconds']:.2f}", number(row["unseen"], 1),
                     "" if row is first else number(row["unseen"] - first["unseen"], 1, "+"), number(row["seen"], 1)))
    header = (f"run | seconds | of these the first {record['settings']['log_every']} iterations | × faster "
              "| −ELBO unseen | than fp32, eager | seen")
    name, fastest = min(record["rows"].items(), key=lambda item: item[1]["seconds"])
    text = (f"**{number(record['settings']['iterations'])} iterations take {number(fastest['seconds'], 1)} s at best "
            f"({name}), and {number(first['seconds'], 1)} s in the plain loop.** ")
    return text + how(record, rates=False) + rows(header, body, "l" + 6 * "r")


def page(record: dict) -> str:
    """Bytes, first picture and moves of the explorer, a line for each chapter and one for each model in it."""
    body, moves, own, firsts = [], [], [], []
    for chapter, row in record["rows"].items():
        own.append(row["own_bytes"])
        firsts += row["first_seconds"]
        head = [chapter, f"{row['own_bytes'] / 1e6:.2f}", f"{row['page_bytes'] / 1e6:.2f}",
                number(1000 * np.median(row["first_seconds"]))]
        for name, times in row["moves"].items():
            moves.append(np.median(times))
            body.append((*head, name, number(moves[-1], 1), number(np.quantile(times, 0.95), 1)))
            head = [""] * 4
    text = (f"**Before its first picture an explorer loads at most {max(own) / 1e6:.2f} MB, compressed; the picture stands "
            f"{number(1000 * np.median(firsts))} ms later (slowest window {number(1000 * max(firsts))} ms); a move takes "
            f"{number(min(moves), 1)} to {number(max(moves), 1)} ms at the median.** In Chromium {record['chromium']}. ")
    header = "chapter | explorer, MB | whole page, MB | first picture, ms | model | a move, ms | 95 % of moves, ms"
    return text + how(record, rates=False) + rows(header, body, "lrrrlrr")


def pictures(record: dict) -> str:
    """Distance to the floor of people seen and held out, and of prior samples to real pictures, a line for each model."""
    body, first = [], next(iter(record["rows"].values()))
    for name, row in record["rows"].items():
        people = [f"{number(row[split]['mean'])} ± {number(row[split]['sd'])}" for split in ("seen", "unseen")]
        body.append((name, number(row["iterations"]), *people, *(number(row["prior"][m], 1) for m in "IT")))
    floors = [f"{name} {number(first['prior'][f'{key}.I'], 1)} and {number(first['prior'][f'{key}.T'], 1)}" for key, name in
              (("floor", "two sets of pictures of people held out"), ("seen", "pictures of people seen and held out"))]
    text = (f"{first['seen']['people']} people seen, {first['unseen']['people']} held out; ± is the standard deviation over "
            f"people. For scale, the Fréchet distance of {' and of '.join(floors)}. ")
    header = "model | iterations | nats above the floor, seen | held out | Fréchet distance, I | T"
    return text + how(record, rates=False) + rows(header, body, "lrrrrr")


TABLES = {  # the text's name: (it, results/NAME.json, what measures it)
    "time_to_quality": (time_to_quality, "time_to_quality", "time_to_quality.py"),
    "changes": (changes, "changes", "time_to_quality.py --changes"),
    "throughput": (throughput, "throughput", "throughput.py --install"),
    "pictures": (pictures, "pictures", "pictures.py"),
    "cost": (cost, "cost", "cost.py"),
    "scaling": (scaling, "scaling", "scaling.py"),
    "scaling_estimate": (scaling_estimate, "scaling", "scaling.py"),
    "gpu": (gpu, "gpu", "gpu.py"),
    "page": (page, "page", "page.py"),
}


def texts(results: Path = RESULTS) -> dict[str, str]:
    """What belongs between the markers: {name: text}. What is not in `results` is said to be not measured yet."""
    records = {path.stem: json.loads(path.read_text()) for path in sorted(results.glob("*.json"))}
    found = {name: write(records[source]) if source in records else f"Not measured yet: `python benchmarks/{command}`."
             for name, (write, source, command) in TABLES.items()}
    return {"machine": machine(records)} | found


def written(readme: str, found: dict[str, str]) -> str:
    """The README with these texts between their markers. Raises ValueError if one has no place, or more than one."""
    for name, text in found.items():
        block = f"<!-- {name} -->\n{text}\n<!-- end -->"
        readme, places = re.subn(rf"<!-- {name} -->\n.*?<!-- end -->", lambda _: block, readme, flags=re.S)
        if places != 1:
            raise ValueError(f"README.md: found {places} places <!-- {name} --> ... <!-- end -->, expected one")
    return readme


@plt.rc_context(STYLE)
def draw(results: Path = RESULTS):
    """results/time_to_quality.svg, the same bytes for the same record; nothing if there is none."""
    record = results / "time_to_quality.json"
    if record.exists():
        figure(json.loads(record.read_text())).savefig(record.with_suffix(".svg"), metadata={"Date": None})


def main():
    README.write_text(written(README.read_text(), texts()))
    draw()


if __name__ == "__main__":
    main()
