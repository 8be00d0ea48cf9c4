"""What the questions on 8-bit floats share: the values of all codes, and what values and codes must keep.

A byte is a sign, an exponent and a fraction. Two codes may mean the same value, 0 and -0, and several mean NaN; so an
answer is compared by what its codes mean.
"""

from __future__ import annotations

from typing import Any

import torch

from qlab.formats import float8

from ... import properties as p
from ...question import Finding

# Bits of the fraction, bias of the exponent, first code that is no finite number.
LAYOUTS = {"e4m3": (3, 7, 0x7F), "e5m2": (2, 15, 0x7C)}


def values_of(codes: torch.Tensor, data_type: str) -> torch.Tensor:
    """What uint8 codes mean, in float64."""
    return float8.decode(codes, data_type, torch.float64)


def finite(data_type: str) -> torch.Tensor:
    """All finite values from 0 on, ascending, float64; a value's place is its code."""
    return values_of(torch.arange(LAYOUTS[data_type][2], dtype=torch.uint8), data_type)


def fields(codes: Any, data_type: str) -> Any:
    """Sign, exponent and fraction of codes, in int32."""
    codes, fraction_bits = codes.to(torch.int32), LAYOUTS[data_type][0]
    return codes >> 7, (codes & 0x7F) >> fraction_bits, codes & (2**fraction_bits - 1)


def show(code: int, data_type: str) -> str:
    """Such as "0 1000 010"."""
    fraction_bits = LAYOUTS[data_type][0]
    text = f"{code:08b}"
    return f"{text[0]} {text[1:-fraction_bits]} {text[-fraction_bits:]}"


def same_numbers(got: Any, what: str, expected: torch.Tensor, where: torch.Tensor, codes: Any) -> Finding | None:
    """Where `where` says so, `got` is the very number that is expected: NaN is NaN, and 0 is -0.

    `codes` tells, from an index, the bits to which that value belongs.
    """
    got, expected = got.double(), expected.double()
    wrong = where & ~((got == expected) | (got.isnan() & expected.isnan()))
    if not bool(wrong.any()):
        return None
    index = tuple(wrong.nonzero()[0].tolist())
    return Finding(
        f"{what}: {int(wrong.sum())} of {int(where.sum())} are wrong",
        index=index,
        expected=f"{expected[index].item():g}{codes(index)}",
        got=f"{got[index].item():g}",
    )


def codes_near(codes: torch.Tensor, exact: torch.Tensor, data_type: str, noise: float) -> Finding | None:
    """Every code means a value nearest to its exact quotient; `noise` is the share of it that arithmetic may move."""
    grid, magnitude = finite(data_type), exact.abs()
    middles = (grid[1:] + grid[:-1]) / 2
    place = torch.bucketize(magnitude, middles)
    best = (grid[place] - magnitude).abs()
    error = (values_of(codes, data_type) - exact).abs().nan_to_num(nan=float("inf"))
    wrong = error > best + noise * magnitude
    if not bool(wrong.any()):
        return None
    index = tuple(int(i) for i in torch.unravel_index(error.where(wrong, -1.0).argmax(), error.shape))
    near = (torch.where(exact < 0, -grid[place], grid[place]))[index].item()
    return Finding(
        f"codes: {int(wrong.sum())} of {codes.numel()} are not those of the nearest value",
        index=index,
        expected=f"the code of {near:g}, for {exact[index].item():.6g}",
        got=f"{int(codes[index])}, which means {values_of(codes[index], data_type).item():g}",
    )


def as_tensor(got: Any, what: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Finding | None:
    """As `properties.tensor`, with a word on torch's own 8-bit types."""
    finding = p.tensor(got, what, dtype, shape)
    if finding and isinstance(got, torch.Tensor) and got.dtype in (torch.float8_e4m3fn, torch.float8_e5m2):
        finding = Finding(f"{finding.what}. A tensor of torch's own 8-bit floats gives its codes by view(torch.uint8)")
    return finding
