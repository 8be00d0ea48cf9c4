"""How strong the checks are: every catalogued wrong answer of every question is given to the judge (`qlab mutants`).

A check is strong when each mutant fails and is told its own misconception, when the reference and every alternative
pass, and when the stub counts as not attempted; with each of several seeds.
"""

from __future__ import annotations

import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tqdm.auto import tqdm

from .judge import Judge, Verdict, cases_of
from .question import Mutant, Question
from .questions import all_ids, question

_WIDTH = 118


@dataclass(frozen=True)
class Kill:
    """How one mutant fares; what killed it is told from the first seed."""

    mutant: str
    killed: bool  # with every seed, and under its own message
    by: str  # the property that does not hold, or "an error"; nothing where it passes
    case: str
    message: str


@dataclass(frozen=True)
class Strength:
    """The kill table of one question. `problems` has a sentence for all that should not be."""

    question: str
    kills: tuple[Kill, ...]
    alternatives: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def killed(self) -> int:
        return sum(kill.killed for kill in self.kills)

    def __str__(self) -> str:
        name, by = (max(map(len, column)) for column in zip(*((k.mutant, k.by) for k in self.kills), strict=True))
        lines = [f"{self.question}: {self.killed} of {len(self.kills)} mutants killed"]
        lines += [
            f"  {kill.mutant:{name}}  {kill.by or 'passes':{by}}  "
            + textwrap.shorten(kill.message, max(_WIDTH - name - by - 6, 30), placeholder=" …")
            for kill in self.kills
        ]
        return "\n".join([*lines, f"  alternatives: {', '.join(self.alternatives)}"])


@dataclass(frozen=True)
class KillTable:
    """The strength of several questions. `str(table)` has one line for each; `table.in_full()` one for each mutant."""

    seeds: int
    questions: tuple[Strength, ...]

    @property
    def mutants(self) -> int:
        return sum(len(strength.kills) for strength in self.questions)

    @property
    def killed(self) -> int:
        return sum(strength.killed for strength in self.questions)

    @property
    def problems(self) -> list[str]:
        return [f"{strength.question}: {problem}" for strength in self.questions for problem in strength.problems]

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON has them."""
        return {
            "seeds": self.seeds,
            "mutants": self.mutants,
            "killed": self.killed,
            "strong": not self.problems,
            "questions": [asdict(strength) for strength in self.questions],
        }

    def in_full(self) -> str:
        return "\n\n".join([*map(str, self.questions), self._end()])

    def __str__(self) -> str:
        width = max(len(strength.question) for strength in self.questions)
        lines = [f"{'question':{width}}  mutants  killed  alternatives"]
        lines += [
            f"{one.question:{width}}  {len(one.kills):7}  {one.killed:6}  {len(one.alternatives):12}"
            for one in self.questions
        ]
        return "\n".join([*lines, "", self._end()])

    def _end(self) -> str:
        seeds = "1 seed" if self.seeds == 1 else f"{self.seeds} seeds"
        if self.problems:
            head = f"{self.mutants} mutants, {self.killed} killed, with {seeds}. What should not be:"
            return "\n".join([head, *(f"  {problem}" for problem in self.problems)])
        return (
            f"{self.mutants} mutants, {self.killed} killed, each by its own message, with {seeds}.\n"
            "Every reference and every alternative passes; every stub is not attempted."
        )


def measure(questions: Sequence[str] = (), seeds: int = 3, *, progress: bool = False) -> KillTable:
    """Give every mutant, reference, alternative and stub of these questions (default: of all) to the judge.

    Args:
        questions: ids.
        seeds: how many, from 0 on.
        progress: show a bar on stdout.

    Raises:
        ValueError: an id that there is not, or no seed.
    """
    if type(seeds) is not int or seeds < 1:
        raise ValueError(f"seeds: got {seeds!r}; at least 1 is needed")
    chosen = [question(one) for one in dict.fromkeys(questions or all_ids())]
    total = sum(len(one.mutants) for one in chosen)
    with tqdm(total=total, desc="judging", unit="mutant", disable=not progress, leave=False, file=sys.stdout) as bar:
        return KillTable(seeds, tuple(strength(one, seeds, bar.update) for one in chosen))


def strength(one: Question, seeds: int = 3, done: Callable[[], Any] = lambda: None) -> Strength:
    """The kill table of one question; `done` is called after each mutant."""
    problems: list[str] = []
    judges = [Judge(one, cases_of(one, seed)) for seed in range(seeds)]
    for role, answer in [("reference", one.reference), *(("alternative", answer) for answer in one.alternatives)]:
        for seed, judge in enumerate(judges):
            verdict = judge.examine(answer)
            if not verdict.passed:
                problems.append(f"the {role} {answer.__name__} does not pass with seed {seed}: {_first_words(verdict)}")
                break
    if (outcome := judges[0].examine(_stub(one)).outcome) != "not attempted":
        problems.append(f"the stub is {outcome!r}, and not 'not attempted'")
    for message, count in Counter(mutant.misconception for mutant in one.mutants).items():
        if count > 1:
            problems.append(f"{count} mutants share the message {message!r}")
    kills = []
    for mutant in one.mutants:
        kill, problem = _kill(judges, mutant)
        kills.append(kill)
        problems += [problem] if problem else []
        done()
    names = tuple(answer.__name__ for answer in one.alternatives)
    return Strength(one.id, tuple(kills), names, tuple(problems))


def _kill(judges: Sequence[Judge], mutant: Mutant) -> tuple[Kill, str | None]:
    verdicts = [judge.examine(mutant.answer) for judge in judges]
    problem = None
    for seed, verdict in enumerate(verdicts):
        if verdict.outcome not in ("failed", "error"):
            problem = f"the mutant {mutant.name} survives: with seed {seed} it is {verdict.outcome!r}"
        elif verdict.mutant != mutant.name:
            other = f"the message of {verdict.mutant}" if verdict.mutant else "no message"
            problem = f"the mutant {mutant.name} gets {other} with seed {seed}"
        if problem:
            break
    first = verdicts[0]
    by = "an error" if first.outcome == "error" else first.broken or ""
    return Kill(mutant.name, problem is None, by, first.case or "", mutant.misconception), problem


def _first_words(verdict: Verdict) -> str:
    return verdict.finding.what if verdict.finding else verdict.message or verdict.outcome


def _stub(one: Question) -> Callable[..., Any]:
    """The function as nbgrader leaves it in the learner's notebook."""
    parameters = ", ".join(one.parameters)
    scope: dict[str, Any] = {}
    exec(compile(f"def {one.function}({parameters}):\n    raise NotImplementedError()", "stub", "exec"), scope)
    return scope[one.function]
