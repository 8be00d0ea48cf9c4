from __future__ import annotations

import pytest

from qlab.learn.interview import scenario
from qlab.learn.interview.evidence import Quote, Reader
from qlab.learn.interview.pattern import parse
from qlab.learn.interview.scenario import Number
from qlab.learn.interview.sentences import sentences

NUMBERS = {
    "weights": Number(value=39.5, unit="GB", show="{}", tolerance=0.12),
    "bill": Number(value=160_000, unit="USD/month", show="{}", tolerance=0.1),
    "machines": Number(value=4, unit="machines", show="{}", tolerance=0),
    "step": Number(value=8, unit="ms", show="{}", tolerance=0.1),
    "gain": Number(value=2, unit="x", show="{}", tolerance=0.1),
}
CONCEPTS = {"four": ("4 bit", "int4", "four bit"), "free": ("free", "costs nothing"), "cheap": ("@free",)}


def found(text: str, pattern: str, claimed: bool = False) -> bool | None:
    """Whether the pattern is said; None where it is only guessed at."""
    quote = Reader(sentences(text), CONCEPTS, NUMBERS).find(parse(pattern), claimed)
    return None if quote and not quote.firm else quote is not None


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("Weights are unpacked first.", "unpack"),
        ("UNPACKING takes time", "unpack"),
        ("We optimise it.", "optimize"),
        ("It's quantised.", "quantiz*"),
        ("back to 16-bit floats", "back to 16 bit"),
        ("they read all of the weights", "read .. weight"),
        ("they load weights", "read|load weight"),
        ("4-bit, or INT4", "@four"),
        ("That costs nothing.", "@cheap"),
        ("we call torch.cuda.synchronize() twice", "synchronize"),
        ("that's a dequant kernel", "that is .. kernel"),
        ("we're done", "we are done"),
        ("It gets unpacked. That takes time.", "unpack & time ~2"),
        ("Dequantizing costs cycles.", "unpack / dequant* & time / cycle"),
        ("Three times as much.", "=times"),
    ],
)
def test_what_is_said_is_found(text: str, pattern: str) -> None:
    assert found(text, pattern)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("It gets unpacked. That takes time.", "unpack & time"),
        ("It is read. Then one, two, three, four, five, six weights.", "read .. weight"),
        ("One time.", "=times"),
        ("4 bits, and decode", "@four & -decode"),
        ("", "unpack"),
        ("???", "unpack"),
    ],
)
def test_what_is_not_said_is_not_found(text: str, pattern: str) -> None:
    assert found(text, pattern) is False


@pytest.mark.parametrize(
    "text",
    [
        "4-bit is not free.",
        "4-bit isn't free.",
        "I don't think that 4-bit is free.",
        "4 bits without being free",
        "That 4-bit is free is a myth.",
        "It is wrong that INT4 is free.",
        "It's far from free.",
    ],
)
def test_denial_is_understood(text: str) -> None:
    assert found(text, "!@free") and not found(text, "+@free")


@pytest.mark.parametrize(
    "text", ["4-bit is free.", "It's not only small but free.", "No, it is free.", "It's free, no?"]
)
def test_what_looks_like_denial_is_none(text: str) -> None:
    assert found(text, "+@free")


def test_a_phrase_may_have_a_negation_of_its_own() -> None:
    assert found("it is not memory bound", "+not memory bound")
    assert found("we never said it is not free", "+not free") is False


@pytest.mark.parametrize(
    "text",
    [
        "Maybe INT4 is free.",
        "Maybe 4 bits are free.",
        "I guess it's free.",
        "It is free, but I'm not sure.",
        "Free, or something.",
    ],
)
def test_a_guess_is_found_as_one(text: str) -> None:
    assert found(text, "@free") is None and found(text, "@free", claimed=True) is False


@pytest.mark.parametrize("text", ["Maybe 40 GB, free.", "I'd guess forty, and free.", "Perhaps half of it is free."])
def test_an_estimate_is_no_guess(text: str) -> None:
    assert found(text, "@free")


def test_firm_words_are_preferred_to_a_guess() -> None:
    assert found("Maybe it's free. It is free.", "@free")


@pytest.mark.parametrize(
    "text",
    ["Is 4-bit free?", "People say that 4-bit is free.", "You might think it's free.", "The claim that it's free."],
)
def test_what_others_say_is_not_claimed(text: str) -> None:
    assert found(text, "@free") and found(text, "@free", claimed=True) is False


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("about 40 GB", "#weights"),
        ("38 gigs", "#weights"),
        ("36.8 GiB", "#weights"),
        ("35 to 45 GB", "#weights"),
        ("$160k a month", "#bill"),
        ("about 150,000 dollars", "#bill"),
        ("four p5s", "#machines"),
        ("4 machines", "#machines"),
        ("8 ms per token", "#step"),
        ("twice as fast", "#gain"),
        ("20 GB", "#memory"),
    ],
)
def test_quantities_agree_with_numbers(text: str, pattern: str) -> None:
    assert found(text, pattern)


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("30 GB", "#weights"),
        ("10 to 100 GB", "#weights"),
        ("40 GB/s", "#weights"),
        ("40 ms", "#weights"),
        ("40", "#weights"),
        ("five machines", "#machines"),
        ("INT4 on H100", "#machines"),
        ("20 ms", "#memory"),
    ],
)
def test_other_quantities_do_not(text: str, pattern: str) -> None:
    assert found(text, pattern) is False


def test_a_quote_stands_in_the_text_as_it_was_said() -> None:
    text = "It takes time; you unpack the\nweights first."
    quote = Reader(sentences(text), {}, {}).find(parse("time & unpack ~2"))
    assert quote is not None and quote.text == text


def test_two_replies_are_no_neighbours() -> None:
    """What is said in two sentences that follow each other is not said in two replies, nor quoted across them."""
    pattern, reply = parse("cache & hold ~2"), "We hold it. So it is. It is a cache."
    assert Reader([*sentences("It is a cache."), *sentences("We hold it.")], {}, {}).find(pattern) is None
    assert Reader([*sentences(reply), *sentences(reply)], {}, {}).find(pattern) is None
    found = Reader(sentences("It is a cache. We hold it."), {}, {}).find(pattern)
    assert found is not None and found.text == "It is a cache. We hold it."


def test_what_cannot_be_there_is_skipped_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    one = scenario.load("trading_signals")
    question = one.questions[0]
    said = sentences(one.shown(question.model_answer))
    patterns = [parse(text) for many in one.lexicon.evidence[question.id].values() for text in many]

    def quotes() -> list[Quote | None]:
        reader = Reader(said, one.lexicon.expressions, one.numbers)
        return [reader.find(pattern) for pattern in patterns]

    skipping = quotes()
    monkeypatch.setattr(Reader, "_can_match", lambda reader, steps: True)
    assert quotes() == skipping and any(skipping) and not all(skipping)
