"""Numbers as people write them in an answer: "about 39.5 GB", "35 to 40 ms", "four bits per weight", "$3 an hour".

    find("some 35-40 GB at 4-bit")          35 to 40 GB, about; 4 bits
    parse("4 + 16/128 = 4.125 bits")        what a whole answer comes to: here what follows the last "="
    find("39.5 GB")[0].to("GiB")            36.8 GiB; another dimension is an error that says so

Units are those of `qlab.learn.units`. Names and versions hold no numbers: INT4, W8A8, H200, Llama-3-70B, p4d.24xlarge,
int4-g128, vLLM 0.6. Nor do "one" and "zero" without a unit ("one of them", "zero-point"). Numbers in words are those
of `qlab.learn.spoken`. "70B" is 70 billion, of parameters only where that is said. "Three or four" is a range, but
"4 or 8" a choice, and no single answer for `parse`, nor is "39 or 40".
What can be read in two ways is not guessed at; `refused` lists it with the reason, and `parse` raises it:

    39,5      a decimal comma or a list?         1,024 and 1_024 are numbers
    40 Gb     bits or bytes?                     40 gb, 40 GB, 40 Gbit
    8b, 5m    billion or bits, million or minutes?
    70 B      bytes or billion?                  70B, and 70 B parameters; 4 bytes, and 4 B/token
    9 TFLOPs  operations, or those of a second?  9 TFLOP, 9 TFLOPS
    €3        prices here are in USD
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from . import spoken, units
from .units import BARE, DIGIT_FACTORS, GAP, MASK, WORD_FACTORS, Read, Unit


@dataclass(frozen=True)
class Quantity:
    """A number, or a range of numbers, in a text.

    `low` and `high` are in `unit`, which is "" for a bare number; they are equal unless a range was written.
    text[start:end] is where it stands; `approximate` is whether somebody said about, ~, or so.
    """

    low: float
    high: float
    unit: str
    start: int
    end: int
    text: str
    approximate: bool = False

    @property
    def value(self) -> float:
        """The number, or the middle of the range."""
        return (self.low + self.high) / 2

    @property
    def dimension(self) -> str:
        """What the unit measures: "memory", "time", "memory/time", "ratio", "money/tokens"; "" for a bare number."""
        return units.unit(self.unit).dimension

    def to(self, name: str) -> Quantity:
        """The same in another unit. Raises ValueError for an unknown unit, or one of another dimension."""
        old, new = units.unit(self.unit), units.unit(name)
        if old.dimension != new.dimension:
            raise ValueError(
                f"unit: got {self.text!r}, {_measured(old)}; {new.name or 'a bare number'} is {_measured(new)}, "
                "and the two cannot be compared"
            )
        factor = old.factor / new.factor
        return replace(self, low=self.low * factor, high=self.high * factor, unit=new.name)

    def holds(self, value: float, name: str, tolerance: float = 0.0) -> bool:
        """Whether `value`, in the unit `name`, is what was written or lies in its range, but for a share of it.

        Raises:
            ValueError: as `to`.
        """
        here, room = self.to(name), abs(value) * (tolerance + 1e-9)  # the last digits belong to the arithmetic
        return here.low - room <= value <= here.high + room


@dataclass(frozen=True)
class Refused:
    """A place that looks like a number and can be read in more than one way."""

    start: int
    end: int
    text: str
    why: str


def find(text: str) -> list[Quantity]:
    """All quantities of a text in their order; none in "" and none in names such as W8A8."""
    return [one for one in _scan(text) if isinstance(one, Quantity)]


def refused(text: str) -> list[Refused]:
    """What looks like a number and was not read, each with what to write instead."""
    return [one for one in _scan(text) if isinstance(one, Refused)]


def parse(text: str, unit: str | None = None) -> Quantity:
    """The one quantity of a whole answer; of a calculation, what follows its last "=".

    Args:
        unit: taken where the answer names none. Where it names one, that must have the same dimension.

    Raises:
        ValueError: no number, more than one, one that can be read in two ways, or a unit of another dimension.
    """
    offset = text.rfind("=") + 1
    result = text[offset:]
    scanned = _scan(result, either=False)
    numbers = [one for one in scanned if isinstance(one, Quantity)]
    problems = [one for one in scanned if isinstance(one, Refused)]
    if problems:
        raise ValueError(f"answer: got {problems[0].text!r}; {problems[0].why}")
    word = result.strip()
    if not numbers and word.lower() in ("one", "zero"):  # in a sentence these are no numbers, as an answer they are
        value, start = spoken.value(word), result.index(word)
        numbers = [Quantity(value, value, "", start, start + len(word), word)]
    if not numbers:
        raise ValueError(f"answer: got {text.strip()!r}, which holds no number; write one, such as 39.5 GB")
    if len(numbers) > 1:
        listed = ", ".join(repr(one.text) for one in numbers)
        raise ValueError(f"answer: got {listed}; give one number, or put an equals sign before the result")
    one = replace(numbers[0], start=numbers[0].start + offset, end=numbers[0].end + offset)
    if unit is None:
        return one
    if one.unit == "":
        return replace(one, unit=units.unit(unit).name)
    one.to(unit)
    return one


# Behind these words stands a version or a place, and no quantity.
_NAMED = (
    "version release capability python cuda pytorch torch triton vllm transformers bitsandbytes llama qwen gpt opt "
    "gemma mistral phi deepseek lesson section table figure chapter question text eq"
).split()
_NAMES = re.compile(r"(?<!\w)[A-Za-z_]\w*(?:[-.]\w+)*")
_NO_NUMBERS = re.compile(
    r"(?<![\w.])(?:\d+(?:\.\d+){2,}\w*|\d{4}-\d\d(?:-\d\d)?(?![\d-])|\d+:\d\d)"
    rf"|\b(?:{'|'.join(_NAMED)})[ ]v?\d+(?:\.\d+)*\b",
    re.IGNORECASE,
)
_FACTORS = "|".join(WORD_FACTORS)
_NEAR = "about|around|roughly|approximately|nearly|almost|some|close to"
_NUMBER = re.compile(
    rf"""
    (?P<sign>(?<![\w.)%{MASK}])[-−+](?=[$.\d]))?
    (?P<money>US\$|\$|€|£|(?:USD|EUR){GAP}(?=\d))?
    (?: (?:(?<![\w.])|(?<=\dx)) (?P<digits>\.?\d(?:[\d,._\u00a0\u202f]*\d)?) (?P<exponent>e[-+]?\d+)?
        (?: (?:\^|\*\*)(?P<power>-?\d+) | (?P<raised>[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+) )?
        (?: {GAP}?[x×·*]{GAP}?10(?:(?:\^|\*\*)(?P<ten>-?\d+)|(?P<ten_raised>[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)) )?
      | (?<![\w-]) (?P<part>{spoken.PART}) (?!\w|-\w)
      | (?<![\w-]) (?: (?P<couple>a[ ]couple(?:[ ]of)?(?=[ ](?:{_FACTORS})))
          | (?P<word>{spoken.NUMBER}|an?(?=[ ](?:(?:{_FACTORS})\b|[A-Za-z]+{spoken.AND_A_HALF}))) ) (?P<fold>-?fold)?
        (?!(?!ish\b)[A-Za-z]|-(?!bit|byte|token|layer|GPU|gig|meg|ish\b|odd\b)) )
    """,
    re.VERBOSE | re.IGNORECASE,
)
_PLAIN = re.compile(
    r"(?:\d{1,3}(?:,\d{3})+|\d{1,3}(?:[\u00a0\u202f]\d{3})+|\d+(?:_\d+)*)(?:\.\d+)?|\.\d+"  # 1,024 1_024 10.5 .5
)
_RAISED = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
_CLOSE = re.compile(r"(bn|[kKMBT])(?![A-Za-z0-9_/])")
_APART = re.compile(rf"(?:{GAP}?-?(?:{_FACTORS})\b)+", re.IGNORECASE)
_COUNTED = re.compile(rf"{GAP}([kKMBT])(?={GAP}(?:param|weight|tok|model|request))")
_OF_A = re.compile(rf"{GAP}(?:an?|of an?){GAP}(?:({_FACTORS})\b)?")
_OF = re.compile(r"\s*(?:(?:of|as|less|more|the|to (?:an?|one|half))\b|$|[.,;:!?)])")
_ISH = re.compile(r"[- ]?ish\b|-odd\b|[ ]or[ ]so\b", re.IGNORECASE)
_ABOUT = re.compile(rf"(?:(?<!\w)(?:{_NEAR}|approx\.?|ca\.?|circa)|[~≈])\s*$", re.IGNORECASE)
_OR_SO = re.compile(r"\s*or so\b|[- ]ish\b", re.IGNORECASE)
_FACTOR_OF = re.compile(
    rf"(?:(?<!scale )(?<!scaling )\bfactor of|\ba factor|\b(?:speed|slow)[- ]?(?:up|down) of)"
    rf"\s+(?:(?:{_NEAR}|between|up to|at least)\s+|[~≈]\s*)*$",
    re.IGNORECASE,
)
# A dash at the beginning of a line lists something.
_TO = re.compile(r"(?:[ \t]*(?:-|–|—)|\s*(?:\bto\b|\.\.\.?|…))\s*[~≈]?", re.IGNORECASE)
_OR = re.compile(r"\s+or\s+", re.IGNORECASE)
_OR_TWO = re.compile(rf"[ ](?:or|to)[ ](?!(?:one|zero)\b){spoken.NUMBER}\b", re.IGNORECASE)
_AND = re.compile(r"\s*and\s*", re.IGNORECASE)
_BETWEEN = re.compile(r"\bbetween\s+(?:about\s+|roughly\s+|~\s*)?$", re.IGNORECASE)
_AND_LATER = re.compile(r"[^.,;]{0,30}\band\b", re.IGNORECASE)
_GIVE_OR_TAKE = re.compile(r"\s*(?:±|\+/-|\+-)\s*")
_LETTER = re.compile(r"\w")
_TIMES = re.compile(rf"x{GAP}?(?:\d|{MASK}|[A-Z]\w*\d)")  # 8xH100
_PRONOUNS = ("one", "zero", "a", "an")
_EXCESS = 10_000  # 327680B is no number of billions


@dataclass(frozen=True)
class _Atom:
    """One number before ranges are put together; `shared` is what its "million" or "k" may lend to the one before."""

    start: int
    end: int
    value: float
    shared: tuple[float, ...]
    read: Read
    approximate: bool = False


def _scan(text: str, either: bool = True) -> list[Quantity | Refused]:
    """What a text holds; `either` is whether "three or four" is one range."""
    masked = _masked(text)
    atoms: list[_Atom | Refused] = []
    at = 0
    while found := _number(masked, at):
        one = _atom(masked, found)
        at = max(found.end(), one.end if one else 0)
        if one:
            atoms.append(replace(one, text=text[one.start : one.end]) if isinstance(one, Refused) else one)
    return _joined(text, atoms, either)


def _masked(text: str) -> str:
    """The text with names, versions, dates and times of day made unreadable, and as long as it was."""

    def hide(found: re.Match[str]) -> str:
        return MASK * len(found[0]) if re.search(r"\d", found[0]) else found[0]

    return _NO_NUMBERS.sub(hide, _NAMES.sub(hide, text))


def _number(text: str, at: int) -> re.Match[str] | None:
    """The next number. "Between a hundred and two thousand" holds two: no 102,000 unless another "and" follows."""
    found = _NUMBER.search(text, at)
    if not found or " and " not in (found["word"] or "").lower() or _AND_LATER.match(text, found.end()):
        return found
    if not _BETWEEN.search(text, max(0, found.start() - 40), found.start()):
        return found
    return _NUMBER.match(text, found.start(), found.start() + found[0].lower().index(" and "))


def _atom(text: str, found: re.Match[str]) -> _Atom | Refused | None:
    """The number that was found, with its unit; None where it is a part of a name such as 24xlarge."""
    start, end, digits = found.start(), found.end(), found["digits"]
    if found["part"] or found["fold"]:
        return _ratio(text, found)
    if (found["money"] or "").strip().upper() in ("€", "£", "EUR"):
        return Refused(start, end, "", "prices here are in USD; convert it and write $3.20")
    if digits and not _PLAIN.fullmatch(digits):
        why = "write a point for decimals (39.5), commas for thousands only (1,024), and a space between numbers"
        return Refused(start, end, "", why)
    value = _value(found)
    more, end = spoken.and_a_half(text, end)  # behind the number, its "million" or its unit
    ish = _ISH.match(text, end)
    scaled, end = _scaling(text, ish.end() if ish else end, bool(digits), value)
    if not more:
        more, end = spoken.and_a_half(text, end)
    if not math.isfinite(value * scaled):
        return Refused(start, end, "", "that is too large to compute with; write a smaller number")
    read = units.read(text, end, money=bool(found["money"]))
    if read.problem:
        return Refused(start, read.end, "", read.problem)
    if read.unit == BARE and _FACTOR_OF.search(text, max(0, start - 40), start):
        read = Read(units.unit("x"), read.end)
    word = (found["word"] or "").lower()
    if read.unit == BARE:
        in_a_name = _LETTER.match(text, end) and not _TIMES.match(text, end)
        pronoun = scaled == 1 and not more and word in _PRONOUNS and not _OR_TWO.match(text, end)
        if in_a_name or pronoun:
            return None
    elif not more:
        more, end = spoken.and_a_half(text, read.end)
        read = replace(read, end=end)
    signed = -(value + more) if found["sign"] in ("-", "−") else value + more
    shared = tuple(scaled * factor for factor in (spoken.shared(word) if word else (1.0,)))
    return _Atom(start, read.end, signed * scaled, shared, read, bool(ish or found["couple"]))


def _ratio(text: str, found: re.Match[str]) -> _Atom | None:
    """Half, twice, fourfold: a ratio; with half a byte, so much of that unit."""
    end, times = found.end(), units.unit("x")
    if found["fold"]:
        return _Atom(found.start(), end, _value(found), (1.0,), Read(times, end))
    part = found["part"].lower()
    if " " in part and "quarter" not in part and not _OF.match(text, end):
        return None  # "a third option"
    value, followed = spoken.PARTS[part], _OF_A.match(text, end)
    if followed:
        read, scaled = units.read(text, followed.end()), WORD_FACTORS.get(followed[1] or "", 1.0)
        if not read.problem and (followed[1] or read.unit != BARE):
            return _Atom(found.start(), read.end, value * scaled, (scaled,), read)
    return _Atom(found.start(), end, value, (1.0,), Read(times, end))


def _value(found: re.Match[str]) -> float:
    if not found["digits"]:
        return spoken.value(found["word"]) if found["word"] else 2.0  # a couple
    value = float(re.sub("[,_\u00a0\u202f]", "", found["digits"]) + (found["exponent"] or ""))
    power = found["power"] or (found["raised"] or "1").translate(_RAISED)
    ten = found["ten"] or (found["ten_raised"] or "0").translate(_RAISED)
    try:
        return value ** int(power) * 10.0 ** int(ten)
    except (OverflowError, ZeroDivisionError, ValueError):
        return math.inf


def _scaling(text: str, at: int, digits: bool, value: float) -> tuple[float, int]:
    """The factor of "70B" or "70 billion" behind a number, and where it ends."""
    if digits and (close := _CLOSE.match(text, at)) and not (close[1] == "B" and value >= _EXCESS):
        return DIGIT_FACTORS[close[1]], close.end()
    if apart := _APART.match(text, at):
        return math.prod(WORD_FACTORS[word] for word in re.findall("[a-z]+", apart[0].lower())), apart.end()
    if digits and (counted := _COUNTED.match(text, at)):
        return DIGIT_FACTORS[counted[1]], counted.end()
    return 1.0, at


def _joined(text: str, atoms: Sequence[_Atom | Refused], either: bool) -> list[Quantity | Refused]:
    """Quantities, with "35 to 40 GB" made one."""
    found: list[Quantity | Refused] = []
    rest = list(atoms)
    while rest:
        one = rest.pop(0)
        if isinstance(one, Refused):
            found.append(one)
            continue
        low, high, unit, end = one.value, one.value, one.read.unit, one.end
        if rest and isinstance(rest[0], _Atom) and (both := _range(text, one, rest[0], either)):
            low, high, unit = both
            end = rest.pop(0).end
        about = one.approximate or bool(
            _ABOUT.search(text, max(0, one.start - 20), one.start) or _OR_SO.match(text, end)
        )
        found.append(Quantity(low, high, unit.name, one.start, end, text[one.start : end], about))
    return found


def _range(text: str, one: _Atom, two: _Atom, either: bool) -> tuple[float, float, Unit] | None:
    """Low, high and unit of two numbers that are a range; None for two numbers that are none."""
    between = text[one.end : two.start]
    spread = _GIVE_OR_TAKE.fullmatch(between)
    pair = _AND.fullmatch(between) and _BETWEEN.search(text, max(0, one.start - 40), one.start)
    choice = _OR.fullmatch(between)
    if not (spread or pair or _TO.fullmatch(between) or (choice and either)):
        return None
    first, second = one.read.unit, two.read.unit
    if second == BARE:
        second = first
    elif not two.read.counted and first != BARE:  # $3 to 4 per million tokens
        second = units.unit(first.name + second.name)
    if first == BARE or second.name.startswith(f"{first.name}/"):
        first = second
    if first.dimension != second.dimension or ("bit" in first.name) != ("bit" in second.name):
        return None
    # In "1 to 2 million" the first number is meant in millions, too; in "fifty to two hundred" it is not.
    shares = one.shared[-1] == 1 and one.read.unit == BARE and abs(one.value) < 1000
    for factor in (*two.shared, *([1.0] if two.shared[-1] <= 1000 else [])) if shares else (1.0,):
        low, high = one.value * factor * first.factor / second.factor, two.value
        if spread:
            low, high = low - high, low + high
        if low < high and not (choice and not _neighbours(low, high)):
            return low, high, second
    return None


def _neighbours(low: float, high: float) -> bool:
    """Whether "or" between two numbers says about: 3 and 4, 30 and 40, 35 and 40, but not 4 and 8."""
    gap = high - low
    return (
        low > 0 and f"{gap:.3e}"[:5] in ("1.000", "5.000") and math.isclose(low / gap, round(low / gap), rel_tol=1e-6)
    )


def _measured(unit: Unit) -> str:
    return unit.dimension or "without a unit"
