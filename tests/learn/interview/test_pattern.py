"""The notation of patterns: what it means, and what is none."""

from __future__ import annotations

import pytest

from qlab.learn.interview.pattern import Phrase, parse, phrase


def test_groups_alternatives_and_what_may_not_be_there() -> None:
    pattern = parse("+fits / room & #memory & -decode ~2")
    assert pattern.groups == ((Phrase("+", steps=(("fit",),)), Phrase("", steps=(("room",),))), (Phrase("", "memory"),))
    assert pattern.never == (Phrase("-", steps=(("decod",),)),) and pattern.within == 2


def test_words_are_stems_but_where_it_says_otherwise() -> None:
    assert phrase("reading|loads .. 16-bit @weights multipl* =times").steps == (
        ("read", "load"),
        (),
        ("16",),
        ("bit",),
        ("@weights",),
        ("multipl*",),
        ("=times",),
    )


def test_a_phrase_with_a_negation_of_its_own_is_negative() -> None:
    assert phrase("not memory bound").negative and not phrase("memory bound").negative


@pytest.mark.parametrize("pattern", ["", " & a", "..", "a ..", ".. a", "-a", "a / -b", "a .. +b", "a #b", "a ~x"])
def test_a_pattern_that_is_none(pattern: str) -> None:
    with pytest.raises(ValueError):
        parse(pattern)
