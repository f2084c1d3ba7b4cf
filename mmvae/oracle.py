"""An exact oracle: a linear-Gaussian model of a pair, with private and shared latents, whose every answer is known.

    z ~ N(0, 1),   x_I = A [z_I, z_S] + b_I + sigma eps,   x_T = B [z_T, z_S] + b_T + sigma eps    [eq-oracle-model]

One modality alone is probabilistic PCA (Tipping & Bishop 1999), the shared block probabilistic CCA (Bach & Jordan
2005), all three blocks inter-battery factor analysis (Klami et al. 2013). Here the book's own classes can be trained
with linear networks, and what they learn and infer be held against the truth. A "picture" is a vector of P numbers,
{"I": (B, P), "T": (B, P)}; everything is in double precision.
"""
import math
from functools import partial

import torch
from torch import Tensor, nn

from .gaussian import Gaussian
from .models import MODELS, SUBSETS, Images, Latents, MultiModalVAE, Posterior, observed, seen_by


def gaussian_log_likelihood(mean: Tensor, x: Tensor, noise: float | Tensor) -> Tensor:
    """log N(x; mean, noise^2) summed over the P numbers of a modality: (B,), nats. mean, x: (B, P); noise: a
    standard deviation."""
    return -0.5 * (((x - mean) / noise).square() + math.log(2 * math.pi * float(noise) ** 2)).sum(1)


def log_normal(x: Tensor, mean: Tensor, covariance: Tensor) -> Tensor:
    """log N(x; mean, covariance) of rows x and mean (B, P), with one full covariance (P, P) for all: (B,), nats."""
    return torch.distributions.MultivariateNormal(mean, covariance, validate_args=False).log_prob(x)


class LinearGaussian(MultiModalVAE):
    """The exact model, dressed as one of the book's: its posterior and its decoder serve wherever a model's do.

    loadings: (2P, D), rows those of x_I then x_T, columns in the order of `blocks`. offset: (2P,). noise: sigma.
    """

    def __init__(self, loadings: Tensor, offset: Tensor, noise: float, blocks: dict[str, int]):
        if loadings.shape != (len(offset), sum(blocks.values())) or len(offset) % 2:
            raise ValueError(f"loadings: found shape {tuple(loadings.shape)}, expected an even number of rows, one for "
                             f"each of the {len(offset)} offsets, and {sum(blocks.values())} columns for {blocks}")
        super().__init__(len(offset) // 2, blocks, SUBSETS)
        self.noise = noise
        self.register_buffer("loadings", loadings)
        self.register_buffer("offset", offset)

    def rows(self, subset: str) -> slice:
        """Where the modalities of a subset stand in the loadings."""
        return slice(0 if "I" in subset else self.size, 2 * self.size if "T" in subset else self.size)

    def columns(self, block: str) -> slice:
        """Where a block stands in the loadings."""
        start = sum(list(self.blocks.values())[:list(self.blocks).index(block)])
        return slice(start, start + self.blocks[block])

    def sample(self, n: int, generator: torch.Generator | None = None) -> tuple[Images, Latents]:
        """n pairs {"I": (n, P), "T": (n, P)} and the latents that they were made of, {block: (n, D_block)}."""
        draw = partial(torch.randn, generator=generator, dtype=self.loadings.dtype)
        z = {block: draw(n, dim) for block, dim in self.blocks.items()}
        return {m: mean + self.noise * draw(n, self.size) for m, mean in self.decode(z).items()}, z

    def sigma_points(self) -> Images:
        """4P pairs {"I": (4P, P), "T": (4P, P)} whose mean and covariance are exactly the model's: the mean over them
        of anything quadratic in x, such as a log-likelihood or an ELBO of linear networks, is its expectation."""
        root = torch.linalg.cholesky(self.covariance("IT", "IT")).T * len(self.offset) ** 0.5
        both = self.offset + torch.cat([root, -root])
        return {m: both[:, self.rows(m)] for m in "IT"}

    def decode(self, z: Latents, modalities: str = "IT") -> Images:
        """{block: (B, D_block)} -> means {"I": (B, P), "T": (B, P)}. A modality has no use for the other's block."""
        means = {}
        for m in modalities:
            W = self.loadings[self.rows(m)]
            means[m] = self.offset[self.rows(m)] + sum(z[b] @ W[:, self.columns(b)].T for b in z)
        return means

    def log_likelihood(self, mean: Tensor, x: Tensor) -> Tensor:
        """log p_m(x_m | z) from the decoder's output: (B,), nats."""
        return gaussian_log_likelihood(mean, x, self.noise)

    def covariance(self, rows: str, columns: str) -> Tensor:
        """The covariance of the modalities in `rows` with those in `columns`, (P or 2P, P or 2P)."""
        W = self.loadings
        whole = W @ W.T + self.noise ** 2 * torch.eye(len(W), dtype=W.dtype)
        return whole[self.rows(rows), self.rows(columns)]

    def exact_log_likelihood(self, x: Images) -> Tensor:
        """log p(x) of the modalities in x, z integrated out: (B,), nats. Tipping & Bishop (1999), sec. 3
        [eq-oracle-likelihood]."""
        s = observed(x)
        both = torch.cat([x[m] for m in s], 1)
        return log_normal(both, self.offset[self.rows(s)].expand_as(both), self.covariance(s, s))

    def precision(self, subset: str) -> Tensor:
        """The precision matrix of p(z | x_subset), (D, D); it does not depend on x [eq-oracle-posterior]."""
        W = self.loadings[self.rows(subset)]
        return torch.eye(W.shape[1], dtype=W.dtype) + W.T @ W / self.noise ** 2

    def exact_posterior(self, x: Images) -> tuple[Tensor, Tensor]:
        """Mean (B, D) and covariance (D, D) of p(z | the modalities in x): Tipping & Bishop (1999), sec. 3
        [eq-oracle-posterior]."""
        s = observed(x)
        covariance, W = torch.linalg.inv(self.precision(s)), self.loadings[self.rows(s)]
        both = torch.cat([x[m] for m in s], 1) - self.offset[self.rows(s)]
        return both @ W @ covariance / self.noise ** 2, covariance

    def conditional(self, x: Images) -> tuple[Tensor, Tensor]:
        """Mean (B, P) and covariance (P, P) of the modality that is not in x given the one that is, by conditioning the
        joint normal of the pair [eq-oracle-cross]. Raises ValueError if x holds both."""
        if (given := observed(x)) == "IT":
            raise ValueError('x: found both modalities, expected "I" or "T" alone')
        target = "T" if given == "I" else "I"
        gain = self.covariance(target, given) @ torch.linalg.inv(self.covariance(given, given))
        mean = self.offset[self.rows(target)] + (x[given] - self.offset[self.rows(given)]) @ gain.T
        return mean, self.covariance(target, target) - gain @ self.covariance(given, target)

    def posteriors(self, x: Images, subsets: tuple[str, ...]) -> dict[str, Posterior]:
        """The diagonal Gaussian nearest to the exact posterior in KL(q || p): its mean, and the diagonal of its
        precision matrix. Exact if that matrix is diagonal; else short by `mean_field` nats [eq-oracle-meanfield]."""
        found = {}
        for s in subsets:
            mean, _ = self.exact_posterior({m: x[m] for m in s})
            logvar = -self.precision(s).diagonal().log().expand_as(mean)
            found[s] = {b: Gaussian(mean[:, self.columns(b)], logvar[:, self.columns(b)])
                        for b in seen_by(s, self.blocks)}
        return found

    def mean_field(self, subset: str) -> float:
        """What the best diagonal posterior of a subset lacks, nats per pair [eq-oracle-meanfield]."""
        precision = self.precision(subset)
        return 0.5 * (precision.diagonal().log().sum() - precision.logdet()).item()


def toy(correlation: float = 0.0, noise: float = 0.5, size: int = 12, seed: int = 0) -> LinearGaussian:
    """The truth of the chapter: 2 + 3 + 2 latents, `size` numbers a modality.

    correlation: cosine between any two columns of the loadings of a modality (of changing sign in T). At 0 every exact
    posterior is diagonal; at any other value none is. The columns' lengths do not depend on it.
    """
    g, blocks = torch.Generator().manual_seed(seed), {"I": 2, "S": 3, "T": 2}
    lengths = {"I": [1.5, 1.0, 2.0, 1.2, 0.8], "T": [1.0, 0.7, 1.6, 1.4, 1.1]}  # in the order of the blocks
    sign = {"I": torch.ones(5).double(), "T": torch.tensor([1, -1, 1, -1, 1]).double()}
    loadings = torch.zeros(2 * size, 7, dtype=torch.float64)
    for row, col, m in ((0, 0, "I"), (size, 2, "T")):
        Q = torch.linalg.qr(torch.randn(size, 5, generator=g, dtype=torch.float64))[0]  # orthonormal columns
        cosines = correlation * sign[m].outer(sign[m]) + (1 - correlation) * torch.eye(5)
        mixed = Q @ torch.linalg.cholesky(cosines).T
        loadings[row:row + size, col:col + 5] = mixed * torch.tensor(lengths[m], dtype=torch.float64)
    return LinearGaussian(loadings, torch.randn(2 * size, generator=g, dtype=torch.float64), noise, blocks)


class LinearEncoder(nn.Module):
    """(B, inputs) -> one Gaussian a block: means linear in x, variances constant, as the exact posterior has them."""

    def __init__(self, blocks: dict[str, int], inputs: int):
        super().__init__()
        self.blocks, self.mu = blocks, nn.Linear(inputs, sum(blocks.values()))
        self.logvar = nn.Parameter(torch.zeros(sum(blocks.values())))

    def forward(self, x: Tensor) -> Posterior:
        mu, dims = self.mu(x), list(self.blocks.values())
        parts = zip(self.blocks, mu.split(dims, 1), self.logvar.expand_as(mu).split(dims, 1))
        return {block: Gaussian(m, logvar) for block, m, logvar in parts}


def linear(name: str, truth: LinearGaussian, **options) -> MultiModalVAE:
    """A model of `mmvae.MODELS` with linear networks and a Gaussian likelihood of the true noise, for pairs of `truth`.

    Without options it has as many latents as the truth: partitioned alike, or in one block. Double precision.
    """
    total, (private, shared, _) = sum(truth.blocks.values()), truth.blocks.values()
    sizes = {"vanilla": {"latent": total}, "wg": {"private": 0, "shared": total}}
    model = MODELS[name](size=16, **sizes.get(name.split("-")[0], {"private": private, "shared": shared}) | options)
    P, blocks = truth.size, model.blocks
    model.encoders = nn.ModuleDict({s: LinearEncoder(blocks if s == "IT" else seen_by(s, blocks), P * len(s))
                                    for s in model.encoders})
    model.decoders = nn.ModuleDict({s: nn.Linear(blocks["Z"] if s == "IT" else blocks[s] + blocks["S"], P * len(s))
                                    for s in model.decoders})
    model.log_likelihood = partial(gaussian_log_likelihood, noise=truth.noise)
    model.size, model.noise = P, truth.noise
    return model.double()


@torch.no_grad()
def give_decoders(model: MultiModalVAE, truth: LinearGaussian) -> MultiModalVAE:
    """Set the decoders of a `linear` model with the truth's blocks to the truth's loadings; returns the model."""
    for m in "IT":
        W = truth.loadings[truth.rows(m)]
        model.decoders[m].weight.copy_(torch.cat([W[:, truth.columns(m)], W[:, truth.columns("S")]], 1))
        model.decoders[m].bias.copy_(truth.offset[truth.rows(m)])
    return model


def learnt(model: MultiModalVAE) -> LinearGaussian:
    """The linear-Gaussian model that the decoders of a `linear` model make, differentiable in their weights: its
    likelihoods and posteriors are exact. A LinearGaussian is its own."""
    if isinstance(model, LinearGaussian):
        return model
    if "Z" in model.blocks:
        return LinearGaussian(model.decoders["IT"].weight, model.decoders["IT"].bias, model.noise, model.blocks)
    I, S, T = model.blocks.values()
    a, b = (model.decoders[m].weight for m in "IT")  # (P, private + shared)
    loadings = torch.cat([torch.cat([a, a.new_zeros(len(a), T)], 1),
                          torch.cat([b.new_zeros(len(b), I), b[:, T:], b[:, :T]], 1)])
    return LinearGaussian(loadings, torch.cat([model.decoders[m].bias for m in "IT"]), model.noise, model.blocks)


def exact_elbos(model: MultiModalVAE, x: Images, subsets: tuple[str, ...] = ()) -> dict[str, Tensor]:
    """The ELBO of each subset, default those that the model sums, with its mean over z in closed form: {s: (B,)}, nats
    [eq-oracle-elbo]. For `linear` models: what `model.terms` estimates with one sample."""
    exact, found = learnt(model), {}
    for s, q in model.posteriors(x, tuple(subsets or model.subsets)).items():
        means = model.decode({b: g.mu for b, g in q.items()}, s)
        lengths = exact.loadings[exact.rows(s)].square().sum(0)  # (D,)
        blur = sum((g.logvar.exp() * lengths[exact.columns(b)]).sum(1) for b, g in q.items())
        log_p = sum(gaussian_log_likelihood(means[m], x[m], exact.noise) for m in s)
        found[s] = log_p - 0.5 * blur / exact.noise ** 2 - sum(g.kl() for g in q.values())
    return found


def inference_gap(model: MultiModalVAE, x: Images) -> Tensor:
    """KL(q(z | x) || p(z | x)) from the model's posterior to the exact one of its own decoders, given the modalities in
    x: (B,), nats. It is log p(x) - ELBO, without a sample [eq-oracle-gap]."""
    exact = learnt(model)
    mean, covariance = exact.exact_posterior(x)
    q, precision = model.posterior(x), exact.precision(observed(x))
    logvar = torch.cat([g.logvar for g in q.values()], 1)  # (B, D)
    off = torch.cat([g.mu for g in q.values()], 1) - mean
    spread = (logvar.exp() * precision.diagonal()).sum(1) - logvar.sum(1) - precision.logdet() - len(precision)
    return 0.5 * (spread + torch.einsum("bi,ij,bj->b", off, precision, off))


def cross_log_likelihood(model: MultiModalVAE, x: Images, given: str) -> Tensor:
    """log-density of the other modality of x under the model's cross-modal synthesis from `given`: its z_S from the
    posterior, the missing private block from its prior, z integrated out: (B,), nats [eq-oracle-cross]."""
    q, target = model.posterior({given: x[given]}), "T" if given == "I" else "I"
    exact = learnt(model)
    W, variance = exact.loadings[exact.rows(target)], torch.cat([g.logvar[0].exp() for g in q.values()])
    noise = exact.noise ** 2 * torch.eye(len(W), dtype=W.dtype)
    mean = exact.decode({block: g.mu for block, g in q.items()}, target)[target]
    return log_normal(x[target], mean, W * variance @ W.T + noise)
