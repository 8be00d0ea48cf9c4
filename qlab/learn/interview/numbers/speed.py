"""Times and where they come from: of a prompt, of a token, and the batch from which arithmetic binds."""

from __future__ import annotations

from typing import Any

from qlab.deploy import roofline
from qlab.deploy.speed import phases

from .memory import bits_per_weight, fewer_bytes
from .registry import computes


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


@computes("x")
def layers_limit(precision: str, model: str = "Llama-3-70B") -> float:
    """How many times fewer bytes the layers' matrices take than in 16 bits: no product gains more."""
    return 16 / bits_per_weight(precision, model)


@computes("tokens")
def ridge(place: str, rate: str = "fp16") -> float:
    """Tokens at once from which a product with 16-bit weights is bound by arithmetic, by the data sheet.

    A weight of two bytes is multiplied and added once for each token: one operation per byte and token.
    """
    return roofline.datasheet(place).ridge(rate)


@computes("tokens")
def weight_only_ridge(place: str, precision: str, model: str = "Llama-3-70B") -> float:
    """`ridge` with weights of that precision that are multiplied in 16 bits."""
    return phases.crossover(place, bits_per_weight(precision, model))


@computes("tokens")
def packed_ridge(place: str, bits: int, group: int, parameter_bits: int = 16) -> float:
    """Tokens from which a fused product with the packed matrix is bound by 16-bit arithmetic, by the data sheet."""
    return ridge(place) / fewer_bytes(bits, group, parameter_bits)


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
