"""What is measured: a contestant prepares a weight once and then multiplies.

Every result is compared with a product in float64 of what the weight stands for after rounding, so that only the
arithmetic counts, not how well four bits hold a weight. Where a library does not give that weight back, the bound is
that of four bits instead.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
import torch.nn.functional as F

DENSE = "dense"
EXACT = 0.01  # relative error of a right product in 16 bits is below: bfloat16 keeps eight bits
ROUNDED = 0.2  # and of one whose weight is compared as it was before it got four bits

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


def _as_it_is(x: torch.Tensor) -> Any:
    return x


@dataclass(frozen=True)
class Prepared:
    """A weight in the form that a kernel reads, and how to multiply with it."""

    weight: Any  # copied for the rotation, so it has to be all that the kernel reads
    nbytes: int  # of the weight: codes, scales, zero-points
    call: Callable[[Any, Any], torch.Tensor]  # (what `feed` made of x (tokens, in), weight) -> (tokens, out)
    stands_for: Callable[[], torch.Tensor]  # (out, in), dequantized
    path: Callable[[torch.Tensor], str]  # of x: how it is computed, in a word or two
    feed: Callable[[torch.Tensor], Any] = _as_it_is  # what is done to x outside of the measured time
    seen: Callable[[torch.Tensor], torch.Tensor] = _as_it_is  # x as it is multiplied: rounded, if the kernel does so
    tolerance: float = EXACT


@dataclass(frozen=True)
class Contestant:
    """One row of the table."""

    name: str
    what: str
    devices: tuple[str, ...]  # "cuda", "cpu", "cpu-interpreted"
    dtypes: tuple[str, ...]  # of x, in the order in which they are measured
    prepare: Callable[[torch.Tensor], Prepared]  # w (out, in) in the type of x
    missing: Callable[[], str | None] = lambda: None  # why it cannot run here
    rate: str | None = None  # whose matrix rate is the ceiling; None: that of the type of x
    forced: bool = False  # it takes one path whatever the shape, and is measured only where it is named


def dense(w: torch.Tensor) -> Prepared:
    """The plain product: cuBLAS on a GPU, oneDNN on a CPU. What all others are compared with, in 16 bits."""
    library = "cuBLAS" if w.is_cuda else "torch"
    return Prepared(w, w.nbytes, F.linear, lambda: w, lambda x: library)


def not_installed(module: str, extra: str = "") -> Callable[[], str | None]:
    """The reason, if a module is not there."""
    return lambda: None if find_spec(module) else f"{module} is not installed{extra}"
