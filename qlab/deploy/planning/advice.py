"""A plan in words: the paragraph for whoever signs, what would help where nothing meets the target.

Every number in these sentences is computed from the plan.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import replace

from ..serving.engine import alone, estimate, floor
from ..serving.workloads import Workload, duration
from ..speed.validation import left_out
from .options import Option, Plan
from .support import kernels
from .tables import seconds_alone


def paragraph(plan: Plan, today: datetime.date | None = None) -> str:
    """The recommendation with its reasons, its limits and where its numbers come from."""
    if plan.choice is None:
        return " ".join(["Nothing that is known meets the target.", *remedies(plan), plan.prices(today)])
    return " ".join([*_recommendation(plan), *_rivals(plan), _longer(plan), *trust(plan), plan.prices(today)])


def remedies(plan: Plan) -> list[str]:
    """What would do where nothing meets the target, in sentences; empty where something does."""
    if plan.choice is not None:
        return []
    runs = [one for one in plan.options if not one.replica.obstacles]
    if not runs:
        return _too_large(plan)
    fastest = min(runs, key=seconds_alone)
    at, needed = fastest.replica, seconds_alone(fastest)
    limit = plan.target.seconds
    shown = f"{at} ({fastest.instance.name})"
    if not at.floor.meets(plan.target) and needed <= limit:  # so it is the tokens after the first that are late
        steady = min(one.replica.floor.per_token or 0 for one in runs)
        said = [f"No server gives a token in less than {duration(steady)}; allow that, and some more under load."]
    elif needed > limit:
        said = [
            f"The fastest, {shown}, needs {duration(needed)} for one request alone; the limit is {duration(limit)}.",
            f"What would do: a limit above {duration(needed)};",
        ]
        said += _shorter(plan, fastest)
    elif all(one.instance.price_usd_per_hour is None for one in runs):
        return ["No price is listed for what could run it; give one in the file that QLAB_DATA names."]
    else:
        said = [
            f"Alone a request takes {duration(needed)} on {shown}, within the limit of {duration(limit)}, but with "
            f"others beside it too many come late. Allow more time, or shorten the requests."
        ]
    return [*said, "A smaller model is the other way. More machines do not help: each request runs on one of them."]


def trust(plan: Plan) -> list[str]:
    """How far the numbers of the recommended option go; empty where there is none."""
    if plan.choice is None:
        return []
    off = left_out().median
    at = plan.choice.replica
    needed = kernels(at.scheme)
    return [
        *([f"Kernels: {needed.note}"] if at.gpu.architecture in needed.note else []),
        f"Times come from a roofline ({at.calibration}), which misses published speeds of other sources by {off:.0%} "
        f"in the median: measure the first two options before you buy.",
        f"The requests are assumed, as {plan.workload}.",
        "What fewer bits cost in accuracy is not in these numbers; measure it on your own examples.",
    ]


def comparison(plan: Plan) -> list[str]:
    """What sets two or more options on one machine apart, in sentences: the first against each of the others."""
    said = []
    runs = [one for one in plan.options if not one.replica.obstacles]
    for one, other in ((runs[0], other) for other in runs[1:]):
        a, b = one.replica, other.replica
        prompt = round(plan.workload.mean_prompt)
        first_a, first_b = (alone(at.engine, prompt, 1)[0] for at in (a, b))
        token_a, token_b = (alone(at.engine, prompt, 2)[1] - first for at, first in ((a, first_a), (b, first_b)))
        said.append(
            f"{a} against {b}: a prompt of {prompt:,} tokens takes {duration(first_a)} against {duration(first_b)}, a "
            f"token after it {duration(token_a)} against {duration(token_b)}; beside the weights "
            f"{a.fit.tokens * one.replicas:,} tokens of cache against {b.fit.tokens * other.replicas:,} on the machine."
        )
        if (first_a - first_b) * (token_a - token_b) < 0:
            even = 1 + (first_a - first_b) / (token_b - token_a)
            winner = a if token_a < token_b else b
            said.append(f"Alone, {winner.scheme.name} answers sooner from {even:,.0f} tokens on, the other below that.")
        if one.possible and other.possible:
            more, better = sorted((one, other), key=lambda option: option.usd_per_million, reverse=True)
            share = more.usd_per_million / better.usd_per_million - 1
            said.append(
                f"At its highest load {better.replica.scheme.name} costs {better.usd_per_million:,.2f} USD per million "
                f"output tokens, {more.replica.scheme.name} {share:.0%} more."
            )
    return said


def _recommendation(plan: Plan) -> list[str]:
    best = plan.choice
    assert best is not None
    at = best.replica
    many = f"{best.machines} x " if best.machines > 1 else ""
    copies = f"{best.replicas} copies of the model on {at.gpus} GPUs each" if best.replicas > 1 else "one copy"
    said = [
        f"Serve {plan.model.name} in {at.scheme.name} on {many}{best.instance.name} "
        f"({best.instance.count} x {at.gpu.name}, {copies}): {best.usd_per_month:,.0f} USD a month on demand in "
        f"{best.instance.region}, and {best.usd_per_million:,.2f} USD per million output tokens at full load.",
        f"The target is {plan.target}.",
    ]
    load = plan.at_load or (best.capacity.best if best.capacity else None)
    if load is not None:
        seen = load.answer if plan.target.of == "answer" else load.first
        rate = best.rate if plan.qps is None else plan.qps
        tokens = "" if load.per_token is None else f", each further token {duration(load.per_token)}"
        said.append(f"At {_per_second(rate)} the simulation finds {duration(seen)}{tokens}.")
    if plan.qps is not None:
        spare = 1 - plan.qps / (best.machines * best.rate)
        said.append(
            f"A machine bears {_per_second(best.rate)}: {spare:.0%} of what they bear is spare, but no whole machine "
            "is a spare."
        )
    return said


def _rivals(plan: Plan) -> list[str]:
    """The next best kind of option, the other precisions on the same GPU, and how many others failed at what."""
    best = plan.choice
    assert best is not None
    said = []
    other = next((one for one in plan.options if one.possible and one.key != best.key), None)
    if other is not None:
        many = f"{other.machines} x " if other.machines > 1 else ""
        said.append(f"Next: {other.replica} ({many}{other.instance.name}), {other.verdict}.")
    lost = {"do not fit": 0, "have no kernels": 0, "are too late at any load": 0}
    for one in plan.options:
        lost["do not fit"] += not one.replica.fit.fits
        lost["have no kernels"] += one.replica.fit.fits and bool(one.replica.obstacles)
        lost["are too late at any load"] += not one.replica.obstacles and not one.rate
    counts = ", ".join(f"{count} {words}" for words, count in lost.items() if count)
    if counts:
        said.append(f"Of {len(plan.options)} options {counts}.")
    return said


def _longer(plan: Plan) -> str:
    """What twice the time would be worth, by the estimate."""
    best = plan.choice
    assert best is not None
    at = best.replica
    patient = replace(plan.target, seconds=2 * plan.target.seconds)
    ratio = estimate(at.engine, at.workload, patient) / at.estimate
    if ratio < 1.05:
        return f"Twice the time ({duration(patient.seconds)}) would not let it bear more."
    return f"With twice the time ({duration(patient.seconds)}) it would bear about {ratio:.1f} times the load."


def _too_large(plan: Plan) -> list[str]:
    fitting = [one for one in plan.options if one.replica.fit.fits]
    if fitting:
        return [f"Where {plan.model.name} fits there are no kernels: {fitting[0].verdict}. Name another precision."]
    near = max(plan.options, key=lambda one: one.replica.gpus * one.replica.fit.budget)
    missing = near.replica.fit.breakdown.kv_cache - near.replica.fit.budget
    return [
        f"{plan.model.name} fits nowhere: the nearest, {near.replica} ({near.instance.name}), misses "
        f"{near.replica.gpus * missing / 1e9:.1f} GB. Fewer bits, shorter requests or larger machines would do."
    ]


def _shorter(plan: Plan, fastest: Option) -> list[str]:
    """The longest mean answer, and the longest mean prompt, with which a request alone would be in time."""
    at, shape, said = fastest.replica, plan.workload, []
    for field, words in (("output", "answers of"), ("prompt", "prompts of")):
        if field == "output" and plan.target.of == "first token":
            continue

        def meets(tokens: int, field: str = field) -> bool:
            shorter: Workload = replace(shape, **{field: tokens})  # type: ignore[arg-type]
            return floor(at.engine, shorter, plan.target).meets(plan.target)

        tokens = _largest(meets, getattr(shape, field))
        if tokens:
            said.append(f"or {words} at most {tokens:,} tokens in place of {getattr(shape, field):,}")
        else:
            said.append(f"no shorter {'answer' if field == 'output' else 'prompt'} is short enough by itself")
    return [f"{'; '.join(said)}."]


def _largest(meets: Callable[[int], bool], below: int) -> int:
    """The largest number from 1 to below - 1 that meets, where smaller ones do; 0 if none does."""
    low, high = 0, below
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if meets(middle) else (low, middle)
    return low


def _per_second(rate: float) -> str:
    return "1 request per second" if rate == 1 else f"{rate:.3g} requests per second"
