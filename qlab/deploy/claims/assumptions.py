"""What popular claims leave open, and a verdict needs: each assumption with its unit, its meaning and its bounds."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from ..assumptions import assumed, changed, check
from ..entries import plain
from ..fits import Fit, fits
from ..kv import KV_BITS
from ..memory import memory
from ..models import names, spec

SMALLEST, LARGEST = 65e9, 80e9  # parameters of "a 70B"


@dataclass(frozen=True)
class Assumptions:
    """What the claims leave open and a verdict needs. `fields(Assumptions)` has the unit and the meaning of each.

    Raises:
        TypeError: a value of the wrong kind.
        ValueError: a value out of range, or a model that is unknown or not of the 70B class.
    """

    model: str = assumed("Llama-3-70B", "name", "of the 70B model that the claims speak of")
    gpu_memory_utilization: float = assumed(0.92, "share", "of the visible GPU memory that the server uses", 0.1, 1)
    overhead_gb: float = assumed(1.5, "GB", "set aside on each GPU for activations, CUDA context and waste", 0, 100)
    group_size: int = assumed(128, "weights", "that share a scale at 4 bits", 1, 65_536)
    kv_bits: int = assumed(16, "bits", "of a number in the KV cache", among=KV_BITS)
    context: int = assumed(4096, "tokens", "of a request, prompt and answer, where a claim names no length", 1)
    prompt_tokens: int = assumed(1024, "tokens", "of a prompt, where a claim is about time or load", 1)
    output_tokens: int = assumed(50, "tokens", "of an answer, where a claim is about time or load", 1)
    requests_per_day: float = assumed(5e6, "requests", "that 'millions a day' is taken for", 1)
    fleet_gpus: int = assumed(64, "GPUs", "that a team can rent for one service; more count as impossible", 1)
    hours_per_month: float = assumed(730, "hours", "that a month is billed for", 1, 744)
    compute_reached: float = assumed(1.0, "share", "of the data sheet's matrix rate that kernels reach", 0.01, 1)
    bandwidth_reached: float = assumed(1.0, "share", "of the data sheet's bandwidth that kernels reach", 0.01, 1)
    tolerance: float = assumed(0.05, "share", "by which a number may miss and still be called right", 0, 1)
    noise_percent: float = assumed(1.0, "percent", "of a score that may be lost and be called near lossless", 0, 100)

    def __post_init__(self) -> None:
        check(self)
        known = isinstance(self.model, str) and plain(self.model) in map(plain, names())
        size = spec(self.model).parameters if known else 0
        if not SMALLEST <= size <= LARGEST:
            class_70b = ", ".join(name for name in names() if SMALLEST <= spec(name).parameters <= LARGEST)
            raise ValueError(f"model: got {self.model!r}; the claims speak of a 70B, so choose from {class_70b}")

    def set(self, *changes: str) -> Assumptions:
        """The same assumptions but for `changes`, each of the form "name=value".

        Raises:
            TypeError, ValueError: no such form, no such name, or a value that is not allowed.
        """
        return changed(self, *changes)

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
        usual |= {"kv_bits": self.kv_bits, "context": self.context, "extended": True}
        return fits(self.model, place, precision=precision, **(usual | options))

    def near(self, value: float, claimed: float) -> bool:
        """Whether a value is what was claimed, but for `tolerance`."""
        return abs(value - claimed) <= self.tolerance * abs(claimed)


def _short(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:.16g}"
