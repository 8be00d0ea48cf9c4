"""deployment.in_flight: Little's law: requests in a server, the tokens they hold, and the load that the cache bears."""

from __future__ import annotations

import math
from random import Random
from typing import Any

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import near, rows

DAY = 86_400


def in_flight(kinds, per_day, peak, kv_tokens):
    """Say how many requests are in a server in its busiest hour, and what they hold.

    kinds: of requests, tuples (share, prompt, output, queue, latency): the part of all
        requests that are of this kind (the parts add up to 1), the tokens of its prompt and
        of its answer, the mean seconds in the queue, and the mean seconds from arrival to
        the last token, those in the queue counted.
    per_day: requests of a day.
    peak: how many times as many as on average come in the busiest hour.
    kv_tokens: that the cache holds.

    From the end of its wait in the queue to its last token a request is in the batch, and
    holds room in the cache for all of its prompt and its answer.

    Returns (batch, tokens, most): the mean number of requests in the batch in the busiest
    hour, the mean number of tokens that they hold, and the rate, in requests per second of
    the same mix with the same times, at which they would hold kv_tokens. Round nothing.
    """
    rate = per_day / (24 * 3600) * peak
    batch = tokens = 0.0
    for share, prompt, output, queue, latency in kinds:
        seconds = latency - queue
        batch += rate * share * seconds
        tokens += rate * share * seconds * (prompt + output)
    return batch, tokens, rate * kv_tokens / tokens


CARD = ((0.75, 100, 20, 0.5, 2.5), (0.25, 400, 200, 0.5, 8.5))


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    page = ((1.0, 1024, 8, 0.043, 0.389),)
    return [
        Case("the example of the card", (CARD, 1_728_000, 2, 69_000)),
        Case("recommendations: 10 million a day, one kind", (page, 10_000_000, 3, 246_025)),
        Case("recommendations, and a chat that is rare and long", (_mix(random, 0.96), 4_000_000, 2.5, 612_004)),
        Case(
            "a quiet service, less than one request at a time",
            (_kinds(random, 2), random.randrange(900, 2000), 4, 36_808),
        ),
        Case("no queue at all", (_kinds(random, 3, queue=0), *_load(random))),
        Case("a long queue", (_kinds(random, 2, queue=8), *_load(random))),
        Case(
            "the same load all day",
            (_kinds(random, 2), random.randrange(300_000, 900_000), 1, random.randrange(10_000, 90_000)),
        ),
        Case("many kinds", (_kinds(random, 5), *_load(random))),
        Case(
            "more than the cache holds",
            (_kinds(random, 3), 9_000_000 + random.randrange(99_999), 3, random.randrange(5_000, 9_000)),
        ),
    ]


def _mix(random: Random, share: float) -> tuple[Any, ...]:
    """Short requests, and a few that are long in tokens and in time."""
    wait = random.uniform(0.03, 0.09)
    short = share, random.randrange(900, 1200), random.randrange(6, 12), wait, wait + random.uniform(0.2, 0.4)
    return short, (
        1 - share,
        random.randrange(400, 700),
        random.randrange(200, 400),
        wait,
        wait + random.uniform(6, 12),
    )


def _kinds(random: Random, count: int, queue: float = 0.5) -> tuple[Any, ...]:
    """Kinds whose answers, times and shares differ a lot."""
    weights = [random.uniform(1, 4) for _ in range(count)]
    found = []
    for weight in weights:
        wait = queue * random.uniform(0.5, 1.5)
        output = random.randrange(5, 500)
        busy = output * random.uniform(0.01, 0.05) + random.uniform(0.05, 0.4)
        found.append((weight / math.fsum(weights), random.randrange(50, 3000), output, wait, wait + busy))
    return tuple(found)


def _load(random: Random) -> tuple[Any, ...]:
    return random.randrange(200_000, 4_000_000), random.choice((1.5, 2.5, 4)), random.randrange(20_000, 900_000)


def three_numbers(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.parts(rows(got), "batch", "tokens", "most")


def requests_in_the_batch(case: Case, got: Any, expected: Any) -> Finding | None:
    return near(rows(got)[0], "the number of requests in the batch", expected[0])


def tokens_that_they_hold(case: Case, got: Any, expected: Any) -> Finding | None:
    return near(rows(got)[1], "the number of tokens that they hold", expected[1], "tokens")


def rate_that_fills_the_cache(case: Case, got: Any, expected: Any) -> Finding | None:
    return near(rows(got)[2], "the rate that fills the cache", expected[2], "requests per second")


def _seconds(kind):
    return kind[4] - kind[3]


def _held(kinds, per_day, peak, kv_tokens, *, rate=None, seconds=_seconds, size=None, share=None, most=None):
    """The right answer, but for the parts that are given; `rate` may be a number, the others are functions."""
    rate = per_day / DAY * peak if rate is None else rate
    size = size or (lambda kind: kind[1] + kind[2])
    share = share or (lambda kind: kind[0])
    batch = sum(rate * share(kind) * seconds(kind) for kind in kinds)
    tokens = sum(rate * share(kind) * seconds(kind) * size(kind) for kind in kinds)
    return batch, tokens, rate * kv_tokens / tokens if most is None else most(rate, batch, tokens)


def _mean(kinds, of):
    return sum(kind[0] * of(kind) for kind in kinds)


@mutant("the time in the queue is counted. A request that waits is not in the batch and holds no cache: subtract it.")
def queue_counted(kinds, per_day, peak, kv_tokens):
    return _held(kinds, per_day, peak, kv_tokens, seconds=lambda kind: kind[4])


@mutant("the time in the queue is added to the latency, which counts it already: subtract it.")
def queue_added(kinds, per_day, peak, kv_tokens):
    return _held(kinds, per_day, peak, kv_tokens, seconds=lambda kind: kind[4] + kind[3])


@mutant("the rate is divided by the time. Little's law multiplies: requests = rate * seconds.")
def divided_by_the_time(kinds, per_day, peak, kv_tokens):
    return _held(kinds, per_day, peak, kv_tokens, seconds=lambda kind: 1 / (kind[4] - kind[3]))


@mutant("the peak is not used. The busiest hour has peak times the mean load.")
def peak_forgotten(kinds, per_day, peak, kv_tokens):
    return _held(kinds, per_day, peak, kv_tokens, rate=per_day / DAY)


@mutant("the rate is divided by peak. The busiest hour has more than the mean load: multiply.")
def peak_divides(kinds, per_day, peak, kv_tokens):
    return _held(kinds, per_day, peak, kv_tokens, rate=per_day / DAY / peak)


@mutant("the requests of a day are divided by 3,600, the seconds of an hour. A day has 86,400.")
def seconds_of_an_hour(kinds, per_day, peak, kv_tokens):
    return _held(kinds, per_day, peak, kv_tokens, rate=per_day / 3600 * peak)


@mutant("the requests of a day are divided by 24: this is a rate per hour, and the latencies are in seconds.")
def per_hour(kinds, per_day, peak, kv_tokens):
    return _held(kinds, per_day, peak, kv_tokens, rate=per_day / 24 * peak)


@mutant("the requests of a day are divided by 1,440: this is a rate per minute, and the latencies are in seconds.")
def per_minute(kinds, per_day, peak, kv_tokens):
    return _held(kinds, per_day, peak, kv_tokens, rate=per_day / 1440 * peak)


@mutant("the requests of a day are taken as those of a second. Divide by 86,400.")
def per_day_as_per_second(kinds, per_day, peak, kv_tokens):
    return _held(kinds, per_day, peak, kv_tokens, rate=per_day * peak)


@mutant(
    "the tokens are the mean size times the requests in the batch. Long requests stay longer, so there are more of "
    "them in the batch than among those that arrive: multiply for each kind, then add."
)
def product_of_means(kinds, per_day, peak, kv_tokens):
    batch, _, _ = in_flight(kinds, per_day, peak, kv_tokens)
    size = _mean(kinds, lambda kind: kind[1] + kind[2])
    return batch, batch * size, kv_tokens / size / _mean(kinds, _seconds)


@mutant("the answer holds no cache here. A request holds room for its prompt and its answer.")
def output_forgotten(kinds, per_day, peak, kv_tokens):
    return _held(kinds, per_day, peak, kv_tokens, size=lambda kind: kind[1])


@mutant("the prompt holds no cache here. It stays until the last token: a request holds room for prompt and answer.")
def prompt_forgotten(kinds, per_day, peak, kv_tokens):
    return _held(kinds, per_day, peak, kv_tokens, size=lambda kind: kind[2])


@mutant("only half of the answer is counted, its mean over time. Room for all of it is held from the start.")
def half_of_the_output(kinds, per_day, peak, kv_tokens):
    return _held(kinds, per_day, peak, kv_tokens, size=lambda kind: kind[1] + kind[2] / 2)


@mutant("the shares are not used: every kind comes at the full rate.")
def shares_forgotten(kinds, per_day, peak, kv_tokens):
    return _held(kinds, per_day, peak, kv_tokens, share=lambda kind: 1)


@mutant("all kinds are taken as equally frequent. Weigh each by its share.")
def shares_taken_as_equal(kinds, per_day, peak, kv_tokens):
    return _held(kinds, per_day, peak, kv_tokens, share=lambda kind: 1 / len(kinds))


@mutant("only the first kind is counted. Is the return indented too far, inside the loop?")
def only_the_first_kind(kinds, per_day, peak, kv_tokens):
    return _held(kinds[:1], per_day, peak, kv_tokens)


@mutant("only the last kind is counted. Add them up in the loop: += and not =.")
def only_the_last_kind(kinds, per_day, peak, kv_tokens):
    return _held(kinds[-1:], per_day, peak, kv_tokens)


@mutant("most is how many times as much as now the cache holds. Multiply it by the rate.")
def a_factor_for_the_rate(kinds, per_day, peak, kv_tokens):
    return _held(kinds, per_day, peak, kv_tokens, most=lambda rate, batch, tokens: kv_tokens / tokens)


@mutant("most is upside down: the rate may grow by kv_tokens / tokens.")
def upside_down(kinds, per_day, peak, kv_tokens):
    return _held(kinds, per_day, peak, kv_tokens, most=lambda rate, batch, tokens: rate * tokens / kv_tokens)


@mutant(
    "most is a number of requests at once. A rate is how many come in a second: divide by the time that each stays."
)
def requests_at_once_for_a_rate(kinds, per_day, peak, kv_tokens):
    return _held(kinds, per_day, peak, kv_tokens, most=lambda rate, batch, tokens: kv_tokens / tokens * batch)


@mutant("most is what may come on top of the load of today. It is the whole rate at which the cache is full.")
def what_may_come_on_top(kinds, per_day, peak, kv_tokens):
    return _held(kinds, per_day, peak, kv_tokens, most=lambda rate, batch, tokens: rate * kv_tokens / tokens - rate)


@mutant("most is a rate without the peak. It is the rate in the busiest hour: that is when the cache fills.")
def most_without_the_peak(kinds, per_day, peak, kv_tokens):
    return _held(kinds, per_day, peak, kv_tokens, most=lambda rate, batch, tokens: rate / peak * kv_tokens / tokens)


@mutant("most is in requests per day. It is a rate per second.")
def most_per_day(kinds, per_day, peak, kv_tokens):
    return _held(kinds, per_day, peak, kv_tokens, most=lambda rate, batch, tokens: DAY * rate * kv_tokens / tokens)


@mutant("the numbers are rounded. They are means: return all their digits.")
def rounded(kinds, per_day, peak, kv_tokens):
    return tuple(round(one) for one in in_flight(kinds, per_day, peak, kv_tokens))


@mutant("the requests in the batch are rounded to a whole number. They are a mean: return all its digits.")
def batch_rounded(kinds, per_day, peak, kv_tokens):
    batch, tokens, most = in_flight(kinds, per_day, peak, kv_tokens)
    return round(batch), tokens, most


@mutant("the requests in the batch are rounded up. Nobody rents them: they are a mean, so return all its digits.")
def batch_rounded_up(kinds, per_day, peak, kv_tokens):
    batch, tokens, most = in_flight(kinds, per_day, peak, kv_tokens)
    return math.ceil(batch), tokens, most


@mutant("the requests are rounded up before their tokens are counted. They are a mean: return all its digits.")
def whole_requests(kinds, per_day, peak, kv_tokens):
    batch, tokens, most = in_flight(kinds, per_day, peak, kv_tokens)
    return math.ceil(batch), tokens * math.ceil(batch) / batch, most * batch / math.ceil(batch)


@mutant("batch and tokens have changed places. Return (batch, tokens, most).")
def exchanged(kinds, per_day, peak, kv_tokens):
    batch, tokens, most = in_flight(kinds, per_day, peak, kv_tokens)
    return tokens, batch, most


def by_the_tokens_of_a_second(kinds, per_day, peak, kv_tokens):
    """Right, by how many token-seconds each second brings."""
    per_second = peak * per_day / 24 / 60 / 60
    busy = [share * (latency - queue) for share, _, _, queue, latency in kinds]
    held = math.fsum(one * (kind[1] + kind[2]) for one, kind in zip(busy, kinds, strict=True))
    return [per_second * math.fsum(busy), held * per_second, kv_tokens / held]


def as_arrays(kinds, per_day, peak, kv_tokens):
    """Right, by sums of columns."""
    import numpy as np

    share, prompt, output, queue, latency = np.array(kinds, dtype=np.float64).T
    arriving = share * per_day * peak / 86_400
    inside = arriving * (latency - queue)
    tokens = inside @ (prompt + output)
    return np.array([inside.sum(), tokens, arriving.sum() * kv_tokens / tokens])


QUESTION = Question(
    id="deployment.in_flight",
    title="Requests in flight",
    reference=in_flight,
    cases=cases,
    properties=(three_numbers, requests_in_the_batch, tokens_that_they_hold, rate_that_fills_the_cache),
    mutants=(
        queue_counted,
        queue_added,
        divided_by_the_time,
        peak_forgotten,
        peak_divides,
        seconds_of_an_hour,
        per_hour,
        per_minute,
        per_day_as_per_second,
        product_of_means,
        output_forgotten,
        prompt_forgotten,
        half_of_the_output,
        shares_forgotten,
        shares_taken_as_equal,
        only_the_first_kind,
        only_the_last_kind,
        a_factor_for_the_rate,
        upside_down,
        requests_at_once_for_a_rate,
        what_may_come_on_top,
        most_without_the_peak,
        most_per_day,
        rounded,
        batch_rounded,
        batch_rounded_up,
        whole_requests,
        exchanged,
    ),
    alternatives=(by_the_tokens_of_a_second, as_arrays),
    hints=(
        "Little's law holds for anything that people enter and leave. Draw the line around the batch: how long does a "
        "request stay inside it?",
        "For each kind: rate * share requests enter per second and stay latency - queue seconds, so their product is "
        "inside on average, and each holds prompt + output tokens. Add up the kinds.",
        "rate = per_day / 86400 * peak; batch is the sum of rate * share * (latency - queue), tokens the sum of the "
        "same times (prompt + output); most = rate * kv_tokens / tokens.",
    ),
    explanation=(
        "Little's law needs no assumption about arrivals: requests inside = rate * time inside. It explains why a "
        "faster server needs less cache for the same load, and why one that slows down under load needs more: both "
        "factors grow. Of 10 million recommendations a day, 347 come per second at three times the mean, but with "
        "346 ms each in the batch only 120 are there at once, over all machines. The last number is a ceiling and no "
        "plan: what is in flight varies around its mean, and where the mean fills the cache, queues only grow."
    ),
)
