"""A picture of how far the interview score can be trusted: answers by what people gave them, length, and score."""

from __future__ import annotations

from collections.abc import Sequence

from qlab.learn.interview.agreement import NOTHING, Labelled, spearman

from .style import BLUE, GRAY, ORANGE, Figure, new_figure, styled


@styled
def length_and_score(answers: Sequence[Labelled]) -> Figure:
    """What each answer deserves by its labels, over its length on the left and over its score on the right.

    Real answers are circles; crosses are those that deserve nothing: off topic, stuffed with terms, empty.

    Raises:
        ValueError: fewer than two answers.
    """
    if len(answers) < 2:
        raise ValueError(f"answers: got {len(answers)}; give two or more")
    figure, axes = new_figure(7.6, 3.7, columns=2, sharey=True)
    deserved = [100 * one.deserved for one in answers]
    sides = {"words": [float(one.words) for one in answers], "score": [100 * one.score.said for one in answers]}
    for axis, xs in zip(axes, sides.values(), strict=True):
        for real in (True, False):
            chosen = [at for at, one in enumerate(answers) if (one.kind not in NOTHING) == real]
            color, marker, label = (BLUE, "o", "real answers") if real else (ORANGE, "X", "off topic, stuffed, empty")
            points = [xs[at] for at in chosen], [deserved[at] for at in chosen]
            axis.scatter(*points, s=44, color=color, marker=marker, label=label, edgecolor="white", zorder=2)
    axes[1].plot([0, 100], [0, 100], color=GRAY, linewidth=1, linestyle="--", zorder=1)
    axes[0].set(xlabel="words of the answer", ylabel="by the labels, % of the points", title="Length")
    axes[1].set(xlabel="by the scorer, % of the points", title="Score (dashed: as labelled)")
    axes[0].set_xlim(left=-6)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    by_words, by_score = (spearman(xs, deserved) for xs in sides.values())
    figure.alt = (
        f"{len(answers)} labelled answers. What they deserve against their length: the points scatter, rank "
        f"correlation {by_words:.2f}. Against the score: near the diagonal, rank correlation {by_score:.2f}."
    )
    return figure
