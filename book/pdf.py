"""The whole book as one PDF, printed by headless Chromium from the built site.

python book/pdf.py [--profile cpu]      -> _build/pdf/mmvae.pdf

The pages stand one after the other, in the order of the table of contents: with their solutions, with a still for each
widget, without the folded code that draws. Only a printed book knows on which page a chapter begins: so the numbers in the
contents are printed last, and laid over them.
"""

import argparse
import functools
import http.server
import io
import logging
import posixpath
import re
import sys
import threading
import time
from importlib.metadata import version
from urllib.parse import unquote, urldefrag

import yaml
from bs4 import BeautifulSoup

from build import QuietHandler
from check import CHROMIUM, FORMULAS, ROOT, chromium, html_dir, toc_entries

OUT = ROOT / "_build" / "pdf" / "mmvae.pdf"
GONE = ("script", "a.headerlink", "button", ".start", ".aside", ".chapters", ".tag_hide-input > details")
MINUTES = 60  # that Chromium may take to set the formulas, and to print: three on a machine that has nothing else to do

# Of the book as it stands in Chromium, the numbers of the contents alone, which are laid over what is printed. All else keeps
# its room: Chromium shrinks a document to its widest line.
NUMBERS = """numbers => {
  for (const row of document.querySelectorAll("#contents a")) row.lastChild.textContent = numbers[row.hash.slice(1)] ?? "";
  const style = document.createElement("style");
  style.textContent = `@page { @bottom-center { content: none } } html, body { background: none !important }
    body * { visibility: hidden; border-color: transparent !important } #contents a span:last-child { visibility: visible }`;
  document.head.append(style);
}"""


def plain(entry):
    """The name of a page as an id: notebooks/02_vae -> notebooks-02_vae."""
    return entry.replace("/", "-")


def article(html, entry, entries):
    """The text of a page (a bs4 tag) as it stands in the book: ids and links are of the whole book, files are named from the
    site's root."""
    page = BeautifulSoup((html / f"{entry}.html").read_text(encoding="utf-8"), "html.parser")
    found, folder = page.select_one("article.bd-article"), posixpath.dirname(entry)
    for live in found.select(".mmvae-live"):
        live.replace_with(live.figure)  # the welcome page's still
    for tag in found.select(", ".join(GONE)):
        tag.decompose()
    for details in found.select("details"):
        details["open"] = ""
    drawn = {id(tag) for svg in found.select("svg") for tag in svg.find_all(True)}  # they refer to themselves
    for tag in found.find_all(True):
        if id(tag) in drawn:
            continue
        if tag.get("id"):
            tag["id"] = f"{plain(entry)}--{tag['id']}"
        for name in {"src", "srcset"} & set(tag.attrs):
            if not re.match("[a-z]+:", tag[name]):
                tag[name] = posixpath.normpath(posixpath.join("/", folder, tag[name]))
        tag.attrs.pop("loading", None)
        if tag.name == "a" and tag.get("href"):
            tag["href"] = link(tag["href"], entry, entries)
    found.name, found["id"] = "section", plain(entry)
    return found


def link(href, entry, entries):
    """A link of a page as one of the book: to a place in it, or to the published site."""
    if re.match("[a-z]+:", href):
        return href
    address, place = urldefrag(href)
    target = posixpath.normpath(posixpath.join(posixpath.dirname(entry), unquote(address))) if address else f"{entry}.html"
    name = target.removesuffix(".html")
    if name not in entries:
        return config()["html"]["baseurl"] + target
    return f"#{plain(name)}" + (f"--{place}" if place else "")


@functools.cache
def config():
    return yaml.safe_load((ROOT / "_config.yml").read_text(encoding="utf-8"))


def parts():
    """[(caption, entries)] of the table of contents."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))

    def names(chapters):
        return [name for one in chapters for name in (one["file"], *names(one.get("sections", [])))]

    return [(part["caption"], names(part["chapters"])) for part in toc["parts"]]


def contents(titles):
    """The table of contents (HTML), with room for the numbers. titles: {entry: str}."""
    rows = []
    for caption, entries in parts():
        rows.append(f"<h2>{caption}</h2>")
        rows += [f'<p><a href="#{plain(e)}"><span>{titles[e]}</span><span></span></a></p>' for e in entries]
    return f'<section id="contents"><h1>Contents</h1>{"".join(rows)}</section>'


def whole(html):
    """The book as one page (str)."""
    entries = toc_entries()
    texts = {entry: article(html, entry, entries) for entry in entries}
    titles = {entry: " ".join(text.h1.get_text(" ", strip=True).split()) for entry, text in texts.items()}
    first = BeautifulSoup((html / f"{entries[0]}.html").read_text(encoding="utf-8"), "html.parser")
    styles = [str(tag) for tag in first.select("link[rel=stylesheet]")]
    deep = BeautifulSoup((html / f"{entries[1]}.html").read_text(encoding="utf-8"), "html.parser")
    maths = [str(tag) for tag in deep.select("script") if "MathJax" in tag.text or "tex-chtml" in tag.get("src", "")]
    head = "".join(re.sub(r'(href|src)="(?:\.\./)*', r'\1="/', tag) for tag in [*styles, *maths])
    front = (f'<section id="front"><img src="/{config()["html"]["favicon"].replace("book/", "")}" alt="">'
             f"<h1>{config()['title']}</h1><p>{config()['author']}</p><p>version {version('mmvae')}</p>"
             f"<p>{config()['html']['extra_footer']}</p><p>The sliders move in the page: "
             f'<a href="{config()["html"]["baseurl"]}">{config()["html"]["baseurl"]}</a></p></section>')
    css = (ROOT / "book/print.css").read_text(encoding="utf-8")
    return (f'<!DOCTYPE html><html lang="en" data-theme="light" data-mode="light"><head><meta charset="utf-8">'
            f"<title>{config()['title']}</title>{head}<style>{css}</style></head><body>{front}{contents(titles)}"
            f'<main class="bd-article">{"".join(map(str, texts.values()))}</main></body></html>')


def printed(html, progress):
    """The book as a PDF (bytes), by the system's Chromium, and {entry: the page on which it begins, from 1}."""
    if not CHROMIUM:
        sys.exit("pdf: found no Chromium on this machine, expected one, which prints the book: `apt-get install chromium`")
    handler, text = functools.partial(QuietHandler, directory=str(html)), whole(html)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, chromium() as browser:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.new_page(color_scheme="light", reduced_motion="reduce")
        page.set_default_timeout(60_000 * MINUTES)
        address = f"http://127.0.0.1:{server.server_port}"
        page.route(f"{address}/print.html", lambda route: route.fulfill(body=text, content_type="text/html; charset=utf-8"))
        progress(f"loading {len(toc_entries())} pages")
        page.goto(f"{address}/print.html", wait_until="load")
        progress("setting the formulas")
        page.evaluate(FORMULAS)
        page.evaluate("Promise.all([...document.images].map(i => i.decode().catch(() => i.src)))")
        progress("printing")
        made = page.pdf(prefer_css_page_size=True, print_background=True, outline=True, tagged=True)
        progress("numbering the contents")
        numbers = pages_of(made)
        page.evaluate(NUMBERS, {plain(entry): number for entry, number in numbers.items()})
        over = page.pdf(prefer_css_page_size=True, print_background=True, page_ranges=f"1-{min(numbers.values()) - 1}")
        server.shutdown()
    return laid_over(made, over), numbers


def laid_over(pdf, over):
    """A PDF with the first pages of another laid over its own (all bytes)."""
    from pypdf import PdfReader, PdfWriter

    logging.getLogger("pypdf").setLevel(logging.ERROR)  # Chromium counts its objects otherwise
    book, made = PdfWriter(clone_from=io.BytesIO(pdf)), io.BytesIO()
    for page, above in zip(book.pages, PdfReader(io.BytesIO(over)).pages):
        page.merge_page(above)
    book.write(made)
    return made.getvalue()


def pages_of(pdf):
    """{entry: the page on which it begins, from 1}, by the destinations of the links in the PDF (bytes)."""
    from pypdf import PdfReader

    read = PdfReader(io.BytesIO(pdf))
    found = {name.lstrip("/"): read.get_destination_page_number(place) + 1 for name, place in read.named_destinations.items()}
    return {entry: found[plain(entry)] for entry in toc_entries() if plain(entry) in found}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--profile", default="cpu", choices=("smoke", "cpu", "gpu"))
    html = html_dir(parser.parse_args().profile)
    if not (html / "index.html").exists():
        sys.exit(f"{html.relative_to(ROOT)}: no site yet; run `make book`")

    start = time.monotonic()

    def progress(text):
        print(f"pdf: {time.monotonic() - start:4.0f} s  {text}", flush=True)

    made, numbers = printed(html, progress)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    partial = OUT.with_name(OUT.name + ".part")
    partial.write_bytes(made)
    partial.replace(OUT)
    progress(f"{OUT.relative_to(ROOT)}: {len(numbers)} chapters and pages, {len(made) / 2**20:.1f} MB")


if __name__ == "__main__":
    main()
