"""The figures of GPTQ as functions: what they draw against the method itself and against a search of the whole grid."""

import itertools
import re

import numpy as np
import pytest
import torch

from qlab.methods import gptq
from qlab.plots import gptq as plots

HESSIAN = torch.tensor([[5.0, 4.0], [4.0, 5.0]], dtype=torch.float64)


def losses(figure) -> dict[str, float]:
    """The losses in the legend: round to nearest, best of all, GPTQ."""
    labels = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    return {label.split(",")[0]: float(label.split()[-1]) for label in labels if ", loss" in label}


def test_compensation_of_the_example_that_is_worked_by_hand():
    figure = plots.compensation([1.4, 2.3], HESSIAN)
    assert losses(figure) == {"round to nearest": 1.105, "best of all": 0.405, "GPTQ": 0.505}
    assert "GPTQ moves to (1, 2.62) and then to (1, 3)" in figure.alt
    assert figure.png().startswith(b"\x89PNG")


@pytest.mark.parametrize("seed", range(8))
def test_compensation_agrees_with_the_method(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(5, 2, generator=generator, dtype=torch.float64)
    w = torch.randn(1, 2, generator=generator, dtype=torch.float64)
    hessian = x.T @ x
    ours = gptq.quantize(w, hessian, bits=3, group_size="channel", damping=0.05, scale_dtype=torch.float32)
    step = float(ours.scales)
    figure = plots.compensation(w[0].tolist(), hessian, step=step, qmax=3, damping=0.05)
    diamond = next(line for line in figure.axes[0].lines if line.get_marker() == "D")
    drawn = np.array(diamond.get_data(), dtype=float).ravel()
    assert drawn == pytest.approx(ours.dequantize()[0].numpy(), abs=1e-6)


@pytest.mark.parametrize(
    ("correlation", "bits"), list(itertools.product([-0.9, -0.5, 0.0, 0.3, 0.6, 0.8, 0.9], range(2, 6)))
)
def test_two_weights_without_damping_never_lose_to_rounding(correlation, bits):
    found = losses(plots.correlation_and_bits(correlation, bits, damping=0.0))
    assert found["best of all"] <= found["GPTQ"] <= found["round to nearest"]


def test_much_damping_ends_at_round_to_nearest():
    light, heavy = (losses(plots.correlation_and_bits(0.8, 3, damping)) for damping in (0.0, 10.0))
    assert light["GPTQ"] < light["round to nearest"] == heavy["GPTQ"] == heavy["round to nearest"]


def test_the_second_weight_changes_its_point_above_a_correlation_of_one_half():
    below, above = (losses(plots.correlation_and_bits(correlation, 3)) for correlation in (0.4, 0.6))
    assert below["GPTQ"] == below["round to nearest"] and above["GPTQ"] < above["round to nearest"]


def test_a_weight_on_the_grid_needs_no_ellipse():
    figure = plots.compensation([1.0, 2.0], HESSIAN)
    assert losses(figure) == {"round to nearest": 0.0, "best of all": 0.0, "GPTQ": 0.0}


@pytest.mark.parametrize("correlation", [-0.9, 0.0, 0.9])
@pytest.mark.parametrize("bits", [2, 5])
def test_nothing_is_cut_off(correlation, bits):
    figure = plots.correlation_and_bits(correlation, bits)
    figure.png()
    whole, used = figure.bbox, figure.axes[0].get_tightbbox()
    assert used.x0 >= 0 and used.y0 >= 0 and used.x1 <= whole.x1 and used.y1 <= whole.y1


def test_a_weight_that_stays_has_no_arrow():
    assert len(plots.compensation([1.0, 2.3], HESSIAN).axes[0].texts) == 1
    assert len(plots.compensation([1.4, 2.3], HESSIAN).axes[0].texts) == 2


def test_feedback_shows_every_value_and_frames_the_rounded_one():
    history = [[1.4, 2.3], [1.0, 2.62], [1.0, 3.0]]
    figure = plots.feedback(history)
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.texts] == ["1.40", "2.30", "1", "2.62", "1", "3"]
    frames = [(patch.get_x() + 0.46, patch.get_y() + 0.44) for patch in axis.patches]
    assert frames == [pytest.approx((0, 1)), pytest.approx((1, 2))]
    assert "After column 0: 1.00, 2.62." in figure.alt


def test_feedback_of_weights_that_do_not_move():
    assert plots.feedback([[1.0, 2.0]] * 3).png().startswith(b"\x89PNG")


def test_loss_by_tokens_draws_both_lines_and_names_the_worst():
    figure = plots.loss_by_tokens({2: 0.01, 64: 0.02, 4096: 0.4}, {2: 1.1, 64: 1.5, 4096: 0.6}, width=768)
    seen, fresh = (line for line in figure.axes[0].lines if line.get_marker() in "os")
    assert list(seen.get_ydata()) == [0.01, 0.02, 0.4] and list(fresh.get_ydata()) == [1.1, 1.5, 0.6]
    assert "The worst on new tokens is 1.5." in figure.alt
    assert figure.axes[0].get_ylim()[1] > 1.5


def test_loss_by_tokens_labels_no_two_counts_that_would_overlap():
    counts = (2, 64, 1024, 1536, 2048)
    figure = plots.loss_by_tokens(dict.fromkeys(counts, 0.5), dict.fromkeys(counts, 1.1), width=768)
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["2,048", "1,024", "64", "2"]


def test_right_by_calibration_writes_every_number_even_0():
    rate = {"no data": {"sql": 0.15, "recommend": 0.98}, "on recommend": {"sql": 0.0, "recommend": 1.0}}
    figure = plots.right_by_calibration(
        rate, {name: dict.fromkeys(line, 0.02) for name, line in rate.items()}, "2 bits"
    )
    axis = figure.axes[0]
    assert [text.get_text() for text in axis.texts] == ["15", "98", "0", "100"]
    assert [round(bar.get_height()) for container in axis.containers[1::2] for bar in container] == [15, 98, 0, 100]
    assert "on recommend: sql 0 %, recommend 100 %." in figure.alt


def test_kl_by_scheme_has_a_point_with_its_error_for_every_method():
    table = {"a": {"RTN": (0.5, 0.05), "GPTQ": (0.25, 0.02)}, "b": {"RTN": (0.07, 0.01), "GPTQ": (0.04, 0.01)}}
    figure = plots.kl_by_scheme(table)
    points = [container.lines[0].get_ydata().tolist() for container in figure.axes[0].containers]
    assert points == [[0.5, 0.07], [0.25, 0.04]]
    bars = figure.axes[0].containers[0].lines[2][0].get_segments()
    assert [round(float(bar[1, 1] - bar[0, 1]), 6) for bar in bars] == [0.1, 0.02]
    assert re.search(r"b: RTN 0\.07, GPTQ 0\.04\.", figure.alt)


def test_sensitivity_map_puts_every_layer_in_its_place():
    damage = {
        "model.layers.0.self_attn.q_proj": 0.2,
        "model.layers.0.mlp.down_proj": 0.03,
        "model.layers.1.mlp.down_proj": 0.04,
    }
    figure = plots.sensitivity_map(damage)
    axis = figure.axes[0]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["q_proj", "down_proj"]
    assert {text.get_position(): text.get_text() for text in axis.texts} == {
        (0, 0): "0.200",
        (1, 0): "0.030",
        (1, 1): "0.040",
    }
    assert "model.layers.0.self_attn.q_proj with 0.2" in figure.alt


def test_sensitivity_map_knows_other_names():
    figure = plots.sensitivity_map({"transformer.h.0.attn.c_attn": 0.1, "transformer.h.1.mlp.c_fc": 0.2})
    assert [label.get_text() for label in figure.axes[0].get_xticklabels()] == ["c_attn", "c_fc"]
