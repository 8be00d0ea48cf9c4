"""Figures of SmoothQuant: the numbers that they show and tell are those of the method."""

import re

import pytest
import torch

from qlab.methods import smoothquant, w8a8
from qlab.plots import smoothquant as plots


def numbers(text: str) -> list[float]:
    return [float(x) for x in re.findall(r"\d+(?:\.\d+)?", text)]


def test_seesaw_draws_what_the_formula_leaves_on_each_side():
    figure = plots.seesaw([16, 1], [0.25, 1], alphas=(0, 0.5, 1))
    heights = [[bar.get_height() for bars in axis.containers for bar in bars] for axis in figure.axes]
    assert heights == [[16, 1, 0.25, 1], [4, 1, 1, 1], [2, 1, 2, 1], [1, 1, 4, 1]]
    assert figure.axes[2].get_title("left") == "α = 0.5: s = 8, 1"
    assert "α = 1: inputs 1, 1, weights 4, 1" in figure.alt


def test_channels_draws_both_sides_before_and_after():
    x, w = torch.tensor([64.0, 1, 2]), torch.tensor([0.5, 1, 2])
    s = smoothquant.scales(x, w, 1)
    figure = plots.channels(x, w, s)
    drawn = [[line.get_ydata().tolist() for line in axis.lines] for axis in figure.axes]
    assert drawn == [[x.tolist(), w.tolist()], [[1, 1, 1], (w * s).tolist()]]
    discs, triangles = figure.axes[1].lines
    assert discs.get_markersize() > 1.5 * triangles.get_markersize(), "what lies on each other shows"
    assert figure.alt.endswith(
        "before, the largest input is 32 times the median and the largest weight 2 times; "
        "after, the largest input is 1 times the median and the largest weight 8 times."
    )


def test_by_alpha_draws_every_line_from_zero():
    lines = {"a": {0: 3.0, 0.5: 1.0, 1: 2.0}, "b": {0: 3.0, 0.5: 1.0, 1: 4.0}}
    figure = plots.by_alpha(lines, "error (%)")
    axis = figure.axes[0]
    assert [dict(zip(line.get_xdata(), line.get_ydata(), strict=True)) for line in axis.lines] == list(lines.values())
    assert axis.lines[0].get_linewidth() > axis.lines[1].get_linewidth()  # the first shows behind the second
    assert axis.get_ylim()[0] == 0 and axis.get_ylabel() == "error (%)"
    assert "b: 3 at 0, 1 at 0.5, 4 at 1" in figure.alt


def test_by_alpha_marks_what_there_was_without_smoothing():
    lines = {"a": {0: 3.0, 0.5: 1.0, 1: 2.0}, "b": {0: 3.0, 0.5: 1.0, 1: 4.0}}
    figure = plots.by_alpha(lines, "error (%)", plain={"a": 11.0, "b": 2.5})
    axis = figure.axes[0]
    marks = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axis.lines if len(line.get_xdata()) == 1]
    assert [y for _, y in marks] == [11.0, 2.5] and all(x < 0 for x, _ in marks)
    assert axis.get_xticklabels()[0].get_text() == "not\nsmoothed"
    assert "a: 11 not smoothed, 3 at 0" in figure.alt and "b: 2.5 not smoothed" in figure.alt


def test_drift_draws_every_mark_with_two_standard_errors_and_its_number():
    table = {
        "naive": {"plain": (0.001, 0.0001), "hard": (3.6, 0.2)},
        "smooth": {"plain": (0.001, 0.0001), "hard": (0.03, 0.0)},
    }
    figure = plots.drift(table)
    axis = figure.axes[0]
    marks = [container.lines[0] for container in axis.containers]
    assert [list(line.get_xdata()) for line in marks] == [[0.001, 0.001], [3.6, 0.03]]
    assert len({line.get_marker() for line in marks}) == 2
    [bars] = axis.containers[1].lines[2]
    assert bars.get_segments()[0][:, 0].tolist() == pytest.approx([3.2, 4.0])
    assert sorted(text.get_text() for text in axis.texts) == sorted(["0.0010", "3.6", "0.0010", "0.030"])
    assert axis.get_xlim()[0] < 0.0008 and axis.get_xlim()[1] > 4.0
    assert axis.get_ylim()[0] > axis.get_ylim()[1], "the first method stands at the top"
    assert "naive: plain 0.001, hard 4." in figure.alt


def test_code_sizes_tells_the_share_that_becomes_zero_and_the_share_left_out():
    steps = torch.cat([torch.zeros(30), torch.full((20,), 0.3), torch.full((40,), 10.0), torch.full((10,), 500.0)])
    figure = plots.code_sizes({"x": steps})
    assert "x: 50 % below half a step, largest 5e+02 steps" in figure.alt
    shares = figure.axes[0].patches[0].get_data().values
    assert shares.sum() == pytest.approx(70)
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "x (30 % lie below 0.01)"


def test_ordinary_error_is_in_percent_of_what_the_ordinary_channels_give():
    w, x = plots.with_outliers(*plots.toy_layer(), factor=8, full_size=True)
    rest = x[:, 2:] @ w[:, 2:].T
    wrong = w8a8.linear(x, w8a8.quantize(w)) - x @ w.T
    assert plots.ordinary_error(w, x, None) == pytest.approx(100 * float(wrong.norm() / rest.norm()), rel=1e-5)


@pytest.mark.parametrize("alpha", (0, 0.5, 1))
def test_an_implant_is_undone_at_every_alpha_and_full_size_weights_are_not(alpha):
    layer = plots.toy_layer()
    plain = plots.ordinary_error(*plots.with_outliers(*layer, 1, False), alpha)
    assert plots.ordinary_error(*plots.with_outliers(*layer, 64, False), alpha) == pytest.approx(plain, rel=1e-3)
    full = plots.with_outliers(*layer, 64, True)
    assert plots.ordinary_error(*full, alpha) > 4 * plain
    assert plots.ordinary_error(*full, 0.5) < 0.5 * plots.ordinary_error(*full, None)


def test_divided_weights_leave_the_outputs_as_they_were():
    w, x = plots.toy_layer()
    hard, large = plots.with_outliers(w, x, 64, full_size=False)
    assert large.abs().amax(0)[:2].min() > 30 * large.abs().amax(0)[2:].max() / 2
    torch.testing.assert_close(large @ hard.T, x @ w.T)


@pytest.mark.parametrize("full_size", (True, False))
@pytest.mark.parametrize("factor", (1, 64))
@pytest.mark.parametrize("alpha", (0.0, 0.3, 1.0))
def test_alpha_and_factor_marks_a_point_of_the_curve(alpha, factor, full_size):
    figure = plots.alpha_and_factor(*plots.toy_layer(), alpha=alpha, factor=factor, full_size=full_size)
    curve, point, naive = figure.axes[1].lines
    here = dict(zip(curve.get_xdata(), curve.get_ydata(), strict=True))[alpha]
    assert point.get_ydata()[0] == pytest.approx(here)
    told = numbers(figure.alt)
    w, x = plots.with_outliers(*plots.toy_layer(), factor, full_size)
    assert any(value == pytest.approx(plots.ordinary_error(w, x, None), abs=0.005) for value in told)
    assert naive.get_ydata()[0] == pytest.approx(plots.ordinary_error(w, x, None))
    inputs, weights = (line.get_ydata() for line in figure.axes[0].lines)
    if alpha == 1:
        assert torch.as_tensor(inputs).amax() == pytest.approx(1, rel=1e-5)
    if alpha == 0:
        assert torch.as_tensor(weights).amax() == pytest.approx(1, rel=1e-5)
