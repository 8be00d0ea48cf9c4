"""roofline.break_even: the batch at which a kernel that has to unpack 4-bit weights loses to 16 bits."""

from __future__ import annotations

import math
from fractions import Fraction
from random import Random
from typing import Any

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .devices import EVEN, limits

# Weights that a GPU unpacks in a second where each takes 3.5 instructions, for one lane each: multiprocessors times 4
# times 32 lanes times clock. Counted and not measured (qlab/kernels/NOTES.md).
UNPACKED = {"A100-80GB": 108 * 4 * 32 * 1.41e9 / 3.5, "H100-80GB": 132 * 4 * 32 * 1.75e9 / 3.5}


def break_even(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    """Find the fewest tokens with which a kernel for small weights is slower than 16-bit weights.

    W (outputs, inputs); x (tokens, inputs) and y (tokens, outputs) have 16 bits.

    weight_bits: of a small weight, with its share of the scales.
    block: the kernel unpacks the whole weight once for each block of so many tokens; a last
        block that is not full takes as long as a full one.
    unpack_rate: weights that it unpacks per second.
    bandwidth: bytes per second. W, x and y are moved once each, in either kernel.
    rate: operations per second, of either kernel.
    most: the largest number of tokens to look at.

    Plain weights take max(bytes, operations), each as a time. Small weights take
    max(bytes, operations + unpacking): the same units unpack and multiply.

    Returns the smallest number of tokens from 1 to most with which the small weights take
    longer; 0 where there is none.
    """
    for tokens in range(1, most + 1):
        activations = 2 * tokens * (inputs + outputs)
        operations = 2 * tokens * outputs * inputs / rate
        unpacking = math.ceil(tokens / block) * outputs * inputs / unpack_rate
        small_weight = outputs * inputs * weight_bits / 8
        plain = max((2 * outputs * inputs + activations) / bandwidth, operations)
        small = max((small_weight + activations) / bandwidth, operations + unpacking)
        if small > plain:
            return tokens
    return 0


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    a100, h100 = limits("A100-80GB"), limits("H100-80GB")
    ampere, hopper = UNPACKED["A100-80GB"], UNPACKED["H100-80GB"]
    size = 2 ** random.randrange(9, 13)
    drawn = _drawn(random)
    last = break_even(*drawn)
    return [
        Case("the example of the card", (64, 64, 4, 8, 2.0**42, *EVEN, 64)),
        Case("the example of the card, up to 20 tokens", (64, 64, 4, 8, 2.0**42, *EVEN, 20)),
        Case("the device of the card, unpacking twice as fast", (64, 64, 4, 8, 2.0**43, *EVEN, 64)),
        Case("8192 x 8192 on an A100, blocks of 64", (8192, 8192, 4.125, 64, ampere, *a100, 1024)),
        Case("8192 x 8192 on an H100, blocks of 128", (8192, 8192, 4.125, 128, hopper, *h100, 1024)),
        Case("Llama-3-8B down on an A100, blocks of 16", (4096, 14336, 4.25, 16, ampere, *a100, 1024)),
        Case("Llama-3-70B up on an H100, unpacked for every token", (28672, 8192, 4.125, 1, hopper, *h100, 1024)),
        Case("equal times with a whole number of tokens", _tie(size)),
        Case("odd sizes", drawn),
        Case("odd sizes, and the last number to look at is the one", (*drawn[:-1], last)),
        Case("odd sizes, and it comes one token later", (*drawn[:-1], last - 1)),
        Case("unpacking takes longer than reading 16 bits", (*drawn[:4], drawn[5] / 2.7, *drawn[5:])),
        # Each further token costs the plain kernel more than the other one: it falls behind at the start of a block
        # and catches up within it.
        Case("an adapter of rank 16, fast at the end of each block", _adapter(random, 32)),
        Case("an adapter of rank 16, unpacked fast", (16, 4096, 4.125, 64, hopper, *h100, 700)),
    ]


def _drawn(random: Random) -> tuple[Any, ...]:
    """Odd sizes on some device; the small weights fall behind somewhere in the first blocks."""
    outputs, inputs = (2 * random.randrange(1500, 6000) + 1 for _ in range(2))
    bandwidth = 1e9 * random.randrange(500, 4000)
    ridge, read = random.uniform(120, 300), 2 * outputs * inputs / bandwidth
    unpack_rate = outputs * inputs / (random.uniform(0.12, 0.2) * read)
    return outputs, inputs, 4.25, random.choice((16, 24, 48)), unpack_rate, bandwidth, ridge * bandwidth, 700


def _tie(size: int) -> tuple[Any, ...]:
    """Equal times with size / 16 tokens, in the first block, and in powers of two."""
    return size, size, 4, size // 8, 2.0**42, 2.0**40, size * 2.0**36, 1024


def _adapter(random: Random, most: int) -> tuple[Any, ...]:
    """In times of one byte: 131,072 + 8,224 for each token, against 4,096 for each and 110,000 for each 16."""
    unpack_rate = 2.0**40 * 65536 / random.randrange(107_000, 113_000)
    return 16, 4096, 4, 16, unpack_rate, 2.0**40, 2.0**45, most


def zero_where_it_never_loses(case: Case, got: Any, expected: Any) -> Finding | None:
    value = p.as_number(got)
    if expected != 0 or value is None or value == 0:
        return None
    return Finding(
        f"with no number of tokens from 1 to {case.args[-1]:,} the small weights take longer: return 0",
        expected="0",
        got=f"{value:,.10g}",
    )


def the_fewest_tokens(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.whole_number_is(got, "the number of tokens", expected, "tokens")


def _first(arguments, small=None, plain=None, *, found=lambda small, plain: small > plain, tokens=None, otherwise=0):
    """The right answer, but for the parts that are given.

    `small` and `plain` make a time of: seconds for the bytes, for the operations, for unpacking the weight once, the
    number of blocks, and the number of tokens.
    """
    outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most = arguments
    small = small or (lambda read, multiply, unpack, blocks, count: max(read, multiply + unpack * blocks))
    plain = plain or (lambda read, multiply, unpack, blocks, count: max(read, multiply))
    weights = outputs * inputs
    for count in range(1, most + 1) if tokens is None else tokens:
        activations, multiply = 2 * count * (inputs + outputs), 2 * count * weights / rate
        rest = multiply, weights / unpack_rate, math.ceil(count / block), count
        a = small((weights * weight_bits / 8 + activations) / bandwidth, *rest)
        b = plain((2 * weights + activations) / bandwidth, *rest)
        if found(a, b):
            return count
    return otherwise


@mutant("the weight is unpacked once, for all tokens. The kernel does it for each block of tokens again.")
def unpacked_once(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    return _first(
        (outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most),
        lambda read, multiply, unpack, blocks, count: max(read, multiply + unpack),
    )


@mutant("the weight is unpacked for every token. The kernel does it once for a block of tokens.")
def unpacked_for_every_token(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    return _first(
        (outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most),
        lambda read, multiply, unpack, blocks, count: max(read, multiply + unpack * count),
    )


@mutant("the number of blocks is rounded down. A last block that is not full takes as long as a full one: round up.")
def blocks_rounded_down(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    return _first(
        (outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most),
        lambda read, multiply, unpack, blocks, count: max(read, multiply + unpack * (count // block)),
    )


@mutant("tokens // block + 1 is one block too many where the tokens fill the blocks. Use math.ceil.")
def always_one_block_more(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    return _first(
        (outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most),
        lambda read, multiply, unpack, blocks, count: max(read, multiply + unpack * (count // block + 1)),
    )


@mutant("tokens / block is not rounded. A block that is not full takes as long as a full one: round up.")
def parts_of_blocks(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    return _first(
        (outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most),
        lambda read, multiply, unpack, blocks, count: max(read, multiply + unpack * count / block),
    )


@mutant(
    "unpacking runs beside the products here, as a third of three times. The same units do both: add the two, then "
    "compare with the bytes."
)
def three_at_the_same_time(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    return _first(
        (outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most),
        lambda read, multiply, unpack, blocks, count: max(read, multiply, unpack * blocks),
    )


@mutant("unpacking is added to the longer time. It runs while the memory reads: add it to the operations only.")
def unpacking_after_all(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    return _first(
        (outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most),
        lambda read, multiply, unpack, blocks, count: max(read, multiply) + unpack * blocks,
    )


@mutant("bytes, operations and unpacking are added. The memory works at the same time: take the longer one.")
def everything_added(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    return _first(
        (outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most),
        lambda read, multiply, unpack, blocks, count: read + multiply + unpack * blocks,
        lambda read, multiply, unpack, blocks, count: read + multiply,
    )


@mutant(
    "the bytes of the small weights are added to their arithmetic. The memory reads meanwhile, as it does for plain "
    "weights: take the longer one."
)
def bytes_not_hidden(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    return _first(
        (outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most),
        lambda read, multiply, unpack, blocks, count: read + multiply + unpack * blocks,
    )


@mutant("unpacking is not counted. Without it small weights never lose: that is what a plain roofline says.")
def unpacking_forgotten(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    return _first(
        (outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most),
        lambda read, multiply, unpack, blocks, count: max(read, multiply),
    )


@mutant(
    "the weight is read again for each block. In this model it is moved once; only unpacking is repeated, "
    "from the cache."
)
def read_for_every_block(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    weight = outputs * inputs * weight_bits / 8 / bandwidth
    return _first(
        (outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most),
        lambda read, multiply, unpack, blocks, count: max(read + weight * (blocks - 1), multiply + unpack * blocks),
    )


@mutant("equal times count as slower. Slower means that it takes longer: compare with > and not with >=.")
def equal_times_count(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    return _first(
        (outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most),
        found=lambda small, plain: small >= plain,
    )


@mutant("this is the last number of tokens before it gets slower. The first with which it is slower is one more.")
def the_last_that_is_not_slower(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    return max(0, break_even(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most) - 1)


@mutant("x and y are not counted. Every token brings its own, and the plain weights wait for them as well.")
def activations_forgotten(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    token = 2 * (inputs + outputs) / bandwidth
    return _first(
        (outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most),
        lambda read, multiply, unpack, blocks, count: max(read - token * count, multiply + unpack * blocks),
        lambda read, multiply, unpack, blocks, count: max(read - token * count, multiply),
    )


@mutant("x and y have one byte a number here. They have 16 bits, which are 2 bytes.")
def activations_of_one_byte(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    token = (inputs + outputs) / bandwidth
    return _first(
        (outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most),
        lambda read, multiply, unpack, blocks, count: max(read - token * count, multiply + unpack * blocks),
        lambda read, multiply, unpack, blocks, count: max(read - token * count, multiply),
    )


@mutant("range(1, most) leaves most out. It is to be looked at, too.")
def most_left_out(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    return break_even(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most - 1)


@mutant("where the small weights are never slower, most comes back. Return 0 there.")
def most_for_never(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    return _first((outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most), otherwise=most)


@mutant("where the small weights are never slower, nothing comes back. Return 0 behind the loop.")
def none_for_never(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    return _first((outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most), otherwise=None)


@mutant("the search goes on beyond most. Return 0 where no number from 1 to most will do.")
def beyond_most(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    return break_even(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, 5000)


@mutant("only powers of two are looked at. Every number of tokens can be the first.")
def only_powers_of_two(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    return _first(
        (outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most),
        tokens=[2**power for power in range(13) if 2**power <= most],
    )


@mutant(
    "only full blocks are looked at: block, 2 * block and so on. The small weights may fall behind at any number of "
    "tokens, often at the first one of a block."
)
def only_full_blocks(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    return _first(
        (outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most), tokens=range(block, most + 1, block)
    )


@mutant(
    "only the first tokens of the blocks are looked at: 1, block + 1 and so on. The small weights may fall behind "
    "within a block as well, when the plain ones still wait for memory."
)
def only_starts_of_blocks(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    return _first(
        (outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most), tokens=range(1, most + 1, block)
    )


@mutant(
    "this is a bisection. It needs that slower stays slower, and within a block small weights may catch up: look at "
    "every number of tokens."
)
def bisected(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    def slower(tokens):
        return _first((outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most), tokens=[tokens]) > 0

    if not slower(most):
        return 0
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if slower(middle) else (middle, high)
    return high


@mutant(
    "this is the number from which 16-bit weights are bound by compute. Small weights lose earlier: they have to "
    "unpack, and plain ones still wait for memory."
)
def ridge_of_the_plain_weights(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    return _first(
        (outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most),
        lambda read, multiply, unpack, blocks, count: multiply,
        lambda read, multiply, unpack, blocks, count: read,
    )


@mutant(
    "small weights lose with one token already, everywhere. Are bits counted as bytes, or do plain weights take only "
    "the time of their operations?"
)
def slower_from_the_first_token(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    return break_even(outputs, inputs, 8 * weight_bits, block, unpack_rate, bandwidth, rate, most)


@mutant("the operations lack the factor 2: a multiplication and an addition for each weight and token.")
def without_the_two(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    return break_even(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, 2 * rate, most)


@mutant("plain weights have 16 bytes each here. They have 16 bits, which are 2 bytes.")
def sixteen_bytes(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    more = 14 * outputs * inputs / bandwidth
    return _first(
        (outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most),
        plain=lambda read, multiply, unpack, blocks, count: max(read + more, multiply),
    )


def jumps_and_slopes(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    """Right, with exact fractions of a byte's time: small weights read less, so only their arithmetic can be late."""
    ridge, unpack = Fraction(rate) / Fraction(bandwidth), Fraction(bandwidth) / Fraction(unpack_rate)
    weights = outputs * inputs
    for tokens in range(1, most + 1):
        multiply = 2 * tokens * weights / ridge
        busy = multiply + -(-tokens // block) * unpack * weights
        if busy > max(Fraction(2 * weights + 2 * tokens * (inputs + outputs)), multiply):
            return float(tokens)
    return 0.0


def the_smallest_of_all(outputs, inputs, weight_bits, block, unpack_rate, bandwidth, rate, most):
    """Right, by a list of all that are slower."""

    def small(m):
        moved = outputs * inputs * weight_bits / 8 + 2 * m * inputs + 2 * m * outputs
        blocks = (m + block - 1) // block
        return max(moved / bandwidth, 2 * m * outputs * inputs / rate + blocks * (outputs * inputs / unpack_rate))

    def plain(m):
        moved = 2 * (outputs * inputs + m * inputs + m * outputs)
        return max(moved / bandwidth, 2 * m * outputs * inputs / rate)

    return min((m for m in range(1, most + 1) if small(m) > plain(m)), default=0)


QUESTION = Question(
    id="roofline.break_even",
    title="The batch at which 4 bits lose",
    reference=break_even,
    cases=cases,
    properties=(zero_where_it_never_loses, the_fewest_tokens),
    mutants=(
        unpacked_once,
        unpacked_for_every_token,
        blocks_rounded_down,
        always_one_block_more,
        parts_of_blocks,
        three_at_the_same_time,
        unpacking_after_all,
        everything_added,
        bytes_not_hidden,
        unpacking_forgotten,
        read_for_every_block,
        equal_times_count,
        the_last_that_is_not_slower,
        activations_forgotten,
        activations_of_one_byte,
        most_left_out,
        most_for_never,
        none_for_never,
        beyond_most,
        only_powers_of_two,
        only_full_blocks,
        only_starts_of_blocks,
        bisected,
        ridge_of_the_plain_weights,
        slower_from_the_first_token,
        without_the_two,
        sixteen_bytes,
    ),
    alternatives=(jumps_and_slopes, the_smallest_of_all),
    hints=(
        "Write both times as functions of tokens. Where does the small kernel spend time that the plain one does not?",
        "plain = max(bytes / bandwidth, operations / rate). The small kernel has fewer bytes, and beside the "
        "operations math.ceil(tokens / block) times outputs * inputs / unpack_rate seconds. Try 1, 2, 3 and so on.",
        "For tokens in range(1, most + 1): unpacking = math.ceil(tokens / block) * outputs * inputs / unpack_rate; "
        "small = max((outputs * inputs * weight_bits / 8 + activations) / bandwidth, operations / rate + unpacking); "
        "return tokens if small > plain. Behind the loop, return 0.",
    ),
    explanation=(
        "The small kernel reads less, so it can be late only by arithmetic, and weight_bits does not change the "
        "answer: it decides how much is gained before. 8192 x 8192 with blocks of 64 on an A100: slower from 101 "
        "tokens on, by this model. That is before the plain weights reach their own ridge, at 159. "
        "A kernel that writes the 16-bit weight to memory first and multiplies then adds time to the plain product, "
        "and by its bound loses with every number of tokens."
    ),
)
