"""coherence.py: what is planted is counted, beside its interval, its chance and the classifiers' own ceiling."""
import math

import pytest
import torch
from scipy.stats import binomtest

import mmvae
from mmvae.data import Rows
from mmvae.evaluate import coherence, most_likely, train_classifier, wilson
from mmvae.gaussian import Gaussian

CLASSES = 4
NAMES = "picture", "numbers", "label"


def rows(n=300, seed=0, gaps=False, first=0):
    """A class, drawn as the grey of a picture, as the place of the largest number, and named."""
    g = torch.Generator().manual_seed(seed)
    digit = torch.randint(CLASSES, (n,), generator=g)
    x = {"picture": (digit.view(-1, 1, 1, 1) / CLASSES + 0.1 * torch.rand(n, 1, 8, 8, generator=g)),
         "numbers": torch.eye(CLASSES)[digit] + 0.1 * torch.randn(n, CLASSES, generator=g), "label": digit}
    present = {"numbers": torch.rand(n, generator=g) < 0.5} if gaps else None
    return Rows(x, present, {"digit": first + digit, "height": torch.rand(n, generator=g)})


def grey(picture):
    return (picture.mean((1, 2, 3)) * CLASSES - 0.2).round().long().clamp(0, CLASSES - 1)


READ = {"picture": grey, "numbers": lambda x: x.argmax(1), "label": most_likely}


class Planted(mmvae.MultiModalVAE):
    """zS is the class, as a quantile; wrong: the share of classes that the numbers get wrong, by their private block."""

    def __init__(self, wrong=0.0, can=lambda s: True):
        super().__init__({"picture": mmvae.images(8), "numbers": mmvae.vectors(CLASSES, private=1),
                          "label": mmvae.categories(CLASSES)}, 1)
        self.wrong, self.can_see = wrong, can

    def posteriors(self, x, subsets):
        found = {}
        for s in subsets:
            k = x["label"] if s[0] == "label" else READ[s[0]](x[s[0]])
            mu = torch.special.ndtri((k.float() + 0.5) / CLASSES).unsqueeze(1)
            found[s] = {"S": Gaussian(mu, torch.full_like(mu, -14.0))}
            if "numbers" in s:
                found[s]["numbers"] = Gaussian(torch.zeros_like(mu), torch.zeros_like(mu))
        return found

    def decode(self, z, modalities=None):
        k = (torch.special.ndtr(z["S"][:, 0]) * CLASSES).long().clamp(0, CLASSES - 1)
        off = (torch.special.ndtr(z["numbers"][:, 0]) < self.wrong).long()
        made = {"picture": torch.logit((k.view(-1, 1, 1, 1) / CLASSES + 0.05).expand(-1, 1, 8, 8)),
                "numbers": torch.eye(CLASSES)[(k + off) % CLASSES], "label": 20 * torch.eye(CLASSES)[k]}
        return {m: made[m] for m in modalities or self.modalities}


def test_the_interval_is_wilsons():
    for count, n in ((0, 10), (3, 10), (10, 10), (470, 1000)):
        exact = binomtest(count, n).proportion_ci(0.95, "wilson")
        assert wilson(count, n) == pytest.approx((exact.low, exact.high), abs=1e-6)


def test_a_coherent_model_agrees_in_everything():
    """Chance is one in four, of three modalities one in sixteen."""
    state = torch.get_rng_state()
    found = coherence(Planted(), READ, rows(), "digit", n=250)
    assert torch.equal(state, torch.get_rng_state())
    subsets = [s for s in Planted().seen if len(s) < 3]
    assert set(found) == {"joint"} | {f"{'+'.join(s)}->{m}" for s in subsets for m in NAMES if m not in s}
    for name, said in found.items():
        assert said["count"] == said["n"] == 250 and said["share"] == said["high"] == 1 and 0.98 < said["low"] < 1
        assert said["chance"] == pytest.approx(1 / 16 if name == "joint" else 1 / 4, abs=0.03)
    assert found == coherence(Planted(), READ, rows(), "digit", n=250)


def test_what_is_wrong_is_counted():
    found = coherence(Planted(wrong=0.3), READ, rows(), "digit", n=250)
    for name, said in found.items():
        expected = 0.7 if name.endswith("->numbers") or name == "joint" else 1.0
        assert said["share"] == pytest.approx(expected, abs=0.09) and said["low"] <= said["share"] <= said["high"]
        assert said["share"] == said["count"] / said["n"]


def test_the_chance_is_the_mean_over_all_shuffles():
    """Of the readings that the shares are of: here the classes are unequally frequent."""
    some = rows()
    kept = ((some.x["label"] == 0) | (torch.arange(300) % 6 == 0)).nonzero().squeeze(1)
    some = Rows({m: v[kept] for m, v in some.x.items()}, factors={"digit": some.factors["digit"][kept]})
    found = coherence(Planted(wrong=0.4), READ, some, "digit", n=len(kept))["label->numbers"]
    index = torch.randperm(len(kept), generator=torch.Generator().manual_seed(9))
    truth = some.factors["digit"][index]
    shuffles = [(truth[torch.randperm(len(kept))] == truth).double().mean().item() for _ in range(400)]
    assert found["chance"] < sum(shuffles) / 400  # errors are spread over the other classes
    exact = coherence(Planted(), READ, some, "digit", n=len(kept))["label->numbers"]["chance"]
    assert exact == pytest.approx(sum(shuffles) / 400, abs=0.01) and exact > 0.3


def test_rows_that_lack_what_is_given_are_left_out():
    some = rows(gaps=True)
    found = coherence(Planted(), READ, some, "digit", n=300)
    there = int(some.present["numbers"].sum())
    for name, said in found.items():
        given = name.split("->")[0]
        assert said["n"] == (there if "numbers" in given else 300) and said["share"] == 1
    assert coherence(Planted(), READ, some, "digit", n=10**6, subsets=[("label",)])["label->picture"]["n"] == 300


def test_only_what_the_model_infers_from_is_asked():
    whole = Planted(can=lambda s: len(s) == 3)
    assert set(coherence(whole, READ, rows(), "digit", n=20)) == {"joint"}
    assert set(coherence(Planted(), {"label": most_likely}, rows(), "digit", n=20)) == {
        f"{s}->label" for s in ("picture", "numbers", "picture+numbers")}
    assert set(coherence(Planted(), READ, n=20)) == {"joint"}


@pytest.mark.parametrize("read, factor, message", [
    ({}, "digit", "classifiers: found 'none', expected some of"),
    ({"sound": most_likely}, "digit", "classifiers: found 'sound', expected some of .*picture"),
    (READ, "height", r"factor: found 'height', expected one of classes, int64, among \('digit',\)"),
    (READ, None, "factor: found None")])
def test_what_cannot_be_asked_is_said(read, factor, message):
    with pytest.raises(ValueError, match=message):
        coherence(Planted(), read, rows(), factor, n=10)


# ---------------------------------------------------------------- classifiers of one's own data


@pytest.mark.parametrize("modality", NAMES)
@pytest.mark.parametrize("gaps", [False, True])
def test_a_classifier_reads_any_modality_and_says_its_ceiling(modality, gaps):
    """Under the classes' own names, from 7 on; of the rows that have the modality."""
    state, test = torch.get_rng_state(), rows(400, 1, gaps, first=7)
    arguments = (rows(500, 0, gaps, first=7), test, modality, "digit")
    classifier, accuracy = train_classifier(*arguments, iterations=120, progress=False)
    assert torch.equal(state, torch.get_rng_state()) and not classifier.training
    assert accuracy["share"] > 0.97 and accuracy["chance"] == pytest.approx(0.25, abs=0.04)
    assert accuracy["n"] == (int(test.present["numbers"].sum()) if gaps and modality == "numbers" else 400)
    read = classifier(test.x[modality])
    assert read.dtype == torch.int64 and set(read.tolist()) <= {7, 8, 9, 10}
    again, _ = train_classifier(*arguments, iterations=120, progress=False)
    assert all(torch.equal(a, b) for a, b in zip(classifier.parameters(), again.parameters()))


def test_a_trained_classifier_judges_a_model():
    train, test = rows(500), rows(300, 1)
    read = {m: train_classifier(train, test, m, "digit", iterations=120, progress=False)[0] for m in ("picture", "numbers")}
    found = coherence(Planted(), read | {"label": most_likely}, test, "digit", n=200)
    assert min(said["share"] for said in found.values()) > 0.95


def test_an_encoder_of_ones_own_classifies_too():
    classifier, accuracy = train_classifier(rows(), rows(200, 1), "numbers", "digit", iterations=200, progress=False,
                                            encoder=lambda outputs: torch.nn.Linear(CLASSES, outputs))
    assert isinstance(classifier.net, torch.nn.Linear) and accuracy["share"] > 0.9


def test_what_cannot_be_classified_is_said():
    with pytest.raises(ValueError, match="modality: found 'sound', expected one of .*picture"):
        train_classifier(rows(), rows(), "sound", "digit", progress=False)
    with pytest.raises(ValueError, match="factor: found 'height'"):
        train_classifier(rows(), rows(), "label", "height", progress=False)
    assert math.isfinite(wilson(1, 1)[0])
