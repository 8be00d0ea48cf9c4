"""Bit packing: codes of 1 to 8 bits, one after another, lowest bit first.

In every row, code j takes bits [b*j, b*j + b) of one long stream, and the stream is cut into bytes. This is the
layout of GPTQ and compressed-tensors words as well: on a little-endian machine their int32 view has the same bytes.
Each row ends on a whole byte.
"""

from __future__ import annotations

import torch


def packed_bytes(columns: int, bits: int) -> int:
    """Bytes of a row of `columns` codes."""
    return -(-columns * bits // 8)


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack codes (rows, columns), uint8 below 2^bits, into uint8 (rows, ceil(columns * bits / 8)).

    Raises:
        TypeError: codes are not uint8.
        ValueError: bits outside 1 to 8, codes empty or not two-dimensional, or a code that does not fit.
    """
    _check_bits(bits)
    if codes.dtype != torch.uint8:
        raise TypeError(f"codes: dtype {codes.dtype}; they must be torch.uint8")
    if codes.ndim != 2 or codes.numel() == 0:
        raise ValueError(f"codes: shape {tuple(codes.shape)}; they must be (rows, columns), not empty")
    if int(codes.max()) >= 2**bits:
        raise ValueError(f"codes: {int(codes.max())} does not fit into {bits} bits")
    if bits == 8:
        return codes.clone(memory_format=torch.contiguous_format)
    rows, columns = codes.shape
    width = packed_bytes(columns, bits)
    codes = torch.nn.functional.pad(codes, (0, -columns % 8))
    if 8 % bits == 0:
        per_byte = 8 // bits
        parts = codes.view(rows, -1, per_byte)  # (rows, bytes, codes in a byte)
        packed = parts[..., 0].clone(memory_format=torch.contiguous_format)
        for i in range(1, per_byte):
            packed |= parts[..., i] << (bits * i)
        return _cut(packed, width)
    # Eight codes fill exactly `bits` bytes: one integer of at most 56 bits holds them.
    parts = codes.view(rows, -1, 8)
    word = parts[..., 0].long()
    for i in range(1, 8):
        word |= parts[..., i].long() << (bits * i)
    octets = torch.stack([(word >> (8 * i)) & 0xFF for i in range(bits)], dim=-1).to(torch.uint8)
    return _cut(octets.view(rows, -1), width)


def unpack(packed: torch.Tensor, bits: int, cols: int) -> torch.Tensor:
    """The inverse of `pack`: uint8 codes (rows, cols) from uint8 (rows, ceil(cols * bits / 8)).

    Raises:
        TypeError: packed is not uint8.
        ValueError: bits outside 1 to 8, or a shape that does not belong to `cols` codes in each of some rows.
    """
    _check_bits(bits)
    if packed.dtype != torch.uint8:
        raise TypeError(f"packed: dtype {packed.dtype}; it must be torch.uint8")
    if packed.ndim != 2 or packed.numel() == 0 or packed.shape[1] != packed_bytes(cols, bits):
        raise ValueError(
            f"packed: shape {tuple(packed.shape)}; {cols} codes of {bits} bits take (rows, {packed_bytes(cols, bits)})"
        )
    if bits == 8:
        return packed.clone()
    rows = packed.shape[0]
    mask = 2**bits - 1
    if 8 % bits == 0:
        per_byte = 8 // bits
        codes = packed.new_empty(rows, packed.shape[1], per_byte)
        for i in range(per_byte):
            torch.bitwise_and(packed >> (bits * i), mask, out=codes[..., i])
        return codes.view(rows, -1)[:, :cols].contiguous()
    octets = torch.nn.functional.pad(packed, (0, -packed.shape[1] % bits)).view(rows, -1, bits)
    word = octets[..., 0].long()  # (rows, words): eight codes each
    for i in range(1, bits):
        word |= octets[..., i].long() << (8 * i)
    codes = packed.new_empty(*word.shape, 8)
    for i in range(8):
        codes[..., i] = (word >> (bits * i)) & mask
    return codes.view(rows, -1)[:, :cols].contiguous()


def to_int8(codes: torch.Tensor) -> torch.Tensor:
    """int8 from uint8 of any shape: q from q + 128, the code of q on a symmetric grid of 8 bits."""
    return (codes ^ 128).view(torch.int8)  # flipping the highest bit subtracts 128 in two's complement


def from_int8(signed: torch.Tensor) -> torch.Tensor:
    """The inverse of `to_int8`: uint8 from int8."""
    return signed.view(torch.uint8) ^ 128


def _cut(packed: torch.Tensor, width: int) -> torch.Tensor:
    # contiguous() would be a view of a single row, and hold the bytes that are cut off.
    return packed if packed.shape[1] == width else packed[:, :width].clone(memory_format=torch.contiguous_format)


def _check_bits(bits: int) -> None:
    if type(bits) is not int or not 1 <= bits <= 8:
        raise ValueError(f"bits: got {bits!r}; packing takes whole numbers from 1 to 8")
