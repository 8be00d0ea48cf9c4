from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from qlab.learn import edges
from qlab.learn.execute import NotebookError, write


@pytest.fixture
def watcher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    watcher = edges._Watcher(0.02, lambda: 1)
    monkeypatch.setattr(builtins, edges._WATCHER, watcher, raising=False)
    yield watcher


def evaluate(expression: str, **names: Any) -> Any:
    tree = edges._Transformer().visit(ast.parse(expression, mode="eval"))
    return eval(compile(tree, "cell", "eval"), names)


NEAR = [  # each lies within 2 % of a unit of its last digit from an edge
    ("f'{x:.2f}'", 0.12499),
    ("f'{x:>8.2f}'", 0.12501),
    ("f'{x:,.1f}'", -1234.5501),
    ("f'{x:.1%}'", 0.12349999),
    ("f'{x:.3e}'", 1.23450001e-9),
    ("f'{x:.3g}'", 0.123501e-4),
    ("f'{x:.3}'", 12.3501),
    ("f'{x:.{d}f}'", 0.12499),
    ("f'{x:.2f}'", -1e-9),  # prints -0.00, and its neighbor 0.00
    ("format(x, '.2f')", 0.12499),
    ("'{} is {:.2f}'.format('x', x)", 0.12499),
    ("'{value:.2f}'.format(value=x)", 0.12499),
    ("round(x, 2)", 0.12499),
    ("round(x)", 2.4999),
    ("f'{f(x):.2f}'", 0.12499),
    ("[f'{y:.2f}' for y in [x]][0]", 0.12499),
]


@pytest.mark.parametrize(("expression", "value"), NEAR)
@pytest.mark.parametrize("kind", [float, np.float64])
def test_near_an_edge(watcher: Any, expression: str, value: float, kind: Any) -> None:
    names = {"x": kind(value), "d": 2, "f": lambda y: y}
    assert evaluate(expression, **names) == eval(expression, names)
    ((_, shown, number, texts),) = watcher.edges
    assert ("x" in shown or "y" in shown) and number == value
    assert any(text.strip() in str(eval(expression, names)) for text in texts)


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("f'{x:.2f}'", 0.1230),
        ("f'{x:.2f}'", 0.12475),  # 2.5 % from the edge
        ("f'{x:.2f}'", 0.0),
        ("f'{x:.0f}'", 3),
        ("f'{x:d}'", 3),
        ("f'{x}'", 0.12499),
        ("f'{x!r:.3}'", 0.12499),
        ("f'{x:.2}'", "0.12499"),
        ("f'{x:.2f}'", float("nan")),
        ("f'{x:>9}'", True),
        ("round(x, 2)", 0.1230),
        ("format(x)", 0.12499),
        ("'{}'.format(x)", 0.12499),
    ],
)
def test_nothing_to_report(watcher: Any, expression: str, value: Any) -> None:
    assert evaluate(expression, x=value) == eval(expression, {"x": value})
    assert watcher.edges == []


@given(st.floats(-1e3, 1e3), st.sampled_from(["f", "e", "g", "%", ""]), st.integers(1, 6))
def test_what_is_not_reported_prints_the_same_after_a_small_change(number: float, kind: str, precision: int) -> None:
    watcher = edges._Watcher(0.02, lambda: 1)
    spec = f".{precision}{kind}"
    watcher.formatted(number, spec, "x")
    if not watcher.edges and number:
        for moved in (number * (1 - 1e-14), number * (1 + 1e-14)):
            assert format(moved, spec) == format(number, spec)


def test_torch_scalars(watcher: Any) -> None:
    import torch

    evaluate("f'{x:.2f}'", x=torch.tensor(0.12499))
    evaluate("f'{x}'", x=torch.tensor([0.12499, 1.0]))
    assert len(watcher.edges) == 1


def test_what_is_printed_is_not_a_part_of_a_longer_number() -> None:
    assert edges._is_printed([" 0.12"], "x is 0.12.")
    assert not edges._is_printed(["0.12"], "x is 0.123 or 10.12 or 0.12.5")
    assert edges._is_printed(["1,230"], "about 1,230 tokens")
    assert not edges._is_printed(["230"], "about 1,230 tokens")


def test_a_notebook_is_run_and_its_printed_edges_are_found(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    cells = [
        new_markdown_cell("# Title"),
        new_code_cell("edge, inside = 0.12499, 0.1230\ndef show(x):\n    return f'{x:.2f}'"),
        new_code_cell(""),
        new_code_cell("print(show(edge), show(inside))"),
        new_code_cell("hidden = f'{edge:.1f} {0.4499:.1f}'"),
        new_code_cell("from qlab.learn import predict\npredict('Bits', None, 12.3501)"),
    ]
    write(new_notebook(cells=cells), path)
    before = path.read_bytes()
    found = edges.find(path)
    assert [(edge.cell, edge.value) for edge in found] == [(4, 0.12499), (6, 12.3501)]
    assert str(found[0]) == "cell 4: f'{x:.2f}' is 0.12499, printed as 0.12"
    assert path.read_bytes() == before
    assert edges.find(path, tolerance=1e-6) == []


def test_a_cell_that_fails_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "a.ipynb"
    write(new_notebook(cells=[new_code_cell("x = 1"), new_code_cell("1 / 0")]), path)
    with pytest.raises(NotebookError, match=r"a\.ipynb: cell 2 raised ZeroDivisionError"):
        edges.find(path)


@pytest.mark.parametrize("tolerance", [0, -1, 0.5, float("nan")])
def test_the_tolerance_has_a_range(tolerance: float) -> None:
    with pytest.raises(ValueError, match="tolerance is"):
        edges.find(Path("unread.ipynb"), tolerance=tolerance)
