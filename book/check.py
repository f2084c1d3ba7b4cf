"""Is a built site whole? A build can be green and empty; this counts pages, executed cells and pictures.

python book/check.py [--profile cpu]      exits 1 and says what is wrong
"""

import argparse
import json
import re
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

import yaml

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ("image/png", "image/svg+xml", "image/gif", "image/jpeg")  # what myst-nb shows as a picture


def executed_dir(profile, root=ROOT):
    return root / "_build" / "executed" / profile


def html_dir(profile, root=ROOT):
    return root / "_build" / ("html" if profile == "cpu" else f"html-{profile}")


def notebooks(root=ROOT):
    return sorted((root / "notebooks").glob("[0-9]*.ipynb"))


def read_notebook(path):
    return json.loads(path.read_text(encoding="utf-8"))


def code_cells(nb):
    """Code cells that are not blank."""
    return [cell for cell in nb["cells"] if cell["cell_type"] == "code" and "".join(cell["source"]).strip()]


def tags(cell):
    return cell["metadata"].get("tags", [])


def pictures(cell):
    """The outputs of a code cell that are pictures."""
    return [out for out in cell.get("outputs", []) if any(mime in out.get("data", {}) for mime in IMAGES)]


def toc_entries(root=ROOT):
    """All files that _toc.yml names, in order, without suffix."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    found = [toc["root"]]

    def add(entries):
        for entry in entries:
            found.append(entry["file"])
            add(entry.get("sections", []))

    for part in (*toc.get("parts", []), toc):
        add(part.get("chapters", []))
    return found


def page_problems(path):
    """What is wrong with one HTML page (list of str): missing, empty, a traceback, a third party's file."""
    if not path.exists():
        return ["there is no page"]
    text, found = path.read_text(encoding="utf-8"), []
    words = len(re.sub(r"<[^>]+>", " ", text.partition("<article")[2].partition("</article")[0]).split())
    if words < 20:
        found.append(f"the page is empty ({words} words)")
    if "Traceback (most recent call last)" in re.sub(r"<[^>]+>", "", text):
        found.append("a traceback is shown")
    for tag in re.findall(r"<(?:script|img|iframe|source|video|link)\b[^>]*>", text):
        address = re.search(r'(?:src|href)="((?:https?:)?//[^"]+)"', tag)
        if address and not re.search(r'rel="(?:canonical|next|prev|author|license)"', tag):
            found.append(f"loads {address[1]} from a third party")
    for link in sorted(set(re.findall(r'<[^>]+?\b(?:href|src)="((?!//)[^"#?:]+)[#?"]', text))):
        if not (path.parent / unquote(link)).is_file():
            found.append(f"links to {link}, which is not there")
    return found


ON_EVERY_PAGE = ('<link rel="canonical" href="', '<meta property="og:title" ', '<meta property="og:image" ',
                 '<meta name="description" ')


def published_problems(html, pages):
    """What a host, a search engine or a preview of a link would miss in the site in folder `html` (list of str)."""
    found = [f"{name}: not there" for name in (".nojekyll", "404.html", "robots.txt") if not (html / name).exists()]
    listed = (html / "sitemap.xml").read_text(encoding="utf-8") if (html / "sitemap.xml").exists() else ""
    for page in pages:
        text = (html / f"{page}.html").read_text(encoding="utf-8") if (html / f"{page}.html").exists() else ""
        missing = [tag for tag in ON_EVERY_PAGE if tag not in text]
        found += [f"{page}: no {', no '.join(missing)}"] if text and missing else []
        found += [] if f"/{page}.html</loc>" in listed else [f"sitemap.xml: {page} is not in it"]
    return found


def notebook_problems(source, executed):
    """What is wrong with an executed notebook, given the path of its source (list of str)."""
    if not executed.exists():
        return ["was not executed"]
    want, code, found = read_notebook(source), code_cells(read_notebook(executed)), []
    done = sum(bool(cell.get("execution_count")) for cell in code)
    if not code or done < len(code_cells(want)):
        found.append(f"{done} of {len(code_cells(want))} code cells were executed")
    if any(out["output_type"] == "error" for cell in code for out in cell["outputs"]):
        found.append("a cell ended in an error")
    lost = sum("widget" in tags(c) and "mmvae-widget" not in json.dumps(c["outputs"]) for c in code)
    if lost:
        found.append(f"{lost} cells tagged widget have none that lives on a static page")
    shown, least = sum(len(pictures(cell)) for cell in code), max(
        2, sum("caption" in tags(c) for c in want["cells"])
    )
    if shown < least:
        found.append(f"{shown} pictures, expected at least {least}")
    return found


CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
HEADLESS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]


@contextmanager
def chromium():
    """The system's Chromium, without a window, while it is asked (a `Browser` of playwright)."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=HEADLESS)
        try:
            yield browser
        finally:
            browser.close()


# until every formula of a page is set, also those that are not near: with `evaluate` of a tab
FORMULAS = "window.MathJax?.startup.promise.then(() => MathJax.startup.document.lazyTypesetAll())"
ALIVE = "document.querySelectorAll('.mmvae-widget.alive').length"


def widget_problems(path):
    """What is wrong with the sliders of a page (list of str): each must start with no kernel and no server, within a minute
    of the clock, in a window that holds all of the page."""
    there = path.read_text(encoding="utf-8").count('class="mmvae-widget"')
    if not there:
        return []
    from playwright.sync_api import TimeoutError

    with chromium() as browser:
        tab = browser.new_page(viewport={"width": 1280, "height": 40_000})
        tab.goto(path.resolve().as_uri())
        try:
            tab.wait_for_function(f"{ALIVE} >= {there}", timeout=60_000)
        except TimeoutError:
            return [f"{there - tab.evaluate(ALIVE)} of {there} sliders do not start in Chromium"]
    return []


def problems(profile, root=ROOT):
    """All that is wrong with the site of a profile (list of str, empty if it is whole)."""
    html, pages, sources = html_dir(profile, root), toc_entries(root), notebooks(root)
    found = [] if sources else ["notebooks/: there are none"]
    found += [f"notebooks/{s.name}: not in _toc.yml" for s in sources if f"notebooks/{s.stem}" not in pages]
    for page in pages:
        found += [f"{page}: {what}" for what in page_problems(html / f"{page}.html")]
        if CHROMIUM and not page.startswith("notebooks/") and (html / f"{page}.html").exists():
            found += [f"{page}: {what}" for what in widget_problems(html / f"{page}.html")]
    found += published_problems(html, pages) if html.exists() else []
    for source in sources:
        wrong = notebook_problems(source, executed_dir(profile, root) / source.name)
        page = html / "notebooks" / f"{source.stem}.html"
        wrong += widget_problems(page) if CHROMIUM and page.exists() else []
        found += [f"notebooks/{source.name}: {what}" for what in wrong]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--profile", default="cpu")
    profile = parser.parse_args().profile
    found = problems(profile)
    if found:
        sys.exit(f"the site in {html_dir(profile).relative_to(ROOT)} is not whole:\n  " + "\n  ".join(found))
    runs = [read_notebook(executed_dir(profile) / source.name) for source in notebooks()]
    cells, shown = sum(len(code_cells(nb)) for nb in runs), sum(
        len(pictures(c)) for nb in runs for c in nb["cells"]
    )
    print(
        f"check: {len(toc_entries())} pages, {len(runs)} notebooks, {cells} executed cells, {shown} pictures, "
        "no error" + "; no Chromium here, so no slider was tried" * (not CHROMIUM)
    )


if __name__ == "__main__":
    main()
