"""Drills on the KV cache: bytes for a token, for a batch, against the weights, and the bug of the query heads."""

from __future__ import annotations

import random
from dataclasses import replace

from qlab.deploy import ModelSpec, memory, spec
from qlab.deploy.kv import bytes_per_token
from qlab.deploy.speed.phases import tokens_like_weights, weight_bytes

from .kind import EDGE, Drill, Kind, short, with_unit
from .subjects import GROUPED, MODELS, gb, gib, model

_LESSON = "01_memory_math"
_HEADS = "You counted the query heads. The cache holds keys and values of the KV heads."
_ONE = "You counted keys or values. The cache holds both."


def _heads(shapes: ModelSpec) -> str:
    return (
        f"{shapes.layers} layers, {shapes.attention_heads} query heads and {shapes.kv_heads} KV heads of size "
        f"{shapes.head_dim}"
    )


def _product(shapes: ModelSpec, of: str = "") -> str:
    return f"2 x {shapes.layers} x {shapes.kv_heads} x {shapes.head_dim}{of}"


def _popular(shapes: ModelSpec, bits: int = 16) -> int:
    """Bytes for a token if all query heads had keys and values of their own."""
    return bytes_per_token(replace(shapes, kv_heads=shapes.attention_heads), bits)


def _token(rng: random.Random, level: int) -> Drill:
    if level == 3:
        return _latent(rng) if rng.random() < 0.2 else _quantized(rng)
    shapes = model(rng, GROUPED if level == 1 else MODELS)
    bits = 16 if level == 1 else rng.choice((8, 4))
    size = bytes_per_token(shapes, bits)
    values = shapes.kv_values_per_token
    return Drill(
        f"{shapes.name} has {_heads(shapes)}. How many bytes of KV cache does one token take, at {bits} bits for each "
        "number?",
        size,
        (
            "In each layer a token leaves a key and a value for every KV head; query heads are not kept",
            f"Numbers: {_product(shapes)} = {values:,}",
            f"Of {bits} bits, that is {short(bits / 8)} bytes each",
            f"{values:,} x {short(bits / 8)} bytes = {with_unit(size, 'byte')}",
        ),
        "byte",
        slips={_ONE: size / 2} | ({_HEADS: _popular(shapes, bits)} if shapes.kv_heads < shapes.attention_heads else {}),
    )


def _quantized(rng: random.Random) -> Drill:
    shapes = model(rng)
    bits, group = rng.choice((2, 4, 8)), rng.choice([n for n in (32, 64) if shapes.head_dim % n == 0])
    size = bytes_per_token(shapes, bits, group)
    values = shapes.kv_values_per_token
    codes, pairs = values * bits // 8, values // group
    return Drill(
        f"{shapes.name} has {_heads(shapes)}. The cache holds {bits} bits for each number, and for every {group} "
        "numbers a scale and a minimum of 16 bits each. How many bytes does one token take?",
        size,
        (
            f"Numbers: {_product(shapes)} = {values:,}",
            f"Codes: {values:,} x {bits} bits = {codes:,} bytes",
            f"Groups: {values:,} / {group} = {pairs:,}, each with 2 x 16 bits = 4 bytes",
            f"Scales and minima: {pairs:,} x 4 bytes = {4 * pairs:,} bytes",
            f"{codes:,} + {4 * pairs:,} = {with_unit(size, 'byte')}",
        ),
        "byte",
        slips={
            "You left out the scales and the minima of the groups.": codes,
            "Each group has a scale and a minimum, of two bytes each.": codes + 2 * pairs,
        },
    )


def _latent(rng: random.Random) -> Drill:
    shapes = spec("DeepSeek-V3")
    assert shapes.latent
    bits, rank, rope = rng.choice((16, 8)), shapes.latent.kv_lora_rank, shapes.latent.qk_rope_head_dim
    size, numbers = bytes_per_token(shapes, bits), rank + rope
    return Drill(
        f"{shapes.name} has {shapes.layers} layers with multi-head latent attention: keys and values of all heads are "
        f"kept as one vector of {rank} numbers, with {rope} more for positions. How many bytes of cache does one token "
        f"take, at {bits} bits for each number?",
        size,
        (
            f"In each layer: {rank} + {rope} = {numbers} numbers, for all heads together",
            f"In all layers: {shapes.layers} x {numbers} = {shapes.kv_values_per_token:,}",
            f"{shapes.kv_values_per_token:,} x {bits // 8} bytes = {with_unit(size, 'byte')}",
        ),
        "byte",
        slips={"One vector serves keys and values; there is no factor of 2 for them.": 2 * size},
    )


def _requests(rng: random.Random, level: int) -> Drill:
    shapes = model(rng)
    batch = rng.choice((4, 8, 12, 16, 24, 32, 64))
    context = rng.choice([n for n in (1024, 2048, 4096, 8192, 16384, 32768) if n <= shapes.max_context])
    bits = rng.choice((16, 8)) if level == 3 else 16
    size = memory(shapes, "int4-g128", batch=batch, context=context, kv_bits=bits).kv_cache
    per_token = bytes_per_token(shapes, bits)
    last = (
        f"Tokens in flight: {batch} x {context:,} = {batch * context:,}",
        f"{per_token:,} bytes x {batch * context:,} = {gb(size)}",
    )
    load = f"{batch} requests of {context:,} tokens each"
    if level == 1:
        return Drill(
            f"One token of {shapes.name} takes {per_token:,} bytes of KV cache. How many GB does the cache take for "
            f"{load}?",
            size / 1e9,
            ("The cache grows with all tokens in flight, whoever they belong to", *last),
            "GB",
        )
    lines = (
        f"Bytes for a token: {_product(shapes)} x {bits // 8} bytes = {per_token:,} bytes",
        *last,
        *((f"{gb(size)} = {gib(size)}",) if level == 3 else ()),
    )
    return Drill(
        f"{shapes.name} has {_heads(shapes)}. How many {'GiB' if level == 3 else 'GB'} of KV cache do {load} take, at "
        f"{bits} bits for each number?",
        size / (2**30 if level == 3 else 1e9),
        lines,
        "GiB" if level == 3 else "GB",
        slips={_ONE: size / (2 * (2**30 if level == 3 else 1e9))},
    )


def _bug(rng: random.Random, level: int) -> Drill:
    shapes = model(rng, GROUPED)
    ratio = _popular(shapes) / bytes_per_token(shapes)
    if level == 1:
        return Drill(
            f"{shapes.name} has {_heads(shapes)}. A calculator takes the query heads for the KV cache. By which factor "
            "is its cache too large?",
            ratio,
            (
                f"The calculator counts 2 x {shapes.layers} x {shapes.attention_heads} x {shapes.head_dim} = "
                f"{_popular(shapes) // 2:,} numbers for a token",
                f"The cache holds {_product(shapes)} = {shapes.kv_values_per_token:,}",
                f"Only the heads differ: {shapes.attention_heads} / {shapes.kv_heads} = "
                f"{with_unit(ratio, 'x', whole=True)}",
            ),
            "x",
            tolerance=0,
        )
    context = rng.choice([n for n in (2048, 4096, 8192) if n <= shapes.max_context])
    batch = rng.choice((8, 16, 32))
    size = memory(shapes, "bf16", batch=batch, context=context).kv_cache
    return Drill(
        f"A calculator says that {batch} requests of {context:,} tokens of {shapes.name} take {gb(size * ratio)} of KV "
        f"cache. It counts the {shapes.attention_heads} query heads; the model has {shapes.kv_heads} KV heads. How "
        "many GB are it really?",
        size / 1e9,
        (
            "The cache is proportional to the heads whose keys and values are kept",
            f"The calculator is off by {shapes.attention_heads} / {shapes.kv_heads} = {short(ratio)}",
            f"{gb(size * ratio)} / {short(ratio)} = {gb(size)}",
        ),
        "GB",
    )


def _equal(rng: random.Random, level: int) -> Drill:
    shapes, name = model(rng), rng.choice(("bf16", "int8-channel", "int4-g128"))
    bits = 16 if level == 1 else rng.choice((16, 8))
    tokens, read, per_token = (
        tokens_like_weights(shapes, name, bits),
        weight_bytes(shapes, name),
        bytes_per_token(shapes, bits),
    )
    ask = "With how many tokens in the cache does a step read as many bytes of cache as of weights?"
    if level == 1:
        text = f"one token takes {per_token:,} bytes of KV cache"
        first: tuple[str, ...] = ("Weights are read once a step; the cache of every token in flight as well",)
    else:
        text = f"{_heads(shapes)}, and a cache of {bits} bits for each number"
        first = (f"Bytes for a token: {_product(shapes)} x {bits // 8} bytes = {per_token:,} bytes",)
    return Drill(
        f"A step of decoding {shapes.name} at {name} reads {gb(read)} of weights; {text}. {ask}",
        tokens,
        (
            *first,
            f"Asked is when {per_token:,} bytes x tokens reach {gb(read)}",
            f"{gb(read)} / {per_token:,} bytes = {with_unit(tokens, 'token')}",
        ),
        "token",
        slips={} if level == 1 else {_ONE: 2 * tokens},
    )  # fmt: skip


def _saves(rng: random.Random, level: int) -> Drill | None:
    shapes = model(rng)
    batch = rng.choice((4, 8, 16, 32, 64))
    context = rng.choice([n for n in (1024, 2048, 4096, 8192) if n <= shapes.max_context])
    before, after = ("bf16", "int8-channel") if level == 1 else ("int8-channel", "int4-g128")
    wide, narrow = (memory(shapes, name, batch=batch, context=context) for name in (before, after))
    weights, cache = wide.weights - narrow.weights, wide.kv_cache / 2
    if abs(weights - cache) < 10 * EDGE * max(weights, cache):
        return None
    choices = (f"weights from {before} to {after}", "KV cache from 16 to 8 bits")
    return Drill(
        f"A server holds {batch} requests of {context:,} tokens of {shapes.name}, whose weights take "
        f"{gb(wide.weights)} at {before} and {gb(narrow.weights)} at {after}. One token takes {wide.kv_per_token:,} "
        "bytes of KV cache at 16 bits. Which change saves more memory?",
        choices[0] if weights > cache else choices[1],
        (
            f"Weights: {gb(wide.weights)} - {gb(narrow.weights)} = {gb(weights)}",
            f"Cache at 16 bits: {batch} x {context:,} x {wide.kv_per_token:,} bytes = {gb(wide.kv_cache)}",
            f"At 8 bits it is half of that, which saves {gb(cache)}",
            f"{gb(max(weights, cache))} is more than {gb(min(weights, cache))}: {'A' if weights > cache else 'B'}) "
            f"{choices[weights < cache]}",
        ),
        choices=choices,
    )


KINDS = (
    Kind("cache.token", "bytes of KV cache for a token", _LESSON, _token),
    Kind("cache.requests", "the KV cache of a batch", _LESSON, _requests),
    Kind("cache.bug", "query heads taken for KV heads", _LESSON, _bug, levels=(1, 2)),
    Kind("cache.equal", "when the cache reads like the weights", _LESSON, _equal, levels=(1, 2)),
    Kind("cache.saves", "which saves more: weights or cache", "08_fp8_and_kv_cache", _saves, levels=(1, 2)),
)
