"""Pages without what they load and do not use: seconds, on a phone's network.

The theme brings Font Awesome twice, as fonts, which draw every icon, and as a script; Sphinx brings MathJax to pages without a
formula; sphinx-thebe, which is switched off, declares the same constant twice, an error on every page.
"""
import re

THEBE = (r'<script>const THEBE_JS_URL = [^<]*</script>', r'<script type="text/x-thebe-config">.*?</script>',
         r'<script[^>]*\bsphinx-thebe\.js[^>]*></script>', r'<link[^>]*\bsphinx-thebe\.css[^>]*>')
FONTS = (r'<script[^>]*/scripts/fontawesome\.js[^>]*></script>', r'<link[^>]*/scripts/fontawesome\.js[^>]*>')
MATHJAX = (r'<script>window\.MathJax = .*?</script>', r'<script[^>]*/mathjax/tex-chtml\.js[^>]*></script>')
FORMULA = re.compile(r'class="(?:[^"]* )?(?:math|tex2jax_process|mathjax_process)[ "]|class="output text_latex')


def slim(text):
    """The text of a page without what it does not use."""
    gone = THEBE + FONTS + (() if FORMULA.search(text) else MATHJAX)
    for pattern in gone:
        text = re.sub(pattern + r"\n?", "", text, flags=re.S)
    return text


def slim_pages(html):
    """Every page of the site in folder `html`, in place."""
    for path in html.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        if (less := slim(text)) != text:
            path.write_text(less, encoding="utf-8")
