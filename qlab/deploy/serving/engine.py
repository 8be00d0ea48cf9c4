"""What a server does, without simulating it: one request alone, the average step, and about what load meets a target.

`estimate` takes every step for the average one. With x requests joining in each step, a step works on x · prompt tokens
of prompts and on x · (output - 1) answers, and x / seconds requests are served in a second. Steps get longer with x,
and x grows until the request at the target's percentile just meets its limit. That request also waits for the rest of
the step that it arrives in, and for as many prompts of others as chance adds to the mean. It is quick, and ranks.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

from .served import percentile, ranked
from .simulation import StepTime
from .traffic import Lengths
from .workloads import Target, Workload

NOISE = 2.0  # standard deviations of the prompts in between, in `estimate`: of 1.5 to 3 it came nearest to simulations
_HALVINGS = 15  # of x, in `estimate` and `in_flight`
_PROMPTS, _OUTPUTS = 20, 40  # lengths in `floor`


@dataclass(frozen=True)
class Engine:
    """What the simulator needs to know of a server. `step` and the sizes are those of `simulation.serve`."""

    step: StepTime
    kv_tokens: int
    max_batch: int = 256
    prefill_budget: int = 2048


def alone(engine: Engine, prompt: int, output: int) -> tuple[float, float]:
    """Seconds to the first and to the last token of a request that has the engine for itself: no load is faster.

    Exact for step times that are linear in the cached tokens, as those of `phases.step_time` are.
    """
    first = _prefill(engine, prompt, 0, 0)
    return first, first + _decode(engine, prompt, output)


@dataclass(frozen=True)
class Floor:
    """What no load is faster than, at a target's percentile: seconds of requests that have the engine to themselves.

    `slow` are the prompt and the answer of the request whose `answer` this is, in tokens; `prompt` is that of `first`.
    """

    first: float
    answer: float
    per_token: float | None
    prompt: int
    slow: tuple[int, int]

    def meets(self, target: Target) -> bool:
        """Whether an idle engine meets the target."""
        return within(target, self.first, self.answer, self.per_token)


def floor(engine: Engine, workload: Workload, target: Target) -> Floor:
    """The percentile over requests that are alone: from a grid of lengths, where answers have several."""
    prompt = workload.prompts()(target.percent / 100)
    first = _prefill(engine, prompt, 0, 0)
    outputs = _quantiles(workload.outputs(), _OUTPUTS)
    answer, slow_prompt, slow_output = first + _decode(engine, prompt, outputs[0]), prompt, outputs[0]
    if len(outputs) > 1:  # else the slowest answers are those to the longest prompts
        seconds = []
        for length in _quantiles(workload.prompts(), _PROMPTS):
            begun = _prefill(engine, length, 0, 0)
            seconds += [(begun + _decode(engine, length, output), length, output) for output in outputs]
        answer, slow_prompt, slow_output = percentile(ranked((one, 1) for one in seconds), target.percent)
    per_token = _decode(engine, workload.prompt, 2) if outputs[-1] > 1 else None
    return Floor(first, answer, per_token, prompt, (slow_prompt, slow_output))


def estimate(engine: Engine, workload: Workload, target: Target, least: Floor | None = None) -> float:
    """Requests per second that meet the target, about, without simulating them; 0 where no load can meet it."""
    least = floor(engine, workload, target) if least is None else least
    if not least.meets(target):
        return 0.0
    prompt = workload.mean_prompt

    def at(x: float) -> tuple[float, bool]:
        """Seconds of the average step with x requests joining it, and whether the target is met then."""
        decoding, cached = x * (workload.mean_output - 1), x * workload.cached
        step = _average(engine, workload, x)
        one = _prefill(engine, prompt, decoding, cached)
        others = max(0.0, one - _step(engine, 0, decoding, cached)) if decoding else one  # what one prompt adds
        wait = min(1.0, x / step * one) * step / 2  # an idle engine is in no step
        first = wait + _prefill(engine, least.prompt, decoding, cached)
        first += NOISE * others * math.sqrt(x / step * first)
        slow_prompt, slow_output = least.slow
        answer = wait + _prefill(engine, slow_prompt, decoding, cached) + (slow_output - 1) * step
        answer += NOISE * others * math.sqrt(x / step * answer)
        return step, within(target, first, answer, step if least.per_token is not None else None)

    low, high = 0.0, _joining(engine, workload)
    step, met = at(high)
    if met:
        return high / step
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if at(middle)[1] else (low, middle)
    return low / at(low)[0] if low else 0.0


def seldom(engine: Engine, workload: Workload, target: Target) -> float:
    """Requests per second of which so few meet another that the target is met even if all of those are late.

    A request that comes at random meets another with probability rate · seconds; of the two only this one is counted.
    Where a request alone takes most of the limit this is what decides, and the average step of `estimate` says
    nothing. 0 where no load meets the target.
    """
    outputs = _quantiles(workload.outputs(), _OUTPUTS) if target.of == "answer" else [1]
    prompts = _quantiles(workload.prompts(), _PROMPTS if len(outputs) > 1 else _PROMPTS * _PROMPTS)
    begun = {prompt: _prefill(engine, prompt, 0, 0) for prompt in prompts}
    seconds = [begun[prompt] + _decode(engine, prompt, output) for prompt in prompts for output in outputs]
    late = sum(one > target.seconds for one in seconds) / len(seconds)
    allowed = 1 - target.percent / 100 - late
    return allowed / (1 - late) / fmean(seconds) if allowed > 0 else 0.0


def saturation(engine: Engine, workload: Workload) -> float:
    """Requests per second with the fullest steps that there can be: beyond it the queue grows for ever."""
    x = _joining(engine, workload)
    return x / _average(engine, workload, x)


def in_flight(engine: Engine, workload: Workload, rate: float) -> float:
    """Requests at once on average, every step taken for the average one: x · output, where x / step is the rate."""
    low, high = 0.0, _joining(engine, workload)
    for _ in range(_HALVINGS):
        x = (low + high) / 2
        low, high = (x, high) if x / _average(engine, workload, x) < rate else (low, x)
    return high * workload.mean_output


def within(target: Target, first: float, answer: float, per_token: float | None) -> bool:
    """Whether the seconds of a request, or of a percentile of many, are below the limits of a target."""
    if target.per_token is not None and per_token is not None and per_token > target.per_token:
        return False
    return (answer if target.of == "answer" else first) <= target.seconds


def _step(engine: Engine, prefill: float, decoding: float, cached: float) -> float:
    """The time of a step that need not have whole numbers of tokens, but works on one at least."""
    decoding = max(decoding, 1.0 - prefill)
    return engine.step(prefill, decoding, cached)  # type: ignore[arg-type]


def _prefill(engine: Engine, prompt: float, decoding: float, cached: float) -> float:
    """Seconds until a prompt is computed, in chunks, beside requests that decode."""
    whole, rest = divmod(prompt, engine.prefill_budget)
    seconds = whole * _step(engine, engine.prefill_budget, decoding, cached) if whole else 0.0
    return seconds + (_step(engine, rest, decoding, cached) if rest else 0.0)


def _average(engine: Engine, workload: Workload, x: float) -> float:
    """Seconds of the average step with x requests joining it."""
    return _step(engine, x * workload.mean_prompt, x * (workload.mean_output - 1), x * workload.cached)


def _joining(engine: Engine, workload: Workload) -> float:
    """Requests that can join in each step at most: prompts have a budget, answers a batch and a cache."""
    room = min(engine.max_batch, engine.kv_tokens / workload.held)  # requests at once
    return min(engine.prefill_budget / workload.mean_prompt, room / max(1.0, workload.mean_output - 1))


def _decode(engine: Engine, prompt: float, output: int) -> float:
    """Seconds for all tokens of an answer but its first, alone. The mean cache is prompt + (output - 2) / 2."""
    return (output - 1) * _step(engine, 0, 1, prompt + (output - 2) / 2) if output > 1 else 0.0


def _quantiles(lengths: Lengths, count: int) -> list[int]:
    found = [lengths((index + 0.5) / count) for index in range(count)]
    return found[:1] if found[0] == found[-1] else found
