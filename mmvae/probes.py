"""What each block of latents holds: probes of every factor, the partition that they show, MIG and DCI."""
import math

import numpy as np
import torch
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import GradientBoostingClassifier, GradientBoostingRegressor
from sklearn.linear_model import LogisticRegression, RidgeCV
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from .data import FACTORS, Pairs
from .gaussian import Gaussian
from .likelihood import latent_kl, subsets_of
from .models import MultiModalVAE

ANGLES = FACTORS[1:]  # azimuth, elevation, light
HOME = {"elevation": "I", "light": "T", "azimuth": "S"}  # the block that should hold each factor in degrees
COLLAPSED = 0.1  # nats: a latent whose mean KL is below it carries nothing that a decoder uses
AT_HOME, ELSEWHERE = 0.8, 0.2  # kNN R^2: at least, and at most, for a partition that is found
PROBES = {
    "linear": (RidgeCV, lambda: LogisticRegression(max_iter=500)),  # for a number, for a class
    "knn": (lambda: KNeighborsRegressor(10), lambda: KNeighborsClassifier(10)),
}


@torch.no_grad()
def codes(model: MultiModalVAE, pairs: Pairs, subset: str, n: int, seed: int = 0, samples: bool = False):
    """The posteriors of n pairs from the modalities in `subset`, and the pairs' factors.

    Returns ({block: mu (n, D), or a sample each}, {block: mean KL of each latent (D,), nats}, {factor: value (n,)}),
    numpy arrays.
    """
    generator = torch.Generator(pairs.device).manual_seed(seed)
    x, factors = pairs.sample(n, generator)
    q = model.posterior({m: x[m] for m in subset})
    z = {block: g.mu for block, g in q.items()}
    if samples:
        z = {block: g.mu + (0.5 * g.logvar).exp() * torch.randn(g.mu.shape, generator=generator, device=pairs.device)
             for block, g in q.items()}
    kl = {block: latent_kl(g).cpu().numpy() for block, g in q.items()}
    return {b: v.cpu().numpy() for b, v in z.items()}, kl, {k: v.cpu().numpy() for k, v in factors.items()}


def probes(model: MultiModalVAE, train: Pairs, test: Pairs, n: int = 4096, seed: int = 0,
           samples: bool = False, subsets: tuple[str, ...] = ()) -> dict[str, float]:
    """The block x factor table: how well a probe reads each factor off each block's posterior mean.

    Returns {"subset.block.factor.probe": score}, probe "linear" or "knn" (10 nearest neighbours). Elevation, light
    and azimuth: R^2, fitted on codes of `train` and scored on `test`, whose identities neither the model nor the
    probe has seen; negative R^2 counts as 0, which is chance. Identity: accuracy among the identities of `test`,
    fitted on every other azimuth and scored on the ones between; chance is 1 / their number.
    Collapsed latents (mean KL below 0.1 nats) are dropped, since a probe reads variations that no decoder uses; a
    block with no other scores at chance. samples: probe one posterior sample of each pair instead of the mean, and drop
    nothing: in a sample a collapsed latent is noise. subsets: only these. Palumbo et al. (2023) probe shared and private;
    the full table is ours [eq-side-r2].
    """
    scores = {}
    for subset in subsets or subsets_of(model):
        z, kl, factors = codes(model, train, subset, n, seed, samples)
        z_test, _, factors_test = codes(model, test, subset, n, seed + 1, samples)
        pose = np.searchsorted(test.values["azimuth"].cpu().numpy(), factors_test["azimuth"])
        for block, alive in ((block, kl[block] >= (0 if samples else COLLAPSED)) for block in z):
            for factor in FACTORS:
                if factor == "identity":
                    on = {even: (z_test[block][pose % 2 == even], factors_test[factor][pose % 2 == even])
                          for even in (0, 1)}
                    (a, y), (a_test, y_test), chance = on[0], on[1], 1 / test.shape[0]
                else:
                    (a, y), (a_test, y_test) = (z[block], factors[factor]), (z_test[block], factors_test[factor])
                    chance = 0.0
                for name, kinds in PROBES.items():
                    score = chance
                    if alive.any() and len(np.unique(y)) > 1:  # one person alone cannot be told apart
                        probe = make_pipeline(StandardScaler(), kinds[factor == "identity"]())
                        score = max(0.0, float(probe.fit(a[:, alive], y).score(a_test[:, alive], y_test)))
                    scores[f"{subset}.{block}.{factor}.{name}"] = score
    return scores


def verification(model: MultiModalVAE, train: Pairs, test: Pairs, n: int = 4096, seed: int = 0) -> dict[str, float]:
    """How well each block tells two pairs of one unseen person from pairs of two: {"subset.block": AUC}; chance 0.5.

    Unseen people have no class to be put into. So a linear discriminant is fitted on the training identities' means (it
    drops what is constant within each person), and the distance in its space ranks all combinations of n / 4 pairs of
    unseen people: the AUC is the probability that a combination of one person is closer than one of two. Azimuth and
    private factors differ within them.
    """
    scores = {}
    for subset in subsets_of(model):
        mu, kl, factors = codes(model, train, subset, n, seed)
        mu_test, _, factors_test = codes(model, test, subset, n // 4, seed + 1)
        i, j = np.triu_indices(n // 4, 1)
        same = factors_test["identity"][i] == factors_test["identity"][j]
        for block in mu:
            alive, score = kl[block] >= COLLAPSED, 0.5
            if alive.any():
                space = LinearDiscriminantAnalysis().fit(mu[block][:, alive], factors["identity"])
                to = torch.from_numpy(space.transform(mu_test[block][:, alive]))
                score = float(roc_auc_score(same, -torch.cdist(to, to).numpy()[i, j]))
            scores[f"{subset}.{block}"] = score
    return scores


def partition(scores: dict[str, float], subset: str = "IT", probe: str = "knn") -> dict:
    """Where a table of `probes` puts each factor in degrees, and whether it shows the partition.

    Returns {factor: {"home", "elsewhere": R^2, "block": the best other one}, ..., "leak": the largest "elsewhere",
    "found": bool}. A factor is in its place with R^2 >= 0.8 at home and <= 0.2 in each other block; the partition is
    found if elevation, light and azimuth are. Raises ValueError for a model without private blocks.
    """
    if f"{subset}.I.elevation.{probe}" not in scores:
        raise ValueError(f"scores: found no block I of {{{', '.join(subset)}}}; a partition needs private blocks")
    placed = {}
    for factor, home in HOME.items():
        score = {b: scores[f"{subset}.{b}.{factor}.{probe}"] for b in "IST"}
        other = max((b for b in "IST" if b != home), key=score.get)
        placed[factor] = {"home": score[home], "elsewhere": score[other], "block": other}
    found = all(p["home"] >= AT_HOME and p["elsewhere"] <= ELSEWHERE for p in placed.values())
    return placed | {"leak": max(p["elsewhere"] for p in placed.values()), "found": found}


# ---- scores of single latents

def _latents(q: dict[str, Gaussian]) -> Gaussian:
    """All blocks side by side: (B, all latents)."""
    return Gaussian(*(torch.cat([getattr(g, part) for g in q.values()], 1) for part in ("mu", "logvar")))


def entropies(q: Gaussian, z: Tensor, chunk: int = 40) -> Tensor:
    """-E[log 1/N sum_n q(z_j | x_n)] over draws z (M, D), for each latent of q (N, D) on its own: (D,), nats."""
    total = z.new_zeros(z.shape[1], dtype=torch.float64)
    scale = (-0.5 * q.logvar).exp().T.contiguous()  # (D, N), as the means
    mu, density = q.mu.T.contiguous(), scale / math.sqrt(2 * math.pi) / len(q.mu)
    for j in range(z.shape[1]):
        for part in z[:, j].split(chunk):
            d = (part[:, None] - mu[j]).mul_(scale[j])  # (chunk, N)
            total[j] -= (d.square_().mul_(-0.5).exp_() @ density[j]).double().log().sum()
    return total / len(z)


def _grid(model: MultiModalVAE, pairs: Pairs) -> tuple[Gaussian, Tensor]:
    """The posterior of every pair of the grid given all modalities, (N, latents), and its indices (4, N)."""
    index = torch.stack(torch.unravel_index(torch.arange(len(pairs), device=pairs.device), pairs.shape))
    parts = [_latents(model.posterior(pairs.at(*i)[0])) for i in index.split(4096, 1)]
    return Gaussian(torch.cat([g.mu for g in parts]), torch.cat([g.logvar for g in parts])), index


@torch.no_grad()
def effects(model: MultiModalVAE, pairs: Pairs, n: int = 8, span: float = 2.0) -> dict[str, list[float]]:
    """What each latent does, all blocks side by side: lists of as many numbers.

    "travel.I", "travel.T": how far a pixel of an image travels, grey levels of 0 to 255, mean over pixels and n fixed
    pairs, as the latent goes to -span, 0 and span and the others stay at their posterior mean. "shared": the part of the
    variance of its posterior mean, over the whole grid of `pairs`, that azimuth and identity explain together (a first-order
    index, 0 to 1). "kl": its mean KL to the prior, nats.
    """
    q, _ = _grid(model, pairs)
    mu = q.mu.unflatten(0, pairs.shape)  # (N, A, E, L, latents)
    shared = mu.mean((2, 3)).flatten(0, 1).var(0, correction=0) / mu.flatten(0, 3).var(0, correction=0).clamp(min=1e-12)
    rest = model.posterior(pairs.fixed(n)[0])
    found = {"shared": shared.tolist(), "kl": latent_kl(q).tolist(), "travel.I": [], "travel.T": []}
    for block, dim in model.blocks.items():
        for k in range(dim):
            moved = []
            for value in (-span, 0.0, span):
                z = {b: g.mu.clone() for b, g in rest.items()}
                z[block][:, k] = value
                moved.append(model.decode(z))
            for m in "IT":
                images = torch.stack([logits[m].sigmoid() for logits in moved])
                found[f"travel.{m}"].append(255 * (images.amax(0) - images.amin(0)).mean().item())
    return found


@torch.no_grad()
def mig(model: MultiModalVAE, pairs: Pairs, draws: int = 10_000, seed: int = 0) -> dict[str, float]:
    """The mutual information gap: {factor: gap, "mean": of azimuth, elevation and light}; 0 to 1, chance 0.

    I(z_j; v) = H(z_j) - H(z_j | v) from posterior samples given all modalities, q(z) = 1/N sum q(z | x_n) over the
    whole grid of `pairs`; the gap between the two most informative latents, over H(v): Chen et al. (2018), eq. 6
    [eq-learned-mig]. Identity is given apart: so many classes fit into no single latent. A factor that is bent over two
    latents, as azimuth can be, has no gap however well it is known.
    """
    q, index = _grid(model, pairs)
    generator = torch.Generator(pairs.device).manual_seed(seed)
    cell = torch.randint(len(pairs), (draws,), generator=generator, device=pairs.device)
    noise = torch.randn(draws, q.mu.shape[1], generator=generator, device=pairs.device)
    z = q.mu[cell] + (0.5 * q.logvar[cell]).exp() * noise  # (draws, D)
    marginal, gaps = entropies(q, z), {}
    for factor, values in zip(FACTORS, index):
        conditional = torch.zeros_like(marginal)
        for value in values.unique():
            of = values == value
            mine = z[of[cell]]
            if len(mine):
                conditional += entropies(Gaussian(q.mu[of], q.logvar[of]), mine) * len(mine) / draws
        first, second = (marginal - conditional).topk(2).values.tolist()
        gaps[factor] = (first - second) / math.log(len(values.unique())) if len(values.unique()) > 1 else 0.0
    return gaps | {"mean": sum(gaps[k] for k in ANGLES) / 3}


def dci(model: MultiModalVAE, train: Pairs, test: Pairs, n: int = 10_000, seed: int = 0) -> dict[str, float]:
    """Disentanglement, completeness and informativeness: Eastwood & Williams (2018), sec. 2; each 0 to 1.

    Gradient-boosted trees read each factor off all latents' means given all modalities; their importances R (latents x
    factors) say which latent serves which factor. Disentanglement: 1 - entropy of a latent's row, weighted by its
    share of R. Completeness: 1 - entropy of a factor's column, averaged. Informativeness: R^2 of the angles on unseen
    identities, averaged [eq-learned-dci]. Collapsed latents take part. Angles are learnt on n pairs of
    training identities and tested on n / 2 of unseen ones; identity (for R only) on n / 4 pairs of unseen people.
    """
    subset = subsets_of(model)[-1]

    def flat(pairs, n, seed):
        mu, _, factors = codes(model, pairs, subset, n, seed)
        return np.concatenate(list(mu.values()), 1), factors

    (z, f), (z_test, f_test), (z_id, f_id) = flat(train, n, seed), flat(test, n // 2, seed + 1), flat(test, n // 4, seed)
    columns, scores = [], []
    for factor in FACTORS:
        if factor == "identity":
            trees = GradientBoostingClassifier(n_estimators=10, subsample=0.5, random_state=seed).fit(z_id, f_id[factor])
        else:
            trees = GradientBoostingRegressor(n_estimators=50, subsample=0.5, random_state=seed).fit(z, f[factor])
            scores.append(max(0.0, trees.score(z_test, f_test[factor])))
        columns.append(trees.feature_importances_)
    return importances_to_dci(np.stack(columns, 1)) | {"informativeness": float(np.mean(scores))}


def importances_to_dci(importances: np.ndarray) -> dict[str, float]:
    """The two entropies of a matrix R (latents, factors), each at least 0: {"disentanglement", "completeness"}."""
    def one_minus_entropy(rows):  # of each row, in units of the log of its length
        p = rows / np.maximum(rows.sum(1, keepdims=True), 1e-12)
        return 1 + (p * np.log(np.maximum(p, 1e-12))).sum(1) / math.log(rows.shape[1])

    weight = importances.sum(1) / max(importances.sum(), 1e-12)
    return {"disentanglement": float((weight * one_minus_entropy(importances)).sum()),
            "completeness": float(one_minus_entropy(importances.T).mean())}
