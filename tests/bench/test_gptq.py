from __future__ import annotations

import json

import pytest
import torch

from qlab.bench import gptq as bench
from qlab.bench.gptq import Result
from qlab.methods import gptq


def test_both_do_the_same_work() -> None:
    w, h = bench.layer(48, torch.float64)
    plain = bench.column_by_column(w, h)
    assert torch.equal(plain, gptq.quantize(w, h, bench.BITS, "channel", damping=bench.DAMPING).codes())
    assert torch.equal(w, bench.layer(48, torch.float64)[0]), "the layer is measured again and must not change"


def test_the_median_of_the_pairs_decides() -> None:
    # A slow moment of the machine hits both halves of a pair: 3/9 stays 1/3.
    result = Result(8, 0.34, ours=[1.0, 3.0, 1.0], plain=[3.0, 9.0, 0.5])
    assert result.median == pytest.approx(1 / 3) and result.verdict == "kept"
    assert Result(8, 0.33, ours=[1.0, 3.0, 1.0], plain=[3.0, 9.0, 0.5]).verdict == "broken"


def test_both_are_measured_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(bench, "column_by_column", lambda w, h: order.append("plain"))
    monkeypatch.setattr(gptq, "quantize", lambda *a, **k: order.append("ours"))
    result = bench.run(size=8, pairs=3)
    assert order == ["ours", "plain", "plain", "ours", "ours", "plain"]
    assert len(result.ours) == len(result.plain) == 3 and min(result.ours + result.plain) > 0


def test_line_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench.main(["--size", "16", "--pairs", "2"]) == 0
    line = capsys.readouterr().out
    assert line.startswith("GPTQ 16 × 16") and "at most 0.33: " in line and line.rstrip().endswith("median of 2 pairs)")
    assert bench.main(["--size", "16", "--pairs", "2", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["size"] == 16 and len(found["ours"]) == len(found["plain"]) == 2
    assert found["verdict"] == ("kept" if found["median"] <= found["bar"] else "broken")
