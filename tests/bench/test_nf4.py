from __future__ import annotations

import json
import sys

import pytest

from qlab.bench import nf4
from qlab.bench.nf4 import Comparison


def test_the_ratio_is_the_median_of_the_ratios_of_the_rounds() -> None:
    # The third round hit a busy second: both sides took ten times as long.
    assert Comparison("x", [1.0, 1.2, 10.0], [2.0, 2.0, 20.0]).ratio == 0.5
    assert Comparison("x", [3.0], [2.0]).ratio == 1.5


def test_sides_take_turns_after_a_warm_up() -> None:
    now, calls = 0.0, []

    def side(name: str, seconds: float) -> None:
        nonlocal now
        calls.append(name)
        now += seconds

    result = nf4.measure("x", lambda: side("ours", 1.0), lambda: side("theirs", 4.0), rounds=3, clock=lambda: now)
    assert calls == ["ours", "theirs", "ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert (result.ours, result.theirs, result.ratio) == ([1.0] * 3, [4.0] * 3, 0.25)
    with pytest.raises(ValueError, match="rounds: got 0"):
        nf4.measure("x", lambda: None, lambda: None, rounds=0)


def test_table_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("bitsandbytes")
    assert nf4.main(["--size", "64", "--rounds", "1"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split(" qlab")[0].strip() for line in table[:4]] == [
        "nf4",
        "nf4, double quantization",
        "fp4",
        "fp4, double quantization",
    ]
    assert table[4].startswith("float32 64 x 64, ") and table[4].endswith("median of 1 rounds.")
    assert nf4.main(["--size", "64", "--rounds", "2", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["size"] == 64 and document["threads"] >= 1
    for row in document["results"]:
        assert len(row["ours"]) == len(row["theirs"]) == 2
        assert row["ratio"] == Comparison(row["name"], row["ours"], row["theirs"]).ratio


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes.functional", None)
    assert nf4.main([]) == 2
    assert "bitsandbytes is missing" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--size", "--rounds"])
def test_bad_numbers_are_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        nf4.main([option, "0"])
    assert "at least 1" in capsys.readouterr().err
