"""Answers from a file, and scores as plain values, for scripts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from qlab.deploy.claims import claim

from ..files import read_mapping
from . import whiteboard
from .scenario import Scenario
from .score import Flagged, Judged, Score, score
from .second_opinion import Opinion
from .session import Interview

FORM = (
    "for each id of a question give a text, or `answer: text`, `code: text` and `follow_ups: {id: text}`; "
    "`qlab interview list --json` has the ids"
)


class AnswersError(ValueError):
    """A file of answers that cannot be read, or has another form."""


class Answer(BaseModel):
    """To one question: what was said, replies to follow-ups by their id, and code."""

    model_config = ConfigDict(extra="forbid")

    answer: str = ""
    follow_ups: dict[str, str] = {}
    code: str | None = None


def read(path: Path) -> dict[str, Answer]:
    """Answers by the id of their question.

    Raises:
        AnswersError: the file is missing, no YAML, or of another form.
    """
    try:
        found = read_mapping(path)
    except ValueError as error:
        raise AnswersError(f"answers: {error}; {FORM}") from None
    answers = {}
    for question, given in found.items():
        try:
            whole = given if isinstance(given, Mapping) else {"answer": given or ""}
            answers[str(question)] = Answer.model_validate(whole)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, (question, *first["loc"])))
            raise AnswersError(f"answers: {path}: {where}: {first['msg']}; {FORM}") from None
    return answers


def scores(begun: Interview, answers: Mapping[str, Answer]) -> list[Score]:
    """Of all questions of the interview; one without an answer has an empty one.

    Raises:
        AnswersError: an answer to a question or follow-up that there is not, or code where none is asked for.
    """
    found = []
    known = [one.id for one in begun.questions]
    for name in answers:
        if name not in known:
            raise AnswersError(f"answers: no question {name!r}; {begun.scenario.id} asks {', '.join(known)}")
    for question in begun.questions:
        given = answers.get(question.id, Answer())
        ladder = [one.id for one in question.follow_ups]
        for name in given.follow_ups:
            if name not in ladder:
                raise AnswersError(f"answers: {question.id}: no follow-up {name!r}; there are {', '.join(ladder)}")
        written = None
        if given.code is not None:
            if question.code is None:
                raise AnswersError(f"answers: {question.id}: no code is asked for; leave it out")
            written = whiteboard.judge(question.code, given.code)
        found.append(score(begun.scenario, question, given.answer, given.follow_ups, written))
    return found


def to_dict(
    scenario: Scenario, scores: Sequence[Score], opinions: Sequence[Opinion | None] | None = None
) -> dict[str, Any]:
    """Scores with quotes and what is missing, as JSON has them."""
    questions = [_question(scenario, one) for one in scores]
    for one, opinion in zip(questions, opinions or (), strict=False):
        one["second_opinion"] = opinion.to_dict() if opinion else None
    share = sum(one.share for one in scores) / max(1, len(scores))
    return {"scenario": scenario.id, "share": round(share, 4), "questions": questions}


def _question(scenario: Scenario, one: Score) -> dict[str, Any]:
    found: dict[str, Any] = {
        "id": one.question.id,
        "share": round(one.share, 4),
        "criteria": [_criterion(scenario, judged) for judged in one.criteria],
        "wrong_claims": [_flag(scenario, flag) for flag in one.wrong],
        "wrong_numbers": [
            {"said": number.said.text, "computed": str(number.number), "quote": number.quote.text}
            for number in one.wrong_numbers
        ],
        "not_counted": [{"text": ignored.text, "why": ignored.why} for ignored in one.ignored],
        "model_answer": scenario.shown(one.question.model_answer).strip(),
    }
    if one.written is not None:
        found["code"] = {"level": one.written.level, "outcome": one.written.outcome, "message": one.written.message}
    return found


def _criterion(scenario: Scenario, judged: Judged) -> dict[str, Any]:
    where = judged.criterion.repair
    return {
        "id": judged.criterion.id,
        "title": judged.criterion.title,
        "level": judged.level,
        "weight": judged.criterion.weight,
        "found": [
            {
                "point": found.point.id,
                "quote": found.quote.text,
                "firm": found.quote.firm,
                "prompted": found.prompted,
            }
            for found in judged.found
        ],
        "missing": [{"point": point.id, "says": scenario.shown(point.says)} for point in judged.missing],
        "repair": {"lesson": where.lesson, "exercise": where.exercise},
    }


def _flag(scenario: Scenario, flagged: Flagged) -> dict[str, Any]:
    flag = flagged.flag
    judged = claim(flag.claim) if flag.claim else None
    return {
        "id": flag.id,
        "claim": flag.claim,
        "verdict": judged.verdict if judged else "false",
        "instead": judged.instead if judged else scenario.shown(flag.instead or ""),
        "breaks": flag.breaks,
        "quote": flagged.quote.text,
    }
