from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from qlab.bench import contestant, contestants, kernels, results
from qlab.bench.ceilings import Ceilings
from qlab.bench.contestant import Contestant, Prepared
from qlab.bench.kernels import Settings
from qlab.bench.results import Row, Skipped
from qlab.bench.stopwatch import Budget

LIMITS = Ceilings(1e9, 1e9, {"bfloat16": 1e10, "float32": 1e9, "int8": 1e11, "float16": 1e10}, 1e-6)
TINY = Settings("cpu", ("16x32", "8x32"), (1, 3), dtypes=("bfloat16",), budget=Budget(0.0, 2, 2))
PLAIN = next(one for one in contestants.TABLE if one.name == "dense")


def fake(name: str, **changes: Any) -> Contestant:
    """A contestant that multiplies as the plain product does."""
    return Contestant(name, "", ("cpu",), ("bfloat16",), lambda w: replace(contestant.dense(w), **changes))


def scripted(seconds: Sequence[float]) -> Any:
    """A stopwatch whose readings repeat, whatever the calls do."""
    readings = iter(list(seconds) * 1000)
    return lambda calls: [(call(), next(readings))[1] for call in calls]


def test_a_row_by_hand() -> None:
    asked = replace(TINY, shapes=("16x32",), tokens=(3,), budget=Budget(0.0, 4, 4))
    # Slow warm-ups are single calls: one of ours, one of the base. Then the pairs: ours, base, base, ours, ...
    stopwatch = scripted([1.0, 1.0, 2e-6, 8e-6, 8e-6, 4e-6, 2e-6, 4e-6, 4e-6, 4e-6])
    (row,) = kernels.run(asked_for(asked, "ours"), table=(PLAIN, fake("ours")), limits=LIMITS, stopwatch=stopwatch).rows
    assert (row.kernel, row.outputs, row.inputs, row.tokens, row.dtype) == ("ours", 16, 32, 3, "bfloat16")
    assert (row.seconds, *row.quartiles, row.repetitions) == pytest.approx((3e-6, 2e-6, 4e-6, 4))
    assert row.ratio == pytest.approx(2.0), "the median of 4, 2, 2 and 1"
    assert row.bytes == 2 * (16 * 32 + 3 * 32 + 3 * 16) and row.flops == 2 * 3 * 16 * 32
    assert row.gb_per_s == pytest.approx(1312 / 3e-6 / 1e9)
    assert row.copy_fraction == pytest.approx(row.gb_per_s)
    assert (row.ceiling, row.ceiling_fraction) == ("copy", pytest.approx(1312 / 1e9 / 3e-6))
    assert 0 < row.relative_error < 0.01


def asked_for(asked: Settings, *names: str) -> Settings:
    return replace(asked, kernels=names)


def test_the_plain_product_is_its_own_measure() -> None:
    found = kernels.run(TINY, table=(PLAIN,), limits=LIMITS, stopwatch=scripted([1.0]))
    assert [(row.outputs, row.tokens, row.ratio) for row in found.rows] == [
        (16, 1, 1.0), (16, 3, 1.0), (8, 1, 1.0), (8, 3, 1.0),
    ]  # fmt: skip


def test_wrong_and_broken_kernels_stay_out_of_the_table() -> None:
    def breaks(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        if len(x) > 1:
            raise RuntimeError("no such configuration\nand much more")
        return x @ w.t()

    def cannot(w: torch.Tensor) -> Prepared:
        raise ImportError("needs a part that is missing")

    table = (
        PLAIN,
        fake("wrong", call=lambda x, w: 1.1 * (x @ w.t())),
        fake("nan", call=lambda x, w: (x @ w.t()).fill_(torch.nan)),
        fake("breaks", call=breaks),
        replace(fake("cannot"), prepare=cannot),
        replace(fake("absent"), missing=lambda: "absent is not installed"),
    )
    asked = replace(TINY, shapes=("16x32",))
    found = kernels.run(asked, table=table, limits=LIMITS, stopwatch=scripted([1.0]))
    assert [(row.kernel, row.tokens) for row in found.rows] == [("dense", 1), ("dense", 3), ("breaks", 1)]
    reasons = {(entry.kernel, entry.tokens): entry.reason for entry in found.skipped}
    assert reasons[("wrong", 1)].startswith("Wrong: wrong result: relative error 0.1")
    assert "relative error nan" in reasons[("nan", 3)]
    assert reasons[("breaks", 3)] == "RuntimeError: no such configuration"
    assert reasons[("cannot", 1)] == reasons[("cannot", 3)] == "ImportError: needs a part that is missing"
    assert reasons[("absent", None)] == "absent is not installed"
    assert len(found.skipped) == 8


def test_calls_take_turns_among_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def call(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        seen.append(w.data_ptr())
        return x @ w.t()

    monkeypatch.setattr(kernels, "cache_bytes", lambda device: 16 * 32 * 2)
    asked = asked_for(replace(TINY, shapes=("16x32",), tokens=(1,), budget=Budget(0.0, 8, 8)), "ours")
    kernels.run(asked, table=(PLAIN, fake("ours", call=call)), limits=LIMITS, stopwatch=scripted([1.0]))
    measured = seen[-8:]
    assert len(set(measured)) == 4 and measured[:4] == measured[4:]


def test_the_head_is_for_the_plain_product_and_for_batches_that_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    from qlab.bench import layers

    monkeypatch.setattr(layers, "shapes", lambda names: [layers.Shape("head", 16, 32, head=True)])
    asked = replace(TINY, tokens=(1, kernels.HEAD_TOKENS, kernels.HEAD_TOKENS + 1))
    found = kernels.run(asked, table=(PLAIN, fake("ours")), limits=LIMITS, stopwatch=scripted([1.0]))
    assert [(row.kernel, row.tokens) for row in found.rows] == [("dense", 1), ("dense", kernels.HEAD_TOKENS)]


_KILLED = """
import os, signal, sys
from pathlib import Path
from qlab.bench import kernels
from qlab.bench.ceilings import Ceilings
from qlab.bench.kernels import Settings
from qlab.bench.stopwatch import Budget
rows = 0
def measured(row):
    global rows
    rows += 1
    if rows == 3:
        os.kill(os.getpid(), signal.SIGKILL)
limits = Ceilings(1e9, 1e9, {"bfloat16": 1e10, "float32": 1e9, "int8": 1e11}, 1e-6)
asked = Settings("cpu", ("16x32", "8x32"), (1, 3), ("dense", "torch-int8"), ("bfloat16",), Budget(0.0, 2, 2))
kernels.run(asked, Path(sys.argv[1]), measured=measured, limits=limits)
"""


def test_a_killed_run_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run([sys.executable, "-c", _KILLED, str(path)], env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    first = results.load(path)
    assert len(first.rows) == 3
    asked = replace(TINY, kernels=("dense", "torch-int8"))
    new: list[Row | Skipped] = []
    begun: list[int] = []
    found = kernels.run(
        asked, path, measured=new.append, started=lambda found: begun.append(len(found.rows)), limits=LIMITS
    )
    assert begun == [3] and len(new) == 5
    assert found.rows[:3] == first.rows and found.rows == results.load(path).rows
    whole = kernels.run(asked, limits=LIMITS)
    assert {row.key for row in found.rows} == {row.key for row in whole.rows} and len(found.rows) == 8
    again = kernels.run(asked, path, measured=new.append, limits=LIMITS)
    assert again.rows == found.rows and len(new) == 5, "nothing is left to measure"


def test_what_failed_is_not_tried_again(tmp_path: Path) -> None:
    calls: list[int] = []

    def breaks(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        raise RuntimeError("no")

    table = (PLAIN, fake("breaks", call=breaks), replace(fake("absent"), missing=lambda: "absent is not installed"))
    for _ in range(2):
        found = kernels.run(TINY, tmp_path / "a.json", table=table, limits=LIMITS, stopwatch=scripted([1.0]))
    assert len(calls) == 4 and len(found.skipped) == 5


def test_a_file_that_cannot_be_written_is_no_failure_of_a_kernel(tmp_path: Path) -> None:
    def full(entry: Row | Skipped) -> None:
        raise OSError("the disk is full")

    path = tmp_path / "a.json"
    with pytest.raises(OSError, match="the disk is full"):
        kernels.run(TINY, path, table=(PLAIN,), limits=LIMITS, stopwatch=scripted([1.0]), measured=full)
    found = results.load(path)
    assert len(found.rows) == 1 and not found.skipped


def test_another_run_may_not_go_into_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    kernels.run(TINY, path, table=(PLAIN,), limits=LIMITS, stopwatch=scripted([1.0]))
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"out: .*a.json was measured otherwise \(settings.tokens: 1,3 there, 1 here"):
        kernels.run(replace(TINY, tokens=(1,)), path, table=(PLAIN,), limits=LIMITS)
    assert path.read_bytes() == before


def test_settings_are_filled_in_and_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    asked = kernels.settings()
    assert (asked.device, asked.shapes) == ("cpu", ("4096", "4096x14336"))
    assert asked.tokens == (1, 2, 4, 8, 16, 32, 64, 128) and asked.dtypes == ("bfloat16", "float32")
    assert kernels.settings(tokens=[16, 1, 16]).tokens == (1, 16)
    assert len(kernels.settings(quick=True).tokens) < len(asked.tokens)
    for arguments, says in (
        ({"device": "tpu"}, "device: got 'tpu'; choose cuda or cpu"),
        ({"device": "cuda"}, "device: got cuda, and torch finds no GPU here; choose cpu"),
        ({"tokens": [0]}, "tokens: got 0; give numbers from 1 up"),
    ):
        with pytest.raises(ValueError) as caught:
            kernels.settings(**arguments)  # type: ignore[arg-type]
        assert str(caught.value) == says
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert kernels.settings().tokens[-2:] == (2048, 8192) and kernels.settings().shapes == ("8b", "70b", "8192")


def test_our_kernels_run_through_the_same_harness() -> None:
    pytest.importorskip("triton")
    if torch.cuda.is_available():
        pytest.skip("with a GPU the kernels are compiled for it")
    asked = kernels.settings("cpu-interpreted", ["32x128"], [1, 3], ["qlab-int4-g128", "qlab-w8a8"])
    asked = replace(asked, budget=Budget(0.0, 2, 2))
    found = kernels.run(asked, limits=LIMITS)
    assert [(row.kernel, row.path) for row in found.rows] == [
        ("qlab-int4-g128", "gemv"), ("qlab-int4-g128", "split-k"), ("qlab-w8a8", "int8"), ("qlab-w8a8", "int8"),
    ]  # fmt: skip
    # 128 inputs fill a tile of words; one float16 scale an output; x and y in float16.
    assert found.rows[0].bytes == 32 * 128 // 2 + 32 * 2 + 128 * 2 + 32 * 2
    assert found.rows[2].bytes == 32 * 128 + 32 * 4 + 128 * 2 + 32 * 2


def test_a_real_run_on_this_machine_ends_and_its_file_is_valid(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    names = ("dense", "torch-int8", "torch-int4-g128", "w8a8-torch", "torch-int-mm", "dense-fp32")
    asked = replace(kernels.settings("cpu", ["64x128"], [1, 2], names), budget=Budget(0.0, 3, 3))
    kernels.run(asked, path, command="this test", limits=LIMITS)
    found = results.load(path)
    assert found.command == "this test"
    assert {row.kernel for row in found.rows} == set(names) and len(found.rows) == 12 and not found.skipped
    assert all(row.seconds > 0 and row.quartiles[0] <= row.seconds <= row.quartiles[1] for row in found.rows)
    document = json.loads(path.read_text())
    assert document["hardware"]["cores"] >= 1 and document["versions"]["torch"] == torch.__version__
    assert document["settings"]["device"] == "cpu"
