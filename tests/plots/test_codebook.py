"""Figures of codebooks: drawn over whole grids, and the numbers in them checked."""

import itertools
import re

import numpy as np
import pytest
import torch

from qlab.formats import affine, codebook
from qlab.plots import codebook as plots

NF4 = codebook.CODES["nf4"]


@pytest.fixture(scope="module")
def w():
    return torch.randn(32, 256, generator=torch.Generator().manual_seed(0)) * 0.05


def numbers(text: str) -> list[float]:
    return [float(x) for x in re.findall(r"-?\d+\.\d+", text)]


def panel_texts(axis) -> list[str]:
    return [text.get_text().replace("−", "-") for text in axis.texts]


def test_levels_are_drawn_where_they_lie(w):
    int4 = torch.arange(-7, 8) / 7
    figure = plots.levels_on_weights(w, {"NF4": NF4, "INT4": int4})
    top, bottom = figure.axes
    for lines, table in zip(bottom.collections, (NF4, int4), strict=True):
        assert [segment[0][0] for segment in lines.get_segments()] == pytest.approx(table.tolist())
    counts = [patch.get_height() for patch in top.patches]
    assert sum(counts) == w.numel() and counts[0] + counts[-1] >= w.numel() / 64  # a block's largest is at an end
    assert "NF4 (10 of 16" in figure.alt and "INT4 (7 of 15" in figure.alt


@pytest.mark.parametrize("bits", (2, 3, 4))
def test_quantile_steps_show_the_levels_of_the_recipe(bits):
    figure = plots.quantile_steps(bits)
    labels = [float(text) for text in panel_texts(figure.axes[0]) if not text.startswith("gray")]
    assert len(labels) == 2**bits == len(set(labels))
    assert sum(label > 0 for label in labels) == 2 ** (bits - 1)
    assert {-1.0, 0.0, 1.0} <= set(labels)
    if bits == 4:
        assert sorted(labels) == pytest.approx(codebook.nf4_from_quantiles().tolist(), abs=0.0051)


@pytest.mark.parametrize("block_size", (2, 4, 6, 12))
def test_blocks_by_hand_show_what_the_formula_gives(block_size):
    w = torch.tensor([[0.8, -0.3, 0.1, 0.4], [-0.05, 0.01, 0.35, -0.7], [0.02, 0.04, -0.1, 0.05]])
    levels = torch.tensor([-1, 0, 0.4358, 1])
    figure = plots.blocks_by_hand(w, levels, block_size)
    absmax = w.reshape(-1, block_size).abs().amax(1).repeat_interleave(block_size)
    codes = [int(text) for text in panel_texts(figure.axes[2])]
    back = [float(text) for text in panel_texts(figure.axes[3])]
    assert back == pytest.approx((levels[codes] * absmax).tolist(), abs=0.006)
    best = (w.flatten()[:, None] / absmax[:, None] - levels).abs().amin(1)
    assert (w.flatten() / absmax - levels[codes]).abs().tolist() == pytest.approx(best.tolist())


def test_blocks_that_cross_a_row_get_a_line_with_a_step():
    w = torch.tensor([[0.8, -0.3, 0.1, 0.4], [-0.05, 0.2, 0.35, -0.7], [0.02, 0.04, -0.1, 0.05]])
    lines = [line.get_xydata() for line in plots.blocks_by_hand(w, torch.tensor([-1.0, 0, 1]), 6).axes[0].lines]
    flat = [line for line in lines if line[0][1] == line[1][1]]
    upright = [line for line in lines if line[0][0] == line[1][0]]
    assert len(flat) == 4 and len(upright) == 1
    assert upright[0][0][0] == 1.5  # between the second and the third column


def test_code_use_adds_up_and_names_the_entropy(w):
    codes = {"NF4": codebook.quantize(w).codes(), "even": torch.arange(16).repeat(10)}
    figure = plots.code_use(codes)
    for bars in (c for c in figure.axes[0].containers if hasattr(c, "patches")):
        assert sum(patch.get_height() for patch in bars) == pytest.approx(100)
    assert "even from 6.2 to 6.2 %, 4.00 bits" in figure.alt
    entropy = numbers(figure.alt.split("NF4")[1])[2]
    assert 3 < entropy < 4


def test_error_by_bits_draws_every_point():
    curves = {name: [(4.1, 10.0), (4.5, 9.0 - i)] for i, name in enumerate("abcde")}
    figure = plots.error_by_bits(curves)
    assert [list(map(tuple, line.get_xydata())) for line in figure.axes[0].lines] == list(curves.values())
    assert "e from 10.00 % at 4.1 bits to 5.00 % at 4.5" in figure.alt


def test_damage_by_bits_has_a_look_for_every_family():
    points = {
        "NF4 64": ("NF4", 4.5, 0.03, 0.001),
        "INT4 128": ("INT4", 4.125, 0.05, 0.002),
        "INT4 32": ("INT4", 4.5, 0.04, 0.002),
    }
    figure = plots.damage_by_bits(points, "mean KL (nats)")
    axis = figure.axes[0]
    assert sorted(text.get_text() for text in axis.texts) == sorted(points)
    assert [text.get_text() for text in figure.legends[0].texts] == ["NF4", "INT4"]
    assert axis.get_ylim()[0] == 0 and axis.get_ylabel() == "mean KL (nats)"
    assert "INT4 128 4.125 bits 0.050" in figure.alt


@pytest.mark.parametrize(
    ("data_type", "block_size"), list(itertools.product(plots.DATA_TYPES, (32, 64, 128, 256))), ids=str
)
def test_codebook_and_error_over_its_grid(w, data_type, block_size):
    figure = plots.codebook_and_error(w, data_type, block_size)
    top, bottom = figure.axes
    levels = np.array([segment[0][0] for segment in top.collections[0].get_segments()])
    x, error = bottom.lines[0].get_data()
    assert abs(x).max() <= 1
    if data_type != "int4 with zero-points":  # the levels of one block are those of all
        nearest = abs(x[:, None] - levels).min(axis=1)
        assert abs(abs(error) - nearest).max() < 2e-3  # 16-bit scales of int4 move a level a little
    mean, root, largest = numbers(figure.alt.split("value:")[1])
    assert 0 < mean < root < largest
    assert figure.png().startswith(b"\x89PNG")


def test_the_errors_that_are_named_are_those_of_the_format(w):
    noise = affine.quantize(w, 4, 64, symmetric=False).dequantize() - w
    root = 100 * float(noise.norm() / w.norm())
    assert f"RMS {root:.2f} %" in plots.codebook_and_error(w, "int4 with zero-points", 64).alt


def test_an_unknown_data_type_is_refused(w):
    with pytest.raises(ValueError, match="data_type: got 'int5'; choose from 'nf4'"):
        plots.codebook_and_error(w, "int5", 64)
