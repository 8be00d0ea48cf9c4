"""kernels.gemv_int4: y = W x with 4-bit weights that are decoded where they are used, steps wider than a group."""

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
    normal,
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
def gemv_int4(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    """y[n] = sum over k of scales[n, g] * (code[n, k] - zeros[n, g]) * x[k], where g = k // GROUP.

    packed: pointer to uint8 (out, COLUMNS // 2). Byte b of a row holds the codes 2b, in its
        LOW half, and 2b + 1, in its high half.
    scales: pointer to float16 (out, COLUMNS // GROUP).
    zeros: pointer to uint8 (out, COLUMNS // GROUP), from 0 to 15, one in each byte.
    x: pointer to float16 (COLUMNS,).
    y: pointer to float32 (out,), the output; the sums are those of float32.
    out: a whole number from 1 on. GROUP is even, and COLUMNS a multiple of it.
    TALL, BYTES: powers of two. Program i owns TALL outputs from i * TALL on. It walks along
        the inputs, BYTES bytes of each row at a time: several groups, or a part of one.
    """
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]  # (TALL, 1)
    total = tl.zeros((TALL, BYTES), tl.float32)
    for start in range(0, COLUMNS // 2, BYTES):
        b = start + tl.arange(0, BYTES)[None, :]  # (1, BYTES)
        exists = b < COLUMNS // 2
        inside = (n < out) & exists
        byte = tl.load(packed + n * (COLUMNS // 2) + b, mask=inside, other=0)
        at = n * (COLUMNS // GROUP) + 2 * b // GROUP
        scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
        zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
        even = tl.load(x + 2 * b, mask=exists, other=0).to(tl.float32)
        odd = tl.load(x + 2 * b + 1, mask=exists, other=0).to(tl.float32)
        low, high = (byte & 15).to(tl.float32) - zero, (byte >> 4).to(tl.float32) - zero
        total += (low * even + high * odd) * scale
    tl.store(y + n, tl.sum(total, 1)[:, None], mask=n < out)


# The example of the card: 2 outputs, 12 inputs, groups of 4, and steps of 4 bytes: two groups, and then one.
CARD_CODES = torch.tensor([[9, 7, 8, 15, 4, 2, 3, 3, 0, 5, 1, 2], [0, 1, 2, 3, 12, 8, 9, 10, 15, 11, 7, 14]]).byte()
CARD_SCALES = torch.tensor([[0.5, 0.25, 1.0], [2.0, 0.5, 0.25]]).half()
CARD_ZEROS = torch.tensor([[8, 3, 1], [2, 9, 11]], dtype=torch.uint8)
CARD_X = torch.tensor([1.0, 2, -1, 1, 4, 0, 2, -2, 3, 1, -1, 2]).half()


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def one(
        name: str, codes: torch.Tensor, steps: torch.Tensor, zeros: torch.Tensor, x: torch.Tensor, group: int,
        tall: int, wide: int,
    ) -> Case:  # fmt: skip
        out, columns = codes.shape
        return launched(
            name, (cdiv(out, tall),), packed=low_first(codes), scales=steps, zeros=zeros, x=x, y=unwritten(out),
            out=out, COLUMNS=columns, GROUP=group, TALL=tall, BYTES=wide,
        )  # fmt: skip

    def layer(name: str, out: int, columns: int, group: int, tall: int, wide: int) -> Case:
        groups = columns // group
        codes, zeros = whole(random, 0, 15, out, columns), whole(random, 0, 15, out, groups)
        x = normal(random, columns).half()
        return one(name, codes, scales(random, out, groups), zeros, x, group, tall, wide)

    # A thousand products of one sign: float16 keeps 11 bits of their sum.
    long = torch.full((3, 2048), 9).byte()
    ones = (1 + torch.rand(2048, generator=random) / 4).half()
    return [
        one("the example of the card", CARD_CODES, CARD_SCALES, CARD_ZEROS, CARD_X, 4, 2, 4),
        layer("steps that end where the row ends", 8, 64, 16, 8, 16),
        layer("a group of two steps", 5, 32, 32, 8, 8),
        layer("a last step that is not full", 6, 60, 12, 4, 16),
        layer("a single output, a step wider than the row", 1, 10, 2, 4, 16),
        one("many products of one sign", long, scales(random, 3, 16), torch.full((3, 16), 6).byte(), ones, 128, 4, 512),
    ]


def exact(case: Case) -> tuple[torch.Tensor, torch.Tensor]:
    """y and the sum of the magnitudes of its products, float64 (out,)."""
    packed, x = argument(case, "packed").int(), argument(case, "x").double()
    codes = torch.stack([packed & 15, packed >> 4], dim=-1).flatten(1)
    of = torch.arange(codes.shape[1]) // argument(case, "GROUP")
    weights = argument(case, "scales").double()[:, of] * (codes - argument(case, "zeros").int()[:, of])
    return weights @ x, weights.abs() @ x.abs()


def sums_are_those_of_float32(case: Case, got: Any, expected: Any) -> Finding | None:
    y, size = exact(case)
    return near(got["y"], "y", y, 1e-5 * size + 1e-30)


@mutant(
    "x is read without a mask. The codes beside it are masked, but what is masked off is code 0, which is the weight "
    "-zero * scale and not 0; and 0 times NaN is NaN. The inputs beside missing codes have to be zero."
)
@triton.jit
def inputs_without_mask(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    total = tl.zeros((TALL, BYTES), tl.float32)
    for start in range(0, COLUMNS // 2, BYTES):
        b = start + tl.arange(0, BYTES)[None, :]
        inside = (n < out) & (b < COLUMNS // 2)
        byte = tl.load(packed + n * (COLUMNS // 2) + b, mask=inside, other=0)
        at = n * (COLUMNS // GROUP) + 2 * b // GROUP
        scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
        zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
        even, odd = tl.load(x + 2 * b).to(tl.float32), tl.load(x + 2 * b + 1).to(tl.float32)
        low, high = (byte & 15).to(tl.float32) - zero, (byte >> 4).to(tl.float32) - zero
        total += (low * even + high * odd) * scale
    tl.store(y + n, tl.sum(total, 1)[:, None], mask=n < out)


@mutant(
    "scales and zero-points are read without a mask. Behind the last of them lies what is no scale, and 0 times NaN is "
    "NaN: zero inputs do not help here."
)
@triton.jit
def scales_without_mask(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    total = tl.zeros((TALL, BYTES), tl.float32)
    for start in range(0, COLUMNS // 2, BYTES):
        b = start + tl.arange(0, BYTES)[None, :]
        exists = b < COLUMNS // 2
        byte = tl.load(packed + n * (COLUMNS // 2) + b, mask=(n < out) & exists, other=0)
        at = n * (COLUMNS // GROUP) + 2 * b // GROUP
        scale, zero = tl.load(scales + at).to(tl.float32), tl.load(zeros + at).to(tl.float32)
        even = tl.load(x + 2 * b, mask=exists, other=0).to(tl.float32)
        odd = tl.load(x + 2 * b + 1, mask=exists, other=0).to(tl.float32)
        low, high = (byte & 15).to(tl.float32) - zero, (byte >> 4).to(tl.float32) - zero
        total += (low * even + high * odd) * scale
    tl.store(y + n, tl.sum(total, 1)[:, None], mask=n < out)


@mutant(
    "the codes are read without a mask. They are whole numbers, and the inputs beside them are zero, so the sums are "
    "right; but the last row reads behind the end of packed."
)
@triton.jit
def codes_without_mask(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    total = tl.zeros((TALL, BYTES), tl.float32)
    for start in range(0, COLUMNS // 2, BYTES):
        b = start + tl.arange(0, BYTES)[None, :]
        exists = b < COLUMNS // 2
        inside = (n < out) & exists
        byte = tl.load(packed + n * (COLUMNS // 2) + b)
        at = n * (COLUMNS // GROUP) + 2 * b // GROUP
        scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
        zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
        even = tl.load(x + 2 * b, mask=exists, other=0).to(tl.float32)
        odd = tl.load(x + 2 * b + 1, mask=exists, other=0).to(tl.float32)
        low, high = (byte & 15).to(tl.float32) - zero, (byte >> 4).to(tl.float32) - zero
        total += (low * even + high * odd) * scale
    tl.store(y + n, tl.sum(total, 1)[:, None], mask=n < out)


@mutant("the results are stored without a mask: the last program owns fewer than TALL outputs.")
@triton.jit
def store_without_mask(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    total = tl.zeros((TALL, BYTES), tl.float32)
    for start in range(0, COLUMNS // 2, BYTES):
        b = start + tl.arange(0, BYTES)[None, :]
        exists = b < COLUMNS // 2
        inside = (n < out) & exists
        byte = tl.load(packed + n * (COLUMNS // 2) + b, mask=inside, other=0)
        at = n * (COLUMNS // GROUP) + 2 * b // GROUP
        scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
        zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
        even = tl.load(x + 2 * b, mask=exists, other=0).to(tl.float32)
        odd = tl.load(x + 2 * b + 1, mask=exists, other=0).to(tl.float32)
        low, high = (byte & 15).to(tl.float32) - zero, (byte >> 4).to(tl.float32) - zero
        total += (low * even + high * odd) * scale
    tl.store(y + n, tl.sum(total, 1)[:, None])


@mutant(
    "the last step is missing where it is not full: COLUMNS // 2 // BYTES rounds the number of steps down. Let range "
    "go from 0 to COLUMNS // 2 in steps of BYTES, and mask the rest."
)
@triton.jit
def last_step_missing(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    total = tl.zeros((TALL, BYTES), tl.float32)
    for step in range(COLUMNS // 2 // BYTES):
        b = step * BYTES + tl.arange(0, BYTES)[None, :]
        byte = tl.load(packed + n * (COLUMNS // 2) + b, mask=n < out, other=0)
        at = n * (COLUMNS // GROUP) + 2 * b // GROUP
        scale = tl.load(scales + at, mask=n < out, other=0).to(tl.float32)
        zero = tl.load(zeros + at, mask=n < out, other=0).to(tl.float32)
        even, odd = tl.load(x + 2 * b).to(tl.float32), tl.load(x + 2 * b + 1).to(tl.float32)
        low, high = (byte & 15).to(tl.float32) - zero, (byte >> 4).to(tl.float32) - zero
        total += (low * even + high * odd) * scale
    tl.store(y + n, tl.sum(total, 1)[:, None], mask=n < out)


@mutant("only the last step counts: each turn of the loop replaces the sums instead of adding to them (=, not +=).")
@triton.jit
def only_the_last_step(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    total = tl.zeros((TALL, BYTES), tl.float32)
    for start in range(0, COLUMNS // 2, BYTES):
        b = start + tl.arange(0, BYTES)[None, :]
        exists = b < COLUMNS // 2
        inside = (n < out) & exists
        byte = tl.load(packed + n * (COLUMNS // 2) + b, mask=inside, other=0)
        at = n * (COLUMNS // GROUP) + 2 * b // GROUP
        scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
        zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
        even = tl.load(x + 2 * b, mask=exists, other=0).to(tl.float32)
        odd = tl.load(x + 2 * b + 1, mask=exists, other=0).to(tl.float32)
        low, high = (byte & 15).to(tl.float32) - zero, (byte >> 4).to(tl.float32) - zero
        total = (low * even + high * odd) * scale
    tl.store(y + n, tl.sum(total, 1)[:, None], mask=n < out)


@mutant(
    "the sums are kept in float16, whose step is 2 from 2,048 on: small products are lost beside a large sum. Keep "
    "sums of products in float32."
)
@triton.jit
def sums_in_float16(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    total = tl.zeros((TALL, BYTES), tl.float16)
    for start in range(0, COLUMNS // 2, BYTES):
        b = start + tl.arange(0, BYTES)[None, :]
        exists = b < COLUMNS // 2
        inside = (n < out) & exists
        byte = tl.load(packed + n * (COLUMNS // 2) + b, mask=inside, other=0)
        at = n * (COLUMNS // GROUP) + 2 * b // GROUP
        scale = tl.load(scales + at, mask=inside, other=0)
        zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float16)
        even, odd = tl.load(x + 2 * b, mask=exists, other=0), tl.load(x + 2 * b + 1, mask=exists, other=0)
        low, high = (byte & 15).to(tl.float16) - zero, (byte >> 4).to(tl.float16) - zero
        total += (low * even + high * odd) * scale
    tl.store(y + n, tl.sum(total, 1)[:, None], mask=n < out)


@mutant(
    "the products are formed in float16 and only added up in float32. A weight times an input has 15 bits and more, "
    "float16 keeps 11. Convert x before you multiply."
)
@triton.jit
def products_in_float16(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    total = tl.zeros((TALL, BYTES), tl.float32)
    for start in range(0, COLUMNS // 2, BYTES):
        b = start + tl.arange(0, BYTES)[None, :]
        exists = b < COLUMNS // 2
        inside = (n < out) & exists
        byte = tl.load(packed + n * (COLUMNS // 2) + b, mask=inside, other=0)
        at = n * (COLUMNS // GROUP) + 2 * b // GROUP
        scale = tl.load(scales + at, mask=inside, other=0)
        zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float16)
        even, odd = tl.load(x + 2 * b, mask=exists, other=0), tl.load(x + 2 * b + 1, mask=exists, other=0)
        low, high = ((byte & 15).to(tl.float16) - zero) * scale, ((byte >> 4).to(tl.float16) - zero) * scale
        total += (low * even).to(tl.float32) + (high * odd).to(tl.float32)
    tl.store(y + n, tl.sum(total, 1)[:, None], mask=n < out)


@mutant("the group is computed from the byte, b // GROUP. Byte b holds the inputs 2b and 2b + 1: it is 2 * b // GROUP.")
@triton.jit
def group_of_the_byte(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    total = tl.zeros((TALL, BYTES), tl.float32)
    for start in range(0, COLUMNS // 2, BYTES):
        b = start + tl.arange(0, BYTES)[None, :]
        exists = b < COLUMNS // 2
        inside = (n < out) & exists
        byte = tl.load(packed + n * (COLUMNS // 2) + b, mask=inside, other=0)
        at = n * (COLUMNS // GROUP) + b // GROUP
        scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
        zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
        even = tl.load(x + 2 * b, mask=exists, other=0).to(tl.float32)
        odd = tl.load(x + 2 * b + 1, mask=exists, other=0).to(tl.float32)
        low, high = (byte & 15).to(tl.float32) - zero, (byte >> 4).to(tl.float32) - zero
        total += (low * even + high * odd) * scale
    tl.store(y + n, tl.sum(total, 1)[:, None], mask=n < out)


@mutant(
    "a step uses one scale and one zero-point for each row, those of the group in which it begins. A step may reach "
    "over several groups: compute the group of every byte."
)
@triton.jit
def one_group_for_a_step(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    total = tl.zeros((TALL, BYTES), tl.float32)
    for start in range(0, COLUMNS // 2, BYTES):
        b = start + tl.arange(0, BYTES)[None, :]
        exists = b < COLUMNS // 2
        byte = tl.load(packed + n * (COLUMNS // 2) + b, mask=(n < out) & exists, other=0)
        at = n * (COLUMNS // GROUP) + 2 * start // GROUP
        scale = tl.load(scales + at, mask=n < out, other=0).to(tl.float32)
        zero = tl.load(zeros + at, mask=n < out, other=0).to(tl.float32)
        even = tl.load(x + 2 * b, mask=exists, other=0).to(tl.float32)
        odd = tl.load(x + 2 * b + 1, mask=exists, other=0).to(tl.float32)
        low, high = (byte & 15).to(tl.float32) - zero, (byte >> 4).to(tl.float32) - zero
        total += (low * even + high * odd) * scale
    tl.store(y + n, tl.sum(total, 1)[:, None], mask=n < out)


@mutant(
    "the number of the step is taken for the number of the group, as in the lesson, where a step was a group. Here the "
    "two have sizes of their own."
)
@triton.jit
def step_taken_for_the_group(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    total = tl.zeros((TALL, BYTES), tl.float32)
    for start in range(0, COLUMNS // 2, BYTES):
        b = start + tl.arange(0, BYTES)[None, :]
        exists = b < COLUMNS // 2
        byte = tl.load(packed + n * (COLUMNS // 2) + b, mask=(n < out) & exists, other=0)
        at = n * (COLUMNS // GROUP) + start // BYTES
        scale = tl.load(scales + at, mask=n < out, other=0).to(tl.float32)
        zero = tl.load(zeros + at, mask=n < out, other=0).to(tl.float32)
        even = tl.load(x + 2 * b, mask=exists, other=0).to(tl.float32)
        odd = tl.load(x + 2 * b + 1, mask=exists, other=0).to(tl.float32)
        low, high = (byte & 15).to(tl.float32) - zero, (byte >> 4).to(tl.float32) - zero
        total += (low * even + high * odd) * scale
    tl.store(y + n, tl.sum(total, 1)[:, None], mask=n < out)


@mutant(
    "a scale is applied after the loop, to the whole sum. It changes from group to group, so it has to be inside; only "
    "a scale for a whole row may wait."
)
@triton.jit
def scale_after_the_loop(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    total = tl.zeros((TALL, BYTES), tl.float32)
    for start in range(0, COLUMNS // 2, BYTES):
        b = start + tl.arange(0, BYTES)[None, :]
        exists = b < COLUMNS // 2
        inside = (n < out) & exists
        byte = tl.load(packed + n * (COLUMNS // 2) + b, mask=inside, other=0)
        at = n * (COLUMNS // GROUP) + 2 * b // GROUP
        zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
        even = tl.load(x + 2 * b, mask=exists, other=0).to(tl.float32)
        odd = tl.load(x + 2 * b + 1, mask=exists, other=0).to(tl.float32)
        low, high = (byte & 15).to(tl.float32) - zero, (byte >> 4).to(tl.float32) - zero
        total += low * even + high * odd
    scale = tl.load(scales + n * (COLUMNS // GROUP), mask=n < out, other=0).to(tl.float32)
    tl.store(y + n, tl.sum(total, 1)[:, None] * scale, mask=n < out)


@mutant("the halves are swapped: input 2b meets the low half of byte b here, input 2b + 1 the high half.")
@triton.jit
def high_half_first(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    total = tl.zeros((TALL, BYTES), tl.float32)
    for start in range(0, COLUMNS // 2, BYTES):
        b = start + tl.arange(0, BYTES)[None, :]
        exists = b < COLUMNS // 2
        inside = (n < out) & exists
        byte = tl.load(packed + n * (COLUMNS // 2) + b, mask=inside, other=0)
        at = n * (COLUMNS // GROUP) + 2 * b // GROUP
        scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
        zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
        even = tl.load(x + 2 * b, mask=exists, other=0).to(tl.float32)
        odd = tl.load(x + 2 * b + 1, mask=exists, other=0).to(tl.float32)
        low, high = (byte & 15).to(tl.float32) - zero, (byte >> 4).to(tl.float32) - zero
        total += (high * even + low * odd) * scale
    tl.store(y + n, tl.sum(total, 1)[:, None], mask=n < out)


@mutant(
    "the low halves meet the first half of x, the high halves the second. That would be a layout without neighbors; "
    "here byte b holds the inputs 2b and 2b + 1."
)
@triton.jit
def halves_of_x(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    total = tl.zeros((TALL, BYTES), tl.float32)
    for start in range(0, COLUMNS // 2, BYTES):
        b = start + tl.arange(0, BYTES)[None, :]
        exists = b < COLUMNS // 2
        inside = (n < out) & exists
        byte = tl.load(packed + n * (COLUMNS // 2) + b, mask=inside, other=0)
        at = n * (COLUMNS // GROUP) + 2 * b // GROUP
        scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
        zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
        even = tl.load(x + b, mask=exists, other=0).to(tl.float32)
        odd = tl.load(x + COLUMNS // 2 + b, mask=exists, other=0).to(tl.float32)
        low, high = (byte & 15).to(tl.float32) - zero, (byte >> 4).to(tl.float32) - zero
        total += (low * even + high * odd) * scale
    tl.store(y + n, tl.sum(total, 1)[:, None], mask=n < out)


@mutant("the zero-points are not used, and code 0 stands for zero.")
@triton.jit
def zero_points_forgotten(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    total = tl.zeros((TALL, BYTES), tl.float32)
    for start in range(0, COLUMNS // 2, BYTES):
        b = start + tl.arange(0, BYTES)[None, :]
        exists = b < COLUMNS // 2
        inside = (n < out) & exists
        byte = tl.load(packed + n * (COLUMNS // 2) + b, mask=inside, other=0)
        scale = tl.load(scales + n * (COLUMNS // GROUP) + 2 * b // GROUP, mask=inside, other=0).to(tl.float32)
        even = tl.load(x + 2 * b, mask=exists, other=0).to(tl.float32)
        odd = tl.load(x + 2 * b + 1, mask=exists, other=0).to(tl.float32)
        total += ((byte & 15).to(tl.float32) * even + (byte >> 4).to(tl.float32) * odd) * scale
    tl.store(y + n, tl.sum(total, 1)[:, None], mask=n < out)


@mutant("8 is subtracted from every code, as in the lesson's symmetric format. Here each group has its own zero-point.")
@triton.jit
def always_minus_8(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    total = tl.zeros((TALL, BYTES), tl.float32)
    for start in range(0, COLUMNS // 2, BYTES):
        b = start + tl.arange(0, BYTES)[None, :]
        exists = b < COLUMNS // 2
        inside = (n < out) & exists
        byte = tl.load(packed + n * (COLUMNS // 2) + b, mask=inside, other=0)
        scale = tl.load(scales + n * (COLUMNS // GROUP) + 2 * b // GROUP, mask=inside, other=0).to(tl.float32)
        even = tl.load(x + 2 * b, mask=exists, other=0).to(tl.float32)
        odd = tl.load(x + 2 * b + 1, mask=exists, other=0).to(tl.float32)
        total += (((byte & 15).to(tl.float32) - 8) * even + ((byte >> 4).to(tl.float32) - 8) * odd) * scale
    tl.store(y + n, tl.sum(total, 1)[:, None], mask=n < out)


@mutant(
    "code minus zero-point is computed in uint8: below zero it starts again at 255. Convert both before you subtract."
)
@triton.jit
def difference_in_uint8(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    total = tl.zeros((TALL, BYTES), tl.float32)
    for start in range(0, COLUMNS // 2, BYTES):
        b = start + tl.arange(0, BYTES)[None, :]
        exists = b < COLUMNS // 2
        inside = (n < out) & exists
        byte = tl.load(packed + n * (COLUMNS // 2) + b, mask=inside, other=0)
        at = n * (COLUMNS // GROUP) + 2 * b // GROUP
        scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
        zero = tl.load(zeros + at, mask=inside, other=0)
        even = tl.load(x + 2 * b, mask=exists, other=0).to(tl.float32)
        odd = tl.load(x + 2 * b + 1, mask=exists, other=0).to(tl.float32)
        low, high = ((byte & 15) - zero).to(tl.float32), ((byte >> 4) - zero).to(tl.float32)
        total += (low * even + high * odd) * scale
    tl.store(y + n, tl.sum(total, 1)[:, None], mask=n < out)


@mutant("the rows of packed are taken to be COLUMNS bytes long. Two codes share a byte: COLUMNS // 2.")
@triton.jit
def packed_rows_too_long(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    total = tl.zeros((TALL, BYTES), tl.float32)
    for start in range(0, COLUMNS // 2, BYTES):
        b = start + tl.arange(0, BYTES)[None, :]
        exists = b < COLUMNS // 2
        inside = (n < out) & exists
        byte = tl.load(packed + n * COLUMNS + b, mask=inside, other=0)
        at = n * (COLUMNS // GROUP) + 2 * b // GROUP
        scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
        zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
        even = tl.load(x + 2 * b, mask=exists, other=0).to(tl.float32)
        odd = tl.load(x + 2 * b + 1, mask=exists, other=0).to(tl.float32)
        low, high = (byte & 15).to(tl.float32) - zero, (byte >> 4).to(tl.float32) - zero
        total += (low * even + high * odd) * scale
    tl.store(y + n, tl.sum(total, 1)[:, None], mask=n < out)


@mutant("the sum is taken along the wrong axis. total is (TALL, BYTES), a row for each output: tl.sum(total, 1).")
@triton.jit
def sum_along_the_wrong_axis(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    total = tl.zeros((TALL, BYTES), tl.float32)
    for start in range(0, COLUMNS // 2, BYTES):
        b = start + tl.arange(0, BYTES)[None, :]
        exists = b < COLUMNS // 2
        inside = (n < out) & exists
        byte = tl.load(packed + n * (COLUMNS // 2) + b, mask=inside, other=0)
        at = n * (COLUMNS // GROUP) + 2 * b // GROUP
        scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
        zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
        even = tl.load(x + 2 * b, mask=exists, other=0).to(tl.float32)
        odd = tl.load(x + 2 * b + 1, mask=exists, other=0).to(tl.float32)
        low, high = (byte & 15).to(tl.float32) - zero, (byte >> 4).to(tl.float32) - zero
        total += (low * even + high * odd) * scale
    tl.store(y + n, tl.sum(total, 0)[:, None], mask=n < out)


@mutant(
    "the inputs are loaded with a mask and without `other`: what stands in the masked places is anything, here NaN, "
    "and it is added up. A masked load that goes into a sum needs other=0."
)
@triton.jit
def loads_without_other(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    total = tl.zeros((TALL, BYTES), tl.float32)
    for start in range(0, COLUMNS // 2, BYTES):
        b = start + tl.arange(0, BYTES)[None, :]
        exists = b < COLUMNS // 2
        inside = (n < out) & exists
        byte = tl.load(packed + n * (COLUMNS // 2) + b, mask=inside, other=0)
        at = n * (COLUMNS // GROUP) + 2 * b // GROUP
        scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
        zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
        even = tl.load(x + 2 * b, mask=exists).to(tl.float32)
        odd = tl.load(x + 2 * b + 1, mask=exists).to(tl.float32)
        low, high = (byte & 15).to(tl.float32) - zero, (byte >> 4).to(tl.float32) - zero
        total += (low * even + high * odd) * scale
    tl.store(y + n, tl.sum(total, 1)[:, None], mask=n < out)


@mutant(
    "the products are float32, and the total is rounded to float16 in each step: it keeps 11 bits, and what is added "
    "to a large sum is lost. Keep the total in float32 until the end."
)
@triton.jit
def total_rounded_to_float16(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    total = tl.zeros((TALL, BYTES), tl.float16)
    for start in range(0, COLUMNS // 2, BYTES):
        b = start + tl.arange(0, BYTES)[None, :]
        exists = b < COLUMNS // 2
        inside = (n < out) & exists
        byte = tl.load(packed + n * (COLUMNS // 2) + b, mask=inside, other=0)
        at = n * (COLUMNS // GROUP) + 2 * b // GROUP
        scale = tl.load(scales + at, mask=inside, other=0).to(tl.float32)
        zero = tl.load(zeros + at, mask=inside, other=0).to(tl.float32)
        even = tl.load(x + 2 * b, mask=exists, other=0).to(tl.float32)
        odd = tl.load(x + 2 * b + 1, mask=exists, other=0).to(tl.float32)
        low, high = (byte & 15).to(tl.float32) - zero, (byte >> 4).to(tl.float32) - zero
        total = (total + (low * even + high * odd) * scale).to(tl.float16)
    tl.store(y + n, tl.sum(total.to(tl.float32), 1)[:, None], mask=n < out)


@triton.jit
def column_by_column(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    """Right: a column of the block is an input; each byte is loaded for both of its codes."""
    n = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    total = tl.zeros((TALL, 1), tl.float32)
    for start in range(0, COLUMNS, 2 * BYTES):
        k = start + tl.arange(0, 2 * BYTES)[None, :]
        inside = (n < out) & (k < COLUMNS)
        code = tl.load(packed + (n * COLUMNS + k) // 2, mask=inside, other=0).to(tl.int32) >> (k % 2 * 4) & 15
        at = n * (COLUMNS // GROUP) + k // GROUP
        weight = code - tl.load(zeros + at, mask=inside, other=0).to(tl.int32)
        weight *= tl.load(scales + at, mask=inside, other=0).to(tl.float32)
        total += tl.sum(weight * tl.load(x + k, mask=k < COLUMNS, other=0).to(tl.float32), 1)[:, None]
    tl.store(y + n, total, mask=n < out)


@triton.jit
def group_by_group(
    packed, scales, zeros, x, y, out,
    COLUMNS: tl.constexpr, GROUP: tl.constexpr, TALL: tl.constexpr, BYTES: tl.constexpr,
):  # fmt: skip
    """Right: a step is a group, however large BYTES is; its scale and its zero-point come out of two sums."""
    row = tl.program_id(0) * TALL + tl.arange(0, TALL)
    n, total = row[:, None], tl.zeros((TALL,), tl.float32)
    for g in range(COLUMNS // GROUP):
        codes, inputs = tl.zeros((TALL,), tl.float32), tl.zeros((TALL,), tl.float32)
        for start in range(0, GROUP // 2, BYTES):
            i = start + tl.arange(0, BYTES)[None, :]
            b, exists = g * (GROUP // 2) + i, i < GROUP // 2
            byte = tl.load(packed + n * (COLUMNS // 2) + b, mask=(n < out) & exists, other=0)
            even = tl.load(x + 2 * b, mask=exists, other=0).to(tl.float32)
            odd = tl.load(x + 2 * b + 1, mask=exists, other=0).to(tl.float32)
            codes += tl.sum((byte & 15).to(tl.float32) * even + (byte >> 4).to(tl.float32) * odd, 1)
            inputs += tl.sum(even + odd, 1)
        at = row * (COLUMNS // GROUP) + g
        zero = tl.load(zeros + at, mask=row < out, other=0).to(tl.float32)
        total += (codes - zero * inputs) * tl.load(scales + at, mask=row < out, other=0).to(tl.float32)
    tl.store(y + row, total, mask=row < out)


QUESTION = Question(
    id="kernels.gemv_int4",
    title="The fused 4-bit product, asymmetric",
    reference=gemv_int4,
    cases=cases,
    properties=(stays_inside, written("y"), sums_are_those_of_float32, each_program_stores_its_own),
    mutants=(
        inputs_without_mask,
        *only_interpreted(codes_without_mask),
        scales_without_mask,
        store_without_mask,
        last_step_missing,
        only_the_last_step,
        sums_in_float16,
        products_in_float16,
        group_of_the_byte,
        one_group_for_a_step,
        step_taken_for_the_group,
        scale_after_the_loop,
        high_half_first,
        halves_of_x,
        zero_points_forgotten,
        always_minus_8,
        difference_in_uint8,
        packed_rows_too_long,
        sum_along_the_wrong_axis,
        *only_interpreted(loads_without_other),
        total_rounded_to_float16,
    ),
    alternatives=(column_by_column, group_by_group),
    hints=(
        "Take the card's second step, with byte 6 of 6 (there is none). What do your loads give for its code, its "
        "zero-point, its scale and its two inputs, and what is added to the sum?",
        "It is question 4 inside of a loop: bytes (TALL, BYTES), two codes of each, and the place n * (COLUMNS // "
        "GROUP) + 2 * b // GROUP for scale and zero-point. Two loads of x, at 2 * b and 2 * b + 1, both masked with b "
        "< COLUMNS // 2. All of it in float32.",
        "total = tl.zeros((TALL, BYTES), tl.float32); for start in range(0, COLUMNS // 2, BYTES): … total += (low * "
        "even + high * odd) * scale, where low is (byte & 15).to(tl.float32) - zero; after the loop store "
        "tl.sum(total, 1)[:, None] with the mask n < out.",
    ),
    explanation=(
        "The weight exists as a float only in registers, so memory sees 4 bits of it and its share of scales and "
        "zero-points. The mask that decides is that of x: what is masked off in a packed format is a code, and code 0 "
        "means -zero * scale. Scales need a mask as well, because they are floats, and 0 times NaN is NaN. If a step "
        "is one group, scale and zero-point come out of the inner sum: the sum of codes times x, minus zero times the "
        "sum of x. That spares a subtraction and a multiplication for every weight, and is exact enough in float32 "
        "only."
    ),
)
