"""Proposition 1: blocks are identified where no shared latent is spare. Its statement on solutions that were searched for,
from random starts in double precision, and the steps of its proof on matrices that were drawn."""
import math

import numpy as np
import pytest
import torch

from mmvae import MuMoVAE
from mmvae.evaluate import oracle
from mmvae.evaluate.identified import leakage, likeliest, turn
from mmvae.evaluate.oracle import LinearGaussian
from worlds import fit_exactly

ATTAINED = 1e-3  # nats above the least loss
SPARE = 4  # shared latents, of which the truth needs 3


@pytest.fixture(scope="module", params=(0.0, 0.5), ids=("orthogonal", "correlated"))
def truth(request):
    return oracle.toy(request.param, size=8, names=("I", "T"))


def parts(model):
    """A_I, A_S, B_S, B_T of the loadings."""
    I, T = model.rows(("I",)), model.rows(("T",))  # noqa: E741
    W, at = model.loadings, model.columns
    return W[I][:, at("I")], W[I][:, at("S")], W[T][:, at("S")], W[T][:, at("T")]


# ---- the statement

def test_at_exact_sizes_every_solution_that_attains_the_optimum_has_no_leakage(truth):
    attained = 0
    for seed in range(8):
        model, lost = likeliest(truth, seed=seed)
        if lost < ATTAINED:
            attained += 1
            assert max(leakage(truth, model).values()) < 1e-6, seed
    assert attained == 8


def test_with_a_spare_shared_latent_there_are_leaking_solutions_at_the_same_loss(truth):
    leaks = []
    for seed in range(4):
        model, lost = likeliest(truth, SPARE, seed)
        assert lost < ATTAINED
        leaks.append(max(leakage(truth, model).values()))
    assert max(leaks) > 0.1 and max(leaks) - min(leaks) > 0.1  # as much or as little as one likes


def test_a_solution_is_the_truth_turned_within_its_blocks(truth):
    """eq-why-turned, and what it means for a posterior: that of a block is turned too, from each subset."""
    model, _ = likeliest(truth, seed=3)
    Q = turn(truth, model)
    torch.testing.assert_close(Q @ Q.T, torch.eye(7).double(), atol=1e-5, rtol=0)
    for own, found in zip(parts(truth), parts(model)):
        R = torch.linalg.pinv(own) @ found
        torch.testing.assert_close(own @ R, found, atol=1e-5, rtol=0)
        torch.testing.assert_close(R @ R.T, torch.eye(len(R)).double(), atol=1e-5, rtol=0)
    x, _ = truth.draw(5, torch.Generator().manual_seed(0))
    for given in (x, {"I": x["I"]}, {"T": x["T"]}):
        (mean, covariance), (theirs, their) = truth.exact_posterior(given), model.exact_posterior(given)
        torch.testing.assert_close(theirs, mean @ Q, atol=1e-4, rtol=0)
        torch.testing.assert_close(their, Q.T @ covariance @ Q, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shared, leaks", [(3, False), (SPARE, True)])
def test_it_holds_of_the_loss_of_mumo_too(shared, leaks):
    """All three ELBOs, over z exactly, encoders and decoders from a random start: with a spare latent this seed leaks."""
    truth = oracle.toy(size=5, names=("I", "T"))
    x = truth.sigma_points()
    torch.manual_seed(1)
    model = oracle.linear(MuMoVAE, truth, shared=shared)
    reached = fit_exactly(model, x)
    least = -sum(truth.exact_log_likelihood({m: x[m] for m in s}).mean() for s in model.subsets)
    assert 0 <= (-reached - least).item() + 1e-9 < ATTAINED
    found = max(leakage(truth, oracle.learnt(model)).values())
    assert found > 0.5 if leaks else found < 1e-3


# ---- the steps of the proof

def test_step_one_a_solution_has_the_same_three_blocks_of_the_covariance(truth):
    """eq-why-same."""
    model, _ = likeliest(truth, seed=1)
    A_I, A_S, B_S, B_T = parts(truth)
    C_I, C_S, D_S, D_T = parts(model)
    torch.testing.assert_close(C_I @ C_I.T + C_S @ C_S.T, A_I @ A_I.T + A_S @ A_S.T, atol=1e-5, rtol=0)
    torch.testing.assert_close(D_T @ D_T.T + D_S @ D_S.T, B_T @ B_T.T + B_S @ B_S.T, atol=1e-5, rtol=0)
    torch.testing.assert_close(C_S @ D_S.T, A_S @ B_S.T, atol=1e-5, rtol=0)


def test_step_two_the_shared_loadings_can_only_be_mixed():
    """eq-why-mixed: any two factors of A_S B_Sᵀ with as many columns, here by SVD and by elimination."""
    g = np.random.default_rng(0)
    A, B = g.normal(size=(6, 3)), g.normal(size=(5, 3))
    u, s, v = np.linalg.svd(A @ B.T)
    product = A @ B.T
    rows, columns = [0, 2, 3], [1, 2, 4]
    skeleton = product[:, columns], np.linalg.solve(product[np.ix_(rows, columns)], product[rows]).T
    for C, D in ((u[:, :3] * s[:3], v[:3].T), skeleton):
        np.testing.assert_allclose(C @ D.T, product, atol=1e-10)
        M = np.linalg.pinv(A) @ C
        np.testing.assert_allclose(A @ M, C, atol=1e-10)
        np.testing.assert_allclose(B @ np.linalg.inv(M).T, D, atol=1e-10)


@pytest.mark.parametrize("turned, rank", [(True, 0), (1, 1), (2, 2), (False, 3)])
def test_step_three_what_the_private_block_would_have_to_make_has_too_high_a_rank(turned, rank):
    """eq-why-rank: rank of A_I A_Iᵀ + A_S (1 - M Mᵀ) A_Sᵀ is dim z_I + rank of (1 - M Mᵀ), for any invertible M."""
    g = np.random.default_rng(1)
    for _ in range(20):
        A_I, A_S = g.normal(size=(7, 2)), g.normal(size=(7, 3))
        M = np.linalg.qr(g.normal(size=(3, 3)))[0]
        M[:, :rank] *= g.uniform(0.2, 3, size=rank)  # as many directions stretched or shrunk
        other = A_I @ A_I.T + A_S @ (np.eye(3) - M @ M.T) @ A_S.T
        assert np.linalg.matrix_rank(other, tol=1e-8) == 2 + rank
        assert (turned is True) == (np.linalg.matrix_rank(other, tol=1e-8) <= 2)


def test_step_four_what_has_the_same_square_is_turned():
    """Two matrices with as many independent columns and the same A Aᵀ differ by a rotation."""
    g = np.random.default_rng(2)
    A = g.normal(size=(6, 2))
    C = np.linalg.cholesky((A @ A.T)[:2, :2])  # another one, by its first rows
    C = np.concatenate([C, np.linalg.solve(C, (A @ A.T)[:2, 2:]).T])
    np.testing.assert_allclose(C @ C.T, A @ A.T, atol=1e-10)
    R = np.linalg.pinv(A) @ C
    np.testing.assert_allclose(A @ R, C, atol=1e-10)
    np.testing.assert_allclose(R @ R.T, np.eye(2), atol=1e-10)


@pytest.mark.parametrize("degrees", [0, 20, 45, 90])
def test_a_spare_shared_latent_takes_in_as_much_of_a_private_one_as_one_likes(truth, degrees):
    """eq-why-spare: the same likelihood of each subset, a leakage of sin²."""
    W, angle = truth.loadings, math.radians(degrees)
    spare = torch.zeros_like(W[:, :1])
    spare[:] = math.sin(angle) * W[:, :1]  # z_I's first column; x_T does not see it
    kept = torch.cat([math.cos(angle) * W[:, :1], W[:, 1:5], spare, W[:, 5:]], 1)
    model = LinearGaussian(kept, truth.offset, truth.noise, {"I": 2, "S": SPARE, "T": 2})
    x, _ = truth.draw(5, torch.Generator().manual_seed(0))
    for given in (x, {"I": x["I"]}, {"T": x["T"]}):
        torch.testing.assert_close(model.exact_log_likelihood(given), truth.exact_log_likelihood(given))
    assert leakage(truth, model)["I in S"] == pytest.approx(math.sin(angle) ** 2, abs=1e-9)
    assert all(v < 1e-9 for k, v in leakage(truth, model).items() if k != "I in S")


def test_leakage_is_the_r2_of_a_regression_on_the_models_latents(truth):
    """What `leakage` says of a solution, by drawing its latents and fitting the truth's, z = Q z', to one block of them."""
    model, _ = likeliest(truth, SPARE, seed=2)
    z = torch.randn(20_000, 8, generator=torch.Generator().manual_seed(0)).double().numpy()
    angles = np.linspace(0, np.pi, 91)
    every = z @ turn(truth, model).T.numpy()[:, :2] @ [np.cos(angles), np.sin(angles)]  # directions of z_I: (n, 91)
    block = z[:, model.columns("S")]
    left = every - block @ np.linalg.lstsq(block, every, rcond=None)[0]
    assert leakage(truth, model)["I in S"] == pytest.approx((1 - left.var(0) / every.var(0)).max(), abs=0.02)


def test_fewer_than_one_shared_latent_is_refused(truth):
    with pytest.raises(ValueError, match="shared: found 0, expected at least 1"):
        likeliest(truth, 0)
