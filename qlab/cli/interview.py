"""`qlab interview …`: a mock interview in the terminal, or scored from a file."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from .app import Json, app
from .output import history, print_json, print_table

interview = typer.Typer(add_completion=False, help="Rehearse an interview: questions, follow-ups, a score with quotes.")
app.add_typer(interview, name="interview")

Name = Annotated[str, typer.Argument(help="A scenario, see `qlab interview list`; or a YAML file of your own.")]


@interview.callback(invoke_without_command=True)
def _choose(context: typer.Context) -> None:
    """Rehearse an interview: questions, follow-ups, a score with quotes.

    Without a command: goes on with the interview that was stopped, or lets you choose one.
    """
    if context.invoked_subcommand is not None:
        return
    from ..learn.interview import session, terminal

    if waiting := session.unfinished():
        print(f"There is an interview that was stopped: {waiting[0].stem}")
        if typer.confirm("Go on with it?", default=True):
            return _go_on(session.resume(waiting[0]))
    table = terminal.overview(history())
    print_table(table)
    name = typer.prompt("\nWhich one", default=_suggested() or table[1][0][0])
    return run(name)


@interview.command("list")
def list_scenarios(as_json: Json = False) -> None:
    """List the interviews, how you last did, and which criteria are due again."""
    from ..learn.interview import scenario, terminal

    if as_json:
        return print_json({"scenarios": [_summary(scenario.load(name)) for name in scenario.names()]})
    print_table(terminal.overview(history()))
    return _say_stopped()


@interview.command()
def run(
    name: Name,
    question: Annotated[str | None, typer.Option(help="Ask only this question of it, by its id.")] = None,
    answers: Annotated[
        str | None,
        typer.Option(help="A YAML file: question id to a text, or to `answer`, `code`, `follow_ups`. Not kept."),
    ] = None,
    judge: Annotated[
        str | None,
        typer.Option(help="A second opinion by a language model: an OpenAI-compatible URL, or a folder with a model."),
    ] = None,
    judge_model: Annotated[str | None, typer.Option(help="The model's name at that URL.")] = None,
    as_json: Json = False,
) -> None:
    """Begin an interview; with --answers, score written answers instead.

    With a URL the key is taken from QLAB_JUDGE_KEY, if that is set. Nothing leaves this machine without --judge.
    """
    from pathlib import Path

    from ..learn.interview import answered, second_opinion, session

    if as_json and answers is None:
        raise ValueError("json: an interview is a talk; give the answers with --answers to have them scored as JSON")
    asked = second_opinion.judge(judge, judge_model) if judge else None
    begun = session.begin(name, question)
    if answers is None:
        return _go_on(begun, asked)
    scores = answered.scores(begun, answered.read(Path(answers)))
    opinions = _opinions(begun, scores, asked)
    if as_json:
        return print_json(answered.to_dict(begun.scenario, scores, opinions))
    from rich.console import Console

    from ..learn.interview import terminal

    return terminal.report(begun.scenario, scores, Console(highlight=False, markup=False), opinions)


@interview.command()
def resume(
    id: Annotated[str | None, typer.Argument(help="Of the interview. Default: the last one that was stopped.")] = None,
) -> None:
    """Go on with an interview that was stopped: the same question, the same clock."""
    from ..learn.interview import session

    _go_on(session.find(id))


@interview.command()
def show(
    id: Annotated[str | None, typer.Argument(help="Of the interview. Default: the last one.")] = None,
    as_json: Json = False,
) -> None:
    """Show an interview again: what was said, and what it was worth."""
    from rich.console import Console

    from ..learn.interview import answered, session, terminal

    found = session.find(id, unfinished=False)
    if as_json:
        if found.asked is not None:
            return print_json(found.to_dict())
        return print_json(found.to_dict() | answered.to_dict(found.scenario, found.scores()))
    console = Console(highlight=False, markup=False)
    terminal.transcript(found, console)
    if found.asked is not None:
        return print(f"\nIt is not over, so there is no score yet. To go on: qlab interview resume {found.id}")
    return terminal.report(found.scenario, found.scores(), console)


@interview.command("history")
def show_history(as_json: Json = False) -> None:
    """Show each criterion's levels so far, whether they get better, and when it is due again."""
    from ..learn.interview import history as standings

    found = standings.standings(history())
    if as_json:
        return print_json({"criteria": [one.to_dict() for one in found]})
    if found:
        print_table(standings.table(found))
    else:
        print("No interview is in your history yet. To begin: qlab interview")
    return _say_stopped()


@interview.command()
def weak(as_json: Json = False) -> None:
    """Ask again the one question whose criteria are due and weakest."""
    from datetime import UTC, datetime

    from ..learn.interview import history as standings
    from ..learn.interview import session

    due = standings.due(history(), datetime.now(UTC))
    if as_json:
        return print_json({"due": [one.to_dict() for one in due]})
    if not due:
        later = min((one.due for one in standings.standings(history())), default=None)
        until = f" until {later:%Y-%m-%d %H:%M} UTC" if later else ""
        return print(f"Nothing is due{until}. For a whole interview: qlab interview")
    first = due[0]
    print(f"Last time {first.levels[-1]} of 4: {first.criterion.title}")
    return _go_on(session.begin(first.scenario.id, first.question))


@interview.command()
def agreement(
    bank: Annotated[str, typer.Argument(help="A folder with a YAML file of labelled answers for each scenario.")],
    as_json: Json = False,
) -> None:
    """Compare the scorer with labelled answers, and with what length alone would guess."""
    from pathlib import Path

    from ..learn.interview import agreement as comparison

    found = comparison.measure(Path(bank)).to_dict()
    if as_json:
        return print_json(found)
    for name, value in found.items():
        print(f"{name.replace('_', ' ')}: {value}")


def _go_on(begun: Any, asked: Any = None) -> None:
    """Play an interview to its end, show the score, keep it in the history once."""
    from rich.console import Console

    from ..learn.interview import terminal

    console = Console(highlight=False, markup=False)
    if not terminal.play(begun, console):
        return
    scores = begun.scores()
    terminal.report(begun.scenario, scores, console, _opinions(begun, scores, asked))
    try:
        begun.record()
    except OSError as error:
        print(f"This was not noted in your progress: {error}", file=sys.stderr)
    print(f"Kept in {begun.path}. To see it again: qlab interview show {begun.id}", file=sys.stderr)


def _opinions(begun: Any, scores: Any, asked: Any) -> list[Any] | None:
    """Of a language model, if one was chosen. Where it gives none the score stands, and it is said."""
    if asked is None:
        return None
    found = []
    for one in scores:
        try:
            found.append(asked(begun.scenario, one))
        except ValueError as error:
            print(f"No second opinion on {one.question.id}: {error}", file=sys.stderr)
            found.append(None)
    return found


def _say_stopped() -> None:
    """Interviews that can be gone on with."""
    from ..learn.interview import session

    for path in session.unfinished():
        print(f"Stopped: qlab interview resume {path.stem}")


def _summary(one: Any) -> dict[str, Any]:
    """A scenario with the ids that a file of answers needs."""
    questions = [
        {"id": question.id, "follow_ups": [follow.id for follow in question.follow_ups], "exercise": question.code}
        for question in one.questions
    ]
    return {"name": one.id, "title": one.title, "role": one.role, "minutes": one.minutes, "questions": questions}


def _suggested() -> str | None:
    """The scenario with the criterion that is due and weakest."""
    from datetime import UTC, datetime

    from ..learn.interview import history as standings

    due = standings.due(history(), datetime.now(UTC))
    return due[0].scenario.id if due else None
