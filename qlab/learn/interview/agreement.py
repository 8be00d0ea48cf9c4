"""How far the scorer agrees with labels that were given one by one: its levels against those of an answer bank.

A bank is a folder with one YAML file for each scenario:

    choose:                       # a question
      - kind: strong              # one of KINDS
        text: ...
        points: [traffic.shape]   # what it says, "criterion.point"
        flags: []                 # red flags that it claims
        levels: {traffic: 4}      # every criterion
    follow_ups:
      choose.why_not_four:
        - {mends: true, text: ...}

Beside the scorer stands the best that length alone could do: a level by the number of words, in `BINS` bins, fitted to
the labels themselves. A scorer that is no better than that has understood nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from ..files import read_mapping
from . import scenario as scenarios
from .scenario import Question, Scenario
from .score import Score, score, weighted

KINDS = ("strong", "good", "middling", "weak", "wrong", "off_topic", "stuffed", "empty")
NOTHING = ("off_topic", "stuffed", "empty")  # kinds that deserve no level
BINS = 10


class BankError(ValueError):
    """A bank that cannot be read, or has another form."""


@dataclass(frozen=True)
class Labelled:
    """An answer of the bank, and what the scorer made of it."""

    scenario: Scenario
    question: Question
    kind: str
    text: str
    points: frozenset[str]
    flags: frozenset[str]
    levels: Mapping[str, int]
    score: Score

    @property
    def words(self) -> int:
        return len(self.text.split())

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Label and level of each criterion."""
        return [(self.levels[one.criterion.id], one.level) for one in self.score.criteria]

    @property
    def deserved(self) -> float:
        """The share of the levels that the labels give, weights counted."""
        return weighted([(one.weight, self.levels[one.id]) for one in self.question.criteria])

    @property
    def found(self) -> frozenset[str]:
        """The points that the scorer found."""
        judged = self.score.criteria
        return frozenset(f"{one.criterion.id}.{found.point.id}" for one in judged for found in one.found)

    @property
    def flagged(self) -> frozenset[str]:
        """The red flags that the scorer found."""
        return frozenset(one.flag.id for one in self.score.flags)


@dataclass(frozen=True)
class Reply:
    """A reply to a follow-up: whether it says the missing point, by label and by the scorer."""

    name: str
    mends: bool
    found: bool


@dataclass(frozen=True)
class Agreement:
    """A whole bank. Shares are of criteria, from 0 to 1."""

    answers: tuple[Labelled, ...]
    replies: tuple[Reply, ...]

    def exact(self, kinds: Iterable[str] = KINDS) -> float:
        """Levels that are those of the labels."""
        return fmean(label == level for label, level in self._pairs(kinds))

    def near(self, kinds: Iterable[str] = KINDS) -> float:
        """Levels at most one away."""
        return fmean(abs(label - level) <= 1 for label, level in self._pairs(kinds))

    @property
    def recall(self) -> float:
        """Labelled points that were found."""
        return self._both / max(1, sum(len(one.points) for one in self.answers))

    @property
    def precision(self) -> float:
        """Found points that are labelled."""
        return self._both / max(1, sum(len(one.found) for one in self.answers))

    @property
    def _both(self) -> int:
        return sum(len(one.points & one.found) for one in self.answers)

    @property
    def accused(self) -> tuple[int, int, int]:
        """Red flags that were found, missed, and found where none is."""
        both = sum(len(one.flags & one.flagged) for one in self.answers)
        missed = sum(len(one.flags - one.flagged) for one in self.answers)
        return both, missed, sum(len(one.flagged - one.flags) for one in self.answers)

    @property
    def replies_right(self) -> float:
        return fmean(one.mends == one.found for one in self.replies)

    @property
    def length_correlation(self) -> float:
        """Spearman's rank correlation of the words of an answer with the share that it deserves."""
        return spearman([one.words for one in self.answers], [one.deserved for one in self.answers])

    @property
    def score_correlation(self) -> float:
        """The same of the scorer's share."""
        return spearman([one.score.said for one in self.answers], [one.deserved for one in self.answers])

    @property
    def by_length(self) -> tuple[float, float]:
        """Exact and near agreement of the best guess by length alone."""
        ordered = sorted(self.answers, key=lambda one: one.words)
        size = max(1, -(-len(ordered) // BINS))
        pairs: list[tuple[int, int]] = []
        for start in range(0, len(ordered), size):
            labels = [label for one in ordered[start : start + size] for label, _ in one.pairs]
            guess = Counter(labels).most_common(1)[0][0]
            pairs += [(label, guess) for label in labels]
        return fmean(a == b for a, b in pairs), fmean(abs(a - b) <= 1 for a, b in pairs)

    def _pairs(self, kinds: Iterable[str]) -> list[tuple[int, int]]:
        chosen = frozenset(kinds)
        return [pair for one in self.answers if one.kind in chosen for pair in one.pairs]

    def to_dict(self) -> dict[str, Any]:
        """The figures as plain values."""
        real = [kind for kind in KINDS if kind not in NOTHING]
        found, missed, wrongly = self.accused
        return {
            "answers": len(self.answers),
            "exact": round(self.exact(), 3),
            "within_one": round(self.near(), 3),
            "exact_of_real_answers": round(self.exact(real), 3),
            "within_one_of_real_answers": round(self.near(real), 3),
            "points_found": round(self.recall, 3),
            "found_points_right": round(self.precision, 3),
            "red_flags": {"found": found, "missed": missed, "wrongly": wrongly},
            "replies_right": round(self.replies_right, 3) if self.replies else None,
            "length_alone": {"exact": round(self.by_length[0], 3), "within_one": round(self.by_length[1], 3)},
            "correlation_of_length": round(self.length_correlation, 3),
            "correlation_of_score": round(self.score_correlation, 3),
        }


def measure(folder: Path, names: Sequence[str] | None = None) -> Agreement:
    """Score a bank.

    Args:
        names: scenarios; default: all that the folder has.

    Raises:
        BankError: no such folder or file, or one of another form.
        ScenarioError: a file is for a scenario that there is not.
    """
    chosen = sorted(path.stem for path in folder.glob("*.yaml")) if names is None else list(names)
    if not chosen:
        raise BankError(f"bank: {folder} holds no YAML file; give a folder with one for each scenario")
    answers: list[Labelled] = []
    replies: list[Reply] = []
    for name in chosen:
        scenario = scenarios.load(name)
        read = _read(folder / f"{name}.yaml")
        follow_ups = read.pop("follow_ups", {})
        try:
            for question, entries in read.items():
                answers += [_labelled(scenario, scenario.question(question), entry) for entry in entries]
            for where, entries in follow_ups.items():
                replies += [_reply(scenario, where, entry) for entry in entries]
        except (KeyError, TypeError, AttributeError) as error:
            raise BankError(f"bank: {folder / name}.yaml has another form ({error!r})") from None
    return Agreement(tuple(answers), tuple(replies))


def _read(path: Path) -> dict[str, Any]:
    try:
        return read_mapping(path)
    except ValueError as error:
        raise BankError(f"bank: {error}; give answers for each id of a question") from None


def _labelled(scenario: Scenario, question: Question, entry: Mapping[str, Any]) -> Labelled:
    return Labelled(
        scenario,
        question,
        entry["kind"],
        entry["text"],
        frozenset(entry["points"]),
        frozenset(entry["flags"]),
        {criterion.id: int(entry["levels"][criterion.id]) for criterion in question.criteria},
        score(scenario, question, entry["text"]),
    )


def _reply(scenario: Scenario, where: str, entry: Mapping[str, Any]) -> Reply:
    name, _, follow = where.partition(".")
    question = scenario.question(name)
    unless = next(one.unless for one in question.follow_ups if one.id == follow)
    judged = score(scenario, question, "", {follow: entry["text"]}).criteria
    found = {f"{one.criterion.id}.{found.point.id}" for one in judged for found in one.found}
    return Reply(where, entry["mends"], unless in found)


def spearman(xs: Sequence[float], ys: Sequence[float]) -> float:
    """Rank correlation; ties share the mean of their ranks."""
    first, second = _ranks(xs), _ranks(ys)
    mean = (len(xs) + 1) / 2
    above = sum((a - mean) * (b - mean) for a, b in zip(first, second, strict=True))
    below = (sum((a - mean) ** 2 for a in first) * sum((b - mean) ** 2 for b in second)) ** 0.5
    return above / below if below else 0.0


def _ranks(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    first = {value: at for at, value in reversed(list(enumerate(ordered, 1)))}
    count = Counter(ordered)
    return [first[value] + (count[value] - 1) / 2 for value in values]
