"""What a model says of rows it has never seen, in nats: every term of its ELBOs, and its log-likelihood."""
import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from .. import observed
from ..correlated import FullGaussian
from ..data import Rows
from ..gaussian import Gaussian, Mixture, prior
from ..likelihoods import Bernoulli
from ..models import Latents, MultiModalVAE
from ..observed import Data, joined, with_all

DRAWS = 16  # from every part of a mixture, for the KL of its latents


@dataclass(frozen=True)
class Estimate:
    """A log-likelihood and how far it may be trusted; `value, error = estimate`.

    value: (B,), nats. error: its standard error (B,), nats. ess: effective sample size (B,), of as many draws as were made;
    below some tens the value is a lower bound rather than an estimate, and its error too small.
    """
    value: Tensor
    error: Tensor
    ess: Tensor

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.value, self.error))


def drawn(rows: Rows, n: int, generator: torch.Generator) -> tuple[Tensor, Data, Data, Data]:
    """n rows, uniform with replacement: their numbers (n,), x, the masks of what was observed, factors. Of rows that can
    only `sample`: their places in the sample, and no masks. generator: on the CPU, so that every device has the same rows."""
    if not hasattr(rows, "draw"):
        if torch.device(rows.device).type != "cpu":  # they draw where they are
            seed = torch.randint(2 ** 31, (), generator=generator).item()
            generator = torch.Generator(rows.device).manual_seed(seed)
        x, factors = rows.sample(n, generator)
        return torch.arange(n), x, {}, factors
    index = torch.randint(len(rows), (n,), generator=generator).to(rows.device)
    return (index, *rows.batch(index), rows.factors_at(index))


@torch.no_grad()
def heldout(model: MultiModalVAE, rows: Rows, weight: float | dict[str, float] = 1.0, n: int = 4096, seed: int = 0,
            batch: int = 256) -> dict[str, float]:
    """The mean of every loss term over n rows, one posterior sample each: nats a row, names as in `model.loss`.

    For all subsets that the model can infer from, also those whose ELBO training left out, each over the rows in which all
    of it was observed (a subset that none of them has is left out); "total" is minus the sum of what each row adds, not the
    training loss. Noise and rows depend on the seed and on the batch alone, so that models are compared on the same rows.
    The caller's random state is left as it was.
    """
    generator, found = torch.Generator().manual_seed(seed), {}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for start in range(0, n, batch):
            _, x, masks, _ = drawn(rows, min(batch, n - start), generator)
            for name, values in model.terms(x, weight, masks, model.seen).items():
                observed = with_all(name.split(".")[0].split("+"), masks)
                found.setdefault(name, []).append(values if observed is None else values[observed])
    found = {name: torch.cat(parts).double() for name, parts in found.items()}
    return {name: values.mean().item() for name, values in found.items() if len(values)}


def grey_entropy(x: Tensor) -> Tensor:
    """The entropy of grey levels x (B, ...) in [0, 1], summed: (B,), nats. No -log p of a Bernoulli is below it: it is that
    of a decoder which says x itself [eq-vae-floor]."""
    return (torch.special.entr(x) + torch.special.entr(1 - x)).flatten(1).sum(1)


def spread_over(rows: Rows, factor: str, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """The numbers of n rows, as many of each value of a factor, and these values: int64 (n,), (n,). Without replacement; at
    least one of each value and no more than there are, so that it may be some more rows than n, or fewer."""
    order = torch.randperm(len(rows), generator=generator).to(rows.device)
    known = [rows.factors_at(part) for part in order.split(8192)]
    if factor not in known[0]:
        raise ValueError(f"factor: found {factor!r}, expected some of {tuple(known[0])}, what is known of the rows")
    value = torch.cat([part[factor] for part in known])
    _, group, counts = value.unique(return_inverse=True, return_counts=True)
    by_value = group.argsort(stable=True)
    place = torch.arange(len(order), device=rows.device) - (counts.cumsum(0) - counts)[group[by_value]]  # among its equals
    kept = by_value[place < max(1, n // len(counts))]
    return order[kept], value[kept]


@torch.no_grad()
def by_group(model: MultiModalVAE, rows: Rows, factor: str, weight: float | dict[str, float] = 1.0, n: int = 4096,
             seed: int = 0, batch: int = 512) -> dict[str, list]:
    """How well a model knows the rows of each value of a factor, such as each person: {"value": its values, in order,
    "above_floor": their means, nats a row, "n": of how many rows}.

    Above the floor: -ELBO given all modalities, by one posterior sample, less the entropy of the grey levels (weighted as the
    log-likelihood is), which depends on the row and not on the model [eq-vae-elbo, eq-vae-floor]. n: rows in all, n // values
    of each value, drawn without replacement: at least one, and no more than it has. Rows that lack a modality are left out,
    and so is a value that has no others. Rows and noise depend on the seed and the batch alone; the caller's random state is
    left as it was. Raises ValueError for an unknown factor, a likelihood other than Bernoulli, which has no such floor, and
    where no row has all modalities.
    """
    every = tuple(model.modalities)
    if wrong := [m for m in every if not isinstance(model.likelihood(m), Bernoulli)]:
        raise ValueError(f'likelihood of "{wrong[0]}": found {type(model.likelihood(wrong[0])).__name__}, expected '
                         "Bernoulli, whose floor is the entropy of the grey levels")
    weights = weight if isinstance(weight, dict) else dict.fromkeys(every, weight)
    index, value = spread_over(rows, factor, n, torch.Generator().manual_seed(seed))
    values, above = [], []
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        for part, known in zip(index.split(batch), value.split(batch)):
            x, masks = rows.batch(part)
            if (kept := with_all(every, masks)) is not None:
                x, known = {m: v[kept] for m, v in x.items()}, known[kept]
            if len(known):
                minus_elbo = -model.terms(x, weight, subsets=[every])[f"{joined(every)}.elbo"]
                above.append(minus_elbo - sum(weights.get(m, 1.0) * grey_entropy(x[m]) for m in every))
                values.append(known)
    if not above:
        raise ValueError(f"rows: found none of {len(index)} with all of {every}, expected some")
    value, group, counts = torch.cat(values).unique(return_inverse=True, return_counts=True)
    total = torch.zeros(len(value), dtype=torch.float64, device=group.device).index_add_(0, group, torch.cat(above).double())
    return {"value": value.tolist(), "above_floor": (total / counts).tolist(), "n": counts.tolist()}


@torch.no_grad()
def latent_kl(q: Gaussian | Mixture) -> Tensor:
    """The KL of each latent of a posterior (B, D) to its prior, averaged over the batch: (D,), nats.

    Of a mixture: an estimate by draws from every part (stratified, from a seed of its own), a latent's marginal at a time.
    """
    if isinstance(q, Gaussian):
        return Gaussian(q.mu.unsqueeze(-1), q.logvar.unsqueeze(-1)).kl().mean(0)  # each latent a block of its own
    B, D = q.parts[0].mu.shape
    each = Mixture(tuple(Gaussian(g.mu.reshape(-1, 1), g.logvar.reshape(-1, 1)) for g in q.parts),
                   q.weights.repeat_interleave(D, 0))  # (B D, 1)
    generator, total, N = torch.Generator().manual_seed(0), 0.0, prior(B * D, 1, q.weights)
    for _ in range(DRAWS):
        z = each.stratified(generator)  # (E, B D, 1)
        total = total + (each.weights.T * (each.log_prob(z) - N.log_prob(z))).sum(0)
    return (total / DRAWS).view(B, D).mean(0)


def at(q: Gaussian | Mixture, rows: Tensor) -> Gaussian | Mixture:
    """These rows of a posterior."""
    if isinstance(q, Gaussian):
        return type(q)(*(getattr(q, f.name)[rows] for f in fields(q)))
    return Mixture(tuple(at(g, rows) for g in q.parts), q.weights[rows])


def placed(q: Gaussian | Mixture, noise: Tensor, u: Tensor) -> Tensor:
    """z (B, D) from noise ~ N(0, 1), (B, D), and, for the part of a mixture, u ~ U(0, 1), (B,)."""
    if isinstance(q, Mixture):
        part = (u.unsqueeze(1) > q.weights.cumsum(1)[:, :-1]).sum(1)  # (B,)
        mu, logvar = (torch.stack([getattr(g, k) for g in q.parts])[part, torch.arange(len(u), device=u.device)]
                      for k in ("mu", "logvar"))
        q = Gaussian(mu, logvar)
    if isinstance(q, FullGaussian):
        return q.placed(noise)
    return q.mu + (0.5 * q.logvar).exp() * noise


@torch.no_grad()
def log_weights(model: MultiModalVAE, x: Data, samples: int, weight: float | dict[str, float] = 1.0, seed: int = 0,
                chunk: int = 4096, present: Data | None = None) -> Tensor:
    """log p(x | z_k) p(z_k) / q(z_k | x) for z_1 ... z_K from the posterior of what was observed in x: (B, K), nats
    [eq-oracle-iwae].

    weight: of the log-likelihood, as in training. chunk: rows decoded at once. present: as of `model.loss`. Everything is
    computed in double precision, and the noise of row b depends on the seed and on b alone: neither the chunk nor the size of
    the batch changes a digit. A private block that was not observed is drawn from its prior, and cancels.
    """
    model, x, masks = doubled(model, x, present)
    q, batch = model.posterior(x, masks), len(next(iter(x.values())))
    noise, u = _noise(batch, samples, list(model.blocks.values()), any(isinstance(g, Mixture) for g in q.values()), seed)
    found = []
    for rows in torch.arange(batch * samples).split(chunk):
        row = (rows // samples).to(model.like.device)
        z, log_ratio, eps_of = {}, 0.0, noise[rows].to(model.like).split(list(model.blocks.values()), 1)
        for k, ((block, g), eps) in enumerate(zip(q.items(), eps_of)):
            g = at(g, row)
            z[block] = placed(g, eps, u[rows, k].to(model.like))
            log_ratio = log_ratio + prior(*eps.shape, like=eps).log_prob(z[block]) - g.log_prob(z[block])
        found.append(log_p(model, z, x, masks, row, weight) + log_ratio)
    return torch.cat(found).unflatten(0, (batch, samples))


def doubled(model: MultiModalVAE, x: Data, present: Data | None) -> tuple[MultiModalVAE, Data, Data]:
    """A copy of the model in double precision, what of x was observed, so too, and the masks that say where."""
    model = copy.deepcopy(model).double()
    x = {m: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for m, v in x.items()}
    return (model, *model.check(x, present))


def log_p(model: MultiModalVAE, z: Latents, x: Data, masks: Data, row: Tensor, weight: float | dict[str, float]) -> Tensor:
    """The weighted log p(x | z) of what was observed in rows `row` (N,) of x, for z {block: (N, D)}: (N,), nats."""
    total = 0.0
    for m, output in model.decode(z, tuple(x)).items():
        each = observed.log_prob(model, m, output, x[m][row])
        each = each * (weight.get(m, 1.0) if isinstance(weight, dict) else weight)
        total = total + (torch.where(masks[m][row], each, torch.zeros_like(each)) if m in masks else each)
    return total


def _noise(batch: int, samples: int, dims: list[int], parts: bool, seed: int) -> tuple[Tensor, Tensor]:
    """N(0, 1), (B K, D), and U(0, 1), (B K, blocks), for the parts of mixtures where there are any."""
    noise, u = [], []
    for b in range(batch):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + b)
        noise.append(torch.randn(samples, sum(dims), generator=generator, dtype=torch.float64))
        u.append(torch.rand(samples, len(dims), generator=generator, dtype=torch.float64) if parts else
                 torch.zeros(samples, len(dims)))
    return torch.cat(noise), torch.cat(u)


def log_likelihoods(model: MultiModalVAE, x: Data, samples: Sequence[int] = (1, 10, 100, 1000),
                    weight: float | dict[str, float] = 1.0, seed: int = 0, chunk: int = 4096,
                    present: Data | None = None) -> dict[int, Tensor]:
    """log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x), for each K in `samples`: {K: (B,)}, nats a row; a lower bound
    of log p(x) on average, which grows with K: Burda et al. (2016), eq. 8 [eq-oracle-iwae].

    x: all modalities, or some for their marginal likelihood. K = 1 is the ELBO. Every K uses all of the largest one's
    draws, in groups of K, whose estimates are averaged. For the other arguments see `log_weights`.
    Raises ValueError if a K does not divide the largest.
    """
    most = max(samples)
    if wrong := [k for k in samples if k < 1 or most % k]:
        raise ValueError(f"samples: found {wrong[0]}, expected divisors of the largest, {most}")
    log_w = log_weights(model, x, most, weight, seed, chunk, present)  # (B, K)
    return {k: (log_w.unflatten(1, (-1, k)).logsumexp(2) - math.log(k)).mean(1) for k in samples}


def log_likelihood(model: MultiModalVAE, x: Data, given: Data | None = None, samples: int = 1000,
                   weight: float | dict[str, float] = 1.0, seed: int = 0, chunk: int = 4096,
                   present: Data | None = None) -> Estimate:
    """log p(x), or log p(x | given) = log p(x, given) - log p(given), with its standard error: see `Estimate`
    [eq-own-conditional].

    Each part by importance sampling from the model's own posterior of what it holds: Burda et al. (2016), eq. 8, and Suzuki
    et al. (2016) for the conditional. The error is that of the mean of the weights, by the delta method (for a conditional of
    the difference, whose parts share their noise); ess is (sum w)^2 / sum w^2, of a conditional the smaller one. What is
    given counts as such, in x too. present: of either. For the other arguments see `log_weights`.
    Raises ValueError where x has no other modality, for an unknown one, data that the model does not take, and fewer than 2
    samples.
    """
    if samples < 2:
        raise ValueError(f"samples: found {samples}, expected at least 2, since the error is their spread")
    x = {m: v for m, v in x.items() if m not in (given or {})}
    if not x:
        raise ValueError(f"x: found no modality beside those given, expected some of {tuple(model.modalities)}")
    given, present, found, spread, ess = dict(given or {}), dict(present or {}), 0.0, 0.0, []
    alone = {m: mask for m, mask in present.items() if m in given}
    for data, masks, sign in [(x | given, present, 1)] + ([(given, alone, -1)] if given else []):
        log_w = log_weights(model, data, samples, weight, seed, chunk, masks)  # (B, K)
        value = log_w.logsumexp(1) - math.log(samples)
        w = (log_w - value.unsqueeze(1)).exp()  # mean 1
        found, spread = found + sign * value, spread + sign * w
        ess.append(samples / w.square().mean(1))
    return Estimate(found, spread.std(1) / math.sqrt(samples), torch.stack(ess).amin(0))
