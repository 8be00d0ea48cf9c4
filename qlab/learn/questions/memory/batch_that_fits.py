"""memory.batch_that_fits: how many requests a card holds beside the weights, with the units that people mix up."""

from __future__ import annotations

import math
from fractions import Fraction
from random import Random
from typing import Any

from ....deploy import gpu, memory
from ... import properties as p
from ...question import Case, Finding, Question, mutant

GIB = 2**30


def batch_that_fits(card_gib, weights, kv_per_token, context, utilization, overhead_gb):
    """Say how many requests fit on one card at once.

    card_gib: memory of the card in GiB (2**30 bytes), as CUDA shows it.
    weights: bytes of the weights.
    kv_per_token: bytes of KV cache per token.
    context: tokens of each request.
    utilization: the share of the card that the server may use, above 0 and at most 1.
    overhead_gb: activations and CUDA context, inside that share, in GB (10**9 bytes).

    Returns a whole number, 0 or more.
    """
    left = card_gib * 2**30 * utilization - weights - overhead_gb * 1e9
    return max(0, math.floor(left / (kv_per_token * context)))


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    a100, l4 = gpu("A100-80GB").memory_visible_gib, gpu("L4").memory_visible_gib
    return [
        Case("the example of the card", (10, 5_000_000_000, 100_000, 2000, 0.9, 1)),
        Case("Llama-3-70B at 8 bits on an A100 with 80 GB", (a100, *_model("Llama-3-70B", "int8"), 1024, 0.92, 1.5)),
        Case("Llama-3-70B at 4 bits on an A100 with 80 GB", (a100, *_model("Llama-3-70B", "int4-g128"), 2000, 0.9, 2)),
        Case("the weights do not fit", (a100, *_model("Llama-3-70B", "bf16"), 4096, 0.92, 1.5)),
        Case("Llama-3-8B at 4 bits on an L4, a long context", (l4, *_model("Llama-3-8B", "int4-g128"), 8192, 0.9, 1.0)),
        Case("room for a good half of one request", _drawn(random, 0, 0.7)),
        Case("room for almost one request more", _drawn(random, random.randrange(3, 9), 0.9)),
        Case("just enough room for the last request", _drawn(random, random.randrange(3, 9), 0.1)),
        Case("many short requests", _drawn(random, random.randrange(900, 1200), 0.6, context=101)),
        Case("the last request fits to the byte", _full(random)),
    ]


def _model(name: str, precision: str) -> tuple[int, int]:
    """Weights and KV cache per token, in bytes."""
    found = memory(name, precision)
    return found.weights, found.kv_per_token


def _drawn(random: Random, requests: int, more: float, context: int | None = None) -> tuple[Any, ...]:
    """Arguments with room for that many requests and a part of another one: the weights are made to match."""
    card = random.randrange(6000, 14000) / 100
    kv_per_token = 1024 * random.randrange(64, 161)
    context = context or random.randrange(4000, 9000)
    utilization, overhead = random.choice((0.85, 0.88, 0.9)), random.choice((2, 2.5, 3))
    room = (requests + more) * kv_per_token * context
    return card, round(card * GIB * utilization - overhead * 1e9 - room), kv_per_token, context, utilization, overhead


def _full(random: Random) -> tuple[Any, ...]:
    """Arguments with room for some requests and not a byte more.

    All sizes are whole GB, of which these cards have a whole number: floats divide nothing unevenly, in any unit.
    """
    card_gb, utilization, overhead = random.choice((64, 128)), random.choice((0.5, 0.75)), random.choice((1, 2))
    kv_per_token, context = random.choice(((100_000, 10_000), (125_000, 8_000), (250_000, 4_000)))  # 1 GB per request
    requests = random.randrange(3, 20)
    weights = (int(card_gb * utilization) - overhead - requests) * 10**9
    return card_gb * 10**9 / GIB, weights, kv_per_token, context, utilization, overhead


def not_a_negative_number(case: Case, got: Any, expected: Any) -> Finding | None:
    value = p.as_number(got)
    if value is None or value >= 0:
        return None
    return Finding(
        "the batch is a negative number; where nothing fits, return 0",
        expected=f"{expected} requests",
        got=f"{value:,.10g} requests",
    )


def requests_are_those_that_fit(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.whole_number_is(got, "the batch", expected, "requests")


def _batch(card, weights, per_request, utilization, overhead):
    """The right answer from bytes."""
    return max(0, math.floor((card * utilization - weights - overhead) / per_request))


@mutant(
    "the card's GiB are taken as GB. CUDA shows 2**30 bytes per GiB: 79.15 GiB are 84.99 GB, so this gives away 7 % "
    "of the card."
)
def gib_as_gb(card_gib, weights, kv_per_token, context, utilization, overhead_gb):
    return _batch(card_gib * 1e9, weights, kv_per_token * context, utilization, overhead_gb * 1e9)


@mutant("the overhead is taken in GiB. It comes in GB, 10**9 bytes each.")
def overhead_in_gib(card_gib, weights, kv_per_token, context, utilization, overhead_gb):
    return _batch(card_gib * GIB, weights, kv_per_token * context, utilization, overhead_gb * GIB)


@mutant("the utilization is not used. A server does not take the whole card; vLLM's default is 0.92.")
def utilization_forgotten(card_gib, weights, kv_per_token, context, utilization, overhead_gb):
    return _batch(card_gib * GIB, weights, kv_per_token * context, 1, overhead_gb * 1e9)


@mutant(
    "the utilization is applied to what is left after the weights and the overhead. It is a share of the whole card: "
    "multiply first, then subtract."
)
def utilization_of_the_rest(card_gib, weights, kv_per_token, context, utilization, overhead_gb):
    left = (card_gib * GIB - weights - overhead_gb * 1e9) * utilization
    return max(0, math.floor(left / (kv_per_token * context)))


@mutant(
    "the overhead is taken off before the utilization is applied. It lies inside the share that the server may use: "
    "multiply the card first."
)
def overhead_before_utilization(card_gib, weights, kv_per_token, context, utilization, overhead_gb):
    card = card_gib * GIB - overhead_gb * 1e9
    return _batch(card, weights, kv_per_token * context, utilization, 0)


@mutant("the overhead is missing, or subtracted as if it were bytes. It comes in GB, 10**9 bytes each.")
def overhead_forgotten(card_gib, weights, kv_per_token, context, utilization, overhead_gb):
    return _batch(card_gib * GIB, weights, kv_per_token * context, utilization, 0)


@mutant("the weights are missing. They lie on the card before the first request comes.")
def weights_forgotten(card_gib, weights, kv_per_token, context, utilization, overhead_gb):
    return _batch(card_gib * GIB, 0, kv_per_token * context, utilization, overhead_gb * 1e9)


@mutant("this is the number of tokens that fit. Divide by the tokens of a request.")
def tokens_instead_of_requests(card_gib, weights, kv_per_token, context, utilization, overhead_gb):
    return _batch(card_gib * GIB, weights, kv_per_token, utilization, overhead_gb * 1e9)


@mutant(
    "left // kv_per_token * context multiplies by the context: Python goes from left to right. Put the product into "
    "parentheses."
)
def multiplied_by_the_context(card_gib, weights, kv_per_token, context, utilization, overhead_gb):
    return _batch(card_gib * GIB, weights, kv_per_token, utilization, overhead_gb * 1e9) * context


@mutant("the quotient is rounded to the nearest number. A request that only half fits does not fit: round down.")
def rounded_to_nearest(card_gib, weights, kv_per_token, context, utilization, overhead_gb):
    left = card_gib * GIB * utilization - weights - overhead_gb * 1e9
    return max(0, round(left / (kv_per_token * context)))


@mutant("the quotient is rounded up. The last request has no room then: round down.")
def rounded_up(card_gib, weights, kv_per_token, context, utilization, overhead_gb):
    left = card_gib * GIB * utilization - weights - overhead_gb * 1e9
    return max(0, math.ceil(left / (kv_per_token * context)))


@mutant("the quotient is not rounded. Requests come whole: round down.")
def not_rounded(card_gib, weights, kv_per_token, context, utilization, overhead_gb):
    left = card_gib * GIB * utilization - weights - overhead_gb * 1e9
    return max(0.0, left / (kv_per_token * context))


@mutant("where the weights do not fit, the number of requests comes out negative. Then no request fits: return 0.")
def negative_where_weights_do_not_fit(card_gib, weights, kv_per_token, context, utilization, overhead_gb):
    left = card_gib * GIB * utilization - weights - overhead_gb * 1e9
    return math.floor(left / (kv_per_token * context))


@mutant(
    "where the weights do not fit, the number of requests comes out negative. int cuts the fraction off and keeps the "
    "sign: return 0 there."
)
def negative_and_cut(card_gib, weights, kv_per_token, context, utilization, overhead_gb):
    left = card_gib * GIB * utilization - weights - overhead_gb * 1e9
    return int(left / (kv_per_token * context))


@mutant("a request that takes exactly what is left does fit: compare with <= and not with <.")
def not_the_one_that_fits_exactly(card_gib, weights, kv_per_token, context, utilization, overhead_gb):
    left = card_gib * GIB * utilization - weights - overhead_gb * 1e9
    return max(0, math.ceil(left / (kv_per_token * context)) - 1)


@mutant("at least one request is promised. Where less than one fits, the answer is 0.")
def at_least_one(card_gib, weights, kv_per_token, context, utilization, overhead_gb):
    return max(1, batch_that_fits(card_gib, weights, kv_per_token, context, utilization, overhead_gb))


def one_more_until_it_is_full(card_gib, weights, kv_per_token, context, utilization, overhead_gb):
    """Right, by adding requests until the next one does not fit."""
    used = weights + overhead_gb * 1e9
    batch = 0
    while used + (batch + 1) * kv_per_token * context <= card_gib * 2**30 * utilization:
        batch += 1
    return batch


def tokens_first_as_fractions(card_gib, weights, kv_per_token, context, utilization, overhead_gb):
    """Right, with exact decimal fractions, and tokens before requests."""
    budget = Fraction(str(card_gib)) * 2**30 * Fraction(str(utilization)) - Fraction(str(overhead_gb)) * 10**9
    tokens = (budget - weights) // kv_per_token
    return float(tokens // context) if tokens > 0 else 0.0


QUESTION = Question(
    id="memory.batch_that_fits",
    title="How many requests fit",
    reference=batch_that_fits,
    cases=cases,
    properties=(
        not_a_negative_number,
        requests_are_those_that_fit,
    ),
    mutants=(
        gib_as_gb,
        overhead_in_gib,
        utilization_forgotten,
        utilization_of_the_rest,
        overhead_before_utilization,
        overhead_forgotten,
        weights_forgotten,
        tokens_instead_of_requests,
        multiplied_by_the_context,
        rounded_to_nearest,
        rounded_up,
        not_rounded,
        negative_where_weights_do_not_fit,
        negative_and_cut,
        not_the_one_that_fits_exactly,
        at_least_one,
    ),
    alternatives=(one_more_until_it_is_full, tokens_first_as_fractions),
    hints=(
        "Turn everything into bytes before you subtract anything. Which of the six arguments are not bytes?",
        "The server may use card_gib * 2**30 * utilization bytes. Weights and overhead_gb * 1e9 come off that; "
        "what is left is divided by the bytes of one request.",
        "left = card_gib * 2**30 * utilization - weights - overhead_gb * 1e9; divide by kv_per_token * context, "
        "round down with math.floor, and return at least 0 with max.",
    ),
    explanation=(
        "The order matters: the utilization is a share of the card, not of what the weights leave. On an 80 GB A100 "
        "with Llama-3-70B in 8 bits (scales not counted) the room for the cache is a small difference: "
        "79.15 GiB * 0.92 - 1.5 GB - 72.7 GB = 4.0 GB. The gap between GB and GiB, 7 % of the card, is more than all "
        "of it. State the three assumptions (visible memory, utilization, overhead) whenever you give such a number."
    ),
)
