"""What came after 2018: six models on the same networks, latents and data as the book's own.

Each says how it forms the posterior of a subset, by `fuse` or `posteriors`, and what a subset adds to the loss, by `share`.
What is logged as "elbo" is a bound of log p(x) in all of them; where the paper minimises something else than minus that
bound, "loss" is it. All take any number of modalities of any kind. A row with the observed set O adds what the model has
for O, so that what is missing adds no loss and no gradient. `posterior`, `predict` and what `mmvae.evaluate` finds go by
the model's posterior, in which the private block of a modality that was not observed has its prior. Ours, in all of them:
priors and posteriors are Gaussian, a bound is by one draw from each posterior, without importance weights, and no weight is
warmed up.
"""
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from . import observed
from .gaussian import Gaussian, Mixture, bounded, mixture_of_experts, mixture_of_products, prior, product_of_experts
from .models import MultiModalVAE, PoEVAE, Posterior, _weighed
from .nets import Modality
from .observed import Data, Subset, joined
from .together import decoders_of, encoder_of

Weight = float | dict[str, float]
Terms = dict[str, Tensor]


class MMVAE(PoEVAE):
    """The shared posterior is the mixture of the experts, in equal parts: Shi et al. (2019), sec. 3 [eq-later-mixture].

    The loss is minus their stratified ELBO, with one draw from every expert, by which every modality is reconstructed
    [eq-later-mmvae]: their objective with K = 1. Their bound by more draws (IWAE), its DReG gradient and their Laplace
    densities are left out. Private blocks are ours: an expert takes its own modality's from its encoder, the others' from
    the prior.
    """

    def __init__(self, modalities: dict[str, Modality], shared: int = 10):
        super().__init__(modalities, shared, [tuple(modalities)])

    def fuse(self, experts: dict[str, Posterior]) -> Posterior:
        return _in_order(self, experts, mixture_of_experts([q["S"] for q in experts.values()]))

    fuse.sign = "+"

    def foreign(self, batch: int) -> dict[str, Gaussian]:
        """Where a component takes the private block of another modality from, (batch, dimensions) each."""
        return {m: prior(batch, of.private, self.like) for m, of in self.modalities.items()}

    def share(self, x: Data, posteriors: dict[Subset, Posterior], subset: Subset, weight: Weight = 1.0) -> Terms:
        """Minus the ELBO in which each component reconstructs the whole subset: "reconstruction.m", "kl.b", "elbo"."""
        q, count = posteriors[subset], len(subset)
        batch, dim = x[subset[0]].shape[0], self.blocks["S"]
        other, normal = self.foreign(batch), prior(batch, dim, self.like)
        terms = {f"reconstruction.{m}": 0.0 for m in subset} | {"kl.S": 0.0}
        for m, z in zip(subset, q["S"].stratified()):
            private = {n: (q if n == m else other)[n].sample() for n in subset}
            for n, output in self.decode({**private, "S": z}, subset).items():
                terms[f"reconstruction.{n}"] -= observed.log_prob(self, n, output, x[n]) / count
            terms["kl.S"] += (q["S"].log_prob(z) - normal.log_prob(z)) / count
        terms |= {f"kl.{m}": (q[m].kl() + (count - 1) * other[m].kl()) / count for m in subset}
        return {**terms, "elbo": -_cost(terms, weight)}


class MMVAEPlus(MMVAE):
    """MMVAE with private blocks, of which an expert takes its own modality's from its encoder and the others' from a learnt
    auxiliary prior r_m = N(0, s^2): Palumbo et al. (2023), the objective of MMVAE+ with K = 1 [eq-later-mmvaeplus].

    As theirs, the loss does not have KL(r_m || p(z_m)), so that it is minus a bound of log p(x) only where r_m is the prior;
    "elbo" has it, and is a bound for any r_m. beta: of the KLs, as in their code. Left out, as of MMVAE: K > 1, DReG, Laplace
    densities. As in their code, what was not observed is predicted with z_m from the prior and not from r_m.
    """

    def __init__(self, modalities: dict[str, Modality], shared: int = 5, beta: float = 1.0):
        super().__init__(modalities, shared)
        self.beta = observed.number("beta", beta, 0)
        self.auxiliary = nn.Parameter(torch.zeros(sum(of.private for of in modalities.values())))  # log s^2 of every r_m

    def foreign(self, batch: int) -> dict[str, Gaussian]:
        """The auxiliary priors r_m, (batch, dimensions) each."""
        dims = [of.private for of in self.modalities.values()]
        each = zip(self.modalities, bounded(self.auxiliary).split(dims), dims)
        return {m: Gaussian(self.like.new_zeros(batch, dim), v.expand(batch, dim)) for m, v, dim in each}

    def share(self, x: Data, posteriors: dict[Subset, Posterior], subset: Subset, weight: Weight = 1.0) -> Terms:
        """The terms of MMVAE, and as "loss" what the paper minimises."""
        terms, other = super().share(x, posteriors, subset, weight), self.foreign(x[subset[0]].shape[0])
        free = (len(subset) - 1) / len(subset) * sum(other[m].kl() for m in subset)
        return {**terms, "loss": _loss(terms, self.beta) - self.beta * free}


class MoPoE(PoEVAE):
    """The shared posterior is the mixture, in equal parts, of the products of the experts of every subset: Sutter et al.
    (2021), sec. 3 [eq-later-mopoe].

    The loss is minus their bound: one draw of z from the mixture, and for its KL to the prior the mean KL of its parts,
    which is at least as large [eq-later-mopoe-bound]. beta: of the KLs, 1 as theirs. A product has no prior among its
    experts, as in their definition; their code puts it into that of all modalities alone. A private block has its own
    encoder, as theirs may.
    """

    def __init__(self, modalities: dict[str, Modality], shared: int = 10, beta: float = 1.0):
        super().__init__(modalities, shared, [tuple(modalities)])
        self.beta = observed.number("beta", beta, 0)

    def fuse(self, experts: dict[str, Posterior]) -> Posterior:
        return _in_order(self, experts, mixture_of_products([q["S"] for q in experts.values()], prior=False))

    def share(self, x: Data, posteriors: dict[Subset, Posterior], subset: Subset, weight: Weight = 1.0) -> Terms:
        """The terms of the ELBO with the mean KL of the components as "kl.S"."""
        q = posteriors[subset]
        terms = self.elbo(x, {**q, "S": _ByPart(q["S"].parts, q["S"].weights)}, subset, weight)
        return {**terms, "loss": _loss(terms, self.beta)}


class DMVAE(PoEVAE):
    """The joint ELBO of a product of experts, and for each modality an ELBO whose z_S is from it alone, in which every
    modality keeps its own private code and is reconstructed: Lee & Pavlovic (2021) [eq-later-dmvae].

    alone: the weight of the latter, 1 as theirs; their weights of the reconstructions, one a modality, are `weight`.
    single_prior: whether p(z_S) is multiplied into a single expert too; their code takes it as it is. An ELBO has the KL of
    z_S once; their code has it once for each modality. In a row with one modality the two ELBOs are the same, and it adds
    one.
    """
    singly = True

    def __init__(self, modalities: dict[str, Modality], shared: int = 5, alone: float = 1.0, single_prior: bool = True):
        super().__init__(modalities, shared, [tuple(modalities)], single_prior)
        self.alone = observed.number("alone", alone, 0)

    def share(self, x: Data, posteriors: dict[Subset, Posterior], subset: Subset, weight: Weight = 1.0) -> Terms:
        """The ELBO's terms, and "alone.m", minus the ELBO with the z_S of modality m alone."""
        q, several = posteriors[subset], len(subset) > 1
        terms = self.elbo(x, q, subset, weight)
        alone = {f"alone.{m}": -self.elbo(x, {**q, "S": posteriors[m,]["S"]}, subset, weight)["elbo"]
                 for m in subset if several}
        return {**terms, **alone, "loss": self.alone * sum(alone.values()) - terms["elbo"]}


class MVTCAE(PoEVAE):
    """The product of experts without the prior, trained by a bound of the total correlation: Hwang et al. (2021)
    [eq-later-mvtcae].

    loss = (1 - alpha / n) * reconstructions + beta * ((1 - alpha) * KL(q || p) + alpha / n * sum of KL(q || q_m)), over the
    n modalities that were observed. alpha: from 0, the ELBO with beta, to 1. Both as in their code for PolyMNIST. Private
    blocks are ours; q_m has the prior for the private block of another modality.
    """
    singly = True

    def __init__(self, modalities: dict[str, Modality], shared: int = 10, alpha: float = 5 / 6, beta: float = 2.5):
        super().__init__(modalities, shared, [tuple(modalities)])
        self.alpha, self.beta = observed.number("alpha", alpha, 0), observed.number("beta", beta, 0)
        if alpha > 1:
            raise ValueError(f"alpha: found {alpha!r}, expected a number from 0 to 1")

    def fuse(self, experts: dict[str, Posterior]) -> Posterior:
        return _in_order(self, experts, product_of_experts([q["S"] for q in experts.values()], prior=False))

    fuse.sign, fuse.prior = "×", False

    def share(self, x: Data, posteriors: dict[Subset, Posterior], subset: Subset, weight: Weight = 1.0) -> Terms:
        """The ELBO's terms, and "gap.m", the KL from the joint posterior to that of m alone."""
        terms, gaps = self.elbo(x, posteriors[subset], subset, weight), _gaps(posteriors, subset)
        kl, part = _sum(terms, "kl."), self.alpha / len(subset)
        inside = (1 - self.alpha) * kl + part * sum(gaps.values())
        return {**terms, **gaps, "loss": (1 - part) * (-terms["elbo"] - kl) + self.beta * inside}


class JMVAE(MultiModalVAE):
    """JMVAE-kl: an encoder of everything and one of each modality; the ELBO of the first, and KL(q || q_m), by which the
    others learn what it says: Suzuki et al. (2016), sec. 3.3 [eq-later-jmvae].

    alpha: the weight of these KLs. Ours: private blocks, for which q_m has the prior where they are another modality's; the
    posterior of several modalities but not all, of which the paper, with two, has none: what each q_m adds to the prior, and
    the prior once [eq-later-jmvae-some]; and, as of every model here, the ELBO of what was observed in a row that lacks
    something.
    """
    singly = True

    def __init__(self, modalities: dict[str, Modality], shared: int = 10, alpha: float = 0.1):
        super().__init__(modalities, shared, subsets=[tuple(modalities)])
        self.alpha = observed.number("alpha", alpha, 0)
        read = dict.fromkeys([*((m,) for m in modalities), tuple(modalities)])
        self.encoders = nn.ModuleDict({joined(s): encoder_of(self, s) for s in read})
        self.decoders = decoders_of(self)

    def posteriors(self, x: Data, subsets: Sequence[Subset]) -> dict[Subset, Posterior]:
        whole = [s for s in subsets if joined(s) in self.encoders]
        read = dict.fromkeys([*whole, *((m,) for s in subsets if s not in whole for m in s)])
        said = {s: self.encoders[joined(s)](*(x[m] for m in s)) for s in read}
        return {s: said[s] if s in said else _together(self, {m: said[m,] for m in s}) for s in subsets}

    def share(self, x: Data, posteriors: dict[Subset, Posterior], subset: Subset, weight: Weight = 1.0) -> Terms:
        """The ELBO's terms, and "gap.m", the KL from the joint posterior to that of m alone."""
        terms, gaps = self.elbo(x, posteriors[subset], subset, weight), _gaps(posteriors, subset)
        return {**terms, **gaps, "loss": self.alpha * sum(gaps.values()) - terms["elbo"]}


@dataclass(frozen=True)
class _ByPart(Mixture):
    """A mixture whose KL is the mean of its parts', an upper bound by convexity."""

    def kl(self, other: Gaussian | None = None) -> Tensor:
        return (self.weights.T * torch.stack([g.kl(other) for g in self.parts])).sum(0)


def _together(model: MultiModalVAE, single: dict[str, Posterior]) -> Posterior:
    """The posterior given several modalities, of those given each of them, where they are independent given z: each holds the
    prior N(0, 1) already, which is divided out of all but one. No exact posterior is wider than the prior, and one that is
    adds no precision [eq-later-jmvae-some]."""
    each = [q["S"] for q in single.values()]
    precisions = [(-q.logvar).exp() for q in each]
    total = 1 + sum((p - 1).clamp(min=0) for p in precisions)
    shared = Gaussian(sum(p * q.mu for p, q in zip(precisions, each)) / total, -total.log())
    return _in_order(model, single, shared)


def _in_order(model: MultiModalVAE, experts: dict[str, Posterior], shared: Gaussian | Mixture) -> Posterior:
    """The posterior of these blocks in the model's order; a private one has its own encoder's."""
    q = {m: experts[m][m] for m in experts} | {"S": shared}
    return {block: q[block] for block in model.blocks if block in q}


def _gaps(posteriors: dict[Subset, Posterior], subset: Subset) -> Terms:
    """"gap.m": KL(q || q_m), (B,), nats, with q of the subset; q_m has the prior for a block of which it does not speak."""
    return {f"gap.{m}": sum(q.kl(posteriors[m,].get(b)) for b, q in posteriors[subset].items()) for m in subset}


def _sum(terms: Terms, kind: str) -> Tensor:
    return sum(v for k, v in terms.items() if k.startswith(kind))


def _cost(terms: Terms, weight: Weight) -> Tensor:
    """Minus the ELBO that these reconstructions and KLs make."""
    named = {k.removeprefix("reconstruction."): v for k, v in terms.items() if k.startswith("reconstruction.")}
    return sum(_weighed(weight, m, v) for m, v in named.items()) + _sum(terms, "kl.")


def _loss(terms: Terms, beta: float) -> Tensor:
    """Minus the ELBO, with its KLs multiplied by beta."""
    return (beta - 1) * _sum(terms, "kl.") - terms["elbo"]
