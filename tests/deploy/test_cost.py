"""Money, worked out by hand."""

from __future__ import annotations

import pytest

from qlab.deploy import instance
from qlab.deploy.cost import machines, pareto, usd_per_million, usd_per_month


def test_dollars_by_hand() -> None:
    assert usd_per_million(3.6, 1000) == pytest.approx(1.0)  # 3.6 million tokens an hour
    assert usd_per_month(12.24) == pytest.approx(8_935.2)
    assert usd_per_month(10, 3) == pytest.approx(21_900)
    # C121 of the ledger: QServe's Llama-2-70B, A100 W8A8 235 tokens/s, L40S W4A8KV4 286 and W4A16 119.
    a100, l40s = instance("p4de.24xlarge").usd_per_gpu_hour, instance("g6e.xlarge").usd_per_gpu_hour
    assert a100 and l40s
    found = [
        usd_per_million(a100, 235),
        usd_per_million(a100, 358),
        usd_per_million(l40s, 286),
        usd_per_million(l40s, 119),
    ]
    assert [round(usd, 2) for usd in found] == [4.06, 2.66, 1.81, 4.34]


def test_dearer_machines_cost_more_and_faster_ones_less() -> None:
    assert usd_per_million(2, 100) > usd_per_million(1, 100) > usd_per_million(1, 101)
    assert usd_per_million(0, 1) == 0


@pytest.mark.parametrize(
    ("load", "capacity", "count"), [(50, 21.6, 3), (50, 25, 2), (50, 50, 1), (0.1, 50, 1), (0.3, 0.1, 3)]
)
def test_machines_for_a_load(load: float, capacity: float, count: int) -> None:
    assert machines(load, capacity) == count


def test_senseless_money() -> None:
    with pytest.raises(ValueError, match="usd_per_hour: got -1"):
        usd_per_million(-1, 5)
    with pytest.raises(ValueError, match="tokens_per_s: got 0"):
        usd_per_million(1, 0)
    with pytest.raises(ValueError, match="machines: got -1"):
        usd_per_month(1, -1)
    for bad in ({"load": 0, "capacity": 1}, {"load": 1, "capacity": -1}):
        with pytest.raises(ValueError, match="it must be above 0 requests per second"):
            machines(**bad)


def test_pareto_keeps_what_nobody_beats_in_both() -> None:
    points = [(2.0, 5.0), (1.0, 9.0), (3.0, 5.0), (4.0, 1.0), (2.0, 5.0), (1.0, 10.0)]
    assert pareto(points) == [1, 0, 3]
    assert pareto([]) == []
