"""The highest load at which a server keeps its promise on latency, found by simulating it.

`highest_rate` asks the simulator (`simulation.serve`) for its percentiles and bisects the rate of arrivals, from
what `engine.estimate` says. The seed stays, so that all rates are compared on the same requests, closer together or
farther apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from .engine import Engine, estimate, in_flight, saturation, within
from .served import Served, Timing, percentile, ranked
from .simulation import serve
from .traffic import requests
from .workloads import Target, Workload


class RunLength(NamedTuple):
    """Requests in a run, and requests and steps together, which are what makes it long."""

    fewest: int
    most: int
    events: float


QUICK, LONG = RunLength(200, 3000, 2500), RunLength(600, 3000, 12_000)
PRECISION = 0.04  # the rate found is at most so much, as a share, below one that misses the target
FULL = 0.95  # of `saturation`: no higher rate is tried, as a run that ends would not show the queue that never does
_SETTLED = 16  # times the requests in flight: after half of so many a long-tailed run has settled
_IDLE = 1 / 64  # of the first guess: a server that misses its target at so low a load does so at any


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

    Short runs find about where it is, longer ones where: a rate counts as met or missed by one of these. With a few
    dozen requests beyond the percentile that is chance in part.

    Args:
        guess: requests per second to begin with; default: what `estimate` says.
        run: what is asked, with the arguments of `simulate`.

    Raises:
        ValueError: a request that the cache never holds.
    """
    most = FULL * saturation(engine, workload)
    guess = min(most, estimate(engine, workload, target) if guess is None else guess)
    tried: list[Load] = []
    best: Load | None = None
    for run_length, factor, precision in ((QUICK, 0.8, 2 * PRECISION), (LONG, 0.92, PRECISION)):

        def served(rate: float, run_length: RunLength = run_length) -> Load | None:
            count = requests_for(engine, workload, target, rate, run_length)
            tried.append(run(engine, workload, target, rate, count, seed))
            return tried[-1] if tried[-1].meets(target) else None

        best = _highest(served, best.rate if best else guess, most, factor, precision) if guess > 0 else None
        if best is None:
            break
    return Capacity(best, tuple(tried))


def _highest(
    served: Callable[[float], Load | None], guess: float, most: float, factor: float, precision: float
) -> Load | None:
    """Away from the guess in steps that grow, until one rate is met and one missed; then halve what is between."""
    best, high, step = served(guess), guess, factor
    while best is not None and high < most and (more := served(high := min(most, high / factor))) is not None:
        best = more
    while best is None:
        if high * step < _IDLE * guess:
            return None
        best = served(high * step)
        if best is None:
            high *= step
            step *= factor  # a guess that is far off is rare, and each step costs a run
    while high / best.rate > 1 + precision:
        middle = math.sqrt(best.rate * high)
        if (found := served(middle)) is None:
            high = middle
        else:
            best = found
    return best


def requests_for(engine: Engine, workload: Workload, target: Target, rate: float, run_length: RunLength = LONG) -> int:
    """How many requests a run needs at some rate: so many that it settles in its first half, and not many more.

    It lasts several times as long as the limit, as a queue that grows would not be seen else, and fills the batch. A
    percentile of few requests is a matter of luck, and mostly too kind: the rare crowd has not come yet.
    """
    batch = in_flight(engine, workload, rate)
    settle = max(4 * rate * target.seconds, _SETTLED * batch)
    enough = run_length.events / (1 + workload.mean_output / max(1.0, batch))
    return int(max(run_length.fewest, min(run_length.most, max(settle, enough))))


def _per_token(timing: Timing) -> float:
    return (timing.finished - timing.first_token) / (timing.request.output - 1)
