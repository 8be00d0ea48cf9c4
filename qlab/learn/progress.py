"""What the learner did so far: events in one SQLite file, which are only ever added to, and what they come to.

Everything here is light: `qlab progress` answers without torch.
"""

from __future__ import annotations

import os
import sqlite3
import sys
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

from .. import __version__
from .question import OUTCOMES

if sys.platform != "win32":
    import fcntl

KINDS = ("check", "hint", "solution", "reset", "start", "drill", "interview")
LONGEST_PAUSE = 15.0  # minutes: whoever takes longer between two events was doing something else

_APPLICATION = int.from_bytes(b"qlab")  # in the header of the file: whose database this is
_VERSION = 2  # of the table below; the first one had no level
_PATIENCE = 5.0  # seconds to wait for another process; a transaction takes milliseconds
# What SQLite may complain of in a file that is sound. Everything else (there are a dozen codes for it) is the file.
_COMPLAINTS = {
    sqlite3.SQLITE_BUSY: "another program holds it locked",
    sqlite3.SQLITE_LOCKED: "another program holds it locked",
    sqlite3.SQLITE_PROTOCOL: "another program holds it locked",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_READONLY: "it cannot be written",
    sqlite3.SQLITE_CANTOPEN: "it cannot be opened for writing",
    sqlite3.SQLITE_PERM: "it cannot be opened",
    sqlite3.SQLITE_AUTH: "it cannot be opened",
    sqlite3.SQLITE_IOERR: "the disk refused to read or write",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
    sqlite3.SQLITE_INTERRUPT: "it was interrupted",
}


class Unavailable(OSError):
    """The progress file is locked, the disk is full, or the folder cannot be written. The file itself is sound."""


class _Damaged(Exception):
    """The file is no progress file of this version: why, and what the learner can do with it."""

    def __init__(self, why: str, advice: str = "The program sqlite3 can often save them, with .recover.") -> None:
        super().__init__(why)
        self.advice = advice


@dataclass(frozen=True)
class Event:
    """One thing that the learner did.

    Args:
        question: its id; for a "start" the name of the exercise set, for a "drill" "drill." and the name of its kind,
            for an "interview" "interview." and the names of scenario, question and criterion.
        kind: one of `KINDS`.
        outcome: of a check, one of `question.OUTCOMES`; of a drill, "passed" or "failed".
        hint: the number of the hint that was shown, from 1.
        mutant: the name of the mutant that a wrong answer looked like.
        version: of the library.
        time: in UTC.
        level: of a drill, from 1; of an interview's criterion, from 0 to 4.
    """

    question: str
    kind: str
    outcome: str | None = None
    hint: int | None = None
    mutant: str | None = None
    version: str = __version__
    time: datetime = field(default_factory=lambda: datetime.now(UTC))
    level: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind is {self.kind!r}; choose from {', '.join(KINDS)}")
        allowed = {"check": OUTCOMES, "drill": ("passed", "failed")}.get(self.kind, (None,))
        if self.outcome not in allowed:
            raise ValueError(f"outcome is {self.outcome!r}; a {self.kind} has {', '.join(map(str, allowed))}")
        if (self.kind == "hint") != (type(self.hint) is int):
            raise ValueError(f"hint is {self.hint!r}; an event of the kind hint has a number")
        if (self.kind in ("drill", "interview")) != (type(self.level) is int):
            raise ValueError(f"level is {self.level!r}; events of the kinds drill and interview have a number")


@dataclass(frozen=True)
class Summary:
    """Where the learner stands with one question since its last reset.

    Attempts, hints and minutes are counted until the first pass: what comes later is practice. A check of a function
    that is still empty is no attempt. The minutes are those since the learner's previous event, which may be the pass
    of the question before, each pause cut at `LONGEST_PAUSE`.
    """

    question: str
    outcome: str = "not attempted"  # passed, if it ever was; else that of the last attempt
    attempts: int = 0
    hints: int = 0
    solution: str = "not seen"  # or "before pass", "after pass"
    minutes: float = 0.0
    hints_seen: tuple[int, ...] = ()  # before or after the pass

    @property
    def passed(self) -> bool:
        return self.outcome == "passed"


def location() -> Path:
    """The progress file: in `QLAB_HOME` if that is set, else where the system keeps a user's data."""
    if home := os.environ.get("QLAB_HOME"):
        return Path(home).expanduser().absolute() / "progress.db"
    shared = os.environ.get("XDG_DATA_HOME", "")
    # The XDG specification says that a relative path is to be ignored.
    folder = Path(shared) if Path(shared).is_absolute() else Path.home() / ".local" / "share"
    return folder / "qlab" / "progress.db"


def record(event: Event) -> list[Event]:
    """Add an event. Returns all events of its question, the new one included.

    A damaged file is set aside first, with a message on stdout.

    Raises:
        Unavailable: it could not be written; nothing was recorded.
    """

    def add(connection: sqlite3.Connection) -> list[Event]:
        values = [event.time.isoformat() if name == "time" else getattr(event, name) for name in _COLUMNS]
        places = ", ".join("?" * len(values))
        connection.execute(f"INSERT INTO event ({', '.join(_COLUMNS)}) VALUES ({places})", values)
        return _select(connection, event.question)

    return _transact(add, write=True)


def events(question: str | None = None) -> list[Event]:
    """The events of one question, or all, oldest first; none if there is no file yet.

    Raises:
        Unavailable: the file could not be read just now.
    """
    return _transact(lambda connection: _select(connection, question), write=False)


def summarize(question: str, history: Sequence[Event]) -> Summary:
    """What the events of this question come to.

    Of other questions only the times matter: work on this one begins with the event before its own first.
    """
    before = {id(event): earlier.time for earlier, event in pairwise(history)}
    own = [event for event in history if event.question == question]
    resets = [number for number, event in enumerate(own) if event.kind == "reset"]
    own = own[resets[-1] + 1 :] if resets else own
    passes = [number for number, event in enumerate(own) if event.outcome == "passed"]
    until = own[: passes[0] + 1] if passes else own
    attempts = [event.outcome for event in until if event.outcome not in (None, "not attempted")]
    solutions = [number for number, event in enumerate(own) if event.kind == "solution"]
    pauses = [(event.time - before[id(event)]).total_seconds() / 60 for event in until if id(event) in before]
    return Summary(
        question,
        attempts[-1] or "" if attempts else "not attempted",
        len(attempts),
        len({event.hint for event in until if event.hint}),
        "not seen" if not solutions else "before pass" if solutions[0] < len(until) else "after pass",
        sum(min(max(pause, 0.0), LONGEST_PAUSE) for pause in pauses),
        tuple(sorted({event.hint for event in own if event.hint})),
    )


_COLUMNS = tuple(each.name for each in fields(Event))
_TABLE = """CREATE TABLE event (
    id INTEGER PRIMARY KEY,
    question TEXT NOT NULL,
    kind TEXT NOT NULL,
    outcome TEXT,
    hint INTEGER,
    mutant TEXT,
    version TEXT NOT NULL,
    time TEXT NOT NULL,  -- UTC, ISO 8601
    level INTEGER
)"""


def _transact(work: Callable[[sqlite3.Connection], list[Event]], write: bool) -> list[Event]:
    """Do the work in one transaction, on a fresh file if the old one is damaged.

    Whoever uses the file holds a shared lock, and whoever renames it an exclusive one. So nobody writes into a file
    that has just been set aside; and of two processes that find the damage at once, the second, when it looks again
    under its lock, finds the fresh file of the first and leaves it alone.
    """
    path = None
    try:
        path = location()
        if write:
            path.parent.mkdir(parents=True, exist_ok=True)
        elif not path.exists():
            return []
        try:
            with _lock(path, exclusive=False, needed=write):
                return _in_transaction(path, work, write)
        except _Damaged:
            pass
        with _lock(path, exclusive=True, needed=True):
            try:
                return _in_transaction(path, work, write)
            except _Damaged as damage:
                _set_aside(path, damage)
                return _in_transaction(path, work, write)
    except Unavailable:
        raise
    except (OSError, RuntimeError, _Damaged) as error:  # no home folder; damaged again at once
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise Unavailable(f"{path or 'progress.db'}: {reason}") from None


def _in_transaction(path: Path, work: Callable[[sqlite3.Connection], list[Event]], write: bool) -> list[Event]:
    try:
        with closing(sqlite3.connect(path, timeout=_PATIENCE, isolation_level=None)) as connection:
            # SQLite's own rollback journal, and not WAL: WAL needs memory shared between the processes, which
            # homes on a network drive do not have, and at rest it may leave events in a second file. With a
            # handful of writes in a minute its speed would be for nothing.
            # IMMEDIATE takes the write lock at the start, where waiting is safe; two transactions that both read
            # first and then want to write would stop each other.
            connection.text_factory = lambda data: data.decode(errors="replace")
            connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            version = _examine(connection)
            if version < _VERSION and write:
                # An older table keeps its events, which have no level; reading alone leaves it as it is.
                connection.execute("ALTER TABLE event ADD COLUMN level INTEGER" if version else _TABLE)
                connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                connection.execute(f"PRAGMA user_version = {_VERSION}")
            done = work(connection) if version or write else []
            connection.execute("COMMIT")
            return done
    except UnicodeDecodeError:  # SQLite's own message quotes what it found
        raise _Damaged("its list of tables is garbled") from None
    except sqlite3.DatabaseError as error:
        if not hasattr(error, "sqlite_errorcode"):  # from Python, so a bug of ours
            raise
        complaint = _COMPLAINTS.get(error.sqlite_errorcode & 0xFF)
        if complaint is None:
            raise _Damaged(str(error)) from None
        raise Unavailable(f"{path}: {complaint}") from None


def _examine(connection: sqlite3.Connection) -> int:
    """The version of our table in the file; 0 for a file without any, which is new."""

    def pragma(name: str) -> object:
        return connection.execute(f"PRAGMA {name}").fetchone()[0]

    version = int(str(pragma("user_version")))
    if pragma("application_id") == _APPLICATION and version > _VERSION:
        raise _Damaged(
            f"a newer qlab wrote it, in version {version} of the table; this one reads version {_VERSION}",
            "Update qlab and give that file its old name again.",
        )
    # Pages that do not fit together. A few milliseconds for a year of learning.
    if (found := pragma("quick_check(1)")) != "ok":
        raise _Damaged(" ".join(str(found).split()))
    tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
    if not tables and version == 0:
        return 0
    expected = ["id", *_COLUMNS] if version == _VERSION else ["id", *_COLUMNS[:-1]]
    if pragma("application_id") != _APPLICATION or _columns(connection) != expected:
        raise _Damaged("it is a database with other tables", "If another program needs that file, move it there.")
    return version


def _columns(connection: sqlite3.Connection) -> list[str]:
    return [row[1] for row in connection.execute("PRAGMA table_info(event)")]


def _select(connection: sqlite3.Connection, question: str | None) -> list[Event]:
    where, values = ("", []) if question is None else (" WHERE question = ?", [question])
    # All of them at once: a statement that is half read would keep the file open behind a closed connection.
    names = [name for name in _COLUMNS if name in _columns(connection)]
    rows = connection.execute(f"SELECT {', '.join(names)} FROM event{where} ORDER BY id", values).fetchall()
    try:
        found = (dict(zip(names, row, strict=True)) for row in rows)
        return [Event(**{**values, "time": _utc(values["time"])}) for values in found]
    except (TypeError, ValueError) as error:
        raise _Damaged(f"an event makes no sense: {error}") from None


def _utc(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"time is {text!r}, without a time zone")
    return moment


def _set_aside(path: Path, damage: _Damaged) -> None:
    name = f"{path.name}.damaged-{datetime.now(UTC):%Y%m%d-%H%M%S}"
    target = path.with_name(name)
    number = 1
    while target.exists():
        number += 1
        target = path.with_name(f"{name}-{number}")
    path.rename(target)
    message = (
        f"Your progress file could not be read: {damage}. It was set aside, and a fresh one was begun; your notebooks "
        f"are not touched. The old attempts are in {target} and nothing deletes them. {damage.advice}"
    )
    print(textwrap.fill(message, 100, break_long_words=False, break_on_hyphens=False), flush=True)


@contextmanager
def _lock(path: Path, exclusive: bool, needed: bool) -> Iterator[None]:
    """Hold the lock file beside `path`; the system lets go of it when a process dies.

    A reader (`needed` is False) does without where it may not write: nobody can rename anything there.
    Nor does anybody on Windows, where the system itself refuses to rename a file that is in use.
    """
    if sys.platform == "win32":
        yield
        return
    try:
        handle = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        if needed:
            raise
        yield
        return
    try:
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                fcntl.flock(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Unavailable(f"{path}: another program holds it locked") from None
                time.sleep(0.01)
        yield
    finally:
        os.close(handle)
