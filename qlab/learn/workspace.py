"""The learner's workspace: copies of lessons in `work/`, of exercises in `work/exercises/`. Nothing overwrites them.

A copy has no outputs, so that the learner predicts before the notebook tells. It remembers in its metadata
which version it came from; that is how a newer version is noticed. `reset` puts a fresh copy in the place of a
learner's file and keeps that file beside it.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import nbformat

from .execute import NotebookError, read, write


@dataclass(frozen=True)
class Kind:
    """Lessons or exercises: where they come from, where their copies go, and how links change on the way."""

    word: str
    source: str  # in the repository
    target: str  # in the workspace
    links: tuple[str, str]
    mark: str  # where a copy's metadata keep the mark of its version
    reset: str  # the command that brings a fresh copy


LESSON = Kind("lesson", "notebooks", ".", ("../exercises/", "exercises/"), "lesson", "qlab reset {} --lesson")
EXERCISE = Kind("exercise", "exercises", "exercises", ("../notebooks/", "../"), "released", "qlab reset {}")
KINDS = (LESSON, EXERCISE)


@dataclass(frozen=True)
class Copies:
    """What a round of copying did; the files are those of the workspace `work`."""

    work: Path
    copied: list[Path] = field(default_factory=list)
    kept: list[Path] = field(default_factory=list)  # the learner has them
    newer: dict[Path, str] = field(default_factory=dict)  # of these: the command that brings a newer version

    def __str__(self) -> str:
        lines = [
            f"{self.name(path)} has a newer version. Yours was left as it is; "
            f"{command} brings the new one and keeps yours beside it."
            for path, command in self.newer.items()
        ]
        if self.copied:
            lines.append(f"Copied to {self.work.name}/: {', '.join(map(self.name, self.copied))}.")
        if self.kept:
            lines.append(f"Left as they are in {self.work.name}/: {', '.join(map(self.name, self.kept))}.")
        return "\n".join(lines) or "There are no lessons to copy yet."

    @property
    def main(self) -> Path:
        """The file to open: the exercise, and where there is none, the lesson."""
        return max(self.copied + self.kept, key=lambda path: len(path.parts))

    def name(self, path: Path) -> str:
        return path.relative_to(self.work).as_posix()

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        lists = {"copied": self.copied, "kept": self.kept, "newer": list(self.newer)}
        return {"work": str(self.work)} | {what: [str(path) for path in paths] for what, paths in lists.items()}


@dataclass(frozen=True)
class Fresh:
    """A fresh copy, and where the learner's file went that had its name; None if there was none."""

    path: Path
    kept_as: Path | None

    def __str__(self) -> str:
        if self.kept_as is None:
            return f"{self.path} is a fresh copy; there was none before."
        return (
            f"{self.path} is a fresh copy. Your file is kept as {self.kept_as.name} beside it.\n"
            "If it is open in JupyterLab, use File > Reload Notebook from Disk there."
        )

    def to_dict(self) -> dict[str, str | None]:
        """Plain values, ready for JSON."""
        return {"path": str(self.path), "kept_as": None if self.kept_as is None else str(self.kept_as)}


def copy_lessons(root: Path, work: Path | None = None) -> list[Path]:
    """Copy each lesson and exercise that the workspace does not have; print what was copied and what was left alone.

    Args:
        root: the folder of the repository, with its `notebooks/` and `exercises/`.
        work: the workspace; `root/work` if None. It is made if it is not there.

    Returns:
        The new files.

    Raises:
        ValueError: there is no `notebooks/` in `root`, `work` is not a folder, or a lesson is not a notebook.
    """
    copies = _copy(root, work, [(kind, path) for kind in KINDS for path in _notebooks(root, kind)])
    print(copies)
    return copies.copied


def start(text: str, root: Path | None = None, work: Path | None = None) -> Copies:
    """Copy the lessons and the exercise of one part of the course, where the learner does not have them.

    Args:
        text: the number or the name: "02", "2", "02_linear".
        root: the folder of the repository; the one that this package lies in if None.
        work: the workspace; `root/work` if None.

    Raises:
        ValueError: there is no such part, or no repository.
    """
    root = repository() if root is None else root
    found = [(kind, path) for kind in KINDS for path in _notebooks(root, kind) if _is_meant(text, path)]
    if not found:
        raise ValueError(f"number: there is no {text!r}; there is {_offer(root, KINDS)}")
    # "02_linear" names a file, and means all with its number.
    numbers = {_number(path) for _, path in found}
    return _copy(root, work, [(k, path) for k in KINDS for path in _notebooks(root, k) if _number(path) in numbers])


def reset(text: str, lesson: bool = False, root: Path | None = None, work: Path | None = None) -> Fresh:
    """Put a fresh copy of an exercise, or of a lesson, in the place of the learner's, which is kept beside it.

    Args:
        text: the number or the name: "02", "2", "02_linear".
        lesson: the lesson of that number instead of the exercise.
        root, work: as for `start`.

    Raises:
        ValueError: there is no such exercise or lesson, or no repository.
    """
    root = repository() if root is None else root
    kind = LESSON if lesson else EXERCISE
    path = find(text, kind, root)
    target = (root / "work" if work is None else work) / kind.target / path.name
    _make_folder(target.parent)
    fresh = _fresh(read(path), kind)  # before anything is moved
    kept_as = None
    if target.exists() or target.is_symlink():
        kept_as = _free(target, datetime.now())
        target.rename(kept_as)  # a run that is cut off here leaves the learner's file whole, under its new name
    write(fresh, target)
    return Fresh(target, kept_as)


def find(text: str, kind: Kind, root: Path) -> Path:
    """The one lesson or exercise of the repository with that number or name.

    Raises:
        ValueError: there is none.
    """
    for path in _notebooks(root, kind):
        if _is_meant(text, path):
            return path
    raise ValueError(f"number: there is no {kind.word} {text!r}; there is {_offer(root, (kind,))}")


def repository() -> Path:
    """The clone of the repository that this package lies in.

    Raises:
        ValueError: the package was installed without one.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / "notebooks").is_dir():
        raise ValueError(
            "lessons and exercises come with a clone of the repository, and this qlab was installed without: "
            "clone it, and there run make lab (or pip install -e '.[lab]')"
        )
    return root


def _copy(root: Path, work: Path | None, chosen: list[tuple[Kind, Path]]) -> Copies:
    if not (root / "notebooks").is_dir():
        raise ValueError(f"root: {root} has no folder notebooks/; give the folder of the qlab repository")
    copies = Copies(root / "work" if work is None else work)
    _make_folder(copies.work)
    for kind, path in chosen:
        original = read(path)
        target = copies.work / kind.target / path.name
        _make_folder(target.parent)
        if target.exists() or target.is_symlink():
            copies.kept.append(target)
            if _is_newer(original, target, kind):
                copies.newer[target] = kind.reset.format(_number(path))
            continue
        write(_fresh(original, kind), target)
        copies.copied.append(target)
    return copies


def _make_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"work: {folder} is a file; move it away, the course needs a folder of that name")
    folder.mkdir(parents=True, exist_ok=True)


def _notebooks(root: Path, kind: Kind) -> list[Path]:
    return sorted((root / kind.source).glob("*.ipynb"))


def _number(path: Path) -> str:
    return path.name.partition("_")[0]


def _is_meant(text: str, path: Path) -> bool:
    wanted, number = str(text).strip().removesuffix(".ipynb"), _number(path)
    return wanted == path.stem or (wanted.isdecimal() and number.isdecimal() and int(wanted) == int(number))


def _offer(root: Path, kinds: tuple[Kind, ...]) -> str:
    offers = [f"{kind.word} {path.stem}" for kind in kinds for path in _notebooks(root, kind)]
    return ", ".join(offers) or f"none yet in {', '.join(f'{kind.source}/' for kind in kinds)}"


def _fresh(original: Any, kind: Kind) -> Any:
    """The notebook without outputs and counts, with the mark of its version. Cell ids and tags stay."""
    mark = _version(original)
    for cell in original.cells:
        if cell.cell_type == "code":
            cell.outputs = []
            cell.execution_count = None
        elif cell.cell_type == "markdown":
            cell.source = _relink(cell.source, *kind.links)
    original.metadata["qlab"] = nbformat.from_dict({**original.metadata.get("qlab", {}), kind.mark: mark})
    return original


def _relink(text: str, old: str, new: str) -> str:
    """The text with links to `old…` led to `new…`: the workspace nests the two folders."""
    return re.sub(rf"(\]\(|href=\")({re.escape(old)})", rf"\1{new}", text)


def _version(original: Any) -> str:
    """A mark of what the author wrote; another run of the same cells does not change it."""
    written = [(cell.cell_type, cell.source) for cell in original.cells]
    return hashlib.sha256(json.dumps(written).encode()).hexdigest()[:16]


def _is_newer(original: Any, copy: Path, kind: Kind) -> bool:
    """Whether the original has changed since it was copied; False where the copy cannot tell."""
    try:
        mark = read(copy).metadata.get("qlab", {}).get(kind.mark)
    except NotebookError:
        return False
    return mark is not None and mark != _version(original)


def _free(path: Path, now: datetime) -> Path:
    """A name beside `path` that nobody has: 02_linear.20261121-101500.ipynb."""

    def names() -> Iterator[Path]:
        stamp = f"{now:%Y%m%d-%H%M%S}"
        yield path.with_name(f"{path.stem}.{stamp}{path.suffix}")
        for count in range(2, 1000):
            yield path.with_name(f"{path.stem}.{stamp}-{count}{path.suffix}")

    return next(name for name in names() if not (name.exists() or name.is_symlink()))


def main() -> int:
    """Copy the lessons and exercises of the repository that this package lies in."""
    try:
        copy_lessons(Path(__file__).resolve().parents[2])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
