"""choosing.route: a small model that asks a large one where it is in doubt: the cheapest way to keep an accuracy."""

from __future__ import annotations

import math
from random import Random
from typing import Any

import torch

from ... import properties as p
from ...question import Case, Finding, Question, mutant
from .shared import nano_doubts, near


def route(doubts, small, large, small_price, large_price, floor):
    """Find the cheapest plan that keeps an accuracy.

    doubts: float64 (requests,), how unsure the small model was of each of its answers.
    small, large: bool (requests,), whether each model's answer was right.
    small_price, large_price: dollars for a request; the small model is cheaper.
    floor: the accuracy that is needed, at least; the large model alone reaches it.

    "small": the small model answers everything.
    "cascade": it answers everything first. Where its doubt is above a limit, the large one
        is asked as well, and its answer counts. Requests with equal doubts go together.
    "large": the large model answers everything, and the small one is not asked.

    Of the plans that reach the floor, take the cheapest; the large model alone where a
    cascade costs as much.

    Returns (plan, asked, accuracy, dollars): how many requests the large model is asked,
    the part of answers that is right, and the mean price of a request.
    """
    requests = len(doubts)
    best = ("large", requests, large.double().mean().item(), large_price)
    for limit in doubts.unique().tolist():
        again = doubts > limit
        asked = int(again.sum())
        accuracy = torch.where(again, large, small).double().mean().item()
        dollars = small_price + asked / requests * large_price
        if accuracy >= floor and dollars < best[3]:
            best = ("cascade" if asked else "small", asked, accuracy, dollars)
    return best


# By falling doubt the large model mends, leaves, mends, spoils, mends, and leaves three; two pairs and more are equal.
CARD = (
    torch.tensor([0.02, 0.5, 0.1, 0.9, 0.02, 0.3, 0.1, 0.5], dtype=torch.float64),
    torch.tensor([True, False, True, False, True, True, False, True]),
    torch.tensor([True, True, True, True, True, False, True, True]),
)


def cases(seed: int) -> list[Case]:
    random = Random(seed)
    generator = torch.Generator().manual_seed(seed)
    return [
        Case("the example of the card", (*CARD, 0.25, 1.0, 0.75)),
        Case("the example of the card, small is enough", (*CARD, 0.25, 1.0, 0.625)),
        Case("the example of the card, a floor of 0.8", (*CARD, 0.25, 1.0, 0.8)),
        Case("nano at INT3 on SQL, 16 bits behind it", _nano(random, "INT3 g128", "sql", 0.5)),
        Case("nano at INT2 on arithmetic", _nano(random, "INT2 g32 asymmetric", "arithmetic", 0.8)),
        Case("nano at INT4 on SQL: small is enough", _nano(random, "INT4 g128", "sql", 0.0)),
        Case("doubts that tell something", _drawn(random, generator, 40, 0.8, 0.7)),
        Case("doubts that tell nothing", _drawn(random, generator, 40, 0.0, 0.5)),
        Case("the accuracy rises, falls and rises again", _wavy(random)),
        Case("many equal doubts", _coarse(random, generator)),
        Case("equal doubts, of which one would be enough", _level(random)),
        Case("a cascade that costs as much as the large model", _as_dear(6)),
        Case("a cascade that costs a little less", _as_dear(5)),
        Case("a small model that is hardly cheaper", _dear(random, generator)),
        Case("prices below a cent", _cheap(random, generator)),
        Case("the large model is wrong where the small one is right", _worse(random)),
    ]


def _nano(random: Random, method: str, workload: str, part: float) -> tuple[Any, ...]:
    """Recorded answers; the floor lies so far between the accuracy of the method and that of 16 bits."""
    doubts, small, large = nano_doubts(random, method, workload)
    low, high = int(small.sum()), int(large.sum())
    floor = (low + math.ceil(part * (high - low)) - 0.5) / len(small)
    return doubts, small, large, random.uniform(0.2, 0.35), 1.0, floor


def _drawn(random: Random, generator: torch.Generator, requests: int, tells: float, part: float) -> tuple[Any, ...]:
    """A small model with about `part` right; `tells`: how much its doubt has to do with that."""
    small = torch.rand(requests, generator=generator) < part
    noise = torch.rand(requests, generator=generator, dtype=torch.float64)
    doubts = tells * (~small).double() * noise.sqrt() + (1 - tells) * noise + 0.01 * noise
    large = torch.ones(requests, dtype=torch.bool)
    large[torch.randperm(requests, generator=generator)[:2]] = False
    between = (small.sum() + large.sum()).item() // 2
    return doubts, small, large, random.uniform(0.1, 0.2), 1.0, (between + 0.5) / requests


def _wavy(random: Random) -> tuple[Any, ...]:
    """By falling doubt, the large model mends 3 answers, spoils 2 and mends 4; 2 are enough."""
    pairs = [(0, 1)] * 3 + [(1, 0)] * 2 + [(0, 1)] * 4 + [(1, 1)] * 7
    return *_shuffled(random, pairs), 0.125, 1.0, 0.6875


def _coarse(random: Random, generator: torch.Generator) -> tuple[Any, ...]:
    """Doubts of one digit."""
    doubts, small, large, price, dear, floor = _drawn(random, generator, 48, 0.6, 0.6)
    return (doubts * 5).ceil() / 5, small, large, price, dear, floor


def _level(random: Random) -> tuple[Any, ...]:
    """The three most doubtful answers are wrong, and equally doubtful; the floor needs one more right answer."""
    doubts, small, large = _shuffled(random, [(0, 1)] * 4 + [(1, 1)] * 12)
    third = doubts.topk(3).values[-1]
    return doubts.clamp(max=third), small, large, 0.2, 1.0, 12.5 / 16


def _as_dear(needed: int) -> tuple[Any, ...]:
    """Eight requests, of which the `needed` most doubtful are wrong; the small model has a quarter of the price."""
    doubts = torch.tensor([0.8, 0.2, 0.7, 0.3, 0.6, 0.4, 0.5, 0.1], dtype=torch.float64)
    small = doubts.argsort(descending=True).argsort() >= needed
    return doubts, small, torch.ones(8, dtype=torch.bool), 0.25, 1.0, 1.0


def _dear(random: Random, generator: torch.Generator) -> tuple[Any, ...]:
    doubts, small, large, _, dear, floor = _drawn(random, generator, 40, 0.8, 0.7)
    return doubts, small, large, 0.98, dear, floor


def _cheap(random: Random, generator: torch.Generator) -> tuple[Any, ...]:
    doubts, small, large, price, dear, floor = _drawn(random, generator, 40, 0.8, 0.7)
    return doubts, small, large, price * 1e-4, dear * 1e-4, floor


def _worse(random: Random) -> tuple[Any, ...]:
    """By falling doubt, the large model mends, spoils, both are wrong, and so on; two more right ones are enough."""
    pairs = [(0, 1), (1, 0), (0, 0), (0, 1), (1, 0), (0, 1), (0, 1), (0, 1), *[(1, 1)] * 13]
    return *_shuffled(random, pairs), 0.125, 1.0, 16.5 / len(pairs)


def _shuffled(random: Random, pairs: list[tuple[int, int]]) -> tuple[torch.Tensor, ...]:
    """Doubts for these verdicts of the small and the large model, the most doubtful first; in any order."""
    doubts = sorted((random.uniform(0.05, 1) for _ in pairs), reverse=True)
    rows = [(doubt, *pair) for doubt, pair in zip(doubts, pairs, strict=True)]
    columns = zip(*random.sample(rows, len(rows)), strict=True)
    doubt, small, large = (torch.tensor(column, dtype=torch.float64) for column in columns)
    return doubt, small.bool(), large.bool()


def the_cheapest_plan(case: Case, got: Any, expected: Any) -> Finding | None:
    if finding := p.parts(got, "plan", "asked", "accuracy", "dollars"):
        return finding
    if got[0] == expected[0]:
        return None
    words = '"small", "cascade" or "large"'
    return Finding(f"the plan is wrong; it is one of {words}", expected=repr(expected[0]), got=repr(got[0])[:40])


def the_fewest_requests(case: Case, got: Any, expected: Any) -> Finding | None:
    return p.whole_number_is(got[1], "asked", expected[1], "requests")


def the_accuracy_of_the_plan(case: Case, got: Any, expected: Any) -> Finding | None:
    return near(got[2], "the accuracy", expected[2])


def the_price_of_a_request(case: Case, got: Any, expected: Any) -> Finding | None:
    return near(got[3], "the price of a request", expected[3], unit="dollars")


def _planned(
    doubts, small, large, small_price, large_price, floor, *, groups=None, right=None, price=None, enough=None
):
    """The right answer, but for the parts that are given.

    `groups`: which requests are asked again, for each cascade that is looked at; `right`: which answers are right
    then; `price`: of so many asked again; `enough`: whether an accuracy will do.
    """
    requests = len(doubts)
    groups = [doubts > limit for limit in doubts.unique().tolist()] if groups is None else groups
    right = right or (lambda again: torch.where(again, large, small))
    price = price or (lambda asked: small_price + asked / requests * large_price)
    enough = enough or (lambda accuracy: accuracy >= floor)
    best = ("large", requests, large.double().mean().item(), large_price)
    for again in groups:
        asked, accuracy = int(again.sum()), right(again).double().mean().item()
        if enough(accuracy) and price(asked) < best[3]:
            best = ("cascade" if asked else "small", asked, accuracy, price(asked))
    return best


def _cascades(doubts: Any, small: Any, large: Any, small_price: float, large_price: float) -> list[tuple[Any, ...]]:
    """Every cascade as a plan, from all asked again to none."""
    found = []
    for limit in [-math.inf, *doubts.unique().tolist()]:
        again = doubts > limit
        asked, accuracy = int(again.sum()), torch.where(again, large, small).double().mean().item()
        dollars = small_price + asked / len(doubts) * large_price
        found.append(("cascade" if asked else "small", asked, accuracy, dollars))
    return found


@mutant(
    "a request that is asked again pays for the large model alone. In a cascade the small one has answered first: both "
    "are paid."
)
def asked_once(doubts, small, large, small_price, large_price, floor):
    n = len(doubts)
    return _planned(
        doubts, small, large, small_price, large_price, floor,
        price=lambda asked: (n - asked) / n * small_price + asked / n * large_price,
    )  # fmt: skip


@mutant("every request of the cascade pays for both models. The large one is paid for those that it is asked.")
def both_always_paid(doubts, small, large, small_price, large_price, floor):
    plan, asked, accuracy, dollars = route(doubts, small, large, small_price, large_price, floor)
    return plan, asked, accuracy, small_price + large_price if plan == "cascade" else dollars


@mutant(
    "the large model alone is not among the plans. Where much is asked again it is cheaper: the small one is saved."
)
def large_forgotten(doubts, small, large, small_price, large_price, floor):
    return min(
        (one for one in _cascades(doubts, small, large, small_price, large_price) if one[2] >= floor),
        key=lambda one: one[3],
    )


@mutant("where a cascade costs as much as the large model alone, the cascade is taken. Take the simpler one.")
def cascade_for_the_same_price(doubts, small, large, small_price, large_price, floor):
    best = large_forgotten.answer(doubts, small, large, small_price, large_price, floor)
    return best if best[3] <= large_price else ("large", len(doubts), large.double().mean().item(), large_price)


@mutant("the surest answers are asked again. The small model needs help where its doubt is large.")
def surest_asked_again(doubts, small, large, small_price, large_price, floor):
    groups = [doubts < limit for limit in doubts.unique().tolist()]
    return _planned(doubts, small, large, small_price, large_price, floor, groups=groups)


@mutant("equal doubts are split: the first few of them are asked again. A limit cannot tell them apart.")
def equal_doubts_split(doubts, small, large, small_price, large_price, floor):
    order = doubts.argsort(descending=True, stable=True)
    ranks = order.argsort()
    groups = [ranks < count for count in range(len(doubts))]
    return _planned(doubts, small, large, small_price, large_price, floor, groups=groups)


@mutant(
    "what the small model got wrong is asked again. Nobody knows that in production: all that is known is its doubt."
)
def wrong_ones_asked_again(doubts, small, large, small_price, large_price, floor):
    wrong = torch.nonzero(~small).flatten()[doubts[~small].argsort(descending=True)]
    groups = []
    for count in range(len(wrong) + 1):
        again = torch.zeros_like(small)
        again[wrong[:count]] = True
        groups.append(again)
    return _planned(doubts, small, large, small_price, large_price, floor, groups=groups)


@mutant("the large model is taken to be always right. Look at its own answers.")
def large_is_always_right(doubts, small, large, small_price, large_price, floor):
    return _planned(doubts, small, large, small_price, large_price, floor, right=lambda again: small | again)


@mutant(
    "an answer counts as right where either model had it right. Where the large one is asked, its answer counts, for "
    "better or worse."
)
def either_is_right(doubts, small, large, small_price, large_price, floor):
    return _planned(doubts, small, large, small_price, large_price, floor, right=lambda again: small | (again & large))


@mutant("the accuracy is that of the answers that the small model keeps. Those of the large one count, too.")
def accuracy_of_the_kept(doubts, small, large, small_price, large_price, floor):
    return _planned(doubts, small, large, small_price, large_price, floor, right=lambda again: small[~again])


@mutant("a floor that is reached exactly is not enough here. It says at least: compare with >=.")
def floor_not_enough(doubts, small, large, small_price, large_price, floor):
    return _planned(doubts, small, large, small_price, large_price, floor, enough=lambda accuracy: accuracy > floor)


@mutant("the floor is not looked at: the cheapest plan of all is always the small model.")
def floor_forgotten(doubts, small, large, small_price, large_price, floor):
    return _planned(doubts, small, large, small_price, large_price, floor, enough=lambda accuracy: True)


@mutant("the plan with the best accuracy is taken. Asked for is the cheapest one that reaches the floor.")
def the_most_accurate(doubts, small, large, small_price, large_price, floor):
    plans = [one for one in _cascades(doubts, small, large, small_price, large_price) if one[3] < large_price]
    plans.append(("large", len(doubts), large.double().mean().item(), large_price))
    return max(plans, key=lambda one: (one[2], -one[3]))


@mutant(
    "the search starts where almost everything is asked again and ends before the floor is missed for the first time. "
    "Accuracy goes up and down: look at every limit."
)
def from_the_other_end(doubts, small, large, small_price, large_price, floor):
    groups = []
    for limit in doubts.unique().tolist():
        again = doubts > limit
        if torch.where(again, large, small).double().mean().item() < floor:
            break
        groups.append(again)
    return _planned(doubts, small, large, small_price, large_price, floor, groups=groups)


@mutant(
    "the search asks more and more again, and gives up where the accuracy falls for the first time. It goes up and "
    "down, and may rise again: look at every limit."
)
def gives_up_where_it_falls(doubts, small, large, small_price, large_price, floor):
    groups, before = [], -math.inf
    for limit in doubts.unique().flip(0).tolist():
        again = doubts > limit
        accuracy = torch.where(again, large, small).double().mean().item()
        if accuracy < before:
            break
        groups.append(again)
        before = accuracy
    return _planned(doubts, small, large, small_price, large_price, floor, groups=groups)


@mutant("limits of 0.1, 0.2 and so on are tried. Doubts lie between them, too: every doubt that occurs is a limit.")
def round_limits(doubts, small, large, small_price, large_price, floor):
    groups = [doubts > k / 10 for k in range(10)] + [doubts > math.inf]
    return _planned(doubts, small, large, small_price, large_price, floor, groups=groups)


@mutant(
    "the small model alone is not among the plans: where it reaches the floor, nobody need be asked. Either the "
    "largest doubt is left out as a limit, or those at the limit are asked again, too: compare with > and not with >=."
)
def small_forgotten(doubts, small, large, small_price, large_price, floor):
    groups = [doubts > limit for limit in doubts.unique().tolist()[:-1]]
    return _planned(doubts, small, large, small_price, large_price, floor, groups=groups)


@mutant("there is no cascade here: where the small model misses the floor, the large one answers everything.")
def no_cascade(doubts, small, large, small_price, large_price, floor):
    return _planned(doubts, small, large, small_price, large_price, floor, groups=[doubts > math.inf])


@mutant('a cascade that asks nothing again is called "cascade". It is the small model alone: "small".')
def small_called_cascade(doubts, small, large, small_price, large_price, floor):
    plan, *rest = route(doubts, small, large, small_price, large_price, floor)
    return "cascade" if plan == "small" else plan, *rest


@mutant('with "large" nothing is asked *again*, but everything is asked: asked is the number of all requests.')
def nothing_asked_of_large(doubts, small, large, small_price, large_price, floor):
    plan, asked, *rest = route(doubts, small, large, small_price, large_price, floor)
    return plan, 0 if plan == "large" else asked, *rest


@mutant("the large model alone pays for the small one, too. It is not asked there.")
def large_pays_for_both(doubts, small, large, small_price, large_price, floor):
    plan, asked, accuracy, dollars = route(doubts, small, large, small_price, large_price, floor)
    return plan, asked, accuracy, dollars + small_price * (plan == "large")


@mutant("asked is a part of the requests. Return their number.")
def share_asked(doubts, small, large, small_price, large_price, floor):
    plan, asked, *rest = route(doubts, small, large, small_price, large_price, floor)
    return plan, asked / len(doubts), *rest


@mutant("asked is the number of requests that the small model keeps. Return how many the large one is asked.")
def kept_for_asked(doubts, small, large, small_price, large_price, floor):
    plan, asked, *rest = route(doubts, small, large, small_price, large_price, floor)
    return plan, len(doubts) - asked, *rest


@mutant("dollars is for all requests together. Divide by their number.")
def dollars_of_all(doubts, small, large, small_price, large_price, floor):
    *rest, dollars = route(doubts, small, large, small_price, large_price, floor)
    return *rest, dollars * len(doubts)


@mutant("the accuracy is a number of answers. Divide by the number of requests.")
def right_answers_counted(doubts, small, large, small_price, large_price, floor):
    plan, asked, accuracy, dollars = route(doubts, small, large, small_price, large_price, floor)
    return plan, asked, accuracy * len(doubts), dollars


@mutant("the accuracy is the floor. Return what the plan reaches.")
def floor_for_accuracy(doubts, small, large, small_price, large_price, floor):
    plan, asked, _, dollars = route(doubts, small, large, small_price, large_price, floor)
    return plan, asked, floor, dollars


def by_sorting(doubts, small, large, small_price, large_price, floor):
    """Right, in plain Python: the most doubtful request changes hands first; equal ones in one step."""
    n = len(doubts)
    rows = sorted(zip(doubts.tolist(), small.tolist(), large.tolist(), strict=True), reverse=True)
    right, asked = sum(one for _, one, _ in rows), 0
    while right / n < floor and asked < n:
        limit = rows[asked][0]
        while asked < n and rows[asked][0] == limit:
            right += rows[asked][2] - rows[asked][1]
            asked += 1
    dollars = small_price + asked / n * large_price
    if dollars >= large_price:
        return "large", n, sum(one for *_, one in rows) / n, large_price
    return ("cascade" if asked else "small"), asked, right / n, dollars


def by_listing(doubts, small, large, small_price, large_price, floor):
    """Right, by a list of all plans, of which the cheapest is taken; sums of prices are divided at the end."""
    n = doubts.numel()
    plans = [(n * large_price, 0, "large", n, large.sum() / n)]
    for again in (doubts > limit for limit in (math.inf, *doubts.tolist())):
        asked, accuracy = again.sum().item(), (large & again | small & ~again).sum() / n
        plans.append((n * small_price + asked * large_price, 1, "cascade" if asked else "small", asked, accuracy))
    cost, _, plan, asked, accuracy = min(one for one in plans if round(float(one[4]), 6) >= floor)
    return [plan, asked, accuracy, cost / n]


QUESTION = Question(
    id="choosing.route",
    title="Ask the large model where the small one doubts",
    reference=route,
    cases=cases,
    properties=(the_cheapest_plan, the_fewest_requests, the_accuracy_of_the_plan, the_price_of_a_request),
    mutants=(
        asked_once,
        both_always_paid,
        large_forgotten,
        cascade_for_the_same_price,
        surest_asked_again,
        equal_doubts_split,
        wrong_ones_asked_again,
        large_is_always_right,
        either_is_right,
        accuracy_of_the_kept,
        floor_not_enough,
        floor_forgotten,
        the_most_accurate,
        from_the_other_end,
        gives_up_where_it_falls,
        round_limits,
        small_forgotten,
        no_cascade,
        small_called_cascade,
        nothing_asked_of_large,
        large_pays_for_both,
        share_asked,
        kept_for_asked,
        dollars_of_all,
        right_answers_counted,
        floor_for_accuracy,
    ),
    alternatives=(by_sorting, by_listing),
    hints=(
        "A limit splits the requests in two. How many different splits are there at most, if only the doubts decide? "
        "And what does a request cost that both models answer?",
        "Try every doubt that occurs as the limit; the largest of them asks nothing again. For each: which requests "
        "are asked, which answers count (torch.where), the accuracy, and small_price + asked / requests * "
        "large_price. Then compare with the large model alone.",
        "for limit in doubts.unique().tolist(): again = doubts > limit; accuracy = torch.where(again, large, "
        "small).double().mean().item(); keep the plan where accuracy >= floor and it is cheaper than the best so far, "
        "which at the start is the large model alone.",
    ),
    explanation=(
        "A cascade pays twice where it doubts: with a small model at a quarter of the price it is cheaper than the "
        "large one alone only while it asks fewer than 75 % again. nano at INT3 on SQL has 84.6 %; to reach 96 % it "
        "asks 184 of 500 again, for 0.618 of the price. With GPTQ's 3 bits, as large and as fast, it asks 17, for "
        "0.284. A better small model is the better router. The limit was chosen on the answers that judge it here: "
        "choose it on some, and measure on others."
    ),
)
