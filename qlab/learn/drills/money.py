"""Drills on money: dollars per million tokens, months, replicas for a load, and the speed that a price demands."""

from __future__ import annotations

import random

from qlab.deploy import Instance, instance, instances
from qlab.deploy.cost import machines, usd_per_million, usd_per_month
from qlab.deploy.instances import HOURS_PER_MONTH

from .kind import EDGE, Drill, Kind, near_whole, short, with_unit

_LESSON = "12_four_or_eight_bits"
_PER = "USD/million tokens"


def _rented(rng: random.Random) -> tuple[Instance, float]:
    """A machine and its price for an hour, to the cent as people say it."""
    priced = sorted(name for name, one in instances().items() if one.price_usd_per_hour)
    found = instance(rng.choice(priced))
    return found, round(found.price_usd_per_hour or 0, 2)


def _million(rng: random.Random, level: int) -> Drill:
    found, price = _rented(rng)
    speed = rng.choice((150, 240, 400, 650, 900, 1200, 1800, 2500))
    text = f"A {found.name} costs {price:.2f} USD/h"
    if level == 1:
        answer = usd_per_million(price, speed)
        return Drill(
            f"{text} and writes {speed:,} tokens/s. How many USD does a million tokens cost?",
            answer,
            (
                f"In an hour: 3,600 x {speed:,} = {short(3600 * speed)} tokens",
                f"That many cost {price:.2f} USD",
                f"{price:.2f} / {short(3.6e-3 * speed)} million tokens = {with_unit(answer, _PER)}",
            ),
            _PER,
            slips={"An hour has 3,600 seconds.": price / (60 * speed) * 1e6},
        )
    rate, output = rng.choice((2, 3, 5, 8, 12)), rng.choice((40, 64, 120, 200))
    busy = 100 if level == 2 else rng.choice((25, 40, 60))
    tokens = rate * output
    answer = usd_per_million(price, tokens * busy / 100)
    load = "all day" if level == 2 else f"for {busy} % of the day, and waits for the rest; the bill runs on"
    return Drill(
        f"{text}. It serves {rate} requests/s with {output} tokens of output each, {load}. How many USD does a million "
        "tokens of output cost?",
        answer,
        (
            f"While it works: {rate} x {output} = {tokens:,} tokens/s",
            *(
                (f"Averaged over the day: {tokens:,} x {busy} % = {short(tokens * busy / 100)} tokens/s",)
                if level == 3
                else ()
            ),
            f"In an hour: 3,600 x {short(tokens * busy / 100)} = {short(36 * tokens * busy)} tokens",
            f"{price:.2f} / ({short(36 * tokens * busy)} / 1 million) = {with_unit(answer, _PER)}",
        ),
        _PER,
        slips={"You paid for the busy hours alone. An idle machine is paid for as well.": answer * busy / 100}
        if level == 3
        else {"An hour has 3,600 seconds.": 60 * answer},
    )


def _month(rng: random.Random, level: int) -> Drill | None:
    found, price = _rented(rng)
    count = 1 if level == 1 else rng.randint(2, 12)
    answer = usd_per_month(price, count)
    start = f"A {found.name} costs {price:.2f} USD/h on demand."
    if level < 3:
        return Drill(
            f"{start} How many USD do {count} of them cost in a month of {HOURS_PER_MONTH} hours?"
            if count > 1
            else f"{start} How many USD is a month of {HOURS_PER_MONTH} hours?",
            answer,
            (
                "On demand every hour is paid for, whether the machine works or not",
                f"An hour of {'the machine' if count == 1 else 'all machines'}: {count} x {price:.2f} = "
                f"{count * price:.2f} USD",
                f"{HOURS_PER_MONTH} x {count * price:.2f} = {with_unit(answer, 'USD')}",
            ),
            "USD",
        )
    if found.count == 1:
        return None
    per_gpu = usd_per_month(price) / found.count
    count = rng.choice((2, 3, 5, 6))
    return Drill(
        f"{start} It has {found.count} GPUs. What do {count} GPUs of this kind come to in a month of "
        f"{HOURS_PER_MONTH} hours, in USD, if each bears its part of the price?",
        per_gpu * count,
        (
            f"The machine: {HOURS_PER_MONTH} x {price:.2f} = {short(HOURS_PER_MONTH * price)} USD",
            f"One GPU of it: {short(HOURS_PER_MONTH * price)} / {found.count} = {short(per_gpu)} USD",
            f"{count} x {short(per_gpu)} = {with_unit(per_gpu * count, 'USD')}",
        ),
        "USD",
    )


def _replicas(rng: random.Random, level: int) -> Drill | None:
    if level == 1:
        load, told = float(rng.randint(10, 200)), ""
    else:
        millions = rng.choice((1, 2, 3, 5, 8, 12))
        load, told = millions * 1e6 / 86400, f"{millions} million requests a day, evenly spread"
    capacity = rng.choice((3, 4, 6, 7, 9, 11, 13)) + rng.choice((0.0, 0.5))
    count, exact = machines(load, capacity), load / capacity
    if near_whole(exact) or count < 2:
        return None
    found, price = _rented(rng)
    steps = (
        *((f"In a second: {short(load * 86400)} / 86,400 = {short(load)} requests/s",) if told else ()),
        f"{short(load)} / {short(capacity)} = {short(exact)} machines",
    )
    text = (
        f"A service gets {told or f'{load:.0f} requests/s'}. One machine bears {short(capacity)} requests/s within the "
        "latency that was promised."
    )
    if level < 3:
        return Drill(
            f"{text} How many machines does it take, none of them spare?",
            count,
            (
                *steps,
                "A part of a machine cannot be rented, and fewer would break the promise",
                f"So {short(exact)} is rounded up: {with_unit(count, 'machine', whole=True)}",
            ),
            "machine",
            tolerance=0,
        )
    answer = usd_per_month(price, count)
    return Drill(
        f"{text} It is a {found.name} for {price:.2f} USD/h. How many USD is a month of {HOURS_PER_MONTH} hours?",
        answer,
        (
            *steps,
            f"Rounded up to whole ones: {count}",
            f"{count} x {HOURS_PER_MONTH} x {price:.2f} = {with_unit(answer, 'USD')}",
        ),
        "USD",
    )


def _speed(rng: random.Random, level: int) -> Drill:
    """The tokens per second that a price per million demands."""
    found, price = _rented(rng)
    target = rng.choice((0.2, 0.5, 1.0, 2.0, 5.0))
    answer = usd_per_million(price, 1.0) / target
    busy = 100 if level == 1 else rng.choice((25, 50, 75))
    answer *= 100 / busy
    waits = "" if level == 1 else f" It has work for {busy} % of the day."
    return Drill(
        f"A {found.name} costs {price:.2f} USD/h.{waits} A million tokens shall cost {target:.2f} USD. How many "
        f"tokens/s must it write{' while it works' if waits else ''}?",
        answer,
        (
            f"{price:.2f} USD buy {price:.2f} / {target:.2f} = {short(price / target)} million tokens at that price",
            f"In 3,600 seconds: {short(1e6 * price / target)} / 3,600 = {short(1e6 * price / target / 3600)} tokens/s",
            *(
                ("The machine is paid for all day, and works for a part of it",)
                if waits
                else ("It writes them all the time",)
            ),
            f"{short(1e6 * price / target / 3600)} / {busy} % = {with_unit(answer, 'token/s')}",
        ),
        "token/s",
        slips={"The hours without work are paid for, too.": answer * busy / 100} if waits else {},
    )


def _request(rng: random.Random, level: int) -> Drill | None:
    found, price = _rented(rng)
    rate = rng.choice((2, 3, 5, 8, 12, 20))
    count = 1 if level == 1 else rng.randint(2, 6)
    answer = 1000 * usd_per_month(price, count) / (HOURS_PER_MONTH * 3600 * rate * count)
    if answer < EDGE:
        return None
    each = "It serves" if count == 1 else f"There are {count} of them, and each serves"
    return Drill(
        f"A {found.name} costs {price:.2f} USD/h. {each} {rate} requests/s. How many USD do a thousand requests cost?",
        answer,
        (
            f"In an hour a machine serves 3,600 x {rate} = {3600 * rate:,} requests",
            "More machines serve more and cost as much more, so their number does not matter",
            f"1,000 x {price:.2f} / {3600 * rate:,} = {with_unit(answer, 'USD')}",
        ),
        "USD",
        slips={"The machines share the load as they share the bill.": answer / count} if count > 1 else {},
    )


KINDS = (
    Kind("money.million", "USD per million tokens", _LESSON, _million),
    Kind("money.month", "the bill of a month", _LESSON, _month),
    Kind("money.replicas", "machines for a load", _LESSON, _replicas),
    Kind("money.speed", "the speed that a price demands", _LESSON, _speed, levels=(1, 2)),
    Kind("money.request", "USD per thousand requests", _LESSON, _request, levels=(1, 2)),
)
