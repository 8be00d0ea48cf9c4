"""kernels.dequantize_int8: signed codes with a scale and a zero-point for each output, to float16."""

from __future__ import annotations

from typing import Any

import torch

from ...question import Case, Finding, Question, mutant
from .shared import (
    argument,
    cdiv,
    each_program_stores_its_own,
    launched,
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
def dequantize_int8(codes, scales, zeros, w, columns, BLOCK: tl.constexpr):
    """w[n, k] = scales[n] * (codes[n, k] - zeros[n]), rounded once to float16.

    codes: pointer to int8 (out, columns), from -128 to 127.
    scales: pointer to float16 (out,).
    zeros: pointer to int8 (out,), from -128 to 127.
    w: pointer to float16 (out, columns), the output.
    columns: a whole number from 1 on.
    BLOCK: a power of two. Program (i, n) owns, of output n, the BLOCK columns from i * BLOCK on.
    """
    n = tl.program_id(1)
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = k < columns
    code = tl.load(codes + n * columns + k, mask=inside, other=0).to(tl.float32)
    zero = tl.load(zeros + n).to(tl.float32)
    scale = tl.load(scales + n).to(tl.float32)
    tl.store(w + n * columns + k, (code - zero) * scale, mask=inside)


CARD_CODES = torch.tensor([[-128, -3, 0, 40, 127], [5, 100, -100, 127, -128]], dtype=torch.int8)
CARD_SCALES = torch.tensor([0.25, 0.0625]).half()
CARD_ZEROS = torch.tensor([-28, 100], dtype=torch.int8)


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def one(name: str, codes: torch.Tensor, steps: torch.Tensor, zeros: torch.Tensor, block: int) -> Case:
        out, columns = codes.shape
        return launched(
            name, (cdiv(columns, block), out), ("w",), codes=codes, scales=steps, zeros=zeros,
            w=unwritten(out, columns, dtype=torch.float16), columns=columns, BLOCK=block,
        )  # fmt: skip

    def layer(name: str, out: int, columns: int, block: int, *ends: int) -> Case:
        codes = whole(random, -128, 127, out, columns, dtype=torch.int8)
        zeros = torch.tensor(ends).char() if ends else whole(random, -128, 127, out, dtype=torch.int8)
        return one(name, codes, scales(random, out), zeros, block)

    return [
        one("the example of the card", CARD_CODES, CARD_SCALES, CARD_ZEROS, 4),
        layer("rows shorter than a block", 3, 27, 32),
        layer("as many outputs as inputs", 3, 3, 4),
        layer("zero-points at both ends", 2, 13, 16, -128, 127),
        layer("a single output, and blocks that divide it", 1, 32, 16),
        layer("a single input", 2, 1, 4),
    ]


def exact(case: Case) -> torch.Tensor:
    """(out, columns), float64."""
    codes, steps, zeros = (argument(case, name).double() for name in ("codes", "scales", "zeros"))
    weights: torch.Tensor = (codes - zeros[:, None]) * steps[:, None]
    return weights


def w_is_rounded_once(case: Case, got: Any, expected: Any) -> Finding | None:
    """To the nearest float16: half a unit of its last place, and no more."""
    wanted = exact(case)
    return near(got["w"], "w", wanted, 2.0**-11 * 1.001 * wanted.abs() + 2.0**-25)


@mutant(
    "code minus zero-point is computed in int8 and wraps around: 127 - (-28) is 155, and int8 ends at 127. Convert "
    "both before you subtract."
)
@triton.jit
def difference_in_int8(codes, scales, zeros, w, columns, BLOCK: tl.constexpr):
    n = tl.program_id(1)
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = k < columns
    difference = tl.load(codes + n * columns + k, mask=inside, other=0) - tl.load(zeros + n)
    tl.store(w + n * columns + k, difference.to(tl.float32) * tl.load(scales + n).to(tl.float32), mask=inside)


@mutant("the zero-point is not subtracted: that is the symmetric format.")
@triton.jit
def zero_point_forgotten(codes, scales, zeros, w, columns, BLOCK: tl.constexpr):
    n = tl.program_id(1)
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = k < columns
    code = tl.load(codes + n * columns + k, mask=inside, other=0).to(tl.float32)
    tl.store(w + n * columns + k, code * tl.load(scales + n).to(tl.float32), mask=inside)


@mutant("the zero-point is added. It is the code that stands for zero: subtract it.")
@triton.jit
def zero_point_added(codes, scales, zeros, w, columns, BLOCK: tl.constexpr):
    n = tl.program_id(1)
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = k < columns
    code = tl.load(codes + n * columns + k, mask=inside, other=0).to(tl.float32)
    zero = tl.load(zeros + n).to(tl.float32)
    tl.store(w + n * columns + k, (code + zero) * tl.load(scales + n).to(tl.float32), mask=inside)


@mutant("the zero-point is subtracted after scaling. It is a code, so it goes inside: scale * (code - zero).")
@triton.jit
def zero_point_after_the_scale(codes, scales, zeros, w, columns, BLOCK: tl.constexpr):
    n = tl.program_id(1)
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = k < columns
    code = tl.load(codes + n * columns + k, mask=inside, other=0).to(tl.float32)
    zero = tl.load(zeros + n).to(tl.float32)
    tl.store(w + n * columns + k, code * tl.load(scales + n).to(tl.float32) - zero, mask=inside)


@mutant(
    "128 is subtracted, as from the unsigned codes of the lesson. These codes are signed, and each output has a "
    "zero-point of its own."
)
@triton.jit
def minus_128(codes, scales, zeros, w, columns, BLOCK: tl.constexpr):
    n = tl.program_id(1)
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = k < columns
    code = tl.load(codes + n * columns + k, mask=inside, other=0).to(tl.float32)
    tl.store(w + n * columns + k, (code - 128) * tl.load(scales + n).to(tl.float32), mask=inside)


@mutant("the codes lose their sign: as uint8 the code -1 is 255. They are int8; convert them to float32 as they are.")
@triton.jit
def codes_taken_for_unsigned(codes, scales, zeros, w, columns, BLOCK: tl.constexpr):
    n = tl.program_id(1)
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = k < columns
    code = tl.load(codes + n * columns + k, mask=inside, other=0).to(tl.uint8, bitcast=True).to(tl.float32)
    zero = tl.load(zeros + n).to(tl.float32)
    tl.store(w + n * columns + k, (code - zero) * tl.load(scales + n).to(tl.float32), mask=inside)


@mutant("each column gets a scale and a zero-point, scales + k. They belong to the outputs, the rows: scales + n.")
@triton.jit
def scales_by_column(codes, scales, zeros, w, columns, BLOCK: tl.constexpr):
    n = tl.program_id(1)
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = k < columns
    code = tl.load(codes + n * columns + k, mask=inside, other=0).to(tl.float32)
    zero = tl.load(zeros + k, mask=inside, other=0).to(tl.float32)
    scale = tl.load(scales + k, mask=inside, other=0).to(tl.float32)
    tl.store(w + n * columns + k, (code - zero) * scale, mask=inside)


@mutant("all outputs get the first scale and the first zero-point: scales + n, and not scales alone.")
@triton.jit
def first_scale_for_all(codes, scales, zeros, w, columns, BLOCK: tl.constexpr):
    n = tl.program_id(1)
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = k < columns
    code = tl.load(codes + n * columns + k, mask=inside, other=0).to(tl.float32)
    tl.store(w + n * columns + k, (code - tl.load(zeros).to(tl.float32)) * tl.load(scales).to(tl.float32), mask=inside)


@mutant("scale and zero-point are taken by the number of the block along the columns. They go with the output, n.")
@triton.jit
def scale_of_the_block(codes, scales, zeros, w, columns, BLOCK: tl.constexpr):
    n, i = tl.program_id(1), tl.program_id(0)
    k = i * BLOCK + tl.arange(0, BLOCK)
    inside = k < columns
    code = tl.load(codes + n * columns + k, mask=inside, other=0).to(tl.float32)
    zero = tl.load(zeros + i).to(tl.float32)
    tl.store(w + n * columns + k, (code - zero) * tl.load(scales + i).to(tl.float32), mask=inside)


@mutant("the codes are divided by the scale. A code counts steps, and a scale is the size of a step: multiply.")
@triton.jit
def divided_by_the_scale(codes, scales, zeros, w, columns, BLOCK: tl.constexpr):
    n = tl.program_id(1)
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = k < columns
    code = tl.load(codes + n * columns + k, mask=inside, other=0).to(tl.float32)
    zero = tl.load(zeros + n).to(tl.float32)
    tl.store(w + n * columns + k, (code - zero) / tl.load(scales + n).to(tl.float32), mask=inside)


@mutant(
    "code * scale and zero * scale are rounded to float16 one by one, and then subtracted. Where they are nearly equal "
    "their rounding is what is left. Subtract first."
)
@triton.jit
def multiplied_out_in_float16(codes, scales, zeros, w, columns, BLOCK: tl.constexpr):
    n = tl.program_id(1)
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = k < columns
    code = tl.load(codes + n * columns + k, mask=inside, other=0).to(tl.float16)
    scale = tl.load(scales + n)
    tl.store(w + n * columns + k, code * scale - tl.load(zeros + n).to(tl.float16) * scale, mask=inside)


@mutant(
    "row n begins at n * columns, in the codes and in w. A row is no multiple of BLOCK: its rest is masked, not there."
)
@triton.jit
def rows_padded_to_the_block(codes, scales, zeros, w, columns, BLOCK: tl.constexpr):
    n = tl.program_id(1)
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = k < columns
    row = n * tl.num_programs(0) * BLOCK
    code = tl.load(codes + row + k, mask=inside, other=0).to(tl.float32)
    zero = tl.load(zeros + n).to(tl.float32)
    tl.store(w + row + k, (code - zero) * tl.load(scales + n).to(tl.float32), mask=inside)


@mutant("tl.store has no mask: the last block of a row writes over the beginning of the next one, and behind the end.")
@triton.jit
def store_without_mask(codes, scales, zeros, w, columns, BLOCK: tl.constexpr):
    n = tl.program_id(1)
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    code = tl.load(codes + n * columns + k, mask=k < columns, other=0).to(tl.float32)
    zero = tl.load(zeros + n).to(tl.float32)
    tl.store(w + n * columns + k, (code - zero) * tl.load(scales + n).to(tl.float32))


@mutant("the codes are read without a mask: the last block of the last output reaches past their end.")
@triton.jit
def load_without_mask(codes, scales, zeros, w, columns, BLOCK: tl.constexpr):
    n = tl.program_id(1)
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    code = tl.load(codes + n * columns + k).to(tl.float32)
    zero = tl.load(zeros + n).to(tl.float32)
    tl.store(w + n * columns + k, (code - zero) * tl.load(scales + n).to(tl.float32), mask=k < columns)


@mutant("neither the load nor the store has a mask. The last block of a row is longer than what is left of it.")
@triton.jit
def no_masks(codes, scales, zeros, w, columns, BLOCK: tl.constexpr):
    n = tl.program_id(1)
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    code = tl.load(codes + n * columns + k).to(tl.float32)
    zero = tl.load(zeros + n).to(tl.float32)
    tl.store(w + n * columns + k, (code - zero) * tl.load(scales + n).to(tl.float32))


@mutant("every program of an output works on its first BLOCK columns: k lacks tl.program_id(0) * BLOCK.")
@triton.jit
def always_the_first_block(codes, scales, zeros, w, columns, BLOCK: tl.constexpr):
    n = tl.program_id(1)
    k = tl.arange(0, BLOCK)
    inside = k < columns
    code = tl.load(codes + n * columns + k, mask=inside, other=0).to(tl.float32)
    zero = tl.load(zeros + n).to(tl.float32)
    tl.store(w + n * columns + k, (code - zero) * tl.load(scales + n).to(tl.float32), mask=inside)


@mutant("the axes of the grid change places: tl.program_id(0) counts blocks of columns, tl.program_id(1) outputs.")
@triton.jit
def axes_of_the_grid_swapped(codes, scales, zeros, w, columns, BLOCK: tl.constexpr):
    n = tl.program_id(0)
    k = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = k < columns
    code = tl.load(codes + n * columns + k, mask=inside, other=0).to(tl.float32)
    zero = tl.load(zeros + n).to(tl.float32)
    tl.store(w + n * columns + k, (code - zero) * tl.load(scales + n).to(tl.float32), mask=inside)


@triton.jit
def difference_in_int32(codes, scales, zeros, w, columns, BLOCK: tl.constexpr):
    """Right: whole numbers first; the product of 8 bits and 11 is exact in float32."""
    n = tl.program_id(1)
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    difference = tl.load(codes + n * columns + k, mask=k < columns).to(tl.int32) - tl.load(zeros + n).to(tl.int32)
    tl.store(w + n * columns + k, (difference * tl.load(scales + n).to(tl.float32)).to(tl.float16), mask=k < columns)


@triton.jit
def in_float16(codes, scales, zeros, w, columns, BLOCK: tl.constexpr):
    """Right as well: the difference is exact in float16, and its product with the scale is rounded once."""
    n = tl.program_id(1)
    k = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = k < columns
    code = tl.load(codes + n * columns + k, mask=inside, other=0).to(tl.float16)
    tl.store(w + n * columns + k, (code - tl.load(zeros + n).to(tl.float16)) * tl.load(scales + n), mask=inside)


QUESTION = Question(
    id="kernels.dequantize_int8",
    title="INT8 with a zero-point, to float16",
    reference=dequantize_int8,
    cases=cases,
    properties=(stays_inside, written("w"), w_is_rounded_once, each_program_stores_its_own),
    mutants=(
        difference_in_int8,
        zero_point_forgotten,
        zero_point_added,
        zero_point_after_the_scale,
        minus_128,
        codes_taken_for_unsigned,
        scales_by_column,
        first_scale_for_all,
        scale_of_the_block,
        divided_by_the_scale,
        multiplied_out_in_float16,
        rows_padded_to_the_block,
        store_without_mask,
        *only_interpreted(load_without_mask),
        no_masks,
        always_the_first_block,
        axes_of_the_grid_swapped,
    ),
    alternatives=(difference_in_int32, in_float16),
    hints=(
        "Take the largest code and the smallest zero-point. In which types does their difference fit?",
        "Convert code, zero-point and scale to float32 right after they are loaded, subtract, multiply. tl.store "
        "converts to float16 by itself, once. One scale and one zero-point for the program: they need no mask.",
        "code = tl.load(codes + n * columns + k, mask=k < columns, other=0).to(tl.float32), zero and scale from zeros "
        "+ n and scales + n in the same way; tl.store(w + n * columns + k, (code - zero) * scale, mask=k < columns).",
    ),
    explanation=(
        "Two numbers of 8 bits have a difference of 9 bits: int8 cannot hold it, and wraps around without a word. With "
        "a zero-point of 0 nothing is lost, so a test with symmetric weights passes. The order of the operations "
        "matters for a second reason. (code - zero) is exact in every float type with 9 bits, so scale * (code - zero) "
        "is rounded once; scale * code - scale * zero subtracts two rounded numbers. That form is used where the scale "
        "comes out of a sum, and there the sums are float32."
    ),
)
