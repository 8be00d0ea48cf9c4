"""The feedback page shows everything and does nothing."""

from __future__ import annotations

import base64
import re
from pathlib import Path

from qlab.learn.grade.report import in_full, line, page, table, to_dict
from qlab.learn.grade.result import Graded, Ran, Result
from qlab.learn.grade.submission import Cell
from qlab.learn.judge import Verdict

EVIL = "</pre></title><script>alert(1)</script><img src=x onerror=alert(1)>\x1b[2J\u202e\x07"
PNG = base64.b64encode(b"\x89PNG\r\n").decode()


def result() -> Result:
    verdict = Verdict("linear.absmax", "error", message=EVIL)
    cells = (
        Ran(Cell("markdown", EVIL)),
        Ran(Cell("code", EVIL), "error", EVIL, ({"kind": "text", "text": EVIL}, {"kind": "error", "text": EVIL})),
        Ran(Cell("code", "1"), "ok", "", ({"kind": "png", "text": PNG}, {"kind": "png", "text": '"><script>'})),
        Ran(Cell("code", "2"), "timeout"),
    )
    return Result(
        EVIL,
        Path("x/" + EVIL.replace("/", "")),
        exercise="02_linear",
        version=EVIL,
        seed=3,
        isolation="watchdog",
        questions=(Graded("linear.absmax", EVIL, 0.0, 2.5, verdict),),
        for_a_person=((EVIL, 5.0),),
        notes=(EVIL,),
        cells=cells,
    )


def test_nothing_on_the_page_is_active() -> None:
    html = page(result())
    assert not re.search(r"<(script|iframe|object|embed|svg|link|form|base)", html)
    assert re.findall(r"<img[^>]*>", html) == [
        f'<img alt="a figure that the cell drew" src="data:image/png;base64,{PNG}">'
    ]
    assert "default-src 'none'" in html
    assert "&lt;script&gt;" in html
    assert not re.search(r" on\w+=", re.sub(r"&\w+;[^<]*", "", html))
    assert not set(html) & {"\x1b", "\x07", "\u202e"}


def test_page_says_what_there_is_to_say() -> None:
    html = page(result())
    assert "02_linear: 0 of 2.5 points" in html
    assert "a person grades this" in html
    assert "this cell was stopped: it took too long" in html
    assert "isolation watchdog; seed 3" in html


def test_page_of_an_error() -> None:
    html = page(Result("a", Path("a"), error="not a notebook <b>"))
    assert "It could not be graded: not a notebook &lt;b&gt;" in html


def test_terminal_gets_no_control_characters() -> None:
    for text in (line(result()), in_full(result()), table([result()])):
        assert not set(text) & {"\x1b", "\x07", "\u202e"}
    assert "0 of 2.5 points (1 error)" in line(result())
    assert line(Result("a", Path("a"), error="no")) == "a: not graded: no"


def test_document_is_plain() -> None:
    import json

    assert json.loads(json.dumps(to_dict(result())))["questions"][0]["outcome"] == "error"
