from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from qlab.learn.execute import NotebookError, execute, read, write
from qlab.learn.lint import lint


def saved(path: Path, *sources: str, **metadata: Any) -> Path:
    write(new_notebook(cells=[new_code_cell(source, metadata=metadata) for source in sources]), path)
    return path


EXPLORER = """
from matplotlib.figure import Figure
from qlab.learn import explore
explore(lambda bits: Figure(figsize=(1, 1)), bits=(2, 8))
"""


def test_executed_twice_it_is_the_same_clean_file(tmp_path: Path) -> None:
    sources = ["print('a')\nprint('b')", EXPLORER, "from pathlib import Path\nPath('data.txt').read_text()"]
    path = saved(tmp_path / "a.ipynb", *sources, collapsed=True, tags=["kept"])
    (tmp_path / "data.txt").write_text("beside the notebook")
    ids = [cell.id for cell in read(path).cells]
    execute(path)
    first = path.read_bytes()
    lesson = read(path)
    assert lint(lesson, path) == []
    assert [cell.id for cell in lesson.cells] == ids
    assert [cell.execution_count for cell in lesson.cells] == [1, 2, 3]
    assert all(cell.metadata == {"tags": ["kept"]} for cell in lesson.cells)
    assert [output.text for output in lesson.cells[0].outputs] == ["a\nb\n"]
    assert lesson.cells[1].outputs[0].data == {"text/plain": "Explorer(bits)"}
    assert lesson.cells[2].outputs[0].data["text/plain"] == "'beside the notebook'"
    execute(path)
    assert path.read_bytes() == first
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.ipynb", "data.txt"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("1 / 0", "cell 2 raised ZeroDivisionError: division by zero"),
        ("import time\ntime.sleep(60)", "cell 2 took longer than 1 s"),
        ("import os\nos._exit(1)", "cell 2 killed its kernel"),
    ],
    ids=["error", "timeout", "dead"],
)
def test_a_failure_is_told_and_leaves_the_file_alone(tmp_path: Path, source: str, says: str) -> None:
    path = saved(tmp_path / "a.ipynb", "x = 1", source)
    before = path.read_bytes()
    with pytest.raises(NotebookError, match=says):
        execute(path, timeout=1)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.ipynb"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read"),
        (b"", "not a notebook"),
        (b"{}", "not a notebook"),
        (b"[1]", "not a notebook"),
        (b"\xff\xfe", "not a notebook"),
        (b'{"cells": [{}], "metadata": {}, "nbformat": 4, "nbformat_minor": 5}', "not a notebook"),
        (b'{"cells": [], "metadata": {}, "nbformat": 4, "nbformat_minor": 2}', "format 4.2 has no cell ids"),
    ],
)
def test_what_is_not_a_notebook(tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "a.ipynb"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(NotebookError, match=says):
        read(path)


def test_a_notebook_that_is_not_valid_is_not_written(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.ipynb", "x")
    before = path.read_bytes()
    broken = new_notebook(cells=[new_markdown_cell("x")])
    broken.cells[0]["cell_type"] = "poem"
    with pytest.raises(Exception, match="poem"):
        write(broken, path)
    assert path.read_bytes() == before


def test_text_that_no_file_can_hold_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.ipynb", "x")
    before = path.read_bytes()
    with pytest.raises(UnicodeEncodeError):
        saved(path, "'\ud800'")
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.ipynb"]
