"""int8 codes and a scale for every token, in one pass over activations: what a W8A8 layer does before its product.

    scale = max|x| / 127      code = round(x * (127 * (1 / max|x|))), ties to even

Codes and scales are those of `formats.activations.quantize`, bit for bit: divisions are rounded correctly, a product
and a sum are not fused, and 127 / max|x| is computed as torch does it, from the reciprocal. One program takes one
token and reads it twice; the second time it comes from the cache.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from qlab.formats import activations
from qlab.formats.activations import Activations

from . import INTERPRETED

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
_TINY = tl.constexpr(torch.finfo(torch.float32).tiny)
_MAGIC = tl.constexpr(1.5 * 2.0**23)  # float32 has no fractions there: adding and subtracting it rounds to even


def reference(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The same in torch."""
    return activations.quantize(x, Activations())


def quantize_tokens(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes int8 (tokens, in) and scales float32 (tokens, 1) of x (tokens, in), with any strides.

    A token of zeros gets the scale 1; one that holds NaN or infinity the scale NaN, and codes that mean nothing.

    Raises:
        TypeError, ValueError: x is not float16, bfloat16 or float32, or not (tokens, in).
    """
    if x.dtype not in DTYPES:
        raise TypeError(f"x: got {x.dtype}; give float16, bfloat16 or float32")
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"x: got shape {tuple(x.shape)}; allowed is (tokens, in) with in above 0")
    if INTERPRETED and x.dtype == torch.bfloat16:
        x = x.float()  # the interpreter reads subnormal ones wrongly
    tokens, columns = x.shape
    codes = torch.empty(tokens, columns, dtype=torch.int8, device=x.device)
    scales = torch.empty(tokens, 1, device=x.device)
    if tokens:
        block = min(4096, triton.next_power_of_2(columns))
        _quantize[(tokens,)](
            x, codes, scales, x.stride(0), x.stride(1), columns, block, num_warps=4, enable_fp_fusion=False
        )
    return codes, scales


@triton.jit
def _quantize(  # type: ignore[no-untyped-def]
    x, codes, scales, stride_x, step_x, COLUMNS: tl.constexpr, BLOCK: tl.constexpr
):
    """Program i: token i."""
    token = tl.program_id(0).to(tl.int64)
    largest = tl.zeros((BLOCK,), tl.float32)
    bad = tl.zeros((BLOCK,), tl.int32)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        values = tl.load(x + token * stride_x + k.to(tl.int64) * step_x, mask=k < COLUMNS, other=0).to(tl.float32)
        bad |= (~(tl.abs(values) < float("inf"))).to(tl.int32)  # a maximum may drop NaN, a comparison does not
        largest = tl.maximum(largest, tl.abs(values))
    absmax = tl.max(largest, 0)
    scale = tl.where(absmax == 0, 1.0, tl.maximum(tl.div_rn(absmax, 127.0), _TINY))
    tl.store(scales + token, tl.where(tl.max(bad, 0) > 0, float("nan"), scale))
    steps = tl.minimum(tl.div_rn(1.0, tl.where(absmax == 0, 1.0, absmax)) * 127.0, 1 / _TINY)
    for start in range(0, COLUMNS, BLOCK):
        k = start + tl.arange(0, BLOCK)
        values = tl.load(x + token * stride_x + k.to(tl.int64) * step_x, mask=k < COLUMNS, other=0).to(tl.float32)
        rounded = (values * steps + _MAGIC) - _MAGIC
        code = tl.minimum(tl.maximum(rounded, -127.0), 127.0)
        tl.store(codes + token * COLUMNS + k, code.to(tl.int8), mask=k < COLUMNS)
