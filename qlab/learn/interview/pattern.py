"""The notation of what may be said: phrases and patterns.

A *phrase* is a run of words, compared by their stems, so that `unpack` finds "unpacked" and "unpacking":

    back to 16 bit           these, one after the other; a hyphen is a space
    read|load weight         either of two words, then the next
    multipl*                 a word that begins so;  =times is this very word, and not "time"
    read .. weight           up to five words between
    @bits4                   a concept: any of its phrases in concepts.yaml, or in the scenario's own `concepts`
    #weights_4               a quantity that agrees with this number of the scenario
    #memory                  any quantity of this dimension: memory, time, money, ratio, tokens, requests, ...
    +fit                     said and not denied
    !fit                     denied: "does not fit"
    -decode                  not in the sentence at all

Alternatives of several words need a concept, or " / " (see below): `a b|c d` is a, then b or c, then d.

A *pattern* is phrases joined by " & ", all of which stand in one sentence; with "~2" at the end, in two that follow
each other. Where " / " stands between phrases, one of them is enough:

    unpack / dequant* / convert .. 16 bit & time / cost / !free
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from .sentences import stem
from .words import NEGATIVE

DIMENSIONS = ("memory", "time", "money", "ratio", "tokens", "requests", "machines", "GPUs", "points", "operations")

Steps = tuple[tuple[str, ...], ...]  # alternatives for each word; () is a gap


@dataclass(frozen=True)
class Phrase:
    """`sign` is "+", "!", "-" or ""; `number` is set for a quantity, else `steps`: the words that fit, () for a gap."""

    sign: str
    number: str = ""
    steps: Steps = ()

    @property
    def negative(self) -> bool:
        """Whether it has a negation of its own: "not memory bound"."""
        return any(word in NEGATIVE for step in self.steps for word in step)


@dataclass(frozen=True)
class Pattern:
    """Of each group one phrase has to stand in so many neighbouring sentences; of `never` none may."""

    groups: tuple[tuple[Phrase, ...], ...]
    never: tuple[Phrase, ...]
    within: int = 1


@cache
def parse(text: str) -> Pattern:
    """A pattern from its notation.

    Raises:
        ValueError: a phrase is empty, or begins or ends with a gap; the number of sentences is none; nothing is asked.
    """
    joined, _, within = text.partition("~")
    groups = [tuple(map(phrase, one.split("/"))) for one in joined.split("&")]
    never = tuple(one for group in groups for one in group if one.sign == "-")
    asked = tuple(group for group in groups if not set(group) & set(never))
    if not asked or sum(len(group) for group in groups) != sum(map(len, asked)) + len(never):
        raise ValueError(f"pattern: got {text!r}; ask for something, and let phrases with - stand alone between &")
    return Pattern(asked, never, int(within or 1))


@cache
def phrase(text: str) -> Phrase:
    """A phrase from its notation. Raises ValueError if it has no word, or a sign or a gap where none can be."""
    text = text.strip()
    sign = text[:1] if text[:1] in ("+", "!", "-") else ""
    body = text[len(sign) :].strip()
    if body.startswith("#"):
        return Phrase(sign, number=body[1:])
    words = body.replace("-", " ").split()
    steps = tuple(map(_step, words))
    if not steps or not steps[0] or not steps[-1] or any(word[0] in "+!#" for word in words):
        raise ValueError(
            f"phrase: got {text!r}; write words and @concepts, .. only between them, a sign only at the beginning, "
            "and #number alone"
        )
    return Phrase(sign, steps=steps)


def _step(word: str) -> tuple[str, ...]:
    if word == "..":
        return ()
    return tuple(one if one[0] in "@=" or one.endswith("*") else stem(one) for one in word.split("|") if one)
