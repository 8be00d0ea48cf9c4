"""Rows and whole runs to change and compare."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from qlab.bench.ceilings import Ceilings
from qlab.bench.results import Results, Row, Skipped


@pytest.fixture
def row() -> Callable[..., Row]:
    """A row of the plain product; keywords change fields."""

    def build(**changes: Any) -> Row:
        values: dict[str, Any] = {
            "kernel": "dense", "path": "torch", "shape": "8x16", "outputs": 8, "inputs": 16, "tokens": 1,
            "dtype": "bfloat16", "seconds": 2.0, "quartiles": (1.5, 2.5), "repetitions": 5, "bytes": 100, "flops": 256,
            "gb_per_s": 0.1, "copy_fraction": 0.5, "ceiling": "copy", "ceiling_fraction": 0.5, "ratio": 1.0,
            "relative_error": 0.001,
        }  # fmt: skip
        return Row(**values | changes)

    return build


@pytest.fixture
def made() -> Callable[..., Results]:
    """A run with those rows; keywords change the rest. Its copy bandwidth is 1e9 bytes per second."""

    def build(*rows: Row, **changes: Any) -> Results:
        values: dict[str, Any] = {
            "command": "qlab bench", "date": "2026-01-01T00:00:00+00:00", "hardware": {"name": "x", "cores": 2},
            "versions": {"torch": "2.11"}, "settings": {"device": "cpu", "tokens": (1, 2)},
            "ceilings": Ceilings(1e9, 2e9, {"bfloat16": 1e12}, 1e-6),
        }  # fmt: skip
        return Results(**values | changes, rows=list(rows), skipped=[Skipped("gone", "is not installed")])

    return build
