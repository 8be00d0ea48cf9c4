"""Our Triton kernels, and the bare product of integers that cuBLAS offers beside our W8A8."""

from __future__ import annotations

from typing import Any

import torch

from qlab.formats import activations, affine, codebook
from qlab.formats.activations import Activations
from qlab.formats.weight import QuantizedWeight
from qlab.methods import w8a8

from .contestant import Contestant, Prepared, not_installed
from .cpu import rounded_tokens

KERNELS = ("cuda", "cpu-interpreted")
TWO = ("float16", "bfloat16")
_triton = not_installed("triton")


def _weight_only(weight: QuantizedWeight, path: str | None = None) -> Prepared:
    from qlab.kernels import configs, planes, weight_only

    packed = planes.repack(weight)

    def call(x: torch.Tensor, packed: Any) -> torch.Tensor:
        return weight_only.linear(x, packed, path=path)[0]

    return Prepared(
        packed, packed.nbytes, call, lambda: weight.dequantize(torch.float32), lambda x: path or configs.path(len(x))
    )


def int4(w: torch.Tensor) -> Prepared:
    """W4A16, groups of 128, symmetric."""
    return _weight_only(affine.quantize(w, 4, 128))


def int4_by(path: str) -> Contestant:
    """W4A16 that always goes the same way: what the thresholds in `kernels.configs` are chosen by."""
    return Contestant(
        f"qlab-int4-{path}",
        f"our W4A16, always by {path}",
        KERNELS,
        TWO,
        lambda w: _weight_only(affine.quantize(w, 4, 128), path),
        _triton,
        forced=True,
    )


def int4_asymmetric(w: torch.Tensor) -> Prepared:
    """W4A16, groups of 128, with zero-points."""
    return _weight_only(affine.quantize(w, 4, 128, symmetric=False))


def int8(w: torch.Tensor) -> Prepared:
    """W8A16, a scale for each output."""
    return _weight_only(affine.quantize(w, 8, "channel"))


def nf4(w: torch.Tensor) -> Prepared:
    """NF4 in blocks of 64 with float32 scales, as bitsandbytes has it."""
    return _weight_only(codebook.quantize(w, "nf4", 64))


def nf4_double(w: torch.Tensor) -> Prepared:
    """NF4 in blocks of 64 with double quantization."""
    return _weight_only(codebook.quantize(w, "nf4", 64, True))


def w8a8_kernels(w: torch.Tensor) -> Prepared:
    """W8A8: inputs quantized token by token, int8 times int8, both scales on the way out."""
    from qlab.kernels import int8_matmul

    weight = w8a8.quantize(w)
    rows = int8_matmul.Rows(w8a8.int8_codes(weight), weight.scales, Activations())
    return Prepared(
        weight=rows,
        nbytes=rows.codes.nbytes + rows.scales.nbytes,
        call=int8_matmul.linear,
        stands_for=lambda: weight.dequantize(torch.float32),
        path=lambda x: "int8",
        seen=rounded_tokens,
    )


def int_mm(w: torch.Tensor) -> Prepared:
    """`torch._int_mm` alone: codes in, int32 out, no scales; zeros fill up what it does not take (17 rows and more)."""
    codes = w8a8.int8_codes(w8a8.quantize(w))
    return Prepared(
        weight=codes,
        nbytes=codes.nbytes,
        call=w8a8.int8_matmul,
        stands_for=codes.float,
        path=lambda x: "int32 out",
        feed=_codes,
        seen=lambda x: _codes(x).float(),
    )


def _codes(x: torch.Tensor) -> torch.Tensor:
    return activations.quantize(x, Activations())[0]


TABLE = (
    Contestant("qlab-int4-g128", "our W4A16, symmetric", KERNELS, TWO, int4, _triton),
    Contestant("qlab-int4-g128-asym", "our W4A16, with zero-points", KERNELS, TWO, int4_asymmetric, _triton),
    Contestant("qlab-int8", "our W8A16, a scale for each output", KERNELS, TWO, int8, _triton),
    Contestant("qlab-nf4", "our NF4, blocks of 64", KERNELS, TWO, nf4, _triton),
    Contestant("qlab-nf4-double", "our NF4 with double quantization", KERNELS, TWO, nf4_double, _triton),
    Contestant("qlab-w8a8", "our W8A8, inputs quantized in the call", KERNELS, TWO, w8a8_kernels, _triton, rate="int8"),
    *(int4_by(path) for path in ("split-k", "gemm", "dequantize")),
    Contestant("torch-int-mm", "torch._int_mm alone", ("cuda", "cpu"), TWO, int_mm, rate="int8"),
)
