"""Requests for a server: Poisson arrivals, and prompts and outputs of chosen lengths.

A distribution of lengths is its quantile function: from a number in [0, 1) to whole tokens. Every request draws three
uniform numbers, for its gap to the request before it, its prompt and its output. So the same seed gives the same
requests at every rate, only closer together, and another output distribution leaves arrivals and prompts as they were:
two servers, or two loads, are compared on the same traffic.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral, Real
from statistics import NormalDist

Lengths = Callable[[float], int]  # quantile function: u in [0, 1) -> tokens, 1 or more

_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Request:
    """What a user sends: when, in seconds, and how many tokens it has and will get back.

    Raises ValueError for a time that is not finite and 0 or later, or a length below one token.
    """

    arrival: float
    prompt: int
    output: int

    def __post_init__(self) -> None:
        if not _is_real(self.arrival) or not 0 <= self.arrival < math.inf:
            raise ValueError(f"arrival: got {self.arrival!r}; it must be finite seconds, 0 or later")
        check_count("prompt", self.prompt)
        check_count("output", self.output)

    @property
    def tokens(self) -> int:
        """Tokens of prompt and output together."""
        return self.prompt + self.output


def requests(rate: float, count: int, prompt: Lengths, output: Lengths, seed: int = 0) -> list[Request]:
    """A Poisson stream: gaps between arrivals are exponential, and requests do not know of each other.

    Args:
        rate: mean arrivals per second; `math.inf` lets all arrive at 0, as a job without users does.
        count: how many requests.
        prompt, output: lengths in tokens, from `fixed`, `lognormal`, `empirical` or a quantile function of your own.
        seed: of Python's own generator; the same seed gives the same requests.

    Raises:
        TypeError: a distribution that cannot be called.
        ValueError: a rate that is not positive, a count below 1, a seed that is no whole number,
            or a length below one token.
    """
    if not _is_real(rate) or not rate > 0:
        raise ValueError(f"rate: got {rate!r}; it must be above 0 requests per second")
    check_count("count", count)
    if not _is_whole(seed):
        raise ValueError(f"seed: got {seed!r}; it must be a whole number")
    for name, lengths in (("prompt", prompt), ("output", output)):
        if not callable(lengths):
            raise TypeError(f"{name}: got {lengths!r}; give a distribution of lengths, such as fixed(512)")
    uniform = random.Random(int(seed)).random  # the only draw whose sequence Python promises to keep
    made, now = [], 0.0
    for _ in range(count):
        now -= math.log1p(-uniform()) / rate
        made.append(Request(now, prompt(uniform()), output(uniform())))
    return made


def fixed(tokens: int) -> Lengths:
    """Always the same length. Raises ValueError if it is not a whole number, 1 or more."""
    check_count("tokens", tokens)
    return lambda u: tokens


def lognormal(mean: float, spread: float, low: int = 1, high: int | None = None) -> Lengths:
    """A lognormal distribution: many short, a few very long, as the lengths of real prompts and answers are.

        log length ~ N(log mean - s²/2, s²)   with   s² = log(1 + spread²)

    Args:
        mean: mean length in tokens, before limits and rounding.
        spread: standard deviation as a share of the mean, above 0 and at most 100; 1 is a long tail.
        low, high: what is shorter or longer gets this length, which moves the mean; `high=None` sets no end.

    Raises:
        ValueError: a mean below 1, a spread out of range, or limits that leave nothing.
    """
    if not _is_real(mean) or not 1 <= mean < math.inf:
        raise ValueError(f"mean: got {mean!r}; it must be 1 token or more")
    if not _is_real(spread) or not 0 < spread <= 100:
        raise ValueError(f"spread: got {spread!r}; it must be above 0 and at most 100; for one length take fixed()")
    check_count("low", low)
    if high is not None:
        check_count("high", high)
        if high < low:
            raise ValueError(f"high: got {high}; it must be at least low, {low}")
    variance = math.log1p(spread**2)
    center, sigma = math.log(mean) - variance / 2, math.sqrt(variance)

    def length(u: float) -> int:
        if u <= 0:  # the normal quantile of 0 is minus infinity
            return low
        tokens = max(low, round(math.exp(center + sigma * _NORMAL.inv_cdf(u))))
        return tokens if high is None else min(tokens, high)

    return length


def empirical(lengths: Sequence[int]) -> Lengths:
    """The lengths of a log that you have: each is drawn as often as the others.

    Raises:
        ValueError: an empty list, or a length that is not a whole number, 1 or more.
    """
    seen = sorted(lengths)
    if not seen:
        raise ValueError("lengths: got none; give one length or more")
    for tokens in seen:
        check_count("lengths", tokens)
    return lambda u: seen[int(u * len(seen))]


def check_count(name: str, value: object) -> None:
    """Raise ValueError unless the value is a whole number, 1 or more."""
    if not _is_whole(value) or value < 1:  # type: ignore[operator]
        raise ValueError(f"{name}: got {value!r}; it must be a whole number, 1 or more")


def _is_whole(value: object) -> bool:
    # The first is all that a simulation gives, thousands of times, and much quicker than asking an abstract class.
    return type(value) is int or (isinstance(value, Integral) and not isinstance(value, bool))


def _is_real(value: object) -> bool:
    return type(value) is float or (isinstance(value, Real) and not isinstance(value, bool))
