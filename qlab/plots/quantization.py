"""Pictures of rounding: a number line, a weight matrix on its grid, three panels, error against bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from qlab.formats import affine

from .style import BLUE, GRAY, GREEN, INK, ORANGE, PALETTE, PINK, RED, SKY, YELLOW, Figure, new_figure, styled


@styled
def number_line(values: Sequence[float], bits: int = 3) -> Figure:
    """Weights above, the levels of a symmetric b-bit grid below, and the level each weight moves to.

    Args:
        values: a few weights, shape (n,).
        bits: 2 to 8.
    """
    w = torch.as_tensor(values, dtype=torch.float32)
    qmax = 2 ** (bits - 1) - 1
    scale = float(w.abs().max()) / qmax
    levels = np.arange(-qmax, qmax + 1) * scale
    rounded = torch.round(w / scale) * scale
    figure, axis = new_figure(7.0, 2.3)
    axis.vlines(levels, -0.12, 0.12, color=INK, linewidth=1)
    axis.hlines(0, levels[0], levels[-1], color=INK, linewidth=1)
    for before, after in zip(w.tolist(), rounded.tolist(), strict=True):
        axis.plot([before, after], [1, 0], color=GRAY, linewidth=0.8)
    axis.plot(w, np.ones(len(w)), "o", color=BLUE, markersize=6, label="weights")
    axis.plot(rounded, np.zeros(len(w)), "s", color=ORANGE, markersize=7, label="value after decoding")
    axis.set_ylim(-0.5, 1.9)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.set_xlabel("value of the weight")
    worst = float((w - rounded).abs().max())
    axis.set_title(f"{bits} bits: {len(levels)} levels, step {scale:.4f}, largest error {worst:.4f}")
    axis.legend(loc="upper right", ncols=2)
    figure.alt = (
        f"{len(w)} weights on a number line, each joined to the nearest of {len(levels)} evenly spaced levels; "
        f"the step is {scale:.4f} and the largest error {worst:.4f}."
    )
    return figure


@styled
def grid_and_error(
    w: torch.Tensor, bits: int = 4, group_size: affine.GroupSize = "channel", symmetric: bool = True, row: int = 0
) -> Figure:
    """One row of a weight matrix: its histogram on the grid, and the rounding error against the value.

    Args:
        w: (out, in) weights; the picture shows the first group of one row.
        bits, group_size, symmetric: as in `qlab.formats.affine.quantize`.
        row: which row to show.
    """
    quantized = affine.quantize(w, bits=bits, group_size=group_size, symmetric=symmetric)
    width = group_size if isinstance(group_size, int) else w.shape[1]
    shown = w[row, :width].float()
    error = (quantized.dequantize(torch.float32)[row, :width] - shown).numpy()
    scale = float(quantized.scales[0 if group_size == "tensor" else row, 0])
    zero = int(quantized.zero_points()[0 if group_size == "tensor" else row, 0])
    levels = (np.arange(2**bits) - zero) * scale
    levels = levels[1:] if symmetric else levels
    whole = (quantized.dequantize(torch.float32) - w.float()).double()
    sqnr = 10 * float(torch.log10(w.double().square().sum() / whole.square().sum()))

    figure, (top, bottom) = new_figure(7.0, 4.2, rows=2, sharex=True, height_ratios=(3, 2))
    if bits <= 5:
        top.vlines(levels, 0, 1, transform=top.get_xaxis_transform(), color=ORANGE, linewidth=1, label="levels")
    top.hist(shown.numpy(), bins=60, color=BLUE, alpha=0.85, label="weights")
    top.set_ylabel("number of weights")
    used = len(np.unique(quantized.codes()[row, :width].numpy()))
    top.set_title(
        f"{bits} bits, {_granularity(group_size)}, {'symmetric' if symmetric else 'asymmetric'}: "
        f"SQNR {sqnr:.1f} dB, {quantized.bits_per_weight:.3f} bits per weight"
    )
    top.legend(loc="upper right")
    bottom.plot(shown.numpy(), error, ".", color=BLUE, markersize=4)
    bottom.axhline(scale / 2, color=RED, linewidth=1, linestyle="--", label="half a step")
    bottom.axhline(-scale / 2, color=RED, linewidth=1, linestyle="--")
    bottom.set_ylim(-0.95 * scale, 0.95 * scale)
    bottom.set_xlabel(f"value of the weight (row {row}, {width} weights, {used} of {len(levels)} levels used)")
    bottom.set_ylabel("error")
    bottom.legend(loc="upper right")
    figure.alt = (
        f"Histogram of {width} weights over the {len(levels)} levels of their {bits}-bit grid, and below it the "
        f"rounding error, which stays within half a step of {scale:.4f}. SQNR of the whole matrix: {sqnr:.1f} dB."
    )
    return figure


@styled
def three_panels(w: torch.Tensor, bits: int = 2, rows: int = 12, columns: int = 16) -> Figure:
    """A corner of a matrix as it is, as codes, and as it comes back (per channel, symmetric)."""
    corner = w[:rows, :columns].float()
    quantized = affine.quantize(corner, bits=bits, group_size="channel")
    codes = quantized.codes().int() - 2 ** (bits - 1)
    figure, axes = new_figure(7.6, 3.0, columns=3)
    limit = float(corner.abs().max())
    titles = ("weights", f"codes, {bits} bits", "codes times scale")
    for axis, panel, title in zip(axes, (corner, codes, quantized.dequantize(torch.float32)), titles, strict=True):
        bound = 2 ** (bits - 1) - 1 if panel is codes else limit
        axis.imshow(panel.numpy(), cmap="PuOr", vmin=-bound, vmax=bound, aspect="equal")
        axis.set_title(title)
        axis.set_xticks([])
        axis.set_yticks([])
        if panel is codes:
            for i in range(rows):
                for j in range(columns):
                    ink = "white" if abs(int(codes[i, j])) > bound / 2 else INK
                    axis.text(j, i, int(codes[i, j]), ha="center", va="center", fontsize=6, color=ink)
    axes[0].set_ylabel("output channels")
    for axis in axes:
        axis.set_xlabel("input channels")
    figure.alt = (
        f"A {rows} by {columns} corner of a weight matrix, its {bits}-bit codes as integers, and the reconstruction."
    )
    return figure


@styled
def sqnr_by_bits(table: Mapping[str, Mapping[int, float]]) -> Figure:
    """SQNR in dB against bits, one line per granularity: {name: {bits: dB}}."""
    figure, axis = new_figure(6.4, 3.4)
    markers = "osD^v"
    for (name, line), color, marker in zip(table.items(), PALETTE, markers, strict=False):
        axis.plot(list(line), list(line.values()), marker=marker, color=color, label=name)
    axis.set_xlabel("bits")
    axis.set_ylabel("SQNR (dB)")
    axis.set_title("Signal to quantization noise: each bit buys about 6 dB")
    axis.grid(axis="y", alpha=0.3)
    axis.legend()
    slopes = {name: (line[max(line)] - line[min(line)]) / (max(line) - min(line)) for name, line in table.items()}
    figure.alt = (
        "SQNR rises with every bit: " + ", ".join(f"{n} by {s:.1f} dB per bit" for n, s in slopes.items()) + "."
    )
    return figure


@styled
def damage_by_workload(
    accuracy: Mapping[str, Mapping[str, float]],
    stderr: Mapping[str, Mapping[str, float]] | None = None,
    title: str = "",
) -> Figure:
    """Accuracy of every workload at several precisions: {precision: {workload: fraction}}.

    `stderr` has the same shape; where given, it is drawn as error bars.
    """
    precisions = list(accuracy)
    workloads = list(next(iter(accuracy.values())))
    figure, axis = new_figure(8.0, 3.6)
    width = 0.8 / len(precisions)
    for i, (precision, color) in enumerate(
        zip(precisions, (GRAY, BLUE, GREEN, ORANGE, RED, PINK, SKY, YELLOW), strict=False)
    ):
        heights = [100 * accuracy[precision][w] for w in workloads]
        error = [100 * stderr[precision][w] for w in workloads] if stderr else None
        x = np.arange(len(workloads)) + (i - (len(precisions) - 1) / 2) * width
        axis.bar(x, heights, width * 0.92, color=color, label=precision, yerr=error, error_kw={"linewidth": 0.8})
    axis.set_xticks(np.arange(len(workloads)), workloads)
    axis.set_ylabel("exact match (%)")
    axis.set_ylim(0, 104)
    axis.set_title(title or "What quantization costs depends on the workload")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), ncols=len(precisions))
    lowest = {p: min(workloads, key=lambda w, p=p: accuracy[p][w]) for p in precisions}  # type: ignore[misc]
    figure.alt = "Exact match by workload. " + " ".join(
        f"{p}: lowest {lowest[p]} with {100 * accuracy[p][lowest[p]]:.0f} %." for p in precisions
    )
    return figure


def _granularity(group_size: affine.GroupSize) -> str:
    return f"groups of {group_size}" if isinstance(group_size, int) else f"per {group_size}"
