"""The book itself: sources without outputs, chapters in full form, a check that catches a broken site."""

import base64
import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import tomllib
import torch
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book"))
import build  # noqa: E402
import check  # noqa: E402
import repo  # noqa: E402
import stage  # noqa: E402
from mmvae.show.widgets import bundle  # noqa: E402

NOTEBOOKS = check.notebooks()
PAGES = sorted(path for path in (ROOT / "book").rglob("*.md") if path.parent.name != "paper")
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def source(cell):
    return "".join(cell["source"])


def tagged(nb, tag):
    return [cell for cell in nb["cells"] if tag in check.tags(cell)]


def tracked_files():
    """Paths of all text files that are in the repository, or would be."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    git = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if git.returncode:
        pytest.skip("not a git checkout")
    texts = (".py", ".md", ".ipynb", ".toml", ".txt", ".yml", ".cff", ".bib", ".css", ".svg", "")
    paths = [ROOT / line for line in git.stdout.splitlines()]
    return [path for path in paths if path.is_file() and path.suffix in texts]


# ---------------------------------------------------------------- notebooks


def test_the_chapters_are_there():
    assert [path.stem for path in NOTEBOOKS] == [
        "01_two_pictures",
        "02_vae",
        "03_vanilla_vae",
        "04_mumo_vae",
        "05_mmpoe_v1",
        "06_mmpoe_v2",
        "07_side_by_side",
        "08_what_did_they_learn",
        "09_why_the_partition",
        "10_exact_oracle",
        "11_your_own_data",
        "12_what_came_after",
        "13_the_frontier",
        "14_failure_gallery",
    ]


@every_notebook
def test_source_carries_no_outputs(path):
    for cell in check.read_notebook(path)["cells"]:
        if cell["cell_type"] == "code":
            assert not cell["outputs"] and cell["execution_count"] is None, source(cell)[:80]
    assert "widgets" not in check.read_notebook(path)["metadata"]


@every_notebook
def test_first_cells(path):
    nb = check.read_notebook(path)
    title, url = source(nb["cells"][0]), repo.address()
    colab = f"https://colab.research.google.com/{url.removeprefix('https://').replace('.com', '')}"
    assert re.match(r"# \S", title) and ":class: goals" in title and re.search(r"\d+ minutes", title)
    assert f"({colab}/blob/gh-pages/colab/{path.name})" in title  # the copy beside the site: book/colab.py
    [setup], [parameters] = tagged(nb, "setup"), tagged(nb, "parameters")
    assert f"git+{url}" in source(setup) and "google.colab" in source(setup)
    assert source(parameters).startswith('PROFILE = ""')
    assert nb["cells"].index(setup) < nb["cells"].index(parameters) < 4
    assert nb["metadata"]["kernelspec"]["name"] == "python3"


@every_notebook
def test_cells_are_small(path):
    for cell in check.code_cells(check.read_notebook(path)):
        lines = [line for line in source(cell).splitlines() if line.strip()]
        assert len(lines) <= 18 and max(map(len, lines)) <= 110, source(cell)[:80]


@every_notebook
def test_exercises_have_solutions_that_run(path):
    cells = check.read_notebook(path)["cells"]
    starts = [i for i, cell in enumerate(cells) if re.search(r"^### Exercise \d", source(cell), re.M)]
    assert len(starts) >= 3
    for start, end in zip(starts, [*starts[1:], len(cells)]):
        solutions = [c for c in cells[start:end] if c["cell_type"] == "code" and "solution" in check.tags(c)]
        assert solutions and all("hide-cell" in check.tags(cell) for cell in solutions), source(cells[start])[
            :80
        ]


@every_notebook
def test_form_of_a_chapter(path):
    text = "\n".join(
        source(cell) for cell in check.read_notebook(path)["cells"] if cell["cell_type"] == "markdown"
    )
    for box in ("goals", "prediction", "recap"):
        assert re.search(rf":class:.*\b{box}\b", text), f"no box of class {box}"


@every_notebook
def test_captions_are_whole(path):
    captions = tagged(check.read_notebook(path), "caption")
    assert captions, "a chapter has pictures, and every picture a caption"
    for cell in captions:
        assert cell["metadata"].get("name", "").startswith("fig-") and cell["metadata"].get("alt"), source(
            cell
        )[:80]


@every_notebook
def test_no_output_widgets(path):
    """nbclient, under Papermill and nbmake, at times hangs for ever on one: jupyter/nbclient issue 312."""
    for cell in check.code_cells(check.read_notebook(path)):
        assert not re.search(r"\b(interact|interactive|interactive_output|Output)\(", source(cell)), source(
            cell
        )[:80]


def test_labels_are_unique():
    labels = [
        cell["metadata"]["name"]
        for path in NOTEBOOKS
        for cell in tagged(check.read_notebook(path), "caption")
    ]
    texts = [
        source(c) for p in NOTEBOOKS for c in check.read_notebook(p)["cells"] if c["cell_type"] == "markdown"
    ]
    labels += [label for text in texts for label in re.findall(r"^\s*\$\$ \((eq-[\w-]+)\)", text, re.M)]
    assert len(labels) == len(set(labels)), sorted({label for label in labels if labels.count(label) > 1})


# ---------------------------------------------------------------- pages and configuration


def test_toc_lists_everything():
    files = {f"notebooks/{path.stem}" for path in NOTEBOOKS} | {path.relative_to(ROOT).with_suffix("").as_posix() for path in PAGES}
    assert set(check.toc_entries()) == files | {"book/status"}  # the status page is made when the site is


def test_cited_keys_exist():
    keys = set(re.findall(r"^@\w+\{([^,]+),", (ROOT / "book/references.bib").read_text(), re.M))
    cited = {
        key.strip()
        for path in [*NOTEBOOKS, *PAGES]
        for group in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", path.read_text())
        for key in group.split(",")
    }
    assert cited <= keys, sorted(cited - keys)


def test_constraints_satisfy_the_floors():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    wanted = [
        *project["dependencies"],
        *project["optional-dependencies"]["book"],
        *project["optional-dependencies"]["lab"],
        *project["optional-dependencies"]["test"],
    ]
    for line in wanted:
        need = Requirement(line)
        assert "==" not in line and ">=" in line, f"{line}: pyproject.toml has only floors"
        assert need.specifier.contains(
            pins[need.name]
        ), f"{need.name} {pins[need.name]} is not {need.specifier}"
    assert not [name for name in pins if name.startswith(("nvidia", "cuda", "triton"))]


def test_installed_versions_are_those_tested():
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line
    )
    for name in ("torch", "jupyter-book", "papermill", "myst-nb"):
        try:
            found = version(name).split("+")[0]
        except PackageNotFoundError:
            pytest.skip(f"{name} is not installed")
        if found != pins[name]:
            pytest.skip(f"{name} {found} instead of {pins[name]}: not the environment that `make env` makes")


def test_no_paths_of_a_machine():
    """Nor an address of a package registry: pip's own configuration says where packages come from."""
    here = re.compile(
        r"(?<![\w.])/(?:home|root|tmp|work|Users|opt)/\w|py[p]i\.org|python[h]osted|-inde[x]-url"
    )
    for path in tracked_files():
        found = here.search(path.read_text(encoding="utf-8"))
        assert not found, f"{path.relative_to(ROOT)}: {found[0]}"


# ---------------------------------------------------------------- make repo


def test_repo_address_is_set_everywhere(tmp_path):
    for path in ROOT.iterdir():
        if path.is_file() and not path.name.startswith("."):
            shutil.copy(path, tmp_path)
    for folder in ("notebooks", "book", "mmvae", ".github", ".binder", ".devcontainer"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    old = repo.address(tmp_path)
    assert repo.set_address("https://github.com/some-one/else.where.git/", tmp_path)
    assert repo.address(tmp_path) == "https://github.com/some-one/else.where"
    owner, name = old.removeprefix("https://github.com/").split("/")
    trace = re.compile(rf"{owner}/{name}|{owner}\.github|cd {name}\b|^ *notfound_urls_prefix: /{name}/", re.M)
    assert "&& cd else.where\n" in (tmp_path / "README.md").read_text() + "\n"
    assert repo.site(repo.address(tmp_path)) == "https://some-one.github.io/else.where"
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert not trace.search(path.read_text(encoding="utf-8", errors="ignore")), path.relative_to(
                tmp_path
            )
    assert repo.set_address(old, tmp_path)
    for name in ("pyproject.toml", "_config.yml", "README.md", ".github/ISSUE_TEMPLATE/config.yml"):
        assert (tmp_path / name).read_text() == (ROOT / name).read_text()
    with pytest.raises(ValueError, match="expected https://github.com/owner/name"):
        repo.set_address("gitlab.com/a/b", tmp_path)


# ---------------------------------------------------------------- the check, on tiny sites

PICTURE = {"output_type": "display_data", "metadata": {}, "data": {"image/png": "iVBORw0KGgo="}}
HEAD = "".join(f'{tag}https://x">' for tag in check.ON_EVERY_PAGE)
PAGE = f"<html><head>{HEAD}</head><body><article><h1>Title</h1><p>" + "word " * 30 + "</p></article></body></html>"


def notebook_file(path, count=None, outputs=()):
    cells = [
        {
            "cell_type": "code",
            "metadata": {},
            "source": "1",
            "execution_count": count,
            "outputs": list(outputs),
        }
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}))


@pytest.fixture
def tiny(tmp_path):
    """A whole site of one chapter and one page."""
    toc = {"format": "jb-book", "root": "book/intro", "parts": [{"chapters": [{"file": "notebooks/01_a"}]}]}
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(toc))
    notebook_file(tmp_path / "notebooks/01_a.ipynb")
    notebook_file(tmp_path / "_build/executed/smoke/01_a.ipynb", 1, [PICTURE, PICTURE])
    for page in ("book/intro", "notebooks/01_a"):
        path = tmp_path / f"_build/html-smoke/{page}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(PAGE)
    for name in (".nojekyll", "404.html", "robots.txt"):
        (tmp_path / "_build/html-smoke" / name).touch()
    (tmp_path / "_build/html-smoke/sitemap.xml").write_text("<loc>a/book/intro.html</loc><loc>a/notebooks/01_a.html</loc>")
    return tmp_path


def test_check_passes_a_whole_site(tiny):
    assert check.problems("smoke", tiny) == []


def test_check_fails_an_empty_build(tiny):
    shutil.rmtree(tiny / "_build")
    assert any("there is no page" in line for line in check.problems("smoke", tiny))
    shutil.rmtree(tiny / "notebooks")
    assert any("there are none" in line for line in check.problems("smoke", tiny))


@pytest.mark.parametrize(
    "text, says",
    [
        (None, "there is no page"),
        (HEAD + "<article></article>", "the page is empty"),
        (PAGE.replace("og:image", "image"), 'no <meta property="og:image"'),
        (PAGE.replace("</p>", "<span>Traceback</span> (most recent call last)</p>"), "a traceback"),
        (PAGE + '<script src="https://cdn.example/x.js"></script>', "https://cdn.example/x.js"),
        (PAGE + '<link rel="stylesheet" href="//fonts.example/f.css">', "//fonts.example/f.css"),
        (PAGE + '<a class="x" href="../_sources/gone.ipynb">get it</a>', "../_sources/gone.ipynb, which is not there"),
    ],
)
def test_check_fails_a_bad_page(tiny, text, says):
    page = tiny / "_build/html-smoke/notebooks/01_a.html"
    page.write_text(text) if text else page.unlink()
    [line] = check.problems("smoke", tiny)
    assert line.startswith("notebooks/01_a:") and says in line


@pytest.mark.parametrize(
    "count, outputs, says",
    [
        (None, [PICTURE, PICTURE], "0 of 1 code cells"),
        (1, [PICTURE], "1 pictures, expected at least 2"),
        (
            1,
            [PICTURE, PICTURE, {"output_type": "error", "ename": "E", "evalue": "", "traceback": []}],
            "ended in an error",
        ),
    ],
)
def test_check_fails_a_bad_run(tiny, count, outputs, says):
    notebook_file(tiny / "_build/executed/smoke/01_a.ipynb", count, outputs)
    [line] = check.problems("smoke", tiny)
    assert line.startswith("notebooks/01_a.ipynb:") and says in line


def test_check_fails_a_notebook_that_is_not_in_the_toc(tiny):
    notebook_file(tiny / "notebooks/02_b.ipynb")
    assert {"notebooks/02_b.ipynb: not in _toc.yml", "notebooks/02_b.ipynb: was not executed"} <= set(
        check.problems("smoke", tiny)
    )


# ---------------------------------------------------------------- staging


def staged(outputs, **metadata):
    code = {
        "cell_type": "code",
        "metadata": {"papermill": {}},
        "source": "draw()",
        "execution_count": 1,
        "outputs": outputs,
    }
    caption = {"cell_type": "markdown", "source": "See it.", "metadata": {"tags": ["caption"], **metadata}}
    return stage.stage_notebook(
        {"cells": [code, caption], "metadata": {"widgets": {}, "papermill": {}}}, "x.ipynb"
    )


def test_staging_folds_the_caption_and_drops_what_needs_a_kernel():
    view = {"output_type": "display_data", "metadata": {}, "data": {stage.WIDGET_VIEW: {}}}
    bar = {"output_type": "stream", "name": "stderr", "text": "50%"}
    nb = staged([bar, view, PICTURE], name="fig-x", alt="A face")
    [cell] = nb["cells"]
    assert cell["outputs"] == [PICTURE] and nb["metadata"] == {}
    assert cell["metadata"] == {
        "mystnb": {"image": {"alt": "A face"}, "figure": {"name": "fig-x", "caption": "See it."}}
    }


def test_staging_shows_one_bar_for_folded_cells_that_follow_each_other():
    def cell(source, outputs=(), *tags):
        return {"cell_type": "code", "metadata": {"tags": ["hide-input", *tags]}, "source": source, "outputs": list(outputs)}

    text = {"cell_type": "markdown", "metadata": {}, "source": "Words."}
    cells = [cell("a"), cell("b\n"), cell("c", [PICTURE], "pixelated"), cell("d"), text, cell("e")]
    shown = stage.stage_notebook({"cells": cells, "metadata": {}}, "x.ipynb")["cells"]
    assert [c["source"] for c in shown] == ["a\n\nb\n\nc", "d", "Words.", "e"]
    assert shown[0]["outputs"] == [PICTURE] and "pixelated" in check.tags(shown[0])
    profile = {**cell("p"), "metadata": {"tags": ["parameters", "remove-cell"]}}
    shown = stage.stage_notebook({"cells": [profile, cell("a")], "metadata": {}}, "x.ipynb")["cells"]
    assert [c["source"] for c in shown] == ["p\n\na"] and check.tags(shown[0]) == ["hide-input"]


WIDGET = '<div class="mmvae-widget"><script type="application/json">{"a": "0123456789abcdef"}</script>still</div>'


def widget_cell(page=WIDGET):
    data = {stage.WIDGET_VIEW: {}, "text/html": page, "text/plain": "Explorer()"}
    view = {"output_type": "display_data", "metadata": {}, "data": data}
    return {"cell_type": "code", "metadata": {"tags": ["widget"]}, "source": "sliders()", "outputs": [view]}


def test_staging_keeps_of_a_widget_what_lives_without_a_kernel():
    nb = stage.stage_notebook({"cells": [widget_cell(), widget_cell("<p>no widget of ours")], "metadata": {}}, "x.ipynb")
    [shown], nothing = (cell["outputs"] for cell in nb["cells"])
    assert shown["data"] == {"text/html": WIDGET + stage.START} and not nothing


def test_a_page_does_not_carry_its_pictures(tmp_path):
    from mmvae.show import plot

    frames = torch.rand(2, 4, 1, 8, 8)
    for picture in (plot.grid(frames[0], 4, alt="Four"), plot.grid(frames, 4, alt="Four, in motion")):
        text = picture._repr_html_()
        light = stage.lighter(text, tmp_path)
        assert "base64" in text and "base64" not in light and len(light) < 2500
        for tag in re.findall(r"<img[^>]*>", light):
            assert 'loading="lazy"' in tag and re.search(r' width="\d+"', tag) and re.search(r' height="\d+"', tag)
            file = tmp_path / re.search(r' src="../pictures/([^"]+)"', tag)[1]
            assert base64.b64encode(file.read_bytes()).decode() in text
    assert stage.lighter(WIDGET, tmp_path) == WIDGET


def test_the_assets_of_a_page_are_those_its_widgets_name():
    assert stage.asset_names({"cells": [widget_cell()]}) == {"0123456789abcdef"}


def test_the_script_of_the_widgets_has_every_module_once():
    text = bundle()
    assert "mmvaeAsset" in text and text.startswith("if (!globalThis.mmvae)") and ".mmvae-widget.alive" in text
    for kind in ("explorer", "faces", "experts", "rate"):
        assert kind in text
    assert "export default" not in text


@pytest.mark.parametrize(
    "outputs, metadata",
    [
        ([], {"name": "fig-x", "alt": "A face"}),
        ([PICTURE, PICTURE], {"name": "fig-x", "alt": "A face"}),
        ([PICTURE], {"name": "fig-x"}),
        ([PICTURE], {"alt": "A face"}),
    ],
)
def test_staging_refuses_a_caption_without_its_picture(outputs, metadata):
    with pytest.raises(SystemExit, match="exactly one picture"):
        staged(outputs, **metadata)


def test_an_executed_notebook_depends_on_source_profile_code_weights_and_versions(tmp_path):
    notebook_file(tmp_path / "notebooks/01_a.ipynb")
    (tmp_path / "mmvae/experiment/published").mkdir(parents=True)
    (tmp_path / "mmvae/show").mkdir()
    (tmp_path / "mmvae/show/a.py").write_text("a = 1")
    (tmp_path / "mmvae/experiment/published/a.json").write_text("1")
    (tmp_path / "constraints.txt").write_text("torch==1")
    notebook = tmp_path / "notebooks/01_a.ipynb"
    seen = {build.notebook_hash(notebook, "smoke", tmp_path), build.notebook_hash(notebook, "cpu", tmp_path)}
    for name, text in (("mmvae/show/a.py", "a = 2"), ("mmvae/experiment/published/a.json", "2"), ("constraints.txt", "torch==2")):
        (tmp_path / name).write_text(text)
        seen.add(build.notebook_hash(notebook, "smoke", tmp_path))
    notebook_file(notebook, outputs=[PICTURE])
    seen.add(build.notebook_hash(notebook, "smoke", tmp_path))
    assert len(seen) == 6
