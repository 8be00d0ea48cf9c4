"""What the cases have in common: nano's recorded answers, and numbers that are compared up to float rounding."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import torch

from ....deploy.quality.measured import REFERENCE, quality
from ... import properties as p
from ...question import Finding

_RTOL = 1e-6  # of what a number is made of; float32 holds it, and every wrong answer on record is further off


def near(got: Any, what: str, expected: float, size: float = 0.0, unit: str = "") -> Finding | None:
    """`got` is this number up to the rounding of floats.

    `size`: of the numbers that it is a difference of, where it may be much smaller than they are.
    """
    value = p.as_number(got)
    if value is not None and math.isfinite(value) and abs(value - expected) <= _RTOL * size:
        return None
    return p.number_near(got, what, expected, _RTOL, unit)


def listed(got: Any) -> Any:
    """A vector as the tuple of its numbers; all else as it is."""
    return tuple(got.tolist()) if isinstance(got, torch.Tensor) and got.ndim == 1 else got


def positions(got: Any) -> list[Any] | None:
    """A list of positions as numbers; None stands in it for what is no number, such as True. None: no list at all."""
    got = listed(got)
    return [p.as_number(one) for one in got] if isinstance(got, tuple) else None


def nano_texts(random: Random, method: str, workload: str, examples: int = 24) -> tuple[tuple[str, ...], ...]:
    """Right answers, nano's in 16 bits and nano's with this method, as texts: up to half of them differ.

    Which are right and which are the same is recorded; the texts are not, numbers stand for them.
    """
    measured = quality()
    before, after = (measured.method(name).answers[workload] for name in (REFERENCE, method))
    differ = [i for i, same in enumerate(after.same) if not same]
    rows = random.sample(differ, min(len(differ), examples // 2))
    rows += random.sample([i for i in range(len(after.same)) if i not in rows], examples - len(rows))
    random.shuffle(rows)
    texts = []
    for i in rows:
        number = random.randrange(100, 1000)
        first = number if before.correct[i] else number + 1
        second = first if after.same[i] else number if after.correct[i] else number + 2
        texts.append((str(number), str(first), str(second)))
    truth, one, other = zip(*texts, strict=True)
    return truth, one, other


def nano_doubts(
    random: Random, method: str, workload: str, examples: int = 120
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """nano's doubts in nats with this method, float64, and which answers are right with it and in 16 bits, bool."""
    small, large = (quality().method(name).answers[workload] for name in (method, REFERENCE))
    rows = random.sample(range(len(small.correct)), examples)
    doubts = torch.tensor([-math.log(small.confidence[i]) for i in rows], dtype=torch.float64)
    return doubts, torch.tensor([small.correct[i] for i in rows]), torch.tensor([large.correct[i] for i in rows])
