"""The time of a whole model's prefill and decode: bytes and operations of every part against what a stack reaches.

    seconds = layers + head + attention + communication + overhead

    layers, head     each matrix: max(bytes / bandwidth, operations / rate), as in `qlab.deploy.roofline`
    attention        the KV cache read once, 4 · heads · head_dim operations for each pair of query and key
    communication    with tensor parallelism, two sums over the GPUs in a layer: latency + 2 (n-1)/n · bytes / link
    overhead         what the stack adds: small kernels, a scheduler, and launches that the device waits for

Prefill works on all tokens of its prompts at once, and is mostly bound by arithmetic; decode works on one token for
each request, and is mostly bound by memory. Both are one pass through the model (`forward`), with other counts.

Left out: norms, positions and activation functions except in `layer`, sampling, padding, chunked attention's second
reading of the cache. What a stack reaches is in `qlab.deploy.speed.efficiency`, and is where the error is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..hardware import Gpu, gpu
from ..models import spec
from ..precision import Precision
from ..roofline import datasheet
from ..shapes import ModelSpec
from .device import Cause, Device, Shape, shapes, touched
from .efficiency import Stack, stack
from .scheme import HEAD, Scheme, scheme

PARTS = ("layers", "head", "attention", "communication", "overhead")
CAUSES: tuple[Cause, ...] = ("memory", "compute", "communication", "overhead")


@dataclass(frozen=True)
class Phase:
    """Seconds of one pass through the model, by part and by cause; both sum up to `seconds`."""

    parts: Mapping[str, float]  # by PARTS
    causes: Mapping[Cause, float]  # by CAUSES

    @property
    def seconds(self) -> float:
        return sum(self.parts.values())

    @property
    def bound(self) -> Cause:
        """What takes most of the time. "overhead": small kernels, or a device that waits for launches."""
        return max(self.causes, key=lambda cause: self.causes[cause])


def decode(
    model: str | ModelSpec,
    precision: str | Precision | Scheme,
    gpu_name: str | Gpu,
    batch: int = 1,
    context: float = 0,
    *,
    tensor_parallel: int = 1,
    kv_bits: int = 16,
    kernels: str | Stack = "server",
    host: float = 1.0,
) -> Phase:
    """One step: one token for each of `batch` requests that have `context` tokens in the cache.

    Args:
        model: whatever `spec` takes.
        precision: whatever `scheme` takes. The head stays in 16 bits.
        context: mean tokens in the cache of a request; 0 or more.
        tensor_parallel: GPUs that share every matrix.
        kernels: a stack or its name, see `efficiency.stack`; "datasheet" reaches everything.
        host: seconds in which the host does what a server's core does in one.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
    """
    _check(1, batch=batch)
    _check(0, context=context)
    return forward(
        model, precision, gpu_name, tokens=batch, logits=batch, cached=batch * context,
        tensor_parallel=tensor_parallel, kv_bits=kv_bits, kernels=kernels, host=host,
    )  # fmt: skip


def prefill(
    model: str | ModelSpec,
    precision: str | Precision | Scheme,
    gpu_name: str | Gpu,
    tokens: int,
    batch: int = 1,
    *,
    tensor_parallel: int = 1,
    kv_bits: int = 16,
    kernels: str | Stack = "server",
    host: float = 1.0,
) -> Phase:
    """All prompts of a batch, `tokens` each, in one pass; it gives the first token of each. Arguments as `decode`."""
    _check(1, tokens=tokens, batch=batch)
    return forward(
        model, precision, gpu_name, tokens=batch * tokens, logits=batch, prompt_pairs=batch * pairs(tokens),
        tensor_parallel=tensor_parallel, kv_bits=kv_bits, kernels=kernels, host=host,
    )  # fmt: skip


def step_time(
    model: str | ModelSpec,
    precision: str | Precision | Scheme,
    gpu_name: str | Gpu,
    *,
    tensor_parallel: int = 1,
    kv_bits: int = 16,
    kernels: str | Stack = "server",
    host: float = 1.0,
) -> Callable[[int, int, int], float]:
    """The function that `simulation.serve` asks: (prompt tokens, requests that decode, tokens in the cache) -> seconds.

    Everything in the cache is read, and prompt tokens look at each other as those of one prompt do. What a later chunk
    of a long prompt has to compute with the earlier ones is counted as for one token: too little.
    """
    found, how, where, reached = spec(model), scheme(precision), gpu(gpu_name), stack(kernels, gpu_name)

    def seconds(prefill_tokens: int, decoding: int, cached_tokens: int) -> float:
        return forward(
            found, how, where, tokens=prefill_tokens + decoding, logits=decoding + (prefill_tokens > 0),
            cached=cached_tokens, prompt_pairs=pairs(prefill_tokens),
            tensor_parallel=tensor_parallel, kv_bits=kv_bits, kernels=reached, host=host,
        ).seconds  # fmt: skip

    return seconds


def forward(
    model: str | ModelSpec,
    precision: str | Precision | Scheme,
    gpu_name: str | Gpu,
    *,
    tokens: int,
    logits: int,
    cached: float = 0,
    prompt_pairs: float = 0,
    tensor_parallel: int = 1,
    kv_bits: int = 16,
    kernels: str | Stack = "server",
    host: float = 1.0,
) -> Phase:
    """One pass through the model, of which prefill and decode are two cases.

    Args:
        tokens: rows of every product in the layers.
        logits: rows of the head's product.
        cached: tokens in the cache that tokens which decode look at, all requests together.
        prompt_pairs: pairs of a prompt's token and one that it looks at, in one layer.

    Raises:
        TypeError, ValueError: an argument is of the wrong kind or out of range.
    """
    found, how, where, reached = spec(model), scheme(precision), gpu(gpu_name), stack(kernels, gpu_name)
    _check(1, tokens=tokens, tensor_parallel=tensor_parallel, kv_bits=kv_bits)
    if not host > 0:
        raise ValueError(f"host: got {host!r}; it must be above 0")
    device = Device(where, datasheet(where), reached, tensor_parallel)
    times = [("layers", *device.products(shape, how, tokens)) for shape in shapes(found)]
    times.append(("head", *device.products(Shape(*found.embedding_shape, 1, 1), HEAD, logits)))
    times += [("attention", *time) for time in device.attention(found, cached, prompt_pairs, kv_bits)]
    times.append(("communication", "communication", device.communication(found, tokens)))
    times.append(("overhead", "overhead", reached.layer * found.layers))
    quantized = 0 if how.weights.bits >= 16 else sum(shape.active for shape in shapes(found))
    launches = host * (reached.host_layer * found.layers + reached.host_product * quantized)
    late = max(0.0, launches - sum(seconds for _, _, seconds in times))
    times.append(("overhead", "overhead", late + host * reached.step))
    parts, causes = dict.fromkeys(PARTS, 0.0), dict.fromkeys(CAUSES, 0.0)
    for part, cause, seconds in times:
        parts[part] += seconds
        causes[cause] += seconds
    return Phase(parts, causes)


def pairs(tokens: int) -> float:
    """Pairs of a prompt's token and one that it looks at: itself and those before."""
    return tokens * (tokens + 1) / 2


def weight_bytes(model: str | ModelSpec, precision: str | Precision | Scheme, tokens: int = 1) -> float:
    """Bytes of weights that one pass reads: matrices of the layers, and the head in 16 bits; no embedding table."""
    found, weights = spec(model), scheme(precision).weights
    layers = sum(touched(m, tokens) * weights.matrix_bytes(m.rows, m.columns) for m in found.matrices())
    return layers + HEAD.weights.matrix_bytes(*found.embedding_shape)


def crossover(gpu_name: str | Gpu, weight_bits: float, rate: str = "fp16") -> float:
    """Tokens from which on a product's arithmetic takes longer than reading its weight, on the data sheet's numbers.

    rate · weight_bits / 8 / (2 · bandwidth), activations not counted. With `weight_bits=8` it is the batch where int8
    arithmetic overtakes 16-bit arithmetic on 4-bit weights: the one still reads as long as the other computes.
    """
    limits = datasheet(gpu_name)
    return limits.ridge(rate) * weight_bits / 16


def tokens_like_weights(model: str | ModelSpec, precision: str | Precision | Scheme, kv_bits: int = 16) -> float:
    """Tokens in flight at which a decode step reads as much cache as weights."""
    return weight_bytes(model, precision) / (spec(model).kv_values_per_token * kv_bits / 8)


def _check(least: int, **given: float) -> None:
    for name, value in given.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise TypeError(f"{name}: got {value!r}; give a number")
        if not least <= value < float("inf"):
            raise ValueError(f"{name}: got {value!r}; it must be {least} or more")
