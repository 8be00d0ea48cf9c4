"""The kill table: what it says of strong questions, and that it finds every weakness of a weak one."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
import torch

from qlab import cli
from qlab.learn import mutants as table
from qlab.learn import properties as p
from qlab.learn.mutants import KillTable, measure, strength
from qlab.learn.question import Case, Finding, Mutant, Question, mutant
from qlab.learn.questions import question

PACK4 = question("linear.pack4")


def _with(answer: Any, message: str = "something else.", one: Question = PACK4) -> Question:
    return dataclasses.replace(one, mutants=(*one.mutants, Mutant(answer.__name__, answer, message)))


def _only(found: Any) -> str:
    assert len(found.problems) == 1, found.problems
    return found.problems[0]


def test_a_strong_question_has_no_problems() -> None:
    found = strength(PACK4)
    assert found.problems == () and found.killed == len(found.kills) == len(PACK4.mutants)
    [swapped] = [kill for kill in found.kills if kill.mutant == "swapped_halves"]
    assert (swapped.by, swapped.case, swapped.killed) == ("first_code_is_in_the_low_half", "two codes", True)
    assert swapped.message.startswith("the halves are swapped")
    assert {kill.by for kill in found.kills} > {"an error", "spare_half_is_zero"}


def test_a_mutant_that_survives() -> None:
    def harmless(codes):
        return PACK4.reference(codes)

    found = strength(_with(harmless))
    assert _only(found) == "the mutant harmless survives: with seed 0 it is 'passed'"
    assert found.killed == len(found.kills) - 1 and not found.kills[-1].killed


def test_a_mutant_that_survives_with_one_seed_only() -> None:
    first = [case.args[0] for case in PACK4.cases(1)]

    def sometimes(codes):
        right = any(torch.equal(codes, one) for one in first)
        return PACK4.reference(codes) + (0 if right else 1)

    assert _only(strength(_with(sometimes))) == "the mutant sometimes survives: with seed 1 it is 'passed'"
    assert strength(_with(sometimes), seeds=1).problems == ()


def test_a_mutant_that_is_taken_for_another() -> None:
    def twin(codes):
        return PACK4.mutants[0].answer(codes)

    assert _only(strength(_with(twin))) == "the mutant twin gets the message of swapped_halves with seed 0"


def test_two_mutants_with_one_message() -> None:
    def other(codes):
        return PACK4.reference(codes) + 1

    assert "2 mutants share the message" in _only(strength(_with(other, PACK4.mutants[0].misconception)))


def test_a_mutant_that_counts_as_not_attempted() -> None:
    def unfinished(codes):
        raise NotImplementedError()

    assert _only(strength(_with(unfinished))).endswith("survives: with seed 0 it is 'not attempted'")


def test_an_alternative_that_fails() -> None:
    def high_first(codes):
        return PACK4.mutants[0].answer(codes)

    found = strength(dataclasses.replace(PACK4, alternatives=(*PACK4.alternatives, high_first)))
    assert _only(found) == "the alternative high_first does not pass with seed 0: low halves: 1 of 1 is wrong"
    assert found.killed == len(found.kills)


def test_a_property_that_refuses_the_reference() -> None:
    def refuses(case: Case, got: Any, expected: Any) -> Finding | None:
        return Finding("never right")

    found = strength(dataclasses.replace(PACK4, properties=(refuses,), alternatives=()))
    assert "the reference pack4 does not pass with seed 0: never right" in found.problems


def test_a_check_that_is_too_weak() -> None:
    """With the shape alone, as many public graders have it, most of the wrong answers get through."""
    weak = strength(dataclasses.replace(PACK4, properties=(PACK4.properties[0],)))
    assert weak.killed < len(weak.kills) / 2
    assert "the mutant swapped_halves survives: with seed 0 it is 'passed'" in weak.problems


@mutant("it is too large.")
def too_large(n):
    return n + 1


def nothing(n):
    return n


def test_no_tensors_are_needed() -> None:
    def is_it(case: Case, got: Any, expected: Any) -> Finding | None:
        return p.whole_number_is(got, "n", expected)

    one = Question(
        "test.n", "N", nothing, lambda seed: [Case("a number", (seed,))], (is_it,), (too_large,), (), ("", "", ""), ""
    )
    assert strength(one).problems == ()


# --- several questions ------------------------------------------------------------------------------------------------


def test_measure_counts_and_sums() -> None:
    found = measure(["linear.pack4", "linear.unpack4", "linear.pack4"], seeds=1)
    assert [one.question for one in found.questions] == ["linear.pack4", "linear.unpack4"]
    assert found.mutants == found.killed == sum(len(one.kills) for one in found.questions) and not found.problems
    text = str(found)
    assert f"{found.mutants} mutants, {found.killed} killed, each by its own message, with 1 seed." in text
    assert all(len(line) <= 120 for line in (text + found.in_full()).splitlines())
    assert all(kill.mutant in found.in_full() for one in found.questions for kill in one.kills)


@pytest.mark.parametrize("seeds", [0, -1, 1.5, True])
def test_seeds_are_a_number_above_zero(seeds: Any) -> None:
    with pytest.raises(ValueError, match=r"seeds: got .*; at least 1 is needed"):
        measure(["linear.pack4"], seeds)


def test_problems_are_listed_below_the_table() -> None:
    def twin(codes):
        return PACK4.mutants[0].answer(codes)

    def harmless(codes):
        return PACK4.reference(codes)

    weak = KillTable(3, (strength(_with(harmless, "no harm.", _with(twin))),))
    end = str(weak).partition("What should not be:\n")[2]
    assert end == (
        "  linear.pack4: the mutant twin gets the message of swapped_halves with seed 0\n"
        "  linear.pack4: the mutant harmless survives: with seed 0 it is 'passed'"
    )
    assert "  harmless                 passes" in weak.in_full()
    assert weak.to_dict()["strong"] is False and weak.killed == weak.mutants - 2


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["mutants", "linear.pack4", "--seeds", "1"]) == 0
    short = capsys.readouterr()
    assert short.err == "" and "swapped_halves" not in short.out and "linear.pack4" in short.out
    assert cli.main(["mutants", "linear.pack4", "--seeds", "1", "-v"]) == 0
    assert "swapped_halves" in capsys.readouterr().out
    assert cli.main(["mutants", "linear.pack4", "--seeds", "1", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["strong"] and document["killed"] == document["mutants"] == len(PACK4.mutants)
    assert document["questions"][0]["kills"][0]["by"] == "first_code_is_in_the_low_half"


@pytest.mark.parametrize("options", [[], ["--json"], ["-v"]])
def test_the_command_fails_when_a_mutant_survives(
    options: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def harmless(codes):
        return PACK4.reference(codes)

    monkeypatch.setattr(table, "question", lambda name: _with(harmless))
    assert cli.main(["mutants", "linear.pack4", *options]) == 1
    assert "the mutant harmless survives" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["linear.nope"], "there is no 'linear.nope'; perhaps"),
        (["linear.pack4", "--seeds", "0"], "seeds: got 0; at least 1 is needed"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["mutants", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and message in captured.err and captured.err.count("\n") == 1


def test_a_question_whose_file_is_missing_is_not_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    from qlab.learn import questions

    absent = questions.ExerciseSet("09_none", ("linear.absent",))
    monkeypatch.setattr(questions, "SETS", (*questions.SETS, absent))
    with pytest.raises(ImportError, match="absent"):
        measure(seeds=1)
