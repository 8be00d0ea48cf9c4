"""Quantization noise of normally distributed numbers, by integration: no sample is drawn, so no seed matters.

A block of n numbers is scaled by its own largest magnitude M, then every number becomes the nearest level:

    noise = mean over M of  integral over each cell of (x - M · level)² φ(x) dx,     SQNR = 10 log10(power / noise)

A cell reaches half-way to the next level. For a normal density φ its integral is closed (`_cell`). The distribution of
M is known as well: P(M < m) = (2 Φ(m) - 1)^n; a few dozen of its quantiles stand for it. Real weights are not normal,
and the outliers of real activations are not these: what this answers is which of two formats is finer, and why.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import pairwise
from math import erf, exp, log10, pi, sqrt
from statistics import NormalDist

Levels = tuple[float, ...]
Parts = tuple[tuple[int, float], ...]  # (how many numbers, their standard deviation): outliers are a part of their own

_NORMAL = NormalDist()
_DRAWS = 48  # quantiles that stand for the distribution of a largest magnitude
_PAIRS = 14  # the same for smallest and largest together
_NF4_LAST = 0.9677083  # the outermost quantile of NF4 (bitsandbytes, create_normal_map)


def integers(bits: int) -> Levels:
    """The levels of symmetric integers, relative to the largest: -1 … 1 in steps of 1 / (2^(bits-1) - 1)."""
    top = 2 ** (bits - 1) - 1
    return tuple(code / top for code in range(-top, top + 1))


def floats(exponent_bits: int, mantissa_bits: int, top: float) -> Levels:
    """The finite values of a small float up to `top`, subnormal ones included, relative to `top`."""
    bias, steps = 2 ** (exponent_bits - 1) - 1, 2**mantissa_bits
    positive = {step / steps * 2.0 ** (1 - bias) for step in range(1, steps)}
    positive |= {(1 + step / steps) * 2.0 ** (e - bias) for e in range(1, 2**exponent_bits) for step in range(steps)}
    known = sorted(value / top for value in positive if value <= top)
    return (*(-value for value in reversed(known)), 0.0, *known)


E4M3_TOP = 1.75 * 2.0**8  # e4m3fn: the highest exponent counts as a number, and only 1.875 · 2^8 is not-a-number
E5M2_TOP = 1.75 * 2.0**15  # the highest exponent is for infinity, as in FP16
E4M3, E5M2 = floats(4, 3, E4M3_TOP), floats(5, 2, E5M2_TOP)


def nf4() -> Levels:
    """NF4: quantiles of the normal distribution, eight above zero and seven below (QLoRA, appendix E)."""
    above = [_NORMAL.inv_cdf(0.5 + (_NF4_LAST - 0.5) * step / 8) for step in range(1, 9)]
    below = [-_NORMAL.inv_cdf(0.5 + (_NF4_LAST - 0.5) * step / 7) for step in range(1, 8)]
    return tuple(value / above[-1] for value in (*reversed(below), 0.0, *above))


@cache
def sqnr(levels: Levels, block: int) -> float:
    """Decibels for blocks of `block` equal numbers, each block scaled by its largest magnitude."""
    return decibels(1.0, noise(levels, ((block, 1.0),)))


@cache
def sqnr_asymmetric(bits: int, block: int) -> float:
    """Decibels for integers with a zero-point: 2^bits levels from a block's smallest to its largest number.

    The zero-point is an integer, so that 0 is a level and the ends are missed by up to half a step.
    """
    codes = range(2**bits)
    ends = [_NORMAL.inv_cdf(((i + 0.5) / _PAIRS) ** (1 / block)) for i in range(_PAIRS)]
    total = 0.0
    for low in ends:
        for high in ends:
            step = (high + low) / (len(codes) - 1)
            zero = round(low / step)
            total += _error([step * (code - zero) for code in codes], 1.0, -low, high)
    return decibels(1.0, total / _PAIRS**2)


def sqnr_product(levels: Levels, x: Parts, w: Parts) -> float:
    """Decibels of x · w, where both are quantized with `levels`: x scaled by token, w by output row.

    Part for part, `x` and `w` are the same input channels: as many of them, each with its own deviation.
    """
    power = error = 0.0
    for (channels, x_sigma), (_, w_sigma) in zip(x, w, strict=True):
        power += channels * (x_sigma * w_sigma) ** 2
        error += channels * (w_sigma**2 * noise(levels, x, x_sigma) + x_sigma**2 * noise(levels, w, w_sigma))
    return decibels(power, error)


@cache
def noise(levels: Levels, parts: Parts, sigma: float | None = None) -> float:
    """Mean squared error of the numbers with deviation `sigma` in a block of several parts; default: of the first part.

    The largest number of a block is a level itself and has no error; it is taken to be one of the widest part.
    """
    sigma = parts[0][1] if sigma is None else sigma
    found = [_error([m * level for level in levels], sigma, -m, m) for m in largest(parts)]
    widest = max(deviation for _, deviation in parts)
    exact = 1 / sum(count for count, deviation in parts if deviation == widest) if sigma == widest else 0.0
    return sum(found) / len(found) * (1 - exact)


def largest(parts: Parts) -> list[float]:
    """Quantiles of the largest magnitude in a block, at equal distances of probability."""
    if len(parts) == 1:
        ((count, sigma),) = parts
        return [sigma * _NORMAL.inv_cdf((1 + u ** (1 / count)) / 2) for u in _quantiles()]
    return [_bisect(parts, u) for u in _quantiles()]


def decibels(power: float, noise: float) -> float:
    """10 log10(power / noise)."""
    return 10 * log10(power / noise)


def _quantiles() -> list[float]:
    return [(i + 0.5) / _DRAWS for i in range(_DRAWS)]


def _bisect(parts: Parts, u: float) -> float:
    low, high = 0.0, 10 * max(sigma for _, sigma in parts)
    for _ in range(50):
        middle = (low + high) / 2
        below = 1.0
        for count, sigma in parts:
            below *= erf(middle / sigma / sqrt(2)) ** count
        low, high = (middle, high) if below < u else (low, middle)
    return high


def _error(levels: Sequence[float], sigma: float, low: float, high: float) -> float:
    """Mean of (x - nearest level)² for x ~ N(0, sigma²) between `low` and `high`."""
    edges = [low, *(min(max((a + b) / 2, low), high) for a, b in pairwise(levels)), high]
    cells = zip(levels, pairwise(edges), strict=True)
    total = sum(_cell(level / sigma, a / sigma, b / sigma) for level, (a, b) in cells)
    return sigma**2 * total / (_below(high / sigma) - _below(low / sigma))


def _cell(level: float, low: float, high: float) -> float:
    """The integral of (x - level)² φ(x) from `low` to `high`."""
    if low >= high:
        return 0.0
    mass, at_low, at_high = _below(high) - _below(low), _density(low), _density(high)
    second = mass + low * at_low - high * at_high
    return max(0.0, second - 2 * level * (at_low - at_high) + level**2 * mass)  # a tiny cell may round below zero


def _below(x: float) -> float:
    return 0.5 * (1 + erf(x / sqrt(2)))


def _density(x: float) -> float:
    return exp(-x * x / 2) / sqrt(2 * pi)
