"""What a layer asks the kernels: whether one computes with its weight, and the product."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
import torch

from qlab.formats import affine, codebook, float8
from qlab.formats.activations import Activations
from qlab.formats.weight import QuantizedWeight
from qlab.kernels import layer
from qlab.kernels.int8_matmul import Rows
from qlab.kernels.planes import Planes
from qlab.methods import w8a8

W = torch.randn(8, 96, generator=torch.Generator().manual_seed(0))
TENSOR = Activations(granularity="tensor")
COMPUTED: dict[str, tuple[QuantizedWeight, Activations | None]] = {
    "4 bits": (affine.quantize(W, 4, 32), None),
    "NF4": (codebook.quantize(W, "nf4", 32), None),
    "W8A8 per token": (w8a8.quantize(W), Activations()),
    "W8A8, one scale": (w8a8.quantize(W, "tensor"), TENSOR),
}
REFUSED: dict[str, tuple[QuantizedWeight, Activations | None]] = {
    "3 bits": (affine.quantize(W, 3, 32), None),
    "FP8 weights": (float8.quantize(W), None),
    "FP8 weights and inputs": (float8.quantize(W), Activations("e4m3")),
    "FP8 inputs": (w8a8.quantize(W), Activations("e4m3")),
    "outlier columns apart": (w8a8.quantize(W), Activations(threshold=6.0)),
    "4 bits times int8": (affine.quantize(W, 4, "channel"), Activations()),
    "groups times int8": (affine.quantize(W, 8, 32), Activations()),
    "zero-points times int8": (affine.quantize(W, 8, "channel", symmetric=False), Activations()),
    "NF4 times int8": (codebook.quantize(W, "nf4", 32), Activations()),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_prepares_what_it_promises(name: str, device: torch.device) -> None:
    weight, inputs = COMPUTED[name]
    tensors = {field: value.to(device) for field, value in vars(weight).items() if isinstance(value, torch.Tensor)}
    weight = dataclasses.replace(weight, **tensors)  # type: ignore[type-var]
    assert layer.why_not(weight, inputs) is None
    prepared = layer.prepare(weight, inputs)
    assert isinstance(prepared, Planes if inputs is None else Rows) and prepared.shape == weight.shape
    y, path = layer.linear(torch.zeros(3, 96, device=device), prepared)
    assert path == ("split-k" if inputs is None else "int8") and not y.any() and y.shape == (3, 8)


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_the_rest_with_a_reason(name: str) -> None:
    weight, inputs = REFUSED[name]
    reason = layer.why_not(weight, inputs)
    assert reason
    with pytest.raises(ValueError, match="^weight: ") as raised:
        layer.prepare(weight, inputs)
    assert reason in str(raised.value)


@pytest.mark.parametrize("tokens", [0, 1, 3, 70, 520])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_weight_only_products(
    dtype: torch.dtype,
    tokens: int,
    numbers: Callable[..., torch.Tensor],
    excess: Callable[..., float],
    device: torch.device,
) -> None:
    weight = affine.quantize(W.to(device), 4, 32)
    x, bias = numbers(2, tokens, 96)[:1].to(device, dtype), numbers(8).to(device, dtype)
    y, path = layer.linear(x, layer.prepare(weight), bias)
    assert path == {0: "empty", 1: "gemv", 3: "split-k", 70: "gemm", 520: "dequantize"}[tokens]
    assert y.shape == (1, tokens, 8) and y.dtype == dtype
    if tokens:
        assert excess(y, x, weight, bias) <= 1


def test_integer_products(numbers: Callable[..., torch.Tensor], device: torch.device) -> None:
    weight = w8a8.quantize(W.to(device))
    x, bias = numbers(2, 3, 96).half().to(device), numbers(8).half().to(device)
    y, path = layer.linear(x, layer.prepare(weight, Activations()), bias)
    assert path == "int8"
    torch.testing.assert_close(y, w8a8.linear(x, weight, bias))
