"""Recorded GPU results: the newest is found and told in words; where there is none, that is said. All are made up."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from qlab.bench import recorded
from qlab.bench.results import Results, Row


def on_a_gpu(made: Callable[..., Results], date: str, *rows: Row) -> Results:
    return made(
        *rows,
        date=date,
        hardware={"name": "made-up GPU", "memory": 8000, "driver": None},
        settings={"device": "cuda", "tokens": [1, 16]},
        command="qlab bench --out made-up.json",
    )


def test_without_files_it_says_so_and_how_to_make_one(tmp_path: Path) -> None:
    assert recorded.newest(tmp_path) is None
    assert recorded.newest(tmp_path / "missing") is None
    text = "\n".join(recorded.words(None))
    assert text.startswith("No recorded GPU results yet")
    assert "qlab bench --out results.json" in text and "qlab/bench/recorded/" in text


def test_the_newest_run_on_a_gpu_is_found(tmp_path: Path, made: Callable[..., Results]) -> None:
    on_a_gpu(made, "2026-03-01T00:00:00+00:00").save(tmp_path / "a.json")
    on_a_gpu(made, "2026-02-01T00:00:00+00:00").save(tmp_path / "z.json")
    made(date="2026-04-01T00:00:00+00:00").save(tmp_path / "cpu.json")  # the device of its settings is a CPU
    found = recorded.newest(tmp_path)
    assert found is not None and found.date.startswith("2026-03-01")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{}")
    with pytest.raises(ValueError, match=r"bad\.json"):
        recorded.newest(tmp_path)


def test_what_ships_can_be_read() -> None:
    found = recorded.newest()
    assert found is None or found.rows


def test_a_run_in_words(made: Callable[..., Results], row: Callable[..., Row]) -> None:
    size = {"outputs": 8192, "inputs": 8192, "dtype": "float16"}
    rows = [
        row(**size, tokens=1),
        row(**size, tokens=16, copy_fraction=0.44),
        row(**size, kernel="qlab-int4-g128", tokens=16, ratio=2.346, copy_fraction=0.625),
        row(**size | {"dtype": "bfloat16"}, kernel="elsewhere", tokens=16),
        row(**size | {"outputs": 1024}, kernel="elsewhere", tokens=2),
    ]
    lines = recorded.words(on_a_gpu(made, "2026-03-01T12:34:56+00:00", *rows))
    assert lines[0] == "name made-up GPU, memory 8,000", "what is not known is left out"
    assert lines[2] == "measured 2026-03-01 with: qlab bench --out made-up.json"
    ratios = lines.index("Times as fast as dense in 16 bits, 8192 x 8192 (out x in), inputs in float16:")
    assert [line.split() for line in lines[ratios + 1 : ratios + 4]] == [
        ["kernel", "M=1", "M=16"],
        ["dense", "1.00", "1.00"],
        ["qlab-int4-g128", "2.35"],
    ]
    parts = lines.index("Part of the copy bandwidth, all bytes counted once:")
    assert [line.split() for line in lines[parts + 2 : parts + 4]] == [
        ["dense", "50%", "44%"],
        ["qlab-int4-g128", "62%"],
    ]
    assert lines[parts + 3].endswith("62%") and len(lines[parts + 3]) == len(lines[parts + 2]), "under M=16"
    assert lines[-1] == "Also in the file: 1024 x 8192"
    assert "elsewhere" not in "\n".join(lines)


def test_another_shape_stands_in(made: Callable[..., Results], row: Callable[..., Row]) -> None:
    found = on_a_gpu(made, "2026-03-01T00:00:00+00:00", row(tokens=1), row(tokens=2, dtype="float16"))
    assert recorded.rows_of(found) == [found.rows[0]]
    assert any("8 x 16 (out x in), inputs in bfloat16" in line for line in recorded.words(found))
    assert recorded.words(on_a_gpu(made, "2026-03-01T00:00:00+00:00"))[-1] == "no kernel was measured"
