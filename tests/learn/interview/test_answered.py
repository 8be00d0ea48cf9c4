from __future__ import annotations

import json
from pathlib import Path

import pytest

from qlab.learn.interview import answered, session, whiteboard
from qlab.learn.interview.answered import Answer, AnswersError, read, scores, to_dict
from qlab.learn.interview.whiteboard import Written


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QLAB_HOME", str(tmp_path / "home"))
    return tmp_path


def write(folder: Path, text: str) -> Path:
    path = folder / "answers.yaml"
    path.write_text(text)
    return path


def test_a_text_or_its_parts(home: Path) -> None:
    path = write(home, "choose: FP8.\nfinance: {answer: No., follow_ups: {why: Because.}, code: x}\nempty:\n")
    assert read(path) == {
        "choose": Answer(answer="FP8."),
        "finance": Answer(answer="No.", follow_ups={"why": "Because."}, code="x"),
        "empty": Answer(),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "holds list and no names; for each id of a question give"),
        ("a: [", "cannot be read"),
        ("choose: {said: a}", "choose.said: Extra inputs are not permitted; for each id"),
        ("choose: {answer: 3}", "choose.answer: Input should be a valid string"),
    ],
)
def test_what_is_no_file_of_answers(home: Path, text: str, message: str) -> None:
    with pytest.raises(AnswersError, match=message):
        read(write(home, text))
    with pytest.raises(AnswersError, match="cannot be read"):
        read(home / "missing.yaml")


@pytest.mark.parametrize(
    ("answers", "message"),
    [
        ({"chose": Answer()}, "no question 'chose'; recommender_on_aws asks choose, finance"),
        ({"choose": Answer(follow_ups={"x": ""})}, "choose: no follow-up 'x'; there are "),
        ({"choose": Answer(code="x")}, "choose: no code is asked for"),
    ],
)
def test_answers_to_what_is_not_asked(answers: dict[str, Answer], message: str) -> None:
    with pytest.raises(AnswersError, match=message):
        scores(session.begin("recommender_on_aws"), answers)


def test_every_question_has_a_score_and_it_is_json() -> None:
    begun = session.begin("recommender_on_aws")
    found = scores(begun, {"choose": Answer(answer="INT8 fits one p3.8xlarge easily. In FP8 weights are 73 GB.")})
    document = json.loads(json.dumps(to_dict(begun.scenario, found)))
    first, second = document["questions"]
    assert second["share"] == 0 and document["share"] == pytest.approx(first["share"] / 2, abs=1e-3)
    memory = next(one for one in first["criteria"] if one["id"] == "memory")
    assert memory["level"] == 1 and memory["found"][0]["quote"] == "In FP8 weights are 73 GB."
    assert memory["repair"] == {"lesson": "01_memory_math", "exercise": "memory.weight_bytes"}
    (wrong,) = first["wrong_claims"]
    assert (wrong["claim"], wrong["verdict"], wrong["breaks"]) == ("C011", "false", "memory") and wrong["instead"]
    assert "{" not in first["model_answer"]


def test_code_of_a_file_is_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whiteboard, "judge", lambda exercise, source: Written("passed", f"{exercise} {source}"))
    begun = session.begin("whiteboard_gptq", "update")
    found = scores(begun, {"update": Answer(code="def compensate(): ...")})
    code = to_dict(begun.scenario, found)["questions"][0]["code"]
    assert code == {"level": 4, "outcome": "passed", "message": "gptq.update def compensate(): ..."}


def test_the_module_keeps_nothing(home: Path) -> None:
    begun = session.begin("recommender_on_aws")
    answered.scores(begun, {})
    assert not (home / "home").exists()
