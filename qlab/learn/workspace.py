"""The learner's workspace: copies of the lessons in `work/`, which nothing ever overwrites.

A copy has no outputs, so that the learner predicts before the notebook tells. It remembers in its metadata
which version of the lesson it came from; that is how a newer version is noticed.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from .execute import NotebookError, read, write


def copy_lessons(root: Path, work: Path | None = None) -> list[Path]:
    """Copy every lesson that the workspace does not have yet, and print what was copied and what was left alone.

    Args:
        root: the folder of the repository, with its `notebooks/`.
        work: the workspace; `root/work` if None. It is made if it is not there.

    Returns:
        The new files.

    Raises:
        ValueError: there is no `notebooks/` in `root`, `work` is not a folder, or a lesson is not a notebook.
    """
    lessons = root / "notebooks"
    if not lessons.is_dir():
        raise ValueError(f"root: {root} has no folder notebooks/; give the folder of the qlab repository")
    work = root / "work" if work is None else work
    if work.exists() and not work.is_dir():
        raise ValueError(f"work: {work} is a file; move it away, the lessons need a folder of that name")
    work.mkdir(parents=True, exist_ok=True)
    copied: list[Path] = []
    kept: list[str] = []
    for path in sorted(lessons.glob("*.ipynb")):
        lesson = read(path)
        target = work / path.name
        if target.exists() or target.is_symlink():
            kept.append(path.name)
            if _is_newer(lesson, target):
                print(
                    f"{path.name} has a newer version. Yours was left as it is; "
                    f"to get the new one, rename or delete {work.name}/{path.name} and do this again."
                )
            continue
        write(_fresh(lesson), target)
        copied.append(target)
    if copied:
        print(f"Copied to {work.name}/: {', '.join(path.name for path in copied)}.")
    if kept:
        print(f"Left as they are in {work.name}/: {', '.join(kept)}.")
    if not copied and not kept:
        print("There are no lessons to copy yet.")
    return copied


def _fresh(lesson: Any) -> Any:
    """The lesson without outputs and counts, with the mark of its version. Cell ids and tags stay."""
    for cell in lesson.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            cell.execution_count = None
    lesson.metadata["qlab"] = {"lesson": _version(lesson)}
    return lesson


def _version(lesson: Any) -> str:
    """A mark of what the author wrote; another run of the same cells does not change it."""
    written = [(cell.cell_type, cell.source) for cell in lesson.cells]
    return hashlib.sha256(json.dumps(written).encode()).hexdigest()[:16]


def _is_newer(lesson: Any, copy: Path) -> bool:
    """Whether the lesson has changed since it was copied; False where the copy cannot tell."""
    try:
        mark = read(copy).metadata.get("qlab", {}).get("lesson")
    except NotebookError:
        return False
    return mark is not None and mark != _version(lesson)


def main() -> int:
    """Copy the lessons of the repository that this package lies in."""
    try:
        copy_lessons(Path(__file__).resolve().parents[2])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
