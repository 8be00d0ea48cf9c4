"""Falsehoods that are false whatever was asked: "NF4 has eight levels", "GPTQ retrains the model".

A question waits for a few of its own, its red flags. Those in the files of `falsehoods/` are named in every interview,
each with what is true instead and the patterns in which people claim it (their notation stands in `pattern`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from ..files import read_mapping
from . import evidence
from .evidence import Quote, Reader
from .lexicon import Lexicon, Patterns
from .scenario import Falsehood
from .sentences import Sentence

FOLDER = Path(__file__).with_name("falsehoods")


class General(Falsehood):
    """A falsehood with the patterns that show it to be claimed."""

    claimed_as: Patterns


@cache
def general() -> tuple[General, ...]:
    """All falsehoods of the files.

    Raises:
        ValueError: something in a file is missing, unknown or there twice, or a pattern cannot be parsed.
    """
    read = [{"id": name, **one} for file in _files() for name, one in file["falsehoods"].items()]
    found = TypeAdapter(tuple[General, ...]).validate_python(read)
    _lexicon(found).check({"any": [one.id for one in found]}, ())
    return found


def claimed(*said: Sequence[Sentence]) -> list[tuple[General, Quote]]:
    """Those that are claimed in an answer or in its replies, each with the words."""
    readers = [Reader(one, concepts(), {}) for one in said]
    found = ((one, evidence.claimed(one.claimed_as, readers)) for one in general())
    return [(one, quote) for one, quote in found if quote]


@cache
def concepts() -> dict[str, tuple[str, ...]]:
    """Expressions by the name of their concept: those of all scenarios, and those of the files."""
    return _lexicon(()).expressions


def _lexicon(found: tuple[General, ...]) -> Lexicon:
    own: dict[str, tuple[str, ...]] = {}
    for file in _files():
        if twice := sorted(own.keys() & file["concepts"].keys()):
            raise ValueError(f"falsehoods: two files define the concept {twice[0]}; give one of them another name")
        own |= file["concepts"]
    return Lexicon(concepts=own, evidence={"any": {one.id: one.claimed_as for one in found}})


@cache
def _files() -> list[dict[str, Any]]:
    return [read_mapping(path) for path in sorted(FOLDER.glob("*.yaml"))]
