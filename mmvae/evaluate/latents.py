"""What single latents do and hold: how far they move each modality, MIG and DCI."""
import math
from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import torch
from torch import Tensor

from ..data import Rows
from ..gaussian import Gaussian, Mixture
from ..likelihoods import Bernoulli
from ..models import MultiModalVAE, Posterior
from ..observed import Data, with_all
from .likelihood import at, latent_kl, placed
from .probes import codes, is_class, named

MOST = 50_000  # rows of a data set that stand for all of them
VALUES = 100  # of a factor of real numbers, if information about it is to be counted


def everywhere(model: MultiModalVAE, rows: Rows, chunk: int = 4096) -> tuple[Posterior, Data, Tensor]:
    """Of every row that has all modalities: the posterior given these {block: (N, D)}, the factors {factor: (N,)}, and its
    number (N,); of more than 50,000 rows, as many drawn with a fixed seed."""
    index, parts = torch.arange(len(rows), device=rows.device), []
    if len(rows) > MOST:
        index = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[:MOST].to(rows.device)
    for i in index.split(chunk):
        x, masks = rows.batch(i)
        kept = with_all(tuple(masks), masks)
        if kept is not None:
            x, i = {m: v[kept] for m, v in x.items()}, i[kept]
        if len(i):
            parts.append((model.posterior(x), rows.factors_at(i), i))
    if not parts:
        raise ValueError("rows: found none with all modalities, expected some")
    posteriors, factors, index = zip(*parts)
    return ({b: _joined([q[b] for q in posteriors]) for b in posteriors[0]},
            {f: torch.cat([v[f] for v in factors]) for f in factors[0]}, torch.cat(index))


def _joined(parts: list[Gaussian | Mixture]) -> Gaussian | Mixture:
    """Batches one after the other."""
    if isinstance(parts[0], Gaussian):
        return type(parts[0])(*(torch.cat([getattr(g, f.name) for g in parts]) for f in fields(parts[0])))
    return Mixture(tuple(map(_joined, zip(*(q.parts for q in parts)))), torch.cat([q.weights for q in parts]))


def entropies(q: Gaussian | Mixture, z: Tensor, chunk: int = 40) -> Tensor:
    """-E[log 1/N sum_n q(z_j | x_n)] over draws z (M, D), for each latent of q (N, D) on its own: (D,), nats."""
    total = z.new_zeros(z.shape[1], dtype=torch.float64)
    parts = q.parts if isinstance(q, Mixture) else (q,)
    mu = torch.cat([g.mu for g in parts]).T.contiguous()  # (D, N), or all parts of a mixture, (D, E N)
    scale = torch.cat([(-0.5 * g.logvar).exp() for g in parts]).T.contiguous()  # as the means
    density = scale / math.sqrt(2 * math.pi) / len(parts[0].mu)
    if isinstance(q, Mixture):
        density = density * q.weights.T.flatten()
    for j in range(z.shape[1]):
        for part in z[:, j].split(chunk):
            d = (part[:, None] - mu[j]).mul_(scale[j])  # (chunk, N)
            total[j] -= (d.square_().mul_(-0.5).exp_() @ density[j]).double().log().sum()
    return total / len(z)


@torch.no_grad()
def effects(model: MultiModalVAE, rows: Rows, x: Data | None = None, shared: Sequence[str] = (),
            span: float = 2.0) -> dict[str, list[float]]:
    """What each latent does, all blocks side by side: lists of as many numbers.

    "travel.m", for each modality: how far what is shown of it travels, mean over all of its numbers and the rows of x, as
    the latent goes to -span, 0 and span and the others stay at their posterior mean. In grey levels of 0 to 255 for pictures
    with a Bernoulli likelihood, else in the data's units; of classes, in probability. "kl": its mean KL to the prior, nats.
    "shared", if factors are named: the part of the variance of its posterior mean, over all of `rows`, that these explain
    together (a first-order index, 0 to 1). x: default 8 rows, evenly spaced. Raises ValueError for an unknown factor.
    """
    q, factors, index = everywhere(model, rows)
    found = {"shared": _explained(q, factors, named(factors, shared))} if shared else {}
    found |= {"kl": [v for g in q.values() for v in latent_kl(g).tolist()]} | {f"travel.{m}": [] for m in model.modalities}
    if x is None:
        x = rows.batch(index[torch.linspace(0, len(index) - 1, min(8, len(index)), device=index.device).long()])[0]
    rest = model.posterior(x)
    for block, dim in model.blocks.items():
        for k in range(dim):
            moved = []
            for value in (-span, 0.0, span):
                z = {b: g.mu.clone() for b, g in rest.items()}
                z[block][:, k] = value
                moved.append(model.means(z))
            for m in model.modalities:
                shown = torch.stack([means[m] for means in moved])
                found[f"travel.{m}"].append(_unit(model, m, shown) * (shown.amax(0) - shown.amin(0)).mean().item())
    return found


def mixing(travels: dict[str, list[float]], idle: float = 0.01) -> dict[str, float | int]:
    """How mixed latents are, by what the decoders do with them; travels: what `effects` says of two modalities or more.

    Of each latent the second farthest travel over the farthest, in one unit: 0 if it moves one modality alone, 1 if it moves
    two alike. "mixing": the mean over the latents. "one": how many are below 0.1. "idle": how many move no modality by `idle`
    of the farthest travel there is; they count for nothing else. Where all are idle "mixing" is NaN. Raises ValueError for
    fewer than two modalities.
    """
    far = torch.tensor([v for k, v in travels.items() if k.startswith("travel.")], dtype=torch.float64)  # (modalities, D)
    if len(far) < 2:
        raise ValueError(f"travels: found {len(far)} modalities in {sorted(travels)}, expected two or more")
    second, first = far.sort(0).values[-2:]
    moves = first > idle * far.amax()
    ratio = second[moves] / first[moves]
    return {"mixing": ratio.mean().item(), "one": int((ratio < 0.1).sum()), "idle": int((~moves).sum())}


def _unit(model: MultiModalVAE, m: str, shown: Tensor) -> float:
    """255 for pictures in [0, 1], (3, B, C, H, W)."""
    return 255.0 if isinstance(model.likelihood(m), Bernoulli) and shown.dim() == 5 else 1.0


def _explained(q: Posterior, factors: Data, names: list[str]) -> list[float]:
    """The share of each latent's variance, of its means, between the combinations of some factors' values."""
    mu = torch.cat([g.mu for g in q.values()], 1).double()  # (N, D)
    _, group = torch.stack([factors[f].double() for f in names], 1).unique(dim=0, return_inverse=True)
    count = torch.bincount(group).to(mu)  # (groups,)
    mean = mu.new_zeros(len(count), mu.shape[1]).index_add_(0, group, mu) / count.unsqueeze(1)
    between = (count.unsqueeze(1) * (mean - mu.mean(0)).square()).sum(0) / len(mu)
    return (between / mu.var(0, correction=0).clamp(min=1e-12)).tolist()


def shares(model: MultiModalVAE, rows: Rows, n: int = 4096, seed: int = 0,
           factors: Sequence[str] = ()) -> dict[str, list[float]]:
    """Of what each latent says, how much goes with each factor: {factor: [a share for each latent, all blocks side by side]},
    and its mean KL to the prior, {"kl": nats}.

    A share is the part of the variance of the posterior mean, given all modalities, of n rows, that lies between the values
    of one factor, 0 to 1, wherever in its range it bends: the correlation ratio of Pearson (1905), less what as many random
    groups would show, Kelley (1935). Of factors that vary on their own, as on a grid, the shares add up to about 1 at most.
    factors: default all. Raises ValueError for no more rows than a factor has values.
    """
    mu, kl, known = codes(model, rows, model.seen[-1], n, seed)
    z, found = np.concatenate(list(mu.values()), 1).astype(float), {"kl": np.concatenate(list(kl.values())).tolist()}
    for f in named(known, factors):
        values, group, count = np.unique(known[f], return_inverse=True, return_counts=True)
        if len(z) <= len(values):
            raise ValueError(f'factors["{f}"]: found {len(values)} values in {len(z)} rows, expected fewer values than rows')
        means = np.stack([np.bincount(group, weights=column) / count for column in z.T], 1)  # (values, latents)
        inside = (z - means[group]).var(0) / np.maximum(z.var(0), 1e-12)
        found[f] = (1 - inside * (len(z) - 1) / (len(z) - len(values))).clip(0, 1).tolist()
    return found


@torch.no_grad()
def mig(model: MultiModalVAE, rows: Rows, draws: int = 10_000, seed: int = 0, factors: Sequence[str] = (),
        average: Sequence[str] = ()) -> dict[str, float]:
    """The mutual information gap: {factor: gap, "mean": of the factors in `average`, default all}; 0 to 1, chance 0.

    I(z_j; v) = H(z_j) - H(z_j | v) from posterior samples given all modalities, q(z) = 1/N sum q(z | x_n) over all of
    `rows` (at most 50,000); the gap between the two most informative latents, over H(v): Chen et al. (2018), eq. 6
    [eq-learned-mig]. A factor of many classes, as identity, fits into no single latent, and one that is bent over two
    latents, as azimuth can be, has no gap however well it is known. factors: default all of the rows. Raises ValueError for
    a factor of real numbers with more than 100 different ones.
    """
    q, known, _ = everywhere(model, rows)
    names = named(known, factors)
    for f in names:
        if is_class(known[f].cpu().numpy()) or len(known[f].unique()) <= VALUES:
            continue
        raise ValueError(f'factors["{f}"]: found {len(known[f].unique())} different numbers, expected at most {VALUES}; sort '
                         "them into classes first")
    generator, N = torch.Generator().manual_seed(seed), len(known[names[0]])  # on the CPU: the same draws on every device
    cell = torch.randint(N, (draws,), generator=generator).to(rows.device)
    sizes = [g.mu.shape[1] for g in q.values()]
    noise, u = torch.randn(draws, sum(sizes), generator=generator), torch.rand(draws, len(q), generator=generator)
    z = [placed(at(g, cell), eps.to(g.mu), v.to(g.mu)) for g, eps, v in zip(q.values(), noise.split(sizes, 1), u.T)]

    def entropy(of: Tensor | slice, mine: Tensor | slice) -> Tensor:
        """Of each latent, from these rows and these draws: (latents,)."""
        return torch.cat([entropies(at(g, of), part[mine]) for g, part in zip(q.values(), z)])

    marginal, gaps = entropy(slice(None), slice(None)), {}
    for f in names:
        conditional, values = torch.zeros_like(marginal), known[f].unique()
        for value in values:
            of = known[f] == value
            if len(mine := of[cell].nonzero().squeeze(1)):
                conditional += entropy(of, mine) * len(mine) / draws
        first, second, *_ = [*(marginal - conditional).sort(descending=True).values.tolist(), 0.0]  # one latent: no rival
        gaps[f] = (first - second) / _entropy_of(known[f]) if len(values) > 1 else 0.0
    return gaps | {"mean": sum(gaps[f] for f in average or names) / len(average or names)}


def _entropy_of(values: Tensor) -> float:
    """H(v) of a factor, nats: log of the number of its values where all are equally frequent."""
    p = values.unique(return_counts=True)[1].double() / len(values)
    return -(p * p.log()).sum().item()


def dci(model: MultiModalVAE, train: Rows, test: Rows, n: int = 10_000, seed: int = 0,
        factors: Sequence[str] = ()) -> dict[str, float]:
    """Disentanglement, completeness and informativeness: Eastwood & Williams (2018), sec. 2; each 0 to 1.

    Gradient-boosted trees read each factor off all latents' means given all modalities; their importances R (latents x
    factors) say which latent serves which factor. Disentanglement: 1 - entropy of a latent's row, weighted by its
    share of R. Completeness: 1 - entropy of a factor's column, averaged. Informativeness: R^2 of real factors and accuracy of
    classes on `test`, averaged [eq-learned-dci]. Collapsed latents take part. Factors are learnt on n rows of `train` and
    tested on n / 2 of `test`; classes that `train` does not have (for R only) on n / 4 rows of `test`. factors: default all.
    Raises ValueError if one of them never varies, for it would be served perfectly, and for fewer than two of each.
    """
    from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
    subset = model.seen[-1]

    def flat(rows, n, seed):
        mu, _, factors = codes(model, rows, subset, n, seed)
        return np.concatenate(list(mu.values()), 1), factors

    (z, f), (z_test, f_test), (z_new, f_new) = flat(train, n, seed), flat(test, n // 2, seed + 1), flat(test, n // 4, seed)
    names, columns, scores = named(f, named(f_test, factors)), [], []
    if min(len(names), z.shape[1]) < 2:
        raise ValueError(f"dci: found {len(names)} factors and {z.shape[1]} latents, expected at least 2 of each")
    for factor in names:
        of_class = is_class(f[factor])
        a, y = z, f[factor]
        seen = not of_class or set(np.unique(f_test[factor])) <= set(np.unique(y))
        if not seen:
            a, y = z_new, f_new[factor]
        if len(np.unique(y)) < 2:
            raise ValueError(f'factors["{factor}"]: found {y[0]} in every row, expected a factor that varies; say '
                             f"factors={[f for f in names if f != factor]}")
        trees = (GradientBoostingClassifier(n_estimators=10, subsample=0.5, random_state=seed) if of_class else
                 GradientBoostingRegressor(n_estimators=50, subsample=0.5, random_state=seed)).fit(a, y)
        if seen:
            scores.append(max(0.0, trees.score(z_test, f_test[factor])))
        columns.append(trees.feature_importances_)
    found = importances_to_dci(np.stack(columns, 1))
    return found | ({"informativeness": float(np.mean(scores))} if scores else {})


def importances_to_dci(importances: np.ndarray) -> dict[str, float]:
    """The two entropies of a matrix R (latents, factors), each at least 0: {"disentanglement", "completeness"}. A factor that
    no latent serves counts as 0."""
    def one_minus_entropy(rows):  # of each row, in units of the log of its length
        p = rows / np.maximum(rows.sum(1, keepdims=True), 1e-12)
        return np.where(rows.sum(1) > 0, 1 + (p * np.log(np.maximum(p, 1e-12))).sum(1) / math.log(rows.shape[1]), 0.0)

    weight = importances.sum(1) / max(importances.sum(), 1e-12)
    return {"disentanglement": float((weight * one_minus_entropy(importances)).sum()),
            "completeness": float(one_minus_entropy(importances.T).mean())}
