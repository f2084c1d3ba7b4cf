"""No result stands in a chapter by hand: what is measured is read from a file when the notebook runs, and printed."""
import ast
import json
import re
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").glob("*.ipynb"))
UNIT = r"(?:\s?(?:nats?|degrees|°|%|per cent|sd|seconds|s|ms|×|times|hours)(?![\w(]))"
RESULT = re.compile(rf"(?<![\w.#/{{])[-+−±]?\d[\d,]*(?:\.\d+{UNIT}?|{UNIT})")  # a decimal, or a number with a unit
STATED = {  # chapter: what is no result: a definition, a threshold, a chance level, a setting, a textbook's number
    "*": {"64×", "32×", "16×", "8×", "0.1 nats", "0.8", "0.2", "0.10", "0.5", "95 %"},  # the level of an interval
    "01": {"0°", "20 %", "80 %", "0.3", "30°"},  # neutral; a split; guesses; a threshold; an exercise's choice
    "02": {"±2.5", "90 %", "320 nats"},  # a span; an interval; a made-up report
    "05": {"0.01"},  # a grid
    "06": {"0.01 nats", "1 nat"},  # contour levels
    "07": {"20 nats"},  # a made-up report
    "08": {"5°", "3 nats", "1.9", "0.02 nats", "0.7", "0.3", "0.95", "0.05", "0.4"},  # thresholds; made-up questions
    "09": {"0.25", "50%"},  # beta; chance
    "10": {"0.001", "0.0001 nats", "0°", "90°", "2 nats"},  # an axis; angles; a made-up report
    "12": {"0.05"},  # a level
}


def prose(cell: dict) -> str:
    """The words of a Markdown cell: no formulas, no code, no links' targets, no minutes of a section."""
    text = "".join(cell["source"])
    for gone in (r"\$\$.*?\$\$", r"```.*?```", r"\$[^$\n]*(?:\n[^$\n]*)?\$", r"`[^`]*`", r"\]\([^)]*\)", r"\*\(\d+ minutes?\)\*",
                 r"\{[\w:]+\}`[^`]*`"):
        text = re.sub(gone, " ", text, flags=re.S)
    return text


def strings(cell: dict) -> str:
    """The literal text of a code cell's strings: what a notebook could print; no docstrings, formats, attributes."""
    tree = ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", "".join(cell["source"]), flags=re.M))
    gone = {id(part) for node in ast.walk(tree) if isinstance(node, ast.FormattedValue) and node.format_spec
            for part in ast.walk(node.format_spec)}
    gone |= {id(node.body[0].value) for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.ClassDef))
             and isinstance(node.body[0], ast.Expr)}
    text = "\n".join(node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)
                     and isinstance(node.value, str) and id(node) not in gone)
    return re.sub(r'\{[^}]*\}|[\w-]+="[^"]*"|pad=\S+|round,\S+', " ", text)


def by_hand(path: Path) -> list[str]:
    allowed = STATED["*"] | STATED.get(path.stem[:2], set())
    found = []
    for cell in json.loads(path.read_text())["cells"]:
        if "solution" in cell["metadata"].get("tags", ()):
            continue
        text = prose(cell) if cell["cell_type"] == "markdown" else strings(cell)
        found += [f"{cell['id']}: {hit[0]!r} in {text[max(0, hit.start() - 40):hit.end() + 20]!r}"
                  for hit in RESULT.finditer(text) if hit[0].strip() not in allowed]
    return found


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_no_number_stands_in_a_chapter_by_hand(path):
    assert not by_hand(path), "\n".join(by_hand(path))


def test_a_number_by_hand_is_caught(tmp_path):
    def caught(*cells):
        path = tmp_path / "11_x.ipynb"
        path.write_text(json.dumps({"cells": [{"cell_type": kind, "id": "c", "metadata": {}, "source": [text]}
                                              for kind, text in cells]}))
        return len(by_hand(path))

    for text in ("MuMo reaches an ELBO of −2,596.4 nats", "off by 29° against 8°", "found in 93% of runs",
                 "its R² is 0.95", "it took 28 s", "12 nats better"):
        assert caught(("markdown", text)), text
    assert caught(("code", 'print("MuMo wins by 12.3 nats")')) and caught(("code", 'print("off by 29°")'))
    for text in ("Five seeds, 0 to 4", "chapter 9, exercise 3", "an image of $3.5$ by `0.25`", "$$ a = 0.7 $$ (eq-x)",
                 "*(7 minutes)*", "at 64×64", "$R^2 \\ge 0.8$ at home"):
        assert not caught(("markdown", text)), text
    assert not caught(("code", 'print(f"{x:.1f} nats")'))
