"""What a learner reads, and what is remembered of it; kills in the middle of a check."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import sqlite3
import subprocess
import sys
import textwrap
import warnings
from datetime import timedelta
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import qlab
from qlab.learn import check, desk, hint, made_for, progress, reset, solution, status
from qlab.learn.progress import Summary
from qlab.learn.questions import SETS, all_ids, exercise_set, question

Q = "linear.zero_point"
ASKED = question(Q)
LINEAR = exercise_set("02")
right = ASKED.reference
wrong = next(mutant for mutant in ASKED.mutants if mutant.name == "truncates").answer


def zero_point_quantize(x: Any, bits: Any) -> Any:
    """The stub: nothing but this line."""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QLAB_HOME", str(tmp_path))
    for name in ("NBGRADER_EXECUTION", "QLAB_GRADING"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(desk, "_versions", {})
    return tmp_path


@pytest.fixture(autouse=True)
def printed(capfd: pytest.CaptureFixture[str]) -> Any:
    """What was printed since the last call, in one line. Nothing may ever go to stderr, nor be too wide."""

    def read() -> str:
        out, err = capfd.readouterr()
        assert err == ""
        prose = [line for line in out.splitlines() if not line.startswith("    ") and "/" not in line]
        assert max(map(len, prose), default=0) <= 100
        return " ".join(out.split())

    yield read
    assert capfd.readouterr().err == ""


def now() -> Summary:
    return next(row for _, rows in status().sets for row in rows if row.question == Q)


# check


@pytest.mark.parametrize("answer", [zero_point_quantize, None, ...], ids=["stub", "None", "dots"])
def test_an_untouched_question(printed: Any, answer: Any) -> None:
    assert check(Q, answer).outcome == "not attempted"
    out = printed()
    assert out.startswith("linear.zero_point: not attempted")
    assert "hint(" not in out and "solution(" not in out
    assert (now().outcome, now().attempts) == ("not attempted", 0)
    assert [event.outcome for event in progress.events(Q)] == ["not attempted"]


def test_a_wrong_answer_is_named_and_the_next_hint_offered(printed: Any) -> None:
    verdict = check(Q, wrong)
    assert (verdict.outcome, verdict.mutant) == ("failed", "truncates")
    out = printed()
    assert out.startswith("linear.zero_point: failed It looks like this:")
    assert out.endswith('Hint 1 of 3: hint("linear.zero_point", 1)')
    [event] = progress.events(Q)
    assert (event.kind, event.outcome, event.mutant, event.version) == (
        "check",
        "failed",
        "truncates",
        qlab.__version__,
    )
    hint(Q)
    printed()
    check(Q, wrong)
    assert 'Hint 2 of 3: hint("linear.zero_point", 2)' in printed()


def test_the_solution_is_offered_after_three_failures_or_all_hints(printed: Any) -> None:
    offers = []
    for _ in range(4):
        check(Q, wrong)
        offers.append('solution("linear.zero_point")' in printed())
    assert offers == [False, False, True, True]
    reset(Q)
    for n in (1, 2, 3):
        hint(Q, n)
    printed()
    check(Q, wrong)
    out = printed()
    assert 'solution("linear.zero_point")' in out and "hint(" not in out


def test_an_error_is_an_attempt(printed: Any) -> None:
    assert check(Q, lambda x, bits: 1 / 0).outcome == "error"
    assert "ZeroDivisionError" in printed()
    assert (now().outcome, now().attempts) == ("error", 1)


def test_a_pass_says_what_it_took(printed: Any) -> None:
    assert check(Q, right).passed
    assert "Passed with 1 attempt and no hints. To compare: solution(" in printed()
    reset(Q)
    for _ in range(2):
        check(Q, wrong)
    hint(Q)
    solution(Q)
    printed()
    assert check(Q, right, seed=5).passed
    out = printed()
    assert out.endswith("Passed with 3 attempts and 1 hint, and after reading the solution.")
    check(Q, wrong)
    check(Q, right)
    assert "Passed with 3 attempts and 1 hint" in printed()
    assert (now().outcome, now().attempts, now().hints, now().solution) == ("passed", 3, 1, "before pass")


@pytest.mark.parametrize(
    ("arguments", "error", "says"),
    [
        ((right, Q), TypeError, r'the id comes first: check\(".+", zero_point_quantize\)'),
        (("zero_point", right), ValueError, "'zero_point'; perhaps .*linear.zero_point"),
        ((3, right), TypeError, "question_id is a int; a string"),
        ((None, right), TypeError, "question_id is a NoneType"),
        ((Q, (1, 2, 3)), TypeError, r"a tuple was given.*the function itself: check\(.*, zero_point_quantize\)"),
        ((Q, 0.5), TypeError, "a float was given"),
        ((Q, right, "2"), TypeError, "seed is '2'"),
        ((Q, right, True), TypeError, "seed is True"),
    ],
)
def test_wrong_arguments_are_refused_and_not_recorded(arguments: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        check(*arguments)
    assert progress.events() == []


def test_another_function_is_noticed(printed: Any) -> None:
    check(Q, wrong)
    assert "You gave the function truncates; this question asks for zero_point_quantize." in printed()
    check(Q, lambda x, bits: 0)
    check(Q, right)
    assert "You gave" not in printed()


def test_what_a_function_writes_to_stderr_costs_no_points(printed: Any) -> None:
    def noisy(x: Any, bits: int) -> Any:
        warnings.warn("careful", stacklevel=1)
        print("working", file=sys.stderr)
        return right(x, bits)

    assert check(Q, noisy).passed
    printed()  # asserts that stderr is empty


@pytest.mark.parametrize("setting", ["error", "always"])
def test_warnings_of_ours_fail_nobody_and_are_not_shown(setting: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def warns(case: Any, got: Any, expected: Any) -> None:
        warnings.warn("in a property", stacklevel=1)

    asked = dataclasses.replace(ASKED, properties=(warns, *ASKED.properties))
    monkeypatch.setattr(desk, "question", lambda question_id: asked)
    with warnings.catch_warnings():
        warnings.simplefilter(setting)
        assert check(Q, right).passed
        assert check(Q, wrong).mutant == "truncates"


# hint, solution, reset


def test_hints_come_in_order_and_lead_on(printed: Any) -> None:
    texts = [" ".join(text.split()) for text in ASKED.hints]
    for n, following in ((1, 'hint("linear.zero_point", 2)'), (2, 'hint("linear.zero_point", 3)'), (3, "solution(")):
        hint(Q)
        out = printed()
        assert out.startswith(f"linear.zero_point, hint {n} of 3: {texts[n - 1]}") and following in out
    hint(Q)
    assert "you have seen all 3 hints" in printed()
    assert [event.hint for event in progress.events(Q)] == [1, 2, 3, 3]
    assert now().hints == 3


def test_a_hint_by_number_leaves_the_others_unseen(printed: Any) -> None:
    hint(Q, 2)
    assert "hint 2 of 3" in printed()
    hint(Q)
    assert "hint 1 of 3" in printed()
    hint(Q)
    assert "hint 3 of 3" in printed()


@pytest.mark.parametrize(
    ("n", "error"), [(0, ValueError), (4, ValueError), (-1, ValueError), ("1", TypeError), (True, TypeError)]
)
def test_hints_that_do_not_exist(n: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"n is {n!r}.*1 to 3"):
        hint(Q, n)
    with pytest.raises(ValueError, match="perhaps"):
        hint("linear.zeropoint")
    assert progress.events() == []


def test_the_solution_is_the_reference_and_its_explanation(printed: Any, capfd: pytest.CaptureFixture[str]) -> None:
    solution(Q)
    out = capfd.readouterr().out
    shown = out[out.index("def ") : out.index("\n\n" + ASKED.explanation[:20])]
    space: dict[str, Any] = {"torch": __import__("torch")}
    exec(shown, space)
    assert check(Q, space["zero_point_quantize"]).passed
    assert " ".join(ASKED.explanation.split()) in " ".join(out.split())
    assert "You have not attempted this one yet." in " ".join(out.split())
    printed()
    solution(Q)
    assert "not attempted" not in printed()
    assert [event.kind for event in progress.events(Q)] == ["solution", "check", "solution"]


def test_reset_forgets_one_question(printed: Any) -> None:
    check(Q, wrong)
    hint(Q)
    progress.record(progress.Event("linear.clamp", "hint", hint=1))
    reset(Q)
    out = printed()
    assert "forgotten" in out and "`qlab reset 02`" in out
    assert now() == Summary(Q)
    assert [event.kind for event in progress.events(Q)] == ["check", "hint", "reset"]
    assert any(row.hints == 1 for _, rows in status().sets for row in rows)
    hint(Q)
    assert "hint 1 of 3" in printed()
    with pytest.raises(ValueError, match="perhaps"):
        reset("linear.zeropoint")


# made_for


def test_another_version_is_said_at_every_check(printed: Any) -> None:
    made_for("02_linear", qlab.__version__)
    made_for("01_memory_math", "0.0.1")
    check(Q, right)
    assert "made for" not in printed()
    made_for("02_linear", "0.0.1")
    for answer in (zero_point_quantize, wrong, right):
        check(Q, answer)
        out = printed()
        assert f"This notebook was made for qlab 0.0.1, and you have {qlab.__version__}." in out
        assert "`qlab reset 02`" in out


def test_unknown_sets_are_refused() -> None:
    with pytest.raises(ValueError, match="'02_lin'.*01_memory_math, 02_linear"):
        made_for("02_lin", "0.1.0")
    with pytest.raises(TypeError, match=r"version is 0.1"):
        made_for("02_linear", 0.1)  # type: ignore[arg-type]


# Where nothing is recorded


@pytest.mark.parametrize("name", ["NBGRADER_EXECUTION", "QLAB_GRADING"])
def test_grading_leaves_no_trace(home: Path, printed: Any, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "autograde")
    check(Q, wrong)
    hint(Q)
    solution(Q)
    reset(Q)
    assert "not recorded" not in printed()
    assert list(home.iterdir()) == []


def test_nbgrader_gets_the_verdict_and_no_advice(printed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    assert check(Q, right).passed
    assert not check(Q, wrong).passed
    out = printed()
    assert "linear.zero_point: failed" in out and "hint(" not in out and "solution(" not in out


def test_our_grader_judges_elsewhere(printed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def must_not_run(x: Any, bits: int) -> None:
        raise AssertionError

    monkeypatch.setenv("QLAB_GRADING", "1")
    assert check(Q, must_not_run).outcome == "not attempted"
    assert printed() == "linear.zero_point: not judged here: the grader judges it, outside of this notebook."


@pytest.mark.parametrize(
    ("call", "what"), [(hint, "hints"), (lambda one: hint(one, 2), "hints"), (solution, "solution")]
)
def test_no_question_is_loaded_where_our_grader_runs(
    printed: Any, monkeypatch: pytest.MonkeyPatch, call: Any, what: str
) -> None:
    """The grader's box does not hold them, and a call that was left in a cell must not break the cell."""

    def hidden(question_id: str) -> None:
        raise ModuleNotFoundError(question_id)

    monkeypatch.setenv("QLAB_GRADING", "1")
    with pytest.raises(ValueError, match="perhaps"):
        call("linear.zeropoint")
    monkeypatch.setattr(desk, "question", hidden)
    call(Q)
    assert printed() == f"linear.zero_point: no {what} here, while the notebook is graded."


def test_a_locked_file_does_not_stop_the_check(home: Path, printed: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", 0.05)
    check(Q, wrong)
    printed()
    with contextlib.closing(sqlite3.connect(home / "progress.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        assert check(Q, right).passed
        out = printed()
        assert out.startswith("linear.zero_point: passed") and out.count("This was not recorded") == 1
        assert "locked" in out and "no attempts" not in out
        assert not check(Q, wrong).passed
        hint(Q)
        hint(Q, 2)
        solution(Q)
        assert printed().count("This was not recorded") == 4
        reset(Q)
        assert "forgotten" not in printed()
        assert "could not be read" in str(status()) and "could not be read" in status()._repr_html_()
    assert (now().outcome, now().attempts) == ("failed", 1)


def test_a_damaged_file_does_not_stop_the_check(home: Path, printed: Any, capfd: pytest.CaptureFixture[str]) -> None:
    (home / "progress.db").write_bytes(b"garbage")
    assert check(Q, right).passed
    out = " ".join(capfd.readouterr().out.split())
    assert out.startswith("linear.zero_point: passed") and out.count("set aside") == 1
    assert "Passed with 1 attempt" in out


# status


def some_progress() -> None:
    begin = progress.datetime(2026, 11, 21, tzinfo=progress.UTC)
    for minute, kind, values in (
        (0, "check", {"outcome": "failed"}),
        (7, "hint", {"hint": 1}),
        (9, "check", {"outcome": "passed"}),
    ):
        progress.record(progress.Event(Q, kind, time=begin + timedelta(minutes=minute), **values))  # type: ignore[arg-type]
    progress.record(progress.Event("linear.clamp", "check", outcome="error", time=begin + timedelta(minutes=12)))


def test_status_in_words() -> None:
    some_progress()
    text = str(status())
    assert repr(status()) == text
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert lines["02_linear:"] == f"02_linear: 1 of {len(LINEAR.questions)} passed  [##..................]"
    assert re.split(r"  +", lines[Q].strip()) == [Q, "passed", "2", "1", "not seen", "9"]
    assert re.split(r"  +", lines["linear.clamp"].strip()) == ["linear.clamp", "error", "1", "0", "not seen", "3"]
    assert re.split(r"  +", lines["linear.pack3"].strip())[1] == "not attempted"
    assert set(all_ids()) <= set(lines)
    assert max(map(len, text.splitlines())) <= 100


class Page(HTMLParser):
    """Text by the tag that holds it, and all attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.open.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append((self.open[-1], data))


def test_the_dashboard_says_everything_in_words() -> None:
    some_progress()
    page = Page(status()._repr_html_())
    of = {tag: [text for each, text in page.texts if each == tag] for tag in ("h3", "p", "th", "td", "caption")}
    assert of["h3"] == [one.name for one in SETS] and len(of["caption"]) == len(SETS)
    assert of["p"] == [f"{int(one == LINEAR)} of {len(one.questions)} passed" for one in SETS]
    assert [text for text in of["th"] if "." in text] == all_ids()
    assert of["td"].count("passed") == 1 and of["td"].count("error") == 1
    # Every header cell says what it heads.
    scopes = [value for tag, name, value in page.attributes if tag == "th" and name == "scope"]
    assert scopes.count("row") == len(all_ids()) and scopes.count("col") == len(desk.COLUMNS) * len(SETS)
    # The bar has the page's own colour and is not read aloud; nothing else has a colour.
    styles = [value for _, name, value in page.attributes if name in ("style", "class", "bgcolor", "color")]
    colors = {word for style in styles for word in re.findall(r"(?:color|background|border)[^:]*:([^;]+)", style)}
    assert colors == {"currentColor", "1px solid currentColor"}
    widths = [style for style in styles if "%" in style]
    share = f"width:{100 / len(LINEAR.questions):.0f}%"
    assert [share in width for width in widths] == [one == LINEAR for one in SETS]
    assert ["width:0%" in width for width in widths] == [one != LINEAR for one in SETS]
    assert len([1 for tag, name, _ in page.attributes if (tag, name) == ("div", "aria-hidden")]) == len(SETS)


def test_the_dashboard_escapes() -> None:
    made_up = desk.Status(((SETS[0], (Summary("<b>", outcome="<i>"),)),), note="<script>")
    assert not re.search(r"<(b|i|script)>", made_up._repr_html_())


# SIGKILL in the middle of a check

_KILLED = """
import os, random, select, signal, sqlite3, sys, time
from qlab.learn import check, progress
from qlab.learn.questions import question

Q = "linear.zero_point"
ASKED = question(Q)
check(Q, ASKED.reference)  # torch is loaded once, in this process
rng = random.Random(0)
connect = sqlite3.connect


def child(pipe, statement):
    left = iter(range(statement or 0, -1, -1))  # counts through one transaction after the other

    class Deadly(sqlite3.Connection):
        def execute(self, *args):
            if next(left) == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().execute(*args)

    sys.stdout = open(os.devnull, "w")
    if statement is not None:
        sqlite3.connect = lambda *args, **options: connect(*args, **options, factory=Deadly)
    while True:
        check(Q, ASKED.reference)
        os.write(pipe, b"x")  # this one was recorded


counts, midway, journals = [len(progress.events())], 0, 0
for number in range(60):
    reader, writer = os.pipe()
    # At first once before each statement of two transactions, then at random moments.
    statement = number if number < 20 else None
    pid = os.fork()
    if pid == 0:
        child(writer, statement)
    os.close(writer)
    if statement is None:
        select.select([reader], [], [], 10)  # it is at work
        time.sleep(rng.uniform(0, 0.03))
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    done = b""
    while block := os.read(reader, 65536):
        done += block
    os.close(reader)
    journals += os.path.exists(f"{progress.location()}-journal")
    events = progress.events()  # every one of them is whole, or this raises or sets the file aside
    assert counts[-1] + len(done) <= len(events) <= counts[-1] + len(done) + 1, (counts, len(done), len(events))
    midway += statement is not None and len(events) == counts[-1] + len(done)
    counts.append(len(events))
    assert {(event.kind, event.outcome) for event in events} == {("check", "passed")}
database = connect(progress.location())
assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
progress.record(progress.Event(Q, "hint", hint=1))  # clears what the last one left of its journal
names = sorted(os.listdir(os.environ["QLAB_HOME"]))
assert names == ["progress.db", "progress.db.lock"], names
print("kills", 60, "events", counts[-1], "before the commit", midway, "journals", journals)
"""


def test_sixty_kills_in_the_middle_of_a_check(capfd: pytest.CaptureFixture[str]) -> None:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(_KILLED)], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    words = done.stdout.split()
    assert int(words[words.index("events") + 1]) > 50
    assert int(words[words.index("commit") + 1]) == 20  # each before a statement, COMMIT included
