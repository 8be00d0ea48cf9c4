"""A small master of two questions, and submissions made from it."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from qlab.learn.grade import isolation
from qlab.learn.grade.grader import grade_files
from qlab.learn.grade.result import Result
from qlab.learn.questions import question

FIRST, SECOND = "linear.absmax", "linear.zero_point"
POINTS = 2  # each
SECRET = "only the teacher knows this"


def cell(kind: str, grade_id: str | None, source: str, **about: Any) -> dict[str, Any]:
    """One cell as nbformat 4.5 has it."""
    flags = {"schema_version": 3, "grade": False, "locked": True, "solution": False, "task": False}
    made: dict[str, Any] = {"cell_type": kind, "metadata": {}, "source": source}
    if grade_id is not None:
        made |= {"id": grade_id, "metadata": {"nbgrader": {**flags, "grade_id": grade_id} | about}}
    return made | ({"outputs": [], "execution_count": None} if kind == "code" else {})


def notebook(cells: Sequence[dict[str, Any]], **about: Any) -> dict[str, Any]:
    exercise = {"exercise": "02_linear", "version": "0.1.0"}
    return {"cells": list(cells), "metadata": {"qlab": exercise} | about, "nbformat": 4, "nbformat_minor": 5}


class Workshop:
    """Makes submissions: by default one in which all is right."""

    def __init__(self, folder: Path) -> None:
        self.right = {one: inspect.getsource(question(one).reference) for one in (FIRST, SECOND)}
        self.master = folder / "02_linear.ipynb"
        self.master.write_text(json.dumps(notebook(self._cells(self.right, hidden=True))))

    def _cells(self, answers: dict[str, str], hidden: bool) -> list[dict[str, Any]]:
        cells = [
            cell("markdown", "title", "# Exercise set 02"),
            cell("code", "setup", "import torch\n\nimport qlab\nfrom qlab.learn import check, made_for"),
        ]
        for one, answer in answers.items():
            asked = question(one)
            name, call = asked.grade_id, f'check("{one}", {asked.function})'
            if hidden:
                call += f"\n### BEGIN HIDDEN TESTS\nassert {call}.passed  # {SECRET}\n### END HIDDEN TESTS"
                answer = f"### BEGIN SOLUTION\n{answer}\n### END SOLUTION"
            cells += [
                cell("markdown", f"{name}-card", f"## {asked.title}"),
                cell("code", f"{name}-answer", answer, solution=True, locked=False),
                cell("code", name, call, grade=True, points=POINTS),
            ]
        scheme = f"\n### BEGIN MARK SCHEME\n{SECRET}\n### END MARK SCHEME" if hidden else ""
        return [*cells, cell("markdown", "linear-defend", f"Defend it.{scheme}", task=True, points=5)]

    def submission(self, first: str | None = None, second: str | None = None, **about: Any) -> dict[str, Any]:
        """A submission; each answer may be another source."""
        given = zip(self.right, (first, second), strict=True)
        answers = {one: self.right[one] if source is None else source for one, source in given}
        return notebook(self._cells(answers, hidden=False), **about)

    def stub(self, one: str) -> str:
        """The empty answer, as nbgrader leaves it."""
        return f"def {question(one).function}(x, bits):\n    # YOUR CODE HERE\n    raise NotImplementedError()\n"

    def with_cell(self, source: str, behind: str = "setup", **answers: str) -> dict[str, Any]:
        """A submission with one more code cell, behind the cell of that name."""
        made = self.submission(**answers)
        at = [one.get("id") for one in made["cells"]].index(behind) + 1
        made["cells"].insert(at, cell("code", None, source))
        return made


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return Workshop(tmp_path_factory.mktemp("master"))


@pytest.fixture(scope="session")
def level() -> str:
    """The best level that works here; in a test the watchdog is good enough for root, too."""
    return isolation.reach("auto", force=True)


@pytest.fixture(scope="session")
def namespaces() -> None:
    """For tests of what only namespaces can do."""
    if problem := isolation.probe():
        pytest.skip(f"namespaces do not work here: {problem}")


LIMITS = isolation.Limits(cell_seconds=2, total_seconds=100, memory=2 << 30, processes=40)

Grade = Callable[..., Result]


@pytest.fixture
def grade(workshop: Workshop, level: str, tmp_path: Path) -> Grade:
    """Grade a submission, given as a notebook or as the bytes of a file, and write its result to `tmp_path / "out"`."""

    def call(submission: Any, **options: Any) -> Result:
        file = tmp_path / "student.ipynb"
        file.write_bytes(submission if isinstance(submission, bytes) else json.dumps(submission).encode())
        options = {"isolation": level, "limits": LIMITS} | options
        [result] = grade_files(
            [file], master=workshop.master, out=tmp_path / "out", force=True, seed=11, jobs=1, **options
        )
        return result

    return call
