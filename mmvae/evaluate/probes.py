"""What each block of latents holds: probes of every factor, and the partition that they show.

Scores of single latents (effects, MIG, DCI) are in `latents`. scikit-learn is loaded when a probe is first fitted.
"""
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..data import Rows
from ..models import MultiModalVAE
from ..observed import Subset, joined, with_all
from .likelihood import drawn, latent_kl

COLLAPSED = 0.1  # nats: a latent whose mean KL is below it carries nothing that a decoder uses
AT_HOME, ELSEWHERE = 0.8, 0.2  # kNN R^2: at least, and at most, for a partition that is found
NEIGHBOURS = 10


def linear(of_class: bool):
    """A linear probe, of a class or of a number."""
    from sklearn.linear_model import LogisticRegression, RidgeCV
    return LogisticRegression(max_iter=500) if of_class else RidgeCV()


def knn(of_class: bool):
    """The 10 nearest neighbours."""
    from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
    return KNeighborsClassifier(NEIGHBOURS) if of_class else KNeighborsRegressor(NEIGHBOURS)


PROBES = {"linear": linear, "knn": knn}


def codes(model: MultiModalVAE, rows: Rows, subset: Subset, n: int, seed: int = 0, samples: bool = False):
    """The posteriors of n rows from the modalities in `subset`, and the rows' factors; rows in which one of these was not
    observed are left out.

    Returns ({block: mu (n, D), or a sample each}, {block: mean KL of each latent (D,), nats}, {factor: value (n,)}),
    numpy arrays.
    """
    return _codes(model, rows, subset, n, seed, samples)[:3]


@torch.no_grad()
def _codes(model, rows, subset, n, seed, samples=False):
    """`codes`, and the numbers of the rows, int (n,)."""
    generator = torch.Generator().manual_seed(seed)
    index, x, masks, factors = drawn(rows, n, generator)
    kept = with_all(subset, masks)
    if kept is not None:
        if not kept.any():
            raise ValueError(f"rows: found none of {n} with all of {{{', '.join(subset)}}}, expected some")
        index, x, factors = index[kept], {m: x[m][kept] for m in subset}, {f: v[kept] for f, v in factors.items()}
    q = model.posterior({m: x[m] for m in subset})
    z = {block: g.sample(generator) if samples else g.mu for block, g in q.items()}
    kl = {block: latent_kl(g).cpu().numpy() for block, g in q.items()}
    return ({b: v.cpu().numpy() for b, v in z.items()}, kl, {k: v.cpu().numpy() for k, v in factors.items()},
            index.cpu())


def named(found: dict, asked: Sequence[str] = ()) -> list[str]:
    """The factors asked for, default all. Raises ValueError if there is none, or not this one."""
    if not found:
        raise ValueError("factors: found none in these rows, expected at least one, as Rows(x, factors={name: (N,)}) has")
    if wrong := [f for f in asked if f not in found]:
        raise ValueError(f"factors: found {wrong[0]!r}, expected some of {tuple(found)}")
    return list(asked or found)


def is_class(values: np.ndarray) -> bool:
    """Whether a factor names classes: whole numbers do, real ones are measured."""
    return not np.issubdtype(values.dtype, np.floating)


def half_of(rows: Rows, index: Tensor) -> np.ndarray:
    """Which of these rows are of the half that a probe of unknown classes is fitted on, bool (B,): as `rows.half_at` says, or
    those of even number."""
    return np.asarray(rows.half_at(index.to(rows.device)).cpu() if hasattr(rows, "half_at") else index % 2 == 0)


def probes(model: MultiModalVAE, train: Rows, test: Rows, n: int = 4096, seed: int = 0, samples: bool = False,
           subsets: Sequence[Subset] = (), factors: Sequence[str] = ()) -> dict[str, float]:
    """The block x factor table: how well a probe reads each factor off each block's posterior mean.

    Returns {"subset.block.factor.probe": score}, probe "linear" or "knn" (10 nearest neighbours).
    A factor of real numbers: R^2, fitted on codes of `train` and scored on `test`; negative R^2 counts as 0, which is
    chance. A factor of classes (int64): accuracy. If `train` has all of the classes of `test`, fitted and scored in the same
    way, and chance is the share in `test` of the class that is most frequent in `train`. Else, as of people whom neither the
    model nor the probe has seen, fitted on one half of `test` and scored on the other (`half_at` of the rows, or even and odd
    row numbers), and chance is 1 / the number of classes.
    Collapsed latents (mean KL below 0.1 nats) are dropped, since a probe reads variations that no decoder uses; a
    block with no other scores at chance. samples: probe one posterior sample of each row instead of the mean, and drop
    nothing: in a sample a collapsed latent is noise. subsets: only these, default all that the model infers from. factors:
    only these. Raises ValueError for rows without factors, and for too few rows. Palumbo et al. (2023) probe shared and
    private; the full table is ours [eq-side-r2].
    """
    scores = {}
    for subset in subsets or model.seen:
        z, kl, f, _ = _codes(model, train, subset, n, seed, samples)
        z_test, _, f_test, index = _codes(model, test, subset, n, seed + 1, samples)
        half = half_of(test, index)
        for block, alive in ((block, kl[block] >= (0 if samples else COLLAPSED)) for block in z):
            for factor in named(f, named(f_test, factors)):
                a, y, a_test, y_test, chance = _task(factor, (z[block], f), (z_test[block], f_test), half)
                for name, probe in PROBES.items():
                    score = chance
                    if alive.any() and len(np.unique(y)) > 1:  # one person alone cannot be told apart
                        fitted = _scaled(probe(is_class(y))).fit(a[:, alive], y)
                        score = max(0.0, float(fitted.score(a_test[:, alive], y_test)))
                    scores[f"{joined(subset)}.{block}.{factor}.{name}"] = score
    return scores


def _scaled(probe):
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    return make_pipeline(StandardScaler(), probe)


def _task(factor: str, train: tuple, test: tuple, half: np.ndarray):
    """What a probe of a factor is fitted on, what it is scored on, and its chance. train, test: (codes, factors)."""
    (a, f), (a_test, f_test) = train, test
    y, y_test = f[factor], f_test[factor]
    if y.ndim != 1 or is_class(y) != is_class(y_test):
        raise ValueError(f'factors["{factor}"]: found {y.dtype} of shape {y.shape} in train and {y_test.dtype} in test, '
                         "expected a number a row, of one kind in both")
    chance = 0.0
    if is_class(y) and set(np.unique(y_test)) <= set(np.unique(y)):
        values, counts = np.unique(y, return_counts=True)
        chance = float((y_test == values[counts.argmax()]).mean())
    elif is_class(y):
        chance = 1 / len(np.unique(y_test))
        a, y, a_test, y_test = a_test[half], y_test[half], a_test[~half], y_test[~half]
    if len(y) < NEIGHBOURS or not len(y_test):
        raise ValueError(f'factors["{factor}"]: found {len(y)} rows to fit a probe on and {len(y_test)} to score it on, '
                         f"expected at least {NEIGHBOURS} and 1")
    return a, y, a_test, y_test, chance


def verification(model: MultiModalVAE, train: Rows, test: Rows, factor: str, n: int = 4096,
                 seed: int = 0) -> dict[str, float]:
    """How well each block tells two rows of one unseen class, a person say, from rows of two: {"subset.block": AUC}; chance
    0.5.

    Unseen people have no class to be put into. So a linear discriminant is fitted on the training classes' means (it
    drops what is constant within each), and the distance in its space ranks all combinations of n / 4 rows of
    `test`: the AUC is the probability that a combination of one class is closer than one of two. All else differs within
    them. factor: the name of the classes. Raises ValueError for a factor that has none, or just one.
    """
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.metrics import roc_auc_score
    scores = {}
    for subset in model.seen:
        mu, kl, factors = codes(model, train, subset, n, seed)
        mu_test, _, factors_test = codes(model, test, subset, n // 4, seed + 1)
        for values in (factors[named(factors, [factor])[0]], factors_test[named(factors_test, [factor])[0]]):
            if not is_class(values) or len(np.unique(values)) < 2:
                raise ValueError(f'factors["{factor}"]: found {values.dtype} with {len(np.unique(values))} values, expected '
                                 "at least 2 classes, int64")
        i, j = np.triu_indices(len(factors_test[factor]), 1)
        same = factors_test[factor][i] == factors_test[factor][j]
        for block in mu:
            alive, score = kl[block] >= COLLAPSED, 0.5
            if alive.any():
                a, y, to = mu[block][:, alive], factors[factor], mu_test[block][:, alive]
                if any(np.ptp(a[y == value], axis=0).any() for value in np.unique(y)):  # else nothing is to be dropped
                    to = LinearDiscriminantAnalysis().fit(a, y).transform(to)
                to = torch.from_numpy(to)
                score = float(roc_auc_score(same, -torch.cdist(to, to).numpy()[i, j]))
            scores[f"{joined(subset)}.{block}"] = score
    return scores


def partition(scores: dict[str, float], homes: dict[str, str], subset: Subset | None = None, probe: str = "knn") -> dict:
    """Where a table of `probes` puts each factor of `homes`, and whether it shows the partition.

    homes: {factor: the block that should hold it}, e.g. {"light": "T"}. subset: of the table, default the largest in it.
    Returns {factor: {"home", "elsewhere": R^2, "block": the best other one}, ..., "leak": the largest "elsewhere",
    "found": bool}. A factor is in its place with R^2 >= 0.8 at home and <= 0.2 in each other block; the partition is
    found if all of them are. Raises ValueError for a model without these blocks, and for a factor that was not probed.
    """
    keys = [key.split(".", 2) for key in scores]
    subset = joined(subset) if subset else max((s for s, *_ in keys), key=lambda s: s.count("+"))
    blocks = list(dict.fromkeys(block for s, block, _ in keys if s == subset))
    if missing := [home for home in homes.values() if home not in blocks] or (not blocks[1:] and ["other than it"]):
        raise ValueError(f"scores: found no block {missing[0]} of {{{subset.replace('+', ', ')}}}; a partition needs private "
                         "blocks")
    placed = {}
    for factor, home in homes.items():
        try:
            score = {b: scores[f"{subset}.{b}.{factor}.{probe}"] for b in blocks}
        except KeyError as e:
            raise ValueError(f"scores: found no {e.args[0]!r}, expected it in a table of `probes`") from None
        other = max((b for b in blocks if b != home), key=score.get)
        placed[factor] = {"home": score[home], "elsewhere": score[other], "block": other}
    found = all(p["home"] >= AT_HOME and p["elsewhere"] <= ELSEWHERE for p in placed.values())
    return placed | {"leak": max(p["elsewhere"] for p in placed.values()), "found": found}
