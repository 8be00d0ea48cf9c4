"""Numbers in words, as people say them: "a hundred and fifty", "fifteen hundred", "four point one", "two fifths".

    value("a thousand and twenty-four")     1024
    value("three point three five")         3.35
    shared("seven hundred thousand")        (100000, 1000): in "five to seven hundred thousand" five may mean either

Cardinals end below a million: "two hundred million" is "two hundred" and its factor, which `quantities` reads.
"""

from __future__ import annotations

import re

_ONES = "one two three four five six seven eight nine".split()
_TEENS = "ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_VALUES = {word: number for number, word in enumerate(["zero", *_ONES, *_TEENS])}
_VALUES |= {ten: 10 * number for number, ten in enumerate(_TENS, 2)} | {"oh": 0, "a": 1, "an": 1, "and": 0}

_ONE = f"(?:{'|'.join(_ONES)})"
_SMALL = f"(?:(?:{'|'.join(_TENS)})(?:[- ]{_ONE})?|{'|'.join(_TEENS)}|{_ONE})"  # 1 to 99


def _tail(number: str, never: str) -> str:
    """ "and fifty" or "fifty" behind a hundred: no number of its own as in "two hundred four-bit weights"."""
    own = f"[- ]{number}(?!-(?!ish|odd|fold))"
    return rf"(?:(?:[- ]and[- ]{number}|{own})(?![A-Za-z]|[- ](?:{never})\b))?"


_HUNDRED = f"[- ]hundred{_tail(_SMALL, 'hundred')}"
_BELOW_THOUSAND = f"(?:{_ONE}{_HUNDRED}|{_SMALL})"
_THOUSAND = f"[- ]thousand{_tail(_BELOW_THOUSAND, 'hundred|thousand')}"
_CARDINAL = f"(?:(?:{_SMALL}|a){_HUNDRED}|{_SMALL}|a(?=[ ]thousand))(?:{_THOUSAND})?"
_DECIMALS = f"[ ]point(?:[ ](?:oh|zero|{_SMALL}))+"
_ZERO = rf"zero(?:{_DECIMALS}|(?![ ]point\b))"  # "a scale and a zero point" counts no points
# A pattern for re.IGNORECASE. It may end inside a word, six of sixth: look behind it.
NUMBER = f"(?:{_CARDINAL}(?:{_DECIMALS})?|{_ZERO})"


def value(words: str) -> float:
    """What a text that `NUMBER` matches comes to; "a" is 1."""
    whole, _, decimals = words.lower().partition(" point ")
    thousands = rest = 0
    for word in re.split("[- ]", whole):
        if word == "thousand":
            thousands, rest = 1000 * rest, 0
        elif word == "hundred":
            rest *= 100
        else:
            rest += _VALUES[word]
    digits = "".join(str(int(value(one))) for one in re.findall(f"{_SMALL}|oh|zero", decimals))  # "one twenty-five" 125
    return float(f"{thousands + rest}.{digits or 0}")


def shared(words: str) -> tuple[float, ...]:
    """By what a number before "to" may be multiplied, the largest first: in "five to seven hundred" by 100 or 1."""
    spaced = words.lower().replace("-", " ")
    thousand = 1e3 if spaced.endswith("thousand") else 1.0
    return (100 * thousand, thousand) if spaced.removesuffix(" thousand").endswith("hundred") else (thousand,)


# So much as a ratio, or of the unit that follows: "half a byte", "two tenths of a second".
PARTS = {"half": 0.5, "twice": 2.0, "double": 2.0, "doubles": 2.0, "triple": 3.0}
_DENOMINATORS = {"third": 3, "quarter": 4, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10}
_DENOMINATORS |= {"sixteenth": 16, "twentieth": 20, "hundredth": 100, "thousandth": 1000}
PARTS |= {f"{one} {part}": 1 / many for part, many in _DENOMINATORS.items() for one in ("a", "an", "one")}
PARTS |= {f"{word} {part}s": _VALUES[word] / many for part, many in _DENOMINATORS.items() for word in _ONES[1:]}
PART = "|".join(sorted(PARTS, key=len, reverse=True)).replace(" ", "[ ]")

_AND = {"a half": 0.5, "a quarter": 0.25, "three quarters": 0.75}
AND_A_HALF = rf"[ ]and[ ](?P<more>{'|'.join(_AND).replace(' ', '[ ]')})\b(?![ ](?:of|the)\b)"
_AND_A_HALF = re.compile(AND_A_HALF, re.IGNORECASE)


def and_a_half(text: str, at: int) -> tuple[float, int]:
    """What the "and a half" at this place of a text adds to the number before, 0 without one; and where it ends."""
    found = _AND_A_HALF.match(text, at)
    return (_AND[found["more"].lower()], found.end()) if found else (0.0, at)
