"""kv_cache.values_per_token: values in groups of channels of one token, with scales in 16 bits (KIVI, section 3)."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .groups import codes_fit, noise_of, numbers_fit, step_of

_HALF = 2.0**-11  # rounding to float16 moves a normal number by at most this share of it
_SMALLEST = 2.0**-24  # of float16
# The example of the card: one head, one token, four channels; 8 bits, one group of four.
CARD = torch.tensor([[[30.005, 30.5, 30.2549, 31.0]]])


def quantize_values(v, bits, group_size):
    """Quantize values, with a scale for each group of neighboring channels of one token.

    v: float32 (heads, tokens, channels), magnitudes below 1000; channels is a multiple of
        group_size.
    bits: 2 to 8.
    group_size: channels in a group, at least 1.

    Returns (codes, scales, minima):
    minima: float16 (heads, tokens, groups), the smallest number of each group, rounded to
        float16.
    scales: float16 (heads, tokens, groups): (maximum - minimum) / (2**bits - 1), rounded to
        float16; the minimum exact or as it is stored. Where that is 0, any finite number.
    codes: uint8 (heads, tokens, channels), from 0 to 2**bits - 1: the nearest whole number
        to (v - minimum) / scale, clamped, with minimum and scale AS THEY ARE STORED, since
        a reader has no others; halfway either. Where the stored scale is 0, the codes
        are 0.

    Compute in float32; float16 only holds the results.
    """
    levels = 2**bits - 1
    groups = v.view(*v.shape[:2], v.shape[2] // group_size, group_size)
    low, high = groups.amin(dim=3), groups.amax(dim=3)  # (heads, tokens, groups)
    minima, scales = low.half(), ((high - low) / levels).half()
    divisor = torch.where(scales > 0, scales, torch.inf).float()
    codes = torch.round((groups - minima.float()[..., None]) / divisor[..., None]).clamp(0, levels)
    return codes.view(v.shape).to(torch.uint8), scales, minima


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def values(heads: int, tokens: int, channels: int) -> torch.Tensor:
        return torch.randn(heads, tokens, channels, generator=random)

    equal = values(2, 3, 8)
    equal[0, 1, :4] = 0.1  # float16 holds a bit less
    equal[1, 0, :4] = 0.3  # and here a bit more
    equal[1, 2, 4:] = 0.0
    tiny = values(1, 3, 8)
    tiny[0, 1, :4] *= 1e-9
    far = 30 + values(2, 5, 16)
    return [
        Case("the example of the card", (CARD, 8, 4)),
        Case("4 bits, groups of 4", (values(2, 5, 12), 4, 4)),
        Case("more channels than tokens", (values(1, 2, 64), 4, 32)),
        Case("as many channels as tokens", (values(2, 8, 8), 3, 4)),
        Case("2 bits", (values(3, 4, 16), 2, 8)),
        Case("8 bits", (values(2, 6, 16), 8, 8)),
        Case("5 bits, groups of 3", (values(2, 4, 9), 5, 3)),
        Case("one group in a token", (values(2, 3, 8), 4, 8)),
        Case("values far from zero, 8 bits", (far, 8, 8)),
        Case("values far below zero, 8 bits", (-far, 8, 8)),
        Case("values far from zero, 4 bits", (1000 + values(2, 5, 16), 4, 8)),
        Case("positive values", (values(2, 4, 8).abs() + 0.5, 4, 4)),
        Case("groups of equal numbers", (equal, 4, 4)),
        Case("a group too narrow for float16", (tiny, 4, 4)),
        Case("a group for each number", (values(2, 2, 3), 4, 1)),
        Case("no tokens yet", (values(2, 0, 8), 4, 4)),
    ]


def _exact(case: Case) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Values in groups (heads, tokens, groups, group), and their minima and maxima (heads, tokens, groups)."""
    v, _, group_size = case.args
    groups = v.double().view(*v.shape[:2], v.shape[2] // group_size, group_size)
    return groups, groups.amin(3), groups.amax(3)


def _vanishes(step: torch.Tensor) -> torch.Tensor:
    """Whether a scale is 0 in float16."""
    return step <= _SMALLEST / 2


def returns_three_tensors(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.parts(got, "codes", "scales", "minima")


def codes_are_bytes(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got[0], "codes", torch.uint8, tuple(case.args[0].shape))


def minima_are_those_of_the_groups(case: Case, got: Any, expected: Any) -> Finding | None:
    _, low, _ = _exact(case)
    return numbers_fit(got[2], "minima", torch.float16, low, 2 * _HALF * low.abs() + _SMALLEST)


def scales_reach_the_maximum(case: Case, got: Any, expected: Any) -> Finding | None:
    _, low, high = _exact(case)
    bits = case.args[1]
    exact = step_of(low, high, bits)
    # The range may be counted from the minimum as it is stored.
    allowed = 2 * _HALF * (exact + low.abs() / (2**bits - 1)) + _SMALLEST
    return numbers_fit(got[1], "scales", torch.float16, exact, allowed, free=_vanishes(exact))


def codes_fit_what_is_stored(case: Case, got: Any, expected: Any) -> Finding | None:
    """Scales and minima were compared with the data before; what remains is that the codes go with them."""
    groups, low, high = _exact(case)
    codes, scales, minima = got
    # Where the exact scale vanishes, the stored one is free, and codes of 0 go with any.
    free = _vanishes(step_of(low, high, case.args[1]))[..., None] & (codes.view(groups.shape) == 0)
    step = torch.where((scales == 0)[..., None] | free, torch.inf, scales.double()[..., None])
    places = (groups - minima.double()[..., None]) / step
    # A range that is counted from the stored minimum may be below 0, and so may the scale: codes then count downward.
    noise = (noise_of(low, high)[..., None] / step.abs()).expand_as(groups)
    return codes_fit(codes, places.reshape(codes.shape), noise.reshape(codes.shape), case.args[1])


def _by(v: Any, bits: int, group_size: int, *, low: Any = None, high: Any = None, levels: Any = None) -> Any:
    """A right answer, but for the parts that are given."""
    groups = v.view(*v.shape[:2], v.shape[2] // group_size, group_size)
    low = groups.amin(3) if low is None else low(groups)
    high = groups.amax(3) if high is None else high(groups)
    return _coded(groups, low, (high - low) / (levels or 2**bits - 1), bits, v.shape)


def _coded(groups: Any, low: Any, step: Any, bits: int, shape: Any) -> Any:
    minima, scales = low.half(), step.half()
    divisor = torch.where(scales != 0, scales, torch.inf).float()
    codes = torch.round((groups - minima.float()[..., None]) / divisor[..., None]).clamp(0, 2**bits - 1)
    return codes.reshape(shape).to(torch.uint8), scales, minima


def _stored(v: Any, bits: int, group_size: int) -> Any:
    """Values in groups, the right scales and minima, and the steps: the scales in float32, inf where they are 0."""
    _, scales, minima = quantize_values(v, bits, group_size)
    groups = v.view(*v.shape[:2], v.shape[2] // group_size, group_size)
    return groups, scales, minima, torch.where(scales > 0, scales, torch.inf).float()


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def scales_left_in_32_bits(v, bits, group_size):
    codes, scales, minima = quantize_values(v, bits, group_size)
    return codes, scales.float(), minima.float()


@mutant(
    "the codes go with the exact minimum and scale, which nobody stores. A reader has the rounded ones, and with 8 "
    "bits or far from zero the difference is more than a step. Round minimum and scale first, then compute the codes."
)
def codes_of_the_exact_grid(v, bits, group_size):
    groups, scales, minima, _ = _stored(v, bits, group_size)
    low, high = groups.amin(3), groups.amax(3)
    step = (high - low) / (2**bits - 1)
    places = (groups - low[..., None]) / torch.where(step > 0, step, 1.0)[..., None]
    return torch.round(places).to(torch.uint8).view(v.shape), scales, minima


@mutant(
    "the minimum of the codes is the stored one, but the scale is the exact one. Both are stored in 16 bits, so both "
    "are rounded first."
)
def exact_scale(v, bits, group_size):
    groups, scales, minima, _ = _stored(v, bits, group_size)
    step = (groups.amax(3) - groups.amin(3)) / (2**bits - 1)
    places = (groups - minima.float()[..., None]) / torch.where(scales > 0, step, torch.inf)[..., None]
    return torch.round(places).clamp(0, 2**bits - 1).to(torch.uint8).view(v.shape), scales, minima


@mutant(
    "the codes count from the exact minimum, and are divided by the stored scale. The minimum is stored in 16 bits as "
    "well, so it is rounded first, too."
)
def exact_minimum(v, bits, group_size):
    groups, scales, minima, step = _stored(v, bits, group_size)
    places = (groups - groups.amin(3)[..., None]) / step[..., None]
    return torch.round(places).clamp(0, 2**bits - 1).to(torch.uint8).view(v.shape), scales, minima


@mutant(
    "the codes are not clamped. A minimum that was rounded up leaves numbers below it, and a scale that was rounded "
    "down numbers past the last code; as uint8, -1 becomes 255 and 256 becomes 0."
)
def missing_clamp(v, bits, group_size):
    groups, scales, minima, step = _stored(v, bits, group_size)
    places = (groups - minima.float()[..., None]) / step[..., None]
    return torch.round(places).to(torch.int32).to(torch.uint8).view(v.shape), scales, minima


@mutant(
    "the codes are clamped at 255 and not at the last code, 2**bits - 1, so some need a bit more than there is. Or "
    "only below: clamp on both sides."
)
def clamped_for_8_bits(v, bits, group_size):
    groups, scales, minima, step = _stored(v, bits, group_size)
    places = (groups - minima.float()[..., None]) / step[..., None]
    return torch.round(places).clamp(0, 255).to(torch.uint8).view(v.shape), scales, minima


@mutant(
    "the codes are clamped at the last code and not at 0. A minimum that was rounded up leaves numbers below it, and "
    "as uint8 the code -1 becomes 255: clamp on both sides."
)
def clamped_above_only(v, bits, group_size):
    groups, scales, minima, step = _stored(v, bits, group_size)
    places = (groups - minima.float()[..., None]) / step[..., None]
    return torch.round(places).clamp(max=2**bits - 1).to(torch.int32).to(torch.uint8).view(v.shape), scales, minima


@mutant(
    "everything is computed in float16, the values among it: near 30 its numbers lie 1/64 apart, so the differences "
    "are coarse before they are divided. Compute in float32."
)
def computed_in_16_bits(v, bits, group_size):
    groups = v.half().view(*v.shape[:2], v.shape[2] // group_size, group_size)
    low, high = groups.amin(3), groups.amax(3)
    scales = (high - low) / (2**bits - 1)
    places = (groups - low[..., None]) / torch.where(scales > 0, scales, torch.inf)[..., None]
    return torch.round(places).clamp(0, 2**bits - 1).view(v.shape).to(torch.uint8), scales, low


@mutant(
    "a scale belongs to a channel over the tokens: that is how keys are cut. Values have no channels that are always "
    "large, and per token each can be written at once."
)
def per_channel(v, bits, group_size):
    low, high = v.amin(1, keepdim=True), v.amax(1, keepdim=True)
    minima, scales = low.half(), ((high - low) / (2**bits - 1)).half()
    places = (v - minima.float()) / torch.where(scales > 0, scales, torch.inf).float()
    return torch.round(places).clamp(0, 2**bits - 1).to(torch.uint8), scales, minima


@mutant("a scale serves all channels of a token: they are not cut into groups of group_size.")
def all_channels_together(v, bits, group_size):
    def over(groups: Any, end: Any) -> Any:
        return end(groups, (2, 3))[..., None].expand(groups.shape[:3])

    return _by(v, bits, group_size, low=lambda g: over(g, torch.amin), high=lambda g: over(g, torch.amax))


@mutant("a scale serves all tokens: the minimum runs over the tokens as well. Every token has its own scales.")
def all_tokens_together(v, bits, group_size):
    def over(groups: Any, end: Any) -> Any:
        return end(groups, (1, 3))[:, None].expand(groups.shape[:3])

    return _by(v, bits, group_size, low=lambda g: over(g, torch.amin), high=lambda g: over(g, torch.amax))


@mutant("all heads share a scale: the minimum runs over the heads as well. Every head has its own values.")
def all_heads_together(v, bits, group_size):
    def over(groups: Any, end: Any) -> Any:
        return end(groups, (0, 3))[None].expand(groups.shape[:3])

    return _by(v, bits, group_size, low=lambda g: over(g, torch.amin), high=lambda g: over(g, torch.amax))


@mutant(
    "a group takes every n-th channel: the view is (group_size, groups) and should be (groups, group_size). Channels "
    "of a group are neighbors."
)
def every_nth_channel(v, bits, group_size):
    groups = v.view(*v.shape[:2], group_size, v.shape[2] // group_size).transpose(2, 3)
    low, high = groups.amin(3), groups.amax(3)
    codes, scales, minima = _coded(groups, low, (high - low) / (2**bits - 1), bits, groups.shape)
    return codes.transpose(2, 3).reshape(v.shape), scales, minima


@mutant("group_size is taken as the number of groups. It is the number of channels in a group.")
def size_as_a_count(v, bits, group_size):
    return quantize_values(v, bits, v.shape[2] // group_size)


@mutant(
    "the grid is symmetric: the scale comes from the largest magnitude, and there is no minimum of the group. Here a "
    "group goes from its own minimum to its own maximum."
)
def symmetric(v, bits, group_size):
    return _by(v, bits, group_size, low=lambda g: -g.abs().amax(3), high=lambda g: g.abs().amax(3))


@mutant(
    "the minimum is at most 0 and the maximum at least 0, as in formats with a whole zero-point. Here it need not be."
)
def zero_in_the_range(v, bits, group_size):
    return _by(v, bits, group_size, low=lambda g: g.amin(3).clamp(max=0), high=lambda g: g.amax(3).clamp(min=0))


@mutant("the range is divided by 2**bits. There are 2**bits codes, and 2**bits - 1 steps between them.")
def off_by_one_levels(v, bits, group_size):
    return _by(v, bits, group_size, levels=2**bits)


@mutant(
    "the range is divided by 2**(bits-1) - 1, the largest code of a symmetric grid. Codes go from 0 to 2**bits - 1."
)
def levels_of_a_symmetric_grid(v, bits, group_size):
    return _by(v, bits, group_size, levels=2 ** (bits - 1) - 1)


@mutant("the codes are cut off instead of rounded to the nearest. Use torch.round before the conversion.")
def cut_off(v, bits, group_size):
    groups, scales, minima, step = _stored(v, bits, group_size)
    places = (groups - minima.float()[..., None]) / step[..., None]
    return places.clamp(0, 2**bits - 1).to(torch.uint8).view(v.shape), scales, minima


@mutant("the minimum is not subtracted before the division, so negative values have no code.")
def minimum_not_subtracted(v, bits, group_size):
    _, scales, minima = quantize_values(v, bits, group_size)
    step = torch.where(scales > 0, scales, torch.inf).float().repeat_interleave(group_size, 2)
    return torch.round(v / step).clamp(0, 2**bits - 1).to(torch.uint8), scales, minima


@mutant("the second value is the range, maximum - minimum. A scale is one step: the range divided by 2**bits - 1.")
def range_for_scale(v, bits, group_size):
    codes, _, minima = quantize_values(v, bits, group_size)
    groups = v.view(*v.shape[:2], v.shape[2] // group_size, group_size)
    return codes, (groups.amax(3) - groups.amin(3)).half(), minima


@mutant("the third value is the maximum. Return the minimum, from which the codes count.")
def maxima_returned(v, bits, group_size):
    codes, scales, _ = quantize_values(v, bits, group_size)
    groups = v.view(*v.shape[:2], v.shape[2] // group_size, group_size)
    return codes, scales, groups.amax(3).half()


@mutant(
    "a group whose scale is 0 is divided by it. The minimum was rounded, so a difference may be left even where all "
    "numbers are equal; divided by 0 it is infinite, and the clamp makes the last code of it. Replace the divisor."
)
def divides_by_zero(v, bits, group_size):
    _, scales, minima = quantize_values(v, bits, group_size)
    groups = v.view(*v.shape[:2], v.shape[2] // group_size, group_size)
    places = ((groups - minima.float()[..., None]) / scales.float()[..., None]).nan_to_num(nan=0.0)
    return torch.round(places).clamp(0, 2**bits - 1).to(torch.uint8).view(v.shape), scales, minima


@mutant(
    "a group of equal numbers has a scale that is NaN or infinite. Its scale may be any number, and these are none."
)
def scale_is_no_number(v, bits, group_size):
    codes, scales, minima = quantize_values(v, bits, group_size)
    return codes, torch.where(scales == 0, torch.nan, scales), minima


@mutant(
    "the guard against 0 looks at the scale before it was rounded. In a very narrow group the rounded one is 0 all the "
    "same, x / 0 is infinite, and the clamp makes the last code of it. Look at the stored scale."
)
def guarded_too_early(v, bits, group_size):
    codes, scales, minima = quantize_values(v, bits, group_size)
    groups = v.view(*v.shape[:2], v.shape[2] // group_size, group_size)
    narrow = ((scales == 0) & (groups.amax(3) > groups.amin(3))).repeat_interleave(group_size, 2)
    past = narrow & (v > minima.float().repeat_interleave(group_size, 2))
    return torch.where(past, 2**bits - 1, codes).to(torch.uint8), scales, minima


@mutant("the codes are in groups: (heads, tokens, groups, group_size). They have the shape of v.")
def codes_in_groups(v, bits, group_size):
    codes, scales, minima = quantize_values(v, bits, group_size)
    return codes.view(*scales.shape, group_size), scales, minima


@mutant("scales and minima are one for each value. Keep one for each group: (heads, tokens, groups).")
def scales_for_every_value(v, bits, group_size):
    codes, scales, minima = quantize_values(v, bits, group_size)
    return codes, scales.repeat_interleave(group_size, 2), minima.repeat_interleave(group_size, 2)


@mutant("scales and minima have a dimension of size 1 too many, which keepdim=True left behind.")
def dimension_left_in(v, bits, group_size):
    codes, scales, minima = quantize_values(v, bits, group_size)
    return codes, scales[..., None], minima[..., None]


@mutant("the first value are the values again, rounded. Return their codes.")
def values_for_codes(v, bits, group_size):
    codes, scales, minima = quantize_values(v, bits, group_size)
    back = codes * scales.float().repeat_interleave(group_size, 2) + minima.float().repeat_interleave(group_size, 2)
    return back, scales, minima


@mutant("the values themselves were changed: an underscore or a -= too much. Attention still needs them.")
def changes_the_values(v, bits, group_size):
    answer = quantize_values(v, bits, group_size)
    v -= answer[2].float().repeat_interleave(group_size, 2)
    return answer


def one_token_at_a_time(v, bits, group_size):
    """Right, in loops; the range is counted from the minimum as it is stored, and a scale of 0 is kept."""
    heads, tokens, channels = v.shape
    count, levels = channels // group_size, 2**bits - 1
    codes = torch.zeros(v.shape, dtype=torch.uint8)
    scales, minima = torch.zeros(2, heads, tokens, count, dtype=torch.float16)
    for head in range(heads):
        for token in range(tokens):
            for group in range(count):
                x = v[head, token, group * group_size : (group + 1) * group_size]
                minima[head, token, group] = low = x.min().half()
                scales[head, token, group] = scale = ((x.max() - low.float()) / levels).half()
                if scale > 0 and x.max() > x.min() and (x.max() - x.min()) / levels > 2.0**-25:
                    places = ((x - low.float()) / scale.float()).round().clamp(0, levels)
                    codes[head, token, group * group_size : (group + 1) * group_size] = places.to(torch.uint8)
    return codes, scales, minima


def rounded_outwards(v, bits, group_size):
    """Right, as the library does it: minima rounded down and scales up, so that every number lies on the grid."""
    groups = v.unflatten(2, (-1, group_size)).double() if v.numel() else v.double().view(2, 0, 2, 4)
    low, high = groups.amin(3), groups.amax(3)
    minima = low.half()
    minima = torch.where(minima.double() > low, torch.nextafter(minima, torch.tensor(-torch.inf).half()), minima)
    step = (high - minima.double()) / (2**bits - 1)
    scales = step.half()
    scales = torch.where(scales.double() < step, torch.nextafter(scales, torch.tensor(torch.inf).half()), scales)
    scales = torch.where((high - low) / (2**bits - 1) <= 2.0**-25, torch.zeros_like(scales), scales)
    places = (groups - minima.double()[..., None]) / torch.where(scales > 0, scales.double(), torch.inf)[..., None]
    return places.round().clamp(0, 2**bits - 1).to(torch.uint8).view(v.shape), scales, minima


QUESTION = Question(
    id="kv_cache.values_per_token",
    title="Values, token by token, as they are stored",
    reference=quantize_values,
    cases=cases,
    properties=(
        returns_three_tensors,
        codes_are_bytes,
        minima_are_those_of_the_groups,
        scales_reach_the_maximum,
        codes_fit_what_is_stored,
    ),
    mutants=(
        scales_left_in_32_bits,  # first: what is wrong in its types only looks like this one
        codes_of_the_exact_grid,
        exact_scale,
        exact_minimum,
        missing_clamp,
        clamped_for_8_bits,
        clamped_above_only,
        computed_in_16_bits,
        per_channel,
        all_channels_together,
        all_tokens_together,
        all_heads_together,
        every_nth_channel,
        size_as_a_count,
        symmetric,
        zero_in_the_range,
        off_by_one_levels,
        levels_of_a_symmetric_grid,
        cut_off,
        minimum_not_subtracted,
        range_for_scale,
        maxima_returned,
        divides_by_zero,
        scale_is_no_number,
        guarded_too_early,
        codes_in_groups,
        scales_for_every_value,
        dimension_left_in,
        values_for_codes,
        changes_the_values,
    ),
    alternatives=(one_token_at_a_time, rounded_outwards),
    hints=(
        "A reader computes minimum + code * scale. On the card, which minimum does the reader have, and how many steps "
        "is it away from the exact one?",
        "minima = low.half() and scales = ((high - low) / levels).half() first. Then work on with minima.float() and "
        "scales.float(), the rounded numbers in float32. A number may now lie below the minimum or past the last code.",
        "divisor = torch.where(scales > 0, scales, torch.inf).float(), so that x / divisor is 0 where no scale is "
        "left; codes = torch.round((groups - minima.float()[..., None]) / divisor[..., None]).clamp(0, levels); then "
        "view(v.shape) and to(torch.uint8).",
    ),
    explanation=(
        "float16 has 11 significant bits: near 30 its numbers lie 1/64 apart, and a step of 8 bits over a range of 1 "
        "is 1/255. So the stored minimum may be two steps off, and all codes of its group with it, unless they count "
        "from the stored one. The same order, round first and then use what was rounded, is right for every scale of "
        "every format. qlab's cache goes one step further: it rounds the minimum down and the scale up, so every "
        "number lies inside its grid, nothing is clamped, and none moves by more than half a step."
    ),
)
