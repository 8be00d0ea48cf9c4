"""roofline.believable: measurements against the ceilings of the device, and which of them cannot be."""

from __future__ import annotations

import math
from random import Random
from typing import Any

from ....deploy.roofline import product
from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .devices import layer, limits, near, numbers


def believable(measurements, bandwidth, rate, slack):
    """Compare measured times with the ceilings of a device, and find those that cannot be.

    measurements: tuples (bytes, operations, seconds), each of one call of a kernel.
    bandwidth: bytes per second, the best that was measured with a copy.
    rate: operations per second, the best that was measured with a large product.
    slack: how far above a ceiling a measurement may come, as a share of it: ceilings are
        measured, too.

    The bytes take a time at the bandwidth, the operations one at the rate. The longer of
    the two is the least that a call takes; its fraction is that time divided by seconds.

    Returns (fractions, impossible): a list with the fraction of every measurement, and a
    list of the positions, from 0, of those whose fraction is larger than 1 + slack.
    """
    fractions = []
    for moved, operations, seconds in measurements:
        fractions.append(max(moved / bandwidth, operations / rate) / seconds)
    impossible = [i for i, fraction in enumerate(fractions) if fraction > 1 + slack]
    return fractions, impossible


# Four calls on a device with 2 TB/s and 300 TFLOPS: memory, a cache, arithmetic, and a ceiling that was a little low.
CARD = (
    (4_000_000_000, 300_000_000_000, 0.004),
    (8_000_000, 64_000_000, 0.0000025),
    (1_000_000_000, 6_000_000_000_000, 0.025),
    (2_000_000_000, 2_000_000_000, 0.00099),
)


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    a100, l4 = limits("A100-80GB"), limits("L4")
    return [
        Case("the example of the card", (CARD, 2e12, 3e14, 0.02)),
        Case("a layer of Llama-3-8B on an A100, one token, 16 bits", (_layer(random, 1, 16, a100), *a100, 0.02)),
        Case("a layer of Llama-3-8B on an A100, 4.125 bits", (_layer(random, 16, 4.125, a100), *a100, 0.02)),
        Case("a layer of Llama-3-8B on an L4, 4,096 tokens", (_layer(random, 4096, 16, l4), *l4, 0.03)),
        Case("exactly at the slack", (((2**40, 2**42, 0.8), (2**38, 2**44, 0.8)), 2.0**40, 2.0**44, 0.25)),
        Case("a kernel that uses a quarter of the ceiling, and no slack", (*_drawn(random, (0.25, 0.21)), 0)),
        Case("only one measurement, and it cannot be", (*_drawn(random, (1.7,)), 0.05)),
        Case("all can be", (*_drawn(random, (0.4, 0.995, 0.7, 0.05)), 0.01)),
        Case("none can be", (*_drawn(random, (1.2, 2.5, 31)), 0.1)),
        Case("some above the ceilings, but within the slack", (*_drawn(random, (1.04, 0.95, 1.2, 1.08, 0.6)), 0.1)),
        Case("a wide slack", (*_drawn(random, (1.4, 1.6, 0.3, 1.2, 2.1)), 0.5)),
        Case("some a little beyond the slack", (*_drawn(random, (1.22, 0.7, 1.6, 1.24, 1.18)), 0.2)),
    ]


def _layer(random: Random, tokens: int, bits: float, of: tuple[float, float]) -> tuple[Any, ...]:
    """The matrices of a layer, each with a time that is some fraction of what the data sheet allows."""
    bandwidth, rate = of
    done = [product(tokens, *shape, bits) for shape in layer("Llama-3-8B")]
    fractions = [_blurred(random, fraction) for fraction in (0.7, 0.4, 1.3, 0.9, 0.55, 1.01, 0.8)]
    random.shuffle(fractions)
    return tuple(
        (one.bytes, one.operations, max(one.bytes / bandwidth, one.operations / rate) / fraction)
        for one, fraction in zip(done, fractions, strict=True)
    )


def _drawn(random: Random, fractions: tuple[float, ...]) -> tuple[Any, ...]:
    """Measurements with these fractions in any order, in turn of memory and of arithmetic, and their ceilings."""
    bandwidth, ridge = 1e9 * random.randrange(300, 4000), random.uniform(50, 300)
    found = []
    for number, fraction in enumerate(random.sample(fractions, len(fractions))):
        seconds = random.uniform(0.5, 5) * 10.0 ** random.randrange(-6, -2)
        longer = seconds * _blurred(random, fraction) * bandwidth
        shorter = random.uniform(0.3, 0.9) * longer
        moved, done = (longer, shorter) if number % 2 == 0 else (shorter, longer)
        found.append((moved, ridge * done, seconds))
    return tuple(found), bandwidth, ridge * bandwidth


def _blurred(random: Random, fraction: float) -> float:
    """With more digits than anybody rounds to."""
    return fraction * random.uniform(0.9995, 1.0005)


def one_fraction_for_each(case: Case, got: Any, expected: Any) -> Finding | None:
    if finding := p.parts(got, "fractions", "impossible"):
        return finding
    fractions = numbers(got[0])
    if not isinstance(fractions, tuple) or len(fractions) != len(expected[0]):
        return Finding(f"fractions: return a list of {len(expected[0])}, one for each measurement")
    for place, (one, right) in enumerate(zip(fractions, expected[0], strict=True)):
        if finding := near(one, f"the fraction of measurement {place}", right):
            return finding
    return None


def the_impossible_ones(case: Case, got: Any, expected: Any) -> Finding | None:
    places = numbers(got[1])
    if not isinstance(places, tuple):
        return Finding("impossible: return a list of positions, an empty one where all can be")
    # None stands for what is no number, such as True, although True equals 1.
    found = [p.as_number(place) for place in places]
    if None not in found and sorted(found) == list(expected[1]):
        return None
    return Finding(
        "the positions of the impossible measurements are wrong",
        expected=_listed(expected[1]),
        got=_listed(places),
    )


def _listed(places: tuple[Any, ...]) -> str:
    return ", ".join(map(str, places)) or "none"


def _judged(measurements, bandwidth, rate, slack, *, least=max, impossible=None):
    """The right answer, but for the time that is the least, and for what is impossible."""
    fractions = [least(moved / bandwidth, done / rate) / seconds for moved, done, seconds in measurements]
    wrong = impossible or (lambda fraction: fraction > 1 + slack)
    return fractions, [place for place, fraction in enumerate(fractions) if wrong(fraction)]


@mutant(
    "the shorter of the two times is taken, which is the farther ceiling. A call waits for the longer one: that is the "
    "nearer ceiling."
)
def the_farther_ceiling(measurements, bandwidth, rate, slack):
    return _judged(measurements, bandwidth, rate, slack, least=min)


@mutant("the two times are added. Memory and arithmetic work at the same time: the longer one counts.")
def times_added(measurements, bandwidth, rate, slack):
    return _judged(measurements, bandwidth, rate, slack, least=lambda memory, compute: memory + compute)


@mutant("only the bytes are looked at. A product of many tokens has its ceiling in arithmetic.")
def memory_alone(measurements, bandwidth, rate, slack):
    return _judged(measurements, bandwidth, rate, slack, least=lambda memory, compute: memory)


@mutant("only the operations are looked at. A product of few tokens has its ceiling in memory.")
def compute_alone(measurements, bandwidth, rate, slack):
    return _judged(measurements, bandwidth, rate, slack, least=lambda memory, compute: compute)


@mutant(
    "the fraction is upside down: it is the least time divided by the measured one, so a slow kernel has a small one."
)
def upside_down(measurements, bandwidth, rate, slack):
    times = [seconds / max(moved / bandwidth, done / rate) for moved, done, seconds in measurements]
    return times, [place for place, time in enumerate(times) if time > 1 + slack]


@mutant("the fractions are upside down, measured time over least time; the positions are right all the same.")
def only_the_fractions_upside_down(measurements, bandwidth, rate, slack):
    fractions, places = believable(measurements, bandwidth, rate, slack)
    return [1 / fraction for fraction in fractions], places


@mutant("the fractions are in per cent. Return them as they are: 0.5 and not 50.")
def in_per_cent(measurements, bandwidth, rate, slack):
    fractions, places = believable(measurements, bandwidth, rate, slack)
    return [100 * fraction for fraction in fractions], places


@mutant("fractions above 1 are cut to 1. They are the finding: return them as they are.")
def cut_at_one(measurements, bandwidth, rate, slack):
    fractions, places = believable(measurements, bandwidth, rate, slack)
    return [min(1.0, fraction) for fraction in fractions], places


@mutant("the slack is not used. The ceilings are measured as well, and a little above them is no wonder.")
def slack_forgotten(measurements, bandwidth, rate, slack):
    return _judged(measurements, bandwidth, rate, slack, impossible=lambda fraction: fraction > 1)


@mutant("the slack is taken off: what lies a little below the ceiling is called impossible. It is 1 + slack.")
def slack_taken_off(measurements, bandwidth, rate, slack):
    return _judged(measurements, bandwidth, rate, slack, impossible=lambda fraction: fraction > 1 - slack)


@mutant(
    "what lies a little beyond 1 + slack is let through. Is the limit 1 / (1 - slack), or the slack a share of the "
    "measured rate? It is a share of the ceiling: fraction > 1 + slack."
)
def slack_of_the_measurement(measurements, bandwidth, rate, slack):
    return _judged(measurements, bandwidth, rate, slack, impossible=lambda fraction: fraction * (1 - slack) > 1)


@mutant("a fraction of exactly 1 + slack is called impossible. It may come so far: compare with > and not with >=.")
def the_slack_itself_is_impossible(measurements, bandwidth, rate, slack):
    return _judged(measurements, bandwidth, rate, slack, impossible=lambda fraction: fraction >= 1 + slack)


@mutant("the ceilings are raised by the slack before the fractions are computed. It only decides what is impossible.")
def ceilings_raised(measurements, bandwidth, rate, slack):
    return _judged(measurements, bandwidth * (1 + slack), rate * (1 + slack), 0)


@mutant(
    "the slow ones are called impossible. A kernel can be as slow as it likes; it cannot be faster than its ceiling."
)
def slow_is_impossible(measurements, bandwidth, rate, slack):
    return _judged(measurements, bandwidth, rate, slack, impossible=lambda fraction: fraction < 1)


@mutant("the positions are those of the measurements that can be. Return those that cannot.")
def those_that_can_be(measurements, bandwidth, rate, slack):
    return _judged(measurements, bandwidth, rate, slack, impossible=lambda fraction: fraction <= 1 + slack)


@mutant("the positions are counted from 1. Python counts from 0.")
def counted_from_one(measurements, bandwidth, rate, slack):
    fractions, places = believable(measurements, bandwidth, rate, slack)
    return fractions, [place + 1 for place in places]


@mutant("True and False come back for each measurement. Return the positions of those that cannot be.")
def flags_for_positions(measurements, bandwidth, rate, slack):
    fractions, _ = believable(measurements, bandwidth, rate, slack)
    return fractions, [fraction > 1 + slack for fraction in fractions]


@mutant("the impossible fractions themselves come back. Return their positions.")
def fractions_for_positions(measurements, bandwidth, rate, slack):
    fractions, places = believable(measurements, bandwidth, rate, slack)
    return fractions, [fractions[place] for place in places]


@mutant("the fractions are rounded. Return them with all their digits.")
def rounded(measurements, bandwidth, rate, slack):
    fractions, places = believable(measurements, bandwidth, rate, slack)
    return [round(fraction, 4) for fraction in fractions], places


@mutant("only the first impossible measurement is listed. There may be several.")
def only_the_first(measurements, bandwidth, rate, slack):
    fractions, places = believable(measurements, bandwidth, rate, slack)
    return fractions, places[:1]


@mutant("the impossible measurements are left out of the fractions. Return one for each measurement.")
def impossible_ones_dropped(measurements, bandwidth, rate, slack):
    fractions, places = believable(measurements, bandwidth, rate, slack)
    return [fraction for place, fraction in enumerate(fractions) if place not in places], places


@mutant("only the fractions come back. Return (fractions, impossible).")
def fractions_alone(measurements, bandwidth, rate, slack):
    return believable(measurements, bandwidth, rate, slack)[0]


@mutant("one fraction for all measurements together comes back. Each call has its own.")
def one_fraction_for_all(measurements, bandwidth, rate, slack):
    fractions, places = believable(measurements, bandwidth, rate, slack)
    return math.fsum(fractions) / len(fractions), places


@mutant("the operations are doubled. They count multiplications and additions already.")
def operations_doubled(measurements, bandwidth, rate, slack):
    return believable([(moved, 2 * done, seconds) for moved, done, seconds in measurements], bandwidth, rate, slack)


def by_rates(measurements, bandwidth, rate, slack):
    """Right, by the bytes and operations per second that were reached, against the ceilings; the result is a tuple."""
    fractions, impossible = [], []
    for place in range(len(measurements)):
        moved, operations, seconds = measurements[place]
        fractions.append(max(moved / seconds / bandwidth, operations / seconds / rate))
        if fractions[-1] - 1 > slack:
            impossible += [place]
    return tuple(fractions), tuple(impossible)


def by_the_fastest_times(measurements, bandwidth, rate, slack):
    """Right, by the roof over the intensity of each call; positions come from the last to the first."""
    roofs = [min(rate, bandwidth * done / moved) for moved, done, _ in measurements]
    fractions = [done / (roof * seconds) for (_, done, seconds), roof in zip(measurements, roofs, strict=True)]
    return fractions, [i for i in reversed(range(len(fractions))) if fractions[i] > 1 + slack]


QUESTION = Question(
    id="roofline.believable",
    title="Numbers that cannot be",
    reference=believable,
    cases=cases,
    properties=(one_fraction_for_each, the_impossible_ones),
    mutants=(
        the_farther_ceiling,
        times_added,
        memory_alone,
        compute_alone,
        upside_down,
        only_the_fractions_upside_down,
        in_per_cent,
        cut_at_one,
        slack_forgotten,
        slack_taken_off,
        slack_of_the_measurement,
        the_slack_itself_is_impossible,
        ceilings_raised,
        slow_is_impossible,
        those_that_can_be,
        counted_from_one,
        flags_for_positions,
        fractions_for_positions,
        rounded,
        only_the_first,
        impossible_ones_dropped,
        fractions_alone,
        one_fraction_for_all,
        operations_doubled,
    ),
    alternatives=(by_rates, by_the_fastest_times),
    hints=(
        "What is the least time that a call can take? You have computed it in question 2.",
        "max(bytes / bandwidth, operations / rate), divided by the measured seconds, is the fraction. Above 1 the call "
        "was faster than its ceiling.",
        "fractions = [max(moved / bandwidth, operations / rate) / seconds for ...]; impossible = [i for i, fraction in "
        "enumerate(fractions) if fraction > 1 + slack]; return fractions, impossible.",
    ),
    explanation=(
        "A fraction above 1 says that the bytes were not moved, or that the time was not measured: a weight that "
        "stayed in the cache between two calls, a clock that stopped before the GPU did, bytes that were counted but "
        "never read. A 4096 x 4096 weight in 4.125 bits has 8.7 MB; an A100 has a cache of 40 MB and holds it there, "
        "call after call. Rotate over copies that together are larger than the cache."
    ),
)
