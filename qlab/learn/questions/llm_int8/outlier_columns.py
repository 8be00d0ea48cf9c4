"""llm_int8.outlier_columns: the columns of an input that stay in floating point (Dettmers et al. 2022, section 3.2)."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import CARD_X, normal


def outlier_columns(x, threshold):
    """Say which columns of x hold an outlier.

    x: float16 or float32 (tokens, in); there may be no token. No NaN.
    threshold: a positive number; 6.0 is usual.

    Returns bool (in,): True for the columns in which the magnitude of at least one token
    reaches the threshold; a value equal to it has reached it. Without a token none has.
    """
    return (x.abs() >= threshold).any(dim=0)


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def ordinary(*shape: int) -> torch.Tensor:
        return normal(random, *shape).clamp(-2.5, 2.5)

    def one(name: str, x: torch.Tensor, threshold: float = 6.0) -> Case:
        return Case(name, (x, threshold))

    def with_outliers(tokens: int, columns: int, large: float = 9.0) -> torch.Tensor:
        """Outliers in the first, the last and a middle token, each in a column of its own; one column large in all."""
        x = ordinary(tokens, columns)
        for token, column, sign in ((0, 1, 1), (tokens - 1, columns - 2, -1), (tokens // 2, 0, -1)):
            x[token, column] = sign * (large + torch.rand(1, generator=random).item())
        x[:, 3] = (large - 1 + torch.rand(tokens, generator=random)) * torch.randn(tokens, generator=random).sign()
        return x[:, torch.randperm(columns, generator=random)]

    edge = ordinary(4, 6)
    edge[1, 0], edge[2, 3], edge[3, 4], edge[0, 5] = 6.0, -6.0, 5.9999, -5.9999
    steady = ordinary(8, 5).sign() * 4.0  # larger than all others, and below the threshold in every token
    low = with_outliers(5, 8, large=3.0) / 2
    return [
        one("the example of the card", CARD_X),
        one("outliers of both signs", with_outliers(7, 9)),
        one("as many tokens as channels", with_outliers(6, 6)),
        one("many tokens, and an outlier in one of them", with_outliers(64, 7)),
        one("float16", with_outliers(5, 8).half()),
        one("values on the threshold and just below it", edge),
        one("large values, none of which reaches the threshold", steady),
        one("another threshold", low, 1.4),
        one("a high threshold", with_outliers(6, 7) * 3, 20.0),
        one("nothing reaches the threshold", ordinary(5, 6)),
        one("every column has an outlier", ordinary(3, 4) + 9.0),
        one("all of them negative", ordinary(3, 4) - 9.0),
        one("a single token", with_outliers(1, 6)),
        one("no token", ordinary(0, 5)),
    ]


def is_a_mask(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got, "the mask", torch.bool, tuple(expected.shape))


def marks_the_outlier_columns(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.equal(got, "the mask", expected)


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def in_another_type(x, threshold):
    return outlier_columns(x, threshold).int()


@mutant("a value that is equal to the threshold is left out. It has reached it: >=, not >.")
def above_the_threshold(x, threshold):
    return (x.abs() > threshold).any(dim=0)


@mutant("large negative values are left out. Take abs() first.")
def without_abs(x, threshold):
    return (x >= threshold).any(dim=0)


@mutant("abs() comes after the maximum. The largest value of a column need not be its largest magnitude.")
def abs_after_the_maximum(x, threshold):
    return x.sort(dim=0).values[-1:].abs().ge(threshold).any(dim=0)


@mutant(
    "the largest magnitude is taken with max or amax, which has nothing to return when there is no token. A comparison "
    "followed by any() has."
)
def maximum_of_no_tokens(x, threshold):
    return x.abs().amax(dim=0) >= threshold


@mutant(
    "x is compared in float16, where values near 6 are 0.004 apart: 5.9999 becomes 6 and reaches the threshold. "
    "Compare x in its own type."
)
def compared_in_half(x, threshold):
    return (x.abs().half() >= threshold).any(dim=0)


@mutant("a column counts only if all its tokens reach the threshold. One is enough: any, not all.")
def all_tokens(x, threshold):
    return (x.abs() >= threshold).all(dim=0) if len(x) else torch.zeros(x.shape[1], dtype=torch.bool)


@mutant("the mean over the tokens is compared. One outlier among many tokens disappears in a mean; look for any.")
def mean_of_the_column(x, threshold):
    return x.abs().float().mean(dim=0) >= threshold


@mutant("the magnitudes of a column are added up. Many ordinary values then look like an outlier.")
def sum_of_the_column(x, threshold):
    return x.abs().sum(dim=0) >= threshold


@mutant("the norm of a column is compared, the root of the sum of squares. Many ordinary values look like an outlier.")
def norm_of_the_column(x, threshold):
    return x.float().norm(dim=0) >= threshold


@mutant("this asks which tokens hold an outlier, dim=1. Asked for are the columns: look along the tokens, dim=0.")
def rows_in_place_of_columns(x, threshold):
    return (x.abs() >= threshold).any(dim=1)


@mutant("there is a mark for every value. A column is an outlier column as a whole: any(dim=0).")
def mark_for_every_value(x, threshold):
    return x.abs() >= threshold


@mutant("one mark comes back for all of x. Each column has its own: any(dim=0).")
def one_mark_for_all(x, threshold):
    return (x.abs() >= threshold).any()


@mutant("the numbers of the columns come back. Asked for is a mask: True or False for each column.")
def numbers_of_the_columns(x, threshold):
    return outlier_columns(x, threshold).nonzero().flatten()


@mutant("the mask is the wrong way round: True for the columns without an outlier.")
def the_other_columns(x, threshold):
    return ~outlier_columns(x, threshold)


@mutant("the argument threshold is not used; 6 stands in the code.")
def always_six(x, threshold):
    return outlier_columns(x, 6.0)


@mutant(
    "the threshold is a multiple of the standard deviation. LLM.int8() compares with a fixed number, 6.0, whatever the "
    "spread of x."
)
def standard_deviations(x, threshold):
    return (x.abs() >= threshold * x.float().std(correction=0)).any(dim=0)


@mutant(
    "a column counts only if 6 % of its tokens reach the threshold. So the paper counts the outlier channels of a "
    "whole model; the layer that computes takes out every column that reaches it once."
)
def share_of_the_tokens(x, threshold):
    return (x.abs() >= threshold).float().mean(dim=0) >= 0.06


@mutant("only the column with the largest value of all is marked. Several may reach the threshold, or none.")
def largest_column_only(x, threshold):
    mask = torch.zeros(x.shape[1], dtype=torch.bool)
    if x.numel():
        mask[x.abs().max(dim=0).values.argmax()] = True
    return mask


@mutant("only the first token is looked at. An outlier may be in any of them.")
def first_token_only(x, threshold):
    return (x[:1].abs() >= threshold).any(dim=0)


@mutant("only the last token is looked at. An outlier may be in any of them.")
def last_token_only(x, threshold):
    return (x[-1:].abs() >= threshold).any(dim=0)


def by_the_extremes(x, threshold):
    """Right, from the largest and the smallest value; a row of zeros stands for no token."""
    x = torch.cat([x, torch.zeros_like(x[:1])]) if len(x) else torch.zeros(1, x.shape[1])
    return torch.maximum(x.max(dim=0).values, -x.min(dim=0).values) >= threshold


def marked_one_by_one(x, threshold):
    """Right, by the places of the outliers."""
    mask = torch.zeros(x.shape[1], dtype=torch.bool)
    mask[torch.nonzero(x.abs() >= threshold)[:, 1]] = True
    return mask


def with_numpy(x, threshold):
    """Right, as arrays."""
    import numpy as np

    return (np.abs(x.numpy()) >= threshold).any(axis=0)


QUESTION = Question(
    id="llm_int8.outlier_columns",
    title="Which columns stay out",
    reference=outlier_columns,
    cases=cases,
    properties=(is_a_mask, marks_the_outlier_columns),
    mutants=(
        in_another_type,  # first: what is wrong in its types only looks like this one
        above_the_threshold,
        without_abs,
        abs_after_the_maximum,
        maximum_of_no_tokens,
        compared_in_half,
        all_tokens,
        mean_of_the_column,
        sum_of_the_column,
        norm_of_the_column,
        rows_in_place_of_columns,
        mark_for_every_value,
        one_mark_for_all,
        numbers_of_the_columns,
        the_other_columns,
        always_six,
        standard_deviations,
        share_of_the_tokens,
        largest_column_only,
        first_token_only,
        last_token_only,
    ),
    alternatives=(by_the_extremes, marked_one_by_one, with_numpy),
    hints=(
        "Mark every value that reaches the threshold. When is a whole column marked, and along which dimension do you "
        "have to look for that?",
        "Compare magnitudes with >=, which gives (tokens, in). Then reduce over the tokens, dimension 0, so that one "
        "mark is left for each column.",
        "(x.abs() >= threshold).any(dim=0)",
    ),
    explanation=(
        "The columns are found anew in each call, from the tokens of that call. So the same channel may be out in one "
        "call and in int8 in the next, and a longer batch takes more columns out than a single token does: one token "
        "is enough to take the channel out for all. Since outliers of large models sit in the same few channels of "
        'nearly all tokens, that costs little there. bitsandbytes takes the threshold 0 for "no decomposition".'
    ),
)
