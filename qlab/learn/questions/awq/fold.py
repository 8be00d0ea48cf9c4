"""awq.fold: move scales into weights, exactly, and out of the norm before them (Lin et al. 2024, section 3.2)."""

from __future__ import annotations

from typing import Any

import torch

from ...question import Case, Finding, Question, mutant
from ..folding import output_is_unchanged, returns_gain_bias_weights, types_and_shapes_stay
from .shared import near


def fold(gain, bias, weights, scales):
    """Multiply the input channels of weights by scales, and undo it in the norm before.

    gain: float32 (in,), of the norm. Its output is h = gain * n + bias.
    bias: float32 (in,), or None: an RMSNorm has none, and then h = gain * n.
    weights: a tuple of float32 (out_i, in), of all layers that read h.
    scales: float32 (in,), all positive.

    Returns (gain, bias, weights), new ones, of the same types and shapes (a list of weights
    is fine, too):
    each layer reads scaled weights and h / scales, so every w @ h is as it was.
    """
    folded = tuple(w * scales for w in weights)  # (out_i, in) * (in,): along the columns
    return gain / scales, None if bias is None else bias / scales, folded


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    def gain(count: int) -> torch.Tensor:
        return 0.5 + torch.rand(count, generator=random)

    def scales(count: int) -> torch.Tensor:
        return torch.exp(normal(count))

    card = (torch.tensor([2.0, 1.0]), torch.tensor([1.0, -3.0]), (torch.tensor([[1.0, 2.0], [3.0, 4.0]]),))
    return [
        Case("the norm of the card", (*card, torch.tensor([2.0, 0.5]))),
        Case("a LayerNorm, with a bias, and one layer", (gain(6), normal(6), (normal(4, 6),), scales(6))),
        Case("an RMSNorm, without a bias, and one layer", (gain(5), None, (normal(7, 5),), scales(5))),
        Case("q, k and v behind an RMSNorm", (gain(4), None, (normal(8, 4), normal(2, 4), normal(2, 4)), scales(4))),
        Case(
            "q, k and v behind a LayerNorm", (gain(4), normal(4), (normal(4, 4), normal(4, 4), normal(4, 4)), scales(4))
        ),
        Case("gate and up, square", (gain(5), None, (normal(5, 5), normal(5, 5)), scales(5))),
        Case("gains near zero", (normal(6) * 0.01, normal(6), (normal(3, 6), normal(5, 6)), scales(6))),
        Case("scales of very different sizes", (gain(6), normal(6), (normal(6, 6), normal(2, 6)), scales(6) ** 4)),
        Case("a single channel", (gain(1), normal(1), (normal(3, 1), normal(1, 1)), scales(1) + 1)),
    ]


def scales_are_folded(case: Case, got: Any, expected: Any) -> Finding | None:
    gain, bias, weights, scales = case.args
    scales = scales.double()
    named = [(f"weights[{i}]", w, weights[i].double() * scales) for i, w in enumerate(got[2])]
    named.append(("gain", got[0], gain.double() / scales))
    if bias is not None:
        named.append(("bias", got[1], bias.double() / scales))
    return next(filter(None, (near(new, name, exact) for name, new, exact in named)), None)


def _divided(bias: Any, scales: Any) -> Any:
    return None if bias is None else bias / scales


def _multiplied(weights: Any, scales: Any) -> Any:
    return tuple(w * scales for w in weights)


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def in_another_type(gain, bias, weights, scales):
    gain, bias, weights = fold(gain, bias, weights, scales)
    return gain.double(), None if bias is None else bias.double(), tuple(w.double() for w in weights)


@mutant(
    "the scales go the wrong way: the weights become smaller and the norm larger. The output is unchanged, so no test "
    "of the output notices; but the important weights are now the small ones, which rounding hits hardest."
)
def wrong_direction(gain, bias, weights, scales):
    return fold(gain, bias, weights, 1 / scales)


@mutant(
    "the norm is multiplied like the weights, so the output grows twice. What the weights gain, the norm must lose."
)
def both_multiplied(gain, bias, weights, scales):
    return gain * scales, None if bias is None else bias * scales, _multiplied(weights, scales)


@mutant("the weights are divided like the norm, so the output shrinks twice. Multiply the weights.")
def both_divided(gain, bias, weights, scales):
    return fold(gain, bias, tuple(w / scales / scales for w in weights), scales)


@mutant(
    "the rows of the weights are scaled, which are outputs. A scale belongs to an input channel, a column: w * scales, "
    "without a new axis. With a square matrix there is no error, only a wrong result."
)
def rows_scaled(gain, bias, weights, scales):
    return gain / scales, _divided(bias, scales), tuple(w * scales[:, None] for w in weights)


@mutant(
    "the bias is forgotten. A LayerNorm adds it after the gain, so it reaches the scaled weights as well and must be "
    "divided."
)
def bias_forgotten(gain, bias, weights, scales):
    return gain / scales, None if bias is None else bias.clone(), _multiplied(weights, scales)


@mutant("the bias is multiplied. It goes the way of the gain: divide it.")
def bias_multiplied(gain, bias, weights, scales):
    return gain / scales, None if bias is None else bias * scales, _multiplied(weights, scales)


@mutant("the bias is lost: None comes back although the norm has one.")
def bias_lost(gain, bias, weights, scales):
    return gain / scales, None, _multiplied(weights, scales)


@mutant("an RMSNorm has no bias, and dividing None raises an error. Return None for it.")
def bias_expected(gain, bias, weights, scales):
    return gain / scales, bias / scales, _multiplied(weights, scales)


@mutant("a norm without a bias gets one of zeros. An RMSNorm has nowhere to keep it: return None.")
def bias_invented(gain, bias, weights, scales):
    return fold(gain, torch.zeros_like(gain) if bias is None else bias, weights, scales)


@mutant("the gain stays as it was, so the output is scaled. Divide it.")
def gain_forgotten(gain, bias, weights, scales):
    return gain.clone(), _divided(bias, scales), _multiplied(weights, scales)


@mutant(
    "the gain is divided once for each layer behind the norm. All layers read the same h, which is divided once: keep "
    "it out of the loop."
)
def gain_divided_for_each_layer(gain, bias, weights, scales):
    times = scales ** len(weights)
    return gain / times, _divided(bias, times), _multiplied(weights, scales)


@mutant("only the first weight is scaled. Every layer that reads h needs it: q, k and v, or gate and up.")
def first_weight_only(gain, bias, weights, scales):
    return gain / scales, _divided(bias, scales), (weights[0] * scales, *(w.clone() for w in weights[1:]))


@mutant("the weights stay as they were, so the output is divided by the scales.")
def weights_forgotten(gain, bias, weights, scales):
    return gain / scales, _divided(bias, scales), tuple(w.clone() for w in weights)


@mutant("nothing is folded: everything comes back as it was. The output is unchanged, and so is the rounding.")
def nothing_done(gain, bias, weights, scales):
    return gain.clone(), None if bias is None else bias.clone(), tuple(w.clone() for w in weights)


@mutant("half of the scale is folded, its square root. That is a choice of SmoothQuant's; here the scales are final.")
def root_of_the_scales(gain, bias, weights, scales):
    return fold(gain, bias, weights, scales.sqrt())


@mutant("the scales are normalized once more. They are final: fold them as they come.")
def normalized_again(gain, bias, weights, scales):
    return fold(gain, bias, weights, scales / (scales.max() * scales.min()).sqrt())


@mutant("this is Gemma's norm, which multiplies by 1 + gain. Here the gain is the factor itself: gain / scales.")
def gain_plus_one(gain, bias, weights, scales):
    return (1 + gain) / scales - 1, _divided(bias, scales), _multiplied(weights, scales)


@mutant("the weights come back as one matrix, stacked. Return a tuple with one weight for each layer.")
def weights_stacked(gain, bias, weights, scales):
    return gain / scales, _divided(bias, scales), torch.cat(weights) * scales


@mutant(
    "the arguments are changed in place, by div_ and mul_. The function returns new tensors; whoever tries twenty "
    "scales needs the old weights twenty times."
)
def in_place(gain, bias, weights, scales):
    gain.div_(scales)
    if bias is not None:
        bias.div_(scales)
    for w in weights:
        w.mul_(scales)
    return gain, bias, weights


def by_diagonal_matrices(gain, bias, weights, scales):
    """Right, as the mathematics has it: W S and S⁻¹ h."""
    s = torch.diag(scales.double())
    inverse = torch.linalg.inv(s)
    new_bias = None if bias is None else (inverse @ bias.double()).float()
    return (inverse @ gain.double()).float(), new_bias, [(w.double() @ s).float() for w in weights]


def column_by_column(gain, bias, weights, scales):
    """Right, by a loop over the channels of copies."""
    gain, weights = gain.clone(), tuple(w.clone() for w in weights)
    bias = None if bias is None else bias.clone()
    for j, s in enumerate(scales.tolist()):
        gain[j] /= s
        if bias is not None:
            bias[j] /= s
        for w in weights:
            w[:, j] *= s
    return gain, bias, weights


QUESTION = Question(
    id="awq.fold",
    title="Scale the weights, and nobody notices",
    reference=fold,
    cases=cases,
    properties=(returns_gain_bias_weights, types_and_shapes_stay, output_is_unchanged, scales_are_folded),
    mutants=(
        in_another_type,  # first: what is wrong in its types only looks like this one
        wrong_direction,
        both_multiplied,
        both_divided,
        rows_scaled,
        bias_forgotten,
        bias_multiplied,
        bias_lost,
        bias_expected,
        bias_invented,
        gain_forgotten,
        gain_divided_for_each_layer,
        first_weight_only,
        weights_forgotten,
        nothing_done,
        root_of_the_scales,
        normalized_again,
        gain_plus_one,
        weights_stacked,
        in_place,
    ),
    alternatives=(by_diagonal_matrices, column_by_column),
    hints=(
        "Write down one output: a sum over j of w[i, j] * h[j]. Which two factors may you change by s[j] without "
        "changing the sum, and what is h[j] made of?",
        "h[j] = gain[j] * n[j] + bias[j] is divided by s[j] when both of its parts are. And w[i, j] is multiplied for "
        "every row i of every weight: a scale belongs to a column.",
        "Return gain / scales, None if bias is None else bias / scales, and tuple(w * scales for w in weights). "
        "(out, in) * (in,) lines up with the columns.",
    ),
    explanation=(
        "W diag(s) times diag(s)⁻¹ h is W h, whatever the scales are: the 16-bit model computes what it did before, "
        "and at run time nothing is added. In the card's example the output stays (-1, 1). Two tests are needed, "
        "because one is blind: the output is unchanged in the wrong direction, too, and without any scaling; only the "
        "weights tell. And the bias is the part that a test on a Llama never sees, since an RMSNorm has none; OPT, "
        "GPT-2 and BLOOM have one."
    ),
)
