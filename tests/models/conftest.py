"""Tiny random models of several families, whose widths are multiples of a group of 8."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    OPTConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
)

_LLAMA: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "tie_word_embeddings": False,
}
_FAMILIES = {
    "llama": LlamaConfig(**_LLAMA),
    "llama, tied": LlamaConfig(**_LLAMA | {"tie_word_embeddings": True}),
    "llama, biases": LlamaConfig(**_LLAMA, attention_bias=True, mlp_bias=True),
    "mistral": MistralConfig(**_LLAMA),
    "qwen2": Qwen2Config(**_LLAMA),
    "qwen3": Qwen3Config(**_LLAMA, head_dim=16),
    "opt": OPTConfig(
        vocab_size=61,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=64,
        word_embed_proj_dim=16,
    ),
    "gpt2": GPT2Config(vocab_size=61, n_embd=32, n_inner=48, n_layer=3, n_head=4, n_positions=64),
}


@pytest.fixture
def family() -> Callable[..., PreTrainedModel]:
    """family("qwen2") -> a random model with nothing at its initial value, always the same."""

    def make(name: str = "llama", **changes: Any) -> PreTrainedModel:
        config = copy.deepcopy(_FAMILIES[name])
        config.update(changes)
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
        with torch.no_grad():
            for parameter_name, parameter in model.named_parameters():
                if parameter_name.endswith("bias"):  # they start at zero, where a lost one would not show
                    parameter.normal_(std=0.1)
                elif "norm" in parameter_name or "ln_" in parameter_name:
                    parameter.uniform_(0.2, 2.0)
        return model

    return make
