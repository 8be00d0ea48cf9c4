"""The simulator against what must hold for every queue, what theory knows, and what can be worked out by hand."""

from __future__ import annotations

import json
import math
import statistics
import subprocess
import sys
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlab.deploy.serving.served import Served, Step
from qlab.deploy.serving.simulation import serve
from qlab.deploy.serving.traffic import Request, empirical, fixed, lognormal, requests


def one_second(prefill: int, decoding: int, cached: int) -> float:
    return 1.0


def grows(prefill: int, decoding: int, cached: int) -> float:
    """Longer with everything. Sums of eighths, so that all times are exact."""
    return 1 + prefill / 4 + decoding / 2 + cached / 8


def like_a_gpu(prefill: int, decoding: int, cached: int) -> float:
    return 0.01 + 5e-5 * prefill + 1e-5 * decoding + 1e-7 * cached


def chat(rate: float, count: int, seed: int = 0) -> list[Request]:
    return requests(rate, count, lognormal(512, 1, high=4096), lognormal(256, 1, high=2048), seed)


def at_once(*sizes: tuple[int, int]) -> list[Request]:
    return [Request(0.0, prompt, output) for prompt, output in sizes]


# ---- What must hold in every run ----


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[Request], dict[str, Any]]:
    eighths = st.integers(0, 400)
    sent = draw(
        st.lists(
            st.builds(lambda t, p, o: Request(t / 8, p, o), eighths, st.integers(1, 12), st.integers(1, 9)),
            min_size=1,
            max_size=25,
        )
    )
    largest = max(request.tokens for request in sent)
    return sent, {
        "kv_tokens": draw(st.integers(largest, 3 * largest)),
        "max_batch": draw(st.integers(1, 6)),
        "prefill_budget": draw(st.none() | st.integers(1, 20)),
    }


@given(runs())
def test_conservation(run: tuple[list[Request], dict[str, Any]]) -> None:
    """Every token that goes in comes out, at a time of its own, and nothing stays in the cache."""
    sent, limits = run
    served = serve(sent, grows, **limits)
    assert [timing.request for timing in served.timings] == sent
    assert sum(step.prefill for step in served.steps) == sum(request.prompt for request in sent)
    assert sum(step.decoding for step in served.steps) == sum(request.output - 1 for request in sent)
    for index, timing in enumerate(served.timings):
        times = served.token_times(index)
        assert len(times) == len(set(times)) == timing.request.output
        assert times == sorted(times)
        assert (times[0], times[-1]) == (timing.first_token, timing.finished)
        assert timing.request.arrival <= timing.admitted < timing.first_token
    held = 0
    for step in served.steps:
        assert step.cached == held
        gone = [timing.request for timing in served.timings if timing.finished == step.end]
        held += step.prefill + step.decoding - sum(request.prompt + request.output - 1 for request in gone)
    assert held == 0


@given(runs())
def test_the_steps_and_the_requests_tell_the_same_story(run: tuple[list[Request], dict[str, Any]]) -> None:
    """The engine counts as it goes; here everything is counted again from the times of the requests."""
    sent, limits = run
    served = serve(sent, grows, **limits)
    for step in served.steps:
        assert step.seconds == grows(step.prefill, step.decoding, step.cached)
        inside = [one for one in served.timings if one.admitted <= step.start < one.finished]
        assert step.batch == len(inside)
        assert step.reserved == sum(one.request.tokens for one in inside)
        assert step.decoding == sum(one.first_token <= step.start for one in inside)
        assert step.waiting == sum(one.request.arrival <= step.start < one.admitted for one in served.timings)


@given(runs())
def test_limits_are_kept_and_nobody_waits_without_a_reason(run: tuple[list[Request], dict[str, Any]]) -> None:
    sent, limits = run
    served = serve(sent, grows, **limits)
    in_order = sorted(served.timings, key=lambda timing: timing.request.arrival)  # stable, as the queue is
    assert all(sooner.admitted <= later.admitted for sooner, later in pairwise(in_order)), "nobody overtakes"
    budget = limits["prefill_budget"] or math.inf
    for step in served.steps:
        assert step.batch <= limits["max_batch"]
        assert step.cached + step.prefill + step.decoding <= step.reserved <= limits["kv_tokens"]
        assert step.prefill <= budget
        if step.waiting:
            first = next(timing.request for timing in in_order if timing.admitted > step.start)
            full = step.batch == limits["max_batch"] or step.reserved + first.tokens > limits["kv_tokens"]
            assert full or step.prefill == budget
    for sooner, later in pairwise(served.steps):
        if later.start != sooner.end:
            assert later.start == min(t.request.arrival for t in served.timings if t.request.arrival > sooner.end)
            assert not any(t.request.arrival <= sooner.end < t.finished for t in served.timings), "idle without work"


@given(runs(), st.integers(0, 100))
def test_totals_are_those_of_the_requests(run: tuple[list[Request], dict[str, Any]], percent: int) -> None:
    sent, limits = run
    served = serve(sent, grows, **limits)
    times = [served.token_times(index) for index in range(len(sent))]
    assert served.seconds == max(map(max, times)) - min(request.arrival for request in sent)
    assert served.throughput * served.seconds == pytest.approx(len(sent))
    assert served.tokens_per_s * served.seconds == pytest.approx(sum(map(len, times)))
    assert served.busy == pytest.approx(sum(step.seconds for step in served.steps) / served.seconds)

    def rank(values: list[float]) -> float:
        return sorted(values)[max(0, -(-percent * len(values) // 100) - 1)]

    assert served.ttft(percent) == rank([one[0] - r.arrival for one, r in zip(times, sent, strict=True)])
    assert served.latency(percent) == rank([one[-1] - r.arrival for one, r in zip(times, sent, strict=True)])
    if gaps := [later - sooner for one in times for sooner, later in pairwise(one)]:
        assert served.gap(percent) == rank(gaps)


def test_the_same_seed_gives_the_same_run() -> None:
    def run(seed: int) -> Served:
        return serve(chat(6, 400, seed), like_a_gpu, kv_tokens=20_000)

    assert run(5) == run(5)
    assert run(5) != run(6)
    assert run(5).to_dict() == run(5).to_dict()


# ---- What theory knows ----


@pytest.mark.parametrize(("rate", "kv_tokens"), [(4, 110_000), (5, 20_000)], ids=["no queue", "queue"])
def test_littles_law(rate: float, kv_tokens: int) -> None:
    """L = lambda W. L is what the engine sees at the start of each step; lambda and W come from times of the requests.

    The run is taken whole, and again from a tenth to nine tenths of its arrivals, where nothing starts or drains.
    """
    served = serve(chat(rate, 8_000), like_a_gpu, kv_tokens=kv_tokens)
    last = served.timings[-1].request.arrival
    for start, stop in ((0.0, served.steps[-1].end), (last / 10, last * 9 / 10)):
        seen = sum(
            (step.batch + step.waiting) * max(0.0, min(step.end, stop) - max(step.start, start))
            for step in served.steps
        )
        inside = [one.latency for one in served.timings if start <= one.request.arrival < stop]
        arrivals = len(inside) / (stop - start)
        assert seen / (stop - start) == pytest.approx(arrivals * statistics.fmean(inside), rel=0.02)


def mean_with_error(waits: list[float], blocks: int = 30) -> tuple[float, float]:
    """The mean and its standard error, from means of long blocks: neighbors in a queue wait alike."""
    size = len(waits) // blocks
    means = [statistics.fmean(waits[k * size : (k + 1) * size]) for k in range(blocks)]
    return statistics.fmean(means), statistics.stdev(means) / math.sqrt(blocks)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_one_request_at_a_time_in_fixed_time_is_m_d_1(load: float) -> None:
    """Pollaczek and Khinchine: the mean wait is rho / (2 mu (1 - rho)), here with mu = 1."""
    served = serve(requests(load, 60_000, fixed(1), fixed(1)), one_second, kv_tokens=2, max_batch=1)
    mean, error = mean_with_error([timing.wait for timing in served.timings])
    theory = load / (2 * (1 - load))
    assert error < 0.04 * theory, "enough requests to tell"
    assert abs(mean - theory) < 4 * error
    assert served.busy == pytest.approx(load, rel=0.02)
    assert served.mean_queue == pytest.approx(load * theory, rel=0.1)


def test_one_answer_at_a_time_is_m_g_1() -> None:
    """A wait is lambda E[S^2] / (2 (1 - rho)), where an answer of n tokens takes n steps."""
    sent = requests(0.12, 50_000, fixed(3), empirical([1, 2, 3, 14]))
    served = serve(sent, one_second, kv_tokens=100, max_batch=1)
    mean, error = mean_with_error([timing.wait for timing in served.timings])
    theory = 0.12 * (1 + 4 + 9 + 196) / 4 / (2 * (1 - 0.12 * 5))
    assert error < 0.04 * theory
    assert abs(mean - theory) < 4 * error


@pytest.mark.parametrize(("every", "service", "waits"), [(2.0, 1.0, 0.0), (1.0, 1.0, 0.0), (1.0, 1.5, 0.5)])
def test_d_d_1_by_hand(every: float, service: float, waits: float) -> None:
    """With regular arrivals nobody waits up to full load; beyond, each waits `service - every` longer than the last."""
    sent = [Request(every * k, 5, 1) for k in range(20)]
    served = serve(sent, lambda *_: service, kv_tokens=6, max_batch=1)
    assert [timing.wait for timing in served.timings] == [waits * k for k in range(20)]
    assert [timing.ttft for timing in served.timings] == [waits * k + service for k in range(20)]
    assert served.seconds == max(19 * every + service, 20 * service)
    assert served.busy == pytest.approx(20 * service / served.seconds)


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=25))
def test_more_load_never_shortens_a_wait_where_requests_are_served_singly(sizes: list[tuple[int, int, int]]) -> None:
    """Lindley: a wait is the wait before it plus that service less the gap, and here only the gaps shrink.

    With batches this need not hold: who comes sooner may catch a step that he would have had to wait for.
    """
    arrivals = [sum(gap for gap, _, _ in sizes[: k + 1]) for k in range(len(sizes))]

    def waits(shrink: int) -> list[float]:
        sent = [Request(t / shrink, p, o) for t, (_, p, o) in zip(arrivals, sizes, strict=True)]
        return [timing.wait for timing in serve(sent, grows, kv_tokens=18, max_batch=1).timings]

    assert all(slow <= fast for slow, fast in zip(waits(1), waits(4), strict=True))


@given(
    st.lists(st.tuples(st.integers(1, 12), st.integers(1, 9)), min_size=1, max_size=25),
    st.integers(21, 60),
    st.integers(0, 40),
    st.integers(1, 6),
    st.integers(0, 3),
)
def test_more_memory_never_delays_where_a_step_takes_the_same_time(
    sizes: list[tuple[int, int]], kv_tokens: int, memory: int, max_batch: int, slots: int
) -> None:
    """All come at once and every step takes a second: by induction along the queue nobody is admitted later.

    With arrivals between the steps, or longer steps for larger batches, this need not hold.
    """
    sent = at_once(*sizes)
    less = serve(sent, one_second, kv_tokens=kv_tokens, max_batch=max_batch, prefill_budget=None)
    more = serve(sent, one_second, kv_tokens=kv_tokens + memory, max_batch=max_batch + slots, prefill_budget=None)
    assert all(b.finished <= a.finished for a, b in zip(less.timings, more.timings, strict=True))
    assert more.throughput >= less.throughput


# ---- What can be worked out by hand ----


def test_steps_by_hand() -> None:
    """Two prompts of 6 and 3 tokens, chunks of 4: the second prompt begins in what the first leaves of a step."""
    served = serve(
        [Request(0.5, 6, 3), Request(1.0, 3, 2)],
        lambda prefill, decoding, cached: 1.0 + prefill + decoding,
        kv_tokens=20,
        prefill_budget=4,
    )
    assert served.steps == (
        Step(start=0.5, seconds=5.0, prefill=4, decoding=0, cached=0, reserved=9, batch=1, waiting=0),
        Step(start=5.5, seconds=5.0, prefill=4, decoding=0, cached=4, reserved=14, batch=2, waiting=0),
        Step(start=10.5, seconds=3.0, prefill=1, decoding=1, cached=8, reserved=14, batch=2, waiting=0),
        Step(start=13.5, seconds=3.0, prefill=0, decoding=2, cached=10, reserved=14, batch=2, waiting=0),
    )
    assert served.token_times(0) == [10.5, 13.5, 16.5]
    assert served.token_times(1) == [13.5, 16.5]
    first, second = served.timings
    assert (first.wait, first.ttft, first.latency) == (0, 10, 16)
    assert (second.wait, second.ttft, second.latency) == (4.5, 12.5, 15.5)
    assert served.seconds == 16 and served.throughput == 2 / 16 and served.tokens_per_s == 5 / 16
    assert served.offered == 1 / 0.5
    assert (served.ttft(50), served.ttft(51), served.gap(0), served.gap(100)) == (10, 12.5, 3, 3)
    assert served.busy == 1
    assert served.mean_batch == (5 * 1 + 11 * 2) / 16
    assert served.kv_filled == (5 * 0 + 5 * 4 + 3 * 8 + 3 * 10) / 16 / 20
    assert served.kv_reserved == (5 * 9 + 11 * 14) / 16 / 20
    assert served.mean_queue == 4.5 / 16


def test_memory_is_promised_for_the_whole_answer_before_a_request_joins() -> None:
    """Three of 4 + 6 tokens in a cache of 20: the third waits for a whole answer, though its prompt would fit."""
    served = serve(at_once((4, 6), (4, 6), (4, 6)), one_second, kv_tokens=20)
    assert [timing.admitted for timing in served.timings] == [0, 0, 6]
    assert served.steps[0].prefill + 4 <= 20, "the prompts alone"


def test_nobody_overtakes_a_request_that_needs_much_memory() -> None:
    served = serve(at_once((4, 6), (9, 9), (1, 1)), one_second, kv_tokens=20)
    assert [timing.admitted for timing in served.timings] == [0, 6, 6]


def test_who_comes_as_a_step_ends_joins_the_next_and_who_comes_later_waits_for_it() -> None:
    sent = [Request(0.0, 1, 3), Request(1.0, 1, 1), Request(1.25, 1, 1)]
    assert [timing.admitted for timing in serve(sent, one_second, kv_tokens=9).timings] == [0, 1, 2]


def test_the_order_in_which_requests_are_given_does_not_matter() -> None:
    sent = chat(6, 200)
    there = serve(sent, like_a_gpu, kv_tokens=20_000)
    back = serve(sent[::-1], like_a_gpu, kv_tokens=20_000)
    assert back.timings == there.timings[::-1] and back.steps == there.steps


def test_a_long_prompt_stretches_the_gaps_of_others_and_chunks_shorten_the_worst() -> None:
    """An answer of 400 tokens is under way when a prompt of 8,000 comes. Step: 10 ms, and 0.1 ms for a prompt token.

    The worst gap is a step with as much of the prompt as one step may compute. The long prompt pays 10 ms a chunk.
    """

    def run(budget: int | None) -> Served:
        sent = [Request(0.0, 10, 400), Request(0.5, 8000, 2)]
        return serve(sent, lambda prefill, *_: 0.010 + 1e-4 * prefill, kv_tokens=10_000, prefill_budget=budget)

    whole, half, chunks = run(None), run(4000), run(500)
    assert whole.gap(100) == pytest.approx(0.810)
    assert half.gap(100) == pytest.approx(0.410)
    assert chunks.gap(100) == pytest.approx(0.060)
    assert whole.gap(50) == half.gap(50) == chunks.gap(50) == pytest.approx(0.010), "the median does not see it"
    computing = [run.timings[1].first_token - run.timings[1].admitted for run in (whole, half, chunks)]
    assert computing == pytest.approx([0.810, 2 * 0.410, 16 * 0.060])


def test_to_dict_is_json_and_says_nothing_where_there_is_nothing_to_say() -> None:
    found = json.loads(json.dumps(serve(chat(6, 50), like_a_gpu, kv_tokens=20_000).to_dict(), allow_nan=False))
    assert found["requests"] == 50
    assert found["gap_s"]["p50"] <= found["gap_s"]["p99"] <= found["gap_s"]["p100"]
    single = serve(at_once((3, 1), (3, 1)), one_second, kv_tokens=4).to_dict()
    assert single["gap_s"] is None and single["offered_per_s"] is None
    json.dumps(single, allow_nan=False)


def test_a_simulation_needs_neither_torch_nor_numpy() -> None:
    heavy = {"torch", "transformers", "numpy", "matplotlib"}
    code = f"import sys, qlab.deploy.serving.simulation; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- Bad input ----


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"requests": []}, "requests: got none"),
        ({"kv_tokens": 0}, "kv_tokens: got 0; it must be a whole number, 1 or more"),
        ({"max_batch": 2.5}, "max_batch: got 2.5"),
        ({"prefill_budget": 0}, "prefill_budget: got 0"),
        ({"kv_tokens": 11}, r"requests: one of 8 \+ 4 = 12 tokens never fits a cache of kv_tokens=11"),
    ],
)
def test_refused_before_the_first_step(options: dict[str, Any], message: str) -> None:
    asked: list[tuple[int, ...]] = []

    def step(*counts: int) -> float:
        asked.append(counts)
        return 1.0

    given = {"requests": at_once((2, 2), (8, 4)), "step": step, "kv_tokens": 12, **options}
    with pytest.raises(ValueError, match=message):
        serve(**given)
    assert asked == []


@pytest.mark.parametrize("seconds", [0.0, -1.0, math.inf, math.nan, None])
def test_a_step_takes_some_time(seconds: Any) -> None:
    with pytest.raises(ValueError, match=r"step: got .* for 3 prompt tokens, 0 requests that decode and 0 tokens in"):
        serve(at_once((3, 1)), lambda *_: seconds, kv_tokens=9)


def test_a_percentage_is_one_and_gaps_need_two_tokens() -> None:
    served = serve(at_once((3, 1)), one_second, kv_tokens=9)
    with pytest.raises(ValueError, match="percent: got 101; it must be from 0 to 100"):
        served.ttft(101)
    with pytest.raises(ValueError, match="gap: every answer has one token"):
        served.gap(50)


def test_a_step_in_which_nobody_decodes_is_no_gap() -> None:
    served = serve(at_once((3, 2)), lambda prefill, decoding, cached: 1.0 + decoding, kv_tokens=9)
    assert [step.seconds for step in served.steps] == [1, 2]
    assert served.gap(0) == 2
