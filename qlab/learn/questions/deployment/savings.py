"""deployment.savings: what fewer bits save in truth, beside the saving in bits that is quoted."""

from __future__ import annotations

import math
from random import Random
from typing import Any

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import near, near_or_none, price, rows

NEVER = "the option meets the target at no load"


def savings(options, load):
    """Say what options save against the first: as it is quoted, at this load, in the long run.

    options: tuples (bits, usd_per_hour, rate): of a weight, with its scales; the price of a
        machine; requests per second that one machine bears within the latency target, or 0
        if it meets the target at no load. The first option is the one to compare with, in
        16 bits, and its rate is above 0.
    load: requests per second. Machines are rented whole.

    A saving is the part of the first option's cost that is not spent: 0.25 where a quarter
    is saved, and below 0 where the option costs more.

    Returns a list with a tuple (quoted, now, later) for every option but the first:
    quoted: the saving of bits alone, as if a machine were paid by the bits of its weights.
    now: the saving of dollars at this load.
    later: what `now` comes near to as the load grows, when a part of a machine does not
        matter any more. now and later are None where the rate is 0.
    """
    bits_of_16, usd_of_16, rate_of_16 = options[0]
    found = []
    for bits, usd, rate in options[1:]:
        quoted, now, later = 1 - bits / bits_of_16, None, None
        if rate > 0:
            now = 1 - math.ceil(load / rate) * usd / (math.ceil(load / rate_of_16) * usd_of_16)
            later = 1 - usd / rate / (usd_of_16 / rate_of_16)
        found.append((quoted, now, later))
    return found


CARD = (((16, 8, 4), (8, 8, 7), (4.125, 2, 0.9), (4.125, 5, 0)), 20)


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    h100, b200, l40s, l4, one_h100, wide = (
        price(f"{name}xlarge") for name in ("p5.48", "p6-b200.48", "g6e.", "g6.12", "p5.4", "g6e.12")
    )
    page = ((16, h100, 7.581), (8, h100, 15.39), (4.125, h100, 6.849), (4.125, b200, 18.61), (4.125, one_h100, 0))
    mail = ((16, wide, 1.803), (8, l4, 1.007), (4.125, l40s, 0.3481), (4.125, l40s, 0.7676))
    return [
        Case("the example of the card", CARD),
        Case("recommendations for a page", (page, 50)),
        Case("the same at five times the load", (page, 250)),
        Case("recommendations by mail", (mail, 0.5)),
        Case("mail at a load that just needs a second machine", (mail, 1.3)),
        Case("as fast and as dear: nothing is saved, whatever the bits", _same(random)),
        Case("one machine of each is enough", (_drawn(random, 3), random.uniform(0.1, 0.3))),
        Case("a few machines", (_drawn(random, 3), random.uniform(15, 40))),
        Case("many machines", (_drawn(random, 4), random.uniform(800, 2000))),
        Case("slower, and only a little cheaper", (_dearer(random), random.uniform(20, 90))),
        Case("loads that fill their machines", _full(random)),
        Case("most options meet the target at no load", (_late(random), random.uniform(5, 30))),
    ]


def _drawn(random: Random, count: int) -> tuple[Any, ...]:
    bits = random.sample((8, 8.002, 8.125, 6.25, 4.125, 4.25, 3.25), count)
    small = [(one, random.uniform(2, 30), random.uniform(1, 8)) for one in bits]
    return (16, random.uniform(10, 40), random.uniform(1, 6)), *small


def _same(random: Random) -> tuple[Any, ...]:
    usd, rate = random.randrange(2, 30), random.randrange(2, 9)
    return ((16, usd, rate), (8, usd, rate), (4.25, usd, rate)), random.uniform(20, 90)


def _dearer(random: Random) -> tuple[Any, ...]:
    usd, rate = random.uniform(10, 40), random.uniform(3, 6)
    slow = [(bits, usd * random.uniform(0.7, 0.9), rate * random.uniform(0.3, 0.6)) for bits in (4.125, 3.125)]
    return (16, usd, rate), *slow


def _full(random: Random) -> tuple[Any, ...]:
    """Loads that are whole numbers of machines, in numbers that floats divide evenly."""
    load = 4 * random.randrange(5, 20)
    return ((16, random.uniform(5, 20), 2), (8, random.uniform(5, 20), 4), (4.125, random.uniform(2, 20), 0.5)), load


def _late(random: Random) -> tuple[Any, ...]:
    first, second, *_ = _drawn(random, 2)
    return first, (8, random.uniform(2, 20), 0), second, (4.25, random.uniform(2, 20), 0)


def one_triple_for_each(case: Case, got: Any, expected: Any) -> Finding | None:
    found = rows(got)
    if not isinstance(found, tuple) or len(found) != len(expected):
        return Finding(f"return a list of {len(expected)} tuples, one for every option but the first")
    for number, one in enumerate(found, start=1):
        if finding := p.parts(one, "quoted", "now", "later"):
            return Finding(f"option {number}: {finding.what}")
    return None


def quoted_by_the_bits(case: Case, got: Any, expected: Any) -> Finding | None:
    for number, (one, right) in enumerate(zip(rows(got), expected, strict=True), start=1):
        if finding := near(one[0], f"what is quoted for option {number}", right[0]):
            return finding
    return None


def saved_at_this_load(case: Case, got: Any, expected: Any) -> Finding | None:
    return _saving(1, "saves at this load", got, expected)


def saved_in_the_long_run(case: Case, got: Any, expected: Any) -> Finding | None:
    return _saving(2, "saves in the long run", got, expected)


def _saving(place: int, what: str, got: Any, expected: Any) -> Finding | None:
    """A saving near 0 is the difference of two costs: its error is measured against a whole cost, 1."""
    for number, (one, right) in enumerate(zip(rows(got), expected, strict=True), start=1):
        value = p.as_number(one[place])
        if value is not None and right[place] is not None and abs(value - right[place]) <= 1e-6:
            continue
        if finding := near_or_none(one[place], f"what option {number} {what}", right[place], NEVER):
            return finding
    return None


def _saved(options, load, *, machines=None, long=None, saving=None, quoted=None, first=0, never=None):
    """The right answer, but for the parts that are given.

    machines(load, rate); long(usd, rate): what is compared in the long run; saving(cost, cost of the first);
    quoted(bits, bits of the first); first: the option to compare with; never: in place of None.
    """
    machines = machines or (lambda load, rate: math.ceil(load / rate))
    long = long or (lambda usd, rate: usd / rate)
    saving = saving or (lambda cost, of_first: 1 - cost / of_first)
    quoted = quoted or (lambda bits, of_first: 1 - bits / of_first)
    bits_of_16, usd_of_16, rate_of_16 = options[first]
    whole, most = machines(load, rate_of_16) * usd_of_16, long(usd_of_16, rate_of_16)
    found = []
    for bits, usd, rate in options[1:]:
        now = saving(machines(load, rate) * usd, whole) if rate else never
        later = saving(long(usd, rate), most) if rate else never
        found.append((quoted(bits, bits_of_16), now, later))
    return found


@mutant("what is quoted comes back three times. Memory is not what is rented: compare dollars.")
def quoted_for_all(options, load):
    return [(quoted, *(None if one is None else quoted for one in rest)) for quoted, *rest in savings(options, load)]


@mutant("now is not counted in whole machines: this is the saving in the long run, twice. Round machines up.")
def parts_of_machines(options, load):
    return _saved(options, load, machines=lambda load, rate: load / rate)


@mutant("machines are rounded down. They have to bear the load: round up.")
def rounded_down(options, load):
    return _saved(options, load, machines=lambda load, rate: max(1, int(load / rate)))


@mutant("machines are rounded to the nearest number. They have to bear the load: round up.")
def rounded_to_nearest(options, load):
    return _saved(options, load, machines=lambda load, rate: max(1, round(load / rate)))


@mutant(
    "later is counted in whole machines at some very large load. That comes near, and is off by the last machine: "
    "without rounding the load cancels, and usd / rate is left."
)
def a_large_load_for_later(options, load):
    large = _saved(options, 1e6 * load)
    return [(quoted, now, later) for (quoted, now, _), (_, later, _) in zip(savings(options, load), large, strict=True)]


@mutant("int(load / rate) + 1 is one machine too many where the load fills them. Use math.ceil.")
def always_one_more(options, load):
    return _saved(options, load, machines=lambda load, rate: int(load / rate) + 1)


@mutant("only the numbers of machines are compared, now and later. They have different prices.")
def prices_forgotten(options, load):
    return savings([(bits, 1, rate) for bits, _, rate in options], load)


@mutant("only the prices of the machines are compared. They bear different loads.")
def rates_forgotten(options, load):
    return _saved(options, load, machines=lambda load, rate: 1, long=lambda usd, rate: usd)


@mutant("one machine of each is compared now. Count how many the load needs.")
def one_machine_now(options, load):
    return _saved(options, load, machines=lambda load, rate: 1)


@mutant("in the long run only the prices are compared. What counts then is the price of a request, usd / rate.")
def prices_in_the_long_run(options, load):
    return _saved(options, load, long=lambda usd, rate: usd)


@mutant("in the long run only the rates are compared. What counts then is the price of a request, usd / rate.")
def rates_in_the_long_run(options, load):
    return _saved(options, load, long=lambda usd, rate: 1 / rate)


@mutant("usd and rate are multiplied in the long run. The price of a request is usd / rate.")
def multiplied_in_the_long_run(options, load):
    return _saved(options, load, long=lambda usd, rate: usd * rate)


@mutant("later is counted in whole machines at this load, as now is. In the long run parts of machines do not matter.")
def now_twice(options, load):
    return [(quoted, now, now) for quoted, now, _ in savings(options, load)]


@mutant("these are the parts that are spent. The saving is 1 minus that.")
def what_is_spent(options, load):
    return [tuple(one if one is None else 1 - one for one in triple) for triple in savings(options, load)]


@mutant("quoted is the quotient of the bits, which is what is left of them. The saving is 1 minus that.")
def quotient_of_the_bits(options, load):
    return _saved(options, load, quoted=lambda bits, of_first: bits / of_first)


@mutant(
    "these are what the first costs in addition, as a share of the option. A saving is a share of the first's cost."
)
def share_of_the_option(options, load):
    return _saved(
        options,
        load,
        saving=lambda cost, of_first: of_first / cost - 1,
        quoted=lambda bits, of_first: of_first / bits - 1,
    )


@mutant(
    "quoted is right; now and later are what the first costs in addition, as a share of the option. All three are "
    "shares of the first's cost."
)
def dollars_as_a_share_of_the_option(options, load):
    return _saved(options, load, saving=lambda cost, of_first: of_first / cost - 1)


@mutant("the sign is lost or turned: a saving is positive where the option is cheaper.")
def sign_turned(options, load):
    return [tuple(one if one is None else -one for one in triple) for triple in savings(options, load)]


@mutant("a saving below 0 is cut off. That an option costs more is the most useful thing to know about it.")
def cut_at_zero(options, load):
    return _saved(options, load, saving=lambda cost, of_first: max(0.0, 1 - cost / of_first))


@mutant("these are percentages. Return shares: 0.25 for a quarter.")
def in_per_cent(options, load):
    return [tuple(one if one is None else 100 * one for one in triple) for triple in savings(options, load)]


@mutant("now and later are percentages. Return shares, as for quoted: 0.25 for a quarter.")
def dollars_in_per_cent(options, load):
    return _saved(options, load, saving=lambda cost, of_first: 100 * (1 - cost / of_first))


@mutant("the first option is in the list. Return a tuple for every option but the first.")
def first_in_the_list(options, load):
    return savings([options[0], *options], load)


@mutant("each option is compared with the one before it. Compare with the first.")
def with_the_one_before(options, load):
    found, before = [], options[0]
    for one in options[1:]:
        found += savings([before, one], load)
        before = one if one[2] else before
    return found


@mutant("the bits are compared with 32. The first option has 16.")
def bits_of_thirty_two(options, load):
    return _saved(options, load, quoted=lambda bits, of_first: 1 - bits / 32)


@mutant("the bits are cut to whole numbers, and the scales with them: 4.125 are not 4.")
def whole_bits(options, load):
    return _saved(options, load, quoted=lambda bits, of_first: 1 - int(bits) / of_first)


@mutant("an option that meets the target at no load is said to save nothing. Say None: it cannot be used at all.")
def nothing_saved_by_what_is_too_late(options, load):
    return _saved(options, load, never=0.0)


@mutant("an option that meets the target at no load is said to save everything. Say None: it cannot be used at all.")
def everything_saved_by_what_is_too_late(options, load):
    return _saved(options, load, never=1.0)


@mutant("where the rate is 0, quoted is None as well. It asks for no rate: what is quoted is quoted all the same.")
def nothing_quoted_for_what_is_too_late(options, load):
    return [(None, None, None) if one[1] is None else one for one in savings(options, load)]


@mutant("options that meet the target at no load are left out. They have a tuple, too, with None for now and later.")
def late_ones_left_out(options, load):
    return [one for one in savings(options, load) if one[1] is not None]


@mutant("a rate of 0 is divided by: ask whether it is 0 first.")
def divided_by_zero(options, load):
    return [
        one if options[n][2] else (one[0], load / options[n][2], 0) for n, one in enumerate(savings(options, load), 1)
    ]


@mutant("now and later have changed places.")
def exchanged(options, load):
    return [(quoted, later, now) for quoted, now, later in savings(options, load)]


def by_bills(options, load):
    """Right, with a bill for the load, and one for a load that is enormous and fills its machines."""

    def bill(option, load):
        _, usd, rate = option
        return None if rate == 0 else -(-load // rate) * usd

    def saved(option, load):
        return (
            None
            if bill(option, load) is None
            else (bill(options[0], load) - bill(option, load)) / bill(options[0], load)
        )

    return [[(options[0][0] - one[0]) / options[0][0], saved(one, load), saved(one, load * 1e9)] for one in options[1:]]


def by_prices_of_requests(options, load):
    """Right, with the price of a request of every option."""
    each = [usd / rate if rate else None for _, usd, rate in options]
    machines = [math.ceil(load / rate) if rate else 0 for _, _, rate in options]
    hourly = [n * one[1] for n, one in zip(machines, options, strict=True)]
    return tuple(
        (
            (16 - one[0]) / 16,
            (hourly[0] - hourly[n]) / hourly[0] if machines[n] else None,
            (each[0] - each[n]) / each[0] if machines[n] else None,
        )
        for n, one in enumerate(options)
        if n
    )


QUESTION = Question(
    id="deployment.savings",
    title="What fewer bits save",
    reference=savings,
    cases=cases,
    properties=(one_triple_for_each, quoted_by_the_bits, saved_at_this_load, saved_in_the_long_run),
    mutants=(
        quoted_for_all,
        parts_of_machines,
        rounded_down,
        rounded_to_nearest,
        a_large_load_for_later,
        always_one_more,
        prices_forgotten,
        rates_forgotten,
        one_machine_now,
        prices_in_the_long_run,
        rates_in_the_long_run,
        multiplied_in_the_long_run,
        now_twice,
        what_is_spent,
        quotient_of_the_bits,
        share_of_the_option,
        dollars_as_a_share_of_the_option,
        sign_turned,
        cut_at_zero,
        in_per_cent,
        dollars_in_per_cent,
        first_in_the_list,
        with_the_one_before,
        bits_of_thirty_two,
        whole_bits,
        nothing_saved_by_what_is_too_late,
        everything_saved_by_what_is_too_late,
        nothing_quoted_for_what_is_too_late,
        late_ones_left_out,
        divided_by_zero,
        exchanged,
    ),
    alternatives=(by_bills, by_prices_of_requests),
    hints=(
        "Three costs of the same option: bits, dollars for this load, dollars for one request when machines are full. "
        "Each is compared with that of the first option in the same way.",
        "Now: math.ceil(load / rate) machines at usd each. Later: the rounding does not matter any more, and the load "
        "cancels: what is left is usd / rate.",
        "quoted = 1 - bits / first_bits; now = 1 - machines * usd / (first_machines * first_usd); later = 1 - (usd / "
        "rate) / (first_usd / first_rate); None for the last two where rate is 0.",
    ),
    explanation=(
        "The quoted saving is right for one bill only: that of memory, and nobody is rented memory. Machines come "
        "whole, so at one machine each the saving is that of their prices: 4 bits let you take a smaller machine, or "
        "they save nothing. With many machines it is the price of a request, and there it depends on the rate: where "
        "prefill is most of the work, weights of 4 bits in a 16-bit product save nothing, and weights and inputs of 8 "
        "bits do."
    ),
)
