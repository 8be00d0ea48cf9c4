"""What a deployment costs: memory now; time, money and claims in later lessons. Nothing here imports torch.

`memory` and `fits` are the functions; they hide the modules of the same names.
"""

from __future__ import annotations

from .fits import Fit, fits
from .hardware import Gpu, gpu, gpus
from .memory import MemoryBreakdown, memory
from .models import names, spec
from .precision import Precision, parse_precision
from .shapes import ModelSpec

__all__ = [
    "Fit",
    "Gpu",
    "MemoryBreakdown",
    "ModelSpec",
    "Precision",
    "fits",
    "gpu",
    "gpus",
    "memory",
    "names",
    "parse_precision",
    "spec",
]
