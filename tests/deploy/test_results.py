from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from qlab.deploy import results
from qlab.deploy.results import DATA, conflicts, read_conflicts, read_results, result


def test_rows_of_every_kind() -> None:
    counts = {kind: len(results.results(kind=kind)) for kind in results.KINDS}
    assert counts["accuracy"] > 200 and counts["speed"] > 200 and counts["memory"] > 20 and counts["cost"] >= 2
    assert sum(counts.values()) == len(results.results())


def test_the_rows_of_the_72b() -> None:
    assert result("qwen25-72b-hf-1-BF16/memory").value == 136.20
    assert result("qwen25-72b-hf-1-GPTQ-Int8/memory").value == 72.61
    assert result("qwen25-72b-hf-1-AWQ/memory").value == 39.44
    assert result("qwen25-72b-hf-1-AWQ/memory").unit == "GiB"
    assert result("qwen25-72b-hf-1-AWQ/speed").hardware == "1x A100-80GB"


def test_ratios_are_computed() -> None:
    row = result("gptfast-int4-Llama-2-7B")
    assert row.ratio == pytest.approx(1.876, abs=0.001)
    assert result("kivi").ratio is None
    assert result("l32-qat-cost").value == (1300, 1600, 1.7, 2.4)


def test_every_row_is_plausible() -> None:
    for row in results.results():
        assert row.source and row.date and row.confidence in ("high", "medium"), row.id
        assert "same" not in row.source, row.id  # no row leans on another one's source
        assert row.statement or (row.metric and row.model), row.id
        # A missing number beside a metric is a run that did not fit.
        assert row.statement or row.value is not None or "memory" in row.note, row.id
        assert not row.metric or row.better or "loss" in row.metric, row.id
        if row.metric and "perplexity" in row.metric:
            assert row.better == "lower", row.id
        if row.metric and "tokens/s" in row.metric:
            assert row.better == "higher", row.id


def test_selection() -> None:
    found = results.results(kind="speed", model="Llama-2-7B", hardware="A100-80GB")
    assert found and all(row.model == "Llama-2-7B" for row in found)
    assert results.results(model="no such model") == ()
    with pytest.raises(TypeError, match="no field 'modell'; did you mean model"):
        results.results(modell="x")
    with pytest.raises(ValueError, match="result: 'kiwi' is not known; did you mean kivi"):
        result("kiwi")


def test_conflicts_name_rows_that_are_there() -> None:
    found = conflicts()
    assert len(found) >= 9
    assert all(conflict.topic and conflict.why and conflict.sides for conflict in found)
    topic = next(c for c in found if "8 bit or 4 bit" in c.topic)
    eight, four = (result(id) for id in topic.sides[0].results)
    assert eight.ratio < four.ratio  # type: ignore[operator]
    eight, four = (result(id) for id in topic.sides[1].results)
    assert eight.ratio > four.ratio  # type: ignore[operator]


GOOD = {
    "kind": "speed",
    "metric": "tokens/s",
    "value": 3.0,
    "source": "a page",
    "date": "undated",
    "confidence": "high",
}


def _file(path: Path, entry: dict[str, Any], conflicts: list[Any] | None = None) -> Path:
    file = path / "results.json"
    kept = {field: value for field, value in entry.items() if value is not ...}
    file.write_text(json.dumps({"results": {"x": kept}, "conflicts": conflicts or []}), encoding="utf-8")
    return file


def test_a_good_row_reads(tmp_path: Path) -> None:
    assert read_results(_file(tmp_path, GOOD))["x"].value == 3
    assert DATA.is_file()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": ...}, "of x misses 'source'"),
        ({"source": ""}, "of x has no source"),
        ({"source": ["a", "b"]}, r"of x: source is \['a', 'b'\]; it must be a text"),
        ({"date": ...}, "of x misses 'date'"),
        ({"date": "yesterday"}, "of x has the date 'yesterday'"),
        ({"confidence": ...}, "of x misses 'confidence'"),
        ({"kind": "rumour"}, "of x: kind is 'rumour'; choose from accuracy"),
        ({"better": "bigger"}, "of x: better is 'bigger'"),
        ({"value": "fast"}, "of x: 'fast' is no number"),
        ({"value": True}, "of x: True is no number"),
        ({"value": [1, "2"]}, "of x: '2' is no number"),
        ({"baseline": "BF16"}, "of x: 'BF16' is no number"),
        ({"metric": ...}, "of x says nothing"),
        ({"model": 7}, "of x: model is 7"),
        ({"id": "y"}, "of x has unknown 'id'"),
        ({"colour": "red"}, "of x has unknown 'colour'"),
    ],
)
def test_senseless_rows_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_results(_file(tmp_path, {**GOOD, **changes}))


def test_conflicts_about_rows_that_are_not_there_are_refused(tmp_path: Path) -> None:
    good = {"topic": "t", "why": "w", "sides": [{"says": "s", "results": ["x"]}]}
    assert read_conflicts(_file(tmp_path, GOOD, [good]))[0].sides[0].results == ("x",)
    bad = {**good, "sides": [{"says": "s", "results": ["y"]}]}
    with pytest.raises(ValueError, match="conflict 't': result: 'y' is not known"):
        read_conflicts(_file(tmp_path, GOOD, [bad]))
    with pytest.raises(ValueError, match="conflict 't' misses 'why'"):
        read_conflicts(_file(tmp_path, GOOD, [{"topic": "t", "sides": []}]))
