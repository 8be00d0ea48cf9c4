"""Several candidates side by side, in plain text: for each point of a criterion the words that each of them said."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from .report import brief, instead, short
from .scenario import Point, Scenario
from .score import Judged, Score


def side_by_side(scenario: Scenario, scores: Mapping[str, Score], criterion: str, width: int = 116) -> str:
    """A criterion with the levels of the candidates, and for each point the words that each said for it.

    Below that the falsehoods that capped a level, and what to say instead.

    Args:
        scores: of one question, by candidate.
        criterion: its id.
        width: characters of a line.
    """
    judged = {name: next(c for c in one.criteria if c.criterion.id == criterion) for name, one in scores.items()}
    asked = next(iter(judged.values())).criterion
    column = 4 + max(map(len, judged))
    levels = ", ".join(f"{name} {one.level}" for name, one in judged.items())
    lines = textwrap.wrap(f"{asked.title.upper()}: {levels} (of 4)", width)
    for point in asked.points:
        lines += ["", *textwrap.wrap(f"{brief(scenario, point)}:", width)]
        for name, one in judged.items():
            lines += textwrap.wrap(f"  {name:{column - 2}}{_words(one, point)}", width, subsequent_indent=" " * column)
    for name, one in judged.items():
        for flag in one.broken:
            said = f"{name}, a red flag, level 1 at most: “{short(flag.quote.text)}”"
            better = instead(scenario, flag.flag.claim, flag.flag.instead)
            lines += ["", *textwrap.wrap(said, width), *textwrap.wrap(better, width)]
    return "\n".join(lines)


def _words(judged: Judged, point: Point) -> str:
    """What was said for a point, and how it counts."""
    for found in judged.found:
        if found.point == point:
            notes = [*["(as a guess)"] * (not found.quote.firm), *["(after a follow-up)"] * found.prompted]
            return " ".join([f"“{short(found.quote.text)}”", *notes])
    return "-"
