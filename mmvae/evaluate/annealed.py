"""The log-likelihood of a row by annealed importance sampling, where plain importance sampling finds no draw that fits."""
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..gaussian import prior
from ..models import MultiModalVAE
from ..observed import Data
from .likelihood import Estimate, at, doubled, log_p, placed

ACCEPTED = 0.65  # of the moves, that the step sizes are tuned to: Wu et al. (2017)


def annealed_log_likelihood(model: MultiModalVAE, x: Data, steps: int = 100, chains: int = 8, leapfrogs: int = 5,
                            weight: float | dict[str, float] = 1.0, seed: int = 0,
                            present: Data | None = None) -> Estimate:
    """log p(x) by annealed importance sampling: Neal (2001), as Wu et al. (2017) use it for decoders [eq-oracle-ais].

    From the model's own posterior q(z | x), `chains` draws a row move through `steps` densities q^(1 - b) p(x, z)^b, b from 0
    to 1, each by one Hamiltonian move of `leapfrogs` steps in units of the posterior's widths; a first pass tunes the step
    sizes, a second with other noise keeps them, so that its weights have the mean p(x) whatever q is. More steps sharpen it.
    x: all modalities, or some for their marginal likelihood. ess: of `chains` draws. In double precision, and the noise of
    row b depends on the seed and on b alone. weight, present: as of `log_weights`. Raises ValueError for fewer than 2 steps
    or chains, or none of leapfrogs, and for data that the model does not take.
    """
    for name, found, least in (("steps", steps, 2), ("chains", chains, 2), ("leapfrogs", leapfrogs, 1)):
        if found < least:
            raise ValueError(f"{name}: found {found}, expected at least {least}")
    path = _path(*doubled(model, x, present), chains, weight)
    sizes = _pass(path, steps, chains, leapfrogs, seed, None)[1]
    log_w = _pass(path, steps, chains, leapfrogs, seed + 1, sizes)[0].unflatten(0, (-1, chains))
    value = log_w.logsumexp(1) - math.log(chains)
    w = (log_w - value.unsqueeze(1)).exp()  # mean 1
    return Estimate(value, w.std(1) / math.sqrt(chains), chains / w.square().mean(1))


@dataclass
class _Path:
    """The two ends of the path for B rows and their chains, of z side by side (B * chains, D): how to `start` from noise, and
    log q(z | x) and log p(x, z), (B * chains,). scale: the widths of q."""
    start: Callable[[Tensor, Tensor], Tensor]
    first: Callable[[Tensor], Tensor]
    last: Callable[[Tensor], Tensor]
    scale: Tensor
    rows: int
    blocks: int


@torch.no_grad()
def _path(model: MultiModalVAE, x: Data, masks: Data, chains: int, weight: float | dict[str, float]) -> _Path:
    rows, dims = len(next(iter(x.values()))), list(model.blocks.values())
    row = torch.arange(rows, device=model.like.device).repeat_interleave(chains)
    q = {b: at(g, row) for b, g in model.posterior(x, masks).items()}

    def start(noise: Tensor, u: Tensor) -> Tensor:
        return torch.cat([placed(g, eps, u[:, k]) for k, (g, eps) in enumerate(zip(q.values(), noise.split(dims, 1)))], 1)

    def first(z: Tensor) -> Tensor:
        return sum(g.log_prob(part) for g, part in zip(q.values(), z.split(dims, 1)))

    def last(z: Tensor) -> Tensor:
        parts = dict(zip(q, z.split(dims, 1)))
        return prior(*z.shape, like=z).log_prob(z) + log_p(model, parts, x, masks, row, weight)

    return _Path(start, first, last, torch.cat([(0.5 * g.logvar).exp() for g in q.values()], 1), rows, len(dims))


def _pass(path: _Path, steps: int, chains: int, leapfrogs: int, seed: int, sizes: list[Tensor] | None):
    """log w (B * chains,) of one pass, and the step size of each move, (B * chains, 1), that were given or that it tunes as
    it goes: the same for all chains of a row."""
    generators = [torch.Generator().manual_seed(seed * 1_000_003 + b) for b in range(path.rows)]
    like = path.scale

    def drawn(kind, width: int) -> Tensor:
        return torch.cat([kind(chains, width, generator=g, dtype=torch.float64) for g in generators]).to(like)

    z, log_w = path.start(drawn(torch.randn, like.shape[1]), drawn(torch.rand, path.blocks)), 0.0
    size, used = torch.full_like(like[:, :1], 0.5), []
    for t in range(1, steps + 1):
        b = t / steps
        with torch.no_grad():
            log_w = log_w + (path.last(z) - path.first(z)) / steps
        if t == steps:  # the draws themselves are not asked for
            return log_w, sizes or used
        size = sizes[t - 1] if sizes else size
        used.append(size)
        z, accepted = _move(path, z, b, size, leapfrogs, drawn(torch.randn, like.shape[1]), drawn(torch.rand, 1))
        share = accepted.unflatten(0, (-1, chains)).mean(1).repeat_interleave(chains).unsqueeze(1)
        size = (size * torch.where(share > ACCEPTED, 1.15, 1 / 1.15)).clamp(1e-3, 2.0)


def _move(path: _Path, z: Tensor, b: float, size: Tensor, leapfrogs: int, momentum: Tensor, u: Tensor):
    """One Hamiltonian move at q^(1 - b) p(x, z)^b: the next z, and the probability with which each was accepted."""
    def slope(z: Tensor) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            z = z.detach().requires_grad_()
            height = (1 - b) * path.first(z) + b * path.last(z)
            return height.detach(), torch.autograd.grad(height.sum(), z)[0] * path.scale

    height, gradient = slope(z)
    before, at_z, v = height - 0.5 * momentum.square().sum(1), z, momentum
    for _ in range(leapfrogs):
        v = v + 0.5 * size * gradient
        at_z = at_z + size * v * path.scale
        height, gradient = slope(at_z)
        v = v + 0.5 * size * gradient
    change = (height - 0.5 * v.square().sum(1) - before).nan_to_num(-torch.inf)
    accepted = change.clamp(max=0).exp()
    return torch.where(u < accepted.unsqueeze(1), at_z, z), accepted
