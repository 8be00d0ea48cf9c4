"""Published measurements as data: speed, accuracy, memory and cost of quantized models, each row with its source.

And the conflicts among them: topics on which sources disagree, with the rows of each side and what may explain it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from .entries import check_fields, check_origin, look_up, suggestion

DATA = Path(__file__).parent / "data" / "results.json"
KINDS = ("accuracy", "speed", "memory", "cost")
DIRECTIONS = ("higher", "lower")


@dataclass(frozen=True)
class Result:
    """One published number, or one statement where the source gives no single number.

    `value` is in the unit of `metric` (or in `unit`, where that is given); several numbers are in the order in which
    `statement` names them; None beside a metric is what the note says, most often out of memory. `baseline` is the
    value of `baseline_name` in the same place. `better` says which direction is good. Texts are as the source has them.
    """

    id: str
    kind: str
    value: float | tuple[float, ...] | None
    source: str
    date: str
    confidence: str
    model: str | None = None
    method: str | None = None
    bits: str | None = None
    hardware: str | None = None
    setting: str | None = None
    statement: str | None = None
    metric: str | None = None
    unit: str | None = None
    better: str | None = None
    baseline_name: str | None = None
    baseline: float | None = None
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """value / baseline, or None where one of them is missing."""
        if not isinstance(self.value, int | float) or not self.baseline:
            return None
        return self.value / self.baseline


@dataclass(frozen=True)
class Side:
    """What some sources say on a topic, and the ids of the rows that say it (none: they are no rows of ours)."""

    says: str
    results: tuple[str, ...]


@dataclass(frozen=True)
class Conflict:
    """A topic on which sources disagree, or seem to, and what may explain it."""

    topic: str
    sides: tuple[Side, ...]
    why: str


def results(**wanted: Any) -> tuple[Result, ...]:
    """The rows whose fields equal what is asked: results(kind="memory", model="Qwen2.5-72B-Instruct").

    Raises:
        TypeError: a row has no such field.
    """
    for field in wanted:
        if field not in _FIELDS:
            raise TypeError(f"results: no field {field!r}; {suggestion(field, _FIELDS)}")
    return tuple(r for r in _rows().values() if all(getattr(r, field) == value for field, value in wanted.items()))


def result(id: str) -> Result:
    """The row with that id. Raises ValueError if there is none."""
    return look_up("result", id, _rows())


def conflicts() -> tuple[Conflict, ...]:
    """Where sources disagree."""
    return read_conflicts(DATA)


def read_results(path: Path) -> dict[str, Result]:
    """The rows of a data file by id. Raises ValueError for a row that is incomplete, senseless or without a source."""
    document = json.loads(path.read_text(encoding="utf-8"))
    return {id: _result(id, entry, f"{path.name}: the entry of {id}") for id, entry in document["results"].items()}


def read_conflicts(path: Path) -> tuple[Conflict, ...]:
    """The conflicts of a data file. Raises ValueError for one that names a row which is not there."""
    document = json.loads(path.read_text(encoding="utf-8"))
    found = []
    for entry in document["conflicts"]:
        where = f"{path.name}: the conflict {entry.get('topic')!r}"
        check_fields(where, entry, ("topic", "sides", "why"), ("topic", "sides", "why"))
        for side in entry["sides"]:
            check_fields(f"{where}: a side", side, ("says", "results"), ("says", "results"))
            for id in side["results"]:
                look_up(f"{where}: result", id, document["results"])
        sides = tuple(Side(side["says"], tuple(side["results"])) for side in entry["sides"])
        found.append(Conflict(entry["topic"], sides, entry["why"]))
    return tuple(found)


def _result(id: str, entry: Any, where: str) -> Result:
    check_fields(where, entry, _REQUIRED, [field for field in _FIELDS if field != "id"])
    check_origin(where, entry)
    for field in ("source", *_TEXTS):
        if entry.get(field) is not None and not isinstance(entry[field], str):
            raise ValueError(f"{where}: {field} is {entry[field]!r}; it must be a text")
    if entry["kind"] not in KINDS:
        raise ValueError(f"{where}: kind is {entry['kind']!r}; choose from {', '.join(KINDS)}")
    if entry.get("better") not in (None, *DIRECTIONS):
        raise ValueError(f"{where}: better is {entry['better']!r}; choose from {', '.join(DIRECTIONS)}")
    value = entry["value"]
    numbers = value if isinstance(value, list) else [value]
    for number in [*numbers, entry.get("baseline")]:
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | float)):
            raise ValueError(f"{where}: {number!r} is no number; give a number, several in a list, or null")
    if not (entry.get("metric") or entry.get("statement")):
        raise ValueError(f"{where} says nothing; give a metric with its value, or a statement")
    return Result(id=id, **{**entry, "value": tuple(value) if isinstance(value, list) else value})


_FIELDS = tuple(field.name for field in fields(Result))
_REQUIRED = tuple(field.name for field in fields(Result) if field.default is MISSING and field.name != "id")
_TEXTS = tuple(field.name for field in fields(Result) if field.default is not MISSING and field.name != "baseline")


@cache
def _rows() -> Mapping[str, Result]:
    return read_results(DATA)
