"""Assumptions that a user may change by "name=value": each a field with its unit, its meaning and its bounds.

@dataclass(frozen=True)
class Assumptions:
    overhead_gb: float = assumed(1.5, "GB", "set aside on each GPU", 0, 100)

    def __post_init__(self) -> None:
        check(self)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field, fields, replace
from math import inf
from typing import Any, TypeVar

from .entries import suggestion

Given = TypeVar("Given", bound=Any)


def assumed(value: Any, unit: str, meaning: str, low: float = 0.0, high: float = inf, among: Sequence[Any] = ()) -> Any:
    """A field of that default. Numbers lie from `low` to `high`, and in `among`, if that names any; so do texts."""
    bounds = {"low": low, "high": high, "among": tuple(among)}
    return field(default=value, metadata={"unit": unit, "meaning": meaning, **bounds})


def check(given: Any) -> None:
    """Every assumption against its bounds.

    Raises:
        TypeError: a value of another kind than the default.
        ValueError: a value out of bounds.
    """
    for one in fields(given):
        _check(one.name, getattr(given, one.name), type(one.default), **_bounds(one))


def changed(given: Given, *changes: str) -> Given:
    """The same assumptions but for `changes`, each of the form "name=value".

    Raises:
        TypeError, ValueError: no such form, no such name, or a value that is not allowed.
    """
    known = {one.name: one for one in fields(given)}
    found: dict[str, Any] = {}
    for change in changes:
        name, sign, text = (part.strip() for part in change.partition("="))
        if not sign:
            raise ValueError(f"set: got {change!r}; give NAME=VALUE, such as gpu_memory_utilization=0.95")
        if name not in known:
            raise ValueError(f"set: no assumption {name!r}; {suggestion(name, known)}")
        found[name] = _read(name, text, type(known[name].default))
    return replace(given, **found)


def _bounds(one: Any) -> dict[str, Any]:
    return {name: one.metadata[name] for name in ("low", "high", "among")}


def _check(name: str, value: Any, kind: type, low: float, high: float, among: tuple[Any, ...]) -> None:
    if kind is not str:
        wanted = int if kind is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, wanted):
            raise TypeError(f"{name}: got {value!r}; give a {_what(kind)}")
    if among and value not in among:
        raise ValueError(f"{name}: got {value!r}; choose from {', '.join(map(str, among))}")
    if kind is not str and (not low <= value <= high or value == inf):
        most = "or more" if high == inf else f"to {high:,.16g}"
        raise ValueError(f"{name}: got {value!r}; give {low:,.16g} {most}")


def _read(name: str, text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError:
        raise TypeError(f"{name}: got {text!r}; give a {_what(kind)}") from None


def _what(kind: type) -> str:
    return "whole number" if kind is int else "number"
