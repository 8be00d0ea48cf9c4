"""Pictures of memory: what the weights are made of, how the cache grows, and which GPU holds it all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from qlab.deploy import MemoryBreakdown, fits, memory

from .style import BLUE, GRAY, GREEN, INK, ORANGE, PALETTE, RED, Figure, new_figure, styled

GB = 1e9


@styled
def weight_breakdown(breakdowns: Sequence[MemoryBreakdown]) -> Figure:
    """What the weights consist of at several precisions: codes, scales, embedding and head."""
    figure, axis = new_figure(7.6, 0.9 + 0.55 * len(breakdowns))
    labels = [b.precision for b in breakdowns]
    parts = {
        "linear layers": [b.linears - b.scale_overhead for b in breakdowns],
        "their scales": [b.scale_overhead for b in breakdowns],
        "embedding and head": [b.embedding + b.head for b in breakdowns],
    }
    left = np.zeros(len(breakdowns))
    for (name, sizes), color in zip(parts.items(), (BLUE, RED, ORANGE), strict=True):
        axis.barh(labels, np.array(sizes) / GB, left=left, color=color, label=name, height=0.6)
        left += np.array(sizes) / GB
    for y, total in enumerate(left):
        axis.text(total, y, f"  {total:.1f} GB", va="center", fontsize=9)
    axis.invert_yaxis()
    axis.set_xlim(0, max(left) * 1.13)
    axis.set_xlabel("GB of weights (1 GB = 10⁹ bytes)")
    axis.set_title(f"{breakdowns[0].spec.name}: what the weights are made of")
    axis.legend(loc="lower right")
    figure.alt = f"Weights of {breakdowns[0].spec.name}: " + ", ".join(
        f"{name} {total:.1f} GB" for name, total in zip(labels, left, strict=True)
    )
    return figure


@styled
def kv_growth(per_token: Mapping[str, int], level: tuple[str, float] | None = None, tokens: int = 131_072) -> Figure:
    """KV cache in GB against tokens in flight, one line per model: {name: bytes per token}.

    `level` is (label, bytes) of a horizontal line to compare with, such as the weights.
    """
    figure, axis = new_figure(7.0, 3.4)
    x = np.linspace(0, tokens, 50)
    ceiling = min(160.0, max(per_token.values()) * tokens / GB)
    for (name, size), color, style in zip(per_token.items(), PALETTE, ("-", "--", "-.", ":"), strict=False):
        axis.plot(
            x / 1024,
            x * size / GB,
            color=color,
            linestyle=style,
            linewidth=2,
            label=f"{name}: {size:,} bytes per token",
        )
    if level:
        axis.axhline(level[1] / GB, color=INK, linewidth=1)
        axis.text(0.15 * tokens / 1024, level[1] / GB, level[0], ha="left", va="bottom", fontsize=9)
    axis.set_ylim(0, ceiling)
    axis.set_xlim(0, tokens / 1024)
    axis.set_xlabel("tokens in flight, in units of 1,024 (requests times context)")
    axis.set_ylabel("KV cache (GB)")
    axis.set_title("The cache grows with every token of every request")
    axis.legend(loc="center right")
    figure.alt = f"KV cache against tokens in flight, up to {tokens:,}: " + ", ".join(
        f"{name} reaches {size * tokens / GB:.0f} GB" for name, size in per_token.items()
    )
    return figure


@styled
def gpus_that_fit(
    model: str,
    precision: str,
    batch: int,
    context: int,
    kv_bits: int,
    gpu_names: Sequence[str] = ("T4", "L4", "RTX-4090", "A100-40GB", "L40S", "A100-80GB", "H100-80GB", "H200"),
) -> Figure:
    """One bar of weights, allowance and KV cache, held against what each single GPU offers."""
    breakdown = memory(model, precision=precision, batch=batch, context=context, kv_bits=kv_bits, extended=True)
    found = [fits(breakdown, name) for name in gpu_names]
    figure, axis = new_figure(7.8, 1.1 + 0.42 * len(found))
    need = [
        ("weights", breakdown.weights, BLUE),
        ("allowance", found[0].overhead, GRAY),
        ("KV cache", breakdown.kv_cache, ORANGE),
    ]
    usable = [fit.gpu.visible_bytes * fit.utilization / GB for fit in found]
    total = sum(size for _, size, _ in need) / GB
    right = max([*usable, total])
    for y, (fit, room) in enumerate(zip(found, usable, strict=True)):
        axis.barh(y, room, height=0.84, color="#E4E4E4", label="usable memory" if y == 0 else None)
        left = 0.0
        for name, size, color in need:
            axis.barh(y, size / GB, left=left, color=color, height=0.46, label=name if y == 0 else None)
            left += size / GB
        if fit.budget < 0:
            verdict, color = "weights do not fit", RED
        elif fit.fits:
            verdict, color = f"fits; room for {fit.batch} requests", GREEN
        else:
            verdict, color = f"holds {fit.batch} of {batch} requests", RED
        axis.text(right * 1.02, y, verdict, va="center", fontsize=9, color=color)
    axis.set_yticks(range(len(found)), [fit.gpu.name for fit in found])
    axis.invert_yaxis()
    axis.set_xlim(0, right * 1.4)
    axis.set_xlabel(f"GB; a server may use {found[0].utilization:.0%} of the memory that CUDA shows")
    axis.set_title(
        f"{model} at {precision}: {batch} x {context:,} tokens, {kv_bits}-bit cache = {total:.1f} GB", pad=24
    )
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, borderaxespad=0.2)
    fitting = [fit.gpu.name for fit in found if fit.fits]
    figure.alt = (
        f"{model} at {precision} with {batch} requests of {context:,} tokens needs {total:.1f} GB. "
        "One GPU that holds it: " + (", ".join(fitting) or "none of these")
    )
    return figure
