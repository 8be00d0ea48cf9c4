"""Figures of AWQ and HQQ: the numbers that they tell are those of the method."""

import re

import pytest
import torch

from qlab.methods import awq, hqq
from qlab.plots import awq as plots


def numbers(text: str) -> list[float]:
    return [float(x) for x in re.findall(r"\d+\.\d+", text)]


def test_column_grids_tell_the_loss_of_the_example_by_hand():
    figure = plots.column_grids([0.6, -1.0, 0.2, 0.4], [1, 1, 16, 1], factors=[1, 4, 16])
    assert numbers(figure.alt) == pytest.approx([4.56, 0.29, 0.38])
    assert len(figure.axes) == 3
    assert figure.png().startswith(b"\x89PNG")


@pytest.mark.parametrize("bits", (2, 3, 4))
def test_column_grids_scale_the_salient_column_only(bits):
    figure = plots.column_grids([0.5, 1.0, 0.1], [1, 1, 9], factors=[1, 3], bits=bits)
    levels = [[c for c in axis.collections if len(c.get_segments()) > 1] for axis in figure.axes]
    gaps = [[c.get_segments()[1][0][0] - c.get_segments()[0][0][0] for c in panel] for panel in levels]
    assert gaps[0] == pytest.approx([gaps[0][0]] * 3)  # one grid for all before
    assert gaps[1][:2] == pytest.approx(gaps[0][:2])
    assert gaps[1][2] == pytest.approx(gaps[0][2] / 3)


def test_column_grids_say_where_levels_lie_beyond_the_lane():
    figure = plots.column_grids([0.6, -1.0, 0.2, 0.4], [1, 1, 16, 1], factors=[1, 4, 16])
    arrows = [[line.get_ydata()[0] for line in axis.lines if line.get_marker() in "<>"] for axis in figure.axes]
    assert arrows == [[], [], [0, 0, 1, 1, 3, 3]]  # both ends of all lanes but that of the scaled channel
    assert "more levels beyond" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_loss_by_ratio_names_the_best_one_of_every_line():
    figure = plots.loss_by_ratio({"a": [2.0, 1.0, 1.5, 3.0], "b": [1.0, 1.1, 1.2, 1.3]})
    assert "a is best at 0.25 with 0.50" in figure.alt
    assert "b is best at 0.00 with 1.00" in figure.alt
    low, high = figure.axes[0].get_ylim()
    assert low < 0.5 and high <= 1.5


def test_drift_by_method_draws_every_bar_with_its_error():
    table = {"3 bits": {"RTN": (0.5, 0.02), "GPTQ": (0.2, 0.01)}, "4 bits": {"RTN": (0.1, 0.01), "GPTQ": (0.2, 0.01)}}
    figure = plots.drift_by_method(table)
    bars = [container for container in figure.axes[0].containers if hasattr(container, "patches")]
    assert [[p.get_height() for p in b] for b in bars] == [[0.5, 0.1], [0.2, 0.2]]
    assert all(bar.errorbar is not None for bar in bars)
    assert "± 1 standard error" in figure.axes[0].get_title(loc="left")
    assert "3 bits: lowest is GPTQ with 0.2" in figure.alt and "4 bits: lowest is RTN with 0.1" in figure.alt


@pytest.mark.parametrize("beta", (1.0, 10.0))
def test_shrinkage_tells_the_threshold_below_which_nothing_is_left(beta):
    norms = (1.0, 0.7, 0.3)
    told = re.findall(r"p = (\S+) removes errors below (\S+) steps", plots.shrinkage(beta, norms).alt)
    for (p, threshold), norm in zip(told, norms, strict=True):
        assert float(p) == norm
        edge = float(threshold)
        assert hqq.shrink(torch.tensor(edge - 0.01), beta, norm) == 0
        assert hqq.shrink(torch.tensor(edge + 0.01), beta, norm) > 0


def test_the_toy_layer_has_two_salient_inputs():
    w, x = plots.toy_layer()
    assert (w.shape, x.shape) == ((64, 64), (512, 64))
    assert set(x.abs().mean(0).topk(2).indices.tolist()) == {0, 1}
    assert torch.equal(plots.toy_layer()[0], w)


@pytest.mark.parametrize("bits", (2, 4, 8))
@pytest.mark.parametrize("outlier", (1, 64))
@pytest.mark.parametrize("ratio", (0.0, 0.5, 0.95))
def test_ratio_and_grid_marks_a_point_of_the_curve(ratio, bits, outlier):
    figure = plots.ratio_and_grid(*plots.toy_layer(), ratio=ratio, bits=bits, outlier=outlier)
    curve, point = figure.axes[0].lines[:2]
    on_curve = dict(zip([round(v, 2) for v in curve.get_xdata()], curve.get_ydata(), strict=True))[ratio]
    assert point.get_ydata()[0] == pytest.approx(float(on_curve), rel=0.02)
    best = figure.axes[0].lines[2]
    assert best.get_ydata()[0] == pytest.approx(min(curve.get_ydata()))
    low, high = figure.axes[1].get_ylim()
    assert all(low < v < high for line in figure.axes[1].lines for v in line.get_ydata())
    before, after = (line.get_ydata() for line in figure.axes[1].lines[:2])
    if ratio == 0:
        assert torch.allclose(torch.as_tensor(after), torch.as_tensor(before), rtol=1e-3)
    else:
        assert (after[:2] < before[:2]).all()  # the salient columns meet a finer grid


def test_ratio_and_grid_tells_what_the_search_finds():
    w, x = plots.toy_layer()
    factors = torch.ones(64)
    factors[:2] = 8
    w8, x8 = w / factors, x * factors
    found = awq.search_scales([w8], x8.abs().mean(0), 2 * x8.T @ x8 / len(x8), bits=3, group_size="channel")
    assert f"the best ratio is {found.ratio:.2f}" in plots.ratio_and_grid(w, x, bits=3, outlier=8).alt
