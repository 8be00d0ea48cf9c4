"""Pictures of the model of time: predicted against published speeds, how errors spread, where a step's time goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from qlab.deploy.speed.phases import PARTS, Phase
from qlab.deploy.speed.validation import Comparison, Validation

from .style import BLUE, GRAY, GREEN, INK, ORANGE, PINK, RED, SKY, Figure, new_figure, styled

BANDS = ((0.5, "#EEEEEE"), (0.25, "#D5D5D5"))  # relative errors and their shades, the wider first
FAMILIES = {  # the first word of a stack's name: label, color, marker
    "tensorrt-llm": ("TensorRT-LLM, QServe", BLUE, "o"),
    "vllm": ("vLLM", GREEN, "s"),
    "transformers": ("transformers, bitsandbytes", ORANGE, "D"),
    "single": ("TinyChat, ExLlamaV2", PINK, "^"),
    "gpt-fast": ("gpt-fast", SKY, "v"),
}


@styled
def predicted(found: Validation, title: str = "Published speeds and what the roofline says") -> Figure:
    """Predicted against published, both logarithmic; gray bands hold errors up to 25 % and 50 %.

    Tokens per second, milliseconds per token and times as fast share the axes: each row is compared in its own number.
    Rows that are missed by more than half are ringed.
    """
    figure, axis = new_figure(6.6, 6.0)
    values = np.array([[one.published, one.predicted] for one in found.comparisons])
    low, high = values.min() / 1.6, values.max() * 1.6
    line = np.array([low, high])
    for error, shade in BANDS:
        axis.fill_between(line, line * (1 - error), line * (1 + error), color=shade, linewidth=0)
    axis.plot(line, line, color=INK, linewidth=1)
    for family, (label, color, marker) in FAMILIES.items():
        rows = _points([one for one in found.comparisons if _family(one) == family])
        if len(rows):
            axis.plot(*rows.T, marker, color=color, markersize=5, markeredgecolor=INK, markeredgewidth=0.4, label=label)
    if found.misses:
        axis.plot(
            *_points(found.misses).T, "o", color="none", markersize=11, markeredgecolor=RED, label="error above 50 %"
        )
    axis.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(lambda value, _: f"{value:,g}")
    axis.set_xlabel("published: tokens/s, ms per token, or times as fast (log scale)")
    axis.set_ylabel("predicted, in the same unit (log scale)")
    axis.set_title(f"{title}\nbands: errors up to 25 % and 50 %")
    axis.legend(loc="upper left")
    figure.alt = (
        f"{title}: {len(found.comparisons)} points between {values.min():.3g} and {values.max():,.0f}, around the "
        f"diagonal. Median absolute error {found.median:.0%}; {found.within(0.25):.0%} of the points lie within 25 %, "
        f"{found.within(0.5):.0%} within 50 %; {len(found.misses)} are ringed."
    )
    return figure


@styled
def errors(found: Mapping[str, Validation], title: str = "How far off") -> Figure:
    """The part of the rows whose absolute error is at most so large, one line for each validation by name."""
    figure, axis = new_figure(7.0, 3.4)
    said = []
    for (name, one), color, style in zip(found.items(), (BLUE, RED, GREEN), ("-", "--", "-."), strict=False):
        sizes = np.sort([abs(row.error) for row in one.comparisons])
        share = np.arange(1, len(sizes) + 1) / len(sizes)
        axis.step(100 * sizes, 100 * share, where="post", color=color, linestyle=style, linewidth=2, label=name)
        said.append(f"{name}: median {one.median:.0%}, {one.within(0.25):.0%} of the rows within 25 %")
    for limit in (25, 50):
        axis.axvline(limit, color=GRAY, linewidth=0.8)
    axis.set(xlim=(0, 100), ylim=(0, 100))
    axis.set_xlabel("absolute relative error (%)")
    axis.set_ylabel("rows with at most this error (%)")
    axis.set_title(title)
    axis.legend(loc="lower right")
    figure.alt = f"{title}. {'; '.join(said)}."
    return figure


@styled
def phases(found: Mapping[str, Phase], title: str) -> Figure:
    """Where the time of some passes goes, one bar for each by name, with what bounds it in words."""
    figure, axis = new_figure(7.6, 0.9 + 0.5 * len(found))
    left = np.zeros(len(found))
    for part, color in zip(PARTS, (BLUE, SKY, ORANGE, GREEN, GRAY), strict=True):
        size = 1e3 * np.array([phase.parts[part] for phase in found.values()])
        if size.any():
            axis.barh(list(found), size, left=left, color=color, label=part, height=0.6)
        left += size
    for y, (total, phase) in enumerate(zip(left, found.values(), strict=True)):
        axis.text(total, y, f"  {total:.3g} ms, {phase.bound}", va="center", fontsize=9)
    axis.invert_yaxis()
    axis.set_xlim(0, 1.35 * left.max())
    axis.set_xlabel("milliseconds")
    axis.set_title(title)
    figure.legend(loc="outside lower center", ncols=len(PARTS))
    figure.alt = f"{title}: " + "; ".join(
        f"{name} {total:.3g} ms, bound by {phase.bound}"
        for (name, phase), total in zip(found.items(), left, strict=True)
    )
    return figure


def _family(one: Comparison) -> str:
    return one.reading.job.kernels.split()[0]


def _points(rows: Sequence[Comparison]) -> NDArray[np.float64]:
    return np.array([[one.published, one.predicted] for one in rows])
