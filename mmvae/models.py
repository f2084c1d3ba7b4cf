"""The competing models. Two choices make all of them: how the posterior of a subset of the modalities is
formed, and for which subsets a negative ELBO is added to the loss.

A subset is a tuple of names in the model's order, ("I", "T"), and "I+T" in the names of networks and loss terms. Latent
blocks: a private one a modality, named as it is, and "S", shared. Data are {name: (B, ...)}; an absent key is a modality
that was not observed, and `present`, {name: bool (B,)}, says in which rows it was."""
import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import chain

import torch
from torch import Tensor, nn

from . import observed, terms as further
from .gaussian import Gaussian, Mixture, prior, product_of_experts
from .nets import Encoder, Modality
from .observed import Data, Subset, all_subsets, joined
from .together import decoders_of, encoder_of, make_together, read_together

Latents = dict[str, Tensor]
Posterior = dict[str, Gaussian | Mixture]


class MultiModalVAE(nn.Module):
    """What all models share: latent blocks, a loss that sums negative ELBOs, the decoding of a partitioned z. A model adds
    `encoders` by the names of subsets, `decoders` by modality, and says how its `posteriors` are formed.

    modalities: {name: Modality}; the order is theirs. blocks: {block: dimensions}; None: the private ones, with "S" of
    `shared` dimensions in their middle. subsets: those that carry an ELBO; None: every non-empty one.
    Raises TypeError or ValueError for modalities that are none, names that are taken, and subsets of other names."""
    singly = False  # whether what a subset adds to the loss needs what each of its modalities says alone

    def __init__(self, modalities: dict[str, Modality], shared: int = 0, blocks: dict[str, int] | None = None,
                 subsets: Sequence[Sequence[str]] | None = None):
        super().__init__()
        observed.check_modalities(type(self).__name__, modalities, Modality, blocks or {"S": shared})
        self.modalities = {m: replace(of, likelihood=copy.deepcopy(of.likelihood)) for m, of in modalities.items()}
        names = tuple(modalities)
        order = (*names[:(k := (len(names) + 1) // 2)], "S", *names[k:])  # so that a pair reads z_I, z_S, z_T
        self.blocks = blocks or {b: shared if b == "S" else modalities[b].private for b in order}
        self.subsets = all_subsets(names) if subsets is None else observed.subsets_of(names, subsets)
        self.likelihoods = nn.ModuleDict({m: of.likelihood for m, of in self.modalities.items()
                                          if isinstance(of.likelihood, nn.Module)})

    def posteriors(self, x: Data, subsets: Sequence[Subset]) -> dict[Subset, Posterior]:
        """The posterior of each of these subsets of x, which are whole: {block: Gaussian or Mixture}, of "S" and of the
        private blocks of what it sees. An encoder runs once, however many subsets need it."""
        raise NotImplementedError

    def can_see(self, subset: Subset) -> bool:
        """Whether the model has a posterior of this subset."""
        return True

    @property
    def seen(self) -> tuple[Subset, ...]:
        """Every subset that it has a posterior of, whether or not the loss has its ELBO, small ones first."""
        return tuple(s for s in all_subsets(tuple(self.modalities)) if self.can_see(s))

    def posterior(self, x: Data, present: dict[str, Tensor] | None = None) -> Posterior:
        """q(z | what is observed in x), one Gaussian (or Mixture) per block, in the order of `blocks`. The private block of a
        modality that was not observed has its prior. Raises what `check` does."""
        x, masks = self.check(x, present)
        cases = observed.cases(self, x, masks, [tuple(self.modalities)])
        found = self.posteriors(x, [s for s, _ in cases])
        blank = {b: prior(_batch(x), dim, self.like) for b, dim in self.blocks.items()}
        return {b: observed.choose([(rows, found[s].get(b, blank[b])) for s, rows in cases]) for b in self.blocks}

    def decode(self, z: Latents, modalities: Sequence[str] | None = None) -> dict:
        """{block: (B, dimensions)} -> {modality: the parameters of p(x_m | z)}. modalities: decode only these."""
        return {m: self.decoders[m](torch.cat([z[m], z["S"]], 1)) for m in observed.names_of(self, modalities)}

    def likelihood(self, m: str):
        """The likelihood of a modality."""
        return self.likelihoods[m] if m in self.likelihoods else self.modalities[m].likelihood

    def means(self, z: Latents, modalities: Sequence[str] | None = None) -> Data:
        """What is decoded from z as it is shown: the means of p(x_m | z), {modality: (B, ...)}."""
        return {m: self.likelihood(m).mean(output) for m, output in self.decode(z, modalities).items()}

    def terms(self, x: Data, weight: float | dict[str, float] = 1.0, present: dict[str, Tensor] | None = None,
              subsets: Sequence[Subset] = (), cross: float | None = None, check: bool = True,
              extra: dict[str, float] | None = None) -> dict[str, Tensor]:
        """Every term of the loss, per row: each value is (B,), nats. See `loss` for names and arguments. subsets: whose ELBOs
        to sum, instead of what each of `self.subsets` has as its `share`."""
        x, masks = self.check(x, present, values=check)
        observed.check_weight(self, weight)
        own, subsets = not subsets, observed.subsets_of(tuple(self.modalities), subsets) if subsets else self.subsets
        cases = observed.cases(self, x, masks, subsets)
        more = further.wanted(self, extra, cross)
        needed = [s for s, _ in cases] + further.needed(self, x, masks, more) + [(m,) for m in x if own and self.singly]
        posteriors = self.posteriors(x, list(dict.fromkeys(needed)))
        terms = {"total": self.like.new_zeros(_batch(x))}  # (B,)
        for subset, rows in cases:
            part = self.share(x, posteriors, subset, weight) if own else self.elbo(x, posteriors[subset], subset, weight)
            if rows is not None:
                part = {k: torch.where(rows, v, torch.zeros_like(v)) for k, v in part.items()}
            terms["total"] = terms["total"] + part.pop("loss", -part["elbo"])
            terms.update({f"{joined(subset)}.{k}": v for k, v in part.items()})  # torch 2.4 compiles no |
        return further.add(self, x, posteriors, masks, more, terms, partial(_weighed, weight))

    def share(self, x: Data, posteriors: dict[Subset, Posterior], subset: Subset, weight=1.0) -> dict[str, Tensor]:
        """What a subset adds to the loss, "loss", and its terms: minus its ELBO. `singly`: posteriors has single ones too."""
        return self.elbo(x, posteriors[subset], subset, weight)

    def elbo(self, x: Data, q: Posterior, subset: Subset, weight: float | dict[str, float] = 1.0) -> dict[str, Tensor]:
        """The ELBO of one subset, by one draw of z from q, and its terms: {"reconstruction.m", "kl.b", "elbo": (B,)}."""
        decoded = self.decode({block: g.sample() for block, g in q.items()}, subset)
        terms = {f"reconstruction.{m}": -observed.log_prob(self, m, decoded[m], x[m]) for m in subset}
        log_p = -sum(_weighed(weight, m, terms[f"reconstruction.{m}"]) for m in subset)
        kl = {f"kl.{block}": g.kl() for block, g in q.items()}
        return {**terms, **kl, "elbo": log_p - sum(kl.values())}

    def cross_reconstruction(self, x: Data, single: dict[str, Posterior], masks: Data) -> dict[str, Tensor]:
        """-E[log p_m(x_m | z_m, z_S)] with z_m from the posterior of x_m, but z_S from that of another modality: the swap
        of DMVAE (Lee & Pavlovic 2021) alone, no ELBO and no part of the stated losses [eq-why-cross].

        single: the posterior of each modality alone. Returns {modality: (B,)}, nats; with more than two, summed over the
        others. A row that lacks either adds nothing."""
        swapped = further.cross(self, x, {(m,): q for m, q in single.items()}, masks)
        return {k.removeprefix("reconstruction."): value for k, value in swapped.items()}

    def loss(self, x: Data, weight: float | dict[str, float] = 1.0, present: dict[str, Tensor] | None = None,
             cross: float | None = None, check: bool = True, extra: dict[str, float] | None = None) -> dict[str, Tensor]:
        """The loss and each of its terms, averaged over the batch: nats a row.

        "total" is what is minimised, the sum of the negative ELBOs of `self.subsets`. For each of these subsets s,
        "s.reconstruction.m" is -E[log p(x_m | z)] for each modality m in s, "s.kl.b" the KL of block b to its
        prior, and "s.elbo" = -weight * (sum of reconstructions) - (sum of KLs): Kingma & Welling (2014), eq. 3,
        for one subset [eq-vae-elbo]; Wu & Goodman (2018), sec. 2, for their sum [eq-mumo-loss, eq-poe-v2].
        For a row with the observed set O these are the sets {A ∩ O: A in `subsets`}, each once, never the empty one: what
        was not observed adds no loss and no gradient, whatever stands in its place.
        weight: of the log-likelihood against the KL, 1 for the ELBO itself; or {modality: weight}, where 1 is not said.
        present: {modality: bool (B,)}, the rows in which it was observed; a modality that is not named: all.
        extra: None for the loss of the book; {term: weight} adds terms of `mmvae.terms`. cross: the same of "cross" alone, a
        number or None. check: whether to look at the values of x, which a training loop does once.
        """
        return {k: v.mean() for k, v in self.terms(x, weight, present, cross=cross, check=check, extra=extra).items()}

    @torch.no_grad()
    def predict(self, x: Data, want: Sequence[str] | None = None, n: int = 16, present: dict[str, Tensor] | None = None,
                generator: torch.Generator | None = None) -> Data:
        """What the model imagines of `want`, default every modality, given x: {modality: (n, B, ...)}, the means of
        p(x_m | z) for n draws of z from the posterior. generator: of the draws; default: PyTorch's own."""
        want, q = observed.names_of(self, want), self.posterior(x, present)
        draws = [{b: g.sample(generator) for b, g in q.items()} for _ in range(n)]
        made = self.means({b: torch.cat([z[b] for z in draws]) for b in q}, want)
        return {m: v.unflatten(0, (n, -1)) for m, v in made.items()}

    @torch.no_grad()
    def sample(self, n: int = 16, want: Sequence[str] | None = None, generator: torch.Generator | None = None) -> Data:
        """n draws of z from the prior, decoded: the means {modality: (n, ...)}. Arguments as of `predict`."""
        return self.means({b: prior(n, dim, self.like).sample(generator) for b, dim in self.blocks.items()}, want)

    @property
    def like(self) -> Tensor:
        """A tensor of the model's dtype and device."""
        return next(chain(self.parameters(), self.buffers(), [torch.zeros(())]))

    def check(self, x: Data, present: dict[str, Tensor] | None = None, values: bool = True) -> tuple[Data, Data]:
        """What of x was observed, and the masks that say where: `observed.check`."""
        return observed.check(self, x, present, values)


class VanillaVAE(MultiModalVAE):
    """One encoder and one decoder of everything, z not partitioned: Kingma & Welling (2014) [eq-vanilla-elbo]."""

    def __init__(self, modalities: dict[str, Modality], latent: int = 10):
        super().__init__(modalities, blocks={"Z": latent}, subsets=[tuple(modalities)])
        parts, name = list(self.modalities.values()), joined(tuple(modalities))
        self.encoders = nn.ModuleDict({name: Encoder(self.blocks, read_together(parts, 2 * latent))})
        self.decoders = nn.ModuleDict({name: make_together(parts, latent)})

    def can_see(self, subset: Subset) -> bool:
        return subset == tuple(self.modalities)

    def posteriors(self, x: Data, subsets: Sequence[Subset]) -> dict[Subset, Posterior]:
        return {s: self.encoders[joined(s)](*x.values()) for s in subsets}

    def decode(self, z: Latents, modalities: Sequence[str] | None = None) -> dict:
        """{"Z": (B, latent)} -> as of every model."""
        outputs = zip(self.modalities, self.decoders[joined(tuple(self.modalities))](z["Z"]))
        return {m: output for m, output in outputs if m in observed.names_of(self, modalities)}


class MuMoVAE(MultiModalVAE):
    """Encoders that share nothing, one a subset: q_I(z_I, z_S | x_I), q(z | x_I, x_T) [eq-mumo-single, eq-mumo-joint]."""

    def __init__(self, modalities: dict[str, Modality], shared: int = 5, subsets: Sequence[Sequence[str]] | None = None):
        super().__init__(modalities, shared, subsets=subsets)
        self.encoders = nn.ModuleDict({joined(s): encoder_of(self, s) for s in all_subsets(tuple(modalities))})
        self.decoders = decoders_of(self)

    def posteriors(self, x: Data, subsets: Sequence[Subset]) -> dict[Subset, Posterior]:
        return {s: self.encoders[joined(s)](*(x[m] for m in s)) for s in subsets}


class PoEVAE(MultiModalVAE):
    """An encoder a modality; the posterior of the shared block is the product of their experts and the prior.

    q(z_S | x_I, x_T) is proportional to p(z_S) q_I(z_S | x_I) q_T(z_S | x_T): Wu & Goodman (2018), sec. 2 [eq-poe-joint].
    v1 and v2 of the MMPOE-VAE differ in `subsets`; without private blocks it is the WG-VAE.
    single_prior: multiply p(z_S) into the posterior of a single modality too, as Wu & Goodman do. The experiment's
    formula, our default, takes the single expert as it is."""

    def __init__(self, modalities: dict[str, Modality], shared: int = 5, subsets: Sequence[Sequence[str]] | None = None,
                 single_prior: bool = False):
        super().__init__(modalities, shared, subsets=subsets)
        self.single_prior = single_prior
        self.encoders = nn.ModuleDict({m: encoder_of(self, (m,)) for m in modalities})
        self.decoders = decoders_of(self)

    def posteriors(self, x: Data, subsets: Sequence[Subset]) -> dict[Subset, Posterior]:
        experts = {m: self.encoders[m](x[m]) for m in self.modalities if any(m in s for s in subsets)}
        return {s: self.fuse({m: experts[m] for m in s}) for s in subsets}

    def fuse(self, experts: dict[str, Posterior]) -> Posterior:
        """The posterior of the observed modalities from their encoders' outputs, {modality: {block: Gaussian}}."""
        shared = [q["S"] for q in experts.values()]
        alone = len(shared) == 1 and not self.single_prior
        q = {m: experts[m][m] for m in experts}  # a private block has one expert: its own encoder
        q["S"] = shared[0] if alone else product_of_experts(shared)
        return {block: q[block] for block in self.blocks if block in q}

    fuse.sign = "×"  # how a diagram writes it; a model that fuses in another way has a `fuse` without it, or with its own


def _batch(x: Data) -> int:
    return next(iter(x.values())).shape[0]


def _weighed(weight: float | dict[str, float], m: str, value: Tensor) -> Tensor:
    factor = weight.get(m, 1.0) if isinstance(weight, dict) else weight
    return value if factor == 1 else factor * value
