"""The falsehoods of all interviews, against sentences of people who had not seen the patterns.

falsehoods/a.yaml was used to write them, b.yaml never. In each stand, for every falsehood, five texts in which it is
claimed, and five that say what is true of the same thing in much the same words.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from qlab.deploy.claims import claim
from qlab.learn.files import read_mapping
from qlab.learn.interview import falsehood, scenario
from qlab.learn.interview.score import score
from qlab.learn.interview.sentences import sentences

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
LESSON = "notebooks/14_mock_interviews.ipynb"


def named(text: str) -> set[str]:
    return {one.id for one, _ in falsehood.claimed(sentences(text))}


def test_each_is_answered_by_the_ledger_or_by_itself() -> None:
    for one in falsehood.general():
        if one.claim:
            assert claim(one.claim).verdict != "true" and claim(one.claim).instead, one.id
        else:
            assert one.instead and len(one.instead.split()) >= 5, one.id


@pytest.mark.parametrize(("half", "found", "accused"), [("a", 0.95, 0.0), ("b", 0.65, 0.03)])
def test_what_is_claimed_is_named_and_what_is_true_is_not(half: str, found: float, accused: float) -> None:
    texts = read_mapping(HERE / "falsehoods" / f"{half}.yaml")
    assert set(texts) == {one.id for one in falsehood.general()}
    claimed = [name in named(text) for name, both in texts.items() for text in both["claimed"]]
    true = [bool(named(text)) for both in texts.values() for text in both["said_rightly"]]
    assert len(claimed) == len(true) == 5 * len(texts)
    assert sum(claimed) >= found * len(claimed)
    assert sum(true) <= accused * len(true)
    if half == "b":
        readme, lesson = ((ROOT / place).read_text(encoding="utf-8") for place in ("README.md", LESSON))
        assert f"it names {sum(claimed)} of {len(claimed)} that were worded" in readme
        assert f"accuses {sum(true)} of {len(true)} true sentences" in readme
        assert f"Of {len(claimed)} that claim one it names {sum(claimed)}" in lesson
        assert f"of {len(true)} true ones, which were meant to be hard, it accuses {sum(true)}." in lesson


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a": "concepts: {}\nfalsehoods: {x: {says: a, instead: b}}"}, "claimed_as"),
        ({"a": "concepts: {}\nfalsehoods: {x: {says: a, claimed_as: [a]}}"}, "or what to say instead"),
        ({"a": "concepts: {}\nfalsehoods: {x: {says: a, instead: b, claimed_as: ['@none']}}"}, "no concept @none"),
        ({"a": "concepts: {c: [no]}\nfalsehoods: {}"}, "valid string"),  # which YAML takes for false
        ({"a": "concepts: {c: [a]}\nfalsehoods: {}", "b": "concepts: {c: [b]}\nfalsehoods: {}"}, "two files"),
    ],
)
def test_a_file_that_cannot_be_used(
    files: dict[str, str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setattr(falsehood, "FOLDER", tmp_path)
    caches = falsehood.general, falsehood.concepts, falsehood._files
    try:
        for one in caches:
            one.cache_clear()
        with pytest.raises(ValueError, match=message):
            falsehood.general()
    finally:
        for one in caches:
            one.cache_clear()


def test_it_is_named_and_lowers_nothing() -> None:
    one = scenario.load("long_context_memory")
    plain = "Each token adds a key and a value for every layer. The cache is 40 GB."
    before, found = (score(one, one.questions[1], text) for text in (plain, f"{plain} NF4 has eight levels."))
    assert [(each.flag.id, each.quote.text) for each in found.asides] == [("nf4_levels", "NF4 has eight levels.")]
    assert found.share == before.share and found.wrong == found.asides and not before.wrong


def test_what_broke_a_criterion_is_not_named_twice() -> None:
    one = scenario.load("whiteboard_gptq")
    found = score(one, one.question("update"), "GPTQ computes gradients and fine-tunes the weights by backpropagation.")
    assert [each.flag.id for each in found.flags] == ["gradients"] and not found.asides
