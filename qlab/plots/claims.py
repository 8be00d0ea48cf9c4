"""Pictures of the claim ledger: verdicts by section, the sums behind a claim, and what an assumption flips."""

from __future__ import annotations

import itertools
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from qlab.deploy.claims import VERDICTS, Assumptions, Judged, claims
from qlab.deploy.claims.ledger import Verdict

from .style import BLUE, GRAY, GREEN, INK, ORANGE, RED, SKY, Figure, new_figure, styled

GB = 1e9
WORDS: dict[Verdict, str] = {"true": "true", "conditional": "true only if", "false": "false", "contested": "contested"}
COLORS: dict[Verdict, str] = {"true": SKY, "conditional": ORANGE, "false": RED, "contested": "#C8C8C8"}
INKS: dict[Verdict, str] = {verdict: "white" if verdict == "false" else INK for verdict in VERDICTS}
LETTERS: dict[Verdict, str] = {"true": "T", "conditional": "if", "false": "F", "contested": "?"}
PARTS = {"weights": BLUE, "overhead": ORANGE, "not used": GRAY, "left for the cache": GREEN}
LINES = 12  # flips that are listed below the map
NARROW = 3.0  # GB: a part of a bar that is smaller has its number below the bar
WIDE = 112  # characters of a line below the map


@styled
def tally(judged: Sequence[Judged]) -> Figure:
    """How many claims of each section have which verdict, as stacked bars with the numbers in them."""
    counts = {name: Counter(one.verdict for one in judged if one.claim.section == name) for name in _sections(judged)}
    figure, axis = new_figure(7.6, 1.3 + 0.36 * len(counts))
    for y, count in enumerate(counts.values()):
        left = 0
        for verdict in VERDICTS:
            axis.barh(y, count[verdict], left=left, color=COLORS[verdict], edgecolor="white", height=0.76)
            if count[verdict]:
                middle = left + count[verdict] / 2
                axis.text(middle, y, count[verdict], ha="center", va="center", fontsize=9, color=INKS[verdict])
            left += count[verdict]
    for verdict in VERDICTS:
        axis.barh(0, 0, color=COLORS[verdict], label=WORDS[verdict])
    axis.set_yticks(range(len(counts)), list(counts))
    axis.invert_yaxis()
    axis.set_xlabel("claims")
    total = Counter(one.verdict for one in judged)
    axis.set_title(f"{len(judged)} claims by section and verdict", pad=24)
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, borderaxespad=0.2)
    said = [f"{name}: {', '.join(f'{n} {WORDS[v]}' for v, n in count.items())}" for name, count in counts.items()]
    figure.alt = (
        f"{len(judged)} claims, of them {', '.join(f'{total[v]} {WORDS[v]}' for v in VERDICTS)}. {'; '.join(said)}."
    )
    return figure


@styled
def sums(rows: Mapping[str, Mapping[str, float]], per_token: float, title: str) -> Figure:
    """Several sums over the memory of one card: bars of bytes, with the tokens that the rest holds.

    Args:
        rows: by name, the bytes of some of "weights", "overhead", "not used" and "left for the cache".
        per_token: bytes of KV cache for one token.
    """
    figure, axis = new_figure(7.8, 1.3 + 0.62 * len(rows))
    said = []
    for y, (name, parts) in enumerate(rows.items()):
        left = 0.0
        for part, color in PARTS.items():
            size = parts.get(part, 0.0) / GB
            axis.barh(y, size, left=left, color=color, height=0.62)
            if part != "left for the cache" and size:  # that one has its number at the right
                inside = size >= NARROW
                axis.text(
                    left + size / 2,
                    y if inside else y + 0.33,
                    f"{size:.2f}",
                    ha="center",
                    va="center" if inside else "top",
                    color="white" if inside else INK,
                    fontsize=9,
                )
            left += size
        rest = parts["left for the cache"]
        tokens = f"about {round(rest / per_token, -2):,.0f} tokens"
        axis.text(left, y, f"  {rest / GB:.2f} GB left,\n  {tokens}", va="center", fontsize=9)
        taken = ", ".join(
            f"{part} {parts[part] / GB:.2f} GB" for part in PARTS if parts.get(part) and parts[part] != rest
        )
        said.append(f"{name}: {taken}; {rest / GB:.2f} GB or {tokens} are left")
    for part, color in PARTS.items():
        axis.barh(0, 0, color=color, label=part)
    axis.set_yticks(range(len(rows)), list(rows))
    axis.set_ylim(len(rows) - 0.35, -0.5)
    axis.set_xlim(0, 1.28 * max(sum(parts.values()) for parts in rows.values()) / GB)
    axis.set_xlabel("GB (10⁹ bytes)")
    axis.set_title(title, pad=24)
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, borderaxespad=0.2)
    figure.alt = f"{title}. {'; '.join(said)}."
    return figure


@styled
def headroom(
    values: Sequence[float],
    tokens: Sequence[int],
    verdicts: Sequence[Verdict],
    levels: Mapping[str, int],
    name: str,
    at: float,
) -> Figure:
    """Tokens left against one assumption, the levels that a claim needs, and a band for every verdict that follows.

    Args:
        values, tokens, verdicts: of the assumption, of the cache, of the claim; as many of each. Tokens below zero
            are missing: the weights themselves do not fit.
        levels: tokens that the claim needs, by what needs them.
        name: of the assumption.
        at: the value that the ledger assumes.
    """
    figure, axis = new_figure(7.8, 4.0)
    top = 1.22 * max(*tokens, *levels.values())
    bottom = 1.15 * min(0, *tokens)
    for start, end, verdict in _runs(values, verdicts):
        axis.axvspan(start, end, color=COLORS[verdict], alpha=0.28, linewidth=0)
        axis.text((start + end) / 2, 0.96 * top, WORDS[verdict], ha="center", va="top", fontsize=9.5)
    axis.plot(values, tokens, color=BLUE, linewidth=2.2)
    axis.annotate(
        "what is left",
        (values[-1], tokens[-1]),
        (-6, 5),
        textcoords="offset points",
        ha="right",
        va="bottom",
        color=BLUE,
        fontsize=9.5,
    )
    if bottom:
        axis.axhline(0, color=INK, linewidth=0.9)
        axis.annotate("below: the weights do not fit", (values[-1], 0), (-4, -3), **_BELOW)
    for label, level in levels.items():
        axis.axhline(level, color=INK, linewidth=0.9, linestyle="--")
        axis.annotate(label, (values[0], level), (4, 2), textcoords="offset points", va="bottom", fontsize=8.5)
    axis.axvline(at, color=INK, linewidth=1, linestyle=":")
    axis.annotate(f"{at:g}", (at, bottom), (3, 3), textcoords="offset points", va="bottom", fontsize=9)
    axis.set_xlim(values[0], values[-1])
    axis.set_ylim(bottom, top)
    axis.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axis.set_xlabel(f"{name} (dotted: what the ledger assumes)")
    axis.set_ylabel("tokens of KV cache")
    axis.set_title("What is left, what the claim needs, and the verdict that follows")
    bands = [f"{WORDS[v]} from {start:.4g} to {end:.4g}" for start, end, v in _runs(values, verdicts)]
    missing = "Below 0 the weights do not fit. " if bottom else ""
    figure.alt = (
        f"Tokens of KV cache against {name}: {tokens[0]:,} at {values[0]:g}, {tokens[-1]:,} at {values[-1]:g}. "
        f"{missing}The claim needs {', '.join(f'{level:,} for {label}' for label, level in levels.items())}. "
        f"Verdict: {', '.join(bands)}."
    )
    return figure


@styled
def strips(values: Sequence[float], verdicts: Mapping[str, Sequence[Verdict]], name: str, at: float) -> Figure:
    """For each claim a strip along one assumption, cut where its verdict changes, with the verdicts as words.

    Raises:
        ValueError: there is no claim to draw.
    """
    if not verdicts:
        raise ValueError(f"verdicts: got none; no claim flips along {name}, so draw another assumption")
    figure, axis = new_figure(7.8, 1.2 + 0.42 * len(verdicts))
    said = []
    for y, (id, found) in enumerate(verdicts.items()):
        beside: list[str] = []
        for start, end, verdict in _runs(values, found):
            axis.barh(y, end - start, left=start, color=COLORS[verdict], edgecolor="white", height=0.8)
            if end - start > 0.13 * (values[-1] - values[0]):
                axis.text((start + end) / 2, y, WORDS[verdict], ha="center", va="center", color=INKS[verdict])
            else:  # no room for a word in it, so the word stands at the right
                beside.append(WORDS[verdict])
        axis.text(values[-1], y, "  " + ", ".join(beside), va="center")
        said.append(f"{id} " + ", ".join(f"{WORDS[v]} up to {end:.4g}" for _, end, v in _runs(values, found)))
    axis.axvline(at, color=INK, linewidth=1, linestyle=":")
    axis.set_xlim(values[0], values[-1])
    axis.set_yticks(range(len(verdicts)), list(verdicts))
    axis.invert_yaxis()
    axis.set_xlabel(f"{name} (dotted: what the ledger assumes)")
    axis.set_title(f"Verdicts along {name}")
    figure.alt = f"Verdicts along {name}: {'; '.join(said)}."
    return figure


@styled
def flip_map(**changes: Any) -> Figure:
    """All claims as tiles with their numbers and the letters of their verdicts, judged under changed assumptions.

    Those whose verdict flips are framed, and listed below in full.

    Args:
        changes: fields of `Assumptions`, such as gpu_memory_utilization=0.95; the others keep their defaults.
    """
    judged = claims(replace(Assumptions(), **changes))
    flipped = [one for one in judged if one.flipped]
    told = [f"{one.id} {WORDS[one.claim.verdict]} → {WORDS[one.verdict]}: {one.claim.says}" for one in flipped]
    lines = [line for text in told[:LINES] for line in textwrap.wrap(text, WIDE, subsequent_indent="          ")]
    lines += [f"and {len(told) - LINES} more"] * (len(told) > LINES)
    lines = lines or ["No verdict flips."]
    listed = 0.25 + 0.175 * len(lines)
    figure, (axis, below) = new_figure(7.8, 4.3 + listed, rows=2, height_ratios=(4.0, listed))
    sections = _sections(judged)
    for y, name in enumerate(sections):
        row = [one for one in judged if one.claim.section == name]
        tiles = [(x - 0.43, 0.86) for x in range(len(row))]
        axis.broken_barh(
            tiles,
            (y - 0.41, 0.82),
            facecolors=[COLORS[one.verdict] for one in row],
            edgecolors=[INK if one.flipped else "white" for one in row],
            linewidths=[2.4 if one.flipped else 0 for one in row],
        )
        for x, one in enumerate(row):
            text = f"{int(one.id[1:])}\n{LETTERS[one.verdict]}"
            axis.text(x, y, text, ha="center", va="center", fontsize=7, linespacing=1.1, color=INKS[one.verdict])
    for verdict in VERDICTS:
        axis.barh(0, 0, color=COLORS[verdict], label=f"{LETTERS[verdict]}  {WORDS[verdict]}")
    axis.set_yticks(range(len(sections)), sections)
    axis.tick_params(length=0)
    axis.set_xticks([])
    axis.margins(x=0)
    axis.invert_yaxis()
    axis.spines[:].set_visible(False)
    axis.set_title(f"{len(flipped)} of {len(judged)} verdicts flip (framed); tile 21 is claim C021", pad=24)
    axis.legend(loc="lower left", bbox_to_anchor=(0, 1.0), ncols=4, borderaxespad=0.2)
    below.axis("off")
    below.text(0, 1, "\n".join(lines), va="top", fontsize=8.5, linespacing=1.45)
    given = ", ".join(f"{name} {value}" for name, value in changes.items()) or "the ledger's own assumptions"
    figure.alt = f"{len(flipped)} of {len(judged)} verdicts flip under {given}. {' '.join(told)}".rstrip()
    return figure


_BELOW: dict[str, Any] = {"textcoords": "offset points", "ha": "right", "va": "top", "fontsize": 8.5}


def _sections(judged: Sequence[Judged]) -> list[str]:
    """The sections, the largest first."""
    return [name for name, _ in Counter(one.claim.section for one in judged).most_common()]


def _runs(values: Sequence[float], verdicts: Sequence[Verdict]) -> list[tuple[float, float, Verdict]]:
    """(from, to, verdict) for each run of equal verdicts; two runs meet half-way between their values."""
    runs: list[tuple[float, float, Verdict]] = []
    start = values[0]
    for (value, verdict), (following, other) in itertools.pairwise(zip(values, verdicts, strict=True)):
        if verdict != other:
            runs.append((start, (value + following) / 2, verdict))
            start = (value + following) / 2
    return [*runs, (start, values[-1], verdicts[-1])]
