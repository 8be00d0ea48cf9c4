"""What a claim of the ledger is, what it is judged by, and the register that holds all of them.

A claim is a popular sentence in our own words, with the places in the course's source texts where it is made. A
function judges it: from assumptions it computes numbers, and from the numbers a verdict. The verdict that is written
beside the claim is what a test expects, no more: other assumptions or other data may lead to another one. Sentences are
templates that the numbers fill, so no number stands in a sentence that a function can give. The sentence to say instead
is written for the verdict on record; where another one follows, it is not filled with numbers that contradict it.

    true          it holds wherever it was tried
    conditional   it holds in some cases and not in others; `instead` says in which
    false         it holds in none
    contested     sources disagree, or nothing was found or named from which it could be decided
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from ..results import result
from .assumptions import Assumptions

Verdict = Literal["true", "conditional", "false", "contested"]
VERDICTS: tuple[Verdict, ...] = ("true", "conditional", "false", "contested")
NONE_FOUND = "none found"  # as a reference: somebody looked for a source, and there was none
_PLACE = re.compile(r"00[0-4]:[1-9]\d*(-[1-9]\d*)?")
_ID = re.compile(r"[cC]?(\d{1,3})")


def as_verdict(text: object, name: str = "verdict") -> Verdict:
    """The verdict that somebody wrote: in any case, and "true only if" for conditional, as the lesson's buttons say.

    Raises:
        ValueError: it is none of the four; the message begins with `name`.
    """
    written = " ".join(str(text).casefold().replace("_", " ").strip(" .…").split())
    for verdict in VERDICTS:
        if written in (verdict, "true only if" if verdict == "conditional" else verdict):
            return verdict
    raise ValueError(f"{name}: got {text!r}; choose from {', '.join(VERDICTS)}; 'true only if' is conditional")


@dataclass(frozen=True)
class Evidence:
    """What a claim's function found.

    Args:
        verdict: that follows from the numbers.
        because: one or two sentences; a template that `numbers` and the assumptions fill: "{tokens:,} tokens".
        numbers: by name, in the unit that the sentence says; texts where the finding is a name.
        by: "computed" from specs and arithmetic, or "cited" where published results or statements decide.
        cites: ids of rows of `qlab.deploy.results`.
        references: other sources in words (a support table, a paper); (NONE_FOUND,) where a search found nothing.
    """

    verdict: Verdict
    because: str
    numbers: Mapping[str, float | str]
    by: Literal["computed", "cited"] = "computed"
    cites: tuple[str, ...] = ()
    references: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.verdict not in VERDICTS:
            raise ValueError(f"verdict: got {self.verdict!r}; choose from {', '.join(VERDICTS)}")
        if self.by not in ("computed", "cited"):
            raise ValueError(f"by: got {self.by!r}; choose from computed, cited")
        if self.by == "cited" and not (self.cites or self.references):
            raise ValueError("cites: got none for a verdict that sources decide; name rows, references or NONE_FOUND")


@dataclass(frozen=True)
class Claim:
    """A popular claim, and the function that judges it. `verdict` is what that function is expected to find.

    Raises:
        ValueError: the verdict is none of the four.
    """

    id: str
    section: str
    sources: tuple[str, ...]
    says: str
    verdict: Verdict
    instead: str
    function: Callable[[Assumptions], Evidence]

    def __post_init__(self) -> None:
        object.__setattr__(self, "verdict", as_verdict(self.verdict))

    def judge(self, given: Assumptions) -> Judged:
        """The claim under these assumptions."""
        return Judged(self, given, self.function(given))


@dataclass(frozen=True)
class Judged:
    """A claim under certain assumptions: the evidence, and the sentences with their numbers in."""

    claim: Claim
    given: Assumptions
    evidence: Evidence

    @property
    def id(self) -> str:
        """ "C001" to "C126"."""
        return self.claim.id

    @property
    def verdict(self) -> Verdict:
        """What follows from the evidence."""
        return self.evidence.verdict

    @property
    def flipped(self) -> bool:
        """Whether the evidence leads to another verdict than the one that is on record."""
        return self.verdict != self.claim.verdict

    @property
    def because(self) -> str:
        """Why, with the numbers."""
        return self._fill(self.evidence.because)

    @property
    def instead(self) -> str | None:
        """What to say in place of the claim, with the numbers; None where the verdict is not the one on record.

        The sentence was written for the verdict on record. Filled with the numbers of another one, it may be wrong.
        """
        return None if self.flipped else self._fill(self.claim.instead)

    def _fill(self, template: str) -> str:
        values = {one.name: getattr(self.given, one.name) for one in fields(self.given)}
        text = template.format(**{**values, **self.evidence.numbers})
        return re.sub(r"(\d)%", r"\1 %", text)  # a format such as .1% leaves no space

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings; rows of published results come with their sources."""
        return {
            "id": self.id,
            "section": self.claim.section,
            "says": self.claim.says,
            "made_in": list(self.claim.sources),
            "verdict": self.verdict,
            "verdict_on_record": self.claim.verdict,
            "decided_by": self.evidence.by,
            "because": self.because,
            "instead": self.instead,
            "numbers": dict(self.evidence.numbers),
            "cites": [{"id": row, "source": result(row).source} for row in self.evidence.cites],
            "references": list(self.evidence.references),
            "function": f"{self.claim.function.__module__}.{self.claim.function.__name__}",
        }

    def __str__(self) -> str:
        decided = f"{self.verdict.upper()}, {self.evidence.by}"
        if self.flipped:
            decided += f"; on record: {self.claim.verdict}"
        lines = [
            f"{self.id}  {self.claim.says}",
            f"      Made in {places(self.claim.sources)}.",
            f"      {decided}. {self.because}",
        ]
        usual = self.claim.judge(Assumptions()).instead if self.flipped else None
        if self.instead:
            lines.append(f"      Say instead: {self.instead}")
        elif usual:
            lines.append(f"      Under the assumptions on record, say instead: {usual}")
        lines += [f"      Source: {text}" for text in (*self._origins(), *self.evidence.references)]
        return "\n".join(lines)

    def _origins(self) -> list[str]:
        """The sources of the rows, each once, with the ids of its rows."""
        rows: dict[str, list[str]] = {}
        for row in self.evidence.cites:
            rows.setdefault(result(row).source, []).append(row)
        named = {
            source: ", ".join(ids[:3]) + (f" and {len(ids) - 3} more" if ids[3:] else "")
            for source, ids in rows.items()
        }
        return [f"{source} [{ids}]" for source, ids in named.items()]


def places(sources: Iterable[str]) -> str:
    """Places in the source texts, in words: ("001:49", "003:6") are "text 1, line 49; text 3, line 6"."""
    parts = (source.split(":") for source in sources)
    return "; ".join(f"text {int(text)}, line{'s' if '-' in lines else ''} {lines}" for text, lines in parts)


_CLAIMS: dict[str, Claim] = {}


def claim(
    id: str, *, sources: tuple[str, ...], says: str, verdict: Verdict, instead: str
) -> Callable[[Callable[[Assumptions], Evidence]], Callable[[Assumptions], Evidence]]:
    """Enter a claim in the register, with the decorated function as its judge.

    Args:
        id: "C001" to "C126".
        sources: where it is made: "001:49" is text 1, line 49; "000:99-100" are two lines.
        says: the claim in our own words.
        verdict: what the function is expected to find under the default assumptions.
        instead: what to say in its place; a template that the numbers of the evidence and the assumptions fill.

    Raises:
        ValueError: the id is taken, a source has another form, or the verdict is none.
    """

    def enter(function: Callable[[Assumptions], Evidence]) -> Callable[[Assumptions], Evidence]:
        if id in _CLAIMS:
            raise ValueError(f"claim: {id} is taken by {_CLAIMS[id].function.__name__}; choose another id")
        wrong = [source for source in sources if not _PLACE.fullmatch(source)]
        if wrong or not sources:
            raise ValueError(f"sources: {id} has {', '.join(wrong) or 'none'}; give text and line, such as '001:49'")
        section = function.__module__.rpartition(".")[2]
        _CLAIMS[id] = Claim(id, section, sources, says, verdict, instead, function)
        return function

    return enter


def register() -> dict[str, Claim]:
    """All claims that were entered, by id and in the order of their ids."""
    return dict(sorted(_CLAIMS.items()))


def find(id: str) -> Claim:
    """The claim with that id: "C021", "c21" and "21" are the same. Raises ValueError if there is none."""
    number = _ID.fullmatch(str(id).strip())
    known = f"C{int(number[1]):03}" if number else ""
    if known not in _CLAIMS:
        raise ValueError(f"claim: got {id!r}; give {min(_CLAIMS)} to {max(_CLAIMS)}, such as C021")
    return _CLAIMS[known]


def over(*cases: bool) -> Verdict:
    """The verdict over the cases that a claim was tried on: true in all of them, in some, or in none."""
    return "true" if all(cases) else "conditional" if any(cases) else "false"


def room(gb: float, digits: int = 1) -> str:
    """What is left of a memory, in words: 4.03 is "4.03 GB are left", -16.4 is "16.4 GB are missing"."""
    return f"{abs(gb):.{digits}f} GB are {'left' if gb >= 0 else 'missing'}"


def more(share: float) -> str:
    """A change in words: 0.07 is "7 % more", -0.55 is "55 % less"."""
    return f"{abs(share):.0%} {'more' if share >= 0 else 'less'}"


def value(row: str) -> float:
    """The number of a published row. Raises ValueError for a row that has none, or several."""
    found = result(row).value
    if not isinstance(found, int | float):
        raise ValueError(f"result: {row} has the value {found!r}; take one number of it with results.result")
    return found


def change(row: str) -> float:
    """By how many percent a published row is above its baseline; negative below. Raises ValueError without one."""
    ratio = result(row).ratio
    if ratio is None:
        raise ValueError(f"result: {row} has no baseline to compare with")
    return 100 * (ratio - 1)


def said(row: str, pattern: str) -> float:
    """A number that a published row has in words only, in its statement or its note: the first group of `pattern`.

    Raises:
        ValueError: there is no such place in them.
    """
    words = " ".join(filter(None, (result(row).statement, result(row).note)))
    found = re.search(pattern, words)
    if not found:
        raise ValueError(f"result: {row} says {words!r}; nothing in it is like {pattern!r}")
    return float(found[1].replace(",", ""))
