"""qlab: a course in quantizing large language models, and the library that its lessons build.

`import qlab` is light. The heavy parts (torch, transformers, matplotlib) load with the first name that needs them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import bench, deploy, formats, learn, methods, models, plots
    from .models.evaluate import evaluate
    from .models.export import export
    from .models.load import load
    from .models.quantize import quantize_model

__version__ = "0.1.0"

__all__ = [
    "__version__",
    "bench",
    "deploy",
    "evaluate",
    "export",
    "formats",
    "learn",
    "load",
    "methods",
    "models",
    "plots",
    "quantize_model",
]

_SUBMODULES = {"bench", "deploy", "formats", "learn", "methods", "models", "plots"}
_FUNCTIONS = {
    "evaluate": "qlab.models.evaluate",
    "export": "qlab.models.export",
    "load": "qlab.models.load",
    "quantize_model": "qlab.models.quantize",
}


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return import_module(f"qlab.{name}")
    if name in _FUNCTIONS:
        value = globals()[name] = getattr(import_module(_FUNCTIONS[name]), name)
        return value
    raise AttributeError(f"module 'qlab' has no attribute {name!r}; it offers {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
