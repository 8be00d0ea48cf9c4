"""Building blocks for the properties of questions. Each returns a Finding, or None where all is well.

Bounds come from the data of the case, never from the scale that the learner chose: a coarse scale would allow itself
coarse errors. Where a value lies between two codes, either is right.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from .observe import Foreign
from .question import Finding

SLACK = 1e-3  # of a step, for float32 arithmetic on either side of a tie


def parts(got: Any, *names: str) -> Finding | None:
    """`got` is a tuple of as many values as there are names."""
    if not isinstance(got, tuple):
        return Finding(f"the function returns {_kind(got)}; return {len(names)} values: {', '.join(names)}")
    if len(got) != len(names):
        return Finding(f"the function returns {len(got)} values; return {len(names)}: {', '.join(names)}")
    return None


def tensor(got: Any, what: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Finding | None:
    """`got` is a tensor (or an array) of this type and shape."""
    if finding := _is_tensor(got, what, shape):
        return finding
    if got.dtype != dtype:
        return Finding(f"{what}: the dtype is {_name(got.dtype)}; it must be {_name(dtype)}")
    return None


def number(got: Any, what: str) -> Finding | None:
    """`got` is one finite number: an int, a float, or a tensor with one element."""
    value = as_number(got)
    if value is None:
        return Finding(f"{what}: {_kind(got)} came back; return one number")
    if value != value or value in (float("inf"), float("-inf")):
        return Finding(f"{what}: it is {value}; it must be finite", expected="a finite number", got=str(value))
    return None


def positive(got: Any, what: str) -> Finding | None:
    """`got` is one finite number above zero."""
    if finding := number(got, what):
        return finding
    value = as_number(got)
    if value > 0:
        return None
    return Finding(f"{what}: it must be above zero", expected="a positive number", got=f"{value:g}")


def whole_number(got: Any, what: str) -> Finding | None:
    """`got` is a whole number, and of a whole number's type or at least its value."""
    if finding := number(got, what):
        return finding
    value = as_number(got)
    if value != round(value):
        return Finding(f"{what}: it must be a whole number", expected="a whole number", got=f"{value:.10g}")
    return None


def number_near(got: Any, what: str, expected: float, relative: float, unit: str = "") -> Finding | None:
    """`got` is a number that differs from `expected` by at most that share of it."""
    if finding := number(got, what):
        return finding
    value = as_number(got)
    error = abs(value - expected)
    if error <= relative * abs(expected):
        return None
    factor = value / expected if expected else 0.0
    near = abs(factor - 1) < 0.1  # then the share says more than the factor
    return Finding(
        f"{what} is off" + (f" by a factor of {factor:.4g}" if factor > 0 and not near else ""),
        expected=_counted(f"{expected:,.10g}", unit),
        got=_counted(f"{value:,.10g}", unit),
        error=100 * error / abs(expected) if near else None,
        bound=100 * relative if near else None,
        unit="%",
    )


def whole_number_is(got: Any, what: str, expected: int, unit: str = "") -> Finding | None:
    """`got` is exactly this whole number."""
    if finding := whole_number(got, what):
        return finding
    value = round(as_number(got))
    if value == expected:
        return None
    factor = value / expected if expected else 0.0
    ratio = f", a factor of {factor:.4g}" if factor > 0 and abs(factor - 1) > 1e-3 else ""
    return Finding(
        f"{what} is off by {_counted(_digits(abs(value - expected)), unit)}{ratio}",
        expected=_counted(_digits(expected), unit),
        got=_counted(_digits(value), unit),
    )


def codes_between(codes: torch.Tensor, what: str, low: int, high: int) -> Finding | None:
    """Every code lies in the range of the grid."""
    if finding := _is_tensor(codes, what):
        return finding
    outside = ~((codes.double() >= low) & (codes.double() <= high))  # NaN, too
    if not bool(outside.any()):
        return None
    index = _first(outside)
    return Finding(
        f"{what}: {_so_many(outside)} outside {low} to {high}",
        index=index,
        expected=f"{low} to {high}",
        got=f"{codes[index].item():g}",
    )


def codes_near(
    codes: torch.Tensor, what: str, exact: torch.Tensor, low: int, high: int, noise: torch.Tensor | float = 0.0
) -> Finding | None:
    """Every code is a nearest one to its exact position (in steps), clamped to the grid; ties go either way.

    `noise`, in steps, is how far arithmetic may have moved the position.
    """
    if finding := _is_tensor(codes, what, exact.shape):
        return finding
    position = exact.double().clamp(low, high)
    error = (codes.double() - position).abs().nan_to_num(nan=float("inf"))
    excess = error - noise - (0.5 + SLACK)
    if bool((excess <= 0).all()):
        return None
    index = _worst(excess)
    return Finding(
        f"{what}: {_so_many(excess > 0)} not the nearest code",
        index=index,
        expected=f"{_nearest(position[index].item())} ({_place(exact[index].item(), low, high)})",
        got=f"{codes[index].item():g}",
        error=error[index].item(),
        bound=0.5,
    )


def values_near(
    got: torch.Tensor, what: str, expected: torch.Tensor, bound: torch.Tensor, step: torch.Tensor
) -> Finding | None:
    """Every value lies within `bound` of the expected one; both may be one number or one per element.

    The error is reported in units of `step`. NaN and infinity are wrong everywhere.
    """
    if finding := _is_tensor(got, what, expected.shape):
        return finding
    error = (got.double() - expected.double()).abs().nan_to_num(nan=float("inf"), posinf=float("inf"))
    bound, step = bound.double().expand_as(error), step.double().expand_as(error)
    if bool((error <= bound).all()):
        return None
    index = _worst((error / step).where(error > bound, -1.0))
    return Finding(
        f"{what}: {_so_many(error > bound)} too far off",
        index=index,
        expected=f"{expected[index].item():.6g}",
        got=f"{got[index].item():.6g}",
        error=(error[index] / step[index]).item(),
        bound=(bound[index] / step[index]).item(),
    )


def equal(got: torch.Tensor, what: str, expected: torch.Tensor) -> Finding | None:
    """Every element is exactly the expected one (unpacked codes, say)."""
    return _equal(got, what, expected, str)


def equal_bytes(got: torch.Tensor, what: str, expected: torch.Tensor) -> Finding | None:
    """As `equal`, with the bits of the first wrong byte in the finding, the highest on the left."""
    return _equal(got, what, expected, lambda byte: f"{byte:08b}")


def _equal(got: torch.Tensor, what: str, expected: torch.Tensor, write: Callable[[Any], str]) -> Finding | None:
    if finding := _is_tensor(got, what, expected.shape):
        return finding
    wrong = got != expected
    if not bool(wrong.any()):
        return None
    index = _first(wrong)
    return Finding(
        f"{what}: {_so_many(wrong)} wrong",
        index=index,
        expected=write(expected[index].item()),
        got=write(got[index].item()),
    )


def as_number(got: Any) -> Any:
    """The int or float of a number or of a tensor with one element; None for everything else.

    An integer beyond the range of floats is infinite here.
    """
    if isinstance(got, torch.Tensor) and got.numel() == 1:
        got = got.item()
    if not isinstance(got, int | float) or isinstance(got, bool):
        return None
    return float("inf") if isinstance(got, int) and got.bit_length() > 1023 else got


def _is_tensor(got: Any, what: str, shape: tuple[int, ...] | None = None) -> Finding | None:
    """`got` is a tensor, of this very shape: one that would broadcast is wrong."""
    if not isinstance(got, torch.Tensor):
        return Finding(f"{what}: {_kind(got)} came back; return a tensor")
    if shape is not None and tuple(got.shape) != tuple(shape):
        return Finding(f"{what}: the shape is {tuple(got.shape)}; it must be {tuple(shape)}")
    return None


def _nearest(position: float) -> str:
    below = math.floor(position)
    if abs(position - below - 0.5) <= SLACK:
        return f"{below} or {below + 1}"
    return str(round(position))


def _place(exact: float, low: int, high: int) -> str:
    if low - SLACK <= exact <= high + SLACK:
        return f"its place on the grid is {exact:.4f}"
    return f"its place is {exact:.6g}, beyond the grid"


def _counted(number: str, unit: str) -> str:
    """The number with its unit, which is a plural."""
    if not unit:
        return number
    return f"{number} {unit.removesuffix('s') if number == '1' else unit}"


def _so_many(wrong: torch.Tensor) -> str:
    """Of a mask: "1 of 8 is", "3 of 8 are"."""
    count = int(wrong.sum())
    return f"{count} of {wrong.numel()} {'is' if count == 1 else 'are'}"


def _digits(value: int) -> str:
    """All digits, as bytes are compared to the last one, but not those of an absurd number."""
    return f"{value:,}" if abs(value) < 10**18 else f"{value:.10g}"


def _first(mask: torch.Tensor) -> tuple[int, ...]:
    return tuple(mask.nonzero()[0].tolist())


def _worst(error: torch.Tensor) -> tuple[int, ...]:
    return tuple(int(i) for i in torch.unravel_index(error.argmax(), error.shape))


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _kind(value: Any) -> str:
    if isinstance(value, Foreign):
        return f"a value of type {value.type_name}"
    if isinstance(value, torch.Tensor):
        return f"a tensor {tuple(value.shape)}"
    if isinstance(value, tuple):
        return f"{len(value)} values" if len(value) != 1 else "a tuple of one value"
    if value is None:
        return "None"
    return f"an {type(value).__name__}" if type(value) is int else f"a {type(value).__name__}"
