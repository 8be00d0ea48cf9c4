"""What says nothing of its own in an answer: terms strung together, the question said back, what nobody vouches for."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import dropwhile

from .sentences import Sentence, sentences
from .words import RELATIONS

REPEATED = 0.6  # of the runs of three words in a sentence
LONG = 14  # words of a long sentence
STRUNG = "it strings terms together and says nothing about them"
_PIECES = re.compile(r"[,;:./()\n]")
_JOINTS = re.compile(r",(?!\d)|;|\b(?:and|or)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Bounds:
    """From which on terms are strung together.

    list_words, term: words that make a list, where at most so many stand between commas.
    prose_words, excess: of so many words or more, by what share commas and "and" outnumber words that relate things.
    """

    list_words: int
    term: float
    prose_words: int
    excess: float


# In few words chance plays a part. Parts of an answer are many, so that more is asked of each.
WHOLE = (Bounds(15, 2.0, 30, 0.08), Bounds(15, 2.0, 60, 0.03))
PART = (Bounds(20, 1.8, 60, 0.08),)


@dataclass(frozen=True)
class Ignored:
    """A sentence that counts for nothing, and why."""

    text: str
    why: str


def worth_quoting(text: str, asked: str) -> tuple[list[Sentence], list[Ignored]]:
    """The sentences that may be quoted, and those that say nothing of their own.

    Args:
        text: an answer, or a reply.
        asked: what it replies to; who repeats it says nothing.
    """
    said = sentences(text)
    if _strung(said, WHOLE):
        return [], [Ignored(text, STRUNG)]
    runs = {run for sentence in sentences(asked) for run in _runs(sentence)}
    padding = _padding(said)
    kept, ignored = [], []
    for at, one in enumerate(said):
        if at in padding:
            ignored.append(Ignored(one.text, STRUNG))
        elif (own := _runs(one)) and len(own & runs) >= REPEATED * len(own):
            ignored.append(Ignored(one.text, "it repeats the question"))
        elif one.disclaimed:
            ignored.append(Ignored(one.text, "it says what you do not know, or would not say"))
        else:
            kept.append(one)
    return kept, ignored


def _padding(said: Sequence[Sentence]) -> set[int]:
    """Which sentences begin or end an answer with strung terms, without the neighbours that relate things."""
    count = len(said)
    ends = [
        *([*range(count - many, count)] for many in range(1, count)),
        *([*range(many)][::-1] for many in range(1, count)),
    ]  # each from its inner edge
    strung = [end for end in ends if _strung([said[at] for at in end], PART)]
    return {at for end in strung for at in dropwhile(lambda at: _excess([said[at]]) < 0, end)}


def _strung(said: Sequence[Sentence], bounds: Sequence[Bounds]) -> bool:
    """Whether sentences are a list of terms, or long ones in which terms only stand beside each other.

    What people say of things takes words such as because, than, only, it; terse people use few, and short sentences.
    """
    words = [token.word for sentence in said for token in sentence.tokens]
    pieces = sum(bool(piece.strip()) for sentence in said for piece in _PIECES.split(sentence.text))
    excess, count = _excess(said), len(words)
    return any(
        (count >= one.list_words and count <= one.term * pieces)
        or (count >= one.prose_words and count >= LONG * len(said) and excess > one.excess * count)
        for one in bounds
    )


def _excess(said: Sequence[Sentence]) -> int:
    """How many more commas and "and" there are than words that relate things."""
    words = [token.word for sentence in said for token in sentence.tokens]
    return sum(len(_JOINTS.findall(sentence.text)) for sentence in said) - sum(word in RELATIONS for word in words)


def _runs(sentence: Sentence) -> set[tuple[str, ...]]:
    """Runs of three words, by their stems."""
    stems = [token.stem for token in sentence.tokens]
    return {tuple(stems[at : at + 3]) for at in range(len(stems) - 2)}
