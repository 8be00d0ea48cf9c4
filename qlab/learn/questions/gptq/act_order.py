"""gptq.act_order: the loop over the columns in the order of their importance, and the way back to the old order."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .layer import (
    correlated,
    feed_forward,
    follow_the_loop,
    loop,
    nearest,
    normal,
    replay,
    row_scales,
    unit,
    upper_factor,
)

# The example of the card: three inputs of different sizes, one row.
CARD_H = torch.tensor([[4.0, 0.0, 4.0], [0.0, 1.0, 1.0], [4.0, 1.0, 9.0]], dtype=torch.float64)
CARD_W = torch.tensor([[0.2, 0.4, 0.4]], dtype=torch.float64)


def act_order_quantize(w, h, scales, bits):
    """Quantize a weight matrix with GPTQ, the columns of the largest inputs first.

    w: float64 (out, in). It stays as it is.
    h: float64 (in, in), the Hessian, positive definite; no two diagonal entries are equal.
    scales: float64 (out, 1), positive: one step for each row. Some weights may lie
        beyond the grid.
    bits: 2 to 8.

    Columns are quantized in the order of the diagonal of h, the largest entry first. Each
    code is a nearest one to its weight as it then is, after the columns that came before
    it in that order have spread their errors.

    Returns codes: int8 (out, in), from -qmax to qmax with qmax = 2**(bits-1) - 1, in the
    order of the columns of w.
    """
    qmax = 2 ** (bits - 1) - 1
    scale = scales[:, 0]  # (out,)
    order = torch.argsort(h.diagonal(), descending=True)
    w, h = w[:, order], h[order][:, order]  # copies
    u = torch.linalg.cholesky(torch.linalg.inv(h), upper=True)
    codes = torch.zeros(w.shape, dtype=torch.int8)
    for j in range(w.shape[1]):
        code = torch.round(w[:, j] / scale).clamp(-qmax, qmax)  # (out,)
        error = (w[:, j] - code * scale) / u[j, j]
        w[:, j + 1 :] -= error[:, None] * u[j, j + 1 :]
        codes[:, j] = code
    return codes[:, torch.argsort(order)]


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def case(name: str, rows: int, columns: int, bits: int, part: float = 1.0, noise: float = 0.3) -> Case:
        w = 0.02 * normal(random, rows, columns)
        return Case(name, (w, correlated(random, columns, noise), part * row_scales(w, bits), bits))

    def in_order(h: torch.Tensor, down: bool) -> torch.Tensor:
        order = torch.argsort(h.diagonal(), descending=down)
        return h[order][:, order].contiguous()

    card = (unit(seed) * CARD_W, CARD_H, torch.full((1, 1), unit(seed), dtype=torch.float64), 3)
    falling, rising = (in_order(correlated(random, 6), down) for down in (True, False))
    w = 0.02 * normal(random, 7, 6)
    alone = (torch.rand(5, generator=random, dtype=torch.float64) + 0.5).diag()
    few = 0.02 * normal(random, 6, 5)
    return [
        Case("the example of the card, in any unit", card),
        case("4 bits", 7, 8, 4),
        case("3 bits, inputs that hardly differ", 8, 7, 3, noise=0.1),
        case("2 bits", 8, 7, 2),
        case("8 bits, a single row", 1, 9, 8),
        case("a square matrix", 7, 7, 3),
        case("weights beyond the grid", 8, 7, 4, part=0.4),
        Case("the inputs are in that order already", (w, falling, row_scales(w, 3), 3)),
        Case("the inputs are in the opposite order", (w, rising, row_scales(w, 3), 3)),
        Case("inputs that know nothing of each other", (few, alone, row_scales(few, 3), 3)),
        case("a single column", 5, 1, 4),
    ]


def _order(h: Any) -> Any:
    return torch.argsort(h.diagonal(), descending=True)


def codes_are_int8(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got, "codes", torch.int8, case.args[0].shape)


def codes_follow_the_loop_in_that_order(case: Case, got: Any, expected: Any) -> Finding | None:
    w, h, scales, bits = case.args
    order = _order(h)
    u = upper_factor(h[order][:, order])
    places, _ = replay(w[:, order], u, got[:, order], lambda j, now: scales[:, 0])
    return follow_the_loop(got, places[:, torch.argsort(order)], bits)


def _codes(w: Any, u: Any, scales: Any, bits: int, **parts: Any) -> Any:
    return loop(w, u, bits, lambda j, now: scales[:, 0], **parts)[0]


def _in_order(w: Any, h: Any, scales: Any, bits: int, order: Any, **parts: Any) -> Any:
    """The loop in any order, and back."""
    codes = _codes(w[:, order], upper_factor(h[order][:, order]), scales, bits, **parts)
    return codes[:, torch.argsort(order)]


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def codes_left_wide(w, h, scales, bits):
    return act_order_quantize(w, h, scales, bits).double()


@mutant("the columns are taken from the left to the right. Take them by the diagonal of h, the largest entry first.")
def natural_order(w, h, scales, bits):
    return _in_order(w, h, scales, bits, torch.arange(len(h)))


@mutant(
    "the smallest inputs come first: argsort sorts upwards. The first columns have the most others left to make up for "
    "their errors; these should be the ones that matter. Say descending=True."
)
def smallest_first(w, h, scales, bits):
    return _in_order(w, h, scales, bits, _order(h).flip(0))


@mutant(
    "the codes come back in the order in which they were made. Column k of the weights has its code elsewhere now: "
    "undo the order at the end, codes[:, torch.argsort(order)]."
)
def order_not_undone(w, h, scales, bits):
    order = _order(h)
    return _codes(w[:, order], upper_factor(h[order][:, order]), scales, bits)


@mutant(
    "the order is applied once more at the end, codes[:, order]. That undoes it only where it exchanges pairs. The way "
    "back is torch.argsort(order)."
)
def order_applied_twice(w, h, scales, bits):
    order = _order(h)
    return _codes(w[:, order], upper_factor(h[order][:, order]), scales, bits)[:, order]


@mutant("the order is turned round at the end, as by flip. The way back from an order is torch.argsort(order).")
def order_turned_round(w, h, scales, bits):
    order = _order(h)
    return _codes(w[:, order], upper_factor(h[order][:, order]), scales, bits).flip(1)


@mutant("the weights are put into the new order, and the Hessian is not: errors go to the wrong columns.")
def hessian_left_as_it_is(w, h, scales, bits):
    order = _order(h)
    return _codes(w[:, order], upper_factor(h), scales, bits)[:, torch.argsort(order)]


@mutant("the Hessian is put into the new order, and the weights are not: errors go to the wrong columns.")
def weights_left_as_they_are(w, h, scales, bits):
    order = _order(h)
    return _codes(w, upper_factor(h[order][:, order]), scales, bits)


@mutant(
    "the weights stay in their order, but the codes are put back as if they had moved. Move w as well: w[:, order]."
)
def only_the_codes_go_back(w, h, scales, bits):
    order = _order(h)
    return _codes(w, upper_factor(h[order][:, order]), scales, bits)[:, torch.argsort(order)]


@mutant(
    "only the rows of the Hessian are put into the new order. Inputs are in its rows and in its columns: "
    "h[order][:, order]."
)
def only_rows_of_the_hessian(w, h, scales, bits):
    order = _order(h)
    return _codes(w[:, order], upper_factor(h[order]), scales, bits)[:, torch.argsort(order)]


@mutant(
    "the factor is computed first, and its rows and columns are then put into the new order. That is no triangle any "
    "more. Put h into order, then invert and factor it."
)
def factor_put_into_order(w, h, scales, bits):
    order = _order(h)
    u = upper_factor(h)[order][:, order]
    return _codes(w[:, order], u, scales, bits)[:, torch.argsort(order)]


@mutant(
    "the order comes from the diagonal of the inverse Hessian. What is asked for is the size of the inputs: the "
    "diagonal of h."
)
def order_of_the_inverse(w, h, scales, bits):
    order = torch.argsort(torch.linalg.inv(h).diagonal(), descending=False)
    return _in_order(w, h, scales, bits, order)


@mutant("the order comes from the sums of the rows of h. How large an input is stands on the diagonal alone.")
def order_of_the_sums(w, h, scales, bits):
    return _in_order(w, h, scales, bits, torch.argsort(h.sum(dim=1), descending=True))


@mutant("the order comes from the size of the weights. act-order asks for the size of the inputs: the diagonal of h.")
def order_of_the_weights(w, h, scales, bits):
    return _in_order(w, h, scales, bits, torch.argsort(w.abs().amax(dim=0), descending=True))


@mutant(
    "ranks are used as an order: argsort(argsort(…)) says at which place a column comes, and not which column comes "
    "next. Index with argsort once, and a second time only for the way back."
)
def ranks_for_an_order(w, h, scales, bits):
    return _in_order(w, h, scales, bits, torch.argsort(_order(h)))


@mutant("no error is passed on: this is rounding to nearest, for which the order is of no account.")
def nothing_passed_on(w, h, scales, bits):
    return nearest(w / scales, bits).to(torch.int8)


@mutant("the loop reads the factor of h. Invert h, in the new order, before you take the factor.")
def factor_of_h(w, h, scales, bits):
    order = _order(h)
    u = torch.linalg.cholesky(h[order][:, order], upper=True)
    return _codes(w[:, order], u, scales, bits)[:, torch.argsort(order)]


@mutant("the codes are not clamped to the grid, and some lie past qmax. Clamp them to -qmax and qmax.")
def missing_clamp(w, h, scales, bits):
    return _in_order(w, h, scales, bits, _order(h), write=lambda places, bits: torch.round(places))


@mutant("the error is not divided by u[j, j], so the later columns move by a wrong amount.")
def not_divided(w, h, scales, bits):
    def feed(now, u, j, error):
        feed_forward(now, u, j, error * u[j, j])

    return _in_order(w, h, scales, bits, _order(h), feed=feed)


def by_indices(w, h, scales, bits):
    """Right, without moving anything: the loop picks its columns, and solves for those that are still free."""
    qmax = 2 ** (bits - 1) - 1
    w, codes, free = w.clone(), torch.zeros_like(w), list(range(w.shape[1]))
    for j in sorted(free, key=lambda k: -float(h[k, k])):
        free = [k for k in free if k != j]
        codes[:, j] = torch.round(w[:, j] / scales[:, 0]).clamp(-qmax, qmax)
        error = w[:, j] - codes[:, j] * scales[:, 0]
        if free:
            w[:, free] += torch.outer(error, torch.linalg.solve(h[free][:, free], h[free, j]))
    return codes.to(torch.int8)


def with_a_permutation_matrix(w, h, scales, bits):
    """Right: a matrix of zeros and ones puts the columns into order, and its transpose puts them back."""
    qmax = 2 ** (bits - 1) - 1
    move = torch.eye(len(h), dtype=h.dtype)[:, torch.argsort(-h.diag())]
    w, u = w @ move, torch.linalg.cholesky(torch.linalg.inv(move.T @ h @ move)).T
    codes = torch.zeros_like(w)
    for j in range(w.shape[1]):
        codes[:, j] = torch.round(w[:, j] / scales[:, 0]).clamp(-qmax, qmax)
        w = w - torch.outer((w[:, j] - codes[:, j] * scales[:, 0]) / u[j, j], u[j])
    return (codes @ move.T).to(torch.int8)


def scattered_back(w, h, scales, bits):
    """Right: the codes are written to the columns where they belong, one by one."""
    qmax = 2 ** (bits - 1) - 1
    order = h.diagonal().sort(descending=True).indices
    u = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h[order][:, order])), upper=True)
    rest, codes = w[:, order], torch.empty(w.shape, dtype=torch.int8)
    for j, column in enumerate(order.tolist()):
        code = torch.round(rest[:, j] / scales[:, 0]).clamp(-qmax, qmax)
        rest[:, j + 1 :] -= torch.outer((rest[:, j] - code * scales[:, 0]) / u[j, j], u[j, j + 1 :])
        codes[:, column] = code
    return codes


QUESTION = Question(
    id="gptq.act_order",
    title="The most important columns first",
    reference=act_order_quantize,
    cases=cases,
    properties=(codes_are_int8, codes_follow_the_loop_in_that_order),
    mutants=(
        codes_left_wide,  # first: what is wrong in its types only looks like this one
        natural_order,
        smallest_first,
        order_not_undone,
        order_applied_twice,
        order_turned_round,
        hessian_left_as_it_is,
        weights_left_as_they_are,
        only_the_codes_go_back,
        only_rows_of_the_hessian,
        factor_put_into_order,
        order_of_the_inverse,
        order_of_the_sums,
        order_of_the_weights,
        ranks_for_an_order,
        nothing_passed_on,
        factor_of_h,
        missing_clamp,
        not_divided,
    ),
    alternatives=(by_indices, with_a_permutation_matrix, scattered_back),
    hints=(
        "What has to move when the inputs change places: which dimension of w, and which of h? And when the codes are "
        "there, to whom does column 0 of them belong?",
        "order = torch.argsort(h.diagonal(), descending=True). Move the columns of w, and the rows and the columns of "
        "h; invert and factor the moved h; run the loop. torch.argsort(order) is the way back.",
        "w, h = w[:, order], h[order][:, order]; u = torch.linalg.cholesky(torch.linalg.inv(h), upper=True); the loop "
        "of question 5; return codes[:, torch.argsort(order)].",
    ),
    explanation=(
        "The first columns are rounded while all others can still make up for them, the last ones while none can. So "
        "the columns where an error costs most should come first. On a layer of nano (down_proj of layer 2, 3 bits, "
        "one scale per row) the output error falls from 22.5 % to 20.5 % by the order alone. order[0] says which "
        "column is quantized first; argsort(order)[0] answers the opposite question, when column 0 was. With one "
        "scale for each row nothing of this is left in the checkpoint. With groups measured on the way it is: "
        "neighbors in the new order share a scale, and g_idx stores the group of every column, argsort(order) // "
        "group_size. A loader that ignores it gives wrong weights without an error."
    ),
)
