"""The claim ledger: what is said about quantized models and what they cost, with a verdict that a function computes.

    claims()                                     all of them, judged under the default assumptions
    claim("C021")                                one of them
    flips(Assumptions(kv_bits=8))                those whose verdict is another under these assumptions
    Assumptions().set("group_size=64")           assumptions from text, as `qlab claims --set` takes them
    CONTRADICTIONS                               where the source texts contradict each other, and what settles it

Nothing here imports torch: what a claim says of measured numerics is cited, or computed in closed form.
"""

from __future__ import annotations

from . import accuracy, capacity, cost, methods, practice, sizes, speed, support  # noqa: F401  (they enter their claims)
from .assumptions import Assumptions
from .contradictions import CONTRADICTIONS, Contradiction
from .ledger import VERDICTS, Claim, Evidence, Judged, find, register

__all__ = [
    "CONTRADICTIONS",
    "VERDICTS",
    "Assumptions",
    "Claim",
    "Contradiction",
    "Evidence",
    "Judged",
    "claim",
    "claims",
    "flips",
]


def claims(given: Assumptions | None = None) -> list[Judged]:
    """All claims in the order of their ids, judged under `given` (None: the default assumptions)."""
    given = given or Assumptions()
    return [one.judge(given) for one in register().values()]


def claim(id: str, given: Assumptions | None = None) -> Judged:
    """One claim. Raises ValueError if there is none of that id; the message has the nearest ids."""
    return find(id).judge(given or Assumptions())


def flips(given: Assumptions) -> list[Judged]:
    """The claims whose verdict under `given` is another than the one on record."""
    return [one for one in claims(given) if one.flipped]
