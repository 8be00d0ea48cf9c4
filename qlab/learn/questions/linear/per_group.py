"""linear.per_group: symmetric quantization with one scale for each group of a row; the last group may be short."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .symmetric import codes_fit, largest_code, scales_fit, write
from .symmetric import half_a_step as within_half_a_step


def per_group_quantize(w, bits, group_size):
    """Quantize a weight matrix symmetrically, with one scale per group of weights in a row.

    w: float32 (out, in).
    bits: 2 to 8.
    group_size: at least 1; in need not be a multiple of it.

    A row is cut into groups of group_size weights, from the left. The last one may be
    short; a group_size larger than in gives one group. So there are
    groups = in / group_size, rounded up.

    Returns (codes, scales):
    codes: int8 (out, in), from -qmax to qmax with qmax = 2**(bits-1) - 1.
    scales: float32 (out, groups), the largest magnitude of each group divided by qmax;
        it may be as small as 1e-30. Any positive number for a group of zeros.

    Each code times the scale of its group is the weight, to half a step.
    """
    qmax = 2 ** (bits - 1) - 1
    rows, columns = w.shape
    padded = torch.nn.functional.pad(w, (0, -columns % group_size))  # zeros change no maximum of magnitudes
    groups = padded.reshape(rows, -1, group_size)  # (out, groups, group_size)
    scales = groups.abs().amax(dim=2, keepdim=True) / qmax  # (out, groups, 1)
    scales[scales == 0] = 1.0
    codes = torch.round(groups / scales).clamp(-qmax, qmax).to(torch.int8)
    return codes.reshape(rows, -1)[:, :columns], scales[:, :, 0]


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def weights(*shape: int) -> torch.Tensor:
        return 0.02 * torch.randn(*shape, generator=random)

    uneven = weights(3, 32) * torch.tensor([20.0, 100.0, 3.0, 300.0]).repeat_interleave(8)
    small_end = weights(3, 20)
    small_end[:, 16:] *= 0.3
    with_zeros = weights(4, 18)
    with_zeros[1, 8:16] = 0.0
    with_zeros[2, 16:] = 0.0
    with_tiny = weights(2, 16)
    with_tiny[1, :8] *= 1e-13
    return [
        Case("groups that fit, 4 bits", (weights(5, 32), 4, 8)),
        Case("groups of very different sizes, 8 bits", (uneven, 8, 8)),
        Case("a short last group, 4 bits", (weights(3, 21), 4, 8)),
        Case("a short last group of small weights", (small_end, 4, 8)),
        Case("a last group of one weight, 3 bits", (weights(4, 13), 3, 4)),
        Case("a square matrix", (weights(8, 8), 4, 4)),
        Case("rows that end inside a group, if groups ran on", (weights(4, 6), 8, 4)),
        Case("a group larger than a row", (weights(3, 5), 4, 16)),
        Case("one group is the row", (weights(2, 12), 8, 12)),
        Case("2 bits", (weights(6, 10), 2, 4)),
        Case("groups of zeros, the last one among them", (with_zeros, 4, 8)),
        Case("a group of tiny weights", (with_tiny, 8, 8)),
        Case("a group for each weight", (weights(2, 3), 4, 1)),
        Case("a single row", (weights(1, 11), 4, 4)),
    ]


def _steps(case: Case) -> torch.Tensor:
    """The step that each group asks for, (out, groups); 0 for a group of zeros."""
    w, bits, group_size = case.args
    largest = [group.double().abs().amax(dim=1) for group in w.split(group_size, dim=1)]
    return torch.stack(largest, dim=1) / largest_code(bits)


def _spread(scales: torch.Tensor, case: Case) -> torch.Tensor:
    """A number per group as one per weight, (out, in)."""
    w, _, group_size = case.args
    return scales.repeat_interleave(group_size, dim=1)[:, : w.shape[1]]


def returns_codes_and_scales(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.parts(got, "codes", "scales")


def codes_are_int8(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got[0], "codes", torch.int8, case.args[0].shape)


def scales_fit_the_groups(case: Case, got: Any, expected: Any) -> Finding | None:
    return scales_fit(got[1], _steps(case))


def codes_are_nearest(case: Case, got: Any, expected: Any) -> Finding | None:
    w, bits, _ = case.args
    return codes_fit(got[0], w, _spread(_steps(case), case), bits)


def half_a_step(case: Case, got: Any, expected: Any) -> Finding | None:
    return within_half_a_step(got[0], _spread(got[1], case), case.args[0], _spread(_steps(case), case))


def _positive(scales: Any) -> Any:
    return torch.where(scales > 0, scales, 1.0)


def _scales(w: Any, bits: int, group_size: int) -> Any:
    largest = torch.stack([group.abs().amax(dim=1) for group in w.split(group_size, dim=1)], dim=1)
    return _positive(largest / largest_code(bits))


def _each(scales: Any, w: Any, group_size: int) -> Any:
    return scales.repeat_interleave(group_size, dim=1)[:, : w.shape[1]]


@mutant(
    "the row is reshaped into groups as if it always were a multiple of group_size; a short last group raises an "
    "error. Fill the last group with zeros, or go through the row in slices."
)
def short_group_refused(w, bits, group_size):
    groups = w.reshape(w.shape[0], -1, group_size)
    scales = _positive(groups.abs().amax(dim=2, keepdim=True) / largest_code(bits))
    return write(groups, scales, bits).reshape(w.shape), scales[:, :, 0]


@mutant(
    "the short group at the end of a row is left out: in // group_size rounds down. Its weights need codes and a "
    "scale like all others."
)
def short_group_dropped(w, bits, group_size):
    whole = w[:, : w.shape[1] // group_size * group_size]
    groups = whole.reshape(w.shape[0], -1, group_size) if whole.numel() else whole.reshape(w.shape[0], 0, 1)
    scales = _positive(groups.abs().amax(dim=2, keepdim=True) / largest_code(bits))
    return write(groups, scales, bits).reshape(whole.shape), scales[:, :, 0]


@mutant(
    "the loop stops before the short group: range(in // group_size) rounds down, so the last weights keep the code 0 "
    "that they began with, and have no scale."
)
def short_group_left_at_zero(w, bits, group_size):
    codes, scales = short_group_dropped.answer(w, bits, group_size)
    return torch.nn.functional.pad(codes, (0, w.shape[1] - codes.shape[1])), scales


@mutant(
    "the short group at the end of a row is joined to the group before it and shares that scale. A row has "
    "in / group_size groups, rounded up, and the short one has a scale of its own."
)
def short_group_joined(w, bits, group_size):
    count = max(w.shape[1] // group_size, 1)
    index = (torch.arange(w.shape[1]) // group_size).clamp(max=count - 1)
    largest = torch.stack([w[:, index == group].abs().amax(dim=1) for group in range(count)], dim=1)
    scales = _positive(largest / largest_code(bits))
    return write(w, scales[:, index], bits), scales


@mutant(
    "the short group is filled up with ones, and they take part in the maximum. Fill it with zeros, which change no "
    "largest magnitude, or take the maximum before you fill."
)
def padded_with_ones(w, bits, group_size):
    columns = w.shape[1]
    codes, scales = per_group_quantize(
        torch.nn.functional.pad(w, (0, -columns % group_size), value=1.0), bits, group_size
    )
    return codes[:, :columns], scales


@mutant(
    "the columns that filled up the last group are still in the codes. Cut them off again: codes have the shape of w."
)
def padding_left_in(w, bits, group_size):
    return per_group_quantize(torch.nn.functional.pad(w, (0, -w.shape[1] % group_size)), bits, group_size)


@mutant(
    "the matrix is cut into groups as one long row, so they run on from the end of one row into the next. Every row "
    "is computed by itself and has groups of its own."
)
def groups_across_rows(w, bits, group_size):
    codes, scales = per_group_quantize(w.reshape(1, -1), bits, group_size)
    in_rows = scales.numel() % w.shape[0] == 0
    return codes.reshape(w.shape), scales.reshape(w.shape[0], -1) if in_rows else scales[0]


@mutant(
    "reshape(-1, group_size) forgets where a row ends: groups run on into the next row, or the shape does not fit at "
    "all. Fill up every row first, then reshape to (out, -1, group_size)."
)
def rows_forgotten(w, bits, group_size):
    groups = w.reshape(-1, group_size)
    scales = _positive(groups.abs().amax(dim=1, keepdim=True) / largest_code(bits))
    return write(groups, scales, bits).reshape(w.shape), scales.reshape(w.shape[0], -1)


@mutant(
    "the groups run down the columns. A group is a piece of one row of (out, in): weights of one output that meet "
    "neighboring inputs."
)
def groups_down_the_columns(w, bits, group_size):
    codes, scales = per_group_quantize(w.T, bits, group_size)
    return codes.T, scales.T


@mutant(
    "a group takes every n-th weight of the row instead of neighbors: the row is reshaped to (group_size, groups). "
    "Reshape to (groups, group_size)."
)
def groups_of_every_nth(w, bits, group_size):
    rows, columns = w.shape
    padded = torch.nn.functional.pad(w, (0, -columns % group_size))
    groups = padded.reshape(rows, group_size, -1)
    scales = _positive(groups.abs().amax(dim=1, keepdim=True) / largest_code(bits))
    return write(groups, scales, bits).reshape(rows, -1)[:, :columns], scales[:, 0]


@mutant(
    "each weight is divided by the scale of another group: repeat gives a, b, a, b where a, a, b, b is needed. "
    "Use repeat_interleave, or keep the groups as an axis of their own."
)
def scales_tiled(w, bits, group_size):
    scales = _scales(w, bits, group_size)
    return write(w, scales.repeat(1, group_size)[:, : w.shape[1]], bits), scales


@mutant(
    "the first weight of each group is divided by the scale of the group before: the borders are off by one. Weight j "
    "belongs to group j // group_size."
)
def borders_off_by_one(w, bits, group_size):
    scales = _scales(w, bits, group_size)
    index = (torch.arange(w.shape[1]) - 1).clamp(min=0) // group_size
    return write(w, scales[:, index], bits), scales


@mutant("all groups of a row have the scale of the whole row. Take the maximum within each group.")
def one_scale_per_row(w, bits, group_size):
    scales = _scales(w, bits, w.shape[1]).expand(-1, -(-w.shape[1] // group_size))
    return write(w, scales[:, :1], bits), scales


@mutant(
    "group_size is taken as the number of groups. It is the number of weights in a group; a row has in / group_size "
    "of them, rounded up."
)
def size_as_a_count(w, bits, group_size):
    return per_group_quantize(w, bits, -(-w.shape[1] // group_size))


@mutant(
    "the scales have a third dimension, (out, groups, 1), which keepdim=True left behind. Return (out, groups): one "
    "number per group."
)
def scales_with_a_third_dimension(w, bits, group_size):
    codes, scales = per_group_quantize(w, bits, group_size)
    return codes, scales[:, :, None]


@mutant("a group of zeros gets the scale 0, by which nobody can divide: 0 / 0 is NaN. Give it any other scale.")
def zero_groups_divide(w, bits, group_size):
    largest = torch.stack([group.abs().amax(dim=1) for group in w.split(group_size, dim=1)], dim=1)
    scales = largest / largest_code(bits)
    return write(torch.nan_to_num(w / _each(scales, w, group_size)), 1.0, bits), scales


@mutant(
    "a small number keeps the scales from 0, added to them or as their lower limit. In a group of tiny weights that "
    "number is all. Change only the scales that are 0."
)
def epsilon_added(w, bits, group_size):
    largest = torch.stack([group.abs().amax(dim=1) for group in w.split(group_size, dim=1)], dim=1)
    scales = largest / largest_code(bits) + 1e-8
    return write(w, _each(scales, w, group_size), bits), scales


@mutant(
    "the scales come from the largest value of a group, not from its largest magnitude. A large negative weight is "
    "then off the grid. Take abs() first."
)
def without_abs(w, bits, group_size):
    largest = torch.stack([group.amax(dim=1) for group in w.split(group_size, dim=1)], dim=1)
    scales = torch.where(largest == 0, 1.0, largest / largest_code(bits))
    return write(w, _each(scales, w, group_size), bits), scales


@mutant(
    "the largest magnitude is divided by 2**(bits-1), a code that does not exist on the positive side. Divide by "
    "qmax = 2**(bits-1) - 1."
)
def off_by_one_qmax(w, bits, group_size):
    half = 2 ** (bits - 1)
    largest = torch.stack([group.abs().amax(dim=1) for group in w.split(group_size, dim=1)], dim=1)
    scales = _positive(largest / half)
    steps = torch.round(w / _each(scales, w, group_size))
    return steps.clamp(-half, half - 1).to(torch.int8), scales


@mutant("the codes are cut off instead of rounded: the error goes up to a whole step.")
def truncates(w, bits, group_size):
    scales = _scales(w, bits, group_size)
    return (w / _each(scales, w, group_size)).to(torch.int8), scales


@mutant("the argument bits is not used; every matrix gets 4 bits.")
def four_bits_always(w, bits, group_size):
    return per_group_quantize(w, 4, group_size)


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def codes_left_wide(w, bits, group_size):
    codes, scales = per_group_quantize(w, bits, group_size)
    return codes.float(), scales


def slice_by_slice(w, bits, group_size):
    """Right, one group of all rows at a time; a slice ends by itself at the end of the row."""
    qmax = 2 ** (bits - 1) - 1
    codes, scales = [], []
    for start in range(0, w.shape[1], group_size):
        group = w[:, start : start + group_size]
        scale = group.abs().max(dim=1, keepdim=True).values.clamp(min=1e-30) / qmax
        codes.append(torch.round(group / scale).to(torch.int8))
        scales.append(scale)
    return torch.cat(codes, dim=1), torch.cat(scales, dim=1)


def weight_by_weight(w, bits, group_size):
    """Right, by loops over Python's own floats, and with ties away from zero."""
    qmax = 2 ** (bits - 1) - 1
    all_codes, all_scales = [], []
    for row in w.tolist():
        groups = [row[start : start + group_size] for start in range(0, len(row), group_size)]
        scales = [max(abs(value) for value in group) / qmax or 1.0 for group in groups]
        steps = [value / scales[j // group_size] for j, value in enumerate(row)]
        all_codes.append([int(abs(step) + 0.5) * (1 if step > 0 else -1) for step in steps])
        all_scales.append(scales)
    return torch.tensor(all_codes, dtype=torch.int8), torch.tensor(all_scales)


def by_the_index_of_the_group(w, bits, group_size):
    """Right, in float64 and without cutting: every weight carries the number of its group."""
    qmax = 2 ** (bits - 1) - 1
    index = torch.arange(w.shape[1]) // group_size  # (in,)
    largest = w.new_zeros(w.shape[0], int(index[-1]) + 1, dtype=torch.float64)
    largest.scatter_reduce_(1, index.expand_as(w), w.abs().double(), "amax")
    scales = torch.where(largest > 0, largest / qmax, 0.5)
    codes = torch.round(w.double() / scales[:, index])
    return codes.to(torch.int8), scales.float()


QUESTION = Question(
    id="linear.per_group",
    title="One scale per group, and a short last group",
    reference=per_group_quantize,
    cases=cases,
    properties=(
        returns_codes_and_scales,
        codes_are_int8,
        scales_fit_the_groups,
        codes_are_nearest,
        half_a_step,
    ),
    mutants=(
        codes_left_wide,  # first: what is wrong in its types only looks like this one
        short_group_refused,
        short_group_dropped,
        short_group_left_at_zero,
        short_group_joined,
        padded_with_ones,
        padding_left_in,
        groups_across_rows,
        rows_forgotten,
        groups_down_the_columns,
        groups_of_every_nth,
        scales_tiled,
        borders_off_by_one,
        one_scale_per_row,
        size_as_a_count,
        scales_with_a_third_dimension,
        zero_groups_divide,
        epsilon_added,
        without_abs,
        off_by_one_qmax,
        truncates,
        four_bits_always,
    ),
    alternatives=(slice_by_slice, weight_by_weight, by_the_index_of_the_group),
    hints=(
        "A row of 21 weights with groups of 8: how many groups, how many weights in the last one, and how many scales "
        "in the matrix? There are two ways to go: a loop over slices, or one reshape after filling the row up.",
        "w[:, start : start + group_size] ends by itself at the end of a row. If you prefer to fill up, "
        "torch.nn.functional.pad(w, (0, -in % group_size)) adds zeros on the right, which change no largest magnitude; "
        "then reshape to (out, groups, group_size).",
        "For start in range(0, w.shape[1], group_size): take the slice, scale = its abs().amax(dim=1, keepdim=True) / "
        "qmax, set those that are 0 to 1.0, codes as in linear.per_channel; join codes and scales with "
        "torch.cat(..., dim=1).",
    ),
    explanation=(
        "A group is a small row: the same maximum, the same rounding, with one more axis. Two things go wrong in "
        "practice. Where in is no multiple of group_size, the last group is short; it still has a scale, and what "
        "fills it up must not change that scale, which zeros never do. And every weight must meet the scale of its own "
        "group: with an axis for the groups, (out, groups, group_size), broadcasting sees to that. The price is "
        "16 / group_size bits per weight when scales are stored in 16 bits: 0.125 at 128, 0.5 at 32."
    ),
)
