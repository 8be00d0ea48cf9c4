"""Write what the grader found: JSON for programs, a page for the learner, a table for the class."""

from __future__ import annotations

import base64
import binascii
import csv
import html
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import qlab

from ..files import printable, write_whole
from ..question import OUTCOMES
from .isolation import words
from .result import Graded, Ran, Result

SCHEMA = 1
# Everything below is escaped. Should something get through all the same, this forbids the browser to act on it.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #1a1a1a; }
table { border-collapse: collapse; }
th, td { text-align: left; padding: .3rem 1rem .3rem 0; border-bottom: 1px solid #ccc; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; margin: .3rem 0; padding: .6rem; background: #f6f6f6; }
pre.text { background: none; border-left: 3px solid #ccc; } pre.error { border-left: 3px solid #1a1a1a; }
.cell { margin: 1.2rem 0; } .said { color: #555; font-size: .9rem; } img { max-width: 100%; }
"""
_SAYS = {
    "error": "this cell raised an error",
    "timeout": "this cell was stopped: it took too long",
    "died": "this cell ended Python",
    "not run": "this cell was not run",
}


def write(result: Result, out: Path) -> None:
    """Write `NAME.json` and `NAME.html` of one result; each is whole, or as it was before."""
    target = out / result.name
    write_whole(target.with_name(f"{target.name}.html"), page(result))
    write_whole(target.with_name(f"{target.name}.json"), json.dumps(to_dict(result), indent=2) + "\n")


def write_table(results: Sequence[Result], out: Path) -> Path:
    """Write `grades.csv`: one line for each submission, and return its path."""
    path = out / "grades.csv"
    write_whole(path, table(results))
    return path


def to_dict(result: Result) -> dict[str, Any]:
    """The result as JSON has it, without the notebook."""
    return {
        "schema": SCHEMA,
        "qlab": qlab.__version__,
        "file": printable(result.file, 1000),
        "name": printable(result.name.as_posix(), 1000),
        "exercise": result.exercise,
        "made_for": result.version,
        "seed": result.seed,
        "isolation": result.isolation,
        "seconds": result.seconds,
        "error": result.error,
        "points": result.points,
        "of": result.of,
        "questions": [
            {
                "question": graded.question,
                "title": graded.title,
                "points": graded.points,
                "of": graded.of,
                "outcome": graded.verdict.outcome,
                "text": graded.text,
                "mutant": graded.verdict.mutant,
                "property": graded.verdict.broken,
            }
            for graded in result.questions
        ],
        "for_a_person": [{"cell": cell, "of": points} for cell, points in result.for_a_person],
        "notes": list(result.notes),
    }


def table(results: Sequence[Result]) -> str:
    """The class as CSV: who, points, and the points of each question."""
    questions = list(dict.fromkeys(graded.question for result in results for graded in result.questions))
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["submission", "file", "exercise", "points", "of", "for a person", "error", *questions])
    for result in results:
        points = {graded.question: graded.points for graded in result.questions}
        rows.writerow(
            [
                _no_formula(result.name.as_posix()),
                _no_formula(result.file),
                result.exercise or "",
                f"{result.points:g}",
                f"{result.of:g}",
                f"{sum(worth for _, worth in result.for_a_person):g}",
                _no_formula(result.error or ""),
                *(f"{points[one]:g}" if one in points else "" for one in questions),
            ]
        )
    return text.getvalue()


def line(result: Result) -> str:
    """The result in one line."""
    name = printable(result.name.as_posix(), 200)
    if result.error:
        return f"{name}: not graded: {result.error}"
    outcomes = [graded.verdict.outcome for graded in result.questions]
    counts = ", ".join(f"{outcomes.count(one)} {one}" for one in OUTCOMES if one in outcomes)
    return f"{name}: {result.points:g} of {result.of:g} points ({counts})"


def in_full(result: Result) -> str:
    """The result with every verdict, as a person reads it in a terminal."""
    lines = [line(result)]
    for graded in result.questions:
        lines += ["", f"{graded.points:g} of {graded.of:g} points  {graded.text}"]
    lines += [f"\n{cell}: a person grades this, {worth:g} points" for cell, worth in result.for_a_person]
    lines += [f"\nNote: {note}." for note in result.notes]
    seed = "" if result.error else f" Seed {result.seed}, {result.seconds:.1f} s."
    return printable("\n".join(lines) + (f"\n\n{seed.strip()}" if seed else ""), 200_000)


def page(result: Result) -> str:
    """The learner's feedback page. Nothing on it is active: all text is escaped, and no markup of anybody is kept."""
    title = f"{result.exercise or 'Submission'}: {result.points:g} of {result.of:g} points"
    body = [f"<h1>{_escape(title)}</h1>", f"<p class=said>{_escape(_about(result))}</p>"]
    if result.error:
        body.append(f"<p>It could not be graded: {_escape(result.error)}</p>")
    body += [f"<p>Note: {_escape(note)}.</p>" for note in result.notes]
    if result.questions:
        rows = "".join(map(_row, result.questions))
        person = "".join(
            f"<tr><td>{_escape(cell)}</td><td>a person grades this</td><td>of {worth:g}</td></tr>"
            for cell, worth in result.for_a_person
        )
        body.append(f"<table><tr><th>Question<th>Outcome<th>Points</tr>{rows}{person}</table>")
        body += [
            f"<h2>{_escape(graded.title)}</h2><pre class=text>{_escape(graded.text)}</pre>"
            for graded in result.questions
        ]
    if result.cells:
        body.append("<h1>The notebook as it was run</h1>")
        body += map(_cell, result.cells)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><title>{_escape(title)}</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def _about(result: Result) -> str:
    parts = [f"{result.name.as_posix()}, graded by qlab {qlab.__version__}"]
    if result.isolation:
        parts.append(f"isolation {words(result.isolation).partition(':')[0]}")
    if result.seed is not None:
        parts.append(f"seed {result.seed}")
    return "; ".join(parts) + "."


def _row(graded: Graded) -> str:
    points = f"{graded.points:g} of {graded.of:g}"
    return f"<tr><td>{_escape(graded.question)}</td><td>{_escape(graded.verdict.outcome)}</td><td>{points}</td></tr>"


def _cell(ran: Ran) -> str:
    if not ran.cell.source.strip():
        return ""
    if ran.cell.kind != "code":
        return f"<div class=cell><pre class=text>{_escape(ran.cell.source)}</pre></div>"
    said = f"<p class=said>{_SAYS[ran.status]}</p>" if ran.status in _SAYS else ""
    return f"<div class=cell><pre>{_escape(ran.cell.source)}</pre>{''.join(map(_output, ran.outputs))}{said}</div>"


def _output(output: dict[str, str]) -> str:
    if output["kind"] != "png":
        return f"<pre class={'error' if output['kind'] == 'error' else 'text'}>{_escape(output['text'])}</pre>"
    try:
        image = base64.b64encode(base64.b64decode(output["text"].replace("\n", ""), validate=True)).decode()
    except (binascii.Error, ValueError):
        return ""
    return f'<img alt="a figure that the cell drew" src="data:image/png;base64,{image}">'


def _escape(text: str) -> str:
    return html.escape(printable(text, 50_000))


def _no_formula(text: str) -> str:
    """A spreadsheet computes what starts like a formula, and a file's name is the learner's choice."""
    text = printable(text, 1000)
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else text
