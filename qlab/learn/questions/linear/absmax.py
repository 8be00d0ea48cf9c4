"""linear.absmax: symmetric quantization of one tensor, with one scale from the largest magnitude."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .symmetric import codes_fit, largest_code, write
from .symmetric import half_a_step as within_half_a_step


def absmax_quantize(x, bits):
    """Quantize a tensor symmetrically, with one scale for all of it.

    x: float32, any shape, not empty.
    bits: 2 to 8.

    Returns (codes, scale):
    codes: int8, shaped like x, from -qmax to qmax with qmax = 2**(bits-1) - 1.
    scale: a float, the largest magnitude divided by qmax; it may be as small as 1e-30.
        Any positive number for a tensor of zeros.

    codes * scale is x, to half a step.
    """
    qmax = 2 ** (bits - 1) - 1
    scale = x.abs().max().item() / qmax or 1.0  # zeros: any scale but 0
    codes = torch.round(x / scale).clamp(-qmax, qmax).to(torch.int8)
    return codes, scale


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    halves = torch.tensor([0.5, 1.5, -2.5, 7.0, 3.5, -0.5, -4.5]) * 2.0 ** (seed % 5 - 2)
    return [
        Case("values on both sides of zero, 8 bits", (normal(33), 8)),
        Case("a matrix, 4 bits", (normal(5, 7), 4)),
        Case("the largest magnitude is negative", (torch.cat([normal(20), torch.tensor([-6.5])]), 4)),
        Case("3 bits, three dimensions", (normal(2, 3, 11) * 3, 3)),
        Case("2 bits", (normal(19), 2)),
        Case("all values positive", (torch.rand(17, generator=random) + 0.2, 8)),
        Case("values halfway between two codes; either is right", (halves, 4)),
        Case("a single value", (-normal(1).abs() - 0.5, 8)),
        Case("nothing but zeros", (torch.zeros(6), 8)),
        Case("tiny values", (normal(21) * 1e-13, 8)),
    ]


def _step(case: Case) -> torch.Tensor:
    """The step that the data of the case ask for; 0 for zeros."""
    x, bits = case.args
    return x.double().abs().max() / largest_code(bits)


def returns_codes_and_scale(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.parts(got, "codes", "scale")


def codes_are_int8(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got[0], "codes", torch.int8, case.args[0].shape)


def scale_fits_the_largest(case: Case, got: Any, expected: Any) -> Finding | None:
    step = _step(case).item()
    return p.number_near(got[1], "scale", step, 1e-4) if step else p.positive(got[1], "scale")


def codes_are_nearest(case: Case, got: Any, expected: Any) -> Finding | None:
    x, bits = case.args
    return codes_fit(got[0], x, _step(case), bits)


def half_a_step(case: Case, got: Any, expected: Any) -> Finding | None:
    return within_half_a_step(got[0], p.as_number(got[1]), case.args[0], _step(case))


def _scale(x: Any, bits: int) -> Any:
    return x.abs().max().item() / largest_code(bits) or 1.0


@mutant("the codes are cut off instead of rounded: the error goes up to a whole step, and always towards zero.")
def truncates(x, bits):
    scale = _scale(x, bits)
    return (x / scale).to(torch.int8), scale


@mutant("the codes are rounded down, as by // or floor: the error goes up to a whole step, and all values sink.")
def rounds_down(x, bits):
    scale = _scale(x, bits)
    return torch.floor(x / scale).to(torch.int8), scale


@mutant(
    "the largest magnitude is divided by 2**(bits-1), a code that does not exist on the positive side. The largest "
    "value is clipped by a whole step. Divide by qmax = 2**(bits-1) - 1."
)
def off_by_one_qmax(x, bits):
    half = 2 ** (bits - 1)
    scale = x.abs().max().item() / half or 1.0
    return torch.round(x / scale).clamp(-half, half - 1).to(torch.int8), scale


@mutant(
    "qmax is 2**bits - 1, as if no code were negative. One bit goes to the sign, so only 2**(bits-1) - 1 codes are "
    "left above zero."
)
def sign_bit_forgotten(x, bits):
    qmax = 2**bits - 1
    scale = x.abs().max().item() / qmax or 1.0
    return torch.round(x / scale).clamp(-qmax, qmax).to(torch.int16).to(torch.int8), scale


@mutant("qmax is computed with ^, which is exclusive-or in Python. A power is 2 ** (bits - 1).")
def power_by_xor(x, bits):
    qmax = 2 ^ (bits - 1) - 1
    scale = x.abs().max().item() / qmax or 1.0
    return torch.round(x / scale).clamp(-qmax, qmax).to(torch.int8), scale


@mutant(
    "the scale comes from the largest value, not from the largest magnitude. A large negative value is then far off "
    "the grid. Take abs() first."
)
def without_abs(x, bits):
    scale = x.max().item() / largest_code(bits) or 1.0
    return write(x, scale, bits), scale


@mutant(
    "the scale comes from the largest value, not from the largest magnitude, and what is then off the grid wraps "
    "around in int8. Take abs() first."
)
def without_abs_or_clamp(x, bits):
    scale = x.max().item() / largest_code(bits) or 1.0
    return torch.round(x / scale).to(torch.int32).to(torch.int8), scale


@mutant(
    "the scale spans the range from min to max, which needs a zero-point as well. A symmetric grid has its middle "
    "at zero and reaches the largest magnitude."
)
def range_of_min_and_max(x, bits):
    scale = (x.max() - x.min()).item() / (2**bits - 1) or 1.0
    return write(x, scale, bits), scale


@mutant(
    "this is the function of the lesson: amax(dim=1) asks for a matrix and takes a scale for each of its rows. Here x "
    "may have any shape, and one number serves all of it."
)
def copied_from_the_lesson(x, bits):
    scale = x.abs().amax(dim=1, keepdim=True) / largest_code(bits)
    return write(x, scale, bits), scale


@mutant(
    "a tensor with several dimensions gets a scale for each row. Here one number serves all of it: take the maximum "
    "without dim."
)
def one_scale_per_row(x, bits):
    scale = x.abs().amax(dim=-1, keepdim=True) / largest_code(bits)
    scale = torch.where(scale > 0, scale, 1.0)
    return write(x, scale, bits), scale


@mutant("the argument bits is not used; every tensor gets 8 bits.")
def eight_bits_always(x, bits):
    return absmax_quantize(x, 8)


@mutant("the grid is that of one bit less: half of the codes are never used, and the step is twice as large.")
def one_bit_less(x, bits):
    return absmax_quantize(x, max(bits - 1, 2))


@mutant("a tensor of zeros gets the scale 0, by which nobody can divide: 0 / 0 is NaN. Give it any other scale.")
def zeros_divide(x, bits):
    scale = x.abs().max() / largest_code(bits)
    steps = torch.nan_to_num(x / scale)  # what NaN becomes as int8 depends on the processor; 0 on most
    return write(steps, 1.0, bits), scale.item()


@mutant(
    "a small number keeps the scale from 0, added to it or as its lower limit. Among tiny values that number is all. "
    "Ask whether the scale is 0 instead."
)
def epsilon_added(x, bits):
    scale = x.abs().max().item() / largest_code(bits) + 1e-8
    return write(x, scale, bits), scale


@mutant("the scale is held in float16, which has 11 bits only, and makes 0 of a tiny scale. Leave it in float32.")
def scale_in_half(x, bits):
    scale = (x.abs().max() / largest_code(bits)).half()
    scale = torch.where(scale > 0, scale, 1.0)
    return write(x, scale, bits), scale


@mutant(
    "the second value is qmax / max|x|, by which you multiply to get codes. What is stored is its inverse: the size "
    "of a step, so that codes * scale is x."
)
def scale_inverted(x, bits):
    scale = _scale(x, bits)
    return write(x, scale, bits), 1 / scale


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def codes_left_wide(x, bits):
    scale = _scale(x, bits)
    return write(x, scale, bits).float(), scale


@mutant("the first value is codes * scale, the values again. Return the codes themselves: they are what is stored.")
def values_instead_of_codes(x, bits):
    scale = _scale(x, bits)
    return write(x, scale, bits) * scale, scale


def in_float64_with_loops(x, bits):
    """Right, by a loop over Python's own floats, and with ties away from zero."""
    values = [float(value) for value in x.flatten()]
    qmax = 2 ** (bits - 1) - 1
    largest = max(abs(value) for value in values)
    scale = largest / qmax if largest > 0 else 0.25
    codes = [int(abs(value) / scale + 0.5) * (1 if value > 0 else -1) for value in values]
    return torch.tensor(codes, dtype=torch.int8).reshape(x.shape), scale


def nearest_of_all_levels(x, bits):
    """Right, without rounding: every value looks for the nearest level; the scale is a tensor without dimensions."""
    qmax = 2 ** (bits - 1) - 1
    largest = torch.maximum(x.max(), -x.min())
    scale = torch.where(largest > 0, largest, qmax) / qmax
    levels = torch.arange(-qmax, qmax + 1)
    nearest = (x[..., None] - levels * scale).abs().argmin(dim=-1)
    return levels[nearest].to(torch.int8), scale


def with_numpy(x, bits):
    """Right, as arrays, without a clamp: the largest magnitude is qmax by construction."""
    array = x.numpy()
    scale = abs(array).max() / (2 ** (bits - 1) - 1)
    if scale == 0:
        return array.astype("int8"), 1
    return (array / scale).round().astype("int8"), scale


QUESTION = Question(
    id="linear.absmax",
    title="One scale for a tensor",
    reference=absmax_quantize,
    cases=cases,
    properties=(
        returns_codes_and_scale,
        codes_are_int8,
        scale_fits_the_largest,
        codes_are_nearest,
        half_a_step,
    ),
    mutants=(
        codes_left_wide,  # first: what is wrong in its types only looks like this one
        truncates,
        rounds_down,
        off_by_one_qmax,
        sign_bit_forgotten,
        power_by_xor,
        without_abs,
        without_abs_or_clamp,
        range_of_min_and_max,
        copied_from_the_lesson,
        one_scale_per_row,
        eight_bits_always,
        one_bit_less,
        zeros_divide,
        epsilon_added,
        scale_in_half,
        scale_inverted,
        values_instead_of_codes,
    ),
    alternatives=(in_float64_with_loops, nearest_of_all_levels, with_numpy),
    hints=(
        "How many codes are there above zero, when as many must lie below? The value with the largest magnitude gets "
        "the last one of them.",
        "With qmax = 2**(bits - 1) - 1 the scale is the largest magnitude divided by qmax. Which tensor would make it "
        "0? A code is the value divided by the scale, rounded to the nearest whole number.",
        "scale = x.abs().max().item() / qmax, or 1.0 if that is 0; then torch.round(x / scale), clamp to -qmax and "
        "qmax, and convert to torch.int8.",
    ),
    explanation=(
        "One number, the largest magnitude, decides how coarse all the others become: no value is wrong by more than "
        "half a step, and a step is max|x| / qmax. Below zero int8 has room for one more code than above; leaving it "
        "unused keeps the grid symmetric, so that -x gets the codes of x with the sign turned. The only tensor that "
        "needs care is one of zeros: its scale would be 0, and 0 / 0 is NaN. A test for 0 is safer than an added 1e-8, "
        "which is no small number beside a scale of 1e-10."
    ),
)
