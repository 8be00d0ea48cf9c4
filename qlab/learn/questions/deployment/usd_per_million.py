"""deployment.usd_per_million: machines for a load, their bill, and what a million tokens of answers costs by it."""

from __future__ import annotations

import math
from random import Random
from typing import Any

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import HOURS_PER_MONTH, near, price, rows


def usd_per_million(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    """Say how many machines a load needs, what they cost, and what a million tokens costs.

    usd_per_hour: of one machine, whether it works or waits.
    copies: of the model on one machine.
    rate: requests per second that one copy bears within the latency target.
    spare: machines to rent on top of those that the load needs, for when one fails.
    peak: requests per second in the busiest hour. The machines are enough for it.
    utilization: the mean load over all hours as a share of peak, above 0 and at most 1.
    prompt, output: mean tokens of a request and of its answer.

    Machines are rented whole, all of them for every hour; a month has 730 hours. The cost
    is divided by the tokens of answers at the mean load: prompts are in the price.

    Returns (machines, usd_per_month, usd_per_million): with the spare machines in all
    three, and USD per 10**6 tokens of answers.
    """
    machines = math.ceil(peak / (copies * rate)) + spare
    tokens_per_hour = peak * utilization * output * 3600
    usd = machines * usd_per_hour
    return machines, usd * 730, usd / tokens_per_hour * 1e6


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    h100, l40s, a100 = price("p5.48xlarge"), price("g6e.xlarge"), price("p4d.24xlarge")
    return [
        Case("the example of the card", (10, 2, 3, 1, 20, 0.4, 1000, 10)),
        Case("recommendations on p5.48xlarge, two copies", (h100, 2, 7.695, 1, 50, 0.35, 1024, 8)),
        Case("recommendations by mail on g6e.xlarge", (l40s, 1, 0.7676, 0, 0.5, 0.8, 1024, 8)),
        Case("chat on p4d.24xlarge, two copies", (a100, 2, 2.9, 2, random.uniform(20, 60), 0.3, 512, 231)),
        Case("the load fills the machines to the last request", (6.88, 4, 2.5, 0, _tens(random), 0.5, 600, 40)),
        Case("a small load, one machine that mostly waits", _drawn(random, 0.08, spare=2)),
        Case("almost one machine more", _drawn(random, random.randrange(2, 9) + 0.9)),
        Case("just one machine more", _drawn(random, random.randrange(2, 9) + 0.1)),
        Case("busy all day", _drawn(random, 5.5, utilization=1)),
        Case("one copy, three spare machines", _drawn(random, 6.6, spare=3, copies=1)),
        Case("answers of one token", _drawn(random, 3.4, output=1)),
    ]


def _tens(random: Random) -> int:
    return 10 * random.randrange(3, 9)


def _drawn(random: Random, needed: float, **fixed: float) -> tuple[Any, ...]:
    """A load that needs that many machines, if machines had parts; `fixed` are arguments that are not drawn."""
    drawn = {
        "usd_per_hour": random.uniform(1, 60),
        "copies": random.choice((2, 4, 8)),
        "rate": random.uniform(0.4, 6),
        "spare": random.randrange(1, 3),
        "peak": 0.0,
        "utilization": random.uniform(0.2, 0.7),
        "prompt": random.randrange(200, 3000),
        "output": random.randrange(10, 400),
    } | fixed
    drawn["peak"] = needed * drawn["copies"] * drawn["rate"]
    return tuple(drawn.values())


def three_numbers(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.parts(rows(got), "machines", "usd_per_month", "usd_per_million")


def whole_machines(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.whole_number_is(rows(got)[0], "the number of machines", expected[0], "machines")


def the_bill(case: Case, got: Any, expected: Any) -> Finding | None:
    return near(rows(got)[1], "the cost of a month", expected[1], "USD")


def the_price_of_tokens(case: Case, got: Any, expected: Any) -> Finding | None:
    return near(rows(got)[2], "the cost of a million tokens", expected[2], "USD")


def _bill(
    usd_per_hour, copies, rate, spare, peak, utilization, prompt, output,
    *, machines=None, hours=HOURS_PER_MONTH, tokens=None, usd=None,
):  # fmt: skip
    """The right answer, but for the parts that are given; `tokens` are those of an hour, `usd` is for them."""
    count = math.ceil(peak / (copies * rate)) + spare if machines is None else machines
    tokens = 3600 * peak * utilization * output if tokens is None else tokens
    usd = count * usd_per_hour if usd is None else usd
    return count, count * usd_per_hour * hours, usd / tokens * 1e6


@mutant("the number of machines is not rounded up. A part of a machine cannot be rented.")
def parts_of_machines(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    return _bill(
        usd_per_hour, copies, rate, spare, peak, utilization, prompt, output, machines=peak / (copies * rate) + spare
    )


@mutant("the number of machines is rounded down: they do not bear the peak. Round up.")
def rounded_down(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    machines = int(peak / (copies * rate)) + spare or 1
    return _bill(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output, machines=machines)


@mutant("the number of machines is rounded to the nearest. It has to bear the peak: round up.")
def rounded_to_nearest(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    machines = max(1, round(peak / (copies * rate))) + spare
    return _bill(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output, machines=machines)


@mutant("int(…) + 1 is one machine too many where the load fills the machines. Use math.ceil.")
def always_one_more(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    machines = int(peak / (copies * rate)) + 1 + spare
    return _bill(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output, machines=machines)


@mutant("the copies are not counted. A machine bears copies * rate.")
def copies_forgotten(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    return usd_per_million(usd_per_hour, 1, rate, spare, peak, utilization, prompt, output)


@mutant("the rate of a copy is divided by the copies. Each copy bears it: multiply.")
def copies_divide(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    return usd_per_million(usd_per_hour, 1 / copies, rate, spare, peak, utilization, prompt, output)


@mutant("this is the number of copies. Several of them share a machine.")
def copies_for_machines(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    machines = math.ceil(peak / rate) + spare * copies
    return _bill(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output, machines=machines)


@mutant("the spare machines are missing.")
def spare_forgotten(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    return usd_per_million(usd_per_hour, copies, rate, 0, peak, utilization, prompt, output)


@mutant("one spare machine is taken, whatever `spare` says.")
def always_one_spare(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    return usd_per_million(usd_per_hour, copies, rate, 1, peak, utilization, prompt, output)


@mutant("the spare machines are rented, and not paid for. They cost as much as the others.")
def spare_not_paid(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    machines, _, _ = usd_per_million(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output)
    return machines, *usd_per_million(usd_per_hour, copies, rate, 0, peak, utilization, prompt, output)[1:]


@mutant("the spare machines are in the month, and not in the price of the tokens. Who pays for them but the answers?")
def spare_not_in_the_million(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    machines, month, million = usd_per_million(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output)
    return machines, month, million * (machines - spare) / machines


@mutant("the spare machines count as serving: they are to be there when one of the others fails.")
def spare_serves(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    machines = max(math.ceil(peak / (copies * rate)), 1 + spare)
    return _bill(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output, machines=machines)


@mutant("the machines are counted for the mean load. They have to bear the peak.")
def machines_for_the_mean(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    machines = math.ceil(peak * utilization / (copies * rate)) + spare
    return _bill(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output, machines=machines)


@mutant(
    "the utilization is used twice: the machines are counted for peak / utilization as well. They are enough for the "
    "peak, and only the tokens are those of the mean load."
)
def utilization_twice(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    machines = math.ceil(peak / utilization / (copies * rate)) + spare
    return _bill(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output, machines=machines)


@mutant(
    "peak is taken as the mean load, and divided by the utilization. It is the load of the busiest hour: the mean is "
    "peak * utilization."
)
def peak_as_the_mean(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    return usd_per_million(usd_per_hour, copies, rate, spare, peak / utilization, utilization, prompt, output)


@mutant("the tokens are those of the peak, all day. At the mean load there are fewer, and each of them costs more.")
def tokens_of_the_peak(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    return _bill(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output, tokens=3600 * peak * output)


@mutant("the tokens are divided by the utilization. The mean load is peak * utilization.")
def utilization_divides(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    tokens = 3600 * peak / utilization * output
    return _bill(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output, tokens=tokens)


@mutant("the tokens are those that full machines could write. Count the answers that are asked for.")
def tokens_of_full_machines(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    tokens = 3600 * copies * rate * output
    return _bill(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output, tokens=tokens, usd=usd_per_hour)


@mutant("the tokens of the prompts are counted among those of the answers. They are in the price.")
def prompts_counted(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    tokens = 3600 * peak * utilization * (prompt + output)
    return _bill(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output, tokens=tokens)


@mutant("only the tokens of the prompts are counted. The price is for those of the answers.")
def prompts_alone(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    tokens = 3600 * peak * utilization * prompt
    return _bill(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output, tokens=tokens)


@mutant("this is the price of a million requests. Divide by the tokens of an answer.")
def per_million_requests(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    tokens = 3600 * peak * utilization
    return _bill(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output, tokens=tokens)


@mutant("the price of an hour is divided by the tokens of a second: the 3,600 is missing.")
def hour_by_second(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    tokens = peak * utilization * output
    return _bill(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output, tokens=tokens)


@mutant("an hour has 60 seconds here. It has 3,600.")
def seconds_of_a_minute(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    tokens = 60 * peak * utilization * output
    return _bill(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output, tokens=tokens)


@mutant("this is the price of one token. Multiply by a million.")
def per_token(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    tokens = 3600e6 * peak * utilization * output
    return _bill(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output, tokens=tokens)


@mutant("this is the price of a thousand tokens. Multiply by a million.")
def per_thousand(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    tokens = 3600e3 * peak * utilization * output
    return _bill(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output, tokens=tokens)


@mutant("only one machine is paid for the tokens. All of them are, the spare ones too.")
def tokens_by_one_machine(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    return _bill(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output, usd=usd_per_hour)


@mutant("a month has 720 hours here, 30 days. Clouds count 730, the twelfth of a year.")
def hours_of_thirty_days(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    return _bill(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output, hours=720)


@mutant(
    "the month and the tokens are paid for a part of the hours only. Machines are rented for all of them, whether they "
    "work or not."
)
def only_busy_hours(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    machines, month, million = usd_per_million(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output)
    return machines, month * utilization, million * utilization


@mutant("the month is paid for a part of its hours only. The machines are rented at night, too: a month has 730 hours.")
def month_of_busy_hours(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    machines, month, million = usd_per_million(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output)
    return machines, month * utilization, million


@mutant("the cost of a month is that of one machine.")
def month_of_one_machine(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    machines, month, million = usd_per_million(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output)
    return machines, month / machines, million


@mutant("the month comes after the million. Return (machines, usd_per_month, usd_per_million).")
def exchanged(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    machines, month, million = usd_per_million(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output)
    return machines, million, month


@mutant("the dollars are rounded to cents. Return all their digits.")
def rounded_to_cents(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    machines, month, million = usd_per_million(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output)
    return machines, round(month), round(million, 1)


def from_the_month(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    """Right, with whole copies first, and the tokens of a month."""
    wanted = math.ceil(peak / rate)
    machines = -(-wanted // copies) + spare
    month = machines * usd_per_hour * 365 * 24 / 12
    millions = utilization * peak * output * 365 * 24 * 60 * 60 / 12 / 1_000_000
    return [machines, month, month / millions]


def by_adding_machines(usd_per_hour, copies, rate, spare, peak, utilization, prompt, output):
    """Right, by adding machines until they bear the peak; the count comes back as a float."""
    machines = 1.0
    while machines * copies * rate < peak * (1 - 1e-12):
        machines += 1
    machines += spare
    per_second = machines * usd_per_hour / 3600
    return machines, 730 * machines * usd_per_hour, 1e6 * per_second / (output * utilization * peak)


QUESTION = Question(
    id="deployment.usd_per_million",
    title="What a million tokens costs",
    reference=usd_per_million,
    cases=cases,
    properties=(three_numbers, whole_machines, the_bill, the_price_of_tokens),
    mutants=(
        parts_of_machines,
        rounded_down,
        rounded_to_nearest,
        always_one_more,
        copies_forgotten,
        copies_divide,
        copies_for_machines,
        spare_forgotten,
        always_one_spare,
        spare_not_paid,
        spare_not_in_the_million,
        spare_serves,
        machines_for_the_mean,
        utilization_twice,
        peak_as_the_mean,
        tokens_of_the_peak,
        utilization_divides,
        tokens_of_full_machines,
        prompts_counted,
        prompts_alone,
        per_million_requests,
        hour_by_second,
        seconds_of_a_minute,
        per_token,
        per_thousand,
        tokens_by_one_machine,
        hours_of_thirty_days,
        only_busy_hours,
        month_of_busy_hours,
        month_of_one_machine,
        exchanged,
        rounded_to_cents,
    ),
    alternatives=(from_the_month, by_adding_machines),
    hints=(
        "Two loads are in this: one that decides how many machines you rent, and one that decides how many tokens you "
        "sell. Which is which?",
        "A machine bears copies * rate requests per second; round the peak over that up, and add the spare ones. In an "
        "hour of the mean load, peak * utilization * output * 3600 tokens come out.",
        "machines = math.ceil(peak / (copies * rate)) + spare; the month is machines * usd_per_hour * 730; the million "
        "is machines * usd_per_hour / tokens_per_hour * 1e6.",
    ),
    explanation=(
        "A price list of tokens per dollar takes full machines for granted. Yours are full in the busiest hour at "
        "best: at a mean of 0.4 of the peak a token costs 2.5 times as much, before a single spare machine. And where "
        "prompts of 1,024 tokens stand before answers of 8, the price of a million output tokens looks absurd: say "
        "what a thousand requests cost, and the talk becomes sensible."
    ),
)
