"""Functions that a chapter defines, and identities that it only states, against something independent."""
import ast
import json
from pathlib import Path

import numpy as np
import pytest
import torch

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"


def defined_in(notebook: str, cell: str, *names: str, **namespace):
    """The functions and constants of these names, as one cell of a chapter defines them."""
    cells = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text())["cells"]
    tree = ast.parse("".join(next(c["source"] for c in cells if c["id"] == cell)))
    wanted = [node for node in tree.body if getattr(node, "name", None) in names
              or isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) in names]
    namespace |= {"torch": torch, "np": np}
    exec(compile(ast.Module(wanted, []), notebook, "exec"), namespace)
    return namespace[names[0]]


def test_canonical_correlations_are_those_of_scikit_learn():
    """eq-pictures-cca and eq-pictures-svd: whitening and one SVD, against an iterative solver."""
    from sklearn.cross_decomposition import CCA

    whiten = defined_in("01_two_pictures", "cca-code", "whiten")
    g = torch.Generator().manual_seed(0)
    common = torch.randn(2000, 2, generator=g)
    X = {m: torch.cat([common @ torch.randn(2, 2, generator=g), torch.randn(2000, 3, generator=g)], 1)
         @ torch.randn(5, 5, generator=g) + torch.randn(2000, 5, generator=g) for m in "IT"}  # (N, P)
    components = {}
    for m in "IT":
        mean, W = whiten(X[m], k=5)
        components[m] = (X[m] - mean) @ W
        torch.testing.assert_close(components[m].T @ components[m] / 2000, torch.eye(5), atol=1e-3, rtol=0)
    R = torch.linalg.svdvals(components["I"].T @ components["T"] / 2000)
    u, v = CCA(3, max_iter=5000).fit_transform(X["I"].numpy(), X["T"].numpy())
    expected = [np.corrcoef(u[:, k], v[:, k])[0, 1] for k in range(3)]
    np.testing.assert_allclose(R[:3], expected, atol=2e-3)


def test_effect_of_a_linear_decoder_is_its_slope():
    effect = defined_in("03_vanilla_vae", "effect", "effect")
    slope = torch.tensor([[0.02, -0.05, 0.0], [0.01, 0.0, 0.1]])  # (2 images, 3 latents)

    def decode(z):  # (B, 3) -> (B, 2, 4, 4)
        return (0.5 + z @ slope.T)[:, :, None, None].expand(-1, -1, 4, 4)

    torch.testing.assert_close(effect(decode, torch.randn(5, 3), span=2.0), 255 * 4 * slope.abs())


def test_share_is_the_first_order_index_of_an_additive_latent():
    g = torch.Generator().manual_seed(0)
    parts = {"identity": torch.randn(6, 1, 1, 1, generator=g), "azimuth": 2 * torch.randn(1, 5, 1, 1, generator=g),
             "elevation": torch.randn(1, 1, 4, 1, generator=g), "light": torch.zeros(1, 1, 1, 3)}
    mu = sum(part.expand(6, 5, 4, 3) for part in parts.values())[..., None]  # (N, A, E, L, 1 latent)
    share = defined_in("03_vanilla_vae", "shares", "share", "AXES", mu=mu)
    total = sum(part.var(correction=0) for part in parts.values())
    for names in (["azimuth"], ["identity", "azimuth"], ["light"]):
        expected = sum(parts[name].var(correction=0) for name in names) / total
        assert share(*names).item() == pytest.approx(expected.item(), rel=1e-4, abs=1e-6)


@pytest.fixture
def linear():
    """x_I = A [z_I, z_S] + noise, x_T = B [z_S, z_T] + noise: everything about it is Gaussian and known."""
    g = np.random.default_rng(0)
    W = np.zeros((7, 4))  # rows: 3 pixels of x_I, 4 of x_T; columns: z_I, z_S (2), z_T
    W[:3, :3], W[3:, 1:] = g.normal(size=(3, 3)), g.normal(size=(4, 3))
    noise = 0.3 * np.eye(7)
    return W, noise


def posterior(W, noise, rows):
    """Of z given the images in `rows`: the matrix that maps x to the mean, and the covariance."""
    W, noise = W[rows], noise[np.ix_(rows, rows)]
    gain = W.T @ np.linalg.inv(W @ W.T + noise)
    return gain, np.eye(4) - gain @ W


I, T, S = list(range(3)), list(range(3, 7)), [1, 2]


def test_the_posterior_of_one_image_is_the_mean_over_its_partners(linear):
    """eq-mumo-consistency and eq-mumo-sharpen: the first two moments of E over p(x_T | x_I) of p(z_S | x_I, x_T)."""
    W, noise = linear
    C = W @ W.T + noise
    to_T = C[np.ix_(T, I)] @ np.linalg.inv(C[np.ix_(I, I)])  # E[x_T | x_I]
    var_T = C[np.ix_(T, T)] - to_T @ C[np.ix_(I, T)]  # Var[x_T | x_I]
    gain_I, var_I = posterior(W, noise, I)
    gain, var = posterior(W, noise, I + T)
    np.testing.assert_allclose(gain[:, I] + gain[:, T] @ to_T, gain_I, atol=1e-10)
    spread = gain[:, T] @ var_T @ gain[:, T].T  # Var of the mean, over partners
    np.testing.assert_allclose((var + spread)[np.ix_(S, S)], var_I[np.ix_(S, S)], atol=1e-10)
    assert (np.linalg.eigvalsh((var_I - var)[np.ix_(S, S)]) > -1e-12).all()


def test_imagining_the_partner_by_way_of_z_is_the_exact_conditional(linear):
    """eq-side-exact: z_S from its posterior given x_I, z_T from its prior, then the decoder of T."""
    W, noise = linear
    C = W @ W.T + noise
    to_T = C[np.ix_(T, I)] @ np.linalg.inv(C[np.ix_(I, I)])
    gain, var = posterior(W, noise, I)
    np.testing.assert_allclose(gain[3], 0, atol=1e-12)  # x_I says nothing of z_T ...
    assert var[3, 3] == pytest.approx(1) and np.allclose(var[3, S], 0)  # ... whose posterior is its prior
    np.testing.assert_allclose(W[T] @ gain, to_T, atol=1e-10)
    np.testing.assert_allclose(W[T] @ var @ W[T].T + noise[np.ix_(T, T)],
                               C[np.ix_(T, T)] - to_T @ C[np.ix_(I, T)], atol=1e-10)


def test_moving_private_latents_into_the_shared_block_changes_no_term_of_mumo():
    """eq-mumo-indifferent: the KLs of all subsets, and both decoders, of chapter 9's rewired model."""
    import mmvae

    names = {cell: defined_in("09_why_the_partition", cell, name) for cell, name in (("wires", "wires"),)}
    rows = defined_in("09_why_the_partition", "wires", "rows")
    rewired = defined_in("09_why_the_partition", "move-decoders", "rewired")
    moved = defined_in("09_why_the_partition", "move", "moved", wires=names["wires"], rows=rows, rewired=rewired)
    torch.manual_seed(0)
    old = mmvae.MODELS["mumo"](size=16)
    new = moved(old)
    x = {m: torch.rand(5, 1, 16, 16) for m in "IT"}
    with torch.no_grad():
        for s, q in old.posteriors(x, old.seen).items():
            r = new.posteriors(x, (s,))[s]
            torch.testing.assert_close(sum(g.kl() for g in r.values()), sum(g.kl() for g in q.values()))
            assert all(r[m].kl().abs().max() == 0 for m in s)  # idle
        z = {b: torch.randn(5, d) for b, d in old.blocks.items()}
        there = {"I": torch.randn(5, 2), "S": torch.cat([z["S"], z["I"], z["T"]], 1), "T": torch.randn(5, 2)}
        torch.testing.assert_close(new.decode(there), old.decode(z), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("precision", [0.3, 1.0, 70.0])
def test_an_idle_expert_and_the_prior_shrink_what_they_meet(precision):
    """eq-why-price: against the normalised product of three densities on a fine grid."""
    from mmvae import Gaussian, product_of_experts

    mu = torch.tensor([[1.3]])
    q = product_of_experts([Gaussian(mu, -torch.tensor([[precision]]).log()), Gaussian(mu * 0, mu * 0)])
    z = np.linspace(-8, 8, 200_001)
    p = np.exp(-0.5 * precision * (z - 1.3) ** 2 - z ** 2)
    p /= p.sum()
    assert (p * z).sum() == pytest.approx(1.3 * precision / (precision + 2), rel=1e-5)
    assert q.mu.item() == pytest.approx((p * z).sum(), rel=1e-5)
    assert q.precision.item() == pytest.approx(precision + 2, rel=1e-5)


def test_of_a_latent_that_a_picture_cannot_know_the_posterior_is_the_prior():
    """eq-why-silent: a shared latent with no loading on x_T, in the linear-Gaussian model; the KL to it, by search."""
    from mmvae import Gaussian
    from mmvae.evaluate import oracle

    W = torch.randn(8, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    W[:4, 3:], W[4:, :1], W[4:, 1] = 0.0, 0.0, 0.0  # columns: z_I, z_S (2), z_T; the first of z_S is unknown to x_T
    truth = oracle.LinearGaussian(W, torch.zeros(8, dtype=torch.float64), 0.5, {"I": 1, "S": 2, "T": 1})
    x, _ = truth.draw(3)
    mean, covariance = truth.exact_posterior({"T": x["T"]})
    np.testing.assert_allclose(mean[:, 1], 0, atol=1e-12)
    np.testing.assert_allclose(covariance[1], [0, 1, 0, 0], atol=1e-12)
    logvar = torch.linspace(-3, 3, 601)[:, None]
    assert logvar[Gaussian(0 * logvar, logvar).kl().argmin()].item() == pytest.approx(0, abs=0.006)


def test_what_a_block_knows_of_a_factor_is_the_information_of_a_mixture():
    """Chapter 8's nats of a factor: two Gaussians of one width, against their entropies by quadrature."""
    from types import SimpleNamespace

    from mmvae import Gaussian

    test = SimpleNamespace(shape=(3, 2, 2, 4), at=lambda *index: (2.0 * index[2], None))
    model = SimpleNamespace(posterior=lambda x: {"S": Gaussian(x[:, None].float(), torch.zeros(len(x), 1))})
    knows = defined_in("08_what_did_they_learn", "stronger-nats", "knows", test=test)
    torch.manual_seed(0)
    z = np.linspace(-9, 11, 20_001)
    one, two = (np.exp(-(z - m) ** 2 / 2) / np.sqrt(2 * np.pi) for m in (0, 2))
    both = (one + two) / 2
    entropy = -(both * np.log(both)).sum() * (z[1] - z[0])
    nats = knows(model, "S", "elevation", cells=2, draws=20_000)
    assert nats.shape == (3,) and nats.mean() == pytest.approx(entropy - 0.5 * np.log(2 * np.pi * np.e), abs=0.01)
    assert knows(model, "S", "light", draws=5) == pytest.approx(0, abs=1e-6)  # the code does not move with the light
