"""The functions by name, each with the unit of what it gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from qlab.deploy import user
from qlab.deploy.entries import look_up

from ...units import unit

Compute = Callable[..., float]


@dataclass(frozen=True)
class Computation:
    """A function of the registry and the unit of what it gives."""

    function: Compute
    unit: str


COMPUTATIONS: dict[str, Computation] = {}


def computes(unit_name: str) -> Callable[[Compute], Compute]:
    """Register a function under its own name; its values are in that unit."""

    def register(function: Compute) -> Compute:
        COMPUTATIONS[function.__name__] = Computation(function, unit_name)
        return function

    return register


def value(compute: str, of: Mapping[str, Any], unit_name: str) -> float:
    """What a function of the registry gives for the arguments `of`, in a unit.

    Raises:
        ValueError: no such function, arguments that it refuses, or a unit of another dimension.
    """
    found = look_up("compute", compute, COMPUTATIONS)
    ours, theirs = unit(found.unit), unit(unit_name)
    if ours.dimension != theirs.dimension:
        raise ValueError(f"unit: got {unit_name!r}; {compute} gives {found.unit or 'a bare number'}")
    try:
        number = _computed(user.stamp(), compute, tuple(sorted(of.items())))
    except TypeError as error:
        raise ValueError(f"of: {compute}: {error}") from None
    return number * ours.factor / theirs.factor


@lru_cache(maxsize=1024)
def _computed(data: user.Stamp, compute: str, of: tuple[tuple[str, Any], ...]) -> float:
    return COMPUTATIONS[compute].function(**dict(of))
