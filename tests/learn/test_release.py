"""Masters become exercises: on a small master made here, and on the committed files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import qlab
from qlab.learn import release
from qlab.learn.execute import NOTEBOOK_METADATA, read, write
from qlab.learn.questions import all_ids, exercise_set
from qlab.learn.questions import question as question_of

ROOT = Path(__file__).parents[2]
NAME = "02_linear"
IDS = exercise_set(NAME).questions
FIRST = IDS[0].replace(".", "-")

STUB = "    # YOUR CODE HERE\n    raise NotImplementedError()"
TASK = "Defend 4 bits.\n\n### BEGIN MARK SCHEME\nOne point for a number.\n### END MARK SCHEME"


def cell(grade_id: str, source: str, **flags: Any) -> Any:
    new = new_code_cell if "check(" in source or "def " in source or "import" in source else new_markdown_cell
    data = {"grade": False, "locked": True, "solution": False, "task": False, "schema_version": 3, "grade_id": grade_id}
    return new(source, id=grade_id, metadata={"nbgrader": data | flags})


def question(question_id: str) -> list[Any]:
    grade_id, function = question_id.replace(".", "-"), question_id.replace(".", "_")
    solution = f'def {function}(x):\n    """Say x."""\n    ### BEGIN SOLUTION\n    return x\n    ### END SOLUTION'
    call = f'check("{question_id}", {function}'
    hidden = f"### BEGIN HIDDEN TESTS\nassert {call}, seed=2).passed\n### END HIDDEN TESTS"
    return [
        cell(f"{grade_id}-card", f"## {question_id}"),
        cell(f"{grade_id}-answer", solution, locked=False, solution=True),
        cell(grade_id, f"{call})\n{hidden}", grade=True, points=2),
    ]


@pytest.fixture
def master() -> Any:
    setup = f'from qlab.learn import check, made_for\n\nmade_for("{NAME}", "{qlab.__version__}")'
    cells = [cell("title", "# Linear"), cell("setup", setup)]
    for question_id in IDS:
        cells += question(question_id)
    cells.append(cell("linear-defend", TASK, task=True, points=4))
    cells.append(new_markdown_cell("Room for notes.", id="notes"))
    return new_notebook(
        cells=cells, metadata={**NOTEBOOK_METADATA, "qlab": {"exercise": NAME, "version": qlab.__version__}}
    )


@pytest.fixture
def root(master: Any, tmp_path: Path) -> Path:
    (tmp_path / "solutions").mkdir()
    write(master, tmp_path / "solutions" / f"{NAME}.ipynb")
    return tmp_path


def by_id(notebook: Any) -> dict[str, Any]:
    return {one.id: one for one in notebook.cells}


def test_a_learner_gets_stubs_and_none_of_the_answers(master: Any) -> None:
    before = json.dumps(master)
    released = release.release(master, NAME)
    assert json.dumps(master) == before
    cells = by_id(released)
    assert list(cells) == list(by_id(master)), "every cell keeps its id and its place"
    function = IDS[0].replace(".", "_")
    assert cells[f"{FIRST}-answer"].source == f'def {function}(x):\n    """Say x."""\n{STUB}'
    assert cells[FIRST].source == f'check("{IDS[0]}", {function})'
    assert cells["linear-defend"].source == "Defend 4 bits.\n"
    for region in ("SOLUTION", "HIDDEN", "MARK SCHEME", "seed=2", "return x"):
        assert region not in json.dumps(released)
    for one in released.cells:
        if one.id == "notes":
            assert "nbgrader" not in one.metadata and one.metadata.get("editable") is None
        else:
            assert one.metadata.deletable is False
            assert one.metadata.get("editable", True) is one.id.endswith("-answer")
            assert len(one.metadata.nbgrader.checksum) == 32
    assert released.metadata.qlab == {"exercise": NAME, "version": qlab.__version__}
    assert {key: released.metadata[key] for key in NOTEBOOK_METADATA} == NOTEBOOK_METADATA


def test_the_order_is_that_of_nbgrader() -> None:
    from nbgrader import preprocessors
    from nbgrader.converters.generate_assignment import GenerateAssignment

    theirs = GenerateAssignment.class_traits()["preprocessors"].default()
    not_ours = (preprocessors.IncludeHeaderFooter, preprocessors.InstantiateTests, preprocessors.SaveCells)
    assert release.preprocessors() == [one for one in theirs if one not in not_ours]


def test_the_command_writes_what_differs_and_the_check_says_what(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(*arguments: str) -> tuple[int, str]:
        code = release.main(arguments, root)
        captured = capsys.readouterr()
        assert captured.err == ""
        return code, captured.out

    exercise = root / "exercises" / f"{NAME}.ipynb"
    assert run("--check") == (
        1,
        f"exercises/{NAME}.ipynb is not what solutions/{NAME}.ipynb makes: make exercises\n",
    )
    assert not exercise.exists()
    assert run() == (0, f"exercises/{NAME}.ipynb written\n")
    first = exercise.read_bytes()
    assert run("--check") == run() == (0, "exercises/ is what solutions/ makes.\n")
    exercise.write_bytes(first.replace(b"Say x", b"Say y"))
    assert run("--check")[0] == 1
    assert run()[0] == 0
    assert exercise.read_bytes() == first
    assert [path.name for path in exercise.parent.iterdir()] == [exercise.name], "no partial files"

    exercise.with_name("09_gone.ipynb").write_bytes(first)
    for arguments in (["--check"], []):
        code, out = run(*arguments)
        assert code == 1 and "exercises/09_gone.ipynb has no master in solutions/" in out
    assert exercise.with_name("09_gone.ipynb").exists()


def test_another_process_writes_the_same_bytes_and_nothing_on_stderr(root: Path) -> None:
    release.main([], root)
    exercise = root / "exercises" / f"{NAME}.ipynb"
    expected = exercise.read_bytes()
    exercise.unlink()
    code = f"from pathlib import Path; from qlab.learn import release; release.main([], Path({str(root)!r}))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert exercise.read_bytes() == expected


def edit(grade_id: str, old: str, new: str) -> Callable[[Any], None]:
    def change(master: Any) -> None:
        one = by_id(master)[grade_id]
        assert old in one.source
        one.source = one.source.replace(old, new)

    return change


def flag(grade_id: str, **flags: Any) -> Callable[[Any], None]:
    return lambda master: by_id(master)[grade_id].metadata.nbgrader.update(flags)


def drop(grade_id: str) -> Callable[[Any], None]:
    return lambda master: master.cells.remove(by_id(master)[grade_id])


def double(master: Any) -> None:
    copy = cell(FIRST, "")
    copy.metadata, copy.source, copy.id = by_id(master)[FIRST].metadata, by_id(master)[FIRST].source, "copy"
    master.cells.append(copy)


def swap(master: Any) -> None:
    master.cells[2], master.cells[3] = master.cells[3], master.cells[2]


def with_output(master: Any) -> None:
    by_id(master)[FIRST].outputs = [new_output("stream", text="passed")]


def without_metadata(master: Any) -> None:
    del by_id(master)[f"{FIRST}-answer"].metadata["nbgrader"]


def stranger(master: Any) -> None:
    master.cells += question("linear.zeropoint")


@pytest.mark.parametrize(
    ("breach", "says"),
    [
        (double, f"{FIRST}: 2 cells have this grade_id"),
        (stranger, "linear-zeropoint: unknown question id; 02_linear has linear-absmax,"),
        (drop(f"{FIRST}-card"), f"{FIRST}-card: this cell is missing"),
        (drop(f"{FIRST}-answer"), f"{FIRST}-answer: this cell is missing"),
        (drop(FIRST), f"{FIRST}: this cell is missing"),
        (drop("setup"), "setup: this cell is missing"),
        (swap, "the cells are not in the order of the set: linear.absmax,"),
        (edit(f"{FIRST}-answer", "    ### END SOLUTION", ""), f"{FIRST}-answer: must have ### BEGIN SOLUTION and"),
        (edit(f"{FIRST}-answer", "### BEGIN", "# BEGIN"), f"{FIRST}-answer: must have ### BEGIN SOLUTION and"),
        (edit(f"{FIRST}-answer", "return x", "return (x"), f"{FIRST}-answer: does not parse"),
        (edit(FIRST, "### END HIDDEN TESTS", ""), f"{FIRST}: must have ### BEGIN HIDDEN TESTS and"),
        (edit(FIRST, "assert ", ""), f"{FIRST}: the hidden test must assert"),
        (edit(FIRST, IDS[0], IDS[1]), f'{FIRST}: the test must call check("{IDS[0]}", …)'),
        (edit(FIRST, "linear_", "other_"), f'{FIRST}: the hidden test must call check("{IDS[0]}", …)'),
        (edit("linear-defend", "### END MARK SCHEME", ""), "linear-defend: must have ### BEGIN MARK SCHEME and"),
        (edit("title", "# Linear", "### BEGIN MARK SCHEME"), "title: MARK SCHEME does not belong in this cell"),
        (edit("title", "# Linear", "[x](../02_b.ipynb)"), "title: the link ../02_b.ipynb leads nowhere"),
        (without_metadata, "has BEGIN SOLUTION, but no nbgrader metadata"),
        (flag(f"{FIRST}-card", locked=False), f"{FIRST}-card: locked is False in the nbgrader metadata"),
        (flag(FIRST, points=0), f"{FIRST}: points is 0; it must be a number above 0"),
        (flag("linear-defend", points=None), "linear-defend: points is None"),
        (flag("setup", schema_version=2), "setup: schema_version is 2; it must be 3"),
        (edit("setup", qlab.__version__, "0.0.1"), f'setup: must call made_for("{NAME}", "{qlab.__version__}")'),
        (lambda master: master.metadata.pop("qlab"), "the notebook's metadata must have qlab: {'exercise'"),
        (with_output, f"{FIRST}: has outputs"),
        (lambda master: by_id(master)[FIRST].update(id="other"), f"{FIRST}: the cell's id is 'other'"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_master_that_breaks_the_rules_is_not_released(
    root: Path, breach: Callable[[Any], Any], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = root / "solutions" / f"{NAME}.ipynb"
    master = read(path)
    breach(master)
    write(master, path)
    assert release.main([], root) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    assert any(line.startswith(f"solutions/{NAME}.ipynb: ") and says in line for line in captured.err.splitlines())
    assert not (root / "exercises").exists()


def test_a_set_that_nobody_knows_and_a_folder_without_masters(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    master = root / "solutions" / f"{NAME}.ipynb"
    master.rename(master.with_name("77_other.ipynb"))
    assert release.main([], root) == 2
    assert "solutions/77_other.ipynb: exercise set: there is no '77_other'" in capsys.readouterr().err
    assert release.main([], tmp_path / "nowhere") == 2
    assert "has no solutions/*.ipynb" in capsys.readouterr().err


@pytest.mark.skipif(not (ROOT / "solutions").is_dir(), reason="no masters yet")
def test_the_committed_exercises_are_what_the_masters_make(capsys: pytest.CaptureFixture[str]) -> None:
    code = release.main(["--check"])
    captured = capsys.readouterr()
    assert code == 0, captured.out + captured.err


def test_the_teachers_table_agrees_with_the_masters_and_the_catalogue() -> None:
    table = (ROOT / "INSTRUCTORS.md").read_text(encoding="utf-8")
    stated = re.findall(r"^\| `([\w.]+)` \| (\d+) \| \d+ \| (\d*) ?\|", table, re.MULTILINE)
    cells = [one for path in sorted((ROOT / "solutions").glob("*.ipynb")) for one in read(path).cells]
    points = {one.id: one.metadata.nbgrader.points for one in cells if "points" in one.metadata.get("nbgrader", {})}
    assert {name.replace(".", "-"): int(number) for name, number, _ in stated} == points
    wrong_answers = {name: int(number) for name, _, number in stated if number}
    assert wrong_answers == {name: len(question_of(name).mutants) for name in all_ids()}
