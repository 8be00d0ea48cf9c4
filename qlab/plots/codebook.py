"""Pictures of codebooks: where levels lie, where they come from, what they store, and what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import NormalDist

import numpy as np
import torch

from qlab.formats import affine, codebook
from qlab.formats.weight import QuantizedWeight

from .style import BLUE, GRAY, GREEN, INK, ORANGE, PALETTE, RED, SKY, Figure, new_figure, styled

# What the explorer can choose: the three codebooks, and the even grid without and with a zero-point.
DATA_TYPES = (*codebook.CODES, "int4", "int4 with zero-points")
TITLES = ("NF4", "FP4 of bitsandbytes", "FP4 E2M1", "INT4", "INT4 with zero-points")


@styled
def levels_on_weights(w: torch.Tensor, tables: Mapping[str, torch.Tensor], block_size: int = 64) -> Figure:
    """A histogram of weights, each divided by the absmax of its block, and below it the levels of some tables.

    Args:
        w: float32; the number of weights is a multiple of block_size.
        tables: name to levels (n,), from -1 to 1.
    """
    blocks = w.detach().reshape(-1, block_size)
    scaled = (blocks / blocks.abs().amax(dim=1, keepdim=True)).flatten()
    height = 2.2 + 0.35 * len(tables)
    figure, (top, bottom) = new_figure(6.6, height, rows=2, sharex=True, height_ratios=(1.9, 0.35 * len(tables)))
    top.hist(scaled.numpy(), bins=81, range=(-1.0125, 1.0125), color=SKY)
    top.set_ylabel("weights")
    top.set_yticks([])
    top.set_title(f"Weights in blocks of {block_size}, each divided by the largest magnitude of its block")
    for row, (table, color) in enumerate(zip(tables.values(), PALETTE, strict=False)):
        bottom.vlines(table.numpy(), -row - 0.36, -row + 0.36, color=INK if color == SKY else color, linewidth=2)
    bottom.set_yticks([-row for row in range(len(tables))], list(tables))
    bottom.tick_params(axis="y", length=0)
    bottom.set_ylim(-len(tables) + 0.4, 0.6)
    bottom.spines["left"].set_visible(False)
    bottom.set_xlabel("weight / absmax of its block")
    inner = {name: int((table.abs() <= 0.5).sum()) for name, table in tables.items()}
    figure.alt = (
        f"A histogram of weights divided by the absmax of their block of {block_size}, and below it the levels of "
        + ", ".join(f"{name} ({inner[name]} of {len(table)} between -0.5 and 0.5)" for name, table in tables.items())
        + "."
    )
    return figure


@styled
def quantile_steps(bits: int = 4) -> Figure:
    """How a NormalFloat table is made: equal steps of probability on each side of zero.

    Args:
        bits: 2 to 4. The table has 2^bits levels, one more above zero than below.
    """
    half, normal = 2 ** (bits - 1), NormalDist()
    end = 1 - (1 / 2 ** (bits + 1) + 1 / (2 ** (bits + 1) - 2)) / 2
    steps = {1: (end - 0.5) / half, -1: (end - 0.5) / (half - 1)}  # probability between two levels, by side
    x = np.linspace(-3, 3, 601)
    figure, axis = new_figure(6.6, 2.6)
    axis.fill_between(x, np.exp(-(x**2) / 2), color=GRAY, alpha=0.25, linewidth=0)
    axis.plot(x, np.exp(-(x**2) / 2), color=INK, linewidth=1)
    for sign, count in ((1, half), (-1, half - 1)):
        edges = [sign * normal.inv_cdf(0.5 + steps[sign] * i) for i in range(count + 1)]
        for i, (a, b) in enumerate(pairwise(edges), start=sign > 0):
            inside = np.linspace(a, b, 30)
            axis.fill_between(inside, np.exp(-(inside**2) / 2), color=(SKY, BLUE)[i % 2], alpha=0.75, linewidth=0)
        for edge in edges if sign == 1 else edges[1:]:
            axis.plot([edge, edge], [0, 1.06], color=ORANGE, linewidth=1.5)
            level = edge / normal.inv_cdf(end) + 0.0  # without the minus of a minus zero
            axis.text(edge, 1.1, f"{level:.2f}".replace("-", "−"), ha="center", va="bottom", rotation=90, fontsize=8)
    axis.set_ylim(0, 1.48)
    axis.set_yticks([])
    axis.spines["left"].set_visible(False)
    axis.set_xlabel("weight (standard deviations)")
    axis.set_title(
        f"{2 * half} levels: above zero {half} areas of {100 * steps[1]:.1f} %, "
        f"below zero {half - 1} of {100 * steps[-1]:.1f} %"
    )
    axis.text(-2.9, 0.55, f"gray: {100 * (1 - end):.1f} %\nof the area\nat each end", fontsize=9, va="center")
    figure.alt = (
        f"A bell curve. From the median to probability {end:.4f} its right side is cut into {half} equal areas and its "
        f"left side into {half - 1}; the {2 * half} borders, divided by the largest, are the levels."
    )
    return figure


@styled
def blocks_by_hand(w: torch.Tensor, levels: torch.Tensor, block_size: int) -> Figure:
    """A small matrix on its way: weights, weights / absmax, codes, levels times absmax; lines between the blocks.

    Args:
        w: (rows, columns), at most about 4 by 4, in whole blocks, none of them all zeros.
        levels: (n,), ascending, from -1 to 1.
    """
    rows, columns = w.shape
    absmax = w.reshape(-1, block_size).abs().amax(dim=1).repeat_interleave(block_size).view(rows, columns)
    codes = ((w / absmax)[..., None] - levels).abs().argmin(dim=-1)
    panels = {
        "weights": (w, float(w.abs().max()), "{:.2f}"),
        "divided by absmax": (w / absmax, 1.0, "{:.2f}"),
        "codes": (codes, None, "{:d}"),
        "back: level × absmax": (levels[codes] * absmax, float(w.abs().max()), "{:.2f}"),
    }
    block = torch.arange(rows * columns).view(rows, columns) // block_size
    figure, axes = new_figure(8.2, 2.4, columns=4)
    for axis, (title, (panel, limit, form)) in zip(axes, panels.items(), strict=True):
        low, high = (0, len(levels) - 1) if limit is None else (-limit, limit)
        axis.imshow(panel.numpy(), cmap="PuOr", vmin=low, vmax=high, alpha=0.6)
        for i in range(rows):
            for j in range(columns):
                value = panel[i, j].item()
                text = form.format(value if limit is None else round(value, 2) + 0.0)
                axis.text(j, i, text.replace("-", "−"), ha="center", va="center", fontsize=9)
                if i + 1 < rows and block[i, j] != block[i + 1, j]:
                    axis.plot([j - 0.5, j + 0.5], [i + 0.5, i + 0.5], color=INK, linewidth=3)
                if j + 1 < columns and block[i, j] != block[i, j + 1]:
                    axis.plot([j + 0.5, j + 0.5], [i - 0.5, i + 0.5], color=INK, linewidth=3)
        axis.set_title(title, fontsize=10)
        axis.set_xticks([])
        axis.set_yticks([])
    maxima = w.reshape(-1, block_size).abs().amax(dim=1).tolist()
    axes[1].set_xlabel("absmax by block: " + ", ".join(f"{value:.2g}" for value in maxima))
    axes[2].set_xlabel("levels: " + ", ".join(f"{value:.3g}" for value in levels.tolist()).replace("-", "−"))
    figure.alt = (
        f"A {rows} by {columns} matrix in {len(maxima)} blocks of {block_size}: the weights, the weights divided by "
        f"the absmax of their block, their codes, and the weights that come back."
    )
    return figure


@styled
def code_use(codes: Mapping[str, torch.Tensor]) -> Figure:
    """How often each of 16 codes is used, and the entropy of the codes.

    Args:
        codes: name to integer codes of any shape, counted from the lowest value up.
    """
    figure, axis = new_figure(6.6, 2.7)
    width, words = 0.8 / len(codes), []
    for i, ((name, values), color) in enumerate(zip(codes.items(), PALETTE, strict=False)):
        share = torch.bincount(values.flatten().long(), minlength=16).double() / values.numel()
        used = share[share > 0]
        entropy = float(-(used * used.log2()).sum())
        x = np.arange(16) + (i - (len(codes) - 1) / 2) * width
        axis.bar(x, 100 * share.numpy(), 0.92 * width, color=color, label=f"{name}: {entropy:.2f} bits of entropy")
        words.append(f"{name} from {100 * share.min():.1f} to {100 * share.max():.1f} %, {entropy:.2f} bits of entropy")
    axis.axhline(100 / 16, color=INK, linewidth=1, linestyle="--", label="equal use: 4 bits")
    axis.set_xticks(range(16))
    axis.set_xlabel("code, from the lowest level to the highest")
    axis.set_ylabel("weights (%)")
    axis.set_title("How often each code is used")
    axis.legend(loc="upper right", borderaxespad=0)
    axis.margins(x=0.01, y=0.15)
    figure.alt = "Use of the 16 codes against 6.25 % for equal use: " + "; ".join(words) + "."
    return figure


@styled
def error_by_bits(curves: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """Error against bits per weight, a line for each format, from large blocks on the left to small ones.

    Args:
        curves: up to five formats: name to points (bits per weight, root mean square error in percent).
    """
    figure, axis = new_figure(6.2, 3.1)
    looks = [(BLUE, "o-", BLUE), (BLUE, "o--", "white"), (ORANGE, "s-", ORANGE), (GREEN, "^-", GREEN)]
    looks.append((GREEN, "^--", "white"))
    for (name, points), (color, style, fill) in zip(curves.items(), looks, strict=False):
        axis.plot(*zip(*points, strict=True), style, color=color, markerfacecolor=fill, markersize=6, label=name)
    axis.set_title("Error against bits: large blocks on the left, small ones on the right")
    axis.set_xlabel("bits per weight, all included")
    axis.set_ylabel("RMS error (% of the weights' RMS)")
    axis.legend()
    ends = {name: (points[0], points[-1]) for name, points in curves.items()}
    figure.alt = "Root mean square error against bits per weight, falling along every line: " + "; ".join(
        f"{name} from {a[1]:.2f} % at {_short(a[0])} bits to {b[1]:.2f} % at {_short(b[0])}"
        for name, (a, b) in ends.items()
    )
    return figure


@styled
def damage_by_bits(points: Mapping[str, tuple[str, float, float, float]], measure: str) -> Figure:
    """Damage to a model against bits per weight.

    Args:
        points: label to (family, bits per weight, damage, its standard error). A family has one color and marker.
        measure: what the damage is, with its unit.
    """
    figure, axis = new_figure(6.6, 3.2)
    families = list(dict.fromkeys(family for family, *_ in points.values()))
    looks = dict(zip(families, zip((BLUE, RED, ORANGE, GREEN, INK), "oDs^v", strict=True), strict=False))
    for family, (color, marker) in looks.items():
        chosen = {label: rest for label, (of, *rest) in points.items() if of == family}
        bits, damage, error = zip(*chosen.values(), strict=True)
        axis.errorbar(bits, damage, error, fmt=marker, color=color, markersize=7, capsize=3, label=family)
        for label, (x, y, _) in chosen.items():
            axis.annotate(label, (x, y), xytext=(8, 3), textcoords="offset points", fontsize=8.5)
    axis.set_ylim(bottom=0)
    axis.margins(x=0.2)
    axis.set_xlabel("bits per quantized weight, all included")
    axis.set_ylabel(measure)
    figure.legend(*axis.get_legend_handles_labels(), loc="outside lower center", ncols=len(looks))
    figure.alt = f"{measure} against bits per weight: " + ", ".join(
        f"{label} {_short(bits)} bits {damage:.3f}" for label, (_, bits, damage, _) in points.items()
    )
    return figure


@styled
def codebook_and_error(w: torch.Tensor, data_type: str = "nf4", block_size: int = 64) -> Figure:
    """The levels of a 4-bit format over the weights that they stand for, and the rounding error by the value.

    Both in units of the largest magnitude of a block, all blocks on top of each other.

    Args:
        w: float32 (out, in), `in` a multiple of block_size.
        data_type: one of `DATA_TYPES`. With zero-points every block has its own grid; that of the first is shown.
    """
    quantized, levels = _with_levels(w, data_type, block_size)
    title = TITLES[DATA_TYPES.index(data_type)]
    absmax = w.reshape(-1, block_size).abs().amax(dim=1, keepdim=True)
    noise = quantized.dequantize(torch.float32) - w
    rms = w.square().mean().sqrt()
    scaled, error = ((x.reshape(-1, block_size) / absmax).flatten() for x in (w, noise))
    mean, root, worst = (
        100 * float(x / rms) for x in (noise.abs().mean(), noise.square().mean().sqrt(), noise.abs().max())
    )
    figure, (top, bottom) = new_figure(6.6, 3.9, rows=2, sharex=True, height_ratios=(3, 2))
    top.hist(scaled.numpy(), bins=41, range=(-1.025, 1.025), color=SKY)
    label = "levels" if data_type != DATA_TYPES[-1] else "levels of the first block"
    top.vlines(levels.numpy(), 0, 1, transform=top.get_xaxis_transform(), color=ORANGE, linewidth=1, label=label)
    top.set_yticks([])
    top.set_ylabel("weights")
    top.set_title(f"{title}, blocks of {block_size}: {_short(quantized.bits_per_weight)} bits per weight")
    top.legend(loc="upper right", frameon=True, framealpha=0.9)
    shown = torch.linspace(0, w.numel() - 1, 1500).long()  # enough points to see the shape
    bottom.plot(scaled[shown].numpy(), error[shown].numpy(), ".", color=BLUE, markersize=2.5)
    bottom.axhline(0, color=INK, linewidth=0.6)
    bottom.set_ylim(-0.19, 0.19)
    bottom.set_ylabel("error / absmax")
    bottom.set_xlabel(
        f"weight / absmax of its block\nerror in % of the weights' RMS: mean {mean:.2f}, RMS {root:.2f}, "
        f"largest {worst:.1f}"
    )
    figure.alt = (
        f"A histogram of weights with the levels of {title} in blocks of {block_size}, and the rounding "
        f"error by the value: mean {mean:.2f} %, RMS {root:.2f} %, largest {worst:.1f} % of the weights' RMS."
    )
    return figure


def _with_levels(w: torch.Tensor, data_type: str, block_size: int) -> tuple[QuantizedWeight, torch.Tensor]:
    """The quantized weights, and the levels of the first block in units of its absmax."""
    if data_type in codebook.CODES:
        table = codebook.CODES[data_type]
        return codebook.quantize(w, data_type, block_size), table / table.max()
    if data_type not in DATA_TYPES:
        raise ValueError(f"data_type: got {data_type!r}; choose from {', '.join(map(repr, DATA_TYPES))}")
    grid = affine.quantize(w, 4, block_size, symmetric=data_type == "int4")
    codes = torch.arange(1 if grid.symmetric else 0, 16) - int(grid.zero_points()[0, 0])
    return grid, codes * float(grid.scales[0, 0]) / w.reshape(-1, block_size)[0].abs().max()


def _short(bits: float) -> str:
    return f"{round(bits, 5):g}"
