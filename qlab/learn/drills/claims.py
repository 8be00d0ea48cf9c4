"""Drills on what is said about quantized models: the false claim among true ones, and the other way round.

Claims and verdicts are those of the ledger (`qlab.deploy.claims`), judged when the drill is drawn: if a price or an
assumption changes a verdict, the drill changes with it. Left out are claims that lean on the text they are from, and
those that are a matter of taste.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from .kind import Drill, Kind, shuffled

if TYPE_CHECKING:
    from qlab.deploy.claims import Judged

_LESSON = "13_claims_audit"
# "Both need …": of whom? "A serious amount", "industry", "technically", "is the standard": how would you be wrong?
_LEANING = ("C009", "C019", "C097", "C098", "C105", "C115", "C124")
_PREFACE = "A 70B is Llama-3-70B; prices are those of AWS on demand."


@cache
def _ledger() -> tuple[Judged, ...]:
    from qlab.deploy.claims import claims  # takes a moment, and the list of kinds does not need it

    return tuple(one for one in claims() if one.id not in _LEANING)


def _with(verdict: str, section: str | None = None) -> list[Judged]:
    return [one for one in _ledger() if one.verdict == verdict and section in (None, one.claim.section)]


def _odd_one_out(rng: random.Random, level: int, odd: str, others: str) -> Drill | None:
    """One claim of a verdict among three of another; at level 2 as many as possible on the same subject."""
    right = rng.choice(_with(odd))
    same = _with(others, right.claim.section)
    rest = [one for one in _with(others) if one not in same]
    near = rng.sample(same, min(3, len(same))) if level == 2 else []
    wrong = near + rng.sample(rest, 3 - len(near))
    if level == 2 and not near:
        return None
    choices = shuffled(rng, [one.claim.says for one in (right, *wrong)])
    letters = {choice: "ABCD"[number] for number, choice in enumerate(choices)}
    return Drill(
        f"{_PREFACE} One of these claims is {odd}; the others are {others}. Which is the {odd} one?",
        right.claim.says,
        (
            *(
                f"{letters[one.claim.says]} is {one.verdict} ({one.id}): {one.because}"
                for one in _in_order(choices, wrong)
            ),
            f"{letters[right.claim.says]} is {right.verdict} ({right.id}): {right.because}",
            f"Say instead: {right.instead}" if odd == "false" else f"You can say: {right.instead}",
            f"The {odd} one: {letters[right.claim.says]}) {right.claim.says}",
        ),
        choices=choices,
    )


def _in_order(choices: Sequence[str], judged: Sequence[Judged]) -> list[Judged]:
    return sorted(judged, key=lambda one: choices.index(one.claim.says))


def _false(rng: random.Random, level: int) -> Drill | None:
    return _odd_one_out(rng, level, "false", "true")


def _true(rng: random.Random, level: int) -> Drill | None:
    return _odd_one_out(rng, level, "true", "false")


_VERDICTS = {"true": "true", "conditional": "true only under conditions", "false": "false"}


def _verdict(rng: random.Random, level: int) -> Drill | None:
    """One claim, computed and not a matter of what was published: which verdict has it?"""
    wanted = rng.choice(("true", "false") if level == 1 else ("true", "conditional", "false"))
    found = rng.choice([one for one in _with(wanted) if one.evidence.by == "computed"])
    choices = tuple(_VERDICTS.values()) if level == 2 else ("true", "false")
    right = _VERDICTS[found.verdict]
    return Drill(
        f"{_PREFACE} True is what holds wherever it is tried, false what holds nowhere. What is this claim? "
        f"“{found.claim.says}”",
        right,
        (
            f"What the numbers say ({found.id}): {found.because}",
            f"Say instead: {found.instead}",
            f"So the claim is {'ABC'[choices.index(right)]}) {right}",
        ),
        choices=choices,
    )


KINDS = (
    Kind("claims.false", "the false claim among true ones", _LESSON, _false, levels=(1, 2)),
    Kind("claims.true", "the true claim among false ones", _LESSON, _true, levels=(1, 2)),
    Kind("claims.verdict", "the verdict on a claim", _LESSON, _verdict, levels=(1, 2)),
)
