"""Gaussians with a full covariance, and the product of experts that have one, against PyTorch's own multivariate normal, sums in
information form, and the diagonal model that they contain."""
import math
from collections import Counter

import pytest
import torch

import mmvae
import worlds
from mmvae import PoEVAE, evaluate, stacked, vectors
from mmvae.correlated import FullGaussian, FullPoEVAE, inverse_root
from mmvae.evaluate import oracle
from mmvae.experiment import grid
from mmvae.gaussian import Gaussian
from test_stacked import CHUNK, compare
from test_stacked import rows as pictures

D = 4


def matrices(n=3, dim=D, seed=0):
    """Precisions 1 + (positive semi-definite), (n, dim, dim)."""
    A = torch.randn(n, dim, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.eye(dim).double() + A @ A.mT


def some(n=3, seed=0):
    """As the package has it and as PyTorch has it."""
    mu, precision = torch.randn(n, D, generator=torch.Generator().manual_seed(seed)).double(), matrices(n, seed=seed)
    return FullGaussian.of(mu, inverse_root(precision)), torch.distributions.MultivariateNormal(mu, precision_matrix=precision)


# ---- the distribution

@pytest.mark.parametrize("dim", [1, 2, 5, 10])
def test_elimination_finds_a_root_of_the_inverse(dim):
    P = matrices(6, dim, seed=dim)
    R = inverse_root(P)
    torch.testing.assert_close(R @ R.mT, torch.linalg.inv(P))
    torch.testing.assert_close(R, torch.linalg.inv(torch.linalg.cholesky(P)).mT)


def test_elimination_survives_what_rounding_makes_of_a_nearly_singular_matrix():
    """1 + 1e8 v vᵀ in single precision, whose pivots would come out at or below 0."""
    v = torch.randn(50, 10, generator=torch.Generator().manual_seed(0))
    P = torch.eye(10) + 1e8 * v.unsqueeze(2) * v.unsqueeze(1)
    assert torch.linalg.cholesky_ex(P)[1].any()
    P.requires_grad_()
    R = inverse_root(P)
    R.sum().backward()
    assert R.isfinite().all() and P.grad.isfinite().all() and (R.diagonal(dim1=1, dim2=2) > 0).all()


def test_density_and_divergences_are_those_of_pytorch():
    """eq-oracle-full."""
    (q, theirs), (p, other) = some(), some(seed=1)
    z = torch.randn(7, 3, D, generator=torch.Generator().manual_seed(2)).double()
    torch.testing.assert_close(q.log_prob(z), theirs.log_prob(z))
    torch.testing.assert_close(q.log_prob(z[0]), theirs.log_prob(z[0]))
    kl = torch.distributions.kl_divergence
    standard = torch.distributions.MultivariateNormal(torch.zeros(D).double(), torch.eye(D).double())
    torch.testing.assert_close(q.kl(), kl(theirs, standard.expand([3])))
    torch.testing.assert_close(q.kl(p), kl(theirs, other))
    diagonal = Gaussian(p.mu, p.logvar)
    torch.testing.assert_close(q.kl(diagonal), kl(theirs, torch.distributions.MultivariateNormal(
        p.mu, torch.diag_embed(p.logvar.exp()))))


def test_samples_have_its_moments_and_each_latent_its_own():
    q, theirs = some(1)
    torch.testing.assert_close(q.logvar.exp(), theirs.covariance_matrix.diagonal(dim1=1, dim2=2))
    many = FullGaussian.of(q.mu.expand(200_000, D), q.scale.expand(200_000, D, D))
    z = many.sample(torch.Generator().manual_seed(0))
    torch.testing.assert_close(z.mean(0), q.mu[0], atol=0.01, rtol=0)
    torch.testing.assert_close(z.T.cov(), theirs.covariance_matrix[0], atol=0.01, rtol=0)
    assert torch.equal(q.sample(torch.Generator().manual_seed(3)), q.sample(torch.Generator().manual_seed(3)))


# ---- the product

def build(shared=D, private=0, names=("a", "b", "c"), **options):
    torch.manual_seed(0)
    return FullPoEVAE({m: vectors(5 + k, private) for k, m in enumerate(names)}, shared, **options).double()


def rows(model, n=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {m: torch.randn(n, *of.shape, generator=g, dtype=torch.float64) for m, of in model.modalities.items()}


def outputs(model, scale=1.6):
    """Experts that say much, and of every latent something else."""
    with torch.no_grad():
        for expert in model.encoders.values():
            for p in expert.net.parameters():
                p.mul_(scale)
    return model


def test_a_posterior_is_the_sum_in_information_form():
    """eq-oracle-information: each expert's L from its network's numbers, entry by entry, and the sums of what they say."""
    model = outputs(build())
    x = rows(model)
    for subset in model.seen:
        q = model.posterior({m: x[m] for m in subset})["S"]
        for row in range(6):
            precision, eta = torch.eye(D).double(), torch.zeros(D).double()
            for m in subset:
                out = model.encoders[m].net(x[m])[row]
                mean, diagonal, below = out[:D], (-0.5 * out[D:2 * D]).exp(), iter(out[2 * D:])
                L = torch.zeros(D, D).double()
                for i in range(D):
                    for j in range(i):
                        L[i, j] = diagonal[i] * next(below)
                    L[i, i] = diagonal[i]
                precision, eta = precision + L @ L.T, eta + L @ L.T @ mean
            torch.testing.assert_close(q.mu[row], torch.linalg.solve(precision, eta))
            torch.testing.assert_close(q.scale[row] @ q.scale[row].T, torch.linalg.inv(precision))


def test_its_density_is_the_product_of_the_experts_and_the_prior():
    """Up to one constant a row, over random z."""
    model = outputs(build(names=("a", "b")))
    x = rows(model)
    z = torch.randn(9, 6, D, generator=torch.Generator().manual_seed(1)).double()
    log_product = -0.5 * z.square().sum(-1)
    for m in x:
        eta, precision = model.encoders[m](x[m])["S"]
        log_product = log_product + torch.einsum("kbi,bi->kb", z, eta) - 0.5 * torch.einsum("kbi,bij,kbj->kb", z, precision, z)
    constant = model.posterior(x)["S"].log_prob(z) - log_product
    torch.testing.assert_close(constant, constant[:1].expand_as(constant))


class Function(torch.nn.Module):
    """A function in a network's place."""

    def __init__(self, function):
        super().__init__()
        self.forward = function


@pytest.mark.parametrize("private", [0, 2])
def test_with_diagonal_experts_it_is_the_product_of_the_book(private):
    full = outputs(build(private=private))
    torch.manual_seed(0)
    book = PoEVAE({m: vectors(5 + k, private) for k, m in enumerate("abc")}, D, single_prior=True).double()
    x, n = rows(full), 2 * (D + private)
    for m, expert in full.encoders.items():
        def diagonal(x, net=expert.net):
            return torch.cat([net(x)[:, :n], torch.zeros(len(x), D * (D - 1) // 2).double()], 1)
        expert.net, book.encoders[m].net = Function(diagonal), Function(lambda x, said=diagonal: said(x)[:, :n])
    book.decoders = full.decoders
    for s in full.seen:
        part = {m: x[m] for m in s}
        q, p = full.posterior(part), book.posterior(part)
        for block in p:
            torch.testing.assert_close(q[block].mu, p[block].mu)
            torch.testing.assert_close(q[block].logvar, p[block].logvar)
    torch.manual_seed(1)
    terms = full.terms(x)
    torch.manual_seed(1)
    expected = book.terms(x)
    assert list(terms) == list(expected)
    for k in terms:
        torch.testing.assert_close(terms[k], expected[k])


@pytest.mark.parametrize("private", [0, 2])
def test_what_is_masked_is_as_if_it_were_not_there(private):
    """Row by row: its posterior, with its correlations, and the loss are those of the row with these modalities alone."""
    model = outputs(build(private=private))
    x = rows(model)
    present = {"b": torch.tensor([1, 0, 1, 0, 1, 0]).bool(), "c": torch.tensor([1, 1, 0, 0, 1, 1]).bool()}
    q = model.posterior(x, present)
    for row in range(6):
        there = {m: v[row:row + 1] for m, v in x.items() if m not in present or present[m][row]}
        alone = model.posterior(there)
        torch.testing.assert_close(q["S"].scale[row], alone["S"].scale[0])
        for block in alone:
            torch.testing.assert_close(q[block].mu[row], alone[block].mu[0])
            torch.testing.assert_close(q[block].logvar[row], alone[block].logvar[0])
    kl = {k: v for k, v in model.terms(x, present=present).items() if k.endswith("kl.S")}
    for row in (1, 2, 3):
        there = {m: v[row:row + 1] for m, v in x.items() if m not in present or present[m][row]}
        for k, v in model.terms(there).items():
            if k.endswith("kl.S"):
                torch.testing.assert_close(kl[k][row], v[0])


# ---- what a trained one is good for

def test_on_the_exact_oracle_it_is_tight_where_no_diagonal_posterior_is():
    """The correlated truth, all latents shared and turned at random: experts of precision W_mᵀ W_m / sigma², and the three
    log-likelihoods from the ELBOs, draw by draw."""
    truth = oracle.toy(0.5, names=("I", "T"))
    R = torch.linalg.qr(torch.randn(7, 7, generator=torch.Generator().manual_seed(0)).double())[0]
    p = oracle.LinearGaussian(truth.loadings @ R, truth.offset, truth.noise, {"S": 7}, truth.sizes)

    class Exact(oracle.LinearGaussian):
        fuse = FullPoEVAE.fuse

        def posteriors(self, x, subsets):
            said = {m: ((x[m] - self.offset[self.rows((m,))]) @ self.loadings[self.rows((m,))] / self.noise ** 2,
                        self.gram(m).expand(len(x[m]), 7, 7)) for m in x}
            return {s: self.fuse({m: {"S": said[m], m: None} for m in s}) for s in subsets}

    model = Exact(p.loadings, p.offset, p.noise, {"S": 7}, p.sizes)
    x, _ = truth.draw(5, torch.Generator().manual_seed(1))
    for s in (("I",), ("T",), ("I", "T")):
        part = {m: x[m] for m in s}
        assert p.mean_field(s) > 0.1
        log_w = evaluate.log_weights(model, part, 8)
        torch.testing.assert_close(log_w, truth.exact_log_likelihood(part).unsqueeze(1).expand(5, 8), atol=1e-6, rtol=0)


def test_importance_weights_use_its_correlations():
    """K = 1 on average is the ELBO of the terms, and not that of independent latents."""
    model = outputs(build(names=("a", "b")))
    x = rows(model, 3)
    many = {m: v.repeat_interleave(4000, 0) for m, v in x.items()}
    elbo = model.terms(many)["a+b.elbo"].unflatten(0, (3, -1))
    log_w = evaluate.log_weights(model, x, 4000)
    error = (elbo.std(1).square() + log_w.std(1).square()).sqrt() / math.sqrt(4000)
    assert ((elbo.mean(1) - log_w.mean(1)).abs() < 5 * error).all()


@pytest.mark.parametrize("missing", [False, True])
def test_a_stack_of_it_computes_what_each_computes_alone(missing, monkeypatch):
    monkeypatch.setattr(stacked, "CHUNK", CHUNK)
    compare(lambda: mmvae.MODELS["wg-v2-full"](size=16), pictures(missing))


def test_it_exports_with_a_free_batch():
    worlds.exports(mmvae.MODELS["wg-v2-full"](size=16).eval(), *(worlds.data("pair", n, seed=n) for n in (7, 11)))


def test_the_named_model_is_wg_v2_without_the_diagonal():
    model = mmvae.MODELS["wg-v2-full"](size=16)
    assert isinstance(model, FullPoEVAE) and model.blocks == {"I": 0, "S": 10, "T": 0}
    assert model.subsets == mmvae.MODELS["wg-v2"](size=16).subsets and evaluate.all_shared(model)


# ---- how mixed the latents are

def test_mixing_of_an_analytic_decoder():
    """Linear decoders, whose numbers travel by 4 |w|: ratios of sums of |w|, by hand; a latent that neither reads counts not."""
    W = torch.tensor([[1, 0, 2, 0.0], [-3, 0, 2, 0], [0, 1, 1, 0], [0.2, 1, 0, 0]]).double()
    model = oracle.LinearGaussian(W, torch.zeros(4).double(), 0.5, {"S": 4}, {"one": 2, "other": 2})
    x, _ = model.draw(20, torch.Generator().manual_seed(0))
    found = evaluate.effects(model, mmvae.data.Rows(x, dtype=torch.float64))
    assert found["travel.one"] == pytest.approx([8, 0, 8, 0]) and found["travel.other"] == pytest.approx([0.4, 4, 2, 0])
    assert evaluate.mixing(found) == {"mixing": pytest.approx((0.05 + 0 + 0.25) / 3), "one": 2, "idle": 1}


def test_mixing_of_all_and_of_none_and_of_three():
    alike = {"travel.a": [1.0, 2.0], "travel.b": [1.0, 2.0], "kl": [0.0, 5.0]}
    assert evaluate.mixing(alike) == {"mixing": 1, "one": 0, "idle": 0}
    assert math.isnan(evaluate.mixing({"travel.a": [0.0], "travel.b": [0.0]})["mixing"])
    three = {"travel.a": [1.0, 0.0], "travel.b": [0.5, 0.0], "travel.c": [0.1, 3.0]}
    assert evaluate.mixing(three) == {"mixing": 0.25, "one": 1, "idle": 0}
    with pytest.raises(ValueError, match="travels: found 1 modalities in .*, expected two or more"):
        evaluate.mixing({"travel.a": [1.0]})


def test_the_grid_asks_heads_in_pairs_that_differ_by_the_diagonal_alone():
    runs = [run for run in grid.grid() if run.study == "full"]
    found = Counter((run.variant, run.recipe.model, run.recipe.size, run.recipe.weight, run.recipe.iterations) for run in runs)
    assert found == {(f"{what}, {size}", model, size, (64 / size) ** 2, 10_000): seeds for size, seeds in ((32, 10), (64, 3))
                     for what, model in (("covariance", "wg-v2-full"), ("inside", "wg-v2"))}
    options = {run.recipe.model: run.recipe.options for run in runs}
    assert options == {"wg-v2-full": {}, "wg-v2": {"single_prior": True}} and "full" in grid.THOROUGH
