"""A server with continuous batching, simulated step by step: what users wait for, and how busy the engine is.

Requests join and leave between two steps of the engine, not between two batches (Yu et al. 2022, "Orca"). In one step
every request that is past its prompt gets one token, and at most `prefill_budget` tokens of waiting prompts are
computed beside them, so that a long prompt is cut into chunks (Agrawal et al. 2024, "Sarathi-Serve"). The step that
ends a prompt gives its first token. How long a step takes is asked of a function: the simulator knows no hardware.

Admission is first come, first served, and reserves KV cache for the whole prompt and the whole output. So nobody who
was let in is ever thrown out again: a gap between two tokens has no cause but the step that made the second. Orca
reserves so, and TensorRT-LLM does by default (GUARANTEED_NO_EVICT), for the most tokens that a request may ask for;
here for those that it gets. vLLM takes memory as tokens come, holds more requests, and has to preempt some when memory
runs out; `kv_reserved` and `kv_filled` show how much it could gain.

One event is one step, never one token. All tokens of a step share its end, and a request gets a token in every step
from its first to its last, so counts suffice: that is what makes ten thousand requests a matter of a second.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Sequence
from functools import partial
from numbers import Real
from typing import Any

import simpy

from .served import Served, Step, Timing
from .traffic import Request, check_count

# (prefill tokens, requests that decode, tokens in the cache before the step) -> seconds
StepTime = Callable[[int, int, int], float]


def serve(
    requests: Sequence[Request],
    step: StepTime,
    *,
    kv_tokens: int,
    max_batch: int = 256,
    prefill_budget: int | None = 2048,
) -> Served:
    """Serve all requests to their last token.

    Args:
        requests: in any order; those that arrive at the same time are served in the order given.
        step: the seconds of a step, from (prompt tokens computed, requests that decode, tokens in the cache before).
        kv_tokens: what the KV cache holds, all requests together, as `fits(...).tokens` says.
        max_batch: requests in the batch at most.
        prefill_budget: prompt tokens computed in one step at most. None: every prompt in one step, and as many
            prompts in one step as there is room for.

    Raises:
        ValueError: no requests, a size below 1, a request that the whole cache cannot hold,
            or a step that takes no finite, positive time.
    """
    if not requests:
        raise ValueError("requests: got none; give one request or more")
    check_count("kv_tokens", kv_tokens)
    check_count("max_batch", max_batch)
    if prefill_budget is not None:
        check_count("prefill_budget", prefill_budget)
    largest = max(requests, key=lambda request: request.tokens)
    if largest.tokens > kv_tokens:
        raise ValueError(
            f"requests: one of {largest.prompt:,} + {largest.output:,} = {largest.tokens:,} tokens never fits a cache "
            f"of kv_tokens={kv_tokens:,}; give more memory, or shorter requests"
        )
    budget = prefill_budget or sum(request.prompt for request in requests)
    return _Engine(requests, step, kv_tokens, max_batch, budget).serve()


class _Engine:
    """Who waits, who is in the batch, and what has been written down. Requests go by their index."""

    def __init__(
        self, requests: Sequence[Request], step: StepTime, kv_tokens: int, max_batch: int, budget: int
    ) -> None:
        self.requests, self.step = requests, step
        self.kv_tokens, self.max_batch, self.budget = kv_tokens, max_batch, budget
        self.clock = simpy.Environment()
        self.arrived = self.clock.event()  # what an idle engine sleeps on
        self.waiting: deque[int] = deque()
        self.cut: tuple[int, int] | None = None  # the one request whose prompt is computed in part, and what is left
        self.batch = self.decoding = self.cached = self.reserved = 0  # as in Step
        self.admitted: dict[int, float] = {}
        self.first_step: dict[int, int] = {}
        self.leaving: dict[int, list[int]] = defaultdict(list)  # number of a step -> the requests that it finishes
        self.timings: dict[int, Timing] = {}
        self.steps: list[Step] = []

    def serve(self) -> Served:
        for index, request in enumerate(self.requests):
            # All are set from time 0, so that an arrival keeps the very number it has: no sum of gaps, no rounding.
            self.clock.timeout(request.arrival).callbacks.append(partial(self.arrive, index))
        self.clock.run(self.clock.process(self.run()))
        timings = (self.timings[index] for index in range(len(self.requests)))
        return Served(tuple(timings), tuple(self.steps), self.kv_tokens)

    def arrive(self, index: int, _: simpy.Event) -> None:
        self.waiting.append(index)
        if not self.arrived.triggered:
            self.arrived.succeed()

    def run(self) -> Generator[simpy.Event, Any, None]:
        """Step after step, until every request is finished."""
        while len(self.timings) < len(self.requests):
            prefill, prompts_done = self.admit()
            if not self.batch:
                self.arrived = self.clock.event()
                yield self.arrived
                continue
            seconds = self.seconds(prefill)
            self.steps.append(
                Step(
                    start=self.clock.now,
                    seconds=seconds,
                    prefill=prefill,
                    decoding=self.decoding,
                    cached=self.cached,
                    reserved=self.reserved,
                    batch=self.batch,
                    waiting=len(self.waiting),
                )
            )
            yield self.clock.timeout(seconds)
            self.finish(prefill, prompts_done)

    def admit(self) -> tuple[int, list[int]]:
        """Plan the prompts of a step: the tokens that it computes, and the requests whose prompts it ends."""
        left = self.budget
        prompts_done = []
        while left and (self.cut or self.next_fits()):
            index, remaining = self.cut or self.let_in()
            taken = min(left, remaining)
            left -= taken
            self.cut = (index, remaining - taken) if taken < remaining else None
            if not self.cut:
                prompts_done.append(index)
        return self.budget - left, prompts_done

    def next_fits(self) -> bool:
        """Whether the first who waits can join. Nobody overtakes: else who needs much memory might wait forever."""
        if not self.waiting or self.batch == self.max_batch:
            return False
        return self.reserved + self.requests[self.waiting[0]].tokens <= self.kv_tokens

    def let_in(self) -> tuple[int, int]:
        """The first who waits joins the batch: its index, and the tokens of its prompt."""
        index = self.waiting.popleft()
        request = self.requests[index]
        self.admitted[index] = self.clock.now
        self.batch += 1
        self.reserved += request.tokens
        return index, request.prompt

    def seconds(self, prefill: int) -> float:
        seconds = self.step(prefill, self.decoding, self.cached)
        known = type(seconds) is float or isinstance(seconds, Real)  # the first is quicker, in every step
        if not known or not 0 < seconds < math.inf:
            raise ValueError(
                f"step: got {seconds!r} for {prefill} prompt tokens, {self.decoding} requests that decode and "
                f"{self.cached} tokens in the cache; it must be finite seconds above 0"
            )
        return seconds

    def finish(self, prefill: int, prompts_done: list[int]) -> None:
        """The last step has ended: its tokens come out, and who has all of them leaves."""
        number = len(self.steps) - 1
        self.cached += prefill + self.decoding
        self.decoding += len(prompts_done)
        for index in prompts_done:
            self.first_step[index] = number
            self.leaving[number + self.requests[index].output - 1].append(index)
        for index in self.leaving.pop(number, ()):
            request, first = self.requests[index], self.first_step[index]
            self.batch -= 1
            self.decoding -= 1
            self.reserved -= request.tokens
            self.cached -= request.tokens - 1  # the last token was never fed back, so the cache never held it
            self.timings[index] = Timing(
                request, self.admitted[index], first, self.steps[first].end, self.steps[number].end
            )
