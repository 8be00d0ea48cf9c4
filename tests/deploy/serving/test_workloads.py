from __future__ import annotations

from statistics import fmean

import pytest

from qlab.deploy.serving.traffic import requests
from qlab.deploy.serving.workloads import LONGEST, WORKLOADS, Target, duration, parse_seconds, workload


@pytest.mark.parametrize("name", WORKLOADS)
def test_means_and_limits_are_those_of_the_requests_that_are_made(name: str) -> None:
    shape = WORKLOADS[name]
    sent = requests(1, 4000, shape.prompts(), shape.outputs(), seed=1)
    assert fmean(one.prompt for one in sent) == pytest.approx(shape.mean_prompt, rel=0.05)
    assert fmean(one.output for one in sent) == pytest.approx(shape.mean_output, rel=0.05)
    cached = fmean((one.output - 1) * (one.prompt + one.output / 2 - 1) for one in sent)
    assert cached == pytest.approx(shape.cached, rel=0.1, abs=1)
    held = sum(one.output * one.tokens for one in sent) / sum(one.output for one in sent)
    assert held == pytest.approx(shape.held, rel=0.05)
    assert max(one.tokens for one in sent) <= shape.longest <= LONGEST * (shape.prompt + shape.output)


def test_every_workload_has_a_reason_and_a_target() -> None:
    for name, shape in WORKLOADS.items():
        assert shape.name == name and len(shape.why) > 40
        assert shape.target().seconds == shape.seconds
    assert "first token within 1 s and 50 ms per token" in str(WORKLOADS["chat"].target())
    assert str(WORKLOADS["recommend"].target(0.2)) == "the whole answer within 200 ms for 95 % of the requests"


def test_own_lengths_and_limits() -> None:
    shape = workload("Chat", prompt=100, output=10)
    assert (shape.prompt, shape.output, shape.name) == (100, 10, "chat")
    assert workload("recommend").outputs()(0.99) == workload("recommend").outputs()(0.01) == 8
    assert workload("chat").target(2.0, 0.1, 99).per_token == 0.1


@pytest.mark.parametrize(
    ("text", "seconds"), [("200ms", 0.2), ("1.5s", 1.5), ("1.5 S", 1.5), ("2min", 120), ("50us", 5e-5), (".5s", 0.5)]
)
def test_times(text: str, seconds: float) -> None:
    assert parse_seconds("latency", text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["200", "-5ms", "0ms", "ms", "1h", "", "nan s"])
def test_senseless_times(text: str) -> None:
    with pytest.raises(ValueError, match="latency: got .*such as 200ms, 1.5s"):
        parse_seconds("latency", text)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "200 ms"),
        (1.5, "1.5 s"),
        (0.01234, "12.3 ms"),
        (0.9996, "1 s"),
        (0.0000512, "0.0512 ms"),
        (3600, "3,600 s"),
    ],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_refused() -> None:
    with pytest.raises(ValueError, match="workload: 'recomend' is not known; did you mean recommend"):
        workload("recomend")
    with pytest.raises(ValueError, match="output: got 0; it must be a whole number"):
        workload("chat", output=0)
    with pytest.raises(ValueError, match="latency: got -1 seconds"):
        Target(-1)
    with pytest.raises(ValueError, match="per_token: got 0 seconds"):
        Target(1, per_token=0)
    with pytest.raises(ValueError, match="percentile: got 100"):
        Target(1, percent=100)
    with pytest.raises(TypeError, match="latency: got '200ms'; give a number of seconds"):
        Target("200ms")
