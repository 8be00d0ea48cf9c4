"""The scorer against answers that were labelled, one by one, before it existed.

Half a was used to tune it, half b never: its figures are what a stranger's answer can expect.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import yaml

from qlab.learn.interview import agreement, scenario
from qlab.learn.interview.agreement import KINDS, NOTHING, Agreement, Labelled
from qlab.learn.interview.score import score

BANK = Path(__file__).parent / "bank"
ROOT = Path(__file__).parents[3]
LESSON = "notebooks/14_mock_interviews.ipynb"
REAL = [kind for kind in KINDS if kind not in NOTHING]


def by_question(of: Agreement) -> dict[tuple[str, str], dict[str, list[Labelled]]]:
    found: dict[tuple[str, str], dict[str, list[Labelled]]] = {}
    for one in of.answers:
        found.setdefault((one.scenario.id, one.question.id), {}).setdefault(one.kind, []).append(one)
    return found


def the_bank_is_whole(found: Agreement) -> None:
    questions = by_question(found)
    assert len(questions) == 2 * len(scenario.names())
    for kinds in questions.values():
        assert set(kinds) == set(KINDS)
        assert all(40 <= one.words <= 220 for one in kinds["strong"])
        for one in (answer for answers in kinds.values() for answer in answers):
            assert one.points <= one.question.points.keys()
            assert one.flags <= {flag.id for flag in one.question.red_flags}
            if one.kind in NOTHING:
                assert not one.points and not any(one.levels.values())
    asked = [f"{q.id}.{f.id}" for s in scenario.names() for q in scenario.load(s).questions for f in q.follow_ups]
    assert sorted(one.name for one in found.replies) == sorted(2 * asked)


def levels_agree(found: Agreement) -> None:
    assert found.exact() >= 0.65 and found.near() >= 0.90
    assert found.exact(REAL) >= 0.65 and found.near(REAL) >= 0.90
    exact, near = found.by_length
    assert found.exact() > exact + 0.1 and found.near() > near + 0.1
    assert found.score_correlation > 0.85 > 0.6 > found.length_correlation
    assert found.precision >= 0.85 and found.replies_right >= 0.9


def better_answers_score_more(found: Agreement) -> None:
    """Of each kind the mean, for there are two strong and two weak answers to a question."""
    for asked, kinds in by_question(found).items():
        means = {kind: fmean(one.score.said for one in kinds[kind]) for kind in REAL}
        assert means["strong"] > means["good"] > means["middling"] > means["weak"], (asked, means)
        assert means["wrong"] < means["good"], (asked, means)


def what_says_nothing_scores_nothing(found: Agreement) -> None:
    for one in found.answers:
        if one.kind in NOTHING:
            assert one.score.said <= 0.1, (one.scenario.id, one.question.id, one.kind, one.score.said)


STRUNG: dict[str, dict[str, list[str]]] = yaml.safe_load((BANK / "strung.yaml").read_text(encoding="utf-8"))
CHAT = (
    "We have known this team for a year. They sit in another town, and I met them because my sister worked there. "
    "What I liked was how they talk to each other. So I stayed in touch with some of them."
)


def test_terms_that_are_strung_together_score_nothing() -> None:
    assert sum(len(many) for questions in STRUNG.values() for many in questions.values()) == 8 * len(scenario.names())
    for name, questions in STRUNG.items():
        one = scenario.load(name)
        for question, many in questions.items():
            for text in many:
                assert score(one, one.question(question), text).said <= 0.1, text


def test_terms_before_or_after_some_talk_score_hardly_more() -> None:
    """Of parts of an answer less can be said than of all of it, so that one of the 144 slips through."""
    risen = []
    for name, questions in STRUNG.items():
        one = scenario.load(name)
        for question, many in questions.items():
            asked = one.question(question)
            assert score(one, asked, CHAT).said == 0
            risen += [score(one, asked, f"{a} {b}").said for text in many for a, b in ((CHAT, text), (text, CHAT))]
    assert len(risen) == 144 and sum(share > 0.1 for share in risen) <= 2


def confident_falsehoods_cost_points_and_are_named(found: Agreement) -> None:
    named, missed, wrongly = found.accused
    assert wrongly == 0  # nobody is accused of what they did not say
    assert named > missed
    wrong = [one for one in found.answers if one.kind == "wrong"]
    assert sum(bool(one.flagged) for one in wrong) >= 0.85 * len(wrong)
    assert fmean(one.score.said for one in wrong) <= 0.2
    for one in found.answers:
        for flagged in one.score.flags:
            assert one.score.level(flagged.flag.breaks) <= 1
            assert flagged.quote.text in one.text
        if one.kind in ("strong", "good", "middling"):
            assert not one.score.asides, (one.scenario.id, one.question.id, one.kind)


def the_course_quotes_these_figures(found: Agreement) -> None:
    exact, near = (f"{100 * share:.0f} %" for share in (found.exact(), found.near()))
    by_length = [f"{100 * share:.0f} %" for share in found.by_length]
    named, missed, _ = found.accused
    readme, lesson = ((ROOT / place).read_text(encoding="utf-8") for place in ("README.md", LESSON))
    assert f"{exact} of its levels are the labels' own and {near} at most one away" in readme
    assert f"(length alone: {by_length[0]} and {by_length[1]})" in readme
    assert f"it names {named} of {named + missed} confident falsehoods" in readme
    assert f"| scorer | {exact} | {near} |" in lesson
    assert f"| length alone | {by_length[0]} | {by_length[1]} |" in lesson
    assert f"Of {named + missed} confident falsehoods the scorer names {named}" in lesson


def no_level_without_a_quote_from_the_answer(found: Agreement) -> None:
    for one in found.answers:
        for judged in one.score.criteria:
            assert bool(judged.found) or judged.level == 0
            for each in judged.found:
                assert each.quote.text and each.quote.text in one.text


def no_true_number_is_called_wrong(found: Agreement) -> None:
    for one in found.answers:
        if one.kind in ("strong", "good", "middling"):
            assert not one.score.wrong_numbers, (one.scenario.id, one.question.id, one.kind)


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_half(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """In one test, for scoring a half takes most of the time."""
    found = agreement.measure(BANK / name)
    with capsys.disabled():
        print(f"\nhalf {name}: {found.to_dict()}")
    the_bank_is_whole(found)
    levels_agree(found)
    better_answers_score_more(found)
    what_says_nothing_scores_nothing(found)
    confident_falsehoods_cost_points_and_are_named(found)
    no_true_number_is_called_wrong(found)
    if name == "b":
        the_course_quotes_these_figures(found)
    no_level_without_a_quote_from_the_answer(found)


def answers(name: str) -> list[tuple[tuple[str, str, str, int], str, str]]:
    """Every answer of a half: its place, its kind, its text."""
    found = []
    for path in sorted((BANK / name).glob("*.yaml")):
        questions: dict[str, list[dict[str, Any]]] = yaml.safe_load(path.read_text(encoding="utf-8"))
        for question, entries in questions.items():
            if question != "follow_ups":
                for number, entry in enumerate(entries, 1):
                    found.append(((name, path.stem, question, number), entry["kind"], entry["text"]))
    return found


def test_the_halves_are_different_texts() -> None:
    first, second = ({text for _, _, text in answers(name) if len(text) > 60} for name in "ab")
    assert first and second and not first & second


def test_other_words_move_a_score_by_a_level_at_most() -> None:
    originals = {place: text for name in "ab" for place, kind, text in answers(name) if kind == "strong"}
    entries = yaml.safe_load((BANK / "paraphrases.yaml").read_text(encoding="utf-8"))
    assert len(entries) >= len(originals) / 3
    for entry in entries:
        place = entry["half"], entry["scenario"], entry["question"], entry["number"]
        one = scenario.load(entry["scenario"])
        first, second = (
            score(one, one.question(entry["question"]), text) for text in (originals[place], entry["text"])
        )
        assert 4 * abs(first.said - second.said) <= 1 + 1e-9, (place, first.said, second.said)
