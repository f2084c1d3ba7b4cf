"""The frontier: models of 2024 to 2026, on the same networks, latents and data as all others.

The first four are `PoEVAE`s whose experts, one a modality, are fused by another rule; the last is MMVAE+ with two further
terms. What is missing is as in `mmvae.later`: a row with the observed set O adds what the model has for O. "elbo" is a bound
of log p(x), and "loss" what is minimised where that is something else.
"""
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from . import observed
from .gaussian import Gaussian, Mixture, mixture_of_experts, prior
from .later import MMVAEPlus
from .models import PoEVAE, Posterior
from .nets import Modality
from .observed import Data, Subset, all_subsets
from .pooling import check_correlation, consensus_of_experts, hoelder_pool, moment_match

Weight = float | dict[str, float]
Terms = dict[str, Tensor]


class MMVMVAE(PoEVAE):
    """Each modality has a latent of its own, and a prior h that depends on the data, the mean of all experts: Sutter et al.
    (2024). What is minimised is minus the sum over m of E_q_m[log p(x_m | z_m)] - KL(q_m || h) [eq-frontier-mmvm].

    The latents are of one size and stand for each other: what one modality says is decoded as any other, and the posterior of
    a subset is h. h is of the modalities that were observed; without `prior`, one that is alone has nothing to stay near.
    bound: in place of KL(q_m || h) the mean of KL(q_m || q_k) over the components k of h, which is not below it, as the
    authors' code minimises [eq-frontier-convex]. KL(q_m || h) is never above the log of their number, 1.1 nats for two
    modalities and the prior, however far apart the experts are; the bound has no ceiling, and draws them together. False:
    KL(q_m || h), by one draw. prior: put N(0, 1) among the components, as their code can; without it there is nothing to draw
    from, and `sample` refuses. "elbo" is the sum of the single ELBOs under N(0, 1), a bound of sum_m log p(x_m); "apart.m" is
    what stands for KL(q_m || h).
    """
    singly = True

    def __init__(self, modalities: dict[str, Modality], shared: int = 10, prior: bool = False, bound: bool = True):
        super().__init__(modalities, shared, [tuple(modalities)])
        self.prior, self.bound = prior, bound

    def fuse(self, experts: dict[str, Posterior]) -> Posterior:
        return _fused(self, experts, mixture_of_experts)

    fuse.sign = "+"

    def share(self, x: Data, posteriors: dict[Subset, Posterior], subset: Subset, weight: Weight = 1.0) -> Terms:
        """The terms of each single ELBO, "apart.m", and their "loss"."""
        each = [self.elbo(x, posteriors[m,], (m,), weight) for m in subset]
        terms = {k: sum(own[k] for own in each if k in own) for k in {k: None for own in each for k in own}}
        experts = [posteriors[m,]["S"] for m in subset]
        components = experts + [prior(*g.mu.shape, g.mu) for g in experts[:1] if self.prior]
        apart = [_apart(g, components, self.bound) for g in experts]
        loss = sum(apart) - terms["kl.S"] - terms["elbo"]
        return {**terms, **{f"apart.{m}": value for m, value in zip(subset, apart)}, "loss": loss}

    def sample(self, n: int = 16, want: Sequence[str] | None = None, generator: torch.Generator | None = None) -> Data:
        if not self.prior:
            raise ValueError("sample: found MMVMVAE with prior=False, whose prior is made of data, expected prior=True")
        return super().sample(n, want, generator)


class CoDEVAE(PoEVAE):
    """Experts who err together, and the ELBOs of all subsets with learnt weights: Mancisidor et al. (2025).

    q_A(z_S) is the consensus of the experts of A. With O observed, the loss is minus sum_A pi_A ELBO_A - H(pi) over the
    subsets A of O, where ELBO_A reconstructs *every* modality of O, from z_S of A and its own private code, as the authors'
    code does, and pi are the weights of these subsets, with the sum 1 [eq-frontier-code]. H, "entropy", keeps pi from a
    single subset; with it the sum can stand above log p(x), by at most the log of the number of subsets, and so "elbo" is
    without it. correlation: rho of the experts' errors in [0, 1), their 0.5; None: learnt, one a latent, below 0.99, from
    0.495. weights: a positive number for each non-empty subset, small ones first; None: learnt, from equal ones.
    """
    singly = True

    def __init__(self, modalities: dict[str, Modality], shared: int = 5, correlation: float | None = 0.5,
                 weights: Sequence[float] | None = None):
        super().__init__(modalities, shared, [tuple(modalities)])
        self.correlation = check_correlation(correlation)
        self.correlations = nn.Parameter(torch.zeros(shared)) if correlation is None else None
        every = all_subsets(tuple(modalities))
        self.learnt = nn.Parameter(torch.zeros(len(every))) if weights is None else None
        self.register_buffer("given", None if weights is None else _logs(weights, every), persistent=False)

    def fuse(self, experts: dict[str, Posterior]) -> Posterior:
        rho = self.correlation if self.correlations is None else 0.99 * self.correlations.sigmoid()
        return _fused(self, experts, lambda shared: consensus_of_experts(shared, rho))

    def log_weights(self, subsets: Sequence[Subset]) -> Tensor:
        """log pi of these subsets, where no other competes: (subsets,)."""
        logs = dict(zip(all_subsets(tuple(self.modalities)), (self.learnt if self.given is None else self.given).unbind()))
        return torch.stack([logs[s] for s in subsets]).log_softmax(0)

    def share(self, x: Data, posteriors: dict[Subset, Posterior], subset: Subset, weight: Weight = 1.0) -> Terms:
        """The terms of the ELBOs, weighted by pi; "entropy"; and the "loss" that has both."""
        parts, q = all_subsets(subset), posteriors[subset]
        shared = [self.fuse({m: posteriors[m,] for m in part})["S"] for part in parts]
        logs = self.log_weights(parts)
        terms = _mean([self.elbo(x, {**q, "S": g}, subset, weight) for g in shared], logs.exp())
        entropy = -(logs.exp() * logs).sum()
        return {**terms, "entropy": entropy.expand_as(terms["elbo"]), "loss": -terms["elbo"] - entropy}


class HELVAE(PoEVAE):
    """The diagonal Gaussian with the means and variances of the Hölder pool of the experts, proportional to (sum_m w_m
    sqrt(q_m))^2, and one ELBO, of all modalities: Vo & Valera (2026) [eq-frontier-pool, eq-frontier-moments].

    Of their paper the abstract and the introduction were at hand: pooling of order 1/2, moment matching, no ELBOs of subsets.
    The moments here are those of the exact pool over all latents of the block together; the version is ours where theirs
    differs. weights: {modality: w_m}, positive; None: equal.
    """

    def __init__(self, modalities: dict[str, Modality], shared: int = 10, weights: dict[str, float] | None = None,
                 subsets: Sequence[Sequence[str]] | None = None):
        super().__init__(modalities, shared, [tuple(modalities)] if subsets is None else subsets)
        self.register_buffer("weights", _of_modalities(weights, modalities), persistent=False)

    def fuse(self, experts: dict[str, Posterior]) -> Posterior:
        return _fused(self, experts, lambda shared: moment_match(self.pool(shared, tuple(experts))))

    def pool(self, shared: list[Gaussian], subset: Subset) -> Mixture:
        """The Hölder pool of the experts of this subset."""
        w = dict(zip(self.modalities, self.weights.unbind()))
        return hoelder_pool(shared, torch.stack([w[m] for m in subset]))


class HoelderVAE(HELVAE):
    """The Hölder pool exactly, a mixture over the pairs of experts [eq-frontier-pool], sampled stratified: one draw from
    every part, so that its weights have a gradient, too [eq-frontier-strata]. ELBOs of all modalities and of each alone.

    After Hölder++ (Vo et al. 2026), of which the abstract was at hand: exact pooling, shared and private latents. Their
    hierarchy of latents is left out, and the loss is ours. weights: as of `HELVAE`.
    """

    def __init__(self, modalities: dict[str, Modality], shared: int = 5, weights: dict[str, float] | None = None):
        names = tuple(modalities)
        super().__init__(modalities, shared, weights, [*[(m,) for m in names], names])

    def fuse(self, experts: dict[str, Posterior]) -> Posterior:
        return _fused(self, experts, lambda shared: self.pool(shared, tuple(experts)))

    def share(self, x: Data, posteriors: dict[Subset, Posterior], subset: Subset, weight: Weight = 1.0) -> Terms:
        """The terms of the ELBO, each by one draw from every part of the mixture."""
        q = posteriors[subset]
        if isinstance(q["S"], Gaussian):
            return self.elbo(x, q, subset, weight)
        terms = _mean([self.elbo(x, {**q, "S": part}, subset, weight) for part in q["S"].parts], q["S"].weights.T)
        apart = q["S"].kl()
        return {**terms, "kl.S": apart, "elbo": terms["elbo"] + terms["kl.S"] - apart}


class IDMVAE(MMVAEPlus):
    """MMVAE+ that is asked, by two terms of `mmvae.terms`, whether z_S of one modality is that of the other (*contrast*), and
    whether what is decoded from exchanged blocks gives them back (*retain*): Zhang et al. (2026) [eq-frontier-idmvae].

    Of their paper the abstract and the introduction were at hand. Their diffusion priors are left out for Gaussian ones, and
    so is a learnt critic: cosines are compared. contrast, retain: the weights, ours. 0 leaves a term out, as retain has to be
    where a modality is classes, whose probabilities cannot be encoded again. beta: of the KLs, as of MMVAE+.
    """

    def __init__(self, modalities: dict[str, Modality], shared: int = 5, beta: float = 1.0, contrast: float = 10.0,
                 retain: float = 10.0):
        super().__init__(modalities, shared, beta)
        added = {"contrast": observed.number("contrast", contrast, 0), "retain": observed.number("retain", retain, 0)}
        self.added = {k: weight for k, weight in added.items() if weight and len(modalities) > 1}

    def terms(self, x: Data, weight: Weight = 1.0, present: Data | None = None, subsets: Sequence[Subset] = (),
              cross: float | None = None, check: bool = True, extra: dict[str, float] | None = None) -> Terms:
        """Those of every model; where the loss is asked for, and not the ELBOs of `subsets`, with the two terms."""
        extra = extra if subsets else {**self.added, **(extra or {})}
        return super().terms(x, weight, present, subsets, cross, check, extra)


def _fused(model: PoEVAE, experts: dict[str, Posterior], fuse: Callable[[list[Gaussian]], Gaussian | Mixture]) -> Posterior:
    """The private block of each encoder, and the shared one of one expert as it is, or of several by `fuse`."""
    shared = [q["S"] for q in experts.values()]
    q = {**{m: of[m] for m, of in experts.items()}, "S": shared[0] if len(shared) == 1 else fuse(shared)}
    return {block: q[block] for block in model.blocks if block in q}


def _apart(expert: Gaussian, components: list[Gaussian], bound: bool) -> Tensor:
    """KL(expert || the components' mean) by one draw, or the mean of KL(expert || component): (B,), nats."""
    if bound:
        return sum(expert.kl(g) for g in components) / len(components)
    z = expert.sample()
    return expert.log_prob(z) - mixture_of_experts(components).log_prob(z)


def _mean(each: list[Terms], weights: Tensor) -> Terms:
    """The weighted sum of each term. weights: (E,), or (E, B)."""
    return {k: sum(w * terms[k] for w, terms in zip(weights.unbind(), each)) for k in each[0]}


def _logs(weights: Sequence[float], subsets: Sequence[Subset]) -> Tensor:
    if len(weights) != len(subsets) or not all(0 < w < math.inf for w in weights):
        raise ValueError(f"weights: found {list(weights)}, expected {len(subsets)} positive numbers, for {subsets}")
    return torch.tensor([float(w) for w in weights]).log()


def _of_modalities(weights: dict[str, float] | None, modalities: dict[str, Modality]) -> Tensor:
    weights = dict.fromkeys(modalities, 1.0) if weights is None else weights
    if set(weights) != set(modalities) or not all(0 < w < math.inf for w in weights.values()):
        raise ValueError(f"weights: found {weights}, expected a positive number for each of {tuple(modalities)}")
    return torch.tensor([float(weights[m]) for m in modalities])
