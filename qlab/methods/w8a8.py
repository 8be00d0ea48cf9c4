"""W8A8: weights and activations in eight bits, multiplied as integers and summed in 32 bits.

With one scale per token of X (s_x) and one per output channel of W (s_w), the scales do not depend on the index that
the sum runs over. So they come out of it, and the products inside are integers (Xiao et al. 2022, "SmoothQuant:
Accurate and Efficient Post-Training Quantization for Large Language Models", eq. 2):

    Y = diag(s_x) (X_int8 W_int8ᵀ) diag(s_w)                    int8 * int8, summed in int32, then scaled in float32

Scales along `in`, such as those of groups of 128, could not come out: that is why W8A8 weights have none. It is also
why one input channel that is far larger than the others hurts: it sets the scale of its token, for all of them.

The sum is exact. A product is at most 127 * 127 = 16129, and 133144 of them stay below 2^31 (131071, if -128 occurs).
"""

from __future__ import annotations

import os

import torch
import torch.nn.functional as F

from qlab.formats import activations, affine, packing
from qlab.formats.activations import Activations
from qlab.formats.affine import WEIGHT_DTYPES, AffineWeight

LONGEST = 2**17 - 1  # products of (-128) * (-128) = 2^14 whose sum fits into int32


def quantize(w: torch.Tensor, group_size: affine.GroupSize = "channel") -> AffineWeight:
    """Round to the nearest of 8 bits, symmetric, with float32 scales (`affine.quantize`), as `linear` takes it.

    Args:
        w: float16, bfloat16, float32 or float64 (out, in).
        group_size: "channel" or "tensor".

    Raises:
        TypeError, ValueError: as `affine.quantize`; or a group size in numbers, whose scales could not leave the sum.
    """
    if group_size not in ("channel", "tensor"):
        raise ValueError(f"group_size: got {group_size!r}; int8 products allow 'channel' or 'tensor', choose one")
    return affine.quantize(w, 8, group_size, True, torch.float32)


def int8_matmul(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The exact product a @ b.T: int32 (m, n) from int8 (m, k) and int8 (n, k).

    Any of m, n and k may be 0 or 1. torch has an operation for this, `torch._int_mm`, and it has limits: on CUDA,
    more than 16 rows and multiples of 8, which zeros fill up here; on a CPU, k = 1, rows that share memory and odd
    strides of one row give wrong numbers without an error (torch 2.13), so both sides are laid out anew where needed.
    On a CPU without VNNI (four products of bytes in one instruction) `_int_mm` is a plain loop, and a product of
    int32 copies takes a tenth of its time.

    Raises:
        TypeError: a or b is not an int8 tensor.
        ValueError: shapes that do not fit together, or k past 131071, where the sum may not fit into int32.
    """
    for name, codes in (("a", a), ("b", b)):
        if not isinstance(codes, torch.Tensor) or codes.dtype != torch.int8:
            got = codes.dtype if isinstance(codes, torch.Tensor) else type(codes).__name__
            raise TypeError(f"{name}: got {got}; allowed is a tensor of int8")
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"a, b: got shapes {tuple(a.shape)} and {tuple(b.shape)}; allowed are (m, k) and (n, k)")
    (m, k), n = a.shape, b.shape[0]
    if k > LONGEST:
        raise ValueError(f"k: got {k}; allowed is up to {LONGEST}, a longer sum may not fit into int32, so split it")
    if 0 in (m, n, k):
        return torch.zeros(m, n, dtype=torch.int32, device=a.device)
    if a.is_cuda:
        a, b = _plain(a, max(17 - m, 0), -k % 8), _plain(b, -n % 8, -k % 8)
        return torch._int_mm(a, b.t())[:m, :n]
    if a.device.type == "cpu" and _byte_products():
        return torch._int_mm(_plain(a, 0, -k % 8), _plain(b, 0, -k % 8).t())
    return a.int() @ b.int().t()


@torch.no_grad()
def linear(
    x: torch.Tensor, weight: AffineWeight, bias: torch.Tensor | None = None, scheme: Activations | None = None
) -> torch.Tensor:
    """x (..., in) -> (..., out) in the type of x: both sides in int8, the sum in int32, scales and bias in float32.

    A float16 result overflows only if the result itself is too large, never on the way. NaN or infinity in x makes
    every output of its token NaN (of the whole tensor, with one scale for all). No gradients.

    Args:
        x: float16, bfloat16, float32 or float64.
        weight: 8 bits, symmetric, per channel or per tensor.
        bias: (out,).
        scheme: how to quantize x; int8 per token, dynamic, if not given.

    Raises:
        TypeError: x or weight is of another type.
        ValueError: x has another number of columns; weight has other bits or scales; scheme is not int8 or has a
            threshold.
    """
    scheme = scheme or Activations()
    if scheme.data_type != "int8":
        raise ValueError(f"scheme: got {scheme.label}; allowed is int8, use fp8.linear for 8-bit floats")
    if scheme.threshold is not None:
        raise ValueError(f"scheme: got {scheme.label}; use llm_int8.linear for a threshold")
    tokens = as_tokens(x, weight)  # (tokens, in)
    codes, scales = activations.quantize(tokens, scheme)
    y = scaled_product(codes, scales, weight)
    if bias is not None:
        y += bias
    return y.to(x.dtype).view(*x.shape[:-1], weight.shape[0])


def scaled_product(codes: torch.Tensor, scales: torch.Tensor, weight: AffineWeight) -> torch.Tensor:
    """float32 (tokens, out) from int8 codes (tokens, in) and float32 scales (tokens, 1) or (1, 1)."""
    sums = int8_matmul(codes, int8_codes(weight))  # int32 (tokens, out)
    return sums.float().mul_(scales).mul_(weight.scales.float().t())


def int8_codes(weight: AffineWeight) -> torch.Tensor:
    """int8 (out, in), from -127 to 127: the stored codes 1 to 255 less their zero-point, 128.

    Raises:
        TypeError: not an AffineWeight.
        ValueError: other bits, a stored zero-point, or scales that change along `in`.
    """
    if not isinstance(weight, AffineWeight):
        raise TypeError(f"weight: got {type(weight).__name__}; allowed is an AffineWeight of 8 bits")
    if weight.bits != 8 or not weight.symmetric or weight.group_size not in ("channel", "tensor"):
        raise ValueError(
            f"weight: got {weight.label}; allowed is 8 bits, per channel or per tensor, symmetric: quantize it that way"
        )
    return packing.to_int8(weight.packed)  # at 8 bits a packed byte is a code


def as_tokens(x: torch.Tensor, weight: AffineWeight) -> torch.Tensor:
    """x (..., in) as (tokens, in), refused where it does not fit the weight."""
    if not isinstance(x, torch.Tensor) or x.dtype not in WEIGHT_DTYPES:
        got = x.dtype if isinstance(x, torch.Tensor) else type(x).__name__
        raise TypeError(f"x: got {got}; give a tensor of float16, bfloat16, float32 or float64")
    if x.ndim == 0 or x.shape[-1] != weight.shape[1]:
        raise ValueError(
            f"x: got shape {tuple(x.shape)}; a weight of shape {weight.shape} takes (..., {weight.shape[1]})"
        )
    return x.reshape(-1, weight.shape[1])


def _byte_products() -> bool:
    """Whether `torch._int_mm` is exact on this CPU. Where the user keeps oneDNN from VNNI, it saturates sums."""
    return torch.cpu._is_vnni_supported() and "ONEDNN_MAX_CPU_ISA" not in os.environ


def _plain(codes: torch.Tensor, more_rows: int, more_columns: int) -> torch.Tensor:
    """Row-major with regular strides, zeros added below and on the right; a copy only where that needs one."""
    if more_rows or more_columns:
        return F.pad(codes, (0, more_columns, 0, more_rows))
    # `contiguous` would keep the odd stride of a single row; a new view of the flat numbers does not.
    return codes.reshape(-1).view(codes.shape)
