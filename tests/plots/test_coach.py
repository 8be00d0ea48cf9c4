"""The figure of labels over length and over score."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qlab.learn.interview import scenario
from qlab.learn.interview.agreement import Labelled
from qlab.learn.interview.score import score
from qlab.plots.coach import length_and_score


@pytest.fixture(scope="module")
def answers():
    """Scores are set through the levels, so that the tests do not hang on by what words a point is known."""
    loaded = scenario.load("explain_quantization")
    question = loaded.questions[0]
    silent = score(loaded, question, "")

    def labelled(kind, words, label, level):
        judged = tuple(replace(one, level=level) for one in silent.criteria)
        labels = {one.id: label for one in question.criteria}
        nothing = frozenset()
        given = replace(silent, criteria=judged)
        return Labelled(loaded, question, kind, "word " * words, nothing, nothing, labels, given)

    return [
        labelled("strong", 40, 4, 4),
        labelled("middling", 120, 2, 3),
        labelled("weak", 160, 0, 0),
        labelled("stuffed", 60, 0, 1),
    ]


def points(axis):
    return [tuple(map(float, point)) for group in axis.collections for point in group.get_offsets()]


def test_length_on_the_left_and_score_on_the_right(answers):
    left, right = length_and_score(answers).axes
    assert points(left) == [(40, 100), (120, 50), (160, 0), (60, 0)]
    assert points(right) == [(100, 100), (75, 50), (0, 0), (25, 0)]


def test_what_deserves_nothing_has_a_marker_of_its_own(answers):
    figure = length_and_score(answers)
    assert [len(group.get_offsets()) for group in figure.axes[0].collections] == [3, 1]
    circle, cross = (group.get_paths()[0].vertices.shape for group in figure.axes[0].collections)
    assert circle != cross
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["real answers", "off topic, stuffed, empty"]


def test_axes_say_their_units_and_the_description_both_correlations(answers):
    figure = length_and_score(answers)
    assert "words" in figure.axes[0].get_xlabel() and all("%" in one.get_xlabel() for one in figure.axes[1:])
    assert "%" in figure.axes[0].get_ylabel()
    # ranks of the words 1 3 4 2 and of the labels 4 3 1.5 1.5; those of the scores 4 3 1 2
    assert "4 labelled answers" in figure.alt and "-0.63" in figure.alt and "0.95" in figure.alt


def test_one_answer_is_no_comparison(answers):
    with pytest.raises(ValueError, match="got 1"):
        length_and_score(answers[:1])
