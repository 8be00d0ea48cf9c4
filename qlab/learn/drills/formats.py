"""Drills by hand on what a stored number looks like: scales, zero-points, codes, NF4, 8-bit floats, packed bytes.

Weights have three decimals at most, and none lies near the middle between two codes: there, how somebody rounds on the
way would decide. torch is loaded by the first drill that is drawn.
"""

from __future__ import annotations

import random
from itertools import pairwise
from typing import TYPE_CHECKING

from .kind import Drill, Kind, short, with_unit

if TYPE_CHECKING:
    from qlab.formats.affine import AffineWeight

_LINEAR, _NF4 = "02_linear_quantization", "03_nf4_and_codebooks"
_TIE = 0.05  # steps by which a quotient must stay clear of the middle between two codes


def _weights(rng: random.Random, one_sided: bool = False) -> list[float]:
    """Four weights with two decimals, of both signs or nearly all above zero."""
    low = -0.2 if one_sided else -1.5
    return [round(rng.uniform(low, 1.5), 2) for _ in range(4)]


def _quantized(values: list[float], bits: int, symmetric: bool) -> AffineWeight:
    import torch

    from qlab.formats import affine

    return affine.quantize(torch.tensor([values]), bits, "channel", symmetric, torch.float32)


def _clear(values: list[float], weight: AffineWeight) -> bool:
    """Whether no weight, and no zero-point, lies near the middle between two codes."""
    scale = float(weight.scales)
    quotients = [*(value / scale for value in values), min(0.0, *values) / scale]
    return all(abs(one % 1 - 0.5) > _TIE for one in quotients)


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _scale(rng: random.Random, level: int) -> Drill | None:
    bits = 4 if level == 1 else rng.choice((3, 4, 5))  # with more, the known mistakes hardly differ
    if level < 3:
        values, top = _weights(rng), 2 ** (bits - 1) - 1
        largest = max(map(abs, values))
        if largest < 0.1 or sorted(map(abs, values))[-2] == largest:
            return None
        scale = float(_quantized(values, bits, symmetric=True).scales)
        return Drill(
            f"A group has the weights {_listed(values)}. It is quantized to {bits} bits, symmetric, with codes from "
            f"-{top} to {top}. What is the scale?",
            scale,
            (
                f"The largest magnitude in the group is {largest:g}",
                f"It gets the last code: 2^({bits} - 1) - 1 = {top}",
                f"{largest:g} / {top} = {with_unit(scale, '')}",
            ),
            slips={
                f"You divided by 2^{bits - 1}; the last code is one below.": largest / (top + 1),
                "You divided the whole range by the steps: that is the asymmetric scale.": (max(values) - min(values))
                / (2**bits - 1),
            },
        )
    values = _weights(rng, one_sided=rng.random() < 0.5)
    low, high = min(0.0, *values), max(0.0, *values)
    if high - low < 0.1:
        return None
    scale = float(_quantized(values, bits, symmetric=False).scales)
    return Drill(
        f"A group has the weights {_listed(values)}. It is quantized to {bits} bits, asymmetric, with codes from 0 to "
        f"{2**bits - 1}. What is the scale?",
        scale,
        (
            f"The range has to include zero: from {low:g} to {high:g}",
            f"Between {2**bits} codes there are 2^{bits} - 1 = {2**bits - 1} steps",
            f"({high:g} - {low:g}) / {2**bits - 1} = {with_unit(scale, '')}"
            if low >= 0
            else f"({high:g} + {-low:g}) / {2**bits - 1} = {with_unit(scale, '')}",
        ),
        slips={"There is one step less than there are codes.": (high - low) / 2**bits},
    )


def _zero_point(rng: random.Random, level: int) -> Drill | None:
    bits = 4 if level == 1 else 8
    values = _weights(rng)
    low, high = min(values), max(values)
    if low >= 0 or high <= 0:
        return None
    weight = _quantized(values, bits, symmetric=False)
    zero, scale = int(weight.zero_points()), float(weight.scales)
    # With 8 bits the scale that somebody wrote down with four digits has to lead to the same code.
    if not _clear(values, weight) or round(-low / float(f"{scale:.3g}")) != zero or zero == 0:
        return None
    return Drill(
        f"A group has the weights {_listed(values)}. It is quantized to {bits} bits, asymmetric, with codes from 0 to "
        f"{2**bits - 1}. Which code is the zero-point?",
        zero,
        (
            f"Scale: ({high:g} + {-low:g}) / {2**bits - 1} = {short(scale)}",
            "The zero-point is the code of the value 0: so many steps above the smallest weight",
            f"{-low:g} / {short(scale)} = {short(-low / scale)}",
            f"To the nearest whole number: {zero}",
        ),
        tolerance=0,
        slips={"You cut off instead of rounding.": int(-low / scale)} if int(-low / scale) not in (0, zero) else {},
    )


def _code(rng: random.Random, level: int) -> Drill | None:
    symmetric, bits = level < 3, 8 if level == 2 else 4
    values = _weights(rng)
    weight = _quantized(values, bits, symmetric)
    at, scale, zero = rng.randrange(4), float(weight.scales), int(weight.zero_points())
    code = int(weight.codes()[0, at])
    near = float(f"{scale:.4g}")
    if not _clear(values, weight) or code == 0 or min(values) >= 0 or round(values[at] / near) + zero != code:
        return None
    largest = max(map(abs, values))
    how = (
        f"symmetric, with a scale of max|w| / {2 ** (bits - 1) - 1}. Codes are stored as 0 to {2**bits - 1}, and "
        f"{zero} stands for the value 0"
        if symmetric
        else f"asymmetric, with codes from 0 to {2**bits - 1}"
    )
    to_scale = (
        (f"Scale: {largest:g} / {2 ** (bits - 1) - 1} = {short(scale)}",)
        if symmetric
        else (
            f"Scale: ({max(0.0, *values):g} + {-min(values):g}) / {2**bits - 1} = {short(scale)}",
            f"Zero-point: {-min(values):g} / {short(scale)} = {short(-min(values) / scale)}, rounded {zero}",
        )
    )
    steps = round(values[at] / scale)
    return Drill(
        f"A group has the weights {_listed(values)}. It is quantized to {bits} bits, {how}. Which code does "
        f"{values[at]:g} get?",
        code,
        (
            *to_scale,
            f"{values[at]:g} / {short(scale)} = {short(values[at] / scale)}, to the nearest whole number {steps}",
            f"{zero} {'-' if steps < 0 else '+'} {abs(steps)} = {code}",
        ),
        tolerance=0,
        slips={"That is the code without the zero-point.": steps} if steps > 0 else {},
    )


def _value(rng: random.Random, level: int) -> Drill | None:
    """What comes back for a code."""
    bits = 4 if level == 1 else 8
    values = _weights(rng)
    weight = _quantized(values, bits, symmetric=level == 1)
    at, scale, zero = rng.randrange(4), float(weight.scales), int(weight.zero_points())
    code, value = int(weight.codes()[0, at]), float(weight.dequantize()[0, at])
    if value <= 0 or abs(value - values[at]) < 1e-4:
        return None
    kind = f"{zero} stands for the value 0" if level == 1 else f"the zero-point is {zero}"
    return Drill(
        f"A weight is stored in {bits} bits as the code {code}. The scale of its group is {short(scale, 5)}, and "
        f"{kind}. What value comes back?",
        value,
        (
            "Dequantizing undoes both steps: first the zero-point comes off, then the scale is put on",
            f"{code} - {zero} = {code - zero} steps",
            f"{code - zero} x {short(scale, 5)} = {with_unit(value, '')}",
        ),
        tolerance=0.01,
        slips={"You forgot the zero-point: it comes off before the scale.": code * scale},
    )


def _half_step(rng: random.Random, level: int) -> Drill | None:
    bits = rng.choice((3, 4, 8))
    values = _weights(rng)
    low, high, largest = min(0.0, *values), max(0.0, *values), max(map(abs, values))
    symmetric = level == 1
    if largest < 0.2 or (not symmetric and low == 0):
        return None
    scale = float(_quantized(values, bits, symmetric).scales)
    steps = 2 ** (bits - 1) - 1 if symmetric else 2**bits - 1
    first = f"{largest:g} / {steps}" if symmetric else f"({high:g} + {-low:g}) / {steps}"
    return Drill(
        f"A group has the weights {_listed(values)}. It is quantized to {bits} bits, "
        f"{'symmetric' if symmetric else 'asymmetric'}, to the nearest code. How far may a weight between the smallest "
        "and the largest be moved at most, whatever it is?",
        scale / 2,
        (
            f"Scale: {first} = {short(scale)}",
            "The scale is the distance of two codes; nothing lies further from the nearer one than half of it",
            f"{short(scale)} / 2 = {with_unit(scale / 2, '')}",
        ),
        slips={"That is a whole step. Rounding to the nearest code moves by half of one at most.": scale},
    )


def _table() -> list[float]:
    from qlab.formats import codebook

    return [float(value) for value in codebook.CODES["nf4"]]


def _nf4(rng: random.Random, level: int) -> Drill | None:
    """The code of a weight, or at level 3 what comes back."""
    import torch

    from qlab.formats import codebook

    table = _table()
    absmax = 1.0 if level == 1 else round(rng.uniform(0.3, 2.5), 2)
    w = round(rng.uniform(-0.97, 0.97) * absmax, 3)
    weight = codebook.quantize(torch.tensor([[w, absmax]]), "nf4", 64)
    code, ratio = int(weight.codes()[0, 0]), w / absmax
    gaps = [abs(ratio - (low + high) / 2) / (high - low) for low, high in pairwise(table)]
    if min(gaps) < _TIE or code in (0, 7):  # 7 is zero
        return None
    shown = ", ".join(f"{n}: {value:.4f}" for n, value in enumerate(table))
    levels = f"The levels of NF4 are {shown}."
    neighbors = sorted(range(16), key=lambda n: abs(table[n] - ratio))[:2]
    nearest = (
        f"In units of the absmax: {w:g} / {absmax:g} = {short(ratio)}",
        f"It lies between {min(table[n] for n in neighbors):.4f} and {max(table[n] for n in neighbors):.4f}; their "
        f"middle is {sum(table[n] for n in neighbors) / 2:.4f}",
    )
    if level < 3:
        return Drill(
            f"{levels} A block has the absmax {absmax:g}. Which code does the weight {w:g} get?",
            code,
            (*nearest, f"So {table[code]:.4f} is the nearer one, and the code is {code}"),
            tolerance=0,
        )
    value = float(weight.dequantize()[0, 0])
    if value <= 0:
        return None
    return Drill(
        f"{levels} A block has the absmax {absmax:g}. The weight {w:g} is stored. What value comes back?",
        value,
        (
            *nearest,
            f"The nearer level is {table[code]:.4f}",
            f"{absmax:g} x {table[code]:.4f} = {with_unit(value, '')}",
        ),
        tolerance=0.005,
        slips={"That is the level. It is multiplied by the absmax of the block.": table[code]},
    )


def _float8(rng: random.Random, level: int) -> Drill | None:
    import torch

    from qlab.formats import float8

    data_type = "e4m3" if level == 1 else rng.choice(("e4m3", "e5m2"))
    digits, bias = (3, 7) if data_type == "e4m3" else (2, 15)
    code = rng.randrange(1, 127 if level < 3 else 1 << digits)
    value = float(float8.decode(torch.tensor([code], dtype=torch.uint8), data_type)[0])
    exponent, fraction = code >> digits, code & ((1 << digits) - 1)
    if not 0 < value < 1e5 or (exponent == 0) != (level == 3):
        return None
    text = f"0 {exponent:0{7 - digits}b} {fraction:0{digits}b}"
    power = max(exponent, 1) - bias
    leading = "0" if exponent == 0 else "1"
    without = fraction / (1 << digits) * 2.0**power
    slips = {"You forgot the leading 1 of a normal number.": without} if fraction else {}
    if exponent == 0:
        slips = {"A subnormal number has no leading 1.": 2.0**power + without}
    return Drill(
        f"An 8-bit float {data_type.upper()} has one bit for the sign, {7 - digits} for the exponent with a bias of "
        f"{bias}, and {digits} for the fraction. Which value has {text}?",
        value,
        (
            f"The exponent field is {exponent}"
            + (
                f": a normal number, 2^({exponent} - {bias})"
                if exponent
                else f": subnormal, with the power 2^(1 - {bias})"
            ),
            f"The fraction is {fraction}/{1 << digits}, behind a leading {leading}: {leading} + "
            f"{fraction}/{1 << digits} = {short(int(leading) + fraction / (1 << digits))}",
            f"{short(int(leading) + fraction / (1 << digits))} x 2^{power} = {with_unit(value, '')}",
        ),
        slips=slips,
    )


def _pack(rng: random.Random, level: int) -> Drill | None:
    import torch

    from qlab.formats import packing

    bits = 4 if level < 3 else rng.choice((2, 3))
    codes = [rng.randrange(2**bits) for _ in range(2 if bits == 4 else 3)]
    codes += [0] * (bits == 2)
    row = torch.tensor([codes], dtype=torch.uint8)
    byte = int(packing.pack(row, bits)[0, 0])
    if len(set(codes)) == 1 or byte == 0:
        return None
    if level == 2:
        first = int(packing.unpack(torch.tensor([[byte]], dtype=torch.uint8), 4, 2)[0, 0])
        if first == 0 or first == codes[1]:
            return None
        return Drill(
            f"A byte is {byte}. It holds two 4-bit codes, the first in the low half. Which is the first code?",
            first,
            (
                f"In binary: {byte:08b}, the high half {byte >> 4:04b} and the low half {byte & 15:04b}",
                f"The high half is the second code, {byte >> 4}",
                f"{byte} - 16 x {byte >> 4} = {first}",
            ),
            tolerance=0,
            slips={"That is the second code, in the high half.": byte >> 4} if byte >> 4 else {},
        )
    if bits == 4:
        return Drill(
            f"The 4-bit codes {codes[0]} and {codes[1]} go into one byte, the first in the low half. Which byte is it, "
            "as a number from 0 to 255?",
            byte,
            (
                f"In binary: {codes[0]} is {codes[0]:04b}, {codes[1]} is {codes[1]:04b}",
                "The second code lies four bits higher, which is a factor of 16",
                f"{codes[0]} + 16 x {codes[1]} = {byte}",
            ),
            tolerance=0,
            slips={"You put the first code into the high half, as bitsandbytes does.": 16 * codes[0] + codes[1]},
        )
    if bits == 2:
        return Drill(
            f"The 2-bit codes {codes[0]}, {codes[1]}, {codes[2]} and {codes[3]} go into one byte, the first in the "
            "lowest bits. Which byte is it, as a number from 0 to 255?",
            byte,
            (
                "Each code lies two bits above the one before: factors of 1, 4, 16 and 64",
                f"Bits, from the highest: {' '.join(f'{code:02b}' for code in reversed(codes))}",
                f"{codes[0]} + 4 x {codes[1]} + 16 x {codes[2]} + 64 x {codes[3]} = {byte}",
            ),
            tolerance=0,
        )
    whole = codes[0] + 8 * codes[1] + 64 * codes[2]
    return Drill(
        f"Codes of 3 bits lie one after another, the lowest bit first. A row begins with {codes[0]}, {codes[1]} and "
        f"{codes[2]}. Which is its first byte, as a number from 0 to 255?",
        byte,
        (
            "Each code lies three bits above the one before: factors of 1, 8 and 64",
            f"{codes[0]} + 8 x {codes[1]} + 64 x {codes[2]} = {whole}, in bits {whole:09b}",
            f"A byte takes the lowest eight; the ninth bit is {whole >> 8} and goes into the next byte",
            f"{whole} - 256 x {whole >> 8} = {byte}",
        ),
        tolerance=0,
    )


KINDS = (
    Kind("formats.scale", "a scale by hand", _LINEAR, _scale, needs="torch"),
    Kind("formats.zero_point", "a zero-point by hand", _LINEAR, _zero_point, levels=(1, 2), needs="torch"),
    Kind("formats.code", "the code of a weight by hand", _LINEAR, _code, needs="torch"),
    Kind("formats.value", "what a code comes back as", _LINEAR, _value, levels=(1, 2), needs="torch"),
    Kind("formats.half_step", "how wrong a weight can be", _LINEAR, _half_step, levels=(1, 2), needs="torch"),
    Kind("formats.nf4", "an NF4 code by hand", _NF4, _nf4, needs="torch"),
    Kind("formats.float8", "an 8-bit float from its bits", "08_fp8_and_kv_cache", _float8, needs="torch"),
    Kind("formats.pack", "codes in bytes", _LINEAR, _pack, needs="torch"),
)
