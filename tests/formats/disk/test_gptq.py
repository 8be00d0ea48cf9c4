"""GPTQ tensors against plain Python integers, read bit by bit, and against the compressed-tensors layout."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlab.formats import affine
from qlab.formats.disk import compressed_tensors
from qlab.formats.disk import gptq as layout


@st.composite
def weights(draw: st.DrawFn) -> affine.AffineWeight:
    """Any weight of this layout, except for zero-points 0."""
    bits = draw(st.sampled_from(layout.BITS))
    step = {2: 16, 3: 32, 4: 8, 8: 4}[bits]
    rows, columns = step * draw(st.integers(1, 2)), step * draw(st.sampled_from([1, 2, 4]))
    sizes = [size for size in (1, 4, 8, 16, 32, 64) if columns % size == 0]
    group_size = draw(st.sampled_from([*sizes, "channel"]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    groups = 1 if group_size == "channel" else columns // group_size
    codes = torch.randint(0, 2**bits, (rows, columns), generator=generator, dtype=torch.uint8)
    scales = torch.rand(rows, groups, generator=generator).to(draw(st.sampled_from(affine.SCALE_DTYPES)))
    zeros = torch.randint(1, 2**bits, (rows, groups), generator=generator, dtype=torch.uint8)
    index = None
    if groups > 1 and draw(st.booleans()):
        index = (torch.arange(columns) // group_size)[torch.randperm(columns, generator=generator)].int()
        if torch.equal(index, torch.sort(index).values):
            index = None
    return affine.from_codes(
        codes, scales, None if draw(st.booleans()) else zeros, bits, group_size, torch.float32, index
    )


def bits_down(words: torch.Tensor, bits: int) -> list[list[int]]:
    """Every column of int32 words as one large integer, cut into values of `bits` bits, the lowest first."""
    columns = []
    for column in words.t().tolist():
        number = sum((word % 2**32) << (32 * i) for i, word in enumerate(column))
        columns.append([(number >> (bits * j)) & (2**bits - 1) for j in range(len(column) * 32 // bits)])
    return columns


def slow_values(tensors: dict[str, torch.Tensor], bits: int, offset: int) -> list[list[float]]:
    """w[o][i] by the definition, one weight at a time."""
    codes = bits_down(tensors["qweight"], bits)  # [out][in]
    zeros = bits_down(tensors["qzeros"].t(), bits)  # [group][out]
    scales, index = tensors["scales"].double().tolist(), tensors["g_idx"].tolist()
    return [
        [scales[index[i]][o] * (code - zeros[index[i]][o] - offset) for i, code in enumerate(row)]
        for o, row in enumerate(codes)
    ]


@pytest.mark.parametrize(("version", "offset"), [("gptq", 1), ("gptq_v2", 0)])
@given(weight=weights())
def test_values_read_bit_by_bit(weight: affine.AffineWeight, version: layout.Version, offset: int) -> None:
    tensors = layout.encode(weight, version)
    out, columns = weight.shape
    groups = weight.scales.shape[1]
    assert tensors["qweight"].shape == (columns * weight.bits // 32, out)
    assert tensors["qzeros"].shape == (groups, out * weight.bits // 32)
    assert tensors["scales"].shape == (groups, out)
    assert all(tensors[name].dtype == torch.int32 for name in ("qweight", "qzeros", "g_idx"))
    assert all(tensor.is_contiguous() for tensor in tensors.values())  # safetensors takes nothing else
    values = torch.tensor(slow_values(tensors, weight.bits, offset), dtype=torch.float64)
    assert torch.equal(values, weight.dequantize(torch.float64))


@pytest.mark.parametrize("version", ["gptq", "gptq_v2"])
@given(weight=weights())
def test_decode_is_the_inverse(weight: affine.AffineWeight, version: layout.Version) -> None:
    config = layout.settings({"w": weight}, checkpoint_format=version)
    back = layout.decode(layout.encode(weight, version), config, weight.dtype, "w")
    for part in ("packed", "scales", "zeros", "group_index"):
        ours, theirs = getattr(weight, part), getattr(back, part)
        assert (ours is None) == (theirs is None), part
        assert ours is None or (torch.equal(ours, theirs) and ours.dtype == theirs.dtype), part
    assert (back.bits, back.group_size, back.shape) == (weight.bits, weight.group_size, weight.shape)
    # No hidden view of a larger tensor: what nbytes counts is what is held.
    assert back.packed.untyped_storage().nbytes() == back.packed.nbytes


def test_three_bits_run_across_words() -> None:
    """Value 10 has two bits in word 0 and one in word 1; value 21 one in word 1 and two in word 2."""
    codes = torch.zeros(32, 32, dtype=torch.uint8)
    codes[0, 10] = codes[1, 21] = 0b111
    weight = affine.from_codes(codes, torch.ones(32, 1), None, 3, "channel", torch.float32)
    words = layout.encode(weight)["qweight"]
    assert [word % 2**32 for word in words[:, 0].tolist()] == [0b11 << 30, 0b1, 0]
    assert [word % 2**32 for word in words[:, 1].tolist()] == [0, 0b1 << 31, 0b11]


def test_symmetric_zero_points_as_other_tools_write_them() -> None:
    weight = affine.quantize(torch.randn(8, 64, generator=torch.Generator().manual_seed(0)), 4, 32)
    assert set(layout.encode(weight)["qzeros"].flatten().tolist()) == {0x77777777}
    assert {word % 2**32 for word in layout.encode(weight, "gptq_v2")["qzeros"].flatten().tolist()} == {0x88888888}


@given(weight=weights())
def test_from_v1_to_v2_every_word_grows_by_a_one_in_every_place(weight: affine.AffineWeight) -> None:
    if weight.bits == 3:
        return  # its places do not divide a word
    ones = {2: 0x55555555, 4: 0x11111111, 8: 0x01010101}[weight.bits]
    v1, v2 = (layout.encode(weight, version)["qzeros"].long() for version in ("gptq", "gptq_v2"))
    assert torch.equal((v1 + ones) % 2**32, v2 % 2**32)


@pytest.mark.parametrize("bits", [4, 8])
def test_qweight_is_weight_packed_transposed(bits: int) -> None:
    w = torch.randn(24, 96, generator=torch.Generator().manual_seed(bits))
    for group_size in (32, "channel"):
        weight = affine.quantize(w, bits, group_size)
        ours, theirs = layout.encode(weight), compressed_tensors.encode(weight)
        assert torch.equal(ours["qweight"].t(), theirs["weight_packed"])
        assert torch.equal(ours["scales"].t(), theirs["weight_scale"])


def asymmetric(group_size: int = 32, **options: Any) -> affine.AffineWeight:
    w = torch.randn(8, 64, generator=torch.Generator().manual_seed(3))
    return affine.quantize(w, 4, group_size, symmetric=False, **options)


def test_v1_refuses_a_zero_point_0_and_v2_holds_it() -> None:
    w = torch.randn(8, 64, generator=torch.Generator().manual_seed(3))
    w[2, :32] = w[2, :32].abs()
    weight = affine.quantize(w, 4, 32, symmetric=False)
    assert (weight.zero_points() == 0).sum() == 1
    with pytest.raises(ValueError, match="bad .*1 of 16 zero-points are 0.*gptq_v2"):
        layout.check({"bad": weight, "good": asymmetric()})
    with pytest.raises(ValueError, match="cannot hold 1 of 1"):
        layout.encode(weight)
    config = layout.settings({"w": weight}, checkpoint_format="gptq_v2")
    back = layout.decode(layout.encode(weight, "gptq_v2"), config, torch.float32, "w")
    assert torch.equal(back.dequantize(), weight.dequantize())


def test_a_stored_zero_point_that_wrapped_around_is_refused() -> None:
    weight = asymmetric()
    tensors, config = layout.encode(weight), layout.settings({"w": weight})
    tensors["qzeros"][0, 0] |= 0xF
    with pytest.raises(ValueError, match="w: a zero-point is stored as 15, which v1 does not have"):
        layout.decode(tensors, config, torch.float32, "w")


def test_a_file_that_names_the_wrong_version_is_found_out() -> None:
    weight = affine.quantize(torch.randn(8, 64, generator=torch.Generator().manual_seed(0)), 4, 32)
    config = layout.settings({"w": weight})
    with pytest.raises(ValueError, match="zero-points run from 9 to 9 instead of 8; is checkpoint_format 'gptq' right"):
        layout.decode(layout.encode(weight, "gptq_v2"), config, torch.float32, "w")


def test_settings() -> None:
    scattered = affine.from_codes(
        torch.full((8, 64), 3, dtype=torch.uint8), torch.ones(8, 2), None, 4, 32, torch.float32,
        (torch.arange(64).flip(0) // 32).int(),
    )  # fmt: skip
    plain = affine.quantize(torch.randn(8, 64, generator=torch.Generator().manual_seed(0)), 4, 32)
    config = layout.settings({"a": plain, "b": scattered}, skipped=["lm_head"])
    assert config == {
        "quant_method": "gptq",
        "bits": 4,
        "group_size": 32,
        "desc_act": True,
        "sym": True,
        "lm_head": False,
        "checkpoint_format": "gptq",
    }
    config = layout.settings({"a": asymmetric(), "lm_head": asymmetric()}, ["b", "lm_head"], "gptq_v2")
    assert not config["desc_act"] and not config["sym"] and config["lm_head"]
    assert config["checkpoint_format"] == "gptq_v2"
    assert config["modules_in_block_to_quantize"] == [["a", "lm_head"]]
    channel = affine.quantize(torch.ones(8, 64), 4, "channel")
    assert layout.settings({"a": channel})["group_size"] == -1


def test_what_does_not_fit_is_named() -> None:
    w = torch.randn(8, 344, generator=torch.Generator().manual_seed(1))
    weights = {
        "groups": affine.quantize(w, 4, 128),
        "words": affine.quantize(w, 3, "channel"),
        "five": affine.quantize(w, 5, "channel"),
        "tensor": affine.quantize(w, 4, "tensor"),
        "hqq": affine.from_codes(
            torch.zeros(8, 64, dtype=torch.uint8), torch.ones(8, 2), torch.full((8, 2), 7.5), 4, 32, torch.float32
        ),
    }
    with pytest.raises(ValueError, match="gptq cannot hold 5 of 5 layers") as refused:
        layout.check(weights)
    lines = {line.split(" (")[0].strip(): line for line in str(refused.value).splitlines()[1:]}
    assert lines["groups"].endswith("groups of 8 or 'channel' fit")
    assert "in 344 is not a multiple of 32" in lines["words"] and "out 8 is not a multiple of 32" in lines["words"]
    assert "5 bits; gptq has 2, 3, 4, 8" in lines["five"]
    assert "one scale for the whole tensor" in lines["tensor"]
    assert "round_zeros=True" in lines["hqq"]


def test_a_mixture_is_refused_and_every_layer_named() -> None:
    w = torch.randn(8, 64, generator=torch.Generator().manual_seed(1))
    mixed = {"a": affine.quantize(w, 4, 32), "b": affine.quantize(w, 8, 32), "c": affine.quantize(w, 4, 32)}
    with pytest.raises(ValueError, match="gptq states one for all layers") as refused:
        layout.settings(mixed)
    assert "4 bits, groups of 32, symmetric: a, c" in str(refused.value)
    assert "8 bits, groups of 32, symmetric: b" in str(refused.value)


def test_unknown_versions_and_foreign_settings_are_refused() -> None:
    weight = asymmetric()
    with pytest.raises(ValueError, match="checkpoint_format: got 'marlin'"):
        layout.check({"w": weight}, checkpoint_format="marlin")  # type: ignore[arg-type]
    tensors, config = layout.encode(weight), layout.settings({"w": weight})
    for change in ({"bits": 5}, {"group_size": None}, {"checkpoint_format": "marlin"}):
        with pytest.raises(ValueError, match="quantization_config: got bits"):
            layout.decode(tensors, config | change, torch.float32, "w")
    with pytest.raises(ValueError, match="'dynamic'"):
        layout.decode(tensors, config | {"dynamic": {"+:.*q_proj": {"bits": 8}}}, torch.float32, "w")
    assert layout.decode(tensors, config | {"dynamic": {"-:lm_head": {}}}, torch.float32, "w").bits == 4


def test_damaged_tensors_are_refused() -> None:
    weight = asymmetric()
    tensors, config = layout.encode(weight), layout.settings({"w": weight})
    for part in layout.REQUIRED:
        with pytest.raises(ValueError, match=f"w: the file has no w.{part}"):
            layout.decode({k: v for k, v in tensors.items() if k != part}, config, torch.float32, "w")
    for part, bad, told in (
        ("qweight", tensors["qweight"][:-1], "56 inputs are not a multiple of the group size 32"),
        ("qweight", tensors["qweight"][:4], "scales of shape"),
        ("qweight", tensors["qweight"].short(), "holds torch.int16"),
        ("qzeros", tensors["qzeros"][:-1], "zero-points of shape"),
        ("qzeros", tensors["qzeros"].repeat(1, 2), "qzeros of shape"),
        ("scales", tensors["scales"].t(), "scales of shape"),
        ("g_idx", tensors["g_idx"][:-1], "group index of shape"),
        ("g_idx", tensors["g_idx"] + 1, "group index runs from 1 to 2; there are 2 groups"),
    ):
        with pytest.raises(ValueError, match=told):
            layout.decode(tensors | {part: bad}, config, torch.float32, "w")


def test_g_idx_may_be_missing() -> None:
    weight = asymmetric()
    tensors, config = layout.encode(weight), layout.settings({"w": weight})
    del tensors["g_idx"]
    assert layout.decode(tensors, config, torch.float32, "w").group_index is None
