"""What GPTQ and AWQ buy on the embedded model, on text that calibration never saw."""

from __future__ import annotations

import math
from typing import Any

import pytest

from qlab.models import corpus
from qlab.models.evaluate import Evaluation, evaluate
from qlab.models.load import load
from qlab.models.quantize import quantize_model

# Excerpts of the training text; evaluation reads modules that are not in it.
TEXTS = [corpus.calibration_text("prose")[:24_000], corpus.calibration_text("code")[:36_000]]


@pytest.fixture(scope="module")
def reference() -> Any:
    return load()[0]


def measured(reference: Any, group_size: Any, method: str, **options: Any) -> Evaluation:
    model = load()[0]
    data = {} if method == "rtn" else {"calibration": TEXTS}
    quantize_model(model, method, 3, group_size, progress=False, **data, **options)
    return evaluate(model, reference, workloads=(), tokens=8192, progress=False)


def loss_increase(found: Evaluation) -> float:
    """Nats per token, the mean over prose and code."""
    return sum(math.log(ratio.value) for ratio in found.perplexity_ratio.values()) / len(found.perplexity_ratio)


def standard_error(found: Evaluation) -> float:
    return math.hypot(*(r.stderr / r.value for r in found.perplexity_ratio.values())) / len(found.perplexity_ratio)


@pytest.mark.parametrize("group_size", ["channel", 128])
def test_three_bits(reference: Any, group_size: Any) -> None:
    rtn, gptq, awq = (measured(reference, group_size, method) for method in ("rtn", "gptq", "awq"))
    # The promises hold with two standard errors to spare.
    assert loss_increase(gptq) + 2 * standard_error(gptq) <= 0.45 * loss_increase(rtn)
    assert loss_increase(awq) + 2 * standard_error(awq) <= 0.8 * loss_increase(rtn)
    assert gptq.kl is not None and rtn.kl is not None and gptq.kl.value < rtn.kl.value / 2
