"""kernels.quantize_tokens: two passes over a row, a maximum and then the codes: what a W8A8 layer does first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import (
    argument,
    each_program_stores_its_own,
    launched,
    normal,
    only_interpreted,
    stays_inside,
    tl,
    triton,
    unwritten,
    written,
)


@triton.jit
def quantize_tokens(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """int8 codes and a scale for each token (row) of x.

    x: pointer to float32 (tokens, COLUMNS).
    codes: pointer to int8 (tokens, COLUMNS), an output: from -127 to 127, the nearest whole
        numbers to x / scale. Halfway between two, either is right.
    scales: pointer to float32 (tokens,), an output: the largest magnitude of the token divided
        by 127, to 1 part in 100,000; it may be as small as 1e-30. Any positive, finite number
        for a token of zeros, whose codes are 0.
    COLUMNS: a whole number from 1 on. BLOCK: a power of two, which COLUMNS may exceed many times.
    Program i owns the token i.
    """
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0)))
    scale = tl.max(largest, 0) / 127
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale
        tl.store(codes + row + k, tl.floor(steps + 0.5).to(tl.int8), mask=k < COLUMNS)


# The example of the card: scales 0.01 and 0.1; the largest magnitude of token 1 is negative and in the second block.
CARD_X = torch.tensor([[0.50, -0.26, 1.27, 0.04, -0.08, 0.2], [0.30, 1.04, 0.0, -2.66, -12.7, 5.17]])


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def one(name: str, x: torch.Tensor, block: int) -> Case:
        tokens, columns = x.shape
        return launched(
            name, (tokens,), ("codes", "scales"), x=x, codes=unwritten(tokens, columns, dtype=torch.int8),
            scales=unwritten(tokens), COLUMNS=columns, BLOCK=block,
        )  # fmt: skip

    outliers = normal(random, 2, 21)
    outliers[0, 2], outliers[1, 19] = -9.0, -7.5
    sizes = normal(random, 4, 12) * torch.tensor([[1e-25], [1e-4], [0.0], [1e3]])
    return [
        one("the example of the card", CARD_X, 4),
        one("blocks that divide the row", normal(random, 1, 32), 16),
        one("outliers in the first and in the last block, negative", outliers, 16),
        one("a row shorter than a block, all negative", -normal(random, 1, 11).abs() - 0.1, 16),
        one("tokens of very different sizes, one of zeros", sizes, 16),
        one("a single column", normal(random, 2, 1), 4),
    ]


def steps_of(case: Case) -> torch.Tensor:
    """(tokens, 1), float64; 0 for a token of zeros."""
    x = argument(case, "x").double()
    largest: torch.Tensor = x.abs().amax(dim=1, keepdim=True) / 127
    return largest


def scales_are_the_largest_by_127(case: Case, got: Any, expected: Any) -> Finding | None:
    steps, scales = steps_of(case).flatten().tolist(), got["scales"].tolist()
    for i in sorted(range(len(steps)), key=lambda i: -steps[i]):  # the tiny ones come last
        if finding := p.positive(scales[i], f"scales[{i}]"):
            return finding
        if finding := p.number_near(scales[i], f"scales[{i}]", steps[i], 1e-5) if steps[i] else None:
            if i != max(range(len(steps)), key=steps.__getitem__) and scales[i] > steps[i]:
                return replace(finding, what=f"{finding.what}, and that of a larger token is right: a lower limit?")
            return finding
    return None


def codes_are_nearest(case: Case, got: Any, expected: Any) -> Finding | None:
    steps = steps_of(case)
    exact = argument(case, "x").double() / torch.where(steps > 0, steps, 1.0)
    return p.codes_near(got["codes"], "codes", exact, -127, 127, 127 * 2.0**-22)


@mutant(
    "the maximum is taken of x, not of its magnitude: a token whose largest value is negative gets too small a scale, "
    "and its codes overflow."
)
@triton.jit
def largest_without_abs(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.load(x + row + k, mask=k < COLUMNS, other=0))
    scale = tl.max(largest, 0) / 127
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale
        tl.store(codes + row + k, tl.floor(steps + 0.5).to(tl.int8), mask=k < COLUMNS)


@mutant("the maximum is that of the first block. A row has more: the loop has to go over all of COLUMNS.")
@triton.jit
def largest_of_the_first_block(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    k = tl.arange(0, BLOCK)
    scale = tl.max(tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0)), 0) / 127
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale
        tl.store(codes + row + k, tl.floor(steps + 0.5).to(tl.int8), mask=k < COLUMNS)


@mutant(
    "the maximum is that of the last block: each turn of the loop replaces what the turns before found. Keep the "
    "larger one with tl.maximum."
)
@triton.jit
def largest_of_the_last_block(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0))
    scale = tl.max(largest, 0) / 127
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale
        tl.store(codes + row + k, tl.floor(steps + 0.5).to(tl.int8), mask=k < COLUMNS)


@mutant(
    "each block is quantized with a scale of its own, and only the last one is stored. A token has one scale, so its "
    "maximum has to be known before the first code: two loops."
)
@triton.jit
def a_scale_for_each_block(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        values = tl.load(x + row + k, mask=k < COLUMNS, other=0)
        scale = tl.max(tl.abs(values), 0) / 127
        scale = tl.where(scale == 0, 1.0, scale)
        tl.store(scales + tl.program_id(0), scale)
        tl.store(codes + row + k, tl.floor(values / scale + 0.5).to(tl.int8), mask=k < COLUMNS)


@mutant(
    "the maximum so far is used for the codes of a block, in one loop. The first blocks do not know yet what comes: "
    "find the maximum of the whole row first."
)
@triton.jit
def largest_so_far(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    scale = 1.0
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        values = tl.load(x + row + k, mask=k < COLUMNS, other=0)
        largest = tl.maximum(largest, tl.abs(values))
        scale = tl.max(largest, 0) / 127
        scale = tl.where(scale == 0, 1.0, scale)
        tl.store(codes + row + k, tl.floor(values / scale + 0.5).to(tl.int8), mask=k < COLUMNS)
    tl.store(scales + tl.program_id(0), scale)


@mutant("the codes are cut off toward zero, as .to(tl.int8) does by itself. Add 0.5 and take tl.floor first.")
@triton.jit
def codes_cut_off(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0)))
    scale = tl.max(largest, 0) / 127
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale
        tl.store(codes + row + k, steps.to(tl.int8), mask=k < COLUMNS)


@mutant(
    "x is multiplied by 127 / largest and then cut off toward zero, as .to(tl.int8) does by itself: even the largest "
    "value may come out as 126. Add 0.5 and take tl.floor first."
)
@triton.jit
def cut_off_after_the_reciprocal(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0)))
    top = tl.max(largest, 0)
    top = tl.where(top == 0, 127.0, top)
    tl.store(scales + tl.program_id(0), top / 127)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.load(x + row + k, mask=k < COLUMNS, other=0) * (127 / top)
        tl.store(codes + row + k, steps.to(tl.int8), mask=k < COLUMNS)


@mutant("the codes are rounded down, tl.floor alone. The nearest whole number is tl.floor(value + 0.5).")
@triton.jit
def codes_rounded_down(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0)))
    scale = tl.max(largest, 0) / 127
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale
        tl.store(codes + row + k, tl.floor(steps).to(tl.int8), mask=k < COLUMNS)


@mutant(
    "0.5 is added and the result is cut off toward zero: right for positive values only. tl.floor rounds down on both "
    "sides, .to(tl.int8) toward zero."
)
@triton.jit
def half_added_and_cut_off(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0)))
    scale = tl.max(largest, 0) / 127
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale
        tl.store(codes + row + k, (steps + 0.5).to(tl.int8), mask=k < COLUMNS)


@mutant("the scale is the largest magnitude divided by 128. Codes end at 127 on both sides: divide by 127.")
@triton.jit
def divided_by_128(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0)))
    scale = tl.max(largest, 0) / 128
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale
        tl.store(codes + row + k, tl.floor(steps + 0.5).to(tl.int8), mask=k < COLUMNS)


@mutant("the scale is the largest magnitude divided by 127.5, half of 255. Codes go from -127 to 127: divide by 127.")
@triton.jit
def divided_by_127_5(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0)))
    scale = tl.max(largest, 0) / 127.5
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.floor(tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale + 0.5)
        tl.store(codes + row + k, tl.minimum(tl.maximum(steps, -127), 127).to(tl.int8), mask=k < COLUMNS)


@mutant("the reciprocal is stored, 127 / largest. A value is its code times the scale, so the scale is largest / 127.")
@triton.jit
def reciprocal_stored(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0)))
    top = tl.max(largest, 0)
    inverse = 127 / tl.where(top == 0, 127.0, top)
    tl.store(scales + tl.program_id(0), inverse)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.load(x + row + k, mask=k < COLUMNS, other=0) * inverse
        tl.store(codes + row + k, tl.floor(steps + 0.5).to(tl.int8), mask=k < COLUMNS)


@mutant("a token of zeros gets the scale 0, and x / scale is 0 / 0. Any positive number will do for it.")
@triton.jit
def scale_of_zero(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0)))
    scale = tl.max(largest, 0) / 127
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.load(x + row + k, mask=k < COLUMNS, other=0) / tl.where(scale == 0, 1.0, scale)
        tl.store(codes + row + k, tl.floor(steps + 0.5).to(tl.int8), mask=k < COLUMNS)


@mutant(
    "the scale has a lower limit far above what it may be. It spares zeros, and a token of tiny values gets codes of 0 "
    "only. Ask for scale == 0 instead."
)
@triton.jit
def scale_with_a_lower_limit(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0)))
    scale = tl.maximum(tl.max(largest, 0) / 127, 1e-12)
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale
        tl.store(codes + row + k, tl.floor(steps + 0.5).to(tl.int8), mask=k < COLUMNS)


@mutant("the scale is computed in float16, which has 11 bits and ends near 6e-8. Keep it in float32.")
@triton.jit
def scale_in_float16(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0)))
    scale = (tl.max(largest, 0) / 127).to(tl.float16).to(tl.float32)
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.floor(tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale + 0.5)
        tl.store(codes + row + k, tl.minimum(tl.maximum(steps, -127), 127).to(tl.int8), mask=k < COLUMNS)


@mutant("only the first block of codes is stored: the second pass needs the same loop over COLUMNS as the first.")
@triton.jit
def codes_of_the_first_block(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0)))
    scale = tl.max(largest, 0) / 127
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale)
    k = tl.arange(0, BLOCK)
    steps = tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale
    tl.store(codes + row + k, tl.floor(steps + 0.5).to(tl.int8), mask=k < COLUMNS)


@mutant(
    "the loops leave out the last, incomplete block: range(COLUMNS // BLOCK) rounds down. A mask takes places away; it "
    "does not add a turn."
)
@triton.jit
def tail_left_out(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for turn in range(COLUMNS // BLOCK):
        k = turn * BLOCK + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0)))
    scale = tl.max(largest, 0) / 127
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale)
    for turn in range(COLUMNS // BLOCK):
        k = turn * BLOCK + tl.arange(0, BLOCK)
        steps = tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale
        tl.store(codes + row + k, tl.floor(steps + 0.5).to(tl.int8), mask=k < COLUMNS)


@mutant(
    "x is read without a mask in the first pass. What lies behind the end of a token, the next token or something "
    "else, takes part in its maximum."
)
@triton.jit
def maximum_without_mask(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(x + row + k)))
    scale = tl.max(largest, 0) / 127
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale
        tl.store(codes + row + k, tl.floor(steps + 0.5).to(tl.int8), mask=k < COLUMNS)


@mutant("the codes are stored without a mask: over the first codes of the next token, and behind the last one.")
@triton.jit
def store_without_mask(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0)))
    scale = tl.max(largest, 0) / 127
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale
        tl.store(codes + row + k, tl.floor(steps + 0.5).to(tl.int8))


@mutant("x is read without a mask in the second pass: those codes are never stored, but the addresses are not yours.")
@triton.jit
def load_without_mask(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0)))
    scale = tl.max(largest, 0) / 127
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        tl.store(codes + row + k, tl.floor(tl.load(x + row + k) / scale + 0.5).to(tl.int8), mask=k < COLUMNS)


@mutant("every program works on token 0: the places lack tl.program_id(0) * COLUMNS.")
@triton.jit
def always_token_0(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(x + k, mask=k < COLUMNS, other=0)))
    scale = tl.max(largest, 0) / 127
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.load(x + k, mask=k < COLUMNS, other=0) / scale
        tl.store(codes + k, tl.floor(steps + 0.5).to(tl.int8), mask=k < COLUMNS)


@mutant("token i is taken to begin at i * BLOCK. It begins at i * COLUMNS, whatever the block is.")
@triton.jit
def rows_by_block(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * BLOCK
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0)))
    scale = tl.max(largest, 0) / 127
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale
        tl.store(codes + row + k, tl.floor(steps + 0.5).to(tl.int8), mask=k < COLUMNS)


@mutant(
    "the maximum is taken of x, not of its magnitude, and a clamp of the codes hides it: of a token whose largest "
    "value is negative, all values beyond the scale come out as -127."
)
@triton.jit
def largest_without_abs_clamped(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.load(x + row + k, mask=k < COLUMNS, other=0))
    scale = tl.max(largest, 0) / 127
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.floor(tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale + 0.5)
        tl.store(codes + row + k, tl.minimum(tl.maximum(steps, -127), 127).to(tl.int8), mask=k < COLUMNS)


@mutant(
    "the maximum is that of the first block, and a clamp of the codes hides it: larger values of the other blocks all"
    " come out as 127 or -127."
)
@triton.jit
def largest_of_the_first_block_clamped(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    k = tl.arange(0, BLOCK)
    scale = tl.max(tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0)), 0) / 127
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.floor(tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale + 0.5)
        tl.store(codes + row + k, tl.minimum(tl.maximum(steps, -127), 127).to(tl.int8), mask=k < COLUMNS)


@mutant(
    "the maximum is that of the last block, since each turn replaces what the turns before found, and a clamp of the "
    "codes hides it: larger values of the other blocks all come out as 127 or -127."
)
@triton.jit
def largest_of_the_last_block_clamped(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0))
    scale = tl.max(largest, 0) / 127
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.floor(tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale + 0.5)
        tl.store(codes + row + k, tl.minimum(tl.maximum(steps, -127), 127).to(tl.int8), mask=k < COLUMNS)


@mutant(
    "the scale is the largest magnitude divided by 128, and its code, 128, is clamped to 127. Divide by 127: the "
    "largest value is then 127 steps without a clamp."
)
@triton.jit
def divided_by_128_clamped(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0)))
    scale = tl.max(largest, 0) / 128
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.floor(tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale + 0.5)
        tl.store(codes + row + k, tl.minimum(tl.maximum(steps, -127), 127).to(tl.int8), mask=k < COLUMNS)


@mutant(
    "the codes are right, and what is stored beside them is the largest magnitude. A value is its code times the "
    "scale, so the scale is the largest magnitude divided by 127."
)
@triton.jit
def largest_stored(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0)))
    scale = tl.max(largest, 0) / 127
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale * 127)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale
        tl.store(codes + row + k, tl.floor(steps + 0.5).to(tl.int8), mask=k < COLUMNS)


@mutant(
    "the scale is the largest magnitude itself, so all codes are -1, 0 or 1. A step is the largest magnitude divided "
    "by 127."
)
@triton.jit
def largest_as_the_scale(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0)))
    scale = tl.max(largest, 0)
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale
        tl.store(codes + row + k, tl.floor(steps + 0.5).to(tl.int8), mask=k < COLUMNS)


@mutant(
    "the scale has a lower limit of 1e-8, to spare a division by zero. A token of tiny values then gets a scale far "
    "too large, and codes of 0 only. Ask for scale == 0 instead."
)
@triton.jit
def lower_limit_of_1e_8(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0)))
    scale = tl.max(largest, 0) / 127
    scale = tl.maximum(scale, 1e-8)
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale
        tl.store(codes + row + k, tl.floor(steps + 0.5).to(tl.int8), mask=k < COLUMNS)


@mutant(
    "there is no loop: only the first BLOCK values of a row are looked at, and only their codes are stored. A row may"
    " be longer than a block, so both passes walk along it."
)
@triton.jit
def no_loops(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    k = tl.arange(0, BLOCK)
    largest = tl.abs(tl.load(x + row + k, mask=k < COLUMNS, other=0))
    scale = tl.max(largest, 0) / 127
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale)
    steps = tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale
    tl.store(codes + row + k, tl.floor(steps + 0.5).to(tl.int8), mask=k < COLUMNS)


@mutant(
    "the first pass loads with a mask and without `other`: what stands in the masked places is anything, here NaN, "
    "and it takes part in the maximum. Give it other=0, which never wins."
)
@triton.jit
def maximum_without_other(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    row = tl.program_id(0) * COLUMNS
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        largest = tl.maximum(largest, tl.abs(tl.load(x + row + k, mask=k < COLUMNS)))
    scale = tl.max(largest, 0) / 127
    scale = tl.where(scale == 0, 1.0, scale)
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale
        tl.store(codes + row + k, tl.floor(steps + 0.5).to(tl.int8), mask=k < COLUMNS)


@triton.jit
def number_by_number(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """Right: the maximum is kept as a number, and rounding is done away from zero."""
    row = tl.program_id(0) * COLUMNS
    top = 0.0
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        values = tl.load(x + row + k, mask=k < COLUMNS, other=0)
        top = tl.maximum(top, tl.maximum(tl.max(values, 0), -tl.min(values, 0)))
    scale = tl.where(top > 0, top / 127, 1e-8)
    tl.store(scales + tl.program_id(0), scale)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        steps = tl.load(x + row + k, mask=k < COLUMNS, other=0) / scale
        rounded = (steps + tl.where(steps < 0, -0.5, 0.5)).to(tl.int32)
        tl.store(codes + row + k, rounded.to(tl.int8), mask=k < COLUMNS)


@triton.jit
def a_row_at_a_time(x, codes, scales, COLUMNS: tl.constexpr, BLOCK: tl.constexpr):
    """Right: a block of many times BLOCK that holds the whole row, so that x is read once; rounds to even."""
    k = tl.arange(0, 8 * BLOCK)
    inside = k < COLUMNS
    values = tl.load(x + tl.program_id(0) * COLUMNS + k, mask=inside, other=0)
    top = tl.max(tl.abs(values), 0)
    top = tl.where(top == 0, 1.0, top)
    tl.store(scales + tl.program_id(0), top / 127)
    magic = 1.5 * 2.0**23  # float32 has no fractions there
    rounded = values / top * 127 + magic - magic
    tl.store(codes + tl.program_id(0) * COLUMNS + k, rounded.to(tl.int8), mask=inside)


QUESTION = Question(
    id="kernels.quantize_tokens",
    title="A scale for each token, in two passes",
    reference=quantize_tokens,
    cases=cases,
    properties=(
        stays_inside,
        written("scales", "codes"),
        scales_are_the_largest_by_127,
        codes_are_nearest,
        each_program_stores_its_own,
    ),
    mutants=(
        largest_without_abs,
        largest_of_the_first_block,
        largest_of_the_last_block,
        a_scale_for_each_block,
        largest_so_far,
        codes_cut_off,
        cut_off_after_the_reciprocal,
        codes_rounded_down,
        half_added_and_cut_off,
        divided_by_128,
        divided_by_127_5,
        reciprocal_stored,
        scale_of_zero,
        scale_with_a_lower_limit,
        scale_in_float16,
        codes_of_the_first_block,
        tail_left_out,
        maximum_without_mask,
        store_without_mask,
        *only_interpreted(load_without_mask),
        always_token_0,
        rows_by_block,
        largest_without_abs_clamped,
        largest_of_the_first_block_clamped,
        largest_of_the_last_block_clamped,
        divided_by_128_clamped,
        largest_stored,
        largest_as_the_scale,
        lower_limit_of_1e_8,
        no_loops,
        *only_interpreted(maximum_without_other),
    ),
    alternatives=(number_by_number, a_row_at_a_time),
    hints=(
        "When is the scale of a token known? Can a code be written before that?",
        "Two loops over the row. The first keeps, for each of the BLOCK places, the largest magnitude so far; after it "
        "tl.max(…, 0) makes one number of them. What must a place that is masked off give, so that it never wins? The "
        "second loop loads the row again, divides and rounds: tl.floor(value + 0.5).",
        "largest = tl.zeros((BLOCK,), tl.float32); in the loop largest = tl.maximum(largest, tl.abs(tl.load(…, other=0"
        "))); then scale = tl.max(largest, 0) / 127, and tl.where(scale == 0, 1.0, scale) before you divide by it.",
    ),
    explanation=(
        "A reduction needs a neutral element for what is masked off: 0 for the largest magnitude, minus infinity for a "
        "largest value, 0 for a sum. The row is read twice, but the second time it comes from the cache, unless the "
        "row is longer than the cache. Reading it once would be a block as long as the row, which a program holds in "
        "its registers: fine for 4,096 values, and not for 100,000. Triton's conversion to int8 cuts off toward zero, "
        "as C does, so rounding is yours to write; a test with positive values does not tell tl.floor from a cut."
    ),
)
