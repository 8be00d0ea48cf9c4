"""What published rows measured: read as their sources say, or excluded with a reason."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from qlab.deploy.results import Result, result, results
from qlab.deploy.speed.published import MODELS, Excluded, Job, largest_batch, read


def job(id: str) -> Job:
    return read(result(id)).job


@pytest.mark.parametrize(
    ("id", "expected"),
    [
        ("gptfast-int4-Llama-2-7B", {"kernels": "gpt-fast", "batch": 1, "prompt": 5, "only": "decode"}),
        ("qwen25-7b-vllm-30720-AWQ", {"kernels": "vllm", "prompt": 30720, "output": 2048, "only": ""}),
        ("qwen25-7b-hf-GPTQ-Int8", {"kernels": "transformers gptq", "prompt": 1, "gpus": 1}),
        ("qwen25-7b-hf-AWQ", {"kernels": "transformers awq"}),
        ("qwen25-72b-hf-14336-BF16/speed", {"kernels": "transformers", "prompt": 14336, "gpus": 1}),
        ("qwen25-72b-vllm-BF16-4", {"kernels": "vllm", "gpus": 4}),
        ("qwen1-speed-int4-Qwen-14B", {"kernels": "transformers gptq", "output": 2048}),
        ("qserve-L40S-48GB-Llama-2-13B-QServe", {"batch": 75, "prompt": 1024, "output": 512, "kv_bits": 4}),
        ("qserve-A100-80GB-Llama-2-7B-TRT-LLM W4A16", {"kernels": "tensorrt-llm", "kv_bits": 16}),
        ("qserve-A100-80GB-Llama-2-7B-TRT-LLM W8A8", {"kernels": "tensorrt-llm", "kv_bits": 8}),
        ("bnb-T4-Qwen2.5-3B-b8-NF4", {"kernels": "transformers nf4", "batch": 8, "host": "small", "only": "decode"}),
        ("bnb-RTX 4090-Llama-3.1-8B-b1-LLM.int8() with decomposition", {"host": "desktop"}),
        ("bnb-H100 SXM-Llama-3.1-70B-b32-NF4", {"host": "server", "batch": 32}),
        ("sq-pt", {"only": "prefill", "prompt": 256, "kernels": "transformers"}),
        ("sq-dec16", {"only": "decode", "batch": 16, "prompt": 512, "kernels": "tensorrt-llm"}),
        ("trtllm-int8-GPT-J-8", {"batch": 8, "prompt": 1024, "output": 128}),
        ("mo21-FP8-Llama3.1-70B-64", {"batch": 64, "prompt": 2048, "output": 128, "gpus": 1, "kv_bits": 8}),
        ("mo21-raw-Llama3.1-70B-64/bf16", {"batch": 64, "gpus": 2, "kv_bits": 16}),
        ("trtllm-70b-20000/2000/h100", {"prompt": 20000, "output": 2000, "gpus": 2, "kv_bits": 8}),
        ("ao-h100-dec-int8 weight-only", {"batch": 128, "prompt": 32, "output": 2048, "kernels": "vllm torchao int8"}),
        ("gptq-175b", {"kernels": "transformers", "batch": 1}),
    ],
)
def test_the_setting_of_a_row(id: str, expected: dict[str, Any]) -> None:
    found = job(id)
    assert {name: getattr(found, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("id", "model", "precision", "where"),
    [
        ("gptfast-int4-Llama-2-7B", "Llama-2-7B", "int4-g32", "A100-80GB"),
        ("gptfast-int8-Llama-3.1-8B", "Llama-3.1-8B", "int8-channel", "A100-80GB"),
        ("qwen25-7b-vllm-1-GPTQ-Int8", "Qwen2.5-7B", "int8-g128-asym", "A100-80GB"),
        ("qwen25-72b-vllm-AWQ-2", "Qwen2.5-72B", "int4-g128-asym", "A100-80GB"),
        ("qserve-L40S-48GB-Yi-34B-QServe", "Yi-34B", "w4a8", "L40S"),
        ("bnb-H100 SXM-Llama-3.1-8B-b1-INT8 (no outlier decomposition)", "Llama-3.1-8B", "w8a8", "H100-80GB"),
        ("trtllm-70b-128/128/b200", "Llama-3.1-70B", "nvfp4", "B200"),
        ("exl2-Llama-2-70B-2.5", "Llama-2-70B", "exl2-2.5", "RTX-4090"),
        ("tinychat-4090-LLaMA-2-7B", "Llama-2-7B", "int4-g128", "RTX-4090"),
    ],
)
def test_model_precision_and_gpu_of_a_row(id: str, model: str, precision: str, where: str) -> None:
    found = job(id)
    assert (found.model.name, found.precision.name, found.gpu.name) == (model, precision, where)


def test_exl2_weights_take_the_bits_that_the_file_says() -> None:
    for id, bits in (("exl2-Llama-2-70B-2.5", 2.5), ("exl2-Llama-2-7B-4.0", 4.0)):
        assert job(id).precision.weights.bits_per_weight(4096, 4096) == bits


def test_a_ratio_has_its_baseline_and_a_speed_has_none() -> None:
    wide = read(result("mo21-INT4 AWQ-Llama3.1-70B-8")).baseline
    assert wide is not None and (wide.precision.name, wide.gpus, wide.kv_bits) == ("bf16", 2, 16)
    assert wide.batch == 8 and wide.prompt == 2048
    small = read(result("mo21-INT4 AWQ-Llama3.1-8B-8")).baseline
    assert small is not None and small.gpus == 1
    assert read(result("trtllm-70b-128/128/h200")).baseline is None
    for row in results(kind="speed", metric="speedup"):
        try:
            assert read(row).baseline is not None
        except Excluded:
            continue


@pytest.mark.parametrize(
    ("id", "reason"),
    [
        ("llamacpp-tg-Q4_K_M", "does not name its hardware"),
        ("mo11-fp8-Llama3-8B-2", "no lengths"),
        ("kurtic-speed-int8", "without lengths"),
        ("tinychat-orin-LLaMA-3-8B", "Jetson Orin is not in the hardware data"),
        ("qserve-L40S-48GB-Llama-2-70B-TRT-LLM W8A8", "out of memory"),
        ("trtllm-guide", "a statement"),
        ("sq-ft", "two models in one number"),
        ("l32-decode", "phone"),
        ("marlin-kernel", "one matrix product"),
        ("marlin-e2e", "up to"),
    ],
)
def test_excluded_with_the_reason(id: str, reason: str) -> None:
    with pytest.raises(Excluded, match=reason):
        read(result(id))


def test_what_is_filled_in_is_said() -> None:
    for id in ("bnb-T4-Qwen2.5-3B-b8-NF4", "exl2-TinyLlama-1.1B-4.0", "ao-b200-nvfp4-dec", "tinychat-4090-NVILA-2B"):
        assert read(result(id)).filled
    assert not read(result("trtllm-fp8-GPT-J-1")).filled


def test_a_source_that_nobody_reads_and_a_model_without_dimensions_are_excluded() -> None:
    row = result("gptfast-int4-Llama-2-7B")
    with pytest.raises(Excluded, match="no reader for this source"):
        read(replace(row, source="somebody's blog"))
    with pytest.raises(Excluded, match="the dimensions of Llama-9-7B are not in the data"):
        read(replace(row, model="Llama-9-7B"))
    with pytest.raises(Excluded, match="hardware that is not named"):
        read(replace(row, hardware=None))


def test_the_batch_is_what_memory_holds() -> None:
    """L40S, Llama-2-70B in 4 bits: 47.67 GB shown, 92 % less 1.5 less 36.4 of weights, 0.5 GB a request."""
    found = job("qserve-L40S-48GB-Llama-2-70B-TRT-LLM W4A16")
    budget = 0.92 * 44.4 * 2**30 - 1.5e9 - (68_451_041_280 * 4.125 / 8 + 2 * 2 * 32_000 * 8192)
    assert found.batch == budget // (327_680 * 1536)
    assert largest_batch(found, most=3) == 3
    assert largest_batch(replace(found, prompt=10**6)) == 1, "one, even where none fits"
    assert largest_batch(replace(found, gpus=2)) > 2 * found.batch, "two GPUs hold the weights once"


def test_no_row_is_read_by_its_value() -> None:
    for row in results(kind="speed"):
        if isinstance(row.value, int | float):
            changed: Result = replace(row, value=1.0)
            try:
                assert read(changed) == replace(read(row), row=changed)
            except Excluded as reason:
                with pytest.raises(Excluded, match="."):
                    read(row)
                assert str(reason)


def test_more_models_have_the_sizes_that_their_names_say() -> None:
    from qlab.deploy.models import names, read_models

    sizes = {
        "Qwen2.5-1.5B": 1.54, "Qwen2.5-3B": 3.09, "Qwen-1.8B": 1.84, "Qwen-7B": 7.72, "Qwen-14B": 14.17,
        "Qwen1.5-72B": 72.3, "Llama-30B": 32.5, "Yi-34B": 34.4, "GPT-J": 6.05, "BLOOM-176B": 176.2,
    }  # fmt: skip
    found = read_models(MODELS)
    assert {name: round(model.parameters / 1e9, 2) for name, model in found.items()} == pytest.approx(sizes, rel=2e-3)
    assert not set(found) & set(names())
