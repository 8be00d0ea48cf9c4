"""A linear layer whose weight is held quantized."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qlab.formats.weight import QuantizedWeight


class QuantLinear(nn.Module):
    """`nn.Linear` with a quantized weight: y = x @ dequantize(weight).T + bias.

    The tensors of the weight are buffers, so that `.to(device)`, `state_dict` and safetensors carry them. Only integers
    and scales are held; the floating-point weight lives for the length of one forward pass.
    """

    def __init__(self, weight: QuantizedWeight, bias: torch.Tensor | None = None) -> None:
        super().__init__()
        self.out_features, self.in_features = weight.shape
        if bias is not None and tuple(bias.shape) != (self.out_features,):
            raise ValueError(
                f"bias: shape {tuple(bias.shape)}; a weight of shape {weight.shape} takes ({weight.shape[0]},)"
            )
        self._format = type(weight)
        self._rest: dict[str, Any] = {}  # the fields of the weight that are not tensors
        for field in dataclasses.fields(weight):
            value = getattr(weight, field.name)
            if isinstance(value, torch.Tensor):
                self.register_buffer(field.name, value)
            else:
                self._rest[field.name] = value
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)

    @property
    def weight(self) -> QuantizedWeight:
        """The quantized weight, made of the buffers as they are now."""
        fields: dict[str, Any] = self._rest | dict(self.named_buffers(recurse=False))
        return self._format(**fields)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., in) -> (..., out), in the type of x."""
        return F.linear(x, self.weight.dequantize(x.dtype), self.bias)

    def extra_repr(self) -> str:
        return f"{self.in_features} -> {self.out_features}, {self.weight.label}, bias={self.bias is not None}"

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> QuantLinear:
        # model.half() and model.to(dtype) convert floating buffers, but the type of the scales is part of the format:
        # they may follow to another device, not into another type.
        scales = {name: b for name, b in self.named_buffers(recurse=False) if b.is_floating_point()}
        super()._apply(fn, recurse)
        for name, before in scales.items():
            setattr(self, name, before.to(getattr(self, name).device))
        return self
