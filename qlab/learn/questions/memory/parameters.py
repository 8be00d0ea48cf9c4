"""memory.parameters: how many numbers a Llama-like model has, from its config."""

from __future__ import annotations

import math
from random import Random
from typing import Any

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .configs import GEMMA_7B, TINY, drawn, published


def parameters(config):
    """Count the parameters of a Llama-like model without biases.

    config: a dict with the fields of config.json: hidden_size, intermediate_size,
        num_hidden_layers, num_attention_heads, num_key_value_heads, head_dim, vocab_size
        (ints) and tie_word_embeddings (a bool).

    Returns the number of parameters, a whole number.
    """
    hidden = config["hidden_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    attention = 2 * hidden * queries + 2 * hidden * keys
    mlp = 3 * hidden * config["intermediate_size"]
    norms = 2 * hidden
    tables = 1 if config["tie_word_embeddings"] else 2
    outside = hidden + tables * config["vocab_size"] * hidden
    return config["num_hidden_layers"] * (attention + mlp + norms) + outside


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    return [
        Case("the example of the card, with a tied head", (TINY,)),
        Case("the example of the card, with a head of its own", (TINY | {"tie_word_embeddings": False},)),
        Case("Llama-3-8B", (published("Llama-3-8B"),)),
        Case("Llama-3-70B", (published("Llama-3-70B"),)),
        Case("Llama-2-7B, where every query head has its own KV head", (published("Llama-2-7B"),)),
        Case("SmolLM2-135M, with a tied head", (published("SmolLM2-135M"),)),
        Case("Gemma-7B, whose heads are wider than hidden_size / heads", (GEMMA_7B,)),
        Case("a small model of odd sizes", (drawn(random, 6, 2),)),
        Case("a small model with a tied head", (drawn(random, 9, 3, tied=True),)),
        Case("a small model with a single KV head", (drawn(random, 8, 1),)),
    ]


def every_parameter_is_counted_once(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.whole_number_is(got, "the count", expected, "parameters")


def _count(config, *, q=None, k=None, v=None, o=None, width=None, mlp=3, norms=2, last=1, tables=None):
    """The right count, but for the parts that are given: widths of the projections, numbers of matrices and norms."""
    hidden, size = config["hidden_size"], config["head_dim"]
    queries, keys = config["num_attention_heads"] * size, config["num_key_value_heads"] * size
    widths = [queries if q is None else q, keys if k is None else k, keys if v is None else v]
    layer = hidden * (sum(widths) + (queries if o is None else o))
    layer += mlp * hidden * (width or config["intermediate_size"]) + norms * hidden
    if tables is None:
        tables = 1 if config["tie_word_embeddings"] else 2
    return config["num_hidden_layers"] * layer + last * hidden + tables * config["vocab_size"] * hidden


@mutant(
    "embedding and head are both counted although the head is tied. With tie_word_embeddings there is one matrix, "
    "which is used twice."
)
def tied_head_counted_twice(config):
    return _count(config, tables=2)


@mutant(
    "the condition is the wrong way round: the head is counted where it is tied, and not where it is a matrix of its "
    "own."
)
def tied_and_untied_swapped(config):
    return _count(config, tables=2 if config["tie_word_embeddings"] else 1)


@mutant("the head is never counted. Without tie_word_embeddings it is a matrix of its own, as large as the embedding.")
def head_forgotten(config):
    return _count(config, tables=1)


@mutant("only the layers and norms are counted. The embedding and the head lie outside the layers.")
def embedding_and_head_forgotten(config):
    return _count(config, tables=0)


@mutant(
    "all four attention projections are hidden x hidden. That was true of plain multi-head attention; k and v have "
    "num_key_value_heads * head_dim rows, and q has num_attention_heads * head_dim."
)
def square_attention(config):
    hidden = config["hidden_size"]
    return _count(config, q=hidden, k=hidden, v=hidden, o=hidden)


@mutant(
    "k and v are right, but q and o are hidden x hidden. One side of both is num_attention_heads * head_dim, which "
    "is not always hidden_size."
)
def square_queries(config):
    return _count(config, q=config["hidden_size"], o=config["hidden_size"])


@mutant("k and v are as wide as q. With grouped-query attention they have one slice per KV head only.")
def keys_as_wide_as_queries(config):
    queries = config["num_attention_heads"] * config["head_dim"]
    return _count(config, k=queries, v=queries)


@mutant(
    "the head size is computed as hidden_size / num_attention_heads. That is only the usual choice: read head_dim, "
    "which is another number in Gemma and Qwen3."
)
def head_size_from_hidden_size(config):
    return _count({**config, "head_dim": config["hidden_size"] // config["num_attention_heads"]})


@mutant("keys and values share one projection here. There are two: k and v.")
def one_projection_for_keys_and_values(config):
    return _count(config, v=0)


@mutant("the output projection of the attention is missing. It takes the heads back to hidden_size.")
def output_projection_forgotten(config):
    return _count(config, o=0)


@mutant("the MLP has two matrices here, as in GPT-2. A gated MLP has three: gate, up and down.")
def gate_forgotten(config):
    return _count(config, mlp=2)


@mutant("the MLP is taken to be four times as wide as hidden_size. Read intermediate_size.")
def mlp_four_times_hidden(config):
    return _count(config, width=4 * config["hidden_size"])


@mutant("the norms are missing. They are few numbers, but this count is exact: two per layer and one at the end.")
def norms_forgotten(config):
    return _count(config, norms=0, last=0)


@mutant("the last norm is missing: the one between the last layer and the head.")
def last_norm_forgotten(config):
    return _count(config, last=0)


@mutant("a layer has one norm here. It has two: one before the attention and one before the MLP.")
def one_norm_per_layer(config):
    return _count(config, norms=1)


@mutant("every norm is counted twice (with a bias?). An RMSNorm is one vector of hidden_size gains and has no bias.")
def norms_counted_twice(config):
    return _count(config, norms=4, last=2)


@mutant("the norms of a layer are counted twice (with a bias?). There are two, with hidden_size numbers each.")
def layer_norms_counted_twice(config):
    return _count(config, norms=4)


@mutant(
    "this is the rule of thumb 12 * layers * hidden^2 plus the embedding. It is made for GPT-2: square attention and "
    "two MLP matrices of four times the width."
)
def rule_of_thumb(config):
    hidden = config["hidden_size"]
    return 12 * config["num_hidden_layers"] * hidden**2 + config["vocab_size"] * hidden


@mutant("the result is in billions. Return the plain count; it can be checked to the last parameter.")
def in_billions(config):
    return _count(config) / 1e9


def list_of_tensors(config):
    """Right, by the list of all tensors, as a checkpoint has them."""
    hidden, mlp, size = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    tensors = {"embed_tokens": (config["vocab_size"], hidden), "norm": (hidden,)}
    if not config["tie_word_embeddings"]:
        tensors["lm_head"] = tensors["embed_tokens"]
    for layer in range(config["num_hidden_layers"]):
        tensors |= {
            f"{layer}.q_proj": (heads * size, hidden),
            f"{layer}.k_proj": (kv_heads * size, hidden),
            f"{layer}.v_proj": (kv_heads * size, hidden),
            f"{layer}.o_proj": (hidden, heads * size),
            f"{layer}.gate_proj": (mlp, hidden),
            f"{layer}.up_proj": (mlp, hidden),
            f"{layer}.down_proj": (hidden, mlp),
            f"{layer}.input_layernorm": (hidden,),
            f"{layer}.post_attention_layernorm": (hidden,),
        }
    return sum(math.prod(shape) for shape in tensors.values())


def other_sides_in_floats(config):
    """Right: every tensor has one side of hidden_size, so the other sides are added up first. The result is a float."""
    heads = config["num_attention_heads"] + config["num_key_value_heads"]
    layer = 2.0 * heads * config["head_dim"] + 3.0 * config["intermediate_size"] + 2.0
    outside = config["vocab_size"] * (2.0 - config["tie_word_embeddings"]) + 1.0
    return config["hidden_size"] * (config["num_hidden_layers"] * layer + outside)


QUESTION = Question(
    id="memory.parameters",
    title="Count the parameters",
    reference=parameters,
    cases=cases,
    properties=(every_parameter_is_counted_once,),
    mutants=(
        tied_head_counted_twice,
        tied_and_untied_swapped,
        head_forgotten,
        embedding_and_head_forgotten,
        square_attention,
        square_queries,
        keys_as_wide_as_queries,
        head_size_from_hidden_size,
        one_projection_for_keys_and_values,
        output_projection_forgotten,
        gate_forgotten,
        mlp_four_times_hidden,
        norms_forgotten,
        last_norm_forgotten,
        one_norm_per_layer,
        norms_counted_twice,
        layer_norms_counted_twice,
        rule_of_thumb,
        in_billions,
    ),
    alternatives=(list_of_tensors, other_sides_in_floats),
    hints=(
        "Write down the tensors of one layer with their shapes before you write code. There are seven matrices and "
        "two norms. What lies outside the layers?",
        "q and o have num_attention_heads * head_dim on one side, k and v num_key_value_heads * head_dim; gate, up "
        "and down have intermediate_size. The other side is always hidden_size. Outside: the embedding, the head "
        "unless it is tied, and one norm.",
        "Let queries = num_attention_heads * head_dim and keys = num_key_value_heads * head_dim. A layer has "
        "hidden_size * (2 * queries + 2 * keys + 3 * intermediate_size + 2) numbers. Multiply by the layers, add "
        "hidden_size for the last norm, and add vocab_size * hidden_size once if the head is tied and twice if not.",
    ),
    explanation=(
        "Every tensor has one side of hidden_size, so a layer is hidden_size times the sum of the other sides. "
        "Three fields catch people: num_key_value_heads makes k and v narrower than q, head_dim is a field of its own "
        "and not hidden_size / heads, and tie_word_embeddings decides whether the head costs anything. The norms are "
        "less than 0.01 % of a 70B model; you count them because an exact count can be compared with the library."
    ),
)
