"""gptq.quantize_layer: the loop over the columns, with given scales (Frantar et al. 2023, Algorithm 1)."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .layer import (
    CARD_FACTOR,
    CARD_WEIGHT,
    correlated,
    feed_forward,
    follow_the_loop,
    largest_code,
    loop,
    nearest,
    normal,
    replay,
    row_scales,
    unit,
    upper_factor,
)


def gptq_quantize(w, u, scales, bits):
    """Quantize a weight matrix symmetrically with GPTQ; the scales are given.

    w: float64 (out, in). It stays as it is.
    u: float64 (in, in), the upper triangular factor: u.T @ u is the inverse Hessian.
    scales: float64 (out, 1), positive: one step for each row. Some weights may lie
        beyond the grid.
    bits: 2 to 8.

    Returns codes: int8 (out, in), from -qmax to qmax with qmax = 2**(bits-1) - 1.

    Columns are quantized from the left to the right. Each code is a nearest one to its
    weight as it then is, after the columns before it have spread their errors.
    """
    qmax = 2 ** (bits - 1) - 1
    scale = scales[:, 0]  # (out,)
    w, codes = w.clone(), torch.zeros(w.shape, dtype=torch.int8)
    for j in range(w.shape[1]):
        code = torch.round(w[:, j] / scale).clamp(-qmax, qmax)  # (out,)
        error = (w[:, j] - code * scale) / u[j, j]
        w[:, j + 1 :] -= error[:, None] * u[j, j + 1 :]
        codes[:, j] = code
    return codes


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def case(name: str, rows: int, columns: int, bits: int, part: float = 1.0, noise: float = 0.3) -> Case:
        w = 0.02 * normal(random, rows, columns)
        return Case(name, (w, upper_factor(correlated(random, columns, noise)), part * row_scales(w, bits), bits))

    card = (unit(seed) * CARD_WEIGHT, CARD_FACTOR, torch.full((1, 1), unit(seed), dtype=torch.float64), 3)
    uneven = 0.02 * normal(random, 5, 7) * torch.tensor([[1.0], [30.0], [0.0], [0.01], [5.0]])
    alone = (torch.rand(5, generator=random, dtype=torch.float64) + 0.5).diag()
    w = 0.02 * normal(random, 6, 5)
    return [
        Case("the example of the card, in any unit", card),
        case("4 bits, a square matrix", 8, 8, 4),
        case("3 bits, inputs that hardly differ", 7, 8, 3, noise=0.1),
        case("2 bits", 8, 7, 2),
        case("8 bits, a single row", 1, 9, 8),
        Case(
            "rows of very different sizes, one of zeros",
            (uneven, upper_factor(correlated(random, 7)), row_scales(uneven, 4), 4),
        ),
        case("weights beyond the grid, 4 bits", 8, 7, 4, part=0.4),
        case("weights far beyond the grid, 8 bits", 4, 7, 8, part=0.2),
        Case("inputs that know nothing of each other", (w, alone, row_scales(w, 3), 3)),
        case("a single column", 5, 1, 4),
    ]


def codes_are_int8(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got, "codes", torch.int8, case.args[0].shape)


def codes_follow_the_loop(case: Case, got: Any, expected: Any) -> Finding | None:
    w, u, scales, bits = case.args
    places, _ = replay(w, u, got, lambda j, now: scales[:, 0])
    return follow_the_loop(got, places, bits)


def _codes(w: Any, u: Any, scales: Any, bits: int, **parts: Any) -> Any:
    return loop(w, u, bits, lambda j, now: scales[:, 0], **parts)[0]


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def codes_left_wide(w, u, scales, bits):
    return gptq_quantize(w, u, scales, bits).double()


@mutant(
    "every weight gets the code nearest to where it stood at first: this is rounding to nearest and not GPTQ. Either "
    "no error is passed on, or the codes are taken from a copy that does not move. Round w[:, j] as it is now."
)
def nothing_passed_on(w, u, scales, bits):
    return nearest(w / scales, bits).to(torch.int8)


@mutant("the sign of the feedback is wrong: later columns move so that the errors add up. Subtract.")
def wrong_sign(w, u, scales, bits):
    return _codes(w, u, scales, bits, feed=lambda now, u, j, error: feed_forward(now, u, j, -error))


@mutant("the error is not divided by u[j, j], so the later columns move by a wrong amount.")
def not_divided(w, u, scales, bits):
    return _codes(w, u, scales, bits, feed=lambda now, u, j, error: feed_forward(now, u, j, error * u[j, j]))


@mutant(
    "the error is divided by u[j, j] squared. That belongs to a row of the inverse Hessian; u is its factor: divide "
    "once."
)
def divided_twice(w, u, scales, bits):
    return _codes(w, u, scales, bits, feed=lambda now, u, j, error: feed_forward(now, u, j, error / u[j, j]))


@mutant(
    "the rows come from the inverse of the whole Hessian, as if the columns before j could still move. That is right "
    "for column 0 only. Use the rows of u."
)
def inverse_not_updated(w, u, scales, bits):
    return _codes(w, u.T @ u, scales, bits)


@mutant(
    "the rows come from the Hessian. It says which inputs move together; which weights make up for each other stands "
    "in the factor of its inverse, u."
)
def rows_of_the_hessian(w, u, scales, bits):
    return _codes(w, torch.linalg.inv(u.T @ u), scales, bits)


@mutant(
    "the error is measured against the weights as they were at first. Measure it against the weight that was rounded, "
    "w[:, j] as it is now: what came in from earlier columns is part of it."
)
def error_of_the_first_weights(w, u, scales, bits):
    def feed(now, u, j, error):
        feed_forward(now, u, j, error + w[:, j] - now[:, j])

    return _codes(w, u, scales, bits, feed=feed)


@mutant(
    "the error is measured in steps: w / scale - code. The later columns are weights: multiply the code by its scale, "
    "and take that from the weight."
)
def error_in_steps(w, u, scales, bits):
    def feed(now, u, j, error):
        feed_forward(now, u, j, error / scales[:, 0])

    return _codes(w, u, scales, bits, feed=feed)


@mutant(
    "the error is measured before the code is clamped. What was cut off at the end of the grid is the largest error of "
    "all, and it is not passed on."
)
def error_before_the_clamp(w, u, scales, bits):
    def feed(now, u, j, error):
        feed_forward(now, u, j, now[:, j] - torch.round(now[:, j] / scales[:, 0]) * scales[:, 0])

    return _codes(w, u, scales, bits, feed=feed)


@mutant(
    "nothing keeps the codes on the grid: they go past qmax, and past 127 int8 wraps around. Clamp before you convert."
)
def missing_clamp(w, u, scales, bits):
    return _codes(w, u, scales, bits, write=lambda places, bits: torch.round(places))


@mutant("the grid has -2**(bits-1) as well. A symmetric grid leaves that code unused: clamp to -qmax and qmax.")
def one_code_more(w, u, scales, bits):
    qmax = largest_code(bits)
    return _codes(w, u, scales, bits, write=lambda places, bits: torch.round(places).clamp(-qmax - 1, qmax))


@mutant(
    "the grid ends at 2**(bits-1) on both sides, one code too far: with 3 bits that is 4, and there is no such code. "
    "qmax is 2**(bits-1) - 1."
)
def qmax_one_too_large(w, u, scales, bits):
    qmax = largest_code(bits) + 1
    return _codes(w, u, scales, bits, write=lambda places, bits: torch.round(places).clamp(-qmax, qmax))


@mutant("these are the weights after rounding, code times scale. Return the codes alone: whole numbers, int8.")
def weights_in_place_of_codes(w, u, scales, bits):
    return gptq_quantize(w, u, scales, bits) * scales


@mutant(
    "the codes are cut off instead of rounded: every error goes up to a whole step, and the feedback carries it on."
)
def truncates(w, u, scales, bits):
    return _codes(w, u, scales, bits, write=lambda places, bits: nearest(torch.trunc(places), bits))


@mutant("only the next column takes a share of the error. Every column after j does.")
def next_column_only(w, u, scales, bits):
    def feed(now, u, j, error):
        if j + 1 < now.shape[1]:
            now[:, j + 1] -= error / u[j, j] * u[j, j + 1]

    return _codes(w, u, scales, bits, feed=feed)


@mutant("the feedback begins with column j + 2. The slice for the columns after j is j + 1 to the end.")
def next_column_skipped(w, u, scales, bits):
    def feed(now, u, j, error):
        now[:, j + 2 :] -= (error / u[j, j])[:, None] * u[j, j + 2 :]

    return _codes(w, u, scales, bits, feed=feed)


@mutant(
    "columns are taken four at a time, and their errors are passed on only behind the fourth. Batches of columns are "
    "right as long as the columns inside a batch hear of each other at once."
)
def nothing_inside_a_batch(w, u, scales, bits):
    def feed(now, u, j, error):
        later = (j // 4 + 1) * 4
        now[:, later:] -= (error / u[j, j])[:, None] * u[j, later:]

    return _codes(w, u, scales, bits, feed=feed)


@mutant(
    "the errors stay inside a batch of four columns and are lost at its end. When a batch is done, its errors go to "
    "all columns behind it."
)
def nothing_behind_a_batch(w, u, scales, bits):
    def feed(now, u, j, error):
        later = (j // 4 + 1) * 4
        now[:, j + 1 : later] -= (error / u[j, j])[:, None] * u[j, j + 1 : later]

    return _codes(w, u, scales, bits, feed=feed)


@mutant("the last column is left out, and its codes stay 0: range(in - 1) ends one too early.")
def last_column_left_out(w, u, scales, bits):
    codes = gptq_quantize(w, u, scales, bits)
    codes[:, -1] = 0
    return codes


@mutant("every row is divided by the largest of the scales. Row i has the scale scales[i, 0].")
def one_scale_for_all_rows(w, u, scales, bits):
    return gptq_quantize(w, u, scales.amax(dim=0, keepdim=True).expand_as(scales), bits)


@mutant(
    "a column, (out,), is divided by scales, (out, 1). Broadcasting makes that (out, out): each weight over each "
    "scale. Use scales[:, 0]."
)
def every_weight_over_every_scale(w, u, scales, bits):
    codes = torch.zeros(w.shape, dtype=torch.int8)
    w = w.clone()
    for j in range(w.shape[1]):
        codes[:, j] = nearest(w[:, j] / scales, bits)
        feed_forward(w, u, j, w[:, j] - codes[:, j] * scales[:, 0])
    return codes


@mutant("the argument bits is not used; every layer gets 4 bits.")
def four_bits_always(w, u, scales, bits):
    return gptq_quantize(w, u, scales, 4)


@mutant("the codes are right, but the loop changes w, which the caller still needs. Work on a copy: w.clone().")
def written_into_the_argument(w, u, scales, bits):
    codes = gptq_quantize(w, u, scales, bits)
    w[:, -1] += 1.0
    return codes


def weight_by_weight(w, u, scales, bits):
    """Right, by loops over Python's own floats, one row at a time, and with ties away from zero."""
    qmax = 2 ** (bits - 1) - 1
    factor, codes = u.tolist(), []
    for row, scale in zip(w.tolist(), scales[:, 0].tolist(), strict=True):
        codes.append([])
        for j, weight in enumerate(row):
            code = min(int(abs(weight) / scale + 0.5), qmax) * (1 if weight > 0 else -1)
            codes[-1].append(code)
            for k in range(j + 1, len(row)):
                row[k] -= (weight - code * scale) / factor[j][j] * factor[j][k]
    return torch.tensor(codes, dtype=torch.int8)


def in_lazy_batches(w, u, scales, bits):
    """Right, as the paper does it: errors are collected, and the columns behind a batch get them in one product."""
    qmax = 2 ** (bits - 1) - 1
    w, codes = w.clone(), torch.zeros_like(w)
    for start in range(0, w.shape[1], 3):
        end = min(start + 3, w.shape[1])
        errors = w.new_zeros(w.shape[0], end - start)
        for j in range(start, end):
            codes[:, j] = (w[:, j] / scales[:, 0]).round().clamp(-qmax, qmax)
            errors[:, j - start] = (w[:, j] - codes[:, j] * scales[:, 0]) / u[j, j]
            w[:, j:end] -= torch.outer(errors[:, j - start], u[j, j:end])
        w[:, end:] -= errors @ u[start:end, end:]
    return codes.to(torch.int8)


def from_what_is_left(w, u, scales, bits):
    """Right, without moving weights: the place of a column is its weight less what all earlier errors push on it."""
    qmax = 2 ** (bits - 1) - 1
    errors, codes = torch.zeros_like(w), torch.zeros_like(w)
    for j in range(w.shape[1]):
        now = w[:, j] - errors[:, :j] @ u[:j, j]
        codes[:, j] = torch.round(now / scales[:, 0]).clamp(-qmax, qmax)
        errors[:, j] = (now - codes[:, j] * scales[:, 0]) / u[j, j]
    return codes.to(torch.int8)


def by_solving_each_time(w, u, scales, bits):
    """Right, from the Hessian: after each column, solve for the later columns that change the output least."""
    h = torch.linalg.inv(u.T @ u)
    qmax = 2 ** (bits - 1) - 1
    w, codes = w.clone(), torch.zeros(w.shape, dtype=torch.int8)
    for j in range(w.shape[1]):
        codes[:, j] = torch.round(w[:, j] / scales[:, 0]).clamp(-qmax, qmax).to(torch.int8)
        error = w[:, j] - codes[:, j] * scales[:, 0]
        if j + 1 < w.shape[1]:
            w[:, j + 1 :] += torch.outer(error, torch.linalg.solve(h[j + 1 :, j + 1 :], h[j + 1 :, j]))
    return codes


QUESTION = Question(
    id="gptq.quantize_layer",
    title="The loop over the columns",
    reference=gptq_quantize,
    cases=cases,
    properties=(codes_are_int8, codes_follow_the_loop),
    mutants=(
        codes_left_wide,  # first: what is wrong in its types only looks like this one
        nothing_passed_on,
        wrong_sign,
        not_divided,
        divided_twice,
        inverse_not_updated,
        rows_of_the_hessian,
        error_of_the_first_weights,
        error_in_steps,
        error_before_the_clamp,
        missing_clamp,
        one_code_more,
        qmax_one_too_large,
        weights_in_place_of_codes,
        truncates,
        next_column_only,
        next_column_skipped,
        nothing_inside_a_batch,
        nothing_behind_a_batch,
        last_column_left_out,
        one_scale_for_all_rows,
        every_weight_over_every_scale,
        four_bits_always,
        written_into_the_argument,
    ),
    alternatives=(weight_by_weight, in_lazy_batches, from_what_is_left, by_solving_each_time),
    hints=(
        "Take one column after the other. What do you do with column j itself, and then with all columns behind it? "
        "You have written the second part in the question before.",
        "The code of column j comes from w[:, j] as it is now, in steps of scales[:, 0], rounded and clamped. Its "
        "error is w[:, j] minus code times scale, with the clamped code. The columns behind j get their share with "
        "row j of u.",
        "In a copy of w, for each j: code = torch.round(w[:, j] / scale).clamp(-qmax, qmax); "
        "error = (w[:, j] - code * scale) / u[j, j]; w[:, j + 1 :] -= error[:, None] * u[j, j + 1 :].",
    ),
    explanation=(
        "Every code is still a nearest one, but to a weight that has moved. So a single weight may end more than a "
        "step from where it began, and the error of the weights grows; the error of the outputs falls. In the card's "
        "example rounding to nearest has an output error of 2.08 and GPTQ one of 1.28, while the mean square error of "
        "the two weights goes up from 0.16 to 0.26. The sum of (error / u[j, j])**2 over the columns is exactly that "
        "output error, so the loop knows what it costs while it runs. Libraries go through 128 columns at a time and "
        "update the rest in one matrix product: the same codes, much faster on a GPU. It is a greedy method, and a "
        "later column cannot call back an earlier one: in the random layers of this check with 2, 3 and 4 bits, one "
        "row in twelve would have kept its output better rounded to nearest."
    ),
)
