"""What is run for a submission: the learner's cells in the places that the master gives them.

Everything that is locked comes from the master, whatever the submission has there. Of the submission only cell types,
sources and grade_ids are looked at; outputs and all other metadata are left behind.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..files import printable, read_strictly
from ..question import Question, grade_id_of
from ..questions import SETS, all_ids, question

MAX_BYTES = 16 << 20  # of a submission: a notebook of the course takes less than 100 kB
MAX_CELLS = 500
_LONGEST = 120  # characters of a part of a result's name
_HIDDEN = re.compile(
    r"^[^\n]*### BEGIN (HIDDEN TESTS|MARK SCHEME|SOLUTION)\b.*?(?:^[^\n]*### END \1[^\n]*\n?|\Z)", re.S | re.M
)


class SubmissionError(ValueError):
    """A file that cannot be graded: not a notebook, or of no exercise set that is known."""


@dataclass(frozen=True)
class Cell:
    """One cell of a notebook, as far as grading looks at it.

    `question` is the id of the question whose answer the cell collects; only the grader makes such cells.
    """

    kind: Literal["code", "markdown", "raw"]
    source: str
    grade_id: str | None = None
    mine: bool = True  # the learner's, not the master's
    question: str | None = None


@dataclass(frozen=True)
class Notebook:
    """A notebook as it was read: its cells, and what its metadata say about the exercise."""

    cells: tuple[Cell, ...]
    exercise: str | None = None
    version: str | None = None


@dataclass(frozen=True)
class Master:
    """The master of an exercise set, without its solutions, hidden tests and mark schemes.

    Args:
        name: "02_linear".
        cells: in order; those of `answers` are empty.
        answers: the grade_ids of the cells that the learner fills.
        points: of each question, by its id, in the order of the notebook.
        for_a_person: points of what a person grades, by grade_id.
    """

    name: str
    cells: tuple[Cell, ...]
    answers: frozenset[str]
    points: dict[str, float]
    for_a_person: dict[str, float]


@dataclass(frozen=True)
class Merged:
    """The notebook that is run.

    `answer_cells` gives for each question the indices of the learner's cells between the check before and its own.
    `notes` say what was unusual about the submission.
    """

    cells: tuple[Cell, ...]
    answer_cells: dict[str, tuple[int, ...]]
    notes: tuple[str, ...] = field(default=())


def read_notebook(path: Path) -> Notebook:
    """Read a notebook that anybody may have written.

    Raises:
        SubmissionError: it cannot be read, or is not a notebook of format 4. Nothing of its content is in the message.
    """
    try:
        content = json.loads(read_strictly(path, MAX_BYTES))
    except OSError as error:
        raise SubmissionError(f"it cannot be read ({error.strerror})") from None
    except json.JSONDecodeError as error:
        raise SubmissionError(f"not a notebook: it stops being JSON at line {error.lineno}") from None
    except RecursionError:
        raise SubmissionError("not a notebook: it is too deeply nested") from None
    except UnicodeDecodeError:
        raise SubmissionError("not a notebook: it is not text") from None
    except ValueError as error:
        raise SubmissionError(f"not a notebook: {error}") from None
    if not isinstance(content, dict) or not isinstance(content.get("cells"), list):
        raise SubmissionError("not a notebook: it has no list of cells")
    if content.get("nbformat") != 4:
        raise SubmissionError("its notebook format is not 4; open it in JupyterLab and save it again")
    if len(content["cells"]) > MAX_CELLS:
        raise SubmissionError(f"it has {len(content['cells']):,} cells; {MAX_CELLS} are allowed")
    about = _dict(_dict(content.get("metadata")).get("qlab"))
    cells = tuple(cell for raw in content["cells"] if (cell := _cell(raw)))
    return Notebook(cells, _text(about.get("exercise")), _text(about.get("version")))


def which_set(notebook: Notebook, path: Path) -> str:
    """The name of the exercise set: by the notebook's metadata, else by its file name.

    Raises:
        SubmissionError: neither tells.
    """
    names = [one.name for one in SETS]
    if notebook.exercise in names:
        return str(notebook.exercise)
    found = [name for name in names if name in path.stem]
    if len(found) != 1:
        raise SubmissionError(
            f"neither its metadata nor its name tells the exercise set; sets: {', '.join(names)} (or name a --master)"
        )
    return found[0]


def read_master(path: Path) -> Master:
    """Read the master of an exercise set.

    Raises:
        ValueError: it cannot be read, or holds no question that the library has; the message names the file.
    """
    try:
        content = json.loads(read_strictly(path.resolve(), MAX_BYTES))
        raw_cells = [(raw, cell) for raw in content["cells"] if (cell := _cell(raw))]
        name = str(_dict(_dict(content.get("metadata")).get("qlab")).get("exercise") or path.stem)
    except FileNotFoundError:
        raise ValueError(f"master: there is no file {path}") from None
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise ValueError(f"master: {path} is not a notebook ({error})") from None
    ids = {grade_id_of(question_id): question_id for question_id in all_ids()}
    cells, answers, points, person = [], set(), {}, {}
    for raw, cell in raw_cells:
        about = _dict(raw["metadata"].get("nbgrader"))
        worth = about.get("points")
        worth = float(worth) if isinstance(worth, int | float) else 0.0
        is_graded = about.get("grade") and not about.get("solution")
        if about.get("solution"):
            answers.add(str(cell.grade_id))
        elif is_graded and cell.grade_id in ids:
            points[ids[cell.grade_id]] = worth
        if about.get("task") or (about.get("grade") and cell.grade_id not in ids):
            person[str(cell.grade_id)] = worth
        question_id = ids.get(str(cell.grade_id)) if is_graded else None
        source = "" if about.get("solution") else _HIDDEN.sub("", cell.source)
        cells.append(Cell(cell.kind, source, cell.grade_id, mine=False, question=question_id))
    if not points:
        raise ValueError(f"master: {path} grades no question of the library")
    return Master(name, tuple(cells), frozenset(answers), points, person)


def merge(submission: Notebook, master: Master) -> Merged:
    """The learner's cells in the master's notebook.

    The master's order holds. An answer goes where the master has its answer cell; where a submission has several of one
    grade_id, they all run there in their order, so the last one counts. A cell that the master does not know stays
    behind the known cell that it followed. What was deleted is missing. Each check becomes a cell that collects.
    """
    known = {cell.grade_id for cell in master.cells if cell.grade_id}
    behind: dict[str | None, list[Cell]] = {}  # the learner's cells, by the known cell that they belong to
    counts: dict[str, int] = {}
    notes = []
    place: str | None = None
    for cell in submission.cells:
        if cell.grade_id in known:
            place = cell.grade_id
            counts[str(place)] = counts.get(str(place), 0) + 1
        if cell.grade_id in master.answers or cell.grade_id not in known:
            behind.setdefault(place, []).append(cell)
        if cell.grade_id in master.answers and cell.kind != "code":
            notes.append(f"the answer cell {cell.grade_id} is a {cell.kind} cell, which does not run")
    for grade_id, count in counts.items():
        if count > 1:
            notes.append(
                f"there are {count} cells {grade_id}; {'all run' if grade_id in master.answers else 'one counts'}"
            )
    if missing := [
        grade_id for grade_id in dict.fromkeys(c.grade_id for c in master.cells if c.grade_id) if grade_id not in counts
    ]:
        notes.append(f"missing cells: {', '.join(missing)}")

    cells = list(behind.get(None, ()))
    answer_cells: dict[str, tuple[int, ...]] = {}
    first = 0
    for own in master.cells:
        if own.question:
            answer_cells[own.question] = tuple(n for n in range(first, len(cells)) if cells[n].mine)
            cells.append(_collecting(question(own.question), own))
            first = len(cells)
        elif own.grade_id not in master.answers:
            cells.append(own)
        if own.grade_id:
            cells += behind.get(own.grade_id, ())
    return Merged(tuple(cells), answer_cells, tuple(notes))


def _collecting(asked: Question, check: Cell) -> Cell:
    source = f"from qlab.learn.grade.collect import collect\n\ncollect({asked.grade_id!r}, {asked.function!r})"
    return Cell("code", source, check.grade_id, mine=False, question=asked.id)


def _cell(raw: Any) -> Cell | None:
    """The cell, or None for what is none."""
    if not isinstance(raw, dict) or raw.get("cell_type") not in ("code", "markdown", "raw"):
        return None
    raw.setdefault("metadata", {})
    source = raw.get("source")
    if isinstance(source, list):
        source = "".join(line for line in source if isinstance(line, str))
    # Some editors drop metadata; the course's cells carry their grade_id as their id, too.
    about = _dict(_dict(raw["metadata"]).get("nbgrader"))
    grade_id = _text(about.get("grade_id")) or _text(raw.get("id"))
    return Cell(raw["cell_type"], source if isinstance(source, str) else "", grade_id)


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return printable(value, 100) if isinstance(value, str) and value else None


def names(files: Sequence[tuple[Path, Path]]) -> list[Path]:
    """A result's path without its ending for each (file, the folder that it was found in), all different.

    It is the file's path within its folder, so that two students' `02_linear.ipynb` stay apart; where that is not
    enough, more of the path is taken, and at last a number. Upper and lower case are the same: on some disks they are.
    """
    parts = [file.resolve().with_suffix("").parts for file, _ in files]
    lengths = [max(len(file.resolve().parts) - len(root.resolve().parts), 1) for file, root in files]
    for _ in range(max(map(len, parts), default=0)):
        keys = ["/".join(p[-n:]).casefold() for p, n in zip(parts, lengths, strict=True)]
        if len(set(keys)) == len(keys):
            break
        lengths = [min(n + (keys.count(key) > 1), len(p) - 1) for n, key, p in zip(lengths, keys, parts, strict=True)]
    found: list[Path] = []
    used: set[str] = set()
    for p, n in zip(parts, lengths, strict=True):
        name = base = "/".join(part[:_LONGEST] for part in p[-n:])
        number = 1
        while name.casefold() in used:
            number += 1
            name = f"{base}-{number}"
        used.add(name.casefold())
        found.append(Path(name))
    return found
