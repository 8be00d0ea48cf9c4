"""How fast `codebook.quantize` is next to bitsandbytes on the same CPU: `python -m qlab.bench.nf4`.

Both quantize the same matrix in one process, by turns, and each round gives one ratio of their seconds. The median of
the ratios is what counts: on a busy machine a slow second slows both. qlab works on one core, whatever the number of
threads; bitsandbytes uses them all.
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

from ..formats import codebook


@dataclass(frozen=True)
class Comparison:
    """The seconds of both sides, one entry for each round."""

    name: str
    ours: list[float]
    theirs: list[float]

    @property
    def ratio(self) -> float:
        """The median over the rounds of our seconds divided by theirs: below 1 qlab is faster."""
        return statistics.median(our / their for our, their in zip(self.ours, self.theirs, strict=True))


def measure(
    name: str,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    rounds: int = 7,
    clock: Callable[[], float] = time.perf_counter,
) -> Comparison:
    """Run both once to warm up, then by turns; every other round starts with the other side.

    Raises:
        ValueError: rounds below 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds: got {rounds}; give at least 1")

    def seconds(side: Callable[[], object]) -> float:
        start = clock()
        side()
        return clock() - start

    ours()
    theirs()
    comparison = Comparison(name, [], [])
    for turn in range(rounds):
        sides = [(ours, comparison.ours), (theirs, comparison.theirs)]
        for side, readings in sides[:: 1 if turn % 2 == 0 else -1]:
            readings.append(seconds(side))
    return comparison


def comparisons(size: int, rounds: int) -> list[Comparison]:
    """NF4 and FP4, with and without double quantization, of a float32 matrix (size, size), in blocks of 64.

    Raises:
        ImportError: bitsandbytes is not installed.
    """
    from bitsandbytes.functional import quantize_4bit

    w = torch.randn(size, size, generator=torch.Generator().manual_seed(0))

    def compare(data_type: str, double_quant: bool) -> Comparison:
        return measure(
            data_type + (", double quantization" if double_quant else ""),
            lambda: codebook.quantize(w, data_type, 64, double_quant),
            lambda: quantize_4bit(w, blocksize=64, compress_statistics=double_quant, quant_type=data_type),
            rounds,
        )

    return [compare(data_type, double_quant) for data_type in ("nf4", "fp4") for double_quant in (False, True)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m qlab.bench.nf4", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    parser.add_argument("--size", type=int, default=4096, help="rows and columns of the matrix (default: 4096)")
    parser.add_argument("--rounds", type=int, default=7, help="measurements of each side (default: 7)")
    options = parser.parse_args(arguments)
    if options.size < 1 or options.rounds < 1:
        parser.error("--size and --rounds must be at least 1")
    try:
        results = comparisons(options.size, options.rounds)
    except ImportError:
        print("error: bitsandbytes is missing; install it with: pip install 'qlab[lab]'", file=sys.stderr)
        return 2
    threads = torch.get_num_threads()
    if options.json:
        rows = [asdict(result) | {"ratio": result.ratio} for result in results]
        print(json.dumps({"size": options.size, "threads": threads, "results": rows}, indent=2))
    else:
        for result in results:
            print(_line(result))
        print(f"float32 {options.size} x {options.size}, {threads} threads, median of {options.rounds} rounds.")
    return 0


def _line(result: Comparison) -> str:
    ours, theirs = (1000 * statistics.median(seconds) for seconds in (result.ours, result.theirs))
    return f"{result.name:<24} qlab {ours:7.1f} ms, bitsandbytes {theirs:7.1f} ms, ratio {result.ratio:.2f}"


if __name__ == "__main__":
    sys.exit(main())
