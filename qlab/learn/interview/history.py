"""What the interviews so far come to: which criteria get better, and which are due again.

A criterion moves through the boxes of the drills (`drills.schedule`): up with a level of 3 or 4, back into the first
one with less. It is due when the wait of its box is over.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from ..drills.schedule import WAITS
from ..progress import Event
from . import scenario as scenarios
from .scenario import Criterion, Scenario

SITS = 3  # the level from which a criterion is not a weak one


@dataclass(frozen=True)
class Standing:
    """A criterion with all levels it ever had, the oldest first, and when it is due."""

    scenario: Scenario
    question: str
    criterion: Criterion
    levels: tuple[int, ...]
    box: int
    due: datetime

    @property
    def words(self) -> str:
        """Whether it gets better."""
        if len(self.levels) < 2:
            return "first time"
        change = self.levels[-1] - self.levels[-2]
        return "better" if change > 0 else "worse" if change < 0 else "as before"

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "scenario": self.scenario.id,
            "question": self.question,
            "criterion": self.criterion.id,
            "title": self.criterion.title,
            "levels": list(self.levels),
            "trend": self.words,
            "due": self.due.isoformat(),
        }


def standings(events: Sequence[Event]) -> list[Standing]:
    """One for each criterion that was ever judged and still exists, in the order of the first time."""
    by_name: dict[str, list[Event]] = {}
    for event in events:
        if event.kind == "interview":
            by_name.setdefault(event.question, []).append(event)
    found = []
    for name, own in by_name.items():
        _, scenario, question, criterion = name.split(".")
        if known := _criterion(scenario, question, criterion):
            box = 1
            for event in own:
                box = min(box + 1, len(WAITS)) if (event.level or 0) >= SITS else 1
            levels = tuple(event.level or 0 for event in own)
            found.append(Standing(known[0], question, known[1], levels, box, own[-1].time + WAITS[box - 1]))
    return found


def due(events: Sequence[Event], now: datetime) -> list[Standing]:
    """What is due, the weakest first: by box, then by the last level, then by how long it waits."""
    waiting = [one for one in standings(events) if one.due <= now]
    return sorted(waiting, key=lambda one: (one.box, one.levels[-1], one.due))


def table(found: Sequence[Standing]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Names of columns, and standings as rows of text."""
    now = datetime.now(UTC)
    names = ("interview", "question", "levels so far, 0 to 4", "trend", "due", "criterion")
    rows: list[tuple[str, ...]] = [
        (
            one.scenario.id,
            one.question,
            " ".join(map(str, one.levels[-8:])),
            one.words,
            "now" if one.due <= now else f"{one.due:%Y-%m-%d %H:%M} UTC",
            one.criterion.title,
        )
        for one in found
    ]
    return names, rows


def _criterion(scenario: str, question: str, criterion: str) -> tuple[Scenario, Criterion] | None:
    """None for what is gone, or was a file of the user's own."""
    if scenario not in scenarios.names():
        return None
    found = scenarios.load(scenario)
    for asked in found.questions:
        for one in asked.criteria:
            if (asked.id, one.id) == (question, criterion):
                return found, one
    return None
