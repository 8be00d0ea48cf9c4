"""deployment.cheapest: the option that wins, and for every other the first check that it failed."""

from __future__ import annotations

import math
from functools import cache
from random import Random
from typing import Any

from ....deploy import instance, spec
from ....deploy.planning.replica import Assumptions, Replica
from ....deploy.planning.support import missing, served
from ....deploy.serving.workloads import workload
from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import GIB, HOURS_PER_MONTH, near_or_none, rows

WORDS = ("memory", "kernels", "latency", "price", "cost", "wins")


def cheapest(options, load, limit):
    """Choose the cheapest option that does the work, and say why each of the others lost.

    options: tuples (needs_gb, has_gib, kernels, alone, rate, usd_per_hour):
        needs_gb: what weights, cache and overhead need on a GPU, in GB (10**9 bytes),
        has_gib: what the server may use of a GPU, in GiB (2**30 bytes),
        kernels: True where the GPU has kernels for this precision,
        alone: seconds that a request takes which has the server to itself, of the same
            percentile as the limit,
        rate: requests per second that a machine bears within the limit, 0 where no load
            keeps it, or where nobody could try,
        usd_per_hour: of a machine, or None where no price is listed.
    load: requests per second. Machines are rented whole, for months of 730 hours.
    limit: seconds that a request may take.

    The checks, in this order; an option loses by the first one that it fails:
    "memory": it needs no more than there is. "kernels": there are some. "latency": alone is
    at most the limit, and rate is above 0. "price": one is listed. "cost": it costs less by
    the month than every other that got so far; among equally cheap ones, the one passes
    whose machines together bear the highest rate, and if that is equal, too, the first.

    Returns (verdicts, usd_per_month): a list with a word for every option, the check that
    it failed, or "wins"; and the cost of the winner, None where nobody wins.
    """
    verdicts, best = [], None
    for number, (needs_gb, has_gib, kernels, alone, rate, usd_per_hour) in enumerate(options):
        if needs_gb * 1e9 > has_gib * 2**30:
            verdicts.append("memory")
        elif not kernels:
            verdicts.append("kernels")
        elif alone > limit or rate == 0:
            verdicts.append("latency")
        elif usd_per_hour is None:
            verdicts.append("price")
        else:
            verdicts.append("cost")
            machines = math.ceil(load / rate)
            entry = machines * usd_per_hour * 730, -machines * rate, number
            best = entry if best is None else min(best, entry)
    if best is None:
        return verdicts, None
    verdicts[best[2]] = "wins"
    return verdicts, best[0]


CARD = (
    (
        (40, 37.2, True, 0.3, 0, 2),
        (80, 79, False, 0.3, 0, 6),
        (36, 40, True, 0.6, 0, 3),
        (36, 40, True, 0.45, 0, 4),
        (36, 79, True, 0.2, 9, None),
        (80, 79, True, 0.3, 4, 7),
        (72, 79, True, 0.5, 11, 20),
        (36, 40, True, 0.4, 2, 5),
    ),
    10,
    0.5,
)


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    return [
        Case("the example of the card", CARD),
        Case("recommendations for a page: 50 per second, half a second", (_real(0.5), 50, 0.5)),
        Case("ten per second, a whole second", (_real(1.0), 10, 1.0)),
        Case("a few options", (_drawn(random, 6), random.uniform(20, 60), 1.0)),
        Case("many options", (_drawn(random, 15), random.uniform(5, 20), 1.0)),
        Case("a load that one machine of each bears", (_drawn(random, 9), random.uniform(0.2, 0.4), 1.0)),
        Case("equally cheap: four small ones bear more than two large ones", _equal(random, 0)),
        Case("the same, with the small ones first", _equal(random, 0, small_first=True)),
        Case("equally cheap, and they bear the same: the first wins", _equal(random, 1)),
        Case("one takes exactly as long as it may", _exact(random)),
        Case("one needs exactly what there is", _fits_exactly(random)),
        Case("cheap by the hour, dear by the month", _slow(random)),
        Case("cheap by the request, dear for so few", _large(random)),
        Case("several faults each", (_faulty(random), random.uniform(5, 20), 1.0)),
        Case("nobody wins", (_hopeless(random), random.uniform(5, 20), 1.0)),
    ]  # fmt: skip


def _good(random: Random, **fixed: Any) -> tuple[Any, ...]:
    """An option that passes the first four checks; `fixed` are the parts that are not drawn."""
    has = random.uniform(20, 100)
    option = {
        "needs_gb": random.choice((random.uniform(0.5, 0.95) * has, random.uniform(1.01, 1.06) * has)),
        "has_gib": has,
        "kernels": True,
        "alone": random.uniform(0.2, 0.95),
        "rate": random.uniform(1, 15),
        "usd_per_hour": random.uniform(2, 60),
    }
    return tuple((option | fixed).values())


def _drawn(random: Random, count: int) -> tuple[Any, ...]:
    """Options of every kind in any order, two of them at least without a fault."""
    found = [_good(random), _good(random)]
    faults: list[dict[str, Any]] = [
        {"needs_gb": 130.0, "has_gib": 120.0 - random.uniform(0, 20)},
        {"kernels": False, "rate": 0},
        {"alone": random.uniform(1.1, 3), "rate": 0},
        {"rate": 0},
        {"usd_per_hour": None},
    ]
    while len(found) < count:
        fault = random.choice([*faults, {}])
        found.append(_good(random, **fault))
    random.shuffle(found)
    return tuple(found)


@cache
def _real(limit: float) -> tuple[Any, ...]:
    """Llama-3-70B for recommendations on machines of the data, as qlab plans it; rates are its estimates."""
    places = {
        ("p3.8xlarge", 4): "int4-g128",
        ("p4d.24xlarge", 4): "fp8",
        ("p4d.24xlarge", 8): "w8a8",
        ("g6.12xlarge", 4): "fp8",
        ("g6e.xlarge", 1): "int4-g128",
        ("g6e.8xlarge", 1): "fp8",
        ("g6e.48xlarge", 8): "fp8",
        ("p5.48xlarge", 2): "fp8",
        ("p5.48xlarge", 8): "int4-g128",
        ("p5.4xlarge", 1): "int4-g128",
        ("p6-b200.48xlarge", 1): "fp8",
        ("p5e.48xlarge", 2): "w8a8",
    }
    kind, found = workload("recommend"), []
    for (name, gpus), precision in places.items():
        where = instance(name)
        one = Replica(spec("Llama-3-70B"), served(precision), where.gpu, gpus, kind, kind.target(limit), Assumptions())
        has = int(where.gpu.visible_bytes * one.given.gpu_memory_utilization)
        needs = has - one.fit.budget + one.fit.breakdown.kv_cache
        runs = not one.obstacles
        alone, rate = (one.floor.answer, where.count // gpus * one.estimate) if runs else (9.0, 0)
        kernels = missing(one.scheme, where.gpu) is None
        found.append((needs / 1e9, has / GIB, kernels, alone, rate, where.price_usd_per_hour))
    return tuple(found)


def _equal(random: Random, same: int, small_first: bool = False) -> tuple[Any, ...]:
    """Two at the same cost by the month, on different numbers of machines; with `same` they bear the same, too."""
    usd, load = random.randrange(4, 12), 12 * random.randrange(2, 5)
    one = _good(random, rate=load / 2, usd_per_hour=2 * usd)
    two = _good(random, rate=load / 4 if same else load / 4 + 0.25, usd_per_hour=usd)
    dear = _good(random, rate=load, usd_per_hour=9 * usd)
    return ((dear, two, one) if small_first else (dear, one, two)), load, 1.0


def _exact(random: Random) -> tuple[Any, ...]:
    options = (
        _good(random, usd_per_hour=50.0, rate=9.0),
        _good(random, needs_gb=48.0, has_gib=50.0, alone=0.75, usd_per_hour=3.0, rate=9.0),
    )
    return options, random.uniform(5, 8), 0.75


def _fits_exactly(random: Random) -> tuple[Any, ...]:
    """One that fits to the byte, in sizes for which floats say so whichever side is converted."""
    factor = GIB / 1e9
    sizes = [g for g in range(16, 80) if g * factor == g * GIB / 1e9 and g * factor * 1e9 == g * GIB]
    gib = random.choice([g for g in sizes if g * factor / factor == g == g * factor * (1e9 / GIB)])
    needs = gib * factor
    tight = _good(random, needs_gb=needs, has_gib=gib, usd_per_hour=3.0, rate=9.0)
    return (_good(random, usd_per_hour=50.0, rate=9.0), tight), random.uniform(5, 8), 1.0


def _slow(random: Random) -> tuple[Any, ...]:
    """A machine that costs a third, of which four or more are needed for each of the other."""
    usd = random.uniform(9, 20)
    quick, slow = (
        _good(random, needs_gb=51.5, has_gib=50.0, rate=10.0, usd_per_hour=usd),
        _good(random, rate=1.3, usd_per_hour=usd / 3),
    )
    return (slow, quick), random.uniform(15, 19), 1.0


def _large(random: Random) -> tuple[Any, ...]:
    """A machine that is four times as dear and bears twelve times as much, at a load of one."""
    usd = random.uniform(3, 9)
    small, large = _good(random, rate=2.0, usd_per_hour=usd), _good(random, rate=24.0, usd_per_hour=4 * usd)
    return (large, small), random.uniform(1.2, 1.8), 1.0


def _faulty(random: Random) -> tuple[Any, ...]:
    faults = [
        {"needs_gb": 130.0, "has_gib": 100.0, "kernels": False, "alone": 3.0, "rate": 0, "usd_per_hour": None},
        {"kernels": False, "alone": 2.0, "rate": 0, "usd_per_hour": None},
        {"alone": 1.5, "rate": 0, "usd_per_hour": None},
        {"rate": 0, "usd_per_hour": None},
        {"needs_gb": 130.0, "has_gib": 100.0, "alone": 3.0, "rate": 0},
        {"kernels": False, "usd_per_hour": None},
        {"needs_gb": 130.0, "has_gib": 100.0, "usd_per_hour": None},
        {"needs_gb": 130.0, "has_gib": 100.0, "kernels": False},
    ]
    found = [_good(random, **fault) for fault in faults] + [_good(random), _good(random)]  # type: ignore[arg-type]
    random.shuffle(found)
    return tuple(found)


def _hopeless(random: Random) -> tuple[Any, ...]:
    return tuple(one for one in _faulty(random) if one[5] is None)


def a_word_for_each(case: Case, got: Any, expected: Any) -> Finding | None:
    if finding := p.parts(got, "verdicts", "usd_per_month"):
        return finding
    verdicts = got[0]
    if not isinstance(verdicts, tuple) or len(verdicts) != len(expected[0]):
        return Finding(f"verdicts: return a list of {len(expected[0])} words, one for each option")
    for number, word in enumerate(verdicts):
        if word not in WORDS:
            return Finding(f"verdicts: option {number} has {word!r}; choose from {', '.join(WORDS)}")
    return None


def the_first_check_that_failed(case: Case, got: Any, expected: Any) -> Finding | None:
    for number, (word, right) in enumerate(zip(got[0], expected[0], strict=True)):
        if word != right:
            return Finding(f"the verdict on option {number} is wrong", expected=repr(right), got=repr(word))
    return None


def the_cost_of_the_winner(case: Case, got: Any, expected: Any) -> Finding | None:
    return near_or_none(rows(got)[1], "the cost of the winner", expected[1], "nobody wins")


_CHECKS = {
    "memory": lambda option, limit: option[0] * 1e9 <= option[1] * GIB,
    "kernels": lambda option, limit: option[2],
    "latency": lambda option, limit: option[3] <= limit and option[4] > 0,
    "price": lambda option, limit: option[5] is not None,
}


def _machines(load, rate):
    return math.ceil(load / rate)


def _judged(
    options, load, limit,
    *, checks=None, order=None, machines=_machines, rank=None, usd=None, hours=HOURS_PER_MONTH, wins=None,
):  # fmt: skip
    """The right answer, but for the parts that are given.

    checks: in place of those of the same name. order: of their names. rank(cost, count, option, number): the least
    wins. usd: of an option. wins(option, best): who else is said to win.
    """
    checks = _CHECKS | (checks or {})
    usd = usd or (lambda option: option[5])
    rank = rank or (lambda cost, count, option, number: (cost, -count * option[4], number))
    verdicts, ranks = [], {}
    for number, option in enumerate(options):
        failed = next((name for name in order or _CHECKS if not checks[name](option, limit)), None)
        verdicts.append(failed or "cost")
        if failed is None:
            count = machines(load, option[4])
            cost = count * usd(option) * hours
            ranks[number] = rank(cost, count, option, number), cost
    if not ranks:
        return verdicts, None
    best = min(ranks, key=lambda number: ranks[number][0])
    verdicts[best] = "wins"
    for number in ranks if wins else ():
        if wins(ranks[number][0], ranks[best][0]):
            verdicts[number] = "wins"
    return verdicts, ranks[best][1]


@mutant("GB and GiB are compared as if they were the same. A GiB is 2**30 bytes, 7 % more than a GB.")
def gib_as_gb(options, load, limit):
    return _judged(options, load, limit, checks={"memory": lambda option, limit: option[0] <= option[1]})


@mutant("GiB are turned into GB the wrong way: a GiB is 1.0737 GB, not 0.9313.")
def gib_the_wrong_way(options, load, limit):
    return _judged(options, load, limit, checks={"memory": lambda option, limit: option[0] <= option[1] * 1e9 / GIB})


@mutant("who needs exactly what there is has lost here. It fits: needs no more than there is.")
def not_to_the_byte(options, load, limit):
    return _judged(
        options,
        load,
        limit,
        checks={"memory": lambda option, limit: option[0] * 1e9 < option[1] * GIB},
    )


@mutant("memory is not checked.")
def memory_forgotten(options, load, limit):
    return _judged(options, load, limit, order=("kernels", "latency", "price"))


@mutant("kernels are not checked. What no kernel computes is no option, however small and cheap it is.")
def kernels_forgotten(options, load, limit):
    return _judged(options, load, limit, order=("memory", "latency", "price"), machines=_or_one)


@mutant("latency is not checked. Who is too late alone is too late at every load.")
def latency_forgotten(options, load, limit):
    return _judged(options, load, limit, order=("memory", "kernels", "price"), machines=_or_one)


def _or_one(load, rate):
    return math.ceil(load / rate) if rate else 1


@mutant(
    "only `alone` is looked at. A rate of 0 says that no load keeps the limit: that is latency, and is divided by here."
)
def alone_is_enough(options, load, limit):
    return _judged(options, load, limit, checks={"latency": lambda option, limit: option[3] <= limit})


@mutant("an option without a price is free here, and wins. A missing price is no price: it loses by that.")
def missing_price_is_free(options, load, limit):
    return _judged(options, load, limit, order=("memory", "kernels", "latency"), usd=lambda option: option[5] or 0)


@mutant(
    "a price that is not listed is taken as infinite: that option has failed the check of the price, and not of the "
    "cost, and nobody wins by default."
)
def missing_price_is_infinite(options, load, limit):
    order = ("memory", "kernels", "latency")
    return _judged(options, load, limit, order=order, usd=lambda option: math.inf if option[5] is None else option[5])


@mutant("price is checked before the others. An option loses by the first check of the order that it fails.")
def price_first(options, load, limit):
    return _judged(options, load, limit, order=("price", "memory", "kernels", "latency"))


@mutant("latency is checked before memory and kernels. A time says nothing of what cannot run.")
def latency_first(options, load, limit):
    return _judged(options, load, limit, order=("latency", "memory", "kernels", "price"))


@mutant("kernels are checked before memory.")
def kernels_first(options, load, limit):
    return _judged(options, load, limit, order=("kernels", "memory", "latency", "price"))


@mutant("price is checked before latency.")
def price_before_latency(options, load, limit):
    return _judged(options, load, limit, order=("memory", "kernels", "price", "latency"))


@mutant("the last check that an option fails is named. It is the first that counts.")
def last_check_that_failed(options, load, limit):
    return _judged(options, load, limit, order=("price", "latency", "kernels", "memory"))


@mutant("who takes exactly as long as the limit has lost here. At most the limit is in time.")
def not_at_the_limit(options, load, limit):
    return _judged(options, load, limit, checks={"latency": lambda option, limit: option[3] < limit and option[4] > 0})


@mutant("machines are not rounded up: the price of a request decides. A part of a machine cannot be rented.")
def parts_of_machines(options, load, limit):
    return _judged(options, load, limit, machines=lambda load, rate: load / rate)


@mutant("machines are rounded down. They do not bear the load then: round up.")
def rounded_down(options, load, limit):
    return _judged(options, load, limit, machines=lambda load, rate: max(1, int(load / rate)))


@mutant("int(load / rate) + 1 is one machine too many where the load fills them. Use math.ceil.")
def always_one_more(options, load, limit):
    return _judged(options, load, limit, machines=lambda load, rate: int(load / rate) + 1)


@mutant("the price of one machine decides. Count how many the load needs.")
def cheapest_machine(options, load, limit):
    return _judged(options, load, limit, rank=lambda cost, count, option, number: (option[5], -option[4], number))


@mutant("one machine is paid for, whatever the load.")
def one_machine(options, load, limit):
    return _judged(options, load, limit, machines=lambda load, rate: 1)


@mutant(
    "the price of a request decides, usd_per_hour / rate, and whole machines are paid. They decide, too: the last "
    "machine may be almost empty."
)
def price_of_a_request_decides(options, load, limit):
    return _judged(options, load, limit, rank=lambda cost, count, option, number: (option[5] / option[4], number))


@mutant("the fastest wins. Among those that keep the limit, it is the cheapest.")
def fastest(options, load, limit):
    return _judged(options, load, limit, rank=lambda cost, count, option, number: (option[3], number))


@mutant("the one that bears the most wins. Among those that keep the limit, it is the cheapest.")
def highest_rate(options, load, limit):
    return _judged(options, load, limit, rank=lambda cost, count, option, number: (-option[4], number))


@mutant("the one that needs the least memory wins. Among those that keep the limit, it is the cheapest.")
def smallest(options, load, limit):
    return _judged(options, load, limit, rank=lambda cost, count, option, number: (option[0], number))


@mutant("the dearest wins: look for the smallest cost.")
def dearest(options, load, limit):
    return _judged(options, load, limit, rank=lambda cost, count, option, number: (-cost, number))


@mutant("among equally cheap ones the first wins. The one wins whose machines together bear the highest rate.")
def first_of_equals(options, load, limit):
    return _judged(options, load, limit, rank=lambda cost, count, option, number: (cost, number))


@mutant("among equals in cost and rate the last wins. It is the first: < and not <=.")
def last_of_equals(options, load, limit):
    return _judged(options, load, limit, rank=lambda cost, count, option, number: (cost, -count * option[4], -number))


@mutant(
    "among equally cheap ones the rates of single machines are compared. It is the rate of all machines together: "
    "two small ones may bear more than a large one."
)
def rate_of_one_machine(options, load, limit):
    return _judged(options, load, limit, rank=lambda cost, count, option, number: (cost, -option[4], number))


@mutant('nobody "wins": the cheapest has the verdict "cost" as well. Set its word when all are judged.')
def wins_is_never_said(options, load, limit):
    verdicts, usd = cheapest(options, load, limit)
    return ["cost" if word == "wins" else word for word in verdicts], usd


@mutant("all equally cheap ones win. One wins.")
def several_winners(options, load, limit):
    return _judged(options, load, limit, wins=lambda rank, best: rank[0] == best[0])


@mutant("the cost is that of an hour. Multiply by 730.")
def cost_of_an_hour(options, load, limit):
    return _judged(options, load, limit, hours=1)


@mutant("a month has 720 hours here, 30 days. Clouds count 730, the twelfth of a year.")
def hours_of_thirty_days(options, load, limit):
    return _judged(options, load, limit, hours=720)


@mutant("where nobody wins, the cost is 0. That would be a bargain: return None.")
def nothing_to_pay(options, load, limit):
    verdicts, usd = cheapest(options, load, limit)
    return verdicts, usd or 0.0


@mutant("where nobody wins, the function ends in an error: min of nothing. Ask whether anybody is left first.")
def an_error_where_nobody_wins(options, load, limit):
    verdicts, usd = cheapest(options, load, limit)
    return verdicts, usd if usd is not None else min([])


@mutant("the machines of an option are counted before its checks, and its rate may be 0. Check first, then divide.")
def divided_by_zero(options, load, limit):
    machines = [math.ceil(load / one[4]) for one in options]
    return cheapest(options, load, limit) if machines else ([], None)


@mutant("only the number of the winner comes back. Return (verdicts, usd_per_month).")
def number_of_the_winner(options, load, limit):
    verdicts, _ = cheapest(options, load, limit)
    return verdicts.index("wins") if "wins" in verdicts else None


def by_sorting(options, load, limit):
    """Right, with a list of who is left, sorted at the end."""

    def failed(needs_gb, has_gib, kernels, alone, rate, usd):
        faults = [
            needs_gb * 10**9 / 2**30 > has_gib + 1e-9,
            kernels is False,
            alone - limit > 0 or not rate,
            usd is None,
        ]
        return [word for fault, word in zip(faults, WORDS, strict=False) if fault]

    verdicts = [(failed(*one) or ["cost"])[0] for one in options]
    left = [number for number, word in enumerate(verdicts) if word == "cost"]

    def month(number):
        return -(-load // options[number][4]) * options[number][5] * 730

    left.sort(key=lambda number: -(load / options[number][4] // -1) * -options[number][4])
    left.sort(key=month)
    if left:
        verdicts[left[0]] = "wins"
    return tuple(verdicts), month(left[0]) if left else None


def one_check_after_the_other(options, load, limit):
    """Right, striking out options check by check."""
    verdicts = ["wins"] * len(options)

    def strike(word, fails):
        for i in range(len(options)):
            if verdicts[i] == "wins" and fails(*options[i]):
                verdicts[i] = word

    strike("memory", lambda needs, has, kernels, alone, rate, usd: needs * 1e9 > has * 1024**3)
    strike("kernels", lambda needs, has, kernels, alone, rate, usd: not kernels)
    strike("latency", lambda needs, has, kernels, alone, rate, usd: alone > limit or rate <= 0)
    strike("price", lambda needs, has, kernels, alone, rate, usd: usd is None)
    cost = {i: math.ceil(load / options[i][4]) * options[i][5] for i, word in enumerate(verdicts) if word == "wins"}
    if not cost:
        return verdicts, None
    cheap = [i for i in cost if math.isclose(cost[i], min(cost.values()), rel_tol=1e-12)]
    together = {i: math.ceil(load / options[i][4]) * options[i][4] for i in cheap}
    winner = max(cheap, key=lambda i: together[i])
    return ["cost" if word == "wins" and i != winner else word for i, word in enumerate(verdicts)], 730 * cost[winner]


QUESTION = Question(
    id="deployment.cheapest",
    title="Who wins, and why the others lost",
    reference=cheapest,
    cases=cases,
    properties=(a_word_for_each, the_first_check_that_failed, the_cost_of_the_winner),
    mutants=(
        gib_as_gb,
        gib_the_wrong_way,
        not_to_the_byte,
        memory_forgotten,
        kernels_forgotten,
        latency_forgotten,
        alone_is_enough,
        missing_price_is_free,
        missing_price_is_infinite,
        price_first,
        latency_first,
        kernels_first,
        price_before_latency,
        last_check_that_failed,
        not_at_the_limit,
        parts_of_machines,
        rounded_down,
        always_one_more,
        cheapest_machine,
        one_machine,
        price_of_a_request_decides,
        fastest,
        highest_rate,
        smallest,
        dearest,
        first_of_equals,
        last_of_equals,
        rate_of_one_machine,
        wins_is_never_said,
        several_winners,
        cost_of_an_hour,
        hours_of_thirty_days,
        nothing_to_pay,
        an_error_where_nobody_wins,
        divided_by_zero,
        number_of_the_winner,
    ),
    alternatives=(by_sorting, one_check_after_the_other),
    hints=(
        "Write the four checks as one chain of if and elif, in their order. What is left at the end of the chain goes "
        "into a second list, with what you compare it by.",
        "Whoever is left costs math.ceil(load / rate) * usd_per_hour * 730, and bears math.ceil(load / rate) * rate. "
        "Compare tuples: (cost, -what they bear, number), and the smallest wins.",
        "min((cost, -machines * rate, number) for those that are left) gives the winner's number last; all others that "
        'are left have the verdict "cost". With nobody left, return the verdicts and None.',
    ),
    explanation=(
        "The order of the checks is the order in which reasons are worth something: a price says nothing of what does "
        "not fit, and a time nothing of what no kernel computes. Keep the losers with their reasons. The question "
        'after "what do you recommend" is always "why not the other", and the third is "what would change it": a '
        "loser by cost changes with the load, a loser by latency with the limit, a loser by memory with the next GPU."
    ),
)
