"""Candidates and their answers in plain text: what each sentence earned, which follow-ups come, all side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from datetime import UTC, datetime

from . import session
from .report import brief, instead, short
from .scenario import Point, Question, Scenario
from .score import Judged, Score, score
from .sentences import sentences

SPOKEN = 2.5  # words in a second
BEGINNING = 50  # characters of a quote that stands there in full already


def scores(scenario: Scenario, question: Question, answers: Mapping[str, str]) -> dict[str, Score]:
    """The scores of one question by candidate. Who said nothing is left out; how lines are broken does not matter."""
    return {name: score(scenario, question, " ".join(text.split())) for name, text in answers.items() if text.strip()}


def credited(name: str, one: Score, width: int = 106) -> str:
    """An answer sentence by sentence, each with the points that it earned and the red flags that it raised."""
    words = len(one.text.split())
    lines = [f"{name.upper()}, {words} words, about {words / SPOKEN:.0f} seconds"]
    earned = [
        (f"{judged.criterion.id}: {found.point.id}", found.quote.text)
        for judged in one.criteria
        for found in judged.found
    ]
    earned += [(f"RED FLAG {flag.flag.id}", flag.quote.text) for flag in one.flags]
    earned += [(f"FALSE {aside.flag.id}", aside.quote.text) for aside in one.asides]
    for said in sentences(one.text):
        what = [label for label, quote in earned if quote in said.text or said.text in quote]
        lines += textwrap.wrap(said.text, width, initial_indent="  ", subsequent_indent="  ")
        lines += [f"      -> {', '.join(what)}"] * bool(what)
    return "\n".join(lines) + "\n"


def talk(scenario: Scenario, question: Question, answer: str, replies: Mapping[str, str]) -> session.Interview:
    """The interview that an answer leads to: the follow-ups that come, with these replies. It is kept nowhere.

    Args:
        replies: by the id of a follow-up; one that is not there is answered with nothing.
    """
    held = session.Interview(scenario, "", datetime.now(UTC), only=question.id)
    held.turns.append(session.Turn(question.id, session.ANSWER, " ".join(answer.split())))
    while asked := held.asked:
        held.turns.append(session.Turn(question.id, asked.step, replies.get(asked.step, "")))
    return held


def why_asked(scenario: Scenario, question: Question, held: session.Interview, width: int = 110) -> str:
    """Each follow-up of a talk with the point that was missed, and those that did not come."""
    ladder = {one.id: one for one in question.follow_ups}
    steps = [turn.step for turn in held.turns]
    lines = []
    for number, step in enumerate((step for step in steps if step in ladder), 1):
        missed = brief(scenario, question.points[ladder[step].unless])
        text = f"{number}. {step}, for want of a sentence that {missed}"
        lines += textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="     ")
    skipped = [step for step in ladder if step not in steps]
    return "\n".join([*lines, f"  not asked: {', '.join(skipped) or 'none'}"]) + "\n"


def side_by_side(scenario: Scenario, scores: Mapping[str, Score], criterion: str, width: int = 116) -> str:
    """A criterion with the levels of the candidates, and for each point the words that each said for it.

    Below that the falsehoods that capped a level, and what to say instead.

    Args:
        scores: of one question, by candidate.
        criterion: its id.
        width: characters of a line.
    """
    judged = {name: next(c for c in one.criteria if c.criterion.id == criterion) for name, one in scores.items()}
    asked = next(iter(judged.values())).criterion
    column = 4 + max(map(len, judged))
    levels = ", ".join(f"{name} {one.level}" for name, one in judged.items())
    lines = textwrap.wrap(f"{asked.title.upper()}: {levels} (of 4)", width)
    shown: dict[str, set[str]] = {name: set() for name in judged}
    for point in asked.points:
        lines += ["", *textwrap.wrap(f"{brief(scenario, point)}:", width)]
        for name, one in judged.items():
            words = _words(one, point, shown[name])
            lines += textwrap.wrap(f"  {name:{column - 2}}{words}", width, subsequent_indent=" " * column)
    for name, one in judged.items():
        for flag in one.broken:
            said = f"{name}, a red flag, level 1 at most: “{short(flag.quote.text)}”"
            better = instead(scenario, flag.flag)
            lines += ["", *textwrap.wrap(said, width), *textwrap.wrap(better, width)]
    return "\n".join(lines)


def _words(judged: Judged, point: Point, shown: set[str]) -> str:
    """What was said for a point, and how it counts. Of words that were `shown` for another one, the beginning."""
    for found in judged.found:
        if found.point == point:
            quote = short(found.quote.text, BEGINNING) if found.quote.text in shown else short(found.quote.text)
            shown.add(found.quote.text)
            notes = [*["(as a guess)"] * (not found.quote.firm), *["(after a follow-up)"] * found.prompted]
            return " ".join([f"“{quote}”", *notes])
    return "-"
