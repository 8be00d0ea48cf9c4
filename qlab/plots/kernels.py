"""Pictures of kernels: which program reads and writes which element, and where a layout keeps its codes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from .style import PALETTE, Figure, new_figure, styled

SHARED, MASKED, OTHER = -1, -2, -3  # instead of a program: many of them, none (beyond the end), one not looked at
_GAP = 3.4  # between panels, in cells
_TITLE = 1.6  # above a panel, in cells


@dataclass(frozen=True)
class Panel:
    """A piece of memory as a grid of elements."""

    name: str
    programs: torch.Tensor  # int (rows, columns): the program that touches an element, or one of the constants above
    texts: Sequence[Sequence[str]] | None = None  # (rows, columns); None: the number of the program

    @property
    def size(self) -> tuple[int, int]:
        return self.programs.shape[0], self.programs.shape[1]

    def text(self, row: int, column: int) -> str:
        program = int(self.programs[row, column])
        if self.texts is not None:
            return self.texts[row][column]
        return {SHARED: "all", MASKED: "", OTHER: ""}.get(program, str(program))

    def words(self) -> str:
        """Such as "x: program 0 touches 4 elements, program 1 touches 2, masked off 2"."""
        counts = {int(p): int((self.programs == p).sum()) for p in self.programs.unique()}
        said = [f"program {p} touches {n}" for p, n in counts.items() if p >= 0]
        if len(said) > 4:
            sizes = [n for p, n in counts.items() if p >= 0]
            said = [f"{len(sizes)} programs touch {min(sizes)} to {max(sizes)} each"]
        names = {SHARED: "shared by programs", MASKED: "masked off", OTHER: "left to other programs"}
        return f"{self.name}: " + ", ".join(said + [f"{names[p]} {n}" for p, n in counts.items() if p < 0])


@styled
def programs(rows: Sequence[Sequence[Panel]], title: str = "") -> Figure:
    """Panels in rows, drawn to one scale; colors and numbers are programs, hatched places are masked off."""
    widths = [sum(panel.size[1] for panel in row) + _GAP * (len(row) - 1) for row in rows]
    heights = [max(panel.size[0] for panel in row) + _TITLE for row in rows]
    head = 0.3 + 1.0 * len(title.splitlines())
    width, height = max(widths) + 1.5, sum(heights) + 0.9 * len(rows) + head
    inch = min(0.36, 8.4 / width)
    figure, axis = new_figure(width * inch, height * inch)
    figure.set_layout_engine("none")
    axis.set_position((0, 0, 1, 1))
    axis.set_xlim(-1.2, width - 1.2)
    axis.set_ylim(height, 0)
    axis.axis("off")
    axis.text(-0.9, 0.3, title, fontsize=10, va="top")
    top = head
    for row, tall in zip(rows, heights, strict=True):
        left = 0.0
        for panel in row:
            _draw(axis, panel, left, top + _TITLE, max(7.0, 23 * inch))
            left += panel.size[1] + _GAP
        top += tall + 0.9
    words = [panel.words() for row in rows for panel in row if panel.name]
    figure.alt = " ".join([title.replace("\n", " "), "; ".join(words) + "."]).strip()
    return figure


def _draw(axis, panel: Panel, left: float, top: float, font: float) -> None:  # type: ignore[no-untyped-def]
    rows, columns = panel.size
    axis.text(left, top - 0.95, panel.name, fontsize=9, va="center")
    if not rows:
        return
    small = {"fontsize": max(6.5, 0.8 * font), "va": "center"}
    for column in range(columns):
        axis.text(left + column + 0.5, top - 0.28, str(column), ha="center", **small)
    for row in range(rows if rows > 1 else 0):
        axis.text(left - 0.25, top + row + 0.5, str(row), ha="right", **small)
    colors = [[_color(program) for program in line] for line in panel.programs.tolist()]
    edges = (left + np.arange(columns + 1), top + np.arange(rows + 1))
    axis.pcolormesh(*edges, np.array(colors), edgecolors="#999999", linewidth=0.6)
    for row, column in np.ndindex(rows, columns):
        if panel.programs[row, column] == MASKED:
            axis.add_patch(Rectangle((left + column, top + row), 1, 1, fill=False, ec="#999999", lw=0.6, hatch="////"))
        if text := panel.text(row, column):
            size = font if len(text) < 3 else 0.82 * font
            axis.text(left + column + 0.5, top + row + 0.52, text, fontsize=size, ha="center", va="center")


def _color(program: int) -> tuple[float, float, float]:
    """White for nobody, gray for many, and for one a color of the palette that is light enough for dark text."""
    if program in (MASKED, OTHER):
        return to_rgb("white")
    if program == SHARED:
        return to_rgb("#DDDDDD")
    red, green, blue = (0.45 * part + 0.55 for part in to_rgb(PALETTE[program % len(PALETTE)]))
    return red, green, blue


def _line(count: int, block: int, each: int = 1) -> torch.Tensor:
    """(1, elements) in blocks; the last block reaches past the end of `count`, where elements are masked off."""
    at = torch.arange(-(-count // block) * block)
    return torch.where(at < count, at // block, MASKED).repeat_interleave(each)[None]


def copy(count: int = 10, block: int = 4) -> Figure:
    """Puzzle 1: one program for each block."""
    at = _line(count, block)
    return programs([[Panel("x, read", at)], [Panel("y, written", at)]])


def scale_and_add(rows: int = 6, columns: int = 10, tall: int = 4, wide: int = 4) -> Figure:
    """Puzzle 2: programs (i, j) on a grid; a scale for each row, a bias for each column."""
    down, across = _line(rows, tall)[0], _line(columns, wide)[0]
    count = int(across.max()) + 1
    grid = torch.where((down[:, None] < 0) | (across[None, :] < 0), MASKED, down[:, None] * count + across[None, :])
    names = [["" if p < 0 else f"{p // count},{p % count}" for p in line] for line in grid.tolist()]
    scales, bias = torch.where(down < 0, MASKED, SHARED)[:, None], torch.where(across < 0, MASKED, SHARED)[None]
    rows_named = [["" if i < 0 else f"{i},*"] for i in down.tolist()]
    columns_named = [["" if j < 0 else f"*,{j}" for j in across.tolist()]]
    return programs(
        [
            [Panel("s", scales, rows_named), Panel("x, read, and y, written", grid, names)],
            [Panel("", torch.empty(0, 1)), Panel("b", bias, columns_named)],
        ]
    )


def nibbles(count: int = 6, block: int = 4) -> Figure:
    """Puzzle 3: a byte is read once and gives two neighboring codes, its low half first."""
    codes = _line(count, block, each=2)
    halves = [["" if p < 0 else f"{p}{'LH'[i % 2]}" for i, p in enumerate(codes[0].tolist())]]
    return programs(
        [
            [Panel("packed bytes, read", _line(count, block))],
            [Panel("codes, written: from the low half (L) or the high half (H) of a byte", codes, halves)],
        ]
    )


def channels(out: int = 6, columns: int = 10, tall: int = 2, block: int = 16) -> Figure:
    """Puzzle 4: a program takes whole rows; a block is a power of two and reaches past their end."""
    rows = _line(out, tall)[0][:, None]
    grid = torch.where(torch.arange(block)[None] < columns, rows, MASKED)
    return programs([[Panel("codes, read, and weights, written (row: output)", grid), Panel("scales", rows)]])


def groups(out: int = 4, columns: int = 16, group: int = 8, tall: int = 2) -> Figure:
    """Puzzle 5: program (i, g) takes group g of some rows, and their scales of that group."""
    scales = (torch.arange(out) // tall)[:, None] * (columns // group) + torch.arange(columns // group)
    panels = [Panel("packed bytes (row: output)", scales.repeat_interleave(group // 2, 1)), Panel("scales", scales)]
    named = [
        Panel(panel.name, panel.programs, _pairs(panel.programs, columns // group))
        for panel in (*panels, Panel("weights, written", scales.repeat_interleave(group, 1)))
    ]
    return programs([named[:2], named[2:]])


def _pairs(programs: torch.Tensor, across: int) -> list[list[str]]:
    return [[f"{p // across},{p % across}" for p in line] for line in programs.tolist()]


def blocks(count: int = 6, size: int = 8, tall: int = 4) -> Figure:
    """Puzzle 6: the blocks of a flattened matrix, their scales, and a table that everyone reads."""
    rows = _line(count, tall)[0][:, None]
    table = torch.full((1, 16), SHARED)
    return programs(
        [
            [Panel("packed bytes, a block in each row", rows.repeat(1, size // 2)), Panel("absmax", rows)],
            [Panel("the table of 16 values", table)],
        ]
    )


def gemv(out: int = 6, columns: int = 12, tall: int = 2, block: int = 4) -> Figure:
    """Puzzle 7: a program takes some outputs and walks along the inputs, a block in each step."""
    rows = (torch.arange(out) // tall)[:, None]
    steps = [[str(k // block) for k in range(columns)]] * out
    return programs(
        [
            [Panel("w (row: output), read: color program, number step", rows.repeat(1, columns), steps)],
            [Panel("x, read by all programs", torch.full((1, columns), SHARED), steps[:1])],
            [Panel("y, written: the number is the program", rows.T)],
        ]
    )


def fused(out: int = 4, columns: int = 16, group: int = 8, tall: int = 2) -> Figure:
    """Puzzle 8: as puzzle 7 with two inputs in a byte; a step is one group and reads one scale for each row."""
    rows, count = (torch.arange(out) // tall)[:, None], columns // group
    steps = [[str(g) for g in range(count)]] * out
    wide = [[str(2 * b // group) for b in range(columns // 2)]] * out
    inputs = [[str(k // group) for k in range(columns)]]
    return programs(
        [
            [
                Panel("packed (row: output): color program, number step", rows.repeat(1, columns // 2), wide),
                Panel("scales", rows.repeat(1, count), steps),
            ],
            [Panel("x, read by all programs", torch.full((1, columns), SHARED), inputs)],
            [Panel("y, written: the number is the program", rows.T)],
        ]
    )


def split_k(out: int = 4, columns: int = 16, splits: int = 2, tall: int = 2) -> Figure:
    """Puzzle 9: program (i, s) sums its part of the inputs; a second kernel adds the parts."""
    parts = (torch.arange(out) // tall)[:, None] * splits + torch.arange(splits)  # (out, splits)
    packed = parts.repeat_interleave(columns // 2 // splits, 1)
    return programs(
        [
            [
                Panel("packed, read by program i,s", packed, _pairs(packed, splits)),
                Panel("partial sums", parts.T.contiguous(), _pairs(parts.T, splits)),
            ],
            [Panel("y, written by the second kernel", torch.full((1, out), SHARED), [["sum"] * out])],
        ]
    )


def int8_product(
    tokens: int = 4, out: int = 6, columns: int = 8, tall: int = 2, wide: int = 2, block: int = 4
) -> Figure:
    """Puzzle 10: program (i, j) owns a rectangle of results and walks along the inputs of its tokens and outputs."""
    across = -(-out // wide)
    results = (torch.arange(tokens) // tall)[:, None] * across + torch.arange(out) // wide
    steps = [str(k // block) for k in range(columns)]
    return programs(
        [
            [Panel("a (row: token), number step", torch.full((tokens, columns), SHARED), [steps] * tokens)],
            [
                Panel("b (row: output), number step", torch.full((out, columns), SHARED), [steps] * out),
                Panel("y (row: token), program i,j", results, _pairs(results, across)),
            ],
        ]
    )


@styled
def two_layouts(tile: int = 16, planes: int = 8) -> Figure:
    """One output's codes in 32-bit words, two ways: eight neighbors in a word, or (`kernels.planes`) none."""
    word, place = torch.arange(tile)[:, None], torch.arange(planes)[None]
    neighbors, apart = planes * word + place, tile * place + word  # the input that each code belongs to
    panels = [
        Panel(name, at // tile, [[str(k) for k in line] for line in at.tolist()])
        for name, at in (("neighbors in a word", neighbors), ("planes", apart))
    ]
    figure = programs(
        [panels],
        "Row: a word of 32 bits. Column: 4 bits of it, lowest first. Number: the input; 16 neighbors share a color.",
    )
    figure.alt = (
        f"{tile} words of {planes} codes, two ways. Neighbors in a word: word 0 holds inputs {neighbors[0].tolist()}, "
        f"and the lowest codes of all words are inputs {neighbors[:, 0].tolist()}. Planes: word 0 holds inputs "
        f"{apart[0].tolist()}, and the lowest codes of all words are inputs {apart[:, 0].tolist()}."
    )
    return figure


def one_program(
    program: int = 0, rows: int = 4, splits: int = 1, group_size: int = 8, out: int = 8, columns: int = 32
) -> Figure:
    """What one program of a fused product with split inputs reads and writes, on a toy weight (out, in) of 4 bits.

    Args:
        program: taken modulo the number of programs.
        rows: outputs of a program.
        splits: programs that share the inputs of one output; each takes columns / splits of them.
        group_size: inputs that share a scale.
    """
    down, count = -(-out // rows), -(-out // rows) * splits
    i, s = program % count // splits, program % count % splits
    mine = (torch.arange(out) // rows == i)[:, None]
    inputs = torch.arange(columns) // (columns // splits) == s  # (in,)
    packed, scales = mine & inputs[::2], mine & (inputs.view(-1, group_size).any(1))
    sums = (torch.arange(splits) == s)[:, None] & mine.T
    named = {
        "packed bytes, read": packed,
        "scales, read": scales,
        "x, read": inputs[None],
        "y, written" if splits == 1 else "partial sums, written": sums,
    }
    panels = [Panel(name, torch.where(on, 0, OTHER), _crosses(on)) for name, on in named.items()]
    x_bytes, partial = 2 * int(inputs.sum()), 0 if splits == 1 else 4 * splits * out
    parts = torch.arange(splits)[:, None] == torch.arange(columns) // (columns // splits)  # (splits, in)
    all_scales = 2 * out * int(parts.view(splits, -1, group_size).any(2).sum())
    reads = (int(packed.sum()), 2 * int(scales.sum()), x_bytes), (out * columns // 2, all_scales, x_bytes * count)
    one, together = (f"{a} bytes of codes, {b} of scales, {c} of x, {a + b + c} in all" for a, b, c in reads)
    return programs(
        [panels[:2], panels[2:3], panels[3:]],
        f"Program ({i}, {s}) of {down} x {splits} reads {one}.\n"
        f"All programs together read {together}. All partial sums: {partial} bytes.",
    )


def _crosses(on: torch.Tensor) -> list[list[str]]:
    return [["x" if cell else "" for cell in line] for line in on.tolist()]
