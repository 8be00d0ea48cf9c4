"""What grading finds: a submission, its questions, its cells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..files import printable
from ..judge import Verdict
from .submission import Cell


@dataclass(frozen=True)
class Graded:
    """One question of one submission."""

    question: str
    title: str
    points: float
    of: float
    verdict: Verdict

    @property
    def text(self) -> str:
        """The verdict in words, fit for a terminal."""
        return printable(str(self.verdict), 4000)


@dataclass(frozen=True)
class Ran:
    """One cell of the notebook that was run: its status is one of ok, error, timeout, died, not run."""

    cell: Cell
    status: str = "not run"
    failed: str = ""  # the exception, in one line
    outputs: tuple[dict[str, str], ...] = ()


@dataclass(frozen=True)
class Result:
    """What became of one submission. `error` says why it could not be graded; then there are no questions."""

    file: str
    name: Path  # of the result, without an ending
    exercise: str | None = None
    version: str | None = None
    seed: int | None = None
    isolation: str | None = None
    questions: tuple[Graded, ...] = ()
    for_a_person: tuple[tuple[str, float], ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    error: str | None = None
    cells: tuple[Ran, ...] = ()

    @property
    def points(self) -> float:
        return sum(graded.points for graded in self.questions)

    @property
    def of(self) -> float:
        return sum(graded.of for graded in self.questions)
