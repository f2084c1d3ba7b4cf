"""Which added term asks for the partition, and what it costs: exactly, on linear-Gaussian models of one likelihood.

Where the shared block has a latent to spare, the likelihood leaves open how much of each private block has moved there:
`solution` makes any of these models. A term asks for the partition if, of all of them, those with every private direction at
home have the least of it. The posteriors here are the exact ones of `oracle`, with all their correlations.
"""
import math
from itertools import permutations

import torch
from torch import Tensor

from ..models import MultiModalVAE
from ..observed import Data, Subset, all_subsets
from .identified import descended
from .oracle import LinearGaussian, exact_elbos


def solution(truth: LinearGaussian, moved: dict[str, Tensor]) -> LinearGaussian:
    """A model of the truth's likelihood whose S has latents v to spare: z_m = (1 - P Pᵀ)^½ z'_m + P v [eq-oracle-moved].

    moved: {modality: P (D_m, spare)}, 0 for those that are not named: which directions of its private block are in v, and by
    how much, from 0 to 1. No two modalities can have moved into the same direction of v. Raises ValueError for an unknown
    modality, unequal numbers of spare latents, a P with a singular value above 1, two whose rows are not at right angles.
    """
    spare = {P.shape[1] for P in moved.values()}
    fits = set(moved) <= set(truth.sizes) and all(len(P) == truth.blocks[m] for m, P in moved.items())
    if not moved or len(spare) != 1 or not fits:
        raise ValueError(f"moved: found {({m: tuple(P.shape) for m, P in moved.items()})}, expected matrices of as many rows "
                         f"as a modality has private latents, {truth.blocks}, and one number of columns")
    P = {m: moved.get(m, torch.zeros(truth.blocks[m], *spare).to(truth.loadings)) for m in truth.sizes}
    if any(torch.linalg.svdvals(p).max() > 1 + 1e-9 for p in P.values() if p.numel()):
        raise ValueError("moved: found a direction that is moved by more than 1, expected singular values of at most 1")
    if any((P[a] @ P[b].T).abs().max() > 1e-9 for a, b in permutations(P, 2)):
        raise ValueError("moved: found two modalities in one direction of the spare latents, expected right angles")
    columns = {b: truth.loadings[:, truth.columns(b)] for b in truth.blocks}
    columns["S"] = torch.cat([columns["S"], sum(columns[m] @ P[m] for m in P)], 1)
    for m in P:
        values, axes = torch.linalg.eigh(torch.eye(len(P[m])).to(P[m]) - P[m] @ P[m].T)
        columns[m] = columns[m] @ axes * values.clamp(min=0).sqrt() @ axes.T
    blocks = {b: v.shape[1] for b, v in columns.items()}
    return LinearGaussian(torch.cat([columns[b] for b in truth.blocks], 1), truth.offset, truth.noise, blocks, truth.sizes)


def charge(truth: LinearGaussian, moved: dict[str, Tensor]) -> float:
    """By how much the gap of `solution` is above that of a model with all at home, nats a row: for each modality
    ½ [log det (1 + G) - log det (1 + G^½ (1 - P Pᵀ) G^½)], G what it says of its own private block [eq-oracle-charge]."""
    total = 0.0
    for m, P in moved.items():
        A = truth.loadings[truth.rows((m,)), truth.columns(m)] / truth.noise
        one = torch.eye(len(A)).to(A)
        total = total + 0.5 * (torch.logdet(one + A @ A.T) - torch.logdet(one + A @ A.T - A @ P @ P.T @ A.T))
    return float(total)


# ---- the six terms, of the exact posteriors of a linear-Gaussian model

def informs(model: LinearGaussian, block: str, subset: Subset) -> float:
    """I(z_block; x_subset), nats: how much a subset of the modalities tells of a block."""
    at = model.columns(block)
    return -0.5 * torch.logdet(torch.linalg.inv(model.precision(subset))[at, at]).item() if model.blocks[block] else 0.0


def gap(model: LinearGaussian) -> float:
    """E KL(q(z_S | x) || q(z_S | x_m)), summed over the modalities m, nats a row: what the others add to what m alone tells
    of z_S, I(z_S; the others | x_m) [eq-oracle-told]. Suzuki et al. (2016); Hwang et al. (2021)."""
    every = tuple(model.sizes)
    return sum(informs(model, "S", every) - informs(model, "S", (m,)) for m in every)


def redrawn(model: LinearGaussian, m: str, sources: dict[str, Subset | None], spread: float = 1.0) -> float:
    """-E log p(x_m | z), nats a row, with each block of z drawn on its own: from its exact posterior given a subset, or,
    where that is None, from N(0, spread²) whatever x is."""
    every, W = tuple(model.sizes), model.loadings
    left = torch.eye(len(W)).to(W)[model.rows((m,))]  # x_m less what is decoded, as a matrix on x
    covariance = model.covariance(every, every)
    spreads = 0.0
    for block, subset in sources.items():
        at, w = model.columns(block), W[model.rows((m,))][:, model.columns(block)]
        if subset is None:
            spreads = spreads + spread ** 2 * w.square().sum()
            continue
        posterior = torch.linalg.inv(model.precision(subset))
        mean = torch.zeros(model.blocks[block], len(W)).to(W)
        mean[:, model.rows(subset)] = posterior[at] @ W[model.rows(subset)].T / model.noise ** 2
        left, spreads = left - w @ mean, spreads + (w @ posterior[at, at] @ w.T).trace()
    squared = (left @ covariance @ left.T).trace() + spreads
    return 0.5 * (model.sizes[m] * math.log(2 * math.pi * model.noise ** 2) + squared / model.noise ** 2).item()


def cross(model: LinearGaussian) -> float:
    """-E log p(x_m | z_m, z_S), z_m told by x_m and z_S by another modality, summed over both, nats a row
    [eq-ask-oracle-cross]."""
    return sum(redrawn(model, m, {m: (m,), "S": (other,)}) for m, other in permutations(model.sizes, 2))


def all_from_one(model: LinearGaussian, spread: float = 1.0) -> float:
    """-E log p(x_m | z_m, z_S), z_S told by another modality and z_m drawn from its prior, summed over both, nats a row
    [eq-ask-oracle-one]. spread: of an auxiliary prior N(0, spread²) in its place, Palumbo et al. (2023)."""
    return sum(redrawn(model, m, {m: None, "S": (other,)}, spread) for m, other in permutations(model.sizes, 2))


def contrast(model: LinearGaussian) -> float:
    """-I(mean of z_S given x_m; mean of z_S given x_n), summed over the pairs of modalities, nats a row: the least that
    InfoNCE between the two can be, with the best critic and in a batch without end, but for the logarithm of its size. van
    den Oord et al. (2018); Zhang et al. (2026)."""
    total, at = 0.0, model.columns("S")
    for m, n in permutations(model.sizes, 2):
        W = [model.loadings[model.rows((k,))][:, at] for k in (m, n)]
        V = [torch.linalg.inv(model.covariance((k,), (k,))) for k in (m, n)]
        one, two = (w.T @ v @ w for w, v in zip(W, V))  # of each mean, and of both
        both = W[0].T @ V[0] @ model.covariance((m,), (n,)) @ V[1] @ W[1]
        shared = torch.linalg.pinv(one, rtol=1e-9) @ both @ torch.linalg.pinv(two, rtol=1e-9) @ both.T
        total = total + 0.25 * torch.logdet(torch.eye(len(shared)).to(shared) - shared)
    return float(total)


def retain(model: LinearGaussian) -> float:
    """-I(z_S; x_m) - I(z_m; x_m), summed over the modalities, nats a row: the least that InfoNCE can be between a code and
    what is read off x_m decoded from it with another row's other block, with the best critic. Zhang et al. (2026)."""
    return -sum(informs(model, b, (m,)) for m in model.sizes for b in ("S", m))


# ---- the loss and the gap together

def asked(truth: LinearGaussian, spare: int, weight: float, seed: int = 0,
          iterations: int = 300) -> tuple[LinearGaussian, float]:
    """The model of the least loss plus weight times gap, with `spare` latents more in S than the truth, and how much
    likelihood it has given up for that, summed over all subsets of the modalities: nats a row.

    Its posteriors are exact, with all correlations, so that the loss is minus the sum of the log-likelihoods of all subsets,
    and both are exact functions of the loadings: L-BFGS, from loadings that are drawn from N(0, 1). The gap is that of the
    truth's rows. Raises ValueError for a negative weight and for fewer than 0 spare latents.
    """
    if weight < 0 or spare < 0:
        raise ValueError(f"weight, spare: found {weight} and {spare}, expected 0 or a positive number of both")
    every, subsets = tuple(truth.sizes), all_subsets(tuple(truth.sizes))
    blocks = truth.blocks | {"S": truth.blocks["S"] + spare}

    def excess(model: LinearGaussian) -> Tensor:
        return sum(_divergence(truth.covariance(s, s), model.covariance(s, s)) for s in subsets)

    def loss(model: LinearGaussian) -> Tensor:
        return excess(model) + weight * gap_on(model, truth.covariance(every, every))

    model = descended(truth, blocks, loss, seed, max_iter=iterations, history_size=50, tolerance_grad=1e-10,
                      tolerance_change=1e-15)
    return model, excess(model).item()


def gap_on(model: LinearGaussian, covariance: Tensor) -> Tensor:
    """`gap` of a model's exact posteriors over rows of this covariance, which may be another's than its own: a scalar, nats
    a row, differentiable in the loadings."""
    every, at = tuple(model.sizes), model.columns("S")

    def told(subset: Subset) -> tuple[Tensor, Tensor]:
        """Covariance of z_S given x_subset, and its mean as a matrix on x less its offset."""
        posterior, gain = torch.linalg.inv(model.precision(subset)), torch.zeros(len(model.loadings), at.stop - at.start)
        gain = gain.to(covariance).index_copy(0, model.rows(subset), model.loadings[model.rows(subset)] @ posterior[:, at])
        return posterior[at, at], gain.T / model.noise ** 2

    (joint, mean), total = told(every), 0.0
    for m in every:
        single, own = told((m,))
        off = (mean - own) @ covariance @ (mean - own).T
        total = total + _divergence(joint + off, single) + 0.5 * (torch.logdet(joint + off) - torch.logdet(joint))
    return total


def _divergence(one: Tensor, other: Tensor) -> Tensor:
    """KL(N(0, one) || N(0, other)), nats."""
    ratio = torch.linalg.solve(other, one)
    return 0.5 * (ratio.trace() - len(one) + torch.logdet(other) - torch.logdet(one))


def charged(model: MultiModalVAE, x: Data, weight: float) -> Tensor:
    """Minus the sum of the ELBOs of a model of `oracle.linear`, whose posteriors are diagonal, over z exactly, plus weight
    times its own gap KL(q(z_S | x) || q(z_S | x_m)), summed over the modalities m: a scalar, nats a row."""
    every = tuple(model.modalities)
    loss = -sum(elbo.mean() for elbo in exact_elbos(model, x).values())
    q = model.posteriors(x, [(m,) for m in every] + [every])
    return loss + weight * sum(q[every]["S"].kl(q[m,]["S"]).mean() for m in every)
