"""`qlab interview …`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from qlab import cli
from qlab.learn import progress
from qlab.learn.interview import scenario, session


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QLAB_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "200")
    return tmp_path


def run(*arguments: str, typed: str = "") -> tuple[int, str, str]:
    result = CliRunner().invoke(cli.app, ["interview", *arguments], input=typed)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        return 2, result.stdout, str(result.exception)
    return result.exit_code, result.stdout, result.stderr


def played(answer: str) -> str:
    """What somebody types who says the same to everything."""
    return f"\n{answer}\n\n" * 12


def test_the_list_in_words_and_as_json() -> None:
    code, out, _ = run("list")
    assert code == 0 and all(name in out for name in scenario.names())
    code, out, _ = run("list", "--json")
    rows = json.loads(out)["scenarios"]
    assert [row["name"] for row in rows] == scenario.names() and all(len(row["questions"]) == 2 for row in rows)
    first = rows[scenario.names().index("whiteboard_gptq")]["questions"][0]
    asked = scenario.load("whiteboard_gptq").questions[0]
    assert first == {"id": asked.id, "follow_ups": [one.id for one in asked.follow_ups], "exercise": asked.code}


def test_an_interview_is_played_scored_and_kept() -> None:
    code, out, _ = run("run", "explain_quantization", "--question", "explain", typed=played("You round to a grid."))
    assert code == 0 and "Question 1 of 1" in out and "of the points of this question" in out
    events = [event for event in progress.events() if event.kind == "interview"]
    assert len(events) == len(scenario.load("explain_quantization").questions[0].criteria)
    code, out, _ = run("history")
    assert code == 0 and "first time" in out and "explain_quantization" in out
    assert len(json.loads(run("history", "--json")[1])["criteria"]) == len(events)
    code, out, _ = run("show")
    assert code == 0 and "You round to a grid." in out
    document = json.loads(run("show", "--json")[1])
    assert document["turns"][0]["text"] == "You round to a grid." and document["questions"]


def test_a_stopped_interview_goes_on(home: Path) -> None:
    code, out, _ = run("run", "int4_slower", "--question", "predict", typed="\nhalf a line\n")
    assert code == 0 and "Stopped; everything is kept" in out
    code, out, _ = run("show")
    assert code == 0 and "It is not over, so there is no score yet." in out and "of 4" not in out
    assert "[not handed in yet]" in out and "half a line" in out
    assert "Stopped: qlab interview resume int4_slower-" in run("list")[1]
    assert "Stopped: qlab interview resume int4_slower-" in run("history")[1]
    assert "criteria" not in run("show", "--json")[1]
    code, out, _ = run("resume", typed="\n\n" + played("fine"))
    assert code == 0 and "half a line" in out and "of the points" in out and "INT4 is slower" in out
    assert "Nothing is due until 20" in run("weak")[1]
    assert run("resume")[0] == 2


def test_without_a_command_it_goes_on_or_offers(home: Path) -> None:
    run("run", "int4_slower", "--question", "predict", typed="\n")
    code, out, _ = run(typed="y\nfine\n\n" + played("fine"))
    assert code == 0 and "There is an interview that was stopped" in out and "of the points" in out
    code, out, _ = run(typed="explain_quantization\n")
    assert "Which one" in out and "Stopped" in out


def test_answers_from_a_file(home: Path) -> None:
    file = home / "answers.yaml"
    file.write_text("choose: In FP8 the weights are 73 GB.\n")
    code, out, _ = run("run", "recommender_on_aws", "--answers", str(file), "--json")
    document: dict[str, Any] = json.loads(out)
    assert code == 0 and [one["id"] for one in document["questions"]] == ["choose", "finance"]
    assert document == json.loads(run("run", "recommender_on_aws", "--answers", str(file), "--json")[1])
    code, out, _ = run("run", "recommender_on_aws", "--answers", str(file))
    assert code == 0 and "73 GB" in out
    assert not (home / "interviews").exists() and progress.events() == []


def test_weak_criteria_come_back() -> None:
    assert "Nothing is due" in run("weak")[1]
    progress.record(progress.Event("interview.trading_signals.prove.replay", "interview", level=4))
    weak = progress.Event("interview.int4_slower.predict.limit", "interview", level=1)
    old = progress.Event(weak.question, "interview", level=1, time=weak.time.replace(year=2020))
    progress.record(old)
    document = json.loads(run("weak", "--json")[1])
    assert [one["criterion"] for one in document["due"]] == ["limit"]
    code, out, _ = run("weak", typed=played("fine"))
    assert code == 0 and "Last time 1 of 4" in out and "speedup" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "trading"], "did you mean trading_signals"),
        (["run", "int4_slower", "--question", "predicted"], "did you mean predict"),
        (["run", "int4_slower", "--json"], "give the answers with --answers"),
        (["run", "int4_slower", "--answers", "missing.yaml"], "cannot be read"),
        (["run", "int4_slower", "--judge", "gpt"], "give a URL that begins with http"),
        (["show"], "there is none to go on with"),
        (["show", "nothing"], "there is no 'nothing'"),
    ],
)
def test_bad_input_is_named(arguments: list[str], message: str) -> None:
    code, _, error = run(*arguments)
    assert code == 2 and message in error


def test_a_judge_that_fails_leaves_the_score(home: Path) -> None:
    file = home / "answers.yaml"
    file.write_text("choose: In FP8 the weights are 73 GB.\n")
    arguments = ["--answers", str(file), "--json", "--judge", "http://127.0.0.1:9", "--judge-model", "m"]
    code, out, error = run("run", "recommender_on_aws", *arguments)
    assert code == 0 and "No second opinion on choose" in error
    assert json.loads(out)["questions"][0]["second_opinion"] is None


def test_the_agreement_with_a_bank(home: Path) -> None:
    bank = home / "bank"
    bank.mkdir()
    levels = "{traffic: 0, memory: 0, speed: 0, evidence: 0}"
    entry = f"{{kind: weak, text: Well., points: [], flags: [], levels: {levels}}}"
    one = levels.replace("traffic: 0", "traffic: 1")
    strong = f"{{kind: strong, text: Good., points: [traffic.shape], flags: [], levels: {one}}}"
    (bank / "recommender_on_aws.yaml").write_text(f"choose:\n- {entry}\n- {strong}\n")
    code, out, _ = run("agreement", str(bank), "--json")
    assert code == 0 and json.loads(out)["exact"] == 0.875
    assert "within one" in run("agreement", str(bank))[1]
    assert run("agreement", str(home / "none"))[0] == 2


def test_an_unfinished_interview_of_a_scenario_that_is_gone_is_no_trouble(home: Path) -> None:
    one = session.begin("int4_slower")
    one.save()
    one.path.write_text(one.path.read_text().replace("int4_slower", "gone"))
    code, out, _ = run(typed="explain_quantization\n")
    assert code == 0 and "Which one" in out
