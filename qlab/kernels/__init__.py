"""How to compute with quantized weights fast: Triton kernels, each beside its torch reference.

    planes          the layout that the kernels read, made once from a weight
    dequantize      packed weights to floating-point ones
    weight_only     y = x @ W.T + bias with W in 4 or 8 bits and x in 16: GEMV, split-K and GEMM
    int8_matmul     W8A8: int8 times int8, with both scales and the bias applied to the int32 sums
    quantize_tokens int8 codes and scales of activations, token by token
    configs         which path and which tiles, as plain functions

Where there is no CUDA, the kernels run in Triton's interpreter: slow, and with the same results.
"""

from __future__ import annotations

import os

import torch

from .interpreter import switch_on

# Whoever sets the variable decides: 1 interprets beside a GPU, 0 compiles without one.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "0" if torch.cuda.is_available() else "1") == "1"
if INTERPRETED:
    switch_on()

try:
    import triton as _triton  # noqa: F401
except ImportError as error:
    raise ImportError(
        "qlab.kernels needs triton, which has no wheels for this system (Linux has); "
        "QuantLinear computes without it, more slowly"
    ) from error
