"""The codebook formats: four bits name one of sixteen values, and one scale serves a whole block of weights.

    absmax = max |w| in the block      code = the value nearest to top * w / absmax      w is about value[code] * scale

A block is a run of `block_size` weights of the flattened matrix; `top` is the largest value of the codebook, and the
scale absmax / top. The largest weight of a block comes back as it was (to a rounding of absmax / 6 in e2m1). Three
codebooks (`CODES`):

    nf4   quantiles of the normal distribution: values lie where normally distributed weights lie
          (Dettmers et al. 2023, "QLoRA: Efficient Finetuning of Quantized LLMs", section 3 and appendix E); top = 1
    fp4   bitsandbytes' own 4-bit float: 0 1/192 1/6 1/4 1/3 1/2 2/3 1 and their negatives, codes in no order; top = 1
    e2m1  the 4-bit float of the OCP standard (in MXFP4 and NVFP4): 0 .5 1 1.5 2 3 4 6 and their negatives; top = 6

Take the two floats relative to their largest value, and seven of eight magnitudes agree. The one that differs is the
smallest but zero: 1/192 in fp4, 1/12 in e2m1.

Double quantization (QLoRA, section 3) stores the scales themselves in 8 bits: at a block size of 64 the overhead falls
from 32/64 = 0.5 to 8/64 + 32/(64 * 256) = 0.127 bits a weight.

Codes, scales and values of nf4 and fp4 are those of bitsandbytes 0.50 on an x86-64 CPU, bit for bit. So are its habits:
a tie goes to the lower value, a block below 1e-38 loses precision, a short last block of zeros gets the absmax 1e-38.
Where its values depend on the instruction set, this module gives one answer: a block may cross the end of a row (its
AVX-512 kernel then takes a wrong scale), bfloat16 keeps its subnormal numbers (AVX-512 BF16 drops them) and code 8 of
fp4 is plus zero (plain code makes it minus zero). And a value past its type's range is the largest one, not infinity.
e2m1 rounds ties to the even code, as its standard asks, and never writes minus zero.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from statistics import NormalDist

import torch
import torch.nn.functional as F

from .affine import check_weight

NESTED_BLOCK = 256  # scales that share a scale of their own under double quantization
TINY = 1e-38  # bitsandbytes divides by no absmax below this

# fmt: off
_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)
# fmt: on
CODES = {  # the value of every code, float32 (16,)
    "nf4": torch.tensor(_NF4),
    "fp4": torch.tensor([0, 0.0625, 8, 12, 4, 6, 2, 3, 0, -0.0625, -8, -12, -4, -6, -2, -3]) / 12,
    "e2m1": torch.tensor([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6]),
}


@dataclass(frozen=True)
class CodebookWeight:
    """A quantized weight matrix of shape (out, in), held as 4-bit codes and one scale a block.

    Codes run through the matrix row by row, two in a byte, the first one in the high nibble. An odd number of codes
    ends with the code of zero. The constant tables (`CODES`, `dynamic_map`) are not part of a weight.
    """

    packed: torch.Tensor  # uint8 (ceil(out * in / 2),)
    absmax: torch.Tensor  # (blocks,): float32, or uint8 codes of `dynamic_map` under double quantization
    nested_absmax: torch.Tensor | None  # float32 (ceil(blocks / 256),), None without double quantization
    nested_offset: torch.Tensor | None  # float32 (): the mean of absmax, None without double quantization
    data_type: str  # "nf4", "fp4" or "e2m1"
    block_size: int
    shape: tuple[int, int]
    dtype: torch.dtype  # of the weights that were quantized

    @property
    def double_quant(self) -> bool:
        return self.nested_absmax is not None

    @property
    def label(self) -> str:
        nested = ", double quantization" if self.double_quant else ""
        return f"{self.data_type.upper()}, blocks of {self.block_size}{nested}"

    @property
    def nbytes(self) -> int:
        """Bytes held: codes, scales and, under double quantization, the scales of the scales and their mean."""
        held = (self.packed, self.absmax, self.nested_absmax, self.nested_offset)
        return sum(tensor.nbytes for tensor in held if tensor is not None)

    @property
    def bits_per_weight(self) -> float:
        """Bits held for each weight, scales included."""
        return 8 * self.nbytes / (self.shape[0] * self.shape[1])

    def codes(self) -> torch.Tensor:
        """uint8 (out, in), from 0 to 15."""
        nibbles = torch.stack([self.packed >> 4, self.packed & 15], dim=-1)  # (bytes, 2)
        return nibbles.view(-1)[: self.shape[0] * self.shape[1]].view(self.shape)

    def block_scales(self) -> torch.Tensor:
        """float32 (blocks,): what the values of a block are multiplied by.

        Under double quantization a block much smaller than the others can get a scale that is far off, even negative.
        """
        absmax = self.absmax
        if self.nested_absmax is not None and self.nested_offset is not None:
            largest = self.nested_absmax.repeat_interleave(NESTED_BLOCK)[: len(absmax)]  # (blocks,)
            absmax = dynamic_map().to(absmax.device)[absmax.int()] * largest + self.nested_offset
            absmax = absmax.clamp_(-torch.finfo(torch.float32).max, torch.finfo(torch.float32).max)
        return absmax / _top(self.data_type)

    def dequantize(self, dtype: torch.dtype | None = None) -> torch.Tensor:
        """The weights (out, in), computed in float32 and given in `dtype` (the original one).

        A value past the range of `dtype` gives the largest finite one instead of infinity.
        """
        dtype, scales, count = dtype or self.dtype, self.block_scales(), self.shape[0] * self.shape[1]
        pairs = _pairs(self.data_type).to(self.packed.device)
        values = torch.index_select(pairs, 0, self.packed.int()).view(torch.float32)[:count]
        whole = count - count % self.block_size
        values[:whole].view(-1, self.block_size).mul_(scales[: whole // self.block_size, None])
        values[whole:].mul_(scales[-1])  # a short last block, if there is one
        limit = torch.finfo(dtype).max
        if float(scales.abs().max()) * _top(self.data_type) > limit:  # rare, and only then worth a pass
            values.clamp_(-limit, limit)
        return values.view(self.shape).to(dtype)


def quantize(
    w: torch.Tensor, data_type: str = "nf4", block_size: int = 64, double_quant: bool = False
) -> CodebookWeight:
    """Give every weight the code of the value nearest to it, in units of its block's scale.

    No weight moves by more than half the widest gap of the codebook times the scale of its block; what double
    quantization then does to the scale comes on top. float64 weights are rounded to float32 first.

    Args:
        w: float16, bfloat16, float32 or float64 (out, in).
        data_type: "nf4", "fp4" (that of bitsandbytes) or "e2m1" (that of OCP).
        block_size: weights that share a scale, at least 1. Blocks run through the flattened matrix and may cross the
            ends of rows; the last one may be short.
        double_quant: store the scales in 8 bits.

    Raises:
        TypeError: w is not a tensor of one of these types, or another argument is of the wrong kind.
        ValueError: w is empty, not two-dimensional, or holds NaN or infinity (or float64 values past float32);
            data_type or block_size is not one of those allowed.
    """
    check_arguments(data_type, block_size, double_quant)
    check_weight(w)
    # A piece is small enough to stay in a core's cache through all passes, and just below the 2^15 numbers at which
    # torch splits an operation among threads: forty short operations would wait for each other more than they work.
    # An even number of blocks makes every piece but the last end on a whole byte. An accelerator wants large pieces.
    weights = 2**15 - 1 if w.device.type == "cpu" else 2**24
    pieces = w.detach().reshape(-1).split(max(2, weights // block_size // 2 * 2) * block_size)
    packed, maxima = [], []
    for piece in pieces:
        scaled, piece_absmax = _in_units_of_scale(piece.float(), block_size, _top(data_type))
        packed.append(_pack(_nearest_codes(F.pad(scaled, (0, scaled.numel() % 2)), data_type)))
        maxima.append(piece_absmax)
    absmax = torch.cat(maxima)
    scales, largest, offset = quantize_scales(absmax) if double_quant else (absmax, None, None)
    shape = (w.shape[0], w.shape[1])
    return CodebookWeight(torch.cat(packed), scales, largest, offset, data_type, block_size, shape, w.dtype)


def check_arguments(data_type: str, block_size: int, double_quant: bool) -> None:
    """Refuse arguments of `quantize` that make no sense, before any weight is looked at."""
    if not isinstance(data_type, str):
        raise TypeError(f"data_type: got {data_type!r}; choose from {', '.join(map(repr, CODES))}")
    if data_type not in CODES:
        raise ValueError(f"data_type: got {data_type!r}; choose from {', '.join(map(repr, CODES))}")
    if type(block_size) is not int:
        raise TypeError(f"block_size: got {block_size!r}; give a positive whole number, such as 64")
    if block_size <= 0:
        raise ValueError(f"block_size: got {block_size}; it must be positive, such as 64")
    if not isinstance(double_quant, bool):
        raise TypeError(f"double_quant: got {double_quant!r}; give True or False")


def nf4_from_quantiles() -> torch.Tensor:
    """The NF4 codebook from its definition: float32 (16,), ascending, equal to `CODES["nf4"]`.

    Sixteen equally likely bins of a normal distribution have their outermost centers at the probability 1 - 1/32,
    fifteen at 1 - 1/30. NF4 starts from the mean of the two, 0.9677083, and goes to the median in equal steps of
    probability: in eight steps on the positive side, in seven on the negative one. The quantiles there, divided by the
    largest, are 8 positive and 7 negative values. Zero is the sixteenth, so that it is exact. A symmetric choice of
    sixteen values would have no zero, and one with a zero would use only fifteen.

    The seven digits and the single precision of the probabilities matter: in double precision the values differ from
    the published ones by up to 2e-7.
    """
    start = 0.9677083
    positive = torch.linspace(start, 0.5, 9)[:-1].tolist()  # the median itself is left out: it gives zero, added below
    negative = torch.linspace(start, 0.5, 8)[:-1].tolist()
    quantile = NormalDist().inv_cdf
    values = torch.tensor([*(-quantile(p) for p in negative), 0.0, *(quantile(p) for p in positive)]).sort().values
    return values / values.max()


@cache
def dynamic_map() -> torch.Tensor:
    """The signed dynamic 8-bit codebook: float32 (256,), ascending, from -0.993 to 1.

    (Dettmers et al. 2022, "8-bit Optimizers via Block-wise Quantization".) A sign, then zeros that count
    powers of ten, a one that ends them, and a linear fraction in the bits that are left. Few zeros leave many fraction
    bits: there are 2^e fractions, the centers of equal parts of 0.1 to 1, at the magnitude 10^(e-6), for e = 0 to 6.
    That makes 254 values; 0 and 1 complete them.
    """
    values = [torch.zeros(1), torch.ones(1)]
    for exponent in range(7):
        edges = torch.linspace(0.1, 1, 2**exponent + 1)
        centers = (edges[:-1] + edges[1:]) / 2 * 10.0 ** (exponent - 6)
        values += [centers, -centers]
    return torch.cat(values).sort().values


def quantize_scales(absmax: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Double quantization: float32 (blocks,) as uint8 (blocks,), float32 (ceil(blocks / 256),) and float32 ().

    Scales are positive, so their mean comes off first; then the signed codebook serves both sides.

    A code is found as bitsandbytes' CPU library finds it: a value is first rounded to one of 65536 points between -1
    and 1, zero not among them, then to the nearest entry of `dynamic_map`. Its seven entries below 1e-5 in magnitude,
    zero included, are therefore never used.
    """
    offset = absmax.mean()
    if torch.isinf(offset):  # the sum, not the mean, is past float32
        offset = absmax.double().mean().float()
    blocks = F.pad(absmax - offset, (0, -len(absmax) % NESTED_BLOCK)).view(-1, NESTED_BLOCK)
    largest = blocks.abs().amax(-1)  # (ceil(blocks / 256),)
    # Where the largest is 0, each value is 0 * inf; bitsandbytes gives it the lowest code, which stands for 0 there.
    ratios = (blocks * largest.reciprocal()[:, None]).nan_to_num(nan=-1.0).clamp(-1, 1)
    points = ((ratios + 1) * 0.5 * 65535 + 0.5).floor()
    table = dynamic_map().to(absmax.device)
    codes = torch.bucketize(-1 + 2 * points / 65535, (table[:-1] + table[1:]) / 2, out_int32=True)
    return codes.to(torch.uint8).view(-1)[: len(absmax)].clone(), largest, offset


def _in_units_of_scale(piece: torch.Tensor, block_size: int, top: float) -> tuple[torch.Tensor, torch.Tensor]:
    """float32 (n,) divided by the scale of its block, and absmax float32 (ceil(n / block_size),)."""
    whole = piece.numel() - piece.numel() % block_size
    blocks = piece[:whole].view(-1, block_size)
    absmax = blocks.abs().amax(-1)
    scaled = (blocks * (absmax.clamp(min=top * TINY).reciprocal() * top)[:, None]).view(-1)
    if whole == piece.numel():
        return scaled, absmax
    rest = piece[whole:]
    largest = rest.abs().amax(0, keepdim=True).clamp(min=TINY)
    return torch.cat([scaled, rest / largest * top]), torch.cat([absmax, largest])


def _nearest_codes(scaled: torch.Tensor, data_type: str) -> torch.Tensor:
    """uint8 codes, like `scaled`: the code of the lowest value, plus one step for every bound that lies below.

    Fifteen comparisons in cache take less time than a binary search for every weight, because all of them are vector
    instructions, as long as their results stay float32.
    """
    first, steps = _steps(data_type)
    above, codes = torch.empty_like(scaled), torch.full_like(scaled, first)
    for bound, step in steps:
        codes.add_(torch.gt(scaled, bound, out=above), alpha=step)
    return codes.to(torch.uint8)


@cache
def _steps(data_type: str) -> tuple[int, list[tuple[float, int]]]:
    """The code of the lowest value, and for every next value (bound, step): past the bound, codes rise by the step."""
    values = CODES[data_type]
    order = values.argsort(stable=True).tolist()  # codes by value; fp4 has two zeros: 0, then 8 for small positives
    if data_type == "e2m1":
        order.remove(8)  # minus zero
    steps = []
    for lower, upper in pairwise(order):
        bound = (values[lower] + values[upper]) / 2
        if data_type == "e2m1" and upper % 2 == 0:  # a tie goes up, so the bound itself must lie above
            bound = torch.nextafter(bound, torch.tensor(-torch.inf))
        steps.append((float(bound), upper - lower))
    return order[0], steps


def _pack(codes: torch.Tensor) -> torch.Tensor:
    """uint8 (n,) below 16, n even, as uint8 (n / 2,), the first of two in the high nibble."""
    nibbles = codes.view(-1, 2)
    return torch.add(nibbles[:, 1], nibbles[:, 0], alpha=16)


@cache
def _pairs(data_type: str) -> torch.Tensor:
    """The two float32 values of every byte, seen as one 64-bit number, (256,): half as many look-ups."""
    values, byte = CODES[data_type], torch.arange(256)
    return torch.stack([values[byte >> 4], values[byte & 15]], dim=-1).view(torch.float64).view(-1)


def _top(data_type: str) -> float:
    return float(CODES[data_type].max())
