"""linear.per_channel: symmetric quantization of a weight matrix with one scale per output channel."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .symmetric import codes_fit, largest_code, scales_fit, write
from .symmetric import half_a_step as within_half_a_step


def per_channel_quantize(w, bits):
    """Quantize a weight matrix symmetrically, with one scale for each row, an output channel.

    w: float32 (out, in).
    bits: 2 to 8.

    Returns (codes, scales):
    codes: int8 (out, in), from -qmax to qmax with qmax = 2**(bits-1) - 1.
    scales: float32 (out, 1), the largest magnitude of each row divided by qmax; it may
        be as small as 1e-30. Any positive number for a row of zeros.

    codes * scales is w, to half a step of each row.
    """
    qmax = 2 ** (bits - 1) - 1
    scales = w.abs().amax(dim=1, keepdim=True) / qmax  # (out, 1)
    scales[scales == 0] = 1.0
    codes = torch.round(w / scales).clamp(-qmax, qmax).to(torch.int8)
    return codes, scales


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    sizes = torch.tensor([[0.01], [3.0], [0.2], [40.0]])
    outlier = normal(3, 12)
    outlier[1, 5] = -30.0
    with_zeros = normal(4, 6)
    with_zeros[2] = 0.0
    with_tiny = normal(3, 10)
    with_tiny[1] *= 1e-13
    halves = torch.tensor([[7.0, 0.5, -1.5, 2.5, -3.5], [-14.0, 1.0, 3.0, -5.0, 7.0]]) * 2.0 ** (seed % 5 - 2)
    return [
        Case("more columns than rows, 8 bits", (normal(5, 7), 8)),
        Case("rows of very different sizes, 4 bits", (normal(4, 16) * sizes, 4)),
        Case("a square matrix, 4 bits", (normal(6, 6), 4)),
        Case("more rows than columns, 3 bits", (normal(9, 4), 3)),
        Case("one large negative weight", (outlier, 8)),
        Case("2 bits", (normal(3, 11), 2)),
        Case("values halfway between two codes; either is right", (halves, 4)),
        Case("a row of zeros", (with_zeros, 4)),
        Case("a row of tiny weights", (with_tiny, 8)),
        Case("a single row", (normal(1, 9), 8)),
        Case("a single column", (normal(4, 1), 4)),
        Case("nothing but zeros", (torch.zeros(2, 3), 8)),
    ]


def _steps(case: Case) -> torch.Tensor:
    """The step that each row asks for, (out, 1); 0 for a row of zeros."""
    w, bits = case.args
    return w.double().abs().amax(dim=1, keepdim=True) / largest_code(bits)


def returns_codes_and_scales(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.parts(got, "codes", "scales")


def codes_are_int8(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got[0], "codes", torch.int8, case.args[0].shape)


def scales_fit_the_rows(case: Case, got: Any, expected: Any) -> Finding | None:
    return scales_fit(got[1], _steps(case))


def codes_are_nearest(case: Case, got: Any, expected: Any) -> Finding | None:
    w, bits = case.args
    return codes_fit(got[0], w, _steps(case), bits)


def half_a_step(case: Case, got: Any, expected: Any) -> Finding | None:
    return within_half_a_step(got[0], got[1], case.args[0], _steps(case))


def _scales(w: Any, bits: int) -> Any:
    scales = w.abs().amax(dim=1, keepdim=True) / largest_code(bits)
    return torch.where(scales > 0, scales, 1.0)


@mutant(
    "there is a scale for each column. An output channel of a weight (out, in) is a row: reduce over dim=1, the "
    "inputs. A scale per row can be applied after the sum over the inputs, a scale per column cannot."
)
def one_scale_per_column(w, bits):
    scales = w.abs().amax(dim=0, keepdim=True) / largest_code(bits)
    scales = torch.where(scales > 0, scales, 1.0)
    return write(w, scales, bits), scales


@mutant(
    "all rows have the same scale, that of the largest weight in the matrix. Rows of small weights lose most of their "
    "codes. Take the maximum within each row."
)
def one_scale_for_all(w, bits):
    scales = (w.abs().max() / largest_code(bits)).expand(w.shape[0], 1)
    scales = torch.where(scales > 0, scales, 1.0)
    return write(w, scales, bits), scales


@mutant(
    "the scales lost their second dimension. (out,) lines up with the columns: codes * scales fails or, for a square "
    "matrix, is wrong without a word. Keep (out, 1), by keepdim=True."
)
def scales_without_the_second_dimension(w, bits):
    scales = _scales(w, bits)
    return write(w, scales, bits), scales[:, 0]


@mutant(
    "w is divided by scales of shape (out,), which line up with the columns. That fails, or, for a square matrix, "
    "divides every column by the scale of a row. Keep (out, 1), by keepdim=True."
)
def divides_the_columns(w, bits):
    scales = _scales(w, bits)[:, 0]
    return write(w, scales, bits), scales[:, None]


@mutant(
    "a row of zeros gets the scale 0, by which nobody can divide: 0 / 0 is NaN. One such row can turn the output of a "
    "whole model into NaN. Give it any other scale."
)
def zero_rows_divide(w, bits):
    scales = w.abs().amax(dim=1, keepdim=True) / largest_code(bits)
    return write(torch.nan_to_num(w / scales), 1.0, bits), scales


@mutant(
    "a small number keeps the scales from 0, added to them or as their lower limit. In a row of tiny weights that "
    "number is all, and every code becomes 0. Change only the scales that are 0."
)
def epsilon_added(w, bits):
    scales = w.abs().amax(dim=1, keepdim=True) / largest_code(bits) + 1e-8
    return write(w, scales, bits), scales


@mutant(
    "the scales come from the largest value of a row, not from its largest magnitude. A large negative weight is then "
    "off the grid. Take abs() first."
)
def without_abs(w, bits):
    scales = w.amax(dim=1, keepdim=True) / largest_code(bits)
    scales = torch.where(scales == 0, 1.0, scales)
    return write(w, scales, bits), scales


@mutant(
    "the scales span the range from min to max of a row, which needs a zero-point as well. A symmetric grid reaches "
    "the largest magnitude on both sides."
)
def range_of_min_and_max(w, bits):
    scales = (w.amax(dim=1, keepdim=True) - w.amin(dim=1, keepdim=True)) / (2**bits - 1)
    scales = torch.where(scales > 0, scales, 1.0)
    return write(w, scales, bits), scales


@mutant(
    "the largest magnitude is divided by 2**(bits-1), a code that does not exist on the positive side. Divide by "
    "qmax = 2**(bits-1) - 1."
)
def off_by_one_qmax(w, bits):
    half = 2 ** (bits - 1)
    scales = w.abs().amax(dim=1, keepdim=True) / half
    scales = torch.where(scales > 0, scales, 1.0)
    return torch.round(w / scales).clamp(-half, half - 1).to(torch.int8), scales


@mutant("the codes are cut off instead of rounded: the error goes up to a whole step.")
def truncates(w, bits):
    scales = _scales(w, bits)
    return (w / scales).to(torch.int8), scales


@mutant("the argument bits is not used; every matrix gets 8 bits.")
def eight_bits_always(w, bits):
    return per_channel_quantize(w, 8)


@mutant(
    "the scales are held in float16, which has 11 bits only, and makes 0 of tiny ones. Checkpoints do that to save "
    "space; here they are float32."
)
def scales_in_half(w, bits):
    scales = _scales(w, bits)
    return write(w, scales, bits), scales.half()


@mutant(
    "the second value is qmax / max|w| of each row, by which you multiply to get codes. What is stored is its inverse, "
    "the size of a step."
)
def scales_inverted(w, bits):
    scales = _scales(w, bits)
    return write(w, scales, bits), 1 / scales


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def codes_left_wide(w, bits):
    scales = _scales(w, bits)
    return write(w, scales, bits).float(), scales


@mutant("the first value is codes * scales, the weights again. Return the codes themselves: they are what is stored.")
def weights_instead_of_codes(w, bits):
    scales = _scales(w, bits)
    return write(w, scales, bits) * scales, scales


def row_by_row(w, bits):
    """Right, by loops over Python's own floats, and with ties away from zero."""
    qmax = 2 ** (bits - 1) - 1
    codes, scales = [], []
    for row in w.tolist():
        scale = max(abs(value) for value in row) / qmax or 1.0
        codes.append([int(abs(value) / scale + 0.5) * (1 if value > 0 else -1) for value in row])
        scales.append([scale])
    return torch.tensor(codes, dtype=torch.int8), torch.tensor(scales)


def transposed(w, bits):
    """Right, with the output channels along the last axis, and turned back at the end."""
    qmax = 2 ** (bits - 1) - 1
    columns = w.T.contiguous()  # (in, out)
    largest = torch.maximum(columns.amax(0), -columns.amin(0))
    scales = torch.where(largest == 0, qmax, largest) / qmax
    return torch.round(columns / scales).to(torch.int8).T, scales.unsqueeze(1)


def with_numpy(w, bits):
    """Right, as arrays in float64, with the largest magnitude as a norm."""
    import numpy

    array = w.double().numpy()
    scales = numpy.linalg.norm(array, ord=numpy.inf, axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
    scales[scales == 0] = 1e-3
    return (array / scales).round().astype("int8"), scales.astype("float32")


QUESTION = Question(
    id="linear.per_channel",
    title="One scale per output channel",
    reference=per_channel_quantize,
    cases=cases,
    properties=(
        returns_codes_and_scales,
        codes_are_int8,
        scales_fit_the_rows,
        codes_are_nearest,
        half_a_step,
    ),
    mutants=(
        codes_left_wide,  # first: what is wrong in its types only looks like this one
        one_scale_per_column,
        one_scale_for_all,
        scales_without_the_second_dimension,
        divides_the_columns,
        zero_rows_divide,
        epsilon_added,
        scales_in_half,
        without_abs,
        range_of_min_and_max,
        off_by_one_qmax,
        truncates,
        eight_bits_always,
        scales_inverted,
        weights_instead_of_codes,
    ),
    alternatives=(row_by_row, transposed, with_numpy),
    hints=(
        "It is linear.absmax for every row by itself. Along which axis do you take the maximum, and which shape must "
        "the scales have so that codes * scales does the right thing?",
        "w.abs().amax(dim=1, keepdim=True) has the shape (out, 1): one number per row, ready to divide w. Then look at "
        "rows of zeros.",
        "scales = w.abs().amax(dim=1, keepdim=True) / qmax; set those that are 0 to 1.0; then torch.round(w / scales), "
        "clamp to -qmax and qmax, and convert to torch.int8.",
    ),
    explanation=(
        "Every row has its own ruler, so one large weight makes only its own row coarse. The axis is not a matter of "
        "taste: y = x @ w.T sums over the inputs, so a scale per output channel can be multiplied in once, after an "
        "integer sum, while a scale per input would have to be inside the sum. keepdim=True is what makes w / scales "
        "and codes * scales line up with the rows. A square matrix hides that mistake: shape (out,) then divides the "
        "columns, and no error is raised."
    ),
)
