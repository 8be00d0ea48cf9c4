"""Published rows as the claims on speed and accuracy ask for them: times as fast, percent lost, the ends of a range."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..results import result, results
from .ledger import change, value


def faster(row: str) -> float:
    """How many times as fast as its baseline a published speed is, in tokens per second or in time per token.

    Raises:
        ValueError: the row has no baseline.
    """
    ratio = 1 + change(row) / 100
    return 1 / ratio if result(row).better == "lower" else ratio


def lost(row: str) -> float:
    """Percent of a score that a published row lost, or percent by which its perplexity rose; negative for a gain.

    Raises:
        ValueError: the row has no baseline, and is no loss itself.
    """
    if result(row).unit == "percent":
        return value(row)
    return change(row) if result(row).better == "lower" else -change(row)


def several(row: str) -> tuple[float, ...]:
    """The numbers of a published row that has more than one. Raises ValueError for a row that has not."""
    found = result(row).value
    if not isinstance(found, tuple):
        raise ValueError(f"result: {row} has the value {found!r}; take it with value()")
    return found


def rows(**wanted: Any) -> tuple[str, ...]:
    """The ids of the published rows with these fields that have a baseline to compare with; as `results.results`."""
    return tuple(row.id for row in results(**wanted) if row.ratio is not None)


def ends(ids: Iterable[str], by: Callable[[str], float] = faster) -> tuple[str, str]:
    """The ids of the lowest and of the highest row of several."""
    ordered = sorted(ids, key=by)
    return ordered[0], ordered[-1]
