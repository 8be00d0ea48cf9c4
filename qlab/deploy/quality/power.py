"""How many requests a comparison needs: exact intervals for flips, paired tests, and the power of an A/B test.

Two models that answered the same examples are compared by their flips: answers that were right and are wrong now
(lost), and the reverse (gained). Examples on which both are right, or both wrong, say nothing of the difference. That
is McNemar's test (1947), and why pairs need far fewer examples than two samples of strangers. An A/B test has no
pairs: every user sees one model.

    lost ~ Binomial(lost + gained, 1/2)  if neither model is better                                       (McNemar)
    n = (z_a √(2 p̄ (1 - p̄)) + z_b √(p (1 - p) + q (1 - q)))² / (p - q)²  per arm, p̄ = (p + q) / 2    (Fleiss 1981)
    n = (z_a √ψ + z_b √(ψ - δ²))² / δ²  pairs, ψ the part that flips, δ the change                      (Connor 1987)

By hand: from 10 % to 12 % with power 80 % at 5 %, two-sided: p̄ = 0.11, z_a = 1.96, z_b = 0.8416, so
n = (1.96 · 0.44249 + 0.8416 · 0.44227)² / 0.02² = 1.23949² / 0.0004, rounded up 3,841 users in each arm.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from ..serving.traffic import check_count

_NORMAL = NormalDist()
_TINY = 1e-12


@dataclass(frozen=True)
class Flips:
    """What changed between two models on the same examples. Raises ValueError for counts that do not fit."""

    examples: int
    lost: int  # right before, wrong after
    gained: int

    def __post_init__(self) -> None:
        check_count("examples", self.examples)
        if min(self.lost, self.gained) < 0 or self.lost + self.gained > self.examples:
            raise ValueError(f"lost, gained: got {self.lost}, {self.gained}; allowed is 0 to {self.examples} together")

    @property
    def rate(self) -> float:
        """The part of the examples that flipped, either way: 5 lost and 5 gained leave the accuracy, not the model."""
        return (self.lost + self.gained) / self.examples

    @property
    def change(self) -> float:
        """Accuracy after minus before."""
        return (self.gained - self.lost) / self.examples

    @property
    def p_value(self) -> float:
        """Exact two-sided McNemar test that lost and gained are as likely."""
        flips = self.lost + self.gained
        return min(1.0, 2 * binomial_cdf(min(self.lost, self.gained), flips, 0.5))

    def rate_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Exact interval of `rate` (see `clopper_pearson`)."""
        return clopper_pearson(self.lost + self.gained, self.examples, level)

    def change_interval(self, level: float = 0.95) -> tuple[float, float]:
        """Score interval of `change` (Tango 1998): of some width even where nothing flipped.

        It holds the drops d for which (lost - gained - n d) / √(n (2 g + d (1 - d))) lies within the normal quantiles;
        g is the part gained that is most likely if the drop is d.
        """
        z = _quantile(0.5 + _level(level) / 2)

        def edge(sign: int) -> float:
            b, c = (self.lost, self.gained) if sign > 0 else (self.gained, self.lost)

            def surprising(drop: float) -> bool:  # whether the loss b - c is far below n * drop
                return self._score(b, c, drop) < -z

            return sign * -_bisect(surprising, max(-1.0, (b - c) / self.examples), 1.0)

        return edge(1), edge(-1)

    def _score(self, b: int, c: int, drop: float) -> float:
        n = self.examples
        if drop >= 1:
            return 0.0 if b == n else -math.inf
        half = (2 * n - b + c) * drop - b - c
        part = (math.sqrt(max(0.0, half**2 + 8 * n * c * drop * (1 - drop))) - half) / (4 * n)  # of c, given drop
        variance = n * (2 * part + drop * (1 - drop))
        difference = b - c - n * drop
        return difference / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, difference or 1.0)


def flips(before: Sequence[bool], after: Sequence[bool]) -> Flips:
    """Count them. Raises ValueError unless both have the same number of verdicts, 1 or more."""
    if len(before) != len(after) or not before:
        raise ValueError(f"after: got {len(after)} verdicts for {len(before)}; give one for each example, in one order")
    pairs = list(zip(before, after, strict=True))
    return Flips(len(pairs), sum(b and not a for b, a in pairs), sum(a and not b for b, a in pairs))


def binomial_cdf(k: int, n: int, p: float) -> float:
    """The probability of at most k successes in n trials, summed term by term."""
    if k >= n or p <= 0:
        return 1.0 if k >= 0 else 0.0
    if k < 0 or p >= 1:
        return 0.0
    log_p, log_q = math.log(p), math.log1p(-p)
    whole = math.lgamma(n + 1)
    terms = (
        math.exp(whole - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * log_p + (n - i) * log_q)
        for i in range(k + 1)
    )
    return min(1.0, math.fsum(terms))


def clopper_pearson(k: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Exact interval of a rate after k successes in n trials (1934): it covers the truth at least `level` of the time.

    After no success in n trials the upper end is about 3.7 / n (one-sided at 95 %: 3 / n, the rule of three).
    Raises ValueError for k outside 0 to n, n below 1, or a level outside 0 to 1.
    """
    check_count("n", n)
    if not 0 <= k <= n:
        raise ValueError(f"k: got {k!r}; it must be from 0 to n={n}")
    tail = (1 - _level(level)) / 2
    low = 0.0 if k == 0 else _bisect(lambda p: 1 - binomial_cdf(k - 1, n, p) > tail, 0.0, 1.0)
    high = 1.0 if k == n else _bisect(lambda p: binomial_cdf(k, n, p) < tail, 0.0, 1.0)
    return low, high


def ab_power(p: float, q: float, n: int, alpha: float = 0.05) -> float:
    """The chance that a two-sided test of two proportions sees q against p with n users in each arm.

    Raises ValueError for a rate or alpha not between 0 and 1, or n below 1. With p = q this is alpha.
    """
    _rates(p=p, q=q, alpha=alpha)
    check_count("n", n)
    null, real = _spreads(p, q)
    z, shift = _quantile(1 - alpha / 2), abs(p - q) * math.sqrt(n)
    return _NORMAL.cdf((shift - z * null) / real) + _NORMAL.cdf((-shift - z * null) / real)


def ab_size(p: float, q: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Users in each arm for a two-sided test of two proportions to see q against p with this power.

    Raises ValueError for a number not between 0 and 1, or p equal to q, which no sample tells apart.
    """
    _rates(p=p, q=q, power=power, alpha=alpha)
    if p == q:
        raise ValueError(f"q: got {q!r}, the same as p; give the rate that you want to be able to see")
    null, real = _spreads(p, q)
    return math.ceil(((_quantile(1 - alpha / 2) * null + _quantile(power) * real) / (p - q)) ** 2)


def smallest_drop(p: float, n: int, power: float = 0.8, alpha: float = 0.05) -> float:
    """The smallest drop of a rate p that an A/B test with n users in each arm sees with this power; inf if none."""
    _rates(p=p, power=power, alpha=alpha)
    if ab_power(p, _TINY, n, alpha) < power:
        return math.inf
    return _bisect(lambda drop: ab_power(p, max(_TINY, p - drop), n, alpha) >= power, 0.0, p)


def pairs_size(lost: float, gained: float, power: float = 0.8, alpha: float = 0.05) -> int:
    """Examples for a two-sided McNemar test to see that lost and gained differ; both are parts of the examples.

    An approximation: with 30 flips or so the exact test (`Flips.p_value`) has 76 % where this says 80, with 200 78 %.

    Raises ValueError unless both are 0 or more, differ, and are at most 1 together; or for power or alpha out of range.
    """
    _rates(power=power, alpha=alpha)
    if min(lost, gained) < 0 or lost + gained > 1 or lost == gained:
        raise ValueError(f"lost, gained: got {lost!r}, {gained!r}; give two parts that differ and sum to at most 1")
    flipped, change = lost + gained, abs(lost - gained)
    null, real = math.sqrt(flipped), math.sqrt(flipped - change**2)
    return math.ceil(((_quantile(1 - alpha / 2) * null + _quantile(power) * real) / change) ** 2)


def hours(users_per_arm: int, requests_per_s: float, share: float = 1.0) -> float:
    """Hours until both arms are full, if `share` of the traffic takes part.

    Raises ValueError for a size below 1, a rate that is not above 0, or a share not above 0 and at most 1.
    """
    check_count("users_per_arm", users_per_arm)
    if not 0 < requests_per_s < math.inf:
        raise ValueError(f"requests_per_s: got {requests_per_s!r}; give a finite number above 0")
    if not 0 < share <= 1:
        raise ValueError(f"share: got {share!r}; give the part of the traffic that takes part, above 0 and at most 1")
    return 2 * users_per_arm / (requests_per_s * share) / 3600


def _spreads(p: float, q: float) -> tuple[float, float]:
    """Standard deviation of a difference times √n: if both rates are their mean, and as they are."""
    mean = (p + q) / 2
    return math.sqrt(2 * mean * (1 - mean)), math.sqrt(p * (1 - p) + q * (1 - q))


def _bisect(over: Callable[[float], bool], low: float, high: float) -> float:
    """Where a monotone condition begins to hold, between low and high, to 1e-12."""
    while high - low > _TINY:
        middle = (low + high) / 2
        low, high = (low, middle) if over(middle) else (middle, high)
    return high


def _quantile(p: float) -> float:
    return _NORMAL.inv_cdf(p)


def _level(level: float) -> float:
    _rates(level=level)
    return level


def _rates(**given: float) -> None:
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
            raise ValueError(f"{name}: got {value!r}; it must be between 0 and 1")
