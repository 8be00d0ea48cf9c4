"""Whether a pattern is said in the sentences of an answer, denied in them, or only guessed at.

The notation of patterns stands in `pattern`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from .. import units
from ..quantities import Quantity
from .pattern import Pattern, Phrase, Steps, parse, phrase
from .sentences import Sentence

GAP = 5  # words that ".." spans
WIDEST = 2.0  # high over low of a range that still says something
COUNTED = ("machines", "GPUs", "requests", "tokens", "layers", "")


@dataclass(frozen=True)
class Quote:
    """Words of the answer, as they stand in it. `firm` is False for a guess."""

    text: str
    firm: bool = True


class Amount(Protocol):
    """A number that a quantity is compared with, as `scenario.Number` is."""

    unit: str
    tolerance: float

    @property
    def amount(self) -> float: ...  # in `unit`


class Reader:
    """Finds patterns in the sentences of one answer.

    Args:
        said: the sentences that may be quoted.
        concepts: expressions by the name of their concept.
        numbers: what "#name" stands for, each with `unit`, `tolerance` and `amount`.
    """

    def __init__(self, said: Sequence[Sentence], concepts: Mapping[str, Sequence[str]], numbers: Mapping[str, Amount]):
        self.said = said
        self.numbers = numbers
        self._concepts = {name: [phrase(one).steps for one in many] for name, many in concepts.items()}
        self._vocabulary = {name for one in said for name in one.places}
        self._possible: dict[Steps, bool] = {}
        self._spans: dict[tuple[int, tuple[str, ...]], dict[int, set[int]]] = {}
        self._runs: dict[tuple[int, Steps], list[tuple[int, int]]] = {}

    def find(self, pattern: Pattern, claimed: bool = False) -> Quote | None:
        """The first place where the pattern is said, firmly if there is one.

        Args:
            claimed: only what the speaker claims: no question, no guess, nothing that others are said to say.
        """
        found = None
        if not all(any(one.number or self._can_match(one.steps) for one in group) for group in pattern.groups):
            return None
        for first in range(len(self.said)):
            window = [at for at in range(first, min(first + pattern.within, len(self.said))) if self._after(at, first)]
            hits = self._hits(pattern, window)
            if not hits or any(self._any(pattern.never, at) for at in window):
                continue
            used = [self.said[at] for at in sorted(set(hits))]
            if claimed and any(one.asked or one.hedged or one.reported for one in used):
                continue
            quote = Quote(used[0].whole[used[0].start : used[-1].end], not any(one.hedged for one in used))
            if quote.firm:
                return quote
            found = found or quote
        return found

    def _can_match(self, steps: Steps) -> bool:
        """Whether all of its words are somewhere in the answer: most are not, and no sentence has to be looked at."""
        if steps not in self._possible:
            self._possible[steps] = all(any(map(self._occurs, step)) for step in steps if step)
        return self._possible[steps]

    def _occurs(self, one: str) -> bool:
        if one.startswith("@"):
            return any(map(self._can_match, self._concepts[one[1:]]))
        if one.endswith("*"):
            return any(name.startswith(f"={one[:-1]}") for name in self._vocabulary)
        return one in self._vocabulary

    def _hits(self, pattern: Pattern, window: Sequence[int]) -> list[int]:
        """Where each group of a pattern stands first; none if one stands nowhere."""
        hits = []
        for group in pattern.groups:
            at = next((at for at in window if self._any(group, at)), None)
            if at is None:
                return []  # before the others are looked for: most patterns are not there
            hits.append(at)
        return hits

    def _after(self, at: int, first: int) -> bool:
        """Whether a sentence is another one or a later one of the same text, and not of the next reply."""
        one, begun = self.said[at], self.said[first]
        return one.whole is begun.whole and one.start >= begun.start

    def _any(self, phrases: Sequence[Phrase], at: int) -> bool:
        return any(self._said(one, at) for one in phrases)

    def _said(self, phrase: Phrase, at: int) -> bool:
        sentence = self.said[at]
        if phrase.number:
            return any(self._agrees(one, phrase.number) for one in sentence.quantities)
        for start, end in self._found(at, phrase.steps):
            # A phrase that has a negation of its own is denied only from before it.
            denied = sentence.denied[start] if phrase.negative else any(sentence.denied[start:end])
            if phrase.sign in ("", "-") or denied == (phrase.sign == "!"):
                return True
        return False

    def _agrees(self, quantity: Quantity, name: str) -> bool:
        number = self.numbers.get(name)
        if number is None:
            return quantity.dimension.partition("/")[0] == name  # of this dimension
        return agrees(quantity, number)

    def _found(self, at: int, steps: Steps) -> list[tuple[int, int]]:
        """Where a run of words begins and ends in a sentence."""
        if (at, steps) not in self._runs:
            runs = [(start, end) for start, ends in self._places(at, steps[0]).items() for end in ends]
            room = 0
            for step in steps[1:]:
                if not runs:
                    break
                if not step:
                    room = GAP
                    continue
                places = self._places(at, step)
                begins = ((start, begin) for start, end in runs for begin in range(end, end + room + 1))
                runs = list({(start, end) for start, begin in begins for end in places.get(begin, ())})
                room = 0
            self._runs[at, steps] = runs
        return self._runs[at, steps]

    def _places(self, at: int, step: tuple[str, ...]) -> dict[int, set[int]]:
        """Where one of the alternatives begins in a sentence, and where it ends then."""
        if (at, step) not in self._spans:
            found: dict[int, set[int]] = {}
            for one in step:
                for start, end in self._spots(at, one):
                    found.setdefault(start, set()).add(end)
            self._spans[at, step] = found
        return self._spans[at, step]

    def _spots(self, at: int, one: str) -> list[tuple[int, int]]:
        sentence = self.said[at]
        if one.startswith("@"):
            return [span for steps in self._concepts[one[1:]] for span in self._found(at, steps)]
        if one.endswith("*"):
            begins = [i for i, token in enumerate(sentence.tokens) if token.word.startswith(one[:-1])]
        else:
            begins = sentence.places.get(one, [])
        return [(begin, begin + 1) for begin in begins]


def claimed(patterns: Sequence[str], readers: Sequence[Reader]) -> Quote | None:
    """Where one of the patterns is claimed: not asked, guessed, or said of others."""
    found = (reader.find(parse(one), claimed=True) for reader in readers for one in patterns)
    return next((quote for quote in found if quote), None)


def comparable(quantity: Quantity, number: Amount) -> bool:
    """Whether a quantity can be meant as this number: of its dimension, or with the rate or the noun left out."""
    return _as_meant(quantity, number) is not None


def _as_meant(quantity: Quantity, number: Amount) -> tuple[Quantity, str] | None:
    """The quantity and the unit of the number, both so that they can be compared; None where they cannot be."""
    ours, theirs = units.unit(number.unit), units.unit(quantity.unit)
    if theirs.dimension == ours.dimension:
        return quantity, ours.name
    if {theirs.dimension, ours.dimension} == {"tokens", "requests"}:  # in decode a batch is as many of either
        return replace(quantity, unit=ours.name), ours.name
    if theirs.dimension == "":  # "4" of machines
        return (quantity, "") if ours.dimension in COUNTED else None
    if theirs.dimension == _head(ours).dimension:  # "160,000 dollars" of a bill for each month
        return quantity, _head(ours).name
    if _head(theirs).dimension == ours.dimension and theirs.dimension.partition("/")[2] in COUNTED:  # "8 ms per token"
        return replace(quantity, unit=_head(theirs).name), ours.name
    return None


def agrees(quantity: Quantity, number: Amount) -> bool:
    """Whether a quantity is this number within its tolerance. A range of more than twofold agrees with nothing."""
    meant = _as_meant(quantity, number)
    if meant is None or vague(quantity):
        return False
    name = "" if meant[1] == "" else meant[1]
    return meant[0].holds(number.amount, name, number.tolerance)


def vague(quantity: Quantity) -> bool:
    """Whether it is a range so wide that it says nothing."""
    return quantity.high > WIDEST * quantity.low > 0


def _head(unit: units.Unit) -> units.Unit:
    return units.unit(unit.name.partition("/")[0])
