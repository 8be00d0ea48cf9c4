"""EC2 instances as data: their GPUs, the links between these, and what they cost, with the day of that price."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from . import hardware, user
from .entries import check_fields, check_origin, is_positive, look_up, suggestion
from .hardware import Gpu

DATA = Path(__file__).parent / "data" / "instances.json"
HOURS_PER_MONTH = 730
LINKS = ("none", "PCIe", "NVLink", "NVSwitch")


@dataclass(frozen=True)
class Instance:
    """One kind of rented machine.

    `interconnect_gb_per_s` is 10^9 bytes per second for each GPU, both directions together, None where unknown.
    `price_usd_per_hour` is on demand, Linux, in `region`, on the day `price_date`; None where there is none.
    `earlier_prices` are (day of the price list in which it was first seen, USD per hour).
    """

    name: str
    gpu: Gpu
    count: int
    vcpus: int
    host_memory_gib: float
    interconnect: str
    interconnect_gb_per_s: float | None
    region: str
    price_usd_per_hour: float | None
    price_date: str | None
    earlier_prices: tuple[tuple[str, float], ...]
    source: tuple[str, ...]
    date: str
    confidence: str
    note: str

    @property
    def visible_bytes(self) -> int:
        """GPU memory that CUDA reports, over all GPUs. Raises ValueError as `Gpu.visible_bytes`."""
        return self.count * self.gpu.visible_bytes

    @property
    def usd_per_month(self) -> float | None:
        """USD for 730 hours, or None without a price."""
        return None if self.price_usd_per_hour is None else self.price_usd_per_hour * HOURS_PER_MONTH

    @property
    def usd_per_gpu_hour(self) -> float | None:
        """USD for one GPU and one hour, or None without a price. Many instances are sold whole only."""
        return None if self.price_usd_per_hour is None else self.price_usd_per_hour / self.count

    def price_age(self, today: datetime.date | None = None) -> int | None:
        """Days since the price was listed, or None without a price. Negative if `today` is before that."""
        if self.price_date is None:
            return None
        return ((today or datetime.date.today()) - datetime.date.fromisoformat(self.price_date)).days


def instances() -> dict[str, Instance]:
    """All known instances by name, with those of the user's own file (`qlab.deploy.user`)."""
    if not user.given():
        return dict(_shipped())
    # The user may have changed a GPU that shipped instances have, so these are read again, too.
    return {**_parse(_raw(), DATA.name), **_parse(*user.complete("instances", _raw()))}


def instance(name: str | Instance) -> Instance:
    """The instance of that name, in any case. Raises ValueError if it is not known."""
    return name if isinstance(name, Instance) else look_up("instance", name, instances())


def price_note(found: Iterable[Instance], today: datetime.date | None = None) -> str:
    """A sentence that says from when the prices of these instances are, and how old that makes them."""
    ages = {i.price_date: age for i in found if i.price_date and (age := i.price_age(today)) is not None}
    if not ages:
        return "There is no price."
    first, last, oldest = min(ages), max(ages), max(ages.values())
    span = first if first == last else f"{first} to {last}"
    if min(ages.values()) < 0:
        return f"Prices are of {span}, which is after today: the clock of this machine or a date is wrong."
    days = "1 day" if oldest == 1 else f"{oldest:,} days"
    most = "" if first == last else "up to "
    return f"Prices are of {span}, {most}{days} old. They move: look them up before you rely on them."


def read_instances(path: Path) -> dict[str, Instance]:
    """The instances of a data file by name. Raises ValueError for an entry that is incomplete or senseless."""
    return _parse(json.loads(path.read_text(encoding="utf-8"))["instances"], path.name)


def _parse(entries: Mapping[str, Any], where: str) -> dict[str, Instance]:
    known = hardware.gpus()
    return {name: _instance(name, entry, known, f"{where}: the entry of {name}") for name, entry in entries.items()}


def _instance(name: str, entry: Any, known: Mapping[str, Gpu], where: str) -> Instance:
    check_fields(where, entry, _REQUIRED, _FIELDS)
    check_origin(where, entry)
    parts = {**_DEFAULTS, **entry}
    if "." not in name:  # which tells it from a GPU
        raise ValueError(f"{where}: got the name {name!r}; names of instances have a dot, so call it {name}.1")
    if not isinstance(parts["gpu"], str) or parts["gpu"] not in known:
        raise ValueError(
            f"{where}: gpu is {parts['gpu']!r}, which is not known; {suggestion(str(parts['gpu']), known)}"
        )
    for field in ("count", "vcpus"):
        if type(parts[field]) is not int or parts[field] < 1:
            raise ValueError(f"{where}: {field} is {parts[field]!r}; it must be a whole number, 1 or more")
    if not is_positive(parts["host_memory_gib"]):
        raise ValueError(f"{where}: host_memory_gib is {parts['host_memory_gib']!r}; it must be a positive number")
    if parts["interconnect_gb_per_s"] is not None and not is_positive(parts["interconnect_gb_per_s"]):
        raise ValueError(f"{where}: interconnect_gb_per_s is {parts['interconnect_gb_per_s']!r}; it must be positive")
    if parts["interconnect"] not in LINKS:
        raise ValueError(f"{where}: interconnect is {parts['interconnect']!r}; choose from {', '.join(LINKS)}")
    if not isinstance(parts["region"], str) or not parts["region"].strip():
        raise ValueError(f"{where}: region is {parts['region']!r}; prices differ by region, so name one")
    pairs = parts["earlier_prices"]
    if not isinstance(pairs, list | tuple) or not all(isinstance(p, list | tuple) and len(p) == 2 for p in pairs):
        raise ValueError(f"{where}: earlier_prices is {pairs!r}; give a list of pairs [day, USD per hour]")
    earlier = tuple((day, price) for day, price in pairs)
    current = (parts["price_date"], parts["price_usd_per_hour"])
    for day, price in earlier if current == (None, None) else (*earlier, current):
        if not is_positive(price):
            raise ValueError(f"{where}: a price is {price!r}; it must be a positive number of USD per hour")
        if not _is_day(day):
            raise ValueError(f"{where} has a price without a date ({day!r}); give the day of it, such as 2026-07-20")
    source = (parts["source"],) if isinstance(parts["source"], str) else tuple(parts["source"])
    return Instance(name=name, **{**parts, "gpu": known[parts["gpu"]], "earlier_prices": earlier, "source": source})


def _is_day(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False


_FIELDS = tuple(field.name for field in fields(Instance) if field.name != "name")
_DEFAULTS: dict[str, Any] = {
    "interconnect_gb_per_s": None,
    "price_usd_per_hour": None,
    "price_date": None,
    "earlier_prices": (),
    "note": "",
}
_REQUIRED = tuple(field for field in _FIELDS if field not in _DEFAULTS)


@cache
def _raw() -> Mapping[str, Any]:
    return json.loads(DATA.read_text(encoding="utf-8"))["instances"]


@cache
def _shipped() -> dict[str, Instance]:
    return read_instances(DATA)
