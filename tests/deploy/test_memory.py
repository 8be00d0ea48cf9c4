from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import qlab.deploy
from qlab.deploy import MemoryBreakdown, memory, spec
from qlab.deploy.shapes import ModelSpec

LLAMA = "Llama-3-70B"


@pytest.mark.parametrize(
    ("precision", "weights"),
    [
        ("int4-g128", 39_500_398_592),
        ("int8", 72_656_371_712),
        ("bf16", 141_107_412_992),
        ("fp32", 282_214_825_984),
        ("int4-g128-asym", 39_767_785_472),
        ("int4-g32", 42_709_041_152),
        ("nf4", 42_709_041_152),
    ],
)
def test_weights_of_llama_3_70b(precision: str, weights: int) -> None:
    assert memory(LLAMA, precision).weights == weights


def test_the_function_is_reached_through_the_package() -> None:
    assert qlab.deploy.memory(LLAMA).weights == 39_500_398_592


def test_kv_cache_of_llama_3_70b() -> None:
    breakdown = memory(LLAMA, batch=16, context=4096)
    assert breakdown.kv_per_token == 327_680
    assert breakdown.kv_per_request == 1_342_177_280
    assert breakdown.kv_cache == 21_474_836_480
    assert memory(LLAMA, kv_bits=8).kv_per_token == 163_840
    assert breakdown.total == 39_500_398_592 + 21_474_836_480


def test_latent_attention_keeps_less() -> None:
    assert memory("DeepSeek-V3").kv_per_token == 70_272
    assert memory("DeepSeek-V3", kv_bits=8).kv_per_token == 35_136


def test_a_tied_head_costs_nothing() -> None:
    tied = memory("Qwen2.5-0.5B")
    untied = memory(replace(spec("Qwen2.5-0.5B"), tied_embeddings=False))
    assert tied.head == 0
    assert untied.head == untied.embedding == tied.embedding == 2 * 151_936 * 896


def test_embeddings_at_their_own_precision() -> None:
    breakdown = memory(LLAMA, "int4-g128", embeddings="int8-channel")
    assert breakdown.embedding == breakdown.head == 128_256 * (8192 + 2)
    plain = memory(LLAMA, "int4-g128")
    assert breakdown.scale_overhead - plain.scale_overhead == 2 * 2 * 128_256
    assert (breakdown.attention, breakdown.mlp) == (plain.attention, plain.mlp)


def test_int4_everywhere_without_scales_is_the_popular_35_gb() -> None:
    breakdown = memory(LLAMA, "int4", embeddings="int4")
    assert breakdown.weights == 70_553_706_496 // 2 + 1_318_912 * 3 // 2  # norms stay at 16 bit
    assert breakdown.scale_overhead == 0


def test_fp32_is_fp32_throughout() -> None:
    breakdown = memory("GPT-2", "fp32")
    assert breakdown.weights == 4 * 124_439_808
    assert breakdown.embeddings == "fp32"


@pytest.mark.parametrize(
    ("precision", "bits"), [("int4-g128", 4.125), ("int4-g128-asym", 4.15625), ("bf16", 16), ("int8", 8), ("nf4", 4.5)]
)
def test_bits_per_weight(precision: str, bits: float) -> None:
    assert memory(LLAMA, precision).bits_per_weight == bits


def test_short_last_groups_are_counted() -> None:
    # 576 inputs are four and a half groups of 128, and each row holds five scales.
    breakdown = memory("SmolLM2-135M", "int4-g128")
    assert breakdown.attention == 30 * (2 * 576 + 2 * 192) * (288 + 2 * 5)


specs = st.builds(
    lambda layers, heads, share, head_dim, hidden, inner, vocab, tied, gated, bias: ModelSpec(
        name="made up",
        layers=layers,
        hidden_size=hidden,
        intermediate_size=inner,
        attention_heads=heads * share,
        kv_heads=heads,
        head_dim=head_dim,
        vocab_size=vocab,
        tied_embeddings=tied,
        max_context=10_000,
        source="hypothesis",
        gated_mlp=gated,
        mlp_bias=bias,
    ),
    *[st.integers(1, 4)] * 3,
    *[st.integers(1, 90)] * 4,
    *[st.booleans()] * 3,
)
precisions = st.sampled_from(
    ["bf16", "fp32", "int8", "int3-g32", "int4-g128-asym", "int5-channel", "int4-tensor", "nf4", "nf4-dq"]
)


@given(
    model=specs,
    precision=precisions,
    batch=st.integers(0, 9),
    context=st.integers(1, 999),
    kv_bits=st.sampled_from([4, 8, 16]),
)
def test_the_parts_make_the_whole(model: ModelSpec, precision: str, batch: int, context: int, kv_bits: int) -> None:
    breakdown = memory(model, precision, batch, context, kv_bits)
    document = breakdown.to_dict()
    parts = ("attention", "mlp", "embedding", "head", "norms_and_biases")
    assert sum(document[f"{part}_bytes"] for part in parts) == breakdown.weights
    assert breakdown.total == breakdown.weights + batch * context * breakdown.kv_per_token
    assert 0 <= breakdown.scale_overhead < breakdown.weights
    assert 8 * breakdown.kv_per_token >= model.kv_values_per_token * kv_bits
    assert breakdown.bits_per_parameter <= max(32, breakdown.bits_per_weight)
    if precision in ("bf16", "fp32"):
        assert breakdown.weights == model.parameters * (2 if precision == "bf16" else 4)
    json.dumps(document, allow_nan=False)


@given(
    model=specs,
    precision=precisions,
    batch=st.integers(0, 9),
    context=st.integers(1, 999),
    kv=st.sampled_from([(2, 32), (2, None), (4, 32), (4, None), (8, 32), (8, None), (16, None)]),
)
def test_more_of_anything_never_takes_less(
    model: ModelSpec, precision: str, batch: int, context: int, kv: tuple[int, int | None]
) -> None:
    def bytes_of(**changes: Any) -> tuple[int, int]:
        asked = {"batch": batch, "context": context, "kv_bits": kv[0], "kv_group_size": kv[1], **changes}
        found = memory(model, precision, **asked)
        return found.total, found.peak

    here = bytes_of()
    assert here[0] < here[1]
    for more in ({"batch": batch + 1}, {"context": context + 1}, {"kv_bits": 16, "kv_group_size": None}):
        if more == {"kv_bits": 16, "kv_group_size": None} and kv[1]:
            continue  # small heads pay more for scales than they save
        assert all(there >= now for there, now in zip(bytes_of(**more), here, strict=True))
    # The cache is additive: two batches take what both take, less one set of weights.
    weights = memory(model, precision, batch=0, context=context).total
    assert bytes_of(batch=2 * batch)[0] - weights == 2 * (here[0] - weights)


@pytest.mark.parametrize("gpus", [1, 2, 4, 8, 16])
def test_one_gpu_s_share_is_that_of_the_exercise(gpus: int) -> None:
    from qlab.learn.questions import question
    from qlab.learn.questions.memory.configs import published

    card_share = question("memory.card_share").reference
    expected = card_share(published(LLAMA), gpus, 3 * 2000)
    assert memory(LLAMA, "bf16", batch=3, context=2000, tensor_parallel=gpus).total == expected


@given(
    name=st.sampled_from(["Llama-3-70B", "Qwen2.5-7B", "DeepSeek-V3", "Mixtral-8x7B-v0.1", "GPT-2"]),
    precision=precisions,
    data=st.data(),
)
def test_all_shares_together_hold_the_model_and_the_copies(name: str, precision: str, data: st.DataObject) -> None:
    gpus = data.draw(st.sampled_from(spec(name).splits))
    one, whole = memory(name, precision, tensor_parallel=gpus), memory(name, precision)
    for part in ("attention", "mlp", "embedding", "head", "norms_and_biases", "kv_cache", "total"):
        assert getattr(one, part) <= getattr(whole, part) <= gpus * getattr(one, part)
    assert gpus == 1 or one.total < whole.total


def test_precisions_by_tensor_class() -> None:
    plain = memory(LLAMA, "int4-g128")
    mixed = memory(LLAMA, "int4-g128", attention="int8-channel", embeddings="int4-g32", head="fp8")
    assert mixed.mlp == plain.mlp
    assert mixed.attention == memory(LLAMA, "int8-channel").attention
    assert mixed.embedding == memory(LLAMA, embeddings="int4-g32").embedding
    assert mixed.head == 128_256 * 8192
    assert mixed.norms_and_biases == plain.norms_and_biases
    rows = [line.split("  ")[1] for line in _lines(mixed) if line.startswith("  ")][1:5]
    assert rows == ["attention (int8-channel)", "MLP (int4-g128)", "embedding (int4-g32)", "head (fp8)"]
    parts = mixed.attention + mixed.mlp + mixed.embedding + mixed.head + mixed.norms_and_biases
    assert parts == mixed.weights


def test_a_tied_head_has_no_precision_of_its_own() -> None:
    with pytest.raises(ValueError, match="head: got 'fp8', but Qwen2.5-0.5B shares its embedding"):
        memory("Qwen2.5-0.5B", head="fp8")


def test_what_one_token_reads() -> None:
    assert memory(LLAMA, "bf16").read_per_token == 141_107_412_992 - 2 * 1_050_673_152
    tied = memory("Qwen2.5-0.5B", "bf16")
    assert tied.read_per_token == tied.weights


def test_scales_of_the_cache() -> None:
    # 128 numbers at 2 bits are 32 bytes; four groups of 32 add 16.
    assert memory(LLAMA, kv_bits=2, kv_group_size=32).kv_per_token == 2 * 80 * 8 * (32 + 4 * 4)
    assert "2-bit KV cache in groups of 32" in str(memory(LLAMA, kv_bits=2, kv_group_size=32))


def test_the_table_of_one_of_several_gpus_says_so() -> None:
    assert _lines(memory(LLAMA, tensor_parallel=4))[0].endswith("16-bit KV cache, on each of 4 GPUs")
    assert memory(LLAMA, tensor_parallel=4).bits_per_weight == 4.125


@pytest.mark.parametrize("name", [LLAMA, "SmolLM2-135M"])
def test_decimal_and_binary_columns_are_what_they_say(name: str) -> None:
    header, *rows = _lines(memory(name))[2:14]
    large, small = {"GB": (1e9, 2**30), "MB": (1e6, 2**20)}[header.split()[1]]
    for row in rows:
        size, decimal, binary = row.replace(",", "").split()[-3:]
        if "<" not in decimal + binary:
            assert float(decimal) == pytest.approx(int(size) / large, abs=0.0051)
            assert float(binary) == pytest.approx(int(size) / small, abs=0.0051)


def _lines(breakdown: MemoryBreakdown) -> list[str]:
    return str(breakdown).splitlines()


def test_the_table_is_aligned_and_keeps_units_apart() -> None:
    lines = _lines(memory(LLAMA))
    assert lines[2].split() == ["bytes", "GB", "GiB"]
    rows = lines[2:14]
    assert len({len(row) for row in rows}) == 1
    weights = next(row for row in rows if row.startswith("weights"))
    assert weights.split() == ["weights", "39,500,398,592", "39.50", "36.79"]
    text = "\n".join(lines)
    assert "4.125 bits per weight" in text
    assert "Not included: activations, CUDA context" in text
    assert "made for at most" not in text


def test_a_small_model_is_shown_in_megabytes() -> None:
    assert _lines(memory("SmolLM2-135M"))[2].split() == ["bytes", "MB", "MiB"]


def test_a_context_beyond_the_model_is_refused_with_models_that_can() -> None:
    with pytest.raises(ValueError, match="context: got 8,193; Llama-3-70B was made for at most 8,192.*Llama-3.1-70B"):
        memory(LLAMA, context=8193)


def test_the_usual_context_is_4096_or_what_the_model_can() -> None:
    assert memory(LLAMA).context == 4096
    assert memory("GPT-2").context == spec("GPT-2").max_context == 1024


def test_a_context_beyond_the_model_is_remarked() -> None:
    assert "made for at most 8,192 tokens" in str(memory(LLAMA, context=8193, extended=True))


def test_html_has_the_same_numbers_and_escapes_names() -> None:
    breakdown = memory(replace(spec(LLAMA), name="<b>x</b>"))
    html = breakdown._repr_html_()
    assert "<b>" not in html
    assert "&lt;b&gt;" in html
    for number in re.findall(r"[\d,]{5,}", "\n".join(_lines(breakdown)[2:14])):
        assert number in html


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batch": -1}, ValueError, "batch: got -1; it must be 0 or more"),
        ({"batch": 1.5}, TypeError, "batch: got 1.5"),
        ({"batch": True}, TypeError, "batch: got True"),
        ({"context": 0}, ValueError, "context: got 0; it must be 1 or more"),
        ({"context": "4k"}, TypeError, "context: got '4k'"),
        ({"kv_bits": 3}, ValueError, "kv_bits: got 3; choose from 2, 4, 8, 16, 32"),
        ({"kv_bits": 16.0}, ValueError, "kv_bits: got 16.0"),
        ({"precision": "int4-g"}, ValueError, "precision"),
        ({"embeddings": "int77"}, ValueError, "precision: 'int77'"),
        ({"attention": "int77"}, ValueError, "precision: 'int77'"),
        ({"kv_group_size": 32}, ValueError, "kv_group_size: got 32 at 16 bits"),
        ({"kv_bits": 4, "kv_group_size": 0}, ValueError, "kv_group_size: got 0"),
        ({"tensor_parallel": 3}, ValueError, "tensor_parallel: got 3; Llama-3-70B has 64 query heads and 8 KV heads"),
        ({"tensor_parallel": True}, ValueError, "tensor_parallel: got True"),
        ({"chunk": 0}, ValueError, "chunk: got 0"),
        (
            {"context": 9000, "extended": False},
            ValueError,
            "context: got 9,000; Llama-3-70B was made for at most 8,192 tokens; give no more than that, or take "
            "Llama-3.1-70B",
        ),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=re.escape(message)):
        memory(LLAMA, **arguments)


def test_the_answer_loads_nothing_heavy() -> None:
    code = (
        "import sys, qlab; print(qlab.deploy.memory('Llama-3-70B').weights, qlab.deploy.memory('GPT-2')); "
        "print(qlab.deploy.fits('Llama-3-70B', 'A100-80GB')); "
        "heavy = {'torch', 'transformers', 'matplotlib', 'numpy', 'pydantic', 'pandas'} & set(sys.modules); "
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("39500398592")
