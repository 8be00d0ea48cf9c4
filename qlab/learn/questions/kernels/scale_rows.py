"""kernels.scale_rows: a tile with a mask on both edges, of a matrix with strides, times a scale for each row."""

from __future__ import annotations

from typing import Any

import torch

from ...question import Case, Finding, Question, mutant
from .shared import (
    argument,
    cdiv,
    each_program_stores_its_own,
    launched,
    near,
    normal,
    only_interpreted,
    stays_inside,
    tl,
    triton,
    unwritten,
    written,
)


@triton.jit
def scale_rows(x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr):
    """y[r, c] = s[r] * x[r, c], for r < rows and c < columns.

    x: pointer to float32; element (r, c) lies at place r * stride_row + c * stride_column.
    s: pointer to float32 (rows,).
    y: pointer to float32 (rows, columns), the output, row after row without a gap.
    rows, columns, stride_row, stride_column: whole numbers from 1 on.
    TALL, WIDE: powers of two. Program (i, j) owns the WIDE columns from i * WIDE on, and of
        them the TALL rows from j * TALL on.
    """
    r = tl.program_id(1) * TALL + tl.arange(0, TALL)[:, None]  # (TALL, 1)
    c = tl.program_id(0) * WIDE + tl.arange(0, WIDE)[None, :]  # (1, WIDE)
    inside = (r < rows) & (c < columns)
    values = tl.load(x + r * stride_row + c * stride_column, mask=inside, other=0)
    scale = tl.load(s + r, mask=r < rows, other=0)  # (TALL, 1)
    tl.store(y + r * columns + c, values * scale, mask=inside)


# The example of the card: 3 rows of 5, and behind each row a place that is none of ours.
NAN = float("nan")
CARD_X = torch.tensor([[1.0, 2, 3, 4, 5, NAN], [6, 7, 8, 9, 10, NAN], [11, 12, 13, 14, 15, NAN]])
CARD_S = torch.tensor([2.0, 10, -1])


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def one(name: str, x: torch.Tensor, s: torch.Tensor, columns: int, strides: tuple[int, int], *tile: int) -> Case:
        tall, wide = tile
        return launched(
            name, (cdiv(columns, wide), cdiv(len(s), tall)), x=x, s=s, y=unwritten(len(s), columns), rows=len(s),
            columns=columns, stride_row=strides[0], stride_column=strides[1], TALL=tall, WIDE=wide,
        )  # fmt: skip

    def rows(name: str, rows: int, columns: int, gap: int, *tile: int) -> Case:
        x = normal(random, rows, columns + gap)
        x[:, columns:] = NAN
        return one(name, x, normal(random, rows), columns, (columns + gap, 1), *tile)

    def turned(name: str, rows: int, columns: int, gap: int, *tile: int) -> Case:
        x = normal(random, columns, rows + gap)
        x[:, rows:] = NAN
        return one(name, x, normal(random, rows), columns, (1, rows + gap), *tile)

    return [
        one("the example of the card", CARD_X, CARD_S, 5, (6, 1), 2, 4),
        rows("sizes that the tile divides", 8, 16, 0, 8, 8),
        rows("rows with a gap between them", 9, 13, 3, 8, 16),
        turned("x is stored column by column", 10, 7, 0, 16, 4),
        turned("a square, column by column, with gaps", 11, 11, 2, 16, 8),
        rows("a single row", 1, 19, 1, 4, 32),
        rows("a single column", 13, 1, 2, 16, 4),
    ]


def exact(case: Case) -> torch.Tensor:
    """(rows, columns), float64."""
    size = argument(case, "rows"), argument(case, "columns")
    strides = argument(case, "stride_row"), argument(case, "stride_column")
    x: torch.Tensor = argument(case, "x").double().as_strided(size, strides)
    return x * argument(case, "s").double()[:, None]


def every_row_has_its_scale(case: Case, got: Any, expected: Any) -> Finding | None:
    wanted = exact(case)
    return near(got["y"], "y", wanted, 2.0**-23 * wanted.abs())


@mutant(
    "tl.store has no mask: the last programs write over what lies behind y, and into the next row where a tile "
    "reaches past the end of a row."
)
@triton.jit
def store_without_mask(x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr):
    r = tl.program_id(1) * TALL + tl.arange(0, TALL)[:, None]
    c = tl.program_id(0) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (r < rows) & (c < columns)
    values = tl.load(x + r * stride_row + c * stride_column, mask=inside, other=0)
    tl.store(y + r * columns + c, values * tl.load(s + r, mask=r < rows, other=0))


@mutant(
    "x is read without a mask. What is read too far is never stored, so y is right, but the addresses are not yours: "
    "a GPU may stop there."
)
@triton.jit
def load_without_mask(x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr):
    r = tl.program_id(1) * TALL + tl.arange(0, TALL)[:, None]
    c = tl.program_id(0) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (r < rows) & (c < columns)
    values = tl.load(x + r * stride_row + c * stride_column)
    tl.store(y + r * columns + c, values * tl.load(s + r, mask=r < rows, other=0), mask=inside)


@mutant("the scales are read without a mask: the last tile has fewer rows than TALL, and s ends where the rows end.")
@triton.jit
def scales_without_mask(x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr):
    r = tl.program_id(1) * TALL + tl.arange(0, TALL)[:, None]
    c = tl.program_id(0) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (r < rows) & (c < columns)
    values = tl.load(x + r * stride_row + c * stride_column, mask=inside, other=0)
    tl.store(y + r * columns + c, values * tl.load(s + r), mask=inside)


@mutant("there is no mask at all. A tile reaches past the last row and past the last column; both ends need one.")
@triton.jit
def no_masks(x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr):
    r = tl.program_id(1) * TALL + tl.arange(0, TALL)[:, None]
    c = tl.program_id(0) * WIDE + tl.arange(0, WIDE)[None, :]
    tl.store(y + r * columns + c, tl.load(x + r * stride_row + c * stride_column) * tl.load(s + r))


@mutant(
    "only the rows are masked. A tile that reaches past the end of a row of y is not outside of y: it writes over the "
    "beginning of the next row."
)
@triton.jit
def only_rows_masked(x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr):
    r = tl.program_id(1) * TALL + tl.arange(0, TALL)[:, None]
    c = tl.program_id(0) * WIDE + tl.arange(0, WIDE)[None, :]
    values = tl.load(x + r * stride_row + c * stride_column, mask=r < rows, other=0)
    tl.store(y + r * columns + c, values * tl.load(s + r, mask=r < rows, other=0), mask=r < rows)


@mutant("only the columns are masked: the last tile has fewer rows than TALL, and goes on behind the end of y.")
@triton.jit
def only_columns_masked(x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr):
    r = tl.program_id(1) * TALL + tl.arange(0, TALL)[:, None]
    c = tl.program_id(0) * WIDE + tl.arange(0, WIDE)[None, :]
    values = tl.load(x + r * stride_row + c * stride_column, mask=c < columns, other=0)
    tl.store(y + r * columns + c, values * tl.load(s + r, mask=r < rows, other=0), mask=c < columns)


@mutant("the masks include one place too many: the last row is rows - 1, so r < rows and not r <= rows.")
@triton.jit
def one_place_too_many(x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr):
    r = tl.program_id(1) * TALL + tl.arange(0, TALL)[:, None]
    c = tl.program_id(0) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (r <= rows) & (c <= columns)
    values = tl.load(x + r * stride_row + c * stride_column, mask=inside, other=0)
    tl.store(y + r * columns + c, values * tl.load(s + r, mask=r <= rows, other=0), mask=inside)


@mutant(
    "the axes of the grid change places: here tl.program_id(0) counts tiles along the columns, tl.program_id(1) along "
    "the rows. In the lesson it was the other way round."
)
@triton.jit
def axes_of_the_grid_swapped(x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr):
    r = tl.program_id(0) * TALL + tl.arange(0, TALL)[:, None]
    c = tl.program_id(1) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (r < rows) & (c < columns)
    values = tl.load(x + r * stride_row + c * stride_column, mask=inside, other=0)
    tl.store(y + r * columns + c, values * tl.load(s + r, mask=r < rows, other=0), mask=inside)


@mutant("the program's number is multiplied with the wrong side of the tile: rows go by TALL, columns by WIDE.")
@triton.jit
def sides_of_the_tile_swapped(
    x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr
):
    r = tl.program_id(1) * WIDE + tl.arange(0, TALL)[:, None]
    c = tl.program_id(0) * TALL + tl.arange(0, WIDE)[None, :]
    inside = (r < rows) & (c < columns)
    values = tl.load(x + r * stride_row + c * stride_column, mask=inside, other=0)
    tl.store(y + r * columns + c, values * tl.load(s + r, mask=r < rows, other=0), mask=inside)


@mutant("every program works on the first tile: r and c do not depend on tl.program_id.")
@triton.jit
def always_the_first_tile(x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr):
    r = tl.arange(0, TALL)[:, None]
    c = tl.arange(0, WIDE)[None, :]
    inside = (r < rows) & (c < columns)
    values = tl.load(x + r * stride_row + c * stride_column, mask=inside, other=0)
    tl.store(y + r * columns + c, values * tl.load(s + r, mask=r < rows, other=0), mask=inside)


@mutant("the strides change places: the row is multiplied by stride_row, the column by stride_column.")
@triton.jit
def strides_swapped(x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr):
    r = tl.program_id(1) * TALL + tl.arange(0, TALL)[:, None]
    c = tl.program_id(0) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (r < rows) & (c < columns)
    values = tl.load(x + r * stride_column + c * stride_row, mask=inside, other=0)
    tl.store(y + r * columns + c, values * tl.load(s + r, mask=r < rows, other=0), mask=inside)


@mutant(
    "x is read as if its rows lay one behind the other, at r * columns + c. Its rows may have a gap, or it may be "
    "stored column by column: that is what the strides say."
)
@triton.jit
def strides_of_x_ignored(x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr):
    r = tl.program_id(1) * TALL + tl.arange(0, TALL)[:, None]
    c = tl.program_id(0) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (r < rows) & (c < columns)
    values = tl.load(x + r * columns + c, mask=inside, other=0)
    tl.store(y + r * columns + c, values * tl.load(s + r, mask=r < rows, other=0), mask=inside)


@mutant("only stride_row is used; neighbors in a row of x are stride_column places apart, which is not always 1.")
@triton.jit
def stride_of_columns_ignored(
    x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr
):
    r = tl.program_id(1) * TALL + tl.arange(0, TALL)[:, None]
    c = tl.program_id(0) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (r < rows) & (c < columns)
    values = tl.load(x + r * stride_row + c, mask=inside, other=0)
    tl.store(y + r * columns + c, values * tl.load(s + r, mask=r < rows, other=0), mask=inside)


@mutant("y is written with the strides of x. They belong to x; y has no gaps, its element (r, c) is r * columns + c.")
@triton.jit
def strides_of_x_for_y(x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr):
    r = tl.program_id(1) * TALL + tl.arange(0, TALL)[:, None]
    c = tl.program_id(0) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (r < rows) & (c < columns)
    values = tl.load(x + r * stride_row + c * stride_column, mask=inside, other=0)
    tl.store(y + r * stride_row + c * stride_column, values * tl.load(s + r, mask=r < rows, other=0), mask=inside)


@mutant("each column gets a scale, s + c; the scales belong to the rows, s + r. Both have a shape that fits.")
@triton.jit
def scales_by_column(x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr):
    r = tl.program_id(1) * TALL + tl.arange(0, TALL)[:, None]
    c = tl.program_id(0) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (r < rows) & (c < columns)
    values = tl.load(x + r * stride_row + c * stride_column, mask=inside, other=0)
    tl.store(y + r * columns + c, values * tl.load(s + c, mask=c < columns, other=0), mask=inside)


@mutant("the whole tile gets one scale, by the program's number. Each of its TALL rows has a scale of its own.")
@triton.jit
def one_scale_for_the_tile(x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr):
    r = tl.program_id(1) * TALL + tl.arange(0, TALL)[:, None]
    c = tl.program_id(0) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (r < rows) & (c < columns)
    values = tl.load(x + r * stride_row + c * stride_column, mask=inside, other=0)
    tl.store(y + r * columns + c, values * tl.load(s + tl.program_id(1)), mask=inside)


@mutant(
    "each tile begins again with the first scales: s + tl.arange(0, TALL) lacks the rows of the programs before. It is "
    "s + r."
)
@triton.jit
def scales_of_the_first_tile(x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr):
    r = tl.program_id(1) * TALL + tl.arange(0, TALL)[:, None]
    c = tl.program_id(0) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (r < rows) & (c < columns)
    values = tl.load(x + r * stride_row + c * stride_column, mask=inside, other=0)
    scale = tl.load(s + tl.arange(0, TALL)[:, None], mask=r < rows, other=0)
    tl.store(y + r * columns + c, values * scale, mask=inside)


@mutant(
    "r is a row of numbers, not a column: without [:, None] it lines up with the columns, and a tile that is not "
    "square does not fit together."
)
@triton.jit
def rows_not_turned(x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr):
    r = tl.program_id(1) * TALL + tl.arange(0, TALL)
    c = tl.program_id(0) * WIDE + tl.arange(0, WIDE)
    inside = (r < rows) & (c < columns)
    values = tl.load(x + r * stride_row + c * stride_column, mask=inside, other=0)
    tl.store(y + r * columns + c, values * tl.load(s + r, mask=r < rows, other=0), mask=inside)


@mutant(
    "the columns follow the program and the rows do not: every program works on the rows 0 to TALL - 1. The grid has "
    "two axes, 0 and 1; on an axis that it does not have, tl.program_id is always 0."
)
@triton.jit
def rows_always_the_first(x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr):
    r = tl.arange(0, TALL)[:, None]
    c = tl.program_id(0) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = (r < rows) & (c < columns)
    values = tl.load(x + r * stride_row + c * stride_column, mask=inside, other=0)
    scale = tl.load(s + r, mask=r < rows, other=0)
    tl.store(y + r * columns + c, values * scale, mask=inside)


@mutant(
    "the rows follow the program and the columns do not: every program works on the columns 0 to WIDE - 1. The grid "
    "has two axes, 0 and 1; on an axis that it does not have, tl.program_id is always 0."
)
@triton.jit
def columns_always_the_first(x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr):
    r = tl.program_id(1) * TALL + tl.arange(0, TALL)[:, None]
    c = tl.arange(0, WIDE)[None, :]
    inside = (r < rows) & (c < columns)
    values = tl.load(x + r * stride_row + c * stride_column, mask=inside, other=0)
    scale = tl.load(s + r, mask=r < rows, other=0)
    tl.store(y + r * columns + c, values * scale, mask=inside)


@mutant(
    "r < rows & c < columns lacks its parentheses. & binds tighter than <, so this compares r < (rows & c) < columns:"
    " write (r < rows) & (c < columns)."
)
@triton.jit
def masks_without_parentheses(
    x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr
):
    r = tl.program_id(1) * TALL + tl.arange(0, TALL)[:, None]
    c = tl.program_id(0) * WIDE + tl.arange(0, WIDE)[None, :]
    inside = r < rows & c < columns
    values = tl.load(x + r * stride_row + c * stride_column, mask=inside, other=0)
    scale = tl.load(s + r, mask=r < rows, other=0)
    tl.store(y + r * columns + c, values * scale, mask=inside)


@triton.jit
def row_by_row(x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr):
    """Right: a loop over the rows of the tile, each a block of WIDE."""
    c = tl.program_id(0) * WIDE + tl.arange(0, WIDE)
    for i in range(TALL):
        r = tl.program_id(1) * TALL + i
        inside = (c < columns) & (r < rows)
        values = tl.load(x + r * stride_row + c * stride_column, mask=inside)
        tl.store(y + r * columns + c, values * tl.load(s + r, mask=r < rows), mask=inside)


@triton.jit
def numbered_through(x, s, y, rows, columns, stride_row, stride_column, TALL: tl.constexpr, WIDE: tl.constexpr):
    """Right: one block of TALL * WIDE places, and the row and the column of each by division."""
    i = tl.arange(0, TALL * WIDE)
    r = tl.program_id(1) * TALL + i // WIDE
    c = tl.program_id(0) * WIDE + i % WIDE
    inside = (r < rows) & (c < columns)
    values = tl.load(x + r * stride_row + c * stride_column, mask=inside, other=0)
    tl.store(y + r * columns + c, tl.load(s + r, mask=inside, other=0) * values, mask=inside)


QUESTION = Question(
    id="kernels.scale_rows",
    title="A tile of a matrix with strides",
    reference=scale_rows,
    cases=cases,
    properties=(stays_inside, written("y"), every_row_has_its_scale, each_program_stores_its_own),
    mutants=(
        store_without_mask,
        *only_interpreted(load_without_mask, scales_without_mask),
        no_masks,
        only_rows_masked,
        only_columns_masked,
        one_place_too_many,
        axes_of_the_grid_swapped,
        sides_of_the_tile_swapped,
        always_the_first_tile,
        strides_swapped,
        strides_of_x_ignored,
        stride_of_columns_ignored,
        strides_of_x_for_y,
        scales_by_column,
        one_scale_for_the_tile,
        scales_of_the_first_tile,
        rows_not_turned,
        rows_always_the_first,
        columns_always_the_first,
        masks_without_parentheses,
    ),
    alternatives=(row_by_row, numbered_through),
    hints=(
        "Write down, for program (1, 0) of the card's example, which rows and which columns it owns, and at which "
        "place of x and of y each of its elements lies. Which of them do not exist?",
        "Build r as a column, with [:, None], and c as a row, with [None, :]. Every offset and every mask is then made "
        "of r and c: two offsets for x and y, which differ, and one mask for both.",
        "r = tl.program_id(1) * TALL + tl.arange(0, TALL)[:, None]; c in the same way from tl.program_id(0) and WIDE; "
        "x + r * stride_row + c * stride_column for the load, y + r * columns + c for the store, and (r < rows) & (c < "
        "columns) for both. The scales are loaded with s + r and r < rows.",
    ),
    explanation=(
        "A kernel gets an address and no shape, so a matrix is what its strides say. A transposed matrix, a slice and "
        "a row with padding differ in nothing else, and a kernel that takes strides needs no copy of them. Masks "
        "belong to rows and columns, not to places: a place behind the end of a row is a valid address, that of the "
        "next row, so no GPU stops there. Only behind the last row it lies outside of y. And with a column-wise matrix "
        "this kernel is right but slow on a GPU: neighbors of a row of the tile lie far apart, and a read of 32 "
        "neighbors becomes 32 reads."
    ),
)
