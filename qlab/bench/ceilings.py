"""What a device can do at best, measured: two ceilings, memory and arithmetic. Everything else is a part of the nearer.

    copy      bytes read and written by a copy much larger than the caches, per second
    matrix    operations per second in a large square product of random numbers, for each type

A kernel that moves `bytes` and does `flops` takes at least bytes / copy and at least flops / matrix seconds; the longer
of the two is its ceiling (`qlab.deploy.roofline`).

`read` is the rate of a sum. A product only reads its weight, so with one token it may go beyond the copy.
`smallest` is what an operation on one number takes as it is measured here: less time cannot be told apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from qlab.deploy.roofline import Limits, Work

from .stopwatch import Budget, Stopwatch, cache_bytes, measure, spread

TYPES = {"cuda": ("float16", "bfloat16", "int8"), "cpu": ("float32", "bfloat16", "int8")}


@dataclass(frozen=True)
class Ceilings:
    """Rates in bytes and operations per second, one multiplication and one addition being two operations."""

    copy: float
    read: float
    matrix: dict[str, float]  # of each type
    smallest: float  # seconds

    def floor(self, nbytes: int, flops: int, rate: str) -> tuple[str, float]:
        """The nearer ceiling, "copy" or "matrix", and the seconds that it allows."""
        least = self.limits.time(Work(nbytes, flops), rate)
        return "copy" if least.bound == "memory" else "matrix", least.seconds

    @property
    def limits(self) -> Limits:
        """As a roofline has them: what was measured in place of what a data sheet says."""
        return Limits(self.copy, self.matrix)


def ceilings(
    device: torch.device, stopwatch: Stopwatch, budget: Budget, copied: int | None = None, side: int | None = None
) -> Ceilings:
    """Measure the device.

    Args:
        copied: bytes of the copy; default: 8 times the last-level cache, and 256 MiB (1 GiB on a GPU) at least.
        side: rows of the square matrices; default: 8192 on a GPU, 2048 on a CPU.
    """
    gpu = device.type == "cuda"
    copied = copied or max(8 * cache_bytes(device), 2**30 if gpu else 2**28)
    side = side or (8192 if gpu else 2048)
    source = torch.ones(copied // 4, device=device)
    target, one = torch.empty_like(source), torch.ones(1, device=device)

    def seconds(call: Callable[[], object]) -> float:
        return min(measure(stopwatch, [call], budget))  # a ceiling is the best that was seen: noise only slows

    copy = 2 * source.nbytes / seconds(lambda: target.copy_(source))
    read = source.nbytes / seconds(source.sum)
    smallest = spread(measure(stopwatch, [lambda: one.add_(1)], budget)).median
    matrix = {name: 2 * side**3 / seconds(_product(name, side, device)) for name in TYPES[device.type]}
    if not gpu:  # without instructions for bfloat16, a product widens its numbers and computes in float32
        matrix["bfloat16"] = max(matrix["bfloat16"], matrix["float32"])
    return Ceilings(copy, read, matrix, smallest)


def _product(name: str, side: int, device: torch.device) -> Callable[[], object]:
    """A square product of random numbers: zeros would heat a chip less, and run faster."""
    rng = torch.Generator(device).manual_seed(0)
    if name == "int8":
        left, right = (
            torch.randint(-127, 128, (side, side), generator=rng, dtype=torch.int8, device=device) for _ in range(2)
        )
        return lambda: torch._int_mm(left, right.t())
    dtype = getattr(torch, name)
    a, b = (torch.randn(side, side, generator=rng, device=device).to(dtype) for _ in range(2))
    return lambda: a @ b.t()
