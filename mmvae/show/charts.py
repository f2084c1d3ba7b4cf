"""Numbers as figures: how the book's charts look, the curves of a loss, a table as colours."""
import hashlib
import html
import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

from .labels import GREY, PRIVATE, RETINA, SHARED, colours, ink
from .picture import Picture

DASHED = (0, (2, 1.5))  # from some modalities; solid: from all


STYLE = {  # a figure 7 inches wide fills the column, 100 pixels an inch, and its type is the page's 16 px
    "figure.figsize": (7, 3.5), "figure.dpi": 100, "figure.constrained_layout.use": True,
    "figure.facecolor": "none", "axes.facecolor": "none", "savefig.transparent": True,
    "font.size": 11.52, "axes.titlesize": "medium", "axes.labelsize": "medium", "legend.fontsize": "medium",
    "xtick.labelsize": "medium", "ytick.labelsize": "medium", "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "lines.linewidth": 1.8, "svg.hashsalt": "mmvae",
    "image.interpolation": "nearest", "image.cmap": "gray",
    "axes.prop_cycle": plt.cycler(color=[*PRIVATE[:2], SHARED, GREY]),
    **{key: GREY for key in ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor",
                             "xtick.color", "ytick.color", "legend.labelcolor", "grid.color")}}


def style() -> None:
    """Matplotlib as the book wants it: call it once, before the first figure of your own."""
    plt.rcParams.update(STYLE)
    try:
        from matplotlib_inline.backend_inline import set_matplotlib_formats
        set_matplotlib_formats("retina")
    except ImportError:  # not in a notebook
        pass


def figure(fig, alt: str) -> Picture:
    """A matplotlib figure as a Picture: SVG whose grey text and lines take the page's own text colour."""
    svg, png = io.StringIO(), io.BytesIO()
    fig.savefig(svg, format="svg", metadata={"Date": None}, transparent=True)
    fig.savefig(png, format="png", dpi=RETINA * fig.dpi, transparent=True)
    width = round(fig.get_figwidth() * fig.dpi)
    plt.close(fig)  # else the notebook shows it a second time
    text = svg.getvalue()
    # two figures on a page must not share ids
    key = f"p{hashlib.sha256(svg.getvalue().encode()).hexdigest()[:8]}-"
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{key}", text)
    text = re.sub(GREY, "currentColor", text, flags=re.IGNORECASE)
    safe = html.escape(" ".join(alt.split()), quote=True)
    opening = f'<svg role="img" aria-label="{safe}" '.replace("\\", r"\\")
    text = re.sub(r'<svg ([^>]*?)width="[^"]*"', opening + r'\1width="100%"', text, count=1)
    text = re.sub(r'(<svg [^>]*?)height="[^"]*"', r"\1", text, count=1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return Picture(text.encode(), "svg", width, alt, png.getvalue())


@dataclass(frozen=True)
class Table:
    """Rows of cells that a notebook shows as an HTML table."""
    html: str

    def _repr_html_(self) -> str:
        return self.html


BOUNDED = re.compile(r"(?P<value>.+) \((?P<low>\S+) to (?P<high>\S+)\)(, p(?: |&nbsp;)=(?: |&nbsp;)(?P<p>\S+))?")
TIED = re.compile(r" (?=±)|(?<=±) |(?<=\d) (?=of \d)|(?<=\d of) |(?<=,) (?=\w+\})")  # spaces at which no line ends
RANGE = re.compile(r"(?P<low>\S*\d\S*) to (?P<high>\S*\d\S*)")


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """A table of HTML cells under a head; the first cell of a row is its name. One number a cell: of "4.5 (4.2 to 4.8)", of
    that with ", p = 0.02" behind it, and of a range, "2 to 3", each has a cell of its own, headed "from", "to" and "p".
    Raises ValueError for a row of another length than the head."""
    rows = [list(row) for row in rows]
    for k, row in enumerate(rows):
        if len(row) != len(head):
            raise ValueError(f"rows: expected {len(head)} cells in each, as in the head, found {len(row)} in row {k}")
    names, *others = zip(head, *rows)
    kinds, columns = zip(("", names), *(part for column in others for part in _parts(*column)))

    def line(cells, tag):
        opening = (f'<{tag} class="{kind}">' if kind else f"<{tag}>" for kind in kinds)
        return "<tr>" + "".join(f"{open}{_set(cell)}</{tag}>" for open, cell in zip(opening, cells)) + "</tr>"

    top, *below = zip(*columns)
    body = "".join(line(row, "td") for row in below)
    return Table(f'<table class="table"><thead>{line(top, "th")}</thead><tbody>{body}</tbody></table>')


def _set(cell: str) -> str:
    """A cell as type: a minus for a hyphen, no line that ends within "2 of 3" or "1 ± 2", an index in xI and zS."""
    cell = re.sub(r"^-(?=\d)", "\N{MINUS SIGN}", TIED.sub("\N{NO-BREAK SPACE}", cell))
    return re.sub(r"\b([xz])([A-Z])\b", r"\1<sub>\2</sub>", cell)


def _parts(heading: str, *cells: str) -> list[tuple[str, list[str]]]:
    """A column as one for each kind of number in its cells: (its class on the page, its heading and cells)."""
    found = [BOUNDED.fullmatch(cell) or RANGE.fullmatch(cell) for cell in cells]
    rows = [match.groupdict("") if match else {"value": cell} for match, cell in zip(found, cells)]
    if {match.re for match in found if match} == {RANGE}:  # a single number is both ends of its own range
        rows = [row if "low" in row else {"low": row["value"], "high": row["value"]} for row in rows]
    kinds = [kind for kind in ("value", "low", "high", "p") if any(row.get(kind) for row in rows)] or ["value"]
    named = {"value": heading, "low": "from" if "value" in kinds else f"{heading}: from", "high": "to", "p": "p"}
    look = {"value": "", "low": "bound", "high": "bound", "p": "bound"} if "value" in kinds else {"low": "", "high": "end"}
    return [(look[kind], [named[kind], *(row.get(kind, "") for row in rows)]) for kind in kinds]


def block(name: str, colour: str = GREY) -> str:
    """A block's name in its colour, as HTML: the page's own, var(--zi-text) for "I", or else this one."""
    if name == "Z":
        return "z"
    key = "z" + re.sub(r"\W", "", name.lower())
    return f'<span class="{key}" style="color:var(--{key}-text,{ink(colour)})">z<sub>{html.escape(name)}</sub></span>'


def symbol(letter: str, name: str) -> str:
    """A variable as mathematics: "$z_{I}$"; a subscript that is a word stands upright."""
    if name == "Z":
        return f"${letter}$"
    word = re.sub(r"([\s_%#&$])", r"\\\1", name)
    return f"${letter}_{{{name}}}$" if len(name) == 1 else f"${letter}_{{\\mathrm{{{word}}}}}$"


@plt.rc_context(STYLE)
def loss_curves(log: dict[str, np.ndarray], smooth: int = 1, alt: str | None = None) -> Picture:
    """The terms of the loss while training: reconstruction of each modality, and the KL of each block; nats a row.

    log: {"iteration": (N,), "I+T.reconstruction.I": (N,), "I+T.kl.S": (N,), ...}, as `train` writes it; terms of all
    modalities are drawn solid, those of fewer dashed. smooth: a running mean over so many rows.
    Raises ValueError if the log has no such column.
    """
    steps = np.asarray(log["iteration"], float)
    fig = Figure(figsize=(7, 3.8), layout="constrained", dpi=100)
    axes = dict(zip(("reconstruction", "kl"), fig.subplots(1, 2)))
    late = steps >= steps[0] + 0.05 * (steps[-1] - steps[0])  # the first rows would flatten all others
    terms = [name.split(".") for name in log if name.count(".") >= 2 and name.split(".")[1] in axes]
    whole = max((subset for subset, *_ in terms), key=lambda subset: subset.count("+"), default="")
    names = dict.fromkeys([*whole.split("+"), *(part for _, term, part, *_ in terms if term == "reconstruction")])
    tints, shown = colours([*names, *(part for _, term, part, *_ in terms if term == "kl")]), {term: [] for term in axes}
    for name, values in log.items():
        subset, term, part = (name.split(".") + ["", ""])[:3]
        if term not in axes:
            continue
        values = np.asarray(values, float)
        if smooth > 1:  # the mean of the rows so far, at most `smooth` of them
            total = np.concatenate([[0], values.cumsum()])
            start = np.maximum(np.arange(1, len(values) + 1) - smooth, 0)
            values = (total[1:] - total[start]) / (np.arange(1, len(values) + 1) - start)
        line, = axes[term].plot(steps, values, color=tints[part], linestyle="-" if subset == whole else DASHED)
        if subset == whole or "+" not in whole and subset in names:  # where no ELBO is of several, each part has its own
            line.set_label(symbol("z" if term == "kl" else "x", part))
        shown[term] += [values[late].min(), values[late].max()]
    if not any(shown.values()):
        raise ValueError(f'log: found columns {sorted(log)}, expected "s.reconstruction.m", "s.kl.block"')
    for (term, ax), title in zip(axes.items(), ("reconstruction, nats", "KL to the prior, nats")):
        ax.set(title=title, xlabel="iteration")
        ax.locator_params(axis="x", nbins=4)
        if shown[term]:
            low, high = 0 if term == "kl" else min(shown[term]), max(shown[term])
            ax.set_ylim(low - 0.05 * (high - low) - 1e-9, high + 0.05 * (high - low) + 1e-9)
        if term == "reconstruction" and any(line.get_linestyle() == "--" for line in ax.lines):
            pair = len(names) == 2
            ax.plot([], [], color=GREY, label="given both" if pair else "given all")
            ax.plot([], [], color=GREY, linestyle=DASHED, label="given one" if pair else "given fewer")
        ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2 if term == "reconstruction" else 3,
                  handlelength=1.4, columnspacing=1.2, borderaxespad=0)
    alt = alt or "Loss against iteration: left the reconstruction of each modality, right the KL of each block."
    return figure(fig, alt)


@plt.rc_context(STYLE)
def heatmap(table, rows: Sequence[str] | None = None, columns: Sequence[str] | None = None, low: float = 0.0,
            high: float = 1.0, digits: int = 2, alt: str | None = None, colours: dict[str, str] | None = None) -> Picture:
    """A table of scores as colours with the numbers in its cells; dark is low, yellow is high.

    table: (R, C) numbers, or {row: {column: number}}. rows, columns: labels. colours: of the rows that are blocks, {row:
    colour}, as `mmvae.show.picture.colours` gives them. low, high: the ends of the colours. NaN is left empty. Raises
    ValueError if the counts differ.
    """
    if isinstance(table, dict):
        rows = list(rows or table)
        columns = list(columns or table[rows[0]])
        table = [[table[r][c] for c in columns] for r in rows]
    table = np.asarray(table, float)
    if rows is None or columns is None or table.shape != (len(rows), len(columns)):
        expected = (len(rows or ()), len(columns or ()))
        raise ValueError(f"table: found shape {table.shape}, expected {expected} from its rows and columns")
    size = (min(7, 1.1 + 1.35 * len(columns)), 0.6 + 0.55 * len(rows))
    fig = Figure(figsize=size, layout="constrained", dpi=100)
    ax = fig.subplots()
    image = ax.imshow(table, cmap="cividis", vmin=low, vmax=high, aspect="auto")
    for r, c in np.argwhere(~np.isnan(table)):
        red, green, blue, _ = image.cmap(image.norm(table[r, c]))
        dark = 0.2126 * red ** 2.2 + 0.7152 * green ** 2.2 + 0.0722 * blue ** 2.2 < 0.18  # relative luminance
        ax.text(c, r, f"{table[r, c]:.{digits}f}".replace("-", "\N{MINUS SIGN}"), ha="center", va="center",
                color="white" if dark else "black")
    ax.set_xticks(range(len(columns)), columns)
    blocks = colours or {}
    ax.set_yticks(range(len(rows)), [symbol("z", r) if r in blocks else r for r in rows])
    for label, row in zip(ax.get_yticklabels(), rows):
        label.set(color=ink(blocks.get(row, GREY)), fontsize=14 if row in blocks else None)
    ax.xaxis.tick_top()
    ax.tick_params(length=0)
    ax.spines[:].set_visible(False)
    cells = "; ".join(f"{r}: " + ", ".join(f"{c} {v:.{digits}f}" for c, v in zip(columns, line))
                      for r, line in zip(rows, table))
    return figure(fig, alt or f"Table of scores. {cells}.")
