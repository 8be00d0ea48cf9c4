"""Lines from a keyboard, typed into a terminal that is none, and from a pipe."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from prompt_toolkit.application import create_app_session
from prompt_toolkit.input import PipeInput, create_pipe_input
from prompt_toolkit.output import DummyOutput

from qlab.learn.interview.keyboard import keyboard


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[PipeInput]:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    with create_pipe_input() as typed, create_app_session(input=typed, output=DummyOutput()):
        yield typed


def test_lines_one_after_the_other(keys: PipeInput) -> None:
    listen = keyboard()
    keys.send_text("First.\rSecond.\r\r")
    assert [listen(lambda: "[0:00] ") for _ in range(3)] == ["First.", "Second.", ""]


def test_an_empty_line_inside_a_pasted_text_ends_nothing(keys: PipeInput) -> None:
    listen = keyboard()
    keys.send_text("\x1b[200~First.\r\rSecond.\x1b[201~\r")
    assert listen(lambda: "[0:00] ") == "First.\n\nSecond."


def test_ctrl_c_brings_what_was_typed_and_ctrl_d_ends(keys: PipeInput) -> None:
    listen = keyboard()
    keys.send_text("Half a li\x03")
    with pytest.raises(KeyboardInterrupt, match="Half a li"):
        listen(lambda: "[0:00] ")
    keys.send_text("\x04")
    with pytest.raises(EOFError):
        listen(lambda: "[0:00] ")


def test_the_clock_is_asked_again_while_somebody_types(keys: PipeInput, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qlab.learn.interview.keyboard.REFRESH", 0.01)
    asked = 0

    def prompt() -> str:
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
    assert listen(lambda: "[0:00] ") == "One." and capsys.readouterr().out == "[0:00] "
    with pytest.raises(EOFError):
        listen(lambda: "[0:00] ")
