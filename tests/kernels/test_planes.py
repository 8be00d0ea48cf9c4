"""The layout: no code is lost or moved, whatever the format."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qlab.formats import affine, codebook, float8
from qlab.formats.weight import QuantizedWeight
from qlab.kernels import planes
from qlab.methods import gptq, hqq

GROUPS = (16, 32, 48, 64, 128, 256, "channel", "tensor")


@st.composite
def weights(draw: st.DrawFn) -> QuantizedWeight:
    out, columns = draw(st.integers(1, 40)), draw(st.integers(1, 300))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from(["affine", "hqq", "act-order", "codebook"]))
    if kind == "codebook":
        block = draw(st.sampled_from([16, 32, 64, 128]))
        w = torch.randn(out, block * draw(st.integers(1, 300 // block)), generator=generator)
        return codebook.quantize(w, draw(st.sampled_from(list(codebook.CODES))), block, draw(st.booleans()))
    w = torch.randn(out, columns, generator=generator)
    bits, group = draw(st.sampled_from(planes.BITS)), draw(st.sampled_from(GROUPS))
    if kind == "hqq" and group != "tensor":
        return hqq.quantize(w, bits, group, iterations=2)
    if kind == "act-order":
        x = torch.randn(2 * columns, columns, generator=generator)
        return gptq.quantize(w, x.t() @ x, bits, group, draw(st.booleans()), act_order=True)
    return affine.quantize(w, bits, group, draw(st.booleans()))


def values(p: planes.Planes) -> torch.Tensor:
    """float32 (out, in), by loops over what the fields are documented to be."""
    out, columns = p.shape
    codes, order = p.codes(), torch.arange(columns) if p.order is None else p.order
    scales = p.scales.float()
    if p.nested is not None:
        maps, nested, offset = p.nested
        at = torch.arange(out)[None, :] * len(scales) + torch.arange(len(scales))[:, None]  # (groups, out)
        scales = maps[p.scales.int()] * nested[at // codebook.NESTED_BLOCK] + offset
    dense = torch.empty(out, columns)
    for place in range(columns):
        column, group = int(order[place]), place // p.group_size
        if p.codebook is not None:
            value = p.codebook[codes[:, column].int()]
        else:
            value = codes[:, column] - (2.0 ** (p.bits - 1) if p.zeros is None else p.zeros[group].float())
        dense[:, column] = value * scales[group]
    return dense


@settings(max_examples=60)
@given(weight=weights())
def test_repacking_loses_nothing(weight: QuantizedWeight) -> None:
    p = planes.repack(weight)
    assert torch.equal(p.codes(), weight.codes())  # type: ignore[attr-defined]
    assert torch.equal(values(p), weight.dequantize(torch.float32))
    assert p.words.dtype == torch.int32 and p.words.shape == (16 * p.tiles, weight.shape[0])
    assert p.tiles == -(-weight.shape[1] // p.tile)


@pytest.mark.parametrize("bits", planes.BITS)
def test_a_code_lies_where_the_layout_says(bits: int) -> None:
    out, tile = 3, 512 // bits
    codes = torch.ones(out, 3 * tile, dtype=torch.uint8)
    codes[1, tile + 16 * 2 + 5] = 2**bits - 1  # tile 1, plane 2, row 5
    weight = affine.from_codes(codes, torch.ones(out, 1), None, bits, "channel", torch.float32)
    words = planes.repack(weight).words.view(3, 16, out)
    plain = sum(1 << bits * i for i in range(32 // bits))
    changed = (words != plain).nonzero().tolist()
    assert changed == [[1, 5, 1]]
    assert int(words[1, 5, 1]) == plain + ((2**bits - 2) << 2 * bits)


def test_four_bits_take_four_bits() -> None:
    w = torch.randn(64, 512)
    assert planes.repack(affine.quantize(w, 4, 128)).nbytes == 64 * 512 // 2 + 64 * 4 * 2
    assert planes.repack(affine.quantize(w, 8, "channel", False)).nbytes == 64 * 512 + 64 * (2 + 1)
    nested = planes.repack(codebook.quantize(w, "nf4", 64, True))  # 512 blocks; the two tables have 16 and 256 entries
    assert nested.nbytes == 64 * 512 // 2 + 512 + 4 * (2 + 1) + 4 * (16 + 256)


def test_act_order_sorts_columns_by_group(quantized: Callable[..., QuantizedWeight]) -> None:
    weight = quantized("gptq-32", 5, 100)
    order = planes.repack(weight).order
    assert order is not None and order.tolist() != list(range(100))
    groups = weight.group_index[order]  # type: ignore[attr-defined]
    assert torch.equal(groups, torch.arange(100, dtype=torch.int32) // 32)


W = torch.randn(4, 96, generator=torch.Generator().manual_seed(0))
UNEVEN = torch.tensor([0] * 40 + [1] * 24 + [2] * 32, dtype=torch.int32)
REFUSED = {
    "3 bits: kernels read 4 and 8": affine.quantize(W, 3, 32),
    "groups of 8: not a multiple of 16": affine.quantize(W, 4, 8),
    "blocks of 64 in rows of 96: a block must lie in one row, in 16s": codebook.quantize(W, "nf4", 64),
    "blocks of 8 in rows of 96: a block must lie in one row, in 16s": codebook.quantize(W, "fp4", 8),
    "act-order groups of different sizes": affine.from_codes(
        torch.ones(4, 96, dtype=torch.uint8), torch.ones(4, 3), None, 4, 32, torch.float32, UNEVEN
    ),
    f"{float8.quantize(W).label}: no kernel for this format": float8.quantize(W),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_the_kernels_cannot_read_is_refused_with_the_reason(reason: str) -> None:
    assert planes.why_not(REFUSED[reason]) == reason
    with pytest.raises(ValueError, match="compute with weight.dequantize"):
        planes.repack(REFUSED[reason])


def test_one_short_group_may_have_any_size() -> None:
    for group_size in (96, 100, 1000):  # none of them ends inside a row
        assert planes.why_not(affine.quantize(W, 4, group_size)) is None
    assert planes.why_not(affine.quantize(W[:, :5], 4, 5)) is None
