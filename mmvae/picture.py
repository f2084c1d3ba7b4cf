"""Pictures that look the same in a notebook, in Colab and on the page: pixel-exact grids, labelled in the
blocks' colours, still or animated. Lengths are CSS pixels unless a comment says otherwise.
"""
import base64
import html
import io
import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch
from matplotlib import font_manager
from PIL import Image, ImageColor, ImageDraw, ImageFont, ImageSequence
from torch import Tensor
from torchvision.utils import make_grid

from .train import write_atomically

GREY = "#797979"  # the grey that reads equally well on white and on #121212: 4.3 to 1 on both
COLOURS = {"I": "#0072B2", "S": "#009E73", "T": "#D55E00", "Z": GREY, "x": GREY}  # Okabe & Ito (2008)
WIDTH = 720  # of the text column
RETINA = 2  # device pixels to one CSS pixel in every raster picture, so that type is crisp
LABEL, SMALL = 19, 16  # type sizes; the page's type is 16
GAP = 6  # between groups of rows or columns
Label = str | tuple[str, str]  # "z_I", or ("z_I", colour)


@dataclass(frozen=True)
class Picture:
    """An image that displays itself: the last expression of a cell.

    data: the file's bytes. kind: "png", "svg", or "webp", an animation. width: on the page. alt: what there
    is to see, for those who cannot. still: a PNG for print, and for where no HTML is shown.
    An animation's data holds the moving part alone, at its own size; the page magnifies it by `box` = (left,
    top, whole number) over `base`, a PNG of what does not move; `calm` replaces it for readers who ask for no
    motion.
    """
    data: bytes
    kind: str
    width: int
    alt: str
    still: bytes = b""
    base: bytes = b""
    calm: bytes = b""
    box: tuple[int, int, int] = (0, 0, 1)

    def __post_init__(self):
        if not self.alt.strip():
            raise ValueError("Picture: alt is empty; expected a sentence that says what the picture shows")

    def _repr_html_(self) -> str:
        alt = html.escape(" ".join(self.alt.split()), quote=True)
        if self.kind == "svg":  # inline, so that its text takes the colour of the page's text
            svg = self.data.decode()
            svg = svg[svg.index("<svg"):]
            return f'<div class="mmvae-picture" style="max-width:{self.width}px">{svg}</div>'
        # A little too wide for the column, a picture shrinks; much too wide, as on a phone, it scrolls,
        # and its type stays legible. dark-light: the site's dark theme leaves it alone.
        fit = f"width:{self.width}px;max-width:100%;min-width:{round(0.85 * self.width)}px;"
        css = "padding:0;margin:0;background:none;border-radius:0;"
        if self.kind == "png":
            return (f'<img src="{_uri(self.data, "png")}" alt="{alt}" width="{self.width}" '
                    f'class="mmvae-picture dark-light" style="{fit}{css}height:auto">')
        left, top, by = self.box
        (w, h), (width, height) = (Image.open(io.BytesIO(data)).size for data in (self.base, self.calm))
        place = f"left:{100 * RETINA * left / w:.4f}%;top:{100 * RETINA * top / h:.4f}%"
        size = f"width:{100 * RETINA * by * width / w:.4f}%;height:{100 * RETINA * by * height / h:.4f}%"
        return (f'<div class="mmvae-picture" style="position:relative;{fit}">'
                f'<img src="{_uri(self.base, "png")}" alt="" class="dark-light" '
                f'style="{css}display:block;width:100%;height:auto"><picture>'
                f'<source media="(prefers-reduced-motion: reduce)" srcset="{_uri(self.calm, "png")}">'
                f'<img src="{_uri(self.data, "webp")}" alt="{alt}" class="dark-light" style="{css}'
                f'position:absolute;max-width:none;image-rendering:pixelated;{place};{size}"></picture>'
                '</div>')

    def _repr_mimebundle_(self, include=None, exclude=None):
        bundle = {"text/html": self._repr_html_(), "text/plain": self.alt}
        png = self.still or (self.data if self.kind == "png" else b"")
        if png:
            bundle["image/png"] = base64.b64encode(png).decode()
        elif self.kind == "svg":
            bundle["image/svg+xml"] = self.data.decode()
        return bundle, {"image/png": {"width": self.width, "alt": self.alt}}

    def image(self) -> Image.Image:
        """The (first or still) raster image, RGBA, RETINA device pixels to one CSS pixel."""
        return Image.open(io.BytesIO(self.still or self.data)).convert("RGBA")

    def film(self, suffix: str) -> bytes:
        """The animation as one file with its labels: a WebP, RETINA times its size, or a GIF at its own."""
        scale = RETINA if suffix == "webp" else 1
        left, top, by = (scale * length for length in self.box)
        file, base = Image.open(io.BytesIO(self.data)), Image.open(io.BytesIO(self.base)).convert("RGBA")
        base, frames = base.resize([side * scale // RETINA for side in base.size], Image.Resampling.BOX), []
        for part in ImageSequence.Iterator(file):
            moving, frame = part.convert("RGBA"), base.copy()
            moving = moving.resize([by * side for side in moving.size], Image.Resampling.NEAREST)
            frame.alpha_composite(moving, (left, top))
            frames.append(frame)
        if suffix == "gif":  # no half-transparent edges, so its ground is white; few colours, so it is small
            tints = [ImageColor.getrgb(colour) for colour in COLOURS.values()]
            greys = [(grey, grey, grey) for grey in (*range(0, 245, 5), 255)]
            soft = [tuple(c + (255 - c) * k // 4 for c in rgb) for rgb in tints for k in range(4)]
            palette, white = Image.new("P", (1, 1)), Image.new("RGBA", base.size, "white")
            palette.putpalette([c for rgb in greys + soft for c in rgb])
            frames = [Image.alpha_composite(white, frame).convert("RGB").quantize(palette=palette, dither=0)
                      for frame in frames]
        out, options = io.BytesIO(), {"quality": 60, "method": 4} if suffix == "webp" else {}
        frames[0].save(out, suffix.upper(), save_all=True, append_images=frames[1:], loop=0,
                       duration=file.info.get("duration", 100), **options)
        return out.getvalue()

    def save(self, path: str | Path) -> Path:
        """Write it to path, by a temporary name: .png (of an animation, the still), .webp, .gif or .svg.

        Raises ValueError if this kind of picture has no such file.
        """
        path = Path(path)
        suffix = path.suffix[1:].lower()
        if self.kind == "webp" and suffix in ("webp", "gif"):
            data = self.film(suffix)
        elif suffix == self.kind:
            data = self.data
        elif suffix == "png" and self.still:
            data = self.still
        else:
            more = {"webp": ', ".gif" or ".png"', "svg": ' or ".png"' * bool(self.still)}.get(self.kind, "")
            raise ValueError(f'{path}: found suffix ".{suffix}", expected ".{self.kind}"{more}')
        path.parent.mkdir(parents=True, exist_ok=True)
        # a picture seen alone has no page to take its colour from
        write_atomically(path, data.replace(b"currentColor", GREY.encode()) if suffix == "svg" else data)
        return path


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(font_manager.findfont("DejaVu Sans" + ":bold" * (size != SMALL)), RETINA * size)


def _parts(label: str, size: int) -> list[tuple[str, ImageFont.FreeTypeFont, int]]:
    """"z_I" -> z at its size, and I smaller and lower: (text, font, device pixels below the baseline)."""
    return [(part[1:], _font(round(0.72 * size)), 4 * RETINA) if part[0] == "_" else (part, _font(size), 0)
            for part in re.findall(r"_.|[^_]+", label)]


def _length(label: str, size: int) -> float:
    """The label's width in CSS pixels."""
    return sum(font.getlength(text) for text, font, _ in _parts(label, size)) / RETINA


def _write(image: Image.Image, label: Label, x: float, y: float, size: int, align: float) -> None:
    """Draw a label with its baseline at y; align 0: x is its left end, 0.5: its middle, 1: its right end."""
    text, colour = (label, GREY) if isinstance(label, str) else label
    mask = Image.new("L", image.size)
    draw, at = ImageDraw.Draw(mask), RETINA * (x - align * _length(text, size))
    for part, font, low in _parts(text, size):
        draw.text((round(at), round(RETINA * y) + low), part, fill=255, font=font, anchor="ls")
        at += font.getlength(part)
    layer = Image.new("RGBA", image.size, colour)
    layer.putalpha(mask)
    image.alpha_composite(layer)


def _starts(sizes: list[int], step: int, gap: int, start: int) -> list[int]:
    """Where each group of tiles begins, and (last) where one more would."""
    ends = [start]
    for n in sizes:
        ends.append(ends[-1] + n * step + gap)
    return ends


def _rgba(images: Tensor, by: int, levels: int) -> Tensor:
    """(N, 1, h, w) in [0, 1] -> uint8 (N, 4, by h, by w): a pixel becomes by x by; NaN is transparent."""
    grey = (images.nan_to_num().clamp(0, 1) * (levels - 1)).round() * (255 / (levels - 1))
    rgba = torch.cat([grey.round().expand(-1, 3, -1, -1), 255.0 * ~images.isnan()], 1).to(torch.uint8)
    return rgba.repeat_interleave(by, 2).repeat_interleave(by, 3)


def grid(images: Tensor, columns: int, *, alt: str, heads: list[Label] = (), groups: list[tuple] = (),
         names: list[Label] = (), rows: list[int] = (), captions: list[str] = (), magnify: int | None = None,
         values: list[float] = (), duration: int = 80, limit: int = 1_000_000) -> Picture:
    """Images side by side, row by row, each magnified by one whole number, on a transparent ground.

    images: (N, 1, h, w) in [0, 1], NaN for nothing; or (F, N, 1, h, w), F frames of an animation that loops
    for ever. heads: a label above each column. groups: (label, number of columns) with a gap between them,
    the label above in its colour. names: a label left of each row. rows: the sizes of groups of rows.
    captions: one below each image. magnify: default, the largest that keeps to the column's width, and images
    to 128. values: of the swept latent in each frame, shown as a dot that runs along each group. duration: of
    a frame, milliseconds. limit: bytes of an animation, kept by drawing with fewer grey levels.
    Labels are strings, "z_I" with a subscript, or (string, colour). Raises ValueError for counts that do not
    match.
    """
    frames = images.detach().float().cpu()
    frames = frames if frames.dim() == 5 else frames[None]
    if frames.dim() != 5 or frames.shape[2] != 1:
        raise ValueError(f"images: found {tuple(images.shape)}, expected (N, 1, h, w) or (F, N, 1, h, w)")
    n, h, w = frames.shape[1], *frames.shape[3:]
    if n % columns:
        raise ValueError(f"images: found {n}, expected a multiple of {columns} columns")
    lines, spans = n // columns, [g[1] for g in groups] or [columns]
    rows = list(rows) or ([1] * lines if captions else [lines])
    for name, found, expected in (("heads", len(heads), columns), ("groups", sum(spans), columns),
                                  ("rows", sum(rows), lines), ("names", len(names), lines),
                                  ("captions", len(captions), n)):
        if found and found != expected:
            raise ValueError(f"{name}: found {found} for {expected}")

    text = [label if isinstance(label, str) else label[0] for label in names]
    left = round(max((_length(t, LABEL) for t in text), default=-GAP)) + GAP
    room = WIDTH - left - GAP * (len(spans) - 1)
    magnify = magnify or max(1, min(128 // w, room // (columns * w)))
    gap, below, lane = (-(-length // magnify) * magnify for length in  # whole pixels of the images
                        (GAP, 22 if captions else 0, 12 if len(values) else 0))
    top = (28 if groups else 0) + (26 if heads else 0) + lane
    xs, ys = _starts(spans, magnify * w, gap, left), _starts(rows, magnify * h, gap + below, top)
    width, height = xs[-1] - gap, ys[-1] - gap
    moving = [(x + k * magnify * w, label[1]) for (label, span), x in zip(groups, xs) for k in range(span)
              if len(values) and not isinstance(label, str)]  # the columns that move have a coloured name

    def fit(labels: list[Label], room: int) -> int:  # one size for all
        text = [label if isinstance(label, str) else label[0] for label in labels]
        return LABEL if all(_length(t, LABEL) <= room for t in text) else SMALL

    ground = Image.new("RGBA", (RETINA * width, RETINA * height))
    middles = [x + (k + 0.5) * magnify * w for x, span in zip(xs, spans) for k in range(span)]
    for head, x in zip(heads, middles):
        _write(ground, head, x, (28 if groups else 0) + 19, fit(heads, magnify * w), 0.5)
    for (label, span), x in zip(groups, xs):
        same = [g[0] for g in groups if g[1] == span]
        _write(ground, label, x + span * magnify * w / 2, 18, fit(same, span * magnify * w), 0.5)
    row_ys = [y + k * magnify * h for y, r in zip(ys, rows) for k in range(r)]
    for name, y in zip(names, row_ys):
        _write(ground, name, left - GAP, y + magnify * h / 2 + 6, LABEL, 1)
    for k, caption in enumerate(captions):
        _write(ground, caption, middles[k % columns], row_ys[k // columns] + magnify * h + 17, SMALL, 0.5)

    for x, colour in moving:
        ends = [(RETINA * to, RETINA * (top - lane // 2)) for to in (x + 8, x + magnify * w - 9)]
        ImageDraw.Draw(ground).line(ends, fill=colour, width=RETINA)

    def area(frame: Tensor, by: int, levels: int, at: float | None = None) -> Image.Image:
        """The images alone, their pixels squares of by x by; above them, where the moving latent is."""
        image = Image.new("RGBA", [length * by // magnify for length in (width - left, height - top + lane)])
        tiles = _rgba(frame, by, levels).unflatten(0, (-1, columns))  # (rows, columns, 4, by h, by w)
        for y, across in zip(ys, tiles.split(rows)):
            for x, block in zip(xs, across.split(spans, 1)):
                if block.numel():  # a group of no columns is a wider gap
                    sheet = make_grid(list(block.flatten(0, 1)), nrow=block.shape[1], padding=0)  # (4, H, W)
                    image.paste(Image.fromarray(sheet.permute(1, 2, 0).numpy()),
                                ((x - left) * by // magnify, (y - top + lane) * by // magnify))
        for x, colour in moving if at is not None else ():
            x = (x - left + 6 + at * (magnify * w - 16)) / magnify * by
            corner = (round(x) + 4 * by // magnify - 1, lane * by // magnify - by - 1)
            ImageDraw.Draw(image).rectangle([(round(x), by), corner], fill=colour)
        return image

    def whole(frame: Tensor, at: float | None = None) -> bytes:
        image = ground.copy()
        image.alpha_composite(area(frame, RETINA * magnify, 256, at), (RETINA * left, RETINA * (top - lane)))
        return _png(image)

    if len(frames) == 1:
        return Picture(whole(frames[0]), "png", width, alt)
    low, high = (min(values), max(values)) if len(values) else (0, 1)
    at = [(v - low) / (high - low) for v in values] or [None] * len(frames)
    for levels in (256, 128, 64, 32, 16):
        drawn, out = [area(frame, 1, levels, a) for frame, a in zip(frames, at)], io.BytesIO()
        drawn[0].save(out, "WEBP", save_all=True, append_images=drawn[1:], duration=duration, loop=0,
                      lossless=True, quality=50, method=2)
        if out.tell() <= limit:
            break
    return Picture(out.getvalue(), "webp", width, alt, still=whole(frames[0], at[0]), base=_png(ground),
                   calm=_png(drawn[0]), box=(left, top - lane, magnify))


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()
