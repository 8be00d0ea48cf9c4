"""linear.clamp: codes for a given scale, where some values lie beyond the grid and must saturate."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .symmetric import codes_fit, largest_code, write


def round_to_grid(x, scale, bits):
    """Round values to the codes of a given grid; what lies beyond it gets its last code.

    x: float32, any shape; may hold inf and -inf, but no NaN. It stays as it is.
    scale: a positive float.
    bits: 2 to 8.

    Returns codes: int8, shaped like x, from -qmax to qmax with qmax = 2**(bits-1) - 1.
    """
    qmax = 2 ** (bits - 1) - 1
    return torch.round(x / scale).clamp(-qmax, qmax).to(torch.int8)


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    def between(low: float, high: float) -> float:
        return low + (high - low) * torch.rand(1, generator=random).item()

    unit = 2.0 ** (seed % 5 - 2)
    halves = torch.tensor([0.5, 1.5, -2.5, 3.5, -6.5, 6.5, 7.5, -7.5]) * unit
    ends = torch.tensor([7.0, 8.0, 9.0, -7.0, -8.0, -9.0, 0.0]) * unit
    beyond_int32 = torch.tensor([3e9, -3e9, 5e9, 1e30, -1e30, 2.0, -3.0])
    return [
        Case("every value is on the grid, 8 bits", (normal(33).clamp(-3, 3), between(0.025, 0.03), 8)),
        Case("a few values lie beyond the grid, 8 bits", (normal(65) * 2, between(0.02, 0.03), 8)),
        Case("a matrix, 4 bits, half of it beyond the grid", (normal(5, 7) * 5, between(0.3, 0.5), 4)),
        Case("3 bits", (normal(40) * 3, between(0.5, 0.7), 3)),
        Case("2 bits", (normal(19), between(0.5, 0.9), 2)),
        Case("values at the ends of the grid and one code past them", (ends, unit, 4)),
        Case("values halfway between two codes; either is right", (halves, unit, 4)),
        Case("infinities", (torch.tensor([float("inf"), 1.0, -float("inf"), -0.6, 0.0]), between(0.2, 0.3), 4)),
        Case("values that no 32-bit integer can hold", (beyond_int32, 1.0, 8)),
        Case("a tiny scale", (normal(21) * 1e-6, between(1e-8, 2e-8), 8)),
        Case("nothing but zeros", (torch.zeros(2, 3), between(0.5, 2.0), 4)),
    ]


def codes_are_int8(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got, "codes", torch.int8, case.args[0].shape)


def codes_are_nearest_or_last(case: Case, got: Any, expected: Any) -> Finding | None:
    x, scale, bits = case.args
    return codes_fit(got, x, torch.tensor(scale, dtype=torch.float64), bits)


def _wrap(steps: Any) -> Any:
    """Whole numbers, held in floats, as int8, with the bits above the eighth cut off; the same on every processor."""
    return steps.clamp(-(2.0**40), 2.0**40).to(torch.int64).to(torch.int8)


@mutant(
    "nothing keeps the codes on the grid, so int8 wraps around: 130 becomes -126, a large value turns into a large "
    "one of the other sign. Clamp to -qmax and qmax."
)
def missing_clamp(x, scale, bits):
    return _wrap(torch.round(x / scale))


@mutant(
    "the codes are clamped after they became int8, when they have wrapped around already. Clamp while they are "
    "floats, then convert."
)
def clamps_after_int8(x, scale, bits):
    qmax = largest_code(bits)
    return _wrap(torch.round(x / scale)).clamp(-qmax, qmax)


@mutant(
    "the codes become integers before they are clamped. What does not fit into the integer, infinity for one, can "
    "turn into its smallest number and then gets the code at the wrong end. Clamp while they are floats, then convert."
)
def clamps_after_int32(x, scale, bits):
    qmax = largest_code(bits)
    steps = torch.round(x / scale)
    # What an x86 processor makes of floats that int32 cannot hold; others may saturate.
    steps = torch.where(steps.abs() < 2**31, steps, -(2.0**31))
    return steps.to(torch.int32).clamp(-qmax, qmax).to(torch.int8)


@mutant(
    "the smallest code is -2**(bits-1). int8 has it, the symmetric grid does not: it has as many codes below zero as "
    "above, from -qmax to qmax."
)
def one_code_too_many(x, scale, bits):
    half = 2 ** (bits - 1)
    return torch.round(x / scale).clamp(-half, half - 1).to(torch.int8)


@mutant(
    "the codes are clamped to what int8 can hold, -128 to 127, whatever bits is. int8 is only where the codes lie for "
    "now: with 4 bits they go from -7 to 7."
)
def clamps_to_int8(x, scale, bits):
    return torch.round(x / scale).clamp(-128, 127).to(torch.int8)


@mutant("qmax is 2**bits - 1, as if no code were negative. One bit goes to the sign: the last code is 2**(bits-1) - 1.")
def sign_bit_forgotten(x, scale, bits):
    qmax = 2**bits - 1
    return _wrap(torch.round(x / scale).clamp(-qmax, qmax))


@mutant("the codes are clamped to 0 and 2**bits - 1: unsigned, so that every negative value becomes 0.")
def clamps_to_unsigned(x, scale, bits):
    return _wrap(torch.round(x / scale).clamp(0, 2**bits - 1))


@mutant(
    "qmax limits the values instead of the codes. Clamp after the division by the scale, or clamp the values to "
    "-qmax * scale and qmax * scale."
)
def clamps_the_values(x, scale, bits):
    qmax = largest_code(bits)
    return _wrap(torch.round(x.clamp(-qmax, qmax) / scale))


@mutant("the codes are cut off instead of rounded: the error goes up to a whole step.")
def truncates(x, scale, bits):
    qmax = largest_code(bits)
    return (x / scale).clamp(-qmax, qmax).to(torch.int8)


@mutant(
    "the scale is computed from x again, so that nothing lies beyond the grid. The scale is given: calibration chose "
    "it, and stored codes mean nothing without it."
)
def scale_of_its_own(x, scale, bits):
    steps = x / (x.abs().max() / largest_code(bits))
    return write(torch.nan_to_num(steps), 1.0, bits)


@mutant("the values are multiplied by the scale. A code is a number of steps: divide by the size of a step.")
def multiplies(x, scale, bits):
    return write(x, 1 / scale, bits)


@mutant(
    "values beyond the grid become 0. The largest values matter most: give them the last code, the nearest one that "
    "there is."
)
def drops_what_is_beyond(x, scale, bits):
    qmax = largest_code(bits)
    steps = torch.round(x / scale)
    return torch.where(steps.abs() <= qmax, steps, 0.0).to(torch.int8)


@mutant(
    "a small number is added to the scale. The scale is positive already, and beside a tiny one that number counts: "
    "all codes come out too small."
)
def epsilon_added(x, scale, bits):
    return write(x, scale + 1e-8, bits)


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def codes_left_wide(x, scale, bits):
    return write(x, scale, bits).float()


@mutant("infinities become 0. They lie beyond the grid like any large value, and get its last code.")
def infinities_become_zero(x, scale, bits):
    return write(torch.nan_to_num(x, posinf=0.0, neginf=0.0), scale, bits)


@mutant("only the upper end is clamped. What lies below the grid gets the code -qmax.")
def upper_end_only(x, scale, bits):
    qmax = 2 ** (bits - 1) - 1
    codes = torch.round(x / scale).clamp(max=qmax).clamp(min=-(2.0**62)).long()
    return codes.to(torch.int8)


@mutant("the values come back, codes * scale. Return the codes.")
def values_instead_of_codes(x, scale, bits):
    return write(x, scale, bits) * scale


@mutant(
    "the codes are right, but x is overwritten on the way: div_, round_ and clamp_ work in place. The caller still "
    "needs the values. Use the forms without the underscore."
)
def overwrites_x(x, scale, bits):
    qmax = largest_code(bits)
    return x.div_(scale).round_().clamp_(-qmax, qmax).to(torch.int8)


def clamps_first_with_loops(x, scale, bits):
    """Right, with Python's own floats: the values are limited first, then rounded, ties away from zero."""
    qmax = 2 ** (bits - 1) - 1
    codes = []
    for value in x.flatten().tolist():
        size = min(abs(value), qmax * scale)
        codes.append(int(size / scale + 0.5) * (1 if value > 0 else -1))
    return torch.tensor(codes, dtype=torch.int8).reshape(x.shape)


def counts_the_midpoints_below(x, scale, bits):
    """Right, without division or clamp: a code is the number of midpoints between codes that lie below the value."""
    qmax = 2 ** (bits - 1) - 1
    midpoints = (torch.arange(-qmax, qmax) + 0.5) * scale
    return (torch.bucketize(x, midpoints) - qmax).to(torch.int8)


def with_numpy(x, scale, bits):
    """Right, as arrays in float64."""
    qmax = 2 ** (bits - 1) - 1
    return (x.double().numpy() / scale).round().clip(-qmax, qmax).astype("int8")


QUESTION = Question(
    id="linear.clamp",
    title="Values beyond the grid",
    reference=round_to_grid,
    cases=cases,
    properties=(codes_are_int8, codes_are_nearest_or_last),
    mutants=(
        codes_left_wide,  # first: what is wrong in its types only looks like this one
        missing_clamp,
        clamps_after_int8,
        clamps_after_int32,
        infinities_become_zero,
        upper_end_only,
        one_code_too_many,
        clamps_to_int8,
        sign_bit_forgotten,
        clamps_to_unsigned,
        clamps_the_values,
        truncates,
        scale_of_its_own,
        multiplies,
        drops_what_is_beyond,
        epsilon_added,
        values_instead_of_codes,
        overwrites_x,
    ),
    alternatives=(clamps_first_with_loops, counts_the_midpoints_below, with_numpy),
    hints=(
        "Three things happen to every value: it is counted in steps, it is kept on the grid, it becomes an integer. "
        "In which order is nothing lost?",
        "An int8 keeps the lowest eight bits of what it is given, so 130 becomes -126. The clamp must come before "
        "that, and its limits depend on bits: -qmax and qmax with qmax = 2**(bits - 1) - 1.",
        "torch.round(x / scale), then .clamp(-qmax, qmax), then .to(torch.int8).",
    ),
    explanation=(
        "With a scale from the data itself nothing can lie beyond the grid, so a missing clamp is never noticed. With "
        "a scale that was calibrated on other data, or made smaller on purpose to give most values a finer step, the "
        "clamp is what turns a large value into the largest code instead of one of the other sign. Do it while the "
        "numbers are floats: infinity and 3e9 are ordinary floats, but no int32, and what the conversion then makes "
        "of them depends on the processor."
    ),
)
