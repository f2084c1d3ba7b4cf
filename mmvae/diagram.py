"""The diagram of a model, drawn from the model: its encoders, its blocks, its decoders, and the ELBOs it
sums.

Everything has its place whether a model has it or not, so two models differ on paper exactly where they
differ in code. Colours are the book's: a line has the colour of the latent block it carries; grey is what is
observed; dashed is what comes from the prior.
"""
import html

from .models import MODELS, MultiModalVAE
from .picture import COLOURS, Picture

NAMES = {"vanilla": "Vanilla VAE", "mumo": "MuMo-VAE", "poe-v1": "MMPOE-VAE v1", "poe-v2": "MMPOE-VAE v2",
         "wg-v1": "WG-VAE v1", "wg-v2": "WG-VAE v2"}
SHORT = {model: name.replace("-VAE", "").replace(" VAE", "") for model, name in NAMES.items()}
GROUND = "#8a8a8a"  # observed images: white type on it is large and bold
X = {"x": 34, "encoder": 158, "product": 240, "z": 322, "decoder": 444, "out": 566}  # the columns' middles
Y = {"I": 44, "S": 134, "T": 224, "Z": 134, "IT": 134}  # the rows' middles
BADGES = {"I": 94, "IT": 300, "T": 506}  # the ELBOs' middles
SIZE = (600, 362)


def diagram(model: MultiModalVAE | str, name: str | None = None) -> Picture:
    """The diagram of a model, or of one of `mmvae.MODELS` by its name. name: in the alternative text.

    Left to right: observed images, encoders, latent blocks (a dot for each latent), decoders, decoded images.
    Below: for each subset of observed images the posterior that the model forms, and its ELBO, filled if the
    loss has it. Raises ValueError for an unknown name.
    """
    if isinstance(model, str):
        if model not in MODELS:
            raise ValueError(f'model: found "{model}", expected one of {", ".join(MODELS)}')
        name, model = name or NAMES[model], MODELS[model](size=16)
    name = name or type(model).__name__
    blocks = {block: dim for block, dim in model.blocks.items() if dim}
    product = "IT" not in model.encoders  # experts are multiplied where no encoder sees both images
    parts = []

    for subset in model.encoders:
        at = Y[subset]
        for m in subset:
            parts.append(_edge(X["x"] + 26, Y[m], X["encoder"] - 30, at, _spread(m, subset)))
        for block in blocks:
            if block in subset or block in "SZ":
                start, shift, colour = X["encoder"] + 30, _spread(subset, block), COLOURS[block]
                parts.append(_expert(start, at, shift) if product and block == "S" else
                             _edge(start, at, X["z"] - 38, Y[block], shift, colour))
        parts.append(_trapezoid(X["encoder"], at, 30, "q" if subset == "IT" else f"q_{subset}", narrows=True))
    if product:
        y, green = Y["S"], COLOURS["S"]
        parts.append(_edge(X["encoder"] + 27, y, X["product"] - 15, y, 0, green, dashed=True))
        parts.append(_edge(X["product"] + 15, y, X["z"] - 38, y, 0, green))
        parts += [_prior(X["encoder"], y), _times(X["product"], y)]

    for block, dim in blocks.items():
        for subset in model.decoders:
            if block in subset or block in "SZ":
                end, shift = X["decoder"] - 30, _spread(block, subset)
                parts.append(_edge(X["z"] + 36, Y[block], end, Y[subset], shift, COLOURS[block]))
        parts.append(_block(block, dim))
    for subset in model.decoders:
        for m in subset:
            parts.append(_edge(X["decoder"] + 30, Y[subset], X["out"] - 26, Y[m], 0))
        label = "p" if subset == "IT" else f"p_{subset}"
        parts.append(_trapezoid(X["decoder"], Y[subset], 30, label, narrows=False))
    for m in "IT":
        parts.append(_image(X["x"], Y[m], f"x_{m}", observed=True))
        parts.append(_image(X["out"], Y[m], f"x_{m}", observed=False))
    for subset in ("I", "IT", "T"):
        parts.append(_badge(subset, subset in model.subsets, _posterior(model, subset)))

    alt = html.escape(describe(model, name), quote=True)
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE[0]} {SIZE[1]}" width="100%" '
           f'role="img" aria-label="{alt}" fill="none" stroke="none" stroke-linecap="round">'
           f'<title>{html.escape(name)}</title><desc>{alt}</desc>' + "".join(parts) + "</svg>")
    return Picture(svg.encode(), "svg", 700, describe(model, name))


def describe(model: MultiModalVAE, name: str) -> str:
    """The diagram in words: its alternative text."""
    dims = {"z" if b == "Z" else f"z{b}": dim for b, dim in model.blocks.items() if dim}
    blocks = ", ".join(f"{name} with {dim} latents" for name, dim in dims.items())
    encoders = ", ".join("of " + " and ".join(f"x{m}" for m in s) for s in model.encoders)
    decoders = ", ".join("of " + " and ".join(f"x{m}" for m in s) for s in model.decoders)
    fused = "" if "IT" in model.encoders else (
        " Given both images, zS is the product of the two encoders' Gaussians and the prior.")
    losses = ", ".join(f"{{{', '.join(s)}}}" for s in ("I", "T", "IT") if s in model.subsets)
    absent = ", ".join(f"{{{', '.join(s)}}}" for s in ("I", "T", "IT") if s not in model.subsets)
    return (f"Diagram of the {name}. Blocks: {blocks}. Encoders: {encoders}.{fused} Decoders: {decoders}. "
            f"The loss has an ELBO for {losses}" + (f", none for {absent}." if absent else "."))


def _posterior(model: MultiModalVAE, subset: str) -> str:
    """How the model forms the posterior of this subset, in the labels of the diagram; empty if it cannot."""
    if subset in model.encoders:
        alone = f"q_{subset}" if len(subset) == 1 else "q"
        return alone + " × p" * bool(getattr(model, "single_prior", False))
    return "q_I × q_T × p" if set(subset) <= set(model.encoders) else ""


# Pieces of the drawing: each returns SVG

def _math(text: str, x: float, y: float, size: int = 26, fill: str = "currentColor") -> str:
    """Mathematics in italics, "q_I" with a subscript, its baseline at y."""
    out = ""
    for piece in text.replace("_", "\0_").split("\0"):
        if piece.startswith("_"):
            out += f'<tspan dy="5" font-size="{round(0.7 * size)}">{piece[1]}</tspan>'
            out += f'<tspan dy="-5">{html.escape(piece[2:]) or "&#8203;"}</tspan>'
        else:
            out += html.escape(piece)
    return (f'<text x="{x:g}" y="{y:g}" font-family="STIX Two Text, Times New Roman, Times, serif" '
            f'font-style="italic" font-size="{size}" text-anchor="middle" fill="{fill}">{out}</text>')


def _sans(text: str, x: float, y: float, style: str) -> str:
    return (f'<text x="{x}" y="{y}" font-family="sans-serif" font-size="20" text-anchor="middle" {style}>'
            f'{text}</text>')


def _spread(start: str, end: str) -> int:
    """How far from its target's middle an edge lands: edges from above land above."""
    return 8 * ((Y[start] > Y[end]) - (Y[start] < Y[end]))


def _edge(x0: float, y0: float, x1: float, y1: float, shift: float, colour: str = "currentColor",
          dashed: bool = False) -> str:
    """A curve with an arrow's head, level at both ends."""
    y0, y1 = y0 - shift, y1 + shift  # it leaves towards its target, and lands on the side that it comes from
    middle, dash = (x0 + x1) / 2, ' stroke-dasharray="2 6"' if dashed else ""
    return (f'<g opacity="{0.75 if colour == "currentColor" else 1}">'
            f'<path d="M{x0:g} {y0:g}C{middle:g} {y0:g} {middle:g} {y1:g} {x1 - 8:g} {y1:g}" '
            f'stroke="{colour}" stroke-width="2.5"{dash}/>'
            f'<path d="M{x1:g} {y1:g}l-10 -5.5v11z" fill="{colour}"/></g>')


def _expert(x0: float, y0: float, shift: float) -> str:
    """From an encoder to the product: it enters the node from above or from below."""
    x, up, colour = X["product"], 1 if shift < 0 else -1, COLOURS["S"]
    y0, y1 = y0 - shift, Y["S"] - 15 * up
    return (f'<path d="M{x0:g} {y0:g}C{x:g} {y0:g} {x:g} {y0:g} {x:g} {y1 - 8 * up:g}" stroke="{colour}" '
            f'stroke-width="2.5"/><path d="M{x:g} {y1:g}l-5.5 {-10 * up}h11z" fill="{colour}"/>')


def _trapezoid(x: float, y: float, half: float, label: str, narrows: bool) -> str:
    """A network: an encoder narrows, a decoder widens."""
    a, b = (34, 21) if narrows else (21, 34)
    return (f'<path d="M{x - half:g} {y - a}L{x + half:g} {y - b}V{y + b}L{x - half:g} {y + a}z" '
            f'stroke="currentColor" stroke-width="2" stroke-linejoin="round"/>' + _math(label, x, y + 7))


def _image(x: float, y: float, label: str, observed: bool) -> str:
    """An image: grey if observed, an outline if decoded."""
    fill = f'fill="{GROUND}"' if observed else 'stroke="currentColor" stroke-width="2"'
    return f'<rect x="{x - 26}" y="{y - 26}" width="52" height="52" rx="3" {fill}/>' + _math(
        label, x, y + 7, fill="#fff" if observed else "currentColor")


def _block(block: str, dim: int) -> str:
    """A latent block in its colour, with a dot for each latent."""
    x, y, gap = X["z"], Y[block], min(7, 60 / dim)
    dots = "".join(f'<circle cx="{x + gap * (k - (dim - 1) / 2):g}" cy="{y + 17}" r="2.4" fill="#fff"/>'
                   for k in range(dim))
    return (f'<rect x="{x - 36}" y="{y - 27}" width="72" height="54" rx="14" fill="{COLOURS[block]}"/>'
            + _math("z" if block == "Z" else f"z_{block}", x, y + 4, 28, "#fff") + dots)


def _prior(x: float, y: float) -> str:
    return (f'<circle cx="{x}" cy="{y}" r="27" stroke="{COLOURS["S"]}" stroke-width="2.5" '
            f'stroke-dasharray="2 6"/>' + _math("p", x, y + 6))


def _times(x: float, y: float) -> str:
    """The product of experts."""
    return (f'<circle cx="{x}" cy="{y}" r="14" stroke="{COLOURS["S"]}" stroke-width="2.5"/>'
            f'<path d="M{x - 6} {y - 6}l12 12m0 -12l-12 12" stroke="{COLOURS["S"]}" stroke-width="2.5"/>')


def _badge(subset: str, filled: bool, posterior: str) -> str:
    """ELBO{subset}, filled if the loss has it, else hollow; under it the posterior it would use."""
    x, y = BADGES[subset], 300
    box = f'<rect data-subset="{subset}" x="{x - 80}" y="{y - 20}" width="160" height="40" rx="20" '
    faint = 'fill="currentColor" opacity="0.75"'
    if filled:
        box, style = box + 'fill="#6b6b6b"/>', 'fill="#fff" font-weight="600"'
    else:
        box += 'stroke="currentColor" stroke-width="1.5" stroke-dasharray="5 4" opacity="0.75"/>'
        style = faint + ' text-decoration="line-through"'
    below = _math(posterior, x, y + 48, 24) if posterior else _sans("no posterior", x, y + 46, faint)
    return box + _sans(f"ELBO {{{', '.join(subset)}}}", x, y + 7, style) + below
