"""Colours and type of every picture: the blocks' colours, and labels such as "z_I" drawn in them.

Lengths are CSS pixels, RETINA device pixels each.
"""
import re
from collections.abc import Iterable
from functools import lru_cache

from matplotlib import font_manager
from PIL import Image, ImageColor, ImageDraw, ImageFont

GREY = "#797979"  # the grey that reads equally well on white and on #121212: 4.3 to 1 on both
SHARED = "#009E73"  # these, and the next, are of Okabe & Ito (2008)
PRIVATE = "#0072B2", "#D55E00", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442"
RETINA = 2  # device pixels to one CSS pixel in every raster picture, so that type is crisp
LABEL, SMALL = 19, 16  # type sizes; the page's type is 16
Label = str | tuple[str, str]  # "z_I", or ("z_I", colour)


def colours(blocks: Iterable[str]) -> dict[str, str]:
    """The colour of each latent block, "#rrggbb": green for "S", grey for "Z" and "x", its own for each private one, in
    their order (after six they begin anew)."""
    blocks = list(dict.fromkeys(blocks))
    private = [b for b in blocks if b not in ("S", "Z", "x")]
    own = {b: PRIVATE[k % len(PRIVATE)] for k, b in enumerate(private)}
    return {b: SHARED if b == "S" else own.get(b, GREY) for b in blocks}


def luminance(colour: str) -> float:
    """Relative luminance of a colour, 0 to 1: WCAG 2.2."""
    parts = [c / 255 for c in ImageColor.getrgb(colour)[:3]]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def ink(colour: str) -> str:
    """The colour as type: darkened, where it is too light, until it stands out 3 to 1 on white."""
    while luminance(colour) > 1.05 / 3 - 0.05:
        colour = "#" + "".join(f"{round(0.93 * c):02X}" for c in ImageColor.getrgb(colour)[:3])
    return colour


def symbol(letter: str, name: str) -> str:
    """The label of a variable of this name: "z_digit", or "z_{left eye}"."""
    return f"{letter}_{name}" if re.fullmatch(r"[^\W_]+", name) else f"{letter}_{{{name}}}"


@lru_cache
def font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans" + ":bold" * (size != SMALL)), RETINA * size)


def parts(label: str, size: int) -> list[tuple[str, ImageFont.FreeTypeFont, int]]:
    """"z_I" -> z at its size, and I smaller and lower: (text, font, device pixels below the baseline)."""
    return [(part[1:].strip("{}"), font(round(0.72 * size)), 4 * RETINA) if len(part) > 1 and part[0] == "_" else
            (part, font(size), 0) for part in re.findall(r"_\{[^}]*\}|_[^\W_]+|[^_]+|_", label)]


def cut(label: str, size: int, room: float) -> str:
    """The label with its last subscript, if that is a word, cut until it fits: "z_spectr…"."""
    found = re.fullmatch(r"(.*)_\{?([^\W_][^{}]+)\}?", label)
    while found and length(label, size) > room and len(found[2]) > 2:
        label = f"{found[1]}_{{{found[2].rstrip('…')[:-1]}…}}"
        found = re.fullmatch(r"(.*)_\{?([^\W_][^{}]+)\}?", label)
    return label


def length(label: str, size: int) -> float:
    """The label's width in CSS pixels."""
    return sum(of.getlength(text) for text, of, _ in parts(label, size)) / RETINA


def write(image: Image.Image, label: Label, x: float, y: float, size: int, align: float) -> None:
    """Draw a label with its baseline at y; align 0: x is its left end, 0.5: its middle, 1: its right end."""
    text, colour = (label, GREY) if isinstance(label, str) else label
    mask = Image.new("L", image.size)
    draw, at = ImageDraw.Draw(mask), RETINA * (x - align * length(text, size))
    for part, of, low in parts(text, size):
        draw.text((round(at), round(RETINA * y) + low), part, fill=255, font=of, anchor="ls")
        at += of.getlength(part)
    layer = Image.new("RGBA", image.size, ink(colour))
    layer.putalpha(mask)
    image.alpha_composite(layer)
