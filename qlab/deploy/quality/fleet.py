"""Two tiers on real machines: whole replicas for a load, and what users wait for when some are answered twice.

`routing` counts dollars per request, as if every machine could be bought by the slice. Here replicas come whole, so a
second tier has a price even if nobody asks it; and a request that a cascade escalates waits in two queues, one after
the other.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..entries import is_positive, look_up
from ..serving.served import Served
from ..serving.simulation import StepTime, serve
from ..serving.traffic import Request, check_count
from .routing import Outcome


@dataclass(frozen=True)
class Server:
    """One replica of a tier: requests per second that it finishes within its latency target, dollars per hour.

    Raises ValueError for a number that is not above 0.
    """

    requests_per_s: float
    dollars_per_hour: float

    def __post_init__(self) -> None:
        for name in ("requests_per_s", "dollars_per_hour"):
            if not is_positive(getattr(self, name)):
                raise ValueError(f"{name}: got {getattr(self, name)!r}; give a number above 0")


@dataclass(frozen=True)
class Fleet:
    """Whole replicas for a load, and what they cost whether they are busy or not."""

    replicas: dict[str, int]
    dollars_per_hour: float
    dollars_per_request: float


def fleet(outcome: Outcome, rate: float, servers: Mapping[str, Server], least: int = 1) -> Fleet:
    """The replicas that the outcome of a policy needs at `rate` requests per second.

    Replicas come whole, and each tier in use needs `least` of them (2 where one may fail). So at a low rate two tiers
    cost more than one, however few requests the second one sees.

    Raises:
        ValueError: a rate that is not above 0, `least` below 1, or a tier in use without a server.
    """
    if not is_positive(rate):
        raise ValueError(f"rate: got {rate!r}; give requests per second, above 0")
    check_count("least", least)
    replicas, dollars = {}, 0.0
    for name, share in outcome.asked.items():
        if share == 0:
            continue
        server: Server = look_up("servers", name, servers)
        # A share is a sum of many small parts: without the tolerance, 2.0000000000000004 would need a third replica.
        replicas[name] = max(least, math.ceil(rate * share / server.requests_per_s - 1e-9))
        dollars += replicas[name] * server.dollars_per_hour
    return Fleet(replicas, dollars, dollars / (3600 * rate))


@dataclass(frozen=True)
class Pool:
    """Replicas of a tier for the simulation, each an engine as `simulation.serve` knows it; requests take turns."""

    step: StepTime
    kv_tokens: int
    replicas: int = 1
    max_batch: int = 256

    def __post_init__(self) -> None:
        check_count("replicas", self.replicas)


@dataclass(frozen=True)
class Tiered:
    """A run of all pools. Seconds count from the arrival of a request to the end of the answer that the user gets."""

    served: dict[str, tuple[Served, ...]]  # by tier, one for each replica that saw a request
    seconds: tuple[float, ...]  # in the order of the requests

    def latency(self, percent: float) -> float:
        """Seconds that `percent` of the requests do not exceed. Raises ValueError outside 0 to 100."""
        if not 0 <= percent <= 100:
            raise ValueError(f"percent: got {percent!r}; it must be from 0 to 100")
        return sorted(self.seconds)[max(0, math.ceil(percent / 100 * len(self.seconds)) - 1)]


def draw(outcome: Outcome, count: int, seed: int = 0) -> list[tuple[str, ...]]:
    """For each of `count` requests the tiers that compute it, in order, drawn with the shares of an outcome."""
    check_count("count", count)
    names = [name for name, share in outcome.answered.items() if share]
    weights = [outcome.answered[name] for name in names]
    routes = {name: (name,) if outcome.first in (None, name) else (str(outcome.first), name) for name in names}
    return [routes[name] for name in random.Random(seed).choices(names, weights, k=count)]


def serve_tiers(requests: Sequence[Request], routes: Sequence[Sequence[str]], pools: Mapping[str, Pool]) -> Tiered:
    """Serve every request by the tiers of its route, one after another: the next begins when the last one is done.

    An escalated answer has to be judged by its confidence before anybody sees it. So the user gets nothing of the
    first answer, and waits for all of it.

    Args:
        requests: as for `serve`.
        routes: for each request the names of the tiers that compute it, in the order of `pools`.
        pools: the tiers, the first to be asked first.

    Raises:
        ValueError: no requests, not one route for each, or a route that is empty, out of order, or names no pool.
    """
    if not requests:
        raise ValueError("requests: got none; give one request or more")
    if len(routes) != len(requests):
        raise ValueError(f"routes: got {len(routes)} for {len(requests)} requests; give one for each")
    for route in routes:
        if not route or list(route) != [name for name in pools if name in route]:
            raise ValueError(f"routes: got {tuple(route)}; give tiers in the order of the pools, {', '.join(pools)}")
    ready = [request.arrival for request in requests]
    served: dict[str, tuple[Served, ...]] = {}
    for name, pool in pools.items():
        # Turns are taken in the order of arrival at this pool.
        queue = sorted((i for i, route in enumerate(routes) if name in route), key=ready.__getitem__)
        runs = []
        for turn in range(min(pool.replicas, len(queue))):
            mine = queue[turn :: pool.replicas]
            sent = [Request(ready[i], requests[i].prompt, requests[i].output) for i in mine]
            runs.append(serve(sent, pool.step, kv_tokens=pool.kv_tokens, max_batch=pool.max_batch))
            for i, timing in zip(mine, runs[-1].timings, strict=True):
                ready[i] = timing.finished
        served[name] = tuple(runs)
    return Tiered(served, tuple(end - request.arrival for end, request in zip(ready, requests, strict=True)))
