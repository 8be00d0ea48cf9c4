"""Call a learner's function on the cases of a question, and keep what came back as plain values.

This runs where the learner's code runs: in the notebook's kernel, or in the grader's separate process. Nothing here
knows what is right.
"""

from __future__ import annotations

import contextlib
import copy
import dis
import sys
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import CodeType, TracebackType
from typing import Any, Literal

import numpy as np
import torch

from . import launch
from .question import Case, as_python

# What a learner cannot change: the standard library, installed packages, and this one.
_NOT_THE_LEARNERS = (*{sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")}, "<frozen ")
_QLAB = str(Path(__file__).parents[1])
_QUESTIONS = str(Path(__file__).with_name("questions"))


@dataclass(frozen=True)
class Observation:
    """What one call did.

    `value` is plain: CPU tensors, int, float, bool, str, None, and tuples and dicts of these; anything else that
    came back is a `Foreign`. `message` is what happened in an "error" ("your function raised ..."), or why something
    was "not attempted".
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
    """Call `function` (or launch it, a kernel) on every case, on copies of the arguments.

    Stop where it was not attempted at all.

    Nothing that it does reaches stderr: an instructor's autograder takes all points for a warning there.
    """
    seen: list[Observation] = []
    for case in cases:
        # Learners may have made an error of every warning; that is no mistake in their function.
        with warnings.catch_warnings(), contextlib.redirect_stderr(sys.stdout):
            warnings.simplefilter("ignore")
            seen.append(_call(function, case))
        if len(seen) == 1 and seen[0].kind == "not attempted":
            break
    return seen


def _call(function: Any, case: Case) -> Observation:
    if function is None or function is ...:
        return Observation("not attempted", message="there is no function yet")
    if not callable(function):
        given = type(function).__name__[:80]
        return Observation("error", message=f"{given} was given; give the function's name without parentheses")
    if case.launch and (unfinished := _unfinished(function)):
        return Observation("not attempted", message=unfinished)
    args = copy.deepcopy(case.args)
    try:
        value = launch.run(function, case.launch, args) if case.launch else function(*args)
    except KeyboardInterrupt as stop:  # the learner's own: a call that takes too long
        stop.add_note(f"It was stopped in the case {case.name!r}. Does every loop of the function end?")
        raise
    except launch.NotLaunched as reason:
        return Observation(reason.kind, message=str(reason))
    except NotImplementedError as error:
        if (where := _stub_that_raised(error)) is not None:
            return Observation("not attempted", message=_not_attempted(function, where))
        return Observation("error", message=_describe(error))
    except BaseException as error:
        return Observation("error", message=_describe(error))
    if value is ... or (value is None and _is_empty(function)):
        return Observation("not attempted", message="the function is still empty")
    return Observation("value", plain(value), changed_input=not _same(args, case.args))


def plain(value: Any) -> Any:
    """The value without what belongs to one process only: arrays become CPU tensors, lists become tuples."""
    try:
        return _plain(value)
    except Exception:  # a list that contains itself, a text that cannot be read
        return Foreign(type(value).__name__[:80])


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Fraction | Decimal):
        value = int(value) if value == int(value) else float(value)
    if value is None or isinstance(value, bool):
        return value
    for kind in (str, int, float):  # and not a class of the learner's own that only looks like one
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, torch.dtype):
        return str(value)
    if isinstance(value, np.ndarray):
        try:
            value = torch.from_numpy(np.array(value, order="C"))  # a copy; a view may run backwards
        except (TypeError, ValueError):  # strings, objects, or a number type that torch does not have
            return Foreign(f"numpy.ndarray of {value.dtype}")
    if isinstance(value, torch.Tensor):
        try:
            return value.detach().as_subclass(torch.Tensor).cpu().clone(memory_format=torch.contiguous_format)
        except Exception:  # sparse, nested, or without values
            return Foreign(f"tensor of layout {value.layout} on {value.device}")
    if isinstance(value, tuple | list):
        return tuple(_plain(item) for item in value)
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return Foreign(type(value).__name__[:80])


def _stub_that_raised(error: NotImplementedError) -> TracebackType | None:
    """The frame whose own `raise` this is; None where torch raised it (a shift of floats, say)."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None or _is_installed(trace.tb_frame.f_code.co_filename):
        return None
    raised_here = trace.tb_frame.f_code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
    return trace if raised_here else None


def _unfinished(kernel: Any) -> str | None:
    """Why a kernel was not attempted. Its code tells: a kernel without a body runs, and a compiled one cannot raise."""
    function = as_python(kernel)
    if _is_empty(function):
        return "the function is still empty"
    code = getattr(function, "__code__", None)
    if not isinstance(code, CodeType) or "NotImplementedError" not in code.co_names:
        return None
    [first, *_] = [one for one in dis.get_instructions(code) if one.argval == "NotImplementedError"]
    return _still_raises(code, first.positions.lineno if first.positions else None)


def _not_attempted(function: Any, where: TracebackType) -> str:
    code = where.tb_frame.f_code
    if code.co_name != getattr(function, "__name__", code.co_name):
        return f"it calls {code.co_name}, which is still empty"
    return _still_raises(code, where.tb_lineno)


def _still_raises(code: CodeType, line: int | None) -> str:
    if {instruction.opname for instruction in dis.get_instructions(code)} <= _opnames(_stub):
        return "the function is still empty"
    return f"line {line} of the cell still raises NotImplementedError; take it out when you have an answer"


def _describe(error: BaseException) -> str:
    """What was raised, in one line, with the place in the learner's code where it came from."""
    # Written by traceback: an exception may fail to describe itself.
    text = " ".join(traceback.format_exception_only(error)[-1].split())[:300]
    # The last frame that the learner can change; the first one is the call above.
    frames = [f for f in traceback.extract_tb(error.__traceback__)[1:] if not _is_installed(f.filename)]
    if not frames:
        return f"your function raised {text}"
    last = frames[-1]
    source = f": {last.line[:120]}" if last.line else ""
    return f"your function raised {text} (line {last.lineno} of the cell, in {last.name}{source})"


def _is_installed(filename: str) -> bool:
    if filename.startswith(_QUESTIONS):  # the mutants and alternatives stand for learners
        return False
    return filename.startswith((*_NOT_THE_LEARNERS, _QLAB)) or "site-packages" in filename


def _stub() -> None:
    raise NotImplementedError()


def _empty() -> None:
    pass


def _opnames(function: Callable[..., Any]) -> set[str]:
    # NotImplementedError may be raised with a message or without being called.
    return {i.opname for i in dis.get_instructions(function)} | {"LOAD_CONST", "RESUME", "PRECALL", "CALL"}


def _is_empty(function: Any) -> bool:
    """Whether the body is only a docstring, `pass` or `...`."""
    try:
        return [i.opname for i in dis.get_instructions(function)] == [i.opname for i in dis.get_instructions(_empty)]
    except TypeError:  # not a Python function
        return False


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        if a.shape != b.shape or a.dtype != b.dtype:
            return False
        return bool(((a == b) | ((a != a) & (b != b))).all())  # NaN is NaN here
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(_same, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    return bool(a == b)
