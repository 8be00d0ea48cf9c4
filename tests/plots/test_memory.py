"""Memory figures: bars and lines have the lengths that qlab.deploy computes."""

import itertools

import pytest

from qlab.deploy import fits, memory
from qlab.plots import memory as plots


def test_weight_breakdown_stacks_to_the_weights():
    breakdowns = [memory("Llama-3-70B", p) for p in ("bf16", "int4-g128")]
    axis = plots.weight_breakdown(breakdowns).axes[0]
    for i, breakdown in enumerate(breakdowns):
        stacked = sum(container.patches[i].get_width() for container in axis.containers)
        assert stacked == pytest.approx((breakdown.weights - breakdown.norms_and_biases) / 1e9)


def test_kv_growth_is_linear_and_ends_where_it_should():
    axis = plots.kv_growth({"a": 327_680, "b": 40_000}, level=("weights", 20e9), tokens=65_536).axes[0]
    assert axis.lines[0].get_ydata()[-1] == pytest.approx(327_680 * 65_536 / 1e9)
    assert axis.lines[2].get_ydata()[0] == 20


@pytest.mark.parametrize(
    ("model", "precision", "kv_bits"),
    list(
        itertools.product(
            ("Llama-3-70B", "Llama-3-8B", "Llama-2-70B", "Qwen2.5-72B"), ("int4-g128", "int8", "bf16"), (16, 8, 4)
        )
    ),
)
def test_gpus_that_fit_over_its_slider_grid(model, precision, kv_bits):
    for batch, context in itertools.product((1, 64), (1024, 32768)):
        figure = plots.gpus_that_fit(model, precision, batch, context, kv_bits)
        verdicts = {text.get_text() for text in figure.axes[0].texts}
        fit = fits(model, "H200", precision=precision, batch=batch, context=context, kv_bits=kv_bits, extended=True)
        expected = (
            "weights do not fit"
            if fit.budget < 0
            else f"fits; room for {fit.batch} requests"
            if fit.fits
            else f"holds {fit.batch} of {batch} requests"
        )
        assert expected in verdicts
        assert ("H200" in figure.alt.split(":")[-1]) == fit.fits
