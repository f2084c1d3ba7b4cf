"""What was not observed: by absent key or by mask, it adds no loss and no gradient, whatever stands in its place."""
import itertools

import pytest
import torch

import worlds
from mmvae.observed import all_subsets, joined
from tiny import noiseless

KINDS = [("mumo", "pair"), ("poe", "pair"), ("poe-v1", "pair"), ("wg-v1", "pair"), ("wg-v2", "pair"), ("poe", "two"),
         ("mumo", "three"), ("poe", "three"), ("poe", "own"), ("mixture", "three"), ("mixture", "two")]


def gradients(model, total):
    return [torch.zeros_like(p) if g is None else g for p, g in
            zip(model.parameters(), torch.autograd.grad(total, list(model.parameters()), allow_unused=True))]


def patterns(names):
    """A mask for each modality, so that every non-empty observed set occurs, some more often than others."""
    sets = [s for s in itertools.product([True, False], repeat=len(names)) if any(s)]
    rows = torch.tensor((sets * 4)[:worlds.N if len(sets) * 3 > worlds.N else len(sets) * 3])
    return dict(zip(names, rows.T)), len(rows)


@pytest.mark.parametrize("kind, world", KINDS)
def test_a_mask_is_deleting_the_rows(kind, world):
    """Loss and gradients of rows with every pattern of gaps against the rows of each pattern on their own."""
    model = worlds.build(kind, world).double()
    masks, n = patterns(list(model.modalities))
    x = {m: v.double() if v.is_floating_point() else v for m, v in worlds.data(world, n).items()}
    with noiseless():
        found = model.terms(x, present=masks)["total"]
        apart = torch.zeros(n, dtype=torch.float64)
        for s in all_subsets(tuple(x)):
            there = torch.stack([masks[m] == (m in s) for m in x]).all(0).nonzero().squeeze(1)
            if len(there):
                apart = apart.index_add(0, there, model.terms({m: x[m][there] for m in s})["total"])
    torch.testing.assert_close(found, apart, rtol=1e-6, atol=1e-6)
    for a, b in zip(gradients(model, found.sum()), gradients(model, apart.sum())):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind, world", KINDS)
def test_what_stands_in_its_place_changes_no_bit(kind, world):
    model = worlds.build(kind, world)
    masks, n = patterns(list(model.modalities))
    x, results = worlds.data(world, n), []
    for fill in (0.0, float("nan"), 1e30):
        filled = {m: v.masked_fill(~masks[m].view(-1, *[1] * (v.dim() - 1)), fill if v.is_floating_point() else 3)
                  for m, v in x.items()}
        torch.manual_seed(5)
        terms = model.terms(filled, present=masks)
        results.append((terms["total"].detach(), *gradients(model, terms["total"].sum()),
                        *(part for q in model.posterior(filled, masks).values() for part in (q.mu, q.logvar))))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other))


@pytest.mark.parametrize("kind, world", KINDS)
def test_posteriors_of_rows_with_gaps_are_those_of_the_subsets(kind, world):
    model = worlds.build(kind, world).double()
    masks, n = patterns(list(model.modalities))
    x = {m: v.double() if v.is_floating_point() else v for m, v in worlds.data(world, n).items()}
    q = model.posterior(x, masks)
    for row in range(n):
        s = [m for m in x if masks[m][row]]
        alone = model.posterior({m: x[m][row:row + 1] for m in s})
        for b in model.blocks:
            torch.testing.assert_close(q[b].mu[row], alone[b].mu[0])
            torch.testing.assert_close(q[b].logvar[row], alone[b].logvar[0])
            z = torch.randn(n, model.blocks[b], dtype=torch.float64)
            torch.testing.assert_close(q[b].log_prob(z)[row], alone[b].log_prob(z[row:row + 1])[0])


def brute_force(subsets, observed):
    """{A ∩ O: A in subsets}, without the empty one."""
    return {tuple(m for m in A if m in observed) for A in subsets} - {()}


@pytest.mark.parametrize("subsets", [None, [("a", "b", "c")], [("a",), ("a", "b", "c")], [("a", "b"), ("b", "c")], [("c",)]])
def test_the_elbos_of_a_row_are_those_of_the_rule(subsets):
    """Which terms are zero in which row, against the rule written as sets."""
    torch.manual_seed(0)
    model = worlds.CLASSES["poe"]({m: worlds.vectors(3, 1) for m in "abc"}, shared=2, subsets=subsets)
    x, (masks, n) = {m: torch.randn(21, 3) for m in "abc"}, patterns("abc")
    terms = model.terms(x, present=masks)
    for row in range(n):
        wanted = brute_force(model.subsets, [m for m in "abc" if masks[m][row]])
        found = {k.removesuffix(".elbo") for k, v in terms.items() if k.endswith(".elbo") and v[row] != 0}
        assert found == {joined(s) for s in wanted}
        total = -sum(v[row] for k, v in terms.items() if k.endswith(".elbo"))
        torch.testing.assert_close(terms["total"][row], total)


def test_a_joint_model_learns_from_incomplete_rows():
    """v1: a row that lacks T adds the ELBO of {I}."""
    model = worlds.build("poe-v1", "pair")
    x = {"I": torch.rand(4, 1, 16, 16)}
    with noiseless():
        alone = model.terms(x)
    assert set(alone) == {"total", "I.reconstruction.I", "I.kl.I", "I.kl.S", "I.elbo"} and (alone["total"] > 0).all()


def test_where_everything_is_there_a_mask_changes_nothing():
    model, x = worlds.build("mumo", "pair"), worlds.data("pair", 6)
    torch.manual_seed(1)
    plain = model.terms(x)
    torch.manual_seed(1)
    masked = model.terms(x, present={"T": torch.ones(6, dtype=torch.bool)})
    assert all(torch.equal(plain[k], masked[k]) for k in plain)


def test_vanilla_needs_everything():
    model, x = worlds.build("vanilla", "three"), worlds.data("three", 6)
    for call in (lambda: model.loss({"label": x["label"]}), lambda: model.posterior({"label": x["label"]}),
                 lambda: model.loss(x, present={"label": torch.arange(6) > 2})):
        with pytest.raises(ValueError, match="alone, expected all of .'sound', 'label', 'word'.: VanillaVAE has no post"):
            call()


def test_predictions_take_gaps_too():
    model, x = worlds.build("poe", "three"), worlds.data("three", 6)
    masks = {"sound": torch.arange(6) > 2}
    made = model.predict({m: x[m] for m in ("sound", "label")}, want=("word", "label"), n=3, present=masks)
    assert {m: tuple(v.shape) for m, v in made.items()} == {"word": (3, 6, 5, 3), "label": (3, 6, 4)}
    torch.testing.assert_close(made["word"].sum(-1), torch.ones(3, 6, 5))
