from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from qlab.learn import workspace
from qlab.learn.execute import read, write
from qlab.learn.workspace import copy_lessons


def lesson(source: str = "print(1)") -> nbformat.NotebookNode:
    code = new_code_cell(
        source,
        execution_count=1,
        outputs=[new_output("stream", text="1\n")],
        metadata={"tags": ["nbval-ignore-output"]},
    )
    return new_notebook(cells=[new_markdown_cell("# One"), code])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "notebooks").mkdir()
    for name in ("00_a.ipynb", "01_b.ipynb"):
        write(lesson(), tmp_path / "notebooks" / name)
    return tmp_path


def test_copies_have_no_outputs_but_ids_and_tags(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copied = copy_lessons(root)
    assert copied == [root / "work" / "00_a.ipynb", root / "work" / "01_b.ipynb"]
    assert capsys.readouterr().out == "Copied to work/: 00_a.ipynb, 01_b.ipynb.\n"
    original, copy = read(root / "notebooks" / "00_a.ipynb"), read(copied[0])
    assert [(cell.id, cell.source) for cell in copy.cells] == [(cell.id, cell.source) for cell in original.cells]
    assert copy.cells[1].outputs == [] and copy.cells[1].execution_count is None
    assert copy.cells[1].metadata.tags == ["nbval-ignore-output"]
    assert original.cells[1].outputs, "the lesson itself keeps its outputs"
    assert sorted(path.name for path in (root / "work").iterdir()) == ["00_a.ipynb", "01_b.ipynb"]


def test_a_learners_file_is_never_touched(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mine = root / "work" / "00_a.ipynb"
    mine.parent.mkdir()
    mine.write_text("not even a notebook")
    assert copy_lessons(root) == [root / "work" / "01_b.ipynb"]
    assert copy_lessons(root) == []
    assert mine.read_text() == "not even a notebook"
    assert "Left as they are in work/: 00_a.ipynb, 01_b.ipynb." in capsys.readouterr().out


def test_a_link_that_leads_nowhere_is_a_learners_file_too(root: Path) -> None:
    (root / "work").mkdir()
    (root / "work" / "00_a.ipynb").symlink_to(root / "elsewhere.ipynb")
    assert copy_lessons(root) == [root / "work" / "01_b.ipynb"]
    assert not (root / "elsewhere.ipynb").exists()


def test_a_newer_lesson_is_announced_and_not_copied(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = copy_lessons(root)[0]
    solved = read(copy)
    solved.cells[1].source = "print('mine')"
    write(solved, copy)
    capsys.readouterr()
    copy_lessons(root)
    assert "newer" not in capsys.readouterr().out, "the learner changed the copy, nobody changed the lesson"

    write(lesson("print(2)"), root / "notebooks" / "00_a.ipynb")
    assert copy_lessons(root) == []
    out = capsys.readouterr().out
    assert "00_a.ipynb has a newer version" in out and "rename or delete work/00_a.ipynb" in out
    assert "01_b.ipynb has" not in out
    assert read(copy).cells[1].source == "print('mine')"

    copy.rename(copy.with_name("mine.ipynb"))
    assert copy_lessons(root) == [copy]
    assert read(copy).cells[1].source == "print(2)"


def test_another_run_of_a_lesson_is_not_a_newer_version(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy_lessons(root)
    again = read(root / "notebooks" / "00_a.ipynb")
    again.cells[1].outputs[0].text = "2\n"
    write(again, root / "notebooks" / "00_a.ipynb")
    copy_lessons(root)
    assert "newer" not in capsys.readouterr().out


def test_another_folder(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copied = copy_lessons(root, tmp_path / "deep" / "down")
    assert [path.parent for path in copied] == [tmp_path / "deep" / "down"] * 2
    assert "Copied to down/" in capsys.readouterr().out


def test_bad_folders_are_named(root: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"root: .* has no folder notebooks/"):
        copy_lessons(tmp_path / "nowhere")
    (root / "work").write_text("")
    with pytest.raises(ValueError, match=r"work: .* is a file"):
        copy_lessons(root)


def test_a_broken_lesson_leaves_no_half_copy(root: Path) -> None:
    (root / "notebooks" / "00_a.ipynb").write_text('{"cells": [')
    with pytest.raises(ValueError, match="not a notebook"):
        copy_lessons(root)
    assert list((root / "work").iterdir()) == []


def test_the_command(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(workspace, "__file__", str(root / "qlab" / "learn" / "workspace.py"))
    assert workspace.main() == 0
    assert (root / "work" / "00_a.ipynb").exists()
    monkeypatch.setattr(workspace, "__file__", str(root / "other" / "qlab" / "learn" / "workspace.py"))
    assert workspace.main() == 2
    assert "has no folder notebooks/" in capsys.readouterr().err
