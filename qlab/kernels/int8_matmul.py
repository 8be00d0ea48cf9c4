"""W8A8: int8 times int8 in tensor cores, int32 sums, and both scales and the bias on the way out.

    y[m, n] = (sum over k of a[m, k] * b[n, k]) * token_scale[m] * weight_scale[n] + bias[n]

Both operands lie along the inputs, as the int8 instructions of a GPU want them; nothing is unpacked. The sums are
exact, so that the product is that of `methods.w8a8`, up to the order of two multiplications by scales.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

from qlab.formats import activations
from qlab.formats.activations import Activations
from qlab.formats.affine import AffineWeight
from qlab.methods import w8a8

from . import INTERPRETED, configs
from .quantize_tokens import quantize_tokens


@dataclass(frozen=True)
class Rows:
    """A weight (out, in) as the kernel reads it, and how its inputs are quantized."""

    codes: torch.Tensor  # int8 (out, in)
    scales: torch.Tensor  # (out, 1) or (1, 1)
    activations: Activations

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.codes.shape[1]


def linear(x: torch.Tensor, weight: Rows, bias: torch.Tensor | None = None) -> torch.Tensor:
    """x (..., in) quantized and multiplied: (..., out) in the type of x. Raises as `scaled_product`."""
    tokens = x.reshape(-1, x.shape[-1])
    if weight.activations == Activations():  # per token, measured in the call
        codes, scales = quantize_tokens(tokens)
    else:
        codes, scales = activations.quantize(tokens, weight.activations)
    y = scaled_product(codes, scales, weight.codes, weight.scales, bias, x.dtype)
    return y.view(*x.shape[:-1], weight.shape[0])


def reference(
    codes: torch.Tensor, scales: torch.Tensor, weight: AffineWeight, bias: torch.Tensor | None = None
) -> torch.Tensor:
    """The same in torch, with integers that are multiplied as integers: float32 (tokens, out)."""
    y = w8a8.scaled_product(codes, scales, weight)
    return y if bias is None else y + bias


def scaled_product(
    a: torch.Tensor,
    a_scales: torch.Tensor,
    b: torch.Tensor,
    b_scales: torch.Tensor,
    bias: torch.Tensor | None = None,
    dtype: torch.dtype = torch.float16,
) -> torch.Tensor:
    """(m, n) in `dtype` from int8 a (m, k) and int8 b (n, k), both with any strides.

    Args:
        a_scales: float32 (m, 1), one for each token, or (1, 1).
        b_scales: floating (n, 1), one for each output, or (1, 1).
        bias: (n,) or None.
        dtype: float16, bfloat16 or float32.

    Raises:
        TypeError: a or b is not int8.
        ValueError: shapes that do not fit together, or k past 131071, where a sum may not fit into int32.
    """
    for name, codes in (("a", a), ("b", b)):
        if codes.dtype != torch.int8:
            raise TypeError(f"{name}: got {codes.dtype}; allowed is a tensor of int8")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"a, b: got shapes {tuple(a.shape)} and {tuple(b.shape)}; allowed are (m, k) and (n, k)")
    (m, k), n = a.shape, b.shape[0]
    if k > w8a8.LONGEST:
        raise ValueError(f"k: got {k}; allowed is up to {w8a8.LONGEST}, a longer sum may not fit into int32")
    for name, values, count in (("a_scales", a_scales, m), ("b_scales", b_scales, n)):
        if tuple(values.shape) not in ((count, 1), (1, 1)):
            raise ValueError(f"{name}: got shape {tuple(values.shape)}; allowed are ({count}, 1) and (1, 1)")
    if bias is not None and tuple(bias.shape) != (n,):
        raise ValueError(f"bias: got shape {tuple(bias.shape)}; allowed is ({n},)")
    stored = torch.float32 if INTERPRETED and dtype == torch.bfloat16 else dtype  # the interpreter does not round
    y = torch.empty(m, n, dtype=stored, device=a.device)
    if y.numel():
        tiles = configs.int8(m, n, configs.processors(a.device))
        grid = (triton.cdiv(m, tiles.tokens) * triton.cdiv(n, tiles.outputs),)
        _product[grid](
            a, b, a_scales, b_scales, None if bias is None else bias.contiguous(), y, m, n,
            a.stride(0), a.stride(1), b.stride(0), b.stride(1),
            a_scales.expand(m, 1).stride(0), b_scales.expand(n, 1).stride(0),
            k, tiles.tokens, tiles.outputs, tiles.inputs, tiles.together,
            num_warps=tiles.warps, num_stages=tiles.stages,
        )  # fmt: skip
    return y.to(dtype)


@triton.jit
def _product(  # type: ignore[no-untyped-def]
    a, b, a_scales, b_scales, bias, y, m, n, stride_a, step_a, stride_b, step_b, step_a_scale, step_b_scale,
    COLUMNS: tl.constexpr, TOKENS: tl.constexpr, OUTPUTS: tl.constexpr, INPUTS: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    """A program for TOKENS x OUTPUTS sums. TOGETHER rows of programs run side by side, so that b stays in the cache."""
    down, across = tl.cdiv(m, TOKENS), tl.cdiv(n, OUTPUTS)
    band = tl.program_id(0) // (TOGETHER * across)
    height = tl.minimum(down - band * TOGETHER, TOGETHER)
    within = tl.program_id(0) % (TOGETHER * across)
    i = (band * TOGETHER + within % height).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)  # (TOKENS,)
    j = (within // height).to(tl.int64) * OUTPUTS + tl.arange(0, OUTPUTS)  # (OUTPUTS,)
    sums = tl.zeros((TOKENS, OUTPUTS), tl.int32)
    for start in range(0, COLUMNS, INPUTS):
        k = (start + tl.arange(0, INPUTS)).to(tl.int64)
        left = tl.load(
            a + i[:, None] * stride_a + k[None, :] * step_a, mask=(i < m)[:, None] & (k < COLUMNS)[None, :], other=0
        )
        right = tl.load(
            b + j[None, :] * stride_b + k[:, None] * step_b, mask=(j < n)[None, :] & (k < COLUMNS)[:, None], other=0
        )
        sums = tl.dot(left, right, sums, out_dtype=tl.int32)
    scale = tl.load(a_scales + i * step_a_scale, mask=i < m, other=0)
    values = sums.to(tl.float32) * scale[:, None]
    values *= tl.load(b_scales + j * step_b_scale, mask=j < n, other=0).to(tl.float32)[None, :]
    if bias is not None:
        values += tl.load(bias + j, mask=j < n, other=0).to(tl.float32)[None, :]
    tl.store(y + i[:, None] * n + j[None, :], values, mask=(i < m)[:, None] & (j < n)[None, :])
