from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from qlab.deploy import Instance, gpus, instance, instances, price_note
from qlab.deploy.instances import DATA, read_instances

LISTED = date(2026, 7, 20)


def test_the_instances_that_a_learner_meets() -> None:
    known = instances()
    assert len(known) == 43
    assert {
        "p3.8xlarge",
        "p4d.24xlarge",
        "p5.48xlarge",
        "g4dn.xlarge",
        "g5.12xlarge",
        "g6.xlarge",
        "g6e.xlarge",
    } <= set(known)
    assert all(name == found.name for name, found in known.items())


# What the claim ledger looks up: GPUs, the size on the box of all together, vCPUs, USD per hour.
@pytest.mark.parametrize(
    ("name", "count", "gpu", "memory_gb", "vcpus", "price"),
    [
        ("p3.8xlarge", 4, "V100-16GB", 64, 32, 12.24),
        ("p3.16xlarge", 8, "V100-16GB", 128, 64, 24.48),
        ("g4dn.xlarge", 1, "T4", 16, 4, 0.526),
        ("g4dn.12xlarge", 4, "T4", 64, 48, 3.912),
        ("g4dn.metal", 8, "T4", 128, 96, 7.824),
        ("g5.12xlarge", 4, "A10G", 96, 48, 5.672),
        ("g6e.12xlarge", 4, "L40S", 192, 48, 10.49264),
        ("p4d.24xlarge", 8, "A100-40GB", 320, 96, 21.957642),
        ("p5.4xlarge", 1, "H100-80GB", 80, 16, 6.88),
    ],
)
def test_facts(name: str, count: int, gpu: str, memory_gb: float, vcpus: int, price: float) -> None:
    found = instance(name)
    assert (found.count, found.gpu.name, found.vcpus, found.price_usd_per_hour) == (count, gpu, vcpus, price)
    assert found.count * found.gpu.memory_gb == memory_gb
    assert found.visible_bytes == count * found.gpu.visible_bytes


@pytest.mark.parametrize(
    ("name", "month"),
    [
        ("p5.4xlarge", 5_022),
        ("p3.8xlarge", 8_935),
        ("g5.12xlarge", 4_141),
        ("g6e.12xlarge", 7_660),
        ("p4d.24xlarge", 16_029),
    ],
)
def test_a_month_has_730_hours(name: str, month: int) -> None:
    assert instance(name).usd_per_month == pytest.approx(month, abs=0.5)


def test_prices_moved() -> None:
    assert instance("p4d.24xlarge").earlier_prices == (("2023-09-18", 32.7726), ("2025-06-23", 21.957642))
    assert instance("p5.48xlarge").usd_per_gpu_hour == pytest.approx(6.88)


@pytest.mark.parametrize("found", instances().values(), ids=list(instances()))
def test_every_entry_is_plausible(found: Instance) -> None:
    assert found.source and found.confidence and found.region == "us-east-1"
    assert found.gpu.name in gpus()
    assert (found.interconnect == "none") == (found.count == 1)
    assert found.host_memory_gib >= 4 * found.vcpus / 2
    if found.price_usd_per_hour is None:
        assert found.price_date is None and found.usd_per_month is None and found.usd_per_gpu_hour is None
        assert "no" in found.note.casefold()
    else:
        assert date.fromisoformat(found.price_date or "") == LISTED
        if found.earlier_prices:
            assert found.earlier_prices[-1][1] == found.price_usd_per_hour
    days = [day for day, _ in found.earlier_prices]
    assert days == sorted(days)


def test_within_a_family_more_gpus_cost_more() -> None:
    for family in {name.split(".")[0] for name in instances()}:
        members = [i for n, i in instances().items() if n.split(".")[0] == family and i.price_usd_per_hour]
        for one in members:
            for other in members:
                if one.count < other.count and one.vcpus <= other.vcpus:
                    assert one.price_usd_per_hour < other.price_usd_per_hour  # type: ignore[operator]


@pytest.mark.parametrize(
    ("today", "age", "says"),
    [
        (date(2026, 7, 20), 0, "Prices are of 2026-07-20, 0 days old."),
        (date(2026, 7, 21), 1, "Prices are of 2026-07-20, 1 day old."),
        (date(2029, 7, 20), 1096, "Prices are of 2026-07-20, 1,096 days old. They move"),
        (date(2026, 7, 19), -1, "Prices are of 2026-07-20, which is after today: the clock"),
    ],
)
def test_the_age_of_a_price(today: date, age: int, says: str) -> None:
    found = instance("g6.xlarge")
    assert found.price_age(today) == age
    assert says in price_note([found], today)


def test_the_age_of_several_prices_and_of_none(tmp_path: Path) -> None:
    older = read_instances(_data(tmp_path, price_date="2025-01-02"))["g6.xlarge"]
    both = price_note([older, instance("p5.4xlarge")], date(2026, 7, 21))
    assert "Prices are of 2025-01-02 to 2026-07-20, up to 565 days old" in both
    assert price_note([instance("p5e.48xlarge")]) == "There is no price."
    assert instance("p5e.48xlarge").price_age() is None
    assert instance("g6.xlarge").price_age() == (date.today() - LISTED).days


def test_names() -> None:
    assert instance(" P4D.24xlarge ") == instance("p4d.24xlarge")
    assert instance(instance("p4d.24xlarge")) == instance("p4d.24xlarge")
    with pytest.raises(ValueError, match=r"instance: 'g4dn\.13xlarge' is not known; did you mean g4dn"):
        instance("g4dn.13xlarge")
    with pytest.raises(TypeError, match="instance: got int"):
        instance(4)  # type: ignore[arg-type]
    instances().clear()
    assert instances()


def _data(path: Path, **changes: Any) -> Path:
    entry = json.loads(DATA.read_text(encoding="utf-8"))["instances"]["g6.xlarge"] | changes
    entry = {field: value for field, value in entry.items() if value is not ...}
    file = path / "instances.json"
    file.write_text(json.dumps({"instances": {"g6.xlarge": entry}}), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": []}, "g6.xlarge has no source"),
        ({"date": "soon"}, "g6.xlarge has the date 'soon'"),
        ({"confidence": ...}, "g6.xlarge misses 'confidence'"),
        ({"gpu": "L5"}, "g6.xlarge: gpu is 'L5', which is not known; did you mean L4"),
        ({"gpu": ["L4"]}, "g6.xlarge: gpu is"),
        ({"count": 0}, "g6.xlarge: count is 0"),
        ({"count": 1.0}, "g6.xlarge: count is 1.0"),
        ({"vcpus": True}, "g6.xlarge: vcpus is True"),
        ({"host_memory_gib": "16"}, "g6.xlarge: host_memory_gib is '16'"),
        ({"interconnect": "rope"}, "g6.xlarge: interconnect is 'rope'; choose from none, PCIe"),
        ({"interconnect_gb_per_s": -3}, "g6.xlarge: interconnect_gb_per_s is -3"),
        ({"region": ""}, "g6.xlarge: region is ''"),
        ({"price_usd_per_hour": -1}, "g6.xlarge: a price is -1"),
        ({"price_usd_per_hour": None}, "g6.xlarge: a price is None"),
        ({"price_date": None}, "g6.xlarge has a price without a date"),
        ({"price_date": ...}, "g6.xlarge has a price without a date"),
        ({"price_date": "2026-07"}, "g6.xlarge has a price without a date"),
        ({"price_date": "2026-02-30"}, "g6.xlarge has a price without a date"),
        ({"earlier_prices": [[None, 0.7]]}, "g6.xlarge has a price without a date"),
        ({"earlier_prices": 0.7}, "g6.xlarge: earlier_prices is 0.7"),
        ({"earlier_prices": [0.7]}, "g6.xlarge: earlier_prices is"),
        ({"earlier_prices": [["2025-01-01", 0]]}, "g6.xlarge: a price is 0"),
        ({"prise": 3}, "g6.xlarge has unknown 'prise'"),
    ],
)
def test_senseless_entries_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_instances(_data(tmp_path, **changes))
