"""smoothquant.scales: how much of each channel's difficulty goes to the weights (Xiao et al. 2022, eq. 4)."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import near, sizes, smoothing


def smoothing_scales(input_max, weight_max, alpha):
    """Find the number that each input channel is divided by, and its weights multiplied by.

    input_max: float32 (in,), the largest |x| of each input channel, at least 0.
    weight_max: float32 (in,), the largest |w| of each input channel, at least 0.
    alpha: from 0 to 1, the share of the difficulty that goes to the weights.

    Returns scales: float32 (in,), all positive and finite:
        input_max**alpha / weight_max**(1 - alpha), however small or large the two are;
        1 for every channel in which input_max or weight_max is 0, for any alpha.
    """
    scales = input_max.pow(alpha) / weight_max.pow(1 - alpha)
    dead = (input_max == 0) | (weight_max == 0)
    return torch.where(dead, 1.0, scales)


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def both(count: int, spread: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
        return sizes(random, count, spread), 0.3 * sizes(random, count, 0.5)

    outlier = both(8)
    outlier[0][seed % 8] = 80.0 + 20 * torch.rand(1, generator=random).item()
    dead = both(7)
    dead[0][[1, 4]] = 0.0
    unused = both(6)
    unused[1][2] = 0.0
    either = both(6)
    either[0][[0, 3]], either[1][[3, 5]] = 0.0, 0.0
    tiny = both(5)
    tiny[0][1], tiny[1][3] = 3e-8 * (1 + torch.rand(1, generator=random).item()), 2e-7
    return [
        Case("the channels of the card", (torch.tensor([64.0, 1.0, 0.0]), torch.tensor([1.0, 4.0, 2.0]), 0.5)),
        Case("alpha 0.5", (*both(6), 0.5)),
        Case("alpha 0.85, as for Llama", (*both(9), 0.85)),
        Case("alpha 0.3", (*both(5, 1.5), 0.3)),
        Case("an outlier channel", (*outlier, 0.75)),
        Case("alpha 1: all of it to the weights", (*both(6), 1.0)),
        Case("alpha 0: all of it to the inputs", (*both(6), 0.0)),
        Case("channels whose inputs are always zero", (*dead, 0.5)),
        Case("a channel whose weights are zero", (*unused, 0.5)),
        Case("dead channels and alpha 0", (*either, 0.0)),
        Case("dead channels and alpha 1", (*either, 1.0)),
        Case("inputs and weights that are nearly zero", (*tiny, 0.6)),
        Case("nothing but zeros", (torch.zeros(4), sizes(random, 4), 0.5)),
        Case("one channel", (3 * sizes(random, 1), sizes(random, 1), 0.7)),
    ]


def are_float32_and_one_per_channel(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got, "scales", torch.float32, tuple(case.args[0].shape))


def are_positive_and_finite(case: Case, got: Any, expected: Any) -> Finding | None:
    wrong = ~(torch.isfinite(got) & (got > 0))
    if not bool(wrong.any()):
        return None
    index = int(wrong.nonzero()[0])
    return Finding(
        f"scales: {int(wrong.sum())} of {wrong.numel()} are not positive and finite",
        index=(index,),
        expected="a positive number",
        got=f"{got[index].item():g}",
    )


def dead_channels_get_one(case: Case, got: Any, expected: Any) -> Finding | None:
    input_max, weight_max, _ = case.args
    dead = (input_max == 0) | (weight_max == 0)
    return near(got[dead], "the scales of dead channels", torch.ones(int(dead.sum())))


def scales_are_those_of_the_formula(case: Case, got: Any, expected: Any) -> Finding | None:
    input_max, weight_max, alpha = case.args
    return near(got, "scales", smoothing(input_max.double(), weight_max.double(), alpha))


def _alive(input_max: Any, weight_max: Any, scales: Any) -> Any:
    return torch.where((input_max > 0) & (weight_max > 0), scales, 1.0)


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def in_another_type(input_max, weight_max, alpha):
    return smoothing_scales(input_max, weight_max, alpha).double()


@mutant(
    "the exponents change places: alpha belongs to the inputs, 1 - alpha to the weights. At 0.5 nobody notices; at "
    "0.85 the inputs keep most of their outliers."
)
def exponents_swapped(input_max, weight_max, alpha):
    return smoothing(input_max, weight_max, 1 - alpha)


@mutant("the scales are upside down. Inputs are divided by them, so a large input needs a large scale.")
def upside_down(input_max, weight_max, alpha):
    return 1 / smoothing(input_max, weight_max, alpha)


@mutant("inputs and weights change places: the formula has the inputs above and the weights below.")
def arguments_swapped(input_max, weight_max, alpha):
    return smoothing(weight_max, input_max, alpha)


@mutant("the powers are multiplied. A channel with large weights must not be made larger still: divide by them.")
def multiplied(input_max, weight_max, alpha):
    return _alive(input_max, weight_max, input_max**alpha * weight_max ** (1 - alpha))


@mutant("the weights are left out, which is the formula only for alpha 1. Divide by weight_max ** (1 - alpha).")
def weights_left_out(input_max, weight_max, alpha):
    return _alive(input_max, weight_max, input_max**alpha)


@mutant("both have the exponent alpha. The weights have the rest, 1 - alpha.")
def same_exponent(input_max, weight_max, alpha):
    return _alive(input_max, weight_max, (input_max / weight_max) ** alpha)


@mutant("the argument alpha is not used; every call takes 0.5.")
def always_one_half(input_max, weight_max, alpha):
    return smoothing(input_max, weight_max, 0.5)


@mutant("the maxima are multiplied by alpha and 1 - alpha. Both are exponents: input_max ** alpha.")
def alpha_as_a_factor(input_max, weight_max, alpha):
    return _alive(input_max, weight_max, input_max * alpha / (weight_max * (1 - alpha))).nan_to_num(posinf=1e30)


@mutant(
    "dead channels are not treated: 0 ** alpha is 0, so the scale is 0 and the input becomes 0 / 0; or the weights are "
    "0, and the scale is infinite. Give these channels the scale 1."
)
def dead_channels_forgotten(input_max, weight_max, alpha):
    return input_max**alpha / weight_max ** (1 - alpha)


@mutant("a channel without inputs gets the scale 1, one without weights does not: it is divided by 0.")
def dead_weights_forgotten(input_max, weight_max, alpha):
    return torch.where(input_max > 0, input_max**alpha / weight_max ** (1 - alpha), 1.0)


@mutant("a channel without weights gets the scale 1, one without inputs does not: its scale is 0.")
def dead_inputs_forgotten(input_max, weight_max, alpha):
    return torch.where(weight_max > 0, input_max**alpha / weight_max ** (1 - alpha), 1.0)


@mutant(
    "only a scale that is 0, infinite or NaN becomes 1. With alpha 0 a dead input has a finite scale, because 0 ** 0 "
    "is 1, and so has a dead weight with alpha 1. Ask for the maxima, not for the result."
)
def repaired_afterwards(input_max, weight_max, alpha):
    scales = input_max**alpha / weight_max ** (1 - alpha)
    return torch.where(torch.isfinite(scales) & (scales > 0), scales, 1.0)


@mutant(
    "maxima below 1e-5 are raised to it, as the authors' code does. Then a dead channel has a scale that is neither 1 "
    "nor of any use, and a small one has the wrong scale. Treat 0 alone."
)
def clamped_as_in_the_authors_code(input_max, weight_max, alpha):
    return (input_max.clamp(min=1e-5) ** alpha / weight_max.clamp(min=1e-5) ** (1 - alpha)).clamp(min=1e-5)


@mutant(
    "a small number is added to the maxima, so that nothing is 0. It changes small channels, and dead ones get no 1."
)
def epsilon_added(input_max, weight_max, alpha):
    return (input_max + 1e-6) ** alpha / (weight_max + 1e-6) ** (1 - alpha)


@mutant("dead channels get the scale 0. The input is divided by it: 0 / 0 is NaN. 1 leaves the channel as it is.")
def dead_channels_get_zero(input_max, weight_max, alpha):
    dead = (input_max == 0) | (weight_max == 0)
    return smoothing(input_max, weight_max, alpha).masked_fill(dead, 0.0)


@mutant("scales below 1 are raised to 1. A channel whose inputs are small and whose weights are large has one below 1.")
def never_below_one(input_max, weight_max, alpha):
    return smoothing(input_max, weight_max, alpha).clamp(min=1.0)


@mutant(
    "the scales are divided by their largest. Nothing in the formula asks for that: the factor would go to all weights."
)
def normalized(input_max, weight_max, alpha):
    scales = smoothing(input_max, weight_max, alpha)
    return scales / scales.max()


@mutant(
    "the scales are divided by the root of the largest times the smallest. That is a step of AWQ; SmoothQuant leaves "
    "them as they are."
)
def normalized_as_awq(input_max, weight_max, alpha):
    scales = smoothing(input_max, weight_max, alpha)
    return scales / (scales.max() * scales.min()).sqrt()


@mutant("one scale for all channels: the maximum over them is taken once more. Each channel has its own.")
def one_for_all(input_max, weight_max, alpha):
    return smoothing(input_max.max().expand_as(input_max), weight_max.max().expand_as(weight_max), alpha)


@mutant("there is no scaling at all: every scale is 1.")
def all_ones(input_max, weight_max, alpha):
    return torch.ones_like(input_max)


@mutant("the scales have a second dimension, (1, in). Return one number per channel, (in,).")
def as_a_row(input_max, weight_max, alpha):
    return smoothing_scales(input_max, weight_max, alpha)[None]


def in_float64(input_max, weight_max, alpha):
    """Right, with numpy's power."""
    x, w = input_max.double().numpy(), weight_max.double().numpy()
    alive = (x > 0) & (w > 0)
    scales = torch.ones(len(x))
    scales[torch.from_numpy(alive)] = torch.from_numpy(x[alive] ** alpha / w[alive] ** (1 - alpha)).float()
    return scales


def by_logarithms(input_max, weight_max, alpha):
    """Right, with the dead channels set to 1 on both sides first."""
    dead = (input_max == 0) | (weight_max == 0)
    x, w = input_max.masked_fill(dead, 1.0), weight_max.masked_fill(dead, 1.0)
    return torch.exp(alpha * x.log() - (1 - alpha) * w.log())


def channel_by_channel(input_max, weight_max, alpha):
    """Right, by a loop over Python's own floats."""
    pairs = zip(input_max.tolist(), weight_max.tolist(), strict=True)
    return torch.tensor([x**alpha / w ** (1 - alpha) if x and w else 1.0 for x, w in pairs])


QUESTION = Question(
    id="smoothquant.scales",
    title="Half of the difficulty for each",
    reference=smoothing_scales,
    cases=cases,
    properties=(
        are_float32_and_one_per_channel,
        are_positive_and_finite,
        dead_channels_get_one,
        scales_are_those_of_the_formula,
    ),
    mutants=(
        in_another_type,  # first: what is wrong in its types only looks like this one
        exponents_swapped,
        upside_down,
        arguments_swapped,
        multiplied,
        weights_left_out,
        same_exponent,
        always_one_half,
        alpha_as_a_factor,
        dead_channels_forgotten,
        dead_weights_forgotten,
        dead_inputs_forgotten,
        repaired_afterwards,
        clamped_as_in_the_authors_code,
        epsilon_added,
        dead_channels_get_zero,
        never_below_one,
        normalized,
        normalized_as_awq,
        one_for_all,
        all_ones,
        as_a_row,
    ),
    alternatives=(in_float64, by_logarithms, channel_by_channel),
    hints=(
        "One division of two powers. Which of the two maxima has the exponent alpha, if alpha 1 leaves the inputs with "
        "no outliers at all? And what is 0 to the power 0?",
        "alpha goes to the inputs, 1 - alpha to the weights. A dead channel is one where either maximum is 0; find it "
        "by the maxima, because with alpha 0 or 1 its quotient may look harmless.",
        "scales = input_max.pow(alpha) / weight_max.pow(1 - alpha); then torch.where((input_max == 0) | (weight_max == "
        "0), 1.0, scales).",
    ),
    explanation=(
        "At alpha 0.5 the largest input and the largest weight of every channel become equal: both are the root of "
        "their product. On the card 64 and 1 become 8 and 8. At 1 all inputs have the same maximum, 1, and the weights "
        "have every outlier; at 0 it is the other way round. The paper uses 0.5 for OPT and BLOOM, and its authors 0.8 "
        "to 0.9 for Llama and Mistral. A dead channel adds nothing to any output, so its scale is free, as long as it "
        "is neither 0 nor infinite: 1 leaves the channel alone. The authors' code raises all maxima to 1e-5 instead. "
        "Then a dead input channel with weights of 1 gets the scale 0.003 at alpha 0.5: harmless on the calibration "
        "data, and an input 300 times too large on the first token in which this channel is alive."
    ),
)
