"""kernels.dequantize_nf4: a table look-up, blocks of a flat weight, and scales that are quantized themselves."""

from __future__ import annotations

from typing import Any

import torch

from ....formats import codebook
from ...question import Case, Finding, Question, mutant
from .shared import (
    argument,
    cdiv,
    each_program_stores_its_own,
    high_first,
    launched,
    near,
    only_interpreted,
    stays_inside,
    tl,
    triton,
    unwritten,
    whole,
    written,
)


@triton.jit
def dequantize_nf4(
    packed, absmax, levels, nested, table, w, count, offset,
    SIZE: tl.constexpr, NEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """w[i] = table[code[i]] * a[i // SIZE], where a[b] = levels[absmax[b]] * nested[b // NEST] + offset.

    packed: pointer to uint8 ((count + 1) // 2,). Byte j holds the codes 2j, in its HIGH half,
        and 2j + 1, in its low half.
    absmax: pointer to uint8 (blocks,), where blocks = (count + SIZE - 1) // SIZE: the code of
        the scale of each block of SIZE weights.
    levels: pointer to float32 (256,): what the codes of scales stand for.
    nested: pointer to float32 ((blocks + NEST - 1) // NEST,): a scale for each NEST scales.
    table: pointer to float32 (16,): what the codes of weights stand for.
    w: pointer to float32 (count,), the output.
    count: the number of weights, from 1 on. offset: a float.
    SIZE, NEST, BLOCK: powers of two. Program i owns the BLOCK weights from i * BLOCK on; BLOCK
        may be larger or smaller than SIZE.
    """
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    byte = tl.load(packed + i // 2, mask=inside, other=0).to(tl.int32)
    code = tl.where(i % 2 == 0, byte >> 4, byte & 15)
    block = i // SIZE
    level = tl.load(levels + tl.load(absmax + block, mask=inside, other=0).to(tl.int32))
    scale = level * tl.load(nested + block // NEST, mask=inside, other=0) + offset
    tl.store(w + i, tl.load(table + code) * scale, mask=inside)


TABLE = codebook.CODES["nf4"]
# The example of the card: 7 weights in blocks of 4, and both scales in one nest.
CARD_CODES = torch.tensor([15, 0, 7, 8, 14, 1, 15], dtype=torch.uint8)
CARD_ABSMAX = torch.tensor([200, 55], dtype=torch.uint8)
CARD_NESTED, CARD_OFFSET = torch.tensor([0.5]), 0.75


def levels() -> torch.Tensor:
    """256 values from -1 to 1, denser near zero: float32."""
    even = torch.linspace(-1, 1, 256)
    return even * even.abs()


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def one(
        name: str, codes: torch.Tensor, absmax: torch.Tensor, nested: torch.Tensor, offset: float, size: int, nest: int,
        block: int,
    ) -> Case:  # fmt: skip
        count = len(codes)
        return launched(
            name, (cdiv(count, block),), ("w",), packed=high_first(codes), absmax=absmax, levels=levels(),
            nested=nested, table=TABLE.clone(), w=unwritten(count), count=count, offset=offset, SIZE=size, NEST=nest,
            BLOCK=block,
        )  # fmt: skip

    def weight(name: str, count: int, size: int, nest: int, block: int) -> Case:
        blocks = cdiv(count, size)
        nested = 0.1 + torch.rand(cdiv(blocks, nest), generator=random)
        offset = 1.5 + round(float(torch.rand((), generator=random)), 3)
        return one(name, whole(random, 0, 15, count), whole(random, 0, 255, blocks), nested, offset, size, nest, block)

    return [
        one("the example of the card", CARD_CODES, CARD_ABSMAX, CARD_NESTED, CARD_OFFSET, 4, 256, 4),
        weight("a program for four blocks", 256, 16, 8, 64),
        weight("a block for two programs", 128, 64, 256, 32),
        weight("several nests, the last one short", 200, 8, 4, 128),
        weight("an odd number of weights", 77, 16, 2, 64),
        weight("a single weight", 1, 64, 256, 16),
        weight("the sizes of bitsandbytes", 1000, 64, 256, 1024),
    ]


def exact(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """The weights, float64, and the sizes of what is added up in each."""
    packed, count = argument(case, "packed").int(), argument(case, "count")
    codes = torch.stack([packed >> 4, packed & 15], dim=-1).flatten()[:count]
    block = torch.arange(count) // argument(case, "SIZE")
    level = argument(case, "levels").double()[argument(case, "absmax").int()[block]]
    product = level * argument(case, "nested").double()[block // argument(case, "NEST")]
    values, offset = argument(case, "table").double()[codes], argument(case, "offset")
    return values * (product + offset), values.abs() * (product.abs() + abs(offset))


def every_weight_is_its_value_times_its_scale(case: Case, got: Any, expected: Any) -> Finding | None:
    wanted, size = exact(case)
    return near(got["w"], "w", wanted, 4 * 2.0**-24 * size)


@mutant("the halves are swapped: weight 2j is in the high half of byte j here, weight 2j + 1 in the low one.")
@triton.jit
def low_half_first(
    packed, absmax, levels, nested, table, w, count, offset,
    SIZE: tl.constexpr, NEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    byte = tl.load(packed + i // 2, mask=inside, other=0).to(tl.int32)
    code = tl.where(i % 2 == 1, byte >> 4, byte & 15)
    block = i // SIZE
    level = tl.load(levels + tl.load(absmax + block, mask=inside, other=0).to(tl.int32))
    scale = level * tl.load(nested + block // NEST, mask=inside, other=0) + offset
    tl.store(w + i, tl.load(table + code) * scale, mask=inside)


@mutant("the block is counted in bytes, i // 2 // SIZE. SIZE weights share a scale, and they are SIZE / 2 bytes.")
@triton.jit
def block_of_the_byte(
    packed, absmax, levels, nested, table, w, count, offset,
    SIZE: tl.constexpr, NEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    byte = tl.load(packed + i // 2, mask=inside, other=0).to(tl.int32)
    code = tl.where(i % 2 == 0, byte >> 4, byte & 15)
    block = i // 2 // SIZE
    level = tl.load(levels + tl.load(absmax + block, mask=inside, other=0).to(tl.int32))
    scale = level * tl.load(nested + block // NEST, mask=inside, other=0) + offset
    tl.store(w + i, tl.load(table + code) * scale, mask=inside)


@mutant(
    "the number of the program is taken for the number of the block. A program may own several blocks or a part of "
    "one: the block of weight i is i // SIZE."
)
@triton.jit
def program_taken_for_the_block(
    packed, absmax, levels, nested, table, w, count, offset,
    SIZE: tl.constexpr, NEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    byte = tl.load(packed + i // 2, mask=inside, other=0).to(tl.int32)
    code = tl.where(i % 2 == 0, byte >> 4, byte & 15)
    block = tl.program_id(0)
    level = tl.load(levels + tl.load(absmax + block).to(tl.int32))
    scale = level * tl.load(nested + block // NEST) + offset
    tl.store(w + i, tl.load(table + code) * scale, mask=inside)


@mutant("a program takes one scale, that of its first weight. With BLOCK above SIZE it owns weights of several blocks.")
@triton.jit
def scale_of_the_first_weight(
    packed, absmax, levels, nested, table, w, count, offset,
    SIZE: tl.constexpr, NEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    byte = tl.load(packed + i // 2, mask=inside, other=0).to(tl.int32)
    code = tl.where(i % 2 == 0, byte >> 4, byte & 15)
    block = tl.program_id(0) * BLOCK // SIZE
    level = tl.load(levels + tl.load(absmax + block).to(tl.int32))
    scale = level * tl.load(nested + block // NEST) + offset
    tl.store(w + i, tl.load(table + code) * scale, mask=inside)


@mutant("the nest is counted in weights, i // NEST. NEST scales share one, so it is the block // NEST.")
@triton.jit
def nest_of_the_weight(
    packed, absmax, levels, nested, table, w, count, offset,
    SIZE: tl.constexpr, NEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    byte = tl.load(packed + i // 2, mask=inside, other=0).to(tl.int32)
    code = tl.where(i % 2 == 0, byte >> 4, byte & 15)
    level = tl.load(levels + tl.load(absmax + i // SIZE, mask=inside, other=0).to(tl.int32))
    scale = level * tl.load(nested + i // NEST, mask=inside, other=0) + offset
    tl.store(w + i, tl.load(table + code) * scale, mask=inside)


@mutant("all blocks take the first nested scale. Every NEST blocks have another one: nested + block // NEST.")
@triton.jit
def first_nest_for_all(
    packed, absmax, levels, nested, table, w, count, offset,
    SIZE: tl.constexpr, NEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    byte = tl.load(packed + i // 2, mask=inside, other=0).to(tl.int32)
    code = tl.where(i % 2 == 0, byte >> 4, byte & 15)
    level = tl.load(levels + tl.load(absmax + i // SIZE, mask=inside, other=0).to(tl.int32))
    tl.store(w + i, tl.load(table + code) * (level * tl.load(nested) + offset), mask=inside)


@mutant("the offset is not added: the mean of the scales was taken away before they were quantized.")
@triton.jit
def offset_forgotten(
    packed, absmax, levels, nested, table, w, count, offset,
    SIZE: tl.constexpr, NEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    byte = tl.load(packed + i // 2, mask=inside, other=0).to(tl.int32)
    code = tl.where(i % 2 == 0, byte >> 4, byte & 15)
    block = i // SIZE
    level = tl.load(levels + tl.load(absmax + block, mask=inside, other=0).to(tl.int32))
    scale = level * tl.load(nested + block // NEST, mask=inside, other=0)
    tl.store(w + i, tl.load(table + code) * scale, mask=inside)


@mutant("the offset is added before the nested scale is applied. It is no level: level * nested + offset.")
@triton.jit
def offset_before_the_nested_scale(
    packed, absmax, levels, nested, table, w, count, offset,
    SIZE: tl.constexpr, NEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    byte = tl.load(packed + i // 2, mask=inside, other=0).to(tl.int32)
    code = tl.where(i % 2 == 0, byte >> 4, byte & 15)
    block = i // SIZE
    level = tl.load(levels + tl.load(absmax + block, mask=inside, other=0).to(tl.int32))
    scale = (level + offset) * tl.load(nested + block // NEST, mask=inside, other=0)
    tl.store(w + i, tl.load(table + code) * scale, mask=inside)


@mutant("the offset is added to the weights. It belongs to the scales: table[code] * (level * nested + offset).")
@triton.jit
def offset_added_to_the_weights(
    packed, absmax, levels, nested, table, w, count, offset,
    SIZE: tl.constexpr, NEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    byte = tl.load(packed + i // 2, mask=inside, other=0).to(tl.int32)
    code = tl.where(i % 2 == 0, byte >> 4, byte & 15)
    block = i // SIZE
    level = tl.load(levels + tl.load(absmax + block, mask=inside, other=0).to(tl.int32))
    scale = level * tl.load(nested + block // NEST, mask=inside, other=0)
    tl.store(w + i, tl.load(table + code) * scale + offset, mask=inside)


@mutant("the nested scale is not applied: level + offset is not the scale.")
@triton.jit
def nested_scale_forgotten(
    packed, absmax, levels, nested, table, w, count, offset,
    SIZE: tl.constexpr, NEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    byte = tl.load(packed + i // 2, mask=inside, other=0).to(tl.int32)
    code = tl.where(i % 2 == 0, byte >> 4, byte & 15)
    level = tl.load(levels + tl.load(absmax + i // SIZE, mask=inside, other=0).to(tl.int32))
    tl.store(w + i, tl.load(table + code) * (level + offset), mask=inside)


@mutant("the code of a scale is used as its value. It is a number from 0 to 255; what it stands for is in levels.")
@triton.jit
def codes_of_scales_not_looked_up(
    packed, absmax, levels, nested, table, w, count, offset,
    SIZE: tl.constexpr, NEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    byte = tl.load(packed + i // 2, mask=inside, other=0).to(tl.int32)
    code = tl.where(i % 2 == 0, byte >> 4, byte & 15)
    block = i // SIZE
    level = tl.load(absmax + block, mask=inside, other=0).to(tl.float32)
    scale = level * tl.load(nested + block // NEST, mask=inside, other=0) + offset
    tl.store(w + i, tl.load(table + code) * scale, mask=inside)


@mutant("code - 8 is used instead of the table. NF4 has no formula: its 16 values are not evenly spaced.")
@triton.jit
def codes_as_int4(
    packed, absmax, levels, nested, table, w, count, offset,
    SIZE: tl.constexpr, NEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    byte = tl.load(packed + i // 2, mask=inside, other=0).to(tl.int32)
    code = tl.where(i % 2 == 0, byte >> 4, byte & 15)
    block = i // SIZE
    level = tl.load(levels + tl.load(absmax + block, mask=inside, other=0).to(tl.int32))
    scale = level * tl.load(nested + block // NEST, mask=inside, other=0) + offset
    tl.store(w + i, (code - 8) * scale, mask=inside)


@mutant("the table is spread evenly over -1 to 1, as code * 2 / 15 - 1. The values of NF4 lie denser near zero.")
@triton.jit
def evenly_spread(
    packed, absmax, levels, nested, table, w, count, offset,
    SIZE: tl.constexpr, NEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    byte = tl.load(packed + i // 2, mask=inside, other=0).to(tl.int32)
    code = tl.where(i % 2 == 0, byte >> 4, byte & 15)
    block = i // SIZE
    level = tl.load(levels + tl.load(absmax + block, mask=inside, other=0).to(tl.int32))
    scale = level * tl.load(nested + block // NEST, mask=inside, other=0) + offset
    tl.store(w + i, (code.to(tl.float32) * 2 / 15 - 1) * scale, mask=inside)


@mutant("byte i is loaded for weight i. Two weights share a byte: packed + i // 2.")
@triton.jit
def a_byte_for_each_weight(
    packed, absmax, levels, nested, table, w, count, offset,
    SIZE: tl.constexpr, NEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    byte = tl.load(packed + i, mask=inside, other=0).to(tl.int32)
    code = tl.where(i % 2 == 0, byte >> 4, byte & 15)
    block = i // SIZE
    level = tl.load(levels + tl.load(absmax + block, mask=inside, other=0).to(tl.int32))
    scale = level * tl.load(nested + block // NEST, mask=inside, other=0) + offset
    tl.store(w + i, tl.load(table + code) * scale, mask=inside)


@mutant("tl.store has no mask: the last program writes over what lies behind w.")
@triton.jit
def store_without_mask(
    packed, absmax, levels, nested, table, w, count, offset,
    SIZE: tl.constexpr, NEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    byte = tl.load(packed + i // 2, mask=inside, other=0).to(tl.int32)
    code = tl.where(i % 2 == 0, byte >> 4, byte & 15)
    block = i // SIZE
    level = tl.load(levels + tl.load(absmax + block, mask=inside, other=0).to(tl.int32))
    scale = level * tl.load(nested + block // NEST, mask=inside, other=0) + offset
    tl.store(w + i, tl.load(table + code) * scale)


@mutant("the packed bytes are read without a mask: the last program reaches past their end.")
@triton.jit
def load_without_mask(
    packed, absmax, levels, nested, table, w, count, offset,
    SIZE: tl.constexpr, NEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    byte = tl.load(packed + i // 2).to(tl.int32)
    code = tl.where(i % 2 == 0, byte >> 4, byte & 15)
    block = i // SIZE
    level = tl.load(levels + tl.load(absmax + block, mask=inside, other=0).to(tl.int32))
    scale = level * tl.load(nested + block // NEST, mask=inside, other=0) + offset
    tl.store(w + i, tl.load(table + code) * scale, mask=inside)


@mutant("the scales are read without a mask: the last program may own places of blocks, and nests, that do not exist.")
@triton.jit
def scales_without_mask(
    packed, absmax, levels, nested, table, w, count, offset,
    SIZE: tl.constexpr, NEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    byte = tl.load(packed + i // 2, mask=inside, other=0).to(tl.int32)
    code = tl.where(i % 2 == 0, byte >> 4, byte & 15)
    block = i // SIZE
    level = tl.load(levels + tl.load(absmax + block).to(tl.int32))
    scale = level * tl.load(nested + block // NEST) + offset
    tl.store(w + i, tl.load(table + code) * scale, mask=inside)


@mutant(
    "the offset is added to the nested scale, level * (nested + offset). The mean was taken from the scales "
    "themselves, so it is added to the product: level * nested + offset."
)
@triton.jit
def nested_scale_times_the_offset(
    packed, absmax, levels, nested, table, w, count, offset,
    SIZE: tl.constexpr, NEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    byte = tl.load(packed + i // 2, mask=inside, other=0).to(tl.int32)
    code = tl.where(i % 2 == 0, byte >> 4, byte & 15)
    block = i // SIZE
    level = tl.load(levels + tl.load(absmax + block, mask=inside, other=0).to(tl.int32))
    scale = level * (tl.load(nested + block // NEST, mask=inside, other=0) + offset)
    tl.store(w + i, tl.load(table + code) * scale, mask=inside)


@mutant(
    "the mask of the weights is that of the bytes. An odd number of weights leaves a half of the last byte, and that "
    "is stored behind the end of w: i < count, not i // 2 < bytes."
)
@triton.jit
def spare_half_stored(
    packed, absmax, levels, nested, table, w, count, offset,
    SIZE: tl.constexpr, NEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i // 2 < (count + 1) // 2
    byte = tl.load(packed + i // 2, mask=inside, other=0).to(tl.int32)
    code = tl.where(i % 2 == 0, byte >> 4, byte & 15)
    block = i // SIZE
    level = tl.load(levels + tl.load(absmax + block, mask=inside, other=0).to(tl.int32))
    scale = level * tl.load(nested + block // NEST, mask=inside, other=0) + offset
    tl.store(w + i, tl.load(table + code) * scale, mask=inside)


@mutant(
    "the codes of the scales are used as signed numbers: from 128 on they are negative, and levels is read in front "
    "of its start. They are uint8; convert them to int32."
)
@triton.jit
def codes_of_scales_signed(
    packed, absmax, levels, nested, table, w, count, offset,
    SIZE: tl.constexpr, NEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    byte = tl.load(packed + i // 2, mask=inside, other=0).to(tl.int32)
    code = tl.where(i % 2 == 0, byte >> 4, byte & 15)
    block = i // SIZE
    level = tl.load(levels + tl.load(absmax + block, mask=inside, other=0).to(tl.int8))
    scale = level * tl.load(nested + block // NEST, mask=inside, other=0) + offset
    tl.store(w + i, tl.load(table + code) * scale, mask=inside)


@triton.jit
def byte_by_byte(
    packed, absmax, levels, nested, table, w, count, offset,
    SIZE: tl.constexpr, NEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Right: each byte is loaded once. Its second weight needs a mask, and may need a scale, of its own."""
    j = tl.program_id(0) * (BLOCK // 2) + tl.arange(0, BLOCK // 2)
    byte = tl.load(packed + j, mask=2 * j < count).to(tl.int32)
    for half in tl.static_range(2):
        i = 2 * j + half
        level = tl.load(levels + tl.load(absmax + i // SIZE, mask=i < count, other=0).to(tl.int32), mask=i < count)
        scale = offset + level * tl.load(nested + i // (SIZE * NEST), mask=i < count)
        tl.store(w + i, scale * tl.load(table + ((byte >> (4 - 4 * half)) & 15)), mask=i < count)


@triton.jit
def table_by_comparing(
    packed, absmax, levels, nested, table, w, count, offset,
    SIZE: tl.constexpr, NEST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Right: the 16 values one after the other, chosen by comparison; no look-up in the inner part."""
    i = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = i < count
    code = tl.load(packed + i // 2, mask=inside, other=0) >> ((i + 1) % 2 * 4) & 15
    value = tl.zeros((BLOCK,), tl.float32)
    for number in range(16):
        value += tl.where(code == number, tl.load(table + number), 0.0)
    level = tl.load(levels + tl.load(absmax + i // SIZE, mask=inside, other=0).to(tl.int32), mask=inside, other=0)
    tl.store(w + i, value * (level * tl.load(nested + i // SIZE // NEST, mask=inside, other=0) + offset), mask=inside)


QUESTION = Question(
    id="kernels.dequantize_nf4",
    title="NF4 with scales that are quantized, too",
    reference=dequantize_nf4,
    cases=cases,
    properties=(stays_inside, written("w"), every_weight_is_its_value_times_its_scale, each_program_stores_its_own),
    mutants=(
        low_half_first,
        block_of_the_byte,
        program_taken_for_the_block,
        scale_of_the_first_weight,
        nest_of_the_weight,
        first_nest_for_all,
        offset_forgotten,
        offset_before_the_nested_scale,
        offset_added_to_the_weights,
        nested_scale_forgotten,
        codes_of_scales_not_looked_up,
        codes_as_int4,
        evenly_spread,
        a_byte_for_each_weight,
        store_without_mask,
        *only_interpreted(load_without_mask, scales_without_mask),
        nested_scale_times_the_offset,
        spare_half_stored,
        codes_of_scales_signed,
    ),
    alternatives=(byte_by_byte, table_by_comparing),
    hints=(
        "Follow weight 6 of the card's example by hand: which byte, which half, which block, which nest? Then write "
        "each of them as a formula in i.",
        "Two chains of loads: the byte of i, then the value of its code; the code of the scale of block i // SIZE, "
        "then its level. A look-up is a load whose pointers are codes, table + code. The nested scale is that of block "
        "// NEST, and the offset comes last.",
        "code = tl.where(i % 2 == 0, byte >> 4, byte & 15); level = tl.load(levels + tl.load(absmax + i // SIZE, mask="
        "i < count, other=0).to(tl.int32)); then level * nested + offset is the scale, and tl.load(table + code) times "
        "it the weight.",
    ),
    explanation=(
        "A scale in float32 for every 64 weights costs half a bit per weight; as a code of 8 bits, with a float32 for "
        "256 of them, it costs 0.127 bits. The kernel pays with two more loads, and one of them needs the result of "
        "another: that is latency, and a GPU hides it only if enough programs are under way. A program that owns whole "
        "blocks would load each scale once; here 64 neighbors load the same one, from the cache. The blocks are cut "
        "from the flat weight, so nothing here knows rows, and an odd number of weights leaves half a byte behind."
    ),
)
