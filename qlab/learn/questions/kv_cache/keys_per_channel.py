"""kv_cache.keys_per_channel: keys in groups of neighboring tokens of one channel (KIVI, Liu et al. 2024, section 3)."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .groups import codes_fit, noise_of, numbers_fit, step_of

# The example of the card: one head, six tokens, three channels; 2 bits, groups of three tokens.
CARD = torch.tensor(
    [[[9.0, 0.14, -0.5], [9.6, -0.1, 0.4], [9.38, 0.5, 0.1], [9.3, 0.3, 0.8], [9.3, 0.0, -0.4], [9.3, 0.9, 0.1]]]
)


def quantize_keys(k, bits, group_size):
    """Quantize keys, with a scale for each group of neighboring tokens of one channel.

    k: float32 (heads, tokens, channels); tokens is a multiple of group_size.
    bits: 2 to 8.
    group_size: tokens in a group, at least 1.

    Returns (codes, scales, minima):
    codes: uint8 (heads, tokens, channels), from 0 to 2**bits - 1: the nearest whole number
        to (k - minimum) / scale; halfway either.
    scales: float32 (heads, groups, channels): (maximum - minimum) / (2**bits - 1) of the
        group. Where all of its numbers are equal, any positive number, since nobody can
        divide by 0.
    minima: float32 (heads, groups, channels), the smallest number of the group.

    minimum + code * scale is the key again, nearly; where all numbers of a group are equal,
    the codes are 0.
    """
    heads, tokens, channels = k.shape
    groups = k.view(heads, tokens // group_size, group_size, channels)
    minima = groups.amin(dim=2)  # (heads, groups, channels)
    scales = (groups.amax(dim=2) - minima) / (2**bits - 1)
    scales = torch.where(scales > 0, scales, 1.0)
    codes = torch.round((groups - minima[:, :, None]) / scales[:, :, None])
    return codes.view(k.shape).to(torch.uint8), scales, minima


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def keys(heads: int, tokens: int, channels: int) -> torch.Tensor:
        """As in a model: a few channels are large at every token, and of one sign."""
        offset = torch.where(torch.rand(heads, 1, channels, generator=random) < 0.2, 8.0, 0.0)
        side = 1 - 2 * torch.randint(0, 2, offset.shape, generator=random)
        return offset * side + torch.randn(heads, tokens, channels, generator=random)

    constant = keys(2, 8, 6)
    constant[0, :4, 2] = 1.7
    constant[1, 4:, 5] = -3.0
    zeros = keys(1, 12, 5)
    zeros[0, 4:8] = 0.0
    tiny = keys(2, 8, 5)
    tiny[:, :, 1] = 1e-14 * torch.randn(2, 8, generator=random)
    return [
        Case("the example of the card", (CARD, 2, 3)),
        Case("4 bits, groups of 4", (keys(2, 12, 7), 4, 4)),
        Case("more tokens than channels", (keys(1, 32, 3), 4, 8)),
        Case("as many tokens as channels", (keys(3, 8, 8), 3, 4)),
        Case("2 bits, groups of 32", (keys(2, 64, 9), 2, 32)),
        Case("8 bits", (keys(2, 16, 5), 8, 8)),
        Case("5 bits, groups of 3", (keys(2, 9, 4), 5, 3)),
        Case("one group", (keys(2, 6, 5), 4, 6)),
        Case("channels that are large and of one sign", (12.0 + keys(1, 8, 6).abs(), 4, 4)),
        Case("negative channels", (-5.0 - keys(2, 8, 3).abs(), 4, 4)),
        Case("groups of equal numbers", (constant, 4, 4)),
        Case("a group of zeros", (zeros, 4, 4)),
        Case("a channel of tiny numbers", (tiny, 4, 4)),
        Case("a group for each token", (keys(2, 5, 4), 4, 1)),
        Case("no tokens yet", (keys(2, 0, 4), 4, 8)),
    ]


_STAND_IN = 1.0  # the scale that the reference gives to a group of equal numbers


def _exact(case: Case) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Keys in groups (heads, groups, group, channels), and their minima and maxima (heads, groups, channels)."""
    k, _, group_size = case.args
    groups = k.double().view(k.shape[0], k.shape[1] // group_size, group_size, k.shape[2])
    return groups, groups.amin(2), groups.amax(2)


def returns_three_tensors(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.parts(got, "codes", "scales", "minima")


def codes_are_bytes(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got[0], "codes", torch.uint8, tuple(case.args[0].shape))


def minima_are_those_of_the_groups(case: Case, got: Any, expected: Any) -> Finding | None:
    _, low, _ = _exact(case)
    return numbers_fit(got[2], "minima", torch.float32, low, 1e-6 * low.abs())


def scales_reach_the_maximum(case: Case, got: Any, expected: Any) -> Finding | None:
    _, low, high = _exact(case)
    bits = case.args[1]
    exact = step_of(low, high, bits)
    allowed = noise_of(low, high) / (2**bits - 1) + 1e-6 * exact
    return numbers_fit(got[1], "scales", torch.float32, exact, allowed, free=exact == 0, positive=True)


def codes_are_nearest(case: Case, got: Any, expected: Any) -> Finding | None:
    groups, low, high = _exact(case)
    exact = step_of(low, high, case.args[1])
    step = torch.where(exact > 0, exact, torch.inf)[:, :, None]  # all numbers equal: place 0
    places = (groups - low[:, :, None]) / step
    noise = (noise_of(low, high)[:, :, None] / step).expand_as(groups)
    return codes_fit(got[0], places.view(got[0].shape), noise.reshape(got[0].shape), case.args[1])


def _by(k: Any, bits: int, group_size: int, *, low: Any = None, high: Any = None, levels: Any = None) -> Any:
    """A right answer, but for the parts that are given."""
    heads, tokens, channels = k.shape
    groups = k.view(heads, tokens // group_size, group_size, channels)
    low = groups.amin(2) if low is None else low(groups)
    high = groups.amax(2) if high is None else high(groups)
    scales = (high - low) / (levels or 2**bits - 1)
    scales = torch.where(scales == 0, _STAND_IN, scales)
    codes = torch.round((groups - low[:, :, None]) / scales[:, :, None]).clamp(0, 2**bits - 1)
    return codes.reshape(k.shape).to(torch.uint8), scales, low


def _over(k: Any, bits: int, low: Any, high: Any) -> Any:
    """As `_by`, with minima and maxima that broadcast over k, and are returned as they are."""
    scales = (high - low) / (2**bits - 1)
    scales = torch.where(scales == 0, _STAND_IN, scales)
    codes = torch.round((k - low) / scales).clamp(0, 2**bits - 1)
    return codes.to(torch.uint8), scales, low


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def codes_left_wide(k, bits, group_size):
    codes, scales, minima = quantize_keys(k, bits, group_size)
    return codes.int(), scales, minima


@mutant("the scales and minima have 16 bits. That is question 5; here they are float32, as the keys.")
def scales_in_16_bits(k, bits, group_size):
    codes, scales, minima = quantize_keys(k, bits, group_size)
    return codes, scales.half(), minima.half()


@mutant(
    "a scale belongs to a token: the minimum runs over the channels. One large channel then spoils all others of its "
    "token. Take it over group_size tokens of one channel."
)
def one_scale_per_token(k, bits, group_size):
    return _over(k, bits, k.amin(2, keepdim=True), k.amax(2, keepdim=True))


@mutant("a scale serves all channels of a group of tokens: the minimum runs over the channels as well.")
def all_channels_together(k, bits, group_size):
    def over(groups: Any, end: Any) -> Any:
        return end(groups, (2, 3))[:, :, None].expand(-1, -1, groups.shape[3])

    return _by(k, bits, group_size, low=lambda g: over(g, torch.amin), high=lambda g: over(g, torch.amax))


@mutant("a scale serves a channel over all tokens: the tokens are not cut into groups of group_size.")
def all_tokens_together(k, bits, group_size):
    groups = k.shape[1] // group_size

    def over(part: Any, end: Any) -> Any:
        return end(part, (1, 2))[:, None].expand(-1, groups, -1)

    return _by(k, bits, group_size, low=lambda g: over(g, torch.amin), high=lambda g: over(g, torch.amax))


@mutant("all heads share a scale: the minimum runs over the heads as well. Every head has its own keys.")
def all_heads_together(k, bits, group_size):
    def over(part: Any, end: Any) -> Any:
        return end(part, (0, 2))[None].expand(part.shape[0], -1, -1)

    return _by(k, bits, group_size, low=lambda g: over(g, torch.amin), high=lambda g: over(g, torch.amax))


@mutant(
    "a group takes every n-th token: the view is (group_size, groups) and should be (groups, group_size). Tokens of a "
    "group are neighbors; when a group is quantized, the ones after it have not come yet."
)
def every_nth_token(k, bits, group_size):
    count = k.shape[1] // group_size
    groups = k.view(k.shape[0], group_size, count, k.shape[2])
    low, high = groups.amin(1), groups.amax(1)
    codes, scales, minima = _over(groups, bits, low[:, None], high[:, None])
    return codes.view(k.shape), scales[:, 0], minima[:, 0]


@mutant("group_size is taken as the number of groups. It is the number of tokens in a group.")
def size_as_a_count(k, bits, group_size):
    count = max(k.shape[1] // group_size, 1)
    return quantize_keys(k, bits, count if k.shape[1] % count == 0 and k.shape[1] else group_size)


@mutant(
    "the grid is symmetric: the scale comes from the largest magnitude, and there is no minimum. Keys of a large "
    "channel all have one sign, so half of the codes or more go unused."
)
def symmetric(k, bits, group_size):
    levels = 2**bits - 1
    return _by(k, bits, group_size, low=lambda g: -g.abs().amax(2), high=lambda g: g.abs().amax(2), levels=levels)


@mutant(
    "the grid is that of weights: the scale is the largest magnitude divided by 2**(bits-1) - 1, the codes are moved "
    "up by 2**(bits-1), and the minimum is 0. Keys of a large channel all have one sign; here a group goes from its "
    "own minimum to its own maximum."
)
def symmetric_as_weights(k, bits, group_size):
    groups = k.view(k.shape[0], k.shape[1] // group_size, group_size, k.shape[2])
    scales = groups.abs().amax(2) / (2 ** (bits - 1) - 1)
    scales = torch.where(scales > 0, scales, _STAND_IN)
    codes = torch.round(groups / scales[:, :, None]) + 2 ** (bits - 1)
    return codes.clamp(0, 2**bits - 1).reshape(k.shape).to(torch.uint8), scales, torch.zeros_like(scales)


@mutant(
    "the minimum is at most 0 and the maximum at least 0, as in formats with a whole zero-point. Here it need not be."
)
def zero_in_the_range(k, bits, group_size):
    return _by(k, bits, group_size, low=lambda g: g.amin(2).clamp(max=0), high=lambda g: g.amax(2).clamp(min=0))


@mutant("the range is divided by 2**bits. There are 2**bits codes, and 2**bits - 1 steps between them.")
def off_by_one_levels(k, bits, group_size):
    return _by(k, bits, group_size, levels=2**bits)


@mutant("the range is divided by 2**bits, and nothing is clamped: the maximum of every group gets the code 2**bits.")
def off_by_one_without_clamp(k, bits, group_size):
    _, scales, minima = off_by_one_levels.answer(k, bits, group_size)
    groups = k.view(k.shape[0], -1, group_size, k.shape[2]) if k.shape[1] else k[:, :, None]
    places = (groups - minima[:, :, None]) / torch.where(scales > 0, scales, 1.0)[:, :, None]
    return torch.round(places).reshape(k.shape).to(torch.int16).to(torch.uint8), scales, minima


@mutant(
    "the range is divided by 2**(bits-1) - 1, the largest code of a symmetric grid. Codes go from 0 to 2**bits - 1."
)
def levels_of_a_symmetric_grid(k, bits, group_size):
    return _by(k, bits, group_size, levels=2 ** (bits - 1) - 1)


@mutant("the codes are cut off instead of rounded to the nearest. Use torch.round before the conversion.")
def cut_off(k, bits, group_size):
    _, scales, minima = quantize_keys(k, bits, group_size)
    spread = scales.repeat_interleave(group_size, 1)
    places = (k - minima.repeat_interleave(group_size, 1)) / torch.where(spread > 0, spread, 1.0)
    return places.to(torch.uint8), scales, minima


@mutant(
    "the minimum is not subtracted before the division: the codes count from 0 and not from the minimum, so negative "
    "keys have none."
)
def minimum_not_subtracted(k, bits, group_size):
    _, scales, minima = quantize_keys(k, bits, group_size)
    spread = scales.repeat_interleave(group_size, 1)
    codes = torch.round(k / torch.where(spread > 0, spread, 1.0)).clamp(0, 2**bits - 1)
    return codes.to(torch.uint8), scales, minima


@mutant(
    "the third value is a zero-point, a whole number of steps, as in weights. Here it is the minimum itself, in the "
    "unit of the keys; and the codes are rounded once, not together with a zero-point."
)
def whole_zero_point(k, bits, group_size):
    _, scales, minima = quantize_keys(k, bits, group_size)
    step = torch.where(scales > 0, scales, 1.0)
    zero = torch.round(-minima / step)
    codes = torch.round(k / step.repeat_interleave(group_size, 1)) + zero.repeat_interleave(group_size, 1)
    return codes.clamp(0, 2**bits - 1).to(torch.uint8), scales, zero


@mutant(
    "the minimum is a whole number of steps, -zero * scale with the rounded zero-point of lesson 02. Here it is kept "
    "as it is: the smallest number of the group, of which the first code is an exact copy."
)
def minimum_of_whole_steps(k, bits, group_size):
    _, scales, minima = quantize_keys(k, bits, group_size)
    zero = torch.round(-minima / scales)
    codes = k / scales.repeat_interleave(group_size, 1) + zero.repeat_interleave(group_size, 1)
    return torch.round(codes).clamp(0, 2**bits - 1).to(torch.uint8), scales, -zero * scales


@mutant("the third value is the maximum, and codes count down from it. Return the minimum.")
def maxima_returned(k, bits, group_size):
    codes, scales, _ = quantize_keys(k, bits, group_size)
    maxima = k.view(k.shape[0], k.shape[1] // group_size, group_size, k.shape[2]).amax(2)
    return codes, scales, maxima


@mutant("the second value is the range, maximum - minimum. A scale is one step: the range divided by 2**bits - 1.")
def range_for_scale(k, bits, group_size):
    codes, scales, minima = quantize_keys(k, bits, group_size)
    return codes, scales * (2**bits - 1), minima


@mutant(
    "a group of equal numbers has the scale 0, and 0 / 0 is NaN. What a byte makes of NaN is up to the processor. Give "
    "such a group any positive scale, before you divide."
)
def equal_numbers_divide(k, bits, group_size):
    codes, scales, minima = quantize_keys(k, bits, group_size)
    return codes, torch.where(scales == _STAND_IN, 0.0, scales), minima


@mutant(
    "the divisor has a lower limit such as 1e-8, or such a number is added to it. A channel of tiny numbers lies below "
    "it, and all of them become equal. Change only the divisors that are 0."
)
def scale_with_a_floor(k, bits, group_size):
    _, scales, minima = quantize_keys(k, bits, group_size)
    scales = scales.clamp(min=1e-8)
    places = (k - minima.repeat_interleave(group_size, 1)) / scales.repeat_interleave(group_size, 1)
    return torch.round(places).to(torch.uint8), scales, minima


@mutant(
    "the scale has a lower limit such as 1e-12. A channel of tiny numbers lies below even that, and all of them become "
    "equal. Change only the divisors that are 0."
)
def scale_with_a_lower_floor(k, bits, group_size):
    _, scales, minima = quantize_keys(k, bits, group_size)
    scales = scales.clamp(min=1e-12)
    places = (k - minima.repeat_interleave(group_size, 1)) / scales.repeat_interleave(group_size, 1)
    return torch.round(places).to(torch.uint8), scales, minima


@mutant(
    "the scale has a lower limit such as 1e-5. A channel of small numbers lies below it, and all of them become equal. "
    "Change only the divisors that are 0."
)
def scale_with_a_high_floor(k, bits, group_size):
    _, scales, minima = quantize_keys(k, bits, group_size)
    groups = k.view(k.shape[0], k.shape[1] // group_size, group_size, k.shape[2])
    exact = (groups.amax(2) - minima) / (2**bits - 1)
    scales = exact.clamp(min=1e-5)
    places = (k - minima.repeat_interleave(group_size, 1)) / scales.repeat_interleave(group_size, 1)
    return torch.round(places).to(torch.uint8), scales, minima


@mutant(
    "a number such as 1e-5 is added to every scale. All of them are a little too large, and in a channel of small "
    "numbers it is all that is left. Change only the divisors that are 0."
)
def epsilon_added(k, bits, group_size):
    groups = k.view(k.shape[0], k.shape[1] // group_size, group_size, k.shape[2])
    minima = groups.amin(2)
    scales = (groups.amax(2) - minima) / (2**bits - 1) + 1e-5
    places = (groups - minima[:, :, None]) / scales[:, :, None]
    return torch.round(places).reshape(k.shape).to(torch.uint8), scales, minima


@mutant("the codes are in groups: (heads, groups, group_size, channels). They have the shape of k.")
def codes_in_groups(k, bits, group_size):
    codes, scales, minima = quantize_keys(k, bits, group_size)
    return codes.view(k.shape[0], k.shape[1] // group_size, group_size, k.shape[2]), scales, minima


@mutant("scales and minima are one for each key. Keep one for each group: (heads, groups, channels).")
def scales_for_every_key(k, bits, group_size):
    codes, scales, minima = quantize_keys(k, bits, group_size)
    return codes, scales.repeat_interleave(group_size, 1), minima.repeat_interleave(group_size, 1)


@mutant(
    "scales and minima are transposed: (heads, channels, groups). The order is that of the keys: groups stand where "
    "the tokens were."
)
def constants_transposed(k, bits, group_size):
    codes, scales, minima = quantize_keys(k, bits, group_size)
    return codes, scales.transpose(1, 2), minima.transpose(1, 2)


@mutant("scales and minima have a dimension of size 1 too many, which keepdim=True left behind.")
def dimension_left_in(k, bits, group_size):
    codes, scales, minima = quantize_keys(k, bits, group_size)
    return codes, scales[:, :, None], minima[:, :, None]


@mutant("the first value are the keys again, rounded. Return their codes.")
def keys_for_codes(k, bits, group_size):
    codes, scales, minima = quantize_keys(k, bits, group_size)
    back = codes * scales.repeat_interleave(group_size, 1) + minima.repeat_interleave(group_size, 1)
    return back, scales, minima


@mutant("the keys themselves were changed: an underscore or a -= too much. Attention still needs them; work on a copy.")
def changes_the_keys(k, bits, group_size):
    answer = quantize_keys(k, bits, group_size)
    k -= answer[2].repeat_interleave(group_size, 1)
    return answer


def one_group_at_a_time(k, bits, group_size):
    """Right, in a loop over groups, in float64; groups of equal numbers have the scale 1."""
    codes, scales, minima = [k[:, :0]], [k[:, :0]], [k[:, :0]]
    for group in k.double().split(group_size, dim=1) if k.shape[1] else ():
        low, high = group.aminmax(dim=1, keepdim=True)
        scale = torch.where(high > low, (high - low) / (2**bits - 1), 1.0)
        codes.append(((group - low) / scale).round())
        scales.append(scale.float())
        minima.append(low.float())
    return torch.cat(codes, dim=1).to(torch.uint8), torch.cat(scales, dim=1), torch.cat(minima, dim=1)


def channels_first(k, bits, group_size):
    """Right: turned, so that a group lies in memory, with the larger error of k / scale - minimum / scale."""
    heads, tokens, channels = k.shape
    turned = k.transpose(1, 2).reshape(heads, channels, tokens // group_size, group_size)
    low = turned.amin(-1, keepdim=True)
    scale = (turned.amax(-1, keepdim=True) - low) / (2**bits - 1)
    places = (turned / scale - low / scale).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    codes = places.round().clamp(0, 2**bits - 1).to(torch.uint8).reshape(heads, channels, tokens)
    return codes.transpose(1, 2), scale[..., 0].clamp(min=1e-30).transpose(1, 2), low[..., 0].transpose(1, 2)


QUESTION = Question(
    id="kv_cache.keys_per_channel",
    title="Keys, channel by channel",
    reference=quantize_keys,
    cases=cases,
    properties=(
        returns_three_tensors,
        codes_are_bytes,
        minima_are_those_of_the_groups,
        scales_reach_the_maximum,
        codes_are_nearest,
    ),
    mutants=(
        codes_left_wide,  # first: what is wrong in its types only looks like this one
        scales_in_16_bits,
        one_scale_per_token,
        all_channels_together,
        all_tokens_together,
        all_heads_together,
        every_nth_token,
        size_as_a_count,
        symmetric,
        symmetric_as_weights,
        zero_in_the_range,
        off_by_one_levels,
        off_by_one_without_clamp,
        levels_of_a_symmetric_grid,
        cut_off,
        minimum_not_subtracted,
        whole_zero_point,
        minimum_of_whole_steps,
        maxima_returned,
        range_for_scale,
        equal_numbers_divide,
        scale_with_a_floor,
        scale_with_a_lower_floor,
        scale_with_a_high_floor,
        epsilon_added,
        codes_in_groups,
        scales_for_every_key,
        constants_transposed,
        dimension_left_in,
        keys_for_codes,
        changes_the_keys,
    ),
    alternatives=(one_group_at_a_time, channels_first),
    hints=(
        "On the card, channel 0 is large at every token. Which numbers should it share a scale with, so that the "
        "other channels do not notice? Which axis of k is that?",
        "k.view(heads, tokens // group_size, group_size, channels) puts the tokens of a group on dimension 2. amin and "
        "amax along it give (heads, groups, channels); [:, :, None] brings the dimension back for the division.",
        "scales = (groups.amax(dim=2) - minima) / (2**bits - 1); scales = torch.where(scales > 0, scales, 1.0); codes "
        "= torch.round((groups - minima[:, :, None]) / scales[:, :, None]); then view(k.shape) and to(torch.uint8).",
    ),
    explanation=(
        "The keys of most models have a few channels that are large at every token. Per token, one of them sets the "
        "scale of all its neighbors; per channel it sets only its own, and its minimum takes most of it away. The "
        "price is that a group needs group_size tokens before it can be written, which is what the residual window "
        "of question 6 is for. A group of equal numbers is rare, and one is enough: 0 / 0 is NaN, and one "
        "NaN among the keys spoils every output of its head. KIVI's own kernels have no guard for it."
    ),
)
