"""From a surface to a cloud of points: sampled evenly, with its normals and its creases, cut into tiles."""
from typing import NamedTuple

import torch
import torch.nn.functional as F

TILE, DETAIL = 8, 0.0061  # points along a side of a tile; the finest distance that is drawn, not interpolated


class Cloud(NamedTuple):
    """A surface as points so dense that a z-buffer of the intended width has no hole in it, in tiles of neighbours."""
    rows: torch.Tensor  # (K * TILE * TILE, 8) float32: point, unit normal outwards, albedo in [0, 1], opening about 1
    place: torch.Tensor  # (3, K, TILE * TILE) float32: the points again, for the z-buffer
    middle: torch.Tensor  # (3, K) float32: all points of a tile lie within reach (K,) of it
    reach: torch.Tensor
    axis: torch.Tensor  # (3, K) float32: the cosine between a direction and the tile's normals
    bend: torch.Tensor  # (K,) float32: is at most its product with the axis, plus bend
    order: torch.Tensor  # (K * TILE * TILE,) int64: 0, 1, 2, ..., which takes longer to make than to read


def even(fine, ends, gaps):
    """Positions between ends that step at most fine along a surface whose samples lie gaps (K,) apart."""
    way = torch.cat([gaps.new_zeros(1), gaps.cumsum(0)])
    at = torch.linspace(0, float(way[-1]), int(way[-1] / fine) + 2)
    i = torch.searchsorted(way, at, right=True).clamp(1, len(gaps)) - 1
    part = ((at - way[i]) / gaps[i].clamp(min=1e-9)).clamp(0, 1)
    return ends[0] + (ends[1] - ends[0]) * (i + part) / len(gaps)


def means(cells, wide, around, device):
    """(cells, cells): its product with a column takes twice the mean of a neighbourhood some cells wide.

    around: the column closes a circle; one that does not goes on beyond its ends as it is there.
    """
    at = torch.arange(cells, device=device)
    near = at[:, None] + torch.arange(-(wide // 2), wide // 2 + 1, device=device)
    near = near % cells if around else near.clamp(0, cells - 1)
    mean = torch.zeros(cells, cells, device=device).scatter_add_(1, near, torch.ones_like(near, dtype=torch.float32))
    return mean @ mean / near.shape[1] ** 2


def crease(p, n, cells):
    """How far the mean of a neighbourhood some cells wide lies above each point p (3, T, A) with normal n: (T, A)."""
    down, across = (means(k, cells, around, p.device) for k, around in zip(p.shape[1:], (False, True)))
    return (down @ (p @ across.T)).sub_(p).mul_(n).sum(0)


def surface(draw, rows, columns, fine, outside):
    """The surface draw(rows, columns) as points fine apart: (8, T, A), what Cloud.rows has before it is cut into tiles.

    The columns close a circle; outside, +-1, says to which side the normals point. Below DETAIL the surface
    is as good as flat between its samples: there it is interpolated.
    """
    p, _ = draw(torch.linspace(*rows, 150), torch.linspace(*columns, 150))
    more = max(1, round(DETAIL / fine))
    rows = even(more * fine, rows, p.diff(dim=1).movedim(0, 2).contiguous().norm(dim=2).amax(1))
    columns = even(more * fine, columns, p.diff(dim=2).movedim(0, 2).contiguous().norm(dim=2).amax(0))
    p, albedo = draw(rows, columns)  # (3, T, A), (T, A)
    around = torch.gradient(torch.cat([p[..., -2:-1], p, p[..., 1:2]], 2), dim=2)[0][..., 1:-1]
    n = outside * torch.linalg.cross(around, torch.gradient(p, dim=1)[0], dim=0)
    n = n / n.square().sum(0).sqrt_().clamp_(min=1e-12)
    opening = crease(p, n, int(0.16 / (more * fine))).mul_(-7).add_(1).clamp_(0.35, 1.05)
    field = torch.cat([p, n, albedo[None], opening[None]])
    size = [(k - 1) * more + 1 for k in field.shape[1:]]
    return F.interpolate(field[None], size, mode="bilinear", align_corners=True)[0] if more > 1 else field


def tiles(surfaces):
    """The Cloud of surfaces (8, T, A), cut into tiles; those at their ends repeat their edge."""
    cut = []
    for field in surfaces:
        beyond = [-k % TILE for k in field.shape[1:]]
        field = F.pad(field[None], (0, beyond[1], 0, beyond[0]), mode="replicate")[0]
        cut.append(field.unflatten(2, (-1, TILE)).unflatten(1, (-1, TILE)).transpose(2, 3).flatten(3).flatten(1, 2))
    field = torch.cat(cut, 1)  # (8, K, TILE * TILE)
    middle, axis = field[:3].mean(2), field[3:6].mean(2)
    reach = (field[:3] - middle[:, :, None]).square_().sum(0).amax(1).sqrt_()  # as norm, which is fifty times slower
    bend = (field[3:6] - axis[:, :, None]).square_().sum(0).amax(1).sqrt_()
    order = torch.arange(field[0].numel(), device=field.device)
    return Cloud(field.flatten(1).T.contiguous(), field[:3].contiguous(), middle, reach, axis, bend, order)
