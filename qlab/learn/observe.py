"""Call a learner's function on the cases of a question, and keep what came back as plain values.

This runs where the learner's code runs: in the notebook's kernel, or in the grader's separate process. Nothing here
knows what is right.
"""

from __future__ import annotations

import copy
import dis
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch

from .question import Case


@dataclass(frozen=True)
class Observation:
    """What one call did.

    `value` is plain: CPU tensors, int, float, bool, str, None, and tuples and dicts of these; anything else that
    came back is a `Foreign`. `message` describes the exception of an "error", or why something was "not attempted".
    """

    kind: Literal["value", "error", "not attempted"]
    value: Any = None
    message: str = ""
    changed_input: bool = False


@dataclass(frozen=True)
class Foreign:
    """A value that no answer can hold; only the name of its type is kept."""

    type_name: str


def observe(function: Any, cases: Sequence[Case]) -> list[Observation]:
    """Call `function` on every case, on copies of the arguments; stop at the first call that was not attempted."""
    seen: list[Observation] = []
    for case in cases:
        seen.append(_call(function, case))
        if seen[-1].kind == "not attempted":
            break
    return seen


def _call(function: Any, case: Case) -> Observation:
    if function is None or function is ...:
        return Observation("not attempted", message="there is no function yet")
    if not callable(function):
        return Observation("error", message=f"a {type(function).__name__} was given; give the function, not its result")
    args = copy.deepcopy(case.args)
    try:
        value = function(*args)
    except NotImplementedError as error:
        return Observation("not attempted", message=_not_implemented(function, error))
    except (Exception, SystemExit) as error:
        return Observation("error", message=_describe(error))
    if value is ... or (value is None and _is_empty(function)):
        return Observation("not attempted", message="the function is still empty")
    return Observation("value", plain(value), changed_input=not _same(args, case.args))


def plain(value: Any) -> Any:
    """The value without what belongs to one process only: arrays become CPU tensors, lists become tuples."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value)
    if isinstance(value, torch.dtype):
        return str(value)
    if isinstance(value, np.ndarray):
        try:
            value = torch.from_numpy(np.ascontiguousarray(value).copy())
        except TypeError:  # strings, objects, or a number type that torch does not have
            return Foreign(f"numpy.ndarray of {value.dtype}")
    if isinstance(value, torch.Tensor):
        return value.detach().as_subclass(torch.Tensor).cpu().clone(memory_format=torch.contiguous_format)
    if isinstance(value, tuple | list):
        return tuple(plain(item) for item in value)
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    return Foreign(type(value).__name__)


def _not_implemented(function: Callable[..., Any], error: NotImplementedError) -> str:
    name = traceback.extract_tb(error.__traceback__)[-1].name
    own = getattr(function, "__name__", name)
    return "the function is still empty" if name == own else f"it calls {name}, which is still empty"


def _describe(error: BaseException) -> str:
    """The exception in one line, with the place in the learner's code where it came from."""
    # The last frame that is not inside an installed package: the line that the learner can change.
    frames = [f for f in traceback.extract_tb(error.__traceback__)[1:] if "site-packages" not in f.filename]
    where = f" (line {frames[-1].lineno} of the cell, in {frames[-1].name}: {frames[-1].line})" if frames else ""
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}{where}" if text else f"{type(error).__name__}{where}"


def _is_empty(function: Any) -> bool:
    """Whether the body is only a docstring, `pass` or `...`."""

    def empty() -> None:
        """Nothing."""

    try:
        return [i.opname for i in dis.get_instructions(function)] == [i.opname for i in dis.get_instructions(empty)]
    except TypeError:  # not a Python function
        return False


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return a.shape == b.shape and a.dtype == b.dtype and bool(torch.equal(a.nan_to_num(), b.nan_to_num()))
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return bool(a == b)
