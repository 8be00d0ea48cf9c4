"""Eight-bit activations: the inputs of a layer as integers or 8-bit floats, with a scale per token or for all of them.

    largest  = 127 (int8), 448 (e4m3) or 57344 (e5m2)
    scale    = max|x| / largest     over a token (a row of x), or over the whole tensor
    code     = round(x / scale)     x is about code * scale

The grid is symmetric: no zero-point, and -128 stays unused. Weights are quantized once, activations anew in each call.
So their scale is measured in the call (dynamic), or beforehand on calibration data (static). A static scale costs
nothing in the call, but values beyond 127 * scale clip.

(Dettmers et al. 2022, "LLM.int8(): 8-bit Matrix Multiplication for Transformers at Scale", section 3: scales per token
and the threshold; Xiao et al. 2022, "SmoothQuant", section 2: tokens or tensor, static or dynamic.)

Dynamic int8 codes are those of bitsandbytes 0.50 for float16 inputs, which computes x * (127 / max|x|). Where x / scale
is near a tie, the two orders can give different codes. bitsandbytes rounds other inputs to float16 first; this module
does not. NaN and infinity are not hidden: they make the scale NaN, and with it everything that the scale multiplies.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from . import float8
from .affine import WEIGHT_DTYPES

LARGEST = {"int8": 127.0} | float8.LARGEST  # the largest code of each type, as a number


@dataclass(frozen=True)
class Activations:
    """How a layer quantizes its inputs.

    Raises:
        TypeError, ValueError: a field is not one of those allowed, or fields do not go together.
    """

    data_type: str = "int8"  # "int8", "e4m3", "e5m2"
    granularity: str = "token"  # one scale for every "token" (row of x), or one for the whole "tensor"
    scale: torch.Tensor | None = None  # float32 (1,): static, "tensor" only; None: measured in each call (dynamic)
    threshold: float | None = None  # LLM.int8 (int8, token): columns that reach it anywhere stay out; None: no column

    def __post_init__(self) -> None:
        if self.data_type not in LARGEST:
            raise ValueError(f"data_type: got {self.data_type!r}; choose from {', '.join(map(repr, LARGEST))}")
        if self.granularity not in ("token", "tensor"):
            raise ValueError(f"granularity: got {self.granularity!r}; choose 'token' or 'tensor'")
        if self.scale is not None:
            self._check_scale(self.scale)
        if self.threshold is not None:
            check_threshold(self.threshold)
            if self.data_type != "int8" or self.granularity != "token":
                raise ValueError(f"threshold: got {self.threshold:g} with {self.label}; allowed with int8, per token")

    def _check_scale(self, scale: torch.Tensor) -> None:
        if self.granularity != "tensor":
            raise ValueError(
                "scale: got a static scale per token; tokens are new in each call, use granularity='tensor'"
            )
        if not isinstance(scale, torch.Tensor) or scale.dtype != torch.float32:
            got = scale.dtype if isinstance(scale, torch.Tensor) else type(scale).__name__
            raise TypeError(f"scale: got {got}; give a float32 tensor of shape (1,)")
        if scale.shape != (1,):
            raise ValueError(f"scale: got shape {tuple(scale.shape)}; allowed is (1,)")
        if not scale.is_meta and not (scale > 0).logical_and(scale.isfinite()).all():
            raise ValueError(f"scale: got {scale.item():g}; it must be positive and finite")

    @property
    def label(self) -> str:
        """Such as "int8, per token" or "int8, one static scale"."""
        if self.threshold is not None:
            return f"{self.data_type}, per token, columns from {self.threshold:g} up in 16 bits"
        return f"{self.data_type}, {'one static scale' if self.scale is not None else f'per {self.granularity}'}"


def quantize(x: torch.Tensor, scheme: Activations) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes (tokens, in) and the float32 scales that they are multiplied by.

    Codes are int8, or uint8 bytes of 8-bit floats (see `float8.decode`). Scales are (tokens, 1), or (1, 1) for the
    whole tensor. Computed in float32. A row of zeros gets the scale 1; no scale is below 2^-126, the smallest normal
    float32. Where x holds NaN or infinity, the scale of its token, or of its tensor, is NaN, a static one too; the int8
    codes under a NaN scale mean nothing.

    With a threshold, values that reach it do not count for the scale of their token, and all codes of their columns are
    0: these columns are left to the caller. Infinity reaches every threshold, NaN none. The threshold 0 is reached by
    everything but NaN. (In bitsandbytes 0 switches the threshold off; here that is None.)

    Args:
        x: float16, bfloat16, float32 or float64 (tokens, in); tokens may be 0.

    Raises:
        TypeError: x is not a tensor of one of these types.
        ValueError: x is not (tokens, in) with at least one column.
    """
    if not isinstance(x, torch.Tensor) or x.dtype not in WEIGHT_DTYPES:
        got = x.dtype if isinstance(x, torch.Tensor) else type(x).__name__
        raise TypeError(f"x: got {got}; give a tensor of float16, bfloat16, float32 or float64")
    if x.ndim != 2 or x.shape[1] == 0:
        raise ValueError(f"x: got shape {tuple(x.shape)}; allowed is (tokens, in) with in above 0")
    x = x.detach().float()
    reached = None
    if scheme.threshold is not None:
        reached = x.abs() >= scheme.threshold  # (tokens, in)
        x = x.masked_fill(reached, 0)
    absmax = x.abs().amax(1, keepdim=True)  # (tokens, 1); NaN if there is one
    if scheme.granularity == "tensor":
        absmax = F.pad(absmax, (0, 0, 0, 1)).amax(0, keepdim=True)  # (1, 1); a row of zeros more, should there be none
    if scheme.scale is not None:
        scales = torch.where(absmax.isfinite(), scheme.scale, torch.nan)
    else:
        scales = _scale_of(absmax, scheme.data_type)
    if scheme.data_type != "int8":
        return float8.encode(x / scales, scheme.data_type), scales
    if scheme.scale is not None:
        steps = x / scales
    else:
        # The order of bitsandbytes. The bound belongs to the smallest scale, and makes 0 * inf in a row of zeros 0.
        steps = x * (127 / absmax).clamp_(max=1 / torch.finfo(torch.float32).tiny)
    codes = steps.round_().clamp_(-127, 127).to(torch.int8)
    if reached is not None:
        codes.masked_fill_(reached.any(0), 0)
    return codes, scales


def static_scale(largest: float, data_type: str = "int8") -> torch.Tensor:
    """The static scale under which `largest`, the largest |x| of the calibration data, gets the largest code.

    float32 (1,), for `Activations(granularity="tensor", scale=...)`. It is 1 where all data were 0.

    Raises:
        ValueError: largest is negative, NaN or infinite.
    """
    if not 0 <= largest < math.inf:
        raise ValueError(f"largest: got {largest}; allowed is a finite maximum of |x|, look for NaN in the calibration")
    return _scale_of(torch.tensor([largest], dtype=torch.float32), data_type)


def check_threshold(threshold: float) -> None:
    """Refuse a threshold that is not a number from 0 up."""
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
        raise TypeError(f"threshold: got {threshold!r}; give a number such as 6.0")
    if math.isnan(threshold) or threshold < 0:
        raise ValueError(f"threshold: got {threshold}; give a number from 0 up, such as 6.0")


def _scale_of(absmax: torch.Tensor, data_type: str) -> torch.Tensor:
    """Scales in the shape of float32 absmax: 1 where it is 0, NaN where NaN or infinite, never below 2^-126."""
    scales = (absmax / LARGEST[data_type]).clamp_(min=torch.finfo(torch.float32).tiny)
    return scales.masked_fill_(absmax == 0, 1).masked_fill_(absmax.isinf(), torch.nan)
