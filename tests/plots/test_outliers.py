"""Figures of 8-bit activations: the numbers that they tell are those of the methods."""

import re

import pytest
import torch

from qlab.formats import activations
from qlab.formats.activations import Activations
from qlab.methods import llm_int8, w8a8
from qlab.plots import outliers as plots

X = torch.tensor([[0.5, -1.0, 40.0, 0.2], [1.5, 0.3, -35.0, -0.8], [-0.4, 0.9, 2.0, 1.2]])


def texts(axis):
    return [text.get_text() for text in axis.texts]


def layer(tokens=24, rows=20, width=32, seed=0):
    """Weights (rows, width) and inputs (tokens, width), all below 4."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=generator), torch.randn(tokens, width, generator=generator).clamp(-4, 4)


def errors(figure):
    """{method: percent} as the alternative text tells them."""
    told = figure.alt.partition("outputs: ")[2].rstrip(".")
    return {name: float(value) for name, value in re.findall(r"([^,]+?) ([\d.e-]+) %(?:, )?", told)}


def test_integer_product_shows_codes_sums_and_scales():
    x = torch.tensor([[1.27, 0.5, -0.3], [12.7, -2.0, 4.0]])
    w = torch.tensor([[0.254, -0.1, 0.06], [0.635, 0.2, -0.3]])
    figure = plots.integer_product(x, w)
    codes_x, codes_w, sums, y = figure.axes
    assert texts(codes_x) == ["127", "50", "-30", "127", "-20", "40", "times 0.01", "times 0.1"]
    assert texts(codes_w)[-2:] == ["times 0.002", "times 0.005"]
    assert texts(sums) == ["12729", "19929", "18329", "12929"]
    assert [float(v) for v in texts(y)] == pytest.approx((x @ w.t()).flatten().tolist(), rel=1e-3)
    assert "[[12729, 19929], [18329, 12929]]" in figure.alt


def test_decomposition_takes_whole_columns_out():
    figure = plots.decomposition(X, threshold=6.0)
    whole, kept, rest = figure.axes
    assert len(texts(whole)) == 12
    assert [t for t in texts(kept) if t] == ["40", "-35", "2"]  # the harmless 2 goes with its column
    codes, scales = activations.quantize(X[:, [0, 1, 3]], Activations())
    assert [t for t in texts(rest) if t][:9] == [str(c) for c in codes.flatten().tolist()]
    assert texts(rest)[-3:] == [f"times {s:.3g}" for s in scales.flatten().tolist()]
    assert [t.get_text() for t in whole.get_xticklabels()] == ["0", "1", "2\noutlier", "3"]
    assert "columns [2] stay in 16 bits" in figure.alt


@pytest.mark.parametrize("threshold, columns", [(0.1, "[0, 1, 2, 3]"), (1.5, "[0, 2]"), (100.0, "[]")])
def test_decomposition_follows_the_threshold(threshold, columns):
    figure = plots.decomposition(X, threshold)
    assert f"columns {columns} stay in 16 bits" in figure.alt
    assert figure.png().startswith(b"\x89PNG")


def test_channel_magnitudes_names_the_outliers():
    values = torch.linspace(1, 3, 40)
    sick = values.clone()
    sick[[7, 33]] = torch.tensor([120.0, 6.0])
    figure = plots.channel_magnitudes({"before": values, "after": sick}, threshold=6.0, tokens=300)
    before, after = figure.axes
    assert before.get_title("left") == "before: 0 of 40 channels reach 6"
    assert texts(before) == [] and texts(after) == ["channel 7: 120", "channel 33: 6"]  # on the threshold counts
    assert after.get_xlabel() == "input channel (300 tokens)"
    assert before.get_ylim() == after.get_ylim() and after.get_yscale() == "log"
    assert "after: largest 120, median" in figure.alt and "2 of 40 channels" in figure.alt


def test_codes_of_token_counts_codes_and_zeros():
    codes = {"a": torch.tensor([127, -3, 0, 0], dtype=torch.int8), "b": torch.tensor([-127, 5, 9, 1], dtype=torch.int8)}
    figure = plots.codes_of_token(codes)
    first, second = figure.axes
    assert [axis.get_title("left") for axis in figure.axes] == [
        "a:\n3 different codes, 50% are 0",
        "b:\n4 different codes, 0% are 0",
    ]
    assert "a: 3 different codes between -3 and 127, 50% of them 0, the largest in channel 0" in figure.alt
    assert texts(first) == ["channel 0: 127"] and texts(second) == ["channel 0: -127"]


def test_codes_of_token_shows_small_codes_beside_a_large_one():
    even = torch.tensor([127, -90, 64, 3], dtype=torch.int8)
    figure = plots.codes_of_token({"even": even, "spoilt": torch.tensor([2, -8, -127, 0], dtype=torch.int8)})
    whole, near = figure.axes
    assert whole.get_ylim() == (-142, 142) and near.get_ylim() == (-10, 10)
    small, _, marked = near.lines
    assert list(small.get_xdata()) == [0, 1, 3] and list(small.get_ydata()) == [2, -8, 0]
    assert marked.get_marker() == "v" and list(marked.get_xdata()) == [2] and marked.get_ydata()[0] == -9
    assert texts(near) == ["channel 2: -127"]
    assert "the largest in channel 2, the next largest 8." in figure.alt


def test_damage_with_and_without_draws_every_value_with_its_error():
    table = {"own": {"a": (0.01, 0.002), "b": (0.001, 0.0001)}, "implanted": {"a": (3.0, 0.1), "b": (0.001, 0.0002)}}
    figure = plots.damage_with_and_without(table)
    axis = figure.axes[0]
    assert [t.get_text() for t in axis.get_yticklabels()] == ["a", "b"] and axis.get_xscale() == "log"
    assert [list(c.lines[0].get_xdata()) for c in axis.containers] == [[0.01, 0.001], [3.0, 0.001]]
    assert all(c.has_xerr for c in axis.containers)
    assert "own: a 0.010, b 0.0010. implanted: a 3, b 0.0010." in figure.alt


def test_threshold_sweep_shows_damage_and_cost():
    figure = plots.threshold_sweep([2, 6, 24], [0.01, 0.02, 0.3], [0.9, 0.3, 0.05], {"weights only": 0.009})
    [axis] = figure.axes
    assert list(axis.lines[0].get_ydata()) == [0.01, 0.02, 0.3] and list(axis.lines[1].get_ydata()) == [0.009] * 2
    assert texts(axis) == ["0.010", "0.020", "0.3", "weights only 0.009"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["2\n90%", "6\n30%", "24\n5%"]
    assert "6: KL 0.020, 30% of the columns" in figure.alt and "weights only 0.009" in figure.alt


@pytest.mark.parametrize(
    ("value", "text"),
    [(2.8193, "2.8"), (0.16, "0.16"), (0.0995, "0.10"), (0.0949, "0.09"), (0.00048, "0.0005"), (3.4, "3"), (0, "0"),
     (27.4, "27"), (431.0, "431")],
)  # fmt: skip
def test_numbers_have_two_digits_where_the_first_is_1_or_2(value, text):
    assert plots._short(value) == text


@pytest.mark.parametrize("factor", (1, 16, 128))
@pytest.mark.parametrize("threshold", (1, 6, 64))
def test_threshold_and_factor_tells_the_errors_of_the_methods(threshold, factor):
    w, x = layer()
    figure = plots.threshold_and_factor(w, x, threshold, factor, channels=(3, 20))
    factors = torch.ones(32)
    factors[[3, 20]] = factor
    x, w, exact = x * factors, w / factors, x @ w.t()
    weight = llm_int8.quantize(w)
    told = errors(figure)
    assert list(told) == ["weights only", "per tensor", "per token", "LLM.int8", "equation 8 literally"]
    for name, y in {
        "weights only": x @ weight.dequantize().t(),
        "per token": w8a8.linear(x, weight),
        "LLM.int8": llm_int8.linear(x, weight, threshold=threshold),
    }.items():
        assert told[name] == pytest.approx(100 * float((y - exact).norm() / exact.norm()), rel=0.06)
    columns = int(llm_int8.outlier_columns(x, threshold).sum())
    assert f"{columns} of 32 columns" in figure.alt and figure.axes[0].get_title("left").startswith(f"{columns} of 32")
    dots = [line.get_xdata()[0] for line in figure.axes[1].lines]
    assert dots == pytest.approx([max(value, 0.3) for value in told.values()], rel=0.06)
    assert [text.split() for text in texts(figure.axes[1])] == [[f"{value:.2g}", "%"] for value in told.values()]
    assert figure.axes[0].get_ylabel() == "largest |x|, 24 tokens"
    assert figure.png().startswith(b"\x89PNG")


def test_what_is_too_small_to_draw_is_an_arrow_at_the_edge():
    w, x = layer()
    x[0] = 1.0  # at a threshold of 1 every column is an outlier
    *_, literally = plots.threshold_and_factor(w, x, 1, 1, (3, 20)).axes[1].lines
    assert literally.get_marker() == "<" and literally.get_xdata()[0] == 0.3


def test_equation_8_is_exact_where_every_column_is_an_outlier_and_follows_no_factor():
    w, x = layer()
    x[0] = 1.0
    assert errors(plots.threshold_and_factor(w, x, 1, 1, (3, 20)))["equation 8 literally"] == pytest.approx(0, abs=1e-3)
    literally = {f: errors(plots.threshold_and_factor(w, x, 6, f, (3, 20)))["equation 8 literally"] for f in (32, 128)}
    assert literally[32] == literally[128] < 2
