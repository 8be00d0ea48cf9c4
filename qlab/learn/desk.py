"""What a learner calls in an exercise: `check`, `hint`, `solution`, `status`, `reset`, and the notebook's `made_for`.

Everything goes to stdout: nbgrader gives no points to a cell that wrote to stderr. torch loads with the first check.
"""

from __future__ import annotations

import html
import inspect
import os
import textwrap
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from .. import __version__
from . import progress
from .progress import Event, Summary, Unavailable, summarize
from .question import as_python
from .questions import SETS, ExerciseSet, all_ids, exercise_set, question

if TYPE_CHECKING:
    from .judge import Verdict
    from .question import Question

_WIDTH = 100
_PATIENCE = 3  # attempts that failed before the solution is offered
_BAR = 20  # characters

_versions: dict[str, str] = {}  # exercise set: the version of qlab that its notebook in this kernel was made for


def check(question_id: str, function: Callable[..., Any] | None, seed: int = 0) -> Verdict:
    """Check your answer to a question, and print what was found.

    Args:
        question_id: as on the question's card, such as "linear.zero_point".
        function: the function that you wrote, not its result.
        seed: another one checks with other numbers.

    Returns:
        The verdict; `.passed` tells in one word.

    Raises:
        ValueError: there is no such question.
        TypeError: the arguments are swapped, or the result of a call was given instead of the function.
    """
    if _in_a_box():
        from .judge import Verdict

        _known(question_id)
        message = "Not judged here: the grader judges it, outside of this notebook."
        print(f"{question_id}: {message[0].lower()}{message[1:]}")
        return Verdict(question_id, "not attempted", message=message)
    asked = _question(question_id)
    if function is not None and function is not ... and not callable(function):
        raise TypeError(
            f"function: a {type(function).__name__} was given, perhaps the result of a call; "
            f'give the function itself: check("{asked.id}", {asked.function})'
        )
    if type(seed) is not int:
        raise TypeError(f"seed is {seed!r}; a whole number is needed")
    from .judge import examine

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # they go to stderr, and none is about the answer
        verdict = examine(asked, function, seed)
    print(verdict, flush=True)
    given = getattr(function, "__name__", asked.function)
    if verdict.outcome in ("failed", "error") and given not in (asked.function, "<lambda>"):
        _say(f"You gave the function {given}; this question asks for {asked.function}.")
    _say_version(asked.id)
    summary = _record(Event(asked.id, "check", outcome=verdict.outcome, mutant=verdict.mutant))
    if _is_recorded():
        _say_next(asked, verdict, summary)
    return verdict


def hint(question_id: str, n: int | None = None) -> None:
    """Print a hint: the n-th, or the next one that you have not seen.

    Raises:
        ValueError: there is no such question, or no such hint.
        TypeError: `n` is no whole number.
    """
    if _in_a_box():
        return _say_not_here(question_id, "hints")
    asked = _question(question_id)
    count = len(asked.hints)
    if n is None:
        seen = _summary(asked.id).hints_seen
        n = next((number for number in range(1, count + 1) if number not in seen), count)
        if n in seen:
            print(f"{asked.id}: you have seen all {count} hints. This is the last one again.")
    elif type(n) is not int:
        raise TypeError(f"n is {n!r}; a whole number from 1 to {count} is needed, or nothing for the next hint")
    elif not 1 <= n <= count:
        raise ValueError(f"n is {n}; {asked.id} has the hints 1 to {count}")
    print(f"{asked.id}, hint {n} of {count}:")
    _say(asked.hints[n - 1])
    _say("If that does not help:", _call("hint", asked.id, n + 1) if n < count else _call("solution", asked.id))
    _record(Event(asked.id, "hint", hint=n))


def solution(question_id: str) -> None:
    """Print a right answer and what to learn from it.

    Raises:
        ValueError: there is no such question.
    """
    if _in_a_box():
        return _say_not_here(question_id, "solution")
    asked = _question(question_id)
    summary = _summary(asked.id)
    print(f"{asked.id}, a solution ({asked.title}):")
    if _is_recorded() and not summary.attempts:
        _say("You have not attempted this one yet. Reading is fine; close it then, and write it from memory.")
    print()
    print(textwrap.dedent(inspect.getsource(as_python(asked.reference))).rstrip())
    print()
    _say(asked.explanation, indent="")
    _record(Event(asked.id, "solution"))


def reset(question_id: str) -> None:
    """Forget your attempts and hints of one question. Your notebook stays as it is.

    Raises:
        ValueError: there is no such question.
    """
    _known(question_id)
    if _is_recorded() and _try_to_record(Event(question_id, "reset")) is None:
        return
    print(f"{question_id}: your attempts and hints are forgotten.")
    _say(
        f"Your notebook is as it was. In a terminal, {_reset_command(question_id)} brings a fresh one and keeps yours."
    )


def made_for(set_name: str, version: str) -> None:
    """Said by an exercise's first cell: which exercise set it holds, and for which version of qlab it was made.

    Raises:
        ValueError: there is no such set.
        TypeError: `version` is no string.
    """
    exercise = exercise_set(set_name)
    if not isinstance(version, str):
        raise TypeError(f'version is {version!r}; a string such as "{__version__}" is needed')
    _versions[exercise.name] = version


@dataclass(frozen=True)
class Status:
    """Where the learner stands, by exercise set. Shown as a table: in words, and in a notebook as HTML."""

    sets: tuple[tuple[ExerciseSet, tuple[Summary, ...]], ...]
    note: str = ""  # why nothing could be read

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as JSON has them."""
        return {
            "sets": [
                {"name": one.name, "passed": _passed(rows), "questions": [asdict(row) for row in rows]}
                for one, rows in self.sets
            ],
            "note": self.note,
        }

    def __str__(self) -> str:
        lines = [textwrap.fill(self.note, _WIDTH, break_long_words=False), ""] if self.note else []
        for one, rows in self.sets:
            table = [COLUMNS, *map(cells, rows)]
            widths = [max(map(len, column)) for column in zip(*table, strict=True)]
            lines.append(f"{total(one, rows)}  {bar(rows)}")
            lines += ["  " + "  ".join(map(_aligned, row, widths, COLUMNS)).rstrip() for row in table]
            lines.append("")
        return "\n".join(lines).rstrip()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        note = f"<p>{html.escape(self.note)}</p>" if self.note else ""
        return f"<div>{note}{''.join(_set_as_html(*each) for each in self.sets)}</div>"


def status() -> Status:
    """Where you stand: as the last line of a cell it shows itself; elsewhere `print(status())`."""
    note = ""
    history: Sequence[Event] = ()
    try:
        history = progress.events()
    except Unavailable as error:
        note = f"Your progress could not be read. {error}"
    rows = ((one, tuple(summarize(each, history) for each in one.questions)) for one in SETS)
    return Status(tuple(rows), note)


COLUMNS = ("Question", "Outcome", "Attempts", "Hints", "Solution", "Minutes")
NUMBERS = ("Attempts", "Hints", "Minutes")  # aligned to the right


def cells(row: Summary) -> tuple[str, ...]:
    """One row of the table, under `COLUMNS`."""
    return row.question, row.outcome, str(row.attempts), str(row.hints), row.solution, f"{row.minutes:.0f}"


def total(one: ExerciseSet, rows: Sequence[Summary]) -> str:
    """The heading of a set: "02_linear: 3 of 9 passed"."""
    return f"{one.name}: {_passed(rows)} of {len(rows)} passed"


def bar(rows: Sequence[Summary]) -> str:
    """The total as a bar of characters."""
    full = _BAR * _passed(rows) // len(rows)
    return f"[{'#' * full}{'.' * (_BAR - full)}]"


def _passed(rows: Sequence[Summary]) -> int:
    return sum(row.passed for row in rows)


def _aligned(text: str, width: int, column: str) -> str:
    return text.rjust(width) if column in NUMBERS else text.ljust(width)


def _set_as_html(one: ExerciseSet, rows: Sequence[Summary]) -> str:
    """A heading, a bar with its number beside it, and a table whose first column heads the rows."""
    share = 100 * _passed(rows) / len(rows)
    side = [f' style="text-align:{"right" if name in NUMBERS else "left"}"' for name in COLUMNS]
    head = "".join(f'<th scope="col"{at}>{name}</th>' for name, at in zip(COLUMNS, side, strict=True))
    body = ""
    for row in rows:
        first, *rest = map(html.escape, cells(row))
        data = "".join(f"<td{at}>{text}</td>" for text, at in zip(rest, side[1:], strict=True))
        body += f'<tr><th scope="row"{side[0]}>{first}</th>{data}</tr>'
    return (
        f"<h3>{html.escape(one.name)}</h3>"
        f"<p>{_passed(rows)} of {len(rows)} passed</p>"
        # The words above say the same, so a screen reader need not read the bar.
        '<div aria-hidden="true" style="width:20em; height:0.8em; border:1px solid currentColor">'
        f'<div style="width:{share:.0f}%; height:100%; background:currentColor"></div></div>'
        f"<table><caption>Questions of {html.escape(one.name)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    )


def _known(question_id: Any) -> None:
    """Refuse what is no id, and say what to write instead."""
    if isinstance(question_id, str):
        if question_id not in all_ids():
            question(question_id)  # says which ids are near
        return
    if callable(question_id):
        raise TypeError(
            "question_id: a function was given; the id comes first: "
            f'check("{all_ids()[0]}", {getattr(question_id, "__name__", "your_function")})'
        )
    raise TypeError(f'question_id is a {type(question_id).__name__}; a string such as "{all_ids()[0]}" is needed')


def _question(question_id: Any) -> Question:
    _known(question_id)
    return question(question_id)


def _set_of(question_id: str) -> ExerciseSet:
    return next(one for one in SETS if question_id in one.questions)


def _in_a_box() -> bool:
    """Whether this is our grader's box, which does not hold the questions."""
    return bool(os.environ.get("QLAB_GRADING"))


def _is_recorded() -> bool:
    """Not while somebody else's work is graded: by nbgrader, or by our grader."""
    return not (os.environ.get("NBGRADER_EXECUTION") or _in_a_box())


def _record(event: Event) -> Summary:
    """Record an event; where the question stands now, or as if nothing had happened where that is not known."""
    if not _is_recorded():
        return Summary(event.question)
    return _try_to_record(event) or Summary(event.question)


def _try_to_record(event: Event) -> Summary | None:
    try:
        return summarize(event.question, progress.record(event))
    except Unavailable as error:
        _say(f"This was not recorded in your progress; everything else works. {error}")
        return None


def _summary(question_id: str) -> Summary:
    """Where a question stands, or a blank where that cannot be read; recording will say why."""
    if not _is_recorded():
        return Summary(question_id)
    try:
        return summarize(question_id, progress.events(question_id))
    except Unavailable:
        return Summary(question_id)


def _say_not_here(question_id: str, what: str) -> None:
    """A learner may have left the call in the cell of an answer, which must not break."""
    _known(question_id)
    print(f"{question_id}: no {what} here, while the notebook is graded.")


def _say_version(question_id: str) -> None:
    version = _versions.get(_set_of(question_id).name, __version__)
    if version != __version__:
        _say(
            f"This notebook was made for qlab {version}, and you have {__version__}. "
            f"In a terminal, {_reset_command(question_id)} brings the exercise that belongs to yours."
        )


def _say_next(asked: Question, verdict: Verdict, summary: Summary) -> None:
    """What to do now, after a check."""
    if verdict.passed:
        seen = ", and after reading the solution" if summary.solution == "before pass" else ""
        if summary.attempts:  # 0 where it could not be recorded
            _say(f"Passed with {_counted(summary.attempts, 'attempt')} and {_counted(summary.hints, 'hint')}{seen}.")
        if summary.solution == "not seen":
            _say("To compare:", _call("solution", asked.id))
    elif verdict.outcome != "not attempted":
        number = next((n for n in range(1, len(asked.hints) + 1) if n not in summary.hints_seen), None)
        if number:
            _say(f"Hint {number} of {len(asked.hints)}:", _call("hint", asked.id, number))
        if summary.attempts >= _PATIENCE or not number:
            _say("A right answer, explained:", _call("solution", asked.id))


def _call(function: str, question_id: str, *rest: int) -> str:
    return f'{function}("{question_id}"{"".join(f", {argument}" for argument in rest)})'


def _reset_command(question_id: str) -> str:
    return f"`qlab reset {_set_of(question_id).number}`"


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number or 'no'} {what}s"


def _say(text: str, code: str = "", indent: str = "  ") -> None:
    """Print a paragraph; `code` at its end stays on one line."""
    # textwrap does not break at a no-break space.
    joined = f"{text} {code.replace(' ', chr(0xA0))}".rstrip()
    lines = textwrap.fill(
        joined, _WIDTH, initial_indent=indent, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    print(lines.replace(chr(0xA0), " "), flush=True)
