"""The command: what it prints and how it exits. What the tools do is tested beside each."""

from __future__ import annotations

from pathlib import Path

import pytest
from nbformat.v4 import new_code_cell, new_notebook

from qlab.learn.execute import read, write
from qlab.learn.notebooks import main


@pytest.fixture
def lesson(tmp_path: Path) -> Path:
    path = tmp_path / "notebooks" / "a.ipynb"
    path.parent.mkdir()
    write(new_notebook(cells=[new_code_cell("x = 0.12499\nprint(f'{x:.2f}')")]), path)
    return path


def test_execute_then_lint_then_edges(lesson: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lint", str(lesson)]) == 1
    out = capsys.readouterr().out
    assert f"{lesson}: cell 1: execution count missing" in out and out.count("\n") == 1

    assert main(["execute", str(lesson)]) == 0
    assert read(lesson).cells[0].outputs[0].text == "0.12\n"
    capsys.readouterr()
    assert main(["lint", str(lesson)]) == 0
    assert capsys.readouterr().out == ""

    assert main(["edges", str(lesson)]) == 1
    assert capsys.readouterr().out == f"{lesson}: cell 1: f'{{x:.2f}}' is 0.12499, printed as 0.12\n"
    assert main(["edges", "--tolerance", "0.00001", str(lesson)]) == 0


def test_a_cell_that_fails_does_not_stop_the_other_files(lesson: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = lesson.with_name("broken.ipynb")
    write(new_notebook(cells=[new_code_cell("1 / 0")]), broken)
    assert main(["execute", str(broken), str(lesson)]) == 1
    assert "cell 1 raised ZeroDivisionError" in capsys.readouterr().err
    assert read(lesson).cells[0].execution_count == 1


@pytest.mark.parametrize("tool", ["execute", "lint", "edges"])
def test_bad_input_is_one_line_and_nothing_is_done(
    tool: str, lesson: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = lesson.read_bytes()
    assert main([tool, str(lesson), str(tmp_path / "nothing.ipynb")]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1 and "nothing.ipynb: cannot be read" in captured.err
    assert lesson.read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [[], ["paint", "x"], ["lint"], ["edges", "--tolerance", "2", "x"], ["execute", "--timeout", "0", "x"]],
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err
