"""choosing.keep_layers: which layers keep more bits, where bytes are short."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction
from random import Random
from typing import Any

from ....deploy import parse_precision, spec
from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import listed, positions


def keep_layers(layers, budget):
    """Choose the layers that are worth more bits, as long as the bytes last.

    layers: tuples (small_bytes, large_bytes, small_kl, large_kl): what a layer takes with
        few bits and with many, and the KL of the model if this layer alone is quantized
        with few and with many.
    budget: bytes for all layers together; enough for all of them with few bits.

    All layers start with few bits. The KL that many bits save, for each byte that they add,
    says who comes first; of equal ones, the first in the model. A layer that does not fit
    into the budget any more is passed over, and the next one is tried. A layer where many
    bits save nothing keeps few.

    Returns (kept, total): the positions, from 0, of the layers with many bits, in the order
    in which they were chosen, and the bytes of all layers together.
    """

    def saved_for_each_byte(i):
        small_bytes, large_bytes, small_kl, large_kl = layers[i]
        return (small_kl - large_kl) / (large_bytes - small_bytes)

    kept, total = [], sum(layer[0] for layer in layers)
    for i in sorted(range(len(layers)), key=saved_for_each_byte, reverse=True):
        more = layers[i][1] - layers[i][0]
        if saved_for_each_byte(i) > 0 and total + more <= budget:
            kept.append(i)
            total += more
    return kept, total


# The worst layer is large: it comes third and does not fit, the one behind it does.
CARD = ((40, 80, 0.025, 0.005), (120, 240, 0.050, 0.002), (20, 40, 0.016, 0.002), (60, 120, 0.020, 0.002))


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    drawn = _drawn(random, 7)
    total = keep_layers(drawn, _share(drawn, 0.55))[1]
    tied = _tied(random)
    return [
        Case("the example of the card", (CARD, 370)),
        Case("seven layers, half of the bytes", (drawn, _share(drawn, 0.5))),
        Case("the budget is reached exactly", (drawn, total)),
        Case("one byte is missing", (drawn, total - 1)),
        Case("no layer fits", (drawn, _share(drawn, 0.0))),
        Case("every layer fits", (drawn, _share(drawn, 1.0) + 5)),
        Case("one layer that fits", (_drawn(random, 1), 10**6)),
        Case("equal layers", (tied, _share(tied, 0.5))),
        Case("as much saved for each byte, in layers of other sizes", _proportional(random)),
        Case("layers to which many bits do nothing, or harm", _with_noise(random)),
        Case("many bits with a KL of their own", _with_residue(random)),
        Case("a small layer takes the room of a large one", _in_the_way(random)),
        Case("the first and the last layer matter least", _folklore(random)),
        Case("one layer of Llama-3-8B between INT4 and INT8", _llama(random, 1, 0.5)),
        Case("two layers of Llama-3-8B, little room", _llama(random, 2, 0.2)),
        Case("twelve layers", ((twelve := _drawn(random, 12)), _share(twelve, 0.6))),
    ]


def _share(layers: tuple[tuple[Any, ...], ...], part: float) -> int:
    """A budget: all with few bits, and this part of what many bits add."""
    small, large = (sum(layer[i] for layer in layers) for i in (0, 1))
    return int(small + part * (large - small))


def _drawn(random: Random, count: int) -> tuple[tuple[Any, ...], ...]:
    """Layers of many sizes; what a large one saves is not in proportion to its size."""
    layers = []
    for _ in range(count):
        small = random.randrange(1000, 9000)
        damage = random.uniform(0.01, 0.1)
        layers.append((small, small + random.randrange(900, 9000), damage, damage * random.uniform(0.01, 0.1)))
    return tuple(layers)


def _tied(random: Random) -> tuple[tuple[Any, ...], ...]:
    """Blocks that are all alike, of a sensitive layer and a dull one."""
    small, damage = 16 * random.randrange(100, 300), random.randrange(3, 9) / 64
    return ((2 * small, 4 * small, damage / 4, 0.0), (small, 2 * small, damage, 0.0)) * 4


def _proportional(random: Random) -> tuple[Any, ...]:
    """KL in proportion to the bytes, exactly; budgets that a large layer, taken first, would change."""
    unit = 2 ** random.randrange(8, 12)
    layers = tuple((size * unit, 2 * size * unit, size / 64, 0.0) for size in (2, 8, 1, 4))
    return layers, (15 + random.choice((7, 11))) * unit


def _with_noise(random: Random) -> tuple[Any, ...]:
    """Measured KLs have noise: some layers are as good with few bits, or better."""
    layers = list(_drawn(random, 6))
    for i in random.sample(range(6), 2):
        small, large, damage, _ = layers[i]
        layers[i] = (small, large, damage, damage * random.uniform(1.01, 1.2))
    small, large, damage, _ = layers[0]
    return (*layers, (small, large, damage, damage)), 10**6


def _with_residue(random: Random) -> tuple[Any, ...]:
    """Some layers stay damaged with many bits: what counts is the difference."""
    layers = []
    for _ in range(6):
        small, damage = random.randrange(3000, 5000), random.uniform(0.02, 0.1)
        layers.append((small, small + random.randrange(2000, 5000), damage, damage * random.choice((0.05, 0.5, 0.9))))
    return tuple(layers), _share(tuple(layers), 0.45)


def _in_the_way(random: Random) -> tuple[Any, ...]:
    """A small layer saves a little more for each byte than a large one, and both together do not fit."""
    small, large = random.randrange(300, 400), random.randrange(4000, 5000)
    layers = ((large, 2 * large, large * 1e-5, 0.0), (small, 2 * small, small * 1.2e-5, 0.0), (90, 180, 1e-5, 0.0))
    return layers, _share(layers, 0.0) + large + small // 2


def _folklore(random: Random) -> tuple[Any, ...]:
    """Layers in the middle of the model are the sensitive ones."""
    layers = []
    for place in range(6):
        small = random.randrange(3000, 5000)
        damage = random.uniform(0.05, 0.09) if place in (2, 3) else random.uniform(0.005, 0.02)
        layers.append((small, 2 * small, damage, damage / 50))
    return tuple(layers), _share(tuple(layers), 0.4)


def _llama(random: Random, blocks: int, part: float) -> tuple[Any, ...]:
    """The matrices of a published model, their bytes in two precisions; the KLs are drawn."""
    few, many = parse_precision("int4-g128"), parse_precision("int8-channel")
    layers = []
    for matrix in tuple(spec("Llama-3-8B").matrices()) * blocks:
        damage = random.uniform(0.5, 8) * 1e-3
        sizes = (int(one.matrix_bytes(matrix.rows, matrix.columns)) for one in (few, many))
        layers.append((*sizes, damage, damage * random.uniform(0.001, 0.02)))
    return tuple(layers), _share(tuple(layers), part)


def the_layers_in_their_order(case: Case, got: Any, expected: Any) -> Finding | None:
    if finding := p.parts(got, "kept", "total"):
        return finding
    kept = positions(got[0])
    if kept is None:
        return Finding("kept: return a list of positions, an empty one where no layer is chosen")
    if None not in kept and kept == list(expected[0]):
        return None
    same = None not in kept and sorted(kept) == sorted(expected[0])
    return Finding(
        "the layers are right, not the order in which they are chosen" if same else "other layers are to be kept",
        expected=_words(expected[0]),
        got=_words(listed(got[0])),
    )


def the_bytes_of_all_layers(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.whole_number_is(got[1], "total", expected[1], "bytes")


def _words(places: tuple[Any, ...]) -> str:
    return ", ".join(map(str, places)) or "none"


def _chosen(layers, budget, *, worth=None, fits=None, passes=True, useful=None, places=None, total=None):
    """The right answer, but for the parts that are given."""
    worth = worth or (lambda small, large, few, many: (few - many) / (large - small))
    useful = useful or (lambda small, large, few, many: few > many)
    fits = fits or (lambda total, more: total + more <= budget)
    places = places or (lambda i: i)
    kept, total = [], sum(layer[0] for layer in layers) if total is None else total
    for i in sorted(range(len(layers)), key=lambda i: (-worth(*layers[i]), places(i))):
        more = layers[i][1] - layers[i][0]
        if not useful(*layers[i]):
            continue
        if fits(total, more):
            kept.append(i)
            total += more
        elif not passes:
            break
    return kept, total


@mutant("the layers come by the KL that they save. A large layer costs more bytes: divide by the bytes that are added.")
def by_kl_alone(layers, budget):
    return _chosen(layers, budget, worth=lambda small, large, few, many: few - many)


@mutant("the layers come by their KL with few bits alone, as a scan lists them. What counts is saved KL for each byte.")
def by_damage_alone(layers, budget):
    return _chosen(layers, budget, worth=lambda small, large, few, many: few)


@mutant("the KL with few bits is taken for what is saved. Subtract the KL that stays with many bits.")
def what_stays_is_forgotten(layers, budget):
    return _chosen(layers, budget, worth=lambda small, large, few, many: few / (large - small))


@mutant("the saved KL is divided by all bytes of the layer. Divide by those that many bits add.")
def by_large_bytes(layers, budget):
    return _chosen(layers, budget, worth=lambda small, large, few, many: (few - many) / large)


@mutant("the saved KL is divided by the bytes with few bits. Divide by those that many bits add.")
def by_small_bytes(layers, budget):
    return _chosen(layers, budget, worth=lambda small, large, few, many: (few - many) / small)


@mutant("the least worthwhile layer comes first. Sort from the most saved for each byte down.")
def least_first(layers, budget):
    return _chosen(layers, budget, worth=lambda small, large, few, many: (many - few) / (large - small))


@mutant("the smallest layers come first. A small one may save nothing: divide the saved KL by the bytes.")
def smallest_first(layers, budget):
    return _chosen(layers, budget, worth=lambda small, large, few, many: small - large)


@mutant("the quotient of the two KLs decides. What counts is their difference, for each byte.")
def by_quotient(layers, budget):
    return _chosen(layers, budget, worth=lambda small, large, few, many: few / many if many else math.inf)


@mutant("the layers are taken as they come in the model. Sort them by what they save for each byte.")
def as_they_come(layers, budget):
    return _chosen(layers, budget, worth=lambda small, large, few, many: 0)


@mutant("the first and the last layers come first, as folklore has it. The numbers say which ones matter.")
def ends_first(layers, budget):
    return _chosen(
        layers,
        budget,
        worth=lambda small, large, few, many: 0,
        places=lambda i: (min(i, len(layers) - 1 - i), i),
    )


@mutant("the choice ends at the first layer that does not fit. Pass it over: a smaller one may still fit.")
def ends_at_the_first_that_does_not_fit(layers, budget):
    return _chosen(layers, budget, passes=False)


@mutant("the layer with which the budget is overrun is taken as well. Look whether it fits before it is taken.")
def overruns(layers, budget):
    return _chosen(layers, budget, fits=lambda total, more: total < budget, passes=False)


@mutant("a layer that fills the budget exactly is left out. It fits: compare with <= and not with <.")
def exact_fit_refused(layers, budget):
    return _chosen(layers, budget, fits=lambda total, more: total + more < budget)


@mutant("the layers with few bits are not counted against the budget. It is for all layers together.")
def few_bits_are_free(layers, budget):
    kept, more = _chosen(layers, budget, total=0)
    return kept, more + sum(layer[0] for layer in layers)


@mutant(
    "only layers with many bits are paid for, with all their bytes, and all the others are free. Start with the bytes "
    "of all layers with few bits; a layer then adds the difference."
)
def few_bits_never_paid(layers, budget):
    kept, total = [], 0
    for i in _chosen(layers, math.inf)[0]:
        if total + layers[i][1] <= budget:
            kept.append(i)
            total += layers[i][1]
    return kept, total


@mutant(
    "the choice ends when the budget is overrun already, and what saves nothing is not left out. Look whether a layer "
    "fits, and whether it saves anything, before it is taken."
)
def stops_one_too_late(layers, budget):
    return _chosen(
        layers,
        budget,
        fits=lambda total, more: total <= budget,
        passes=False,
        useful=lambda small, large, few, many: True,
    )


@mutant("a layer is charged with all its bytes, though those with few bits are counted already. Many bits add a part.")
def charged_twice(layers, budget):
    kept, total = [], sum(layer[0] for layer in layers)
    for i in _chosen(layers, math.inf)[0]:
        if total + layers[i][1] <= budget:
            kept.append(i)
            total += layers[i][1]
    return kept, total


@mutant(
    "a layer is taken where all its bytes with many bits still fit, though it adds the difference alone: those with "
    "few bits are counted already. Ask for total + (large_bytes - small_bytes) <= budget."
)
def room_for_all_its_bytes(layers, budget):
    kept, total = [], sum(layer[0] for layer in layers)
    for i in _chosen(layers, math.inf)[0]:
        if total + layers[i][1] <= budget:
            kept.append(i)
            total += layers[i][1] - layers[i][0]
    return kept, total


@mutant(
    "of equally worthwhile layers one alone is left, as in a dict from the worth to the layer: the next one overwrites "
    "it. Sort the positions."
)
def one_of_equal_ones(layers, budget):
    order = _chosen(layers, math.inf)[0]
    worth = {i: (layers[i][2] - layers[i][3]) / (layers[i][1] - layers[i][0]) for i in order}
    left = sorted({value: i for i, value in sorted(worth.items())}.values(), key=order.index)
    kept, total = [], sum(layer[0] for layer in layers)
    for i in left:
        if total + layers[i][1] - layers[i][0] <= budget:
            kept.append(i)
            total += layers[i][1] - layers[i][0]
    return kept, total


@mutant("of equally worthwhile layers the last comes first. Take the first in the model.")
def last_of_equal_ones(layers, budget):
    return _chosen(layers, budget, places=lambda i: -i)


@mutant("of equally worthwhile layers the largest comes first. Take the first in the model.")
def largest_of_equal_ones(layers, budget):
    return _chosen(layers, budget, places=lambda i: (-layers[i][1], i))


@mutant("of equally worthwhile layers the smallest comes first. Take the first in the model.")
def smallest_of_equal_ones(layers, budget):
    return _chosen(layers, budget, places=lambda i: (layers[i][1], i))


@mutant("layers to which many bits do nothing, or harm, get them because there is room. They keep few.")
def room_is_filled(layers, budget):
    return _chosen(layers, budget, useful=lambda small, large, few, many: True)


@mutant("a layer to which many bits do nothing gets them. It keeps few: compare with > 0 and not with >= 0.")
def nothing_saved_is_enough(layers, budget):
    return _chosen(layers, budget, useful=lambda small, large, few, many: few >= many)


@mutant("the positions are sorted. Return them in the order in which the layers were chosen.")
def sorted_positions(layers, budget):
    kept, total = keep_layers(layers, budget)
    return sorted(kept), total


@mutant("the positions are counted from 1. Python counts from 0.")
def counted_from_one(layers, budget):
    kept, total = keep_layers(layers, budget)
    return [i + 1 for i in kept], total


@mutant("the layers with few bits come back. Return those with many.")
def the_others(layers, budget):
    kept, total = keep_layers(layers, budget)
    return [i for i in range(len(layers)) if i not in kept], total


@mutant("total is what many bits add. Return the bytes of all layers together.")
def only_what_is_added(layers, budget):
    kept, total = keep_layers(layers, budget)
    return kept, total - sum(layer[0] for layer in layers)


@mutant("total is what is left of the budget. Return the bytes of all layers together.")
def what_is_left(layers, budget):
    kept, total = keep_layers(layers, budget)
    return kept, budget - total


@mutant("total is the budget. Return the bytes that the layers really take.")
def the_budget_itself(layers, budget):
    return keep_layers(layers, budget)[0], budget


@mutant("total counts the layers with many bits alone. Those with few take bytes, too.")
def kept_layers_alone(layers, budget):
    kept, _ = keep_layers(layers, budget)
    return kept, sum(layers[i][1] for i in kept)


@mutant(
    "this is the best of all choices together, a knapsack. It may save more; asked for is the simple rule, layer by "
    "layer."
)
def best_of_all_choices(layers, budget):
    small = sum(layer[0] for layer in layers)
    best = (-1.0, [])
    if len(layers) > 8:
        return keep_layers(layers, budget)
    for count in range(len(layers) + 1):
        for chosen in itertools.combinations(range(len(layers)), count):
            saved = sum(layers[i][2] - layers[i][3] for i in chosen)
            if small + sum(layers[i][1] - layers[i][0] for i in chosen) <= budget and saved > best[0]:
                best = (saved, chosen)
    order = keep_layers(layers, math.inf)[0]
    kept = sorted(best[1], key=order.index)
    return kept, small + sum(layers[i][1] - layers[i][0] for i in kept)


def one_after_the_other(layers, budget):
    """Right: in every turn the best of those that still fit, with exact fractions; the result is a list."""
    left, kept = dict(enumerate(layers)), []
    total = sum(layer[0] for layer in layers)
    while True:
        fitting = {
            i: Fraction(few - many) / (large - small)
            for i, (small, large, few, many) in left.items()
            if few > many and total + large - small <= budget
        }
        if not fitting:
            return [kept, total]
        best = max(fitting, key=lambda i: (fitting[i], -i))
        kept.append(best)
        total += left[best][1] - left[best][0]
        del left[best]


def by_bytes_for_each_nat(layers, budget):
    """Right, by the bytes that one nat costs, the cheapest first; the total is added up at the end."""
    priced = [
        ((large - small) / (few - many), i) for i, (small, large, few, many) in enumerate(layers) if few - many > 0
    ]
    room = budget - sum(small for small, *_ in layers)
    kept = []
    for _, i in sorted(priced):
        if layers[i][1] - layers[i][0] <= room:
            room -= layers[i][1] - layers[i][0]
            kept.append(i)
    return tuple(kept), sum(layer[i in kept] for i, layer in enumerate(layers))


QUESTION = Question(
    id="choosing.keep_layers",
    title="The layers that keep more bits",
    reference=keep_layers,
    cases=cases,
    properties=(the_layers_in_their_order, the_bytes_of_all_layers),
    mutants=(
        by_kl_alone,
        by_damage_alone,
        what_stays_is_forgotten,
        by_large_bytes,
        by_small_bytes,
        least_first,
        smallest_first,
        by_quotient,
        as_they_come,
        ends_first,
        ends_at_the_first_that_does_not_fit,
        overruns,
        stops_one_too_late,
        exact_fit_refused,
        few_bits_are_free,
        few_bits_never_paid,
        charged_twice,
        room_for_all_its_bytes,
        one_of_equal_ones,
        last_of_equal_ones,
        largest_of_equal_ones,
        smallest_of_equal_ones,
        room_is_filled,
        nothing_saved_is_enough,
        sorted_positions,
        counted_from_one,
        the_others,
        only_what_is_added,
        what_is_left,
        the_budget_itself,
        kept_layers_alone,
        best_of_all_choices,
    ),
    alternatives=(one_after_the_other, by_bytes_for_each_nat),
    hints=(
        "Every layer has a price, in bytes, and something that you get for it. Which layer is the best buy? And what "
        "have you spent before you buy anything?",
        "Sort the positions by (small_kl - large_kl) / (large_bytes - small_bytes), the largest first; sorted keeps "
        "equal ones in their order, with reverse=True as well. Start with all small_bytes spent. Take a layer where "
        "it saves something and total + what it adds is at most the budget; do not stop at one that does not fit.",
        "for i in sorted(range(len(layers)), key=saved_for_each_byte, reverse=True): more = layers[i][1] - "
        "layers[i][0]; if saved_for_each_byte(i) > 0 and total + more <= budget: kept.append(i); total += more.",
    ),
    explanation=(
        "The rule spends bytes where a byte saves most. It is not always the best choice: a small layer may take the "
        "room of a large one that would have saved more. To try all choices takes 2 to the power of the layers, and "
        "the KLs that are added were measured one layer at a time, as if layers did not interact: that error is "
        "usually larger. So take the rule, quantize, and measure the KL of the whole model. The library does the "
        "same, in qlab.models.sensitivity, with the KL of 0 for a layer that keeps its bits."
    ),
)
