"""Which blocks a likelihood identifies: the likeliest linear-Gaussian models of an exact `oracle`, from random starts, and
what their blocks hold of the truth's.

At the truth's own sizes, with the columns of each modality's loadings linearly independent, every one of them is the truth,
turned within its blocks [eq-why-turned]. With a shared latent to spare a private one may move there [eq-why-spare].
"""
from collections.abc import Callable

import torch
from torch import Tensor

from .oracle import LinearGaussian


def likeliest(truth: LinearGaussian, shared: int | None = None, seed: int = 0,
              iterations: int = 150) -> tuple[LinearGaussian, float]:
    """A model of the truth's blocks, but for `shared` latents in S (default: as many), whose likelihood of all modalities is
    greatest, by L-BFGS on the closed form from loadings that are drawn from N(0, 1); and its excess: how much more it loses
    than the truth, KL(truth || model), nats a row. The noise is the truth's. Raises ValueError for fewer than one shared
    latent."""
    shared = truth.blocks["S"] if shared is None else shared
    if shared < 1:
        raise ValueError(f"shared: found {shared}, expected at least 1 latent")
    every, blocks = tuple(truth.sizes), truth.blocks | {"S": shared}
    covariance = truth.covariance(every, every)
    least = torch.logdet(covariance) + len(covariance)

    def excess(model: LinearGaussian) -> Tensor:
        root = torch.linalg.cholesky(model.covariance(every, every))
        return 0.5 * (2 * root.diagonal().log().sum() + torch.cholesky_solve(covariance, root).trace() - least)

    model = descended(truth, blocks, excess, seed, max_iter=iterations, history_size=30, tolerance_grad=1e-8,
                      tolerance_change=1e-13)
    return model, excess(model).item()


def descended(truth: LinearGaussian, blocks: dict[str, int], loss: Callable[[LinearGaussian], Tensor], seed: int,
              **options) -> LinearGaussian:
    """The model of these blocks, of the truth's rows and noise, where L-BFGS ends on this loss, from loadings that are drawn
    from N(0, 1); a modality sees its own block and S. options: of `torch.optim.LBFGS`."""
    start = torch.randn(len(truth.loadings), sum(blocks.values()), generator=torch.Generator().manual_seed(seed),
                        dtype=torch.float64)
    weights, sees = start.requires_grad_(), torch.zeros_like(start)
    model = LinearGaussian(sees, truth.offset, truth.noise, blocks, truth.sizes)
    for m in truth.sizes:
        for block in (m, "S"):
            sees[model.rows((m,)), model.columns(block)] = 1
    optimiser = torch.optim.LBFGS([weights], line_search_fn="strong_wolfe", **options)

    def closure() -> Tensor:
        optimiser.zero_grad()
        model.loadings = weights * sees
        value = loss(model)
        value.backward()
        return value

    optimiser.step(closure)
    model.loadings = (weights * sees).detach()
    return model


def turn(truth: LinearGaussian, model: LinearGaussian) -> Tensor:
    """The matrix Q (D, E) with z = Q z', where z are the D latents of the truth and z' the E of a model that gives the same
    likelihood: its loadings are W Q, and Q Qᵀ = 1. The square of an entry is the R^2 with which a latent of the model tells
    one of the truth. The columns of the truth's loadings have to be linearly independent."""
    return torch.linalg.pinv(truth.loadings) @ model.loadings


def leakage(truth: LinearGaussian, model: LinearGaussian) -> dict[str, float]:
    """{"I in S": R^2, ...}, for each block of the truth and each other block of the model: how well that one tells the best
    told direction of this one, from 0 to 1. All are 0 where each block of the model is the truth's, turned."""
    Q, found = turn(truth, model), {}
    for own in truth.blocks:
        for other in (b for b in model.blocks if b != own):
            part = Q[truth.columns(own), model.columns(other)]
            found[f"{own} in {other}"] = torch.linalg.svdvals(part).square().max().item() if part.numel() else 0.0
    return found
