"""The welcome page and the lecturers': what they say, the chapters' cards, and questions whose answers are right."""
import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from scipy.stats import fisher_exact
from torch.distributions import Normal

from test_numbers import RESULT, prose

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "book"))
import check  # noqa: E402
import landing  # noqa: E402
import slim  # noqa: E402

INTRO, LECTURERS = ((ROOT / "book" / name).read_text(encoding="utf-8") for name in ("intro.md", "lecturers.md"))
CHAPTERS = [path.stem for path in check.notebooks()]


# ---- the cards, the routes

def test_every_chapter_has_a_card_with_its_own_title_and_minutes():
    cards = landing.chapters()
    assert list(cards) == CHAPTERS
    text = landing.cards()
    for name, card in cards.items():
        picture = landing.CARDS / f"{name[:2]}.webp"
        assert picture.stat().st_size < 30_000 and Image.open(picture).size == landing.SIZE
        assert f":link: ../notebooks/{name}\n" in text and f"{card['minutes']} minutes" in text and card["title"] in text
        assert card["asks"].endswith("?") and card["alt"].endswith(".") and 10 <= card["minutes"] <= 120
    assert sum(path.stat().st_size for path in landing.CARDS.glob("*.webp")) < 200_000


def test_a_chapter_without_a_card_is_named(monkeypatch):
    entries = check.toc_entries()
    monkeypatch.setattr(landing, "toc_entries", lambda: [*entries, "notebooks/99_new"])
    with pytest.raises(SystemExit, match="book/cards.yml: found nothing for 99_new, expected asks, level, figure, crop, alt"):
        landing.chapters()


def test_the_first_screen_says_what_for_whom_and_where_to_start():
    title, top = re.match(r"# (.+)\n", INTRO)[1], INTRO[:INTRO.index("## Move a dial")]
    assert "Multi-modal VAE" in title and title not in {card["title"] for card in landing.chapters().values()}
    assert "**For**" in top and "**You will be able to**" in top and re.search(r"\[Start[^\]]*\]\(../notebooks/01_", top)
    assert INTRO.index("live.html") < INTRO.index("chapters.txt") and INTRO.count("\n: ") >= 6
    for route in ("An hour's taste", "A course of six evenings", '"I want the code"'):
        assert f"\n{route}\n: " in INTRO


HEAD = ('<script>const THEBE_JS_URL = "https://x"; const thebe_selector = ".a"</script>\n<script async="async" '
        'src="../_static/sphinx-thebe.js?v=1"></script><link rel="stylesheet" href="../_static/sphinx-thebe.css?v=1" />'
        '<script defer src="../_static/scripts/fontawesome.js?digest=1"></script>\n'
        '<script src="../_static/scripts/bootstrap.js"></script><script>window.MathJax = {"options": {"enableMenu": false}}</script>\n'
        '<script defer="defer" src="../_static/mathjax/tex-chtml.js"></script>')


def test_a_page_loads_no_script_that_it_does_not_use():
    plain = '<section class="tex2jax_ignore mathjax_ignore"><p>words'
    formulas = '<span class="math notranslate nohighlight">'
    text = slim.slim(HEAD + plain)
    assert text == '<script src="../_static/scripts/bootstrap.js"></script>' + plain
    assert slim.slim(text) == text
    with_ = slim.slim(HEAD + formulas)
    assert "tex-chtml.js" in with_ and "window.MathJax" in with_ and formulas in with_ and "THEBE" not in with_


def test_a_comma_stays_with_its_formula():
    formula = r'<span class="math notranslate nohighlight">\(z_S\)</span>'
    once = slim.named(f"<p>of ({formula}), and {formula} too</p>")
    assert once == f'<p>of <span class="clings">({formula}),</span> and {formula} too</p>' and slim.named(once) == once
    wide = formula.replace("z_S", "p(z) " * 20)  # it would leave the line no place to end
    assert slim.named(wide + ",") == wide + ","


# ---- for lecturers

def test_every_question_has_a_folded_answer():
    asked = [int(n) for n in re.findall(r"^\*\*(\d+)\.\*\* ", LECTURERS, re.M)]
    answer = r"^:::\{admonition\} Answer to (\d+)\n:class: dropdown solution\n\S"
    answered = [int(n) for n in re.findall(answer, LECTURERS, re.M)]
    assert asked == answered == list(range(1, len(asked) + 1)) and len(asked) >= 20


def test_every_chapter_is_taught():
    table = LECTURERS[LECTURERS.index("## After each chapter"):LECTURERS.index("## A syllabus")]
    assert re.findall(r"notebooks/(\w+)\.ipynb", table) == CHAPTERS
    syllabus = LECTURERS[LECTURERS.index("## A syllabus"):LECTURERS.index("## Exam questions")]
    assert len(re.findall(r"^\| \d\. ", syllabus, re.M)) == 6
    for heading in ("## What is needed", "## Licence, and how to cite", "## How to change it"):
        assert heading in LECTURERS


@pytest.mark.parametrize("text", [INTRO, LECTURERS], ids=["intro", "lecturers"])
def test_no_result_stands_on_these_pages_by_hand(text):
    text = re.sub(r"Python 3\.\d+|CC BY 4\.0", "", prose({"source": text}))
    assert [hit[0] for hit in RESULT.finditer(text)] == []


def test_the_sums_in_the_answers_are_right():
    """Of questions 12, 13, 8 and 19: a product on a grid, a count, and Fisher's test."""
    z = torch.linspace(-9, 9, 200_001, dtype=torch.float64)
    log = sum(Normal(torch.tensor(mean), precision ** -0.5).log_prob(z)
              for mean, precision in ((1.5, 4.0), (-1.0, 2.0), (0.0, 1.0)))
    p = (log - log.max()).exp() / (log - log.max()).exp().sum()
    mean = (p * z).sum().item()
    assert mean == pytest.approx((4 * 1.5 - 2 * 1.0) / 7, abs=1e-4)
    assert (p * (z - mean) ** 2).sum().item() == pytest.approx(1 / 7, abs=1e-4)
    assert fisher_exact([[4, 1], [2, 3]]).pvalue > 0.5
    rows = torch.rand(4000, 11, generator=torch.Generator().manual_seed(0)) < 0.2  # pairs of one x_I put aside
    aside = rows[:, 0]
    assert (~rows[aside, 1:]).any(1).float().mean().item() == pytest.approx(1 - 0.2 ** 10, abs=0.01)
