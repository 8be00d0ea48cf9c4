"""The figure of drills: what is drawn, from which events, and what is refused."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from qlab.learn.progress import Event
from qlab.plots import drills

START = datetime(2026, 1, 1, tzinfo=UTC)


def event(topic: str, right: bool, day: float) -> Event:
    time = START + timedelta(days=day)
    return Event(f"drill.{topic}.kind", "drill", outcome="passed" if right else "failed", level=1, time=time)


def test_a_line_holds_the_share_of_the_last_drills() -> None:
    history = [
        event("memory", False, 0), event("memory", True, 1), event("cache", True, 1.5), event("memory", True, 2),
        Event("linear.absmax", "hint", hint=1, time=START), event("memory", False, 4),
    ]  # fmt: skip
    figure = drills.shares(history, window=2)
    [line] = figure.axes[0].lines  # the cache was asked once
    assert line.get_label() == "memory"
    assert list(line.get_xdata()) == [1, 2, 4] and list(line.get_ydata()) == [50, 100, 50]
    assert figure.alt == "Right answers by topic, of the last 2 each: memory from 50 % to 50 %."


def test_each_topic_has_a_look_of_its_own() -> None:
    names = [f"topic{number}" for number in range(8)]
    figure = drills.shares([event(name, True, day) for day in range(3) for name in names], window=3)
    looks = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(looks) == 8 and len({color for color, _ in looks}) == 8
    assert figure.png()


@pytest.mark.parametrize(
    ("topics", "window", "says"),
    [(1, 0, "window: got 0"), (1, 4, "got 0 topics"), (0, 1, "0 topics"), (9, 3, "9 topics")],
)
def test_what_cannot_be_drawn(topics: int, window: int, says: str) -> None:
    history = [event(f"topic{number}", True, 0) for number in range(topics) for _ in range(3)]
    with pytest.raises(ValueError, match=says):
        drills.shares(history, window)
