"""What the questions on symmetric grids share: the scales that the data ask for, and what codes and scales must keep.

A symmetric grid of b bits has the codes -qmax to qmax, qmax = 2**(b-1) - 1, and the scale max|x| / qmax.
"""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Finding

_SCALE_RTOL = 1e-4


def largest_code(bits: int) -> int:
    return 2 ** (bits - 1) - 1


def write(x: Any, scales: Any, bits: int) -> Any:
    """The last line of a right answer, which most of the mutants have right: int8 codes for these scales."""
    qmax = largest_code(bits)
    return torch.round(x / scales).clamp(-qmax, qmax).to(torch.int8)


def scales_fit(got: Any, exact: torch.Tensor) -> Finding | None:
    """`got` holds these scales in float32; where the exact one is 0, any positive number is right."""
    if finding := p.tensor(got, "scales", torch.float32, tuple(exact.shape)):
        return finding
    wrong = ~(torch.isfinite(got) & (got > 0))
    if bool(wrong.any()):
        index = tuple(wrong.nonzero()[0].tolist())
        return Finding(
            f"scales: {int(wrong.sum())} of {got.numel()} are not positive numbers",
            index=index,
            expected="any positive number, for weights that are all zero" if exact[index] == 0 else f"{exact[index]:g}",
            got=f"{got[index].item():g}",
        )
    off = (got.double() / torch.where(exact > 0, exact, got.double()) - 1).abs()
    if bool((off <= _SCALE_RTOL).all()):
        return None
    index = tuple(int(i) for i in torch.unravel_index(off.argmax(), off.shape))
    return Finding(
        f"scales: {int((off > _SCALE_RTOL).sum())} of {got.numel()} are off",
        index=index,
        expected=f"{exact[index]:.6g}",
        got=f"{got[index]:.6g}",
        error=100 * off[index].item(),
        bound=100 * _SCALE_RTOL,
        unit="%",
    )


def codes_fit(codes: Any, x: torch.Tensor, steps: torch.Tensor, bits: int) -> Finding | None:
    """The codes are nearest ones of a grid of these steps; a step of 0 belongs to zeros, whose code is 0."""
    qmax = largest_code(bits)
    exact = x.double() / torch.where(steps > 0, steps, 1.0)
    return p.codes_between(codes, "codes", -qmax, qmax) or p.codes_near(codes, "codes", exact, -qmax, qmax)


def half_a_step(codes: Any, scales: Any, x: torch.Tensor, steps: torch.Tensor) -> Finding | None:
    """Code times scale is the value again, to half a step; `scales` has one number for each value, or one for all."""
    steps = torch.where(steps > 0, steps, 1.0)
    return p.values_near(codes.double() * scales, "code * scale", x, (0.5 + p.SLACK) * steps, steps)
