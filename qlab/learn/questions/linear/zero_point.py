"""linear.zero_point: asymmetric quantization of one tensor to unsigned codes (Jacob et al. 2018, eq. 1)."""

from __future__ import annotations

import math
from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant


def zero_point_quantize(x, bits):
    """Quantize a tensor asymmetrically, with one scale and one zero-point.

    x: float32, any shape, not empty.
    bits: 2 to 8.

    Returns (codes, scale, zero), for the range from low = min(x, 0) to high = max(x, 0):
    codes: uint8, shaped like x, from 0 to 2**bits - 1.
    scale: a float, (high - low) / (2**bits - 1); it may be as small as 1e-30.
        Any positive number for a tensor of zeros.
    zero: an int, the code that stands for the value 0; also from 0 to 2**bits - 1.

    (codes - zero) * scale is x, to half a step. Zeros come back as zeros.
    """
    low = min(x.min().item(), 0.0)
    high = max(x.max().item(), 0.0)
    scale = (high - low) / (2**bits - 1) or 1.0
    zero = round(-low / scale)
    codes = torch.round(x / scale + zero).clamp(0, 2**bits - 1).to(torch.uint8)
    return codes, scale, zero


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    unit = 2.0 ** (seed % 5 - 2)
    return [
        Case("values on both sides of zero, 8 bits", (normal(33), 8)),
        Case("a matrix, 4 bits", (normal(5, 7) + 0.5, 4)),
        Case("3 bits", (normal(64) * 3, 3)),
        Case("all values positive", (torch.rand(17, generator=random) + 5, 8)),
        Case("all values negative", (-torch.rand(17, generator=random) - 2, 8)),
        Case("one value far larger than the rest", (torch.cat([normal(40), torch.tensor([60.0])]), 8)),
        Case("a single value", (normal(1).abs() + 0.5, 8)),
        Case("nothing but zeros", (torch.zeros(6), 8)),
        Case("an end halfway between two codes, 8 bits", (torch.tensor([-1.5, 0.0, 253.5]) * unit, 8)),
        Case("an end halfway between two codes, 3 bits", (torch.tensor([-1.5, 0.0, 5.5]) * unit, 3)),
        Case("tiny values", (normal(21) * 1e-13, 8)),
    ]


def _step(case: Case) -> float:
    """The step that the data of the case ask for."""
    x, bits = case.args
    low, high = min(x.double().min().item(), 0.0), max(x.double().max().item(), 0.0)
    return (high - low) / (2**bits - 1) or 1.0


def returns_codes_scale_zero(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.parts(got, "codes", "scale", "zero")


def codes_are_uint8(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got[0], "codes", torch.uint8, case.args[0].shape)


def scale_spans_the_range(case: Case, got: Any, expected: Any) -> Finding | None:
    if not bool(case.args[0].any()):  # any positive scale represents zeros
        return p.positive(got[1], "scale")
    return p.number_near(got[1], "scale", _step(case), 1e-4)


def zero_is_a_code(case: Case, got: Any, expected: Any) -> Finding | None:
    if finding := p.whole_number(got[2], "zero"):
        return finding
    zero, last = p.as_number(got[2]), 2 ** case.args[1] - 1
    if 0 <= zero <= last:
        return None
    return Finding("zero: it is no code of these bits", expected=f"a number from 0 to {last}", got=f"{zero:g}")


def codes_are_nearest(case: Case, got: Any, expected: Any) -> Finding | None:
    x, bits = case.args
    exact = x.double() / _step(case) + p.as_number(got[2])
    return p.codes_between(got[0], "codes", 0, 2**bits - 1) or p.codes_near(got[0], "codes", exact, 0, 2**bits - 1)


def half_a_step(case: Case, got: Any, expected: Any) -> Finding | None:
    x, _ = case.args
    step = torch.tensor(_step(case))
    back = (got[0].double() - p.as_number(got[2])) * p.as_number(got[1])
    return p.values_near(back, "(codes - zero) * scale", x, (0.5 + p.SLACK) * step, step)


def _write(x: Any, bits: int, scale: float, zero: float) -> Any:
    """The last lines, which most of the mutants have right."""
    return torch.round(x / scale + zero).clamp(0, 2**bits - 1).to(torch.uint8), scale, int(zero)


def _range(x: Any) -> tuple[float, float]:
    return min(x.min().item(), 0.0), max(x.max().item(), 0.0)


def _grid(low: float, high: float, bits: int) -> tuple[float, float]:
    """The scale of that range, and the place of zero on its grid, not rounded."""
    scale = (high - low) / (2**bits - 1) or 1.0
    return scale, -low / scale


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def codes_left_wide(x, bits):
    codes, scale, zero = zero_point_quantize(x, bits)
    return codes.float(), scale, zero


@mutant(
    "the range goes from min to max, without zero, and then the zero-point is clipped. On one-sided data the "
    "whole grid moves away from the values. Widen the range to include zero first; then nothing needs clipping."
)
def range_without_zero(x, bits):
    scale, place = _grid(x.min().item(), x.max().item(), bits)
    return _write(x, bits, scale, min(max(round(place), 0), 2**bits - 1))


@mutant(
    "the range goes from min to max, without zero, so on one-sided data the zero-point is no code and does not "
    "fit into the bits that are stored. Widen the range to include zero."
)
def zero_point_not_clipped(x, bits):
    scale, place = _grid(x.min().item(), x.max().item(), bits)
    return _write(x, bits, scale, round(place))


@mutant("the range is divided by 2**bits. There are 2**bits codes but one step less between the first and the last.")
def off_by_one_levels(x, bits):
    low, high = _range(x)
    scale = (high - low) / 2**bits or 1.0
    return _write(x, bits, scale, round(-low / scale))


@mutant(
    "the scale comes from the largest magnitude, as in symmetric quantization. On one-sided data half of the "
    "codes are then never used."
)
def symmetric_range(x, bits):
    scale = x.abs().max().item() / (2 ** (bits - 1) - 1) or 1.0
    return _write(x, bits, scale, 2 ** (bits - 1))


@mutant("the codes are cut off instead of rounded: the error goes up to a whole step.")
def truncates(x, bits):
    scale, place = _grid(*_range(x), bits)
    zero = round(place)
    return (x / scale + zero).clamp(0, 2**bits - 1).to(torch.uint8), scale, zero


@mutant("the zero-point is 0, so everything below zero is clipped. It is the code that stands for the value 0.")
def zero_point_forgotten(x, bits):
    scale, _ = _grid(*_range(x), bits)
    return _write(x, bits, scale, 0)


@mutant(
    "the third value is the minimum itself, a float. The format stores a zero-point, which is a code: the number "
    "of steps from the minimum to zero."
)
def zero_point_added_as_a_value(x, bits):
    low, high = _range(x)
    scale, _ = _grid(low, high, bits)
    codes = torch.round((x - low) / scale).clamp(0, 2**bits - 1).to(torch.uint8)
    return codes, scale, low


@mutant("the zero-point has the wrong sign: it is -low / scale, and dequantizing subtracts it.")
def sign_of_the_zero_point(x, bits):
    scale, place = _grid(*_range(x), bits)
    zero = round(-place)
    return torch.round(x / scale - zero).clamp(0, 2**bits - 1).to(torch.uint8), scale, zero


@mutant(
    "the codes are not clamped. Where the range ends halfway between two codes, rounding gives 2**bits, a code too "
    "many, which wraps around to 0 at 8 bits."
)
def missing_clamp(x, bits):
    scale, place = _grid(*_range(x), bits)
    zero = round(place)
    return torch.round(x / scale + zero).int().to(torch.uint8), scale, zero


@mutant("the zero-point is rounded up or down instead of to the nearest code, so one end of the range is cut.")
def zero_point_rounded_up(x, bits):
    scale, place = _grid(*_range(x), bits)
    return _write(x, bits, scale, math.ceil(place))


@mutant("the zero-point is cut off instead of rounded, so the upper end of the range is cut as well.")
def zero_point_cut_off(x, bits):
    scale, place = _grid(*_range(x), bits)
    return _write(x, bits, scale, int(place))


@mutant(
    "the range includes zero for positive data only. Values that are all negative need it as much: the maximum must "
    "be at least 0."
)
def positive_data_only(x, bits):
    scale, place = _grid(min(x.min().item(), 0.0), x.max().item(), bits)
    return _write(x, bits, scale, round(place))


@mutant(
    "the range includes zero for negative data only. Values that are all positive need it as much: the minimum must "
    "be at most 0."
)
def negative_data_only(x, bits):
    scale, place = _grid(x.min().item(), max(x.max().item(), 0.0), bits)
    return _write(x, bits, scale, round(place))


@mutant("the zero-point is not rounded. It is a code, a whole number; only then does zero come back as zero.")
def zero_point_as_a_fraction(x, bits):
    scale, place = _grid(*_range(x), bits)
    return _write(x, bits, scale, place)[0], scale, place


@mutant(
    "the codes count steps from the minimum, (x - low) / scale, and the zero-point beside them is rounded, so the two "
    "do not fit together. Add the rounded zero-point to x / scale."
)
def codes_from_the_minimum(x, bits):
    scale, place = _grid(*_range(x), bits)
    return _write(x, bits, scale, place)[0], scale, round(place)


@mutant("the zero-point is missing in the codes: they are x / scale, rounded, and everything below zero is lost.")
def zero_point_not_added(x, bits):
    scale, place = _grid(*_range(x), bits)
    return _write(x, bits, scale, 0)[0], scale, round(place)


@mutant("the scale is kept above a small number such as 1e-8. Among tiny values that number is far too large.")
def scale_with_a_floor(x, bits):
    low, high = _range(x)
    scale = max((high - low) / (2**bits - 1), 1e-8)
    return _write(x, bits, scale, round(-low / scale))


@mutant("the argument bits is not used; every tensor gets 8 bits.")
def eight_bits_always(x, bits):
    return zero_point_quantize(x, 8)


@mutant("a tensor of zeros gets the scale 0, by which nobody can divide: 0 / 0 is NaN. Give it any other scale.")
def zeros_divide(x, bits):
    low, high = torch.clamp(x.min(), max=0), torch.clamp(x.max(), min=0)
    scale = (high - low) / (2**bits - 1)
    zero = torch.nan_to_num(torch.round(-low / scale))
    return torch.round(x / scale + zero).clamp(0, 2**bits - 1).to(torch.uint8), scale.item(), int(zero)


def in_float64_with_loops(x, bits):
    """Right, by a loop over Python's own floats, and with ties that go up."""
    values = [float(value) for value in x.flatten()]
    low, high = min([0.0, *values]), max([0.0, *values])
    scale = (high - low) / (2**bits - 1) if high > low else 0.25
    zero = int(-low / scale + 0.5)
    codes = [min(max(int(value / scale + zero + 0.5), 0), 2**bits - 1) for value in values]
    return torch.tensor(codes, dtype=torch.uint8).reshape(x.shape), scale, zero


def numpy_and_round_first(x, bits):
    """Right, as arrays: rounded before the zero-point is added, with the scale and the zero-point as tensors."""
    array = x.double().numpy()
    low, high = min(array.min(), 0.0), max(array.max(), 0.0)
    scale = (high - low) / (2**bits - 1) if high > low else 1.0
    zero = (-low / scale).round()
    codes = ((array / scale).round() + zero).clip(0, 2**bits - 1).astype("uint8")
    return codes, torch.tensor(scale), torch.tensor(int(zero))


QUESTION = Question(
    id="linear.zero_point",
    title="A zero-point for one-sided data",
    reference=zero_point_quantize,
    cases=cases,
    properties=(
        returns_codes_scale_zero,
        codes_are_uint8,
        scale_spans_the_range,
        zero_is_a_code,
        codes_are_nearest,
        half_a_step,
    ),
    mutants=(
        codes_left_wide,  # first: what is wrong in its types only looks like this one
        range_without_zero,
        zero_point_not_clipped,
        off_by_one_levels,
        symmetric_range,
        truncates,
        zero_point_forgotten,
        zero_point_added_as_a_value,
        sign_of_the_zero_point,
        missing_clamp,
        zero_point_rounded_up,
        zero_point_cut_off,
        positive_data_only,
        negative_data_only,
        zero_point_as_a_fraction,
        codes_from_the_minimum,
        zero_point_not_added,
        scale_with_a_floor,
        eight_bits_always,
        zeros_divide,
    ),
    alternatives=(in_float64_with_loops, numpy_and_round_first),
    hints=(
        "Which real value must always have a code of its own? Look at what the range must contain for that.",
        "With low = min(min(x), 0) and high = max(max(x), 0) there are 2**bits - 1 steps from low to high. "
        "The zero-point is the number of steps from low to 0, rounded.",
        "scale = (high - low) / (2**bits - 1), or 1.0 if that is 0; zero = round(-low / scale); "
        "then round x / scale + zero, clamp to 0 and 2**bits - 1, and only then convert to uint8.",
    ),
    explanation=(
        "The range always contains zero, so the zero-point lies between the codes 0 and 2**bits - 1 by itself, and "
        "zero is represented exactly: padding, masks and dropped weights stay zero. The price is a coarser step for "
        "data far away from zero. Five public courses take the range from min to max and clip the zero-point "
        "afterwards; on values from 5 to 6 that moves the grid away from the data."
    ),
)
