"""Pictures of 8-bit activations: the integer product, outlier channels, the decomposition, its threshold."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.patches import Rectangle

from qlab.formats import activations
from qlab.formats.activations import Activations
from qlab.methods import llm_int8, w8a8

from .style import BLUE, GRAY, GREEN, INK, ORANGE, PINK, RED, SKY, Figure, new_figure, styled

PER_TOKEN, PER_TENSOR = Activations(), Activations(granularity="tensor")


@styled
def integer_product(x: torch.Tensor, w: torch.Tensor) -> Figure:
    """A product X Wᵀ as codes, int32 sums and scales, for matrices that are small enough to read.

    Args:
        x: (tokens, in), w: (rows, in).
    """
    (qx, sx), (qw, sw) = activations.quantize(x, PER_TOKEN), activations.quantize(w, PER_TOKEN)
    sums = w8a8.int8_matmul(qx, qw)  # (tokens, rows)
    y = sums * sx * sw.t()
    widths = (x.shape[1] + 1.3, x.shape[1] + 1.3, len(w) + 0.8, len(w) + 1.2)
    figure, axes = new_figure(8.6, 0.42 * max(len(x), len(w)) + 1.15, columns=4, width_ratios=widths)
    _cells(axes[0], qx.tolist(), "codes of X, int8", [f"times {s:.3g}" for s in sx.flatten().tolist()])
    _cells(axes[1], qw.tolist(), "codes of W, int8", [f"times {s:.3g}" for s in sw.flatten().tolist()])
    _cells(axes[2], sums.tolist(), "their sums, int32")
    _cells(axes[3], [[f"{v:.5g}" for v in row] for row in y.tolist()], "times both scales")
    for axis, down, across in zip(
        axes, ("token", "row of W", "token", "token"), ("in", "in", "out", "out"), strict=True
    ):
        axis.set_ylabel(down)
        axis.set_xlabel({"in": "input channel", "out": "row of W"}[across])
    figure.alt = (
        f"Codes of X {qx.tolist()} and of W {qw.tolist()}, a scale beside every row; their integer sums are "
        f"{sums.tolist()}, and times both scales {[[float(f'{v:.5g}') for v in row] for row in y.tolist()]}."
    )
    return figure


@styled
def decomposition(x: torch.Tensor, threshold: float = 6.0) -> Figure:
    """A small X (tokens, in), split into the columns that reach the threshold and the int8 codes of the rest."""
    outliers = llm_int8.outlier_columns(x, threshold)  # (in,)
    rest = x.masked_fill(outliers, 0)
    codes, scales = activations.quantize(rest, PER_TOKEN)
    marked = set(outliers.nonzero().flatten().tolist())
    split = [["" if j not in marked else f"{v:g}" for j, v in enumerate(row)] for row in x.tolist()]
    left = [["" if j in marked else str(v) for j, v in enumerate(row)] for row in codes.tolist()]
    figure, axes = new_figure(8.4, 0.42 * len(x) + 1.35, columns=3, width_ratios=(1, 1, 1.4))
    _cells(axes[0], [[f"{v:g}" for v in row] for row in x.tolist()], "X", marked=marked)
    _cells(axes[1], split, "outlier columns: 16 bits", marked=marked)
    names = [f"times {s:.3g}" for s in scales.flatten().tolist()]
    shown = [[float(f"{v:.4g}") for v in row] for row in x.tolist()]
    _cells(axes[2], left, "the rest: int8 codes and scales", names, marked=marked)
    for axis in axes:
        ticks = [f"{j}\noutlier" if j in marked else str(j) for j in range(x.shape[1])]
        axis.set_xticks(np.arange(x.shape[1]) + 0.5, ticks)
        axis.set_xlabel("input channel")
    axes[0].set_ylabel("token")
    figure.alt = (
        f"X {shown} at a threshold of {threshold:g}: columns {sorted(marked)} stay in 16 bits for every token; "
        f"the rest becomes the codes {codes.tolist()} with scales {[float(f'{s:.3g}') for s in scales.flatten()]}."
    )
    return figure


@styled
def channel_magnitudes(largest: Mapping[str, torch.Tensor], threshold: float = 6.0, title: str = "") -> Figure:
    """The largest |x| of every input channel, a panel for each entry of {label: (in,)}, on one logarithmic scale."""
    figure, axes = new_figure(6.8, 1.5 * len(largest) + 0.7, rows=len(largest), sharex=True, sharey=True, squeeze=False)
    told = []
    for axis, (label, values) in zip(axes[:, 0], largest.items(), strict=True):
        v = values.float()
        above = (v >= threshold).nonzero().flatten().tolist()
        channels = np.arange(len(v))
        axis.vlines(channels, v.min() / 2, v, color=BLUE, linewidth=0.8)
        axis.plot(channels[above], v[above], "D", color=ORANGE, markersize=6, label="outlier channel")
        for channel in above[:4]:
            axis.annotate(
                f"channel {channel}: {v[channel]:.0f}", (channel, v[channel]), (6, -4), "data", "offset points"
            )
        axis.axhline(threshold, color=RED, linewidth=1, linestyle="--", label=f"threshold {threshold:g}")
        axis.set_yscale("log")
        axis.set_ylabel("largest |x|")
        axis.set_title(f"{label}: {len(above)} of {len(v)} channels reach {threshold:g}")
        told.append(
            f"{label}: largest {float(v.max()):.3g}, median {float(v.median()):.2g}, "
            f"{len(above)} of {len(v)} channels reach the threshold"
        )
    axes[-1, 0].set_xlabel("input channel")
    figure.legend(*axes[-1, 0].get_legend_handles_labels(), loc="outside lower right", ncols=2)
    if title:
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.alt = f"Largest magnitude of every input channel. {'; '.join(told)} {threshold:g}."
    return figure


@styled
def codes_of_token(codes: Mapping[str, torch.Tensor]) -> Figure:
    """The int8 codes that one token gets, channel by channel, a panel for each entry of {label: (in,)}."""
    figure, axes = new_figure(7.4, 2.8, columns=len(codes), sharey=True, squeeze=False)
    told = []
    for axis, (label, values) in zip(axes[0], codes.items(), strict=True):
        q = values.int().numpy()
        different, zeros = len(np.unique(q)), float((q == 0).mean())
        axis.vlines(np.arange(len(q)), 0, q, color=BLUE, linewidth=0.9)
        axis.axhline(0, color=INK, linewidth=0.8)
        axis.set_ylim(-135, 135)
        axis.set_yticks([-127, -64, 0, 64, 127])
        axis.set_xlabel("input channel")
        axis.set_title(f"{label}:\n{different} different codes, {zeros:.0%} are 0")
        told.append(f"{label}: {different} different codes between {q.min()} and {q.max()}, {zeros:.0%} of them 0")
    axes[0, 0].set_ylabel("int8 code")
    figure.alt = f"The codes of one token by channel. {'; '.join(told)}."
    return figure


@styled
def damage_with_and_without(table: Mapping[str, Mapping[str, tuple[float, float]]], title: str = "") -> Figure:
    """Mean KL on a logarithmic axis: {model: {method: (value, stderr)}}, one lane for each method."""
    methods = list(next(iter(table.values())))
    figure, axis = new_figure(7.4, 0.42 * len(methods) + 1.5)
    shapes = zip(table.items(), (GRAY, ORANGE, GREEN), "osD", strict=False)
    for i, ((model, drift), color, marker) in enumerate(shapes):
        lanes = np.arange(len(methods)) + 0.16 * (i - (len(table) - 1) / 2)
        values, errors = zip(*(drift[m] for m in methods), strict=True)
        axis.errorbar(
            values, lanes, xerr=errors, fmt=marker, color=color, markeredgecolor=INK, markersize=8, label=model
        )
    axis.set_xscale("log")
    axis.set_yticks(range(len(methods)), methods)
    axis.set_ylim(len(methods) - 0.5, -0.5)
    axis.grid(axis="x", color=GRAY, alpha=0.3)
    axis.set_xlabel("mean KL to the 16-bit model (nats per token, logarithmic)")
    axis.set_title(title or "Damage with and without outlier channels")
    figure.legend(loc="outside lower right", ncols=len(table))
    figure.alt = "Mean KL. " + " ".join(
        f"{model}: {', '.join(f'{m} {drift[m][0]:.1g}' for m in methods)}." for model, drift in table.items()
    )
    return figure


@styled
def threshold_sweep(
    thresholds: Sequence[float], drift: Sequence[float], share: Sequence[float], lines: Mapping[str, float]
) -> Figure:
    """What a threshold costs and buys.

    Args:
        drift: mean KL in nats, share: columns that stay in 16 bits (0 to 1), one for each threshold.
        lines: other methods to compare with, {name: mean KL}.
    """
    figure, (left, right) = new_figure(7.8, 3.2, columns=2)
    left.loglog(thresholds, drift, "o-", color=BLUE, label="LLM.int8")
    for (name, value), style, color in zip(lines.items(), ("--", ":", "-."), (GREEN, RED, GRAY), strict=False):
        left.axhline(value, color=color, linestyle=style, linewidth=1.6, label=name)
    left.set_ylabel("mean KL (nats per token)")
    left.set_title("damage")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=2)
    right.semilogx(thresholds, 100 * np.asarray(share), "s-", color=ORANGE)
    right.set_ylim(0, 100)
    right.set_ylabel("columns in 16 bits (%)")
    right.set_title("cost")
    for axis in (left, right):
        axis.set_xlabel("threshold (size of |x|)")
        axis.set_xticks(thresholds, [f"{t:g}" for t in thresholds])
        axis.minorticks_off()
    told = [f"{t:g}: KL {k:.1g}, {s:.0%} of the columns" for t, k, s in zip(thresholds, drift, share, strict=True)]
    compared = ", ".join(f"{name} {value:.1g}" for name, value in lines.items())
    figure.alt = f"By threshold: {'; '.join(told)}. For comparison: {compared}."
    return figure


@styled
def threshold_and_factor(
    w: torch.Tensor, x: torch.Tensor, threshold: float = 6.0, factor: float = 64, channels: Collection[int] = (7, 133)
) -> Figure:
    """One layer whose chosen input channels are multiplied by `factor`: who is an outlier, and what each method loses.

    The weights of these channels are divided by the factor, so the exact output stays. Of LLM.int8 there are two
    versions: that of the library and of bitsandbytes, and the paper's equation 8 to the letter, which keeps the weights
    of outlier columns in 16 bits and takes the scale of a token from the other columns alone.

    Args:
        w: (out, in), x: (tokens, in), float32.
        threshold: columns of x that reach it stay in floating point.
    """
    factors = torch.ones(x.shape[1])
    factors[list(channels)] = factor
    x, w = x * factors, w / factors
    exact, weight = x @ w.t(), llm_int8.quantize(w)
    outliers = llm_int8.outlier_columns(x, threshold)  # (in,)
    rest = w8a8.linear(x.masked_fill(outliers, 0), weight)  # scales without the outlier columns
    outputs = {
        "weights only": x @ weight.dequantize().t(),
        "per tensor": w8a8.linear(x, weight, scheme=PER_TENSOR),
        "per token": w8a8.linear(x, weight),
        "LLM.int8": llm_int8.linear(x, weight, threshold=threshold),
        "equation 8 literally": rest + x[:, outliers] @ w[:, outliers].t(),
    }
    errors = {name: 100 * float((y - exact).norm() / exact.norm()) for name, y in outputs.items()}

    figure, (left, right) = new_figure(8.4, 3.3, columns=2)
    largest, above = x.abs().amax(0), outliers.nonzero().flatten().tolist()
    left.vlines(np.arange(len(largest)), 0.5, largest, color=BLUE, linewidth=0.8, label="channel")
    left.plot(above, largest[above], "D", color=ORANGE, markersize=5, label="outlier: its column stays in 16 bits")
    left.axhline(threshold, color=RED, linewidth=1.2, linestyle="--", label=f"threshold {threshold:g}")
    left.set_yscale("log")
    left.set_ylim(0.5, 1200)
    left.set_xlabel("input channel")
    left.set_ylabel("largest |x|")
    left.set_title(f"{len(above)} of {len(largest)} columns in 16 bits")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    lanes = np.arange(len(errors))
    right.barh(lanes, list(errors.values()), 0.7, color=(GREEN, RED, PINK, BLUE, SKY))
    for lane, error in zip(lanes, errors.values(), strict=True):
        right.text(max(error, 0.3) * 1.08, lane, f"{error:.2g} %", va="center")
    right.set_yticks(lanes, ["weights only", "per tensor", "per token", "LLM.int8", "equation 8,\nliterally"])
    right.set_ylim(len(errors) - 0.5, -0.5)
    right.set_xscale("log")
    right.set_xlim(0.3, 300)
    right.set_xlabel("error of the outputs (%, logarithmic)")
    right.set_title(f"two channels times {factor:g}" if len(channels) == 2 else f"times {factor:g}")
    told = ", ".join(f"{name} {error:.2g} %" for name, error in errors.items())
    figure.alt = (
        f"{len(channels)} channels multiplied by {factor:g}, threshold {threshold:g}: {len(above)} of {len(largest)} "
        f"columns stay in 16 bits. Error of the outputs: {told}."
    )
    return figure


def _cells(
    axis: Any, rows: Sequence[Sequence[object]], title: str, names: Sequence[str] = (), marked: Collection[int] = ()
) -> None:
    """A table of numbers, the marked columns tinted, with a name to the right of every row."""
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            face = ORANGE if j in marked else "white"
            axis.add_patch(Rectangle((j, i), 1, 1, facecolor=face, alpha=0.35, edgecolor="none"))
            axis.add_patch(Rectangle((j, i), 1, 1, facecolor="none", edgecolor=INK, linewidth=0.8))
            axis.text(j + 0.5, i + 0.5, str(value), ha="center", va="center")
    for i, name in enumerate(names):
        axis.text(len(rows[0]) + 0.12, i + 0.5, name, va="center", fontsize=9)
    axis.set_xlim(-0.05, len(rows[0]) + (1.25 if names else 0.05))
    axis.set_ylim(len(rows) + 0.05, -0.05)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.set_title(title, fontsize=10)
    for spine in axis.spines.values():
        spine.set_visible(False)
    axis.tick_params(length=0)
