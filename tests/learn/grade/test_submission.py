"""Merging with the master: what is locked comes from it, what the learner wrote keeps its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qlab.learn.grade.submission import (
    Master,
    Merged,
    SubmissionError,
    merge,
    names,
    read_master,
    read_notebook,
    which_set,
)


@pytest.fixture
def master(workshop: Any) -> Master:
    return read_master(workshop.master)


Merge = Callable[[Any], Merged]


@pytest.fixture
def merged(master: Master, tmp_path: Path) -> Merge:
    def call(submission: Any) -> Merged:
        file = tmp_path / "s.ipynb"
        file.write_text(json.dumps(submission))
        return merge(read_notebook(file), master)

    return call


def sources(merged: Merged) -> list[str]:
    return [cell.source for cell in merged.cells]


def test_master_without_what_is_hidden(master: Master) -> None:
    assert master.points == {"linear.absmax": 2, "linear.zero_point": 2}
    assert master.for_a_person == {"linear-defend": 5}
    assert master.answers == {"linear-absmax-answer", "linear-zero_point-answer"}
    text = "\n".join(cell.source for cell in master.cells)
    assert "only the teacher knows" not in text
    assert "SOLUTION" not in text and "qmax" not in text
    assert "Defend it." in text


@pytest.mark.parametrize(
    "region", ["### BEGIN HIDDEN TESTS\nleft open", "  ### BEGIN MARK SCHEME\nx\n  ### END MARK SCHEME"]
)
def test_hidden_regions_go_also_when_they_are_indented_or_left_open(region: str, workshop: Any, tmp_path: Path) -> None:
    content = workshop.submission()
    content["cells"][0]["source"] = f"before\n{region}"
    (tmp_path / "m.ipynb").write_text(json.dumps(content))
    assert read_master(tmp_path / "m.ipynb").cells[0].source == "before\n"


def test_checks_become_cells_that_collect(merged: Merge, workshop: Any) -> None:
    cells = merged(workshop.submission()).cells
    assert [cell.question for cell in cells if cell.question] == ["linear.absmax", "linear.zero_point"]
    assert not any("check(" in cell.source for cell in cells)
    [collecting] = [cell for cell in cells if cell.question == "linear.absmax"]
    assert collecting.source.endswith("collect('linear-absmax', 'absmax_quantize')")


def test_locked_cells_are_the_masters(merged: Merge, workshop: Any) -> None:
    right = merged(workshop.submission())
    edited = workshop.submission()
    for one in edited["cells"]:
        if not one["id"].endswith("-answer"):
            one |= {"source": "raise SystemExit", "cell_type": "code"}
    assert merged(edited) == right
    # Also when they were removed, copied, or put in another order.
    answers = [one for one in edited["cells"] if one["id"].endswith("-answer")]
    assert merged(edited | {"cells": answers}).cells == right.cells
    assert merged(edited | {"cells": answers[::-1]}).cells == right.cells
    assert merged(edited | {"cells": [*edited["cells"], *edited["cells"]]}).cells[-1] == right.cells[-1]


@pytest.mark.parametrize(
    "change",
    [
        lambda cell: cell.update(metadata={}),
        lambda cell: cell.pop("id"),
        lambda cell: cell["metadata"]["nbgrader"].update(schema_version="x", points=1e9, solution=0, grade=0, locked=0),
        lambda cell: cell["metadata"]["nbgrader"].update(grade_id=[1]),
        lambda cell: cell.update(metadata=[3]),
        lambda cell: cell.update(source=[cell["source"]], outputs=[{"output_type": 5}], attachments=7),
    ],
)
def test_metadata_of_the_submission_do_not_matter(change: Any, merged: Merge, workshop: Any) -> None:
    submission = workshop.submission()
    for cell in submission["cells"]:
        change(cell)
    assert merged(submission) == merged(workshop.submission())


def test_cells_that_are_none_are_left_out(merged: Merge, workshop: Any) -> None:
    submission = workshop.submission()
    submission["cells"][1:1] = [1, None, [], {"cell_type": "x"}, {"source": "x"}]
    assert merged(submission) == merged(workshop.submission())


def test_deleted_answer_is_missing(merged: Merge, workshop: Any) -> None:
    submission = workshop.submission()
    submission["cells"] = [cell for cell in submission["cells"] if cell["id"] != "linear-zero_point-answer"]
    found = merged(submission)
    assert "missing cells: linear-zero_point-answer" in found.notes
    assert found.answer_cells["linear.zero_point"] == ()
    assert len(found.cells) == len(merged(workshop.submission()).cells) - 1


def test_copies_run_in_their_order_at_the_first_ones_place(merged: Merge, workshop: Any) -> None:
    submission = workshop.submission(second="first = 1")
    answer = next(cell for cell in submission["cells"] if cell["id"] == "linear-zero_point-answer")
    submission["cells"].append({**answer, "id": "copy", "source": "second = 2"})
    found = merged(submission)
    at = sources(found).index("first = 1")
    assert sources(found)[at + 1] == "second = 2"
    assert found.answer_cells["linear.zero_point"] == (at, at + 1)
    assert "there are 2 cells linear-zero_point-answer; all run" in found.notes


def test_cells_of_ones_own_stay_where_they_are(merged: Merge, workshop: Any) -> None:
    submission = workshop.submission()
    mine = {"cell_type": "code", "metadata": {}}
    known = [cell["id"] for cell in submission["cells"]]
    cells = [{**mine, "source": "mine, first of all"}]
    for number, cell in enumerate(submission["cells"]):
        cells += [cell, {**mine, "source": f"mine behind {known[number]}"}, {**mine, "source": "and one more"}]
    found = sources(merged(submission | {"cells": cells}))
    assert found[0] == "mine, first of all"
    assert len(found) == len(cells)
    at = found.index("mine behind linear-absmax-answer")
    assert "absmax_quantize" in found[at - 1]
    assert found[at + 1] == "and one more"
    assert "collect('linear-absmax'" in found[at + 2]


def test_answer_that_is_no_code_is_noted(merged: Merge, workshop: Any) -> None:
    submission = workshop.submission()
    submission["cells"][3]["cell_type"] = "raw"
    assert "the answer cell linear-absmax-answer is a raw cell, which does not run" in merged(submission).notes


def test_set_is_known_from_metadata_or_name(workshop: Any, tmp_path: Path) -> None:
    def read(**about: Any) -> Any:
        (tmp_path / "s.ipynb").write_text(json.dumps(workshop.submission(**about)))
        return read_notebook(tmp_path / "s.ipynb")

    assert which_set(read(), Path("x.ipynb")) == "02_linear"
    assert which_set(read(qlab={}), Path("alice_01_memory_math (2).ipynb")) == "01_memory_math"
    assert which_set(read(qlab=[1]), Path("02_linear.ipynb")) == "02_linear"
    for odd in ("../../etc/passwd", "", "99", 7):
        with pytest.raises(SubmissionError, match=r"neither .* 01_memory_math"):
            which_set(read(qlab={"exercise": odd}), Path("homework.ipynb"))


def test_master_that_is_none_is_refused(tmp_path: Path, workshop: Any) -> None:
    with pytest.raises(ValueError, match=r"master: there is no file"):
        read_master(tmp_path / "none.ipynb")
    (tmp_path / "m.ipynb").write_text("[]")
    with pytest.raises(ValueError, match=r"master: .* is not a notebook"):
        read_master(tmp_path / "m.ipynb")
    (tmp_path / "m.ipynb").write_text(json.dumps({"cells": []}))
    with pytest.raises(ValueError, match=r"grades no question"):
        read_master(tmp_path / "m.ipynb")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ([("class/alice/02.ipynb", "class"), ("class/bob/02.ipynb", "class")], ["alice/02", "bob/02"]),
        ([("class/alice_02.ipynb", "class"), ("class/bob_02.ipynb", "class")], ["alice_02", "bob_02"]),
        ([("class/alice/02.ipynb", "class")], ["alice/02"]),
        ([("a/02.ipynb", "a")], ["02"]),
        ([("a/02.ipynb", "a"), ("b/02.ipynb", "b"), ("b/03.ipynb", "b")], ["a/02", "b/02", "03"]),
        ([("x/a/02.ipynb", "x/a"), ("y/a/02.ipynb", "y/a")], ["x/a/02", "y/a/02"]),
        ([("c/a/1.ipynb", "c"), ("d/a/1.ipynb", "d")], ["c/a/1", "d/a/1"]),
        ([("c/A.ipynb", "c"), ("c/a.ipynb", "c")], None),
    ],
)
def test_every_result_has_a_name_of_its_own(files: Any, expected: list[str] | None) -> None:
    found = [path.as_posix() for path in names([(Path(file), Path(root)) for file, root in files])]
    if expected is not None:
        assert found == expected
    assert len({name.casefold() for name in found}) == len(found)


def test_names_that_a_disk_cannot_hold_are_cut() -> None:
    long = "x" * 240
    first, second = names([(Path(f"c/{long}a.ipynb"), Path("c")), (Path(f"c/{long}b.ipynb"), Path("c"))])
    assert first != second
    assert len(first.name) < 130 and len(second.name) < 130
