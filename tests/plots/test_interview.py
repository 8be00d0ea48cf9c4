"""The figure of interview scores: every level as a number and a word, filled as far, framed where a falsehood caps."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgb

from qlab.learn.interview import scenario as scenarios
from qlab.learn.interview.score import BROKEN, score
from qlab.learn.interview.whiteboard import Written
from qlab.plots import interview as plots
from qlab.plots.style import INK, RED

WEAK = "Four bits. INT4 is multiplied twice as fast as INT8 on any GPU, so it is faster here, too."


@pytest.fixture(scope="module")
def scores():
    loaded = scenarios.load("recommender_on_aws")
    question = loaded.question("choose")
    strong = score(loaded, question, loaded.shown(question.model_answer))
    weak = score(loaded, question, WEAK)
    # the levels are set here, so that the tests do not hang on by what words a point is known
    given = (4, 2, 0, 3)
    criteria = [replace(one, level=level, broken=()) for one, level in zip(weak.criteria, given, strict=True)]
    return {"strong": strong, "middling": replace(weak, criteria=tuple(criteria), flags=())}


@pytest.fixture(scope="module")
def flagged(scores):
    middling = scores["middling"]
    criteria = list(middling.criteria)
    criteria[2] = replace(criteria[2], level=BROKEN, broken=("a falsehood",))
    return {"weak": replace(middling, criteria=tuple(criteria))} | scores


def cells(figure):
    """(number, word, ...) of every cell, row by row, and the shares."""
    axis = figure.axes[0]
    ordered = sorted(axis.texts, key=lambda text: (text.get_position()[1], text.get_position()[0]))
    return [text.get_text() for text in ordered]


def filled(figure):
    """The width of the filled part by (column, row)."""
    patches = [one for one in figure.axes[0].patches if to_hex(one.get_facecolor()) == plots.FILL.lower()]
    return {(one.get_x(), one.get_y()): one.get_width() for one in patches}


def test_every_level_is_a_number_and_a_word(scores):
    found = cells(plots.levels(scores))
    wanted = [
        f"{one.level}  {plots.WORDS[one.level]}"
        for row in zip(*(score.criteria for score in scores.values()), strict=True)
        for one in row
    ]
    assert found == [*wanted, *(f"{score.share:.0%}" for score in scores.values())]


def test_a_cell_is_filled_as_far_as_its_level(scores):
    widths = filled(plots.levels(scores))
    for x, score_ in enumerate(scores.values()):
        for y, judged in enumerate(score_.criteria):
            assert widths[x, y] == pytest.approx(0.94 * judged.level / 4)


def test_rows_are_the_criteria_and_columns_the_candidates(scores):
    axis = plots.levels(scores).axes[0]
    rows = [" ".join(label.get_text().split()) for label in axis.get_yticklabels()]
    for row, judged in zip(rows[:-1], scores["strong"].criteria, strict=True):
        assert row.startswith(judged.criterion.title)
        assert row.endswith(f"(weight {judged.criterion.weight})") == (judged.criterion.weight > 1)
    assert rows[-1] == "share of the points"
    assert [label.get_text() for label in axis.get_xticklabels()] == list(scores)


def test_a_capped_level_is_framed_and_says_so(scores, flagged):
    frames = [one for one in plots.levels(flagged).axes[0].patches if not one.get_fill()]
    assert [(one.get_x(), one.get_y()) for one in frames] == [(0, 2)]
    assert to_hex(frames[0].get_edgecolor()) == RED.lower()
    assert [text for text in cells(plots.levels(flagged)) if plots.FLAG in text] == ["1  a start\nred flag"]
    assert not [one for one in plots.levels(scores).axes[0].patches if not one.get_fill()]


def test_the_description_says_all_of_it(flagged):
    alt = plots.levels(flagged).alt
    assert "weak 1, a start, red flag; strong" in alt
    assert "middling 0, nothing yet." in alt
    for judged in flagged["weak"].criteria:
        assert judged.criterion.title in alt
    assert alt.endswith(", ".join(f"{name} {score.share:.0%}" for name, score in flagged.items()) + ".")


def test_words_differ_and_stand_out_from_what_is_behind_them():
    assert len(set(plots.WORDS)) == 5

    def lightness(color):
        parts = np.array(to_rgb(color))
        return np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    for behind in (plots.FILL, plots.EMPTY):
        assert (lightness(behind) + 0.05) / (lightness(INK) + 0.05) > 4.5


@pytest.mark.parametrize("candidates", [1, 3])
def test_nothing_overlaps_and_nothing_is_cut(flagged, candidates):
    shown = dict(itertools.islice(flagged.items(), candidates))
    figure = plots.levels(shown)
    figure.draw_without_rendering()
    axis, canvas = figure.axes[0], figure.bbox
    boxes = [text.get_window_extent() for text in (*axis.texts, *axis.get_yticklabels(), *axis.get_xticklabels())]
    for one in boxes:
        assert canvas.x0 <= one.x0 and one.x1 <= canvas.x1 and canvas.y0 <= one.y0 and one.y1 <= canvas.y1
    for one, other in itertools.combinations(boxes, 2):
        assert not one.overlaps(other)


def test_code_has_a_row_of_its_own():
    loaded = scenarios.load("whiteboard_gptq")
    question = next(one for one in loaded.questions if one.code)
    answered = score(loaded, question, "I would start with the Hessian.", written=Written("passed", "All passed.", 1))
    silent = score(loaded, question, "")
    figure = plots.levels({"written": answered, "not written": silent})
    rows = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert rows[-2] == "The code"
    code = f"{answered.written.level}  {plots.WORDS[answered.written.level]}"
    assert cells(figure)[-4:-2] == [code, "0  nothing yet"] and answered.written.level > 0


def test_refuses_what_is_no_comparison(scores):
    with pytest.raises(ValueError, match="got none"):
        plots.levels({})
    loaded = scenarios.load("recommender_on_aws")
    other = score(loaded, loaded.question("finance"), WEAK)
    with pytest.raises(ValueError, match="choose, finance"):
        plots.levels(scores | {"other": other})
