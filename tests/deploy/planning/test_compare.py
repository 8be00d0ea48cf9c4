from __future__ import annotations

import pytest

from qlab.deploy.planning import advice, tables
from qlab.deploy.planning.compare import compare
from qlab.deploy.planning.options import Plan
from qlab.deploy.serving.engine import alone


@pytest.fixture(scope="module")
def found() -> Plan:
    return compare(["int4-g128", "fp8", "int8", "bf16"], "Llama-3-70B", "g6e.12xlarge", "chat")


def test_all_that_runs_is_simulated(found: Plan) -> None:
    assert {one.replica.scheme.name for one in found.options} == {"int4-g128", "fp8", "int8", "bf16"}
    assert all(one.capacity is not None for one in found.options if not one.replica.obstacles and one.replica.estimate)


def test_rows_are_the_numbers_of_the_options(found: Plan) -> None:
    columns, rows = tables.comparison_table(found)
    assert len(rows) == 4 and {len(row) for row in rows} == {len(columns)}
    by_name = {row[0]: dict(zip(columns, row, strict=True)) for row in rows}
    assert (by_name["int4-g128"]["arithmetic"], by_name["fp8"]["arithmetic"]) == ("FP16", "FP8")
    assert by_name["int8"]["prompt"] == by_name["int4-g128"]["prompt"]  # both compute in 16 bits
    assert by_name["int4-g128"]["token bound by"] == "memory"
    assert rows[0][-1] == "CHEAPEST" and all(row[-1] != "CHEAPEST" for row in rows[1:])


def test_sentences_say_from_how_many_tokens_on_fewer_bits_win(found: Plan) -> None:
    four, eight = (
        next(one for one in found.options if one.replica.scheme.name == name) for name in ("int4-g128", "fp8")
    )
    prompt = round(found.workload.mean_prompt)
    tokens = next(
        n
        for n in range(1, 1000)
        if alone(four.replica.engine, prompt, n)[1] < alone(eight.replica.engine, prompt, n)[1]
    )
    said = " ".join(advice.comparison(found))
    assert any(f"int4-g128 answers sooner from {n} tokens on" in said for n in (tokens, tokens - 1))


def test_what_cannot_run_says_why() -> None:
    found = compare(["int4-g128", "w8a8"], "Llama-3-70B", "p3.8xlarge", "chat")
    assert found.choice is None and advice.comparison(found) == []
    _, rows = tables.comparison_table(found)
    assert all("no " in row[-1] and row[-2] == "-" for row in rows)
    assert "there are no kernels" in " ".join(advice.remedies(found))


def test_refused() -> None:
    with pytest.raises(ValueError, match="precisions: got int8; give 2 to 6 different ones"):
        compare(["int8", "int8"], "Llama-3-70B", "g5.xlarge")
    with pytest.raises(ValueError, match="instance: 'g5.xlrge' is not known; did you mean g5.xlarge"):
        compare(["int8", "fp8"], "Llama-3-70B", "g5.xlrge")
