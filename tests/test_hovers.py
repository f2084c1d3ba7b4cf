"""What lies over the pages: terms linked where they first occur, hovers, boxes that scroll sideways, names, icons."""
import json
import re
import sys
from pathlib import Path

import pytest
import yaml

from browser import browser, needs_chromium, opened

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "book"), str(ROOT / "book/ext")]
import slim  # noqa: E402
import mentions  # noqa: E402

STATIC = ROOT / "book/_static"
GLOSSARY = re.findall(r"^(\S.*)\n  \S", (ROOT / "book/notation.md").read_text().partition("```{glossary}")[2], re.M)
CONFIG = yaml.safe_load((ROOT / "_config.yml").read_text())["sphinx"]


# ---- terms

def test_the_first_mention_of_a_term_is_found_in_whatever_form_and_the_longest_term_wins():
    found, linked = mentions.pattern(GLOSSARY), set()
    text = "Experts? Products of\nexperts, an ELBO in nats; modalities, MIG. Two experts, native, non-private, ELBO."
    assert [(text[a:b], term) for a, b, term in mentions.hits(text, found, linked)] == [
        ("Experts", "expert"), ("Products of\nexperts", "product of experts"), ("ELBO", "ELBO"), ("nats", "nat"),
        ("modalities", "modality"), ("MIG", "mutual information gap (MIG)")]
    assert mentions.hits("An expert; an aggregate posterior, a posterior.", found, linked) == [
        (14, 33, "aggregate posterior"), (37, 46, "posterior")]


def test_everyday_words_are_terms_of_the_glossary():
    assert mentions.EVERYDAY < set(GLOSSARY) and len(GLOSSARY) >= 35


# ---- files

def test_a_hovers_scripts_lie_in_the_book_with_their_licences():
    config = CONFIG["config"]
    assert config["tippy_js"] == ["popper.min.js", "tippy.umd.min.js", "hovers.js"]
    assert not config["tippy_enable_wikitips"] and not config["tippy_enable_doitips"]
    size = 0
    for name in config["tippy_js"]:
        text = (STATIC / name).read_text(encoding="utf-8")
        assert name == "hovers.js" or "MIT License, Copyright (c)" in text[:200]
        assert not re.search(r"https?://(?!www\.w3\.org)", text) and "sourceMappingURL" not in text
        size += len(text)
    assert size < 50_000


def test_links_without_a_hover_are_left_alone():
    skip, = CONFIG["config"]["tippy_skip_urls"]
    asked = {"../book/notation.html#term-ELBO": 0, "#equation-eq-elbo": 0, "../book/references.html#cite-wu2018": 0,
             "02_vae.html": 1, "#the-elbo": 1, "../book/notation.html": 1, "https://doi.org/10.1/2": 1}
    assert {url: int(bool(re.match(skip, url))) for url in asked} == asked


SCRIPTS = ('<script defer="defer" src="../_static/popper.min.js?v=1"></script>\n'
           '<script defer="defer" src="../_static/tippy.umd.min.js?v=2"></script>\n'
           '<script defer="defer" src="../_static/hovers.js?v=3"></script>\n'
           '<script defer="defer" src="../_static/tippy/notebooks/a.01234567-89ab-4cde-8f01-23456789abcd.js"></script>\n'
           '<script>window.MathJax = {}</script>\n<script defer="defer" src="../_static/mathjax/tex-chtml.js"></script>\n')


@pytest.mark.parametrize("said, hovers, mathjax", [("", 0, 0), ('{"a": "words"}', 1, 0),
                                                   ('{"a": "<span class=\\"math notranslate\\">"}', 1, 1)])
def test_a_page_has_the_scripts_of_its_hovers_and_no_others(tmp_path, said, hovers, mathjax):
    tips = "_static/tippy/notebooks/a.01234567-89ab-4cde-8f01-23456789abcd.js"
    for page in (tips, "notebooks/a.html", "tippy_wiki_cache.json"):
        (tmp_path / page).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / page).write_text(said if "_static" in page else f"{SCRIPTS}<p>words" if "html" in page else "{}")
    slim.slim_pages(tmp_path)
    text, left = (tmp_path / "notebooks/a.html").read_text(), [p.name for p in tmp_path.rglob("*.js*")]
    assert [text.count(name) for name in ("popper.min", "tippy.umd", "hovers.js")] == [hovers] * 3
    assert text.count("tex-chtml.js") == text.count("window.MathJax") == mathjax and len(left) == hovers
    assert not hovers or re.fullmatch(r"a\.[0-9a-f]{16}\.js", left[0]) and f"../_static/tippy/notebooks/{left[0]}" in text
    slim.slim_pages(tmp_path)
    assert (tmp_path / "notebooks/a.html").read_text() == text


# ---- in a browser

TIPS = {'a[href="#term-x"]': '<dt id="term-x">block<a class="headerlink" href="#term-x">¶</a></dt>'
                             '<dd><p>A group of latents.</p></dd>',
        'a[href="#cite-y"]': '<div class="citation" id="cite-y"><span class="label">[1]</span><p>A paper of 2018.</p></div>'}
PAGE = """<!doctype html><html lang=en data-theme={theme}><meta charset=utf-8>
<meta name=viewport content="width=device-width"><link rel=stylesheet href="{static}/book.css">
<style>:root {{ --pst-color-surface: {ground}; --pst-color-text-base: {text} }}</style>
<body style="background:{ground};color:{text}"><article class="bd-article bd-content"><p style="margin-top:300px">
<a id=first href="#term-x"><span class="xref std std-term">block</span></a>, then
<a id=second href="#cite-y">Wu (2018)</a></p>
<div class="mmvae-widget"><input type=range id=slider></div></article>
{scripts}<script>for (const [where, html] of Object.entries({tips})) for (const link of document.querySelectorAll(where))
    tippy(link, {{ content: html, allowHTML: true, {props} }})</script>"""
THEMES = {"light": ("#ffffff", "#222832"), "dark": ("#1a1a1a", "#ced6dd")}


def page(folder, theme):
    scripts = "".join(f'<script src="{(STATIC / name).as_uri()}"></script>' for name in CONFIG["config"]["tippy_js"])
    props = json.dumps(CONFIG["config"]["tippy_props"])[1:-1]
    path = folder / "index.html"
    path.write_text(PAGE.format(theme=theme, static=STATIC.as_uri(), scripts=scripts, tips=json.dumps(TIPS), props=props,
                                ground=THEMES[theme][0], text=THEMES[theme][1]))
    return path


BOX = "[...document.querySelectorAll('.tippy-box')].map((e) => e.getBoundingClientRect().toJSON())"


@needs_chromium
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("theme", THEMES)
def test_a_hover_by_mouse_and_by_keyboard(tmp_path, theme, width):
    with browser() as running:
        tab = opened(running, page(tmp_path, theme), alive=False, viewport={"width": width, "height": 800})
        tab.hover("#first")
        tab.wait_for_selector(".tippy-box[data-state=visible]")
        box, = tab.evaluate(BOX)
        slider = tab.evaluate("document.querySelector('#slider').getBoundingClientRect().toJSON()")
        assert 0 <= box["left"] and box["right"] <= width
        assert box["bottom"] <= slider["top"] or box["top"] >= slider["bottom"]
        tip = tab.query_selector(".tippy-content")
        assert tip.inner_text().split() == "block A group of latents.".split()
        assert not tip.query_selector("[id], .headerlink") and tip.query_selector("dl > dt + dd")
        tab.hover(".tippy-content")  # it stays while one reads it
        tab.wait_for_timeout(400)
        assert tab.query_selector(".tippy-box")
        tab.keyboard.press("Escape")
        tab.wait_for_selector(".tippy-box", state="detached")
        tab.mouse.move(5, 5)
        tab.focus("#second")
        tab.wait_for_selector(".tippy-box[data-state=visible]")
        tip = tab.query_selector(".tippy-content")
        assert tip.inner_text().strip() == "A paper of 2018."  # without its number, which the book's pages do not use
        described = tab.get_attribute("#second", "aria-describedby")
        assert tab.query_selector(f"#{described} .tippy-content") and tab.get_attribute("#second", "aria-expanded") is None
        ground, text = tip.evaluate("(e) => [getComputedStyle(e.parentElement).backgroundColor, getComputedStyle(e).color]")
        assert abs(luminance(ground) - luminance(text)) > 0.5
        assert not tab.errors and all(url.startswith("file:") for url in tab.asked)


def luminance(colour):
    r, g, b = (int(n) / 255 for n in re.findall(r"\d+", colour)[:3])
    return 0.2126 * r**2.2 + 0.7152 * g**2.2 + 0.0722 * b**2.2


@needs_chromium
def test_the_first_tap_shows_and_the_second_follows(tmp_path):
    with browser() as running:
        tab = opened(running, page(tmp_path, "light"), alive=False, viewport={"width": 390, "height": 800}, has_touch=True,
                     is_mobile=True)
        tab.tap("#second")
        tab.wait_for_selector(".tippy-box[data-state=visible]")
        assert not tab.url.endswith("#cite-y")
        tab.wait_for_timeout(700)
        tab.tap("#second")
        tab.wait_for_timeout(300)
        assert tab.url.endswith("#cite-y")


# ---- what is wider than the page

WIDE = """<!doctype html><html lang=en><link rel=stylesheet href="{static}/book.css">
<article class="bd-article bd-content" style="width:300px">
<pre id=long style="overflow:auto">{long}</pre><pre id=short style="overflow:auto">short</pre></article>
<script src="{static}/wide.js"></script>"""


@needs_chromium
def test_what_scrolls_sideways_says_so_and_is_reached_by_keyboard(tmp_path):
    path = tmp_path / "index.html"
    path.write_text(WIDE.format(static=STATIC.as_uri(), long="word " * 40))
    with browser() as running:
        tab = opened(running, path, alive=False)
        tab.wait_for_selector("#long.wide")
        assert tab.evaluate("['long', 'short'].map((id) => document.getElementById(id).tabIndex)") == [0, -1]
        assert "linear-gradient" in tab.evaluate("getComputedStyle(document.querySelector('#long')).maskImage")
        tab.evaluate("document.querySelector('#long').scrollLeft = 1e6")
        tab.wait_for_selector("#long.at-end")
        assert tab.evaluate("getComputedStyle(document.querySelector('#long')).maskImage") == "none" and not tab.errors


# ---- the names that are read aloud, and the icons

def test_parts_and_controls_of_the_theme_have_names():
    before = ('<summary><span class="toctree-toggle"></span></summary>'
              '<summary aria-label="Toggle hidden content">Show</summary>'
              '<button class="btn search-button-field pst-js-only" title="Search" aria-label="Search">Search Ctrl+K</button>'
              '<div id="pst-primary-sidebar" class="a"><table><tr><th scope="col"></th><th>a</th></tr></table>')
    after = slim.named(before)
    assert after == slim.named(after) == (
        '<summary aria-label="Sections"><span class="toctree-toggle"></span></summary><summary>Show</summary>'
        '<button class="btn search-button-field pst-js-only" title="Search">Search Ctrl+K</button>'
        '<div id="pst-primary-sidebar" role="navigation" aria-label="The book" class="a">'
        '<table><tr><td></td><th>a</th></tr></table>')


def test_a_long_name_in_code_ends_its_line_between_two_words():
    def code(text):
        return f'<code class="docutils literal notranslate"><span class="pre">{text}</span></code>'

    name = "tests/test_pairs.py::test_a_pair_shares_identity"
    found = slim.named(code(name) + code("a_short.name") + f"<p>{name}</p>")
    assert found.replace("<wbr>", "") == code(name) + code("a_short.name") + f"<p>{name}</p>"
    assert "tests/<wbr>test_<wbr>pairs.<wbr>py::<wbr>test_<wbr>a_<wbr>pair_<wbr>shares" in found
    assert found.count("<wbr>") == name.count("_") + 3


def test_scripts_that_draw_nothing_let_the_page_come_first():
    scripts = ('<script src="_static/doctools.js?v=1"></script>\n<script src="_static/documentation_options.js"></script>\n'
               '<script src="_static/searchtools.js"></script>\n<script src="searchindex.js"></script>\n')
    assert slim.slim(scripts) == ('<script defer="defer" src="_static/doctools.js?v=1"></script>\n'
                                  '<script src="_static/documentation_options.js"></script>\n')
    assert slim.slim(slim.slim(scripts)) == slim.slim(scripts)
    assert slim.slim(f'{scripts}<div id="search-results">') == f'{scripts}<div id="search-results">'


def test_of_the_icons_those_that_are_used_are_shipped(tmp_path):
    from fontTools.ttLib import TTFont
    theme = Path(__import__("pydata_sphinx_theme").__file__).parent / "theme/pydata_sphinx_theme/static"
    fonts = tmp_path / "_static/vendor/fontawesome/webfonts"
    fonts.mkdir(parents=True)
    (tmp_path / "_static/styles").mkdir()
    for path in (theme / "vendor/fontawesome/webfonts").glob("fa-*"):
        (fonts / path.name).write_bytes(path.read_bytes())
    sheet = tmp_path / "_static/styles/pydata-sphinx-theme.css"
    sheet.write_text((theme / "styles/pydata-sphinx-theme.css").read_text(encoding="utf-8"), encoding="utf-8")
    (tmp_path / "_static/book.css").write_text('.goals::after { content: "\\f140"; }')
    slim.icons(tmp_path, ['<i class="fa-solid fa-bars"></i><i class="fa-brands fa-github"></i>'])
    assert {path.name for path in fonts.iterdir()} == {f"fa-{n}.woff" for n in ("brands-400", "regular-400", "solid-900")}
    drawn = {path.stem: set(TTFont(path).getBestCmap() or ()) for path in fonts.iterdir()}
    assert {0xF0C9, 0xF140} <= drawn["fa-solid-900"] and 0xF09B in drawn["fa-brands-400"]
    assert sum(path.stat().st_size for path in fonts.iterdir()) < 20_000 and ".woff2" not in sheet.read_text(encoding="utf-8")
    assert re.search(r'fa-solid-900\.woff\) format\("woff"\)', sheet.read_text(encoding="utf-8"))
