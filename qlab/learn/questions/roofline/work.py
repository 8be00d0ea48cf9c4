"""roofline.work: the bytes and the operations of one product, everything moved once."""

from __future__ import annotations

import math
from fractions import Fraction
from random import Random
from typing import Any

from ... import properties as p
from ...question import Case, Finding, Question, mutant

_EXACT = 1e-9  # of the bytes: floats hold them, and an eighth of a byte counts


def work(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    """Count what y = x @ W.T moves and does: x (tokens, inputs), W (outputs, inputs).

    bits: of one code of W, or of a plain weight.
    group_size: weights of a row that share a scale of 16 bits; 0 where W has no scales.
    zero_bits: of the zero-point of each group; 0 where there is none.
    x_bits, y_bits: of one number of x and of y.

    Groups end with their row, and a short last group has its scale and zero-point, too.
    x, W with its scales and zero-points, and y are moved once each. A multiplication and
    an addition are two operations, for each weight and token.

    Returns (bytes, operations). Bits are added up and divided by 8, without rounding.
    """
    groups = math.ceil(inputs / group_size) if group_size else 0
    weight = outputs * (inputs * bits + groups * (16 + zero_bits))
    x, y = tokens * inputs * x_bits, tokens * outputs * y_bits
    return (weight + x + y) / 8, 2 * tokens * outputs * inputs


def cases(seed: int) -> list[Case]:
    random = Random(seed)

    def odd(low: int, high: int) -> int:
        return 2 * random.randrange(low // 2, high // 2) + 1

    return [
        Case("the example of the card", (3, 4, 10, 4, 4, 4, 8, 16)),
        Case("Llama-3-8B gate, one token, 4 bits in groups of 128", (1, 14336, 4096, 4, 128, 0, 16, 16)),
        Case("Llama-3-70B down, one token, 16 bits", (1, 8192, 28672, 16, 0, 0, 16, 16)),
        Case("Llama-3-70B down, 4,096 tokens, W8A8, one scale per row", (4096, 8192, 28672, 8, 28672, 0, 8, 16)),
        Case("16 tokens, 3 bits in groups of 64, zero-points of 16 bits", (16, 4096, 4096, 3, 64, 16, 16, 16)),
        Case("a short last group", (odd(3, 40), odd(30, 90), 128 * random.randrange(2, 6) + 32, 4, 128, 4, 16, 16)),
        Case("groups longer than a row", (odd(3, 40), odd(30, 90), odd(60, 100), 8, 128, 8, 8, 16)),
        Case("bits that do not fill the last byte", (odd(2, 9), odd(5, 30), odd(5, 30), 3, 8, 0, 16, 16)),
        Case("an input of 8 bits, a result of 32", (odd(50, 90), odd(100, 200), odd(300, 500), 8, 0, 0, 8, 32)),
        Case("two bits, many tokens", (odd(900, 2000), odd(40, 80), odd(100, 300), 2, 16, 2, 16, 16)),
    ]


def every_byte_is_counted(case: Case, got: Any, expected: Any) -> Finding | None:
    if finding := p.parts(got, "bytes", "operations"):
        return finding
    return p.number_near(got[0], "the number of bytes", expected[0], _EXACT, "bytes")


def every_operation_is_counted(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.whole_number_is(got[1], "the number of operations", expected[1], "operations")


def _bits(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits, *, scale_bits=16, groups=None):
    """Bits of W, of x and of y; `groups` are those of the whole matrix."""
    if groups is None:
        groups = outputs * math.ceil(inputs / group_size) if group_size else 0
    weight = outputs * inputs * bits + groups * (scale_bits + zero_bits)
    return weight, tokens * inputs * x_bits, tokens * outputs * y_bits


@mutant(
    "the operations lack the factor 2. A multiplication and an addition are counted as two, as in the TFLOPS of a data "
    "sheet."
)
def without_the_two(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    return work(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits)[0], tokens * outputs * inputs


@mutant("these are bits. A byte has 8: divide at the end.")
def bits_as_bytes(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    return sum(_bits(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits)), work(
        tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits
    )[1]


@mutant("the scales are not counted. Every group of a row has one of 16 bits, 0.125 bits per weight in groups of 128.")
def scales_forgotten(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    return sum(_bits(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits, scale_bits=0)) / 8, work(
        tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits
    )[1]


@mutant("the zero-points are not counted. Every group has one of zero_bits bits beside its scale.")
def zero_points_forgotten(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    return work(tokens, outputs, inputs, bits, group_size, 0, x_bits, y_bits)


@mutant("a zero-point is taken to have as many bits as a code. It has zero_bits bits; HQQ keeps it in 16.")
def zero_points_like_codes(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    return work(tokens, outputs, inputs, bits, group_size, bits if zero_bits else 0, x_bits, y_bits)


@mutant("a zero-point is taken to have 16 bits, like a scale. It has zero_bits bits.")
def zero_points_like_scales(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    return work(tokens, outputs, inputs, bits, group_size, 16 if zero_bits else 0, x_bits, y_bits)


@mutant("every scale has a zero-point of 16 bits beside it here. It has zero_bits bits, and with 0 there is none.")
def always_a_zero_point(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    return work(tokens, outputs, inputs, bits, group_size, 16, x_bits, y_bits)


@mutant("neither scales nor zero-points are counted: these are the codes alone, with x and y.")
def codes_only(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    return work(tokens, outputs, inputs, bits, 0, 0, x_bits, y_bits)


@mutant("only the weight is moved here. x is read and y is written: with many tokens that is most of the bytes.")
def activations_forgotten(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    return _bits(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits)[0] / 8, work(
        tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits
    )[1]


@mutant("the input is not counted: x is read, too.")
def input_forgotten(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    weight, _, y = _bits(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits)
    return (weight + y) / 8, work(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits)[1]


@mutant("the result is not counted: y is written to memory, and takes its time there like what is read.")
def result_forgotten(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    weight, x, _ = _bits(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits)
    return (weight + x) / 8, work(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits)[1]


@mutant("the result has the bits of the input here. It has its own: W8A8 reads 8 bits and writes 16.")
def result_in_x_bits(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    return work(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, x_bits)


@mutant(
    "the shapes of x and y are exchanged. x is (tokens, inputs) with x_bits, and y is (tokens, outputs) with y_bits."
)
def shapes_exchanged(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    weight, *_ = _bits(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits)
    return (weight + tokens * outputs * x_bits + tokens * inputs * y_bits) / 8, 2 * tokens * outputs * inputs


@mutant("there is one scale for each row here. There is one for every group of a row.")
def one_scale_per_row(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    return work(tokens, outputs, inputs, bits, group_size and inputs, zero_bits, x_bits, y_bits)


@mutant("inputs // group_size rounds down. A short last group has its scale as well: round up.")
def short_group_without_a_scale(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    groups = outputs * (inputs // group_size) if group_size else 0
    return sum(_bits(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits, groups=groups)) / 8, work(
        tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits
    )[1]


@mutant("inputs / group_size is not rounded. A short last group has a whole scale: use math.ceil.")
def parts_of_groups(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    arguments = tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits
    groups = outputs * inputs / group_size if group_size else 0
    return sum(_bits(*arguments, groups=groups)) / 8, work(*arguments)[1]


@mutant("inputs // group_size + 1 is one group too many where the groups fill the row exactly. Use math.ceil.")
def always_one_group_more(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    groups = outputs * (inputs // group_size + 1) if group_size else 0
    return sum(_bits(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits, groups=groups)) / 8, work(
        tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits
    )[1]


@mutant("the groups run on from one row into the next. A group ends with its row: round up row by row.")
def groups_across_rows(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    groups = math.ceil(outputs * inputs / group_size) if group_size else 0
    return sum(_bits(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits, groups=groups)) / 8, work(
        tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits
    )[1]


@mutant("a scale has 32 bits here. These scales have 16.")
def scales_in_32_bits(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    return sum(_bits(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits, scale_bits=32)) / 8, work(
        tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits
    )[1]


@mutant("a scale is counted with 16 bytes. It has 16 bits, which are 2 bytes.")
def scales_of_16_bytes(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    return sum(_bits(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits, scale_bits=128)) / 8, work(
        tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits
    )[1]


@mutant(
    "the weight is read once for each token here. All tokens share one reading of it: that is why a batch pays at all."
)
def weight_for_every_token(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    weight, x, y = _bits(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits)
    return (tokens * weight + x + y) / 8, work(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits)[1]


@mutant("these are the operations of one token. Every token multiplies by every weight.")
def operations_of_one_token(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    return work(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits)[0], 2 * outputs * inputs


@mutant(
    "the operations shrink with the bits. A weight of 4 bits is multiplied as often as one of 16; what can grow is the "
    "rate of the device, and only where x is small, too."
)
def fewer_operations_for_fewer_bits(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    return work(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits)[
        0
    ], 2 * tokens * outputs * inputs * bits / 16


@mutant(
    "the additions are counted one by one: a sum of n numbers needs n - 1. The custom is two operations for each "
    "weight and token, and rates are measured like that."
)
def one_addition_fewer(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    return work(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits)[0], tokens * outputs * (
        2 * inputs - 1
    )


@mutant("group_size 0 means that there are no scales: then nothing may be divided by it.")
def divided_by_no_group(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    groups = outputs * math.ceil(inputs / group_size)
    sizes = (tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits)
    return sum(_bits(*sizes, groups=groups)) / 8, 2 * tokens * outputs * inputs


@mutant("where there are no scales, one scale for each row is counted all the same. group_size 0 means none at all.")
def scales_where_there_are_none(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    return work(tokens, outputs, inputs, bits, group_size or inputs, zero_bits, x_bits, y_bits)


@mutant("// cuts a part of a byte off. Divide with /: these are counts for an estimate, not for a file.")
def bytes_rounded_down(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    return sum(_bits(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits)) // 8, work(
        tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits
    )[1]


@mutant("the bytes are rounded up. Divide with / and keep the fraction: these are counts for an estimate.")
def bytes_rounded_up(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    moved, operations = work(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits)
    return math.ceil(moved), operations


@mutant("each row of W is filled up to a whole byte. In a file that is so; here bits are added up and divided once.")
def rows_filled_up(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    arguments = tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits
    weight, x, y = _bits(*arguments)
    return (x + y) / 8 + outputs * math.ceil(weight / outputs / 8), work(*arguments)[1]


@mutant("the results are in GB and in units of 10**12. Return bytes and operations.")
def in_large_units(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    moved, operations = work(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits)
    return moved / 1e9, operations / 1e12


@mutant("this is the intensity, operations per byte. Return both numbers: (bytes, operations).")
def only_the_intensity(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    moved, operations = work(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits)
    return operations / moved


def weight_by_weight(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    """Right, with an average number of bits for each weight of a row, as an exact fraction."""
    groups = len(range(0, inputs, group_size)) if group_size else 0
    average = Fraction(bits) + Fraction(groups * (16 + zero_bits), inputs)
    moved = average * outputs * inputs + x_bits * tokens * inputs + y_bits * tokens * outputs
    return float(moved / 8), float(tokens * outputs) * inputs * 2.0


def tensor_by_tensor(tokens, outputs, inputs, bits, group_size, zero_bits, x_bits, y_bits):
    """Right, from the shapes of all tensors; the result is a list."""
    groups = -(-inputs // group_size) if group_size else 0
    tensors = [
        (tokens, inputs, x_bits),
        (outputs, inputs, bits),
        (outputs, groups, 16),
        (outputs, groups, zero_bits),
        (tokens, outputs, y_bits),
    ]
    moved = sum(rows * columns * width / 8 for rows, columns, width in tensors)
    return [moved, 2 * math.prod((tokens, outputs, inputs))]


QUESTION = Question(
    id="roofline.work",
    title="The work of a product",
    reference=work,
    cases=cases,
    properties=(every_byte_is_counted, every_operation_is_counted),
    mutants=(
        without_the_two,
        bits_as_bytes,
        scales_forgotten,
        zero_points_forgotten,
        zero_points_like_codes,
        zero_points_like_scales,
        always_a_zero_point,
        codes_only,
        activations_forgotten,
        input_forgotten,
        result_forgotten,
        result_in_x_bits,
        shapes_exchanged,
        one_scale_per_row,
        short_group_without_a_scale,
        parts_of_groups,
        always_one_group_more,
        groups_across_rows,
        scales_in_32_bits,
        scales_of_16_bytes,
        weight_for_every_token,
        operations_of_one_token,
        fewer_operations_for_fewer_bits,
        one_addition_fewer,
        divided_by_no_group,
        scales_where_there_are_none,
        bytes_rounded_down,
        bytes_rounded_up,
        rows_filled_up,
        in_large_units,
        only_the_intensity,
    ),
    alternatives=(weight_by_weight, tensor_by_tensor),
    hints=(
        "Five tensors are moved: x, the codes, the scales, the zero-points and y. What is the shape of each?",
        "x is (tokens, inputs), the codes are (outputs, inputs), scales and zero-points (outputs, groups), y is "
        "(tokens, outputs). Multiply each shape by its bits, add, and divide by 8. Every weight meets every token "
        "once.",
        "groups = math.ceil(inputs / group_size) if group_size else 0; the weight has outputs * (inputs * bits + "
        "groups * (16 + zero_bits)) bits; the operations are 2 * tokens * outputs * inputs.",
    ),
    explanation=(
        "Tokens appear in x, in y and in the operations, and not in the weight: with more tokens the operations per "
        "byte grow, and that is all that batching does. In Llama-3-70B's down projection one token at 16 bits has "
        "1.0 operations per byte, and 4,096 tokens have 2,493. Bits appear in the bytes only."
    ),
)
