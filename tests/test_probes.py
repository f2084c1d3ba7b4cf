"""probes.py: what was planted is found and nothing else, and MIG and DCI have the values that paper and pencil give."""
import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal

import mmvae
import planted
from mmvae import Gaussian, probes
from mmvae.data import FACTORS
from planted import Codes, Oracle, Perfect

HOLDS = {("I", "elevation"), ("T", "light"), ("S", "azimuth"), ("S", "identity")}  # the planted partition


@pytest.fixture(scope="module")
def splits():
    return planted.splits()


@pytest.fixture(scope="module")
def scores(splits):
    return probes.probes(Oracle(), *splits, n=1000)


def table(scores, subset, probe):
    return {(b, f): scores[f"{subset}.{b}.{f}.{probe}"] for b in "IST" for f in FACTORS}


def is_planted(found):
    for (block, factor), score in found.items():
        if (block, factor) in HOLDS:
            assert score > 0.95, (block, factor)
        else:
            assert score < (1 / planted.UNSEEN + 0.12 if factor == "identity" else 0.05), (block, factor)


# ---------------------------------------------------------------- codes and the block x factor table


def test_codes_are_the_posteriors_of_the_pairs_of_the_seed(splits):
    mu, kl, factors = probes.codes(Oracle(), splits[1], "I", 200, seed=4)
    x, truth = splits[1].sample(200, torch.Generator().manual_seed(4))
    q = Oracle().posterior({"I": x["I"]})
    assert all((mu[b] == q[b].mu.numpy()).all() for b in "IST")
    assert all((factors[k] == truth[k].numpy()).all() for k in FACTORS)
    assert np.allclose(sum(kl["S"]), q["S"].kl().mean()) and not kl["T"].any()  # T was not observed
    z, _, again = probes.codes(Oracle(), splits[1], "I", 200, seed=4, samples=True)
    assert all((factors[k] == again[k]).all() for k in FACTORS)
    deviation = (z["S"] - mu["S"]) / math.exp(-3)
    assert abs(deviation.mean()) < 0.2 and abs(deviation.std() - 1) < 0.1


@pytest.mark.parametrize("probe", probes.PROBES)
def test_probes_find_the_planted_partition_and_nothing_else(probe, scores):
    assert set(scores) == {f"{s}.{b}.{f}.{p}" for s in ("I", "T", "IT") for b in "IST" for f in FACTORS
                           for p in ("linear", "knn")}
    is_planted(table(scores, "IT", probe))
    assert scores[f"I.T.light.{probe}"] == 0 and scores[f"I.T.identity.{probe}"] == 1 / 3  # T was not observed


@pytest.mark.parametrize("probe", probes.PROBES)
def test_a_collapsed_latent_is_dropped_with_what_its_mean_would_tell(probe, splits, scores):
    """The second latent of I holds azimuth in a mean that no decoder uses."""
    assert scores[f"IT.I.azimuth.{probe}"] < 0.05
    mu, kl, factors = probes.codes(Oracle(), splits[0], "IT", 1000)
    assert kl["I"][1] < probes.COLLAPSED < kl["I"][0]
    assert abs(np.corrcoef(mu["I"][:, 1], factors["azimuth"])[0, 1]) > 0.99


@pytest.mark.parametrize("probe", probes.PROBES)
def test_samples_tell_the_same_and_idle_noise_reads_as_chance(probe, splits):
    """Without being dropped: an idle block is probed, so its accuracy is about 1/3 and not just 1/3."""
    found = probes.probes(Oracle(), *splits, n=1000, samples=True)
    is_planted(table(found, "IT", probe))
    idle = {f: found[f"I.T.{f}.{probe}"] for f in FACTORS}
    assert max(idle[f] for f in probes.ANGLES) < 0.05
    assert idle["identity"] != 1 / 3 and idle["identity"] == pytest.approx(1 / 3, abs=0.08)


# ---------------------------------------------------------------- verification of persons


class Wobbly(Oracle):
    """zS tells persons apart, but each in a cloud of its own rather than at a point."""

    def posterior(self, x):
        q = super().posterior(x)
        wobble = 0.1 * torch.sin(50 * sum(planted.indices(image) @ torch.tensor([3.0, 5.0, 7.0, 11.0]) for image in x.values()))
        return q | {"S": planted.certain(q["S"].mu + wobble[:, None])}


def test_verification_knows_the_block_that_holds_identity(splits):
    found = probes.verification(Wobbly(), *splits, n=1000)
    assert set(found) == {f"{s}.{b}" for s in ("I", "T", "IT") for b in "IST"}
    assert all(found[f"{s}.S"] > 0.95 for s in ("I", "T", "IT"))
    assert all(found[f"{s}.{b}"] == pytest.approx(0.5, abs=0.05) for s in ("I", "T", "IT") for b in "IT")
    assert found["I.T"] == found["T.I"] == 0.5  # not observed


# ---------------------------------------------------------------- the partition


def made(subset="IT", probe="knn", **changes):
    """A table of scores of a perfect partition, but for changes: I_azimuth=0.3."""
    scores = {f"{subset}.{b}.{f}.{probe}": float((b, f) in HOLDS) for b in "IST" for f in FACTORS}
    return scores | {f"{subset}.{k.replace('_', '.')}.{probe}": v for k, v in changes.items()}


@pytest.mark.parametrize("changes, factor, expected, leak, found", [
    ({}, "azimuth", (1, 0), 0, True),
    ({"T_azimuth": 0.1, "I_azimuth": 0.15}, "azimuth", (1, 0.15), 0.15, True),
    ({"S_elevation": 0.2}, "elevation", (1, 0.2), 0.2, True),
    ({"S_elevation": 0.201}, "elevation", (1, 0.201), 0.201, False),
    ({"T_light": 0.8}, "light", (0.8, 0), 0, True),
    ({"T_light": 0.799}, "light", (0.799, 0), 0, False),
    ({"S_elevation": 0.9, "I_elevation": 0.1}, "elevation", (0.1, 0.9), 0.9, False),
    ({"I_identity": 1.0, "S_identity": 0.0}, "azimuth", (1, 0), 0, True)])  # a factor without degrees does not count
def test_a_partition_is_found_within_its_bounds(changes, factor, expected, leak, found):
    placed = probes.partition(made(**changes))
    assert (placed[factor]["home"], placed[factor]["elsewhere"]) == expected
    assert placed["leak"] == leak and placed["found"] is found
    assert set(placed) == {"elevation", "light", "azimuth", "leak", "found"}


def test_the_partition_names_the_block_that_leaks():
    placed = probes.partition(made(S_light=0.3, I_light=0.4, T_elevation=0.5))
    assert (placed["light"]["block"], placed["elevation"]["block"], placed["leak"]) == ("I", "T", 0.5)


def test_the_partition_is_of_the_subset_and_probe_asked_for(scores):
    assert probes.partition(scores)["found"] and probes.partition(scores, probe="linear")["found"]
    assert not probes.partition(scores, subset="I")["found"]  # the light is not in x_I
    assert probes.partition(made("T", "linear"), "T", "linear")["found"]


def test_a_partition_needs_private_blocks():
    scores = {f"IT.Z.{f}.knn": 1.0 for f in FACTORS}
    with pytest.raises(ValueError, match=r"found no block I of \{I, T\}; a partition needs private blocks"):
        probes.partition(scores)


# ---------------------------------------------------------------- what a latent does, and MIG


def test_the_effects_of_a_perfect_models_latents(splits):
    """zI, zS of identity and azimuth, zT, each from the first to the last index of its factor: 30 grey levels a step, in
    one pixel of 256, and in no image but its own.
    """
    found = probes.effects(Perfect(), splits[1])
    steps = [30 * n / 256 for n in (4, 5, 7, 4)]
    assert found["travel.I"] == pytest.approx([*steps[:3], 0], abs=1e-3)
    assert found["travel.T"] == pytest.approx([0, *steps[1:]], abs=1e-3)
    assert found["shared"] == pytest.approx([0, 1, 1, 0], abs=0.05)
    q = Perfect().posterior(splits[1].at(*torch.unravel_index(torch.arange(600), splits[1].shape))[0])
    assert sum(found["kl"]) == pytest.approx(sum(g.kl().mean().item() for g in q.values()), rel=1e-4)


def test_the_shared_part_of_a_latent_is_its_share_of_the_variance(splits):
    """Of azimuth + elevation, uniform over 8 and 5: 63 / 12 of 63 / 12 + 24 / 12. Grey images do not travel."""
    found = probes.effects(Codes(lambda i: i[:, 1:2] + i[:, 2:3]), splits[1])
    assert found["shared"] == pytest.approx([63 / 87], abs=0.04) and found["travel.I"] == found["travel.T"] == [0]


def test_the_entropy_of_a_gaussian_is_its_closed_form():
    """0.5 log(2 pi e s^2); the estimate's standard deviation is sqrt(1/2 / M)."""
    q = Gaussian(torch.tensor([[0.0, 5.0, -2.0]]), torch.tensor([[0.0, -4.0, 3.0]]))
    z = q.mu + (0.5 * q.logvar).exp() * torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0))
    found, exact = probes.entropies(q, z), 0.5 * (math.log(2 * math.pi * math.e) + q.logvar[0].double())
    assert (found - exact).abs().max() < 4 * math.sqrt(0.5 / 20_000)
    torch.testing.assert_close(probes.entropies(q, z[:1000], chunk=7), probes.entropies(q, z[:1000], chunk=1000))


def test_the_entropy_of_a_mixture_is_that_of_quadrature():
    mu, sd = torch.tensor([-1.5, 0.0, 2.5]), torch.tensor([0.3, 1.0, 0.6])
    mixture = MixtureSameFamily(Categorical(torch.ones(3)), Normal(mu, sd))
    log_p = mixture.log_prob(torch.linspace(-12, 12, 20_001, dtype=torch.float64))
    exact = -(log_p.exp() * log_p).sum() * 24 / 20_000
    torch.manual_seed(0)
    z = mixture.sample((20_000,))
    error = mixture.log_prob(z).std() / math.sqrt(20_000)
    assert abs(probes.entropies(Gaussian(mu[:, None], 2 * sd[:, None].log()), z[:, None]).item() - exact) < 4 * error


def test_the_gap_is_one_where_one_latent_alone_tells_a_factor(splits):
    """azimuth in one latent: 1; elevation in two, either of which tells all: 0; light in none: 0; of the sign of the
    identity's difference from 4 a latent tells log 3 - 2/3 log 2 of log 3 nats.
    """
    def code(i):
        return torch.stack([i[:, 1], i[:, 2], 3 - 2 * i[:, 2], (i[:, 0] == 4).float() * 2], 1)

    found = probes.mig(Codes(code), splits[1], draws=3000)
    assert found["azimuth"] == pytest.approx(1, abs=0.01)
    assert found["elevation"] == pytest.approx(0, abs=0.01) and found["light"] == pytest.approx(0, abs=0.01)
    assert found["identity"] == pytest.approx((math.log(3) - 2 / 3 * math.log(2)) / math.log(3), abs=0.03)
    assert found["mean"] == pytest.approx((found["azimuth"] + found["elevation"] + found["light"]) / 3)


def test_mig_is_of_all_blocks_and_of_the_seed(splits):
    first, again, other = (probes.mig(Oracle(), splits[1], draws=500, seed=s) for s in (0, 0, 1))
    assert first == again != other
    assert min(first[k] for k in FACTORS) > 0.95


# ---------------------------------------------------------------- DCI


@pytest.mark.parametrize("importances, disentanglement, completeness", [
    (np.eye(3), 1, 1), (np.eye(4)[:, [2, 0, 3, 1]], 1, 1), (np.ones((3, 3)), 0, 0), (np.ones((5, 2)), 0, 0),
    ([[1, 1, 0], [0, 0, 1], [0, 0, 0]],  # an idle latent weighs nothing
     2 / 3 * (1 - math.log(2) / math.log(3)) + 1 / 3, 1),
    ([[3, 0, 0], [1, 1, 0], [0, 2, 3]],  # rows (3), (1, 1), (2, 3) of 10; columns (3, 1), (1, 2), (3)
     1 - (0.2 * math.log(2) + 0.5 * (math.log(5) - 0.4 * math.log(2) - 0.6 * math.log(3))) / math.log(3),
     1 - ((math.log(4) - 0.75 * math.log(3)) + (math.log(3) - 2 / 3 * math.log(2))) / math.log(3) / 3)])
def test_disentanglement_and_completeness_by_hand(importances, disentanglement, completeness):
    found = probes.importances_to_dci(np.array(importances, float))
    assert found == pytest.approx({"disentanglement": disentanglement, "completeness": completeness}, abs=1e-9)


def test_dci_of_the_planted_partition_is_near_one(splits):
    found = probes.dci(Codes(lambda i: 2.0 * i), *splits, n=600)
    assert set(found) == {"disentanglement", "completeness", "informativeness"}
    assert min(found.values()) > 0.99 and max(found.values()) <= 1 + 1e-9
    assert found == probes.dci(Codes(lambda i: 2.0 * i), *splits, n=600)


def test_dci_reads_collapsed_latents_too(splits):
    """Of the means of all latents, as its definition has it: the oracle's idle one tells azimuth once more."""
    found = probes.dci(Oracle(), *splits, n=600)
    assert found["disentanglement"] > 0.99 and found["informativeness"] > 0.99
    twice = 1 - math.log(2) / math.log(5) / 4  # one factor of four in two latents of five, in equal parts
    assert found["completeness"] == pytest.approx(twice, abs=0.05)


def test_dci_of_latents_that_mix_the_factors_is_low(splits):
    """Each of four latents an equal mixture of all factors with other signs: known, but not told apart."""
    signs = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
    scale = torch.tensor(planted.SHAPE)
    found = probes.dci(Codes(lambda i: (i / scale) @ signs), *splits, n=600)
    assert found["disentanglement"] < 0.4 and found["completeness"] < 0.4 < found["informativeness"]


def test_names_stay_where_they_were():
    assert mmvae.evaluate.probes is probes.probes and mmvae.evaluate.partition is probes.partition
