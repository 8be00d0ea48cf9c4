"""Figures of 8-bit floats: what they draw and say, against the format itself."""

import re

import numpy as np
import pytest
import torch

from qlab.formats import float8
from qlab.plots import float8 as plots


@pytest.fixture(scope="module")
def x():
    return torch.randn(64, 32, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("data_type", ("e4m3", "e5m2"))
def test_the_byte_in_the_picture_is_the_byte_of_the_format(data_type):
    values = [0.3, -0.3, 0.003, 448.0, 1e6]
    figure = plots.bytes_by_hand(values, data_type)
    texts = [text.get_text().replace("−", "-") for text in figure.axes[0].texts]
    bits = "".join(text for text in texts if text in ("0", "1"))
    codes = float8.encode(torch.tensor(values), data_type)
    assert bits == "".join(f"{code:08b}" for code in codes.tolist())
    for code in codes.tolist():
        assert f"{code:08b}" in figure.alt
    assert all(word in texts for word in ("sign", "exponent", "fraction"))


@pytest.mark.parametrize("data_type", ("e4m3", "e5m2"))
def test_the_product_in_words_is_the_value(data_type):
    values = float8.decode(torch.arange(256, dtype=torch.uint8), data_type)
    for code in values.isfinite().nonzero().flatten().tolist():
        words = plots.in_words(code, data_type)
        sign, leading, power = re.match(r"(−?)([\d.]+) × \$2\^\{(-?\d+)\}\$", words).groups()
        assert (-1 if sign else 1) * float(leading) * 2.0 ** int(power) == pytest.approx(values[code].item(), rel=1e-4)
        assert ("subnormal" in words) == (values[code].abs().item() < {"e4m3": 2.0**-6, "e5m2": 2.0**-14}[data_type])


def test_every_value_is_a_line_and_the_lower_panel_holds_those_near_zero():
    tables = {"even": torch.arange(-10.0, 11), "crowded": torch.tensor([-10.0, -0.1, 0, 0.1, 0.2, 10])}
    figure = plots.values_on_a_line(tables, zoom=0.05)
    above, below = ([len(lines.get_segments()) for lines in axis.collections] for axis in figure.axes)
    assert above == [21, 6] and below == [1, 4]
    assert "even has 1 of 21, crowded has 4 of 6" in figure.alt


def test_the_curves_bound_real_rounding_errors():
    axis = plots.error_by_magnitude().axes[0]
    size = torch.rand(20_000, generator=torch.Generator().manual_seed(0)).square().clamp(min=3e-4)
    size[0] = 1.0
    for line, data_type in zip(axis.lines, ("int8", "e4m3", "e5m2"), strict=False):
        if data_type == "int8":
            back = (size * 127).round() / 127
        else:
            largest = float8.LARGEST[data_type]
            back = float8.decode(float8.encode(size * largest, data_type), data_type) / largest
        found = 100 * ((back - size).abs() / size).numpy()
        bound = np.interp(size.numpy(), *line.get_data())
        assert (found <= 1.03 * bound + 1e-3).mean() > 0.99  # between two points of the curve, at its jumps, it may not
        assert (found > 0.9 * bound).any()  # and it is not a loose one
    assert axis.get_xlabel() and axis.get_ylabel().endswith("(% of the number)")


def test_the_dotted_line_is_where_int8_and_e4m3_change_places():
    axis = plots.error_by_magnitude().axes[0]
    int8, e4m3, _, dotted = axis.lines
    size, crossing = int8.get_xdata(), dotted.get_xdata()[0]
    assert np.array_equal(int8.get_ydata() > e4m3.get_ydata(), size < crossing)


def test_drift_shows_each_scheme_in_each_state():
    table = {"A": {"clean": (0.01, 0.001), "dirty": (2.0, 0.1)}, "B": {"clean": (0.02, 0.001), "dirty": (0.02, 0.001)}}
    figure = plots.drift_of_schemes(table)
    axis = figure.axes[0]
    assert axis.get_xscale() == "log" and "nats" in axis.get_xlabel()
    assert [label.get_text() for label in axis.get_yticklabels()] == ["A", "B"]
    assert sorted(container.lines[0].get_xdata()[0] for container in axis.containers) == [0.01, 0.02, 0.02, 2.0]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["clean", "dirty"]
    assert "A clean 0.01, dirty 2; B clean 0.02, dirty 0.02" in figure.alt


def numbers(figure):
    error, zeros = re.search(r"error of ([\d.e+-]+) %, and ([\d.e+-]+) %", figure.alt).groups()
    return float(error), float(zeros)


def test_outliers_ruin_integers_and_not_floats(x):
    for granularity in ("token", "tensor"):
        clean, hurt = (numbers(plots.inputs_and_outliers(x, [3], "int8", granularity, f)) for f in (1, 64))
        assert hurt[0] > 10 * clean[0] and hurt[1] > 10
        clean, hurt = (numbers(plots.inputs_and_outliers(x, [3], "e4m3", granularity, f)) for f in (1, 64))
        assert hurt[0] < 1.3 * clean[0] and hurt[0] < 4 and hurt[1] < 0.1  # it depends on where a power of two falls


def test_the_inputs_are_left_as_they_were(x):
    before = x.clone()
    figure = plots.inputs_and_outliers(x, [3, 5], "e5m2", "token", 16)
    assert torch.equal(x, before)
    left, right = figure.axes
    tallest = np.argsort([segment[1][1] for segment in left.collections[0].get_segments()])[-2:]
    assert set(tallest.tolist()) == {3, 5}
    assert right.get_title(loc="left").startswith("E5M2, per token")
