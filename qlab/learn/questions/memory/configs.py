"""Configs for the cases, named as in a Hugging Face config.json: published models, and small ones of odd sizes."""

from __future__ import annotations

from random import Random
from typing import Any

from ....deploy import spec


def published(name: str) -> dict[str, Any]:
    """The config of a model that `qlab.deploy` knows by name."""
    model = spec(name)
    return {
        "hidden_size": model.hidden_size,
        "intermediate_size": model.intermediate_size,
        "num_hidden_layers": model.layers,
        "num_attention_heads": model.attention_heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_dim,
        "vocab_size": model.vocab_size,
        "tie_word_embeddings": model.tied_embeddings,
    }


def drawn(random: Random, heads: int, kv_heads: int, tied: bool = False) -> dict[str, Any]:
    """A small config whose other sizes are drawn; as in Qwen3, the heads together are wider than the hidden size."""
    hidden = random.randrange(11 * heads, 15 * heads)
    return {
        "hidden_size": hidden,
        "intermediate_size": random.randrange(2 * hidden, 4 * hidden) + 1,
        "num_hidden_layers": random.randrange(3, 12),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 2 * random.randrange(8, 40),
        "vocab_size": random.randrange(500, 4000),
        "tie_word_embeddings": tied,
    }


# The model that the cards of questions 1 and 6 count by hand.
TINY = {
    "hidden_size": 8,
    "intermediate_size": 20,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 3,
    "vocab_size": 50,
    "tie_word_embeddings": True,
}

# Not in the data file: the first Gemma, with heads that are wider than hidden_size / num_attention_heads.
GEMMA_7B = {
    "hidden_size": 3072,
    "intermediate_size": 24576,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "head_dim": 256,
    "vocab_size": 256000,
    "tie_word_embeddings": True,
}
