"""memory.card_share: what one card holds under tensor parallelism, and what cannot be split."""

from __future__ import annotations

import math
from fractions import Fraction
from random import Random
from typing import Any

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .configs import TINY, drawn, published


def card_share(config, cards, tokens):
    """Count the bytes that one card holds under tensor parallelism, everything at 16 bits.

    config: a dict with the fields of config.json (a Llama-like model without biases).
    cards: how many. They divide num_attention_heads and intermediate_size; and they divide
        num_key_value_heads, or that divides them. They need not divide vocab_size: then the
        first cards hold one row more each.
    tokens: in the KV cache, over all requests.

    Returns the bytes of weights and cache on the first card, a whole number.
    """
    hidden = config["hidden_size"]
    queries = config["num_attention_heads"] // cards * config["head_dim"]
    keys = max(1, config["num_key_value_heads"] // cards) * config["head_dim"]
    mlp = config["intermediate_size"] // cards
    norms = 2
    layer = hidden * (2 * queries + 2 * keys + 3 * mlp + norms)
    tables = 1 if config["tie_word_embeddings"] else 2
    outside = hidden * (tables * math.ceil(config["vocab_size"] / cards) + 1)
    cache = 2 * config["num_hidden_layers"] * keys * tokens
    return 2 * (config["num_hidden_layers"] * layer + outside + cache)


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    return [
        Case("the example of the card", (TINY, 4, 10)),
        Case("Llama-3-70B on 4 cards", (published("Llama-3-70B"), 4, 65_536)),
        Case("Llama-3-70B on 16 cards, twice its KV heads", (published("Llama-3-70B"), 16, 65_536)),
        Case("Llama-3-8B on one card", (published("Llama-3-8B"), 1, 8_192)),
        Case("Llama-2-7B on 8 cards", (published("Llama-2-7B"), 8, 4_096)),
        Case("a small model on 2 cards", _drawn(random, 2, 6, 2)),
        Case("a single KV head on 4 cards", _drawn(random, 4, 8, 1)),
        Case("a tied head, a vocabulary that does not split evenly", _drawn(random, 4, 12, 4, tied=True)),
        Case("2 KV heads on 8 cards, no tokens yet", (*_drawn(random, 8, 16, 2)[:2], 0)),
    ]


def _drawn(random: Random, cards: int, heads: int, kv_heads: int, tied: bool = False) -> tuple[Any, ...]:
    config = drawn(random, heads, kv_heads, tied)
    config["intermediate_size"] += -config["intermediate_size"] % cards
    # Rows too many for an even split: two or more where that is possible, as one card may not take them all.
    config["vocab_size"] += random.randrange(min(2, cards - 1), cards) - config["vocab_size"] % cards
    return config, cards, random.randrange(100, 5000)


def every_byte_of_the_card_is_counted(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.whole_number_is(got, "the share of one card", expected, "bytes")


def _share(
    config, cards, tokens, *, q=None, kv_weights=None, kv_cache=None, mlp=None, norms=1, last=1, rows=None, tables=None
):
    """The right share, but for the parts that are given.

    `norms` is a factor, `last` how many norms lie outside the layers, `rows` the vocabulary on one card.
    """
    hidden, size, layers = config["hidden_size"], config["head_dim"], config["num_hidden_layers"]
    held = max(1, config["num_key_value_heads"] // cards)
    q = config["num_attention_heads"] // cards if q is None else q
    kv_weights = held if kv_weights is None else kv_weights
    kv_cache = held if kv_cache is None else kv_cache
    mlp = config["intermediate_size"] // cards if mlp is None else mlp
    rows = -(-config["vocab_size"] // cards) if rows is None else rows
    if tables is None:
        tables = 1 if config["tie_word_embeddings"] else 2
    layer = hidden * (2 * size * (q + kv_weights) + 3 * mlp)
    numbers = layers * layer + norms * (2 * layers + last) * hidden + tables * rows * hidden
    return 2 * (numbers + 2 * layers * kv_cache * size * tokens)


@mutant(
    "everything is divided by the number of cards. Norms lie on every card, and a card holds at least one whole KV "
    "head."
)
def total_divided_by_cards(config, cards, tokens):
    return round(card_share(config, 1, tokens) / cards)


@mutant(
    "a KV head is cut into parts where there are fewer of them than cards. A head is never split: every card holds "
    "at least one, and some hold the same one."
)
def kv_head_cut(config, cards, tokens):
    part = config["num_key_value_heads"] / cards
    return _share(config, cards, tokens, kv_weights=part, kv_cache=part)


@mutant("where there are fewer KV heads than cards, num_key_value_heads // cards is 0. Every card holds at least one.")
def no_kv_head_left(config, cards, tokens):
    heads = config["num_key_value_heads"] // cards
    return _share(config, cards, tokens, kv_weights=heads, kv_cache=heads)


@mutant(
    "k and v have whole KV heads, but the cache is divided by the cards all the same. Where several cards hold one KV "
    "head, each holds its cache, too."
)
def only_the_cache_cut(config, cards, tokens):
    return _share(config, cards, tokens, kv_cache=config["num_key_value_heads"] / cards)


@mutant("the whole cache lies on every card. It is split by KV heads.")
def whole_cache_on_every_card(config, cards, tokens):
    return _share(config, cards, tokens, kv_cache=config["num_key_value_heads"])


@mutant(
    "the KV heads are not split at all: neither their projections nor their cache. A card holds only its own heads."
)
def kv_heads_not_split(config, cards, tokens):
    heads = config["num_key_value_heads"]
    return _share(config, cards, tokens, kv_weights=heads, kv_cache=heads)


@mutant(
    "the cache is counted with the query heads of a card. Only KV heads are cached: num_key_value_heads over cards, "
    "at least one."
)
def query_heads_cached(config, cards, tokens):
    return _share(config, cards, tokens, kv_cache=config["num_attention_heads"] // cards)


@mutant("the cache is missing. The tokens of all requests lie on the cards, too.")
def cache_forgotten(config, cards, tokens):
    return _share(config, cards, tokens, kv_cache=0)


@mutant("the norms are split. Every card needs the whole vector, because every card normalizes the whole hidden state.")
def norms_split(config, cards, tokens):
    return _share(config, cards, tokens, norms=1 / cards)


@mutant("the last norm is missing: the one between the last layer and the head. Every card holds it.")
def last_norm_forgotten(config, cards, tokens):
    return _share(config, cards, tokens, last=0)


@mutant("the norms are missing. Every card holds all of them.")
def norms_forgotten(config, cards, tokens):
    return _share(config, cards, tokens, norms=0)


@mutant("embedding and head are replicated. They are split by rows: each card holds a part of the vocabulary.")
def embedding_on_every_card(config, cards, tokens):
    return _share(config, cards, tokens, rows=config["vocab_size"])


@mutant(
    "the rows of the vocabulary are divided and rounded down. Where they do not split evenly, the first card holds "
    "one more: round up."
)
def vocabulary_rounded_down(config, cards, tokens):
    return _share(config, cards, tokens, rows=config["vocab_size"] // cards)


@mutant(
    "the rows of the vocabulary are divided and not rounded. A row is never cut: the first card holds "
    "vocab_size / cards, rounded up."
)
def vocabulary_not_rounded(config, cards, tokens):
    return _share(config, cards, tokens, rows=config["vocab_size"] / cards)


@mutant(
    "the first card is given all rows that are left over. Each card takes at most one of them: it holds "
    "vocab_size / cards, rounded up."
)
def all_rows_left_over(config, cards, tokens):
    return _share(config, cards, tokens, rows=sum(divmod(config["vocab_size"], cards)))


@mutant("the head is never counted. Without tie_word_embeddings it has as many rows as the embedding.")
def head_forgotten(config, cards, tokens):
    return _share(config, cards, tokens, tables=1)


@mutant("embedding and head are both counted although the head is tied.")
def tied_head_counted_twice(config, cards, tokens):
    return _share(config, cards, tokens, tables=2)


@mutant("only the MLP is split. The query heads and the output projection are split as well, by heads.")
def attention_not_split(config, cards, tokens):
    heads = config["num_key_value_heads"]
    return _share(config, cards, tokens, q=config["num_attention_heads"], kv_weights=heads, kv_cache=heads)


@mutant("only the attention is split. The MLP is split as well: each card has its part of intermediate_size.")
def mlp_not_split(config, cards, tokens):
    return _share(config, cards, tokens, mlp=config["intermediate_size"])


@mutant("the result is in GB. Return bytes.")
def in_gigabytes(config, cards, tokens):
    return card_share(config, cards, tokens) / 1e9


@mutant("this is the number of values. At 16 bits each takes 2 bytes.")
def values_instead_of_bytes(config, cards, tokens):
    return card_share(config, cards, tokens) // 2


def list_of_shards(config, cards, tokens):
    """Right, by the tensors of one card with their shapes."""
    hidden, size, mlp = config["hidden_size"], config["head_dim"], config["intermediate_size"] // cards
    # The KV heads that the first card's query heads look at, each counted once.
    group = config["num_attention_heads"] // config["num_key_value_heads"]
    held = {head // group for head in range(config["num_attention_heads"] // cards)}
    rows = len(range(0, config["vocab_size"], cards))
    shapes = [(rows, hidden)] if config["tie_word_embeddings"] else [(rows, hidden), (rows, hidden)]
    shapes.append((hidden,))
    for _layer in range(config["num_hidden_layers"]):
        query = (config["num_attention_heads"] // cards * size, hidden)
        key = (len(held) * size, hidden)
        shapes += [query, key, key, query[::-1], (mlp, hidden), (mlp, hidden), (hidden, mlp), (hidden,), (hidden,)]
        shapes += [(tokens, len(held), size)] * 2
    return sum(2 * math.prod(shape) for shape in shapes)


def total_corrected(config, cards, tokens):
    """Right, from the even share of the whole, plus what is replicated or rounded up; the result is a float."""
    hidden, layers, size = config["hidden_size"], config["num_hidden_layers"], config["head_dim"]
    kv_heads, tables = config["num_key_value_heads"], 2 - bool(config["tie_word_embeddings"])
    columns = 2 * size * (config["num_attention_heads"] + kv_heads) + 3 * config["intermediate_size"]
    whole = hidden * (layers * columns + tables * config["vocab_size"]) + 2 * layers * kv_heads * size * tokens
    share = Fraction(whole, cards) + (2 * layers + 1) * hidden
    missing_heads = max(Fraction(0), 1 - Fraction(kv_heads, cards))
    share += missing_heads * 2 * layers * size * (hidden + tokens)
    share += Fraction(-config["vocab_size"] % cards, cards) * tables * hidden
    return float(2 * share)


QUESTION = Question(
    id="memory.card_share",
    title="What one card holds",
    reference=card_share,
    cases=cases,
    properties=(every_byte_of_the_card_is_counted,),
    mutants=(
        total_divided_by_cards,
        kv_head_cut,
        no_kv_head_left,
        only_the_cache_cut,
        whole_cache_on_every_card,
        kv_heads_not_split,
        query_heads_cached,
        cache_forgotten,
        norms_forgotten,
        last_norm_forgotten,
        norms_split,
        embedding_on_every_card,
        vocabulary_rounded_down,
        vocabulary_not_rounded,
        all_rows_left_over,
        head_forgotten,
        tied_head_counted_twice,
        attention_not_split,
        mlp_not_split,
        values_instead_of_bytes,
        in_gigabytes,
    ),
    alternatives=(list_of_shards, total_corrected),
    hints=(
        "Write the model of one card: how many query heads, how many KV heads, how wide an MLP, how many rows of the "
        "vocabulary? Then count it as you counted the whole model.",
        "Query heads, intermediate_size and vocabulary are divided by cards (the vocabulary rounded up). A card has "
        "num_key_value_heads // cards KV heads, but never less than one. hidden_size and the norms stay whole.",
        "On one card, queries = its query heads * head_dim, keys = its KV heads * head_dim, and "
        "mlp = intermediate_size // cards. A layer has hidden_size * (2 * queries + 2 * keys + 3 * mlp + 2) numbers, "
        "and the cache 2 * layers * keys * tokens. With tables = 1 if the head is tied, else 2, the rest has "
        "hidden_size * (tables * math.ceil(vocab_size / cards) + 1). Twice the sum is the bytes.",
    ),
    explanation=(
        "Tensor parallelism cuts the model between heads and inside the MLP, never through a head. From 8 to 16 cards "
        "a model with 8 KV heads therefore gains nothing for its cache: every card still keeps one whole KV head of "
        "every token. That is why long contexts on many cards are split in other ways as well (by tokens, by layers)."
    ),
)
