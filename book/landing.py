"""What the welcome page has that is not written by hand: its live dials, and a card for each chapter.

python book/landing.py          draws book/_static/cards/NN.webp from the figures of the executed notebooks (make execute)
"""
import base64
import io
import re
import sys

import yaml
from PIL import Image

from check import ROOT, executed_dir, notebooks, read_notebook, tags, toc_entries

CARDS = ROOT / "book" / "_static" / "cards"
SIZE = 480, 288  # pixels of a card's picture, twice what a page shows
KEYS = {"asks": str, "level": str, "figure": str, "crop": list, "alt": str}


def chapters():
    """{name of a notebook: its card}, in the order of the book; "title", "minutes" and "number" are the notebook's own."""
    told, found = yaml.safe_load((ROOT / "book/cards.yml").read_text(encoding="utf-8")), {}
    names = [entry.removeprefix("notebooks/") for entry in toc_entries() if entry.startswith("notebooks/")]
    for number, name in enumerate(names, 1):
        card = told.get(name, {})
        if {key: type(card.get(key)) for key in KEYS} != KEYS:
            sys.exit(f"book/cards.yml: found {sorted(card) or 'nothing'} for {name}, expected {', '.join(KEYS)}")
        first = "".join(read_notebook(ROOT / "notebooks" / f"{name}.ipynb")["cells"][0]["source"])
        title, minutes = re.search(r"^# (.+)$", first, re.M), re.search(r"Goals · (\d+) minutes", first)
        if not title or not minutes:
            sys.exit(f"notebooks/{name}.ipynb: its first cell needs a title and a box of goals with its minutes")
        found[name] = card | {"title": title[1], "minutes": int(minutes[1]), "number": number}
    return found


def cards():
    """The chapters as cards (MyST): picture, title, question, minutes, level."""
    lines = ["::::{grid} 1 2 2 3", ":gutter: 3", ":class-container: chapters", ""]
    for name, card in chapters().items():
        lines += [":::{grid-item-card}", f":img-top: _static/cards/{name[:2]}.webp", f":img-alt: {card['alt']}",
                  f":link: ../notebooks/{name}", ":link-type: doc",
                  f":link-alt: Chapter {card['number']}, {card['title']}", "",
                  f"**{card['number']} · {card['title']}**", "", card["asks"], "",
                  f"*{card['minutes']} minutes, {card['level']}*", ":::", ""]
    return "\n".join([*lines, "::::", ""])


def live(assets):
    """The dials of the welcome page, and a paragraph on what they do (HTML, HTML); their assets go to folder `assets`."""
    from mmvae.experiment.dials import CALLED, dials, load  # PyTorch with it
    from stage import START

    three, record = dials(), load()[1]
    three.export(assets)
    shares = {record["names"][b]: max(of.values()) for b, of in record["does"].items()}
    does = ", ".join(f"{name} ({block(record, name)}) {shares[name]:.2f}" for name in CALLED.values())
    early = "".join(f'<link rel="preload" as="script" href="../widgets/{name}.js">' for name in (*three.assets, "widgets"))
    beta = " and then ".join(f"{1 / record['settings'][weight]:.0f}" for weight in ("weight", "sharpen_weight"))
    return (f'{early}<div class="mmvae-live">{three.page()}</div>{START}\n',
            f'<p class="mmvae-measured">Nobody told the model what nods, turns or is lit: it saw pairs, with β = {beta}, of which '
            "chapter 2 speaks. The dials are named after what they did when we measured it. Of each angle that its pictures "
            f"show, this share goes with its own dial: {does}.</p>\n")


def block(record, name):
    """The block of a dial as the page writes it (HTML)."""
    of = next(b for b, called in record["names"].items() if called == name)
    return f'<span class="z{of.lower()}">z<sub>{of}</sub></span>'


def draw(profile="cpu"):
    """Cut each card's picture from its chapter's figure, and write it to `CARDS`."""
    CARDS.mkdir(parents=True, exist_ok=True)
    for name, card in chapters().items():
        picture = figure(read_notebook(executed_dir(profile) / f"{name}.ipynb"), card["figure"], name)
        w, h = picture.size
        cut = picture.crop([round(share * side) for share, side in zip(card["crop"], (w, h, w, h))])
        by = min(SIZE[0] / cut.width, SIZE[1] / cut.height)
        cut = cut.resize([max(1, round(side * by)) for side in cut.size], Image.Resampling.LANCZOS)
        sheet = Image.new("RGBA", SIZE, (0, 0, 0, 0))
        sheet.alpha_composite(cut, ((SIZE[0] - cut.width) // 2, (SIZE[1] - cut.height) // 2))
        sheet.save(CARDS / f"{name[:2]}.webp", "WEBP", quality=72, method=6)
    size = sum(path.stat().st_size for path in CARDS.glob("*.webp"))
    print(f"wrote {len(list(CARDS.glob('*.webp')))} pictures, {size / 1024:.0f} KiB, in {CARDS.relative_to(ROOT)}")


def figure(nb, name, where):
    """The picture before the caption of this name, of an executed notebook (RGBA)."""
    for before, cell in zip(nb["cells"], nb["cells"][1:]):
        if "caption" in tags(cell) and cell["metadata"].get("name") == name:
            for out in before.get("outputs", []):
                if png := out.get("data", {}).get("image/png"):
                    return Image.open(io.BytesIO(base64.b64decode("".join(png)))).convert("RGBA")
    sys.exit(f"notebooks/{where}.ipynb: found no picture {name}, which book/cards.yml names; is it executed?")


if __name__ == "__main__":
    draw()
