"""Pictures that look the same in a notebook, in Colab and on the page: pixel-exact grids, labelled in the
blocks' colours, still or animated. Lengths are CSS pixels unless a comment says otherwise.
"""
import base64
import html
import io
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image, ImageColor, ImageDraw, ImageSequence
from torch import Tensor
from torchvision.utils import make_grid

from ..checkpoint import write_atomically
from .labels import GREY, LABEL, RETINA, SMALL, Label, colours, cut, length, write

__all__ = ["GREY", "GAP", "LABEL", "Label", "Picture", "RETINA", "SMALL", "WIDTH", "colours", "grid", "stack"]
WIDTH = 720  # of the text column
GAP = 6  # between groups of rows or columns


@dataclass(frozen=True)
class Picture:
    """An image that displays itself: the last expression of a cell.

    data: the file's bytes. kind: "png", "svg", or "webp", an animation. width: on the page. alt: what there
    is to see, for those who cannot. still: a PNG for print, and for where no HTML is shown.
    An animation's data holds the moving part alone, at its own size; the page magnifies it by `box` = (left,
    top, whole number; or a half, of device pixels) over `base`, a PNG of what does not move; `calm` replaces it
    for readers who ask for no motion. tints: of its labels, if all else is grey; a GIF has few colours.
    """
    data: bytes
    kind: str
    width: int
    alt: str
    still: bytes = b""
    base: bytes = b""
    calm: bytes = b""
    box: tuple[int, int, float] = (0, 0, 1)
    tints: tuple[str, ...] = ()

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
        smooth = "auto" if by < 1 else "pixelated"
        place = f"left:{100 * RETINA * left / w:.4f}%;top:{100 * RETINA * top / h:.4f}%"
        size = f"width:{100 * RETINA * by * width / w:.4f}%;height:{100 * RETINA * by * height / h:.4f}%"
        return (f'<div class="mmvae-picture" style="position:relative;{fit}">'
                f'<img src="{_uri(self.base, "png")}" alt="" class="dark-light" '
                f'style="{css}display:block;width:100%;height:auto"><picture>'
                f'<source media="(prefers-reduced-motion: reduce)" srcset="{_uri(self.calm, "png")}">'
                f'<img src="{_uri(self.data, "webp")}" alt="{alt}" class="dark-light" style="{css}'
                f'position:absolute;max-width:none;image-rendering:{smooth};{place};{size}"></picture>'
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
            how = Image.Resampling.BOX if by < 1 else Image.Resampling.NEAREST
            frame.alpha_composite(moving.resize([round(by * side) for side in moving.size], how), (left, top))
            frames.append(frame)
        if suffix == "gif":  # no half-transparent edges, so its ground is white; few colours, so it is small
            white = Image.new("RGBA", base.size, "white")
            frames = [Image.alpha_composite(white, frame).convert("RGB") for frame in frames]
            palette = _palette(self.tints) if self.tints else _montage(frames[::max(1, len(frames) // 4)]).quantize(256)
            frames = [frame.quantize(palette=palette, dither=0) for frame in frames]
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


def _palette(tints: tuple[str, ...]) -> Image.Image:
    """Greys, and these colours with their tints on white."""
    greys = [(grey, grey, grey) for grey in (*range(0, 245, 5), 255)]
    soft = [tuple(c + (255 - c) * k // 4 for c in ImageColor.getrgb(tint)[:3]) for tint in tints for k in range(4)]
    palette = Image.new("P", (1, 1))
    palette.putpalette([c for rgb in greys + soft for c in rgb])
    return palette


def _montage(images: list[Image.Image], gap: int = 0) -> Image.Image:
    """Images one below the other, on a transparent ground if they have one."""
    sheet = Image.new(images[0].mode, (max(i.width for i in images), sum(i.height + gap for i in images) - gap))
    y = 0
    for image in images:
        sheet.paste(image, (0, y))
        y += image.height + gap
    return sheet


def stack(pictures: list[Picture], alt: str, gap: int = 3 * GAP) -> Picture:
    """Still pictures one below the other, as one."""
    sheet = _montage([picture.image() for picture in pictures], RETINA * gap)
    return Picture(_png(sheet), "png", sheet.width // RETINA, alt)


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _starts(sizes: list[int], step: int, gap: int, start: int) -> list[int]:
    """Where each group of tiles begins, and (last) where one more would."""
    ends = [start]
    for n in sizes:
        ends.append(ends[-1] + n * step + gap)
    return ends


def _rgba(images: Tensor, by: int, levels: int) -> Tensor:
    """(N, 1 or 3, h, w) in [0, 1] -> uint8 (N, 4, by h, by w): a pixel becomes by x by; NaN is transparent. Tiles, uint8
    (N, 4, h, w), stay as large as they are."""
    scale = 255 / (levels - 1)
    if images.dtype == torch.uint8:
        soft = (images[:, :3] / scale).round() * scale
        return images if levels == 256 else torch.cat([soft.round().to(torch.uint8), images[:, 3:]], 1)
    tones = (images.nan_to_num().clamp(0, 1) * (levels - 1)).round() * scale
    rgba = torch.cat([tones.round().expand(-1, 3, -1, -1), 255.0 * ~images.isnan().any(1, keepdim=True)], 1).to(torch.uint8)
    return rgba.repeat_interleave(by, 2).repeat_interleave(by, 3)


def grid(images: Tensor, columns: int, *, alt: str, heads: list[Label] = (), groups: list[tuple] = (),
         names: list[Label] = (), rows: list[int] = (), captions: list[str] = (), magnify: int | None = None,
         values: list[float] = (), duration: int = 80, limit: int = 1_000_000) -> Picture:
    """Images side by side, row by row, each magnified by one whole number, on a transparent ground.

    images: (N, 1, h, w), grey, or (N, 3, h, w), red, green and blue, in [0, 1], NaN for nothing; or, uint8, (N, 4, h, w),
    tiles as `mmvae.show.tiles` draws them, in device pixels; or (F, N, ...), F frames of an animation that loops for
    ever. heads: a label above each column. groups: (label, number of columns) with a gap between them,
    the label above in its colour. names: a label left of each row, after a
    line break in smaller type. rows: the sizes of groups of rows.
    captions: one below each image. magnify: default, the largest that keeps to the column's width, and images
    to 128. values: of the swept latent in each frame, shown as a dot that runs along each group. duration: of
    a frame, milliseconds. limit: bytes of an animation, kept by drawing with fewer grey levels.
    Labels are strings, "z_I" with a subscript, or (string, colour). Raises ValueError for counts that do not
    match.
    """
    frames, tiles = images.detach().cpu(), images.dtype == torch.uint8
    frames = frames if tiles else frames.float()
    frames = frames if frames.dim() == 5 else frames[None]
    if frames.dim() != 5 or frames.shape[2] not in ((4,) if tiles else (1, 3)):
        raise ValueError(f"images: found {tuple(images.shape)} of {images.dtype}, expected (N, 1, h, w) or (N, 3, h, w) of "
                         "floating point, or F frames of them, (F, N, ...)")
    n, h, w = frames.shape[1], *(side // RETINA if tiles else side for side in frames.shape[3:])
    if n % columns:
        raise ValueError(f"images: found {n}, expected a multiple of {columns} columns")
    lines, spans = n // columns, [g[1] for g in groups] or [columns]
    rows = list(rows) or ([1] * lines if captions else [lines])
    for name, found, expected in (("heads", len(heads), columns), ("groups", sum(spans), columns),
                                  ("rows", sum(rows), lines), ("names", len(names), lines),
                                  ("captions", len(captions), n)):
        if found and found != expected:
            raise ValueError(f"{name}: found {found} for {expected}")

    text = [(label if isinstance(label, str) else label[0]).partition("\n") for label in names]
    left = round(max((max(length(t, LABEL), length(small, SMALL)) for t, _, small in text), default=-GAP)) + GAP
    room = WIDTH - left - GAP * (len(spans) - 1)
    magnify = 1 if tiles else magnify or max(1, min(128 // w, room // (columns * w)))
    gap, below, lane = (-(-length // magnify) * magnify for length in  # whole pixels of the images
                        (GAP, 22 if captions else 0, 12 if len(values) else 0))
    top = (28 if groups else 0) + (26 if heads else 0) + lane
    xs, ys = _starts(spans, magnify * w, gap, left), _starts(rows, magnify * h, gap + below, top)
    width, height = xs[-1] - gap, ys[-1] - gap
    moving = [(x + k * magnify * w, label[1]) for (label, span), x in zip(groups, xs) for k in range(span)
              if len(values) and not isinstance(label, str)]  # the columns that move have a coloured name

    def put(label: Label, among: list[Label], x: float, y: int, room: int):  # one size for all of them
        small = any(length(a if isinstance(a, str) else a[0], LABEL) > room for a in among)
        text = cut(label if isinstance(label, str) else label[0], SMALL if small else LABEL, room)
        write(ground, text if isinstance(label, str) else (text, label[1]), x, y, SMALL if small else LABEL, 0.5)

    ground = Image.new("RGBA", (RETINA * width, RETINA * height))
    middles = [x + (k + 0.5) * magnify * w for x, span in zip(xs, spans) for k in range(span)]
    for head, x in zip(heads, middles):
        put(head, heads, x, (28 if groups else 0) + 19, magnify * w)
    for (label, span), x in zip(groups, xs):
        put(label, [g[0] for g in groups if g[1] == span], x + span * magnify * w / 2, 18, span * magnify * w)
    row_ys = [y + k * magnify * h for y, r in zip(ys, rows) for k in range(r)]
    for name, (line, _, small), y in zip(names, text, row_ys):
        write(ground, line if isinstance(name, str) else (line, name[1]), left - GAP,
              y + magnify * h / 2 + (-3 if small else 6), LABEL, 1)
        if small:
            write(ground, small, left - GAP, y + magnify * h / 2 + 17, SMALL, 1)
    for k, caption in enumerate(captions):
        write(ground, caption, middles[k % columns], row_ys[k // columns] + magnify * h + 17, SMALL, 0.5)

    for x, colour in moving:
        ends = [(RETINA * to, RETINA * (top - lane // 2)) for to in (x + 8, x + magnify * w - 9)]
        ImageDraw.Draw(ground).line(ends, fill=colour, width=RETINA)

    def area(frame: Tensor, by: int, levels: int, at: float | None = None) -> Image.Image:
        """The images alone, their pixels squares of by x by; above them, where the moving latent is."""
        image = Image.new("RGBA", [length * by // magnify for length in (width - left, height - top + lane)])
        cells = _rgba(frame, by, levels).unflatten(0, (-1, columns))  # (rows, columns, 4, by h, by w)
        for y, across in zip(ys, cells.split(rows)):
            for x, block in zip(xs, across.split(spans, 1)):
                if block.numel():  # a group of no columns is a wider gap
                    sheet = make_grid(list(block.flatten(0, 1)), nrow=block.shape[1], padding=0)  # (4, H, W)
                    image.paste(Image.fromarray(sheet.permute(1, 2, 0).numpy()),
                                ((x - left) * by // magnify, (y - top + lane) * by // magnify))
        for x, colour in moving if at is not None else ():
            x = (x - left + 6 + at * (magnify * w - 16)) / magnify * by
            high, low = min(by, lane * by // magnify - 1), lane * by // magnify - by - 1  # of few pixels one remains
            corner = (round(x) + max(4 * by // magnify, 1) - 1, max(high, low))
            ImageDraw.Draw(image).rectangle([(round(x), high), corner], fill=colour)
        return image

    def whole(frame: Tensor, at: float | None = None) -> bytes:
        image = ground.copy()
        image.alpha_composite(area(frame, RETINA * magnify, 256, at), (RETINA * left, RETINA * (top - lane)))
        return _png(image)

    if len(frames) == 1:
        return Picture(whole(frames[0]), "png", width, alt)
    low, high = (min(values), max(values)) if len(values) else (0, 1)
    tints = [label[1] for label in (*(group[0] for group in groups), *heads) if not isinstance(label, str)]
    coloured = frames.shape[2] > 1 and any(bool((frames[:, :, 0] != frames[:, :, c]).any()) for c in (1, 2))
    least = RETINA if tiles else 1  # device pixels of an animation's pixel, if that is not magnified
    at = [(v - low) / (high - low) for v in values] or [None] * len(frames)
    for levels in (256, 128, 64, 32, 16):
        drawn, out = [area(frame, least, levels, a) for frame, a in zip(frames, at)], io.BytesIO()
        drawn[0].save(out, "WEBP", save_all=True, append_images=drawn[1:], duration=duration, loop=0,
                      lossless=True, quality=50, method=2)
        if out.tell() <= limit:
            break
    return Picture(out.getvalue(), "webp", width, alt, still=whole(frames[0], at[0]), base=_png(ground),
                   calm=_png(drawn[0]), box=(left, top - lane, magnify / least if tiles else magnify),
                   tints=() if coloured else tuple(dict.fromkeys(tints)) + (GREY, GREY))


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return out.getvalue()
