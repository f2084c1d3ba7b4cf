"""Two more ways to fuse experts, between the product and the mixture: experts who err together, and Hölder pooling.

Both take a list of Gaussians and masks, as `mmvae.product_of_experts` does, and neither has the prior among the experts.
"""
import math
from collections.abc import Sequence
from itertools import combinations
from numbers import Real

import torch
from torch import Tensor

from .gaussian import Gaussian, Mixture, _one_shape, _table

ABSENT = -1e30  # log-weight of a pair that is not there: no softmax leaves anything of it, and it has a slope


def consensus_of_experts(experts: list[Gaussian], correlation: float | Tensor, masks: list[Tensor | None] = ()) -> Gaussian:
    """What is left to believe of experts whose errors are correlated: Winkler (1981); Mancisidor et al. (2025).

    Of each latent on its own the experts' errors have the covariance S_ij = rho^[i != j] s_i s_j; the consensus has the
    precision 1' S^-1 1 and the mean 1' S^-1 mu over it [eq-frontier-consensus]. At rho = 0 it is the product without the
    prior, and one expert alone is itself. It is computed without an inverse, by the closed form of a matrix of equal
    correlations [eq-frontier-precision]: nothing overflows, and the precision is at least that of the sharpest expert.

    An expert's weight is negative where rho is above (the smallest s) / (its own s), of two experts: the mean then lies
    beyond the sharper one's, on the side away from the other. It stays finite: of two experts no weight is below (1 - 1 /
    sqrt(1 - rho^2)) / 2, which is -0.08 at rho = 0.5 and -0.65 at 0.9 [eq-frontier-weight].

    experts: a non-empty list, all (B, D). correlation: rho in [0, 1), one number, or (D,) one a latent. Returns (B, D). A row
    that no expert speaks of has the prior. Raises ValueError for an empty list, unequal shapes, another number.
    """
    _one_shape("consensus_of_experts", experts)
    check_correlation(correlation)
    speaks = _table(experts, masks).T.unsqueeze(-1)  # (E, B, 1)
    mu = torch.where(speaks, torch.stack([e.mu for e in experts]), 0.0)  # (E, B, D)
    logprec = torch.where(speaks, -torch.stack([e.logvar for e in experts]), ABSENT)
    most = logprec.amax(0)
    t = torch.where(speaks, (0.5 * (logprec - most)).exp(), 0.0)  # 1 / s, of the sharpest 1
    count = speaks.sum(0).to(mu)  # (B, 1)
    apart = sum(torch.where(speaks[i] & speaks[j], (t[i] - t[j]).square(), 0.0)
                for i, j in combinations(range(len(experts)), 2))
    size = 1 + (count - 1) * correlation
    precision = (t.square().sum(0) + correlation / (1 - correlation) * apart) / size  # in units of the sharpest one's
    heard = count > 0
    precision = torch.where(heard, precision, 1.0)
    weights = t * (t - correlation / size * t.sum(0)) / ((1 - correlation) * precision)  # (E, B, D), the sum 1
    return Gaussian((weights * mu).sum(0), torch.where(heard, -most - precision.log(), 0.0))


def check_correlation(correlation: float | Tensor | None) -> float | Tensor | None:
    """The correlation. Raises ValueError for what is no number in [0, 1); the values of a tensor are not looked at."""
    if not isinstance(correlation, Tensor | None) and not (isinstance(correlation, Real) and 0 <= correlation < 1):
        raise ValueError(f"correlation: found {correlation!r}, expected a number from 0, below 1")
    return correlation


def hoelder_pool(experts: list[Gaussian], weights: Sequence[float] | Tensor | None = None,
                 masks: list[Tensor | None] = ()) -> Mixture:
    """The Hölder pool of order 1/2, proportional to (sum_m w_m sqrt(q_m))^2, exactly: Vo & Valera (2026) for the pool.

    The square is a sum over pairs, and the root of two diagonal Gaussians' product is a Gaussian whose precision is the mean
    of theirs, times their overlap, the Bhattacharyya coefficient BC_ij. So the pool is a mixture: of each expert with weight
    w_i^2, and of each pair with 2 w_i w_j BC_ij, normalised [eq-frontier-pool, eq-frontier-overlap]. Experts that agree keep
    all pairs; of experts that are far apart the mixture of them alone is left, with weights w_i^2.

    experts: a non-empty list of E, all (B, D). weights: E numbers, not negative, not all 0; their scale does not matter;
    None: equal. Returns E (E + 1) / 2 parts: the experts in their order, then the pairs (0, 1), (0, 2), ... (1, 2), ... In a
    row that no expert speaks of every part has weight 0. Raises ValueError for an empty list, unequal shapes, other weights.
    """
    _one_shape("hoelder_pool", experts)
    w = experts[0].mu.new_ones(len(experts)) if weights is None else torch.as_tensor(weights).to(experts[0].mu)
    if w.shape != (len(experts),):
        raise ValueError(f"weights: found shape {tuple(w.shape)}, expected ({len(experts)},): a number for each expert")
    fixed = weights is not None and not isinstance(weights, Tensor)  # a tensor's values are never read from the device
    if fixed and not (min(weights) >= 0 and 0 < sum(weights) < math.inf):
        raise ValueError(f"weights: found {list(weights)}, expected numbers that are not negative, and not all 0")
    speaks = (_table(experts, masks) & (w > 0)).unbind(1)  # E of (B,)
    logw = torch.where(w > 0, w, 1.0).log()
    parts, there, logs = list(experts), list(speaks), [2 * logw[i].expand_as(e.mu[:, 0]) for i, e in enumerate(experts)]
    for i, j in combinations(range(len(experts)), 2):
        root, overlap = geometric_mean(experts[i], experts[j])
        parts.append(root)
        there.append(speaks[i] & speaks[j])
        logs.append(math.log(2) + logw[i] + logw[j] + overlap)
    there = torch.stack(there, 1)  # (B, E (E + 1) / 2)
    return Mixture(tuple(parts), torch.where(there, torch.stack(logs, 1), ABSENT).softmax(1) * there)


def geometric_mean(a: Gaussian, b: Gaussian) -> tuple[Gaussian, Tensor]:
    """sqrt(a b) of two diagonal Gaussians (B, D), normalised, and the log of its integral, the Bhattacharyya coefficient:
    (B,), not above 0, which is 0 where they are one [eq-frontier-overlap]."""
    logprec = -torch.stack([a.logvar, b.logvar])  # (2, B, D)
    mean = Gaussian((logprec.softmax(0) * torch.stack([a.mu, b.mu])).sum(0), math.log(2) - logprec.logsumexp(0))
    both = torch.logaddexp(a.logvar, b.logvar)  # log of the sum of the variances
    d = (a.mu - b.mu) * (-0.5 * both).exp()
    return mean, (0.5 * (math.log(2) + 0.5 * (a.logvar + b.logvar) - both) - 0.25 * d.square()).sum(-1)


def moment_match(mixture: Mixture) -> Gaussian:
    """The diagonal Gaussian (B, D) of a mixture's means and variances, which of all diagonal Gaussians g is the nearest in
    KL(mixture || g) [eq-frontier-moments]."""
    return mixture.moments()
