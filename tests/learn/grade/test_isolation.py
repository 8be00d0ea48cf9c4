"""The box: what is visible in it, what is not, and what happens where it cannot be had."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pytest

from qlab.learn.grade import isolation
from qlab.learn.grade.isolation import CHECKOUT, PACKAGE, IsolationError, Limits, NewBox, reach, run
from qlab.learn.questions import all_ids


def said(code: str, level: str, **limits: Any) -> str:
    """What a Python says that runs this code in the box."""
    with NewBox() as box:
        ended = run(box, level, Limits(**limits), command=(sys.executable, "-c", code))
        return f"{box.log.read_text()}{ended.reason or ''}".strip()


def test_box_shows_the_package_without_its_answers(namespaces: None) -> None:
    code = (
        "import os\n"
        f"print(sorted(os.listdir({str(CHECKOUT)!r})))\n"
        f"print([(p, os.listdir(p)) for p in {[str(path) for path in isolation._answers()]!r}])\n"
        "import qlab.learn.questions as q; print(len(q.all_ids()) > 9)"
    )
    top, answers, ids = said(code, "namespaces").splitlines()
    assert set(eval(top)) <= {"qlab", ".venv"}
    hidden = {Path(folder).name: files for folder, files in eval(answers)}
    assert hidden.keys() >= {one.partition(".")[0] for one in all_ids()}
    assert not any(hidden.values())
    assert ids == "True"


def test_box_holds_nothing_of_this_machines_users(namespaces: None, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "a-file").write_text("x")
    monkeypatch.setenv("A_SECRET_TOKEN", "x")
    paths = [str(tmp_path / "a-file"), "/etc/shadow", "/run", "/var", "/home", str(Path.home() / ".ssh"), "/sys/fs"]
    code = (
        f"import os\nprint([p for p in {paths!r} if os.path.exists(p)], 'A_SECRET_TOKEN' in os.environ)\n"
        "print(sorted(p for p in os.listdir('/proc') if p.isdigit()), os.environ['CUDA_VISIBLE_DEVICES'] == '')"
    )
    assert said(code, "namespaces").splitlines() == ["[] False", "['1'] True"]


def test_an_installation_below_tmp_is_shown_and_read_only(namespaces: None, monkeypatch: Any) -> None:
    shown = isolation._shown()
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder, "installed").mkdir()
        Path(folder, "installed", "a-file").write_text("x")
        Path(folder, "beside-it").write_text("x")
        monkeypatch.setattr(isolation, "_shown", lambda: [*shown, f"{folder}/installed"])
        code = (
            f"import os; print(os.listdir({folder!r}), os.listdir({folder + '/installed'!r}))\n"
            f"try: open({folder + '/installed/new'!r}, 'w')\n"
            "except OSError as e: print(e.strerror)\n"
            "print(open('/tmp/new', 'w').write('x'))"
        )
        assert said(code, "namespaces").splitlines() == ["['installed'] ['a-file']", "Read-only file system", "1"]


def test_box_cannot_be_changed_from_within(namespaces: None) -> None:
    code = (
        "import ctypes, os\n"
        "def tried(action):\n"
        "    try: action()\n"
        "    except OSError as error: return 'no'\n"
        "    return 'YES'\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def call(result):\n"
        "    if result: raise OSError\n"
        f"places = ['/new', '/usr/new', {str(PACKAGE / 'new')!r}, '/proc/sys/kernel/core_pattern', '/box/in/new']\n"
        "print([tried(lambda: open(place, 'a').write('x')) for place in places])\n"
        "print(tried(lambda: call(libc.umount2(b'/proc', 2))), tried(lambda: call(libc.unshare(0x10020000))),\n"
        "      tried(lambda: call(libc.mount(b'none', b'/', b'', 0x20 | 0x1000, b''))),\n"
        "      tried(lambda: os.mknod('/tmp/d', 0o60600, 1)))\n"
        "print([tried(lambda: open(place, 'w').write('x')) for place in ('/tmp/work/a', '/box/out/a', '/dev/null')])"
    )
    assert said(code, "namespaces").splitlines() == [str(["no"] * 5), "no no no no", str(["YES"] * 3)]


def test_box_has_no_network(namespaces: None) -> None:
    code = "import socket\ntry: socket.create_connection(('127.0.0.1', 1), 2)\nexcept OSError as e: print(e.strerror)"
    assert said(code, "namespaces") == "Network is unreachable"


def test_folders_in_the_box_are_small(namespaces: None) -> None:
    code = (
        "try:\n"
        "    for n in range(9): open(f'{n}', 'wb').write(bytes(10 << 20))\n"
        "except OSError as error: print(n, error.strerror)"
    )
    assert said(code, "namespaces", disk=40 << 20) == "4 No space left on device"


@pytest.mark.parametrize("level", isolation.LEVELS)
def test_limits_hold_and_are_named(level: str, request: pytest.FixtureRequest) -> None:
    if level == "namespaces":
        request.getfixturevalue("namespaces")
    assert "longer than 1 s in total" in said("import time; time.sleep(60)", level, total_seconds=1)
    assert "MemoryError" in said("bytearray(2 << 30)", level, memory=1 << 30)
    assert "File too large" in said("open('x', 'wb').write(bytes(30 << 20))", level, disk=20 << 20)
    forks = "import os, time\nfor _ in range(60):\n    if not os.fork(): break\ntime.sleep(60)"
    assert "more than 20 processes" in said(forks, level, processes=20)
    out = "import os, time\nos.chdir(os.environ['QLAB_BOX'] + '/out')\n"
    disk = f"{out}for n in range(9): open(f'{{n}}', 'wb').write(bytes(9 << 20))\ntime.sleep(60)"
    assert "wrote more than" in said(disk, level, disk=10 << 20)
    files = f"{out}for n in range(9000): open(f'{{n}}', 'w')\ntime.sleep(60)"
    assert "files" in said(files, level)


def test_box_is_removed_whatever_lies_in_it(level: str) -> None:
    code = (
        "import os\nos.chdir(os.environ['QLAB_BOX'] + '/out')\n"
        "os.mkdir('locked'); open('locked/file', 'w'); os.chmod('locked', 0)\n"
        "for _ in range(1100): os.mkdir('d'); os.chdir('d')"
    )
    with NewBox() as box:
        run(box, level, Limits(total_seconds=20), command=(sys.executable, "-c", code))
        assert (box.answers / "d").exists()
    assert not box.folder.exists()


def test_box_of_a_dead_grader_is_removed() -> None:
    code = (
        "from qlab.learn.grade.isolation import NewBox; import os\n"
        "print(NewBox().__enter__().folder, flush=True); os._exit(0)"
    )
    left = Path(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip())
    assert left.exists()
    with NewBox() as box:
        assert box.folder.exists()
        assert not left.exists()


def test_stopping_ends_the_box(level: str) -> None:
    import threading

    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    with NewBox() as box:
        ended = run(box, level, Limits(), stop, command=(sys.executable, "-c", "import time; time.sleep(60)"))
    assert ended.reason == "the grader was stopped"


@pytest.mark.parametrize("level", isolation.LEVELS)
def test_box_dies_with_its_grader(level: str, request: pytest.FixtureRequest) -> None:
    if level == "namespaces":
        request.getfixturevalue("namespaces")
    mark = f"box-of-{os.getpid()}-{level}"
    code = (
        "import subprocess, sys, time\n"
        f"sleep = [sys.executable, '-c', 'import time; time.sleep(300)', '{mark}']\n"
        "subprocess.Popen(sleep, start_new_session=True, env={})\ntime.sleep(300)"
    )
    grader = (
        "import sys\nfrom qlab.learn.grade.isolation import *\n"
        f"with NewBox() as box: run(box, {level!r}, Limits(), command=(sys.executable, '-c', {code!r}))"
    )

    def alive() -> list[int]:
        found = psutil.process_iter(["cmdline", "status"])
        return [p.pid for p in found if mark in (p.info["cmdline"] or []) and p.info["status"] != psutil.STATUS_ZOMBIE]

    process = subprocess.Popen([sys.executable, "-c", grader])
    try:
        assert wait_until(alive)
        process.kill()
        process.wait()
        assert wait_until(lambda: not alive())
    finally:
        process.kill()
        with NewBox():  # removes the box that it left
            pass


def wait_until(condition: Any) -> bool:
    """Whether it comes true; a busy machine may take a while."""
    import time

    for _ in range(600):
        if condition():
            return True
        time.sleep(0.05)
    return False


def test_levels_are_refused_in_words(monkeypatch: Any) -> None:
    monkeypatch.setattr(isolation, "probe", lambda: "the system forbids it")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert reach("auto") == reach("watchdog") == "watchdog"
    with pytest.raises(IsolationError, match=r"namespaces do not work here \(the system forbids it\)"):
        reach("namespaces")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for wanted in ("auto", "watchdog"):
        with pytest.raises(IsolationError, match=r"all rights of root.*--force"):
            reach(wanted)
        assert reach(wanted, force=True) == "watchdog"
    monkeypatch.setattr(isolation, "probe", lambda: None)
    assert reach("auto") == reach("namespaces") == "namespaces"
    with pytest.raises(ValueError, match=r"no level 'docker'; choose from auto, namespaces, watchdog"):
        reach("docker")


def test_what_a_level_does_not_give_is_said() -> None:
    assert "NOT blocked" in isolation.words("watchdog")
    assert "no network" in isolation.words("namespaces")


@pytest.mark.parametrize("name", ["cell_seconds", "total_seconds", "memory", "disk", "processes"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_limits_are_above_zero(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}: it must be above zero"):
        Limits(**{name: value})
