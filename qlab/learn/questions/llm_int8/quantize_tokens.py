"""llm_int8.quantize_tokens: int8 codes of activations, a scale for each token (Dettmers et al. 2022, section 3)."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import CARD_X, LARGEST, codes_of, normal, token_scales


def quantize_tokens(x):
    """Round activations to int8, with a scale for each token.

    x: float16 or float32 (tokens, in), both at least 1. It stays as it is.

    Returns (codes, scales):
    codes: int8 (tokens, in), from -127 to 127, each the nearest one to value / scale.
        Halfway between two codes, either is right.
    scales: float32 (tokens, 1), the largest magnitude of the token divided by 127, exact
        to 1 part in 10,000; it may be as small as 1e-30. Any positive, finite number for a
        token of zeros.
    """
    x = x.float()
    scales = x.abs().amax(dim=1, keepdim=True) / 127  # (tokens, 1)
    scales[scales == 0] = 1.0
    codes = torch.round(x / scales).clamp(-127, 127).to(torch.int8)
    return codes, scales


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def one(name: str, x: torch.Tensor) -> Case:
        return Case(name, (x,))

    def in_half() -> torch.Tensor:
        """Some of its codes come out otherwise where float16 is divided in float16."""
        while True:
            x = (3 * normal(random, 7, 9)).half()
            scales = x.abs().amax(dim=1, keepdim=True) / LARGEST
            if int((torch.round(x / scales) != torch.round(x.float() / scales.float())).sum()) >= 2:
                return x

    sizes = 10.0 ** torch.linspace(-2, 2, 6)[:, None]
    negative = normal(random, 5, 9)
    negative[:, seed % 9] = -4.0 - torch.rand(5, generator=random)
    zeros = normal(random, 5, 7)
    zeros[1] = zeros[4] = 0.0
    tiny = normal(random, 4, 8)
    tiny[2] *= 1e-20
    outlier = normal(random, 6, 12)
    outlier[3, 5] = 60.0 + torch.rand(1, generator=random).item()
    halves = torch.tensor([[127.0, 0.5, -1.5, 2.5], [-127.0, -0.5, 63.5, 3.5]]) * 2.0 ** (seed % 5 - 2)
    return [
        one("the example of the card", CARD_X),
        one("tokens of ordinary values", normal(random, 5, 8)),
        one("the largest magnitudes are negative", negative),
        one("tokens of very different sizes, as many as channels", normal(random, 6, 6) * sizes),
        one("all values positive", torch.rand(4, 10, generator=random) + 0.3),
        one("an outlier in one token", outlier),
        one("tokens of zeros", zeros),
        one("a token of tiny values", tiny),
        one("float16, as models hold them", in_half()),
        one("float16, small values", (1e-5 * normal(random, 3, 8)).half()),
        one("values halfway between two codes; either is right", halves),
        one("a single token", normal(random, 1, 11)),
        one("a single channel", normal(random, 4, 1)),
    ]


def _steps(case: Case) -> torch.Tensor:
    """The exact scale of every token, float64 (tokens, 1); 0 for zeros."""
    largest: torch.Tensor = case.args[0].double().abs().amax(dim=1, keepdim=True) / LARGEST
    return largest


def returns_codes_and_scales(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.parts(got, "codes", "scales")


def codes_are_int8(case: Case, got: Any, expected: Any) -> Finding | None:
    if finding := p.tensor(got[0], "codes", torch.int8, case.args[0].shape):
        return finding
    return p.codes_between(got[0], "codes", -LARGEST, LARGEST)


def scales_fit_the_largest(case: Case, got: Any, expected: Any) -> Finding | None:
    steps = _steps(case)
    if finding := p.tensor(got[1], "scales", torch.float32, tuple(steps.shape)):
        return finding
    for token in range(len(steps)):
        step, scale = steps[token].item(), got[1][token]
        what = f"the scale of token {token}"
        if finding := p.number_near(scale, what, step, 1e-4) if step else p.positive(scale, what):
            of = "" if step else "; this token is nothing but zeros"
            return Finding(finding.what + of, (token, 0), finding.expected, finding.got)
    return None


def codes_are_nearest(case: Case, got: Any, expected: Any) -> Finding | None:
    steps = _steps(case)
    exact = case.args[0].double() / torch.where(steps > 0, steps, 1.0)
    return p.codes_near(got[0], "codes", exact, -LARGEST, LARGEST)


def _write(x: Any, scales: Any) -> Any:
    return codes_of(x.float(), scales).to(torch.int8)


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def codes_left_wide(x):
    codes, scales = quantize_tokens(x)
    return codes.float(), scales


@mutant("the codes are cut off instead of rounded: the error goes up to a whole step, and always towards zero.")
def truncates(x):
    scales = token_scales(x.float())
    return (x.float() / scales).to(torch.int8), scales


@mutant("the codes are rounded down, as by // or floor: the error goes up to a whole step, and all values sink.")
def rounds_down(x):
    scales = token_scales(x.float())
    return torch.floor(x.float() / scales).clamp(-127, 127).to(torch.int8), scales


@mutant(
    "the largest magnitude is divided by 128. That code exists below zero only, so the largest positive value is "
    "clipped by a whole step. Divide by 127."
)
def divided_by_128(x):
    scales = token_scales(x.float()) * 127 / 128
    return torch.round(x.float() / scales).clamp(-128, 127).to(torch.int8), scales


@mutant(
    "the largest magnitude is divided by 128, while the codes end at 127. So the largest value of every token is "
    "clipped by a whole step. Divide by 127."
)
def divided_by_128_within_127(x):
    scales = token_scales(x.float()) * 127 / 128
    return _write(x, scales), scales


@mutant(
    "the largest magnitude is divided by 127.5, half of 255: compressed-tensors does so for grids from -128 to 127. "
    "Here the grid is -127 to 127 and its scale max|x| / 127."
)
def divided_by_127_and_a_half(x):
    scales = token_scales(x.float()) * 127 / 127.5
    return torch.round(x.float() / scales).clamp(-128, 127).to(torch.int8), scales


@mutant(
    "the scale spans the range from min to max, which needs a zero-point as well. A symmetric grid has its middle at "
    "zero and reaches the largest magnitude."
)
def range_of_min_and_max(x):
    x = x.float()
    scales = (x.amax(dim=1, keepdim=True) - x.amin(dim=1, keepdim=True)) / 255
    scales = torch.where(scales > 0, scales, 1.0)
    return _write(x, scales), scales


@mutant(
    "the scale comes from the largest value, not from the largest magnitude. A large negative value is then far off "
    "the grid. Take abs() first."
)
def without_abs(x):
    scales = x.float().amax(dim=1, keepdim=True) / 127
    scales = torch.where(scales != 0, scales, 1.0)
    return _write(x, scales), scales


@mutant(
    "the scale comes from the largest value, not from the largest magnitude, and what is then off the grid wraps "
    "around in int8. Take abs() first."
)
def without_abs_or_clamp(x):
    scales = x.float().amax(dim=1, keepdim=True) / 127
    scales = torch.where(scales != 0, scales, 1.0)
    return torch.round(x.float() / scales).to(torch.int32).to(torch.int8), scales


@mutant(
    "all tokens have one scale, that of the largest value of all. One token with an outlier then ruins the others: "
    "take the maximum within each token, dim=1."
)
def one_scale_for_all_tokens(x):
    scales = token_scales(x.float().reshape(1, -1))
    return _write(x, scales), scales.expand(len(x), 1)


@mutant(
    "there is one scale for the whole tensor, a single number. Each token has its own: amax(dim=1, keepdim=True) gives "
    "(tokens, 1)."
)
def a_single_scale(x):
    scale = x.float().abs().max() / 127
    return _write(x, scale), scale


@mutant(
    "every channel has a scale, from the maximum over the tokens. Such scales cannot leave the sum of a matrix "
    "product, which runs over the channels. Take the maximum over the channels: dim=1."
)
def scales_of_channels(x):
    largest = x.float().abs().amax(dim=0, keepdim=True) / 127
    scales = torch.where(largest > 0, largest, 1.0)
    return _write(x, scales), scales


@mutant("a token of zeros gets the scale 0, by which nobody can divide: 0 / 0 is NaN. Give it any other scale.")
def zeros_divide(x):
    scales = x.float().abs().amax(dim=1, keepdim=True) / 127
    # What NaN becomes as int8 depends on the processor; 0 on most.
    return torch.nan_to_num(x.float() / scales).round().to(torch.int8), scales


@mutant(
    "a small number such as 1e-8 is added to the scales to keep them from 0. Beside a tiny scale it is all there is. "
    "Change only the scales that are 0."
)
def epsilon_added(x):
    scales = x.float().abs().amax(dim=1, keepdim=True) / 127 + 1e-8
    return _write(x, scales), scales


@mutant(
    "the magnitudes have the lower limit 1e-5, as in the code of SmoothQuant. Tokens of smaller values get the code 0 "
    "everywhere. Change only the scales that are 0."
)
def floor_of_smoothquant(x):
    scales = x.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-5) / 127
    return _write(x, scales), scales


@mutant(
    "the scales have a lower limit such as 1e-8. A token of tiny values lies below that, and all its codes become 0. "
    "Change only the scales that are 0."
)
def scales_with_a_floor(x):
    scales = (x.float().abs().amax(dim=1, keepdim=True) / 127).clamp(min=1e-8)
    return _write(x, scales), scales


@mutant(
    "the scales have the lower limit 1e-12, the usual guard. A token of tiny values lies below even that, and all its "
    "codes become 0. Change only the scales that are 0."
)
def scales_with_a_lower_floor(x):
    scales = (x.float().abs().amax(dim=1, keepdim=True) / 127).clamp(min=1e-12)
    return _write(x, scales), scales


@mutant(
    "float16 inputs are divided in float16, which has 11 bits and no scale below 6e-8. Convert x to float32 before you "
    "take the maximum."
)
def scales_in_half(x):
    scales = x.abs().amax(dim=1, keepdim=True) / 127
    scales[scales == 0] = 1.0
    return torch.round(x / scales).clamp(-127, 127).to(torch.int8), scales.float()


@mutant(
    "the scales are computed in float16 and made float32 afterwards. By then they have 11 bits, and below 6e-8 they "
    "are 0. Convert x to float32 before you take the maximum."
)
def scales_rounded_to_half(x):
    scales = (x.abs().amax(dim=1, keepdim=True) / 127).float()
    scales[scales == 0] = 1.0
    return _write(x, scales), scales


@mutant(
    "the maximum has lost its dimension, (tokens,), and does not line up with the rows of x. Write keepdim=True. With "
    "as many tokens as channels there is no error, only a wrong result."
)
def divided_without_keepdim(x):
    scales = x.float().abs().amax(dim=1) / 127
    scales[scales == 0] = 1.0
    return torch.round(x.float() / scales).clamp(-127, 127).to(torch.int8), scales


@mutant("the scales lost their second dimension. (tokens, 1) lines up with (tokens, in); write keepdim=True.")
def scales_without_a_dimension(x):
    codes, scales = quantize_tokens(x)
    return codes, scales[:, 0]


@mutant(
    "the second value is 127 / max|x|, by which you multiply to get codes. Asked for is its inverse, the size of a "
    "step: codes * scales is x."
)
def scales_inverted(x):
    codes, scales = quantize_tokens(x)
    return codes, 1 / scales


@mutant(
    "the second value is max|x| itself, as bitsandbytes stores it. Then every product has to be divided by 127 again. "
    "Here the scale is the size of a step."
)
def largest_for_scales(x):
    codes, _ = quantize_tokens(x)
    return codes, x.float().abs().amax(dim=1, keepdim=True)


@mutant("the first value is codes * scales, the values again. Return the codes themselves.")
def values_instead_of_codes(x):
    codes, scales = quantize_tokens(x)
    return codes * scales, scales


@mutant(
    "128 is added to the codes to make bytes of them. That is a way to store them; a product of int8 needs them signed."
)
def codes_as_bytes(x):
    codes, scales = quantize_tokens(x)
    return (codes.int() + 128).to(torch.uint8), scales


@mutant("x is divided in place, by div_ or /=. It is still needed: the outlier columns are read from it later.")
def in_place(x):
    scales = x.abs().amax(dim=1, keepdim=True).float() / 127
    scales[scales == 0] = 1.0
    x /= scales.to(x.dtype)
    return torch.round(x).clamp(-127, 127).to(torch.int8), scales


def token_by_token(x):
    """Right, by loops over Python's own floats, with ties away from zero."""
    codes, scales = torch.empty(x.shape, dtype=torch.int8), torch.ones(len(x), 1)
    for i, token in enumerate(x.tolist()):
        step = max(map(abs, token)) / 127
        if step:
            scales[i, 0] = step
            codes[i] = torch.tensor([int(abs(v) / step + 0.5) * (1 if v > 0 else -1) for v in token])
        else:
            codes[i] = 0
    return codes, scales


def as_bitsandbytes_does(x):
    """Right: times 127 / max|x|, which rounds a little differently, and any scale for zeros."""
    largest = x.double().abs().max(dim=-1, keepdim=True).values
    codes = torch.round(x * (127.0 / largest.clamp(min=1e-300))).char()
    return codes, torch.where(largest > 0, largest / 127, 5.0).float()


def with_numpy(x):
    """Right, as arrays."""
    import numpy as np

    array = x.double().numpy()
    scales = np.abs(array).max(axis=1, keepdims=True) / 127
    scales[scales == 0] = 1e-30
    return np.rint(array / scales).astype(np.int8), scales.astype(np.float32)


QUESTION = Question(
    id="llm_int8.quantize_tokens",
    title="A scale for each token",
    reference=quantize_tokens,
    cases=cases,
    properties=(returns_codes_and_scales, codes_are_int8, scales_fit_the_largest, codes_are_nearest),
    mutants=(
        codes_left_wide,  # first: what is wrong in its types only looks like this one
        truncates,
        rounds_down,
        divided_by_128,
        divided_by_128_within_127,
        divided_by_127_and_a_half,
        range_of_min_and_max,
        without_abs,
        without_abs_or_clamp,
        one_scale_for_all_tokens,
        a_single_scale,
        scales_of_channels,
        zeros_divide,
        epsilon_added,
        floor_of_smoothquant,
        scales_with_a_floor,
        scales_with_a_lower_floor,
        scales_in_half,
        scales_rounded_to_half,
        divided_without_keepdim,
        scales_without_a_dimension,
        scales_inverted,
        largest_for_scales,
        values_instead_of_codes,
        codes_as_bytes,
        in_place,
    ),
    alternatives=(token_by_token, as_bitsandbytes_does, with_numpy),
    hints=(
        "A token is a row of x. Which value of a row gets the code 127 or -127? And which rows have no such value?",
        "In float32: scales are the largest magnitude of each row, kept as a column, divided by 127. Replace only "
        "those that are 0. Then divide, round, and convert.",
        "x = x.float(); scales = x.abs().amax(dim=1, keepdim=True) / 127; scales[scales == 0] = 1.0; "
        "codes = torch.round(x / scales).clamp(-127, 127).to(torch.int8).",
    ),
    explanation=(
        "Weights are rounded once, activations anew in every call, so all of this runs at each layer and each step. A "
        "scale per token costs one maximum over its row. In the card's example the outlier 12.7 makes the step of its "
        "token 0.1: what was 0.30, 0.10 and -0.26 comes back as 0.3, 0.1 and -0.3, and -0.26 is off by 15 %. Without "
        "the outlier the step would be 0.0024. With one scale for the whole tensor the same would happen to token 0, "
        "which has no outlier at all. float16 ends at 65,504 and has steps of 6e-8 near zero, so scales are computed "
        "and held in float32."
    ),
)
