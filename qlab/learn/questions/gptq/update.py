"""gptq.update: one column is quantized, and the columns after it make up for the error (Frantar et al. 2023)."""

from __future__ import annotations

from typing import Any

import torch

from ...question import Case, Finding, Question, mutant
from .layer import CARD_FACTOR, CARD_WEIGHT, close, correlated, normal, unit, upper_factor


def compensate(w, j, values, u):
    """Quantize one column, and let the columns after it make up for the error.

    w: float64 (out, in), the weights as they are now. Columns before j are done.
    j: the column, from 0 to in - 1.
    values: float64 (out,), what column j becomes.
    u: float64 (in, in), the upper triangular factor: u.T @ u is the inverse Hessian.

    Returns float64 (out, in), a new matrix: columns before j as they are, values in
    column j, and the columns after j moved so that the outputs change least.
    """
    error = (w[:, j] - values) / u[j, j]  # (out,)
    w = w.clone()
    w[:, j] = values
    w[:, j + 1 :] -= error[:, None] * u[j, j + 1 :]
    return w


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def case(name: str, rows: int, columns: int, j: int, step: float = 0.5, u: torch.Tensor | None = None) -> Case:
        w = normal(random, rows, columns)
        values = step * torch.round(w[:, j] / step)
        return Case(name, (w, j, values, upper_factor(correlated(random, columns)) if u is None else u))

    w = normal(random, 3, 5)
    one = torch.full((1,), unit(seed), dtype=torch.float64)
    alone = (torch.rand(4, generator=random, dtype=torch.float64) + 0.5).diag()
    return [
        Case("the example of the card, in any unit", (one * CARD_WEIGHT, 0, one, CARD_FACTOR)),
        case("the first column", 4, 6, 0),
        case("a column in the middle", 5, 7, 3),
        case("the last column but one", 3, 6, 4),
        case("the last column", 4, 5, 4),
        case("a square matrix", 6, 6, 2),
        case("a single row", 1, 8, 3),
        case("everything becomes 0", 3, 7, 2, step=100.0),
        case("inputs that know nothing of each other", 3, 4, 1, u=alone),
        Case("the column is right already", (w, 2, w[:, 2].clone(), upper_factor(correlated(random, 5)))),
    ]


def is_a_matrix(case: Case, got: Any, expected: Any) -> Finding | None:
    return close(got, "the weights", expected, float("inf"))


def the_columns_before_stay(case: Case, got: Any, expected: Any) -> Finding | None:
    w, j, _, _ = case.args
    return close(got[:, :j], "the columns before j", w[:, :j], 1e-12) if j else None


def the_column_has_its_values(case: Case, got: Any, expected: Any) -> Finding | None:
    _, j, values, _ = case.args
    return close(got[:, j : j + 1], "column j", values[:, None], 1e-12)


def the_columns_after_make_up_for_it(case: Case, got: Any, expected: Any) -> Finding | None:
    """Against the minimum itself, from the Hessian and without the factor's rows."""
    w, j, values, u = case.args
    if j + 1 == w.shape[1]:
        return None
    h = torch.linalg.inv(u.T @ u)
    move = torch.linalg.solve(h[j + 1 :, j + 1 :], h[j + 1 :, j])  # what column j loses, for each unit that it gains
    best = w[:, j + 1 :] + (w[:, j] - values)[:, None] * move
    # Counted in columns of w, so that a finding's place is that of the matrix.
    whole = torch.cat([got[:, : j + 1], best], dim=1)
    return close(got, "the columns after j", whole, 1e-8)


def _after(w: Any, j: int, values: Any, move: Any) -> Any:
    """A right answer but for the move of the later columns, which is (out, in - j - 1)."""
    w = w.clone()
    w[:, j] = values
    w[:, j + 1 :] -= move
    return w


def _error(w: Any, j: int, values: Any) -> Any:
    return (w[:, j] - values)[:, None]  # (out, 1)


@mutant(
    "the error is not divided by u[j, j]. Row j of u is the right direction, but its length is not: divided by "
    "u[j, j], it says what belongs to one unit of error."
)
def not_divided(w, j, values, u):
    return _after(w, j, values, _error(w, j, values) * u[j, j + 1 :])


@mutant(
    "the error is divided by u[j, j] twice. The square is right beside a row of the inverse Hessian; beside a row of "
    "its factor it is u[j, j], once."
)
def divided_twice(w, j, values, u):
    return _after(w, j, values, _error(w, j, values) / u[j, j] ** 2 * u[j, j + 1 :])


@mutant(
    "the sign is wrong: the later columns move so that the errors add up. The error is w[:, j] - values, and its "
    "share is taken away from the later columns."
)
def wrong_sign(w, j, values, u):
    return _after(w, j, values, -_error(w, j, values) / u[j, j] * u[j, j + 1 :])


@mutant(
    "column j of u is read where row j belongs. Above the diagonal of that column are the columns that are done: they "
    "are changed, and no later one is."
)
def column_of_the_factor(w, j, values, u):
    w = w - _error(w, j, values) / u[j, j] * u[:, j]
    w[:, j] = values
    return w


@mutant(
    "this is a row of the whole inverse Hessian, so columns that are done are changed once more. They are codes "
    "already. Only what lies to the right of column j may move, as the row of u has it."
)
def done_columns_changed(w, j, values, u):
    inverse = u.T @ u
    w = w - _error(w, j, values) / inverse[j, j] * inverse[j]
    w[:, j] = values
    return w


@mutant(
    "the row comes from the inverse of the whole Hessian, as if the columns before j could still move. That is right "
    "for column 0 only. Use row j of u and u[j, j]."
)
def inverse_not_updated(w, j, values, u):
    inverse = u.T @ u
    return _after(w, j, values, _error(w, j, values) / inverse[j, j] * inverse[j, j + 1 :])


@mutant(
    "the row comes from the Hessian and not from the factor of its inverse. The Hessian says which inputs move "
    "together; which weights make up for each other stands in the inverse, with the other sign."
)
def row_of_the_hessian(w, j, values, u):
    h = torch.linalg.inv(u.T @ u)
    return _after(w, j, values, _error(w, j, values) / h[j, j] * h[j, j + 1 :])


@mutant("column j still has its old weights. Write the values into it.")
def column_left_as_it_was(w, j, values, u):
    moved = compensate(w, j, values, u)
    moved[:, j] = w[:, j]
    return moved


@mutant(
    "column j gets its values, and the later columns do not move: this is rounding to nearest. It also happens where "
    "column j is overwritten before its error is measured, and the error is 0 then; or where u is read below its "
    "diagonal, u[j + 1 :, j], where there are zeros only. The row is u[j, j + 1 :]."
)
def nothing_moves(w, j, values, u):
    return _after(w, j, values, 0.0)


@mutant(
    "column j is given its values first and then takes part in the correction, so it moves away from them again. "
    "Begin with column j + 1."
)
def column_moved_again(w, j, values, u):
    moved = _after(w, j, values, 0.0)
    moved[:, j:] -= _error(w, j, values) / u[j, j] * u[j, j:]
    return moved


@mutant("only the next column moves. Every column after j takes its share.")
def next_column_only(w, j, values, u):
    move = _error(w, j, values) / u[j, j] * u[j, j + 1 :]
    move[:, 1:] = 0.0
    return _after(w, j, values, move)


@mutant("the correction begins with column j + 2. The slice for the columns after j is j + 1 to the end.")
def next_column_skipped(w, j, values, u):
    move = _error(w, j, values) / u[j, j] * u[j, j + 1 :]
    move[:, :1] = 0.0
    return _after(w, j, values, move)


@mutant("the quantized values are spread over the later columns. Spread the error, w[:, j] - values.")
def values_spread(w, j, values, u):
    return _after(w, j, values, values[:, None] / u[j, j] * u[j, j + 1 :])


@mutant(
    "every row gets the mean error of all rows. Rows are different outputs: each one makes up for its own error, "
    "error[:, None] * u[j, j + 1 :]."
)
def mean_of_the_rows(w, j, values, u):
    return _after(w, j, values, _error(w, j, values).mean() / u[j, j] * u[j, j + 1 :])


@mutant("only the columns after j come back. Return the whole matrix, (out, in).")
def later_columns_only(w, j, values, u):
    return compensate(w, j, values, u)[:, j + 1 :]


@mutant("the move of the later columns is returned in place of the weights after it. Add it to them.")
def move_alone(w, j, values, u):
    return compensate(w, j, values, u) - w


@mutant("it is computed in float32, and 7 digits are left of 16. w is float64: stay there.")
def in_float32(w, j, values, u):
    return compensate(w.float(), j, values.float(), u.float()).double()


@mutant("the result is right, but it is written into w, which the caller still needs. Work on a copy: w.clone().")
def written_into_the_argument(w, j, values, u):
    w[:, j:] -= _error(w, j, values) / u[j, j] * u[j, j:]
    w[:, j] = values
    return w


def whole_row_at_once(w, j, values, u):
    """Right, without slices: row j of u is 0 before column j, and moves column j to its values."""
    moved = w - torch.outer((w[:, j] - values) / u[j, j], u[j])
    moved[:, j] = values
    return moved


def least_squares(w, j, values, u):
    """Right, from the Hessian: solve for the later columns that change the output least."""
    h = torch.linalg.inv(u.T @ u)
    later = slice(j + 1, None)
    w, error = w.clone(), w[:, j] - values
    w[:, j] = values
    if j + 1 < w.shape[1]:
        w[:, later] += torch.linalg.solve(h[later, later], h[later, j : j + 1] * error).T
    return w


def row_by_row(w, j, values, u):
    """Right, by loops over Python's own floats."""
    rows, factor = w.tolist(), u.tolist()
    for row, value in zip(rows, values.tolist(), strict=True):
        error = (row[j] - value) / factor[j][j]
        row[j] = value
        for k in range(j + 1, len(row)):
            row[k] -= error * factor[j][k]
    return torch.tensor(rows, dtype=torch.float64)


QUESTION = Question(
    id="gptq.update",
    title="One column, and what the others do about it",
    reference=compensate,
    cases=cases,
    properties=(
        is_a_matrix,
        the_columns_before_stay,
        the_column_has_its_values,
        the_columns_after_make_up_for_it,
    ),
    mutants=(
        not_divided,
        divided_twice,
        wrong_sign,
        column_of_the_factor,
        done_columns_changed,
        inverse_not_updated,
        row_of_the_hessian,
        column_left_as_it_was,
        nothing_moves,
        column_moved_again,
        next_column_only,
        next_column_skipped,
        values_spread,
        mean_of_the_rows,
        later_columns_only,
        move_alone,
        in_float32,
        written_into_the_argument,
    ),
    alternatives=(whole_row_at_once, least_squares, row_by_row),
    hints=(
        "Three kinds of columns: those that are done, the one whose turn it is, and those that may still move. Which "
        "row of u knows about the third kind, and what is to the left of the diagonal in that row?",
        "For one unit of error in column j, column k moves by u[j, k] / u[j, j]. The error is w[:, j] - values, one "
        "number for each row; what you subtract from the later columns is (out, in - j - 1).",
        "error = (w[:, j] - values) / u[j, j]; in a copy of w, column j becomes values and "
        "w[:, j + 1 :] -= error[:, None] * u[j, j + 1 :].",
    ),
    explanation=(
        "Column j is wrong now, and nothing changes that. But where inputs move together, later weights can push the "
        "output back: these are the moves that make the squared error smallest, given that the columns before j stay. "
        "In the card's example the error of 0.4 costs 0.8 when nothing moves, 5 times 0.16, and 0.64 after column 1 "
        "has moved by 0.2. The check solves for that minimum without the factor and compares. All rows share the row "
        "of u and differ in their error only, so one outer product serves thousands of outputs: this is what makes "
        "the method fast enough for a large model."
    ),
)
