"""Figures as functions: drawn over whole slider grids, and the numbers in them checked."""

import itertools
import re

import pytest
import torch

from qlab.plots import quantization as plots


@pytest.fixture(scope="module")
def w():
    return torch.randn(48, 256, generator=torch.Generator().manual_seed(0)) * 0.05


def numbers(text: str) -> list[float]:
    return [float(x) for x in re.findall(r"-?\d+\.\d+", text)]


@pytest.mark.parametrize("bits", range(2, 9))
def test_number_line_obeys_the_half_step_bound(w, bits):
    step, worst = numbers(plots.number_line(w[0, :12], bits=bits).alt)
    assert step == pytest.approx(float(w[0, :12].abs().max()) / (2 ** (bits - 1) - 1), abs=1e-4)
    assert 0 < worst <= step / 2 + 1e-4


@pytest.mark.parametrize(
    ("bits", "group_size", "symmetric"),
    list(itertools.product(range(2, 9), ("tensor", "channel", 128, 64, 32), (True, False))),
)
def test_grid_and_error_over_its_slider_grid(w, bits, group_size, symmetric):
    figure = plots.grid_and_error(w, bits=bits, group_size=group_size, symmetric=symmetric)
    top, bottom = figure.axes
    half_step = bottom.lines[1].get_ydata()[0]
    error = bottom.lines[0].get_ydata()
    assert abs(error).max() <= half_step * 1.001
    assert f"{bits} bits" in top.get_title(loc="left")
    assert figure.png().startswith(b"\x89PNG")


def test_grid_and_error_of_one_sided_weights(w):
    figure = plots.grid_and_error(w.abs(), bits=3, group_size="channel", symmetric=False)
    assert "of 8 levels used" in figure.axes[1].get_xlabel()


def test_three_panels_show_codes_in_range(w):
    figure = plots.three_panels(w, bits=3)
    codes = [int(text.get_text()) for text in figure.axes[1].texts]
    assert len(codes) == 12 * 16 and min(codes) >= -3 and max(codes) <= 3
    assert 3 in map(abs, codes)


def test_sqnr_by_bits_names_every_slope():
    figure = plots.sqnr_by_bits({"a": {2: 6.0, 4: 18.0}, "b": {2: 8.0, 4: 21.0}})
    assert "a by 6.0 dB per bit" in figure.alt and "b by 6.5 dB per bit" in figure.alt
    assert len(figure.axes[0].lines) == 2


def test_damage_by_workload_draws_every_bar_with_its_error():
    accuracy = {"16-bit": {"sql": 1.0, "recall": 0.9}, "INT3": {"sql": 0.5, "recall": 0.1}}
    figure = plots.damage_by_workload(accuracy, stderr=accuracy)
    bars = [container for container in figure.axes[0].containers if hasattr(container, "patches")]
    assert [[round(p.get_height()) for p in b] for b in bars] == [[100, 90], [50, 10]]
    assert "INT3: lowest recall with 10 %" in figure.alt
