from __future__ import annotations

import json
from pathlib import Path

import nbformat
import pytest

from qlab.bench import seconds
from qlab.bench.seconds import Promise, Result


def test_the_median_decides() -> None:
    assert Result("x", 1.0, [0.9, 5.0, 0.8]).verdict == "kept"
    assert Result("x", 1.0, [1.1, 5.0, 0.8]).verdict == "broken"
    assert Result("x", 1.0, [1.0]).verdict == "kept"


def test_each_run_is_measured_once() -> None:
    readings = iter([3.0, 1.0, 2.0])
    result = seconds.run(Promise("x", 1.5, 3, lambda: next(readings)))
    assert result.seconds == [3.0, 1.0, 2.0] and result.median == 2.0


def test_every_lesson_is_a_promise_and_runs_without_being_changed(tmp_path: Path) -> None:
    cell = nbformat.v4.new_code_cell("from pathlib import Path; Path('here').touch()")
    path = tmp_path / "07_x.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    before = path.read_bytes()
    lesson = seconds.promises(tmp_path)[-1]
    assert (lesson.name, lesson.bar) == ("lesson 07_x", 45)
    assert lesson.measure() > 0
    assert (tmp_path / "here").exists(), "a lesson runs in its own folder"
    assert path.read_bytes() == before


def test_what_fails_is_not_a_measurement() -> None:
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        seconds._printed("1 / 0")


def test_table_and_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fixed = [Promise("quick", 1.0, 1, lambda: 0.5), Promise("slow", 1.0, 3, lambda: 2.0)]
    monkeypatch.setattr(seconds, "promises", lambda lessons: fixed)
    assert seconds.main([]) == 0
    table = capsys.readouterr().out.splitlines()
    assert "kept (one run)" in table[0] and "broken (median of 3 runs)" in table[1]
    assert table[2].endswith("broken: slow.")
    assert seconds.main(["--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["results"]
    assert [(row["name"], row["median"], row["verdict"]) for row in rows] == [
        ("quick", 0.5, "kept"),
        ("slow", 2.0, "broken"),
    ]


def test_a_failure_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(seconds, "promises", lambda lessons: [Promise("x", 1, 1, lambda: seconds._printed("1 / 0"))])
    assert seconds.main(["--json"]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: x: ZeroDivisionError")
