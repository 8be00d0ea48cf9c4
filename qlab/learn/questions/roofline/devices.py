"""Devices, layers and models for the cases: data sheets, published models, and one device of powers of two."""

from __future__ import annotations

from typing import Any

import torch

from ....deploy import spec
from ....deploy.roofline import datasheet
from ... import properties as p
from ...question import Finding

# Bytes and operations per second. Floats divide nothing unevenly here, so times are equal where they should be.
EVEN = (2.0**40, 2.0**44)
_RTOL = 1e-6  # of times and rates, which float32 holds; every wrong answer on record is further off


def limits(name: str, rate: str = "fp16") -> tuple[float, float]:
    """Bandwidth and rate of a GPU, as on its data sheet, in bytes and operations per second."""
    found = datasheet(name)
    return found.bandwidth, found.rates[rate]


def layer(name: str) -> tuple[tuple[int, int], ...]:
    """(outputs, inputs) of the seven matrices in a layer of a published model."""
    return tuple((matrix.rows, matrix.columns) for matrix in spec(name).matrices())


def near(got: Any, what: str, expected: float, unit: str = "") -> Finding | None:
    """`got` is this number up to the rounding of floats."""
    return p.number_near(got, what, expected, _RTOL, unit)


def numbers(got: Any) -> Any:
    """A vector as the tuple of its numbers; all else as it is."""
    return tuple(got.tolist()) if isinstance(got, torch.Tensor) and got.ndim == 1 else got
