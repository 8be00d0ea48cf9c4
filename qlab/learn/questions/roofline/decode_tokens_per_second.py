"""roofline.decode_tokens_per_second: the most tokens that a model can write in a second, from its config."""

from __future__ import annotations

from fractions import Fraction
from random import Random
from typing import Any

from ...question import Case, Finding, Question, mutant
from ..memory.configs import drawn, published
from .devices import limits, near

# The model that the card counts by hand.
CARD = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 4,
    "vocab_size": 64,
    "tie_word_embeddings": True,
}


def decode_tokens_per_second(config, weight_bits, batch, context, bandwidth, rate):
    """Say how many tokens per second a model can write at most, over all requests.

    config: a dict with hidden_size, intermediate_size, num_hidden_layers,
        num_attention_heads, num_key_value_heads, head_dim, vocab_size, tie_word_embeddings.
    weight_bits: of the weights in the layers, with their share of the scales.
    batch: requests; each step writes one token for each of them.
    context: tokens of each request in the KV cache.
    bandwidth: bytes per second.
    rate: operations per second.

    A step multiplies the seven matrices of every layer, then the head, which has 16 bits
    and is used in every step, tied or not. Each product takes the longer of two times: for
    W, x and y (16 bits) at the bandwidth, and for its operations at the rate. Last, a step
    reads the KV cache once, 16 bits a number. Nothing else takes time.

    Returns tokens per second.
    """
    hidden, mlp = config["hidden_size"], config["intermediate_size"]
    queries = config["num_attention_heads"] * config["head_dim"]
    keys = config["num_key_value_heads"] * config["head_dim"]
    attention = [(queries, hidden), (keys, hidden), (keys, hidden), (hidden, queries)]
    layer = [*attention, (mlp, hidden), (mlp, hidden), (hidden, mlp)]

    def seconds(outputs, inputs, bits):
        moved = (outputs * inputs * bits + batch * (inputs + outputs) * 16) / 8
        return max(moved / bandwidth, 2 * batch * outputs * inputs / rate)

    layers = config["num_hidden_layers"] * sum(seconds(*shape, weight_bits) for shape in layer)
    head = seconds(config["vocab_size"], hidden, 16)
    cache = 2 * config["num_hidden_layers"] * keys * 2 * context * batch / bandwidth
    return batch / (layers + head + cache)


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    a100, h100, l4, t4 = (limits(name) for name in ("A100-80GB", "H100-80GB", "L4", "T4"))
    small, large, old = (published(name) for name in ("Llama-3-8B", "Llama-3-70B", "Llama-2-7B"))
    return [
        Case("the example of the card", (CARD, 4, 2, 10, 2.0**20, 2.0**24)),
        Case("Llama-3-8B on an A100, 16 bits, one request", (small, 16, 1, 1000, *a100)),
        Case("Llama-3-8B on an L4, 4.125 bits, one request, a long context", (small, 4.125, 1, 8192, *l4)),
        # Small weights wait for arithmetic here, the head and the cache for memory.
        Case("Llama-3-8B on an A100, 4.125 bits, 64 requests", (small, 4.125, 64, 2048, *a100)),
        Case("Llama-3-70B on an H100, 4.25 bits, 32 requests", (large, 4.25, 32, 4096, *h100)),
        Case("Llama-2-7B on a T4, where every query head has its own KV head", (old, 4.5, 2, 1500, *t4)),
        Case("a batch for which arithmetic is the limit of every product", (small, 8.125, 700, 60, *a100)),
        Case("a small model, tied, whose heads are wider than hidden_size", _drawn(random, 6, 2, True, 4.125, 3)),
        Case("a small model, not tied, a single KV head", _drawn(random, 8, 1, False, 16, 17)),
        Case("a small model on a device with a low ridge", _drawn(random, 9, 3, True, 8.5, 40, ridge=20)),
    ]


def _drawn(
    random: Random, heads: int, kv_heads: int, tied: bool, bits: float, batch: int, ridge: float = 150
) -> tuple[Any, ...]:
    bandwidth = 1e6 * random.randrange(300, 4000)  # as slow as these models are small
    config = drawn(random, heads, kv_heads, tied)
    return config, bits, batch, random.randrange(500, 5000), bandwidth, ridge * bandwidth


def the_most_tokens_per_second(case: Case, got: Any, expected: Any) -> Finding | None:
    return near(got, "the number of tokens per second", expected, "tokens per second")


def _rate(
    config,
    weight_bits,
    batch,
    context,
    bandwidth,
    rate,
    *,
    kv_heads=None,
    head_dim=None,
    width=None,
    mlp_matrices=3,
    tables=1,
    head_bits=16,
    kv_bits=16,
    sides=2,
    cached=None,
    tokens=None,
    moved=None,
    of=max,
):
    """The right number, but for the parts that are given.

    `width` is that of q and o; `tokens` are rows of x, `cached` those whose keys are read; `moved` counts the bits of
    one product; `of` makes one time out of two.
    """
    layers, hidden, mlp = config["num_hidden_layers"], config["hidden_size"], config["intermediate_size"]
    size = head_dim or config["head_dim"]
    queries, keys = width or config["num_attention_heads"] * size, (kv_heads or config["num_key_value_heads"]) * size
    cached = batch * context if cached is None else cached
    tokens = batch if tokens is None else tokens
    moved = moved or (lambda n, k, bits: n * k * bits + tokens * (n + k) * 16)

    def seconds(n, k, bits):
        return of(moved(n, k, bits) / 8 / bandwidth, 2 * tokens * n * k / rate)

    layer = 2 * seconds(keys, hidden, weight_bits) + seconds(queries, hidden, weight_bits)
    layer += seconds(hidden, queries, weight_bits) + seconds(hidden, mlp, weight_bits)
    layer += (mlp_matrices - 1) * seconds(mlp, hidden, weight_bits)
    # The cache is as wide as k and v are, or as these are taken to be.
    cache = sides * layers * keys * kv_bits / 8 * cached / bandwidth
    return batch / (layers * layer + tables * seconds(config["vocab_size"], hidden, head_bits) + cache)


@mutant("the head is missing. Every token needs it: vocab_size x hidden_size in 16 bits.")
def head_forgotten(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(config, weight_bits, batch, context, bandwidth, rate, tables=0)


@mutant("a tied head is left out. Tied means that it shares its memory with the embedding; it is read all the same.")
def tied_head_left_out(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(config, weight_bits, batch, context, bandwidth, rate, tables=0 if config["tie_word_embeddings"] else 1)


@mutant("the head has weight_bits here. It stays in 16 bits.")
def head_in_weight_bits(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(config, weight_bits, batch, context, bandwidth, rate, head_bits=weight_bits)


@mutant("the embedding is read as a whole, like the head. A token needs one row of it, which is not counted here.")
def embedding_read_too(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(config, weight_bits, batch, context, bandwidth, rate, tables=2)


@mutant("the embedding is read as a whole where it is not tied. A token needs one row of it, which is not counted.")
def embedding_read_where_it_is_not_tied(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(config, weight_bits, batch, context, bandwidth, rate, tables=1 if config["tie_word_embeddings"] else 2)


@mutant("the KV cache is missing. Each step reads the keys and values of all tokens before it.")
def cache_forgotten(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(config, weight_bits, batch, context, bandwidth, rate, sides=0)


@mutant("the KV cache is read for one request. Weights are shared by the batch, and caches are not: each has its own.")
def cache_of_one_request(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(config, weight_bits, batch, context, bandwidth, rate, cached=context)


@mutant("the KV cache of one token is read. A step reads that of all tokens in the context.")
def cache_of_one_token(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(config, weight_bits, batch, context, bandwidth, rate, cached=batch)


@mutant(
    "half of the cache is read. There are keys and values, which is a factor of 2, and a number has 16 bits, which are "
    "2 bytes: another factor of 2."
)
def half_of_the_cache(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(config, weight_bits, batch, context, bandwidth, rate, sides=1)


@mutant("the cache has weight_bits here. It keeps 16 bits whatever the weights have.")
def cache_in_weight_bits(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(config, weight_bits, batch, context, bandwidth, rate, kv_bits=weight_bits)


@mutant("keys and values are counted with all query heads. There are num_key_value_heads of them.")
def query_heads_for_keys(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(config, weight_bits, batch, context, bandwidth, rate, kv_heads=config["num_attention_heads"])


@mutant(
    "the cache is counted with all query heads. Only keys and values are cached, for num_key_value_heads heads: "
    "query heads share them."
)
def query_heads_in_the_cache(config, weight_bits, batch, context, bandwidth, rate):
    share = config["num_attention_heads"] / config["num_key_value_heads"]
    return _rate(config, weight_bits, batch, context, bandwidth, rate, sides=2 * share)


@mutant("the head size is hidden_size / num_attention_heads here. Read head_dim; in Qwen3 and Gemma it is another one.")
def head_size_from_hidden_size(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(
        config,
        weight_bits,
        batch,
        context,
        bandwidth,
        rate,
        head_dim=config["hidden_size"] / config["num_attention_heads"],
    )


@mutant(
    "q and o are hidden_size x hidden_size here, and a head has hidden_size // num_attention_heads numbers. Read "
    "head_dim: q is (heads * head_dim) x hidden_size and o the other way round, in Qwen3 and Gemma not square."
)
def square_attention(config, weight_bits, batch, context, bandwidth, rate):
    hidden = config["hidden_size"]
    head_dim = hidden // config["num_attention_heads"]
    return _rate(config, weight_bits, batch, context, bandwidth, rate, head_dim=head_dim, width=hidden)


@mutant(
    "the head size is hidden_size // num_attention_heads, rounded down. Read head_dim; in Qwen3 and Gemma it is "
    "another one."
)
def head_size_rounded_down(config, weight_bits, batch, context, bandwidth, rate):
    head_dim = config["hidden_size"] // config["num_attention_heads"]
    return _rate(config, weight_bits, batch, context, bandwidth, rate, head_dim=head_dim)


@mutant(
    "q and o are hidden_size x hidden_size here. q is (heads * head_dim) x hidden_size and o the other way round: in "
    "Qwen3 and Gemma neither is square."
)
def square_q_and_o(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(config, weight_bits, batch, context, bandwidth, rate, width=config["hidden_size"])


@mutant("the MLP has two matrices here. These models have three: gate, up and down.")
def two_matrices_in_the_mlp(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(config, weight_bits, batch, context, bandwidth, rate, mlp_matrices=2)


@mutant("one layer is counted. There are num_hidden_layers, each with its weights and its cache.")
def one_layer(config, weight_bits, batch, context, bandwidth, rate):
    return _rate({**config, "num_hidden_layers": 1}, weight_bits, batch, context, bandwidth, rate)


@mutant("the result is that of one request. Over all requests it is batch times as much.")
def of_one_request(config, weight_bits, batch, context, bandwidth, rate):
    return decode_tokens_per_second(config, weight_bits, batch, context, bandwidth, rate) / batch


@mutant("these are the seconds of a step. Return tokens per second: batch divided by them.")
def seconds_of_a_step(config, weight_bits, batch, context, bandwidth, rate):
    return batch / decode_tokens_per_second(config, weight_bits, batch, context, bandwidth, rate)


@mutant("the batch is not used in the products: x and y have one row for each request, and operations grow with them.")
def products_of_one_token(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(config, weight_bits, batch, context, bandwidth, rate, tokens=1)


@mutant(
    "this multiplies the whole prompt in each step, as prefill does. A step of decoding has one new token for each "
    "request; the others are in the cache."
)
def prefill_in_every_step(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(config, weight_bits, batch, context, bandwidth, rate, tokens=batch * context)


@mutant("the weights are read once for each request. All requests share one reading: that is why batches pay.")
def weights_for_every_request(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(
        config,
        weight_bits,
        batch,
        context,
        bandwidth,
        rate,
        moved=lambda n, k, bits: batch * (n * k * bits + (n + k) * 16),
    )


@mutant("x and y are not counted. They have 16 bits a number, one row for each request.")
def activations_forgotten(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(config, weight_bits, batch, context, bandwidth, rate, moved=lambda n, k, bits: n * k * bits)


@mutant("x and y have one byte a number here. They have 16 bits, which are 2 bytes.")
def activations_of_one_byte(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(
        config,
        weight_bits,
        batch,
        context,
        bandwidth,
        rate,
        moved=lambda n, k, bits: n * k * bits + batch * (n + k) * 8,
    )


@mutant("bits are counted as bytes. A byte has 8 bits.")
def bits_as_bytes(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(
        config, weight_bits, batch, context, bandwidth, rate, of=lambda memory, compute: max(8 * memory, compute)
    )


@mutant("weight_bits is cut to a whole number, and the scales with it: 4.125 are not 4.")
def whole_bits(config, weight_bits, batch, context, bandwidth, rate):
    return decode_tokens_per_second(config, int(weight_bits), batch, context, bandwidth, rate)


@mutant("the cache of one layer is read. Every layer has its own.")
def cache_of_one_layer(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(config, weight_bits, batch, context, bandwidth, rate, sides=2 / config["num_hidden_layers"])


@mutant("only bytes are counted. With many requests some products wait for arithmetic.")
def memory_alone(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(config, weight_bits, batch, context, bandwidth, rate, of=lambda memory, compute: memory)


@mutant("the two times of a product are added. Memory and arithmetic work at the same time: the longer one counts.")
def times_added(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(config, weight_bits, batch, context, bandwidth, rate, of=lambda memory, compute: memory + compute)


@mutant("the shorter of a product's two times is taken. It is done when both are done.")
def the_shorter_time(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(config, weight_bits, batch, context, bandwidth, rate, of=min)


@mutant("the operations lack the factor 2: a multiplication and an addition for each weight and token.")
def without_the_two(config, weight_bits, batch, context, bandwidth, rate):
    return _rate(
        config, weight_bits, batch, context, bandwidth, rate, of=lambda memory, compute: max(memory, compute / 2)
    )


@mutant(
    "all bytes and all operations are added up before the longer time is taken. Each product waits for its own limit: "
    "take the longer time of each, then add."
)
def one_roof_for_all(config, weight_bits, batch, context, bandwidth, rate):
    memory = batch / _rate(config, weight_bits, batch, context, bandwidth, rate, of=lambda memory, compute: memory)
    compute = batch / _rate(
        config, weight_bits, batch, context, bandwidth, rate, of=lambda memory, compute: compute, sides=0
    )
    return batch / max(memory, compute)


@mutant("the result is rounded. Return it with all its digits.")
def rounded(config, weight_bits, batch, context, bandwidth, rate):
    return round(decode_tokens_per_second(config, weight_bits, batch, context, bandwidth, rate), 2)


def matrix_by_matrix(config, weight_bits, batch, context, bandwidth, rate):
    """Right, with exact fractions of a byte's time, from the shapes by name."""
    ridge = Fraction(rate) / Fraction(bandwidth)
    c, bits = config, Fraction(weight_bits)
    q, kv = c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
    shapes = {
        "q": (q, c["hidden_size"]),
        "k": (kv, c["hidden_size"]),
        "v": (kv, c["hidden_size"]),
        "o": (c["hidden_size"], q),
        "gate": (c["intermediate_size"], c["hidden_size"]),
        "up": (c["intermediate_size"], c["hidden_size"]),
        "down": (c["hidden_size"], c["intermediate_size"]),
        "head": (c["vocab_size"], c["hidden_size"]),
    }
    ticks = Fraction(0)
    for name, (rows, columns) in shapes.items():
        width, copies = (Fraction(16), 1) if name == "head" else (bits, c["num_hidden_layers"])
        moved = width / 8 * rows * columns + 2 * batch * (rows + columns)
        ticks += copies * max(moved, 2 * batch * rows * columns / ridge)
    ticks += 4 * c["num_hidden_layers"] * kv * context * batch
    return float(batch * Fraction(bandwidth) / ticks)


def cache_with_its_layer(config, weight_bits, batch, context, bandwidth, rate):
    """Right, layer by layer, each with its part of the cache."""
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    heads, kv_heads, size = (config[key] for key in ("num_attention_heads", "num_key_value_heads", "head_dim"))

    def product(outputs, inputs, weight_bytes):
        memory = (outputs * inputs * weight_bytes + 2 * batch * outputs + 2 * batch * inputs) / bandwidth
        compute = 2 * outputs * inputs * batch / rate
        return memory if memory > compute else compute

    step = product(config["vocab_size"], hidden, 2)
    for _layer in range(config["num_hidden_layers"]):
        for outputs, inputs, copies in (
            (heads * size, hidden, 1),
            (kv_heads * size, hidden, 2),
            (hidden, heads * size, 1),
            (inner, hidden, 2),
            (hidden, inner, 1),
        ):
            step += copies * product(outputs, inputs, weight_bits / 8)
        step += 2 * batch * context * kv_heads * size * 2 / bandwidth
    return 1 / step * batch


QUESTION = Question(
    id="roofline.decode_tokens_per_second",
    title="Tokens per second of a whole model",
    reference=decode_tokens_per_second,
    cases=cases,
    properties=(the_most_tokens_per_second,),
    mutants=(
        head_forgotten,
        tied_head_left_out,
        head_in_weight_bits,
        embedding_read_too,
        embedding_read_where_it_is_not_tied,
        cache_forgotten,
        cache_of_one_request,
        cache_of_one_token,
        cache_of_one_layer,
        half_of_the_cache,
        cache_in_weight_bits,
        query_heads_for_keys,
        query_heads_in_the_cache,
        head_size_from_hidden_size,
        head_size_rounded_down,
        square_attention,
        square_q_and_o,
        two_matrices_in_the_mlp,
        one_layer,
        of_one_request,
        seconds_of_a_step,
        products_of_one_token,
        prefill_in_every_step,
        weights_for_every_request,
        activations_forgotten,
        activations_of_one_byte,
        bits_as_bytes,
        whole_bits,
        memory_alone,
        times_added,
        the_shorter_time,
        without_the_two,
        one_roof_for_all,
        rounded,
    ),
    alternatives=(matrix_by_matrix, cache_with_its_layer),
    hints=(
        "A step has three parts: the matrices of all layers, the head, the cache. Which of them grow with the batch?",
        "Write the time of one product as a function of (outputs, inputs, bits); x and y have `batch` rows. Call it "
        "for q, k, v, o, gate, up and down with weight_bits, times the layers, and once for the head with 16. The "
        "cache of all requests only takes the memory's time.",
        "seconds(outputs, inputs, bits) = max((outputs * inputs * bits + batch * (inputs + outputs) * 16) / 8 / "
        "bandwidth, 2 * batch * outputs * inputs / rate); cache = 2 * num_hidden_layers * num_key_value_heads * "
        "head_dim * 2 * context * batch / bandwidth; return batch / (layers + head + cache).",
    ),
    explanation=(
        "The bound for Llama-3-8B on an A100 with 2,048 tokens of context: one request 133 tokens per second at 16 "
        "bits and 414 at 4.125, 3.10 times as many; 64 requests 4,010 and 5,418, 1.35 times as many. With many "
        "requests the caches take most of the step, and weights of any size do nothing about them."
    ),
)
