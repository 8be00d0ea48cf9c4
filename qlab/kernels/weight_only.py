"""y = x @ W.T + bias with the weight in 4 or 8 bits and x in 16: the weight is unpacked in registers, where it is used.

With few tokens the time goes with the bytes of the weight, and a packed one has a quarter or half of them. Then every
instruction that unpacks a number competes with the memory, so a scale is applied to sums and not to weights wherever
one group fills a whole tile.

    gemv      one token: multiply and add, no tensor cores
    matmul    tensor cores, 16 inputs at a time; with few tokens the inputs are split among programs, whose partial
              sums a second kernel adds in a fixed order: the same bits in every run, and no atomic additions

Sources: the split of inputs is that of Hoque et al. 2024 ("Accelerating a Triton Fused Kernel for W4A16 Quantized
Inference with SplitK Work Decomposition"), the three regimes those of gemlite.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
import triton
import triton.language as tl

from qlab.formats.weight import QuantizedWeight

from . import INTERPRETED, configs, dequantize
from .planes import MAGIC, Planes, left_of, parameters_of, values_of

DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def reference(x: torch.Tensor, weight: QuantizedWeight, bias: torch.Tensor | None = None) -> torch.Tensor:
    """The same in torch: dequantize the whole weight, then multiply."""
    return F.linear(x, weight.dequantize(x.dtype), bias)


def linear(
    x: torch.Tensor, weight: Planes, bias: torch.Tensor | None = None, path: str | None = None
) -> tuple[torch.Tensor, str]:
    """The product, and the path that computed it.

    Args:
        x: float16, bfloat16 or float32 (..., in), with any strides; any number of tokens, 0 among them.
        weight: as from `planes.repack`, on the device of x.
        bias: (out,) or None.
        path: "gemv" (one token only), "split-k", "gemm" or "dequantize"; None: by the number of tokens.

    Returns:
        y (..., out) in the type of x, and the path; "empty" where there is no token.

    Raises:
        TypeError, ValueError: x, bias or path do not fit.
    """
    out, columns = weight.shape
    if x.dtype not in DTYPES:
        raise TypeError(f"x: got {x.dtype}; give float16, bfloat16 or float32")
    if x.ndim == 0 or x.shape[-1] != columns:
        raise ValueError(f"x: shape {tuple(x.shape)}; a weight of shape {weight.shape} takes (..., {columns})")
    if bias is not None and tuple(bias.shape) != (out,):
        raise ValueError(f"bias: shape {tuple(bias.shape)}; a weight of shape {weight.shape} takes ({out},)")
    rows = x if x.ndim == 2 else x.reshape(-1, columns)  # (tokens, in)
    path = path or configs.path(len(rows))
    if path not in _PATHS or (path == "gemv" and len(rows) > 1):
        raise ValueError(f"path: got {path!r} for {len(rows)} tokens; choose from {', '.join(map(repr, _PATHS))}")
    if len(rows) == 0:
        return x.new_empty(*x.shape[:-1], out), "empty"
    if weight.order is not None:
        rows = rows[:, weight.order]
    # The interpreter multiplies bfloat16 wrongly and cuts it off where a GPU rounds: there it computes in float32.
    compute = torch.float32 if INTERPRETED and x.dtype == torch.bfloat16 else x.dtype
    y = _PATHS[path](rows.to(compute), weight, None if bias is None else bias.contiguous())
    return y.to(x.dtype).view(*x.shape[:-1], out), path


def _by_gemv(x: torch.Tensor, weight: Planes, bias: torch.Tensor | None) -> torch.Tensor:
    config = configs.gemv(weight.shape[0], weight.tiles, configs.processors(x.device))
    return _launch(_gemv, x, weight, bias, config)


def _by_matmul(x: torch.Tensor, weight: Planes, bias: torch.Tensor | None, split: bool) -> torch.Tensor:
    config = configs.matmul(len(x), weight.shape[0], weight.tiles, configs.processors(x.device), split)
    return _launch(_matmul, x, weight, bias, config)


def _by_cublas(x: torch.Tensor, weight: Planes, bias: torch.Tensor | None) -> torch.Tensor:
    y = x @ dequantize.transposed(weight, x.dtype)
    return y if bias is None else y + bias.to(y.dtype)


_PATHS: dict[str, Callable[..., torch.Tensor]] = {
    "gemv": _by_gemv,
    "split-k": partial(_by_matmul, split=True),
    "gemm": partial(_by_matmul, split=False),
    "dequantize": _by_cublas,
}


def _launch(
    kernel: triton.JITFunction, x: torch.Tensor, weight: Planes, bias: torch.Tensor | None, config: configs.Tiles
) -> torch.Tensor:
    tokens, out = len(x), weight.shape[0]
    y = x.new_empty(tokens, out)
    sums = y if config.splits == 1 else x.new_empty(config.splits, tokens, out, dtype=torch.float32)
    steps = triton.cdiv(triton.cdiv(weight.tiles, config.tiles), config.splits)
    even = weight.shape[1] == weight.tile * config.tiles * steps * config.splits
    maps, nested, offset = weight.nested or (None, None, None)
    grid = (triton.cdiv(tokens, config.tokens), triton.cdiv(out, config.outputs), config.splits)
    kernel[grid](
        x, weight.words, weight.scales, weight.zeros, weight.codebook, maps, nested, offset,
        bias if config.splits == 1 else None, sums, MAGIC, tokens, out,
        x.stride(0), x.stride(1), weight.words.stride(0), weight.scales.stride(0), sums.stride(-2),
        weight.shape[1], weight.tiles, weight.scales.shape[0], weight.group_size, weight.bits, weight.real_zeros,
        even, steps, config.tokens, config.outputs, config.tiles,
        num_warps=config.warps, num_stages=config.stages,
    )  # fmt: skip
    if config.splits > 1:
        _add[(triton.cdiv(tokens * out, 1024),)](sums, bias, y, tokens * out, out, config.splits, 1024)
    return y


@triton.jit
def _gemv(  # type: ignore[no-untyped-def]
    x, words, scales, zeros, codebook, maps, nested, offset, bias, y, magic, tokens, out,
    stride_x, step_x, stride_words, stride_scales, stride_y,
    COLUMNS: tl.constexpr, TILES: tl.constexpr, GROUPS: tl.constexpr, GROUP: tl.constexpr, BITS: tl.constexpr,
    REAL: tl.constexpr, EVEN: tl.constexpr, STEPS: tl.constexpr,
    TOKENS: tl.constexpr, OUTPUTS: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    """One token. Program (0, j, split) sums over STEPS * TOGETHER tiles, for OUTPUTS outputs.

    EVEN says that programs and tiles cover the inputs exactly: then no load along them needs a mask.
    """
    PLANES: tl.constexpr = 32 // BITS
    TILE: tl.constexpr = 16 * PLANES
    split = tl.program_id(2)
    column = tl.program_id(1).to(tl.int64) * OUTPUTS + tl.arange(0, OUTPUTS)
    n, r = column[None, None, :], tl.arange(0, 16)[None, :, None]  # all below is (TOGETHER, 16, OUTPUTS)
    acc = tl.zeros((TOGETHER, 16, OUTPUTS), tl.float32)
    for step in range(STEPS):
        t = ((split * STEPS + step) * TOGETHER + tl.arange(0, TOGETHER))[:, None, None]
        inside = (n < out) & ((t < TILES) | EVEN)
        packed = tl.load(words + (t * 16 + r).to(tl.int64) * stride_words + n, mask=inside, other=0)
        if GROUP % TILE == 0:  # one scale for all planes: it is applied to their sum
            scale, zero = parameters_of(
                scales, zeros, maps, nested, offset, t * TILE // GROUP, n, inside, stride_scales, GROUPS, BITS
            )
            part = tl.zeros((TOGETHER, 16, OUTPUTS), tl.float32)
            for i in tl.static_range(PLANES):
                k = t * TILE + 16 * i + r
                a = tl.load(x + k.to(tl.int64) * step_x, mask=(k < COLUMNS) | EVEN, other=0).to(tl.float32)
                a /= 1 << left_of(i, codebook, BITS)
                part += a * values_of(packed, i, zero, codebook, magic, BITS, REAL, left_of(i, codebook, BITS))
            acc += part * scale
        else:
            for i in tl.static_range(PLANES):
                k = t * TILE + 16 * i + r
                a = tl.load(x + k.to(tl.int64) * step_x, mask=(k < COLUMNS) | EVEN, other=0).to(tl.float32)
                a /= 1 << left_of(i, codebook, BITS)
                group = tl.minimum((t * TILE + 16 * i) // GROUP, GROUPS - 1)  # the last tile may reach past the last
                scale, zero = parameters_of(
                    scales, zeros, maps, nested, offset, group, n, inside, stride_scales, GROUPS, BITS
                )
                acc += a * values_of(packed, i, zero, codebook, magic, BITS, REAL, left_of(i, codebook, BITS)) * scale
    total = tl.sum(tl.sum(acc, 0), 0)
    if bias is not None:
        total += tl.load(bias + column, mask=column < out, other=0).to(tl.float32)
    tl.store(y + split.to(tl.int64) * stride_y + column, total, mask=column < out)


@triton.jit
def _matmul(  # type: ignore[no-untyped-def]
    x, words, scales, zeros, codebook, maps, nested, offset, bias, y, magic, tokens, out,
    stride_x, step_x, stride_words, stride_scales, stride_y,
    COLUMNS: tl.constexpr, TILES: tl.constexpr, GROUPS: tl.constexpr, GROUP: tl.constexpr, BITS: tl.constexpr,
    REAL: tl.constexpr, EVEN: tl.constexpr, STEPS: tl.constexpr,
    TOKENS: tl.constexpr, OUTPUTS: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    """Program (i, j, split) sums over STEPS tiles, for TOKENS tokens and OUTPUTS outputs."""
    PLANES: tl.constexpr = 32 // BITS
    TILE: tl.constexpr = 16 * PLANES
    split = tl.program_id(2)
    m = tl.program_id(0).to(tl.int64) * TOKENS + tl.arange(0, TOKENS)[:, None]  # (TOKENS, 1)
    n = tl.program_id(1).to(tl.int64) * OUTPUTS + tl.arange(0, OUTPUTS)[None, :]  # (1, OUTPUTS)
    r = tl.arange(0, 16)
    acc = tl.zeros((TOKENS, OUTPUTS), tl.float32)
    for step in range(STEPS):
        t = split * STEPS + step
        inside = (n < out) & ((t < TILES) | EVEN)
        packed = tl.load(words + (t * 16 + r[:, None]).to(tl.int64) * stride_words + n, mask=inside, other=0)
        part = tl.zeros((TOKENS, OUTPUTS), tl.float32)
        for i in tl.static_range(PLANES):
            k = t * TILE + 16 * i + r[None, :]
            a = tl.load(x + m * stride_x + k.to(tl.int64) * step_x, mask=(m < tokens) & ((k < COLUMNS) | EVEN), other=0)
            if GROUP % TILE == 0:  # one scale for all planes: it is applied to their sum
                if i == 0:
                    scale, zero = parameters_of(
                        scales, zeros, maps, nested, offset, t * TILE // GROUP, n, inside, stride_scales, GROUPS, BITS
                    )
                b = values_of(packed, i, zero, codebook, magic, BITS, REAL)
            else:
                group = tl.minimum((t * TILE + 16 * i) // GROUP, GROUPS - 1)  # the last tile may reach past the last
                scale, zero = parameters_of(
                    scales, zeros, maps, nested, offset, group, n, inside, stride_scales, GROUPS, BITS
                )
                b = values_of(packed, i, zero, codebook, magic, BITS, REAL) * scale
            part = tl.dot(a, b.to(a.dtype), part, input_precision="ieee")
        acc += part * scale if GROUP % TILE == 0 else part
    if bias is not None:
        acc += tl.load(bias + n, mask=n < out, other=0).to(tl.float32)
    tl.store(y + (split.to(tl.int64) * tokens + m) * stride_y + n, acc, mask=(m < tokens) & (n < out))


@triton.jit
def _add(sums, bias, y, count, out, SPLITS: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """The sums of all splits, in their order, and the bias."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float32)
    for _ in tl.static_range(SPLITS):
        total += tl.load(sums + at, mask=at < count, other=0)
        sums += count  # pointers have 64 bits, split * count may have 32
    if bias is not None:
        total += tl.load(bias + at % out, mask=at < count, other=0).to(tl.float32)
    tl.store(y + at, total, mask=at < count)
