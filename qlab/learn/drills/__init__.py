"""Drills: parametric questions that never run out. qlab computes the truth, and shows the way to it.

    kind("memory.weights").ask(seed=3, level=2)    a drill: its text, answer, and worked solution
    judge(drill, "39.5 GB")                        whether a reply is right, and what went wrong if not
    schedule.choose(history, KINDS, now, rng)      what to ask next: the weak kinds come back sooner

A GB is 10^9 bytes, a GiB 2^30. Kinds that load torch say so in `needs`, and load it when they are drawn.
"""

from __future__ import annotations

from collections.abc import Iterable

from qlab.deploy.entries import look_up, suggestion

from . import bits, cache, capacity, claims, formats, memory, methods, money, roofline
from .kind import Drill, Kind
from .mark import Marked, judge

__all__ = ["KINDS", "TOPICS", "Drill", "Kind", "Marked", "chosen", "judge", "kind"]

_TOPICS = (memory, cache, capacity, bits, formats, roofline, money, methods, claims)
KINDS: tuple[Kind, ...] = tuple(kind for topic in _TOPICS for kind in topic.KINDS)
TOPICS: tuple[str, ...] = tuple(dict.fromkeys(kind.topic for kind in KINDS))
_BY_NAME = {kind.name: kind for kind in KINDS}


def kind(name: str) -> Kind:
    """The kind of that name: "memory.weights". Raises ValueError if there is none, with the nearest names."""
    found: Kind = look_up("kind", name, _BY_NAME)
    return found


def chosen(names: Iterable[str] = (), topics: Iterable[str] = ()) -> tuple[Kind, ...]:
    """The kinds of these names and these topics; all of them, if none is named.

    Raises:
        ValueError: there is no such kind or topic.
    """
    topics = list(topics)
    for topic in topics:
        if topic not in TOPICS:
            raise ValueError(f"topic: got {topic!r}; {suggestion(topic, TOPICS)}")
    named = {kind(name).name for name in names}
    found = tuple(one for one in KINDS if one.name in named or one.topic in topics)
    return found or KINDS
