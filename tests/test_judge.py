"""faces/judge.py: the judges on images whose factors are known, and models that are perfect, or ignore what they see."""
import math

import pytest
import torch

import mmvae
import planted
from mmvae import Gaussian, evaluate, faces
from mmvae.faces import FACTORS, judge as judging
from mmvae.faces.judge import Judge, ReadOut, all_images, features, nearest, read, read_out, rendered_freely
from planted import Perfect

AZIMUTHS, LIGHTS = planted.grid().azimuth, planted.grid().light
CHANCE = (AZIMUTHS[:, None] - AZIMUTHS).abs().mean().item()  # mean |a - b| of two uniform azimuths: 67.5 degrees
SPREAD = {"I": planted.grid().elevation.std(correction=0).item(), "T": LIGHTS.std(correction=0).item()}


@pytest.fixture(scope="module")
def judge():
    train, test = planted.splits()
    return Judge({"train": train, "test": test}, planted.Reader(), {})


@pytest.fixture(scope="module")
def perfect(judge):
    return judging.cross_modal(Perfect(), judge, n=400)


# ---------------------------------------------------------------- real images


def test_all_images_are_those_of_both_modalities_with_their_factors():
    pairs = planted.splits()[1]
    images, factors = all_images(pairs)
    assert images.shape == (2 * 3 * 8 * 5, 16, 16) and images.dtype == torch.uint8
    assert len(images.flatten(1).unique(dim=0)) == 3 * 8 * 9  # at neutral elevation and light both have the same one
    stated = planted.indices(images.unsqueeze(1).float() / 255).round().long()
    for c, k in enumerate(FACTORS):
        values = planted.grid().identity if k == "identity" else pairs.values[k]
        assert torch.equal(factors[k], values[stated[:, c]])
    assert (factors["light"][:120] == 0).all() and (factors["elevation"][120:] == 0).all()


def test_heads_rendered_freely_are_those_of_their_factors():
    images, factors = rendered_freely([1, 4], 16, poses=2, lights=3, progress=False)
    assert images.shape == (12, 16, 16) and images.dtype == torch.uint8 and set(factors) == set(FACTORS)
    assert factors["identity"].tolist() == [1] * 6 + [4] * 6
    for name, most in (("azimuth", 90), ("elevation", 30), ("light", 80)):
        assert factors[name].abs().max() <= most
    assert [len(factors[k].unique()) for k in ("azimuth", "elevation", "light")] == [4, 4, 12]
    for k in (0, 7):
        head = faces.render(*(factors[name][k].item() for name in FACTORS), size=16)
        assert (images[k] / 255 - head).abs().max() < 1.01 / 255
    again = rendered_freely([1, 4], 16, poses=2, lights=3, progress=False)
    other = rendered_freely([1, 4], 16, poses=2, lights=3, seed=1, progress=False)
    assert torch.equal(images, again[0]) and all(torch.equal(factors[k], again[1][k]) for k in FACTORS)
    assert not torch.equal(images, other[0])


def test_the_read_out_learns_and_depends_on_its_seed_alone():
    """Each quarter of an image is as bright as one factor is large."""
    index = torch.cartesian_prod(*(torch.arange(n) for n in (3, 9, 5, 5)))
    quarters = (index * 25 + 20).to(torch.uint8).view(-1, 2, 2)
    images = quarters.repeat_interleave(8, 1).repeat_interleave(8, 2)
    factors = {"identity": index[:, 0]} | {k: 20.0 * (index[:, c] - index[:, c].max() // 2)
                                           for c, k in enumerate(FACTORS) if c}
    state = torch.get_rng_state()
    net, errors = read_out(images, factors, 250, progress=False)
    assert torch.equal(state, torch.get_rng_state())
    assert set(errors) == set(FACTORS) and errors["identity"] > 0.97
    assert all(errors[k] < 4 for k in judging.ANGLES)  # a step is 20 degrees
    found = read(net, images.unsqueeze(1).float() / 255)
    assert all((found[k] - factors[k]).abs().mean() < 4 for k in judging.ANGLES)
    assert net.scale == {"azimuth": 80, "elevation": 40, "light": 40} and not net.training
    short = [read_out(images, factors, 3, seed=s, progress=False) for s in (1, 1, 2)]
    weights = [torch.cat([p.flatten() for p in net.parameters()]) for net, _ in short]
    assert torch.equal(weights[0], weights[1]) and short[0][1] == short[1][1] and not torch.equal(weights[0], weights[2])


def test_the_features_are_what_the_heads_read():
    """The last hidden layer, in parts; and neither outputs nor weights know of it."""
    torch.manual_seed(0)
    net, images = ReadOut(16, 5, {k: 30.0 for k in judging.ANGLES}).eval(), torch.rand(1100, 1, 16, 16)
    before, names = read(net, images), list(net.state_dict())
    h = features(net, images)
    assert h.shape == (1100, 256) and not h.requires_grad and h.var(0).min() > 0
    found = net.net.net.mu(h)
    torch.testing.assert_close(found[:, 3:], before["identity"])
    for c, k in enumerate(judging.ANGLES):
        torch.testing.assert_close(found[:, c] * 30, before[k])
    after = read(net, images)
    assert all(torch.equal(before[k], after[k]) for k in before) and list(net.state_dict()) == names
    assert not net.net.net.mu._forward_pre_hooks  # it watches while it is asked, and no longer


# ---------------------------------------------------------------- the nearest render


def test_the_nearest_render_is_that_of_brute_force():
    g = torch.Generator().manual_seed(0)
    real = torch.randint(0, 256, (700, 8, 8), generator=g, dtype=torch.uint8)
    images = torch.rand(1100, 1, 8, 8, generator=g)
    exclude = torch.cdist(images.flatten(1).double(), real.flatten(1).double() / 255).argmin(1)
    apart = torch.cdist(images.flatten(1).double() * 255, real.flatten(1).double()) / 8  # root of 64 pixels
    for kept in (None, exclude):
        if kept is not None:
            apart[torch.arange(1100), kept] = math.inf
        index, distance = nearest(images, real, exclude=kept)
        assert torch.equal(index, apart.argmin(1))
        torch.testing.assert_close(distance.double(), apart.min(1).values, atol=1e-3, rtol=1e-5)


def test_chunks_do_not_change_what_is_nearest(monkeypatch):
    """Of equal ones in two chunks it is the first; the excluded are excluded in theirs."""
    g = torch.Generator().manual_seed(1)
    real = torch.randint(0, 256, (60, 8, 8), generator=g, dtype=torch.uint8)
    images = torch.cat([torch.rand(600, 1, 8, 8, generator=g), real.unsqueeze(1).float() / 255])
    exclude = torch.randint(60, (len(images),), generator=g)
    apart = (255 * images.flatten(1).double().unsqueeze(1) - real.flatten(1)).square().mean(2).sqrt()  # (660, 60)
    for kept in (None, exclude):
        if kept is not None:
            apart[torch.arange(len(images)), kept] = math.inf
        whole = nearest(images, real, exclude=kept)
        for size, copies in ((1, 2), (7, 2), (59, 1), (60, 2)):  # of a chunk
            with monkeypatch.context() as patch:
                patch.setattr(judging, "ROOM", size * (64 + 512))
                twice = real.repeat(copies, 1, 1) if kept is None else real
                found = nearest(images, twice, exclude=kept)
            assert torch.equal(found[0], apart.argmin(1)) and torch.equal(found[0], whole[0])
            assert torch.equal(found[1], whole[1])


def test_a_real_image_has_distance_zero():
    images, _ = all_images(planted.splits()[0])
    index, distance = nearest(images.unsqueeze(1).float() / 255, images)
    assert (distance == 0).all() and torch.equal(images[index], images)


def test_a_judge_reads_the_truth_off_real_images(judge):
    x, factors = judge.test.sample(50, torch.Generator().manual_seed(1))
    for m, lacks in (("I", "light"), ("T", "elevation")):
        for found in (judge.by_reader(x[m]), judge.by_nearest(x[m])):
            assert torch.equal(found["identity"], factors["identity"]) and found["identity"].min() >= 3
            for k in judging.ANGLES:
                torch.testing.assert_close(found[k], factors[k] * (k != lacks), atol=1e-3, rtol=0)
        assert (judge.by_nearest(x[m])["distance"] == 0).all()


def test_the_reader_chooses_among_the_unseen_and_the_renders_among_all(judge):
    x, factors = planted.splits()[0].sample(50, torch.Generator().manual_seed(1))
    assert (judge.by_reader(x["I"])["identity"] == 3).all()  # the unseen person who is nearest to 0, 1 and 2
    assert torch.equal(judge.by_nearest(x["I"])["identity"], factors["identity"])


def test_the_real_distance_is_to_another_image(judge):
    """A step of one factor is 30 grey levels of one pixel in 256; of an image that both modalities have, it is 0."""
    assert judge.real_distance(2000) == pytest.approx(30 / 16, abs=0.1)
    assert judge.real_distance(100) == judge.real_distance(100)


# ---------------------------------------------------------------- cross-modal synthesis


def test_a_perfect_model_keeps_and_varies_what_it_should(perfect):
    for way, target in (("IT.prior", "T"), ("TI.prior", "I"), ("IT.aggregate", "T"), ("TI.aggregate", "I")):
        for judge in ("", "nearest."):
            found = {k: perfect[f"{way}.{judge}{k}"] for k in ("azimuth", "identity", "neutral", "spread")}
            assert found["azimuth"] < 0.01 and found["identity"] == 1 and found["neutral"] < 0.01
            assert found["spread"] == pytest.approx(SPREAD[target], rel=0.1)  # as the data's
        assert perfect[f"{way}.distance"] < 0.01


def test_the_ceilings_are_real_images_and_reconstructions(perfect):
    for m in "IT":
        for what in (f"truth.{m}", f"reconstruction.{m}"):
            assert perfect[f"{what}.identity"] == perfect[f"{what}.nearest.identity"] == 1
            assert max(perfect[f"{what}.{k}"] for k in ("azimuth", "neutral", "distance", "nearest.azimuth")) < 0.01
        assert perfect[f"truth.{m}.spread"] == pytest.approx(SPREAD[m], rel=0.1)


def test_a_model_that_ignores_what_it_sees_is_at_chance(judge):
    """Its shared block has its prior; of the six people the reader counts three, the renders all."""
    ignorant = Perfect(lambda q: q | {"S": Gaussian(*[torch.zeros_like(q["S"].mu)] * 2)})
    found = judging.cross_modal(ignorant, judge, n=400)
    for way in ("IT.prior", "TI.prior"):
        assert found[f"{way}.azimuth"] == pytest.approx(CHANCE, rel=0.1)
        assert found[f"{way}.identity"] == pytest.approx(1 / 3, abs=0.05)
        assert found[f"{way}.nearest.identity"] == pytest.approx(1 / 6, abs=0.08)
        assert found[f"{way}.neutral"] < 0.01 and found[f"{way}.distance"] < 0.01


def test_prior_and_aggregate_posterior_are_told_apart(judge):
    """A model that puts every light into one latent value: drawn from its own posterior, zT varies nothing."""
    def one_value(q):
        return q if (q["T"].logvar == 0).all() else q | {"T": planted.certain(torch.full_like(q["T"].mu, 2.0), -20.0)}

    narrow = Perfect(one_value)
    found = judging.cross_modal(narrow, judge, n=100)
    assert found["IT.prior.spread"] == pytest.approx(SPREAD["T"], rel=0.15) and found["IT.aggregate.spread"] < 0.01
    assert found["TI.aggregate.spread"] == pytest.approx(SPREAD["I"], rel=0.15)


class Tilting(Perfect):
    """Draws every T at the elevation of 15 degrees, and a quarter of the way to white."""

    def decode(self, z, modalities=None):
        images = {m: logits.sigmoid() for m, logits in super().decode(z, modalities).items()}
        if "T" in images:
            images["T"][:, 0, 0, 2] = 90 / 255
            images["T"][:, 0, 8:] += 0.25
        return {m: image.logit(eps=1e-6) for m, image in images.items()}


def test_a_tilt_and_the_distance_from_all_renders_are_measured(judge):
    """Half of the pixels are off by a quarter: 255 / 4 / sqrt(2) grey levels, beside one pixel by 30."""
    found = judging.cross_modal(Tilting(), judge, n=60)
    assert found["IT.prior.neutral"] == pytest.approx(15, abs=0.01) and found["TI.prior.neutral"] < 0.01
    assert found["IT.prior.azimuth"] < 0.01 and found["IT.prior.identity"] == 1
    half = 255 / 4 / math.sqrt(2)
    assert half < found["IT.prior.distance"] <= math.hypot(half, 30 / 16) + 0.01 and found["TI.prior.distance"] < 0.01


@pytest.mark.parametrize("name", ["vanilla", "wg-v2", "mumo"])
def test_what_is_asked_of_which_model(name, judge):
    """No private block, no aggregate posterior; no inference from one image, no cross-modal judging."""
    torch.manual_seed(0)
    model = mmvae.MODELS[name](size=16)
    found = judging.cross_modal(model, judge, n=8, draws=2)
    ways = {"vanilla": set(), "wg-v2": {"IT.prior", "TI.prior"},
            "mumo": {f"{s}.{w}" for s in ("IT", "TI") for w in ("prior", "aggregate")}}[name]
    ceilings = {f"{what}.{m}" for what in ("truth", "reconstruction") for m in "IT"}
    assert {k.replace(".nearest", "").rsplit(".", 1)[0] for k in found} == ways | ceilings
    assert found == judging.cross_modal(model, judge, n=8, draws=2)
    assert all(math.isfinite(v) for v in (found | judging.joint_coherence(model, judge, n=8)).values())


# ---------------------------------------------------------------- pure synthesis


class Incoherent(Perfect):
    """Turns the heads of a batch round by one before it draws T."""

    def decode(self, z, modalities=None):
        return super().decode(z, modalities) | {"T": super().decode(z | {"S": z["S"].roll(1, 0)}, ("T",))["T"]}


@pytest.mark.parametrize("model, azimuth, identity", [(Perfect, 0, 1), (Incoherent, CHANCE, 1 / 6)])
def test_draws_from_the_prior_agree_or_do_not(model, azimuth, identity, judge):
    found = judging.joint_coherence(model(), judge, n=1500)
    assert set(found) == {f"{n}{w}{k}" for n in ("", "nearest.") for w in ("", "shuffled.")
                          for k in ("azimuth", "identity")} | {"distance"}
    for name in ("", "nearest."):
        assert found[f"{name}azimuth"] == pytest.approx(azimuth, abs=4)
        assert found[f"{name}identity"] == pytest.approx(identity, abs=0.04)
        if model is Perfect:
            assert found[f"{name}shuffled.azimuth"] == pytest.approx(CHANCE, abs=4)
            assert found[f"{name}shuffled.identity"] == pytest.approx(1 / 6, abs=0.04)
    assert found["distance"] < 0.01


# ---------------------------------------------------------------- pictures drawn from the prior, as a whole


class Seeing(planted.Reader):
    """Its features are the factors' indices."""

    def hidden(self, image):
        return planted.indices(image)


class Training(Perfect):
    """Draws the people of its training alone, or those whom it never saw."""
    people = 0, 1, 2

    def decode(self, z, modalities=None):
        person = (torch.special.ndtr(z["S"][:, 0]) * 3 + self.people[0] + 0.5) / 6
        S = torch.stack([torch.special.ndtri(person.clamp(max=(self.people[-1] + 0.9) / 6)), z["S"][:, 1]], 1)
        return super().decode(z | {"S": S}, modalities)


class Clairvoyant(Training):
    people = 3, 4, 5


def test_draws_from_the_prior_are_as_far_from_the_unseen_as_the_training_is(judge):
    """The people are numbered: the seen are 3 from the unseen, and the features differ in nothing else."""
    train, test = planted.splits()
    seeing = Judge({"train": train, "test": test}, Seeing(), {})
    found = {cls: judging.prior_distance(cls(), seeing, evaluate.frechet, n=60) for cls in (Training, Clairvoyant)}
    for of in found.values():
        assert set(of) == {"I", "T", "seen.I", "seen.T", "floor.I", "floor.T"} and min(of.values()) >= 0
        assert all(of[f"floor.{m}"] < 1 and of[f"seen.{m}"] == pytest.approx(9, abs=2) for m in "IT")
    assert all(found[Training][m] == pytest.approx(9, abs=2) and found[Clairvoyant][m] < 1 for m in "IT")
    assert found[Training] == judging.prior_distance(Training(), seeing, evaluate.frechet, n=60)
    assert found[Training] != judging.prior_distance(Training(), seeing, evaluate.frechet, n=60, seed=1)


def test_the_sets_that_are_compared_are_disjoint_and_of_one_size(judge):
    """Of 120 pictures of a modality of three people, 60 each, however many are asked for."""
    seeing, sets = Judge({"train": planted.splits()[0], "test": judge.test}, Seeing(), {}), []
    judging.prior_distance(Perfect(), seeing, lambda a, b: sets.append((a, b)) or 0.0, n=2048)
    assert {part.shape for pair in sets for part in pair} == {(60, 4)}
    for made, seen, floor in (sets[:3], sets[3:]):  # of I, of T
        assert torch.equal(made[1], seen[1]) and torch.equal(made[1], floor[1])
        assert len(torch.cat(floor).unique(dim=0)) == 120 and torch.cat(floor)[:, 0].min() > 2.9
        assert len(seen[0].unique(dim=0)) == 60 and seen[0][:, 0].max() < 2.1
