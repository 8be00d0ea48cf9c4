"""A picture of interview scores: the level of each criterion, candidates (or one, early and late) side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from typing import Any

from matplotlib.patches import Rectangle

from qlab.learn.interview.score import Score

from .style import INK, RED, Figure, new_figure, styled

WORDS = ("nothing yet", "a start", "half of it", "sound", "complete")  # of the levels 0 to 4
FILL, EMPTY = "#A9D3EE", "#EFEFEF"  # how far a level reaches in its cell, and the rest; dark text is read on both
FLAG = "red flag"
TITLE_WIDTH = 30  # characters of a criterion's title in a line
Row = tuple[
    str, tuple[tuple[int, bool], ...]
]  # a title; for each candidate the level, and whether a falsehood capped it


@styled
def levels(scores: Mapping[str, Score]) -> Figure:
    """Levels as a table: a row for each criterion, a column for each candidate, the share of the points below.

    A cell says its level as a number and a word, and is filled as far as the level reaches. Where a false claim
    capped the level, it is framed and says so.

    Args:
        scores: of one question, by candidate, in the order of the columns.

    Raises:
        ValueError: no scores, or scores of different questions.
    """
    rows = _rows(scores)
    figure, axis = new_figure(2.9 + 1.65 * len(scores), 0.75 + 0.52 * (len(rows) + 1))
    for y, (_, cells) in enumerate(rows):
        for x, (level, broken) in enumerate(cells):
            _cell(axis, x, y, level, broken)
    for x, score in enumerate(scores.values()):
        axis.text(x + 0.47, len(rows) + 0.42, f"{score.share:.0%}", ha="center", va="center", fontweight="bold")
    whole = [title.replace("(weight ", "(weight\N{NO-BREAK SPACE}") for title, _ in rows]
    titles = [textwrap.fill(title, TITLE_WIDTH) for title in whole]
    axis.set_yticks([y + 0.42 for y in range(len(rows) + 1)], [*titles, "share of the points"])
    axis.set_xticks([x + 0.47 for x in range(len(scores))], list(scores), fontsize=10)
    axis.xaxis.tick_top()
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set(xlim=(0, len(scores)), ylim=(len(rows) + 0.8, -0.05))
    figure.alt = _said(scores, rows)
    return figure


def _rows(scores: Mapping[str, Score]) -> list[Row]:
    if not scores:
        raise ValueError("scores: got none; give the scores of one question by candidate")
    asked = list(dict.fromkeys(score.question.id for score in scores.values()))
    if len(asked) > 1:
        raise ValueError(f"scores: got the questions {', '.join(asked)}; draw a figure for each question")
    question = next(iter(scores.values())).question
    rows: list[Row] = []
    for number, criterion in enumerate(question.criteria):
        judged = [score.criteria[number] for score in scores.values()]
        weight = f" (weight {criterion.weight})" if criterion.weight > 1 else ""
        rows.append((criterion.title + weight, tuple((one.level, bool(one.broken)) for one in judged)))
    if question.code is not None:
        written = [score.written for score in scores.values()]
        rows.append(("The code", tuple((one.level if one else 0, False) for one in written)))
    return rows


def _cell(axis: Any, x: int, y: int, level: int, broken: bool) -> None:
    axis.add_patch(Rectangle((x, y), 0.94, 0.84, facecolor=EMPTY))
    axis.add_patch(Rectangle((x, y), 0.94 * level / 4, 0.84, facecolor=FILL))
    text = f"{level}  {WORDS[level]}"
    if broken:
        axis.add_patch(Rectangle((x, y), 0.94, 0.84, fill=False, edgecolor=RED, linewidth=1.8))
        text += f"\n{FLAG}"
    axis.text(x + 0.47, y + 0.42, text, ha="center", va="center", fontsize=9.5, color=INK, linespacing=1.3)


def _said(scores: Mapping[str, Score], rows: list[Row]) -> str:
    question = next(iter(scores.values())).question.id
    parts = []
    for title, cells in rows:
        each = [
            f"{name} {level}, {WORDS[level]}{f', {FLAG}' if broken else ''}"
            for name, (level, broken) in zip(scores, cells, strict=True)
        ]
        parts.append(f"{title}: {'; '.join(each)}.")
    shares = ", ".join(f"{name} {score.share:.0%}" for name, score in scores.items())
    return f"Levels from 0 to 4 for the question {question}. {' '.join(parts)} Share of the points: {shares}."
