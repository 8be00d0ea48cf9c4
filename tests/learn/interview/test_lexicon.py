"""What a lexicon checks; those of the shipped scenarios are checked in test_scenario."""

from __future__ import annotations

from typing import Any

import pytest

from qlab.learn.interview.lexicon import Lexicon, shared_concepts

WANTED = {"ask": {"memory.size"}}
SOUND: dict[str, Any] = {"evidence": {"ask": {"memory.size": ["#w & @small"]}}, "concepts": {"small": ["tiny"]}}


def checked(**changed: Any) -> None:
    Lexicon.model_validate(SOUND | changed).check(WANTED, ["w"])


def test_a_sound_one() -> None:
    checked(about={"w": ["@small .. weight"]})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"evidence": {}}, "evidence: ask misses 'memory.size'"),
        ({"evidence": {"ask": {"memory.size": ["@smal & a"]}}}, "no concept @smal; did you mean small"),
        ({"evidence": {"ask": {"memory.size": ["a / #x"]}}}, "no number #x; there are w, memory"),
        ({"concepts": {"small": ["!free"]}}, "words and other concepts only"),
        ({"concepts": {"small": ["#w"]}}, "words and other concepts only"),
        ({"concepts": {"small": ["@none"]}}, "no concept @none"),
        ({"concepts": {"small": ["tiny", "very @small"]}}, "concept small: it names itself"),
        ({"concepts": {"small": ["@little"], "little": ["tiny", "@small"]}}, "concept small: it names itself"),
        ({"concepts": {"small": [False]}}, "valid string"),  # a bare no
        ({"about": {"x": ["weight"]}}, "about: no number 'x'; there are w"),
        ({"about": {"w": ["#none"]}}, "no number #none"),
    ],
)
def test_what_cannot_be_used_is_named(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked(**changed)


def test_the_shared_concepts_are_sound_and_may_be_added_to() -> None:
    Lexicon(concepts=dict.fromkeys(shared_concepts(), ("tiny",))).check({}, [])
    one = Lexicon(concepts={"bits4": ("tiny",), "own": ("small",)})
    assert one.expressions["bits4"] == (*shared_concepts()["bits4"], "tiny") and one.expressions["own"] == ("small",)
