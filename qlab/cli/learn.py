"""Commands for learners and instructors: start, reset, progress, drill, mutants, grade."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from ..learn.grade import NOT_DEFENDED
from .app import Json, app
from .output import bar, history, note, print_json, print_table, wants_progress


@app.command()
def start(
    part: Annotated[str, typer.Argument(help="The number of a part of the course: 02.")],
    as_json: Json = False,
) -> None:
    """Copy the lesson and the exercise of one part to work/, where you do not have them; nothing is overwritten."""
    from ..learn import workspace

    copies = workspace.start(part)
    _note_start([path.stem for path in copies.copied if path.parent != copies.work], as_json)
    if as_json:
        return print_json(copies.to_dict())
    print(f"{copies}\nTo open it: make lab, and in its list of files {copies.name(copies.main)}.")


@app.command()
def reset(
    part: Annotated[str, typer.Argument(help="The number of a part of the course: 02.")],
    lesson: Annotated[bool, typer.Option("--lesson", help="The lesson of that number, not the exercise.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Put a fresh copy of an exercise in the place of yours, which is kept beside it under another name."""
    from ..learn import workspace

    kind = workspace.LESSON if lesson else workspace.EXERCISE
    path = workspace.find(part, kind, workspace.repository())
    if not yes and not as_json and sys.stdin.isatty():
        typer.confirm(f"A fresh copy of the {kind.word} {path.stem}? Yours will be kept beside it.", abort=True)
    fresh = workspace.reset(part, lesson)
    if as_json:
        return print_json(fresh.to_dict())
    print(fresh)


@app.command()
def progress(as_json: Json = False) -> None:
    """Show where you stand with the graded questions: outcome, attempts, hints, minutes; and with the drills."""
    from contextlib import redirect_stdout
    from dataclasses import asdict

    from ..learn import desk
    from ..learn.drills import schedule

    with redirect_stdout(sys.stderr if as_json else sys.stdout):  # it may have to say that the file was damaged
        status = desk.status()
        trends = schedule.trends(history())
    if as_json:
        return print_json(status.to_dict() | {"drills": [asdict(one) | {"trend": one.words} for one in trends]})
    from rich.console import Console
    from rich.table import Table

    wide = max(100, Console().width)  # an id that is cut off cannot be copied into check(...)
    console = Console(highlight=False, markup=False, soft_wrap=True, width=wide)
    if status.note:
        console.print(status.note)
    for number, (exercise, rows) in enumerate(status.sets):
        table = Table(box=None, pad_edge=False)
        for name in desk.COLUMNS:
            table.add_column(name, justify="right" if name in desk.NUMBERS else "left", no_wrap=True)
        for row in rows:
            table.add_row(*desk.cells(row))
        console.print(f"{chr(10) if number else ''}{desk.total(exercise, rows)}  {desk.bar(rows)}", style="bold")
        console.print(table)
    if trends:
        right, asked = sum(one.right for one in trends), sum(one.asked for one in trends)
        console.print(f"\nDrills: {right} of {asked} right", style="bold")
        print_table(schedule.table(trends))


@app.command()
def drill(
    kinds: Annotated[list[str] | None, typer.Argument(metavar="KIND", help="Kinds: memory.weights. --list.")] = None,
    topic: Annotated[list[str] | None, typer.Option(help="All kinds of a topic: memory; may be repeated.")] = None,
    count: Annotated[int, typer.Option(help="How many questions.")] = 10,
    level: Annotated[int | None, typer.Option(help="1, 2 or 3. Default: as your answers call for.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same questions for everybody. Default: what you are weak at comes first.")
    ] = None,
    answers: Annotated[str | None, typer.Option(help="A YAML file with your replies; needs --seed.")] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the kinds and the topics, nothing else.")] = False,
    solutions: Annotated[bool, typer.Option("--solutions", help="With --json: answers and how to get them.")] = False,
    as_json: Json = False,
) -> None:
    """Ask questions with ever new numbers, and show the way to each answer; an empty line ends it.

    A GB is 10^9 bytes, a GiB 2^30. Your progress keeps every answer. With --json the questions are printed, not asked.
    """
    import random

    from ..learn import drills
    from ..learn.drills import session

    among = drills.chosen(kinds or (), topic or ())
    if not 1 <= count <= 10_000:
        raise ValueError(f"count: got {count}; give 1 to 10,000")
    if level not in (None, 1, 2, 3):
        raise ValueError(f"level: got {level}; choose from 1, 2, 3")
    if solutions and not as_json:
        raise ValueError("solutions: they are shown after each reply; add --json to print them beforehand")
    if answers is not None and seed is None:
        raise ValueError("answers: without a seed nobody knows which questions they are for; add --seed")
    if listed:
        return _list_kinds(among, as_json)
    if not as_json and answers is None:
        return _ask_drills(among, count, level, seed)
    seed = random.randrange(10**6) if seed is None else seed
    paper = session.fixed(among, count, level, seed)
    if answers is None:
        return print_json({"seed": seed, "drills": [one.to_dict(solutions) for one in paper]})
    from pathlib import Path

    replies = session.read_replies(Path(answers))
    done = session.marked(paper, replies)
    for one in done:
        note(one.event, as_json)
    if as_json:
        right = sum(one.marked.right for one in done)
        return print_json({"seed": seed, "right": right, "drills": [one.to_dict() for one in done]})
    for number, one in enumerate(done, 1):
        print(f"{number}. {one.drill.text}\n   Your reply: {one.reply or 'none'}. {one.marked.why}")
        print(*(f"   | {line}" for line in one.drill.worked), "", sep="\n")
    return print(session.total(done))


def _ask_drills(kinds: Any, count: int, level: int | None, seed: int | None) -> None:
    """A session in a terminal. Whatever ends it, the answers given are kept."""
    import random

    from rich.console import Console
    from rich.padding import Padding

    from ..learn.drills import session

    console = Console(highlight=False, markup=False)
    events = history()
    if seed is None:
        coming = session.adaptive(kinds, count, level, events, random.Random())
    else:
        coming = iter(session.fixed(kinds, count, level, seed))
    done: list[session.Answered] = []
    try:
        for number in range(1, count + 1):
            with console.status("Drawing a question …"):  # the first one may have to load torch
                asked = next(coming)
            console.print(f"\n{number} of {count}: {asked.kind}, level {asked.level}", style="bold")
            console.print(asked.text, *(Padding(choice, (0, 0, 0, 2)) for choice in asked.lettered))
            answered = session.ask(asked, lambda: input("> "), lambda marked: console.print(marked.why))
            if answered is None:
                break
            done.append(answered)
            events.append(answered.event)
            note(answered.event)
            console.print(answered.marked.why, style="green" if answered.marked.right else "red")
            console.print(*(Padding(line, (0, 0, 0, 4)) for line in asked.worked))
            console.print(f"So far {sum(one.marked.right for one in done)} of {len(done)} right.")
    except KeyboardInterrupt:
        pass
    console.print(f"\n{session.total(done)}")


def _list_kinds(kinds: Any, as_json: bool) -> None:
    if as_json:
        rows = [{"name": one.name, "topic": one.topic, "title": one.title, "lesson": one.lesson} for one in kinds]
        levels = [{"levels": list(one.levels), "needs": one.needs} for one in kinds]
        return print_json({"kinds": [row | more for row, more in zip(rows, levels, strict=True)]})
    cells: list[tuple[str, ...]] = [(one.name, one.title, one.lesson, ", ".join(map(str, one.levels))) for one in kinds]
    print_table((("kind", "what it trains", "lesson", "levels"), cells))


@app.command()
def mutants(
    questions: Annotated[
        list[str] | None, typer.Argument(help="Ids of questions: linear.absmax. Default: all of them.")
    ] = None,
    seeds: Annotated[int, typer.Option(help="How many sets of numbers each answer is tried on.")] = 3,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="One line for each mutant.")] = False,
    as_json: Json = False,
) -> None:
    """Try how strong the checks are: every wrong answer on record must fail, by its own message.

    Exit code 1 if one survives or is taken for another, or if a right answer fails.
    """
    from ..learn.mutants import measure

    table = measure(questions or (), seeds, progress=wants_progress(as_json))
    if as_json:
        print_json(table.to_dict())
    else:
        print(table.in_full() if verbose else table)
    if table.problems:
        raise typer.Exit(1)


@app.command(
    epilog="What this does NOT defend against:" + "".join(f"\n\n- {line};" for line in NOT_DEFENDED[:-1])
    + f"\n\n- {NOT_DEFENDED[-1]}."
)  # fmt: skip
def grade(
    files: Annotated[list[str], typer.Argument(help="Submitted notebooks, or folders of a class.")],
    master: Annotated[
        str | None, typer.Option(help="The master notebook. Default: that of each one's set, in solutions/.")
    ] = None,
    out: Annotated[str, typer.Option(help="The folder for the results.")] = "graded",
    isolation: Annotated[str, typer.Option(help="auto, namespaces or watchdog.")] = "auto",
    force: Annotated[bool, typer.Option("--force", help="Also as root without namespaces.")] = False,
    seed: Annotated[int | None, typer.Option(help="Of the inputs. Default: a new one, kept in the result.")] = None,
    jobs: Annotated[int | None, typer.Option(help="At the same time. Default: one for each core.")] = None,
    cell_seconds: Annotated[float, typer.Option(help="Limit for one cell.")] = 30.0,
    total_seconds: Annotated[float, typer.Option(help="Limit for one notebook.")] = 180.0,
    memory: Annotated[float, typer.Option(help="Limit for one process, in GiB.")] = 3.0,
    as_json: Json = False,
) -> None:
    """Grade submissions, each in a box of its own: points for each question, a JSON file, a feedback page.

    Exit code 1 if one of them could not be graded.
    """
    from pathlib import Path

    from ..learn.grade import report
    from ..learn.grade.grader import find, grade_files
    from ..learn.grade.isolation import Limits, reach, words

    limits = Limits(cell_seconds=cell_seconds, total_seconds=total_seconds, memory=int(memory * 2**30))
    level, count = reach(isolation, force), len(find(files))
    with bar(count, "graded", wants_progress(as_json) and count > 1) as step:
        results = grade_files(
            files, master=master, out=out, isolation=level, force=force, seed=seed, limits=limits, jobs=jobs, done=step
        )
    several = count > 1 or any(map(Path.is_dir, map(Path, files)))
    table = report.write_table(results, Path(out)) if several else None
    if as_json:
        print_json({"isolation": level, "results": [report.to_dict(result) for result in results]})
    else:
        print(f"Isolation: {words(level)}.")
        for result in results:
            print(report.line(result) if several else report.in_full(result))
        print(f"Written to {table or Path(out) / results[0].name}{'' if several else '.json and .html'}.")
    if any(result.error for result in results):
        raise typer.Exit(1)


def _note_start(names: list[str], as_json: bool) -> None:
    """Keep the start of exercise sets in the learner's progress; without it the copies are good all the same."""
    from ..learn.progress import Event

    for name in names:
        note(Event(name, "start"), as_json)
