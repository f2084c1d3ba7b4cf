"""The book as a PDF: a site of three pages is printed and read again."""
import io
import sys
from pathlib import Path

import pytest
from browser import needs_chromium
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "book"))
import pdf  # noqa: E402

PAGE = """<html><head><link rel=stylesheet href="{up}_static/book.css">
<script>window.MathJax = {{startup: {{promise: Promise.resolve(), document: {{lazyTypesetAll() {{}}}}}}}}</script>
</head><body><nav>sidebar</nav><article class="bd-article">
<section id="{name}"><h1>{title}<a class="headerlink" href="#{name}">#</a></h1>
<p id="id1">Of {title}. {text}</p><img loading="lazy" src="{up}pictures/dot.png">
<svg><g id="inner"/><use href="#inner"/></svg>
<div class="mmvae-live"><style>p {{}}</style><figure class="mmvae-still">still</figure></div>
<div class="cell tag_hide-input"><details><summary>Show code</summary>plumbing</details></div>
<div class="cell tag_solution"><details><summary>Show the solution</summary><p>solved</p></details></div>
</section><script>moved()</script></article></body></html>"""


@pytest.fixture
def site(tmp_path, monkeypatch):
    names = {"book/intro": "Welcome", "notebooks/01_a": "1. A pair", "notebooks/02_b": "2. Another"}
    text = ('See <a href="02_b.html#id1">there</a>, <a href="../search.html">here</a>, '
            '<a href="https://example.org">out</a>, <a href="../book/intro.html">in</a>.')
    for entry, title in names.items():
        path = tmp_path / f"{entry}.html"
        path.parent.mkdir(exist_ok=True)
        path.write_text(PAGE.format(up="../", name=title[0].lower(), title=title, text=text if "01" in entry else ""))
    for folder in ("_static", "pictures"):
        (tmp_path / folder).mkdir()
    (tmp_path / "_static/book.css").write_text("p { color: black }")
    Image.new("L", (4, 4)).save(tmp_path / "pictures/dot.png")
    monkeypatch.setattr(pdf, "toc_entries", lambda: list(names))
    monkeypatch.setattr(pdf, "parts", lambda: [("Chapters", list(names)[1:])])
    return tmp_path


def test_a_page_becomes_a_part_of_the_book(site):
    entries = pdf.toc_entries()
    text = pdf.article(site, "notebooks/01_a", entries)
    assert text["id"] == "notebooks-01_a" and text.p["id"] == "notebooks-01_a--id1" and text.g["id"] == "inner"
    assert [a["href"] for a in text.p.select("a")] == [
        "#notebooks-02_b--id1", f"{pdf.config()['html']['baseurl']}search.html", "https://example.org", "#book-intro"]
    assert text.img["src"] == "/pictures/dot.png" and "loading" not in text.img.attrs
    assert "plumbing" not in text.text and "solved" in text.text and text.details.has_attr("open")
    assert text.figure.text == "still" and not text.select(".mmvae-live, style")
    assert not text.select("script, .headerlink") and "sidebar" not in text.text


@needs_chromium
def test_a_chapter_stands_on_the_page_that_the_contents_say(site):
    from pypdf import PdfReader

    made, numbers = pdf.printed(site, lambda text: None)
    assert numbers["notebooks/01_a"] < numbers["notebooks/02_b"]
    read = PdfReader(io.BytesIO(made))
    texts = [page.extract_text() for page in read.pages]
    assert numbers == pdf.pages_of(made) and len(texts) == numbers["notebooks/02_b"]
    for entry, title in {"notebooks/01_a": "Of 1. A pair", "notebooks/02_b": "Of 2. Another"}.items():
        assert title in texts[numbers[entry] - 1] and "solved" in texts[numbers[entry] - 1]
    contents = next(text for text in texts if "Contents" in text)
    assert [contents.count(line) for line in ("Contents", "1. A pair", "2. Another")] == [1, 1, 1]
    assert all(str(numbers[entry]) in contents.split() for entry in ("notebooks/01_a", "notebooks/02_b"))
    assert [one.title for one in read.outline if not isinstance(one, list)]


def test_the_welcome_page_links_to_where_it_is_published():
    """`make pages` puts what is in the PDF's folder at the root of the site."""
    text = (pdf.ROOT / "book/intro.md").read_text(encoding="utf-8")
    assert f"({pdf.config()['html']['baseurl']}{pdf.OUT.name})" in text and pdf.OUT.parent == pdf.ROOT / "_build/pdf"


def test_without_a_site_it_says_what_makes_one(site, monkeypatch):
    monkeypatch.setattr(pdf, "html_dir", lambda profile: pdf.ROOT / "_build" / "none")
    monkeypatch.setattr(sys, "argv", ["pdf.py"])
    with pytest.raises(SystemExit, match="no site yet; run `make book`"):
        pdf.main()
