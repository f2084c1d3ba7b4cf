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

GENERATOR_VERSION, SEED = 1, 0
AZIMUTHS = np.linspace(-90, 90, 21, dtype=np.float32)  # of the pose, in I and T
ELEVATIONS = np.linspace(-30, 30, 11, dtype=np.float32)  # of the pose, in I; 0 in T
LIGHTS = np.linspace(-80, 80, 11, dtype=np.float32)  # azimuth of the lamp, in T; 0 in I
LIMITS = {"identity": (0, 2**31), "identities": (1, 2**31), "test_identities": (0, 2**31),
          "seed": (0, 2**63 - 1), "size": (16, 512),
          "azimuth": (-180, 180), "elevation": (-60, 60), "light": (-180, 180)}

EXTENT, CENTRE = 1.15, 0.08  # the picture: half its side, and the height of its middle above the eyes
AMBIENT, LAMBERT, SPECULAR, LAMP, GAMMA = 0.22, 0.85, 0.10, 25.0, 1 / 1.25  # the lamp stands 25 degrees high
SUPERSAMPLE, DENSITY = 2, 0.68  # z-buffer pixels per picture pixel; of them between neighbours of the cloud
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


def clouds(identity, seed, size):
    """One head as two clouds of points: for pictures of this size, and for the lamp's view."""
    c = shape.traits(identity, seed)
    return [shape.mesh(c, DENSITY * 2 * EXTENT / pixels) for pixels in (SUPERSAMPLE * size, SHADOW)]


recent = functools.lru_cache(maxsize=4)(clouds)


def rotation(azimuth, elevation):
    """(3, 3): turn the head about its own axis by azimuth, then raise the chin by elevation (degrees)."""
    a, e = math.radians(azimuth), math.radians(elevation)
    turn = torch.tensor([[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]])
    return torch.tensor([[1, 0, 0], [0, math.cos(e), math.sin(e)], [0, -math.sin(e), math.cos(e)]]) @ turn


def rasterise(cloud, turn, pixels):
    """Which point of the turned cloud is foremost at each pixel: (pixels, pixels) int64, -1 for none."""
    x, y, z = turn @ cloud.points
    scale, wide = pixels / 2 / EXTENT, pixels + 2  # a margin of one pixel catches what falls outside
    column = (x * scale + (pixels / 2 + 1)).clamp_(0, pixels + 1).floor_()
    row = ((CENTRE - y) * scale + (pixels / 2 + 1)).clamp_(0, pixels + 1).floor_()
    spot = row.mul_(wide).add_(column).long().masked_fill_(turn[2] @ cloud.normals <= 0, 0)  # no backs
    key = (z + 4).mul_(2 ** 20).long().bitwise_left_shift_(32).add_(torch.arange(len(z)))  # depth, then which
    best = torch.full((wide * wide,), -1).scatter_reduce_(0, spot, key, "amax").view(wide, wide)[1:-1, 1:-1]
    best = torch.where(best < 0, best, best & (2 ** 32 - 1))
    left, middle, right = best[:, :-2], best[:, 1:-1], best[:, 2:]  # a lone gap takes its neighbour
    middle.copy_(torch.where((middle < 0) & (left >= 0) & (right >= 0), left, middle))
    return best


def shadows(caster, place, lamps):
    """How much of each lamp (L, 3) reaches points place (3, P) past the head: (L, P) in [0, 1].

    The lamp's own picture of the head gives mean and variance of the height of what stands in its way;
    Chebyshev's inequality bounds the part below the point (variance shadow maps, Donnelly & Lauritzen 2006).
    """
    maps, spots, heights = [], [], []
    for lamp in lamps:
        right = F.normalize(torch.linalg.cross(lamp.new_tensor([0, 1, 0]), lamp), dim=0)
        turn = torch.stack([right, torch.linalg.cross(lamp, right), lamp])
        index = rasterise(caster, turn, SHADOW)
        maps.append(torch.where(index < 0, 2.5, 3 + (lamp @ caster.points)[index]))  # grid_sample: 0 outside
        x, y, z = turn @ place
        spots.append(torch.stack([x, CENTRE - y], -1) / EXTENT)
        heights.append(3 + z)
    maps = torch.stack(maps)[:, None]  # (L, 1, SHADOW, SHADOW)
    maps = F.avg_pool2d(torch.cat([maps, maps ** 2], 1), 5, 1, 2, count_include_pad=False)
    mean, square = F.grid_sample(maps, torch.stack(spots)[:, None], align_corners=False)[:, :, 0].unbind(1)
    spread = (square - mean ** 2).clamp_(min=1e-4)  # (L, P), as mean and square
    above = (mean - torch.stack(heights) - 0.02).clamp_(min=0)
    return 1 - SHADE * (1 - spread / (spread + above ** 2))


def view(head, caster, azimuth, elevation, lights, size):
    """One pose under a lamp at each azimuth of lights (L,) -> (L, size, size) float32 in [0, 1]."""
    turn, pixels = rotation(azimuth, elevation), SUPERSAMPLE * size
    index = rasterise(head, turn, pixels).flatten()
    seen = (index >= 0).nonzero().squeeze(1)
    index = index[seen]  # (P,)
    a, e = torch.deg2rad(torch.as_tensor(lights, dtype=torch.float32)), math.radians(LAMP)
    lamp = torch.stack([a.sin() * math.cos(e), torch.full_like(a, math.sin(e)), a.cos() * math.cos(e)], 1)
    half = F.normalize(lamp + lamp.new_tensor([0, 0, 1]), dim=1)  # (L, 3), between lamp and camera
    n, albedo, opening = turn @ head.normals.index_select(1, index), head.albedo[index], head.opening[index]
    reach = shadows(caster, head.points.index_select(1, index), lamp @ turn)  # (L, P)
    diffuse = albedo * (AMBIENT + LAMBERT * (lamp @ n).clamp_(min=0) * reach)
    grey = opening * (diffuse + SPECULAR * shine((half @ n).clamp_(min=0)) * reach)
    image = grey.new_zeros(len(lamp), pixels ** 2).index_copy_(1, seen, grey).view(1, -1, pixels, pixels)
    return F.avg_pool2d(image, SUPERSAMPLE)[0].clamp_(0, 1) ** GAMMA


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
    """All pictures of one head: I and T, each (21, 11, size, size) uint8 numpy."""
    def grey(azimuth, elevation, lights):
        return (view(head, caster, azimuth, elevation, lights, size) * 255).round().to(torch.uint8)

    varied = [torch.cat([grey(a, e, [0.0]) for e in ELEVATIONS]) for a in AZIMUTHS]
    return torch.stack(varied).numpy(), torch.stack([grey(a, 0.0, LIGHTS) for a in AZIMUTHS]).numpy()
