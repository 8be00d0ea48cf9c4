"""Read a model's dimensions out of a Hugging Face config: the same facts under six sets of names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from .shapes import Experts, LatentAttention, ModelSpec


class _Fields:
    """A config whose missing fields are reported by name."""

    def __init__(self, config: Mapping[str, Any], source: str) -> None:
        self.config = config
        self.source = source

    def need(self, field: str) -> Any:
        value = self.config.get(field)
        if value is None:
            raise ValueError(
                f"config: {self.source} has no field {field!r}, which a {self.config['model_type']} model needs"
            )
        return value

    def get(self, field: str, default: Any) -> Any:
        """The field, or `default` where it is absent or null."""
        value = self.config.get(field)
        return default if value is None else value

    def size(self, field: str) -> int:
        value = self.need(field)
        if type(value) is not int or value <= 0:
            raise ValueError(f"config: {field} in {self.source} is {value!r}; it must be a positive whole number")
        return value


def from_config(config: Mapping[str, Any], source: str = "config", name: str | None = None) -> ModelSpec:
    """The dimensions of the model that a Hugging Face config describes.

    A quantization config inside is ignored: it speaks of how the weights are stored, not of how many there are.

    Args:
        config: the fields of a `config.json`.
        source: what to call it in messages.
        name: the model's name; default: the config's `_name_or_path`, else its model type.

    Raises:
        ValueError: the architecture is not known here, or a field is missing or senseless.
    """
    kind = config.get("model_type")
    if kind is None:
        raise ValueError(
            f"config: {source} has no field 'model_type'; it is not the config.json of a Hugging Face model"
        )
    if not isinstance(kind, str) or kind not in _READERS:
        raise ValueError(f"config: {source} is of type {kind!r}; known types are {', '.join(sorted(_READERS))}")
    dimensions = _READERS[kind](_Fields(config, source))
    return ModelSpec(name=name or config.get("_name_or_path") or kind, source=source, **dimensions)


def _llama(fields: _Fields) -> dict[str, Any]:
    """Llama and its relatives: rotary positions, RMSNorm, gated MLP, no biases unless the config asks for them."""
    heads, hidden = fields.size("num_attention_heads"), fields.size("hidden_size")
    bias = bool(fields.get("attention_bias", False))
    return {
        "layers": fields.size("num_hidden_layers"),
        "hidden_size": hidden,
        "intermediate_size": fields.size("intermediate_size"),
        "attention_heads": heads,
        "kv_heads": fields.get("num_key_value_heads", heads),
        "head_dim": fields.get("head_dim", hidden // heads),
        "vocab_size": fields.size("vocab_size"),
        "tied_embeddings": fields.get("tie_word_embeddings", False),
        "max_context": fields.size("max_position_embeddings"),
        "qkv_bias": bias,
        "o_bias": bias,
        "mlp_bias": bool(fields.get("mlp_bias", False)),
    }


def _sharing_heads(fields: _Fields) -> dict[str, Any]:
    """A relative of Llama without bias fields.

    The number of KV heads has to be there: transformers would put in a number of its own, not that of the heads.
    An explicit null still means one per head.
    """
    if "num_key_value_heads" not in fields.config:
        fields.need("num_key_value_heads")
    return {**_llama(fields), "qkv_bias": False, "o_bias": False, "mlp_bias": False}


def _mixtral(fields: _Fields) -> dict[str, Any]:
    experts = Experts(
        routed=fields.size("num_local_experts"),
        active=fields.size("num_experts_per_tok"),
        width=fields.size("intermediate_size"),
    )
    return {**_sharing_heads(fields), "experts": experts}


def _qwen2(fields: _Fields) -> dict[str, Any]:
    # The biases of q, k and v are part of the architecture; no field mentions them.
    return {**_sharing_heads(fields), "qkv_bias": True}


def _qwen3(fields: _Fields) -> dict[str, Any]:
    bias = bool(fields.get("attention_bias", False))
    shared = {"qkv_bias": bias, "o_bias": bias, "qk_norm": True}
    return {**_sharing_heads(fields), **shared, "head_dim": fields.get("head_dim", 128)}


def _qwen3_moe(fields: _Fields) -> dict[str, Any]:
    if fields.get("mlp_only_layers", []) or fields.get("decoder_sparse_step", 1) != 1:
        raise ValueError(
            f"config: mlp_only_layers and decoder_sparse_step in {fields.source}: only experts in every layer are known"
        )
    # Published files say num_experts; transformers 5 writes the same number as num_local_experts.
    routed = "num_local_experts" if "num_local_experts" in fields.config else "num_experts"
    experts = Experts(
        routed=fields.size(routed),
        active=fields.size("num_experts_per_tok"),
        width=fields.size("moe_intermediate_size"),
    )
    hidden, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    head_dim = fields.get("head_dim", hidden // heads)
    return {**_qwen3(fields), "head_dim": head_dim, "experts": experts}


def _deepseek_v3(fields: _Fields) -> dict[str, Any]:
    if fields.get("attention_bias", False):
        raise ValueError(
            f"config: attention_bias in {fields.source} is true; only latent attention without biases is known"
        )
    latent = LatentAttention(
        q_lora_rank=fields.get("q_lora_rank", None),
        kv_lora_rank=fields.size("kv_lora_rank"),
        qk_nope_head_dim=fields.size("qk_nope_head_dim"),
        qk_rope_head_dim=fields.size("qk_rope_head_dim"),
        v_head_dim=fields.size("v_head_dim"),
    )
    experts = Experts(
        routed=fields.size("n_routed_experts"),
        active=fields.size("num_experts_per_tok"),
        width=fields.size("moe_intermediate_size"),
        shared=fields.get("n_shared_experts", 0),
        dense_layers=fields.get("first_k_dense_replace", 0),
        router_bias=True,
    )
    head_dim = latent.qk_nope_head_dim + latent.qk_rope_head_dim
    heads = fields.size("num_attention_heads")
    return {**_llama(fields), "kv_heads": heads, "head_dim": head_dim, "latent": latent, "experts": experts}


def _gpt2(fields: _Fields) -> dict[str, Any]:
    hidden, heads, positions = fields.size("n_embd"), fields.size("n_head"), fields.size("n_positions")
    return {
        "layers": fields.size("n_layer"),
        "hidden_size": hidden,
        "intermediate_size": fields.get("n_inner", 4 * hidden),
        "attention_heads": heads,
        "kv_heads": heads,
        "head_dim": hidden // heads,
        "vocab_size": fields.size("vocab_size"),
        "tied_embeddings": fields.get("tie_word_embeddings", True),
        "max_context": positions,
        "learned_positions": positions,
        **_WITH_BIASES,
    }


def _opt(fields: _Fields) -> dict[str, Any]:
    hidden, heads = fields.size("hidden_size"), fields.size("num_attention_heads")
    positions = fields.size("max_position_embeddings")
    bias = bool(fields.get("enable_bias", True))
    return {
        **_WITH_BIASES,
        "layers": fields.size("num_hidden_layers"),
        "hidden_size": hidden,
        "intermediate_size": fields.size("ffn_dim"),
        "attention_heads": heads,
        "kv_heads": heads,
        "head_dim": hidden // heads,
        "vocab_size": fields.size("vocab_size"),
        "tied_embeddings": fields.get("tie_word_embeddings", True),
        "max_context": positions,
        "learned_positions": positions + 2,  # OPT's position table starts with two rows that no token uses
        "qkv_bias": bias,
        "o_bias": bias,
        "mlp_bias": bias,
        "norm_vectors": 2 if fields.get("layer_norm_elementwise_affine", True) else 0,
        "final_norm": bool(fields.get("do_layer_norm_before", True))
        and not fields.get("_remove_final_layer_norm", False),
        "embedding_size": fields.get("word_embed_proj_dim", hidden),
    }


_WITH_BIASES = {"gated_mlp": False, "qkv_bias": True, "o_bias": True, "mlp_bias": True, "norm_vectors": 2}

_READERS: dict[str, Callable[[_Fields], dict[str, Any]]] = {
    "deepseek_v3": _deepseek_v3,
    "gpt2": _gpt2,
    "llama": _llama,
    "mistral": _sharing_heads,
    "mixtral": _mixtral,
    "opt": _opt,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "qwen3_moe": _qwen3_moe,
}
