"""`qlab grade`: what it prints, what it writes, and its exit codes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from qlab import cli
from qlab.learn.grade import NOT_DEFENDED, isolation


@pytest.fixture
def arguments(workshop: Any, level: str, tmp_path: Path) -> list[str]:
    return [
        "--master",
        str(workshop.master),
        "--isolation",
        level,
        "--force",
        "--out",
        str(tmp_path / "out"),
        "--seed",
        "4",
    ]


def test_one_file(workshop: Any, arguments: list[str], tmp_path: Path, capsys: Any, level: str) -> None:
    (tmp_path / "a.ipynb").write_text(json.dumps(workshop.submission(second=workshop.stub("linear.zero_point"))))
    assert cli.main(["grade", str(tmp_path / "a.ipynb"), *arguments]) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"Isolation: {level}:")
    assert "a: 2 of 4 points (1 passed, 1 not attempted)" in out
    assert "2 of 2 points  linear.absmax: passed, on all 20 cases" in out
    assert "linear-defend: a person grades this, 5 points" in out
    assert "Seed 4," in out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.html", "a.json"]


def test_folder_with_one_that_cannot_be_graded(
    workshop: Any, arguments: list[str], tmp_path: Path, capsys: Any
) -> None:
    folder = tmp_path / "class"
    folder.mkdir()
    (folder / "a.ipynb").write_text(json.dumps(workshop.submission()))
    (folder / "b.ipynb").write_text("")
    assert cli.main(["grade", str(folder), *arguments, "--json"]) == 1
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert [(one["name"], one["points"]) for one in document["results"]] == [("a", 4.0), ("b", 0)]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.html", "a.json", "b.html", "b.json", "grades.csv",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "bad",
    [
        ["none.ipynb"],
        ["a.ipynb", "--isolation", "docker"],
        ["a.ipynb", "--master", "none"],
        ["a.ipynb", "--jobs", "0"],
        ["a.ipynb", "--memory", "-1"],
        ["a.ipynb", "--cell-seconds", "nan"],
        ["a.ipynb", "--seed", "x"],
        ["a.ipynb", "--seed", "-1"],
        [],
    ],
)
def test_bad_input_is_one_line(bad: list[str], tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.ipynb").write_text("{}")
    assert cli.main(["grade", "--force", *bad]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.ipynb"]


def test_root_without_namespaces_is_refused(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    (tmp_path / "a.ipynb").write_text("{}")
    monkeypatch.setattr(isolation, "probe", lambda: "the system forbids it")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert cli.main(["grade", str(tmp_path / "a.ipynb")]) == 2
    assert "all rights of root" in capsys.readouterr().err


def test_help_says_what_it_does_not_defend_against(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    assert cli.main(["grade", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "does NOT defend against" in text
    for line in NOT_DEFENDED:
        assert " ".join(line.split()) in text
