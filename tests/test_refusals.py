"""What a model does not take is refused in one sentence that names the modality, what was found and what was expected; and
what it takes gives finite numbers, however far out."""
import numpy as np
import pytest
import torch

import mmvae
import worlds
from mmvae import MODELS, Modality, MuMoVAE, PoEVAE, VanillaVAE, categories, images, vectors

X = torch.rand(4, 1, 16, 16)


def calls(model, x, **more):
    """Everything that takes data."""
    yield lambda: model.loss(x, **more)
    yield lambda: model.terms(x, **more)
    yield lambda: model.posterior(x, **more)
    yield lambda: model.predict(x, **more)


@pytest.mark.parametrize("x, message", [
    ({"I": X, "T": X * 255}, r'x\["T"\]: found values from .* to 2.*, expected them within \[0, 1\]'),
    ({"I": X * 2 - 1, "T": X}, r'x\["I"\]: found values from -.*, expected them within \[0, 1\]'),
    ({"I": X.masked_fill(X > 0.5, float("nan")), "T": X}, r'x\["I"\]: found NaN'),
    ({"I": (X * 255).to(torch.uint8), "T": X}, r'x\["I"\]: found torch.uint8, expected floating point; divide bytes by 255'),
    ({"I": X.double(), "T": X}, r'x\["I"\]: found torch.float64, expected torch.float32, as the model'),
    ({"I": X[:0], "T": X[:0]}, r'x\["I"\]: found an empty batch, expected at least one row'),
    ({"I": X, "T": X[:2]}, r'x\["T"\]: found a batch of 2, expected 4, as of the others'),
    ({"I": X[:, 0], "T": X}, r'x\["I"\]: found shape \(4, 16, 16\), expected \(B, 1, 16, 16\)'),
    ({"I": X, "T": torch.rand(4, 3, 16, 16)}, r'x\["T"\]: found shape \(4, 3, 16, 16\), expected \(B, 1, 16, 16\)'),
    ({"I": X, "left": X}, r"x: found modalities \['I', 'left'\], expected a dictionary with some of \('I', 'T'\)"),
    ({}, r"x: found modalities \[\], expected a dictionary with some of"),
    (X, "x: found Tensor, expected a dictionary with some of"),
    ({"I": np.random.rand(4, 1, 16, 16).astype("float32")}, r'x\["I"\]: found ndarray, expected a torch.Tensor'),
    ({"I": torch.tensor(0.5)}, r'x\["I"\]: found shape \(\), expected \(B, 1, 16, 16\)')])
def test_data_are_refused_in_words(x, message):
    for call in calls(MODELS["poe-v2"](size=16), x):
        with pytest.raises((ValueError, TypeError), match=message) as found:
            call()
        assert "\n" not in str(found.value)


@pytest.mark.parametrize("x, message", [
    ({"label": torch.rand(4)}, r'x\["label"\]: found torch.float32, expected class indices, int64'),
    ({"label": torch.tensor([0, 4])}, r'x\["label"\]: found classes from 0 to 4, expected 0 to 3'),
    ({"label": torch.eye(4)}, r'x\["label"\]: found shape \(4, 4\), expected \(B,\)'),
    ({"word": torch.zeros(4, 2, dtype=torch.int64)}, r'x\["word"\]: found shape \(4, 2\), expected \(B, 5\)'),
    ({"sound": torch.full((2, 2, 5), float("inf"))}, r'x\["sound"\]: found values from inf to inf, expected finite')])
def test_other_kinds_are_refused_in_words(x, message):
    for call in calls(worlds.build("poe", "three"), x):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize("present, message", [
    ({"T": torch.zeros(4)}, r'present\["T"\]: found torch.float32 of shape \(4,\), expected torch.bool of shape \(4,\)'),
    ({"T": torch.ones(3, dtype=torch.bool)}, r'present\["T"\]: found torch.bool of shape \(3,\), expected'),
    ({"sound": torch.ones(4, dtype=torch.bool)}, r"present: found \['sound'\], expected modalities of x"),
    ({m: torch.tensor([True, True, False, True]) for m in "IT"}, "present: found nothing observed in row 2, expected at l")])
def test_masks_are_refused_in_words(present, message):
    for call in calls(MODELS["poe-v2"](size=16), {"I": X, "T": X}, present=present):
        with pytest.raises(ValueError, match=message):
            call()


def test_masked_rows_are_not_looked_at_and_arrays_are_masks():
    x = {"I": X, "T": torch.full_like(X, float("nan"))}
    assert MODELS["poe-v2"](size=16).loss(x, present={"T": np.zeros(4, bool)})["total"].isfinite()


@pytest.mark.parametrize("make, error, message", [
    (lambda: PoEVAE(16), TypeError, "PoEVAE: found modalities 16, expected .name: Modality."),
    (lambda: PoEVAE({"I": 16}), TypeError, "PoEVAE: found modalities .'I': 16., expected .name: Modality."),
    (lambda: PoEVAE({}), ValueError, "PoEVAE: found no modalities, expected at least one"),
    (lambda: MuMoVAE({"S": images(16)}), ValueError, "found a modality named 'S', expected a name"),
    (lambda: MuMoVAE({"a+b": images(16)}), ValueError, "found a modality named 'a.b'"),
    (lambda: VanillaVAE({"a.b": images(16)}), ValueError, "found a modality named 'a.b'"),
    (lambda: PoEVAE({"a": images(16)}, shared=0), ValueError, "PoEVAE: found 0 latents in block S, expected a whole number"),
    (lambda: PoEVAE({"a": images(16), "b": images(16)}, subsets="ab"), ValueError, "subsets: found 'ab', expected non-empty tup"),
    (lambda: PoEVAE({"a": images(16), "b": images(16)}, subsets=["a", "b"]), ValueError, r"subsets: found \['a', 'b'\], expec"),
    (lambda: PoEVAE({"a": images(16)}, subsets=[("b",)]), ValueError, r"subsets: found \[\('b',\)\], expected non-empty tuples"),
    (lambda: PoEVAE({"a": images(16)}, subsets=[]), ValueError, r"subsets: found \[\]"),
    (lambda: images(0), ValueError, "images: found size 0 with 1 channels, expected at least 1"),
    (lambda: vectors(()), ValueError, "vectors: found size"),
    (lambda: categories(1), ValueError, "classes: found 1, expected at least 2"),
    (lambda: images(8, private=-1), ValueError, "private: found -1, expected 0 or a positive whole number"),
    (lambda: Modality(torch.nn.Linear(2, 2), lambda latent: None), TypeError, "encoder: found Linear, expected a function"),
    (lambda: Modality(lambda n: None, lambda n: None, likelihood=len), TypeError, "likelihood: found builtin_function_or_meth"),
    (lambda: MODELS["poe-v2"](size=16, latents=3), TypeError, "latents")])
def test_what_makes_no_model_is_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_network_of_another_size_is_named():
    x = {"a": torch.randn(3, 5)}
    model = PoEVAE({"a": Modality(lambda outputs: torch.nn.Linear(5, 7), lambda latent: torch.nn.Linear(latent, 5),
                                  mmvae.likelihoods.Normal(), private=1)}, shared=2)
    with pytest.raises(ValueError, match=r"encoder of a, S|encoder of .*: found an output of shape \(3, 7\), expected \(B, 6\)"):
        model.loss(x)
    model = PoEVAE({"a": Modality(lambda outputs: torch.nn.Linear(5, outputs), lambda latent: torch.nn.Linear(latent, 4),
                                  mmvae.likelihoods.Normal(), private=1)}, shared=2)
    with pytest.raises(ValueError, match=r"decoder: found an output of shape \(3, 4\), expected that of x, \(3, 5\)"):
        model.loss(x)


def test_each_model_has_likelihoods_of_its_own():
    """Two models made of the same modalities share no scale, and two modalities made alike neither."""
    same = vectors(3, 1)
    a, b = PoEVAE({"l": same, "r": same}, shared=2), PoEVAE({"l": same, "r": same}, shared=2)
    scales = [model.likelihood(m).log_scale for model in (a, b) for m in ("l", "r")]
    assert len({id(s) for s in scales}) == 4 and all(any(s is p for p in (*a.parameters(), *b.parameters())) for s in scales)


@pytest.mark.parametrize("size", [1e6, -1e6])
@pytest.mark.parametrize("kind", ["vanilla", "mumo", "poe", "mixture"])
def test_far_out_everything_stays_finite(kind, size):
    torch.manual_seed(0)
    model = worlds.CLASSES[kind]({"a": vectors(5, 2), "b": vectors(4, 1, likelihood=mmvae.likelihoods.Laplace())})
    x = {"a": torch.full((3, 5), size), "b": torch.full((3, 4), size)}
    total = model.loss(x)["total"]
    total.backward()
    assert total.isfinite() and all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    for q in model.posterior(x).values():
        assert q.mu.isfinite().all() and q.logvar.isfinite().all()
    assert all(v.isfinite().all() for v in model.predict(x, n=2).values())


@pytest.mark.parametrize("name", MODELS)
def test_far_out_pictures_have_finite_posteriors(name):
    """Pictures outside of [0, 1] are refused; the networks take them all the same."""
    model = MODELS[name](size=16)
    for size in (1e6, -1e6):
        x = {m: torch.full((2, 1, 16, 16), size) for m in model.modalities}
        found = model.posteriors(x, model.seen)
        parts = [part for q in found.values() for g in q.values() for part in (g.mu, g.logvar, g.kl())]
        assert all(part.isfinite().all() for part in parts)
        sum(part.sum() for part in parts).backward()
        assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
        model.zero_grad()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind, world", [("vanilla", "pair"), ("mumo", "pair"), ("poe", "pair"), ("poe", "three"),
                                         ("mixture", "three")])
def test_other_precisions_work(kind, world, dtype):
    model = worlds.build(kind, world).to(dtype)
    x = {m: v.to(dtype) if v.is_floating_point() else v for m, v in worlds.data(world, 4).items()}
    total = model.loss(x)["total"]
    total.backward()
    assert total.dtype == dtype and total.isfinite()
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert all(v.dtype == dtype for v in model.predict(x, n=2).values())


def test_another_device_works():
    """The meta device, which has no numbers: nothing in the way makes a tensor on the CPU."""
    model = worlds.build("poe", "pair").to("meta")
    x = {m: v.to("meta") for m, v in worlds.data("pair", 4).items()}
    assert model.loss(x, check=False)["total"].device.type == "meta"
    with pytest.raises(ValueError, match=r'x\["I"\]: found it on cpu, expected meta, where the model is'):
        model.loss(worlds.data("pair", 4))


@pytest.mark.parametrize("kind, world", [("poe", "pair"), ("mumo", "pair"), ("vanilla", "pair"), ("poe", "three")])
def test_export_with_a_free_batch(kind, world):
    model = worlds.build(kind, world).eval()
    given = list(model.modalities) if kind == "vanilla" else list(model.modalities)[:1]
    x = worlds.data(world, 7)
    worlds.exports(model, {m: x[m] for m in given}, worlds.data(world, 11, seed=3))


V = vectors(4, 1)


@pytest.mark.parametrize("make, message", [
    (lambda: PoEVAE({"type": V}), "found a modality named 'type', expected a name"),
    (lambda: PoEVAE({"left, right": V}), "found a modality named 'left, right'"),
    (lambda: PoEVAE({"cross": V}), "found a modality named 'cross'"),
    (lambda: VanillaVAE({"a": V}, latent=0), "VanillaVAE: found 0 latents in block Z, expected a whole number, at least 1"),
    (lambda: PoEVAE({"a": V}, shared=1.5), "found 1.5 latents in block S"),
    (lambda: Modality(V.encoder, V.decoder, V.likelihood, shape=[4]), r"shape: found \[4\], expected a tuple of whole numbers"),
    (lambda: PoEVAE({"a": V}).loss({"a": torch.zeros(2, 4)}, weight={"b": 2.0}), "weight: found modality 'b', expected some of"),
    (lambda: PoEVAE({"a": V}).loss({"a": torch.zeros(2, 4)}, weight=float("nan")), "weight: found nan"),
    (lambda: PoEVAE({"a": V}).terms({"a": torch.zeros(2, 4)}, subsets=["a"]), r"subsets: found \['a'\], expected"),
    (lambda: PoEVAE({"a": V}).sample(2, want="b"), "modalities: found 'b', expected some of"),
    (lambda: PoEVAE({"a": V}).predict({"a": torch.zeros(2, 4)}, want=["a", "b"]), "modalities: found 'b'"),
    (lambda: MuMoVAE({"a": V}).decode({"a": torch.zeros(2, 1), "S": torch.zeros(2, 5)}, "b"), "modalities: found 'b'")])
def test_more_of_what_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_name_of_several_letters_is_one_name():
    model = PoEVAE({"digit": vectors(4, 1), "name": categories(3)})
    assert list(model.sample(2, want="digit")) == ["digit"] and list(model.sample(2, want=("name",))) == ["name"]


class Scalar(mmvae.likelihoods.Normal):
    def log_prob(self, output, x):
        return -(output - x).square().mean()


@pytest.mark.parametrize("likelihood, decoder, message", [
    (Scalar(), lambda latent: torch.nn.Linear(latent, 4), r'likelihood of "a": found log_prob of shape \(\), expected \(3,\)'),
    (None, lambda latent: worlds.Student(latent), r"decoder: found an output of shape \(3, 5\), expected that of x, \(3, 4\)")])
def test_a_likelihood_says_a_number_a_row(likelihood, decoder, message):
    arguments = {} if likelihood is None else {"likelihood": likelihood}
    model = PoEVAE({"a": Modality(lambda outputs: torch.nn.Linear(4, outputs), decoder, private=1, **arguments)}, shared=2)
    with pytest.raises(ValueError, match=message):
        model.loss({"a": torch.zeros(3, 4)})


def test_pictures_with_other_networks_are_joined_by_features():
    """A partial of the book's encoder with another width is not replaced by the book's own."""
    from functools import partial
    of = images(8)
    wide = Modality(partial(mmvae.nets.ImageEncoder, channels=1, size=(8, 8), width=32), of.decoder, of.likelihood, 1, (1, 8, 8))
    model = MuMoVAE({"a": wide, "b": wide})
    assert isinstance(model.encoders["a+b"].net, mmvae.together.Joined)
    assert model.loss({m: torch.rand(2, 1, 8, 8) for m in "ab"})["total"].isfinite()
