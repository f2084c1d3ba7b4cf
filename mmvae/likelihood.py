"""What a model says of pairs it has never seen, in nats: every term of its ELBOs, and its log-likelihood."""
import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from .data import Pairs
from .gaussian import Gaussian, prior
from .models import SUBSETS, Images, MultiModalVAE, observed


def subsets_of(model: MultiModalVAE) -> tuple[str, ...]:
    """The subsets from which the model can infer z, whether or not training summed their ELBO."""
    return ("IT",) if "Z" in model.blocks else SUBSETS


@torch.no_grad()
def heldout(model: MultiModalVAE, pairs: Pairs, weight: float = 1.0, n: int = 4096, seed: int = 0) -> dict[str, float]:
    """The mean of every loss term over n pairs, one posterior sample each: nats per pair, names as in `model.loss`.

    For all subsets, also those whose ELBO training left out; "total" is minus their sum, not the training loss.
    Noise and pairs depend on the seed alone, so that models are compared on the same pairs. The caller's random
    state is left as it was.
    """
    generator, batch = torch.Generator(pairs.device).manual_seed(seed), 256
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        batches = [model.terms(pairs.sample(batch, generator)[0], weight, subsets_of(model))
                   for _ in range(-(-n // batch))]
    return {name: torch.cat([terms[name] for terms in batches])[:n].double().mean().item() for name in batches[0]}


def latent_kl(q: Gaussian) -> Tensor:
    """The KL of each latent of a Gaussian (B, D) to its prior, averaged over the batch: (D,), nats."""
    return Gaussian(q.mu.unsqueeze(-1), q.logvar.unsqueeze(-1)).kl().mean(0)  # each latent a block of its own


@torch.no_grad()
def log_weights(model: MultiModalVAE, x: Images, samples: int, weight: float = 1.0, seed: int = 0,
                chunk: int = 4096) -> Tensor:
    """log p(x | z_k) p(z_k) / q(z_k | x) for z_1 ... z_K from the posterior of the modalities in x: (B, K), nats
    [eq-oracle-iwae].

    weight: of the log-likelihood, as in training. chunk: images decoded at once. Everything is computed in double
    precision, and the noise of pair b depends on the seed and on b alone: neither the chunk nor the size of the batch
    changes a digit. A private block that was not observed is drawn from its prior, and cancels.
    """
    model, x = copy.deepcopy(model).double(), {m: image.double() for m, image in x.items()}
    subset, batch, q = observed(x), len(next(iter(x.values()))), model.posterior(x)
    total = sum(model.blocks.values())
    noise = torch.stack([torch.randn(samples, total, generator=torch.Generator().manual_seed(seed * 1_000_003 + b),
                                     dtype=torch.float64) for b in range(batch)])  # (B, K, D)
    noise, found = noise.flatten(0, 1).to(next(iter(x.values()))), []  # (B K, D)
    for rows in torch.arange(batch * samples).split(chunk):
        pair = rows // samples
        z, log_ratio = {}, 0.0
        for (block, g), eps in zip(q.items(), noise[rows].split(list(model.blocks.values()), 1)):
            g = Gaussian(g.mu[pair], g.logvar[pair])
            z[block] = g.mu + (0.5 * g.logvar).exp() * eps
            log_ratio = log_ratio + prior(*g.mu.shape, like=g.mu).log_prob(z[block]) - g.log_prob(z[block])
        decoded = model.decode(z, modalities=subset)
        log_p = sum(model.log_likelihood(decoded[m], x[m][pair]) for m in subset)
        found.append(weight * log_p + log_ratio)
    return torch.cat(found).unflatten(0, (batch, samples))


def log_likelihood(model: MultiModalVAE, x: Images, samples: Sequence[int] = (1, 10, 100, 1000), weight: float = 1.0,
                   seed: int = 0, chunk: int = 4096) -> dict[int, Tensor]:
    """log 1/K sum_k p(x | z_k) p(z_k) / q(z_k | x), for each K in `samples`: {K: (B,)}, nats per pair; a lower bound
    of log p(x) on average, which grows with K: Burda et al. (2016), eq. 8 [eq-oracle-iwae].

    x: both modalities, or one for its marginal likelihood. K = 1 is the ELBO. Every K uses all of the largest one's
    draws, in groups of K, whose estimates are averaged. For the other arguments see `log_weights`.
    Raises ValueError if a K does not divide the largest.
    """
    most = max(samples)
    if wrong := [k for k in samples if k < 1 or most % k]:
        raise ValueError(f"samples: found {wrong[0]}, expected divisors of the largest, {most}")
    log_w = log_weights(model, x, most, weight, seed, chunk)  # (B, K)
    return {k: (log_w.unflatten(1, (-1, k)).logsumexp(2) - math.log(k)).mean(1) for k in samples}
