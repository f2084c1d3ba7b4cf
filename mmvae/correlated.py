"""Gaussians with a full covariance, and a product of experts that have one: what a diagonal posterior cannot say.

Diagonal posteriors sort latents into private, shared and idle ones (chapter 10). `FullPoEVAE` is the same model without the
diagonal, so that the sorting should go: the WG-VAE v2 of Wu & Goodman (2018), prior inside. All is in plain operations on
tensors, which `torch.vmap` and a CUDA graph take; a Cholesky of LAPACK's waits for the GPU to say whether it failed.
"""
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .gaussian import Gaussian, bounded, draw
from .models import MultiModalVAE, Posterior
from .nets import Modality
from .observed import Data, Subset
from .together import decoders_of, read_together


def inverse_root(precision: Tensor) -> Tensor:
    """R, upper triangular, with R Rᵀ = the inverse of each matrix 1 + (positive semi-definite), (..., D, D), by elimination:
    L⁻ᵀ of the Cholesky factor L. Its pivots are at least 1, and are held to it; so that rounding makes them no smaller, every
    latent's precision is raised by 16 units of its last place."""
    D, done, last = precision.shape[-1], [], torch.finfo(precision.dtype).eps
    one = torch.eye(D, dtype=precision.dtype, device=precision.device)
    left = torch.cat([precision * (1 + 16 * last * one), one.expand_as(precision)], -1)  # (..., rows that are left, 2 D)
    for j in range(D):
        pivot = left[..., :1, j:j + 1].clamp(min=1).rsqrt()
        done.append(left[..., :1, :] * pivot)
        left = left[..., 1:, :] - left[..., 1:, j:j + 1] * pivot * done[-1]
    return torch.cat(done, -2)[..., D:].mT


@dataclass(frozen=True)
class FullGaussian(Gaussian):
    """A batch of Gaussians N(mu, scale scaleᵀ), made by `of`. scale: upper triangular with a positive diagonal, (B, D, D).
    mu, logvar: means and log-variances of the latents one by one, (B, D), for whatever looks at them so."""
    scale: Tensor

    @classmethod
    def of(cls, mu: Tensor, scale: Tensor) -> "FullGaussian":
        """From means (B, D) and a root of the covariances (B, D, D)."""
        return cls(mu, scale.square().sum(-1).log(), scale)

    def placed(self, noise: Tensor) -> Tensor:
        """mu + scale noise, of noise (B, D): (B, D)."""
        return self.mu + (self.scale @ noise.unsqueeze(-1)).squeeze(-1)

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """z ~ N(mu, scale scaleᵀ), (B, D), differentiable in both."""
        return self.placed(draw(self.mu, generator))

    def _size(self) -> Tensor:
        """Half the log-determinant of the covariance, (B,)."""
        return self.scale.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def log_prob(self, z: Tensor) -> Tensor:
        """log N(z; mu, scale scaleᵀ) of z (B, D), or (..., B, D): (B,) or (..., B), nats [eq-oracle-full]."""
        d = torch.linalg.solve_triangular(self.scale, (z - self.mu).unsqueeze(-1), upper=True).squeeze(-1)
        return -0.5 * (math.log(2 * math.pi) + d.square()).sum(-1) - self._size()

    def kl(self, other: Gaussian | None = None) -> Tensor:
        """KL(self || other), exactly: (B,), nats. Without `other`: to the prior N(0, 1) [eq-oracle-full]."""
        if other is None:
            return 0.5 * (self.mu.square() + self.logvar.exp() - 1).sum(-1) - self._size()
        if not isinstance(other, FullGaussian):
            other = FullGaussian.of(other.mu, torch.diag_embed((0.5 * other.logvar).exp()))
        apart = torch.cat([self.scale, (self.mu - other.mu).unsqueeze(-1)], -1)  # (B, D, D + 1)
        d = torch.linalg.solve_triangular(other.scale, apart, upper=True)
        return 0.5 * (d.square().sum((-2, -1)) - self.mu.shape[-1]) + other._size() - self._size()


class FullExpert(nn.Module):
    """What one modality says: {its private block: Gaussian, "S": (eta (B, D), precision (B, D, D))}, where the precision is
    L Lᵀ, and eta is it times a mean.

    blocks: {block: dimensions}. make(outputs) -> a network, x -> (B, outputs): means and log-variances as of any encoder,
    those of S for the diagonal of L, and what stands below that, in units of its row's.
    """

    def __init__(self, blocks: dict[str, int], make):
        super().__init__()
        self.blocks, D = dict(blocks), blocks["S"]
        self.dims = [sum(blocks.values()), sum(blocks.values()), D * (D - 1) // 2]
        self.net = make(sum(self.dims))

    def forward(self, x: Tensor) -> dict[str, Gaussian | tuple[Tensor, Tensor]]:
        mu, logvar, below = self.net(x).split(self.dims, 1)
        parts = zip(self.blocks, *(t.split(list(self.blocks.values()), 1) for t in (mu, bounded(logvar))))
        said = {block: Gaussian(m, v) for block, m, v in parts}
        mu, one, zero = said["S"].mu, torch.ones_like(said["S"].mu), torch.zeros_like(said["S"].mu)
        rows = bounded(below).split(list(range(mu.shape[1])), 1)  # of 0, 1, ... numbers
        unit = torch.stack([torch.cat([row, one[:, :1], zero[:, k + 1:]], 1) for k, row in enumerate(rows)], 1)
        L = (-0.5 * said["S"].logvar).exp().unsqueeze(-1) * unit  # (B, D, D)
        precision = L @ L.mT
        return said | {"S": ((precision @ mu.unsqueeze(-1)).squeeze(-1), precision)}


class FullPoEVAE(MultiModalVAE):
    """WG-VAE v2, prior inside, without the diagonal: products of experts with a full covariance [eq-oracle-information].

    q(z_S | x_A) has the precision 1 + the sum of Λ_m over m in A, and its inverse times the sum of η_m as its mean, where
    Λ_m = L_m L_mᵀ and η_m are what expert m says. A private block, if there is one, is as in `PoEVAE`; with diagonal L_m all
    is as in `PoEVAE(..., single_prior=True)`. Arguments as of `PoEVAE`.
    """

    def __init__(self, modalities: dict[str, Modality], shared: int = 10, subsets: Sequence[Sequence[str]] | None = None):
        super().__init__(modalities, shared, subsets=subsets)
        self.encoders = nn.ModuleDict()
        for m, of in self.modalities.items():
            blocks = {b: dim for b, dim in self.blocks.items() if b in (m, "S")}
            self.encoders[m] = FullExpert(blocks, lambda outputs, of=of: read_together([of], outputs))
        self.decoders = decoders_of(self)

    def posteriors(self, x: Data, subsets: Sequence[Subset]) -> dict[Subset, Posterior]:
        experts = {m: self.encoders[m](x[m]) for m in self.modalities if any(m in s for s in subsets)}
        return {s: self.fuse({m: experts[m] for m in s}) for s in subsets}

    def fuse(self, experts: dict[str, dict]) -> Posterior:
        """The posterior of the observed modalities from what their experts say, {modality: {block: what}}."""
        eta, precision = (sum(part) for part in zip(*(said["S"] for said in experts.values())))
        scale = inverse_root(precision + torch.eye(eta.shape[1], dtype=eta.dtype, device=eta.device))
        shared = FullGaussian.of((scale @ (scale.mT @ eta.unsqueeze(-1))).squeeze(-1), scale)
        q = {m: said[m] for m, said in experts.items()} | {"S": shared}
        return {block: q[block] for block in self.blocks if block in q}

    fuse.sign = "×"
