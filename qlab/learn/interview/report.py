"""What every front says of a score, in words."""

from __future__ import annotations

import re

from qlab.deploy.claims import claim

from .scenario import LEVELS, Falsehood, Point, Scenario
from .score import Found, Judged

TOP = LEVELS[-1]  # what is missing there is missed by nobody


def instead(scenario: Scenario, flag: Falsehood) -> str:
    """What is true in place of a falsehood, from the ledger or the scenario."""
    if flag.claim is None:
        return scenario.shown(flag.instead or "")
    judged = claim(flag.claim)
    better = f" Say instead: {judged.instead}" if judged.instead else ""
    return f"{flag.claim} of the claim ledger, “{judged.claim.says}”, is {judged.verdict}.{better}"


def repair(judged: Judged) -> str:
    """The lesson and the exercise that mend a criterion."""
    where = judged.criterion.repair
    lesson = f"lesson {where.lesson}"
    return f"{lesson}, exercise {where.exercise}" if where.exercise else lesson


def brief(scenario: Scenario, point: Point) -> str:
    """What a point is, without the small print for whoever labels answers."""
    found = re.match(r"(?:[^;(]|\([^)]*\))*", scenario.shown(point.says))
    return found[0].strip() if found else ""


def said(judged: Judged) -> dict[str, list[Found]]:
    """What was found, by the words that were quoted for it."""
    quotes: dict[str, list[Found]] = {}
    for found in judged.found:
        quotes.setdefault(found.quote.text, []).append(found)
    return quotes


def credit(scenario: Scenario, found: Found) -> str:
    """What the words that were quoted show, and how they count."""
    notes = ["Offered as a guess."] * (not found.quote.firm) + ["Only after the follow-up."] * found.prompted
    return " ".join([f"It {brief(scenario, found.point)}.", *notes])


def lack(scenario: Scenario, judged: Judged, point: Point) -> str:
    """What a sentence does that would have earned a point; it completes "a sentence that …"."""
    spare = " (not needed for level 4)" * (judged.level == TOP)
    return f"{brief(scenario, point)}{spare}"


def short(text: str, limit: int = 220) -> str:
    """A quote on one line, cut between words."""
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else f"{flat[:limit].rsplit(' ', 1)[0]} …"


def minutes(seconds: float) -> str:
    """3:07"""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
