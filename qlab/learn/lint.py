"""The policy of a committed lesson, as a list of findings.

Most rules are there because nbval, which compares a lesson's outputs strictly, either trips over the
thing or passes it silently. They read the code as a syntax tree; only what was printed is searched as text.
"""

from __future__ import annotations

import ast
import io
import itertools
import re
import sys
import tokenize
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from IPython.core.inputtransformer2 import TransformerManager

from .execute import KEPT_IN_CELL, NOTEBOOK_METADATA, WIDGET_VIEW, printed

MAX_LINES = 15  # of code in a cell
MAX_BYTES = 400_000
IGNORED = "nbval-ignore-output"
CELLS_PER_IGNORED = 6

# module: names in it whose output nbval cannot compare
_REFUSED = {
    "ipywidgets": {"Output", "interact", "interact_manual", "interactive", "interactive_output"},
    "rich.progress": {"track"},
}
_HISTORY = re.compile(r"_{1,3}|_\d+|_i+|_i\d+|_[io]h|Out|In")
_TAGS_THAT_HIDE = re.compile(r"nbval-(?!ignore-output$).*|raises-exception|skip-execution")
_COMMENTS_THAT_HIDE = re.compile(r"#\s*(?:NBVAL_|PYTEST_VALIDATE_)\w+")
_TIMESTAMP = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d|\b[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d\b")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]{6,}")
_PATH = r"(?<![\w.~-])/(?:home|root|tmp|Users|var/folders|private)/[^\s'\"`)]*|\b[A-Za-z]:\\+Users\\+[^\s'\"`)]*"


@dataclass(frozen=True)
class Finding:
    """One breach of the policy. `cell` counts all cells from 1; None speaks of the whole notebook."""

    rule: str
    cell: int | None
    message: str

    def __str__(self) -> str:
        where = "notebook" if self.cell is None else f"cell {self.cell}"
        return f"{where}: {self.message} [{self.rule}]"


def lint(notebook: Any, path: Path | None = None) -> list[Finding]:
    """Every breach of the lesson policy, in the order of the cells.

    Args:
        notebook: as from `qlab.learn.execute.read`.
        path: its file, whose size is checked and whose own folder may not appear in the text.
    """
    found = list(_whole(notebook, path))
    paths = _machine_paths(path)
    refused: dict[str, str] = {}  # names bound so far to a module of _REFUSED
    count = 0
    for number, cell in enumerate(notebook.cells, start=1):
        rules = [_texts(cell, paths), _metadata(cell)]
        if cell.cell_type == "code":
            count += bool(cell.source.strip())
            rules += [_run(cell, count), _outputs(cell), _tags(cell), _code(cell, refused)]
        found += [Finding(rule, number, message) for findings in rules for rule, message in findings]
    return found


_Found = Iterator[tuple[str, str]]  # (rule, message)


def _whole(notebook: Any, path: Path | None) -> Iterator[Finding]:
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    ignored = sum(IGNORED in cell.metadata.get("tags", []) for cell in cells)
    if ignored * CELLS_PER_IGNORED > len(cells):
        message = f"{ignored} of {len(cells)} code cells have the tag {IGNORED}; one in {CELLS_PER_IGNORED} may"
        yield Finding("quota", None, message)
    if path is not None and (size := path.stat().st_size) > MAX_BYTES:
        yield Finding("size", None, f"{size:,} bytes; {MAX_BYTES:,} are allowed: draw fewer or smaller figures")
    for name, value in notebook.metadata.items():
        if NOTEBOOK_METADATA.get(name) != value:
            yield Finding("metadata", None, f"volatile metadata {name!r}: execute the notebook with this tool")


def _metadata(cell: Any) -> _Found:
    for name in sorted(set(cell.metadata) - KEPT_IN_CELL):
        yield "metadata", f"volatile metadata {name!r}: execute the notebook with this tool"


def _texts(cell: Any, paths: re.Pattern[str]) -> _Found:
    """What a reader sees as text: the source, and the printed outputs."""
    output_text = "\n".join(map(printed, cell.get("outputs", [])))
    for match in paths.finditer(f"{cell.source}\n{output_text}"):
        yield "path", f"a path of one machine: {match.group()}"
    for match in _TIMESTAMP.finditer(output_text):
        yield "timestamp", f"a time of day in the output: {match.group()} (a date alone is allowed)"
    for match in _ADDRESS.finditer(output_text):
        yield "address", f"a memory address in the output:{match.group()}: print something else than this object"


def _run(cell: Any, count: int) -> _Found:
    if not cell.source.strip():
        yield "empty", "an empty code cell"
    elif cell.execution_count != count:
        yield (
            "count",
            f"execution count {cell.execution_count or 'missing'} where {count} belongs: run all cells in order",
        )


def _outputs(cell: Any) -> _Found:
    for output in cell.outputs:
        if output.output_type == "error":
            yield "error", f"an error in the output: {output.ename}: {output.evalue}"
        if output.output_type == "stream" and output.name == "stderr":
            yield "stderr", f"output on stderr: {output.text.strip()[:80]!r}"
        data = output.get("data", {})
        if WIDGET_VIEW in data:
            yield "metadata", "the id of a widget that is gone: execute the notebook with this tool"
        for kind in data:
            if kind.startswith("image/") and not output.metadata.get(kind, {}).get("alt"):
                yield "alt", "a figure without alternative text: draw it with qlab.plots.style.Figure and set its alt"


def _tags(cell: Any) -> _Found:
    tags = cell.metadata.get("tags", [])
    for tag in filter(_TAGS_THAT_HIDE.fullmatch, tags):
        yield "tag", f"the tag {tag} hides the cell from the test; only {IGNORED} is allowed"
    for match in _COMMENTS_THAT_HIDE.finditer(cell.source):
        yield "tag", f"the comment {match.group()!r} hides the cell from the test; use the tag {IGNORED}"


def _code(cell: Any, refused: dict[str, str]) -> _Found:
    # IPython's own translation: a magic or a `!` becomes a call of get_ipython(), a string that holds one does not.
    source = TransformerManager().transform_cell(cell.source)
    try:
        tree = ast.parse(source)
    except SyntaxError as error:
        yield "syntax", f"does not parse: {error.msg} (line {error.lineno})"
        return
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    if (lines := _code_lines(source, tokens)) > MAX_LINES:
        yield "lines", f"{lines} lines of code; {MAX_LINES} are allowed: split the cell"
    yield from _semicolons(tokens)
    for node in ast.walk(tree):
        for rule in _NODE_RULES:
            yield from rule(node)
        yield from _refused_names(node, refused)
    if IGNORED in cell.metadata.get("tags", []) and not any(map(_asserts, _outside_functions(tree))):
        yield "assert", f"has the tag {IGNORED} and no assert: state what it teaches as an assert"


def _magics(node: ast.AST) -> _Found:
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
        return
    owner = node.func.value
    if not (isinstance(owner, ast.Call) and isinstance(owner.func, ast.Name) and owner.func.id == "get_ipython"):
        return
    words = [word.value for word in node.args if isinstance(word, ast.Constant)]
    if node.func.attr in ("system", "getoutput"):
        yield "shell", f"a shell command, !{' '.join(map(str, words))}: call a function of the package"
    elif words != ["matplotlib", "inline"]:
        yield "magic", f"the magic {' '.join(map(str, words[:1]))}: only %matplotlib inline is allowed"


def _history(node: ast.AST) -> _Found:
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load) and _HISTORY.fullmatch(node.id):
        yield "history", f"{node.id} as an earlier result: nbval keeps no history; give the result a name"


_NODE_RULES: tuple[Callable[[ast.AST], _Found], ...] = (_magics, _history)


def _refused_names(node: ast.AST, modules: dict[str, str]) -> _Found:
    """Names of `_REFUSED` at their import, and as attributes of a module that is bound to some name."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name in _REFUSED:
                modules[alias.asname or alias.name] = alias.name
    elif isinstance(node, ast.ImportFrom):
        for alias in node.names:
            if alias.name in _REFUSED.get(node.module or "", ()):
                yield "widget", _refusal(f"{node.module}.{alias.name}")
            if f"{node.module}.{alias.name}" in _REFUSED:
                modules[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    elif isinstance(node, ast.Attribute):
        module = modules.get(ast.unparse(node.value))
        if module and node.attr in _REFUSED[module]:
            yield "widget", _refusal(f"{module}.{node.attr}")


def _refusal(name: str) -> str:
    return f"{name}: its output cannot be compared; use qlab.learn.explore, or tqdm for progress"


def _semicolons(tokens: list[tokenize.TokenInfo]) -> _Found:
    significant = [t for t in tokens if t.type not in (tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER)]
    for token, following in itertools.pairwise(significant):
        if token.string == ";" and following.type == tokenize.NEWLINE:
            yield "semicolon", f"a trailing ; (line {token.start[0]}): nbval shows the result all the same; write _ = …"


def _code_lines(source: str, tokens: list[tokenize.TokenInfo]) -> int:
    layout = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    covered = {line for t in tokens if t.type not in layout for line in range(t.start[0], t.end[0] + 1)}
    return sum(bool(line.strip()) for number, line in enumerate(source.splitlines(), start=1) if number in covered)


def _asserts(node: ast.AST) -> bool:
    return isinstance(node, ast.Assert) and not isinstance(node.test, ast.Constant)


def _outside_functions(tree: ast.AST) -> Iterator[ast.AST]:
    """The nodes that run with the cell: a function's body may never be called."""
    for node in ast.iter_child_nodes(tree):
        if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)):
            yield node
            yield from _outside_functions(node)


def _machine_paths(path: Path | None) -> re.Pattern[str]:
    """Folders that are one user's or one system's anywhere, and those of this interpreter and this repository."""
    folders = [sys.prefix] + ([] if path is None else [str(path.resolve().parent.parent)])
    here = [rf"(?<![\w.~-]){re.escape(folder)}[/\\]" for folder in folders if len(folder) > 1]
    return re.compile("|".join([_PATH, *here]))
