"""What holds for every graded question: its data are complete, its checks strong, and its master agrees with it."""

from __future__ import annotations

import ast
import copy
import dataclasses
import inspect
import itertools
import math
import re
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from qlab.learn.execute import read
from qlab.learn.judge import Judge, Verdict, alike, cases_of, examine
from qlab.learn.observe import Observation, observe, plain
from qlab.learn.question import Case, Question, as_python
from qlab.learn.questions import SETS, all_ids, exercise_set, question

ROOT = Path(__file__).parents[3]
IDS = all_ids()


@pytest.fixture(params=IDS)
def one(request: pytest.FixtureRequest) -> Question:
    return question(request.param)


def is_slow(one: Question) -> bool:
    """Triton's interpreter takes milliseconds for each program, so fewer seeds have to do."""
    return one.cases(0)[0].launch is not None


def given(judge: Judge, values: list[Any]) -> Verdict:
    """The verdict on a function that returns these values, one for each case; or on a kernel that does this."""
    return judge.verdict([Observation("value", plain(value)) for value in values])


# --- the registry -----------------------------------------------------------------------------------------------------


def test_ids_are_names_and_lie_where_they_say() -> None:
    assert len(set(IDS)) == len(IDS)
    for name in IDS:
        short, _, rest = name.partition(".")
        assert short.isidentifier() and rest.isidentifier()
        assert (ROOT / "qlab" / "learn" / "questions" / short / f"{rest}.py").is_file()
        assert question(name).id == name and question(name) is question(name)


def test_every_file_of_a_question_is_in_a_set() -> None:
    for path in (ROOT / "qlab" / "learn" / "questions").glob("*/*.py"):
        if "QUESTION = Question(" in path.read_text(encoding="utf-8"):
            assert f"{path.parent.name}.{path.stem}" in IDS


def test_sets_by_number_and_name() -> None:
    for text in ("02", "2", "02_linear", "02_linear.ipynb", " 2 "):
        assert exercise_set(text) is SETS[1]
    for text in ("", "99", "linear", "-2", "2.0"):
        with pytest.raises(ValueError, match="exercise set: there is no"):
            exercise_set(text)
    with pytest.raises(ValueError, match=r"there is no 'linear\.absmx'; perhaps linear\.absmax"):
        question("linear.absmx")


# --- the data of a question -------------------------------------------------------------------------------------------


def test_is_complete(one: Question) -> None:
    assert len(one.mutants) >= 8 and len(one.alternatives) >= 2 and len(one.properties) >= 1
    assert len(one.hints) == 3 and len(set(one.hints)) == 3
    for text in (one.title, one.explanation, *one.hints):
        assert text.strip() == text != ""
    names = [mutant.name for mutant in one.mutants]
    messages = [mutant.misconception for mutant in one.mutants]
    assert len(set(names)) == len(names) and len(set(messages)) == len(messages)
    assert all(message.strip() == message and message.endswith((".", "?")) for message in messages)
    answers = [one.reference, *one.alternatives, *(mutant.answer for mutant in one.mutants)]
    assert len({answer.__name__ for answer in answers}) == len(answers)
    assert inspect.getdoc(as_python(one.reference)), "the docstring is what the learner starts from"
    assert not one.title.endswith(".") and one.grade_id == one.id.replace(".", "-")


def test_every_answer_can_be_called_like_the_reference(one: Question) -> None:
    for answer in (*one.alternatives, *(mutant.answer for mutant in one.mutants)):
        assert list(inspect.signature(as_python(answer)).parameters) == one.parameters, answer.__name__


def test_hints_do_not_give_the_answer_away_at_once(one: Question) -> None:
    """The first hint is a nudge in words: no line of the reference is in it."""
    lines = [line.strip() for line in inspect.getsource(as_python(one.reference)).splitlines() if "=" in line]
    assert not [line for line in lines if line in one.hints[0]]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        alike = isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.shape == b.shape
        return alike and bool(((a == b) | ((a != a) & (b != b))).all())  # NaN differs from itself
    if isinstance(a, tuple):
        return isinstance(b, tuple) and len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return type(a) is type(b) and bool(a == b)


def test_cases_depend_on_the_seed_alone(one: Question) -> None:
    torch.manual_seed(7)
    first = one.cases(3)
    torch.rand(1)
    again = one.cases(3)
    assert [case.name for case in first] == [case.name for case in again]
    assert all(_same(a.args, b.args) for a, b in zip(first, again, strict=True))


def test_cases_draw_nothing_from_the_learners_own_generators(one: Question) -> None:
    import random

    state, python_state = torch.get_rng_state(), random.getstate()
    one.cases(0)
    assert torch.equal(state, torch.get_rng_state()) and python_state == random.getstate()


def test_another_seed_gives_other_numbers_and_the_same_kinds(one: Question) -> None:
    drawn = [one.cases(seed) for seed in range(6)]
    names = [case.name for case in drawn[0]]
    assert len(set(names)) == len(names) >= 3
    for cases in drawn:
        assert [case.name for case in cases] == names
        assert all(len(case.args) == len(one.parameters) for case in cases)
        assert all(case.launch is None or list(case.launch.names) == one.parameters for case in cases)
    for a in range(6):
        for b in range(a):
            assert not all(_same(x.args, y.args) for x, y in zip(drawn[a], drawn[b], strict=True))


def test_arguments_are_plain(one: Question) -> None:
    def plain(value: Any) -> bool:
        if isinstance(value, tuple):
            return all(map(plain, value))
        if isinstance(value, dict):
            return all(type(key) is str and plain(item) for key, item in value.items())
        if isinstance(value, torch.Tensor):
            return value.device.type == "cpu" and value.is_contiguous() and not value.requires_grad
        return value is None or type(value) in (int, float, bool, str)

    for case in one.cases(0):
        assert plain(case.args), case.name


# --- the judge's strength ---------------------------------------------------------------------------------------------


def test_right_answers_pass(one: Question) -> None:
    for seed in range(4 if is_slow(one) else 20):
        judge = Judge(one, cases_of(one, seed))
        for answer in (one.reference, *one.alternatives):
            verdict = judge.examine(answer)
            assert verdict.passed, f"{answer.__name__}, seed {seed}: {verdict}"


@pytest.mark.parametrize("seed", range(5))
def test_wrong_answers_fail_by_their_own_message(one: Question, seed: int) -> None:
    if seed >= 3 and is_slow(one):
        pytest.skip("three seeds are enough for what is interpreted")
    judge = Judge(one, cases_of(one, seed))
    for mutant in one.mutants:
        verdict = judge.examine(mutant.answer)
        assert verdict.outcome in ("failed", "error"), f"{mutant.name}: {verdict}"
        assert verdict.misconception == mutant.misconception, f"{mutant.name}: {verdict}"


# Wrong answers that get no value out of any case, and why that is their point.
RAISES = {
    "codebook.dequantize": {
        "high_half_not_shifted": "codes of 16 and more lie beyond a table of 16 levels",
        "codes_as_a_mask": "an index of uint8 is a mask for torch, and none of the table's shape",
    },
}


def test_wrong_answers_do_not_die_of_a_mistake_of_their_own(one: Question) -> None:
    """A misspelled attribute fails as well, and then no learner's answer ever looks like it."""
    if is_slow(one):
        pytest.skip("what is interpreted takes long")
    cases, dead = one.cases(0), set()
    for mutant in one.mutants:
        if observe(mutant.answer, cases[:1])[0].kind == "value":
            continue
        observations = observe(mutant.answer, cases)
        for seen in observations:
            assert not re.search(r"raised (Attribute|Name|UnboundLocal)Error", seen.message), f"{mutant.name}: {seen}"
        if not any(seen.kind == "value" for seen in observations):
            dead.add(mutant.name)
    assert dead == set(RAISES.get(one.id, ()))


def test_judging_changes_no_case(one: Question) -> None:
    cases = one.cases(1)
    before = copy.deepcopy(cases)
    judge = Judge(one, cases)
    for answer in (one.reference, *one.alternatives, *(mutant.answer for mutant in one.mutants)):
        observations = observe(answer, cases)
        kept = copy.deepcopy([observation.value for observation in observations])
        judge.verdict(observations)
        assert all(
            observation.value is value or alike(observation.value, value)
            for observation, value in zip(observations, kept, strict=True)
        ), answer.__name__
        assert all(_same(a.args, b.args) for a, b in zip(cases, before, strict=True)), answer.__name__


def test_an_answer_from_memory_fails_with_another_seed(one: Question) -> None:
    memory = [seen.value for seen in observe(one.reference, one.cases(0))]
    for seed in (1, 2, 3):
        assert not given(Judge(dataclasses.replace(one, mutants=()), cases_of(one, seed)), memory).passed


# --- sabotage: wrong answers that nobody put into a catalogue ---------------------------------------------------------

# From a right answer to a wrong one, or to `SKIP` where that way of being wrong does not exist.
Sabotage = Callable[[Any], Any]
SKIP = object()


def _each_tensor(change: Callable[[torch.Tensor], Any]) -> Sabotage:
    """The change, made to every tensor of an answer that holds more than a number or is of a whole number's type."""

    def sabotage(value: Any) -> Any:
        if isinstance(value, torch.Tensor) and (
            value.ndim > 0 and value.numel() > 0 and (value.numel() > 1 or not value.is_floating_point())
        ):
            return change(value.clone())
        if isinstance(value, tuple):
            changed = tuple(sabotage(item) for item in value)
            return SKIP if all(item is SKIP for item in changed) else _keep(changed, value)
        if isinstance(value, dict):
            changed = {key: sabotage(item) for key, item in value.items()}
            if all(item is SKIP for item in changed.values()):
                return SKIP
            return {key: value[key] if item is SKIP else item for key, item in changed.items()}
        return SKIP

    return sabotage


def _keep(changed: tuple[Any, ...], value: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(old if new is SKIP else new for new, old in zip(changed, value, strict=True))


def _each_number(change: Callable[[Any], Any]) -> Sabotage:
    def sabotage(value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool):
            changed = change(value)
            return SKIP if isinstance(changed, float) and changed == value else changed  # 1 % of 0
        if isinstance(value, tuple):
            changed = tuple(sabotage(item) for item in value)
            return SKIP if all(item is SKIP for item in changed) else _keep(changed, value)
        if isinstance(value, dict):
            changed = {key: sabotage(item) for key, item in value.items()}
            return SKIP if all(item is SKIP for item in changed.values()) else changed
        return SKIP

    return sabotage


def _nudge(place: float) -> Callable[[torch.Tensor], Any]:
    """Two codes up or down where a tie could excuse one; one per cent of the largest for floats."""

    def change(tensor: torch.Tensor) -> torch.Tensor:
        flat = tensor.reshape(-1)
        index = int(place * (flat.numel() - 1))
        if tensor.is_floating_point():
            flat[index] += 0.01 * float(flat.abs().max()) or 1.0
        else:
            flat[index] = (
                ~flat[index] if flat.dtype == torch.bool else flat[index] + (2 if int(flat[index]) < 2 else -2)
            )
        return flat.view(tensor.shape)

    return change


def _only_whole(change: Callable[[torch.Tensor], Any]) -> Callable[[torch.Tensor], Any]:
    return lambda tensor: SKIP if tensor.is_floating_point() else change(tensor)


def _if_matrix(change: Callable[[torch.Tensor], Any]) -> Callable[[torch.Tensor], Any]:
    return lambda tensor: change(tensor) if tensor.ndim >= 2 else SKIP


def _if_tuple(change: Callable[[tuple[Any, ...]], Any]) -> Sabotage:
    return lambda value: change(value) if isinstance(value, tuple) and len(value) > 1 else SKIP


SABOTAGES: dict[str, Sabotage] = {
    "first element off": _each_tensor(_nudge(0.0)),
    "middle element off": _each_tensor(_nudge(0.5)),
    "last element off": _each_tensor(_nudge(1.0)),
    "codes one up": _each_tensor(_only_whole(lambda t: t + 1)),
    "bits flipped": _each_tensor(_only_whole(lambda t: ~t)),
    "zeros": _each_tensor(torch.zeros_like),
    "ones": _each_tensor(torch.ones_like),
    "negated": _each_tensor(lambda t: ~t if t.dtype == torch.bool else -t),
    "floats one per cent larger": _each_tensor(lambda t: t * 1.01 if t.is_floating_point() else SKIP),
    "NaN": _each_tensor(lambda t: t * math.nan),
    "backwards": _each_tensor(lambda t: t.flip(-1)),
    "moved by one": _each_tensor(lambda t: t.roll(1)),
    "as int64": _each_tensor(_only_whole(lambda t: t.to(torch.int64))),
    "as int32": _each_tensor(_only_whole(lambda t: t.to(torch.int32))),
    "as float32": _each_tensor(_only_whole(lambda t: t.to(torch.float32))),
    "as int16": _each_tensor(_only_whole(lambda t: t.to(torch.int16))),
    "as truth values": _each_tensor(lambda t: t.bool()),
    "as a list": _each_tensor(_only_whole(lambda t: t.tolist())),
    "one element more": _each_tensor(lambda t: torch.cat([t, t[:1]])),
    "one element less": _each_tensor(lambda t: t[:-1]),
    "one dimension more in front": _each_tensor(_only_whole(lambda t: t[None])),
    "one dimension more behind": _each_tensor(_only_whole(lambda t: t[..., None])),
    "nothing in it": _each_tensor(lambda t: t[:0]),
    "transposed": _each_tensor(_if_matrix(lambda t: t.transpose(0, 1))),
    "flat": _each_tensor(_if_matrix(lambda t: t.flatten())),
    "first row only": _each_tensor(_if_matrix(lambda t: t[:1])),
    "tuple backwards": _if_tuple(lambda value: value[::-1]),
    "first part only": _if_tuple(lambda value: value[0]),
    "one part less": _if_tuple(lambda value: value[:-1]),
    "one part more": _if_tuple(lambda value: (*value, value[0])),
    "parts of none": _if_tuple(lambda value: (None,) * len(value)),
    "numbers plus one": _each_number(lambda number: number + 1),
    "numbers minus one": _each_number(lambda number: number - 1),
    "numbers one per cent larger": _each_number(lambda number: number * 1.01),
    "numbers one per cent smaller": _each_number(lambda number: number * 0.99),
    "numbers doubled": _each_number(lambda number: number * 2),
    "numbers negated": _each_number(lambda number: -number),
    "numbers as words": _each_number(str),
    "numbers as NaN": _each_number(lambda number: math.nan),
    "numbers infinite": _each_number(lambda number: math.inf),
    "numbers zero": _each_number(lambda number: 0),
    "numbers as truth values": _each_number(bool),
    "numbers as pairs": _each_number(lambda number: torch.tensor([float(number), float(number)])),
    "wrapped": lambda value: (value,),
    "None": lambda value: None,
    "an empty tuple": lambda value: (),
    "text": lambda value: "passed",
    "true": lambda value: True,
}


def test_sabotaged_answers_fail(one: Question) -> None:
    """The reference's answer, spoilt in one case alone: enough to fail, wherever that changes the answer."""
    cases = one.cases(0)
    unnamed = Judge(dataclasses.replace(one, mutants=()), cases)  # what it looks like does not matter, and takes long
    right = copy.deepcopy(unnamed.right)
    tried = set()
    for name, (number, case) in itertools.product(SABOTAGES, enumerate(cases)):
        spoilt = SABOTAGES[name](copy.deepcopy(right[number].value))
        if spoilt is SKIP or _same(spoilt, right[number].value) or _is_free(case, name):
            continue
        verdict = given(unnamed, [spoilt if i == number else seen.value for i, seen in enumerate(right)])
        assert verdict.outcome == "failed", f"{name} in the case {case.name!r}: {spoilt}"
        assert verdict.case == case.name and str(verdict)
        tried.add(name)
    assert len(tried) >= 15, sorted(tried)


def _is_free(case: Case, sabotage: str) -> bool:
    """Where there is nothing but zeros, every scale represents them, and every code may stand for zero."""
    x = case.args[0]
    nothing = isinstance(x, torch.Tensor) and x.is_floating_point() and not x.any()
    return nothing and sabotage.startswith(("numbers", "floats"))


def test_one_spoilt_element_is_not_called_a_misconception(one: Question) -> None:
    """Noise is no mistake of thought, and the learner is not told that it is one."""
    judge = Judge(one, one.cases(0))
    right = [seen.value for seen in judge.right]
    spoilt = [SABOTAGES["middle element off"](copy.deepcopy(value)) for value in right]
    if all(value is SKIP for value in spoilt):
        pytest.skip("no tensors")
    verdict = given(judge, [old if new is SKIP else new for new, old in zip(spoilt, right, strict=True)])
    assert verdict.outcome == "failed" and verdict.mutant is None, verdict


def test_right_answers_in_other_forms_pass(one: Question) -> None:
    """Arrays for tensors, lists for tuples, tensors and numpy's numbers for numbers."""

    def as_arrays(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.numpy()
        return [as_arrays(item) for item in value] if isinstance(value, tuple) else value

    def as_tensors(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(as_tensors(item) for item in value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return torch.tensor(value, dtype=torch.float64 if isinstance(value, float) else torch.int64)
        return value

    judge = Judge(one, one.cases(0))
    for form in (as_arrays, as_tensors):
        verdict = given(judge, [form(copy.deepcopy(seen.value)) for seen in judge.right])
        assert verdict.passed, f"{form.__name__}: {verdict}"


# --- the masters ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def masters() -> dict[str, dict[str, Any]]:
    """The cells of every master by their ids."""
    found = {}
    for exercise in SETS:
        notebook = read(ROOT / "solutions" / f"{exercise.name}.ipynb")
        assert notebook.metadata["qlab"]["exercise"] == exercise.name
        cells = {cell.id: cell for cell in notebook.cells}
        found |= dict.fromkeys(exercise.questions, cells)
    return found


def _function(source: str, name: str) -> ast.FunctionDef:
    functions = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef) and n.name == name]
    assert len(functions) == 1
    return functions[0]


def test_the_solution_in_the_master_is_the_reference(one: Question, masters: dict[str, dict[str, Any]]) -> None:
    source = masters[one.id][f"{one.grade_id}-answer"].source
    reference = textwrap.dedent(inspect.getsource(as_python(one.reference)))
    assert ast.dump(_function(source, one.function)) == ast.dump(_function(reference, one.function))
    assert source.count("### BEGIN SOLUTION") == source.count("### END SOLUTION") == 1


def test_the_master_has_all_cells_of_the_question(one: Question, masters: dict[str, dict[str, Any]]) -> None:
    cells = masters[one.id]
    card, answer, test = (cells[one.grade_id + suffix] for suffix in ("-card", "-answer", ""))
    assert card.cell_type == "markdown" and one.title in card.source.splitlines()[0]
    for word in ("Difficulty", "Importance", "Minutes", "Goal", "Out of scope"):
        assert word.lower() in card.source.lower(), word
    marks = {"grade_id", "grade", "locked", "solution", "schema_version"}
    for cell, grade, locked, is_solution in ((card, 0, 1, 0), (answer, 0, 0, 1), (test, 1, 1, 0)):
        nbgrader = cell.metadata.nbgrader
        assert marks <= nbgrader.keys() and nbgrader.schema_version == 3 and nbgrader.grade_id == cell.id
        assert (nbgrader.grade, nbgrader.locked, nbgrader.solution) == (bool(grade), bool(locked), bool(is_solution))
    assert test.metadata.nbgrader.points > 0
    visible, _, hidden = test.source.partition("### BEGIN HIDDEN TESTS")
    assert visible.strip() == f'check("{one.id}", {one.function})'
    assert hidden.strip().endswith("### END HIDDEN TESTS")
    assert f'assert check("{one.id}", {one.function}, seed=' in hidden and ".passed" in hidden


def test_the_solution_runs_with_what_the_notebook_imports(
    one: Question, masters: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    cells = masters[one.id]
    scope: dict[str, Any] = {}
    for name in ("setup", f"{one.grade_id}-answer"):
        file = tmp_path / name  # as in a notebook, the source can be found: Triton reads it
        file.write_text(cells[name].source, encoding="utf-8")
        exec(compile(cells[name].source, file, "exec"), scope)
    verdict = examine(one, scope[one.function], 1)
    assert verdict.passed, verdict
