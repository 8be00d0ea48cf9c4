"""memory.kv_bytes: the size of the KV cache of a batch."""

from __future__ import annotations

from fractions import Fraction
from random import Random
from typing import Any

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .configs import GEMMA_7B, drawn, published

# The model that the card counts by hand.
CARD = {
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 5,
    "hidden_size": 24,
}


def kv_bytes(config, batch, context, bits):
    """Count the bytes of the KV cache.

    config: a dict with num_hidden_layers, num_attention_heads, num_key_value_heads,
        head_dim, hidden_size. Other fields of config.json may be there, too.
    batch: requests.
    context: tokens of each request.
    bits: of one cached number, 16, 8 or 4.

    Returns the bytes, a whole number. Scales of a quantized cache are not counted.
    """
    per_token = 2 * config["num_hidden_layers"] * config["num_key_value_heads"] * config["head_dim"]
    return batch * context * per_token * bits // 8


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    return [
        Case("the example of the card", (CARD, 4, 7, 16)),
        Case("Llama-3-70B, one token", (published("Llama-3-70B"), 1, 1, 16)),
        Case("Llama-3-8B, a batch", (published("Llama-3-8B"), 16, 4096, 16)),
        Case("Llama-3-70B, a cache of 8 bits", (published("Llama-3-70B"), 64, 8192, 8)),
        Case("Llama-2-7B, where every query head has its own KV head", (published("Llama-2-7B"), 3, 4096, 16)),
        Case("Gemma-7B, whose heads are wider than hidden_size / heads", (GEMMA_7B, 2, 8192, 8)),
        Case("a small model, a cache of 4 bits", (drawn(random, 6, 2), random.randrange(2, 9), _tokens(random), 4)),
        Case("a single KV head", (drawn(random, 8, 1), random.randrange(2, 9), _tokens(random), 16)),
        Case("an odd context", (drawn(random, 9, 3), 5, _tokens(random), 8)),
    ]


def _tokens(random: Random) -> int:
    return 2 * random.randrange(50, 5000) + 1


def every_cached_number_is_counted(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.whole_number_is(got, "the cache", expected, "bytes")


def _cache(config, batch, context, bits, *, numbers=2, layers=None, heads=None, size=None):
    """The right size, but for the parts that are given."""
    layers = config["num_hidden_layers"] if layers is None else layers
    heads = config["num_key_value_heads"] if heads is None else heads
    size = config["head_dim"] if size is None else size
    return numbers * layers * heads * size * batch * context * bits // 8


@mutant("only keys or only values are counted. A token leaves one of each in every layer: twice the numbers.")
def only_keys(config, batch, context, bits):
    return _cache(config, batch, context, bits, numbers=1)


@mutant(
    "the query heads are counted. Only keys and values are cached, and there is one pair per KV head: "
    "num_key_value_heads, not num_attention_heads."
)
def query_heads(config, batch, context, bits):
    return _cache(config, batch, context, bits, heads=config["num_attention_heads"])


@mutant(
    "a key is taken to be as wide as hidden_size. It has num_key_value_heads * head_dim numbers, which is less with "
    "grouped-query attention."
)
def hidden_size_cached(config, batch, context, bits):
    return _cache(config, batch, context, bits, heads=1, size=config["hidden_size"])


@mutant("the layers are missing. Every layer has a cache of its own.")
def one_layer(config, batch, context, bits):
    return _cache(config, batch, context, bits, layers=1)


@mutant("head_dim is missing: a key of one head is a vector of head_dim numbers.")
def head_size_forgotten(config, batch, context, bits):
    return _cache(config, batch, context, bits, size=1)


@mutant(
    "the head size is computed as hidden_size / num_attention_heads. Read head_dim; in Gemma and Qwen3 it is another "
    "number."
)
def head_size_from_hidden_size(config, batch, context, bits):
    return _cache(config, batch, context, bits, size=config["hidden_size"] // config["num_attention_heads"])


@mutant("this counts bits. Divide by 8 for bytes.")
def bits_not_divided(config, batch, context, bits):
    return 8 * _cache(config, batch, context, bits)


@mutant("bits // 8 is computed first and is 0 for a cache of 4 bits. Divide at the end.")
def divided_too_early(config, batch, context, bits):
    return _cache(config, batch, context, 8) * (bits // 8)


@mutant("every cached number has 16 bits here, whatever the argument bits says.")
def sixteen_bits_always(config, batch, context, bits):
    return _cache(config, batch, context, 16)


@mutant("every cached number has 4 bytes here, as float32. The argument bits says how many bits it has.")
def float32_always(config, batch, context, bits):
    return _cache(config, batch, context, 32)


@mutant("the batch is missing. Every request has its own cache.")
def one_request(config, batch, context, bits):
    return _cache(config, 1, context, bits)


@mutant("the context is missing: this is the cache of one token per request.")
def one_token(config, batch, context, bits):
    return _cache(config, batch, 1, bits)


@mutant(
    "the KV heads are taken to be num_attention_heads / num_key_value_heads. That quotient is how many query heads "
    "share one KV head."
)
def group_size_for_heads(config, batch, context, bits):
    heads = config["num_attention_heads"] // config["num_key_value_heads"]
    return _cache(config, batch, context, bits, heads=heads)


@mutant("the result is in MiB, 2**20 bytes each. Return bytes.")
def in_mebibytes(config, batch, context, bits):
    return _cache(config, batch, context, bits) / 2**20


@mutant("the result is in MB. Return bytes.")
def in_megabytes(config, batch, context, bits):
    return _cache(config, batch, context, bits) / 1e6


@mutant("the result is in GB. Return bytes.")
def in_gigabytes(config, batch, context, bits):
    return _cache(config, batch, context, bits) / 1e9


def tensor_by_tensor(config, batch, context, bits):
    """Right, by the shapes of the tensors that a layer keeps: (batch, KV heads, context, head size)."""
    shape = (batch, config["num_key_value_heads"], context, config["head_dim"])
    total = 0.0
    for _layer in range(config["num_hidden_layers"]):
        for _tensor in ("keys", "values"):
            numbers = 1
            for side in shape:
                numbers *= side
            total += numbers * bits / 8
    return total


def share_of_the_queries(config, batch, context, bits):
    """Right, from the size that plain multi-head attention would have, as an exact fraction of it."""
    all_heads = 2 * config["num_hidden_layers"] * config["num_attention_heads"] * config["head_dim"]
    share = Fraction(config["num_key_value_heads"], config["num_attention_heads"])
    return int(all_heads * share * Fraction(bits, 8)) * (batch * context)


QUESTION = Question(
    id="memory.kv_bytes",
    title="The KV cache",
    reference=kv_bytes,
    cases=cases,
    properties=(every_cached_number_is_counted,),
    mutants=(
        only_keys,
        query_heads,
        hidden_size_cached,
        one_layer,
        head_size_forgotten,
        head_size_from_hidden_size,
        bits_not_divided,
        divided_too_early,
        sixteen_bits_always,
        float32_always,
        one_request,
        one_token,
        group_size_for_heads,
        in_mebibytes,
        in_megabytes,
        in_gigabytes,
    ),
    alternatives=(tensor_by_tensor, share_of_the_queries),
    hints=(
        "What does one token leave behind in one layer? Count these numbers first.",
        "One key and one value for each KV head, each of head_dim numbers; and that in every layer. "
        "Then multiply by all tokens that are held, and turn bits into bytes last.",
        "batch * context * 2 * num_hidden_layers * num_key_value_heads * head_dim * bits // 8.",
    ),
    explanation=(
        "The factor 2 stands for a key and a value, not for 2 bytes: people who merge the two factors count half of an "
        "8-bit cache. The number of parameters does not appear: Llama-2-7B, with 32 KV heads in 32 layers, keeps "
        "524,288 bytes per token at 16 bits, and Llama-3-70B, with 8 in 80, only 327,680."
    ),
)
