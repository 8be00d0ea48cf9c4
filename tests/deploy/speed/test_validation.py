"""The model of time against published speeds: what the acceptance asks, and that nothing of it is by heart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from qlab.deploy.results import result, results
from qlab.deploy.speed import validation
from qlab.deploy.speed.efficiency import HOSTS, PARAMETERS
from qlab.deploy.speed.misses import EXPLANATIONS
from qlab.deploy.speed.phases import decode, prefill
from qlab.deploy.speed.validation import FITTED, TABLE, Comparison, fit, informs, left_out, predict, readings, validate


@pytest.fixture(scope="module")
def found() -> validation.Validation:
    return validate()


def test_every_published_speed_is_predicted_or_excluded_with_a_reason(found: validation.Validation) -> None:
    compared = [one.reading.row.id for one in found.comparisons]
    excluded = [row.id for row, _ in found.excluded]
    assert sorted(compared + excluded) == sorted(row.id for row in results(kind="speed"))
    assert all(len(reason) > 10 for _, reason in found.excluded)
    assert sum(len(ids) for ids in found.reasons().values()) == len(excluded)
    assert len(compared) > 4 * len(excluded)


def test_the_median_error_is_at_most_a_quarter(found: validation.Validation) -> None:
    assert found.median <= 0.25
    assert found.within(0.5) >= 0.9


def test_every_miss_is_explained_and_nothing_else(found: validation.Validation) -> None:
    assert {one.reading.row.id for one in found.misses} == EXPLANATIONS.keys()
    for one in found.misses:
        explanation = EXPLANATIONS[one.reading.row.id]
        assert len(explanation.words) > 60
        otherwise = predict(replace(one.reading, job=explanation.instead(one.reading.job)))
        assert abs(otherwise / one.published - 1) < 0.25, "the explanation predicts what was published"


def test_the_parameters_are_what_the_rows_say() -> None:
    """Fitted anew from round numbers they come out the same, to the two digits that are kept."""
    anew = fit(readings()[0])
    assert {name: anew[name] for name in FITTED} == pytest.approx({name: TABLE[name] for name in FITTED}, rel=0.06)


def test_no_parameter_is_of_one_row_alone(found: validation.Validation) -> None:
    table = dict(TABLE)
    for name in FITTED:
        changed = {**table, name: table[name] * 0.5}
        moved = [one for one in found.comparisons if predict(one.reading, changed) != one.predicted]
        assert len(moved) >= 2, name


def test_published_parameters_say_from_whom() -> None:
    assert informs("gpt-fast.read_4") == (
        "pytorch-labs/gpt-fast README @32971d3 (A100-80GB limited to 330 W, batch 1, 5-token prompt)",
    )
    assert len(informs("all.read_16")) > 5
    assert set(FITTED) == {name for name, one in PARAMETERS.items() if one.fitted} | {
        f"host.{name}" for name, one in HOSTS.items() if one.fitted
    }
    with pytest.raises(ValueError, match=r"name: got 'all\.speed'; choose from all\.read_16"):
        informs("all.speed")


def test_a_fit_finds_what_made_the_numbers() -> None:
    """Speeds that the model itself made: two parameters are found from rows that depend on them."""
    rows = [one for one in readings()[0] if one.job.kernels == "gpt-fast"]
    true = TABLE | {"gpt-fast.read_8": 0.6, "gpt-fast.read_4": 0.45}
    made = [replace(one, row=replace(one.row, value=predict(one, true))) for one in rows]
    table = fit(made)
    assert max(abs(predict(one, table) / predict(one, true) - 1) for one in made) < 0.03
    assert "transformers.layer" not in table, "these rows say nothing of it"
    assert "all.link" in table, "what is not fitted stays"


def test_left_out_is_what_the_sources_alone_would_give(found: validation.Validation) -> None:
    without = left_out()
    assert [one.reading.row.id for one in without.comparisons] == [one.reading.row.id for one in found.comparisons]
    assert without.median > found.median
    source = "NVIDIA/TensorRT-LLM docs/source/blogs/quantization-in-TRT-LLM.md @2ee99e8a"
    again = validation.leave_one_source_out([source])
    written = {one.reading.row.id: one.predicted for one in without.comparisons}
    assert len(again.comparisons) == 8
    for one in again.comparisons:
        assert one.predicted == pytest.approx(written[one.reading.row.id], rel=1e-3)


def test_a_row_added_later_needs_a_new_run(tmp_path: Path, monkeypatch: Any) -> None:
    document = json.loads(validation.LEFT_OUT.read_text(encoding="utf-8"))
    del document["predicted"]["gptq-175b"]
    (tmp_path / "left_out.json").write_text(json.dumps(document))
    monkeypatch.setattr(validation, "LEFT_OUT", tmp_path / "left_out.json")
    with pytest.raises(
        ValueError, match=r"left_out\.json: no gptq-175b; run python -m qlab\.deploy\.speed\.validation"
    ):
        left_out()


def test_each_metric_is_predicted_in_its_own_unit() -> None:
    rows = {one.row.id: one for one in readings()[0]}
    options: Any = {"kernels": "transformers"}
    per_token = rows["gptq-175b"]
    step = decode(per_token.job.model, "int3-channel", "A100-80GB", 1, 128 + 64, **options).seconds
    assert predict(per_token) == pytest.approx(1e3 * step)
    rate = rows["qwen25-7b-vllm-6144-GPTQ-Int4"]
    first = prefill("Qwen2.5-7B", "int4-g128-asym", "A100-80GB", 6144, kernels="vllm").seconds
    step = decode("Qwen2.5-7B", "int4-g128-asym", "A100-80GB", 1, 6144 + 1024, kernels="vllm").seconds
    assert predict(rate) == pytest.approx(2048 / (first + 2048 * step))
    ratio = rows["mo21-FP8-Llama3.1-70B-8"]
    assert ratio.baseline is not None
    times = validation.seconds(ratio.baseline) / validation.seconds(ratio.job)
    assert predict(ratio) == pytest.approx(2 * times), "two GPUs against one"


def test_numbers_of_a_summary() -> None:
    reading = readings()[0][0]
    value = float(reading.row.value)  # type: ignore[arg-type]
    rows = tuple(Comparison(reading, value * factor) for factor in (1.1, 0.8, 1.6, 0.3, 1.0))
    one = validation.Validation(rows, ((result("kurtic-speed-int8"), "no lengths"),))
    assert [round(row.error, 3) for row in rows] == [0.1, -0.2, 0.6, -0.7, 0]
    assert one.median == pytest.approx(median([0.1, 0.2, 0.6, 0.7, 0]))
    assert one.within(0.25) == 0.6 and one.within(0.65) == 0.8
    assert [round(row.error, 1) for row in one.misses] == [-0.7, 0.6]
    assert one.reasons() == {"no lengths": ["kurtic-speed-int8"]}
    assert "5 published speeds predicted, 1 excluded." in str(one) and "-70%  pytorch-labs/gpt-fast" in str(one)
