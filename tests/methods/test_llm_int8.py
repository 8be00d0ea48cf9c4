"""LLM.int8 against bitsandbytes, against exact products, and at the edges of the decomposition."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch

from qlab.formats import activations
from qlab.formats.activations import Activations
from qlab.methods import llm_int8, w8a8

OUTLIERS = [3, 17, 90]


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)  # bitsandbytes warns about every input that is not float16


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(tokens: int = 12, outliers: list[int] = OUTLIERS) -> torch.Tensor:
    """float32 (tokens, 96), all below 6 but the outlier columns on some tokens; every value is a float16 number."""
    x = normal(tokens, 96, seed=1).clamp(-5, 5)
    for i, column in enumerate(outliers):
        x[i % tokens, column] = 20.0 + i
    return x.half().float()


def linear_of_bitsandbytes(w: torch.Tensor, bias: torch.Tensor | None, threshold: float) -> Any:
    nn = pytest.importorskip("bitsandbytes.nn")
    layer = nn.Linear8bitLt(w.shape[1], w.shape[0], bias is not None, has_fp16_weights=False, threshold=threshold)
    layer.weight = nn.Int8Params(w.clone(), requires_grad=False)
    if bias is not None:
        layer.bias = torch.nn.Parameter(bias.clone(), requires_grad=False)
    return layer.to("cpu").eval()


# --- The weight -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_codes_are_those_of_bitsandbytes(dtype: torch.dtype) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    w = normal(64, 96).to(dtype)
    w[5] = torch.linspace(-1, 1, 96).to(dtype)
    w[6] *= 1e-3
    codes, absmax, _ = functional.int8_vectorwise_quant(w.clone())
    weight = llm_int8.quantize(w)
    assert torch.equal(w8a8.int8_codes(weight), codes)
    torch.testing.assert_close(weight.scales.flatten() * 127, absmax, rtol=1e-6, atol=0)
    layer = linear_of_bitsandbytes(w, None, 6.0)
    rounded = llm_int8.quantize(w.half())  # Linear8bitLt rounds to float16 first
    assert torch.equal(w8a8.int8_codes(rounded), layer.weight.data)


def test_it_holds_one_byte_for_each_weight_and_a_scale_for_each_channel() -> None:
    w = normal(64, 96).half()
    w[9] = 0
    weight = llm_int8.quantize(w)
    assert weight.nbytes == 64 * 96 + 4 * 64 and weight.label == "8 bits, per channel, symmetric"
    assert weight.dtype == torch.float16 and weight.scales.dtype == torch.float32
    error = (weight.dequantize(torch.float64) - w.double()).abs()
    assert bool((error <= w.double().abs().amax(1, keepdim=True) / 254 * (1 + 1e-5)).all())
    assert bool((weight.dequantize()[9] == 0).all())


def test_weights_that_make_no_sense_are_refused() -> None:
    for w in (torch.ones(3), torch.tensor([[float("nan")]])):
        with pytest.raises(ValueError, match="w: "):
            llm_int8.quantize(w)


# --- The outliers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("threshold", [0.5, 3.0, 6.0, 21.0])
def test_outlier_columns_are_those_of_bitsandbytes(threshold: float) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    x = inputs().half()
    _, _, columns = functional.int8_vectorwise_quant(x.clone(), threshold)
    assert llm_int8.outlier_columns(x, threshold).nonzero().flatten().tolist() == columns.tolist()


def test_a_value_on_the_threshold_is_an_outlier() -> None:
    x = torch.tensor([[6.0, -6.0, 5.99, float("inf"), float("nan")], [0.0] * 5])
    assert llm_int8.outlier_columns(x).tolist() == [True, True, False, True, False]
    assert llm_int8.outlier_columns(x[1:], 0.0).tolist() == [True] * 5
    assert llm_int8.outlier_columns(torch.empty(0, 5), 0.0).tolist() == [False] * 5


# --- The layer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("case", ["some", "none", "all", "one token", "no bias"])
def test_outputs_are_those_of_bitsandbytes(dtype: torch.dtype, case: str) -> None:
    x = inputs(1 if case == "one token" else 12, [] if case == "none" else OUTLIERS).to(dtype)
    if case == "all":
        x[0] = 7.5
    w = normal(20, 96).to(dtype).half()
    bias = None if case == "no bias" else normal(20, seed=2).to(dtype)
    layer = linear_of_bitsandbytes(w, bias, 6.0)
    theirs = layer(x)
    y = llm_int8.linear(x, llm_int8.quantize(w), bias)
    assert y.dtype == theirs.dtype == dtype
    # Half a unit in the last place, u, for each rounding to the type of x: of the dequantized columns, of the int8 part
    # and of both results. Sums in float32 take a few more. And its constant for 1 / 127² is 1.8e-5 too large.
    outliers = llm_int8.outlier_columns(x)
    assert layer.state.idx.tolist() == outliers.nonzero().flatten().tolist()
    codes, scales = activations.quantize(x, Activations(threshold=6.0))
    dequantized = llm_int8.quantize(w).dequantize(torch.float64)
    integers = (codes.double() * scales.double()) @ dequantized.T
    floats = x[:, outliers].double().abs() @ dequantized[:, outliers].abs().T
    first = integers if bias is None else integers + bias.double()
    u = torch.finfo(dtype).eps / 2 * (1.01 if dtype != torch.float32 else 8)
    bound = u * (first.abs() + floats + 2 * y.double().abs()) + 1.81e-5 * integers.abs() + 1e-6
    assert bool(((y.double() - theirs.double()).abs() <= bound).all())


def test_it_is_the_sum_of_two_products() -> None:
    x, bias = inputs(), normal(20, seed=2)
    weight = llm_int8.quantize(normal(20, 96))
    w = weight.dequantize(torch.float64)
    codes, scales = activations.quantize(x, Activations(threshold=6.0))
    assert bool((codes[:, OUTLIERS] == 0).all())
    expected = (codes.double() * scales.double()) @ w.T + x[:, OUTLIERS].double() @ w[:, OUTLIERS].T + bias.double()
    torch.testing.assert_close(llm_int8.linear(x, weight, bias).double(), expected, rtol=1e-6, atol=3e-6)


def test_it_keeps_the_digits_that_plain_int8_loses() -> None:
    x, w = inputs(), normal(20, 96)
    x[:, OUTLIERS] *= 100
    exact, weight = x @ w.T, llm_int8.quantize(w)
    kept = (llm_int8.linear(x, weight) - x @ weight.dequantize().T).norm()
    lost = (w8a8.linear(x, weight) - x @ weight.dequantize().T).norm()
    assert 0 < kept < 0.1 * lost
    assert float((llm_int8.linear(x, weight) - exact).norm() / exact.norm()) < 0.01


@pytest.mark.parametrize("vnni", [True, False])
def test_only_the_outlier_columns_are_multiplied_as_floats(
    vnni: bool, monkeypatch: pytest.MonkeyPatch, products: Any
) -> None:
    if not vnni:
        monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    weight = llm_int8.quantize(normal(20, 96))
    with products() as seen:
        llm_int8.linear(inputs(), weight, normal(20, seed=2))
    exact = ({torch.int8}, {torch.int32})
    integers = [left.shape[-1] for _, left, right in seen if {left.dtype, right.dtype} in exact]
    floats = [left.shape[-1] for _, left, right in seen if {left.dtype, right.dtype} not in exact]
    assert integers == [96] and floats == [len(OUTLIERS)]


def test_at_the_threshold_0_the_inputs_are_not_rounded() -> None:
    x, weight = inputs(), llm_int8.quantize(normal(20, 96))
    y = llm_int8.linear(x, weight, threshold=0.0)
    torch.testing.assert_close(y, x @ weight.dequantize().T, rtol=1e-5, atol=1e-5)
    plain = llm_int8.linear(x, weight, threshold=float("inf"))
    assert torch.equal(plain, w8a8.linear(x, weight)) and not torch.allclose(plain, y, atol=1e-3)


def test_any_number_of_dimensions_and_of_tokens() -> None:
    weight, x = llm_int8.quantize(normal(20, 96)), inputs(12)
    y = llm_int8.linear(x.view(2, 3, 2, 96), weight)
    assert y.shape == (2, 3, 2, 20) and torch.equal(y.view(12, 20), llm_int8.linear(x, weight))
    assert llm_int8.linear(x[0], weight).shape == (20,)
    assert llm_int8.linear(torch.empty(2, 0, 96), weight).shape == (2, 0, 20)


def test_nan_stays_in_its_token_and_infinity_acts_as_in_a_linear_layer() -> None:
    weight, x = llm_int8.quantize(normal(20, 96)), inputs(4)
    x[1, 50] = float("nan")
    y = llm_int8.linear(x, weight)
    assert bool(y[1].isnan().all()) and bool(y[[0, 2, 3]].isfinite().all())
    x[1, 50] = float("inf")
    y, exact = llm_int8.linear(x, weight), x @ weight.dequantize().T
    assert torch.equal(y.isinf(), exact.isinf()) and torch.equal(y.isnan(), exact.isnan())
    assert torch.equal(y[1].sign(), exact[1].sign()) and bool(y[[0, 2, 3]].isfinite().all())


def test_a_part_past_float16_is_no_overflow_if_the_result_fits() -> None:
    x, w = torch.full((1, 160), 5.0), torch.full((2, 160), -127.0)
    x[0, 0], w[:, 0] = 60000.0, 2.0
    y = llm_int8.linear(x.half(), llm_int8.quantize(w.half()))
    assert torch.equal(y, torch.full((1, 2), 120000.0 - 159 * 127 * 5).half())  # -100965 is past 65504, too


def test_arguments_that_make_no_sense_are_refused() -> None:
    x, weight = inputs(), llm_int8.quantize(normal(20, 96))
    for threshold in (-1.0, float("nan")):
        with pytest.raises(ValueError, match="threshold: got"):
            llm_int8.linear(x, weight, threshold=threshold)
    with pytest.raises(TypeError, match="threshold: got None"):
        llm_int8.linear(x, weight, threshold=None)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="x: got shape"):
        llm_int8.linear(x[:, 1:], weight)
