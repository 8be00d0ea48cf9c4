"""What all entries of the data have in common: a name to be found by, a source, a date, and how far to trust them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

_DATE = re.compile(r"(19|20)\d\d(-(0[1-9]|1[0-2])(-(0[1-9]|[12]\d|3[01]))?)?")
UNDATED = "undated"


def plain(name: str) -> str:
    """A name as it is compared: in any case, and with hyphens where somebody wrote spaces or underscores."""
    return name.strip().casefold().replace(" ", "-").replace("_", "-")


def look_up(kind: str, asked: object, known: Mapping[str, Any]) -> Any:
    """The entry of that name, in any case.

    Raises:
        TypeError: `asked` is no string.
        ValueError: there is no such entry; the message has the nearest names.
    """
    example = next(iter(known), "")
    if not isinstance(asked, str):
        raise TypeError(f"{kind}: got {type(asked).__name__}; give a name such as {example!r}")
    if asked in known:
        return known[asked]
    written = {plain(name): name for name in known}
    if plain(asked) not in written:
        raise ValueError(f"{kind}: {asked!r} is not known; {suggestion(asked, known)}")
    return known[written[plain(asked)]]


def nearest(asked: str, known: Iterable[str], cutoff: float = 0.5) -> list[str]:
    """At most three known names that are like `asked`, the most alike first."""
    written = {plain(name): name for name in known}
    return [written[name] for name in get_close_matches(plain(asked), written, n=3, cutoff=cutoff)]


def suggestion(asked: str, known: Iterable[str]) -> str:
    """ "did you mean A or B?", or all the names where none is near."""
    names = list(known)
    close = nearest(asked, names)
    return f"did you mean {' or '.join(close)}?" if close else f"choose from {', '.join(names)}"


def check_fields(where: str, entry: Any, required: Iterable[str], allowed: Iterable[str]) -> None:
    """Raise ValueError unless `entry` is a mapping with all the required fields and none but the allowed ones.

    `where` names the entry in messages: "hardware.json: the entry of T4".
    """
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where} is {entry!r}; it must be a mapping of fields to values")
    for field in sorted(set(required) - entry.keys()):
        raise ValueError(f"{where} misses {field!r}")
    for field in entry.keys() - set(allowed):
        raise ValueError(f"{where} has unknown {field!r}; {suggestion(str(field), allowed)}")


def check_origin(where: str, entry: Mapping[str, Any]) -> None:
    """Raise ValueError unless an entry says where it is from, from when, and how far to trust it.

    A source is a text or a list of texts. A date is 2026, 2026-07 or 2026-07-20, or the word "undated".
    """
    source = entry.get("source")
    texts = [source] if isinstance(source, str) else source
    if not isinstance(texts, list | tuple) or not texts or not all(isinstance(t, str) and t.strip() for t in texts):
        raise ValueError(f"{where} has no source; say where its numbers come from")
    date = entry.get("date")
    if date != UNDATED and not is_date(date):
        raise ValueError(f"{where} has the date {date!r}; give 2026, 2026-07 or 2026-07-20, or {UNDATED!r}")
    if not isinstance(entry.get("confidence"), str) or not entry["confidence"].strip():
        raise ValueError(f"{where} does not say how far to trust it; give a confidence such as 'high'")


def is_date(value: object) -> bool:
    """Whether this is a year, a month of a year, or a day, as text."""
    return isinstance(value, str) and _DATE.fullmatch(value) is not None


def is_positive(value: object) -> bool:
    """Whether this is a number above zero, and not a bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")
