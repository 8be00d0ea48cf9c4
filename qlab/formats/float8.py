"""Eight-bit floats: a byte is a sign, an exponent and a fraction, and one scale serves a tensor, a row or a block.

    e4m3   s eeee fff   bias 7    largest 448     smallest 2^-9    no infinity; NaN is s 1111 111 and nothing else
    e5m2   s eeeee ff   bias 15   largest 57344   smallest 2^-16   infinity is s 11111 00, NaN the other s 11111 ff

    normal numbers      e > 0   (-1)^s * 2^(e - bias) * 1.f
    subnormal numbers   e = 0   (-1)^s * 2^(1 - bias) * 0.f      as far apart as the smallest normal ones

(Micikevicius et al. 2022, "FP8 Formats for Deep Learning", table 1.) An integer grid has equal steps. Here the step
doubles with every power of two, so the error stays in proportion to the value: at most 1/16 of it in e4m3 and 1/8 in
e5m2, as long as it is a normal number. That is why one scale for a whole row is enough.

`encode` rounds to the nearest value, ties to the even code, and saturates: what lies past the largest value becomes the
largest value, and so does infinity. NaN stays NaN. A cast in torch, `x.to(torch.float8_e5m2)`, gives infinity from
61440 on; for e4m3 it saturates on the CPU in torch 2.13 and gives NaN in torch 2.11. So clamp before you cast.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F

from .affine import WEIGHT_DTYPES, check_weight

BLOCK = 128  # rows and columns of weights that share a scale under granularity "block"
LARGEST = {"e4m3": 448.0, "e5m2": 57344.0}
_LAYOUTS = {"e4m3": (3, 7), "e5m2": (2, 15)}  # bits of the fraction, bias of the exponent
_GRANULARITIES = ("tensor", "channel", "block")


@dataclass(frozen=True)
class Float8Weight:
    """A quantized weight matrix of shape (out, in), held as one byte a weight and its scales."""

    codes: torch.Tensor  # uint8 (out, in)
    scales: torch.Tensor  # float32: (1, 1) per tensor, (out, 1) per channel, (ceil(out/128), ceil(in/128)) in blocks
    data_type: str  # "e4m3" or "e5m2"
    granularity: str  # "tensor", "channel" or "block"
    dtype: torch.dtype  # of the weights that were quantized

    @property
    def shape(self) -> tuple[int, int]:
        return self.codes.shape[0], self.codes.shape[1]

    @property
    def nbytes(self) -> int:
        """Bytes held: codes and scales."""
        return self.codes.nbytes + self.scales.nbytes

    @property
    def bits_per_weight(self) -> float:
        """Bits held for each weight, scales included."""
        return 8 * self.nbytes / self.codes.numel()

    @property
    def label(self) -> str:
        """Such as "E4M3, per channel"."""
        shared = f"blocks of {BLOCK} x {BLOCK}" if self.granularity == "block" else f"per {self.granularity}"
        return f"{self.data_type.upper()}, {shared}"

    def dequantize(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The weights (out, in), computed in float32 (float64 if asked for) and given in `dtype` (the original one).

        A value past the range of `dtype` gives the largest finite one instead of infinity.
        """
        dtype = dtype or self.dtype
        compute = torch.float64 if dtype == torch.float64 else torch.float32
        values = decode(self.codes, self.data_type, compute)
        values *= _of_every_weight(self.scales, self.shape, self.granularity).to(compute)
        limit = torch.finfo(dtype).max
        if float(self.scales.max()) * LARGEST[self.data_type] > limit:  # rare, and only then worth a pass
            values.clamp_(-limit, limit)
        return values.to(dtype)


def encode(x: torch.Tensor, data_type: str = "e4m3") -> torch.Tensor:
    """The codes of the values nearest to x: uint8, in the shape of x. Ties go to the even code.

    Saturates: past the largest value, infinity included, comes the largest value. NaN gives the code 127 (255 with a
    minus sign), and -0.0 is not 0.0. float64 is rounded once, not by way of float32.

    Args:
        x: float16, bfloat16, float32 or float64, of any shape.
        data_type: "e4m3" or "e5m2".

    Raises:
        TypeError: x is not a tensor of one of these types.
        ValueError: another data type.
    """
    check_data_type(data_type)
    if not isinstance(x, torch.Tensor) or x.dtype not in WEIGHT_DTYPES:
        got = x.dtype if isinstance(x, torch.Tensor) else type(x).__name__
        raise TypeError(f"x: got {got}; give a tensor of float16, bfloat16, float32 or float64")
    fraction_bits, bias = _LAYOUTS[data_type]
    # float32 holds float16 and bfloat16 exactly. The fields of its own bit pattern:
    x = x.detach() if x.dtype == torch.float64 else x.detach().float()
    integer, own_fraction, own_bias = {4: (torch.int32, 23, 127), 8: (torch.int64, 52, 1023)}[x.dtype.itemsize]

    magnitude = x.abs().clamp_(max=LARGEST[data_type])
    exponent = (magnitude.view(integer) >> own_fraction) - own_bias  # floor(log2(magnitude)), read off the bits
    exponent.clamp_(min=1 - bias)  # below, all numbers are subnormal and share one spacing
    # The spacing is a power of two, so the division is exact and only `round` rounds, ties to even.
    spacing = ((exponent - fraction_bits + own_bias) << own_fraction).view(x.dtype)
    steps = magnitude.div_(spacing).round_()  # 0 to 2^f for a subnormal number, 2^f to 2^(f+1) for a normal one
    # The codes of positive floats are ordered like the floats. So 2^(f+1), which is the next power of two, carries into
    # the exponent field by itself, and 2^f is the leading one, which e counts and the fraction leaves out.
    codes = ((exponent + bias - 1) << fraction_bits) + steps.to(integer)
    return codes.masked_fill_(x.isnan(), 0x7F).add_(x.signbit(), alpha=0x80).to(torch.uint8)


def decode(codes: torch.Tensor, data_type: str = "e4m3", dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The values of codes (uint8, any shape), in `dtype`: even the 16-bit floats hold all of them exactly."""
    check_data_type(data_type)
    if codes.dtype != torch.uint8:
        raise TypeError(f"codes: got {codes.dtype}; allowed is uint8, use codes.view(torch.uint8) for float8 tensors")
    table = _values(data_type).to(codes.device, dtype)
    return table.index_select(0, codes.reshape(-1).int()).view(codes.shape)


@cache
def _values(data_type: str) -> torch.Tensor:
    """The value of every code from 0 to 255, float32 (256,): the definition at the top of this file, term by term."""
    fraction_bits, bias = _LAYOUTS[data_type]
    code = torch.arange(256, device="cpu")
    sign, exponent, fraction = code >> 7, (code & 0x7F) >> fraction_bits, code & (2**fraction_bits - 1)
    significand = torch.where(exponent > 0, 2**fraction_bits + fraction, fraction)  # 1.f or 0.f, times 2^fraction_bits
    values = torch.ldexp(significand.float(), exponent.clamp(min=1) - bias - fraction_bits)
    if data_type == "e4m3":
        values[code & 0x7F == 0x7F] = torch.nan
    else:
        values[exponent == 31] = torch.where(fraction[exponent == 31] == 0, torch.inf, torch.nan)
    return torch.where(sign == 1, -values, values)


def quantize(w: torch.Tensor, data_type: str = "e4m3", granularity: str = "channel") -> Float8Weight:
    """Divide by max|w| / largest value, then round every weight to the nearest 8-bit float.

    A weight moves by at most 1/16 of itself in e4m3 (1/8 in e5m2), and where its quotient is subnormal by half the
    smallest value times the scale; one rounding of the quotient in float32 comes on top. An all-zero tensor, row or
    block gets the scale 1. A scale is never below 2^-126, the smallest normal float32: smaller ones lose their
    digits, and 0 would turn zeros into NaN.

    Args:
        w: float16, bfloat16, float32 or float64 (out, in).
        data_type: "e4m3" or "e5m2".
        granularity: what shares a scale: the "tensor", a "channel" (row) or a "block" of 128 x 128, less at the edges.

    Raises:
        TypeError: w is not a tensor of one of these types.
        ValueError: w is empty, not two-dimensional, or holds NaN or infinity (or float64 values past float32);
            data_type or granularity is not one of those allowed.
    """
    check_arguments(data_type, granularity)
    check_weight(w)
    shape, w = (w.shape[0], w.shape[1]), w.detach()
    if granularity == "tensor":
        largest = w.abs().amax().view(1, 1)
    elif granularity == "channel":
        largest = w.abs().amax(1, keepdim=True)  # (out, 1)
    else:
        padded = F.pad(w.abs(), (0, -shape[1] % BLOCK, 0, -shape[0] % BLOCK))
        largest = padded.unflatten(1, (-1, BLOCK)).unflatten(0, (-1, BLOCK)).amax((1, 3))  # (row blocks, column blocks)
    exact = largest.double() / LARGEST[data_type]
    scales = torch.where(largest > 0, exact.clamp(min=torch.finfo(torch.float32).tiny), 1.0).float()
    compute = torch.promote_types(w.dtype, torch.float32)
    codes = encode(w.to(compute) / _of_every_weight(scales, shape, granularity).to(compute), data_type)
    return Float8Weight(codes, scales, data_type, granularity, w.dtype)


def check_data_type(data_type: str) -> None:
    """Refuse what is not the name of an 8-bit float."""
    if not isinstance(data_type, str) or data_type not in LARGEST:
        raise ValueError(f"data_type: got {data_type!r}; choose from 'e4m3' and 'e5m2'")


def check_arguments(data_type: str, granularity: str) -> None:
    """Refuse arguments of `quantize` that make no sense, before any weight is looked at."""
    check_data_type(data_type)
    if granularity not in _GRANULARITIES:
        raise ValueError(f"granularity: got {granularity!r}; choose from 'tensor', 'channel' and 'block'")


def _of_every_weight(scales: torch.Tensor, shape: tuple[int, int], granularity: str) -> torch.Tensor:
    """Scales that broadcast over the weights (out, in)."""
    if granularity != "block":
        return scales
    return scales.repeat_interleave(BLOCK, 0)[: shape[0]].repeat_interleave(BLOCK, 1)[:, : shape[1]]
