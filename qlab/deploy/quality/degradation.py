"""A served model as a table of strata, and the ways in which a quantized one gets worse.

A stratum is a workload, a length of prompt (short or long) and a type of GPU, with its share of the traffic and its
part of right answers. A `Degradation` takes right answers away in some of them.

What is healthy comes from nano: accuracies, flips and KL of its INT4. The traffic, how users react, and how large a
degradation is, are assumptions, each a field that you can change.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..entries import suggestion
from ..serving.traffic import check_count
from .measured import REFERENCE, Quality, quality
from .power import flips

Array = NDArray[Any]
WINDOWS = 64  # of text in which the KL of the quality file was measured
TRAFFIC = {"recommend": 0.40, "intent": 0.25, "trading": 0.12, "arithmetic": 0.10, "recall": 0.08, "sql": 0.05}


@dataclass(frozen=True)
class World:
    """A healthy deployment. Rates are parts of one; `right` and `flips` are by workload, in the order of `shares`.

    `healthy_world` makes one from nano's numbers. Raises ValueError for rates outside 0 to 1.
    """

    shares: Mapping[str, float]  # of the requests; sums to 1
    right: Mapping[str, float]  # answers of the quantized model
    flips: Mapping[str, float]  # verdicts that differ from the 16-bit model's, half of them lost and half gained
    kl: float  # nats per token, mean over windows of generic text
    kl_spread: float  # standard deviation from window to window
    long: float = 0.05  # requests with a long prompt
    other_gpu: float = 0.20  # requests that the second type of GPU serves; tests before launch run on the first
    reject_right: float = 0.05  # users who ask again or give a thumbs-down though the answer is right
    reject_wrong: float = 0.50
    invalid: float = 2e-4  # answers that a program refuses (no SQL, endless repetition) in health
    unsteady: float = 2e-3  # canary answers that differ in health: sums in another order, as batches differ
    horizon: int = 100_000  # live requests that are watched
    batch: int = 500  # requests between two looks

    def __post_init__(self) -> None:
        if not self.shares or abs(sum(self.shares.values()) - 1) > 1e-9:
            raise ValueError(f"shares: got {dict(self.shares)}; they must sum to 1")
        for name in ("right", "flips"):
            if list(getattr(self, name)) != list(self.shares):
                raise ValueError(
                    f"{name}: got {list(getattr(self, name))}; give a rate for each of {list(self.shares)}"
                )
        rates = {n: getattr(self, n) for n in ("long", "other_gpu", "reject_right", "reject_wrong", "unsteady")}
        for name in ("shares", "right", "flips"):
            rates |= {f"{name} of {workload}": rate for workload, rate in getattr(self, name).items()}
        for name, rate in (rates | {"invalid": self.invalid}).items():
            if not 0 <= rate <= 1:
                raise ValueError(f"{name}: got {rate!r}; it must be from 0 to 1")
        check_count("batch", self.batch)
        check_count("horizon", self.horizon)
        if self.horizon % self.batch:
            raise ValueError(f"horizon: got {self.horizon}; it must be a multiple of batch, {self.batch}")

    @property
    def times(self) -> Array:
        """Live requests served at each look (looks,)."""
        return np.arange(self.batch, self.horizon + 1, self.batch, dtype=np.float64)

    @property
    def weights(self) -> Array:
        """Share of each stratum (workloads, short or long, first or other GPU)."""
        shares = np.array(list(self.shares.values()))
        split = np.outer([1 - self.long, self.long], [1 - self.other_gpu, self.other_gpu])
        return shares[:, None, None] * split

    def expected(self, name: str) -> Array:
        """`right` or `flips` as (workloads,)."""
        return np.array(list(getattr(self, name).values()))


def healthy_world(method: str = "INT4 g128", shares: Mapping[str, float] | None = None, **changes: float) -> World:
    """A world with nano's accuracy, flips and KL at a precision; other fields by name in `changes`."""
    measured = quality()
    one, reference = measured.method(method), measured.method(REFERENCE)
    shares = TRAFFIC if shares is None else shares
    for workload in shares:
        if workload not in one.answers:
            raise ValueError(f"shares: got {workload!r}; {suggestion(workload, one.answers)}")
    fields = {
        "right": {w: one.answers[w].accuracy for w in shares},
        "flips": {w: flips(reference.answers[w].correct, one.answers[w].correct).rate for w in shares},
        "kl": one.kl,
        "kl_spread": one.kl_stderr * math.sqrt(WINDOWS),
    }
    return World(shares=shares, **fields | changes)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Degradation:
    """Right answers that turn wrong: which, how many, and what shows.

    Raises ValueError for a part outside 0 to 1.
    """

    name: str
    lost: float = 0.0  # of the right answers in the strata that it hits
    workloads: tuple[str, ...] = ()  # that it hits; none named: all
    only_long: bool = False
    only_other_gpu: bool = False
    drifts: bool = False  # grows from nothing to `lost` over the horizon, as traffic moves; fixed prompts never show it
    broken: float = 0.0  # of the lost answers, those that a program refuses
    kl: float = 0.0  # nats per token that it adds on generic, short text on the first type of GPU
    churn: float = 0.0  # verdicts that flip besides, half lost and half gained

    def __post_init__(self) -> None:
        for name in ("lost", "broken", "churn"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}: got {getattr(self, name)!r}; it must be from 0 to 1")

    def taken(self, world: World) -> Array:
        """The part of all answers that turns wrong at full strength, by stratum, as `World.weights`."""
        if unknown := set(self.workloads) - set(world.shares):
            raise ValueError(f"workloads: got {sorted(unknown)}; choose from {', '.join(world.shares)}")
        hit = np.array([not self.workloads or workload in self.workloads for workload in world.shares])
        mask = np.ones((len(hit), 2, 2), bool) & hit[:, None, None]
        if self.only_long:
            mask[:, 0] = False
        if self.only_other_gpu:
            mask[:, :, 0] = False
        return self.lost * mask * world.expected("right")[:, None, None]

    def cost(self, world: World) -> float:
        """Accuracy lost over all traffic at full strength: what a mean would show."""
        return float((world.weights * self.taken(world)).sum())

    def strength(self, world: World) -> Array:
        """How much of it has come at each look (looks,)."""
        return world.times / world.horizon if self.drifts else np.ones(len(world.times))


HEALTHY = Degradation("healthy")


def catalogue(measured: Quality | None = None) -> tuple[Degradation, ...]:
    """Degradations that happen. Sizes are assumptions, but for SQL: that one is what nano loses at INT3."""
    measured = quality() if measured is None else measured
    sql = (measured.method(name).answers["sql"].accuracy for name in ("INT4 g128", "INT3 g128"))
    four, three = sql
    return (
        Degradation("harmless change", kl=0.02, churn=0.02),
        Degradation("1 % lost everywhere", lost=0.01, kl=0.02),
        Degradation("SQL broken", lost=1 - three / four, workloads=("sql",)),
        Degradation("long prompts only", lost=0.20, only_long=True),
        Degradation("rare garbage", lost=0.001, broken=0.9),
        Degradation("bug on one GPU type", lost=0.05, only_other_gpu=True),
        Degradation("traffic drifts away", lost=0.04, drifts=True),
    )
