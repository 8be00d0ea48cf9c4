"""Pictures of monitoring: which check catches what, a score on its way to the limit, and the size of an A/B test."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from numpy.typing import NDArray

from qlab.deploy.quality.monitoring import Caught, Table
from qlab.deploy.quality.power import ab_power

from .style import BLUE, GRAY, INK, PALETTE, Figure, new_figure, styled

_SHADES = LinearSegmentedColormap.from_list("caught", ["#FFFFFF", BLUE])


@styled
def caught(table: Table, title: str = "Which check catches what") -> Figure:
    """Every check (rows) on every degradation (columns): the part of the runs with an alarm, and how late it came.

    Darker is more often; the numbers say the same. "4k" is the median run's live requests until the alarm, and nothing
    stands there before launch or where most runs saw nothing. The first column is false alarms.
    """
    rows, columns = table.checks, table.rows
    power = np.array([[table.get(check, harm).power for harm in columns] for check in rows])
    figure, axis = new_figure(2.6 + 0.92 * len(columns), 1.3 + 0.36 * len(rows))
    axis.imshow(power, cmap=_SHADES, vmin=0, vmax=1, aspect="auto")
    for y, check in enumerate(rows):
        for x, harm in enumerate(columns):
            color = "white" if power[y, x] > 0.6 else INK
            axis.text(x, y, _cell(table.get(check, harm)), ha="center", va="center", color=color, fontsize=8.5)
    axis.set_xticks(range(len(columns)), [_folded(name) for name in columns])
    axis.set_yticks(range(len(rows)), rows)
    axis.tick_params(length=0, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)
    axis.set_title(f"{title}\nruns with an alarm (%), and live requests until then")
    said = []
    for harm in columns[1:]:
        seen = [check for check in rows if table.get(check, harm).power >= 0.8]
        said.append(f"{harm}: {', '.join(seen) or 'no check'}")
    figure.alt = f"{title}. In at least 80 % of the runs, {'; '.join(said)}."
    return figure


@styled
def paths(
    times: NDArray[np.float64],
    scores: Mapping[str, NDArray[np.float64]],
    limit: float | None = None,
    title: str = "A score and its limit",
) -> Figure:
    """Scores over live requests: for each name the median run, and a band from the 10th to the 90th percentile.

    Args:
        times: (looks,) live requests.
        scores: by name (runs, looks), as a check's `score` gives.

    Raises:
        ValueError: nothing to draw, or scores of another length than the times.
    """
    if not scores or any(score.shape[1:] != times.shape for score in scores.values()):
        shapes = {name: score.shape for name, score in scores.items()}
        raise ValueError(f"scores: got {shapes}; give one or more, each of shape (runs, {len(times)})")
    figure, axis = new_figure(7.2, 3.4)
    words = []
    styles = ("-", "--", "-.", ":")
    for k, (name, score) in enumerate(scores.items()):
        low, middle, high = np.percentile(score, (10, 50, 90), axis=0)
        axis.fill_between(times, low, high, color=PALETTE[k], alpha=0.18, linewidth=0)
        axis.plot(times, middle, styles[k % len(styles)], color=PALETTE[k], linewidth=1.8, label=name)
        words.append(f"{name} ends at {middle[-1]:.3g}")
    if limit is not None:
        axis.axhline(limit, color=INK, linewidth=1, label="limit")
        words.append(f"the limit is {limit:.3g}")
    axis.set_xlabel("live requests")
    axis.set_ylabel("score (log likelihood ratio)")
    axis.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.set_title(title)
    axis.grid(alpha=0.25)
    axis.legend(loc="upper left")
    figure.alt = f"{title}: medians, with bands from the 10th to the 90th percentile; {'; '.join(words)}."
    return figure


@styled
def ab_sizes(
    rate: float,
    drops: Sequence[float],
    sizes: Sequence[int],
    alpha: float = 0.05,
    title: str = "What an A/B test can see",
) -> Figure:
    """The power of an A/B test against users in each arm, one line for each drop of a rate.

    Args:
        rate: of the metric in health, such as 0.1 where one user in ten buys.
        drops: relative, 0.02 for 2 % fewer.
        sizes: users in each arm.

    Raises:
        ValueError: no drops or sizes, more drops than the palette has colors, or as `ab_power`.
    """
    if not drops or not sizes:
        raise ValueError(f"drops, sizes: got {len(drops)} and {len(sizes)}; give one or more of each")
    if len(drops) > len(PALETTE):
        raise ValueError(f"drops: got {len(drops)}; eyes can tell {len(PALETTE)} colors apart")
    figure, axis = new_figure(7.2, 3.5)
    ordered, words, styles = sorted(sizes), [], ("-", "--", "-.", ":")
    for k, drop in enumerate(drops):
        power = [100 * ab_power(rate, rate * (1 - drop), n, alpha) for n in ordered]
        axis.plot(
            ordered, power, styles[k % len(styles)], color=PALETTE[k], linewidth=1.8, label=f"{100 * drop:g} % fewer"
        )
        words.append(f"{100 * drop:g} % fewer: {power[0]:.0f} % to {power[-1]:.0f} %")
    axis.axhline(80, color=GRAY, linewidth=1)
    axis.annotate("80 %", (0, 80), (4, 3), xycoords=axis.get_yaxis_transform(), textcoords="offset points", fontsize=8)
    axis.set(xscale="log", ylim=(0, 102))
    axis.set_xlabel("users in each arm (log scale)")
    axis.set_ylabel("tests that see it (%)")
    axis.set_title(f"{title}, from a rate of {100 * rate:g} %")
    axis.grid(alpha=0.25)
    axis.legend(loc="upper left", bbox_to_anchor=(0, 0.75))
    figure.alt = (
        f"{title}, from a rate of {100 * rate:g} %, with {ordered[0]:,} to {ordered[-1]:,} users in each arm. "
        f"Power: {'; '.join(words)}."
    )
    return figure


def _cell(one: Caught) -> str:
    late = "" if not one.requests else f"\n{one.requests / 1000:.0f}k"
    return f"{100 * one.power:.0f}{late}"


def _folded(name: str) -> str:
    """A name in two lines at the space nearest to its middle."""
    spaces = [i for i, letter in enumerate(name) if letter == " "]
    if not spaces:
        return name
    middle = min(spaces, key=lambda i: abs(i - len(name) / 2))
    return f"{name[:middle]}\n{name[middle + 1 :]}"
