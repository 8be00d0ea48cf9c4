"""Spaced repetition: boxes, levels, and what comes next, as functions of the history."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlab.learn.drills import KINDS, kind
from qlab.learn.drills.kind import Kind
from qlab.learn.drills.schedule import WAITS, Standing, choose, standing, table, trends
from qlab.learn.progress import Event

NOW = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)
WEIGHTS, CACHE, BITS = kind("memory.weights"), kind("cache.token"), kind("bits.group")


def answered(one: Kind, right: bool, minutes: float = 0, level: int = 1) -> Event:
    outcome = "passed" if right else "failed"
    return Event(one.question, "drill", outcome=outcome, level=level, time=NOW + timedelta(minutes=minutes))


def run(one: Kind, outcomes: str) -> Standing:
    """Where a series of answers leads, each at the level that was due: r is right, w is wrong."""
    history: list[Event] = []
    for letter in outcomes:
        history.append(answered(one, letter == "r", len(history), standing(one, history).level))
    return standing(one, history)


@pytest.mark.parametrize(
    ("outcomes", "level", "box"),
    [
        ("", 1, 1), ("r", 1, 2), ("rr", 2, 3), ("rrr", 2, 4), ("rrrr", 3, 5), ("rrrrrr", 3, 5), ("w", 1, 1),
        ("rw", 1, 1), ("rrw", 1, 1), ("rrrrw", 2, 1), ("rrrrwr", 2, 2), ("rrrrwrr", 3, 3), ("rwr", 1, 2),
        ("rwrr", 2, 3),
    ],
)  # fmt: skip
def test_levels_and_boxes(outcomes: str, level: int, box: int) -> None:
    found = run(WEIGHTS, outcomes)
    assert (found.level, found.box, found.asked, found.right) == (level, box, len(outcomes), outcomes.count("r"))


def test_a_kind_with_two_levels_stays_at_its_last() -> None:
    assert run(BITS, "rrrrrr").level == 2 and run(BITS, "rrrrw").level == 1


def test_a_level_that_somebody_chose_counts_from_there() -> None:
    assert standing(WEIGHTS, [answered(WEIGHTS, False, level=3)]).level == 2
    assert standing(WEIGHTS, [answered(WEIGHTS, True), answered(WEIGHTS, True, level=3)]).level == 3


def test_boxes_wait_longer_and_longer() -> None:
    assert list(WAITS) == sorted(WAITS) and len(set(WAITS)) == len(WAITS)
    for count in range(1, 6):
        found = run(WEIGHTS, "r" * count)
        assert found.due == NOW + timedelta(minutes=count - 1) + WAITS[min(count, 4)]


def test_new_kinds_come_first_and_topics_take_turns() -> None:
    history: list[Event] = []
    for minute in range(9):
        one, level = choose(history, KINDS, NOW + timedelta(seconds=minute), random.Random(minute))
        assert level == 1
        history.append(answered(one, True, minute / 60))
    assert len({event.question.split(".")[1] for event in history}) == 9


def test_a_missed_kind_comes_back_soon_and_a_right_one_does_not() -> None:
    history = [answered(WEIGHTS, False, 0), answered(CACHE, True, 1)]
    rng = random.Random(0)
    kinds = [WEIGHTS, CACHE, BITS]
    assert choose(history, kinds, NOW + timedelta(minutes=1.5), rng)[0] == BITS  # not yet: the wait of box 1 goes on
    assert choose(history, kinds, NOW + timedelta(minutes=2), rng)[0] == WEIGHTS
    assert choose(history, [WEIGHTS, CACHE], NOW + timedelta(days=2), rng)[0] == WEIGHTS  # the weaker one of two


def test_no_kind_follows_itself() -> None:
    history = [answered(WEIGHTS, False)]
    assert choose(history, [WEIGHTS, CACHE], NOW + timedelta(days=1), random.Random(0))[0] == CACHE
    assert choose(history, [WEIGHTS], NOW + timedelta(days=1), random.Random(0))[0] == WEIGHTS


def test_what_is_due_soonest_comes_when_nothing_is_due() -> None:
    history = [
        answered(CACHE, True, 0),
        answered(WEIGHTS, True, 1),
        answered(WEIGHTS, True, 2),
        answered(BITS, True, 3),
    ]
    assert choose(history, [WEIGHTS, CACHE, BITS], NOW + timedelta(minutes=4), random.Random(0))[0] == CACHE


def test_a_weak_kind_is_asked_more_often() -> None:
    kinds = list(KINDS[:8])
    weak, now, history = kinds[3], NOW, list[Event]()
    rng = random.Random(1)
    for _ in range(400):
        one, level = choose(history, kinds, now, rng)
        right = one != weak or rng.random() < 0.3
        history.append(Event(one.question, "drill", outcome="passed" if right else "failed", level=level, time=now))
        now += timedelta(hours=1)
    counts = Counter(event.question for event in history)
    others = [counts[one.question] for one in kinds if one != weak]
    assert counts[weak.question] > 2 * max(others) and min(others) >= 5


histories = st.lists(
    st.tuples(st.sampled_from(KINDS[:6]), st.booleans(), st.floats(0, 1e5), st.integers(1, 3)), max_size=30
)


@given(histories, st.integers(0, 2**32), st.floats(0, 1e6))
def test_the_same_history_leads_to_the_same_question(
    given_answers: list[tuple[Kind, bool, float, int]], seed: int, later: float
) -> None:
    history = [answered(one, right, minutes, level) for one, right, minutes, level in given_answers]
    now = NOW + timedelta(minutes=later)
    found = choose(history, KINDS[:6], now, random.Random(seed))
    assert found == choose(history, KINDS[:6], now, random.Random(seed))
    one, level = found
    assert level in one.levels and (not history or one.question != history[-1].question)


def test_other_events_do_not_matter() -> None:
    history = [Event("linear.absmax", "check", outcome="failed", time=NOW), answered(WEIGHTS, True)]
    assert standing(WEIGHTS, history).asked == 1 and [one.topic for one in trends(history)] == ["memory"]
    with pytest.raises(ValueError, match="kinds: got none"):
        choose(history, [], NOW, random.Random(0))


def test_trends() -> None:
    history = [answered(WEIGHTS, n >= 10, n) for n in range(20)] + [answered(CACHE, False), answered(BITS, True)]
    history += [answered(BITS, n < 5, n) for n in range(19)]
    history += [Event("drill.memory.gone", "drill", outcome="failed", level=1, time=NOW)]
    found = {one.topic: one for one in trends(history)}
    memory = found["memory"]
    assert (memory.asked, memory.right, memory.recent, memory.before) == (21, 10, 0.9, 0.1)
    assert (memory.words, memory.weakest) == ("better", "memory.gone")
    assert (found["cache"].words, found["cache"].before) == ("too few to say", None)
    assert (found["bits"].words, found["bits"].recent, found["bits"].before) == ("worse", 0.0, 0.6)
    names, rows = table(list(found.values()))
    assert rows[0] == ("memory", "21", "10", "90 %", "10 %", "better", "memory.gone") and len(names) == 7
