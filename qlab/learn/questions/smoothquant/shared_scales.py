"""smoothquant.shared_scales: layers that read the same input share its scales (Xiao et al. 2022, section 4)."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import near, normal, sizes, smoothing

_OF_THE_CARD = (
    torch.tensor([64.0, 1.0, 4.0]),
    (torch.tensor([[1.0, -4.0, 0.0], [0.5, 2.0, 0.0]]), torch.tensor([[-4.0, 1.0, 0.0]])),
    0.5,
)


def shared_scales(input_max, weights, alpha):
    """Find one set of smoothing scales for all layers that read the same input.

    input_max: float32 (in,), the largest |x| of each input channel, at least 0.
    weights: a tuple of at least one float32 (out_i, in), such as those of q, k and v. The
        numbers of outputs may differ; in is the same.
    alpha: from 0 to 1.

    Returns scales: float32 (in,), for each channel
        input_max**alpha / weight_max**(1 - alpha),
        where weight_max is the largest |w| of the channel in any row of any layer;
        1 where input_max or weight_max is 0.
    """
    weight_max = torch.stack([w.abs().amax(dim=0) for w in weights]).amax(dim=0)  # (in,)
    scales = input_max.pow(alpha) / weight_max.pow(1 - alpha)
    dead = (input_max == 0) | (weight_max == 0)
    return torch.where(dead, 1.0, scales)


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def layers(columns: int, *outs: int) -> tuple[torch.Tensor, ...]:
        return tuple(normal(random, out, columns) * sizes(random, columns, 0.6) for out in outs)

    def negative(columns: int, *outs: int) -> tuple[torch.Tensor, ...]:
        """The largest magnitudes are below zero."""
        drawn = layers(columns, *outs)
        return tuple(torch.where(w.abs() == w.abs().amax(dim=0), -3 * w.abs(), w) for w in drawn)

    q, k, v = layers(6, 6, 6, 6)
    dead = sizes(random, 5)
    dead[1] = 0.0
    one_dead, other_dead = layers(5, 4, 3)
    one_dead[:, [2, 3]], other_dead[:, [0, 3]] = 0.0, 0.0
    return [
        Case("the layers of the card", _OF_THE_CARD),
        Case("one layer", (sizes(random, 5), layers(5, 3), 0.5)),
        Case("q, k and v, the last layer the largest", (20 * sizes(random, 6), (q, k, 4 * v), 0.5)),
        Case("q, k and v, the middle layer the largest", (sizes(random, 6), (q, 5 * k, v), 0.6)),
        Case("fewer key heads than query heads", (sizes(random, 4), layers(4, 8, 2, 2), 0.85)),
        Case("gate and up", (sizes(random, 5), layers(5, 7, 7), 0.75)),
        Case("as many layers as channels", (sizes(random, 3), layers(3, 2, 4, 3), 0.4)),
        Case("large negative weights", (sizes(random, 4), negative(4, 5, 3), 0.5)),
        Case("a channel whose inputs are always zero", (dead, layers(5, 4, 2), 0.5)),
        Case("channels without weights in one layer or in all", (sizes(random, 5), (one_dead, other_dead), 0.5)),
        Case("alpha 1", (sizes(random, 4), layers(4, 3, 3), 1.0)),
        Case("alpha 0", (sizes(random, 4), layers(4, 3, 5), 0.0)),
        Case("a single channel", (2 * sizes(random, 1), layers(1, 3, 2), 0.3)),
    ]


def are_float32_and_one_per_channel(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got, "scales", torch.float32, tuple(case.args[0].shape))


def scales_have_the_largest_weight(case: Case, got: Any, expected: Any) -> Finding | None:
    input_max, weights, alpha = case.args
    largest = torch.cat(weights).double().abs().amax(dim=0)
    return near(got, "scales", smoothing(input_max.double(), largest, alpha))


def _maxima(weights: Any) -> Any:
    """(layers, in)."""
    return torch.stack([w.abs().amax(dim=0) for w in weights])


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def in_another_type(input_max, weights, alpha):
    return shared_scales(input_max, weights, alpha).double()


@mutant(
    "each layer has scales of its own. They read the same input, which can be divided only once: with two sets of "
    "scales one of the layers gets inputs that do not fit its weights."
)
def one_set_for_each_layer(input_max, weights, alpha):
    return tuple(smoothing(input_max, w.abs().amax(dim=0), alpha) for w in weights)


@mutant("only the first layer is looked at. The largest weight of a channel may be in any of them.")
def first_layer_only(input_max, weights, alpha):
    return smoothing(input_max, weights[0].abs().amax(dim=0), alpha)


@mutant("only the last layer is looked at: inside a loop the maximum is replaced instead of kept.")
def last_layer_only(input_max, weights, alpha):
    return smoothing(input_max, weights[-1].abs().amax(dim=0), alpha)


@mutant("the mean over the layers is taken. What limits a grid is the largest weight on it: take the maximum.")
def mean_over_layers(input_max, weights, alpha):
    return smoothing(input_max, _maxima(weights).mean(dim=0), alpha)


@mutant(
    "the smallest of the layers' maxima counts: by amin, or by the largest of the layers' scales, which belongs to the "
    "smallest weight. Take the maximum over the weights first, then the formula."
)
def smallest_over_layers(input_max, weights, alpha):
    return smoothing(input_max, _maxima(weights).amin(dim=0), alpha)


@mutant("the layers' maxima are added. Take the largest of them.")
def sum_over_layers(input_max, weights, alpha):
    return smoothing(input_max, _maxima(weights).sum(dim=0), alpha)


@mutant("the layers' scales are averaged. The formula is used once, with the largest weight of all layers.")
def mean_of_scales(input_max, weights, alpha):
    return torch.stack([smoothing(input_max, w.abs().amax(dim=0), alpha) for w in weights]).mean(dim=0)


@mutant(
    "the largest value is taken, not the largest magnitude: a weight of -4 counts less than one of 1. Take abs() "
    "before the maximum; afterwards it is too late."
)
def without_abs(input_max, weights, alpha):
    largest = torch.stack([w.amax(dim=0) for w in weights]).amax(dim=0)
    return smoothing(input_max, largest, alpha)


@mutant("the mean magnitude of the weights is taken, as AWQ does for inputs. SmoothQuant has maxima on both sides.")
def mean_magnitude_of_weights(input_max, weights, alpha):
    return smoothing(input_max, torch.cat(weights).abs().mean(dim=0), alpha)


@mutant("the norm of a channel's weights is taken. SmoothQuant asks for the largest magnitude.")
def norm_of_weights(input_max, weights, alpha):
    return smoothing(input_max, torch.cat(weights).norm(dim=0), alpha)


@mutant("one maximum for the whole of the weights: every channel gets the same denominator. Keep the columns apart.")
def one_maximum_for_all(input_max, weights, alpha):
    return smoothing(input_max, torch.cat(weights).abs().max().expand_as(input_max), alpha)


@mutant(
    "the maximum runs along the rows, dim=1, which gives a number per output. An input channel is a column of (out, "
    "in): dim=0."
)
def maximum_along_rows(input_max, weights, alpha):
    return smoothing(input_max, torch.stack([w.abs().amax(dim=1) for w in weights]).amax(dim=0), alpha)


@mutant(
    "the maximum runs over dim=1 of all rows together, which gives a number per output. An input channel is a column: "
    "dim=0 of (out, in)."
)
def maximum_along_rows_of_all(input_max, weights, alpha):
    return smoothing(input_max, torch.cat(weights).abs().amax(dim=1), alpha)


@mutant(
    "the weights are stacked as they are, which works only where all layers have the same number of outputs. Take each "
    "layer's maxima first; those have one shape."
)
def stacked_whole(input_max, weights, alpha):
    return smoothing(input_max, torch.stack(weights).abs().amax(dim=(0, 1)), alpha)


@mutant("the exponents change places: alpha belongs to the inputs, 1 - alpha to the weights.")
def exponents_swapped(input_max, weights, alpha):
    return smoothing(input_max, _maxima(weights).amax(dim=0), 1 - alpha)


@mutant("the scales are upside down. Inputs are divided by them, so a large input needs a large scale.")
def upside_down(input_max, weights, alpha):
    return 1 / smoothing(input_max, _maxima(weights).amax(dim=0), alpha)


@mutant("dead channels are not treated, and 0 is divided, or divided by. Give them the scale 1.")
def dead_channels_forgotten(input_max, weights, alpha):
    return input_max**alpha / _maxima(weights).amax(dim=0) ** (1 - alpha)


@mutant(
    "a channel gets the scale 1 as soon as one layer has no weights there. The others still read it: it is dead only "
    "if all layers have zeros."
)
def dead_if_in_any_layer(input_max, weights, alpha):
    maxima = _maxima(weights)
    return torch.where(maxima.amin(dim=0) > 0, smoothing(input_max, maxima.amax(dim=0), alpha), 1.0)


def all_rows_as_one_layer(input_max, weights, alpha):
    """Right: layers that share an input are one layer with more rows."""
    largest = torch.cat(weights).double().abs().max(dim=0).values
    dead = (largest == 0) | (input_max == 0)
    scales = input_max.double() ** alpha / largest.masked_fill(dead, 1.0) ** (1 - alpha)
    return scales.masked_fill(dead, 1.0).float()


def by_a_running_maximum(input_max, weights, alpha):
    """Right, by a loop over the layers."""
    largest = torch.zeros_like(input_max)
    for w in weights:
        largest = torch.maximum(largest, torch.linalg.vector_norm(w, float("inf"), dim=0))
    alive = (largest > 0) & (input_max > 0)
    return torch.where(alive, torch.exp(alpha * input_max.log() - (1 - alpha) * largest.log()), torch.tensor(1.0))


def smallest_of_the_scales(input_max, weights, alpha):
    """Right: the scale falls as the weight grows, so the smallest one belongs to the largest weight."""
    largest = [w.abs().amax(dim=0) for w in weights]
    each = torch.stack([input_max**alpha / one ** (1 - alpha) for one in largest]).amin(dim=0)
    dead = (torch.stack(largest).sum(dim=0) == 0) | (input_max == 0)
    return each.masked_fill(dead, 1.0)


QUESTION = Question(
    id="smoothquant.shared_scales",
    title="One input, three layers",
    reference=shared_scales,
    cases=cases,
    properties=(are_float32_and_one_per_channel, scales_have_the_largest_weight),
    mutants=(
        in_another_type,  # first: what is wrong in its types only looks like this one
        one_set_for_each_layer,
        first_layer_only,
        last_layer_only,
        mean_over_layers,
        smallest_over_layers,
        sum_over_layers,
        mean_of_scales,
        without_abs,
        mean_magnitude_of_weights,
        norm_of_weights,
        one_maximum_for_all,
        maximum_along_rows,
        maximum_along_rows_of_all,
        stacked_whole,
        exponents_swapped,
        upside_down,
        dead_channels_forgotten,
        dead_if_in_any_layer,
    ),
    alternatives=(all_rows_as_one_layer, by_a_running_maximum, smallest_of_the_scales),
    hints=(
        "q, k and v read the very same numbers. If you wrote their rows into one matrix, would anything change? Along "
        "which dimension do you then look for the largest weight?",
        "Take abs() and the maximum over dim=0 of each layer: (in,) for all of them, whatever their outputs. "
        "Then the maximum over the layers, and only then the formula of question 1.",
        "weight_max = torch.stack([w.abs().amax(dim=0) for w in weights]).amax(dim=0); scales = input_max.pow(alpha) / "
        "weight_max.pow(1 - alpha), and 1 where either maximum is 0.",
    ),
    explanation=(
        "The input is divided once, in the norm before the layers, so there is one set of scales. Layers that share an "
        "input are one layer with more rows: torch.cat(weights) is as good a start. The maximum comes before the "
        "formula. Averaging the layers' scales afterwards gives a number that fits none of them, and the largest scale "
        "would belong to the smallest weights. A channel is dead only if no layer reads it. In a Llama block there are "
        "two such groups, q, k, v and gate, up. In a mixture of experts the router belongs to the second one as well: "
        "it reads the same norm, and a router that is left out sends tokens to the wrong experts."
    ),
)
