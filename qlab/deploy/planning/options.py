"""An option of a plan, with what it bears and costs, and the plan itself: what was asked, and all options ranked."""

from __future__ import annotations

import datetime
from dataclasses import asdict, dataclass
from typing import Any

from ..cost import machines, usd_per_million, usd_per_month
from ..instances import Instance, price_note
from ..serving.load import Capacity, Load
from ..serving.workloads import Target, Workload
from ..shapes import ModelSpec
from .replica import Assumptions, Replica
from .support import kernels

Key = tuple[str, str, int]  # names of GPU and precision, number of GPUs


@dataclass(frozen=True)
class Option:
    """A precision on an instance, whose GPUs hold one replica of the model or several.

    Args:
        capacity: what the simulation of one replica found; None if it was not simulated.
        ratio: of the estimate, what simulation leaves of it, as far as was seen.
        verdict: why this is not the recommended option; empty for the one that is.
    """

    instance: Instance
    replica: Replica
    qps: float | None = None
    capacity: Capacity | None = None
    ratio: float = 1.0
    verdict: str = ""

    @property
    def key(self) -> Key:
        """Options of one key have the same replica, on machines of different size or price."""
        return self.replica.gpu.name, self.replica.scheme.name, self.replica.gpus

    @property
    def replicas(self) -> int:
        """Copies of the model on one instance."""
        return self.instance.count // self.replica.gpus

    @property
    def possible(self) -> bool:
        """Whether there is a price, and a load that meets the target as far as is known."""
        return self.instance.price_usd_per_hour is not None and not self.replica.obstacles and self.rate > 0

    @property
    def rate(self) -> float:
        """Requests per second that one instance bears within the target: simulated, or else estimated."""
        one = self.ratio * self.replica.estimate if self.capacity is None else self.capacity.rate
        return self.replicas * one

    @property
    def machines(self) -> int:
        """Instances for the load that was asked for; 1 if none was."""
        return 1 if self.qps is None else machines(self.qps, self.rate)

    @property
    def usd_per_month(self) -> float:
        """USD for 730 hours of these instances."""
        return usd_per_month(self._price, self.machines)

    @property
    def usd_per_million(self) -> float:
        """USD for 10^6 tokens of answers, the prompts included in the price, at the highest load."""
        return usd_per_million(self._price, self.rate * self.replica.workload.mean_output)

    @property
    def usd_per_thousand_requests(self) -> float:
        """USD for 1,000 requests at the highest load."""
        return usd_per_million(self._price, self.rate) / 1000

    @property
    def usd(self) -> float:
        """What options are ranked by: USD per month for the load that was asked for, else per 10^6 tokens."""
        return self.usd_per_million if self.qps is None else self.usd_per_month

    @property
    def _price(self) -> float:
        if self.instance.price_usd_per_hour is None:
            raise ValueError(f"price_usd_per_hour: {self.instance.name} has none; give one in the file of QLAB_DATA")
        return self.instance.price_usd_per_hour

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings; None where an option did not get so far."""
        runs = not self.replica.obstacles
        floor = self.replica.floor if runs else None
        load = self.capacity.best if self.capacity else None
        return {
            "instance": self.instance.name,
            "gpu": self.replica.gpu.name,
            "precision": self.replica.scheme.name,
            "tensor_parallel": self.replica.gpus,
            "replicas": self.replicas,
            "weights_bytes": self.replica.fit.breakdown.weights,
            "kv_budget_bytes": self.replica.fit.budget,
            "kv_tokens": self.replica.fit.tokens,
            "idle_first_token_s": floor and floor.first,
            "idle_answer_s": floor and floor.answer,
            "idle_per_token_s": floor and floor.per_token,
            "estimated_requests_per_s": self.replicas * self.ratio * self.replica.estimate if runs else None,
            "simulated_requests_per_s": None if self.capacity is None else self.rate,
            "simulated": load and vars(load),
            "instances": self.machines if self.possible else None,
            "usd_per_million_output_tokens": self.usd_per_million if self.possible else None,
            "usd_per_thousand_requests": self.usd_per_thousand_requests if self.possible else None,
            "usd_per_month": self.usd_per_month if self.possible else None,
            "price_usd_per_hour": self.instance.price_usd_per_hour,
            "price_date": self.instance.price_date,
            "calibration": self.replica.calibration,
            "kernels": kernels(self.replica.scheme).to_dict(),
            "verdict": self.verdict or "recommended",
        }


@dataclass(frozen=True)
class Plan:
    """What was asked, and all options: those that meet the target by their cost, then the others.

    `at_load` is what users see at the load that was asked for, spread over the recommended machines.
    """

    model: ModelSpec
    workload: Workload
    target: Target
    qps: float | None
    given: Assumptions
    options: tuple[Option, ...]
    at_load: Load | None

    @property
    def choice(self) -> Option | None:
        """The recommended option, or None if nothing meets the target."""
        return next((one for one in self.options if not one.verdict), None)

    @property
    def simulated(self) -> int:
        """How many replicas were simulated."""
        return len({one.key for one in self.options if one.capacity is not None})

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings; times in seconds."""
        return {
            "model": self.model.name,
            "workload": asdict(self.workload) | {"longest": self.workload.longest, "assumed": True},
            "target": vars(self.target),
            "requests_per_s": self.qps,
            "assumptions": vars(self.given),
            "replicas_simulated": self.simulated,
            "at_load": self.at_load and vars(self.at_load),
            "options": [one.to_dict() for one in self.options],
        }

    def prices(self, today: datetime.date | None = None) -> str:
        """From when the prices are, in a sentence."""
        return price_note((one.instance for one in self.options), today)
