"""Vote, then see: a ballot over claims of the ledger, and each vote beside the verdict.

The widget only collects votes. What is said about them comes from `compare` and `scores`, which know nothing of
widgets; where nobody votes, as in a test or on a page without a kernel, the verdicts are printed all the same.
"""

from __future__ import annotations

import html
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import ipywidgets as widgets

from qlab.deploy.claims import Judged
from qlab.deploy.claims.ledger import Verdict, as_verdict

WORDS: dict[Verdict, str] = {
    "true": "true",
    "conditional": "true only if …",
    "false": "false",
    "contested": "contested",
}
AS_THE_LEDGER = "as the ledger"
WIDTH = 110  # columns of printed text
_HOLDS: tuple[Verdict, ...] = ("false", "conditional", "true")  # from nowhere to everywhere


def compare(vote: Verdict | None, verdict: Verdict) -> str:
    """A vote beside the verdict, in words: the same, too much or too little believed, or a matter of being open."""
    if vote is None:
        return "no vote yet"
    if vote == verdict:
        return AS_THE_LEDGER
    if verdict == "contested":
        return "you settled what is open"
    if vote == "contested":
        return "you left open what can be decided"
    return f"you believed {'more' if _HOLDS.index(vote) > _HOLDS.index(verdict) else 'less'} than holds"


@dataclass(frozen=True)
class Score:
    """The votes on the claims of one section: how many there are, and how often each remark of `compare` was made."""

    section: str
    claims: int
    voted: int
    remarks: Mapping[str, int]

    @property
    def right(self) -> int:
        """Votes that are the ledger's verdict."""
        return self.remarks.get(AS_THE_LEDGER, 0)

    def __str__(self) -> str:
        if not self.voted:
            return f"no votes yet on {self.claims} claim{'s' * (self.claims != 1)}"
        missing = self.claims - self.voted
        parts = [f"{self.right} of {self.voted} {AS_THE_LEDGER}"]
        parts += [f"{remark}: {count}" for remark, count in self.remarks.items() if remark != AS_THE_LEDGER]
        return "; ".join(parts + [f"not voted: {missing}"] * bool(missing))


def scores(sections: Mapping[str, Mapping[str, Verdict]], votes: Mapping[str, Verdict | None]) -> list[Score]:
    """One score for each section, and a last one, "all", over the whole ballot.

    Args:
        sections: by name, the verdicts of its claims by id.
        votes: by id; None or absent where nobody voted.
    """
    everything = {id: verdict for verdicts in sections.values() for id, verdict in verdicts.items()}
    return [_score(name, verdicts, votes) for name, verdicts in {**sections, "all": everything}.items()]


def _score(name: str, verdicts: Mapping[str, Verdict], votes: Mapping[str, Verdict | None]) -> Score:
    cast = {id: vote for id in verdicts if (vote := votes.get(id)) is not None}
    remarks = Counter(compare(vote, verdicts[id]) for id, vote in cast.items())
    return Score(name, len(verdicts), len(cast), dict(remarks.most_common()))


class Ballot(widgets.VBox):
    """Claims by section, each above four buttons. Made by `ballot`.

    Attributes:
        sections: the judged claims by the name of their section.
        buttons: id of a claim to the `widgets.ToggleButtons` that takes the vote.
    """

    def __init__(self, sections: Mapping[str, Sequence[Judged]]) -> None:
        self.sections = {name: tuple(judged) for name, judged in sections.items()}
        self.buttons: dict[str, widgets.ToggleButtons] = {}
        rows: list[widgets.Widget] = []
        for name, judged in self.sections.items():
            rows.append(widgets.HTML(f'<h4 style="margin: 0.5em 0 0">{html.escape(name)}</h4>'))
            for one in judged:
                self.buttons[one.id] = widgets.ToggleButtons(
                    options=[(word, verdict) for verdict, word in WORDS.items()],
                    value=None,
                    tooltips=[f"{one.id}: {word}" for word in WORDS.values()],
                    style={"button_width": "16ch"},
                )
                rows += [widgets.HTML(f"<b>{one.id}</b> {html.escape(one.claim.says)}"), self.buttons[one.id]]
        super().__init__(children=rows)

    @property
    def votes(self) -> dict[str, Verdict | None]:
        """The votes by id, as the buttons stand now; None where there is none."""
        return {id: button.value for id, button in self.buttons.items()}

    def cast(self, **votes: str | None) -> None:
        """Vote from code: `cast(C004="true only if")`, in any case; "conditional" is the same. None takes a vote back.

        Raises:
            ValueError: a claim is not on this ballot, or a vote is none of the four verdicts. Nothing is cast then.
        """
        read: dict[str, Verdict | None] = {}
        for asked, vote in votes.items():
            id = asked.upper()
            if id not in self.buttons:
                raise ValueError(f"cast: {asked} is not on this ballot; choose from {', '.join(self.buttons)}")
            read[id] = None if vote is None else as_verdict(vote, id)
        for id, verdict in read.items():
            self.buttons[id].value = verdict

    def show(self, section: str) -> None:
        """Print the verdicts of one section beside the votes: why, and what to say instead.

        Raises:
            ValueError: there is no such section.
        """
        if section not in self.sections:
            raise ValueError(f"section: got {section!r}; choose from {', '.join(self.sections)}")
        print("\n\n".join(_shown(one, self.votes[one.id]) for one in self.sections[section]))

    def score(self) -> None:
        """Print the votes counted by section."""
        verdicts = {name: {one.id: one.verdict for one in judged} for name, judged in self.sections.items()}
        found = scores(verdicts, self.votes)
        width = max(len(one.section) for one in found)
        print("\n".join(f"{one.section:{width}}  {one}" for one in found))

    def __repr__(self) -> str:
        # What a committed notebook holds of the widget, and what readers without a kernel see: the whole ballot.
        lines = []
        for name, judged in self.sections.items():
            lines += [name, *(_indented(f"{one.id}  {one.claim.says}", 2, 8) for one in judged)]
        return "\n".join([*lines, f"Each is {', '.join(WORDS.values())}."])


def ballot(sections: Mapping[str, Sequence[Judged]]) -> Ballot:
    """A ballot over judged claims: `ballot({"memory": [claim("C004"), claim("C031")]})`.

    Raises:
        TypeError: something else than lists of judged claims by section.
        ValueError: no section, an empty one, one that is called "all", or a claim that stands there twice.
    """
    form = "give claims by section, {'memory': [claim('C004')]}"
    if not isinstance(sections, Mapping):
        raise TypeError(f"sections: got {type(sections).__name__}; {form}")
    for name, judged in sections.items():
        if not isinstance(judged, list | tuple) or not all(isinstance(one, Judged) for one in judged):
            raise TypeError(f"sections: what stands under {name!r} is no list of judged claims; {form}")
    ids = [one.id for judged in sections.values() for one in judged]
    twice = [id for id, count in Counter(ids).items() if count > 1]
    if twice:
        raise ValueError(f"sections: got {', '.join(twice)} more than once; a claim takes one vote")
    if not sections or not all(sections.values()):
        raise ValueError("sections: got an empty one, or none; give each at least one claim")
    if "all" in sections:
        raise ValueError("sections: got a section 'all'; that is the name of the sum, so choose another")
    return Ballot(sections)


def _shown(one: Judged, vote: Verdict | None) -> str:
    said = "none yet" if vote is None else f"{WORDS[vote]}, {compare(vote, one.verdict)}"
    return "\n".join(
        [
            _indented(f"{one.id}  {one.claim.says}", 0, 6),
            _indented(f"Your vote: {said}.", 6),
            _indented(f"The ledger: {WORDS[one.verdict].upper()}, {one.evidence.by}.", 6),
            _indented(f"Why: {one.because}", 6),
            *([_indented(f"Say instead: {one.instead}", 6)] if one.instead else []),
        ]
    )


def _indented(text: str, first: int, then: int | None = None) -> str:
    rest = first if then is None else then
    return textwrap.fill(text, WIDTH, initial_indent=" " * first, subsequent_indent=" " * rest, break_on_hyphens=False)
