from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path

import nbformat
import pytest
import typer
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from qlab import cli
from qlab.learn import workspace
from qlab.learn.execute import read, write
from qlab.learn.workspace import copy_lessons, reset, start

ROOT = Path(__file__).parents[2]


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
    assert "00_a.ipynb has a newer version" in out and "qlab reset 00 --lesson brings the new one" in out
    assert "01_b.ipynb has" not in out
    assert read(copy).cells[1].source == "print('mine')"

    kept = reset("00", lesson=True, root=root).kept_as
    assert read(copy).cells[1].source == "print(2)"
    assert kept is not None and read(kept).cells[1].source == "print('mine')"


def test_another_run_of_a_lesson_is_not_a_newer_version(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy_lessons(root)
    again = read(root / "notebooks" / "00_a.ipynb")
    again.cells[1].outputs[0].text = "2\n"
    write(again, root / "notebooks" / "00_a.ipynb")
    copy_lessons(root)
    assert "newer" not in capsys.readouterr().out


@pytest.fixture
def course(root: Path) -> Path:
    """Two lessons, and an exercise for the second; they link to each other."""
    linked = lesson()
    linked.cells[0].source = "[exercise](../exercises/01_b.ipynb), [code](../qlab/cli.py), `../exercises/`"
    write(linked, root / "notebooks" / "01_b.ipynb")
    exercise = lesson()
    exercise.cells[0].source = 'After [the lesson](../notebooks/01_b.ipynb) or <a href="../notebooks/00_a.ipynb">it</a>'
    exercise.cells[1].metadata["nbgrader"] = {"grade_id": "x", "checksum": "0"}
    exercise.metadata["qlab"] = {"exercise": "01_b", "version": "0.1.0"}
    (root / "exercises").mkdir()
    write(exercise, root / "exercises" / "01_b.ipynb")
    return root


def test_exercises_lie_in_a_folder_of_their_own_and_links_follow(
    course: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = course / "work"
    assert copy_lessons(course) == [work / "00_a.ipynb", work / "01_b.ipynb", work / "exercises" / "01_b.ipynb"]
    assert capsys.readouterr().out == "Copied to work/: 00_a.ipynb, 01_b.ipynb, exercises/01_b.ipynb.\n"
    text = read(work / "01_b.ipynb").cells[0].source
    assert text == "[exercise](exercises/01_b.ipynb), [code](../qlab/cli.py), `../exercises/`"
    exercise = read(work / "exercises" / "01_b.ipynb")
    assert exercise.cells[0].source == 'After [the lesson](../01_b.ipynb) or <a href="../00_a.ipynb">it</a>'
    assert exercise.cells[1].metadata.nbgrader == {"grade_id": "x", "checksum": "0"}
    assert exercise.cells[1].outputs == []
    assert {**exercise.metadata.qlab, "released": ""} == {"exercise": "01_b", "version": "0.1.0", "released": ""}
    copy_lessons(course)
    assert "newer" not in capsys.readouterr().out, "links were changed by the copying, not by the author"


def test_every_link_between_the_course_and_its_copies_leads_somewhere(tmp_path: Path) -> None:
    copies = copy_lessons(ROOT, tmp_path / "work")
    originals = [path for folder in ("notebooks", "exercises", "solutions") for path in (ROOT / folder).glob("*.ipynb")]
    for path in [*copies, *originals]:
        text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
        for link in re.findall(r"\]\(([^):#]+\.ipynb)", text):
            assert (path.parent / link).is_file(), f"{path}: {link}"
    assert len(copies) == len([path for path in originals if path.parent.name != "solutions"])


def test_a_newer_exercise_is_announced(course: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy_lessons(course)
    newer = read(course / "exercises" / "01_b.ipynb")
    newer.cells[0].source += "!"
    write(newer, course / "exercises" / "01_b.ipynb")
    copies = start("1", course)
    assert "exercises/01_b.ipynb has a newer version" in str(copies) and "qlab reset 01 brings" in str(copies)
    assert copies.to_dict()["newer"] == [str(course / "work" / "exercises" / "01_b.ipynb")]


@pytest.mark.parametrize("text", ["01", "1", " 01_b", "01_b.ipynb"])
def test_start_copies_one_part_and_overwrites_nothing(course: Path, text: str) -> None:
    work = course / "work"
    lesson_copy, exercise_copy = work / "01_b.ipynb", work / "exercises" / "01_b.ipynb"
    copies = start(text, course)
    assert copies.copied == [lesson_copy, exercise_copy] and copies.kept == []
    assert copies.main == exercise_copy
    assert not (work / "00_a.ipynb").exists()
    exercise_copy.write_text("mine")
    lesson_copy.unlink()
    again = start(text, course)
    assert (again.copied, again.kept) == ([lesson_copy], [exercise_copy])
    assert exercise_copy.read_text() == "mine" and again.main == exercise_copy


def test_a_part_without_an_exercise(course: Path) -> None:
    assert start("0", course).main == course / "work" / "00_a.ipynb"
    with pytest.raises(ValueError, match="number: there is no exercise '0'; there is exercise 01_b$"):
        reset("0", root=course)


@pytest.mark.parametrize("text", ["7", "", "b", "../01_b", "01_"])
def test_an_unknown_part_lists_what_there_is(course: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"there is no .*; there is lesson 00_a, lesson 01_b, exercise 01_b$"):
        start(text, course)
    with pytest.raises(ValueError, match=r"there is no lesson .*; there is lesson 00_a, lesson 01_b$"):
        reset(text, lesson=True, root=course)
    assert not (course / "work").exists()


def test_reset_keeps_the_old_file_whatever_it_is(course: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Noon(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime(2026, 11, 21, 12, 0, 5)

    monkeypatch.setattr(workspace, "datetime", Noon)
    target = course / "work" / "exercises" / "01_b.ipynb"
    first = reset("01", root=course)
    assert (first.path, first.kept_as) == (target, None)
    released = target.read_bytes()
    for number, content in enumerate([b"not a notebook", b"\xff\xfe", released], start=1):
        target.write_bytes(content)
        fresh = reset("01", root=course)
        suffix = "" if number == 1 else f"-{number}"
        assert fresh.kept_as == target.with_name(f"01_b.20261121-120005{suffix}.ipynb")
        assert fresh.kept_as.read_bytes() == content and target.read_bytes() == released
    assert "Your file is kept as 01_b.20261121-120005-3.ipynb beside it." in str(fresh)
    target.unlink()
    target.symlink_to(course / "elsewhere.ipynb")
    kept = reset("01", root=course).kept_as
    assert kept is not None and kept.is_symlink() and not (course / "elsewhere.ipynb").exists()


def test_a_broken_exercise_takes_nothing_away(course: Path) -> None:
    copy_lessons(course)
    (course / "exercises" / "01_b.ipynb").write_text('{"cells": [')
    with pytest.raises(ValueError, match="not a notebook"):
        reset("01", root=course)
    assert [path.name for path in (course / "work" / "exercises").iterdir()] == ["01_b.ipynb"]


@pytest.fixture
def here(course: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The course as the one that the package lies in, and a progress file of its own."""
    monkeypatch.setattr(workspace, "__file__", str(course / "qlab" / "learn" / "workspace.py"))
    monkeypatch.setenv("QLAB_HOME", str(tmp_path / "home"))
    return course


def test_the_commands_start_and_reset(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["start", "01"]) == 0
    out = capsys.readouterr().out
    assert out == (
        "Copied to work/: 01_b.ipynb, exercises/01_b.ipynb.\n"
        "To open it: make lab, and in its list of files exercises/01_b.ipynb.\n"
    )
    target = here / "work" / "exercises" / "01_b.ipynb"
    target.write_text("mine")
    assert cli.main(["start", "01", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kept"] == [str(here / "work" / "01_b.ipynb"), str(target)]
    assert cli.main(["reset", "01"]) == 0, "nobody is asked where nobody can answer"
    assert f"{target} is a fresh copy. Your file is kept as 01_b.2" in capsys.readouterr().out
    assert cli.main(["reset", "01", "--lesson", "--json"]) == 0
    fresh = json.loads(capsys.readouterr().out)
    assert fresh["path"] == str(here / "work" / "01_b.ipynb") and Path(fresh["kept_as"]).is_file()
    for arguments in (["start", "9"], ["reset", "9"], ["reset", "00"], ["start"]):
        assert cli.main(arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == "" and captured.err.startswith("error: ") and captured.err.count("\n") == 1


@pytest.mark.parametrize("answer", ["y", "n"])
def test_reset_asks_on_a_terminal(here: Path, answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    copy_lessons(here)
    asked: list[str] = []

    def confirm(text: str, abort: bool) -> None:
        asked.append(text)
        if abort and answer == "n":
            raise typer.Abort

    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", confirm)
    code = cli.main(["reset", "01"])
    assert len(asked) == 1 and "exercise 01_b" in asked[0]
    assert code == (0 if answer == "y" else 130)
    kept = list((here / "work" / "exercises").glob("01_b.2*.ipynb"))
    assert len(kept) == (answer == "y")
    cli.main(["reset", "01", "--yes"])
    assert len(asked) == 1


def test_a_start_is_noted_once(here: Path) -> None:
    from qlab.learn import progress

    for _ in range(2):
        cli.main(["start", "01"])
    assert [(event.question, event.kind) for event in progress.events()] == [("01_b", "start")]


def test_without_a_clone_the_commands_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(workspace, "__file__", str(tmp_path / "site-packages" / "qlab" / "learn" / "workspace.py"))
    for command in ("start", "reset"):
        assert cli.main([command, "02"]) == 2
        assert "come with a clone of the repository" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


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
