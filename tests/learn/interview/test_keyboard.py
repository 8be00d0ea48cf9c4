"""Lines from a keyboard, typed into a terminal that is none, and from a pipe."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from qlab.learn.interview import session
from qlab.learn.interview.keyboard import keyboard


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[PipeInput]:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    with create_pipe_input() as typed, create_app_session(input=typed, output=DummyOutput()):
        yield typed


def test_lines_one_after_the_other(keys: PipeInput) -> None:
    listen = keyboard()
    keys.send_text("First.\rSecond.\r\r")
    assert [listen(lambda _: "[0:00] ") for _ in range(3)] == ["First.", "Second.", ""]


def test_an_empty_line_inside_a_pasted_text_ends_nothing(keys: PipeInput) -> None:
    listen = keyboard()
    keys.send_text("\x1b[200~First.\r\rSecond.\x1b[201~\r")
    assert listen(lambda _: "[0:00] ") == "First.\n\nSecond."


def test_ctrl_c_brings_what_was_typed_and_ctrl_d_ends(keys: PipeInput) -> None:
    listen = keyboard()
    keys.send_text("Half a li\x03")
    typed: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        listen(lambda text: str(typed.append(text)))
    assert typed[-1] == "Half a li"
    keys.send_text("\x04")
    with pytest.raises(EOFError):
        listen(lambda _: "[0:00] ")


def test_the_clock_is_asked_again_while_somebody_types(keys: PipeInput, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qlab.learn.interview.keyboard.REFRESH", 0.01)
    asked = 0

    def prompt(typed: str) -> str:
        nonlocal asked
        asked += 1
        if asked == 20:
            keys.send_text("\r")
        return f"[{asked}] "

    keyboard()(prompt)
    assert asked >= 20


def test_a_pipe_is_read_line_by_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("One.\n"))
    listen = keyboard()
    assert listen(lambda _: "[0:00] ") == "One." and capsys.readouterr().out == "[0:00] "
    with pytest.raises(EOFError):
        listen(lambda _: "[0:00] ")


def test_a_terminal_that_is_closed_loses_a_second_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QLAB_HOME", str(tmp_path))
    window = Terminal("interview", "run", "explain_quantization", "--question", "explain")
    window.wait(lambda: "to think" in window.seen)
    window.type("\r")
    window.wait(lambda: "an empty line ends" in window.seen)
    window.type("You round.\r")
    window.wait(lambda: session.find(None).draft == "You round.")
    window.type("To a gr")
    window.wait(lambda: session.find(None).draft == "You round.\nTo a gr" and session.find(None).spent > 2)
    window.close()
    one = session.find(None)
    assert one.turns == [] and one.answering and one.draft == "You round.\nTo a gr"
    again = Terminal("interview", "resume")
    again.wait(lambda: bool(re.search(r"\[\d:\d\d of 3:00\]", again.seen)))
    assert "Question 1 of 1" in again.seen and "To a gr" in again.seen
    minutes, seconds = map(int, re.findall(r"\[(\d):(\d\d) of 3:00\]", again.seen)[0])
    assert int(one.spent) <= 60 * minutes + seconds
    again.close()


class Terminal:
    """The command line in a pseudo-terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        self.pid, self.handle = pty.fork()
        if self.pid == 0:
            os.execv(sys.executable, [sys.executable, "-m", "qlab.cli", *arguments])
        self.seen = ""

    def wait(self, until: Callable[[], bool]) -> None:
        """Read what it shows until something is so."""
        end = time.monotonic() + 60
        while not until():
            assert time.monotonic() < end, self.seen
            if select.select([self.handle], [], [], 0.1)[0]:
                raw = os.read(self.handle, 65536).decode("utf-8", errors="replace")
                if "\x1b[6n" in raw:
                    self.type("\x1b[1;1R")  # where the cursor is, as a terminal answers
                self.seen = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]", "", self.seen + raw)

    def type(self, keys: str) -> None:
        os.write(self.handle, keys.encode())

    def close(self) -> None:
        os.close(self.handle)  # the process is sent SIGHUP
        os.waitpid(self.pid, 0)
