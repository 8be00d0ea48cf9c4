"""Machines, loads and bills, from the plan: its simulation runs once for each question."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from qlab import deploy
from qlab.deploy import cost, user
from qlab.deploy.planning.options import Option
from qlab.deploy.planning.plan import plan

from .registry import computes


@computes("USD/h")
def price(instance: str) -> float:
    """On demand, of the date that `deploy.instances` gives."""
    found = deploy.instance(instance).price_usd_per_hour
    if found is None:
        raise ValueError(f"instance: {instance} has no price")
    return found


@computes("USD/month")
def fleet_bill(instance: str, held: int) -> float:
    """Of so many instances, busy or not, on demand."""
    return cost.usd_per_month(price(instance), held)


@computes("requests/s")
def requests_per_second(model: str, precision: str, instance: str, workload: str, latency: float) -> float:
    """The most that one instance bears with 95 % of the answers (or first tokens) within `latency` seconds."""
    return _option(model, precision, instance, workload, latency, None).rate


@computes("machines")
def machines(model: str, precision: str, instance: str, workload: str, latency: float, qps: float) -> float:
    """Instances for `qps` requests per second within `latency`."""
    return _option(model, precision, instance, workload, latency, qps).machines


@computes("machines")
def with_spare(
    model: str, precision: str, instance: str, workload: str, latency: float, qps: float, spare: int = 1
) -> float:
    """Instances for `qps` requests per second, by what one bears, and `spare` more for a failure."""
    return spare + cost.machines(qps, requests_per_second(model, precision, instance, workload, latency))


@computes("USD/month")
def usd_per_month(model: str, precision: str, instance: str, workload: str, latency: float, qps: float) -> float:
    """Of those instances, on demand."""
    return _option(model, precision, instance, workload, latency, qps).usd_per_month


@computes("USD/million tokens")
def usd_per_million(model: str, precision: str, instance: str, workload: str, latency: float) -> float:
    """Tokens of answers, prompts in the price, on demand, at the highest load that one instance bears."""
    return _option(model, precision, instance, workload, latency, None).usd_per_million


@computes("USD/month")
def tiers_bill(
    model: str, precision: str, instance: str, workload: str, latency: float, qps: float,
    share: float = 0, small: str = "", small_on: str = "", spare: int = 1,
) -> float:  # fmt: skip
    """Of the instances for `qps`, a spare one in each tier. A `share` above 0 goes to a `small` model on `small_on`."""
    tiers = [(model, instance, (1 - share) * qps), (small, small_on, share * qps)]
    return sum(
        fleet_bill(where, int(with_spare(name, precision, where, workload, latency, load, spare)))
        for name, where, load in tiers
        if load
    )


@computes("percent")
def bill_saved(
    model: str, precision: str, instance: str, workload: str, latency: float, qps: float, against: str = "bf16"
) -> float:
    """Of the month's bill at the precision `against`, on the same kind of instance; below 0 where it grows."""
    theirs, ours = (
        usd_per_month(model, how, instance, workload, latency=latency, qps=qps) for how in (against, precision)
    )
    return 100 * (1 - ours / theirs)


@computes("x")
def bill_cut(held: int, instance: str, **served: Any) -> float:
    """How many times more `held` instances cost than those that are needed; `served` as of `tiers_bill`."""
    return fleet_bill(instance, held) / tiers_bill(instance=instance, **served)


@computes("x")
def load_gain(model: str, precision: str, instance: str, workload: str, latency: float, against: str = "bf16") -> float:
    """How many times the load of the precision `against` one instance bears, within the same latency."""
    theirs, ours = (requests_per_second(model, how, instance, workload, latency) for how in (against, precision))
    return ours / theirs


@computes("x")
def cheaper_answer(
    model: str, instance: str, small: str, small_on: str, precision: str, workload: str, latency: float
) -> float:
    """How many times less an answer costs with a small model on its own instance, both at their highest load."""
    ours, theirs = (
        usd_per_million(name, precision, where, workload, latency)
        for name, where in ((small, small_on), (model, instance))
    )
    return theirs / ours


@computes("s")
def alone(model: str, precision: str, instance: str, workload: str) -> float:
    """The whole answer of one request that has the instance for itself, at percentile 95."""
    return _option(model, precision, instance, workload, 600, None).replica.floor.answer


@computes("s")
def alone_within(model: str, precision: str, instance: str, workload: str, latency: float) -> float:
    """As `alone`, but with the model split over the GPUs as a limit of `latency` seconds asks; met or not.

    Raises:
        ValueError: the precision does not run on the instance.
    """
    found = plan(
        model, workload, latency=latency, precisions=[precision], among=[deploy.instance(instance)], best=0, most=0
    )
    one = found.options[0]
    if one.replica.obstacles:
        raise ValueError(f"{precision} on {instance}: {one.verdict}")
    return one.replica.floor.answer


def _option(*asked: Any) -> Option:
    """A precision on an instance; the arguments are those of `requests_per_second` and the requests per second."""
    return _simulated(user.stamp(), *asked)


@lru_cache(maxsize=64)
def _simulated(
    data: user.Stamp, model: str, precision: str, where: str, workload: str, latency: float, qps: float | None
) -> Option:
    """Raises ValueError where the precision does not run there, or never within `latency`."""
    options = plan(model, workload, latency=latency, qps=qps, precisions=[precision], among=[deploy.instance(where)])
    found = options.options[0]
    if not found.possible:
        raise ValueError(f"{precision} on {where}: {found.verdict}")
    return found
