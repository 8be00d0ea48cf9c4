from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from qlab.deploy import Fit, fits, gpu, memory

LLAMA = "Llama-3-70B"


# The claim ledger's anchors: Llama-3-70B on one GPU. Its token counts are rounded, ours are whole tokens that fit.
@pytest.mark.parametrize(
    ("name", "precision", "options", "tokens", "batches"),
    [
        ("A100-80GB", "int8", {}, 12_303, (6, 3, 1)),
        ("A100-80GB", "int8", {"utilization": 0.90}, 7_116, (3, 1, 0)),
        ("A100-80GB", "int8", {"utilization": 0.95}, 20_083, (9, 4, 2)),
        ("A100-80GB", "int8", {"utilization": 1, "overhead_gb": 2}, 31_526, (15, 7, 3)),
        ("A100-80GB", "int4-g128", {}, 113_487, (55, 27, 13)),
        ("A100-80GB", "int4-g128", {"utilization": 1, "overhead_gb": 2}, 132_710, (64, 32, 16)),
        ("H100-80GB", "int8", {}, 12_152, (5, 2, 1)),
        ("H100-80GB", "int8", {"utilization": 0.90}, 6_968, (3, 1, 0)),
        ("H100-80GB", "int4-g128", {}, 113_336, (55, 27, 13)),
        ("L40S", "int4-g128", {}, 8_727, (4, 2, 1)),
        ("L40S", "int4-g128", {"utilization": 0.90}, 5_818, (2, 1, 0)),
    ],
)
def test_anchors(name: str, precision: str, options: dict[str, float], tokens: int, batches: tuple[int, ...]) -> None:
    fit = fits(LLAMA, name, precision=precision, **options)
    assert round(fit.budget / 327_680) == tokens
    assert fit.tokens == fit.budget // 327_680
    assert tuple(fit.batch_at(context) for context in (2048, 4096, 8192)) == batches


def test_only_whole_tokens_fit() -> None:
    fit = fits(LLAMA, "A100-80GB", precision="int8")
    assert fit.tokens == 12_302
    assert fit.tokens * fit.breakdown.kv_per_token <= fit.budget < (fit.tokens + 1) * fit.breakdown.kv_per_token


def test_an_8_bit_cache_holds_twice_as_much() -> None:
    fit = fits(LLAMA, "A100-80GB", precision="int8", kv_bits=8)
    assert round(fit.budget / 163_840) == pytest.approx(2 * 12_302.7, abs=1)


def test_the_batch_decides_the_verdict() -> None:
    assert fits(memory(LLAMA, "int8", batch=3, context=4096), "A100-80GB").fits
    assert not fits(memory(LLAMA, "int8", batch=4, context=4096), "A100-80GB").fits
    assert "does not fit as asked" in str(fits(memory(LLAMA, "int8", batch=4, context=4096), "A100-80GB"))


def test_weights_that_are_too_large() -> None:
    fit = fits(LLAMA, "RTX-4090")
    assert not fit.fits
    assert (fit.tokens, fit.batch, fit.longest_context) == (0, 0, 0)
    assert fit.budget < 0
    assert f"the weights do not fit; {-fit.budget / 1e9:.2f} GB are missing" in str(fit)


def test_one_request_is_no_longer_than_the_model_allows() -> None:
    assert fits(LLAMA, "A100-80GB").longest_context == 8192
    short = fits(LLAMA, "L40S", utilization=0.9)
    assert short.longest_context == short.tokens < 8192


def test_breakdown_and_name_agree() -> None:
    named = fits(LLAMA, "L40S", precision="int4-g64", context=2048, kv_bits=8)
    assert named == fits(memory(LLAMA, "int4-g64", context=2048, kv_bits=8), gpu("L40S"))


def test_to_dict_and_text_say_the_same() -> None:
    fit = fits(LLAMA, "A100-80GB", precision="int8")
    document = fit.to_dict()
    assert document["visible_bytes"] == int(79.15 * 2**30)
    assert document["tokens"] == 12_302
    assert document["batch"] == 3
    assert re.search(r"fits\. 4\.03 GB .* 12,302 tokens: 3 requests of 4,096 tokens", str(fit))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"utilization": 0}, "utilization: got 0"),
        ({"utilization": 1.01}, "utilization: got 1.01"),
        ({"utilization": "0.9"}, "utilization: got '0.9'"),
        ({"utilization": float("nan")}, "utilization: got nan"),
        ({"overhead_gb": -1}, "overhead_gb: got -1"),
        ({"overhead_gb": float("inf")}, "overhead_gb: got inf"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        fits(LLAMA, "A100-80GB", **arguments)


def test_options_beside_a_breakdown_are_refused() -> None:
    with pytest.raises(TypeError, match="precision given beside a MemoryBreakdown"):
        fits(memory(LLAMA), "A100-80GB", precision="int8")


def test_unknown_gpu_and_unknown_memory() -> None:
    with pytest.raises(ValueError, match=r"gpu: 'A1000' is not known; choose from .*A100-80GB"):
        fits(LLAMA, "A1000")
    with pytest.raises(ValueError, match="CUDA shows on a B300 is not known"):
        fits(LLAMA, "B300")


def test_a_context_must_be_positive() -> None:
    fit: Fit = fits(LLAMA, replace(gpu("A100-80GB"), name="mine"))
    with pytest.raises(ValueError, match="context: got 0"):
        fit.batch_at(0)
