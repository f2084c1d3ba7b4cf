"""Further terms of the loss: what may be asked of z_S, beside the ELBOs, of any model that has one.

    model.loss(x, extra={"gap": 1.0})            mmvae.fit(model, rows, "runs/mine", extra={"gap": 1.0}, extra_until=1000)

adds each of these terms, a key of `ADDED`, by its weight. Each is a function below: of a model, its data x {modality:
(B, ...)}, the posteriors that it needs (`needed`), {subset: {block: Gaussian or Mixture}}, and the masks that say where a
modality was observed, it makes {name: (B,)}, nats. Their sum is what its weight multiplies, "reconstruction.m" also by the
weight of the likelihood of m. A row that lacks a modality which a term needs adds no loss and no gradient, and no other
row is compared with it. Rows are compared within the batch of one process.
"""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import observed
from .gaussian import Gaussian, bounded, prior
from .observed import Data, Subset

TEMPERATURE = 0.1  # of the cosines that are compared
Values = dict[str, Tensor]
Posteriors = dict[Subset, dict]  # {subset: {block: Gaussian or Mixture}}


# ---- the terms

def cross(model, x: Data, q: Posteriors, masks: Data) -> Values:
    """x_m from its own z_m and another modality's z_S, (B,), nats: `MultiModalVAE.cross_reconstruction` [eq-why-cross]."""
    return _reconstructions(model, x, q, masks, lambda m: q[m,][m])


def gap(model, x: Data, q: Posteriors, masks: Data) -> Values:
    """KL(q(z_S | all that was observed) || q_m(z_S | x_m)) for each modality m that was, beside others, (B,), nats: Suzuki
    et al. (2016); Hwang et al. (2021) [eq-ask-gap]."""
    found = {m: model.like.new_zeros(_rows(x)) for m in x}
    for subset, rows in observed.cases(model, x, masks, [tuple(model.modalities)]):
        for m in subset if len(subset) > 1 else ():
            found[m] = found[m] + _where(rows, q[subset]["S"].kl(q[m,]["S"]))
    return found


def contrast(model, x: Data, q: Posteriors, masks: Data) -> Values:
    """Which row's z_S given x_o is that of z_S given x_m: the mean over the ordered pairs of modalities of `info_nce` of
    the means, in the rows that have both, (B,), nats: Zhang et al. (2026), their first term [eq-ask-contrast]."""
    pairs = [(m, o) for m in x for o in x if o != m]
    each = [info_nce(q[m,]["S"].mu, q[o,]["S"].mu, observed.with_all((m, o), masks)) for m, o in pairs]
    return {"S": sum(each) / len(each) if each else model.like.new_zeros(_rows(x))}


def retain(model, x: Data, q: Posteriors, masks: Data) -> Values:
    """Whether a block is found again: x_m is made from z_S of a row and z_m of the next one (`following`), and encoded, and
    `info_nce` compares the means read from it with those that were put in: "m.S", and "m.m" where m has private latents.
    Zhang et al. (2026), their second term [eq-ask-retain]. One picture serves both questions.

    Raises ValueError for a modality whose means are no data of its own, as the probabilities of classes.
    """
    found = {}
    for m in x:
        own, there = q[m,], masks.get(m)
        after = following(own["S"].mu.shape[0], there, x[m].device)
        z = {"S": own["S"].sample(), m: own[m].sample()[after]}
        made = model.means(z, (m,))[m]
        if made.shape != x[m].shape or made.dtype != model.like.dtype:
            raise ValueError(f'extra: found "retain" with modality "{m}", whose means are {made.dtype} {tuple(made.shape)} '
                             f"and its data {x[m].dtype} {tuple(x[m].shape)}, expected means that can be encoded as data")
        again = model.posteriors({m: made}, [(m,)])[m,]
        found[f"{m}.S"] = info_nce(again["S"].mu, own["S"].mu, there)
        if model.blocks[m]:
            found[f"{m}.{m}"] = info_nce(again[m].mu, own[m].mu[after], there)
    return found


def all_from_one(model, x: Data, q: Posteriors, masks: Data) -> Values:
    """x_m from another modality's z_S, and z_m from the prior, (B,), nats: each single ELBO reconstructs every modality, the
    plain way to give a mixture model private blocks, to which Palumbo et al. (2023) compare theirs [eq-ask-all]."""
    return _reconstructions(model, x, q, masks, lambda m: prior(_rows(x), model.blocks[m], model.like))


def auxiliary(model, x: Data, q: Posteriors, masks: Data) -> Values:
    """The same with z_m from a prior of its own, N(0, exp(`model.auxiliary`)), which is learnt, (B,), nats: Palumbo et al.
    (2023), of MMVAE+ [eq-ask-auxiliary]. See `prepare`."""
    sizes = [model.blocks[m] for m in model.modalities]
    logvars = dict(zip(model.modalities, bounded(model.auxiliary).split(sizes)))

    def of(m: str) -> Gaussian:
        logvar = logvars[m].expand(_rows(x), -1)
        return Gaussian(torch.zeros_like(logvar), logvar)

    return _reconstructions(model, x, q, masks, of)


ADDED = {"gap": gap, "contrast": contrast, "retain": retain, "all-from-one": all_from_one, "auxiliary": auxiliary,
         "cross": cross}  # in the order in which they draw


# ---- in a loss

def checked(extra: dict[str, float] | None, cross: float | None = None) -> dict[str, float] | None:
    """{term: weight} in the order of `ADDED`; None if there are none. Raises ValueError for what is no dictionary, for
    unknown terms, weights that are negative or not finite, and for a cross-reconstruction that is asked for twice."""
    if not extra and (extra is None or isinstance(extra, dict)):
        return None
    if not isinstance(extra, dict):
        raise ValueError(f"extra: found {extra!r}, expected {{term: weight}}, of {', '.join(ADDED)}")
    if wrong := [k for k in extra if k not in ADDED]:
        raise ValueError(f"extra: found term {wrong[0]!r}, expected some of {', '.join(ADDED)}")
    if "cross" in extra and cross is not None:
        raise ValueError(f'cross: found {cross!r} and {extra["cross"]!r} in extra, expected one of the two')
    return {k: observed.number(f'extra["{k}"]', extra[k], 0) for k in ADDED if k in extra}


def prepare(model, extra: dict[str, float] | None):
    """The model, with what these terms learn: for "auxiliary" the parameter `model.auxiliary`, a log-variance for each
    private latent, from 0. `mmvae.fit`, `mmvae.load` and recipes do it; for a training loop of your own, do it before
    its optimiser is made. Raises ValueError for terms that this model cannot have."""
    _refuse(model, checked(extra), prepared=True)
    if "auxiliary" in (extra or ()) and not hasattr(model, "auxiliary"):
        model.auxiliary = nn.Parameter(model.like.new_zeros(sum(model.blocks[m] for m in model.modalities)))
    return model


def wanted(model, extra: dict[str, float] | None, cross: float | None = None) -> dict[str, float]:
    """{term: weight} of a loss. Raises ValueError as `checked`, and for terms that this model cannot have."""
    found = checked(extra, cross)
    _refuse(model, found)
    return (found or {}) | ({} if cross is None else {"cross": cross})


def needed(model, x: Data, masks: Data, weights: dict[str, float]) -> list[Subset]:
    """The subsets of which these terms need the posterior. Raises ValueError for those that the model has not."""
    singles = [(m,) for m in x] if weights else []
    for s in singles:
        observed.refuse_unseen(model, s)
    joint = observed.cases(model, x, masks, [tuple(model.modalities)]) if "gap" in weights else []
    return singles + [s for s, _ in joint]


def add(model, x: Data, q: Posteriors, masks: Data, weights: dict[str, float], terms: Values, weigh) -> Values:
    """The terms of a loss, with these added: each by its name, and all in "total" by their weights [eq-ask-loss]; at 0 a term
    is only watched. weigh(m, value): the value, by the weight of the likelihood of m."""
    terms = dict(terms)
    for name, weight in weights.items():
        with torch.set_grad_enabled(torch.is_grad_enabled() and weight > 0):
            found = ADDED[name](model, x, q, masks)
        parts = {k: k.removeprefix("reconstruction.") for k in found}
        terms.update({f"{name}.{k}": v for k, v in found.items()})  # torch 2.4 compiles no |
        whole = sum(v if parts[k] == k else weigh(parts[k], v) for k, v in found.items())
        terms["total"] = terms["total"] + weight * whole
    return terms


def _refuse(model, extra: dict[str, float] | None, prepared: bool = False):
    """Raises ValueError for terms that a model cannot have."""
    kind = type(model).__name__
    if extra and not model.blocks.get("S"):
        raise ValueError(f'extra: found "{next(iter(extra))}" for {kind} without shared latents, expected a model with a '
                         "block S")
    if extra and len(model.modalities) < 2:
        raise ValueError(f'extra: found "{next(iter(extra))}" for {kind} of one modality, {next(iter(model.modalities))!r}, '
                         "expected at least two")
    if "auxiliary" in (extra or ()) and not (prepared or hasattr(model, "auxiliary")):
        raise ValueError(f'extra: found "auxiliary" for {kind} without a prior to learn, expected one that '
                         "mmvae.terms.prepare gave it before its optimiser was made")


# ---- what they are made of

def info_nce(anchors: Tensor, others: Tensor, there: Tensor | None = None, temperature: float = TEMPERATURE) -> Tensor:
    """-log softmax_j(cos(a_i, b_j) / temperature) at j = i, over the rows j that are there: van den Oord et al. (2018), eq. 4
    [eq-ask-nce]. anchors, others: (B, D), centred here by their means over those rows. there: bool (B,); None: all. Returns
    (B,), nats, 0 where a row is not there; log B where nothing is told."""
    a, b = (F.normalize(_centred(v, there), dim=1, eps=1e-6) for v in (anchors, others))
    cosines = a @ b.T / temperature  # (B, B)
    if there is not None:
        itself = torch.eye(len(there), dtype=torch.bool, device=there.device)
        cosines = torch.where(there | itself, cosines, -torch.inf)
    return _where(there, cosines.logsumexp(1) - cosines.diagonal())


def following(rows: int, there: Tensor | None, device: torch.device) -> Tensor:
    """Of each of so many rows the next one that is there, of the last the first: (B,) indices, int64."""
    i = torch.arange(rows, device=device)
    if there is None:
        return i.roll(-1)
    ahead = (i - i.unsqueeze(1) - 1) % rows  # (B, B): how far behind the next row
    return torch.where(there, ahead, rows).argmin(1)


def _centred(v: Tensor, there: Tensor | None) -> Tensor:
    if there is None:
        return v - v.mean(0)
    w = there.to(v).unsqueeze(1)
    return v - (w * v).sum(0) / w.sum(0).clamp(min=1)


def _reconstructions(model, x: Data, q: Posteriors, masks: Data, private) -> Values:
    """-log p_m(x_m | z_m, z_S) by one draw of z_m from private(m), and of z_S from the posterior of another modality, summed
    over the others: {"reconstruction.m": (B,)}. A row that lacks either adds nothing."""
    found: Values = {}
    for m in x:
        for other in (o for o in x if o != m):
            z = {m: private(m).sample(), "S": q[other,]["S"].sample()}
            value = -observed.log_prob(model, m, model.decode(z, (m,))[m], x[m])
            both = observed.with_all((m, other), masks)
            found[f"reconstruction.{m}"] = found.get(f"reconstruction.{m}", 0) + _where(both, value)
    return found


def _where(rows: Tensor | None, value: Tensor) -> Tensor:
    return value if rows is None else torch.where(rows, value, torch.zeros_like(value))


def _rows(x: Data) -> int:
    return next(iter(x.values())).shape[0]
