"""float8.encode: the byte of the nearest 8-bit float (Micikevicius et al. 2022, "FP8 Formats for Deep Learning")."""

from __future__ import annotations

from typing import Any

import torch

from ...question import Case, Finding, Question, mutant
from .bits import LAYOUTS, as_tensor, finite, show, values_of

LARGEST = {"e4m3": 448.0, "e5m2": 57344.0}
# The example of the card: as it comes, a tie, a carry, the end, subnormal, negative.
CARD = (3.3, 17.0, 19.0, 15.7, 500.0, 0.001, -0.3)


def encode_float8(x, data_type):
    """Write numbers as 8-bit floats: the codes of the nearest values.

    x: float32, any shape. Infinity may be among them, NaN is not.
    data_type: "e4m3" (sign, 4 bits of exponent e, 3 of fraction f; bias 7; largest 448) or
        "e5m2" (sign, 5 bits of exponent e, 2 of fraction f; bias 15; largest 57344).

    e > 0: 2**(e - bias) * 1.f      e = 0: 2**(1 - bias) * 0.f      minus, where the sign is 1

    Returns codes: uint8, shaped like x.
    A number halfway between two neighbors gets the even code, the one that ends in 0.
    What lies past the largest value gets its code, with the sign, and so does infinity.
    For 0, and for what is rounded to 0, either zero is right, 0x00 or 0x80.
    """
    fraction_bits, bias, largest = (3, 7, 448.0) if data_type == "e4m3" else (2, 15, 57344.0)
    magnitude = x.abs().clamp(max=largest)
    exponent = torch.log2(magnitude).floor().clamp(min=1 - bias)  # the smallest serves all subnormal numbers
    steps = torch.round(magnitude / 2.0 ** (exponent - fraction_bits))  # torch.round takes ties to even
    # Above 2^f steps lies the leading 1. With 2^(f+1) of them, the sum carries into the exponent by itself.
    codes = (exponent + bias - 1) * 2**fraction_bits + steps
    return torch.where(x < 0, codes + 128, codes).to(torch.uint8)


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def spread(low: float, high: float, *shape: int) -> torch.Tensor:
        """Numbers of both signs whose magnitudes are even in powers of two."""
        exponents = low + (high - low) * torch.rand(shape, generator=random)
        return 2**exponents * (1 - 2 * torch.randint(0, 2, shape, generator=random))

    def signed(x: torch.Tensor) -> torch.Tensor:
        return (x.double() * (1 - 2 * torch.randint(0, 2, x.shape, generator=random))).float()

    def middles(data_type: str) -> torch.Tensor:
        grid = finite(data_type)
        return (grid[1:] + grid[:-1]) / 2

    def carries(data_type: str, low: int, high: int) -> torch.Tensor:
        """Just below powers of two, nearer to them than to the value before."""
        share = 1 - 2.0 ** -(LAYOUTS[data_type][0] + 2) * (0.1 + 0.8 * torch.rand(high - low, generator=random))
        return signed(2.0 ** torch.arange(low, high) * share)

    tiny = 2.0 ** torch.tensor([-9.0, -16.0])[:, None] * torch.tensor([0.3, 0.49, 0.51, 0.8, 1.2])  # of the smallest
    beside = 1 + 2.0**-20 * torch.tensor([-1.0, 1.0], dtype=torch.float64)[:, None]
    return [
        Case("the numbers of the card", (torch.tensor(CARD), "e4m3")),
        Case("the same numbers in e5m2", (torch.tensor(CARD), "e5m2")),
        Case("normal numbers in e4m3", (spread(-5.9, 8.7, 8, 9), "e4m3")),
        Case("normal numbers in e5m2", (spread(-13.9, 15.7, 8, 9), "e5m2")),
        Case("subnormal numbers in e4m3", (spread(-10, -6.2, 31), "e4m3")),
        Case("subnormal numbers in e5m2", (spread(-17, -14.2, 31), "e5m2")),
        Case("about the smallest number of e4m3", (signed(tiny[0]), "e4m3")),
        Case("about the smallest number of e5m2", (signed(tiny[1]), "e5m2")),
        Case("far below the smallest number", (torch.tensor([1e-30, -1e-30, 1e-45, -3e-7, 0.5]), "e5m2")),
        Case("both zeros", (torch.tensor([0.0, -0.0, 1.0]), "e4m3")),
        Case("just below powers of two, e4m3", (carries("e4m3", -5, 9), "e4m3")),
        Case("just below powers of two, e5m2", (carries("e5m2", -13, 16), "e5m2")),
        Case("past the largest number of e4m3", (torch.tensor([449.0, 463.0, 465.0, 480.0, 1e5]), "e4m3")),
        Case("past the largest number of e4m3, negative", (torch.tensor([-449.0, -465.0, -1e5]), "e4m3")),
        Case("past the largest number of e5m2", (torch.tensor([57345.0, 61439.0, 61441.0, -65536.0, 1e9]), "e5m2")),
        Case("infinity in e4m3", (torch.tensor([torch.inf, -torch.inf]), "e4m3")),
        Case("infinity in e5m2", (torch.tensor([torch.inf, -torch.inf]), "e5m2")),
        Case("halfway between two values of e4m3", (signed(middles("e4m3")), "e4m3")),
        Case("halfway between two values of e5m2", (signed(middles("e5m2")), "e5m2")),
        Case("just beside the middles of e4m3", (signed(middles("e4m3") * beside), "e4m3")),
        Case("just beside the middles of e5m2", (signed(middles("e5m2") * beside), "e5m2")),
        Case("every value of e4m3 itself", (signed(finite("e4m3")), "e4m3")),
        Case("every value of e5m2 itself", (signed(finite("e5m2")), "e5m2")),
        Case("three dimensions", (0.05 * torch.randn(2, 3, 5, generator=random), "e4m3")),
    ]


def codes_are_uint8(case: Case, got: Any, expected: Any) -> Finding | None:
    return as_tensor(got, "codes", torch.uint8, tuple(case.args[0].shape))


def _same_values(case: Case, got: Any, expected: Any, what: str, where: Any) -> Finding | None:
    x, data_type = case.args
    mine, right = values_of(got, data_type), values_of(expected, data_type)
    wrong = where & ~((mine == right) | (mine.isnan() & right.isnan()))
    if not bool(wrong.any()):
        return None
    index = tuple(wrong.nonzero()[0].tolist())

    def told(codes: Any, values: Any) -> str:
        return f"{int(codes[index])}, {show(int(codes[index]), data_type)}, which is {values[index].item():g}"

    return Finding(
        f"{what}: {int(wrong.sum())} of {int(where.sum())} codes are wrong",
        index=index,
        expected=f"{told(expected, right)}, for {x[index].item():.9g}",
        got=told(got, mine),
    )


def past_the_largest(case: Case, got: Any, expected: Any) -> Finding | None:
    x, data_type = case.args
    return _same_values(case, got, expected, "numbers past the largest", x.abs() > LARGEST[data_type])


def subnormal_numbers(case: Case, got: Any, expected: Any) -> Finding | None:
    x, data_type = case.args
    return _same_values(case, got, expected, "numbers near zero", x.abs() < 2.0 ** (1 - LAYOUTS[data_type][1]))


def normal_numbers(case: Case, got: Any, expected: Any) -> Finding | None:
    return _same_values(case, got, expected, "normal numbers", case.args[0].isfinite())


def _write(x: Any, data_type: str, *, rounded: Any = torch.round, largest: Any = None, bias: Any = None) -> Any:
    """A right answer, but for the parts that are given; codes in float32."""
    fraction_bits = LAYOUTS[data_type][0]
    bias = LAYOUTS[data_type][1] if bias is None else bias
    magnitude = x.abs().clamp(max=largest or LARGEST[data_type])
    exponent = torch.log2(magnitude).floor().clamp(min=1 - bias)
    steps = rounded(magnitude / 2.0 ** (exponent - fraction_bits))
    return _finish(x, (exponent + bias - 1) * 2**fraction_bits + steps)


def _finish(x: Any, codes: Any) -> Any:
    """The sign, for codes of magnitudes."""
    codes = codes.to(torch.int32)
    return torch.where(x < 0, codes + 128, codes).to(torch.uint8)


def _fields(x: Any, data_type: str) -> Any:
    """The code of the magnitude, before the sign."""
    return encode_float8(x.abs(), data_type).to(torch.int32)


@mutant("the codes are right, but not their type. The finding below says which one is asked for; convert at the end.")
def codes_left_wide(x, data_type):
    return encode_float8(x, data_type).int()


@mutant("these are the rounded numbers, not their codes. A code is a byte: sign, exponent, fraction.")
def numbers_for_codes(x, data_type):
    return values_of(encode_float8(x, data_type), data_type).float()


@mutant("the fraction is cut off, so every number moves towards zero. Round to the nearest value.")
def cut_off(x, data_type):
    return _write(x, data_type, rounded=torch.floor)


@mutant("every number moves away from zero: rounded up. Round to the nearest value.")
def rounded_up(x, data_type):
    return _write(x, data_type, rounded=torch.ceil)


@mutant(
    "halves go up, as floor(steps + 0.5) makes them. A number halfway between two values gets the even code; "
    "torch.round does so."
)
def halves_up(x, data_type):
    return _write(x, data_type, rounded=lambda steps: torch.floor(steps + 0.5))


@mutant(
    "halves go down, to the value nearer to zero, as searchsorted among the midpoints makes them. A number halfway "
    "between two values gets the even code."
)
def halves_down(x, data_type):
    return _write(x, data_type, rounded=lambda steps: torch.ceil(steps - 0.5))


@mutant(
    "NaN and infinity for what is past the largest number: x was cast, or counted on, without a clamp. Saturate: clamp "
    "the magnitude first."
)
def overflows(x, data_type):
    limit = {"e4m3": 464.0, "e5m2": 61440.0}[data_type]
    past = (x.abs() > limit) if data_type == "e4m3" else (x.abs() >= limit)
    return torch.where(past, _finish(x, torch.full(x.shape, LAYOUTS[data_type][2])), encode_float8(x, data_type))


@mutant(
    "in e5m2 infinity comes back for what is past the largest number. A cast to float8_e5m2 does that; one to "
    "float8_e4m3fn saturates in some versions of torch. Clamp first, in both."
)
def e5m2_overflows(x, data_type):
    return overflows.answer(x, data_type) if data_type == "e5m2" else encode_float8(x, data_type)


@mutant(
    "the magnitude is not clamped: past the largest number the codes count on, into NaN, infinity and the sign bit. "
    "Clamp the magnitude before you take it apart."
)
def counts_on(x, data_type):
    fraction_bits, bias, _ = LAYOUTS[data_type]
    magnitude = x.abs()
    exponent = torch.log2(magnitude).floor().clamp(min=1 - bias)
    steps = torch.round(magnitude / 2.0 ** (exponent - fraction_bits))
    codes = ((exponent + bias - 1) * 2**fraction_bits + steps).nan_to_num(nan=0.0, posinf=0.0)
    return _finish(x, codes)


@mutant("infinity keeps the code of infinity in e5m2. Here it gets the largest number, as all that lies past it.")
def infinity_is_kept(x, data_type):
    codes = encode_float8(x, data_type)
    return torch.where(x.isinf() & (data_type == "e5m2"), torch.where(x < 0, 0xFC, 0x7C).to(torch.uint8), codes)


@mutant("only large positive numbers are clamped. Clamp the magnitude, or from -largest to largest.")
def clamped_above_only(x, data_type):
    return torch.where(x < 0, overflows.answer(x, data_type), encode_float8(x, data_type))


@mutant("e4m3 saturates at 240, its largest number if the last exponent were infinity. It goes on to 448.")
def saturates_at_240(x, data_type):
    return _write(x, data_type, largest=240.0 if data_type == "e4m3" else None)


@mutant("both types saturate at 448. E5M2 goes on to 57344.")
def saturates_at_448(x, data_type):
    return _write(x, data_type, largest=448.0)


@mutant("the codes are clamped to 127, and that is NaN. The code of the largest number is 0x7E in e4m3, 0x7B in e5m2.")
def saturates_in_nan(x, data_type):
    codes = _finish(x, torch.full(x.shape, 0x7F))
    return torch.where(x.abs() > LARGEST[data_type], codes, encode_float8(x, data_type))


@mutant(
    "numbers below the smallest normal one become zero. They have codes, too: there the exponent stays at 1 - bias "
    "and the leading 1 is missing."
)
def subnormals_flushed(x, data_type):
    magnitude = encode_float8(x, data_type) & 0x7F
    return torch.where((magnitude >> LAYOUTS[data_type][0]) == 0, 0, encode_float8(x, data_type))


@mutant("numbers near zero become the smallest normal one: the magnitude was clamped from below. Zero is a value.")
def smallest_normal_at_least(x, data_type):
    smallest = 2.0 ** (1 - LAYOUTS[data_type][1])
    raised = torch.where(x < 0, -1.0, 1.0) * x.abs().clamp(min=smallest)
    return encode_float8(raised, data_type)


@mutant("numbers below half of the smallest value still get the code 1. They are nearer to zero: round them to code 0.")
def never_zero(x, data_type):
    codes = encode_float8(x, data_type)
    return torch.where((codes & 0x7F == 0) & (x != 0), _finish(x, torch.ones(x.shape)), codes)


@mutant(
    "the exponent of small numbers is not held at 1 - bias, so e is negative or 0 with a leading 1 that nobody reads: "
    "numbers near zero get codes of others. Clamp the exponent before you divide."
)
def exponent_not_held(x, data_type):
    fraction_bits, bias, _ = LAYOUTS[data_type]
    magnitude = x.abs().clamp(min=2.0**-140, max=LARGEST[data_type])
    exponent = torch.log2(magnitude).floor()
    steps = torch.round(magnitude / 2.0 ** (exponent - fraction_bits))
    codes = ((exponent + bias - 1) * 2**fraction_bits + steps).clamp(min=0)
    return torch.where(x == 0, 0, _finish(x, codes))


@mutant(
    "every number is written as 1.f: the fraction is what lies above the leading 1, and below the smallest normal "
    "number the exponent field gets negative. There e is 0, the exponent stays at 1 - bias, and no 1 is taken off."
)
def no_subnormal_codes(x, data_type):
    fraction_bits, bias, _ = LAYOUTS[data_type]
    magnitude = x.abs().clamp(max=LARGEST[data_type])
    exponent = torch.log2(magnitude).floor()
    fraction = torch.round((magnitude / 2.0**exponent - 1) * 2**fraction_bits)
    return _finish(x, ((exponent + bias) * 2**fraction_bits + fraction).nan_to_num(nan=0.0, neginf=0.0))


@mutant(
    "a carry is lost: a fraction that is rounded up to the next power of two becomes 0, and the exponent stays. So "
    "15.7 becomes 8. Add the fraction to the shifted exponent, and the carry happens by itself."
)
def carry_lost(x, data_type):
    return _without_carry(x, data_type, lambda steps, full: steps % full)


@mutant(
    "a carry is prevented: a fraction that is rounded up to the next power of two is held at its largest. So 15.7 "
    "becomes 15. The next power of two is nearer: let the exponent grow."
)
def carry_prevented(x, data_type):
    return _without_carry(x, data_type, lambda steps, full: torch.where(steps == 2 * full, full - 1, steps % full))


def _without_carry(x: Any, data_type: str, fraction_of: Any) -> Any:
    fraction_bits, bias, _ = LAYOUTS[data_type]
    full, magnitude = 2**fraction_bits, x.abs().clamp(max=LARGEST[data_type])
    exponent = torch.log2(magnitude).floor().clamp(min=1 - bias)
    steps = torch.round(magnitude / 2.0 ** (exponent - fraction_bits))
    codes = (exponent + bias) * full + fraction_of(steps, full)
    return _finish(x, torch.where(magnitude < 2.0 ** (1 - bias), _fields(magnitude, data_type), codes))


@mutant("the sign bit is not written: negative numbers get the codes of positive ones. Add 128.")
def without_sign(x, data_type):
    return encode_float8(x, data_type) & 0x7F


@mutant(
    "negative codes are two's complement: minus the code, as int8 has it. A float has a sign bit, and the other seven "
    "are the same for x and -x."
)
def twos_complement(x, data_type):
    codes = encode_float8(x, data_type).to(torch.int32)
    return torch.where(codes > 128, (256 - (codes & 0x7F)) % 256, codes).to(torch.uint8)


@mutant("the bias is one too large or too small: 2**(bits - 1) - 1 is 7 for four bits of exponent and 15 for five.")
def bias_one_too_large(x, data_type):
    return _finish(x, (_fields(x / 2, data_type) + 2 ** LAYOUTS[data_type][0]).clamp(max=LAYOUTS[data_type][2] - 1))


@mutant("both types have the bias of e4m3 here, 7. E5M2 has 15.")
def bias_of_e4m3(x, data_type):
    return _write(x, data_type, bias=7)


@mutant("the argument data_type is not used; the codes are those of e4m3.")
def always_e4m3(x, data_type):
    return encode_float8(x, "e4m3")


@mutant("the argument data_type is not used; the codes are those of e5m2.")
def always_e5m2(x, data_type):
    return encode_float8(x, "e5m2")


@mutant(
    "x is scaled so that its largest magnitude becomes the largest code. That is another step; here the numbers are "
    "written as they are."
)
def scaled_first(x, data_type):
    largest = x[x.isfinite()].abs().amax() if bool(x.isfinite().any()) else torch.tensor(1.0)
    return encode_float8(x * (LARGEST[data_type] / largest.clamp(min=1e-30)), data_type)


@mutant("the numbers are rounded to whole steps of a grid, as int8 does. The steps of a float grow with the number.")
def even_steps(x, data_type):
    return _finish(x, x.abs().round().clamp(max=LAYOUTS[data_type][2] - 1))


@mutant(
    "the numbers are rounded twice: to 16 bits, by half() or bfloat16(), and then to 8. A number just beside a middle "
    "falls on it the first time and to the wrong side the second time. Round once, from float32."
)
def by_way_of_16_bits(x, data_type):
    return encode_float8(x.bfloat16().float(), data_type)


@mutant("the codes are in one long row. They have the shape of x.")
def flattened(x, data_type):
    return encode_float8(x, data_type).flatten()


@mutant("x itself was clamped: an underscore too much, as in abs_() or clamp_(). Work on a copy.")
def clamps_its_argument(x, data_type):
    return encode_float8(x.clamp_(-LARGEST[data_type], LARGEST[data_type]), data_type)


def clamp_and_cast(x, data_type):
    """Right, by the types of torch, after a clamp."""
    kind = torch.float8_e4m3fn if data_type == "e4m3" else torch.float8_e5m2
    limit = torch.finfo(kind).max
    return x.clamp(-limit, limit).to(kind).view(torch.uint8)


def nearest_of_all_values(x, data_type):
    """Right, by a search among all values; at a tie, among the two, the even code."""
    grid = finite(data_type)
    magnitude = x.double().abs().clamp(max=float(grid[-1]))
    distance = (magnitude[..., None] - grid).abs()
    odd = torch.arange(len(grid)) % 2 * 1e-300  # zero distance stays zero
    codes = (distance + odd).argmin(dim=-1)
    tie = distance.sort(dim=-1).values
    even = distance[..., ::2].argmin(dim=-1) * 2
    codes = torch.where(tie[..., 0] == tie[..., 1], even, codes)
    return (codes + 128 * x.signbit()).to(torch.uint8)


def from_the_bits_of_float32(x, data_type):
    """Right, with the exponent read off float32, and the fields put together one by one."""
    fraction_bits, bias = (3, 7) if data_type == "e4m3" else (2, 15)
    top = LAYOUTS[data_type][2] - 1
    exponent = (((x.view(torch.int32) >> 23) & 0xFF) - 127).clamp(1 - bias, 20)
    steps = torch.round(x.abs().clamp(max=1e6) / 2.0 ** (exponent - fraction_bits)).int()
    up = steps == 2 ** (fraction_bits + 1)
    exponent, steps = exponent + up.int(), torch.where(up, 2**fraction_bits, steps)
    normal = steps >= 2**fraction_bits
    field = torch.where(normal, exponent + bias, 0)
    codes = torch.where(x.abs() > LARGEST[data_type], top, field << fraction_bits | steps % 2**fraction_bits)
    return (codes | (x < 0).int() << 7).to(torch.uint8)


QUESTION = Question(
    id="float8.encode",
    title="Write a float in a byte",
    reference=encode_float8,
    cases=cases,
    properties=(codes_are_uint8, past_the_largest, subnormal_numbers, normal_numbers),
    mutants=(
        codes_left_wide,  # first: what is wrong in its types only looks like this one
        numbers_for_codes,
        cut_off,
        rounded_up,
        halves_up,
        halves_down,
        overflows,
        e5m2_overflows,
        counts_on,
        infinity_is_kept,
        clamped_above_only,
        saturates_at_240,
        saturates_at_448,
        saturates_in_nan,
        subnormals_flushed,
        smallest_normal_at_least,
        never_zero,
        exponent_not_held,
        no_subnormal_codes,
        carry_lost,
        carry_prevented,
        without_sign,
        twos_complement,
        bias_one_too_large,
        bias_of_e4m3,
        always_e4m3,
        always_e5m2,
        scaled_first,
        even_steps,
        by_way_of_16_bits,
        flattened,
        clamps_its_argument,
    ),
    alternatives=(clamp_and_cast, nearest_of_all_values, from_the_bits_of_float32),
    hints=(
        "How far apart are the values around 3.3, around 17, and around 0.001? Divide a number by that distance, and "
        "what is left to do is rounding to a whole number.",
        "magnitude = x.abs().clamp(max=largest); exponent = torch.log2(magnitude).floor().clamp(min=1 - bias); the "
        "distance is 2.0 ** (exponent - fraction_bits). torch.round takes halves to even. log2(0) is -inf, which the "
        "clamp lifts.",
        "steps counts the leading 1 as 2**fraction_bits, which is one step of the exponent field. So codes = (exponent "
        "+ bias - 1) * 2**fraction_bits + steps, for normal and for subnormal numbers, carry included. Then add "
        "128 for x < 0, then to(torch.uint8).",
    ),
    explanation=(
        "The codes of positive floats are ordered like the floats, so adding 1 to a code gives the next value, across "
        "powers of two as well. That is why a carry needs no branch and why a subnormal number needs none either. "
        "Saturation is a choice: a cast to float8_e5m2 gives infinity from 61440 on, and a cast to float8_e4m3fn gives "
        "448 on the CPU of torch 2.13 and NaN in torch 2.11. One NaN in a weight makes every output of its row NaN, so "
        "clamp before you cast. Ties are not rare: of 16 bfloat16 numbers from one value of E4M3 up to the "
        "next, one lies exactly in the middle. If all of these went up, the mean would shift."
    ),
)
