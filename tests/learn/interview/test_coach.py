"""The coach of the notebook, without a page: what its buttons do and what they leave."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from qlab.learn import progress
from qlab.learn.interview import coach, scenario, session
from qlab.learn.interview.coach import Coach
from qlab.learn.interview.page import page
from qlab.learn.interview.score import score
from qlab.learn.interview.second_opinion import Opinion


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QLAB_HOME", str(tmp_path))
    return tmp_path


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def choose(made: Coach, name: str) -> None:
    made.choice.index = [value for _, value in made.choice.options].index(name)
    made.begin.click()


def hidden(widget: object) -> bool:
    return getattr(widget, "layout").display == "none"  # noqa: B009


def test_it_offers_every_interview_and_says_the_same_in_every_run() -> None:
    made = Coach()
    assert [value for _, value in made.choice.options] == scenario.names() and repr(made) == "Coach()"
    assert hidden(made.text) and hidden(made.done) and not made.clock.playing
    assert not hidden(made.choice) and not hidden(made.begin)
    assert repr(coach.coach()) == "Coach()"


def test_think_then_answer_then_be_pressed() -> None:
    clock = Clock()
    made = Coach(clock)
    choose(made, "explain_quantization")
    assert "Question 1 of 2" in made.question.value and "Llama-3-70B" in made.situation.value
    assert made.text.disabled and not hidden(made.ready) and made.clock.playing
    assert hidden(made.choice) and hidden(made.begin) and not hidden(made.text)
    clock.now = 1.5
    made.clock.value = 1
    assert made.interview is not None and made.interview.thought == 1.5 and "0:01 of" in made.time.value
    made.ready.click()
    assert not made.text.disabled and hidden(made.ready)
    made.text.value = "You round to a grid."
    clock.now = 3.0
    made.clock.value = 2
    again = session.find(made.interview.id)
    assert (again.draft, again.spent) == ("You round to a grid.", 1.5)
    made.done.click()
    assert "Follow-up" in made.question.value and made.text.value == ""


def test_a_page_that_slept_counts_a_tick_and_not_the_night() -> None:
    clock = Clock()
    made = Coach(clock)
    choose(made, "explain_quantization")
    clock.now = 30_000.0
    made.clock.value = 1
    assert made.interview is not None and made.interview.thought == 2.0


def test_to_the_score_and_into_the_history_once() -> None:
    made = Coach()
    choose(made, "int4_slower")
    one = made.interview
    assert one is not None
    while one.asked is not None:
        if not made.text.disabled:
            made.text.value = "fine"
        made.ready.click()
        made.done.click()
    assert "of the points" in made.result.value and not made.clock.playing and hidden(made.text)
    criteria = sum(len(question.criteria) for question in one.questions)
    assert len([event for event in progress.events() if event.kind == "interview"]) == criteria
    assert session.find(one.id, unfinished=False).recorded


def test_a_finished_interview_is_offered_no_longer() -> None:
    first = Coach()
    choose(first, "int4_slower")
    first.ready.click()
    made = Coach()
    made.begin.click()
    assert made.interview is not None and first.interview is not None and made.interview.id == first.interview.id
    while made.interview.asked is not None:
        made.ready.click()
        made.done.click()
        made.done.click()
    assert [value for _, value in made.choice.options if value == made.interview.id] == []
    assert not hidden(made.choice) and "of the points" in made.result.value


def test_the_second_click_of_a_double_click_answers_nothing() -> None:
    made = Coach()
    choose(made, "explain_quantization")
    made.ready.click()
    made.text.value = "fine"
    made.done.click()
    made.done.click()
    assert made.interview is not None and len(made.interview.turns) == 1 and "Follow-up" in made.question.value


def test_nothing_is_handed_in_only_by_a_second_click() -> None:
    made = Coach()
    choose(made, "explain_quantization")
    made.ready.click()
    made.done.click()
    assert made.interview is not None and made.interview.turns == [] and "You have said nothing" in made.message.value
    made.done.click()
    assert made.interview.turns[0].text == "" and made.message.value == ""


def test_one_can_stop_and_go_on_later() -> None:
    made = Coach()
    choose(made, "explain_quantization")
    made.ready.click()
    made.text.value = "Half a sentence"
    assert made.interview is not None
    stopped = made.interview.id
    made.stop.click()
    assert not hidden(made.choice) and hidden(made.text) and hidden(made.stop) and not made.clock.playing
    assert made.question.value == made.situation.value == "" and made.choice.value == stopped
    made.begin.click()
    assert made.text.value == "Half a sentence" and not made.text.disabled


def test_it_says_when_the_time_is_over() -> None:
    made = Coach()
    choose(made, "explain_quantization")
    made.ready.click()
    assert made.interview is not None and "over" not in made.time.value
    made.interview.spend(made.interview.questions[0].seconds + 5)
    made.clock.value = 1
    assert "time is over" in made.time.value


def test_a_stopped_interview_is_offered_first_and_goes_on() -> None:
    first = Coach()
    choose(first, "trading_signals")
    first.ready.click()
    first.text.value = "half a sentence"
    first.clock.value = 1
    assert first.interview is not None
    second = Coach()
    label, value = second.choice.options[0]
    assert value == first.interview.id and label.startswith("Go on")
    second.begin.click()
    assert second.text.value == "half a sentence" and not second.text.disabled


def test_at_the_whiteboard_the_stub_is_there() -> None:
    made = Coach()
    choose(made, "whiteboard_gptq")
    made.ready.click()
    made.text.value = "fine"
    made.done.click()
    assert "At the whiteboard" in made.question.value and "def compensate" in made.text.value
    made.done.click()
    assert "not attempted" in made.message.value and "def compensate" in made.text.value


def test_a_page_holds_quotes_levels_and_no_markup_of_the_learner() -> None:
    one = scenario.load("recommender_on_aws")
    text = "INT8 fits one p3.8xlarge easily. <script>alert(1)</script> Weights take 71 GB in FP8."
    opinion = Opinion("<b>m</b>", {"memory": 2}, {"memory": "71 GB"})
    shown = page(one, [score(one, one.questions[0], text)], [opinion])
    assert "<script" not in shown and "<b>m</b>" not in shown and "71 GB in FP8." in shown
    assert "1 of 4" in shown and "C011" in shown and "2 of 4" in shown and "none" in shown
    assert not re.search(r"\{\w+\}", shown)
    for tag in ("table", "tr", "td", "th", "p", "details", "h3", "h4"):
        assert len(re.findall(rf"<{tag}[ >]", shown)) == shown.count(f"</{tag}>")
