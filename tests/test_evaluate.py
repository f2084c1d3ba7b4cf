"""evaluate: every measurement of any model and any rows, and the names of the room."""
import ast
import math
import subprocess
import sys

import pytest
import torch

import worlds
from mmvae import evaluate
from mmvae.observed import joined

JUDGED = [("vanilla", "two", False), ("mumo", "two", True), ("mixture", "two", False), ("vanilla", "own", False),
          ("poe", "own", True), ("mumo", "three", False), ("poe", "three", True), ("mixture", "three", True)]


def finite(value):
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return math.isfinite(value) if parts is None else all(map(finite, parts))


def everything(model, rows):
    """Every measurement of evaluate that needs no more than rows with a class "kind" and a number "angle"."""
    x, masks = rows.batch(torch.arange(5))
    found = {"heldout": evaluate.heldout(model, rows, n=30), "probes": evaluate.probes(model, rows, rows, 60),
             "samples": evaluate.probes(model, rows, rows, 60, samples=True),
             "verification": evaluate.verification(model, rows, rows, "kind", 60),
             "effects": evaluate.effects(model, rows, shared=["kind"]), "mig": evaluate.mig(model, rows, 60),
             "dci": evaluate.dci(model, rows, rows, 60), "experts": evaluate.experts(model, rows, 60)}
    bounds = evaluate.log_likelihoods(model, x, (1, 10), present=masks)
    estimate = evaluate.log_likelihood(model, x, samples=10, present=masks)
    estimate = {k: getattr(estimate, k).tolist() for k in ("value", "error", "ess")}
    return found | {"likelihood": {k: v.tolist() for k, v in bounds.items()} | estimate}


@pytest.mark.parametrize("kind, world, gaps", JUDGED)
def test_any_model_and_any_rows_are_judged(kind, world, gaps):
    """Mixed likelihoods, own networks, mixtures, two and three modalities; the caller's random state and model stay."""
    model, rows = worlds.build(kind, world).eval(), worlds.rows(world, gaps, 48)
    state, before = torch.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}
    found = everything(model, rows)
    assert torch.equal(state, torch.get_rng_state()) and finite(found)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    if (kind, world) in (("mumo", "two"), ("mixture", "three")):
        assert everything(model, rows) == found
    subsets, latents = {joined(s) for s in model.seen}, sum(model.blocks.values())
    assert {k.split(".")[0] for k in found["heldout"]} == subsets | {"total"}
    for table in ("probes", "samples", "verification"):
        assert {k.split(".")[0] for k in found[table]} == subsets
        assert {k.split(".")[1] for k in found[table]} == set(model.blocks)
    assert set(found["effects"]) == {"shared", "kl"} | {f"travel.{m}" for m in model.modalities}
    assert {len(v) for v in found["effects"].values()} == {latents}
    assert set(found["mig"]) == {"kind", "angle", "mean"} and set(found["dci"]) >= {"disentanglement", "completeness"}
    assert (found["experts"] == {}) == (kind == "vanilla")


@pytest.mark.parametrize("world", ["two", "three", "own"])
def test_a_conditional_of_any_modalities(world):
    """Adds up: log p(x, y) = log p(x | y) + log p(y), from the same draws."""
    model, x = worlds.build("poe", world).eval(), worlds.data(world, 3)
    for m in x:
        rest = {o: v for o, v in x.items() if o != m}
        value, error = evaluate.log_likelihood(model, {m: x[m]}, rest, samples=50)
        joint, marginal = (evaluate.log_likelihood(model, data, samples=50).value for data in (x, rest))
        torch.testing.assert_close(value, joint - marginal)
        assert value.shape == error.shape == (3,) and error.isfinite().all()


def test_the_names_of_the_room():
    """Functions, though files have some of these names, whichever is imported first; oracle is a module."""
    from mmvae.evaluate.experts import SPEAKS
    from mmvae.evaluate.probes import COLLAPSED
    assert (evaluate.COLLAPSED, evaluate.SPEAKS) == (COLLAPSED, SPEAKS)
    assert all(callable(getattr(evaluate, f)) for f in ("probes", "experts", "coherence", "log_likelihood", "heldout", "mig"))
    assert all(hasattr(evaluate, name) for name in evaluate.__all__) and evaluate.oracle.toy


def test_a_likelihood_needs_no_scikit_learn():
    """Nor a plot, nor the experiment's file format; a probe does."""
    code = ("import sys, torch, mmvae; model = mmvae.PoEVAE({'a': mmvae.vectors(2), 'b': mmvae.vectors(2)});"
            "mmvae.evaluate.log_likelihood(model, {'a': torch.zeros(1, 2)}, samples=2);"
            "print([m for m in ('sklearn', 'matplotlib', 'h5py') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ast.literal_eval(done.stdout) == []
