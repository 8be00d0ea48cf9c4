"""What was lost: by the embedded model, in published results, and what so many examples can tell."""

from __future__ import annotations

from qlab.deploy.quality import power
from qlab.deploy.quality.measured import REFERENCE, quality
from qlab.deploy.results import result

from .registry import computes


@computes("percent")
def nano_accuracy(method: str, workload: str) -> float:
    """Of the embedded model on held-out examples: its numbers, not those of a large model."""
    return 100 * quality().method(method).answers[workload].accuracy


@computes("percent")
def nano_lost(method: str, workload: str) -> float:
    """Points of accuracy lost against 16 bits by the embedded model."""
    return nano_accuracy(REFERENCE, workload) - nano_accuracy(method, workload)


@computes("percent")
def nano_lost_mean(method: str) -> float:
    """Points of accuracy lost against 16 bits by the embedded model, mean of its workloads."""
    return sum(nano_lost(method, workload) for workload in quality().workloads) / len(quality().workloads)


@computes("requests")
def nano_changed(method: str, workload: str) -> float:
    """Answers of the embedded model that differ from its own in 16 bits, right or wrong, on held-out examples."""
    return quality().method(method).answers[workload].same.count(False)


@computes("percent")
def published_change(id: str) -> float:
    """By how much a published result is above the baseline of the same source; below 0 if it is less."""
    ratio = result(id).ratio
    if ratio is None:
        raise ValueError(f"id: {id} has no value with a baseline")
    return 100 * (ratio - 1)


@computes("percent")
def changed_at_most(changed: int, of: int) -> float:
    """The upper end of the exact 95 % interval of a rate, after `changed` answers of so many differed."""
    return 100 * power.clopper_pearson(changed, of)[1]


@computes("points")
def not_ruled_out(examples: int, lost: int, gained: int) -> float:
    """The largest loss of accuracy in the 95 % interval, after so many answers lost and gained."""
    return -100 * power.Flips(examples, lost, gained).change_interval()[0]


@computes("points")
def hidden_points(average: float, tasks: int) -> float:
    """What one of so many tasks has lost if the average lost `average` points and the other tasks nothing."""
    return average * tasks


@computes("requests")
def pairs_needed(lost: float, gained: float) -> float:
    """That two models must both answer for a paired test to see the difference; parts of the answers, power 80 %."""
    return power.pairs_size(lost, gained)


@computes("requests")
def strangers_needed(before: float, after: float) -> float:
    """For each model, where the two answer different requests; parts of right answers, power 80 %."""
    return power.ab_size(before, after)


@computes("percent")
def strangers_power(before: float, after: float, examples: int) -> float:
    """How often a test sees the difference if each model answers so many requests of its own."""
    return 100 * power.ab_power(before, after, examples)
