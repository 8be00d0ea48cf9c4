"""Pictures of 8-bit floats: a byte and its fields, where the values lie, how they round, and what outliers do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.patches import Rectangle

from qlab.formats import activations, float8
from qlab.formats.activations import Activations

from .style import BLUE, GRAY, GREEN, ORANGE, PALETTE, RED, SKY, Figure, new_figure, styled

FRACTION_BITS = {"e4m3": 3, "e5m2": 2}


@styled
def bytes_by_hand(values: Sequence[float], data_type: str = "e4m3") -> Figure:
    """Each value, the byte it becomes with its three fields, and what that byte stands for.

    Args:
        values: a few finite numbers.
        data_type: "e4m3" or "e5m2".
    """
    codes = float8.encode(torch.tensor(values, dtype=torch.float32), data_type)
    back = float8.decode(codes, data_type).tolist()
    fields = {"sign": 1, "exponent": 7 - FRACTION_BITS[data_type], "fraction": FRACTION_BITS[data_type]}
    owner = [name for name, width in fields.items() for _ in range(width)]
    colors = dict(zip(fields, (GRAY, ORANGE, SKY), strict=True))
    figure, axis = new_figure(6.6, 0.45 + 0.34 * len(values))
    for row, (value, code, decoded) in enumerate(zip(values, codes.tolist(), back, strict=True)):
        axis.text(-0.4, -row, f"{value:g}".replace("-", "−"), ha="right", va="center", fontsize=11)
        for place, (bit, name) in enumerate(zip(f"{code:08b}", owner, strict=True)):
            x = place + 0.25 * list(fields).index(name)
            axis.add_patch(Rectangle((x, -row - 0.38), 0.94, 0.76, facecolor=colors[name], alpha=0.55))
            axis.text(x + 0.47, -row, bit, ha="center", va="center", family="monospace", fontsize=11)
        axis.text(9.0, -row, in_words(code, data_type), ha="left", va="center", fontsize=10)
        axis.text(17.6, -row, f"{decoded:.4g}".replace("-", "−"), ha="right", va="center", fontsize=11)
    start = 0.0
    for i, (name, width) in enumerate(fields.items()):
        axis.text(start + 0.25 * i + width / 2, 0.55, name, ha="center", va="bottom", fontsize=9)
        start += width
    for x, words, side in ((-0.4, "number", "right"), (9.0, "reads", "left"), (17.6, "comes back as", "right")):
        axis.text(x, 0.55, words, ha=side, va="bottom", fontsize=9)
    axis.set_xlim(-2.6, 17.8)
    axis.set_ylim(-len(values) + 0.5, 1.1)
    axis.axis("off")
    figure.alt = f"{data_type.upper()} bytes as sign, exponent and fraction: " + "; ".join(
        f"{value:g} is {code:08b}, which reads {decoded:.4g}"
        for value, code, decoded in zip(values, codes.tolist(), back, strict=True)
    )
    return figure


def in_words(code: int, data_type: str = "e4m3") -> str:
    """The value of a finite byte as a product, such as "1.25 × 2^-2" in mathematical text."""
    width, bias = FRACTION_BITS[data_type], {"e4m3": 7, "e5m2": 15}[data_type]
    exponent, fraction = (code & 0x7F) >> width, code & (2**width - 1)
    leading = fraction / 2**width + (exponent > 0)
    sign = "−" if code >> 7 else ""
    kind = "" if exponent else " (subnormal)"
    return f"{sign}{leading:g} × $2^{{{max(exponent, 1) - bias}}}${kind}"


@styled
def values_on_a_line(tables: Mapping[str, torch.Tensor], zoom: float = 0.05) -> Figure:
    """Every value that a format can hold, a lane for each format: the whole range, and a look near zero.

    Args:
        tables: name to finite values (n,), all formats scaled to the same largest value.
        zoom: half the width of the lower panel, as a share of the upper one.
    """
    limit = max(float(table.abs().max()) for table in tables.values())
    figure, axes = new_figure(6.4, 1.3 + 0.6 * len(tables), rows=2)
    for axis, bound in zip(axes, (limit, zoom * limit), strict=True):
        for row, (table, color) in enumerate(zip(tables.values(), PALETTE, strict=False)):
            shown = table[table.abs() <= bound]
            axis.vlines(shown.numpy(), -row - 0.33, -row + 0.33, color=color, linewidth=0.8)
        axis.set_yticks([-row for row in range(len(tables))], list(tables))
        axis.tick_params(axis="y", length=0)
        axis.spines["left"].set_visible(False)
        axis.set_ylim(-len(tables) + 0.5, 0.5)
        axis.set_xlim(-1.02 * bound, 1.02 * bound)
    axes[0].set_title("All values, scaled to the same largest value; below, a look near zero")
    axes[1].set_xlabel("value")
    near = {name: int((table.abs() <= zoom * limit).sum()) for name, table in tables.items()}
    figure.alt = f"Values of formats on a line up to {limit:g}. Within {zoom * limit:g} of zero: " + ", ".join(
        f"{name} has {count} of {len(tables[name])}" for name, count in near.items()
    )
    return figure


@styled
def error_by_magnitude() -> Figure:
    """The largest rounding error of numbers of each size, as a share of the number, for three 8-bit formats.

    Sizes are shares of the largest number, which every format maps to its own largest value. For integers it is half a
    step of 1/127, for floats half of their step, and never more than the number itself. INT8 and E4M3 change places
    where the step of E4M3 doubles at 32, of 448: below, its error is the smaller one, and above the larger one.
    """
    size = np.geomspace(2e-4, 1, 1201)
    curves = {"INT8": np.minimum(0.5 / 127 / size, 1)}
    for data_type, bits in FRACTION_BITS.items():
        x = size * float8.LARGEST[data_type]
        lowest = {"e4m3": -6, "e5m2": -14}[data_type]
        step = 2.0 ** (np.maximum(np.floor(np.log2(x)), lowest) - bits)
        curves[data_type.upper()] = np.minimum(step / 2 / x, 1)
    figure, axis = new_figure(5.4, 2.5)
    for (name, curve), color, style in zip(curves.items(), (BLUE, ORANGE, GREEN), ("-", "-", "-"), strict=True):
        axis.loglog(size, 100 * curve, style, color=color, linewidth=1.6, label=name)
    crossing = 32 / float8.LARGEST["e4m3"]
    axis.axvline(crossing, color=GRAY, linewidth=1, linestyle=":")
    axis.text(0.9 * crossing, 0.2, f"{100 * crossing:.1f} % of\nthe largest", fontsize=9, ha="right")
    axis.set_xlabel("size of the number / largest number that shares the scale")
    axis.set_ylabel("largest rounding error\n(% of the number)")
    axis.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    axis.set_ylim(0.07, 200)  # room for the legend below the teeth
    axis.minorticks_off()
    axis.set_title("One absolute error for integers, one relative error for floats")
    axis.legend(loc="lower left")
    figure.alt = (
        "Largest rounding error in percent of the number against its size. INT8: 0.4 % at the largest number, ten "
        "times as much at a tenth of it. E4M3: between 3 and 6 % at nearly all sizes, E5M2 twice that. The error of "
        f"INT8 is below that of E4M3 from {100 * crossing:.1f} % of the largest number on."
    )
    return figure


@styled
def drift_of_schemes(table: Mapping[str, Mapping[str, tuple[float, float]]]) -> Figure:
    """Mean KL of several schemes, each measured in several states of a model, on a logarithmic axis.

    Args:
        table: {scheme: {state: (KL in nats, standard error)}}; the states are the same for all schemes.
    """
    states = list(next(iter(table.values())))
    figure, axis = new_figure(6.2, 1.0 + 0.3 * len(table))
    # Open markers around closed ones, so that equal values still show both.
    looks = tuple(zip(states, ("o", "s", "^"), (BLUE, RED, GREEN), (BLUE, "none", "none"), (5, 10, 13), strict=False))
    for row, line in enumerate(table.values()):
        values = [line[state][0] for state in states]
        axis.plot([min(values), max(values)], [-row, -row], color=GRAY, linewidth=1, zorder=1)
        for state, marker, color, fill, size in looks:
            value, error = line[state]
            label = state if row == 0 else None
            style = {"color": color, "markerfacecolor": fill, "markersize": size, "label": label}
            axis.errorbar(value, -row, xerr=error, fmt=marker, zorder=2, **style)
    axis.set_xscale("log")
    axis.set_yticks([-row for row in range(len(table))], list(table))
    axis.tick_params(axis="y", length=0)
    axis.set_ylim(-len(table) + 0.4, 0.6)
    axis.grid(axis="x", alpha=0.3)
    axis.set_xlabel("mean KL to the model in full precision (nats, logarithmic)")
    figure.legend(loc="outside upper left", ncols=len(states))
    figure.alt = "Mean KL by scheme: " + "; ".join(
        f"{scheme} " + ", ".join(f"{state} {value:.2g}" for state, (value, _) in line.items())
        for scheme, line in table.items()
    )
    return figure


@styled
def inputs_and_outliers(
    x: torch.Tensor,
    channels: Sequence[int],
    data_type: str = "int8",
    granularity: str = "token",
    factor: float = 64.0,
) -> Figure:
    """Some channels of a layer's inputs times a factor: how all others come back from 8 bits.

    Args:
        x: float32 (tokens, in), inputs without outlier channels.
        channels: those that are multiplied.
        data_type: "int8", "e4m3" or "e5m2".
        granularity: one scale per "token" or for the whole "tensor".
        factor: 1 or more.
    """
    x = x.clone()
    x[:, list(channels)] *= factor
    scheme = Activations(data_type, granularity)
    codes, scales = activations.quantize(x, scheme)
    values = codes.float() if data_type == "int8" else float8.decode(codes, data_type)
    back = values * scales
    ordinary = torch.ones(x.shape[1], dtype=torch.bool)
    ordinary[list(channels)] = False
    before, after = x[:, ordinary], back[:, ordinary]
    error = 100 * float((after - before).norm() / before.norm())
    lost = 100 * float(((after == 0) & (before != 0)).float().mean())
    figure, (left, right) = new_figure(6.6, 2.9, columns=2, width_ratios=(1, 1.15))
    largest = x.abs().amax(0).numpy()
    colors, widths = zip(*((BLUE, 1.5) if usual else (ORANGE, 4) for usual in ordinary.tolist()), strict=True)
    left.vlines(np.arange(len(largest)), 0.01, largest, color=colors, linewidth=widths)
    left.set_yscale("log")
    left.set_ylim(0.1, max(1500, 2 * largest.max()))
    left.set_xlabel("input channel")
    left.set_ylabel("largest |x|, all tokens")
    left.set_title(f"what arrives\norange and wide: times {factor:g}", fontsize=9)
    shown = torch.linspace(0, before.numel() - 1, 1500).long()
    bound = float(before.abs().max())
    right.plot([-bound, bound], [-bound, bound], color=GRAY, linewidth=1)
    right.plot(before.flatten()[shown], after.flatten()[shown], ".", color=BLUE, markersize=3)
    right.set_xlabel("input of an ordinary channel")
    right.set_ylabel("comes back as")
    name = scheme.label.replace(data_type, data_type.upper())
    right.set_title(f"{name}\nerror {error:.3g} %, zeros {lost:.3g} %", fontsize=9)
    figure.alt = (
        f"Inputs of a layer with {len(channels)} channels times {factor:g}, in {scheme.label}: the ordinary channels "
        f"come back with an error of {error:.3g} %, and {lost:.3g} % of their values become 0."
    )
    return figure
