"""probes.py and latents.py: what was planted is found and nothing else; MIG and DCI have the values of paper and pencil."""
import math

import numpy as np
import pytest
import torch
from torch.distributions import Categorical, MixtureSameFamily, Normal

import mmvae
import planted
from mmvae import Gaussian, Mixture, evaluate
from mmvae.data import Rows
from mmvae.faces import FACTORS, HOME
from mmvae.observed import joined
from planted import Codes, Oracle, Perfect

IT = "I", "T"
ANGLES = FACTORS[1:]
SUBSETS = ("I",), ("T",), IT

HOLDS = {("I", "elevation"), ("T", "light"), ("S", "azimuth"), ("S", "identity")}  # the planted partition


@pytest.fixture(scope="module")
def splits():
    return planted.splits()


@pytest.fixture(scope="module")
def scores(splits):
    return evaluate.probes(Oracle(), *splits, n=1000)


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
    mu, kl, factors = evaluate.codes(Oracle(), splits[1], ("I",), 200, seed=4)
    x, truth = splits[1].sample(200, torch.Generator().manual_seed(4))
    q = Oracle().posterior({"I": x["I"]})
    assert all((mu[b] == q[b].mu.numpy()).all() for b in "IST")
    assert all((factors[k] == truth[k].numpy()).all() for k in FACTORS)
    assert np.allclose(sum(kl["S"]), q["S"].kl().mean()) and not kl["T"].any()  # T was not observed
    z, _, again = evaluate.codes(Oracle(), splits[1], ("I",), 200, seed=4, samples=True)
    assert all((factors[k] == again[k]).all() for k in FACTORS)
    deviation = (z["S"] - mu["S"]) / math.exp(-3)
    assert abs(deviation.mean()) < 0.2 and abs(deviation.std() - 1) < 0.1


@pytest.mark.parametrize("probe", evaluate.PROBES)
def test_probes_find_the_planted_partition_and_nothing_else(probe, scores):
    assert set(scores) == {f"{s}.{b}.{f}.{p}" for s in ("I", "T", "I+T") for b in "IST" for f in FACTORS
                           for p in ("linear", "knn")}
    is_planted(table(scores, "I+T", probe))
    assert scores[f"I.T.light.{probe}"] == 0 and scores[f"I.T.identity.{probe}"] == 1 / 3  # T was not observed


@pytest.mark.parametrize("probe", evaluate.PROBES)
def test_a_collapsed_latent_is_dropped_with_what_its_mean_would_tell(probe, splits, scores):
    """The second latent of I holds azimuth in a mean that no decoder uses."""
    assert scores[f"I+T.I.azimuth.{probe}"] < 0.05
    mu, kl, factors = evaluate.codes(Oracle(), splits[0], IT, 1000)
    assert kl["I"][1] < evaluate.COLLAPSED < kl["I"][0]
    assert abs(np.corrcoef(mu["I"][:, 1], factors["azimuth"])[0, 1]) > 0.99


@pytest.mark.parametrize("probe", evaluate.PROBES)
def test_samples_tell_the_same_and_idle_noise_reads_as_chance(probe, splits):
    """Without being dropped: an idle block is probed, so its accuracy is about 1/3 and not just 1/3."""
    found = evaluate.probes(Oracle(), *splits, n=1000, samples=True)
    is_planted(table(found, "I+T", probe))
    idle = {f: found[f"I.T.{f}.{probe}"] for f in FACTORS}
    assert max(idle[f] for f in ANGLES) < 0.05
    assert idle["identity"] != 1 / 3 and idle["identity"] == pytest.approx(1 / 3, abs=0.08)


# ---------------------------------------------------------------- verification of persons


class Wobbly(Oracle):
    """zS tells persons apart, but each in a cloud of its own rather than at a point."""

    def read(self, x):
        q = super().read(x)
        mixed = sum(planted.indices(image) @ torch.tensor([3.0, 5.0, 7.0, 11.0]) for image in x.values())
        wobble = 0.1 * torch.sin(50 * mixed)
        return q | {"S": planted.certain(q["S"].mu + wobble[:, None])}


def test_verification_knows_the_block_that_holds_identity(splits):
    found = evaluate.verification(Wobbly(), *splits, "identity", n=1000)
    assert set(found) == {f"{s}.{b}" for s in ("I", "T", "I+T") for b in "IST"}
    assert all(found[f"{s}.S"] > 0.95 for s in ("I", "T", "I+T"))
    assert all(found[f"{s}.{b}"] == pytest.approx(0.5, abs=0.05) for s in ("I", "T", "I+T") for b in "IT")
    assert found["I.T"] == found["T.I"] == 0.5  # not observed


# ---------------------------------------------------------------- the partition


def made(subset="I+T", probe="knn", **changes):
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
    placed = evaluate.partition(made(**changes), HOME)
    assert (placed[factor]["home"], placed[factor]["elsewhere"]) == expected
    assert placed["leak"] == leak and placed["found"] is found
    assert set(placed) == {"elevation", "light", "azimuth", "leak", "found"}


def test_the_partition_names_the_block_that_leaks():
    placed = evaluate.partition(made(S_light=0.3, I_light=0.4, T_elevation=0.5), HOME)
    assert (placed["light"]["block"], placed["elevation"]["block"], placed["leak"]) == ("I", "T", 0.5)


def test_the_partition_is_of_the_subset_and_probe_asked_for(scores):
    assert evaluate.partition(scores, HOME)["found"] and evaluate.partition(scores, HOME, probe="linear")["found"]
    assert not evaluate.partition(scores, HOME, subset=("I",))["found"]  # the light is not in x_I
    assert evaluate.partition(made("T", "linear"), HOME, ("T",), "linear")["found"]


def test_a_partition_needs_private_blocks():
    scores = {f"I+T.Z.{f}.knn": 1.0 for f in FACTORS}
    with pytest.raises(ValueError, match=r"found no block I of \{I, T\}; a partition needs private blocks"):
        evaluate.partition(scores, HOME)


# ---------------------------------------------------------------- what a latent does, and MIG


def test_the_effects_of_a_perfect_models_latents(splits):
    """zI, zS of identity and azimuth, zT, each from the first to the last index of its factor: 30 grey levels a step, in
    one pixel of 256, and in no image but its own.
    """
    found = evaluate.effects(Perfect(), splits[1], splits[1].fixed(8)[0], ("azimuth", "identity"))
    steps = [30 * n / 256 for n in (4, 5, 7, 4)]
    assert found["travel.I"] == pytest.approx([*steps[:3], 0], abs=1e-3)
    assert found["travel.T"] == pytest.approx([0, *steps[1:]], abs=1e-3)
    assert found["shared"] == pytest.approx([0, 1, 1, 0], abs=0.05)
    q = Perfect().posterior(splits[1].at(*torch.unravel_index(torch.arange(600), splits[1].shape))[0])
    assert sum(found["kl"]) == pytest.approx(sum(g.kl().mean().item() for g in q.values()), rel=1e-4)


def test_the_shared_part_of_a_latent_is_its_share_of_the_variance(splits):
    """Of azimuth + elevation, uniform over 8 and 5: 63 / 12 of 63 / 12 + 24 / 12. Grey images do not travel."""
    found = evaluate.effects(Codes(lambda i: i[:, 1:2] + i[:, 2:3]), splits[1], shared=("identity", "azimuth"))
    assert found["shared"] == pytest.approx([63 / 87], abs=0.04) and found["travel.I"] == found["travel.T"] == [0]


def test_the_entropy_of_a_gaussian_is_its_closed_form():
    """0.5 log(2 pi e s^2); the estimate's standard deviation is sqrt(1/2 / M)."""
    q = Gaussian(torch.tensor([[0.0, 5.0, -2.0]]), torch.tensor([[0.0, -4.0, 3.0]]))
    z = q.mu + (0.5 * q.logvar).exp() * torch.randn(20_000, 3, generator=torch.Generator().manual_seed(0))
    found, exact = evaluate.entropies(q, z), 0.5 * (math.log(2 * math.pi * math.e) + q.logvar[0].double())
    assert (found - exact).abs().max() < 4 * math.sqrt(0.5 / 20_000)
    torch.testing.assert_close(evaluate.entropies(q, z[:1000], chunk=7), evaluate.entropies(q, z[:1000], chunk=1000))


def test_the_entropy_of_a_mixture_is_that_of_quadrature():
    mu, sd = torch.tensor([-1.5, 0.0, 2.5]), torch.tensor([0.3, 1.0, 0.6])
    mixture = MixtureSameFamily(Categorical(torch.ones(3)), Normal(mu, sd))
    log_p = mixture.log_prob(torch.linspace(-12, 12, 20_001, dtype=torch.float64))
    exact = -(log_p.exp() * log_p).sum() * 24 / 20_000
    torch.manual_seed(0)
    z = mixture.sample((20_000,))
    error = mixture.log_prob(z).std() / math.sqrt(20_000)
    assert abs(evaluate.entropies(Gaussian(mu[:, None], 2 * sd[:, None].log()), z[:, None]).item() - exact) < 4 * error


def test_the_gap_is_one_where_one_latent_alone_tells_a_factor(splits):
    """azimuth in one latent: 1; elevation in two, either of which tells all: 0; light in none: 0; of the sign of the
    identity's difference from 4 a latent tells log 3 - 2/3 log 2 of log 3 nats.
    """
    def code(i):
        return torch.stack([i[:, 1], i[:, 2], 3 - 2 * i[:, 2], (i[:, 0] == 4).float() * 2], 1)

    found = evaluate.mig(Codes(code), splits[1], draws=3000, average=ANGLES)
    assert found["azimuth"] == pytest.approx(1, abs=0.01)
    assert found["elevation"] == pytest.approx(0, abs=0.01) and found["light"] == pytest.approx(0, abs=0.01)
    assert found["identity"] == pytest.approx((math.log(3) - 2 / 3 * math.log(2)) / math.log(3), abs=0.03)
    assert found["mean"] == pytest.approx((found["azimuth"] + found["elevation"] + found["light"]) / 3)


def test_mig_is_of_all_blocks_and_of_the_seed(splits):
    first, again, other = (evaluate.mig(Oracle(), splits[1], draws=500, seed=s) for s in (0, 0, 1))
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
    found = evaluate.importances_to_dci(np.array(importances, float))
    assert found == pytest.approx({"disentanglement": disentanglement, "completeness": completeness}, abs=1e-9)


def test_dci_of_the_planted_partition_is_near_one(splits):
    found = evaluate.dci(Codes(lambda i: 2.0 * i), *splits, n=600)
    assert set(found) == {"disentanglement", "completeness", "informativeness"}
    assert min(found.values()) > 0.99 and max(found.values()) <= 1 + 1e-9
    assert found == evaluate.dci(Codes(lambda i: 2.0 * i), *splits, n=600)


def test_dci_reads_collapsed_latents_too(splits):
    """Of the means of all latents, as its definition has it: the oracle's idle one tells azimuth once more."""
    found = evaluate.dci(Oracle(), *splits, n=600)
    assert found["disentanglement"] > 0.99 and found["informativeness"] > 0.99
    twice = 1 - math.log(2) / math.log(5) / 4  # one factor of four in two latents of five, in equal parts
    assert found["completeness"] == pytest.approx(twice, abs=0.05)


def test_dci_of_latents_that_mix_the_factors_is_low(splits):
    """Each of four latents an equal mixture of all factors with other signs: known, but not told apart."""
    signs = torch.tensor([[1.0, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]])
    scale = torch.tensor(planted.SHAPE)
    found = evaluate.dci(Codes(lambda i: (i / scale) @ signs), *splits, n=600)
    assert found["disentanglement"] < 0.4 and found["completeness"] < 0.4 < found["informativeness"]


# ---------------------------------------------------------------- factors of any names


class Told(mmvae.PoEVAE):
    """Three modalities, each of which states its own factor and the shared one: x_m = [own, shared + noise]."""

    def __init__(self):
        super().__init__({m: mmvae.vectors(2, private=1) for m in ("ink", "paper", "ear")}, shared=1)

    def posteriors(self, x, subsets):
        found = {}
        for s in subsets:
            q = {m: planted.certain(x[m][:, :1]) for m in s} | {"S": planted.certain(x[s[0]][:, 1:])}
            found[s] = {b: q[b] for b in self.blocks if b in q}
        return found

    def decode(self, z, modalities=None):
        return {m: torch.cat([z[m], 3 * z["S"]], 1) for m in modalities or self.modalities}


def told(n=600, seed=0, classes=5, first=0, gaps=False, **more):
    """Factors: own real numbers of ink and paper, a class of ear, the shared class "digit"."""
    g = torch.Generator().manual_seed(seed)
    own = {"shade": torch.randn(n, generator=g), "grain": torch.randn(n, generator=g),
           "voice": torch.randint(3, (n,), generator=g), "digit": first + torch.randint(classes, (n,), generator=g)}
    x = {m: torch.stack([own[f].float(), own["digit"].float()], 1) for m, f in zip(("ink", "paper", "ear"), own)}
    present = {"ear": torch.rand(n, generator=g) < 0.6} if gaps else None
    return Rows(x, present, factors=own | more)


WHERE = {"shade": "ink", "grain": "paper", "voice": "ear", "digit": "S"}


@pytest.mark.parametrize("gaps", [False, True])
def test_any_factors_of_any_modalities_are_read_where_they_are(gaps):
    """Real numbers by R^2, classes by accuracy beside the share of the most frequent one, in rows that have the subset."""
    model, train, test = Told(), told(gaps=gaps), told(seed=1, gaps=gaps)
    scores = evaluate.probes(model, train, test, n=500)
    assert set(scores) == {f"{joined(s)}.{b}.{f}.{p}" for s in model.seen for b in ("S", *model.modalities) for f in WHERE
                           for p in evaluate.PROBES}
    for s in model.seen:
        for f, home in WHERE.items():
            for b in model.blocks:
                score, there = scores[f"{joined(s)}.{b}.{f}.knn"], b == home and (b == "S" or b in s)
                assert score > 0.95 if there else score < {"voice": 0.48, "digit": 0.35}.get(f, 0.1), (s, b, f)
    verdict = evaluate.partition(scores, {"shade": "ink", "grain": "paper"})
    assert verdict["found"] and set(verdict) == {"shade", "grain", "leak", "found"}
    assert evaluate.partition(scores, {"digit": "S"}, subset=("ear",))["digit"]["home"] > 0.95


def test_chance_is_the_most_frequent_class_and_of_unseen_classes_one_in_so_many():
    """In a block that holds nothing: the private one of a modality that was not observed."""
    model, often = Told(), torch.zeros(600, dtype=torch.int64)
    often[::5] = 1
    a, b = told(rare=often, unseen=often), told(seed=1, rare=often, unseen=often + 7)
    scores = evaluate.probes(model, a, b, n=500, subsets=[("ink",)], factors=("rare", "unseen"))
    assert set(k.split(".")[2] for k in scores) == {"rare", "unseen"}
    assert scores["ink.ear.rare.knn"] == pytest.approx(0.8, abs=0.05) and scores["ink.ear.unseen.knn"] == 0.5


def test_classes_that_training_does_not_have_are_fitted_on_half_of_the_test_rows(monkeypatch):
    """Even row numbers, or those that the rows say; no row is in both halves."""
    model, train, test = Told(), told(), told(seed=1, first=9)
    scores = evaluate.probes(model, train, test, n=500, subsets=[("ink",)], factors=["digit"])
    assert scores["ink.S.digit.knn"] > 0.99 and scores["ink.ink.digit.knn"] < 0.4
    asked = []
    test.half_at = lambda index: asked.append(index) or index < 300
    assert evaluate.probes(model, train, test, n=500, subsets=[("ink",)], factors=["digit"])["ink.S.digit.knn"] > 0.99
    assert len(asked) == 1 and torch.equal(asked[0], test.draw(500, torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("change, message", [
    (dict(factors=("colour",)), "factors: found 'colour', expected some of \\('shade'"),
    (dict(n=6), "rows to fit a probe on"),
])
def test_what_cannot_be_probed_is_said_in_a_sentence(change, message):
    with pytest.raises(ValueError, match=message):
        evaluate.probes(Told(), told(), told(seed=1), **change)


def test_rows_without_factors_cannot_be_probed():
    bare = Rows({m: torch.randn(50, 2) for m in ("ink", "paper", "ear")})
    for ask in (lambda: evaluate.probes(Told(), bare, bare, 40), lambda: evaluate.mig(Told(), bare, 40),
                lambda: evaluate.dci(Told(), bare, bare, 40)):
        with pytest.raises(ValueError, match="factors: found none in these rows, expected at least one"):
            ask()
    assert set(evaluate.effects(Told(), bare)) == {"kl", "travel.ink", "travel.paper", "travel.ear"}


def test_a_kind_that_differs_between_splits_is_refused():
    other = told(seed=1, digit=torch.rand(600))
    with pytest.raises(ValueError, match='factors."digit".: found int64 .* and float32 in test'):
        evaluate.probes(Told(), told(), other, 200)


def test_verification_takes_the_factor_by_its_name():
    found = evaluate.verification(Told(), told(), told(seed=1, first=9), "digit", n=800)
    assert found["ink+paper+ear.S"] > 0.99 and found["ink.ink"] == pytest.approx(0.5, abs=0.05) and found["ink.ear"] == 0.5
    with pytest.raises(ValueError, match='"shade".: found float32 with .* values, expected at least 2 classes'):
        evaluate.verification(Told(), told(), told(), "shade", n=200)
    with pytest.raises(ValueError, match="factors: found 'person', expected some of"):
        evaluate.verification(Told(), told(), told(), "person", n=200)


def test_effects_are_in_the_units_of_the_data():
    """A latent moves its own number by 4, or three times as far; half of the numbers, and no other modality."""
    found = evaluate.effects(Told(), told(), shared=["digit"])
    order = list(Told().blocks)  # ink, paper, S, ear
    for m in ("ink", "paper", "ear"):
        assert found[f"travel.{m}"] == pytest.approx([2.0 if b == m else 6.0 if b == "S" else 0.0 for b in order])
    explained = dict(zip(order, found["shared"]))
    assert explained.pop("S") == pytest.approx(1) and max(explained.values()) < 0.05
    with pytest.raises(ValueError, match="factors: found 'hue'"):
        evaluate.effects(Told(), told(), shared=["hue"])


def test_mig_and_dci_of_classes(monkeypatch):
    """The class of a latent of its own: its gap is 1; real numbers that all differ are refused."""
    rows, test = told(), told(seed=1)
    found = evaluate.mig(Told(), rows, 400, factors=("digit", "voice"))
    assert set(found) == {"digit", "voice", "mean"}
    assert min(found.values()) > 0.9 and found["mean"] == pytest.approx((found["digit"] + found["voice"]) / 2)
    with pytest.raises(ValueError, match='"shade".: found 600 different numbers, expected at most 100; sort them into'):
        evaluate.mig(Told(), rows, 400)
    said = evaluate.dci(Told(), rows, test, 400)
    assert min(said.values()) > 0.9
    monkeypatch.setattr("mmvae.evaluate.latents.MOST", 200)
    assert evaluate.mig(Told(), rows, 400, factors=("digit", "voice"))["mean"] > 0.8


def test_a_factor_that_never_varies_is_no_success():
    """It is served perfectly by no latent at all; and a factor that no latent serves is not complete."""
    still = dict(still=torch.full((600,), 4.0), name=torch.zeros(600, dtype=torch.int64))
    for f in still:
        with pytest.raises(ValueError, match=f'factors."{f}".: found [04.]+ in every row, expected a factor that varies'):
            evaluate.dci(Told(), told(**still), told(seed=1, **still), 200, factors=("shade", f))
    with pytest.raises(ValueError, match="dci: found 1 factors and 4 latents, expected at least 2 of each"):
        evaluate.dci(Told(), told(), told(), 200, factors=("shade",))
    assert evaluate.importances_to_dci(np.array([[1.0, 0], [0, 0]])) == {"disentanglement": 1.0, "completeness": 0.5}
    assert evaluate.mig(Told(), told(**still), 200, factors=("still", "digit"))["still"] == 0


def test_a_mixture_is_judged_by_its_parts():
    """Entropy by quadrature; codes are its means; a probe of its samples reads what the parts say."""
    parts = [Gaussian(torch.tensor([[mu]]), torch.tensor([[logvar]])) for mu, logvar in ((-1.5, -2.0), (1.0, 0.0))]
    q = Mixture(tuple(parts), torch.tensor([[0.25, 0.75]]))
    line = torch.linspace(-12, 12, 20_001)[:, None]
    log_p = q.log_prob(line.unsqueeze(1)).squeeze(1).double()
    exact = -(log_p.exp() * log_p).sum().item() * 24 / 20_000
    g = torch.Generator().manual_seed(0)
    z = torch.cat([q.sample(g) for _ in range(6000)])
    assert evaluate.entropies(q, z).item() == pytest.approx(exact, abs=0.06)

    class Mixed(Told):
        def posteriors(self, x, subsets):
            return {s: q | {"S": mmvae.mixture_of_experts([planted.certain(x[m][:, 1:]) for m in s])}
                    for s, q in super().posteriors(x, subsets).items()}

    rows, test = told(gaps=True), told(seed=1, gaps=True)
    for samples in (False, True):
        found = evaluate.probes(Mixed(), rows, test, 400, samples=samples, subsets=[("ink", "ear")])
        assert found["ink+ear.S.digit.knn"] > 0.95 and found["ink+ear.ear.voice.knn"] > 0.95
    assert evaluate.mig(Mixed(), rows, 300, factors=("digit", "voice"))["digit"] > 0.8
