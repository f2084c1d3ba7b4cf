"""Pictures of heads in any pose under any lamp, in plain torch.

    image = mmvae.faces.render(3, azimuth=20, elevation=-10, light=40)

An identity is a set of standard normal coefficients, so there are as many heads as one likes (`shape.py`
shapes and paints them). A z-buffer finds what the camera sees; then each lamp is one pass over the pixels.

Angles are in degrees. Positive azimuth turns the face to the viewer's right, positive elevation raises the
chin, a lamp at positive azimuth stands on the viewer's right. The lamp stays put while the head turns.
"""
import functools
import math

import numpy as np
import torch
import torch.nn.functional as F

from . import shape

GENERATOR_VERSION, SEED = 2, 0
AZIMUTHS = np.linspace(-90, 90, 21, dtype=np.float32)  # of the pose, in I and T
ELEVATIONS = np.linspace(-30, 30, 11, dtype=np.float32)  # of the pose, in I; 0 in T
LIGHTS = np.linspace(-80, 80, 11, dtype=np.float32)  # azimuth of the lamp, in T; 0 in I
TEST_FROM = 1_000_000  # the first identity held out: the same people are, whatever the number to learn from
LIMITS = {"identity": (0, 2**31), "identities": (1, TEST_FROM), "test_identities": (0, TEST_FROM), "jobs": (1, 1024),
          "seed": (0, 2**63 - 1), "size": (16, 512),
          "azimuth": (-180, 180), "elevation": (-60, 60), "light": (-180, 180)}

EXTENT, CENTRE = 1.15, 0.08  # the picture: half its side, and the height of its middle above the eyes
AMBIENT, LAMBERT, SPECULAR, LAMP, GAMMA = 0.22, 0.85, 0.10, 25.0, 1 / 1.25  # the lamp stands 25 degrees high
SUPERSAMPLE, DENSITY = 2, 0.80  # z-buffer pixels per picture pixel; of them between neighbours of the cloud
SHADOW, SHADE = 64, 0.85  # pixels along a side of the lamp's view; the part of its light that a shadow takes


def check(**given):
    """Refuse by name an argument that no picture can be made of."""
    for name, value in given.items():
        low, high = LIMITS[name]
        kind = "a number" if name in ("azimuth", "elevation", "light") else "a whole number"
        try:
            good = low <= float(value) <= high and (kind == "a number" or float(value) == int(value))
        except (TypeError, ValueError):
            good = False
        if not good:
            raise ValueError(f"{name}: expected {kind} from {low} to {high}, found {value!r}")


def coefficients(identity, seed=SEED):
    """What makes one identity, {name: float}, N(0, 1) clipped at +-2.2; `shape.COEFFICIENTS` explains."""
    check(identity=identity, seed=seed)
    return shape.coefficients(int(identity), int(seed))


def clouds(identity, seed, size, device="cpu"):
    """One head as two clouds of points on this device: for pictures of this size, and for the lamp's view."""
    c = shape.traits(identity, seed)
    with torch.device(device):
        return shape.mesh(c, [DENSITY * 2 * EXTENT / pixels for pixels in (SUPERSAMPLE * size, SHADOW)])


recent = functools.lru_cache(maxsize=4)(clouds)


def rotation(azimuth, elevation, device="cpu"):
    """(3, 3): turn the head about its own axis by azimuth, then raise the chin by elevation (degrees)."""
    a, e = math.radians(azimuth), math.radians(elevation)
    turn = np.array([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    lift = np.array([[1, 0, 0], [0, math.cos(e), math.sin(e)], [0, -math.sin(e), math.cos(e)]])
    return torch.tensor(lift @ turn, dtype=torch.float32, device=device)


def project(points, turns, pixels):
    """Where points (3, P) are once they are turned (B, 3, 3): their pixel (B, P) int64 and depth (B, P) float32.

    The picture has a margin of a pixel, which catches what falls outside: pixel row * (pixels + 2) + column. Depth is
    positive and larger in front, a unit of the head being 2 ** 20.
    """
    scale, middle, wide = pixels / 2 / EXTENT, pixels / 2 + 1, pixels + 2
    steps = turns.new_tensor([[scale], [-scale], [2 ** 20]])
    origin = turns.new_tensor([[middle], [middle + CENTRE * scale], [4 * 2 ** 20]])
    placed = torch.addmm(origin.repeat(len(turns), 1), (steps * turns).flatten(0, 1), points)
    column, row, depth = placed.view(-1, 3, points.shape[1]).unbind(1)
    spot = row.clamp_(0, wide - 1).floor_().mul_(wide).add_(column.clamp_(0, wide - 1))
    return spot.int().long(), depth  # float32 to int64 at once is three times slower


def foremost(spot, key, pixels):
    """The largest key (B, P) at each pixel of `project`: (B, pixels, pixels), -1 for none; a lone gap takes a neighbour's.

    Whichever point comes first, the largest is the same: so are the pictures, on any number of threads.
    """
    wide = pixels + 2
    best = key.new_full((len(key), wide * wide), -1).scatter_reduce_(1, spot, key, "amax")
    best = best.view(-1, wide, wide)[:, 1:-1, 1:-1]
    left, middle, right = best[:, :, :-2], best[:, :, 1:-1], best[:, :, 2:]
    middle.sub_(middle.clamp(max=0) * (torch.minimum(left, right) + 1))  # as `where`, which is four times slower
    return best


def shown(cloud, turn):
    """The tiles (V,) int64 of the turned cloud that are not all backs, which fronts hide, nor all out of the picture."""
    x, y, _ = turn @ cloud.middle
    facing, inside = turn[2] @ cloud.axis + cloud.bend, cloud.reach + EXTENT - torch.maximum(x.abs(), (y - CENTRE).abs())
    return (torch.minimum(facing, inside) > 0).nonzero().squeeze(1)


def rasterise(cloud, turn, pixels):
    """What the camera sees of the turned cloud: pixels (V,) int64 of pixels * pixels, and the point of the cloud at each."""
    tiles = shown(cloud, turn)
    spot, depth = project(cloud.field[:3].index_select(1, tiles).flatten(1), turn[None], pixels)
    key = depth.int().long().bitwise_left_shift_(32).add_(cloud.order[:depth.shape[1]])  # depth, then which
    best = foremost(spot, key, pixels).flatten()
    seen = (best >= 0).nonzero().squeeze(1)
    which, bits = best.index_select(0, seen) & (2 ** 32 - 1), (cloud.field.shape[2] - 1).bit_length()
    return seen, (tiles.index_select(0, which >> bits) << bits) + (which & (2 ** bits - 1))


def shadows(caster, place, lamps):
    """How much of each lamp (L, 3) reaches points place (3, P) past the head: (L, P) in [0, 1].

    The lamp's own picture of the head gives mean and variance of the height of what stands in its way;
    Chebyshev's inequality bounds the part below the point (variance shadow maps, Donnelly & Lauritzen 2006).
    """
    x, y, z = lamps.unbind(1)
    flat = (x ** 2 + z ** 2).sqrt()
    turns = torch.stack([z / flat, 0 * y, -x / flat, -x * y / flat, flat, -z * y / flat, x, y, z], 1).view(-1, 3, 3)
    maps = foremost(*project(caster.field[:3].flatten(1), turns, SHADOW), SHADOW)  # (L, SHADOW, SHADOW)
    maps = torch.where(maps < 0, 2.5, maps / 2 ** 20 - 1)  # grid_sample: 0 outside
    blur = means(SHADOW, maps.device)  # two products take a sixth of avg_pool2d's time
    maps = blur @ torch.stack([maps, maps ** 2], 1) @ blur.T
    spots = place.T @ (turns[:, :2] * turns.new_tensor([[1 / EXTENT], [-1 / EXTENT]])).mT  # (L, P, 2)
    spots = spots + turns.new_tensor([0, CENTRE / EXTENT])
    mean, square = F.grid_sample(maps, spots[:, None], align_corners=False)[:, :, 0].unbind(1)
    spread = (square - mean ** 2).clamp_(min=1e-4)  # (L, P), as mean and square
    above = (mean - lamps @ place - 3.02).clamp_(min=0)
    return 1 - SHADE * (1 - spread / (spread + above ** 2))


@functools.cache
def means(pixels, device):
    """(pixels, pixels): its product with a column has the means of 5 neighbours, fewer at the ends."""
    at = torch.arange(pixels, device=device)
    near = ((at[:, None] - at).abs() <= 2).float()
    return near / near.sum(1, keepdim=True)


def view(head, caster, azimuth, elevation, lights, size):
    """One pose under a lamp at each azimuth of lights (L,) -> (L, size, size) float32 in [0, 1]."""
    field = head.field.flatten(1)
    turn, pixels = rotation(azimuth, elevation, field.device), SUPERSAMPLE * size
    seen, index = rasterise(head, turn, pixels)
    a, e = torch.deg2rad(torch.as_tensor(lights, dtype=torch.float32, device=field.device)), math.radians(LAMP)
    lamp = torch.stack([a.sin() * math.cos(e), torch.full_like(a, math.sin(e)), a.cos() * math.cos(e)], 1)
    half = F.normalize(lamp + lamp.new_tensor([0, 0, 1]), dim=1)  # (L, 3), between lamp and camera
    shown = field.index_select(1, index)  # (8, P)
    n, albedo, opening = turn @ shown[3:6], shown[6], shown[7]
    reach = shadows(caster, shown[:3], lamp @ turn)  # (L, P)
    diffuse = albedo * (AMBIENT + LAMBERT * (lamp @ n).clamp_(min=0) * reach)
    grey = opening * (diffuse + SPECULAR * shine((half @ n).clamp_(min=0)) * reach)
    image = grey.new_zeros(len(lamp), pixels ** 2).index_copy_(1, seen, grey).view(-1, pixels, pixels)
    parts = [image[:, i::SUPERSAMPLE, j::SUPERSAMPLE] for i in range(SUPERSAMPLE) for j in range(SUPERSAMPLE)]
    return (sum(parts) / len(parts)).clamp_(0, 1) ** GAMMA


def shine(cosine):
    """The 16th power, of Blinn and Phong's highlight; squaring is ten times faster than pow."""
    return cosine.square().square_().square_().square_()


def render(identity, azimuth=0.0, elevation=0.0, light=0.0, size=64, seed=SEED):
    """One head -> (size, size) float32 in [0, 1]; angles in degrees, signs as at the top of this file.

    ValueError names the argument that is out of range: size 16 to 512, azimuth and light within 180 and
    elevation within 60 degrees of 0, identity and seed whole and not negative.
    """
    check(identity=identity, azimuth=azimuth, elevation=elevation, light=light, size=size, seed=seed)
    pair = (recent if size <= 128 else clouds)(int(identity), int(seed), int(size))  # large ones fill memory
    return view(*pair, float(azimuth), float(elevation), [float(light)], int(size))[0]


def grid(head, caster, size):
    """All pictures of one head, rendered where its clouds are: I and T, each (21, 11, size, size) uint8 numpy."""
    def grey(azimuth, elevation, lights):
        return (view(head, caster, azimuth, elevation, lights, size) * 255).round().to(torch.uint8)

    lit = [grey(a, 0.0, LIGHTS) for a in AZIMUTHS]
    neutral = [t[LIGHTS.tolist().index(0)][None] for t in lit]  # what I and T have in common is made once
    varied = [torch.cat([grey(a, e, [0.0]) if e else t for e in ELEVATIONS]) for a, t in zip(AZIMUTHS, neutral)]
    return torch.stack(varied).cpu().numpy(), torch.stack(lit).cpu().numpy()
