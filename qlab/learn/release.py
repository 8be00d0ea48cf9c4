"""From masters to exercises: `python -m qlab.learn.release [--check]`, or `make exercises`.

A master, `solutions/NN_name.ipynb`, holds the text, the solutions, the hidden tests and the mark schemes of one
exercise set. The learner's notebook, `exercises/NN_name.ipynb`, is made from it by nbgrader's own preprocessors, in the
order of `nbgrader generate_assignment`: what a teacher releases with nbgrader has the same cells. Nobody edits it.
Exit codes: 0 all right, 1 a committed exercise differs (`--check`), 2 a master that cannot be released.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import nbformat

from .. import __version__
from .execute import NOTEBOOK_METADATA, read, write
from .question import grade_id_of
from .questions import ExerciseSet, exercise_set

MASTERS, EXERCISES = "solutions", "exercises"
REPAIR = "make exercises"

# Each kind of cell: its type, what nbgrader's metadata say of it, and the region that is cut out for the learner.
_Kind = tuple[str, tuple[bool, bool, bool, bool], str | None]
_FLAGS = ("grade", "locked", "solution", "task")
_CARD: _Kind = ("markdown", (False, True, False, False), None)
_ANSWER: _Kind = ("code", (False, False, True, False), "SOLUTION")
_TEST: _Kind = ("code", (True, True, False, False), "HIDDEN TESTS")
_TASK: _Kind = ("markdown", (False, True, False, True), "MARK SCHEME")
_FIXED: dict[str, _Kind] = {"title": _CARD, "setup": ("code", _CARD[1], None)}
_REGIONS = ("SOLUTION", "HIDDEN TESTS", "MARK SCHEME")


def release(master: Any, name: str) -> Any:
    """The learner's notebook: without solutions, hidden tests and mark schemes, with locks and checksums.

    Args:
        master: the notebook as from `qlab.learn.execute.read`; it stays as it is.
        name: of the exercise set: "02_linear".

    Raises:
        ValueError: the master breaks the rules of masters; the message has one line for each breach.
    """
    if found := list(findings(master, name)):
        raise ValueError("\n".join(f"{MASTERS}/{name}.ipynb: {finding}" for finding in found))
    notebook = nbformat.from_dict(master)
    for preprocessor in preprocessors():
        notebook, _ = preprocessor().preprocess(notebook, {})
    notebook.metadata = nbformat.from_dict(
        {**NOTEBOOK_METADATA, "qlab": {"exercise": name, "version": __version__}},
    )
    return notebook


def preprocessors() -> list[Any]:
    """nbgrader's, as `generate_assignment` runs them, without those that need a database, a header or a kernel."""
    from nbgrader import preprocessors as nbgrader

    return [
        nbgrader.LockCells,
        nbgrader.ClearSolutions,
        nbgrader.ClearOutput,
        nbgrader.CheckCellMetadata,
        nbgrader.ComputeChecksums,
        nbgrader.ClearHiddenTests,
        nbgrader.ClearMarkScheme,
        nbgrader.ComputeChecksums,  # again: the tests have changed
        nbgrader.CheckCellMetadata,
    ]


def findings(master: Any, name: str) -> Iterator[str]:
    """What forbids the release of this master, in words, each with the cell's id."""
    try:
        questions = exercise_set(name)
    except ValueError as error:
        yield str(error)
        return
    cells: dict[str, Any] = {}
    for number, cell in enumerate(master.cells, start=1):
        yield from _cell(cell, number, questions)
        cells.setdefault(_grade_id(cell) or f"cell {number}", cell)
    for grade_id, count in Counter(filter(None, map(_grade_id, master.cells))).items():
        if count > 1:
            yield f"{grade_id}: {count} cells have this grade_id"
    for missing in [grade_id for grade_id in _wanted(questions) if grade_id not in cells]:
        yield f"{missing}: this cell is missing"
    order = [grade_id for grade_id in cells if grade_id in _wanted(questions)]
    if order != [grade_id for grade_id in _wanted(questions) if grade_id in cells]:
        yield f"the cells are not in the order of the set: {', '.join(questions.questions)}"
    if "setup" in cells:
        yield from _versions(cells["setup"], master, questions)
    for question_id in questions.questions:
        grade_id = grade_id_of(question_id)
        if grade_id in cells and f"{grade_id}-answer" in cells:
            yield from _question(question_id, cells[grade_id], cells[f"{grade_id}-answer"])


def _wanted(questions: ExerciseSet) -> dict[str, _Kind]:
    """The cells that a master must have, in this order, and their kinds."""
    wanted = dict(_FIXED)
    for grade_id in map(grade_id_of, questions.questions):
        wanted |= {f"{grade_id}-card": _CARD, f"{grade_id}-answer": _ANSWER, grade_id: _TEST}
    return wanted


def _cell(cell: Any, number: int, questions: ExerciseSet) -> Iterator[str]:
    """What is wrong with one cell by itself."""
    grade_id = _grade_id(cell)
    here = grade_id or f"cell {number}"
    if cell.get("outputs") or cell.get("execution_count"):
        yield f"{here}: has outputs; a master is committed without"
    for link in re.findall(r"\]\((\.\./(?!notebooks/)[^)]*\.ipynb)", cell.source):
        yield f"{here}: the link {link} leads nowhere; lessons are ../notebooks/…, and workspace.py adapts the copies"
    data = cell.metadata.get("nbgrader")
    kind = _wanted(questions).get(grade_id or "")
    if data is None:
        for region in filter(lambda region: f"BEGIN {region}" in cell.source, _REGIONS):
            yield f"{here}: has BEGIN {region}, but no nbgrader metadata"
        return
    if cell.id != grade_id:
        yield f"{here}: the cell's id is {cell.id!r}; it must be its grade_id"
    if kind is None and data.get("task"):
        kind = _TASK
    if kind is None:
        if data.get("grade") or data.get("solution"):
            known = ", ".join(map(grade_id_of, questions.questions))
            yield f"{here}: unknown question id; {questions.name} has {known}"
        kind = (cell.cell_type, _CARD[1], None)
    yield from _kind(cell, here, data, kind)


def _kind(cell: Any, here: str, data: Any, kind: _Kind) -> Iterator[str]:
    cell_type, flags, region = kind
    if cell.cell_type != cell_type:
        yield f"{here}: is a {cell.cell_type} cell; it must be a {cell_type} cell"
    if data.get("schema_version") != 3:
        yield f"{here}: schema_version is {data.get('schema_version')}; it must be 3"
    for flag, value in zip(_FLAGS, flags, strict=True):
        if data.get(flag) is not value:
            yield f"{here}: {flag} is {data.get(flag)} in the nbgrader metadata; it must be {value}"
    points = data.get("points")
    if kind in (_TEST, _TASK) and not (isinstance(points, int | float) and points > 0):
        yield f"{here}: points is {points}; it must be a number above 0"
    for other in _REGIONS:
        marks = re.findall(rf"^ *### (BEGIN|END) {other}$", cell.source, re.MULTILINE)
        mentioned = cell.source.count(f"BEGIN {other}") + cell.source.count(f"END {other}")
        if other == region and (marks != ["BEGIN", "END"] or mentioned != 2):
            yield f"{here}: must have ### BEGIN {other} and ### END {other}, once, each on its line"
        elif other != region and mentioned:
            yield f"{here}: {other} does not belong in this cell"


def _versions(setup: Any, master: Any, questions: ExerciseSet) -> Iterator[str]:
    made_for = f'made_for("{questions.name}", "{__version__}")'
    if (questions.name, __version__) not in _calls(setup.source, "made_for"):
        yield f"setup: must call {made_for}: this is qlab {__version__}"
    stamp = {"exercise": questions.name, "version": __version__}
    if master.metadata.get("qlab") != stamp:
        yield f"the notebook's metadata must have qlab: {stamp}; it has {dict(master.metadata.get('qlab', {}))}"


def _question(question_id: str, test: Any, answer: Any) -> Iterator[str]:
    """Whether the test asks for this question, about a function that the answer defines."""
    here = grade_id_of(question_id)
    visible, _, hidden = test.source.partition("### BEGIN HIDDEN TESTS")
    try:
        functions = {node.name for node in ast.parse(answer.source).body if isinstance(node, ast.FunctionDef)}
    except SyntaxError as error:
        yield f"{here}-answer: does not parse: {error.msg} (line {error.lineno})"
        return
    wanted = {(question_id, function) for function in functions}
    for part, source in (("the test", visible), ("the hidden test", hidden)):
        if not wanted & set(_calls(source, "check")):
            yield f'{here}: {part} must call check("{question_id}", …) with the function of {here}-answer'
    # nbgrader takes the points away only for an exception; a failed check alone prints and returns.
    if not re.search(r"^assert .*\.passed$", hidden, re.MULTILINE):
        yield f"{here}: the hidden test must assert check(…).passed"


def _calls(source: str, function: str) -> list[tuple[Any, ...]]:
    """The first two arguments of every call of that function: constants as they are, names as strings."""
    try:
        calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    except SyntaxError:
        return []
    values = {ast.Constant: "value", ast.Name: "id"}
    return [
        tuple(getattr(value, values.get(type(value), ""), None) for value in call.args[:2])
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == function
    ]


def _grade_id(cell: Any) -> str | None:
    grade_id = cell.metadata.get("nbgrader", {}).get("grade_id")
    return None if grade_id is None else str(grade_id)


def differences(root: Path) -> dict[Path, Any]:
    """The exercises under `root` that are not what their masters make: path and the notebook that belongs there.

    The notebook is None where an exercise has no master.

    Raises:
        ValueError: there are no masters, or some cannot be released.
    """
    masters = sorted((root / MASTERS).glob("*.ipynb"))
    if not masters:
        raise ValueError(f"root: {root} has no {MASTERS}/*.ipynb; give the folder of the qlab repository")
    found: dict[Path, Any] = {}
    errors: list[str] = []
    for path in masters:
        try:
            notebook = release(read(path), path.stem)
        except ValueError as error:
            errors.append(str(error))
            continue
        target = root / EXERCISES / path.name
        if not target.is_file() or target.read_text(encoding="utf-8") != nbformat.writes(notebook) + "\n":
            found[target] = notebook
    if errors:
        raise ValueError("\n".join(errors))
    names = {path.name for path in masters}
    orphans = [path for path in sorted((root / EXERCISES).glob("*.ipynb")) if path.name not in names]
    return found | dict.fromkeys(orphans)


def main(arguments: Sequence[str] | None = None, root: Path | None = None) -> int:
    """Write the exercises that differ from their masters, or only name them; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m qlab.learn.release", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--check", action="store_true", help="write nothing; exit code 1 if an exercise differs")
    options = parser.parse_args(arguments)
    root = Path(__file__).resolve().parents[2] if root is None else root
    try:
        different = differences(root)
        for path, notebook in different.items():
            shown = path.relative_to(root)
            if notebook is None:
                print(f"{shown} has no master in {MASTERS}/: write one, or remove it with git rm {shown}")
            elif options.check:
                print(f"{shown} is not what {MASTERS}/{path.name} makes: {REPAIR}")
            else:
                write(notebook, path)
                print(f"{shown} written")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if not different:
        print(f"{EXERCISES}/ is what {MASTERS}/ makes.")
    return int((options.check and bool(different)) or None in different.values())


if __name__ == "__main__":
    sys.exit(main())
