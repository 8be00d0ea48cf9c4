"""What says nothing of its own is left out, with the reason; the rest is kept as it stands."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from qlab.learn.interview.filler import STRUNG, worth_quoting

ASKED = "Which precision do you choose for this service of ours, four bits or eight?"


def sorted_out(text: str) -> tuple[list[str], dict[str, str]]:
    kept, ignored = worth_quoting(text, ASKED)
    return [one.text for one in kept], {one.text: one.why for one in ignored}


def test_the_question_said_back_is_nothing() -> None:
    kept, ignored = sorted_out(f"{ASKED} It fits.")
    assert kept == ["It fits."] and ignored == {ASKED: "it repeats the question"}


def test_a_list_of_terms_is_nothing() -> None:
    terms = "weights, 40 GB, cache, held, fit, card, gigabytes, unpack, rate, double, eight bits, win, kernel, HBM"
    assert sorted_out(terms) == ([], {terms: STRUNG})


def test_terms_that_follow_some_talk_go_and_the_talk_stays() -> None:
    talk = [
        "We keep the cache in 16 bits because nobody has measured what 8 bits do to it.",
        "If it gets too large, we let fewer users in.",
        "Then they wait.",
        "That is cheaper than a wrong answer.",
        "So I would try 8 bits on old chats first.",
        "They tell us what we lose before anybody sees it.",
    ]
    terms = "Weights, scales, cache, groups, kernels, roofline, bandwidth, tensor cores, prefill, decode, GPTQ, AWQ."
    kept, ignored = sorted_out(" ".join([*talk, terms, terms]))
    assert kept == talk and set(ignored.values()) == {STRUNG}


def test_what_nobody_vouches_for_is_not_quoted() -> None:
    kept, ignored = sorted_out("I would never say that four bits are free. They cost some accuracy.")
    assert kept == ["They cost some accuracy."] and len(ignored) == 1


@given(st.text(max_size=300))
def test_every_sentence_is_kept_or_has_a_reason(text: str) -> None:
    kept, ignored = worth_quoting(text, ASKED)
    for one in (*kept, *ignored):
        assert one.text and one.text in text
    assert all(one.why for one in ignored)
