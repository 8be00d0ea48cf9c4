"""Whole replicas by hand, and two tiers in a queue against one tier alone."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlab.deploy.quality.fleet import Pool, Server, Tiered, draw, fleet, serve_tiers
from qlab.deploy.quality.routing import Outcome, Tier, always, by_confidence, route
from qlab.deploy.serving.simulation import serve
from qlab.deploy.serving.traffic import Request, fixed, requests

SERVERS = {"small": Server(10, 2.0), "large": Server(4, 8.0)}


def outcome(small: float, large: float, first: str | None = None) -> Outcome:
    """Answers by each; with a first tier, that one is asked everything."""
    answered = {"small": small, "large": large}
    asked = answered | ({first: 1.0} if first else {})
    return Outcome(asked, answered, {}, 1.0, 0.0, 0.0, "large", first, 1.0)


def one_second(prefill: int, decoding: int, cached: int) -> float:
    return 1.0


# ---- Replicas ----


def test_replicas_by_hand() -> None:
    """20 requests per second: 15 to small need 2 replicas, 5 to large need 2: 2 * 2 + 2 * 8 dollars an hour."""
    found = fleet(outcome(0.75, 0.25), 20, SERVERS)
    assert found.replicas == {"small": 2, "large": 2}
    assert found.dollars_per_hour == 20 and found.dollars_per_request == 20 / 72_000
    cascade = fleet(outcome(0.75, 0.25, "small"), 20, SERVERS)
    assert cascade.replicas == {"small": 2, "large": 2}, "all 20 to small fit 2 replicas as well"


def test_a_tier_that_is_not_used_costs_nothing() -> None:
    assert fleet(outcome(0, 1), 20, SERVERS).replicas == {"large": 5}


def test_at_a_low_rate_a_second_tier_costs_more_than_it_saves() -> None:
    both, one = outcome(0.75, 0.25), outcome(0, 1)
    assert fleet(both, 3, SERVERS).dollars_per_hour > fleet(one, 3, SERVERS).dollars_per_hour
    assert fleet(both, 300, SERVERS).dollars_per_hour < fleet(one, 300, SERVERS).dollars_per_hour


def test_a_share_of_many_small_parts_needs_no_extra_replica() -> None:
    third = sum([1 / 30] * 10)  # 0.33333333333333337
    assert fleet(outcome(1 - third, third), 12, {**SERVERS, "large": Server(4, 1)}).replicas["large"] == 1


@given(st.floats(0, 1), st.floats(0.01, 1e4), st.integers(1, 3))
def test_the_load_fits(share: float, rate: float, least: int) -> None:
    found = fleet(outcome(1 - share, share), rate, SERVERS, least)
    for name, part in (("small", 1 - share), ("large", share)):
        count = found.replicas.get(name, 0)
        assert count * SERVERS[name].requests_per_s >= rate * part * (1 - 1e-6)
        assert count == 0 or count == least or (count - 1) * SERVERS[name].requests_per_s < rate * part
        assert (count >= least) == (part > 0)


# ---- Queues ----


def test_one_tier_is_the_plain_server() -> None:
    sent = requests(0.3, 40, fixed(10), fixed(3), seed=1)
    alone = serve(sent, one_second, kv_tokens=1000)
    found = serve_tiers(sent, [("only",)] * 40, {"only": Pool(one_second, 1000)})
    assert found.served["only"] == (alone,)
    assert found.seconds == pytest.approx([timing.latency for timing in alone.timings])
    assert found.latency(90) == pytest.approx(alone.latency(90))


def test_who_is_escalated_waits_twice() -> None:
    """Two requests far apart; 3 steps of 1 s in each tier."""
    sent = [Request(0.0, 5, 3), Request(100.0, 5, 3)]
    pools = {"small": Pool(one_second, 100), "large": Pool(one_second, 100)}
    found = serve_tiers(sent, [("small",), ("small", "large")], pools)
    assert found.seconds == (3.0, 6.0)
    assert found.served["large"][0].timings[0].request.arrival == 103.0


def test_replicas_take_turns() -> None:
    sent = [Request(0.0, 5, 3)] * 4
    single = serve_tiers(sent, [("a",)] * 4, {"a": Pool(one_second, 16)})  # 8 tokens each: two at a time
    double = serve_tiers(sent, [("a",)] * 4, {"a": Pool(one_second, 16, replicas=2)})
    assert max(single.seconds) == 6.0 and max(double.seconds) == 3.0
    assert [len(run.timings) for run in double.served["a"]] == [2, 2]


def test_a_pool_that_nobody_asks_serves_nothing() -> None:
    pools = {"a": Pool(one_second, 100), "b": Pool(one_second, 100)}
    assert serve_tiers([Request(0.0, 5, 3)], [("b",)], pools).served["a"] == ()


def test_routes_are_drawn_with_the_shares() -> None:
    cascade = draw(outcome(0.7, 0.3, "small"), 5000, seed=3)
    assert set(cascade) == {("small",), ("small", "large")}
    assert cascade.count(("small", "large")) / 5000 == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 5000))
    assert cascade == draw(outcome(0.7, 0.3, "small"), 5000, seed=3)
    assert set(draw(outcome(0.7, 0.3), 100)) == {("small",), ("large",)}
    assert set(draw(outcome(0.0, 1.0), 100)) == {("large",)}


def test_an_outcome_of_a_policy_goes_all_the_way() -> None:
    tiers = (Tier("INT3 channel", 1.0), Tier("16-bit", 4.0))
    found = route(by_confidence(0.9, "INT3 channel", "16-bit"), tiers, first="INT3 channel")
    assert found.first == "INT3 channel" and route(always("16-bit"), tiers).first is None
    pools = {tier.method: Pool(one_second, 1000) for tier in tiers}
    sent = requests(0.2, 30, fixed(5), fixed(2))
    run = serve_tiers(sent, draw(found, 30), pools)
    assert len(run.served["INT3 channel"][0].timings) == 30


def test_percentiles_are_values_that_occurred() -> None:
    run = Tiered({}, (4.0, 1.0, 3.0, 2.0))
    assert [run.latency(percent) for percent in (0, 25, 26, 50, 100)] == [1, 1, 2, 2, 4]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Server(0, 1), "requests_per_s: got 0"),
        (lambda: Server(1, -1), "dollars_per_hour: got -1"),
        (lambda: fleet(outcome(1, 0), 0, SERVERS), "rate: got 0"),
        (lambda: fleet(outcome(1, 0), 1, SERVERS, least=0), "least: got 0"),
        (lambda: fleet(outcome(1, 0), 1, {"large": Server(1, 1)}), "servers: 'small' is not known"),
        (lambda: Pool(one_second, 10, replicas=0), "replicas: got 0"),
        (lambda: draw(outcome(1, 0), 0), "count: got 0"),
        (lambda: serve_tiers([], [], {}), "requests: got none"),
        (lambda: serve_tiers([Request(0, 1, 1)], [], {}), "routes: got 0 for 1 requests"),
        (lambda: serve_tiers([Request(0, 1, 1)], [()], {"a": Pool(one_second, 9)}), r"routes: got \(\)"),
        (lambda: serve_tiers([Request(0, 1, 1)], [("b",)], {"a": Pool(one_second, 9)}), r"routes: got \('b',\)"),
        (lambda: Tiered({}, (1.0,)).latency(101), "percent: got 101"),
    ],
)
def test_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_tiers_are_asked_in_the_order_of_the_pools() -> None:
    pools = {"a": Pool(one_second, 9), "b": Pool(one_second, 9)}
    with pytest.raises(ValueError, match="give tiers in the order of the pools, a, b"):
        serve_tiers([Request(0, 1, 1)], [("b", "a")], pools)
