"""deployment.percentiles: what users waited for, from the log of a server: first tokens and the gaps after them."""

from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise
from random import Random
from statistics import fmean
from typing import Any

from ....deploy.serving.simulation import serve
from ....deploy.serving.traffic import lognormal, requests
from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import near, near_or_none, rows

NO_GAP = "no answer has a second token"


def percentiles(log, percent, warm_up):
    """Say how long users waited for the first token, and for each token after it.

    log: of a server, tuples (arrival, times), in any order: when a request came, and when
        each token of its answer came out, in seconds on one clock. No answer is empty.
    percent: above 0 and at most 100.
    warm_up: requests that arrived before this second are left out, with all their tokens.
        Somebody arrived later.

    The percentile of some values is the smallest of them that at least `percent` per cent
    of them do not exceed: sorted, the one with the number percent / 100 * count, rounded
    up, where the smallest has the number 1. No value is made up between two others.

    Returns (first, gap): the percentile of the seconds from arrival to first token, of all
    requests that count; and of the seconds between a token and the next, of all such pairs
    of tokens in all those requests. gap is None where no answer has a second token.
    """
    waits, gaps = [], []
    for arrival, times in log:
        if arrival >= warm_up:
            waits.append(times[0] - arrival)
            gaps += [times[i + 1] - times[i] for i in range(len(times) - 1)]

    def smallest(values):
        return sorted(values)[math.ceil(percent * len(values) / 100) - 1]

    return smallest(waits), smallest(gaps) if gaps else None


CARD = (
    (2, (9, 9.5)),
    (10, (10.4, 10.5, 10.7)),
    (14, (14.2,)),
    (11, (11.3, 11.4)),
    (12, (12.9, 13.4, 13.5)),
)


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    return [
        Case("the example of the card", (CARD, 75, 10)),
        Case("a simulated server, p95", (_simulated(seed, 60), 95, 3.0)),
        Case("a simulated server, p50", (_simulated(seed + 1000, 41), 50, 2.0)),
        Case("p99 of few requests is the worst", (_drawn(random, 17), 99, 20.0)),
        Case("the worst of all, p100", (_drawn(random, 12), 100, 20.0)),
        Case("p90, a whole number of requests", (_drawn(random, 20, early=4), 90, 20.0)),
        Case("p25, a whole number of requests", (_drawn(random, 12, early=5), 25, 20.0)),
        Case("p60, no warm-up", (_drawn(random, 13), 60, 0)),
        Case("one token for each request", (_drawn(random, 9, most=1), 80, 20.0)),
        Case("a single request counts", (_drawn(random, 1, early=6), 50, 20.0)),
        Case("a request arrives just when the warm-up ends", (_edge(random), 70, 16)),
        Case("many requests of the first seconds still run", (_drawn(random, 15, early=15), 85, 20.0)),
    ]


def _simulated(seed: int, count: int) -> tuple[Any, ...]:
    """The log of a server that is a little too slow: times of the simulator in qlab.deploy."""
    sent = requests(9.0, count, lognormal(900, 0.8, high=2700), lognormal(9, 0.9, high=40), seed)
    run = serve(sent, lambda prefill, decoding, cached: 0.02 + 9e-5 * prefill + 1e-3 * decoding, kv_tokens=8000)
    return tuple((timing.request.arrival, tuple(run.token_times(i))) for i, timing in enumerate(run.timings))


def _drawn(random: Random, late: int, early: int = 4, most: int = 7) -> tuple[Any, ...]:
    """Requests of which `early` came before second 20, and their slow answers reach beyond it; in any order."""
    log = []
    for number in range(early + late):
        arrival = random.uniform(8, 19.5) if number < early else random.uniform(20.5, 60)
        times = [arrival + random.uniform(0.2, 3) * (4 if number < early else 1)]
        for _ in range(random.randrange(1, most) if most > 1 else 0):
            times.append(times[-1] + random.uniform(0.02, 0.5) * (3 if number < early else 1))
        if number == early and most > 1 and late > 4:
            del times[1:]  # one answer of a single token
        log.append((arrival, tuple(times)))
    random.shuffle(log)
    return tuple(log)


def _edge(random: Random) -> tuple[Any, ...]:
    """Whole and half seconds: one request arrives at 16, with the longest wait and the longest gap of all."""
    waits, gaps = random.sample(range(1, 12), 6), random.sample(range(1, 12), 6)
    log = [(17.0 + n, (17.0 + n + wait / 4, 17.0 + n + wait / 4 + gap / 8)) for n, (wait, gap) in
           enumerate(zip(waits, gaps, strict=True))]  # fmt: skip
    log[3:3] = [(16.0, (20.0, 24.0)), (15.0, (25.0, 31.0)), (16.0, (19.5, 23.0))]
    return tuple(log)


def two_values(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.parts(rows(got), "first", "gap")


def wait_for_the_first_token(case: Case, got: Any, expected: Any) -> Finding | None:
    return near(rows(got)[0], "the wait for the first token", expected[0], "s")


def gap_between_tokens(case: Case, got: Any, expected: Any) -> Finding | None:
    return near_or_none(rows(got)[1], "the gap between tokens", expected[1], NO_GAP)


def _counted(log, warm_up):
    return [(arrival, times) for arrival, times in log if arrival >= warm_up]


def _waits(log):
    return [times[0] - arrival for arrival, times in log]


def _gaps(log):
    return [b - a for _, times in log for a, b in pairwise(times)]


def _nearest_rank(values, percent):
    return sorted(values)[math.ceil(percent * len(values) / 100) - 1]


def _seen(log, percent, warm_up, *, counted=_counted, waits=_waits, gaps=_gaps, pick=_nearest_rank, none=None):
    """The right answer, but for the functions that are given."""
    kept = counted(log, warm_up)
    found = gaps(kept)
    return pick(waits(kept), percent), pick(found, percent) if found else none


@mutant("this interpolates between two values, as numpy.percentile does. Here the percentile is one of the values.")
def interpolated(log, percent, warm_up):
    def between(values, percent):
        ordered, place = sorted(values), percent / 100 * (len(values) - 1)
        low = math.floor(place)
        return ordered[low] + (place - low) * (ordered[min(low + 1, len(values) - 1)] - ordered[low])

    return _seen(log, percent, warm_up, pick=between)


@mutant("this is the mean. A percentile says what most users do not exceed; a mean hides the slow ones.")
def mean_for_percentile(log, percent, warm_up):
    return _seen(log, percent, warm_up, pick=lambda values, percent: fmean(values))


@mutant("this is the median, whatever `percent` says.")
def always_the_median(log, percent, warm_up):
    return percentiles(log, 50, warm_up)


@mutant("this is the worst value, whatever `percent` says.")
def always_the_worst(log, percent, warm_up):
    return percentiles(log, 100, warm_up)


@mutant(
    "sorted(values)[int(percent / 100 * count)] is one value too high where percent / 100 * count is a whole number: "
    "positions in Python begin at 0. Round up, and subtract 1."
)
def counted_from_zero(log, percent, warm_up):
    return _seen(
        log,
        percent,
        warm_up,
        pick=lambda values, percent: sorted(values)[min(len(values) - 1, int(percent * len(values) / 100))],
    )


@mutant("percent / 100 * count is rounded down. Then fewer than `percent` per cent do not exceed the value: round up.")
def rounded_down(log, percent, warm_up):
    return _seen(
        log,
        percent,
        warm_up,
        pick=lambda values, percent: sorted(values)[max(1, percent * len(values) // 100) - 1],
    )


@mutant(
    "percent / 100 * count is rounded to the nearest number. Where that is down, fewer than `percent` per cent do not "
    "exceed the value: round up."
)
def rounded_to_nearest(log, percent, warm_up):
    return _seen(
        log,
        percent,
        warm_up,
        pick=lambda values, percent: sorted(values)[max(1, round(percent * len(values) / 100)) - 1],
    )


@mutant("percent / 100 * (count - 1) is rounded down, a place and not a number of values.")
def place_rounded_down(log, percent, warm_up):
    return _seen(
        log, percent, warm_up, pick=lambda values, percent: sorted(values)[int(percent * (len(values) - 1) / 100)]
    )


@mutant(
    "percent / 100 * (count - 1) is rounded to the nearest place. Take the number percent / 100 * count, rounded up."
)
def nearest_place(log, percent, warm_up):
    return _seen(
        log, percent, warm_up, pick=lambda values, percent: sorted(values)[round(percent * (len(values) - 1) / 100)]
    )


@mutant("the values are sorted from the largest to the smallest: this is what the fast users saw.")
def sorted_backwards(log, percent, warm_up):
    return _seen(
        log,
        percent,
        warm_up,
        pick=lambda values, percent: sorted(values, reverse=True)[math.ceil(percent * len(values) / 100) - 1],
    )


@mutant("the values are not sorted.")
def not_sorted(log, percent, warm_up):
    return _seen(log, percent, warm_up, pick=lambda values, percent: values[math.ceil(percent * len(values) / 100) - 1])


@mutant("the warm-up is counted. Requests that arrived before it ends are left out.")
def warm_up_counted(log, percent, warm_up):
    return percentiles(log, percent, -math.inf)


@mutant("a request counts here when its first token came after the warm-up. What matters is when it arrived.")
def by_the_first_token(log, percent, warm_up):
    return _seen(log, percent, warm_up, counted=lambda log, warm_up: [one for one in log if one[1][0] >= warm_up])


@mutant("a request counts here when its last token came after the warm-up. What matters is when it arrived.")
def by_the_last_token(log, percent, warm_up):
    return _seen(log, percent, warm_up, counted=lambda log, warm_up: [one for one in log if one[1][-1] >= warm_up])


@mutant("a request that arrives just when the warm-up ends is left out. It did not arrive before it: >= and not >.")
def the_edge_left_out(log, percent, warm_up):
    return _seen(log, percent, warm_up, counted=lambda log, warm_up: [one for one in log if one[0] > warm_up])


@mutant("only the waits leave the warm-up out. The gaps of those requests go as well.")
def gaps_of_the_warm_up(log, percent, warm_up):
    first, _ = percentiles(log, percent, warm_up)
    return first, percentiles(log, percent, -math.inf)[1]


@mutant("the waits are times on the clock. Subtract the arrival.")
def times_on_the_clock(log, percent, warm_up):
    return _seen(log, percent, warm_up, waits=lambda log: [times[0] for _, times in log])


@mutant("the waits are those for the last token. The first token is times[0].")
def wait_for_the_last_token(log, percent, warm_up):
    return _seen(log, percent, warm_up, waits=lambda log: [times[-1] - arrival for arrival, times in log])


@mutant("the wait for the first token is counted among the gaps. A gap lies between two tokens.")
def first_token_among_the_gaps(log, percent, warm_up):
    return _seen(log, percent, warm_up, gaps=lambda log: _gaps(log) + _waits(log))


@mutant(
    "the gaps are averaged for each request first. A request of many quick tokens hides its one long gap then: put "
    "the gaps of all requests together."
)
def mean_gap_of_each_request(log, percent, warm_up):
    return _seen(
        log,
        percent,
        warm_up,
        gaps=lambda log: [(times[-1] - times[0]) / (len(times) - 1) for _, times in log if len(times) > 1],
    )


@mutant("the time of an answer is divided by all its tokens. n tokens have n - 1 gaps, and they are not averaged.")
def mean_gap_by_all_tokens(log, percent, warm_up):
    return _seen(
        log,
        percent,
        warm_up,
        gaps=lambda log: [(times[-1] - times[0]) / len(times) for _, times in log if len(times) > 1],
    )


@mutant("only the longest gap of each request is kept. All gaps count.")
def longest_gap_of_each_request(log, percent, warm_up):
    return _seen(log, percent, warm_up, gaps=lambda log: [max(_gaps([one])) for one in log if len(one[1]) > 1])


@mutant("the percentile is taken in each request, and then once more over the requests. Put all gaps together.")
def percentile_of_percentiles(log, percent, warm_up):
    return _seen(
        log,
        percent,
        warm_up,
        gaps=lambda log: [_nearest_rank(_gaps([one]), percent) for one in log if len(one[1]) > 1],
    )


@mutant("only the first gap of each answer is counted. Is the range too short?")
def first_gap_only(log, percent, warm_up):
    return _seen(log, percent, warm_up, gaps=lambda log: [_gaps([one])[0] for one in log if len(one[1]) > 1])


@mutant("the last gap of each answer is left out: range(len(times) - 2) ends one too early.")
def last_gap_left_out(log, percent, warm_up):
    return _seen(log, percent, warm_up, gaps=lambda log: _gaps([(arrival, times[:-1]) for arrival, times in log]))


@mutant("the tokens of all requests are sorted into one line. A gap lies between two tokens of the same answer.")
def gaps_across_requests(log, percent, warm_up):
    def in_one_line(log):
        times = sorted(time for _, times in log for time in times)
        return [b - a for a, b in pairwise(times)]

    return _seen(log, percent, warm_up, gaps=in_one_line)


@mutant("where no answer has a second token, gap is 0. There is no gap to speak of: return None.")
def zero_where_there_is_no_gap(log, percent, warm_up):
    return _seen(log, percent, warm_up, none=0.0)


@mutant("where no answer has a second token, the function ends in an error: there is no gap to pick. Return None.")
def an_error_where_there_is_no_gap(log, percent, warm_up):
    kept = _counted(log, warm_up)
    return _nearest_rank(_waits(kept), percent), sorted(_gaps(kept))[math.ceil(percent * len(_gaps(kept)) / 100) - 1]


@mutant("the results are in milliseconds. Return seconds.")
def in_milliseconds(log, percent, warm_up):
    first, gap = percentiles(log, percent, warm_up)
    return 1000 * first, gap and 1000 * gap


@mutant("first and gap have changed places.")
def exchanged(log, percent, warm_up):
    return percentiles(log, percent, warm_up)[::-1]


def by_counting(log, percent, warm_up):
    """Right, with the smallest value that enough others do not exceed."""
    kept = [(times[0] - arrival, times) for arrival, times in log if not arrival < warm_up]

    def least(values):
        enough = [one for one in values if 100 * sum(other <= one for other in values) >= percent * len(values)]
        return min(enough, default=None)

    return [
        least([wait for wait, _ in kept]),
        least([times[i] - times[i - 1] for _, times in kept for i in range(1, len(times))]),
    ]


def by_numpy(log, percent, warm_up):
    """Right, with numpy's own nearest rank."""
    import numpy as np

    waits = [np.float64(times[0]) - arrival for arrival, times in log if arrival >= warm_up]
    gaps = np.concatenate([np.diff(times) for arrival, times in log if arrival >= warm_up])
    pick = {"q": percent, "method": "inverted_cdf"}
    return np.percentile(waits, **pick), np.percentile(gaps, **pick) if gaps.size else None


def by_hand_in_steps(log, percent, warm_up):
    """Right, walking up the sorted values until enough are passed, with a count for each value."""

    def walk(values):
        passed = 0
        for value, count in sorted(Counter(values).items()):
            passed += count
            if passed / len(values) * 100 >= percent - 1e-9:
                return value
        return None

    kept = [one for one in log if one[0] >= warm_up]
    return walk([one[1][0] - one[0] for one in kept]), walk(_gaps(kept))


QUESTION = Question(
    id="deployment.percentiles",
    title="What users waited for",
    reference=percentiles,
    cases=cases,
    properties=(two_values, wait_for_the_first_token, gap_between_tokens),
    mutants=(
        interpolated,
        mean_for_percentile,
        always_the_median,
        always_the_worst,
        counted_from_zero,
        rounded_down,
        rounded_to_nearest,
        place_rounded_down,
        nearest_place,
        sorted_backwards,
        not_sorted,
        warm_up_counted,
        by_the_first_token,
        by_the_last_token,
        the_edge_left_out,
        gaps_of_the_warm_up,
        times_on_the_clock,
        wait_for_the_last_token,
        first_token_among_the_gaps,
        mean_gap_of_each_request,
        mean_gap_by_all_tokens,
        longest_gap_of_each_request,
        percentile_of_percentiles,
        first_gap_only,
        last_gap_left_out,
        gaps_across_requests,
        zero_where_there_is_no_gap,
        an_error_where_there_is_no_gap,
        in_milliseconds,
        exchanged,
    ),
    alternatives=(by_counting, by_numpy, by_hand_in_steps),
    hints=(
        "Make two lists first, one of waits and one of gaps, from the requests that count. Then one helper picks a "
        "percentile from either.",
        "A request counts if arrival >= warm_up. Its wait is times[0] - arrival; its gaps are times[i + 1] - times[i]. "
        "Of `count` sorted values, take the one with the number math.ceil(percent * count / 100), counted from 1.",
        "sorted(values)[math.ceil(percent * len(values) / 100) - 1] for the waits, and for the gaps if there are any, "
        "else None.",
    ),
    explanation=(
        "Say which percentile, of what, and with what left out: each choice moves the number. Interpolating makes up a "
        "wait that nobody had. A mean over the gaps of an answer hides the one stall in which somebody else's prompt "
        "was computed. And a log that begins with an empty server flatters it: the first requests find no queue. With "
        "few requests a high percentile is the worst of them and no more: p99 of 50 requests is the maximum."
    ),
)
