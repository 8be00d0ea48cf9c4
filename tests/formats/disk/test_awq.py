"""AWQ tensors against plain Python integers, nibble by nibble."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlab.formats import affine
from qlab.formats.disk import awq as layout


@st.composite
def weights(draw: st.DrawFn) -> affine.AffineWeight:
    rows, groups = 8 * draw(st.integers(1, 3)), draw(st.integers(1, 4))
    group_size = draw(st.sampled_from([1, 3, 8, 32, "channel"]))
    columns = draw(st.integers(1, 40)) if group_size == "channel" else groups * group_size
    groups = 1 if group_size == "channel" else groups
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    codes = torch.randint(0, 16, (rows, columns), generator=generator, dtype=torch.uint8)
    scales = torch.rand(rows, groups, generator=generator).to(draw(st.sampled_from(affine.SCALE_DTYPES)))
    zeros = torch.randint(0, 16, (rows, groups), generator=generator, dtype=torch.uint8)
    zeros[0, 0] = draw(st.sampled_from([0, 7, 15]))  # never all 8, which reads as symmetric
    return affine.from_codes(codes, scales, None if draw(st.booleans()) else zeros, 4, group_size, torch.float32)


def nibbles(words: torch.Tensor) -> list[list[int]]:
    """The values of a row of words, by the published order: nibble n of word c is column 8c + (0 2 4 6 1 3 5 7)[n]."""
    rows = []
    for row in words.tolist():
        values = [-1] * (8 * len(row))
        for c, word in enumerate(row):
            for n, column in enumerate((0, 2, 4, 6, 1, 3, 5, 7)):
                values[8 * c + column] = (word % 2**32 >> (4 * n)) & 15
        rows.append(values)
    return rows


@given(weight=weights())
def test_values_read_nibble_by_nibble(weight: affine.AffineWeight) -> None:
    tensors = layout.encode(weight)
    out, columns = weight.shape
    assert tensors["qweight"].shape == (columns, out // 8) and tensors["qweight"].dtype == torch.int32
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    codes, zeros = nibbles(tensors["qweight"]), nibbles(tensors["qzeros"])  # [in][out], [group][out]
    scales = tensors["scales"].double().tolist()
    size = columns if weight.group_size == "channel" else int(weight.group_size)
    values = [[scales[i // size][o] * (codes[i][o] - zeros[i // size][o]) for i in range(columns)] for o in range(out)]
    assert torch.equal(torch.tensor(values, dtype=torch.float64), weight.dequantize(torch.float64))


@given(weight=weights())
def test_decode_is_the_inverse(weight: affine.AffineWeight) -> None:
    back = layout.decode(layout.encode(weight), layout.settings({"w": weight}), weight.dtype, "w")
    assert torch.equal(back.packed, weight.packed)
    assert torch.equal(back.scales, weight.scales) and back.scales.dtype == weight.scales.dtype
    assert back.symmetric == weight.symmetric
    assert weight.zeros is None or (back.zeros is not None and torch.equal(back.zeros, weight.zeros))
    assert (back.bits, back.group_size, back.shape) == (4, weight.group_size, weight.shape)


def test_a_known_word() -> None:
    """Outputs 0 to 7 hold the codes 0 to 7: from the highest nibble down 7, 5, 3, 1, 6, 4, 2, 0."""
    codes = torch.arange(8, dtype=torch.uint8)[:, None]  # (out, 1 input)
    weight = affine.from_codes(codes, torch.ones(8, 1), None, 4, "channel", torch.float32)
    tensors = layout.encode(weight)
    assert tensors["qweight"].tolist() == [[0x75316420]]
    assert [word % 2**32 for word in tensors["qzeros"].flatten().tolist()] == [0x88888888]


def test_an_asymmetric_weight_whose_zero_points_are_all_8_reads_as_symmetric() -> None:
    codes = torch.arange(16, dtype=torch.uint8).repeat(8, 1)
    weight = affine.from_codes(
        codes, torch.ones(8, 1), torch.full((8, 1), 8, dtype=torch.uint8), 4, "channel", torch.float32
    )
    back = layout.decode(layout.encode(weight), layout.settings({"w": weight}), torch.float32, "w")
    assert back.symmetric and torch.equal(back.dequantize(), weight.dequantize())


def test_settings() -> None:
    weight = affine.quantize(torch.ones(8, 64), 4, 32, symmetric=False)
    config = layout.settings({"a": weight}, skipped=["lm_head"])
    assert config == {
        "quant_method": "awq",
        "bits": 4,
        "group_size": 32,
        "zero_point": True,
        "version": "gemm",
        "modules_to_not_convert": ["lm_head"],
    }
    assert layout.settings({"a": affine.quantize(torch.ones(8, 64), 4, "channel")})["group_size"] == -1
    # AutoAWQ's own file has other names for the same.
    old = {"w_bit": 4, "q_group_size": 32, "zero_point": True, "version": "GEMM"}
    assert torch.equal(layout.decode(layout.encode(weight), old, torch.float32).packed, weight.packed)


def test_what_does_not_fit_is_named() -> None:
    w = torch.randn(8, 64, generator=torch.Generator().manual_seed(1))
    index = (torch.arange(64).flip(0) // 32).int()
    codes, scales = torch.zeros(8, 64, dtype=torch.uint8), torch.ones(8, 2)
    weights = {
        "three": affine.quantize(w, 3, 32),
        "eight": affine.quantize(w, 8, 32),
        "rows": affine.quantize(w[:5], 4, 32),
        "groups": affine.quantize(w, 4, 48),
        "tensor": affine.quantize(w, 4, "tensor"),
        "scattered": affine.from_codes(codes, scales, None, 4, 32, torch.float32, index),
        "hqq": affine.from_codes(codes, scales, torch.full((8, 2), 7.5), 4, 32, torch.float32),
    }
    with pytest.raises(ValueError, match="awq cannot hold 7 of 7 layers") as refused:
        layout.check(weights)
    lines = {line.split(" (")[0].strip(): line for line in str(refused.value).splitlines()[1:]}
    assert lines.keys() == weights.keys()
    assert "3 bits; awq has 4 only" in lines["three"] and "8 bits; awq has 4 only" in lines["eight"]
    assert "out 5 is not a multiple of 8" in lines["rows"]
    assert "groups of 8, 16, 32, 64 or 'channel' fit" in lines["groups"]
    assert "one scale for the whole tensor" in lines["tensor"]
    assert "act-order" in lines["scattered"]
    assert "round_zeros=True" in lines["hqq"]


def test_mixed_groups_are_refused() -> None:
    w = torch.ones(8, 64)
    with pytest.raises(ValueError, match="awq states one for all layers"):
        layout.check({"a": affine.quantize(w, 4, 32), "b": affine.quantize(w, 4, 64)})
    layout.check({"a": affine.quantize(w, 4, 32), "b": affine.quantize(w, 4, 32, symmetric=False)})


def test_foreign_and_damaged_files_are_refused() -> None:
    weight = affine.quantize(torch.randn(8, 64, generator=torch.Generator().manual_seed(1)), 4, 32, symmetric=False)
    tensors, config = layout.encode(weight), layout.settings({"w": weight})
    for change in ({"bits": 8}, {"version": "gemv"}, {"group_size": None}):
        with pytest.raises(ValueError, match="quantization_config: got bits"):
            layout.decode(tensors, config | change, torch.float32, "w")
    for part in layout.REQUIRED:
        with pytest.raises(ValueError, match=f"w: the file has no w.{part}"):
            layout.decode({k: v for k, v in tensors.items() if k != part}, config, torch.float32, "w")
    for part, bad, told in (
        ("qweight", tensors["qweight"][:-1], "63 inputs are not a multiple of the group size 32"),
        ("qweight", tensors["qweight"][:32], "scales of shape"),
        ("qweight", tensors["qweight"].long(), "holds torch.int64"),
        ("qzeros", tensors["qzeros"][:-1], "zero-points of shape"),
        ("scales", tensors["scales"][:, :-1], "scales of shape"),
    ):
        with pytest.raises(ValueError, match=told):
            layout.decode(tensors | {part: bad}, config, torch.float32, "w")
