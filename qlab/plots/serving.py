"""Pictures of a simulated server: what users wait for as the load grows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from qlab.deploy.serving.served import Served

from .style import GRAY, INK, PALETTE, Figure, new_figure, styled


@styled
def latency_against_load(
    results: Mapping[str, Sequence[Served]], ttft_limit: float | None = None, gap_limit: float | None = None
) -> Figure:
    """Time to first token (median and p99) and gap between tokens (p99) against requests per second.

    A dotted line stands at the most requests per second that a server finished: beyond it queues grow for as long as
    requests come, and a longer run would show longer waits.

    Args:
        results: for each server its runs at several loads, in any order, such as {"INT4": [...], "BF16": [...]};
            answers of 2 tokens or more.
        ttft_limit, gap_limit: seconds that p99 is to stay below, drawn as lines.

    Raises:
        ValueError: nothing to draw, more servers than the palette has colors, or a run whose requests all came at once.
    """
    if not results or not all(results.values()):
        raise ValueError("results: got a server without runs, or no server; give one run or more for each")
    if len(results) > len(PALETTE):
        raise ValueError(f"results: got {len(results)} servers; eyes can tell {len(PALETTE)} colors apart")
    if any(run.offered == math.inf for runs in results.values() for run in runs):
        raise ValueError("results: in one run all requests came at once, which is no rate; give runs at finite rates")
    figure, (first, gaps) = new_figure(8.4, 3.7, columns=2)
    words = []
    for (name, runs), color in zip(results.items(), PALETTE, strict=False):
        ordered = sorted(runs, key=lambda run: run.offered)
        load = [run.offered for run in ordered]
        most = max(run.throughput for run in ordered)
        tail, gap = [run.ttft(99) for run in ordered], [1e3 * run.gap(99) for run in ordered]
        first.plot(load, [run.ttft(50) for run in ordered], "o-", color=color, markersize=4, label=f"{name}: median")
        first.plot(load, tail, "s--", color=color, markersize=4, label=f"{name}: p99")
        gaps.plot(load, gap, "s--", color=color, markersize=4)
        for axis in (first, gaps):
            axis.axvline(most, color=color, linestyle=":", linewidth=1.2, zorder=0)
        words.append(
            f"{name}, from {load[0]:.3g} to {load[-1]:.3g} requests per second: p99 of the time to first token "
            f"{tail[0]:.3g} to {tail[-1]:.3g} s, p99 of the gap {gap[0]:.3g} to {gap[-1]:.3g} ms, "
            f"at most {most:.3g} requests per second finished"
        )
    first.set_yscale("log")
    for axis, limit, unit in ((first, ttft_limit, "s"), (gaps, gap_limit and 1e3 * gap_limit, "ms")):
        if limit is not None:
            axis.axhline(limit, color=INK, linewidth=1)
            axis.annotate(
                f"limit of p99: {limit:g} {unit}",
                (1, limit),
                (0, 3),
                xycoords=axis.get_yaxis_transform(),
                textcoords="offset points",
                ha="right",
                fontsize=8,
            )
            words.append(f"limit {limit:g} {unit}")
        axis.set_xlabel("requests per second that arrive")
        axis.grid(alpha=0.25)
    gaps.set_ylim(bottom=0)
    first.set_title("Time to first token, median and p99")
    first.set_ylabel("seconds")
    gaps.set_title("Gap between two tokens, p99")
    gaps.set_ylabel("milliseconds")
    first.plot([], [], ":", color=GRAY, label="most it finished")
    figure.legend(loc="outside lower center", ncols=min(5, 2 * len(results) + 1), handlelength=2.6)
    figure.alt = "Latency against load. " + "; ".join(words) + "."
    return figure
