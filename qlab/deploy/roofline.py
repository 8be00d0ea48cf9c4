"""The time that a matrix product takes at least: its bytes at a bandwidth, its operations at a rate, the longer counts.

    seconds >= max(bytes / bandwidth, operations / rate)

Williams, Waterman and Patterson (2009), "Roofline: An Insightful Visual Performance Model for Multicore Architectures".
Operations per byte are the intensity. Below the ridge, rate / bandwidth, memory is the limit; above it, arithmetic is.
A roofline is a bound: it knows nothing of unpacking, of launches, or of how well a kernel is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from .hardware import Gpu, gpu


@dataclass(frozen=True)
class Work:
    """What a computation moves, in bytes, and does, in operations (a multiplication and an addition are two)."""

    bytes: float
    operations: float

    @property
    def intensity(self) -> float:
        """Operations per byte."""
        return self.operations / self.bytes


@dataclass(frozen=True)
class Time:
    """Seconds at least, and what they are for."""

    seconds: float
    bound: Literal["memory", "compute"]


@dataclass(frozen=True)
class Limits:
    """A device: bytes per second, and operations per second by type of number ("fp16", "int8")."""

    bandwidth: float
    rates: Mapping[str, float]

    def ridge(self, rate: str = "fp16") -> float:
        """The intensity, in operations per byte, at which both limits are equal. Raises ValueError as `time`."""
        return self._rate(rate) / self.bandwidth

    def time(self, work: Work, rate: str = "fp16") -> Time:
        """The seconds that some work takes at least.

        Raises:
            ValueError: the device has no such rate.
        """
        memory, compute = work.bytes / self.bandwidth, work.operations / self._rate(rate)
        return Time(memory, "memory") if memory >= compute else Time(compute, "compute")

    def _rate(self, rate: str) -> float:
        if rate not in self.rates:
            raise ValueError(f"rate: got {rate!r}; this device has {', '.join(self.rates)}")
        return self.rates[rate]


def product(
    tokens: float, outputs: int, inputs: int, weight_bits: float = 16, x_bits: float = 16, y_bits: float = 16
) -> Work:
    """The work of y = x W.T with x (tokens, inputs) and W (outputs, inputs), everything moved once.

    Args:
        weight_bits: bits of a weight with its share of scales and zero-points, such as 4.125 with groups of 128.
        x_bits, y_bits: bits of a number of the input and of the result.

    Raises:
        ValueError: a size or a width is not positive.
    """
    _check(tokens=tokens, outputs=outputs, inputs=inputs, weight_bits=weight_bits, x_bits=x_bits, y_bits=y_bits)
    moved = outputs * inputs * weight_bits + tokens * inputs * x_bits + tokens * outputs * y_bits
    return Work(moved / 8, 2.0 * tokens * outputs * inputs)


def dequantized(outputs: int, inputs: int, weight_bits: float, wide_bits: float = 16) -> Work:
    """The work of writing a quantized weight (outputs, inputs) in `wide_bits`, which a plain product then reads.

    Raises:
        ValueError: a size or a width is not positive.
    """
    _check(outputs=outputs, inputs=inputs, weight_bits=weight_bits, wide_bits=wide_bits)
    return Work(outputs * inputs * (weight_bits + wide_bits) / 8, 0.0)


def datasheet(name: str | Gpu) -> Limits:
    """The limits that a maker prints: dense rates, without sparsity. No kernel reaches them.

    Raises:
        ValueError: the GPU is not known.
    """
    found = gpu(name)
    rates = {
        "fp16": found.fp16_tensor_tflops,
        "bf16": found.bf16_tensor_tflops,
        "fp8": found.fp8_tensor_tflops,
        "int8": found.int8_tensor_tops,
        "int4": found.int4_tensor_tops,
        "fp4": found.fp4_tensor_tflops,
    }
    return Limits(found.bandwidth_gb_per_s * 1e9, {kind: rate * 1e12 for kind, rate in rates.items() if rate})


def _check(**given: float) -> None:
    for name, value in given.items():
        if not value > 0:
            raise ValueError(f"{name}: got {value!r}; it must be positive")
