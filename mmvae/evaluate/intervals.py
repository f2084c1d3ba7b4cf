"""How sure a number is: intervals of shares, of means over seeds and over people, and tests of differences between models.

Everything at 95 %. The statistics are scipy's, which is loaded when a function is first called.
"""
from dataclasses import dataclass

import numpy as np

SURE = 0.95  # of an interval
DRAWS = 9999  # of a permutation or a bootstrap, from seed 0


@dataclass(frozen=True)
class Difference:
    """One mean, or share, less another: value, its interval from low to high, and p, the probability that a difference as
    large comes about where there is none."""
    value: float
    low: float
    high: float
    p: float

    @property
    def sign(self) -> int:
        """1 or -1 where p is below 0.05 and the interval leaves out 0, else 0: not decided."""
        return int(np.sign(self.value)) if self.p < 1 - SURE and self.low * self.high > 0 else 0


def wilson(count: int, n: int) -> tuple[float, float]:
    """The interval of a share, count of n: Wilson (1927) [eq-learned-wilson]. Raises ValueError for a count that is not from
    0 to n, and for n = 0."""
    from scipy.stats import binomtest
    if n < 1 or not 0 <= count <= n:
        raise ValueError(f"count: found {count} of {n}, expected a whole number from 0 to n, and n at least 1")
    found = binomtest(int(count), int(n)).proportion_ci(SURE, "wilson")
    return float(found.low), float(found.high)


def mean_interval(values) -> tuple[float, float]:
    """The interval of the mean of values (n,), one a seed, by Student's t. Raises ValueError for fewer than two."""
    from scipy.stats import ttest_1samp
    values = _seeds("values", values)
    if not values.std():
        return float(values[0]), float(values[0])
    found = ttest_1samp(values, 0.0).confidence_interval(SURE)
    return float(found.low), float(found.high)


def difference(one, two) -> Difference:
    """The mean of one (n,) less that of two (m,), a value a seed: the interval by Welch's t, p by permutation of the seeds
    among the two, all ways of dealing them out or 9,999 of them [eq-learned-permutation]. Raises ValueError for fewer than
    two seeds of either."""
    from scipy.stats import permutation_test, ttest_ind
    one, two = _seeds("one", one), _seeds("two", two)
    value = float(one.mean() - two.mean())
    if not one.std() and not two.std():
        low = high = value
    else:
        found = ttest_ind(one, two, equal_var=False).confidence_interval(SURE)
        low, high = float(found.low), float(found.high)
    p = permutation_test((one, two), lambda a, b, axis: a.mean(axis) - b.mean(axis), vectorized=True, n_resamples=DRAWS,
                         rng=np.random.default_rng(0)).pvalue
    return Difference(value, low, high, float(p))


def paired(one, two) -> Difference:
    """The mean of one (n,) less that of two (n,), value by value, the k-th of both of one seed: the interval by Student's
    t of the differences, p by flipping their signs, all ways or 9,999 of them [eq-why-flip]. Raises ValueError for fewer than
    two seeds, and for another number of two."""
    from scipy.stats import permutation_test
    one, two = _seeds("one", one), _seeds("two", two)
    if len(one) != len(two):
        raise ValueError(f"two: found {len(two)} values, expected the {len(one)} of one, seed by seed")
    low, high = mean_interval(one - two)
    p = permutation_test((one - two,), lambda d, axis: d.mean(axis), permutation_type="samples", vectorized=True,
                         n_resamples=DRAWS, rng=np.random.default_rng(0)).pvalue
    return Difference(float((one - two).mean()), low, high, float(p))


def shares_apart(count: int, n: int, other: int, m: int) -> Difference:
    """The share count of n less the share other of m: the interval from the two of `wilson`, Newcombe (1998), p by Fisher's
    exact test. Raises ValueError as `wilson`."""
    from scipy.stats import fisher_exact
    (low, high), (low_2, high_2), a, b = wilson(count, n), wilson(other, m), count / n, other / m
    p = fisher_exact([[count, n - count], [other, m - other]]).pvalue
    down, up = float(np.hypot(a - low, high_2 - b)), float(np.hypot(high - a, b - low_2))
    return Difference(a - b, a - b - down, a - b + up, float(p))


def over_people(one, two=None) -> tuple[float, float, float]:
    """The mean of one (seeds, people), or that less the mean of two (other seeds, the same people), and its interval: (value,
    low, high), by a bootstrap that draws people and seeds anew, the same people for both [eq-learned-people]. Raises
    ValueError for fewer than two seeds or people, and for other people."""
    generator = np.random.default_rng(0)
    one, two = _people("one", one), None if two is None else _people("two", two)
    if two is not None and two.shape[1] != one.shape[1]:
        raise ValueError(f"two: found {two.shape[1]} people, expected the {one.shape[1]} of one")
    people = _shares(generator, one.shape[1])
    drawn = (_shares(generator, len(one)) @ one * people).sum(1)
    if two is not None:
        drawn = drawn - (_shares(generator, len(two)) @ two * people).sum(1)
    low, high = np.quantile(drawn, [(1 - SURE) / 2, (1 + SURE) / 2])
    return float(one.mean() - (0.0 if two is None else two.mean())), float(low), float(high)


def without_one(one, two) -> np.ndarray:
    """The mean of one (seeds, people) less that of two (other seeds, the same people) as each person in turn is left out:
    (people,). Raises ValueError as `over_people`."""
    apart = _people("one", one).mean(0) - _people("two", two).mean(0)
    return (apart.sum() - apart) / (len(apart) - 1)


def _shares(generator: np.random.Generator, n: int) -> np.ndarray:
    """The share of each of n in DRAWS draws of n with replacement: (DRAWS, n)."""
    return generator.multinomial(n, np.full(n, 1 / n), DRAWS) / n


def _seeds(name: str, values) -> np.ndarray:
    values = np.asarray(values, float)
    if values.ndim != 1 or len(values) < 2:
        raise ValueError(f"{name}: found values of shape {values.shape}, expected a number a seed, of at least two")
    return values


def _people(name: str, values) -> np.ndarray:
    values = np.asarray(values, float)
    if values.ndim != 2 or min(values.shape) < 2:
        raise ValueError(f"{name}: found values of shape {values.shape}, expected (seeds, people), of at least two each")
    return values
