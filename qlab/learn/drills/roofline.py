"""Drills on time: bounds of a product, the ridge, what 4 bits can win at most, tokens per second, what limits."""

from __future__ import annotations

import random

from qlab.deploy import Gpu, parse_precision
from qlab.deploy.kv import bytes_per_token
from qlab.deploy.roofline import Limits, Work, datasheet, product
from qlab.deploy.speed.phases import crossover, weight_bytes

from .kind import EDGE, Drill, Kind, short, with_unit
from .subjects import a, card, gb, mb, model

_LESSON = "10_speed_on_gpu"
_WIDTHS = {"16 bits": 16.0, "8 bits, with one scale a row": 8.0, "4.125 bits, scales included": 4.125}
_TIE = 0.15  # two times that lie nearer to each other make a bad question


def _limits(where: Gpu) -> str:
    rate = short(where.fp16_tensor_tflops or 0)
    return f"{a(where.name)} with {where.bandwidth_gb_per_s:,.0f} GB/s and {rate} TFLOPS in 16 bits"


def _shape(rng: random.Random) -> tuple[int, int]:
    return rng.choice((4096, 5120, 8192)), rng.choice((4096, 8192, 11008, 14336))


def _bytes_line(tokens: int, rows: int, columns: int, bits: float, work: Work) -> str:
    return f"Bytes: {rows:,} x {columns:,} x {bits:g}/8 + {tokens:,} x ({rows:,} + {columns:,}) x 2 = {mb(work.bytes)}"


def _times(work: Work, limits: Limits) -> tuple[float, float]:
    """Seconds for the bytes, and for the operations."""
    return work.bytes / limits.bandwidth, work.operations / limits.rates["fp16"]


def _micro(seconds: float) -> str:
    return with_unit(seconds * 1e6, "µs")


def _bound(rng: random.Random, level: int) -> Drill | None:
    where, (rows, columns) = card(rng), _shape(rng)
    width, bits = ("16 bits", 16.0) if level == 1 else rng.choice(list(_WIDTHS.items()))
    tokens = rng.choice((256, 512, 1024, 2048, 4096)) if level == 3 else 1
    work, limits = product(tokens, rows, columns, bits), datasheet(where)
    memory, compute = _times(work, limits)
    if abs(memory - compute) < _TIE * max(memory, compute):
        return None
    bound = limits.time(work).seconds
    rate = where.fp16_tensor_tflops or 0
    lines = (
        _bytes_line(tokens, rows, columns, bits, work),
        f"At the bandwidth: {mb(work.bytes)} / {where.bandwidth_gb_per_s:,.0f} GB/s = {_micro(memory)}",
        f"Operations: 2 x {tokens:,} x {rows:,} x {columns:,} = {short(work.operations)}",
        f"At the rate: {short(work.operations)} / {short(rate)} TFLOPS = {_micro(compute)}",
        f"The longer one counts: {_micro(bound)}",
    )
    return Drill(
        f"{tokens:,} token{'s go' if tokens > 1 else ' goes'} through a layer with {rows:,} outputs and {columns:,} "
        f"inputs. The weight is stored in {width}; inputs, results and arithmetic have 16 bits. How many µs does it "
        f"take at least on {_limits(where)}?",
        bound * 1e6,
        lines,
        "µs",
        slips={"You took the shorter of the two times. The longer one counts.": min(memory, compute) * 1e6},
    )


def _ridge(rng: random.Random, level: int) -> Drill:
    where = card(rng)
    bits = 16.0 if level == 1 else rng.choice((8.0, 4.125))
    answer = crossover(where, bits)
    rate, bandwidth = where.fp16_tensor_tflops or 0, where.bandwidth_gb_per_s
    return Drill(
        f"Weights are stored in {bits:g} bits each and multiplied in 16 bits, on {_limits(where)}. Inputs and results "
        "are not counted. From how many tokens at once on does the arithmetic of a product take longer than reading "
        "its weight?",
        answer,
        (
            f"In the time of one byte: {short(rate)}e12 / {bandwidth:,.0f}e9 = {short(rate * 1e3 / bandwidth)} "
            "operations",
            f"In the time of one weight: {short(rate * 1e3 / bandwidth)} x {bits:g}/8 = "
            f"{short(rate * bits * 125 / bandwidth)} operations",
            "Each token multiplies that weight and adds the product: 2 operations",
            f"{short(rate * bits * 125 / bandwidth)} / 2 = {with_unit(answer, 'token')}",
        ),
        "token",
        slips={"A multiplication and an addition are two operations.": 2 * answer},
    )


def _intensity(rng: random.Random, level: int) -> Drill:
    rows, columns = _shape(rng)
    width, bits = ("16 bits", 16.0) if level == 1 else rng.choice(list(_WIDTHS.items())[1:])
    tokens = 1 if level == 1 else rng.choice((8, 16, 64, 256))
    work = product(tokens, rows, columns, bits)
    return Drill(
        f"{tokens:,} token{'s go' if tokens > 1 else ' goes'} through a layer with {rows:,} outputs and {columns:,} "
        f"inputs, its weight in {width}, inputs and results in 16 bits. How many operations are there for each byte "
        "that is moved?",
        work.intensity,
        (
            f"Operations: 2 x {tokens:,} x {rows:,} x {columns:,} = {short(work.operations)}",
            _bytes_line(tokens, rows, columns, bits, work),
            f"{short(work.operations)} / {short(work.bytes)} = {with_unit(work.intensity, 'operation/byte')}",
        ),
        "operation/byte",
        slips={"A multiplication and an addition are two operations.": work.intensity / 2},
    )


def _speedup(rng: random.Random, level: int) -> Drill | None:
    where, (rows, columns) = card(rng), _shape(rng)
    tokens = 1 if level == 1 else rng.choice((64, 128, 256, 512) if level == 2 else (512, 1024, 2048))
    limits = datasheet(where)
    wide, narrow = (product(tokens, rows, columns, bits) for bits in (16, 4.125))
    before, after = limits.time(wide), limits.time(narrow)
    for work in (wide, narrow):
        memory, compute = _times(work, limits)
        if abs(memory - compute) < _TIE * max(memory, compute):
            return None
    answer = before.seconds / after.seconds
    rate = where.fp16_tensor_tflops or 0
    return Drill(
        f"A layer has {rows:,} outputs and {columns:,} inputs. Its weight goes from 16 bits to 4.125, scales included; "
        f"inputs, results and arithmetic stay in 16 bits. How many times as fast can the product of {tokens:,} "
        f"token{'s' * (tokens > 1)} get at most, on {_limits(where)}?",
        answer,
        (
            f"Operations of both: 2 x {tokens:,} x {rows:,} x {columns:,} / {short(rate)} TFLOPS = "
            f"{_micro(_times(wide, limits)[1])}",
            f"Bytes before: {mb(wide.bytes)} / {where.bandwidth_gb_per_s:,.0f} GB/s = "
            f"{_micro(_times(wide, limits)[0])}",
            f"Bytes after: {mb(narrow.bytes)} / {where.bandwidth_gb_per_s:,.0f} GB/s = "
            f"{_micro(_times(narrow, limits)[0])}",
            "Of each pair the longer time counts",
            f"{_micro(before.seconds)} / {_micro(after.seconds)} = {with_unit(answer, 'x')}",
        ),
        "x",
        slips={}
        if level == 1
        else {"That is the ratio of the bytes. From some batch on the arithmetic takes longer.": 16 / 4.125},
    )


def _decode(rng: random.Random, level: int) -> Drill:
    where, shapes = card(rng), model(rng)
    name = "bf16" if level == 1 else rng.choice(("int8-channel", "int4-g128"))
    read, limits = weight_bytes(shapes, name), datasheet(where)
    if level < 3:
        answer = 1 / limits.time(Work(read, 0)).seconds
        return Drill(
            f"Decoding {shapes.name} at {name} reads {gb(read)} of weights for every step. How many tokens/s can one "
            f"request get at most from {a(where.name)} with {where.bandwidth_gb_per_s:,.0f} GB/s, were it large "
            "enough? Nothing else is counted.",
            answer,
            (
                "For one request a step writes one token, and reads every weight once",
                f"A step: {gb(read)} / {where.bandwidth_gb_per_s:,.0f} GB/s = {with_unit(1e3 / answer, 'ms')}",
                f"1 / {with_unit(1e3 / answer, 'ms')} = {with_unit(answer, 'token/s')}",
            ),
            "token/s",
        )
    batch, context = rng.choice((8, 16, 32)), rng.choice((1024, 2048, 4096))
    per_token = bytes_per_token(shapes)
    cache = batch * context * per_token
    step = limits.time(Work(read + cache, 0)).seconds
    return Drill(
        f"Decoding {shapes.name} at {name} reads {gb(read)} of weights for every step, and {per_token:,} bytes of KV "
        f"cache for each token in it. {batch} requests have {context:,} tokens each. How many tokens/s are written at "
        f"most in all, on {a(where.name)} with {where.bandwidth_gb_per_s:,.0f} GB/s, were it large enough? Only these "
        "bytes are counted.",
        batch / step,
        (
            f"Cache: {batch} x {context:,} x {per_token:,} bytes = {gb(cache)}",
            f"A step reads {gb(read)} + {gb(cache)} = {gb(read + cache)}",
            f"It takes {gb(read + cache)} / {where.bandwidth_gb_per_s:,.0f} GB/s = {with_unit(step * 1e3, 'ms')}",
            f"Each step writes {batch} tokens: {batch} / {with_unit(step * 1e3, 'ms')} = "
            f"{with_unit(batch / step, 'token/s')}",
        ),
        "token/s",
        slips={"You left out the cache, which is read in every step.": batch / (read / limits.bandwidth)},
    )  # fmt: skip


def _step(rng: random.Random, level: int) -> Drill:
    """What 4-bit weights win at most where the cache is read as well."""
    shapes = model(rng)
    wide, narrow = weight_bytes(shapes, "bf16"), weight_bytes(shapes, "int4-g128")
    tokens = rng.choice((4, 8, 16, 32, 64)) * rng.choice((1024, 2048, 4096))
    cache = tokens * bytes_per_token(shapes)
    bits = 16 if level == 1 else 8
    after = cache * bits // 16
    answer = (wide + cache) / (narrow + after)
    also = "" if level == 1 else ", and the cache from 16 to 8 bits"
    told = f"reads {gb(wide)} of weights in 16 bits and {gb(cache)} of KV cache"
    return Drill(
        f"A step of decoding {shapes.name} {told}. The weights go to {gb(narrow)} in 4 bits{also}. Both are limited by "
        "memory. How many times as fast does the step get at most?",
        answer,
        (
            f"Before: {gb(wide)} + {gb(cache)} = {gb(wide + cache)}",
            f"After: {gb(narrow)} + {gb(after)} = {gb(narrow + after)}",
            f"{gb(wide + cache)} / {gb(narrow + after)} = {with_unit(answer, 'x')}",
        ),
        "x",
        slips={"That is the ratio of the weights alone. The cache is read, too.": wide / narrow},
    )


def _limit(rng: random.Random, level: int) -> Drill | None:
    where, (rows, columns) = card(rng), _shape(rng)
    width, bits = ("16 bits", 16.0) if level == 1 else rng.choice(list(_WIDTHS.items())[1:])
    tokens = rng.choice((1, 4, 16, 64, 128, 256, 512, 1024, 4096))
    work, limits = product(tokens, rows, columns, bits), datasheet(where)
    ridge = limits.ridge()
    if abs(work.intensity / ridge - 1) < 10 * EDGE:
        return None
    choices = ("memory", "arithmetic")
    right = choices[limits.time(work).bound == "compute"]
    return Drill(
        f"{tokens:,} token{'s go' if tokens > 1 else ' goes'} through a layer with {rows:,} outputs and {columns:,} "
        f"inputs, its weight in {width}, on {_limits(where)}. By the roofline, what limits it?",
        right,
        (
            f"Intensity: 2 x {tokens:,} x {rows:,} x {columns:,} / {short(work.bytes)} bytes = {short(work.intensity)} "
            "operations/byte",
            f"Ridge: {short(where.fp16_tensor_tflops or 0)}e12 / ({where.bandwidth_gb_per_s:,.0f}e9) = {short(ridge)} "
            "operations/byte",
            f"{short(work.intensity)} is {'above' if right == 'arithmetic' else 'below'} the ridge: "
            f"{'AB'[choices.index(right)]}) {right}",
        ),
        choices=choices,
    )  # fmt: skip


def _fraction(rng: random.Random, level: int) -> Drill | None:
    """The share of the bandwidth that a measured time amounts to."""
    where, (rows, columns) = card(rng), _shape(rng)
    bits = 16.0 if level == 1 else parse_precision("int4-g128").bits_per_weight(rows, columns - columns % 128)
    work, limits = product(1, rows, columns, bits), datasheet(where)
    share = rng.uniform(0.35, 0.9) if level == 1 else rng.uniform(0.3, 1.4)
    measured = float(f"{work.bytes / limits.bandwidth / share * 1e6:.3g}")
    answer = 100 * work.bytes / limits.bandwidth / (measured * 1e-6)
    if abs(answer - 100) < 5:
        return None
    verdict = "A cache must have delivered it" if answer > 100 else "That is possible"
    return Drill(
        f"The product of one token with a weight of {rows:,} x {columns:,}, stored in {bits:g} bits a weight, was "
        f"measured at {measured:g} µs on {a(where.name)} with {where.bandwidth_gb_per_s:,.0f} GB/s. Inputs and results "
        "have 16 bits. How many percent of the bandwidth are that?",
        answer,
        (
            _bytes_line(1, rows, columns, bits, work),
            f"A second: {mb(work.bytes)} / {measured:g} µs = {with_unit(work.bytes / measured / 1e3, 'GB/s')}",
            f"{verdict}, as the memory has {where.bandwidth_gb_per_s:,.0f} GB/s",
            f"{short(work.bytes / measured / 1e3)} / {where.bandwidth_gb_per_s:.0f} = {with_unit(answer, '%')}",
        ),
        "%",
    )


KINDS = (
    Kind("roofline.bound", "the time of a product at least", _LESSON, _bound),
    Kind("roofline.ridge", "from how many tokens on arithmetic limits", _LESSON, _ridge, levels=(1, 2)),
    Kind("roofline.intensity", "operations per byte", _LESSON, _intensity, levels=(1, 2)),
    Kind("roofline.speedup", "what 4 bits can win at most", _LESSON, _speedup),
    Kind("roofline.decode", "tokens per second at most", _LESSON, _decode),
    Kind("roofline.step", "what 4 bits win where a cache is read", _LESSON, _step, levels=(1, 2)),
    Kind("roofline.limit", "memory or arithmetic", _LESSON, _limit, levels=(1, 2)),
    Kind("roofline.fraction", "a measurement against the bandwidth", _LESSON, _fraction, levels=(1, 2)),
)
