"""deployment.kv_admission: how many requests a server holds at once, in whole blocks, on GPUs that share the heads."""

from __future__ import annotations

import math
from fractions import Fraction
from random import Random
from typing import Any

from ....deploy import gpu, memory
from ... import properties as p
from ...question import Case, Finding, Question, mutant
from ..memory.configs import published
from .shared import GIB

FIELDS = ("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim")
# The model that the card counts by hand.
CARD = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}


def kv_admission(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    """Say how many requests a server holds in its KV cache at once.

    config: a dict with num_hidden_layers, num_attention_heads, num_key_value_heads and
        head_dim.
    kv_bits: of a cached number, 16, 8 or 4. With 8 or 4, each key and each value (head_dim
        numbers) has a scale and a minimum, 2 bytes each.
    gpus: 1, 2, 4 or 8. Each holds an equal part of the weights, and an equal number of KV
        heads, but at least one: with more GPUs than KV heads, some hold the same head.
    gib: memory of one GPU in GiB (2**30 bytes).
    utilization: the share of it that the server may use.
    weights: bytes of all weights together.
    prompt, output: tokens of every request.

    On each GPU, the share less the weights is for the cache. It is cut into blocks of 16
    tokens, and what is less than a block is lost. A request takes whole blocks, enough for
    prompt and output together, from its first step to its last.

    Returns a whole number, 0 or more.
    """
    heads = max(1, config["num_key_value_heads"] // gpus)
    vector = config["head_dim"] * kv_bits / 8 + (0 if kv_bits == 16 else 4)
    block = 16 * 2 * config["num_hidden_layers"] * heads * vector
    left = gib * 2**30 * utilization - weights / gpus
    blocks = max(0, math.floor(left / block))
    return blocks // math.ceil((prompt + output) / 16)


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    return [
        Case("the example of the card", (CARD, 8, 2, 1, 0.5, 1_073_000_000, 20, 15)),
        Case("Llama-3-70B in 8 bits on two H100", _served("Llama-3-70B", "int8-channel", 16, 2, "H100-80GB", 1024, 8)),
        Case("Llama-3-70B in 4 bits on one L40S", _served("Llama-3-70B", "int4-g128", 16, 1, "L40S", 1024, 8)),
        Case("the same with a cache of 8 bits", _served("Llama-3-70B", "int4-g128", 8, 1, "L40S", 1024, 8)),
        Case("Llama-3-8B on an L4, chat", _served("Llama-3-8B", "int4-g128", 4, 1, "L4", 512, 257)),
        Case("Llama-3-70B in 16 bits, not even the weights fit", _served("Llama-3-70B", "bf16", 16, 1, "H200", 500, 9)),
        Case("fewer KV heads than GPUs", _drawn(random, 6.5, 8, 16, 4, random.choice((8, 16)))),
        Case("a single KV head on two GPUs", _drawn(random, 5.5, 2, 6, 1, 16)),
        Case("almost one request more", _drawn(random, random.randrange(5, 12) + 0.9, 2, 8, 4, 8)),
        Case("just enough for the last one", _drawn(random, random.randrange(5, 12) + 0.06, 4, 16, 8, 4)),
        Case("requests that fill their last block", _drawn(random, 7, 2, 12, 4, 8, 16 * random.randrange(20, 60))),
        Case("requests one token beyond a block", _drawn(random, 40.4, 2, 12, 4, 4, 16 * random.randrange(4, 9) + 1)),
        Case("room for less than one", _drawn(random, random.uniform(0.6, 0.8), 4, 16, 8, 16)),
        Case("the last request fits to the byte", _full(random)),
        Case("short requests, many of them", _drawn(random, random.randrange(300, 500) + 0.5, 1, 9, 3, 8, 35)),
    ]


def _served(name: str, precision: str, bits: int, gpus: int, card: str, prompt: int, output: int) -> tuple[Any, ...]:
    """A model of the data on GPUs of the data, each of which holds its share of the weights and a little more."""
    weights = gpus * memory(name, precision, tensor_parallel=gpus).weights
    config = {field: value for field, value in published(name).items() if field in FIELDS}
    return config, bits, gpus, gpu(card).memory_visible_gib, 0.92, weights, prompt, output


def _drawn(
    random: Random, requests: float, gpus: int, heads: int, kv_heads: int, bits: int, tokens: int | None = None
) -> tuple[Any, ...]:
    """Arguments with room for that many requests, and half a block more: the weights are made to match."""
    config = {
        "num_hidden_layers": random.randrange(9, 30),
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": 16 * random.randrange(4, 9),
    }
    if tokens is None:
        tokens = 16 * random.randrange(20, 90) + random.randrange(2, 15)
    # Prompt and output each end within a block, and together need a block less than apart, where that is possible.
    rest = tokens % 16 or 16
    output = 16 * random.randrange(0, max(1, tokens // 40)) + random.randrange(1, max(2, rest))
    vector = config["head_dim"] * bits // 8 + (0 if bits == 16 else 4)
    block = 32 * config["num_hidden_layers"] * max(1, kv_heads // gpus) * vector
    held = math.floor(requests * math.ceil(tokens / 16)) + 0.5
    gib, utilization = random.choice((22.05, 44.4, 79.1)), random.choice((0.85, 0.9, 0.92))
    weights = round(gpus * (gib * GIB * utilization - held * block))
    return config, bits, gpus, gib, utilization, weights, tokens - output, output


def _full(random: Random) -> tuple[Any, ...]:
    """Arguments with room for some requests and not a byte more, in whole numbers that floats hold."""
    config = {
        "num_hidden_layers": random.randrange(9, 30),
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 64,
    }
    requests, prompt, output = random.randrange(3, 20), 16 * random.randrange(20, 40) + 3, 30
    block = 32 * config["num_hidden_layers"] * 2 * (64 + 4)
    each = 24 * GIB * 3 // 4 - requests * math.ceil((prompt + output) / 16) * block
    return config, 8, 2, 24, 0.75, 2 * each, prompt, output


def not_a_negative_number(case: Case, got: Any, expected: Any) -> Finding | None:
    value = p.as_number(got)
    if value is None or value >= 0:
        return None
    return Finding(
        "the number of requests is negative; where nothing fits, return 0",
        expected=f"{expected} requests",
        got=f"{value:,.10g} requests",
    )


def requests_are_those_that_fit(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.whole_number_is(got, "the number of requests", expected, "requests")


def _admitted(
    config, kv_bits, gpus, gib, utilization, weights, prompt, output,
    *, heads=None, vector=None, both=2, layers=None, left=None, each=None, total=None, scales=None,
):  # fmt: skip
    """The right number, but for the parts that are given; `total` and `each` are blocks."""
    heads = max(1, config["num_key_value_heads"] // gpus) if heads is None else heads
    scales = (0 if kv_bits == 16 else 4) if scales is None else scales
    vector = config["head_dim"] * kv_bits / 8 + scales if vector is None else vector
    layers = config["num_hidden_layers"] if layers is None else layers
    left = gib * GIB * utilization - weights / gpus if left is None else left
    blocks = max(0, math.floor(left / (16 * both * layers * heads * vector)))
    blocks = blocks if total is None else total(blocks)
    return blocks // (math.ceil((prompt + output) / 16) if each is None else each)


@mutant("the GPU's GiB are taken as GB. CUDA shows 2**30 bytes per GiB, 7 % more than 10**9.")
def gib_as_gb(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    left = gib * 1e9 * utilization - weights / gpus
    return _admitted(config, kv_bits, gpus, gib, utilization, weights, prompt, output, left=left)


@mutant("the utilization is not used. A server does not take the whole GPU.")
def utilization_forgotten(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    return _admitted(config, kv_bits, gpus, gib, 1, weights, prompt, output)


@mutant("the utilization is applied to what the weights leave. It is a share of the whole GPU: multiply first.")
def utilization_of_the_rest(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    left = (gib * GIB - weights / gpus) * utilization
    return _admitted(config, kv_bits, gpus, gib, utilization, weights, prompt, output, left=left)


@mutant("the weights are missing. They lie on the GPUs before the first request comes.")
def weights_forgotten(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    return _admitted(config, kv_bits, gpus, gib, utilization, 0, prompt, output)


@mutant("all the weights are taken off every GPU. Each holds its part: divide them by gpus.")
def weights_on_every_gpu(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    left = gib * GIB * utilization - weights
    return _admitted(config, kv_bits, gpus, gib, utilization, weights, prompt, output, left=left)


@mutant("query heads are counted. The cache holds keys and values of the KV heads, num_key_value_heads.")
def query_heads(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    heads = max(1, config["num_attention_heads"] // gpus)
    return _admitted(config, kv_bits, gpus, gib, utilization, weights, prompt, output, heads=heads)


@mutant("every GPU holds all KV heads here. They are shared out: each holds num_key_value_heads // gpus of them.")
def all_heads_on_every_gpu(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    heads = config["num_key_value_heads"]
    return _admitted(config, kv_bits, gpus, gib, utilization, weights, prompt, output, heads=heads)


@mutant("with more GPUs than KV heads, num_key_value_heads // gpus is 0. Every GPU holds at least one head.")
def no_head_left(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    heads = config["num_key_value_heads"] // gpus
    return _admitted(config, kv_bits, gpus, gib, utilization, weights, prompt, output, heads=heads)


@mutant("with more GPUs than KV heads, a head is cut into parts. It is not: several GPUs hold the same one.")
def a_part_of_a_head(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    heads = config["num_key_value_heads"] / gpus
    return _admitted(config, kv_bits, gpus, gib, utilization, weights, prompt, output, heads=heads)


@mutant("only keys, or only values, are counted. A token has a key and a value in every layer: the factor 2.")
def keys_alone(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    return _admitted(config, kv_bits, gpus, gib, utilization, weights, prompt, output, both=1)


@mutant("the layers are missing. Every layer has a cache of its own.")
def one_layer(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    return _admitted(config, kv_bits, gpus, gib, utilization, weights, prompt, output, layers=1)


@mutant("the scales and minima of the quantized cache are not counted: 4 bytes for each key and each value.")
def scales_forgotten(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    return _admitted(config, kv_bits, gpus, gib, utilization, weights, prompt, output, scales=0)


@mutant("only a scale is counted. There is a minimum beside it: 4 bytes together.")
def minima_forgotten(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    scales = 0 if kv_bits == 16 else 2
    return _admitted(config, kv_bits, gpus, gib, utilization, weights, prompt, output, scales=scales)


@mutant("a cache of 16 bits gets scales and minima here. It is not quantized, and has none.")
def scales_at_16_bits(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    return _admitted(config, kv_bits, gpus, gib, utilization, weights, prompt, output, scales=4)


@mutant("kv_bits is not used: the numbers of the cache have 2 bytes here, whatever their bits.")
def always_16_bits(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    return _admitted(config, 16, gpus, gib, utilization, weights, prompt, output)


@mutant("bits are counted as bytes. Divide them by 8.")
def bits_as_bytes(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    vector = config["head_dim"] * kv_bits + (0 if kv_bits == 16 else 4)
    return _admitted(config, kv_bits, gpus, gib, utilization, weights, prompt, output, vector=vector)


@mutant("the output has no room. Its tokens are cached as the prompt's are: a request takes blocks for both.")
def output_forgotten(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    return _admitted(config, kv_bits, gpus, gib, utilization, weights, prompt, 0)


@mutant("the last token of the answer has no room here. It is never read again, but room is held for prompt + output.")
def last_token_left_out(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    return _admitted(config, kv_bits, gpus, gib, utilization, weights, prompt, output - 1)


@mutant("the prompt has no room. Its tokens stay in the cache until the answer is complete.")
def prompt_forgotten(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    return _admitted(config, kv_bits, gpus, gib, utilization, weights, 0, output)


@mutant("prompt and output are rounded to blocks apart. They lie one after the other: add them, then round up.")
def rounded_apart(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    each = math.ceil(prompt / 16) + math.ceil(output / 16)
    return _admitted(config, kv_bits, gpus, gib, utilization, weights, prompt, output, each=each)


@mutant("the blocks of a request are rounded down. Its last tokens need a block, too: round up.")
def blocks_rounded_down(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    each = max(1, (prompt + output) // 16)
    return _admitted(config, kv_bits, gpus, gib, utilization, weights, prompt, output, each=each)


@mutant("tokens // 16 + 1 is one block too many where the tokens fill their blocks. Use math.ceil.")
def always_one_block_more(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    each = (prompt + output) // 16 + 1
    return _admitted(config, kv_bits, gpus, gib, utilization, weights, prompt, output, each=each)


@mutant("tokens are handed out one by one. A request takes whole blocks of 16, and the rest of its last one is lost.")
def tokens_without_blocks(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    heads = max(1, config["num_key_value_heads"] // gpus)
    vector = config["head_dim"] * kv_bits / 8 + (0 if kv_bits == 16 else 4)
    left = gib * GIB * utilization - weights / gpus
    tokens = math.floor(left / (2 * config["num_hidden_layers"] * heads * vector))
    return max(0, tokens // (prompt + output))


@mutant("this is the number of blocks. Divide by the blocks of a request.")
def blocks_instead_of_requests(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    return _admitted(config, kv_bits, gpus, gib, utilization, weights, prompt, output, each=1)


@mutant(
    "the GPUs' blocks are added up. Every GPU holds its heads of every token: a request takes blocks on all of them."
)
def blocks_of_all_gpus(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    return _admitted(
        config, kv_bits, gpus, gib, utilization, weights, prompt, output, total=lambda blocks: blocks * gpus
    )


@mutant("the number of requests is rounded up. The last one has no room then: round down.")
def requests_rounded_up(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    each = math.ceil((prompt + output) / 16)
    return -(-_admitted(config, kv_bits, gpus, gib, utilization, weights, prompt, output, each=1) // each)


@mutant("the number of requests is not rounded. A part of a request cannot be served: round down.")
def requests_not_rounded(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    each = math.ceil((prompt + output) / 16)
    return _admitted(config, kv_bits, gpus, gib, utilization, weights, prompt, output, each=1) / each


@mutant("where the weights do not fit, a negative number comes out. Then no request fits: return 0.")
def negative_where_weights_do_not_fit(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    right = kv_admission(config, kv_bits, gpus, gib, utilization, weights, prompt, output)
    heads = max(1, config["num_key_value_heads"] // gpus)
    vector = config["head_dim"] * kv_bits / 8 + (0 if kv_bits == 16 else 4)
    left = gib * GIB * utilization - weights / gpus
    blocks = left // (32 * config["num_hidden_layers"] * heads * vector)
    return right if left >= 0 else int(blocks // math.ceil((prompt + output) / 16))


def one_request_after_the_other(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    """Right, by handing out blocks until they are gone."""
    layers, vectors = config["num_hidden_layers"], 2 * max(1, config["num_key_value_heads"] // gpus)
    numbers = layers * vectors * config["head_dim"] * 16
    block = numbers * kv_bits // 8
    if kv_bits < 16:
        block += layers * vectors * 16 * 4
    free = int((gib * 2**30 * utilization * gpus - weights) / gpus // block)
    requests = 0
    while free >= -(-(prompt + output) // 16):
        free -= -(-(prompt + output) // 16)
        requests += 1
    return requests


def in_exact_fractions(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    """Right, with exact decimal fractions, and the blocks of a request in bytes."""
    left = Fraction(str(gib)) * 2**30 * Fraction(str(utilization)) - Fraction(weights, gpus)
    heads = config["num_key_value_heads"] // gpus or 1
    values = Fraction(kv_bits, 8) * config["head_dim"] + {16: 0, 8: 4, 4: 4}[kv_bits]
    request = (prompt + output + 15) // 16 * 32 * config["num_hidden_layers"] * heads * values
    return float(left // request) if left > 0 else 0.0


QUESTION = Question(
    id="deployment.kv_admission",
    title="How many requests are let in",
    reference=kv_admission,
    cases=cases,
    properties=(not_a_negative_number, requests_are_those_that_fit),
    mutants=(
        gib_as_gb,
        utilization_forgotten,
        utilization_of_the_rest,
        weights_forgotten,
        weights_on_every_gpu,
        query_heads,
        all_heads_on_every_gpu,
        no_head_left,
        a_part_of_a_head,
        keys_alone,
        one_layer,
        scales_forgotten,
        minima_forgotten,
        scales_at_16_bits,
        always_16_bits,
        bits_as_bytes,
        output_forgotten,
        last_token_left_out,
        prompt_forgotten,
        rounded_apart,
        blocks_rounded_down,
        always_one_block_more,
        tokens_without_blocks,
        blocks_instead_of_requests,
        blocks_of_all_gpus,
        requests_rounded_up,
        requests_not_rounded,
        negative_where_weights_do_not_fit,
    ),
    alternatives=(one_request_after_the_other, in_exact_fractions),
    hints=(
        "Look at one GPU only: it holds its part of the weights and its KV heads of every token. How many bytes does "
        "one block of 16 tokens take there?",
        "A key or a value of one head takes head_dim * kv_bits / 8 bytes, and 4 more below 16 bits. A block has 16 "
        "tokens, a key and a value each, in all layers, for max(1, num_key_value_heads // gpus) heads.",
        "blocks = math.floor((gib * 2**30 * utilization - weights / gpus) / block), at least 0; return blocks // "
        "math.ceil((prompt + output) / 16).",
    ),
    explanation=(
        "Servers page the cache (vLLM's blocks have 16 tokens), so that what is lost is less than a block for each "
        "request. Llama-3-70B on one L40S in 4 bits has room for 12 requests of 1,032 tokens, and for 24 "
        "with a cache of 8 bits; two H100 with 8-bit weights have room for 245. Small weights buy room for "
        "requests, and room is what a batch is made of. What is set aside here for a request is its whole answer; a "
        "server that hands out blocks as tokens come lets more in, and throws some out again when memory runs short."
    ),
)
