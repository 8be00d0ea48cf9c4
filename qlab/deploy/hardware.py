"""GPUs as data: memory, bandwidth and dense tensor rates, each entry with its source and how far to trust it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from . import user
from .entries import check_fields, check_origin, is_positive, look_up

DATA = Path(__file__).parent / "data" / "hardware.json"


@dataclass(frozen=True)
class Gpu:
    """One GPU. All rates are dense (without 2:4 sparsity), in 10^12 operations per second; None means that the
    hardware does not have that rate, or that no figure was found.

    `memory_gb` is the size on the box; `memory_visible_gib` is what CUDA reports as usable, in GiB (2^30 bytes).
    """

    name: str
    architecture: str
    compute_capability: str
    form_factor: str
    memory_gb: float
    memory_type: str
    memory_visible_gib: float | None
    memory_visible_source: str | None
    bandwidth_gb_per_s: float
    tdp_w: float
    fp32_cuda_tflops: float | None
    tf32_tensor_tflops: float | None
    fp16_tensor_tflops: float | None
    bf16_tensor_tflops: float | None
    fp8_tensor_tflops: float | None
    int8_tensor_tops: float | None
    int4_tensor_tops: float | None
    fp4_tensor_tflops: float | None
    source: tuple[str, ...]
    date: str
    confidence: str

    @property
    def capability(self) -> float:
        """The compute capability as a number; 0 for a GPU that has none, such as one of another maker."""
        text = self.compute_capability
        return float(text) if re.fullmatch(r"\d+\.\d+", text) else 0.0

    @property
    def visible_bytes(self) -> int:
        """Memory that CUDA reports, in bytes. Raises ValueError where nobody has written it down."""
        if self.memory_visible_gib is None:
            raise ValueError(f"gpu: the memory that CUDA shows on a {self.name} is not known; choose another GPU")
        return int(self.memory_visible_gib * 2**30)


def gpus() -> dict[str, Gpu]:
    """All known GPUs by name, older ones first; with those of the user's own file (`qlab.deploy.user`)."""
    return {**_shipped(), **_parse(*user.complete("gpus", _raw()))}


def gpu(name: str | Gpu) -> Gpu:
    """The GPU of that name, in any case; spaces may stand for hyphens. Raises ValueError if it is not known."""
    return name if isinstance(name, Gpu) else look_up("gpu", name, gpus())


def compiled() -> str:
    """When the data file was put together."""
    return json.loads(DATA.read_text(encoding="utf-8"))["compiled"]


def read_gpus(path: Path) -> dict[str, Gpu]:
    """The GPUs of a data file by name. Raises ValueError for an entry that is incomplete or has no source."""
    return _parse(json.loads(path.read_text(encoding="utf-8"))["gpus"], path.name)


def _parse(entries: Mapping[str, Any], where: str) -> dict[str, Gpu]:
    return {name: _gpu(name, entry, f"{where}: the entry of {name}") for name, entry in entries.items()}


def _gpu(name: str, entry: Any, where: str) -> Gpu:
    check_fields(where, entry, _FIELDS, _FIELDS)
    check_origin(where, entry)
    if "." in name:  # which tells an instance from it
        raise ValueError(f"{where}: got the name {name!r}; names of GPUs have no dot, so leave it out")
    for field in _TEXTS:
        if not isinstance(entry[field], str):
            raise ValueError(f"{where}: {field} is {entry[field]!r}; it must be a text, in quotes")
    for field in _NUMBERS:
        if not is_positive(entry[field]):
            raise ValueError(f"{where}: {field} is {entry[field]!r}; it must be a positive number")
    for field in _MAY_BE_NULL:
        if entry[field] is not None and not is_positive(entry[field]):
            raise ValueError(f"{where}: {field} is {entry[field]!r}; it must be a positive number or null")
    source = (entry["source"],) if isinstance(entry["source"], str) else tuple(entry["source"])
    return Gpu(name=name, **{**entry, "source": source})


_FIELDS = tuple(field.name for field in fields(Gpu) if field.name != "name")
_TEXTS = ("architecture", "compute_capability", "form_factor", "memory_type")
_NUMBERS = ("memory_gb", "bandwidth_gb_per_s", "tdp_w")
_MAY_BE_NULL = ("memory_visible_gib", *sorted(field for field in _FIELDS if field.endswith(("tflops", "tops"))))


@cache
def _raw() -> Mapping[str, Any]:
    return json.loads(DATA.read_text(encoding="utf-8"))["gpus"]


@cache
def _shipped() -> dict[str, Gpu]:
    return read_gpus(DATA)
