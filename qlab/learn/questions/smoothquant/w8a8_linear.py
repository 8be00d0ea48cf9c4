"""smoothquant.w8a8_linear: inputs and weights in int8, sums in int32, then the scales (Xiao et al. 2022, eq. 2)."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import LARGEST, normal, sizes


def w8a8_linear(x, x_scale, w_codes, w_scales, bias):
    """Compute a linear layer whose inputs and weights are rounded to 8 bits.

    x: float32 (tokens, in), at least one token. It stays as it is.
    x_scale: None: dynamic. Each token has a scale of its own, its largest |x| / 127,
        however small it is.
        Or a positive float: static. It is the scale of all tokens; values beyond
        127 * x_scale get the code 127 or -127.
    w_codes: int8 (out, in), from -127 to 127; in is at most 131,071.
    w_scales: float32 (out, 1), positive: the weights are w_codes * w_scales.
    bias: float32 (out,), or None.

    Returns (codes, sums, y):
    codes: int8 (tokens, in), from -127 to 127, the nearest to x / scale; 0 for a token of
        zeros.
    sums: int32 (tokens, out), codes times w_codes transposed, exact to the last digit.
    y: float32 (tokens, out), sums times both scales, plus the bias; to 1 part in 100,000.
    """
    if x_scale is None:
        steps = x.abs().amax(dim=1, keepdim=True) / 127  # (tokens, 1)
        steps = torch.where(steps > 0, steps, 1.0)
    else:
        steps = x_scale
    codes = torch.round(x / steps).clamp(-127, 127).to(torch.int8)
    sums = codes.int() @ w_codes.int().T
    y = sums * steps * w_scales.T
    return codes, sums, y if bias is None else y + bias


_CARD_X = torch.tensor([[1.27, -0.5], [-2.54, 0.6]])
_CARD_W = (torch.tensor([[100, 20], [-40, 127]], dtype=torch.int8), torch.tensor([[0.01], [0.02]]), None)


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def weights(columns: int, out: int, low: int = -LARGEST, bias: bool = True) -> tuple[Any, ...]:
        codes = torch.randint(low, LARGEST + 1, (out, columns), generator=random).to(torch.int8)
        scales = 0.01 * sizes(random, out)[:, None]
        return codes, scales, 20 * normal(random, out) * scales[:, 0] if bias else None

    def tokens(count: int, columns: int) -> torch.Tensor:
        """Tokens of very different sizes."""
        return normal(random, count, columns) * sizes(random, count, 1.5)[:, None]

    def one_sided(sign: float) -> torch.Tensor:
        x = sign * tokens(4, 9).abs()
        x[:, 3] *= -0.3
        return x

    outlier = tokens(5, 8)
    outlier[seed % 5, 2] = -60.0 - 20 * torch.rand(1, generator=random).item()
    empty = tokens(4, 7)
    empty[[0, 2]] = 0.0
    tiny = tokens(4, 6)
    tiny[1], tiny[3] = 1e-20 * tiny[1], 1e-22 * tiny[3]
    long = 0.6 + 0.4 * torch.rand(3, 4096, generator=random)
    return [
        Case("the example of the card, dynamic", (_CARD_X, None, *_CARD_W)),
        Case("the example of the card, static", (_CARD_X, 0.01, *_CARD_W)),
        Case("dynamic", (tokens(4, 10), None, *weights(10, 3))),
        Case("dynamic, without a bias", (tokens(3, 8), None, *weights(8, 5, bias=False))),
        Case("dynamic, as many tokens as outputs", (tokens(5, 8), None, *weights(8, 5))),
        Case("dynamic, everything square", (tokens(6, 6), None, *weights(6, 6))),
        Case("dynamic, a negative outlier in one token", (outlier, None, *weights(8, 4))),
        Case("dynamic, all but one value of each token negative", (one_sided(-1.0), None, *weights(9, 3))),
        Case("dynamic, tokens of zeros", (empty, None, *weights(7, 3))),
        Case("dynamic, tokens that are very small", (tiny, None, *weights(6, 4, bias=False))),
        Case("dynamic, sums beyond 16 bits", (one_sided(1.0), None, *weights(9, 4, low=90))),
        Case("dynamic, long sums, beyond the 24 bits of a float32", (long, None, *weights(4096, 4, low=64))),
        Case("static, nothing clips", (0.3 * normal(random, 5, 9).clamp(-3, 3), 0.0123, *weights(9, 4))),
        Case("static, values that clip on both sides", (2 * normal(random, 4, 12), 0.0087, *weights(12, 4))),
        Case("static, values far beyond the grid", (50 * normal(random, 3, 8), 0.011, *weights(8, 3, bias=False))),
        Case("static, a scale above 1", (200 * normal(random, 3, 5), 3.7, *weights(5, 3))),
        Case("static, tokens of zeros", (empty.clone(), 0.02, *weights(7, 4))),
        Case("a single token and a single output", (tokens(1, 5), None, *weights(5, 1))),
    ]


def _steps(case: Case) -> torch.Tensor:
    """float64 (tokens, 1)."""
    x, x_scale = case.args[0].double(), case.args[1]
    if x_scale is not None:
        return torch.full((len(x), 1), x_scale, dtype=torch.float64)
    largest = x.abs().amax(dim=1, keepdim=True) / LARGEST
    return torch.where(largest > 0, largest, 1.0)


def returns_codes_sums_y(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.parts(got, "codes", "sums", "y")


def codes_are_the_nearest(case: Case, got: Any, expected: Any) -> Finding | None:
    x = case.args[0]
    return (
        p.tensor(got[0], "codes", torch.int8, tuple(x.shape))
        or p.codes_between(got[0], "codes", -LARGEST, LARGEST)
        or p.codes_near(got[0], "codes", x.double() / _steps(case), -LARGEST, LARGEST)
    )


def sums_are_exact(case: Case, got: Any, expected: Any) -> Finding | None:
    """For the codes of this answer, so that a tie rounded the other way is right here, too."""
    exact = got[0].long() @ case.args[2].long().T
    return p.tensor(got[1], "sums", torch.int32, tuple(exact.shape)) or p.equal(got[1].long(), "sums", exact)


def y_has_both_scales_and_the_bias(case: Case, got: Any, expected: Any) -> Finding | None:
    _, _, _, w_scales, bias = case.args
    scaled = got[1].double() * _steps(case) * w_scales.double().T
    added = torch.zeros(1) if bias is None else bias.double()
    if finding := p.tensor(got[2], "y", torch.float32, tuple(scaled.shape)):
        return finding
    finding = p.values_near(got[2], "y", scaled + added, 1e-5 * (scaled.abs() + added.abs()), torch.ones(1))
    return Finding(finding.what, finding.index, finding.expected, finding.got) if finding else None


def _token_steps(x: Any, x_scale: Any, divisor: float = LARGEST) -> Any:
    """(tokens, 1), in float32."""
    if x_scale is not None:
        return torch.full((len(x), 1), x_scale)
    largest = x.abs().amax(dim=1, keepdim=True) / divisor
    return torch.where(largest > 0, largest, 1.0)


def _codes(x: Any, steps: Any) -> Any:
    return torch.round(x / steps).clamp(-LARGEST, LARGEST).to(torch.int8)


def _finish(codes: Any, steps: Any, w_codes: Any, w_scales: Any, bias: Any) -> Any:
    sums = codes.int() @ w_codes.int().T
    y = sums * steps * w_scales.T
    return codes, sums, y if bias is None else y + bias


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def in_other_types(x, x_scale, w_codes, w_scales, bias):
    codes, sums, y = w8a8_linear(x, x_scale, w_codes, w_scales, bias)
    return codes.float(), sums.long(), y.double()


@mutant("x_scale is not used: the scales are measured anew in each call. With a static scale nothing is measured.")
def always_dynamic(x, x_scale, w_codes, w_scales, bias):
    return w8a8_linear(x, None, w_codes, w_scales, bias)


@mutant(
    "the static scale is replaced where values would clip. It is fixed before the call: values beyond it clip, and "
    "that is its price."
)
def static_never_clips(x, x_scale, w_codes, w_scales, bias):
    steps = _token_steps(x, None)
    if x_scale is not None:
        steps = steps.clamp(min=x_scale)
    return _finish(_codes(x, steps), steps, w_codes, w_scales, bias)


@mutant(
    "the clamp is missing. A static scale does not know what comes: 254 does not fit into int8 and wraps around, often "
    "to the other sign."
)
def clamp_missing(x, x_scale, w_codes, w_scales, bias):
    steps = _token_steps(x, x_scale)
    codes = torch.round(x / steps).to(torch.int32).to(torch.int8)  # the same on every processor
    return _finish(codes, steps, w_codes, w_scales, bias)


@mutant("codes may become -128. The symmetric grid leaves it unused: clamp to -127.")
def clamped_to_minus_128(x, x_scale, w_codes, w_scales, bias):
    steps = _token_steps(x, x_scale)
    codes = torch.round(x / steps).clamp(-128, 127).to(torch.int8)
    return _finish(codes, steps, w_codes, w_scales, bias)


@mutant(
    "x itself is clamped to 127 before it is divided. What must lie between -127 and 127 are the codes: divide first."
)
def clamped_before_the_division(x, x_scale, w_codes, w_scales, bias):
    steps = _token_steps(x, x_scale)
    codes = torch.round(x.clamp(-127, 127) / steps).clamp(-LARGEST, LARGEST).to(torch.int8)
    return _finish(codes, steps, w_codes, w_scales, bias)


@mutant("dynamic: all tokens share one scale, that of the largest value. Each token has its own: dim=1, keepdim=True.")
def one_scale_for_all_tokens(x, x_scale, w_codes, w_scales, bias):
    if x_scale is None:
        x_scale = x.abs().max().item() / LARGEST or None
    return w8a8_linear(x, x_scale, w_codes, w_scales, bias)


@mutant(
    "dynamic: the maximum runs over the tokens, dim=0, so that each channel has a scale. It could not leave the sum: "
    "the sum runs over the channels."
)
def one_scale_per_channel(x, x_scale, w_codes, w_scales, bias):
    if x_scale is not None:
        return w8a8_linear(x, x_scale, w_codes, w_scales, bias)
    steps = x.abs().amax(dim=0, keepdim=True) / LARGEST  # (1, in)
    codes = _codes(x, torch.where(steps > 0, steps, 1.0))
    y = (codes * steps) @ (w_codes * w_scales).T
    return codes, codes.int() @ w_codes.int().T, y if bias is None else y + bias


@mutant("dynamic: the scale comes from the largest value, not from the largest magnitude. Take abs() first.")
def without_abs(x, x_scale, w_codes, w_scales, bias):
    steps = _token_steps(x, x_scale)
    if x_scale is None:
        largest = x.amax(dim=1, keepdim=True) / LARGEST
        steps = torch.where(largest != 0, largest, 1.0)
    return _finish(_codes(x, steps), steps, w_codes, w_scales, bias)


@mutant("dynamic: the largest |x| is divided by 128. Its code would be 128, which int8 does not have; divide by 127.")
def divided_by_128(x, x_scale, w_codes, w_scales, bias):
    steps = _token_steps(x, x_scale, 128)
    return _finish(_codes(x, steps), steps, w_codes, w_scales, bias)


@mutant("dynamic: the largest |x| is divided by 127.5. The symmetric grid has 127 steps on each side.")
def divided_by_127_and_a_half(x, x_scale, w_codes, w_scales, bias):
    steps = _token_steps(x, x_scale, 127.5)
    return _finish(_codes(x, steps), steps, w_codes, w_scales, bias)


@mutant(
    "dynamic: the largest |x| has a lower limit, such as clamp(min=1e-5) or 1e-12, or a small number is added to it, "
    "against division by 0. Tokens far below it become zeros. Replace 0 alone."
)
def small_tokens_clamped(x, x_scale, w_codes, w_scales, bias):
    steps = _token_steps(x, x_scale)
    if x_scale is None:
        steps = x.abs().amax(dim=1, keepdim=True).clamp(min=1e-5) / LARGEST
    return _finish(_codes(x, steps), steps, w_codes, w_scales, bias)


@mutant(
    "dynamic: the maximum of a token has lost its dimension. (tokens,) lines up with the channels in place of the "
    "tokens: keepdim=True makes it (tokens, 1)."
)
def keepdim_forgotten(x, x_scale, w_codes, w_scales, bias):
    steps = _token_steps(x, x_scale)
    if x_scale is None:
        steps = steps[:, 0]
    return _finish(_codes(x, steps), steps, w_codes, w_scales, bias)


@mutant("the codes are cut off instead of rounded, as .to(torch.int8) alone does. Call torch.round first.")
def cut_off(x, x_scale, w_codes, w_scales, bias):
    steps = _token_steps(x, x_scale)
    codes = (x / steps).clamp(-LARGEST, LARGEST).to(torch.int8)
    return _finish(codes, steps, w_codes, w_scales, bias)


@mutant("the codes are rounded down by floor. All of them move by half a step; take the nearest, torch.round.")
def rounded_down(x, x_scale, w_codes, w_scales, bias):
    steps = _token_steps(x, x_scale)
    codes = torch.floor(x / steps).clamp(-LARGEST, LARGEST).to(torch.int8)
    return _finish(codes, steps, w_codes, w_scales, bias)


@mutant("x is multiplied by the scale. A code is x / scale.")
def multiplied_by_the_scale(x, x_scale, w_codes, w_scales, bias):
    steps = _token_steps(x, x_scale)
    return _finish(_codes(x, 1 / steps), steps, w_codes, w_scales, bias)


@mutant("int8 is multiplied by int8 as it is, and torch keeps the sums in int8, where they wrap around at 128.")
def sums_in_int8(x, x_scale, w_codes, w_scales, bias):
    steps = _token_steps(x, x_scale)
    codes = _codes(x, steps)
    sums = (codes @ w_codes.T).int()
    y = sums * steps * w_scales.T
    return codes, sums, y if bias is None else y + bias


@mutant("the sums are kept in int16, which ends at 32,767: two products of 127 * 127 fit, a third does not.")
def sums_in_int16(x, x_scale, w_codes, w_scales, bias):
    steps = _token_steps(x, x_scale)
    codes = _codes(x, steps)
    sums = (codes.short() @ w_codes.short().T).int()
    y = sums * steps * w_scales.T
    return codes, sums, y if bias is None else y + bias


@mutant(
    "the sums are formed in float32, which holds whole numbers up to 16,777,216 only. Long sums get past that and lose "
    "their last digits. Convert the codes to int32."
)
def sums_in_float32(x, x_scale, w_codes, w_scales, bias):
    steps = _token_steps(x, x_scale)
    codes = _codes(x, steps)
    sums = (codes.float() @ w_codes.float().T).int()
    y = sums * steps * w_scales.T
    return codes, sums, y if bias is None else y + bias


@mutant(
    "the sums are formed in float16, which holds whole numbers up to 2,048 only and ends at 65,504: five products of "
    "127 * 127 are infinite. Convert the codes to int32."
)
def sums_in_float16(x, x_scale, w_codes, w_scales, bias):
    steps = _token_steps(x, x_scale)
    codes = _codes(x, steps)
    sums = (codes.half() @ w_codes.half().T).int()
    y = sums * steps * w_scales.T
    return codes, sums, y if bias is None else y + bias


@mutant("the bias is forgotten.")
def bias_forgotten(x, x_scale, w_codes, w_scales, bias):
    return w8a8_linear(x, x_scale, w_codes, w_scales, None)


@mutant("every layer is taken to have a bias, and adding None raises an error.")
def bias_expected(x, x_scale, w_codes, w_scales, bias):
    codes, sums, y = w8a8_linear(x, x_scale, w_codes, w_scales, None)
    return codes, sums, y + bias


@mutant("the bias is added to the sums, and the scales shrink it with them. It is a real number: add it at the end.")
def bias_before_the_scales(x, x_scale, w_codes, w_scales, bias):
    steps = _token_steps(x, x_scale)
    codes, sums, y = _finish(_codes(x, steps), steps, w_codes, w_scales, None)
    return codes, sums, y if bias is None else (sums + bias) * steps * w_scales.T


@mutant("y has the scales of the tokens only. The weights were divided by theirs as well: times w_scales.T.")
def weight_scales_forgotten(x, x_scale, w_codes, w_scales, bias):
    return w8a8_linear(x, x_scale, w_codes, torch.ones_like(w_scales), bias)


@mutant("y has the scales of the weights only. The inputs were divided by theirs as well.")
def input_scales_forgotten(x, x_scale, w_codes, w_scales, bias):
    codes, sums, _ = w8a8_linear(x, x_scale, w_codes, w_scales, None)
    y = sums * w_scales.T
    return codes, sums, y if bias is None else y + bias


@mutant(
    "w_scales is (out, 1) and lines up with the tokens. An output is a column of the sums: multiply by w_scales.T. "
    "With as many tokens as outputs there is no error, only a wrong result."
)
def weight_scales_not_turned(x, x_scale, w_codes, w_scales, bias):
    steps = _token_steps(x, x_scale)
    codes, sums, _ = _finish(_codes(x, steps), steps, w_codes, w_scales, None)
    y = sums * steps * w_scales
    return codes, sums, y if bias is None else y + bias


@mutant("y comes from x as it is, not from its codes: x times the weights in floating point. The codes are unused.")
def nothing_rounded(x, x_scale, w_codes, w_scales, bias):
    codes, sums, _ = w8a8_linear(x, x_scale, w_codes, w_scales, None)
    y = x @ (w_codes * w_scales).T
    return codes, sums, y if bias is None else y + bias


@mutant("x is divided in place, by div_ or /=. The layer's input is still needed by others: compute a new tensor.")
def in_place(x, x_scale, w_codes, w_scales, bias):
    steps = _token_steps(x, x_scale)
    x.div_(steps).round_().clamp_(-LARGEST, LARGEST)
    return _finish(x.to(torch.int8), steps, w_codes, w_scales, bias)


def by_the_factor(x, x_scale, w_codes, w_scales, bias):
    """Right, with 127 / largest as a factor, both scales multiplied first, and float64 for the sums."""
    largest = x.abs().amax(dim=1, keepdim=True) if x_scale is None else torch.full((len(x), 1), 127 * x_scale)
    factor = torch.where(largest > 0, 127 / largest, 0.0)
    codes = (x * factor).round().clamp(-127, 127).char()
    sums = (codes.double() @ w_codes.double().T).int()
    y = torch.addcmul(torch.zeros(1) if bias is None else bias, sums.float(), (largest / 127) @ w_scales.T)
    return codes, sums, y


def half_away_from_zero(x, x_scale, w_codes, w_scales, bias):
    """Right, with ties rounded the other way."""
    x = x.double()
    steps = x.abs().amax(dim=1, keepdim=True).clamp(min=1e-300) / 127 if x_scale is None else x_scale
    codes = (x.sign() * torch.floor(x.abs() / steps + 0.5)).clamp(-127, 127).to(torch.int8)
    sums = torch.einsum("ti,oi->to", codes.int(), w_codes.int())
    y = sums.double() * steps * w_scales.double().T
    return codes, sums, (y + (0.0 if bias is None else bias)).float()


def output_by_output(x, x_scale, w_codes, w_scales, bias):
    """Right, by a loop over the outputs, with numpy's integers."""
    import numpy as np

    steps = _token_steps(x, x_scale)
    codes = _codes(x, steps)
    rows = codes.numpy().astype(np.int32)
    sums = np.stack([(rows * one.numpy().astype(np.int32)).sum(axis=1, dtype=np.int32) for one in w_codes], axis=1)
    y = sums * steps.double().numpy() * w_scales.double().numpy().T
    return codes, sums, (y if bias is None else y + bias.numpy()).astype(np.float32)


QUESTION = Question(
    id="smoothquant.w8a8_linear",
    title="Integers on both sides",
    reference=w8a8_linear,
    cases=cases,
    properties=(returns_codes_sums_y, codes_are_the_nearest, sums_are_exact, y_has_both_scales_and_the_bias),
    mutants=(
        in_other_types,  # first: what is wrong in its types only looks like this one
        always_dynamic,
        static_never_clips,
        clamp_missing,
        clamped_to_minus_128,
        clamped_before_the_division,
        one_scale_for_all_tokens,
        one_scale_per_channel,
        without_abs,
        divided_by_128,
        divided_by_127_and_a_half,
        small_tokens_clamped,
        keepdim_forgotten,
        cut_off,
        rounded_down,
        multiplied_by_the_scale,
        sums_in_int8,
        sums_in_int16,
        sums_in_float32,
        sums_in_float16,
        bias_forgotten,
        bias_expected,
        bias_before_the_scales,
        weight_scales_forgotten,
        input_scales_forgotten,
        weight_scales_not_turned,
        nothing_rounded,
        in_place,
    ),
    alternatives=(by_the_factor, half_away_from_zero, output_by_output),
    hints=(
        "Write y[t, o] as a sum over the channels. Which factors do not depend on the channel? They come after the "
        "sum, and what stays inside are whole numbers. How large can one product be, and how large the sum?",
        "A dynamic scale is (tokens, 1) by keepdim=True, and a token of zeros needs one that is not 0. Round, then "
        "clamp, then convert to int8; convert both sides to int32 before the product. Scales, then the bias.",
        "codes = torch.round(x / steps).clamp(-127, 127).to(torch.int8); sums = codes.int() @ w_codes.int().T; y = "
        "sums * steps * w_scales.T, and + bias where there is one. steps is x_scale, or per token.",
    ),
    explanation=(
        "One scale per token and one per output leave the sum, so the inside is a product of whole numbers, for which "
        "processors have units of their own, with twice the rate of 16-bit floats on an A100. The dynamic scale fits "
        "every token and costs a pass over it before the product; the static one is there already, and what it has "
        "not seen clips: on the card -2.42 becomes -1.15. The order matters: round, clamp, convert. Converted first, "
        "254 wraps around to -2. A token of zeros without a scale is 0 / 0, and what int8 makes of NaN is up to the "
        "processor. The sum needs int32: three products of 127 * 127 are too many for int16, and 1,041 "
        "for the whole numbers of a float32. The bias is added at the end, because it was never divided by a scale."
    ),
)
