"""Codes and scales of tokens: those of `formats.activations.quantize`, bit for bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qlab.kernels import quantize_tokens as kernel
from qlab.kernels.quantize_tokens import quantize_tokens

pytestmark = pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")  # NumPy's, of the interpreter

DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def check(x: torch.Tensor) -> None:
    codes, scales = quantize_tokens(x)
    expected, expected_scales = kernel.reference(x)
    assert codes.dtype == torch.int8 and scales.dtype == torch.float32
    assert torch.equal(scales.nan_to_num(-1), expected_scales.nan_to_num(-1))
    defined = ~scales.isnan()[:, 0]  # codes below a scale of NaN mean nothing
    assert torch.equal(codes[defined], expected[defined])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("tokens", "columns"),
    [
        *((0, 7), (1, 1), (2, 15), (3, 16), (33, 100), (2, 4096), (2, 4097), (1, 9000)),
        pytest.param(8192, 8192, marks=pytest.mark.gpu),
        pytest.param(4096, 14336, marks=pytest.mark.gpu),
    ],
)
def test_every_shape(
    tokens: int,
    columns: int,
    dtype: torch.dtype,
    numbers: Callable[..., torch.Tensor],
    surrounded: Callable[[Any], Any],
    device: torch.device,
) -> None:
    x = numbers(tokens, columns) * torch.logspace(-3, 3, columns)
    check(surrounded(x.to(device, dtype)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_ties_go_to_the_even_code(dtype: torch.dtype, device: torch.device) -> None:
    halves = torch.arange(-126.5, 127)
    x = torch.cat([torch.tensor([127.0]), halves])[None].to(device, dtype)
    check(x)
    if dtype != torch.bfloat16:  # which has no halves up there
        assert torch.equal(quantize_tokens(x)[0][0, 1:].cpu().float(), halves.round())


@pytest.mark.parametrize("dtype", DTYPES)
def test_unusual_tokens(dtype: torch.dtype, device: torch.device) -> None:
    limits = torch.finfo(dtype)
    rows = {
        "zeros": [0.0, 0, 0, 0],
        "minus zero": [-0.0, 0, 0, 0],
        "one": [0, 0, 1, 0],
        "negative": [-1, -2, -3, -4],
        "NaN": [1, float("nan"), 2, 3],
        "NaN first": [float("nan"), 1, 2, 3],
        "infinity": [1, 2, float("inf"), 3],
        "minus infinity": [1, 2, 3, -float("inf")],
        "both": [float("inf"), float("nan"), 0, 0],
        "largest": [limits.max, -limits.max, limits.max / 2, 1],
        "smallest normal": [limits.tiny, -limits.tiny, limits.tiny / 2, 0],
        "subnormal": [limits.smallest_normal * limits.eps * n for n in (1, -3, 7, 0)],
        "127 of the smallest normal": [limits.tiny * 127, limits.tiny * 126.5, -limits.tiny, 0],
    }
    x = torch.tensor(list(rows.values()), dtype=torch.float64).to(dtype).to(device)
    check(x)
    scales = dict(zip(rows, quantize_tokens(x)[1][:, 0].tolist(), strict=True))
    assert scales["zeros"] == scales["minus zero"] == 1
    assert all((scales[name] != scales[name]) == ("NaN" in name or "inf" in name or name == "both") for name in rows)


@settings(max_examples=40)
@given(seed=st.integers(0, 2**32), dtype=st.sampled_from(DTYPES), exponent=st.integers(-45, 38))
def test_any_bits(seed: int, dtype: torch.dtype, exponent: int, device: torch.device) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(3, 40, generator=generator, dtype=torch.float64) * 10.0**exponent
    x[1] = x[1].round(decimals=1 - exponent)  # equal quotients, and ties among them
    check(x.to(dtype).to(device))


def test_any_strides(numbers: Callable[..., torch.Tensor], device: torch.device) -> None:
    x = numbers(6, 40).to(device)
    for strided in (x.t(), x[:, ::3], x[::2], x[:1].expand(4, 40), x[:, :1].expand(6, 9)):
        check(strided)


def test_tokens_past_2_31_elements(
    numbers: Callable[..., torch.Tensor], last_programs: Callable[[Any, str], None], device: torch.device
) -> None:
    last_programs(kernel, "_quantize")
    x = torch.empty(2**25 + 1, 64, dtype=torch.float16, device=device)
    x[-1] = numbers(64)
    codes, scales = quantize_tokens(x)
    expected, expected_scales = quantize_tokens(x[-1:])
    assert torch.equal(codes[-1:], expected) and torch.equal(scales[-1:], expected_scales)


@pytest.mark.parametrize("strides", [(2**30 + 1, 1), (1, 2**31 // 39 + 1)])
def test_strides_past_2_31_elements(
    strides: tuple[int, int],
    numbers: Callable[..., torch.Tensor],
    last_programs: Callable[[Any, str], None],
    device: torch.device,
) -> None:
    last_programs(kernel, "_quantize")
    x = torch.empty_strided((3, 40), strides, dtype=torch.float16, device=device)
    check(x.copy_(numbers(3, 40)))


@pytest.mark.parametrize(
    ("error", "x", "message"),
    [
        (TypeError, torch.zeros(2, 3, dtype=torch.float64), "x: got torch.float64; give float16, bfloat16 or float32"),
        (TypeError, torch.zeros(2, 3, dtype=torch.int8), "x: got torch.int8"),
        (ValueError, torch.zeros(3), "x: got shape (3,); allowed is (tokens, in)"),
        (ValueError, torch.zeros(1, 2, 3), "x: got shape (1, 2, 3)"),
        (ValueError, torch.zeros(2, 0), "x: got shape (2, 0); allowed is (tokens, in) with in above 0"),
    ],
)
def test_what_does_not_fit_is_refused(error: type[Exception], x: torch.Tensor, message: str) -> None:
    with pytest.raises(error) as raised:
        quantize_tokens(x)
    assert message in str(raised.value)
