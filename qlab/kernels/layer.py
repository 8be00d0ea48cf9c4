"""What a layer does with a weight on a GPU: prepare it once, then multiply, and say by which path."""

from __future__ import annotations

import torch

from qlab.formats.activations import Activations
from qlab.formats.affine import AffineWeight
from qlab.formats.weight import QuantizedWeight
from qlab.methods import w8a8

from . import int8_matmul, planes, weight_only
from .int8_matmul import Rows
from .planes import Planes

Prepared = Planes | Rows


def why_not(weight: QuantizedWeight, activations: Activations | None) -> str | None:
    """Why no kernel computes with this weight and these inputs; None if one does."""
    if activations is None:
        return planes.why_not(weight)
    if (
        not isinstance(weight, AffineWeight)
        or (weight.bits, weight.symmetric) != (8, True)
        or weight.group_size not in ("channel", "tensor")  # other scales do not come out of the sum
        or (activations.data_type, activations.threshold) != ("int8", None)
    ):
        return f"{weight.label}, inputs {activations.label}: no kernel for this pair"
    return None


def prepare(weight: QuantizedWeight, activations: Activations | None = None) -> Prepared:
    """A weight in the layout that its kernel reads.

    Raises:
        ValueError: no kernel computes with it; the message says why.
    """
    if reason := why_not(weight, activations):
        raise ValueError(f"weight: {reason}")
    if activations is None:
        return planes.repack(weight)
    assert isinstance(weight, AffineWeight)
    return Rows(w8a8.int8_codes(weight), weight.scales, activations)


def linear(x: torch.Tensor, weight: Prepared, bias: torch.Tensor | None = None) -> tuple[torch.Tensor, str]:
    """x (..., in) -> (..., out) in the type of x, and the path that computed it: "int8" or as in `weight_only`."""
    if isinstance(weight, Rows):
        return int8_matmul.linear(x, weight, bias), "int8"
    return weight_only.linear(x, weight, bias)
