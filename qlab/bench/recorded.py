"""Results of `qlab bench` on GPUs that ship with the package: the newest of them, and a run in words.

A file is what `qlab bench --out NAME.json` wrote, unchanged, in the folder `qlab/bench/recorded`. There may be none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from .contestant import DENSE
from .results import Results, Row, load

FOLDER = Path(__file__).parent / "recorded"
NONE = """\
No recorded GPU results yet. To make some, on a machine with CUDA:
    qlab bench --out results.json
and put the file into qlab/bench/recorded/ of the package. The newest one there is shown here."""


def newest(folder: Path = FOLDER) -> Results | None:
    """The results on a GPU that began last; None if there are none.

    Raises:
        ValueError: a file in the folder is none of ours, or damaged.
    """
    found = [load(path) for path in folder.glob("*.json")]
    on_gpus = [one for one in found if one.settings.get("device") == "cuda"]
    return max(on_gpus, key=lambda one: one.date, default=None)


def rows_of(found: Results, size: tuple[int, int] = (8192, 8192), dtype: str = "float16") -> list[Row]:
    """The rows of one shape (outputs, inputs) and type of input; of the first ones measured, if these were not."""
    rows = [row for row in found.rows if (row.outputs, row.inputs, row.dtype) == (*size, dtype)]
    if rows or not found.rows:
        return rows
    first = found.rows[0]
    return rows_of(found, (first.outputs, first.inputs), first.dtype)


def words(found: Results | None, size: tuple[int, int] = (8192, 8192), dtype: str = "float16") -> list[str]:
    """Lines for people: hardware, versions, day and command; then kernels down and tokens across, in two tables.

    The first table is times as fast as the plain product in 16 bits; the second is bytes per second, as a part of the
    measured copy bandwidth. Without results, the lines say so, and how to make some.
    """
    if found is None:
        return NONE.splitlines()
    versions = ", ".join(f"{name} {value}" for name, value in found.versions.items() if value is not None)
    hardware = ", ".join(
        f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}"
        for name, value in found.hardware.items()
        if value is not None
    )
    lines = [hardware, versions, f"measured {found.date[:10]} with: {found.command}"]
    if found.ceilings:
        rates = ", ".join(f"{name} {rate / 1e12:,.0f}" for name, rate in found.ceilings.matrix.items())
        lines.append(f"ceilings: copy {found.ceilings.copy / 1e9:,.0f} GB/s; products, 10^12 operations/s: {rates}")
    rows = rows_of(found, size, dtype)
    if not rows:
        return [*lines, "no kernel was measured"]
    shape = f"{rows[0].outputs} x {rows[0].inputs} (out x in), inputs in {rows[0].dtype}"
    lines += ["", f"Times as fast as {DENSE} in 16 bits, {shape}:", *_table(rows, lambda row: f"{row.ratio:.2f}")]
    lines += ["", "Part of the copy bandwidth, all bytes counted once:"]
    lines += _table(rows, lambda row: f"{row.copy_fraction:.0%}")
    others = {f"{row.outputs} x {row.inputs}" for row in found.rows} - {f"{rows[0].outputs} x {rows[0].inputs}"}
    return lines + ([f"Also in the file: {', '.join(sorted(others))}"] if others else [])


def _table(rows: Sequence[Row], value: Callable[[Row], str]) -> list[str]:
    tokens = sorted({row.tokens for row in rows})
    cells = {(row.kernel, row.tokens): value(row) for row in rows}
    lines = [f"{'kernel':<20}" + "".join(f"M={count}".rjust(8) for count in tokens)]
    for kernel in dict.fromkeys(row.kernel for row in rows):
        lines.append(f"{kernel:<20}" + "".join(cells.get((kernel, count), "").rjust(8) for count in tokens))
    return lines
