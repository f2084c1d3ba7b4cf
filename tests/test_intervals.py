"""Intervals and tests of the book's numbers, against enumeration, simulation and published examples."""
from itertools import combinations, product
from math import comb

import numpy as np
import pytest

from mmvae.evaluate import Difference, difference, mean_interval, over_people, paired, shares_apart, wilson, without_one

G = np.random.default_rng(1)


@pytest.mark.parametrize("count, n", [(0, 10), (3, 3), (15, 20), (470, 1000)])
def test_a_wilson_interval_holds_the_shares_that_the_count_does_not_reject(count, n):
    """eq-learned-wilson: all p with |count / n - p| at most 1.96 of its own standard errors, on a fine grid."""
    p = np.linspace(0, 1, 200_001)
    kept = p[(count / n - p) ** 2 <= 1.959964 ** 2 * p * (1 - p) / n + 1e-15]
    assert wilson(count, n) == pytest.approx((kept.min(), kept.max()), abs=2e-5)


def test_the_interval_of_a_mean_holds_the_truth_in_95_of_100():
    held = [low <= 3 <= high for low, high in (mean_interval(G.normal(3, 2, 5)) for _ in range(2000))]
    assert np.mean(held) == pytest.approx(0.95, abs=0.02)
    assert mean_interval([0.5, 0.5]) == (0.5, 0.5)


def test_p_is_that_of_all_ways_to_deal_the_seeds_out():
    """eq-learned-permutation: twice the rarer side, by enumeration; in both orders, and where a value comes twice."""
    for one, two in (([3.0, 5.0, 4.0], [1.0, 2.0, 4.5, 0.0]), ([1.0, 1.0, 2.0], [1.0, 3.0])):
        every, n = np.array(one + two), len(one)
        apart = []
        for at in combinations(range(len(every)), n):
            rest = np.delete(every, at)
            apart.append(every[list(at)].mean() - rest.mean())
        seen = np.mean(one) - np.mean(two)
        sides = [np.mean(np.array(apart) >= seen - 1e-12), np.mean(np.array(apart) <= seen + 1e-12)]
        assert difference(one, two).p == pytest.approx(min(1, 2 * min(sides)))
        assert difference(two, one).p == pytest.approx(difference(one, two).p)
        assert difference(one, two).value == pytest.approx(seen)


def test_p_of_pairs_is_that_of_all_ways_to_flip_their_signs():
    """eq-why-flip, by enumeration; where a pair ties, and in both orders."""
    for one, two in (([3.0, 5.0, 4.0, 1.0], [1.0, 2.0, 4.5, 0.0]), ([1.0, 1.0, 0.0, 1.0, 0.0], [0.0, 1.0, 0.0, 0.0, 1.0])):
        apart = np.array(one) - two
        flipped = [abs(np.dot(signs, apart)) >= abs(apart.sum()) - 1e-12 for signs in product((-1, 1), repeat=len(one))]
        found = paired(one, two)
        assert found.p == pytest.approx(np.mean(flipped)) and paired(two, one).p == pytest.approx(found.p)
        assert found.value == pytest.approx(apart.mean()) and (found.low, found.high) == mean_interval(apart)
    assert paired(np.ones(10), np.zeros(10)) == Difference(1.0, 1.0, 1.0, pytest.approx(2 / 2 ** 10))
    with pytest.raises(ValueError, match="two: found 3 values, expected the 2 of one"):
        paired([1.0, 2.0], [1.0, 2.0, 3.0])


def test_p_of_many_seeds_is_near_the_exact_one_and_never_0():
    """Ten and ten values that are 0 or 1, of which Fisher's test says p exactly."""
    one, two = [1.0] * 8 + [0.0] * 2, [1.0] * 3 + [0.0] * 7
    ways = comb(20, 10)
    tail = sum(comb(11, k) * comb(9, 10 - k) for k in range(8, 11)) / ways
    assert difference(one, two).p == pytest.approx(2 * tail, abs=0.01)
    assert 0 < difference(np.arange(20.0), np.arange(20.0) + 100).p < 0.001


def test_the_interval_of_a_difference_holds_the_truth_in_95_of_100(monkeypatch):
    from mmvae.evaluate import intervals
    monkeypatch.setattr(intervals, "DRAWS", 9)  # p is not looked at
    held = []
    for _ in range(500):
        found = difference(G.normal(1, 3, 12), G.normal(0, 1, 6))
        held.append(found.low <= 1 <= found.high)
    assert np.mean(held) == pytest.approx(0.95, abs=0.03)
    assert difference([1.0, 1.0], [0.0, 0.0, 0.0]) == Difference(1.0, 1.0, 1.0, pytest.approx(0.2))


def test_shares_are_compared_as_in_newcombes_example():
    """Newcombe (1998), example (a) of his table II, method 10; Fisher's p from the hypergeometric distribution."""
    found = shares_apart(56, 70, 48, 80)
    assert (found.value, found.low, found.high) == pytest.approx((0.2, 0.0524, 0.3339), abs=1e-4)
    ways = [comb(70, k) * comb(80, 104 - k) / comb(150, 104) for k in range(24, 71)]
    assert found.p == pytest.approx(sum(w for w in ways if w <= ways[56 - 24] * (1 + 1e-9)))
    assert shares_apart(48, 80, 56, 70).high == pytest.approx(-found.low)


def test_people_and_seeds_are_both_drawn_anew():
    """eq-learned-people: against a bootstrap with loops."""
    people, one, two = G.normal(0, 4, 30), G.normal(0, 1, (6, 30)), G.normal(2, 1, (4, 30))
    one, two = one + people + G.normal(0, 1, (6, 1)), two + people + G.normal(0, 1, (4, 1))
    drawn, alone = [], []
    for _ in range(4000):
        who = G.integers(30, size=30)
        a = one[G.integers(6, size=6)][:, who].mean()
        alone.append(a)
        drawn.append(a - two[G.integers(4, size=4)][:, who].mean())
    value, low, high = over_people(one, two)
    assert value == pytest.approx(one.mean() - two.mean())
    assert (low, high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.12)
    value, low, high = over_people(one)
    assert value == pytest.approx(one.mean())
    assert (low, high) == pytest.approx(tuple(np.quantile(alone, [0.025, 0.975])), abs=0.2)


def test_each_person_is_left_out_in_turn():
    one, two = G.normal(size=(3, 5)), G.normal(size=(2, 5))
    expected = [np.delete(one, k, 1).mean() - np.delete(two, k, 1).mean() for k in range(5)]
    np.testing.assert_allclose(without_one(one, two), expected)


def test_a_difference_has_a_sign_where_interval_and_test_agree():
    assert Difference(2.0, 1.0, 3.0, 0.01).sign == 1 and Difference(-2.0, -3.0, -1.0, 0.01).sign == -1
    assert Difference(2.0, -1.0, 5.0, 0.01).sign == Difference(2.0, 1.0, 3.0, 0.06).sign == 0


def test_figures_of_counts_and_of_seeds_show_every_number():
    """A row a count with what it says; a dot a seed, and the ticks that were asked for."""
    from mmvae.experiment import figures
    svg = figures.counts({"one": (4, 5), "two": (20, 20)}, "Two counts.").data.decode()
    assert all(f"<!-- {words} -->" in svg for words in ("one", "two", "4 of 5", "20 of 20"))
    assert 'aria-label="Two counts."' in svg
    with pytest.raises(ValueError, match="count: found 6 of 5"):
        figures.counts({"one": (6, 5)}, "A count.")
    values = {"I": {"a": [1.0, 2.0, 30.0], "b": [4.0, 5.0]}, "T": {"a": [2.0, 3.0, 4.0], "b": [5.0, 6.0]}}
    svg = figures.by_seed(values, "nats", "Dots.", (2, 20), {"chance": 10}).data.decode()
    assert all(f"<!-- {words} -->" in svg for words in ("a", "b", "I", "T", "nats", "chance", "2", "20"))
    assert svg.count("fill-opacity: 0.75") + svg.count("opacity: 0.75") >= 10  # the seeds


@pytest.mark.parametrize("wrong, said", [
    (lambda: wilson(4, 3), "count: found 4 of 3, expected a whole number from 0 to n"),
    (lambda: wilson(0, 0), "count: found 0 of 0"), (lambda: shares_apart(1, 2, 3, 2), "count: found 3 of 2"),
    (lambda: mean_interval([1.0]), r"values: found values of shape \(1,\), expected a number a seed, of at least two"),
    (lambda: difference([1.0, 2.0], [[1.0]]), r"two: found values of shape \(1, 1\)"),
    (lambda: over_people([1.0, 2.0]), r"one: found values of shape \(2,\), expected \(seeds, people\)"),
    (lambda: over_people(np.ones((2, 3)), np.ones((2, 4))), "two: found 4 people, expected the 3 of one")])
def test_what_cannot_be_compared_is_refused(wrong, said):
    with pytest.raises(ValueError, match=said):
        wrong()
