"""memory.popular_cache: find the bug in the cache formula that most calculators use, and repair it for real configs."""

from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import Any

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .configs import GEMMA_7B, drawn, published


def cache_bytes(config, tokens):
    """Count the bytes of a 16-bit KV cache.

    config: a dict with hidden_size, num_hidden_layers, num_attention_heads; and, in newer
        models, num_key_value_heads and head_dim. Either of these two may be absent or None.
        Then every query head has its own KV head, and head_dim is
        hidden_size // num_attention_heads. Other fields of config.json may be there.
    tokens: over all requests.

    Returns the bytes, a whole number.
    """
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads") or heads
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    return 2 * config["num_hidden_layers"] * kv_heads * head_dim * 2 * tokens


# The models that the card counts by hand: a new one, and the same without the fields that an old one lacks.
CARD = {
    "num_hidden_layers": 2,
    "hidden_size": 12,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 5,
}
OLD_CARD = {name: CARD[name] for name in ("num_hidden_layers", "hidden_size", "num_attention_heads")}


def cases(seed: int) -> list[Case]:
    random = Random(seed)

    def tokens() -> int:
        return random.randrange(1, 40_000)

    return [
        Case("the example of the card", (CARD, 10)),
        Case("the example of the card without the last two fields", (OLD_CARD, 10)),
        Case("Llama-3-70B", (published("Llama-3-70B"), 32_768)),
        Case("Llama-2-7B, where every query head has its own KV head", (published("Llama-2-7B"), tokens())),
        Case("Qwen3-32B, whose heads together are wider than hidden_size", (published("Qwen3-32B"), tokens())),
        Case("Gemma-7B, whose heads together are wider than hidden_size", (GEMMA_7B, tokens())),
        Case("a small model of odd sizes", (_whole(random, 6, 2), tokens())),
        Case("an older config without head_dim", (_without(_regular(random, 8, 2), "head_dim"), tokens())),
        Case("a config without num_key_value_heads", (_without(_whole(random, 9, 9), "num_key_value_heads"), tokens())),
        Case(
            "the first Llama: neither field",
            (_without(published("Llama-2-7B"), "num_key_value_heads", "head_dim"), tokens()),
        ),
        Case("both fields are None", (_regular(random, 4, 4) | _NONE, tokens())),
    ]


_NONE = {"num_key_value_heads": None, "head_dim": None}


def _whole(random: Random, heads: int, kv_heads: int) -> dict[str, Any]:
    """A drawn config where the heads divide hidden_size, and whose head_dim is another number than the quotient."""
    config = drawn(random, heads, kv_heads)
    return config | {"hidden_size": config["hidden_size"] // heads * heads}


def _regular(random: Random, heads: int, kv_heads: int) -> dict[str, Any]:
    """A drawn config where head_dim is hidden_size / heads, and where no other quotient is the popular 128."""
    config = drawn(random, heads, kv_heads)
    while config["head_dim"] * heads == 128 * kv_heads:
        config = drawn(random, heads, kv_heads)
    return config | {"hidden_size": heads * config["head_dim"]}


def _without(config: dict[str, Any], *fields: str) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in fields}


def every_cached_byte_is_counted(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.whole_number_is(got, "the cache", expected, "bytes")


def _cache(config, tokens, *, numbers=2, layers=None, heads=None, size=None):
    """The right size, but for the parts that are given."""
    layers = config["num_hidden_layers"] if layers is None else layers
    heads = heads or config.get("num_key_value_heads") or config["num_attention_heads"]
    size = size or config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    return numbers * layers * heads * size * 2 * tokens


@mutant(
    "this is still the popular formula. It takes a key to be as wide as hidden_size; with grouped-query attention it "
    "has only num_key_value_heads * head_dim numbers."
)
def still_the_hidden_size(config, tokens):
    return _cache(config, tokens, heads=1, size=config["hidden_size"])


@mutant(
    "configs with both fields are right, but where a field is absent this is the popular formula again. Replace only "
    "the field that is absent."
)
def popular_where_a_field_is_absent(config, tokens):
    if config.get("num_key_value_heads") and config.get("head_dim"):
        return _cache(config, tokens)
    return _cache(config, tokens, heads=1, size=config["hidden_size"])


@mutant(
    "the query heads are counted with the right head size. But several query heads share one KV head: read "
    "num_key_value_heads where it is there."
)
def query_heads(config, tokens):
    return _cache(config, tokens, heads=config["num_attention_heads"])


@mutant(
    "the KV heads are right, but the head size is always hidden_size / num_attention_heads. Read head_dim where it is "
    "there; in Qwen3 and Gemma it is another number."
)
def head_size_always_computed(config, tokens):
    return _cache(config, tokens, size=config["hidden_size"] // config["num_attention_heads"])


@mutant(
    "where head_dim is absent, hidden_size is divided by the KV heads. It is divided by num_attention_heads: that many "
    "query heads share it."
)
def head_size_from_kv_heads(config, tokens):
    kv_heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    return _cache(config, tokens, size=config.get("head_dim") or config["hidden_size"] // kv_heads)


@mutant("the head size is taken to be 128 where the config does not say it. It is hidden_size // num_attention_heads.")
def head_size_guessed(config, tokens):
    return _cache(config, tokens, size=config.get("head_dim") or 128)


@mutant(
    "a config without num_key_value_heads is taken for one with a single KV head. It is an older model, in which "
    "every query head has its own."
)
def one_kv_head_where_absent(config, tokens):
    return _cache(config, tokens, heads=config.get("num_key_value_heads") or 1)


@mutant(
    "a config without num_key_value_heads is taken for one with 8, as in Llama-3. It is an older model, in which "
    "every query head has its own."
)
def eight_kv_heads_where_absent(config, tokens):
    return _cache(config, tokens, heads=config.get("num_key_value_heads") or 8)


@mutant(
    "absent fields are taken to be 8 KV heads and 128, as in Llama-3. An older model has a KV head for every query "
    "head, and its head_dim is hidden_size // num_attention_heads."
)
def defaults_of_llama_3(config, tokens):
    heads, size = config.get("num_key_value_heads") or 8, config.get("head_dim") or 128
    return _cache(config, tokens, heads=heads, size=size)


@mutant("the fields num_key_value_heads and head_dim are taken for granted. Older configs do not have them.")
def absent_fields_raise(config, tokens):
    per_layer = 2 * config["num_key_value_heads"] * config["head_dim"] * 2
    return config["num_hidden_layers"] * per_layer * tokens


@mutant(
    "absent fields are handled, but not fields that are None, which is what null in a config.json becomes. "
    "config.get(name, default) gives the default only where the field is absent."
)
def none_is_used_as_a_number(config, tokens):
    kv_heads = config.get("num_key_value_heads", config["num_attention_heads"])
    head_dim = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
    return 2 * config["num_hidden_layers"] * kv_heads * head_dim * 2 * tokens


@mutant(
    "the formula is divided by num_key_value_heads. The cache is smaller by num_attention_heads / "
    "num_key_value_heads, the number of query heads that share a KV head."
)
def divided_by_kv_heads(config, tokens):
    heads = config["num_attention_heads"]
    return _cache(config, tokens, heads=heads) // (config.get("num_key_value_heads") or 1)


@mutant("only one of the two factors 2 is left: there is a key and a value, and each number has 2 bytes.")
def only_one_factor_two(config, tokens):
    return _cache(config, tokens, numbers=1)


@mutant("the layers are missing. Every layer has a cache of its own.")
def one_layer(config, tokens):
    return _cache(config, tokens, layers=1)


@mutant("the tokens are missing: this is the cache of a single token.")
def one_token(config, tokens):
    return _cache(config, 1)


def completed_config(config, tokens):
    """Right, by completing the config first; then tensor by tensor."""
    known = SimpleNamespace(**{name: value for name, value in config.items() if value is not None})
    if not hasattr(known, "head_dim"):
        known.head_dim = known.hidden_size / known.num_attention_heads
    kv_heads = getattr(known, "num_key_value_heads", known.num_attention_heads)
    return sum(2.0 * tokens * kv_heads * known.head_dim for _tensor in range(2 * known.num_hidden_layers))


def from_the_queries(config, tokens):
    """Right, from the width of all queries, divided by the query heads that share a KV head."""
    heads = config["num_attention_heads"]
    try:
        width = heads * config["head_dim"]
    except (KeyError, TypeError):
        width = config["hidden_size"]
    sharing = heads // config["num_key_value_heads"] if config.get("num_key_value_heads") is not None else 1
    return 4 * tokens * config["num_hidden_layers"] * (width // sharing)


QUESTION = Question(
    id="memory.popular_cache",
    title="Find the bug: the popular cache formula",
    reference=cache_bytes,
    cases=cases,
    properties=(every_cached_byte_is_counted,),
    mutants=(
        still_the_hidden_size,
        popular_where_a_field_is_absent,
        query_heads,
        head_size_always_computed,
        head_size_from_kv_heads,
        head_size_guessed,
        one_kv_head_where_absent,
        eight_kv_heads_where_absent,
        defaults_of_llama_3,
        absent_fields_raise,
        none_is_used_as_a_number,
        divided_by_kv_heads,
        only_one_factor_two,
        one_layer,
        one_token,
    ),
    alternatives=(completed_config, from_the_queries),
    hints=(
        "For which model would the popular formula be right? Compare that model's config with the one of Llama-3-70B.",
        "Replace hidden_size by num_key_value_heads * head_dim. Then think of configs in which one of these fields is "
        "absent or None: what did attention look like when that config was written?",
        'kv_heads = config.get("num_key_value_heads") or config["num_attention_heads"]; '
        'head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"].',
    ),
    explanation=(
        "hidden_size = heads * head_dim was a habit of the early models, and so was one KV head per query head. "
        "The formula that uses it is right for Llama-2-7B, eight times too large for Llama-3-70B, and too small for "
        "Gemma-7B. An absent field means the older default, and null in the file arrives as None, for which "
        "config.get(name, default) does not give the default: `or` handles both."
    ),
)
