"""Set 12 against what it is about: qlab.deploy's memory, simulator, money and planner, and the numbers in its text."""

from __future__ import annotations

import inspect
import json
import math
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from qlab.deploy import fits, gpu, instances, memory, spec
from qlab.deploy.cost import machines, usd_per_million, usd_per_month
from qlab.deploy.planning.compare import compare
from qlab.deploy.planning.options import Option, Plan
from qlab.deploy.planning.plan import plan
from qlab.deploy.planning.replica import Assumptions
from qlab.deploy.planning.support import missing
from qlab.deploy.results import result
from qlab.deploy.serving import simulation
from qlab.deploy.serving.load import PRECISION, Capacity, Load, requests_for, simulate
from qlab.deploy.serving.traffic import Request, lognormal, requests
from qlab.deploy.serving.workloads import workload
from qlab.deploy.speed.validation import left_out
from qlab.learn.judge import examine
from qlab.learn.questions import all_ids, question
from qlab.learn.questions.deployment.shared import GIB, HOURS_PER_MONTH
from qlab.learn.questions.memory.configs import published

MASTER = Path(__file__).parents[3] / "solutions" / "12_four_or_eight_bits.ipynb"
IDS = [one for one in all_ids() if one.startswith("deployment.")]
PRICE_DATE = "2026-07-20"
Given = dict[str, tuple[Any, ...]]

kv_admission, in_flight, percentiles, serve, bill, savings, cheapest = (question(name).reference for name in IDS)


def cell(cell_id: str) -> str:
    [found] = [each for each in json.loads(MASTER.read_text(encoding="utf-8"))["cells"] if each["id"] == cell_id]
    return "".join(found["source"])


# --- the references against the library -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "precision", "where", "gpus"),
    [
        ("Llama-3-70B", "fp8", "H100-80GB", 2),
        ("Llama-3-70B", "int4-g128", "L40S", 1),
        ("Llama-3-70B", "bf16", "H200", 1),
        ("Llama-2-7B", "bf16", "A100-80GB", 8),
        ("Qwen2.5-7B", "int4-g128", "L4", 4),
    ],
)
def test_admission_is_the_memory_that_deploy_leaves(name: str, precision: str, where: str, gpus: int) -> None:
    model = spec(name)
    for bits, group in ((16, None), (8, model.head_dim), (4, model.head_dim)):
        options: dict[str, Any] = {"tensor_parallel": gpus, "kv_bits": bits, "kv_group_size": group}
        if gpus > 1 and gpus not in model.splits:
            assert model.kv_heads < gpus  # what `splits` refuses is not asked for
            continue
        fit = fits(name, where, utilization=0.9, overhead_gb=0, **options)
        weights = gpus * fit.breakdown.weights
        for prompt, output in ((1024, 8), (511, 258), (16, 16)):
            ours = kv_admission(
                published(name), bits, gpus, gpu(where).memory_visible_gib, 0.9, weights, prompt, output
            )
            assert ours == fit.tokens // 16 // -(-(prompt + output) // 16)


def steps(fixed: float, per_prompt: float, per_decode: float) -> simulation.StepTime:
    return lambda prefill, decoding, cached: fixed + per_prompt * prefill + per_decode * decoding


def simulated(sent: Any, kv_tokens: int, *times: float) -> Any:
    """The library's simulator under the rules of the card: whole prompts, and no limit of the batch."""
    listed = [Request(*one) for one in sent]
    return simulation.serve(listed, steps(*times), kv_tokens=kv_tokens, max_batch=10**6, prefill_budget=None)


@pytest.mark.parametrize("seed", range(4))
def test_serve_is_the_simulator_of_deploy(seed: int) -> None:
    for case in question("deployment.serve").cases(seed):
        run = simulated(*case.args)
        theirs = [time for one in run.timings for time in (one.first_token, one.finished)]
        assert [time for pair in serve(*case.args) for time in pair] == pytest.approx(theirs, rel=1e-12), case.name


@pytest.mark.parametrize("seed", range(3))
def test_in_flight_is_what_a_simulated_server_shows(seed: int) -> None:
    """Little's law is exact for a run that begins and ends empty, every request being a kind of its own."""
    sent = requests(3.0, 60, lognormal(500, 0.6, high=1500), lognormal(30, 0.9, high=90), seed)
    run = simulation.serve(sent, steps(0.05, 2e-4, 2e-3), kv_tokens=9000)
    kinds = tuple((1 / 60, t.request.prompt, t.request.output, t.wait, t.latency) for t in run.timings)
    batch, tokens, most = in_flight(kinds, 86_400 * run.throughput, 1, run.kv_tokens)
    assert batch == pytest.approx(sum(step.batch * step.seconds for step in run.steps) / run.seconds)
    assert tokens == pytest.approx(sum(step.reserved * step.seconds for step in run.steps) / run.seconds)
    assert in_flight(kinds, 86_400 * most, 1, run.kv_tokens)[1] == pytest.approx(run.kv_tokens)
    assert batch * sum(share * (one[1] + one[2]) for share, one in ((one[0], one) for one in kinds)) != pytest.approx(
        tokens, rel=0.02
    )


@pytest.mark.parametrize("percent", [1, 50, 90, 95, 99, 100])
def test_percentiles_are_those_of_deploy(percent: int) -> None:
    sent = requests(8.0, 70, lognormal(700, 0.6, high=2100), lognormal(12, 0.9, high=36), 5)
    run = simulation.serve(sent, steps(0.02, 9e-5, 1e-3), kv_tokens=6000)
    log = tuple((one.request.arrival, tuple(run.token_times(i))) for i, one in enumerate(run.timings))
    assert percentiles(log, percent, 0) == pytest.approx((run.ttft(percent), run.gap(percent)))


@pytest.mark.parametrize("seed", range(3))
def test_the_bill_is_that_of_deploy(seed: int) -> None:
    for case in question("deployment.usd_per_million").cases(seed):
        usd, copies, rate, spare, peak, utilization, _, output = case.args
        count = machines(peak, copies * rate) + spare
        million = usd_per_million(count * usd, peak * utilization * output)
        assert bill(*case.args) == pytest.approx((count, usd_per_month(usd, count), million), rel=1e-12), case.name


@pytest.mark.parametrize("seed", range(3))
def test_savings_are_quotients_of_bills(seed: int) -> None:
    for case in question("deployment.savings").cases(seed):
        options, load = case.args
        _, usd_16, rate_16 = options[0]
        for (bits, usd, rate), (quoted, now, later) in zip(options[1:], savings(options, load), strict=True):
            assert quoted == 1 - bits / 16
            if rate == 0:
                assert now is later is None
                continue
            whole = [usd_per_month(one, machines(load, bears)) for one, bears in ((usd, rate), (usd_16, rate_16))]
            assert now == pytest.approx(1 - whole[0] / whole[1], abs=1e-12)
            full = [usd_per_million(one, bears) for one, bears in ((usd, rate), (usd_16, rate_16))]
            assert later == pytest.approx(1 - full[0] / full[1], abs=1e-12)


def estimated(engine: Any, workload: Any, target: Any, guess: float, seed: int) -> Capacity:
    """In place of the simulation: the estimate, as it is."""
    load = Load(guess, 0.0, 0.0, None, 1.0, 1)
    return Capacity(load, (load,))


def as_option(one: Option) -> tuple[Any, ...]:
    """What `cheapest` has to know of an option of a plan."""
    at = one.replica
    has = int(at.gpu.visible_bytes * at.given.gpu_memory_utilization)
    runs = not at.obstacles
    return (
        (has - at.fit.budget + at.fit.breakdown.kv_cache) / 1e9,
        has / GIB,
        missing(at.scheme, at.gpu) is None,
        at.floor.answer if runs else 0.0,
        one.rate if runs else 0.0,
        one.instance.price_usd_per_hour,
    )


def word(one: Option) -> str:
    """The verdict of a plan as one word of the card."""
    for begin, short in (
        ("the weights", "memory"),
        ("the longest", "memory"),
        ("no price", "price"),
        ("no ", "kernels"),
    ):
        if one.verdict.startswith(begin):
            return short
    return "latency" if one.verdict.startswith("too late") else "cost" if one.verdict else "wins"


@pytest.mark.parametrize(("latency", "qps"), [(0.5, 50.0), (5.0, 0.5), (0.05, 1.0)])
def test_the_cheapest_is_that_of_the_planner_and_so_is_every_reason(latency: float, qps: float) -> None:
    found: Plan = plan("Llama-3-70B", "recommend", latency=latency, qps=qps, search=estimated)
    verdicts, usd = cheapest([as_option(one) for one in found.options], qps, latency)
    assert verdicts == [word(one) for one in found.options]
    assert usd == (found.choice and pytest.approx(found.choice.usd_per_month))
    assert len(set(verdicts)) >= (3 if latency == 0.05 else 5)


# --- nothing is decided by the rounding of floats ---------------------------------------------------------------------


def by_share(log, percent, warm_up):
    kept = [one for one in log if one[0] >= warm_up]
    gaps = [b - a for _, times in kept for a, b in pairwise(times)]

    def pick(values):
        return sorted(values)[math.ceil(len(values) * (percent / 100)) - 1] if values else None

    return pick([times[0] - arrival for arrival, times in kept]), pick(gaps)


def copies_apart(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    machines = spare + math.ceil(peak / copies / rate)
    return machines, usd_per_hour * machines * 730, usd_per_hour * machines / 3600 / (peak * output * utilization) * 1e6


def in_gb(options, load, limit):
    verdicts, ranks = [], []
    for i, (needs, has, kernels, alone, rate, usd) in enumerate(options):
        checks = (needs > has * 1.073741824, "memory"), (not kernels, "kernels"), (alone > limit or not rate, "latency")
        failed = [name for fails, name in (*checks, (usd is None, "price")) if fails]
        verdicts.append((failed or ["cost"])[0])
        if not failed:
            ranks.append((730 * usd * math.ceil(load / rate), -rate * math.ceil(load / rate), i))
    if ranks:
        verdicts[min(ranks)[2]] = "wins"
    return verdicts, min(ranks)[0] if ranks else None


@pytest.mark.parametrize(
    ("name", "answer"), [("percentiles", by_share), ("usd_per_million", copies_apart), ("cheapest", in_gb)]
)
def test_no_whole_number_and_no_verdict_hangs_on_a_hair(name: str, answer: Callable[..., Any]) -> None:
    for seed in range(15):
        verdict = examine(question(f"deployment.{name}"), answer, seed)
        assert verdict.passed, f"seed {seed}: {verdict}"


def test_ranks_are_whole_where_floats_agree_that_they_are() -> None:
    percents = {case.args[1] for case in question("deployment.percentiles").cases(0)}
    for percent in percents:
        for count in range(1, 2000):
            assert math.ceil(percent / 100 * count) == math.ceil(percent * count / 100) == -(-percent * count // 100)


@pytest.mark.parametrize("seed", range(20))
def test_loads_are_whole_numbers_of_machines_exactly_or_by_far_not(seed: int) -> None:
    found = []
    for case in question("deployment.usd_per_million").cases(seed):
        _, copies, rate, _, peak, *_ = case.args
        found.append(peak / (copies * rate))
    for case in question("deployment.savings").cases(seed):
        options, load = case.args
        found += [load / rate for _, _, rate in options if rate]
    for case in question("deployment.cheapest").cases(seed):
        options, load, _ = case.args
        found += [load / one[4] for one in options if one[4]]
    for count in found:
        assert count == round(count) or abs(count - round(count)) > 1e-6


# --- natural answers --------------------------------------------------------------------------------------------------


def test_other_forms_of_right_answers_pass() -> None:
    import numpy as np

    def as_an_array(*args):
        return np.array(serve(*args), dtype=np.float32)

    def with_numpy_numbers(options, load):
        return [[np.float64(one) if one is not None else None for one in triple] for triple in savings(options, load)]

    assert examine(question("deployment.serve"), as_an_array, 0).passed
    assert examine(question("deployment.savings"), with_numpy_numbers, 0).passed


def without_blocks(config, kv_bits, gpus, gib, utilization, weights, prompt, output):
    token = 2 * config["num_hidden_layers"] * max(1, config["num_key_value_heads"] // gpus)
    token *= config["head_dim"] * kv_bits / 8 + (4 if kv_bits < 16 else 0)
    return max(0, int((gib * 2**30 * utilization - weights / gpus) / token / (prompt + output)))


def mean_size(kinds, per_day, peak, kv_tokens):
    rate = per_day / 86400 * peak
    seconds = sum(share * (latency - queue) for share, _, _, queue, latency in kinds)
    size = sum(share * (prompt + output) for share, prompt, output, _, _ in kinds)
    return rate * seconds, rate * seconds * size, kv_tokens / (seconds * size)


def numpy_default(log, percent, warm_up):
    import numpy as np

    kept = [one for one in log if one[0] >= warm_up]
    gaps = [gap for _, times in kept for gap in np.diff(times)]
    return np.percentile([times[0] - arrival for arrival, times in kept], percent), (
        np.percentile(gaps, percent) if gaps else None
    )


def int_of_the_share(log, percent, warm_up):
    kept = [one for one in log if one[0] >= warm_up]
    waits = sorted(times[0] - arrival for arrival, times in kept)
    gaps = sorted(times[i + 1] - times[i] for _, times in kept for i in range(len(times) - 1))

    def pick(values):
        return values[min(int(len(values) * percent / 100), len(values) - 1)]

    return pick(waits), pick(gaps) if gaps else None


def an_hour_by_a_second(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    count = math.ceil(peak / copies / rate) + spare
    return count, 730 * count * usd_per_hour, count * usd_per_hour / (peak * utilization * output) * 1e6


def by_the_bits(options, load):
    return [(1 - bits / 16, *((1 - bits / 16,) * 2 if rate else (None, None))) for bits, _, rate in options[1:]]


def as_if_gib_were_gb(options, load, limit):
    return cheapest([(needs, has / 1.073741824, *rest) for needs, has, *rest in options], load, limit)


def counted_after_letting_in(requests, kv_tokens, fixed, per_prompt, per_decode):
    queue, batch, clock, answers = list(enumerate(requests)), {}, 0.0, {}
    while queue or batch:
        if not batch and queue[0][1][0] > clock:
            clock = queue[0][1][0]
        prompts = 0
        while queue and queue[0][1][0] <= clock:
            _, prompt, output = queue[0][1]
            if sum(requests[i][1] + requests[i][2] for i in batch) + prompt + output > kv_tokens:
                break
            batch[queue.pop(0)[0]] = output
            prompts += prompt
        clock += fixed + per_prompt * prompts + per_decode * len(batch)
        for i in list(batch):
            answers[i] = (answers.get(i, (clock,))[0], clock)
            batch[i] -= 1
            if not batch[i]:
                del batch[i]
    return [answers[i] for i in range(len(requests))]


def nearest_number(log, percent, warm_up):
    kept = [one for one in log if one[0] >= warm_up]
    waits = sorted(times[0] - arrival for arrival, times in kept)
    gaps = sorted(b - a for _, times in kept for a, b in pairwise(times))

    def pick(values):
        return values[round(percent / 100 * len(values)) - 1]

    return pick(waits), pick(gaps) if gaps else None


def as_the_cache_fills(asked):
    """Servers that count the tokens that are in the cache; who joins is asked for `asked(prompt, output)`."""

    def answer(requests, kv_tokens, fixed, per_prompt, per_decode):
        queue, inside, clock, first, last = list(range(len(requests))), {}, 0.0, {}, {}
        while queue or inside:
            if not inside:
                clock = max(clock, requests[queue[0]][0])
            before, prompts = len(inside), 0
            while queue and requests[queue[0]][0] <= clock:
                prompt, output = requests[queue[0]][1:]
                filled = sum(requests[i][1] + written for i, written in inside.items())
                if filled + asked(prompt, output) > kv_tokens:
                    break
                inside[queue.pop(0)] = 0
                prompts += prompt
            clock += fixed + per_prompt * prompts + per_decode * before
            for i in list(inside):
                inside[i] += 1
                first.setdefault(i, clock)
                if inside[i] == requests[i][2]:
                    last[i] = clock
                    del inside[i]
        return [(first[i], last[i]) for i in range(len(requests))]

    return answer


def a_million_times_the_load(options, load):
    def saved(option, load):
        cost = [math.ceil(load / rate) * usd for _, usd, rate in (option, options[0])]
        return 1 - cost[0] / cost[1]

    return [
        (1 - one[0] / 16, saved(one, load), saved(one, 1_000_000 * load)) if one[2] else (1 - one[0] / 16, None, None)
        for one in options[1:]
    ]


def dollars_of_the_option(options, load):
    found = []
    _, usd_16, rate_16 = options[0]
    for bits, usd, rate in options[1:]:
        now = math.ceil(load / rate_16) * usd_16 / (math.ceil(load / rate) * usd) - 1 if rate else None
        found.append((1 - bits / 16, now, usd_16 / rate_16 / (usd / rate) - 1 if rate else None))
    return found


def floor_division(options, load, limit):
    """Counts machines before the rate is looked at, with //, whose error has other words than that of /."""
    costs = [-(-load // one[4]) * (one[5] or math.inf) for one in options if one[3] <= limit]
    return cheapest(options, load, limit) if costs else ([], None)


def by_the_price_of_a_request(options, load, limit):
    verdicts, _ = cheapest(options, load, limit)
    left = [i for i, word in enumerate(verdicts) if word in ("cost", "wins")]
    if not left:
        return verdicts, None
    best = min(left, key=lambda i: options[i][5] / options[i][4])
    verdicts = ["cost" if i in left else word for i, word in enumerate(verdicts)]
    verdicts[best] = "wins"
    return verdicts, math.ceil(load / options[best][4]) * options[best][5] * 730


def the_mean_times_the_peak(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    busiest = peak / utilization
    count = math.ceil(busiest / (copies * rate)) + spare
    return count, 730 * count * usd_per_hour, count * usd_per_hour / (peak * output * 3600) * 1e6


@pytest.mark.parametrize(
    ("name", "answer", "named"),
    [
        ("kv_admission", without_blocks, "tokens_without_blocks"),
        ("in_flight", mean_size, "product_of_means"),
        ("percentiles", numpy_default, "interpolated"),
        ("percentiles", int_of_the_share, "counted_from_zero"),
        ("usd_per_million", an_hour_by_a_second, "hour_by_second"),
        ("savings", by_the_bits, "quoted_for_all"),
        ("cheapest", as_if_gib_were_gb, "gib_as_gb"),
        ("serve", counted_after_letting_in, "new_ones_decode_as_well"),
        ("percentiles", nearest_number, "rounded_to_nearest"),
        ("serve", as_the_cache_fills(lambda prompt, output: prompt), "room_for_what_is_there"),
        ("serve", as_the_cache_fills(lambda prompt, output: prompt + output), "room_that_grows"),
        ("savings", a_million_times_the_load, "a_large_load_for_later"),
        ("savings", dollars_of_the_option, "dollars_as_a_share_of_the_option"),
        ("cheapest", floor_division, "divided_by_zero"),
        ("cheapest", by_the_price_of_a_request, "price_of_a_request_decides"),
        ("usd_per_million", the_mean_times_the_peak, "peak_as_the_mean"),
    ],
)
def test_natural_mistakes_are_named(name: str, answer: Callable[..., Any], named: str) -> None:
    assert examine(question(f"deployment.{name}"), answer, 0).mutant == named


def test_words_are_told_apart() -> None:
    def capital(*arguments):
        verdicts, usd = cheapest(*arguments)
        return [word.capitalize() for word in verdicts], usd

    verdict = str(examine(question("deployment.cheapest"), capital, 0))
    assert "'Memory'" in verdict and "choose from memory, kernels, latency, price, cost, wins" in verdict


def test_a_saving_of_nothing_may_be_off_by_a_rounding() -> None:
    def in_steps(options, load):
        def cost(one):
            return math.ceil(load / one[2]) * one[1] / 3 * 3

        rest = [(1 - one[0] / 16, one) for one in options[1:]]
        return [
            (quoted, 1 - cost(one) / cost(options[0]), 1 - one[1] * options[0][2] / one[2] / options[0][1])
            if one[2]
            else (quoted, None, None)
            for quoted, one in rest
        ]

    for seed in range(5):
        assert examine(question("deployment.savings"), in_steps, seed).passed


# --- what the notebook says -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", IDS)
def test_the_first_case_is_the_example_of_the_card(name: str) -> None:
    """Who fails can work it out by hand."""
    asked = question(name)
    assert asked.cases(0)[0].name == "the example of the card"
    assert asked.cases(7)[0] == asked.cases(8)[0] == asked.cases(0)[0]


def test_the_cards_compute_by_hand_what_the_references_compute() -> None:
    first = {name.partition(".")[2]: question(name).cases(0)[0].args for name in IDS}

    said = cell("deployment-kv_admission-card")
    blocks = kv_admission(*first["kv_admission"][:6], 1, 0)
    assert f"= 482.96, so {blocks}" in said and f"so **{kv_admission(*first['kv_admission'])}**" in said

    said = cell("deployment-in_flight-card")
    batch, tokens, most = in_flight(*first["in_flight"])
    assert f"({batch:g}, {tokens:g}, {most:g})" in said and f"**{batch:g}** | **{tokens:,g}**" in said
    kinds = first["in_flight"][0]
    size = sum(one[0] * (one[1] + one[2]) for one in kinds)
    assert f"has {size:g} tokens, and {batch:g} of *those* would hold {batch * size:,g} only" in said

    said = cell("deployment-percentiles-card")
    wait, gap = percentiles(*first["percentiles"])
    assert f"the third: **{wait:.1f}**" in said and f"the fourth: **{gap:.1f}**" in said
    for arrival, times in first["percentiles"][0]:
        assert f"| {arrival} | {', '.join(map(str, times))} |" in said

    pairs = ", ".join(f"({one:g}, {last:g})" for one, last in serve(*first["serve"]))
    assert f"[{pairs}]" in cell("deployment-serve-card")

    said = cell("deployment-usd_per_million-card")
    count, month, million = bill(*first["usd_per_million"])
    assert f"spare: **{count}**" in said and f"**{month:,}** USD" in said and f"**{million:.2f}** USD" in said
    usd, copies, rate, *_, output = first["usd_per_million"]
    assert f"{usd_per_million(usd, copies * rate * output):.2f} USD a million" in said

    said = cell("deployment-savings-card")
    shown = ", ".join(
        "(" + ", ".join("None" if one is None else f"{one:.4f}".rstrip("0") for one in triple) + ")"
        for triple in savings(*first["savings"])
    )
    assert f"[{shown}]" in said

    said = cell("deployment-cheapest-card")
    verdicts, usd = cheapest(*first["cheapest"])
    assert f"({json.dumps(verdicts)}, {usd})" in said
    for number, (option, verdict) in enumerate(zip(first["cheapest"][0], verdicts, strict=True)):
        needs, has, kernels, alone, rate, price = option
        row = f"| {number} | {needs} | {has} | {'yes' if kernels else 'no'} | {alone} | {rate} | {price} |"
        assert row in said and re.search(rf"^\| {number} .*\| \**{verdict}\** \|$", said, re.MULTILINE)


def test_points_and_minutes_in_the_title() -> None:
    rows = re.findall(r"^\| (\d) \| (.+?) \| (\d+) \| (\d+) \|$", cell("title"), re.MULTILINE)
    cells = {each["id"]: each for each in json.loads(MASTER.read_text(encoding="utf-8"))["cells"]}
    assert len(rows) == len(IDS) + 1
    for (number, title, minutes, points), name in zip(rows, [*IDS, "deployment.defend"], strict=True):
        grade_id = name.replace(".", "-")
        card = cell(grade_id if name == "deployment.defend" else f"{grade_id}-card")
        assert f"## {number}. {title.partition(' (')[0]}" in card and f"| **Minutes** | {minutes} |" in card
        assert cells[grade_id]["metadata"]["nbgrader"]["points"] == int(points)
    together = [str(sum(int(row[column]) for row in rows)) for column in (2, 3)]
    assert f"| together | {' | '.join(together)} |" in cell("title")


def test_the_date_of_the_prices_is_that_of_the_data() -> None:
    assert {one.price_date for one in instances().values() if one.price_date} == {PRICE_DATE}
    assert f"of {PRICE_DATE}" in cell("title")
    task, _, scheme = cell("deployment-defend").partition("### BEGIN MARK SCHEME")
    assert f"us-east-1, {PRICE_DATE}" in task and f"Prices are of {PRICE_DATE}" in scheme
    assert {one.region for one in instances().values()} == {"us-east-1"}


@pytest.mark.parametrize("name", IDS)
def test_what_learners_start_from_is_narrow(name: str) -> None:
    """JupyterLab cuts longer lines off."""
    reference = question(name).reference
    assert max(map(len, inspect.getsource(reference).splitlines())) <= 100
    assert max(map(len, (reference.__doc__ or "").splitlines())) <= 92


def test_the_explanations_state_computed_numbers() -> None:
    def said(name: str) -> str:
        return question(f"deployment.{name}").explanation

    held = [
        next(case for case in question("deployment.kv_admission").cases(0) if case.name == name)
        for name in (
            "Llama-3-70B in 4 bits on one L40S",
            "the same with a cache of 8 bits",
            "Llama-3-70B in 8 bits on two H100",
        )
    ]
    l40s, small, h100 = (kv_admission(*case.args) for case in held)
    assert f"room for {l40s} requests of 1,032 tokens, and for {small}" in said("kv_admission")
    assert f"weights have room for {h100}" in said("kv_admission")
    page = next(case for case in question("deployment.in_flight").cases(0) if "10 million" in case.name)
    kinds, per_day, peak, _ = page.args
    assert f"{per_day * peak / 86_400:.0f} come per second" in said("in_flight")
    assert f"only {in_flight(*page.args)[0]:.0f} are there" in said("in_flight")
    assert f"{1000 * (kinds[0][4] - kinds[0][3]):.0f} ms each" in said("in_flight")
    busy, part = (bill(10, 1, 1, 0, 9, share, 1, 1)[2] for share in (1, 0.4))
    assert f"mean of 0.4 of the peak a token costs {part / busy:.1f} times as much" in said("usd_per_million")


# --- what the open question says --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def options() -> str:
    """The options of the page and of the mail, as they stand in the task."""
    [code] = re.findall(r"```python\n(.*?)```", cell("deployment-defend"), re.DOTALL)
    return code


@pytest.fixture(scope="module")
def given(options: str) -> tuple[Given, Given]:
    scope: dict[str, Any] = {}
    exec(options, scope)
    return scope["page"], scope["mail"]


@pytest.fixture(scope="module")
def found(given: tuple[Given, Given]) -> tuple[dict[str, Option], dict[str, Option]]:
    """What the library says of the same options today, with estimates for their rates."""

    def compared(names: Given, latency: float) -> dict[str, Option]:
        places: dict[str, list[str]] = {}
        for kind, where in (name.split(" on ") for name in names):
            places.setdefault(where, []).append(kind)
        plans = [
            compare(kinds, "Llama-3-70B", at, "recommend", latency=latency, search=estimated)
            for at, kinds in places.items()
        ]
        return {f"{one.replica.scheme.name} on {one.instance.name}": one for each in plans for one in each.options}

    page, mail = given
    return compared(page, 0.5), compared(mail, 5.0)


@pytest.fixture(scope="module")
def scheme() -> str:
    return cell("deployment-defend").partition("### BEGIN MARK SCHEME")[2]


def bears(one: Option, rate: float) -> bool:
    """Whether a machine keeps the limit at this load, all its copies together, in the simulation that decides."""
    at, each = one.replica, rate / one.replicas
    count = requests_for(at.engine, at.workload, at.target, each)
    return simulate(at.engine, at.workload, at.target, each, count, at.given.seed).meets(at.target)


def test_the_options_of_the_open_question_are_computed(
    options: str, given: tuple[Given, Given], found: tuple[dict[str, Option], dict[str, Option]]
) -> None:
    half = options.index("mail = {")
    for texts, stated, computed in zip((options[:half], options[half:]), given, found, strict=True):
        assert stated.keys() == computed.keys()
        for name, (bits, needs, has, kernels, alone, rate, usd) in stated.items():
            one = computed[name]
            theirs, held = as_option(one), one.replica.fit.breakdown
            assert bits == pytest.approx(8 * held.linears / held.share.linear_parameters, abs=1e-3)
            assert (needs, has) == pytest.approx(theirs[:2], abs=0.051) and kernels is theirs[2]
            assert (needs * 1e9 <= has * GIB) == (theirs[0] <= theirs[1] * GIB / 1e9)
            assert alone == pytest.approx(theirs[3], abs=5.1e-4)
            assert bool(rate) == bool(theirs[4])
            assert not rate or (bears(one, rate) and not bears(one, 1.05 * rate))
            assert usd == pytest.approx(theirs[5], abs=5.1e-5)
            note = f"# {one.replicas} × {one.replica.gpus}, {one.replica.fit.tokens:,}"
            [line] = [line for line in texts.splitlines() if f'"{name}"' in line]
            assert line.partition("  ")[2].endswith(note) if theirs[3] else "#" not in line


def test_what_the_open_question_says_of_the_options(
    given: tuple[Given, Given], found: tuple[dict[str, Option], dict[str, Option]]
) -> None:
    task = cell("deployment-defend").partition("### BEGIN MARK SCHEME")[0]
    [line] = re.findall(r"^- GPUs: (.*)\.$", task, re.MULTILINE)
    counts = {"p5en.48xlarge": "p5en 8 H200", "p5.48xlarge": "p5.48xlarge 8 H100", "p5.4xlarge": "p5.4xlarge one",
              "p6-b200.48xlarge": "p6-b200 8 B200", "p4d.24xlarge": "p4d 8 A100 of 40 GB",
              "g6e.xlarge": "g6e.xlarge one L40S", "g6e.12xlarge": "g6e.12xlarge 4",
              "g6.12xlarge": "g6.12xlarge 4 L4"}  # fmt: skip
    assert line.split(", ") == list(counts.values())
    machines_of_both = {one.instance.name: one.instance for each in found for one in each.values()}
    assert counts.keys() == machines_of_both.keys()
    for name, words in counts.items():
        where, [_, count, *gpu_of_it] = machines_of_both[name], words.replace(" one", " 1").split()
        assert int(count) == where.count and where.price_date == PRICE_DATE
        assert not gpu_of_it or where.gpu.name.partition("-")[0] == gpu_of_it[0]
    shape = workload("recommend")
    assert f"prompts of up to {shape.longest - shape.output:,} tokens" in task and shape.output_spread == 0
    assert shape.target(0.5).percent == 95 and f"within {100 * PRECISION:.0f} %" in task
    first, other = (
        {
            one.replica.scheme.name: one.rate
            for one in compare(
                ["fp8", "w4a8", "int4-g128"],
                "Llama-3-70B",
                "g6e.xlarge",
                "recommend",
                latency=5.0,
                given=Assumptions(seed=n),
            ).options
        }
        for n in (0, 2)
    )
    for kind in ("w4a8", "int4-g128"):
        assert given[1][f"{kind} on g6e.xlarge"][5] == pytest.approx(first[kind], rel=2e-4)
        assert 1.08 < other[kind] / first[kind] < 1.26  # "by 10 or 20 %"
    off = 100 * left_out().median
    assert f"speeds by {off:.0f} % in the median" in task


def best(options: Given, load: float, limit: float, *names: str) -> tuple[str, int, float]:
    """Of the options with these precisions the cheapest: its name, its machines, and USD per month."""
    kept = {name: one for name, one in options.items() if name.partition(" on ")[0] in names}
    verdicts, usd = cheapest([one[1:] for one in kept.values()], load, limit)
    name = list(kept)[verdicts.index("wins")]
    return name, math.ceil(load / kept[name][5]), usd


def month(options: Given, name: str, count: int) -> float:
    return count * options[name][6] * HOURS_PER_MONTH


WIDE, EIGHT, INT4, W4A8 = ("bf16",), ("fp8", "w8a8"), ("int4-g128",), ("w4a8",)


def short(name: str) -> str:
    where = name.partition(" on ")[2]
    return where if where.startswith(("g", "p5.")) else where.partition(".")[0]


def test_the_savings_of_the_mark_scheme_are_computed(
    given: tuple[Given, Given], found: tuple[dict[str, Option], dict[str, Option]], scheme: str
) -> None:
    page, mail = given
    on_p5 = {name: one for name, one in page.items() if name.endswith("p5.48xlarge")}
    table = {"page": (page, 50, 0.5), "mail": (mail, 0.5, 5.0), "page, on p5.48xlarge alone": (on_p5, 50, 0.5)}
    for label, (options, load, limit) in table.items():
        [row] = re.findall(rf"^\| {label} \|(.*)\|$", scheme, re.MULTILINE)
        cells = [part.strip() for part in row.split("|")]
        chosen = [best(options, load, limit, *kind) for kind in (WIDE, EIGHT, INT4, W4A8)]
        triples = [(options[name][0], options[name][6], options[name][5]) for name, _, _ in chosen]
        saved = [None, *(now for _, now, _ in savings(triples, load))]
        for text, (name, count, usd), now in zip(cells, chosen, saved, strict=True):
            assert text.startswith(f"{count} × {short(name)}, {usd:,.0f}")
            assert now is None or text.endswith(f": **{100 * now:.1f} %**")
        assert [quoted for quoted, _, _ in savings(triples, load)] == [0.5, 1 - 4.125 / 16, 1 - 4.125 / 16]
    assert f"{100 * (1 - 4.125 / 16):.1f} %" in scheme
    rates = [on_p5[f"{name} on p5.48xlarge"][5] for name in ("int4-g128", "bf16", "fp8", "w4a8")]
    assert (
        "a p5.48xlarge bears {:.3g} requests per second with it, {:.3g} in 16 bits and {:.3g} in FP8. w4a8 multiplies "
        "in 8 bits and still has to unpack: {:.2g}.".format(*rates)
        in scheme
    )
    inside = 50 * 0.5
    assert f"fewer than {inside:.0f} requests are in flight on average, {inside * 1032:,.0f} tokens" in scheme
    fp8 = found[0]["fp8 on p5.48xlarge"]
    assert f"one copy of the eight holds {fp8.replica.fit.tokens:,}" in scheme and 4 * fp8.replicas == 8
    b200 = {name: one for name, one in page.items() if "b200" in name}
    assert {best(b200, 50, 0.5, *kind)[1] for kind in (WIDE, EIGHT)} == {2}
    (_, eight, _), (_, four, _) = savings([(one[0], one[6], one[5]) for one in b200.values()], 500)
    assert f"FP8 saves {100 * eight:.1f} % there, and int4 costs {-100 * four:.1f} % more" in scheme
    fast, slow = result("mo21-FP8-Llama3.1-70B-64"), result("mo21-INT4 AWQ-Llama3.1-70B-64")
    assert f"FP8 {fast.value} times as fast as 16 bits, INT4 AWQ {slow.value} times" in scheme
    assert "H200" == fast.hardware == slow.hardware and "batch 64, 2,048 in 128 out" in (fast.setting or "")
    needs, has = mail["int4-g128 on g6e.xlarge"][1:3]
    assert f"{needs:.1f} GB fit one L40S ({has} GiB are {has * GIB / 1e9:.1f} GB)" in scheme
    assert 2 * mail["int4-g128 on g6e.xlarge"][5] < mail["w4a8 on g6e.xlarge"][5]  # "less than half as much"
    assert f"35 GB are {memory('Llama-3-70B', 'int4-g128').weights / 1e9:.1f} with scales" in scheme


def test_the_defence_of_8_bits_is_computed(given: tuple[Given, Given], scheme: str) -> None:
    page, _ = given
    name, count, usd = best(page, 50, 0.5, *EIGHT)
    assert (name, count) == ("fp8 on p5.48xlarge", 4) and best(page, 50.5, 0.5, *EIGHT)[:2] == (name, count)
    rate, price = page[name][5:]
    machines_paid, spared, million = bill(price, 2, rate / 2, 1, 50, 0.35, 1024, 8)
    assert machines_paid == 5
    assert f"{usd:,.0f} USD a month; a fifth machine for the day when one fails makes {spared:,.0f}" in scheme
    assert (
        f"{million:.0f} USD per million tokens of answers and {8 * million / 1000:.2f} per thousand requests" in scheme
    )
    room = 100 * (4 * rate / 50.5 - 1)
    assert f"less than the {4 * rate:.1f} that four machines bear, with {room:.0f} % to spare" in scheme
    by_cost = sorted(
        (math.ceil(50 / one[5]) * one[6], math.ceil(50 / one[5]), key) for key, one in page.items() if one[5]
    )
    ranked = {key: (count, HOURS_PER_MONTH * hourly) for hourly, count, key in by_cost}
    first, *others = [key for key in ranked if not key.startswith("bf16")][:4]
    assert (first, *others) == (name, "fp8 on p6-b200.48xlarge", "fp8 on p5en.48xlarge", "w4a8 on p5.48xlarge")
    (two, next_best), (four, third), (six, fourth) = (ranked[key] for key in others)
    three = month(page, others[0], 3)
    assert (
        f"FP8 on {two} × p6-b200, dearer by {100 * (next_best / usd - 1):.0f} %, "
        f"but by {100 * (three / spared - 1):.0f} % with a spare one ({three:,.0f})" in scheme
    )
    assert f"the {2 * page[others[0]][5]:.1f} that it bears" in scheme
    assert f"FP8 on {four} × p5en, dearer by {100 * (third / usd - 1):.0f} %" in scheme
    assert f"w4a8 on {six} × p5.48xlarge, by {100 * (fourth / usd - 1):.0f} %" in scheme
    losses = [result(f"modelopt0-mmlu-loss-Llama-3-70B-{kind}") for kind in ("FP8", "INT4 AWQ")]
    assert {one.unit for one in losses} == {"percent"} and "of the 16-bit score" in scheme
    assert "{} % in FP8, {} % in INT4 AWQ".format(*(one.value for one in losses)) in scheme


def test_the_defence_of_4_bits_is_computed(
    given: tuple[Given, Given], found: tuple[dict[str, Option], dict[str, Option]], scheme: str
) -> None:
    page, mail = given
    small, plain, eight = (best(mail, 0.5, 5, *kind) for kind in (W4A8, INT4, EIGHT))
    assert [(name, count) for name, count, _ in (small, plain, eight)] == [
        ("w4a8 on g6e.xlarge", 1), ("int4-g128 on g6e.xlarge", 2), ("fp8 on g6.12xlarge", 1)]  # fmt: skip
    assert f"{small[2]:,.0f} USD a month, {100 * (1 - small[2] / eight[2]):.0f} % less" in scheme
    assert f"with a spare machine {2 * small[2]:,.0f} against {2 * eight[2]:,.0f}" in scheme
    rate = mail[small[0]][5]
    assert f"It bears {rate:.2f} requests per second, half as much again" in scheme and 1.45 < rate / 0.5 < 1.55
    assert f"int4 bears {mail[plain[0]][5]:.2f} and takes two, {plain[2]:,.0f} USD" in scheme
    assert f"{100 * (1 - plain[2] / eight[2]):.0f} % less than 8 bits" in scheme
    assert f"with a spare one {month(mail, plain[0], 3):,.0f}" in scheme

    name, count, usd = best(page, 50, 0.5, *W4A8)
    fp8 = best(page, 50, 0.5, *EIGHT)
    assert (name, count) == ("w4a8 on p5.48xlarge", 6) and 1.49 < usd / fp8[2] < 1.51  # "half as much again"
    spared = month(page, name, 7), month(page, fp8[0], 5)
    assert (
        f"w4a8 on 6 × p5.48xlarge, {usd:,.0f} USD, with a spare one {spared[0]:,.0f} against {spared[1]:,.0f}" in scheme
    )
    assert f"a machine bears {page[name][5]:.2g} where FP8 bears {page[fp8[0]][5]:.3g}" in scheme
    four, eight_bits = (found[0][one] for one in (name, fp8[0]))
    assert (
        f"{four.replica.fit.tokens:,} tokens a copy and not {eight_bits.replica.fit.tokens:,}, and two copies" in scheme
    )
    assert four.replicas == eight_bits.replicas == 2
    assert best(page, 50, 0.5, *INT4)[:2] == ("int4-g128 on p6-b200.48xlarge", 3)


def flips(options: Given, limit: float, most: float, kind: tuple[str, ...]) -> list[tuple[float, str]]:
    """From which load on, in hundredths, 4 bits lead, are as dear, or are dearer than 8 bits."""
    seen: list[tuple[float, str]] = []
    for step in range(1, round(1000 * most)):
        four, eight = (best(options, step / 1000, limit, *each)[2] for each in (kind, EIGHT))
        word = "as dear" if four == pytest.approx(eight) else "lead" if four < eight else "dearer"
        if not seen or seen[-1][1] != word:
            seen.append((round(step / 1000 - 0.0005, 2), word))
    return seen


def test_the_flips_of_the_mark_scheme_are_computed(given: tuple[Given, Given], scheme: str) -> None:
    page, mail = given
    small, plain = mail["w4a8 on g6e.xlarge"], mail["int4-g128 on g6e.xlarge"]
    large = [mail[f"{kind} on p5.4xlarge"] for kind in ("w4a8", "fp8", "int4-g128")]
    assert flips(mail, 5, 4, W4A8 + INT4) == [(0, "lead"), (2.3, "as dear"), (3.13, "dearer")]
    assert f"4 bits lead up to {3 * small[5]:.2f} requests per second, on three" in scheme
    assert f"in w4a8 ({month(mail, 'w4a8 on g6e.xlarge', 3):,.0f} USD)" in scheme
    assert f"one p5.4xlarge ({month(mail, 'fp8 on p5.4xlarge', 1):,.0f} USD) is cheaper than a fourth" in scheme
    assert month(mail, "w4a8 on g6e.xlarge", 4) > month(mail, "fp8 on p5.4xlarge", 1)
    assert f"bears {large[0][5]:.2f} in w4a8 and {large[1][5]:.2f} in FP8" in scheme
    assert flips(mail, 5, 3, INT4) == [
        (0, "lead"), (0.7, "dearer"), (1.01, "lead"), (1.04, "as dear"), (1.76, "dearer")]  # fmt: skip
    assert f"the lead ends at {2 * plain[5]:.2f}" in scheme
    assert (
        f"in int4 costs {month(mail, 'int4-g128 on g6e.xlarge', 3):,.0f}, and one g6.12xlarge in FP8 "
        f"{month(mail, 'fp8 on g6.12xlarge', 1):,.0f}, good for {mail['fp8 on g6.12xlarge'][5]:.2f} "
        f"(at {mail['fp8 on g6.12xlarge'][5]:.2f} to {3 * plain[5]:.2f} three" in scheme
    )

    # Where 8 bits are dearer than one p4d, which three p5.4xlarge are not yet, and as far as it bears w4a8.
    tiny, usd = page["fp8 on p5.4xlarge"][5], month(page, "w8a8 on p4d.24xlarge", 1)
    assert flips(page, 0.5, 2.5, W4A8)[-3:] == [(0.06, "dearer"), (0.89, "as dear"), (2.02, "dearer")]
    assert f"from {3 * tiny:.2f} to {page['w4a8 on p4d.24xlarge'][5]:.2f} requests per second one p4d" in scheme
    assert f"in w8a8 or in w4a8, for {usd:,.0f} USD either way" in scheme
    least = page["w4a8 on p5.4xlarge"][5]
    assert f"below, down to {least:.2f}, FP8 on p5.4xlarge is cheaper, one for every {tiny:.2f} requests" in scheme
    assert month(page, "fp8 on p5.4xlarge", 3) < usd < month(page, "fp8 on p5.4xlarge", 4)
    most = 4 * page["fp8 on p5.48xlarge"][5]
    above = best(page, most + 0.1, 0.5, *EIGHT)
    assert above[:2] == ("fp8 on p6-b200.48xlarge", 2)
    assert (
        f"Above {most:.1f} FP8 moves to two p6-b200 ({above[2]:,.0f} USD, good for {2 * page[above[0]][5]:.1f})"
        in scheme
    )
    assert month(page, "fp8 on p5.48xlarge", 5) > above[2]
    assert f"off by {100 * left_out().median:.0f} % in the median" in scheme


def test_the_cases_take_their_rates_from_the_options(given: tuple[Given, Given]) -> None:
    page, mail = given
    for name, options in (("recommendations for a page", page), ("recommendations by mail", mail)):
        [case] = [one for one in question("deployment.savings").cases(0) if one.name == name]
        known = {(bits, usd, rate) for bits, *_, rate, usd in options.values()}
        for bits, usd, rate in case.args[0]:
            assert (bits, round(usd, 4), rate) in known
    bills = {one.name: one.args for one in question("deployment.usd_per_million").cases(0)}
    _, copies, rate, *_ = bills["recommendations on p5.48xlarge, two copies"]
    assert copies * rate == page["fp8 on p5.48xlarge"][5]
    assert bills["recommendations by mail on g6e.xlarge"][2] == mail["w4a8 on g6e.xlarge"][5]


def test_drawn_requests_are_let_in_differently_by_every_rule_of_rounding() -> None:
    """Prompt and answer end within blocks, so that rounding them apart is seen."""
    for seed in range(20):
        apart = 0
        for case in question("deployment.kv_admission").cases(seed):
            prompt, output = case.args[-2:]
            apart += math.ceil(prompt / 16) + math.ceil(output / 16) > math.ceil((prompt + output) / 16)
        assert apart >= 3
