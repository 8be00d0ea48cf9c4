"""8-bit weights and how their layers round inputs, on disk: types, shapes, the way back, and what does not fit."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlab.formats import affine, float8
from qlab.formats.activations import Activations
from qlab.formats.disk import compressed_w8a8 as layout

ct = pytest.importorskip("compressed_tensors")
from compressed_tensors.compressors import BaseCompressor  # noqa: E402
from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme  # noqa: E402

Weight = affine.AffineWeight | float8.Float8Weight


def of_shape(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


def int8(granularity: affine.GroupSize = "channel", rows: int = 3, columns: int = 5, **options: Any) -> Weight:
    return affine.quantize(of_shape(rows, columns), 8, granularity, **options)


@st.composite
def weights(draw: st.DrawFn) -> Weight:
    shape = draw(st.integers(1, 4)), draw(st.integers(1, 9))
    if draw(st.booleans()):  # blocks of 128: sizes around one and two of them
        shape = draw(st.sampled_from([1, 127, 128, 129])), draw(st.sampled_from([1, 128, 257]))
    dtype = draw(st.sampled_from(affine.SCALE_DTYPES))
    w = of_shape(*shape, seed=draw(st.integers(0, 2**32))).to(dtype)
    granularity = draw(st.sampled_from(["channel", "tensor", "block"]))
    if granularity == "block" or draw(st.booleans()):
        return float8.quantize(w, "e4m3", granularity)
    return affine.quantize(w, 8, granularity, scale_dtype=draw(st.sampled_from(affine.SCALE_DTYPES)))


@given(weights())
def test_decode_is_the_inverse(weight: Weight) -> None:
    settings = layout.settings({"w": weight}, activations=Activations())
    back = layout.decode(layout.encode(weight), settings, weight.dtype, "w")
    assert type(back) is type(weight) and (back.shape, back.dtype) == (weight.shape, weight.dtype)
    assert back.scales.dtype == weight.scales.dtype and torch.equal(back.scales, weight.scales)
    assert torch.equal(back.dequantize(), weight.dequantize())


@given(weights())
def test_the_library_decompresses_to_the_same(weight: Weight) -> None:
    tensors = layout.encode(weight)
    config = QuantizationConfig.model_validate(layout.settings({"w": weight}, activations=Activations()))
    scheme = config.config_groups["group_0"]
    assert isinstance(scheme, QuantizationScheme)
    theirs = BaseCompressor.get_value_from_registry(config.format).decompress(tensors, scheme)["weight"]
    # The library multiplies in the type of the scale, we in float32: one rounding each way.
    assert torch.equal(theirs, weight.dequantize(weight.scales.dtype))


def test_the_codes_are_signed_and_the_shapes_those_of_the_layout() -> None:
    weight = affine.quantize(torch.tensor([[127.0, -127.0, 1.0], [0.0, 64.0, -128.0]]), 8, "channel")
    tensors = layout.encode(weight)
    assert tensors["weight"].dtype == torch.int8 and tensors["weight"].tolist()[0] == [127, -127, 1]
    assert tensors["weight_scale"].shape == (2, 1)
    assert layout.encode(int8("tensor"))["weight_scale"].shape == (1,)
    blocks = layout.encode(float8.quantize(of_shape(129, 257), "e4m3", "block"))
    assert blocks["weight"].dtype == torch.float8_e4m3fn and blocks["weight_scale"].shape == (2, 3)


@pytest.mark.parametrize(
    "scheme",
    [
        Activations(),
        Activations("int8", "tensor"),
        Activations("int8", "tensor", torch.tensor([0.25])),
        Activations("e4m3"),
        Activations("e4m3", "tensor", torch.tensor([0.5])),
    ],
    ids=lambda scheme: scheme.label,
)
def test_the_inputs_of_a_layer_come_back(scheme: Activations) -> None:
    weight = int8() if scheme.data_type == "int8" else float8.quantize(of_shape(3, 5), "e4m3", "channel")
    tensors = layout.encode(weight)
    if scheme.scale is not None:
        tensors["input_scale"] = scheme.scale
    back = layout.activations(tensors, layout.settings({"w": weight}, activations=scheme), "w")
    assert (back.data_type, back.granularity) == (scheme.data_type, scheme.granularity)
    assert (back.scale is None) == (scheme.scale is None)
    assert scheme.scale is None or torch.equal(back.scale, scheme.scale)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (affine.quantize(of_shape(2, 8), 4, "channel"), "4 bits.*; 8 bits, symmetric, fit"),
        (int8(symmetric=False), "8 bits, symmetric, fit"),
        (int8(4, columns=8), "one scale a 'channel' or 'tensor' fits"),
        (float8.quantize(of_shape(2, 8), "e5m2", "channel"), "use e4m3"),
    ],
    ids=["4 bits", "zero-points", "groups", "e5m2"],
)
def test_what_does_not_fit_is_named(weight: Weight, message: str) -> None:
    with pytest.raises(ValueError, match=rf"model\.q \(in [58], out [23]\): .*{message}"):
        layout.check({"model.q": weight})
    with pytest.raises(ValueError, match=message):
        layout.encode(weight)


def test_one_layout_for_all_layers() -> None:
    with pytest.raises(ValueError, match="got 2 kinds"):
        layout.check({"a": int8("channel"), "b": int8("tensor")})
    with pytest.raises(ValueError, match="holds AffineWeight only"):
        layout.check({"a": int8(), "b": float8.quantize(of_shape(3, 5), "e4m3", "channel")})


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["format"], "pack-quantized", "got format 'pack-quantized'"),
        (["config_groups", "group_0", "weights", "num_bits"], 4, "allowed is one group of symmetric 8-bit weights"),
        (["config_groups", "group_0", "weights", "symmetric"], False, "allowed is one group of symmetric"),
        (["config_groups", "group_0", "weights", "strategy"], "group", "allowed is one group"),
        (["config_groups", "group_0", "weights", "strategy"], "block", "allowed is one group"),  # of which size?
        (["config_groups", "group_0", "input_activations"], None, "and 8-bit inputs per token"),
        (["config_groups", "group_0", "input_activations", "strategy"], "group", "and 8-bit inputs per token"),
        (["config_groups"], {}, "with config groups \\[\\]"),
    ],
    ids=lambda value: None if isinstance(value, list) else str(value)[:20],
)
def test_settings_of_other_layouts_are_refused(path: list[str], value: Any, message: str) -> None:
    weight = int8()
    settings = copy.deepcopy(layout.settings({"w": weight}, activations=Activations()))
    *parents, last = path
    place = settings
    for key in parents:
        place = place[key]
    place[last] = value
    with pytest.raises(ValueError, match=f"w: .*{message}"):
        layout.decode(layout.encode(weight), settings, torch.float32, "w")


def test_tensors_of_other_shapes_and_types_are_refused() -> None:
    weight = int8()
    settings = layout.settings({"w": weight}, activations=Activations())
    tensors = layout.encode(weight)
    with pytest.raises(ValueError, match=r"w: weight_scale of shape \(2, 1\); a weight of shape \(3, 5\)"):
        layout.decode(tensors | {"weight_scale": torch.ones(2, 1)}, settings, torch.float32, "w")
    with pytest.raises(ValueError, match="w.*weight"):
        layout.decode(tensors | {"weight": tensors["weight"].float()}, settings, torch.float32, "w")
    with pytest.raises(ValueError, match="w.*weight_scale"):
        layout.decode({"weight": tensors["weight"]}, settings, torch.float32, "w")
