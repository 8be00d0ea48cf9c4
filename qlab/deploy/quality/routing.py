"""Tiered routing: easy requests to a cheap tier, hard ones to a dear one; what it costs, what it keeps, when it pays.

Two ways to know what is hard. A router that decides *before* it answers sees the workload and the length of the
prompt, and pays one tier. A cascade lets the small tier answer *first* and asks the large one again where the small
one was not sure (Chen, Zaharia, Zou 2023, "FrugalGPT"): it knows more, and pays both. With costs s and l for each
request, and a part e that is asked again,

    dollars per request = s + e l,      which is below l only while e < 1 - s / l.

Quality comes from `quality`: nano's answers, example by example, so a policy is replayed on the very answers that both
tiers gave. Dollars per request are yours to give. What comes out is true of nano on its workloads. A large model's
tiers differ in other places and by other amounts; the procedure is the same.

The weights of both tiers must also be in memory, on GPUs that come whole: see `fleet`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ..entries import is_positive, look_up, suggestion
from .measured import Answers, Quality, quality

EVEN, ODD = slice(0, None, 2), slice(1, None, 2)  # examples to choose on, and others to measure the choice on
_TINY = 1e-9  # rounding of sums of shares


@dataclass(frozen=True)
class Tier:
    """A model that can answer: a method of the quality file, and dollars for each request that it computes.

    Raises ValueError unless the dollars are above 0.
    """

    method: str
    dollars: float

    def __post_init__(self) -> None:
        if not is_positive(self.dollars):
            raise ValueError(f"dollars: got {self.dollars!r}; give dollars per request, above 0")


@dataclass(frozen=True)
class Known:
    """What a router knows of a request. `confidence` is None where no tier has answered yet."""

    workload: str
    tokens: int  # of the prompt
    confidence: float | None = None  # of the first tier in its answer


Policy = Callable[[Known], str]  # -> the method whose answer the user gets


@dataclass(frozen=True)
class Outcome:
    """A policy, replayed. Shares are parts of all requests, accuracy is weighted by workload as the mix says."""

    asked: dict[str, float]  # what each tier computes; with a first tier the sum is above 1
    answered: dict[str, float]  # whose answer users get; sums to 1
    by_workload: dict[str, float]  # accuracy
    accuracy: float
    change: float  # of accuracy against everything to `against`, on the same examples
    stderr: float  # of `change`: paired, workload by workload
    against: str
    first: str | None  # the tier that answered everything first
    dollars: float  # per request

    @property
    def escalated(self) -> float:
        """The part of the requests that is computed twice."""
        return sum(self.asked.values()) - 1

    def __str__(self) -> str:
        shares = ", ".join(f"{100 * share:.1f} % {name}" for name, share in self.answered.items() if share)
        twice = f", {100 * self.escalated:.1f} % computed twice" if self.escalated > _TINY else ""
        return (
            f"{shares}{twice}: accuracy {100 * self.accuracy:.1f} % ({100 * self.change:+.1f} ± "
            f"{100 * self.stderr:.1f} points against {self.against}), ${self.dollars:.3g} per request"
        )


def always(method: str) -> Policy:
    """Everything to one tier."""
    return lambda known: method


def by_workload(methods: Mapping[str, str]) -> Policy:
    """The tier by workload. Raises ValueError, when it is asked, for a workload that has none."""
    return lambda known: str(look_up("workload", known.workload, methods))


def by_length(limit: int, short: str, long: str) -> Policy:
    """Prompts of more than `limit` tokens to the tier `long`."""
    return lambda known: long if known.tokens > limit else short


def by_confidence(threshold: float, small: str, large: str) -> Policy:
    """Ask the large tier again where the confidence of the small one, which answers first, is below the threshold.

    Raises ValueError, when it is asked, where nobody answered first: confidence is what an answer costs.
    """

    def policy(known: Known) -> str:
        if known.confidence is None:
            raise ValueError(f"first: got None; confidence is known after an answer, give first={small!r}")
        return large if known.confidence < threshold else small

    return policy


def route(
    policy: Policy,
    tiers: Sequence[Tier],
    mix: Mapping[str, float] | None = None,
    *,
    first: str | None = None,
    against: str | None = None,
    rows: slice = slice(None),
    measured: Quality | None = None,
) -> Outcome:
    """Replay a policy on the measured answers.

    Args:
        policy: from what is known of a request to the method that answers.
        tiers: those there are; the policy may choose no other.
        mix: the share of each workload in the traffic; it is scaled to sum to 1. None: equal shares.
        first: the tier that answers everything first, so that its confidence is known; every request pays for it.
        against: the method to compare with; by default that of the dearest tier.
        rows: the examples to use, such as EVEN or ODD.
        measured: the answers; by default those of nano that ship.

    Raises:
        ValueError: no tiers or one of them twice, an unknown method, tier or workload, shares that are negative or
            all 0, or fewer than 2 examples.
    """
    measured = quality() if measured is None else measured
    priced = _priced(tiers, measured)
    against = max(tiers, key=lambda tier: tier.dollars).method if against is None else against
    baseline = measured.method(against).answers
    shares = _shares(mix, measured)
    if first is not None and first not in priced:
        raise ValueError(f"first: got {first!r}; it must be one of the tiers, {', '.join(priced)}")
    asked, answered = dict.fromkeys(priced, 0.0), dict.fromkeys(priced, 0.0)
    rates, change, variance = {}, 0.0, 0.0
    for workload, share in shares.items():
        answers = {name: measured.method(name).answers[workload] for name in priced}
        tokens = measured.tokens[workload]
        picked = range(len(tokens))[rows]
        if len(picked) < 2:
            raise ValueError(f"rows: got {rows}, which leaves {len(picked)} examples of {workload}; leave 2 or more")
        right, moved = 0, []
        for i in picked:
            known = Known(workload, tokens[i], None if first is None else answers[first].confidence[i])
            chosen = policy(known)
            if chosen not in priced:
                raise ValueError(f"policy: got {chosen!r} for {known}; it must be one of {', '.join(priced)}")
            for name in {chosen, first or chosen}:
                asked[name] += share / len(picked)
            answered[chosen] += share / len(picked)
            right += answers[chosen].correct[i]
            moved.append(answers[chosen].correct[i] - baseline[workload].correct[i])
        rates[workload] = right / len(picked)
        mean = sum(moved) / len(moved)
        change += share * mean
        variance += share**2 * sum((one - mean) ** 2 for one in moved) / (len(moved) - 1) / len(moved)
    return Outcome(
        asked=asked,
        answered=answered,
        by_workload=rates,
        accuracy=sum(share * rates[workload] for workload, share in shares.items()),
        change=change,
        stderr=math.sqrt(variance),
        against=against,
        first=first,
        dollars=sum(priced[name] * share for name, share in asked.items()),
    )


def thresholds(small: str, points: int = 20, rows: slice = slice(None), measured: Quality | None = None) -> list[float]:
    """Confidences below which 0, 1/points, …, all of a method's answers lie: thresholds for a frontier.

    The last one is above 1, so that nothing escapes. Raises ValueError for points below 1 or an unknown method.
    """
    if type(points) is not int or points < 1:
        raise ValueError(f"points: got {points!r}; it must be a whole number, 1 or more")
    answers = (quality() if measured is None else measured).method(small).answers.values()
    seen = sorted(confidence for one in answers for confidence in one.confidence[rows])
    return [0.0, *(seen[len(seen) * k // points] for k in range(1, points)), math.nextafter(1, 2)]


def frontier(
    small: Tier,
    large: Tier,
    mix: Mapping[str, float] | None = None,
    points: int = 20,
    *,
    rows: slice = slice(None),
    measured: Quality | None = None,
) -> list[tuple[float, Outcome]]:
    """The cascade at every threshold: (threshold, outcome), from all to the small tier to everything asked twice.

    The best point of it flatters: it was the best on these examples. `choose` picks on some and measures on others.
    """
    found = []
    for threshold in thresholds(small.method, points, rows, measured):
        policy = by_confidence(threshold, small.method, large.method)
        outcome = route(
            policy, (small, large), mix, first=small.method, against=large.method, rows=rows, measured=measured
        )
        found.append((threshold, outcome))
    return found


def most_escalated(small: Tier, large: Tier) -> float:
    """The part of the requests that a cascade may ask again before it costs more than the large tier alone."""
    return max(0.0, 1 - small.dollars / large.dollars)


@dataclass(frozen=True)
class Choice:
    """The cheapest policy that keeps the accuracy. `outcome` was measured on examples that had no say in the choice."""

    policy: str
    outcome: Outcome
    candidates: dict[str, Outcome]  # on the examples that chose
    most_lost: float
    why: str

    @property
    def kept(self) -> bool:
        """Whether no more than `most_lost` was lost on the other examples, too; its error is `outcome.stderr`."""
        return self.outcome.change >= -self.most_lost - _TINY

    def __str__(self) -> str:
        kept = "" if self.kept else "; the accuracy was not kept on the other examples"
        return f"{self.policy}: {self.why}{kept}\n{self.outcome}"


def choose(
    small: Tier,
    large: Tier,
    mix: Mapping[str, float] | None = None,
    most_lost: float = 0.005,
    *,
    measured: Quality | None = None,
) -> Choice:
    """Everything to one tier, a tier by workload, or a cascade: the cheapest that loses at most `most_lost`.

    Even examples choose, odd ones measure. By workload: the small tier wherever it loses at most `most_lost` itself.

    Args:
        most_lost: accuracy that may be lost against everything to the large tier: 0.005 is half a point.

    Raises:
        ValueError: `most_lost` outside 0 to 1, or as `route`.
    """
    if not 0 <= most_lost <= 1:
        raise ValueError(f"most_lost: got {most_lost!r}; give a part of one, 0.005 for half a point")
    known = quality() if measured is None else measured
    tiers, names = (small, large), (small.method, large.method)
    low, high = (known.method(name).answers for name in names)
    split = {
        workload: small.method if _rate(high[workload]) - _rate(low[workload]) <= most_lost else large.method
        for workload in known.workloads
    }
    policies: dict[str, tuple[Policy, str | None]] = {
        f"everything to {small.method}": (always(small.method), None),
        f"everything to {large.method}": (always(large.method), None),
        "by workload": (by_workload(split), None),
    }
    for threshold in thresholds(small.method, 50, EVEN, measured):
        name = f"cascade, asked again below {100 * threshold:.4g} %"
        policies[name] = by_confidence(threshold, *names), small.method

    def replay(name: str, rows: slice) -> Outcome:
        policy, first = policies[name]
        return route(policy, tiers, mix, first=first, against=large.method, rows=rows, measured=measured)

    candidates = {name: replay(name, EVEN) for name in policies}
    enough = {name: one for name, one in candidates.items() if one.change >= -most_lost - _TINY}
    best = min(enough, key=lambda name: enough[name].dollars)
    outcome = replay(best, ODD)
    if best == f"everything to {small.method}":
        why = f"routing does not pay, {small.method} alone loses no more than {100 * most_lost:.2g} points"
    elif best == f"everything to {large.method}":
        why = f"routing does not pay, whatever keeps the accuracy costs as much as {large.method} alone"
    else:
        saved = 100 * (1 - outcome.dollars / large.dollars)
        why = f"routing pays, {saved:.0f} % cheaper than {large.method} alone, if both tiers are busy (see fleet)"
    return Choice(best, outcome, candidates, most_lost, why)


def _priced(tiers: Sequence[Tier], measured: Quality) -> dict[str, float]:
    priced = {measured.method(tier.method).name: tier.dollars for tier in tiers}
    if not tiers or len(priced) < len(tiers) or set(priced) != {tier.method for tier in tiers}:
        names = [tier.method for tier in tiers]
        raise ValueError(f"tiers: got {names}; give one or more, each once, of {', '.join(measured.methods)}")
    return priced


def _shares(mix: Mapping[str, float] | None, measured: Quality) -> dict[str, float]:
    mix = dict.fromkeys(measured.workloads, 1.0) if mix is None else mix
    for workload, share in mix.items():
        if workload not in measured.tokens:
            raise ValueError(f"mix: got {workload!r}; {suggestion(str(workload), measured.tokens)}")
        if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < math.inf:
            raise ValueError(f"mix: got {share!r} for {workload}; give its share of the requests, 0 or more")
    if not sum(mix.values()):
        raise ValueError(f"mix: got {dict(mix)}; at least one share must be above 0")
    return {workload: share / sum(mix.values()) for workload, share in mix.items() if share}


def _rate(answers: Answers) -> float:
    correct = answers.correct[EVEN]
    return sum(correct) / len(correct)
