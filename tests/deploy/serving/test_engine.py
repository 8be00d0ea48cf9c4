"""What is said of a server without simulating it, against the simulator."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qlab.deploy.serving.engine import Engine, alone, estimate, floor, in_flight, seldom
from qlab.deploy.serving.load import simulate
from qlab.deploy.serving.simulation import serve
from qlab.deploy.serving.traffic import Request, requests
from qlab.deploy.serving.workloads import Target, workload


def step(prefill: int, decoding: int, cached: int) -> float:
    return 0.01 + 5e-5 * prefill + 1e-5 * decoding + 1e-7 * cached * (decoding > 0)


ENGINE = Engine(step, kv_tokens=100_000)
CHAT = workload("chat")


@pytest.mark.parametrize(("prompt", "output"), [(100, 1), (100, 2), (5000, 30), (4096, 1)])
def test_alone_is_what_the_simulator_says(prompt: int, output: int) -> None:
    timing = serve([Request(0.0, prompt, output)], step, kv_tokens=100_000).timings[0]
    assert alone(ENGINE, prompt, output) == pytest.approx((timing.ttft, timing.latency))


def test_floor_is_the_percentile_of_requests_alone() -> None:
    target = Target(1.0, percent=90)
    least = floor(ENGINE, CHAT, target)
    sent = requests(1, 20_000, CHAT.prompts(), CHAT.outputs(), seed=1)
    times = [alone(ENGINE, one.prompt, one.output) for one in sent]
    assert least.first == pytest.approx(sorted(first for first, _ in times)[17_999], rel=0.05)
    assert least.answer == pytest.approx(sorted(answer for _, answer in times)[17_999], rel=0.05)
    assert least.answer == pytest.approx(alone(ENGINE, *least.slow)[1])
    assert not least.meets(Target(0.9 * least.first, "first token")) and least.meets(Target(2 * least.answer))


@pytest.mark.parametrize("name", ["signal", "recommend"])
def test_floor_of_answers_of_one_length_is_that_of_the_longest_prompts(name: str) -> None:
    shape = workload(name)
    least = floor(ENGINE, shape, shape.target())
    assert least.slow == (shape.prompts()(0.95), shape.output)
    assert (least.first, least.answer) == pytest.approx(alone(ENGINE, *least.slow))


def test_requests_in_flight_are_those_of_the_simulation() -> None:
    """A step grows with the cache here, and long answers fill it: counting them as their mean would be seen."""
    engine = replace(ENGINE, step=lambda prefill, decoding, cached: step(prefill, decoding, 10 * cached))
    found = simulate(engine, CHAT, Target(10), 5.0, 3000)
    assert in_flight(engine, CHAT, 5.0) == pytest.approx(found.batch, rel=0.15)


def test_so_few_meet_that_all_of_them_may_be_late() -> None:
    """Requests of one length: of five in a hundred that may be late, all may have met another."""
    shape = replace(workload("signal"), prompt_spread=0)
    seconds = alone(ENGINE, shape.prompt, 1)[1]
    target = Target(1.02 * seconds)
    assert seldom(ENGINE, shape, target) == pytest.approx(0.05 / seconds)
    assert seldom(ENGINE, shape, Target(1.02 * seconds, percent=90)) == pytest.approx(0.1 / seconds)
    assert seldom(ENGINE, shape, Target(0.98 * seconds)) == 0
    rate = seldom(ENGINE, shape, target)
    assert simulate(ENGINE, shape, target, rate, 20_000).answer <= target.seconds
    assert estimate(ENGINE, shape, target) < rate / 5


@pytest.mark.parametrize("name", ["signal", "classify", "recommend"])
def test_a_load_so_small_meets_the_target(name: str) -> None:
    shape = workload(name)
    target = Target(1.1 * floor(ENGINE, shape, Target(1)).answer)
    rate = seldom(ENGINE, shape, target)
    assert rate > 0 and simulate(ENGINE, shape, target, rate, 20_000).answer <= target.seconds
