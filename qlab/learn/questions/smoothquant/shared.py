"""What the questions of this set share: the formula, a rounding away from ties, and values that may be a little off."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Finding

LARGEST = 127  # the largest int8 code that a symmetric grid uses
TIE = 2e-4  # of a step: more than float32 moves a place on the grid of 8 bits, over several operations


def normal(random: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=random)


def sizes(random: torch.Generator, count: int, spread: float = 1.0) -> torch.Tensor:
    """Positive numbers (count,), a factor of exp(spread) apart."""
    return torch.exp(spread * torch.randn(count, generator=random))


def near(got: Any, what: str, exact: torch.Tensor, relative: float = 1e-4) -> Finding | None:
    """`got` is float32 and shaped like `exact`, and every element is right to this share of it."""
    if finding := p.tensor(got, what, torch.float32, tuple(exact.shape)):
        return finding
    exact = exact.double()
    finding = p.values_near(got, what, exact, relative * exact.abs(), torch.ones(1))
    return Finding(finding.what, finding.index, finding.expected, finding.got) if finding else None


def smoothing(input_max: Any, weight_max: Any, alpha: float) -> Any:
    """s = max|X|^alpha / max|W|^(1 - alpha), and 1 for a channel without inputs or without weights."""
    used = (input_max > 0) & (weight_max > 0)
    return torch.where(used, input_max**alpha / weight_max ** (1 - alpha), 1.0)


def is_near_a_tie(places: torch.Tensor) -> bool:
    """Whether one of these places on a grid is so close to the middle of two codes that float32 decides between them.

    An answer's error depends on that choice, and no bound could tell a right answer from a wrong one.
    """
    return bool(((places.double() % 1 - 0.5).abs() < TIE).any())


def rounded(a):
    """Round each row of a to int8 codes and back, with a scale of its own.

    a: float32 (rows, columns): inputs, whose rows are tokens, or weights, whose rows are
        outputs. It stays as it is.
    """
    steps = a.abs().amax(dim=1, keepdim=True) / 127
    steps = torch.where(steps > 0, steps, 1.0)
    return torch.round(a / steps).clamp(-127, 127) * steps
