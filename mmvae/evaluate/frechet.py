"""How far what is generated is from what is real, as a whole: the distance of two clouds of features."""
import torch
from torch import Tensor


@torch.no_grad()
def frechet(a: Tensor, b: Tensor) -> float:
    """Fréchet distance of the Gaussians fitted to two sets of features, (N, D) and (M, D): a squared distance, in squares of
    a feature's unit; 0 for one and the same Gaussian.

    |mu_a - mu_b|^2 + tr(A + B - 2 (A B)^(1/2)), A and B the covariances (unbiased): Dowson & Landau (1982); of the
    features of a network it is the FID of Heusel et al. (2017). The trace of the root is that of the symmetric
    A^(1/2) B A^(1/2), which has the eigenvalues of A B; those that rounding makes negative, where N or M is below D, count as
    0. In double precision. It is biased upwards, the more so the fewer the rows: compare distances of as many rows.
    Raises ValueError for what is no matrix, fewer than 2 rows, another D, and features that are not finite.
    """
    a, b = _checked("a", a), _checked("b", b)
    if a.shape[1] != b.shape[1]:
        raise ValueError(f"b: found {b.shape[1]} features, expected {a.shape[1]}, as of a")
    A, B = (centred.T @ centred / (len(centred) - 1) for centred in (a - a.mean(0), b - b.mean(0)))
    values, vectors = torch.linalg.eigh(A)
    root = vectors * values.clamp(min=0).sqrt() @ vectors.T  # A^(1/2)
    product = root @ B @ root
    both = torch.linalg.eigvalsh((product + product.T) / 2).clamp(min=0).sqrt().sum()
    return max(0.0, ((a.mean(0) - b.mean(0)).square().sum() + A.trace() + B.trace() - 2 * both).item())


def _checked(name: str, features: Tensor) -> Tensor:
    """These features as double precision, or ValueError."""
    if features.dim() != 2 or len(features) < 2 or not features.shape[1]:
        raise ValueError(f"{name}: found shape {tuple(features.shape)}, expected (N, D), at least 2 rows of features")
    features = features.double()
    if not features.isfinite().all():
        raise ValueError(f"{name}: found NaN or infinite features, expected finite ones")
    return features
