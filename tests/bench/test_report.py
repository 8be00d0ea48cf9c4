from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from qlab.bench import report
from qlab.bench.results import Skipped

Make = Callable[..., Any]


def text(table: Any) -> list[list[str]]:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(table)
    return [line.split() for line in console.export_text().splitlines()]


def test_times_have_three_digits_and_a_unit() -> None:
    shown = [report.time(seconds) for seconds in (12.3456, 1.0, 0.0123456, 1e-3, 9.8765e-4, 1.5e-6)]
    assert shown == ["12.3 s", "1 s", "12.3 ms", "1 ms", "988 us", "1.5 us"]


def test_rows_arrive_under_the_heading_of_their_shape(row: Make, made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report.machine, "load", lambda: 0.5)
    lines: list[str] = []
    printer = report.Printer(lines.append)
    printer.start(made(row()))
    assert "copy 1.0 GB/s (reading 2.0), matrix bfloat16 1 T/s" in lines[2]
    assert lines[3] == "Going on: 1 rows are in the file."
    for entry in (row(), row(tokens=2), Skipped("x", "is missing"), row(outputs=4, shape="k")):
        printer.entry(entry)
    assert [line.split("\n")[1] for line in lines[4:] if line.startswith("\n")] == [
        "8 x 16 (out x in): 8x16", "4 x 16 (out x in): k",
    ]  # fmt: skip
    shown = lines[5].split()
    assert shown[:3] == ["dense", "torch", "bfloat16"] and "2 s" in lines[5] and "50% of copy" in lines[5]
    failed = report.line(Skipped("x", "no", 8, 16, 2, "float16"))
    assert failed.split() == ["x", "8x16", "float16", "M", "=", "2", "skipped:", "no"]


def test_a_busy_cpu_is_named(made: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report.machine, "load", lambda: 5.0)
    assert "load 5.0 on 2 cores" in report.heading(made())[3]
    assert len(report.heading(made(hardware={"name": "a GPU"}))) == 3, "a GPU has its own clock"


def test_paths_are_named_the_fastest_first(row: Make, made: Make) -> None:
    pytest.importorskip("triton")
    assert report.paths(made(row(), row(kernel="qlab-int4-g128", path="gemm"))) == []
    seconds = {"split-k": 2e-5, "gemm": 1e-5, "dequantize": 3e-5}
    rows = [row(kernel=f"qlab-int4-{path}", path=path, seconds=one, tokens=64) for path, one in seconds.items()]
    assert report.paths(made(*rows, row(kernel="qlab-int4-gemm", path="gemm", tokens=600))) == [
        "Paths of W4A16, the fastest first:",
        "  8x16 bfloat16 M = 64: gemm 10 us, split-k 20 us, dequantize 30 us; split-k is taken",
        "  8x16 bfloat16 M = 600: gemm 2 s; dequantize is taken",
    ]


def test_the_summary_has_kernels_down_and_tokens_across(row: Make, made: Make) -> None:
    rows = [row(), row(tokens=16), row(kernel="fast", tokens=16, ratio=2.345)]
    ((title, table),) = report.summary(made(*rows))
    assert title == "Times as fast as dense in 16 bits, 8x16:"
    assert text(table) == [
        ["kernel", "type", "M=1", "M=16"],
        ["dense", "bfloat16", "1.00", "1.00"],
        ["fast", "bfloat16", "2.35"],
    ]


def test_two_files_side_by_side(row: Make, made: Make) -> None:
    before = made(
        row(kernel="a", seconds=2.0, quartiles=(1.9, 2.1)),
        row(kernel="b", seconds=2.0, quartiles=(1.0, 3.0)),
        row(kernel="c", seconds=2.0, quartiles=(1.9, 2.1)),
        row(kernel="gone"),
    )
    after = made(
        row(kernel="c", seconds=4.0, quartiles=(3.0, 5.0)),
        row(kernel="b", seconds=1.5, quartiles=(1.0, 2.0)),
        row(kernel="a", seconds=1.0, quartiles=(0.9, 1.1)),
        row(kernel="new"),
        row(kernel="newer"),
        versions={"torch": "2.13"},
    )
    found = report.compare(before, after)
    assert [(one.kernel, one.ratio, one.verdict) for one in found.changes] == [
        ("a", 2.0, "faster"), ("b", pytest.approx(4 / 3), "same"), ("c", 0.5, "slower"),
    ]  # fmt: skip
    assert report.comparison_notes(found) == [
        "Differs: versions.torch: 2.11 there, 2.13 here",
        "1 faster, 1 slower, 1 same (same: the quartiles overlap)",
        "Only in the first: 1 rows. Only in the second: 2.",
    ]
    assert text(report.comparison_table(found.changes))[1] == [
        "a",
        "8x16",
        "bfloat16",
        "1",
        "2",
        "s",
        "1",
        "s",
        "2.00",
        "faster",
    ]
    assert found.to_dict()["changes"][0]["ratio"] == 2.0


def test_goals_are_reached_missed_or_not_measured(row: Make, made: Make) -> None:
    square = {"outputs": 8192, "inputs": 8192, "dtype": "float16"}
    lines = report.goals(
        made(
            row(kernel="qlab-int4-g128", ratio=2.7, copy_fraction=0.6, **square),
            row(kernel="qlab-nf4", seconds=1.0, **square),
            row(kernel="bitsandbytes-nf4", seconds=3.0, **square),
            row(kernel="qlab-int8", **square | {"dtype": "bfloat16"}),
        )
    )
    found = {line.split(": at least")[0].strip(): line.split(": ", 2)[2] for line in lines[1:]}
    assert found["W4A16 g128, M = 1, against cuBLAS, 8192x8192"] == "2.70, reached"
    assert found["W4A16 g128, M = 1, part of copy bandwidth, 8192x8192"] == "0.60, missed"
    assert found["NF4, M = 1, against bitsandbytes, 8192x8192"] == "3.00, reached"
    assert found["W8A16, M = 1, against cuBLAS, 8192x8192"] == "not measured: --tokens 1"
    assert found["W8A8, M = 4096, against cuBLAS, 8192x8192"] == "not measured: --tokens 4096"


def test_decoding_says_what_it_leaves_out(row: Make, made: Make) -> None:
    assert "--shapes 8b" in report.decoding(made())[0]
    one = {"model": "m", "kernel": "k", "dtype": "d", "tokens": 2, "context": 4096, "layers": 0.1, "head": 0.2,
           "kv_cache": 0.3, "step": 0.6, "tokens_per_s": 2 / 0.6}  # fmt: skip
    lines = report.decoding(made(decode=[one]))
    assert "4,096 tokens of context" in lines[0] and "3.3  (layers 100 ms, head 200 ms, KV cache 300 ms)" in lines[1]
    assert "sampling" in lines[2] and "Whether the model fits is not asked" in lines[2]
