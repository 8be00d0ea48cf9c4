"""Packed weights to floating-point ones: the numbers of the formats' own `dequantize`, bit for bit."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch

from qlab.formats.weight import QuantizedWeight
from qlab.kernels import dequantize, planes

pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")  # NumPy's, of the interpreter

KINDS = (
    *("int4-16", "int4-32a", "int4-48a", "int4-128", "int4-c", "int4-ta", "gptq-32", "hqq-4"),
    *("int8-32", "int8-64a", "int8-c", "int8-t", "hqq-8"),
    *("nf4", "nf4-double", "fp4", "fp4-double", "e2m1", "e2m1-double"),
)


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *((kind, torch.float16) for kind in KINDS),
        *product(("int4-128", "int8-64a", "nf4-double"), (torch.bfloat16, torch.float32)),
    ],
)
def test_every_format(
    same: Callable[[torch.Tensor, torch.Tensor], None],
    kind: str,
    dtype: torch.dtype,
    quantized: Callable[..., QuantizedWeight],
    surrounded: Callable[[Any], Any],
    device: torch.device,
) -> None:
    weight = quantized(kind, 100, 192, device)  # 300 blocks: more than share a nested scale
    prepared = surrounded(planes.repack(weight))
    dense = dequantize.dequantize(prepared, dtype)
    same(dense, dequantize.reference(weight, dtype))  # their types, too
    turned = dequantize.transposed(prepared, dtype)
    order = slice(None) if prepared.order is None else prepared.order
    assert turned.is_contiguous() and torch.equal(turned, dense[:, order].t())


@pytest.mark.parametrize(
    ("out", "columns"),
    [
        *((1, 1), (1, 17), (16, 16), (127, 127), (128, 128), (129, 129), (200, 300), (3, 641)),
        pytest.param(8192, 8192, marks=pytest.mark.gpu),
        pytest.param(4096, 14336, marks=pytest.mark.gpu),
    ],
)
@pytest.mark.parametrize("kind", ["int4-128a", "int8-16"])
def test_every_shape(
    same: Callable[[torch.Tensor, torch.Tensor], None],
    kind: str,
    out: int,
    columns: int,
    quantized: Callable[..., QuantizedWeight],
    surrounded: Callable[[Any], Any],
    device: torch.device,
) -> None:
    weight = quantized(kind, out, columns, device)
    dense = dequantize.dequantize(surrounded(planes.repack(weight)), torch.float16)
    same(dense, weight.dequantize(torch.float16))


def test_past_the_range_of_the_type_a_value_is_infinite(
    quantized: Callable[..., QuantizedWeight], device: torch.device
) -> None:
    prepared = planes.repack(quantized("int4-128", 16, 128, device))
    prepared = dataclasses.replace(prepared, scales=torch.full_like(prepared.scales, 60000.0))
    dense, codes = dequantize.dequantize(prepared, torch.float16), prepared.codes()
    assert torch.equal(dense.isinf(), codes.int().sub(8).abs() > 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_result_past_2_31_elements(
    dtype: torch.dtype, last_programs: Callable[[Any, str], None], device: torch.device
) -> None:
    last_programs(dequantize, "_dequantize")
    out = 2**24 if dtype == torch.float16 else 2**23
    columns = 2**31 // out + 16  # the last sixteen rows of the result begin past 2^31 elements
    words = torch.empty(16 * -(-columns // 128), out, dtype=torch.int32, device=device)
    scales = torch.empty(1, out, dtype=torch.float16, device=device)
    words[:, -128:], scales[:, -128:] = 0x65432178, 0.5
    prepared = planes.Planes(words, scales, None, None, None, None, 4, 128 * len(words), (out, columns))
    dense = dequantize.transposed(prepared, dtype)
    expected = 0.5 * torch.tensor([0, -1, -7, -6, -5, -4, -3, -2]).repeat_interleave(16).repeat(3)[:columns]
    assert torch.equal(dense[:, -128:].cpu(), expected.to(dtype)[:, None].expand(-1, 128))


def test_words_and_scales_past_2_31_elements(device: torch.device, last_programs: Callable[[Any, str], None]) -> None:
    last_programs(dequantize, "_dequantize")
    prepared = planes.Planes(
        words := torch.empty_strided((16, 3), (2**31 // 15 + 8, 1), dtype=torch.int32, device=device),
        scales := torch.empty_strided((8, 3), (2**31 // 7 + 8, 1), dtype=torch.float16, device=device),
        zeros := torch.empty_strided((8, 3), (2**31 // 7 + 8, 1), dtype=torch.uint8, device=device),
        *(None, None, None, 4, 16, (3, 128)),
    )
    words.fill_(0x65432178)
    scales.copy_(torch.arange(1, 9)[:, None])
    zeros.copy_(torch.arange(8)[:, None])
    codes = torch.tensor([8, 7, 1, 2, 3, 4, 5, 6])
    expected = ((codes - torch.arange(8)) * torch.arange(1, 9)).repeat_interleave(16).float()
    assert torch.equal(dequantize.dequantize(prepared, torch.float32).cpu(), expected.expand(3, -1))
