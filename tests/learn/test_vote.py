"""The ballot: votes are compared with verdicts in words, and a run in which nobody votes prints the verdicts."""

from __future__ import annotations

import html
import itertools
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

import ipywidgets as widgets
import pytest

from qlab.deploy.claims import VERDICTS, Assumptions, claim
from qlab.learn.vote import AS_THE_LEDGER, WIDTH, WORDS, Ballot, ballot, compare, scores

SECTIONS = {"memory": ("C004", "C031"), "people": ("C094", "C065")}  # conditional, true; false, contested


@pytest.fixture
def votes() -> Ballot:
    return ballot({name: [claim(id) for id in ids] for name, ids in SECTIONS.items()})


def test_the_four_words_are_the_four_verdicts() -> None:
    assert tuple(WORDS) == VERDICTS and len(set(WORDS.values())) == 4


@pytest.mark.parametrize(
    ("vote", "verdict", "said"),
    [
        (None, "true", "no vote yet"),
        ("false", "false", AS_THE_LEDGER),
        ("contested", "contested", AS_THE_LEDGER),
        ("true", "conditional", "you believed more than holds"),
        ("conditional", "false", "you believed more than holds"),
        ("false", "conditional", "you believed less than holds"),
        ("conditional", "true", "you believed less than holds"),
        ("true", "contested", "you settled what is open"),
        ("contested", "true", "you left open what can be decided"),
    ],
)
def test_compare(vote: Any, verdict: Any, said: str) -> None:
    assert compare(vote, verdict) == said


def test_only_the_verdict_itself_is_right() -> None:
    for vote, verdict in itertools.product(VERDICTS, VERDICTS):
        assert (compare(vote, verdict) == AS_THE_LEDGER) == (vote == verdict)


def test_scores_count_by_section_and_over_all() -> None:
    verdicts: Any = {"a": {"C1": "true", "C2": "false"}, "b": {"C3": "contested"}, "c": {"C4": "true"}}
    found = scores(verdicts, {"C1": "true", "C2": "true", "C3": "false", "C4": None})
    assert [(one.section, one.claims, one.voted, one.right) for one in found] == [
        ("a", 2, 2, 1),
        ("b", 1, 1, 0),
        ("c", 1, 0, 0),
        ("all", 4, 3, 1),
    ]
    assert str(found[0]) == "1 of 2 as the ledger; you believed more than holds: 1"
    assert str(found[2]) == "no votes yet on 1 claim"
    assert str(found[3]).endswith("; not voted: 1") and "you settled what is open: 1" in str(found[3])


def test_a_click_is_a_vote_and_none_takes_it_back(votes: Ballot) -> None:
    assert votes.votes == {id: None for ids in SECTIONS.values() for id in ids}
    votes.buttons["C004"].index = list(WORDS).index("false")
    assert votes.votes["C004"] == "false"
    votes.cast(C004=None, C031="true")
    assert votes.votes["C004"] is None and votes.votes["C031"] == "true"


def test_every_claim_stands_above_its_own_buttons(votes: Ballot) -> None:
    texts = [child for child in votes.children if isinstance(child, widgets.HTML)]
    shown = {id: votes.children[votes.children.index(button) - 1].value for id, button in votes.buttons.items()}
    assert all(id in text and claim(id).claim.says in html.unescape(text) for id, text in shown.items())
    assert len(texts) == len(SECTIONS) + len(shown)
    assert all(id in tip for id, button in votes.buttons.items() for tip in button.tooltips)


def test_the_text_of_a_ballot_is_the_whole_ballot_and_no_verdict(votes: Ballot) -> None:
    text = repr(votes)
    assert all(id in text and claim(id).claim.says in text for id in votes.buttons)
    assert all(claim(id).because not in text for id in votes.buttons)
    assert text.splitlines()[-1] == "Each is true, true only if …, false, contested."


def test_verdicts_without_a_vote(votes: Ballot, capsys: pytest.CaptureFixture[str]) -> None:
    votes.show("memory")
    text = capsys.readouterr().out
    assert "C004" in text and "C094" not in text
    assert text.count("Your vote: none yet.") == 2 and "      The ledger: TRUE ONLY IF …, computed.\n" in text
    assert f"Why: {claim('C004').because}" in text.replace("\n      ", " ")
    assert f"Say instead: {claim('C004').instead}" in text.replace("\n      ", " ")
    assert max(map(len, text.splitlines())) <= WIDTH
    votes.score()
    assert capsys.readouterr().out.splitlines() == [
        "memory  no votes yet on 2 claims",
        "people  no votes yet on 2 claims",
        "all     no votes yet on 4 claims",
    ]


def test_verdicts_beside_votes(votes: Ballot, capsys: pytest.CaptureFixture[str]) -> None:
    votes.cast(C094="true", C065="contested")
    votes.show("people")
    text = capsys.readouterr().out
    assert "Your vote: true, you believed more than holds." in text and "Your vote: contested, as the ledger." in text
    assert "The ledger: FALSE, cited.\n" in text
    votes.score()
    assert "people  1 of 2 as the ledger; you believed more than holds: 1\n" in capsys.readouterr().out


def test_votes_as_the_buttons_say_them_and_in_any_case(votes: Ballot) -> None:
    votes.cast(C004="true only if", c031="TRUE", C094="False", c065="Contested")
    assert list(votes.votes.values()) == ["conditional", "true", "false", "contested"]
    for word, verdict in zip(WORDS.values(), VERDICTS, strict=True):
        votes.cast(C004=word)
        assert votes.votes["C004"] == verdict


def test_a_verdict_for_which_no_sentence_was_written() -> None:
    other = ballot({"capacity": [claim("C021", Assumptions(overhead_gb=4))]})
    with redirect_stdout(StringIO()) as out:
        other.show("capacity")
    assert "FALSE, computed" in out.getvalue() and "instead" not in out.getvalue()


def test_a_wrong_vote_leaves_all_votes_as_they_were(votes: Ballot) -> None:
    wrong: dict[str, Any] = {"C004": "true", "C031": "maybe"}
    with pytest.raises(ValueError, match=r"C031: got 'maybe'; choose from true, conditional"):
        votes.cast(**wrong)
    with pytest.raises(ValueError, match=r"C001 is not on this ballot; choose from C004"):
        votes.cast(C004="true", C001="true")
    assert set(votes.votes.values()) == {None}
    with pytest.raises(ValueError, match=r"section: got 'speed'; choose from memory, people"):
        votes.show("speed")


@pytest.mark.parametrize(
    ("sections", "says"),
    [
        ({}, "got an empty one, or none"),
        ({"memory": ()}, "got an empty one, or none"),
        ({"a": ("C004",), "b": ("C004",)}, "got C004 more than once"),
        ({"all": ("C004",)}, "that is the name of the sum"),
    ],
)
def test_ballots_that_are_refused(sections: dict[str, tuple[str, ...]], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ballot({name: [claim(id) for id in ids] for name, ids in sections.items()})


def test_ballots_of_the_wrong_kind() -> None:
    wrong: list[Any] = [[claim("C021")], {"a": ["C021"]}, {"a": claim("C021")}, {"a": "C021"}, {"a": 21}]
    for sections in wrong:
        with pytest.raises(TypeError, match=r"sections: .*; give claims by section, \{'memory': \[claim\('C004'\)\]\}"):
            ballot(sections)
