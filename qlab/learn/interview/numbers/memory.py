"""Bytes, bits and what fits: of models, matrices, caches, and of what GPTQ collects."""

from __future__ import annotations

from typing import Any

from qlab import deploy
from qlab.deploy.speed import phases

from .registry import computes


@computes("bytes")
def weights(model: str, precision: str, gpus: int = 1) -> float:
    """Of all GPUs together, norms held twice and all."""
    return gpus * deploy.memory(model, precision, tensor_parallel=gpus).weights


@computes("bytes")
def weights_read(model: str, precision: str) -> float:
    """By one step of decode: matrices of the layers and the head in 16 bits, no embedding table."""
    return phases.weight_bytes(model, precision)


@computes("bytes")
def kv_cache(model: str, tokens: int, kv_bits: int = 16) -> float:
    """Of that many tokens, whoever they belong to."""
    return tokens * deploy.memory(model, kv_bits=kv_bits).kv_per_token


@computes("bits")
def kv_bits_held(model: str, bits: int, group_size: int) -> float:
    """Of a number in the KV cache, with its part of the group's scale and minimum."""
    held = deploy.memory(model, kv_bits=bits, kv_group_size=group_size)
    return 8 * held.kv_per_token / held.spec.kv_values_per_token


@computes("bytes")
def visible(place: str) -> float:
    """Memory that CUDA shows on a GPU, or on all GPUs of an instance."""
    if "." in place:
        return deploy.instance(place).visible_bytes
    return deploy.gpu(place).visible_bytes


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


@computes("bits per weight")
def mixed_bits(low: str, high: str, share: float, model: str = "Llama-3-70B") -> float:
    """Of the layers' matrices, on average, if a `share` of their weights is held at the precision `high`."""
    return (1 - share) * bits_per_weight(low, model) + share * bits_per_weight(high, model)


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
