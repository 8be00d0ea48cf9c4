"""codebook.nearest: the code of the nearest level in a table whose gaps differ (QLoRA, Dettmers et al. 2023)."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .tables import E2M1, NF4, codes_fit, uneven_table

_BESIDE = 1.5e-5  # from a border: less than rounding it to four digits may move it


def nearest_codes(x, table):
    """Give every value the code of the nearest level in a table.

    x: float32, any shape, not empty. Most values lie between the first and the last level.
    table: float32 (levels,), 2 to 256 levels, sorted from the smallest to the largest.
        The gaps between levels differ, and zero need not be a level. It may end anywhere,
        not only at -1 and 1.

    Returns codes: uint8, shaped like x, from 0 to levels - 1. A value beyond an end gets
    the code of that end; a value halfway between two levels gets either of the two.
    """
    midpoints = (table[:-1] + table[1:]) / 2  # (levels - 1,): where one code ends and the next begins
    return torch.searchsorted(midpoints, x).to(torch.uint8)


def cases(seed: int) -> list[Case]:
    random = torch.Generator().manual_seed(seed)

    def values(*shape: int) -> torch.Tensor:
        return 2 * torch.rand(*shape, generator=random) - 1

    uneven, small, pair = (uneven_table(levels, random) for levels in (16, 4, 2))
    borders = (uneven[:-1] + uneven[1:]) / 2
    aside = borders + 0.004 * (torch.randint(0, 2, (15,), generator=random) * 2 - 1) * uneven.diff()
    nf4_borders = (NF4[:-1] + NF4[1:]) / 2
    beside = torch.cat([nf4_borders - _BESIDE, nf4_borders + _BESIDE])
    positive = torch.tensor([0.25, 0.5, 0.625, 1.0])
    ties = torch.tensor([-1.0, -0.5, 0.25, 0.5, 1.0])
    return [
        Case("the values of the card", (torch.tensor([0.29, -0.30, 0.04, 0.5, -0.86, 1.0]), NF4)),
        Case("values between the ends of NF4", (values(65), NF4)),
        Case("a matrix of small values", (values(5, 7) * 0.3, NF4)),
        Case("16 levels, other gaps", (values(9, 3), uneven)),
        Case("every level itself", (uneven[torch.randperm(16, generator=random)], uneven)),
        Case("values close to the borders between codes", (aside, uneven)),
        Case("values just beside the borders of NF4", (beside, NF4)),
        Case("4 levels", (values(40), small)),
        Case("2 levels", (values(12), pair)),
        Case("256 levels", (values(4, 50), uneven_table(256, random))),
        Case("a table without negative levels", (values(20), positive)),
        Case("a table that ends at 6", (6.5 * values(40), E2M1)),
        Case("halfway between two levels", (torch.tensor([-0.75, -0.125, 0.375, 0.75, -1.0]), ties)),
        Case("values beyond the ends", (1.004 * torch.tensor([1.0, -1.0, 1.4, -2.0]) + 0.001 * values(4), uneven)),
        Case("a single value", (values(1), NF4)),
        Case("a tensor of three dimensions", (values(2, 3, 4), NF4)),
    ]


def codes_are_uint8(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got, "codes", torch.uint8, case.args[0].shape)


def codes_are_nearest(case: Case, got: Any, expected: Any) -> Finding | None:
    x, table = case.args
    # Values and levels are exact, so a border is known to the last digits of float32.
    return codes_fit(got, x, table, noise=2e-7 * table.abs().max().item(), slack=0.0)


def _between(x: Any, borders: Any) -> Any:
    """How many borders lie below each value."""
    return torch.searchsorted(borders.contiguous(), x)


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def codes_left_wide(x, table):
    return nearest_codes(x, table).long()


@mutant("these are the levels, not their places in the table. A level takes 32 bits, its place takes 4.")
def levels_for_codes(x, table):
    return table[nearest_codes(x, table).long()]


@mutant(
    "the values are rounded on an even grid, as if all gaps were equal. In NF4 the gap beside zero is 0.08 and the one "
    "at the end 0.28. Compare with the levels of the table."
)
def even_grid(x, table):
    steps = (x - table[0]) / (table[-1] - table[0]) * (len(table) - 1)
    return torch.round(steps).clamp(0, len(table) - 1).to(torch.uint8)


@mutant(
    "every value goes up to the next level: the table itself went into searchsorted or bucketize, which look for a "
    "place between the levels. The borders between two codes are the midpoints."
)
def next_level_up(x, table):
    return _between(x, table).clamp(max=len(table) - 1).to(torch.uint8)


@mutant(
    "every value goes down to the level below it, so the error goes up to a whole gap. The border between two codes is "
    "the midpoint of their levels, not the upper one."
)
def next_level_down(x, table):
    return (torch.searchsorted(table, x, right=True) - 1).clamp(min=0).to(torch.uint8)


@mutant(
    "the codes are one too high: a border below the first level was counted as well, or the counting began at 1. "
    "There is one border less than there are levels, and code 0 lies below the first of them."
)
def one_too_high(x, table):
    return (nearest_codes(x, table) + 1).clamp(max=len(table) - 1)


@mutant(
    "the borders are half the difference of two levels, (b - a) / 2. The middle between them is half the sum, "
    "(a + b) / 2."
)
def half_the_difference(x, table):
    return _between(x, ((table[1:] - table[:-1]) / 2).sort().values).to(torch.uint8)


@mutant(
    "the distance is taken between magnitudes, so the sign is lost: -0.3 is as near to 0.3 as 0.3 itself. Subtract "
    "first, then take abs()."
)
def magnitudes_compared(x, table):
    return (x.abs()[..., None] - table.abs()).abs().argmin(dim=-1).to(torch.uint8)


@mutant(
    "the sign is taken off, the magnitude is looked up among the positive levels, and the code is mirrored. The table "
    "is not symmetric: NF4 has eight levels above zero and seven below it."
)
def mirrored(x, table):
    codes = nearest_codes(x.abs(), table).short()
    return torch.where(x < 0, len(table) - 1 - codes, codes).to(torch.uint8)


@mutant(
    "argmin of the difference finds the most negative one, which always belongs to the last level. Take the magnitude "
    "of the difference before you look for its minimum."
)
def difference_without_abs(x, table):
    return (x[..., None] - table).argmin(dim=-1).to(torch.uint8)


@mutant("this is the code of the level farthest away: argmax where argmin is meant.")
def farthest_level(x, table):
    return (x[..., None] - table).abs().argmax(dim=-1).to(torch.uint8)


@mutant(
    "values at or beyond the ends fall through all intervals and keep the code 0, the one they began with. So the "
    "largest weight of a block, which is exactly 1, comes back as -1. The last interval has no upper end."
)
def ends_fall_through(x, table):
    edges = torch.cat([table[:1], (table[:-1] + table[1:]) / 2, table[-1:]])
    codes = torch.zeros(x.shape, dtype=torch.uint8)
    for code in range(len(table)):
        codes[(x >= edges[code]) & (x < edges[code + 1])] = code
    return codes


@mutant(
    "the argument table is not used; the borders are those of NF4. The same function has to serve FP4, 8-bit tables "
    "and your own."
)
def always_nf4(x, table):
    return nearest_codes(x, NF4)


@mutant(
    "the codes follow the probability of a value, the normal distribution's cdf cut into equal parts. The table came "
    "from a distribution, but a value belongs to the level that is nearest to it."
)
def by_probability(x, table):
    share = torch.special.ndtr(1.848 * x)  # the last level of NF4 lies 1.848 standard deviations from zero
    return (share * len(table)).floor().clamp(0, len(table) - 1).to(torch.uint8)


@mutant("the codes are signed, counted from the middle of the table. A code is a place in the table, from 0 on.")
def signed_codes(x, table):
    return (nearest_codes(x, table).short() - len(table) // 2).to(torch.int8)


@mutant("the codes are in one long row. They have the shape of x.")
def flattened(x, table):
    return nearest_codes(x.flatten(), table)


@mutant(
    "the comparison is made in bfloat16, which keeps 8 bits: near 1 its numbers lie 0.004 apart. Values close to a "
    "border change sides. Compare in float32; the table may be smaller, its borders may not be coarser."
)
def compared_in_bfloat16(x, table):
    table = table.bfloat16().float()
    return nearest_codes(x.bfloat16().float(), table)


@mutant(
    "the borders are rounded to four digits, or were typed as the card prints them. A value just beside a border then "
    "changes sides. Compute them from the table you get: halfway between two levels, in all digits of float32."
)
def borders_of_four_digits(x, table):
    return _between(x, torch.round((table[:-1] + table[1:]) / 2, decimals=4)).to(torch.uint8)


@mutant(
    "the values are cut to -1 and 1 before the search, as if every table ended there. The table that ends at 6 has "
    "levels beyond. Values beyond the ends need nothing: they are nearest to the end."
)
def cut_to_one(x, table):
    return nearest_codes(x.clamp(-1, 1), table)


@mutant(
    "for each level this is the place of the nearest value; asked for is, for each value, the place of the nearest "
    "level. The minimum runs over the axis of the levels."
)
def over_the_wrong_axis(x, table):
    return (x.flatten()[:, None] - table).abs().argmin(dim=0).to(torch.uint8)


@mutant("the codes count from the largest level down. Code 0 is the first entry of the table, its smallest level.")
def counted_from_the_top(x, table):
    return len(table) - 1 - nearest_codes(x, table)


def smallest_distance(x, table):
    """Right, by all distances; at a tie the lower code."""
    return (x[..., None] - table).abs().argmin(dim=-1).to(torch.uint8)


def borders_passed(x, table):
    """Right, by counting the midpoints at or below each value; at a tie the higher code."""
    midpoints = table[:-1] + table.diff() / 2
    return (x[..., None] >= midpoints).sum(dim=-1).to(torch.uint8)


def one_after_the_other(x, table):
    """Right, by loops over Python's own floats."""
    levels = table.tolist()
    codes = [min(range(len(levels)), key=lambda code: abs(value - levels[code])) for value in x.flatten().tolist()]
    return torch.tensor(codes, dtype=torch.uint8).reshape(x.shape)


def numpy_digitize(x, table):
    """Right, as arrays in float64."""
    import numpy as np

    levels = table.double().numpy()
    return np.digitize(x.double().numpy(), (levels[:-1] + levels[1:]) / 2).astype("uint8")


QUESTION = Question(
    id="codebook.nearest",
    title="The nearest level of a table",
    reference=nearest_codes,
    cases=cases,
    properties=(codes_are_uint8, codes_are_nearest),
    mutants=(
        codes_left_wide,  # first: what is wrong in its types only looks like this one
        levels_for_codes,
        even_grid,
        next_level_up,
        next_level_down,
        one_too_high,
        half_the_difference,
        magnitudes_compared,
        mirrored,
        difference_without_abs,
        farthest_level,
        ends_fall_through,
        always_nf4,
        by_probability,
        signed_codes,
        flattened,
        compared_in_bfloat16,
        borders_of_four_digits,
        cut_to_one,
        over_the_wrong_axis,
        counted_from_the_top,
    ),
    alternatives=(smallest_distance, borders_passed, one_after_the_other, numpy_digitize),
    hints=(
        "A grid with equal steps lets you divide and round. Here you can only compare. With what would you compare a "
        "value to know whether it belongs to one level or to the next?",
        "Two ways. Measure the distance from every value to every level and take the place of the smallest; a new last "
        "axis, x[..., None], makes room for that. Or find the borders, halfway between neighbors, and count how many "
        "of them lie below the value: there is one border less than there are levels.",
        "midpoints = (table[:-1] + table[1:]) / 2; torch.searchsorted(midpoints, x) counts the midpoints below each "
        "value and keeps the shape of x; then convert to uint8. Values beyond the ends need nothing more.",
    ),
    explanation=(
        "Nearest means cut at the midpoints, whatever the table is. That is how bitsandbytes does it: 15 comparisons, "
        "or 4 of them in a tree, and no division by a step. A level's cell goes from midpoint to midpoint, so in NF4 "
        "it is 0.08 to 0.09 wide around zero and reaches 0.14 inward from 1. The largest error, 0.152 of the block's "
        "absmax, lies between -1 and -0.70; with even steps of 2/15 it would be 0.067 everywhere. NF4 trades that for "
        "finer steps where most weights are."
    ),
)
