"""The words of a plan: every number in them is one of the plan's."""

from __future__ import annotations

import datetime
import re
from dataclasses import replace

import pytest

from qlab.deploy.planning import advice, tables
from qlab.deploy.planning.options import Plan
from qlab.deploy.planning.plan import plan
from qlab.deploy.serving.workloads import duration, workload
from qlab.deploy.speed.validation import left_out

DAY = datetime.date(2026, 8, 1)
AMONG = ["p5.48xlarge", "p5en.48xlarge", "g6e.12xlarge", "g6e.24xlarge", "p3.8xlarge", "g5.xlarge"]


@pytest.fixture(scope="module")
def found() -> Plan:
    return plan("Llama-3-70B", "recommend", latency=0.5, qps=20, among=AMONG)


def test_the_paragraph_is_made_of_the_numbers_of_the_plan(found: Plan) -> None:
    said, best, seen = advice.paragraph(found, DAY), found.choice, found.at_load
    assert best is not None and seen is not None
    for words in (
        f"Serve Llama-3-70B in {best.replica.scheme.name} on ",
        f"{best.usd_per_month:,.0f} USD a month",
        f"{best.usd_per_million:,.2f} USD per million output tokens",
        "within 500 ms for 95 % of the requests",
        f"At 20 requests per second the simulation finds {duration(seen.answer)}",
        f"misses published speeds of other sources by {left_out().median:.0%}",
        "Prices are of 2026-07-20, 12 days old.",
        "accuracy is not in these numbers",
    ):
        assert words in said, words
    late = sum(not one.replica.obstacles and not one.rate for one in found.options)
    assert f"{late} are too late at any load" in said
    assert best.replica.calibration in said


def test_the_table_has_each_kind_of_machine_once_and_all_precisions_of_the_best(found: Plan) -> None:
    columns, rows = tables.options_table(found)
    assert {len(row) for row in rows} == {len(columns)}
    assert rows[0][-1] == "RECOMMENDED"
    machines = [row[0].split(" x ")[-1] for row in rows]
    assert found.choice is not None
    best = found.choice.instance.name
    assert machines.count(best) == 3
    assert {name for name in machines if name != best} == set(AMONG) - {best, "g6e.24xlarge"}
    assert len(tables.options_table(found, everything=True)[1]) == len(found.options)
    simulated = {(one.instance.name, one.replica.scheme.name) for one in found.options if one.capacity}
    for row, machine in zip(rows, machines, strict=True):
        assert ((machine, row[1]) in simulated) == (row[7][0].isdigit()), row


def test_where_nothing_meets_the_target_it_says_what_would() -> None:
    late = plan("Llama-3-70B", "recommend", latency=0.06, among=AMONG)
    said = " ".join(advice.remedies(late))
    least = min(one.replica.floor.answer for one in late.options if not one.replica.obstacles)
    assert f"needs {duration(least)} for one request alone; the limit is 60 ms" in said
    assert f"a limit above {duration(least)}" in said
    tokens = int(re.search(r"answers of at most (\d+) tokens in place of 8", said)[1])  # type: ignore[index]
    shorter = plan("Llama-3-70B", replace(workload("recommend"), output=tokens), latency=0.06, among=AMONG)
    longer = plan("Llama-3-70B", replace(workload("recommend"), output=tokens + 1), latency=0.06, among=AMONG)
    assert any(one.replica.estimate for one in shorter.options if not one.replica.obstacles)
    assert not any(one.replica.estimate for one in longer.options if not one.replica.obstacles)
    assert advice.paragraph(late).startswith("Nothing that is known meets the target.")


def test_other_ways_to_fail() -> None:
    def said(found: Plan) -> str:
        assert found.choice is None
        return " ".join(advice.remedies(found))

    assert "fits nowhere: the nearest, " in said(plan("Llama-3-70B", among=["g4dn.xlarge", "p3.2xlarge"]))
    assert "there are no kernels" in said(plan("Llama-3-8B", precisions=["fp8"], among=["g5.xlarge"]))
    assert "No price is listed" in said(plan("Llama-3-8B", among=["p5e.48xlarge"]))
    steady = said(plan("Llama-3-70B", among=["g6e.12xlarge"], per_token=0.005))
    assert re.search(r"No server gives a token in less than \d", steady)
    first = said(plan("Llama-3-70B", among=["g6e.12xlarge"], latency=0.05, per_token=1.0))
    assert "prompts of at most" in first and "answers of" not in first


def test_a_plan_with_a_choice_needs_no_remedy(found: Plan) -> None:
    assert advice.remedies(found) == []


def test_a_remark_on_the_kernels_is_passed_on() -> None:
    found = plan("Llama-3-8B", "classify", precisions=["int4-g128"], among=["g4dn.xlarge"])
    assert any("Kernels: Turing is in the newest table only." in one for one in advice.trust(found))
