"""The box that a submission runs in: which level this machine can give, its limits, and the watch over it.

Level "namespaces" (Linux 5.12 or newer, where the system permits it, also without root): no network, no other
processes, no file of this machine but the system's programs, this Python and the package without its answers.
Level "watchdog" (every other system): a process of its own with limits, found and killed at the end with all it has
started; the network is open, and files that you can read are readable.

What works is found out by trying it, once in a process. See `NOT_DEFENDED` for what neither level stops.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import site
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from ..files import printable, read_strictly

PACKAGE = Path(__file__).resolve().parents[2]
CHECKOUT = PACKAGE.parent
QUESTIONS = PACKAGE / "learn" / "questions"
LEVELS = ("namespaces", "watchdog")
_ENTER = Path(__file__).with_name("enter.py")
_PREFIX = "qlab-box"
_EVERY = 0.1  # seconds between two looks
_FILES = 2_000  # that a box may hold on this machine's disk
_LIBRARIES = 1 << 30  # bytes for the libraries, which are no data

# Of the system. All of /etc would be too much: it holds keys and the hashes of passwords.
_SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/sys/devices/system/cpu"),
    *("/etc/alternatives", "/etc/fonts", "/etc/group", "/etc/hosts", "/etc/ld.so.cache", "/etc/ld.so.conf"),
    *("/etc/ld.so.conf.d", "/etc/localtime", "/etc/mime.types", "/etc/nsswitch.conf", "/etc/passwd"),
)
_WORDS = {
    "namespaces": "namespaces: no network, no other processes, the masters and the answers are out of reach",
    "watchdog": "watchdog: limits on time, memory and processes; the network is NOT blocked, and the code can read the "
    "masters and every other file that you can read",
}


@dataclass(frozen=True)
class Limits:
    """What one submission may use.

    Args:
        cell_seconds: for one cell.
        total_seconds: for the whole notebook, the start of the kernel included.
        memory: bytes of data for one process (RLIMIT_DATA); all processes together may take 1 GiB more.
        disk: bytes of one file, and of all files together.
        processes: that run at the same time; a kernel and its worker are two.
    """

    cell_seconds: float = 30.0
    total_seconds: float = 180.0
    memory: int = 3 << 30
    disk: int = 64 << 20
    processes: int = 64

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise ValueError(f"{name}: it must be above zero, not {value!r}")


@dataclass(frozen=True)
class Box:
    """The folders of one run, on this machine's disk."""

    folder: Path

    @property
    def inputs(self) -> Path:
        return self.folder / "in"

    @property
    def answers(self) -> Path:
        return self.folder / "out"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @contextmanager
    def open_answers(self) -> Iterator[int]:
        """The folder of the answers, opened before anybody can put another one in its place."""
        handle = os.open(self.answers, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            yield handle
        finally:
            os.close(handle)

    def last_words(self) -> str:
        """The last line that was written to the log; it may be anybody's."""
        try:
            lines = read_strictly(self.log, 1 << 20).decode("utf-8", errors="replace").strip().splitlines()
        except (OSError, ValueError):
            return ""
        return printable(lines[-1], 200) if lines else ""


@dataclass(frozen=True)
class Ended:
    """How a run ended. `reason` says which limit ended it; None where it ended by itself."""

    code: int
    seconds: float
    reason: str | None = None


class IsolationError(ValueError):
    """The level that was asked for cannot be had here."""


def reach(wanted: str = "auto", force: bool = False) -> str:
    """The level that is used: the one that was asked for, or with "auto" the best that works here.

    Raises:
        IsolationError: it does not work here; or this is root, who would run a stranger's code with all rights, and
            `force` is not given.
        ValueError: there is no such level.
    """
    if wanted not in ("auto", *LEVELS):
        raise ValueError(f"isolation: there is no level {wanted!r}; choose from auto, {', '.join(LEVELS)}")
    problem = probe() if wanted != "watchdog" else "the watchdog was asked for"
    if problem is None:
        return "namespaces"
    if wanted == "namespaces":
        raise IsolationError(f"isolation: namespaces do not work here ({problem}); --isolation watchdog is weaker")
    if os.geteuid() == 0 and not force:
        raise IsolationError(
            f"isolation: without namespaces ({problem}) a submission would run with all rights of root; "
            "grade as another user, or with --force in a machine that you can throw away"
        )
    return "watchdog"


def words(level: str) -> str:
    """What that level gives, in one line."""
    return _WORDS[level]


@functools.cache
def probe() -> str | None:
    """None where the level "namespaces" works here; else what went wrong."""
    if sys.platform != "linux":
        return f"{sys.platform} has none"
    with NewBox() as box:
        python = "import ctypes, os, socket; assert not os.path.exists('/box/in/no'); open('/box/out/yes', 'w')"
        ended = run(box, "namespaces", Limits(total_seconds=20), command=(sys.executable, "-c", python))
        if (box.answers / "yes").exists():
            return None
        return box.last_words() or ended.reason or f"exit code {ended.code}"


class NewBox:
    """A fresh box; it is removed at the end, and those that killed graders left behind are removed first."""

    def __enter__(self) -> Box:
        _sweep()
        self._box = Box(Path(tempfile.mkdtemp(prefix=f"{_PREFIX}-{os.getpid()}-", dir=_temporary())))
        for folder in (self._box.inputs, self._box.answers):
            folder.mkdir()
        return self._box

    def __exit__(self, *_: Any) -> None:
        _remove(self._box.folder)


def run(
    box: Box,
    level: str,
    limits: Limits,
    stop: threading.Event | None = None,
    command: tuple[str, ...] = (sys.executable, "-P", "-m", "qlab.learn.grade.worker"),
) -> Ended:
    """Run a command in the box until it ends, a limit is reached, or `stop` is set. Then nothing of it is left."""
    started = time.monotonic()
    spec = _specification(box, level, limits, command)
    with box.log.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-I", str(_ENTER), json.dumps(spec)],
            cwd=box.folder,
            env={"PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    watch = _Watch(process.pid, box, limits, level)
    reason = None
    try:
        while reason is None and process.poll() is None:
            if stop is not None and stop.is_set():
                reason = "the grader was stopped"
            elif time.monotonic() - started > limits.total_seconds:
                reason = f"the notebook ran longer than {limits.total_seconds:g} s in total"
            else:
                reason = watch.exceeded()
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_EVERY)
    finally:
        watch.kill()
        code = process.wait()
    return Ended(code, time.monotonic() - started, reason)


class _Watch:
    """Knows the processes of one box, also those that have left the family since."""

    def __init__(self, pid: int, box: Box, limits: Limits, level: str) -> None:
        self._first = psutil.Process(pid)
        self._box, self._limits, self._level = box, limits, level
        self._seen: dict[tuple[int, float], psutil.Process] = {}

    def exceeded(self) -> str | None:
        """The limit that is exceeded now, in words."""
        self._look()
        running = [process for process in self._seen.values() if _runs(process)]
        if len(running) > self._limits.processes:
            return f"the notebook started more than {self._limits.processes} processes"
        most = self._limits.memory + _LIBRARIES
        if sum(map(_resident, running)) > most and sum(map(_own_share, running)) > most:
            return f"the notebook used more than {most / 2**30:.1f} GiB of memory"
        return _too_much_on_disk(self._box.folder, self._limits.disk)

    def kill(self) -> None:
        """Kill all, first those below, until none is left."""
        for _ in range(200):
            self._look()
            left = [process for process in self._seen.values() if _runs(process)]
            # In a process namespace the first process takes all the others with it.
            for process in left:
                with suppress(psutil.Error):
                    process.kill()
            with suppress(psutil.Error):
                if not left and self._level == "namespaces":
                    self._first.kill()
            if not left:
                break
            time.sleep(0.02)
        with suppress(psutil.Error):
            self._first.kill()
        if self._level == "watchdog":
            self._kill_strays()

    def _kill_strays(self) -> None:
        """Processes that nobody saw among the descendants, but that carry the mark of the box in their environment."""
        mark, clean = str(self._box.folder), 0
        for _ in range(200):
            left = 0
            for process in psutil.process_iter():
                with suppress(psutil.Error, OSError):
                    if process.pid != os.getpid() and process.environ().get("QLAB_BOX") == mark and _runs(process):
                        process.kill()
                        left += 1
            clean = 0 if left else clean + 1
            if clean == 2:  # in the middle of an exec a process shows no environment: look twice
                break
            time.sleep(0.02)

    def _look(self) -> None:
        with suppress(psutil.Error):
            for process in self._first.children(recursive=True):
                self._seen.setdefault((process.pid, process.create_time()), process)


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _resident(process: psutil.Process) -> int:
    """Bytes that it holds, with all that it shares with others: quick to know, but too much."""
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _own_share(process: psutil.Process) -> int:
    """Bytes that it holds, where what n processes share counts as an n-th."""
    try:
        held = process.memory_full_info()
        return int(getattr(held, "pss", held.uss))
    except psutil.Error:
        return 0


def _specification(box: Box, level: str, limits: Limits, command: tuple[str, ...]) -> dict[str, Any]:
    spec: dict[str, Any] = {
        "level": level,
        "parent": os.getpid(),
        "command": command,
        "limits": {"memory": limits.memory, "disk": limits.disk, "tasks": _tasks() + 8 * limits.processes},
    }
    if level == "watchdog":
        for name in ("work", "home", "tmp"):
            (box.folder / name).mkdir()
        folder = box.folder
        return spec | {
            "folder": str(folder / "work"),
            "environment": _environment(folder, folder / "home", folder / "tmp"),
        }
    root = box.folder / "root"
    root.mkdir()
    return spec | {
        "root": str(root),
        "show": [path for path in _shown() if os.path.lexists(path)],
        "hide": [str(path) for path in (CHECKOUT, *_answers()) if path.is_dir() and not _is_site(path)],
        "make": ["/tmp/work", "/tmp/home", "/box"],
        "bind": [(str(box.inputs), "/box/in"), (str(box.answers), "/box/out")],
        "writable": ["/box/out"],
        "folder": "/tmp/work",
        "environment": _environment(Path("/box"), Path("/tmp/home"), Path("/tmp")),
    }


def _shown() -> list[str]:
    """What the box shows of this machine: the system, this Python with its packages, and this package."""
    python = [sys.prefix, sys.base_prefix, str(Path(sys.executable).resolve().parent), *site.getsitepackages()]
    if site.ENABLE_USER_SITE:
        python.append(site.getusersitepackages())
    paths = [*_SYSTEM, *python, *map(os.path.realpath, python), str(PACKAGE)]
    return list(dict.fromkeys(path for path in paths if path != "/"))


def _answers() -> list[Path]:
    """The folders of the questions: each question's file holds its reference. Their ids stay visible."""
    return sorted(path for path in QUESTIONS.iterdir() if path.is_dir())


def _is_site(path: Path) -> bool:
    return str(path) in [*site.getsitepackages(), site.getusersitepackages()]


def _environment(box: Path, home: Path, tmp: Path) -> dict[str, str]:
    """All that the code gets to know: nothing of this process's own environment, in which there may be secrets."""
    environment = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.defpath]),
        "HOME": str(home),
        "QLAB_HOME": str(home / "qlab"),
        "TMPDIR": str(tmp),
        "LANG": "C.UTF-8",
        "QLAB_BOX": str(box),
        "QLAB_GRADING": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if not _is_site(CHECKOUT):
        environment["PYTHONPATH"] = str(CHECKOUT)
    return environment


def _tasks() -> int:
    """Threads of this user now: RLIMIT_NPROC counts them all, whoever started them."""
    me, count = os.getuid(), 0
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.uids().real == me:
                count += process.num_threads()
    return count


def _too_much_on_disk(folder: Path, limit: int) -> str | None:
    left, files, size = [folder], 0, 0
    while left:
        try:
            with os.scandir(left.pop()) as entries:
                for entry in entries:
                    files += 1
                    if files > _FILES:
                        return f"the notebook wrote more than {_FILES:,} files"
                    if entry.is_dir(follow_symlinks=False):
                        left.append(Path(entry.path))
                    else:
                        size += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:  # it has gone since
            continue
        except OSError:
            return "the notebook wrote folders that cannot be looked at"
    return f"the notebook wrote more than {2 * limit >> 20} MB" if size > 2 * limit else None


def _temporary() -> Path:
    """The system's temporary folder, or a shorter one: the path of a socket in it has at most 103 characters."""
    usual = Path(tempfile.gettempdir())
    return usual if len(str(usual)) <= 60 else Path("/tmp")


def _remove(folder: Path) -> None:
    """Remove it whatever a submission has put there: folders without rights, folders a thousand deep."""
    with suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():
        subprocess.run(["chmod", "-R", "u+rwx", str(folder)], capture_output=True, check=False)
        subprocess.run(["rm", "-rf", str(folder)], capture_output=True, check=False)


def _sweep() -> None:
    """Remove the boxes of graders that were killed."""
    for folder in _temporary().glob(f"{_PREFIX}-*-*"):
        pid = folder.name.split("-")[2]
        with suppress(OSError):
            if pid.isdecimal() and not psutil.pid_exists(int(pid)) and folder.lstat().st_uid == os.getuid():
                _remove(folder)
