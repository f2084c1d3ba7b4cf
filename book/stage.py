"""The source folder of the site: pages, executed notebooks as the site shows them, the status page."""

import base64
import copy
import hashlib
import io
import json
import re
import shutil
import sys
from importlib.metadata import version

from PIL import Image

import landing
from check import ROOT, executed_dir, notebooks, pictures, read_notebook, tags

WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
PACKAGES = (
    "mmvae",
    "torch",
    "torchvision",
    "numpy",
    "matplotlib",
    "scikit-learn",
    "anywidget",
    "jupyter-book",
)


def write_text(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".part")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


# ---------------------------------------------------------------- widgets: mmvae/show/widgets.py says what they are

ALIVE = 'class="mmvae-widget"'
START = (  # as seen from notebooks/
    '<script defer src="../widgets/widgets.js" onerror="this.outerHTML='
    "'<p role=alert>The sliders could not be loaded; the still picture shows the same.</p>'\"></script>"
)


def widget_html(out):
    """What a widget's output has for the static page, or ""."""
    text = "".join(out.get("data", {}).get("text/html", ""))
    return text if WIDGET_VIEW in out.get("data", {}) and ALIVE in text else ""


def asset_names(nb):
    """The assets of a notebook's widgets (set of str)."""
    pages = [widget_html(out) for cell in nb["cells"] for out in cell.get("outputs", [])]
    return {name for page in pages for name in re.findall(r'"([0-9a-f]{16})"', page)}


def stage_widgets(profile, target):
    """target/widgets: the script, and the assets that the executed notebooks left and still use."""
    from mmvae.show.widgets import bundle  # PyTorch with it

    write_text(target / "widgets.js", bundle())
    for source in notebooks():
        for name in sorted(asset_names(read_notebook(executed_dir(profile) / source.name))):
            asset = executed_dir(profile) / "assets" / f"{name}.js"
            if not asset.exists():
                sys.exit(f"notebooks/{source.name}: its widget needs {asset.relative_to(ROOT)}, which is not there; "
                         f"remove {executed_dir(profile).relative_to(ROOT)} and build again")
            shutil.copy(asset, target)


def as_shown(cell):
    """A cell's outputs as the static page has them: no progress bars, and widgets as the HTML that comes to life."""
    shown = []
    for out in cell["outputs"]:
        if page := widget_html(out):
            shown.append({"output_type": "display_data", "metadata": {}, "data": {"text/html": page + START}})
        elif out.get("name") != "stderr" and WIDGET_VIEW not in out.get("data", {}):
            shown.append(out)
    return shown


def lighter(text, folder):
    """HTML whose embedded pictures lie in files of `folder` (target/pictures), fetched when they come near the window.

    A page is then a tenth as large, and its text and sliders wait for no picture. Sizes are stated, so nothing jumps.
    """

    def outside(tag):
        tag = tag[0]
        for whole, kind, data in re.findall(r'("data:image/(\w+);base64,([^"]+)")', tag):
            content = base64.b64decode(data)
            name = f"{hashlib.sha256(content).hexdigest()[:16]}.{kind}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
            tag = tag.replace(whole, f'"../pictures/{name}"')
            if tag.startswith("<img"):
                w, h = Image.open(io.BytesIO(content)).size
                given = re.search(r' width="(\d+)"', tag)
                size = f'height="{round(h * int(given[1]) / w)}"' if given else f'width="{w}" height="{h}"'
                when = "" if 'fetchpriority="low"' in tag else 'loading="lazy" '  # not the still of a widget
                tag = f'<img {when}{size}{tag.removeprefix("<img")}'
        return tag

    return re.sub(r"<(?:img|source)\b[^>]*>", outside, text)


def stage_notebook(nb, name):
    """The notebook as the site shows it: captions folded into pictures, folded cells that show nothing joined with the folded
    cell after them, no widgets, no traces of the run."""
    nb, cells = copy.deepcopy(nb), []
    for cell in nb["cells"]:
        meta = cell["metadata"] = {
            k: v for k, v in cell["metadata"].items() if k not in ("papermill", "execution")
        }
        if cell["cell_type"] == "code":
            cell["outputs"] = as_shown(cell)
        if "parameters" in tags(cell):  # the page shows what PROFILE is, folded
            meta["tags"] = ["hide-input"]
        if "solution" in tags(cell):
            prompts = {"code_prompt_show": "Show the solution", "code_prompt_hide": "Hide the solution"}
            meta["mystnb"] = {**meta.get("mystnb", {}), **prompts}
        if "caption" in tags(cell):
            fold_caption(cell, cells[-1] if cells else {"metadata": {}}, name)
            continue
        if folded(cell) and cells and folded(cells[-1]) and not cells[-1]["outputs"]:  # one bar for both
            cell["source"] = f'{"".join(cells.pop()["source"]).rstrip()}\n\n{"".join(cell["source"])}'
        cells.append(cell)
    badge = r"^\[!\[[^\n]*colab-badge\.svg\)\]\([^\n]*\)\n*"  # another site's image; the page has a button
    cells[0]["source"] = re.sub(badge, "", "".join(cells[0]["source"]), flags=re.M)
    kept = {key: nb["metadata"][key] for key in ("kernelspec", "language_info") if key in nb["metadata"]}
    return {**nb, "metadata": kept, "cells": cells}


def folded(cell):
    """Whether the page shows a bar in place of a cell's code."""
    return cell["cell_type"] == "code" and "hide-input" in tags(cell)


def fold_caption(caption, cell, name):
    """Turn a Markdown cell tagged `caption` into the figure options of the code cell before it."""
    meta, shown, text = caption["metadata"], pictures(cell), "".join(caption["source"])
    if len(shown) != 1 or not meta.get("name") or not meta.get("alt"):
        sys.exit(
            f"notebooks/{name}: the caption {text[:50]!r} needs a code cell before it with exactly one "
            f"picture (found {len(shown)}), and `name` and `alt` in its metadata (found {sorted(meta)})"
        )
    pixelated = "pixelated" in tags(cell) or "image/gif" in shown[0]["data"]
    cell["metadata"]["mystnb"] = {
        **cell["metadata"].get("mystnb", {}),
        "image": {"alt": meta["alt"], **({"classes": "pixelated"} if pixelated else {})},
        "figure": {"name": meta["name"], "caption": text},
    }


def status_page(profile):
    """When and where each notebook was last executed, and with which versions (Markdown)."""
    rows, machines = [], set()
    for source in notebooks():
        nb = read_notebook(executed_dir(profile) / source.name)
        run, code = nb["metadata"]["mmvae"], [cell for cell in nb["cells"] if cell["cell_type"] == "code"]
        machines.add(run["machine"])
        rows.append(
            f"| [](../notebooks/{source.name}) | {run['profile']} | {run['seconds']:.0f} s | {len(code)} "
            f"| {sum(len(pictures(cell)) for cell in code)} | {run['end'][:16].replace('T', ' ')} |"
        )
    lines = [
        "# Status of this build\n\nEvery number and picture in the book was computed by these runs.\n",
        "| chapter | profile | run time | code cells | pictures | executed (UTC) |",
        "| --- | --- | ---: | ---: | ---: | --- |",
        *rows,
        *(f"\nMachine: {name}.\n" for name in sorted(machines)),
        "| package | version |\n| --- | --- |",
        *(f"| {name} | {version(name)} |" for name in PACKAGES),
    ]
    return "\n".join(lines) + "\n"


def stage(profile, target):
    """Copy pages, configuration and executed notebooks to `target`, the source folder of the site."""
    missing = [path.name for path in notebooks() if not (executed_dir(profile) / path.name).exists()]
    if missing or not notebooks():
        folder = executed_dir(profile).relative_to(ROOT)
        sys.exit(f"{folder}: not executed yet: {', '.join(missing) or 'any notebook'}")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(ROOT / "book", target / "book", ignore=shutil.ignore_patterns("*.py", "__pycache__", "paper", "*.yml"))
    for path in sorted((ROOT / "book/ext").glob("*.py")):
        shutil.copy(path, target / "book/ext")
    stage_widgets(profile, target / "widgets")
    (target / "benchmarks").mkdir(exist_ok=True)
    for name in ("_config.yml", "_toc.yml", "benchmarks/README.md"):  # a page shows some of the benchmarks' tables
        shutil.copy(ROOT / name, target / name)
    for source in notebooks():
        nb = stage_notebook(read_notebook(executed_dir(profile) / source.name), source.name)
        for data in (out["data"] for cell in nb["cells"] for out in cell.get("outputs", []) if "data" in out):
            if "text/html" in data:
                data["text/html"] = lighter("".join(data["text/html"]), target / "pictures")
        write_text(target / "notebooks" / source.name, json.dumps(nb, indent=1, ensure_ascii=False))
    write_text(target / "book" / "status.md", status_page(profile))
    write_text(target / "book" / "chapters.txt", landing.cards())  # book/intro.md includes all three
    for name, part in zip(("live", "does"), landing.live(target / "widgets")):
        write_text(target / "book" / f"{name}.html", lighter(part, target / "pictures"))
