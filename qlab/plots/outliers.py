"""Pictures of 8-bit activations: the integer product, outlier channels, the decomposition, its threshold."""

from __future__ import annotations

import math
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
def channel_magnitudes(largest: Mapping[str, torch.Tensor], threshold: float = 6.0, tokens: int = 0) -> Figure:
    """The largest |x| of every input channel, a panel for each entry of {label: (in,)}, on one logarithmic scale.

    Args:
        tokens: how many were looked at, for the axis; 0 where it does not matter.
    """
    figure, axes = new_figure(6.8, 1.5 * len(largest) + 0.4, rows=len(largest), sharex=True, sharey=True, squeeze=False)
    told = []
    for axis, (label, values) in zip(axes[:, 0], largest.items(), strict=True):
        v = values.float()
        above = (v >= threshold).nonzero().flatten().tolist()
        channels = np.arange(len(v))
        axis.vlines(channels, v.min() / 2, v, color=BLUE, linewidth=0.8)
        axis.plot(channels[above], v[above], "D", color=ORANGE, markersize=6)
        for channel in above[:4]:
            axis.annotate(
                f"channel {channel}: {v[channel]:.0f}", (channel, v[channel]), (6, -4), "data", "offset points"
            )
        axis.axhline(threshold, color=RED, linewidth=1, linestyle="--")
        axis.set_yscale("log")
        axis.set_ylabel("largest |x|")
        axis.set_title(f"{label}: {len(above)} of {len(v)} channels reach {threshold:g}")
        told.append(
            f"{label}: largest {float(v.max()):.3g}, median {float(v.median()):.2g}, "
            f"{len(above)} of {len(v)} channels reach the threshold"
        )
    axes[-1, 0].set_xlabel("input channel" + (f" ({tokens} tokens)" if tokens else ""))
    figure.alt = f"Largest magnitude of every input channel. {'; '.join(told)} {threshold:g}."
    return figure


@styled
def codes_of_token(codes: Mapping[str, torch.Tensor]) -> Figure:
    """The int8 codes that one token gets, channel by channel, a panel for each entry of {label: (in,)}.

    The channel with the largest code is marked. Where all others have small codes, the panel ends at the largest of
    these, and the marked channel stands at its edge.
    """
    figure, axes = new_figure(7.4, 2.8, columns=len(codes), squeeze=False)
    told = []
    for axis, (label, values) in zip(axes[0], codes.items(), strict=True):
        q = values.int().numpy()
        channels, top = np.arange(len(q)), int(np.abs(q).argmax())
        different, zeros = len(np.unique(q)), float((q == 0).mean())
        rest = int(np.abs(np.delete(q, top)).max(initial=1))
        near = 4 * rest <= abs(q[top])
        end = 1.25 * rest if near else 142.0
        if near:
            axis.plot(np.delete(channels, top), np.delete(q, top), ".", color=BLUE, markersize=4)
        else:
            axis.vlines(channels, 0, q, color=BLUE, linewidth=0.9)
        axis.axhline(0, color=INK, linewidth=0.8)
        place = float(np.clip(q[top], -0.9 * end, 0.9 * end))
        axis.plot(top, place, "v" if near and place < 0 else "^" if near else "D", color=ORANGE, markersize=7)
        left = top > len(q) / 2
        axis.annotate(
            f"channel {top}: {q[top]}", (top, place), (-8 if left else 8, 1), "data", "offset points",
            ha="right" if left else "left", va="center", fontsize=9,
        )  # fmt: skip
        axis.set_ylim(-end, end)
        axis.set_yticks(sorted({-rest, -rest // 2, 0, rest // 2, rest}) if near else [-127, -64, 0, 64, 127])
        axis.set_xlabel("input channel")
        axis.set_title(f"{label}:\n{different} different codes, {zeros:.0%} are 0")
        told.append(
            f"{label}: {different} different codes between {q.min()} and {q.max()}, {zeros:.0%} of them 0, the largest "
            f"in channel {top}, the next largest {rest}"
        )
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
        f"{model}: {', '.join(f'{m} {_short(drift[m][0])}' for m in methods)}." for model, drift in table.items()
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
    figure, axis = new_figure(5.6, 2.7)
    axis.loglog(thresholds, drift, "o-", color=BLUE)
    for threshold, value in zip(thresholds, drift, strict=True):
        axis.annotate(_short(value), (threshold, value), (5, -12), "data", "offset points", fontsize=9)
    for (name, value), style, color in zip(lines.items(), ("--", ":", "-."), (GREEN, RED, GRAY), strict=False):
        axis.axhline(value, color=color, linestyle=style, linewidth=1.6)
        low = value < drift[-1] / 2  # then there is room below the right end of the curve
        axis.annotate(f"{name} {_short(value)}", (thresholds[-1 if low else 0], value), (0, 4), "data", "offset points",
                      ha="right" if low else "left", fontsize=9)  # fmt: skip
    axis.set_ylim(0.5 * min(drift), 2.2 * max((*drift, *lines.values())))
    axis.set_ylabel("mean KL (nats per token)")
    axis.set_title("LLM.int8")
    axis.set_xlabel("threshold, and columns in 16 bits")
    axis.set_xticks(thresholds, [f"{t:g}\n{s:.0%}" for t, s in zip(thresholds, share, strict=True)])
    axis.minorticks_off()
    told = [f"{t:g}: KL {_short(k)}, {s:.0%} of the columns" for t, k, s in zip(thresholds, drift, share, strict=True)]
    compared = ", ".join(f"{name} {_short(value)}" for name, value in lines.items())
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

    figure, (left, right) = new_figure(7.6, 2.8, columns=2)
    largest, above = x.abs().amax(0), outliers.nonzero().flatten().tolist()
    left.vlines(np.arange(len(largest)), 0.5, largest, color=BLUE, linewidth=0.8)
    left.plot(above, largest[above], "D", color=ORANGE, markersize=5)
    left.axhline(threshold, color=RED, linewidth=1.2, linestyle="--")
    left.annotate(f"threshold {threshold:g}", (0.98, threshold), (0, 3), left.get_yaxis_transform(), "offset points",
                  ha="right", fontsize=9)  # fmt: skip
    left.set_yscale("log")
    left.set_ylim(0.5, 1200)
    left.set_xlabel("input channel")
    left.set_ylabel(f"largest |x|, {len(x)} tokens")
    left.set_title(f"{len(above)} of {len(largest)} columns in 16 bits")
    lanes = np.arange(len(errors))
    for lane, error, color in zip(lanes, errors.values(), (GREEN, RED, PINK, BLUE, SKY), strict=True):
        place = max(error, 0.3)  # what is smaller is marked by an arrow at the edge
        right.plot(place, lane, "o" if error >= 0.3 else "<", color=color, markeredgecolor=INK, markersize=9)
        right.text(place * 1.35, lane, f"{error:.2g} %", va="center")
    right.grid(axis="x", color=GRAY, alpha=0.3)
    right.set_yticks(lanes, ["weights only", "per tensor", "per token", "LLM.int8", "equation 8,\nliterally"])
    right.set_ylim(len(errors) - 0.5, -0.5)
    right.set_xscale("log")
    right.set_xlim(0.25, 300)
    right.set_xlabel("error of the outputs (%)")
    right.set_title(f"two channels times {factor:g}" if len(channels) == 2 else f"times {factor:g}")
    told = ", ".join(f"{name} {error:.2g} %" for name, error in errors.items())
    figure.alt = (
        f"{len(channels)} channels multiplied by {factor:g}, threshold {threshold:g}: {len(above)} of {len(largest)} "
        f"columns stay in 16 bits. Error of the outputs: {told}."
    )
    return figure


def _short(value: float) -> str:
    """One digit, two where the first is 1 or 2: the next one changes from processor to processor."""
    if value <= 0:
        return f"{value:g}"
    places = -math.floor(math.log10(float(f"{value:.1g}")))
    return f"{value:.{max(places + (value * 10**places < 3), 0)}f}"


def _cells(
    axis: Any, rows: Sequence[Sequence[object]], title: str, names: Sequence[str] = (), marked: Collection[int] = ()
) -> None:
    """A table of numbers, the marked columns tinted, with a name to the right of every row."""
    for i, row in enumerate(rows):
        for j, value in enumerate(row):
            face = ORANGE if j in marked else "white"
            axis.add_patch(Rectangle((j, i), 1, 1, facecolor=face, alpha=0.35, edgecolor="none"))
            axis.add_patch(Rectangle((j, i), 1, 1, facecolor="none", edgecolor=INK, linewidth=0.8))
            axis.text(j + 0.5, i + 0.5, str(value), ha="center", va="center", fontsize=9)
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
