"""What a deployment costs: memory, hardware and prices, published results. Nothing here imports torch.

`memory`, `fits` and `instances` are the functions; they hide the modules of the same names. `results` is the module.
"""

from __future__ import annotations

from . import results
from .breakdown import MemoryBreakdown
from .fits import Fit, Placement, fits, placements, smallest_instance
from .hardware import Gpu, gpu, gpus
from .instances import Instance, instance, instances, price_note
from .memory import memory
from .models import names, spec
from .precision import Precision, parse_precision
from .runtime import Runtime
from .shapes import ModelSpec

__all__ = [
    "Fit",
    "Gpu",
    "Instance",
    "MemoryBreakdown",
    "ModelSpec",
    "Placement",
    "Precision",
    "Runtime",
    "fits",
    "gpu",
    "gpus",
    "instance",
    "instances",
    "memory",
    "names",
    "parse_precision",
    "placements",
    "price_note",
    "results",
    "smallest_instance",
    "spec",
]
