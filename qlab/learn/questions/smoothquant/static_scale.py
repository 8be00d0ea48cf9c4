"""smoothquant.static_scale: one scale for all inputs, measured beforehand (Xiao et al. 2022, section 2 and table 2)."""

from __future__ import annotations

import math
from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import LARGEST, normal


def static_scale(batches, masks):
    """Measure the one scale with which a layer's inputs will be rounded to int8.

    batches: a tuple of at least one tensor, each float16 or float32 (batch, tokens, in),
        what the layer saw of the calibration data. The first two sizes differ from tensor
        to tensor.
    masks: a tuple of as many tensors, each bool (batch, tokens): True for a token, False
        for padding, which may stand on either side. What a layer sees at padding means
        nothing; it may be large, or infinite.

    Returns scale: a number, positive, to 1 part in 100,000:
        the largest |x| of all tokens of all batches, divided by 127, so that this x gets
        the code 127 or -127; 1.0 where there is no token, or nothing but zeros.
    """
    largest = 0.0
    for x, mask in zip(batches, masks, strict=True):
        tokens = x[mask]  # (tokens, in), without padding
        if len(tokens):
            largest = max(largest, tokens.abs().max().item())
    return largest / 127 if largest > 0 else 1.0


_OF_THE_CARD = (
    (
        torch.tensor([[[0.5, -2.0], [1.0, 0.25], [90.0, 7.0]]]),
        torch.tensor([[[0.75, 0.5]], [[-5.08, 1.5]]]),
    ),
    (torch.tensor([[True, True, False]]), torch.tensor([[True], [True]])),
)


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def batch(rows: int, tokens: int, columns: int, padding: int = 0, left: bool = False, garbage: float = 0.0) -> Any:
        """x and its mask; row i has up to `padding` places of padding, filled with garbage of some size."""
        x = normal(random, rows, tokens, columns)
        mask = torch.ones(rows, tokens, dtype=torch.bool)
        for row in range(rows):
            empty = padding - row % (padding + 1)
            places = slice(0, empty) if left else slice(tokens - empty, tokens)
            mask[row, places] = False
        x[~mask] = garbage * normal(random, int((~mask).sum()), columns) if math.isfinite(garbage) else garbage
        return x, mask

    def case(name: str, *pairs: Any) -> Case:
        batches, masks = zip(*pairs, strict=True)
        return Case(name, (batches, masks))

    def with_peak(pair: Any, peak: float) -> Any:
        """One value of the last token of the last row."""
        x, mask = pair
        x[-1, int(mask[-1].nonzero()[-1]), seed % x.shape[-1]] = peak * (1 + torch.rand(1, generator=random).item())
        return x, mask

    def scaled(pair: Any, factor: float) -> Any:
        return pair[0] * factor, pair[1]

    def half(pair: Any) -> Any:
        return pair[0].half(), pair[1]

    def nothing(rows: int, tokens: int, columns: int) -> Any:
        return 50 * normal(random, rows, tokens, columns), torch.zeros(rows, tokens, dtype=torch.bool)

    return [
        Case("the batches of the card", _OF_THE_CARD),
        case("one batch without padding", batch(2, 5, 4)),
        case("the largest value in the first batch", with_peak(batch(2, 4, 3), 30.0), batch(1, 6, 3), batch(3, 2, 3)),
        case("the largest value in the last batch", batch(1, 6, 3), batch(2, 4, 3), with_peak(batch(2, 3, 3), 20.0)),
        case("the largest magnitude is negative", with_peak(batch(2, 5, 3), -25.0), batch(2, 3, 3)),
        case("padding on the right that is large", batch(3, 6, 4, 3, garbage=40.0), batch(2, 4, 4, 1, garbage=9.0)),
        case("padding on the left that is large", batch(3, 6, 4, 3, left=True, garbage=40.0), batch(2, 4, 4)),
        case("padding that is infinite", with_peak(batch(2, 5, 3, 2, garbage=math.inf), 15.0), batch(2, 3, 3)),
        case(
            "padding on the left that is minus infinity",
            batch(2, 3, 3),
            batch(2, 5, 3, 2, left=True, garbage=-math.inf),
        ),
        case("padding of zeros, in a row with the largest value", with_peak(batch(2, 5, 4, 3), 12.0)),
        case("float16", half(with_peak(batch(2, 4, 3, 1), 1000.0)), half(batch(1, 3, 3))),
        case("a batch of padding only among others", batch(2, 4, 3), nothing(2, 3, 3), scaled(batch(1, 2, 3), 3.0)),
        case("no tokens at all", nothing(2, 3, 4), nothing(1, 2, 4)),
        case("nothing but zeros", scaled(batch(2, 3, 4), 0.0), scaled(batch(1, 5, 4), 0.0)),
        case("small inputs", scaled(batch(2, 4, 3), 1e-6), scaled(batch(3, 3, 3, 1, garbage=100.0), 1e-6)),
        case("a single token", batch(1, 1, 6)),
    ]


def _largest(case: Case) -> float:
    tokens = torch.cat([x[mask].double() for x, mask in zip(*case.args, strict=True)])
    return tokens.abs().max().item() if tokens.numel() else 0.0


def is_positive(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.positive(got, "scale")


def is_one_where_nothing_was_measured(case: Case, got: Any, expected: Any) -> Finding | None:
    """A small lower limit has a finding of its own: each of the usual ones gives another number here."""
    if _largest(case) > 0 or not p.number_near(got, "scale", 1.0, 1e-5):
        return None
    what = (
        "scale: there is no token, or nothing but zeros, and then it is 1.0; a small limit or addend does not give that"
    )
    return Finding(what, expected="1", got=f"{p.as_number(got):.4g}")


def is_the_largest_over_127(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.number_near(got, "scale", _largest(case) / LARGEST or 1.0, 1e-5)


def _kept(batches: Any, masks: Any) -> list[Any]:
    """The tokens of every batch that has some."""
    return [x[mask].float() for x, mask in zip(batches, masks, strict=True) if mask.any()]


def _peaks(batches: Any, masks: Any) -> list[float]:
    return [tokens.abs().max().item() for tokens in _kept(batches, masks)]


def _scale(largest: float) -> float:
    return largest / LARGEST if largest > 0 else 1.0


@mutant("padding is not left out. It sets the scale for all real tokens: use x[mask].")
def mask_ignored(batches, masks):
    return _scale(max(x.float().abs().max().item() for x in batches))


@mutant("the mask is upside down: only padding is measured. True stands for a token.")
def mask_inverted(batches, masks):
    return _scale(max(_peaks(batches, [~mask for mask in masks]), default=0.0))


@mutant(
    "padding is multiplied by 0. Infinity times 0 is NaN, which spoils the maximum. Choose the tokens, x[mask], "
    "or overwrite padding with masked_fill."
)
def mask_multiplied(batches, masks):
    peaks = [(x.float() * mask[..., None]).abs().max() for x, mask in zip(batches, masks, strict=True)]
    largest = torch.stack(peaks).max().item()
    return largest / LARGEST if largest != 0 else 1.0


@mutant(
    "padding is multiplied by 0. Infinity times 0 is NaN; no comparison holds for NaN, so `largest > 0` is False and "
    "1.0 comes back. Choose the tokens, x[mask]."
)
def mask_multiplied_and_nan_becomes_one(batches, masks):
    peaks = [(x.float() * mask[..., None]).abs().max() for x, mask in zip(batches, masks, strict=True)]
    return _scale(torch.stack(peaks).max().item())


@mutant(
    "padding is multiplied by 0. Infinity times 0 is NaN, and Python's max(largest, NaN) keeps what it had: a batch "
    "with infinite padding is lost with all its tokens. Choose the tokens, x[mask]."
)
def mask_multiplied_and_max_drops_nan(batches, masks):
    largest = 0.0
    for x, mask in zip(batches, masks, strict=True):
        largest = max(largest, (x.float() * mask[..., None]).abs().max().item())
    return _scale(largest)


@mutant(
    "padding is multiplied by 0. Infinity times 0 is NaN, and Python's max(NaN, largest) is NaN, which the next batch "
    "replaces: all that was measured before is lost. Choose the tokens, x[mask]."
)
def mask_multiplied_and_max_keeps_nan(batches, masks):
    largest = 0.0
    for x, mask in zip(batches, masks, strict=True):
        largest = max((x.float() * mask[..., None]).abs().max().item(), largest)
    return _scale(largest)


@mutant(
    "padding is taken to stand on the right: the first tokens of each row are kept, as many as the mask counts. It "
    "stands on the left where a model generates. Use the mask itself."
)
def padding_on_the_right(batches, masks):
    sorted_masks = [mask.int().sort(dim=1, descending=True).values.bool() for mask in masks]
    return _scale(max(_peaks(batches, sorted_masks), default=0.0))


@mutant("a row with padding is left out as a whole, with all its real tokens. The mask has one entry per token.")
def rows_with_padding_left_out(batches, masks):
    whole = [mask.all(dim=1, keepdim=True).expand_as(mask) for mask in masks]
    return _scale(max(_peaks(batches, whole), default=0.0))


@mutant("only the last batch counts: the maximum is replaced in the loop. Keep the larger of old and new.")
def last_batch_only(batches, masks):
    largest = 0.0
    for peak in _peaks(batches, masks):
        largest = peak
    return _scale(largest)


@mutant("only the first batch counts: the function returns inside its loop.")
def first_batch_only(batches, masks):
    return _scale(max(_peaks(batches[:1], masks[:1]), default=0.0))


@mutant("the running maximum starts from 1. Inputs may all be smaller: start from 0, and treat 0 at the end.")
def starts_from_one(batches, masks):
    return max([1.0, *_peaks(batches, masks)]) / LARGEST


@mutant("the mean of the batches' maxima is taken. It depends on how the data are cut, and larger values clip.")
def mean_of_batches(batches, masks):
    peaks = _peaks(batches, masks)
    return _scale(sum(peaks) / len(peaks)) if peaks else 1.0


@mutant(
    "the batches' maxima go through a moving average, as in training with quantization. It forgets the largest value "
    "that it has seen; asked for is the maximum."
)
def moving_average(batches, masks):
    average = 0.0
    for number, peak in enumerate(_peaks(batches, masks)):
        average = peak if number == 0 else 0.9 * average + 0.1 * peak
    return _scale(average)


@mutant("the largest value is taken, not the largest magnitude. Inputs have both signs: take abs() first.")
def without_abs(batches, masks):
    return _scale(max((tokens.max().item() for tokens in _kept(batches, masks)), default=0.0))


@mutant("the largest |x| itself comes back. A scale is the size of one step: divide by 127.")
def not_divided(batches, masks):
    return max(_peaks(batches, masks), default=0.0) or 1.0


@mutant("the scale is upside down, 127 / largest. That is what x is multiplied by; asked for is the size of a step.")
def upside_down(batches, masks):
    return 1 / _scale(max(_peaks(batches, masks), default=0.0))


@mutant("the divisor is 128. Then the largest x gets the code 128, which int8 does not have. Divide by 127.")
def divided_by_128(batches, masks):
    return (max(_peaks(batches, masks), default=0.0) / 128) or 1.0


@mutant("the divisor is 127.5, half of 255 steps. The symmetric grid has 127 steps on each side.")
def divided_by_127_and_a_half(batches, masks):
    return (max(_peaks(batches, masks), default=0.0) / 127.5) or 1.0


@mutant("the divisor is 255, the steps of both sides together. From 0 to the largest |x| there are 127.")
def divided_by_255(batches, masks):
    return (max(_peaks(batches, masks), default=0.0) / 255) or 1.0


@mutant("this is the scale of an asymmetric grid, (max - min) / 255. Here the grid is symmetric, without a zero-point.")
def asymmetric(batches, masks):
    kept = _kept(batches, masks)
    if not kept:
        return 1.0
    span = max(t.max().item() for t in kept) - min(t.min().item() for t in kept)
    return span / 255 or 1.0


@mutant(
    "where there is no token or nothing but zeros the scale is 0, and every later x is divided by it. Return 1.0 there."
)
def zero_stays(batches, masks):
    return max(_peaks(batches, masks), default=0.0) / LARGEST


@mutant(
    "a small lower limit stands for the case of nothing but zeros, such as clamp(min=1e-5) or 1e-12. Asked for is 1.0, "
    "and inputs may be as small as the limit."
)
def clamped_from_below(batches, masks):
    return max(max(_peaks(batches, masks), default=0.0), 1e-5) / LARGEST


@mutant(
    "the scale has a small lower limit, such as max(scale, 1e-5), for the case of nothing but zeros. Asked for is 1.0, "
    "and the scale of real inputs may be smaller than the limit."
)
def scale_clamped_from_below(batches, masks):
    return max(max(_peaks(batches, masks), default=0.0) / LARGEST, 1e-5)


@mutant(
    "a batch of padding only has no token, and the maximum over nothing raises an error. Ask first whether a token is "
    "left."
)
def maximum_of_no_tokens(batches, masks):
    largest = 0.0
    for x, mask in zip(batches, masks, strict=True):
        largest = max(largest, x[mask].abs().max().item())
    return _scale(largest)


@mutant("one scale per channel comes back. It could not leave the sum of the product: one number for all.")
def per_channel(batches, masks):
    kept = _kept(batches, masks)
    largest = torch.cat(kept).abs().amax(dim=0) if kept else torch.zeros(batches[0].shape[-1])
    return torch.where(largest > 0, largest / LARGEST, 1.0)


@mutant("the scale is computed in float16, which has 11 bits, and small ones vanish. Convert to float32 first.")
def in_float16(batches, masks):
    return torch.tensor(_scale(max(_peaks(batches, masks), default=0.0))).half().item()


@mutant("a quantile is taken, 0.99 of the magnitudes. The card asks for the maximum, under which no value clips.")
def quantile(batches, masks):
    kept = _kept(batches, masks)
    return _scale(torch.cat(kept).abs().flatten().quantile(0.99).item()) if kept else 1.0


@mutant("a quantile of 0.999 is taken. The card asks for the maximum, under which no value of these data clips.")
def high_quantile(batches, masks):
    kept = _kept(batches, masks)
    return _scale(torch.cat(kept).abs().flatten().quantile(0.999).item()) if kept else 1.0


@mutant("a quantile is taken of each batch, and the largest of these. Asked for is the maximum of all magnitudes.")
def quantile_of_each_batch(batches, masks):
    return _scale(max((one.abs().flatten().quantile(0.99).item() for one in _kept(batches, masks)), default=0.0))


@mutant("the mean magnitude is taken, which is AWQ's statistic. Most large values would clip: take the maximum.")
def mean_magnitude(batches, masks):
    kept = _kept(batches, masks)
    return _scale(torch.cat(kept).abs().mean().item()) if kept else 1.0


def by_filling(batches, masks):
    """Right, with zeros for padding, and a tensor of one element."""
    largest = torch.zeros(())
    for x, mask in zip(batches, masks, strict=True):
        largest = torch.maximum(largest, x.float().masked_fill(~mask[..., None], 0.0).abs().max())
    return torch.where(largest > 0, largest / 127, 1.0)


def by_both_ends(batches, masks):
    """Right, from the smallest and the largest value of all tokens at once."""
    tokens = torch.cat([x[mask].float() for x, mask in zip(batches, masks, strict=True)])
    if not tokens.any():
        return torch.ones(1)
    return torch.maximum(tokens.max(), -tokens.min())[None] / 127


def with_numpy(batches, masks):
    """Right, as arrays."""
    import numpy as np

    pairs = zip(batches, masks, strict=True)
    kept = np.concatenate([x.float().numpy()[mask.numpy()].ravel() for x, mask in pairs])
    return (np.abs(kept).max(initial=0.0) / np.float32(127)) or 1.0


QUESTION = Question(
    id="smoothquant.static_scale",
    title="A scale before the data comes",
    reference=static_scale,
    cases=cases,
    properties=(is_positive, is_one_where_nothing_was_measured, is_the_largest_over_127),
    mutants=(
        mask_ignored,
        mask_inverted,
        mask_multiplied,
        mask_multiplied_and_nan_becomes_one,
        mask_multiplied_and_max_drops_nan,
        mask_multiplied_and_max_keeps_nan,
        padding_on_the_right,
        rows_with_padding_left_out,
        last_batch_only,
        first_batch_only,
        starts_from_one,
        mean_of_batches,
        moving_average,
        without_abs,
        not_divided,
        upside_down,
        divided_by_128,
        divided_by_127_and_a_half,
        divided_by_255,
        asymmetric,
        zero_stays,
        clamped_from_below,
        scale_clamped_from_below,
        maximum_of_no_tokens,
        per_channel,
        in_float16,
        quantile,
        high_quantile,
        quantile_of_each_batch,
        mean_magnitude,
    ),
    alternatives=(by_filling, by_both_ends, with_numpy),
    hints=(
        "What must the number be that a running maximum starts from, and what does a batch add to it that has no real "
        "token? What is infinity times 0?",
        "x[mask] cuts the tokens out of (batch, tokens, in) and leaves (tokens, in), without arithmetic on padding. "
        "Skip a batch in which nothing is left.",
        "for x, mask in zip(batches, masks): tokens = x[mask]; if len(tokens): largest = max(largest, "
        "tokens.abs().max().item()). At the end largest / 127, or 1.0 if largest is 0.",
    ),
    explanation=(
        "A static scale costs nothing in the call: no maximum over the token before the product can start. The price "
        "is paid by data that the calibration has not seen, because larger values clip, and by all tokens that are "
        "smaller than the largest one, because their codes are few. Padding is the usual accident. A model computes "
        "something there as well, often something large, and one such value sets the scale for every real token: on "
        "the card 90 / 127 = 0.709 in place of 0.04, 18 times too coarse. Multiplying by the mask is no cure, because "
        "infinity times 0 is NaN. The maximum does not depend on how the data are cut into batches; a mean over "
        "batches or a moving average does."
    ),
)
