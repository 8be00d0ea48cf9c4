"""Whether a model fits a GPU, or each of several, how many tokens of KV cache the rest holds, and what to rent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .breakdown import MemoryBreakdown
from .hardware import Gpu, gpu
from .instances import Instance, instance, instances
from .memory import memory
from .models import spec


@dataclass(frozen=True)
class Fit:
    """What a GPU has left for the KV cache. `budget` may be negative: the weights are then too large by that much.

    With tensor parallelism every GPU holds its share of every token, so one of them speaks for all.
    """

    breakdown: MemoryBreakdown
    gpu: Gpu
    utilization: float
    overhead: int
    budget: int

    @property
    def gpus(self) -> int:
        """GPUs among which the model is split."""
        return self.breakdown.tensor_parallel

    @property
    def tokens(self) -> int:
        """Tokens of KV cache that fit, over all requests together."""
        return max(0, self.budget) // self.breakdown.kv_per_token

    def batch_at(self, context: int) -> int:
        """Requests of `context` tokens that fit at once."""
        if type(context) is not int or context < 1:
            raise ValueError(f"context: got {context!r}; it must be 1 or more")
        return self.tokens // context

    def context_at(self, batch: int) -> int:
        """Tokens that each of `batch` requests may have: what fits, but no more than the model was made for."""
        if type(batch) is not int or batch < 1:
            raise ValueError(f"batch: got {batch!r}; it must be 1 or more")
        return min(self.tokens // batch, self.breakdown.spec.max_context)

    @property
    def batch(self) -> int:
        """Requests that fit at once at the breakdown's own context."""
        return self.batch_at(self.breakdown.context)

    @property
    def longest_context(self) -> int:
        """Tokens that a single request may have."""
        return self.context_at(1)

    @property
    def fits(self) -> bool:
        """Whether the breakdown's batch fits at its context. With batch 0: whether the weights do."""
        return self.budget >= self.breakdown.kv_cache

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings; byte counts have names that end in `_bytes`, and are those of one GPU."""
        return {
            "model": self.breakdown.spec.name,
            "precision": self.breakdown.precision,
            "gpu": self.gpu.name,
            "gpus": self.gpus,
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
        where = f"one {self.gpu.name}" if self.gpus == 1 else f"each of {self.gpus} {self.gpu.name}"
        what = f"{self.breakdown.spec.name} at {self.breakdown.precision} on {where}"
        if self.budget < 0:
            return f"{what}: the weights do not fit; {-self.budget / 1e9:.2f} GB are missing."
        verdict = "fits" if self.fits else "does not fit as asked"
        return (
            f"{what}: {verdict}. {self.budget / 1e9:.2f} GB are left for the KV cache, or {self.tokens:,} tokens: "
            f"{self.batch:,} requests of {self.breakdown.context:,} tokens at once, or one of {self.longest_context:,}."
        )


@dataclass(frozen=True)
class Placement:
    """A model on a rented machine."""

    instance: Instance
    fit: Fit

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers and strings, those of the fit among them."""
        return {
            "instance": self.instance.name,
            "instance_gpus": self.instance.count,
            "region": self.instance.region,
            "price_usd_per_hour": self.instance.price_usd_per_hour,
            "price_date": self.instance.price_date,
            "price_age_days": self.instance.price_age(),
            "fit": self.fit.to_dict(),
        }

    def __str__(self) -> str:
        price = self.instance.price_usd_per_hour
        cost = (
            "no price is listed" if price is None else f"{price:,.2f} USD per hour on demand in {self.instance.region}"
        )
        unused = self.instance.count - self.fit.gpus
        idle = f" ({unused} of its {self.instance.count} GPUs stay free)" if unused else ""
        return f"{self.instance.name}, {cost}{idle}. {self.fit}"


def fits(
    model: Any,
    place: str | Gpu | Instance,
    *,
    utilization: float = 0.92,
    overhead_gb: float | None = 1.5,
    **options: Any,
) -> Fit:
    """What fits: on each GPU memory that CUDA shows x utilization - weights - overhead is left for the KV cache.

    Args:
        model: a MemoryBreakdown, or whatever `memory` takes first; then `options` go to `memory` as well.
        place: a GPU or a name from `gpus()`; or an EC2 instance or a name from `instances()`, all of whose GPUs then
            share the model, unless `tensor_parallel` or the breakdown says otherwise.
        utilization: the share of visible memory that the server may use; 0.92 is vLLM's default.
        overhead_gb: 10^9 bytes set aside on each GPU for activations, the CUDA context and waste; None takes the
            estimate of `qlab.deploy.runtime` for the breakdown's batch and context.

    Raises:
        TypeError: options beside a MemoryBreakdown, which has fixed them already.
        ValueError: an unknown GPU or instance, fewer GPUs than the model is split for, heads that cannot be shared out
            among them, or a utilization or overhead out of range.
    """
    if not _is_number(utilization) or not 0 < utilization <= 1:
        raise ValueError(f"utilization: got {utilization!r}; it must be above 0 and at most 1")
    if overhead_gb is not None and (not _is_number(overhead_gb) or not 0 <= overhead_gb < float("inf")):
        raise ValueError(f"overhead_gb: got {overhead_gb!r}; it must be 0 or more, or None for an estimate")
    found, count = _gpus_of(place)
    if isinstance(model, MemoryBreakdown):
        if options:
            raise TypeError(f"fits: {', '.join(options)} given beside a MemoryBreakdown; give them to memory() instead")
        breakdown = model
    else:
        breakdown = memory(model, **{"tensor_parallel": count or 1, **options})
    if count is not None and breakdown.tensor_parallel > count:
        raise ValueError(f"tensor_parallel: got {breakdown.tensor_parallel}; there are {count} GPUs, so give no more")
    overhead = breakdown.runtime.total if overhead_gb is None else round(overhead_gb * 1e9)
    budget = int(found.visible_bytes * utilization) - breakdown.weights - overhead
    return Fit(breakdown, found, utilization, overhead, budget)


def placements(
    model: Any,
    *,
    among: Iterable[str | Instance] | None = None,
    utilization: float = 0.92,
    overhead_gb: float | None = 1.5,
    **options: Any,
) -> list[Placement]:
    """The instances on which the whole batch fits at its context, cheapest first, those without a price last.

    The model is split over as many of an instance's GPUs as its heads allow. Left out are instances with GPUs whose
    memory nobody has written down.

    Args:
        model: whatever `memory` takes first; `options` go to `memory` as well.
        among: names of instances or instances; default: all that are known.

    Raises:
        TypeError: `tensor_parallel` is given; it follows from each instance.
        ValueError: as `fits` and `memory`.
    """
    if "tensor_parallel" in options:
        raise TypeError(
            "placements: got tensor_parallel; it follows from each instance, so leave it out, or call fits()"
        )
    shapes = spec(model)
    memory(shapes, **options)  # what is wrong with the options is wrong everywhere, so it is said before the search
    held = []
    for candidate in instances().values() if among is None else map(instance, among):
        if candidate.gpu.memory_visible_gib is None:
            continue
        split = max(n for n in shapes.splits if n <= candidate.count)
        arguments = {**options, "tensor_parallel": split, "utilization": utilization, "overhead_gb": overhead_gb}
        fit = fits(shapes, candidate.gpu, **arguments)
        if fit.fits:
            held.append(Placement(candidate, fit))
    return sorted(held, key=_price)


def smallest_instance(model: Any, **options: Any) -> Placement | None:
    """The cheapest of `placements`, or None if the model fits no instance. Arguments and errors are the same."""
    return next(iter(placements(model, **options)), None)


def _price(placement: Placement) -> tuple[float, int]:
    price = placement.instance.price_usd_per_hour
    return float("inf") if price is None else price, placement.instance.visible_bytes


def _gpus_of(place: str | Gpu | Instance) -> tuple[Gpu, int | None]:
    """The GPU, and how many there are where the place is an instance: names of these have a dot in them."""
    if isinstance(place, Instance) or (isinstance(place, str) and "." in place):
        rented = instance(place)
        return rented.gpu, rented.count
    return gpu(place), None


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
