"""What an answer is worth: points found with the words that say them, levels from the points, and what was wrong.

Nothing counts without a quote. What is only guessed at ("maybe", "I'm not sure") counts up to level 2, what came only
after a follow-up up to level 3. A confident falsehood leaves the criterion that it breaks at level 1 at most; one that
belongs to no criterion of the question is named, and lowers nothing.
Sentences that say nothing of their own (`filler`) are not quoted at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..quantities import Quantity
from . import evidence, falsehood
from .evidence import Quote, Reader
from .filler import Ignored, worth_quoting
from .pattern import parse
from .scenario import Criterion, Falsehood, Number, Point, Question, Scenario
from .sentences import Sentence
from .whiteboard import Written

Patterns = Mapping[str, Sequence[str]]  # by what they show

CODE = 4  # the weight of code at the whiteboard
GUESSED, PROMPTED, BROKEN = 2, 3, 1  # the highest level that can be reached so


@dataclass(frozen=True)
class Found:
    """A point with the words that say it; `prompted` where they came in reply to a follow-up."""

    point: Point
    quote: Quote
    prompted: bool = False


@dataclass(frozen=True)
class Flagged:
    """A falsehood that was claimed, and where."""

    flag: Falsehood
    quote: Quote


@dataclass(frozen=True)
class WrongNumber:
    """A quantity that was said of something whose number differs."""

    name: str
    said: Quantity
    number: Number
    quote: Quote


@dataclass(frozen=True)
class Judged:
    """A criterion: its level, what was found for it, and what is missing. `broken` by falsehoods."""

    criterion: Criterion
    level: int
    found: tuple[Found, ...]
    missing: tuple[Point, ...]
    broken: tuple[Flagged, ...] = ()


@dataclass(frozen=True)
class Score:
    """An answer to one question, follow-ups included. `flags` are those of the question, `asides` other falsehoods."""

    question: Question
    text: str  # all that was said
    criteria: tuple[Judged, ...]
    flags: tuple[Flagged, ...]
    asides: tuple[Flagged, ...]
    wrong_numbers: tuple[WrongNumber, ...]
    ignored: tuple[Ignored, ...]
    written: Written | None = None  # where code was asked for

    @property
    def wrong(self) -> tuple[Flagged, ...]:
        """Every falsehood."""
        return (*self.flags, *self.asides)

    @property
    def said(self) -> float:
        """Of the levels that could be had for what was said, from 0 to 1, weights counted."""
        return weighted([(one.criterion.weight, one.level) for one in self.criteria])

    @property
    def share(self) -> float:
        """The same with the code, which weighs as CODE says, where there is any to write."""
        levels = [(one.criterion.weight, one.level) for one in self.criteria]
        if self.question.code is not None:
            levels.append((CODE, self.written.level if self.written else 0))
        return weighted(levels)

    def level(self, criterion: str) -> int:
        """By the criterion's id."""
        return next(one.level for one in self.criteria if one.criterion.id == criterion)


def weighted(levels: Sequence[tuple[int, int]]) -> float:
    """The share that weights and levels give of the most that they could."""
    return sum(weight * level for weight, level in levels) / sum(4 * weight for weight, _ in levels)


def score(
    scenario: Scenario,
    question: Question,
    answer: str,
    replies: Mapping[str, str] | None = None,
    written: Written | None = None,
) -> Score:
    """An answer, with the replies to follow-ups by their id, and what became of the code.

    The same words have the same score, always and everywhere: no model, no chance, no network.
    """
    asked = " ".join([scenario.shown(scenario.situation), scenario.shown(question.ask)])
    follow_ups = {one.id: scenario.shown(one.ask) for one in question.follow_ups}
    first, ignored = worth_quoting(answer, asked)
    later: list[Sentence] = []
    for name, reply in (replies or {}).items():
        kept, dropped = worth_quoting(reply, f"{asked} {follow_ups.get(name, '')}")
        later += kept
        ignored += dropped
    words = scenario.lexicon
    concepts, patterns = words.expressions, words.evidence.get(question.id, {})
    unprompted, prompted = (Reader(one, concepts, scenario.numbers) for one in (first, later))
    flags = tuple(
        Flagged(flag, quote)
        for flag in question.red_flags
        if (quote := evidence.claimed(patterns.get(flag.id, ()), (unprompted, prompted))) is not None
    )
    judged = tuple(_judge(one, patterns, unprompted, prompted, flags) for one in question.criteria)
    asides, wrong = _asides(first, later, flags), _wrong(scenario, (*first, *later), concepts)
    said = "\n\n".join([answer, *(replies or {}).values()])
    return Score(question, said, judged, flags, asides, wrong, tuple(ignored), written)


def _judge(
    criterion: Criterion, patterns: Patterns, unprompted: Reader, prompted: Reader, flags: Sequence[Flagged]
) -> Judged:
    found = []
    for point in criterion.points:
        shown_by = patterns.get(f"{criterion.id}.{point.id}", ())
        quotes = [_quoted(shown_by, reader) for reader in (unprompted, prompted)]
        best = next((quote for quote in quotes if quote and quote.firm), quotes[0] or quotes[1])
        if best:
            found.append(Found(point, best, best is quotes[1]))
    broken = tuple(one for one in flags if one.flag.breaks == criterion.id)
    level = max(
        criterion.level([one.point.id for one in found if one.quote.firm and not one.prompted]),
        min(PROMPTED, criterion.level([one.point.id for one in found if one.quote.firm])),
        min(GUESSED, criterion.level([one.point.id for one in found])),
    )
    names = [one.point.id for one in found]
    missing = tuple(point for point in criterion.points if point.id not in names)
    return Judged(criterion, min(level, BROKEN) if broken else level, tuple(found), missing, broken)


def _quoted(patterns: Sequence[str], reader: Reader) -> Quote | None:
    quotes = [reader.find(parse(one)) for one in patterns]
    return next((one for one in quotes if one and one.firm), next((one for one in quotes if one), None))


def _asides(first: Sequence[Sentence], later: Sequence[Sentence], flags: Sequence[Flagged]) -> tuple[Flagged, ...]:
    """The falsehoods of all interviews that are claimed; not those in words that raised a red flag already."""
    flagged = [flag.quote.text for flag in flags]
    return tuple(
        Flagged(one, quote)
        for one, quote in falsehood.claimed(first, later)
        if not any(quote.text in text or text in quote.text for text in flagged)
    )


def _wrong(
    scenario: Scenario, said: Sequence[Sentence], concepts: Mapping[str, Sequence[str]]
) -> tuple[WrongNumber, ...]:
    """Quantities in sentences about one number of the scenario that no number of the scenario agrees with."""
    wrong = []
    for name, patterns in scenario.lexicon.about.items():
        number = scenario.numbers[name]
        for sentence in said:
            alike = [one for one in sentence.quantities if evidence.comparable(one, number) and not _width(one, number)]
            if len(alike) != 1 or evidence.vague(alike[0]) or any(map(_count, sentence.quantities)):
                continue  # with two of them there is no telling which one is meant; and a count may be another case
            if any(evidence.agrees(alike[0], one) for one in scenario.numbers.values()):
                continue
            if quote := evidence.claimed(patterns, [Reader([sentence], concepts, scenario.numbers)]):
                wrong.append(WrongNumber(name, alike[0], number, quote))
    return tuple(wrong)


def _count(quantity: Quantity) -> bool:
    """Whether it may say how many: "two machines", "with 64 chats"."""
    return quantity.unit in ("", "machines", "GPUs", "requests") and 2 <= quantity.value <= 1000


def _width(quantity: Quantity, number: Number) -> bool:
    """Whether it says how wide a number is, "4 bits", where a size is asked for."""
    return quantity.unit in ("bit", "byte") and number.unit not in ("bit", "bits", "byte", "bytes")
