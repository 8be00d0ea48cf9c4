"""Pictures of SmoothQuant: difficulty that moves, error against alpha, codes of inputs, damage by method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from qlab.methods import smoothquant, w8a8

from .style import BLUE, GRAY, GREEN, INK, ORANGE, PALETTE, RED, Figure, new_figure, styled

MARKERS = "osD^v"
_NOT_SMOOTHED = -0.24  # a place left of alpha 0


@styled
def seesaw(input_max: Sequence[float], weight_max: Sequence[float], alphas: Sequence[float] = (0, 0.5, 1)) -> Figure:
    """The largest input and the largest weight of a few channels, as they are and after smoothing.

    Args:
        input_max, weight_max: largest magnitudes, one for each of the n channels.
        alphas: one panel for each, after a panel with what was there before.
    """
    x, w = torch.tensor(input_max, dtype=torch.float32), torch.tensor(weight_max, dtype=torch.float32)
    panels = [("before", torch.ones_like(x))]
    panels += [(f"α = {alpha:g}", smoothquant.scales(x, w, alpha)) for alpha in alphas]
    figure, axes = new_figure(8.0, 2.7, columns=len(panels), sharey=True)
    told = []
    places = np.arange(len(x))
    for axis, (name, s) in zip(axes, panels, strict=True):
        for values, shift, color, hatch, label in (
            (x / s, -0.2, BLUE, None, "largest input / s"),
            (w * s, 0.2, ORANGE, "//", "largest weight · s"),
        ):
            # On a logarithmic axis a bar needs a floor; 1/8 is below every example.
            axis.bar(places + shift, values.tolist(), 0.38, color=color, hatch=hatch, edgecolor="white", label=label)
            for place, value in zip(places, values.tolist(), strict=True):
                axis.annotate(f"{value:g}", (place + shift, value), ha="center", va="bottom", fontsize=9)
        axis.set_yscale("log", base=2)
        axis.set_xticks(places, [f"channel {i}" for i in places])
        axis.set_title(name if name == "before" else f"{name}: s = {', '.join(f'{v:g}' for v in s.tolist())}")
        told.append(
            f"{name}: inputs {', '.join(f'{v:g}' for v in (x / s).tolist())}, "
            f"weights {', '.join(f'{v:g}' for v in (w * s).tolist())}"
        )
    low, high = float(min(x.min(), w.min())), float(max(x.max(), w.max()))
    axes[0].set_ylim(low / 2, 2 * high)
    axes[0].set_yticks([2.0**k for k in range(int(np.log2(low / 2)), int(np.log2(2 * high)) + 1)])
    axes[0].yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axes[0].set_ylabel("magnitude (log scale)")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    figure.alt = "Largest input and weight of every channel. " + "; ".join(told) + "."
    return figure


@styled
def channels(input_max: torch.Tensor, weight_max: torch.Tensor, scales: torch.Tensor) -> Figure:
    """The largest input and the largest weight of every channel of a layer, before and after smoothing.

    Args:
        input_max, weight_max, scales: (in,).
    """
    figure, axes = new_figure(6.8, 2.9, columns=2, sharey=True)
    told = []
    sides = (("before", input_max, weight_max), ("after", input_max / scales, weight_max * scales))
    for axis, (name, x, w) in zip(axes, sides, strict=True):
        ratios = []
        # Where both sides lie on each other, the larger discs show around the smaller triangles.
        for values, color, marker, size, what in ((x, BLUE, "o", 4.5, "input"), (w, ORANGE, "^", 2.4, "weight")):
            ratios.append(float(values.max() / values.median()))
            label = f"largest {what}: up to {ratios[-1]:.0f} times the median"
            axis.semilogy(values, marker, color=color, markersize=size, mew=0, linestyle="none", label=label)
        axis.set_title(name)
        axis.set_xlabel("channel (column of the weight)")
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.25), markerscale=1.5)
        told.append(
            f"{name}, the largest input is {ratios[0]:.0f} times the median "
            f"and the largest weight {ratios[1]:.0f} times"
        )
    axes[0].set_ylabel("magnitude (log scale)")
    figure.alt = f"Largest input and weight of {len(scales)} channels: " + "; ".join(told) + "."
    return figure


@styled
def by_alpha(
    curves: Mapping[str, Mapping[float, float]], ylabel: str, title: str = "", plain: Mapping[str, float] | None = None
) -> Figure:
    """A quantity against alpha, from 0 to 1, one line for each name: {name: {alpha: value}}.

    Args:
        plain: {name: its value without smoothing}, a mark left of alpha 0.
    """
    figure, axis = new_figure(6.2, 3.4)
    told = []
    for i, ((name, line), color, marker) in enumerate(zip(curves.items(), PALETTE, MARKERS, strict=False)):
        # Lines that coincide stay visible: each later one is thinner and lies on top.
        size = 9 / (1 + i)
        axis.plot(list(line), list(line.values()), color=color, marker=marker, linewidth=size / 2, ms=size, label=name)
        values = ", ".join(f"{line[alpha]:.2g} at {alpha:g}" for alpha in (0, 0.5, 1))
        if plain:
            axis.plot([_NOT_SMOOTHED], [plain[name]], color=color, marker=marker, ms=7, linestyle="none")
            axis.annotate(f"{plain[name]:.2g}", (_NOT_SMOOTHED, plain[name]), (8, -3), textcoords="offset points")
            values = f"{plain[name]:.2g} not smoothed, {values}"
        told.append(f"{name}: {values}")
    if plain:
        ticks = [i / 5 for i in range(6)]
        axis.set_xticks([_NOT_SMOOTHED, *ticks], ["not\nsmoothed", *(f"{tick:g}" for tick in ticks)])
        axis.axvline(_NOT_SMOOTHED / 3, color=GRAY, linewidth=0.8, linestyle=":")
    axis.set_ylim(bottom=0)
    axis.set_xlabel("α (0: even weights, 1: even inputs)")
    axis.set_ylabel(ylabel)
    axis.set_title(title)
    figure.legend(loc="outside lower center")
    figure.alt = f"{ylabel} against alpha. {'; '.join(told)}."
    return figure


@styled
def drift(table: Mapping[str, Mapping[str, tuple[float, float]]], title: str = "") -> Figure:
    """Mean KL of every method, marks with ± 2 standard errors, on a log scale: {method: {variant: (value, stderr)}}."""
    methods, variants = list(table), list(next(iter(table.values())))
    figure, axis = new_figure(7.6, 0.36 * len(methods) + 1.3)
    height = 0.8 / len(variants)
    for i, (variant, color, marker) in enumerate(zip(variants, PALETTE, MARKERS, strict=False)):
        y = np.arange(len(methods)) + (i - (len(variants) - 1) / 2) * height
        values, errors = zip(*(table[m][variant] for m in methods), strict=True)
        lines = [2 * error for error in errors]
        axis.errorbar(values, y, xerr=lines, fmt=marker, color=color, ms=5, ecolor=INK, elinewidth=1.2, label=variant)
        for place, value, line in zip(y, values, lines, strict=True):
            axis.annotate(
                f"{value:#.2g}", (value + line, place), (6, 0), textcoords="offset points", va="center", fontsize=8
            )
    for place in range(0, len(methods), 2):
        axis.axhspan(place - 0.5, place + 0.5, color=GRAY, alpha=0.1, linewidth=0)
    axis.set_xscale("log")
    low, high = (f(v for line in table.values() for v, _ in line.values()) for f in (min, max))
    axis.set_xlim(low / 2, 4 * high)
    axis.set_yticks(np.arange(len(methods)), methods)
    axis.set_ylim(len(methods) - 0.5, -0.5)  # the first at the top
    axis.set_xlabel("mean KL to the 16-bit model (nats per token, log scale)\nlines: ± 2 standard errors")
    axis.set_title(title)
    figure.legend(loc="outside lower center", ncols=len(variants))
    figure.set_layout_engine("constrained", w_pad=0.12)  # room at the edges for long names
    figure.alt = "Mean KL by method. " + " ".join(
        f"{m}: {', '.join(f'{v} {value[0]:.1g}' for v, value in line.items())}." for m, line in table.items()
    )
    return figure


@styled
def code_sizes(samples: Mapping[str, torch.Tensor]) -> Figure:
    """How large inputs are, counted in steps: what becomes 0, what fits, what clips. Both axes are logarithmic.

    Args:
        samples: {name: |x| / step before rounding, any shape}.
    """
    figure, axis = new_figure(7.6, 3.2)
    edges = np.logspace(-2, 3.5, 67)
    told = []
    for (name, steps), color, style in zip(
        samples.items(), (GRAY, ORANGE, BLUE, GREEN), ("-", "--", "-.", ":"), strict=False
    ):
        flat = steps.flatten().numpy()
        counts, _ = np.histogram(flat, edges)
        left = 100 * float((flat < edges[0]).mean())
        label = f"{name} ({left:.0f} % lie below {edges[0]:g})" if left >= 0.5 else name
        axis.stairs(100 * counts / flat.size, edges, color=color, linestyle=style, linewidth=1.8, label=label)
        told.append(f"{name}: {100 * (flat < 0.5).mean():.0f} % below half a step, largest {flat.max():.1g} steps")
    for bound in (0.5, 127.5):
        axis.axvline(bound, color=RED, linewidth=1, linestyle="--")
    axis.set_yscale("log")
    axis.set_ylim(1e-5, 100)
    for place, text in ((0.07, "code 0"), (8.0, "codes 1 to 127"), (650.0, "clipped")):
        axis.annotate(text, (place, 30), ha="center", color=RED)
    axis.set_xscale("log")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xlabel("size of an input in steps, |x| / Δ (log scale)")
    axis.set_ylabel("inputs, % per bin (log scale)")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.22), ncols=len(samples))
    figure.alt = "Sizes of inputs, counted in steps. " + "; ".join(told) + "."
    return figure


def toy_layer(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Weights (64, 64) and inputs (512, 64) of a layer without outliers."""
    random = torch.Generator().manual_seed(seed)
    return torch.randn(64, 64, generator=random) / 8, torch.randn(512, 64, generator=random)


def with_outliers(
    w: torch.Tensor, x: torch.Tensor, factor: float, full_size: bool, outliers: int = 2
) -> tuple[torch.Tensor, torch.Tensor]:
    """The layer with its first inputs `factor` times larger, and their weights divided by it unless `full_size`."""
    large = torch.ones(w.shape[1])
    large[:outliers] = factor
    return (w if full_size else w / large), x * large


def ordinary_error(w: torch.Tensor, x: torch.Tensor, alpha: float | None, outliers: int = 2) -> float:
    """Error of the outputs in int8 (inputs per token, weights per row), in % of what the ordinary channels contribute.

    Args:
        w: (out, in), x: (tokens, in), the first `outliers` inputs large.
        alpha: 0 to 1; None leaves the layer as it is.
    """
    smoothed, (scaled,), _ = smoothquant.smooth(x, [w], alpha) if alpha is not None else (x, [w], None)
    error = w8a8.linear(smoothed, w8a8.quantize(scaled)) - x @ w.T
    return 100 * float(error.norm() / (x[:, outliers:] @ w[:, outliers:].T).norm())


@styled
def alpha_and_factor(
    w: torch.Tensor, x: torch.Tensor, alpha: float = 0.5, factor: int = 64, full_size: bool = True
) -> Figure:
    """A layer with two outlier inputs: the ranges of its channels after smoothing, and its error along alpha.

    Args:
        w: (out, in), x: (tokens, in), without outliers.
        alpha: the one to look at, 0 to 1.
        factor: the first two inputs are multiplied by it.
        full_size: leave their weights as they are; otherwise divide them by the factor, as an implant does.
    """
    w, x = with_outliers(w, x, factor, full_size)
    _, (scaled,), s = smoothquant.smooth(x, [w], alpha)
    inputs, weights = x.abs().amax(0) / s, scaled.abs().amax(0)
    alphas = [i / 10 for i in range(11)]
    line = [ordinary_error(w, x, a) for a in alphas]
    here, naive = ordinary_error(w, x, alpha), ordinary_error(w, x, None)

    figure, (left, right) = new_figure(7.8, 3.2, columns=2)
    for values, color, marker, what in ((inputs, BLUE, "o", "input / s"), (weights, ORANGE, "^", "weight · s")):
        ratio = float(values.max() / values.median())
        label = f"largest {what}: {ratio:.1f} times the median"
        left.semilogy(values, marker, color=color, markersize=4, linestyle="none", label=label)
    left.set_ylim(1e-3, 1e3)
    left.set_xlabel("channel (the first two have the large inputs)")
    left.set_ylabel("magnitude (log scale)")
    left.set_title(f"α = {alpha:g}, inputs 0 and 1 times {factor}")
    right.semilogy(alphas, line, color=BLUE, marker="o", markersize=3, label="all α")
    right.semilogy(
        alpha, here, "D", color=ORANGE, markersize=8, markeredgecolor=INK, label=f"α = {alpha:g}: {here:.2f} %"
    )
    right.axhline(naive, color=GRAY, linewidth=1.2, linestyle="--", label=f"not smoothed: {naive:.2f} %")
    right.set_ylim(0.5, 100)
    right.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    right.set_xlabel("α")
    right.set_ylabel("error (% of the ordinary part)")
    right.set_title("weights full size" if full_size else "weights divided by the factor")
    for axis in (left, right):
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.23), ncols=1 if axis is left else 3, columnspacing=1)
    best = alphas[int(np.argmin(line))]
    figure.alt = (
        f"A layer with two inputs times {factor}, their weights {'full size' if full_size else 'divided by it'}. "
        f"At α = {alpha:g} the error is {here:.2f} %, without smoothing {naive:.2f} %; the lowest is {min(line):.2f} % "
        f"at {best:g}. The largest input is then {float(inputs.max() / inputs.median()):.1f} times the median and the "
        f"largest weight {float(weights.max() / weights.median()):.1f} times."
    )
    return figure
