"""QuantLinear computes what a linear layer with the dequantized weight computes, and holds nothing but packed bytes."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from qlab.formats import affine
from qlab.models.linear import QuantLinear


def make(bits: int = 4, symmetric: bool = False, bias: bool = True) -> QuantLinear:
    generator = torch.Generator().manual_seed(bits)
    weight = torch.randn(6, 20, generator=generator)
    return QuantLinear(
        affine.quantize(weight, bits, 8, symmetric), torch.randn(6, generator=generator) if bias else None
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("bias", [True, False])
def test_it_computes_with_the_dequantized_weight(bias: bool, dtype: torch.dtype) -> None:
    layer = make(bias=bias).to(dtype)
    x = torch.randn(2, 3, 20, generator=torch.Generator().manual_seed(0)).to(dtype)
    y = layer(x)
    assert y.dtype == dtype and y.shape == (2, 3, 6)
    assert torch.equal(y, F.linear(x, layer.weight.dequantize(dtype), layer.bias))
    assert (layer.in_features, layer.out_features) == (20, 6)


@pytest.mark.parametrize("symmetric", [True, False])
def test_it_holds_packed_bytes_only(symmetric: bool) -> None:
    layer = make(symmetric=symmetric, bias=False)
    held = layer.state_dict()
    assert set(held) == ({"packed", "scales"} if symmetric else {"packed", "scales", "zeros"})
    assert sum(t.nbytes for t in held.values()) == layer.weight.nbytes
    assert held["packed"].dtype == torch.uint8 and held["scales"].dtype == torch.float16
    assert not list(layer.parameters())


def test_scales_keep_their_type_when_the_model_changes_its_own() -> None:
    layer = make()
    before = layer.weight.dequantize(torch.float64)
    for change in (layer.half, layer.float, layer.double, layer.bfloat16):
        change()
        assert layer.scales.dtype == torch.float16 and layer.packed.dtype == torch.uint8
        assert torch.equal(layer.weight.dequantize(torch.float64), before)
    assert layer.bias is not None and layer.bias.dtype == torch.bfloat16


def test_buffers_follow_the_layer_to_another_device() -> None:
    layer = make().to("meta")
    assert {t.device.type for t in layer.state_dict().values()} == {"meta"}


def test_state_travels_through_safetensors(tmp_path: Path) -> None:
    source, target = make(), QuantLinear(affine.quantize(torch.ones(6, 20), 4, 8, symmetric=False), torch.zeros(6))
    save_file(source.state_dict(), tmp_path / "layer.safetensors")
    target.load_state_dict(load_file(tmp_path / "layer.safetensors"))
    x = torch.randn(4, 20, generator=torch.Generator().manual_seed(0))
    assert torch.equal(target(x), source(x))
    assert torch.equal(copy.deepcopy(source)(x), source(x))


def test_the_bias_is_not_trained_and_must_fit() -> None:
    layer = make()
    assert layer.bias is not None and not layer.bias.requires_grad
    x = torch.randn(2, 20, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None  # gradients still pass through to what comes before
    with pytest.raises(ValueError, match=r"bias: shape \(5,\)"):
        QuantLinear(layer.weight, torch.zeros(5))


def test_it_introduces_itself() -> None:
    assert str(make()) == "QuantLinear(20 -> 6, 4 bits, groups of 8, asymmetric, bias=True)"
    channel = QuantLinear(affine.quantize(torch.ones(2, 3), 8, "channel"))
    assert str(channel) == "QuantLinear(3 -> 2, 8 bits, per channel, symmetric, bias=False)"
