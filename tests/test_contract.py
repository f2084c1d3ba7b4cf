"""One contract for every model: those of the package, and one that the package does not have, on two and on three modalities of
mixed kinds. A new model is one class, and all of this takes it as it is."""
import json
import math

import pytest
import torch

import mmvae
import tiny
import worlds
from mmvae import evaluate
from mmvae.models import MultiModalVAE
from mmvae.observed import all_subsets, joined
from mmvae.show import diagram, plot, widgets

CASES = [(name, "pair") for name in mmvae.MODELS] + [
    (kind, world) for kind in worlds.CLASSES for world in ("two", "three", "own")] + [(kind, "three") for kind in worlds.LATER]
MIXED = "mixture", "mmvae", "mmvae+", "mmvm", "idmvae"  # the shared posterior of several is a mixture
OWN = "mopoe", "code", "helvae", "hoelder"  # it is made by a rule of the model's own
SETTINGS = dict(iterations=12, batch=8, checkpoint_every=4, log_every=4, progress=False)


@pytest.fixture(params=CASES, ids=lambda case: "-".join(case))
def case(request):
    kind, world = request.param
    return worlds.build(kind, world), worlds.data(world), worlds.rows(world), (kind, world)


def finite(values):
    return all(torch.as_tensor(v).isfinite().all() for v in values)


def test_loss_posteriors_predictions_and_samples(case):
    model, x, *_ = case
    n = worlds.N
    assert isinstance(model, MultiModalVAE) and list(model.modalities) == list(x)
    terms = model.terms(x)
    assert finite(terms.values()) and all(v.shape == (n,) for v in terms.values())
    assert {k for k in terms if k.endswith(".elbo")} == {f"{joined(s)}.elbo" for s in model.subsets}
    if type(model).share is MultiModalVAE.share:  # of the others tests/test_later.py says what the loss is
        torch.testing.assert_close(terms["total"], -sum(v for k, v in terms.items() if k.endswith(".elbo")))
    for s in model.seen:
        q = model.posterior({m: x[m] for m in s})
        assert list(q) == list(model.blocks)
        for block, dim in model.blocks.items():
            z = q[block].sample()
            assert z.shape == (n, dim) and finite((z, q[block].mu, q[block].logvar, q[block].log_prob(z), q[block].kl()))
            if block in model.modalities and block not in s:
                assert (q[block].mu == 0).all() and (q[block].logvar == 0).all()
        made = model.predict({m: x[m] for m in s}, n=3)
        assert finite(made.values()) and all(v.shape[:2] == (3, n) for v in made.values())
    made = model.sample(5)
    assert list(made) == list(x) and finite(made.values()) and all(len(v) == 5 for v in made.values())
    a, b = (model.predict(x, n=2, generator=torch.Generator().manual_seed(1)) for _ in range(2))
    assert all(torch.equal(a[m], b[m]) for m in a)
    for m in x:  # what it makes has the shape of what it is given, but for classes, whose probabilities they are
        of = model.modalities[m]
        if of.shape is not None and not isinstance(model.likelihood(m), mmvae.likelihoods.Categorical):
            assert made[m].shape[1:] == of.shape
        likelihood = model.likelihood(m)
        output = model.decode({b: q.sample() for b, q in model.posterior(x).items()}, (m,))[m]
        likelihood.check(likelihood.sample(output), m)


def test_missing_rows(case):
    model, x, _, (kind, world) = case
    masks = worlds.rows(world, gaps=True).present
    if model.seen == (tuple(x),):
        with pytest.raises(ValueError, match="has no posterior of fewer"):
            model.loss(x, present=masks)
        return
    filled = {m: v.masked_fill(~masks[m].view(-1, *[1] * (v.dim() - 1)), math.nan) if m in masks and v.is_floating_point()
              else v for m, v in x.items()}
    torch.manual_seed(0)
    total = model.terms(x, present=masks)["total"]
    torch.manual_seed(0)
    assert torch.equal(total, model.terms(filled, present=masks)["total"]) and finite([total])
    for s in all_subsets(tuple(x)):
        assert model.loss({m: x[m] for m in s})["total"].isfinite()


@pytest.mark.parametrize("gaps", [False, True])
def test_a_run_that_was_stopped_ends_at_the_same_weights_and_is_loaded(case, gaps, tmp_path, monkeypatch):
    _, _, rows, (kind, world) = case
    if gaps:
        if kind == "vanilla":
            return
        rows = worlds.rows(world, gaps=True)
    whole = tiny.weights(mmvae.fit(worlds.build(kind, world), rows, tmp_path / "whole", **SETTINGS))
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        tiny.stop_at(patch, 7)
        mmvae.fit(worlds.build(kind, world), rows, tmp_path / "cut", **SETTINGS)
    resumed = mmvae.fit(worlds.build(kind, world, seed=5), rows, tmp_path / "cut", **SETTINGS)  # other first weights
    assert tiny.same(whole, tiny.weights(resumed))
    loaded = mmvae.load(tmp_path / "cut", worlds.build(kind, world, seed=6))
    assert tiny.same(whole, tiny.weights(loaded)) and not loaded.training
    assert finite(v for k, v in mmvae.train.read_log(tmp_path / "cut").items())
    other = worlds.build("mumo" if kind != "mumo" else "poe", world)
    with pytest.raises(ValueError, match="holds a run of another model"):
        mmvae.load(tmp_path / "cut", other)


def test_evaluation(case):
    model, x, rows, _ = case
    model.eval()
    found = evaluate.heldout(model, rows, n=10)
    assert {f"{joined(s)}.elbo" for s in model.seen} <= set(found) and finite(found.values())
    for s in model.seen[-2:]:
        few = {m: x[m][:3] for m in s}
        bounds = evaluate.log_likelihoods(model, few, (1, 20))
        assert finite(bounds.values()) and bounds[20].shape == (3,)
    few = {m: v[:3] for m, v in x.items()}
    value, error = evaluate.log_likelihood(model, few, samples=30)
    assert value.shape == error.shape == (3,) and finite((value, error)) and (error >= 0).all()
    given = list(x)[0]
    if (given,) in model.seen:
        value, error = evaluate.log_likelihood(model, {m: v for m, v in few.items() if m != given}, {given: few[given]}, 30)
        assert finite((value, error))
    scores = evaluate.probes(model, rows, rows, n=20, subsets=[tuple(x)])
    assert {k.split(".")[2] for k in scores} == {"kind", "angle"} and finite(scores.values())
    assert {k.split(".")[1] for k in scores} >= {b for b, dim in model.blocks.items() if dim}


def test_plots(case):
    model, x, *_ = case
    model.eval()
    few = {m: v[:2] for m, v in x.items()}
    pictures = [plot.traversal_strip(model, few), plot.reconstructions(model, few), plot.prior_samples(model, n=3),
                plot.traversal_gif(model, few, frames=4), plot.pairs(few)]
    if len(model.seen) > 1:
        pictures.append(plot.cross_modal(model, few, samples=2))
    for picture in pictures:
        assert picture.data and len(picture.alt) > 20
        assert not any(word in picture.alt for word in ("head", "elevation", "light"))
    assert all(any(m in picture.alt for m in x) for picture in pictures)


def test_the_diagram_draws_it_by_its_own_description(case):
    model, x, _, (kind, _) = case
    drawn = diagram.diagram(model)
    assert drawn.data.startswith(b"<svg") and type(model).__name__ in drawn.alt
    product = kind not in ("vanilla", "mumo", "jmvae", *MIXED, *OWN)
    assert ("product" in drawn.alt) == product and ("mixture" in drawn.alt) == (kind in MIXED)
    assert all(m in drawn.alt for m in x)


def test_the_explorer_takes_it(case):
    """In a kernel every model moves; on the page those whose networks and rule the page computes, and the others say why."""
    model, x, _, (kind, world) = case
    model.eval()
    shown = widgets.explorer(model, {m: v[:2] for m, v in x.items()})
    page = shown.page()
    text = page.split('<script type="application/json">')[1].split("</script>")[0]
    state = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert state["kind"] == "explorer"
    for block, dim in model.blocks.items():
        assert len(shown.latents.get(block, [])) == dim
    moves = world != "own" and kind not in ("full", "wg-v2-full", "mvtcae", "jmvae", *MIXED, *OWN)  # a rule of its own
    assert ("its sliders move in a notebook" in page) != moves


def test_an_own_model_is_one_class_of_at_most_forty_lines():
    import inspect
    for kind in [*worlds.CLASSES.values(), *worlds.LATER.values()]:
        assert len(inspect.getsource(kind).strip().splitlines()) <= 40
