"""llm_int8.int8_product: a matrix product of int8 codes, summed in int32, and what the scales do to it (eq. 2 to 5)."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import CARD_W_CODES, CARD_W_SCALES, CARD_X_CODES, CARD_X_SCALES, int8, near_products, scales


def int8_product(x_codes, x_scales, w_codes, w_scales):
    """Multiply quantized activations by quantized weights.

    x_codes: int8 (tokens, in), from -127 to 127; in is at most 131,071.
    x_scales: float32 (tokens, 1), positive: the activations are x_codes * x_scales.
    w_codes: int8 (out, in), from -127 to 127.
    w_scales: float32 (out, 1), positive: the weights are w_codes * w_scales.

    Returns (sums, y):
    sums: int32 (tokens, out): the product of the codes, each exact to the last digit.
    y: float32 (tokens, out): activations times weights transposed, to 1 part in 100,000.
    """
    sums = x_codes.int() @ w_codes.int().T
    return sums, sums * x_scales * w_scales.T


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def one(name: str, tokens: int, columns: int, out: int, low: int = -127) -> Case:
        x_codes, w_codes = int8(random, tokens, columns, low=low), int8(random, out, columns, low=low)
        return Case(name, (x_codes, scales(random, tokens), w_codes, scales(random, out)))

    small = Case("codes so small that nothing overflows", (
        torch.randint(-3, 4, (3, 5), generator=random).to(torch.int8),
        scales(random, 3),
        torch.randint(-3, 4, (4, 5), generator=random).to(torch.int8),
        scales(random, 4),
    ))  # fmt: skip
    return [
        Case("the example of the card", (CARD_X_CODES, CARD_X_SCALES, CARD_W_CODES, CARD_W_SCALES)),
        small,
        one("a small layer", 3, 8, 5),
        one("as many tokens as outputs", 4, 9, 4),
        one("everything square", 6, 6, 6),
        one("sums beyond 16 bits", 4, 40, 3, low=90),
        one("long sums, beyond the 24 bits of a float32", 3, 4096, 4, low=64),
        one("a single token", 1, 33, 7),
        one("a single output", 5, 12, 1),
    ]


def _exact(case: Case) -> torch.Tensor:
    """The sums, int64; float64 would hold them exactly, too."""
    product: torch.Tensor = case.args[0].long() @ case.args[2].long().T
    return product


def returns_sums_and_y(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.parts(got, "sums", "y")


def sums_are_exact(case: Case, got: Any, expected: Any) -> Finding | None:
    exact = _exact(case)
    if finding := p.tensor(got[0], "sums", torch.int32, tuple(exact.shape)):
        return finding
    return p.equal(got[0].long(), "sums", exact)


def y_has_both_scales(case: Case, got: Any, expected: Any) -> Finding | None:
    _, x_scales, _, w_scales = case.args
    exact = _exact(case).double() * x_scales.double() * w_scales.double().T
    return near_products(got[1], "y", exact, 1e-5 * exact.abs())


def _scaled(sums: Any, x_scales: Any, w_scales: Any) -> Any:
    return sums.float() * x_scales * w_scales.T


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def sums_left_wide(x_codes, x_scales, w_codes, w_scales):
    sums, y = int8_product(x_codes, x_scales, w_codes, w_scales)
    return sums.long(), y


@mutant(
    "int8 is multiplied by int8 as it is, and torch keeps the result in int8: sums wrap around at 128. Convert the "
    "codes to int32 before the product."
)
def sums_in_int8(x_codes, x_scales, w_codes, w_scales):
    sums = (x_codes @ w_codes.T).int()
    return sums, _scaled(sums, x_scales, w_scales)


@mutant(
    "the products are formed in int8 and wrap around; only their sum is wider. One product may be 16,129. Convert the "
    "codes before you multiply them."
)
def products_in_int8(x_codes, x_scales, w_codes, w_scales):
    sums = (x_codes[:, None] * w_codes).sum(dim=2).int()
    return sums, _scaled(sums, x_scales, w_scales)


@mutant("the sums are kept in int16, which ends at 32,767: two products of 127 * 127 fit, a third does not.")
def sums_in_int16(x_codes, x_scales, w_codes, w_scales):
    sums = (x_codes.short() @ w_codes.short().T).int()
    return sums, _scaled(sums, x_scales, w_scales)


@mutant(
    "the sums are formed in float32, which holds whole numbers up to 16,777,216 only. A long row gets past that, and "
    "the last digits are lost. Convert the codes to int32, not to float."
)
def sums_in_float32(x_codes, x_scales, w_codes, w_scales):
    sums = (x_codes.float() @ w_codes.float().T).int()
    return sums, _scaled(sums, x_scales, w_scales)


@mutant(
    "the sums are formed in float16, which holds whole numbers up to 2,048 and ends at 65,504. Convert the codes to "
    "int32."
)
def sums_in_float16(x_codes, x_scales, w_codes, w_scales):
    sums = (x_codes.half() @ w_codes.half().T).float().clamp(-(2.0**30), 2.0**30).int()
    return sums, _scaled(sums, x_scales, w_scales)


@mutant("the sums are formed in bfloat16, which holds whole numbers up to 256 only. Convert the codes to int32.")
def sums_in_bfloat16(x_codes, x_scales, w_codes, w_scales):
    sums = (x_codes.bfloat16() @ w_codes.bfloat16().T).int()
    return sums, _scaled(sums, x_scales, w_scales)


@mutant("the sums are clamped to -127 and 127. Codes have that range; a sum of products of codes has a far larger one.")
def sums_clamped(x_codes, x_scales, w_codes, w_scales):
    sums = int8_product(x_codes, x_scales, w_codes, w_scales)[0].clamp(-127, 127)
    return sums, _scaled(sums, x_scales, w_scales)


@mutant(
    "the weights are not transposed. They are (out, in), like those of nn.Linear, so the product is x_codes @ "
    "w_codes.T. With square matrices there is no error, only a wrong result."
)
def weights_not_transposed(x_codes, x_scales, w_codes, w_scales):
    sums = x_codes.int() @ w_codes.int()
    return sums, _scaled(sums, x_scales, w_scales)


@mutant("the result is transposed: w_codes @ x_codes.T is (out, tokens). Asked for is (tokens, out).")
def result_transposed(x_codes, x_scales, w_codes, w_scales):
    sums, y = int8_product(x_codes, x_scales, w_codes, w_scales)
    return sums.T, y.T


@mutant("y has the scales of the tokens only. The weights were divided by theirs as well: times w_scales.T.")
def weight_scales_forgotten(x_codes, x_scales, w_codes, w_scales):
    sums, _ = int8_product(x_codes, x_scales, w_codes, w_scales)
    return sums, sums * x_scales


@mutant("y has the scales of the weights only. The activations were divided by theirs as well: times x_scales.")
def token_scales_forgotten(x_codes, x_scales, w_codes, w_scales):
    sums, _ = int8_product(x_codes, x_scales, w_codes, w_scales)
    return sums, sums * w_scales.T


@mutant("y is the sums, without any scale.")
def no_scales(x_codes, x_scales, w_codes, w_scales):
    sums, _ = int8_product(x_codes, x_scales, w_codes, w_scales)
    return sums, sums.float()


@mutant(
    "w_scales is (out, 1) and lines up with the tokens. An output is a column of y: multiply by w_scales.T, (1, out). "
    "With as many tokens as outputs there is no error, only a wrong result."
)
def weight_scales_not_turned(x_codes, x_scales, w_codes, w_scales):
    sums, _ = int8_product(x_codes, x_scales, w_codes, w_scales)
    return sums, sums * x_scales * w_scales


@mutant("the scales change places: a token's scale belongs to its row of y, an output's to its column.")
def scales_change_places(x_codes, x_scales, w_codes, w_scales):
    sums, _ = int8_product(x_codes, x_scales, w_codes, w_scales)
    return sums, sums * x_scales.T * w_scales


@mutant("the two scales are added. Each factor of a product brings its own: multiply by both.")
def scales_added(x_codes, x_scales, w_codes, w_scales):
    sums, _ = int8_product(x_codes, x_scales, w_codes, w_scales)
    return sums, sums * (x_scales + w_scales.T)


@mutant("the sums are divided by the scales. A code times its scale is the value: multiply.")
def divided_by_scales(x_codes, x_scales, w_codes, w_scales):
    sums, _ = int8_product(x_codes, x_scales, w_codes, w_scales)
    return sums, sums / x_scales / w_scales.T


@mutant(
    "y is divided by 127 * 127. That belongs to bitsandbytes, whose scales are the largest magnitudes. Here a scale is "
    "the size of a step, divided by 127 already."
)
def divided_by_127_twice(x_codes, x_scales, w_codes, w_scales):
    sums, y = int8_product(x_codes, x_scales, w_codes, w_scales)
    return sums, y / 127**2


@mutant("all tokens get the largest scale. Each row of y belongs to a token and takes the scale of that token.")
def one_scale_for_all_tokens(x_codes, x_scales, w_codes, w_scales):
    sums, _ = int8_product(x_codes, x_scales, w_codes, w_scales)
    return sums, sums * x_scales.max() * w_scales.T


@mutant("y is computed in float16, which has 11 bits. Scale the sums in float32.")
def y_in_half(x_codes, x_scales, w_codes, w_scales):
    sums, y = int8_product(x_codes, x_scales, w_codes, w_scales)
    return sums, y.half().float()


@mutant("y is rounded to whole numbers, as if it were codes again. It is the result of the layer: leave it as it is.")
def y_rounded(x_codes, x_scales, w_codes, w_scales):
    sums, y = int8_product(x_codes, x_scales, w_codes, w_scales)
    return sums, y.round()


@mutant(
    "the sums are those of a product of the values, codes times scales, cut off to whole numbers. Multiply the codes; "
    "the scales come after the sum."
)
def sums_of_values(x_codes, x_scales, w_codes, w_scales):
    y = (x_codes * x_scales) @ (w_codes * w_scales).T
    return y.int(), y


def in_float64(x_codes, x_scales, w_codes, w_scales):
    """Right, although no integer product: float64 has 53 bits, and a sum of 131,071 products needs 31."""
    sums = x_codes.double() @ w_codes.double().T
    return sums.int(), (sums * x_scales * w_scales.T).float()


def in_pieces(x_codes, x_scales, w_codes, w_scales):
    """Right, in float32: sums of 1,024 products stay below 2^24, and whole numbers add the pieces up."""
    sums = torch.zeros(len(x_codes), len(w_codes), dtype=torch.int32)
    for x, w in zip(x_codes.split(1024, dim=1), w_codes.split(1024, dim=1), strict=True):
        sums += (x.float() @ w.float().T).int()
    return sums, (x_scales @ w_scales.T) * sums


def with_numpy(x_codes, x_scales, w_codes, w_scales):
    """Right, as arrays."""
    import numpy as np

    sums = np.einsum("ti,oi->to", x_codes.numpy().astype(np.int32), w_codes.numpy().astype(np.int32))
    return sums, sums.astype(np.float32) * x_scales.numpy() * w_scales.numpy().T


QUESTION = Question(
    id="llm_int8.int8_product",
    title="Integers inside, scales outside",
    reference=int8_product,
    cases=cases,
    properties=(returns_sums_and_y, sums_are_exact, y_has_both_scales),
    mutants=(
        sums_left_wide,  # first: what is wrong in its types only looks like this one
        sums_in_int8,
        products_in_int8,
        sums_in_int16,
        sums_in_float32,
        sums_in_float16,
        sums_in_bfloat16,
        sums_clamped,
        weights_not_transposed,
        result_transposed,
        weight_scales_forgotten,
        token_scales_forgotten,
        no_scales,
        weight_scales_not_turned,
        scales_change_places,
        scales_added,
        divided_by_scales,
        divided_by_127_twice,
        one_scale_for_all_tokens,
        y_in_half,
        y_rounded,
        sums_of_values,
    ),
    alternatives=(in_float64, in_pieces, with_numpy),
    hints=(
        "Write y[t, o] as a sum over the channels of four factors. Which two of them do not depend on the channel? And "
        "how large can the sum of the other two become?",
        "One product of codes is at most 127 * 127 = 16,129, so neither int8 nor int16 holds the sum: bring the codes "
        "to int32 before you multiply. Then the rows of the sums get x_scales and the columns w_scales.",
        "sums = x_codes.int() @ w_codes.int().T; y = sums * x_scales * w_scales.T, where (tokens, 1) lines up with the "
        "rows and (1, out) with the columns.",
    ),
    explanation=(
        "The scales leave the sum because they do not change along it: one per token, one per output. A scale per "
        "group of 128 input channels would change inside the sum, so a kernel would have to leave the integers every "
        "128 products; this is why W8A8 weights have no groups. int32 is wide enough: 131,071 products of 128 * 128 "
        "fit, and no layer is that long. float32 is not: it holds all whole numbers up to 16,777,216 only, 1,040 "
        "products of 127 * 127. float64 would be exact as well, and so would float32 in pieces of 1,024; but what an "
        "integer unit buys is speed, and neither has that. torch has `torch._int_mm` for it, with limits on shapes; on "
        "a CPU it may return wrong numbers for k = 1 without an error."
    ),
)
