"""Routing replayed: by hand on a few answers, and what must hold for every policy and mix."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlab.deploy.quality.measured import Answers, Method, Quality, quality
from qlab.deploy.quality.routing import (
    EVEN,
    ODD,
    Known,
    Tier,
    always,
    by_confidence,
    by_length,
    by_workload,
    choose,
    frontier,
    most_escalated,
    route,
    thresholds,
)


def method(name: str, **answers: tuple[str, tuple[float, ...]]) -> Method:
    by_workload = {w: Answers(tuple(d == "1" for d in digits), (), sure) for w, (digits, sure) in answers.items()}
    return Method(name, {}, 4.0, 0.0, 0.0, by_workload, "a test", "2026-11-22", "none")


def table(*methods: Method, **tokens: tuple[int, ...]) -> Quality:
    return Quality({one.name: one for one in methods}, tokens, {"examples": 4})


# Four questions of two kinds. The small tier is wrong twice on sql, once with little confidence.
SMALL = method("small", sql=("1100", (0.9, 0.8, 0.7, 0.2)), chat=("1111", (0.99, 0.6, 0.9, 0.9)))
LARGE = method("large", sql=("1111", (1.0,) * 4), chat=("1110", (1.0,) * 4))
MEASURED = table(SMALL, LARGE, sql=(10, 20, 30, 40), chat=(5, 5, 5, 500))
TIERS = (Tier("small", 1.0), Tier("large", 4.0))


def replay(policy: Any, mix: Any = None, **options: Any) -> Any:
    return route(policy, TIERS, mix, measured=MEASURED, **options)


# ---- By hand ----


def test_everything_to_one_tier_is_that_tier() -> None:
    small, large = replay(always("small")), replay(always("large"))
    assert (small.by_workload, small.accuracy, small.dollars) == ({"sql": 0.5, "chat": 1.0}, 0.75, 1.0)
    assert (large.by_workload, large.accuracy, large.dollars) == ({"sql": 1.0, "chat": 0.75}, 0.875, 4.0)
    assert large.change == large.stderr == 0 and large.against == "large"
    assert small.answered == small.asked == {"small": 1.0, "large": 0.0} and small.escalated == 0


def test_by_workload_takes_the_better_answers_of_both() -> None:
    found = replay(by_workload({"sql": "large", "chat": "small"}), {"sql": 1, "chat": 3})
    assert found.accuracy == 1 and found.dollars == 0.25 * 4 + 0.75 * 1
    assert found.answered == {"small": 0.75, "large": 0.25}


def test_by_length() -> None:
    found = replay(by_length(30, "small", "large"))
    assert found.answered["large"] == pytest.approx((1 / 4 + 1 / 4) / 2)  # 40 of sql, 500 of chat; 30 is not longer
    assert found.by_workload == {"sql": 0.75, "chat": 0.75}


def test_a_cascade_pays_both() -> None:
    """Below 0.7 are one question of sql (0.2) and one of chat (0.6): a quarter is asked again."""
    found = replay(by_confidence(0.7, "small", "large"), first="small")
    assert found.asked == pytest.approx({"small": 1.0, "large": 0.25})
    assert found.answered == pytest.approx({"small": 0.75, "large": 0.25})
    assert found.escalated == pytest.approx(0.25)
    assert found.dollars == pytest.approx(1 + 0.25 * 4)
    assert found.by_workload == {"sql": 0.75, "chat": 1.0}


def test_the_error_of_a_change_is_paired() -> None:
    """sql: changes 0 0 -1 -1, variance 1/3; chat: 0 0 0 1, variance 1/4; each mean of 4, weighted 1/2."""
    found = replay(always("small"))
    assert found.change == pytest.approx((-0.5 + 0.25) / 2)
    assert found.stderr == pytest.approx(math.sqrt((1 / 3 / 4 + 1 / 4 / 4) / 4))


def test_rows_choose_the_examples() -> None:
    assert replay(always("small"), rows=EVEN).by_workload == {"sql": 0.5, "chat": 1.0}
    assert replay(always("large"), rows=ODD).by_workload == {"sql": 1.0, "chat": 0.5}


def test_most_escalated_is_where_both_cost_the_same() -> None:
    small, large = TIERS
    part = most_escalated(small, large)
    assert small.dollars + part * large.dollars == large.dollars
    assert most_escalated(Tier("a", 5), Tier("b", 4)) == 0


# ---- What must hold for every policy, on nano's answers ----

METHODS = ("16-bit", "INT4 g128", "INT3 channel")
PRICED = tuple(Tier(name, dollars) for name, dollars in zip(METHODS, (4.0, 1.5, 1.0), strict=True))
MIXES = st.fixed_dictionaries({w: st.floats(0, 10) for w in quality().workloads}).filter(
    lambda m: sum(m.values()) > 0.1
)


@st.composite
def policies(draw: st.DrawFn) -> tuple[Any, str | None]:
    kind = draw(st.integers(0, 3))
    pick = st.sampled_from(METHODS)
    if kind == 0:
        return always(draw(pick)), None
    if kind == 1:
        return by_workload({w: draw(pick) for w in quality().workloads}), None
    if kind == 2:
        return by_length(draw(st.integers(0, 200)), draw(pick), draw(pick)), None
    small = draw(pick)
    return by_confidence(draw(st.floats(0, 1.1)), small, draw(pick)), small


@given(policies(), MIXES)
def test_shares_sum_to_one_and_dollars_lie_between(chosen: tuple[Any, str | None], mix: dict[str, float]) -> None:
    policy, first = chosen
    found = route(policy, PRICED, mix, first=first)
    assert sum(found.answered.values()) == pytest.approx(1)
    assert 1 - 1e-9 <= sum(found.asked.values()) <= 2 + 1e-9
    for name in METHODS:
        assert found.asked[name] >= found.answered[name] - 1e-9
    if first is None:
        assert found.asked == found.answered
        assert 1 - 1e-9 <= found.dollars <= 4 + 1e-9
    else:
        assert found.asked[first] == pytest.approx(1)
    assert 0 <= found.accuracy <= 1 + 1e-9
    baseline = route(always("16-bit"), PRICED, mix)
    assert found.change == pytest.approx(found.accuracy - baseline.accuracy, abs=1e-9)


@given(MIXES, st.floats(0.1, 20))
def test_only_the_proportions_of_a_mix_count(mix: dict[str, float], factor: float) -> None:
    one = route(always("INT3 channel"), PRICED, mix)
    other = route(always("INT3 channel"), PRICED, {w: factor * share for w, share in mix.items()})
    assert other.accuracy == pytest.approx(one.accuracy) and other.stderr == pytest.approx(one.stderr)


def test_one_tier_has_nano_s_accuracy() -> None:
    for name in METHODS:
        found = route(always(name), PRICED)
        assert found.by_workload == {w: a.accuracy for w, a in quality().method(name).answers.items()}


def test_cost_grows_with_the_threshold_and_the_ends_are_known() -> None:
    small, large = Tier("INT3 channel", 1.0), Tier("16-bit", 4.0)
    points = frontier(small, large, points=10)
    dollars = [outcome.dollars for _, outcome in points]
    assert dollars == sorted(dollars) and len(points) == 11
    assert points[0][1].answered["16-bit"] == 0 and dollars[0] == pytest.approx(1)
    assert points[-1][1].answered["16-bit"] == pytest.approx(1) and dollars[-1] == pytest.approx(5)
    assert points[-1][1].change == 0
    for k, (_, outcome) in enumerate(points):  # a tenth of the answers more at every point, but for ties
        assert outcome.escalated == pytest.approx(k / 10, abs=0.01)


def test_confidence_finds_wrong_answers_better_than_chance() -> None:
    """Half the requests asked again win back far more than half of what INT3 lost."""
    points = frontier(Tier("INT3 channel", 1.0), Tier("16-bit", 4.0), points=2)
    lost, left = (outcome.change for _, outcome in points[:2])
    assert lost < -0.05 and left > 0.2 * lost


# ---- Choices ----


def test_it_does_not_pay_where_the_small_tier_loses_nothing() -> None:
    """nano at INT4: nothing to route. Said of nano."""
    found = choose(Tier("INT4 g128", 1.0), Tier("16-bit", 3.0))
    assert found.policy == "everything to INT4 g128" and "does not pay" in found.why
    assert found.outcome.dollars == pytest.approx(1)


def test_it_does_not_pay_where_answers_cost_nearly_the_same() -> None:
    found = choose(Tier("INT2 g32 asymmetric", 0.95), Tier("16-bit", 1.0), {"sql": 1}, most_lost=0.0)
    assert found.policy == "everything to 16-bit" and "does not pay" in found.why


def test_it_pays_where_one_workload_breaks() -> None:
    found = choose(Tier("INT3 g128", 1.0), Tier("16-bit", 4.0))
    assert "routing pays" in found.why
    chosen = found.candidates[found.policy]
    assert 1 < chosen.dollars < 4 and chosen.change >= -0.005 - 1e-9
    assert found.kept and found.policy in str(found) and "not kept" not in str(found)
    for one in found.candidates.values():
        assert one.change < -0.005 - 1e-12 or one.dollars >= chosen.dollars - 1e-12


def test_the_choice_is_measured_on_other_examples_than_it_was_made_on() -> None:
    """Even examples say that the small tier is perfect; odd ones know better."""
    lucky = method("small", sql=("10101010", (0.9,) * 8))
    large = method("large", sql=("11111111", (1.0,) * 8))
    found = choose(*TIERS, measured=table(lucky, large, sql=(1,) * 8))
    assert found.policy == "everything to small"
    assert found.candidates[found.policy].accuracy == 1 and found.outcome.accuracy == 0
    assert not found.kept and "not kept on the other examples" in str(found)


def test_thresholds_are_confidences_of_the_tier() -> None:
    found = thresholds("small", 4, measured=MEASURED)
    assert found[0] == 0 and found[-1] > 1 and found == sorted(found)
    assert set(found[1:-1]) <= {0.9, 0.8, 0.7, 0.2, 0.99, 0.6}


def test_a_line_of_text() -> None:
    assert str(replay(by_confidence(0.7, "small", "large"), first="small")) == (
        "75.0 % small, 25.0 % large, 25.0 % computed twice: accuracy 87.5 % (+0.0 ± 17.7 points against large), "
        "$2 per request"
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Tier("small", 0), "dollars: got 0; give dollars per request"),
        (lambda: Tier("small", math.nan), "dollars: got nan"),
        (lambda: route(always("a"), [], measured=MEASURED), r"tiers: got \[\]; give one or more"),
        (lambda: route(always("small"), (*TIERS, TIERS[0]), measured=MEASURED), "tiers: got .* each once"),
        (lambda: route(always("x"), [Tier("x", 1)], measured=MEASURED), "method: 'x' is not known"),
        (lambda: replay(always("other")), r"policy: got 'other' for Known\(.*must be one of small, large"),
        (lambda: replay(always("small"), first="other"), "first: got 'other'"),
        (lambda: replay(by_confidence(0.5, "small", "large")), "first: got None; .* give first='small'"),
        (lambda: replay(by_workload({"sql": "small"})), "workload: 'chat' is not known"),
        (lambda: replay(always("small"), {"poems": 1}), "mix: got 'poems'"),
        (lambda: replay(always("small"), {"sql": -1}), "mix: got -1 for sql"),
        (lambda: replay(always("small"), {"sql": 0}), "mix: .* above 0"),
        (lambda: replay(always("small"), rows=slice(0, 1)), "rows: got .* leaves 1 examples of sql"),
        (lambda: thresholds("small", 0, measured=MEASURED), "points: got 0"),
        (lambda: choose(*TIERS, most_lost=2, measured=MEASURED), "most_lost: got 2"),
    ],
)
def test_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_what_a_router_knows() -> None:
    assert Known("sql", 10).confidence is None
