"""GPTQ of one layer against a plain implementation, in time: `python -m qlab.bench.gptq` (`make bench`).

The plain one is the algorithm without lazy batches: after each column, the whole rest of the matrix is updated. It
does the same arithmetic and finds the same codes, up to rounding. Both run in this process, in turn, on the same layer
in float32 and on one thread (threads that wait for a busy core would be measured, too); the median of the ratios
is compared with the promise. The exit code is 0 also when it is broken, as in `seconds`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch

from qlab.formats import affine
from qlab.methods import gptq

from ..machine import usable_cores

BITS = 4
DAMPING = 0.01


@dataclass(frozen=True)
class Result:
    """Seconds of both, pair by pair. The ratio of each pair is to be at most `bar`."""

    size: int
    bar: float
    ours: list[float]
    plain: list[float]

    @property
    def median(self) -> float:
        """The median over the pairs of our time as a part of that of the plain one."""
        return statistics.median(a / b for a, b in zip(self.ours, self.plain, strict=True))

    @property
    def verdict(self) -> str:
        return "kept" if self.median <= self.bar else "broken"


def column_by_column(w: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    """Codes, uint8 (out, in), of w (out, in) in symmetric grids per channel, as the paper's equations read."""
    scales, _ = affine.choose_params(w, BITS, "channel", symmetric=True)
    scale, middle = scales[:, 0].to(w.dtype), 2 ** (BITS - 1)
    h = hessian.clone()
    h.diagonal().add_(DAMPING * h.diagonal().mean())
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(h))
    factor = torch.linalg.cholesky(
        inverse, upper=True
    ).contiguous()  # (in, in); torch gives it by columns, and the loop reads rows
    w, codes = w.clone(), torch.empty(w.shape, dtype=torch.uint8)
    for j in range(w.shape[1]):
        code = torch.round(w[:, j] / scale).clamp(1 - middle, middle - 1)
        error = (w[:, j] - code * scale) / factor[j, j]
        w[:, j + 1 :].addr_(error, factor[j, j + 1 :], alpha=-1)  # in place: the fastest that torch has for this
        codes[:, j] = (code + middle).to(torch.uint8)
    return codes


def layer(size: int, dtype: torch.dtype = torch.float32) -> tuple[torch.Tensor, torch.Tensor]:
    """Seeded normal weights (size, size), and the Hessian (size, size) of correlated inputs."""
    rng = torch.Generator().manual_seed(0)
    mix = torch.randn(size, size, generator=rng, dtype=dtype) / size**0.5
    hessian = gptq.Hessian(size, dtype)
    hessian.add(torch.randn(2 * size, size, generator=rng, dtype=dtype) @ mix)
    return torch.randn(size, size, generator=rng, dtype=dtype), hessian.matrix


def run(size: int = 2048, pairs: int = 5, bar: float = 1 / 3) -> Result:
    """Measure both in turn; who begins changes from pair to pair."""
    w, h = layer(size)
    ours: list[float] = []
    plain: list[float] = []
    measured: list[tuple[list[float], Callable[[], object]]] = [
        (ours, lambda: gptq.quantize(w, h, BITS, "channel", damping=DAMPING)),
        (plain, lambda: column_by_column(w, h)),
    ]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for pair in range(pairs):
            for seconds, quantize in measured[:: -1 if pair % 2 else 1]:
                start = time.perf_counter()
                quantize()
                seconds.append(time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    return Result(size, bar, ours, plain)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m qlab.bench.gptq", description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a line")
    parser.add_argument("--size", type=int, default=2048, help="rows and columns of the layer (default: 2048)")
    parser.add_argument("--pairs", type=int, default=5, help="how often both are measured (default: 5)")
    options = parser.parse_args(arguments)

    result = run(options.size, options.pairs)
    if options.json:
        rows = asdict(result) | {"median": result.median, "verdict": result.verdict}
        print(json.dumps({"cores": usable_cores(), **rows}, indent=2))
    else:
        print(_line(result))
    return 0


def _line(result: Result) -> str:
    name = f"GPTQ {result.size} × {result.size}, part of the plain time"
    seconds = f"{statistics.median(result.ours):.2f} of {statistics.median(result.plain):.2f} s"
    pairs = f"{seconds}, median of {len(result.ours)} pairs"
    return f"{name:<40} {result.median:8.2f}    at most {result.bar:.2f}: {result.verdict} ({pairs})"


if __name__ == "__main__":
    sys.exit(main())
