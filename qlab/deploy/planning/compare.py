"""Precisions on one instance, side by side: memory, the time of a prompt and of a token, the load they bear, the price.

The same as a plan among one machine, but everything that can run is simulated, and nothing is left to the estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ..instances import Instance, instance
from ..serving.load import Capacity, highest_rate
from ..serving.workloads import Workload
from . import plan as plans
from .options import Plan
from .replica import Assumptions
from .support import served

MOST = 6


def compare(
    precisions: Sequence[str],
    model: Any,
    where: str | Instance,
    kind: str | Workload = "chat",
    *,
    latency: float | None = None,
    per_token: float | None = None,
    prompt: int | None = None,
    output: int | None = None,
    given: Assumptions | None = None,
    search: Callable[..., Capacity] = highest_rate,
) -> Plan:
    """Compare two to six precisions of a model on an instance. Arguments and errors are those of `plan`.

    Raises:
        ValueError: fewer precisions than two, or more than six.
    """
    names = list(dict.fromkeys(served(precision).name for precision in precisions))
    if not 2 <= len(names) <= MOST:
        raise ValueError(f"precisions: got {', '.join(names) or 'none'}; give 2 to {MOST} different ones")
    return plans.plan(
        model, kind, latency=latency, per_token=per_token, precisions=names, among=[instance(where)],
        prompt=prompt, output=output, given=given, search=search, best=MOST, most=MOST,
    )  # fmt: skip
