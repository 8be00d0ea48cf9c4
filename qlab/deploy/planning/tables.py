"""Plans as tables: names of columns, and rows of words and numbers as they are shown."""

from __future__ import annotations

from ..roofline import datasheet
from ..serving.engine import alone
from ..serving.workloads import duration
from ..speed.phases import decode
from .options import Option, Plan

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]  # names of columns, and rows
COLUMNS = (
    "machines", "precision", "GPUs each", "weights GB/GPU", "KV tokens", "alone: first", "alone: answer",
    "requests/s", "USD/M tokens", "USD/month", "verdict",
)  # fmt: skip
COMPARED = (
    "precision", "arithmetic", "GPUs each", "weights GB/GPU", "KV tokens", "prompt", "token", "token bound by",
    "requests/s", "USD/M tokens", "verdict",
)  # fmt: skip


def options_table(plan: Plan, everything: bool = False) -> Table:
    """The options by rank; without `everything` the best precision of each kind of machine, and others of the choice's.

    Machines with the same GPUs at a higher price are left out then.
    """
    shown = plan.options if everything else _worth_showing(plan)
    return COLUMNS, [_row(one, one.verdict or "RECOMMENDED") for one in shown]


def comparison_table(plan: Plan) -> Table:
    """Options on one machine, side by side. A prompt and a token are those of one request alone."""
    return COMPARED, [_compared(one) for one in plan.options]


def _worth_showing(plan: Plan) -> list[Option]:
    """For each kind of machine the option that got farthest, and all that are on the recommended machine."""
    best = plan.choice
    leaders: dict[tuple[str, int], Option] = {}
    for one in sorted(plan.options, key=_how_far):
        leaders.setdefault((one.instance.gpu.name, one.instance.count), one)
    return [
        one
        for one in plan.options
        if one is leaders[one.instance.gpu.name, one.instance.count]
        or (best is not None and one.instance == best.instance)
    ]


def _how_far(one: Option) -> tuple[int, float, float]:
    """Less for an option that got farther: by cost, by time, by the memory that is missing; then by the price."""
    at, price = one.replica, one.instance.price_usd_per_hour or float("inf")
    if one.possible:
        return 0, one.usd, price
    if not at.obstacles:
        return 1, seconds_alone(one), price
    return 2, -at.gpus * at.fit.budget, price


def _row(one: Option, verdict: str) -> tuple[str, ...]:
    at = one.replica
    runs = not at.obstacles
    many = f"{one.machines} x " if one.possible and one.machines > 1 else ""
    return (
        f"{many}{one.instance.name}",
        at.scheme.name,
        _gpus(one),
        f"{at.fit.breakdown.weights / 1e9:.1f}",
        f"{at.fit.tokens:,}" if at.fit.fits else "-",
        duration(at.floor.first) if runs else "-",
        duration(at.floor.answer) if runs else "-",
        _rate(one),
        f"{one.usd_per_million:,.2f}" if one.possible else "-",
        f"{one.usd_per_month:,.0f}" if one.possible else "-",
        verdict,
    )


def _compared(one: Option) -> tuple[str, ...]:
    at, given = one.replica, one.replica.given
    rate = at.scheme.rate(datasheet(at.gpu)).upper()
    row = [at.scheme.name, rate, _gpus(one), f"{at.fit.breakdown.weights / 1e9:.1f}"]
    row.append(f"{at.fit.tokens:,}" if at.fit.fits else "-")
    if at.obstacles:
        row += ["-", "-", "-"]
    else:
        prompt = round(at.workload.mean_prompt)
        first, second = alone(at.engine, prompt, 2)
        phase = decode(
            at.model, at.scheme, at.gpu, 1, prompt,
            tensor_parallel=at.gpus, kv_bits=given.kv_bits, kernels=given.kernels,
        )  # fmt: skip
        row += [duration(first), duration(second - first), phase.bound]
    return (*row, _rate(one), f"{one.usd_per_million:,.2f}" if one.possible else "-", one.verdict or "CHEAPEST")


def _gpus(one: Option) -> str:
    """ "2 x 4": two copies of the model on four GPUs each."""
    return f"{one.replicas} x {one.replica.gpus}"


def _rate(one: Option) -> str:
    """Requests per second of a machine; ~ for an estimate."""
    if one.replica.obstacles or not one.rate:
        return "-"
    return f"{'' if one.capacity is not None else '~'}{one.rate:.3g}"


def seconds_alone(option: Option) -> float:
    """Seconds of what the target limits, for a request alone."""
    floor = option.replica.floor
    return floor.answer if option.replica.target.of == "answer" else floor.first
