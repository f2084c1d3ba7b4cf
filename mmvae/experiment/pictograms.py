"""The six further terms of `mmvae.terms` as pictures, one beside the other: what each of them asks of a pair."""
import html

from ..show import drawing as draw
from ..show.picture import Picture
from . import table

PANEL, GAP = (560, 292), 40  # of one picture, in a drawing that the page shows at about three fifths
BELLS = (180, 62), (330, 62), (255, 30)  # middle and deviation of what x_I, what x_T and what both say of z_S
WORDS = {"cross": "x_I from its own z_I and the other picture's z_S",
         "gap": "what both say of z_S, and what each says alone",
         "contrast": "whose z_S is it? Each row finds its partner",
         "retain": "exchange z_I between two rows, decode, read again",
         "all-from-one": "x_I from the other's z_S, and a z_I from the prior",
         "auxiliary": "the same, and z_I from a prior that is learnt"}


def asks(bets: dict[str, bool]) -> Picture:
    """A picture for each of these terms, keys of `mmvae.terms.ADDED`, two a row, in grey, blue and green; of two pictures,
    what is asked of x_I. bets: {term: whether it is expected to ask for the partition}, which stands under its name. Raises
    ValueError for an unknown term."""
    if wrong := [term for term in bets if term not in WORDS]:
        raise ValueError(f"bets: found {wrong[0]!r}, expected some of {', '.join(WORDS)}")
    (w, h), parts = PANEL, []
    for k, (term, bet) in enumerate(bets.items()):
        x, y = k % 2 * (w + GAP), k // 2 * (h + GAP)
        inside = _heading(term, bet) + "".join(DRAWN[term](table.COLOURS))
        parts.append(f'<g transform="translate({x} {y})">{inside}</g>')
    said = "; ".join(f"{term}: {WORDS[term].replace('_', '')}" for term in bets)
    alt = f"Six small drawings. {said}." if len(bets) == 6 else f"Small drawings. {said}."
    size = f"0 0 {2 * w + GAP} {(len(bets) + 1) // 2 * (h + GAP) - GAP}"
    svg = (f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}" width="100%" role="img" fill="none" stroke="none" '
           f'aria-label="{html.escape(alt, quote=True)}" stroke-linecap="round">{"".join(parts)}</svg>')
    return Picture(svg.encode(), "svg", 720, alt)


def _heading(term: str, bet: bool) -> str:
    bold = 'fill="currentColor" font-weight="600"'
    return (_text(term, 8, 28, bold, 30) + _text("bet: asks" if bet else "bet: does not ask", 552, 28, draw.FAINT, 26, "end")
            + '<path d="M8 44H552" stroke="currentColor" stroke-width="1.5" opacity="0.5"/>')


def _text(text: str, x: float, y: float, style: str, size: int, anchor: str = "start") -> str:
    return (f'<text x="{x:g}" y="{y:g}" font-family="sans-serif" font-size="{size}" text-anchor="{anchor}" {style}>'
            f"{html.escape(text)}</text>")


def _decoded(ink: dict, own: list[str], dashed: bool) -> list[str]:
    """x_I from a z_I that comes from somewhere (own) and z_S of x_T, beside the x_I that it should be."""
    return [*own, draw.data(60, 226, 26, "x_T", True), draw.edge(88, 226, 186, 226, 0, ink["S"]),
            draw.latent(224, 110, "z_I", 2, ink["I"]), draw.latent(224, 226, "z_S", 5, ink["S"]),
            draw.edge(88, 110, 186, 110, 0, ink["I"], dashed),
            draw.edge(262, 110, 342, 158, 0, ink["I"]), draw.edge(262, 226, 342, 178, 0, ink["S"]),
            draw.trapezoid(374, 168, 30, "p_I", narrows=False), draw.edge(404, 168, 448, 168, 0),
            draw.data(476, 168, 26, "x_I", False), draw.maths("≈", 516, 176), draw.maths("x_I", 542, 176)]


def _cross(ink: dict) -> list[str]:
    return _decoded(ink, [draw.data(60, 110, 26, "x_I", True)], False)


def _drawn_from(letter: str):
    def parts(ink: dict) -> list[str]:
        circle = draw.prior(60, 110, ink["I"])
        return _decoded(ink, [circle if letter == "p" else circle.replace(">p<", f">{letter}<")], True)
    return parts


def _gap(ink: dict) -> list[str]:
    ground, parts = 262, []
    for (middle, sd), label in zip(BELLS, ("q_I", "q_T", "q")):
        high, side = 5000 / sd, 2.6 * sd
        curve = (f"M{middle - side:g} {ground}C{middle - 0.9 * sd:g} {ground} {middle - 0.8 * sd:g} {ground - high:g} "
                 f"{middle} {ground - high:g}S{middle + 0.9 * sd:g} {ground} {middle + side:g} {ground}")
        fill = f'fill="{ink["S"]}" fill-opacity="0.25"' if label == "q" else ""
        parts.append(f'<path d="{curve}" stroke="{ink["S"]}" stroke-width="{4 if label == "q" else 2.5}" {fill}/>')
    parts += [draw.maths("q_I", 118, 190), draw.maths("q_T", 392, 190), draw.maths("q", 255, 84), draw.maths("z_S", 540, 270),
              f'<path d="M8 {ground}H510" stroke="currentColor" stroke-width="1.5" opacity="0.6"/>']
    for x0, x1 in ((222, 150), (288, 360)):
        parts.append(draw.edge(x0, 118, x1, 166, 0) if x1 > x0 else _mirrored(x0, 118, x1, 166))
    return [*parts, draw.sans("KL", 140, 128, size=26), draw.sans("KL", 370, 128, size=26)]


def _mirrored(x0: float, y0: float, x1: float, y1: float, colour: str = "currentColor") -> str:
    return f'<g transform="translate({2 * x0:g} 0) scale(-1 1)">{draw.edge(x0, y0, 2 * x0 - x1, y1, 0, colour)}</g>'


def _contrast(ink: dict) -> list[str]:
    rows, parts = (90, 166, 242), []
    for y in rows:
        for other in rows:
            thin = 'stroke-width="3"' if other == y else 'stroke-width="1.5" stroke-dasharray="2 6" opacity="0.7"'
            parts.append(f'<path d="M222 {y}L338 {other}" stroke="{ink["S"]}" {thin}/>')
    for y in rows:
        parts += [draw.data(60, y, 26, "x_I", True), draw.edge(88, y, 148, y, 0, ink["S"]),
                  draw.latent(186, y, "z_S", 5, ink["S"]), draw.latent(374, y, "z_S", 5, ink["S"]),
                  draw.data(500, y, 26, "x_T", True), _mirrored(472, y, 412, y, ink["S"])]
    return parts


def _retain(ink: dict) -> list[str]:
    parts = [draw.data(34, y, 26, "x_I", True) + draw.sans(which, 56, y - 36, size=24)
             for y, which in ((126, "next row"), (238, "this row"))]
    for y, block, dim in ((126, "I", 2), (238, "S", 5)):
        name = f"z_{block}"
        parts += [draw.edge(62, y, 92, y, 0, ink[block]), draw.latent(130, y, name, dim, ink[block]),
                  draw.edge(168, y, 212, 182, draw.spread(y, 182), ink[block]), draw.latent(492, y, name, dim, ink[block]),
                  draw.edge(428, 182, 454, y, draw.spread(182, y), ink[block]), draw.maths("?", 542, y + 9)]
    return parts + [draw.trapezoid(240, 182, 26, "p_I", narrows=False), draw.edge(266, 182, 288, 182, 0),
                    draw.data(316, 182, 26, "x_I", False), draw.edge(344, 182, 374, 182, 0),
                    draw.trapezoid(402, 182, 26, "q_I", narrows=True)]


DRAWN = {"cross": _cross, "gap": _gap, "contrast": _contrast, "retain": _retain, "all-from-one": _drawn_from("p"),
         "auxiliary": _drawn_from("r")}
