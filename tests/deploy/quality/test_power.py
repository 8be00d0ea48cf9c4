"""Power and intervals: worked out by hand, by counting everything, and against simulation."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlab.deploy.quality.power import (
    Flips,
    ab_power,
    ab_size,
    binomial_cdf,
    clopper_pearson,
    flips,
    hours,
    pairs_size,
    smallest_drop,
)

RUNS = 20_000
ERROR = 4 * math.sqrt(0.25 / RUNS)  # four standard errors of a simulated rate, at most


def two_proportions(x: np.ndarray, y: np.ndarray, n: int) -> np.ndarray:
    """Whether a pooled z test, two-sided at 5 %, tells two counts apart."""
    pooled = (x + y) / (2 * n)
    return np.abs(x - y) / n > 1.959964 * np.sqrt(2 * pooled * (1 - pooled) / n)


# ---- By hand ----


def test_the_size_of_an_ab_test_by_hand() -> None:
    """z = 1.959964 and 0.841621; mean 0.11: (1.959964 √0.1958 + 0.841621 √0.1956)² / 0.0004 = 3840.8."""
    by_hand = (1.959964 * math.sqrt(0.1958) + 0.841621 * math.sqrt(0.1956)) ** 2 / 0.0004
    assert by_hand == pytest.approx(3840.8, abs=0.05)
    assert ab_size(0.10, 0.12) == 3841
    assert ab_size(0.12, 0.10) == 3841


def test_pairs_by_hand() -> None:
    """3 % lost, 1 % gained: (1.959964 √0.04 + 0.841621 √0.0396)² / 0.02² = 783."""
    by_hand = (1.959964 * 0.2 + 0.841621 * math.sqrt(0.0396)) ** 2 / 0.0004
    assert pairs_size(0.03, 0.01) == math.ceil(by_hand) == 783


def test_mcnemar_by_hand() -> None:
    """9 lost, 3 gained: 2 (C(12,0) + C(12,1) + C(12,2) + C(12,3)) / 2^12 = 598 / 4096."""
    assert Flips(500, 9, 3).p_value == pytest.approx(598 / 4096)
    assert Flips(500, 0, 0).p_value == 1
    assert Flips(500, 3, 9).p_value == Flips(500, 9, 3).p_value


def test_no_failure_in_n_trials_is_not_none() -> None:
    """Of a rate p, n trials show nothing with probability (1 - p)^n; at the upper end that is 2.5 %."""
    low, high = clopper_pearson(0, 500)
    assert low == 0 and (1 - high) ** 500 == pytest.approx(0.025)
    assert clopper_pearson(500, 500) == pytest.approx((1 - high, 1))


def test_hours() -> None:
    assert hours(3600, 1) == 2
    assert hours(3600, 10, share=0.1) == pytest.approx(2)


# ---- By counting everything, by definition ----


@given(st.integers(0, 12), st.integers(1, 12), st.floats(0.01, 0.99))
def test_binomial_by_enumeration(k: int, n: int, p: float) -> None:
    counted = sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(min(k, n) + 1))
    assert binomial_cdf(k, n, p) == pytest.approx(counted)


def test_ends_of_the_exact_interval_are_where_the_tails_are_small_enough() -> None:
    for k, n in ((1, 30), (17, 40), (39, 40)):
        low, high = clopper_pearson(k, n)
        assert 1 - binomial_cdf(k - 1, n, low) == pytest.approx(0.025, abs=1e-6)
        assert binomial_cdf(k, n, high) == pytest.approx(0.025, abs=1e-6)


def test_the_exact_interval_covers_at_least_what_it_says() -> None:
    """For every rate of a grid, the chances of all counts whose interval holds it."""
    n = 40
    intervals = [clopper_pearson(k, n, 0.9) for k in range(n + 1)]
    for p in np.linspace(0.01, 0.99, 33):
        covered = sum(math.comb(n, k) * p**k * (1 - p) ** (n - k) for k, (a, b) in enumerate(intervals) if a <= p <= b)
        assert covered >= 0.9


@pytest.mark.parametrize("counts", [(9, 3), (3, 9), (0, 0), (5, 0), (0, 1)])
def test_ends_of_the_score_interval(counts: tuple[int, int]) -> None:
    """The definition by brute force: the most likely part gained, given the drop, by trying all; then the score."""
    n, (lost, gained) = 200, counts

    def score(drop: float) -> float:
        part = np.linspace(max(0, -drop), (1 - drop) / 2, 400_001)[1:-1]  # gained; lost is part + drop
        likelihood = (
            lost * np.log(part + drop) + gained * np.log(part) + (n - lost - gained) * np.log(1 - 2 * part - drop)
        )
        best = part[likelihood.argmax()]
        return (lost - gained - n * drop) / math.sqrt(n * (2 * best + drop * (1 - drop)))

    low, high = Flips(n, lost, gained).change_interval()
    assert low < (gained - lost) / n < high
    assert score(-low) == pytest.approx(-1.96, abs=0.01)
    assert score(-high) == pytest.approx(1.96, abs=0.01)


@given(st.integers(0, 30), st.integers(0, 30))
def test_the_score_interval_mirrors(lost: int, gained: int) -> None:
    low, high = Flips(60, lost, gained).change_interval()
    assert -1 <= low <= (gained - lost) / 60 + 1e-9 and (gained - lost) / 60 - 1e-9 <= high <= 1
    assert Flips(60, gained, lost).change_interval() == pytest.approx((-high, -low), abs=1e-9)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_flips_are_counted(pairs: list[tuple[bool, bool]]) -> None:
    before, after = [b for b, _ in pairs], [a for _, a in pairs]
    found = flips(before, after)
    assert found.rate == pytest.approx(sum(b != a for b, a in pairs) / len(pairs))
    assert found.change == pytest.approx((sum(after) - sum(before)) / len(pairs))


# ---- Against simulation ----


@pytest.mark.parametrize(("p", "q", "n"), [(0.10, 0.12, 3841), (0.05, 0.055, 8000), (0.5, 0.45, 1000), (0.2, 0.2, 900)])
def test_power_of_an_ab_test(p: float, q: float, n: int) -> None:
    rng = np.random.default_rng(1)
    seen = two_proportions(rng.binomial(n, p, RUNS), rng.binomial(n, q, RUNS), n).mean()
    assert seen == pytest.approx(ab_power(p, q, n), abs=ERROR)


@pytest.mark.parametrize(("lost", "gained"), [(0.06, 0.04), (0.10, 0.08), (0.25, 0.22)])
def test_power_of_pairs(lost: float, gained: float) -> None:
    """McNemar's test as the formula has it, a normal approximation: good from some 200 flips on."""
    rng = np.random.default_rng(2)
    counts = rng.multinomial(pairs_size(lost, gained), [lost, gained, 1 - lost - gained], RUNS)
    x, y = counts[:, 0], counts[:, 1]
    seen = (np.abs(x - y) / np.sqrt(np.maximum(1, x + y)) > 1.959964).mean()
    assert seen == pytest.approx(0.8, abs=ERROR)


def test_the_exact_test_sees_less_when_flips_are_few() -> None:
    """As the docstring says: 31 flips are expected, and 76 % is what is left of 80."""
    rng = np.random.default_rng(5)
    n = pairs_size(0.03, 0.01)
    counts = rng.multinomial(n, [0.03, 0.01, 0.96], RUNS)
    pairs, times = np.unique(counts[:, :2], axis=0, return_counts=True)
    seen = sum(k for (a, b), k in zip(pairs, times, strict=True) if Flips(n, int(a), int(b)).p_value <= 0.05) / RUNS
    assert seen == pytest.approx(0.76, abs=ERROR)


def test_pairs_need_fewer_examples_than_two_arms() -> None:
    """98 % against 96 %, where 3 % are lost and 1 % is gained."""
    assert pairs_size(0.03, 0.01) < 0.7 * ab_size(0.98, 0.96)


def test_coverage_of_the_score_interval() -> None:
    rng = np.random.default_rng(3)
    for lost, gained in ((0.02, 0.01), (0.004, 0.0)):
        counts = rng.multinomial(300, [lost, gained, 1 - lost - gained], 2000)
        seen, times = np.unique(counts, axis=0, return_counts=True)
        intervals = [Flips(300, int(a), int(b)).change_interval() for a, b, _ in seen]
        covered = sum(n for (low, high), n in zip(intervals, times, strict=True) if low <= gained - lost <= high)
        assert covered / 2000 >= 0.93


@given(st.floats(0.02, 0.98), st.floats(0.02, 0.98), st.floats(0.1, 0.95))
def test_size_is_the_least_that_has_the_power(p: float, q: float, power: float) -> None:
    if abs(p - q) < 0.01:
        return
    n = ab_size(p, q, power)
    assert ab_power(p, q, n) >= power - 1e-9
    if n > 20:  # the formula leaves the other tail out, which matters where power is near alpha
        assert ab_power(p, q, math.floor(0.9 * n)) < power


def test_the_smallest_drop_is_seen_with_just_that_power() -> None:
    drop = smallest_drop(0.6, 2000)
    assert ab_power(0.6, 0.6 - drop, 2000) == pytest.approx(0.8)
    assert smallest_drop(0.6, 8000) < drop
    assert smallest_drop(0.01, 10) == math.inf


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Flips(10, 8, 3), "lost, gained: got 8, 3; allowed is 0 to 10"),
        (lambda: Flips(10, -1, 3), "lost, gained"),
        (lambda: Flips(0, 0, 0), "examples: got 0"),
        (lambda: flips([], []), "after: got 0 verdicts for 0"),
        (lambda: flips([True], [True, False]), "after: got 2 verdicts for 1"),
        (lambda: clopper_pearson(5, 4), "k: got 5; it must be from 0 to n=4"),
        (lambda: clopper_pearson(0, 4, 95), "level: got 95; it must be between 0 and 1"),
        (lambda: ab_size(0.1, 0.1), "q: got 0.1, the same as p"),
        (lambda: ab_size(10, 12), "p: got 10"),
        (lambda: ab_power(0.1, 0.2, 0), "n: got 0"),
        (lambda: ab_power(0.1, 0.2, 10, alpha=1), "alpha: got 1"),
        (lambda: smallest_drop(1.0, 10), "p: got 1.0"),
        (lambda: pairs_size(0.02, 0.02), "lost, gained: got 0.02, 0.02"),
        (lambda: pairs_size(0.8, 0.3), "lost, gained"),
        (lambda: hours(10, 0), "requests_per_s: got 0"),
        (lambda: hours(10, 1, 1.5), "share: got 1.5"),
    ],
)
def test_refused(call, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=message):
        call()


def test_every_pair_of_verdicts_is_one_of_four() -> None:
    before, after = zip(*product((True, False), repeat=2), strict=True)
    assert flips(before, after) == Flips(4, 1, 1)
