"""A linear layer whose weight is held quantized, and whose inputs may be quantized as they come."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from qlab.formats.activations import Activations
from qlab.formats.affine import AffineWeight
from qlab.formats.float8 import Float8Weight
from qlab.formats.weight import QuantizedWeight
from qlab.methods import fp8, llm_int8, w8a8


class QuantLinear(nn.Module):
    """`nn.Linear` with a quantized weight: y = x @ dequantize(weight).T + bias.

    The tensors of the weight are buffers, so that `.to(device)`, `state_dict` and safetensors carry them. Only integers
    and scales are held; the floating-point weight lives for the length of one forward pass. With `activations` it does
    not live at all: the inputs are quantized, too, and the codes of both are multiplied.

    On a GPU a kernel computes, if there is one for this weight; no floating-point weight lives there then. Its layout
    is made at the first product, and the codes as they were stored move to the memory of the CPU, so that the GPU holds
    them once. `path` says how the last product was computed.
    """

    def __init__(
        self, weight: QuantizedWeight, bias: torch.Tensor | None = None, activations: Activations | None = None
    ) -> None:
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
        # Its static scale is a buffer, too; None where the scale is measured in each call.
        self._activations = None if activations is None else dataclasses.replace(activations, scale=None)
        self.register_buffer("input_scale", None if activations is None else activations.scale)
        self.bias = None if bias is None else nn.Parameter(bias.detach(), requires_grad=False)
        self.path: str | None = None  # that of a kernel, such as "gemv", or "reference: " and why no kernel computed
        self._prepared: Any = None  # the weight as its kernel reads it

    @property
    def weight(self) -> QuantizedWeight:
        """The quantized weight, made of the buffers as they are now."""
        fields: dict[str, Any] = self._rest | dict(self.named_buffers(recurse=False))
        fields.pop("input_scale", None)
        if "packed" in fields:  # it may wait on the CPU, see above
            fields["packed"] = fields["packed"].to(fields["scales" if "scales" in fields else "absmax"].device)
        return self._format(**fields)

    @property
    def activations(self) -> Activations | None:
        """How the inputs are quantized; None if they are not."""
        if self._activations is None or self.input_scale is None:
            return self._activations
        assert isinstance(self.input_scale, torch.Tensor)
        return dataclasses.replace(self._activations, scale=self.input_scale)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x (..., in) -> (..., out), in the type of x. Kernels give no gradients: x that asks for one goes without."""
        if reason := self._why_no_kernel(x):
            self.path = f"reference: {reason}"
            return self._reference(x)
        from qlab.kernels import layer

        if self._prepared is None:
            self._prepared = layer.prepare(self.weight, self.activations)
            self.register_buffer("packed", self.get_buffer("packed").cpu())
        y: torch.Tensor
        y, self.path = layer.linear(x, self._prepared, self.bias)
        return y

    def _why_no_kernel(self, x: torch.Tensor) -> str | None:
        if not _on_gpu(x):
            return f"on {x.device.type}"
        if x.requires_grad and torch.is_grad_enabled():
            return "x needs a gradient"
        if x.dtype == torch.float64:
            return "x is float64"
        if self._prepared is not None:
            return None
        try:
            from qlab.kernels import layer
        except ImportError as error:
            return str(error)
        return layer.why_not(self.weight, self.activations)

    def _reference(self, x: torch.Tensor) -> torch.Tensor:
        weight, scheme = self.weight, self.activations
        if scheme is None:
            return F.linear(x, weight.dequantize(x.dtype), self.bias)
        if isinstance(weight, Float8Weight):
            return fp8.linear(x, weight, self.bias, scheme)
        assert isinstance(weight, AffineWeight)
        if scheme.threshold is not None:
            return llm_int8.linear(x, weight, self.bias, scheme.threshold)
        return w8a8.linear(x, weight, self.bias, scheme)

    def extra_repr(self) -> str:
        inputs = "" if self.activations is None else f", inputs {self.activations.label}"
        return f"{self.in_features} -> {self.out_features}, {self.weight.label}{inputs}, bias={self.bias is not None}"

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> QuantLinear:
        # model.half() and model.to(dtype) convert floating buffers, but the type of the scales is part of the format:
        # they may follow to another device, not into another type.
        scales = {name: b for name, b in self.named_buffers(recurse=False) if b.is_floating_point()}
        self._prepared = None
        super()._apply(fn, recurse)
        for name, before in scales.items():
            setattr(self, name, before.to(getattr(self, name).device))
        return self

    def _load_from_state_dict(self, *arguments: Any, **options: Any) -> None:
        self._prepared = None
        super()._load_from_state_dict(*arguments, **options)


def _on_gpu(x: torch.Tensor) -> bool:
    return x.is_cuda
