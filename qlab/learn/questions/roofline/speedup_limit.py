"""roofline.speedup_limit: how many times as fast smaller weights can be at best, for all matrices of a layer."""

from __future__ import annotations

import math
from fractions import Fraction
from random import Random
from typing import Any

from ...question import Case, Finding, Question, mutant
from .devices import EVEN, layer, limits, near


def speedup_limit(matrices, tokens, weight_bits, bandwidth, rate):
    """Say how many times as fast as 16-bit weights smaller weights can be at best.

    matrices: tuples (outputs, inputs), multiplied one after the other.
    tokens: rows of x.
    weight_bits: of a small weight, with its share of the scales.
    bandwidth: bytes per second.
    rate: operations per second, for either weight: small weights become 16-bit numbers
        before they are multiplied.

    x and y have 16 bits. Each product takes the longer of its two times: for W, x and y at
    the bandwidth, and for its operations at the rate.

    Returns the time with 16-bit weights divided by the time with small ones.
    """
    seconds = {16: 0.0, weight_bits: 0.0}
    for bits in seconds:
        for outputs, inputs in matrices:
            moved = (outputs * inputs * bits + tokens * (inputs + outputs) * 16) / 8
            seconds[bits] += max(moved / bandwidth, 2 * tokens * outputs * inputs / rate)
    return seconds[16] / seconds[weight_bits]


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    a100, h100, l4, t4 = (limits(name) for name in ("A100-80GB", "H100-80GB", "L4", "T4"))
    small, large = layer("Llama-3-8B"), layer("Llama-3-70B")
    return [
        Case("the example of the card", (((64, 64), (32, 64)), 10, 4, *EVEN)),
        Case("a layer of Llama-3-8B on an A100, one token", (small, 1, 4.125, *a100)),
        Case("a layer of Llama-3-8B on an A100, 64 tokens", (small, 64, 4.125, *a100)),
        Case("a layer of Llama-3-8B on an A100, 4,096 tokens", (small, 4096, 4.125, *a100)),
        Case("a layer of Llama-3-70B on an H100, 16 tokens", (large, 16, 4.25, *h100)),
        Case("a layer of Llama-3-70B on an H100, 300 tokens", (large, 300, 8.125, *h100)),
        Case("Llama-3-8B down on a T4, 8 tokens", (((4096, 14336),), 8, 8.125, *t4)),
        Case("a layer of Llama-3-8B on an L4, 3 bits, 150 tokens", (small, 150, 3.25, *l4)),
        Case("odd sizes, few tokens", _drawn(random, 0.2)),
        Case("odd sizes, about at the ridge", _drawn(random, 0.7)),
        Case("odd sizes, beyond the ridge of the small ones", _drawn(random, 0.9)),
        Case("a wide and a narrow matrix", (*_thin(random), 4.125, *h100)),
    ]


def _drawn(random: Random, share: float) -> tuple[Any, ...]:
    """Three odd matrices, and that share of the tokens at which 16-bit weights alone would reach the ridge."""
    matrices = tuple((2 * random.randrange(200, 4000) + 1, 2 * random.randrange(200, 4000) + 1) for _ in range(3))
    bandwidth, ridge = 1e9 * random.randrange(300, 4000), random.uniform(60, 300)
    bits = random.choice((2.25, 3.25, 4.125, 4.5))
    return matrices, max(1, round(share * ridge)), bits, bandwidth, ridge * bandwidth


def _thin(random: Random) -> tuple[Any, ...]:
    """An adapter of rank 16 beside its matrix: the one waits for memory where the other waits for arithmetic."""
    inputs = 2 * random.randrange(1500, 2500) + 1
    return ((inputs, inputs), (16, inputs), (inputs, 16)), random.randrange(350, 500)


def at_most_so_many_times(case: Case, got: Any, expected: Any) -> Finding | None:
    return near(got, "the quotient of the times", expected)


def _moved(outputs, inputs, tokens, bits):
    return (outputs * inputs * bits + tokens * (inputs + outputs) * 16) / 8


def _limit(matrices, tokens, weight_bits, bandwidth, rate, *, moved=_moved, of=max, rates=None):
    """The right quotient, but for the parts that are given; `of` makes one time out of two."""

    def seconds(bits):
        at = rate if rates is None else rates(bits)
        return sum(of(moved(n, k, tokens, bits) / bandwidth, 2 * tokens * n * k / at) for n, k in matrices)

    return seconds(16) / seconds(weight_bits)


@mutant("this is the quotient of the bits. x and y have their bytes as well, and with many tokens arithmetic counts.")
def quotient_of_bits(matrices, tokens, weight_bits, bandwidth, rate):
    return 16 / weight_bits


@mutant("only the bytes are compared. With many tokens the operations take longer, and they do not shrink.")
def memory_alone(matrices, tokens, weight_bits, bandwidth, rate):
    return _limit(matrices, tokens, weight_bits, bandwidth, rate, of=lambda memory, compute: memory)


@mutant("x and y are not counted. They have 16 bits beside either weight, and narrow the gap.")
def activations_forgotten(matrices, tokens, weight_bits, bandwidth, rate):
    return _limit(matrices, tokens, weight_bits, bandwidth, rate, moved=lambda n, k, tokens, bits: n * k * bits / 8)


@mutant("x and y shrink with the weight here. Only the weight is small; they stay in 16 bits.")
def activations_shrink(matrices, tokens, weight_bits, bandwidth, rate):
    return _limit(
        matrices,
        tokens,
        weight_bits,
        bandwidth,
        rate,
        moved=lambda n, k, tokens, bits: (n * k + tokens * (n + k)) * bits / 8,
    )


@mutant("the result is not counted: y is written, with 16 bits a number.")
def result_forgotten(matrices, tokens, weight_bits, bandwidth, rate):
    return _limit(
        matrices,
        tokens,
        weight_bits,
        bandwidth,
        rate,
        moved=lambda n, k, tokens, bits: (n * k * bits + tokens * k * 16) / 8,
    )


@mutant("x and y have one byte a number here. They have 16 bits, which are 2 bytes.")
def activations_of_one_byte(matrices, tokens, weight_bits, bandwidth, rate):
    return _limit(
        matrices,
        tokens,
        weight_bits,
        bandwidth,
        rate,
        moved=lambda n, k, tokens, bits: (n * k * bits + tokens * (n + k) * 8) / 8,
    )


@mutant("x and y are counted for one token only. Every token brings its own.")
def activations_of_one_token(matrices, tokens, weight_bits, bandwidth, rate):
    return _limit(
        matrices, tokens, weight_bits, bandwidth, rate, moved=lambda n, k, tokens, bits: _moved(n, k, 1, bits)
    )


@mutant("the two times of a product are added. Memory and arithmetic work at the same time: the longer one counts.")
def times_added(matrices, tokens, weight_bits, bandwidth, rate):
    return _limit(matrices, tokens, weight_bits, bandwidth, rate, of=lambda memory, compute: memory + compute)


@mutant("the shorter of the two times is taken. A product is done when both are done.")
def the_shorter_time(matrices, tokens, weight_bits, bandwidth, rate):
    return _limit(matrices, tokens, weight_bits, bandwidth, rate, of=min)


@mutant("the quotient is upside down: how many times as fast is the time with 16 bits over the time with small ones.")
def upside_down(matrices, tokens, weight_bits, bandwidth, rate):
    return 1 / speedup_limit(matrices, tokens, weight_bits, bandwidth, rate)


@mutant("this is the share of time that is saved. How many times as fast is a quotient of two times.")
def share_that_is_saved(matrices, tokens, weight_bits, bandwidth, rate):
    return 1 - 1 / speedup_limit(matrices, tokens, weight_bits, bandwidth, rate)


@mutant("1 is subtracted at the end. Equally fast is 1 times as fast.")
def minus_one(matrices, tokens, weight_bits, bandwidth, rate):
    return speedup_limit(matrices, tokens, weight_bits, bandwidth, rate) - 1


@mutant("this is the mean of the matrices' quotients. The times add up: divide the sums.")
def mean_of_quotients(matrices, tokens, weight_bits, bandwidth, rate):
    return sum(speedup_limit((one,), tokens, weight_bits, bandwidth, rate) for one in matrices) / len(matrices)


@mutant("this is the best of the matrices. All of them take their time: divide the sums.")
def best_matrix(matrices, tokens, weight_bits, bandwidth, rate):
    return max(speedup_limit((one,), tokens, weight_bits, bandwidth, rate) for one in matrices)


@mutant("this is the worst of the matrices. All of them take their time: divide the sums.")
def worst_matrix(matrices, tokens, weight_bits, bandwidth, rate):
    return min(speedup_limit((one,), tokens, weight_bits, bandwidth, rate) for one in matrices)


@mutant("the quotients of the matrices are multiplied. The products run one after the other: add their times first.")
def product_of_quotients(matrices, tokens, weight_bits, bandwidth, rate):
    return math.prod(speedup_limit((one,), tokens, weight_bits, bandwidth, rate) for one in matrices)


@mutant(
    "bytes and operations of all matrices are added up before the longer time is taken. Each product waits for its own "
    "limit: take the longer time of each, then add."
)
def one_roof_for_all(matrices, tokens, weight_bits, bandwidth, rate):
    def seconds(bits):
        moved = sum(_moved(n, k, tokens, bits) for n, k in matrices)
        return max(moved / bandwidth, sum(2 * tokens * n * k for n, k in matrices) / rate)

    return seconds(16) / seconds(weight_bits)


@mutant("only the first matrix is counted. Is the return indented too far, inside the loop?")
def only_the_first_matrix(matrices, tokens, weight_bits, bandwidth, rate):
    return speedup_limit(matrices[:1], tokens, weight_bits, bandwidth, rate)


@mutant(
    "the rate grows as the weights shrink. They are multiplied as 16-bit numbers, at the same rate; only small x would "
    "allow another one."
)
def a_rate_for_small_weights(matrices, tokens, weight_bits, bandwidth, rate):
    return _limit(matrices, tokens, weight_bits, bandwidth, rate, rates=lambda bits: rate * 16 / bits)


@mutant("weight_bits is cut to a whole number, and the scales with it: 4.125 are not 4.")
def whole_bits(matrices, tokens, weight_bits, bandwidth, rate):
    return speedup_limit(matrices, tokens, int(weight_bits), bandwidth, rate)


@mutant("the operations lack the factor 2: a multiplication and an addition for each weight and token.")
def without_the_two(matrices, tokens, weight_bits, bandwidth, rate):
    return _limit(matrices, tokens, weight_bits, bandwidth, rate, of=lambda memory, compute: max(memory, compute / 2))


@mutant("bits are counted as bytes. A byte has 8 bits; it matters as soon as operations are compared with them.")
def bits_as_bytes(matrices, tokens, weight_bits, bandwidth, rate):
    return _limit(
        matrices, tokens, weight_bits, bandwidth, rate, moved=lambda n, k, tokens, bits: 8 * _moved(n, k, tokens, bits)
    )


@mutant("the weights are read once for each token. All tokens share one reading of them.")
def weights_for_every_token(matrices, tokens, weight_bits, bandwidth, rate):
    return _limit(
        matrices,
        tokens,
        weight_bits,
        bandwidth,
        rate,
        moved=lambda n, k, tokens, bits: (tokens * n * k * bits + tokens * (n + k) * 16) / 8,
    )


@mutant("the time of the small weights is only that of their bytes. Their operations may take longer than that.")
def small_weights_wait_for_memory_only(matrices, tokens, weight_bits, bandwidth, rate):
    fast = 1e9 * rate  # no operations at all
    return _limit(matrices, tokens, weight_bits, bandwidth, rate, rates=lambda bits: rate if bits == 16 else fast)


@mutant("the quotient is rounded. Return it with all its digits.")
def rounded(matrices, tokens, weight_bits, bandwidth, rate):
    return round(speedup_limit(matrices, tokens, weight_bits, bandwidth, rate), 2)


def ratio_of_ticks(matrices, tokens, weight_bits, bandwidth, rate):
    """Right, with exact fractions, where all is counted in bytes that the memory could have moved meanwhile."""
    ridge = Fraction(rate) / Fraction(bandwidth)

    def ticks(bits):
        total = Fraction(0)
        for outputs, inputs in matrices:
            weight = Fraction(bits) / 8 * outputs * inputs
            total += max(weight + 2 * tokens * (outputs + inputs), 2 * tokens * outputs * inputs / ridge)
        return total

    return float(ticks(16) / ticks(weight_bits))


def a_list_of_times(matrices, tokens, weight_bits, bandwidth, rate):
    """Right, with a list of the times of all products for either weight."""

    def times(bits):
        memory = [(n * k * bits / 8 + 2 * tokens * n + 2 * tokens * k) / bandwidth for n, k in matrices]
        compute = [n * k * 2.0 * tokens / rate for n, k in matrices]
        return [a if a > b else b for a, b in zip(memory, compute, strict=True)]

    return math.fsum(times(16)) / math.fsum(times(weight_bits))


QUESTION = Question(
    id="roofline.speedup_limit",
    title="What small weights can gain",
    reference=speedup_limit,
    cases=cases,
    properties=(at_most_so_many_times,),
    mutants=(
        quotient_of_bits,
        memory_alone,
        activations_forgotten,
        activations_shrink,
        activations_of_one_byte,
        result_forgotten,
        activations_of_one_token,
        times_added,
        the_shorter_time,
        upside_down,
        share_that_is_saved,
        minus_one,
        mean_of_quotients,
        best_matrix,
        worst_matrix,
        product_of_quotients,
        one_roof_for_all,
        only_the_first_matrix,
        a_rate_for_small_weights,
        whole_bits,
        without_the_two,
        bits_as_bytes,
        weights_for_every_token,
        small_weights_wait_for_memory_only,
        rounded,
    ),
    alternatives=(ratio_of_ticks, a_list_of_times),
    hints=(
        "Compute the time of one product first, for any number of bits. What of it changes with the bits?",
        "A product moves (outputs * inputs * bits + tokens * (inputs + outputs) * 16) / 8 bytes and does "
        "2 * tokens * outputs * inputs operations; the longer time counts. Add these times over all matrices, once "
        "with 16 bits and once with weight_bits.",
        "For each bits of 16 and weight_bits: seconds[bits] = the sum over the matrices of max(moved / bandwidth, "
        "operations / rate). Return seconds[16] / seconds[weight_bits].",
    ),
    explanation=(
        "Three regions: while both wait for memory, the gain is nearly 16 / weight_bits; between the two ridges it "
        "melts; beyond the ridge of 16 bits it is exactly 1. A layer of Llama-3-8B on an A100 with 4.125 bits: 3.87 "
        "with one token, 2.45 with 64, 1 with 4,096. The bound never goes below 1: what makes 4 bits slower is not "
        "in it."
    ),
)
