"""The layout that the kernels read: every code of a weight once, in 32-bit words that hold no two neighbors.

    tile    16 * 32 / bits inputs: 128 at 4 bits, 64 at 8
    word    row r of a tile holds, for one output, the inputs r, r + 16, r + 32, ... of that tile, lowest bits first
    plane   what one shift and one mask take out of 16 words: the inputs 16 i to 16 i + 15, in order

So a kernel loads 16 rows of words once, and gets from them 16 neighboring inputs at a time, without moving a number
from one thread to another. Sixteen is the depth of a tensor core's product. Neighboring outputs lie in neighboring
words, so loads are coalesced. Codes past the last input belong to no input: kernels read zeros for the x beside them.

Scales lie as (groups, out), for the same reason. A group has to be a multiple of 16 inputs, so that a plane never has
two scales. Columns that act-order grouped are sorted by group, and x is taken in the same `order`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from qlab.formats.affine import AffineWeight
from qlab.formats.codebook import CODES, NESTED_BLOCK, CodebookWeight, dynamic_map
from qlab.formats.weight import QuantizedWeight

DEPTH = 16  # inputs of a plane
MAGIC = 0x4B000000  # the bits of 2.0 ** 23
BITS = (4, 8)


@dataclass(frozen=True)
class Planes:
    """A weight (out, in) as the kernels read it."""

    words: torch.Tensor  # int32 (16 * tiles, out)
    scales: torch.Tensor  # (groups, out): floating, or uint8 codes of `dynamic_map` under double quantization
    zeros: torch.Tensor | None  # (groups, out): uint8 or floating; None: 2^(bits - 1), or a codebook
    codebook: torch.Tensor | None  # float32 (16,): what the codes stand for; None: whole numbers
    nested: tuple[torch.Tensor, torch.Tensor, torch.Tensor] | None  # the map, float32 (blocks,) and () of the scales
    order: torch.Tensor | None  # int64 (in,): the input that comes at each place; None: as they are
    bits: int
    group_size: int  # inputs that share a scale
    shape: tuple[int, int]

    @property
    def tile(self) -> int:
        """Inputs in a tile."""
        return DEPTH * 32 // self.bits

    @property
    def tiles(self) -> int:
        return self.words.shape[0] // DEPTH

    @property
    def real_zeros(self) -> bool:
        """Whether zero-points are real numbers (HQQ) and not codes."""
        return self.zeros is not None and self.zeros.is_floating_point()

    @property
    def nbytes(self) -> int:
        """Bytes that a kernel reads for the whole weight."""
        held = (self.words, self.scales, self.zeros, self.codebook, *(self.nested or ()), self.order)
        return sum(tensor.nbytes for tensor in held if tensor is not None)

    def codes(self) -> torch.Tensor:
        """uint8 (out, in): the inverse of `repack`."""
        planes = [(self.words >> (self.bits * i)) & (2**self.bits - 1) for i in range(32 // self.bits)]
        stacked = torch.stack(planes).view(len(planes), self.tiles, DEPTH, -1)  # (planes, tiles, 16, out)
        rows = stacked.permute(3, 1, 0, 2).reshape(self.shape[0], -1)[:, : self.shape[1]].to(torch.uint8)
        return rows if self.order is None else rows[:, self.order.argsort()]


def why_not(weight: QuantizedWeight) -> str | None:
    """Why the kernels cannot read a weight; None if they can."""
    if isinstance(weight, CodebookWeight):
        if weight.block_size % DEPTH or weight.shape[1] % weight.block_size:
            return f"blocks of {weight.block_size} in rows of {weight.shape[1]}: a block must lie in one row, in 16s"
        return None
    if not isinstance(weight, AffineWeight):
        return f"{weight.label}: no kernel for this format"
    if weight.bits not in BITS:
        return f"{weight.bits} bits: kernels read 4 and 8"
    if isinstance(weight.group_size, int) and weight.group_size % DEPTH and weight.group_size < weight.shape[1]:
        return f"groups of {weight.group_size}: not a multiple of 16"
    if weight.group_index is not None and set(weight.group_index.bincount()[:-1].tolist()) - {weight.group_size}:
        return "act-order groups of different sizes"
    return None


def repack(weight: QuantizedWeight) -> Planes:
    """A weight in the layout of the kernels; once, when it is loaded.

    Raises:
        ValueError: the kernels cannot read it, with the reason.
    """
    if reason := why_not(weight):
        raise ValueError(f"weight: {reason}; compute with weight.dequantize()")
    if isinstance(weight, CodebookWeight):
        return _of_codebook(weight)
    assert isinstance(weight, AffineWeight)
    out, columns = weight.shape
    whole = isinstance(weight.group_size, str) or weight.group_size >= columns
    order = None if weight.group_index is None else weight.group_index.argsort(stable=True)
    codes = weight.codes() if order is None else weight.codes()[:, order]
    zeros = None if weight.zeros is None else _by_group(weight.zero_points(), out)
    scales = _by_group(weight.scales, out)
    words = _words(codes, weight.bits)
    # One group for all inputs reaches to the end of the last tile.
    group_size = words.shape[0] * 32 // weight.bits if whole else int(weight.group_size)
    return Planes(words, scales, zeros, None, None, order, weight.bits, group_size, weight.shape)


def _of_codebook(weight: CodebookWeight) -> Planes:
    out, table = weight.shape[0], CODES[weight.data_type].to(weight.packed.device)
    scales, nested = weight.block_scales(), None
    if weight.nested_absmax is not None and weight.nested_offset is not None and float(table.max()) == 1:
        scales, nested = weight.absmax, (dynamic_map().to(table.device), weight.nested_absmax, weight.nested_offset)
    scales = scales.view(out, -1).t().contiguous()  # (groups, out)
    return Planes(_words(weight.codes(), 4), scales, None, table, nested, None, 4, weight.block_size, weight.shape)


def _by_group(values: torch.Tensor, out: int) -> torch.Tensor:
    """(out, groups), or (1, 1) per tensor, as (groups, out)."""
    return values.expand(out, -1).t().contiguous()


def _words(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """uint8 codes (out, in) as int32 words (16 * tiles, out)."""
    planes = 32 // bits
    padded = F.pad(codes, (0, -codes.shape[1] % (DEPTH * planes)))
    parts = padded.view(codes.shape[0], -1, planes, DEPTH).permute(2, 1, 3, 0)  # (planes, tiles, 16, out)
    words = torch.zeros(parts.shape[1:], dtype=torch.int32, device=codes.device)
    for i in range(planes):
        words |= parts[i].int() << (bits * i)
    return words.view(-1, codes.shape[0])


NESTED_SIZE = tl.constexpr(NESTED_BLOCK)  # scales that share a scale of their own


@triton.constexpr_function
def left_of(i: int, codebook: object, bits: int) -> int:
    """How far to the left plane i may stay in `values_of`: its bits have to lie below the 23rd."""
    return 0 if codebook is not None else bits * i % (24 - bits)


@triton.jit
def values_of(  # type: ignore[no-untyped-def]
    words, i: tl.constexpr, zero, codebook, magic, BITS: tl.constexpr, REAL: tl.constexpr, LEFT: tl.constexpr = 0
):
    """Plane i of words in float32, times 2^LEFT and before the scale: codes minus zero, or what they stand for.

    A code becomes a float without a conversion: put below the exponent of 2^23, its bits read 2^23 + code, and one
    subtraction takes off 2^23 and the zero-point together, exactly. LEFT bits of the shift can be saved that way.
    The exponent comes as an argument, `MAGIC`: of two constants, the compiler makes two instructions.
    """
    shifted = words.to(tl.uint32, bitcast=True) >> (BITS * i - LEFT)
    if codebook is not None:
        values = tl.load(codebook + (shifted & ((1 << BITS) - 1)))
    else:
        field = (shifted & (((1 << BITS) - 1) << LEFT)) | magic
        if REAL:  # a zero-point that is no whole number must not be rounded to one
            values = (field.to(tl.float32, bitcast=True) - 8388608.0) - zero * (1 << LEFT)
        else:
            values = field.to(tl.float32, bitcast=True) - (8388608.0 + zero * (1 << LEFT))
    return values


@triton.jit
def parameters_of(  # type: ignore[no-untyped-def]
    scales, zeros, maps, nested, offset, group, n, mask, stride, GROUPS: tl.constexpr, BITS: tl.constexpr
):
    """The scale and the zero-point of a group for outputs n, in float32; shapes broadcast."""
    at = group.to(tl.int64) * stride + n
    scale = tl.load(scales + at, mask=mask, other=0)
    if maps is None:
        scale = scale.to(tl.float32)
    else:
        largest = tl.load(nested + (n * GROUPS + group) // NESTED_SIZE, mask=mask, other=0)
        scale = tl.load(maps + scale) * largest + tl.load(offset)
    half = 1.0 * (1 << (BITS - 1))
    zero = half if zeros is None else tl.load(zeros + at, mask=mask, other=0).to(tl.float32)
    return scale, zero
