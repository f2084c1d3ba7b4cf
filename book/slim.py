"""Pages without what they load and do not use: seconds, on a phone's network. And with the names that a screen reader reads.

The theme brings Font Awesome twice, as fonts, which draw every icon, and as a script, and all of its two thousand icons; it
has every page wait for the index of the search, which the page of the search alone reads. Sphinx brings MathJax to pages
without a formula; sphinx-thebe, which is switched off, declares the same constant twice, an error on every page;
sphinx-tippy brings its scripts to pages without a hover, and names a page's file of hovers at random.
"""
import hashlib
import io
import re

THEBE = (r'<script>const THEBE_JS_URL = [^<]*</script>', r'<script type="text/x-thebe-config">.*?</script>',
         r'<script[^>]*\bsphinx-thebe\.js[^>]*></script>', r'<link[^>]*\bsphinx-thebe\.css[^>]*>')
FONTS = (r'<script[^>]*/scripts/fontawesome\.js[^>]*></script>', r'<link[^>]*/scripts/fontawesome\.js[^>]*>')
MATHJAX = (r'<script>window\.MathJax = .*?</script>', r'<script[^>]*/mathjax/tex-chtml\.js[^>]*></script>')
HOVERS = (r'<script[^>]*/(?:popper\.min|tippy\.umd\.min|hovers)\.js[^>]*></script>', r'<script[^>]*/tippy/[^>]*></script>')
SEARCH = (r'<script src="[^"]*(?:_static/(?:searchtools|language_data)|searchindex)\.js"></script>',)
FORMULA = re.compile(r'class="(?:[^"]* )?(?:math|tex2jax_process|mathjax_process)[ "]|class="output text_latex')
TIPS = re.compile(r'(<script[^>]*src="[^"]*)(_static/tippy/[^"?]+?)\.(?:[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{16})\.js'
                  r'(\?[^"]*)?"')
SET = re.compile(r'class=\\"(?:[^"]* )?math[ \\]')  # a formula within a hover
WAITED = re.compile(r'<script (?=[^>]*src="[^"]*_static/(?:doctools|sphinx_highlight|clipboard\.min|copybutton|togglebutton|'
                    r'design-tabs|scripts/sphinx-book-theme)\.js)(?!defer)')  # none of them draws the page
NAMES = ((r'<summary(?=><span class="toctree-toggle")', '<summary aria-label="Sections"'),
         (r'(<summary) aria-label="Toggle hidden content"', r"\1"),  # its own words say which, and what
         (r'(<button class="btn search-button-field[^>]*?) aria-label="Search"', r"\1"),
         (r'(<div id="pst-primary-sidebar")(?! role)', r'\1 role="navigation" aria-label="The book"'),
         (r'(<div class="citation" id="[^"]*" role=)"doc-biblioentry"', r'\1"listitem"'),  # of what is a list
         (r"<th\b[^>]*>\s*</th>", "<td></td>"))
SHORT = re.compile(r'(?<!clings">)(?<!clings">\()\(?<span class="math[^"]*">\\\([^<]{1,60}\\\)</span>[,.;:?!)]+')
LONG = re.compile(r'(?<=<span class="pre">)[^<]{25,}(?=</span>)')


def slim(text, tips=""):
    """The text of a page without what it does not use. tips: the text of its file of hovers, "" where it has none."""
    formulas, search = FORMULA.search(text) or SET.search(tips), 'id="search-results"' in text
    for pattern in (*THEBE, *FONTS, *MATHJAX * (not formulas), *HOVERS * (not tips), *SEARCH * (not search)):
        text = re.sub(pattern + r"\n?", "", text, flags=re.S)
    return text if search else WAITED.sub('<script defer="defer" ', text)  # the search's own scripts want doctools


def named(text):
    """The text of a page whose controls and parts have the names that are read aloud, whose long names in code can end
    their line between two words, and whose short formulas stay with the comma behind them."""
    for pattern, name in NAMES:
        text = re.sub(pattern, name, text)
    text = SHORT.sub(r'<span class="clings">\g<0></span>', text)
    return LONG.sub(lambda match: re.sub(r"(?<=\w)(::|[._/])(?=\w)", r"\1<wbr>", match[0]), text)


def tips(html, text):
    """(a page's text, that of its hovers): their file is named by its content, and removed if it is empty."""
    match = TIPS.search(text)
    path = html / re.search(r'_static/tippy/[^"?]+', match[0])[0] if match else None
    if not path or not path.exists():
        return text, ""
    said = path.read_text(encoding="utf-8")
    name = f"{match[2]}.{hashlib.sha256(said.encode()).hexdigest()[:16]}.js"
    path.replace(html / name) if said else path.unlink()
    return text.replace(match[0], f'{match[1]}{name}"'), said


NAMED = re.compile(r'((?:\.fa-[a-z0-9-]+:{1,2}before,?)+)\{content:"\\([0-9a-f]{2,5})"\}')
FACE = re.compile(r'url\(([^)]*/(fa-\w+-\d+)\.)woff2\) format\("woff2"\),url\([^)]*\.ttf\) format\("truetype"\)')


def icons(html, pages):
    """Of the fonts of Font Awesome the icons that the pages (list of str) and style sheets use: 8 KB for 300."""
    from fontTools import subset  # comes with Matplotlib

    sheets = {path: path.read_text(encoding="utf-8") for path in (html / "_static").rglob("*.css")}
    words = {word for text in pages for word in re.findall(r"fa-[a-z0-9-]+", text)}
    used = {code for css in sheets.values() for code in re.findall(r'"\\([ef][0-9a-f]{3})"', NAMED.sub("", css))}
    used |= {code for css in sheets.values() for names, code in NAMED.findall(css)
             if words & set(re.findall(r"\.(fa-[a-z0-9-]+)", names))}
    for path, css in sheets.items():
        for where, name in FACE.findall(css):
            font = path.parent / f"{where}ttf"
            if font.exists():
                made = subset.load_font(io.BytesIO(font.read_bytes()), options := subset.Options(flavor="woff"))
                chosen = subset.Subsetter(options)
                chosen.populate(unicodes=[int(code, 16) for code in used])
                chosen.subset(made)
                subset.save_font(made, path.parent / f"{where}woff", options)
                font.unlink()
                (path.parent / f"{where}woff2").unlink()
        if (less := FACE.sub(r'url(\1woff) format("woff")', css)) != css:
            path.write_text(less, encoding="utf-8")


def slim_pages(html):
    """Every page of the site in folder `html`, in place."""
    found = sorted(html.rglob("*.html"))
    pages = []
    for path in found:
        text = path.read_text(encoding="utf-8")
        pages.append(named(slim(*tips(html, text))))
        if pages[-1] != text:
            path.write_text(pages[-1], encoding="utf-8")
    scripts = [path.read_text(encoding="utf-8") for path in sorted((html / "_static").rglob("*.js")) if "fa-" in path.name
               or path.parent == html / "_static" or path.parent.name == "scripts"]
    icons(html, [*pages, *(text for text in scripts if len(text) < 200_000)])
    for path in html.glob("tippy_*_cache.json"):  # what was asked of Wikipedia and others: nothing
        path.unlink()
