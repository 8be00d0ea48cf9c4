"""Scores as HTML, for the notebook: levels in words, quotes, what is missing, where to mend it."""

from __future__ import annotations

import html
from collections.abc import Sequence

from . import history
from .report import credit, instead, lack, repair, short
from .scenario import Scenario
from .score import Judged, Score
from .second_opinion import Opinion

_e = html.escape
_CELL = "text-align:left; vertical-align:top; padding:0.5em 0.8em; line-height:1.4"


def page(scenario: Scenario, scores: Sequence[Score], opinions: Sequence[Opinion | None] | None = None) -> str:
    """All questions of an interview, one below the other, and the total."""
    share = sum(one.share for one in scores) / max(1, len(scores))
    parts = [f"<h3>{_e(scenario.title)}: {share:.0%} of the points</h3>"]
    for number, one in enumerate(scores):
        parts.append(_question(scenario, one, opinions[number] if opinions else None))
    return "".join(parts)


def _question(scenario: Scenario, one: Score, opinion: Opinion | None) -> str:
    rows = "".join(_row(scenario, judged, opinion) for judged in one.criteria)
    if one.written is not None:
        rows += (
            f'<tr><th scope="row" style="text-align:left">The code</th><td>{one.written.level} of 4</td>'
            f'<td colspan="2" style="text-align:left"><pre>{_e(one.written.message)}</pre></td></tr>'
        )
    second = '<th scope="col">Second opinion</th>' if opinion else ""
    notes = [
        f"<p><b>Wrong:</b> “{_e(short(flag.quote.text))}” "
        f"{_e(instead(scenario, flag.flag.claim, flag.flag.instead))}</p>"
        for flag in one.flags
    ]
    for number in one.wrong_numbers:
        said, computed = _e(number.said.text.strip()), _e(str(number.number))
        notes.append(f"<p><b>A number to check:</b> you said {said}; computed it is {computed}.</p>")
    notes += [f"<p><b>Not counted:</b> “{_e(short(each.text))}”: {_e(each.why)}.</p>" for each in one.ignored]
    if opinion:
        notes.append(f"<p>The second opinion is that of {_e(opinion.source)}. It changes no score.</p>")
    answer = _e(scenario.shown(one.question.model_answer).strip())
    return (
        f"<h4>{_e(scenario.shown(one.question.ask).strip())}</h4>"
        f"<table style='border-collapse:collapse'><caption>{one.share:.0%} of the points of this question</caption>"
        "<thead><tr>"
        '<th scope="col" style="text-align:left">Judged</th><th scope="col">Level</th>'
        '<th scope="col" style="text-align:left">Your words, and what they show</th>'
        f'<th scope="col" style="text-align:left">Missing</th>{second}</tr></thead><tbody>{rows}</tbody></table>'
        f"{''.join(notes)}"
        f"<details><summary>A strong answer, every number computed now</summary><p>{answer}</p></details>"
    )


def _row(scenario: Scenario, judged: Judged, opinion: Opinion | None) -> str:
    said = "".join(
        f"<p>“{_e(short(found.quote.text))}”<br><small>{_e(credit(scenario, found))}</small></p>"
        for found in judged.found
    )
    missing = "".join(f"<p>{_e(lack(scenario, judged, point))}</p>" for point in judged.missing)
    if judged.broken:
        missing += "<p>A wrong claim leaves this at level 1 at most.</p>"
    if judged.level < history.SITS:
        missing += f"<p><i>To mend it: {_e(repair(judged))}</i></p>"
    second = ""
    if opinion:
        level = opinion.levels.get(judged.criterion.id)
        second = f"<td>{'none' if level is None else f'{level} of 4'}</td>"
    cell = f'<td style="{_CELL}">'
    return (
        f'<tr style="border-top:1px solid"><th scope="row" style="{_CELL}">{_e(judged.criterion.title)}</th>'
        f'<td style="{_CELL}; white-space:nowrap"><b>{judged.level} of 4</b></td>{cell}{said or "nothing"}</td>'
        f"{cell}{missing or 'nothing'}</td>{second}</tr>"
    )
