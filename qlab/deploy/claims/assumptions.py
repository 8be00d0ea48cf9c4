"""What popular claims leave open, and a verdict needs: each assumption with its unit, its meaning and its bounds."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from math import inf
from typing import Any

from ..entries import plain, suggestion
from ..fits import Fit, fits
from ..kv import KV_BITS
from ..memory import memory
from ..models import names, spec


def _assumed(value: Any, unit: str, meaning: str, low: float = 0.0, high: float = inf) -> Any:
    return field(default=value, metadata={"unit": unit, "meaning": meaning, "low": low, "high": high})


@dataclass(frozen=True)
class Assumptions:
    """What the claims leave open and a verdict needs. `fields(Assumptions)` has the unit and the meaning of each.

    Raises:
        TypeError: a value of the wrong kind.
        ValueError: a value out of range, or a model that is unknown or not of the 70B class.
    """

    model: str = _assumed("Llama-3-70B", "name", "of the 70B model that the claims speak of", 65e9, 80e9)
    gpu_memory_utilization: float = _assumed(0.92, "share", "of the visible GPU memory that the server uses", 0.1, 1)
    overhead_gb: float = _assumed(1.5, "GB", "set aside on each GPU for activations, CUDA context and waste", 0, 100)
    group_size: int = _assumed(128, "weights", "that share a scale at 4 bits", 1, 65_536)
    kv_bits: int = _assumed(16, "bits", "of a number in the KV cache", min(KV_BITS), max(KV_BITS))
    context: int = _assumed(4096, "tokens", "of a request, prompt and answer, where a claim names no length", 1)
    prompt_tokens: int = _assumed(1024, "tokens", "of a prompt, where a claim is about time or load", 1)
    output_tokens: int = _assumed(50, "tokens", "of an answer, where a claim is about time or load", 1)
    requests_per_day: float = _assumed(5e6, "requests", "that 'millions a day' is taken for", 1)
    fleet_gpus: int = _assumed(64, "GPUs", "that a team can rent for one service; more count as impossible", 1)
    hours_per_month: float = _assumed(730, "hours", "that a month is billed for", 1, 744)
    compute_reached: float = _assumed(1.0, "share", "of the data sheet's matrix rate that kernels reach", 0.01, 1)
    bandwidth_reached: float = _assumed(1.0, "share", "of the data sheet's bandwidth that kernels reach", 0.01, 1)
    tolerance: float = _assumed(0.05, "share", "by which a number may miss and still be called right", 0, 1)
    noise_percent: float = _assumed(1.0, "percent", "of a score that may be lost and be called near lossless", 0, 100)

    def __post_init__(self) -> None:
        for one in fields(self):
            _check(one.name, getattr(self, one.name), one.default, one.metadata["low"], one.metadata["high"])
        if self.kv_bits not in KV_BITS:
            raise ValueError(f"kv_bits: got {self.kv_bits}; choose from {', '.join(map(str, KV_BITS))}")

    def set(self, *changes: str) -> Assumptions:
        """The same assumptions but for `changes`, each of the form "name=value".

        Raises:
            TypeError, ValueError: no such form, no such name, or a value that is not allowed.
        """
        known = {one.name: one for one in fields(self)}
        found: dict[str, Any] = {}
        for change in changes:
            name, sign, text = (part.strip() for part in change.partition("="))
            if not sign:
                raise ValueError(f"set: got {change!r}; give NAME=VALUE, such as gpu_memory_utilization=0.95")
            if name not in known:
                raise ValueError(f"set: no assumption {name!r}; {suggestion(name, known)}")
            found[name] = _read(name, text, type(known[name].default))
        return replace(self, **found)

    def to_dict(self) -> dict[str, Any]:
        """Value, unit and meaning of each assumption, by name."""
        return {
            one.name: {
                "value": getattr(self, one.name),
                "unit": one.metadata["unit"],
                "meaning": one.metadata["meaning"],
            }
            for one in fields(self)
        }

    def __str__(self) -> str:
        texts = [f"{name}={_short(one['value'])}" for name, one in self.to_dict().items()]
        width = max(map(len, texts))
        rows = zip(texts, self.to_dict().values(), strict=True)
        return "\n".join(f"{text:{width}}  {one['unit']} {one['meaning']}" for text, one in rows)

    @property
    def int4(self) -> str:
        """The precision that the claims call INT4."""
        return f"int4-g{self.group_size}"

    def gb(self, precision: str, **options: Any) -> float:
        """10^9 bytes of the model's weights; `options` go to `memory`."""
        return memory(self.model, precision, **options).weights / 1e9

    def fit(self, place: str, precision: str, **options: Any) -> Fit:
        """The model on a GPU, or on all GPUs of an instance, under these assumptions; `options` go to `fits`."""
        usual = {"utilization": self.gpu_memory_utilization, "overhead_gb": self.overhead_gb}
        usual |= {"kv_bits": self.kv_bits, "context": self.context}
        return fits(self.model, place, precision=precision, **(usual | options))

    def near(self, value: float, claimed: float) -> bool:
        """Whether a value is what was claimed, but for `tolerance`."""
        return abs(value - claimed) <= self.tolerance * abs(claimed)


def _short(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.16g}"


def _check(name: str, value: Any, default: Any, low: float, high: float) -> None:
    if isinstance(default, str):
        size = spec(value).parameters if isinstance(value, str) and plain(value) in map(plain, names()) else 0
        if not low <= size <= high:
            class_70b = ", ".join(known for known in names() if low <= spec(known).parameters <= high)
            raise ValueError(f"{name}: got {value!r}; the claims speak of a 70B, so choose from {class_70b}")
        return
    wanted = int if isinstance(default, int) else (int, float)
    if isinstance(value, bool) or not isinstance(value, wanted):
        kind = "whole number" if wanted is int else "number"
        raise TypeError(f"{name}: got {value!r}; give a {kind}")
    if not low <= value <= high or value == inf:
        most = "or more" if high == inf else f"to {high:,.16g}"
        raise ValueError(f"{name}: got {value!r}; give {low:,.16g} {most}")


def _read(name: str, text: str, kind: type) -> Any:
    try:
        return kind(text)
    except ValueError:
        what = "whole number" if kind is int else "number"
        raise TypeError(f"{name}: got {text!r}; give a {what}") from None
