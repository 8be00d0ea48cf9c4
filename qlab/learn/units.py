"""Units as people write them, "GB", "tokens per second", "$ per million tokens": what they measure, and how much.

A unit is what is counted, and what it is counted by: memory/time, money/tokens. GB is 10^9 bytes and GiB 2^30; a month
has 730 hours; a user is a request; a weight is a parameter; x and % are both a ratio, 1 and 0.01.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from qlab.deploy.instances import HOURS_PER_MONTH


@dataclass(frozen=True)
class Unit:
    """A unit under its usual name. `factor` leads to the base of its dimension: bytes, seconds, USD, single things."""

    name: str
    dimension: str  # "memory", "memory/time", …; "" for a bare number
    factor: float


BARE = Unit("", "", 1.0)

_TIMES = {
    "ns": (1e-9, "nanosecond"),
    "µs": (1e-6, "microsecond us μs"),
    "ms": (1e-3, "millisecond"),
    "s": (1.0, "second sec"),
    "min": (60.0, "minute mins"),
    "h": (3600.0, "hour hr hrs"),
    "day": (86400.0, ""),
    "month": (3600.0 * HOURS_PER_MONTH, ""),
    "year": (12 * 3600.0 * HOURS_PER_MONTH, "yr"),
}
_COUNTS = {
    "token": "tok toks",
    "request": "req reqs queries user sequence",
    "parameter": "param",
    "weight": "",
    "GPU": "card",
    "layer": "",
    "machine": "instance replica",
    "operation": "op ops FLOP flop FLOPs",
}
_PREFIXES = {  # of 1,000 and of 1,024
    "k": ("kilo", 1e3, 2**10),
    "M": ("mega", 1e6, 2**20),
    "G": ("giga", 1e9, 2**30),
    "T": ("tera", 1e12, 2**40),
}
_SINGLE = {
    "GB": ("memory", 1e9, "gig G"),
    "MB": ("memory", 1e6, "meg"),
    "byte": ("memory", 1.0, "Byte"),
    "bit": ("memory", 1 / 8, ""),
    "bit/weight": ("memory/parameters", 1 / 8, "bpw BPW"),
    "FLOPS": ("operations/time", 1.0, ""),
    "PFLOPS": ("operations/time", 1e15, "pflops"),
    "Mtok": ("tokens", 1e6, "MTok mtok"),
    "token/s": ("tokens/time", 1.0, "tps TPS"),
    "request/s": ("requests/time", 1.0, "qps QPS rps RPS"),
    "USD": ("money", 1.0, "usd US$ $ dollar"),
    "cent": ("money", 0.01, ""),
    "x": ("ratio", 1.0, "× times fold"),
    "%": ("ratio", 0.01, "percent pct"),
    "point": ("points", 1.0, "pp"),
    "dB": ("decibels", 1.0, "db decibel"),
}


def _known() -> Iterator[tuple[str, Unit]]:
    """Spellings and what they mean."""
    for name, (dimension, factor, others) in _SINGLE.items():
        yield from ((spelling, Unit(name, dimension, factor)) for spelling in (name, *others.split()))
    for name, (seconds, others) in _TIMES.items():
        yield from ((spelling, Unit(name, "time", seconds)) for spelling in (name, *others.split()))
    for name, others in _COUNTS.items():
        kind = "parameters" if name == "weight" else f"{name.lower()}s"
        yield from ((spelling, Unit(name, kind, 1.0)) for spelling in (name, name.lower(), *others.split()))
    for letter, (word, decimal, binary) in _PREFIXES.items():
        for name, dimension, factor, others in (
            (f"{letter}B", "memory", decimal, f"{letter.upper()}B {letter.lower()}b {word}byte"),
            (f"{letter}bit", "memory", decimal / 8, f"{letter.lower()}bit {word}bit"),
            (f"{letter.upper()}iB", "memory", float(binary), f"{letter.lower()}ib {word[:2]}bibyte"),
            (f"{letter}bit/s", "memory/time", decimal / 8, f"{letter}bps"),
            (f"{letter}FLOPS", "operations/time", decimal, f"{letter}flops {letter.lower()}flops"),
            (f"{letter}OPS", "operations/time", decimal, f"{letter.lower()}ops"),
            (f"{letter}FLOP", "operations", decimal, ""),
        ):
            yield from ((spelling, Unit(name, dimension, factor)) for spelling in (name, *others.split()))


def _with_plurals() -> dict[str, Unit]:
    found: dict[str, Unit] = dict(_known())
    words = [one for one in found if len(one) >= 3 and one.isalpha() and not one.endswith(("s", "S", "FLOP"))]
    return {f"{word}s": found[word] for word in words} | found


SPELLINGS = _with_plurals()
AMBIGUOUS = {
    "b": "b is bits or billion; write 4 bits, or 4B",
    "m": "m is minutes, meters or million; write 5 min, or 5M",
    "B": "B is bytes or billion; write 4 bytes, or 4B without a space for billion",
    **{f"{c}b": f"{c}b is bits to some and bytes to others; write {c}B or {c}bit" for c in "KMGT"},
    **{f"{c}FLOPs": f"that is a count or a rate; write {c}FLOP, or {c}FLOPS for each second" for c in "MGTP"},
}
DIGIT_FACTORS = {"k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "bn": 1e9, "T": 1e12}  # directly behind digits
WORD_FACTORS = {"hundred": 1e2, "thousand": 1e3, "million": 1e6, "billion": 1e9, "trillion": 1e12}

MASK = "\ufffc"  # what stands for the letters of a name that holds no number
GAP = "[ \u00a0\u2009\u202f\n]"
_OPENING = re.compile(rf"{GAP}?-?")
_NAME = re.compile(  # "90 G operations" are no GB
    r"percentage points?|per cent|US\$|(?!G[ ](?:op|FLOP|flop|MAC|param|weight|tok))[A-Za-zµμ]+|[%×$]"
)
_PRODUCT = re.compile(rf"\s*(?:\.?\d|[$(]|{MASK}|[A-Z]\w*\d)")  # behind an x: it multiplies what follows
_PER = re.compile(
    rf"(?:\s*(?P<slash>/)\s*|\s+per\s+|\s+(?P<a>an?)\s+|(?<!.)/)(?P<many>\d[\d,]*(?:e\+?\d+)?)?{GAP}?"
    rf"(?:(?P<factor>[kKMB]|million|thousand|billion)(?![A-Za-z]))?{GAP}?(?P<name>[A-Za-zµμ]+)"
)


@dataclass(frozen=True)
class Read:
    """A unit that was read, where it ends, and whether it names what is counted, as "per second" does not.

    `problem` says why it was not read: it can be taken in two ways.
    """

    unit: Unit
    end: int
    counted: bool = True
    problem: str = ""


def read(text: str, at: int, money: bool = False, name_only: bool = False) -> Read:
    """The unit that begins at a place in a text, behind at most a space and a hyphen; `BARE` if there is none.

    Args:
        money: whether a currency stood before the number, so that only "per hour" can follow.
        name_only: whether the text is the name of a unit. In others a number behind a slash begins the next quantity,
            as in "16 GB/2 TB/s", but for prices: $3/1M tokens.
    """
    counted, end = (SPELLINGS["USD"], at) if money else (None, at)
    opening = _OPENING.match(text, at)
    name = None if money else _NAME.match(text, opening.end() if opening else at)
    if name and not re.match(r"\w", text[name.end() : name.end() + 1]):
        if name[0] in AMBIGUOUS and not (name[0] == "B" and _PER.match(text, name.end())):
            return Read(BARE, name.end(), problem=AMBIGUOUS[name[0]])
        counted = _meaning(name[0])
        if counted == SPELLINGS["x"] and _PRODUCT.match(text, name.end()):
            counted = None
        end = name.end() if counted else at
    unit = counted or BARE
    while by := _PER.match(text, end):
        if by["slash"] and by["many"] and not (name_only or unit.dimension == "money"):
            break
        below = _meaning(by["name"])
        if not below or "/" in below.dimension or (by["a"] and (below.dimension != "time" or not counted)):
            break
        unit = _divided(unit, below, float((by["many"] or "1").replace(",", "")) * _factor(by["factor"]))
        end = by.end()
    return Read(unit, end, counted is not None)


@cache
def unit(name: str) -> Unit:
    """A unit as people write it: "GB", "tokens per second", "USD/million tokens"; "" is a bare number.

    Raises:
        ValueError: there is no such unit, or the name can be read in two ways.
    """
    stripped = name.strip()
    if not stripped:
        return BARE
    found = read(stripped, 0, name_only=True)
    if found.problem:
        raise ValueError(f"unit: got {name!r}; {found.problem}")
    if found.unit == BARE or found.end != len(stripped):
        raise ValueError(f"unit: got {name!r}; known are {', '.join(sorted({u.name for u in SPELLINGS.values()}))}")
    return found.unit


def _meaning(name: str) -> Unit | None:
    special = {"B": "byte", "percentage point": "point", "percentage points": "point", "per cent": "%"}
    spelling = special.get(name, name)
    return SPELLINGS.get(spelling) or SPELLINGS.get(spelling.lower())


def _divided(above: Unit, below: Unit, many: float) -> Unit:
    if below == SPELLINGS["Mtok"]:  # one name for one thing
        below, many = SPELLINGS["token"], 1e6 * many
    of = "" if many == 1 else next((f"{word} " for word, f in WORD_FACTORS.items() if f == many), f"{many:.16g} ")
    name = f"{above.name}/{of}{below.name}{'s' if of and below.name in _COUNTS else ''}"
    return Unit(name, f"{above.dimension}/{below.dimension}", above.factor / (many * below.factor))


def _factor(word: str | None) -> float:
    return 1.0 if not word else DIGIT_FACTORS.get(word) or WORD_FACTORS[word]
