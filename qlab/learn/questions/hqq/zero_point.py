"""hqq.zero_point: one half-quadratic step, the zero-point that fits the codes best (Badri and Shaji 2023, HQQ)."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant


def update_zero_points(w, outliers, scales, zeros, bits):
    """Make one step of HQQ: codes with the old zero-points, then zeros for these codes.

    w: float32 (groups, group_size), the weights, a group in each row.
    outliers: float32 (groups, group_size), the part of each weight's error that the
        zero-point should not try to repair; from hqq.shrink.
    scales: float32 (groups, 1), all positive.
    zeros: float32 (groups, 1), the old zero-points, which are real numbers here.
    bits: 2 to 8.

    codes: w / scales + zeros, rounded, clamped to 0 and 2**bits - 1.

    Returns the new zeros: float32 (groups, 1), for each group the mean of
        codes - (w - outliers) / scales.
    """
    codes = torch.round(w / scales + zeros).clamp(0, 2**bits - 1)
    return (codes - (w - outliers) / scales).mean(dim=1, keepdim=True)


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=random)

    def groups(count: int, size: int, bits: int, spread: float = 1.0, middle: float = 0.0, share: float = 0.1) -> Any:
        """Weights with the grid that round to nearest would take, and outliers in a share of them."""
        w = spread * (normal(count, size) + middle)
        low, high = w.amin(dim=1, keepdim=True), w.amax(dim=1, keepdim=True)
        scales = (high - low) / (2**bits - 1)
        zeros = -low / scales
        outliers = scales * normal(count, size) * (torch.rand(count, size, generator=random) < share)
        return w, outliers, scales, zeros, bits

    w, outliers, scales, zeros, _ = groups(5, 16, 3)
    narrow = (w, outliers, 0.5 * scales, zeros * 2 - 3.5, 3)  # a grid on which many weights are clamped
    # The step is a power of two, so that one weight of 32 lies exactly between two codes.
    between = torch.randint(0, 15, (1, 32), generator=random).float()
    between[0, 7] += 0.5
    unit = 2.0 ** -(seed % 5 + 4)
    tie = (between * unit, torch.zeros(1, 32), torch.full((1, 1), unit), torch.zeros(1, 1) + 1.0, 4)
    return [
        Case("the group of the card", _OF_THE_CARD),
        Case("4 bits, groups of 16", groups(6, 16, 4)),
        Case("2 bits, groups of 8", groups(4, 8, 2)),
        Case("small weights, as those of a model", groups(5, 32, 4, spread=0.02)),
        Case("weights far from zero", groups(4, 16, 4, middle=6.0)),
        Case("many outliers", groups(5, 12, 3, share=0.6)),
        Case("no outliers at all", groups(3, 24, 3, share=0.0)),
        Case("a grid that is too narrow, so codes are clamped", narrow),
        Case("8 bits", groups(4, 16, 8)),
        Case("as many groups as weights in a group", groups(6, 6, 3)),
        Case("one group", groups(1, 20, 4)),
        Case("a weight halfway between two codes; either is right", tie),
    ]


_OF_THE_CARD = (
    torch.tensor([[-1.0, 0.0, 0.6, 2.2]]),
    torch.tensor([[0.0, 0.0, 0.0, 0.2]]),
    torch.tensor([[0.5]]),
    torch.tensor([[2.0]]),
    3,
)


def zeros_are_float32_and_one_per_group(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got, "zeros", torch.float32, (len(case.args[0]), 1))


def zeros_fit_the_codes(case: Case, got: Any, expected: Any) -> Finding | None:
    """Where weights lie halfway between two codes, every choice of them is right, and so is the mean of each."""
    w, outliers, scales, zeros = (tensor.double() for tensor in case.args[:4])
    bits = case.args[4]
    place = w / scales + zeros
    wanted = -(w - outliers) / scales
    # float32 knows a place to about 1e-7 of its size and of the zero-point's.
    slack = 1e-5 * (1 + place.abs() + zeros.abs())
    low, high = (torch.round(place + shift).clamp(0, 2**bits - 1) + wanted for shift in (-slack, slack))
    low, high = low.mean(dim=1, keepdim=True), high.mean(dim=1, keepdim=True)
    bound = (high - low) / 2 + 1e-4 + 1e-6 * wanted.abs().mean(dim=1, keepdim=True)
    return p.values_near(got, "zeros", (low + high) / 2, bound, torch.ones_like(bound))


def _codes(w: Any, scales: Any, zeros: Any, bits: int) -> Any:
    """The first line of the reference, which most of the mutants have right."""
    return torch.round(w / scales + zeros).clamp(0, 2**bits - 1)


def _mean(values: Any) -> Any:
    return values.mean(dim=1, keepdim=True)


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def in_another_type(w, outliers, scales, zeros, bits):
    return update_zero_points(w, outliers, scales, zeros, bits).double()


@mutant(
    "the new zero-point is rounded to a code. In HQQ it is a real number, kept like a scale; rounding it throws away "
    "what the step has found."
)
def rounded_to_a_code(w, outliers, scales, zeros, bits):
    return torch.round(update_zero_points(w, outliers, scales, zeros, bits))


@mutant(
    "the codes are not clamped, so weights beyond the grid get codes that do not exist, and their error is not seen. "
    "Clamp to 0 and 2**bits - 1."
)
def codes_not_clamped(w, outliers, scales, zeros, bits):
    return _mean(torch.round(w / scales + zeros) - (w - outliers) / scales)


@mutant(
    "the codes are not rounded. Then w cancels, and the zero-point moves by the outliers only. The step is about the "
    "error of rounding."
)
def codes_not_rounded(w, outliers, scales, zeros, bits):
    return _mean((w / scales + zeros).clamp(0, 2**bits - 1) - (w - outliers) / scales)


@mutant(
    "the zero-point is subtracted before rounding. A code is w / scales + zeros, rounded: the zero-point is the place "
    "of the weight 0."
)
def zero_point_subtracted(w, outliers, scales, zeros, bits):
    return _mean(_codes(w, scales, -zeros, bits) - (w - outliers) / scales)


@mutant(
    "the codes are clamped as signed numbers, from -2**(bits-1) to 2**(bits-1) - 1. With a zero-point codes go from 0 "
    "to 2**bits - 1; half of these weights have lost theirs."
)
def signed_clamp(w, outliers, scales, zeros, bits):
    codes = torch.round(w / scales + zeros).clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    return _mean(codes - (w - outliers) / scales)


@mutant("the codes are cut off instead of rounded, which moves every zero-point by about half a step.")
def codes_cut_off(w, outliers, scales, zeros, bits):
    return _mean(torch.floor(w / scales + zeros).clamp(0, 2**bits - 1) - (w - outliers) / scales)


@mutant("the outliers are forgotten. Take them away from w first; otherwise the large errors decide the mean.")
def outliers_forgotten(w, outliers, scales, zeros, bits):
    return _mean(_codes(w, scales, zeros, bits) - w / scales)


@mutant("the outliers are added to w. They are the part of w that is left alone: subtract them.")
def outliers_added(w, outliers, scales, zeros, bits):
    return _mean(_codes(w, scales, zeros, bits) - (w + outliers) / scales)


@mutant(
    "the outliers are subtracted from the codes without being divided by the scale. Codes count steps; outliers have "
    "the unit of the weights."
)
def outliers_not_in_steps(w, outliers, scales, zeros, bits):
    return _mean(_codes(w, scales, zeros, bits) - w / scales + outliers)


@mutant(
    "the outliers are taken away before the codes are computed as well. The codes are those of the weights themselves."
)
def codes_without_outliers(w, outliers, scales, zeros, bits):
    return _mean(_codes(w - outliers, scales, zeros, bits) - (w - outliers) / scales)


@mutant(
    "weights are multiplied by the scale. HQQ's own code does that, because it keeps 1 / scale under that name; here "
    "scales are steps: divide."
)
def multiplied_by_the_scale(w, outliers, scales, zeros, bits):
    codes = torch.round(w * scales + zeros).clamp(0, 2**bits - 1)
    return _mean(codes - (w - outliers) * scales)


@mutant("the sign is wrong: (w - outliers) / scales - codes is minus the zero-point.")
def sign_turned(w, outliers, scales, zeros, bits):
    return -update_zero_points(w, outliers, scales, zeros, bits)


@mutant("the mean runs over all weights, so all groups get one zero-point. Each row is a group: dim=1.")
def one_for_all_groups(w, outliers, scales, zeros, bits):
    difference = _codes(w, scales, zeros, bits) - (w - outliers) / scales
    return difference.mean().expand(len(w), 1)


@mutant("the mean runs down the columns, across groups. A group is a row: dim=1.")
def across_groups(w, outliers, scales, zeros, bits):
    return (_codes(w, scales, zeros, bits) - (w - outliers) / scales).mean(dim=0)[:, None]


@mutant("this is the sum over the group. Take the mean.")
def sum_over_the_group(w, outliers, scales, zeros, bits):
    return (_codes(w, scales, zeros, bits) - (w - outliers) / scales).sum(dim=1, keepdim=True)


@mutant(
    "this is the median of the group. It is robust, too; but HQQ has set the outliers aside already and takes the mean."
)
def median_of_the_group(w, outliers, scales, zeros, bits):
    return (_codes(w, scales, zeros, bits) - (w - outliers) / scales).quantile(0.5, dim=1, keepdim=True)


@mutant(
    "the old zero-point is still in it: the new one is added to the old one. The mean is the new zero-point itself, "
    "not a correction."
)
def added_to_the_old(w, outliers, scales, zeros, bits):
    return zeros + update_zero_points(w, outliers, scales, zeros, bits)


@mutant(
    "the old zero-point is subtracted: this is the mean error, in steps. Add the old zero-point to it, or leave it out "
    "of the difference."
)
def only_the_correction(w, outliers, scales, zeros, bits):
    return update_zero_points(w, outliers, scales, zeros, bits) - zeros


@mutant("the old zero-points come back. Nothing has moved.")
def nothing_moved(w, outliers, scales, zeros, bits):
    return zeros.clone()


@mutant(
    "the zero-point is kept between 0 and 2**bits - 1. That is a rule for stored codes; a real zero-point may lie "
    "anywhere, and does, for weights far from zero."
)
def kept_among_the_codes(w, outliers, scales, zeros, bits):
    return update_zero_points(w, outliers, scales, zeros, bits).clamp(0, 2**bits - 1)


@mutant("the result is multiplied by the scale, so it has the unit of the weights. A zero-point counts steps.")
def in_the_unit_of_weights(w, outliers, scales, zeros, bits):
    return scales * update_zero_points(w, outliers, scales, zeros, bits)


@mutant("the shape is (groups,), without keepdim=True. Return (groups, 1), which lines up with the rows.")
def without_the_second_dimension(w, outliers, scales, zeros, bits):
    return update_zero_points(w, outliers, scales, zeros, bits)[:, 0]


@mutant("the argument bits is not used; codes go up to 15.")
def four_bits_always(w, outliers, scales, zeros, bits):
    return update_zero_points(w, outliers, scales, zeros, 4)


def from_the_old_one(w, outliers, scales, zeros, bits):
    """Right, as the old zero-point and the mean error that is left, in steps; and with ties that go up."""
    codes = torch.floor(w / scales + zeros + 0.5).clamp(0, 2**bits - 1)
    w_hat = (codes - zeros) * scales
    return zeros + ((w_hat - (w - outliers)) / scales).mean(dim=1, keepdim=True)


def in_float64_by_parts(w, outliers, scales, zeros, bits):
    """Right, as three means, in numpy."""
    w, outliers, scales, zeros = (tensor.double().numpy() for tensor in (w, outliers, scales, zeros))
    codes = (w / scales + zeros).round().clip(0, 2**bits - 1)
    means = codes.mean(axis=1) - w.mean(axis=1) / scales[:, 0] + outliers.mean(axis=1) / scales[:, 0]
    return means[:, None].astype("float32")


def by_loops(w, outliers, scales, zeros, bits):
    """Right, weight by weight, in Python's own floats."""
    result = []
    for row, out, [scale], [zero] in zip(w.tolist(), outliers.tolist(), scales.tolist(), zeros.tolist(), strict=True):
        codes = [min(max(round(value / scale + zero), 0), 2**bits - 1) for value in row]
        parts = [code - (value - far) / scale for code, value, far in zip(codes, row, out, strict=True)]
        result.append([sum(parts) / len(parts)])
    return torch.tensor(result)


QUESTION = Question(
    id="hqq.zero_point",
    title="The zero-point that fits the codes",
    reference=update_zero_points,
    cases=cases,
    properties=(zeros_are_float32_and_one_per_group, zeros_fit_the_codes),
    mutants=(
        in_another_type,  # first: what is wrong in its types only looks like this one
        rounded_to_a_code,
        codes_not_clamped,
        codes_not_rounded,
        codes_cut_off,
        zero_point_subtracted,
        signed_clamp,
        outliers_forgotten,
        outliers_added,
        outliers_not_in_steps,
        codes_without_outliers,
        multiplied_by_the_scale,
        sign_turned,
        one_for_all_groups,
        across_groups,
        sum_over_the_group,
        median_of_the_group,
        added_to_the_old,
        only_the_correction,
        nothing_moved,
        kept_among_the_codes,
        in_the_unit_of_weights,
        without_the_second_dimension,
        four_bits_always,
    ),
    alternatives=(from_the_old_one, in_float64_by_parts, by_loops),
    hints=(
        "Hold the codes fixed. Each weight would like (code - zero) * scale to be w - outlier; which zero does it ask "
        "for, and what is the best compromise of a group under the squared error?",
        "Two lines: codes with the old zeros, rounded and clamped; then the mean over each row of codes - (w - "
        "outliers) / scales, with keepdim=True. The result stays a real number.",
        "codes = torch.round(w / scales + zeros).clamp(0, 2**bits - 1); return (codes - (w - outliers) / "
        "scales).mean(dim=1, keepdim=True).",
    ),
    explanation=(
        "HQQ splits one hard problem into two easy ones and takes turns: with the zero-points fixed, hqq.shrink says "
        "which errors are outliers; with the outliers fixed, the best zero-point is a mean. On the card each weight "
        "asks for a zero-point of its own, 2, 2, 1.8 and 1.6. The mean is 1.85; with the error of the last weight set "
        "aside it is 1.95, and the other three are served better. No activation appears anywhere: HQQ needs the "
        "weights only. The price is in the format. A real zero-point takes 16 bits beside the 16 of the scale, 32 per "
        "group: 4.5 bits per weight with groups of 64, where AWQ with groups of 128 and 4-bit zero-points takes 4.16."
    ),
)
