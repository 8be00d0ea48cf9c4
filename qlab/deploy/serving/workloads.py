"""What is asked of a server: named shapes of requests, and the latency that such a use is judged by.

Nobody publishes the lengths of your requests. The shapes here are assumptions, each with its reason: replace them by
your own log (`traffic.empirical`), or at least the means of it. Lengths are lognormal around a mean, as real ones have
a long tail, and end at three times the mean.

What latency means differs by use, and a number without its meaning says nothing:

    "answer"        seconds from a request to its last token: nobody can use half of a ranking
    "first token"   seconds from a request to its first token, for people who read along; then `per_token` limits the
                    mean seconds between the tokens of an answer
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from numbers import Real
from statistics import fmean
from typing import Literal

from ..entries import look_up
from .traffic import Lengths, check_count, fixed, lognormal

LONGEST = 3  # times the mean: longer prompts and answers are cut there
_GRID = 500  # points at which a distribution is averaged
_TIME = re.compile(r"(\d+\.?\d*|\.\d+)\s*(us|ms|s|min)")
_UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "min": 60.0}


@dataclass(frozen=True)
class Target:
    """What most users are to see.

    Args:
        seconds: the limit, above 0.
        of: what it limits, see above.
        per_token: a limit for the mean seconds between the tokens of an answer, or None.
        percent: of the requests that are to stay below each limit, above 0 and below 100.

    Raises:
        TypeError: a limit or a percentage is no number.
        ValueError: it is out of range.
    """

    seconds: float
    of: Literal["answer", "first token"] = "answer"
    per_token: float | None = None
    percent: float = 95.0

    def __post_init__(self) -> None:
        for name, value in (("latency", self.seconds), ("per_token", self.per_token), ("percentile", self.percent)):
            if value is not None and not isinstance(value, Real):
                raise TypeError(f"{name}: got {value!r}; give a number{'' if name == 'percentile' else ' of seconds'}")
        for name, value in (("latency", self.seconds), ("per_token", self.per_token)):
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"{name}: got {value!r} seconds; it must be above 0, such as 0.2")
        if not 0 < self.percent < 100:
            raise ValueError(f"percentile: got {self.percent!r}; it must be above 0 and below 100, such as 95")

    def __str__(self) -> str:
        words = "the whole answer" if self.of == "answer" else "the first token"
        said = f"{words} within {duration(self.seconds)}"
        if self.per_token is not None:
            said += f" and {duration(self.per_token)} per token after the first"
        return f"{said} for {self.percent:g} % of the requests"


@dataclass(frozen=True)
class Workload:
    """Requests of one kind.

    Args:
        prompt, output: mean tokens, before the tail is cut.
        prompt_spread, output_spread: standard deviations as a share of the mean; 0 gives all requests the same.
        of, seconds, per_token: the target where you name none; see `Target`.
        why: the reason for these numbers, which are assumptions.
    """

    name: str
    prompt: int
    output: int
    prompt_spread: float
    output_spread: float
    of: Literal["answer", "first token"]
    seconds: float
    per_token: float | None
    why: str

    def prompts(self) -> Lengths:
        """The distribution of prompt lengths, as `traffic.requests` takes it."""
        return _lengths(self.prompt, self.prompt_spread)

    def outputs(self) -> Lengths:
        """The distribution of answer lengths."""
        return _lengths(self.output, self.output_spread)

    @cached_property
    def mean_prompt(self) -> float:
        """Mean tokens of a prompt, the cut tail counted."""
        return fmean(_grid(self.prompt, self.prompt_spread))

    @cached_property
    def mean_output(self) -> float:
        """Mean tokens of an answer, the cut tail counted."""
        return fmean(_grid(self.output, self.output_spread))

    @cached_property
    def cached(self) -> float:
        """Tokens in the cache, summed over the steps of an answer after the first: (output - 1)(prompt + output/2 - 1).

        A mean over requests. Long answers weigh more than as their mean, as they are there for longer.
        """
        outputs = _grid(self.output, self.output_spread)
        return fmean((output - 1) * (self.mean_prompt + output / 2 - 1) for output in outputs)

    @cached_property
    def held(self) -> float:
        """Tokens that a request in the batch has reserved, on average over time: long answers are there for longer."""
        outputs = _grid(self.output, self.output_spread)
        return self.mean_prompt + fmean(output**2 for output in outputs) / self.mean_output

    @property
    def longest(self) -> int:
        """Tokens of the longest request: a server has to hold at least one of it."""
        return self.prompts()(1 - 1e-9) + self.outputs()(1 - 1e-9)

    def target(self, seconds: float | None = None, per_token: float | None = None, percent: float = 95.0) -> Target:
        """The target of this use, with limits of your own where you have them. Raises ValueError as `Target`."""
        return Target(
            self.seconds if seconds is None else seconds,
            self.of,
            self.per_token if per_token is None else per_token,
            percent,
        )

    def __str__(self) -> str:
        tokens = "token" if self.output == 1 else "tokens"
        return f"{self.name}: about {self.prompt:,} tokens in, {self.output:,} {tokens} out, {self.longest:,} at most"


WORKLOADS = {
    one.name: one
    for one in (
        Workload(
            "recommend", 1024, 8, 0.25, 0, "answer", 0.5, None,
            "the last hundred items of a history at ten tokens each; the answer is the number of one item, and a page "
            "waits for all of it",
        ),
        Workload(
            "signal", 512, 1, 0.25, 0, "answer", 0.1, None,
            "a screen of market data as text; the answer is one of a few words such as buy, hold or sell, so prefill "
            "is all there is",
        ),
        Workload(
            "classify", 256, 1, 0.5, 0, "answer", 0.5, None,
            "a message of some 200 words; the answer is one label of one token",
        ),
        Workload(
            "chat", 512, 256, 1.0, 1.0, "first token", 1.0, 0.05,
            "a few turns of talk, and an answer of some 200 words; 20 tokens per second are faster than people read",
        ),
        Workload(
            "summarize", 2048, 128, 0.5, 0.5, "answer", 10.0, None,
            "four pages in, a paragraph out, as in one column of NVIDIA's performance tables for TensorRT-LLM",
        ),
        Workload(
            "sql", 1024, 64, 0.5, 0.5, "answer", 3.0, None,
            "the tables of a schema and a question; the answer is one statement, which runs when it is whole",
        ),
        Workload(
            "code", 1024, 32, 0.5, 0.5, "answer", 0.5, None,
            "the text around a cursor; the answer is a line or two, shown at once",
        ),
    )
}  # fmt: skip


def workload(name: str | Workload, prompt: int | None = None, output: int | None = None) -> Workload:
    """A workload by name, with lengths of your own where you have them.

    Raises:
        TypeError: the name is no string.
        ValueError: there is no such workload, or a length below one token.
    """
    found: Workload = name if isinstance(name, Workload) else look_up("workload", name, WORKLOADS)
    own = {key: value for key, value in (("prompt", prompt), ("output", output)) if value is not None}
    for key, value in own.items():
        check_count(key, value)
    return replace(found, **own) if own else found  # type: ignore[arg-type]


def parse_seconds(name: str, text: str) -> float:
    """Seconds from "200ms", "1.5s", "2min" or "50us". Raises ValueError, naming the argument, for anything else."""
    found = _TIME.fullmatch(text.strip().lower())
    if not found or not float(found[1]):
        raise ValueError(f"{name}: got {text!r}; give a time above 0 with its unit, such as 200ms, 1.5s or 2min")
    return float(found[1]) * _UNITS[found[2]]


def duration(seconds: float) -> str:
    """Seconds in words of at most three digits: "1.25 s", "187 ms"."""
    if seconds >= 0.9995:
        return f"{seconds:.3g} s" if seconds < 999.5 else f"{seconds:,.0f} s"
    return f"{1e3 * seconds:.3g} ms"


@lru_cache(maxsize=256)
def _lengths(mean: int, spread: float) -> Lengths:
    if not spread or mean == 1:
        return fixed(mean)
    return lognormal(mean, spread, high=LONGEST * mean)


@lru_cache(maxsize=256)
def _grid(mean: int, spread: float) -> tuple[int, ...]:
    lengths = _lengths(mean, spread)
    return tuple(lengths((index + 0.5) / _GRID) for index in range(_GRID))
