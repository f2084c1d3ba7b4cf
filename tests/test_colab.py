"""book/colab.py: what Colab opens has no MyST, the numbers of the site, the release of the chapter, and runs."""
import json
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import yaml
from nbclient import NotebookClient

import mmvae

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book"))
import check  # noqa: E402
import colab  # noqa: E402
import release  # noqa: E402

NOTEBOOKS = check.notebooks()
BOOK = colab.read_book()
every_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
MYST = (r":::|```\{|\{[a-z][\w:+-]*\}`|^\([\w-]+\)=|\$\$ *\([\w-]+\)|\]\{|\[\]\("  # as a reader would see it
        r"|\]\([^)]*\.(?:ipynb|md)(?:#[^)]*)?\)")


def copied(path):
    return colab.for_colab(check.read_notebook(path), path.stem, BOOK)


def prose(nb):
    return [cell["source"] for cell in nb["cells"] if cell["cell_type"] == "markdown"]


@every_notebook
def test_no_myst_is_left(path):
    copy, badge = copied(path), rf"\({re.escape(colab.colab_address(path.stem, BOOK))}\)"
    for text in prose(copy):
        left = re.findall(MYST, re.sub(badge, "()", text), re.M)
        assert not left and not colab.myst(text), f"{left} in {text[:80]!r}"
    assert colab.myst("".join(check.read_notebook(path)["cells"][0]["source"]))  # which it finds in the chapter itself
    nbformat.validate(nbformat.from_dict(copy))


@every_notebook
def test_each_formula_has_the_number_under_which_it_is_named(path):
    """In the order in which they stand: 4.1, 4.2, ...; so Sphinx counts too, and `colab.wrong` compares with its pages."""
    text, number = "\n".join(prose(copied(path))), int(path.stem[:2])
    formulas, figures = re.findall(r"\\tag\{([\d.]+)\}", text), re.findall(r"^\*\*Fig\. ([\d.]+)\.\*\*", text, re.M)
    assert formulas == [f"{number}.{k + 1}" for k in range(len(formulas))]
    assert figures and figures == [f"{number}.{k + 1}" for k in range(len(figures))]
    source = "\n".join("".join(cell["source"]) for cell in check.read_notebook(path)["cells"])
    assert len(formulas) == len(re.findall(r"\$\$ \(eq-", source))
    for label in set(re.findall(r"\{eq\}`([^`]+)`", source)):
        where, shown = BOOK.places[label]
        assert f"[({shown})]({BOOK.site}/{where})" in text


@every_notebook
def test_what_the_site_folds_is_folded_and_the_release_is_pinned(path):
    chapter, copy = check.read_notebook(path), copied(path)
    folding = {"setup", "parameters", "solution", "hide-cell", "hide-input", "remove-cell"}
    for cell in (cell for cell in copy["cells"] if cell["cell_type"] == "code"):
        folded = cell["metadata"].get("jupyter", {}).get("source_hidden", False)
        assert folded == bool(folding & set(check.tags(cell))), cell["id"]
        assert not folded or cell["metadata"]["cellView"] == "form"
    [setup] = (cell for cell in copy["cells"] if "setup" in check.tags(cell))
    assert f"git+{BOOK.repository}@v{mmvae.__version__}\"" in setup["source"]
    assert not re.search(r"git\+[^\"\s]*@", json.dumps(chapter))  # in the repository: what is there
    solutions = [cell for cell in chapter["cells"] if "solution" in check.tags(cell)]
    assert all(cell["metadata"]["jupyter"] == {"source_hidden": True} for cell in solutions if cell["cell_type"] == "code")
    boxes = "\n".join("".join(cell["source"]) for cell in chapter["cells"])
    assert "\n".join(prose(copy)).count("<details>") == boxes.count(":class: dropdown")


TEXT = """# Title

:::{admonition} Goals $z$
:class: goals
- See {eq}`eq-a` and {numref}`fig-b`, after
  {cite:p}`one,two`; {cite:t}`one`.

$$x = \\begin{aligned} 1 \\\\
2 \\end{aligned}$$ (eq-a)
:::

(here)=
`{eq}` stays, ``:::`` too; [there](01_a.ipynb), [](01_a.ipynb), [it](here), [words]{.zi}, [out](https://example.org/a.md),
{term}`nats <nat>`, {term}`aggregate
posterior`.

```python
:::{admonition} code
```

:::{admonition} Why $x_T < 1$ and `a<b`?
:class: dropdown solution
Because [notation](../book/notation.md#n).
:::
"""
TINY = colab.Book(places={"eq-a": ("notebooks/01_a.html#equation-eq-a", "1.1"), "fig-b": ("notebooks/01_a.html#fig-b", "1.1"),
                          "here": ("notebooks/01_a.html#here", "")},
                  papers={"one": ("A and B", "2001"), "two": ("C et al.", "2002")}, chapters={"01_a": (1, "Title")},
                  site="https://o.github.io/n", repository="https://github.com/o/n", release="v1")


def test_a_text_is_what_markdown_has():
    s = "https://o.github.io/n"
    assert colab.converted(TEXT, TINY, "notebooks/01_a.html") == f"""# Title

> **Goals $z$**
>
> - See [(1.1)]({s}/notebooks/01_a.html#equation-eq-a) and [Fig. 1.1]({s}/notebooks/01_a.html#fig-b), after
>   ([A and B, 2001]({s}/book/references.html#cite-one); [C et al., 2002]({s}/book/references.html#cite-two)); \
[A and B (2001)]({s}/book/references.html#cite-one).
>
> $$x = \\begin{{aligned}} 1 \\\\ 2 \\end{{aligned}} \\tag{{1.1}}$$

`{{eq}}` stays, ``:::`` too; [there]({s}/notebooks/01_a.html), [Title]({s}/notebooks/01_a.html), \
[it]({s}/notebooks/01_a.html#here), words, [out](https://example.org/a.md),
[nats]({s}/book/notation.html#term-nat), [aggregate posterior]({s}/book/notation.html#term-aggregate-posterior).

```python
:::{{admonition}} code
```

<details>
<summary>Why $x_T &lt; 1$ and <code>a&lt;b</code>?</summary>

Because [notation]({s}/book/notation.html#n).

</details>
"""


@pytest.mark.parametrize("text, says", [
    ("{eq}`eq-z`", "found {eq}`eq-z`; the book has no 'eq-z'"), ("{abbr}`x`", "the book has no 'abbr'"),
    (":::{grid}\nx\n:::", "found the directive {grid}, expected one of admonition"),
    ("[x](data.csv)", "found a link to 'data.csv', expected a chapter")])
def test_what_has_no_form_in_markdown_is_refused_in_a_sentence(text, says):
    nb = {"cells": [{"id": "c1", "cell_type": "markdown", "metadata": {}, "source": text}], "metadata": {}}
    with pytest.raises(ValueError, match="notebooks/01_a.ipynb, cell c1: .*" + re.escape(says)):
        colab.for_colab(nb, "01_a", TINY)


@pytest.mark.parametrize("text, what", [
    (":::{note}", "a directive"), ("> ```{note}", "a directive"), ("a {eq}`b`", "a role"), ("(a-b)=", "a label"),
    ("$$x$$ (eq-a)", "a label"), ("[z]{.zi}", "an attribute"), ("{{ x }}", "a substitution"), ("% not shown", "a comment"),
    ("[](a.md)", "a link within the book"), ("[a](b.ipynb)", "a link within the book")])
def test_myst_is_recognised_and_code_and_formulas_are_none(text, what):
    assert colab.myst(text)[0].startswith(what)
    assert not colab.myst(f"```text\n{text}\n```\n`(a)=` and $f[z]{{x}}$, [a](https://example.org) 90 %")


PAGE = """<div id="equation-eq-a"><span class="eqno">(1.1)<a></a></span></div>
<figure id="fig-b"><figcaption><span class="caption-number">Fig. 1.1 </span></figcaption></figure><i id="here"></i>
<a href="https://colab.research.google.com/github/o/n/blob/main/notebooks/01_a.ipynb">"""
FOUND = '<dt id="{}">'


def test_a_copy_that_differs_from_the_site_fails_the_build_and_says_where(tmp_path, monkeypatch):
    cells = [{"id": "c1", "cell_type": "markdown", "metadata": {}, "source": TEXT}]
    (tmp_path / "notebooks").mkdir()
    source = {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    (tmp_path / "notebooks/01_a.ipynb").write_text(json.dumps(source))
    html = tmp_path / "html"
    for name, ids in (("notation", ("n", "term-nat", "term-aggregate-posterior")), ("references", ("cite-one", "cite-two"))):
        (html / "book").mkdir(parents=True, exist_ok=True)
        (html / f"book/{name}.html").write_text("".join(map(FOUND.format, ids)))
    (html / "notebooks").mkdir()
    page = html / "notebooks/01_a.html"
    page.write_text(PAGE)
    monkeypatch.setattr(colab, "read_book", lambda root: TINY)
    colab.write(html, tmp_path)
    opened = "https://colab.research.google.com/github/o/n/blob/gh-pages/colab/01_a.ipynb"
    assert opened in page.read_text() and "/blob/main/" not in page.read_text()
    first = json.loads((html / "colab/01_a.ipynb").read_text())["cells"][0]["source"]
    assert first.startswith(f"# 1. Title\n\n[![Open in Colab]({colab.BADGE})]({opened})")
    page.write_text(PAGE.replace("eqno\">(1.1)", "eqno\">(1.2)"))
    (html / "book/references.html").write_text(FOUND.format("cite-one"))
    with pytest.raises(SystemExit) as failed:
        colab.write(html, tmp_path)
    assert "colab/01_a.ipynb: eq-a has number 1.1, on the site 1.2" in str(failed.value)
    assert "links to book/references.html#cite-two, which is not there" in str(failed.value)
    assert str(failed.value).count("\n") == 2


def test_a_copy_runs(tmp_path):
    """In the smoke profile, as every chapter is run by nbmake; outside of the repository, as in Colab."""
    path = next(path for path in NOTEBOOKS if path.stem.startswith("03"))
    nb = nbformat.from_dict(copied(path))
    NotebookClient(nb, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert all(cell.execution_count for cell in nb.cells if cell.cell_type == "code")


def test_only_a_release_is_published(tmp_path):
    """The copies install the package by the tag of its version: what is checked out must be what that tag names."""
    def git(*words):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b.c", *words], cwd=tmp_path, check=True)

    (tmp_path / "mmvae").mkdir()
    (tmp_path / "mmvae/__init__.py").write_text('__version__ = "1.2.3"\n')
    assert release.tagged(tmp_path).startswith("HEAD: found no tag, expected v1.2.3")
    git("init", "-q")
    git("add", ".")
    git("commit", "-q", "-m", "one")
    git("tag", "v1.2.2")
    assert release.tagged(tmp_path).startswith("HEAD: found v1.2.2, expected v1.2.3")
    git("tag", "v1.2.3")
    assert release.tagged(tmp_path) == ""
    git("commit", "-q", "--allow-empty", "-m", "two")
    assert release.tagged(tmp_path).startswith("HEAD: found no tag")
    workflow = yaml.safe_load((ROOT / ".github/workflows/publish.yml").read_text())
    assert set(workflow[True]) == {"push", "workflow_dispatch"} and workflow[True]["push"] == {"tags": ["v*"]}  # True: "on"
    steps = [step.get("run") for step in workflow["jobs"]["build"]["steps"]]
    assert steps.index("make tagged") < steps.index("make pages") and BOOK.release == f"v{mmvae.__version__}"
