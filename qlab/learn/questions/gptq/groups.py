"""gptq.groups: the loop over the columns with one scale per group, taken from the weights as they then are."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .layer import (
    close,
    correlated,
    feed_forward,
    follow_the_loop,
    largest_code,
    loop,
    nearest,
    normal,
    replay,
    unit,
    upper_factor,
)

# The example of the card: three inputs in two groups, one row, 3 bits.
CARD_U = torch.tensor([[0.5, 0.25, -0.25], [0.0, 0.5, 0.25], [0.0, 0.0, 0.5]], dtype=torch.float64)
CARD_W = torch.tensor([[0.2, 0.9, 0.675]], dtype=torch.float64)


def gptq_groups(w, u, bits, group_size):
    """Quantize a weight matrix with GPTQ, with one scale per group of weights in a row.

    w: float64 (out, in). It stays as it is.
    u: float64 (in, in), the upper triangular factor: u.T @ u is the inverse Hessian.
    bits: 2 to 8.
    group_size: at least 1. Groups are cut from the left; the last one may be short.

    Returns (codes, scales):
    codes: int8 (out, in), from -qmax to qmax with qmax = 2**(bits-1) - 1.
    scales: float64 (out, groups). When the loop comes to the first column of a group,
        and before that column is quantized: the largest magnitude in the group, of the
        weights as they are then, divided by qmax. Any positive number for zeros.

    Columns are quantized from the left to the right. Each code is a nearest one to its
    weight as it then is, after the columns before it have spread their errors.
    """
    qmax = 2 ** (bits - 1) - 1
    w, codes, scales = w.clone(), torch.zeros(w.shape, dtype=torch.int8), []
    for j in range(w.shape[1]):
        if j % group_size == 0:
            scale = w[:, j : j + group_size].abs().amax(dim=1) / qmax  # (out,)
            scale[scale == 0] = 1.0
            scales.append(scale)
        code = torch.round(w[:, j] / scale).clamp(-qmax, qmax)  # (out,)
        error = (w[:, j] - code * scale) / u[j, j]
        w[:, j + 1 :] -= error[:, None] * u[j, j + 1 :]
        codes[:, j] = code
    return codes, torch.stack(scales, dim=1)


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def case(name: str, rows: int, columns: int, bits: int, group_size: int, noise: float = 0.3) -> Case:
        w = 0.02 * normal(random, rows, columns)
        return Case(name, (w, upper_factor(correlated(random, columns, noise)), bits, group_size))

    uneven = 0.02 * normal(random, 5, 6) * torch.tensor([1.0, 30.0, 5.0]).repeat_interleave(2)
    zeros = 0.02 * normal(random, 4, 6)
    zeros[1] = 0.0
    return [
        Case("the example of the card, in any unit", (unit(seed) * CARD_W, CARD_U, 3, 2)),
        case("groups that fit, 4 bits, a square matrix", 8, 8, 4, 4),
        case("inputs that hardly differ, 3 bits", 7, 6, 3, 3, noise=0.1),
        case("2 bits, short groups", 8, 7, 2, 2),
        case("a short last group", 7, 7, 4, 4),
        case("a last group of one weight, 8 bits", 6, 7, 8, 3),
        case("a group larger than a row", 5, 6, 4, 16),
        case("a group for each weight", 4, 5, 4, 1),
        Case("groups of very different sizes", (uneven, upper_factor(correlated(random, 6)), 4, 2)),
        Case("a row of zeros", (zeros, upper_factor(correlated(random, 6)), 4, 3)),
        case("a single row", 1, 9, 3, 4),
    ]


def _replay(case: Case, codes: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The places of the weights in steps, (out, in), and the scales that the groups ask for, (out, groups)."""
    w, u, bits, group_size = case.args
    places, steps = replay(w, u, codes, _steps_now(bits, group_size))
    return places, steps[:, ::group_size]


def _steps_now(bits: int, group_size: int) -> Any:
    """The steps of a column, for `replay` and `loop`: measured at the first column of each group; 0 for zeros."""
    kept = {}

    def step(j: int, now: Any) -> Any:
        if j % group_size == 0:
            kept["scale"] = now[:, j : j + group_size].abs().amax(dim=1) / largest_code(bits)
        return kept["scale"]

    return step


def returns_codes_and_scales(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.parts(got, "codes", "scales")


def codes_are_int8(case: Case, got: Any, expected: Any) -> Finding | None:
    w, _, bits, _ = case.args
    qmax = largest_code(bits)
    return p.tensor(got[0], "codes", torch.int8, w.shape) or p.codes_between(got[0], "codes", -qmax, qmax)


def scales_fit_the_weights_as_they_are(case: Case, got: Any, expected: Any) -> Finding | None:
    exact = _replay(case, got[0])[1]
    if finding := close(got[1], "scales", exact, float("inf")):
        return finding
    if not bool((got[1] > 0).all()):
        index = tuple((~(got[1] > 0)).nonzero()[0].tolist())
        return Finding("scales: not all of them are positive", index, "a positive number", f"{got[1][index].item():g}")
    sizes = torch.where(exact > 0, exact, torch.inf)  # any scale represents zeros
    return close(got[1], "scales", exact, 1e-6, sizes)


def codes_follow_the_loop(case: Case, got: Any, expected: Any) -> Finding | None:
    return follow_the_loop(got[0], _replay(case, got[0])[0], case.args[2])


def _positive(scales: Any) -> Any:
    return torch.where(scales > 0, scales, 1.0)


def _largest(w: Any, group_size: int) -> Any:
    """(out, groups), the largest magnitudes of the groups of w."""
    return torch.stack([group.abs().amax(dim=1) for group in w.split(group_size, dim=1)], dim=1)


def _run(w: Any, u: Any, bits: int, group_size: int, step: Any = None, **parts: Any) -> Any:
    """A right answer, but for the parts that are given."""
    step = step or _steps_now(bits, group_size)
    codes, steps = loop(w, u, bits, lambda j, now: _positive(step(j, now)), **parts)
    return codes, steps[:, ::group_size]


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def codes_left_wide(w, u, bits, group_size):
    codes, scales = gptq_groups(w, u, bits, group_size)
    return codes.double(), scales


@mutant(
    "the scales come from the weights as they were before the loop. These are static groups, which exist but are not "
    "asked for here. When a group begins, its weights have moved: measure it when its first column comes."
)
def scales_from_before(w, u, bits, group_size):
    scales = _largest(w, group_size) / largest_code(bits)
    return _run(w, u, bits, group_size, lambda j, now: scales[:, j // group_size])


@mutant(
    "a new scale is measured for every column, and the group keeps only one of them. Measure where j % group_size is "
    "0, and keep that scale to the end of the group."
)
def measured_at_every_column(w, u, bits, group_size):
    def step(j, now):
        end = (j // group_size + 1) * group_size
        return now[:, j:end].abs().amax(dim=1) / largest_code(bits)

    return _run(w, u, bits, group_size, step)


@mutant(
    "the scale is measured over all columns that remain, w[:, j:]. Only the group shares it: w[:, j : j + group_size]."
)
def measured_to_the_end(w, u, bits, group_size):
    kept = {}

    def step(j, now):
        if j % group_size == 0:
            kept["scale"] = now[:, j:].abs().amax(dim=1) / largest_code(bits)
        return kept["scale"]

    return _run(w, u, bits, group_size, step)


@mutant("all groups of a row share one scale, that of the row. Every group has its own.")
def one_scale_per_row(w, u, bits, group_size):
    return _run(w, u, bits, group_size, lambda j, now: w.abs().amax(dim=1) / largest_code(bits))


@mutant("all groups keep the scale of the first one. Measure again where j % group_size is 0.")
def scale_of_the_first_group(w, u, bits, group_size):
    return _run(w, u, bits, group_size, lambda j, now: w[:, :group_size].abs().amax(dim=1) / largest_code(bits))


@mutant(
    "only the first column of a group is measured, w[:, j]. The scale must reach the largest magnitude of all its "
    "columns, w[:, j : j + group_size]."
)
def first_column_measured(w, u, bits, group_size):
    kept = {}

    def step(j, now):
        if j % group_size == 0:
            kept["scale"] = now[:, j].abs() / largest_code(bits)
        return kept["scale"]

    return _run(w, u, bits, group_size, step)


@mutant(
    "the group is measured one column late: after its first column was quantized, with the scale of the group before. "
    "Measure first, then quantize."
)
def measured_late(w, u, bits, group_size):
    qmax = largest_code(bits)
    w, codes, scales = w.clone(), torch.zeros_like(w), []
    scale = _positive(w[:, :group_size].abs().amax(dim=1) / qmax)
    for j in range(w.shape[1]):
        codes[:, j] = nearest(w[:, j] / scale, bits)
        feed_forward(w, u, j, w[:, j] - codes[:, j] * scale)
        if j % group_size == 0:
            scale = _positive(w[:, j : j + group_size].abs().amax(dim=1) / qmax)
            scales.append(scale)
    return codes.to(torch.int8), torch.stack(scales, dim=1)


@mutant("the scales of a short last group are missing. A row has in / group_size groups, rounded up.")
def short_group_without_scales(w, u, bits, group_size):
    codes, scales = gptq_groups(w, u, bits, group_size)
    return codes, scales[:, : w.shape[1] // group_size]


@mutant(
    "the short group at the end is joined to the group before it and shares its scale. It is measured when its own "
    "first column comes."
)
def short_group_joined(w, u, bits, group_size):
    kept, count = {}, max(w.shape[1] // group_size, 1)

    def step(j, now):
        if j % group_size == 0 and j // group_size < count:
            end = w.shape[1] if j // group_size == count - 1 else j + group_size
            kept["scale"] = now[:, j:end].abs().amax(dim=1) / largest_code(bits)
        return kept["scale"]

    codes, scales = _run(w, u, bits, group_size, step)
    return codes, scales[:, :count]


@mutant(
    "group_size is taken as the number of groups. It is the number of weights in a group; a row has in / group_size "
    "of them, rounded up."
)
def size_as_a_count(w, u, bits, group_size):
    return gptq_groups(w, u, bits, -(-w.shape[1] // group_size))


@mutant(
    "this is rounding to nearest with groups, and not GPTQ. Either no error is passed on, or codes and scales come "
    "from the weights as they were at first. Use w as it is now."
)
def nothing_passed_on(w, u, bits, group_size):
    return _run(w, u, bits, group_size, feed=lambda now, u, j, error: None)


@mutant(
    "errors stay inside their group. They move the groups behind it as well: that is why scales are measured when a "
    "group begins."
)
def nothing_behind_a_group(w, u, bits, group_size):
    def feed(now, u, j, error):
        later = (j // group_size + 1) * group_size
        now[:, j + 1 : later] -= (error / u[j, j])[:, None] * u[j, j + 1 : later]

    return _run(w, u, bits, group_size, feed=feed)


@mutant(
    "errors are passed on only when a group is done. Its own columns must hear of each other at once, column by column."
)
def nothing_inside_a_group(w, u, bits, group_size):
    def feed(now, u, j, error):
        later = (j // group_size + 1) * group_size
        now[:, later:] -= (error / u[j, j])[:, None] * u[j, later:]

    return _run(w, u, bits, group_size, feed=feed)


@mutant("the error is not divided by u[j, j], so the later columns move by a wrong amount.")
def not_divided(w, u, bits, group_size):
    return _run(w, u, bits, group_size, feed=lambda now, u, j, error: feed_forward(now, u, j, error * u[j, j]))


@mutant("the sign of the feedback is wrong: later columns move so that the errors add up. Subtract.")
def wrong_sign(w, u, bits, group_size):
    return _run(w, u, bits, group_size, feed=lambda now, u, j, error: feed_forward(now, u, j, -error))


@mutant(
    "the codes are not clamped. At first no weight lies beyond its grid, but weights go on moving after their group "
    "was measured, and some end past qmax."
)
def missing_clamp(w, u, bits, group_size):
    return _run(w, u, bits, group_size, write=lambda places, bits: torch.round(places))


@mutant(
    "the largest magnitude is divided by 2**(bits-1), a code that does not exist on the positive side. Divide by "
    "qmax = 2**(bits-1) - 1."
)
def off_by_one_qmax(w, u, bits, group_size):
    right = _steps_now(bits, group_size)
    return _run(w, u, bits, group_size, lambda j, now: right(j, now) * largest_code(bits) / 2 ** (bits - 1))


@mutant(
    "the largest magnitude is divided by qmax + 0.5. Some libraries do so, and let the largest weight be clamped. Here "
    "it has the code qmax: divide by 2**(bits-1) - 1."
)
def half_a_step_more(w, u, bits, group_size):
    right, qmax = _steps_now(bits, group_size), largest_code(bits)
    return _run(w, u, bits, group_size, lambda j, now: right(j, now) * qmax / (qmax + 0.5))


@mutant(
    "all rows share one scale for each group: the largest magnitude is taken over the rows as well. Every row has its "
    "own, so take it along the columns only: amax(dim=1)."
)
def one_scale_for_all_rows(w, u, bits, group_size):
    right = _steps_now(bits, group_size)
    return _run(w, u, bits, group_size, lambda j, now: right(j, now).amax().expand(len(w)))


@mutant("the scales come from the largest value of a group, and not from its largest magnitude. Take abs() first.")
def without_abs(w, u, bits, group_size):
    kept = {}

    def step(j, now):
        if j % group_size == 0:
            largest = now[:, j : j + group_size].amax(dim=1)
            kept["scale"] = torch.where(largest == 0, 1.0, largest) / largest_code(bits)
        return kept["scale"]

    codes, steps = loop(w, u, bits, step)
    return codes, steps[:, ::group_size]


@mutant(
    "abs() comes after the maximum: that is the magnitude of the largest value. In a group from -3 to 1 it is 1. Take "
    "abs() first, then amax."
)
def abs_after_the_maximum(w, u, bits, group_size):
    kept = {}

    def step(j, now):
        if j % group_size == 0:
            kept["scale"] = now[:, j : j + group_size].amax(dim=1).abs() / largest_code(bits)
        return kept["scale"]

    return _run(w, u, bits, group_size, step)


@mutant(
    "a group of zeros gets the scale 0, by which nobody can divide: 0 / 0 is NaN, and the feedback spreads it over the "
    "rest of the row. Give it any other scale."
)
def zeros_divide(w, u, bits, group_size):
    codes, steps = loop(w, u, bits, _steps_now(bits, group_size))
    return codes, steps[:, ::group_size]


@mutant("the scales are one for each column, (out, in). Keep one for each group: (out, groups).")
def scales_for_each_column(w, u, bits, group_size):
    codes, scales = gptq_groups(w, u, bits, group_size)
    return codes, scales.repeat_interleave(group_size, dim=1)[:, : w.shape[1]]


def group_by_group(w, u, bits, group_size):
    """Right, with a loop over groups around the loop over columns, and one product behind each group."""
    qmax = 2 ** (bits - 1) - 1
    rest, codes, scales = w.clone(), [], []
    for start in range(0, w.shape[1], group_size):
        end = min(start + group_size, w.shape[1])
        group, factor = rest[:, start:end], u[start:end, start:end]
        scale = group.abs().max(dim=1, keepdim=True).values.clamp(min=1e-30) / qmax  # (out, 1)
        errors = torch.zeros_like(group)
        for j in range(end - start):
            now = group[:, j : j + 1] - errors[:, :j] @ factor[:j, j : j + 1]
            code = torch.round(now / scale).clamp(-qmax, qmax)
            errors[:, j : j + 1] = (now - code * scale) / factor[j, j]
            codes.append(code.to(torch.int8))
        rest[:, end:] -= errors @ u[start:end, end:]
        scales.append(scale)
    return torch.cat(codes, dim=1), torch.cat(scales, dim=1)


def row_by_row(w, u, bits, group_size):
    """Right, by loops over Python's own floats, and with ties away from zero."""
    qmax = 2 ** (bits - 1) - 1
    factor, all_codes, all_scales = u.tolist(), [], []
    for row in w.tolist():
        codes, scales = [], []
        for j in range(len(row)):
            if j % group_size == 0:
                scales.append(max(abs(weight) for weight in row[j : j + group_size]) / qmax or 0.5)
            code = min(int(abs(row[j]) / scales[-1] + 0.5), qmax) * (1 if row[j] > 0 else -1)
            error = (row[j] - code * scales[-1]) / factor[j][j]
            for k in range(j + 1, len(row)):
                row[k] -= error * factor[j][k]
            codes.append(code)
        all_codes.append(codes)
        all_scales.append(scales)
    return torch.tensor(all_codes, dtype=torch.int8), torch.tensor(all_scales, dtype=torch.float64)


QUESTION = Question(
    id="gptq.groups",
    title="One scale per group, measured on the way",
    reference=gptq_groups,
    cases=cases,
    properties=(
        returns_codes_and_scales,
        codes_are_int8,
        scales_fit_the_weights_as_they_are,
        codes_follow_the_loop,
    ),
    mutants=(
        codes_left_wide,  # first: what is wrong in its types only looks like this one
        scales_from_before,
        measured_at_every_column,
        measured_to_the_end,
        one_scale_per_row,
        scale_of_the_first_group,
        first_column_measured,
        measured_late,
        short_group_without_scales,
        short_group_joined,
        size_as_a_count,
        nothing_passed_on,
        nothing_behind_a_group,
        nothing_inside_a_group,
        not_divided,
        wrong_sign,
        missing_clamp,
        off_by_one_qmax,
        half_a_step_more,
        one_scale_for_all_rows,
        without_abs,
        abs_after_the_maximum,
        zeros_divide,
        scales_for_each_column,
    ),
    alternatives=(group_by_group, row_by_row),
    hints=(
        "It is the loop of the question before, with one thing more to do at some of the columns. At which ones, and "
        "before or after the column is quantized?",
        "Where j % group_size is 0, measure w[:, j : j + group_size] as it is now: abs, the largest of each row, "
        "divided by qmax, and 1.0 where that is 0. Keep that scale until the next group begins, and collect it.",
        "if j % group_size == 0: scale = w[:, j : j + group_size].abs().amax(dim=1) / qmax; scale[scale == 0] = 1.0; "
        "scales.append(scale). At the end torch.stack(scales, dim=1).",
    ),
    explanation=(
        "The scale of a group is fixed when its first column comes. The weights of the group have moved by then, and "
        "the scale has to fit what will be rounded. After that they move on, so some pass the end of the grid and are "
        "clamped; the clamp's error is passed on like any other. On a layer of nano (down_proj of layer 2, 3 bits, "
        "groups of 128) the output error is 24.1 % rounded to nearest and 18.9 % with this loop. Scales from before "
        "the loop, static groups, do as well there, and with them the columns may be taken in any order while weight "
        "j still belongs to group j // group_size. With scales from the loop and another order, a group is a handful "
        "of columns from all over the row, and the checkpoint must carry an index, g_idx, that says which."
    ),
)
