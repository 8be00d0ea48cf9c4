"""Predict, then measure: the learner's guess beside the number that a cell computed."""

from __future__ import annotations

import math
from numbers import Integral
from typing import SupportsFloat


def predict(
    question: str,
    guess: SupportsFloat | str | None,
    measured: SupportsFloat | str,
    unit: str = "",
    digits: int = 3,
    how: str = "measured",
) -> None:
    """Print one line that compares a guess with what was measured.

    Args:
        question: what was asked, such as "Bytes of KV cache per token".
        guess: a number, or one of the choices as a string; None while the learner has not guessed.
        measured: the answer, of the same kind as the guess.
        unit: of both numbers, such as "bits" or "%".
        digits: significant digits that are shown of a number with a fraction; whole numbers are shown in full.
        how: where the answer comes from, "computed" for instance.

    Raises:
        TypeError: the guess is a number and the answer is not, or the other way round.
        ValueError: a number is NaN or infinite, or `digits` is below 1.
    """
    if digits < 1:
        raise ValueError(f"digits is {digits}; show at least 1")
    label = question.rstrip().rstrip(":")
    if isinstance(measured, str):
        answer = measured
        verdict = None if guess is None else _compare_choices(guess, measured)
        said = guess
    else:
        truth = _finite("measured", measured)
        answer = _with_unit(_shown(measured, digits), unit)
        verdict = None if guess is None else _compare_numbers(_finite("guess", guess), truth, digits)
        said = None if guess is None else _with_unit(_shown(guess, digits), unit)
    if verdict is None:
        print(f"{label}: no guess yet; {how}: {answer}.")
    else:
        print(f"{label}: your guess: {said}; {how}: {answer}; {verdict}.")


def _compare_choices(guess: SupportsFloat | str, measured: str) -> str:
    if not isinstance(guess, str):
        raise TypeError(f"guess is {guess!r}, but the answer is one of several words: write it in quotes, or None")
    same = guess.strip().casefold() == measured.strip().casefold()
    return "you said so" if same else "not what you said"


def _compare_numbers(guess: float, truth: float, digits: int) -> str:
    """The distance in words: a share of the answer when it is small, a factor when it is not."""
    if _shown(guess, digits) == _shown(truth, digits):
        return "exactly right"
    side = "too high" if guess > truth else "too low"
    if guess * truth <= 0:  # a factor means nothing across zero
        return side
    factor = max(guess / truth, truth / guess)
    if factor < 1.1:
        return f"close, a little {side}"
    if factor < 2:
        return f"{abs(guess / truth - 1):.0%} {side}"
    return f"{side}, by a factor of {_shown(factor, 2)}"


def _finite(name: str, value: SupportsFloat | str) -> float:
    if isinstance(value, str):
        raise TypeError(f"{name} is {value!r}, but the answer is a number: write a number such as 4.5, or None")
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is a {type(value).__name__}; a number or a string is needed") from error
    if not math.isfinite(number):
        raise ValueError(f"{name} is {number}; a finite number is needed")
    return number


def _shown(value: SupportsFloat | str, digits: int) -> str:
    """A number with `digits` significant digits and thousands separators, without an exponent where one can read it."""
    if isinstance(value, Integral):
        return f"{int(value):,}"
    number = float(value)
    if number == 0:
        return "0"
    decimals = digits - 1 - math.floor(math.log10(abs(number)))
    if decimals > digits + 3:  # below 0.0001
        return f"{number:.{digits - 1}e}"
    if decimals < 0:
        return f"{round(number, decimals):,.0f}"
    return f"{number:,.{decimals}f}"


def _with_unit(number: str, unit: str) -> str:
    return f"{number} {unit}".rstrip()
