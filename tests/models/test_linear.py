"""QuantLinear computes what a linear layer with the dequantized weight computes, and holds nothing but packed bytes."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from qlab.formats import activations, affine, codebook, float8
from qlab.formats.activations import Activations
from qlab.methods import llm_int8, w8a8
from qlab.models import linear
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


# --- inputs in eight bits -------------------------------------------------------------------

STATIC = torch.tensor([0.02])
EIGHT_BIT: dict[str, tuple[Any, Activations]] = {
    "int8 per token": (w8a8.quantize, Activations()),
    "int8 per tensor": (partial(w8a8.quantize, group_size="tensor"), Activations(granularity="tensor")),
    "int8 static": (w8a8.quantize, Activations(granularity="tensor", scale=STATIC)),
    "llm_int8": (llm_int8.quantize, Activations(threshold=2.5)),
    "fp8": (float8.quantize, Activations("e4m3")),
    "fp8 static": (partial(float8.quantize, granularity="block"), Activations("e5m2", "tensor", STATIC)),
}


def eight_bit(name: str) -> tuple[QuantLinear, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    quantize, scheme = EIGHT_BIT[name]
    layer = QuantLinear(quantize(torch.randn(6, 24, generator=random)), torch.randn(6, generator=random), scheme)
    return layer, torch.randn(2, 3, 24, generator=random)


@pytest.mark.parametrize("name", EIGHT_BIT)
def test_inputs_are_rounded_as_the_scheme_says(name: str) -> None:
    layer, x = eight_bit(name)
    assert layer.activations is not None and layer.activations.label == EIGHT_BIT[name][1].label
    assert EIGHT_BIT[name][1].label in repr(layer)
    codes, scales = activations.quantize(x.reshape(-1, 24), EIGHT_BIT[name][1])
    values = codes.float() if codes.dtype == torch.int8 else float8.decode(codes, layer.activations.data_type)
    rounded = values * scales
    if (threshold := layer.activations.threshold) is not None:
        reached = (x.reshape(-1, 24).abs() >= threshold).any(0)
        assert 0 < int(reached.sum()) < 24
        rounded[:, reached] = x.reshape(-1, 24)[:, reached]
    expected = F.linear(rounded.double(), layer.weight.dequantize(torch.float64), layer.bias.double())  # type: ignore[union-attr]
    y = layer(x)
    assert y.dtype == x.dtype and y.shape == (2, 3, 6)
    torch.testing.assert_close(y.double().reshape(-1, 6), expected, rtol=1e-5, atol=1e-5)
    exact = F.linear(x.reshape(-1, 24).double(), layer.weight.dequantize(torch.float64), layer.bias.double())  # type: ignore[union-attr]
    assert not torch.allclose(expected, exact, rtol=1e-4, atol=1e-4), "nothing was rounded"


@pytest.mark.parametrize("name", [name for name in EIGHT_BIT if "int8" in name])
def test_integers_are_multiplied_as_integers(name: str, products: Any) -> None:
    """Floats that only look like integers would give the same numbers, and none of the speed."""
    layer, x = eight_bit(name)
    outliers = 0
    if (threshold := EIGHT_BIT[name][1].threshold) is not None:
        outliers = int((x.reshape(-1, 24).abs() >= threshold).any(0).sum())
    with products() as seen:
        layer(x)
    assert any(not left.is_floating_point() and left.dtype == right.dtype for _, left, right in seen)
    floats = [left for _, left, right in seen if left.is_floating_point() or right.is_floating_point()]
    assert all(left.shape[-1] == outliers for left in floats)


@pytest.mark.parametrize("name", EIGHT_BIT)
def test_eight_bits_are_held_in_eight_bits(name: str) -> None:
    layer, _ = eight_bit(name)
    held = {key: value for key, value in layer.state_dict().items() if key not in ("bias", "input_scale")}
    assert sum(t.nbytes for t in held.values()) == layer.weight.nbytes
    scales = {"int8 per tensor": 1, "fp8 static": 1}.get(name, 6)
    assert layer.weight.nbytes == 6 * 24 + 4 * scales


@pytest.mark.parametrize("name", ["int8 static", "fp8 static"])
def test_a_static_scale_travels_with_the_layer_and_keeps_its_type(name: str) -> None:
    layer, x = eight_bit(name)
    before = layer(x)
    layer.half().float()
    assert layer.activations is not None and layer.activations.scale is not None
    assert layer.activations.scale.dtype == torch.float32 and torch.equal(layer.activations.scale, STATIC)
    again = copy.deepcopy(layer)
    again.load_state_dict(layer.state_dict())
    layer.bias = again.bias = None
    assert torch.equal(again(x), layer(x)) and before.shape == layer(x).shape
    assert layer.to("meta").input_scale.device.type == "meta"  # type: ignore[union-attr]


# --- On a GPU, or where there is none, with kernels that are interpreted ---------------------------------------------

WITH_KERNELS: dict[str, tuple[Any, Activations | None, str]] = {
    "4 bits": (partial(affine.quantize, bits=4, group_size=16, symmetric=False), None, "gemv"),
    "NF4": (partial(codebook.quantize, block_size=16), None, "gemv"),
    "W8A8": (w8a8.quantize, Activations(), "int8"),
    "W8A8, static": (w8a8.quantize, Activations("int8", "tensor", torch.tensor([0.02])), "int8"),
}


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr(linear, "_on_gpu", lambda x: True)


@pytest.mark.usefixtures("on_gpu")
@pytest.mark.parametrize("name", WITH_KERNELS)
def test_a_kernel_computes_the_same_and_says_its_path(name: str) -> None:
    quantize, activations, path = WITH_KERNELS[name]
    random = torch.Generator().manual_seed(0)
    layer = QuantLinear(quantize(torch.randn(6, 32, generator=random)), torch.randn(6, generator=random), activations)
    x = torch.randn(1, 1, 32, generator=random)
    assert layer.path is None
    torch.testing.assert_close(layer(x), layer._reference(x))
    assert layer.path == path
    layer(x.expand(2, 3, 32))
    assert layer.path == ("int8" if activations else "split-k")


@pytest.mark.usefixtures("on_gpu")
def test_the_layout_of_a_kernel_is_made_once_and_follows_new_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    from qlab.kernels import layer as kernels

    made: list[str] = []
    prepare = kernels.prepare
    monkeypatch.setattr(kernels, "prepare", lambda weight, *rest: made.append(weight.label) or prepare(weight, *rest))
    layer = QuantLinear(affine.quantize(torch.randn(6, 32), 4, 16))
    other = QuantLinear(affine.quantize(torch.randn(6, 32), 4, 16))
    x = torch.randn(1, 32)
    layer(x), layer(x)
    assert len(made) == 1
    layer.load_state_dict(other.state_dict())
    assert torch.equal(layer(x), other(x)) and len(made) == 3
    layer.half()
    layer(x)
    assert len(made) == 4
    assert set(layer.state_dict()) == {"packed", "scales"}, "what kernels read is no part of a checkpoint"


@pytest.mark.usefixtures("on_gpu")
def test_without_a_kernel_the_reference_computes_and_the_reason_is_told() -> None:
    x = torch.randn(2, 20)
    layer = make(bits=3)
    assert torch.equal(layer(x), layer._reference(x)) and layer.path == "reference: 3 bits: kernels read 4 and 8"
    layer = QuantLinear(affine.quantize(torch.randn(6, 20), 4, "channel"))
    layer(x.requires_grad_()).sum().backward()
    assert layer.path == "reference: x needs a gradient" and x.grad is not None
    layer(x.detach().double())
    assert layer.path == "reference: x is float64"


def test_on_a_cpu_the_reference_computes() -> None:
    layer = make()
    layer(torch.randn(1, 20))
    assert layer.path == "reference: on cpu"
