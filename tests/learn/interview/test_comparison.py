"""Candidates side by side: every point once, the words that each said for it, what to say instead of a falsehood."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qlab.deploy.claims import claim
from qlab.learn.interview import comparison, scenario
from qlab.learn.interview.comparison import side_by_side
from qlab.learn.interview.evidence import Quote
from qlab.learn.interview.report import brief
from qlab.learn.interview.score import Flagged, Found, score


@pytest.fixture(scope="module")
def loaded():
    return scenario.load("recommender_on_aws")


@pytest.fixture(scope="module")
def scores(loaded):
    """What was found is set here, so that the tests do not hang on by what words a point is known."""
    question = loaded.question("choose")
    empty = score(loaded, question, "")
    speed = next(one for one in empty.criteria if one.criterion.id == "speed")
    unpack, rate, *rest = speed.criterion.points
    firm, guess = _quote("It is unpacked."), replace(_quote("Maybe twice."), firm=False)
    flag = next(one for one in question.red_flags if one.id == "faster_matmul")
    said = replace(speed, level=2, found=(Found(unpack, firm, prompted=True), Found(rate, guess)), missing=tuple(rest))
    wrong = replace(speed, level=1, broken=(Flagged(flag, _quote("Four bits always multiply faster.")),))
    return {"middling": _with(empty, said), "weak": _with(empty, wrong), "silent": empty}


def _quote(text):
    return Quote(text)


def _with(one, judged):
    return replace(one, criteria=tuple(judged if c.criterion.id == "speed" else c for c in one.criteria))


def test_every_point_stands_once_with_a_line_for_each_candidate(loaded, scores):
    text = side_by_side(loaded, scores, "speed", width=400)
    blocks = text.split("\n\n")
    points = scores["silent"].criteria[2].criterion.points
    assert blocks[0].endswith("middling 2, weak 1, silent 0 (of 4)")
    for point, block in zip(points, blocks[1:5], strict=True):
        first, *lines = block.split("\n")
        assert first == f"{brief(loaded, point)}:"
        assert [line.split()[0] for line in lines] == list(scores)
        assert lines[2].split() == ["silent", "-"]


def test_words_say_how_they_count(loaded, scores):
    text = side_by_side(loaded, scores, "speed")
    assert "middling  “It is unpacked.” (after a follow-up)" in text
    assert "middling  “Maybe twice.” (as a guess)" in text


def test_words_that_show_two_points_are_read_once(loaded, scores):
    said = "It is unpacked to sixteen bits first, and then it is multiplied at the rate of sixteen bits."
    speed = next(one for one in scores["silent"].criteria if one.criterion.id == "speed")
    found = tuple(Found(point, _quote(said)) for point in speed.criterion.points[:2])
    text = side_by_side(loaded, {"you": _with(scores["silent"], replace(speed, found=found))}, "speed", width=400)
    first, again = (line for line in text.splitlines() if "It is unpacked" in line)
    assert said in first and again.endswith("“It is unpacked to sixteen bits first, and then it …”")


def test_a_falsehood_stands_below_with_what_to_say_instead(loaded, scores):
    last = side_by_side(loaded, scores, "speed", width=1000).split("\n\n")[-1]
    first, better = last.split("\n")
    assert first == "weak, a red flag, level 1 at most: “Four bits always multiply faster.”"
    assert better.startswith("C043 of the claim ledger") and claim("C043").instead in better
    assert "red flag" not in side_by_side(loaded, scores, "memory")


@pytest.mark.parametrize("width", [60, 116])
def test_no_line_is_longer_than_asked(loaded, scores, width):
    lines = side_by_side(loaded, scores, "speed", width).split("\n")
    assert max(map(len, lines)) <= width


ANSWER = """INT4 is unpacked to 16 bits before the matmul, and that
takes time. The weights take 71 GB in FP8. INT8 fits one p3.8xlarge easily."""


def test_who_says_nothing_has_no_score_and_lines_may_break_anywhere(loaded):
    question = loaded.question("choose")
    found = comparison.scores(loaded, question, {"weak": ANSWER, "silent": " \n"})
    assert list(found) == ["weak"]
    assert found["weak"].criteria == score(loaded, question, " ".join(ANSWER.split())).criteria


def test_each_sentence_is_followed_by_what_it_earned(loaded):
    found = comparison.scores(loaded, loaded.question("choose"), {"weak": ANSWER})["weak"]
    lines = comparison.credited("weak", found).splitlines()
    assert lines[0] == "WEAK, 25 words, about 10 seconds"
    after = {said: lines[at + 1].strip() for at, said in enumerate(lines[:-1])}
    assert "speed: unpack" in after["  INT4 is unpacked to 16 bits before the matmul, and that takes time."]
    assert after["  The weights take 71 GB in FP8."] == "-> memory: eight"
    assert "RED FLAG" in after["  INT8 fits one p3.8xlarge easily."]


def test_a_talk_asks_for_what_was_missed_and_says_why(loaded):
    question = loaded.question("choose")
    held = comparison.talk(loaded, question, ANSWER, {})
    assert held.asked is None and held.turns[0].text.startswith("INT4") and not held.path.exists()
    why = " ".join(comparison.why_asked(loaded, question, held).split())
    ladder = {one.id: one for one in question.follow_ups}
    for number, turn in enumerate(held.turns[1:], 1):
        missed = brief(loaded, question.points[ladder[turn.step].unless])
        assert f"{number}. {turn.step}, for want of a sentence that {missed}" in why
    assert len(held.turns) > 1 and "not asked:" in why


def test_a_strong_answer_is_not_pressed_where_it_said_it(loaded):
    question = loaded.question("choose")
    silent = comparison.talk(loaded, question, "Hello.", {})
    told = comparison.talk(loaded, question, loaded.shown(question.model_answer), {})
    assert len(told.turns) < len(silent.turns)
