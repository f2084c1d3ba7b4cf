"""Pieces of a model's diagram: each function returns SVG, in the page's own text colour where it names none."""
import html
import re

from .labels import luminance

GROUND = "#8a8a8a"  # observed: white type on it is large and bold
FAINT = 'fill="currentColor" opacity="0.75"'


def width(text: str, size: int) -> float:
    """About how wide "q_I × q_T" is."""
    base, *rest = re.split(r"_([^ ]+)", text)
    return size * (0.5 * len(base) + sum(0.34 * len(sub) + 0.5 * len(more) for sub, more in zip(rest[::2], rest[1::2])))


def name(letter: str, of: str) -> str:
    """The label of a variable, "x_I"; a name's spaces do not end its subscript."""
    return f"{letter}_{of}".replace(" ", "\u00a0")


def maths(text: str, x: float, y: float, size: int = 26, fill: str = "currentColor", room: float = 590) -> str:
    """Mathematics in italics, "q_I" with a subscript, its baseline at y; smaller, then cut, where there is no room."""
    while size > 18 and width(text, size) > room:
        size -= 1
    while width(text, size) > room and re.search(r"_[^ …]{3}", text):  # the longest name is cut
        longest = max(re.findall(r"_([^ ]+)", text), key=len)
        text = text.replace(f"_{longest}", f"_{longest.rstrip('…')[:-1]}…", 1)
    base, *rest = re.split(r"_([^ ]+)", text)
    out = html.escape(base)
    for sub, more in zip(rest[::2], rest[1::2]):
        out += f'<tspan dy="5" font-size="{round(0.7 * size)}">{html.escape(sub)}</tspan>'
        out += f'<tspan dy="-5">{html.escape(more) or "&#8203;"}</tspan>'
    return (f'<text x="{x:g}" y="{y:g}" font-family="STIX Two Text, Times New Roman, Times, serif" '
            f'font-style="italic" font-size="{size}" text-anchor="middle" fill="{fill}">{out}</text>')


def sans(text: str, x: float, y: float, style: str = FAINT, size: int = 20) -> str:
    return (f'<text x="{x:g}" y="{y:g}" font-family="sans-serif" font-size="{size}" text-anchor="middle" {style}>'
            f'{html.escape(text)}</text>')


def spread(y0: float, y1: float) -> int:
    """How far from its target's middle an edge lands: edges from above land above."""
    return 8 * ((y0 > y1) - (y0 < y1))


def edge(x0: float, y0: float, x1: float, y1: float, shift: float, colour: str = "currentColor", dashed: bool = False) -> str:
    """A curve with an arrow's head, level at both ends."""
    y0, y1 = y0 - shift, y1 + shift  # it leaves towards its target, and lands on the side that it comes from
    middle, dash = (x0 + x1) / 2, ' stroke-dasharray="2 6"' if dashed else ""
    return (f'<g opacity="{0.75 if colour == "currentColor" else 1}">'
            f'<path d="M{x0:g} {y0:g}C{middle:g} {y0:g} {middle:g} {y1:g} {x1 - 8:g} {y1:g}" '
            f'stroke="{colour}" stroke-width="2.5"{dash}/>'
            f'<path d="M{x1:g} {y1:g}l-10 -5.5v11z" fill="{colour}"/></g>')


def expert(x0: float, y0: float, shift: float, x: float, y: float, colour: str) -> str:
    """From an encoder to the node at (x, y) where experts are fused: it enters from above or from below."""
    if not shift:
        return edge(x0, y0, x - 15, y, 0, colour)
    up, y0 = 1 if shift < 0 else -1, y0 - shift
    y1 = y - 15 * up
    return (f'<path d="M{x0:g} {y0:g}C{x:g} {y0:g} {x:g} {y0:g} {x:g} {y1 - 8 * up:g}" stroke="{colour}" '
            f'stroke-width="2.5"/><path d="M{x:g} {y1:g}l-5.5 {-10 * up}h11z" fill="{colour}"/>')


def trapezoid(x: float, y: float, half: float, label: str, narrows: bool, size: int = 26) -> str:
    """A network: an encoder narrows, a decoder widens."""
    a, b = (34, 21) if narrows else (21, 34)
    return (f'<path d="M{x - half:g} {y - a:g}L{x + half:g} {y - b:g}V{y + b:g}L{x - half:g} {y + a:g}z" '
            f'stroke="currentColor" stroke-width="2" stroke-linejoin="round"/>'
            + maths(label, x, y + 7, size, room=2 * half - 8))


def data(x: float, y: float, half: int, label: str, observed: bool) -> str:
    """A modality: grey if observed, an outline if decoded."""
    fill = f'fill="{GROUND}"' if observed else 'stroke="currentColor" stroke-width="2"'
    return f'<rect x="{x - half:g}" y="{y - 26:g}" width="{2 * half}" height="52" rx="3" {fill}/>' + maths(
        label, x, y + 7, fill="#fff" if observed else "currentColor", room=2 * half - 6)


def latent(x: float, y: float, label: str, dim: int, colour: str) -> str:
    """A latent block in its colour, with a dot for each latent."""
    gap, ink = min(7, 60 / dim), "#fff" if luminance(colour) < 0.33 else "#1a1a1a"
    dots = "".join(f'<circle cx="{x + gap * (k - (dim - 1) / 2):g}" cy="{y + 17:g}" r="{min(2.4, 0.45 * gap):.3g}" '
                   f'fill="{ink}"/>' for k in range(dim))
    return (f'<rect x="{x - 36:g}" y="{y - 27:g}" width="72" height="54" rx="14" fill="{colour}"/>'
            + maths(label, x, y + 4, 28, ink, room=66) + dots)


def prior(x: float, y: float, colour: str) -> str:
    return (f'<circle cx="{x:g}" cy="{y:g}" r="27" stroke="{colour}" stroke-width="2.5" '
            f'stroke-dasharray="2 6"/>' + maths("p", x, y + 6))


def node(x: float, y: float, sign: str, colour: str) -> str:
    """Where experts are fused: × their product, + a mixture, or a sign of the model's own."""
    strokes = {"×": f"M{x - 6:g} {y - 6:g}l12 12m0 -12l-12 12", "+": f"M{x - 8:g} {y:g}h16m-8 -8v16"}
    inside = f'<path d="{strokes[sign]}" stroke="{colour}" stroke-width="2.5"/>' if sign in strokes else (
        maths(sign[:2], x, y + 6, 20, colour) if sign else f'<circle cx="{x:g}" cy="{y:g}" r="4" fill="{colour}"/>')
    return f'<circle cx="{x:g}" cy="{y:g}" r="14" stroke="{colour}" stroke-width="2.5"/>' + inside


def badge(text: str, key: str, x: float, y: float, wide: float, filled: bool, posterior: str | None) -> str:
    """An ELBO, filled if the loss has it, else hollow; under it the posterior it would use, or, if that is "", that there is
    none; None: nothing."""
    box = (f'<rect data-subset="{html.escape(key, quote=True)}" x="{x - wide / 2:g}" y="{y - 20:g}" width="{wide:g}" '
           'height="40" rx="20" ')
    if filled:
        box, style = box + 'fill="#6b6b6b"/>', 'fill="#fff" font-weight="600"'
    else:
        box += 'stroke="currentColor" stroke-width="1.5" stroke-dasharray="5 4" opacity="0.75"/>'
        style = FAINT + ' text-decoration="line-through"'
    below = "" if posterior is None else maths(posterior, x, y + 48, 24) if posterior else sans("no posterior", x, y + 46)
    return box + sans(text, x, y + 7, style) + below
