"""Read, run and write a notebook so that two runs leave the same file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat

from .files import write_whole

TIMEOUT = 120  # seconds for one cell

# Everything else in the metadata is a trace of one run or of one reader's screen.
KEPT_IN_CELL = frozenset({"tags", "jupyter", "editable", "deletable", "nbgrader"})
NOTEBOOK_METADATA = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},  # without the version of the Python that happened to run it
}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"


class NotebookError(ValueError):
    """A file that is not a notebook, or a notebook with a cell that fails."""


def read(path: Path) -> Any:
    """The notebook in that file.

    Raises:
        NotebookError: the file cannot be read, is not a notebook, or is too old to have cell ids (format 4.5).
    """
    try:
        notebook = nbformat.reads(path.read_text(encoding="utf-8"), as_version=nbformat.NO_CONVERT)
        nbformat.validate(notebook)
    except OSError as error:
        raise NotebookError(f"{path}: cannot be read ({error.strerror})") from None
    except Exception as error:  # nbformat's readers fail in many ways on what is not a notebook
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise NotebookError(f"{path}: not a notebook ({reason[0][:120]})") from None
    if (notebook.nbformat, notebook.nbformat_minor) < (4, 5):
        version = f"{notebook.nbformat}.{notebook.nbformat_minor}"
        raise NotebookError(f"{path}: notebook format {version} has no cell ids; save it again with JupyterLab 4")
    return notebook


def write(notebook: Any, path: Path) -> None:
    """Write a notebook that is valid; a run that is cut off leaves the old file whole."""
    nbformat.validate(notebook)
    write_whole(path, (nbformat.writes(notebook) + "\n").encode())


def clean(notebook: Any) -> None:
    """Remove what changes from run to run, in place. What a cell printed is left as it is."""
    notebook.metadata = nbformat.from_dict(NOTEBOOK_METADATA)
    for cell in notebook.cells:
        for name in set(cell.metadata) - KEPT_IN_CELL:
            del cell.metadata[name]
        for output in cell.get("outputs", []):
            # The id of a widget that lived in this run's kernel only; its text stays, for readers on GitHub.
            output.get("data", {}).pop(WIDGET_VIEW, None)


def printed(output: Any) -> str:
    """The text of one output, without images."""
    if output.output_type == "error":
        return "\n".join([output.evalue, *output.traceback])
    shown = [text for kind, text in output.get("data", {}).items() if kind.startswith("text/")]
    return "\n".join([output.get("text", ""), *shown])


def run(notebook: Any, folder: Path, timeout: int = TIMEOUT, first: int = 1) -> None:
    """Run every cell in a fresh kernel, in place.

    Args:
        notebook: as from `read`; gets outputs and execution counts 1..n.
        folder: the kernel's working folder.
        timeout: seconds for each cell.
        first: the number of the first cell in error messages.

    Raises:
        NotebookError: a cell raised, took longer than `timeout`, or killed its kernel.
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError

    started = [first]

    def remember(cell: Any, cell_index: int) -> None:
        started[-1] = cell_index + first

    client = NotebookClient(
        notebook,
        on_cell_start=remember,
        timeout=timeout,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
        store_widget_state=False,
        coalesce_streams=True,  # or the same text arrives in one piece or in two, as the kernel flushes
    )
    try:
        client.execute()
    except CellExecutionError as error:
        raise NotebookError(f"cell {started[-1]} raised {error.ename}: {error.evalue}") from None
    except CellTimeoutError:
        raise NotebookError(f"cell {started[-1]} took longer than {timeout} s") from None
    except DeadKernelError:
        raise NotebookError(f"cell {started[-1]} killed its kernel (out of memory?)") from None


def execute(path: Path, timeout: int = TIMEOUT) -> None:
    """Run the notebook in its own folder and write it back. On an error the file stays as it was."""
    notebook = read(path)
    try:
        run(notebook, path.resolve().parent, timeout)
    except NotebookError as error:
        raise NotebookError(f"{path}: {error}") from None
    clean(notebook)
    write(notebook, path)
