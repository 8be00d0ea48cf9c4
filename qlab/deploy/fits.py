"""Whether a model fits one GPU, and how many tokens of KV cache the rest of its memory holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .hardware import Gpu, gpu
from .memory import MemoryBreakdown, memory


@dataclass(frozen=True)
class Fit:
    """What one GPU has left for the KV cache. `budget` may be negative: the weights are then too large by that much."""

    breakdown: MemoryBreakdown
    gpu: Gpu
    utilization: float
    overhead: int
    budget: int

    @property
    def tokens(self) -> int:
        """Tokens of KV cache that fit, over all requests together."""
        return max(0, self.budget) // self.breakdown.kv_per_token

    def batch_at(self, context: int) -> int:
        """Requests of `context` tokens that fit at once."""
        if context < 1:
            raise ValueError(f"context: got {context}; it must be 1 or more")
        return self.tokens // context

    @property
    def batch(self) -> int:
        """Requests that fit at once at the breakdown's own context."""
        return self.batch_at(self.breakdown.context)

    @property
    def longest_context(self) -> int:
        """Tokens that a single request may have: what fits, but no more than the model was made for."""
        return min(self.tokens, self.breakdown.spec.max_context)

    @property
    def fits(self) -> bool:
        """Whether the breakdown's batch fits at its context. With batch 0: whether the weights do."""
        return self.budget >= self.breakdown.kv_cache

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings; byte counts have names that end in `_bytes`."""
        return {
            "model": self.breakdown.spec.name,
            "precision": self.breakdown.precision,
            "gpu": self.gpu.name,
            "utilization": self.utilization,
            "visible_bytes": self.gpu.visible_bytes,
            "overhead_bytes": self.overhead,
            "weights_bytes": self.breakdown.weights,
            "budget_bytes": self.budget,
            "tokens": self.tokens,
            "context": self.breakdown.context,
            "batch": self.batch,
            "longest_context": self.longest_context,
            "fits": self.fits,
        }

    def __str__(self) -> str:
        what = f"{self.breakdown.spec.name} at {self.breakdown.precision} on one {self.gpu.name}"
        if self.budget < 0:
            return f"{what}: the weights do not fit; {-self.budget / 1e9:.2f} GB are missing."
        verdict = "fits" if self.fits else "does not fit as asked"
        return (
            f"{what}: {verdict}. {self.budget / 1e9:.2f} GB are left for the KV cache, or {self.tokens:,} tokens: "
            f"{self.batch:,} requests of {self.breakdown.context:,} tokens at once, or one of {self.longest_context:,}."
        )


def fits(
    model: Any, gpu_name: str | Gpu, *, utilization: float = 0.92, overhead_gb: float = 1.5, **options: Any
) -> Fit:
    """What fits on one GPU: memory that CUDA shows x utilization - weights - overhead is left for the KV cache.

    Args:
        model: a MemoryBreakdown, or whatever `memory` takes first; then `options` go to `memory` as well.
        gpu_name: a name from `gpus()`, or a Gpu.
        utilization: the share of visible memory that the server may use; 0.92 is vLLM's default.
        overhead_gb: 10^9 bytes set aside for activations and the CUDA context.

    Raises:
        TypeError: options beside a MemoryBreakdown, which has fixed them already.
        ValueError: an unknown GPU, or a utilization or overhead out of range.
    """
    if isinstance(model, MemoryBreakdown):
        if options:
            raise TypeError(f"fits: {', '.join(options)} given beside a MemoryBreakdown; give them to memory() instead")
        breakdown = model
    else:
        breakdown = memory(model, **options)
    if not _is_number(utilization) or not 0 < utilization <= 1:
        raise ValueError(f"utilization: got {utilization!r}; it must be above 0 and at most 1")
    if not _is_number(overhead_gb) or not 0 <= overhead_gb < float("inf"):
        raise ValueError(f"overhead_gb: got {overhead_gb!r}; it must be 0 or more")
    found = gpu(gpu_name)
    overhead = round(overhead_gb * 1e9)
    budget = int(found.visible_bytes * utilization) - breakdown.weights - overhead
    return Fit(breakdown, found, utilization, overhead, budget)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
