"""Results in words: rows as they arrive, a summary, the goals, and two files side by side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rich.table import Table

from . import machine
from .contestant import DENSE
from .decode import NOT_INCLUDED
from .layers import shapes
from .results import Results, Row, Skipped, differences

COLUMNS = (
    f"{'kernel':<20} {'path':<12} {'type':<8} {'M':>5} {'median':>10} {'quartiles':>19} {'GB/s':>7} {'of copy':>8} "
    f"{'ceiling':>14} {'x dense':>8} {'error':>8}"
)


def heading(found: Results) -> list[str]:
    """What is measured, and the ceilings."""
    lines = [", ".join(f"{name} {value}" for name, value in found.hardware.items() if value is not None)]
    installed = [f"{name} {value}" for name, value in found.versions.items() if value is not None]
    lines.append(f"{', '.join(installed)}; {found.date}; {found.command}")
    if found.ceilings:
        rates = ", ".join(f"{name} {rate / 1e12:,.3g} T/s" for name, rate in found.ceilings.matrix.items())
        lines.append(
            f"Ceilings: copy {found.ceilings.copy / 1e9:,.1f} GB/s (reading {found.ceilings.read / 1e9:,.1f}), "
            f"matrix {rates}; the shortest time that can be seen: {time(found.ceilings.smallest)}."
        )
    cores, load = found.hardware.get("cores"), machine.load()
    if cores and load and load > cores / 2:
        lines.append(f"Others are at work here (load {load:.1f} on {cores} cores): times and ratios will be off.")
    if found.rows:
        lines.append(f"Going on: {len(found.rows)} rows are in the file.")
    return lines


def line(entry: Row | Skipped) -> str:
    """One measurement, or what was left out."""
    if isinstance(entry, Skipped):
        where = "" if entry.outputs is None else f" {entry.outputs}x{entry.inputs} {entry.dtype} M = {entry.tokens}"
        return f"{entry.kernel:<20}{where} skipped: {entry.reason}"
    quartiles = f"{time(entry.quartiles[0])} - {time(entry.quartiles[1])}"
    return (
        f"{entry.kernel:<20} {entry.path:<12} {entry.dtype:<8} {entry.tokens:>5} {time(entry.seconds):>10} "
        f"{quartiles:>19} {entry.gb_per_s:>7,.1f} {entry.copy_fraction:>8.0%} "
        f"{entry.ceiling_fraction:>5.0%} of {entry.ceiling:<6}{entry.ratio:>8.2f} {entry.relative_error:>8.0e}"
    )


def time(seconds: float) -> str:
    """With three digits, in the unit that suits."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


class Printer:
    """Prints rows as they arrive, with a heading where the shape changes."""

    def __init__(self, write: Any) -> None:
        self.write = write
        self._shape: tuple[int, int] | None = None

    def start(self, found: Results) -> None:
        for text in heading(found):
            self.write(text)

    def entry(self, entry: Row | Skipped) -> None:
        if isinstance(entry, Row) and self._shape != (entry.outputs, entry.inputs):
            self._shape = entry.outputs, entry.inputs
            size = f"{entry.outputs} x {entry.inputs} (out x in)"
            self.write(f"\n{size}: {entry.shape}\n{COLUMNS}")
        self.write(line(entry))


def summary(found: Results) -> Iterator[tuple[str, Table]]:
    """Title and table of each shape: kernels down, tokens across, times as fast as the plain product in 16 bits."""
    groups: dict[tuple[int, int, str], list[Row]] = {}
    for row in found.rows:
        groups.setdefault((row.outputs, row.inputs, row.shape), []).append(row)
    for (outputs, inputs, name), rows in groups.items():
        tokens = sorted({row.tokens for row in rows})
        title = f"{outputs}x{inputs}" + ("" if name == f"{outputs}x{inputs}" else f", {name}")
        table = Table(box=None, pad_edge=False)
        for column in ("kernel", "type", *(f"M={count}" for count in tokens)):
            table.add_column(column, justify="left" if column in ("kernel", "type") else "right", no_wrap=True)
        ratios = {(row.kernel, row.dtype, row.tokens): f"{row.ratio:.2f}" for row in rows}
        for kernel, dtype in dict.fromkeys((row.kernel, row.dtype) for row in rows):
            table.add_row(kernel, dtype, *(ratios.get((kernel, dtype, count), "") for count in tokens))
        yield f"Times as fast as dense in 16 bits, {title}:", table


def decoding(found: Results) -> list[str]:
    """Tokens per second of the models whose layers were all measured."""
    if not found.decode:
        return ["Decoding: no model has all its layers and its head measured; --shapes 8b measures those of one."]
    lines = [f"Decoding, tokens per second over all requests, {found.decode[0]['context']:,} tokens of context each:"]
    for one in found.decode:
        parts = ", ".join(f"{name} {time(one[key])}" for name, key in _PARTS)
        lines.append(
            f"  {one['model']:<12} {one['kernel']:<20} {one['dtype']:<8} {one['tokens']:>3} requests "
            f"{one['tokens_per_s']:>9,.1f}  ({parts})"
        )
    return [*lines, f"  Not included: {', '.join(NOT_INCLUDED)}. Whether the model fits is not asked."]


_PARTS = (("layers", "layers"), ("head", "head"), ("KV cache", "kv_cache"))


def paths(found: Results) -> list[str]:
    """Where W4A16 was measured on paths of its own: the fastest, and the one that `kernels.configs` takes."""
    measured: dict[tuple[int, int, str, int], dict[str, float]] = {}
    for row in found.rows:
        if row.kernel == f"qlab-int4-{row.path}":
            measured.setdefault((row.outputs, row.inputs, row.dtype, row.tokens), {})[row.path] = row.seconds
    if not measured:
        return []
    from qlab.kernels import configs  # needs triton, which measured these

    lines = ["Paths of W4A16, the fastest first:"]
    for (outputs, inputs, dtype, tokens), seconds in measured.items():
        order = sorted(seconds, key=seconds.__getitem__)
        times = ", ".join(f"{path} {time(seconds[path])}" for path in order)
        taken = configs.path(tokens)
        lines.append(f"  {outputs}x{inputs} {dtype} M = {tokens}: {times}; {taken} is taken")
    return lines


@dataclass(frozen=True)
class Goal:
    """Something to reach on an H100 or better, in float16."""

    what: str
    kernel: str
    tokens: int
    least: float
    sizes: tuple[tuple[int, int], ...]
    of: str = DENSE  # the kernel that it is compared with; "copy": the fraction of the copy bandwidth


_SQUARE = ((8192, 8192),)
_LAYERS = tuple((shape.outputs, shape.inputs) for shape in shapes(["70b"]) if not shape.head)
GOALS = (
    Goal("W4A16 g128, M = 1, against cuBLAS", "qlab-int4-g128", 1, 2.6, _LAYERS),
    Goal("W4A16 g128, M = 1, part of copy bandwidth", "qlab-int4-g128", 1, 0.70, _LAYERS, "copy"),
    Goal("W4A16 g128, M = 16, against cuBLAS", "qlab-int4-g128", 16, 2.0, _LAYERS),
    Goal("W8A16, M = 1, against cuBLAS", "qlab-int8", 1, 1.7, _SQUARE),
    Goal("NF4, M = 1, against bitsandbytes", "qlab-nf4", 1, 2.0, _SQUARE, "bitsandbytes-nf4"),
    Goal("W8A8, M = 4096, against cuBLAS", "qlab-w8a8", 4096, 1.5, _SQUARE),
)


def goals(found: Results) -> list[str]:
    """Each goal, size by size: reached, missed, or not measured."""
    rows = {row.key: row for row in found.rows}
    lines = ["Goals (H100 or better, float16):"]
    for goal in GOALS:
        for outputs, inputs in goal.sizes:
            row = rows.get((goal.kernel, outputs, inputs, goal.tokens, "float16"))
            other = rows.get((goal.of, outputs, inputs, goal.tokens, "float16"))
            value: float | None = None
            if row and goal.of == "copy":
                value = row.copy_fraction
            elif row and goal.of == DENSE:
                value = row.ratio
            elif row and other:
                value = other.seconds / row.seconds
            verdict = f"not measured: --tokens {goal.tokens}"
            if value is not None:
                verdict = f"{value:.2f}, {'reached' if value >= goal.least else 'missed'}"
            lines.append(f"  {goal.what}, {outputs}x{inputs}: at least {goal.least:.2f}: {verdict}")
    return lines


@dataclass(frozen=True)
class Change:
    """The same measurement in two files."""

    kernel: str
    outputs: int
    inputs: int
    tokens: int
    dtype: str
    before: float  # seconds
    after: float
    verdict: str  # "faster", "slower" or "same": whether the quartiles overlap

    @property
    def ratio(self) -> float:
        """How many times as fast the second one is."""
        return self.before / self.after

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "ratio": self.ratio}


@dataclass(frozen=True)
class Comparison:
    """Two files, row by row."""

    differences: list[str]  # of hardware, versions and settings
    changes: list[Change]
    only_before: int
    only_after: int

    def to_dict(self) -> dict[str, Any]:
        return {**self.__dict__, "changes": [change.to_dict() for change in self.changes]}


def compare(before: Results, after: Results) -> Comparison:
    """What changed. A row is faster or slower only where the quartiles of the two do not overlap."""
    old, new = ({row.key: row for row in side.rows} for side in (before, after))
    changes = [
        Change(*key, row.seconds, new[key].seconds, _verdict(row, new[key])) for key, row in old.items() if key in new
    ]
    return Comparison(differences(before, after), changes, len(old.keys() - new), len(new.keys() - old))


def _verdict(before: Row, after: Row) -> str:
    if after.quartiles[1] < before.quartiles[0]:
        return "faster"
    return "slower" if after.quartiles[0] > before.quartiles[1] else "same"


def comparison_table(changes: Sequence[Change]) -> Table:
    """For people."""
    table = Table(box=None, pad_edge=False)
    for column in ("kernel", "shape", "type", "M", "before", "after", "times as fast", ""):
        right = column in ("M", "before", "after", "times as fast")
        table.add_column(column, justify="right" if right else "left", no_wrap=True)
    for one in changes:
        size, factor = f"{one.outputs}x{one.inputs}", f"{one.ratio:.2f}"
        before, after = time(one.before), time(one.after)
        table.add_row(one.kernel, size, one.dtype, str(one.tokens), before, after, factor, one.verdict)
    return table


def comparison_notes(found: Comparison) -> list[str]:
    """What differs between the runs, and what only one of them has."""
    lines = [f"Differs: {text}" for text in found.differences]
    counts = {word: sum(change.verdict == word for change in found.changes) for word in ("faster", "slower", "same")}
    lines.append(", ".join(f"{count} {word}" for word, count in counts.items()) + " (same: the quartiles overlap)")
    if found.only_before or found.only_after:
        lines.append(f"Only in the first: {found.only_before} rows. Only in the second: {found.only_after}.")
    return lines
