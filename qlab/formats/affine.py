"""The affine integer format: w is about (code - zero) * scale, with codes of 2 to 8 bits that are really packed.

This is the format that round-to-nearest, GPTQ, AWQ and HQQ all write; they differ in the values they choose.
One scale serves a group of neighboring weights in a row, a whole row ("channel") or the whole tensor.

    symmetric   scale = max|w| / qmax, qmax = 2^(b-1) - 1; the zero-point is 2^(b-1) for everyone and is not stored
    asymmetric  scale = (max - min) / (2^b - 1) over a range that always includes zero; an integer zero-point per scale

(Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference",
eq. 1.)
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F

from . import packing

GroupSize = int | Literal["channel", "tensor"]
SCALE_DTYPES = (torch.float16, torch.bfloat16, torch.float32)
WEIGHT_DTYPES = (*SCALE_DTYPES, torch.float64)


@dataclass(frozen=True)
class AffineWeight:
    """A quantized weight matrix of shape (out, in).

    `packed` holds one row of codes per output channel (see `packing`), `zeros` one row of zero-points in the same
    layout, so that what `nbytes` counts is what is held. Two methods need more: HQQ's zero-points are real numbers
    and are held like the scales; GPTQ with act-order collects a group from columns that are not neighbors, and
    `group_index` then names the group of every column.
    """

    packed: torch.Tensor  # uint8 (out, ceil(in * bits / 8))
    scales: torch.Tensor  # (out, groups); (1, 1) per tensor; a floating type
    zeros: torch.Tensor | None  # uint8 (out, ceil(groups * bits / 8)) or floating like scales; None if symmetric
    bits: int
    group_size: GroupSize
    shape: tuple[int, int]
    dtype: torch.dtype  # of the weights that were quantized
    group_index: torch.Tensor | None = None  # int32 (in,), None where groups are runs of neighboring columns

    @property
    def symmetric(self) -> bool:
        return self.zeros is None

    @property
    def nbytes(self) -> int:
        """Bytes held: codes, scales, zero-points and the group index."""
        held = (self.packed, self.scales, self.zeros, self.group_index)
        return sum(tensor.nbytes for tensor in held if tensor is not None)

    @property
    def bits_per_weight(self) -> float:
        """Bits held for each weight, scales and zero-points included."""
        return 8 * self.nbytes / (self.shape[0] * self.shape[1])

    @property
    def label(self) -> str:
        """Such as "4 bits, groups of 128, symmetric"."""
        group = f"groups of {self.group_size}" if isinstance(self.group_size, int) else f"per {self.group_size}"
        kind = "symmetric" if self.zeros is None else "asymmetric"
        if self.zeros is not None and self.zeros.is_floating_point():
            kind = "real zero-points"
        return f"{self.bits} bits, {group}, {kind}{', act-order' if self.group_index is not None else ''}"

    def codes(self) -> torch.Tensor:
        """uint8 (out, in), from 0 to 2^bits - 1."""
        return packing.unpack(self.packed, self.bits, self.shape[1])

    def zero_points(self) -> torch.Tensor:
        """One per scale, uint8 (or real): the code that stands for the value 0."""
        if self.zeros is None:
            return _zero_points(self.scales, self.bits)
        if self.zeros.is_floating_point():
            return self.zeros
        return packing.unpack(self.zeros, self.bits, self.scales.shape[1])

    def dequantize(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The weights (out, in), computed in float32 (float64 if asked for) and given in `dtype` (the original one).

        A grid point past the range of `dtype` gives the largest finite value instead of infinity.
        """
        codes, zeros = self.codes(), self.zero_points()
        return _values(codes, self.scales, zeros, self.bits, self.group_size, dtype or self.dtype, self.group_index)


def quantize(
    w: torch.Tensor,
    bits: int = 4,
    group_size: GroupSize = 128,
    symmetric: bool = True,
    scale_dtype: torch.dtype = torch.float16,
) -> AffineWeight:
    """Round every weight to the nearest code of its group's grid.

    No weight moves by more than half a step, up to the rounding of the scale to `scale_dtype`: scales are rounded up,
    so that the largest weight stays on the grid. Ties go to the even code.

    Args:
        w: float16, bfloat16, float32 or float64 (out, in).
        bits: 2 to 8.
        group_size: weights that share a scale, along `in` (the last group may be short), "channel" or "tensor".
        symmetric: a grid around zero, without stored zero-points.
        scale_dtype: float16, bfloat16 or float32. Where a scale would be subnormal or overflow in it, the whole
            tensor keeps float32 scales.

    Raises:
        TypeError: w is not a tensor of one of these types, or another argument is of the wrong kind.
        ValueError: w is empty, not two-dimensional, or holds NaN or infinity (or float64 values past float32);
            bits, group_size or scale_dtype is not one of those allowed.
    """
    check_arguments(bits, group_size, symmetric, scale_dtype)
    check_weight(w)
    scales, zeros = choose_params(w, bits, group_size, symmetric, scale_dtype)
    codes = round_to_codes(w, scales, zeros, bits, group_size)
    return from_codes(codes, scales, zeros, bits, group_size, w.dtype)


def rounded(
    w: torch.Tensor,
    bits: int = 4,
    group_size: GroupSize = 128,
    symmetric: bool = True,
    scale_dtype: torch.dtype = torch.float16,
) -> torch.Tensor:
    """`quantize(w, ...).dequantize()` without the packing, for searches that round many times and keep no codes.

    Arguments and errors are those of `quantize`.
    """
    check_arguments(bits, group_size, symmetric, scale_dtype)
    check_weight(w)
    scales, zeros = choose_params(w, bits, group_size, symmetric, scale_dtype)
    codes = round_to_codes(w, scales, zeros, bits, group_size)
    return _values(codes, scales, _zero_points(scales, bits) if zeros is None else zeros, bits, group_size, w.dtype)


def choose_params(
    w: torch.Tensor, bits: int, group_size: GroupSize, symmetric: bool, scale_dtype: torch.dtype = torch.float16
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Scales in the type in which they are stored, and zero-points (uint8) or None.

    Both are (out, groups), or (1, 1) per tensor.
    """
    groups = _in_groups(w, group_size)  # (scale rows, groups, group)
    # Zero always belongs to the range; then the zero-point is a code, and zero itself is exact.
    low = groups.amin(-1).double().clamp(max=0)
    high = groups.amax(-1).double().clamp(min=0)
    exact = torch.maximum(-low, high) / (2 ** (bits - 1) - 1) if symmetric else (high - low) / (2**bits - 1)
    scales = _round_up(torch.where(exact > 0, exact, 1.0), scale_dtype)  # a group of zeros gets the scale 1
    if symmetric:
        return scales, None
    return scales, torch.round(-low / scales.double()).clamp(0, 2**bits - 1).to(torch.uint8)


def round_to_codes(
    w: torch.Tensor, scales: torch.Tensor, zeros: torch.Tensor | None, bits: int, group_size: GroupSize
) -> torch.Tensor:
    """Nearest codes, uint8 (out, in), for given scales and zero-points (as from `choose_params`)."""
    compute = torch.float64 if w.dtype == torch.float64 else torch.float32
    groups = _in_groups(w.to(compute), group_size)  # (scale rows, groups, group)
    codes = (groups / scales.to(compute)[..., None]).round_()  # in place from here on: a layer may be large
    if zeros is None:
        # Code 0 stays unused: the grid has as many levels below zero as above.
        codes.add_(2 ** (bits - 1)).clamp_(1, 2**bits - 1)
    else:
        codes.add_(zeros.to(compute)[..., None]).clamp_(0, 2**bits - 1)
    return codes.to(torch.uint8).reshape(w.shape[0], -1)[:, : w.shape[1]].contiguous()


def from_codes(
    codes: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor | None,
    bits: int,
    group_size: GroupSize,
    dtype: torch.dtype,
    group_index: torch.Tensor | None = None,
) -> AffineWeight:
    """Pack what a method chose.

    Args:
        codes: uint8 (out, in).
        scales: (out, groups) as from `choose_params`, (1, 1) per tensor.
        zeros: uint8 or floating, in the shape of the scales, or None.
        dtype: of the weights that the codes stand for.
        group_index: int32 (in,), the group of every column, or None for runs of neighboring columns.

    Raises:
        ValueError: shapes that do not fit together, or a group index past the groups.
    """
    columns = codes.shape[1] if group_size in ("channel", "tensor") else int(group_size)
    expected = (1, 1) if group_size == "tensor" else (codes.shape[0], -(-codes.shape[1] // columns))
    if tuple(scales.shape) != expected:
        raise ValueError(f"scales: shape {tuple(scales.shape)}; codes {tuple(codes.shape)} need {expected}")
    if zeros is not None and zeros.shape != scales.shape:
        raise ValueError(f"zeros: shape {tuple(zeros.shape)}; it must be that of the scales, {expected}")
    if group_index is not None and (group_index.shape != codes.shape[1:] or int(group_index.max()) >= expected[1]):
        raise ValueError(
            f"group_index: shape {tuple(group_index.shape)} up to {int(group_index.max())}; "
            f"{codes.shape[1]} columns need one group each, below {expected[1]}"
        )
    if zeros is not None and not zeros.is_floating_point():
        zeros = packing.pack(zeros, bits)
    shape = (codes.shape[0], codes.shape[1])
    return AffineWeight(packing.pack(codes, bits), scales, zeros, bits, group_size, shape, dtype, group_index)


def check_arguments(
    bits: int, group_size: GroupSize, symmetric: bool, scale_dtype: torch.dtype = torch.float16
) -> None:
    """Refuse arguments of `quantize` that make no sense, before any weight is looked at."""
    if type(bits) is not int:
        raise TypeError(f"bits: got {bits!r}; give a whole number from 2 to 8")
    if not 2 <= bits <= 8:
        raise ValueError(f"bits: got {bits}; choose from 2 to 8")
    if isinstance(group_size, str):
        if group_size not in ("channel", "tensor"):
            raise ValueError(f"group_size: got {group_size!r}; give a positive number, 'channel' or 'tensor'")
    elif type(group_size) is not int:
        raise TypeError(f"group_size: got {group_size!r}; give a positive number, 'channel' or 'tensor'")
    elif group_size <= 0:
        raise ValueError(f"group_size: got {group_size}; it must be positive, or 'channel' or 'tensor'")
    if not isinstance(symmetric, bool):
        raise TypeError(f"symmetric: got {symmetric!r}; give True or False")
    if scale_dtype not in SCALE_DTYPES:
        raise ValueError(f"scale_dtype: got {scale_dtype}; choose torch.float16, torch.bfloat16 or torch.float32")


def check_weight(w: torch.Tensor, name: str = "w") -> None:
    """Refuse what is not a finite, floating-point, non-empty matrix. `name` is what the message calls it."""
    if not isinstance(w, torch.Tensor) or w.dtype not in WEIGHT_DTYPES:
        got = w.dtype if isinstance(w, torch.Tensor) else type(w).__name__
        raise TypeError(f"{name}: got {got}; give a tensor of float16, bfloat16, float32 or float64")
    if w.ndim != 2:
        raise ValueError(f"{name}: shape {tuple(w.shape)}; a weight must be (out_features, in_features)")
    if w.numel() == 0:
        raise ValueError(f"{name}: shape {tuple(w.shape)} is empty; there is nothing to quantize")
    low, high = (float(end) for end in torch.aminmax(w.detach()))  # one pass; NaN anywhere makes both NaN
    if not math.isfinite(low) or not math.isfinite(high):
        count = int((~torch.isfinite(w)).sum())
        raise ValueError(f"{name}: {count} of {w.numel()} values are NaN or infinite; repair the weights first")
    if max(-low, high) > torch.finfo(torch.float32).max:
        raise ValueError(f"{name}: holds {max(-low, high):.3g}, past float32, the widest type of a scale; rescale it")


def _zero_points(scales: torch.Tensor, bits: int) -> torch.Tensor:
    """Those of a symmetric grid."""
    return torch.full(scales.shape, 2 ** (bits - 1), dtype=torch.uint8, device=scales.device)


def _values(
    codes: torch.Tensor,
    scales: torch.Tensor,
    zeros: torch.Tensor,
    bits: int,
    group_size: GroupSize,
    dtype: torch.dtype,
    group_index: torch.Tensor | None = None,
) -> torch.Tensor:
    """The weights that codes (out, in) stand for, (out, in)."""
    rows, columns = codes.shape
    compute = torch.float64 if dtype == torch.float64 else torch.float32
    largest = float(scales.max()) * 2**bits
    codes, zeros, scales = codes.to(compute), zeros.to(compute), scales.to(compute)
    if group_index is None:
        values = _in_groups(codes, group_size)  # (scale rows, groups, group)
        zeros, scales = zeros[..., None], scales[..., None]
    else:
        values = codes  # (out, in), and one zero-point and scale for every weight
        zeros, scales = zeros[:, group_index], scales[:, group_index]
    values -= zeros
    values *= scales
    limit = torch.finfo(dtype).max
    if largest > limit:  # rare, and only then worth a pass over the weights
        values.clamp_(-limit, limit)
    return values.reshape(rows, -1)[:, :columns].to(dtype)


def _in_groups(w: torch.Tensor, group_size: GroupSize) -> torch.Tensor:
    """(out, in) as (scale rows, groups, group): what shares a scale lies along the last axis.

    A short last group is filled with zeros, which change neither a maximum nor a minimum that includes zero.
    """
    if group_size == "tensor":
        return w.reshape(1, 1, -1)
    if group_size == "channel":
        return w.unsqueeze(1)
    width = min(int(group_size), w.shape[1])  # a row shorter than a group is one short group
    missing = -w.shape[1] % width
    return (F.pad(w, (0, missing)) if missing else w).reshape(w.shape[0], -1, width)  # pad copies, even by nothing


def _round_up(exact: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Positive float64 scales in `dtype`, never below the exact value; float32 where `dtype` cannot hold them all."""
    limits = torch.finfo(dtype)
    if bool((exact < limits.tiny).any()) or bool((exact > limits.max).any()):
        dtype = torch.float32
    scales = exact.to(dtype)
    # The bit patterns of positive floats are ordered like the floats, so the next pattern is the next float up.
    bits = scales.view({2: torch.int16, 4: torch.int32}[dtype.itemsize])
    return torch.where(scales.double() < exact, bits + 1, bits).view(dtype)
