from __future__ import annotations

import json
from pathlib import Path

import pytest

from qlab.learn import progress
from qlab.learn.interview import history, scenario, session, whiteboard
from qlab.learn.interview.session import ANSWER, CODE, InterviewError, begin, find, resume, unfinished
from qlab.learn.interview.whiteboard import Written


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QLAB_HOME", str(tmp_path))
    return tmp_path


def test_nothing_is_on_disk_before_the_first_step(home: Path) -> None:
    one = begin("recommender_on_aws")
    assert not list(home.iterdir()) and one.asked is not None
    one.spend(1)
    assert one.path.exists()


def test_an_answer_that_says_nothing_is_pressed_at_most_three_times() -> None:
    one = begin("recommender_on_aws")
    question = one.scenario.questions[0]
    steps = []
    while one.asked is not None and one.asked.question is question:
        steps.append(one.asked.step)
        one.answer("fine")
    assert steps == [ANSWER, *(follow.id for follow in question.follow_ups[: session.LADDER])]


def test_what_was_said_is_not_asked_again() -> None:
    one = begin("recommender_on_aws")
    question = one.scenario.questions[0]
    one.answer(one.scenario.shown(question.model_answer))
    assert one.asked is not None and one.asked.question is one.scenario.questions[1]
    one = begin("recommender_on_aws")
    one.answer("fine")
    first = one.asked
    assert first is not None and first.step == question.follow_ups[0].id
    one.answer(one.scenario.shown(question.follow_ups[0].model_answer))
    scores = one.score(question)
    criterion, point = question.follow_ups[0].unless.split(".")
    judged = next(judged for judged in scores.criteria if judged.criterion.id == criterion)
    assert [found.prompted for found in judged.found if found.point.id == point] == [True]


def test_it_goes_on_at_the_same_question_with_the_same_clock() -> None:
    one = begin("trading_signals")
    one.answer("fine")
    one.spend(4.5)
    one.begin_answer()
    one.spend(7.25)
    one.draft = "half a sent"
    one.save()
    again = resume(one.path)
    assert again.asked == one.asked and again.asked is not None and again.asked.step != ANSWER
    assert (again.answering, again.thought, again.spent, again.draft) == (True, 4.5, 7.25, "half a sent")
    assert again.turns == one.turns and again.started == one.started


def test_an_interview_comes_to_an_end() -> None:
    one = begin("explain_quantization")
    count = 0
    while one.asked is not None:
        one.answer(f"fine {count}")
        count += 1
    assert count == 2 * (1 + session.LADDER)
    assert [score.said for score in one.scores()] == [0, 0]
    with pytest.raises(InterviewError, match="it is over"):
        one.answer("more")
    events = one.events()
    assert {event.level for event in events} == {0}
    assert events[0].question == "interview.explain_quantization.explain.mapping"


def test_one_question_alone() -> None:
    one = begin("explain_quantization", "methods")
    assert one.asked is not None and one.asked.question.id == "methods"
    one.save()
    assert [question.id for question in resume(one.path).questions] == ["methods"]
    with pytest.raises(ValueError, match=r"question: 'method' is not known; did you mean methods"):
        begin("explain_quantization", "method")


def test_code_is_judged_and_has_three_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    verdicts = iter(["error", "failed", "failed"])
    monkeypatch.setattr(whiteboard, "judge", lambda exercise, source, tries=1: Written(next(verdicts), exercise, tries))
    one = begin("whiteboard_gptq", "update")
    one.answer("fine")
    asked = one.asked
    assert asked is not None and asked.step == CODE and "gptq.update" in asked.text
    for number in (1, 2):
        turn = one.answer(f"try {number}")
        assert turn.written is not None and turn.written.tries == number
        again = resume(one.path)
        assert again.tries == number and again.draft == f"try {number}"
        assert again.asked is not None and again.asked.step == CODE
    one.answer("try 3")
    assert one.asked is not None and one.asked.step not in (ANSWER, CODE)
    written = one.score(one.questions[0]).written
    assert written == Written("failed", "gptq.update", 3) and resume(one.path).turns == one.turns


def test_a_stub_handed_in_by_mistake_is_no_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whiteboard, "judge", lambda exercise, source, tries=1: Written("not attempted", "", tries))
    one = begin("whiteboard_gptq", "update")
    one.answer("fine")
    for _ in range(whiteboard.TRIES + 1):
        one.answer("def compensate(): ...")
    assert one.tries == 0 and one.asked is not None and one.asked.step == CODE


def test_code_can_be_given_up() -> None:
    one = begin("whiteboard_triton", "dequantize")
    one.answer("fine")
    turn = one.answer("")
    assert turn.written is not None and turn.written.level == 0
    assert one.asked is None or one.asked.step != CODE


def test_interviews_are_found_by_id_or_as_the_last_one(home: Path) -> None:
    with pytest.raises(InterviewError, match="none to go on with"):
        find()
    first, second = begin("int4_slower"), begin("trading_signals")
    for one in (first, second):
        one.answer("fine")
    assert {path.stem for path in unfinished()} == {first.id, second.id}
    assert find(first.id).scenario.id == "int4_slower"
    with pytest.raises(InterviewError, match=rf"there is no 'x'; the last ones: .*{first.id}"):
        find("x")
    with pytest.raises(InterviewError, match="there is no"):
        find("../progress")


@pytest.mark.parametrize(
    "content", ["", "[]", '{"form": 1}', '{"form": 99}', '{"form": 1, "scenario": "gone"}', "\x00"]
)
def test_a_damaged_transcript_is_named_and_left_alone(home: Path, content: str) -> None:
    one = begin("int4_slower")
    one.save()
    path = one.path
    path.write_text(content)
    with pytest.raises(ValueError, match=path.name.split("-")[0]):
        resume(path)
    assert unfinished() == [] and path.read_text() == content


def test_a_kill_between_writing_and_renaming_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    one = begin("int4_slower")
    one.answer("fine")
    before = one.path.read_text()

    def killed(self: Path, target: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        one.answer("more")
    assert one.path.read_text() == before and json.loads(before)["turns"]


def test_history_says_what_gets_better_and_what_is_due(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["interview.int4_slower.diagnose.phase", "interview.int4_slower.diagnose.kernel"]
    for name, levels in zip(names, ([1, 3], [4, 2]), strict=True):
        for level in levels:
            progress.record(progress.Event(name, "interview", level=level))
    progress.record(progress.Event("interview.gone.question.criterion", "interview", level=1))
    events = progress.events()
    better, worse = history.standings(events)
    assert (better.levels, better.words, better.box) == ((1, 3), "better", 2)
    assert (worse.levels, worse.words, worse.box) == ((4, 2), "worse", 1)
    later = events[-1].time + history.WAITS[0]
    assert [one.criterion.id for one in history.due(events, later)] == ["kernel"]
    latest = events[-1].time + history.WAITS[1]
    assert [one.criterion.id for one in history.due(events, latest)] == ["kernel", "phase"]
    names_of_columns, rows = history.table([better, worse])
    assert len(rows) == 2 and all(len(row) == len(names_of_columns) for row in rows)
    assert better.to_dict()["levels"] == [1, 3]


def test_an_interview_of_one_s_own_scenario_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = (folder / "int4_slower.yaml" for folder in (scenario.SCENARIOS, scenario.LEXICONS))
    (tmp_path / "mine.yaml").write_text("".join(part.read_text() for part in parts))
    monkeypatch.chdir(tmp_path)
    one = session.begin("mine.yaml", "predict")
    one.begin_answer()
    monkeypatch.chdir("/")
    again = session.find(one.id)
    assert again.scenario.id == "mine" and again.answering and again.file == tmp_path / "mine.yaml"
    (tmp_path / "mine.yaml").unlink()
    scenario.load.cache_clear()
    with pytest.raises(scenario.ScenarioError, match=r"mine.yaml cannot be read"):
        session.find(one.id)
    assert session.unfinished() == []
