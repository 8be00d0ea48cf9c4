"""linear.clipped_zero_point: find the bug in an affine quantizer that public courses share, and repair it.

The range is measured from min to max, without zero, and the zero-point that does not fit is clipped.
"""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant


def repaired(x, bits):
    """Quantize a tensor asymmetrically, and return the values that its codes stand for.

    x: float32, any shape, not empty.
    bits: 2 to 8. The codes go from low = -2**(bits-1) to high = 2**(bits-1) - 1.

    Returns (values, zero):
    values: float32, shaped like x, each scale * (code - zero).
    zero: an int, the code that stands for the value 0; also from low to high.

    The range of x is widened until it includes zero, so a step is
    (max(x, 0) - min(x, 0)) / (high - low). Every value is right to half a step.
    A tensor of zeros comes back as zeros.
    """
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    smallest, largest = min(x.min().item(), 0.0), max(x.max().item(), 0.0)
    scale = (largest - smallest) / (high - low) or 1.0
    zero = round(low - smallest / scale)
    codes = torch.round(x / scale + zero).clamp(low, high)
    return scale * (codes - zero), zero


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    def uniform(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, generator=random)

    unit = 2.0 ** (seed % 5 - 2)
    return [
        Case("the six numbers of the card", (torch.tensor([1.0, 2, 3, 4, 5, 6]), 8)),
        Case("gains of a norm", (torch.tensor([0.8, 0.9, 1.0, 1.1, 1.2]), 8)),
        Case("values on both sides of zero", (normal(33), 8)),
        Case("all values negative", (-uniform(17) * 3 - 2, 8)),
        Case("all values positive, 4 bits", (uniform(17) * 2 + 4, 4)),
        Case("a matrix, mostly positive, 5 bits", (normal(5, 7) + 1, 5)),
        Case("3 bits", (normal(64) * 3, 3)),
        Case("after a ReLU: many zeros", (normal(4, 9).relu(), 8)),
        Case("one value, many times", (torch.full((5,), 0.5 + uniform(1).item()), 8)),
        Case("nothing but zeros", (torch.zeros(6), 8)),
        Case("an end halfway between two codes, 8 bits", (torch.tensor([-1.5, 0.0, 253.5]) * unit, 8)),
        Case("an end halfway between two codes, 3 bits", (torch.tensor([-1.5, 0.0, 5.5]) * unit, 3)),
        Case("tiny values, all positive", ((uniform(21) + 1) * 1e-13, 8)),
    ]


def _ends(bits: int) -> tuple[int, int]:
    """The first and the last code."""
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def _grid(case: Case) -> tuple[int, int, float, float]:
    """The first code, the last code, the step that the data ask for, and the exact place of zero."""
    x, bits = case.args
    low, high = _ends(bits)
    smallest, largest = min(x.double().min().item(), 0.0), max(x.double().max().item(), 0.0)
    step = (largest - smallest) / (high - low)
    return low, high, step or 1.0, low - smallest / step if step else 0.0


def returns_values_and_zero(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.parts(got, "values", "zero")


def values_are_float32(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got[0], "values", torch.float32, case.args[0].shape)


def zero_is_a_code(case: Case, got: Any, expected: Any) -> Finding | None:
    low, high, _, _ = _grid(case)
    if finding := p.whole_number(got[1], "zero"):
        return finding
    zero = p.as_number(got[1])
    if low <= zero <= high:
        return None
    return Finding("zero: it is no code of these bits", expected=f"a number from {low} to {high}", got=f"{zero:g}")


def half_a_step(case: Case, got: Any, expected: Any) -> Finding | None:
    step = torch.tensor(_grid(case)[2], dtype=torch.float64)
    return p.values_near(got[0], "values", case.args[0], (0.5 + p.SLACK) * step, step)


def zero_is_where_the_range_puts_it(case: Case, got: Any, expected: Any) -> Finding | None:
    _, _, _, place = _grid(case)
    zero = p.as_number(got[1])
    # Where there is nothing but zeros, any code may stand for them.
    if abs(zero - place) <= 0.5 + p.SLACK or not bool(case.args[0].any()):
        return None
    return Finding(
        "zero: it is not where the range that includes zero puts it",
        expected=f"{place:.4f}, rounded",
        got=f"{zero:g}",
    )


def values_are_on_the_grid(case: Case, got: Any, expected: Any) -> Finding | None:
    """Values are whole numbers of steps, and the code of each, counted from zero, exists."""
    low, high, step, _ = _grid(case)
    steps = got[0].double() / step
    away = (steps - torch.round(steps)).abs()
    if not bool((away <= p.SLACK).all()):
        index = tuple(int(i) for i in torch.unravel_index(away.argmax(), away.shape))
        return Finding(
            f"values: {int((away > p.SLACK).sum())} of {away.numel()} are not on the grid of these bits",
            index=index,
            expected="a whole number of steps",
            got=f"{steps[index].item():.4f} steps",
            error=away[index].item(),
            bound=p.SLACK,
        )
    return p.codes_between(torch.round(steps) + p.as_number(got[1]), "the codes of the values", low, high)


def _write(x: Any, bits: int, scale: Any, zero: Any) -> Any:
    """The last two lines, which most of the mutants have right."""
    codes = torch.round(x / scale + zero).clamp(*_ends(bits))
    return scale * (codes - zero), zero


def _range(x: Any) -> tuple[float, float]:
    return min(x.min().item(), 0.0), max(x.max().item(), 0.0)


def _scale_and_place(smallest: float, largest: float, bits: int) -> tuple[float, float]:
    """The scale of that range, and the place of zero on its grid, not rounded."""
    low, high = _ends(bits)
    scale = (largest - smallest) / (high - low) or 1.0
    return scale, low - smallest / scale


@mutant(
    "this is still the function with the bug. The range goes from min to max; where zero lies outside, its code does "
    "not exist, and clipping the zero-point moves the whole grid away from the values."
)
def the_bug(x, bits):
    low, high = _ends(bits)
    scale = (x.max() - x.min()) / (high - low)
    zero = torch.nan_to_num(torch.round(low - x.min() / scale)).clamp(low, high)
    values = scale * (torch.round(x / scale + zero).clamp(low, high) - zero)
    return torch.nan_to_num(values), int(zero)


@mutant(
    "the clip of the zero-point is gone, but not its reason. The values look right; the zero-point is no code any "
    "more and does not fit into the bits that are stored. Widen the range to include zero."
)
def clip_removed(x, bits):
    scale, place = _scale_and_place(x.min().item(), x.max().item(), bits)
    return _write(x, bits, scale, round(place))


@mutant(
    "the range includes zero for positive data only. Values that are all negative have the same bug at the other end: "
    "the maximum must be at least 0."
)
def positive_data_only(x, bits):
    low, high = _ends(bits)
    scale, place = _scale_and_place(min(x.min().item(), 0.0), x.max().item(), bits)
    return _write(x, bits, scale, min(max(round(place), low), high))


@mutant(
    "the zero-point comes from the widened range, the scale still from min to max. The step is then too small for the "
    "range, and the far end saturates. Both must use the same two ends."
)
def scale_not_widened(x, bits):
    low, high = _ends(bits)
    smallest, _ = _range(x)
    scale, _ = _scale_and_place(x.min().item(), x.max().item(), bits)
    return _write(x, bits, scale, min(max(round(low - smallest / scale), low), high))


@mutant(
    "the scale comes from the widened range, the zero-point still from the minimum, so it does not fit where all "
    "values are positive. Both must use the same two ends."
)
def zero_point_not_widened(x, bits):
    scale, _ = _scale_and_place(*_range(x), bits)
    return _write(x, bits, scale, round(_ends(bits)[0] - x.min().item() / scale))


@mutant(
    "the zero-point is not rounded. A fraction cannot be stored as a code, and without a code of its own zero does "
    "not come back as zero."
)
def zero_point_as_a_fraction(x, bits):
    return _write(x, bits, *_scale_and_place(*_range(x), bits))


@mutant(
    "the minimum is subtracted and added again, as a float. That is another format: it stores an offset instead of a "
    "zero-point, and zero does not come back as zero."
)
def offset_by_the_minimum(x, bits):
    low, high = _ends(bits)
    smallest = x.min().item()
    scale, _ = _scale_and_place(smallest, x.max().item(), bits)
    codes = torch.round((x - smallest) / scale + low).clamp(low, high)
    return scale * (codes - low) + smallest, low


@mutant(
    "the mean is subtracted first and added at the end. That can be a good idea, but it is another format: the mean "
    "must be stored as well, and zero does not come back as zero."
)
def mean_subtracted(x, bits):
    values, zero = repaired(x - x.mean(), bits)
    return values + x.mean(), zero


@mutant(
    "the zero-point is given up: a symmetric grid with the zero-point 0. On one-sided data half of the codes are "
    "never used and the step is twice as large."
)
def symmetric_instead(x, bits):
    scale = x.abs().max().item() / (2 ** (bits - 1) - 1) or 1.0
    return _write(x, bits, scale, 0)


@mutant(
    "the zero-point is always the first code. That is right for positive data only; of anything below zero nothing is "
    "left."
)
def zero_point_always_first(x, bits):
    scale, _ = _scale_and_place(*_range(x), bits)
    return _write(x, bits, scale, _ends(bits)[0])


@mutant(
    "the codes go from 0 to 2**bits - 1, as in linear.zero_point. Here they are signed, so the zero-point is smaller "
    "by 2**(bits-1)."
)
def unsigned_codes(x, bits):
    values, zero = repaired(x, bits)
    return values, zero + 2 ** (bits - 1)


@mutant("x comes back as it was: nothing is quantized. Values must lie on the grid of the codes.")
def nothing_quantized(x, bits):
    return x.clone(), repaired(x, bits)[1]


@mutant("the codes are cut off instead of rounded: the error goes up to a whole step.")
def truncates(x, bits):
    scale, place = _scale_and_place(*_range(x), bits)
    zero = round(place)
    return scale * (torch.trunc(x / scale + zero).clamp(*_ends(bits)) - zero), zero


@mutant(
    "the codes are not clamped. Where the range ends halfway between two codes, rounding gives a code past the last "
    "one, which the bits cannot hold."
)
def codes_not_clamped(x, bits):
    scale, place = _scale_and_place(*_range(x), bits)
    zero = round(place)
    return scale * (torch.round(x / scale + zero) - zero), zero


@mutant("the argument bits is not used; every tensor gets 8 bits.")
def eight_bits_always(x, bits):
    return repaired(x, 8)


@mutant("the codes come back. Return the values that they stand for: scale * (codes - zero).")
def codes_instead_of_values(x, bits):
    scale, _ = _scale_and_place(*_range(x), bits)
    values, zero = repaired(x, bits)
    return torch.round(values / scale) + zero, zero


@mutant(
    "a tensor of zeros gets the scale 0, and 0 / 0 is NaN, which no integer can hold. Give such a tensor any other "
    "scale."
)
def zeros_divide(x, bits):
    low, high = _ends(bits)
    smallest, largest = x.min().clamp(max=0), x.max().clamp(min=0)
    scale = (largest - smallest) / (high - low)
    zero = int(torch.round(low - smallest / scale))
    return _write(x, bits, scale, zero)


def widened_with_a_zero(x, bits):
    """Right: a zero is appended to measure the range; the clip stays and does nothing."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    with_zero = torch.cat([x.flatten(), torch.zeros(1)])
    scale = (with_zero.max() - with_zero.min()) / (high - low)
    if scale == 0:
        return torch.zeros_like(x), torch.tensor(0)
    zero = torch.round(low - with_zero.min() / scale).clamp(low, high)
    codes = torch.round(x / scale + zero).clamp(low, high)
    return scale * (codes - zero), zero.to(torch.int8)


def only_the_scale_is_widened(x, bits):
    """Right, though it does not look so: with the wide scale, the clip puts a zero-point that does not fit in place."""
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    array = x.double().numpy()
    scale = (max(array.max(), 0) - min(array.min(), 0)) / (high - low) or 1.0
    zero = min(max(round(low - array.min() / scale), low), high)
    codes = (array / scale).round() + zero
    return (scale * (codes.clip(low, high) - zero)).astype("float32"), zero


def with_loops_and_unsigned_codes(x, bits):
    """Right, by a loop over Python's floats: codes from 0, ties up, shifted to signed ones at the end."""
    values = x.flatten().tolist()
    smallest, largest = min(0.0, *values), max(0.0, *values)
    scale = (largest - smallest) / (2**bits - 1) if largest > smallest else 1.0
    zero = int(-smallest / scale + 0.5)
    codes = [min(max(int(value / scale + zero + 0.5), 0), 2**bits - 1) for value in values]
    back = torch.tensor([(code - zero) * scale for code in codes]).reshape(x.shape)
    return back, zero - 2 ** (bits - 1)


QUESTION = Question(
    id="linear.clipped_zero_point",
    title="Find the bug: the clipped zero-point",
    reference=repaired,
    cases=cases,
    properties=(
        returns_values_and_zero,
        values_are_float32,
        zero_is_a_code,
        half_a_step,
        zero_is_where_the_range_puts_it,
        values_are_on_the_grid,
    ),
    mutants=(
        the_bug,
        clip_removed,
        positive_data_only,
        scale_not_widened,
        zero_point_not_widened,
        zero_point_as_a_fraction,
        offset_by_the_minimum,
        mean_subtracted,
        symmetric_instead,
        zero_point_always_first,
        unsigned_codes,
        nothing_quantized,
        truncates,
        codes_not_clamped,
        eight_bits_always,
        codes_instead_of_values,
        zeros_divide,
    ),
    alternatives=(widened_with_a_zero, only_the_scale_is_widened, with_loops_and_unsigned_codes),
    hints=(
        "Print the zero-point of the first tensor before and after the clamp. How many steps does the clamp move the "
        "grid, and how far is that in values?",
        "The clamp of the zero-point is the symptom. Zero has no code because the range does not contain it. Which two "
        "ends would always contain zero?",
        "smallest = min(x.min().item(), 0.0), largest = max(x.max().item(), 0.0); use these two in the scale and in "
        "the zero-point. Then the zero-point fits by itself. Give zeros the scale 1.0.",
    ),
    explanation=(
        "From 1 to 6 a step is 5 / 255, and zero lies 51 steps below the first code. Its code would be -179; clipped "
        "to -128, the grid covers 0 to 5, and 6 comes back as 5. For the gains of a norm the grid ends at 0.4, below "
        "all of them. With the range widened to include zero the zero-point lies between the first and the last code "
        "by itself. The step grows, from 5 / 255 to 6 / 255 here, and the bound of half a step holds again. The bug "
        "lives long because weights that straddle zero never show it, and an average error hardly does: test the "
        "largest error, on one-sided data."
    ),
)
