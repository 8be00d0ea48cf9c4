"""pack-quantized tensors against plain integers, the library's own packing, and a plain from_pretrained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlab.formats import affine
from qlab.formats.disk import compressed_tensors as layout

ct = pytest.importorskip("compressed_tensors")
from compressed_tensors.compressors import (  # noqa: E402
    PackedQuantizationCompressor,
    pack_to_int32,
    unpack_from_int32,
)
from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme  # noqa: E402


def weight_of(
    shape: tuple[int, int], bits: int = 4, group_size: affine.GroupSize = 32, **options: Any
) -> affine.AffineWeight:
    w = torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) + bits))
    return affine.quantize(w, bits, group_size, **options)


@st.composite
def weights(draw: st.DrawFn) -> affine.AffineWeight:
    bits = draw(st.sampled_from(layout.BITS))
    group_size = draw(st.sampled_from([1, 3, 8, 32, "channel"]))
    groups = draw(st.integers(1, 5))
    columns = draw(st.integers(1, 70)) if group_size == "channel" else groups * group_size
    dtype = draw(st.sampled_from(affine.SCALE_DTYPES))
    rows = draw(st.integers(1, 4))
    w = torch.randn(rows, columns, generator=torch.Generator().manual_seed(draw(st.integers(0, 2**32))))
    return affine.quantize(w.to(dtype), bits, group_size, scale_dtype=draw(st.sampled_from(affine.SCALE_DTYPES)))


def word(codes: list[int], bits: int) -> int:
    """One signed 32-bit word, the first code in the lowest bits."""
    number = sum(code << (bits * i) for i, code in enumerate(codes))
    return number - 2**32 if number >= 2**31 else number


@given(weights())
def test_words_are_the_codes_of_a_row_in_plain_integers(weight: affine.AffineWeight) -> None:
    tensors = layout.encode(weight)
    per_word = 32 // weight.bits
    rows = weight.codes().tolist()
    expected = [[word(row[i : i + per_word], weight.bits) for i in range(0, len(row), per_word)] for row in rows]
    assert tensors["weight_packed"].dtype == torch.int32
    assert tensors["weight_packed"].tolist() == expected
    assert tensors["weight_shape"].tolist() == list(weight.shape)


@given(weights())
def test_decode_is_the_inverse(weight: affine.AffineWeight) -> None:
    back = layout.decode(layout.encode(weight), layout.settings({"w": weight}), weight.dtype, "w")
    assert_same(back, weight)


def assert_same(back: affine.AffineWeight, weight: affine.AffineWeight) -> None:
    assert torch.equal(back.packed, weight.packed)
    assert torch.equal(back.scales, weight.scales) and back.scales.dtype == weight.scales.dtype
    assert (back.zeros is None) == (weight.zeros is None)
    assert back.zeros is None or torch.equal(back.zeros, weight.zeros)
    assert (back.group_index is None) == (weight.group_index is None)
    assert back.group_index is None or torch.equal(back.group_index, weight.group_index)
    assert (back.bits, back.group_size, back.shape, back.dtype) == (
        weight.bits,
        weight.group_size,
        weight.shape,
        weight.dtype,
    )


@given(weights())
def test_the_library_unpacks_and_decompresses_to_the_same(weight: affine.AffineWeight) -> None:
    tensors = layout.encode(weight)
    signed = (weight.codes().int() - 2 ** (weight.bits - 1)).to(torch.int8)
    assert torch.equal(pack_to_int32(signed, weight.bits), tensors["weight_packed"])
    assert torch.equal(unpack_from_int32(tensors["weight_packed"], weight.bits, torch.Size(weight.shape)), signed)
    config = QuantizationConfig.model_validate(layout.settings({"w": weight}))
    scheme = config.config_groups["group_0"]
    assert isinstance(scheme, QuantizationScheme)
    theirs = PackedQuantizationCompressor.decompress(tensors, scheme)["weight"]
    assert theirs.dtype == weight.scales.dtype
    # The library multiplies in the type of the scale, we in float32: one rounding each way.
    assert torch.equal(theirs, weight.dequantize(weight.scales.dtype))


def test_known_words() -> None:
    """The golden values of the library's own tests, as signed numbers."""

    def words(values: list[int], bits: int) -> list[int]:
        codes = torch.tensor([values], dtype=torch.int16) + 2 ** (bits - 1)
        weight = affine.from_codes(codes.to(torch.uint8), torch.ones(1, 1), None, bits, "channel", torch.float32)
        return layout.encode(weight)["weight_packed"][0].tolist()

    assert words([1], 4) == [9]
    assert words([1], 8) == [129]
    assert words([1, 2, 3, 4], 4) == [52137]
    assert words([-8, -7, -6, -5, -4, -3, -2, -1], 4) == [1985229328]
    assert words([1, 2, 3, 4], 8) == [-2071756159]
    assert words([-128, -127, -126, -125], 8) == [50462976]


@pytest.mark.parametrize("shape", [(511, 350), (128, 280)])
def test_odd_shapes_per_channel(shape: tuple[int, int]) -> None:
    for bits in layout.BITS:
        weight = weight_of(shape, bits, "channel")
        assert_same(layout.decode(layout.encode(weight), layout.settings({"w": weight}), weight.dtype, "w"), weight)


def test_a_view_where_rows_are_whole_words() -> None:
    weight = weight_of((4, 64))
    assert layout.encode(weight)["weight_packed"].data_ptr() == weight.packed.data_ptr()


def test_settings_of_one_kind_name_the_class_and_the_exceptions() -> None:
    config = layout.settings({"a": weight_of((4, 64)), "b": weight_of((8, 64))}, skipped=["lm_head"])
    (group,) = config["config_groups"].values()
    assert group["targets"] == ["Linear"] and config["ignore"] == ["lm_head"]
    assert group["weights"]["group_size"] == 32 and group["weights"]["strategy"] == "group"
    assert config["quant_method"] == "compressed-tensors" and config["quantization_status"] == "compressed"


def test_settings_of_a_mixture_name_the_layers() -> None:
    mixed = {"a": weight_of((4, 64)), "b": weight_of((4, 64), 8, "channel"), "c": weight_of((4, 64))}
    config = layout.settings(mixed)
    assert [group["targets"] for group in config["config_groups"].values()] == [["a", "c"], ["b"]]
    for name, weight in mixed.items():
        assert_same(layout.decode(layout.encode(weight), config, weight.dtype, name), weight)
    with pytest.raises(ValueError, match="d: no target of quantization_config fits it; they are a, c, b"):
        layout.decode(layout.encode(mixed["a"]), config, torch.float32, "d")


def test_a_name_goes_before_a_pattern_and_a_pattern_before_the_class() -> None:
    four, eight, wide = (
        layout.settings({"w": w}) for w in (weight_of((4, 64)), weight_of((4, 64), 8), weight_of((4, 64), 4, 64))
    )
    groups = {}
    for key, config, target in (
        ("x", four, "Linear"),
        ("y", eight, r"re:.*\.down_proj$"),
        ("z", wide, "layers.0.down_proj"),
    ):
        groups[key] = config["config_groups"]["group_0"] | {"targets": [target]}
    config = four | {"config_groups": groups}
    for name, weight in (
        ("layers.0.up_proj", weight_of((4, 64))),
        ("layers.1.down_proj", weight_of((4, 64), 8)),
        ("layers.0.down_proj", weight_of((4, 64), 4, 64)),
    ):
        assert_same(layout.decode(layout.encode(weight), config, torch.float32, name), weight)


def test_all_offending_layers_are_named_with_what_fits() -> None:
    index = (torch.arange(64).flip(0) // 32).int()
    plain = weight_of((4, 64))
    scattered = affine.from_codes(plain.codes(), plain.scales, None, 4, 32, torch.float32, index)
    weights = {
        "good": plain,
        "model.layers.0.mlp.down_proj": weight_of((4, 344), 4, 128),
        "odd": weight_of((4, 350), 4, 128),
        "narrow": weight_of((4, 64), 4, 128),
        "tensor": weight_of((4, 64), 4, "tensor"),
        "three": weight_of((4, 64), 3),
        "asymmetric": weight_of((4, 64), symmetric=False),
        "scattered": scattered,
    }
    with pytest.raises(ValueError) as refused:
        layout.check(weights)
    lines = str(refused.value).splitlines()
    assert lines[0] == "weights: compressed-tensors cannot hold 7 of 8 layers:"
    by_name = {line.split(" (")[0].strip(): line for line in lines[1:]}
    assert by_name.keys() == weights.keys() - {"good"}
    assert "(in 344, out 4)" in by_name["model.layers.0.mlp.down_proj"]
    assert by_name["model.layers.0.mlp.down_proj"].endswith("groups of 8 or 'channel' fit")
    assert by_name["odd"].endswith("'channel' fits")
    assert "groups of 8, 16, 32, 64 or 'channel' fit" in by_name["narrow"]
    assert "groups of 8, 16, 32, 64 or 'channel' fit" in by_name["tensor"]
    assert "3 bits" in by_name["three"]
    assert "use gptq or awq" in by_name["asymmetric"]
    assert "act-order" in by_name["scattered"]
    for name in weights.keys() - {"good"}:
        with pytest.raises(ValueError, match="cannot hold 1 of 1"):
            layout.encode(weights[name])  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="cannot hold 1 of 1"):
            layout.settings({name: weights[name]})
    layout.check({"good": plain})


def test_scales_that_the_type_of_the_model_would_change_are_refused() -> None:
    half = weight_of((4, 64))  # float16 scales
    layout.check({"a": half}, torch.float16)
    layout.check({"a": half}, torch.float32)
    with pytest.raises(ValueError, match="float16 scales change in bfloat16.*scale_dtype=torch.bfloat16"):
        layout.check({"a": half}, torch.bfloat16)
    layout.check({"a": weight_of((4, 64), scale_dtype=torch.bfloat16)}, torch.bfloat16)
    tiny = affine.quantize(torch.full((2, 64), 1e-7), 4, 32)  # a scale that float16 cannot hold
    assert tiny.scales.dtype == torch.float32
    with pytest.raises(ValueError, match="float32 scales change in float16"):
        layout.check({"a": tiny}, torch.float16)


def test_no_layers_and_other_kinds_are_refused() -> None:
    with pytest.raises(ValueError, match="weights: got none"):
        layout.check({})


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"num_bits": 3}, "'num_bits': 3"),
        ({"symmetric": False}, "'symmetric': False"),
        ({"strategy": "tensor"}, "'strategy': 'tensor'"),
        ({"type": "float"}, "'type': 'float'"),
        ({"actorder": "group"}, "'actorder': 'group'"),
    ],
)
def test_foreign_settings_are_refused(change: dict[str, Any], told: str) -> None:
    weight = weight_of((4, 64))
    config = layout.settings({"w": weight})
    config["config_groups"]["group_0"]["weights"].update(change)
    with pytest.raises(ValueError, match=f"w: got .*{told}.*allowed is 'pack-quantized'"):
        layout.decode(layout.encode(weight), config, torch.float32, "w")


def test_other_formats_and_quantized_activations_are_refused() -> None:
    weight = weight_of((4, 64))
    config = layout.settings({"w": weight})
    with pytest.raises(ValueError, match="got format 'int-quantized'"):
        layout.decode(layout.encode(weight), config | {"format": "int-quantized"}, torch.float32, "w")
    config["config_groups"]["group_0"]["input_activations"] = {"num_bits": 8}
    with pytest.raises(ValueError, match="no activations"):
        layout.decode(layout.encode(weight), config, torch.float32, "w")


def test_damaged_tensors_are_refused() -> None:
    weight = weight_of((4, 64))
    config, tensors = layout.settings({"w": weight}), layout.encode(weight)
    for part in layout.SUFFIXES:
        with pytest.raises(ValueError, match=f"w: the file has no w.{part}"):
            layout.decode({k: v for k, v in tensors.items() if k != part}, config, torch.float32, "w")
    for part, bad, told in (
        ("weight_packed", tensors["weight_packed"][:, :-1], "weight_packed of shape"),
        ("weight_packed", tensors["weight_packed"].long(), "holds torch.int64"),
        ("weight_scale", tensors["weight_scale"][:, :-1], "scales of shape"),
        ("weight_scale", tensors["weight_scale"].int(), "holds torch.int32"),
        ("weight_shape", torch.tensor([4, 72]), "weight_packed of shape"),
    ):
        with pytest.raises(ValueError, match=told):
            layout.decode(tensors | {part: bad}, config, torch.float32, "w")
