"""FP8, W8A8 with floats: weights and inputs are both 8-bit floats, their products are added in float32.

    y = (A B^T) * s_x * s_w + bias          A = codes of x, B = codes of W, as values of `float8`

(Micikevicius et al. 2022, "FP8 Formats for Deep Learning"; 128 x 128 blocks of weights as in DeepSeek-AI 2024,
"DeepSeek-V3 Technical Report", section 3.3.) A scale of a row of x or of W is the same for a whole sum, so it comes
after the sum. A scale of a block holds for 128 columns, so there is one sum for every 128 columns.

The arithmetic here is the one to compare others with. The codes are decoded, and float32 holds the product of two 8-bit
floats exactly (4 + 4 significant bits are enough), so only the additions round. `torch._scaled_mm` does no better on a
CPU: it decodes too, and knows one scale per tensor (torch 2.11) or also one per row (2.13), but no blocks. Tensor cores
multiply the bytes as they are. Those of Hopper keep about 14 bits of every product while they add (DeepSeek-V3, section
3.5.2), so sums from a GPU can be less exact than these.
"""

from __future__ import annotations

import torch

from qlab.formats import activations, float8
from qlab.formats.activations import Activations
from qlab.formats.float8 import Float8Weight


@torch.no_grad()
def linear(
    x: torch.Tensor, weight: Float8Weight, bias: torch.Tensor | None = None, scheme: Activations | None = None
) -> torch.Tensor:
    """x (..., in) -> (..., out) in the type of x: both sides in 8-bit floats; sums, scales and bias in float32.

    A static scale clips values past the largest 8-bit float times the scale. NaN or infinity in x makes every output of
    its token NaN (of the whole tensor, with one scale for all). No gradients.

    Args:
        x: float16, bfloat16, float32 or float64.
        weight: per tensor, per channel or in blocks. Its data type need not be that of the inputs.
        bias: (out,).
        scheme: how to quantize x, in "e4m3" or "e5m2"; e4m3 per token, dynamic, if not given.

    Raises:
        TypeError: x or weight is of another type.
        ValueError: x has another number of columns; scheme is not one for 8-bit floats.
    """
    scheme = scheme or Activations("e4m3")
    if scheme.data_type not in float8.LARGEST:
        raise ValueError(f"scheme: got {scheme.label}; allowed is e4m3 or e5m2, use w8a8.linear for integers")
    if not isinstance(weight, Float8Weight):
        raise TypeError(f"weight: got {type(weight).__name__}; allowed is a Float8Weight, as from float8.quantize")
    outputs, inputs = weight.shape
    if not isinstance(x, torch.Tensor):
        raise TypeError(f"x: got {type(x).__name__}; give a tensor of float16, bfloat16, float32 or float64")
    if x.ndim == 0 or x.shape[-1] != inputs:
        raise ValueError(f"x: got shape {tuple(x.shape)}; a weight of shape {weight.shape} takes (..., {inputs})")
    codes, scales = activations.quantize(x.reshape(-1, inputs), scheme)  # uint8 (tokens, in), (tokens, 1) or (1, 1)
    y = scaled_product(codes, scales, scheme.data_type, weight)
    if bias is not None:
        y += bias
    return y.to(x.dtype).view(*x.shape[:-1], outputs)


def scaled_product(codes: torch.Tensor, scales: torch.Tensor, data_type: str, weight: Float8Weight) -> torch.Tensor:
    """float32 (tokens, out) from codes uint8 (tokens, in) of `data_type` and scales float32 (tokens, 1) or (1, 1)."""
    width = float8.BLOCK if weight.granularity == "block" else weight.shape[1]
    a = float8.decode(codes, data_type).split(width, dim=1)
    b = float8.decode(weight.codes, weight.data_type).split(width, dim=1)
    weight_scales = weight.scales  # (1, 1) or (out, 1)
    if weight.granularity == "block":
        weight_scales = weight_scales.repeat_interleave(float8.BLOCK, 0)[: weight.shape[0]]  # (out, blocks of columns)
    y = torch.zeros(len(codes), weight.shape[0], device=codes.device)
    for a_part, b_part, scale in zip(a, b, weight_scales.T, strict=True):
        y += (a_part @ b_part.T) * scale
    return y.mul_(scales)
