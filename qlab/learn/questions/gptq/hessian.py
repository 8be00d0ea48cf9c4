"""gptq.hessian: the Hessian of a layer's squared error, from its calibration inputs (Frantar et al. 2023)."""

from __future__ import annotations

import math
from typing import Any

import torch

from ...question import Case, Finding, Question, mutant
from .layer import close, unit


def hessian(batches):
    """Compute the Hessian of a linear layer from its inputs.

    batches: a tuple of at least one tensor, float16 or float32, each (tokens, in) or
        (sequences, tokens, in). Batches differ in length, and some may hold no token.

    Returns float64 (in, in): 2 / n times the sum of x x^T over all n tokens of all
        batches, each x a column of in numbers; zeros where there is no token at all.
    """
    columns = batches[0].shape[-1]
    h = torch.zeros(columns, columns, dtype=torch.float64)
    n = 0
    for batch in batches:
        x = batch.reshape(-1, columns).double()  # (tokens, in)
        if len(x):
            n += len(x)
            h += (2 * x.T @ x - len(x) * h) / n  # a running mean
    return h


CARD = torch.tensor([[1.0, 2.0], [2.0, 0.0]])


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        # Few bits, so that sums are exact and the result is symmetric, in whatever order a processor adds.
        return torch.round(256 * torch.randn(*shape, generator=random)) / 256

    dead = normal(20, 4)
    dead[:, 2] = 0.0
    return [
        Case("the example of the card, in any unit", ((unit(seed) * CARD,),)),
        Case("one batch", ((normal(40, 5),),)),
        Case("a long and a short batch", ((normal(90, 4), 3 * normal(7, 4)),)),
        Case("three batches, the last one short", ((normal(16, 3), normal(16, 3), 5 * normal(2, 3)),)),
        Case("sequences of tokens", ((normal(3, 8, 5), normal(2, 8, 5)),)),
        Case("as many tokens as inputs", ((normal(6, 6),),)),
        Case("inputs with a mean far from zero", ((normal(30, 4) + 4, normal(11, 4) + 4),)),
        Case("an input that is always zero", ((dead,),)),
        Case("float16 inputs, and many of them", ((20 * normal(8, 32, 3).half(), 20 * normal(5, 3).half()),)),
        Case("a single token", ((normal(1, 4),),)),
        Case("an empty batch first", ((normal(0, 3), normal(9, 3), normal(4, 3)),)),
        Case("an empty batch last", ((normal(9, 3), normal(4, 3), normal(0, 3)),)),
        Case("no token at all", ((normal(0, 3),),)),
    ]


def is_the_mean_of_all_tokens(case: Case, got: Any, expected: Any) -> Finding | None:
    return close(got, "the Hessian", expected, 1e-5)  # float32 sums on the way are precise enough


def _tokens(batches: Any) -> Any:
    """All tokens of all batches, float64 (n, in)."""
    return torch.cat([batch.reshape(-1, batch.shape[-1]) for batch in batches]).double()


def _each(batches: Any) -> list[Any]:
    """The tokens of every batch, float64 (tokens, in)."""
    return [_tokens([batch]) for batch in batches]


def _mean(x: Any, n: float) -> Any:
    return 2 * x.T @ x / max(n, 1)


@mutant("it is a sum and no mean: divide by the number of tokens. A second batch would make the Hessian larger.")
def sum_without_the_mean(batches):
    return _mean(_tokens(batches), 1)


@mutant("the 2 is missing. The error is a square, and its second derivative is 2 x x^T.")
def two_forgotten(batches):
    return _mean(_tokens(batches), len(_tokens(batches))) / 2


@mutant(
    "this is X X^T with tokens as rows, so it has a number for each pair of tokens. Each input must meet each input: "
    "X^T X, which is (in, in)."
)
def tokens_by_tokens(batches):
    x = _tokens(batches)
    return 2 * x @ x.T / max(len(x), 1)


@mutant(
    "the mean is taken over the means of the batches, each with the same weight. A token in a short batch then counts "
    "more than one in a long batch. Weight every batch with its number of tokens."
)
def mean_of_the_means(batches):
    parts = [_mean(x, len(x)) for x in _each(batches) if len(x)]
    return sum(parts) / len(parts) if parts else _mean(_tokens(batches), 1)


@mutant(
    "the running mean gives the newest batch half of the weight, (old + new) / 2. After n tokens and t new ones the "
    "old mean has the weight n / (n + t)."
)
def halfway_each_time(batches):
    h = None
    for x in _each(batches):
        if len(x):
            h = _mean(x, len(x)) if h is None else (h + _mean(x, len(x))) / 2
    return _mean(_tokens(batches), 1) if h is None else h


@mutant(
    "what was collected before is not scaled down when n grows: every batch is divided by the tokens seen up to then "
    "and added. Multiply the old mean by n / (n + t) first."
)
def old_mean_not_rescaled(batches):
    h, n = 0.0, 0
    for x in _each(batches):
        n += len(x)
        h = h + _mean(x, n)
    return h


@mutant(
    "the mean of the inputs is taken away: this is a covariance. A linear layer sees the mean as well; leave it in."
)
def mean_removed(batches):
    x = _tokens(batches)
    return _mean(x - x.mean(dim=0) if len(x) else x, len(x))


@mutant(
    "the sum is kept in the type of the inputs. float16 has 11 bits and ends at 65,504: sums lose their last digits, "
    "then overflow. Convert the inputs to float64 before you multiply."
)
def in_the_type_of_the_inputs(batches):
    x = torch.cat([batch.reshape(-1, batch.shape[-1]) for batch in batches])
    return (2 * (x.T @ x) / max(len(x), 1)).double()


@mutant(
    "n counts what len() or shape[0] says, and for (sequences, tokens, in) that is sequences. Count tokens: reshape to "
    "(-1, in) first."
)
def sequences_counted(batches):
    return _mean(_tokens(batches), sum(len(batch) for batch in batches))


@mutant(
    "the sequences of a batch are not joined: the product of tensors with three dimensions is one matrix for each "
    "sequence. Reshape every batch to (-1, in) first."
)
def sequences_kept_apart(batches):
    parts = [batch.double().mT @ batch.double() for batch in batches]
    n = sum(batch.shape[-2] for batch in batches)
    return 2 * sum(parts) / max(n, 1)


@mutant("n counts numbers and not tokens: numel() is tokens times inputs.")
def numbers_counted(batches):
    return _mean(_tokens(batches), _tokens(batches).numel())


@mutant("only the last batch is left: every batch overwrites what was collected before. Add it up.")
def last_batch_only(batches):
    x = _tokens([batch for batch in batches if batch.numel()][-1:] or batches)
    return _mean(x, len(x))


@mutant("it is divided by n - 1, as an unbiased variance is. No mean was estimated here: divide by n.")
def divided_by_n_minus_one(batches):
    x = _tokens(batches)
    return _mean(x, len(x) - 1)


@mutant(
    "every x carries the factor 2 / n into a product of two x, so it is there twice. Scale x by its square root, or "
    "scale the product."
)
def factor_twice(batches):
    x = _tokens(batches)
    return _mean(x, 1) / 2 * (2 / max(len(x), 1)) ** 2


@mutant(
    "a batch without tokens is divided by its length, 0, and what comes out is NaN or an error. Leave such a batch out."
)
def empty_batch_divides(batches):
    h, n = 0.0, 0
    for x in _each(batches):
        n += len(x)
        h = h + torch.tensor(float(len(x))) / n * (2 * x.T @ x / torch.tensor(float(len(x))) - h) if n else h * math.nan
    return h


@mutant(
    "only the diagonal is there. That two inputs move together is what lets one weight make up for the error of "
    "another, and it stands beside the diagonal."
)
def diagonal_only(batches):
    x = _tokens(batches)
    return _mean(x, len(x)).diag().diag()


@mutant(
    "every entry is divided by the sizes of its two inputs, as in a correlation. That one input is larger than another "
    "is what tells which weights matter; leave it in."
)
def correlation(batches):
    x = _tokens(batches)
    h = _mean(x, len(x))
    size = h.diag().sqrt()
    return torch.nan_to_num(h / size[:, None] / size)


@mutant("the inputs lost their signs. Two inputs that move against each other have a negative entry in the Hessian.")
def signs_lost(batches):
    x = _tokens(batches).abs()
    return _mean(x, len(x))


def all_at_once(batches):
    """Right, with all tokens in memory: what nobody can do with a real model."""
    x = torch.cat([batch.double().flatten(0, -2) for batch in batches])  # (n, in)
    return torch.einsum("ni,nj->ij", x, x) * (2 / max(x.shape[0], 1))


def sum_in_float32(batches):
    """Right, summed as the usual libraries do it: in float32, every batch scaled on its way in."""
    columns = batches[0].shape[-1]
    h, n = torch.zeros(columns, columns), 0
    for batch in batches:
        x = batch.reshape(-1, columns).float()
        if x.numel() == 0:
            continue
        h *= n / (n + len(x))
        n += len(x)
        x = math.sqrt(2 / n) * x
        h += x.T @ x
    return h.double()


def token_by_token(batches):
    """Right, one outer product for each token, in numpy."""
    rows = [row for batch in batches for row in batch.double().reshape(-1, batch.shape[-1]).numpy()]
    zero = batches[0].new_zeros(batches[0].shape[-1], batches[0].shape[-1]).double().numpy()
    return sum((row[:, None] * row[None] for row in rows), start=zero) * 2 / (len(rows) or 1)


QUESTION = Question(
    id="gptq.hessian",
    title="The Hessian of a layer",
    reference=hessian,
    cases=cases,
    properties=(is_the_mean_of_all_tokens,),
    mutants=(
        sum_without_the_mean,
        two_forgotten,
        tokens_by_tokens,
        mean_of_the_means,
        halfway_each_time,
        old_mean_not_rescaled,
        mean_removed,
        in_the_type_of_the_inputs,
        sequences_counted,
        sequences_kept_apart,
        numbers_counted,
        last_batch_only,
        divided_by_n_minus_one,
        factor_twice,
        empty_batch_divides,
        diagonal_only,
        correlation,
        signs_lost,
    ),
    alternatives=(all_at_once, sum_in_float32, token_by_token),
    hints=(
        "Write down by how much the output of one row of weights changes for one token, and square it. Which matrix "
        "stands between the two changes? And what must happen to the mean so far when another batch comes?",
        "Bring every batch to (tokens, in) in float64, x. Then x.T @ x is the sum over its tokens. With a mean so far "
        "over n tokens and t new ones, the old mean gets the weight n / (n + t). A batch without tokens changes "
        "nothing.",
        "x = batch.reshape(-1, columns).double(); skip it if len(x) is 0; n += len(x); "
        "h += (2 * x.T @ x - len(x) * h) / n. Begin with h = zeros and n = 0.",
    ),
    explanation=(
        "The layer's squared error is a quadratic function of a row's weights, and this is its matrix of second "
        "derivatives: exact, the same for every row, and without a label or a gradient. It takes in * in numbers "
        "whatever the number of tokens: 67 MB in float32 for 4,096 inputs, while 128 sequences of 2,048 tokens would "
        "take 4.3 GB. The usual libraries divide by sequences instead of tokens, which multiplies the whole matrix by "
        "a constant and changes no code as long as the damping is relative. A mean over means is worse: it gives the "
        "tokens of a short batch more weight. As every token adds a matrix of rank 1, fewer tokens than inputs leave "
        "the matrix singular; the next question deals with that."
    ),
)
