"""A session of drills: which come, what is done with each reply, and what it comes to. Who asks is left open.

With a seed the questions are fixed beforehand, for a class or a script. Without one they follow the history.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..files import read_yaml
from ..progress import Event
from .kind import Drill, Kind
from .mark import Marked, judge
from .schedule import choose

PATIENCE = 3  # replies to one question that could not be judged; the last of them counts as wrong


@dataclass(frozen=True)
class Answered:
    """A drill with what was replied, and how it was marked."""

    drill: Drill
    reply: str
    marked: Marked

    def to_dict(self) -> dict[str, Any]:
        """Plain values, the solution among them."""
        told = {"reply": self.reply, "right": self.marked.right, "why": self.marked.why}
        return self.drill.to_dict(solution=True) | told

    @property
    def event(self) -> Event:
        """For the history."""
        outcome = "passed" if self.marked.right else "failed"
        return Event(f"drill.{self.drill.kind}", "drill", outcome=outcome, level=self.drill.level)


def fixed(kinds: Sequence[Kind], count: int, level: int | None, seed: int) -> list[Drill]:
    """So many drills, always the same for a seed. Kinds take turns in another order each round.

    Args:
        level: the nearest level that each kind has; None takes 1, then 2, then 3 from round to round.
    """
    rng = random.Random(f"fixed {seed}")
    found: list[Drill] = []
    rounds = 0
    while len(found) < count:
        rounds += 1
        for kind in rng.sample(kinds, len(kinds))[: count - len(found)]:
            found.append(kind.ask(f"{seed} {rounds}", kind.nearest(rounds if level is None else level)))
    return found


def adaptive(
    kinds: Sequence[Kind], count: int, level: int | None, history: list[Event], rng: random.Random
) -> Iterator[Drill]:
    """So many drills, each chosen when it is asked for: `history` may have grown since the one before."""
    for _ in range(count):
        kind, own = choose(history, kinds, datetime.now(UTC), rng)
        yield kind.ask(rng.randrange(2**53), own if level is None else kind.nearest(level))


def ask(drill: Drill, listen: Callable[[], str], explain: Callable[[Marked], None]) -> Answered | None:
    """Take replies until one can be judged; None where the reply is empty, which ends a session.

    Args:
        listen: gives the next reply. EOFError and KeyboardInterrupt from it end the session as well.
        explain: is told why a reply could not be judged.
    """
    for attempt in range(PATIENCE):
        try:
            reply = listen()
        except (EOFError, KeyboardInterrupt):
            return None
        if not reply.strip():
            return None
        marked = judge(drill, reply)
        if not marked.again or attempt == PATIENCE - 1:
            break
        explain(marked)
    return Answered(drill, reply, marked)


def marked(drills: Sequence[Drill], replies: Mapping[int, str]) -> list[Answered]:
    """Drills with their replies, by number from 1; one without a reply, or that cannot be judged, counts as missed."""
    return [Answered(one, replies.get(n, ""), judge(one, replies.get(n, ""))) for n, one in enumerate(drills, 1)]


def total(answers: Sequence[Answered]) -> str:
    """What a session came to, in a sentence or two."""
    if not answers:
        return "No drill was answered."
    right = sum(one.marked.right for one in answers)
    missed = sorted({one.drill.kind for one in answers if not one.marked.right})
    again = f" To repeat: {', '.join(missed)}." if missed else ""
    return f"{right} of {len(answers)} right.{again}"


def read_replies(path: Path) -> dict[int, str]:
    """Replies by the number of the question, from 1: a YAML list in order, or a mapping from number to reply.

    Raises:
        ValueError: the file is missing, no YAML, or of another form.
    """
    try:
        found = read_yaml(path)
    except ValueError as error:
        raise ValueError(f"answers: {error}; give a list of replies") from None
    if isinstance(found, list):
        found = dict(enumerate(found, 1))
    if not isinstance(found, Mapping) or not all(type(number) is int and number > 0 for number in found):
        raise ValueError(
            f"answers: {path} holds {type(found).__name__}; give a list of replies, or numbers with replies"
        )
    return {number: "" if reply is None else str(reply) for number, reply in found.items()}
