"""The appendix from equation to code to test: complete, and every name in it exists."""
import ast
import functools
import importlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROWS = re.findall(r"^\{eq\}`(eq-[\w-]+)` (.+)\n: \*computed by\* (.+)\n: \*held to it by\* (.+)$",
                  (ROOT / "book" / "equations.md").read_text(), re.M)
PAGES = {p.stem: p.read_text() for p in sorted((ROOT / "book").glob("*.md"))}
NOTEBOOKS = {p.stem[:2]: json.loads(p.read_text()) for p in sorted((ROOT / "notebooks").glob("*.ipynb"))}


def labels(text: str) -> list[str]:
    return re.findall(r"\$\$\s*\((eq-[\w-]+)\)", text)


def cell_ids(chapter: str) -> set[str]:
    return {cell["id"] for cell in NOTEBOOKS[chapter]["cells"]}


def test_every_labelled_equation_is_listed_once():
    texts = ["".join(cell["source"]) for nb in NOTEBOOKS.values() for cell in nb["cells"]] + list(PAGES.values())
    found = [label for text in texts for label in labels(text)]
    assert len(found) == len(set(found))
    assert sorted(found) == sorted(label for label, *_ in ROWS)


def test_every_displayed_equation_has_a_label():
    for chapter, nb in NOTEBOOKS.items():
        for cell in nb["cells"]:
            text = "".join(cell["source"])
            if cell["cell_type"] == "markdown":
                assert text.count("$$") == 2 * len(labels(text)), f"chapter {chapter}, cell {cell['id']}"
    for name, text in PAGES.items():
        assert text.count("$$") == 2 * len(labels(text)), f"book/{name}.md"


@functools.cache
def functions_in(path: str) -> set[str]:
    return {node.name for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("label, code, test", [(label, code, test) for label, _, code, test in ROWS])
def test_the_code_and_the_test_exist(label, code, test):
    for name in re.findall(r"`(mmvae\.[\w.]+)`", code):
        module = name.split(".")[:2]
        thing = importlib.import_module(".".join(module))
        for part in name.split(".")[2:]:
            thing = getattr(thing, part)
    for text in (code, test):
        for chapter, cell in re.findall(r"chapter (\d+), cell `([\w-]+)`", text):
            assert cell in cell_ids(f"{int(chapter):02d}"), f"{label}: no cell {cell} in chapter {chapter}"
    for path, name in re.findall(r"`((?:tests|benchmarks)/\w+\.py)::(\w+)`", f"{code} {test}"):
        assert name in functions_in(path), f"{label}: no {name} in {path}"
    assert re.search(r"`mmvae\.|`benchmarks/|cell `", code), f"{label}: no code named"
    assert re.search(r"`tests/|cell `", test), f"{label}: no test named"


def test_docstrings_cite_equations_that_exist():
    cited = {label for path in (ROOT / "mmvae").rglob("*.py")
             for bracket in re.findall(r"\[(eq-[\w\-, ]+)\]", path.read_text()) for label in bracket.split(", ")}
    assert cited - {"eq-poe-gaussian"} and cited <= {label for label, *_ in ROWS}
