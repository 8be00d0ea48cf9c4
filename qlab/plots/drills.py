"""Pictures of drills: how the share of right answers moves, topic by topic."""

from __future__ import annotations

from collections.abc import Sequence

from qlab.learn.progress import Event

from .style import PALETTE, Figure, new_figure, styled

_STYLES = ("-", "--", "-.", ":")
_DAY = 24 * 3600


@styled
def shares(history: Sequence[Event], window: int = 10, title: str = "Right answers by topic") -> Figure:
    """One line for each topic: of the last `window` drills of it, how many were right, over days since the first drill.

    A line begins when its topic was asked `window` times; topics that were asked less are not drawn.

    Args:
        history: events of any kind, oldest first.
        window: drills that one point is read from, 1 or more.

    Raises:
        ValueError: `window` is out of range, no topic was asked so often, or more topics than the palette has colors.
    """
    if window < 1:
        raise ValueError(f"window: got {window}; give 1 or more")
    drills = [event for event in history if event.kind == "drill"]
    topics: dict[str, list[Event]] = {}
    for event in drills:
        topics.setdefault(event.question.split(".")[1], []).append(event)
    topics = {name: events for name, events in topics.items() if len(events) >= window}
    if not 1 <= len(topics) <= len(PALETTE):
        raise ValueError(
            f"history: got {len(topics)} topics with {window} drills or more; give 1 to {len(PALETTE)} of them"
        )
    figure, axis = new_figure(7.2, 3.4)
    words = []
    for k, (name, events) in enumerate(topics.items()):
        right = [event.outcome == "passed" for event in events]
        ends = range(window, len(events) + 1)
        days = [(events[end - 1].time - drills[0].time).total_seconds() / _DAY for end in ends]
        percent = [100 * sum(right[end - window : end]) / window for end in ends]
        axis.plot(days, percent, _STYLES[k % len(_STYLES)], marker=".", color=PALETTE[k], linewidth=1.8, label=name)
        words.append(f"{name} from {percent[0]:.0f} % to {percent[-1]:.0f} %")
    axis.set_xlim(left=0)
    axis.set_ylim(-4, 104)
    axis.set_xlabel("days since the first drill")
    axis.set_ylabel(f"right of the last {window} (%)")
    axis.set_title(title)
    axis.grid(alpha=0.25)
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    figure.alt = f"{title}, of the last {window} each: {'; '.join(words)}."
    return figure
