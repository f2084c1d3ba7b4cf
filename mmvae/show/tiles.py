"""Modalities of any kind as small pictures of one size, so that one grid may hold them all: grey and colour pictures, other
arrays as greys, vectors as bars or a curve, classes by their probabilities. All tiles of a modality share one scale.

Lengths are CSS pixels, RETINA device pixels each; tiles are in device pixels.
"""
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from PIL import Image, ImageColor, ImageDraw
from torch import Tensor

from ..likelihoods import Bernoulli
from ..nets import Modality
from .labels import GREY, LABEL, RETINA, SMALL, length, symbol, write
from .picture import GAP, WIDTH, Picture, grid

BARS = 24  # a vector of more numbers is a curve
LEAST = 32  # a tile's side, where there are many columns
Part = tuple[str | None, Tensor | int]  # a modality's values (N, ...), or (frames, N, ...); or None: so many cells left empty


@dataclass(frozen=True)
class Look:
    """How a modality is drawn. kind: "grey", "colour", "array", "bars", "curve", "classes" or "sequence". low, high: of the
    scale that all its tiles share. shape: of one row. words: names of classes."""
    kind: str
    low: float
    high: float
    shape: tuple[int, ...]
    words: Sequence[str] = ()

    @property
    def note(self) -> str:
        """The scale in a few characters; empty for pictures in [0, 1] and for probabilities."""
        known = self.kind in ("classes", "sequence") or self.kind in ("grey", "colour") and (self.low, self.high) == (0, 1)
        return "" if known else f"{_number(self.low)} to {_number(self.high)}"

    def __str__(self) -> str:
        """In words, for alternative texts: "grey picture of 8 × 8"."""
        size = " × ".join(map(str, self.shape[1:] if self.kind in ("grey", "colour") else self.shape)) or "1"
        words = {"grey": "grey picture of {}", "colour": "colour picture of {}", "array": "{} numbers as greys",
                 "bars": "{} numbers as bars", "curve": "curve of {} numbers", "classes": "probabilities of {} classes",
                 "sequence": "probabilities, {} places × classes"}[self.kind].format(size)
        words = "number as a bar" if words == "1 numbers as bars" else words
        return words + f", {self.note}" * bool(self.note)


def _number(value: float) -> str:
    return (f"{value:.2g}" if abs(value) < 100 else f"{value:.0f}").replace("-", "\N{MINUS SIGN}")


def as_values(modality: Modality | None, x: Tensor, present: Tensor | None = None) -> Tensor:
    """Data as a likelihood's mean would be, float (B, ...) on the CPU: classes become probabilities; NaN where `present`,
    bool (B,), says that nothing was observed."""
    classes = getattr(getattr(modality, "likelihood", None), "classes", None)
    x = x.detach().cpu()
    if classes or modality is None and x.dtype == torch.int64 and x.dim() == 1:
        x = F.one_hot(x.clamp(min=0), classes or int(x.max()) + 1)
    x = x.float()
    return x if present is None else x.masked_fill(~present.cpu().view(-1, *[1] * (x.dim() - 1)), math.nan)


def look(modality: Modality | None, shown: Sequence[Tensor], words: Sequence[str] = ()) -> Look:
    """How these values of one modality, each (N, ...), are drawn."""
    shape, likelihood = tuple(shown[0].shape[1:]), getattr(modality, "likelihood", None)
    finite = [v[v.isfinite()] for v in shown if v.isfinite().any()] or [torch.zeros(1)]
    low, high = min(v.min().item() for v in finite), max(v.max().item() for v in finite)
    if getattr(likelihood, "classes", None) or modality is None and _one_hot(shown[0]):
        return Look("sequence" if len(shape) > 1 else "classes", 0.0, 1.0, shape, words)
    if isinstance(likelihood, Bernoulli):
        low, high = 0.0, 1.0
    if len(shape) > 1:
        kind = {1: "grey", 3: "colour"}.get(shape[0], "array") if len(shape) == 3 else "array"
        if kind != "array" and low >= -0.2 and high <= 1.2:
            low, high = 0.0, 1.0  # as pictures are; what a decoder adds to that is cut off
    else:
        kind, low, high = "bars" if math.prod(shape) <= BARS else "curve", min(low, 0.0), max(high, 0.0)
    return Look(kind, low, high if high > low else low + 1.0, shape, words)


def _one_hot(values: Tensor) -> bool:
    known = values[~values.flatten(1).isnan().any(1)]
    if values.dim() != 2 or values.shape[1] < 2:
        return False
    return bool(((known == 0) | (known == 1)).all() and (known.sum(1) == 1).all())


def tile(modality: Modality | None, values: Tensor, height: int = 64, width: int | None = None,
         how: Look | None = None) -> Tensor:
    """Values of one modality, data as of `as_values` or a likelihood's means, float (N, ...), as small pictures on a
    transparent ground: uint8 (N, 4, RETINA * height, RETINA * width).

    modality: None where nothing is known but the values. width: default, the height. how: default, `look` at these values.
    A row of NaN was not observed: it becomes a dashed frame.
    """
    values, how = values.detach().float().cpu(), how or look(modality, [values.detach().float().cpu()])
    size, gone = (RETINA * height, RETINA * (width or height)), values.flatten(1).isnan().all(1)
    if how.kind in ("grey", "colour", "array", "sequence"):
        made = _pictures(values, how, size)
    else:
        draw = {"classes": _classes, "bars": _bars, "curve": _curve}[how.kind]
        made = torch.stack([_bytes(draw(row.flatten().nan_to_num(), how, size)) for row in values])
    if gone.any():
        made[gone] = _bytes(_frame(size))
    return made


def _bytes(image: Image.Image) -> Tensor:
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, 4).permute(2, 0, 1)


def _pictures(values: Tensor, how: Look, size: tuple[int, int]) -> Tensor:
    """Each pixel a square of a whole number of device pixels, in the middle of the tile; larger pictures are shrunk."""
    if how.kind == "sequence":
        values = values.transpose(1, 2)  # classes from top to bottom, places from left to right
    if how.kind in ("array", "sequence"):  # channels side by side
        values = values.flatten(1, -3).unsqueeze(2) if values.dim() > 3 else values[:, None, None]  # (N, C, 1, h, w)
        values = torch.cat(values.unbind(1), -1)  # (N, 1, h, C w)
    tones = ((values - how.low) / (how.high - how.low)).clamp(0, 1).expand(-1, 3, -1, -1)
    (h, w), by = tones.shape[2:], min((size[0] - 4) / tones.shape[2], (size[1] - 4) / tones.shape[3])  # a margin of 2
    if by >= 1:
        tones = tones.repeat_interleave(int(by), 2).repeat_interleave(int(by), 3)
    else:
        tones = F.interpolate(tones, (max(1, int(by * h)), max(1, int(by * w))), mode="area")
    rgba = torch.cat([tones.nan_to_num() * 255, 255.0 * ~tones[:, :1].isnan()], 1).round().to(torch.uint8)
    (h, w), sheet = rgba.shape[2:], torch.zeros(len(values), 4, *size, dtype=torch.uint8)
    top, left = (size[0] - h) // 2, (size[1] - w) // 2
    sheet[:, :, top:top + h, left:left + w] = rgba
    return sheet


def _ground(size: tuple[int, int]) -> Image.Image:
    """A faint panel."""
    image = Image.new("RGBA", (size[1], size[0]))
    ImageDraw.Draw(image).rounded_rectangle((2, 2, size[1] - 3, size[0] - 3), 8, fill=_grey(30))
    return image


def _grey(alpha: int) -> tuple[int, int, int, int]:
    return (*ImageColor.getrgb(GREY), alpha)


def _frame(size: tuple[int, int]) -> Image.Image:
    """What stands for something that was not observed."""
    (height, width), step = size, 12
    image = Image.new("RGBA", (width, height))
    draw, box = ImageDraw.Draw(image), (4, 4, width - 5, height - 5)
    for at in range(box[0], box[2], step):
        for y in (box[1], box[3]):
            draw.line([(at, y), (min(at + step // 2, box[2]), y)], fill=_grey(255), width=2)
    for at in range(box[1], box[3], step):
        for x in (box[0], box[2]):
            draw.line([(x, at), (x, min(at + step // 2, box[3]))], fill=_grey(255), width=2)
    return image


def _columns(row: Tensor, width: int, least: int = 4) -> list[tuple[float, float, float]]:
    """(left, right, value) of each bar; where they would be thinner than `least`, each stands for the largest of several."""
    many = max(1, math.ceil(least * len(row) / width))
    row = torch.stack([part[part.abs().argmax()] for part in row.split(many)])
    step = width / len(row)
    gap = min(6, step // 4)
    return [(k * step + gap / 2, (k + 1) * step - gap / 2, value) for k, value in enumerate(row.tolist())]


def _bars(row: Tensor, how: Look, size: tuple[int, int], top: int = 10, strong: int | None = None) -> Image.Image:
    """Bars from zero; strong: the one that stands out, default all."""
    image, (height, width) = _ground(size), size
    draw, room = ImageDraw.Draw(image), height - top - 10
    zero = top + room * how.high / (how.high - how.low)
    bars = _columns(row, width - 20)
    chosen = None if strong is None else strong * len(bars) // len(row)
    for k, (left, right, value) in enumerate(bars):
        end = min(max(zero - room * value / (how.high - how.low), top), top + room)
        y0, y1 = sorted((round(zero), round(end)))
        if y1 > y0:
            draw.rectangle((round(10 + left), y0, max(round(10 + left), round(10 + right) - 1), y1 - 1),
                           fill=_grey(255 if chosen in (None, k) else 140))
    draw.line([(10, round(zero)), (width - 11, round(zero))], fill=_grey(255), width=2)
    return image


def _curve(row: Tensor, how: Look, size: tuple[int, int]) -> Image.Image:
    height, width = size
    scale, image = 2, _ground(size)  # drawn twice as large, so that it is smooth
    layer, room = Image.new("L", (scale * width, scale * height)), height - 20
    zero = 10 + room * how.high / (how.high - how.low)
    draw = ImageDraw.Draw(layer)
    draw.line([(scale * 10, scale * zero), (scale * (width - 10), scale * zero)], fill=110, width=scale)
    points = [(scale * (10 + (width - 20) * k / (len(row) - 1)),
               scale * (10 + room * (how.high - min(max(v, how.low), how.high)) / (how.high - how.low)))
              for k, v in enumerate(row.tolist())]
    draw.line(points, fill=255, width=3 * scale, joint="curve")
    ink = Image.new("RGBA", image.size, GREY)
    ink.putalpha(layer.resize(image.size, Image.Resampling.BOX))
    image.alpha_composite(ink)
    return image


def _classes(row: Tensor, how: Look, size: tuple[int, int]) -> Image.Image:
    """The most probable class by its name, above a bar for each."""
    best, named = int(row.argmax()), size[0] >= RETINA * 40
    image = _bars(row, how, size, top=RETINA * 26 if named else 10, strong=best)
    if named:
        words, room = [str(word).replace("_", " ") for word in how.words or range(len(row))], size[1] / RETINA - 8
        word = words[best] if best < len(words) else str(best)
        type_size = LABEL if max(length(w, LABEL) for w in (max(words, key=len), word)) <= room else SMALL
        while length(word, type_size) > room and len(word) > 2:
            word = word.rstrip("…")[:-1] + "…"
        write(image, word, size[1] / RETINA / 2, 21, type_size, 0.5)
    return image


def sheet(modalities: dict[str, Modality | None], lines: Sequence[tuple[str, Sequence[Part]]], columns: int, *, alt: str,
          own: str | None = None, most: int = 128, order: Sequence[int] | None = None, magnify: int | None = None,
          classes: dict[str, Sequence[str]] | None = None, looks: dict[str, Look] | None = None, **labels) -> Picture:
    """A `grid` of any modalities. Grey or colour pictures in [0, 1] of one size, all of them there, are drawn pixel by pixel,
    as `grid` does; all else as tiles of one size.

    lines: (name, parts), each part a modality's values, (N, ...), one after the other. most: a tile's side, at most. order:
    of the frames, if values are (frames, N, ...). magnify: of pixels. classes: {modality: names of its classes}. looks:
    default, those of these values. labels: further arguments of `grid`. alt: "{m}" in it becomes what m looks like; own:
    the reader's, which is taken as it is.
    """
    looks = looks or looks_of(modalities, lines, order is not None, classes)
    size = {h.shape[1:] for h in looks.values()}
    plain = len(size) == 1 and all(h.kind in ("grey", "colour") and not h.note for h in looks.values()) and not any(
        v.flatten(2 if order is not None else 1).isnan().all(-1).any() for _, parts in lines for m, v in parts if m)
    names, noted = [], set()
    for name, parts in lines:  # a modality's scale stands beside the first row that bears its name
        new = {m for m, _ in parts if m and symbol("x", m) in name and looks[m].note} - noted
        noted |= new
        names.append(name + ("" if not new else ", " if "\n" in name else "\n") + ", ".join(looks[m].note for m in new))
    left = max((max(length(a, LABEL), length(b, SMALL)) for a, _, b in (n.partition("\n") for n in names)), default=0)
    gaps = GAP * (len(labels.get("groups", ())) + 1)
    side = max(LEAST, min(most, int(WIDTH - left - gaps) // columns))
    if plain and magnify and left + gaps + columns * magnify * next(iter(size))[1] > 1.11 * WIDTH:
        magnify = max(1, side // next(iter(size))[1])
    channels = max((h.shape[0] for h in looks.values() if plain), default=4)
    made = []
    for _, parts in lines:
        line = []
        for m, v in parts:
            if m is None:
                shape = (v, channels, *next(iter(size))) if plain else (v, 4, RETINA * side, RETINA * side)
                cells = torch.full(shape, math.nan) if plain else torch.zeros(shape, dtype=torch.uint8)
                line.append(cells if order is None else cells.expand(max(order) + 1, *shape))
            elif plain:
                line.append(v.float().expand(*v.shape[:-3], channels, -1, -1))
            else:
                flat = v if order is None else v.flatten(0, 1)
                cells = tile(modalities.get(m), flat, side, how=looks[m])
                line.append(cells if order is None else cells.unflatten(0, tuple(v.shape[:2])))
        made.append(torch.cat(line, 0 if order is None else 1))
    images = torch.cat(made, 0 if order is None else 1)
    for m, how in looks.items():
        alt = alt.replace(f"{{{m}}}", str(how))
    return grid(images if order is None else images[list(order)], columns, alt=own or alt, names=names if any(names) else (),
                magnify=magnify, **labels)


def looks_of(modalities, rows, film: bool = False, classes: dict[str, Sequence[str]] | None = None) -> dict[str, Look]:
    """The look of every modality in these rows."""
    shown = {}
    for _, parts in rows:
        for m, v in parts:
            if m:
                shown.setdefault(m, []).append(v.flatten(0, 1) if film else v)
    return {m: look(modalities.get(m), values, (classes or {}).get(m, ())) for m, values in shown.items()}
