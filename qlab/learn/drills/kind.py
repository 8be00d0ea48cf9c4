"""What a drill is: a question with its own numbers, the answer that qlab computed, and the way there.

A kind draws drills from a generator of random numbers, at up to three levels. It gives None instead of a drill where
the numbers that came up make a bad question: a tie, a count that rounding decides, an answer of zero. Then it is asked
again, so that the same seed always ends at the same drill.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..units import unit

LEVELS = (1, 2, 3)
EDGE = 0.02  # a number that has to be rounded is drawn again where it is so near, as a share, to the edge
ROUNDING = 0.02  # what a person with a calculator may be off by, as a share
_DRAWS = 10_000  # a kind that draws nothing good in so many is broken
_LETTERS = "ABCDEF"
_WITH_PLURAL = ("bit", "byte", "token", "request", "parameter", "weight", "GPU", "layer", "machine", "operation")


@dataclass(frozen=True)
class Drill:
    """One question. `kind` and `level` are set by `Kind.ask`.

    Args:
        text: the question, with all the numbers that it needs and the unit that it asks for.
        answer: a number above zero in `unit`; or the right one of `choices`.
        worked: three to eight lines that derive the answer, which the last line ends in.
        unit: as `qlab.learn.units` reads it; "" for a bare number, a code for example.
        choices: two to six answers, one of them right.
        tolerance: by which a number may be off, as a share of the answer; 0 for a count.
        slips: wrong answers that people give to these numbers, by the mistake behind each; a sentence.

    Raises:
        ValueError: parts that do not fit together.
    """

    text: str
    answer: float | str
    worked: tuple[str, ...]
    unit: str = ""
    choices: tuple[str, ...] = ()
    tolerance: float = ROUNDING
    slips: Mapping[str, float] = field(default_factory=dict)
    kind: str = ""
    level: int = 1

    def __post_init__(self) -> None:
        if self.choices:
            if len(set(self.choices)) != len(self.choices) or self.choices.count(str(self.answer)) != 1:
                raise ValueError(f"choices: got {self.choices}; the answer {self.answer!r} must be one of them, once")
        elif not isinstance(self.answer, int | float) or not 0 < self.answer < math.inf:
            raise ValueError(f"answer: got {self.answer!r}; it must be a number above 0, or one of the choices")
        if not 3 <= len(self.worked) <= 8 or not self.worked[-1].endswith(self.answer_text):
            raise ValueError(
                f"worked: got {self.worked}; give 3 to 8 lines, the last of which ends in {self.answer_text}"
            )
        unit(self.unit)

    @property
    def answer_text(self) -> str:
        """The answer as people write it: "39.5 GB", "B) H100-80GB"."""
        if self.choices:
            return f"{self.letter}) {self.answer}"
        return with_unit(float(self.answer), self.unit, whole=self.tolerance == 0)

    @property
    def tells_slips(self) -> bool:
        """Whether no known mistake leads to a number that would be marked right."""
        return bool(self.choices) or all(
            abs(slip / float(self.answer) - 1) > self.tolerance for slip in self.slips.values()
        )

    @property
    def letter(self) -> str:
        """Of the right choice; "" where there are none."""
        return _LETTERS[self.choices.index(str(self.answer))] if self.choices else ""

    @property
    def lettered(self) -> tuple[str, ...]:
        """The choices with their letters."""
        return tuple(f"{letter}) {choice}" for letter, choice in zip(_LETTERS, self.choices, strict=False))

    def to_dict(self, solution: bool = False) -> dict[str, Any]:
        """Plain values; the answer and the way there only where they are asked for."""
        found: dict[str, Any] = {
            "kind": self.kind,
            "level": self.level,
            "text": self.text,
            "unit": self.unit,
            "choices": list(self.lettered),
        }
        if solution:
            found |= {"answer": self.answer, "answer_text": self.answer_text, "worked": list(self.worked)}
        return found


@dataclass(frozen=True)
class Kind:
    """A family of drills.

    Args:
        name: "memory.weights": the topic and its own; the history calls it "drill.memory.weights".
        title: what it trains, for lists.
        lesson: the file name of the notebook that teaches it, without .ipynb.
        draw: from random numbers and a level to a drill, or to None where the numbers make a bad question.
        levels: those that it has, from the easiest.
        needs: what `draw` imports that takes seconds to load: "", "torch" or "transformers".
    """

    name: str
    title: str
    lesson: str
    draw: Callable[[random.Random, int], Drill | None]
    levels: tuple[int, ...] = LEVELS
    needs: str = ""

    @property
    def topic(self) -> str:
        """ "memory" of "memory.weights"."""
        return self.name.partition(".")[0]

    @property
    def question(self) -> str:
        """What the history calls it."""
        return f"drill.{self.name}"

    def nearest(self, level: int) -> int:
        """The level that this kind has nearest to one; the easier of two."""
        return min(self.levels, key=lambda own: (abs(own - level), own))

    def ask(self, seed: int | str, level: int = 1) -> Drill:
        """A drill, always the same one for a seed and a level.

        Raises:
            ValueError: this kind does not have that level.
        """
        if level not in self.levels:
            raise ValueError(f"level: got {level!r}; {self.name} has {', '.join(map(str, self.levels))}")
        rng = random.Random(f"{self.name} {level} {seed}")
        for _ in range(_DRAWS):
            drill = self.draw(rng, level)
            if drill and drill.tells_slips:
                return replace(drill, kind=self.name, level=level)
        raise RuntimeError(f"{self.name}: {_DRAWS} draws at level {level} gave no question")


def short(value: float, digits: int = 4) -> str:
    """A number with so many significant digits, without zeros at its end: 39.52, 113,336, "58.72 million"."""
    if value == 0:
        return "0"
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if abs(value) >= size:
            return f"{short(value / size, digits)} {word}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def with_unit(value: float, name: str, whole: bool = False) -> str:
    """ "39.5 GB", "327,680 bytes", "4.1x", "28 %"; a count in full."""
    number = f"{value:,.0f}" if whole else short(value)
    if not name:
        return number
    if name in ("x", "×"):
        return f"{number}x"
    return f"{number} {_plural(name) if value != 1 else name}"


def _plural(name: str) -> str:
    first, slash, rest = name.partition("/")
    return f"{first}s{slash}{rest}" if first in _WITH_PLURAL else name


def shuffled(rng: random.Random, values: list[str]) -> tuple[str, ...]:
    """The same in another order."""
    return tuple(rng.sample(values, len(values)))


def near_whole(value: float, edge: float = EDGE) -> bool:
    """Whether a number lies so near to a whole one that rounding on the way decides which count comes out."""
    return abs(value - round(value)) <= edge * abs(value)
