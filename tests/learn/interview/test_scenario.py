from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from qlab.deploy.claims import claim
from qlab.learn import quantities
from qlab.learn.interview import numbers
from qlab.learn.interview.scenario import Criterion, Scenario, ScenarioError, load, names, parse

SHOWN = re.compile(r"\{\w+\}")
WIDTHS = {2, 3, 4, 8, 16, 32}


@pytest.fixture(params=names())
def shipped(request: pytest.FixtureRequest) -> Scenario:
    return load(request.param)


def raw() -> dict[str, Any]:
    """The smallest scenario: one question, one criterion, one point."""
    levels = {n: {"anchor": "It does.", "example": "Weights are {w}.", "takes": ["size"]} for n in (1, 2, 3, 4)}
    criterion = {
        "id": "memory",
        "title": "Counts",
        "repair": {"lesson": "01_memory_math", "exercise": "memory.weight_bytes"},
        "points": [{"id": "size", "says": "gives {w}"}],
        "levels": {0: {"anchor": "It does not.", "example": "Small."}} | levels,
    }
    question = {"id": "ask", "ask": "How large?", "criteria": [criterion], "model_answer": "{w}."}
    of = {"model": "Llama-3-70B", "precision": "bf16"}
    weights = {"compute": "weights", "of": of, "unit": "GB", "show": "{:.0f} GB"}
    return {
        "id": "small",
        "title": "Small",
        "role": "Engineer",
        "minutes": 5,
        "situation": "A model.",
        "numbers": {"w": weights},
        "questions": [question],
        "evidence": {"ask": {"memory.size": ["#w"]}},
    }


def answers(of: Scenario) -> list[str]:
    """The model answers, those to follow-ups among them."""
    return [
        text
        for question in of.questions
        for text in (question.model_answer, *(one.model_answer for one in question.follow_ups))
    ]


def test_there_are_the_scenarios_that_the_course_promises() -> None:
    assert len(names()) >= 8
    assert {"recommender_on_aws", "trading_signals", "explain_quantization", "tenfold_cheaper"} <= set(names())
    assert {"int4_slower", "long_context_memory", "quality_complaint"} <= set(names())
    assert {q.code for name in names() for q in load(name).questions} >= {"gptq.update", "kernels.dequantize_int4"}


def test_every_number_of_a_model_answer_is_computed(shipped: Scenario) -> None:
    for answer in answers(shipped):
        text = SHOWN.sub("XX", answer)
        typed = [one for one in quantities.find(text) if re.search(r"\d", one.text)]
        # Widths and sizes of models are names: "4-bit", "the 8B".
        assert [one.text for one in typed if one.value not in WIDTHS and not re.fullmatch(r"\d+B", one.text)] == []


def test_every_number_computes_and_is_used(shipped: Scenario) -> None:
    texts = " ".join(text for _, text in shipped.texts())
    for name, number in shipped.numbers.items():
        assert number.amount > 0 and str(number)
        assert f"{{{name}}}" in texts, f"{name} is used nowhere"


def test_every_question_presses_and_accuses(shipped: Scenario) -> None:
    assert len(shipped.questions) == 2
    for question in shipped.questions:
        assert len(question.follow_ups) >= 3 and len(question.red_flags) >= 2
        assert len({one.unless for one in question.follow_ups}) == len(question.follow_ups)
        assert 90 <= len(shipped.shown(question.model_answer).split()) <= 220


def test_it_has_words_for_every_point_and_red_flag(shipped: Scenario) -> None:
    assert shipped.lexicon.evidence.keys() == {one.id for one in shipped.questions}


def test_no_words_are_read_before_an_answer_is_scored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qlab.learn.interview.scenario.LEXICONS", Path("nowhere"))
    load.cache_clear()
    for name in names():
        load(name)
    with pytest.raises(ScenarioError, match="cannot be read"):
        load("int4_slower").lexicon  # noqa: B018
    load.cache_clear()


def test_red_flags_stand_on_claims_that_do_not_hold_everywhere(shipped: Scenario) -> None:
    for question in shipped.questions:
        for flag in question.red_flags:
            assert flag.claim is None or claim(flag.claim).verdict != "true", flag.id


def test_another_specification_is_another_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = load("recommender_on_aws")
    before = asked.shown(asked.questions[0].model_answer)
    own = tmp_path / "data.yaml"
    price = "{price_usd_per_hour: 5.5, price_date: 2026-11-02, source: ours, date: 2026-11-02}"
    own.write_text(f"instances: {{p5.48xlarge: {price}}}")
    monkeypatch.setenv("QLAB_DATA", str(own))
    after = asked.shown(asked.questions[0].model_answer)
    monkeypatch.undo()
    assert before != after
    assert asked.shown(asked.questions[0].model_answer) == before


def test_a_level_takes_points_or_so_many_of_them() -> None:
    levels = {0: {"anchor": "a", "example": "b"}}
    takes: dict[int, list[str]] = {1: ["1 of x y z"], 2: ["2 of x y z"], 3: ["x", "2 of x y z"], 4: ["x", "y", "z"]}
    for number, clauses in takes.items():
        levels[number] = {"anchor": "a", "example": "b", "takes": clauses}  # type: ignore[dict-item]
    points = [{"id": name, "says": name} for name in "xyz"]
    one = Criterion.model_validate(
        {"id": "c", "title": "t", "repair": {"lesson": "01_memory_math"}, "points": points, "levels": levels}
    )
    cases = {"": 0, "y": 1, "yz": 2, "xz": 3, "xyz": 4, "x": 1}
    assert {found: one.level(set(found)) for found in cases} == cases


BROKEN: list[tuple[str, Any, str]] = [
    ("questions.0.criteria.0.levels.3.takes", ["nothing"], "no point 'nothing'; there are"),
    ("questions.0.criteria.0.levels.3.takes", ["2 of size"], "asks for 2 of 1 points"),
    ("questions.0.criteria.0.levels.3.takes", ["some of size"], 'write a point, or "2 of a b c"'),
    ("questions.0.criteria.0.levels.3.takes", [], "level 0 takes nothing, others do"),
    ("questions.0.criteria.0.levels.5", {"anchor": "a", "example": "b", "takes": ["size"]}, "give 0, 1, 2, 3 and 4"),
    ("questions.0.criteria.0.repair.exercise", "memory.weights", "did you mean memory.weight_bytes"),
    ("questions.0.criteria.0.repair.lesson", "memory", "name of a notebook"),
    ("questions.0.model_answer", "It takes {x}.", "no number {x}; there are w"),
    ("questions.0.code", "gptq.upgrade", "did you mean gptq.update"),
    ("questions.0.follow_ups", [{"id": "f", "unless": "memory.cache", "ask": "a", "model_answer": "b"}], "unless: no"),
    ("questions.0.red_flags", [{"id": "f", "says": "a", "breaks": "speed", "claim": "C011"}], "no criterion 'speed'"),
    ("questions.0.red_flags", [{"id": "f", "says": "a", "breaks": "memory", "claim": "C999"}], "give C001 to"),
    ("questions.0.red_flags", [{"id": "f", "says": "a", "breaks": "memory"}], "or what to say instead"),
    ("evidence.ask", {}, "evidence: ask misses 'memory.size'"),
    ("evidence.ask", {"memory.size": ["#w"], "memory.cache": ["a"]}, "evidence: ask has unknown 'memory.cache'"),
    ("evidence.ask", {"memory.size": ["@thing"]}, "no concept @thing"),
    ("evidence.ask", {"memory.size": ["#x"]}, "no number #x; there are w"),
    ("evidence.asked", {"memory.size": ["#w"]}, "no question 'asked'; there are ask"),
    ("about", {"x": ["weight"]}, "about: no number 'x'; there are w"),
    ("about", {"w": ["weight & @thing"]}, "no concept @thing"),
    ("evidence.ask", {"memory.size": [".."]}, "write words and @concepts"),
    ("concepts", {"thing": ["!small"]}, "it holds words and other concepts only"),
    ("questions.0.extra", 1, "Extra inputs are not permitted"),
    ("numbers.w.unit", "furlong", "known are"),
    ("numbers.w.value", 3, "give a value, or what computes it, not both"),
    ("minutes", 0, "greater than or equal to 5"),
]


@pytest.mark.parametrize(("where", "value", "message"), BROKEN, ids=[f"{w} {m}" for w, _, m in BROKEN])
def test_what_is_wrong_is_named_with_its_place(where: str, value: Any, message: str) -> None:
    broken: Any = raw()
    *path, last = where.split(".")
    at = broken
    for key in path:
        at = at[int(key) if key.isdigit() else key]
    at[int(last) if last.isdigit() else last] = value
    with pytest.raises(ScenarioError, match=re.escape(message)) as caught:
        parse(broken, "own.yaml")
    assert str(caught.value).startswith("own.yaml: ")


def test_the_smallest_scenario_is_one() -> None:
    assert parse(raw()).shown("{w}") == "141 GB"


def test_a_number_that_does_not_compute_says_so() -> None:
    with pytest.raises(ValueError, match=r"compute: 'weight' is not known; did you mean weights"):
        numbers.value("weight", {}, "GB")
    with pytest.raises(ValueError, match=r"unit: got 'ms'; weights gives bytes"):
        numbers.value("weights", {"model": "nano", "precision": "bf16"}, "ms")
    with pytest.raises(ValueError, match=r"of: weights: .*unexpected keyword argument 'gpu'"):
        numbers.value("weights", {"model": "nano", "precision": "bf16", "gpu": 1}, "GB")


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ScenarioError, match=r"scenario: 'trading' is not known; did you mean trading_signals"):
        load("trading")
    with pytest.raises(ScenarioError, match=r"missing.yaml cannot be read as YAML .No such file"):
        load(str(tmp_path / "missing.yaml"))
    for number, text in enumerate(("- a list", "a: [", "\x80")):
        file = tmp_path / f"{number}.yaml"
        file.write_bytes(text.encode("latin-1"))
        with pytest.raises(ScenarioError, match=rf"{number}.yaml"):
            load(str(file))


def test_one_s_own_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    content = raw()
    del content["id"]
    file.write_text(yaml.safe_dump(content))
    assert load(str(file)).id == "mine"
