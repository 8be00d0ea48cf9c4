"""By what words the points of a scenario are known: its concepts, and patterns for points, red flags and numbers.

One YAML file for each scenario in `lexicons/`, apart from what people read; a scenario of your own holds the same in
its file. The notation stands in `pattern`. What several scenarios need is in concepts.yaml.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from functools import cache, cached_property
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from qlab.deploy.entries import suggestion

from ..files import read_mapping
from .pattern import DIMENSIONS, Phrase, parse, phrase

CONCEPTS = Path(__file__).with_name("concepts.yaml")

Text = Annotated[str, Field(min_length=1)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9_]+$")]
Patterns = Annotated[tuple[Text, ...], Field(min_length=1)]


class Lexicon(BaseModel):
    """The words of one scenario.

    concepts: expressions by name, in addition to those of concepts.yaml.
    evidence: for each question, the patterns that show a point ("criterion.point") or a red flag to have been said.
    about: patterns by the number that a quantity in such a sentence is meant to be; one that no number of the
        scenario agrees with is reported as wrong.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    concepts: dict[Name, tuple[Text, ...]] = {}
    evidence: dict[Name, dict[str, Patterns]] = {}
    about: dict[Name, Patterns] = {}

    @cached_property
    def expressions(self) -> dict[str, tuple[str, ...]]:
        """The concepts of all scenarios with those of this one, which may add to them."""
        shared = shared_concepts()
        return {name: (*shared.get(name, ()), *self.concepts.get(name, ())) for name in (*shared, *self.concepts)}

    def check(self, wanted: Mapping[str, Collection[str]], numbers: Collection[str]) -> None:
        """Whether everything in it can be used.

        Args:
            wanted: for each question the points and red flags that it has to know.
            numbers: names of the scenario.

        Raises:
            ValueError: something is missing, unknown, or cannot be parsed.
        """
        for name in self.concepts:
            self._check_concept(name)
        if unknown := sorted(self.evidence.keys() - wanted.keys()):
            raise ValueError(f"evidence: no question {unknown[0]!r}; there are {', '.join(wanted)}")
        for question, names in wanted.items():
            shown_by = self.evidence.get(question, {})
            for name in sorted(set(names) ^ shown_by.keys()):
                what = "misses" if name in names else "has unknown"
                raise ValueError(f"evidence: {question} {what} {name!r}")
            for pattern in (one for many in shown_by.values() for one in many):
                self._check_pattern(pattern, numbers)
        for name, patterns in self.about.items():
            if name not in numbers:
                raise ValueError(f"about: no number {name!r}; there are {', '.join(numbers)}")
            for pattern in patterns:
                self._check_pattern(pattern, numbers)

    def _check_pattern(self, pattern: str, numbers: Collection[str]) -> None:
        parsed = parse(pattern)
        for one in (*parsed.never, *(one for group in parsed.groups for one in group)):
            if one.number and one.number not in numbers and one.number not in DIMENSIONS:
                known = ", ".join((*numbers, *DIMENSIONS))
                raise ValueError(f"pattern: {pattern!r}: no number #{one.number}; there are {known}")
            self._check_names(one, pattern)

    def _check_concept(self, name: str) -> None:
        for text in self.expressions[name]:
            one = phrase(text)
            if one.sign or one.number or "/" in text or "&" in text:
                raise ValueError(f"concept {name}: got {text!r}; it holds words and other concepts only")
            self._check_names(one, text)
        if name in self._named_by(name, set()):
            raise ValueError(f"concept {name}: it names itself, perhaps by way of another; leave one of them out")

    def _named_by(self, name: str, seen: set[str]) -> set[str]:
        """Concepts that a concept names, and those that they name, in addition to what was seen."""
        words = (word for text in self.expressions.get(name, ()) for step in phrase(text).steps for word in step)
        for other in {word[1:] for word in words if word.startswith("@")} - seen:
            seen.add(other)
            self._named_by(other, seen)
        return seen

    def _check_names(self, one: Phrase, text: str) -> None:
        for word in (word for step in one.steps for word in step):
            if word.startswith("@") and word[1:] not in self.expressions:
                raise ValueError(f"pattern: {text!r}: no concept {word}; {suggestion(word[1:], self.expressions)}")


@cache
def shared_concepts() -> dict[str, tuple[str, ...]]:
    """The concepts of concepts.yaml: expressions by name."""
    return Lexicon(concepts=read_mapping(CONCEPTS)).concepts
