"""Printed numbers that another processor could round differently.

A lesson is compared digit by digit, and a sum that is taken in another order changes in its last bits. That
shows only where a number lies next to a rounding edge: 0.12499 printed with two decimals is a hair away
from 0.13. `find` runs a notebook again and watches every rounding on the way, in its cells and in qlab
itself: f-strings with a format, `format`, `str.format` and `round`. Roundings inside other libraries (how a
tensor or a data frame prints itself) and with `%` are not seen.
"""

from __future__ import annotations

import ast
import builtins
import copy
import json
import math
import re
import string
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from numbers import Integral
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import nbformat

from .execute import TIMEOUT, NotebookError, printed, read, run

TOLERANCE = 0.02  # of the unit of the last printed digit

_SPEC = re.compile(r"(?:.?[<>=^])?[-+ ]?z?#?0?\d*[_,]?(?:\.(?P<precision>\d+))?(?P<kind>[eEfFgGn%]?)", re.DOTALL)
_WATCHER = "__qlab_edges__"  # a name in builtins, so that transformed code finds it in every module


@dataclass(frozen=True)
class Edge:
    """A number that was printed near a rounding edge.

    `cell` counts all cells from 1; `texts` are the forms that its rounded value may have in print.
    """

    cell: int
    expression: str
    value: float
    texts: tuple[str, ...]

    def __str__(self) -> str:
        return f"cell {self.cell}: {self.expression} is {self.value!r}, printed as {self.texts[0].strip()}"


def find(path: Path, tolerance: float = TOLERANCE, timeout: int = TIMEOUT) -> list[Edge]:
    """Run the notebook (its file stays as it is) and list the printed numbers near a rounding edge.

    Args:
        path: the notebook.
        tolerance: how near, in units of the last printed digit; above 0 and below 0.5.
        timeout: seconds for each cell.

    Raises:
        NotebookError: not a notebook, or a cell failed.
        ValueError: `tolerance` is out of range.
    """
    if not 0 < tolerance < 0.5:
        raise ValueError(f"tolerance is {tolerance}; it has to lie above 0 and below 0.5")
    lesson = read(path)
    before = nbformat.v4.new_code_cell(f"from qlab.learn import edges\nedges.watch_kernel({tolerance})\ndel edges")
    after = nbformat.v4.new_code_cell(f"{_WATCHER}.print_report()")
    watched = nbformat.from_dict({**lesson, "cells": [before, *lesson.cells, after]})
    try:
        run(watched, path.resolve().parent, timeout, first=0)  # our cell in front is cell 0
    except NotebookError as error:
        raise NotebookError(f"{path}: {error}") from None
    numbers = {cell.execution_count: number for number, cell in enumerate(watched.cells) if "outputs" in cell}
    edges = []
    report = "".join(output.text for output in watched.cells[-1].outputs)
    for count, expression, value, texts in map(json.loads, filter(None, report.splitlines())):
        number = numbers[count]
        if _is_printed(texts, "\n".join(map(printed, watched.cells[number].outputs))):
            edges.append(Edge(number, expression, value, tuple(texts)))
    return list(dict.fromkeys(edges))


def watch_kernel(tolerance: float) -> None:
    """In a kernel: watch every rounding from the next cell on."""
    from IPython import get_ipython

    shell = get_ipython()
    behind = shell.execution_count - 1  # this is cell 1, but some versions have counted on by the time it runs
    watcher = _Watcher(tolerance, lambda: shell.execution_count - behind)
    setattr(builtins, _WATCHER, watcher)
    shell.ast_transformers.append(_Transformer())
    sys.meta_path.insert(0, _Finder())
    for name in [name for name in sys.modules if name.partition(".")[0] == "qlab"]:
        del sys.modules[name]  # to be imported again, transformed


class _Watcher:
    """Takes the arguments of every rounding, hands them back unchanged, and keeps what is near an edge."""

    def __init__(self, tolerance: float, now: Callable[[], int]) -> None:
        self.tolerance = tolerance
        self.now = now  # the count of the running cell
        self.edges: list[tuple[int, str, float, list[str]]] = []

    def formatted(self, value: Any, spec: str, expression: str) -> Any:
        number = _fraction(value)
        if number is not None and (unit := _unit(spec, number)):
            self._check(number, unit, lambda x: format(x, spec), [format(value, spec)], expression)
        return value

    def rounded(self, value: Any, digits: int | None, expression: str) -> Any:
        number = _fraction(value)
        if number is not None:
            result = round(number, digits)
            # What is done with the result is not known: these are the ways in which it is usually printed.
            texts = [str(result), f"{result:g}", f"{result:,}", f"{result:,.0f}"]
            self._check(number, 10.0 ** -(digits or 0), lambda x: str(round(x, digits)), texts, expression)
        return value

    def template(self, text: str, expression: str) -> Callable[..., str]:
        return _Template(self, expression, text).fill

    def print_report(self) -> None:
        # Each once, and on a line of its own: whoever reads a kernel's output is slow with a line of a megabyte.
        print(*dict.fromkeys(map(json.dumps, self.edges)), sep="\n")

    def _check(
        self, number: float, unit: float, show: Callable[[float], str], texts: list[str], expression: str
    ) -> None:
        reach = self.tolerance * unit
        if any(show(moved) != show(number) for moved in (number - reach, number + reach)):
            self.edges.append((self.now(), expression, number, texts))


class _Template(string.Formatter):
    """`str.format` that lets the watcher see each field."""

    def __init__(self, watcher: _Watcher, expression: str, text: str) -> None:
        self.watcher, self.expression, self.text = watcher, expression, text

    def fill(self, *args: Any, **kwargs: Any) -> str:
        return self.format(self.text, *args, **kwargs)

    def format_field(self, value: Any, format_spec: str) -> str:
        return str(format(self.watcher.formatted(value, format_spec, self.expression), format_spec))


class _Transformer(ast.NodeTransformer):
    """Passes the number of each rounding through the watcher."""

    def visit_FormattedValue(self, node: ast.FormattedValue) -> ast.AST:
        expression = ast.unparse(ast.JoinedStr([node]))
        self.generic_visit(node)
        if node.format_spec is not None and node.conversion == -1:
            node.value = _watch("formatted", node.value, copy.deepcopy(node.format_spec), expression)
        return ast.fix_missing_locations(node)

    def visit_Call(self, node: ast.Call) -> ast.AST:
        expression = ast.unparse(node)
        self.generic_visit(node)
        match node:
            case ast.Call(func=ast.Name("format"), args=[value, spec]):
                node.args[0] = _watch("formatted", value, copy.deepcopy(spec), expression)
            case ast.Call(func=ast.Name("round"), args=[value, *digits], keywords=[]) if len(digits) < 2:
                node.args[0] = _watch("rounded", value, *copy.deepcopy(digits or [ast.Constant(None)]), expression)
            case ast.Call(func=ast.Attribute(value=ast.Constant(str()) as text, attr="format")):
                node.func = _watch("template", text, expression)
        return ast.fix_missing_locations(node)


class _Finder(MetaPathFinder):
    """Imports qlab's modules with the same eyes; without them the tables that qlab prints would go unseen."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname.partition(".")[0] != "qlab":
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, SourceFileLoader):
            spec.loader = _Loader(fullname, spec.loader.path)
        return spec


class _Loader(SourceFileLoader):
    def get_code(self, fullname: str) -> CodeType:
        """From the source and not from the cache, which holds the module as others import it."""
        tree = _Transformer().visit(ast.parse(self.get_data(self.path)))
        return compile(tree, self.path, "exec", dont_inherit=True)


def _watch(method: str, *arguments: ast.expr | str) -> ast.Call:
    nodes = [ast.Constant(argument) if isinstance(argument, str) else argument for argument in arguments]
    return ast.Call(ast.Attribute(ast.Name(_WATCHER, ast.Load()), method, ast.Load()), nodes, [])


def _fraction(value: Any) -> float | None:
    """The number, if it is one that rounding can change: not a whole one by type, not zero, one element only."""
    if isinstance(value, (str, Integral)) or getattr(value, "ndim", 0) != 0:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if number and math.isfinite(number) else None


def _unit(spec: str, number: float) -> float | None:
    """The unit of the last digit that a format specification prints; None if it does not round."""
    match = _SPEC.fullmatch(spec)
    if match is None or not (match["precision"] or match["kind"]):
        return None
    precision = int(match["precision"] or 6)
    exponent = math.floor(math.log10(abs(number)))
    if match["kind"] in ("f", "F"):
        return 10.0**-precision
    if match["kind"] == "%":
        return 10.0 ** -(precision + 2)
    if match["kind"] in ("e", "E"):
        return 10.0 ** (exponent - precision)
    return 10.0 ** (exponent - max(precision, 1) + 1)


def _is_printed(texts: Sequence[str], output: str) -> bool:
    """Whether one of these numbers stands in the output, and not as a part of a longer one."""
    return any(re.search(rf"(?<![\d.,]){re.escape(text.strip())}(?![\d]|[.,]\d)", output) for text in texts)
