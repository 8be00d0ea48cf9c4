"""kernels.unpack4: two 4-bit codes out of a byte, the first in the high half, rows of odd length."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import (
    argument,
    cdiv,
    each_program_stores_its_own,
    high_first,
    launched,
    only_interpreted,
    stays_inside,
    tl,
    triton,
    unwritten,
    whole,
    written,
)


@triton.jit
def unpack4(packed, codes, columns, BLOCK: tl.constexpr):
    """Signed codes from packed ones: the two halves of each byte, minus 8.

    packed: pointer to uint8 (rows, (columns + 1) // 2). Byte j of a row holds the elements
        2j, in its HIGH half, and 2j + 1, in its low half. Where columns is odd, the low half
        of the last byte of each row belongs to nobody.
    codes: pointer to int8 (rows, columns), the output: the half minus 8, from -8 to 7.
    columns: a whole number from 1 on.
    BLOCK: a power of two. Program (i, j) owns, of row i, the BLOCK bytes from j * BLOCK on.
    """
    row = tl.program_id(0)
    size = (columns + 1) // 2  # bytes of a row
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed + row * size + j, mask=j < size, other=0).to(tl.int32)
    place = codes + row * columns + 2 * j
    tl.store(place, (byte >> 4) - 8, mask=2 * j < columns)
    tl.store(place + 1, (byte & 15) - 8, mask=2 * j + 1 < columns)


CARD = torch.tensor([[0x9, 0x1, 0xF, 0x0, 0x8], [0xA, 0x7, 0x3, 0xC, 0x5]], dtype=torch.uint8)


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def one(name: str, halves: torch.Tensor, block: int, pad: int = 0) -> Case:
        rows, columns = halves.shape
        packed = high_first(halves)
        if columns % 2:
            packed[:, -1] |= pad  # what belongs to nobody may be anything
        return launched(
            name, (rows, cdiv(packed.shape[1], block)), ("codes",), packed=packed,
            codes=unwritten(rows, columns, dtype=torch.int8), columns=columns, BLOCK=block,
        )  # fmt: skip

    mixed = whole(random, 8, 15, 1, 26) ^ torch.tensor([0, 8] * 13).byte()
    return [
        one("the example of the card", CARD, 2),
        one("an even row, and blocks that divide it", whole(random, 0, 15, 1, 16), 4),
        one("even rows, shorter than a block", whole(random, 0, 15, 3, 22), 16),
        one("odd rows, with something in the spare halves", whole(random, 0, 15, 2, 21), 16, pad=6),
        one("a single element", whole(random, 0, 15, 1, 1), 4, pad=9),
        one("a single column", whole(random, 0, 15, 2, 1), 4, pad=15),
        one("high halves from 8 on, low ones below", mixed, 16),
    ]


def codes_are_the_halves(case: Case, got: Any, expected: Any) -> Finding | None:
    packed = argument(case, "packed").int()
    halves = torch.stack([packed >> 4, packed & 15], dim=-1).flatten(1)[:, : argument(case, "columns")]
    return p.equal(got["codes"].int(), "codes", halves - 8)


@mutant(
    "the halves are swapped: the element 2j is in the high half here, byte >> 4. The lesson's INT4 has it in the low "
    "half, NF4 of bitsandbytes in the high one."
)
@triton.jit
def low_half_first(packed, codes, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    size = (columns + 1) // 2
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed + row * size + j, mask=j < size, other=0).to(tl.int32)
    place = codes + row * columns + 2 * j
    tl.store(place, (byte & 15) - 8, mask=2 * j < columns)
    tl.store(place + 1, (byte >> 4) - 8, mask=2 * j + 1 < columns)


@mutant("the high half is not shifted down: byte & 240 is 16 times the code.")
@triton.jit
def high_half_not_shifted(packed, codes, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    size = (columns + 1) // 2
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed + row * size + j, mask=j < size, other=0).to(tl.int32)
    place = codes + row * columns + 2 * j
    tl.store(place, (byte & 240) - 8, mask=2 * j < columns)
    tl.store(place + 1, (byte & 15) - 8, mask=2 * j + 1 < columns)


@mutant("the low half keeps the bits of the high one: byte & 15 takes them off.")
@triton.jit
def low_half_not_masked(packed, codes, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    size = (columns + 1) // 2
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed + row * size + j, mask=j < size, other=0).to(tl.int32)
    place = codes + row * columns + 2 * j
    tl.store(place, (byte >> 4) - 8, mask=2 * j < columns)
    tl.store(place + 1, byte - 8, mask=2 * j + 1 < columns)


@mutant("8 is not subtracted: the codes are stored as 0 to 15, and 8 stands for zero.")
@triton.jit
def eight_not_subtracted(packed, codes, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    size = (columns + 1) // 2
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed + row * size + j, mask=j < size, other=0)
    place = codes + row * columns + 2 * j
    tl.store(place, byte >> 4, mask=2 * j < columns)
    tl.store(place + 1, byte & 15, mask=2 * j + 1 < columns)


@mutant("7 is subtracted. The 16 codes go from -8 to 7: the stored 8 stands for zero.")
@triton.jit
def seven_subtracted(packed, codes, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    size = (columns + 1) // 2
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed + row * size + j, mask=j < size, other=0).to(tl.int32)
    place = codes + row * columns + 2 * j
    tl.store(place, (byte >> 4) - 7, mask=2 * j < columns)
    tl.store(place + 1, (byte & 15) - 7, mask=2 * j + 1 < columns)


@mutant(
    "the halves are read as two's complement, where 8 to 15 mean -8 to -1. Here the codes are shifted: 0 means -8, 8 "
    "means 0, 15 means 7."
)
@triton.jit
def two_complement(packed, codes, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    size = (columns + 1) // 2
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed + row * size + j, mask=j < size, other=0).to(tl.int32)
    place = codes + row * columns + 2 * j
    high, low = byte >> 4, byte & 15
    tl.store(place, tl.where(high > 7, high - 16, high), mask=2 * j < columns)
    tl.store(place + 1, tl.where(low > 7, low - 16, low), mask=2 * j + 1 < columns)


@mutant(
    "a signed byte is shifted: from 128 on a byte is negative as int8, and >> fills up with copies of the sign. Shift "
    "while it is unsigned (or int32), or mask with 15 after the shift."
)
@triton.jit
def shift_of_a_signed_byte(packed, codes, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    size = (columns + 1) // 2
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed + row * size + j, mask=j < size, other=0).to(tl.int8)
    place = codes + row * columns + 2 * j
    tl.store(place, (byte >> 4) - 8, mask=2 * j < columns)
    tl.store(place + 1, (byte & 15) - 8, mask=2 * j + 1 < columns)


@mutant(
    "the spare half of an odd row is stored, too: over the first code of the next row, and behind the end for the last "
    "row. The element 2j + 1 needs a mask of its own."
)
@triton.jit
def spare_half_stored(packed, codes, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    size = (columns + 1) // 2
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed + row * size + j, mask=j < size, other=0).to(tl.int32)
    place = codes + row * columns + 2 * j
    tl.store(place, (byte >> 4) - 8, mask=j < size)
    tl.store(place + 1, (byte & 15) - 8, mask=j < size)


@mutant("both halves have the mask of the second one: the last element of an odd row, in a high half, is never stored.")
@triton.jit
def last_element_lost(packed, codes, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    size = (columns + 1) // 2
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed + row * size + j, mask=j < size, other=0).to(tl.int32)
    place = codes + row * columns + 2 * j
    tl.store(place, (byte >> 4) - 8, mask=2 * j + 1 < columns)
    tl.store(place + 1, (byte & 15) - 8, mask=2 * j + 1 < columns)


@mutant("an odd row of 2n + 1 elements has n + 1 bytes, not n: (columns + 1) // 2. With columns // 2 the rows slip.")
@triton.jit
def bytes_of_a_row_rounded_down(packed, codes, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    size = columns // 2
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed + row * size + j, mask=2 * j < columns, other=0).to(tl.int32)
    place = codes + row * columns + 2 * j
    tl.store(place, (byte >> 4) - 8, mask=2 * j < columns)
    tl.store(place + 1, (byte & 15) - 8, mask=2 * j + 1 < columns)


@mutant(
    "row * (columns + 1) // 2 divides the whole product: from left to right it is (row * (columns + 1)) // 2. With an "
    "even number of columns rows begin too late from row 2 on. The length of a row comes first, in parentheses."
)
@triton.jit
def start_of_the_row_divided_last(packed, codes, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    size = (columns + 1) // 2
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed + row * (columns + 1) // 2 + j, mask=j < size, other=0).to(tl.int32)
    place = codes + row * columns + 2 * j
    tl.store(place, (byte >> 4) - 8, mask=2 * j < columns)
    tl.store(place + 1, (byte & 15) - 8, mask=2 * j + 1 < columns)


@mutant("the rows of codes are taken to be as long as the packed ones, 2 * size. Codes have no spare element.")
@triton.jit
def rows_of_codes_padded(packed, codes, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    size = (columns + 1) // 2
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed + row * size + j, mask=j < size, other=0).to(tl.int32)
    place = codes + row * 2 * size + 2 * j
    tl.store(place, (byte >> 4) - 8, mask=2 * j < columns)
    tl.store(place + 1, (byte & 15) - 8, mask=2 * j + 1 < columns)


@mutant(
    "the high halves become the first half of a row of codes, the low ones the second. The two codes of a byte are "
    "neighbors: 2j and 2j + 1."
)
@triton.jit
def halves_not_interleaved(packed, codes, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    size = (columns + 1) // 2
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed + row * size + j, mask=j < size, other=0).to(tl.int32)
    place = codes + row * columns + j
    tl.store(place, (byte >> 4) - 8, mask=j < size)
    tl.store(place + size, (byte & 15) - 8, mask=size + j < columns)


@mutant("both halves are stored at place j; byte j holds the elements 2j and 2j + 1.")
@triton.jit
def places_not_doubled(packed, codes, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    size = (columns + 1) // 2
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed + row * size + j, mask=j < size, other=0).to(tl.int32)
    place = codes + row * columns + j
    tl.store(place, (byte >> 4) - 8, mask=j < columns)
    tl.store(place + 1, (byte & 15) - 8, mask=j + 1 < columns)


@mutant("bytes are masked with j < columns. j counts bytes, and a row has about half as many of them as codes.")
@triton.jit
def bytes_masked_like_codes(packed, codes, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    size = (columns + 1) // 2
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed + row * size + j, mask=j < columns, other=0).to(tl.int32)
    place = codes + row * columns + 2 * j
    tl.store(place, (byte >> 4) - 8, mask=j < columns)
    tl.store(place + 1, (byte & 15) - 8, mask=j < columns)


@mutant("the bytes are read without a mask: the last block of the last row reaches past the end of packed.")
@triton.jit
def load_without_mask(packed, codes, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    size = (columns + 1) // 2
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed + row * size + j).to(tl.int32)
    place = codes + row * columns + 2 * j
    tl.store(place, (byte >> 4) - 8, mask=2 * j < columns)
    tl.store(place + 1, (byte & 15) - 8, mask=2 * j + 1 < columns)


@mutant("the stores have no mask: the last block of a row writes over the row behind it, and at the end over others.")
@triton.jit
def store_without_mask(packed, codes, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    size = (columns + 1) // 2
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed + row * size + j, mask=j < size, other=0).to(tl.int32)
    place = codes + row * columns + 2 * j
    tl.store(place, (byte >> 4) - 8)
    tl.store(place + 1, (byte & 15) - 8)


@mutant("every program of a row works on its first BLOCK bytes: j lacks tl.program_id(1) * BLOCK.")
@triton.jit
def always_the_first_block(packed, codes, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    size = (columns + 1) // 2
    j = tl.arange(0, BLOCK)
    byte = tl.load(packed + row * size + j, mask=j < size, other=0).to(tl.int32)
    place = codes + row * columns + 2 * j
    tl.store(place, (byte >> 4) - 8, mask=2 * j < columns)
    tl.store(place + 1, (byte & 15) - 8, mask=2 * j + 1 < columns)


@mutant("the axes of the grid change places: tl.program_id(0) is the row, tl.program_id(1) the block.")
@triton.jit
def axes_of_the_grid_swapped(packed, codes, columns, BLOCK: tl.constexpr):
    row = tl.program_id(1)
    size = (columns + 1) // 2
    j = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed + row * size + j, mask=j < size, other=0).to(tl.int32)
    place = codes + row * columns + 2 * j
    tl.store(place, (byte >> 4) - 8, mask=2 * j < columns)
    tl.store(place + 1, (byte & 15) - 8, mask=2 * j + 1 < columns)


@mutant(
    "a row is taken to have columns // 2 bytes, in its places and in all masks. An odd row of 2n + 1 elements has n +"
    " 1: the last element is never stored, and the next row begins a byte too early."
)
@triton.jit
def bytes_rounded_down_everywhere(packed, codes, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    size = columns // 2
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed + row * size + j, mask=j < size, other=0).to(tl.int32)
    place = codes + row * columns + 2 * j
    tl.store(place, (byte >> 4) - 8, mask=j < size)
    tl.store(place + 1, (byte & 15) - 8, mask=j < size)


@mutant(
    "a row is taken to have columns // 2 bytes. In an odd row the last element is in one byte more, which is masked "
    "off: it becomes what `other` says, and the next row begins a byte too early."
)
@triton.jit
def last_byte_not_loaded(packed, codes, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    size = columns // 2
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed + row * size + j, mask=j < size, other=0).to(tl.int32)
    place = codes + row * columns + 2 * j
    tl.store(place, (byte >> 4) - 8, mask=2 * j < columns)
    tl.store(place + 1, (byte & 15) - 8, mask=2 * j + 1 < columns)


@mutant(
    "only the first of the two stores has a mask. The second one goes one place on, and 2j + 1 may lie behind the end"
    " of the row as well."
)
@triton.jit
def second_store_without_mask(packed, codes, columns, BLOCK: tl.constexpr):
    row = tl.program_id(0)
    size = (columns + 1) // 2
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed + row * size + j, mask=j < size, other=0).to(tl.int32)
    place = codes + row * columns + 2 * j
    tl.store(place, (byte >> 4) - 8, mask=2 * j < columns)
    tl.store(place + 1, (byte & 15) - 8)


@triton.jit
def one_load_for_each_code(packed, codes, columns, BLOCK: tl.constexpr):
    """Right: from the side of the codes. Each reads its byte, so each byte is read twice."""
    row = tl.program_id(0)
    c = 2 * BLOCK * tl.program_id(1) + tl.arange(0, 2 * BLOCK)
    byte = tl.load(packed + row * ((columns + 1) // 2) + c // 2, mask=c < columns)
    half = (byte >> tl.where(c % 2 == 0, 4, 0)) & 15
    tl.store(codes + row * columns + c, half.to(tl.int8) - 8, mask=c < columns)


@triton.jit
def unsigned_to_the_end(packed, codes, columns, BLOCK: tl.constexpr):
    """Right: uint8 minus 8 wraps around, and the same bits are the signed number."""
    row = tl.program_id(0)
    size = tl.cdiv(columns, 2)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    byte = tl.load(packed + row * size + j, mask=j < size, other=0)
    tl.store(codes + row * columns + 2 * j, ((byte >> 4) - 8).to(tl.int8, bitcast=True), mask=2 * j < columns)
    second = (byte % 16 - 8).to(tl.int8, bitcast=True)
    tl.store(codes + row * columns + 2 * j + 1, second, mask=2 * j < columns - 1)


QUESTION = Question(
    id="kernels.unpack4",
    title="Two codes from a byte, in odd rows",
    reference=unpack4,
    cases=cases,
    properties=(stays_inside, written("codes"), codes_are_the_halves, each_program_stores_its_own),
    mutants=(
        low_half_first,
        high_half_not_shifted,
        low_half_not_masked,
        eight_not_subtracted,
        seven_subtracted,
        two_complement,
        shift_of_a_signed_byte,
        spare_half_stored,
        last_element_lost,
        bytes_of_a_row_rounded_down,
        start_of_the_row_divided_last,
        rows_of_codes_padded,
        halves_not_interleaved,
        places_not_doubled,
        bytes_masked_like_codes,
        *only_interpreted(load_without_mask),
        store_without_mask,
        always_the_first_block,
        axes_of_the_grid_swapped,
        bytes_rounded_down_everywhere,
        last_byte_not_loaded,
        second_store_without_mask,
    ),
    alternatives=(one_load_for_each_code, unsigned_to_the_end),
    hints=(
        "How many bytes has a row of 5 codes? Which element is in the low half of the last one, and where would it be "
        "stored if you let it?",
        "Three masks: one for the bytes, j < (columns + 1) // 2, and one for each of the two stores, which ask whether "
        "the element 2j, or 2j + 1, exists. The start of a row differs: in bytes for packed, in codes for the output.",
        "byte = tl.load(packed + row * size + j, mask=j < size, other=0).to(tl.int32); store (byte >> 4) - 8 at row * "
        "columns + 2 * j with the mask 2 * j < columns, and (byte & 15) - 8 one place on with 2 * j + 1 < columns.",
    ),
    explanation=(
        "Who packs decides which half comes first, and there is no rule: INT4 of this course and GPTQ's words begin "
        "low, NF4 of bitsandbytes high. A test on random data finds a swap at once, a histogram never. Odd rows are "
        "the second trap: the spare half has a place in the packed row and none in the row of codes, so a store "
        "without a mask of its own writes over the first code of the next row. Whether you then see it depends on "
        "which program comes later, on a GPU by chance."
    ),
)
