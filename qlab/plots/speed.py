"""Pictures of speed: two limits and the longer of two times, the roofline, where four bits lose, kernels by tokens."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from matplotlib.ticker import NullFormatter, NullLocator

from qlab.bench.results import Row
from qlab.deploy.roofline import Limits, Work, datasheet, product

from .kernels import Panel, programs
from .style import BLUE, GRAY, GREEN, INK, ORANGE, PALETTE, PINK, RED, SKY, Figure, new_figure, styled

MARKERS = "osD^vPX<>*"
COUNTS = (1, 4, 16, 64, 256, 1024, 4096)  # tokens that the explorer shows beside the chosen number


@dataclass(frozen=True)
class Mark:
    """A point of a roofline: some work, the rate that limits it, and the seconds that it took (None: at the limit)."""

    label: str
    work: Work
    rate: str = "fp16"
    seconds: float | None = None


@dataclass(frozen=True)
class Scheme:
    """How many bits a weight and an input take, and which arithmetic multiplies them."""

    weight_bits: float
    x_bits: float
    rate: str

    def work(self, tokens: int, outputs: int, inputs: int) -> Work:
        return product(tokens, outputs, inputs, self.weight_bits, self.x_bits)


SCHEMES = {
    "16 bits": Scheme(16, 16, "fp16"),
    "8-bit weights": Scheme(8, 16, "fp16"),  # and a scale for each output, which nobody would see
    "4-bit weights": Scheme(4.125, 16, "fp16"),  # a 16-bit scale for every 128 weights
    "W8A8": Scheme(8, 8, "int8"),
}

# The number of a color and a marker: a scheme looks the same in every figure, and so do the kernels that compute it.
LOOKS = {
    **{name: i for i, name in enumerate(SCHEMES)},
    "dense": 0,
    "torch-int8": 1,
    "qlab-int8": 1,
    "torch-int4-g128": 2,
    "qlab-int4-g128": 2,
    "w8a8-torch": 3,
    "qlab-w8a8": 3,
}


def looks(names: Iterable[str]) -> dict[str, dict[str, str]]:
    """A color and a marker for each name, no two alike: those of its scheme, else the first ones that are free."""
    numbers: dict[str, int] = {}
    for name in sorted(names, key=lambda name: name not in LOOKS):
        free = next(i for i in itertools.count() if i not in numbers.values())
        wanted = LOOKS.get(name, free)
        numbers[name] = free if wanted in numbers.values() else wanted
    return {
        name: {"color": PALETTE[i % len(PALETTE)], "marker": MARKERS[i % len(MARKERS)]} for name, i in numbers.items()
    }


def reuse(tokens: Sequence[int] = (1, 4), outputs: int = 2, inputs: int = 3) -> Figure:
    """y = x W.T for some numbers of tokens: in every element, the number of multiplications that it takes part in."""

    def panel(name: str, color: int, times: int, rows: int, columns: int) -> Panel:
        return Panel(name, torch.full((rows, columns), color), [[str(times)] * columns] * rows)

    lines = [
        [
            panel(f"W, {outputs} x {inputs}", 0, count, outputs, inputs),
            panel(f"x, {count} token{'s' * (count > 1)}", 1, outputs, count, inputs),
            panel("y", 2, inputs, count, outputs),
        ]
        for count in tokens
    ]
    figure = programs(lines, title="In every element: the multiplications that it takes part in")
    said = [f"{n} token{'s' * (n > 1)}: of W {n}, of x {outputs}, of y {inputs}" for n in tokens]
    figure.alt = f"Multiplications in which an element takes part. {'; '.join(said)}."
    return figure


@styled
def two_times(marks: Sequence[Mark], limits: Limits, title: str) -> Figure:
    """For each mark, the time of its bytes and the time of its operations as bars; the longer one counts."""
    figure, axis = new_figure(7.6, 0.72 * len(marks) + 1.3)
    said = []
    for i, mark in enumerate(marks):
        times = (mark.work.bytes / limits.bandwidth, mark.work.operations / limits.rates[mark.rate])
        counts = 0 if limits.time(mark.work, mark.rate).bound == "memory" else 1
        for j, (seconds, color, name) in enumerate(zip(times, (BLUE, ORANGE), ("bytes", "operations"), strict=True)):
            y = i + 0.2 * (2 * j - 1)
            axis.barh(y, 1e6 * seconds, height=0.36, color=color, label=name if i == 0 else None)
            text = _microseconds(seconds) + (": this counts" if j == counts else "")
            axis.text(1.08e6 * seconds, y, text, va="center", fontsize=8.5)
        said.append(f"{mark.label}: bytes {_microseconds(times[0])}, operations {_microseconds(times[1])}")
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    axis.set_xlim(low, 12 * high)  # room for the words
    axis.set_yticks(range(len(marks)), [mark.label for mark in marks])
    axis.invert_yaxis()
    axis.set_xlabel("microseconds (log scale)")
    axis.set_title(title)
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.55 / len(marks) - 0.05), ncols=2)
    figure.alt = f"{title}: {'; '.join(said)}. The longer of the two counts."
    return figure


@styled
def roofline(series: Mapping[str, Sequence[Mark]], limits: Limits, title: str) -> Figure:
    """Operations per second against operations per byte: the two limits of a device, and works below or on them.

    Args:
        series: marks by name. Measured ones are joined by a line, and their labels stand above the first series.
    """
    figure, axis = new_figure(7.8, 4.4)
    marks = [mark for line in series.values() for mark in line]
    rates = list(dict.fromkeys(mark.rate for mark in marks))
    at = [mark.work.intensity for mark in marks] + [limits.ridge(rate) for rate in rates]
    _roof(axis, limits, rates, 0.35 * min(at), 3 * max(at))
    found = looks(series)
    for name, line in series.items():
        xs = [mark.work.intensity for mark in line]
        ys = [_rate(mark, limits) / 1e12 for mark in line]
        join = ":" if any(mark.seconds for mark in line) else "none"
        axis.plot(xs, ys, linestyle=join, linewidth=1, markersize=7, mec=INK, label=name, **found[name])
    heights = [_rate(mark, limits) / 1e12 for mark in marks]  # measured ones lie below the roof, or above a wrong one
    bottom, top = axis.get_ylim()
    axis.set_ylim(min(bottom, 0.6 * min(heights)), max(top, 2.2 * max(heights)))
    _label(axis, [mark for mark in marks if not mark.seconds], limits)
    for i, line in enumerate(series.values()):
        _label_measured(axis, [mark for mark in line if mark.seconds], limits, first=i == 0)
    axis.set_title(title)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4)
    said = [
        f"{name}: "
        + ", ".join(f"{mark.label} at {mark.work.intensity:.3g}, {_rate(mark, limits) / 1e12:.3g}" for mark in line)
        for name, line in series.items()
    ]
    ridges = ", ".join(f"{rate} {limits.ridge(rate):.3g}" for rate in rates)
    figure.alt = (
        f"{title}. Ridge in operations per byte: {ridges}. "
        f"Points (operations per byte, 10^12 operations per second): {'; '.join(said)}."
    )
    return figure


def _roof(axis, limits: Limits, rates: Sequence[str], low: float, high: float) -> None:  # type: ignore[no-untyped-def]
    """The limits between two intensities, with their numbers in words."""
    xs = np.geomspace(low, high, 400)
    beside = {"textcoords": "offset points", "fontsize": 8.5}
    last = max(limits.ridge(rate) for rate in rates)
    for rate in rates:
        peak, ridge = limits.rates[rate] / 1e12, limits.ridge(rate)
        axis.plot(xs, np.minimum(limits.bandwidth * xs / 1e12, peak), color=INK, linewidth=1.3)
        words = f"{rate}: {_number(peak)} T/s"
        axis.annotate(words, (high, peak), (4, 0), va="center", annotation_clip=False, **beside)
        axis.vlines(ridge, 0, peak, color=GRAY, linewidth=0.8, linestyle="--")
        side, shift = ("left", 3) if ridge == last else ("right", -3)  # away from the other ridge
        at = (ridge, 0.02)
        axis.annotate(f"ridge {_number(ridge)}", at, (shift, 0), ha=side, xycoords=("data", "axes fraction"), **beside)
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xlim(low, high)
    axis.set_ylim(limits.bandwidth * low / 1e12, 2.2 * max(limits.rates[rate] for rate in rates) / 1e12)
    axis.text(
        0.02,
        0.97,
        f"slope: memory, {limits.bandwidth / 1e9:,.4g} GB/s",
        transform=axis.transAxes,
        va="top",
        fontsize=8.5,
    )
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(lambda value, _: f"{value:,.10g}")
        side.set_minor_formatter(NullFormatter())
    axis.set_xlabel("operations per byte (log scale)")
    axis.set_ylabel("10¹² operations per second (log)")


_TEXT: dict[str, Any] = {
    "textcoords": "offset points",
    "fontsize": 8.5,
    "bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.5},
}
_NEAR = 0.1  # of an axis: less room than a label takes


def _label(axis, marks: Sequence[Mark], limits: Limits) -> None:  # type: ignore[no-untyped-def]
    """Words at marks that lie on a limit: above the slope, and below the flat part, there like stairs.

    A stair goes down where the next mark to the right is near, with a line from the mark to its words.
    """
    low, high = axis.get_xlim()
    before: dict[str, tuple[float, int]] = {}  # by rate, of the mark to the right: its intensity, its step
    for mark in sorted(marks, key=lambda mark: -mark.work.intensity):
        x, at = mark.work.intensity, (mark.work.intensity, _rate(mark, limits) / 1e12)
        if limits.time(mark.work, mark.rate).bound == "memory":
            axis.annotate(mark.label, at, (-5, 6), ha="right", va="bottom", **_TEXT)
            continue
        right, step = before.get(mark.rate, (math.inf, 0))
        step = step + 1 if math.log(right / x) < _NEAR * math.log(high / low) else 0
        before[mark.rate] = x, step
        look = {"arrowstyle": "-", "color": GRAY, "linewidth": 0.7, "shrinkB": 4, "relpos": (0, 1)}  # straight down
        line = {"arrowprops": look} if step else {}
        axis.annotate(mark.label, at, (0, -9 - 13 * step), ha="left", va="top", **_TEXT, **line)


def _label_measured(axis, marks: Sequence[Mark], limits: Limits, first: bool) -> None:  # type: ignore[no-untyped-def]
    """Words at measured marks: above those of the first series, where the roof leaves room, and below all others."""
    bottom, top = axis.get_ylim()
    for mark in marks:
        y, best = _rate(mark, limits), mark.work.operations / limits.time(mark.work, mark.rate).seconds
        room = math.log(best / y) / math.log(top / bottom)
        above = first and not 0 <= room < _NEAR
        side, corner = (-5, 6) if above else (6, -7), {"ha": "right", "va": "bottom"} if above else {"va": "top"}
        axis.annotate(mark.label, (mark.work.intensity, y / 1e12), side, **corner, **_TEXT)


def _rate(mark: Mark, limits: Limits) -> float:
    """Operations per second: measured, or the most that the limits allow."""
    return mark.work.operations / (mark.seconds or limits.time(mark.work, mark.rate).seconds)


@styled
def gains(
    curves: Mapping[str, Mapping[int, float]], points: Mapping[str, Mapping[int, float]], title: str, what: str
) -> Figure:
    """Times as fast as 16 bits against tokens: computed as lines, published as points.

    Args:
        curves, points: by name, {tokens: times as fast}.
        what: the words for 1.0, such as "as fast as 16 bits".
    """
    figure, axis = new_figure(7.8, 4.6)
    styles = ("-", "--", "-.", (0, (1, 1)))
    for i, (name, line) in enumerate(curves.items()):
        color = (INK, BLUE, SKY, RED)[i % 4]
        axis.plot(list(line), list(line.values()), linestyle=styles[i % 4], color=color, linewidth=1.4, label=name)
    for i, (name, line) in enumerate(points.items()):
        color = (ORANGE, GREEN, PINK, GRAY)[i % 4]
        # A ring around smaller and smaller marks: points at one place are all seen.
        look = {"mfc": "none", "mec": color, "mew": 2} if i == 0 else {"mfc": color, "mec": INK}
        sizes = {"markersize": (12, 8, 5)[min(i, 2)]}
        axis.plot(list(line), list(line.values()), MARKERS[i], linestyle="none", label=name, **look, **sizes)
    tokens = [count for line in (*curves.values(), *points.values()) for count in line]
    axis.axhline(1, color=GRAY, linewidth=0.8)
    axis.annotate(what, (min(tokens), 1), (0, -4), textcoords="offset points", va="top", fontsize=8.5)
    axis.set_xscale("log", base=2)
    axis.set_yscale("log")
    axis.set_xlim(0.85 * min(tokens), 1.15 * max(tokens))
    axis.set_xticks(sorted({2**k for k in range(14) if min(tokens) <= 2**k <= max(tokens)}))
    axis.set_yticks([0.1, 0.25, 0.5, 1, 2, 4])
    axis.yaxis.set_minor_locator(NullLocator())
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(lambda value, _: f"{value:g}")
    axis.set_xlabel("tokens (log scale)")
    axis.set_ylabel("times as fast as 16 bits (log)")
    axis.set_title(title)
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=2)
    said = [
        f"{name}: " + ", ".join(f"{line[count]:.2f} at {count}" for count in sorted(line) if count & (count - 1) == 0)
        for name, line in (*curves.items(), *points.items())
    ]
    figure.alt = f"{title}. {'; '.join(said)}."
    return figure


@styled
def by_tokens(rows: Sequence[Row], title: str) -> Figure:
    """Measured kernels of one shape: times as fast as the plain product in 16 bits, and the part of the nearer ceiling.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("rows: got none; give at least one measurement")
    kernels, counts = list(dict.fromkeys(row.kernel for row in rows)), sorted({row.tokens for row in rows})
    figure, (left, right) = new_figure(8.0, 3.5 + 0.22 * -(-len(kernels) // 4), columns=2)
    said, found = [], looks(kernels)
    for kernel in kernels:
        line = sorted((row for row in rows if row.kernel == kernel), key=lambda row: row.tokens)
        tokens, ratios = [row.tokens for row in line], [row.ratio for row in line]
        look: dict[str, Any] = {**found[kernel], "markersize": 5, "linewidth": 1.2}
        left.plot(tokens, ratios, label=kernel, **look)
        right.plot(tokens, [100 * row.ceiling_fraction for row in line], **look)
        said.append(f"{kernel}: " + ", ".join(f"{r:.2f} at {n}" for n, r in zip(tokens, ratios, strict=True)))
    for axis in (left, right):
        axis.set_xscale("log", base=2)
        axis.set_xticks(counts if len(counts) < 7 else counts[::2])
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axis.set_xlabel("tokens (log scale)")
    left.axhline(1, color=GRAY, linewidth=0.8)
    left.set_yscale("log", base=2)
    low, high = (cut(math.log2(of(row.ratio for row in rows))) for cut, of in ((math.floor, min), (math.ceil, max)))
    left.set_ylim(0.9 * 2.0**low, 1.1 * 2.0 ** max(high, low + 1))
    left.set_yticks([2.0**power for power in range(low, max(high, low + 1) + 1)])
    left.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    left.set_ylabel("times as fast as dense, 16 bits (log)")
    right.set_ylim(0, max(105, 105 * max(row.ceiling_fraction for row in rows)))
    right.set_ylabel("part of the nearer ceiling (%)")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    figure.legend(loc="outside lower center", ncols=4)
    figure.alt = f"{title}. Times as fast as dense in 16 bits: {'; '.join(said)}."
    return figure


def sentence(gpu: str, scheme: str, tokens: int, outputs: int, inputs: int = 8192) -> str:
    """What the roofline of a data sheet says of one product."""
    limits, chosen, plain = datasheet(gpu), SCHEMES[scheme], SCHEMES["16 bits"]
    if chosen.rate not in limits.rates:
        return f"The data has no {chosen.rate} rate of the {gpu}."
    here = limits.time(chosen.work(tokens, outputs, inputs), chosen.rate)
    base = limits.time(plain.work(tokens, outputs, inputs), plain.rate)
    return (
        f"Bound by {here.bound}: at least {_microseconds(here.seconds)}, "
        f"at most {base.seconds / here.seconds:.2f} times as fast as 16 bits"
    )


@styled
def one_product(
    gpu: str = "H100-80GB", scheme: str = "4-bit weights", tokens: int = 1, outputs: int = 8192, inputs: int = 8192
) -> Figure:
    """The roofline of a data sheet with one product, the same product with other numbers of tokens, and a sentence.

    Args:
        scheme: a name of `SCHEMES`.
    """
    limits, chosen = datasheet(gpu), SCHEMES[scheme]
    figure, axis = new_figure(7.4, 4.0)
    rates = [rate for rate in dict.fromkeys(("fp16", chosen.rate)) if rate in limits.rates]
    _roof(axis, limits, rates, 0.3, 20000)
    if chosen.rate in limits.rates:
        counts = [count for count in COUNTS if count != tokens] + [tokens]  # the large mark in front
        marks = [Mark(f"{count:,}", chosen.work(count, outputs, inputs), chosen.rate) for count in counts]
        for mark, count in zip(marks, counts, strict=True):
            at, size = (mark.work.intensity, _rate(mark, limits) / 1e12), 11 if count == tokens else 5
            axis.plot(*at, markersize=size, mec=INK, **looks([scheme])[scheme])
        _label(axis, [*marks[:-1], replace(marks[-1], label=f"{tokens:,} token{'s' * (tokens > 1)}")], limits)
    told = sentence(gpu, scheme, tokens, outputs, inputs)
    axis.set_title(f"{gpu} (data sheet), {scheme}, {outputs} x {inputs}\n{told}")
    figure.alt = f"Roofline of the {gpu}, {scheme}, {outputs} outputs, {inputs} inputs, {tokens} tokens. {told}."
    return figure


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _microseconds(seconds: float) -> str:
    return f"{_number(1e6 * seconds)} µs"
