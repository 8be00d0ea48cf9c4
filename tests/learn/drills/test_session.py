"""A session of drills, and the command `qlab drill` that is a door to it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qlab import cli
from qlab.learn import progress
from qlab.learn.drills import KINDS, Drill, chosen, kind, session
from qlab.learn.drills.mark import Marked
from qlab.learn.progress import Unavailable

Run = Callable[..., tuple[int, str, str]]
LIGHT = chosen(topics=["memory", "cache", "bits"])


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QLAB_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def typed(lines: list[str], *arguments: str) -> str:
    """What a session prints whose user types these lines."""
    done = CliRunner().invoke(cli.app, ["drill", *arguments], input="".join(f"{line}\n" for line in lines))
    assert done.exit_code == 0, done.output
    return done.output


def paper(run: Run, *arguments: str) -> list[dict[str, Any]]:
    code, out, err = run("drill", "--json", "--solutions", *arguments)
    assert (code, err) == (0, "")
    return json.loads(out)["drills"]


# Sessions


def test_a_fixed_session_takes_turns_and_is_always_the_same() -> None:
    found = session.fixed(LIGHT, 40, None, 3)
    assert found == session.fixed(LIGHT, 40, None, 3) != session.fixed(LIGHT, 40, None, 4)
    first, second = found[: len(LIGHT)], found[len(LIGHT) : 2 * len(LIGHT)]
    assert {one.kind for one in first} == {one.kind for one in second} == {one.name for one in LIGHT}
    assert {one.level for one in first} == {1} and {one.level for one in second} == {2}
    assert {one.level for one in session.fixed(LIGHT, 16, 3, 3)} == {2, 3}  # some kinds have no third one
    assert session.fixed(LIGHT, 5, None, 3) == found[:5]


def test_an_adaptive_session_sees_what_happened_in_it() -> None:
    history: list[progress.Event] = []
    drills = session.adaptive([kind("bits.group")], 5, None, history, random.Random(0))
    levels = []
    for drill in drills:
        levels.append(drill.level)
        history.append(session.Answered(drill, "", Marked(True, "Right.")).event)
    assert levels == [1, 1, 2, 2, 2]
    assert {one.level for one in session.adaptive(LIGHT, 5, 2, [], random.Random(0))} == {2}


def test_a_reply_is_asked_for_until_it_can_be_judged() -> None:
    drill = kind("memory.weights").ask(0)
    said: list[Marked] = []
    replies = iter(["much", "40 Gb", drill.answer_text])
    answered = session.ask(drill, lambda: next(replies), said.append)
    assert answered and answered.marked.right and len(said) == 2
    kept = answered.event
    assert (kept.question, kept.kind, kept.outcome, kept.level) == ("drill.memory.weights", "drill", "passed", 1)
    replies = iter(["much"] * session.PATIENCE + ["never reached"])
    answered = session.ask(drill, lambda: next(replies), said.append)
    assert answered and not answered.marked.right and next(replies) == "never reached"


@pytest.mark.parametrize("end", [EOFError, KeyboardInterrupt, ""])
def test_an_empty_line_or_an_interruption_ends_it(end: Any) -> None:
    def listen() -> str:
        if end == "":
            return ""
        raise end

    assert session.ask(kind("memory.gib").ask(0), listen, lambda marked: None) is None


def test_totals() -> None:
    first, second = session.fixed(LIGHT, 2, 1, 0)
    right, wrong = session.Answered(first, "x", Marked(True, "")), session.Answered(second, "x", Marked(False, ""))
    assert session.total([]) == "No drill was answered." and session.total([right]) == "1 of 1 right."
    assert session.total([right, wrong, wrong]) == f"1 of 3 right. To repeat: {second.kind}."


# qlab drill


def answers(drills: list[Drill]) -> list[str]:
    return [one.letter or one.answer_text for one in drills]


def test_a_session_in_a_terminal(home: Path) -> None:
    drills = session.fixed(LIGHT, 4, None, 3)
    replies = answers(drills)
    replies[1] = "0.001"
    output = typed(replies, "--topic", "memory", "--topic", "cache", "--topic", "bits", "--count", "4", "--seed", "3")
    for number, drill in enumerate(drills, 1):
        assert f"{number} of 4: {drill.kind}, level 1" in output
        assert all(line in " ".join(output.split()) for line in drill.worked)
    assert "So far 1 of 2 right." in output
    assert output.rstrip().endswith(f"3 of 4 right. To repeat: {drills[1].kind}.")
    kept = progress.events()
    assert [(one.question, one.outcome, one.level) for one in kept] == [
        (f"drill.{drill.kind}", "failed" if number == 1 else "passed", 1) for number, drill in enumerate(drills)
    ]


def test_an_empty_line_ends_and_nothing_is_lost() -> None:
    first = session.fixed(LIGHT[:6], 1, None, 3)[0]
    output = typed(["?", ""], "--topic", "memory", "--seed", "3")
    assert "You gave no answer." in output and output.rstrip().endswith(f"0 of 1 right. To repeat: {first.kind}.")
    assert [one.outcome for one in progress.events()] == ["failed"]
    assert "No drill was answered." in typed([])


def test_an_interruption_while_it_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    replies = iter(["?"])

    def interrupted(prompt: str = "") -> str:
        for reply in replies:
            return reply
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupted)
    output = typed([], "--topic", "memory")
    assert "0 of 1 right." in output and len(progress.events()) == 1


def test_without_a_seed_the_history_decides() -> None:
    typed(["?", "?", ""], "memory.weights", "memory.gib")
    typed(["?", "?", ""], "memory.weights", "memory.gib")
    asked = [one.question for one in progress.events()]
    assert asked[0] != asked[1] and asked[1] != asked[2] and len(asked) == 4


def test_questions_for_scripts(run: Run) -> None:
    code, out, err = run("drill", "--json", "--count", "3", "--seed", "3", "--topic", "money")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["seed"] == 3 and len(found["drills"]) == 3
    assert all("answer" not in one and "worked" not in one for one in found["drills"])
    solved = paper(run, "--count", "3", "--seed", "3", "--topic", "money")
    assert [one["text"] for one in solved] == [one["text"] for one in found["drills"]]
    assert all(one["answer_text"] in one["worked"][-1] for one in solved)
    assert json.loads(run("drill", "--json", "--count", "1", "--topic", "money")[1])["seed"] >= 0
    assert progress.events() == []


@pytest.mark.parametrize("form", ["list", "mapping"])
def test_answers_from_a_file(run: Run, tmp_path: Path, form: str) -> None:
    solved = paper(run, "--count", "4", "--seed", "5", "--topic", "capacity")
    replies = [one["answer_text"][0] if one["choices"] else one["answer_text"] for one in solved]
    file = tmp_path / "answers.yaml"
    if form == "list":
        replies[2] = "12 parsecs"
        file.write_text(json.dumps(replies[:3]))
    else:
        file.write_text(f"1: {replies[0]!r}\n2: {replies[1]!r}\n")
    options = ("drill", "--count", "4", "--seed", "5", "--topic", "capacity", "--answers", str(file))
    code, out, err = run(*options, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert [one["right"] for one in found["drills"]] == [True, True, False, False] and found["right"] == 2
    assert found["drills"][3]["why"] == "You gave no answer."
    assert [one.outcome for one in progress.events()] == ["passed", "passed", "failed", "failed"]
    code, out, err = run(*options)
    assert code == 0 and "Your reply: none. You gave no answer." in out and "2 of 4 right." in out


def test_the_list_of_kinds(run: Run) -> None:
    code, out, err = run("drill", "--list")
    assert (code, err) == (0, "") and len(out.splitlines()) == len(KINDS) + 1
    assert "cache.token" in out and "01_memory_math" in out
    found = json.loads(run("drill", "--list", "--json", "--topic", "formats")[1])["kinds"]
    assert {one["topic"] for one in found} == {"formats"} and {one["needs"] for one in found} == {"torch"}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["memory.wieghts"], "kind: 'memory.wieghts' is not known; did you mean memory.weights"),
        (["--topic", "memry"], "topic: got 'memry'; did you mean memory"),
        (["--count", "0"], "count: got 0; give 1 to 10,000"),
        (["--level", "4"], "level: got 4; choose from 1, 2, 3"),
        (["--solutions"], "solutions: they are shown after each reply; add --json"),
        (["--answers", "a.yaml"], "answers: without a seed"),
        (["--answers", "missing.yaml", "--seed", "1"], "answers: missing.yaml cannot be read as YAML (No such file"),
    ],
)
def test_bad_input_is_one_line(run: Run, arguments: list[str], says: str) -> None:
    code, out, err = run("drill", *arguments)
    assert (code, out) == (2, "") and says in err and err.count("\n") == 1


@pytest.mark.parametrize("text", ["a: [", "just words", "0: 4 GB", "x: 4 GB"])
def test_answers_of_another_form(run: Run, tmp_path: Path, text: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    code, out, err = run("drill", "--topic", "memory", "--seed", "1", "--answers", str(tmp_path / "a.yaml"))
    assert (code, out) == (2, "") and err.startswith("error: answers: ") and "list of replies" in err


def test_progress_lists_drills_apart(run: Run) -> None:
    assert "Drills" not in run("progress")[1] and json.loads(run("progress", "--json")[1])["drills"] == []
    typed(["?", ""], "memory.weights")
    out = run("progress")[1]
    assert "Drills: 0 of 1 right" in out and out.splitlines()[-1].split()[:6] == ["memory", "1", "0", "0", "%", "-"]
    [found] = json.loads(run("progress", "--json")[1])["drills"]
    assert (found["topic"], found["asked"], found["weakest"], found["trend"]) == (
        "memory", 1, "memory.weights", "too few to say",
    )  # fmt: skip


def test_a_progress_file_that_cannot_be_written_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(event: progress.Event) -> list[progress.Event]:
        raise Unavailable("progress.db: the disk is full")

    monkeypatch.setattr(progress, "record", refuse)
    done = CliRunner().invoke(cli.app, ["drill", "--topic", "memory"], input="?\n?\n\n")
    assert done.exit_code == 0 and "0 of 2 right" in done.output
    assert "not noted in your progress: progress.db: the disk is full" in done.output
