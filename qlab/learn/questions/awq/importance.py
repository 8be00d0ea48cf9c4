"""awq.importance: the mean magnitude of every input channel, over all tokens (Lin et al. 2024, section 3.2)."""

from __future__ import annotations

from typing import Any

import torch

from ...question import Case, Finding, Question, mutant
from .shared import near


def mean_magnitude(batches):
    """Measure how large each input channel is, on average over all tokens.

    batches: a tuple of at least one tensor, each float16 or float32
        (batch, tokens, in). The first two sizes differ from tensor to tensor and may
        be 0; in is the same.

    Returns means: float32 (in,), for each channel the mean of |x| over all tokens of all
        batches, each token counted once; zeros where there is no token at all.
    """
    total = torch.zeros(batches[0].shape[-1])  # float32
    count = 0
    for x in batches:
        total += x.float().abs().sum(dim=(0, 1))
        count += x.shape[0] * x.shape[1]
    return total / max(count, 1)


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    sizes = torch.tensor([0.1, 1.0, 30.0, 0.5, 2.0])
    opposite = normal(2, 3, 4)
    opposite = torch.cat([opposite, -opposite], dim=1) + 0.01
    dead = normal(2, 5, 6)
    dead[..., 2] = 0.0
    return [
        Case("one batch", (((normal(2, 7, 5) * sizes),),)),
        Case("the batches of the card", (_OF_THE_CARD,)),
        Case("batches of different lengths", ((normal(1, 9, 4), 3 * normal(1, 2, 4), 0.2 * normal(1, 5, 4)),)),
        Case("different numbers of sequences", ((normal(4, 3, 3), 4 * normal(1, 6, 3)),)),
        Case("as many tokens as channels", ((normal(4, 4, 4) + 0.3, 2 * normal(2, 4, 4)),)),
        Case("channels of both signs, which cancel", ((opposite, 2 * normal(1, 3, 4)),)),
        Case("all values negative", ((-normal(2, 4, 3).abs() - 1, -normal(1, 3, 3).abs() * 5),)),
        Case("a channel that is always zero", ((dead, normal(1, 4, 6) * (dead[:1, :1] != 0)),)),
        Case(
            "float16, with sums beyond its range", (((1500 + 900 * normal(2, 40, 3)).half(), normal(1, 9, 3).half()),)
        ),
        Case("a batch without tokens among others", ((normal(2, 3, 4), torch.zeros(3, 0, 4), 5 * normal(1, 2, 4)),)),
        Case("a first batch without sequences", ((torch.zeros(0, 5, 3), normal(2, 4, 3) + 1),)),
        Case("no tokens at all", ((torch.zeros(2, 0, 4), torch.zeros(0, 3, 4)),)),
        Case("a single token", ((normal(1, 1, 6),),)),
    ]


_OF_THE_CARD = (
    torch.tensor([[[1.0, -2.0, 0.0], [-1.0, -4.0, 0.0], [3.0, 0.0, 0.0]]]),
    torch.tensor([[[-3.0, 2.0, 8.0]]]),
)


def _exact(case: Case) -> torch.Tensor:
    flat = torch.cat([x.double().flatten(0, 1) for x in case.args[0]])  # (tokens, in)
    return flat.abs().sum(dim=0) / max(len(flat), 1)


def means_are_of_magnitudes(case: Case, got: Any, expected: Any) -> Finding | None:
    return near(got, "means", _exact(case))


def _tokens(x: Any) -> int:
    return int(x.shape[0] * x.shape[1])


def _all(batches: Any) -> Any:
    """(tokens, in) of all batches, in float32."""
    return torch.cat([x.float().flatten(0, 1) for x in batches])


def _mean(values: Any) -> Any:
    """As the reference ends: zeros where there is no token."""
    return values.sum(dim=0) / max(len(values), 1)


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def means_in_another_type(batches):
    return mean_magnitude(batches).double()


@mutant(
    "this is still the function with the bug: positive and negative values cancel, and a batch of one token counts as "
    "much as a batch of three."
)
def the_bug(batches):
    return torch.stack([x.float().sum(dim=(0, 1)) / max(_tokens(x), 1) for x in batches]).mean(dim=0)


@mutant(
    "abs() is missing, so positive and negative values cancel: a channel that swings between -5 and 5 looks as if it "
    "were never used, and a negative mean has no square root. Take abs() before you sum."
)
def missing_abs(batches):
    return _mean(_all(batches))


@mutant(
    "abs() comes too late: it makes the mean positive, but the values have cancelled by then. Take the magnitude of "
    "every value first."
)
def abs_after_the_mean(batches):
    return _mean(_all(batches)).abs()


@mutant(
    "abs() comes after the sum over each batch, so values cancel within a batch. Take the magnitude of every value "
    "first."
)
def abs_of_each_sum(batches):
    total = sum(x.float().sum(dim=(0, 1)).abs() for x in batches)
    return total / max(sum(map(_tokens, batches)), 1)


@mutant(
    "every batch counts the same, however many tokens it has. Add up sums and counts, and divide once at the end; or "
    "weight each batch's mean by its tokens."
)
def mean_of_the_batch_means(batches):
    return torch.stack([x.float().abs().sum(dim=(0, 1)) / max(_tokens(x), 1) for x in batches]).mean(dim=0)


@mutant(
    "a batch's mean is weighted by its number of sequences. A sequence of nine tokens says more than one of two: "
    "weight by tokens, sequences times length."
)
def weighted_by_sequences(batches):
    total = sum(x.float().abs().sum(dim=(0, 1)) / max(_tokens(x), 1) * x.shape[0] for x in batches)
    return total / max(sum(x.shape[0] for x in batches if _tokens(x)), 1)


@mutant(
    "every new batch counts half: (mean + new) / 2 forgets what came before. A running mean moves by the share that "
    "the new tokens have among all so far."
)
def half_for_the_new_batch(batches):
    mean = None
    for x in batches:
        new = x.float().abs().sum(dim=(0, 1)) / max(_tokens(x), 1)
        mean = new if mean is None else (mean + new) / 2
    return mean


@mutant("each batch overwrites the one before, so only the last one counts. Add to what is there.")
def last_batch_only(batches):
    return _mean(_all(batches[-1:]).abs())


@mutant("only the first batch is used. Go through all of them.")
def first_batch_only(batches):
    return _mean(_all(batches[:1]).abs())


@mutant("the sum is not divided, so it grows with the number of tokens. Divide by the tokens of all batches.")
def never_divided(batches):
    return _all(batches).abs().sum(dim=0)


@mutant(
    "the sum is divided by the number of sequences. There is one value per token: divide by sequences times length."
)
def divided_by_sequences(batches):
    return _all(batches).abs().sum(dim=0) / max(sum(x.shape[0] for x in batches), 1)


@mutant(
    "the tensor is reshaped to (in, tokens) where it should be transposed, so values of different channels are mixed. "
    "The channels are the last axis: sum over the first two."
)
def reshaped_to_channels(batches):
    width = batches[0].shape[-1]
    total = sum(x.float().abs().reshape(width, _tokens(x)).sum(dim=1) for x in batches)
    return total / max(sum(map(_tokens, batches)), 1)


@mutant(
    "the mean runs over the channels, so there is one number per token. Importance belongs to the input channels, the "
    "last axis: average over the other two."
)
def one_per_token(batches):
    return torch.cat([x.float().abs().mean(dim=2).flatten() for x in batches])


@mutant(
    "this is the largest magnitude, which SmoothQuant uses. One stray token decides it; AWQ asks how large a channel "
    "is on average."
)
def largest_magnitude(batches):
    values = _all(batches).abs()
    return values.amax(dim=0) if len(values) else values.new_zeros(values.shape[1])


@mutant("this is the root of the mean square, in which large values count more. AWQ takes the mean of the magnitudes.")
def root_mean_square(batches):
    return _mean(_all(batches).square()).sqrt()


@mutant(
    "this is the mean of the squares, the diagonal of a Hessian. AWQ takes the mean of the magnitudes, which has the "
    "unit of the activations."
)
def mean_square(batches):
    return _mean(_all(batches).square())


@mutant(
    "this is the standard deviation. It takes the mean of a channel away, but a weight is multiplied by the whole "
    "value: a channel that is constantly 50 matters."
)
def standard_deviation(batches):
    values = _all(batches)
    return (_mean(values.square()) - _mean(values).square()).clamp(min=0).sqrt()


@mutant(
    "the means are divided by the largest of them. Return them as they are; awq.scales, the next question, brings them "
    "to a common size in its own way."
)
def largest_is_one(batches):
    means = mean_magnitude(batches)
    return means / means.max().clamp(min=1e-30)


@mutant("the sum is kept in float16, which ends at 65,504 and then says inf. Convert to float32 before you add up.")
def summed_in_float16(batches):
    total = sum(x.abs().sum(dim=(0, 1)) for x in batches)
    return total.float() / max(sum(map(_tokens, batches)), 1)


@mutant(
    "a batch without tokens has no mean: 0 / 0 is NaN, and one NaN spoils the average, even with a weight of 0. Add up "
    "sums, which are 0 there."
)
def an_empty_batch_gives_nan(batches):
    total = sum(x.float().abs().mean(dim=(0, 1)) * _tokens(x) for x in batches)
    return total / max(sum(map(_tokens, batches)), 1)


@mutant(
    "without any token the sum is divided by 0, and 0 / 0 is NaN. That is an expert that no token reached: give it "
    "zeros."
)
def nothing_gives_nan(batches):
    return _all(batches).abs().sum(dim=0) / sum(map(_tokens, batches))


def all_at_once(batches):
    """Right, with all tokens in one matrix; it needs the memory for them."""
    values = torch.cat([x.reshape(-1, x.shape[-1]).double() for x in batches]).abs()
    return torch.nan_to_num(values.mean(dim=0)).float()


def running_mean(batches):
    """Right, with a mean that moves by the new batch's share of all tokens so far."""
    mean, seen = torch.zeros(batches[0].shape[-1]), 0
    for x in batches:
        flat = x.float().flatten(0, 1).abs()
        if len(flat) > 0:
            seen += len(flat)
            mean = mean + (flat.mean(dim=0) - mean) * (len(flat) / seen)
    return mean


def token_by_token(batches):
    """Right, by loops over Python's own floats."""
    rows = [row for x in batches for sequence in x.tolist() for row in sequence]
    width = batches[0].shape[-1]
    return torch.tensor([sum(abs(row[j]) for row in rows) / max(len(rows), 1) for j in range(width)])


QUESTION = Question(
    id="awq.importance",
    title="Find the bug: an importance that cancels",
    reference=mean_magnitude,
    cases=cases,
    properties=(means_are_of_magnitudes,),
    mutants=(
        means_in_another_type,  # first: what is wrong in its types only looks like this one
        the_bug,
        missing_abs,
        abs_after_the_mean,
        abs_of_each_sum,
        mean_of_the_batch_means,
        weighted_by_sequences,
        half_for_the_new_batch,
        last_batch_only,
        first_batch_only,
        never_divided,
        divided_by_sequences,
        reshaped_to_channels,
        one_per_token,
        largest_magnitude,
        root_mean_square,
        mean_square,
        standard_deviation,
        largest_is_one,
        summed_in_float16,
        an_empty_batch_gives_nan,
        nothing_gives_nan,
    ),
    alternatives=(all_at_once, running_mean, token_by_token),
    hints=(
        "There are two bugs. Print what the function sees of a channel that is +5 and -5 in turn, and what it returns "
        "when you cut one batch into two of different lengths. The second must change nothing.",
        "Magnitudes first, so that nothing cancels. Then keep two things over all batches: the sum of the magnitudes "
        "of each channel, and the number of tokens. Divide once, at the end.",
        "total = torch.zeros(in), count = 0; for each x: total += x.float().abs().sum(dim=(0, 1)) and "
        "count += x.shape[0] * x.shape[1]; return total / max(count, 1).",
    ),
    explanation=(
        "In the card's example all three channels have the mean magnitude 2, and the function with the bug says -1, 0 "
        "and 4. The mean without abs() is near 0 wherever signs balance, so AWQ protects the wrong channels, and a "
        "negative mean to the power 0.5 is NaN, which every later loss inherits. A library that many people use had "
        "this bug until the summer of 2025 (llm-compressor, pull request 1788). The other half is the order of "
        "averaging: a mean of means is right only when all batches have the same number of tokens, and the last batch "
        "of a data set hardly ever has. Sums and counts are right for any cut, for empty batches as well. Convert "
        "before you add: 80 values of 1,500 are 120,000, and float16 ends at 65,504."
    ),
)
