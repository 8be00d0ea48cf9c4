"""Requests: rates, lengths and seeds, against the distributions they are named after."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlab.deploy.serving.traffic import Request, empirical, fixed, lognormal, requests


def gaps(rate: float, count: int) -> list[float]:
    made = requests(rate, count, fixed(1), fixed(1))
    return [later.arrival - sooner.arrival for sooner, later in pairwise(made)]


def test_gaps_are_exponential() -> None:
    """Mean 1 / rate, as large a deviation, and the share beyond twice the mean is exp(-2): each within 4 errors."""
    count, mean = 40_000, 0.25
    found = gaps(1 / mean, count)
    assert statistics.fmean(found) == pytest.approx(mean, abs=4 * mean / math.sqrt(count))
    assert statistics.pstdev(found) == pytest.approx(mean, rel=4 * math.sqrt(2 / count))
    beyond, tail = sum(gap > 2 * mean for gap in found) / count, math.exp(-2)
    assert beyond == pytest.approx(tail, abs=4 * math.sqrt(tail * (1 - tail) / count))


def test_gaps_do_not_know_of_each_other() -> None:
    found = gaps(1.0, 40_000)
    assert abs(statistics.correlation(found[1:], found[:-1])) < 4 / math.sqrt(len(found))


def test_a_long_prompt_says_nothing_of_the_answer_or_the_gap() -> None:
    made = requests(1.0, 20_000, lognormal(300, 0.5), lognormal(100, 0.5))
    prompts, outputs = [one.prompt for one in made], [one.output for one in made]
    before = [later.arrival - sooner.arrival for sooner, later in pairwise(made)]
    for other in (outputs[1:], before):
        assert abs(statistics.correlation(prompts[1:], other)) < 4 / math.sqrt(len(made))


def test_another_rate_brings_the_same_requests_closer_together() -> None:
    slow = requests(2.0, 500, lognormal(300, 1), lognormal(100, 1), seed=7)
    fast = requests(8.0, 500, lognormal(300, 1), lognormal(100, 1), seed=7)
    assert [(one.prompt, one.output) for one in slow] == [(one.prompt, one.output) for one in fast]
    assert [one.arrival for one in fast] == pytest.approx([one.arrival / 4 for one in slow])


def test_other_outputs_leave_arrivals_and_prompts_as_they_are() -> None:
    one = requests(2.0, 500, lognormal(300, 1), lognormal(100, 1), seed=7)
    other = requests(2.0, 500, lognormal(300, 1), fixed(5), seed=7)
    assert [(r.arrival, r.prompt) for r in one] == [(r.arrival, r.prompt) for r in other]


def test_a_seed_is_a_stream() -> None:
    def made(seed: int) -> list[Request]:
        return requests(2.0, 50, lognormal(300, 1), fixed(5), seed)

    assert made(3) == made(3)
    assert made(3) != made(4)
    assert made(3)[:20] == requests(2.0, 20, lognormal(300, 1), fixed(5), 3), "more requests only go on"


def test_at_an_infinite_rate_all_come_at_once() -> None:
    assert {request.arrival for request in requests(math.inf, 10, fixed(1), fixed(1))} == {0.0}


@pytest.mark.parametrize(("mean", "spread"), [(512, 0.5), (200, 1.0)])
def test_lognormal_has_its_mean_and_spread(mean: float, spread: float) -> None:
    """Over an even grid of quantiles; the grid cuts the far tail, which costs a little of the spread."""
    length = lognormal(mean, spread)
    drawn = [length((k + 0.5) / 100_000) for k in range(100_000)]
    assert statistics.fmean(drawn) == pytest.approx(mean, rel=1e-3)
    assert statistics.pstdev(drawn) / mean == pytest.approx(spread, rel=0.01)
    assert statistics.median(drawn) == pytest.approx(mean / math.sqrt(1 + spread**2), abs=1)


@given(
    u=st.floats(0, 1, exclude_max=True),
    v=st.floats(0, 1, exclude_max=True),
    mean=st.floats(1, 1e5),
    spread=st.floats(1e-3, 100),
    low=st.integers(1, 50),
    room=st.integers(0, 1000),
)
def test_lengths_stay_inside_their_limits_and_grow_with_the_quantile(
    u: float, v: float, mean: float, spread: float, low: int, room: int
) -> None:
    length = lognormal(mean, spread, low, low + room)
    shorter, longer = length(min(u, v)), length(max(u, v))
    assert type(shorter) is int
    assert low <= shorter <= longer <= low + room


def test_empirical_lengths_come_as_often_as_they_were_seen() -> None:
    length = empirical([30, 10, 10, 50])
    drawn = [length(k / 400) for k in range(400)]
    assert {tokens: drawn.count(tokens) for tokens in drawn} == {10: 200, 30: 100, 50: 100}


FIXED = fixed(1)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: requests(0, 1, FIXED, FIXED), "rate: got 0; it must be above 0"),
        (lambda: requests(math.nan, 1, FIXED, FIXED), "rate: got nan"),
        (lambda: requests("2", 1, FIXED, FIXED), "rate: got '2'"),
        (lambda: requests(1, 0, FIXED, FIXED), "count: got 0; it must be a whole number, 1 or more"),
        (lambda: requests(1, True, FIXED, FIXED), "count: got True"),
        (lambda: requests(1, 1, FIXED, FIXED, seed=0.5), "seed: got 0.5; it must be a whole number"),
        (lambda: requests(1, 1, lambda u: 0, FIXED), "prompt: got 0"),
        (lambda: requests(1, 1, FIXED, lambda u: 2.5), "output: got 2.5"),
        (lambda: Request(-1.0, 1, 1), "arrival: got -1.0; it must be finite seconds, 0 or later"),
        (lambda: Request(math.inf, 1, 1), "arrival: got inf"),
        (lambda: Request(0.0, 1, 0), "output: got 0"),
        (lambda: fixed(0), "tokens: got 0"),
        (lambda: lognormal(0.5, 1), "mean: got 0.5; it must be 1 token or more"),
        (lambda: lognormal(10, 0), "spread: got 0; it must be above 0 .* take fixed"),
        (lambda: lognormal(10, 1, 0), "low: got 0"),
        (lambda: lognormal(10, 1, 5, 4), "high: got 4; it must be at least low, 5"),
        (lambda: empirical([]), "lengths: got none"),
        (lambda: empirical([3, -1]), "lengths: got -1"),
    ],
)
def test_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_length_is_no_distribution() -> None:
    with pytest.raises(TypeError, match=r"prompt: got 512; give a distribution of lengths, such as fixed\(512\)"):
        requests(1, 1, 512, fixed(1))  # type: ignore[arg-type]
