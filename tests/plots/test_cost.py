"""The figure of cost against latency draws what the plans say, and says it in words."""

from __future__ import annotations

import pytest
from matplotlib.colors import same_color

from qlab.deploy.planning.options import Plan
from qlab.deploy.planning.plan import plan
from qlab.plots import cost as plots

LIMITS = (1.0, 0.2, 0.5, 5.0, 0.01)
AMONG = ["p5.48xlarge", "p6-b200.48xlarge", "g6e.12xlarge"]


@pytest.fixture(scope="module")
def plans() -> list[Plan]:
    return [plan("Llama-3-70B", "recommend", latency=limit, among=AMONG) for limit in LIMITS]


def frontier(figure: plots.Figure) -> tuple[list[float], list[float]]:
    line = next(line for line in figure.axes[0].lines if line.get_linewidth() == 2)
    return list(line.get_xdata()), list(line.get_ydata())


def test_the_line_goes_through_the_recommended_in_order(plans: list[Plan]) -> None:
    seconds, usd = frontier(plots.cost_against_latency(plans))
    chosen = {one.target.seconds: one.choice.usd_per_million for one in plans if one.choice}
    assert seconds == sorted(seconds) and usd == sorted(usd, reverse=True)
    assert [chosen[limit] for limit in seconds] == usd
    assert 0.01 not in seconds and len(seconds) >= 3  # nothing meets 10 ms


def test_points_are_filled_where_they_were_simulated(plans: list[Plan]) -> None:
    axis = plots.cost_against_latency(plans).axes[0]
    dots = [line for line in axis.lines if line.get_marker() == "o" and len(line.get_xdata()) == 1]
    filled = {
        (line.get_xdata()[0], line.get_ydata()[0]) for line in dots if not same_color(line.get_markerfacecolor(), "w")
    }
    simulated = {
        (one.target.seconds, option.usd_per_million)
        for one in plans
        for option in one.options
        if option.capacity is not None and option.possible
    }
    assert filled and filled <= simulated
    assert {(one.target.seconds, one.choice.usd_per_million) for one in plans if one.choice} <= filled
    assert len(dots) > len(filled)


def test_axes_and_words(plans: list[Plan]) -> None:
    figure = plots.cost_against_latency(plans)
    axis = figure.axes[0]
    assert "USD per million output tokens" in axis.get_ylabel() and "answer for 95 %" in axis.get_xlabel()
    assert [text.get_text() for text in axis.get_xticklabels()] == ["200 ms", "500 ms", "1 s", "5 s"]
    best = next(one for one in plans if one.target.seconds == 1.0).choice
    assert best is not None
    assert f"1 s: {best.usd_per_million:,.3g} USD per million output tokens with {best.replica} on" in figure.alt
    named = {text.get_text() for text in axis.texts}
    assert any(f"{best.usd_per_million:,.3g} USD" in text for text in named)
    labels = [line.get_label() for line in axis.lines if not str(line.get_label()).startswith("_")]
    assert "simulated" in labels and "estimated" in labels
    assert any("B200 (p6-b200.48xlarge)" in str(label) for label in labels)


def test_refused(plans: list[Plan]) -> None:
    with pytest.raises(ValueError, match="plans: got 0"):
        plots.cost_against_latency([])
    other = plan("Llama-3-8B", "recommend", among=["g6.xlarge"])
    with pytest.raises(ValueError, match="all of one model and one workload"):
        plots.cost_against_latency([plans[0], other])
    with pytest.raises(ValueError, match="leave qps out"):
        plots.cost_against_latency([plan("Llama-3-8B", "classify", among=["g6.xlarge"], qps=1)])
    with pytest.raises(ValueError, match="in none of them anything meets the target"):
        plots.cost_against_latency([plans[-1]])
