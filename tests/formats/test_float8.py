"""The 8-bit floats against torch's own types, a search through all values, and compressed-tensors."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlab.formats import float8
from qlab.formats.float8 import BLOCK, LARGEST, Float8Weight

DATA_TYPES = ("e4m3", "e5m2")
TORCH_DTYPES = {"e4m3": torch.float8_e4m3fn, "e5m2": torch.float8_e5m2}
GRANULARITIES = ("tensor", "channel", "block")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
SMALLEST_NORMAL = {"e4m3": 2.0**-6, "e5m2": 2.0**-14}
SMALLEST = {"e4m3": 2.0**-9, "e5m2": 2.0**-16}
HALF_STEP = {"e4m3": 2.0**-4, "e5m2": 2.0**-3}  # of a power of two
both = pytest.mark.parametrize("data_type", DATA_TYPES)
each_granularity = pytest.mark.parametrize("granularity", GRANULARITIES)
any_float = st.floats(allow_nan=False)


def cast(x: torch.Tensor, data_type: str) -> torch.Tensor:
    """Codes by torch's own cast, which has to be kept in range."""
    limit = LARGEST[data_type]
    return x.clamp(-limit, limit).to(TORCH_DTYPES[data_type]).view(torch.uint8)


def search(x: torch.Tensor, data_type: str) -> torch.Tensor:
    """Codes by a search through all finite values in float64, where values and midpoints are exact."""
    finite = torch.arange({"e4m3": 127, "e5m2": 124}[data_type], dtype=torch.uint8)  # of positive sign, ascending
    values = finite.view(TORCH_DTYPES[data_type]).double()
    middles = (values[1:] + values[:-1]) / 2
    magnitude = x.double().abs()
    code = torch.bucketize(magnitude, middles)  # how many midpoints lie below; at one itself, the lower code
    tie = (magnitude == middles[code.clamp(max=len(middles) - 1)]) & (code < len(middles))
    code += tie & (code % 2 == 1)
    return (code + 128 * x.signbit()).to(torch.uint8)


def between(data_type: str) -> torch.Tensor:
    """float32: every midpoint of two neighbors, its own neighbors in float32, and what lies past the largest value."""
    codes = torch.arange({"e4m3": 127, "e5m2": 124}[data_type], dtype=torch.uint8)
    values = codes.view(TORCH_DTYPES[data_type]).float()
    past = LARGEST[data_type] * torch.tensor([1.01, 1.0625, 1.07, 1.125, 1.13, 2, 1e9])
    points = torch.cat([values, (values[1:] + values[:-1]) / 2, past])
    up, down = (torch.nextafter(points, torch.tensor(end)) for end in (math.inf, -math.inf))
    points = torch.cat([points, up, down])
    return torch.cat([points, -points])


# --- Codes and values -----------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_code_has_the_value_of_torchs_type(data_type: str, dtype: torch.dtype) -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    mine, theirs = float8.decode(codes, data_type, dtype), codes.view(TORCH_DTYPES[data_type]).to(dtype)
    assert mine.dtype == dtype
    torch.testing.assert_close(mine, theirs, rtol=0, atol=0, equal_nan=True)
    number = ~theirs.isnan()
    assert torch.equal(mine.signbit()[number], theirs.signbit()[number])


def test_the_ends_of_both_types() -> None:
    for data_type, largest, tiniest, nans, infinities in (("e4m3", 448, 2**-9, 2, 0), ("e5m2", 57344, 2**-16, 6, 2)):
        values = float8.decode(torch.arange(256, dtype=torch.uint8), data_type)
        finite = values[values.isfinite()]
        assert finite.max() == largest == LARGEST[data_type] and finite[finite > 0].min() == tiniest
        assert int(values.isnan().sum()) == nans and int(values.isinf().sum()) == infinities


@both
def test_a_million_floats_of_all_magnitudes(data_type: str) -> None:
    generator = torch.Generator().manual_seed(8)
    anything = torch.randint(-(2**31), 2**31, (500_000,), generator=generator).int().view(torch.float32)
    exponents = torch.empty(500_000).uniform_(-20, 18, generator=generator)  # of the numbers that matter
    x = torch.cat([anything, 2**exponents * torch.randn(500_000, generator=generator).sign()])
    assert bool(x.isnan().any())
    assert torch.equal(float8.encode(x, data_type), cast(x, data_type))
    number = ~x.isnan()
    assert torch.equal(float8.encode(x, data_type)[number], search(x[number], data_type))


@both
def test_midpoints_go_to_the_even_code(data_type: str) -> None:
    x = between(data_type)
    codes = float8.encode(x, data_type)
    assert torch.equal(codes, cast(x, data_type)) and torch.equal(codes, search(x, data_type))


@both
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_16_bit_float(data_type: str, dtype: torch.dtype) -> None:
    x = torch.arange(2**16).to(torch.uint16).view(torch.int16).view(dtype)
    assert torch.equal(float8.encode(x, data_type), cast(x.float(), data_type))


@both
def test_float64_is_rounded_once(data_type: str) -> None:
    middles = between(data_type).double()
    x = torch.cat([middles * (1 + 2.0**-40), middles * (1 - 2.0**-40)])
    codes = float8.encode(x, data_type)
    assert torch.equal(codes, search(x, data_type))
    assert not torch.equal(codes, float8.encode(x.float(), data_type)), "these numbers do not show double rounding"


@both
def test_zeros_infinities_and_nan(data_type: str) -> None:
    top = {"e4m3": 0x7E, "e5m2": 0x7B}[data_type]
    least, most = SMALLEST[data_type], torch.finfo(torch.float32).max
    # fmt: off
    x, codes = zip(
        (0.0, 0), (-0.0, 128), (1e-45, 0), (-1e-45, 128), (least / 2, 0), (least * 0.51, 1), (least, 1),
        (SMALLEST_NORMAL[data_type], 2 ** {"e4m3": 3, "e5m2": 2}[data_type]),
        (most, top), (-most, top + 128), (math.inf, top), (-math.inf, top + 128), (math.nan, 127), (-math.nan, 255),
        strict=True,
    )
    # fmt: on
    for dtype in (torch.float32, torch.float64):
        assert float8.encode(torch.tensor(x, dtype=dtype), data_type).tolist() == list(codes)
    assert bool(float8.decode(torch.tensor([127, 255], dtype=torch.uint8), data_type).isnan().all())


def test_what_torch_does_instead() -> None:
    """The two sentences of the module about torch: 61440 is where infinity begins."""
    x = torch.tensor([61439.0, 61440.0, math.inf])
    assert x.to(torch.float8_e5m2).float().tolist() == [57344, math.inf, math.inf]
    assert float8.decode(float8.encode(x, "e5m2"), "e5m2").tolist() == [57344] * 3
    # 448 with NaN before: the next value of the grid would be 480, and the midpoint belongs to 448.
    assert torch.tensor([464.0]).to(torch.float8_e4m3fn).float().tolist() == [448]
    assert torch.tensor([465.0]).to(torch.float8_e4m3fn).float().nan_to_num(448).tolist() == [448]


@given(x=any_float, y=any_float, data_type=st.sampled_from(DATA_TYPES))
def test_order_is_kept(x: float, y: float, data_type: str) -> None:
    low, high = float8.decode(float8.encode(torch.tensor(sorted([x, y]), dtype=torch.float64), data_type), data_type)
    assert low <= high


@given(x=any_float, data_type=st.sampled_from(DATA_TYPES))
def test_a_minus_sign_is_one_bit(x: float, data_type: str) -> None:
    plus, minus = float8.encode(torch.tensor([x, -x], dtype=torch.float64), data_type).tolist()
    assert plus ^ minus == 128


@given(x=any_float | st.floats(-1000, 1000), data_type=st.sampled_from(DATA_TYPES))
def test_nearest_in_float64(x: float, data_type: str) -> None:
    numbers = torch.tensor([x], dtype=torch.float64)
    assert torch.equal(float8.encode(numbers, data_type), search(numbers, data_type))


@both
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_keep_their_codes(data_type: str, dtype: torch.dtype) -> None:
    codes = torch.arange(256, dtype=torch.uint8)
    values = float8.decode(codes, data_type, dtype)
    codes, values = codes[values.isfinite()], values[values.isfinite()]
    assert torch.equal(float8.encode(values, data_type), codes)


@both
def test_shapes_strides_and_the_input(data_type: str) -> None:
    x = torch.randn(4, 6, dtype=torch.float64).t().requires_grad_()
    before = x.detach().clone()
    codes = float8.encode(x, data_type)
    assert torch.equal(x, before) and codes.shape == (6, 4) and codes.dtype == torch.uint8 and not codes.requires_grad
    assert torch.equal(codes, float8.encode(before.contiguous(), data_type))
    assert torch.equal(float8.decode(codes.t(), data_type), float8.decode(codes, data_type).t())
    for shape in ((), (0,), (2, 0, 3), (1, 2, 3)):
        codes = float8.encode(torch.ones(shape), data_type)
        assert codes.shape == shape and torch.equal(float8.decode(codes, data_type), torch.ones(shape))
    half = torch.full((3,), 1000.0, dtype=torch.float32)
    float8.encode(half, data_type)
    assert half.tolist() == [1000.0] * 3, "the caller's tensor was clamped"


def test_refused_numbers() -> None:
    with pytest.raises(ValueError, match=r"data_type: got 'e3m4'; choose from 'e4m3' and 'e5m2'"):
        float8.encode(torch.ones(2), "e3m4")
    with pytest.raises(ValueError, match=r"data_type: got \['e4m3'\]"):
        float8.encode(torch.ones(2), ["e4m3"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"data_type: got 'int8'"):
        float8.decode(torch.ones(2, dtype=torch.uint8), "int8")
    with pytest.raises(TypeError, match=r"x: got torch.int64; give a tensor"):
        float8.encode(torch.ones(2, dtype=torch.int64))
    with pytest.raises(TypeError, match=r"x: got float;"):
        float8.encode(1.0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"codes: got torch.float8_e4m3fn; allowed is uint8"):
        float8.decode(torch.ones(2).to(torch.float8_e4m3fn))


# --- Weights --------------------------------------------------------------------------------------------------------


@st.composite
def weights(draw: st.DrawFn) -> torch.Tensor:
    dtype = draw(st.sampled_from(DTYPES))
    rows, columns = draw(st.sampled_from([1, 3, 127, 128, 130])), draw(st.sampled_from([1, 7, 128, 129, 300]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    w = torch.randn(rows, columns, generator=generator, dtype=torch.float64).clamp(-4, 4) / 4
    kind = draw(st.sampled_from(["normal", "positive", "zero row", "outlier", "zeros", "rows of all sizes"]))
    if kind == "positive":
        w = w.abs()
    elif kind == "zero row":
        w[0] = 0
    elif kind == "outlier":
        w /= 100
        w[-1, -1] = 1
    elif kind == "zeros":
        w.zero_()
    elif kind == "rows of all sizes":
        w *= torch.logspace(-4, 0, rows)[:, None]
    limits = torch.finfo(torch.float32 if dtype == torch.float64 else dtype)
    smallest = limits.smallest_normal * limits.eps
    w = (w * draw(st.sampled_from([1.0, 0.02, 3000.0, 8 * smallest, limits.max]))).to(dtype)
    return w.t().contiguous().t() if draw(st.booleans()) else w


def largest_by_loop(w: torch.Tensor, granularity: str) -> torch.Tensor:
    """float64 (out, in): max|w| of what each weight shares its scale with."""
    step = {"tensor": w.shape, "channel": (1, w.shape[1]), "block": (BLOCK, BLOCK)}[granularity]
    largest = torch.zeros(w.shape, dtype=torch.float64)
    for i in range(0, w.shape[0], step[0]):
        for j in range(0, w.shape[1], step[1]):
            part = slice(i, i + step[0]), slice(j, j + step[1])
            largest[part] = w[part].double().abs().max()
    return largest


@given(w=weights(), data_type=st.sampled_from(DATA_TYPES), granularity=st.sampled_from(GRANULARITIES))
def test_no_weight_moves_further_than_promised(w: torch.Tensor, data_type: str, granularity: str) -> None:
    q = float8.quantize(w, data_type, granularity)
    scale = (largest_by_loop(w, granularity) / LARGEST[data_type]).clamp(min=torch.finfo(torch.float32).tiny)
    back = q.dequantize(torch.float64)
    bound = torch.maximum(HALF_STEP[data_type] * w.double().abs(), SMALLEST[data_type] / 2 * scale)
    assert bool(((back - w.double()).abs() <= bound * (1 + 2.0**-18)).all())
    assert not bool(back[w == 0].any()), "zero is not exact"
    assert q.dequantize().dtype == w.dtype == q.dtype and bool(q.dequantize().isfinite().all())


@given(w=weights(), data_type=st.sampled_from(DATA_TYPES), granularity=st.sampled_from(GRANULARITIES))
def test_bytes_are_those_of_the_formula(w: torch.Tensor, data_type: str, granularity: str) -> None:
    q = float8.quantize(w, data_type, granularity)
    out, width = w.shape
    scales = {"tensor": 1, "channel": out, "block": math.ceil(out / BLOCK) * math.ceil(width / BLOCK)}[granularity]
    assert q.nbytes == out * width + 4 * scales and q.shape == (out, width)
    assert q.bits_per_weight == pytest.approx(8 + 32 * scales / (out * width))
    assert q.codes.dtype == torch.uint8 and q.scales.dtype == torch.float32
    assert q.codes.untyped_storage().nbytes() == out * width, "a view of something larger"


@both
@each_granularity
def test_the_largest_weight_gets_the_largest_code(data_type: str, granularity: str) -> None:
    w = torch.randn(200, 300, generator=torch.Generator().manual_seed(0))
    q = float8.quantize(w, data_type, granularity)
    largest = largest_by_loop(w, granularity)
    top = w.abs().double() == largest
    assert bool((float8.decode(q.codes, data_type)[top].abs() == LARGEST[data_type]).all())
    torch.testing.assert_close(q.dequantize()[top], w[top], rtol=2.0**-23, atol=0)
    again = float8.quantize(q.dequantize(), data_type, granularity)
    assert torch.equal(again.codes, q.codes), "what was quantized does not stay as it is"


def test_labels_and_shapes_of_the_scales() -> None:
    w = torch.ones(130, 257)
    said = {g: (q.label, tuple(q.scales.shape)) for g in GRANULARITIES if (q := float8.quantize(w, "e4m3", g))}
    assert said == {
        "tensor": ("E4M3, per tensor", (1, 1)),
        "channel": ("E4M3, per channel", (130, 1)),
        "block": ("E4M3, blocks of 128 x 128", (2, 3)),
    }
    assert float8.quantize(w, "e5m2").label == "E5M2, per channel"


@both
@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_come_back_as_zeros(data_type: str, dtype: torch.dtype) -> None:
    w = torch.randn(300, 300).to(dtype)
    w[5] = 0
    w[128:256, 256:] = 0
    for granularity in GRANULARITIES:
        q = float8.quantize(w, data_type, granularity)
        assert not bool(q.dequantize()[5].any()) and not bool(q.dequantize()[128:256, 256:].any())
        assert bool(q.scales.isfinite().all()) and bool((q.scales > 0).all())
        nothing = float8.quantize(torch.zeros_like(w), data_type, granularity)
        assert not bool(nothing.dequantize().any()) and bool((nothing.scales == 1).all())


@both
@each_granularity
def test_float64_weights_are_not_rounded_to_float32_first(data_type: str, granularity: str) -> None:
    x = between(data_type).double() * (1 + 2.0**-40)
    w = x[x.abs() <= LARGEST[data_type]][None]
    w[0, ::128] = LARGEST[data_type]  # every scale is 1
    q = float8.quantize(w, data_type, granularity)
    assert bool((q.scales == 1).all()) and torch.equal(q.codes, search(w, data_type))
    assert not torch.equal(q.codes, float8.quantize(w.float(), data_type, granularity).codes)


@both
def test_a_block_at_the_edge_has_its_own_scale(data_type: str) -> None:
    w = torch.full((129, 130), 1.0)
    w[128:, :128], w[:128, 128:], w[128:, 128:] = 10.0, 100.0, 1000.0
    q = float8.quantize(w, data_type, "block")
    expected = torch.tensor([[1.0, 100.0], [10.0, 1000.0]]) / LARGEST[data_type]
    assert torch.equal(q.scales, expected)
    torch.testing.assert_close(q.dequantize(), w, rtol=2.0**-23, atol=0)


@both
@each_granularity
def test_tiny_and_huge_weights(data_type: str, granularity: str) -> None:
    tiny = torch.full((3, 5), 1e-45)  # divided by 448, this is 0 in float32
    back = float8.quantize(tiny, data_type, granularity).dequantize()
    assert bool(back.isfinite().all()) and bool((back >= 0).all()) and bool((back <= 2 * tiny).all())
    huge = torch.full((3, 5), torch.finfo(torch.float32).max)
    assert torch.equal(float8.quantize(huge, data_type, granularity).dequantize(), huge)
    half = torch.full((3, 5), 65504.0)
    q = float8.quantize(half, data_type, granularity)
    assert bool(q.dequantize(torch.float16).isfinite().all())
    wide = Float8Weight(q.codes, q.scales * 2, data_type, granularity, torch.float32)
    assert torch.equal(wide.dequantize(torch.float16), half.half()), "infinity instead of the largest value"


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_codes_and_scales_of_compressed_tensors(granularity: str) -> None:
    quantization = pytest.importorskip("compressed_tensors.quantization")
    helpers = pytest.importorskip("compressed_tensors.quantization.utils.helpers")
    forward = pytest.importorskip("compressed_tensors.quantization.lifecycle.forward")
    blocks: dict[str, Any] = {"block_structure": [BLOCK, BLOCK]} if granularity == "block" else {}
    settings = quantization.QuantizationArgs(num_bits=8, type="float", strategy=granularity, **blocks)
    w = torch.randn(256, 384, generator=torch.Generator().manual_seed(1)) * torch.logspace(-3, 3, 256)[:, None]
    q = float8.quantize(w, "e4m3", granularity)
    if granularity == "block":
        parts = w.view(2, BLOCK, 3, BLOCK)
        low, high = parts.amin((1, 3)), parts.amax((1, 3))
    else:
        axis = {"tensor": (0, 1), "channel": (1,)}[granularity]
        low, high = w.amin(axis, keepdim=True), w.amax(axis, keepdim=True)
    scales, zeros = helpers.calculate_qparams(low, high, settings)
    assert torch.equal(q.scales, scales.view(q.scales.shape))
    theirs = forward.quantize(w, scales, zeros, settings, dtype=torch.float8_e4m3fn)
    assert torch.equal(q.codes, theirs.view(torch.uint8))
    back = forward.dequantize(theirs, scales, zeros, settings)
    assert torch.equal(q.dequantize(), back)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_refused_weights(granularity: str) -> None:
    w = torch.ones(4, 4)
    for bad in (math.nan, math.inf, -math.inf):
        broken = w.clone()
        broken[1, 2] = bad
        with pytest.raises(ValueError, match=r"w: 1 of 16 values are NaN or infinite"):
            float8.quantize(broken, granularity=granularity)
    with pytest.raises(ValueError, match=r"w: shape \(4,\); a weight must be"):
        float8.quantize(w[0], granularity=granularity)
    with pytest.raises(ValueError, match=r"w: shape \(0, 4\) is empty"):
        float8.quantize(w[:0], granularity=granularity)
    with pytest.raises(TypeError, match=r"w: got torch.int64"):
        float8.quantize(w.long(), granularity=granularity)


def test_refused_arguments_before_the_weight_is_looked_at() -> None:
    with pytest.raises(ValueError, match=r"data_type: got 'nf4'; choose from 'e4m3' and 'e5m2'"):
        float8.quantize(None, "nf4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"granularity: got 'group'; choose from 'tensor', 'channel' and 'block'"):
        float8.quantize(None, "e4m3", "group")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"granularity: got 128;"):
        float8.quantize(None, "e4m3", 128)  # type: ignore[arg-type]
