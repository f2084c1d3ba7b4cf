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
KEY = 2 ** 30  # more than there are points: depth * KEY + point is a whole number below 2 ** 53, exact in float64
SHADOW, SHADE = 64, 0.85  # pixels along a side of the lamp's view; the part of its light that a shadow takes
RIM = 2.0  # all backs are drawn in the lamp's view: at its coarse rim they fill gaps, and without them shadows move


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


def project(points, steps, origin, pixels):
    """Where points (3, P) are once they are turned (3, 3): their pixel (P,) int64 and depth (P,) float32.

    The picture has a margin of a pixel, which catches what falls outside: pixel row * (pixels + 2) + column. Depth is
    positive and larger in front, a unit of the head being 2 ** 20. `scaled` gives steps and origin.
    """
    placed = torch.addmm(origin, steps, points)
    placed[:2].clamp_(0, pixels + 1)
    column, row, depth = placed.unbind()
    return row.floor_().mul_(pixels + 2).add_(column).int().long(), depth  # float32 to int64 at once is three times slower


def scaled(turns, pixels):
    """Turns (..., 3, 3) to pixels and depth, and the origin (3, 1) of both."""
    scale, middle = pixels / 2 / EXTENT, pixels / 2 + 1
    return (turns.new_tensor([[scale], [-scale], [2 ** 20]]) * turns,
            turns.new_tensor([[middle], [middle + CENTRE * scale], [4 * 2 ** 20]]))


def shown(cloud, turns, rim=0.0):
    """Of each turn (B, 3, 3), the tiles (V,) int64 of the cloud that are not all backs, which fronts hide, nor all outside.

    rim: backs whose cosine to the viewer is above -rim are fronts.
    """
    x, y, _ = (turns.flatten(0, 1) @ cloud.middle).view(len(turns), 3, -1).unbind(1)  # (B, K)
    facing = turns[:, 2] @ cloud.axis + (cloud.bend + rim)
    inside = cloud.reach + EXTENT - torch.maximum(x.abs(), (y - CENTRE).abs())
    return [tiles.nonzero().squeeze(1) for tiles in torch.minimum(facing, inside) > 0]


def rasterise(cloud, turns, pixels):
    """What the camera sees of the cloud at each turn (B, 3, 3): spots (V,) int64 of (pixels + 2) ** 2, and the point at each.

    Whichever point comes first, the largest key is the same: so are the pictures, on any number of threads.
    """
    (steps, origin), found, bits = scaled(turns, pixels), [], (cloud.place.shape[2] - 1).bit_length()
    for step, tiles in zip(steps, shown(cloud, turns)):
        spot, depth = project(cloud.place.index_select(1, tiles).flatten(1), step, origin, pixels)
        key = torch.add(cloud.order[:len(spot)], depth.floor_().double(), alpha=KEY)  # depth, then which
        best = key.new_full(((pixels + 2) ** 2,), -1).scatter_reduce_(0, spot, key, "amax")
        seen = (best >= 0).nonzero().squeeze(1)
        best = best.index_select(0, seen)
        gaps = (seen[1:] - seen[:-1] == 2).nonzero().squeeze(1)  # a lone gap takes the farther neighbour
        best = torch.cat([best, torch.minimum(best[gaps], best[gaps + 1])])
        which, seen = best.long().bitwise_and_(KEY - 1), torch.cat([seen, seen[gaps] + 1])
        found.append((seen, (tiles.index_select(0, which >> bits) << bits) + (which & (2 ** bits - 1))))
    return found


def towards(lights):
    """Unit vectors (L, 3) to the lamps at each azimuth of lights (L,) float32."""
    a, e = torch.deg2rad(lights), math.radians(LAMP)
    return torch.stack([a.sin() * math.cos(e), torch.full_like(a, math.sin(e)), a.cos() * math.cos(e)], 1)


def sights(lamps):
    """The turns (N, 3, 3) of a head to what lamps (N, 3) see of it."""
    x, y, z = lamps.unbind(1)
    flat = (x ** 2 + z ** 2).sqrt()
    return torch.stack([z / flat, 0 * y, -x / flat, -x * y / flat, flat, -z * y / flat, x, y, z], 1).view(-1, 3, 3)


def shadows(caster, lamps):
    """What lamps (N, 3), as the head has them, see of it: (N, 2, SHADOW, SHADOW), and the turns (N, 3, 3) to their views.

    Mean and mean square of the height, over a neighbourhood, of what stands in the lamp's way.
    """
    turns = sights(lamps)
    steps, origin = scaled(turns, SHADOW)
    best = turns.new_full((len(turns), (SHADOW + 2) ** 2), -1)
    for into, step, tiles in zip(best, steps, shown(caster, turns, RIM)):
        into.scatter_reduce_(0, *project(caster.place.index_select(1, tiles).flatten(1), step, origin, SHADOW), "amax")
    maps = best.view(-1, SHADOW + 2, SHADOW + 2)
    left, maps, right = maps[:, 1:-1, :-2], maps[:, 1:-1, 1:-1], maps[:, 1:-1, 2:]
    maps = torch.where(maps < 0, torch.minimum(left, right), maps)  # a lone gap takes the farther neighbour
    maps = torch.where(maps < 0, 2.5, maps / 2 ** 20 - 1)  # grid_sample: 0 outside
    blur = means(SHADOW, maps.device)  # two products take a sixth of avg_pool2d's time
    return blur @ torch.stack([maps, maps.square()], 1) @ blur.T, turns


def lit(maps, x, y, z):
    """How much of each of some lamps (L) reaches points past the head, by `shadows` of them: (L, P) in [0, 1].

    x, y, z: (L, P), the points as each lamp sees them. Chebyshev's inequality bounds the part of the neighbourhood that is
    below the point (variance shadow maps, Donnelly & Lauritzen 2006).
    """
    spots = torch.stack([x, y], -1)[:, None]
    mean, square = F.grid_sample(maps, spots, align_corners=False)[:, :, 0].unbind(1)
    spread = square.sub_(mean * mean).clamp_(min=1e-4)  # (L, P), as mean and square
    above = (mean - z).sub_(3.02).clamp_(min=0).square_().add_(spread)
    return spread.div_(above).neg_().add_(1).mul_(-SHADE).add_(1)


@functools.cache
def means(pixels, device):
    """(pixels, pixels): its product with a column has the means of 5 neighbours, fewer at the ends."""
    at = torch.arange(pixels, device=device)
    near = ((at[:, None] - at).abs() <= 2).float()
    return near / near.sum(1, keepdim=True)


@functools.cache
def quarters(pixels, device):
    """((pixels + 2) ** 2,): where a z-buffer's pixel goes, so that the pixels of a picture are means over (4, size, size)."""
    row, column = (torch.arange(-1, pixels + 1, device=device) for _ in range(2))
    size, outside = pixels // SUPERSAMPLE, (row < 0) | (row == pixels)
    part = row[:, None] % SUPERSAMPLE * SUPERSAMPLE + column % SUPERSAMPLE
    place = (part * size + row[:, None] // SUPERSAMPLE) * size + column // SUPERSAMPLE
    return place.masked_fill_(outside | outside[:, None], pixels ** 2).flatten()


def views(head, caster, azimuth, elevations, lights, size):
    """Poses under a lamp at each azimuth of lights (L,) -> (B, L, size, size) float32 in [0, 1], elevations (B,)."""
    device, pixels = head.place.device, SUPERSAMPLE * size
    turns = torch.stack([rotation(azimuth, elevation) for elevation in elevations]).to(device)
    lamp = towards(torch.as_tensor(lights, dtype=torch.float32, device=device))
    half = F.normalize(lamp + lamp.new_tensor([0, 0, 1]), dim=1)  # (L, 3), between lamp and camera
    own = lamp @ turns  # (B, L, 3), as the head has them
    maps, sees = (x.unflatten(0, (len(turns), -1)) for x in shadows(caster, own.flatten(0, 1)))
    found = rasterise(head, turns, pixels)
    rows = head.rows.index_select(0, torch.cat([index for _, index in found]))  # (P, 8), of all poses
    at = quarters(pixels, device)
    at = torch.cat([at.index_select(0, seen) + k * (pixels ** 2 + 1) for k, (seen, _) in enumerate(found)])
    # one product a pose has it all: its points as the lamps see them, the cosines, albedo and opening
    take = rows.new_zeros(len(turns), 5 * len(lamp) + 2, 8)
    split = take[:, :-2].unflatten(1, (5, len(lamp)))  # (B, 5, L, 8)
    split[:, 0, :, :3], split[:, 1, :, :3], split[:, 2, :, :3] = sees[:, :, 0] / EXTENT, -sees[:, :, 1] / EXTENT, own
    split[:, 3, :, 3:6], split[:, 4, :, 3:6] = own, half @ turns
    take[:, -2, 6], take[:, -1, 7] = 1, 1
    values, reach, start = rows.new_empty(take.shape[1], len(rows)), rows.new_empty(len(lamp), len(rows)), 0
    for k, (seen, _) in enumerate(found):
        part = slice(start, start := start + len(seen))
        torch.mm(take[k], rows[part].T, out=values[:, part])
        x, y, z = values[:3 * len(lamp), part].unflatten(0, (3, -1))
        reach[:, part] = lit(maps[k], x, y + CENTRE / EXTENT, z)
    diffuse, glossy = values[3 * len(lamp):-2].clamp_(min=0).unflatten(0, (2, -1))
    albedo, opening = values[-2:]
    grey = diffuse.mul_(LAMBERT).mul_(reach).add_(AMBIENT).mul_(albedo)
    grey = grey.add_(shine(glossy).mul_(SPECULAR).mul_(reach)).mul_(opening)
    image = grey.new_zeros(len(lamp), len(turns) * (pixels ** 2 + 1)).scatter_(1, at.expand(len(lamp), -1), grey)
    image = image.view(len(lamp), len(turns), -1)[:, :, :-1].unflatten(2, (-1, size, size))
    image, *more = image.transpose(0, 1).unbind(2)
    return (sum(more, image) / SUPERSAMPLE ** 2).clamp_(0, 1).pow_(GAMMA)


def view(head, caster, azimuth, elevation, lights, size):
    """One pose under a lamp at each azimuth of lights (L,) -> (L, size, size) float32 in [0, 1]."""
    return views(head, caster, azimuth, [elevation], lights, size)[0]


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
    raised, middle, neutral = ELEVATIONS[ELEVATIONS != 0], int((ELEVATIONS < 0).sum()), LIGHTS.tolist().index(0)

    def grey(*poses):
        return (views(head, caster, *poses, size) * 255).round_().to(torch.uint8)

    varied, lit = [], []
    for azimuth in AZIMUTHS:
        lit.append(grey(azimuth, [0.0], LIGHTS)[0])
        others = grey(azimuth, raised, [0.0])[:, 0]
        varied.append(torch.cat([others[:middle], lit[-1][neutral][None], others[middle:]]))  # made once for I and T
    return torch.stack(varied).cpu().numpy(), torch.stack(lit).cpu().numpy()
