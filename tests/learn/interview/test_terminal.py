"""The interview as it is seen in a terminal."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.console import Console

from qlab.learn.interview import scenario, session, terminal, whiteboard
from qlab.learn.interview.keyboard import Listen, Prompt
from qlab.learn.interview.score import score
from qlab.learn.interview.second_opinion import Opinion
from qlab.learn.interview.whiteboard import Written


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QLAB_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=100, highlight=False, markup=False)


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def typing(*lines: str) -> Listen:
    """Somebody who types these lines and then closes the terminal."""
    left: Iterator[str] = iter(lines)

    def listen(prompt: Prompt) -> str:
        assert prompt("").startswith("[")
        try:
            return next(left)
        except StopIteration:
            raise EOFError from None

    return listen


def test_an_interview_from_the_first_question_to_the_last(console: Console) -> None:
    one = session.begin("explain_quantization", "explain")
    lines = ["", "You round", "to a grid.", ""] + ["", "fine", ""] * session.LADDER
    assert terminal.play(one, console, typing(*lines))
    text = shown(console)
    assert "Explain quantization" in text and "Question 1 of 1" in text and text.count("Follow-up") == session.LADDER
    assert one.turns[0].text == "You round\nto a grid." and one.asked is None


def test_closing_the_terminal_keeps_the_words_and_the_question(console: Console) -> None:
    one = session.begin("explain_quantization")
    assert not terminal.play(one, console, typing("", "First line"))
    assert f"qlab interview resume {one.id}" in " ".join(shown(console).split())
    again = session.find(one.id)
    assert again.draft == "First line" and again.answering and again.asked == one.asked
    assert not terminal.play(again, console, typing("", "second line", ""))
    assert "You have added nothing." in shown(console)
    assert again.turns[0].text == "First line\nsecond line"


def test_one_empty_line_hands_in_no_empty_answer(console: Console) -> None:
    one = session.begin("explain_quantization", "explain")
    assert not terminal.play(one, console, typing("", "", "Rounding.", ""))
    assert one.turns[0].text == "Rounding." and "You have said nothing." in shown(console)
    assert not terminal.play(one, console, typing("", "", ""))
    assert one.turns[1].text == ""


def test_what_is_said_while_thinking_is_said(console: Console) -> None:
    one = session.begin("explain_quantization")
    assert not terminal.play(one, console, typing("You round.", "To a grid.", ""))
    assert one.turns[0].text == "You round.\nTo a grid."


def test_a_line_cut_off_is_kept(console: Console) -> None:
    def listen(prompt: Prompt) -> str:
        if "think" in prompt("Half a li"):
            return ""
        raise KeyboardInterrupt

    one = session.begin("explain_quantization")
    assert not terminal.play(one, console, listen)
    assert session.find(one.id).draft == "Half a li"


def test_the_clock_runs_while_somebody_types(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    one = session.begin("explain_quantization")
    spent: list[float] = []
    monkeypatch.setattr(one, "spend", spent.append)
    with terminal._clock(one):
        pass
    assert len(spent) == 1 and 0 <= spent[0] < 5


def test_it_says_when_an_answer_took_too_long(console: Console) -> None:
    one = session.begin("explain_quantization", "explain")
    one.begin_answer()
    one.spend(one.questions[0].seconds + 65)
    terminal.play(one, console, typing("fine", ""))
    assert "That took 1:05 more than the" in shown(console)


def test_code_is_written_in_a_file(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    one = session.begin("whiteboard_gptq", "update")
    sources: list[str] = []

    def judge(exercise: str, source: str, tries: int) -> Written:
        sources.append(source)
        return Written("passed" if tries == 2 else "failed", f"verdict {tries}", tries)

    monkeypatch.setattr(whiteboard, "judge", judge)
    assert not terminal.play(one, console, typing("", "fine", "", "", ""))
    path = one.path.with_suffix(".py")
    assert sources == 2 * [path.read_text()] and "def compensate" in sources[0]
    text = shown(console)
    assert "verdict 1" in text and "2 more to try" in text and "verdict 2" in text
    assert one.turns[1].written == Written("passed", "verdict 2", 2)


def test_code_can_be_skipped(console: Console) -> None:
    one = session.begin("whiteboard_gptq", "update")
    assert not terminal.play(one, console, typing("", "fine", "", "skip"))
    assert one.turns[1].written is not None and one.turns[1].written.level == 0


def test_a_report_quotes_accuses_and_mends(console: Console) -> None:
    one = scenario.load("recommender_on_aws")
    text = "INT8 fits one p3.8xlarge easily. The weights are 20 GB in INT4. Weights take 71 GB in FP8."
    opinion = Opinion("a model", {"memory": 2}, {"memory": "71 GB"}, ("traffic: no level from 0 to 4",))
    terminal.report(one, [score(one, one.questions[0], text)], console, [opinion])
    text = " ".join(shown(console).split())
    assert "“Weights take 71 GB in FP8.”" in text
    assert "C011 of the claim ledger" in text and "is false. Say instead:" in text
    assert "(second opinion: 2 of 4)" in text and "(second opinion: none)" in text and "It changes no score." in text
    assert "Left out: traffic: no level from 0 to 4." in text
    assert "lesson 01_memory_math, exercise memory.weight_bytes" in text
    assert "A strong answer, every number computed now" in text


def test_the_overview_has_every_scenario() -> None:
    names, rows = terminal.overview([])
    assert [row[0] for row in rows] == scenario.names() and all(len(row) == len(names) for row in rows)


def test_a_transcript_has_questions_and_answers(console: Console) -> None:
    one = session.begin("int4_slower", "predict")
    one.answer("fine")
    one.answer("")
    terminal.transcript(one, console)
    assert "fine" in shown(console) and "(nothing)" in shown(console)
