"""hqq.shrink: the operator that keeps large errors and drops small ones (Badri and Shaji 2023, HQQ)."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant


def shrink(x, beta, p):
    """Shrink values towards zero: small ones become 0, large ones hardly change.

    x: float32, any shape. It stays as it is.
    beta: a positive float.
    p: a float, above 0 and at most 1.

    Returns a tensor, float32 and shaped like x, of
        sign(x) * max(0, |x| - |x|**(p - 1) / beta);
        where x is 0, this is 0, because max(0, -inf) is.
    """
    size = x.abs()
    # 0 to a negative power is inf; then relu(-inf) is 0, and so is 0 times it.
    return x.sign() * torch.relu(size - size.pow(p - 1) / beta)


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    with_zeros = normal(3, 6)
    with_zeros[1] = 0.0
    with_zeros[0, 2] = 0.0
    sides = normal(40)
    return [
        Case("the values of the card", (torch.tensor([0.04, 0.25, 1.0, -0.25, 0.0]), 10.0, 0.5)),
        Case("values of both signs, as HQQ calls it", (normal(60), 10.0, 0.7)),
        Case("a matrix of groups", (0.4 * normal(6, 8), 10.0, 0.7)),
        Case("another p", (normal(50), 10.0, 0.4)),
        Case("p is 1, a soft threshold", (normal(50), 4.0, 1.0)),
        Case("a small beta, which keeps only large values", (2 * normal(50), 1.5, 0.7)),
        Case("a large beta, which drops only small values", (normal(50), 200.0, 0.7)),
        Case("zeros among the values", (with_zeros, 10.0, 0.7)),
        Case("zeros, and p is 1", (with_zeros, 5.0, 1.0)),
        Case("errors of weights, which are all small", (0.004 * normal(4, 8), 10.0, 0.7)),
        Case("values on both sides of the threshold", (_threshold(12.0, 0.6) * (1 + 0.1 * sides), 12.0, 0.6)),
        Case("nothing but zeros", (torch.zeros(5), 10.0, 0.7)),
    ]


def _threshold(beta: float, p: float) -> float:
    """|x| below which nothing is left: |x| = |x|^(p-1) / beta."""
    return float(beta ** (-1 / (2 - p)))


def is_float32_and_shaped_like_x(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got, "the result", torch.float32, tuple(case.args[0].shape))


def has_no_nan(case: Case, got: Any, expected: Any) -> Finding | None:
    wrong = ~torch.isfinite(got)
    if not bool(wrong.any()):
        return None
    index = tuple(wrong.nonzero()[0].tolist())
    return Finding(
        f"{int(wrong.sum())} of {got.numel()} values are not finite; there x is {case.args[0][index].item():.6g}",
        index=index,
        expected=f"{expected[index].item():.6g}",
        got=f"{got[index].item():g}",
    )


def values_are_shrunk(case: Case, got: Any, expected: Any) -> Finding | None:
    x, beta, power = case.args
    size = x.double().abs()
    taken = torch.where(size > 0, size.pow(power - 1) / beta, 0.0)
    exact = x.double().sign() * (size - taken).clamp(min=0)
    # A difference of two numbers that are nearly equal at the threshold: right to a share of x, not of itself.
    bound = 1e-5 * size
    found = p.values_near(got, "the result", exact, bound, torch.ones_like(bound))
    return found and Finding(found.what, found.index, found.expected, found.got)


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def in_another_type(x, beta, p):
    return shrink(x, beta, p).double()


@mutant(
    "a factor p is in front of the power. The derivative of |x|**p has it, and a textbook derives it so; HQQ's "
    "operator takes |x|**(p - 1) / beta."
)
def with_a_factor_p(x, beta, p):
    size = x.abs()
    return x.sign() * torch.relu(size - p * size.pow(p - 1) / beta)


@mutant("the sign is lost: negative values come back positive. Multiply by sign(x).")
def sign_lost(x, beta, p):
    size = x.abs()
    return torch.relu(size - size.pow(p - 1) / beta)


@mutant(
    "the maximum with 0 is missing. Below the threshold more is taken than there is, and values come back with the "
    "other sign, huge near zero."
)
def maximum_missing(x, beta, p):
    size = x.abs().clamp(min=1e-8)
    return x.sign() * (size - size.pow(p - 1) / beta)


@mutant(
    "at x = 0 the result is NaN: 0 to a negative power is infinite, and 0 times infinity is NaN. Subtract from |x|, "
    "take the maximum with 0, and multiply by the sign last."
)
def nan_at_zero(x, beta, p):
    size = x.abs()
    taken = x.sign() * size.pow(p - 1) / beta
    return x - taken.maximum(-size).minimum(size)


@mutant("1 / beta is taken from every value, whatever its size. That is the soft threshold, right for p = 1 only.")
def soft_threshold(x, beta, p):
    return x.sign() * torch.relu(x.abs() - 1 / beta)


@mutant("the power is |x|**p. What is taken has the exponent p - 1, so that large values lose less than small ones.")
def exponent_p(x, beta, p):
    size = x.abs()
    return x.sign() * torch.relu(size - size.pow(p) / beta)


@mutant("the exponent is 1 - p, so large values lose more than small ones. It is p - 1.")
def exponent_upside_down(x, beta, p):
    size = x.abs()
    return x.sign() * torch.relu(size - size.pow(1 - p) / beta)


@mutant("the power is multiplied by beta. A large beta has to take less: divide.")
def multiplied_by_beta(x, beta, p):
    size = x.abs()
    return x.sign() * torch.relu(size - size.pow(p - 1) * beta)


@mutant("beta is not used: the whole power is taken away. Divide it by beta.")
def beta_not_used(x, beta, p):
    size = x.abs()
    return x.sign() * torch.relu(size - size.pow(p - 1))


@mutant("the argument p is not used; every call has p = 0.7.")
def p_not_used(x, beta, p):
    return shrink(x, beta, 0.7)


@mutant("the argument beta is not used; every call has beta = 10.")
def beta_is_ten(x, beta, p):
    return shrink(x, 10.0, p)


@mutant(
    "values above the threshold come back whole. That is a hard threshold; here they lose |x|**(p - 1) / beta as well."
)
def hard_threshold(x, beta, p):
    return torch.where(x.abs() > _threshold(beta, p), x, 0.0)


@mutant(
    "the threshold is taken from every value. It is only where the result begins; larger values lose less than that."
)
def threshold_taken(x, beta, p):
    return x.sign() * torch.relu(x.abs() - _threshold(beta, p))


@mutant("what is taken away comes back. Return what is left.")
def what_is_taken(x, beta, p):
    return x - shrink(x, beta, p)


@mutant("the power is taken of x itself and not of |x|. A negative number to the power -0.3 is NaN. Use x.abs().")
def power_of_x(x, beta, p):
    return x.sign() * torch.relu(x.abs() - x.pow(p - 1) / beta)


@mutant("only the positive part is kept: relu(x - ...) drops all negative values. Shrink |x|, and multiply by sign(x).")
def negative_values_dropped(x, beta, p):
    size = x.abs()
    return torch.relu(x - size.pow(p - 1) / beta)


@mutant("the values are divided by 1 + 1/beta, which shrinks all by one factor. Small ones have to become 0.")
def one_factor_for_all(x, beta, p):
    return x / (1 + 1 / beta)


@mutant("x is changed in place. Work on a copy.")
def in_place(x, beta, p):
    x.copy_(shrink(x, beta, p))
    return x


def as_a_factor(x, beta, p):
    """Right, as x times what is left of it; 0 times relu(1 - inf) is 0."""
    return x * torch.relu(1 - x.abs().double().pow(p - 2) / beta).float()


def only_above_the_threshold(x, beta, p):
    """Right, by computing only where something is left."""
    result = torch.zeros_like(x)
    large = x.abs() > beta ** (1 / (p - 2))
    result[large] = x[large] - x[large].sign() * x[large].abs() ** (p - 1) / beta
    return result


def value_by_value(x, beta, p):
    """Right, by a loop over Python's own floats, which raise an error for 0.0 ** -0.3."""

    def one(value: float) -> float:
        size = abs(value)
        left = max(0.0, size - size ** (p - 1) / beta) if size else 0.0
        return left if value > 0 else -left

    return torch.tensor([one(value) for value in x.flatten().tolist()]).reshape(x.shape)


QUESTION = Question(
    id="hqq.shrink",
    title="Keep the large errors",
    reference=shrink,
    cases=cases,
    properties=(is_float32_and_shaped_like_x, has_no_nan, values_are_shrunk),
    mutants=(
        in_another_type,  # first: what is wrong in its types only looks like this one
        with_a_factor_p,
        sign_lost,
        maximum_missing,
        nan_at_zero,
        soft_threshold,
        exponent_p,
        exponent_upside_down,
        multiplied_by_beta,
        beta_not_used,
        p_not_used,
        beta_is_ten,
        hard_threshold,
        threshold_taken,
        what_is_taken,
        power_of_x,
        negative_values_dropped,
        one_factor_for_all,
        in_place,
    ),
    alternatives=(as_a_factor, only_above_the_threshold, value_by_value),
    hints=(
        "Do it for a positive number first. For which x is more taken away than there is, and what should come back "
        "there?",
        "Work with |x| and put the sign back at the end. torch.relu is the maximum with 0. At x = 0 the power is "
        "infinite; see what relu makes of minus infinity, and what sign(0) is.",
        "size = x.abs(); return x.sign() * torch.relu(size - size.pow(p - 1) / beta).",
    ),
    explanation=(
        "The operator answers a question: how much of this error is an outlier, to be left alone, and how much should "
        "the zero-point repair? Nothing is left below the threshold beta**(-1 / (2 - p)), and far above it nearly "
        "everything. With HQQ's beta = 10 and p = 0.7 the threshold is 0.17. Compare that with the data: weights with "
        "a standard deviation of 0.02 have rounding errors of 0.003 at most, at 4 bits, so the operator returns zeros "
        "for all of them. For anything else beta would have to be above 1,000, and HQQ's twenty iterations raise it "
        "from 10 to 12. What is left of the method is then the next question's mean; qlab.methods.hqq shrinks errors "
        "in steps instead, where the threshold has a meaning. So when you read about an L_p norm with p < 1, ask for "
        "the unit of the weights. Two details: HQQ leaves out the factor p that the derivative of |x|**p has; and 0 is "
        "safe only because relu comes before the product with the sign."
    ),
)
