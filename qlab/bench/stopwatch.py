"""How long a call takes, on a CPU or a GPU, where the weight comes from memory and not from a cache.

A weight that was just multiplied lies in the cache, and the next product of it looks faster than any layer of a model,
which sees its weights once a token. So calls take turns among copies that together exceed the cache four times. On a
GPU, two gibibytes are read before each call as well: the reading empties the L2 cache (a buffer that is written would
leave its own writes to be done during the call), and it keeps the GPU busy while Python enqueues the call, so
that two events around it see the device alone and no waiting for the host.

Two callables are compared in pairs, one right after the other, and whichever begins changes from pair to pair. The
median of the ratios of the pairs is what counts: a slow second slows both.
"""

from __future__ import annotations

import copy
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Call = Callable[[], object]
Stopwatch = Callable[[Sequence[Call]], list[float]]  # runs each call once, in order; the seconds of each

TIMES_THE_CACHE = 4
MOST_COPIES = 256
FLUSH = 2**31  # bytes read before a call on a GPU
UNKNOWN_CACHE = 64 * 2**20
CACHES = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True)
class Budget:
    """How often something is measured: as often as `seconds` allow, within bounds."""

    seconds: float = 0.5
    least: int = 5
    most: int = 100

    def repetitions(self, seconds: float) -> int:
        """For something that takes that many seconds."""
        return max(self.least, min(self.most, int(self.seconds / max(seconds, 1e-9))))


@dataclass(frozen=True)
class Spread:
    """The median of some seconds and their quartiles."""

    median: float
    low: float  # first quartile
    high: float  # third quartile
    count: int


def spread(seconds: Sequence[float]) -> Spread:
    """Median and quartiles; of one value, itself three times.

    Raises:
        ValueError: no values.
    """
    if not seconds:
        raise ValueError("seconds: got none; measure at least once")
    if len(seconds) == 1:
        return Spread(seconds[0], seconds[0], seconds[0], 1)
    low, median, high = statistics.quantiles(seconds, n=4, method="inclusive")
    return Spread(median, low, high, len(seconds))


def cpu_stopwatch(clock: Callable[[], float] = time.perf_counter) -> Stopwatch:
    """Wall-clock seconds around each call."""

    def run(calls: Sequence[Call]) -> list[float]:
        seconds = []
        for call in calls:
            start = clock()
            call()
            seconds.append(clock() - start)
        return seconds

    return run


def cuda_stopwatch(flush_bytes: int = FLUSH) -> Stopwatch:
    """Seconds between two CUDA events around each call, the L2 cache emptied before it."""
    buffer = torch.zeros(flush_bytes // 4, device="cuda")

    def run(calls: Sequence[Call]) -> list[float]:
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in calls]
        torch.cuda.synchronize()
        for call, (start, end) in zip(calls, events, strict=True):
            buffer.sum()
            start.record()
            call()
            end.record()
        torch.cuda.synchronize()
        return [start.elapsed_time(end) / 1000 for start, end in events]  # events count milliseconds

    return run


def turns(calls: Sequence[Call], count: int, first: int = 0) -> list[Call]:
    """`count` calls, taken in turn from `first` on."""
    return [calls[(first + i) % len(calls)] for i in range(count)]


def measure(stopwatch: Stopwatch, calls: Sequence[Call], budget: Budget) -> list[float]:
    """Seconds of equal calls that read different copies, after a warm-up."""
    once = _warm_up(stopwatch, calls)
    return stopwatch(turns(calls, budget.repetitions(once)))


def measure_pairs(
    stopwatch: Stopwatch, ours: Sequence[Call], base: Sequence[Call], budget: Budget
) -> tuple[list[float], list[float]]:
    """Seconds of both, pair by pair, after a warm-up. Every other pair begins with the base."""
    once = _warm_up(stopwatch, ours) + _warm_up(stopwatch, base)
    pairs = list(zip(*(turns(side, budget.repetitions(once)) for side in (ours, base)), strict=True))
    seconds = stopwatch([call for i, pair in enumerate(pairs) for call in (pair[::-1] if i % 2 else pair)])
    swapped = [seconds[2 * i : 2 * i + 2][:: -1 if i % 2 else 1] for i in range(len(pairs))]
    return [a for a, _ in swapped], [b for _, b in swapped]


def ratio(ours: Sequence[float], base: Sequence[float]) -> float:
    """How many times as fast as the base: the median over the pairs."""
    return statistics.median(b / a for a, b in zip(ours, base, strict=True))


def copies(weight: Any, nbytes: int, cache: int) -> list[Any]:
    """The weight and as many copies of it as it takes to exceed the cache `TIMES_THE_CACHE` times.

    They are `MOST_COPIES` at most: a weight below a 64th of the cache stays in it, as that of a tiny model does.
    """
    count = min(MOST_COPIES, max(1, -(-TIMES_THE_CACHE * cache // max(nbytes, 1))))
    return [weight, *(copy.deepcopy(weight) for _ in range(count - 1))]


def cache_bytes(device: torch.device) -> int:
    """The last-level cache: L2 of a GPU, the largest one of a CPU; 64 MiB where the system does not say."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).L2_cache_size)
    sizes = [_bytes(path.read_text()) for path in CACHES.glob("index*/size")]
    if not sizes and "SC_LEVEL3_CACHE_SIZE" in os.sysconf_names:
        sizes = [os.sysconf("SC_LEVEL3_CACHE_SIZE")]
    return max(sizes, default=0) or UNKNOWN_CACHE


def _bytes(size: str) -> int:
    """What Linux writes as 32768K."""
    units = {"K": 2**10, "M": 2**20, "G": 2**30}
    size = size.strip()
    return int(size[:-1]) * units[size[-1]] if size[-1] in units else int(size)


def _warm_up(stopwatch: Stopwatch, calls: Sequence[Call]) -> float:
    """Seconds of one call. A first one compiles, allocates and fills tables; slow calls need no further ones."""
    first = stopwatch(turns(calls, 1))[0]
    return first if first > 0.2 else min(stopwatch(turns(calls, 3, first=1)))
