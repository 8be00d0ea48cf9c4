"""The progress file: what is counted, two processes at once, damage, and disks that refuse."""

from __future__ import annotations

import contextlib
import io
import os
import pwd
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from qlab.learn import progress
from qlab.learn.progress import Event, Unavailable, events, record, summarize

Q = "linear.zero_point"
BEGIN = datetime(2026, 11, 21, 10, 0, tzinfo=UTC)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QLAB_HOME", str(tmp_path))
    return tmp_path


def checked(outcome: str, minute: float = 0, question: str = Q) -> Event:
    return Event(question, "check", outcome=outcome, time=BEGIN + timedelta(minutes=minute))


def hinted(n: int, minute: float = 0) -> Event:
    return Event(Q, "hint", hint=n, time=BEGIN + timedelta(minutes=minute))


def did(kind: str, minute: float = 0) -> Event:
    return Event(Q, kind, time=BEGIN + timedelta(minutes=minute))


def set_aside(home: Path) -> list[Path]:
    return sorted(home.glob("progress.db.damaged-*"))


# What is kept


def test_an_event_comes_back_as_it_was() -> None:
    event = Event(Q, "check", outcome="failed", mutant="truncates")
    assert record(event) == [event]
    assert record(hinted(2)) == [event, hinted(2)]
    assert record(checked("passed", question="linear.absmax")) == [checked("passed", question="linear.absmax")]
    assert len(events()) == 3 and events(Q) == [event, hinted(2)]
    assert event.time.tzinfo is UTC and event.version


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "try"},
        {"kind": "check"},
        {"kind": "check", "outcome": "perfect"},
        {"kind": "reset", "outcome": "passed"},
        {"kind": "hint"},
        {"kind": "solution", "hint": 1},
        {"kind": "drill", "level": 1},
        {"kind": "drill", "outcome": "not attempted", "level": 1},
        {"kind": "drill", "outcome": "passed"},
        {"kind": "check", "outcome": "passed", "level": 1},
    ],
)
def test_events_that_make_no_sense_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="kind is|outcome is|hint is|level is"):
        Event(Q, **values)


def test_a_drill_has_a_level() -> None:
    drill = Event("drill.memory.weights", "drill", outcome="passed", level=2)
    assert record(drill) == [drill] == events(drill.question)
    assert summarize(Q, [drill, checked("passed")]).attempts == 1


_FIRST_TABLE = """CREATE TABLE event (
    id INTEGER PRIMARY KEY,
    question TEXT NOT NULL,
    kind TEXT NOT NULL,
    outcome TEXT,
    hint INTEGER,
    mutant TEXT,
    version TEXT NOT NULL,
    time TEXT NOT NULL  -- UTC, ISO 8601
)"""


def test_a_file_of_the_first_version_is_read_as_it_is_and_goes_on(home: Path) -> None:
    old = Event(Q, "check", outcome="failed", mutant="truncates", version="0.1.0", time=BEGIN)
    with contextlib.closing(sqlite3.connect(home / "progress.db")) as connection:
        connection.execute(_FIRST_TABLE)
        connection.execute(f"PRAGMA application_id = {int.from_bytes(b'qlab')}")
        connection.execute("PRAGMA user_version = 1")
        values = (old.question, old.kind, old.outcome, old.hint, old.mutant, old.version, old.time.isoformat())
        connection.execute("INSERT INTO event VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)", values)
        connection.commit()
    before = (home / "progress.db").read_bytes()
    assert events() == events(Q) == [old]
    assert (home / "progress.db").read_bytes() == before  # whoever only looks changes nothing
    drill = Event("drill.memory.weights", "drill", outcome="failed", level=3)
    assert record(drill) == [drill] and events() == [old, drill] and set_aside(home) == []
    assert record(hinted(1)) == [old, hinted(1)]


def test_where_the_file_is(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert progress.location() == home / "progress.db"
    monkeypatch.delenv("QLAB_HOME")
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("XDG_DATA_HOME", "/data")
    assert progress.location() == Path("/data/qlab/progress.db")
    for ignored in ("", "not/absolute"):
        monkeypatch.setenv("XDG_DATA_HOME", ignored)
        assert progress.location() == Path("/home/ada/.local/share/qlab/progress.db")


def test_looking_makes_no_file(home: Path) -> None:
    assert events() == []
    assert list(home.iterdir()) == []


# What it comes to


def test_a_question_without_events() -> None:
    assert summarize(Q, []) == summarize(Q, [checked("passed", question="linear.absmax")]) == progress.Summary(Q)
    assert progress.Summary(Q).outcome == "not attempted"


@pytest.mark.parametrize(
    ("outcomes", "outcome", "attempts"),
    [
        (["not attempted"], "not attempted", 0),
        (["not attempted", "failed"], "failed", 1),
        (["failed", "error"], "error", 2),
        (["error", "failed", "not attempted"], "failed", 2),
        (["failed", "passed"], "passed", 2),
        (["failed", "passed", "failed", "passed"], "passed", 2),  # what comes after the pass is practice
    ],
)
def test_outcome_and_attempts(outcomes: list[str], outcome: str, attempts: int) -> None:
    summary = summarize(Q, list(map(checked, outcomes)))
    assert (summary.outcome, summary.attempts) == (outcome, attempts)


def test_hints_and_solution_before_and_after_the_pass() -> None:
    before = summarize(Q, [hinted(1), hinted(1), hinted(3), did("solution"), checked("passed"), hinted(2)])
    assert (before.hints, before.hints_seen, before.solution) == (2, (1, 2, 3), "before pass")
    assert summarize(Q, [checked("passed"), did("solution")]).solution == "after pass"
    assert summarize(Q, [did("solution")]).solution == "before pass"
    assert summarize(Q, [checked("passed")]).solution == "not seen"


def test_minutes_are_gaps_with_a_limit_until_the_pass() -> None:
    history = [checked("failed", 0), hinted(1, 4), checked("failed", 64), checked("passed", 66.5), hinted(2, 70)]
    assert summarize(Q, history).minutes == pytest.approx(4 + 15 + 2.5)
    assert summarize(Q, history[:1]).minutes == 0
    assert summarize(Q, [checked("failed", 10), checked("failed", 3)]).minutes == 0  # the clock was set back


def test_minutes_begin_with_the_event_before() -> None:
    other = checked("passed", 1, question="linear.absmax")
    assert summarize(Q, [other, checked("passed", 9)]).minutes == pytest.approx(8)
    assert summarize(Q, [checked("failed", 0), other, checked("passed", 4)]).minutes == pytest.approx(3)


def test_a_reset_forgets_and_keeps() -> None:
    history = [checked("failed", 0), hinted(1, 1), did("solution", 2), checked("passed", 3), did("reset", 4)]
    for event in history:
        record(event)
    assert summarize(Q, events()) == progress.Summary(Q)
    assert len(events()) == 5
    record(checked("failed", 5))
    record(checked("failed", 7))
    again = summarize(Q, events())
    assert (again.outcome, again.attempts, again.minutes, again.solution) == ("failed", 2, 3, "not seen")
    record(did("reset", 8))
    assert summarize(Q, events()) == progress.Summary(Q)


# Several processes


def start(code: str) -> subprocess.Popen[str]:
    """An interpreter that says "ready" and then waits for a line before it runs the code."""
    start_together = "import sys; from qlab.learn.progress import Event, record; print('ready', flush=True); input()\n"
    process = subprocess.Popen(
        [sys.executable, "-c", start_together + code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout and process.stdout.readline() == "ready\n"
    return process


def finish(processes: list[subprocess.Popen[str]]) -> str:
    """Let them go at the same moment; what they printed."""
    for process in processes:
        assert process.stdin
        process.stdin.write("\n")
        process.stdin.flush()
    ends = [process.communicate(timeout=60) for process in processes]
    assert [(process.returncode, err) for process, (_, err) in zip(processes, ends, strict=True)] == [(0, "")] * len(
        ends
    )
    return "".join(out for out, _ in ends)


def test_two_processes_lose_nothing() -> None:
    code = "for n in range(1, 101): record(Event('{}', 'hint', hint=n))"
    assert finish([start(code.format(name)) for name in ("linear.absmax", "linear.clamp")]) == ""
    for name in ("linear.absmax", "linear.clamp"):
        assert [event.hint for event in events(name)] == list(range(1, 101))


def test_processes_that_find_the_damage_at_once_set_aside_one_file(home: Path) -> None:
    (home / "progress.db").write_bytes(b"not a database" * 1000)
    out = finish([start(f"record(Event('{Q}', 'hint', hint={n}))") for n in range(1, 7)])
    assert out.count("set aside") == 1
    assert [path.read_bytes() for path in set_aside(home)] == [b"not a database" * 1000]
    assert sorted(event.hint or 0 for event in events(Q)) == [1, 2, 3, 4, 5, 6]


def test_a_transaction_that_was_killed_is_rolled_back(home: Path) -> None:
    """Killed after a part of it had reached the file: SQLite left a journal, and the next one plays it back."""
    record(checked("failed"))
    code = """
import os, signal, sqlite3
from qlab.learn import progress
connection = sqlite3.connect(progress.location(), isolation_level=None)
connection.execute("PRAGMA cache_size = 1")
connection.execute("BEGIN IMMEDIATE")
for n in range(2000):
    values = ["linear.zero_point", "hint", 1, "x" * 100, "0", ""]
    names = "question, kind, hint, mutant, version, time"
    connection.execute(f"INSERT INTO event ({names}) VALUES (?, ?, ?, ?, ?, ?)", values)
os.kill(os.getpid(), signal.SIGKILL)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -signal.SIGKILL
    assert (home / "progress.db-journal").stat().st_size > 0
    assert (home / "progress.db").stat().st_size > 100_000
    assert record(hinted(1)) == [checked("failed"), hinted(1)]
    assert set_aside(home) == []


# Damage


def other_database(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipe (name)")
        connection.commit()


def change(statement: str) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute(statement)
            connection.commit()

    return apply


def cut(share: float) -> Callable[[Path], None]:
    return lambda path: os.truncate(path, int(path.stat().st_size * share))


def overwrite(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4096:4300] = bytes(204)  # the head of the page with the events
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.write_bytes(b"garbage"), "not a database"),
        (lambda path: path.write_bytes(random.Random(0).randbytes(20_000)), "not a database"),
        (lambda path: path.write_text("<html>404</html>" * 1000), "not a database"),
        (cut(0.2), ""),
        (cut(0.5), ""),
        (cut(0.97), ""),
        (overwrite, ""),
        (other_database, "other tables"),
        (change("ALTER TABLE event DROP COLUMN mutant"), "other tables"),
        (change("PRAGMA application_id = 7"), "other tables"),
        (change("PRAGMA user_version = 3"), "newer qlab"),
        (change("ALTER TABLE event RENAME COLUMN level TO rank"), "other tables"),
        (change("UPDATE event SET time = 'yesterday'"), "makes no sense"),
        (change("UPDATE event SET time = '2026-11-21T10:00:00'"), "makes no sense"),
        (change("UPDATE event SET outcome = 'splendid'"), "makes no sense"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
@pytest.mark.parametrize("first", ["write", "read"])
def test_a_damaged_file_is_set_aside(
    home: Path, capsys: pytest.CaptureFixture[str], damage: Callable[[Path], None], says: str, first: str
) -> None:
    for _ in range(60):
        record(checked("failed"))
    damage(home / "progress.db")
    before = (home / "progress.db").read_bytes()
    if first == "read":
        assert events() == []
    assert record(hinted(1)) == [hinted(1)]
    assert events() == [hinted(1)]
    [aside] = set_aside(home)
    assert aside.read_bytes() == before
    captured = capsys.readouterr()
    assert captured.err == ""
    message = " ".join(captured.out.split())
    assert message.count("set aside") == 1 and says in message and str(aside) in captured.out
    assert max(len(line) for line in captured.out.splitlines() if str(home) not in line) <= 100


def test_whatever_the_damage_is_nothing_is_lost_and_nothing_raised(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(60):
        record(checked("failed"))
    good = (home / "progress.db").read_bytes()
    rng = random.Random(0)
    seen = set()
    for _ in range(150):
        for path in home.iterdir():
            path.unlink()
        bad = bytearray(good)
        at = rng.randrange(len(bad) - 64)
        bad[at : at + 64] = rng.randbytes(64)
        (home / "progress.db").write_bytes(bad)
        kept, now = len(events()), len(record(hinted(1)))
        aside = set_aside(home)
        seen.add(bool(aside))
        # Either the file is kept aside as it was, or the garbage hit nothing that counts.
        assert [path.read_bytes() for path in aside] == ([bytes(bad)] if kept == 0 else [])
        assert (kept, now) in ((0, 1), (60, 61))
        assert bool(capsys.readouterr().out) == bool(aside)
    assert seen == {True, False}


def test_damage_twice_in_a_second_keeps_both(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(5):
        (home / "progress.db").write_bytes(b"garbage %d" % number)
        record(hinted(1))
    assert {path.read_bytes() for path in set_aside(home)} == {b"garbage %d" % number for number in range(5)}


def test_an_empty_file_is_a_new_one(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """SQLite makes one before its first write; a process that is killed there leaves it."""
    (home / "progress.db").touch()
    assert events() == []
    assert record(hinted(1)) == [hinted(1)]
    assert capsys.readouterr().out == ""


# A sound file that cannot be used just now: never set aside


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_PATIENCE", 0.05)


def test_a_locked_file_is_left_alone(home: Path, impatient: None) -> None:
    record(hinted(1))
    with contextlib.closing(sqlite3.connect(home / "progress.db", isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(Unavailable, match="progress.db: another program holds it locked"):
            record(hinted(2))
        with pytest.raises(Unavailable, match="locked"):
            events()
    assert record(hinted(3)) == [hinted(1), hinted(3)]
    assert set_aside(home) == []


def test_a_process_that_hangs_while_it_sets_aside(home: Path, impatient: None) -> None:
    import fcntl

    record(hinted(1))
    with (home / "progress.db.lock").open("r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="locked"):
            record(hinted(2))
    assert record(hinted(2)) == [hinted(1), hinted(2)]


def test_a_full_disk(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(sqlite3.Connection):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.execute("PRAGMA max_page_count = 2")

    record(hinted(1))
    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: connect(*args, **options, factory=Full))
    with pytest.raises(Unavailable, match="the disk is full"):
        for _ in range(1000):
            record(Event(Q, "check", outcome="failed", mutant="x" * 200))
    monkeypatch.undo()
    monkeypatch.setenv("QLAB_HOME", str(home))
    before = events(Q)
    assert record(hinted(2)) == [*before, hinted(2)]
    assert set_aside(home) == []


@pytest.fixture
def open_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home that other users may reach: the temporary folders of pytest are closed to them."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    monkeypatch.setenv("QLAB_HOME", str(folder))
    yield folder
    folder.chmod(0o755)
    shutil.rmtree(folder)


def as_somebody_else(act: Callable[[], None]) -> str:
    """What `act` prints in a process without the right to write: root may write everywhere."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        printed = io.StringIO()
        try:
            if os.geteuid() == 0:
                os.setuid(pwd.getpwnam("nobody").pw_uid)
            with contextlib.redirect_stdout(printed):
                act()
        except BaseException as error:
            printed.write(f"{type(error).__name__}: {error}")
        finally:
            os.write(writer, printed.getvalue().encode())
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    with os.fdopen(reader) as pipe:
        return pipe.read()


@pytest.mark.parametrize("content", ["nothing", "events", "garbage"])
def test_a_folder_that_cannot_be_written(open_home: Path, content: str) -> None:
    if content == "events":
        record(hinted(1))
        (open_home / "progress.db").chmod(0o444)
        (open_home / "progress.db.lock").unlink()
    elif content == "garbage":
        (open_home / "progress.db").write_bytes(b"garbage")
    open_home.chmod(0o555)
    before = sorted(open_home.iterdir())
    assert as_somebody_else(lambda: print(record(hinted(2)))).startswith(f"Unavailable: {open_home}/progress.db: ")
    read = as_somebody_else(lambda: print([event.hint for event in events()]))
    if content == "garbage":
        assert read.startswith("Unavailable: ") and "set aside" not in read
    else:
        assert read == ("[1]\n" if content == "events" else "[]\n")
    assert sorted(open_home.iterdir()) == before


def test_a_home_that_is_no_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "file").touch()
    monkeypatch.setenv("QLAB_HOME", str(home / "file"))
    with pytest.raises(Unavailable, match="file/progress.db: "):
        record(hinted(1))
    monkeypatch.setenv("QLAB_HOME", str(home / "other"))
    (home / "other" / "progress.db").mkdir(parents=True)
    with pytest.raises(Unavailable, match="cannot be opened"):
        record(hinted(1))
    assert set_aside(home / "other") == []
