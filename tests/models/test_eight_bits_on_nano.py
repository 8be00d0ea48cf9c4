"""Weights and inputs in eight bits on the embedded model, with implanted outlier channels and without.

The table of lesson 04, as promises: one scale for all inputs breaks down, and the methods that know outliers do not.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from qlab.models import corpus, outliers
from qlab.models.calibration import batches
from qlab.models.evaluate import Evaluation, evaluate, tokenizer_of
from qlab.models.load import load
from qlab.models.quantize import quantize_model

CHANNELS, FACTOR = [7, 133], 64.0


@pytest.fixture(scope="module")
def reference() -> PreTrainedModel:
    return load()[0]


@pytest.fixture(scope="module")
def exact(reference: PreTrainedModel) -> Evaluation:
    return measure(reference, reference)


@pytest.fixture(scope="module")
def calibration(reference: PreTrainedModel) -> torch.Tensor:
    texts = [corpus.calibration_text("prose")[:8000], corpus.calibration_text("code")[:8000]]
    return batches(texts, tokenizer_of(reference))[0].ids


def measure(model: PreTrainedModel, reference: PreTrainedModel) -> Evaluation:
    return evaluate(model, reference, examples=100, tokens=1024, progress=False)


def quantized(reference: PreTrainedModel, implanted: bool, **recipe: Any) -> Evaluation:
    model = load()[0]
    if implanted:
        outliers.implant(model, CHANNELS, FACTOR)
    return measure(quantize_model(model, progress=False, **recipe), reference)


def lost(found: Evaluation, exact: Evaluation) -> dict[str, float]:
    """Share of right answers that are lost, by workload."""
    return {name: exact.accuracy[name].value - found.accuracy[name].value for name in exact.accuracy}


def test_one_scale_for_all_inputs_breaks_down_with_outliers(reference: PreTrainedModel, exact: Evaluation) -> None:
    naive: dict[str, Any] = {"method": "w8a8", "activations": "tensor"}
    with_outliers = quantized(reference, True, **naive)
    assert sum(points >= 0.30 for points in lost(with_outliers, exact).values()) >= 3
    assert all(ratio.value >= 1.5 for ratio in with_outliers.perplexity_ratio.values())
    without = quantized(reference, False, **naive)
    assert max(lost(without, exact).values()) <= 0.02
    assert with_outliers.kl is not None and without.kl is not None and with_outliers.kl.value > 100 * without.kl.value


def test_one_scale_for_each_token_is_not_enough(reference: PreTrainedModel) -> None:
    found = [quantized(reference, implanted, method="w8a8").kl for implanted in (True, False)]
    assert found[0] is not None and found[1] is not None and found[0].value > 50 * found[1].value


@pytest.mark.parametrize("implanted", [True, False])
@pytest.mark.parametrize("recipe", [{"method": "llm_int8"}, {"method": "smoothquant", "alpha": 0.8}, {"method": "fp8"}])
def test_the_methods_stay_within_a_point(
    reference: PreTrainedModel, exact: Evaluation, calibration: torch.Tensor, recipe: dict[str, Any], implanted: bool
) -> None:
    if recipe["method"] == "smoothquant":
        recipe = recipe | {"calibration": calibration}
    found = quantized(reference, implanted, **recipe)
    assert max(lost(found, exact).values()) <= 0.01 + 1e-9
    assert found.kl is not None and found.kl.value < 0.02
