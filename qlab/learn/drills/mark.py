"""What a reply to a drill is worth: right, wrong with the likely mistake, or not to be judged without another word.

A number may be off by the drill's tolerance, in any unit of the same kind: 36.8 GiB are 39.5 GB. Where the unit is
missing, the one that the question asks for is meant, unless the number would be right in another: then we ask.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..quantities import Quantity, parse
from ..units import unit
from .kind import Drill, short, with_unit

_NEAR = 0.01  # a mistake is named if the reply is so near to what it leads to
_RELATIVES = {  # units in which people give a number without saying so
    "memory": ("byte", "kB", "MB", "MiB", "GB", "GiB", "TB"),
    "time": ("µs", "ms", "s", "min", "h"),
    "ratio": ("x", "%"),
    "memory/time": ("MB/s", "GB/s", "TB/s"),
}
_GIB = 2**30 / 1e9
_FACTORS = {  # reply over answer: what was probably done
    8.0: "That is 8 times too much: bits were counted as bytes.",
    1 / 8: "That is an eighth: bytes were counted as bits.",
    _GIB: "That is 1.074 times too much, the ratio of a GiB to a GB: 2^30 against 10^9 bytes.",
    1 / _GIB: "That is the number of GiB. A GB is 10^9 bytes, a GiB 2^30.",
    2.0: "That is twice as much: something was counted twice.",
    1 / 2: "That is half: a factor of 2 is missing.",
    60.0: "That is 60 times too much: look at minutes, seconds and hours.",
    1 / 60: "That is a 60th: look at minutes, seconds and hours.",
    3600.0: "That is 3,600 times too much: an hour has so many seconds.",
    1 / 3600: "That is a 3,600th: an hour has so many seconds.",
    100.0: "That is 100 times too much: look at the percent.",
    1 / 100: "That is a hundredth: look at the percent.",
}
_FACTORS |= {
    10.0**power: "That is off by a power of 1,000: look at the prefix." for power in (-12, -9, -6, -3, 3, 6, 9, 12)
}


@dataclass(frozen=True)
class Marked:
    """A reply, judged. `why` is a sentence; with `again` nothing was judged, and it says what to write instead."""

    right: bool
    why: str
    again: bool = False


def judge(drill: Drill, reply: str) -> Marked:
    """Mark a reply: a number with or without its unit, or a choice by its letter or its text."""
    if not reply.strip(" ?"):
        return Marked(False, "You gave no answer.")
    if drill.choices:
        return _judge_choice(drill, reply)
    try:
        given = parse(reply)
    except ValueError as error:
        return Marked(False, _sentence(error), again=True)
    return _judge_number(drill, given)


def _judge_choice(drill: Drill, reply: str) -> Marked:
    said = reply.strip().strip("().:").casefold()
    texts = {line[0]: choice.casefold() for line, choice in zip(drill.lettered, drill.choices, strict=True)}
    letter = re.fullmatch(r"([a-f])(?:[).:]\s*.*)?", said)
    if letter and letter[1].upper() in texts:
        picked = [letter[1].upper()]
    else:
        picked = [name for name, text in texts.items() if text == said]
        picked = picked or [name for name, text in texts.items() if len(said) > 1 and said in text]
    if len(picked) != 1:
        return Marked(False, f"Choose one of {', '.join(texts)}.", again=True)
    if picked[0] == drill.letter:
        return Marked(True, "Right.")
    return Marked(False, f"No, it is {drill.answer_text}")


def _judge_number(drill: Drill, given: Quantity) -> Marked:
    answer = float(drill.answer)
    meant = _in_unit_of(drill, given)
    if meant is None:
        return Marked(False, f"{given.text} has another unit; the answer is wanted {_wanted(drill)}.", again=True)
    if meant.high - meant.low > 2 * max(drill.tolerance, _NEAR) * abs(meant.value):
        return Marked(False, "Give one number, and no range.", again=True)
    if _same(meant.value, answer, drill.tolerance):
        exact = _same(meant.value, answer, 1e-9)
        return Marked(True, "Right." if exact else f"Right: {drill.answer_text}.")
    other = _right_elsewhere(drill, given)
    if other:
        return Marked(False, f"In which unit is that? The answer is wanted {_wanted(drill)}.", again=True)
    return Marked(False, _mistake(drill, meant.value))


def _in_unit_of(drill: Drill, given: Quantity) -> Quantity | None:
    """The reply in the unit of the answer, None if it is of another kind.

    Without a unit that of the question is meant. Nor need anybody repeat what it is counted by: of "tokens/s" they
    write tokens.
    """
    name, slash, _ = drill.unit.partition("/")
    if given.unit == "":
        return given.to("") if not drill.unit else parse(_plain(given), drill.unit)
    if given.unit == "x" and not drill.unit:
        return parse(_plain(given))
    try:
        return given.to(drill.unit)
    except ValueError:
        if not slash or given.dimension != unit(name).dimension:
            return None
    return parse(_plain(given.to(name)), drill.unit)


def _plain(given: Quantity) -> str:
    return f"{given.value!r}"


def _right_elsewhere(drill: Drill, given: Quantity) -> bool:
    """Whether a number without a unit would be right in a unit that was not asked for."""
    if given.unit or not drill.unit:
        return False
    asked, tolerance = unit(drill.unit), drill.tolerance
    relatives = [unit(name) for name in _RELATIVES.get(asked.dimension, ())]
    return any(_same(given.value * one.factor, float(drill.answer) * asked.factor, tolerance) for one in relatives)


def _mistake(drill: Drill, value: float) -> str:
    """The likely reason for a wrong number: one that the drill knows, a lost factor, or only how far off."""
    answer = float(drill.answer)
    for says, slip in drill.slips.items():
        if _same(value, slip, min(drill.tolerance, _NEAR)):
            return f"No. {says}"
    if value <= 0:
        return "No. The answer is above zero."
    if drill.tolerance == 0 and abs(value - answer) == 1:
        return f"No, it is one {'less' if value > answer else 'more'}: look at the rounding."
    ratio = value / answer
    memory = unit(drill.unit).dimension.startswith("memory")
    for factor, says in _FACTORS.items():
        if _same(ratio, factor, _NEAR) and (memory or factor not in (8.0, 1 / 8, _GIB, 1 / _GIB)):
            return f"No. {says}"
    side = "too high" if ratio > 1 else "too low"
    allowed = f" Within {short(100 * drill.tolerance, 2)} % is right." * (drill.tolerance > 0)
    if 0.5 < ratio < 2:
        return f"No, {side} by {short(100 * abs(ratio - 1), 2)} %.{allowed}"
    return f"No, {side} by a factor of {short(max(ratio, 1 / ratio), 2)}."


def _same(value: float, other: float, tolerance: float) -> bool:
    return abs(value - other) <= (tolerance + 1e-9) * abs(other)


def _wanted(drill: Drill) -> str:
    if not drill.unit:
        return "as a bare number"
    return "as a factor, such as 2x" if drill.unit == "x" else f"in {with_unit(2, drill.unit).removeprefix('2 ')}"


def _sentence(error: ValueError) -> str:
    text = str(error).partition(": ")[2]
    return f"{text[:1].upper()}{text[1:]}."
