"""Packed weights to floating-point ones: the kernel that every other one here contains.

With many tokens the time goes with the multiplications. Then one pass that unpacks the weight, and a plain product of
it, take less time than unpacking it again for every block of tokens.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from qlab.formats.weight import QuantizedWeight

from . import INTERPRETED
from .planes import DEPTH, MAGIC, Planes, parameters_of, values_of

OUTPUTS = 128  # of a program


def reference(weight: QuantizedWeight, dtype: torch.dtype) -> torch.Tensor:
    """The same in torch: (out, in)."""
    return weight.dequantize(dtype)


def dequantize(weight: Planes, dtype: torch.dtype) -> torch.Tensor:
    """The weights (out, in), computed in float32 and given in float16, bfloat16 or float32.

    A value past the range of `dtype` becomes infinite; the formats' own `dequantize` gives the largest finite one.
    """
    dense = transposed(weight, dtype)
    if weight.order is not None:
        dense = dense[weight.order.argsort()]
    return dense.t()


def transposed(weight: Planes, dtype: torch.dtype) -> torch.Tensor:
    """The weights (in, out), their inputs in `weight.order`, as a product from the left wants them."""
    out, columns = weight.shape
    stored = torch.float32 if INTERPRETED and dtype == torch.bfloat16 else dtype  # the interpreter does not round
    dense = torch.empty(columns, out, dtype=stored, device=weight.words.device)
    maps, nested, offset = weight.nested or (None, None, None)
    _dequantize[(weight.tiles, triton.cdiv(out, OUTPUTS))](
        dense, weight.words, weight.scales, weight.zeros, weight.codebook, maps, nested, offset, MAGIC, out,
        weight.words.stride(0), weight.scales.stride(0), dense.stride(0),
        columns, weight.scales.shape[0], weight.group_size, weight.bits, weight.real_zeros, DEPTH, OUTPUTS,
    )  # fmt: skip
    return dense.to(dtype)


@triton.jit
def _dequantize(  # type: ignore[no-untyped-def]
    dense, words, scales, zeros, codebook, maps, nested, offset, magic, out, stride_words, stride_scales, stride_dense,
    COLUMNS: tl.constexpr, GROUPS: tl.constexpr, GROUP: tl.constexpr, BITS: tl.constexpr,
    REAL: tl.constexpr, ROWS: tl.constexpr, OUTPUTS: tl.constexpr,
):  # fmt: skip
    """Program (t, j): tile t of the inputs, for OUTPUTS outputs. 16 rows of words become 16 rows for each plane."""
    PLANES: tl.constexpr = 32 // BITS
    t = tl.program_id(0)
    r = tl.arange(0, ROWS)[:, None]  # (16, 1)
    n = tl.program_id(1).to(tl.int64) * OUTPUTS + tl.arange(0, OUTPUTS)[None, :]  # (1, OUTPUTS)
    packed = tl.load(words + (t * ROWS + r).to(tl.int64) * stride_words + n, mask=n < out, other=0)
    for i in tl.static_range(PLANES):
        k = (t * PLANES + i) * ROWS + r
        group = tl.minimum((t * PLANES + i) * ROWS // GROUP, GROUPS - 1)  # the last tile may reach past the last group
        scale, zero = parameters_of(scales, zeros, maps, nested, offset, group, n, n < out, stride_scales, GROUPS, BITS)
        values = values_of(packed, i, zero, codebook, magic, BITS, REAL) * scale
        tl.store(dense + k.to(tl.int64) * stride_dense + n, values, mask=(k < COLUMNS) & (n < out))
