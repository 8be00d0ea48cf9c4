"""The figures of routing draw what the outcomes say, and say it in words."""

from __future__ import annotations

from typing import Any

import pytest

from qlab.deploy.quality.fleet import Server, fleet
from qlab.deploy.quality.routing import Tier, always, by_workload, frontier, route
from qlab.plots import routing as plots

SMALL, LARGE = Tier("INT3 g128", 1.0), Tier("16-bit", 3.0)
SERVERS = {"INT3 g128": Server(6, 2.0), "16-bit": Server(2, 2.0)}


@pytest.fixture(scope="module")
def cascade() -> Any:
    return frontier(SMALL, LARGE, points=8)


@pytest.fixture(scope="module")
def others() -> Any:
    return {
        "all small": route(always("INT3 g128"), (SMALL, LARGE)),
        "all large": route(always("16-bit"), (SMALL, LARGE)),
        "half": route(
            by_workload(dict.fromkeys(("sql", "trading"), "16-bit")), (SMALL, LARGE), {"sql": 1, "trading": 2}
        ),
    }


def test_the_line_is_the_cascade_and_points_are_the_others(cascade: Any, others: Any) -> None:
    axis = plots.frontier(cascade, others).axes[0]
    line = next(line for line in axis.lines if line.get_label().startswith("cascade"))
    assert list(line.get_xdata()) == [outcome.dollars for _, outcome in cascade]
    assert list(line.get_ydata()) == pytest.approx([100 * outcome.change for _, outcome in cascade])
    for container, (name, outcome) in zip(axis.containers, others.items(), strict=True):
        assert container.get_label() == name
        assert container.lines[0].get_xdata()[0] == outcome.dollars
        assert container.lines[0].get_ydata()[0] == pytest.approx(100 * outcome.change)
        (low, high) = container.lines[2][0].get_segments()[0][:, 1]
        assert high - low == pytest.approx(400 * outcome.stderr)
    assert "dollars" in axis.get_xlabel() and "points" in axis.get_ylabel()


def test_chance_is_a_straight_line_between_the_ends(cascade: Any) -> None:
    axis = plots.frontier(cascade, {}).axes[0]
    chance = next(line for line in axis.lines if "coin" in line.get_label())
    ends = cascade[0][1], cascade[-1][1]
    assert list(chance.get_xdata()) == [end.dollars for end in ends]
    assert list(chance.get_ydata()) == pytest.approx([100 * end.change for end in ends])


def test_cost_by_load_is_that_of_the_fleet(others: Any) -> None:
    rates = [40.0, 0.5, 5.0]
    axis = plots.cost_by_load(others, SERVERS, rates).axes[0]
    for line, (name, outcome) in zip(axis.lines, others.items(), strict=True):
        assert line.get_label() == name and list(line.get_xdata()) == sorted(rates)
        expected = [fleet(outcome, rate, SERVERS).dollars_per_request for rate in sorted(rates)]
        assert list(line.get_ydata()) == expected
    assert "seconds" not in axis.get_xlabel() and "per second" in axis.get_xlabel()


def test_words_say_what_the_pictures_show(cascade: Any, others: Any) -> None:
    alt = plots.frontier(cascade, others, title="A title").alt
    assert alt.startswith("A title") and f"all small {100 * others['all small'].change:+.1f} at $1" in alt
    alt = plots.cost_by_load(others, SERVERS, [1.0, 10.0]).alt
    dear = fleet(others["all large"], 1.0, SERVERS).dollars_per_request
    assert f"all large from ${dear:.2g} at 1" in alt


def test_refused(cascade: Any, others: Any) -> None:
    with pytest.raises(ValueError, match="cascade: got 1 points"):
        plots.frontier(cascade[:1], others)
    with pytest.raises(ValueError, match="others: got 9 policies"):
        plots.frontier(cascade, {str(k): others["half"] for k in range(9)})
    with pytest.raises(ValueError, match="outcomes, rates: got 0 and 1"):
        plots.cost_by_load({}, SERVERS, [1.0])
    with pytest.raises(ValueError, match="outcomes, rates: got 3 and 0"):
        plots.cost_by_load(others, SERVERS, [])
    with pytest.raises(ValueError, match="outcomes: got 9 policies"):
        plots.cost_by_load({str(k): others["half"] for k in range(9)}, SERVERS, [1.0])
