from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qlab.bench import results

Make = Callable[..., Any]


def test_a_file_comes_back_as_it_was(tmp_path: Path, row: Make, made: Make) -> None:
    path, before = tmp_path / "a.json", made(row(), row(tokens=2))
    before.save(path)
    after = results.load(path)
    assert (after.rows, after.skipped, after.ceilings) == (before.rows, before.skipped, before.ceilings)
    assert results.differences(before, after) == []
    assert json.loads(path.read_text())["schema"] == 1
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Make) -> None:
    path = tmp_path / "a.json"
    made().save(path)
    before = path.read_bytes()
    found = made()
    found.rows.append(object())  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        found.save(path)
    assert path.read_bytes() == before and [file.name for file in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(schema=2), "has schema 2; allowed is 1"),
        (lambda d: d["rows"][0].pop("tokens"), "Row: fields tokens are missing or unknown"),
        (lambda d: d["rows"][0].update(more=1), "Row: fields more"),
        (lambda d: d["rows"][0].update(seconds="2"), "Row.seconds: got '2'; allowed is float"),
        (lambda d: d["rows"][0].update(tokens=True), "Row.tokens"),
        (lambda d: d.pop("ceilings"), "'ceilings'"),
        (lambda d: d["ceilings"].pop("copy"), "Ceilings: fields copy"),
    ],
)
def test_a_damaged_file_is_refused_by_name(tmp_path: Path, change: Any, says: str, row: Make, made: Make) -> None:
    path = tmp_path / "a.json"
    document = json.loads(json.dumps(made(row()).to_dict()))
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(ValueError, match="file: ") as caught:
        results.load(path)
    assert says in str(caught.value) and str(path) in str(caught.value)


def test_what_is_no_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("{")
    with pytest.raises(ValueError, match="is no JSON"):
        results.load(path)
    path.write_text("[]")
    with pytest.raises(ValueError, match="has schema 'list'"):
        results.load(path)


def test_a_file_of_the_same_kind_is_continued(tmp_path: Path, row: Make, made: Make) -> None:
    path = tmp_path / "a.json"
    new = made(command="qlab bench again", date="later")
    assert results.continued(None, new) is new and results.continued(path, new) is new
    made(row()).save(path)
    assert results.continued(path, new).rows == [row()], "when and how it was called may differ"


def test_a_file_of_another_run_is_an_error_that_says_what_differs(tmp_path: Path, row: Make, made: Make) -> None:
    path = tmp_path / "a.json"
    made(row()).save(path)
    other = made(versions={"torch": "2.13", "triton": "3.6"}, settings={"device": "cpu", "tokens": (1, 4)})
    with pytest.raises(ValueError) as caught:
        results.continued(path, other)
    assert str(caught.value) == (
        f"out: {path} was measured otherwise (versions.torch: 2.11 there, 2.13 here; "
        "versions.triton: None there, 3.6 here; settings.tokens: 1,2 there, 1,4 here); "
        "give another file, or delete it to begin anew"
    )
