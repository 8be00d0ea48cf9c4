"""Sentences, their words, and how they are meant."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlab.learn.interview.sentences import sentences


def test_sentences_end_where_people_end_them() -> None:
    text = "It takes 3.5 GB, e.g. on p5.48xlarge. Then: done!\n- one point\n- two; three"
    assert [one.text for one in sentences(text)] == [
        "It takes 3.5 GB, e.g. on p5.48xlarge.",
        "Then: done!",
        "- one point",
        "- two",
        "three",
    ]


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=300))
def test_every_sentence_and_word_is_a_place_in_the_text(text: str) -> None:
    last = 0
    for sentence in sentences(text):
        assert text[sentence.start : sentence.end] == sentence.text
        assert sentence.start >= last
        last = sentence.end
        for token in sentence.tokens:
            assert sentence.start <= token.start < token.end <= sentence.end


@pytest.mark.parametrize(
    "text",
    [
        "I would never say that the error is half a step.",
        "I have no idea how the cache grows.",
        "We don't know why it is slower.",
        "I forgot how many heads it has.",
        "You should not claim 4-bit is free.",
    ],
)
def test_what_nobody_says(text: str) -> None:
    assert sentences(text)[0].disclaimed


@pytest.mark.parametrize(
    "text",
    [
        "Nobody had an idea, so we measured it.",
        "I would not say no to FP8.",
        "We know how the cache grows.",
        "It is not free.",
        "I would never ship it without a test.",
    ],
)
def test_what_somebody_says(text: str) -> None:
    assert not sentences(text)[0].disclaimed


@pytest.mark.parametrize(
    "after", ["That's a myth.", "But this is simply not true.", "Wrong.", "It is the other way round."]
)
def test_what_the_next_sentence_takes_back_is_not_claimed(after: str) -> None:
    said, taken_back = sentences(f"NF4 has eight levels. {after}")
    assert said.reported and not taken_back.reported


@pytest.mark.parametrize("after", ["That's right.", "This is wrong by half a step.", "It is not free.", ""])
def test_what_follows_otherwise_takes_nothing_back(after: str) -> None:
    assert not sentences(f"NF4 has sixteen levels. {after}")[0].reported


def test_wrong_by_so_much_denies_nothing() -> None:
    assert not any(sentences("A weight can be wrong by one step.")[0].denied)
    assert all(sentences("That is wrong")[0].denied)
