"""How the course is taught: predictions, explorers, graded questions, the learner's workspace, the notebook tools.

A lesson writes `from qlab.learn import explore, predict`, an exercise `from qlab.learn import check, hint, solution`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

# Bound at once and not lazily: the function shares its name with its module, and importing the module
# later would put the module in the function's place.
from .predict import predict

if TYPE_CHECKING:
    from .desk import check, hint, made_for, reset, solution, status
    from .explorer import Explorer, explore

__all__ = ["Explorer", "check", "explore", "hint", "made_for", "predict", "reset", "solution", "status"]

_LAZY = {
    **dict.fromkeys(("Explorer", "explore"), "explorer"),  # these need ipywidgets and matplotlib
    **dict.fromkeys(("check", "hint", "made_for", "reset", "solution", "status"), "desk"),
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module 'qlab.learn' has no attribute {name!r}; it offers {', '.join(__all__)}")
