from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlab.learn import predict


@pytest.mark.parametrize(
    ("guess", "measured", "said"),
    [
        (None, 4.125, "Bits: no guess yet; measured: 4.12 bits."),
        (4, 4.125, "Bits: your guess: 4 bits; measured: 4.12 bits; close, a little too low."),
        (4.125, 4.125, "Bits: your guess: 4.12 bits; measured: 4.12 bits; exactly right."),
        (6, 4.0, "Bits: your guess: 6 bits; measured: 4.00 bits; 50% too high."),
        (1, 4.0, "Bits: your guess: 1 bits; measured: 4.00 bits; too low, by a factor of 4.0."),
        (-1, 4.0, "Bits: your guess: -1 bits; measured: 4.00 bits; too low."),
        (327_680, 327_680, "Bits: your guess: 327,680 bits; measured: 327,680 bits; exactly right."),
    ],
)
def test_numbers(capsys: pytest.CaptureFixture[str], guess: float | None, measured: float, said: str) -> None:
    assert predict("Bits", guess, measured, "bits") is None
    assert capsys.readouterr().out == said + "\n"


@pytest.mark.parametrize(
    ("guess", "verdict"), [(None, "no guess yet"), (" Row ", "you said so"), ("column", "not what you said")]
)
def test_choices(capsys: pytest.CaptureFixture[str], guess: str | None, verdict: str) -> None:
    predict("Which loses less?", guess, "row")
    line = capsys.readouterr().out
    assert verdict in line and "measured: row" in line and line.count("\n") == 1


def test_digits_and_large_and_small_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    for measured in (1234567.8, 0.000012345, 0.0, np.float32(0.5), np.int64(7)):
        predict("x", None, measured, digits=2)
    shown = [line.rpartition(": ")[2] for line in capsys.readouterr().out.splitlines()]
    assert shown == ["1,200,000.", "1.2e-05.", "0.", "0.50.", "7."]


@given(
    st.floats(1e-12, 1e12) | st.floats(-1e12, -1e-12),
    st.integers(2, 6),
)
def test_what_is_shown_is_the_number_to_the_digits_asked_for(number: float, digits: int) -> None:
    from qlab.learn.predict import _shown

    assert float(_shown(number, digits).replace(",", "")) == pytest.approx(number, rel=0.51 * 10.0 ** (1 - digits))


@pytest.mark.parametrize(
    ("guess", "measured", "error", "says"),
    [
        ("four", 4.0, TypeError, "guess is 'four'"),
        (4, "row", TypeError, "guess is 4"),
        (float("nan"), 4.0, ValueError, "guess is nan"),
        (None, float("inf"), ValueError, "measured is inf"),
        ([4], 4.0, TypeError, "guess is a list"),
    ],
)
def test_bad_input_is_named(guess: object, measured: object, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        predict("x", guess, measured)  # type: ignore[arg-type]


def test_no_digits() -> None:
    with pytest.raises(ValueError, match="digits is 0"):
        predict("x", None, 1.0, digits=0)


def test_it_loads_nothing_heavy() -> None:
    code = (
        "import sys, qlab.learn.predict; assert not {'numpy', 'torch', 'ipywidgets', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_it_says_where_the_answer_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    predict("A prompt", 100, 327.0, "ms", how="computed")
    predict("A prompt", None, 327.0, "ms", how="computed")
    first, second = capsys.readouterr().out.splitlines()
    assert "computed: 327 ms" in first and second == "A prompt: no guess yet; computed: 327 ms."
