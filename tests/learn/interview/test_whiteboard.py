from __future__ import annotations

import pytest

from qlab.learn.interview import whiteboard
from qlab.learn.interview.whiteboard import Written, judge, stub

RIGHT = """
def compensate(w, j, values, u):
    w = w.clone()
    error = (w[:, j] - values) / u[j, j]
    w[:, j:] -= error[:, None] * u[j, j:]
    w[:, j] = values
    return w
"""


def test_a_right_function_passes() -> None:
    assert judge("gptq.update", RIGHT, 2) == Written("passed", "gptq.update: passed, on all 10 cases", 2)


def test_a_wrong_one_is_told_what_it_looks_like() -> None:
    found = judge("gptq.update", RIGHT.replace("u[j, j:]", "u[j:, j]"))
    assert found.outcome == "failed" and "First case that fails" in found.message


@pytest.mark.parametrize("exercise", ["gptq.update", "kernels.dequantize_int4"])
def test_the_stub_is_not_attempted_and_says_what_comes_in(exercise: str) -> None:
    source = stub(exercise)
    assert '"""' in source and "def " in source
    assert judge(exercise, source).outcome == "not attempted"


def test_without_the_repository_there_is_still_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(whiteboard, "_released", lambda exercise: None)
    assert "def compensate(w, j, values, u):" in stub("gptq.update")
    assert "@triton.jit\ndef dequantize_int4(" in stub("kernels.dequantize_int4")


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def compensate(", "SyntaxError"),
        ("x = 1", "There is no function compensate"),
        ("raise SystemExit", "SystemExit"),
        ("import os\nos._exit(3)", "Python ended with code 3"),
        ("import no_such_module", "ModuleNotFoundError"),
        ('print(\'{"outcome": "passed", "message": ""}\')\nimport os\nos._exit(0)', ""),
    ],
)
def test_code_that_does_not_run_is_an_error(source: str, message: str) -> None:
    found = judge("gptq.update", source)
    if message:
        assert found.outcome == "error" and message in found.message


def test_a_loop_without_end_is_stopped() -> None:
    found = judge("gptq.update", "while True:\n    pass", seconds=5)
    assert found.outcome == "error" and "longer than 5 s" in found.message
