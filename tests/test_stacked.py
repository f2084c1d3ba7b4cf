"""stacked.py: K runs as one compute what each of them computes alone, with the batches and the noise of the stack."""
from dataclasses import replace

import pytest
import torch
from torch import nn

import mmvae
from mmvae import checkpoint, likelihoods, stacked, train
from mmvae.data import Rows
from mmvae.experiment import grid, prints, stacks
from mmvae.experiment.recipe import Recipe
from mmvae.stacked import Stack
from mmvae.train import Settings

SEEDS, CHUNK = (0, 3, 4), 10


@pytest.fixture(autouse=True)
def short(monkeypatch):
    for module in (stacked, stacks):
        monkeypatch.setattr(module, "CHUNK", CHUNK)


def rows(missing: bool = False) -> Rows:
    g = torch.Generator().manual_seed(0)
    x = {m: torch.rand(40, 1, 16, 16, generator=g) for m in "IT"}
    return Rows(x, {"I": torch.rand(40, generator=g) < 0.7} if missing else {})


def pair(make, of: Rows, **settings) -> tuple[Stack, list]:
    models = []
    for seed in SEEDS:
        torch.manual_seed(seed)
        models.append(make())
    return Stack(models, [Settings(batch=8, iterations=CHUNK, seed=k, **settings) for k in SEEDS], of), models


def compare(make, of: Rows, steps: int = 4, **settings):
    """The stack's weights after some iterations, and what `train.update` makes of each model alone."""
    stack, models = pair(make, of, **settings)
    stack.index.random_(0, len(of), generator=stack.generator)
    stack.noise.normal_(generator=stack.generator)
    stack.rates.copy_(torch.tensor([stack.settings[0].rate(i) for i in range(CHUNK)]))
    for i in range(steps):
        stack._iteration(stack.settings[0].cross_at(i))
    for k, model in enumerate(models):
        optimiser = train.optimiser_of(model.train(), stack.settings[k])
        for i in range(steps):
            x, present = of.batch(stack.index[i, k])
            with stacked._Noise(stack.noise[i, k]).instead():
                terms = train.update(model, optimiser, x, stack.settings[k], i, present)
            found = dict(zip(stack.terms, stack.found[i, :, k]))
            assert list(found) == list(terms)
            torch.testing.assert_close(found, terms, rtol=2e-5, atol=2e-4)
        weights = torch.nn.utils.parameters_to_vector(model.parameters())
        apart = (stack.weights[k].detach() - weights.detach()).abs()  # Adam moves what has no gradient but noise by a step
        assert (apart > 5e-5).sum() <= 3 and apart.max() < 2e-3


@pytest.mark.parametrize("name", mmvae.MODELS)
def test_a_stack_of_the_books_models_computes_what_each_computes_alone(name):
    compare(lambda: mmvae.MODELS[name](size=16), rows())


@pytest.mark.parametrize("name, missing, settings", [
    ("poe-v2", True, {}), ("mumo", True, {}), ("wg-v2", True, {"weight": 4.0}), ("mumo", False, {"cross": 1.0}),
    ("poe-v2", False, {"cross": 1.0, "cross_until": 2}), ("poe-v2", False, {"clip": 1.0}),
    ("mmvae+", True, {"weight": 4.0}), ("mopoe", True, {}), ("dmvae", True, {}), ("mvtcae", True, {}), ("jmvae", True, {})])
def test_and_with_gaps_weights_and_a_cross_reconstruction(name, missing, settings):
    compare(lambda: mmvae.MODELS[name](size=16), rows(missing), **settings)


def test_and_with_any_modalities_a_scale_that_is_learnt_and_colour_pictures_of_no_whole_patches():
    def make():
        return mmvae.PoEVAE({"picture": mmvae.images((20, 11), channels=3, private=1), "numbers": mmvae.vectors(5, private=2),
                             "name": mmvae.categories(4), "grey": mmvae.images(9, likelihood=likelihoods.Normal())}, shared=3)

    g = torch.Generator().manual_seed(1)
    compare(make, Rows({"picture": torch.rand(30, 3, 20, 11, generator=g), "numbers": torch.randn(30, 5, generator=g),
                        "name": torch.randint(4, (30,), generator=g), "grey": torch.rand(30, 1, 9, 9, generator=g)}), 3)


@pytest.mark.parametrize("layer, shape", [
    (nn.Conv2d(3, 5, 8, stride=8), (2, 3, 20, 27)), (nn.Conv2d(4, 6, 3, padding=1), (2, 4, 7, 5)),
    (nn.Conv2d(4, 6, 1), (2, 4, 7, 5)), (nn.Conv2d(2, 3, (3, 2), stride=(2, 1), padding=(0, 1)), (1, 2, 9, 6))])
def test_a_convolution_as_a_product(layer, shape):
    x = torch.randn(shape)
    assert stacked.plain(layer)
    torch.testing.assert_close(stacked.as_product(layer, x), layer(x), rtol=1e-5, atol=1e-5)


def test_what_no_product_computes_is_left_alone():
    for changes in ({"groups": 2}, {"dilation": 2}, {"padding": "same"}, {"padding_mode": "circular", "padding": 1},
                    {"bias": False}):
        assert not stacked.plain(nn.Conv2d(4, 4, 3, **changes)), changes


def test_it_goes_on_to_the_same_weights_and_leaves_the_folders_of_fit(tmp_path):
    def make():
        return mmvae.MODELS["vanilla"](size=16)

    def twice():
        stack, _ = pair(make, rows())
        stack.settings = [replace(s, iterations=2 * CHUNK) for s in stack.settings]
        return stack

    whole, before, after = twice(), twice(), twice()
    for stack in (whole, whole, before):
        stack.advance()
    before.save(tmp_path / "stack.safetensors")
    after.restore(tmp_path / "stack.safetensors")
    assert after.done == CHUNK and not after.finished
    after.advance()
    assert after.finished and after.idle and torch.equal(after.weights, whole.weights)
    torch.testing.assert_close(torch.stack(after.log), torch.stack(whole.log), rtol=0, atol=0)

    recipe = Recipe("vanilla", size=16, batch=8, iterations=2 * CHUNK, seed=SEEDS[1], weight=1.0)
    after.keep(1, tmp_path / "run", recipe.record())
    log = train.read_log(tmp_path / "run")
    assert log["iteration"].tolist() == [CHUNK, 2 * CHUNK]
    assert log["total"][-1] == pytest.approx(after.log[-1][after.terms.index("total"), 1].item(), rel=1e-5)
    model = mmvae.load(tmp_path / "run")
    torch.testing.assert_close(torch.nn.utils.parameters_to_vector(model.parameters()), after.weights[1], rtol=0, atol=0)
    again = recipe.fit(rows(), tmp_path / "run", progress=False)  # there is nothing left to do
    torch.testing.assert_close(again.state_dict(), model.state_dict(), rtol=0, atol=0)
    assert checkpoint.settings_of(tmp_path / "run")["machine"]["stacked"] == list(SEEDS)


def test_one_that_is_not_finite_is_said_and_says_nothing_of_the_others(tmp_path):
    stack, _ = pair(lambda: mmvae.MODELS["vanilla"](size=16), rows())
    with torch.no_grad():
        stack.weights[1] *= 1e30
    stack.advance()
    assert [stack.finite(k) for k in range(3)] == [True, False, True]
    with pytest.raises(FloatingPointError, match="seed 3: a loss or a weight is not finite after 10 iterations"):
        stack.keep(1, tmp_path / "run", {})
    assert not (tmp_path / "run").exists()


def test_refusals():
    models = [mmvae.MODELS["vanilla"](size=16) for _ in range(2)]
    of = [Settings(iterations=CHUNK, seed=k) for k in range(2)]
    with pytest.raises(ValueError, match="settings: found 1 for 2 models, expected one each, alike but for the seed"):
        Stack(models, of[:1], rows())
    with pytest.raises(ValueError, match="settings: found 2 for 2 models"):
        Stack(models, [of[0], replace(of[1], clip=1.0)], rows())
    with pytest.raises(ValueError, match="iterations: found 15, expected a multiple of 10"):
        Stack(models, [replace(s, iterations=15) for s in of], rows())
    with pytest.raises(ValueError, match="VanillaVAE has no posterior of fewer"):
        Stack(models, of, rows(missing=True))


# ---------------------------------------------------------------- the grid's cells

@pytest.fixture
def small(monkeypatch, tmp_path):
    """Two cells on a grid of pictures that is made by arithmetic."""
    monkeypatch.setenv("MMVAE_BUILD", str(tmp_path))
    monkeypatch.setattr(grid, "pairs", lambda split, *_: prints.tiny_pairs()[split == "test"])
    return [grid.Run(study, "plain", Recipe(model, size=16, batch=8, iterations=2 * CHUNK, seed=seed), 4)
            for seed in range(2) for study, model in (("main", "vanilla"), ("base", "wg-v1"))]


def test_cells_are_the_seeds_of_one_training(small):
    assert [[(run.study, run.recipe.seed) for run in some] for some in stacks.cells(small)] == [
        [("main", 0), ("main", 1)], [("base", 0), ("base", 1)]]


def test_the_grid_by_stacks_stopped_and_gone_on_with(small, monkeypatch):
    class Stopped(Exception):
        pass

    advance = Stack.advance

    def once(self):
        if self.done:
            raise Stopped
        advance(self)

    monkeypatch.setattr(Stack, "advance", once)
    with pytest.raises(Stopped):
        stacks.train(small, "cpu", 1.0)
    assert not any(stacks.whole(run) for run in small)
    assert all(stacks.path_of(some).exists() for some in stacks.cells(small))
    monkeypatch.setattr(Stack, "advance", advance)
    stacks.train(small, "cpu", 0.0)  # no time: nothing is done, nothing lost
    assert not any(stacks.whole(run) for run in small)
    stacks.train(small, "cpu", 1.0)
    assert all(stacks.whole(run) for run in small) and not any(stacks.path_of(some).exists() for some in stacks.cells(small))
    models = [mmvae.load(run.folder) for run in small]
    assert not torch.equal(*(torch.nn.utils.parameters_to_vector(m.parameters()) for m in models[::2]))
    monkeypatch.setattr(stacks, "begun", None)  # there is nothing to begin
    stacks.train(small, "cpu", 1.0)
