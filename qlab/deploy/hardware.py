"""GPUs as data: memory, bandwidth and dense tensor rates, each entry with its source and how far to trust it."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

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
    confidence: str

    @property
    def visible_bytes(self) -> int:
        """Memory that CUDA reports, in bytes. Raises ValueError where nobody has written it down."""
        if self.memory_visible_gib is None:
            raise ValueError(f"gpu: the memory that CUDA shows on a {self.name} is not known; choose another GPU")
        return int(self.memory_visible_gib * 2**30)


def gpus() -> dict[str, Gpu]:
    """All known GPUs by name, older ones first."""
    return dict(_gpus())


def gpu(name: str | Gpu) -> Gpu:
    """The GPU of that name, in any case; spaces may stand for hyphens. Raises ValueError if it is not known."""
    if isinstance(name, Gpu):
        return name
    if not isinstance(name, str):
        raise TypeError(f"gpu: got {type(name).__name__}; give a name such as 'A100-80GB'")
    plain = {known.casefold(): found for known, found in _gpus().items()}
    asked = name.strip().casefold().replace(" ", "-").replace("_", "-")
    if asked not in plain:
        raise ValueError(f"gpu: {name!r} is not known; choose from {', '.join(_gpus())}")
    return plain[asked]


def compiled() -> str:
    """When the data file was put together."""
    return json.loads(DATA.read_text(encoding="utf-8"))["compiled"]


def read_gpus(path: Path) -> dict[str, Gpu]:
    """The GPUs of a data file by name. Raises ValueError for an entry that is incomplete or has no source."""
    found = {}
    for name, entry in json.loads(path.read_text(encoding="utf-8"))["gpus"].items():
        wrong = entry.keys() ^ _FIELDS
        if wrong:
            raise ValueError(f"{path.name}: the entry of {name} misses, or should not have, {', '.join(sorted(wrong))}")
        if not entry["source"] or not all(isinstance(source, str) and source.strip() for source in entry["source"]):
            raise ValueError(f"{path.name}: the entry of {name} has no source")
        for field in ("memory_gb", "bandwidth_gb_per_s", "tdp_w"):
            if not _is_positive(entry[field]):
                raise ValueError(f"{path.name}: {field} of {name} is {entry[field]!r}; it must be a positive number")
        for field in _MAY_BE_NULL:
            if entry[field] is not None and not _is_positive(entry[field]):
                raise ValueError(
                    f"{path.name}: {field} of {name} is {entry[field]!r}; it must be a positive number or null"
                )
        found[name] = Gpu(name=name, **{**entry, "source": tuple(entry["source"])})
    return found


def _is_positive(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value > 0


_FIELDS = frozenset(field.name for field in fields(Gpu)) - {"name"}
_MAY_BE_NULL = ("memory_visible_gib", *sorted(field for field in _FIELDS if field.endswith(("tflops", "tops"))))


@cache
def _gpus() -> dict[str, Gpu]:
    return read_gpus(DATA)
