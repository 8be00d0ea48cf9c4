"""The numbers of an interview, each computed by `qlab.deploy` when it is asked for.

A scenario names a function of this registry and its arguments:

    weights_int4: {compute: weights, of: {model: Llama-3-70B, precision: int4-g128}, unit: GB}

Every function gives a value in its own unit, which `value` converts. What a server needs beside the data sheet comes
from the calibrated roofline (`deploy.speed`) and from the plan (`deploy.planning`), as in the lessons.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from qlab import deploy
from qlab.deploy import cost, roofline, user
from qlab.deploy.entries import look_up
from qlab.deploy.planning.options import Option
from qlab.deploy.planning.plan import plan
from qlab.deploy.quality import power
from qlab.deploy.quality.measured import REFERENCE, quality
from qlab.deploy.results import result
from qlab.deploy.speed import phases

from ..units import unit

Compute = Callable[..., float]


@dataclass(frozen=True)
class Computation:
    """A function of the registry and the unit of what it gives."""

    function: Compute
    unit: str


COMPUTATIONS: dict[str, Computation] = {}


def computes(unit_name: str) -> Callable[[Compute], Compute]:
    """Register a function under its own name; its values are in that unit."""

    def register(function: Compute) -> Compute:
        COMPUTATIONS[function.__name__] = Computation(function, unit_name)
        return function

    return register


def value(compute: str, of: Mapping[str, Any], unit_name: str) -> float:
    """What a function of the registry gives for the arguments `of`, in a unit.

    Raises:
        ValueError: no such function, arguments that it refuses, or a unit of another dimension.
    """
    found = look_up("compute", compute, COMPUTATIONS)
    ours, theirs = unit(found.unit), unit(unit_name)
    if ours.dimension != theirs.dimension:
        raise ValueError(f"unit: got {unit_name!r}; {compute} gives {found.unit or 'a bare number'}")
    try:
        number = _computed(user.stamp(), compute, tuple(sorted(of.items())))
    except TypeError as error:
        raise ValueError(f"of: {compute}: {error}") from None
    return number * ours.factor / theirs.factor


@lru_cache(maxsize=1024)
def _computed(data: user.Stamp, compute: str, of: tuple[tuple[str, Any], ...]) -> float:
    return COMPUTATIONS[compute].function(**dict(of))


@computes("bytes")
def weights(model: str, precision: str, gpus: int = 1) -> float:
    """Of all GPUs together, norms held twice and all."""
    return gpus * deploy.memory(model, precision, tensor_parallel=gpus).weights


@computes("bytes")
def kv_cache(model: str, tokens: int, kv_bits: int = 16) -> float:
    """Of that many tokens, whoever they belong to."""
    return tokens * deploy.memory(model, kv_bits=kv_bits).kv_per_token


@computes("bytes")
def visible(place: str) -> float:
    """Memory that CUDA shows on a GPU, or on all GPUs of an instance."""
    if "." in place:
        return deploy.instance(place).visible_bytes
    return deploy.gpu(place).visible_bytes


@computes("tokens")
def cached_tokens(model: str, precision: str, place: str, **options: Any) -> float:
    """That fit beside the weights on a GPU or on an instance with all its GPUs; `options` go to `fits`."""
    return deploy.fits(model, place, precision=precision, **options).tokens


@computes("requests")
def batch_that_fits(model: str, precision: str, place: str, context: int, **options: Any) -> float:
    """Whole requests of `context` tokens."""
    return deploy.fits(model, place, precision=precision, context=context, **options).batch


@computes("bits per weight")
def bits_per_weight(precision: str, model: str = "Llama-3-70B") -> float:
    """Of the layers' matrices, scales and zero-points counted."""
    return deploy.memory(model, precision).bits_per_weight


@computes("s")
def token_time(
    model: str, precision: str, place: str, gpus: int = 1, batch: int = 1, context: int = 0, kernels: str = "server"
) -> float:
    """One step of decode; kernels="datasheet" is the bound that no kernel can beat."""
    return phases.decode(model, precision, place, batch, context, tensor_parallel=gpus, kernels=kernels).seconds


@computes("s")
def prompt_time(
    model: str, precision: str, place: str, tokens: int, gpus: int = 1, batch: int = 1, kernels: str = "server"
) -> float:
    """Prefill of a batch of prompts."""
    return phases.prefill(model, precision, place, tokens, batch, tensor_parallel=gpus, kernels=kernels).seconds


@computes("x")
def token_speedup(model: str, precision: str, place: str, against: str = "bf16", **options: Any) -> float:
    """How much shorter a step of decode is than at the precision `against`; `options` as of `token_time`."""
    slow, fast = (token_time(model, how, place, **options) for how in (against, precision))
    return slow / fast


@computes("tokens")
def ridge(place: str, rate: str = "fp16") -> float:
    """Tokens at once from which a product with 16-bit weights is bound by arithmetic, by the data sheet.

    A weight of two bytes is multiplied and added once for each token: one operation per byte and token.
    """
    return roofline.datasheet(place).ridge(rate)


@computes("USD/h")
def price(instance: str) -> float:
    """On demand, of the date that `deploy.instances` gives."""
    found = deploy.instance(instance).price_usd_per_hour
    if found is None:
        raise ValueError(f"instance: {instance} has no price")
    return found


@computes("requests/s")
def requests_per_second(model: str, precision: str, instance: str, workload: str, latency: float) -> float:
    """The most that one instance bears with 95 % of the answers (or first tokens) within `latency` seconds."""
    return _option(model, precision, instance, workload, latency, None).rate


@computes("machines")
def machines(model: str, precision: str, instance: str, workload: str, latency: float, qps: float) -> float:
    """Instances for `qps` requests per second within `latency`."""
    return _option(model, precision, instance, workload, latency, qps).machines


@computes("USD/month")
def usd_per_month(model: str, precision: str, instance: str, workload: str, latency: float, qps: float) -> float:
    """Of those instances, on demand."""
    return _option(model, precision, instance, workload, latency, qps).usd_per_month


@computes("s")
def alone(model: str, precision: str, instance: str, workload: str) -> float:
    """The whole answer of one request that has the instance for itself, at percentile 95."""
    return _option(model, precision, instance, workload, 600, None).replica.floor.answer


def _option(*asked: Any) -> Option:
    """A precision on an instance; the arguments are those of `requests_per_second` and the requests per second."""
    return _simulated(user.stamp(), *asked)


@lru_cache(maxsize=64)
def _simulated(
    data: user.Stamp, model: str, precision: str, where: str, workload: str, latency: float, qps: float | None
) -> Option:
    """Raises ValueError where the precision does not run there, or never within `latency`."""
    options = plan(model, workload, latency=latency, qps=qps, precisions=[precision], among=[deploy.instance(where)])
    found = options.options[0]
    if not found.possible:
        raise ValueError(f"{precision} on {where}: {found.verdict}")
    return found


@computes("percent")
def nano_accuracy(method: str, workload: str) -> float:
    """Of the embedded model on held-out examples: its numbers, not those of a large model."""
    return 100 * quality().method(method).answers[workload].accuracy


@computes("percent")
def nano_lost(method: str, workload: str) -> float:
    """Points of accuracy lost against 16 bits by the embedded model."""
    return nano_accuracy(REFERENCE, workload) - nano_accuracy(method, workload)


@computes("bytes")
def weights_read(model: str, precision: str) -> float:
    """By one step of decode: matrices of the layers and the head in 16 bits, no embedding table."""
    return phases.weight_bytes(model, precision)


@computes("x")
def layers_limit(precision: str, model: str = "Llama-3-70B") -> float:
    """How many times fewer bytes the layers' matrices take than in 16 bits: no product gains more."""
    return 16 / bits_per_weight(precision, model)


@computes("tokens")
def weight_only_ridge(place: str, precision: str, model: str = "Llama-3-70B") -> float:
    """`ridge` with weights of that precision that are multiplied in 16 bits."""
    return phases.crossover(place, bits_per_weight(precision, model))


@computes("requests")
def losing_batch(
    model: str, precision: str, place: str, against: str = "bf16", most: int = 1024, **options: Any
) -> float:
    """The smallest batch whose step of decode is longer than at `against`; `options` as of `token_time`.

    Raises:
        ValueError: there is none up to `most`, as with kernels="datasheet", where weight-only formats tie at worst.
    """
    for batch in range(1, most + 1):
        ours, theirs = (token_time(model, how, place, batch=batch, **options) for how in (precision, against))
        if ours > theirs * (1 + 1e-9):
            return batch
    raise ValueError(f"losing_batch: {precision} is never slower than {against} on {place} up to {most} requests")


@computes("bytes")
def cache_room(model: str, precision: str, place: str, **options: Any) -> float:
    """Left for the KV cache on all GPUs together, after weights and overhead; `options` go to `fits`.

    Raises:
        ValueError: the weights do not fit.
    """
    found = deploy.fits(model, place, precision=precision, **options)
    if found.budget < 0:
        raise ValueError(f"cache_room: {found}")
    return found.gpus * found.budget


@computes("bits")
def kv_bits_held(model: str, bits: int, group_size: int) -> float:
    """Of a number in the KV cache, with its part of the group's scale and minimum."""
    held = deploy.memory(model, kv_bits=bits, kv_group_size=group_size)
    return 8 * held.kv_per_token / held.spec.kv_values_per_token


@computes("s")
def alone_within(model: str, precision: str, instance: str, workload: str, latency: float) -> float:
    """As `alone`, but with the model split over the GPUs as a limit of `latency` seconds asks; met or not.

    Raises:
        ValueError: the precision does not run on the instance.
    """
    found = plan(
        model, workload, latency=latency, precisions=[precision], among=[deploy.instance(instance)], best=0, most=0
    )
    one = found.options[0]
    if one.replica.obstacles:
        raise ValueError(f"{precision} on {instance}: {one.verdict}")
    return one.replica.floor.answer


@computes("requests")
def pairs_needed(lost: float, gained: float) -> float:
    """That two models must both answer for a paired test to see the difference; parts of the answers, power 80 %."""
    return power.pairs_size(lost, gained)


@computes("requests")
def strangers_needed(before: float, after: float) -> float:
    """For each model, where the two answer different requests; parts of right answers, power 80 %."""
    return power.ab_size(before, after)


@computes("percent")
def changed_at_most(changed: int, of: int) -> float:
    """The upper end of the exact 95 % interval of a rate, after `changed` answers of so many differed."""
    return 100 * power.clopper_pearson(changed, of)[1]


@computes("requests")
def nano_changed(method: str, workload: str) -> float:
    """Answers of the embedded model that differ from its own in 16 bits, right or wrong, on held-out examples."""
    return quality().method(method).answers[workload].same.count(False)


@computes("percent")
def published_change(id: str) -> float:
    """By how much a published result is above the baseline of the same source; below 0 if it is less."""
    ratio = result(id).ratio
    if ratio is None:
        raise ValueError(f"id: {id} has no value with a baseline")
    return 100 * (ratio - 1)


@computes("percent")
def nano_lost_mean(method: str) -> float:
    """Points of accuracy lost against 16 bits by the embedded model, mean of its workloads."""
    return sum(nano_lost(method, workload) for workload in quality().workloads) / len(quality().workloads)


@computes("points")
def hidden_points(average: float, tasks: int) -> float:
    """What one of so many tasks has lost if the average lost `average` points and the other tasks nothing."""
    return average * tasks


@computes("percent")
def strangers_power(before: float, after: float, examples: int) -> float:
    """How often a test sees the difference if each model answers so many requests of its own."""
    return 100 * power.ab_power(before, after, examples)


@computes("points")
def not_ruled_out(examples: int, lost: int, gained: int) -> float:
    """The largest loss of accuracy in the 95 % interval, after so many answers lost and gained."""
    return -100 * power.Flips(examples, lost, gained).change_interval()[0]


@computes("bits per weight")
def mixed_bits(low: str, high: str, share: float, model: str = "Llama-3-70B") -> float:
    """Of the layers' matrices, on average, if a `share` of their weights is held at the precision `high`."""
    return (1 - share) * bits_per_weight(low, model) + share * bits_per_weight(high, model)


@computes("bytes")
def hessian(inputs: int) -> float:
    """What GPTQ collects for a layer with so many inputs, in float32; it does not grow with the tokens."""
    return 4.0 * inputs**2


@computes("bytes")
def hessians(model: str) -> float:
    """Of all blocks of a dense model at once, four in each: for q, k and v, for o, for gate and up, for down."""
    found = deploy.spec(model)
    if found.experts or found.latent:
        raise ValueError(f"model: got {model!r}; give a dense one with plain attention")
    widths = (found.hidden_size, found.attention_heads * found.head_dim, found.hidden_size, found.intermediate_size)
    return found.layers * sum(map(hessian, widths))


@computes("tokens")
def calibration_tokens(sequences: int, length: int) -> float:
    """All sequences together."""
    return sequences * length


@computes("x")
def tokens_per_input(sequences: int, length: int, inputs: int) -> float:
    """How many times the inputs of a layer a calibration has tokens."""
    return calibration_tokens(sequences, length) / inputs


@computes("bits per weight")
def packed_bits(bits: int, group: int, parameter_bits: int = 16) -> float:
    """Of a packed matrix; `parameter_bits` are those of a group's scale and zero-point together."""
    return bits + parameter_bits / group


@computes("bytes")
def matrix(outputs: int, inputs: int, bits: int = 16, group: int = 0, parameter_bits: int = 16) -> float:
    """Of one weight; group=0: no groups, as in 16 bits."""
    return outputs * inputs * (packed_bits(bits, group, parameter_bits) if group else bits) / 8


@computes("bytes")
def unfused(outputs: int, inputs: int, bits: int, group: int, parameter_bits: int = 16) -> float:
    """Moved for a weight that one kernel unpacks and another multiplies: read packed, written and read in 16 bits."""
    return matrix(outputs, inputs, bits, group, parameter_bits) + 2 * matrix(outputs, inputs)


@computes("x")
def fewer_bytes(bits: int, group: int, parameter_bits: int = 16) -> float:
    """How many times the bytes of a packed matrix the same in 16 bits has."""
    return 16 / packed_bits(bits, group, parameter_bits)


@computes("tokens")
def packed_ridge(place: str, bits: int, group: int, parameter_bits: int = 16) -> float:
    """Tokens from which a fused product with the packed matrix is bound by 16-bit arithmetic, by the data sheet."""
    return ridge(place) / fewer_bytes(bits, group, parameter_bits)


@computes("percent")
def bill_saved(
    model: str, precision: str, instance: str, workload: str, latency: float, qps: float, against: str = "bf16"
) -> float:
    """Of the month's bill at the precision `against`, on the same kind of instance; below 0 where it grows."""
    theirs, ours = (
        usd_per_month(model, how, instance, workload, latency=latency, qps=qps) for how in (against, precision)
    )
    return 100 * (1 - ours / theirs)


@computes("x")
def load_gain(model: str, precision: str, instance: str, workload: str, latency: float, against: str = "bf16") -> float:
    """How many times the load of the precision `against` one instance bears, within the same latency."""
    theirs, ours = (requests_per_second(model, how, instance, workload, latency) for how in (against, precision))
    return ours / theirs


@computes("USD/million tokens")
def usd_per_million(model: str, precision: str, instance: str, workload: str, latency: float) -> float:
    """Tokens of answers, prompts in the price, on demand, at the highest load that one instance bears."""
    return _option(model, precision, instance, workload, latency, None).usd_per_million


@computes("x")
def cheaper_answer(
    model: str, instance: str, small: str, small_on: str, precision: str, workload: str, latency: float
) -> float:
    """How many times less an answer costs with a small model on its own instance, both at their highest load."""
    ours, theirs = (
        usd_per_million(name, precision, where, workload, latency)
        for name, where in ((small, small_on), (model, instance))
    )
    return theirs / ours


@computes("machines")
def with_spare(
    model: str, precision: str, instance: str, workload: str, latency: float, qps: float, spare: int = 1
) -> float:
    """Instances for `qps` requests per second, by what one bears, and `spare` more for a failure."""
    return spare + cost.machines(qps, requests_per_second(model, precision, instance, workload, latency))


@computes("USD/month")
def fleet_bill(instance: str, held: int) -> float:
    """Of so many instances, busy or not, on demand."""
    return cost.usd_per_month(price(instance), held)


@computes("USD/month")
def tiers_bill(
    model: str, precision: str, instance: str, workload: str, latency: float, qps: float,
    share: float = 0, small: str = "", small_on: str = "", spare: int = 1,
) -> float:  # fmt: skip
    """Of the instances for `qps`, a spare one in each tier. A `share` above 0 goes to a `small` model on `small_on`."""
    tiers = [(model, instance, (1 - share) * qps), (small, small_on, share * qps)]
    return sum(
        fleet_bill(where, int(with_spare(name, precision, where, workload, latency, load, spare)))
        for name, where, load in tiers
        if load
    )


@computes("x")
def bill_cut(held: int, instance: str, **served: Any) -> float:
    """How many times more `held` instances cost than those that are needed; `served` as of `tiers_bill`."""
    return fleet_bill(instance, held) / tiers_bill(instance=instance, **served)
