from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlab.deploy import Fit, fits, gpu, gpus, instance, instances, memory, placements, smallest_instance, spec

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
    with pytest.raises(ValueError, match=r"gpu: 'A1000' is not known; did you mean A100-80GB"):
        fits(LLAMA, "A1000")
    with pytest.raises(ValueError, match="CUDA shows on a B300 is not known"):
        fits(LLAMA, "B300")


def test_a_context_must_be_positive() -> None:
    fit: Fit = fits(LLAMA, replace(gpu("A100-80GB"), name="mine"))
    with pytest.raises(ValueError, match="context: got 0"):
        fit.batch_at(0)


def test_the_longest_context_at_a_batch() -> None:
    fit = fits(LLAMA, "L40S")
    assert fit.tokens == 8_727
    assert (fit.context_at(1), fit.context_at(2), fit.context_at(5)) == (8192, 4363, 1745)
    with pytest.raises(ValueError, match="batch: got 0"):
        fit.context_at(0)


@given(
    precision=st.sampled_from(["bf16", "int8-channel", "int4-g128"]),
    card=st.sampled_from([name for name, card in gpus().items() if card.memory_visible_gib]),
    batch=st.integers(1, 60),
    context=st.integers(1, 8192),
)
def test_largest_batch_and_longest_context_are_the_largest(precision: str, card: str, batch: int, context: int) -> None:
    fit = fits("Llama-3-8B", card, precision=precision, batch=batch, context=context)
    most, longest = fit.batch_at(context), fit.context_at(batch)
    assert fit.fits == (fit.budget >= 0 and batch <= most)
    held = {"batch": most, "context": context}
    assert fit.budget < 0 or fits("Llama-3-8B", card, precision=precision, **held).fits
    assert not fits("Llama-3-8B", card, precision=precision, **{**held, "batch": most + 1}).fits
    if longest:
        assert fits("Llama-3-8B", card, precision=precision, batch=batch, context=longest).fits
    if longest < 8192:
        assert not fits("Llama-3-8B", card, precision=precision, batch=batch, context=longest + 1).fits


def test_an_instance_stands_for_all_of_its_gpus() -> None:
    fit = fits(LLAMA, "p4d.24xlarge", precision="int8")
    assert (fit.gpu.name, fit.gpus) == ("A100-40GB", 8)
    assert (
        fit
        == fits(memory(LLAMA, "int8", tensor_parallel=8), "A100-40GB")
        == fits(LLAMA, instance("P4D.24xlarge"), precision="int8")
    )
    assert "on each of 8 A100-40GB: fits." in str(fit)
    assert fit.to_dict()["gpus"] == 8
    assert fits(LLAMA, "p4d.24xlarge", tensor_parallel=4).gpus == 4
    with pytest.raises(ValueError, match="tensor_parallel: got 8; there are 4 GPUs"):
        fits(memory(LLAMA, tensor_parallel=8), "g5.12xlarge")
    with pytest.raises(ValueError, match="instance: 'p4d.42xlarge' is not known; did you mean p4d.24xlarge"):
        fits(LLAMA, "p4d.42xlarge")


def test_more_gpus_hold_more_tokens_until_the_heads_are_copied() -> None:
    tokens = [fits(LLAMA, "H100-80GB", precision="bf16", tensor_parallel=n).tokens for n in (1, 2, 4, 8, 16)]
    assert tokens[0] == 0 and tokens == sorted(tokens)
    # 16 GPUs have twice the memory of 8, and each still holds a whole KV head: only the weights take less.
    assert tokens[4] < 1.3 * tokens[3]


def test_the_overhead_may_be_estimated() -> None:
    fit = fits(LLAMA, "A100-80GB", overhead_gb=None, batch=8)
    assert fit.overhead == fit.breakdown.runtime.total
    assert 0.7e9 < fit.overhead < 1.5e9
    assert fits(LLAMA, "A100-80GB", overhead_gb=None, batch=8, chunk=16_384).budget < fit.budget


def test_the_cheapest_instance_that_holds_it() -> None:
    found = placements(LLAMA, batch=16)
    prices = [p.instance.price_usd_per_hour for p in found if p.instance.price_usd_per_hour is not None]
    assert prices == sorted(prices)
    assert all(p.instance.price_usd_per_hour is None for p in found[len(prices) :])
    assert all(p.fit.fits and p.fit.batch >= 16 for p in found)
    held = {p.instance.name for p in found}
    for name, machine in instances().items():
        if machine.gpu.memory_visible_gib is None:
            assert name not in held  # nobody has written down what a B300 shows
        else:
            assert (name in held) == fits(LLAMA, machine, batch=16).fits
    best = smallest_instance(LLAMA, batch=16)
    assert best == found[0]
    assert "USD per hour on demand in us-east-1. Llama-3-70B at int4-g128 on each of" in str(best)
    assert best.to_dict()["fit"]["fits"]


def test_only_as_many_gpus_as_the_heads_allow() -> None:
    # 9 query heads and 3 KV heads: 3 of 8 GPUs get work.
    assert spec("SmolLM2-135M").splits == (1, 3, 9)
    found = smallest_instance("SmolLM2-135M", among=["p4d.24xlarge"])
    assert found is not None and found.fit.gpus == 3
    assert "5 of its 8 GPUs stay free" in str(found)


def test_among_some_instances_or_none() -> None:
    assert smallest_instance(LLAMA, precision="bf16", among=["p3.8xlarge", "g4dn.12xlarge"]) is None
    priceless = smallest_instance(LLAMA, precision="bf16", among=["p5e.48xlarge"])
    assert priceless is not None and "no price is listed" in str(priceless)
    assert priceless.to_dict()["price_age_days"] is None


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (
            {"context": 8193},
            ValueError,
            "context: got 8,193; Llama-3-70B was made for at most 8,192 tokens.*Llama-3.1-70B",
        ),
        ({"batch": -1}, ValueError, "batch: got -1"),
        ({"among": ["p9.huge"]}, ValueError, "instance: 'p9.huge' is not known"),
        ({"tensor_parallel": 2}, TypeError, "follows from each instance"),
        ({"utilization": 2}, ValueError, "utilization: got 2"),
    ],
)
def test_bad_searches(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        smallest_instance(LLAMA, **arguments)
    assert smallest_instance(LLAMA, context=8193, extended=True) is not None
