"""The README keeps its word: its Python runs as written in an empty folder, and what it names exists."""
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import mmvae

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book"))
import repo  # noqa: E402

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", README, re.M | re.S)
MADE = {"mmvae/experiment/published/mumo.json", "book/_static/traversal.gif"}  # by `make publish`, and committed
MAP = re.search(r"^## The map\n.*?^```text\n(.*?)^```", README, re.M | re.S)[1]


def test_there_are_blocks_to_run():
    assert len(BLOCKS) >= 5 and "log_likelihood(model, x, given=" in BLOCKS[0]


@pytest.mark.parametrize("code", BLOCKS, ids=[f"block{k + 1}" for k in range(len(BLOCKS))])
def test_python_runs_as_written(code, tmp_path):
    paths = [str(ROOT), os.environ.get("PYTHONPATH")]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr[-2000:]


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    named = set(re.findall(r"(?:`|^)make ([a-z-]+)", README, re.M))
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    assert {"book", "test", "publish"} <= named <= targets


def named_files():
    prose = re.sub(r"^```.*?^```", "", README, flags=re.M | re.S)
    links = set(re.findall(rf"\]\({re.escape(repo.address())}/(?:blob|raw)/main/([^)\s]+)\)", prose))
    return links | set(re.findall(r"`((?:(?:book|notebooks|mmvae|tests)/)?[\w./]+\.(?:txt|json|gif|py|md))`", README))


def test_named_files_exist():
    files = named_files()
    assert {"LICENSE", "constraints.txt"} | MADE <= files
    assert {file for file in files - MADE if not (ROOT / file).exists()} == set()


def test_links_are_absolute():
    """The README is also shown where there is no repository around it."""
    prose = re.sub(r"^```.*?^```", "", README, flags=re.M | re.S)
    assert {link for link in re.findall(r"\]\(([^)\s]+)\)", prose) if not link.startswith("https://")} == set()


@pytest.mark.parametrize("file", sorted(MADE))
def test_results_of_make_publish_exist(file):
    assert (ROOT / file).stat().st_size > 1000


def test_the_map_names_every_file_of_the_package_and_every_chapter():
    """The core a line a file, in the order of reading; the files of a room in a sentence."""
    rooms = {path.parent.name for path in (ROOT / "mmvae").glob("*/__init__.py")}
    said = {folder: text for folder, text in re.findall(r"^mmvae/(\w*)/? +((?:.*\n)(?: .*\n)*)", MAP, re.M)}
    assert set(said) == rooms | {""}
    for room in said:
        files = {path.stem for path in (ROOT / "mmvae" / room).glob("*.py")} - {"__init__", "__main__"}
        assert {name for name in files if not re.search(rf"\b{name}\b", said[room])} == set(), room
    core = re.findall(r"^  ([a-z]+)  ", said[""], re.M)
    assert set(core) == {path.stem for path in (ROOT / "mmvae").glob("*.py")} - {"__init__"}
    assert core[:6] == ["gaussian", "likelihoods", "nets", "models", "data", "train"]
    for folder in re.findall(r"^([a-z/]+)/ ", MAP, re.M):
        assert (ROOT / folder).is_dir() or folder == "_build"
    chapters = {path.name[:2] for path in (ROOT / "notebooks").glob("[0-9]*.ipynb")}
    assert set(re.findall(r"\b([01]\d) (?=\w)", MAP)) == chapters


@pytest.mark.parametrize("page", ["README.md", "book/intro.md"])
def test_the_hour_is_as_long_as_it_says(page):
    """To the next hundred lines above."""
    said = re.search(r"six files of under ([\d,]+)\s+lines", (ROOT / page).read_text())[1]
    names = "gaussian", "likelihoods", "nets", "models", "data", "train"
    lines = sum(len((ROOT / "mmvae" / f"{name}.py").read_text().splitlines()) for name in names)
    assert 0 <= int(said.replace(",", "")) - lines < 100, lines


def test_the_models_are_those_of_the_package():
    sentence = re.search(r"^The models are (.*?)\(`mmvae.MODELS`\)", README, re.M | re.S)[1]
    assert re.findall(r"`([\w+-]+)`", sentence) == list(mmvae.MODELS)
