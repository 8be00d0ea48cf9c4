"""How a model in some precision is computed: what its weights take in memory, and which matrix rate multiplies them."""

from __future__ import annotations

from dataclasses import dataclass

from ..precision import Precision, parse_precision
from ..roofline import Limits

WIDTHS = {"fp16": 16, "fp8": 8, "int8": 8, "fp4": 4}  # bits of the numbers that a rate multiplies


@dataclass(frozen=True)
class Scheme:
    """How products are computed: how weights are stored, and which matrix rates the arithmetic can use.

    Args:
        rates: in the order of preference; where the GPU has none of them, weights are unpacked to 16 bits.
    """

    name: str
    weights: Precision
    rates: tuple[str, ...] = ()

    def rate(self, limits: Limits) -> str:
        """The arithmetic on this device."""
        return next((kind for kind in self.rates if kind in limits.rates), "fp16")


HEAD = Scheme("bf16", parse_precision("bf16"))  # the output head stays in 16 bits
_SCHEMES = {
    "w8a8": Scheme("w8a8", parse_precision("int8-channel"), ("int8",)),
    "fp8": Scheme("fp8", parse_precision("fp8"), ("fp8",)),
    "w4a8": Scheme("w4a8", parse_precision("int4-g128"), ("fp8", "int8")),
    # A scale byte for every 16 weights takes what two bytes for 32 do.
    "nvfp4": Scheme("nvfp4", Precision("nvfp4", 4, "group", 32), ("fp4",)),
}


def scheme(text: str | Precision | Scheme) -> Scheme:
    """How a model in this precision is computed.

    - "w8a8": int8 weights and activations. "w4a8": 4-bit weights, 8-bit activations. "nvfp4": both in 4 bits.
    - "fp8": weights and activations, where the GPU has an FP8 rate.
    - Everything else that `parse_precision` reads stores weights only; the arithmetic has 16 bits.

    Raises:
        TypeError, ValueError: as `parse_precision`.
    """
    if isinstance(text, Scheme):
        return text
    if isinstance(text, str) and text.strip().lower() in _SCHEMES:
        return _SCHEMES[text.strip().lower()]
    weights = parse_precision(text)
    return Scheme(weights.name, weights)
