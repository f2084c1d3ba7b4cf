"""The competing models. Two choices make all of them: how the posterior of a subset of the modalities is
formed, and for which subsets a negative ELBO is added to the loss.

Notation: modalities "I" and "T"; subsets of what is observed "I", "T", "IT"; latent blocks "I" and "T"
(private) and "S" (shared). Images are {"I": (B, 1, H, W), "T": (B, 1, H, W)}, float in [0, 1]; an absent key is
a modality that was not observed.
"""
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .gaussian import Gaussian, prior, product_of_experts
from .nets import Decoder, Encoder

SUBSETS = ("I", "T", "IT")
Images = dict[str, Tensor]
Latents = dict[str, Tensor]
Posterior = dict[str, Gaussian]


def bernoulli_log_likelihood(logits: Tensor, image: Tensor) -> Tensor:
    """log p(x | z) = sum over pixels of x log s(logits) + (1 - x) log(1 - s(logits)): (B,), nats
    [eq-vae-bernoulli].

    Grey levels in [0, 1] are allowed, as in Kingma & Welling (2014), appendix C.1; for them it is minus a
    cross-entropy, not a normalised log-density.
    """
    return -F.binary_cross_entropy_with_logits(logits, image, reduction="none").flatten(1).sum(1)


def observed(x: Images) -> str:
    """The subset of modalities in x: "I", "T" or "IT". Raises ValueError for any other keys or unequal batches."""
    subset = "".join(m for m in "IT" if m in x)
    if not subset or set(x) - {"I", "T"}:
        raise ValueError(f'x: found modalities {sorted(x)}, expected "I", "T" or both')
    if len({len(image) for image in x.values()}) > 1:
        raise ValueError(f"x: found batches of {[len(image) for image in x.values()]}, expected equal sizes")
    return subset


def seen_by(subset: str, blocks: dict[str, int]) -> dict[str, int]:
    """The blocks that an encoder of this subset speaks about: the private ones of what it sees, and S."""
    return {block: dim for block, dim in blocks.items() if block == "S" or block in subset}


class MultiModalVAE(nn.Module):
    """What all models share: latent blocks, a loss that sums negative ELBOs, the decoding of a partitioned z.

    A model adds its encoders and `posteriors`. blocks: {block: dimensions}. subsets: those that carry an ELBO.
    log_likelihood(decoder's output, x_m) -> (B,) nats: of another kind of data, if replaced.
    """
    log_likelihood = staticmethod(bernoulli_log_likelihood)

    def __init__(self, size: int, blocks: dict[str, int], subsets: tuple[str, ...]):
        super().__init__()
        if not subsets or set(subsets) - set(SUBSETS):
            raise ValueError(f"subsets: found {subsets}, expected some of {SUBSETS}")
        self.size, self.blocks, self.subsets = size, blocks, tuple(subsets)

    def posteriors(self, x: Images, subsets: tuple[str, ...]) -> dict[str, Posterior]:
        """The posterior of each subset of the observed x; an encoder runs once, however many subsets need it."""
        raise NotImplementedError

    def posterior(self, x: Images) -> Posterior:
        """q(z | the modalities in x), one Gaussian per block, in the order of `blocks`.

        The private block of a modality that was not observed has its prior.
        """
        subset = observed(x)
        q = self.posteriors(x, (subset,))[subset]
        return {b: q[b] if b in q else prior(len(q["S"].mu), dim, q["S"].mu) for b, dim in self.blocks.items()}

    def decode(self, z: Latents, modalities: str = "IT") -> Images:
        """{"I": (B, private), "S": (B, shared), "T": (B, private)} -> {"I": logits (B, 1, H, W), "T": logits}.

        modalities: decode only these.
        """
        return {m: self.decoders[m](torch.cat([z[m], z["S"]], 1)) for m in modalities}

    def cross_reconstruction(self, x: Images, single: dict[str, Posterior]) -> dict[str, Tensor]:
        """-E[log p_m(x_m | z_m, z_S)] with z_m from the posterior of x_m, but z_S from that of the other modality: the
        swap of DMVAE (Lee & Pavlovic 2021) alone, no ELBO and no part of the stated losses [eq-why-cross].

        single: the posteriors of {I} and {T}. Returns {"I": (B,), "T": (B,)}, nats.
        """
        swapped = {}
        for m, other in (("I", "T"), ("T", "I")):
            z = {m: single[m][m].sample(), "S": single[other]["S"].sample()}
            swapped[m] = -self.log_likelihood(self.decode(z, modalities=m)[m], x[m])
        return swapped

    def terms(self, x: Images, weight: float = 1.0, subsets: tuple[str, ...] = (),
              cross: float | None = None) -> dict[str, Tensor]:
        """Every term of the loss, per pair: each value is (B,), nats. See `loss` for the names, and for cross.

        subsets: whose ELBOs to sum instead of `self.subsets`.
        """
        if observed(x) != "IT":
            raise ValueError(f'x: found modalities {sorted(x)}; a loss needs both "I" and "T"')
        subsets, terms = tuple(subsets or self.subsets), {"total": x["I"].new_zeros(len(x["I"]))}  # (B,)
        extra = () if cross is None else tuple(m for m in "IT" if m not in subsets)
        posteriors = self.posteriors(x, subsets + extra)
        for subset in subsets:
            q = posteriors[subset]
            logits = self.decode({block: g.sample() for block, g in q.items()}, modalities=subset)
            reconstruction = {m: -self.log_likelihood(logits[m], x[m]) for m in subset}
            kl = {block: g.kl() for block, g in q.items()}
            elbo = -weight * sum(reconstruction.values()) - sum(kl.values())
            terms |= {f"{subset}.reconstruction.{m}": r for m, r in reconstruction.items()}
            terms |= {f"{subset}.kl.{block}": k for block, k in kl.items()}
            terms[f"{subset}.elbo"] = elbo
            terms["total"] = terms["total"] - elbo
        if cross is not None:
            with torch.set_grad_enabled(torch.is_grad_enabled() and cross > 0):  # at 0 it is only watched
                swapped = self.cross_reconstruction(x, posteriors)
            terms |= {f"cross.reconstruction.{m}": r for m, r in swapped.items()}
            terms["total"] = terms["total"] + cross * weight * sum(swapped.values())
        return terms

    def loss(self, x: Images, weight: float = 1.0, cross: float | None = None) -> dict[str, Tensor]:
        """The loss and each of its terms, averaged over the batch: nats per pair.

        "total" is what is minimised, the sum of the negative ELBOs of `self.subsets`. For each of these subsets s,
        "s.reconstruction.m" is -E[log p(x_m | z)] for each modality m in s, "s.kl.b" the KL of block b to its
        prior, and "s.elbo" = -weight * (sum of reconstructions) - (sum of KLs): Kingma & Welling (2014), eq. 3,
        for one subset [eq-vae-elbo]; Wu & Goodman (2018), sec. 2, for their sum [eq-mumo-loss, eq-poe-v2].
        weight: of the log-likelihood against the KL, 1 for the ELBO itself.
        cross: None for the loss of the book; a number adds cross * weight * (sum of "cross.reconstruction.m"), each from
        `cross_reconstruction`.
        """
        return {name: value.mean() for name, value in self.terms(x, weight, cross=cross).items()}


class VanillaVAE(MultiModalVAE):
    """One encoder and one decoder of the concatenated pair, z not partitioned: Kingma & Welling (2014)
    [eq-vanilla-elbo].
    """

    def __init__(self, size: int = 64, latent: int = 10):
        super().__init__(size, {"Z": latent}, subsets=("IT",))
        self.encoders = nn.ModuleDict({"IT": Encoder(self.blocks, channels=2, size=size)})
        self.decoders = nn.ModuleDict({"IT": Decoder(latent, channels=2, size=size)})

    def posteriors(self, x: Images, subsets: tuple[str, ...] = ("IT",)) -> dict[str, Posterior]:
        if tuple(subsets) != ("IT",):
            raise ValueError(f'VanillaVAE: asked for the posterior of {subsets}; its encoder needs "I" and "T"')
        return {"IT": self.encoders["IT"](torch.cat([x["I"], x["T"]], 1))}

    def decode(self, z: Latents, modalities: str = "IT") -> Images:
        """{"Z": (B, latent)} -> {"I": logits (B, 1, H, W), "T": logits (B, 1, H, W)}."""
        pair = self.decoders["IT"](z["Z"])  # (B, 2, H, W)
        return {m: logits for m, logits in zip("IT", pair.chunk(2, 1)) if m in modalities}


class MuMoVAE(MultiModalVAE):
    """Three encoders that share nothing, one a subset: q_I(z_I, z_S | x_I), q_T(z_S, z_T | x_T), q(z | x_I, x_T)
    [eq-mumo-single, eq-mumo-joint].
    """

    def __init__(self, size: int = 64, private: int = 2, shared: int = 5, subsets: tuple[str, ...] = SUBSETS):
        super().__init__(size, {"I": private, "S": shared, "T": private}, subsets)
        self.encoders = nn.ModuleDict({s: Encoder(seen_by(s, self.blocks), len(s), size) for s in SUBSETS})
        self.decoders = nn.ModuleDict({m: Decoder(private + shared, size=size) for m in "IT"})

    def posteriors(self, x: Images, subsets: tuple[str, ...]) -> dict[str, Posterior]:
        return {s: self.encoders[s](torch.cat([x[m] for m in s], 1)) for s in subsets}


class PoEVAE(MultiModalVAE):
    """Two encoders; the posterior of the shared block from the pair is the product of their experts and the prior.

    q(z_S | x_I, x_T) is proportional to p(z_S) q_I(z_S | x_I) q_T(z_S | x_T): Wu & Goodman (2018), sec. 2
    [eq-poe-joint].
    v1 and v2 of the MMPOE-VAE differ in `subsets`; private=0 makes the WG-VAE.
    single_prior: multiply p(z_S) into the posterior of a single modality too, as Wu & Goodman do. The experiment's
    formula, our default, takes the single expert as it is.
    """

    def __init__(self, size: int = 64, private: int = 2, shared: int = 5, subsets: tuple[str, ...] = SUBSETS,
                 single_prior: bool = False):
        super().__init__(size, {"I": private, "S": shared, "T": private}, subsets)
        self.single_prior = single_prior
        self.encoders = nn.ModuleDict({m: Encoder(seen_by(m, self.blocks), size=size) for m in "IT"})
        self.decoders = nn.ModuleDict({m: Decoder(private + shared, size=size) for m in "IT"})

    def posteriors(self, x: Images, subsets: tuple[str, ...]) -> dict[str, Posterior]:
        experts = {m: self.encoders[m](x[m]) for m in "IT" if any(m in s for s in subsets)}
        return {s: self.fuse({m: experts[m] for m in s}) for s in subsets}

    def fuse(self, experts: dict[str, Posterior]) -> Posterior:
        """The posterior of the observed modalities from their encoders' outputs, {modality: {block: Gaussian}}."""
        shared = [q["S"] for q in experts.values()]
        alone = len(shared) == 1 and not self.single_prior
        q = {m: experts[m][m] for m in experts}  # a private block has one expert: its own encoder
        q["S"] = shared[0] if alone else product_of_experts(shared)
        return {block: q[block] for block in self.blocks if block in q}


MODELS = {  # the six rows of the book's table: name -> model(size=...)
    "vanilla": VanillaVAE,
    "mumo": MuMoVAE,
    "poe-v1": partial(PoEVAE, subsets=("IT",)),
    "poe-v2": PoEVAE,
    "wg-v1": partial(PoEVAE, private=0, shared=10, subsets=("IT",)),
    "wg-v2": partial(PoEVAE, private=0, shared=10),
}
