"""Round to nearest (RTN): every weight goes to the closest code, and nothing else is looked at.

It needs no data and one pass over the weights. It is what each other method is measured against: GPTQ compensates the
errors that RTN makes, AWQ moves them to where they hurt less. At 8 bits there is little left to win.
"""

from __future__ import annotations

import torch

from qlab.formats import affine


def quantize(
    w: torch.Tensor,
    bits: int = 4,
    group_size: affine.GroupSize = 128,
    symmetric: bool = True,
    scale_dtype: torch.dtype = torch.float16,
) -> affine.AffineWeight:
    """Quantize w (out, in) with the rounding of the format itself; arguments and errors as in `affine.quantize`."""
    return affine.quantize(w, bits=bits, group_size=group_size, symmetric=symmetric, scale_dtype=scale_dtype)
