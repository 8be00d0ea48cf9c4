"""memory.weight_bytes: the bytes of a quantized checkpoint, with scales, short groups and the part left at 16 bits."""

from __future__ import annotations

import math
from fractions import Fraction
from random import Random
from typing import Any

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .configs import published


def weight_bytes(matrices, bits, group_size, rest):
    """Count the bytes of a checkpoint with quantized matrices.

    matrices: tuples (rows, columns, copies): that many equal matrices, which are quantized.
    bits: of one code, 2 to 8.
    group_size: weights of a row that share a 16-bit scale.
    rest: how many parameters stay at 16 bits.

    Returns the bytes, a whole number.
    """
    total = 2 * rest
    for rows, columns, copies in matrices:
        codes = math.ceil(columns * bits / 8)
        scales = 2 * math.ceil(columns / group_size)
        total += copies * rows * (codes + scales)
    return total


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    rows, columns = random.randrange(5, 40), 16 * random.randrange(10, 30) + random.randrange(1, 16, 2)
    return [
        Case("the example of the card", (((10, 42, 2),), 3, 16, 100)),
        Case("Llama-3-8B at 4 bits", (*_checkpoint("Llama-3-8B"), 4, 128, _rest("Llama-3-8B"))),
        Case("Llama-3-70B at 4 bits", (*_checkpoint("Llama-3-70B"), 4, 128, _rest("Llama-3-70B"))),
        Case("one matrix, a short last group", (((rows, 160, 1),), 4, 64, 0)),
        Case("one matrix, 3 bits, rows that end inside a byte", (((rows, columns, 1),), 3, 32, 10)),
        Case("5 bits, several copies", (((rows, columns, 7), (columns, rows, 3)), 5, 128, 1000)),
        Case("8 bits, groups longer than a row", (((rows, 96, 2),), 8, 128, 333)),
        # A group of 12 bits: only the row ends on a whole byte.
        Case("2 bits, groups of 6", (((rows, columns + 2, 4),), 2, 6, 77)),
    ]


def _checkpoint(name: str) -> tuple[tuple[tuple[int, int, int], ...]]:
    """The quantized matrices of a published model, equal ones together; in a tuple, as the first argument."""
    c = published(name)
    hidden, mlp, layers = c["hidden_size"], c["intermediate_size"], c["num_hidden_layers"]
    queries, keys = c["num_attention_heads"] * c["head_dim"], c["num_key_value_heads"] * c["head_dim"]
    return (
        (
            (queries, hidden, layers),
            (keys, hidden, 2 * layers),
            (hidden, queries, layers),
            (mlp, hidden, 2 * layers),
            (hidden, mlp, layers),
        ),
    )


def _rest(name: str) -> int:
    """Embedding, head and norms of a published model with an untied head."""
    c = published(name)
    return (2 * c["vocab_size"] + 2 * c["num_hidden_layers"] + 1) * c["hidden_size"]


def every_byte_is_counted(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.whole_number_is(got, "the size", expected, "bytes")


def _size(matrices, rest_bytes, matrix_bytes):
    """The rest, and `matrix_bytes(rows, columns)` for every copy of every matrix."""
    return rest_bytes + sum(copies * matrix_bytes(rows, columns) for rows, columns, copies in matrices)


def _codes(columns, bits):
    return math.ceil(columns * bits / 8)


def _scales(columns, group_size):
    return 2 * math.ceil(columns / group_size)


@mutant(
    "the scales are missing: this is the arithmetic that makes 35 GB out of a 70B model. Every group of a row has a "
    "scale of 2 bytes, 0.125 bits per weight with groups of 128."
)
def scales_forgotten(matrices, bits, group_size, rest):
    return _size(matrices, 2 * rest, lambda rows, columns: rows * _codes(columns, bits))


@mutant("the part that stays at 16 bits is missing: embedding, head and norms, 2 bytes for each parameter.")
def rest_forgotten(matrices, bits, group_size, rest):
    return weight_bytes(matrices, bits, group_size, 0)


@mutant(
    "the rest is counted at the bits of the codes. Embedding and head stay at 16 bits in nearly every checkpoint: "
    "2 bytes per parameter."
)
def rest_quantized_too(matrices, bits, group_size, rest):
    return weight_bytes(matrices, bits, group_size, 0) + math.ceil(rest * bits / 8)


@mutant("the rest is a number of parameters and is added as if it were bytes. At 16 bits each of them takes 2 bytes.")
def rest_added_as_bytes(matrices, bits, group_size, rest):
    return weight_bytes(matrices, bits, group_size, 0) + rest


@mutant("bits are counted as bytes. A byte has 8 bits, so a row of codes takes ceil(columns * bits / 8) bytes.")
def bits_as_bytes(matrices, bits, group_size, rest):
    return _size(matrices, 2 * rest, lambda rows, columns: rows * (columns * bits + _scales(columns, group_size)))


@mutant("a scale is counted with 16 bytes. It has 16 bits, which are 2 bytes.")
def scale_of_sixteen_bytes(matrices, bits, group_size, rest):
    return _size(
        matrices, 2 * rest, lambda rows, columns: rows * (_codes(columns, bits) + 8 * _scales(columns, group_size))
    )


@mutant("a scale is counted with 4 bytes, as a float32. Here scales have 16 bits.")
def scale_of_four_bytes(matrices, bits, group_size, rest):
    return _size(
        matrices, 2 * rest, lambda rows, columns: rows * (_codes(columns, bits) + 2 * _scales(columns, group_size))
    )


@mutant(
    "the short group at the end of a row has no scale here. It needs one like every other group: divide and round up."
)
def short_group_without_a_scale(matrices, bits, group_size, rest):
    return _size(matrices, 2 * rest, lambda rows, columns: rows * (_codes(columns, bits) + 2 * (columns // group_size)))


@mutant(
    "the groups run on from one row into the next. A group ends with its row, so every row may end in a short group "
    "with a scale of its own."
)
def groups_across_rows(matrices, bits, group_size, rest):
    return _size(
        matrices, 2 * rest, lambda rows, columns: rows * _codes(columns, bits) + _scales(rows * columns, group_size)
    )


@mutant("rows and columns are swapped. The tuples are (rows, columns, copies), and a row is `columns` weights long.")
def rows_and_columns_swapped(matrices, bits, group_size, rest):
    return weight_bytes([(rows, columns, copies) for columns, rows, copies in matrices], bits, group_size, rest)


@mutant(
    "the short group at the end of a row is filled up to a full one. It has a scale of its own, but only as many codes "
    "as there are weights."
)
def short_group_filled_up(matrices, bits, group_size, rest):
    padded = [(rows, math.ceil(columns / group_size) * group_size, copies) for rows, columns, copies in matrices]
    return weight_bytes(padded, bits, group_size, rest)


@mutant(
    "columns // group_size + 1 is one group too many where the groups fill the row exactly: divide and round up, with "
    "math.ceil."
)
def always_one_group_more(matrices, bits, group_size, rest):
    return _size(
        matrices, 2 * rest, lambda rows, columns: rows * (_codes(columns, bits) + 2 * (columns // group_size + 1))
    )


@mutant("the result is in bits, eight for each byte. Return bytes.")
def in_bits(matrices, bits, group_size, rest):
    return _size(matrices, 16 * rest, lambda rows, columns: rows * (columns * bits + 8 * _scales(columns, group_size)))


@mutant("only the first kind of matrix is counted. Is the return indented too far, inside the loop?")
def only_the_first_kind(matrices, bits, group_size, rest):
    return weight_bytes(matrices[:1], bits, group_size, rest)


@mutant("there is one scale per row here. There is one for every group of a row.")
def one_scale_per_row(matrices, bits, group_size, rest):
    return weight_bytes(matrices, bits, 10**9, rest)


@mutant(
    "the codes of all rows are packed without a gap. Here every row starts on a new byte, so that a kernel can find "
    "it: round up row by row."
)
def rows_not_padded(matrices, bits, group_size, rest):
    return _size(
        matrices, 2 * rest, lambda rows, columns: _codes(rows * columns, bits) + rows * _scales(columns, group_size)
    )


@mutant("the last byte of a row is cut off where it is not full: columns * bits // 8 rounds down.")
def last_byte_cut_off(matrices, bits, group_size, rest):
    return _size(matrices, 2 * rest, lambda rows, columns: rows * (columns * bits // 8 + _scales(columns, group_size)))


@mutant(
    "this multiplies the weights by an average, (bits + 16 / group_size) / 8 bytes. That is right only where whole "
    "groups and whole bytes fill every row."
)
def average_bits(matrices, bits, group_size, rest):
    return _size(matrices, 2 * rest, lambda rows, columns: rows * columns * (bits + 16 / group_size) / 8)


@mutant("the third number of each tuple is not used: that many equal matrices are there.")
def copies_forgotten(matrices, bits, group_size, rest):
    return weight_bytes([(rows, columns, 1) for rows, columns, _ in matrices], bits, group_size, rest)


@mutant("every code takes a whole byte, as it does before packing. Packed codes take bits / 8 bytes each.")
def codes_not_packed(matrices, bits, group_size, rest):
    return weight_bytes(matrices, 8, group_size, rest)


@mutant("the result is in GB. Return bytes; they can be compared with the file, to the last one.")
def in_gigabytes(matrices, bits, group_size, rest):
    return weight_bytes(matrices, bits, group_size, rest) / 1e9


def group_by_group(matrices, bits, group_size, rest):
    """Right, by a walk along one row: every group starts a scale, every eighth bit a byte. The result is a float."""
    total = 2.0 * rest
    for rows, columns, copies in matrices:
        row = 0.0
        for _group in range(0, columns, group_size):
            row += 2
        for _byte in range(0, columns * bits, 8):
            row += 1
        total += row * rows * copies
    return total


def in_bits_as_fractions(matrices, bits, group_size, rest):
    """Right, in bits and with exact fractions, divided by eight at the end."""
    total = Fraction(16 * rest)
    for rows, columns, copies in matrices:
        whole, short = divmod(columns, group_size)
        scale_bits = 16 * (whole + (short > 0))
        padding = -(columns * bits) % 8
        total += Fraction(columns * bits + padding + scale_bits) * rows * copies
    return int(total / 8)


QUESTION = Question(
    id="memory.weight_bytes",
    title="From parameters to bytes",
    reference=weight_bytes,
    cases=cases,
    properties=(every_byte_is_counted,),
    mutants=(
        scales_forgotten,
        rest_forgotten,
        rest_quantized_too,
        rest_added_as_bytes,
        bits_as_bytes,
        scale_of_sixteen_bytes,
        scale_of_four_bytes,
        short_group_without_a_scale,
        groups_across_rows,
        rows_and_columns_swapped,
        short_group_filled_up,
        always_one_group_more,
        one_scale_per_row,
        rows_not_padded,
        last_byte_cut_off,
        average_bits,
        copies_forgotten,
        codes_not_packed,
        only_the_first_kind,
        in_bits,
        in_gigabytes,
    ),
    alternatives=(group_by_group, in_bits_as_fractions),
    hints=(
        "Count one row first. What does a row of codes take, and how many scales does a row have?",
        "Two divisions do not come out even at the end of a row: bits into bytes, and weights into groups. In which "
        "direction does each of them round? Then every row of every copy costs the same.",
        "For each (rows, columns, copies) add copies * rows * (math.ceil(columns * bits / 8) + "
        "2 * math.ceil(columns / group_size)); then add 2 * rest.",
    ),
    explanation=(
        "Both divisions round up, and both do so in every row: a row ends its last byte and its last group. "
        "That is why an average number of bits per weight is an estimate and this is a count. On Llama-3-70B the "
        "scales are 1.1 GB and the 16-bit rest 4.2 GB: together with 34.2 GB of codes 39.5 GB, and not 35."
    ),
)
