"""The head: from an identity's coefficients to a painted surface, to a cloud of points.

A head is a lofted surface: curves over height give the width and depth of each section, bumps make the
features, paint on the same grid makes eyes, lips and hair. The head is about two units tall; x runs to the
viewer's right, y up, z towards the viewer.
"""
import functools
import math
from types import SimpleNamespace

import numpy as np
import torch

from .cloud import surface, tiles

LONG, SHAVEN, BALDING = 0.6, -1.4, 1.2  # hair_length: hides the ears, none at all; hairline: a bald crown
PIVOT = 0.10  # how far in front of the middle of the skull the axis stands about which the head turns

COEFFICIENTS = {  # what +1 standard deviation does
    "breadth": "wider head", "length": "longer lower face", "forehead": "higher skull", "jaw": "broader jaw",
    "chin": "chin forward", "cheeks": "fuller cheeks", "brow_ridge": "heavier brow", "neck": "thicker neck",
    "nose_length": "longer nose", "nose_width": "broader nose", "nose_bridge": "higher bridge of the nose",
    "eye_gap": "eyes further apart", "eye_size": "larger eyes", "mouth_width": "wider mouth",
    "lip_fullness": "fuller lips", "ear_size": "larger ears", "skin": "lighter skin",
    "hair_tone": "lighter hair", "hairline": "higher hairline, at last a bald crown",
    "hair_length": "longer hair; shaven at the low end", "hair_volume": "thicker hair",
    "parting": "fringe lower on one side", "beard": "beard, from +0.3", "moustache": "moustache, from +0.5",
    "brow_weight": "thicker brows", "brow_tilt": "brows rising outwards", "iris": "lighter iris",
    "lip_tone": "lighter lips"}


def coefficients(identity, seed):
    """What makes one identity: {name: float}, N(0, 1) clipped at +-2.2, whatever others there are."""
    draw = np.random.default_rng([int(seed), int(identity)]).standard_normal(len(COEFFICIENTS))
    return dict(zip(COEFFICIENTS, draw.clip(-2.2, 2.2).tolist()))


# ---- small tools

def uniform(normal):
    """A standard normal coefficient as a number uniform in [0, 1]: its extremes are common."""
    return 0.5 + 0.5 * math.erf(normal / math.sqrt(2))


def bell(u, width):
    return torch.exp(-0.5 * (u / width) ** 2)


def step(u, soft):
    """0 where u < -soft, 1 where u > soft, smooth between."""
    t = (0.5 + 0.5 * u / soft).clamp(0, 1)
    return t * t * (3 - 2 * t)


def run(mask):
    """The slice from the first to the last of what is true in mask (N,)."""
    at = mask.nonzero()
    return slice(int(at[0]), int(at[-1]) + 1)


def curve(t, k):
    """Catmull-Rom spline through all but the outer rows of knots k (K, C) at t (T,) in [0, K-3] -> (T, C)."""
    i = t.floor().clamp(0, len(k) - 4).long()
    a, b, c, d, u = k[i], k[i + 1], k[i + 2], k[i + 3], (t - i)[:, None]
    return b + 0.5 * u * (c - a + u * (2 * a - 5 * b + 4 * c - d + u * (3 * (b - c) + d - a)))


# ---- geometry; c holds the coefficients and, from `traits`, what several functions need

def traits(identity, seed):
    """The coefficients as attributes, with the places, sizes and tones that geometry and paint share."""
    c = SimpleNamespace(**coefficients(identity, seed))
    c.eye, c.gap, c.wide_eye = 0.05, 0.25 + 0.020 * c.eye_gap, 1 + 0.11 * c.eye_size
    c.tip, c.broad = -0.29 - 0.035 * c.nose_length, 1 + 0.17 * c.nose_width
    c.mouth, c.wide = -0.515 - 0.012 * c.nose_length, 0.195 + 0.022 * c.mouth_width
    c.full = 0.045 + 0.014 * c.lip_fullness
    c.tone = 0.24 + 0.60 * uniform(c.skin)
    c.hair = 0.04 + 0.80 * uniform(c.hair_tone) ** 1.6 * min(1, 1.6 * uniform(c.skin))  # none is fair on dark skin
    c.bearded, c.lip_beard = (min(max(1.3 * u, 0), 0.93) for u in (c.beard - 0.3, c.moustache - 0.5))
    c.long, c.bald = c.hair_length > LONG, c.hairline > BALDING and c.hair_length < LONG
    return c


def sections(c):
    """Rows from crown to neck: height, half width, depth in front, behind, squareness, rise to the back."""
    neck = 1 + 0.09 * c.neck
    k = torch.tensor([
        [0.98, -.20, -.20, -.25, 2.00, 0.00],  # the other side of the crown, which makes it round
        [1.00, 0.00, 0.00, 0.00, 2.00, 0.00],
        [0.98, 0.20, 0.20, 0.25, 2.00, 0.00],
        [0.88, 0.41, 0.44, 0.53, 2.00, 0.00],
        [0.68, 0.55, 0.62, 0.72, 2.10, 0.00],  # top of the forehead
        [0.42, 0.61, 0.70, 0.81, 2.20, 0.00],
        [0.20, 0.62, 0.72, 0.82, 2.30, 0.00],  # brows
        [0.00, 0.61, 0.70, 0.78, 2.30, 0.00],
        [-.20, 0.585, 0.70, 0.70, 2.20, 0.04],
        [-.40, 0.55 + 0.014 * c.jaw, 0.69, 0.60, 2.10, 0.12],
        [-.58, 0.51 + 0.034 * c.jaw, 0.67, 0.50, 2.00, 0.26],  # lips
        [-.73, 0.44 + 0.044 * c.jaw, 0.65 + 0.015 * c.chin, 0.44, 1.95, 0.40],
        [-.83, 0.33 + 0.038 * c.jaw, 0.60 + 0.022 * c.chin, 0.42, 1.90, 0.48],  # chin, jaw rising behind
        [-.87, 0.26 + 0.018 * c.jaw, 0.45, 0.42, 1.90, 0.50],
        [-.89, 0.26 * neck, 0.30, 0.41, 1.90, 0.50],  # back to a narrow neck
        [-.96, 0.28 * neck, 0.21, 0.41, 2.00, 0.50],
        [-1.2, 0.34 * neck, 0.20, 0.42, 2.00, 0.50],
        [-1.5, 0.50 * neck, 0.24, 0.45, 2.20, 0.50],
        [-1.9, 0.60 * neck, 0.35, 0.50, 2.20, 0.50],
        [-2.3, 0.60 * neck, 0.35, 0.50, 2.20, 0.50],  # out of the picture in every pose
        [-2.7, 0.60 * neck, 0.35, 0.50, 2.20, 0.50]])
    k[:, 0] *= torch.where(k[:, 0] > 0, 1 + 0.05 * c.forehead, 1 + 0.055 * c.length)
    k[:, 1] *= 1 + 0.07 * c.breadth
    return k


def hair(c, x, y, z, angle):
    """How far hair covers the skin, (T, A) in [0, 1], and how far it stands off or hangs from the head."""
    if c.hair_length < SHAVEN:
        return torch.zeros_like(x), torch.zeros_like(x)
    front, side, nape = 0.57 + (0.13 if c.hairline > 0 else 0.09) * c.hairline, 0.05, -0.50
    if c.long:
        front, nape = min(front, 0.72), -0.80 - 1.2 * (c.hair_length - LONG)
    a, front = angle.abs(), 1.4 if c.bald else front
    top = front + 0.07 * c.parting * torch.sin(2 * angle) + 0.015 * torch.sin(11 * angle + 9 * c.parting)
    top = top + (0.02 + 0.05 * min(max(c.hairline, 0), 1)) * bell(a - 0.70, 0.25)  # temples
    wavy = a + 0.025 * torch.sin(13 * y + 5 * c.parting) * step(0.5 - y, 0.2) * (not c.long)

    def above(soft):  # the edge, which falls over 2 * soft of the angle: first to the ear, then to the nape
        edge = top + (side - top) * step(wavy - (0.73 if c.long else 0.88) - soft, soft)
        return y - edge - (nape - side) * step(wavy - (1.08 if c.long else 1.68) - soft, soft)

    edge = above(0.24)  # it grows thick more slowly than it covers, unless it hangs
    bulk = step(edge - 0.04, 0.12) if c.long else step(above(0.42) - 0.08, 0.18)
    thick = bulk * (0.02 if c.bald else 0.03 + 0.07 * uniform(c.hair_volume) + 0.03 * max(c.hair_length, 0))
    if c.long:  # it hangs straight down behind the jaw
        drop = 0.62 + 0.05 * c.hair_volume + 0.03 * max(c.jaw, c.breadth, 0) + 0.20 * step(a - 2.2, 0.8)
        drop = drop - (x ** 2 + z ** 2).sqrt()
        drop = (drop + (drop ** 2 + 0.005).sqrt()) / 2
        thick = thick + drop * bulk * step(0.2 - y, 0.3)
    crown = step(0.48 + 0.2 * (1.7 - c.hairline) - 0.15 * z - y, 0.14) if c.bald else 1
    return step(edge, 0.05) * crown, thick * crown


def relief(c, x, y):
    """How far the features stand out of the section towards the viewer, at x, y (T, A)."""
    low, high, r = *y.aminmax(dim=1), torch.zeros_like(x)
    for lowest, highest, feature in (  # beyond these heights it is less than float32 can tell
            (-0.65, 0.85, brows), (-1.10, 0.85, cheeks), (c.tip - 0.35, 9, nose), (c.mouth - 1, c.mouth + 1, mouth),
            (-1.30, -0.20, chin)):
        rows = run((low < highest) & (high > lowest))
        r[rows] = feature(c, r[rows], x[rows], y[rows])
    return r


def brows(c, r, x, y):
    ax = x.abs()
    r = r + (0.055 + 0.022 * c.brow_ridge) * bell(ax - 0.20, 0.15) * bell(y - 0.21, 0.08)
    r = r - 0.085 * bell(ax - c.gap, 0.13) * bell(y - c.eye - 0.01, 0.085)  # the socket, the eye in it
    return r + 0.045 * bell(ax - c.gap, 0.085) * bell(y - c.eye, 0.06)


def cheeks(c, r, x, y):
    ax = x.abs()
    r = r + (0.045 + 0.022 * c.cheeks) * bell(ax - 0.36, 0.13) * bell(y + 0.13, 0.12)
    return r - (0.020 - 0.015 * c.cheeks) * bell(ax - 0.36, 0.11) * bell(y + 0.45, 0.12)


def nose(c, r, x, y):
    down = ((0.17 - y) / (0.17 - c.tip)).clamp(0, 1)  # from the brow to its tip
    ridge = (0.050 + 0.015 * c.nose_bridge) * step(0.14 - y, 0.14) + (0.125 + 0.020 * c.nose_length) * down
    ridge = (ridge + 0.016 * c.nose_bridge * bell(down - 0.45, 0.18)) * step(y - c.tip + 0.040, 0.070)
    r = r + ridge * bell(x, (0.048 + 0.030 * down) * (0.6 + 0.4 * c.broad))
    r = r + 0.022 * bell(x, 0.055 * c.broad) * bell(y - c.tip - 0.01, 0.05)  # its tip and wings
    return r + 0.075 * bell(x.abs() - 0.095 * c.broad, 0.038) * bell(y - c.tip + 0.005, 0.045)


def mouth(c, r, x, y):
    r = r + 0.035 * bell(x, 0.20) * bell(y - c.mouth, 0.14)  # the lips and the line between them
    lips = 0.55 * bell(y - c.mouth - 0.045, 0.030) + 0.70 * bell(y - c.mouth + 0.050, 0.036)
    r = r + c.full * bell(x, 0.62 * c.wide) * lips - 0.022 * bell(x, 0.6 * c.wide) * bell(y - c.mouth, 0.016)
    return r - 0.020 * bell(x, 0.13) * bell(y - c.mouth + 0.135, 0.035)


def chin(c, r, x, y):
    return r + (0.060 + 0.024 * c.chin) * bell(x, 0.12 + 0.015 * c.jaw) * bell(y + 0.75, 0.075)


def skull(c, t, angle):
    """Head, hair and neck at rows t (T,) and angles (A,) off the front -> points (3, T, A), albedo (T, A)."""
    y, width, front, back, n, rise = curve(t, sections(c))[:, :, None].unbind(1)  # (T, 1) each
    sin, cos = angle.sin(), angle.cos()
    depth = torch.where(cos > 0, front, back).clamp(min=1e-3)
    radius = ((sin.abs() / width.clamp(min=1e-3)) ** n + (cos.abs() / depth) ** n) ** (-1 / n)  # superellipse
    x, y, z = radius * sin, y + rise * (1 - cos) / 2, radius * cos  # (T, A)
    covered, thick = hair(c, x, y, z, angle)
    front, face = run(cos > -0.3), step(cos - 0.25, 0.25)  # a face is made and painted in front alone, from crown to chin
    rows = run(y.amax(1) > -1.45)
    albedo, add = torch.full_like(x, c.tone), torch.zeros_like(x)
    at = [v[rows, front].contiguous() for v in (x, y, z)]
    albedo[rows, front], add[rows, front] = paint(c, *at), relief(c, *at[:2])
    strands = 1 + 0.10 * torch.sin(23 * angle + 3 * y) * torch.sin(61 * angle - 5 * y)
    albedo = (albedo + covered * (c.hair * strands - albedo)).clamp(0, 1)
    crown = step(y - 0.6, 0.2) * (1 - (radius / 0.4).clamp(max=1) ** 2)  # there hair stands up, not out
    out, up = thick * (1 - crown), thick * step(y - 0.6, 0.4) * (1 - 0.5 * (radius / 0.6).clamp(max=1) ** 2)
    beard = 0.03 * max(c.beard - 0.3, 0) * bell(x, 0.35) * step(-0.55 - y, 0.1) * face
    z = z + add * face + beard
    return torch.stack([x + out * sin, y + up - 0.5 * beard, z + out * cos]), albedo


def ear(c, side, r, a):
    """One ear, a shell with a rim, at radii r (R,) and angles a (A,) -> points (3, R, A), albedo (R, A)."""
    r, big = r[:, None], 1 + 0.10 * c.ear_size
    up = 0.19 * big * r * a.sin() * (1 - 0.12 * a.sin())
    back = 0.115 * big * r * a.cos() * (1 + 0.25 * a.sin()) + 0.12 * up
    out = 0.05 * bell(r - 0.80, 0.11) - 0.03 * bell(r, 0.35) + 0.35 * back - 0.18 * step(r - 0.98, 0.07)
    albedo = c.tone * (1 - 0.35 * bell(r - 0.25, 0.25)) * torch.ones_like(a)
    return torch.stack([side * (0.64 + 0.042 * c.breadth + out), up - 0.03, -0.08 - back]), albedo


# ---- paint

def lay(under, cover, tone):
    return under + cover * (tone - under)


def paint(c, x, y, z):
    """Albedo (T, A) of skin, beard, lips, nostrils, eyes and brows, laid on in this order."""
    ax, face, (low, high) = x.abs(), step(z - 0.2, 0.15), y.aminmax(dim=1)
    a = c.tone * (1 - 0.10 * bell(ax - 0.33, 0.12) * bell(y + 0.18, 0.12))
    if c.bearded:
        cheek = c.mouth - 0.04 + 0.55 * ((ax - 0.17).clamp(min=0) / 0.4) ** 1.4  # upper edge of a beard
        beard = step(cheek - y, 0.05) * step(y + 1.02, 0.10) * c.bearded
        a = lay(a, beard * step(z - 0.02, 0.12), 0.6 * c.hair + 0.02)
    for lowest, highest, layers in ((c.mouth - 0.30, c.tip + 0.10, lips), (-0.30, 0.55, eyes)):
        rows = run((low < highest) & (high > lowest))
        a[rows] = layers(c, a[rows], x[rows], y[rows], face[rows])
    return a


def lips(c, a, x, y, face):
    ax = x.abs()
    if over := max(c.bearded, c.lip_beard):
        over_lip = step(0.042 - (y - c.mouth - 0.098 + 0.5 * x ** 2).abs(), 0.025) * step(0.22 - ax, 0.05)
        a = lay(a, over_lip * over * face, 0.6 * c.hair + 0.02)
    along = ax / c.wide
    bow = 1 - along.clamp(max=1) ** 2
    upper = c.mouth + (0.055 + 0.4 * c.full) * bow * (1 - 0.25 * bell(x, 0.03))
    lower = c.mouth - (0.055 + 0.6 * c.full) * bow
    both = step(upper - y, 0.018) * step(y - lower, 0.018) * step(1 - along, 0.1)
    a = lay(a, both * face, c.tone * (0.66 + 0.07 * c.lip_tone))
    a = lay(a, bell(y - c.mouth, 0.014) * step(0.90 - along, 0.25) * face, 0.12 * c.tone)
    return lay(a, 0.75 * bell(ax - 0.06 * c.broad, 0.026) * bell(y - c.tip + 0.075, 0.018) * face, 0.05)  # nostrils


def eyes(c, a, x, y, face):
    """The eye: white, iris, pupil, a glint; over it the lines and the crease of its lids; its brow."""
    ax = x.abs()
    u, away = (ax - c.gap) / (0.135 * c.wide_eye), ((ax - c.gap) ** 2 + (y - c.eye - 0.006) ** 2).sqrt()
    bow = c.wide_eye * (1 - u ** 2).clamp(min=-0.5)
    upper, lower = c.eye + 0.064 * bow, c.eye - 0.046 * bow
    ball = 0.75 + (0.08 + 0.25 * uniform(c.iris) - 0.75) * step(0.060 - away, 0.012)
    ball = ball + (0.02 - ball) * step(0.026 - away, 0.010)
    ball = ball + 0.9 * bell(x - 0.02 - c.gap * x.sign(), 0.016) * bell(y - c.eye - 0.030, 0.016)
    a = lay(a, step(upper - y, 0.012) * step(y - lower, 0.012) * step(1 - u.abs(), 0.06) * face, ball.clamp(max=1))
    a = lay(a, 0.95 * bell(y - upper - 0.004, 0.014) * step(1.12 - u.abs(), 0.10) * face, 0.04)
    a = lay(a, 0.45 * bell(y - lower, 0.010) * step(1.0 - u.abs(), 0.10) * face, 0.1 * c.tone)
    a = lay(a, 0.35 * bell(y - upper - 0.055, 0.012) * step(1.0 - u.abs(), 0.3) * face, 0.3 * c.tone)
    line = 0.225 + 0.010 * c.brow_ridge + 0.065 * c.brow_tilt * (ax - 0.25) - 0.9 * (ax - 0.29) ** 2
    brow = step(0.030 + 0.009 * c.brow_weight - (y - line).abs(), 0.022) * (0.80 + 0.08 * c.brow_weight)
    return lay(a, brow * step(ax - 0.09, 0.05) * step(0.43 - ax, 0.06) * face, 0.55 * c.hair)


# ---- from surface to cloud

def mesh(c, distances):
    """The whole head as a Cloud for each of these distances: its points are at most so far apart."""
    circle, fine = (-math.pi, math.pi), min(distances)
    parts = [surface(functools.partial(skull, c), (0.0, len(sections(c)) - 3.0), circle, fine, -1)]
    for side in () if c.long else (-1, 1):
        parts.append(surface(functools.partial(ear, c, side), (0.0, 1.05), circle, fine, -side))
    for part in parts:
        part[2] -= PIVOT
    return [tiles([part[:, ::k, ::k] for part in parts]) for k in (int(distance / fine) for distance in distances)]
