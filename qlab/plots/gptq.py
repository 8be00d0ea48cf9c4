"""Pictures of GPTQ: two weights on their error ellipse, the feedback from column to column, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from .style import BLUE, GRAY, GREEN, INK, ORANGE, PALETTE, RED, Figure, new_figure, styled

WEIGHTS = (1.4, 2.3)  # of the example that lesson 06 works by hand
LARGEST = 3.0  # of the row that they belong to: at 3 bits the grid is the whole numbers


def correlation_and_bits(correlation: float = 0.8, bits: int = 3, damping: float = 0.0) -> Figure:
    """`compensation` of the two weights of the lesson, for inputs of equal size and a symmetric b-bit grid.

    Args:
        correlation: of the two inputs, between -1 and 1.
        bits: 2 to 8; the grid reaches from -3 to 3.
        damping: as in `compensation`.
    """
    qmax = 2 ** (bits - 1) - 1
    hessian = torch.tensor([[1.0, correlation], [correlation, 1.0]], dtype=torch.float64)
    return compensation(WEIGHTS, hessian, step=LARGEST / qmax, qmax=qmax, damping=damping)


@styled
def compensation(
    w: Sequence[float], hessian: torch.Tensor, step: float = 1.0, qmax: int = 7, damping: float = 0.0
) -> Figure:
    """Two weights of a row in their plane: lines of equal loss, round to nearest, and GPTQ's two moves.

    Args:
        w: two weights.
        hessian: (2, 2), positive definite.
        step: distance between two grid points.
        qmax: the largest code; codes run from -qmax to qmax.
        damping: a share of the mean of the diagonal that is added to it before the feedback is computed.
    """
    exact, h = np.array(w, dtype=float), hessian.double().numpy()
    codes = _two_columns(exact, h, step, qmax, damping)
    nearest = np.clip(np.round(exact / step), -qmax, qmax) * step
    side = np.arange(-qmax, qmax + 1) * step
    grid = np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2)
    best = grid[int(np.argmin([_loss(point - exact, h) for point in grid]))]
    first, last = codes  # after one move, after both

    figure, axis = new_figure(6.2, 3.2)
    reach = max(1.6 * step, 1.25 * float(np.abs(np.stack([first, last, nearest, best]) - exact).max()))
    x = np.linspace(exact[0] - 1.25 * reach, exact[0] + 1.25 * reach, 201)
    y = np.linspace(exact[1] - reach, exact[1] + reach, 201)
    across, up = np.meshgrid(x - exact[0], y - exact[1])
    surface = (h[0, 0] * across**2 + 2 * h[0, 1] * across * up + h[1, 1] * up**2) / 2
    losses = {"nearest": _loss(nearest - exact, h), "gptq": _loss(last - exact, h), "best": _loss(best - exact, h)}
    levels = sorted({round(value, 9) for value in losses.values() if value > 1e-9})
    if levels:
        axis.contour(x, y, surface, levels=levels, colors=GRAY, linewidths=0.9, linestyles="--")
    inside = grid[(np.abs(grid - exact) <= [1.25 * reach, reach]).all(axis=1)]
    axis.plot(*inside.T, "+", color=INK, markersize=9, label="grid point", linestyle="none")
    axis.plot(*nearest, "s", color=ORANGE, markersize=11, label=f"round to nearest, loss {losses['nearest']:.3f}")
    axis.plot(*best, "o", color=GREEN, markersize=15, fillstyle="none", label=f"best of all, loss {losses['best']:.3f}")
    for start, end, color in ((exact, first, BLUE), (first, last, RED)):
        if not np.allclose(start, end):
            axis.annotate("", end, start, arrowprops={"arrowstyle": "->", "color": color, "linewidth": 1.6})
    axis.plot(*last, "D", color=BLUE, markersize=7, label=f"GPTQ, loss {losses['gptq']:.3f}")
    axis.plot(*exact, "o", color=INK, markersize=6, label="the weights")
    axis.plot([], [], color=BLUE, label="1st rounded, 2nd follows")
    axis.plot([], [], color=RED, label="2nd rounded")
    axis.plot([], [], color=GRAY, linewidth=0.9, linestyle="--", label="points of equal loss")
    axis.set_aspect("equal", anchor="W")
    axis.set_xlim(x[0], x[-1])
    axis.set_ylim(y[0], y[-1])
    axis.set_xlabel("first weight")
    axis.set_ylabel("second weight")
    axis.set_title(f"H = [{h[0, 0]:.3g} {h[0, 1]:.3g}; {h[1, 0]:.3g} {h[1, 1]:.3g}], step {step:.3g}")
    axis.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), labelspacing=0.9)
    figure.alt = (
        f"The plane of two weights with dashed ellipses of equal loss around ({exact[0]:.3g}, {exact[1]:.3g}). "
        f"Round to nearest goes to ({nearest[0]:.3g}, {nearest[1]:.3g}), loss {losses['nearest']:.3f}; GPTQ moves to "
        f"({first[0]:.3g}, {first[1]:.3g}) and then to ({last[0]:.3g}, {last[1]:.3g}), loss {losses['gptq']:.3f}; "
        f"the best grid point is ({best[0]:.3g}, {best[1]:.3g}), loss {losses['best']:.3f}."
    )
    return figure


@styled
def feedback(history: Sequence[Sequence[float]]) -> Figure:
    """The weights of one row as they stand at the start and after each column has been rounded.

    Args:
        history: (columns + 1, columns); in row t the first t weights are grid points.
    """
    values = np.array(history, dtype=float)
    steps, columns = values.shape
    change = values - values[0]
    limit = float(np.abs(change).max()) or 1.0
    figure, axis = new_figure(1.5 + 1.15 * columns, 0.9 + 0.5 * steps)
    axis.imshow(change, cmap="PuOr", vmin=-2 * limit, vmax=2 * limit, aspect="auto")  # pale enough for dark text
    for t in range(steps):
        for j in range(columns):
            done = j < t
            text = f"{values[t, j]:.0f}" if done else f"{values[t, j]:.2f}"
            axis.text(j, t, text, ha="center", va="center", fontweight="bold" if done else "normal", color=INK)
            if j == t - 1:
                axis.add_patch(Rectangle((j - 0.46, t - 0.44), 0.92, 0.88, fill=False, edgecolor=INK, linewidth=1.4))
    axis.set_xticks(range(columns), [f"weight {j}" for j in range(columns)])
    axis.set_yticks(range(steps), ["at the start", *(f"after column {j}" for j in range(columns))])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_title("Bold: rounded. Orange: now below its start, purple: above")
    figure.alt = "Weights of one row from step to step. " + " ".join(
        f"After column {t - 1}: {', '.join(f'{v:.2f}' for v in values[t])}." for t in range(1, steps)
    )
    return figure


@styled
def loss_by_tokens(seen: Mapping[int, float], fresh: Mapping[int, float], width: int) -> Figure:
    """GPTQ's output error divided by that of round to nearest, against the number of calibration tokens.

    Args:
        seen: {tokens: ratio} on the calibration tokens themselves.
        fresh: {tokens: ratio} on other tokens.
        width: inputs of the layer, marked on the axis.
    """
    figure, axis = new_figure(6.8, 2.8)
    axis.axvline(width, color=GRAY, linewidth=1, linestyle=":")
    top = axis.get_xaxis_transform()
    axis.text(width, 0.02, f" {width} inputs", transform=top, ha="left", color=INK, fontsize=9)
    axis.plot(list(seen), list(seen.values()), "o-", color=ORANGE, label="on the calibration tokens")
    axis.plot(list(fresh), list(fresh.values()), "s-", color=BLUE, label="on new tokens")
    axis.axhline(1, color=GRAY, linewidth=1, linestyle="--", label="round to nearest")
    axis.set_xscale("log", base=2)
    labeled: list[int] = []
    for n in sorted(fresh, reverse=True):
        labeled += [n] if not labeled or 2 * n <= labeled[-1] else []  # others would overlap
    axis.set_xticks(labeled, [f"{n:,}" for n in labeled])
    axis.minorticks_off()
    axis.set_ylim(0, 1.15 * max(1.0, *fresh.values(), *seen.values()))
    axis.set_xlabel("calibration tokens")
    axis.set_ylabel("output error, RTN = 1")
    axis.set_title("What GPTQ learns from few tokens does not carry over")
    figure.legend(loc="outside lower center", ncols=3)
    ends = min(fresh), max(fresh)
    figure.alt = (
        "Output error against calibration tokens, RTN = 1. "
        + " ".join(f"With {n} tokens: {seen[n]:.2g} on those tokens, {fresh[n]:.2g} on new ones." for n in ends)
        + f" The worst on new tokens is {max(fresh.values()):.2g}."
    )
    return figure


@styled
def kl_by_scheme(table: Mapping[str, Mapping[str, tuple[float, float]]]) -> Figure:
    """Mean KL to the 16-bit model with its standard error: {scheme: {method: (value, standard error)}}."""
    figure, axis = new_figure(6.6, 2.9)
    methods = list(next(iter(table.values())))
    for i, (method, color, marker) in enumerate(zip(methods, PALETTE, "sDo^", strict=False)):
        x = np.arange(len(table)) + (i - (len(methods) - 1) / 2) * 0.18
        value, error = np.array([line[method] for line in table.values()]).T
        axis.errorbar(x, value, yerr=error, fmt=marker, color=color, capsize=3, label=method)
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axis.yaxis.set_minor_locator(NullLocator())
    axis.set_xticks(np.arange(len(table)), list(table))
    axis.set_xlim(-0.5, len(table) - 0.5)
    axis.set_ylabel("mean KL (nats per token)")
    axis.set_title("Distance to the 16-bit model, lower is better; bars are standard errors")
    axis.grid(axis="y", alpha=0.3)
    axis.legend(loc="lower right")
    figure.alt = "Mean KL to the 16-bit model. " + " ".join(
        f"{scheme}: " + ", ".join(f"{method} {line[method][0]:.1g}" for method in methods) + "."
        for scheme, line in table.items()
    )
    return figure


@styled
def right_by_calibration(
    rate: Mapping[str, Mapping[str, float]], stderr: Mapping[str, Mapping[str, float]], title: str
) -> Figure:
    """Answers right on every workload, by the data of the calibration: {calibration: {workload: fraction}}.

    `stderr` has the same shape: the standard error of the paired change, drawn as a bar.
    """
    workloads = list(next(iter(rate.values())))
    figure, axis = new_figure(6.6, 2.8)
    width = 0.8 / len(rate)
    for i, (name, color) in enumerate(zip(rate, (GRAY, BLUE, GREEN, ORANGE), strict=False)):
        x = np.arange(len(workloads)) + (i - (len(rate) - 1) / 2) * width
        heights, errors = (np.array([100 * part[name][w] for w in workloads]) for part in (rate, stderr))
        axis.bar(x, heights, width * 0.92, color=color, label=name, yerr=errors, error_kw={"linewidth": 0.8})
        for at, height, error in zip(x, heights, errors, strict=True):
            axis.text(at, height + error + 1.5, f"{height:.0f}", ha="center", va="bottom", fontsize=9)
    axis.set_xticks(np.arange(len(workloads)), [f"deployed on {w}" for w in workloads])
    axis.set_yticks(range(0, 101, 25))
    axis.set_ylim(0, 116)
    axis.set_ylabel("answers right (%)")
    axis.set_title(title)
    axis.legend(title="calibrated", loc="center left", bbox_to_anchor=(1.0, 0.5), alignment="left")
    figure.alt = "Answers right, by the data of the calibration. " + " ".join(
        f"{name}: " + ", ".join(f"{w} {100 * rate[name][w]:.0f} %" for w in workloads) + "." for name in rate
    )
    return figure


@styled
def sensitivity_map(damage: Mapping[str, float]) -> Figure:
    """KL of quantizing one layer alone, blocks down and kinds of layer across.

    Args:
        damage: {name: KL in nats per token}; a name is `….<block>.<kind>`, such as "model.layers.0.mlp.up_proj".
    """
    split = {name: _block_and_kind(name) for name in damage}
    blocks = sorted({block for block, _ in split.values()})
    order = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    found = {kind for _, kind in split.values()}
    kinds = [kind for kind in order if kind in found] + sorted(found - set(order))
    values = np.full((len(blocks), len(kinds)), np.nan)
    for name, (block, kind) in split.items():
        values[blocks.index(block), kinds.index(kind)] = damage[name]
    figure, axis = new_figure(1.2 + 0.7 * len(kinds), 0.8 + 0.33 * len(blocks))
    shade = np.log10(np.maximum(values, 1e-6))
    axis.imshow(shade, cmap="YlOrBr", aspect="auto", vmin=np.nanmin(shade), vmax=np.nanmax(shade) + 0.9)
    for i, j in np.argwhere(~np.isnan(values)):
        axis.text(j, i, f"{values[i, j]:.3f}", ha="center", va="center", fontsize=9, color=INK)
    axis.set_xticks(range(len(kinds)), kinds)
    axis.set_yticks(range(len(blocks)), [f"block {block}" for block in blocks])
    axis.tick_params(length=0)
    axis.spines[:].set_visible(False)
    axis.set_title("KL when this layer alone is quantized (nats per token)")
    worst = max(damage, key=lambda name: damage[name])
    figure.alt = (
        f"KL when one layer alone is quantized, for {len(blocks)} blocks and {len(kinds)} kinds of layer. "
        f"The most sensitive is {worst} with {damage[worst]:.2g} nats per token."
    )
    return figure


def _two_columns(w: np.ndarray, h: np.ndarray, step: float, qmax: int, damping: float) -> tuple[np.ndarray, np.ndarray]:
    """The two weights after the first column is rounded and the second has followed, and after both are rounded."""
    inverse = np.linalg.inv(h + damping * np.mean(np.diag(h)) * np.eye(2))
    rounded = float(np.clip(np.round(w[0] / step), -qmax, qmax) * step)
    follows = w[1] - (w[0] - rounded) * inverse[0, 1] / inverse[0, 0]
    last = float(np.clip(np.round(follows / step), -qmax, qmax) * step)
    return np.array([rounded, follows]), np.array([rounded, last])


def _loss(change: np.ndarray, h: np.ndarray) -> float:
    return float(change @ h @ change) / 2


def _block_and_kind(name: str) -> tuple[int, str]:
    parts = name.split(".")
    return int(next(part for part in parts if part.isdigit())), parts[-1]
