"""Files are whole or not there; what a stranger wrote is read with care. Kills while writing: grade/test_grader.py."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from qlab.learn.files import printable, read_mapping, read_strictly, read_yaml, write_whole


def test_the_folder_is_made_and_the_content_written(tmp_path: Path) -> None:
    write_whole(tmp_path / "new/folder/a.json", "ä\n")
    assert (tmp_path / "new/folder/a.json").read_bytes() == "ä\n".encode()
    write_whole(tmp_path / "new/folder/a.json", b"\xff")
    assert (tmp_path / "new/folder/a.json").read_bytes() == b"\xff"
    assert [path.name for path in (tmp_path / "new/folder").iterdir()] == ["a.json"]


def test_writing_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("no")

    write_whole(tmp_path / "a.json", "old")
    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="no"):
        write_whole(tmp_path / "a.json", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    assert (tmp_path / "a.json").read_text() == "old"


def test_only_a_plain_file_within_the_limit_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    os.mkfifo(tmp_path / "pipe")
    assert read_strictly(tmp_path / "a", 5) == b"12345"
    for name, says in (("link", "plain file"), ("pipe", "not a plain file"), (".", "not a plain file")):
        with pytest.raises(ValueError, match=says):
            read_strictly(tmp_path / name, 5)
    with pytest.raises(ValueError, match="larger than the 4 bytes"):
        read_strictly(tmp_path / "a", 4)
    with pytest.raises(FileNotFoundError):
        read_strictly(tmp_path / "none", 5)


def test_printable_cuts_and_cleans() -> None:
    assert printable("a\x1b[31mb\x1b[0m\n\tc\x00\ud800") == "ab\n\tc\ufffd\ufffd"
    assert printable("x" * 30, 10) == "x" * 10 + " … (20 more characters)"


def test_yaml_is_plain_values_or_an_error_of_one_line(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("a: [1, 2.5, yes]\n")
    assert read_yaml(file) == {"a": [1, 2.5, True]}
    for text in (b"a: [", b"\x80", b"!!python/object/apply:os.getcwd []", b"a: 1\nb: {c: 1, c: 2}"):
        file.write_bytes(text)
        with pytest.raises(ValueError, match=r"a\.yaml cannot be read as YAML \(.*\)$") as error:
            read_yaml(file)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="No such file"):
        read_yaml(tmp_path / "missing.yaml")
    file.write_text("1: a\n'1': b")  # a number and a text
    assert read_mapping(file) == {1: "a", "1": "b"}
    file.write_text("- a")
    with pytest.raises(ValueError, match=r"a\.yaml holds list and no names"):
        read_mapping(file)
