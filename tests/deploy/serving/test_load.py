"""The search for the highest load: a queue that theory knows, and what must hold."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from qlab.deploy.serving.engine import Engine, estimate, saturation
from qlab.deploy.serving.load import LONG, PRECISION, QUICK, Capacity, Load, highest_rate, requests_for, simulate
from qlab.deploy.serving.workloads import Target, Workload, workload


def step(prefill: int, decoding: int, cached: int) -> float:
    return 0.01 + 5e-5 * prefill + 1e-5 * decoding + 1e-7 * cached * (decoding > 0)


ENGINE = Engine(step, kv_tokens=100_000)
CHAT = workload("chat")


def one_step(seconds: float) -> Engine:
    """A server that takes so long for each request of one token, one after the other."""
    return Engine(lambda prefill, decoding, cached: seconds, kv_tokens=10**9, prefill_budget=1)


ONE = Workload("one", 1, 1, 0, 0, "answer", 1.0, None, "a queue with one server")


def test_a_queue_that_theory_knows() -> None:
    """M/D/1 with service 1 s at load 1/2: nobody waits with P = 1/2, at most 1 s with e^(1/2)/2 (Crommelin, 1932)."""
    for percent, seconds in ((45, 1.0), (50 * math.exp(0.5), 2.0)):
        found = simulate(one_step(1.0), ONE, Target(100, percent=percent), 0.5, 4000)
        assert found.first == found.answer == pytest.approx(seconds, abs=0.1)
        assert found.per_token is None and found.batch == pytest.approx(1)


def test_the_highest_rate_is_met_and_a_little_more_is_not() -> None:
    target = CHAT.target(1.0, 0.02)
    found = highest_rate(ENGINE, CHAT, target)
    assert found.best and found.best.meets(target) and found.rate == found.best.rate
    missed = [load.rate for load in found.tried if not load.meets(target) and load.rate > found.rate]
    at_limit = found.rate == pytest.approx(0.95 * saturation(ENGINE, CHAT))
    assert at_limit or min(missed) <= found.rate * (1 + PRECISION)


def test_more_time_bears_more_load_and_a_slower_server_less() -> None:
    sql = workload("sql")
    rates = [highest_rate(ENGINE, sql, sql.target(seconds)).rate for seconds in (1.5, 2.5, 5.0)]
    assert 0 < rates[0] < rates[1] <= rates[2]
    slow = replace(ENGINE, step=lambda *given: 1.3 * step(*given))
    assert highest_rate(slow, sql, sql.target(2.5)).rate < rates[1]
    assert estimate(slow, sql, sql.target(2.5)) < estimate(ENGINE, sql, sql.target(2.5))


def test_a_limit_below_the_floor_bears_nothing_and_is_not_simulated() -> None:
    target = CHAT.target(1e-3)
    assert estimate(ENGINE, CHAT, target) == 0
    assert highest_rate(ENGINE, CHAT, target) == Capacity(None, ())


def test_what_no_low_load_meets_is_given_up() -> None:
    late = Load(1.0, 9.0, 9.0, None, 1.0, 1)
    found = highest_rate(ENGINE, CHAT, CHAT.target(), guess=5.0, run=lambda *given: replace(late, rate=given[3]))
    assert found.best is None and 2 < len(found.tried) < 12
    assert min(load.rate for load in found.tried) < 5 / 20


@pytest.mark.parametrize("guess", [0.05, 1.0, 3.9, 4.1, 50.0])
def test_the_search_finds_a_step_from_any_guess(guess: float) -> None:
    """A server that meets its target up to 4 requests per second."""

    def run(engine: Engine, shape: Workload, target: Target, rate: float, *rest: Any) -> Load:
        late = 0.0 if rate <= 4 else 100.0
        return Load(rate, late, late, None, 1.0, 1)

    fast = Engine(lambda *given: 1e-4, kv_tokens=10**9)
    found = highest_rate(fast, CHAT, CHAT.target(), guess=guess, run=run)
    assert 4 / (1 + PRECISION) <= found.rate <= 4
    assert (
        len({load.rate for load in found.tried}) >= len(found.tried) - 1
    )  # the short runs' answer, again in a long one


def test_what_only_short_runs_meet_is_not_believed() -> None:
    """A server whose luck lasts for a few hundred requests: up to 8 requests per second, but 4 in the end."""
    counts: dict[float, list[int]] = {}

    def run(engine: Engine, shape: Workload, target: Target, rate: float, count: int, seed: int) -> Load:
        counts.setdefault(rate, []).append(count)
        late = 0.0 if rate <= (4 if count >= LONG.fewest else 8) else 100.0
        return Load(rate, late, late, None, 1.0, count)

    fast = Engine(lambda *given: 1e-4, kv_tokens=10**9)
    shape = workload("signal")
    found = highest_rate(fast, shape, shape.target(), guess=5.0, run=run)
    assert 4 / (1 + PRECISION) <= found.rate <= 4
    assert found.best is not None and found.best.requests >= LONG.fewest


def test_long_runs_look_at_dozens_of_requests_beyond_the_percentile() -> None:
    for name in ("signal", "recommend", "classify"):
        shape = workload(name)
        quick, long = (0.05 * requests_for(ENGINE, shape, shape.target(), 1.0, one) / 2 for one in (QUICK, LONG))
        assert long > 30 and long > 2 * quick


def test_no_load_beyond_saturation_is_believed() -> None:
    """Where the limit is long, a run that ends shows no growing queue; the rate is bounded all the same."""
    patient = Target(1e4)
    found = highest_rate(ENGINE, CHAT, patient)
    assert found.rate == pytest.approx(0.95 * saturation(ENGINE, CHAT))


def test_the_same_seed_gives_the_same_answer() -> None:
    first, again = (highest_rate(ENGINE, CHAT, CHAT.target(), seed=3) for _ in range(2))
    assert first == again


def test_refused() -> None:
    with pytest.raises(ValueError, match="count: got 1"):
        simulate(ENGINE, CHAT, Target(1), 1.0, 1)
    with pytest.raises(ValueError, match="rate: got 0"):
        simulate(ENGINE, CHAT, Target(1), 0, 10)
    with pytest.raises(ValueError, match="never fits a cache"):
        simulate(replace(ENGINE, kv_tokens=10), CHAT, Target(1), 1.0, 10)
