"""annealed.py: held to the exact likelihood of the linear-Gaussian truth, from posteriors that are wrong on purpose."""
import pytest
import torch

import worlds
from mmvae import Gaussian
from mmvae.evaluate import annealed_log_likelihood, log_likelihood, oracle
from mmvae.observed import all_subsets

PAIR = "I", "T"


class Wrong(oracle.LinearGaussian):
    """The exact model with a posterior that is beside the point."""

    def posteriors(self, x, subsets):
        found = super().posteriors(x, subsets)
        return {s: {b: Gaussian(g.mu + 1.0, g.logvar) for b, g in q.items()} for s, q in found.items()}


@pytest.fixture(scope="module")
def wrong():
    truth = oracle.toy(0.5, names=PAIR)
    model = Wrong(truth.loadings, truth.offset, truth.noise, truth.blocks)
    return model, truth.draw(12, torch.Generator().manual_seed(0))[0]


@pytest.mark.parametrize("subset", all_subsets(PAIR), ids="+".join)
def test_it_finds_the_exact_value_where_importance_sampling_does_not(wrong, subset):
    """Of a thousand plain draws a few count at most, and their estimate is nats too low; annealed ones are there."""
    model, x = wrong
    x = {m: x[m] for m in subset}
    exact, plain = model.exact_log_likelihood(x), log_likelihood(model, x)
    assert plain.ess.median() < 5 and (plain.value - exact).mean() < -2
    found = annealed_log_likelihood(model, x, steps=150, chains=16)
    assert found.ess.median() > 4 and (found.value - exact).abs().mean() < 0.5 and (found.value - exact).mean().abs() < 0.3


def test_the_weights_have_the_right_mean_however_few_the_steps(wrong):
    """Unbiased: the mean of exp(log w) over many chains is p(x), also along a path of a few steps, where log w is too low."""
    model, x = wrong
    x = {"I": x["I"][:1]}
    exact = model.exact_log_likelihood(x)
    few = annealed_log_likelihood(model, x, steps=40, chains=4000)
    assert (few.value - exact).abs() < 4 * few.error and few.error < 0.1


def test_neither_the_batch_nor_the_random_state_changes_a_digit(wrong):
    model, x = wrong
    state = torch.get_rng_state()
    whole = annealed_log_likelihood(model, x, steps=5, chains=3)
    part = annealed_log_likelihood(model, {m: v[:4] for m, v in x.items()}, steps=5, chains=3)
    torch.testing.assert_close(part.value, whole.value[:4], rtol=0, atol=1e-9)
    assert torch.equal(state, torch.get_rng_state())
    assert not torch.equal(whole.value, annealed_log_likelihood(model, x, steps=5, chains=3, seed=1).value)


@pytest.mark.parametrize("kind", worlds.CLASSES)
def test_every_model_and_kind_of_data_is_taken(kind):
    model, x = worlds.build(kind, "three"), worlds.data("three")
    x = {m: v[:3] for m, v in x.items()}
    found = annealed_log_likelihood(model, x, steps=4, chains=2, leapfrogs=1)
    assert all(v.shape == (3,) and v.isfinite().all() for v in (found.value, found.error, found.ess))
    assert (found.ess >= 1 - 1e-9).all() and (found.ess <= 2 + 1e-9).all()


def test_what_was_not_observed_says_nothing(wrong):
    model, x = wrong
    present = {"T": torch.zeros(12, dtype=torch.bool)}
    with_nan = annealed_log_likelihood(model, x | {"T": torch.full_like(x["T"], float("nan"))}, 5, 3, present=present)
    torch.testing.assert_close(with_nan.value, annealed_log_likelihood(model, {"I": x["I"]}, 5, 3).value)


@pytest.mark.parametrize("change, message", [({"steps": 1}, "steps: found 1, expected at least 2"),
                                             ({"chains": 1}, "chains: found 1, expected at least 2"),
                                             ({"leapfrogs": 0}, "leapfrogs: found 0, expected at least 1")])
def test_what_makes_no_estimate_is_refused(wrong, change, message):
    with pytest.raises(ValueError, match=message):
        annealed_log_likelihood(*wrong, **change)
