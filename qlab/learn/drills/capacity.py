"""Drills on what fits: room for the cache, tokens, requests, GPUs, and which machine or precision it takes."""

from __future__ import annotations

import random

from qlab.deploy import Fit, fits, instance, memory, smallest_instance
from qlab.deploy.kv import bytes_per_token

from .kind import EDGE, Drill, Kind, near_whole, short, shuffled, with_unit
from .subjects import OVERHEAD_GB, UTILIZATION, a, card, gb, gib, model, rules

_LESSON = "01_memory_math"
_PRECISIONS = ("bf16", "int8-channel", "int4-g128")
_GPUS = (1, 2, 4, 8)
_RENTED = (
    "g5.xlarge", "g5.12xlarge", "g5.48xlarge", "g6.xlarge", "g6.12xlarge", "g6e.xlarge", "g6e.12xlarge", "g6e.48xlarge",
    "p4d.24xlarge", "p4de.24xlarge", "p5.4xlarge", "p5.48xlarge", "g4dn.xlarge", "g4dn.12xlarge",
)  # fmt: skip


def _roomy(rng: random.Random, **options: int) -> Fit | None:
    """A model on a GPU with so much room left that rounding on the way there does not matter."""
    fit = fits(model(rng), card(rng), precision=rng.choice(_PRECISIONS), batch=0, **options)
    return fit if fit.budget > 0.25 * fit.gpu.visible_bytes else None


def _to_the_budget(fit: Fit) -> tuple[str, ...]:
    """From GiB on the card to bytes for the cache."""
    usable = UTILIZATION * fit.gpu.visible_bytes
    return (
        f"{gib(fit.gpu.visible_bytes)} = {gb(fit.gpu.visible_bytes)}, of which {UTILIZATION} x "
        f"{gb(fit.gpu.visible_bytes)} = {gb(usable)} may be used",
        f"For the cache: {gb(usable)} - {gb(fit.breakdown.weights)} - {OVERHEAD_GB} GB = {gb(fit.budget)}",
    )


def _left(rng: random.Random, level: int) -> Drill | None:
    fit = _roomy(rng)
    if not fit:
        return None
    visible, usable = fit.gpu.visible_bytes, UTILIZATION * fit.gpu.visible_bytes
    told = gb(visible) if level == 1 else gib(visible)
    return Drill(
        f"The weights of {fit.breakdown.spec.name} take {gb(fit.breakdown.weights)} at {fit.breakdown.precision}. On "
        f"{a(fit.gpu.name)} {rules(told)}. How many GB are left for the KV cache?",
        fit.budget / 1e9,
        (
            *(() if level == 1 else (f"In one unit first: {gib(visible)} = {gb(visible)}",)),
            f"The server may use {UTILIZATION} x {gb(visible)} = {gb(usable)}",
            "Weights and overhead come off; the cache gets what is left",
            f"{gb(usable)} - {gb(fit.breakdown.weights)} - {OVERHEAD_GB} GB = {gb(fit.budget)}",
        ),
        "GB",
        slips={"You took all the memory; a server may use a part of it.": (visible - usable + fit.budget) / 1e9},
    )


def _tokens(rng: random.Random, level: int) -> Drill | None:
    bits = 16 if level < 3 else rng.choice((16, 8))
    fit = _roomy(rng, kv_bits=bits)
    if not fit:
        return None
    shapes, per_token = fit.breakdown.spec, fit.breakdown.kv_per_token
    last = f"{gb(fit.budget)} / {per_token:,} bytes = {with_unit(fit.tokens, 'token')}"
    if level == 1:
        return Drill(
            f"A server of {shapes.name} has {gb(fit.budget)} left for the KV cache. One token takes {per_token:,} "
            "bytes. How many tokens fit?",
            fit.tokens,
            (
                "The cache is a heap of equal pieces, one for each token in flight",
                f"In bytes: {gb(fit.budget)} = {short(fit.budget)} bytes",
                last,
            ),
            "token",
        )
    of_token = (
        f"Bytes for a token: 2 x {shapes.layers} x {shapes.kv_heads} x {shapes.head_dim} x {bits // 8} = {per_token:,}"
    )
    heads = (
        f"{shapes.layers} layers and {shapes.kv_heads} KV heads of size {shapes.head_dim}, and a cache of {bits} bits "
        "for each number"
        if level == 3
        else f"{per_token:,} bytes of KV cache for a token"
    )
    return Drill(
        f"{shapes.name} at {fit.breakdown.precision} has weights of {gb(fit.breakdown.weights)} and {heads}. On "
        f"{a(fit.gpu.name)} {rules(gib(fit.gpu.visible_bytes))}. How many tokens of KV cache fit beside the weights?",
        fit.tokens,
        (*_to_the_budget(fit), *((of_token,) if level == 3 else ()), last),
        "token",
    )


def _batch(rng: random.Random, level: int) -> Drill | None:
    fit = _roomy(rng)
    if not fit:
        return None
    shapes, per_token = fit.breakdown.spec, fit.breakdown.kv_per_token
    context = rng.choice([n for n in (1024, 2048, 4096, 8192, 16384, 32768) if n <= shapes.max_context])
    exact, count = fit.budget / (per_token * context), fit.batch_at(context)
    if count < 1 or near_whole(exact, 1.5 * EDGE):
        return None
    last = f"Requests: {short(exact)}, and a part of one does not fit: {with_unit(count, 'request', whole=True)}"
    each = f"One request: {context:,} x {per_token:,} bytes = {gb(per_token * context)}"
    if level == 1:
        return Drill(
            f"{fit.tokens:,} tokens of KV cache fit beside the weights of {shapes.name} on {a(fit.gpu.name)}. How many "
            f"requests of {context:,} tokens can be held at once?",
            count,
            (
                "A request holds its place in the cache from its first token to its last",
                f"{fit.tokens:,} / {context:,} = {short(exact)}",
                last,
            ),
            "request",
            tolerance=0,
        )
    if level == 2:
        return Drill(
            f"A server of {shapes.name} has {gb(fit.budget)} left for the KV cache. One token takes {per_token:,} "
            f"bytes. How many requests of {context:,} tokens can be held at once?",
            count,
            (each, f"{gb(fit.budget)} / {gb(per_token * context)} = {short(exact)}", last),
            "request",
            tolerance=0,
        )
    return Drill(
        f"{shapes.name} at {fit.breakdown.precision} has weights of {gb(fit.breakdown.weights)}, {shapes.layers} "
        f"layers and {shapes.kv_heads} KV heads of size {shapes.head_dim}, with a 16-bit cache. On {a(fit.gpu.name)} "
        f"{rules(gib(fit.gpu.visible_bytes))}. How many requests of {context:,} tokens can be held at once?",
        count,
        (
            *_to_the_budget(fit),
            f"Bytes for a token: 2 x {shapes.layers} x {shapes.kv_heads} x {shapes.head_dim} x 2 = {per_token:,}",
            each,
            f"{gb(fit.budget)} / {gb(per_token * context)} = {short(exact)}",
            last,
        ),
        "request",
        tolerance=0,
    )


def _cards(rng: random.Random, level: int) -> Drill | None:
    shapes, where = model(rng), card(rng)
    name = rng.choice(("bf16", "int8-channel", "int4-g128"))
    batch = 0 if level == 1 else rng.choice((4, 8, 16))
    context = min(4096, shapes.max_context)
    splits = [n for n in _GPUS if n in shapes.splits]
    tried = [fits(shapes, where, precision=name, batch=batch, context=context, tensor_parallel=n) for n in splits]
    count = next((fit.gpus for fit in tried if fit.fits), 0)
    room = UTILIZATION * where.visible_bytes - OVERHEAD_GB * 1e9
    whole = memory(shapes, name, batch=batch, context=context)
    evenly = next((n for n in splits if whole.total / n <= room), 0)  # not so where there are more GPUs than KV heads
    if count < 2 or count != evenly or any(abs(whole.total / n - room) < 2 * EDGE * room for n in _GPUS):
        return None  # one card is no question; a close call depends on how norms are copied
    load = f" and {gb(whole.kv_cache)} of KV cache" if batch else ""
    return Drill(
        f"{shapes.name} at {name} has {gb(whole.weights)} of weights{load}, split evenly over 1, 2, 4 or 8 "
        f"{where.name}. On each {rules(gib(where.visible_bytes))}. How many GPUs does it take at least?",
        count,
        (
            "To be held: "
            f"{f'{gb(whole.weights)} + {gb(whole.kv_cache)} = ' if batch else 'the weights, '}{gb(whole.total)}",
            f"Room on each: {UTILIZATION} x {gb(where.visible_bytes)} - {OVERHEAD_GB} GB = {gb(room)}",
            f"{gb(whole.total)} / {gb(room)} = {short(whole.total / room)}, and the next split is into "
            f"{with_unit(count, 'GPU', whole=True)}",
        ),
        "GPU",
        tolerance=0,
    )


def _precision(rng: random.Random, level: int) -> Drill | None:
    """The widest precision with which a load fits one GPU."""
    shapes, where = model(rng), card(rng)
    batch = 0 if level == 1 else rng.choice((1, 4, 8, 16))
    context = rng.choice([n for n in (2048, 4096, 8192) if n <= shapes.max_context])
    tried = {name: fits(shapes, where, precision=name, batch=batch, context=context) for name in _PRECISIONS}
    slack = {name: fit.budget - fit.breakdown.kv_cache for name, fit in tried.items()}
    if any(abs(free) < EDGE * where.visible_bytes for free in slack.values()):
        return None
    right = next((name for name, fit in tried.items() if fit.fits), "none of these")
    cache = tried["bf16"].breakdown.kv_cache
    room = UTILIZATION * where.visible_bytes - OVERHEAD_GB * 1e9
    sizes = ", ".join(f"{gb(fit.breakdown.weights)} at {name}" for name, fit in tried.items())
    choices = (*_PRECISIONS, "none of these")
    return Drill(
        f"The weights of {shapes.name} take {sizes}. On {a(where.name)} {rules(gib(where.visible_bytes))}."
        + (f" Its KV cache for {batch} requests of {context:,} tokens takes {gb(cache)}." if batch else "")
        + f" Which is the widest precision that fits{' with this cache' if batch else ', cache not counted'}?",
        right,
        (
            f"Room: {UTILIZATION} x {gb(where.visible_bytes)} - {OVERHEAD_GB} GB = {gb(room)}",
            f"For weights: {gb(room)} - {gb(cache)} = {gb(room - cache)}" if batch else "All of it is for weights",
            f"Needed from the widest on: {sizes}",
            f"So it is {'ABCD'[choices.index(right)]}) {right}",
        ),
        choices=choices,
    )  # fmt: skip


def _rent(rng: random.Random, level: int) -> Drill | None:
    """The cheapest of some machines that holds a load."""
    shapes, name = model(rng), rng.choice(_PRECISIONS)
    batch, context = (1, 1024) if level == 1 else (rng.choice((8, 16, 32)), min(4096, shapes.max_context))
    offered = [instance(one) for one in rng.sample(_RENTED, 3 if level == 1 else 4)]
    whole = memory(shapes, name, batch=batch, context=context)
    rooms = {one.name: one.count * (UTILIZATION * one.gpu.visible_bytes - OVERHEAD_GB * 1e9) for one in offered}
    found = smallest_instance(shapes, among=offered, precision=name, batch=batch, context=context)
    held = [one for one in offered if rooms[one.name] > whole.total]
    cheapest = min(held, key=lambda one: one.price_usd_per_hour or 0, default=None)
    close = any(abs(room - whole.total) < 3 * EDGE * room for room in rooms.values())
    # The heads of some models cannot be shared out among all GPUs; then the sum of the memory says nothing.
    if found is None or cheapest is None or close or found.instance.name != cheapest.name or len(held) == 1 < level:
        return None
    choices = shuffled(rng, [one.name for one in offered])
    menu = "; ".join(
        f"{one.name}, {one.count} x {one.gpu.name} of {gib(one.gpu.visible_bytes)}, {one.price_usd_per_hour:.2f} USD/h"
        for one in offered
    )
    return Drill(
        f"{shapes.name} at {name} has {gb(whole.weights)} of weights and, for {batch} request{'s' * (batch > 1)} of "
        f"{context:,} tokens, {gb(whole.kv_cache)} of KV cache, shared out evenly among all GPUs of a machine. Of each "
        f"GPU {UTILIZATION * 100:.0f} % may be used, less {OVERHEAD_GB} GB. To rent are {menu}. Which is the cheapest "
        "that holds it?",
        cheapest.name,
        (
            f"To be held: {gb(whole.weights)} + {gb(whole.kv_cache)} = {gb(whole.total)}",
            *(
                f"{one.name}: {one.count} x ({UTILIZATION} x {gb(one.gpu.visible_bytes)} - {OVERHEAD_GB} GB) = "
                f"{gb(rooms[one.name])}, {'enough' if one in held else 'too little'}"
                for one in offered
            ),
            f"The cheapest with enough is {'ABCD'[choices.index(cheapest.name)]}) {cheapest.name}",
        ),
        choices=choices,
    )  # fmt: skip


def _context(rng: random.Random, level: int) -> Drill | None:
    """The longest context that every one of some requests may have."""
    fit = _roomy(rng)
    if not fit:
        return None
    batch = rng.choice((4, 8, 16, 32))
    shapes, per_token = fit.breakdown.spec, bytes_per_token(fit.breakdown.spec)
    tokens = fit.context_at(batch)
    if tokens >= (1 - EDGE) * shapes.max_context or tokens < 500:
        return None
    last = f"{gb(fit.budget)} / ({batch} x {per_token:,} bytes) = {with_unit(tokens, 'token')}"
    ask = f"{batch} requests are held at once, all equally long. How many tokens may each of them have?"
    if level == 1:
        return Drill(
            f"A server of {shapes.name} has {gb(fit.budget)} left for the KV cache. One token takes {per_token:,} "
            f"bytes. {ask}",
            tokens,
            (
                f"{batch} requests share the cache evenly",
                f"A token in each of them: {batch} x {per_token:,} = {batch * per_token:,} bytes",
                last,
            ),
            "token",
        )
    return Drill(
        f"{shapes.name} at {fit.breakdown.precision} has weights of {gb(fit.breakdown.weights)} and takes "
        f"{per_token:,} bytes of KV cache for a token. On {a(fit.gpu.name)} {rules(gib(fit.gpu.visible_bytes))}. {ask}",
        tokens,
        (*_to_the_budget(fit), last),
        "token",
    )


KINDS = (
    Kind("capacity.left", "what is left for the KV cache", _LESSON, _left, levels=(1, 2)),
    Kind("capacity.tokens", "tokens that fit", _LESSON, _tokens),
    Kind("capacity.batch", "requests that fit", _LESSON, _batch),
    Kind("capacity.context", "the context that fits", _LESSON, _context, levels=(1, 2)),
    Kind("capacity.cards", "how many GPUs it takes", _LESSON, _cards, levels=(1, 2)),
    Kind("capacity.precision", "the widest precision that fits", _LESSON, _precision, levels=(1, 2)),
    Kind("capacity.rent", "the cheapest machine that holds it", _LESSON, _rent, levels=(1, 2)),
)
