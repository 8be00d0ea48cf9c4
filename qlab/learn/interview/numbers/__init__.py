"""The numbers of an interview, each computed by `qlab.deploy` when it is asked for.

A scenario names a function of this registry and its arguments:

    weights_int4: {compute: weights, of: {model: Llama-3-70B, precision: int4-g128}, unit: GB}

Every function gives a value in its own unit, which `value` converts. What a server needs beside the data sheet comes
from the calibrated roofline (`deploy.speed`) and from the plan (`deploy.planning`), as in the lessons.
"""

from . import memory, money, quality, speed
from .registry import COMPUTATIONS, value

__all__ = ["COMPUTATIONS", "memory", "money", "quality", "speed", "value"]
