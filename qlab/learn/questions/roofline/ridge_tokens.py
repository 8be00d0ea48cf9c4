"""roofline.ridge_tokens: from how many tokens on a product waits for arithmetic and no more for memory."""

from __future__ import annotations

import math
from fractions import Fraction
from random import Random
from typing import Any

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .devices import EVEN, limits


def ridge_tokens(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    """Find the fewest tokens with which y = x @ W.T is bound by compute.

    W (outputs, inputs), x (tokens, inputs) and y (tokens, outputs) are moved once each.

    weight_bits: of a weight, with its share of the scales, such as 4.125.
    x_bits, y_bits: of one number of x and of y.
    bandwidth: bytes per second.
    rate: operations per second.

    A product is bound by compute where its operations take longer than its bytes; where
    both take equally long it is bound by memory.

    Returns the smallest such number of tokens, 1 or more; 0 where there is none, however
    many tokens come.
    """
    weight = outputs * inputs * weight_bits / 8 / bandwidth
    token = (inputs * x_bits + outputs * y_bits) / 8 / bandwidth
    compute = 2 * outputs * inputs / rate
    if compute <= token:
        return 0
    return math.floor(weight / (compute - token)) + 1


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    a100, h100, l4 = limits("A100-80GB"), limits("H100-80GB"), limits("L4")
    size = 2 ** random.randrange(9, 13)
    return [
        Case("the example of the card", (64, 64, 4, 16, 16, *EVEN)),
        Case("the example of the card, a matrix with few outputs", (8, 64, 4, 16, 16, *EVEN)),
        Case("Llama-3-8B down, 16 bits, on an A100", (4096, 14336, 16, 16, 16, *a100)),
        Case("Llama-3-70B up, 4.125 bits, on an H100", (28672, 8192, 4.125, 16, 16, *h100)),
        Case("Llama-3-70B up, W8A8, on an A100", (28672, 8192, 8, 8, 16, *limits("A100-80GB", "int8"))),
        Case("Llama-3-8B k, 16 bits, on an L4", (1024, 4096, 16, 16, 16, *l4)),
        Case("an adapter of rank 16 on an H100", (16, 4096, 16, 16, 16, *h100)),
        Case("equal times with a whole number of tokens", _tie(random, size)),
        # Arithmetic takes as long as x and y alone, so the weight always tips the balance.
        Case("each further token takes both limits equally long", (size, size, 8, 16, 16, 2.0**40, size * 2.0**39)),
        Case("one token is enough", (*_sizes(random), 2.5, 16, 16, 2.0**40, 3 * 2.0**40)),
        Case("a little more than so many tokens", _drawn(random, random.randrange(40, 400) + 0.1)),
        Case("almost one token more", _drawn(random, random.randrange(40, 400) + 0.9)),
        Case("a result of 32 bits", _drawn(random, random.randrange(100, 900) + 0.3, y_bits=32)),
        Case("an input of 8 bits", _drawn(random, random.randrange(100, 900) + 0.4, x_bits=8)),
        Case("very many tokens", _drawn(random, random.randrange(20_000, 60_000) + 0.5)),
    ]


def _sizes(random: Random) -> tuple[int, int]:
    return 2 * random.randrange(500, 3000) + 1, 2 * random.randrange(500, 3000) + 1


def _tie(random: Random, size: int) -> tuple[Any, ...]:
    """A square product with equal times at size / 8, size / 4 or size / 2 tokens, in powers of two."""
    return size, size, random.choice((4, 8, 16)), 16, 16, 2.0**40, size * 2.0**38


def _drawn(random: Random, tokens: float, x_bits: int = 16, y_bits: int = 16) -> tuple[Any, ...]:
    """Arguments with equal times at that number of tokens, which is no whole one: the rate is made to match."""
    (outputs, inputs), bits, bandwidth = (
        _sizes(random),
        random.choice((3.25, 4.125, 8.125)),
        1e9 * random.randrange(300, 4000),
    )
    seconds = (outputs * inputs * bits / tokens + inputs * x_bits + outputs * y_bits) / 8 / bandwidth
    return outputs, inputs, bits, x_bits, y_bits, bandwidth, 2 * outputs * inputs / seconds


def never_is_zero(case: Case, got: Any, expected: Any) -> Finding | None:
    value = p.as_number(got)
    if expected != 0 or value is None or value == 0:
        return None
    return Finding(
        "here x and y alone take as long as the operations or longer, with any number of tokens: return 0",
        expected="0",
        got=f"{value:,.10g}",
    )


def the_fewest_tokens(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.whole_number_is(got, "the number of tokens", expected, "tokens")


def _fewest(weight, token, compute, otherwise=0):
    """The right answer from seconds: of the weight, of x and y of one token, of the operations of one token."""
    return math.floor(weight / (compute - token)) + 1 if compute > token else otherwise


def _seconds(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    weight = outputs * inputs * weight_bits / 8 / bandwidth
    token = (inputs * x_bits + outputs * y_bits) / 8 / bandwidth
    return weight, token, 2 * outputs * inputs / rate


@mutant(
    "this is the ridge of the device, rate / bandwidth. It counts operations per byte and not tokens: a token does two "
    "operations with each weight, and a weight has weight_bits / 8 bytes."
)
def ridge_of_the_device(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    return math.floor(rate / bandwidth) + 1


@mutant(
    "only the weight is moved here. Every token brings its own x and y, so the number is larger, and where they take "
    "longer than the operations there is none."
)
def activations_forgotten(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    weight, _, compute = _seconds(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate)
    return _fewest(weight, 0, compute)


@mutant("x and y are counted for one token only. Every token brings its own.")
def activations_of_one_token(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    weight, token, compute = _seconds(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate)
    return _fewest(weight + token, 0, compute)


@mutant("the input is not counted: x is read, too.")
def input_forgotten(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    return ridge_tokens(outputs, inputs, weight_bits, 0, y_bits, bandwidth, rate)


@mutant("the result is not counted: y is written, and that takes the memory's time as well.")
def result_forgotten(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    return ridge_tokens(outputs, inputs, weight_bits, x_bits, 0, bandwidth, rate)


@mutant("the shapes of x and y are exchanged. A token has inputs numbers of x_bits and outputs numbers of y_bits.")
def shapes_exchanged(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    return ridge_tokens(outputs, inputs, weight_bits, y_bits, x_bits, bandwidth, rate)


@mutant("the result has the bits of the input here. It has its own, y_bits.")
def result_in_x_bits(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    return ridge_tokens(outputs, inputs, weight_bits, x_bits, x_bits, bandwidth, rate)


@mutant("bits are counted as bytes. A byte has 8 bits.")
def bits_as_bytes(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    return ridge_tokens(outputs, inputs, 8 * weight_bits, 8 * x_bits, 8 * y_bits, bandwidth, rate)


@mutant("the operations lack the factor 2: a multiplication and an addition for each weight and token.")
def without_the_two(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    weight, token, compute = _seconds(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate)
    return _fewest(weight, token, compute / 2)


@mutant("the weight has 16 bits here, whatever weight_bits says.")
def sixteen_bits_always(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    return ridge_tokens(outputs, inputs, 16, x_bits, y_bits, bandwidth, rate)


@mutant("weight_bits is cut to a whole number, and the scales with it: 4.125 are not 4.")
def whole_bits(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    return ridge_tokens(outputs, inputs, int(weight_bits), x_bits, y_bits, bandwidth, rate)


@mutant("bandwidth and rate are exchanged: bytes are divided by the bandwidth, operations by the rate.")
def rates_exchanged(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    return ridge_tokens(outputs, inputs, weight_bits, x_bits, y_bits, rate, bandwidth)


@mutant(
    "where both times are equal the product is bound by memory still. Rounding up gives that number of tokens, and "
    "one more is needed."
)
def equal_times_count(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    weight, token, compute = _seconds(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate)
    return max(1, math.ceil(weight / (compute - token))) if compute > token else 0


@mutant("this is the largest number of tokens that is bound by memory: rounded down. One more is bound by compute.")
def the_last_one_below(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    weight, token, compute = _seconds(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate)
    return math.floor(weight / (compute - token)) if compute > token else 0


@mutant("the quotient is rounded to the nearest number. Below it the product is still bound by memory.")
def rounded_to_nearest(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    weight, token, compute = _seconds(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate)
    return round(weight / (compute - token)) if compute > token else 0


@mutant("the quotient is not rounded. Tokens come whole.")
def not_rounded(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    weight, token, compute = _seconds(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate)
    return weight / (compute - token) if compute > token else 0


@mutant("the number is rounded up to a power of two. The fewest tokens are asked for.")
def next_power_of_two(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    fewest = ridge_tokens(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate)
    return 2 ** math.ceil(math.log2(fewest)) if fewest else 0


@mutant("the search ends before it finds the number. Tens of thousands of tokens may be needed: compute it, or go on.")
def search_ends_too_early(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    fewest = ridge_tokens(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate)
    return fewest if fewest <= 4096 else 0


@mutant("where no number of tokens is enough, a negative one comes out. Look at one token's times first, and return 0.")
def never_looked_at(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    weight, token, compute = _seconds(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate)
    return math.floor(weight / (compute - token)) + 1


@mutant(
    "where one token's operations take exactly as long as its x and y, this divides by zero. The weight comes on top "
    "then, so no number is enough: compare with <=."
)
def equal_slopes_forgotten(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    weight, token, compute = _seconds(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate)
    return 0 if compute < token else math.floor(weight / (compute - token)) + 1


@mutant("where no number of tokens is enough, infinity comes back. It is 0 here.")
def infinity_for_never(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    return _fewest(*_seconds(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate), otherwise=math.inf)


@mutant("where no number of tokens is enough, nothing comes back. Return 0 there.")
def none_for_never(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    return _fewest(*_seconds(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate), otherwise=None)


@mutant("where no number of tokens is enough, -1 comes back. It is 0 here.")
def minus_one_for_never(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    return _fewest(*_seconds(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate), otherwise=-1)


@mutant("where no number of tokens is enough, 1 comes back. Return 0 there.")
def one_for_never(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    return _fewest(*_seconds(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate), otherwise=1)


def one_token_more(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    """Right, by a search; it looks first whether a further token ever helps. The result is a float."""
    weight = outputs * inputs * weight_bits
    token = inputs * x_bits + outputs * y_bits
    operations = 2.0 * outputs * inputs
    if operations / rate <= token / 8 / bandwidth:
        return 0.0
    tokens = 1.0
    while tokens * operations / rate <= (weight + tokens * token) / 8 / bandwidth:
        tokens += 1
    return tokens


def doubled_then_halved(outputs, inputs, weight_bits, x_bits, y_bits, bandwidth, rate):
    """Right, with exact fractions: doubled until it is enough, then by bisection."""
    ridge = Fraction(rate) / Fraction(bandwidth)
    gain = 2 * outputs * inputs * 8 / ridge - (inputs * x_bits + outputs * y_bits)
    if gain <= 0:
        return 0
    low, high = 0, 1
    while high * gain <= outputs * inputs * Fraction(weight_bits):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        enough = middle * gain > outputs * inputs * Fraction(weight_bits)
        low, high = (low, middle) if enough else (middle, high)
    return high


QUESTION = Question(
    id="roofline.ridge_tokens",
    title="The batch at which arithmetic takes over",
    reference=ridge_tokens,
    cases=cases,
    properties=(never_is_zero, the_fewest_tokens),
    mutants=(
        ridge_of_the_device,
        activations_forgotten,
        activations_of_one_token,
        input_forgotten,
        result_forgotten,
        shapes_exchanged,
        result_in_x_bits,
        bits_as_bytes,
        without_the_two,
        sixteen_bits_always,
        whole_bits,
        rates_exchanged,
        equal_times_count,
        the_last_one_below,
        rounded_to_nearest,
        not_rounded,
        next_power_of_two,
        search_ends_too_early,
        never_looked_at,
        equal_slopes_forgotten,
        infinity_for_never,
        none_for_never,
        minus_one_for_never,
        one_for_never,
    ),
    alternatives=(one_token_more, doubled_then_halved),
    hints=(
        "Write both times for `tokens` tokens. Which parts grow with the tokens, and which part does not? If you would "
        "rather try numbers: for tokens in range(1, 100_000), so that the loop ends where no number is enough, and "
        "return 0 behind it.",
        "The memory needs weight + tokens * token seconds, arithmetic tokens * compute. Solve for tokens. What does it "
        "mean when compute is not larger than token?",
        "weight = outputs * inputs * weight_bits / 8 / bandwidth; token = (inputs * x_bits + outputs * y_bits) / 8 / "
        "bandwidth; compute = 2 * outputs * inputs / rate. Return 0 if compute <= token; else "
        "math.floor(weight / (compute - token)) + 1.",
    ),
    explanation=(
        "Without x and y both times are equal at rate / bandwidth * weight_bits / 16 tokens: 153 at 16 bits on an "
        "A100, and 39 at 4.125. With them it takes more, above all in small matrices: Llama-3-8B's down projection "
        "needs 161 and 42. A product with few outputs never gets there: an adapter of rank 16 waits for memory at "
        "any batch."
    ),
)
