"""Pictures of money: what a million tokens costs, against the latency that users are promised."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from matplotlib.ticker import NullLocator

from qlab.deploy.cost import pareto
from qlab.deploy.planning.options import Option, Plan
from qlab.deploy.serving.workloads import duration

from .style import BLUE, GRAY, GREEN, INK, ORANGE, PINK, RED, SKY, Figure, new_figure, styled

COLORS = (BLUE, ORANGE, GREEN, PINK, SKY, RED)  # of as many kinds of server
HIGHEST = 30
Kind = tuple[str, str]  # names of GPU and precision


@styled
def cost_against_latency(plans: Sequence[Plan], title: str | None = None) -> Figure:
    """USD per million output tokens at the highest load within a limit, against that limit; both logarithmic.

    A colored line is a kind of server, GPU and precision, with the split and the machine that are cheapest at each
    limit; the kinds that come nearest to the cheapest have colors, the others are gray dots. Filled points are
    simulated, hollow ones estimated. The dark line goes through the recommended options that no other beats in both
    numbers, each named. What costs more than `HIGHEST` times the dearest of them is not shown.

    Args:
        plans: plans of one model and one workload at several limits, in any order, without a load that was asked for.

    Raises:
        ValueError: no plan, plans of several models or workloads, a plan for a load, or nothing that meets a target.
    """
    if not plans or len({(plan.model.name, plan.workload, plan.target.of) for plan in plans}) > 1:
        raise ValueError(f"plans: got {len(plans)}; give one or more, all of one model and one workload")
    if any(plan.qps is not None for plan in plans):
        raise ValueError("plans: one is for a load, and ranked by USD per month; leave qps out")
    ordered = sorted((plan for plan in plans if plan.choice is not None), key=lambda plan: plan.target.seconds)
    if not ordered:
        raise ValueError("plans: in none of them anything meets the target; give longer limits")
    points = _points(ordered)
    chosen = [(plan.target.seconds, plan.choice) for plan in ordered if plan.choice is not None]
    best = [chosen[index] for index in pareto([(seconds, one.usd_per_million) for seconds, one in chosen])]
    usd = [one.usd_per_million for _, one in best]

    figure, axis = new_figure(8.4, 5.0)
    colors = dict(zip(points, COLORS, strict=False))
    for kind, row in points.items():
        color, named = colors.get(kind, GRAY), kind in colors
        values = [one.usd_per_million for _, one in row]
        if named:
            where = "/".join(dict.fromkeys(one.instance.name for _, one in row))
            axis.plot([s for s, _ in row], values, color=color, linewidth=1, label=f"{kind[1]} on {kind[0]} ({where})")
        for (seconds, one), value in zip(row, values, strict=True):
            face = color if one.capacity is not None else "white"
            axis.plot(seconds, value, "o", color=color, markerfacecolor=face, markersize=6 if named else 3)
    axis.plot([seconds for seconds, _ in best], usd, color=INK, linewidth=2, zorder=1.5)
    for (seconds, one), value in zip(best, usd, strict=True):
        words = f"{one.replica.scheme.name}\n{one.replica.gpus} x {one.replica.gpu.name}\n{value:,.3g} USD"
        offset = {"xytext": (0, -9), "textcoords": "offset points", "ha": "center", "va": "top", "fontsize": 8}
        axis.annotate(words, (seconds, value), **offset)
    axis.plot([], [], "o", color=INK, markersize=5, label="simulated")
    axis.plot([], [], "o", color=INK, markerfacecolor="white", markersize=5, label="estimated")
    limits = [plan.target.seconds for plan in ordered]
    axis.set(xscale="log", yscale="log", xlim=(limits[0] / 1.3, limits[-1] * 1.3))
    axis.set_ylim(min(usd) / 3.5, HIGHEST * max(usd))
    axis.set_xticks(limits, [duration(seconds) for seconds in limits])
    axis.xaxis.set_minor_locator(NullLocator())
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axis.grid(axis="y", alpha=0.25)
    first = ordered[0]
    heading = title or f"{first.model.name}, {first.workload.name}: what a shorter wait costs"
    axis.set_xlabel(f"limit of the {first.target.of} for {first.target.percent:g} % of the requests (log scale)")
    axis.set_ylabel("USD per million output tokens (log scale)")
    axis.set_title(heading)
    figure.legend(loc="outside lower center", ncols=2)
    found = "; ".join(
        f"{duration(seconds)}: {value:,.3g} USD per million output tokens with {one.replica} on {one.instance.name}"
        for (seconds, one), value in zip(best, usd, strict=True)
    )
    figure.alt = f"{heading}. Cheapest within each limit: {found}."
    return figure


def _points(plans: Sequence[Plan]) -> dict[Kind, list[tuple[float, Option]]]:
    """For each kind of server its cheapest option at each limit; first those that come nearest to the recommended."""
    found: dict[Kind, list[tuple[float, Option]]] = {}
    nearest: dict[Kind, float] = {}
    for plan in plans:
        for kind, one in _cheapest(plan).items():
            found.setdefault(kind, []).append((plan.target.seconds, one))
            ratio = one.usd_per_million / plan.choice.usd_per_million if plan.choice else inf
            nearest[kind] = min(ratio, nearest.get(kind, inf))
    return {kind: found[kind] for kind in sorted(found, key=lambda kind: nearest[kind])}


def _kind(option: Option) -> Kind:
    return option.replica.gpu.name, option.replica.scheme.name


def _cheapest(plan: Plan) -> dict[Kind, Option]:
    found: dict[Kind, Option] = {}
    for one in plan.options:
        if one.possible and (_kind(one) not in found or one.usd_per_million < found[_kind(one)].usd_per_million):
            found[_kind(one)] = one
    return found
