"""What an answer says, sentence by sentence: its words by their stems, its quantities, and how each is meant.

A sentence may deny ("is *not* free"), guess ("maybe"), report ("people say"), disclaim ("I would never say") or ask.
Which words do that stands in `words`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import zip_longest

import snowballstemmer

from .. import quantities
from ..quantities import Quantity
from .words import (
    BEGINS_CLAUSE,
    CONTRACTED,
    DENIES,
    DENIES_CLAUSE,
    DENIES_NOTHING,
    DISCLAIMS,
    HEDGES,
    REPORTS,
    RETRACTS,
)

REACH = 7  # words behind a negation that it denies, unless the clause ends before

_WORD = re.compile(r"\d+(?:[.,]\d+)*|[a-z][a-z0-9]*(?:[.'’][a-z0-9]+)*|%|\$", re.IGNORECASE)
# A line that goes on in lower case goes on with the sentence: people and editors break lines anywhere.
_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n\s*\n|\n(?![ \t]*[a-z])|;\s+")
_NO_END = re.compile(r"\b(?:e\.g|i\.e|vs|approx|ca|incl|resp|no|fig|eq)\.$", re.IGNORECASE)
_PAUSE = re.compile(r"[,:;()\[\]—–]|\s-\s|\s--\s")
_BRITISH = re.compile(
    r"^((?:de|re|un)?(?:quant|optim|util|real|normal|minim|maxim|summar|prior|parallel|general|recogn|memor))is(?=[aei])"
)
_STEM = snowballstemmer.stemmer("english")


@lru_cache(maxsize=20_000)
def stem(word: str) -> str:
    """Of a word in any case: "Unpacking" and "unpacked" have one stem, British and American spelling, too."""
    return str(_STEM.stemWord(_american(word.lower())))


def _american(word: str) -> str:
    return _BRITISH.sub(r"\1iz", word)


@dataclass(frozen=True)
class Token:
    """A word of the answer, its stem, its place in the text, and the number of its clause in the sentence."""

    word: str
    stem: str
    start: int
    end: int
    clause: int


@dataclass(frozen=True)
class Sentence:
    """A sentence, the whole text that it stands in, and how it is said.

    denied: for each token, whether a negation reaches it. hedged: offered as a guess. reported: what others say, or
    might think, or what the next sentence takes back. disclaimed: what somebody does not know, or would never say.
    asked: a question.
    """

    text: str
    start: int
    whole: str
    tokens: tuple[Token, ...]
    quantities: tuple[Quantity, ...]
    denied: tuple[bool, ...]
    hedged: bool
    reported: bool
    disclaimed: bool
    asked: bool

    @property
    def end(self) -> int:
        return self.start + len(self.text)

    @cached_property
    def places(self) -> dict[str, list[int]]:
        """Where each stem stands, and each word under "=word"."""
        found: dict[str, list[int]] = {}
        for at, token in enumerate(self.tokens):
            found.setdefault(token.stem, []).append(at)
            found.setdefault(f"={token.word}", []).append(at)
        return found


def sentences(text: str) -> list[Sentence]:
    """The sentences of a text, in order; lines and semicolons end one, too."""
    found, start = [], 0
    numbers = quantities.find(text)
    for end in [*_END.finditer(text), None]:
        stop = len(text) if end is None else end.start()
        if end is not None and _NO_END.search(text, start, stop):
            continue
        piece = text[start:stop]
        begin = start + len(piece) - len(piece.lstrip())
        if piece.strip():
            inside = tuple(one for one in numbers if begin <= one.start < stop)
            found.append(_sentence(piece.strip(), begin, text, inside))
        start = stop if end is None else end.end()
    return [
        replace(one, reported=True) if after and RETRACTS.match(_plain(after.tokens)) else one
        for one, after in zip_longest(found, found[1:])
    ]


def _sentence(text: str, start: int, whole: str, inside: tuple[Quantity, ...]) -> Sentence:
    tokens = tuple(_tokens(text, start))
    plain = _plain(tokens)
    return Sentence(
        text,
        start,
        whole,
        tokens,
        inside,
        _denied(tokens),
        hedged=bool(HEDGES.search(plain)),
        reported=bool(REPORTS.search(plain)),
        disclaimed=bool(DISCLAIMS.search(plain)),
        asked=text.endswith("?"),
    )


def _plain(tokens: Sequence[Token]) -> str:
    """The words with a space around each, for the expressions of `words`."""
    return f" {' '.join(token.word for token in tokens)} "


def _tokens(text: str, offset: int) -> Iterator[Token]:
    clause, at = 0, 0
    for found in _WORD.finditer(text):
        clause += bool(_PAUSE.search(text, max(0, at - 1), found.start() + 1)) if at else 0
        at = found.end()
        for word in _words(found[0].lower().replace("’", "'")):
            clause += word in BEGINS_CLAUSE
            yield Token(_american(word), stem(word), offset + found.start(), offset + found.end(), clause)


def _words(word: str) -> list[str]:
    """A contraction as its two words, and a dotted name as its parts; what else an apostrophe cuts off is dropped."""
    if word == "cannot":
        return ["can", "not"]
    if word.endswith("n't"):
        return [{"wo": "will", "ca": "can", "sha": "shall"}.get(word[:-3], word[:-3]), "not"]
    head, apostrophe, tail = word.partition("'")
    if apostrophe:
        if tail == "s" and head in ("it", "that", "there", "what", "here", "this", "he", "she", "who", "where", "how"):
            return [head, "is"]
        return [head, CONTRACTED[tail]] if tail in CONTRACTED else [head]
    parts = word.split(".")
    return parts if all(map(str.isalpha, parts)) else [word]


def _denied(tokens: Sequence[Token]) -> tuple[bool, ...]:
    denied = [False] * len(tokens)
    words = [token.word for token in tokens]
    for at, token in enumerate(tokens):
        rest = " ".join(words[at : at + 5]) + " "
        if not DENIES.match(rest) or DENIES_NOTHING.match(rest):
            continue
        for later in range(at + 1, min(at + 1 + REACH, len(tokens))):
            if tokens[later].clause != token.clause:
                break
            denied[later] = True
    for clause in {token.clause for token in tokens}:
        said = [at for at, token in enumerate(tokens) if token.clause == clause]
        if DENIES_CLAUSE.search(f" {' '.join(words[at] for at in said)} "):
            for at in said:
                denied[at] = not denied[at]
    return tuple(denied)
