"""codebook.bits_per_weight: what NF4 takes, with its absmax counted, plain and with double quantization."""

from __future__ import annotations

import math
from fractions import Fraction
from random import Random
from typing import Any

from ... import properties as p
from ...question import Case, Finding, Question, mutant

_RTOL = 1e-6


def bits_per_weight(out, columns, block_size, double_quant):
    """Count the bits that NF4 takes for each weight, everything that is stored included.

    out, columns: the shape of the matrix.
    block_size: how many weights of the flattened matrix share an absmax; the last block may
        be short.
    double_quant: True if the absmax are quantized in turn.

    Stored are: two codes in a byte, the last byte perhaps half empty; and for the absmax
    without double_quant: 4 bytes for each block,
    with double_quant: 1 byte for each block, 4 bytes for each 256 blocks (the last such
        group may be short), and 4 bytes once, for the offset.
    The table of 16 levels is part of the code and not counted.

    Returns the bits of all that, divided by the number of weights.
    """
    weights = out * columns
    blocks = math.ceil(weights / block_size)
    held = math.ceil(weights / 2)
    held += blocks + 4 * math.ceil(blocks / 256) + 4 if double_quant else 4 * blocks
    return 8 * held / weights


def cases(seed: int) -> list[Case]:
    random = Random(seed)

    def drawn(low: int, high: int) -> int:
        return random.randrange(low, high)

    return [
        Case("the example of the card", (10, 15, 64, False)),
        Case("the example of the card, double quantization", (10, 15, 64, True)),
        Case("a matrix of Llama-3-8B", (4096, 14336, 64, False)),
        Case("a matrix of Llama-3-8B, double quantization", (4096, 14336, 64, True)),
        Case("a matrix of nano, double quantization", (768, 256, 64, True)),
        Case("a short last block", (drawn(20, 60), 2 * drawn(20, 60) + 1, 64, False)),
        Case("rows that are no multiple of the block", (2 * drawn(3, 20), 2 * drawn(10, 40) + 1, 32, True)),
        Case("an odd number of weights", (2 * drawn(2, 8) + 1, 2 * drawn(2, 8) + 1, 32, False)),
        Case("more than 256 blocks, the last group short", (drawn(80, 99), drawn(120, 140), 32, True)),
        Case("256 blocks, one full group", (64, 128, 32, True)),
        Case("blocks of 128", (8 * drawn(9, 30), 16 * drawn(9, 30), 128, True)),
        Case("blocks of 4096", (drawn(60, 200), drawn(60, 200), 4096, False)),
        Case("fewer weights than a block, double quantization", (drawn(2, 5), 2 * drawn(2, 5), 64, True)),
        Case("a single weight", (1, 1, 64, False)),
    ]


def every_bit_is_counted(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.number_near(got, "bits per weight", expected, _RTOL)


def _count(weights: Any, double_quant: Any, codes: Any, blocks: Any, *, first: float = 1, second: Any = None) -> Any:
    """Bits per weight from counts of bytes and blocks; all but what is given is right.

    `first` is how many bytes the absmax of a block takes under double quantization, `second` what comes on top.
    """
    if second is None:
        second = 4 * math.ceil(blocks / 256) + 4
    return 8 * (codes + (first * blocks + second if double_quant else 4 * blocks)) / weights


@mutant("only the codes are counted. The absmax are stored as well: half a bit per weight in blocks of 64.")
def codes_only(out, columns, block_size, double_quant):
    return 8 * math.ceil(out * columns / 2) / (out * columns)


@mutant(
    "this is the number of a very large matrix: 4 + 32 / block_size, or 4 + 8 / block_size + 32 / (256 * block_size). "
    "Short blocks, short groups, the last byte and the offset come on top. Count the bytes and divide."
)
def formula_without_remainders(out, columns, block_size, double_quant):
    return 4 + (8 / block_size + 32 / (256 * block_size) if double_quant else 32 / block_size)


@mutant(
    "the absmax are counted with 2 bytes each, as the 16-bit scales of GPTQ and AWQ. bitsandbytes keeps them in "
    "float32."
)
def absmax_in_16_bits(out, columns, block_size, double_quant):
    weights = out * columns
    blocks = math.ceil(weights / block_size)
    second = 2 * math.ceil(blocks / 256) + 4
    return 8 * (math.ceil(weights / 2) + (blocks + second if double_quant else 2 * blocks)) / weights


@mutant("the short block at the end is not counted: weights // block_size rounds down. It has an absmax, too.")
def blocks_rounded_down(out, columns, block_size, double_quant):
    weights = out * columns
    return _count(weights, double_quant, math.ceil(weights / 2), weights // block_size)


@mutant("a short block is counted in part. It has a whole absmax: the number of blocks is rounded up.")
def blocks_not_rounded(out, columns, block_size, double_quant):
    weights = out * columns
    return _count(weights, double_quant, math.ceil(weights / 2), weights / block_size)


@mutant(
    "the blocks are counted in each row by itself. The matrix is flattened first, so at most one block of all is short."
)
def blocks_in_every_row(out, columns, block_size, double_quant):
    return _count(out * columns, double_quant, math.ceil(out * columns / 2), out * math.ceil(columns / block_size))


@mutant("half a byte is counted where the number of weights is odd. The last byte is stored whole.")
def half_a_byte(out, columns, block_size, double_quant):
    weights = out * columns
    return _count(weights, double_quant, weights / 2, math.ceil(weights / block_size))


@mutant(
    "every row begins on a new byte. The codes of the flattened matrix are packed without a gap: only its last byte "
    "may be half empty."
)
def rows_begin_on_a_byte(out, columns, block_size, double_quant):
    weights = out * columns
    return _count(weights, double_quant, out * math.ceil(columns / 2), math.ceil(weights / block_size))


@mutant("the offset is missing: the mean of all absmax, 4 bytes for the whole matrix.")
def offset_forgotten(out, columns, block_size, double_quant):
    weights = out * columns
    blocks = math.ceil(weights / block_size)
    return _count(weights, double_quant, math.ceil(weights / 2), blocks, second=4 * math.ceil(blocks / 256))


@mutant("the second level is missing: each 256 codes of absmax share a scale in float32.")
def second_scales_forgotten(out, columns, block_size, double_quant):
    weights = out * columns
    return _count(weights, double_quant, math.ceil(weights / 2), math.ceil(weights / block_size), second=4)


@mutant("under double quantization only the codes of the absmax are counted, without their scales and the offset.")
def one_byte_per_block(out, columns, block_size, double_quant):
    weights = out * columns
    return _count(weights, double_quant, math.ceil(weights / 2), math.ceil(weights / block_size), second=0)


@mutant("the last, short group of absmax is not counted: blocks // 256 rounds down. It has a scale, too.")
def groups_rounded_down(out, columns, block_size, double_quant):
    weights = out * columns
    blocks = math.ceil(weights / block_size)
    return _count(weights, double_quant, math.ceil(weights / 2), blocks, second=4 * (blocks // 256) + 4)


@mutant(
    "the second level is counted per 256 weights. Its groups are 256 blocks: with blocks of 64 that is one scale for "
    "16,384 weights."
)
def groups_of_weights(out, columns, block_size, double_quant):
    weights = out * columns
    second = 4 * math.ceil(weights / 256) + 4
    return _count(weights, double_quant, math.ceil(weights / 2), math.ceil(weights / block_size), second=second)


@mutant("the groups of the second level have block_size blocks. They have 256, whatever the block size is.")
def groups_of_block_size(out, columns, block_size, double_quant):
    weights = out * columns
    blocks = math.ceil(weights / block_size)
    second = 4 * math.ceil(blocks / block_size) + 4
    return _count(weights, double_quant, math.ceil(weights / 2), blocks, second=second)


@mutant(
    "the absmax are counted twice: 4 bytes in float32 and 1 byte as a code. Double quantization replaces the float32 "
    "numbers."
)
def absmax_counted_twice(out, columns, block_size, double_quant):
    weights = out * columns
    return _count(weights, double_quant, math.ceil(weights / 2), math.ceil(weights / block_size), first=5)


@mutant("the argument double_quant is not used; the absmax are counted in float32.")
def never_double(out, columns, block_size, double_quant):
    return bits_per_weight(out, columns, block_size, False)


@mutant("the argument double_quant is not used; the absmax are always counted as bytes with scales.")
def always_double(out, columns, block_size, double_quant):
    return bits_per_weight(out, columns, block_size, True)


@mutant("the argument block_size is not used; blocks have 64 weights.")
def blocks_of_64(out, columns, block_size, double_quant):
    return bits_per_weight(out, columns, 64, double_quant)


@mutant("the table is counted, 16 levels of 4 bytes. It is the same for all tensors and part of the code.")
def table_counted(out, columns, block_size, double_quant):
    return bits_per_weight(out, columns, block_size, double_quant) + 8 * 64 / (out * columns)


@mutant("zero-points are counted, 4 bits for each block. NF4 has none: its zero is a level of the table.")
def zero_points_counted(out, columns, block_size, double_quant):
    blocks = math.ceil(out * columns / block_size)
    return bits_per_weight(out, columns, block_size, double_quant) + 4 * blocks / (out * columns)


@mutant("this is the number of bytes, not of bits per weight: times 8, divided by the number of weights.")
def bytes_in_all(out, columns, block_size, double_quant):
    return bits_per_weight(out, columns, block_size, double_quant) * out * columns / 8


@mutant("these are bytes per weight. A byte has 8 bits.")
def bytes_per_weight(out, columns, block_size, double_quant):
    return bits_per_weight(out, columns, block_size, double_quant) / 8


@mutant("the result is rounded to two digits, which hides what short blocks and the offset cost. Return it as it is.")
def rounded(out, columns, block_size, double_quant):
    return round(bits_per_weight(out, columns, block_size, double_quant), 2)


@mutant(
    "the result is rounded to three digits. What the last block and the offset cost may be smaller than that. "
    "Return it as it is."
)
def rounded_to_three(out, columns, block_size, double_quant):
    return round(bits_per_weight(out, columns, block_size, double_quant), 3)


def list_of_tensors(out, columns, block_size, double_quant):
    """Right, by the tensors of a file: their lengths and the bytes of their types."""
    weights = out * columns
    blocks = len(range(0, weights, block_size))
    tensors = [(len(range(0, weights, 2)), 1)]
    tensors += [(blocks, 1), (len(range(0, blocks, 256)), 4), (1, 4)] if double_quant else [(blocks, 4)]
    return Fraction(8 * sum(length * size for length, size in tensors), weights)


def average_and_remainders(out, columns, block_size, double_quant):
    """Right, from the number of a very large matrix, plus what the remainders take; in whole numbers until the end."""
    weights = out * columns
    blocks = (weights + block_size - 1) // block_size
    bits = 4 * weights + 4 * (weights % 2)
    if double_quant:
        bits += 8 * blocks + 32 * ((blocks + 255) // 256) + 32
    else:
        bits += 32 * blocks
    return bits / weights


QUESTION = Question(
    id="codebook.bits_per_weight",
    title="What four bits take",
    reference=bits_per_weight,
    cases=cases,
    properties=(every_bit_is_counted,),
    mutants=(
        codes_only,
        formula_without_remainders,
        absmax_in_16_bits,
        blocks_rounded_down,
        blocks_not_rounded,
        blocks_in_every_row,
        half_a_byte,
        rows_begin_on_a_byte,
        offset_forgotten,
        second_scales_forgotten,
        one_byte_per_block,
        groups_rounded_down,
        groups_of_weights,
        groups_of_block_size,
        absmax_counted_twice,
        never_double,
        always_double,
        blocks_of_64,
        table_counted,
        zero_points_counted,
        bytes_in_all,
        bytes_per_weight,
        rounded,
        rounded_to_three,
    ),
    alternatives=(list_of_tensors, average_and_remainders),
    hints=(
        "Write down every tensor that a file of this matrix holds, with its length. Which of these lengths are rounded "
        "up, and to what?",
        "weights = out * columns; there are weights / block_size blocks, rounded up, and blocks / 256 groups, rounded "
        "up. The codes take weights / 2 bytes, rounded up. Add the bytes, and only at the end divide by the weights.",
        "blocks = math.ceil(weights / block_size); held = math.ceil(weights / 2), plus 4 * blocks, or with double "
        "quantization blocks + 4 * math.ceil(blocks / 256) + 4; the answer is 8 * held / weights.",
    ),
    explanation=(
        "In blocks of 64 an absmax in float32 costs 32 / 64 = 0.5 bits per weight, so NF4 takes 4.5. Double "
        "quantization brings that to 8 / 64 + 32 / (64 * 256) = 0.127, together 4.127. Saved are 0.373 bits of each "
        "weight: 3.2 GB in the linear layers of a 70B model. For comparison, INT4 in groups of 128 with 16-bit scales "
        "takes 4.125, with zero-points of 4 bits 4.156. Whoever says that NF4 beats INT4 has to say at which block "
        "size, because the same 4.5 bits buy INT4 groups of 32."
    ),
)
