"""awq.scales: from mean magnitudes to a scale for every input channel (Lin et al. 2024, eq. 5, as in llm-awq)."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import near

_FLOOR = 1e-4


def channel_scales(means, ratio):
    """Turn the importance of input channels into the scales that AWQ multiplies weights by.

    means: float32 (in,), at least 0; single channels or all of them may be 0.
    ratio: from 0, no scaling at all, to 1.

    Returns scales: float32 (in,), all positive and finite:
        each is means**ratio, but at least 1e-4; then all of them are divided by one
        number, so that the largest times the smallest is 1.
    """
    scales = means.pow(ratio).clamp(min=1e-4)
    return scales / (scales.max() * scales.min()).sqrt()


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def means(count: int, spread: float = 1.0) -> torch.Tensor:
        return torch.exp(spread * torch.randn(count, generator=random))

    dead = means(6)
    dead[[1, 4]] = 0.0
    tiny = means(5)
    tiny[2] = 3e-7 * (1 + torch.rand(1, generator=random).item())
    outlier = means(8)
    outlier[3] = 200.0 + 100 * torch.rand(1, generator=random).item()
    both = outlier.clone()
    both[5] = 1e-9
    return [
        Case("the channels of the card", (torch.tensor([1.0, 4.0, 16.0]), 0.5)),
        Case("ratio 0.5", (means(7), 0.5)),
        Case("ratio 0.35, and small activations", (0.02 * means(9), 0.35)),
        Case("an outlier channel", (outlier, 0.65)),
        Case("ratio 0, which changes nothing", (means(5), 0.0)),
        Case("ratio 1", (means(6), 1.0)),
        Case("channels that are always zero", (dead, 0.4)),
        Case("a channel of zero and ratio 0", (dead, 0.0)),
        Case("a channel so small that its power is below 1e-4", (tiny, 0.8)),
        Case("a channel so small that its power is above 1e-4", (tiny, 0.25)),
        Case("an outlier channel and one that is nearly zero", (both, 0.95)),
        Case("nothing but zeros", (torch.zeros(4), 0.5)),
        Case("one channel", (means(1) * 3, 0.7)),
        Case("channels of one size", (torch.full((5,), 0.3 + seed % 7), 0.6)),
    ]


def _exact(case: Case) -> torch.Tensor:
    means, ratio = case.args
    powers = (means.double() ** ratio).clamp(min=_FLOOR)
    return powers / (powers.max() * powers.min()).sqrt()


def are_float32_and_one_per_channel(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got, "scales", torch.float32, tuple(case.args[0].shape))


def are_positive_and_finite(case: Case, got: Any, expected: Any) -> Finding | None:
    wrong = ~(torch.isfinite(got) & (got > 0))
    if not bool(wrong.any()):
        return None
    index = tuple(wrong.nonzero()[0].tolist())
    return Finding(
        f"scales: {int(wrong.sum())} of {got.numel()} are not positive numbers",
        index=index,
        expected=f"{_exact(case)[index].item():.6g}",
        got=f"{got[index].item():g}",
    )


def largest_times_smallest_is_one(case: Case, got: Any, expected: Any) -> Finding | None:
    product = got.double().max() * got.double().min()
    return p.number_near(product, "the largest scale times the smallest", 1.0, 2e-4)


def scales_are_the_powers(case: Case, got: Any, expected: Any) -> Finding | None:
    return near(got, "scales", _exact(case))


def _normalized(scales: Any) -> Any:
    """The last line of the reference, which most of the mutants have right."""
    return scales / (scales.max() * scales.min()).sqrt()


def _powers(means: Any, ratio: float) -> Any:
    """And the line before it."""
    return means.pow(ratio).clamp(min=_FLOOR)


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def scales_in_another_type(means, ratio):
    return channel_scales(means, ratio).double()


@mutant(
    "the scales are not brought to a common size. Where all activations are small, all weights would be made small; "
    "divide by the root of the largest times the smallest."
)
def not_normalized(means, ratio):
    return _powers(means, ratio)


@mutant("the scales are divided by the largest times the smallest. The root of it is missing.")
def root_missing(means, ratio):
    scales = _powers(means, ratio)
    return scales / (scales.max() * scales.min())


@mutant(
    "the scales are divided by the root of largest over smallest, a quotient. It is their product under the root: the "
    "middle between the two, as a geometric mean."
)
def quotient_under_the_root(means, ratio):
    scales = _powers(means, ratio)
    return scales / (scales.max() / scales.min()).sqrt()


@mutant("the scales are divided by the largest. Then all of them are at most 1, and every weight would shrink.")
def largest_becomes_one(means, ratio):
    scales = _powers(means, ratio)
    return scales / scales.max()


@mutant("the scales are divided by their mean. It is the root of the largest times the smallest.")
def divided_by_the_mean(means, ratio):
    scales = _powers(means, ratio)
    return scales / scales.mean()


@mutant(
    "the scales are divided by the geometric mean of all of them. AWQ takes that of two, the largest and the smallest."
)
def geometric_mean_of_all(means, ratio):
    scales = _powers(means, ratio)
    return scales / scales.log().mean().exp()


@mutant(
    "the middle between the largest and the smallest is taken as a sum, (max + min) / 2. It is a geometric mean: the "
    "root of their product."
)
def arithmetic_middle(means, ratio):
    scales = _powers(means, ratio)
    return scales / ((scales.max() + scales.min()) / 2)


@mutant(
    "the lower limit of 1e-4 is missing. A channel that is always zero makes the smallest scale 0, and then everything "
    "is divided by 0: inf, and 0 / 0, which is NaN."
)
def limit_missing(means, ratio):
    return _normalized(means.pow(ratio))


@mutant(
    "the limit of 1e-4 is applied to the means, before the power. It belongs to the powers: 1e-4 to the power 0.4 is "
    "0.025, not 1e-4."
)
def limit_before_the_power(means, ratio):
    return _normalized(means.clamp(min=_FLOOR).pow(ratio))


@mutant(
    "the limit of 1e-4 is applied after the division, which has divided by 0 by then. First the limit, then the "
    "division."
)
def limit_after_the_division(means, ratio):
    return _normalized(means.pow(ratio)).clamp(min=_FLOOR)


@mutant("1e-4 is added to the means instead of being a lower limit of the powers. That moves small channels, too.")
def limit_added(means, ratio):
    return _normalized((means + _FLOOR).pow(ratio))


@mutant(
    "1e-4 is added to the powers. It is a lower limit: a power above it stays as it is, a power below it becomes 1e-4."
)
def limit_added_to_the_powers(means, ratio):
    return _normalized(means.pow(ratio) + _FLOOR)


@mutant("the lower limit is 1e-5, which is SmoothQuant's. Here it is 1e-4.")
def another_limit(means, ratio):
    return _normalized(means.pow(ratio).clamp(min=1e-5))


@mutant(
    "channels of zero get the scale 1 and are left out of the rest. That is sensible, and qlab.methods.awq does so; "
    "asked for is the rule of llm-awq, in which their power is 1e-4 and takes part in the smallest."
)
def zeros_become_one(means, ratio):
    scales = means.pow(ratio)
    used = means > 0
    if not bool(used.any()):
        return torch.ones_like(means)
    scales = scales.clamp(min=_FLOOR)
    return torch.where(used, scales / (scales[used].max() * scales[used].min()).sqrt(), 1.0)


@mutant(
    "the scales are the wrong way round: important channels get small ones. Weights are multiplied by the scale, and "
    "the important ones have to grow."
)
def upside_down(means, ratio):
    return 1 / channel_scales(means, ratio)


@mutant("the means are multiplied by the ratio. It is an exponent: means ** ratio.")
def ratio_as_a_factor(means, ratio):
    return _normalized((means * ratio).clamp(min=_FLOOR))


@mutant(
    "the exponent is 1 - ratio. With the ratio 0 nothing may change, so the ratio itself is the exponent; SmoothQuant "
    "has 1 - alpha, for the weights."
)
def one_minus_the_ratio(means, ratio):
    return channel_scales(means, 1 - ratio)


@mutant("the argument ratio is not used; every call takes the square root.")
def always_the_root(means, ratio):
    return channel_scales(means, 0.5)


@mutant(
    "the power goes through the logarithm, exp(ratio * log(means)). For a channel of zero and the ratio 0 that is "
    "0 * -inf, which is NaN; means ** 0 is 1."
)
def by_the_logarithm(means, ratio):
    return _normalized(torch.exp(ratio * means.log()).clamp(min=_FLOOR))


@mutant(
    "the scales have a second dimension, (1, in), as for a product with a matrix. Return one number per channel, (in,)."
)
def as_a_row(means, ratio):
    return channel_scales(means, ratio)[None]


def in_float64(means, ratio):
    """Right, with numpy's power and the limit by maximum."""
    powers = (means.double().numpy() ** ratio).clip(1e-4)
    return (powers / (powers.max() * powers.min()) ** 0.5).astype("float32")


def channel_by_channel(means, ratio):
    """Right, by a loop over Python's own floats; 0.0 ** 0 is 1 in Python, too."""
    powers = [max(value**ratio, 1e-4) for value in means.tolist()]
    middle = max(powers) ** 0.5 * min(powers) ** 0.5
    return torch.tensor([power / middle for power in powers])


def limit_carried_into_the_means(means, ratio):
    """Right, with the limit on the means, at the value whose power is 1e-4."""
    if ratio == 0:
        return torch.ones_like(means)
    scales = means.double().clamp(min=1e-4 ** (1 / ratio)) ** ratio
    return (scales / torch.sqrt(scales.amax() * scales.amin())).float()


QUESTION = Question(
    id="awq.scales",
    title="From importance to scales",
    reference=channel_scales,
    cases=cases,
    properties=(
        are_float32_and_one_per_channel,
        are_positive_and_finite,
        largest_times_smallest_is_one,
        scales_are_the_powers,
    ),
    mutants=(
        scales_in_another_type,  # first: what is wrong in its types only looks like this one
        not_normalized,
        root_missing,
        quotient_under_the_root,
        largest_becomes_one,
        divided_by_the_mean,
        geometric_mean_of_all,
        arithmetic_middle,
        limit_missing,
        limit_before_the_power,
        limit_after_the_division,
        limit_added,
        limit_added_to_the_powers,
        another_limit,
        zeros_become_one,
        upside_down,
        ratio_as_a_factor,
        one_minus_the_ratio,
        always_the_root,
        by_the_logarithm,
        as_a_row,
    ),
    alternatives=(in_float64, channel_by_channel, limit_carried_into_the_means),
    hints=(
        "Two lines. In which order do the power, the limit and the division come, if a channel of zero must never lead "
        "to a division by 0?",
        "First means ** ratio, then at least 1e-4, and then the division by the square root of (largest * smallest). "
        "0 to the power 0 is 1, so with the ratio 0 all scales are 1.",
        "scales = means.pow(ratio).clamp(min=1e-4); return scales / (scales.max() * scales.min()).sqrt().",
    ),
    explanation=(
        "The ratio moves between two extremes: at 0 all scales are 1, which is round to nearest, and at 1 they grow as "
        "fast as the activations. The division gives 0.5, 1 and 2 for the card's channels; it changes no rounding with "
        "a scale for each group, because the group's scale absorbs any common factor, but it keeps weights and gains "
        "inside the range of float16. The limit is there for dead channels. Without it the smallest scale is 0, every "
        "scale becomes infinite, and the channel itself 0 / 0, which is NaN. With it a dead channel does no harm to "
        "itself and pulls all others up: for 1, 4, 16 and 0 they are 50, 100 and 200. So look at the largest scale "
        "before you fold it into float16."
    ),
)
