"""Ten thousand drills: all well formed, none without an answer, each solution arithmetic that holds."""

from __future__ import annotations

import ast
import operator
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from qlab.deploy.claims.ledger import register
from qlab.learn import drills
from qlab.learn.drills import KINDS, TOPICS, Drill, judge, kind
from qlab.learn.drills.claims import _LEANING
from qlab.learn.drills.kind import Kind, near_whole, short, with_unit
from qlab.learn.drills.mark import Marked
from qlab.learn.quantities import find, refused

CASES = [(one, level) for one in KINDS for level in one.levels]
ROOT = Path(drills.__file__).parents[3]


@pytest.fixture(scope="module")
def many() -> list[Drill]:
    """More than 10,000, of every kind and level as many."""
    rounds = -(-10_000 // len(CASES))
    return [one.ask(seed, level) for seed in range(rounds) for one, level in CASES]


def test_there_are_kinds_for_every_topic() -> None:
    assert len(KINDS) >= 25 and len({one.name for one in KINDS}) == len(KINDS)
    assert {one.topic for one in KINDS} == set(TOPICS)
    lessons = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    planned = {"11_choosing_a_method", "12_four_or_eight_bits"}
    assert {one.lesson for one in KINDS} <= lessons | planned
    assert all(one.levels and set(one.levels) <= {1, 2, 3} and one.levels[0] == 1 for one in KINDS)


def test_ten_thousand_drills_have_one_good_answer_each(many: list[Drill]) -> None:
    """That the answer is positive, among the choices once, and the end of the solution, `Drill` itself insists on."""
    assert len(many) >= 10_000
    for drill in many:
        assert "?" in drill.text and not refused(drill.text), drill.text
        assert judge(drill, drill.letter or drill.answer_text) == Marked(True, "Right.") or not drill.choices, (
            drill.text
        )
        assert judge(drill, drill.answer_text).right, (drill.text, drill.answer_text)
        if drill.choices:
            others = [choice for choice in drill.choices if choice != drill.answer]
            assert others and not any(judge(drill, choice).right for choice in others), drill.text
        elif drill.tolerance == 0:
            assert drill.answer == int(drill.answer), drill.text


def test_a_number_may_be_rounded_as_people_round_and_no_further(many: list[Drill]) -> None:
    for drill in many:
        if drill.choices:
            continue
        number = float(drill.answer)
        if drill.tolerance:
            assert judge(drill, f"{number * (1 + 0.9 * drill.tolerance):.12f} {drill.unit}").right, drill.text
        off = 1 if drill.tolerance == 0 else 2 * drill.tolerance * number
        assert not judge(drill, f"{number + off:.12f} {drill.unit}").right, drill.text


def test_known_mistakes_are_named(many: list[Drill]) -> None:
    for drill in many:
        for says, slip in drill.slips.items():
            marked = judge(drill, f"{slip:.12f}")
            assert not marked.right, drill.text
            # Two mistakes may lead to the same number, and a number may be right in a unit that was not asked for.
            same = [other for other, value in drill.slips.items() if value == pytest.approx(slip, rel=0.02)]
            assert marked.again or any(marked.why.endswith(one) for one in same), (drill.text, says, marked)


# Solutions


_OPERATORS: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul,
    ast.Div: operator.truediv, ast.Pow: operator.pow,
}  # fmt: skip


def computed(node: ast.AST) -> float:
    if isinstance(node, ast.BinOp):
        return _OPERATORS[type(node.op)](computed(node.left), computed(node.right))
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -computed(node.operand)
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return node.value
    raise SyntaxError


def values(side: str) -> Iterator[float]:
    """What an expression comes to, once with its units as factors, once with the numbers alone; nothing for words."""
    side = side.replace(" - ", " − ")  # no range
    for units in (True, False):
        parts, at = [], 0
        for one in find(side):
            factor = one.to(one.unit).low if not units else one.low * _factor(one.unit)
            parts += [side[at : one.start], f"({factor!r})"]
            at = one.end
        text = "".join(
            part if part.startswith("(") and part.endswith(")") and part[1:2].isdigit() else _operators(part)
            for part in [*parts, side[at:]]
        )
        try:
            yield computed(ast.parse(text.strip(), mode="eval").body)
        except (SyntaxError, ZeroDivisionError, OverflowError):
            continue


def _factor(unit: str) -> float:
    from qlab.learn.units import unit as look_up

    return look_up(unit).factor


def _operators(words: str) -> str:
    words = re.sub(r"\bx\b", "*", words).replace("^", "**").replace("−", "-")
    return re.sub(r"[A-Za-z]+(?:-[A-Za-z]+)*|[,']", "", words)


def equations(line: str) -> Iterator[tuple[list[float], list[float]]]:
    """The sides of every equals sign that have a value."""
    sides = line.split("=")
    for left, right in pairwise(sides):
        before = re.split(r"[:,] ", left)[-1].strip()
        after = re.split(r"[:,] ", right.strip())[0]
        found = list(values(before)), list(values(after))
        if all(found):
            yield found


@pytest.mark.parametrize("one", KINDS, ids=lambda one: one.name)
def test_the_arithmetic_of_a_solution_holds(one: Kind) -> None:
    for level in one.levels:
        for seed in range(25):
            drill = one.ask(seed, level)
            checked = 0
            for line in drill.worked:
                for left, right in equations(line):
                    assert any(a == pytest.approx(b, rel=0.01, abs=1e-12) for a in left for b in right), (
                        line,
                        left,
                        right,
                    )
                    checked += 1
            if not drill.choices and one.name not in ("formats.nf4",):
                assert checked, drill.worked
            assert len(set(drill.worked)) == len(drill.worked)


def test_the_check_of_arithmetic_finds_what_is_wrong() -> None:
    for line in ("2 x 80 x 8 x 128 = 163,841,000", "Room: 0.92 x 84.93 GB - 1.5 GB = 70 GB", "64 GB / 2 = 16 GB"):
        [(left, right)] = equations(line)
        assert not any(a == pytest.approx(b, rel=0.01) for a in left for b in right)
    for line in (
        "Room: 0.92 x 84.93 GB - 1.5 GB = 76.64 GB",
        "34.83 GB / 900 GB/s = 38.7 ms",
        "1 - 1 GB / 4 GB = 75 %",
    ):
        [(left, right)] = equations(line)
        assert any(a == pytest.approx(b, rel=0.01) for a in left for b in right)


# Kinds


def test_the_same_seed_asks_the_same() -> None:
    for one, level in CASES:
        assert one.ask(7, level) == one.ask(7, level) == kind(one.name.upper()).ask("7", level)


def test_other_seeds_ask_something_else(many: list[Drill]) -> None:
    for one, level in CASES:
        asked = {(drill.text, drill.choices) for drill in many if (drill.kind, drill.level) == (one.name, level)}
        assert len(asked) >= 7, one.name


def test_every_choice_is_right_now_and_then(many: list[Drill]) -> None:
    for one in KINDS:
        letters = [drill.letter for drill in many if drill.kind == one.name and drill.choices]
        if letters:
            assert len(set(letters)) >= 2 and max(map(letters.count, set(letters))) < 0.9 * len(letters), one.name


def test_a_kind_without_good_numbers_is_a_bug() -> None:
    with pytest.raises(RuntimeError, match="memory.never: 10000 draws at level 1"):
        Kind("memory.never", "", "", lambda rng, level: None).ask(0)


def test_levels_and_names_that_are_not_there() -> None:
    with pytest.raises(ValueError, match=r"level: got 3; memory.outside has 1, 2"):
        kind("memory.outside").ask(0, 3)
    with pytest.raises(ValueError, match="did you mean memory.weights"):
        kind("memory.weight")
    with pytest.raises(ValueError, match="topic: got 'memry'; did you mean memory"):
        drills.chosen(topics=["memry"])
    assert [one.name for one in drills.chosen(["bits.group"], ["claims"])][:2] == ["bits.group", "claims.false"]
    assert drills.chosen() == KINDS


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({"answer": 0.0}, "answer: got 0.0; it must be a number above 0"),
        ({"answer": -2.0}, "above 0"),
        ({"answer": float("inf")}, "above 0"),
        ({"answer": "A", "choices": ("B", "C")}, "must be one of them"),
        ({"answer": "A", "choices": ("A", "A")}, "once"),
        ({"worked": ("a", "4 GB")}, "3 to 8 lines"),
        ({"worked": ("a", "b", "c")}, "ends in 4 GB"),
        ({"unit": "parsec", "worked": ("a", "b", "4 parsec")}, "unit: got 'parsec'"),
    ],
)
def test_drills_that_make_no_sense_are_refused(parts: dict[str, object], says: str) -> None:
    good: dict[str, object] = {"text": "?", "answer": 4.0, "unit": "GB", "worked": ("a", "b", "4 GB")}
    assert Drill(**good).answer_text == "4 GB"  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=re.escape(says)):
        Drill(**(good | parts))  # type: ignore[arg-type]


def test_claims_that_are_left_out_are_in_the_ledger() -> None:
    assert set(_LEANING) <= set(register())


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (39.516, "GB", "39.52 GB"),
        (1.0, "GPU", "1 GPU"),
        (2.0, "GPU", "2 GPUs"),
        (113336.4, "token", "113,336 tokens"),
        (70.55e9, "parameter", "70.55 billion parameters"),
        (2.5, "token/s", "2.5 tokens/s"),
        (3.88, "x", "3.88x"),
        (0.00003052, "", "0.00003052"),
    ],
)
def test_numbers_are_written_as_people_write_them(value: float, unit: str, text: str) -> None:
    assert with_unit(value, unit) == text
    assert find(text)[0].value == pytest.approx(value, rel=2e-4)


def test_near_whole_numbers() -> None:
    assert near_whole(8.1) and near_whole(7.99) and not near_whole(7.5) and not near_whole(1.1)
    assert near_whole(40.5)  # 2 % of 40 is more than the half
    assert short(0.0) == "0" and short(-39.516) == "-39.52"


def test_kinds_say_what_they_load() -> None:
    """Each in an interpreter of its own would take long: those that promise to load nothing heavy share one."""
    light = [one.name for one in KINDS if not one.needs]
    code = f"from qlab.learn.drills import kind, KINDS; [kind(name).ask(1, 1) for name in {light}]"
    heavy = "import sys; print({'torch', 'transformers', 'numpy', 'triton'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", f"{code}; {heavy}"], capture_output=True, text=True, env=os.environ)
    assert (done.stdout.strip(), done.returncode) == ("set()", 0), done.stderr
    assert {one.name for one in KINDS if one.needs == "torch"} == {one.name for one in KINDS if one.topic == "formats"}
