"""likelihood.py: the held-out terms are means of the loss's, and importance sampling is its formula written out.

Of the exact values: tests/test_oracle.py.
"""
import math

import pytest
import torch
from torch.distributions import Bernoulli, Normal, kl_divergence

import mmvae
import planted
from mmvae import Gaussian, Mixture, categories, images, vectors
from mmvae.data import Rows
from mmvae.evaluate import by_group, heldout, latent_kl, log_likelihood, log_likelihoods, log_weights
from mmvae.evaluate.likelihood import grey_entropy, spread_over
from mmvae.likelihoods import Normal as NormalLikelihood
from mmvae.observed import joined

IT = "I", "T"


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
    """Of n pairs only, where n is no multiple of the batch: the last one is smaller."""
    model, state = untrained("poe-v1"), torch.get_rng_state()
    values = heldout(model, pairs, weight=3.0, n=300)
    assert torch.equal(state, torch.get_rng_state())
    assert values == heldout(model, pairs, weight=3.0, n=300)
    assert values != heldout(model, pairs, weight=3.0, n=300, seed=1)
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    with torch.no_grad():
        batches = [model.terms(pairs.sample(k, generator)[0], 3.0, subsets=(("I",), ("T",), IT)) for k in (256, 44)]
    for name, value in values.items():
        assert value == pytest.approx(torch.cat([b[name] for b in batches]).double().mean().item(), rel=1e-6)
    for s in ("I", "T", "I+T"):
        parts = {k: v for k, v in values.items() if k.startswith(f"{s}.")}
        elbo = -sum(v * (3 if "reconstruction" in k else 1) for k, v in parts.items() if not k.endswith("elbo"))
        assert parts[f"{s}.elbo"] == pytest.approx(elbo, rel=1e-5)


@pytest.mark.parametrize("name", mmvae.MODELS)
def test_the_subsets_are_those_from_which_a_model_infers(name, pairs):
    """Also those whose ELBO its training leaves out."""
    model = untrained(name)
    subsets = (IT,) if name == "vanilla" else (("I",), ("T",), IT)
    assert model.seen == subsets
    assert {k for k in heldout(model, pairs, n=4) if k.endswith("elbo")} == {f"{joined(s)}.elbo" for s in subsets}


# ---------------------------------------------------------------- a value of a factor at a time


def test_the_entropy_of_grey_levels_is_what_a_decoder_costs_that_says_them(x):
    grey = x["I"].double().clamp(0.01, 0.99)
    torch.testing.assert_close(grey_entropy(grey), -mmvae.likelihoods.Bernoulli().log_prob(grey.logit(), grey))
    assert (grey_entropy(torch.eye(3)[None]) == 0).all() and (grey_entropy(x["I"]) > 0).all()


@pytest.mark.parametrize("n, of_each", [(7, 2), (30, 10), (2, 1), (10_000, 200)])
def test_rows_are_spread_over_the_values(n, of_each, pairs):
    """Three people with 200 rows each."""
    index, value = spread_over(pairs, "identity", n, torch.Generator().manual_seed(0))
    assert len(index.unique()) == len(index) == 3 * of_each and torch.equal(value, pairs.factors_at(index)["identity"])
    assert value.unique(return_counts=True)[1].tolist() == [of_each] * 3


@pytest.mark.parametrize("name, weight", [("poe-v1", 1.0), ("vanilla", 3.0), ("mumo", {"I": 2.0})])
@torch.no_grad()
def test_each_person_is_as_far_above_the_floor_as_the_terms_say(name, weight, pairs):
    """The terms of the same rows and noise, summed by hand; the caller's random state stays."""
    model, state = untrained(name), torch.get_rng_state()
    found = by_group(model, pairs, "identity", weight, n=200, batch=80)
    assert torch.equal(state, torch.get_rng_state()) and found == by_group(model, pairs, "identity", weight, n=200, batch=80)
    assert found["value"] == pairs.values["identity"].tolist() and found["n"] == [66] * 3
    index, _ = spread_over(pairs, "identity", 200, torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    above, weight = [], weight if isinstance(weight, dict) else {"I": weight, "T": weight}
    for part in index.split(80):
        x = pairs.batch(part)[0]
        terms = model.terms(x, subsets=[IT])
        above.append(sum(v for k, v in terms.items() if k.startswith("I+T.kl")))
        for m in IT:
            p = x[m].double()
            entropy = -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)).sum((1, 2, 3))
            above[-1] = above[-1] + weight.get(m, 1.0) * (terms[f"I+T.reconstruction.{m}"] - entropy)
    above, person = torch.cat(above), pairs.factors_at(index)["identity"]
    for value, mean in zip(found["value"], found["above_floor"]):
        assert mean == pytest.approx(above[person == value].mean().item(), rel=1e-4) and mean > 0


def of_kinds(gaps):
    """Rows of two pictures, of the kinds 2, 5 and 9; gaps: {modality: the kind that lacks it}."""
    kind = torch.tensor([5, 9, 2]).repeat(20)
    x = {m: torch.rand(60, 1, 16, 16, generator=torch.Generator().manual_seed(0)) for m in IT}
    return Rows(x, {m: kind != k for m, k in gaps.items()}, {"kind": kind})


def test_rows_that_lack_a_modality_count_for_no_value():
    """A value that has no others is left out."""
    rows, model = of_kinds({"T": 5}), untrained("poe-v2")
    found = by_group(model, rows, "kind")
    assert found["value"] == [2, 9] and found["n"] == [20, 20]
    whole = by_group(model, of_kinds({}), "kind", n=15)
    assert whole["value"] == [2, 5, 9] and whole["n"] == [5, 5, 5] and all(map(math.isfinite, whole["above_floor"]))
    nowhere = Rows(rows.x, {"T": torch.zeros(60, dtype=torch.bool)}, rows.factors)
    with pytest.raises(ValueError, match=r"rows: found none of 60 with all of \('I', 'T'\)"):
        by_group(model, nowhere, "kind")


def test_what_has_no_floor_or_no_such_factor_is_refused(pairs):
    with pytest.raises(ValueError, match=r"factor: found 'age', expected some of \('identity', 'azimuth'"):
        by_group(untrained("poe-v2"), pairs, "age")
    with pytest.raises(ValueError, match='likelihood of "numbers": found Normal, expected Bernoulli, whose floor'):
        by_group(three(), mixed(), "kind")


def test_latent_kl_is_that_of_each_latent_and_adds_up():
    q = Gaussian(torch.randn(50, 4), torch.randn(50, 4))
    apart = kl_divergence(Normal(q.mu, (0.5 * q.logvar).exp()), Normal(0.0, 1.0)).mean(0)
    torch.testing.assert_close(latent_kl(q), apart)
    torch.testing.assert_close(latent_kl(q).sum(), q.kl().mean())


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
        for m, logits in model.decode(z, tuple(x)).items():
            p = Bernoulli(logits=logits, validate_args=False)
            log_w += weight * p.log_prob(pair[m].expand_as(logits)).flatten(1).sum(1)
        rows.append(log_w)
    return torch.stack(rows)


@pytest.mark.parametrize("name, subset", [("vanilla", IT), ("mumo", IT), ("mumo", ("T",)), ("poe-v2", IT),
                                          ("poe-v2", ("I",)), ("wg-v1", ("T",))])
@torch.no_grad()
def test_the_weights_and_the_likelihood_are_the_formula_written_out(name, subset, x):
    model, given = untrained(name), {m: x[m] for m in subset}
    expected = by_hand(untrained(name), given, 6, weight=4.0, seed=2)
    torch.testing.assert_close(log_weights(model, given, 6, weight=4.0, seed=2), expected, rtol=1e-9, atol=1e-9)
    found = log_likelihoods(model, given, (1, 2, 3, 6), weight=4.0, seed=2)
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
        elbo = model.terms({m: image.expand(4000, -1, -1, -1) for m, image in one.items()}, subsets=[IT])["I+T.elbo"]
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
    found = log_likelihoods(untrained("mumo"), x, (1, 10, 50, 100))  # 10 divides 50, and 50 divides 100
    assert list(found) == [1, 10, 50, 100]
    for less, more in ((1, 10), (10, 50), (50, 100)):
        assert (found[more] > found[less]).all()


def test_an_unobserved_private_block_cancels(x):
    """The likelihood of x_I does not depend on z_T, which has its prior."""
    model = untrained("poe-v2")
    before = log_likelihoods(model, {"I": x["I"]}, (1, 10))
    torch.nn.init.normal_(model.decoders["T"].pixels.weight)
    after = log_likelihoods(model, {"I": x["I"]}, (1, 10))
    assert all(torch.equal(before[k], after[k]) for k in before)


def test_the_likelihood_is_the_models_own(x):
    class Seven(mmvae.likelihoods.Bernoulli):
        def log_prob(self, output, image):
            return torch.full_like(image[:, 0, 0, 0], 7.0)

    torch.manual_seed(0)
    model = mmvae.PoEVAE({m: images(16, private=2, likelihood=Seven()) for m in IT})
    assert torch.allclose(log_weights(model, x, 3, weight=2.0), log_weights(model, x, 3, weight=0.0) + 28)


@pytest.mark.parametrize("samples, wrong", [((1, 3, 10), 3), ((0, 10), 0), ((-1, 10), -1)])
def test_numbers_of_draws_that_do_not_divide_the_largest_are_refused(samples, wrong, x):
    with pytest.raises(ValueError, match=f"samples: found {wrong}, expected divisors of the largest, 10"):
        log_likelihoods(untrained("mumo"), x, samples)


def test_a_model_of_pairs_refuses_one_image(x):
    with pytest.raises(ValueError, match="VanillaVAE"):
        log_likelihoods(untrained("vanilla"), {"I": x["I"]}, (1,))


# ---------------------------------------------------------------- any rows, any model


class Asked:
    """Rows that count how many of them were asked for, and can only be sampled."""
    device = torch.device("cpu")

    def __init__(self):
        self.asked = []

    def sample(self, n, generator=None):
        self.asked.append(n)
        return {m: torch.rand(n, 1, 16, 16) for m in "IT"}, {}


@pytest.mark.parametrize("n, batches", [(8, [8]), (256, [256]), (600, [256, 256, 88])])
def test_heldout_evaluates_n_rows_and_no_more(n, batches):
    rows = Asked()
    heldout(untrained("poe-v2"), rows, n=n)
    assert rows.asked == batches


class Half(mmvae.PoEVAE):
    """Fuses by a mixture: neither a product nor a Gaussian."""

    def fuse(self, experts):
        q = super().fuse(experts)
        return q | {"S": mmvae.mixture_of_experts([e["S"] for e in experts.values()])}


def three(cls=mmvae.PoEVAE, **options):
    """Numbers, a picture and a label."""
    torch.manual_seed(0)
    model = cls({"numbers": vectors(5, private=2), "picture": images(8, channels=3, private=1), "label": categories(4)},
                shared=3, **options)
    return mmvae.behaviour.fixed_weights(model)


def mixed(n=40, gaps=True):
    g = torch.Generator().manual_seed(0)
    x = {"numbers": torch.randn(n, 5, generator=g), "picture": torch.rand(n, 3, 8, 8, generator=g),
         "label": torch.randint(4, (n,), generator=g)}
    present = {"picture": torch.arange(n) % 3 > 0, "label": torch.arange(n) % 2 > 0} if gaps else None
    return Rows(x, present)


@pytest.mark.parametrize("cls", [mmvae.PoEVAE, mmvae.MuMoVAE, Half])
def test_heldout_of_rows_with_gaps_is_the_mean_over_the_rows_that_have_a_subset(cls):
    model, rows = three(cls), mixed()
    found = heldout(model, rows, n=300)
    torch.manual_seed(0)
    generator, batches = torch.Generator().manual_seed(0), []
    with torch.no_grad():
        for k in (256, 44):
            x, present = rows.batch(rows.draw(k, generator))
            batches.append((model.terms(x, present=present, subsets=model.seen), present))
    assert {k.split(".")[0] for k in found} == {joined(s) for s in model.seen} | {"total"}
    for s in model.seen:
        values = torch.cat([terms[f"{joined(s)}.elbo"] for terms, _ in batches])
        there = torch.cat([torch.stack([present[m] for m in s if m in present] or [torch.ones(len(values)).bool()[:k]]).all(0)
                           for (_, present), k in zip(batches, (256, 44))])
        assert not values[~there].any() and found[f"{joined(s)}.elbo"] == pytest.approx(values[there].mean().item(), rel=1e-4)
    total = torch.cat([terms["total"] for terms, _ in batches]).mean().item()
    assert found["total"] == pytest.approx(total, rel=1e-5)


def test_a_subset_that_no_row_has_is_left_out():
    x = {"numbers": torch.randn(6, 5), "label": torch.zeros(6, dtype=torch.int64)}
    x |= {"picture": torch.rand(6, 3, 8, 8)}
    label = torch.arange(6) < 3
    found = heldout(three(), Rows(x, {"label": label, "picture": ~label}), n=20)
    assert "numbers+label.elbo" in found
    assert not any(k.startswith(("picture+label.", "numbers+picture+label.")) for k in found)
    assert all(math.isfinite(v) for v in found.values())


def test_the_kl_of_a_mixtures_latents_is_that_of_quadrature():
    """Two parts of one latent, and a latent whose parts are one Gaussian; the caller's random state stays."""
    parts = [Gaussian(torch.tensor([[m, 0.5]]).expand(400, 2), torch.full((400, 2), -2.0)) for m in (-1.0, 1.0)]
    q, state = Mixture(tuple(parts), torch.tensor([[0.3, 0.7]]).expand(400, 2)), torch.get_rng_state()
    z = torch.linspace(-9, 9, 20_001, dtype=torch.float64)
    p = torch.logsumexp(torch.stack([Normal(m, math.exp(-1)).log_prob(z) + math.log(w) for m, w in ((-1, 0.3), (1, 0.7))]), 0)
    exact = (p.exp() * (p - Normal(0.0, 1.0).log_prob(z))).sum().item() * 18 / 20_000
    closed = Gaussian(torch.tensor([[0.5]]), torch.tensor([[-2.0]])).kl().item()
    assert latent_kl(q).tolist() == pytest.approx([exact, closed], abs=0.02)
    assert torch.equal(state, torch.get_rng_state())
    assert latent_kl(q)[0] > latent_kl(q.moments())[0] + 0.1  # its moments tell less


@pytest.mark.parametrize("cls", [mmvae.PoEVAE, Half])
def test_the_weights_of_mixed_likelihoods_are_the_formula_written_out(cls):
    """By the densities of torch.distributions at the draws themselves; for the mixture on average."""
    model, x = three(cls), mixed(gaps=False)[:3][0]
    log_w = log_weights(model, x, 4000)
    assert log_w.shape == (3, 4000) and log_w.dtype == torch.float64
    elbo = {k: v.double() for k, v in x.items()} | {"label": x["label"]}
    model = model.double()
    with torch.no_grad():
        torch.manual_seed(3)
        many = {m: v.repeat_interleave(4000, 0) for m, v in elbo.items()}
        terms = model.terms(many, subsets=[tuple(x)])["numbers+picture+label.elbo"].unflatten(0, (3, -1))
    error = (log_w.var(1) / 4000 + terms.var(1) / 4000).sqrt()
    assert ((log_w.mean(1) - terms.mean(1)).abs() < 4.5 * error).all()
    assert not torch.equal(log_w, log_weights(model, x, 4000, seed=1))


@pytest.mark.parametrize("cls", [mmvae.PoEVAE, mmvae.MuMoVAE, Half])
def test_a_row_with_gaps_has_the_likelihood_of_what_was_observed(cls):
    """As if the key were absent, whatever stands in its place."""
    model, rows = three(cls), mixed()
    x, present = rows.batch(torch.arange(12))
    found = log_likelihood(model, x | {"picture": x["picture"].masked_fill(~present["picture"].view(-1, 1, 1, 1), math.nan)},
                           samples=200, present=present)
    if cls is Half:  # the draws of a mixture are dealt to the parts in another order: as estimates
        found, tolerance = found.value, 5 * found.error.amax().item()
    else:
        found, tolerance = found.value, 1e-6
    for k in range(12):
        one = {m: v[k:k + 1] for m, v in x.items() if m not in present or present[m][k]}
        alone = log_weights_of_row(model, one, k)
        assert abs(alone - found[k].item()) < tolerance


def log_weights_of_row(model, one, k):
    """The noise of a row is that of its place: k rows before it."""
    many = {m: v.expand(k + 1, *v.shape[1:]) for m, v in one.items()}
    return log_likelihood(model, many, samples=200).value[k].item()


def test_an_estimate_unpacks_and_says_how_far_it_may_be_trusted():
    """value: that of log_likelihoods. error: the spread of repetitions. ess: K where all weights are equal."""
    model, x = three(), mixed(gaps=False)[:2][0]
    estimate = log_likelihood(model, x, samples=100)
    value, error = estimate
    torch.testing.assert_close(value, log_likelihoods(model, x, (100,))[100])
    assert value.shape == error.shape == estimate.ess.shape == (2,)
    assert (estimate.ess >= 1).all() and (estimate.ess <= 100).all()
    w = log_weights(model, x, 100).softmax(1)
    torch.testing.assert_close(estimate.ess, 1 / w.square().sum(1))


@pytest.mark.parametrize("x, given, samples, message", [
    ({"label": torch.zeros(2).long()}, {"label": torch.zeros(2).long()}, 10, "x: found no modality beside those given"),
    ({"labels": torch.zeros(2).long()}, None, 10, r"x: found modalities \['labels'\]"),
    ({"label": torch.zeros(2).long()}, {"digit": torch.zeros(2)}, 10, r"x: found modalities \['digit', 'label'\]"),
    ({"label": torch.zeros(2).long()}, {"numbers": torch.zeros(3, 5)}, 10, "found a batch of 2, expected 3"),
    ({"numbers": torch.full((2, 5), math.nan)}, None, 10, "found NaN"),
    ({"label": torch.zeros(2).long()}, None, 1, "samples: found 1, expected at least 2"),
    ({}, {"label": torch.zeros(2).long()}, 10, "x: found no modality")])
def test_what_a_conditional_cannot_be_of_is_refused(x, given, samples, message):
    with pytest.raises(ValueError, match=message):
        log_likelihood(three(), x, given, samples=samples)


def test_a_conditional_needs_a_posterior_of_what_is_given():
    torch.manual_seed(0)
    model = mmvae.VanillaVAE({"a": vectors(3), "b": vectors(3, likelihood=NormalLikelihood(0.5))})
    with pytest.raises(ValueError, match="VanillaVAE has no posterior of fewer"):
        log_likelihood(model, {"a": torch.zeros(2, 3)}, {"b": torch.zeros(2, 3)}, samples=10)
