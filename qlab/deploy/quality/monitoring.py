"""Which check catches which degradation of a quantized model, how late, and how often it cries wolf: by simulation.

A `Check` is a score over time. Its alarm limit is set on healthy runs, so that all checks raise a false alarm equally
often and compare fairly. Then it looks at each degradation, from its first request on. The checks are in `checks`.

Scores over time are CUSUMs (Page 1954): with x events among n, expected at rate p and feared at rate q,

    S ← max(0, S + x log(q / p) + (n - x) log((1 - q) / (1 - p)))           alarm when S exceeds its limit

The sizes of degradations and the reactions of users are assumptions (see `degradation`). So the table teaches which
check *can* see what. How many requests it takes with your traffic, you learn with your numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from ..serving.traffic import check_count
from .degradation import HEALTHY, Array, Degradation, World, catalogue

# (world, degradation, runs, random numbers) -> live requests at each look (looks,), scores (runs, looks)
Score = Callable[[World, Degradation, int, np.random.Generator], tuple[Array, Array]]


@dataclass(frozen=True)
class Check:
    """A way to look. `online` checks see live traffic, the others a test set before launch: they end at time 0."""

    name: str
    online: bool
    score: Score = field(repr=False)


def cusum(events: Array, counted: float | Array, p: float | Array, q: float | Array) -> Array:
    """The score after each look: log likelihood ratio of rate q to rate p, never below 0; looks are the last axis.

    Raises ValueError unless 0 < p < q < 1.
    """
    if not (np.all(np.greater(p, 0)) and np.all(np.less(p, q)) and np.all(np.less(q, 1))):
        raise ValueError(f"p, q: got {p}, {q}; allowed is 0 < p < q < 1, the rate in health and the rate to be feared")
    steps = events * np.log(np.divide(q, p)) + (counted - events) * np.log((1 - np.asarray(q)) / (1 - np.asarray(p)))
    total = np.cumsum(steps, axis=-1)
    return total - np.minimum(np.minimum.accumulate(total, axis=-1), 0)


@dataclass(frozen=True)
class Caught:
    """One check on one degradation. `requests`: live requests until the alarm, the median run; None if most see none.

    An alarm before launch counts 0 requests.
    """

    check: str
    degradation: str
    power: float  # part of the runs with an alarm
    stderr: float
    requests: float | None


@dataclass(frozen=True)
class Table:
    """All checks on all degradations; on "healthy", `power` is the part of false alarms."""

    world: World
    caught: tuple[Caught, ...]
    limits: dict[str, float]  # the score above which a check raises an alarm

    def get(self, check: str, degradation: str) -> Caught:
        """One cell. Raises ValueError where there is none."""
        for one in self.caught:
            if (one.check, one.degradation) == (check, degradation):
                return one
        raise ValueError(
            f"check, degradation: got {check!r}, {degradation!r}; choose from {self.checks} and {self.rows}"
        )

    @property
    def checks(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one.check for one in self.caught))

    @property
    def rows(self) -> tuple[str, ...]:
        """The degradations."""
        return tuple(dict.fromkeys(one.degradation for one in self.caught))

    def __str__(self) -> str:
        width = max(map(len, self.checks))
        columns = [max(len(row), 12) for row in self.rows]
        head = " ".join(f"{row:>{size}}" for row, size in zip(self.rows, columns, strict=True))
        lines = [f"{'':{width}} {head}"]
        for check in self.checks:
            cells = (f"{_cell(self.get(check, row)):>{n}}" for row, n in zip(self.rows, columns, strict=True))
            lines.append(f"{check:{width}} {' '.join(cells)}")
        return "\n".join([*lines, "part of the runs with an alarm, @ live requests until then (the median run)"])


def _cell(one: Caught) -> str:
    late = "" if not one.requests else f" @ {one.requests / 1000:.0f}k"
    return f"{100 * one.power:.0f} %{late}"


def simulate(
    world: World,
    checks: Sequence[Check],
    degradations: Sequence[Degradation] = (),
    runs: int = 200,
    false_alarms: float = 0.05,
    seed: int = 0,
) -> Table:
    """Every check on every degradation, and on a healthy model, from the first request of the degradation on.

    The limit of a check is set on 5 times as many healthy runs; the false alarms of the table come from other runs.

    Args:
        degradations: default `catalogue()`.
        false_alarms: the part of healthy runs in which a check may raise an alarm, within the whole horizon.

    Raises:
        ValueError: no checks, two of one name, runs below 20, `false_alarms` outside 0 to 1, or a bad seed.
    """
    check_count("runs", runs)
    if runs < 20:
        raise ValueError(f"runs: got {runs}; give 20 or more, a limit for rare alarms needs many")
    if not 0 < false_alarms < 1:
        raise ValueError(f"false_alarms: got {false_alarms!r}; give a part of the healthy runs, between 0 and 1")
    degradations = (HEALTHY, *(degradations or catalogue()))
    if type(seed) is not int or seed < 0:
        raise ValueError(f"seed: got {seed!r}; it must be a whole number, 0 or more")
    for argument, names in (("checks", [c.name for c in checks]), ("degradations", [d.name for d in degradations])):
        if not names or len(set(names)) < len(names):
            raise ValueError(f"{argument}: got {names}; give one or more, each name once ('healthy' is always there)")
    caught, limits = [], {}
    for check in checks:
        # Streams of their own, so that a check's numbers do not depend on which others stand beside it.
        own = list(check.name.encode())
        _, healthy = check.score(world, HEALTHY, 5 * runs, np.random.default_rng([seed, 0, *own]))
        limits[check.name] = float(np.quantile(healthy.max(axis=1), 1 - false_alarms, method="higher"))
        for degradation in degradations:
            rng = np.random.default_rng([seed, 1, *own, *degradation.name.encode()])
            times, scores = check.score(world, degradation, runs, rng)
            above = scores > limits[check.name]
            seen = above.any(axis=1)
            delay = np.where(seen, times[above.argmax(axis=1)], np.inf)
            power, median = float(seen.mean()), float(np.median(delay))
            error = math.sqrt(power * (1 - power) / runs)
            late = median if math.isfinite(median) else None
            caught.append(Caught(check.name, degradation.name, power, error, late))
    return Table(world, tuple(caught), limits)
