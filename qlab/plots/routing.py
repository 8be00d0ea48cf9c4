"""Pictures of tiered routing: accuracy against dollars, and the load from which a second tier pays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from qlab.deploy.quality.fleet import Server, fleet
from qlab.deploy.quality.routing import Outcome

from .style import BLUE, GRAY, INK, ORANGE, PALETTE, Figure, new_figure, styled

MARKERS = "sD^vPX*h"


@styled
def frontier(
    cascade: Sequence[tuple[float, Outcome]],
    others: Mapping[str, Outcome],
    title: str = "nano: accuracy against cost",
) -> Figure:
    """The cascade at every threshold as a line, other policies as points with names; bars are two standard errors.

    Args:
        cascade: as from `qlab.deploy.quality.routing.frontier`, from the lowest threshold to the highest.
        others: policies by name, such as everything to one tier.

    Raises:
        ValueError: a cascade of fewer than 2 points, or more policies than there are markers.
    """
    if len(cascade) < 2:
        raise ValueError(f"cascade: got {len(cascade)} points; give 2 or more")
    if len(others) > len(MARKERS):
        raise ValueError(f"others: got {len(others)} policies; eyes can tell {len(MARKERS)} markers apart")
    figure, axis = new_figure(7.2, 3.9)
    dollars = [outcome.dollars for _, outcome in cascade]
    change = 100 * np.array([outcome.change for _, outcome in cascade])
    error = 200 * np.array([outcome.stderr for _, outcome in cascade])
    axis.fill_between(dollars, change - error, change + error, color=BLUE, alpha=0.15, linewidth=0)
    axis.plot(dollars, change, "o-", color=BLUE, markersize=3.5, label="cascade: small first, asked again if unsure")
    # By chance, a cascade would win back in proportion to what it asks again.
    axis.plot(
        [dollars[0], dollars[-1]], [change[0], change[-1]], ":", color=GRAY, label="asked again by the toss of a coin"
    )
    for (name, outcome), marker in zip(others.items(), MARKERS, strict=False):
        axis.errorbar(
            outcome.dollars, 100 * outcome.change, yerr=200 * outcome.stderr, fmt=marker, color=ORANGE,
            markeredgecolor=INK, ecolor=GRAY, markersize=8, linewidth=1.2, label=name,
        )  # fmt: skip
    axis.axhline(0, color=INK, linewidth=0.8, zorder=0)
    axis.set_xlabel("dollars per request")
    axis.set_ylabel(f"accuracy against {cascade[0][1].against} (points)")
    axis.set_title(title)
    axis.grid(alpha=0.25)
    axis.legend(loc="lower right")
    points = "; ".join(f"{name} {100 * one.change:+.1f} at ${one.dollars:.3g}" for name, one in others.items())
    figure.alt = (
        f"{title}. The cascade goes from {change[0]:+.1f} points at ${dollars[0]:.3g} to {change[-1]:+.1f} at "
        f"${dollars[-1]:.3g} per request. {points}."
    )
    return figure


@styled
def cost_by_load(
    outcomes: Mapping[str, Outcome],
    servers: Mapping[str, Server],
    rates: Sequence[float],
    least: int = 1,
    title: str = "Replicas come whole",
) -> Figure:
    """Dollars per request of some policies against requests per second, with whole replicas; both axes logarithmic.

    Raises:
        ValueError: nothing to draw, more policies than the palette has colors, or as `fleet`.
    """
    if not outcomes or not rates:
        raise ValueError(f"outcomes, rates: got {len(outcomes)} and {len(rates)}; give one or more of each")
    if len(outcomes) > len(PALETTE):
        raise ValueError(f"outcomes: got {len(outcomes)} policies; eyes can tell {len(PALETTE)} colors apart")
    figure, axis = new_figure(7.2, 3.6)
    ordered, words = sorted(rates), []
    styles = ("-", "--", "-.", ":")
    for k, (name, outcome) in enumerate(outcomes.items()):
        dollars = [fleet(outcome, rate, servers, least).dollars_per_request for rate in ordered]
        axis.plot(ordered, dollars, styles[k % len(styles)], color=PALETTE[k], linewidth=1.8, label=name)
        words.append(
            f"{name} from ${dollars[0]:.2g} at {ordered[0]:.3g} to ${dollars[-1]:.2g} at {ordered[-1]:.3g} per second"
        )
    axis.set(xscale="log", yscale="log")
    axis.set_xlabel("requests per second (log scale)")
    axis.set_ylabel("dollars per request (log scale)")
    axis.set_title(title)
    axis.grid(alpha=0.25)
    axis.legend()
    figure.alt = f"{title}. Dollars per request: {'; '.join(words)}."
    return figure
