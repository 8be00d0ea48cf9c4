"""codebook.double_quant: the absmax of NF4, quantized in turn to 8 bits (QLoRA, Dettmers et al. 2023, section 3)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .tables import NOTHING, codes_fit, dynamic_map, even_map

_GROUP = 256
_SCALE_RTOL = 1e-4
_OFFSET_RTOL = 1e-5


def double_quantize(absmax, table):
    """Quantize the absmax of all blocks to 8-bit codes.

    absmax: float32 (blocks,), none below zero.
    table: float32 (256,), sorted levels from about -1 to 1; 0 and 1 are among them.

    1. The offset is the mean of all absmax; it is subtracted from each.
    2. The differences are cut into groups of 256; the last one may be short. The scale of a
       group is the largest magnitude among its differences; it may be as small as 1e-30.
    3. A code is the place of the level nearest to difference / scale.

    Returns (codes, scales, offset):
    codes: uint8 (blocks,).
    scales: float32 (groups,), groups = blocks / 256, rounded up.
    offset: a float.

    table[code] * scale + offset is the absmax again, nearly. A group in which all
    differences are 0 has the scale 0, and its codes are the place of the level 0.
    """
    offset = absmax.mean().item()
    groups = torch.nn.functional.pad(absmax - offset, (0, -len(absmax) % 256)).view(-1, 256)
    scales = groups.abs().amax(dim=1)
    values = groups / torch.where(scales > 0, scales, 1.0)[:, None]
    midpoints = (table[:-1] + table[1:]) / 2
    codes = torch.searchsorted(midpoints, values.flatten()[: len(absmax)])
    return codes.to(torch.uint8), scales, offset


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)
    dynamic, even = dynamic_map(), even_map()

    def maxima(blocks: int) -> torch.Tensor:
        """As the largest of 64 normal weights of a layer."""
        return (0.02 * torch.randn(blocks, 64, generator=random)).abs().amax(dim=1)

    skewed = maxima(300)
    skewed[seed % 200] = 0.9
    far_apart = torch.cat([maxima(256) * 5, maxima(256) * 0.2, maxima(30)])
    short_end = torch.cat([maxima(256), maxima(9) * 0.02 + maxima(265).mean()])
    with_zeros = maxima(40)
    with_zeros[7:11] = 0.0
    all_equal = torch.full((5,), 0.25 * (1 + seed % 7))
    around_one = 1 + 0.125 * (1 + seed % 5) * (1 - 2 * (torch.arange(530) % 2))  # their mean is exactly 1
    around_one[256:512] = 1.0
    return [
        Case("four absmax, an even table", (torch.tensor([0.1, 0.2, 0.3, 0.6]), even)),
        Case("one full group", (maxima(256), dynamic)),
        Case("fewer blocks than a group", (maxima(100), dynamic)),
        Case("a short last group", (maxima(300), dynamic)),
        Case("a short last group whose differences are small", (short_end, dynamic)),
        Case("three groups of very different sizes", (far_apart, dynamic)),
        Case("one absmax far larger than the rest", (skewed, dynamic)),
        Case("blocks of zeros among them", (with_zeros, dynamic)),
        Case("an even table", (maxima(280), even)),
        Case("tiny weights", (maxima(60) * 1e-20, even)),
        Case("all absmax equal", (all_equal, dynamic)),
        Case("a group that is equal to the mean", (around_one, dynamic)),
    ]


def _exact(case: Case) -> tuple[torch.Tensor, torch.Tensor, float]:
    """The differences, (blocks,), the scales, (groups,), and the offset, in float64."""
    absmax = case.args[0].double()
    offset = absmax.mean().item()
    differences = absmax - offset
    return differences, torch.stack([group.abs().max() for group in differences.split(_GROUP)]), offset


def returns_codes_scales_offset(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.parts(got, "codes", "scales", "offset")


def a_byte_for_each_block(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got[0], "codes", torch.uint8, case.args[0].shape)


def offset_is_the_mean(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.number_near(got[2], "offset", _exact(case)[2], _OFFSET_RTOL)


def scales_are_the_largest_differences(case: Case, got: Any, expected: Any) -> Finding | None:
    _, scales, offset = _exact(case)
    if finding := p.tensor(got[1], "scales", torch.float32, tuple(scales.shape)):
        return finding
    bound = torch.where(scales > 0, _SCALE_RTOL * scales + _noise(offset), NOTHING)
    finding = p.values_near(got[1], "scales", scales, bound, torch.where(scales > 0, scales, 1.0))
    return replace(finding, unit="of the scale") if finding else None


def codes_are_nearest(case: Case, got: Any, expected: Any) -> Finding | None:
    table = case.args[1]
    differences, scales, offset = _exact(case)
    each = scales.repeat_interleave(_GROUP)[: len(differences)]
    divisor = torch.where(each > 0, each, 1.0)
    return codes_fit(got[0], differences / divisor, table, noise=_noise(offset) / divisor * (each > 0))


def _noise(offset: float) -> float:
    """How far a difference may be off in float32, where two numbers of the offset's size are subtracted."""
    return 2e-7 * offset


def _groups(differences: Any, size: int = _GROUP) -> Any:
    return torch.nn.functional.pad(differences, (0, -len(differences) % size)).view(-1, size)


def _write(differences: Any, scales: Any, table: Any, size: int = _GROUP) -> Any:
    """The codes of these differences, which most of the mutants have right."""
    each = scales.repeat_interleave(size)[: len(differences)]
    values = differences / torch.where(each == 0, 1.0, each)
    return torch.searchsorted((table[:-1] + table[1:]) / 2, values).to(torch.uint8)


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def codes_left_wide(absmax, table):
    codes, scales, offset = double_quantize(absmax, table)
    return codes.long(), scales.double(), offset


@mutant(
    "the mean is not subtracted, and the offset is 0. An absmax is never negative, so half of the levels are never "
    "used and the others lie far from where the values are."
)
def without_an_offset(absmax, table):
    scales = _groups(absmax).amax(dim=1)
    return _write(absmax, scales, table), scales, 0.0


@mutant(
    "the offset is returned and was not subtracted: the codes stand for the absmax themselves. Adding the offset on "
    "the way back makes all of them too large."
)
def offset_not_subtracted(absmax, table):
    scales = _groups(absmax).amax(dim=1)
    return _write(absmax, scales, table), scales, absmax.mean().item()


@mutant("the offset is the smallest absmax, as a zero-point would have it. It is the mean: the table is signed.")
def smallest_for_the_mean(absmax, table):
    offset = absmax.min().item()
    scales = _groups(absmax - offset).abs().amax(dim=1)
    return _write(absmax - offset, scales, table), scales, offset


@mutant("the offset is the middle between the smallest and the largest absmax. It is the mean of all.")
def middle_for_the_mean(absmax, table):
    offset = ((absmax.min() + absmax.max()) / 2).item()
    scales = _groups(absmax - offset).abs().amax(dim=1)
    return _write(absmax - offset, scales, table), scales, offset


@mutant("the offset is the median of the absmax. It is their mean.")
def median_for_the_mean(absmax, table):
    offset = absmax.median().item()
    scales = _groups(absmax - offset).abs().amax(dim=1)
    return _write(absmax - offset, scales, table), scales, offset


@mutant("each group has the mean of its own for an offset. There is one offset for all: the mean of all absmax.")
def a_mean_for_each_group(absmax, table):
    offsets = torch.stack([group.mean() for group in absmax.split(_GROUP)])
    differences = absmax - offsets.repeat_interleave(_GROUP)[: len(absmax)]
    scales = _groups(differences).abs().amax(dim=1)
    return _write(differences, scales, table), scales, offsets


@mutant(
    "the last group was filled up with zeros before the mean was taken, so the mean is too small. Take the mean of the "
    "absmax alone."
)
def mean_with_the_padding(absmax, table):
    offset = _groups(absmax).mean().item()
    scales = _groups(absmax - offset).abs().amax(dim=1)
    return _write(absmax - offset, scales, table), scales, offset


@mutant(
    "the last group was filled up with zeros before the offset was subtracted. So what fills up became -offset, and "
    "often the largest difference of its group. Subtract first, then fill up."
)
def filled_up_too_early(absmax, table):
    offset = absmax.mean().item()
    scales = (_groups(absmax) - offset).abs().amax(dim=1)
    return _write(absmax - offset, scales, table), scales, offset


@mutant("all groups share one scale. Each 256 blocks have their own.")
def one_scale_for_all(absmax, table):
    differences = absmax - absmax.mean()
    scales = differences.abs().max().repeat(-(-len(absmax) // _GROUP))
    return _write(differences, scales, table), scales, absmax.mean().item()


@mutant(
    "there is one scale, a single number for all groups. Each 256 blocks have their own: take the maximum along the "
    "group, dim=1."
)
def one_scale_in_all(absmax, table):
    codes, scales, offset = one_scale_for_all.answer(absmax, table)
    return codes, scales[:1], offset


@mutant("the groups have 64 blocks, the block size of the weights. On the second level they have 256.")
def groups_of_64(absmax, table):
    differences = absmax - absmax.mean()
    scales = _groups(differences, 64).abs().amax(dim=1)
    return _write(differences, scales, table, 64), scales, absmax.mean().item()


@mutant(
    "the absmax are reshaped to (-1, 256), which fails unless their number is a multiple of 256. Fill the last group "
    "up with zeros, or go through the groups in slices."
)
def short_group_refused(absmax, table):
    differences = absmax - absmax.mean()
    scales = differences.reshape(-1, _GROUP).abs().amax(dim=1)
    return _write(differences, scales, table), scales, absmax.mean().item()


@mutant(
    "the scale is the largest difference, not the largest magnitude. Differences have both signs: take abs() first."
)
def without_abs(absmax, table):
    differences = absmax - absmax.mean()
    scales = torch.stack([group.max() for group in differences.split(_GROUP)])
    return _write(differences, scales, table), scales, absmax.mean().item()


@mutant(
    "the scale is the largest difference of a filled-up group, not the largest magnitude. Where all differences are "
    "below zero, that is one of the zeros that fill up, or below zero itself. Take abs() first."
)
def without_abs_filled_up(absmax, table):
    differences = absmax - absmax.mean()
    scales = _groups(differences).amax(dim=1)
    return _write(differences, scales.where(scales > 0, 1.0), table), scales, absmax.mean().item()


@mutant(
    "the scale is the largest absmax of the group. The codes stand for differences from the offset, so the scale is "
    "the largest magnitude among these."
)
def scale_of_the_absmax(absmax, table):
    scales = _groups(absmax).amax(dim=1)
    return _write(absmax - absmax.mean(), scales, table), scales, absmax.mean().item()


@mutant(
    "the differences are rounded on an even grid of 8 bits and the table is not used. Look for the nearest level of "
    "the table, as with the 16 levels of NF4."
)
def even_grid(absmax, table):
    differences = absmax - absmax.mean()
    scales = _groups(differences).abs().amax(dim=1)
    each = scales.repeat_interleave(_GROUP)[: len(absmax)]
    steps = torch.round(differences / torch.where(each > 0, each, 1.0) * 127)
    return (steps + 128).to(torch.uint8), scales, absmax.mean().item()


@mutant("the scale is divided by 127, as in a linear grid. The table ends at 1, so the scale is the magnitude itself.")
def divided_by_127(absmax, table):
    codes, scales, offset = double_quantize(absmax, table)
    return codes, scales / 127, offset


@mutant(
    "every difference goes up to the next level: the table itself went into searchsorted or bucketize. The borders "
    "between two codes are the midpoints."
)
def next_level_up(absmax, table):
    differences = absmax - absmax.mean()
    scales = _groups(differences).abs().amax(dim=1)
    each = scales.repeat_interleave(_GROUP)[: len(absmax)]
    values = differences / torch.where(each > 0, each, 1.0)
    return torch.searchsorted(table, values).clamp(max=255).to(torch.uint8), scales, absmax.mean().item()


@mutant("differences below zero are cut off, as if an absmax could not be smaller than the mean. Keep their sign.")
def negative_differences_lost(absmax, table):
    differences = absmax - absmax.mean()
    scales = _groups(differences).abs().amax(dim=1)
    return _write(differences.clamp(min=0), scales, table), scales, absmax.mean().item()


@mutant(
    "a group without any difference is divided by its scale, 0: 0 / 0 is NaN, and NaN has no nearest level. Divide "
    "such a group by any other number."
)
def equal_groups_divide(absmax, table):
    offset = absmax.mean().item()
    differences = absmax - offset
    scales = _groups(differences).abs().amax(dim=1)
    values = differences / scales.repeat_interleave(_GROUP)[: len(absmax)]
    codes = torch.searchsorted((table[:-1] + table[1:]) / 2, values)
    return codes.to(torch.uint8), scales, offset


@mutant(
    "a small number keeps the scales from 0, added to them or as their lower limit. Where the weights are tiny that "
    "number is all. Change only the divisors that are 0."
)
def epsilon_added(absmax, table):
    differences = absmax - absmax.mean()
    scales = _groups(differences).abs().amax(dim=1) + 1e-8
    return _write(differences, scales, table), scales, absmax.mean().item()


@mutant(
    "a small number such as 1e-8 keeps the divisor from 0. It moves codes where the scale is small, and where the "
    "weights are tiny all differences look like 0. Change only the divisors that are 0."
)
def epsilon_in_the_divisor(absmax, table):
    differences = absmax - absmax.mean()
    scales = _groups(differences).abs().amax(dim=1)
    return _write(differences, scales + 1e-8, table), scales, absmax.mean().item()


@mutant(
    "a group without any difference gets the scale 1. Only the division needs such a number. Stored is 0, the largest "
    "magnitude of its differences."
)
def one_stored_for_no_difference(absmax, table):
    codes, scales, offset = double_quantize(absmax, table)
    return codes, torch.where(scales > 0, scales, 1.0), offset


@mutant("the codes are signed numbers around 0. A code is a place in the table, from 0 to 255.")
def signed_codes(absmax, table):
    codes, scales, offset = double_quantize(absmax, table)
    return (codes.short() - 128).to(torch.int8), scales, offset


@mutant("the scales have a second dimension, (groups, 1), which keepdim=True left behind. Return one number per group.")
def scales_as_a_column(absmax, table):
    codes, scales, offset = double_quantize(absmax, table)
    return codes, scales[:, None], offset


def group_by_group(absmax, table):
    """Right, by a loop over slices and all distances to the levels."""
    offset = absmax.mean()
    codes, scales = [], []
    for group in (absmax - offset).split(256):
        scale = group.abs().max()
        values = group / scale if scale > 0 else group
        codes.append((values[:, None] - table).abs().argmin(dim=1))
        scales.append(scale)
    return torch.cat(codes).to(torch.uint8), torch.stack(scales), offset


def in_float64(absmax, table):
    """Right, with every step in float64, the sum by Python, and ties that go down."""
    import math

    offset = math.fsum(absmax.tolist()) / len(absmax)
    differences, levels = absmax.double() - offset, table.double()
    scales = torch.stack([group.abs().max() for group in differences.split(256)])
    values = differences / torch.where(scales > 0, scales, 1.0).repeat_interleave(256)[: len(absmax)]
    codes = (values[:, None] > (levels[:-1] + levels[1:]) / 2).sum(dim=1)
    return codes.to(torch.uint8), scales.float(), offset


def as_arrays(absmax, table):
    """Right, as arrays, with numpy's digitize."""
    import numpy as np

    values, levels = absmax.numpy(), table.numpy()
    offset = float(values.mean(dtype=np.float64))
    differences = values - np.float32(offset)
    scales = np.maximum.reduceat(np.abs(differences), np.arange(0, values.size, 256))
    each = np.repeat(scales, 256)[: values.size]
    shares = np.divide(differences, each, out=np.zeros_like(differences), where=each > 0)
    return np.digitize(shares, (levels[1:] + levels[:-1]) / 2).astype(np.uint8), scales, offset


QUESTION = Question(
    id="codebook.double_quant",
    title="Quantize the absmax, too",
    reference=double_quantize,
    cases=cases,
    properties=(
        returns_codes_scales_offset,
        a_byte_for_each_block,
        offset_is_the_mean,
        scales_are_the_largest_differences,
        codes_are_nearest,
    ),
    mutants=(
        codes_left_wide,  # first: what is wrong in its types only looks like this one
        without_an_offset,
        offset_not_subtracted,
        smallest_for_the_mean,
        middle_for_the_mean,
        median_for_the_mean,
        a_mean_for_each_group,
        mean_with_the_padding,
        filled_up_too_early,
        one_scale_for_all,
        one_scale_in_all,
        groups_of_64,
        short_group_refused,
        without_abs,
        without_abs_filled_up,
        scale_of_the_absmax,
        even_grid,
        divided_by_127,
        next_level_up,
        negative_differences_lost,
        equal_groups_divide,
        epsilon_added,
        epsilon_in_the_divisor,
        one_stored_for_no_difference,
        signed_codes,
        scales_as_a_column,
    ),
    alternatives=(group_by_group, in_float64, as_arrays),
    hints=(
        "You have done all of this with weights. What plays the part of the weights now, what that of the absmax, and "
        "what that of the 16 levels? One thing is new: these numbers are never negative, and the table is signed.",
        "Subtract the mean first. Cut the differences into groups of 256 as you cut weights into blocks, and divide "
        "each group by its largest magnitude (by anything else where that is 0). Then look for the nearest level at "
        "the midpoints of the table.",
        "offset = absmax.mean().item(); groups = pad(absmax - offset, (0, -len(absmax) % 256)).view(-1, 256); scales = "
        "groups.abs().amax(dim=1); divide by torch.where(scales > 0, scales, 1.0)[:, None], flatten, cut to "
        "len(absmax), and torch.searchsorted((table[:-1] + table[1:]) / 2, ...) gives the codes.",
    ),
    explanation=(
        "An absmax is far from zero and never far from the others: for normal weights in blocks of 64 the mean is six "
        "standard deviations from 0. Without the offset they would share 52 of the 256 levels; with it they use 245, "
        "and the mean error of an absmax falls from 0.6 % to 0.16 %. The weights do not notice: their error stays "
        "9.20 % to three digits, and 0.373 bits of each weight are saved. The table is the one that bitsandbytes made "
        "for optimizers, whose numbers span many decades; even levels would do better here, 0.12 %. On a CPU, "
        "bitsandbytes 0.50 first rounds a difference to one of 65,536 points, and so takes a neighbor of the nearest "
        "level for 2 codes in 1000."
    ),
)
