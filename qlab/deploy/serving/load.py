"""The highest load at which a server keeps its promise on latency, found by simulating it.

`highest_rate` asks the simulator (`simulation.serve`) for its percentiles and bisects the rate of arrivals, from
what `engine.estimate` says. The seed stays, so that all rates are compared on the same requests, closer together or
farther apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from .engine import Engine, estimate, in_flight, saturation, within
from .served import Served, Timing, percentile, ranked
from .simulation import serve
from .traffic import requests
from .workloads import Target, Workload

PRECISION = 0.04  # the rate found is at most so much, as a share, below one that misses the target
FULL = 0.95  # of `saturation`: no higher rate is tried, as a run that ends would not show the queue that never does
_FEWEST, _MOST = 200, 3000  # requests in a run
_SETTLED = 16  # times the requests in flight: after half of so many a long-tailed run has settled
_EVENTS = 2500  # requests and steps in a run, about: what makes it long
_IDLE = 1 / 64  # of the first guess: a server that misses its target at so low a load does so at any
_UP, _DOWN = 1.25, 0.8  # first steps of the search, from the guess


@dataclass(frozen=True)
class Load:
    """What users of one engine see at some load, at the target's percentile; the first half of the run not counted.

    Args:
        rate: requests per second that arrive.
        first, answer: seconds to the first and to the last token.
        per_token: mean seconds between the tokens of an answer; None where answers have one token.
        batch: requests in the batch, averaged over the busy time.
        requests: how many were simulated.
    """

    rate: float
    first: float
    answer: float
    per_token: float | None
    batch: float
    requests: int

    def meets(self, target: Target) -> bool:
        """Whether this is what was asked for."""
        return within(target, self.first, self.answer, self.per_token)


@dataclass(frozen=True)
class Capacity:
    """The highest load that was found to meet a target, or None, and the loads that were tried, in their order."""

    best: Load | None
    tried: tuple[Load, ...]

    @property
    def rate(self) -> float:
        """Requests per second; 0 where the target was missed at every load."""
        return self.best.rate if self.best else 0.0


def simulate(engine: Engine, workload: Workload, target: Target, rate: float, count: int, seed: int = 0) -> Load:
    """Serve `count` requests that arrive at `rate` per second, and look at the second half of them.

    Raises:
        ValueError: a rate that is not positive, fewer than two requests, or one that the cache never holds.
    """
    if count < 2:
        raise ValueError(f"count: got {count}; half of the requests are looked at, so give 2 or more")
    sent = requests(rate, count, workload.prompts(), workload.outputs(), seed)
    run = serve(
        sent, engine.step,
        kv_tokens=engine.kv_tokens, max_batch=engine.max_batch, prefill_budget=engine.prefill_budget,
    )  # fmt: skip
    late = run.timings[count // 2 :]
    since = late[0].request.arrival
    warm = Served(late, tuple(step for step in run.steps if step.end > since), engine.kv_tokens)
    spread = [_per_token(timing) for timing in late if timing.request.output > 1]
    return Load(
        rate=rate,
        first=warm.ttft(target.percent),
        answer=warm.latency(target.percent),
        per_token=percentile(ranked((one, 1) for one in spread), target.percent) if spread else None,
        batch=warm.mean_batch,
        requests=count,
    )


def highest_rate(
    engine: Engine,
    workload: Workload,
    target: Target,
    *,
    guess: float | None = None,
    seed: int = 0,
    run: Callable[..., Load] = simulate,
) -> Capacity:
    """The highest rate of arrivals at which the simulated engine meets the target, to within 4 %.

    A rate is taken as met or missed by this one run; with few requests beyond the percentile that is chance in part.

    Args:
        guess: requests per second to begin with; default: what `estimate` says.
        run: what is asked, with the arguments of `simulate`.

    Raises:
        ValueError: a request that the cache never holds.
    """
    most = FULL * saturation(engine, workload)
    guess = min(most, estimate(engine, workload, target) if guess is None else guess)
    if not guess > 0:
        return Capacity(None, ())
    tried: list[Load] = []
    best: Load | None = None

    def meets(rate: float) -> bool:
        nonlocal best
        tried.append(run(engine, workload, target, rate, requests_for(engine, workload, target, rate), seed))
        if tried[-1].meets(target):
            best = tried[-1]
            return True
        return False

    high, factor = guess, _DOWN
    if meets(guess):
        while high < most and meets(high := min(most, _UP * high)):
            pass
    while best is None:
        if not meets(factor * high):
            high *= factor
            factor *= _DOWN  # a guess that is far off is rare, and each step costs a run
        if high < _IDLE * guess:
            return Capacity(None, tuple(tried))
    while high / best.rate > 1 + PRECISION:
        if not meets(middle := math.sqrt(best.rate * high)):
            high = middle
    return Capacity(best, tuple(tried))


def requests_for(engine: Engine, workload: Workload, target: Target, rate: float) -> int:
    """How many requests a run needs at some rate: so many that it settles in its first half, and not many more.

    It lasts several times as long as the limit, as a queue that grows would not be seen else, and fills the batch.
    """
    batch = in_flight(engine, workload, rate)
    settle = max(4 * rate * target.seconds, _SETTLED * batch)
    enough = _EVENTS / (1 + workload.mean_output / max(1.0, batch))
    return int(max(_FEWEST, min(_MOST, max(settle, enough))))


def _per_token(timing: Timing) -> float:
    return (timing.finished - timing.first_token) / (timing.request.output - 1)
