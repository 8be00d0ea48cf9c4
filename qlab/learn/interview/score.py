"""What an answer is worth: points found with the words that say them, levels from the points, and what was wrong.

Nothing counts without a quote. What is only guessed at ("maybe", "I'm not sure") counts up to level 2, what came only
after a follow-up up to level 3. A confident falsehood leaves the criterion that it breaks at level 1 at most.
Sentences that repeat the question, or are lists of terms, are not quoted at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..quantities import Quantity
from . import evidence
from .evidence import Quote, Reader, parse
from .scenario import Criterion, Number, Point, Question, RedFlag, Scenario
from .sentences import Sentence, sentences
from .whiteboard import Written
from .words import RELATIONS

Patterns = Mapping[str, Sequence[str]]  # by what they show

CODE = 4  # the weight of code at the whiteboard
GUESSED, PROMPTED, BROKEN = 2, 3, 1  # the highest level that can be reached so
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
class Found:
    """A point with the words that say it; `prompted` where they came in reply to a follow-up."""

    point: Point
    quote: Quote
    prompted: bool = False


@dataclass(frozen=True)
class Flagged:
    """A falsehood that was claimed, and where."""

    flag: RedFlag
    quote: Quote


@dataclass(frozen=True)
class WrongNumber:
    """A quantity that was said of something whose number differs."""

    name: str
    said: Quantity
    number: Number
    quote: Quote


@dataclass(frozen=True)
class Ignored:
    """A sentence that counts for nothing, and why."""

    text: str
    why: str


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
    """An answer to one question, follow-ups included."""

    question: Question
    text: str  # all that was said
    criteria: tuple[Judged, ...]
    flags: tuple[Flagged, ...]
    wrong_numbers: tuple[WrongNumber, ...]
    ignored: tuple[Ignored, ...]
    written: Written | None = None  # where code was asked for

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
    first, ignored = _worth_quoting(answer, asked)
    later: list[Sentence] = []
    for name, reply in (replies or {}).items():
        kept, dropped = _worth_quoting(reply, f"{asked} {follow_ups.get(name, '')}")
        later += kept
        ignored += dropped
    words = scenario.lexicon
    concepts, patterns = words.expressions, words.evidence.get(question.id, {})
    unprompted, prompted = (Reader(one, concepts, scenario.numbers) for one in (first, later))
    flags = tuple(
        Flagged(flag, quote)
        for flag in question.red_flags
        if (quote := _claimed(patterns.get(flag.id, ()), (unprompted, prompted))) is not None
    )
    judged = tuple(_judge(one, patterns, unprompted, prompted, flags) for one in question.criteria)
    said = "\n\n".join([answer, *(replies or {}).values()])
    return Score(question, said, judged, flags, _wrong(scenario, (*first, *later), concepts), tuple(ignored), written)


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


def _claimed(patterns: Sequence[str], readers: Sequence[Reader]) -> Quote | None:
    """Where one of the patterns is claimed: not asked, guessed, or said of others."""
    found = (reader.find(parse(one), claimed=True) for reader in readers for one in patterns)
    return next((quote for quote in found if quote), None)


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
            reader = Reader([sentence], concepts, scenario.numbers)
            if quote := next((found for one in patterns if (found := reader.find(parse(one), claimed=True))), None):
                wrong.append(WrongNumber(name, alike[0], number, quote))
    return tuple(wrong)


def _count(quantity: Quantity) -> bool:
    """Whether it may say how many: "two machines", "with 64 chats"."""
    return quantity.unit in ("", "machines", "GPUs", "requests") and 2 <= quantity.value <= 1000


def _width(quantity: Quantity, number: Number) -> bool:
    """Whether it says how wide a number is, "4 bits", where a size is asked for."""
    return quantity.unit in ("bit", "byte") and number.unit not in ("bit", "bits", "byte", "bytes")


def _worth_quoting(text: str, asked: str) -> tuple[list[Sentence], list[Ignored]]:
    """The sentences that may be quoted, and those that say nothing of their own."""
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
    """Which sentences begin or end an answer with strung terms."""
    count = len(said)
    ends = [*(range(count - many, count) for many in range(1, count)), *(range(many) for many in range(1, count))]
    return {at for end in ends if _strung([said[i] for i in end], PART) for at in end}


def _strung(said: Sequence[Sentence], bounds: Sequence[Bounds]) -> bool:
    """Whether sentences are a list of terms, or long ones in which terms only stand beside each other.

    What people say of things takes words such as because, than, only, it; terse people use few, and short sentences.
    """
    words = [token.word for sentence in said for token in sentence.tokens]
    pieces = sum(bool(piece.strip()) for sentence in said for piece in _PIECES.split(sentence.text))
    related = sum(word in RELATIONS for word in words)
    joined = sum(len(_JOINTS.findall(sentence.text)) for sentence in said)
    count = len(words)
    return any(
        (count >= one.list_words and count <= one.term * pieces)
        or (count >= one.prose_words and count >= LONG * len(said) and joined - related > one.excess * count)
        for one in bounds
    )


def _runs(sentence: Sentence) -> set[tuple[str, ...]]:
    """Runs of three words, by their stems."""
    stems = [token.stem for token in sentence.tokens]
    return {tuple(stems[at : at + 3]) for at in range(len(stems) - 2)}
