"""Call a learner's function on the grader's inputs, in the learner's kernel, and write down what it did.

The grader puts a call of `collect` in the place of each locked check. It runs where the learner's code has run before,
so a learner can make it write anything at all. That is no way to a point: what it writes has to be the right answer on
inputs that the learner has not seen, and what is right is not known in this process. To forge the answers is to compute
them.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from ..observe import Foreign, Observation, observe
from ..question import Case
from . import exchange

_MAX_ANSWER = 1 << 20  # bytes of one answer; those of the course take some hundred


def collect(grade_id: str, name: str) -> None:
    """Call the function of that name in the caller's namespace on every case, and write the observations."""
    function = sys._getframe(1).f_globals.get(name)
    box = Path(os.environ["QLAB_BOX"])
    seconds = json.loads((box / "in" / "plan.json").read_text(encoding="utf-8"))["cell_seconds"]
    seen: list[Observation] = []
    for case in exchange.read_cases(box / "in", grade_id):
        try:
            seen.append(_observe(function, case))
        except KeyboardInterrupt:
            late = f"your function was interrupted; all of its calls together may take {seconds:g} s"
            seen.append(Observation("error", message=late))
            break
        if seen[0].kind == "not attempted":
            break
    exchange.write_observations(box / "out", grade_id, seen)
    print(f"{name}: collected, {len(seen)} calls. It is judged outside of this notebook.")


def _observe(function: Any, case: Case) -> Observation:
    try:
        [seen] = observe(function, [case])
        if (size := _size(seen.value)) > _MAX_ANSWER:
            return Observation("error", message=f"the answer holds {size:,} bytes, far too many")
        exchange.encode(seen.value, {})  # a value that cannot be carried costs this case and not all of them
        return seen
    except KeyboardInterrupt:  # by the worker, when the time is over
        raise
    except BaseException as error:  # an exception whose text raises, a value that cannot be looked at
        return Observation("error", message=f"your answer cannot be looked at: {type(error).__name__}")


def _size(value: Any) -> int:
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, Foreign):
        return len(value.type_name)
    if isinstance(value, str):
        return 4 * len(value)
    if isinstance(value, dict):
        return sum(map(_size, value)) + sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, tuple) else 8
