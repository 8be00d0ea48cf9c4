"""LLM.int8 (Dettmers et al. 2022, "LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale").

In large models a few input channels, always the same ones, hold values far above all others. One such value sets the
scale of its token, and the rest of the token is rounded away. So the matrix product is split by columns of X, with O
the columns that reach a threshold on any token (eq. 8, here with weights (out, in)):

    Y = X[:, O] W[:, O]ᵀ  +  s_x s_wᵀ * (X_int8 W_int8ᵀ without O)              floating point + int8 summed in int32

Scales are "vector-wise": one per token of X, one per output channel of W, which is a column of the paper's W. The
threshold is 6. O is found anew in each call, so the weight is stored once, in int8, and its columns in O are
dequantized: the weight keeps its rounding error there, the activation does not.

Against bitsandbytes 0.50 on a CPU: codes of the weight (of its float16 values), outlier columns, codes of x and int32
sums are equal for float16 inputs. As there, a token's scale covers all its values below the threshold, also those in
the columns of O, which then take part in no integer product: the scale can be wider than it has to be, up to the
threshold / 127. Outputs differ in the last digits: bitsandbytes rounds the dequantized columns and both parts of the
sum to the type of x, while here everything is float32 until the end; and its CPU code multiplies the int32 sums by
6.200124e-05 where 1 / 127² is 6.200012e-05, which makes them 1.8e-5 too large. It rounds float32 inputs to float16
before it looks for outliers, and takes the threshold 0 for none: here every column then stays in floating point.
Without AVX-512 its int32 sums come from a float32 product, and are exact only below 2^24 (k up to 1040 for sure).
"""

from __future__ import annotations

import torch

from qlab.formats import activations, affine, packing
from qlab.formats.activations import Activations, check_threshold
from qlab.methods.w8a8 import as_tokens, int8_codes, scaled_product


def quantize(w: torch.Tensor) -> affine.AffineWeight:
    """8 bits, symmetric, one float32 scale per output channel, with the codes of bitsandbytes.

    code = round(w * (127 / max|w|)), scale = max|w| / 127; bitsandbytes stores 127 * scale and calls it SCB. Its
    `Linear8bitLt` rounds w to float16 first; pass `w.half()` to get the same from a float32 weight.

    Args:
        w: float16, bfloat16, float32 or float64 (out, in); float64 is rounded to float32.

    Raises:
        TypeError: w is not a tensor of one of these types.
        ValueError: w is empty, not two-dimensional, or holds NaN or infinity (or float64 values past float32).
    """
    affine.check_weight(w)
    codes, scales = activations.quantize(w, Activations())  # a channel of W is rounded like a token of X
    return affine.from_codes(packing.from_int8(codes), scales, None, 8, "channel", w.dtype)


def outlier_columns(x: torch.Tensor, threshold: float = 6.0) -> torch.Tensor:
    """bool (in,): the columns of x (tokens, in) in which |x| reaches the threshold on any token.

    Infinity reaches every threshold, NaN none. Without a token no column does.
    """
    check_threshold(threshold)
    return (x.abs() >= threshold).any(0)


@torch.no_grad()
def linear(
    x: torch.Tensor, weight: affine.AffineWeight, bias: torch.Tensor | None = None, threshold: float = 6.0
) -> torch.Tensor:
    """x (..., in) -> (..., out) in the type of x; outlier columns in floating point, the others in int8.

    Both parts, the scales and the bias meet in float32. NaN in x makes every output of its token NaN; infinity gives
    what it gives in `nn.Linear`. No gradients.

    Args:
        x: float16, bfloat16, float32 or float64.
        weight: 8 bits, symmetric, per channel (as from `quantize`) or per tensor.
        bias: (out,).
        threshold: from 0 up. At 0 every column is an outlier: 8-bit weights, activations as they are.

    Raises:
        TypeError: x, weight or threshold is of another type.
        ValueError: x has another number of columns; weight has other bits or scales; threshold is negative or NaN.
    """
    scheme = Activations(threshold=threshold)
    tokens = as_tokens(x, weight)  # (tokens, in)
    outliers = outlier_columns(tokens, threshold)  # (in,)
    codes, scales = activations.quantize(tokens, scheme)  # 0 in the outlier columns
    y = scaled_product(codes, scales, weight)
    columns = int8_codes(weight)[:, outliers] * weight.scales.float()  # (out, outliers)
    y += tokens[:, outliers].float() @ columns.t()
    if bias is not None:
        y += bias
    return y.to(x.dtype).view(*x.shape[:-1], weight.shape[0])
