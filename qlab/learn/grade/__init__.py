"""Grade submissions: run them in a box, judge what came back outside of it.

The learner's code and the judge never share a process. `submission` merges a submission with its master,
`isolation` builds a box around `worker`, which runs the notebook, `collect` calls the learner's functions in the
notebook's kernel on inputs that `grader` has made, `exchange` carries plain values over the border as files,
and `report` writes what the judge says.

This module is imported inside the box, too: it stays light and knows nothing of what is right.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .grader import grade_file, grade_files
    from .result import Result

__all__ = ["NOT_DEFENDED", "Result", "grade_file", "grade_files"]

NOT_DEFENDED = (
    "a learner who copies the solution, or who calls the library's own function instead of writing one",
    "flaws of the system's kernel, and side channels such as timing or the processor's caches",
    "at the level 'namespaces': reading what the box shows of this machine, which is the system's programs and "
    "libraries, this Python and the package without its answers",
    "at the level 'watchdog': an open network, files that you can read (the masters among them) or write, and "
    "processes that hide faster than they can be found",
    "use of the processor below the time limit",
)


def __getattr__(name: str) -> Any:
    if name in __all__:
        from . import grader

        return getattr(grader, name)
    raise AttributeError(f"module 'qlab.learn.grade' has no attribute {name!r}; it offers {', '.join(__all__)}")
