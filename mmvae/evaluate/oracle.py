"""An exact oracle: a linear-Gaussian model with private and shared latents, whose every answer is known.

    z ~ N(0, 1),   x_m = W_m [z_m, z_S] + b_m + sigma eps, for each modality m    [eq-oracle-model]

One modality alone is probabilistic PCA (Tipping & Bishop 1999), the shared block probabilistic CCA (Bach & Jordan
2005), all blocks inter-battery factor analysis (Klami et al. 2013). Here the book's own classes can be trained
with linear networks, and what they learn and infer be held against the truth. A modality is a vector of P numbers,
{m: (B, P)}; everything is in double precision.
"""
import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from ..gaussian import Gaussian
from ..likelihoods import Normal
from ..models import Latents, MultiModalVAE, Posterior, VanillaVAE
from ..nets import Encoder, Modality
from ..observed import Data, Subset, joined


def log_normal(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """log N(x; mean, covariance) of rows x and mean (B, P), with one full covariance (P, P) for all: (B,), nats."""
    return torch.distributions.MultivariateNormal(mean, covariance, validate_args=False).log_prob(x)


class LinearEncoder(nn.Module):
    """Numbers of some modalities, (B, P) each -> (B, outputs): means linear in x, log-variances constant, as the exact
    posterior has them. inputs: P of all together."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.mu, self.logvar = nn.Linear(inputs, outputs // 2), nn.Parameter(torch.zeros(outputs // 2))

    def forward(self, *x: Tensor) -> Tensor:
        mu = self.mu(torch.cat(x, 1))
        return torch.cat([mu, self.logvar.expand_as(mu)], 1)


def modality(size: int, noise: float, private: int = 0) -> Modality:
    """Vectors of `size` numbers with linear networks, and Gaussian noise of a known standard deviation."""
    likelihood = Normal(noise).double()
    likelihood.given.fill_(math.log(noise))  # to all digits
    return Modality(partial(LinearEncoder, size), partial(nn.Linear, out_features=size), likelihood, private, (size,))


class LinearGaussian(MultiModalVAE):
    """The exact model, dressed as one of the book's: its posterior and its decoder serve wherever a model's do.

    loadings: (numbers of all modalities, D), rows in the order of the modalities, columns in that of `blocks`. offset: as
    many numbers. noise: sigma. sizes: {modality: its numbers}; default: every block but "S" is that of a modality, and all
    have equally many. Raises ValueError if these do not fit each other.
    """

    def __init__(self, loadings: Tensor, offset: Tensor, noise: float, blocks: dict[str, int],
                 sizes: dict[str, int] | None = None):
        names = list(sizes) if sizes else [b for b in blocks if b != "S"]
        sizes = dict(sizes or {m: len(offset) // len(names) for m in names})
        if loadings.shape != (len(offset), sum(blocks.values())) or sum(sizes.values()) != len(offset):
            raise ValueError(f"loadings: found shape {tuple(loadings.shape)} and {len(offset)} offsets, expected a row and "
                             f"an offset for each number of {sizes}, and {sum(blocks.values())} columns for {blocks}")
        super().__init__({m: modality(size, noise, blocks.get(m, 0)) for m, size in sizes.items()}, blocks=dict(blocks))
        self.noise, self.sizes = noise, sizes
        self.register_buffer("loadings", loadings)
        self.register_buffer("offset", offset)

    def rows(self, subset: Subset) -> Tensor:
        """Where the modalities of a subset stand in the loadings: indices, int64 (P of all together,)."""
        ends = dict(zip(self.sizes, torch.tensor(list(self.sizes.values())).cumsum(0).tolist()))
        return torch.cat([torch.arange(ends[m] - self.sizes[m], ends[m], device=self.offset.device) for m in subset])

    def columns(self, block: str) -> slice:
        """Where a block stands in the loadings."""
        start = sum(list(self.blocks.values())[:list(self.blocks).index(block)])
        return slice(start, start + self.blocks[block])

    def draw(self, n: int, generator: torch.Generator | None = None) -> tuple[Data, Latents]:
        """n rows {m: (n, P)}, with their noise, and the latents that they were made of, {block: (n, D_block)}."""
        normal = partial(torch.randn, generator=generator, dtype=self.loadings.dtype)
        z = {block: normal(n, dim) for block, dim in self.blocks.items()}
        return {m: mean + self.noise * normal(n, self.sizes[m]) for m, mean in self.decode(z).items()}, z

    def sigma_points(self) -> Data:
        """Twice as many rows as numbers in one, {m: (N, P)}, whose mean and covariance are exactly the model's: the mean
        over them of anything quadratic in x, such as a log-likelihood or an ELBO of linear networks, is its expectation."""
        every = tuple(self.sizes)
        root = torch.linalg.cholesky(self.covariance(every, every)).T * len(self.offset) ** 0.5
        points = self.offset + torch.cat([root, -root])
        return {m: points[:, self.rows((m,))] for m in every}

    def decode(self, z: Latents, modalities: Sequence[str] | None = None) -> Data:
        """{block: (B, D_block)} -> means {m: (B, P)}. A modality has no use for the others' private blocks."""
        means = {}
        for m in modalities or self.modalities:
            W = self.loadings[self.rows((m,))]
            means[m] = self.offset[self.rows((m,))] + sum(z[b] @ W[:, self.columns(b)].T for b in z)
        return means

    def covariance(self, rows: Subset, columns: Subset) -> Tensor:
        """The covariance of the modalities in `rows` with those in `columns`, (P of all those, P of all these)."""
        W = self.loadings
        whole = W @ W.T + self.noise ** 2 * torch.eye(len(W), dtype=W.dtype)
        return whole[self.rows(rows)][:, self.rows(columns)]

    def flat(self, x: Data) -> tuple[Subset, Tensor]:
        """The modalities in x, and their numbers side by side, both in the model's order."""
        s = tuple(m for m in self.modalities if m in x)
        return s, torch.cat([x[m] for m in s], 1)

    def exact_log_likelihood(self, x: Data) -> Tensor:
        """log p(x) of the modalities in x, z integrated out: (B,), nats. Tipping & Bishop (1999), sec. 3
        [eq-oracle-likelihood]."""
        s, flat = self.flat(x)
        return log_normal(flat, self.offset[self.rows(s)].expand_as(flat), self.covariance(s, s))

    def precision(self, subset: Subset) -> Tensor:
        """The precision matrix of p(z | x_subset), (D, D); it does not depend on x [eq-oracle-posterior]."""
        W = self.loadings[self.rows(subset)]
        return torch.eye(W.shape[1], dtype=W.dtype) + W.T @ W / self.noise ** 2

    def gram(self, m: str) -> Tensor:
        """What modality m adds to the precision matrix of z, W_m' W_m / sigma^2: (D, D). On its diagonal stands how sharply m
        speaks of each latent, 0 where it is silent; off it, which latents m confounds [eq-oracle-gram]."""
        return self.precision((m,)) - torch.eye(self.loadings.shape[1], dtype=self.loadings.dtype)

    def exact_posterior(self, x: Data) -> tuple[Tensor, Tensor]:
        """Mean (B, D) and covariance (D, D) of p(z | the modalities in x): Tipping & Bishop (1999), sec. 3
        [eq-oracle-posterior]."""
        s, flat = self.flat(x)
        covariance, W = torch.linalg.inv(self.precision(s)), self.loadings[self.rows(s)]
        return (flat - self.offset[self.rows(s)]) @ W @ covariance / self.noise ** 2, covariance

    def conditional(self, x: Data, want: Subset | None = None) -> tuple[Tensor, Tensor]:
        """Mean (B, P) and covariance (P, P) of `want`, default all that is not in x, given what is, by conditioning the
        joint normal [eq-oracle-cross]. Raises ValueError if nothing is left."""
        given, flat = self.flat(x)
        target = tuple(m for m in want or self.modalities if m not in x)
        if not target:
            raise ValueError(f"x: found all of {given}, expected one or more to be left for the conditional")
        gain = self.covariance(target, given) @ torch.linalg.inv(self.covariance(given, given))
        mean = self.offset[self.rows(target)] + (flat - self.offset[self.rows(given)]) @ gain.T
        return mean, self.covariance(target, target) - gain @ self.covariance(given, target)

    def posteriors(self, x: Data, subsets: Sequence[Subset]) -> dict[Subset, Posterior]:
        """The diagonal Gaussian nearest to the exact posterior in KL(q || p): its mean, and the diagonal of its
        precision matrix. Exact if that matrix is diagonal; else short by `mean_field` nats [eq-oracle-meanfield]."""
        found = {}
        for s in subsets:
            mean, _ = self.exact_posterior({m: x[m] for m in s})
            logvar = -self.precision(s).diagonal().log().expand_as(mean)
            found[s] = {b: Gaussian(mean[:, self.columns(b)], logvar[:, self.columns(b)])
                        for b in self.blocks if b in s or b not in self.modalities}
        return found

    def mean_field(self, subset: Subset) -> float:
        """What the best diagonal posterior of a subset lacks, nats a row [eq-oracle-meanfield]."""
        precision = self.precision(subset)
        return 0.5 * (precision.diagonal().log().sum() - precision.logdet()).item()


def toy(correlation: float = 0.0, noise: float = 0.5, size: int = 12, seed: int = 0, *,
        names: Sequence[str]) -> LinearGaussian:
    """The truth of the book's chapter: 3 shared latents, 2 private ones and `size` numbers a modality, of these names.

    correlation: cosine between any two columns of the loadings of a modality (of changing sign in every other one). At 0
    every exact posterior is diagonal; at any other value none is. The columns' lengths do not depend on it. Raises
    ValueError for fewer than 5 numbers.
    """
    if size < 5:
        raise ValueError(f"size: found {size}, expected at least 5, as many as a modality has latents")
    g, middle = torch.Generator().manual_seed(seed), (len(names) + 1) // 2
    blocks = {b: 3 if b == "S" else 2 for b in (*names[:middle], "S", *names[middle:])}
    lengths = [1.5, 1.0], [2.0, 1.2, 0.8], [1.0, 0.7, 1.6], [1.4, 1.1]  # private, shared; of the other ones shared, private
    loadings, columns = torch.zeros(len(names) * size, sum(blocks.values()), dtype=torch.float64), list(blocks)
    for k, m in enumerate(names):
        first, sign = k < middle, torch.tensor([1, (-1) ** k, 1, (-1) ** k, 1]).double()
        length = torch.tensor(lengths[0] + lengths[1] if first else lengths[2] + lengths[3], dtype=torch.float64)
        Q = torch.linalg.qr(torch.randn(size, 5, generator=g, dtype=torch.float64))[0]  # orthonormal columns
        cosines = correlation * sign.outer(sign) + (1 - correlation) * torch.eye(5)
        mixed, at = Q @ torch.linalg.cholesky(cosines).T * length, 0
        for block in (b for b in blocks if b in (m, "S")):  # in the order of the blocks
            start = sum(blocks[b] for b in columns[:columns.index(block)])
            loadings[k * size:(k + 1) * size, start:start + blocks[block]] = mixed[:, at:at + blocks[block]]
            at += blocks[block]
    return LinearGaussian(loadings, torch.randn(len(names) * size, generator=g, dtype=torch.float64), noise, blocks)


def linear(model: type[MultiModalVAE], truth: LinearGaussian, private: int | None = None, **options) -> MultiModalVAE:
    """A model of this class with linear networks and a Gaussian likelihood of the true noise, for rows of `truth`.

    Without options it has as many latents as the truth: partitioned alike, or in one block. private: of each modality.
    options: of the class, such as shared and subsets. Double precision.
    """
    owned = {m: modality(size, truth.noise, truth.blocks.get(m, 0) if private is None else private)
             for m, size in truth.sizes.items()}
    as_many = {"latent": sum(truth.blocks.values())} if issubclass(model, VanillaVAE) else {"shared": truth.blocks["S"]}
    made = model(owned, **as_many | options)
    for name, encoder in made.encoders.items():  # what reads several modalities does so linearly too
        P, outputs = sum(truth.sizes[m] for m in name.split("+")), 2 * sum(encoder.blocks.values())
        made.encoders[name] = Encoder(encoder.blocks, LinearEncoder(P, outputs))
    groups = [list(_decoders(made).values())] if "Z" in made.blocks else [[d] for d in _decoders(made).values()]
    for group in groups:
        sizes = [d.out_features for d in group]
        one = nn.Linear(group[0].in_features, sum(sizes))  # its rows are dealt out
        for d, weight, bias in zip(group, one.weight.split(sizes), one.bias.split(sizes)):
            d.load_state_dict({"weight": weight, "bias": bias})
    made.sizes, made.noise = truth.sizes, truth.noise
    return made.double()


def _decoders(model: MultiModalVAE) -> dict[str, nn.Linear]:
    """The decoder of each modality, where one makes them all too."""
    if "Z" in model.blocks:
        return dict(zip(model.modalities, model.decoders[joined(tuple(model.modalities))].make))
    return dict(model.decoders.items())


@torch.no_grad()
def give_decoders(model: MultiModalVAE, truth: LinearGaussian) -> MultiModalVAE:
    """Set the decoders of a `linear` model with the truth's blocks to the truth's loadings; returns the model."""
    for m, decoder in _decoders(model).items():
        W = truth.loadings[truth.rows((m,))]
        decoder.weight.copy_(torch.cat([W[:, truth.columns(m)], W[:, truth.columns("S")]], 1))
        decoder.bias.copy_(truth.offset[truth.rows((m,))])
    return model


def learnt(model: MultiModalVAE) -> LinearGaussian:
    """The linear-Gaussian model that the decoders of a `linear` model make, differentiable in their weights: its
    likelihoods and posteriors are exact. A LinearGaussian is its own."""
    if isinstance(model, LinearGaussian):
        return model
    rows = []
    for m, decoder in _decoders(model).items():
        W = decoder.weight  # (P, private + shared), or (P, latent)
        own = {"Z": W} if "Z" in model.blocks else {m: W[:, :model.blocks[m]], "S": W[:, model.blocks[m]:]}
        rows.append(torch.cat([own.get(b, W.new_zeros(len(W), dim)) for b, dim in model.blocks.items()], 1))
    offset = torch.cat([decoder.bias for decoder in _decoders(model).values()])
    return LinearGaussian(torch.cat(rows), offset, model.noise, model.blocks, model.sizes)


def exact_elbos(model: MultiModalVAE, x: Data, subsets: Sequence[Subset] = ()) -> dict[Subset, Tensor]:
    """The ELBO of each subset, default those that the model sums, with its mean over z in closed form: {s: (B,)}, nats
    [eq-oracle-elbo]. For `linear` models: what `model.terms` estimates with one sample."""
    exact, found = learnt(model), {}
    for s, q in model.posteriors(x, tuple(subsets or model.subsets)).items():
        means = model.decode({b: g.mu for b, g in q.items()}, s)
        lengths = exact.loadings[exact.rows(s)].square().sum(0)  # (D,)
        blur = sum((g.logvar.exp() * lengths[exact.columns(b)]).sum(1) for b, g in q.items())
        log_p = sum(exact.likelihood(m).log_prob(means[m], x[m]) for m in s)
        found[s] = log_p - 0.5 * blur / exact.noise ** 2 - sum(g.kl() for g in q.values())
    return found


def inference_gap(model: MultiModalVAE, x: Data) -> Tensor:
    """KL(q(z | x) || p(z | x)) from the model's posterior to the exact one of its own decoders, given the modalities in
    x: (B,), nats. It is log p(x) - ELBO, without a sample [eq-oracle-gap]."""
    exact = learnt(model)
    mean, covariance = exact.exact_posterior(x)
    q, precision = model.posterior(x), exact.precision(exact.flat(x)[0])
    logvar = torch.cat([g.logvar for g in q.values()], 1)  # (B, D)
    off = torch.cat([g.mu for g in q.values()], 1) - mean
    spread = (logvar.exp() * precision.diagonal()).sum(1) - logvar.sum(1) - precision.logdet() - len(precision)
    return 0.5 * (spread + torch.einsum("bi,ij,bj->b", off, precision, off))


def cross_log_likelihood(model: MultiModalVAE, x: Data, given: Subset) -> Tensor:
    """log-density of the other modalities of x under the model's cross-modal synthesis from `given`: its z_S from the
    posterior, the missing private blocks from their prior, z integrated out: (B,), nats [eq-oracle-cross]."""
    q, target = model.posterior({m: x[m] for m in given}), tuple(m for m in model.modalities if m in x and m not in given)
    exact = learnt(model)
    W, variance = exact.loadings[exact.rows(target)], torch.cat([g.logvar[0].exp() for g in q.values()])
    noise = exact.noise ** 2 * torch.eye(len(W), dtype=W.dtype)
    means = exact.decode({block: g.mu for block, g in q.items()}, target)
    return log_normal(torch.cat([x[m] for m in target], 1), torch.cat(list(means.values()), 1), W * variance @ W.T + noise)
