"""choosing.pareto: the methods that no other one beats in size and loss."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import torch

from ....deploy.quality.measured import REFERENCE, quality
from ...question import Case, Finding, Question, mutant
from .shared import listed, positions


def pareto(methods):
    """Find the methods that nobody beats.

    methods: tuples (size, loss), the less the better in both. A loss may be below 0.

    A method is beaten where another one is at least as good in both numbers and better in
    one. Of methods that are equal in both, the first counts and the others are left out.

    Returns a list of the positions, from 0, of those that are left, the smallest first.
    """
    order = sorted(range(len(methods)), key=lambda i: (*methods[i], i))
    front, best = [], math.inf
    for i in order:
        if methods[i][1] < best:
            front.append(i)
            best = methods[i][1]
    return front


# Bits per weight, and loss: one method beaten in both, one as large as a better one, one no better than a smaller one.
CARD = ((16.0, 0.0), (4.5, 0.041), (4.125, 0.034), (8.0, 0.034), (4.125, 0.074), (3.125, 0.2), (4.125, 0.034))


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    return [
        Case("the example of the card", (CARD,)),
        Case("nano's methods: bits per weight and KL", (_nano(random, None),)),
        Case("nano's methods: bits per weight and accuracy lost on SQL", (_nano(random, "sql"),)),
        Case("nano's methods: bits per weight and accuracy lost on trading signals", (_nano(random, "trading"),)),
        Case("one method", (((random.uniform(1, 9), random.uniform(0, 1)),),)),
        Case("one method, and its loss is large", (((random.uniform(1, 9), random.uniform(1e4, 1e6)),),)),
        Case("nobody is beaten", (_line(random, 7),)),
        Case("one beats all others", (_below(random, 7),)),
        Case("equal methods", (_repeated(random),)),
        Case("equal sizes", (_mixed(random, ((2, 0.9), (3, 0.8), (3, 0.5), (3, 0.7), (5, 0.4), (5, 0.45))),)),
        Case("equal losses", (_mixed(random, ((2, 0.9), (3, 0.5), (4, 0.5), (6, 0.5), (7, 0.2), (9, 0.2))),)),
        Case("a method above the line between its neighbours", (_mixed(random, ((1, 1.0), (4, 0.8), (6, 0.1))),)),
        Case("a size that is 0", (_mixed(random, ((0, 0.9), (1, 0.95), (2, 0.3), (3, 0.3))),)),
        Case("some gain", (_mixed(random, ((2, 0.03), (3, -0.01), (4, 0.0), (5, -0.02), (6, -0.02))),)),
        Case("many", (tuple((random.randrange(20), random.randrange(20) / 20) for _ in range(24)),)),
    ]


def _nano(random: Random, workload: str | None) -> tuple[tuple[float, float], ...]:
    """nano's recorded methods in any order, with the KL, or the part of right answers that is lost on a workload."""
    methods = quality().methods.values()
    points = []
    for method in random.sample(list(methods), len(methods)):
        loss = method.kl
        if workload:
            pair = (quality().method(name).answers[workload].correct for name in (REFERENCE, method.name))
            before, after = (sum(correct) for correct in pair)
            loss = (before - after) / len(method.answers[workload].correct)
        points.append((method.bits_per_weight, loss))
    return tuple(points)


def _line(random: Random, count: int) -> tuple[tuple[float, float], ...]:
    """Each larger and better than the one before; shuffled."""
    sizes = sorted(random.sample(range(1, 100), count))
    losses = sorted((random.random() for _ in range(count)), reverse=True)
    return _mixed(random, tuple(zip(sizes, losses, strict=True)))


def _below(random: Random, count: int) -> tuple[tuple[float, float], ...]:
    """The first is smallest and best; shuffled."""
    rest = [(random.uniform(3, 9), random.uniform(0.2, 0.9)) for _ in range(count - 1)]
    return _mixed(random, ((2.0, 0.1), *rest))


def _repeated(random: Random) -> tuple[tuple[float, float], ...]:
    """Every one of the front twice or three times."""
    points = _line(random, 4)
    return _mixed(random, (*points, *points, *points[:2], (200.0, 2.0)))


def _mixed(random: Random, points: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    """In another order, and in other units, which change nothing in what is beaten."""
    unit = random.randrange(2, 9)
    return tuple((unit * size, loss) for size, loss in random.sample(points, len(points)))


def a_list_of_positions(case: Case, got: Any, expected: Any) -> Finding | None:
    found = positions(got)
    if found is None:
        return Finding("return a list of positions")
    if None in found or any(not 0 <= one < len(case.args[0]) or one != int(one) for one in found):
        return Finding(
            f"a position is a whole number from 0 to {len(case.args[0]) - 1}",
            expected=_words(expected),
            got=_words(listed(got)),
        )
    return None


def nobody_else_is_left(case: Case, got: Any, expected: Any) -> Finding | None:
    return _compared(got, expected, sorted, "the methods that are left are wrong")


def smallest_first(case: Case, got: Any, expected: Any) -> Finding | None:
    return _compared(got, expected, list, "the methods are right, their order is not")


def _compared(got: Any, expected: Any, order: Any, what: str) -> Finding | None:
    if order(positions(got)) == order(expected):
        return None
    return Finding(what, expected=_words(expected), got=_words(listed(got)))


def _words(places: tuple[Any, ...]) -> str:
    return ", ".join(map(str, places)) or "none"


def _left(methods: Any, beaten: Any) -> list[int]:
    """Those that no other one beats, the smallest first; `beaten(a, b)`: whether b beats a, both (size, loss, i)."""
    points = [(*method, i) for i, method in enumerate(methods)]
    left = [a for a in points if not any(beaten(a, b) for b in points if b is not a)]
    return [i for _, _, i in sorted(left)]


def _dominates(a: Any, b: Any) -> bool:
    """b is at least as good as a in both and better in one, or the first of two equal ones."""
    return b[0] <= a[0] and b[1] <= a[1] and (b[:2] != a[:2] or b[2] < a[2])


@mutant("of equal methods all are kept. The first counts, the others are left out.")
def equal_ones_kept(methods):
    return _left(methods, lambda a, b: b[0] <= a[0] and b[1] <= a[1] and b[:2] != a[:2])


@mutant("of equal methods the last is kept. The first counts.")
def last_of_equal_ones(methods):
    return _left(methods, lambda a, b: b[0] <= a[0] and b[1] <= a[1] and (b[:2] != a[:2] or b[2] > a[2]))


@mutant("equal methods beat each other, and none of them is left. One has to be better in one number; the first stays.")
def equal_ones_beat_each_other(methods):
    return _left(methods, lambda a, b: b[0] <= a[0] and b[1] <= a[1])


@mutant(
    "a method counts as beaten only where another is better in both numbers. As good in one and better in the other is "
    "enough."
)
def better_in_both(methods):
    left = better_in_both_in_the_order_given.answer(methods)
    return sorted(left, key=lambda i: methods[i][0])


@mutant(
    "a method counts as beaten only where another is better in both numbers, and the rest is sorted by size and loss. "
    "As good in one and better in the other is enough: then no two of the rest have the same size."
)
def better_in_both_by_size_and_loss(methods):
    return sorted(better_in_both.answer(methods), key=lambda i: methods[i])


@mutant(
    "a method counts as beaten only where another is better in both numbers, and the positions come in the order of "
    "the methods. As good in one and better in the other is enough; then sort by size."
)
def better_in_both_in_the_order_given(methods):
    return sorted(_left(methods, lambda a, b: b[0] < a[0] and b[1] < a[1]))


@mutant("of equal methods all are kept, and the positions come in the order of the methods. Sort them by size.")
def equal_ones_kept_in_the_order_given(methods):
    return sorted(equal_ones_kept.answer(methods))


@mutant("a method as good as a smaller one is kept. It is larger for nothing: compare losses with < and not with <=.")
def equal_losses_kept(methods):
    front, best = [], math.inf
    for i in sorted(range(len(methods)), key=lambda i: (*methods[i], i)):
        if methods[i][1] <= best and (not front or methods[front[-1]] != methods[i]):
            front.append(i)
            best = methods[i][1]
    return front


@mutant("of methods of one size, worse ones are kept. Another is as small and better: sort by size, then by loss.")
def equal_sizes_kept(methods):
    front, best = [], math.inf
    for i in sorted(range(len(methods)), key=lambda i: methods[i][0]):
        if methods[i][1] < best:
            front.append(i)
            best = methods[i][1]
    return front


@mutant("the positions come in the order of the methods. Sort them by size, the smallest first.")
def in_the_order_given(methods):
    return sorted(pareto(methods))


@mutant("the largest comes first, as it does where the front is sorted by loss. Sort by size, the smallest first.")
def largest_first(methods):
    return pareto(methods)[::-1]


@mutant("the positions are counted from 1. Python counts from 0.")
def counted_from_one(methods):
    return [i + 1 for i in pareto(methods)]


@mutant("the methods themselves come back. Return their positions.")
def methods_for_positions(methods):
    return [methods[i] for i in pareto(methods)]


@mutant("True and False come back for each method. Return the positions of those that are left.")
def flags_for_positions(methods):
    return [i in pareto(methods) for i in range(len(methods))]


@mutant("the beaten ones come back. Return those that nobody beats.")
def the_beaten_ones(methods):
    left = pareto(methods)
    return sorted((i for i in range(len(methods)) if i not in left), key=lambda i: (*methods[i], i))


@mutant("a larger loss is taken for the better one. It is a loss, not an accuracy: the less the better.")
def larger_loss_is_better(methods):
    return pareto([(size, -loss) for size, loss in methods])


@mutant("each method is compared with the next smaller one alone. It may be beaten by a much smaller one.")
def neighbours_alone(methods):
    order = sorted(range(len(methods)), key=lambda i: (*methods[i], i))
    pairs = zip(order[:1] + order[:-1], order, strict=True)
    return [i for before, i in pairs if i == before or methods[i][1] < methods[before][1]]


@mutant(
    "only the corners of the lower hull are left: what lies above the line between two others is dropped. You cannot "
    "deploy half of one method and half of another: it is not beaten."
)
def hull(methods):
    front = []
    for i in pareto(methods):
        while len(front) > 1 and _turns_up(*(methods[one] for one in (front[-2], front[-1], i))):
            front.pop()
        front.append(i)
    return front


def _turns_up(a: Any, b: Any, c: Any) -> bool:
    """Whether b lies on the line from a to c or above it."""
    return bool((b[1] - a[1]) * (c[0] - a[0]) >= (c[1] - a[1]) * (b[0] - a[0]))


@mutant("only the smallest and the best are left. What lies between them is not beaten by either.")
def only_the_ends(methods):
    front = pareto(methods)
    return front[:1] + front[-1:] if len(front) > 1 else front


@mutant("size times loss decides, and one method is left. Without a price of a loss, the two cannot be weighed.")
def smallest_product(methods):
    return [min(range(len(methods)), key=lambda i: methods[i][0] * methods[i][1])]


@mutant("only the method with the lowest loss is left. A smaller one with a larger loss is not beaten by it.")
def lowest_loss_alone(methods):
    return pareto(methods)[-1:]


@mutant("the search starts with a best loss of 1, or of 0. Losses have no limit: start with math.inf.")
def losses_above_one_never_seen(methods):
    return [i for i in pareto(methods) if methods[i][1] < 1]


@mutant("losses below 0 are set to 0. A method that gains is better than one that only loses nothing.")
def gains_set_to_zero(methods):
    return pareto([(size, max(0.0, loss)) for size, loss in methods])


def by_pairs(methods):
    """Right, by comparing all pairs."""
    return _left(methods, _dominates)


def with_torch(methods):
    """Right, by a table of all pairs, in float64; the result is a tensor."""
    points = torch.tensor(methods, dtype=torch.float64).reshape(len(methods), 2)
    as_good = (points[None] <= points[:, None]).all(-1)  # [i, j]: j is at least as good as i
    equal = (points[None] == points[:, None]).all(-1)
    earlier = torch.ones(len(methods), len(methods)).tril(-1).bool()
    left = torch.nonzero(~(as_good & (~equal | earlier)).any(1)).flatten()
    return left[points[left, 0].argsort()]


QUESTION = Question(
    id="choosing.pareto",
    title="The methods that nothing beats",
    reference=pareto,
    cases=cases,
    properties=(a_list_of_positions, nobody_else_is_left, smallest_first),
    mutants=(
        equal_ones_kept,
        equal_ones_kept_in_the_order_given,
        last_of_equal_ones,
        equal_ones_beat_each_other,
        better_in_both,
        better_in_both_by_size_and_loss,
        better_in_both_in_the_order_given,
        equal_losses_kept,
        equal_sizes_kept,
        in_the_order_given,
        largest_first,
        counted_from_one,
        methods_for_positions,
        flags_for_positions,
        the_beaten_ones,
        larger_loss_is_better,
        neighbours_alone,
        hull,
        only_the_ends,
        smallest_product,
        lowest_loss_alone,
        losses_above_one_never_seen,
        gains_set_to_zero,
    ),
    alternatives=(by_pairs, with_torch),
    hints=(
        "Go through the methods from the smallest to the largest. What must a larger one have to be worth its size?",
        "Sort the positions by (size, loss, position). Keep a method where its loss is below that of every one before "
        "it: then it is no equal of an earlier one, either.",
        "order = sorted(range(len(methods)), key=lambda i: (*methods[i], i)); keep i where methods[i][1] < best, and "
        "then set best = methods[i][1]; best starts with math.inf.",
    ),
    explanation=(
        "By bits and KL, 6 of nano's 12 methods are left: INT2, INT3 by channel, GPTQ at 3 and at 4 bits, INT8 and 16 "
        "bits. By bits and accuracy on SQL AWQ's 4 bits end the list: nothing larger has fewer wrong answers in these "
        "500, which is chance, and not a gain. So a front is drawn with its errors: a point may stand on it for one "
        "example. And it is only as good as its loss. Nobody deploys a mean of six workloads."
    ),
)
