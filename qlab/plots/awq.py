"""Pictures of AWQ and HQQ: a grid for every column, the loss along the ratio, methods compared, the shrinkage."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from qlab.formats import affine
from qlab.methods import awq, hqq

from .style import BLUE, GRAY, GREEN, INK, ORANGE, PALETTE, RED, Figure, new_figure, styled


@styled
def column_grids(weights: Sequence[float], inputs: Sequence[float], factors: Sequence[float], bits: int = 3) -> Figure:
    """One row of a layer, a lane for each input channel, at several factors for the channel with the largest input.

    Multiplying a weight by s before rounding, and dividing after, gives its column a grid that is s times finer,
    until s times the weight is the largest of the row: then the grids of all other columns become coarser. Arrows at
    the ends of a lane stand for levels beyond them.

    Args:
        weights: one row, shape (n,).
        inputs: mean |x| of the n input channels.
        factors: s of that channel, one panel for each; the others keep 1.
        bits: 2 to 8, symmetric.
    """
    w, x = torch.tensor(weights, dtype=torch.float64), torch.tensor(inputs, dtype=torch.float64)
    salient = int(x.argmax())
    qmax = 2 ** (bits - 1) - 1
    limit = 1.18 * float(w.abs().max())
    figure, axes = new_figure(8.6, 3.4, columns=len(factors), sharey=True, squeeze=False)
    told = []
    for axis, factor in zip(axes[0], factors, strict=True):
        scales = torch.ones_like(w)
        scales[salient] = factor
        step = float((w * scales).abs().max()) / qmax
        rounded = torch.round(w * scales / step) * step / scales
        errors = ((rounded - w) * x).tolist()
        loss = float(np.square(errors).sum())
        for lane, (scale, before, after) in enumerate(zip(scales.tolist(), w.tolist(), rounded.tolist(), strict=True)):
            levels = np.arange(-qmax, qmax + 1) * step / scale
            color = ORANGE if lane == salient else GRAY
            axis.hlines(lane, -limit, limit, color=GRAY, linewidth=0.5)
            axis.vlines(levels[np.abs(levels) <= limit], lane - 0.2, lane + 0.2, color=color, linewidth=1.2)
            if levels[-1] > limit:
                axis.plot(-limit, lane, "<", color=color, markersize=7, clip_on=False, label="more levels beyond")
                axis.plot(limit, lane, ">", color=color, markersize=7, clip_on=False)
            axis.plot(before, lane + 0.3, "^", color=BLUE, markersize=7, label="weight" if lane == 0 else None)
            axis.plot(after, lane, "s", color=RED, markersize=5, label="after rounding" if lane == 0 else None)
        axis.set_title(f"s = {factor:g}: loss {loss:.2f}")
        axis.set_xlim(-limit, limit)
        axis.set_ylim(len(w) - 0.45, -0.75)
        axis.set_xlabel("value of the weight")
        axis.spines["left"].set_visible(False)
        told.append(f"with s = {factor:g} the loss is {loss:.2f}")
    axes[0, 0].set_yticks(range(len(w)), [f"channel {i}\nmean |x| = {v:g}" for i, v in enumerate(inputs)])
    for axis in axes[0]:
        axis.tick_params(axis="y", length=0)
    legend = {
        label: handle for axis in axes[0] for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(legend.values(), legend.keys(), loc="outside lower right", ncols=len(legend))
    figure.alt = (
        f"The levels that {len(w)} weights can take, a lane for each input channel; channel {salient} has the largest "
        f"input and is multiplied by s before rounding: {', '.join(told)}."
    )
    return figure


@styled
def loss_by_ratio(losses: Mapping[str, Sequence[float]]) -> Figure:
    """Loss against the ratio, relative to ratio 0, one line per layer: {name: the loss of ratios 0, 1/n, ...}."""
    figure, axis = new_figure(6.8, 3.4)
    told, lowest = [], 1.0
    for (name, line), color, marker in zip(losses.items(), PALETTE, "osD^v", strict=False):
        relative = np.asarray(line, dtype=float) / float(line[0])
        ratios = np.arange(len(relative)) / len(relative)
        best = int(relative.argmin())
        lowest = min(lowest, relative[best])
        axis.plot(ratios, relative, color=color, linewidth=1.4)
        label = f"{name}: best at {ratios[best]:.2f}"
        axis.plot(ratios[best], relative[best], marker, color=color, markersize=8, markeredgecolor=INK, label=label)
        told.append(f"{name} is best at {ratios[best]:.2f} with {relative[best]:.2f}")
    axis.axhline(1, color=GRAY, linewidth=0.8, linestyle="--")
    axis.set_ylim(lowest - 0.03, min(axis.get_ylim()[1], 1.5))  # what lies above is of no use to anybody
    axis.set_xlabel("ratio (0: round to nearest)")
    axis.set_ylabel("loss / loss at ratio 0")
    axis.set_title("How far to scale is searched, layer by layer")
    axis.legend(loc="upper left")
    figure.alt = "Loss relative to round-to-nearest against the ratio: " + "; ".join(told) + "."
    return figure


@styled
def drift_by_method(table: Mapping[str, Mapping[str, Any]], title: str = "") -> Figure:
    """Mean KL by setting and method, as bars of ± 1 standard error: {setting: {method: (value, stderr)}}."""
    settings = list(table)
    methods = list(next(iter(table.values())))
    figure, axis = new_figure(7.6, 3.5)
    width = 0.8 / len(methods)
    for i, (method, color) in enumerate(zip(methods, (GRAY, *PALETTE), strict=False)):
        x = np.arange(len(settings)) + (i - (len(methods) - 1) / 2) * width
        values, errors = zip(*(table[s][method] for s in settings), strict=True)
        axis.bar(x, values, width * 0.9, yerr=errors, color=color, label=method, error_kw={"linewidth": 0.9})
    axis.set_xticks(np.arange(len(settings)), settings)
    axis.set_ylabel("mean KL to the model as it came (nats)")
    axis.set_title(title or "What each method leaves of the damage (lines: ± 1 standard error)")
    axis.legend(loc="upper right", ncols=2)
    best = {s: min(methods, key=lambda m, s=s: table[s][m][0]) for s in settings}  # type: ignore[misc]
    figure.alt = "Mean KL by method. " + " ".join(
        f"{s}: lowest is {best[s]} with {table[s][best[s]][0]:.2g}, {methods[0]} has {table[s][methods[0]][0]:.2g}."
        for s in settings
    )
    return figure


@styled
def shrinkage(beta: float = 10.0, norms: Sequence[float] = (1.0, 0.7, 0.3)) -> Figure:
    """What HQQ leaves of an error, in steps of the grid, for several p."""
    x = torch.linspace(-0.6, 0.6, 601)
    figure, axis = new_figure(6.4, 3.3)
    axis.plot(x, x, color=GRAY, linewidth=0.8, linestyle="--", label="no shrinking")
    told = []
    for p, color in zip(norms, (BLUE, ORANGE, GREEN), strict=False):
        axis.plot(x, hqq.shrink(x, beta, p), color=color, label=f"p = {p:g}")
        threshold = beta ** (-1 / (2 - p))
        told.append(f"p = {p:g} removes errors below {threshold:.2f} steps")
    axis.set_xlabel("error of a weight (steps of the grid)")
    axis.set_ylabel("what is kept as an outlier (steps)")
    axis.set_title(f"The shrinkage operator, β = {beta:g}")
    axis.legend(loc="upper left")
    figure.alt = "The shrinkage operator: " + ", ".join(told) + "; large errors pass nearly whole."
    return figure


def toy_layer(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (64, 64) and inputs (512, 64) of a layer in which two channels matter more: their inputs are 4 times as
    large as the rest."""
    generator = torch.Generator().manual_seed(seed)
    w, x = torch.randn(64, 64, generator=generator) / 8, torch.randn(512, 64, generator=generator)
    x[:, :2] *= 4
    return w, x


@styled
def ratio_and_grid(
    w: torch.Tensor, x: torch.Tensor, ratio: float = 0.5, bits: int = 3, outlier: int = 8, channels: int = 2
) -> Figure:
    """A toy layer with a few large input channels: its loss along the ratio, and the grid that each column meets.

    The first `channels` inputs are multiplied by `outlier` and their weights divided by it, so the layer computes
    what it did before.

    Args:
        w: (out, in), x: (tokens, in).
        ratio: the one to look at, 0 to 0.95.
        bits: 2 to 8, symmetric, one scale for each row.
        outlier: factor of the large inputs, 1 or more.
        channels: how many of them.
    """
    factors = torch.ones(w.shape[1])
    factors[:channels] = outlier
    w, x = w / factors, x * factors
    mean_abs, hessian = x.abs().mean(0), 2 * x.T @ x / len(x)
    found = awq.search_scales([w], mean_abs, hessian, bits=bits, group_size="channel")
    scales = mean_abs**ratio / (mean_abs.max() * mean_abs.min()).sqrt() ** ratio
    steps = affine.quantize(w * scales, bits, "channel").scales.float().mean() / scales  # (in,)
    plain = affine.quantize(w, bits, "channel").scales.float().mean() * torch.ones_like(scales)
    change = affine.rounded(w * scales, bits, "channel") / scales - w
    here = float(((change @ hessian) * change).sum() / found.losses[0])

    best = float(found.losses.min() / found.losses[0])
    figure, (left, right) = new_figure(8.6, 3.6, columns=2)
    ratios = np.arange(len(found.losses)) / len(found.losses)
    left.plot(ratios, found.losses / found.losses[0], color=BLUE, marker="o", markersize=3, label="all ratios")
    left.plot(ratio, here, "D", color=ORANGE, markersize=8, label=f"ratio {ratio:.2f}: loss {here:.2f}")
    left.plot(
        found.ratio, best, "o", color=INK, markersize=11, mfc="none", label=f"best {found.ratio:.2f}: loss {best:.2f}"
    )
    left.axhline(1, color=GRAY, linewidth=0.8, linestyle="--")
    left.set_ylim(0, max(1.3, min(3.0, 1.1 * here)))
    left.set_xlabel("ratio (0: round to nearest)")
    left.set_ylabel("loss / loss at ratio 0")
    left.set_title(f"{channels} inputs times {outlier}")
    order = torch.arange(len(scales))
    right.semilogy(order, plain, color=GRAY, linestyle="--", label="step before scaling")
    right.semilogy(order, steps, "D", color=ORANGE, markersize=5, mfc="none", label="step after scaling")
    right.semilogy(order, w.abs().mean(0), ".", color=BLUE, markersize=4, label="mean |w| of the column")
    right.set_xlabel(f"column (inputs of the first {channels} are large)")
    right.set_ylabel("step and mean |w|")
    right.set_ylim(min(2e-4, 0.5 * float(steps.min())), 1)
    right.set_title(f"the grid of every column, {bits} bits")
    for axis in (left, right):
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    figure.alt = (
        f"A toy layer, {channels} of its inputs multiplied by {outlier}, at {bits} bits. At ratio "
        f"{ratio:.2f} the loss is {here:.2f} of round-to-nearest's; the best ratio is {found.ratio:.2f} with "
        f"{best:.2f}. The large inputs' columns meet a step of "
        f"{float(steps[:channels].mean()):.2g}, the others {float(steps[channels:].mean()):.2g}."
    )
    return figure
