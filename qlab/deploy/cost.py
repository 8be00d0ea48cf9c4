"""Money: what tokens, months and machines cost.

    USD per million tokens = USD per hour / (tokens per second · 3600) · 10^6        months have 730 hours

A price per token without a load and a latency means nothing: any server is cheap if users may wait for ever. Take the
tokens per second from the highest load that meets a target (`load.highest_rate`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from .instances import HOURS_PER_MONTH


def pareto(points: Sequence[tuple[float, float]]) -> list[int]:
    """Which of some points nobody beats in both numbers, the less the better: their indices, by the first number.

    Of points that are equal only the first counts.
    """
    order = sorted(range(len(points)), key=lambda index: (*points[index], index))
    found: list[int] = []
    for index in order:
        if not found or points[index][1] < points[found[-1]][1]:
            found.append(index)
    return found


def usd_per_million(usd_per_hour: float, tokens_per_s: float) -> float:
    """USD for 10^6 tokens. Raises ValueError for a price below zero, or a speed that is not positive."""
    _check_price(usd_per_hour)
    if not 0 < tokens_per_s < math.inf:
        raise ValueError(f"tokens_per_s: got {tokens_per_s!r}; it must be above 0")
    return usd_per_hour / (3600 * tokens_per_s) * 1e6


def usd_per_month(usd_per_hour: float, machines: int = 1) -> float:
    """USD for 730 hours of some machines. Raises ValueError for a price or a number below zero."""
    _check_price(usd_per_hour)
    if machines < 0:
        raise ValueError(f"machines: got {machines!r}; it must be 0 or more")
    return usd_per_hour * HOURS_PER_MONTH * machines


def machines(load: float, capacity: float) -> int:
    """How many machines serve a load, none of them spare, each with at most `capacity` of it.

    Arrivals are dealt out at random, so each sees a Poisson process of its share.

    Raises:
        ValueError: a load or a capacity that is not positive.
    """
    for name, value in (("load", load), ("capacity", capacity)):
        if not 0 < value < math.inf:
            raise ValueError(f"{name}: got {value!r}; it must be above 0 requests per second")
    return math.ceil(load / capacity * (1 - 1e-12))  # a rounding error is no machine


def _check_price(usd_per_hour: float) -> None:
    if not 0 <= usd_per_hour < math.inf:
        raise ValueError(f"usd_per_hour: got {usd_per_hour!r}; it must be 0 or more")
