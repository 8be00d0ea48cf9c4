"""Checks against degradations: what each is blind to, what theory knows, and the same table every time."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlab.deploy.quality import checks
from qlab.deploy.quality.degradation import HEALTHY, TRAFFIC, Degradation, World, catalogue, healthy_world
from qlab.deploy.quality.measured import quality
from qlab.deploy.quality.monitoring import Check, Table, cusum, simulate
from qlab.deploy.quality.power import ab_power, flips

RUNS = 200
FALSE_ALARMS = 0.05
# A limit from 1,000 runs has an error of its own; then four standard errors of 200 runs.
QUIET = FALSE_ALARMS + 4 * math.sqrt(FALSE_ALARMS * 0.95 * (1 / RUNS + 1 / (5 * RUNS)))
OFFLINE = [check.name for check in checks.all_checks() if not check.online]


@pytest.fixture(scope="module")
def table() -> Table:
    return simulate(healthy_world(), checks.all_checks(), runs=RUNS)


def world(**changes: Any) -> World:
    """Two workloads, a round number of everything."""
    fields: dict[str, Any] = {
        "shares": {"chat": 0.75, "sql": 0.25}, "right": {"chat": 0.9, "sql": 0.8}, "flips": {"chat": 0.02, "sql": 0.04},
        "kl": 0.05, "kl_spread": 0.01, "horizon": 20_000, "batch": 200,
    }  # fmt: skip
    return World(**fields | changes)


# ---- Blind spots: each has its cause ----


def test_a_healthy_model_is_left_alone_as_often_as_promised(table: Table) -> None:
    for check in table.checks:
        assert table.get(check, "healthy").power <= QUIET


@pytest.mark.parametrize("unseen", ["long prompts only", "bug on one GPU type", "traffic drifts away"])
def test_before_launch_nobody_sees_what_the_test_set_lacks(table: Table, unseen: str) -> None:
    for check in OFFLINE:
        assert table.get(check, unseen).power <= QUIET


def test_fixed_prompts_see_neither_long_prompts_nor_new_traffic_but_the_other_gpu(table: Table) -> None:
    canary = checks.canary().name
    assert table.get(canary, "long prompts only").power <= QUIET
    assert table.get(canary, "traffic drifts away").power <= QUIET
    assert table.get(canary, "bug on one GPU type").power > 0.9


def test_kl_and_flips_alarm_at_what_costs_no_answer_and_accuracy_does_not(table: Table) -> None:
    for check in (checks.mean_kl(), checks.flip_rate()):
        assert table.get(check.name, "harmless change").power > 0.9
    for check in (checks.accuracy(), checks.paired(), checks.ab_test(), checks.rejections()):
        assert table.get(check.name, "harmless change").power <= QUIET


def test_kl_on_generic_text_does_not_see_one_workload(table: Table) -> None:
    assert table.get(checks.mean_kl().name, "SQL broken").power <= QUIET


def test_pairs_see_more_than_strangers(table: Table) -> None:
    """A sample of the traffic holds few questions of SQL: the mean hides it, the pairs do not."""
    assert (
        table.get(checks.accuracy().name, "SQL broken").power + 0.1
        < table.get(checks.paired().name, "SQL broken").power
    )


def test_rare_garbage_is_found_by_who_reads_every_answer(table: Table) -> None:
    found = table.get(checks.validator().name, "rare garbage")
    assert found.power > 0.9 and found.requests is not None and found.requests < 20_000
    for check in set(table.checks) - {checks.validator().name, checks.canary().name}:
        assert table.get(check, "rare garbage").power < 0.3


def test_damage_in_one_part_is_found_sooner_by_part(table: Table) -> None:
    parts, total = checks.rejections_by_part().name, checks.rejections().name
    for local in ("SQL broken", "long prompts only", "bug on one GPU type"):
        sooner, later = table.get(parts, local).requests, table.get(total, local).requests
        assert sooner is not None and later is not None and sooner < later / 2
    everywhere = table.get(total, "1 % lost everywhere").power
    assert table.get(parts, "1 % lost everywhere").power < everywhere, "and what is spread thin is found by the whole"


def test_an_ab_test_speaks_at_its_end_and_a_cusum_before(table: Table) -> None:
    late = table.get(checks.ab_test().name, "1 % lost everywhere")
    soon = table.get(checks.rejections().name, "1 % lost everywhere")
    assert late.requests == table.world.horizon
    assert soon.requests is not None and soon.requests < late.requests / 2


# ---- Against theory ----


def test_power_of_the_ab_test_is_that_of_the_formula() -> None:
    """One-sided at 5 %, as the limit is; half the horizon in each arm."""
    here, harm = world(), Degradation("all", lost=0.03)
    runs = 2000
    seen = simulate(here, [checks.ab_test()], [harm], runs=runs).get(checks.ab_test().name, "all").power
    right = 0.75 * 0.9 + 0.25 * 0.8
    rejected = [0.05 * r + 0.5 * (1 - r) for r in (right, 0.97 * right)]
    expected = ab_power(*rejected, here.horizon // 2, alpha=0.10)
    assert 0.5 < expected < 0.95
    # The limit is a quantile of 10,000 runs; an error of alpha moves the power by at most φ(0) / φ(1.645) = 3.9 times.
    limit = 3.9 * math.sqrt(0.05 * 0.95 / (5 * runs))
    assert seen == pytest.approx(expected, abs=4 * math.hypot(math.sqrt(0.25 / runs), limit))


@given(st.lists(st.integers(0, 20), min_size=1, max_size=30), st.floats(0.01, 0.4), st.floats(1.05, 2))
def test_cusum_is_its_recursion(events: list[int], p: float, factor: float) -> None:
    q, score, expected = factor * p, 0.0, []
    for x in events:
        score = max(0.0, score + x * math.log(q / p) + (20 - x) * math.log((1 - q) / (1 - p)))
        expected.append(score)
    assert cusum(np.array(events, float), 20, p, q) == pytest.approx(expected, abs=1e-9)


def test_with_a_single_part_the_worst_part_is_the_whole() -> None:
    here = world(shares={"chat": 1.0}, right={"chat": 0.9}, flips={"chat": 0.0}, long=0.0, other_gpu=0.0)
    harm = Degradation("some", lost=0.05)
    ends = []
    for check in (checks.rejections(1.5), checks.rejections_by_part(1.5)):
        _, scores = check.score(here, harm, 1500, np.random.default_rng(1))
        ends.append(scores.max(1))
    error = math.hypot(*(end.std() / math.sqrt(len(end)) for end in ends))
    assert ends[0].mean() == pytest.approx(ends[1].mean(), abs=4 * error)


def test_a_canary_asks_no_new_questions() -> None:
    """One answer in a thousand, 300 prompts: in e^-0.3 of all cases none of them is hit, however often it asks."""
    here = world(right={"chat": 1.0, "sql": 1.0}, unsteady=1e-4, horizon=200_000, batch=5000)
    found = simulate(here, [checks.canary(300, 1000)], [Degradation("rare", lost=0.001)], runs=800)
    hit, power = 1 - 0.999**300, found.get("canary, 300 prompts", "rare").power
    error = 4 * math.sqrt(hit * (1 - hit) / 800)
    assert hit - error <= power <= hit + FALSE_ALARMS * (1 - hit) + error


@pytest.mark.parametrize(("only_other_gpu", "part"), [(False, 0.5), (True, 0.5 * 0.2)])
def test_a_canary_meets_the_other_gpu_as_often_as_traffic_does(only_other_gpu: bool, part: float) -> None:
    """Half of all answers break; each step of the score tells how many of 300 prompts differed."""
    here = world(right={"chat": 1.0, "sql": 1.0}, unsteady=1e-4)
    harm = Degradation("bug", lost=0.5, only_other_gpu=only_other_gpu)
    _, scores = checks.canary(300, 1000).score(here, harm, 400, np.random.default_rng(0))
    per_event, base = math.log(3 * (1 - 1e-4) / (1 - 3e-4)), 300 * math.log((1 - 3e-4) / (1 - 1e-4))
    differ = (np.diff(scores, axis=1) - base) / per_event
    assert differ.mean() == pytest.approx(300 * part, rel=0.02)


@given(st.floats(0, 1), st.booleans(), st.booleans(), st.sampled_from([(), ("sql",), ("chat", "sql")]))
def test_what_is_taken_is_where_it_was_said(
    lost: float, only_long: bool, only_other_gpu: bool, workloads: tuple[str, ...]
) -> None:
    here = world()
    harm = Degradation("x", lost, workloads, only_long, only_other_gpu)
    chat = 0.0 if workloads == ("sql",) else 0.75 * 0.9
    part = (0.05 if only_long else 1) * (0.2 if only_other_gpu else 1)
    assert harm.cost(here) == pytest.approx(lost * part * (chat + 0.25 * 0.8))
    assert here.weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("check", [checks.paired(), checks.rejections(), checks.rejections_by_part(), checks.canary()])
def test_more_damage_is_seen_more_often(check: Any) -> None:
    here = healthy_world(horizon=50_000)
    found = simulate(here, [check], [Degradation(str(lost), lost) for lost in (0.005, 0.02, 0.08)])
    powers = [found.get(check.name, str(lost)).power for lost in (0.005, 0.02, 0.08)]
    assert powers[0] < powers[2] and powers[1] <= powers[2] and powers[0] <= powers[1] + 0.1
    assert powers[2] > 0.95


# ---- What is healthy comes from the file ----


def test_health_is_nano_s() -> None:
    here, four = healthy_world(), quality().method("INT4 g128")
    before = quality().method("16-bit")
    assert dict(here.shares) == TRAFFIC and here.kl == four.kl
    for workload, rate in here.flips.items():
        assert here.right[workload] == four.answers[workload].accuracy
        assert rate == flips(before.answers[workload].correct, four.answers[workload].correct).rate


def test_sql_breaks_as_it_does_at_int3() -> None:
    broken = next(one for one in catalogue() if one.name == "SQL broken")
    here = healthy_world()
    left = here.right["sql"] * (1 - broken.lost)
    assert left == pytest.approx(quality().method("INT3 g128").answers["sql"].accuracy)


# ---- The same table every time ----


def test_the_table_is_the_same_for_a_seed_whatever_stands_beside() -> None:
    here = world()
    alone = simulate(here, [checks.paired()], runs=50)
    among = simulate(here, [checks.canary(), checks.paired()], runs=50)
    assert alone.caught == tuple(one for one in among.caught if one.check == checks.paired().name)
    assert simulate(here, [checks.paired()], runs=50) == alone
    assert simulate(here, [checks.paired()], runs=50, seed=1) != alone


def test_the_table_in_words(table: Table) -> None:
    text = str(table)
    for name in (*table.checks, *table.rows):
        assert name in text
    assert table.rows == ("healthy", *(one.name for one in catalogue()))
    with pytest.raises(ValueError, match="check, degradation: got 'luck', 'healthy'"):
        table.get("luck", "healthy")


def test_the_table_is_of_alarms_above_the_limit() -> None:
    """Its numbers again, from a check that scores what it is told to."""
    times = np.array([10.0, 20.0])

    def score(here: World, harm: Degradation, runs: int, rng: np.random.Generator) -> tuple[Any, Any]:
        first = np.arange(runs) / runs  # healthy maxima are spread evenly from 0 to 1
        # Degraded, three quarters of the runs go above any limit, at the second look.
        late = np.where(first < 0.75, 2.0, 0.0) if harm.lost else first
        return times, np.stack([first / 2, late], axis=1)

    found = simulate(world(), [Check("by hand", True, score)], [Degradation("some", lost=0.1)], runs=100)
    assert found.limits["by hand"] == pytest.approx(0.95, abs=0.002)
    assert found.get("by hand", "some").power == 0.75 and found.get("by hand", "some").requests == 20
    assert found.get("by hand", "healthy").power == 0.04  # those at 0.96, 0.97, 0.98 and 0.99
    assert found.get("by hand", "healthy").requests is None


def test_no_median_where_most_runs_see_nothing(table: Table) -> None:
    for one in table.caught:
        assert (one.requests is None) == (one.power < 0.5) or one.power == 0.5


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: world(shares={"chat": 0.5, "sql": 0.25}), "shares: got .* must sum to 1"),
        (lambda: world(right={"chat": 0.9}), "right: got .'chat'.; give a rate for each"),
        (lambda: world(right={"chat": 0.9, "sql": 1.2}), "right of sql: got 1.2"),
        (lambda: world(long=-0.1), "long: got -0.1"),
        (lambda: world(horizon=1001), "horizon: got 1001; it must be a multiple of batch, 200"),
        (lambda: world(batch=0), "batch: got 0"),
        (lambda: healthy_world(shares={"poems": 1.0}), "shares: got 'poems'"),
        (lambda: healthy_world("INT5"), "method: 'INT5' is not known"),
        (lambda: Degradation("x", lost=1.5), "lost: got 1.5"),
        (lambda: Degradation("x", workloads=("poems",)).cost(world()), "workloads: got .'poems'."),
        (lambda: cusum(np.zeros(3), 10, 0.2, 0.1), "p, q: got 0.2, 0.1"),
        (lambda: cusum(np.zeros(3), 10, 0.0, 0.1), "p, q: got 0.0, 0.1"),
        (lambda: simulate(world(), []), r"checks: got \[\]"),
        (lambda: simulate(world(), [checks.ab_test()] * 2), "checks: got .* each name once"),
        (lambda: simulate(world(), [checks.ab_test()], [HEALTHY]), "degradations: got .* each name once"),
        (lambda: simulate(world(), [checks.ab_test()], runs=5), "runs: got 5; give 20 or more"),
        (lambda: simulate(world(), [checks.ab_test()], false_alarms=0), "false_alarms: got 0"),
        (lambda: simulate(world(), [checks.ab_test()], seed=-1), "seed: got -1"),
        (lambda: checks.accuracy(0), "examples: got 0"),
        (lambda: checks.canary(every=0), "every: got 0"),
        (
            lambda: simulate(world(), [checks.canary(1)], [Degradation("x")]),
            "prompts: got 1; give one or more for each",
        ),
        (lambda: simulate(world(), [checks.canary(every=30_000)], [Degradation("x")]), "every: got 30000"),
    ],
)
def test_refused(call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()


def test_a_world_can_be_changed_field_by_field() -> None:
    here = healthy_world(long=0.1)
    assert here.long == 0.1 and dataclasses.replace(here, long=0.05) == healthy_world()
