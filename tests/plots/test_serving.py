"""The figure of latency against load draws what the runs say, and says it in words."""

import math
import re

import pytest

from qlab.deploy.serving.simulation import serve
from qlab.deploy.serving.traffic import fixed, lognormal, requests
from qlab.plots import serving as plots

RATES = (1, 4, 2)


def run(rate, kv_tokens, output=None):
    sent = requests(rate, 150, lognormal(300, 1, high=1500), output or lognormal(100, 1, low=2, high=500))
    return serve(sent, lambda prefill, decoding, cached: 0.01 + 1e-4 * prefill + 1e-6 * cached, kv_tokens=kv_tokens)


@pytest.fixture(scope="module")
def results():
    return {name: [run(rate, size) for rate in RATES] for name, size in (("small", 2_500), ("large", 40_000))}


def curve(axis, number):
    line = [line for line in axis.lines if len(line.get_xdata()) == len(RATES)][number]
    return list(line.get_xdata()), list(line.get_ydata())


def test_points_are_percentiles_of_the_runs_in_order_of_load(results):
    first, gaps = plots.latency_against_load(results).axes
    for number, runs in enumerate(results.values()):
        ordered = [runs[0], runs[2], runs[1]]
        load = [run.offered for run in ordered]
        assert curve(first, 2 * number) == (load, [run.ttft(50) for run in ordered])
        assert curve(first, 2 * number + 1) == (load, [run.ttft(99) for run in ordered])
        assert curve(gaps, number) == (load, [1000 * run.gap(99) for run in ordered])
    assert (first.get_ylabel(), gaps.get_ylabel()) == ("seconds", "milliseconds")


def test_a_dotted_line_stands_at_what_each_finished(results):
    for axis in plots.latency_against_load(results).axes:
        dotted = [line.get_xdata()[0] for line in axis.lines if line.get_linestyle() == ":" and len(line.get_xdata())]
        assert dotted == [max(run.throughput for run in runs) for runs in results.values()]


def test_limits_are_drawn_where_they_were_set_in_the_axis_unit(results):
    figure = plots.latency_against_load(results, ttft_limit=2.5, gap_limit=0.05)
    heights = [{line.get_ydata()[0] for line in axis.lines if len(line.get_ydata())} for axis in figure.axes]
    assert 2.5 in heights[0] and 50 in heights[1]
    words = [text.get_text() for axis in figure.axes for text in axis.texts]
    assert words == ["limit of p99: 2.5 s", "limit of p99: 50 ms"]
    assert not [text for axis in plots.latency_against_load(results).axes for text in axis.texts]


def test_words_say_what_the_picture_shows(results):
    alt = plots.latency_against_load(results).alt
    for name, runs in results.items():
        slow = min(runs, key=lambda run: run.offered)
        most = max(run.throughput for run in runs)
        assert re.search(rf"{name}, from {slow.offered:.3g} .* {slow.ttft(99):.3g} to .* at most {most:.3g} req", alt)


def test_refused(results):
    with pytest.raises(ValueError, match="results: got a server without runs, or no server"):
        plots.latency_against_load({})
    with pytest.raises(ValueError, match="results: got a server without runs"):
        plots.latency_against_load({"none": []})
    with pytest.raises(ValueError, match="results: got 9 servers"):
        plots.latency_against_load({str(k): results["small"] for k in range(9)})
    with pytest.raises(ValueError, match="all requests came at once"):
        plots.latency_against_load({"all": [run(math.inf, 40_000)]})
    with pytest.raises(ValueError, match="gap: every answer has one token"):
        plots.latency_against_load({"one": [run(1, 40_000, fixed(1))]})
