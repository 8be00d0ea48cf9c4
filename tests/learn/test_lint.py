"""Each rule of the lesson policy: a bad lesson that it catches, and good neighbors that it lets pass."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from qlab.learn.execute import NOTEBOOK_METADATA, write
from qlab.learn.lint import Finding, lint


def notebook(*cells: Any) -> Any:
    """A lesson of these cells; a string is a code cell. Counts are set from 1."""
    cells = tuple(new_code_cell(cell) if isinstance(cell, str) else cell for cell in cells)
    code = [cell for cell in cells if cell.cell_type == "code"]
    for count, cell in enumerate(code, start=1):
        cell.execution_count = count
    return new_notebook(cells=list(cells), metadata=nbformat.from_dict(NOTEBOOK_METADATA))


def rules(*cells: Any) -> list[str]:
    return [finding.rule for finding in lint(notebook(*cells))]


def shown(text: str) -> Any:
    return new_code_cell("x", outputs=[new_output("stream", text=text)])


def ignored(source: str) -> Any:
    return new_code_cell(source, metadata={"tags": ["nbval-ignore-output"]})


def figure(**metadata: Any) -> Any:
    return new_output("display_data", data={"image/png": "aWM=", "text/plain": "words"}, metadata=metadata)


CLEAN = [
    "%matplotlib inline\nimport ipywidgets as widgets\nslider = widgets.IntSlider()\nslider",
    "for _ in range(3):\n    pass\n_ = slider.observe(print)",
    "note = 'run !ls or %time or a;'\nprint(note)  # not run;",
    "parts = 'a;b'.split(';'); parts",
    "outputs = [1]\nprint(outputs[-1], 'Out[1]')",
    "class Mine:\n    Output = interact = None\nMine().Output",
]


def test_a_clean_lesson_has_no_findings() -> None:
    cells = [new_markdown_cell("# Title\nSee `work/` and https://example.org/home/page."), *CLEAN]
    assert lint(notebook(*cells, ignored("assert slider is not None"))) == []


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        ("shell", "!ls"),
        ("shell", "files = !ls"),
        ("shell", "if True:\n    !ls -l {here}"),
        ("magic", "%time x = 1"),
        ("magic", "%%time\nx = 1"),
        ("magic", "%matplotlib widget"),
        ("magic", "print?"),
        ("magic", "get_ipython().run_line_magic('load_ext', 'x')"),
        ("widget", "import ipywidgets as w\nw.Output()"),
        ("widget", "import ipywidgets\nipywidgets.interact(print, x=1)"),
        ("widget", "from ipywidgets import interactive_output as show"),
        ("widget", "from ipywidgets import interactive"),
        ("widget", "from rich.progress import track"),
        ("widget", "import rich.progress\nrich.progress.track([])"),
        ("widget", "from rich import progress\nprogress.track([])"),
        ("semicolon", "draw(3);"),
        ("semicolon", "draw(3);  # quiet"),
        ("semicolon", "a = 1;\nb = 2"),
        ("history", "print(_)"),
        ("history", "x = __ + 1"),
        ("history", "_3"),
        ("history", "Out[2]"),
        ("history", "In[1]"),
        ("syntax", "def f(:\n    pass"),
        ("empty", "  \n"),
        ("lines", "\n".join(f"x{i} = {i}" for i in range(16))),
        ("tag", "# NBVAL_SKIP\nx = 1"),
        ("tag", "x = 1  #NBVAL_IGNORE_OUTPUT"),
    ],
)
def test_code_that_is_refused(rule: str, source: str) -> None:
    assert rules(source) == [rule]


def test_an_import_counts_for_the_cells_after_it() -> None:
    assert rules("import ipywidgets as w", "w.Output()") == ["widget"]
    assert rules("w.Output()") == []


def test_lines_that_do_not_count() -> None:
    lines = [f"x{i} = {i}\n\n# why\n" for i in range(15)]
    assert rules("".join(lines)) == []
    assert rules("".join(lines) + 'text = """\na\n"""') == ["lines"]


def test_counts_run_from_one() -> None:
    good = notebook("a", new_markdown_cell("text"), "b")
    assert lint(good) == []
    good.cells[2].execution_count = 3
    assert [str(finding) for finding in lint(good)] == [
        "cell 3: execution count 3 where 2 belongs: run all cells in order [count]"
    ]
    good.cells[2].execution_count = None
    assert "count missing" in lint(good)[0].message


@pytest.mark.parametrize(
    ("rule", "output"),
    [
        ("error", new_output("error", ename="ValueError", evalue="no", traceback=[])),
        ("stderr", new_output("stream", name="stderr", text="warning")),
        ("metadata", new_output("display_data", {"application/vnd.jupyter.widget-view+json": {"model_id": "1"}})),
        ("alt", figure()),
        ("alt", figure(**{"image/png": {"alt": ""}})),
    ],
)
def test_outputs_that_are_refused(rule: str, output: Any) -> None:
    assert rules(new_code_cell("x", outputs=[output])) == [rule]


def test_a_figure_with_alternative_text_passes() -> None:
    assert rules(new_code_cell("x", outputs=[figure(**{"image/png": {"alt": "a line that falls"}})])) == []


@pytest.mark.parametrize(
    "path", ["/home/ann/x.py", "/tmp/a", "/root/.cache", "/Users/ann", r"C:\Users\ann", r"'C:\\Users\\ann'"]
)
@pytest.mark.parametrize("where", ["code", "stream", "result", "text"])
def test_machine_paths(path: str, where: str) -> None:
    cell = {
        "code": new_code_cell(f"# see {path}\nx"),
        "stream": shown(f"wrote {path}"),
        "result": new_code_cell("x", outputs=[new_output("execute_result", {"text/html": f"<b>({path})</b>"})]),
        "text": new_markdown_cell(f"Look at {path}"),
    }[where]
    assert rules(cell) == ["path"]


@pytest.mark.parametrize("text", ["https://example.org/home/x", "docs/home/x", "~/home/x", "/homeward/x", "a/tmp/b"])
def test_what_only_looks_like_a_machine_path(text: str) -> None:
    assert rules(shown(text)) == []


def test_the_folder_of_the_repository_and_of_the_interpreter_are_machine_paths() -> None:
    path = Path("/srv/course/notebooks/01.ipynb")
    cells = [shown("in /srv/course/qlab/cli.py"), shown(f"in {sys.prefix}/lib"), shown("in /srv/other/x")]
    assert [finding.cell for finding in lint(notebook(*cells), None) if finding.rule == "path"] == [2]
    text = notebook(*cells)
    first, second = (str(f) for f in lint_as_if_at(text, path) if f.rule == "path")
    assert first == "cell 1: a path of one machine: /srv/course/ [path]"
    # An environment below /tmp or /home is refused for that, too, and then quoted to its end.
    assert second.startswith(f"cell 2: a path of one machine: {sys.prefix}/")


def lint_as_if_at(lesson: Any, path: Path) -> list[Finding]:
    from unittest.mock import patch

    with patch.object(Path, "stat", return_value=type("Stat", (), {"st_size": 1, "st_mode": 0})()):
        return lint(lesson, path)


@pytest.mark.parametrize("text", ["2026-11-20 10:31", "at 2026-11-20T10:31:05Z", "Fri Nov 20 10:31:05 2026"])
def test_timestamps(text: str) -> None:
    assert rules(shown(text)) == ["timestamp"]


def test_a_date_alone_passes() -> None:
    assert rules(shown("recorded on 2026-11-20, ratio 10:31")) == []


def test_memory_addresses() -> None:
    assert rules(shown("<object at 0x7f3a5c0012d0>")) == ["address"]
    assert rules(shown("bytes at 0x21, 0x7f3a5c00")) == []


@pytest.mark.parametrize("tag", ["nbval-skip", "nbval-raises-exception", "raises-exception", "skip-execution"])
def test_tags_that_hide_a_cell(tag: str) -> None:
    assert rules(new_code_cell("x", metadata={"tags": [tag]})) == ["tag"]


def test_one_cell_in_six_may_be_ignored() -> None:
    tagged = "assert 1 < 2"
    assert rules(*"abcde", ignored(tagged)) == []
    assert rules(*"abcd", ignored(tagged)) == ["quota"]
    assert rules(*"abcdefghi", ignored(tagged), ignored(tagged)) == ["quota"]


@pytest.mark.parametrize("source", ["x = 1", "assert True", "def f():\n    assert x", "# assert x\nx"])
def test_an_ignored_cell_asserts_what_it_teaches(source: str) -> None:
    assert rules(*"abcde", ignored(source)) == ["assert"]


def test_an_assert_within_a_block_counts() -> None:
    assert rules(*"abcde", ignored("for x in (1, 2):\n    assert x > 0")) == []


def test_volatile_metadata() -> None:
    lesson = notebook(new_code_cell("x", metadata={"execution": {"iopub.status.busy": "2026"}, "tags": ["a"]}))
    lesson.metadata["widgets"] = {}
    lesson.metadata["language_info"]["version"] = "3.11.7"
    messages = [str(finding) for finding in lint(lesson)]
    assert len(messages) == 3
    assert "'language_info'" in messages[0] and "'widgets'" in messages[1] and "cell 1" in messages[2]


def test_a_large_file(tmp_path: Path) -> None:
    path = tmp_path / "notebooks" / "big.ipynb"
    path.parent.mkdir()
    for size, found in ((399_000, []), (400_001, ["size"])):
        lesson = notebook(shown("x" * size))
        write(lesson, path)
        assert [finding.rule for finding in lint(lesson, path)] == found
