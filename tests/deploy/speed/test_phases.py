"""The time of a model: by hand on a made-up device, at its limits, and against the anchors of the claim ledger."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlab.deploy import Gpu, ModelSpec, gpu, spec
from qlab.deploy.shapes import Experts
from qlab.deploy.speed.device import touched
from qlab.deploy.speed.efficiency import Stack, stack
from qlab.deploy.speed.phases import (
    CAUSES,
    PARTS,
    Phase,
    crossover,
    decode,
    pairs,
    prefill,
    step_time,
    tokens_like_weights,
    weight_bytes,
)

TINY = ModelSpec(
    name="tiny", layers=2, hidden_size=8, intermediate_size=16, attention_heads=2, kv_heads=1, head_dim=4,
    vocab_size=32, tied_embeddings=True, max_context=64, source="made up",
)  # fmt: skip
WEIGHTS = 2 * (8 * 8 + 4 * 8 + 4 * 8 + 8 * 8 + 3 * 8 * 16)  # of both layers: q, k, v, o; gate, up, down
LLAMA = "Llama-3-70B"


def device(**changes: Any) -> Gpu:
    """1 GB/s and so many operations that no product is bound by them."""
    return replace(gpu("A100-80GB"), bandwidth_gb_per_s=1.0, **changes)


SLOW = device(fp16_tensor_tflops=1e-6, int8_tensor_tops=2e-6)  # 10^6 operations per second in 16 bits


def test_a_decode_step_by_hand() -> None:
    """3 requests with 10 tokens each in the cache: every byte once, at 1 GB/s."""
    found = decode(TINY, "bf16", device(), 3, 10, kernels="datasheet")
    inputs_and_outputs = 2 * (16 + 12 + 12 + 16 + 24 + 24 + 24)  # of one token, in both layers
    assert found.parts["layers"] == pytest.approx(2 * (WEIGHTS + 3 * inputs_and_outputs) / 1e9)
    assert found.parts["head"] == pytest.approx(2 * (32 * 8 + 3 * (8 + 32)) / 1e9)
    # Keys and values of 2 layers, 1 head of 4 numbers, 2 bytes each.
    assert found.parts["attention"] == pytest.approx(3 * 10 * (2 * 2 * 4) * 2 / 1e9)
    assert found.parts["communication"] == found.parts["overhead"] == 0
    assert found.bound == "memory" and found.seconds == pytest.approx(found.causes["memory"])


def test_a_prefill_by_hand() -> None:
    """2 prompts of 5 tokens, one operation a microsecond."""
    found = prefill(TINY, "bf16", SLOW, 5, 2, kernels="datasheet")
    assert found.parts["layers"] == pytest.approx(2 * 10 * WEIGHTS / 1e6)
    assert found.parts["head"] == pytest.approx(2 * 2 * 32 * 8 / 1e6), "only the last token of each needs the head"
    # A token looks at itself and those before, 15 pairs; scores and sums take 2 * 4 * 2 operations for each of 2 heads.
    assert found.parts["attention"] == pytest.approx(2 * 15 * 2 * 16 * 2 / 1e6)
    assert pairs(5) == 15 and found.bound == "compute"


def test_small_weights_are_read_faster_and_multiplied_no_faster() -> None:
    wide, narrow = (decode(TINY, p, device(), kernels="datasheet") for p in ("bf16", "int4"))
    assert wide.parts["layers"] - narrow.parts["layers"] == pytest.approx(WEIGHTS * 1.5 / 1e9)
    assert wide.parts["head"] == narrow.parts["head"], "the head stays in 16 bits"
    wide, narrow, integers = (prefill(TINY, p, SLOW, 50, kernels="datasheet") for p in ("bf16", "int4", "w8a8"))
    assert wide.parts["layers"] == narrow.parts["layers"] == pytest.approx(2 * integers.parts["layers"])


def test_fp8_arithmetic_needs_hardware_that_has_it() -> None:
    for where, faster in (("H100-80GB", True), ("A100-80GB", False)):
        eight, wide = (prefill("Llama-3-8B", p, where, 4096, kernels="datasheet") for p in ("fp8", "bf16"))
        assert (eight.parts["layers"] < 0.6 * wide.parts["layers"]) == faster
    assert prefill("Llama-3-8B", "w8a8", "V100-16GB", 4096).parts["layers"] == pytest.approx(
        prefill("Llama-3-8B", "int8-channel", "V100-16GB", 4096).parts["layers"]
    )


def test_what_a_stack_reaches_divides_what_the_data_sheet_says() -> None:
    full = decode(TINY, "bf16", device(), 4, 10, kernels="datasheet")
    half = decode(TINY, "bf16", device(), 4, 10, kernels=Stack("half", read_16=0.5, cache=0.25))
    assert half.parts["layers"] == pytest.approx(2 * full.parts["layers"])
    assert half.parts["attention"] == pytest.approx(4 * full.parts["attention"])
    full = prefill(TINY, "int4", SLOW, 50, kernels="datasheet")
    unpacking = prefill(TINY, "int4", SLOW, 50, kernels=Stack("slow", matrix_16=0.8, unpack=0.5))
    assert unpacking.parts["layers"] == pytest.approx(full.parts["layers"] / 0.4)
    assert unpacking.parts["head"] == pytest.approx(full.parts["head"] / 0.8), "the head has nothing to unpack"


def test_unpacking_first_writes_the_weight_and_reads_it_again() -> None:
    first = Stack("first", fused_tokens=1)
    assert decode(TINY, "int4", device(), 1, kernels=first) == decode(TINY, "int4", device(), 1, kernels="datasheet")
    two, wide = (decode(TINY, p, device(), 2, kernels=first).parts["layers"] for p in ("int4", "bf16"))
    assert two - wide == pytest.approx(WEIGHTS * (0.5 + 2) / 1e9)
    slow = replace(first, unpack_operations=100.0)
    found = decode(TINY, "int4", device(fp32_cuda_tflops=1e-6), 2, kernels=slow).parts["layers"]
    assert found - wide == pytest.approx(WEIGHTS * 100 / 1e6)
    assert decode(TINY, "int4", device(fp32_cuda_tflops=1e-6), 2, kernels=slow).bound == "compute"
    assert decode(TINY, "int4", device(fp32_cuda_tflops=None), 2, kernels=slow).parts["layers"] == two


def test_overhead_by_hand() -> None:
    plain = decode(TINY, "int4", device(), kernels="datasheet").seconds
    found = decode(TINY, "int4", device(), kernels=Stack("s", layer=3.0, step=5.0))
    assert found.parts["overhead"] == 2 * 3 + 5 and found.bound == "overhead"
    # The host launches 2 layers and 14 products in 2 * 10 + 14 seconds; the device works in the meantime.
    eager = Stack("s", layer=3.0, host_layer=10.0, host_product=1.0)
    assert decode(TINY, "int4", device(), kernels=eager).seconds == pytest.approx(34)
    assert decode(TINY, "int4", device(), kernels=eager, host=0.5).seconds == pytest.approx(17)
    assert decode(TINY, "int4", device(), kernels=eager, host=0.1).seconds == pytest.approx(plain + 6)
    assert decode(TINY, "bf16", device(), kernels=eager).seconds == pytest.approx(20), "no quantized products"


def test_tensor_parallel_by_hand() -> None:
    one, two = (decode(TINY, "bf16", device(), 4, 10, tensor_parallel=n, kernels="datasheet") for n in (1, 2))
    assert two.parts["layers"] == pytest.approx(one.parts["layers"] / 2)
    assert two.parts["head"] == pytest.approx(one.parts["head"] / 2)
    assert two.parts["attention"] == one.parts["attention"], "one KV head: both GPUs hold and read it"
    # Two sums in each of 2 layers; of 4 tokens 8 numbers of 2 bytes, of which half goes out and half comes back.
    moved = 2 * 2 * (2 * 0.5 * 4 * 8 * 2)
    assert two.parts["communication"] == pytest.approx(moved / 300e9), "an A100's NVLink, 300 GB/s in one direction"
    late = decode(TINY, "bf16", device(), 4, 10, tensor_parallel=2, kernels=Stack("s", all_reduce=1.0))
    assert late.parts["communication"] == pytest.approx(4) and late.bound == "communication"


def test_kv_heads_are_shared_out_until_there_is_one_for_each_gpu() -> None:
    for gpus, share in ((1, 1), (2, 1 / 2), (8, 1 / 8), (16, 1 / 8)):
        found = decode(LLAMA, "bf16", "H100-80GB", 8, 4096, tensor_parallel=gpus, kernels="datasheet")
        assert found.parts["attention"] == pytest.approx(share * 8 * 4096 * 327_680 / 3350e9)
    latent = [
        decode("DeepSeek-V3", "fp8", "H200", 8, 4096, tensor_parallel=n, kernels="datasheet").parts["attention"]
        for n in (4, 8)
    ]
    assert latent[0] == latent[1] == pytest.approx(8 * 4096 * 70_272 / 4800e9), "every GPU holds all latent vectors"


def test_a_small_cache_is_read_faster() -> None:
    full, half = (decode(LLAMA, "bf16", "A100-80GB", 8, 4096, kv_bits=bits).parts["attention"] for bits in (16, 8))
    assert full == pytest.approx(2 * half)


def test_eager_attention_reads_the_cache_at_the_width_of_all_heads() -> None:
    once = decode(LLAMA, "bf16", "A100-80GB", 1, 4096, kernels="datasheet").parts["attention"]
    again = decode(LLAMA, "bf16", "A100-80GB", 1, 4096, kernels=Stack("s", expanded=2.0)).parts["attention"]
    assert again == pytest.approx(once * (1 + 2 * 64 / 8))


def test_a_batch_uses_more_experts_than_a_token() -> None:
    model = replace(TINY, experts=Experts(routed=8, active=2, width=16))
    expert = next(m for m in model.matrices() if m.name == "expert up")
    assert touched(expert, 1) == pytest.approx(2 * 2)
    assert touched(expert, 2) == pytest.approx(2 * 8 * (1 - 0.75**2))
    assert touched(expert, 1000) == pytest.approx(2 * 8)
    assert touched(next(iter(model.matrices())), 5) == 2, "attention has no experts"
    mixtral = "Mixtral-8x7B-v0.1"
    assert weight_bytes(mixtral, "bf16") < 0.3 * weight_bytes(mixtral, "bf16", 1000)
    assert weight_bytes(mixtral, "bf16", 1000) == pytest.approx(
        2 * (spec(mixtral).linear_parameters + spec(mixtral).embedding_parameters)
    )


@pytest.mark.parametrize(
    ("precision", "gigabytes", "tokens"), [("bf16", 139.0, 424), ("int8", 70.55, 215), ("int4-g128", 37.40, 114)]
)
def test_bytes_that_a_token_reads_and_the_cache_that_takes_as_long(
    precision: str, gigabytes: float, tokens: int
) -> None:
    assert round(weight_bytes(LLAMA, precision) / 1e9, 2) == gigabytes
    assert round(tokens_like_weights(LLAMA, precision) / 1e3) == tokens


def test_ideal_ratios_and_times_of_the_anchors() -> None:
    wide = weight_bytes(LLAMA, "bf16")
    assert round(wide / weight_bytes(LLAMA, "int8"), 2) == 1.97
    assert round(wide / weight_bytes(LLAMA, "int4-g128"), 2) == 3.72
    for precision, milliseconds in (("bf16", 68.2), ("int8", 34.6), ("int4-g128", 18.3)):  # C053, one A100
        found = decode(LLAMA, precision, "A100-80GB", kernels="datasheet")
        assert 1e3 * found.seconds == pytest.approx(milliseconds, abs=0.06)
    on_t4 = decode(LLAMA, "int4-g128", "T4", tensor_parallel=4, kernels="datasheet")  # C019, weights alone
    assert round(1e3 * (on_t4.parts["layers"] + on_t4.parts["head"])) == 29
    for precision, milliseconds in (("int4-g128", 449), ("w8a8", 225)):  # C055, 1,024 tokens
        layers = prefill(LLAMA, precision, "A100-80GB", 1024, kernels="datasheet").parts["layers"]
        assert round(1e3 * layers) == milliseconds


@pytest.mark.parametrize(
    ("name", "tokens"),
    [("T4", 102), ("A10G", 58), ("A100-80GB", 77), ("L4", 202), ("L40S", 209), ("H100-80GB", 148), ("H200", 103)],
)
def test_batch_from_which_int8_overtakes_4_bit_weights(name: str, tokens: int) -> None:
    assert round(crossover(name, 8)) == tokens


@pytest.mark.parametrize(("name", "tokens"), [("A100-80GB", 39), ("H100-80GB", 76), ("L40S", 108)])
def test_batch_from_which_arithmetic_overtakes_reading_4_bit_weights(name: str, tokens: int) -> None:
    assert round(crossover(name, 4.125)) == tokens


def test_arithmetic_overtakes_reading_16_bit_weights() -> None:
    assert round(crossover("A100-80GB", 16)) == 153 and round(crossover("H100-80GB", 16)) == 295


def test_one_request_without_a_past_is_the_limit() -> None:
    found = decode(LLAMA, "bf16", "A100-80GB", 1, 0)
    assert found.parts["attention"] == found.parts["communication"] == 0
    nearly = decode(LLAMA, "bf16", "A100-80GB", 1, 1e-9)
    assert nearly.seconds == pytest.approx(found.seconds)


@given(
    precision=st.sampled_from(["bf16", "fp8", "w8a8", "w4a8", "int4-g128", "nf4", "nvfp4"]),
    name=st.sampled_from(["Llama-3-8B", "Mixtral-8x7B-v0.1", "DeepSeek-V3", "OPT-6.7B"]),
    where=st.sampled_from(["T4", "A100-80GB", "H100-80GB", "B200"]),
    kernels=st.sampled_from(["vllm", "transformers", "datasheet"]),
    batch=st.integers(1, 300),
    context=st.integers(0, 5000),
    more=st.integers(1, 300),
)
def test_more_work_never_takes_less_time_and_the_parts_make_the_whole(
    precision: str, name: str, where: str, kernels: str, batch: int, context: int, more: int
) -> None:
    options: Any = {"kernels": kernels}
    phases: list[Phase] = [
        decode(name, precision, where, batch, context, **options),
        decode(name, precision, where, batch + more, context, **options),
        decode(name, precision, where, batch + more, context + more, **options),
    ]
    assert phases[0].seconds <= phases[1].seconds * (1 + 1e-12) <= phases[2].seconds * (1 + 1e-12) ** 2
    prompts = [prefill(name, precision, where, n, batch, **options) for n in (more, more + context)]
    assert prompts[0].seconds <= prompts[1].seconds * (1 + 1e-12)
    for phase in (*phases, *prompts):
        assert tuple(phase.parts) == PARTS and tuple(phase.causes) == CAUSES
        assert min(*phase.parts.values(), *phase.causes.values()) >= 0
        assert sum(phase.causes.values()) == pytest.approx(phase.seconds)
        assert phase.causes[phase.bound] == max(phase.causes.values())


def test_a_simulators_step_is_a_decode_or_a_prefill_or_both() -> None:
    step = step_time("Llama-3-8B", "int4-g128", "L40S", kv_bits=8, kernels="tensorrt-llm")
    options: Any = {"kv_bits": 8, "kernels": "tensorrt-llm"}
    decoding = decode("Llama-3-8B", "int4-g128", "L40S", 16, 500, **options).seconds
    reading = prefill("Llama-3-8B", "int4-g128", "L40S", 700, **options).seconds
    assert step(0, 16, 8000) == pytest.approx(decoding)
    assert step(700, 0, 0) == pytest.approx(reading)
    assert max(decoding, reading) < step(700, 16, 8000) < decoding + reading, "both read the weights, together once"
    assert step(700, 0, 8000) > reading, "a later part of a prompt reads what is in the cache of the earlier ones"


def test_the_simulator_takes_the_step() -> None:
    from qlab.deploy.serving.simulation import serve
    from qlab.deploy.serving.traffic import fixed, requests

    step = step_time("Llama-3-8B", "bf16", "H100-80GB")
    served = serve(requests(1e-3, 3, fixed(1000), fixed(20)), step, kv_tokens=100_000)
    alone = step(1000, 0, 0) + sum(step(0, 1, 1000 + i) for i in range(19))
    assert [timing.latency for timing in served.timings] == pytest.approx([alone] * 3, rel=1e-9)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batch": 0}, ValueError, "batch: got 0; it must be 1 or more"),
        ({"batch": "8"}, TypeError, "batch: got '8'; give a number"),
        ({"context": -1}, ValueError, "context: got -1; it must be 0 or more"),
        ({"tensor_parallel": 0}, ValueError, "tensor_parallel: got 0"),
        ({"kv_bits": 0}, ValueError, "kv_bits: got 0"),
        ({"host": 0}, ValueError, "host: got 0; it must be above 0"),
        ({"kernels": "vlm"}, ValueError, "kernels: 'vlm' is not known; did you mean vllm"),
        ({"precision": "w9a9"}, ValueError, "precision: 'w9a9' is not known"),
        ({"gpu_name": "H1000"}, ValueError, "gpu: 'H1000' is not known"),
    ],
)
def test_refused(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    values: dict[str, Any] = {"model": LLAMA, "precision": "bf16", "gpu_name": "A100-80GB"} | arguments
    with pytest.raises(error, match=message):
        decode(**values)


def test_the_answer_loads_nothing_heavy() -> None:
    code = (
        "import sys; from qlab.deploy.speed import phases, validation; validation.validate(); "
        "print(phases.decode('Llama-3-8B', 'fp8', 'L40S').bound); "
        "heavy = {'torch', 'transformers', 'matplotlib', 'numpy', 'scipy', 'pandas'} & set(sys.modules); "
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "memory\n"


def test_the_default_is_a_server() -> None:
    assert decode(TINY, "bf16", "A100-80GB") == decode(TINY, "bf16", "A100-80GB", kernels=stack("server", "A100-80GB"))
