"""Diagonal Gaussians: sample, log-density, KL divergence, product of experts.

Every posterior in the book is one of these. Variances are kept as log-variances, and every formula is written
so that it survives log-variances in [-30, 30].
"""
import math
from dataclasses import dataclass

import torch
from torch import Tensor

noise = torch.randn_like  # eps ~ N(0, 1), shaped as its argument; distributed.py deals one draw out to its processes


@dataclass(frozen=True)
class Gaussian:
    """A batch of diagonal Gaussians N(mu, exp(logvar)).

    mu, logvar: float tensors of one shape, (B, D). Raises ValueError if the two shapes differ.
    """
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

    def sample(self) -> Tensor:
        """z = mu + sigma * eps with eps ~ N(0, 1): the reparameterisation of Kingma & Welling (2014),
        sec. 2.4 [eq-vae-reparameterisation].

        Returns (B, D), differentiable in mu and logvar.
        """
        return self.mu + (0.5 * self.logvar).exp() * noise(self.mu)

    def log_prob(self, z: Tensor) -> Tensor:
        """log N(z; mu, exp(logvar)), summed over the D latents: (B,), nats."""
        d = (z - self.mu) * (-0.5 * self.logvar).exp()  # scaled first, so that its square does not overflow
        return -0.5 * (math.log(2 * math.pi) + self.logvar + d.square()).sum(-1)

    def kl(self, other: "Gaussian | None" = None) -> Tensor:
        """KL(self || other), summed over the D latents: (B,), nats. Without `other`: to the prior N(0, 1).

        Kingma & Welling (2014), appendix B, for the prior [eq-vae-kl].
        """
        if other is None:
            return 0.5 * (self.mu.square() + self.logvar.exp() - self.logvar - 1).sum(-1)
        d = (self.mu - other.mu) * (-0.5 * other.logvar).exp()
        ratio = self.logvar - other.logvar  # log of the ratio of variances
        return 0.5 * (d.square() + ratio.exp() - ratio - 1).sum(-1)


def prior(batch: int, dim: int, like: Tensor | None = None) -> Gaussian:
    """The prior N(0, 1) of a block: mu and logvar are zeros (batch, dim), on the device of `like`."""
    zeros = torch.zeros(batch, dim) if like is None else like.new_zeros(batch, dim)
    return Gaussian(zeros, zeros)


def product_of_experts(experts: list[Gaussian], prior: bool = True) -> Gaussian:
    """The normalised product of Gaussian experts, times p(z) = N(0, 1) if `prior`.

    Precisions add, and the mean is their weighted average: Hinton (2002); Wu & Goodman (2018),
    sec. 2 [eq-poe-gaussian].
    The weights are a softmax over the experts' -logvar, so nothing overflows however sharp one of them is.
    experts: a non-empty list, all (B, D). Returns (B, D). Raises ValueError for an empty list, or unequal shapes.
    """
    if not experts:
        raise ValueError("product_of_experts: got no expert, expected at least one Gaussian")
    shapes = {tuple(e.mu.shape) for e in experts}
    if len(shapes) > 1:
        raise ValueError(f"product_of_experts: experts of shapes {sorted(shapes)}, expected one shape")
    mu = torch.stack([e.mu for e in experts])  # (E, B, D)
    logprec = -torch.stack([e.logvar for e in experts])  # (E, B, D)
    if prior:  # one more expert, with mean 0 and precision 1
        mu, logprec = (torch.cat([t, torch.zeros_like(t[:1])]) for t in (mu, logprec))
    return Gaussian((logprec.softmax(0) * mu).sum(0), -logprec.logsumexp(0))
