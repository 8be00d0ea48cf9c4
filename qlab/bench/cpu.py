"""What CPUs have: torch's products of 8- and 4-bit weights, a compiled one, integers, and the plain one in 32 bits."""

from __future__ import annotations

import os
import shutil
from typing import Any

import torch
import torch.nn.functional as F

from qlab.formats import activations, affine
from qlab.formats.activations import Activations
from qlab.methods import w8a8

from .contestant import Contestant, Prepared, dense


def torch_int8(w: torch.Tensor) -> Prepared:
    """`_weight_int8pack_mm`: int8 codes, a scale for each output."""
    packed = affine.quantize(w, 8, "channel", True, torch.bfloat16)
    codes, scales = w8a8.int8_codes(packed), packed.scales[:, 0].to(w.dtype)

    def call(x: torch.Tensor, weight: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return torch.ops.aten._weight_int8pack_mm(x, *weight)

    nbytes = codes.nbytes + scales.nbytes
    return Prepared((codes, scales), nbytes, call, lambda: packed.dequantize(torch.float32), lambda x: "torch")


def torch_int4(w: torch.Tensor) -> Prepared:
    """`_weight_int4pack_mm_for_cpu`: 4-bit codes, a scale and a zero-point for each group of 128."""
    group = min(128, w.shape[1])
    quantized = affine.quantize(w, 4, group, True, torch.bfloat16)
    packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(quantized.codes().int(), 1)
    scales = quantized.scales.to(w.dtype).t()  # (groups, out); the product takes code 8 for zero, as symmetric grids do
    both = torch.stack([scales, torch.zeros_like(scales)], dim=-1).contiguous()  # (groups, out, 2)

    def call(x: torch.Tensor, weight: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return torch.ops.aten._weight_int4pack_mm_for_cpu(x, weight[0], group, weight[1])

    nbytes = packed.nbytes + both.nbytes
    return Prepared((packed, both), nbytes, call, lambda: quantized.dequantize(torch.float32), lambda x: "torch")


def compiled_int8(w: torch.Tensor) -> Prepared:
    """Dequantize and multiply, by `torch.compile`.

    With one token the product is written as multiply and add, which the compiler fuses with the dequantization, so that
    the 16-bit weight never exists. With more it is `F.linear`, and the whole weight is written first.
    """
    packed = affine.quantize(w, 8, "channel", True, torch.float32)
    codes, scales = w8a8.int8_codes(packed), packed.scales

    def fused(x: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        return ((x.float()[:, None, :] * codes.float()).sum(-1) * scales.t()).to(x.dtype)

    def unfused(x: torch.Tensor, codes: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
        return F.linear(x, (codes.float() * scales).to(x.dtype))

    def feed(x: torch.Tensor) -> Any:
        torch.compiler.reset()  # the compiler gives up a function that it had to compile for many sizes
        return x, torch.compile(fused if len(x) == 1 else unfused, dynamic=False)

    def call(fed: Any, weight: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        return fed[1](fed[0], *weight)

    return Prepared(
        weight=(codes, scales),
        nbytes=codes.nbytes + scales.nbytes,
        call=call,
        stands_for=lambda: packed.dequantize(torch.float32),
        path=lambda x: "fused" if len(x) == 1 else "dequantize",
        feed=feed,
    )


def w8a8_torch(w: torch.Tensor) -> Prepared:
    """`methods.w8a8.linear`: inputs quantized in the call, then `torch._int_mm`."""
    weight = w8a8.quantize(w)
    return Prepared(
        weight=weight,
        nbytes=weight.nbytes,
        call=w8a8.linear,
        stands_for=lambda: weight.dequantize(torch.float32),
        path=lambda x: "int8",
        seen=rounded_tokens,
    )


def rounded_tokens(x: torch.Tensor) -> torch.Tensor:
    """x (tokens, in) as a W8A8 product sees it: float32, each token on a grid of 8 bits."""
    codes, scales = activations.quantize(x, Activations())
    return codes.float() * scales


def _no_compiler() -> str | None:
    name = os.environ.get("CXX", "g++")
    return None if shutil.which(name) else f"torch.compile needs a C++ compiler, and there is no {name}"


TABLE = (
    Contestant("dense-fp32", "F.linear in 32 bits", ("cpu",), ("float32",), dense),
    Contestant("torch-int8", "torch's product of int8 weights", ("cpu",), ("bfloat16",), torch_int8),
    Contestant("torch-int4-g128", "torch's product of 4-bit weights", ("cpu",), ("bfloat16",), torch_int4),
    Contestant(
        "compiled-int8",
        "int8 weights, dequantized and multiplied, compiled",
        ("cpu",),
        ("bfloat16",),
        compiled_int8,
        _no_compiler,
    ),
    Contestant(
        "w8a8-torch",
        "int8 weights and inputs, torch._int_mm",
        ("cuda", "cpu"),
        ("float16", "bfloat16"),
        w8a8_torch,
        rate="int8",
    ),
)
