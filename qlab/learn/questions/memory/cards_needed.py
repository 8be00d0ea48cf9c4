"""memory.cards_needed: the smallest number of equal cards on which the weights and the cache fit."""

from __future__ import annotations

from fractions import Fraction
from random import Random
from typing import Any

from ....deploy import gpu, memory
from ... import properties as p
from ...question import Case, Finding, Question, mutant

GIB = 2**30


def cards_needed(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    """Say how many equal cards a server needs: 1, 2, 4 or 8.

    weights: bytes of all weights; they are split evenly over the cards.
    cache: bytes of the whole cache; it is split evenly over the cards.
    attention_heads: of the model; the number of cards must divide it.
    card_gib: memory of one card in GiB (2**30 bytes).
    utilization: the share of it that the server may use.
    overhead_gb: inside that share, on every card, in GB (10**9 bytes).

    Returns the smallest number that will do, or 0 where none of the four does.
    """
    usable = card_gib * 2**30 * utilization - overhead_gb * 1e9
    for cards in (1, 2, 4, 8):
        if attention_heads % cards == 0 and cards * usable >= weights + cache:
            return cards
    return 0


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    return [
        Case("the example of the card, 32 heads", (60 * 10**9, 70 * 10**9, 32, 40, 0.9, 2)),
        Case("the example of the card, 14 heads", (60 * 10**9, 70 * 10**9, 14, 40, 0.9, 2)),
        Case("Llama-3-70B at 16 bits, 64 requests of 8,192 tokens, on A100s", _server("Llama-3-70B", "bf16", 64)),
        Case("Llama-3-70B at 4 bits, 16 requests of 8,192 tokens, on A100s", _server("Llama-3-70B", "int4-g128", 16)),
        Case("one card is not enough because of the overhead", _drawn(random, 1, 64, overheads=0.4)),
        Case("four cards are not enough because each has its overhead", _drawn(random, 4, 32, overheads=2)),
        # (card - overhead) * utilization gives too much: a tenth of the overhead, on each card.
        Case("two cards are not enough because the overhead lies inside the share", _drawn(random, 2, 64, 0.1)),
        Case("two cards are not enough because the server may not use all of them", _drawn(random, 2.13, 64)),
        Case("almost nothing is left on four cards", _drawn(random, 3.97, 40)),
        Case("four cards would do, but the heads do not split into four", _drawn(random, 3.1, 14)),
        Case("three cards would do", _drawn(random, random.uniform(2.3, 2.4), 48)),
        Case("two cards hold weights and cache to the byte", _full(random)),
        Case("almost all of it is weights", _drawn(random, random.uniform(1.6, 1.9), 48, cache=0.02)),
        Case("almost all of it is cache", _drawn(random, random.uniform(1.6, 1.9), 8, cache=0.9)),
        Case("not even eight cards are enough", _drawn(random, random.uniform(9, 12), 96)),
        Case("an odd number of heads", _drawn(random, random.uniform(0.5, 0.8), 9)),
        Case("the overhead is larger than the share of a card", (*_drawn(random, 0.5, 32)[:3], 4.75, 0.5, 3)),
        # Their answers differ from seed to seed, so that nobody passes with a list of answers.
        *(Case(f"any server, draw {i}", _drawn(random, random.choice((0.9, 1.8, 3.6, 7.2)), 64)) for i in (1, 2, 3)),
    ]


def _drawn(random: Random, cards: float, heads: int, overheads: float = 0, cache: float = 0.3) -> tuple[Any, ...]:
    """Arguments that need that many cards, if cards had parts, and then so many times the overhead of a card.

    `cache` is its share of the bytes.
    """
    card, utilization, overhead = random.choice((44.4, 79.15, 139.8)), 0.9, random.choice((1, 1.5, 2))
    need = cards * (card * GIB * utilization - overhead * 1e9) + overheads * overhead * 1e9
    part = round(need * cache * random.uniform(0.95, 1.05))
    return round(need) - part, part, heads, card, utilization, overhead


def _full(random: Random) -> tuple[Any, ...]:
    """Arguments that need two cards and all of both.

    All sizes are whole GB, of which these cards have a whole number: floats divide nothing unevenly, in any unit.
    """
    card_gb, utilization, overhead = random.choice((64, 128)), random.choice((0.5, 0.75)), random.choice((1, 2))
    need = 2 * (int(card_gb * utilization) - overhead)
    cache = random.randrange(3, need // 2)
    return (need - cache) * 10**9, cache * 10**9, 64, card_gb * 10**9 / GIB, utilization, overhead


def _server(name: str, precision: str, batch: int) -> tuple[Any, ...]:
    found = memory(name, precision, batch=batch, context=8192)
    card = gpu("A100-80GB").memory_visible_gib
    return found.weights, found.kv_cache, found.spec.attention_heads, card, 0.92, 1.5


def fewest_cards_that_do(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.whole_number_is(got, "the number of cards", expected, "cards")


def _fewest(fit, heads, choices=(1, 2, 4, 8), otherwise=0):
    """The first number of cards that divides the heads and for which `fit` holds."""
    return next((cards for cards in choices if heads % cards == 0 and fit(cards)), otherwise)


def _usable(card_gib, utilization, overhead_gb):
    return card_gib * GIB * utilization - overhead_gb * 1e9


@mutant("the cards' GiB are taken as GB. CUDA shows GiB, 2**30 bytes each, so this gives away 7 % of every card.")
def gib_as_gb(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    usable = card_gib * 1e9 * utilization - overhead_gb * 1e9
    return _fewest(lambda cards: cards * usable >= weights + cache, attention_heads)


@mutant("the overhead is subtracted once. Every card has its own activations and its own CUDA context.")
def overhead_only_once(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    need = weights + cache + overhead_gb * 1e9
    return _fewest(lambda cards: cards * card_gib * GIB * utilization >= need, attention_heads)


@mutant("the overhead is missing, or subtracted as if it were bytes. Every card has its own, and it comes in GB.")
def overhead_forgotten(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    return cards_needed(weights, cache, attention_heads, card_gib, utilization, 0)


@mutant(
    "the overhead is taken off before the utilization is applied. It lies inside the share that the server may use: "
    "multiply the card first."
)
def overhead_before_utilization(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    usable = (card_gib * GIB - overhead_gb * 1e9) * utilization
    return _fewest(lambda cards: cards * usable >= weights + cache, attention_heads)


@mutant("the utilization is not used. A server takes only that share of every card.")
def utilization_forgotten(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    return cards_needed(weights, cache, attention_heads, card_gib, 1, overhead_gb)


@mutant("the cache is missing: this is how many cards load the model. They must also hold its requests.")
def cache_forgotten(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    return cards_needed(weights, 0, attention_heads, card_gib, utilization, overhead_gb)


@mutant("every card is given the whole cache. Tensor parallelism splits the KV heads, and with them the cache.")
def cache_on_every_card(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    usable = _usable(card_gib, utilization, overhead_gb)
    return _fewest(lambda cards: usable >= weights / cards + cache, attention_heads)


@mutant("every card is given all weights. Tensor parallelism splits the matrices: every card has a slice of each.")
def weights_on_every_card(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    usable = _usable(card_gib, utilization, overhead_gb)
    return _fewest(lambda cards: usable >= weights + cache / cards, attention_heads)


@mutant("weights and cache get cards of their own. A card may hold a part of both: add the bytes, not the cards.")
def cards_for_each(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    rest = (attention_heads, card_gib, utilization, overhead_gb)
    return cards_needed(weights, 0, *rest) + cards_needed(0, cache, *rest)


@mutant("this is the quotient rounded up, so 3 or 5 can come out. Choose from 1, 2, 4 and 8.")
def any_number_of_cards(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    return int(-((weights + cache) // -_usable(card_gib, utilization, overhead_gb)))


@mutant("the heads are not looked at. Every card computes whole heads, so the number of cards must divide them.")
def heads_not_checked(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    return cards_needed(weights, cache, 8, card_gib, utilization, overhead_gb)


@mutant("3, 5, 6 and 7 are tried as well. A server has 1, 2, 4 or 8 cards: range(1, 9) has too many numbers.")
def every_number_up_to_eight(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    usable = _usable(card_gib, utilization, overhead_gb)
    return _fewest(lambda cards: cards * usable >= weights + cache, attention_heads, range(1, 9))


@mutant("only one card is tried. Is the return 0 inside the loop? It belongs behind it.")
def only_one_card_tried(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    usable = _usable(card_gib, utilization, overhead_gb)
    return _fewest(lambda cards: cards * usable >= weights + cache, attention_heads, (1,))


@mutant("8 cards are never tried: the numbers are 1, 2, 4 and 8.")
def eight_never_tried(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    usable = _usable(card_gib, utilization, overhead_gb)
    return _fewest(lambda cards: cards * usable >= weights + cache, attention_heads, (1, 2, 4))


@mutant("what fills the cards to the last byte does fit: compare with >= and not with >.")
def not_what_fits_exactly(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    usable = _usable(card_gib, utilization, overhead_gb)
    return _fewest(lambda cards: cards * usable > weights + cache, attention_heads)


@mutant(
    "the bytes are divided by what one card has to give, and that is negative where the overhead is larger than the "
    "share. Then no number of cards will do."
)
def divided_by_a_negative_number(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    usable = _usable(card_gib, utilization, overhead_gb)
    return _fewest(lambda cards: cards >= (weights + cache) / usable, attention_heads)


@mutant("cards % attention_heads is the wrong way round: the heads must leave no remainder when divided by the cards.")
def cards_divided_by_heads(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    usable = _usable(card_gib, utilization, overhead_gb)
    enough = [cards for cards in (1, 2, 4, 8) if cards % attention_heads == 0 and cards * usable >= weights + cache]
    return enough[0] if enough else 0


@mutant("no number of cards ever does. Are GiB or GB compared with bytes? Turn all sizes into bytes first.")
def sizes_not_in_bytes(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    usable = card_gib * utilization - overhead_gb
    return _fewest(lambda cards: cards * usable >= weights + cache, attention_heads)


@mutant("the last number to try is returned even where it is not enough. Return 0 where none of the four will do.")
def eight_where_none_will_do(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    usable = _usable(card_gib, utilization, overhead_gb)
    return _fewest(lambda cards: cards * usable >= weights + cache, attention_heads, otherwise=8)


@mutant("the search goes on after 8. A server has 1, 2, 4 or 8 cards here; return 0 where that is not enough.")
def beyond_eight(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    usable = _usable(card_gib, utilization, overhead_gb)
    return _fewest(lambda cards: cards * usable >= weights + cache, attention_heads, (1, 2, 4, 8, 16, 32, 64))


@mutant("the number is rounded down to a power of two: the last cards are missing. Everything has to fit: round up.")
def rounded_down(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    usable = _usable(card_gib, utilization, overhead_gb)
    enough = [cards for cards in (1, 2, 4, 8) if attention_heads % cards == 0 and cards * usable <= weights + cache]
    return enough[-1] if enough else 1


def what_each_card_holds(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    """Right, with exact fractions, by the load of one card; doubled until it fits."""
    cards = 1
    while attention_heads % cards == 0 and cards <= 8:
        load = Fraction(weights + cache, cards) + Fraction(str(overhead_gb)) * 10**9
        if load <= Fraction(str(card_gib)) * 2**30 * Fraction(str(utilization)):
            return cards
        cards *= 2
    return 0


def all_that_will_do(weights, cache, attention_heads, card_gib, utilization, overhead_gb):
    """Right, by the smallest of all numbers that do; the result is a float."""
    usable = card_gib * utilization * 2**30 / 1e9 - overhead_gb
    need = weights / 1e9 + cache / 1e9
    allowed = [2.0**power for power in range(4) if attention_heads % 2**power == 0]
    return min((cards for cards in allowed if need / cards <= usable), default=0.0)


QUESTION = Question(
    id="memory.cards_needed",
    title="How many cards",
    reference=cards_needed,
    cases=cases,
    properties=(fewest_cards_that_do,),
    mutants=(
        gib_as_gb,
        sizes_not_in_bytes,
        overhead_only_once,
        overhead_forgotten,
        overhead_before_utilization,
        utilization_forgotten,
        cache_forgotten,
        cache_on_every_card,
        weights_on_every_card,
        cards_for_each,
        any_number_of_cards,
        every_number_up_to_eight,
        only_one_card_tried,
        eight_never_tried,
        not_what_fits_exactly,
        divided_by_a_negative_number,
        heads_not_checked,
        cards_divided_by_heads,
        eight_where_none_will_do,
        beyond_eight,
        rounded_down,
    ),
    alternatives=(what_each_card_holds, all_that_will_do),
    hints=(
        "How many bytes of one card are left for weights and cache? That number is the same for every card.",
        "One card has card_gib * 2**30 * utilization - overhead_gb * 1e9 bytes to give. Try 1, 2, 4 and 8 in this "
        "order, and look at two conditions: the bytes and the heads.",
        "usable = card_gib * 2**30 * utilization - overhead_gb * 1e9. For cards in (1, 2, 4, 8): return cards if "
        "attention_heads % cards == 0 and cards * usable >= weights + cache. After the loop, return 0.",
    ),
    explanation=(
        "Each card pays the overhead and the unused share again, so four cards give less than four times one card's "
        "memory. Llama-3-70B at 16 bits with 64 requests of 8,192 tokens needs 312.9 GB; four A100s with 80 GB offer "
        "306.8 GB at a utilization of 0.92 and 1.5 GB of overhead each, "
        "and the next size is eight. A model with 14 heads, such as Qwen2.5-0.5B, cannot be split into four."
    ),
)
