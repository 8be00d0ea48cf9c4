"""FP8 layers against the float64 product of what both sides were rounded to, and against torch's own FP8 product."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from qlab.formats import affine, float8
from qlab.formats.activations import Activations
from qlab.methods import fp8

TORCH_DTYPES = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
GRANULARITIES = ("tensor", "channel", "block")
STATIC = torch.tensor([0.004])
SCHEMES = {
    "per token": Activations("e4m3", "token"),
    "per tensor": Activations("e4m3", "tensor"),
    "static": Activations("e4m3", "tensor", STATIC),
    "e5m2 per token": Activations("e5m2", "token"),
    "e5m2 static": Activations("e5m2", "tensor", STATIC / 128),
}
each_scheme = pytest.mark.parametrize("name", SCHEMES)
each_granularity = pytest.mark.parametrize("granularity", GRANULARITIES)


def layer(out: int = 200, width: int = 300, tokens: int = 17) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """x, w and bias; rows, columns and blocks are of very different sizes, so that a wrong scale shows."""
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(tokens, width, generator=generator) * torch.logspace(-2, 0, tokens)[:, None]
    w = torch.randn(out, width, generator=generator) * torch.logspace(-1, 1, out)[:, None]
    w[:, 128:256] *= 30
    w[128:, 256:] *= 0.01
    return x, w, torch.randn(out, generator=generator) * 100


def rounded(x: torch.Tensor, scheme: Activations) -> torch.Tensor:
    """float64: what the scheme makes of x (tokens, in), by torch's own cast."""
    largest = float8.LARGEST[scheme.data_type]
    scale = x.abs().amax(1, keepdim=True) if scheme.granularity == "token" else x.abs().amax()
    scale = scale / largest if scheme.scale is None else scheme.scale
    return (x / scale).clamp(-largest, largest).to(TORCH_DTYPES[scheme.data_type]).double() * scale.double()


def assert_equal_products(y: torch.Tensor, a: torch.Tensor, b: torch.Tensor, bias: torch.Tensor | None = None) -> None:
    """y is a @ b.T + bias: every element within 1e-6 of the sum of magnitudes that it is made of."""
    expected, size = a @ b.T, a.abs() @ b.abs().T
    if bias is not None:
        expected, size = expected + bias.double(), size + bias.double().abs()
    assert y.shape == expected.shape
    assert bool(((y.double() - expected).abs() <= 1e-6 * size).all())
    assert float((y.double() - expected).norm() / expected.norm()) < 1e-6


@each_scheme
@each_granularity
@pytest.mark.parametrize("weight_type", ["e4m3", "e5m2"])
def test_products_of_what_both_sides_were_rounded_to(name: str, granularity: str, weight_type: str) -> None:
    x, w, bias = layer()
    weight, scheme = float8.quantize(w, weight_type, granularity), SCHEMES[name]
    a, b = rounded(x, scheme), weight.dequantize(torch.float64)
    assert_equal_products(fp8.linear(x, weight, None, scheme), a, b)
    y = fp8.linear(x, weight, bias, scheme)
    assert y.dtype == torch.float32
    assert_equal_products(y, a, b, bias)
    # Inputs that were left alone, or that got the other type, would not pass:
    assert float((a - x.double()).norm() / x.double().norm()) > 1e-3


@each_granularity
def test_shapes_of_x(granularity: str) -> None:
    x, w, bias = layer(tokens=24)
    weight = float8.quantize(w, "e4m3", granularity)
    flat = fp8.linear(x, weight, bias)
    deep = fp8.linear(x.view(2, 3, 4, 300), weight, bias)
    assert deep.shape == (2, 3, 4, 200)
    torch.testing.assert_close(deep.view(24, 200), flat, rtol=0, atol=0)
    torch.testing.assert_close(fp8.linear(x[3], weight, bias), flat[3], rtol=1e-5, atol=1e-3)
    turned = x.t().contiguous().t()
    torch.testing.assert_close(fp8.linear(turned, weight, bias), flat, rtol=0, atol=0)
    for scheme in SCHEMES.values():
        for shape in ((0,), (2, 0), (0, 5)):
            nothing = fp8.linear(torch.zeros(*shape, 300), weight, bias, scheme)
            assert nothing.shape == (*shape, 200) and nothing.dtype == torch.float32


@pytest.mark.parametrize("out, width", [(1, 1), (1, 128), (128, 1), (129, 127), (3, 129), (256, 256)])
@each_granularity
def test_sizes_of_the_weight(out: int, width: int, granularity: str) -> None:
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(5, width, generator=generator), torch.randn(out, width, generator=generator)
    weight = float8.quantize(w, "e4m3", granularity)
    assert_equal_products(fp8.linear(x, weight), rounded(x, Activations("e4m3")), weight.dequantize(torch.float64))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_the_result_has_the_type_of_x(dtype: torch.dtype) -> None:
    x, w, bias = layer()
    weight = float8.quantize(w / 100)
    y = fp8.linear(x.to(dtype), weight, bias.to(dtype))
    assert y.dtype == dtype
    expected = fp8.linear(x.to(dtype).float(), weight, bias.to(dtype).float())
    assert torch.equal(y, expected.to(dtype)), "computed in less than float32"


def test_float16_does_not_overflow_on_the_way() -> None:
    x = torch.full((1, 256), 60000.0, dtype=torch.float16)
    w = torch.full((1, 256), 1.0, dtype=torch.float16)
    w[0, ::2] = -1
    w[0, 0] = 0
    assert fp8.linear(x, float8.quantize(w)).item() == 60000


def test_a_static_scale_clips() -> None:
    weight = float8.quantize(torch.eye(3))
    scheme = Activations("e4m3", "tensor", torch.tensor([0.5]))
    x = torch.tensor([[1.0, 224.0, 225.0], [0.0, -1e6, 300.0]])
    y = fp8.linear(x, weight, None, scheme)
    torch.testing.assert_close(y, torch.tensor([[1.0, 224.0, 224.0], [0.0, -224.0, 224.0]]), rtol=1e-6, atol=0)


@each_granularity
def test_zeros_and_nan(granularity: str) -> None:
    x, w, bias = layer()
    x[2], w[7] = 0, 0
    weight = float8.quantize(w, "e4m3", granularity)
    y = fp8.linear(x, weight, bias)
    assert torch.equal(y[2], bias) and bool((y[:, 7] == bias[7]).all())
    for bad in (torch.nan, torch.inf):
        broken = x.clone()
        broken[4, 5] = bad
        got = fp8.linear(broken, weight, bias)
        assert bool(got[4].isnan().all())
        others = torch.arange(17) != 4
        torch.testing.assert_close(got[others], y[others], rtol=0, atol=0)
        assert bool(fp8.linear(broken, weight, bias, Activations("e4m3", "tensor", STATIC)).isnan()[4].all())


@pytest.mark.parametrize("x_type, w_type", [("e4m3", "e4m3"), ("e5m2", "e4m3"), ("e4m3", "e5m2"), ("e5m2", "e5m2")])
def test_torchs_own_product_on_the_cpu(x_type: str, w_type: str) -> None:
    x, w, _ = layer(out=64, width=96, tokens=32)
    scheme, weight = Activations(x_type, "tensor"), float8.quantize(w, w_type, "tensor")
    scale = (x.abs().amax() / float8.LARGEST[x_type]).view(1, 1)
    a = (x / scale).to(TORCH_DTYPES[x_type])
    b = weight.codes.view(TORCH_DTYPES[w_type])
    try:
        theirs = torch._scaled_mm(a, b.t(), scale, weight.scales, out_dtype=torch.float32)
    except RuntimeError as error:
        pytest.skip(f"torch multiplies no {x_type} with {w_type} on this processor: {error}")
    mine = fp8.linear(x, weight, None, scheme)
    assert float((mine - theirs).norm() / theirs.norm()) < 1e-6


@each_scheme
@each_granularity
def test_both_operands_are_8_bit_floats(name: str, granularity: str, products: Any) -> None:
    x, w, bias = layer()
    with products() as seen:
        fp8.linear(x, float8.quantize(w, "e5m2", granularity), bias, SCHEMES[name])
    assert len(seen) == (3 if granularity == "block" else 1), "one sum for every scale along the columns"
    for _, a, b in seen:
        assert a.dtype == b.dtype == torch.float32, "sums in less than float32"
        for operand, data_type in ((a, SCHEMES[name].data_type), (b, "e5m2")):
            assert torch.equal(operand.to(TORCH_DTYPES[data_type]).float(), operand), "more than 8 bits went in"
            assert float(operand.abs().max()) <= float8.LARGEST[data_type]


def test_gradients_and_inputs_are_left_alone() -> None:
    x, w, bias = layer()
    before = x.clone()
    y = fp8.linear(x.requires_grad_(), float8.quantize(w), bias.requires_grad_())
    assert torch.equal(x, before) and not y.requires_grad


def test_refused_arguments() -> None:
    x, w, bias = layer()
    weight = float8.quantize(w)
    with pytest.raises(ValueError, match=r"scheme: got int8, per token; allowed is e4m3 or e5m2, use w8a8.linear"):
        fp8.linear(x, weight, bias, Activations("int8"))
    with pytest.raises(TypeError, match=r"weight: got AffineWeight; allowed is a Float8Weight"):
        fp8.linear(x, affine.quantize(w, 8), bias)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"x: got shape \(17, 299\); a weight of shape \(200, 300\) takes"):
        fp8.linear(x[:, 1:], weight, bias)
    with pytest.raises(ValueError, match=r"x: got shape \(\); "):
        fp8.linear(torch.tensor(1.0), weight, bias)
    with pytest.raises(TypeError, match=r"x: got list; give a tensor"):
        fp8.linear([1.0], weight, bias)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"x: got torch.int64; give a tensor"):
        fp8.linear(x.long(), weight, bias)
