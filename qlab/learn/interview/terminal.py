"""The interview in a terminal: questions, think-time, a clock that runs while you type, the score with its quotes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.padding import Padding
from rich.panel import Panel
from rich.table import Table

from . import history, whiteboard
from .keyboard import Listen, Prompt, keyboard
from .report import TOP, credit, instead, lack, minutes, repair, said, short
from .scenario import Scenario, load, names
from .score import Judged, Score
from .second_opinion import Opinion
from .session import ANSWER, CODE, Asked, Interview

TICK = 1.0  # seconds between two looks at the clock; so much is lost when the terminal is closed


def play(interview: Interview, console: Console, listen: Listen | None = None) -> bool:
    """Ask what is left of an interview; False where it was interrupted, and can go on later.

    Args:
        listen: gives the next line, the keyboard's by default. EOFError and KeyboardInterrupt from it interrupt.
    """
    console.print(Panel(_opening(interview), title=interview.scenario.title, title_align="left"))
    if interview.turns:
        _turns(interview, console)
    listen = listen or keyboard()
    try:
        while (asked := interview.asked) is not None:
            _step(interview, asked, console, listen)
    except (EOFError, KeyboardInterrupt):
        console.print(f"\nStopped; everything is kept. To go on: qlab interview resume {interview.id}", soft_wrap=True)
        return False
    return True


def _step(interview: Interview, asked: Asked, console: Console, listen: Listen) -> None:
    count = len(interview.questions)
    what = f"Question {asked.number} of {count}" if asked.step == ANSWER else "Follow-up"
    console.print(f"\n{'At the whiteboard' if asked.step == CODE else what}", style="bold")
    console.print(Padding(asked.text.strip(), (0, 0, 0, 2)))
    if asked.step == CODE:
        return _write(interview, asked, console, listen)
    if not interview.answering and asked.think:
        thinking = f"of {minutes(asked.think)} to think; Enter when you are ready"
        _add(interview, _line(interview, listen, lambda _: f"[{minutes(interview.thought)} {thinking}] "))
    if not interview.answering:
        interview.begin_answer()
    if interview.draft:
        console.print(Padding(interview.draft, (0, 0, 0, 2)), style="dim")
    console.print("Answer in as many lines as you like; an empty line ends the answer.", style="dim")
    _listen(interview, asked, console, listen)
    turn = interview.answer(interview.draft)
    if turn.spent > asked.seconds:
        late = minutes(turn.spent - asked.seconds)
        console.print(f"That took {late} more than the {minutes(asked.seconds)} that you had.", style="yellow")


def _listen(interview: Interview, asked: Asked, console: Console, listen: Listen) -> None:
    """Adds lines to the draft until an empty one; each is on disk at once. An Enter before any line asks back."""
    said = warned = False
    while True:
        line = _line(interview, listen, _time(interview, asked))
        if line.strip():
            _add(interview, line)
            said = True
        elif said or warned:
            return
        else:
            warned = True
            what = "hands in what stands above" if interview.draft else "goes on without an answer"
            so_far = "added" if interview.draft else "said"
            console.print(f"You have {so_far} nothing. Enter once more {what}.", style="yellow")


def _line(interview: Interview, listen: Listen, prompt: Prompt) -> str:
    """The next line. Until it is there, what is typed so far stands in the draft, and so on disk."""
    before = interview.draft

    def asked(typed: str) -> str:
        interview.draft = _joined(before, typed)
        return prompt(typed)

    with _clock(interview):
        line = listen(asked)
    interview.draft = before
    return line


def _add(interview: Interview, line: str) -> None:
    interview.draft = _joined(interview.draft, line)
    interview.save()


def _joined(*lines: str) -> str:
    return "\n".join(line for line in lines if line.strip())


def _time(interview: Interview, asked: Asked) -> Prompt:
    return lambda _: f"[{minutes(interview.spent)} of {minutes(asked.seconds)}] "


def _write(interview: Interview, asked: Asked, console: Console, listen: Listen) -> None:
    """Code is written in an editor, in a file of its own."""
    exercise = asked.question.code or ""
    path = interview.path.with_suffix(".py")
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(whiteboard.stub(exercise), encoding="utf-8")
    interview.begin_answer()
    console.print(f"Write it in {path}\nThen press Enter. To give it up, type skip.")
    while True:
        with _clock(interview):
            line = listen(_time(interview, asked))
        given_up = line.strip().lower() == "skip"
        with console.status("The exercise's own check runs …"):
            turn = interview.answer("" if given_up else path.read_text(encoding="utf-8"))
        if turn.written is not None and not given_up:
            console.print(turn.written.message)
        now = interview.asked
        if now is None or now.step != CODE:
            return
        console.print(f"{whiteboard.TRIES - interview.tries} more to try. Mend it and press Enter, or type skip.")


@contextmanager
def _clock(interview: Interview) -> Iterator[None]:
    """Counts the time inside, and keeps it on disk, so that a closed terminal loses a second at most."""
    ended, guard = threading.Event(), threading.Lock()
    last = datetime.now(UTC)

    def count() -> None:
        nonlocal last
        with guard:
            now = datetime.now(UTC)
            interview.spend((now - last).total_seconds())
            last = now

    def run() -> None:
        while not ended.wait(TICK):
            count()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        count()


def report(
    scenario: Scenario, scores: Sequence[Score], console: Console, opinions: Sequence[Opinion | None] | None = None
) -> None:
    """The score of every question, with quotes, what is missing, and where to mend it; a second opinion beside it."""
    for number, one in enumerate(scores):
        console.print(f"\n{number + 1}. {scenario.shown(one.question.ask).strip()}", style="bold")
        _report(scenario, one, console, opinions[number] if opinions else None)
    if scores:
        share = sum(one.share for one in scores) / len(scores)
        console.print(f"\n{scenario.title}: {share:.0%} of the points.", style="bold")


def _report(scenario: Scenario, one: Score, console: Console, opinion: Opinion | None) -> None:
    for judged in one.criteria:
        _criterion(scenario, judged, console, opinion)
    if one.written is not None:
        console.print(f"\n{one.written.level} of 4  The code", style="bold")
        console.print(Padding(one.written.message, (0, 0, 0, 8)))
    for flag in one.wrong:
        _row(console, "wrong", f"“{short(flag.quote.text)}”", "red", 0)
        _row(console, "", instead(scenario, flag.flag), "", 0)
    for number in one.wrong_numbers:
        _row(console, "check", f"“{short(number.quote.text)}” Computed it is {number.number}.", "red", 0)
    for ignored in one.ignored:
        _row(console, "ignored", f"“{short(ignored.text)}”: {ignored.why}.", "yellow", 0)
    console.print(f"\n{one.share:.0%} of the points of this question.", style="bold")
    if opinion is not None:
        console.print(f"The second opinion is that of {opinion.source}. It changes no score.", style="dim")
        for why in opinion.left_out:
            console.print(f"Left out: {why}.", style="dim")
    answer = scenario.shown(one.question.model_answer).strip()
    console.print(Panel(answer, title="A strong answer, every number computed now", title_align="left"))


def _criterion(scenario: Scenario, judged: Judged, console: Console, opinion: Opinion | None) -> None:
    second = f"   (second opinion: {_second(opinion, judged.criterion.id)})" if opinion else ""
    console.print(f"\n{judged.level} of 4  {judged.criterion.title}{second}", style="bold")
    for quote, shown in said(judged).items():
        _row(console, "said", f"“{short(quote)}”", "green")
        for found in shown:
            _row(console, "", credit(scenario, found), "")
    for point in judged.missing:
        label = "besides" if judged.level == TOP else "missing"
        _row(console, label, f"a sentence that {lack(scenario, judged, point)}", "yellow")
    if judged.broken:
        _row(console, "capped", "a wrong claim leaves this at level 1 at most", "red")
    if judged.level < history.SITS:
        _row(console, "mend", repair(judged), "")


def _row(console: Console, label: str, text: str, style: str, indent: int = 8) -> None:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(width=indent)
    grid.add_column(width=8, style=style)
    grid.add_column()
    grid.add_row("", label, text)
    console.print(grid)


def _second(opinion: Opinion, criterion: str) -> str:
    return f"{opinion.levels[criterion]} of 4" if criterion in opinion.levels else "none"


def transcript(interview: Interview, console: Console) -> None:
    """What was asked and said, with times; what is not handed in yet, too."""
    console.print(f"{interview.scenario.title}, {interview.started:%Y-%m-%d %H:%M} UTC", style="bold")
    _turns(interview, console)
    asked = interview.asked
    if asked is not None and interview.draft and asked.step != CODE:
        console.print(f"\n{asked.text.strip()}\n[not handed in yet]", style="dim")
        console.print(Padding(interview.draft, (0, 0, 0, 2)))


def _turns(interview: Interview, console: Console) -> None:
    steps = {}
    for question in interview.questions:
        steps[question.id, ANSWER] = question.ask
        steps[question.id, CODE] = "The code:"
        steps |= {(question.id, one.id): one.ask for one in question.follow_ups}
    for turn in interview.turns:
        asked = interview.scenario.shown(steps.get((turn.question, turn.step), turn.step)).strip()
        console.print(f"\n{asked}\n[{minutes(turn.thought)} to think, {minutes(turn.spent)} to answer]", style="dim")
        console.print(Padding(turn.text or "(nothing)", (0, 0, 0, 2)))


def overview(events: Any) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The scenarios as a table: what they are, how often they were tried, what is due."""
    known = history.standings(events)
    waiting = history.due(events, datetime.now(UTC))
    rows: list[tuple[str, ...]] = []
    for name in names():
        one = load(name)
        own = [standing for standing in known if standing.scenario.id == name]
        last = f"{sum(s.levels[-1] for s in own) / (4 * len(own)):.0%}" if own else "-"
        due = sum(standing.scenario.id == name for standing in waiting)
        rows.append((name, one.title, f"{one.minutes} min", last, str(due) if own else "-"))
    return ("name", "interview", "time", "last levels", "criteria due"), rows


def _opening(interview: Interview) -> str:
    one = interview.scenario
    text = one.shown(one.situation).strip()
    return f"{text}\n\n{one.role}, about {one.minutes} minutes. Ctrl-D stops it; you can go on later."
