"""llm_int8.implant: give a model outlier channels without changing what it computes; as `qlab.models.outliers` does."""

from __future__ import annotations

from typing import Any

import torch

from ...question import Case, Finding, Question, mutant
from ..folding import output_is_unchanged, returns_gain_bias_weights, types_and_shapes_stay
from .shared import near_products, normal


def implant(gain, bias, weights, channels, factor):
    """Make outliers of some channels of a norm's output, and keep the function.

    gain: float32 (in,), of the norm. Its output is h = gain * n + bias.
    bias: float32 (in,), or None: an RMSNorm has none, and then h = gain * n.
    weights: a tuple of float32 (out_i, in), of all layers that read h.
    channels: a tuple of different channel numbers, from 0 to in - 1; at least one.
    factor: a positive number.

    Returns (gain, bias, weights), new ones, of the same types and shapes (a list of weights
    is fine, too): in these channels h is `factor` times what it was, in all others as it
    was, and every w @ h is as it was, but for rounding in float32.
    """
    factors = torch.ones_like(gain)
    factors[list(channels)] = factor
    return gain * factors, None if bias is None else bias * factors, tuple(w / factors for w in weights)


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def gain(count: int) -> torch.Tensor:
        return 0.5 + torch.rand(count, generator=random)

    def some(count: int, columns: int) -> tuple[int, ...]:
        """Channels in no order, but never 0 to count - 1."""
        return tuple(columns - 1 - n for n in torch.randperm(columns - 1, generator=random)[:count].tolist())

    def case(
        name: str, columns: int, outs: tuple[int, ...], count: int, factor: float, bias: bool = False, size: float = 1.0
    ) -> Case:
        return Case(
            name,
            (
                size * gain(columns),
                normal(random, columns) if bias else None,
                tuple(normal(random, out, columns) for out in outs),
                some(count, columns),
                factor,
            ),
        )

    card = (
        torch.tensor([0.5, 2.0]),
        torch.tensor([1.0, -1.0]),
        (torch.tensor([[1.0, 4.0], [3.0, -8.0]]),),
        (1,),
        8.0,
    )
    return [
        Case("the norm of the card", card),
        case("an RMSNorm and one layer", 6, (4,), 1, 20.0),
        case("a LayerNorm, with a bias, and one layer", 6, (5,), 2, 20.0, bias=True),
        case("q, k and v behind an RMSNorm", 8, (8, 4, 4), 2, 64.0),
        case("q, k and v behind a LayerNorm", 6, (6, 6, 6), 2, 10.0, bias=True),
        case("gate and up, square", 5, (5, 5), 1, 3.0),
        case("a factor below 1 makes small channels", 7, (4, 3), 2, 0.05, bias=True),
        case("gains near zero", 6, (3, 5), 3, 30.0, bias=True, size=0.01),
        case("all channels but one", 5, (3, 4), 4, 7.0),
    ]


def _factors(case: Case) -> torch.Tensor:
    gain, _, _, channels, factor = case.args
    factors = torch.ones(len(gain), dtype=torch.float64)
    factors[list(channels)] = factor
    return factors


def channels_are_larger(case: Case, got: Any, expected: Any) -> Finding | None:
    """Gain and bias one by one: h could be right by chance on some states only."""
    gain, bias, _, _, _ = case.args
    for name, new, old in (("gain", got[0], gain), ("bias", got[1], bias)):
        if old is not None:
            exact = old.double() * _factors(case)
            if finding := near_products(new, name, exact, 1e-5 * exact.abs()):
                return finding
    return None


def _vector(gain: Any, channels: Any, factor: float) -> Any:
    factors = torch.ones_like(gain)
    factors[list(channels)] = factor
    return factors


def _times(bias: Any, factors: Any) -> Any:
    return None if bias is None else bias * factors


def _over(weights: Any, factors: Any) -> Any:
    return tuple(w / factors for w in weights)


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def in_another_type(gain, bias, weights, channels, factor):
    gain, bias, weights = implant(gain, bias, weights, channels, factor)
    return gain.double(), None if bias is None else bias.double(), tuple(w.double() for w in weights)


@mutant(
    "the factor goes the wrong way: h becomes smaller and the weights larger. The output is unchanged, so no test of "
    "the output notices; but these channels are no outliers."
)
def wrong_direction(gain, bias, weights, channels, factor):
    return implant(gain, bias, weights, channels, 1 / factor)


@mutant("all channels get the factor. Then every token is larger as a whole, and its scale with it: no outlier.")
def all_channels(gain, bias, weights, channels, factor):
    return implant(gain, bias, weights, range(len(gain)), factor)


@mutant("the other channels get the factor, all but those that are listed.")
def the_other_channels(gain, bias, weights, channels, factor):
    return implant(gain, bias, weights, [c for c in range(len(gain)) if c not in channels], factor)


@mutant("the channels are counted from 1. They are numbered from 0, as everywhere in torch.")
def counted_from_one(gain, bias, weights, channels, factor):
    return implant(gain, bias, weights, [c - 1 for c in channels], factor)


@mutant("the channels are taken as a number of channels: the first len(channels) get the factor.")
def so_many_channels(gain, bias, weights, channels, factor):
    return implant(gain, bias, weights, range(len(channels)), factor)


@mutant("only the first of the channels gets the factor.")
def first_channel_only(gain, bias, weights, channels, factor):
    return implant(gain, bias, weights, channels[:1], factor)


@mutant("the weights are multiplied like the norm, so the output grows twice. What h gains, the weights must lose.")
def both_multiplied(gain, bias, weights, channels, factor):
    factors = _vector(gain, channels, factor)
    return gain * factors, _times(bias, factors), tuple(w * factors for w in weights)


@mutant(
    "the rows of the weights are divided, which are outputs. A channel of h is a column of every weight: w[:, channel]."
)
def rows_divided(gain, bias, weights, channels, factor):
    factors = _vector(gain, channels, factor)
    weights = tuple(w.clone() for w in weights)
    for w in weights:
        w[list(channels)] /= factor
    return gain * factors, _times(bias, factors), weights


@mutant(
    "the factors are turned, factors[:, None], so they line up with the rows of the weights, which are outputs. A "
    "channel of h is a column: w / factors, without a new axis."
)
def factors_turned(gain, bias, weights, channels, factor):
    factors = _vector(gain, channels, factor)
    return gain * factors, _times(bias, factors), tuple(w / factors[:, None] for w in weights)


@mutant(
    "channels is a tuple, and a tuple in brackets has one index for each dimension. With two channels that is an "
    "error. Write gain[list(channels)]."
)
def tuple_for_an_index(gain, bias, weights, channels, factor):
    gain, weights = gain.clone(), tuple(w.clone() for w in weights)
    gain[channels] *= factor
    if bias is not None:
        bias = bias.clone()
        bias[channels] *= factor
    for w in weights:
        w[:, channels] /= factor
    return gain, bias, weights


@mutant(
    "the bias is forgotten. A LayerNorm adds it after the gain, so it is a part of h and must grow as the gain does."
)
def bias_forgotten(gain, bias, weights, channels, factor):
    factors = _vector(gain, channels, factor)
    return gain * factors, None if bias is None else bias.clone(), _over(weights, factors)


@mutant("the bias is divided. It is a part of h, like gain * n: multiply it.")
def bias_divided(gain, bias, weights, channels, factor):
    factors = _vector(gain, channels, factor)
    return gain * factors, None if bias is None else bias / factors, _over(weights, factors)


@mutant("the bias is lost: None comes back although the norm has one.")
def bias_lost(gain, bias, weights, channels, factor):
    factors = _vector(gain, channels, factor)
    return gain * factors, None, _over(weights, factors)


@mutant("an RMSNorm has no bias, and None cannot be multiplied or indexed. Return None for it.")
def bias_expected(gain, bias, weights, channels, factor):
    factors = _vector(gain, channels, factor)
    return gain * factors, bias * factors, _over(weights, factors)


@mutant(
    "an RMSNorm has no bias, and None cannot be copied: it has no clone(). Ask first whether bias is None, and give "
    "None back for it."
)
def none_cloned(gain, bias, weights, channels, factor):
    bias = bias.clone()
    bias[list(channels)] *= factor
    factors = _vector(gain, channels, factor)
    return gain * factors, bias, _over(weights, factors)


@mutant("a norm without a bias gets one of zeros. An RMSNorm has nowhere to keep it: return None.")
def bias_invented(gain, bias, weights, channels, factor):
    return implant(gain, torch.zeros_like(gain) if bias is None else bias, weights, channels, factor)


@mutant("the gain stays as it was, so h gets no outliers and the output loses these channels.")
def gain_forgotten(gain, bias, weights, channels, factor):
    factors = _vector(gain, channels, factor)
    return gain.clone(), _times(bias, factors), _over(weights, factors)


@mutant(
    "the factor becomes the gain. The gain is multiplied by it: every channel keeps the gain that it learned, times "
    "the factor."
)
def gain_replaced(gain, bias, weights, channels, factor):
    _, bias, weights = implant(gain, bias, weights, channels, factor)
    gain = gain.clone()
    gain[list(channels)] = factor
    return gain, bias, weights


@mutant(
    "the factor is added to the gain. h is `factor` times what it was if the gain is multiplied: every channel has a "
    "gain of its own."
)
def factor_added(gain, bias, weights, channels, factor):
    _, bias, weights = implant(gain, bias, weights, channels, factor)
    gain = gain.clone()
    gain[list(channels)] += factor
    return gain, bias, weights


@mutant("the factor is added to the gain and to the bias. Multiply both: h = gain * n + bias becomes `factor` times h.")
def factor_added_to_both(gain, bias, weights, channels, factor):
    _, _, new_weights = implant(gain, bias, weights, channels, factor)
    added = _vector(gain, channels, factor + 1) - 1  # factor in these channels, 0 elsewhere
    return gain + added, None if bias is None else bias + added, new_weights


@mutant(
    "the gain is multiplied once for each layer behind the norm. All layers read the same h, which grows once: keep "
    "it out of the loop."
)
def gain_multiplied_for_each_layer(gain, bias, weights, channels, factor):
    factors = _vector(gain, channels, factor)
    times = factors ** len(weights)
    return gain * times, _times(bias, times), _over(weights, factors)


@mutant("only the first weight is divided. Every layer that reads h needs it: q, k and v, or gate and up.")
def first_weight_only(gain, bias, weights, channels, factor):
    factors = _vector(gain, channels, factor)
    rest = tuple(w.clone() for w in weights[1:])
    return gain * factors, _times(bias, factors), (weights[0] / factors, *rest)


@mutant("the weights stay as they were, so the model computes something else. Divide their columns.")
def weights_forgotten(gain, bias, weights, channels, factor):
    factors = _vector(gain, channels, factor)
    return gain * factors, _times(bias, factors), tuple(w.clone() for w in weights)


@mutant("nothing is implanted: everything comes back as it was.")
def nothing_done(gain, bias, weights, channels, factor):
    return gain.clone(), None if bias is None else bias.clone(), tuple(w.clone() for w in weights)


@mutant("the whole weights are divided, all their columns. Only the columns of these channels are.")
def whole_weights_divided(gain, bias, weights, channels, factor):
    factors = _vector(gain, channels, factor)
    return gain * factors, _times(bias, factors), tuple(w / factor for w in weights)


@mutant("the weights come back as one matrix, stacked. Return a tuple with one weight for each layer.")
def weights_stacked(gain, bias, weights, channels, factor):
    factors = _vector(gain, channels, factor)
    return gain * factors, _times(bias, factors), torch.cat(weights) / factors


@mutant("the arguments are changed in place, by *= and /=. Return new tensors, and leave the model as it was.")
def in_place(gain, bias, weights, channels, factor):
    gain[list(channels)] *= factor
    if bias is not None:
        bias[list(channels)] *= factor
    for w in weights:
        w[:, list(channels)] /= factor
    return gain, bias, weights


def channel_by_channel(gain, bias, weights, channels, factor):
    """Right, by a loop over the channels of copies."""
    gain, weights = gain.clone(), [w.clone() for w in weights]
    bias = None if bias is None else bias.clone()
    for channel in channels:
        gain[channel] *= factor
        if bias is not None:
            bias[channel] *= factor
        for w in weights:
            w[:, channel] /= factor
    return gain, bias, weights


def by_diagonal_matrices(gain, bias, weights, channels, factor):
    """Right, as the mathematics has it: D h and W D⁻¹."""
    d = torch.eye(len(gain), dtype=torch.float64)
    d[list(channels), list(channels)] = factor
    inverse = torch.linalg.inv(d)
    new_bias = None if bias is None else (d @ bias.double()).float()
    return (d @ gain.double()).float(), new_bias, [(w.double() @ inverse).float() for w in weights]


QUESTION = Question(
    id="llm_int8.implant",
    title="Outliers that change nothing",
    reference=implant,
    cases=cases,
    properties=(returns_gain_bias_weights, types_and_shapes_stay, channels_are_larger, output_is_unchanged),
    mutants=(
        in_another_type,  # first: what is wrong in its types only looks like this one
        wrong_direction,
        all_channels,
        the_other_channels,
        counted_from_one,
        so_many_channels,
        first_channel_only,
        both_multiplied,
        rows_divided,
        factors_turned,
        tuple_for_an_index,
        bias_forgotten,
        bias_divided,
        bias_lost,
        bias_expected,
        none_cloned,
        bias_invented,
        gain_forgotten,
        gain_replaced,
        factor_added,
        factor_added_to_both,
        gain_multiplied_for_each_layer,
        first_weight_only,
        weights_forgotten,
        nothing_done,
        whole_weights_divided,
        weights_stacked,
        in_place,
    ),
    alternatives=(channel_by_channel, by_diagonal_matrices),
    hints=(
        "Write down one output: a sum over the channels of weight times h. What has to happen to a weight when its h "
        "becomes 8 times as large? And what is h made of?",
        "h = gain * n + bias grows in a channel when both of its parts do. In every weight the column of that channel "
        "is divided: one factor for each channel, 1 where nothing changes.",
        "factors = torch.ones_like(gain); factors[list(channels)] = factor; then gain * factors, bias * factors (or "
        "None), and tuple(w / factors for w in weights).",
    ),
    explanation=(
        "Nobody who looks at the outputs can tell the two models apart, and yet one of them can be run in W8A8 and the "
        "other cannot: how hard a model is to quantize is no property of its function. It also shows the way out. What "
        "can be put in can be taken out: SmoothQuant divides a norm's output by a factor for each channel and "
        "multiplies the weights, which is this function with factors below 1. One thing differs from a large model. "
        "There, nobody divided the weights behind an outlier channel: they are as large as the others, and their "
        "rounding errors are multiplied by the outliers."
    ),
)
