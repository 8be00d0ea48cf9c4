"""What the questions on the KV cache share: groups between a minimum and a maximum, and what they must keep.

Keys and values are far from centred, so a group has a minimum and a scale: x is about minimum + code * scale. What
float32 loses in `x - minimum` grows with x and not with the step, and the bounds here allow for it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from ... import properties as p
from ...question import Finding

_ROUNDING = 4 * torch.finfo(torch.float32).eps  # of the largest number of a group: some operations in float32


def step_of(low: torch.Tensor, high: torch.Tensor, bits: int) -> torch.Tensor:
    """The exact scales, float64; 0 where all numbers of a group are equal."""
    return (high.double() - low.double()) / (2**bits - 1)


def noise_of(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """How far arithmetic in float32 may be off, in the unit of the numbers."""
    return _ROUNDING * torch.maximum(low.abs(), high.abs()).double()


def numbers_fit(
    got: Any,
    what: str,
    dtype: torch.dtype,
    exact: torch.Tensor,
    allowed: torch.Tensor,
    free: torch.Tensor | None = None,
    positive: bool = False,
) -> Finding | None:
    """A number for each group, off by at most what is allowed; where `free`, any finite (or `positive`) one."""
    if finding := p.tensor(got, what, dtype, tuple(exact.shape)):
        return finding
    error = (got.double() - exact).abs().nan_to_num(nan=float("inf"), posinf=float("inf"))
    wrong = error > allowed
    if free is not None:
        wrong = torch.where(free, ~got.isfinite() | (got <= 0 if positive else torch.zeros_like(wrong)), wrong)
    if not bool(wrong.any()):
        return None
    index = tuple(wrong.nonzero()[0].tolist())
    any_number = free is not None and bool(free[index])
    return Finding(
        f"{what}: {int(wrong.sum())} of {wrong.numel()} are off",
        index=index,
        expected=f"a {'positive' if positive else 'finite'} number" if any_number else f"{exact[index].item():.6g}",
        got=f"{got[index].item():.6g}",
    )


def codes_fit(codes: torch.Tensor, places: torch.Tensor, noise: torch.Tensor, bits: int) -> Finding | None:
    """Every code is a nearest one to its place on the grid (in steps); `noise` is in steps, too."""
    levels = 2**bits - 1
    return p.codes_between(codes, "codes", 0, levels) or p.codes_near(codes, "codes", places, 0, levels, noise)


def come_back(got: Any, what: str, expected: torch.Tensor, step: torch.Tensor, noise: torch.Tensor) -> Finding | None:
    """Every number is off by at most `noise`; the error is told in steps where there is one."""
    finding = p.values_near(got, what, expected, noise, torch.where(step > 0, step, 1.0))
    return replace(finding, bound=None) if finding else None
