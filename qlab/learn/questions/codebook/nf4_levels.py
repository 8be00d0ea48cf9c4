"""codebook.nf4_levels: find the bug in a popular table of NF4, and build the right one from normal quantiles.

QLoRA (Dettmers et al. 2023), section 3 and appendix E: two halves with one more level above zero than below it.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from statistics import NormalDist
from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant

_BOUND = 2e-5  # of the largest level: quantiles in float32 are that good, and four printed digits are not
_NF4_END = 0.9677083


def normal_levels(bits, outermost):
    """Build the table of a NormalFloat type from quantiles of the normal distribution.

    bits: 2 to 8; the table has 2**bits levels.
    outermost: the probability at which the quantiles end, more than 0.5 and less than 1.

    With half = 2**(bits-1):
    half levels above zero: the quantiles at half equal steps from 0.5 to outermost,
    half - 1 below zero: those at half - 1 equal steps from 0.5 to outermost, negated,
    and zero itself. (The quantile at 0.5 is 0; it is counted once.)

    Returns levels: float32 (2**bits,), from the smallest to the largest, divided by the
    largest, so that they go from -1 to 1. Zero is exact.
    """
    half = 2 ** (bits - 1)
    quantile = NormalDist().inv_cdf
    positive = [quantile(0.5 + (outermost - 0.5) * i / half) for i in range(1, half + 1)]
    negative = [-quantile(0.5 + (outermost - 0.5) * i / (half - 1)) for i in range(half - 1, 0, -1)]
    return torch.tensor([*negative, 0.0, *positive]) / positive[-1]


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    return [
        Case("NF4", (4, _NF4_END)),
        Case("3 bits, the example of the card", (3, 0.9)),
        Case("4 bits, ends farther out", (4, random.uniform(0.98, 0.999))),
        Case("4 bits, ends farther in", (4, random.uniform(0.8, 0.95))),
        Case("nearly even levels", (4, random.uniform(0.53, 0.6))),
        Case("2 bits", (2, random.uniform(0.85, 0.98))),
        Case("5 bits", (5, random.uniform(0.9, 0.99))),
        Case("8 bits", (8, random.uniform(0.95, 0.998))),
    ]


def a_float32_level_for_each_code(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.tensor(got, "levels", torch.float32, (2 ** case.args[0],))


def levels_are_sorted(case: Case, got: Any, expected: Any) -> Finding | None:
    falls = ~(got.diff() >= 0)  # NaN, too
    if not bool(falls.any()):
        return None
    place = int(falls.nonzero()[0])
    return Finding(
        "levels: they do not rise from the smallest to the largest",
        index=(place + 1,),
        expected=f"more than {got[place].item():.4g}, the level before it",
        got=f"{got[place + 1].item():.4g}",
    )


def zero_is_a_level(case: Case, got: Any, expected: Any) -> Finding | None:
    zeros = int((got == 0).sum())
    if zeros == 1:
        return None
    if zeros:
        return Finding(f"levels: zero is there {zeros} times, and wastes a code", expected="once", got=f"{zeros} times")
    nearest = got[got.abs().argmin()].item()
    return Finding("levels: zero is none of them", expected="a level that is exactly 0", got=f"{nearest:.4g} nearest")


def ends_are_minus_one_and_one(case: Case, got: Any, expected: Any) -> Finding | None:
    return _near(torch.stack([got[0], got[-1]]), "the first and the last level", torch.tensor([-1.0, 1.0]))


def levels_are_quantiles(case: Case, got: Any, expected: Any) -> Finding | None:
    return _near(got, "levels", expected)


def _near(got: torch.Tensor, what: str, expected: torch.Tensor) -> Finding | None:
    finding = p.values_near(got, what, expected, torch.tensor(_BOUND), torch.tensor(1.0))
    return replace(finding, unit="of the largest level") if finding else None


def _quantiles(probabilities: Any) -> Any:
    return torch.special.ndtri(probabilities.double())


def _steps(outermost: float, count: int) -> Any:
    """The quantiles at `count` equal steps from 0.5 to `outermost`, without the one at 0.5."""
    return _quantiles(torch.linspace(0.5, outermost, count + 1, dtype=torch.float64)[1:])


def _table(negative: Any, positive: Any) -> Any:
    """Levels below zero by their magnitudes, the smallest first, zero, and levels above it."""
    levels = torch.cat([-negative.flip(0), torch.zeros(1, dtype=torch.float64), positive])
    return (levels / levels.abs().max()).float()


@mutant("the values are right, but not their type. The finding below says which one is asked for; convert at the end.")
def left_in_float64(bits, outermost):
    return normal_levels(bits, outermost).double()


@mutant(
    "this is still the table with the bug: the quantiles in the middle of equal areas. Their number is even and they "
    "are symmetric, so none of them is 0. Build two halves that meet in zero."
)
def middles_of_equal_areas(bits, outermost):
    levels = _quantiles((torch.arange(2**bits) + 0.5) / 2**bits)
    return (levels / levels.max()).float()


@mutant(
    "all levels come from one run of probabilities, from 1 - outermost to outermost. An even number of them is "
    "symmetric around zero and leaves zero out. Build two halves that meet in zero."
)
def one_run_of_quantiles(bits, outermost):
    levels = _quantiles(torch.linspace(1 - outermost, outermost, 2**bits, dtype=torch.float64))
    return (levels / levels.max()).float()


@mutant(
    "each level is the mean of two neighboring quantiles, as equation 4 of the QLoRA paper reads. The table in its "
    "appendix was not made like that: there the levels are quantiles, and zero is one of them."
)
def means_of_neighbors(bits, outermost):
    edges = _quantiles(torch.linspace(1 - outermost, outermost, 2**bits + 1, dtype=torch.float64))
    levels = (edges[:-1] + edges[1:]) / 2
    return (levels / levels.max()).float()


@mutant("the levels lie evenly. Equal steps are for probabilities; the quantiles of these lie closer around zero.")
def even_levels(bits, outermost):
    half = 2 ** (bits - 1)
    return _table(torch.arange(1, half, dtype=torch.float64) / (half - 1), torch.arange(1, half + 1).double() / half)


@mutant(
    "the levels below zero are those above it, negated, without the smallest. So the first level below zero is as far "
    "away as the second above it. The lower half has steps of its own: half - 1 of them to the same end."
)
def mirrored_without_the_smallest(bits, outermost):
    positive = _steps(outermost, 2 ** (bits - 1))
    return _table(positive[1:], positive)


@mutant(
    "the levels below zero are those above it, negated, without the largest. So the table does not reach -1, and the "
    "largest weight of a block is cut where it is negative. The lower half has steps of its own, to the same end."
)
def mirrored_without_the_largest(bits, outermost):
    positive = _steps(outermost, 2 ** (bits - 1))
    return _table(positive[:-1], positive)


@mutant(
    "the halves are swapped: the upper one has half levels, the lower one half - 1. Here it is the other way round."
)
def halves_swapped(bits, outermost):
    half = 2 ** (bits - 1)
    return _table(_steps(outermost, half), _steps(outermost, half - 1))


@mutant(
    "both halves begin with 0, so zero is there twice and a code is wasted. Give it to the upper half, which then has "
    "half levels above zero."
)
def zero_twice(bits, outermost):
    side = _steps(outermost, 2 ** (bits - 1) - 1)
    zeros = torch.zeros(2, dtype=torch.float64)
    return (torch.cat([-side.flip(0), zeros, side]) / side[-1]).float()


@mutant(
    "both sides have half - 1 levels, so there is one level less than there are codes. Give the upper side one more, "
    "with steps of its own."
)
def one_level_less(bits, outermost):
    side = _steps(outermost, 2 ** (bits - 1) - 1)
    return _table(side, side)


@mutant(
    "the steps are counted with the level at zero: linspace(0.5, outermost, half) has half points and half - 1 steps. "
    "For half levels above zero take half + 1 points and leave the first one out."
)
def points_taken_for_steps(bits, outermost):
    half = 2 ** (bits - 1)
    return _table(_steps(outermost, half - 2) if half > 2 else _steps(outermost, 1), _steps(outermost, half - 1))


@mutant(
    "the steps go past zero: the last one does not reach outermost, because the probability is divided by one step too "
    "many. half steps from 0.5 to outermost end exactly there."
)
def last_step_not_reached(bits, outermost):
    half = 2 ** (bits - 1)
    return _table(_steps(outermost, half)[:-1], _steps(outermost, half + 1)[:-1])


@mutant("the levels are quantiles and were not divided. They end at about 1.85, and weights divided by absmax at 1.")
def not_divided(bits, outermost):
    half = 2 ** (bits - 1)
    return torch.cat([-_steps(outermost, half - 1).flip(0), torch.zeros(1), _steps(outermost, half)]).float()


@mutant(
    "the probabilities go up to 1, where the quantile is infinite. Divided by it, all levels but the ends are 0 and "
    "the ends are NaN. That is why the quantiles end at outermost."
)
def up_to_infinity(bits, outermost):
    half = 2 ** (bits - 1)
    return _table(_steps(1.0, half - 1), _steps(1.0, half))


@mutant(
    "this is the cumulative distribution function of even values, not the quantile function of even probabilities: the "
    "levels lie closer at the ends instead of around zero. ndtri or inv_cdf is the inverse that is needed."
)
def cdf_for_the_quantile(bits, outermost):
    half, end = 2 ** (bits - 1), NormalDist().inv_cdf(outermost)
    sides = [torch.special.ndtr(torch.linspace(0, end, n + 1).double()[1:]) - 0.5 for n in (half - 1, half)]
    return _table(*sides)


@mutant("the argument outermost is not used; the table ends where NF4 does.")
def end_of_nf4_always(bits, outermost):
    return normal_levels(bits, _NF4_END)


@mutant("the argument bits is not used; the table always has 16 levels.")
def four_bits_always(bits, outermost):
    return normal_levels(4, outermost)


@mutant(
    "outermost is taken as the probability between the two ends, so they lie too far out. It is the probability below "
    "the upper end; that between the ends is 2 * outermost - 1."
)
def both_tails_counted(bits, outermost):
    return normal_levels(bits, (1 + outermost) / 2)


@mutant("the levels are not sorted: zero and the positive ones come first. Sorted, the code of a weight grows with it.")
def not_sorted(bits, outermost):
    levels = normal_levels(bits, outermost)
    return torch.cat([levels[levels >= 0], levels[levels < 0]])


@mutant(
    "the levels below zero run away from zero, from the smallest magnitude to -1, so the table falls before it rises. "
    "Turn that half around, or sort the whole table."
)
def lower_half_not_turned(bits, outermost):
    half = 2 ** (bits - 1)
    levels = normal_levels(bits, outermost)
    return torch.cat([levels[: half - 1].flip(0), levels[half - 1 :]])


@mutant("the levels fall from 1 to -1. Code 0 is the smallest level.")
def from_the_top_down(bits, outermost):
    return normal_levels(bits, outermost).flip(0)


@mutant(
    "the levels are rounded to the four digits that people print. A reader multiplies by the full ones, and every "
    "weight is off by up to 0.00005 of its absmax."
)
def four_digits(bits, outermost):
    return torch.round(normal_levels(bits, outermost), decimals=4)


def halves_by_ndtri(bits, outermost):
    """Right, from two linspaces in float32, joined and sorted."""
    half = 2 ** (bits - 1)
    upper = torch.special.ndtri(torch.linspace(outermost, 0.5, half + 1)[:-1])
    lower = -torch.special.ndtri(torch.linspace(outermost, 0.5, half)[:-1])
    levels = torch.cat([upper, lower, torch.zeros(1)]).sort().values
    return levels / levels.max()


def by_the_error_function(bits, outermost):
    """Right, with the inverse error function, of which the quantile is a multiple; an array comes back."""
    half = 2 ** (bits - 1)
    share = [-i / (half - 1) for i in range(half - 1, 0, -1)] + [i / half for i in range(half + 1)]
    levels = torch.erfinv(torch.tensor(share, dtype=torch.float64) * (2 * outermost - 1))
    return (levels / levels[-1]).float().numpy()


def by_bisection(bits, outermost):
    """Right, without a quantile function: halving an interval until its cdf fits."""
    cdf = NormalDist().cdf

    def quantile(probability: float) -> float:
        low, high = 0.0, 10.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if cdf(middle) < probability else (low, middle)
        return high

    half, end = 2 ** (bits - 1), quantile(outermost)
    levels = [0.0] * 2**bits
    for code in range(2**bits):
        steps = code - half + 1  # away from zero, negative below it
        if steps:
            count = half if steps > 0 else half - 1
            level = quantile(0.5 + abs(steps) / count * (outermost - 0.5)) / end
            levels[code] = level if steps > 0 else -level
    return torch.tensor(levels)


QUESTION = Question(
    id="codebook.nf4_levels",
    title="Find the bug: a table without zero",
    reference=normal_levels,
    cases=cases,
    properties=(
        a_float32_level_for_each_code,
        levels_are_sorted,
        zero_is_a_level,
        ends_are_minus_one_and_one,
        levels_are_quantiles,
    ),
    mutants=(
        left_in_float64,  # first: what is wrong in its types only looks like this one
        middles_of_equal_areas,
        one_run_of_quantiles,
        means_of_neighbors,
        even_levels,
        mirrored_without_the_smallest,
        mirrored_without_the_largest,
        halves_swapped,
        zero_twice,
        one_level_less,
        points_taken_for_steps,
        last_step_not_reached,
        not_divided,
        up_to_infinity,
        cdf_for_the_quantile,
        end_of_nf4_always,
        four_bits_always,
        both_tails_counted,
        not_sorted,
        lower_half_not_turned,
        from_the_top_down,
        four_digits,
    ),
    alternatives=(halves_by_ndtri, by_the_error_function, by_bisection),
    hints=(
        "Sixteen levels that are symmetric around zero cannot have zero among them. What has to be given up so that "
        "zero is one of them, and which side gets the level that is left over?",
        "Work on each side by itself. Above zero: half = 2**(bits-1) levels, at the probabilities 0.5 + (outermost - "
        "0.5) * i / half for i = 1 to half. Below zero the same with half - 1 in the place of half, and a minus. "
        "NormalDist().inv_cdf(p) is the quantile, as is torch.special.ndtri for tensors.",
        "positive = [inv_cdf(0.5 + (outermost - 0.5) * i / half) for i in range(1, half + 1)]; negative = "
        "[-inv_cdf(0.5 + (outermost - 0.5) * i / (half - 1)) for i in range(half - 1, 0, -1)], which begins with the "
        "smallest; then torch.tensor([*negative, 0.0, *positive]) / positive[-1].",
    ),
    explanation=(
        "A table needs an exact zero for padding, masks and pruned weights, and it needs both ends, because every "
        "block has a weight at 1 or at -1. With an even number of levels symmetry has to go: NF4 has eight levels "
        "above zero and seven below it. Each side takes equal steps of probability, 0.0585 above and 0.0668 below, up "
        "to 0.9677083. That number is the mean of 1 - 1/30 and 1 - 1/32: half an area before 1, with 15 areas and "
        "with 16. The result is the table of bitsandbytes to 2e-7. The popular table is no worse on random weights (a "
        "mean error of 0.0725 standard deviations against 0.0728, in blocks of 64), and that is why nobody notices; "
        "but every zero becomes 0.042 of its block's absmax. In neither table are all codes equally probable, as is "
        "often said: the absmax of 64 normal weights is about 2.6 standard deviations and not 1.85, so the last codes "
        "are used by 2 % of the weights and those around zero by 9 %."
    ),
)
