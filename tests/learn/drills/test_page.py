"""The page of drills, without a browser: what its buttons do, what they show, and what they leave."""

from __future__ import annotations

import html
import random
import re
from pathlib import Path

import pytest

from qlab.learn import progress
from qlab.learn.drills import TOPICS, Drill, chosen, page, session
from qlab.learn.drills.page import Drills
from qlab.learn.progress import Unavailable


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QLAB_HOME", str(tmp_path))
    return tmp_path


@pytest.fixture
def made() -> Drills:
    found = Drills(random.Random(0))
    found.topic.value = "memory"
    return found


def ask(made: Drills) -> Drill:
    made.next.click()
    assert made.drill is not None
    return made.drill


def check(made: Drills, reply: str) -> None:
    """Type, leave the field for the button, and press it."""
    made.reply.value = reply
    made.check.click()


def enter(made: Drills, reply: str) -> None:
    """Type and press Enter, in the order in which the page tells of it."""
    made.reply._handle_custom_msg({"event": "submit"}, [])
    made.reply.value = reply


def right(drill: Drill) -> str:
    return drill.letter or drill.answer_text


def test_it_says_the_same_in_every_run_and_leaves_the_progress_alone(home: Path) -> None:
    (home / "progress.db").write_text("damaged")
    made = page.drills()
    assert repr(made) == "Drills()" and list(made.topic.options) == ["all", *TOPICS]
    assert [value for _, value in made.level.options] == [0, 1, 2, 3] and made.level.value == 0
    assert made.reply.disabled and made.check.disabled and not made.next.disabled
    made.check.click()
    assert made.answers == [] and [path.name for path in home.iterdir()] == ["progress.db"]


def test_right_by_button_wrong_by_enter_and_both_are_kept(made: Drills) -> None:
    first = ask(made)
    assert first.kind in made.question.value and "level 1" in made.question.value and not made.reply.disabled
    check(made, right(first))
    assert "<b>Right" in made.verdict.value and made.drill is None and made.reply.disabled
    assert (
        all(html.escape(line) in made.solution.value for line in first.worked) and "Lesson" not in made.solution.value
    )
    second = ask(made)
    assert made.reply.value == "" and made.verdict.value == "" and second.kind != first.kind
    enter(made, "0.001")
    assert "No" in made.verdict.value and "Lesson: 0" in made.solution.value
    assert f"1 of 2 right. To repeat: {second.kind}." in made.count.value and made.message.value == ""
    kept = [(one.question, one.kind, one.outcome, one.level) for one in progress.events()]
    assert kept == [
        (f"drill.{first.kind}", "drill", "passed", 1),
        (f"drill.{second.kind}", "drill", "failed", 1),
    ]


def test_an_answered_question_is_not_answered_twice(made: Drills) -> None:
    drill = ask(made)
    check(made, right(drill))
    made.check.click()
    enter(made, "0.001")
    assert len(made.answers) == 1 and "<b>Right" in made.verdict.value


def test_leaving_the_field_is_no_reply(made: Drills) -> None:
    drill = ask(made)
    made.reply.value = "0.00"
    assert made.drill is drill and "Press Check" in made.verdict.value
    enter(made, right(drill))
    assert made.drill is None and made.answers[0].marked.right


def test_a_question_without_a_reply_is_neither_judged_nor_counted(made: Drills) -> None:
    first = ask(made)
    check(made, "  ")
    assert made.drill is first and "or ? to see the solution" in made.verdict.value
    assert ask(made) is not first
    assert made.answers == [] and progress.events() == []
    check(made, "?")
    assert "You gave no answer." in made.verdict.value and [one.outcome for one in progress.events()] == ["failed"]


def test_a_reply_that_cannot_be_judged_is_explained_and_may_be_given_again(made: Drills) -> None:
    drill = ask(made)
    check(made, "a lot")
    assert "holds no number" in made.verdict.value and made.drill is drill
    for _ in range(session.PATIENCE):
        made.check.click()  # the same again
    assert made.drill is drill and progress.events() == []
    check(made, right(drill))
    assert made.answers[0].marked.right


def test_patience_ends_and_the_last_reply_counts_as_wrong(made: Drills) -> None:
    drill = ask(made)
    for reply in [f"much {'more ' * number}" for number in range(session.PATIENCE)]:
        assert made.drill is drill
        enter(made, reply)
    assert made.drill is None and not made.answers[0].marked.right
    assert all(html.escape(line) in made.solution.value for line in drill.worked)


def test_what_was_typed_is_no_markup(made: Drills) -> None:
    """Neither in a reply that was not judged, nor in the last one, nor where an explanation quotes it."""
    ask(made)
    for number in range(session.PATIENCE):
        check(made, f"<script>{'much ' * (number + 1)}</script>")
        assert "<script" not in made.verdict.value and made.verdict.value.count("&lt;script&gt;") == 2
    assert len(made.answers) == 1 and "<script" not in made.solution.value + made.count.value


def test_choices_have_letters_and_take_them() -> None:
    made = Drills(random.Random(0))
    made.topic.value = "claims"
    drill = ask(made)
    assert len(re.findall(r"<br>[A-D]\) ", made.question.value)) == len(drill.choices)
    check(made, drill.letter.lower())
    assert made.answers[0].marked.right


def test_topic_and_level_are_those_of_the_menus(made: Drills) -> None:
    made.level.value = 2
    assert {(one.kind.partition(".")[0], one.level) for one in (ask(made) for _ in range(10))} == {("memory", 2)}
    made.topic.value = "all"
    assert len({ask(made).kind.partition(".")[0] for _ in range(20)}) > 3


def test_the_next_question_follows_the_history(made: Drills) -> None:
    for _ in range(3):
        check(made, right(ask(made)))
    later = Drills(random.Random(0))  # goes on where the other page stopped: kinds that were never asked come first
    later.topic.value = "memory"
    for _ in range(3):
        check(later, right(ask(later)))
    asked = [one.drill.kind for one in [*made.answers, *later.answers]]
    assert sorted(asked) == sorted(one.name for one in chosen(topics=["memory"]))


def test_a_progress_file_that_cannot_be_written_stops_nobody(made: Drills, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(event: progress.Event) -> list[progress.Event]:
        raise Unavailable("progress.db: the disk is <full>")

    monkeypatch.setattr(progress, "record", refuse)
    kinds = []
    for _ in range(2):
        drill = ask(made)
        check(made, right(drill))
        kinds.append(drill.kind)
        assert "not noted in your progress: progress.db: the disk is &lt;full&gt;" in made.message.value
    assert "2 of 2 right" in made.count.value and kinds[0] != kinds[1]


def test_a_progress_file_that_cannot_be_read_stops_nobody(made: Drills, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse() -> list[progress.Event]:
        raise Unavailable("progress.db: another program holds it locked")

    monkeypatch.setattr(progress, "events", refuse)
    ask(made)
    assert not made.reply.disabled


def test_a_damaged_file_is_told_of_on_the_page(made: Drills, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "progress.db").write_text("no database")
    ask(made)
    assert "could not be read" in made.message.value and capsys.readouterr().out == ""
    check(made, "?")
    assert len(progress.events()) == 1
