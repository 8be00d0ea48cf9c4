"""What the questions of this set share: how near a number has to be, and prices and sizes from the data."""

from __future__ import annotations

from typing import Any

import torch

from ....deploy import instance
from ... import properties as p
from ...question import Finding

HOURS_PER_MONTH = 730
GIB = 2**30
_RTOL = 1e-6  # of seconds, tokens and dollars, which float32 holds; every wrong answer on record is further off


def near(got: Any, what: str, expected: float, unit: str = "") -> Finding | None:
    """`got` is this number up to the rounding of floats."""
    return p.number_near(got, what, expected, _RTOL, unit)


def near_or_none(got: Any, what: str, expected: float | None, why: str) -> Finding | None:
    """`got` is this number, or None where None is expected; `why` says when that is."""
    if expected is None:
        return None if got is None else Finding(f"{what}: {why}, so it is None", expected="None", got=_shown(got))
    if got is None:
        return Finding(f"{what}: None came back; None is for where {why}", expected=f"{expected:,.10g}", got="None")
    return near(got, what, expected)


def rows(got: Any) -> Any:
    """Lists and two-dimensional arrays as tuples; all else as it is."""
    if isinstance(got, torch.Tensor) and got.ndim > 0:
        return tuple(rows(one) for one in got)
    return tuple(rows(one) for one in got) if isinstance(got, tuple) else got


def price(name: str) -> float:
    """USD per hour of an instance of the data. Raises ValueError where there is none."""
    usd = instance(name).price_usd_per_hour
    if usd is None:
        raise ValueError(f"price_usd_per_hour: {name} has none; take another instance for the cases")
    return usd


def _shown(value: Any) -> str:
    number = p.as_number(value)
    return f"{number:,.10g}" if number is not None else "something that is no number"
