"""What was measured, as a JSON file: one row for each measurement, and all that it takes to repeat it.

A file is written anew, beside the old one, and renamed after each row, so that a run that is killed leaves a whole one.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from .ceilings import Ceilings

SCHEMA = 1


@dataclass(frozen=True)
class Row:
    """One kernel, one shape, one number of tokens."""

    kernel: str
    path: str  # how the kernel computed it
    shape: str  # the name of the shape
    outputs: int  # N
    inputs: int  # K
    tokens: int  # M
    dtype: str  # of the activations
    seconds: float  # median
    quartiles: tuple[float, float]
    repetitions: int
    bytes: int  # weight with scales and zero-points, activations and result, each once
    flops: int  # 2 M N K
    gb_per_s: float  # bytes / seconds / 10^9
    copy_fraction: float  # of the measured copy bandwidth
    ceiling: str  # the nearer one: "copy" or "matrix"
    ceiling_fraction: float
    ratio: float  # times as fast as the plain product in 16 bits, median over alternating pairs
    relative_error: float  # of up to 32 tokens against float64

    @property
    def key(self) -> tuple[str, int, int, int, str]:
        """What makes it the same measurement as another."""
        return self.kernel, self.outputs, self.inputs, self.tokens, self.dtype


@dataclass(frozen=True)
class Skipped:
    """What was not measured, and why; a field is None where all are meant."""

    kernel: str
    reason: str
    outputs: int | None = None
    inputs: int | None = None
    tokens: int | None = None
    dtype: str | None = None

    @property
    def key(self) -> tuple[Any, ...]:
        return self.kernel, self.outputs, self.inputs, self.tokens, self.dtype


@dataclass
class Results:
    """A whole run."""

    command: str
    date: str  # when it began, UTC
    hardware: dict[str, Any]
    versions: dict[str, Any]
    settings: dict[str, Any]
    ceilings: Ceilings | None = None
    rows: list[Row] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    decode: list[dict[str, Any]] = field(default_factory=list)  # follows from the rows
    schema: int = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return {"schema": self.schema} | asdict(self)

    def save(self, path: Path) -> None:
        """Write the file, or leave the one that is there as it is."""
        beside = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            beside.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


def load(path: Path) -> Results:
    """The results in a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is none of ours, of another schema, or a field is missing or of the wrong kind.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"file: {path} is no JSON ({error}); give one that qlab bench --out wrote") from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        found = document.get("schema") if isinstance(document, dict) else type(document).__name__
        raise ValueError(f"file: {path} has schema {found!r}; allowed is {SCHEMA}, measure anew")
    try:
        ceilings = None if document["ceilings"] is None else _made(Ceilings, document["ceilings"])
        rows = [_made(Row, row | {"quartiles": tuple(row["quartiles"])}) for row in document["rows"]]
        skipped = [_made(Skipped, entry) for entry in document["skipped"]]
        return _made(Results, document | {"ceilings": ceilings, "rows": rows, "skipped": skipped})
    except (KeyError, TypeError) as error:
        raise ValueError(f"file: {path} is damaged ({error}); measure anew") from error


def differences(old: Results, new: Results, parts: tuple[str, ...] = ("hardware", "versions", "settings")) -> list[str]:
    """What the two do not share: "versions.torch: 2.11 in one, 2.13 in the other"."""
    found = []
    for part in parts:
        left, right = getattr(old, part), getattr(new, part)
        for name in sorted(left.keys() | right.keys()):
            # A list is what JSON makes of a tuple.
            a, b = (json.loads(json.dumps(side.get(name))) for side in (left, right))
            if a != b:
                found.append(f"{part}.{name}: {_word(a)} there, {_word(b)} here")
    return found


def continued(path: Path | None, new: Results) -> Results:
    """The results to go on with: those in the file, if there is one and it is of the same kind.

    Raises:
        ValueError: the file is of another run; the message says what differs.
    """
    if path is None or not path.exists():
        return new
    old = load(path)
    if differ := differences(old, new):
        raise ValueError(
            f"out: {path} was measured otherwise ({'; '.join(differ)}); give another file, or delete it to begin anew"
        )
    return old


def _made(kind: Any, values: dict[str, Any]) -> Any:
    """A dataclass of exactly those fields, of their kinds, as far as JSON tells kinds apart."""
    known = {one.name: str(one.type) for one in fields(kind)}
    if wrong := sorted(set(values) ^ set(known)):
        raise TypeError(f"{kind.__name__}: fields {', '.join(wrong)} are missing or unknown")
    for name, kind_name in known.items():
        allowed = _KINDS.get(kind_name)
        if allowed and (not isinstance(values[name], allowed) or isinstance(values[name], bool)):
            raise TypeError(f"{kind.__name__}.{name}: got {values[name]!r}; allowed is {kind_name}")
    return kind(**values)


_KINDS: dict[str, Any] = {"str": str, "int": int, "float": (int, float), "list[dict[str, Any]]": list}


def _word(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)
