"""A file of your own: GPUs, instances and models that the package does not know, or knows with other numbers.

Set the environment variable QLAB_DATA to the path of a YAML file such as

    instances:
      p4d.24xlarge:               # known: what you leave out stays as it is
        price_usd_per_hour: 14.90
        price_date: 2026-11-02
        source: our contract
        date: 2026-11-02
    gpus:
      My-GPU: {...}               # new: all fields, as in qlab/deploy/data/hardware.json
    models:
      My-7B: {...}                # new: all fields, as in qlab/deploy/data/models.json

Every entry must name its own source and date, and a price its own price_date: those of the package speak of other
numbers. The entries pass the same checks as the package's. The file is read again when it has changed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from .entries import is_date, plain, suggestion

VARIABLE = "QLAB_DATA"
SECTIONS = ("gpus", "instances", "models")


Stamp = tuple[str, int] | None


def stamp() -> Stamp:
    """What the user's file is now, for what is remembered of it: its name and when it was changed; None without one."""
    if not given():
        return None
    path = os.environ[VARIABLE]
    file = Path(path).expanduser()
    return path, file.stat().st_mtime_ns if file.exists() else 0


def given() -> bool:
    """Whether there is a user's file."""
    return bool(os.environ.get(VARIABLE))


def complete(section: str, shipped: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, dict[str, Any]], str]:
    """The user's entries of a section, completed from shipped ones of the same name; and the file, for messages.

    Args:
        section: one of SECTIONS.
        shipped: the package's entries, as its data file has them.

    Raises:
        ValueError: the file is missing or no such YAML, or an entry has no source or date of its own.
    """
    if not given():
        return {}, ""
    path = os.environ[VARIABLE]
    found = read(path).get(section) or {}
    if not isinstance(found, Mapping):
        raise ValueError(f"{path}: {section} is {found!r}; it must be a mapping of names to entries")
    written = {plain(name): name for name in shipped}
    entries = {}
    for name, entry in found.items():
        where = f"{path}: {section}: {name}"
        if not isinstance(name, str) or not isinstance(entry, Mapping):
            raise ValueError(f"{where} is {entry!r}; give a name, and below it a mapping of fields to values")
        own = {field: _text(field, value) for field, value in entry.items()}
        _check_origin(where, own)
        known = written.get(plain(name), name)
        entries[known] = {"confidence": "as its owner states", **shipped.get(known, {}), **own}
    return entries, f"{path}: {section}"


def read(path: str) -> Mapping[str, Any]:
    """The sections of such a file. Raises ValueError for one that is missing, no YAML, or has other sections."""
    file = Path(path).expanduser()
    try:
        modified = file.stat().st_mtime_ns
        return _read(file, modified)
    except OSError as error:
        raise ValueError(f"{VARIABLE}: {path} cannot be read ({error.strerror}); set it to a YAML file") from error


@cache
def _read(file: Path, modified: int) -> Mapping[str, Any]:
    import yaml  # only a user's file needs it

    try:
        document = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file}: not a YAML file ({' '.join(str(error).split())})") from error
    if not isinstance(document, Mapping):
        raise ValueError(f"{file}: holds a {type(document).__name__}; give a mapping with {', '.join(SECTIONS)}")
    for section in document:
        if section not in SECTIONS:
            raise ValueError(f"{file}: unknown section {section!r}; {suggestion(str(section), SECTIONS)}")
    return document


def _check_origin(where: str, own: Mapping[str, Any]) -> None:
    if not own.get("source"):
        raise ValueError(f"{where} has no source; say where its numbers come from")
    if not is_date(own.get("date")):
        raise ValueError(f"{where} has the date {own.get('date')!r}; say when its numbers held, such as 2026-11-02")
    if own.get("price_usd_per_hour") is not None and not own.get("price_date"):
        raise ValueError(f"{where} has a price without a date; give price_date, such as 2026-11-02")


def _text(field: object, value: Any) -> Any:
    """YAML reads 2026-11-02 as a date, and 2026 as a number; here dates are text."""
    if field in ("date", "price_date"):
        return value.isoformat() if isinstance(value, date) else str(value) if type(value) is int else value
    return value
