"""Figures of speed: the bars, points and sentences are those of the roofline and of the rows."""

import pytest
from matplotlib.text import Text

from qlab.bench.results import Row
from qlab.deploy.roofline import Limits, Work, datasheet, product
from qlab.plots import speed as plots

LIMITS = Limits(bandwidth=100e9, rates={"fp16": 1e12, "int8": 2e12})


def row(kernel="dense", tokens=1, ratio=1.0, fraction=0.5):
    shape = {
        "path": "path",
        "shape": "8x16",
        "outputs": 8,
        "inputs": 16,
        "dtype": "float16",
        "bytes": 100,
        "flops": 256,
    }
    times = {"seconds": 1.0, "quartiles": (1.0, 1.0), "repetitions": 5, "gb_per_s": 0.1, "copy_fraction": 0.5}
    rest = {"ceiling": "copy", "ceiling_fraction": fraction, "ratio": ratio, "relative_error": 0.0}
    return Row(kernel=kernel, tokens=tokens, **shape, **times, **rest)


def labels(figure):
    return [text.get_text() for axis in figure.axes for text in axis.texts]


def test_reuse_writes_how_often_each_element_is_multiplied():
    figure = plots.reuse(tokens=(1, 4), outputs=2, inputs=3)
    numbers = [text for text in labels(figure) if text == "4"]
    assert len(numbers) == 6, "each of the six weights, with four tokens"
    assert "4 tokens: of W 4, of x 2, of y 3" in figure.alt


def test_two_times_marks_the_longer_of_each_pair():
    marks = [plots.Mark("bytes win", Work(100e3, 1e5)), plots.Mark("operations win", Work(100, 1e8))]
    figure = plots.two_times(marks, LIMITS, "title")
    assert [bar.get_width() for bars in figure.axes[0].containers for bar in bars] == pytest.approx(
        [1, 0.1, 0.001, 100]
    )
    assert [text for text in labels(figure) if "counts" in text] == ["1 µs: this counts", "100 µs: this counts"]
    assert "bytes win: bytes 1 µs, operations 0.1 µs" in figure.alt


def test_roofline_puts_a_work_on_its_limit_and_a_measurement_where_it_was():
    on_slope, on_top, measured = Work(1e3, 2e3), Work(1e3, 1e6), Work(1e3, 2e3)
    series = {
        "limits": [plots.Mark("M = 1", on_slope), plots.Mark("M = 9", on_top)],
        "int8": [plots.Mark("a", on_top, "int8")],
        "measured": [plots.Mark("b", measured, seconds=20e-9)],
    }
    figure = plots.roofline(series, LIMITS, "title")
    lines = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(lines["limits"].get_xdata()) == [2, 1000]
    assert list(lines["limits"].get_ydata()) == pytest.approx([0.2, 1.0])
    assert list(lines["int8"].get_ydata()) == pytest.approx([2.0])
    assert list(lines["measured"].get_ydata()) == pytest.approx([0.1])
    assert {"M = 1", "M = 9", "a", "b", "ridge 10", "ridge 20"} <= set(labels(figure))
    assert "Ridge in operations per byte: fp16 10, int8 20" in figure.alt


def named(figure, label):
    [found] = [text for axis in figure.axes for text in axis.texts if text.get_text() == label]
    return found


def boxes(figure):
    """Where every word of the axes is drawn, without the lines that lead to marks."""
    figure.draw_without_rendering()
    return {text.get_text(): Text.get_window_extent(text) for axis in figure.axes for text in axis.texts}


def test_words_of_marks_on_the_limits_do_not_cover_each_other():
    works = [Work(1e3, operations * 1e3) for operations in (1, 3, 40, 55, 70, 300)]
    marks = [plots.Mark(f"M = {i}", work) for i, work in enumerate(works)]
    figure = plots.roofline({"one": marks[:3], "two": marks[3:]}, LIMITS, "title")
    found = list(boxes(figure).items())
    for i, (one, box) in enumerate(found):
        for other, there in found[:i]:
            assert not box.overlaps(there), f"{one} and {other}"


def test_words_of_a_mark_stand_at_that_mark():
    near = [plots.Mark(label, Work(1e3, n * 1e3)) for label, n in (("left", 40), ("middle", 55), ("right", 70))]
    figure = plots.roofline({"one": near}, LIMITS, "title")
    found = [named(figure, label) for label in ("left", "middle", "right")]
    assert [text.xy[0] for text in found] == pytest.approx([40, 55, 70])
    assert found[0].xyann[1] < found[1].xyann[1] < found[2].xyann[1] < 0, "stairs, the left mark's words lowest"
    assert found[0].arrow_patch and found[1].arrow_patch and not found[2].arrow_patch


def test_ridges_that_are_near_are_named_on_their_outer_sides():
    marks = [plots.Mark("a", Work(1e3, 1e4)), plots.Mark("b", Work(1e3, 1e4), "int8")]
    figure = plots.roofline({"one": marks}, LIMITS, "title")
    assert named(figure, "ridge 10").get_ha() == "right" and named(figure, "ridge 20").get_ha() == "left"


@pytest.mark.parametrize(("fraction", "above"), ((0.3, True), (0.9, False), (3, True)))
def test_words_of_a_measured_mark_keep_away_from_the_roof(fraction, above):
    """Above it where there is room, and where it lies above the roof itself."""
    work = Work(1e3, 1e6)  # a microsecond at least
    figure = plots.roofline({"one": [plots.Mark("x", work, seconds=1e-6 / fraction)]}, LIMITS, "title")
    assert (named(figure, "x").xyann[1] > 0) == above


def test_a_scheme_and_its_kernels_look_alike_in_every_figure():
    alone, among = plots.looks(["W8A8"])["W8A8"], plots.looks(["16 bits", "new", "W8A8"])
    assert alone == among["W8A8"] == plots.looks(["w8a8-torch", "dense"])["w8a8-torch"]
    assert (
        plots.looks(["dense", "torch-int4-g128"])["torch-int4-g128"] == plots.looks(["4-bit weights"])["4-bit weights"]
    )
    everybody = plots.looks([*plots.LOOKS, "a", "b"])
    assert len({look["marker"] for look in everybody.values()}) == min(len(everybody), len(plots.MARKERS))


@pytest.mark.parametrize("seconds", (1e-6, 1e-13))
def test_roofline_shows_what_lies_far_from_the_roof(seconds):
    mark = plots.Mark("x", Work(1e3, 2e3), seconds=seconds)
    axis = plots.roofline({"one": [mark]}, LIMITS, "title").axes[0]
    assert axis.get_ylim()[0] < 2e3 / seconds / 1e12 < axis.get_ylim()[1]


def test_gains_draws_computed_lines_and_published_points():
    figure = plots.gains({"computed": {1: 4.0, 64: 1.0}}, {"published": {1: 2.0, 3: 0.5}}, "title", "as fast")
    drawn = {line.get_label(): line for line in figure.axes[0].lines}
    assert list(drawn["computed"].get_ydata()) == [4, 1] and drawn["computed"].get_marker() == "None"
    assert list(drawn["published"].get_xdata()) == [1, 3] and drawn["published"].get_linestyle() == "None"
    assert drawn["published"].get_markerfacecolor() == "none", "what is behind the first points is seen"
    assert "computed: 4.00 at 1, 1.00 at 64; published: 2.00 at 1." in figure.alt, "powers of two are told"


def test_by_tokens_draws_each_kernel_in_both_panels():
    rows = [row(tokens=16), row(), row("int4", 16, 0.8, 0.2), row("int4", 1, 3.5, 1.37)]
    left, right = plots.by_tokens(rows, "title").axes
    lines = {line.get_label(): line for line in left.lines}
    assert list(lines["int4"].get_xdata()) == [1, 16] and list(lines["int4"].get_ydata()) == [3.5, 0.8]
    assert list(right.lines[1].get_ydata()) == pytest.approx([137, 20])
    ticks = set(left.get_yticks())
    assert {0.5, 1, 2, 4} <= ticks, "every point lies between two numbers of the axis"
    assert left.get_ylim()[0] < 0.5 and left.get_ylim()[1] > 4
    assert right.get_ylim()[1] > 137, "what is above a ceiling is shown"
    assert "int4: 3.50 at 1, 0.80 at 16" in plots.by_tokens(rows, "title").alt
    with pytest.raises(ValueError, match="rows: got none"):
        plots.by_tokens([], "title")


def test_schemes_are_the_bits_of_their_products():
    assert plots.SCHEMES["4-bit weights"].work(3, 5, 7) == product(3, 5, 7, 4.125)
    assert plots.SCHEMES["W8A8"].work(3, 5, 7) == product(3, 5, 7, 8, x_bits=8)


def test_the_sentence_of_a_product():
    h100 = datasheet("H100-80GB")
    gain = h100.time(product(1, 8192, 8192)).seconds / h100.time(product(1, 8192, 8192, 4.125)).seconds
    assert plots.sentence("H100-80GB", "4-bit weights", 1, 8192) == (
        f"Bound by memory: at least 10.3 µs, at most {gain:.2f} times as fast as 16 bits"
    )
    assert plots.sentence("H100-80GB", "W8A8", 4096, 8192).startswith("Bound by compute")
    assert plots.sentence("V100-16GB", "W8A8", 1, 8192) == "The data has no int8 rate of the V100-16GB."


@pytest.mark.parametrize(("gpu", "scheme"), (("B300", "W8A8"), ("V100-16GB", "W8A8"), ("T4", "16 bits")))
def test_one_product_tells_its_sentence(gpu, scheme):
    figure = plots.one_product(gpu, scheme, 64, 1024)
    assert plots.sentence(gpu, scheme, 64, 1024) in figure.axes[0].get_title("left")
    assert plots.sentence(gpu, scheme, 64, 1024) in figure.alt
    points = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 1]
    assert bool(points) == (scheme != "W8A8" or gpu != "V100-16GB")
    if points:
        assert {point.get_marker() for point in points} == {plots.looks([scheme])[scheme]["marker"]}
        assert [point.get_markersize() > 5 for point in points] == [False] * (len(points) - 1) + [True]
        texts = {text.get_text() for text in figure.axes[0].texts}
        assert "64 tokens" in texts and {f"{count:,}" for count in plots.COUNTS if count != 64} <= texts
        assert points[-1].get_xdata()[0] == pytest.approx(plots.SCHEMES[scheme].work(64, 1024, 8192).intensity)
