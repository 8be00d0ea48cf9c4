"""W8A8: exact integer sums, real integers, and outputs within the bound that the rounding of both sides allows."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from qlab.formats import activations, affine
from qlab.formats.activations import Activations
from qlab.methods import w8a8


@pytest.fixture(params=["as it is", "without VNNI"])
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "without VNNI":
        monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)


def codes(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed + 1000 * rows + columns)
    return torch.randint(-128, 128, (rows, columns), generator=generator, dtype=torch.int8)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# --- The product of integers ----------------------------------------------------------------------------------------


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("k", [0, 1, 2, 3, 7, 8, 9, 65, 300])
def test_every_shape_gives_the_exact_product(k: int) -> None:
    for m in (0, 1, 2, 16, 17, 33):
        for n in (0, 1, 3, 8, 17):
            a, b = codes(m, k), codes(n, k, seed=1)
            product = w8a8.int8_matmul(a, b)
            assert product.dtype == torch.int32 and product.shape == (m, n)
            assert torch.equal(product.long(), a.long() @ b.long().t()), (m, k, n)


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("k", [64, 4096, 20000, 131071])
def test_extremes_neither_saturate_nor_wrap(k: int) -> None:
    # Without VNNI, x86 adds two neighboring products in 16 bits, which saturates from 32768 on. 127 * 127 twice is
    # 32258, but oneDNN adds 128 to one side first: 255 * 127 twice is 64770.
    for left in (-128, -127, 127):
        for right in (-128, -127, 127):
            a, b = torch.full((5, k), left, dtype=torch.int8), torch.full((3, k), right, dtype=torch.int8)
            assert w8a8.int8_matmul(a, b).unique().tolist() == [left * right * k]


@pytest.mark.parametrize("limit", ["SSE41", "AVX2", "AVX512_CORE"])
def test_a_limit_on_onednn_makes_no_sum_wrong(limit: str) -> None:
    script = (
        "import torch; from qlab.methods import w8a8; a = torch.full((5, 4096), 127, dtype=torch.int8);"
        "print(w8a8.int8_matmul(a, a[:3]).unique().tolist())"
    )
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": limit}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"[{127 * 127 * 4096}]"


@pytest.mark.usefixtures("processor")
def test_the_layout_in_memory_does_not_matter() -> None:
    a, b, row = codes(5, 64), codes(3, 64), codes(1, 64, seed=1)[0]
    column = codes(5, 1, seed=2)
    cases = {
        "columns of a wider matrix": (codes(5, 100)[:, 9:73], b),
        "every second column": (codes(5, 128)[:, ::2], codes(3, 128)[:, ::2]),
        "transposed": (a.t().contiguous().t(), b.t().contiguous().t()),
        "one row in all": (row.expand(5, 64), b),
        "one column in all": (column.expand(5, 64), b),
        "a single row with an odd stride": (torch.as_strided(row, (1, 64), (3, 1)), b),
        "a single output with an odd stride": (a, torch.as_strided(row, (1, 64), (3, 1))),
    }
    for name, (left, right) in cases.items():
        assert torch.equal(w8a8.int8_matmul(left, right).long(), left.long() @ right.long().t()), name


def test_what_cannot_be_multiplied_is_refused() -> None:
    a = codes(2, 8)
    with pytest.raises(TypeError, match=r"a: got torch\.float32"):
        w8a8.int8_matmul(a.float(), a)
    with pytest.raises(TypeError, match=r"b: got torch\.uint8"):
        w8a8.int8_matmul(a, a.view(torch.uint8))
    for b in (codes(2, 7), codes(2, 8)[0]):
        with pytest.raises(ValueError, match="a, b: got shapes"):
            w8a8.int8_matmul(a, b)
    long = torch.zeros(1, 131072, dtype=torch.int8)
    with pytest.raises(ValueError, match="k: got 131072; allowed is up to 131071"):
        w8a8.int8_matmul(long, long)


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("scheme", [Activations(), Activations("int8", "tensor", torch.ones(1))], ids=lambda s: s.label)
@pytest.mark.parametrize("tokens", [1, 20])
def test_the_product_is_one_of_integers(scheme: Activations, tokens: int, products: Any) -> None:
    weight = w8a8.quantize(normal(16, 64))
    with products() as seen:
        w8a8.linear(normal(tokens, 64, seed=1), weight, normal(16, seed=2), scheme)
    assert len(seen) == 1
    name, left, right = seen[0]
    assert (name, left.dtype, right.dtype) in [("_int_mm", torch.int8, torch.int8), ("mm", torch.int32, torch.int32)]


def test_the_spy_sees_floats_that_only_look_like_integers(products: Any) -> None:
    a, b = codes(4, 8), codes(3, 8)
    with products() as seen:
        F.linear(a.float(), b.float())
        F.linear(a.bfloat16(), b.bfloat16(), torch.zeros(3).bfloat16())
    assert [{left.dtype, right.dtype} for _, left, right in seen] == [{torch.float32}, {torch.bfloat16}]


# --- The layer ------------------------------------------------------------------------------------------------------


def rounding_bound(x: torch.Tensor, weight: affine.AffineWeight, w: torch.Tensor, granularity: str) -> torch.Tensor:
    """float64 (tokens, out): how far half a step on either side can move the outputs."""
    x, w = x.double(), w.double()
    largest = x.abs().amax(1, keepdim=True) if granularity == "token" else x.abs().amax().view(1, 1)
    dx = (largest / 254).expand_as(x)
    half = w.abs().amax(1, keepdim=True) / 254 if weight.group_size == "channel" else w.abs().amax().view(1, 1) / 254
    dw = half.expand_as(w)
    return x.abs() @ dw.T + dx @ w.abs().T + dx @ dw.T


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("granularity", ["token", "tensor"])
@pytest.mark.parametrize("group_size", ["channel", "tensor"])
def test_outputs_move_by_no_more_than_the_rounding_allows(
    dtype: torch.dtype, granularity: str, group_size: affine.GroupSize
) -> None:
    x, w, bias = normal(9, 96, seed=1).to(dtype), normal(20, 96).to(dtype), normal(20, seed=2).to(dtype)
    weight = w8a8.quantize(w, group_size)
    y = w8a8.linear(x, weight, bias, Activations("int8", granularity))
    assert y.dtype == dtype and y.shape == (9, 20)
    exact = x.double() @ w.double().T + bias.double()
    own = torch.finfo(dtype).eps if dtype != torch.float64 else torch.finfo(torch.float32).eps
    bound = rounding_bound(x, weight, w, granularity) * (1 + 1e-5) + 4 * own * exact.abs() + 1e-5
    assert bool(((y.double() - exact).abs() <= bound).all())
    assert float((y.double() - exact).abs().max()) > 0.005, "it does round"


def test_it_is_the_product_of_the_two_quantized_sides() -> None:
    x, w, bias = normal(9, 96, seed=1), normal(20, 96), normal(20, seed=2)
    weight = w8a8.quantize(w)
    for scheme in (Activations(), Activations("int8", "tensor"), Activations("int8", "tensor", torch.tensor([0.01]))):
        seen, scales = activations.quantize(x, scheme)
        expected = (seen.double() * scales.double()) @ weight.dequantize(torch.float64).T + bias.double()
        torch.testing.assert_close(w8a8.linear(x, weight, bias, scheme).double(), expected, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(
            w8a8.linear(x, weight, None, scheme).double(), expected - bias.double(), rtol=1e-6, atol=1e-6
        )


def test_any_number_of_dimensions_and_of_tokens() -> None:
    weight, x = w8a8.quantize(normal(6, 32)), normal(2, 3, 4, 32, seed=1)
    y = w8a8.linear(x, weight)
    assert y.shape == (2, 3, 4, 6)
    assert torch.equal(y[1, 2], w8a8.linear(x[1, 2], weight)), "a token does not depend on the others"
    assert torch.equal(y[0, 0, 0], w8a8.linear(x[0, 0, 0], weight))
    assert w8a8.linear(torch.empty(2, 0, 32), weight).shape == (2, 0, 6)


def test_a_weight_of_one_row_or_one_column() -> None:
    for out, columns in [(1, 32), (7, 1), (1, 1)]:
        w, x = normal(out, columns), normal(5, columns, seed=1)
        weight = w8a8.quantize(w)
        error = (w8a8.linear(x, weight).double() - x.double() @ w.double().T).abs()
        assert bool((error <= rounding_bound(x, weight, w, "token") * (1 + 1e-5) + 1e-6).all())


def test_zeros_give_the_bias() -> None:
    w, bias = normal(4, 16), normal(4, seed=1)
    assert torch.equal(w8a8.linear(torch.zeros(3, 16), w8a8.quantize(w), bias), bias.expand(3, 4))
    w[1] = 0
    y = w8a8.linear(normal(3, 16, seed=2), w8a8.quantize(w), bias)
    assert bool((y[:, 1] == bias[1]).all())


def test_a_sum_past_float16_is_no_overflow_if_the_result_fits() -> None:
    x = torch.full((2, 64), 60000.0).half()
    w = torch.full((3, 64), 0.01).half()
    w[:, 1::2] = -0.01
    w[0, 1] = 0.01
    y = w8a8.linear(x, w8a8.quantize(w))  # half of the sum alone is 19200, and the integers add up to 127 * 127 * 32
    assert y.dtype == torch.float16 and float(y[0, 0]) == pytest.approx(1200, rel=0.01) and bool((y[:, 1:] == 0).all())
    assert float((127 * x[0, :5].sum()).half()) == float("inf")
    past = w8a8.linear(x, w8a8.quantize(w.abs()))
    assert bool((past.float() - 38400 < 400).all())
    assert bool(w8a8.linear(x, w8a8.quantize(3 * w.abs())).isinf().all()), "as in nn.Linear"


@pytest.mark.usefixtures("processor")
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_nan_never_becomes_a_number(bad: float) -> None:
    weight, x = w8a8.quantize(normal(5, 16)), normal(3, 16, seed=1)
    x[1, 4] = bad
    y = w8a8.linear(x, weight, torch.ones(5))
    assert bool(y[1].isnan().all()) and bool(y[[0, 2]].isfinite().all())
    for scale in (None, torch.ones(1)):
        assert bool(w8a8.linear(x, weight, None, Activations("int8", "tensor", scale)).isnan().all())


def test_one_outlier_channel_costs_a_token_its_digits() -> None:
    """The reason for SmoothQuant and LLM.int8: the step of every token comes from one channel."""
    x, w = normal(32, 128, seed=1), normal(64, 128)
    w[:, 7] = 0  # what the outlier channel adds is known exactly, so the error is that of the others
    weight = w8a8.quantize(w)

    def relative_error(x: torch.Tensor) -> float:
        exact = x @ w.T
        return float((w8a8.linear(x, weight) - exact).norm() / exact.norm())

    calm = relative_error(x)
    x[:, 7] = 100
    assert calm < 0.02 and relative_error(x) > 10 * calm


def test_the_weight_holds_one_byte_for_each_number() -> None:
    w = normal(24, 96)
    assert w8a8.quantize(w).nbytes == 24 * 96 + 24 * 4
    assert w8a8.quantize(w, "tensor").nbytes == 24 * 96 + 4
    weight = w8a8.quantize(w)
    seen = w8a8.int8_codes(weight)
    assert seen.dtype == torch.int8 and torch.equal(seen.int(), weight.codes().int() - 128)
    torch.testing.assert_close(seen * weight.scales, weight.dequantize(), rtol=0, atol=0)


def test_sums_and_outputs_are_those_of_bitsandbytes_without_a_threshold() -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    x, w, bias = normal(40, 512, seed=1).half(), normal(24, 512).half(), normal(24, seed=2).half()
    integers, largest, _ = functional.int8_vectorwise_quant(w)
    scales = (largest / 127)[:, None]
    weight = affine.from_codes(integers.view(torch.uint8) ^ 128, scales, None, 8, "channel", w.dtype)

    seen, _ = activations.quantize(x, Activations())
    expected, token_largest, _ = functional.int8_vectorwise_quant(x)
    assert torch.equal(seen, expected)
    # Its sums are exact below 2^24, on a processor without AVX-512 too; k = 512 keeps them there.
    sums = functional.int8_linear_matmul(seen, integers)
    assert torch.equal(w8a8.int8_matmul(seen, integers), sums)

    y = w8a8.linear(x, weight, bias)
    theirs = functional.int8_mm_dequant(sums, token_largest, largest, bias=bias)
    assert theirs.dtype == y.dtype == torch.float16
    unbiased = w8a8.linear(x.double(), weight).abs()
    # Both round to float16 once. Its constant for 1 / 127² is 1.8e-5 too large.
    bound = 1.01 * torch.finfo(torch.float16).eps * y.double().abs() + 1.81e-5 * unbiased + 1e-6
    assert bool(((y.double() - theirs.double()).abs() <= bound).all())


# --- Bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "weight, match",
    [
        (affine.quantize(torch.ones(4, 16), 4, "channel"), "weight: got 4 bits, per channel, symmetric"),
        (affine.quantize(torch.ones(4, 16), 8, 8), "weight: got 8 bits, groups of 8"),
        (affine.quantize(torch.ones(4, 16), 8, "channel", symmetric=False), "asymmetric; allowed is 8 bits"),
    ],
    ids=["bits", "groups", "asymmetric"],
)
def test_other_weights_are_refused(weight: affine.AffineWeight, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        w8a8.linear(torch.ones(2, 16), weight)


def test_other_arguments_are_refused() -> None:
    weight = w8a8.quantize(torch.ones(4, 16))
    with pytest.raises(ValueError, match="group_size: got 128"):
        w8a8.quantize(torch.ones(4, 16), 128)
    with pytest.raises(TypeError, match="weight: got Tensor"):
        w8a8.linear(torch.ones(2, 16), torch.ones(4, 16))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"x: got shape \(2, 15\)"):
        w8a8.linear(torch.ones(2, 15), weight)
    with pytest.raises(ValueError, match=r"x: got shape \(\)"):
        w8a8.linear(torch.tensor(1.0), weight)
    with pytest.raises(TypeError, match=r"x: got torch\.int64"):
        w8a8.linear(torch.ones(2, 16, dtype=torch.int64), weight)
    with pytest.raises(ValueError, match=r"scheme: got e4m3, per token; allowed is int8, use fp8\.linear"):
        w8a8.linear(torch.ones(2, 16), weight, None, Activations("e4m3"))
    with pytest.raises(ValueError, match=r"use llm_int8\.linear"):
        w8a8.linear(torch.ones(2, 16), weight, None, Activations(threshold=6.0))
