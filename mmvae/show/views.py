"""What stands on a page for a modality: a picture, bars, a curve, classes. And what is given there, as text and files.

A view is JSON: {"kind": "picture", "numbers" or "classes", "low", "high": the ends of its scale, "size": [H, W] and
"channels" of a picture, "curve": whether numbers are one, "names" of classes}. js/draw.js draws by it.
"""
import base64
import io
import math
from collections.abc import Sequence

import torch
from PIL import Image, ImageColor
from torch import Tensor
from torchvision.utils import make_grid

from ..likelihoods import Bernoulli, Categorical
from .labels import luminance

QUALITY = 82  # of a WebP: two grey levels from the truth at the root mean square, 0.72 of the bytes of 90
BARS = 16  # numbers that still stand as bars; more are a curve
PEOPLE, VALUES = 3, 11  # of the faces that a page holds: people of each `Pairs`, at most so many values of a factor
GROUNDS, CONTRASTS = ("#ffffff", "#121212"), (4.8, 7.0)  # light and dark pages, and how type stands out on them


def inks(colour: str) -> list[str]:
    """A colour as type wears it, on a light page and on a dark one: darkened, or lightened, until it can be read."""
    found = []
    for ground, contrast, end in zip(GROUNDS, CONTRASTS, (0, 255)):
        mixed, k = colour, 0
        while not _reads(mixed, ground, contrast):
            k += 1
            mixed = "#" + "".join(f"{round(c + (end - c) * k / 40):02x}" for c in ImageColor.getrgb(colour))
        found.append(mixed)
    return found


def _reads(a: str, b: str, contrast: float) -> bool:
    """Whether two colours stand out from each other by at least this ratio of WCAG's."""
    dark, light = sorted((luminance(a), luminance(b)))
    return (light + 0.05) / (dark + 0.05) >= contrast


def view(like, x: Tensor | None, mean: Tensor, classes: Sequence[str] | None) -> dict:
    """How a modality is drawn. like: its likelihood. x: (B, ...) as given, or None; mean: of p(x | z), (B, ...).
    Raises ValueError for names of classes that do not fit."""
    shape, values = tuple(mean.shape[1:]), (mean if x is None else x).detach().double()
    whole = isinstance(like, (Bernoulli, Categorical)) or 0 <= values.min() and values.max() <= 1
    low, high = (0.0, 1.0) if whole else (values.min().item(), values.max().item())
    scale = {"low": _short(low), "high": _short(high if high > low else low + 1)}
    classed = isinstance(like, Categorical) or x is not None and not x.is_floating_point() and mean.dim() == x.dim() + 1
    if classes is not None and (not classed or len(classes) != shape[-1]):
        expected = f"{shape[-1]}, one a class" if classed else "none: it has no classes"
        raise ValueError(f"found {len(classes)} names, expected {expected}")
    if classed and len(shape) == 1:
        return {"kind": "classes", "low": 0, "high": 1, "names": [str(c) for c in classes or range(shape[-1])]}
    if len(shape) == 3:
        return {"kind": "picture", "channels": shape[0], "size": list(shape[1:])} | scale
    if len(shape) == 2 and min(shape) > 1:
        return {"kind": "picture", "channels": 1, "size": list(shape)} | scale | ({"low": 0, "high": 1} if classed else {})
    return {"kind": "numbers", "curve": math.prod(shape) > BARS} | scale


def given(of: dict, x: Tensor, mean: Tensor) -> tuple[dict, Tensor]:
    """x as the page has it: JSON, and the numbers that come of it, float64 (B, numbers). of: its view."""
    if not x.is_floating_point() and mean.dim() == x.dim() + 1:
        x = torch.nn.functional.one_hot(x, mean.shape[-1])
    flat = x.detach().double().cpu().flatten(1) if x.dim() > 1 else x.detach().double().cpu().unsqueeze(1)
    if of["kind"] != "picture":
        rows = [[_short(v) for v in row] for row in flat.tolist()]
        return {"rows": rows}, torch.tensor(rows, dtype=torch.float64).view(len(flat), -1)
    span = of["high"] - of["low"]
    level = ((flat - of["low"]) / span).clamp(0, 1).mul(255).round() / 255
    tiles = strip(level.float().view(-1, 1, *of["size"]), "PNG")  # a tile a channel
    return {"png": "data:image/png;base64," + base64.b64encode(tiles).decode()}, of["low"] + span * level


def tile(of: dict, mean: Tensor) -> str:
    """One row of what is decoded, (1, ...), as the page shows it before its networks are there: a picture's address, or "".
    of: its view."""
    if of["kind"] != "picture":
        return ""
    level = (mean.detach().double().cpu().flatten(1) - of["low"]) / (of["high"] - of["low"])
    tiles = strip(level.clamp(0, 1).float().view(-1, 1, *of["size"]), "WEBP")
    return "data:image/webp;base64," + base64.b64encode(tiles).decode()


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def strip(images: Tensor, kind: str) -> bytes:
    """(N, 1, H, W) in [0, 1] -> an image file, at most 32 in a row."""
    sheet = make_grid(images, min(32, len(images)), padding=0)[0]  # (rows H, columns W)
    out, options = io.BytesIO(), {"quality": QUALITY, "method": 4} if kind == "WEBP" else {}
    Image.fromarray((255 * sheet).round().to(torch.uint8).numpy()).save(out, kind, **options)
    return out.getvalue()


def room(config: dict) -> tuple[int, int, int]:
    """The height, in CSS pixels, of an explorer of this config, in columns of about 340, 600 and 720 pixels: what a page
    keeps for it, so that nothing jumps. By the measures of js/widgets.css, and of type of 15 pixels."""
    views, models, found = config["modalities"], config["models"].values(), []
    names = [max((of["label"] for of in models), key=len) + 4 * "m"] * (len(models) > 1)
    names += [f"{config['noun']} {k + 1}" for k in range(len(config["pairs"]))]
    names += ["your own picture", "sample from the prior", "reset"]
    latents = max(sum(25 + 30 * dim for dim in of["blocks"].values() if dim) + 36 * bool(of["does"]) for of in models)
    for width, left, box in ((340, 340, 128), (600, 264, 128), (720, 264, 136 if len(views) > 2 else 192)):
        right, words, caption = (width, 84, 58) if left == width else (width - 290, 64, 42)
        bar = 44 + 38 * _wraps([7 * len(name) + 20 for name in names], width, 6)
        tasks = 33 + 3 * (44 if left == width else 24)
        sees = 25 + _pictures({m: views[m] for m in config["given"]}, left, 128, 32) + 30 * len(config["factors"]) + 8
        makes = 25 + _pictures(views, right, box, caption) + 8 + words + latents
        found.append(round(bar + 28 + tasks + (sees + 19 + makes if left == width else max(sees, makes))))
    return tuple(found)


def _wraps(widths: list[float], width: float, gap: float) -> int:
    """How often a row of these widths is broken."""
    breaks, at = 0, -gap
    for w in widths:
        breaks, at = (breaks, at + gap + w) if at + gap + w <= width else (breaks + 1, w)
    return breaks


def _pictures(views: dict[str, dict], width: float, box: float, below: float) -> float:
    """The height of these modalities, with what stands below each, in a column of this width."""
    sizes = []
    for of in views.values():
        high, wide = of.get("size", (2 * box / 3 if of["kind"] == "numbers" else 16 * len(of.get("names", ())), box))
        wide *= of["channels"] if of.get("channels", 3) != 3 else 1
        by = box / max(high, wide) if of["kind"] == "picture" else 1
        by = int(by) if by >= 2 else int(2 * by) / 2 if by > 1 else by
        sizes.append((max(box, by * wide), by * high + below))
    rows = 1 + _wraps([w for w, _ in sizes], width, 8)
    return rows * max(h for _, h in sizes) + 8 * (rows - 1)


class Faces:
    """Pictures over a grid of factors, as sliders go through it: of each `Pairs` three people, at most 11 values of each
    factor. Every picture of one modality, then every one of the next, in the order of its axes.

    words: {factor: [its values in words]}. axes: {modality: its factors}. owners: {factor: the one modality that it
    moves, or "S"}. tiles: {modality: uint8 (N, H, W)}.
    """

    def __init__(self, faces: Sequence):
        first = faces[0]
        self.axes = {m: list(axes) for m, axes in first.axes.items()}
        who, *others = dict.fromkeys(f for axes in self.axes.values() for f in axes)
        step = {f: -(-len(first.values[f]) // VALUES) for f in others}
        people = [(pairs, k) for pairs in faces for k in range(min(PEOPLE, len(pairs.values[who])))]
        self.values = {who: torch.tensor([int(pairs.values[who][k]) for pairs, k in people])}
        self.values |= {f: first.values[f][::step[f]].cpu() for f in others}
        degree = "°" if first.unit == "degrees" else ""
        self.words = {who: [f"{k + 1}" + " new" * (pairs.split == "test") for k, (pairs, _) in enumerate(people)]}
        self.words |= {f: [signed(round(v, 1), degree) for v in self.values[f].tolist()] for f in others}
        self.owners = {f: by[0] if len(by) == 1 else "S" for f in self.words
                       for by in [[m for m, axes in self.axes.items() if f in axes]]}
        self.tiles = {m: torch.cat([self._tiles(pairs, {who: k}, m, step) for pairs, k in people]) for m in self.axes}
        self.new = [i for i, (pairs, _) in enumerate(people) if pairs.split == "test"]  # whom no model has learnt from

    def _tiles(self, pairs, person: dict[str, int], m: str, step: dict[str, int]) -> Tensor:
        """A person's pictures of modality m: uint8 (N, H, W)."""
        axes = self.axes[m][1:]
        cells = torch.cartesian_prod(*[torch.arange(0, len(pairs.values[f]), step[f]) for f in axes]).view(-1, len(axes))
        x, _ = pairs.at(**dict.fromkeys(step, 0) | person | dict(zip(axes, cells.T)))
        return (255 * x[m][:, 0]).round().to(torch.uint8).cpu()

    def nearest(self, factors: dict[str, Tensor]) -> list[dict[str, int]]:
        """For each row of some factors the index of the value that is next to it."""
        n = len(next(iter(factors.values())))
        return [{f: int((v - factors[f][k].cpu()).abs().argmin()) for f, v in self.values.items()} for k in range(n)]

    def unseen(self, n: int) -> dict[str, Tensor]:
        """Some of the people who are new, or of all where none is: {modality: (n, 1, H, W) in [0, 1]}, a fixed draw."""
        generator = torch.Generator().manual_seed(0)
        who, *others = self.words
        some = {f: torch.randint(len(self.words[f]), (n,), generator=generator).tolist() for f in others}
        people = self.new or range(len(self.words[who]))
        rows = [self.at({who: people[k % len(people)]} | {f: some[f][k] for f in others}) for k in range(n)]
        return {m: torch.cat([row[m] for row in rows]) for m in self.tiles}

    def at(self, where: dict[str, int]) -> dict[str, Tensor]:
        """{modality: (1, 1, H, W) in [0, 1]} at these indices."""
        found = {}
        for m, axes in self.axes.items():
            index = 0
            for f in axes:
                index = index * len(self.words[f]) + where[f]
            found[m] = self.tiles[m][index][None, None].float() / 255
        return found

    def sheet(self) -> bytes:
        """All of them as one WebP."""
        return strip(torch.cat(list(self.tiles.values()))[:, None].float() / 255, "WEBP")


def signed(value: float, unit: str = "") -> str:
    """+2, 0, −2 (with a true minus sign)."""
    return (f"{value:+g}" if round(value, 6) else "0").replace("-", "\N{MINUS SIGN}") + unit
