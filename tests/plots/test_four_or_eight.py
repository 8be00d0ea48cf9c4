"""Pictures of 4 against 8 bits: every mark stands where the memory, the run or the bill puts it; words say so."""

from __future__ import annotations

import numpy as np
import pytest

from qlab.deploy import fits, instance, memory
from qlab.deploy.serving.served import Served
from qlab.deploy.serving.simulation import serve
from qlab.deploy.serving.traffic import Request, fixed, lognormal, requests
from qlab.plots import four_or_eight as plots

MODEL = "Llama-3.1-70B"
PLACES = ("p3.8xlarge", "p5.4xlarge", "p6-b200.48xlarge")
FORMATS = {"4 bits": "int4-g128", "16 bits": "bf16"}


def test_bars_are_the_memory_that_weights_and_cache_may_use() -> None:
    axis = plots.on_instances(PLACES, MODEL, FORMATS).axes[0]
    for bar, name in zip(axis.patches, PLACES, strict=True):
        one = instance(name)
        assert bar.get_width() == pytest.approx(0.92 * one.visible_bytes / 1e9 - 1.5 * one.count, rel=1e-6)
        for precision in FORMATS.values():  # the bar passes the line exactly where the weights fit
            fit = fits(MODEL, name, precision=precision)
            assert (bar.get_width() > memory(MODEL, precision).weights / 1e9) == (fit.budget > 0)


def test_lines_are_the_weights_and_words_are_the_kernels() -> None:
    figure = plots.on_instances(PLACES, MODEL, FORMATS)
    axis = figure.axes[0]
    expected = [memory(MODEL, precision).weights / 1e9 for precision in FORMATS.values()]
    assert [line.get_xdata()[0] for line in axis.lines] == expected
    words = [text.get_text() for text in axis.texts]
    assert words[:3] == ["none of these", "4-bit, INT8, FP8", "4-bit, FP8"]
    assert "p3.8xlarge 56 GB, kernels: none of these" in figure.alt and "16 bits 141.1 GB" in figure.alt


def test_the_lines_of_answers_cross_where_it_is_marked() -> None:
    figure = plots.answer_times({"8 bits": (0.1, 0.03), "4 bits": (0.3, 0.02)}, 64, "title")
    axis = figure.axes[0]
    eight, four, mark = axis.lines
    even = mark.get_xdata()[0]
    assert even == pytest.approx(21)  # 0.1 + 20 * 0.03 = 0.3 + 20 * 0.02
    assert np.interp(even, *eight.get_data()) == pytest.approx(np.interp(even, *four.get_data())) == pytest.approx(0.7)
    assert "equal at 21 tokens" in figure.alt and "0.1 s to the first token, 30 ms for each" in figure.alt


def test_without_a_crossing_nothing_is_marked() -> None:
    figure = plots.answer_times({"a": (0.1, 0.02), "b": (0.3, 0.03)}, 64, "title")
    assert len(figure.axes[0].lines) == 2 and "equal" not in figure.alt


@pytest.fixture(scope="module")
def few() -> Served:
    """Four requests, a cache for two of them; a step takes 1 s, and 1 s more for each prompt."""
    sent = [Request(0, 100, 3), Request(0.5, 100, 2), Request(2.5, 100, 2), Request(6, 100, 1)]
    return serve(sent, lambda prefill, decoding, cached: 1 + prefill / 100, kv_tokens=250, prefill_budget=None)


def test_the_timeline_has_each_wait_prompt_and_answer(few: Served) -> None:
    figure = plots.timeline(few, "title")
    bars = {(bar.get_y() + bar.get_height() / 2, bar.get_facecolor()): bar for bar in figure.axes[0].patches}
    assert len(bars) == 3 * len(few.timings)
    for y, timing in enumerate(few.timings):
        edges = sorted((bar.get_x(), bar.get_x() + bar.get_width()) for (row, _), bar in bars.items() if row == y)
        assert edges == [
            (timing.request.arrival, timing.admitted),
            (timing.admitted, timing.first_token),
            (timing.first_token, timing.finished),
        ]
    marks = [line for line in figure.axes[0].lines if line.get_marker() == "|"]
    assert [list(line.get_xdata()) for line in marks] == [few.token_times(y) for y in range(4)]
    assert "request 3 arrives at 2.5 s, is let in at 5 s, has its first token at 7 s and its last at 9 s" in figure.alt


@pytest.fixture(scope="module")
def runs() -> dict[str, list[Served]]:
    def run(rate: float, slow: float) -> Served:
        sent = requests(rate, 60, lognormal(300, 1, high=900), fixed(8))
        return serve(sent, lambda prefill, decoding, cached: slow * (0.01 + 1e-4 * prefill), kv_tokens=9000)

    return {"8 bits": [run(rate, 1) for rate in (1, 9, 5)], "4 bits": [run(rate, 2) for rate in (1, 4)]}


def test_points_are_the_percentiles_of_the_runs(runs: dict[str, list[Served]]) -> None:
    figure = plots.answers_against_load(runs, limit=0.4, percent=90)
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    for name, served in runs.items():
        ordered = sorted(served, key=lambda run: run.offered)
        for label, percent in ((f"{name}: 90 % are faster", 90), (f"{name}: half are faster", 50)):
            assert list(lines[label].get_xdata()) == [run.offered for run in ordered]
            assert list(lines[label].get_ydata()) == [run.latency(percent) for run in ordered]
    assert any(set(line.get_ydata()) == {0.4} for line in figure.axes[0].lines)
    assert "limit 400 ms" in figure.alt and "percentile 90" in figure.alt


WAYS = {8: (plots.Machine("large", 10, 20), plots.Machine("small", 2, 1.5)), 4: (plots.Machine("one", 1, 1),)}


def test_a_bill_counts_whole_machines_of_the_cheapest_way() -> None:
    for load, name, usd in ((1, "small", 1460), (6, "small", 5840), (7.6, "large", 7300), (20.1, "large", 14600)):
        best = plots.cheapest(WAYS[8], load)
        assert best is not None and (best.name, best.usd_per_month(load)) == (name, usd)
    assert plots.cheapest([], 1) is None


def test_the_lines_of_bills_are_the_cheapest_at_every_load() -> None:
    figure = plots.bills(WAYS, 7.6, "title", "note")
    lines = [line for line in figure.axes[0].lines if len(line.get_xdata()) == len(plots.LOADS)]
    for line, ways in zip(lines, WAYS.values(), strict=True):
        assert list(line.get_ydata()) == [plots.cheapest(ways, load).usd_per_month(load) for load in plots.LOADS]
    assert "At 7.6 per second: 16 bits: nothing meets the target; 8 bits: 7,300 USD, 1 x large" in figure.alt
    assert "4 bits: 5,840 USD, 8 x one" in figure.alt and figure.alt.endswith("note")


def test_a_bill_that_nothing_meets_is_drawn_and_says_so() -> None:
    figure = plots.bills({16: (), 8: (), 4: ()}, 1, "title")
    assert figure.png() and [text.get_text() for text in figure.axes[0].texts] == ["nothing meets the target"]
    assert figure.alt.count("nothing meets the target") == 3


def test_ways_to_serve_are_the_cheapest_machines_of_each_kind() -> None:
    ways = plots.ways_to_serve(5.0, 1024, 8)
    names = {precision: {way.name.split(",")[0] for way in given} for precision, given in ways.items()}
    assert "g6e.xlarge" in names["int4-g128"] and "g6e.2xlarge" not in names["int4-g128"]  # the same GPU, dearer
    assert "g6e.xlarge" not in names["fp8"]  # too small
    assert names["nvfp4"] == {"p6-b200.48xlarge"} and "p4d.24xlarge" in names["w8a8"]
    for given in ways.values():
        assert all(way.usd_per_hour == instance(way.name.split(",")[0]).price_usd_per_hour for way in given)


def title(**given: float) -> str:
    return plots.bill_by_load(**given).axes[0].get_title(loc="left")


def test_the_title_names_the_cheapest_and_all_of_them_where_they_are_equal() -> None:
    assert title(latency=5.0, load=1).endswith("cheapest at 1 per second: 4 bits")
    assert title(latency=0.2, load=1, answer=64).endswith("cheapest at 1 per second: nothing")
    ways = plots.ways_to_serve(0.2, 256, 8)
    groups = {16: ("bf16", "fp16"), 8: ("fp8", "w8a8"), 4: ("int4-g128",)}
    usd = {
        bits: min(way.usd_per_month(1) for precision in group for way in ways.get(precision, ()))
        for bits, group in groups.items()
    }
    level = " and ".join(f"{bits} bits" for bits, price in usd.items() if price == min(usd.values()))
    assert title(latency=0.2, load=1, prompt=256).endswith(f"second: {level}")


def test_nvfp4_can_only_add_to_the_ways_of_4_bits() -> None:
    asked = {"latency": 0.2, "load": 500}
    with_it, without = plots.bill_by_load(**asked, nvfp4=True), plots.bill_by_load(**asked)
    for line, plain in zip(with_it.axes[0].lines, without.axes[0].lines, strict=True):
        assert np.all(np.asarray(line.get_ydata()) <= np.asarray(plain.get_ydata()))
    assert "nvfp4" in with_it.alt and "nvfp4" not in without.alt
