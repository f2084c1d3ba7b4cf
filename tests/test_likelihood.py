"""likelihood.py: the held-out terms are means of the loss's, and importance sampling is its formula written out.

Of the exact values: tests/test_oracle.py.
"""
import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

import mmvae
import planted
from mmvae import Gaussian, likelihood
from mmvae.likelihood import log_likelihood, log_weights


@pytest.fixture(scope="module")
def pairs():
    return planted.splits()[1]


@pytest.fixture(scope="module")
def x(pairs):
    return pairs.sample(5, torch.Generator().manual_seed(3))[0]


def untrained(name):
    torch.manual_seed(0)
    return mmvae.MODELS[name](size=16)


def test_heldout_is_the_mean_of_the_terms_and_leaves_the_random_state(pairs):
    """Of the first n pairs only, where n is no multiple of the batch."""
    model, state = untrained("poe-v1"), torch.get_rng_state()
    values = likelihood.heldout(model, pairs, weight=3.0, n=300)
    assert torch.equal(state, torch.get_rng_state())
    assert values == likelihood.heldout(model, pairs, weight=3.0, n=300)
    assert values != likelihood.heldout(model, pairs, weight=3.0, n=300, seed=1)
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    with torch.no_grad():
        batches = [model.terms(pairs.sample(256, generator)[0], 3.0, ("I", "T", "IT")) for _ in range(2)]
    for name, value in values.items():
        assert value == pytest.approx(torch.cat([b[name] for b in batches])[:300].double().mean().item(), rel=1e-6)
    for s in ("I", "T", "IT"):
        parts = {k: v for k, v in values.items() if k.startswith(f"{s}.")}
        elbo = -sum(v * (3 if "reconstruction" in k else 1) for k, v in parts.items() if not k.endswith("elbo"))
        assert parts[f"{s}.elbo"] == pytest.approx(elbo, rel=1e-5)


@pytest.mark.parametrize("name", mmvae.MODELS)
def test_the_subsets_are_those_from_which_a_model_infers(name, pairs):
    """Also those whose ELBO its training leaves out."""
    model = untrained(name)
    subsets = ("IT",) if name == "vanilla" else ("I", "T", "IT")
    assert likelihood.subsets_of(model) == subsets
    assert {k for k in likelihood.heldout(model, pairs, n=4) if k.endswith("elbo")} == {f"{s}.elbo" for s in subsets}


def test_latent_kl_is_that_of_each_latent_and_adds_up():
    q = Gaussian(torch.randn(50, 4), torch.randn(50, 4))
    apart = kl_divergence(Normal(q.mu, (0.5 * q.logvar).exp()), Normal(0.0, 1.0)).mean(0)
    torch.testing.assert_close(likelihood.latent_kl(q), apart)
    torch.testing.assert_close(likelihood.latent_kl(q).sum(), q.kl().mean())


def by_hand(model, x, samples, weight, seed):
    """log p(x | z) p(z) / q(z | x), pair by pair, with torch's own distributions: (B, K)."""
    model, rows = model.double(), []
    for b in range(len(next(iter(x.values())))):
        pair = {m: image[b:b + 1].double() for m, image in x.items()}
        generator = torch.Generator().manual_seed(seed * 1_000_003 + b)
        noise = torch.randn(samples, sum(model.blocks.values()), generator=generator, dtype=torch.float64)
        z, log_w = {}, torch.zeros(samples, dtype=torch.float64)
        for block, part in zip(model.blocks, noise.split(list(model.blocks.values()), 1)):
            q = model.posterior(pair)[block]
            z[block] = q.mu + q.logvar.exp().sqrt() * part
            log_w += (Normal(0.0, 1.0).log_prob(z[block]) -
                      Normal(q.mu, q.logvar.exp().sqrt()).log_prob(z[block])).sum(1)
        for m, logits in model.decode(z, "".join(x)).items():
            p = Bernoulli(logits=logits, validate_args=False)
            log_w += weight * p.log_prob(pair[m].expand_as(logits)).flatten(1).sum(1)
        rows.append(log_w)
    return torch.stack(rows)


@pytest.mark.parametrize("name, subset", [("vanilla", "IT"), ("mumo", "IT"), ("mumo", "T"), ("poe-v2", "IT"),
                                          ("poe-v2", "I"), ("wg-v1", "T")])
@torch.no_grad()
def test_the_weights_and_the_likelihood_are_the_formula_written_out(name, subset, x):
    model, given = untrained(name), {m: x[m] for m in subset}
    expected = by_hand(untrained(name), given, 6, weight=4.0, seed=2)
    torch.testing.assert_close(log_weights(model, given, 6, weight=4.0, seed=2), expected, rtol=1e-9, atol=1e-9)
    found = log_likelihood(model, given, (1, 2, 3, 6), weight=4.0, seed=2)
    top = expected.max(1).values
    torch.testing.assert_close(found[1], expected.mean(1), rtol=1e-9, atol=1e-9)  # the ELBO, KL by the same draws
    torch.testing.assert_close(found[6], top + (expected - top[:, None]).exp().mean(1).log())
    in_twos = torch.stack([torch.logaddexp(*expected[:, k:k + 2].T) - torch.tensor(2.0).log() for k in (0, 2, 4)])
    torch.testing.assert_close(found[2], in_twos.mean(0), rtol=1e-7, atol=1e-7)
    assert next(model.parameters()).dtype == torch.float32  # the model itself is left as it was


def test_one_draw_is_the_elbo_of_the_loss_on_average(x):
    """The KL from draws against the KL in closed form."""
    model, one = untrained("mumo"), {m: image[:1] for m, image in x.items()}
    log_w = log_weights(model, one, 4000)[0]
    with torch.no_grad():
        torch.manual_seed(1)
        elbo = model.terms({m: image.expand(4000, -1, -1, -1) for m, image in one.items()}, subsets=("IT",))["IT.elbo"]
    error = (log_w.var() / 4000 + elbo.var() / 4000).sqrt()
    assert abs(log_w.mean() - elbo.mean()) < 4 * error


def test_neither_chunks_nor_batches_change_a_digit(x):
    model = untrained("poe-v2")
    whole = log_weights(model, x, 20)
    for chunk in (1, 7, 33):
        torch.testing.assert_close(log_weights(model, x, 20, chunk=chunk), whole, rtol=0, atol=1e-9)
    first = {m: image[:2] for m, image in x.items()}
    torch.testing.assert_close(log_weights(model, first, 20), whole[:2], rtol=0, atol=1e-9)
    assert not torch.allclose(log_weights(model, x, 20, seed=1), whole)


def test_the_bound_grows_with_the_number_of_draws(x):
    """With the same draws in larger groups, for every pair: Jensen's inequality."""
    found = log_likelihood(untrained("mumo"), x, (1, 10, 50, 100))  # 10 divides 50, and 50 divides 100
    assert list(found) == [1, 10, 50, 100]
    for less, more in ((1, 10), (10, 50), (50, 100)):
        assert (found[more] > found[less]).all()


def test_an_unobserved_private_block_cancels(x):
    """The likelihood of x_I does not depend on z_T, which has its prior."""
    model = untrained("poe-v2")
    before = log_likelihood(model, {"I": x["I"]}, (1, 10))
    torch.nn.init.normal_(model.decoders["T"].pixels.weight)
    after = log_likelihood(model, {"I": x["I"]}, (1, 10))
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_the_likelihood_is_the_models_own(x):
    model = untrained("poe-v2")
    model.log_likelihood = lambda output, image: torch.full_like(image[:, 0, 0, 0], 7.0)
    assert torch.allclose(log_weights(model, x, 3, weight=2.0), log_weights(model, x, 3, weight=0.0) + 28)


@pytest.mark.parametrize("samples, wrong", [((1, 3, 10), 3), ((0, 10), 0), ((-1, 10), -1)])
def test_numbers_of_draws_that_do_not_divide_the_largest_are_refused(samples, wrong, x):
    with pytest.raises(ValueError, match=f"samples: found {wrong}, expected divisors of the largest, 10"):
        log_likelihood(untrained("mumo"), x, samples)


def test_a_model_of_pairs_refuses_one_image(x):
    with pytest.raises(ValueError, match="VanillaVAE"):
        log_likelihood(untrained("vanilla"), {"I": x["I"]}, (1,))
