"""Pictures of choosing a method: what each workload loses, flips, pairs, bits against KL, and the tree of decisions."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from qlab.deploy.entries import look_up
from qlab.deploy.planning import choosing
from qlab.deploy.planning.choosing import Decision, Situation
from qlab.deploy.quality.measured import REFERENCE, Quality, quality
from qlab.deploy.quality.power import Flips, flips

from .style import BLUE, GRAY, INK, ORANGE, PALETTE, RED, SKY, Figure, new_figure, styled

_LOST = LinearSegmentedColormap.from_list("lost", ["#FFFFFF", "#F6C9A8", ORANGE])
_LEAVES = {(REFERENCE,): SKY, ("INT8 channel", "W8A8", "FP8"): "#A7DBC9", choosing.FOUR_BITS: "#F3D08A"}


@styled
def lost_map(measured: Quality, methods: Sequence[str], title: str = "Accuracy against 16 bits, in points") -> Figure:
    """Methods (rows) by workloads (columns): change ± paired standard error, and whether it is more than noise.

    "lost" or "gained" stands where the exact paired test has p < 0.05, "noise" where something flipped and it has not,
    and nothing where no verdict flipped. Darker is more lost; the words say the same.

    Raises ValueError for no methods, or an unknown one.
    """
    if not methods:
        raise ValueError("methods: got none; name one or more of the quality file")
    before, columns = measured.method(REFERENCE).answers, measured.workloads
    figure, axis = new_figure(1.9 + 1.02 * len(columns), 1.0 + 0.42 * len(methods))
    shade, said = np.zeros((len(methods), len(columns))), []
    for y, method in enumerate(methods):
        hurt = []
        for x, workload in enumerate(columns):
            found = flips(before[workload].correct, measured.method(method).answers[workload].correct)
            word = _verdict(found)
            strong = word in ("lost", "gained")
            shade[y, x] = -100 * found.change if word == "lost" else 0
            text = "0" if not word else f"{100 * found.change:+.1f} ± {100 * paired_error(found):.1f}\n{word}"
            weight = "bold" if strong else "normal"
            axis.text(x, y, text, ha="center", va="center", fontsize=8, weight=weight, color=INK if strong else GRAY)
            if strong:
                hurt.append(f"{workload} {100 * found.change:+.1f}")
        said.append(f"{method}: {', '.join(hurt) or 'nothing beyond noise'}")
    axis.imshow(shade, cmap=_LOST, vmin=0, vmax=25, aspect="auto")
    axis.set_xticks(range(len(columns)), columns)
    axis.set_yticks(range(len(methods)), methods)
    axis.set_xticks(np.arange(len(columns) + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(len(methods) + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="#DDDDDD", linewidth=0.8)
    axis.tick_params(which="both", length=0, labeltop=True, labelbottom=False)
    axis.spines[:].set_visible(False)
    axis.set_title(title)
    figure.alt = f"{title}, where it is more than noise. {'; '.join(said)}."
    return figure


@styled
def pairs(found: Flips, both_right: int) -> Figure:
    """The four kinds of pairs as a table, and the change of accuracy with its error, as pairs and as strangers.

    Args:
        found: the flips.
        both_right: examples that both models answer rightly.

    Raises ValueError if there are more of these than examples that did not flip.
    """
    rest = found.examples - found.lost - found.gained - both_right
    if rest < 0 or both_right < 0:
        raise ValueError(f"both_right: got {both_right}; allowed is 0 to {rest + both_right}, as the others flipped")
    figure, (table, line) = new_figure(7.6, 2.9, columns=2, width_ratios=(1, 1.35))
    cells = [[(both_right, "both right"), (found.lost, "lost")], [(found.gained, "gained"), (rest, "both wrong")]]
    for y, row in enumerate(cells):
        for x, (count, word) in enumerate(row):
            color = ORANGE if word == "lost" else SKY if word == "gained" else "white"
            table.add_patch(
                Rectangle((x - 0.46, y - 0.46), 0.92, 0.92, facecolor=color, edgecolor=INK, linewidth=0.8, alpha=0.75)
            )
            table.text(x, y, f"{count}\n{word}", ha="center", va="center", fontsize=11)
    table.set(xlim=(-0.5, 1.5), ylim=(1.5, -0.5))
    table.set_xticks([0, 1], ["right after", "wrong after"])
    table.set_yticks([0, 1], ["right\nbefore", "wrong\nbefore"])
    table.tick_params(length=0, labeltop=True, labelbottom=False)
    table.spines[:].set_visible(False)
    change = 100 * found.change
    errors = {"pairs": 100 * paired_error(found), "strangers": 100 * unpaired_error(found, both_right)}
    for y, (error, color) in enumerate(zip(errors.values(), (BLUE, GRAY), strict=True)):
        line.errorbar(change, y, xerr=1.96 * error, fmt="o", color=color, capsize=5, markersize=7, linewidth=2)
        line.text(change, y - 0.22, f"± {error:.2f}", ha="center", va="bottom", fontsize=9)
    line.axvline(0, color=INK, linewidth=0.9)
    line.set(ylim=(1.6, -0.7), xlabel="points; bars are 1.96 standard errors")
    line.set_yticks([0, 1], list(errors))
    line.set_title(f"change {change:+.1f} points, {found.examples} examples")
    figure.alt = (
        f"Of {found.examples} examples {both_right} both right, {found.lost} lost, {found.gained} gained, {rest} both "
        f"wrong: change {change:+.1f} points, standard error {errors['pairs']:.2f} as pairs and "
        f"{errors['strangers']:.2f} as two samples."
    )
    return figure


@styled
def flip_bars(rows: Mapping[str, Flips], title: str) -> Figure:
    """For each name a bar of lost answers to the left, of gained ones to the right, and a mark at their sum.

    Raises ValueError for no rows.
    """
    if not rows:
        raise ValueError("rows: got none; give one or more")
    figure, axis = new_figure(7.4, 1.2 + 0.34 * len(rows))
    for y, found in enumerate(rows.values()):
        axis.barh(y, -found.lost, color=ORANGE, height=0.66, hatch="//", edgecolor="white", label="lost" * (y == 0))
        axis.barh(y, found.gained, color=SKY, height=0.66, edgecolor="white", label="gained" * (y == 0))
        axis.plot(found.gained - found.lost, y, "D", color=INK, markersize=5, label="the accuracy moves" * (y == 0))
        text = f"   {found.lost} lost, {found.gained} gained"
        axis.text(found.gained, y, text, va="center", ha="left", fontsize=8.5)
    axis.axvline(0, color=INK, linewidth=0.9)
    axis.set_yticks(range(len(rows)), list(rows))
    axis.invert_yaxis()
    low, high = max(f.lost for f in rows.values()), max(f.gained for f in rows.values())
    axis.set_xlim(-1.05 * max(1, low), high + 0.4 * max(4, low + high))
    axis.set_xlabel("answers")
    axis.set_title(title, pad=24)
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=3, borderaxespad=0.2)
    said = [f"{name} {one.lost} lost, {one.gained} gained" for name, one in rows.items()]
    figure.alt = f"{title}: {'; '.join(said)}."
    return figure


@styled
def spend(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    points: Mapping[str, tuple[float, float]],
    title: str = "What the next bits buy",
) -> Figure:
    """KL against bits per weight: ways to spend as lines, single recipes as named points; the KL is logarithmic.

    Args:
        lines, points: (bits per weight, KL in nats per token).

    Raises ValueError for no lines, more lines and points than can be told apart, or a KL that is not above 0.
    """
    if not lines or len(lines) > 4 or len(points) > 6:
        raise ValueError(f"lines, points: got {len(lines)} and {len(points)}; give 1 to 4 and at most 6")
    every = [kl for line in lines.values() for _, kl in line] + [kl for _, kl in points.values()]
    if min(every) <= 0:
        raise ValueError(f"lines, points: got a KL of {min(every)}; a log scale has only numbers above 0")
    figure, axis = new_figure(7.4, 3.9)
    for (name, line), color, style in zip(lines.items(), PALETTE, ("o-", "s--", "^-.", "v:"), strict=False):
        axis.plot(*zip(*line, strict=True), style, color=color, markersize=5, label=name)
    for (name, (bits, kl)), marker in zip(points.items(), "DXP*hd", strict=False):
        axis.plot(bits, kl, marker, color=RED, markersize=9, markeredgecolor=INK, linestyle="", label=name)
    axis.set_yscale("log")
    axis.set_xlabel("bits per quantized weight, scales included")
    axis.set_ylabel("KL (nats per token, log scale)")
    axis.set_title(title)
    axis.grid(alpha=0.25)
    axis.legend(loc="upper right")
    said = [
        f"{n} from {a[0]:.3f} bits with {a[1]:.2g} to {b[0]:.3f} with {b[1]:.2g}" for n, (a, *_, b) in lines.items()
    ]
    said += [f"{name} {kl:.2g} at {bits:.3f}" for name, (bits, kl) in points.items()]
    figure.alt = f"{title}, KL in nats per token: {'; '.join(said)}."
    return figure


@dataclass
class _Node:
    answer: str = ""  # that leads here, and the number that decided it
    number: str = ""
    question: str = ""
    branches: dict[str, _Node] = field(default_factory=dict)
    leaf: str = ""
    y: float = 0.0


@styled
def tree(decisions: Sequence[Decision], title: str = "The tree, as the function answers") -> Figure:
    """Decisions that begin alike share their branches: a column for each question with its answers, methods at the end.

    Under each answer stands the number that decided it, in the first of the decisions that pass there.

    Raises:
        ValueError: no decisions, two that part without a question, or two that ask the same questions in another order.
    """
    if not decisions:
        raise ValueError("decisions: got none; give what choose() returned for one situation or more")
    root, questions = _Node(), _questions(decisions)
    for one in decisions:
        node = root
        for step in one.steps:
            if node.leaf or node.question not in ("", step.question):
                raise ValueError(
                    f"decisions: got {step.question!r} and {node.question or node.leaf!r} after the same answers"
                )
            node.question = step.question
            node = node.branches.setdefault(step.answer, _Node(step.answer, step.number))
        node.leaf = one.method or "nothing is left"
    cells: dict[str, list[float]] = {question: [] for question in questions}
    for step in (step for one in decisions for step in one.steps):
        cells[step.question].append(_width(step.answer, step.number))
    widths = [0.3 + max(0.045 * len(question), *cells[question]) for question in questions]  # inches
    left = dict(zip(questions, [0.0, *np.cumsum(widths)], strict=False))
    count, end = _place(root, 0), sum(widths)
    figure, axis = new_figure(end + 1.5, 1.35 + 0.47 * count)
    for question, x in left.items():
        words = textwrap.fill(question, max(9, round(0.62 * len(question))))
        axis.text(x, -1.0, words, ha="left", va="center", fontsize=9, color=BLUE)
    axis.text(end, -1.0, "Method", ha="left", va="center", fontsize=9, color=BLUE)
    _grow(axis, root, left, end)
    axis.set(xlim=(-0.1, end + 1.4), ylim=(count - 0.4, -1.5))
    axis.axis("off")
    axis.set_title(title)
    said = sorted({" / ".join((*(s.answer for s in d.steps), f"-> {d.method or 'nothing'}")) for d in decisions})
    figure.alt = f"{title}. {' '.join(questions)} Answers in order, and the method: {'; '.join(said)}."
    return figure


@styled
def path(situation: Situation, measured: Quality | None = None) -> Figure:
    """One situation: the questions with their answers and numbers, and the time of every method that is an option.

    What is no option stands there with the reason. Bars are milliseconds of the GPU for each request, as
    `choosing.seconds` computes them, and beside them is what a user waits: as many times that as are served at once.
    """
    table = quality() if measured is None else measured
    decision = choosing.choose(situation, table)
    names = (REFERENCE, *choosing.PRECISIONS)
    reasons = {name: choosing.obstacle(situation, name, table) for name in names}
    times = {name: 1000 * choosing.seconds(situation, name) for name in names if reasons[name] is None}
    rows = [(step.question, textwrap.wrap(step.answer, 18), textwrap.wrap(step.why, 58)) for step in decision.steps]
    heights = [0.6 + 0.5 * max(len(answer), len(why)) for _, answer, why in rows]
    lines = sum(heights) + 1.4
    title = (
        f"{situation.model} on {situation.gpu}, {situation.batch} at once, "
        f"{situation.prompt:,} tokens in and {situation.output:,} out"
    )
    figure, (words, bars) = new_figure(7.8, 3.3 + 0.27 * lines, rows=2, height_ratios=(0.27 * lines, 2.5))
    words.axis("off")
    words.set(xlim=(0, 1), ylim=(lines - 0.6, -0.6))
    words.set_title(title, x=-0.12)
    y = 0.0
    for (question, answer, why), height in zip(rows, heights, strict=True):
        words.text(-0.12, y, question, fontsize=9.5, va="top")
        words.text(0.245, y, "\n".join(answer), fontsize=9.5, va="top", weight="bold")
        words.text(0.485, y + 0.05, "\n".join(why), fontsize=8.2, va="top", color="#555555")
        y += height
    words.text(-0.12, y, f"→ {decision.method or 'nothing is left'}", fontsize=12, va="top", weight="bold")
    longest = max(times.values(), default=1.0)
    for row, name in enumerate(names):
        if name in times:
            chosen = name == decision.method
            bars.barh(row, times[name], color=BLUE if chosen else GRAY, height=0.62)
            wait = times[name] * situation.batch / 1000
            text = f"  {times[name]:,.0f} ms, a user waits {wait:.1f} s{': chosen' * chosen}"
            bars.text(times[name], row, text, va="center", fontsize=9)
        else:
            bars.text(0.01 * longest, row, f"no option: {reasons[name]}", va="center", fontsize=9, style="italic")
    bars.set_yticks(range(len(names)), names)
    bars.set_ylim(len(names) - 0.4, -0.6)
    bars.set_xlim(0, 1.75 * longest)
    if times:
        bars.set_xlabel("time of the GPU for each request (ms), computed")
    else:
        bars.set_xticks([])
        bars.spines["bottom"].set_visible(False)
    said = [f"{name} {times[name]:,.0f} ms" if name in times else f"{name}: {reasons[name]}" for name in names]
    asked = "; ".join(f"{step.question} {step.answer}" for step in decision.steps)
    figure.alt = f"{title}. {asked}. Chosen: {decision.method or 'nothing'}. {'; '.join(said)}."
    return figure


TRAFFIC = {"chat": (512, 256), "long answers": (128, 512), "summaries": (3000, 100)}  # tokens in, and out


def chosen(
    gpu: str = "A100-80GB",
    at_once: int = 8,
    traffic: str = "chat",
    calibration: bool = True,
    floor: float = 0.02,
) -> Figure:
    """`path` for the knobs of an explorer: Llama-3.1-8B, with nano's table in place of its own.

    Raises TypeError or ValueError for a traffic that is not in TRAFFIC or a floor that is no part of one, and as
    `choosing.choose`.
    """
    choosing.check_floor("floor", floor)
    prompt, output = look_up("traffic", traffic, TRAFFIC)
    return path(
        Situation(gpu=gpu, batch=at_once, prompt=prompt, output=output, calibration=calibration, most_lost=floor)
    )


def paired_error(found: Flips) -> float:
    """Standard error of the change, from the same examples: √(lost + gained - (gained - lost)² / n) / n."""
    n, moved = found.examples, found.gained - found.lost
    return math.sqrt(found.lost + found.gained - moved**2 / n) / n


def unpaired_error(found: Flips, both_right: int) -> float:
    """Standard error of the change, as if each accuracy came from examples of its own."""
    rates = ((both_right + wrong) / found.examples for wrong in (found.lost, found.gained))
    return math.sqrt(sum(rate * (1 - rate) for rate in rates) / found.examples)


def _verdict(found: Flips) -> str:
    if not found.lost + found.gained:
        return ""
    if found.p_value >= 0.05:
        return "noise"
    return "lost" if found.change < 0 else "gained"


def _place(node: _Node, row: int) -> int:
    """Give every leaf a row of its own and every question the middle of its branches; the next free row."""
    if not node.branches:
        node.y = row
        return row + 1
    for branch in node.branches.values():
        row = _place(branch, row)
    node.y = sum(branch.y for branch in node.branches.values()) / len(node.branches)
    return row


def _questions(decisions: Sequence[Decision]) -> list[str]:
    """All questions, each after those that come before it in any of the decisions."""
    before: dict[str, set[str]] = {}
    for one in decisions:
        asked = [step.question for step in one.steps]
        for place, question in enumerate(asked):
            before.setdefault(question, set()).update(asked[:place])
    try:
        return list(TopologicalSorter(before).static_order())
    except CycleError as error:
        raise ValueError("decisions: got the same questions in two orders; draw those decisions apart") from error


def _grow(axis: Any, node: _Node, left: Mapping[str, float], end: float, x: float = 0.0) -> None:
    """Draw what comes after a node whose answer ends at x: lines, answers with their numbers, at last the method."""
    style = {"color": GRAY, "linewidth": 1, "zorder": 0}
    if node.leaf:
        axis.plot([x, end - 0.06], [node.y, node.y], **style)
        color = next((shade for names, shade in _LEAVES.items() if node.leaf in names), "#DDDDDD")
        box = {"boxstyle": "round,pad=0.3", "facecolor": color, "edgecolor": INK, "linewidth": 0.8}
        axis.text(end, node.y, node.leaf, ha="left", va="center", fontsize=9, weight="bold", bbox=box)
        return
    start = left[node.question]
    for branch in node.branches.values():
        if node.answer:
            axis.plot([x, start - 0.22, start - 0.05], [node.y, node.y, branch.y], **style)
        axis.text(start, branch.y - 0.05, branch.answer, ha="left", va="bottom", fontsize=9, weight="bold")
        axis.text(start, branch.y + 0.03, branch.number, ha="left", va="top", fontsize=8, color="#555555")
        _grow(axis, branch, left, end, start + _width(branch.answer, branch.number))


def _width(answer: str, number: str) -> float:
    """Inches that an answer and the number below it take, about."""
    return max(0.085 * len(answer), 0.069 * len(number))
