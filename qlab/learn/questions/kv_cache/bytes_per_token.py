"""kv_cache.bytes_per_token: what a quantized KV cache takes, with scales, minima and the window counted."""

from __future__ import annotations

import math
from fractions import Fraction
from random import Random
from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant

_RTOL = 1e-9
# A model that is counted by hand, and published ones (config.json of each).
SMALL = {
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "hidden_size": 60,
}
LLAMA_3_70B = {
    "num_hidden_layers": 80,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_size": 8192,
}
LLAMA_2_7B = {
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "head_dim": 128,
    "hidden_size": 4096,
}
QWEN3_32B = {
    "num_hidden_layers": 64,
    "num_attention_heads": 64,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "hidden_size": 5120,
}


def bytes_per_token(config, context, key_bits, value_bits, group_size, residual):
    """Count what a quantized KV cache takes for each token of one request.

    config: a dict with num_hidden_layers, num_attention_heads, num_key_value_heads,
        head_dim, hidden_size.
    context: tokens that are held, at least 1.
    key_bits, value_bits: 2 to 8.
    group_size: numbers that share a scale and a minimum, of 2 bytes each. It divides
        head_dim. The codes of a group take a whole number of bytes.
    residual: the newest tokens, which stay in 16 bits.

    Keys are grouped per channel, along the tokens: of those behind the window only full
    groups are quantized, and the rest stays in 16 bits, too. Values are grouped per token,
    along the channels: every token behind the window is quantized.

    Returns all bytes that are held for this request, in all layers, divided by context.
    """
    behind = max(0, context - residual)
    held = 0  # bytes of one head in one layer
    for bits, quantized in ((key_bits, behind // group_size * group_size), (value_bits, behind)):
        groups = quantized * config["head_dim"] // group_size
        held += groups * (math.ceil(group_size * bits / 8) + 2 + 2)
        held += (context - quantized) * config["head_dim"] * 2
    return held * config["num_hidden_layers"] * config["num_key_value_heads"] / context


def cases(seed: int) -> list[Case]:
    random = Random(seed)

    def drawn(kv_heads: int) -> dict[str, int]:
        head_dim = 16 * random.randrange(2, 7)
        return {
            "num_hidden_layers": random.randrange(2, 40),
            "num_attention_heads": 4 * kv_heads,
            "num_key_value_heads": kv_heads,
            "head_dim": head_dim,
            "hidden_size": 4 * kv_heads * head_dim + 32,
        }

    def tokens(low: int, high: int) -> int:
        return random.randrange(low, high)

    return [
        Case("the example of the card", (SMALL, 11, 4, 4, 4, 2)),
        Case("Llama-3-70B, 131,072 tokens, 4 bits", (LLAMA_3_70B, 131072, 4, 4, 32, 32)),
        Case("Llama-3-70B, keys in 4 bits and values in 2", (LLAMA_3_70B, 32768, 4, 2, 32, 128)),
        Case("Llama-2-7B, where every query head has its own KV head", (LLAMA_2_7B, 4096, 2, 2, 32, 128)),
        Case("Qwen3-32B, whose heads are wider than hidden_size / heads", (QWEN3_32B, 8192, 8, 8, 128, 32)),
        Case("a context that ends inside a group", (drawn(4), 32 * tokens(8, 20) + tokens(1, 31), 4, 4, 16, 32)),
        Case("a short context", (drawn(2), tokens(150, 199), 8, 3, 16, 100)),
        Case("fewer tokens than the window", (drawn(2), tokens(5, 60), 4, 4, 16, 64)),
        Case("one token more than the window", (drawn(2), 65, 4, 4, 8, 64)),
        Case("no window", (drawn(3), 16 * tokens(10, 30) + 5, 4, 8, 16, 0)),
        Case("codes that do not fill a byte", (SMALL, tokens(60, 90), 3, 5, 4, 8)),
        Case("groups of one number", (SMALL, tokens(60, 90), 3, 2, 1, 4)),
        Case("groups of a whole head, one KV head", (drawn(1) | {"head_dim": 64}, tokens(900, 1000), 2, 4, 64, 32)),
        Case("a single token, no window", (SMALL, 1, 4, 4, 4, 0)),
    ]


def every_byte_is_counted(case: Case, got: Any, expected: Any) -> Finding | None:
    """A tensor in float32, which torch.tensor(...) makes, holds no more digits than it does."""
    is_float32 = isinstance(got, torch.Tensor) and got.dtype == torch.float32
    return p.number_near(got, "bytes per token", expected, torch.finfo(torch.float32).eps if is_float32 else _RTOL)


def _count(
    config: Any,
    context: int,
    bits: tuple[int, int],
    group_size: int,
    residual: int,
    *,
    heads: Any = None,
    head_dim: Any = None,
    behind: Any = None,
    quantized: Any = None,
    codes: Any = None,
    constants: float = 4,
    window: float = 2,
    sides: int = 2,
) -> float:
    """The right number, but for the parts that are given; `quantized` are tokens of keys and of values."""
    heads = config["num_key_value_heads"] if heads is None else heads
    head_dim = config["head_dim"] if head_dim is None else head_dim
    behind = max(0, context - residual) if behind is None else behind
    held = 0.0
    for side_bits, done in list(zip(bits, quantized or (behind // group_size * group_size, behind), strict=True))[
        :sides
    ]:
        packed = math.ceil(group_size * side_bits / 8) if codes is None else codes(side_bits)
        held += done * head_dim / group_size * (packed + constants) + (context - done) * head_dim * window
    return held * config["num_hidden_layers"] * heads / context


@mutant("scales and minima are not counted: 4 bytes for each group, which is 1 bit per number in groups of 32.")
def codes_only(config, context, key_bits, value_bits, group_size, residual):
    return _count(config, context, (key_bits, value_bits), group_size, residual, constants=0)


@mutant("the minima are not counted. A group has a scale and a minimum, 2 bytes each.")
def minima_forgotten(config, context, key_bits, value_bits, group_size, residual):
    return _count(config, context, (key_bits, value_bits), group_size, residual, constants=2)


@mutant("scales and minima are counted with 4 bytes each. They have 16 bits here.")
def constants_in_32_bits(config, context, key_bits, value_bits, group_size, residual):
    return _count(config, context, (key_bits, value_bits), group_size, residual, constants=8)


@mutant("the minimum of a group is counted as a code, like a zero-point of weights. It is a number of 2 bytes.")
def packed_zero_points(config, context, key_bits, value_bits, group_size, residual):
    def codes(bits):
        return math.ceil(group_size * bits / 8) + bits / 8

    return _count(config, context, (key_bits, value_bits), group_size, residual, codes=codes, constants=2)


@mutant("every number has scale and minimum of its own here. group_size numbers share them.")
def constants_for_every_number(config, context, key_bits, value_bits, group_size, residual):
    return _count(config, context, (key_bits, value_bits), group_size, residual, constants=4 * group_size)


@mutant("the window is not counted. Its tokens are held as well, with 2 bytes for each number.")
def window_forgotten(config, context, key_bits, value_bits, group_size, residual):
    return _count(config, context, (key_bits, value_bits), group_size, residual, window=0)


@mutant("the window is counted with one byte for each number. It stays in 16 bits.")
def window_in_8_bits(config, context, key_bits, value_bits, group_size, residual):
    return _count(config, context, (key_bits, value_bits), group_size, residual, window=1)


@mutant(
    "all tokens are counted as quantized, the window among them. It costs: with a short context it is most of "
    "the cache."
)
def everything_quantized(config, context, key_bits, value_bits, group_size, residual):
    return _count(config, context, (key_bits, value_bits), group_size, residual, quantized=(context, context))


@mutant(
    "the window is not there: keys wait for full groups, and everything else is counted as quantized. The newest "
    "residual tokens stay in 16 bits, too."
)
def window_ignored(config, context, key_bits, value_bits, group_size, residual):
    return bytes_per_token(config, context, key_bits, value_bits, group_size, 0)


@mutant("the window is counted twice: in 16 bits, and once more as quantized tokens.")
def window_counted_twice(config, context, key_bits, value_bits, group_size, residual):
    right = _count(config, context, (key_bits, value_bits), group_size, residual)
    alone = _count(config, context, (key_bits, value_bits), group_size, residual, window=0)
    return right - alone + _count(config, context, (key_bits, value_bits), group_size, 0, quantized=(context, context))


@mutant("residual is not held against context: with fewer tokens than the window, a negative number is quantized.")
def negative_counts(config, context, key_bits, value_bits, group_size, residual):
    return _count(config, context, (key_bits, value_bits), group_size, residual, behind=context - residual)


@mutant(
    "the keys are counted like the values, every token behind the window. A group of keys is group_size tokens of one "
    "channel, and until it is full they stay in 16 bits."
)
def keys_like_values(config, context, key_bits, value_bits, group_size, residual):
    behind = max(0, context - residual)
    return _count(config, context, (key_bits, value_bits), group_size, residual, quantized=(behind, behind))


@mutant(
    "the values are counted like the keys, in full groups of tokens. A group of values lies within one token, so every "
    "token behind the window is quantized."
)
def values_like_keys(config, context, key_bits, value_bits, group_size, residual):
    full = max(0, context - residual) // group_size * group_size
    return _count(config, context, (key_bits, value_bits), group_size, residual, quantized=(full, full))


@mutant("a group of keys that is not full is counted as a whole one: the number of groups is rounded up. Round down.")
def groups_rounded_up(config, context, key_bits, value_bits, group_size, residual):
    behind = max(0, context - residual)
    full = min(-(-behind // group_size) * group_size, context)
    return _count(config, context, (key_bits, value_bits), group_size, residual, quantized=(full, behind))


@mutant("the codes of a group are counted in fractions of a byte. They take a whole number of bytes: round up.")
def fractions_of_bytes(config, context, key_bits, value_bits, group_size, residual):
    bits = (key_bits, value_bits)
    return _count(config, context, bits, group_size, residual, codes=lambda b: group_size * b / 8)


@mutant("the bytes of the codes are rounded down: group_size * bits // 8. Some bits would have no place; round up.")
def bytes_rounded_down(config, context, key_bits, value_bits, group_size, residual):
    bits = (key_bits, value_bits)
    return _count(config, context, bits, group_size, residual, codes=lambda b: group_size * b // 8)


@mutant("every code takes a byte here. Codes of fewer bits are packed.")
def codes_not_packed(config, context, key_bits, value_bits, group_size, residual):
    return _count(config, context, (key_bits, value_bits), group_size, residual, codes=lambda b: group_size)


@mutant(
    "the query heads are counted. Only keys and values are cached, and there is one pair per KV head: "
    "num_key_value_heads, not num_attention_heads."
)
def query_heads(config, context, key_bits, value_bits, group_size, residual):
    heads = config["num_attention_heads"]
    return _count(config, context, (key_bits, value_bits), group_size, residual, heads=heads)


@mutant(
    "the head size is computed as hidden_size / num_attention_heads. Read head_dim; in Qwen3 and Gemma it is another "
    "number."
)
def head_size_from_hidden_size(config, context, key_bits, value_bits, group_size, residual):
    size = config["hidden_size"] // config["num_attention_heads"]
    return _count(config, context, (key_bits, value_bits), group_size, residual, head_dim=size)


@mutant("a key is taken to be as wide as hidden_size. It has num_key_value_heads * head_dim numbers.")
def hidden_size_cached(config, context, key_bits, value_bits, group_size, residual):
    bits = (key_bits, value_bits)
    return _count(config, context, bits, group_size, residual, heads=1, head_dim=config["hidden_size"])


@mutant("the heads are missing: this is one head of every layer.")
def one_head(config, context, key_bits, value_bits, group_size, residual):
    return _count(config, context, (key_bits, value_bits), group_size, residual, heads=1)


@mutant("the layers are missing. Every layer has a cache of its own.")
def one_layer(config, context, key_bits, value_bits, group_size, residual):
    return bytes_per_token(config, context, key_bits, value_bits, group_size, residual) / config["num_hidden_layers"]


@mutant("only the keys are counted. A token leaves a key and a value.")
def only_keys(config, context, key_bits, value_bits, group_size, residual):
    return _count(config, context, (key_bits, value_bits), group_size, residual, sides=1)


@mutant("the values have the bits of the keys here. They have their own, value_bits.")
def key_bits_for_both(config, context, key_bits, value_bits, group_size, residual):
    return bytes_per_token(config, context, key_bits, key_bits, group_size, residual)


@mutant("keys and values have each other's bits.")
def bits_swapped(config, context, key_bits, value_bits, group_size, residual):
    return bytes_per_token(config, context, value_bits, key_bits, group_size, residual)


@mutant("this is the whole cache, and not its share for a token. Divide by context.")
def all_bytes(config, context, key_bits, value_bits, group_size, residual):
    return bytes_per_token(config, context, key_bits, value_bits, group_size, residual) * context


@mutant("this counts bits. Divide by 8 for bytes.")
def in_bits(config, context, key_bits, value_bits, group_size, residual):
    return 8 * bytes_per_token(config, context, key_bits, value_bits, group_size, residual)


@mutant("the result is rounded to a whole number. Return it as it is: it is a mean over the tokens.")
def rounded(config, context, key_bits, value_bits, group_size, residual):
    return round(bytes_per_token(config, context, key_bits, value_bits, group_size, residual))


@mutant("the division by context cuts off: // where / is meant. The result is a mean over the tokens.")
def divided_in_whole_numbers(config, context, key_bits, value_bits, group_size, residual):
    return math.floor(bytes_per_token(config, context, key_bits, value_bits, group_size, residual))


def token_by_token(config, context, key_bits, value_bits, group_size, residual):
    """Right, by a walk over the tokens: each is in a full group of keys or not, and behind the window or not."""
    behind = max(0, context - residual)
    full = behind - behind % group_size
    groups_of_a_head = config["head_dim"] // group_size
    plain = 2 * config["head_dim"]
    of_keys = Fraction(config["head_dim"] * ((group_size * key_bits + 7) // 8 + 4), group_size)
    of_values = groups_of_a_head * ((group_size * value_bits + 7) // 8 + 4)
    total = Fraction(0)
    for token in range(context):
        total += of_keys if token < full else plain
        total += of_values if token < behind else plain
    return total * config["num_hidden_layers"] * config["num_key_value_heads"] / context


def saved_from_16_bits(config, context, key_bits, value_bits, group_size, residual):
    """Right, from the plain cache less what the quantized groups save."""
    heads = config["num_hidden_layers"] * config["num_key_value_heads"]
    whole = 2 * context * config["head_dim"] * 2
    if context > residual:
        of_a_group = [2 * group_size - 4 - -(-group_size * bits // 8) for bits in (key_bits, value_bits)]
        whole -= (context - residual) // group_size * config["head_dim"] * of_a_group[0]
        whole -= (context - residual) * (config["head_dim"] // group_size) * of_a_group[1]
    return heads * whole / context


QUESTION = Question(
    id="kv_cache.bytes_per_token",
    title="What a token costs",
    reference=bytes_per_token,
    cases=cases,
    properties=(every_byte_is_counted,),
    mutants=(
        codes_only,
        minima_forgotten,
        constants_in_32_bits,
        packed_zero_points,
        constants_for_every_number,
        window_forgotten,
        window_in_8_bits,
        everything_quantized,
        window_ignored,
        window_counted_twice,
        negative_counts,
        keys_like_values,
        values_like_keys,
        groups_rounded_up,
        fractions_of_bytes,
        bytes_rounded_down,
        codes_not_packed,
        query_heads,
        head_size_from_hidden_size,
        hidden_size_cached,
        one_head,
        one_layer,
        only_keys,
        key_bits_for_both,
        bits_swapped,
        all_bytes,
        in_bits,
        rounded,
        divided_in_whole_numbers,
    ),
    alternatives=(token_by_token, saved_from_16_bits),
    hints=(
        "Draw the tokens of one head as a row, and mark the window. Which tokens of the keys are quantized, and which "
        "of the values? How many groups is that, and what does one group hold?",
        "behind = max(0, context - residual). Values: behind tokens. Keys: behind // group_size * group_size. Each has "
        "tokens * head_dim / group_size groups, and a group takes its codes, rounded up to bytes, and 4 bytes. All "
        "other tokens take 2 bytes for each number.",
        "Add for keys and values: groups * (math.ceil(group_size * bits / 8) + 4) + (context - quantized) * head_dim * "
        "2. Times num_hidden_layers, times num_key_value_heads, divided by context.",
    ),
    explanation=(
        "In groups of 32 a scale and a minimum cost 1 bit per number, so 4 bits are 5 and 2 bits are 3: a cache of 2 "
        "bits is 5.3 times smaller than one of 16, and not 8 times. For Llama-3-70B at 131,072 tokens that is 42.9 GB "
        "in 16 bits, 21.5 GB in FP8 without further scales, 13.4 GB with 4 bits and 8.1 GB with 2. Grouped-query "
        "attention has divided by 8 before: with a KV head for each query head it would be 344 GB. The window costs "
        "next to nothing at such a length, and nearly everything in a chat of 100 tokens."
    ),
)
