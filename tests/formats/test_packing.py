"""Packing is stated twice in the package (pack, unpack); here it is stated a third time, in plain Python integers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlab.formats.packing import pack, packed_bytes, unpack


@st.composite
def codes_and_bits(draw: st.DrawFn) -> tuple[torch.Tensor, int]:
    bits = draw(st.integers(1, 8))
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 70))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    codes = torch.randint(0, 2**bits, (rows, columns), generator=generator, dtype=torch.uint8)
    layout = draw(st.sampled_from(["plain", "transposed", "strided"]))
    if layout == "transposed":
        codes = codes.t().contiguous().t()
    elif layout == "strided":
        codes = codes.repeat_interleave(2, dim=1)[:, ::2]
    return codes, bits


def stream(row: list[int], bits: int) -> bytes:
    """One row as a single large integer, cut into bytes: the definition of the layout."""
    number = sum(code << (bits * j) for j, code in enumerate(row))
    return number.to_bytes(-(-len(row) * bits // 8), "little")


@given(codes_and_bits())
def test_layout_is_the_bit_stream(case: tuple[torch.Tensor, int]) -> None:
    codes, bits = case
    assert [bytes(row) for row in pack(codes, bits).tolist()] == [stream(row, bits) for row in codes.tolist()]


@given(codes_and_bits())
def test_unpack_is_the_inverse(case: tuple[torch.Tensor, int]) -> None:
    codes, bits = case
    packed = pack(codes, bits)
    back = unpack(packed, bits, codes.shape[1])
    assert back.dtype == packed.dtype == torch.uint8
    assert torch.equal(back, codes)
    assert packed.shape == (codes.shape[0], packed_bytes(codes.shape[1], bits))
    # No hidden view: the storage is as large as the tensor says, and it is not the input's.
    assert packed.untyped_storage().nbytes() == packed.nbytes
    assert packed.data_ptr() != codes.data_ptr()


@pytest.mark.parametrize("bits", range(1, 9))
def test_largest_codes_do_not_touch_their_neighbors(bits: int) -> None:
    codes = torch.zeros(2, 25, dtype=torch.uint8)
    codes[0, ::2] = 2**bits - 1
    assert torch.equal(unpack(pack(codes, bits), bits, 25), codes)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("columns", [8, 64, 96])
def test_bytes_are_those_of_compressed_tensors(bits: int, columns: int) -> None:
    compressors = pytest.importorskip("compressed_tensors.compressors")
    generator = torch.Generator().manual_seed(0)
    offset = 2 ** (bits - 1)
    signed = torch.randint(-offset, offset, (5, columns), generator=generator, dtype=torch.int8)
    theirs = compressors.pack_to_int32(signed, bits)
    ours = pack((signed.int() + offset).to(torch.uint8), bits).view(torch.int32)
    assert torch.equal(ours, theirs)


def test_known_words() -> None:
    word = pack(torch.tensor([[9, 10, 11, 12, 8, 8, 8, 8]], dtype=torch.uint8), 4).view(torch.int32)
    assert [hex(b) for b in pack(torch.tensor([[1, 2, 3]], dtype=torch.uint8), 4)[0].tolist()] == ["0x21", "0x3"]
    assert word.item() & 0xFFFF == 0xCBA9
    # Three bits: 0b001, 0b010, 0b011 is the stream 0b0_1101_0001, the lowest bit first.
    assert pack(torch.tensor([[1, 2, 3]], dtype=torch.uint8), 3).tolist() == [[0b11010001, 0]]


@pytest.mark.parametrize("bits", [0, 9, -1, 4.0, True])
def test_impossible_bits_are_refused(bits: int) -> None:
    codes = torch.zeros(1, 8, dtype=torch.uint8)
    with pytest.raises(ValueError, match="bits"):
        pack(codes, bits)
    with pytest.raises(ValueError, match="bits"):
        unpack(codes, bits, 8)


def test_bad_codes_are_refused() -> None:
    with pytest.raises(ValueError, match="16 does not fit into 4 bits"):
        pack(torch.tensor([[3, 16]], dtype=torch.uint8), 4)
    with pytest.raises(TypeError, match=r"codes.*int64"):
        pack(torch.tensor([[3]]), 4)
    for shape in ((4,), (0, 4), (4, 0), (1, 2, 3)):
        with pytest.raises(ValueError, match="codes: shape"):
            pack(torch.zeros(shape, dtype=torch.uint8), 4)


def test_a_packed_row_must_belong_to_its_columns() -> None:
    packed = torch.zeros(2, 4, dtype=torch.uint8)
    assert unpack(packed, 4, 7).shape == (2, 7)
    for columns in (6, 9):
        with pytest.raises(ValueError, match="packed: shape"):
            unpack(packed, 4, columns)
    with pytest.raises(ValueError, match="packed: shape"):
        unpack(packed[0], 4, 8)
    with pytest.raises(TypeError, match=r"packed.*int32"):
        unpack(packed.view(torch.int32), 4, 8)
