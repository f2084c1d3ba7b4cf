"""Numbers and tables as text."""
import numpy as np


def rows(header: str, body: list[tuple], align: str) -> str:
    """A Markdown table. header: "one | two"; align: "l" or "r" a column."""
    rule = " | ".join({"l": "---", "r": "---:"}[a] for a in align)
    return "\n".join(f"| {line} |" for line in (header, rule, *(" | ".join(map(str, row)) for row in body)))


def number(value: float, digits: int = 0, sign: str = "-") -> str:
    """1234.5 -> "1,234"; sign "+": with its sign, whichever it is."""
    return f"{value:{sign},.{digits}f}".replace("-", "\N{MINUS SIGN}")


def middle(values: list[float], digits: int = 0) -> tuple[str, str]:
    """The median, and the middle half of the values: "123", "120–125"."""
    low, median, high = (number(v, digits) for v in np.quantile(values, (0.25, 0.5, 0.75)))
    return median, f"{low}–{high}"


def ratio(values: list[float], base: list[float], digits: int = 2, unit: str = "") -> str:
    """The ratio of the medians, and the middle half of the ratios within a round: "1.30 (1.28–1.33)"."""
    whole = np.median(values) / np.median(base)
    return f"{number(whole, digits)}{unit} ({middle(np.divide(values, base), digits)[1]})"


def how(record: dict, rates: bool = True) -> str:
    """The settings in a line."""
    settings = ", ".join(f"{key} {value:g}" for key, value in record["settings"].items())
    note = (" A rate is the median over the rounds, a ratio that of two medians; beside them or in brackets is the "
            "middle half of what single rounds have." if rates else "")
    return f"Settings: {settings}.{note}\n\n"
