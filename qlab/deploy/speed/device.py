"""One of the GPUs that share a model, as a stack uses it: seconds of products, of attention, of sums over the GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from ..hardware import Gpu
from ..roofline import Limits, Time, Work, dequantized, product
from ..shapes import Matrix, ModelSpec
from .efficiency import Stack, link_bandwidth
from .scheme import WIDTHS, Scheme

Cause = Literal["memory", "compute", "communication", "overhead"]


class Shape(NamedTuple):
    """Matrices of the layers that have one shape: how many there are, and how many of them work on one token."""

    rows: int
    columns: int
    copies: int
    active: int


@lru_cache(maxsize=256)
def shapes(model: ModelSpec) -> tuple[Shape, ...]:
    """The matrices of the layers, equal ones together: one evaluation of the roofline serves them all."""
    found: dict[tuple[int, int, bool], list[int]] = {}
    for matrix in model.matrices():
        counts = found.setdefault((matrix.rows, matrix.columns, matrix.copies == matrix.active), [0, 0])
        counts[0] += matrix.copies
        counts[1] += matrix.active
    return tuple(Shape(rows, columns, *counts) for (rows, columns, _), counts in found.items())


def touched(matrix: Matrix | Shape, tokens: float) -> float:
    """How many of the copies at least one token uses, if each picks its experts at random; all, without experts.

    copies · (1 - (1 - active / copies) ^ tokens)
    """
    if matrix.active == matrix.copies:
        return matrix.copies
    return matrix.copies * (1 - (1 - matrix.active / matrix.copies) ** tokens)


@dataclass(frozen=True)
class Device:
    """One of the GPUs that share a model, as a stack uses it."""

    gpu: Gpu
    limits: Limits
    stack: Stack
    sharing: int

    def products(self, shape: Shape, how: Scheme, tokens: float) -> tuple[Cause, float]:
        """All products with the matrices of one shape: what limits them, and seconds."""
        used = touched(shape, tokens)
        rows, rate = tokens * shape.active / used, how.rate(self.limits)
        bits = how.weights.bits_per_weight(shape.rows, shape.columns)
        unpacks = how.weights.bits < WIDTHS[rate]
        if unpacks and rows > self.stack.fused_tokens:
            first = self.unpacking(shape, bits, WIDTHS[rate])
            then = self.product(shape, WIDTHS[rate], WIDTHS[rate], rate, False, rows)
            longer = max(first, then, key=lambda time: time.seconds)
            return longer.bound, used / self.sharing * (first.seconds + then.seconds)
        found = self.product(shape, bits, how.weights.bits, rate, unpacks, rows)
        return found.bound, used / self.sharing * found.seconds

    def product(self, shape: Shape, bits: float, width: int, rate: str, unpacks: bool, rows: float) -> Time:
        """One product of `rows` tokens with a weight that takes `bits` of memory for each number."""
        reached = self.stack.matrix(WIDTHS[rate]) * (self.stack.unpack if unpacks else 1)
        limits = Limits(self.limits.bandwidth * self.stack.read(width), {rate: self.limits.rates[rate] * reached})
        return limits.time(product(rows, shape.rows, shape.columns, bits, WIDTHS[rate]), rate)

    def unpacking(self, shape: Shape, bits: float, wide: int) -> Time:
        """Writing a weight in `wide` bits: its bytes at the bandwidth, the operations at the plain 32-bit rate."""
        moved = dequantized(shape.rows, shape.columns, bits, wide).bytes
        operations = shape.rows * shape.columns * self.stack.unpack_operations
        plain = (self.gpu.fp32_cuda_tflops or float("inf")) * 1e12
        return Limits(self.limits.bandwidth * self.stack.read_16, {"fp32": plain}).time(Work(moved, operations), "fp32")

    def attention(self, model: ModelSpec, cached: float, pairs: float, kv_bits: int) -> list[tuple[Cause, float]]:
        """Attention of the tokens that decode, and of those of prompts."""
        latent = model.latent
        heads = max(1.0, model.attention_heads / self.sharing)
        # A GPU holds at least one KV head. A latent vector serves all heads, so every GPU holds all of it.
        share = 1.0 if latent else max(1 / self.sharing, 1 / model.kv_heads)
        again = self.stack.expanded * (1 if latent else model.attention_heads / model.kv_heads)
        nbytes = cached * share * model.kv_values_per_token * kv_bits / 8 * (1 + again)
        if latent:  # decoding multiplies with the latent vectors themselves, prompts with what is unfolded from them
            decoding = 2 * latent.kv_lora_rank + latent.qk_rope_head_dim
            reading = latent.qk_nope_head_dim + latent.qk_rope_head_dim + latent.v_head_dim
        else:
            decoding = reading = 2 * model.head_dim
        rate = self.limits.rates["fp16"] * self.stack.attention
        limits = Limits(self.limits.bandwidth * self.stack.cache, {"fp16": rate})
        found = limits.time(Work(nbytes, 2 * cached * decoding * heads * model.layers))
        return [(found.bound, found.seconds), ("compute", 2 * pairs * reading * heads * model.layers / rate)]

    def communication(self, model: ModelSpec, tokens: float) -> float:
        """Seconds of two sums over the GPUs in each layer, of one 16-bit number for each token and hidden unit."""
        if self.sharing == 1:
            return 0.0
        moved = 2 * (self.sharing - 1) / self.sharing * tokens * model.hidden_size * 2
        return 2 * model.layers * (self.stack.all_reduce + moved / (link_bandwidth(self.gpu) * self.stack.link))
