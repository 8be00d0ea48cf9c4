"""Where to serve a model: instances, precisions and splits over GPUs, ranked by what they cost at a latency target.

Every option is judged in the same order, and each judgement that ends badly is kept as its reason:

1. Does it fit, and are there kernels for this precision on this GPU? (`replica.obstacles`)
2. Does a request meet the target on an idle server? If not, no load does. (`engine.floor`)
3. What load does it bear, about, and what does that cost? All options are ranked by this. (`engine.estimate`)
4. The best are simulated one after another, and ranked anew each time: three of them, and more, up to `MOST`, while
   another might win. Only a simulated option is ever recommended. (`load.highest_rate`)

Simulation mostly finds 0.55 to 1.06 of the estimate (0.38 and 2.1 at worst, over 39 servers of two models in six
workloads). The estimates of options that are not simulated are multiplied by the median of the ratios that were seen.
Where a request alone takes most of the limit simulation finds 0.4 to 7 times the estimate (25 where all but 3 % of the
limit is gone): such options have a median of their own, and are simulated whenever they would win with `LATE_LUCK`
times their estimate.

An option is judged by the GPUs of one instance. Machines that are joined by a network are not considered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from ..instances import Instance, instance, instances
from ..memory import memory
from ..models import spec
from ..serving.load import Capacity, highest_rate, requests_for, simulate
from ..serving.workloads import Target, Workload, duration, workload
from ..shapes import ModelSpec
from .options import Key, Option, Plan
from .replica import Assumptions, Replica
from .support import served, usual

BEST, MOST = 3, 5  # replicas simulated: at least so many, where there are, and never more than that
LUCK = 1.25  # what a simulation may leave of an estimate, over the most that one left so far, of BEST or more
LATE_LUCK = 12.0  # the same where a request alone takes most of the limit (`Replica.late`)


def plan(
    model: Any,
    kind: str | Workload = "chat",
    *,
    latency: float | None = None,
    per_token: float | None = None,
    qps: float | None = None,
    precisions: Sequence[str] | None = None,
    among: Iterable[str | Instance] | None = None,
    prompt: int | None = None,
    output: int | None = None,
    given: Assumptions | None = None,
    search: Callable[..., Capacity] = highest_rate,
    best: int = BEST,
    most: int = MOST,
) -> Plan:
    """Rank instances and precisions for a model and a kind of request.

    Args:
        model: whatever `spec` takes.
        kind: a workload or its name.
        latency, per_token: limits in seconds in place of the workload's own; what the first limits is the workload's.
        qps: requests per second in all. Options are then ranked by USD per month, else by USD per 10^6 tokens.
        precisions: such as "int4-g128"; default: 16, 8 and 4 bits as each GPU computes best (`support.usual`).
        among: names of instances, or instances; default: all that are known.
        prompt, output: mean tokens in place of the workload's.
        given: assumptions other than the usual ones.
        search: what finds the highest load, with the arguments of `highest_rate`.
        best, most: how many replicas are simulated at least, where there are so many, and at most.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: an unknown name, a value out of range, or requests that are too long for the model.
    """
    found, shape = spec(model), workload(kind, prompt, output)
    given = Assumptions() if given is None else given
    target = shape.target(latency, per_token, given.percentile)
    if qps is not None and (isinstance(qps, bool) or not isinstance(qps, int | float) or not 0 < qps < 1e9):
        raise ValueError(f"qps: got {qps!r}; give requests per second above 0, such as 50")
    try:
        memory(found, context=shape.longest)
    except ValueError as error:
        raise ValueError(f"{error}; the longest request of {shape} is meant, so give a smaller prompt") from None
    for precision in precisions or ():
        served(precision)
    machines_known = list(instances().values() if among is None else map(instance, among))
    if not machines_known:
        raise ValueError("instances: got none; name one or more, or leave them out to compare all")
    options = _options(found, shape, target, qps, precisions, machines_known, given)
    options = _simulated(options, given, search, best, most)
    ranked = sorted((one for one in options if one.possible), key=_rank)
    choice = next((one for one in ranked if one.capacity is not None), None)
    judged = [one if one is choice else replace(one, verdict=_verdict(one, choice)) for one in ranked]
    judged.sort(key=lambda one: bool(one.verdict))  # the recommended first, the others as they were
    lost = [replace(one, verdict=_verdict(one, choice)) for one in options if not one.possible]
    seen = None
    if choice is not None and qps is not None:
        rate = qps / choice.machines / choice.replicas
        engine = choice.replica.engine
        seen = simulate(engine, shape, target, rate, requests_for(engine, shape, target, rate), given.seed)
    return Plan(found, shape, target, qps, given, (*judged, *lost), seen)


def best_split(
    model: ModelSpec,
    precision: str,
    where: Instance,
    shape: Workload,
    target: Target,
    given: Assumptions,
    qps: float | None = None,
    known: dict[Key, Replica] | None = None,
) -> Option:
    """A precision on an instance, the model split over as many GPUs as is cheapest by the estimate.

    Where no split works, the one with the most GPUs, which is closest to it in memory and in time.
    """
    known = {} if known is None else known
    options = []
    for gpus in model.splits:
        if gpus <= where.count:
            how = served(precision)
            key = where.gpu.name, how.name, gpus
            if key not in known:
                known[key] = Replica(model, how, where.gpu, gpus, shape, target, given)
            options.append(Option(where, known[key], qps))
    works = [one for one in options if not one.replica.obstacles and one.rate > 0]
    if where.price_usd_per_hour is None:
        return max(works, key=lambda one: one.rate) if works else options[-1]
    return min(works, key=_rank) if works else options[-1]


def _options(
    model: ModelSpec,
    shape: Workload,
    target: Target,
    qps: float | None,
    precisions: Sequence[str] | None,
    among: Sequence[Instance],
    given: Assumptions,
) -> list[Option]:
    known: dict[Key, Replica] = {}
    return [
        best_split(model, precision, where, shape, target, given, qps, known)
        for where in among
        if where.gpu.memory_visible_gib is not None
        for precision in (usual(where.gpu) if precisions is None else dict.fromkeys(precisions))
    ]


def _simulated(
    options: list[Option], given: Assumptions, search: Callable[..., Capacity], best: int, most: int
) -> list[Option]:
    """The options, those of the best replicas with their simulated capacity.

    Estimates are scaled by the median of what simulations left of them. After `best` of these another replica is
    simulated only where it would win with LUCK times what was left at best, or LATE_LUCK times where it is late.
    """
    capacities: dict[Key, Capacity] = {}
    ratios: dict[bool, list[float]] = {False: [], True: []}  # of late replicas apart from the others

    def usual(one: Option) -> float:
        seen = ratios[one.replica.late]
        return median(seen) if seen else 1.0

    def lucky(one: Option) -> float:
        if one.replica.late:
            return LATE_LUCK
        least = 1.0 if len(ratios[False]) < BEST else 0.0  # a single bad one must not speak for all
        return LUCK * max([least, *ratios[False]])

    while True:
        options = [replace(one, capacity=capacities.get(one.key)) for one in options]
        options = [replace(one, ratio=usual(one)) if one.possible else one for one in options]
        ranked = sorted((one for one in options if one.possible), key=_rank)
        todo = next((one for one in ranked if one.capacity is None), None)
        if len(capacities) >= best and ranked and ranked[0].capacity is not None:
            hoped = [replace(one, ratio=lucky(one)) for one in ranked if one.capacity is None]
            todo = next((one for one in sorted(hoped, key=_rank) if one.usd < ranked[0].usd), None)
        if todo is None or len(capacities) == most:
            return options
        at = todo.replica
        found = search(at.engine, at.workload, at.target, guess=usual(todo) * at.estimate, seed=given.seed)
        capacities[todo.key] = found
        if found.best is not None:
            ratios[at.late].append(found.rate / at.estimate)


def _rank(option: Option) -> tuple[float, float, str, str]:
    return option.usd, option.usd_per_million, option.instance.name, option.replica.scheme.name


def _verdict(option: Option, choice: Option | None) -> str:
    """Why an option is not the choice."""
    at = option.replica
    if at.obstacles:
        return "; ".join(at.obstacles)
    if not at.estimate:
        return f"too late at any load: {_late(option)}"
    if option.capacity is not None and option.capacity.best is None:
        least = min(option.capacity.tried, key=lambda load: load.rate)
        return f"too late at any load: simulated down to {least.rate:.2g} requests/s for each replica"
    if option.instance.price_usd_per_hour is None:
        return "no price is listed"
    if choice is None:
        return "not simulated, as others that were expected to be cheaper failed"
    about = "" if option.capacity is not None else "about "
    same = f"the same GPUs as {choice.instance.name}, " if option.key == choice.key else ""
    more = option.usd / choice.usd - 1
    if abs(more) < 0.005:
        return f"{same}as dear, but bears {about}{option.rate:.3g} requests/s, not {choice.rate:.3g}"
    return f"{same}{'dearer' if more > 0 else 'cheaper'} by {about}{abs(more):.0%}"


def _late(option: Option) -> str:
    """Which limit is missed by requests that have a server to themselves."""
    floor, target = option.replica.floor, option.replica.target
    if target.per_token is not None and floor.per_token is not None and floor.per_token > target.per_token:
        return f"alone, each token takes {duration(floor.per_token)}"
    words, seconds = ("answer", floor.answer) if target.of == "answer" else ("first token", floor.first)
    return f"alone, the {words} takes {duration(seconds)}"
