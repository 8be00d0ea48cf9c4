"""The rules of the scorer, on a small scenario of their own."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlab.learn.interview import scenario
from qlab.learn.interview.scenario import Scenario, parse
from qlab.learn.interview.score import Score, score
from qlab.learn.interview.whiteboard import Written


def criterion(name: str, points: dict[str, str], weight: int = 1) -> dict[str, Any]:
    clause = f"of {' '.join(points)}"
    takes: dict[int, list[str]] = {1: [f"1 {clause}"], 2: [f"2 {clause}"], 3: [f"3 {clause}"], 4: list(points)}
    levels: dict[int, Any] = {0: {"anchor": "Nothing.", "example": "Well."}}
    levels |= {level: {"anchor": "More.", "example": "So.", "takes": clauses} for level, clauses in takes.items()}
    return {
        "id": name,
        "title": name,
        "weight": weight,
        "repair": {"lesson": "01_memory_math"},
        "points": [{"id": point, "says": says} for point, says in points.items()],
        "levels": levels,
    }


@cache
def small(code: bool = False) -> Scenario:
    memory = criterion("memory", {"weights": "a", "cache": "b", "fits": "c", "card": "d"})
    speed = criterion("speed", {"unpack": "a", "rate": "b", "wins": "c", "kernel": "d"}, weight=2)
    question: dict[str, Any] = {
        "id": "choose",
        "ask": "Which precision do you choose for this service of ours, four bits or eight?",
        "criteria": [memory, speed],
        "model_answer": "{w}",
        "red_flags": [
            {"id": "free", "says": "4 bits are free", "breaks": "speed", "claim": "C043"},
            {"id": "small", "says": "it fits a phone", "breaks": "memory", "instead": "It takes {w}."},
        ],
        "follow_ups": [
            {"id": "what", "unless": "memory.cache", "ask": "What else is held?", "model_answer": "The cache."},
            {"id": "how", "unless": "speed.unpack", "ask": "How is it computed?", "model_answer": "Unpacked."},
            {"id": "who", "unless": "speed.wins", "ask": "Who wins?", "model_answer": "Eight bits."},
            {"id": "where", "unless": "speed.kernel", "ask": "Where?", "model_answer": "In a kernel."},
        ],
    }
    if code:
        question["code"] = "gptq.update"
    evidence = {
        "memory.weights": ["weight & #w"],
        "memory.cache": ["cache & hold|keep|grow"],
        "memory.fits": ["+fit"],
        "memory.card": ["card & gigabyte|large"],
        "speed.unpack": ["unpack"],
        "speed.rate": ["rate & double"],
        "speed.wins": ["eight bit & win"],
        "speed.kernel": ["kernel & measure"],
        "free": ["four bit & +free"],
        "small": ["phone & +fit"],
    }
    return parse(
        {
            "id": "small",
            "title": "Small",
            "role": "Engineer",
            "minutes": 5,
            "situation": "We serve a model to many users, and nobody has measured anything so far.",
            "numbers": {"w": {"value": 40, "unit": "GB", "show": "{:.0f} GB", "tolerance": 0.1}},
            "questions": [question],
            "evidence": {"choose": evidence},
            "about": {"w": ["weight"]},
        }
    )


def judged(text: str, replies: dict[str, str] | None = None, written: Written | None = None) -> Score:
    one = small(written is not None)
    return score(one, one.questions[0], text, replies, written)


def test_levels_come_from_points_with_quotes() -> None:
    found = judged("The weights take 39 GB. It fits. Eight bits win because they are at a rate that is double.")
    assert (found.level("memory"), found.level("speed")) == (2, 2)
    assert [one.quote.text for one in found.criteria[0].found] == ["The weights take 39 GB.", "It fits."]
    assert [point.id for point in found.criteria[0].missing] == ["cache", "card"]
    assert found.share == found.said == (1 * 2 + 2 * 2) / 12


def test_a_guess_counts_up_to_level_two() -> None:
    sure = "Weights of 40 GB. Then it fits. We keep a cache."
    assert judged(sure).level("memory") == 3
    assert judged(f"I'm not sure: {sure.replace('. ', ', ')}").level("memory") == 2
    assert not judged("Maybe it fits.").criteria[0].found[0].quote.firm


def test_a_reply_to_a_follow_up_counts_up_to_level_three() -> None:
    first = "Weights of 40 GB. It fits. The card is large."
    assert judged(first).level("memory") == 3
    assert judged(f"{first} We hold a cache.").level("memory") == 4
    pressed = judged(first, {"what": "We hold a cache, too."})
    assert pressed.level("memory") == 3 and pressed.criteria[0].missing == ()
    assert [one.prompted for one in pressed.criteria[0].found] == [False, True, False, False]
    assert judged("", {"what": "We hold a cache."}).level("memory") == 1


def test_a_falsehood_breaks_its_criterion_and_no_other() -> None:
    text = "Weights of 40 GB and it fits. You unpack. Eight bits win. The rate is double. Four bits are free."
    found = judged(text)
    assert [one.flag.id for one in found.flags] == ["free"]
    assert (found.level("memory"), found.level("speed")) == (2, 1)
    assert found.criteria[1].broken == found.flags and found.flags[0].quote.text == "Four bits are free."


@pytest.mark.parametrize(
    "text",
    [
        "Four bits aren't free.",
        "People say that four bits are free.",
        "Are four bits free?",
        "Maybe four bits are free.",
        "That four bits are free is a myth.",
    ],
)
def test_nobody_is_accused_of_what_they_did_not_claim(text: str) -> None:
    assert judged(text).flags == ()


def test_what_says_nothing_of_its_own_counts_for_nothing() -> None:
    found = judged("We serve a model to many users, and nobody has measured anything so far. It fits.")
    assert [one.why for one in found.ignored] == ["it repeats the question"]
    assert found.level("memory") == 1


def test_a_wrong_number_is_reported() -> None:
    found = judged("The weights are 20 GB.")
    assert [(one.said.text, str(one.number)) for one in found.wrong_numbers] == [("20 GB", "40 GB")]
    assert judged("The weights are 41 GB.").wrong_numbers == ()
    assert judged("The cache is 20 GB.").wrong_numbers == ()
    assert judged("The weights are 20 to 80 GB.").wrong_numbers == ()
    assert judged("The weights are 20 GB, the other weights 60 GB.").wrong_numbers == ()
    assert judged("The weights of two models are 80 GB.").wrong_numbers == ()
    [found_in_bits] = judged("In 4 bits the weights are 20 GB.").wrong_numbers
    assert found_in_bits.said.text == "20 GB"
    assert judged("Somebody might say the weights are 20 GB.").wrong_numbers == ()


def test_code_has_a_weight_of_its_own() -> None:
    assert judged("", written=Written("passed", "all cases")).share == pytest.approx(16 / 28)
    levels = [Written("passed", "", tries).level for tries in (1, 2, 3)]
    assert levels == [4, 3, 2]
    assert Written("failed", "", 3).level == Written("error", "").level == 1
    assert Written("not attempted", "").level == 0
    without = score(small(code=True), small(code=True).questions[0], "It fits.")
    assert without.said == 1 / 12 and without.share == 1 / 28


@given(st.text(max_size=400))
def test_any_text_has_a_score(text: str) -> None:
    found = judged(text)
    assert 0 <= found.share <= 1
    assert all(one.found or one.level == 0 for one in found.criteria)


@given(st.text(alphabet="abcdefghij .,\n", max_size=200))
def test_the_same_words_have_the_same_score(text: str) -> None:
    assert judged(text) == judged(text)


@pytest.mark.parametrize("name", scenario.names())
def test_model_answers_are_strong_and_accuse_nobody(name: str) -> None:
    one = scenario.load(name)
    for question in one.questions:
        found = score(one, question, one.shown(question.model_answer))
        assert found.said >= 0.85 and not found.wrong, (question.id, found.said)
        for follow in question.follow_ups:
            reply = score(one, question, "", {follow.id: one.shown(follow.model_answer)})
            said = {f"{j.criterion.id}.{f.point.id}" for j in reply.criteria for f in j.found}
            assert follow.unless in said and not reply.wrong, follow.id


@pytest.mark.parametrize("name", scenario.names())
def test_example_answers_have_their_level(name: str) -> None:
    one = scenario.load(name)
    for question in one.questions:
        for asked in question.criteria:
            for level, described in asked.levels.items():
                found = score(one, question, one.shown(described.example))
                assert found.level(asked.id) == level, (question.id, asked.id, level, described.example)
                assert level < 3 or not found.wrong, (question.id, asked.id, level, found.wrong)


@pytest.mark.parametrize(
    ("name", "said", "wrong"),
    [
        ("recommender_on_aws", "In 4 bits the 70B takes 60 GB.", "weights_4"),
        ("recommender_on_aws", "A p5.48xlarge is 12 dollars an hour.", "price_large"),
        ("trading_signals", "A slow prompt takes 300 ms in 16 bits on the p4d.", "alone_16"),
        ("explain_quantization", "In 16 bits the 70B takes 70 GB.", "weights_16"),
        ("tenfold_cheaper", "The weights take 300 GB in 16 bits.", "weights_16"),
        ("tenfold_cheaper", "One machine bears 500 requests per second in FP8.", "bears_8"),
        ("long_context_memory", "The KV cache takes 3 MB per token.", "kv_token"),
        ("quality_complaint", "In 8 bits the weights are 20 GB.", "weights_8"),
        ("whiteboard_gptq", "The Hessians of all layers take 2 GB.", "hessians"),
        ("whiteboard_triton", "The packed matrix takes 5 MB.", "bytes_4"),
    ],
)
def test_a_wrong_number_of_a_shipped_scenario_is_named(name: str, said: str, wrong: str) -> None:
    one = scenario.load(name)
    for question in one.questions:
        [found] = score(one, question, said).wrong_numbers
        assert found.name == wrong and found.quote.text == said
        assert score(one, question, said.replace(found.said.text, str(found.number))).wrong_numbers == ()
        assert score(one, question, f"Some say: {said.lower()}").wrong_numbers == ()
