"""An interview as it goes: what is asked next, how long it took, what was said. It is on disk after every step.

A follow-up is asked where the answer missed the point that it is for; at most `LADDER` of them for one question, in
the order of the scenario. Whoever closes the terminal comes back to the same question with the same clock: time runs
only while somebody counts it with `spend`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from qlab import __version__

from .. import progress
from ..files import write_whole
from ..progress import Event, Unavailable
from . import scenario as scenarios
from . import whiteboard
from .scenario import FollowUp, Question, Scenario
from .score import Score, score
from .whiteboard import TRIES, Written

LADDER = 3  # follow-ups to one question
FORM = 1  # of the file
_STATE = ("answering", "thought", "spent", "draft", "tries", "recorded", "only")


class InterviewError(ValueError):
    """A transcript that cannot be read, or a step that the interview is not at."""


ANSWER, CODE = "answer", "code"  # steps of a question; the others are follow-ups, by their id


@dataclass
class Turn:
    """A step that is done: what was said or written, and the seconds of thinking and of answering that it took."""

    question: str
    step: str
    text: str
    thought: float = 0.0
    spent: float = 0.0
    written: Written | None = None  # what became of code


@dataclass(frozen=True)
class Asked:
    """What is to be done now. `think` and `seconds` are what is offered for it."""

    question: Question
    step: str
    text: str
    number: int  # of the question, from 1
    think: int
    seconds: int


@dataclass
class Interview:
    """The state of one interview.

    answering: whether think-time is over. thought, spent: seconds of the step that is open. draft: what was typed
    for it so far. tries: how often its code was judged. recorded: whether the history has it. only: the question, where
    not all of the scenario are asked. file: of a scenario of one's own.
    """

    scenario: Scenario
    id: str
    started: datetime
    turns: list[Turn] = field(default_factory=list)
    answering: bool = False
    thought: float = 0.0
    spent: float = 0.0
    draft: str = ""
    tries: int = 0
    recorded: bool = False
    only: str | None = None
    file: Path | None = None

    @property
    def questions(self) -> tuple[Question, ...]:
        """Those of the scenario, or the one that was chosen."""
        return tuple(one for one in self.scenario.questions if self.only in (None, one.id))

    @property
    def asked(self) -> Asked | None:
        """What is to be done now; None when the interview is over."""
        for number, question in enumerate(self.questions, 1):
            done = [turn.step for turn in self.turns if turn.question == question.id]
            if ANSWER not in done:
                text = self.scenario.shown(question.ask)
                return Asked(question, ANSWER, text, number, question.think, question.seconds)
            if question.code is not None and CODE not in done:
                text = f"Now the code. It is checked as the exercise {question.code} is; you have {TRIES} tries."
                return Asked(question, CODE, text, number, 0, question.seconds)
            if follow := self._next_follow_up(question, done):
                return Asked(question, follow.id, self.scenario.shown(follow.ask), number, follow.think, follow.seconds)
        return None

    def _next_follow_up(self, question: Question, done: Sequence[str]) -> FollowUp | None:
        ladder = [one.id for one in question.follow_ups]
        asked = [ladder.index(step) for step in done if step in ladder]
        if len(asked) >= LADDER or self.turns[-1].question != question.id:
            return None
        missing = {f"{one.criterion.id}.{point.id}" for one in self.score(question).criteria for point in one.missing}
        # Upwards only: what was passed over, because it had been said, is not asked later.
        higher = question.follow_ups[max(asked, default=-1) + 1 :]
        return next((one for one in higher if one.unless in missing), None)

    def spend(self, seconds: float) -> None:
        """Count time of the open step, and write it down."""
        if self.answering:
            self.spent += seconds
        else:
            self.thought += seconds
        self.save()

    def begin_answer(self) -> None:
        """Think-time is over."""
        self.answering = True
        self.save()

    def answer(self, text: str) -> Turn:
        """Do what is asked now: say something, or write code, which is judged at once.

        Code that fails leaves the step open for another try; an empty text gives up on it.

        Raises:
            InterviewError: the interview is over.
        """
        asked = self.asked
        if asked is None:
            raise InterviewError("interview: it is over; begin another one")
        turn = Turn(asked.question.id, asked.step, text.strip(), self.thought, self.spent)
        if asked.step == CODE and asked.question.code is not None:
            turn.written = Written("not attempted", "Nothing was written.", self.tries + 1)
            if turn.text:
                turn.written = whiteboard.judge(asked.question.code, text, self.tries + 1)
                self.tries += turn.written.outcome != "not attempted"  # a stub that was handed in by mistake
                if turn.written.outcome != "passed" and self.tries < TRIES:
                    self.draft = text
                    self.save()
                    return turn
        self.turns.append(turn)
        self.answering, self.thought, self.spent, self.draft, self.tries = False, 0.0, 0.0, "", 0
        self.save()
        with suppress(Unavailable):  # at once, as the terminal may be closed now; fronts call it again, and say why not
            self.record()
        return turn

    def score(self, question: Question) -> Score:
        """Of what was said and written to one question so far, follow-ups included."""
        done = {turn.step: turn for turn in self.turns if turn.question == question.id}
        replies = {step: turn.text for step, turn in done.items() if step not in (ANSWER, CODE)}
        first = done[ANSWER].text if ANSWER in done else ""
        return score(self.scenario, question, first, replies, done[CODE].written if CODE in done else None)

    def scores(self) -> list[Score]:
        """Of all questions that were answered."""
        answered = {turn.question for turn in self.turns}
        return [self.score(question) for question in self.questions if question.id in answered]

    def events(self) -> list[Event]:
        """For the history: a level for each criterion."""
        return [
            Event(
                f"interview.{self.scenario.id}.{one.question.id}.{judged.criterion.id}", "interview", level=judged.level
            )
            for one in self.scores()
            for judged in one.criteria
        ]

    def record(self) -> None:
        """Put the levels of an interview that is over into the history, once.

        Raises:
            Unavailable: the history cannot be written; nothing is lost, for this can be called again.
        """
        if self.recorded or self.asked is not None:
            return
        for event in self.events():
            progress.record(event)
        self.recorded = True
        self.save()

    @property
    def path(self) -> Path:
        return folder() / f"{self.id}.json"

    def to_dict(self) -> dict[str, Any]:
        """The whole state as plain values."""
        return {
            "form": FORM,
            "qlab": __version__,
            "scenario": str(self.file or self.scenario.id),
            "started": self.started.isoformat(),
            "turns": [asdict(turn) for turn in self.turns],
            **{name: getattr(self, name) for name in _STATE},
        }

    def save(self) -> None:
        """Write the whole state, then rename."""
        write_whole(self.path, json.dumps(self.to_dict(), indent=1, ensure_ascii=False) + "\n")


def _turn(read: dict[str, Any]) -> Turn:
    written = read.pop("written")
    return Turn(**read, written=Written(**written) if written else None)


def folder() -> Path:
    """Where transcripts are kept: beside the progress file."""
    return progress.location().with_name("interviews")


def begin(name: str, only: str | None = None) -> Interview:
    """A new interview. Nothing is on disk before the first step.

    Args:
        only: the id of one question.

    Raises:
        ScenarioError: no such scenario, or it has no such question.
    """
    found, now = scenarios.load(name), datetime.now(UTC)
    file = None if found.id == name else Path(name).resolve()
    if only is not None:
        only = found.question(only).id
    return Interview(found, f"{found.id}-{now:%Y%m%d-%H%M%S-%f}", now, only=only, file=file)


def resume(path: Path) -> Interview:
    """An interview from its file.

    Raises:
        InterviewError: the file cannot be read, or is none.
        ScenarioError: its scenario is gone.
    """
    try:
        state = json.loads(path.read_text(encoding="utf-8"))
        if state["form"] != FORM:
            raise InterviewError(f"{path.name}: form {state['form']}; this qlab reads form {FORM}")
        scenario = scenarios.load(state["scenario"])
        found = Interview(
            scenario,
            path.stem,
            datetime.fromisoformat(state["started"]),
            [_turn(turn) for turn in state["turns"]],
            file=None if scenario.id == state["scenario"] else Path(state["scenario"]),
            **{name: state[name] for name in _STATE},
        )
    except (InterviewError, scenarios.ScenarioError):
        raise
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InterviewError(f"{path.name}: no transcript ({error}); move it away to begin afresh") from None
    return found


def kept() -> list[Path]:
    """All transcripts, the one that was changed last first."""
    return sorted(folder().glob("*.json"), key=lambda one: one.stat().st_mtime, reverse=True)


def unfinished() -> list[Path]:
    """Transcripts of interviews that are not over. What cannot be read is left out."""
    return [path for path in kept() if _is_open(path)]


def find(id: str | None = None, unfinished: bool = True) -> Interview:
    """An interview by its id, or the last one; of those that are not over, unless `unfinished` is False.

    Raises:
        InterviewError: there is none, or its file cannot be read.
    """
    if id is not None:
        path = folder() / f"{id}.json"
        if path.parent != folder() or not path.exists():
            known = ", ".join(one.stem for one in kept()[:3]) or "none yet"
            raise InterviewError(f"interview: there is no {id!r}; the last ones: {known}")
        return resume(path)
    for path in kept():
        if not unfinished or _is_open(path):
            return resume(path)
    raise InterviewError("interview: there is none to go on with; begin one with `qlab interview`")


def _is_open(path: Path) -> bool:
    try:
        return resume(path).asked is not None
    except (InterviewError, scenarios.ScenarioError):
        return False
