"""float8.decode: the value of a byte in E4M3 and E5M2 (Micikevicius et al. 2022, "FP8 Formats for Deep Learning")."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .bits import LAYOUTS, fields, same_numbers, show

# The example of the card, e4m3: 3.25, -3.25, the smallest, three eighths of 2^-6, 448 and a NaN.
CARD = (0x45, 0xC5, 0x01, 0x03, 0x7E, 0x7F)


def float8_values(codes, data_type):
    """Read bytes as 8-bit floats.

    codes: uint8, any shape.
    data_type: "e4m3" (sign, 4 bits of exponent e, 3 of fraction f; bias 7) or
        "e5m2" (sign, 5 bits of exponent e, 2 of fraction f; bias 15).

    e > 0: 2**(e - bias) * 1.f      e = 0: 2**(1 - bias) * 0.f      minus, where the sign is 1

    e4m3: NaN are 0x7F and 0xFF, and nothing else is special; there is no infinity.
    e5m2: e = 31 is special: infinity where f = 0, with its sign, and NaN where it is not.

    Returns float32, shaped like codes. For -0 you may return 0.
    """
    fraction_bits, bias = (3, 7) if data_type == "e4m3" else (2, 15)
    codes = codes.int()  # bytes would overflow below
    sign, exponent, fraction = codes >> 7, (codes & 0x7F) >> fraction_bits, codes & (2**fraction_bits - 1)
    significand = torch.where(exponent > 0, 1.0, 0.0) + fraction / 2**fraction_bits
    values = significand * 2.0 ** (exponent.clamp(min=1) - bias)
    if data_type == "e4m3":
        values[codes & 0x7F == 0x7F] = torch.nan
    else:
        values[exponent == 31] = torch.where(fraction[exponent == 31] == 0, torch.inf, torch.nan)
    return torch.where(sign == 1, -values, values)


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def drawn(*shape: int, low: int = 0, high: int = 256) -> torch.Tensor:
        return torch.randint(low, high, shape, generator=random).to(torch.uint8)

    def of(*codes: int) -> torch.Tensor:
        return torch.tensor(codes, dtype=torch.uint8)

    every = torch.randperm(256, generator=random).to(torch.uint8)
    return [
        Case("the codes of the card", (of(*CARD), "e4m3")),
        Case("the same codes in e5m2", (of(*CARD), "e5m2")),
        Case("normal numbers of e4m3", (drawn(4, 5, low=0x08, high=0x78), "e4m3")),
        Case("normal numbers of e5m2", (drawn(3, 7, low=0x04, high=0x7C), "e5m2")),
        Case("negative numbers of e4m3", (drawn(9, low=0x88, high=0xF8), "e4m3")),
        Case("subnormal numbers of e4m3", (of(*range(1, 8)), "e4m3")),
        Case("subnormal numbers of e5m2", (of(1, 2, 3, 0x81, 0x83), "e5m2")),
        Case("both zeros", (of(0x00, 0x80), "e4m3")),
        Case("the last exponent of e4m3", (of(*range(0x78, 0x7F), 0xF8, 0xFE), "e4m3")),
        Case("the NaN of e4m3", (of(0x7F), "e4m3")),
        Case("the NaN of e4m3 with a sign", (of(0xFF), "e4m3")),
        Case("the infinity of e5m2", (of(0x7C), "e5m2")),
        Case("the infinity of e5m2 with a sign", (of(0xFC), "e5m2")),
        Case("the NaN of e5m2", (of(0x7D, 0x7E, 0x7F, 0xFD, 0xFE, 0xFF), "e5m2")),
        Case("the code 128", (of(0x80), "e5m2")),
        Case("all 256 codes of e4m3", (every, "e4m3")),
        Case("all 256 codes of e5m2", (every.view(2, 16, 8), "e5m2")),
    ]


def values_are_float32(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got, "values", torch.float32, tuple(case.args[0].shape))


def _bits(case: Case) -> Any:
    codes, data_type = case.args
    return lambda index: f" for the bits {show(int(codes[index]), data_type)}"


def normal_numbers(case: Case, got: Any, expected: Any) -> Finding | None:
    where = (fields(*case.args)[1] > 0) & expected.isfinite()
    return same_numbers(got, "normal numbers", expected, where, _bits(case))


def subnormal_numbers(case: Case, got: Any, expected: Any) -> Finding | None:
    return same_numbers(got, "numbers with e = 0", expected, fields(*case.args)[1] == 0, _bits(case))


def infinities_and_nan(case: Case, got: Any, expected: Any) -> Finding | None:
    return same_numbers(got, "special codes", expected, ~expected.isfinite(), _bits(case))


def _read(
    codes: Any,
    data_type: str,
    *,
    fraction_bits: Any = None,
    bias: Any = None,
    leading: float = 0.0,
    lowest: int = 1,
    whole: Any = None,
    special: bool = True,
) -> Any:
    """A right answer, but for the parts that are given.

    `leading` is what stands before the fraction where e = 0, `lowest` the exponent that is used there, and `whole`
    what the fraction is divided by.
    """
    fraction_bits = fraction_bits or LAYOUTS[data_type][0]
    bias = LAYOUTS[data_type][1] if bias is None else bias
    wide = codes.to(torch.int32)
    sign, exponent, fraction = wide >> 7, (wide & 0x7F) >> fraction_bits, wide & (2**fraction_bits - 1)
    significand = torch.where(exponent > 0, 1.0, leading) + fraction / (whole or 2**fraction_bits)
    values = significand * 2.0 ** (exponent.clamp(min=lowest) - bias)
    values = torch.where(sign == 1, -values, values)
    return torch.where(_special(codes, data_type), float8_values(codes, data_type), values) if special else values


def _special(codes: Any, data_type: str) -> Any:
    return (codes.to(torch.int32) & 0x7F) >= LAYOUTS[data_type][2]


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def left_in_16_bits(codes, data_type):
    return float8_values(codes, data_type).half()


@mutant(
    "the leading 1 is counted for the exponent 0 as well. There the numbers are subnormal, 0.f, and so zero has a code."
)
def one_before_every_fraction(codes, data_type):
    return _read(codes, data_type, leading=1.0)


@mutant(
    "the leading 1 is counted for the exponent 0, and the exponent is 0 - bias there: the rule of normal numbers for "
    "all. So code 0 is not zero. Where e = 0 the value is 2**(1 - bias) * 0.f."
)
def no_subnormal_numbers(codes, data_type):
    return _read(codes, data_type, leading=1.0, lowest=0)


@mutant(
    "subnormal numbers are half as large as they should be: their exponent is 1 - bias, as that of the smallest normal "
    "ones, and not 0 - bias."
)
def subnormals_at_half(codes, data_type):
    return _read(codes, data_type, lowest=0)


@mutant("all codes with e = 0 come back as 0. Only a fraction of 0 is zero; the others are subnormal numbers.")
def subnormals_flushed(codes, data_type):
    return torch.where(fields(codes, data_type)[1] == 0, 0.0, float8_values(codes, data_type))


@mutant(
    "the last exponent of e4m3 is read as in IEEE 754: infinity and NaN. E4M3 gives up the infinity to have 256 to 448 "
    "there; only the fraction 111 is NaN."
)
def ieee_e4m3(codes, data_type):
    values = float8_values(codes, data_type)
    if data_type == "e4m3":
        _, exponent, fraction = fields(codes, data_type)
        values = torch.where((exponent == 15) & (fraction > 0), torch.nan, values)
        values = torch.where((exponent == 15) & (fraction == 0), torch.inf * values.sign(), values)
    return values


@mutant("no code is special here, so the NaN of e4m3 is 480, and e5m2 goes on to 114,688.")
def nothing_special(codes, data_type):
    return _read(codes, data_type, special=False)


@mutant("the NaN of e4m3 comes back as 480. The fraction 111 with the last exponent is no number.")
def nan_of_e4m3_is_480(codes, data_type):
    return _read(codes, data_type, special=data_type != "e4m3")


@mutant("the last exponent of e5m2 comes back as numbers, 65,536 to 114,688. It means infinity and NaN.")
def e5m2_without_infinity(codes, data_type):
    return _read(codes, data_type, special=data_type == "e4m3")


@mutant("of the two NaN of e4m3 only 0x7F is one here. 0xFF is the other: look at the seven bits below the sign.")
def one_nan_only(codes, data_type):
    values = float8_values(codes, data_type)
    return torch.where((codes == 0xFF) & (data_type == "e4m3"), -480.0, values)


@mutant("all codes of e5m2 with e = 31 are infinity here. That is only the fraction 0; the other three are NaN.")
def nan_is_infinity(codes, data_type):
    values = float8_values(codes, data_type)
    infinite = torch.where(codes > 127, -torch.inf, torch.inf)
    return torch.where(_special(codes, data_type) & (data_type == "e5m2"), infinite, values)


@mutant("all codes of e5m2 with e = 31 are NaN here. The fraction 0 is infinity.")
def infinity_is_nan(codes, data_type):
    values = float8_values(codes, data_type)
    return torch.where(values.isinf(), torch.nan, values)


@mutant("the infinity of e5m2 lost its sign: 0xFC is minus infinity. Put the sign on at the end.")
def infinity_without_sign(codes, data_type):
    values = float8_values(codes, data_type)
    return torch.where(values.isinf(), torch.inf, values)


@mutant("infinity comes back as the largest number. Saturation belongs into writing codes; reading says what is there.")
def infinity_saturates(codes, data_type):
    return float8_values(codes, data_type).nan_to_num(nan=torch.nan, posinf=57344.0, neginf=-57344.0)


@mutant(
    "the bias is one too large, 2**(bits - 1) and not 2**(bits - 1) - 1: all values are half of what they should be."
)
def bias_one_too_large(codes, data_type):
    return _read(codes, data_type, bias=LAYOUTS[data_type][1] + 1)


@mutant("both types have the bias of e4m3 here, 7. E5M2 has 15.")
def bias_of_e4m3(codes, data_type):
    return _read(codes, data_type, bias=7)


@mutant("no bias is subtracted from the exponent, so no value lies below 1.")
def without_bias(codes, data_type):
    return _read(codes, data_type, bias=0)


@mutant(
    "the arithmetic is done in bytes: in uint8, exponent - bias is never below zero but goes on from 255 down, and 1 - "
    "2 is 255. Convert the codes first: codes.int()."
)
def arithmetic_in_bytes(codes, data_type):
    fraction_bits, bias, _ = LAYOUTS[data_type]
    sign, exponent, fraction = codes >> 7, (codes & 0x7F) >> fraction_bits, codes & (2**fraction_bits - 1)
    significand = torch.where(exponent > 0, 1.0, 0.0) + fraction / 2**fraction_bits
    values = significand * 2.0 ** (exponent.clamp(min=1) - bias)
    values = torch.where(_special(codes, data_type), float8_values(codes, data_type).abs(), values)
    return torch.where(sign == 1, -values, values)


@mutant("the sign bit is not read. It is bit 7: codes from 128 on are negative.")
def without_sign(codes, data_type):
    return float8_values(codes & 0x7F, data_type)


@mutant(
    "negative codes are read as two's complement, as int8 does: -code has all bits turned. A float has a sign bit, and "
    "the seven bits below it are the same for x and -x."
)
def twos_complement(codes, data_type):
    magnitude = torch.where(codes > 127, 256 - codes.to(torch.int32), codes.to(torch.int32))
    values = float8_values((magnitude & 0x7F).to(torch.uint8), data_type)
    return torch.where(codes > 127, -values, values)


@mutant("the fraction is divided by its largest value. Divide by 2**fraction_bits: 111 is 7/8, or the next exponent.")
def fraction_over_seven(codes, data_type):
    return _read(codes, data_type, whole=2 ** LAYOUTS[data_type][0] - 1)


@mutant("the fraction is left out: all values are powers of two.")
def fraction_left_out(codes, data_type):
    return _read(codes, data_type, whole=2.0**200)


@mutant("the argument data_type is not used; the codes are read as e4m3.")
def always_e4m3(codes, data_type):
    return float8_values(codes, "e4m3")


@mutant("the argument data_type is not used; the codes are read as e5m2.")
def always_e5m2(codes, data_type):
    return float8_values(codes, "e5m2")


@mutant("the two types are swapped: e4m3 has four bits of exponent and three of fraction.")
def types_swapped(codes, data_type):
    return float8_values(codes, "e5m2" if data_type == "e4m3" else "e4m3")


@mutant(
    "these are the fnuz types, which some AMD chips use: the bias is one larger, and code 128 is NaN. torch has both; "
    "for e4m3 asked is float8_e4m3fn."
)
def fnuz(codes, data_type):
    values = _read(codes, data_type, bias=LAYOUTS[data_type][1] + 1, special=False)
    return torch.where(codes == 0x80, torch.nan, values)


@mutant("the bytes are taken as numbers from 0 to 255. Take them apart: sign, exponent, fraction.")
def numbers_as_they_are(codes, data_type):
    return codes.float()


@mutant("the values are in one long row. They have the shape of codes.")
def flattened(codes, data_type):
    return float8_values(codes, data_type).flatten()


def torchs_own_types(codes, data_type):
    """Right, by the types of torch, which read the same bytes."""
    return codes.view(torch.float8_e4m3fn if data_type == "e4m3" else torch.float8_e5m2).float()


def table_of_128(codes, data_type):
    """Right, code by code in Python's own floats, and then by look-up."""
    fraction_bits, bias, end = (3, 7, 127) if data_type == "e4m3" else (2, 15, 124)
    table = []
    for code in range(128):
        exponent, fraction = divmod(code, 2**fraction_bits)
        one = 2**fraction_bits if exponent else 0
        value = (one + fraction) * 2.0 ** (max(exponent, 1) - bias - fraction_bits)
        table.append(value if code < end else float("inf") if code == 124 and data_type == "e5m2" else float("nan"))
    table += [-value for value in table]
    return torch.tensor(table)[codes.long()]


def top_of_a_float16(codes, data_type):
    """Right: e5m2 is the upper byte of a float16; e4m3 is one, too, after a shift by 7 bits and a factor of 2^8."""
    import numpy as np

    wide = codes.numpy().astype(np.uint16)
    if data_type == "e5m2":
        return (wide << 8).view(np.float16).astype(np.float32)
    values = ((wide & 0x7F) << 7).view(np.float16).astype(np.float32) * 256
    values[wide & 0x7F == 0x7F] = np.nan
    return np.where(wide > 127, -values, values)


QUESTION = Question(
    id="float8.decode",
    title="Read a byte as a float",
    reference=float8_values,
    cases=cases,
    properties=(values_are_float32, normal_numbers, subnormal_numbers, infinities_and_nan),
    mutants=(
        left_in_16_bits,  # first: what is wrong in its types only looks like this one
        one_before_every_fraction,
        no_subnormal_numbers,
        subnormals_at_half,
        subnormals_flushed,
        ieee_e4m3,
        nothing_special,
        nan_of_e4m3_is_480,
        e5m2_without_infinity,
        one_nan_only,
        nan_is_infinity,
        infinity_is_nan,
        infinity_without_sign,
        infinity_saturates,
        bias_one_too_large,
        bias_of_e4m3,
        without_bias,
        arithmetic_in_bytes,
        without_sign,
        twos_complement,
        fraction_over_seven,
        fraction_left_out,
        always_e4m3,
        always_e5m2,
        types_swapped,
        fnuz,
        numbers_as_they_are,
        flattened,
    ),
    alternatives=(torchs_own_types, table_of_128, top_of_a_float16),
    hints=(
        "Take one code of the card, write its eight bits down and cut them: one, four, three. Which two of the three "
        "numbers decide which of the formulas holds?",
        "Bytes overflow when they are shifted to the left, so begin with codes.int(). The sign is codes >> 7, the "
        "exponent (codes & 0x7F) >> fraction_bits, the fraction codes & (2**fraction_bits - 1). torch.where chooses "
        "between 1.f and 0.f.",
        "significand = torch.where(exponent > 0, 1.0, 0.0) + fraction / 2**fraction_bits; values = significand * 2.0 "
        "** (exponent.clamp(min=1) - bias). Then put in NaN and infinity, and at last the sign.",
    ),
    explanation=(
        "Of 256 codes E4M3 spends two on NaN and none on infinity; E5M2 spends six and two, as IEEE 754 does. With "
        "infinity and all its NaN, E4M3 would end at 240; without them it ends at 448. Between two powers of two there "
        "are eight values in E4M3 and four in E5M2, so rounding moves a number by at most 1/16 or 1/8 of itself. "
        "Subnormal numbers cost one torch.where and give E4M3 three more powers of two at the small end: 2^-9 and "
        "not 2^-6. In a GPU all of this is wires."
    ),
)
