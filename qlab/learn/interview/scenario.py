"""A mock interview as data: questions, follow-ups, criteria with anchored levels, red flags, computed numbers.

One YAML file each in `scenarios/`, and beside it in `lexicons/` by what words its points are known; a file of your own
holds both. `load(name)` reads and checks it. What is checked beyond the shape: every {number} in a text exists, levels
run from 0 to 4 and can be reached, follow-ups ask for points that their question has, and claims and exercises exist.
Numbers are computed when they are shown, some by a simulation, and the words are read when an answer is scored, so
that reading a scenario takes no time.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, ValidationError, model_validator

from qlab.deploy.claims import ledger
from qlab.deploy.entries import look_up

from ..files import read_mapping
from ..questions import all_ids
from ..units import unit
from . import numbers
from .lexicon import Lexicon, Name, Text

SCENARIOS = Path(__file__).parent / "scenarios"
LEXICONS = Path(__file__).parent / "lexicons"  # by what words points are known, apart from what people read
LEVELS = range(5)
_SHOWN = re.compile(r"\{(\w+)\}")

Kind = TypeVar("Kind", bound=BaseModel)


class ScenarioError(ValueError):
    """A scenario that is none: the file, the place in it, what came, and what is allowed."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Number(_Part):
    """A number that may be shown, and that an answer may be credited for.

    Either `compute` and `of`, a function of `numbers` and its arguments, or `value` for what the interviewer states.
    unit: of the amount. show: a format with the unit in it, "{:.1f} GB". tolerance: the share by which an answer may
    miss.
    """

    value: float | None = None
    compute: Text | None = None
    of: dict[str, str | int | float | bool] = {}
    unit: str
    show: Text
    tolerance: Annotated[float, Field(ge=0, le=0.5)] = 0.06

    @model_validator(mode="after")
    def _one_source(self) -> Number:
        if (self.value is None) == (self.compute is None):
            raise ValueError("number: give a value, or what computes it, not both")
        unit(self.unit)
        return self

    @property
    def amount(self) -> float:
        """In `unit`, computed now."""
        if self.compute is None:
            return float(self.value or 0)
        return numbers.value(self.compute, self.of, self.unit)

    def __str__(self) -> str:
        return self.show.format(self.amount)


class Point(_Part):
    """Something that an answer can be credited for. `says` completes "the answer …"."""

    id: Name
    says: Text


class Level(_Part):
    """What a hiring engineer sees at this level, and an answer that shows it.

    takes: what the answer must have said, all of it: a point's name, or "2 of a b c" for any two of these points.
    Nothing at level 0, where an example is what people say instead.
    """

    anchor: Text
    example: Text
    takes: tuple[str, ...] = ()

    def reached(self, points: Collection[str]) -> bool:
        """Whether these points are enough for this level."""
        return all(len(set(names) & set(points)) >= count for count, names in map(demand, self.takes))


def demand(clause: str) -> tuple[int, tuple[str, ...]]:
    """How many of which points: "kv" and "2 of weights kv batch"."""
    count, of, names = clause.partition(" of ")
    if not of:
        return 1, (clause.strip(),)
    return int(count), tuple(names.split())


class Repair(_Part):
    """Where a gap is mended: a lesson, and the exercise in it."""

    lesson: Text
    exercise: Text | None = None

    @model_validator(mode="after")
    def _known(self) -> Repair:
        if not re.fullmatch(r"\d\d_\w+", self.lesson):
            raise ValueError(f"lesson: got {self.lesson!r}; give the name of a notebook, such as 01_memory_math")
        if self.exercise is not None:
            look_up("exercise", self.exercise, dict.fromkeys(all_ids()))
        return self


class Criterion(_Part):
    """One thing that is judged, from 0 to 4."""

    id: Name
    title: Text
    weight: Annotated[int, Field(ge=1, le=5)] = 1
    repair: Repair
    points: Annotated[tuple[Point, ...], Field(min_length=1)]
    levels: dict[int, Level]

    @model_validator(mode="after")
    def _whole(self) -> Criterion:
        if sorted(self.levels) != list(LEVELS):
            raise ValueError(f"levels: got {sorted(self.levels)}; give 0, 1, 2, 3 and 4")
        known = [point.id for point in self.points]
        _unique("points", known)
        for level, described in self.levels.items():
            if bool(described.takes) == (level == 0):
                raise ValueError(f"level {level}: takes: got {list(described.takes)}; level 0 takes nothing, others do")
            for clause in described.takes:
                try:
                    count, asked = demand(clause)
                except ValueError:
                    raise ValueError(f'level {level}: takes: got {clause!r}; write a point, or "2 of a b c"') from None
                if unknown := set(asked) - set(known):
                    raise ValueError(f"level {level}: takes: no point {sorted(unknown)[0]!r}; there are {known}")
                if not 1 <= count <= len(asked):
                    raise ValueError(f"level {level}: takes: {clause!r} asks for {count} of {len(asked)} points")
        if not self.levels[4].reached(known):
            raise ValueError("level 4 is out of reach")
        return self

    def level(self, points: Collection[str]) -> int:
        """The highest level that these points reach."""
        return max(level for level, described in self.levels.items() if described.reached(points))


class Falsehood(_Part):
    """Something false that is claimed with confidence, `says` in a sentence.

    `claim` is one of the ledger, which says what is true instead; or `instead` says it. `breaks` is the criterion that
    it leaves at level 1 at most, if it is one that an interviewer waits for.
    """

    id: Name
    says: Text
    claim: Annotated[str, Field(pattern=r"^C\d{3}$")] | None = None
    instead: Text | None = None
    breaks: Name | None = None

    @model_validator(mode="after")
    def _answered(self) -> Falsehood:
        if (self.claim is None) == (self.instead is None):
            raise ValueError("falsehood: give a claim of the ledger, or what to say instead, not both")
        if self.claim is not None:
            ledger.find(self.claim)
        return self


class RedFlag(Falsehood):
    """A falsehood that the interviewer of a question waits for; it breaks a criterion."""

    breaks: Name


class FollowUp(_Part):
    """Asked where the answer missed the point `unless`, "criterion.point". The two answers are judged together."""

    id: Name
    unless: Text
    ask: Text
    think: Annotated[int, Field(ge=0, le=600)] = 15
    seconds: Annotated[int, Field(ge=30, le=3600)] = 90
    model_answer: Text


class Question(_Part):
    """What is asked, how long there is, what is judged. `code` is an exercise of the course, graded by its check."""

    id: Name
    ask: Text
    think: Annotated[int, Field(ge=0, le=600)] = 30
    seconds: Annotated[int, Field(ge=30, le=3600)] = 180
    criteria: Annotated[tuple[Criterion, ...], Field(min_length=1)]
    red_flags: tuple[RedFlag, ...] = ()
    model_answer: Text
    follow_ups: tuple[FollowUp, ...] = ()
    code: Text | None = None

    @model_validator(mode="after")
    def _whole(self) -> Question:
        criteria = [one.id for one in self.criteria]
        _unique("criteria", criteria)
        _unique("red flags", [one.id for one in self.red_flags])
        for flag in self.red_flags:
            if flag.breaks not in criteria:
                raise ValueError(f"red flag {flag.id}: breaks: no criterion {flag.breaks!r}; there are {criteria}")
        for follow in self.follow_ups:
            if follow.unless not in self.points:
                raise ValueError(f"follow-up {follow.id}: unless: no {follow.unless!r}; there are {list(self.points)}")
        if self.code is not None:
            look_up("exercise", self.code, dict.fromkeys(all_ids()))
        return self

    @property
    def points(self) -> dict[str, Point]:
        """All points as "criterion.point"."""
        return {f"{one.id}.{point.id}": point for one in self.criteria for point in one.points}


class Scenario(_Part):
    """A whole interview."""

    id: Name
    title: Text
    role: Text
    minutes: Annotated[int, Field(ge=5, le=60)]
    situation: Text
    numbers: dict[Name, Number] = {}
    questions: Annotated[tuple[Question, ...], Field(min_length=1)]
    _words: Lexicon | None = PrivateAttr(None)  # of a file of one's own

    @model_validator(mode="after")
    def _whole(self) -> Scenario:
        _unique("questions", [one.id for one in self.questions])
        for where, text in self.texts():
            for name in _SHOWN.findall(text):
                if name not in self.numbers:
                    raise ValueError(f"{where}: no number {{{name}}}; there are {', '.join(self.numbers)}")
        return self

    @cached_property
    def lexicon(self) -> Lexicon:
        """By what words its points are known. Raises ScenarioError as `load`."""
        if self._words is not None:
            return self._words
        path = LEXICONS / f"{self.id}.yaml"
        return _lexicon(self, _mapping(path), f"lexicons/{path.name}")

    def question(self, name: str) -> Question:
        """By its id. Raises ScenarioError if there is none."""
        try:
            found: Question = look_up("question", name, {one.id: one for one in self.questions})
        except ValueError as error:
            raise ScenarioError(str(error)) from None
        return found

    def texts(self) -> Iterator[tuple[str, str]]:
        """Every text that may show numbers, with its place."""
        yield "situation", self.situation
        for one in self.questions:
            yield f"{one.id}: ask", one.ask
            yield f"{one.id}: model_answer", one.model_answer
            for criterion in one.criteria:
                for point in criterion.points:
                    yield f"{one.id}: {criterion.id}: {point.id}", point.says
                for level, described in criterion.levels.items():
                    yield f"{one.id}: {criterion.id}: level {level}", f"{described.anchor} {described.example}"
            for flag in one.red_flags:
                yield f"{one.id}: red flag {flag.id}", f"{flag.says} {flag.instead or ''}"
            for follow in one.follow_ups:
                yield f"{one.id}: {follow.id}: ask", follow.ask
                yield f"{one.id}: {follow.id}: model_answer", follow.model_answer

    def shown(self, text: str) -> str:
        """A text with every {number} computed."""
        return _SHOWN.sub(lambda found: str(self.numbers[found[1]]), text)


def names() -> list[str]:
    """The scenarios that the package has."""
    return sorted(path.stem for path in SCENARIOS.glob("*.yaml"))


@cache
def load(name: str) -> Scenario:
    """A scenario by name, or from a YAML file of your own.

    Raises:
        ScenarioError: no such scenario or file, or something in it is wrong; it names the place.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        return parse({"id": path.stem, **_mapping(path)}, path.name)
    try:
        path = look_up("scenario", name, {one: SCENARIOS / f"{one}.yaml" for one in names()})
    except ValueError as error:
        raise ScenarioError(str(error)) from None
    return _valid(Scenario, {"id": path.stem, **_mapping(path)}, path.name)


def parse(read: dict[str, Any], where: str = "scenario") -> Scenario:
    """A scenario with its words from what YAML gave. Raises ScenarioError, which lists all that is wrong."""
    words = {name: value for name, value in read.items() if name in Lexicon.model_fields}
    found = _valid(Scenario, {name: value for name, value in read.items() if name not in words}, where)
    found._words = _lexicon(found, words, where)
    return found


def _lexicon(of: Scenario, read: dict[str, Any], where: str) -> Lexicon:
    found = _valid(Lexicon, read, where)
    try:
        found.check({one.id: {*one.points, *(flag.id for flag in one.red_flags)} for one in of.questions}, of.numbers)
    except ValueError as error:
        raise ScenarioError(f"{where}: {error}") from None
    return found


def _mapping(path: Path) -> dict[str, Any]:
    try:
        return read_mapping(path)
    except ValueError as error:
        raise ScenarioError(f"scenario: {error}; give a mapping, as in the shipped scenarios") from None


def _valid(kind: type[Kind], read: dict[str, Any], where: str) -> Kind:
    try:
        return kind.model_validate(read)
    except ValidationError as error:
        wrong = [
            f"{'.'.join(map(str, one['loc'])) or 'all of it'}: {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors()
        ]
        raise ScenarioError("\n".join(f"{where}: {one}" for one in wrong)) from None


def _unique(what: str, found: list[str]) -> None:
    twice = sorted({one for one in found if found.count(one) > 1})
    if twice:
        raise ValueError(f"{what}: {', '.join(twice)} twice; each needs a name of its own")
