"""What came out of a simulated server: the times of every request, the steps of the engine, and what sums them up."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from .traffic import Request

Ranked = tuple[list[Any], list[int]]  # values that grow, and how many there are up to each


class Step(NamedTuple):
    """One step of the engine. Tokens in the cache, and requests waiting, are those at its start."""

    start: float  # seconds
    seconds: float
    prefill: int  # prompt tokens computed
    decoding: int  # requests that got a token other than their first
    cached: int  # tokens in the cache, all of which the step reads
    reserved: int  # tokens that the cache has promised to the requests in the batch
    batch: int  # requests in the batch: those that decode, and those whose prompts are computed
    waiting: int  # requests that have arrived and are not in the batch

    @property
    def end(self) -> float:
        """Seconds; all tokens of the step come out then."""
        return self.start + self.seconds


@dataclass(frozen=True, slots=True)
class Timing:
    """What happened to one request. Times are seconds on the clock of the arrivals."""

    request: Request
    admitted: float  # start of the step that computed the first of its prompt
    first_step: int  # the step that made its first token; the others come from the steps after it, one each
    first_token: float
    finished: float

    @property
    def wait(self) -> float:
        """Seconds from arrival to admission."""
        return self.admitted - self.request.arrival

    @property
    def ttft(self) -> float:
        """Time to first token: seconds from arrival to the first token."""
        return self.first_token - self.request.arrival

    @property
    def latency(self) -> float:
        """Seconds from arrival to the last token."""
        return self.finished - self.request.arrival


@dataclass(frozen=True)
class Served:
    """A run from the first arrival to the last token: what each request saw, and what each step did.

    A run that starts empty and is drained in the end flatters a server that cannot keep up: its queue grows for as long
    as requests come, and so do the waits. Compare `throughput` with `offered`.
    """

    timings: tuple[Timing, ...]  # in the order in which the requests were given
    steps: tuple[Step, ...]
    kv_tokens: int

    @property
    def seconds(self) -> float:
        """From the first arrival to the last token."""
        return self.steps[-1].end - min(timing.request.arrival for timing in self.timings)

    @property
    def offered(self) -> float:
        """Requests per second that arrived, from the first arrival to the last; infinite if all came at once."""
        arrivals = [timing.request.arrival for timing in self.timings]
        span = max(arrivals) - min(arrivals)
        return (len(arrivals) - 1) / span if span else math.inf

    @property
    def throughput(self) -> float:
        """Requests per second that were finished."""
        return len(self.timings) / self.seconds

    @property
    def output_tokens(self) -> int:
        """Tokens that users got."""
        return sum(timing.request.output for timing in self.timings)

    @property
    def tokens_per_s(self) -> float:
        """Output tokens per second."""
        return self.output_tokens / self.seconds

    @property
    def busy(self) -> float:
        """Share of the time in which a step was running. It says nothing of how well a step uses the hardware."""
        idle = sum(later.start - step.end for step, later in pairwise(self.steps))
        return 1 - idle / self.seconds

    @property
    def mean_batch(self) -> float:
        """Requests in the batch, averaged over the busy time."""
        return self._over_busy_time(lambda step: step.batch)

    @property
    def kv_filled(self) -> float:
        """Share of the KV cache that holds tokens, averaged over the busy time."""
        return self._over_busy_time(lambda step: step.cached) / self.kv_tokens

    @property
    def kv_reserved(self) -> float:
        """Share of the KV cache that is promised to somebody, averaged over the busy time."""
        return self._over_busy_time(lambda step: step.reserved) / self.kv_tokens

    @property
    def mean_queue(self) -> float:
        """Requests that wait for admission, averaged over all the time."""
        return sum(timing.wait for timing in self.timings) / self.seconds

    def ttft(self, percent: float) -> float:
        """Seconds to the first token that `percent` of the requests do not exceed. Raises ValueError as `gap`."""
        return percentile(self._ttfts, percent)

    def latency(self, percent: float) -> float:
        """Seconds to the last token that `percent` of the requests do not exceed. Raises ValueError as `gap`."""
        return percentile(self._latencies, percent)

    def gap(self, percent: float) -> float:
        """Seconds between two tokens of an answer that `percent` of all such gaps do not exceed; 100: the worst one.

        Raises:
            ValueError: a percentage outside 0 to 100, or no gaps because every answer has one token.
        """
        return percentile(self._gaps, percent)

    def token_times(self, index: int) -> list[float]:
        """When each token of request `index` came out, in seconds."""
        timing = self.timings[index]
        return [step.end for step in self.steps[timing.first_step : timing.first_step + timing.request.output]]

    def to_dict(self) -> dict[str, Any]:
        """Totals, shares and percentiles as plain numbers, ready for JSON.

        `gap_s` is None where no answer has a second token, `offered_per_s` where all requests came at once.
        """

        def marks(of: Callable[[float], float]) -> dict[str, float]:
            return {f"p{percent}": of(percent) for percent in (50, 90, 99, 100)}

        return {
            "requests": len(self.timings),
            "steps": len(self.steps),
            "seconds": self.seconds,
            "offered_per_s": self.offered if self.offered < math.inf else None,
            "throughput_per_s": self.throughput,
            "tokens_per_s": self.tokens_per_s,
            "busy": self.busy,
            "mean_batch": self.mean_batch,
            "mean_queue": self.mean_queue,
            "kv_filled": self.kv_filled,
            "kv_reserved": self.kv_reserved,
            "ttft_s": marks(self.ttft),
            "gap_s": marks(self.gap) if self.output_tokens > len(self.timings) else None,
            "latency_s": marks(self.latency),
        }

    @cached_property
    def _ttfts(self) -> Ranked:
        return ranked((timing.ttft, 1) for timing in self.timings)

    @cached_property
    def _latencies(self) -> Ranked:
        return ranked((timing.latency, 1) for timing in self.timings)

    @cached_property
    def _gaps(self) -> Ranked:
        """A request that decodes in a step got its token before at the start of it: all of them wait for the step."""
        if self.output_tokens == len(self.timings):
            raise ValueError("gap: every answer has one token, so there are no gaps; give outputs of 2 tokens or more")
        return ranked((step.seconds, step.decoding) for step in self.steps if step.decoding)

    def _over_busy_time(self, count: Callable[[Step], int]) -> float:
        weighted = sum(count(step) * step.seconds for step in self.steps)
        return weighted / sum(step.seconds for step in self.steps)


def ranked(weighted: Iterable[tuple[Any, int]]) -> Ranked:
    """From (value, how often it occurs) to the sorted values, and how often each or a smaller one occurs."""
    ordered = sorted(weighted)
    return [value for value, _ in ordered], list(accumulate(count for _, count in ordered))


def percentile(found: Ranked, percent: float) -> Any:
    """The smallest value that at least `percent` of all do not exceed (nearest rank: no value is made up)."""
    if not 0 <= percent <= 100:
        raise ValueError(f"percent: got {percent!r}; it must be from 0 to 100")
    values, counts = found
    return values[bisect_left(counts, percent * counts[-1] / 100)]
