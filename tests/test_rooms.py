"""The house: which file may import which, how long the files of the hour are, and who knows the modalities by name."""
import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "mmvae"
HOUR = "gaussian", "likelihoods", "nets", "models", "data", "train"  # the files that are read in an hour
EXPERIMENT = {"I", "T", "IT", "I+T", "identity", "azimuth", "elevation", "light"}  # names of the book's pair and its factors
FILES = sorted(PACKAGE.rglob("*.py"))


def name(path: Path) -> str:
    return path.relative_to(PACKAGE).as_posix()


def of_the_experiment(path: Path) -> bool:
    return name(path).split("/")[0] in ("faces", "experiment")


# ---- imports

@pytest.fixture(scope="module")
def graph():
    grimp = pytest.importorskip("grimp")
    return grimp.build_graph("mmvae", cache_dir=None)


def test_rooms_import_only_from_those_before_them(monkeypatch):
    """The contracts in pyproject.toml: core <- faces, evaluate <- show <- experiment; and the order within the core."""
    cli = pytest.importorskip("importlinter.cli")
    monkeypatch.chdir(ROOT)
    assert cli.lint_imports(config_filename="pyproject.toml", no_cache=True) == 0  # what is broken is printed


def test_no_circle_of_imports(graph):
    """Those within functions included, and what `mmvae` itself imports when it is first asked for it."""
    import mmvae

    imports = {module: graph.find_modules_directly_imported_by(module) for module in graph.modules}
    imports["mmvae"] = imports["mmvae"] | {f"mmvae.{module}" for module in {*mmvae._ELSEWHERE.values(), *mmvae._MODULES}}
    try:
        order = list(TopologicalSorter(imports).static_order())
    except CycleError as error:
        pytest.fail("a circle of imports: " + " <- ".join(error.args[1]))
    assert len(order) >= len(FILES) and order[-1].startswith("mmvae")


def test_import_alone_is_light():
    """What only some readers need loads when they first use it; and it is there under its name."""
    heavy = "h5py", "matplotlib", "sklearn", "anywidget", "scipy", "PIL"
    code = ("import sys, mmvae; mmvae.PoEVAE({'a': mmvae.vectors(3), 'b': mmvae.categories(4)});"
            f"print([m for m in {heavy} if m in sys.modules]);"
            "print([n for n in (*mmvae._MODULES, *mmvae._ELSEWHERE) if not getattr(mmvae, n)])")
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["[]", "[]"]


def test_every_room_says_what_is_public():
    import mmvae

    for room in (mmvae, mmvae.faces, mmvae.evaluate, mmvae.show, mmvae.experiment):
        names = getattr(room, "__all__", None) or [*getattr(room, "_NAMES", ()), *room._MODULES]
        assert room.__doc__ and names and len(set(names)) == len(names), room.__name__
        assert [n for n in names if not hasattr(room, n)] == [], room.__name__


# ---- sizes

def lines(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def test_the_six_files_are_read_in_an_hour():
    found = {n: lines(PACKAGE / f"{n}.py") for n in HOUR}
    assert sum(found.values()) <= 1100, found


def test_files_are_short():
    assert {name(path): lines(path) for path in FILES if lines(path) > 300} == {}


def test_lines_are_short():
    wide = [f"{name(p)}:{k}" for p in FILES for k, line in enumerate(p.read_text(encoding="utf-8").splitlines(), 1)
            if len(line) > 126]
    assert wide == []


# ---- who knows the experiment

def words(path: Path) -> set[str]:
    """The string constants of a file's code, without its docstrings."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    return {node.value for node in ast.walk(tree)
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs}


@pytest.mark.parametrize("path", [p for p in FILES if not of_the_experiment(p)], ids=name)
def test_only_the_experiment_knows_its_names(path):
    assert words(path) & EXPERIMENT == set()


@pytest.mark.parametrize("path", sorted((PACKAGE / "show").rglob("*.js")), ids=name)
def test_nor_do_the_scripts_of_the_page(path):
    """They have the names from their configuration: as strings, behind a dot, as keys."""
    code = re.sub(r"/\*.*?\*/|(?<!:)//[^\n]*", "", path.read_text(encoding="utf-8"), flags=re.S)
    either = "|".join(map(re.escape, sorted(EXPERIMENT)))
    found = re.finditer(rf"""(["'`])({either})\1|\.({either})\b(?!\()|[{{,]\s*({either})\s*[:,}}]""", code)
    assert [match[0] for match in found] == []


def test_the_words_are_found(tmp_path):
    path = tmp_path / "a.py"
    path.write_text('"""I"""\n# "T"\ndef f():\n    """light"""\n    return x["azimuth"], f"{m}I"\n')
    assert words(path) & EXPERIMENT == {"azimuth", "I"}
