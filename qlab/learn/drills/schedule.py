"""What to ask next, from the history alone: Leitner's boxes (Leitner 1972, "So lernt man lernen"), and a level each.

A kind begins in box 1. A right answer moves it one box up, a wrong one back into box 1. A kind is due when the wait of
its box is over; due kinds come first, those in the lowest box before the others. Then come kinds that were never asked,
those of the topic that was asked least first; then whatever is due soonest. No kind follows itself if there is another.

Level up after two right in a row at a level, down after one that was wrong.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..progress import Event
from .kind import Kind

# Of boxes 1, 2, …: a mistake comes back within the session, what sits comes back after weeks.
WAITS = (timedelta(minutes=2), timedelta(days=1), timedelta(days=3), timedelta(days=7), timedelta(days=21))
IN_A_ROW = 2  # right answers that lead to the next level
_RECENT = 10  # drills that a trend is read from


@dataclass(frozen=True)
class Standing:
    """Where a learner stands with one kind. `level` is that of the next drill, `due` None before the first."""

    kind: Kind
    asked: int = 0
    right: int = 0
    box: int = 1
    level: int = 1
    streak: int = 0  # right in a row at this level
    due: datetime | None = None


@dataclass(frozen=True)
class Trend:
    """How drills of one topic went: in all, the last ten, and the ten before those (None with fewer than that)."""

    topic: str
    asked: int
    right: int
    recent: float
    before: float | None
    weakest: str  # the kind with the smallest share of right answers

    @property
    def words(self) -> str:
        """Whether it gets better; nothing is said of a change by less than two of ten."""
        if self.before is None:
            return "too few to say"
        change = self.recent - self.before
        return "better" if change >= 0.2 else "worse" if change <= -0.2 else "steady"


def standing(kind: Kind, history: Sequence[Event]) -> Standing:
    """What the drills of one kind in a history come to, in their order."""
    found = Standing(kind, level=kind.levels[0])
    for event in history:
        if event.kind == "drill" and event.question == kind.question:
            found = _after(found, event)
    return found


def choose(history: Sequence[Event], kinds: Sequence[Kind], now: datetime, rng: random.Random) -> tuple[Kind, int]:
    """The kind to ask next, and its level: the same for the same history, moment and generator.

    Raises:
        ValueError: there are no kinds.
    """
    if not kinds:
        raise ValueError("kinds: got none; give at least one")
    drills = [event for event in history if event.kind == "drill"]
    last = drills[-1].question if drills else ""
    own: dict[str, list[Event]] = {}
    asked: dict[str, int] = {}
    for event in drills:
        own.setdefault(event.question, []).append(event)
        asked[_topic(event)] = asked.get(_topic(event), 0) + 1
    candidates = [kind for kind in kinds if kind.question != last or len(kinds) == 1]
    standings = [standing(kind, own.get(kind.question, ())) for kind in candidates]

    def order(one: Standing) -> tuple[float, ...]:
        luck = rng.random()  # between kinds that are alike
        if one.due is None:
            return 1, asked.get(one.kind.topic, 0), luck
        if one.due <= now:
            return 0, one.box, one.due.timestamp(), luck
        return 2, one.due.timestamp(), luck

    found = min(standings, key=order)
    return found.kind, found.level


def trends(history: Sequence[Event]) -> list[Trend]:
    """One for each topic that was asked, in the order of the first drill of each; kinds that are gone are counted."""
    drills: dict[str, list[Event]] = {}
    for event in history:
        if event.kind == "drill":
            drills.setdefault(_topic(event), []).append(event)
    return [_trend(topic, events) for topic, events in drills.items()]


def table(rows: Sequence[Trend]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Names of columns, and trends as rows of text."""
    names = ("topic", "asked", "right", "last 10", "10 before", "trend", "weakest kind")
    cells: list[tuple[str, ...]] = [
        (
            one.topic,
            str(one.asked),
            str(one.right),
            f"{100 * one.recent:.0f} %",
            "-" if one.before is None else f"{100 * one.before:.0f} %",
            one.words,
            one.weakest,
        )
        for one in rows
    ]
    return names, cells


def _topic(event: Event) -> str:
    """ "memory" of "drill.memory.weights"."""
    return event.question.split(".")[1]


def _trend(topic: str, events: Sequence[Event]) -> Trend:
    by_kind: dict[str, list[bool]] = {}
    for event in events:
        by_kind.setdefault(event.question.removeprefix("drill."), []).append(event.outcome == "passed")
    right = [event.outcome == "passed" for event in events]
    before = right[-2 * _RECENT : -_RECENT]
    weakest = min(by_kind, key=lambda name: (sum(by_kind[name]) / len(by_kind[name]), name))
    return Trend(
        topic,
        len(right),
        sum(right),
        sum(right[-_RECENT:]) / len(right[-_RECENT:]),
        sum(before) / _RECENT if len(before) == _RECENT else None,
        weakest,
    )


def _after(one: Standing, event: Event) -> Standing:
    right = event.outcome == "passed"
    box = min(one.box + 1, len(WAITS)) if right else 1
    level, streak = event.level or one.level, one.streak
    if level != one.level:  # somebody chose another one
        streak = 0
    streak = streak + 1 if right else 0
    levels = one.kind.levels
    if not right:
        level = max([own for own in levels if own < level], default=levels[0])
    elif streak >= IN_A_ROW:
        above = min([own for own in levels if own > level], default=0)
        level, streak = (above, 0) if above else (max(levels), streak)
    return Standing(
        one.kind, one.asked + 1, one.right + right, box, one.kind.nearest(level), streak, event.time + WAITS[box - 1]
    )
