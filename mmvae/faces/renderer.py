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
TOGETHER = 3  # lamps that are drawn at once: their numbers just stay in the cache


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
    return rotations(azimuth, [elevation], device)[0]


def rotations(azimuth, elevations, device="cpu"):
    """(B, 3, 3): `rotation` for each of elevations (B,)."""
    a, e = math.radians(azimuth), np.radians(np.asarray(elevations, np.float64))
    x, z, c, s = math.cos(a), math.sin(a), np.cos(e), np.sin(e)
    turns = np.stack([x + 0 * c, 0 * c, z + 0 * c, -s * z, c, s * x, -c * z, -s, c * x], 1)
    return torch.from_numpy(turns.astype(np.float32)).to(device).view(-1, 3, 3)


def scaled(turns, pixels):
    """Turns (..., 3, 3) to pixels and depth, and the origin (3, 1) of both: depth is positive, and larger in front."""
    scale, middle = pixels / 2 / EXTENT, pixels / 2 + 1
    return (turns.new_tensor([[scale], [-scale], [2 ** 20]]) * turns,
            turns.new_tensor([[middle], [middle + CENTRE * scale], [4 * 2 ** 20]]))


def desk(count, points):
    """Where `project` puts up to so many points: float32 (3 * count,) and int64 (count,), which stay in the cache."""
    return points.new_empty(3 * count), points.new_empty(count, dtype=torch.int64)


def project(points, steps, origin, pixels, desk):
    """Where points (3, P) are at each turn (G, 3, 3): their spots (G, P) int64 and depths (G, P) float32, until the desk is
    used again. `scaled` gives steps and origin.

    The picture has a margin of a pixel, which catches what falls outside: pixel row * (pixels + 2) + column.
    """
    count = len(steps) * points.shape[1]
    placed, spots = desk[0][:3 * count].view(len(steps), 3, -1), desk[1][:count].view(len(steps), -1)
    torch.mm(steps.flatten(0, 1), points, out=placed.flatten(0, 1))
    placed.add_(origin)[:, :2].clamp_(0, pixels + 1)
    column, row, depth = placed.unbind(1)
    column.add_(row.floor_(), alpha=pixels + 2)
    return spots.copy_(row.view(torch.int32).copy_(column)), depth  # float32 to int64 at once takes three times as long


def shown(cloud, turns):
    """Of each turn (B, 3, 3), the tiles (V,) int64 of the cloud that are not all backs, nor all below the picture."""
    facing = turns[:, 2] @ cloud.axis + cloud.bend  # (B, K)
    inside = turns[:, 1] @ cloud.middle + (cloud.reach + EXTENT - CENTRE)
    which, tiles = (torch.minimum(facing, inside) > 0).nonzero().unbind(1)
    return tiles.split(torch.bincount(which, minlength=len(turns)).tolist())


def cleared(best, pixels):
    """z-buffers (B, (pixels + 2) ** 2), -1 for none, in a row without what their margins caught."""
    best = best.view(-1, pixels + 2, pixels + 2)
    best[:, ::pixels + 1], best[:, :, ::pixels + 1] = -1, -1
    return best.flatten()


def fill(best):
    """In z-buffers (P,) of whole numbers, a lone gap in a row takes the farther of its neighbours."""
    middle = best[1:-1]
    gap = torch.minimum(best[:-2], best[2:]).bitwise_and_(nothing(middle))
    torch.maximum(middle, gap, out=middle)


def nothing(best):
    """All bits where nothing is, none elsewhere."""
    return best >> 8 * best.element_size() - 1


def rasterise(cloud, turns, pixels):
    """What the camera sees of the cloud at each turn (B, 3, 3): spots (V,) int64 of B * (pixels + 2) ** 2, the point at each,
    and how many of them each turn has.

    A point's key is its depth, as the bits of a positive float, and below them which it is: whichever point comes first, the
    largest key is the same, and so are the pictures, on any number of threads.
    """
    (steps, origin), bits, found = scaled(turns, pixels), (cloud.place.shape[2] - 1).bit_length(), shown(cloud, turns)
    most = max(map(len, found)) << bits
    key, points, free = cloud.order[:most].clone(), cloud.place.new_empty(3 * most), desk(most, cloud.place)
    high = key.view(torch.float32)[1::2]
    best = key.new_full((len(turns), (pixels + 2) ** 2), -1)
    for into, step, tiles in zip(best, steps[:, None], found):
        drawn = points[:3 * len(tiles) << bits].view(3, len(tiles), -1)
        torch.index_select(cloud.place, 1, tiles, out=drawn)
        spots, depth = project(drawn.flatten(1), step, origin, pixels, free)
        torch.floor(depth[0], out=high[:depth.numel()])
        into.scatter_reduce_(0, spots[0], key[:depth.numel()], "amax")
    best = cleared(best, pixels)
    there = best >= 0
    if ((there[:-2] & there[2:]) > there[1:-1]).count_nonzero():  # in one picture of fifty
        fill(best)
        there = best >= 0
    seen = there.nonzero().squeeze(1)
    ends = torch.arange(len(turns) + 1, device=seen.device) * (pixels + 2) ** 2
    counts = torch.searchsorted(seen, ends).diff().tolist()
    which = best.index_select(0, seen).bitwise_and_(2 ** 32 - 1)
    tile = torch.cat([tiles.index_select(0, part) for tiles, part in zip(found, (which >> bits).split(counts))])
    return seen, which.bitwise_and_(2 ** bits - 1).add_(tile, alpha=2 ** bits), counts


@functools.lru_cache(maxsize=16)
def lamps(lights, device):
    """Unit vectors (L, 3) to the lamps at each azimuth of lights, a tuple, and those between them and the camera."""
    a, e = np.radians(np.asarray(lights, np.float64)), math.radians(LAMP)
    lamp = np.stack([np.sin(a) * math.cos(e), np.full_like(a, math.sin(e)), np.cos(a) * math.cos(e)], 1)
    half = lamp + [0, 0, 1]
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    return tuple(torch.tensor(x, dtype=torch.float32, device=device) for x in (lamp, half))


def sights(lamps):
    """The turns (N, 3, 3) of a head to what lamps (N, 3) see of it."""
    x, y, z = lamps.unbind(1)
    flat = (x ** 2 + z ** 2).sqrt()
    return torch.stack([z / flat, 0 * y, -x / flat, -x * y / flat, flat, -z * y / flat, x, y, z], 1).view(-1, 3, 3)


def cast(caster, turns):
    """The points (3, P) of the caster in the picture at one of turns (N, 3, 3) at least.

    All backs too: at the coarse rim of a lamp's view they fill gaps, and without them shadows move.
    """
    inside = (turns[:, 1] @ caster.middle).amax(0) + (caster.reach + EXTENT - CENTRE) > 0
    return caster.place.index_select(1, inside.nonzero().squeeze(1)).flatten(1)


def shadows(caster, lamps):
    """What lamps (N, 3), as the head has them, see of it: (N, 2, SHADOW, SHADOW), and the turns (N, 3, 3) to their views.

    Mean and mean square of the height, over a neighbourhood, of what stands in the lamp's way.
    """
    turns = sights(lamps)
    steps, origin = scaled(turns, SHADOW)
    points = cast(caster, turns)
    best = turns.new_full((len(turns), (SHADOW + 2) ** 2), -1, dtype=torch.int32)
    free = desk(TOGETHER * points.shape[1], points)
    for into, some in zip(best.split(TOGETHER), steps.split(TOGETHER)):
        spots, depth = project(points, some, origin, SHADOW, free)
        into.scatter_reduce_(1, spots, depth.view(torch.int32), "amax")
    best = cleared(best, SHADOW)
    fill(best)
    ground = nothing(best).bitwise_and_(best.new_tensor(3.5 * 2 ** 20, dtype=torch.float32).view(torch.int32))
    maps = best.clamp_(min=0).bitwise_or_(ground).view(torch.float32).mul_(2 ** -20).sub_(1)  # grid_sample: 0 outside
    maps = maps.view(-1, SHADOW + 2, SHADOW + 2)
    blur = means(SHADOW, maps.device)  # two products take a sixth of avg_pool2d's time
    return blur @ torch.stack([maps, maps.square()], 1) @ blur.T, turns


@functools.cache
def means(pixels, device):
    """(pixels, pixels + 2): times a column that has margins, it is the means of 5 neighbours, fewer at the ends."""
    at = torch.arange(pixels, device=device)
    near = ((at[:, None] - at).abs() <= 2).float()
    return F.pad(near / near.sum(1, keepdim=True), (1, 1))


def views(head, caster, azimuth, elevations, lights, size):
    """Poses under a lamp at each azimuth of lights (L,) -> (B, L, size, size) float32 in [0, 1], elevations (B,)."""
    device, pixels = head.place.device, SUPERSAMPLE * size
    turns = rotations(azimuth, elevations, device)
    lamp, half = lamps(tuple(lights), device)
    own = lamp @ turns  # (B, L, 3), as the head has them
    maps, sees = (x.unflatten(0, (len(turns), -1)) for x in shadows(caster, own.flatten(0, 1)))
    seen, index, counts = rasterise(head, turns, pixels)
    rows = head.rows.index_select(0, index)  # (P, 8), of all poses
    # one product a pose has it all: its points as the lamps see them, the cosines, albedo and opening
    take = rows.new_zeros(len(turns), 5 * len(lamp) + 2, 8)
    split = take[:, :-2].unflatten(1, (5, len(lamp)))  # (B, 5, L, 8)
    split[:, 0, :, :3], split[:, 1, :, :3], split[:, 2, :, :3] = sees[:, :, 0] / EXTENT, -sees[:, :, 1] / EXTENT, own
    split[:, 3, :, 3:6], split[:, 4, :, 3:6] = own, half @ turns
    take[:, -2, 6], take[:, -1, 7] = 1, 1
    values, found = rows.new_empty(take.shape[1], len(rows)), rows.new_empty(2, len(lamp), len(rows))
    planes = values[:-2].unflatten(0, (5, -1))  # (5, L, P)
    for k, (part, out) in enumerate(zip(rows.split(counts), values.split(counts, 1))):
        torch.mm(take[k], part.T, out=out)
    planes[1] += CENTRE / EXTENT
    for k, (xy, out) in enumerate(zip(planes[:2].split(counts, 2), found.split(counts, 2))):
        out.copy_(F.grid_sample(maps[k], xy.permute(1, 2, 0)[:, None], align_corners=False)[:, :, 0].transpose(0, 1))
    (diffuse, glossy), (albedo, opening), reach = planes[3:].clamp_(min=0), values[-2:], lit(*found, planes[2])
    grey = diffuse.mul_(LAMBERT).mul_(reach).add_(AMBIENT).mul_(albedo)
    grey = grey.addcmul_(shine(glossy), reach, value=SPECULAR).mul_(opening)
    image = grey.new_zeros(len(lamp), len(turns) * (pixels + 2) ** 2).scatter_(1, seen.expand(len(lamp), -1), grey)
    image = image.view(len(lamp), len(turns), pixels + 2, -1)
    image = image[:, :, 1:-1:2] + image[:, :, 2::2]
    image = (image[..., 1:-1:2] + image[..., 2::2]).transpose(0, 1)
    return image.div_(SUPERSAMPLE ** 2).clamp_(0, 1).pow_(GAMMA)


def lit(mean, square, z):
    """How much of a lamp reaches points z high, past what has this mean and mean square of the height: in [0, 1].

    Chebyshev's inequality bounds the part of the neighbourhood that is below the point (variance shadow maps,
    Donnelly & Lauritzen 2006).
    """
    spread = square.addcmul_(mean, mean, value=-1).clamp_(min=1e-4)
    above = mean.sub_(z).sub_(3.02).clamp_(min=0)
    return spread.div_(torch.addcmul(spread, above, above)).mul_(SHADE).add_(1 - SHADE)


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
