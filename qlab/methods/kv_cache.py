"""A quantized KV cache (KIVI: Liu et al. 2024, arXiv 2402.02750, section 3).

What attention remembers of each token, one key and one value per head, is rounded to a few bits in groups:

    low = min(group),   scale = (max(group) - low) / (2^b - 1),   x is about low + code * scale

A group is either `group_size` neighboring tokens of one channel ("channel": a few channels of the keys are large at
every token, and this way each spoils only its own scale) or `group_size` neighboring channels of one token ("token":
for values, which have no such channels). KIVI's choice is keys per channel and values per token.

The newest `residual` tokens stay as they came. A group is quantized, once and for good, when all of its tokens lie
behind that window; per channel the window therefore grows by up to group_size - 1 tokens. So what is held depends on
how many tokens came, not on the calls in which they came. (KIVI moves keys in blocks of its whole window instead.)

Scales and minima are held in the type of the cache where that has 16 bits, else in float16. The minimum is rounded
down to that type and the scale up, so that every value lies on the grid and moves by at most half a step.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from qlab.formats import packing
from qlab.formats.affine import SCALE_DTYPES, WEIGHT_DTYPES

GRANULARITIES = ("channel", "token")
AS_THEY_CAME = 16  # this many "bits" stand for no quantization at all


@dataclass(frozen=True)
class QuantizedGroups:
    """Groups of numbers, each with a minimum and a scale of its own. The leading axes are free."""

    packed: torch.Tensor  # uint8 (..., ceil(group_size * bits / 8))
    scales: torch.Tensor  # (...), a floating type; 0 where all numbers of a group are the same
    minima: torch.Tensor  # (...), like the scales
    bits: int
    group_size: int

    @property
    def nbytes(self) -> int:
        return self.packed.nbytes + self.scales.nbytes + self.minima.nbytes

    def codes(self) -> torch.Tensor:
        """uint8 (..., group_size), from 0 to 2^bits - 1."""
        codes = packing.unpack(self.packed.flatten(0, -2), self.bits, self.group_size)
        return codes.view(*self.scales.shape, self.group_size)

    def dequantize(self) -> torch.Tensor:
        """float32 (..., group_size)."""
        return self.codes().float().mul_(self.scales.float()[..., None]).add_(self.minima.float()[..., None])

    def map(self, change: Callable[[torch.Tensor], torch.Tensor]) -> QuantizedGroups:
        """The same change along the leading axes of all that is held."""
        return replace(self, packed=change(self.packed), scales=change(self.scales), minima=change(self.minima))


def quantize(groups: torch.Tensor, bits: int, scale_dtype: torch.dtype) -> QuantizedGroups:
    """Round every number of (..., group) to the nearest of the 2^bits values from its group's minimum to its maximum.

    The numbers must be finite and at most half of the largest `scale_dtype`.
    """
    levels = 2**bits - 1
    low = _round_down(groups.amin(-1).double(), scale_dtype)  # (...)
    # A scale of zero is no mistake: the minimum alone gives a group of equal numbers back.
    scale = -_round_down((low.double() - groups.amax(-1).double()) / levels, scale_dtype)
    compute = torch.promote_types(groups.dtype, torch.float32)
    step = torch.where(scale == 0, 1, scale).to(compute)[..., None]
    codes = ((groups.to(compute) - low.to(compute)[..., None]) / step).round_().clamp_(0, levels).to(torch.uint8)
    packed = packing.pack(codes.flatten(0, -2), bits).view(*low.shape, -1)
    return QuantizedGroups(packed, scale, low, bits, groups.shape[-1])


class QuantizedStore:
    """The keys, or the values, of one layer.

    Args:
        bits: 2 to 8, or 16 to keep all tokens as they came.
        granularity: "channel" or "token", what a scale belongs to.
        group_size: numbers that share a scale; per token it must divide head_dim.
        residual: the newest tokens that are not quantized, 0 or more.
        scale_dtype: float16, bfloat16 or float32; None takes the type of what comes, or float16 if that is wider.

    Raises:
        TypeError, ValueError: an argument that is not one of those allowed.
    """

    def __init__(
        self,
        bits: int = 4,
        granularity: str = "channel",
        group_size: int = 32,
        residual: int = 32,
        scale_dtype: torch.dtype | None = None,
    ) -> None:
        check_options(bits, granularity, group_size, residual, scale_dtype)
        self.bits, self.granularity, self.group_size, self.residual = bits, granularity, group_size, residual
        self.scale_dtype = scale_dtype
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        # (batch, heads, blocks, series): a block is the fewest tokens that can be quantized together, group_size of
        # them per channel and 1 per token; a series is a group in it, one per channel or one per run of channels.
        self.groups: QuantizedGroups | None = None
        self.window: torch.Tensor | None = None  # (batch, heads, tokens, head_dim), as they came

    @property
    def block(self) -> int:
        """Tokens that are quantized together."""
        return self.group_size if self.granularity == "channel" else 1

    @property
    def quantized_tokens(self) -> int:
        return 0 if self.groups is None else self.groups.scales.shape[2] * self.block

    @property
    def tokens(self) -> int:
        return self.quantized_tokens + (0 if self.window is None else self.window.shape[2])

    @property
    def nbytes(self) -> int:
        """Bytes held: codes, scales, minima and the window."""
        return sum(part.nbytes for part in (self.groups, self.window) if part is not None)

    def append(self, x: torch.Tensor) -> None:
        """Take new tokens, and quantize what now lies behind the window.

        Args:
            x: float16, bfloat16, float32 or float64 (batch, heads, tokens, head_dim).

        Raises:
            TypeError, ValueError: x is of another kind or shape than what is held, or of a head_dim that groups of
                channels do not divide; it holds NaN, infinity or more than half of the largest `scale_dtype`.
        """
        scale_dtype = self._check(x)
        x = x.detach()
        window = torch.cat([x] if self.window is None else [self.window, x], dim=2)  # own memory, in either case
        behind = 0 if self.bits == AS_THEY_CAME else max(0, window.shape[2] - self.residual) // self.block * self.block
        if behind:
            new = quantize(self._in_groups(window[:, :, :behind]), self.bits, scale_dtype)
            self.groups = new if self.groups is None else _join(self.groups, new)
            window = window[:, :, behind:].clone()  # a view would hold the bytes of what was quantized
        self.window = window

    def read(self) -> torch.Tensor:
        """All tokens (batch, heads, tokens, head_dim) in the type in which they came: dequantized, then the window.

        Raises:
            ValueError: nothing was appended yet.
        """
        if self.window is None:
            raise ValueError("store: holds 0 tokens, and so no shape or type; append some first")
        if self.groups is None:
            return self.window.clone()
        values = self.groups.dequantize().to(self.window.dtype)  # (batch, heads, blocks, series, group_size)
        values = values.transpose(-1, -2).flatten(2, 3) if self.granularity == "channel" else values.flatten(3, 4)
        return torch.cat([values, self.window], dim=2)

    def crop(self, tokens: int) -> None:
        """Keep the oldest `tokens`. A group that is cut through goes back to the window, with its rounded numbers.

        Raises:
            ValueError: `tokens` is negative.
        """
        if tokens < 0:
            raise ValueError(f"tokens: got {tokens}; give how many to keep, 0 or more")
        if self.window is None or tokens >= self.tokens:
            return
        if self.groups is None or tokens >= self.quantized_tokens:
            self.window = self.window[:, :, : tokens - self.quantized_tokens].clone()
            return
        blocks = tokens // self.block
        self.window = self.read()[:, :, blocks * self.block : tokens].clone()
        self.groups = self.groups.map(lambda held: held[:, :, :blocks].clone()) if blocks else None

    def select(self, sequences: torch.Tensor) -> None:
        """Keep these sequences of the batch, in this order; one may occur several times (beam search)."""
        if self.window is None:
            return
        sequences = sequences.to(self.window.device)
        self.window = self.window[sequences]
        self.groups = None if self.groups is None else self.groups.map(lambda held: held[sequences])

    def _in_groups(self, x: torch.Tensor) -> torch.Tensor:
        """(batch, heads, tokens, head_dim) as (batch, heads, blocks, series, group_size)."""
        if self.granularity == "channel":
            return x.unflatten(2, (-1, self.group_size)).transpose(-1, -2)
        return x.unflatten(3, (-1, self.group_size))

    def _check(self, x: torch.Tensor) -> torch.dtype:
        """Refuse what does not fit, before anything is changed. The type of the scales."""
        if not isinstance(x, torch.Tensor) or x.dtype not in WEIGHT_DTYPES:
            got = x.dtype if isinstance(x, torch.Tensor) else type(x).__name__
            raise TypeError(f"x: got {got}; give a tensor of float16, bfloat16, float32 or float64")
        if x.ndim != 4:
            raise ValueError(f"x: shape {tuple(x.shape)}; it must be (batch, heads, tokens, head_dim)")
        if self.granularity == "token" and self.bits != AS_THEY_CAME:
            check_head_dim(x.shape[3], self.group_size)
        if (held := self.window) is not None:
            if (*x.shape[:2], x.shape[3]) != (*held.shape[:2], held.shape[3]):
                need = f"({held.shape[0]}, {held.shape[1]}, tokens, {held.shape[3]})"
                raise ValueError(f"x: shape {tuple(x.shape)}; what is held needs {need}; reset() for another batch")
            if (x.dtype, x.device) != (held.dtype, held.device):
                raise ValueError(
                    f"x: {x.dtype} on {x.device}; what is held is {held.dtype} on {held.device}; convert x"
                )
        scale_dtype = self.scale_dtype or (x.dtype if x.dtype.itemsize == 2 else torch.float16)
        if self.bits == AS_THEY_CAME or x.numel() == 0:
            return scale_dtype
        largest, limit = float(x.abs().max()), torch.finfo(scale_dtype).max / 2
        if not math.isfinite(largest):
            count = int((~torch.isfinite(x)).sum())
            raise ValueError(f"x: {count} of {x.numel()} values are NaN or infinite; they have no place on a grid")
        if largest > limit:
            raise ValueError(
                f"x: reaches {largest:.3g}; minima in {scale_dtype} hold up to {limit:.3g}; "
                "give scale_dtype=torch.float32, or rescale x"
            )
        return scale_dtype


def bytes_per_token(
    head_dim: int, bits: int = 4, group_size: int = 32, scale_bytes: int = 2, element_bytes: int = 2
) -> float:
    """Bytes for the keys (or values) of one token in one head, its share of scales and minima included.

    It is the same per channel and per token: either way, group_size numbers share two of `scale_bytes`. Tokens in the
    window, and all of them with bits=16, take head_dim * element_bytes.
    """
    if bits == AS_THEY_CAME:
        return float(head_dim * element_bytes)
    return head_dim / group_size * (packing.packed_bytes(group_size, bits) + 2 * scale_bytes)


def check_options(
    bits: int,
    granularity: str,
    group_size: int,
    residual: int,
    scale_dtype: torch.dtype | None,
    bits_name: str = "bits",
    granularity_name: str = "granularity",
) -> None:
    """Refuse arguments of `QuantizedStore` that make no sense. The names are what the caller calls two of them."""
    for name, value in ((bits_name, bits), ("group_size", group_size), ("residual", residual)):
        if type(value) is not int:
            raise TypeError(f"{name}: got {value!r}; give a whole number")
    if not 2 <= bits <= 8 and bits != AS_THEY_CAME:
        raise ValueError(f"{bits_name}: got {bits}; allowed is 2 to 8, or 16 to keep the tokens as they come")
    if granularity not in GRANULARITIES:
        raise ValueError(f"{granularity_name}: got {granularity!r}; choose 'channel' or 'token'")
    if group_size < 1:
        raise ValueError(f"group_size: got {group_size}; allowed is 1 or more, 32 is usual")
    if residual < 0:
        raise ValueError(f"residual: got {residual}; allowed is 0 or more, 32 is usual")
    if scale_dtype not in (None, *SCALE_DTYPES):
        raise ValueError(f"scale_dtype: got {scale_dtype}; choose torch.float16, torch.bfloat16, torch.float32 or None")


def check_head_dim(head_dim: int, group_size: int) -> None:
    """Refuse groups of channels that do not divide a head."""
    if head_dim % group_size:
        fits = ", ".join(str(n) for n in range(1, head_dim + 1) if head_dim % n == 0)
        raise ValueError(f"group_size: got {group_size}; per token it must divide head_dim {head_dim}: choose {fits}")


def _round_down(exact: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """float64 in `dtype`, never above the exact value."""
    rounded = exact.to(dtype)
    # Read as integers, the floats of one sign are ordered by size: one step down is -1 above zero and +1 below.
    bits = rounded.view({2: torch.int16, 4: torch.int32}[dtype.itemsize])
    return torch.where(rounded.double() > exact, bits + torch.where(bits < 0, 1, -1), bits).to(bits.dtype).view(dtype)


def _join(a: QuantizedGroups, b: QuantizedGroups) -> QuantizedGroups:
    """Blocks of b after those of a."""
    pairs = ((a.packed, b.packed), (a.scales, b.scales), (a.minima, b.minima))
    packed, scales, minima = (torch.cat(pair, dim=2) for pair in pairs)
    return replace(a, packed=packed, scales=scales, minima=minima)
