from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch

from qlab.bench.ceilings import Ceilings, ceilings
from qlab.bench.stopwatch import Budget, Call, cpu_stopwatch

CPU = torch.device("cpu")


def test_rates_are_bytes_and_operations_over_the_best_time() -> None:
    readings = iter([9.0, 0.5, 0.25] * 6)  # a warm-up that is slow enough to be the only one, then two that count

    def stopwatch(calls: Sequence[Call]) -> list[float]:
        return [(call(), next(readings))[1] for call in calls]

    found = ceilings(CPU, stopwatch, Budget(0.0, 2, 2), copied=4096, side=64)
    assert found.copy == 2 * 4096 / 0.25, "a copy reads and writes"
    assert found.read == 4096 / 0.25
    assert found.matrix == dict.fromkeys(("float32", "bfloat16", "int8"), 2 * 64**3 / 0.25)
    assert found.smallest == pytest.approx(0.375)


def test_on_a_cpu_bfloat16_is_no_slower_than_what_it_can_be_widened_to() -> None:
    def stopwatch(calls: Sequence[Call]) -> list[float]:
        result = calls[0]()
        return [4.0 if getattr(result, "dtype", None) == torch.bfloat16 else 0.5]

    found = ceilings(CPU, stopwatch, Budget(0.0, 2, 2), copied=4096, side=64)
    assert found.matrix["bfloat16"] == found.matrix["float32"] == 2 * 64**3 / 0.5


def test_the_nearer_ceiling_is_the_one_that_takes_longer() -> None:
    limits = Ceilings(copy=100.0, read=1.0, matrix={"int8": 1000.0, "bfloat16": 10.0}, smallest=0.0)
    assert limits.floor(300, 2000, "int8") == ("copy", 3.0)
    assert limits.floor(300, 2000, "bfloat16") == ("matrix", 200.0)


def test_a_real_measurement_ends() -> None:
    found = ceilings(CPU, cpu_stopwatch(), Budget(0.0, 2, 2), copied=2**16, side=32)
    assert min(found.copy, found.read, found.smallest, *found.matrix.values()) > 0
