"""kernels.dequantize_int4: asymmetric 4-bit weights in groups of any size, in tiles that know nothing of groups."""

from __future__ import annotations

from typing import Any

import torch

from ...question import Case, Finding, Question, mutant
from .shared import (
    argument,
    cdiv,
    each_program_stores_its_own,
    launched,
    low_first,
    near,
    only_interpreted,
    scales,
    stays_inside,
    tl,
    triton,
    unwritten,
    whole,
    written,
)


@triton.jit
def dequantize_int4(packed, scales, zeros, w, out, columns, group, TALL: tl.constexpr, WIDE: tl.constexpr):
    """w[n, k] = scales[n, g] * (code[n, k] - zeros[n, g]), where g = k // group.

    packed: pointer to uint8 (out, columns // 2). Byte b of a row holds the codes 2b, in its
        LOW half, and 2b + 1, in its high half.
    scales: pointer to float16 (out, groups), where groups = (columns + group - 1) // group.
    zeros: pointer to uint8 (out, groups), from 0 to 15, one in each byte.
    w: pointer to float32 (out, columns), the output.
    out, columns, group: whole numbers from 1 on; columns is even, group may be odd. The last
        group of a row may be shorter than the others.
    TALL, WIDE: powers of two. Program (i, j) owns TALL outputs from i * TALL on, and WIDE
        columns from j * WIDE on, of several groups or of a part of one.
    """
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]  # (TALL, 1)
    k = tl.program_id(1) * WIDE + tl.arange(0, WIDE)[None, :]  # (1, WIDE)
    inside = (n < out) & (k < columns)
    byte = tl.load(packed + n * (columns // 2) + k // 2, mask=inside, other=0).to(tl.int32)
    code = (byte >> (k % 2 * 4)) & 15
    at = n * ((columns + group - 1) // group) + k // group  # (TALL, WIDE)
    zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
    scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
    tl.store(w + n * columns + k, (code.to(tl.float32) - zero) * scale, mask=inside)


# The example of the card: 2 outputs, 6 columns, groups of 4, so that the second group is short.
CARD_CODES = torch.tensor([[0, 15, 7, 8, 3, 12], [9, 1, 2, 14, 5, 6]], dtype=torch.uint8)
CARD_SCALES = torch.tensor([[0.5, 0.25], [2.0, 1.0]]).half()
CARD_ZEROS = torch.tensor([[7, 3], [9, 0]], dtype=torch.uint8)


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def one(
        name: str, codes: torch.Tensor, steps: torch.Tensor, zeros: torch.Tensor, group: int, tall: int, wide: int
    ) -> Case:
        out, columns = codes.shape
        return launched(
            name, (cdiv(out, tall), cdiv(columns, wide)), ("w",), packed=low_first(codes), scales=steps, zeros=zeros,
            w=unwritten(out, columns), out=out, columns=columns, group=group, TALL=tall, WIDE=wide,
        )  # fmt: skip

    def layer(name: str, out: int, columns: int, group: int, tall: int, wide: int) -> Case:
        groups = cdiv(columns, group)
        codes, zeros = whole(random, 0, 15, out, columns), whole(random, 0, 15, out, groups)
        return one(name, codes, scales(random, out, groups), zeros, group, tall, wide)

    return [
        one("the example of the card", CARD_CODES, CARD_SCALES, CARD_ZEROS, 4, 2, 8),
        layer("a tile of two groups", 8, 64, 16, 8, 32),
        layer("a group of two tiles", 5, 32, 32, 8, 16),
        layer("groups that begin within a tile, the last one short", 6, 50, 12, 4, 32),
        layer("odd groups: a byte lies in two of them", 5, 30, 5, 8, 32),
        layer("a single output", 1, 44, 8, 4, 64),
        layer("two columns, each a group", 9, 2, 1, 16, 4),
    ]


def exact(case: Case) -> torch.Tensor:
    """(out, columns), float64."""
    packed, group = argument(case, "packed").int(), argument(case, "group")
    codes = torch.stack([packed & 15, packed >> 4], dim=-1).flatten(1)
    of = torch.arange(codes.shape[1]) // group
    weights: torch.Tensor = argument(case, "scales").double()[:, of] * (codes - argument(case, "zeros").int()[:, of])
    return weights


def every_weight_has_its_group(case: Case, got: Any, expected: Any) -> Finding | None:
    wanted = exact(case)
    return near(got["w"], "w", wanted, 2.0**-23 * wanted.abs())


@mutant(
    "the group is computed from the byte, k // 2 // group. Groups count columns: k // group. With the byte, two groups "
    "get one scale, and the second half of the scales is never used."
)
@triton.jit
def group_of_the_byte(packed, scales, zeros, w, out, columns, group, TALL: tl.constexpr, WIDE: tl.constexpr):
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    k = tl.program_id(1) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (n < out) & (k < columns)
    byte = tl.load(packed + n * (columns // 2) + k // 2, mask=inside, other=0).to(tl.int32)
    code = (byte >> (k % 2 * 4)) & 15
    at = n * ((columns + group - 1) // group) + k // 2 // group
    zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
    scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
    tl.store(w + n * columns + k, (code.to(tl.float32) - zero) * scale, mask=inside)


@mutant(
    "each row of a tile gets one scale, that of the group in which the tile begins. A tile may reach over several "
    "groups: compute the group of every column."
)
@triton.jit
def one_group_for_the_tile(packed, scales, zeros, w, out, columns, group, TALL: tl.constexpr, WIDE: tl.constexpr):
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    k = tl.program_id(1) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (n < out) & (k < columns)
    byte = tl.load(packed + n * (columns // 2) + k // 2, mask=inside, other=0).to(tl.int32)
    code = (byte >> (k % 2 * 4)) & 15
    at = n * ((columns + group - 1) // group) + tl.program_id(1) * WIDE // group
    zero = tl.load(zeros + at, mask=n < out, other=0).to(tl.float32)
    scale = tl.load(scales + at, mask=n < out, other=0).to(tl.float32)
    tl.store(w + n * columns + k, (code.to(tl.float32) - zero) * scale, mask=inside)


@mutant("the number of the program is taken for the number of the group. Tiles have WIDE columns, groups `group`.")
@triton.jit
def program_taken_for_the_group(packed, scales, zeros, w, out, columns, group, TALL: tl.constexpr, WIDE: tl.constexpr):
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    k = tl.program_id(1) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (n < out) & (k < columns)
    byte = tl.load(packed + n * (columns // 2) + k // 2, mask=inside, other=0).to(tl.int32)
    code = (byte >> (k % 2 * 4)) & 15
    at = n * ((columns + group - 1) // group) + tl.program_id(1)
    zero = tl.load(zeros + at, mask=n < out, other=0).to(tl.float32)
    scale = tl.load(scales + at, mask=n < out, other=0).to(tl.float32)
    tl.store(w + n * columns + k, (code.to(tl.float32) - zero) * scale, mask=inside)


@mutant(
    "a row of scales is taken to have columns // group of them. A last group that is short has a scale, too: "
    "(columns + group - 1) // group."
)
@triton.jit
def groups_rounded_down(packed, scales, zeros, w, out, columns, group, TALL: tl.constexpr, WIDE: tl.constexpr):
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    k = tl.program_id(1) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (n < out) & (k < columns)
    byte = tl.load(packed + n * (columns // 2) + k // 2, mask=inside, other=0).to(tl.int32)
    code = (byte >> (k % 2 * 4)) & 15
    at = n * (columns // group) + k // group
    zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
    scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
    tl.store(w + n * columns + k, (code.to(tl.float32) - zero) * scale, mask=inside)


@mutant(
    "n * (columns + group - 1) // group divides the whole product, from left to right. The number of groups comes "
    "first, in parentheses, and then times n."
)
@triton.jit
def row_of_scales_divided_last(packed, scales, zeros, w, out, columns, group, TALL: tl.constexpr, WIDE: tl.constexpr):
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    k = tl.program_id(1) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (n < out) & (k < columns)
    byte = tl.load(packed + n * (columns // 2) + k // 2, mask=inside, other=0).to(tl.int32)
    code = (byte >> (k % 2 * 4)) & 15
    at = n * (columns + group - 1) // group + k // group
    zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
    scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
    tl.store(w + n * columns + k, (code.to(tl.float32) - zero) * scale, mask=inside)


@mutant(
    "the scales are read as (groups, out), at g * out + n. They are (out, groups): a row for each output. The "
    "library's own kernels store them the other way round."
)
@triton.jit
def scales_turned(packed, scales, zeros, w, out, columns, group, TALL: tl.constexpr, WIDE: tl.constexpr):
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    k = tl.program_id(1) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (n < out) & (k < columns)
    byte = tl.load(packed + n * (columns // 2) + k // 2, mask=inside, other=0).to(tl.int32)
    code = (byte >> (k % 2 * 4)) & 15
    at = k // group * out + n
    zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
    scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
    tl.store(w + n * columns + k, (code.to(tl.float32) - zero) * scale, mask=inside)


@mutant("every row uses the scales of output 0: the offset lacks n * groups.")
@triton.jit
def scales_of_output_0(packed, scales, zeros, w, out, columns, group, TALL: tl.constexpr, WIDE: tl.constexpr):
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    k = tl.program_id(1) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (n < out) & (k < columns)
    byte = tl.load(packed + n * (columns // 2) + k // 2, mask=inside, other=0).to(tl.int32)
    code = (byte >> (k % 2 * 4)) & 15
    zero = tl.load(zeros + k // group, mask=k < columns, other=0).to(tl.float32)
    scale = tl.load(scales + k // group, mask=k < columns, other=0).to(tl.float32)
    tl.store(w + n * columns + k, (code.to(tl.float32) - zero) * scale, mask=inside)


@mutant("the halves are swapped: an even column is in the low half of its byte here, an odd one in the high half.")
@triton.jit
def high_half_first(packed, scales, zeros, w, out, columns, group, TALL: tl.constexpr, WIDE: tl.constexpr):
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    k = tl.program_id(1) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (n < out) & (k < columns)
    byte = tl.load(packed + n * (columns // 2) + k // 2, mask=inside, other=0).to(tl.int32)
    code = (byte >> (4 - k % 2 * 4)) & 15
    at = n * ((columns + group - 1) // group) + k // group
    zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
    scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
    tl.store(w + n * columns + k, (code.to(tl.float32) - zero) * scale, mask=inside)


@mutant("a row of packed bytes is taken to be `columns` long. Two codes share a byte: it is columns // 2 long.")
@triton.jit
def packed_rows_too_long(packed, scales, zeros, w, out, columns, group, TALL: tl.constexpr, WIDE: tl.constexpr):
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    k = tl.program_id(1) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (n < out) & (k < columns)
    byte = tl.load(packed + n * columns + k // 2, mask=inside, other=0).to(tl.int32)
    code = (byte >> (k % 2 * 4)) & 15
    at = n * ((columns + group - 1) // group) + k // group
    zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
    scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
    tl.store(w + n * columns + k, (code.to(tl.float32) - zero) * scale, mask=inside)


@mutant("the zero-points are not used, and code 0 stands for zero.")
@triton.jit
def zero_points_forgotten(packed, scales, zeros, w, out, columns, group, TALL: tl.constexpr, WIDE: tl.constexpr):
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    k = tl.program_id(1) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (n < out) & (k < columns)
    byte = tl.load(packed + n * (columns // 2) + k // 2, mask=inside, other=0).to(tl.int32)
    code = (byte >> (k % 2 * 4)) & 15
    at = n * ((columns + group - 1) // group) + k // group
    scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
    tl.store(w + n * columns + k, code.to(tl.float32) * scale, mask=inside)


@mutant("8 is subtracted from every code, as in the lesson's symmetric format. Here each group has its own zero-point.")
@triton.jit
def always_minus_8(packed, scales, zeros, w, out, columns, group, TALL: tl.constexpr, WIDE: tl.constexpr):
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    k = tl.program_id(1) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (n < out) & (k < columns)
    byte = tl.load(packed + n * (columns // 2) + k // 2, mask=inside, other=0).to(tl.int32)
    code = (byte >> (k % 2 * 4)) & 15
    at = n * ((columns + group - 1) // group) + k // group
    scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
    tl.store(w + n * columns + k, (code.to(tl.float32) - 8) * scale, mask=inside)


@mutant("the zero-point is subtracted after scaling. It is a code, so it goes inside: scale * (code - zero).")
@triton.jit
def zero_point_after_the_scale(packed, scales, zeros, w, out, columns, group, TALL: tl.constexpr, WIDE: tl.constexpr):
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    k = tl.program_id(1) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (n < out) & (k < columns)
    byte = tl.load(packed + n * (columns // 2) + k // 2, mask=inside, other=0).to(tl.int32)
    code = (byte >> (k % 2 * 4)) & 15
    at = n * ((columns + group - 1) // group) + k // group
    zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
    scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
    tl.store(w + n * columns + k, code.to(tl.float32) * scale - zero, mask=inside)


@mutant(
    "code minus zero-point is computed in uint8: below zero it starts again at 255, and a small negative weight "
    "becomes a large positive one. Convert both before you subtract."
)
@triton.jit
def difference_in_uint8(packed, scales, zeros, w, out, columns, group, TALL: tl.constexpr, WIDE: tl.constexpr):
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    k = tl.program_id(1) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (n < out) & (k < columns)
    byte = tl.load(packed + n * (columns // 2) + k // 2, mask=inside, other=0)
    code = tl.where(k % 2 == 0, byte & 15, byte >> 4)
    at = n * ((columns + group - 1) // group) + k // group
    zero = tl.load(zeros + at, mask=inside, other=0)
    scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
    tl.store(w + n * columns + k, (code - zero).to(tl.float32) * scale, mask=inside)


@mutant("tl.store has no mask: a tile at the end of a row writes over the next one, and the last tile over others.")
@triton.jit
def store_without_mask(packed, scales, zeros, w, out, columns, group, TALL: tl.constexpr, WIDE: tl.constexpr):
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    k = tl.program_id(1) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (n < out) & (k < columns)
    byte = tl.load(packed + n * (columns // 2) + k // 2, mask=inside, other=0).to(tl.int32)
    code = (byte >> (k % 2 * 4)) & 15
    at = n * ((columns + group - 1) // group) + k // group
    zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
    scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
    tl.store(w + n * columns + k, (code.to(tl.float32) - zero) * scale)


@mutant("the packed bytes are read without a mask: the last tiles reach past their end.")
@triton.jit
def load_without_mask(packed, scales, zeros, w, out, columns, group, TALL: tl.constexpr, WIDE: tl.constexpr):
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    k = tl.program_id(1) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (n < out) & (k < columns)
    byte = tl.load(packed + n * (columns // 2) + k // 2).to(tl.int32)
    code = (byte >> (k % 2 * 4)) & 15
    at = n * ((columns + group - 1) // group) + k // group
    zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
    scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
    tl.store(w + n * columns + k, (code.to(tl.float32) - zero) * scale, mask=inside)


@mutant("scales and zero-points are read without a mask: beyond the last column and the last output there are none.")
@triton.jit
def scales_without_mask(packed, scales, zeros, w, out, columns, group, TALL: tl.constexpr, WIDE: tl.constexpr):
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    k = tl.program_id(1) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (n < out) & (k < columns)
    byte = tl.load(packed + n * (columns // 2) + k // 2, mask=inside, other=0).to(tl.int32)
    code = (byte >> (k % 2 * 4)) & 15
    at = n * ((columns + group - 1) // group) + k // group
    zero, scale = tl.load(zeros + at).to(tl.float32), tl.load(scales + at).to(tl.float32)
    tl.store(w + n * columns + k, (code.to(tl.float32) - zero) * scale, mask=inside)


@mutant("only the rows are masked: where WIDE does not divide the columns, a tile goes on into the next row.")
@triton.jit
def only_rows_masked(packed, scales, zeros, w, out, columns, group, TALL: tl.constexpr, WIDE: tl.constexpr):
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    k = tl.program_id(1) * WIDE + tl.arange(0, WIDE)[None, :]
    byte = tl.load(packed + n * (columns // 2) + k // 2, mask=n < out, other=0).to(tl.int32)
    code = (byte >> (k % 2 * 4)) & 15
    at = n * ((columns + group - 1) // group) + k // group
    zero = tl.load(zeros + at, mask=n < out, other=0).to(tl.float32)
    scale = tl.load(scales + at, mask=n < out, other=0).to(tl.float32)
    tl.store(w + n * columns + k, (code.to(tl.float32) - zero) * scale, mask=n < out)


@mutant(
    "both codes of a byte get the scale and the zero-point of the first one. Where `group` is odd, a byte lies in two"
    " groups: its second code, of column 2b + 1, may belong to the next one."
)
@triton.jit
def group_of_the_first_in_the_byte(
    packed, scales, zeros, w, out, columns, group, TALL: tl.constexpr, WIDE: tl.constexpr
):
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    k = tl.program_id(1) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (n < out) & (k < columns)
    byte = tl.load(packed + n * (columns // 2) + k // 2, mask=inside, other=0).to(tl.int32)
    code = (byte >> (k % 2 * 4)) & 15
    at = n * ((columns + group - 1) // group) + k // 2 * 2 // group
    zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
    scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
    tl.store(w + n * columns + k, (code.to(tl.float32) - zero) * scale, mask=inside)


@mutant(
    "the group is (n * columns + k) // group, as if groups went on from row to row. Each row begins with a group of "
    "its own, so a last group that is short moves all rows below it."
)
@triton.jit
def groups_numbered_through(packed, scales, zeros, w, out, columns, group, TALL: tl.constexpr, WIDE: tl.constexpr):
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    k = tl.program_id(1) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (n < out) & (k < columns)
    byte = tl.load(packed + n * (columns // 2) + k // 2, mask=inside, other=0).to(tl.int32)
    code = (byte >> (k % 2 * 4)) & 15
    at = (n * columns + k) // group
    zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
    scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
    tl.store(w + n * columns + k, (code.to(tl.float32) - zero) * scale, mask=inside)


@triton.jit
def byte_by_byte(packed, scales, zeros, w, out, columns, group, TALL: tl.constexpr, WIDE: tl.constexpr):
    """Right: each byte is loaded once, and each half has its own group."""
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    b = tl.program_id(1) * (WIDE // 2) + tl.arange(0, WIDE // 2)[None, :]
    inside = (n < out) & (b < columns // 2)
    byte = tl.load(packed + n * (columns // 2) + b, mask=inside)
    groups = tl.cdiv(columns, group)
    for half in tl.static_range(2):
        at = n * groups + (2 * b + half) // group
        code = ((byte >> 4 * half) & 15).to(tl.float32)
        zero, scale = tl.load(zeros + at, mask=inside), tl.load(scales + at, mask=inside)
        tl.store(w + n * columns + 2 * b + half, (code - zero) * scale.to(tl.float32), mask=inside)


@triton.jit
def multiplied_out(packed, scales, zeros, w, out, columns, group, TALL: tl.constexpr, WIDE: tl.constexpr):
    """Right: both products are exact in float32, so their difference is, too."""
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    k = tl.program_id(1) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (n < out) & (k < columns)
    byte = tl.load(packed + (n * columns + k) // 2, mask=inside, other=0)
    code = tl.where(k % 2 == 1, byte // 16, byte % 16).to(tl.float32)
    at = n * (1 + (columns - 1) // group) + k // group
    zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
    scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
    tl.store(w + n * columns + k, code * scale - zero * scale, mask=inside)


QUESTION = Question(
    id="kernels.dequantize_int4",
    title="INT4 in groups, with a tile of its own",
    reference=dequantize_int4,
    cases=cases,
    properties=(stays_inside, written("w"), every_weight_has_its_group, each_program_stores_its_own),
    mutants=(
        group_of_the_byte,
        one_group_for_the_tile,
        program_taken_for_the_group,
        groups_rounded_down,
        row_of_scales_divided_last,
        scales_turned,
        scales_of_output_0,
        high_half_first,
        packed_rows_too_long,
        zero_points_forgotten,
        always_minus_8,
        zero_point_after_the_scale,
        difference_in_uint8,
        store_without_mask,
        *only_interpreted(load_without_mask, scales_without_mask),
        only_rows_masked,
        group_of_the_first_in_the_byte,
        groups_numbered_through,
    ),
    alternatives=(byte_by_byte, multiplied_out),
    hints=(
        "A program knows its columns k. For one of them, write down three places: of its byte, of its scale, of its "
        "result. Each is n times the length of a row plus something that depends on k. How long are the three rows?",
        "Everything can be computed for a block of TALL x WIDE: the byte is k // 2, the shift 4 * (k % 2), the group k "
        "// group. Loads with such pointers give one byte to two neighbors and one scale to many: that is allowed.",
        "at = n * ((columns + group - 1) // group) + k // group is the place of scale and zero-point, (TALL, WIDE); "
        "load both with the mask (n < out) & (k < columns), convert to float32, and store (code - zero) * scale.",
    ),
    explanation=(
        "The lesson tied a program to a group, so that one scale was enough. A tile of its own is more flexible, and "
        "has a price: this kernel loads a scale for every weight. Most of these loads hit the cache, since neighbors "
        "share a group, but each is an instruction. The library's kernels pick tiles that a group covers wherever it "
        "can, and fall back to this form where it cannot. The costly mistake is the group of the byte: it crashes "
        "nowhere, all signs are right, and a model only looks as if 4 bits were worse than they are."
    ),
)
