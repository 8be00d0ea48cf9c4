from __future__ import annotations

from typing import Any

import pytest

from qlab.deploy import spec
from qlab.deploy.config import from_config

SHARED = {
    "vocab_size": 320,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 48,
}
GROUPED = {**SHARED, "num_key_value_heads": 2}
DEEPSEEK = {
    **SHARED,
    "num_key_value_heads": 4,
    "moe_intermediate_size": 16,
    "n_routed_experts": 8,
    "n_shared_experts": 2,
    "num_experts_per_tok": 2,
    "first_k_dense_replace": 1,
    "n_group": 2,
    "topk_group": 1,
    "kv_lora_rank": 24,
    "q_lora_rank": 40,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
}
OPT = {
    "vocab_size": 320,
    "hidden_size": 64,
    "ffn_dim": 160,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 48,
}
GPT2 = {"vocab_size": 320, "n_embd": 64, "n_layer": 3, "n_head": 4, "n_positions": 48}
QWEN3_MOE = {**GROUPED, "num_experts": 6, "num_experts_per_tok": 2, "moe_intermediate_size": 24}

CASES: list[tuple[str, dict[str, Any]]] = [
    ("llama", SHARED),
    ("llama", {**GROUPED, "head_dim": 24, "tie_word_embeddings": True}),
    ("llama", {**GROUPED, "attention_bias": True, "mlp_bias": True}),
    ("mistral", GROUPED),
    ("mixtral", {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}),
    ("qwen2", GROUPED),
    ("qwen2", {**GROUPED, "tie_word_embeddings": True}),
    ("qwen3", {**GROUPED, "head_dim": 32}),
    ("qwen3", {**GROUPED, "head_dim": 16, "attention_bias": True}),
    ("qwen3_moe", {**QWEN3_MOE, "head_dim": 32}),
    ("gpt2", GPT2),
    ("gpt2", {**GPT2, "n_inner": 100}),
    ("opt", OPT),
    ("opt", {**OPT, "word_embed_proj_dim": 32, "do_layer_norm_before": False}),
    ("opt", {**OPT, "enable_bias": False, "layer_norm_elementwise_affine": False, "tie_word_embeddings": False}),
    ("deepseek_v3", DEEPSEEK),
    ("deepseek_v3", {**DEEPSEEK, "q_lora_rank": None}),
]


@pytest.mark.parametrize(("kind", "fields"), CASES, ids=[f"{kind}-{number}" for number, (kind, _) in enumerate(CASES)])
def test_counts_equal_those_of_the_real_model(kind: str, fields: dict[str, Any]) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **fields)
    with torch.device("meta"):
        real = AutoModelForCausalLM.from_config(config)
    corrections = sum(b.numel() for name, b in real.named_buffers() if name.endswith("e_score_correction_bias"))
    model = spec(config)
    assert model.parameters == sum(p.numel() for p in real.parameters()) + corrections
    assert model.embedding_parameters == real.get_input_embeddings().weight.numel()
    assert model.head_parameters == (0 if config.tie_word_embeddings else real.get_output_embeddings().weight.numel())
    norms_and_biases = sum(p.numel() for p in real.parameters() if p.dim() == 1) + corrections
    assert model.norm_and_bias_parameters == norms_and_biases


@pytest.mark.parametrize(
    ("kind", "fields"), [("llama", GROUPED), ("qwen3", {**GROUPED, "head_dim": 32}), ("gpt2", GPT2)]
)
def test_kv_cache_equals_what_the_real_model_keeps(kind: str, fields: dict[str, Any]) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(kind, **fields)
    real = AutoModelForCausalLM.from_config(config).eval()
    tokens = 7
    with torch.no_grad():
        cache = real(torch.zeros(1, tokens, dtype=torch.long), use_cache=True).past_key_values
    held = sum(layer.keys.numel() + layer.values.numel() for layer in cache.layers)
    assert held == tokens * spec(config).kv_values_per_token


def test_a_plain_dict_reads_like_the_config_object() -> None:
    assert (
        from_config({"model_type": "llama", **GROUPED}).parameters
        == spec({"model_type": "llama", **GROUPED}).parameters
    )


def test_absent_and_null_fields_take_the_architecture_s_defaults() -> None:
    assert from_config({"model_type": "llama", **SHARED}).kv_heads == 4
    assert from_config({"model_type": "mistral", **SHARED, "num_key_value_heads": None}).kv_heads == 4
    assert from_config({"model_type": "qwen3", **GROUPED}).head_dim == 128
    assert from_config({"model_type": "qwen3_moe", **QWEN3_MOE}).head_dim == 16
    assert from_config({"model_type": "qwen3_moe", **QWEN3_MOE}).experts is not None
    assert from_config({"model_type": "gpt2", **GPT2, "n_inner": None}).intermediate_size == 256
    assert from_config({"model_type": "gpt2", **GPT2}).tied_embeddings
    assert not from_config({"model_type": "llama", **SHARED}).tied_embeddings


def test_a_quantization_config_changes_no_count() -> None:
    plain = from_config({"model_type": "qwen2", **GROUPED})
    stored = from_config({"model_type": "qwen2", **GROUPED, "quantization_config": {"quant_method": "gptq", "bits": 4}})
    assert plain == stored


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "no field 'model_type'"),
        ({"model_type": "mamba"}, "of type 'mamba'; known types are .*llama"),
        ({"model_type": ["llama"]}, "of type"),
        ({"model_type": "mistral", **SHARED}, "no field 'num_key_value_heads'"),
        ({"model_type": "llama", **SHARED, "hidden_size": "64"}, "hidden_size in config is '64'"),
        ({"model_type": "llama", **SHARED, "num_attention_heads": 0}, "num_attention_heads in config is 0"),
        ({"model_type": "llama", **SHARED, "num_key_value_heads": 3}, "kv_heads: llama has 3"),
        ({"model_type": "llama", **SHARED, "tie_word_embeddings": 1}, "tied_embeddings: llama has 1"),
        ({"model_type": "qwen3_moe", **QWEN3_MOE, "mlp_only_layers": [0]}, "mlp_only_layers"),
        ({"model_type": "deepseek_v3", **DEEPSEEK, "attention_bias": True}, "attention_bias"),
    ],
)
def test_bad_configs_name_what_is_wrong(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        from_config(config)


@pytest.mark.parametrize(
    ("kind", "fields", "needed"),
    [
        ("llama", SHARED, set(SHARED)),
        ("qwen3", GROUPED, set(GROUPED)),
        ("mixtral", {**GROUPED, "num_local_experts": 4, "num_experts_per_tok": 2}, {"num_local_experts"}),
        ("gpt2", GPT2, set(GPT2)),
        ("opt", OPT, set(OPT)),
        ("deepseek_v3", DEEPSEEK, {"kv_lora_rank", "qk_rope_head_dim", "n_routed_experts"}),
    ],
)
def test_each_missing_field_is_named(kind: str, fields: dict[str, Any], needed: set[str]) -> None:
    for field in needed:
        config = {"model_type": kind, **{name: value for name, value in fields.items() if name != field}}
        with pytest.raises(ValueError, match=f"no field '{field}'"):
            from_config(config)
