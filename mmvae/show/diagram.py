"""The diagram of a model, drawn from the model: its encoders, its blocks, its decoders, and the ELBOs it sums.

Everything has its place whether a model has it or not, so two models differ on paper exactly where they differ in code.
Colours are the book's: a line has the colour of the latent block it carries; grey is what is observed; dashed is what comes
from the prior. What a model does not say of itself is not drawn: of a rule of fusing without a `sign` no product is claimed.
"""
import html
from dataclasses import dataclass

from ..models import MultiModalVAE
from ..observed import Subset, all_subsets, joined
from . import drawing as draw
from .labels import colours
from .picture import Picture

X = {"x": 34, "encoder": 158, "product": 240, "z": 322, "decoder": 444, "out": 566}  # the columns' middles
TOP, STEP, TIGHT = 44, 90, 78  # the first row's middle; from row to row; between many networks
BADGES = 94, 300, 506  # the ELBOs' middles, of a pair
SIZE = 600, 362  # of a pair's
MANY = 8  # encoders; if there are more, those of several modalities are drawn as one
MOST = 15  # badges; more are drawn as one


@dataclass(frozen=True)
class Plan:
    """What a model is, and where its pieces stand. encoders, decoders: {subset: y}, None if it does not say. sign: how it
    fuses experts, "" if it does not say, None if it fuses none. many: of the encoders that are drawn as one."""
    names: tuple[str, ...]
    blocks: dict[str, int]
    y: dict[str, float]
    encoders: dict[Subset, float] | None
    decoders: dict[Subset, float] | None
    sign: str | None
    prior: bool
    many: tuple[Subset, ...]
    bottom: float
    colours: dict[str, str]

    def shared(self, subset: Subset) -> list[str]:
        """The blocks that a network of this subset reads or writes."""
        return [b for b in self.blocks if b in subset or b not in self.names]


def plan(model: MultiModalVAE) -> Plan:
    """The places of a model's pieces, in CSS pixels: a row a block and modality, the shared ones in the middle."""
    names, blocks = tuple(model.modalities), dict(model.blocks)
    middle, own = (len(names) + 1) // 2, [b for b in model.blocks if b not in model.modalities]
    order = [*names[:middle], *own, *names[middle:]]
    encoders, decoders = (_subsets(getattr(model, part, None), names) for part in ("encoders", "decoders"))
    encoders, decoders = (encoders, decoders) if encoders and decoders else (None, None)
    fuse = getattr(model, "fuse", None) if encoders and names not in encoders else None
    many = tuple(s for s in encoders or () if len(s) > 1) if len(encoders or ()) > MANY else ()
    shown = [s for s in encoders or () if s not in many] + [names] * bool(many)
    several = sum(len(s) > 1 for s in shown) > 1
    height = max(STEP * (max(len(order), 2) - 1), TIGHT * (len(shown) - 1) if several else 0)
    y = {name: TOP + height * k / max(1, len(order) - 1) for k, name in enumerate(order)}
    sign = None if fuse is None else getattr(fuse, "sign", "")
    encoders, decoders = (found and _places(found, names, y, own, height) for found in (encoders and shown, decoders))
    return Plan(names, {b: dim for b, dim in blocks.items() if dim}, y, encoders, decoders, sign,
                sign == "×" and getattr(fuse, "prior", True), many, TOP + height, colours(blocks))


def _subsets(networks, names: tuple[str, ...]) -> list[Subset]:
    """The subsets that networks are named by; none, if they are named otherwise."""
    found = [tuple(key.split("+")) for key in (networks.keys() if hasattr(networks, "keys") else ())]
    return found if all(set(s) <= set(names) for s in found) else []


def _places(subsets: list[Subset], names, y: dict[str, float], own: list[str], height: float) -> dict[Subset, float]:
    """The heights of networks: of one modality beside it; the only one of several in the middle; more of them evenly, by
    what they read."""
    centre = sum(y[b] for b in own) / len(own) if own else TOP + height / 2
    if sum(len(s) > 1 for s in subsets) < 2:
        return {s: y[s[0]] if len(s) == 1 and len(names) > 1 else centre for s in subsets}
    among = sorted(subsets, key=lambda s: (sum(y[m] for m in s) / len(s), len(s)))
    return {s: TOP + height * among.index(s) / (len(among) - 1) for s in subsets}


def diagram(model: MultiModalVAE, name: str | None = None) -> Picture:
    """The diagram of a model. name: in the alternative text; default, its class's.

    Left to right: what is observed, encoders, latent blocks (a dot for each latent), decoders, what is decoded. Below: for
    each subset of the modalities the posterior that the model forms, and its ELBO, filled if the loss has it; of more than
    four modalities, the loss's ELBOs alone. A model without `encoders` and `decoders` by subset is one box.
    """
    name, at = name or type(model).__name__, plan(model)
    parts, half = _networks(at) if at.encoders else _box(at, type(model).__name__), _half(at)
    for m in at.names:
        parts.append(draw.data(X["x"], at.y[m], half, draw.name("x", m), True))
        parts.append(draw.data(X["out"], at.y[m], half, draw.name("x", m), False))
    badges, bottom = _badges(model, at)
    parts += badges
    alt = html.escape(describe(model, name), quote=True)
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIZE[0]} {bottom:g}" width="100%" '
           f'role="img" aria-label="{alt}" fill="none" stroke="none" stroke-linecap="round">'
           f'<title>{html.escape(name)}</title><desc>{alt}</desc>' + "".join(parts) + "</svg>")
    return Picture(svg.encode(), "svg", 700, describe(model, name))


def _half(at: Plan) -> int:
    """Half the width of a modality's square: words need more room than letters."""
    return 26 if max(map(len, at.names)) == 1 else 32


def _networks(at: Plan) -> list[str]:
    """Encoders, how their experts are fused, blocks, decoders, and the lines between them."""
    parts, half, shared = [], _half(at), [b for b in at.blocks if b not in at.names]
    for subset, y in at.encoders.items():
        for m in subset:
            parts.append(draw.edge(X["x"] + half, at.y[m], X["encoder"] - 30, y, draw.spread(at.y[m], y)))
        for block in at.shared(subset):
            start, end, colour = X["encoder"] + 30, at.y[block], at.colours[block]
            parts.append(draw.expert(start, y, draw.spread(y, end), X["product"], end, colour)
                         if at.sign is not None and block in shared else
                         draw.edge(start, y, X["z"] - 38, end, draw.spread(y, end), colour))
        if at.many and subset == at.names:  # a stack of them
            parts += [draw.trapezoid(X["encoder"] + k, y - k, 30, "", True) for k in (12, 6)]
            parts.append(draw.trapezoid(X["encoder"], y, 30, f"{len(at.many)} q", True, 20))
        else:
            parts.append(draw.trapezoid(X["encoder"], y, 30, _label("q", subset, at), True))
    for block in shared if at.sign is not None else ():
        y, colour = at.y[block], at.colours[block]
        if at.prior:
            parts.append(draw.edge(X["encoder"] + 27, y, X["product"] - 15, y, 0, colour, dashed=True))
        parts.append(draw.edge(X["product"] + 15, y, X["z"] - 38, y, 0, colour))
        if at.prior:
            parts.append(draw.prior(X["encoder"], y, colour))
        elif y not in at.encoders.values():
            parts.append(draw.sans({"": "own rule", "×": "product", "+": "mixture"}.get(at.sign, ""), X["encoder"], y + 7))
        parts.append(draw.node(X["product"], y, at.sign, colour))
    for block, dim in at.blocks.items():
        for subset, y in at.decoders.items():
            if block in at.shared(subset):
                end, shift = X["decoder"] - 30, draw.spread(at.y[block], y)
                parts.append(draw.edge(X["z"] + 36, at.y[block], end, y, shift, at.colours[block]))
        parts.append(_block(at, block, dim))
    for subset, y in at.decoders.items():
        for m in subset:
            parts.append(draw.edge(X["decoder"] + 30, y, X["out"] - half, at.y[m], 0))
        parts.append(draw.trapezoid(X["decoder"], y, 30, _label("p", subset, at), narrows=False))
    return parts


def _label(letter: str, subset: Subset, at: Plan, short: bool = True) -> str:
    """The name of a network: "q_I", "q_a,b", and "q" of all together. short: words become their first letters, where there is
    not room for several."""
    if len(subset) > 1 and subset == at.names:
        return letter
    label = draw.name(letter, ",".join(subset))
    return label if not short or draw.width(label, 20) < 56 or len(subset) == 1 else draw.name(letter, ",".join(
        next(m[:k] for k in range(1, len(m) + 1) if sum(n.startswith(m[:k]) for n in at.names) == 1 or k == len(m))
        for m in subset))


def _block(at: Plan, block: str, dim: int) -> str:
    return draw.latent(X["z"], at.y[block], "z" if block == "Z" else draw.name("z", block), dim, at.colours[block])


def _box(at: Plan, title: str) -> list[str]:
    """A model whose networks are its own affair: one box around its blocks."""
    left, right, half = X["encoder"] - 42, X["decoder"] + 42, _half(at)
    parts = [draw.edge(X["x"] + half, at.y[m], left - 2, at.y[m], 0) for m in at.names]
    parts += [draw.edge(right + 1, at.y[m], X["out"] - half, at.y[m], 0) for m in at.names]
    parts.append(f'<rect x="{left}" y="{TOP - 36}" width="{right - left}" height="{at.bottom - TOP + 104:g}" rx="14" '
                 'stroke="currentColor" stroke-width="2"/>')
    parts.append(draw.sans(title, (left + right) / 2, at.bottom + 56, 'fill="currentColor"', 20 if len(title) < 32 else 16))
    return parts + [_block(at, b, dim) for b, dim in at.blocks.items()]


def describe(model: MultiModalVAE, name: str) -> str:
    """The diagram in words: its alternative text."""
    at = plan(model)
    dims = {"z" if b == "Z" else f"z{b}" if len(b) == 1 else f"z {b}": dim for b, dim in at.blocks.items()}
    blocks = ", ".join(f"{block} with {dim} latents" for block, dim in dims.items())
    words = [f"Diagram of the {name}. Blocks: {blocks}."]
    if at.encoders:
        words.append("Encoders: " + ", ".join(_of(s) for s in at.encoders if not at.many or len(s) == 1)
                     + f", and one of each of {len(at.many)} sets of several" * bool(at.many) + ".")
    else:
        words.append(f"It reads and makes {', '.join(_x(m) for m in at.names)} by networks of its own.")
    if at.sign is not None:
        whose = f"the {'two ' * (len(at.names) == 2)}encoders' Gaussians"
        given = "both" if len(at.names) == 2 else "several"
        shared = ", ".join(b for b in dims if b[1:].strip() not in at.names)
        how = {"×": f"is the product of {whose}" + " and the prior" * at.prior,
               "+": f"is a mixture of {whose}"}.get(at.sign, f"comes from {whose} by the model's own rule")
        words.append(f"Given {given}, {shared} {how}.")
    if at.decoders:
        words.append("Decoders: " + ", ".join(_of(s) for s in at.decoders) + ".")
    sets, absent = (_listed([s for s in _candidates(model) if (s in model.subsets) == has]) for has in (True, False))
    if len(model.subsets) > MOST:
        sets = f"{len(model.subsets)} of the {2 ** len(at.names) - 1} sets of modalities"  # too many to be read out
    return " ".join(words) + f" The loss has an ELBO for {sets}" + (f", none for {absent}." if absent else ".")


def _x(m: str) -> str:
    return f"x{m}" if len(m) == 1 else f"x {m}"


def _of(subset: Subset) -> str:
    return "of " + " and ".join(map(_x, subset))


def _listed(subsets: list[Subset]) -> str:
    return ", ".join(f"{{{', '.join(s)}}}" for s in subsets)


def _candidates(model: MultiModalVAE) -> list[Subset]:
    """The subsets that have a badge."""
    names = tuple(model.modalities)
    return list(all_subsets(names) if len(names) <= 4 else model.subsets)


def _posterior(model: MultiModalVAE, at: Plan, subset: Subset) -> str | None:
    """How the model forms the posterior of this subset, in the labels of the diagram; empty if it cannot, None if it does not
    say how."""
    if not model.can_see(subset):
        return ""
    if at.encoders is None:
        return None
    if joined(subset) in model.encoders:
        if at.sign == "" and len(subset) == 1:
            return "own rule"
        return _label("q", subset, at, False) + " × p" * bool(at.sign == "×" and getattr(model, "single_prior", False))
    if at.sign and all((m,) in at.encoders for m in subset):
        return f" {at.sign} ".join(draw.name("q", m) for m in subset) + " × p" * at.prior
    return "own rule"


def _badges(model: MultiModalVAE, at: Plan) -> tuple[list[str], float]:
    """The ELBOs, and where the drawing ends."""
    subsets, top = _candidates(model), at.bottom + (76 if at.encoders else 112)
    if len(subsets) > MOST:
        every = 2 ** len(at.names) - 1
        text = f"ELBOs of all {every} sets" if len(subsets) == every else f"ELBOs of {len(subsets)} of the {every} sets"
        return [draw.badge(text, "", 300, top, 10.5 * len(text) + 28, True, None)], top + 36
    if len(at.names) == 2:
        subsets = [subsets[0], subsets[2], subsets[1]]
    items = [(s, f"ELBO {{{', '.join(s)}}}", _posterior(model, at, s)) for s in subsets]
    boxes = [160 if len(text) < 14 else 10.5 * len(text) + 28 for _, text, _ in items]
    widths = [max(box, draw.width(posterior or "", 24)) for box, (_, _, posterior) in zip(boxes, items)]
    pair = len(items) == 3 and max(widths) <= 190
    rows, places = ([items], [BADGES]) if pair else _flow(items, widths)
    step, wide = 92 if any(posterior is not None for *_, posterior in items) else 52, dict(zip(subsets, boxes))
    parts = [draw.badge(text, joined(s), x, top + step * k, wide[s], s in model.subsets, posterior)
             for k, (row, xs) in enumerate(zip(rows, places)) for (s, text, posterior), x in zip(row, xs)]
    return parts, top + step * (len(rows) - 1) + step - 30


def _flow(items: list, widths: list[float]) -> tuple[list[list], list[list[float]]]:
    """Rows of as many items as find room, and their middles; a row holds sets of one size, but for a pair."""
    rows, wide = [], []
    for item, width in zip(items, widths):
        alike = len(items) == 3 or rows and len(rows[-1][-1][0]) == len(item[0])
        if rows and alike and sum(wide[-1]) + width + 20 * len(wide[-1]) <= SIZE[0]:
            rows[-1].append(item)
            wide[-1].append(width)
        else:
            rows.append([item])
            wide.append([width])
    places = []
    for row in wide:
        gap = min(46, (SIZE[0] - sum(row)) / (len(row) + 1))
        x, places = (SIZE[0] - sum(row) - gap * (len(row) - 1)) / 2, [*places, []]
        for width in row:
            places[-1].append(x + width / 2)
            x += width + gap
    return rows, places
