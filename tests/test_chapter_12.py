"""Chapter 12: its map of what each model rebuilds, against the decoders' own inputs; and the bound of a mixture of two
experts, against draws from the package's mixture."""
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from test_chapters import NOTEBOOKS, defined_in
from test_later import POINTS, density, kl, product
from torch.distributions import Normal

import mmvae
from mmvae import Gaussian, later, mixture_of_experts, product_of_experts, vectors
from mmvae.experiment import FIRST

CHAPTER = "12_what_came_after"
ALL = (*FIRST, "mmvae", "mopoe", "mmvae+", "dmvae", "jmvae", "mvtcae")


@pytest.fixture(scope="module")
def said() -> dict:
    """What the chapter says in the cell of its map."""
    cells = json.loads((Path(NOTEBOOKS) / f"{CHAPTER}.ipynb").read_text())["cells"]
    namespace = {"mmvae": mmvae, "FIRST": FIRST}
    exec("".join(next(c["source"] for c in cells if c["id"] == "map-data")), namespace)
    return namespace


def touched(model, part) -> set[str]:
    """The encoders that this part of a decoder's input comes from."""
    found = set()
    for name, encoder in model.encoders.items():
        grads = torch.autograd.grad(part.sum(), list(encoder.parameters()), retain_graph=True, allow_unused=True)
        if any(g is not None and g.abs().max() > 0 for g in grads):
            found.add(name)
    return found


def rebuilds(name: str) -> tuple[set[tuple[str, str]], set[tuple[str, str, str]]]:
    """{(where z_S is from, the picture that is rebuilt)}, and the same with where its private code is from, of one row, by
    what its decoders are given; a mixture's draws vary from call to call."""
    model, calls = mmvae.MODELS[name](size=16), []
    for key, decoder in model.decoders.items():
        decoder.register_forward_pre_hook(lambda _, z, key=key: calls.append((key, z[0])))
    for seed in range(20 if name == "mopoe" else 1):
        torch.manual_seed(seed)
        model.loss({m: torch.rand(1, 1, 16, 16) for m in "IT"})
    found = set()
    for key, z in calls:
        for n in key.split("+"):
            private = z.shape[1] - model.blocks.get("S", z.shape[1])
            sources = touched(model, z[:, private:])
            source = "both" if sources in ({"I", "T"}, {"I+T"}) else sources.pop()
            code = "none" if not private else "own" if touched(model, z[:, :private]) else "drawn"
            found.add((source, n, code))
    return {(source, n) for source, n, _ in found}, found


@pytest.mark.parametrize("name", ALL)
def test_the_map_is_what_the_decoders_are_given(name, said):
    pairs, found = rebuilds(name)
    assert pairs == {tuple(of.split()) for of in said["REBUILDS"][name]}
    assert found == {(source, n, said["private_code"](name, source, n)) for source, n in pairs}


@pytest.mark.parametrize("mean, variance, r", [(0.0, 1.0, 3.0), (0.4, 0.2, 3.0), (0.0, 1 / 21, 20.0)])
def test_the_bound_of_a_mixture_is_the_mean_over_draws_from_its_experts(mean, variance, r):
    """eq-later-bound: the chapter's quadrature against the mixture of the package, in one million draws."""
    log_normal = defined_in(CHAPTER, "sure-toy", "log_normal")
    bound = defined_in(CHAPTER, "sure-toy", "mixture_bound", log_normal=log_normal)(mean, variance, r)
    g, n = torch.Generator().manual_seed(0), 500_000
    x = torch.randn(n, 1, generator=g, dtype=torch.float64) * math.sqrt(1 + 1 / r)
    q = mixture_of_experts([Gaussian(torch.full_like(x, mean), torch.full_like(x, math.log(variance))),
                            Gaussian(r * x / (1 + r), torch.full_like(x, -math.log(1 + r)))])
    z = q.stratified(g)  # (2, n, 1)
    noise, prior = torch.full_like(x, -math.log(r)), torch.zeros_like(x)
    log_p = torch.stack([Gaussian(one, noise).log_prob(x) + Gaussian(prior, prior).log_prob(one) for one in z])
    inside = log_p - q.log_prob(z)
    assert bound == pytest.approx(inside.mean().item(), abs=4 * inside.mean(0).std().item() / math.sqrt(n) + 1e-4)
    exact = -0.5 * (math.log(2 * math.pi * (1 + 1 / r)) + 1)
    assert bound < exact and np.isfinite(bound)


def test_of_several_but_not_all_jmvae_says_what_the_exact_posterior_of_a_linear_world_says():
    """Of the exact single posteriors, each of which holds the prior: it counts once. In their product alone, as multivae has
    it, it counts three times, and four times with the prior as one more expert."""
    x, noise = torch.tensor([0.9, 0.4, 1.3]).double(), torch.tensor([0.5, 1.0, 2.0]).double()
    posteriors = [Normal(v / (1 + s**2), s / (1 + s**2) ** 0.5) for v, s in zip(x, noise)]
    log_p = sum(Normal(POINTS, s).log_prob(v) for v, s in zip(x, noise)) + Normal(0.0, 1.0).log_prob(POINTS)
    exact = product([(log_p - log_p.max()).exp()])
    said = [Gaussian(q.mean.view(1, 1), 2 * q.stddev.log().view(1, 1)) for q in posteriors]
    model = later.JMVAE({m: vectors(1) for m in "abcd"}, shared=1).double()
    off = [kl(exact, density(q)) for q in (
        later._together(model, {m: {"S": q, m: q} for m, q in zip("abc", said)})["S"],
        product_of_experts(said, prior=False), product_of_experts(said))]
    assert off[0] < 1e-6 and 0.05 < off[1] < off[2]
    silent = Gaussian(torch.zeros(1, 1), torch.full((1, 1), 0.3))  # wider than the prior
    q = later._together(model, {m: {"S": silent, m: silent} for m in "abc"})["S"]
    assert q.mu.item() == q.logvar.item() == 0.0
