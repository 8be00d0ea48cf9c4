"""gptq.inverse_factor: the upper Cholesky factor of the inverse Hessian (Frantar et al. 2023, Algorithm 1)."""

from __future__ import annotations

from typing import Any

import torch

from ...question import Case, Finding, Question, mutant
from .layer import CARD_HESSIAN, close, correlated, normal, second_moment, unit


def inverse_factor(h):
    """Compute the factor of the inverse Hessian in which GPTQ reads its corrections.

    h: float64 (in, in), symmetric and positive definite.

    Returns u: float64 (in, in), upper triangular, with a positive diagonal, such that
        u.T @ u is the inverse of h.
    """
    return torch.linalg.cholesky(torch.linalg.inv(h), upper=True)


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)
    few = normal(random, 3, 8)
    sizes = torch.rand(5, generator=random, dtype=torch.float64) + 0.2
    return [
        Case("the example of the card, in any unit", (unit(seed) ** 2 * CARD_HESSIAN,)),
        Case("three inputs", (correlated(random, 3),)),
        Case("inputs that hardly differ", (correlated(random, 6, noise=0.1),)),
        Case("ten inputs", (correlated(random, 10),)),
        Case("large inputs", (correlated(random, 5) * 1e4,)),
        Case("inputs that know nothing of each other", (sizes.diag(),)),
        Case(
            "fewer tokens than inputs, and little damping",
            (second_moment(few) + 1e-5 * torch.eye(8, dtype=torch.float64),),
        ),
        Case("a single input", (correlated(random, 1),)),
    ]


def is_a_matrix(case: Case, got: Any, expected: Any) -> Finding | None:
    return close(got, "u", expected, float("inf"))


def is_upper_triangular(case: Case, got: Any, expected: Any) -> Finding | None:
    if bool((got.tril(-1).abs() <= 1e-12 * expected.abs().max()).all()):
        return None
    index = tuple(int(i) for i in torch.unravel_index(got.tril(-1).abs().argmax(), got.shape))
    return Finding("u: it has numbers below the diagonal", index=index, expected="0", got=f"{got[index].item():.6g}")


def has_a_positive_diagonal(case: Case, got: Any, expected: Any) -> Finding | None:
    if bool((got.diag() > 0).all()):
        return None
    index = int((~(got.diag() > 0)).nonzero()[0])
    return Finding(
        "u: its diagonal must be positive",
        index=(index, index),
        expected=f"{expected[index, index].item():.6g}",
        got=f"{got[index, index].item():.6g}",
    )


def its_square_is_the_inverse(case: Case, got: Any, expected: Any) -> Finding | None:
    return close(got.T @ got, "u.T @ u, which must be the inverse of h", expected.T @ expected, 1e-7)


def _inv(h: Any) -> Any:
    return torch.linalg.inv(h)


@mutant(
    "this is the factor of h. GPTQ needs the factor of its inverse: how far one weight may move depends on the freedom "
    "that the others leave it."
)
def factor_of_h(h):
    return torch.linalg.cholesky(h, upper=True)


@mutant(
    "this is the lower factor of the inverse, L @ L.T. GPTQ goes from the left to the right and reads rows to the "
    "right of the diagonal: it needs the upper one, upper=True or the transpose of L."
)
def lower_factor(h):
    return torch.linalg.cholesky(_inv(h))


@mutant(
    "the factor of h is inverted and transposed. That is upper triangular too, but v @ v.T is the inverse, and not "
    "v.T @ v. Invert h first, then factor."
)
def factor_inverted_and_transposed(h):
    return torch.linalg.inv(torch.linalg.cholesky(h)).T


@mutant(
    "the lower factor of h is inverted. Its l.T @ l is the inverse, but it is lower triangular. Invert h first, then "
    "take the upper factor."
)
def factor_inverted(h):
    return torch.linalg.inv(torch.linalg.cholesky(h))


@mutant("this is the inverse itself, without a factor. Take its upper Cholesky factor.")
def inverse_itself(h):
    return _inv(h)


@mutant(
    "this is the upper triangle of the inverse. Its first row is right up to a factor; the rows below do not know yet "
    "that the columns before them are fixed. The Cholesky factor does."
)
def triangle_of_the_inverse(h):
    return _inv(h).triu()


@mutant(
    "every row is divided by its diagonal, so the diagonal is 1. That loses how much each error costs; leave it in."
)
def unit_diagonal(h):
    u = inverse_factor(h)
    return u / u.diag()[:, None]


@mutant(
    "this is the symmetric square root of the inverse, from its eigenvectors. Its square is right, but it is not "
    "triangular. Use torch.linalg.cholesky."
)
def symmetric_root(h):
    values, vectors = torch.linalg.eigh(_inv(h))
    return vectors * values.sqrt() @ vectors.T


@mutant(
    "this is a root from eigenvectors, with u.T @ u right and without zeros below the diagonal. Only the triangular "
    "root has the columns in their order."
)
def root_of_eigenvectors(h):
    values, vectors = torch.linalg.eigh(_inv(h))
    return values.sqrt()[:, None] * vectors.T


@mutant("only the diagonal of the inverse is used. The entries beside it carry the error to other columns.")
def diagonal_only(h):
    return _inv(h).diag().sqrt().diag()


@mutant(
    "only the diagonal of h is inverted. That is what one weight costs when no other may move; then nothing is made up "
    "for."
)
def diagonal_of_h(h):
    return h.diag().rsqrt().diag()


@mutant(
    "torch.cholesky_inverse gets h itself. It takes a lower factor and returns the inverse of what that is the factor "
    "of: torch.cholesky_inverse(torch.linalg.cholesky(h))."
)
def cholesky_inverse_of_h(h):
    return torch.linalg.cholesky(torch.cholesky_inverse(h), upper=True)


@mutant(
    "torch.cholesky_inverse gets an upper factor and is not told so: it reads the lower triangle, where there is only "
    "the diagonal. Give it the lower factor, or upper=True."
)
def cholesky_inverse_of_the_upper(h):
    return torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(h, upper=True)), upper=True)


@mutant("this is R of a QR decomposition of the inverse: R.T @ R is the inverse squared. Use torch.linalg.cholesky.")
def r_of_qr(h):
    r = torch.linalg.qr(_inv(h)).R
    return r * r.diag().sign()[:, None]


@mutant(
    "every entry of h is replaced by its reciprocal. The inverse of a matrix is torch.linalg.inv(h); only for a "
    "diagonal matrix is it the same."
)
def reciprocals(h):
    reciprocal = torch.where(h == 0, 0.0, 1 / h)
    return reciprocal.triu().sign() * reciprocal.triu().abs().sqrt()


@mutant(
    "it is computed in float32, which has 7 digits. Where inputs hardly differ, the inverse loses nearly all of them. "
    "h is float64: stay there."
)
def in_float32(h):
    return torch.linalg.cholesky(_inv(h.float()), upper=True).double()


@mutant("h is damped here once more. That was done in the question before; h comes as it is to be inverted.")
def damped_again(h):
    return inverse_factor(h + 0.01 * h.diag().mean() * torch.eye(len(h), dtype=h.dtype))


def from_the_other_end(h):
    """Right, and without an inverse: the factor of h read backwards, turned round, and solved."""
    lower = torch.linalg.cholesky(h.flip(0, 1))  # of the matrix with its inputs in reverse
    upper = lower.flip(0, 1)  # upper @ upper.T is h
    return torch.linalg.solve_triangular(upper, torch.eye(len(h), dtype=h.dtype), upper=True)


def input_by_input(h):
    """Right, by elimination: when a column is fixed, its row of the inverse is taken out of what remains."""
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
    u = torch.zeros_like(h)
    for j in range(len(h)):
        u[j, j:] = inverse[j, j:] / inverse[j, j].sqrt()
        inverse = inverse - torch.outer(inverse[j], inverse[j]) / inverse[j, j]
    return u


def with_numpy(h):
    """Right, with the lower factor turned round."""
    import numpy as np

    return np.linalg.cholesky(np.linalg.inv(h.numpy())).T


QUESTION = Question(
    id="gptq.inverse_factor",
    title="The factor of the inverse",
    reference=inverse_factor,
    cases=cases,
    properties=(is_a_matrix, is_upper_triangular, has_a_positive_diagonal, its_square_is_the_inverse),
    mutants=(
        factor_of_h,
        lower_factor,
        factor_inverted_and_transposed,
        factor_inverted,
        inverse_itself,
        triangle_of_the_inverse,
        unit_diagonal,
        symmetric_root,
        root_of_eigenvectors,
        diagonal_only,
        diagonal_of_h,
        cholesky_inverse_of_h,
        cholesky_inverse_of_the_upper,
        r_of_qr,
        reciprocals,
        in_float32,
        damped_again,
    ),
    alternatives=(from_the_other_end, input_by_input, with_numpy),
    hints=(
        "There are two things to do, inverting and factoring, and two triangles to choose from. Multiply your result "
        "with itself, in both orders: which of the two products is the inverse?",
        "Invert h first. A Cholesky factor of the inverse comes as a lower triangle L with L @ L.T; its transpose is "
        "the u that is asked for, because u.T @ u is then L @ L.T.",
        "torch.linalg.cholesky(torch.linalg.inv(h), upper=True).",
    ),
    explanation=(
        "Row j of u holds all that GPTQ needs when it comes to column j: u[j, k] / u[j, j] is how far column k moves "
        "for each unit of error in column j, and 1 / u[j, j]**2 is what a unit of error costs after the columns "
        "behind it have made up for it as well as they can. The inverse itself has these numbers for column 0 only. "
        "For later columns it would have to be updated, one elimination after each column; the Cholesky decomposition "
        "does exactly these eliminations, once and for all rows of weights. The trap is the other upper triangle, v "
        "on the card: no error is raised, and the codes look like codes. On a layer of nano (down_proj of layer 2, 3 "
        "bits, one scale per row) rounding to nearest has an output error of 29.3 % on the calibration tokens, GPTQ "
        "with u one of 22.5 %, and GPTQ with v one of 29.5 %: no better than no GPTQ at all."
    ),
)
