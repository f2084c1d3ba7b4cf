"""Diagonal Gaussians and mixtures of them: sample, log-density, KL divergence; and how several are fused into one.

Every posterior in the book is one of these. Variances are kept as log-variances, and every formula is written so that it
survives log-variances in [-35, 35], which is what `bounded` leaves of any number.
"""
import math
from dataclasses import dataclass
from itertools import combinations

import torch
import torch.nn.functional as F
from torch import Tensor

noise = torch.randn_like  # eps ~ N(0, 1), shaped as its argument; distributed.py deals one draw out to its processes
BOUND = 15.0  # within it a log-variance is taken as it is: trained models stay within 12


def bounded(logvar: Tensor) -> Tensor:
    """The identity within +-15, logarithmic beyond: finite for any finite input, and never without a slope."""
    beyond = F.softshrink(logvar, BOUND)  # 0 within
    return logvar - beyond + beyond.asinh()


def draw(like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """eps ~ N(0, 1) of the shape, dtype and device of `like`: from PyTorch's own generator, or from this one."""
    if generator is None:
        return noise(like)
    return torch.randn(like.shape, generator=generator, device=generator.device).to(like)


@dataclass(frozen=True)
class Gaussian:
    """A batch of diagonal Gaussians N(mu, exp(logvar)): float tensors of one shape, (B, D), or ValueError."""
    mu: Tensor
    logvar: Tensor

    def __post_init__(self):
        if self.mu.shape != self.logvar.shape:
            raise ValueError(f"Gaussian: mu has shape {tuple(self.mu.shape)} and logvar "
                             f"{tuple(self.logvar.shape)}, expected one shape for both")

    @property
    def precision(self) -> Tensor:
        """1 / variance, (B, D)."""
        return (-self.logvar).exp()

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """z = mu + sigma * eps with eps ~ N(0, 1), (B, D), differentiable in mu and logvar: Kingma & Welling (2014), sec. 2.4
        [eq-vae-reparameterisation]. generator: of eps, on any device; default: PyTorch's own."""
        return self.mu + (0.5 * self.logvar).exp() * draw(self.mu, generator)

    def log_prob(self, z: Tensor) -> Tensor:
        """log N(z; mu, exp(logvar)), summed over the D latents: (B,), nats."""
        d = (z - self.mu) * (-0.5 * self.logvar).exp()  # scaled first, so that its square does not overflow
        return -0.5 * (math.log(2 * math.pi) + self.logvar + d.square()).sum(-1)

    def kl(self, other: "Gaussian | None" = None) -> Tensor:
        """KL(self || other), summed over the D latents: (B,), nats. Without `other`: to the prior N(0, 1), Kingma & Welling
        (2014), appendix B [eq-vae-kl]."""
        if other is None:
            return 0.5 * (self.mu.square() + self.logvar.exp() - self.logvar - 1).sum(-1)
        d = (self.mu - other.mu) * (-0.5 * other.logvar).exp()
        ratio = self.logvar - other.logvar  # log of the ratio of variances
        return 0.5 * (d.square() + ratio.exp() - ratio - 1).sum(-1)


@dataclass(frozen=True)
class Mixture:
    """A batch of mixtures of E diagonal Gaussians (B, D). weights: (B, E), not negative, each row's sum 1; a part of weight 0
    is not there. Raises ValueError for no part, or for shapes that do not fit."""
    parts: tuple[Gaussian, ...]
    weights: Tensor

    def __post_init__(self):
        shapes = _one_shape("Mixture", self.parts)
        if tuple(self.weights.shape) != (shapes[0], len(self.parts)):
            raise ValueError(f"Mixture: weights have shape {tuple(self.weights.shape)}, expected "
                             f"{(shapes[0], len(self.parts))}: a column for each part")

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw of each row, (B, D); differentiable in the part that it is from, not in the weights."""
        u = torch.special.ndtr(draw(self.weights[:, :1], generator)).clamp(max=1 - 1e-6)  # uniform, from all noise's source
        part = (u > self.weights.cumsum(1)[:, :-1]).sum(1)  # (B,)
        rows = torch.arange(part.shape[0], device=part.device)
        return torch.stack([g.sample(generator) for g in self.parts])[part, rows]

    def stratified(self, generator: torch.Generator | None = None) -> Tensor:
        """One draw from every part, (E, B, D): with `weights` its mean of any function has no noise of the choice of a
        part. Shi et al. (2019), sec. 3."""
        return torch.stack([g.sample(generator) for g in self.parts])

    def log_prob(self, z: Tensor) -> Tensor:
        """log of the weighted sum of the parts' densities at z (B, D), or (..., B, D): (B,) or (..., B), nats."""
        each = torch.stack([g.log_prob(z) for g in self.parts], -1)  # (..., B, E)
        there = self.weights > 0
        return torch.where(there, each + torch.where(there, self.weights, 1.0).log(), -math.inf).logsumexp(-1)

    def kl(self, other: "Gaussian | None" = None) -> Tensor:
        """An estimate of KL(self || other), default to the prior, by one draw from every part: (B,), nats, unbiased and
        so sometimes negative. A mixture's has no closed form."""
        z = self.stratified()  # (E, B, D)
        other = prior(*z.shape[1:], like=z) if other is None else other
        return torch.where(self.weights.T > 0, self.weights.T * (self.log_prob(z) - other.log_prob(z)), 0.0).sum(0)

    def moments(self) -> Gaussian:
        """The diagonal Gaussian of the same means and variances, (B, D)."""
        w = self.weights.T.unsqueeze(-1)  # (E, B, 1)
        mu = torch.stack([g.mu for g in self.parts])
        mean = (w * mu).sum(0)
        variance = (w * (torch.stack([g.logvar for g in self.parts]).exp() + (mu - mean).square())).sum(0)
        return Gaussian(mean, variance.log())

    mu = property(lambda self: self.moments().mu, doc="The means, (B, D).")
    logvar = property(lambda self: self.moments().logvar, doc="The logarithms of the variances, (B, D).")
    precision = property(lambda self: self.moments().precision, doc="1 / variance, (B, D).")


def prior(batch: int, dim: int, like: Tensor | None = None) -> Gaussian:
    """The prior N(0, 1) of a block: mu and logvar are zeros (batch, dim), on the device of `like`."""
    zeros = torch.zeros(batch, dim) if like is None else like.new_zeros(batch, dim)
    return Gaussian(zeros, zeros)


# ---- fusing. masks: of each expert, bool (B,): the rows in which its modality was observed; None: all of them

def product_of_experts(experts: list[Gaussian], prior: bool = True, masks: list[Tensor | None] = ()) -> Gaussian:
    """The normalised product of Gaussian experts, times p(z) = N(0, 1) if `prior`.

    Precisions add, and the mean is their weighted average: Hinton (2002); Wu & Goodman (2018),
    sec. 2 [eq-poe-gaussian].
    The weights are a softmax over the experts' -logvar, so nothing overflows however sharp one of them is.
    experts: a non-empty list, all (B, D). Returns (B, D). A row that no expert speaks of has the prior, or, without it,
    NaN. Raises ValueError for an empty list, or unequal shapes.
    """
    _one_shape("product_of_experts", experts)
    mu = torch.stack([e.mu for e in experts])  # (E, B, D)
    logprec = -torch.stack([e.logvar for e in experts])  # (E, B, D)
    if any(mask is not None for mask in masks):
        logprec = logprec.masked_fill(~_table(experts, masks).T.unsqueeze(-1), -math.inf)
    if prior:  # one more expert, with mean 0 and precision 1
        mu, logprec = (torch.cat([t, torch.zeros_like(t[:1])]) for t in (mu, logprec))
    return Gaussian((logprec.softmax(0) * mu).sum(0), -logprec.logsumexp(0))


def mixture_of_experts(experts: list[Gaussian], masks: list[Tensor | None] = ()) -> Mixture:
    """The experts that speak of a row, with equal weights: Shi et al. (2019), sec. 3.

    experts: a non-empty list, all (B, D). Raises ValueError for an empty list, or unequal shapes.
    """
    _one_shape("mixture_of_experts", experts)
    speaks = _table(experts, masks).to(experts[0].mu)  # (B, E)
    return Mixture(tuple(experts), speaks / speaks.sum(1, keepdim=True).clamp(min=1))


def mixture_of_products(experts: list[Gaussian], prior: bool = True, masks: list[Tensor | None] = ()) -> Mixture:
    """With equal weights, the product of each non-empty set of the experts that speak of a row: Sutter et al. (2021),
    sec. 3. Arguments, and what is raised, as of `product_of_experts`.
    """
    _one_shape("mixture_of_products", experts)
    speaks, parts, there = _table(experts, masks), [], []
    for size in range(1, len(experts) + 1):
        for some in combinations(range(len(experts)), size):
            parts.append(product_of_experts([experts[k] for k in some], prior))
            there.append(speaks[:, list(some)].all(1))
    weights = torch.stack(there, 1).to(experts[0].mu)  # (B, 2^E - 1)
    return Mixture(tuple(parts), weights / weights.sum(1, keepdim=True).clamp(min=1))


def _table(experts: list[Gaussian], masks: list[Tensor | None]) -> Tensor:
    """Which expert speaks of which row: bool (B, E)."""
    if len(masks) not in (0, len(experts)):
        raise ValueError(f"masks: found {len(masks)}, expected one for each of {len(experts)} experts")
    every = experts[0].mu.new_ones(experts[0].mu.shape[0], dtype=torch.bool)
    return torch.stack([every if mask is None else mask for mask in masks or [None] * len(experts)], 1)


def _one_shape(where: str, experts) -> tuple[int, ...]:
    if not experts:
        raise ValueError(f"{where}: got no expert, expected at least one Gaussian")
    shapes = [tuple(e.mu.shape) for e in experts]  # no set: a free batch has no hash in an export
    if any(shape != shapes[0] for shape in shapes):
        raise ValueError(f"{where}: experts of shapes {sorted(set(shapes))}, expected one shape")
    return shapes[0]
