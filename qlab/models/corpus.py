"""Prose and code that every Python already has: docstrings and source of its standard library.

Training text is read from the running interpreter. Two fixed excerpts ship with the package, so that numbers mean the
same under every Python: held-out text from modules that training never sees, for evaluation, and calibration text
from the others.
Nothing here needs torch.
"""

from __future__ import annotations

import ast
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

HELD_OUT = Path(__file__).parent / "heldout"
CALIBRATION = Path(__file__).parent / "calibration"
# Whole modules are held out, and everything imported under these names with them.
HELD_OUT_MODULES = frozenset(
    "argparse calendar csv difflib fractions heapq logging mailbox "
    "pathlib sched shutil statistics string textwrap turtle zipfile".split()
)
_SKIPPED = frozenset(
    "test tests idlelib lib2to3 site-packages __pycache__ turtledemo ensurepip encodings pydoc_data".split()
)


def modules() -> Iterator[tuple[str, str]]:
    """(name, source) of every standard-library module with Python source, in a fixed order."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        parts = path.relative_to(library).with_suffix("").parts
        if _SKIPPED.isdisjoint(parts) and parts[0] in sys.stdlib_module_names:
            try:
                yield ".".join(parts), path.read_text(encoding="utf-8")
            except UnicodeDecodeError:
                continue


def docstrings(source: str) -> list[str]:
    """The docstrings of a module, its classes and its functions, as plain paragraphs."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    nodes = [node for node in ast.walk(ast.parse(source)) if isinstance(node, kinds)]
    return [text for node in nodes if (text := ast.get_docstring(node)) and len(text) > 60]


def training_texts() -> tuple[list[str], list[str]]:
    """(prose documents, code documents) from every module that is not held out.

    Prose is the language reference that `help()` shows and the docstrings; code is the source.
    """
    from pydoc_data.topics import topics

    prose, code = [text for _, text in sorted(topics.items())], []
    for name, source in modules():
        if name.split(".")[0] not in HELD_OUT_MODULES:
            prose.append("\n\n".join(docstrings(source)))
            code.append(source)
    return [text for text in prose if len(text) > 200], [text for text in code if len(text) > 200]


def held_out_text(kind: str) -> str:
    """The fixed excerpt of held-out "prose" or "code" (about 60 kB each)."""
    return _read(HELD_OUT, kind)


def calibration_text(kind: str) -> str:
    """The fixed excerpt of training "prose" or "code" that calibration reads (about 60 kB each)."""
    return _read(CALIBRATION, kind)


def _read(folder: Path, kind: str) -> str:
    if kind not in ("prose", "code"):
        raise ValueError(f"kind must be 'prose' or 'code', not {kind!r}")
    return (folder / f"{kind}.txt").read_text(encoding="utf-8")


def write_held_out(folder: Path = HELD_OUT, size: int = 60_000) -> None:
    """Cut the shipped excerpts from this interpreter: the same share of every held-out module."""
    chosen = [source for name, source in modules() if name in HELD_OUT_MODULES]
    prose = ["\n\n".join(docstrings(source)) for source in chosen]
    _write(folder, prose, [_body(source) for source in chosen], size)


def write_calibration(folder: Path = CALIBRATION, size: int = 60_000, documents: int = 30) -> None:
    """Cut the shipped excerpts from this interpreter: the same share of documents spread over the training texts."""
    prose, code = (texts[:: len(texts) // documents][:documents] for texts in training_texts())
    _write(folder, prose, code, size)


def _write(folder: Path, prose: list[str], code: list[str], size: int) -> None:
    folder.mkdir(exist_ok=True)
    for kind, texts in (("prose", prose), ("code", code)):
        cut = [text[: size // len(texts)].rsplit("\n", 1)[0] for text in texts]
        (folder / f"{kind}.txt").write_text("\n\n".join(cut) + "\n", encoding="utf-8")


def _body(source: str) -> str:
    """A module's source from its first class or function on: what precedes it is mostly prose."""
    first = next(n for n in ast.parse(source).body if isinstance(n, (ast.ClassDef, ast.FunctionDef)))
    return "\n".join(source.splitlines()[first.lineno - 1 :])
