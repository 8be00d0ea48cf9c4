"""How the course is taught: predictions, explorers, the learner's workspace, and the notebook tools.

A notebook writes `from qlab.learn import explore, predict`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# Bound at once and not lazily: the function shares its name with its module, and importing the module
# later would put the module in the function's place.
from .predict import predict

if TYPE_CHECKING:
    from .explorer import Explorer, explore

__all__ = ["Explorer", "explore", "predict"]


def __getattr__(name: str) -> Any:
    if name in ("Explorer", "explore"):  # these need ipywidgets and matplotlib
        from . import explorer

        return getattr(explorer, name)
    raise AttributeError(f"module 'qlab.learn' has no attribute {name!r}; it offers {', '.join(__all__)}")
