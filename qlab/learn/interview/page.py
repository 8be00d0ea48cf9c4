"""Scores as HTML, for the notebook: levels in words, quotes, what is missing, where to mend it."""

from __future__ import annotations

import html
from collections.abc import Sequence

from . import history
from .report import credit, instead, lack, repair, said, short
from .scenario import Scenario
from .score import Judged, Score
from .second_opinion import Opinion

_e = html.escape
_CELL = "text-align:left; vertical-align:top; padding:0.5em 0.8em; line-height:1.4"
_TEXT = "margin:0 0 0.5em; line-height:1.4"  # of a paragraph in a cell, so that it begins where the level stands


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
            f'<tr><th scope="row" style="{_CELL}">The code</th><td style="{_CELL}"><b>{one.written.level} of 4</b></td>'
            f'<td colspan="2" style="{_CELL}"><pre>{_e(one.written.message)}</pre></td></tr>'
        )
    titles = ["Judged", "Level", "Your words, and what they show", "Missing: a sentence that …"]
    titles += ["Second opinion"] * (opinion is not None)
    head = "".join(f'<th scope="col" style="{_CELL}">{title}</th>' for title in titles)
    notes = [
        f"<p><b>Wrong:</b> “{_e(short(flag.quote.text))}” {_e(instead(scenario, flag.flag))}</p>" for flag in one.wrong
    ]
    for number in one.wrong_numbers:
        quote, computed = _e(short(number.quote.text)), _e(str(number.number))
        notes.append(f"<p><b>A number to check:</b> “{quote}” Computed it is {computed}.</p>")
    notes += [f"<p><b>Not counted:</b> “{_e(short(each.text))}”: {_e(each.why)}.</p>" for each in one.ignored]
    if opinion:
        notes.append(f"<p>The second opinion is that of {_e(opinion.source)}. It changes no score.</p>")
    answer = _e(scenario.shown(one.question.model_answer).strip())
    return (
        f"<h4>{_e(scenario.shown(one.question.ask).strip())}</h4>"
        f"<p>{one.share:.0%} of the points of this question</p>"
        f'<table style="border-collapse:collapse"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
        f"{''.join(notes)}"
        f"<details><summary>A strong answer, every number computed now</summary><p>{answer}</p></details>"
    )


def _row(scenario: Scenario, judged: Judged, opinion: Opinion | None) -> str:
    words = "".join(
        f'<p style="{_TEXT}">“{_e(short(quote))}”<br>'
        f"<small>{'<br>'.join(_e(credit(scenario, found)) for found in shown)}</small></p>"
        for quote, shown in said(judged).items()
    )
    missing = "".join(f'<p style="{_TEXT}">{_e(lack(scenario, judged, point))}</p>' for point in judged.missing)
    if judged.broken:
        missing += f'<p style="{_TEXT}">A wrong claim leaves this at level 1 at most.</p>'
    if judged.level < history.SITS:
        missing += f'<p style="{_TEXT}"><i>To mend it: {_e(repair(judged))}</i></p>'
    second = ""
    if opinion:
        level = opinion.levels.get(judged.criterion.id)
        second = f"<td style='{_CELL}'>{'none' if level is None else f'{level} of 4'}</td>"
    cell = f'<td style="{_CELL}">'
    return (
        f'<tr style="border-top:1px solid"><th scope="row" style="{_CELL}">{_e(judged.criterion.title)}</th>'
        f'<td style="{_CELL}; white-space:nowrap"><b>{judged.level} of 4</b></td>{cell}{words or "nothing"}</td>'
        f"{cell}{missing or 'nothing'}</td>{second}</tr>"
    )
