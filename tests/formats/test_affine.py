"""The affine format against bounds that are computed from the weights alone, and against other libraries."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qlab.formats import affine

DTYPES = (torch.float16, torch.bfloat16, torch.float32)
GRANULARITIES = (1, 3, 8, 128, "channel", "tensor")
# A scale is rounded up by less than one unit in the last place of the type that holds it.
ROUND_UP = {torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7, torch.float32: 2.0**-23}
LEAST = 2.0**-149  # the smallest positive float32


@st.composite
def weights(draw: st.DrawFn, dtypes: tuple[torch.dtype, ...] = (*DTYPES, torch.float64)) -> torch.Tensor:
    dtype = draw(st.sampled_from(dtypes))
    rows, columns = draw(st.integers(1, 4)), draw(st.sampled_from([1, 2, 7, 8, 16, 19]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    w = torch.randn(rows, columns, generator=generator, dtype=torch.float64).clamp(-2, 2) / 2
    kind = draw(st.sampled_from(["both signs", "positive", "negative", "constant", "zero row", "outlier", "zeros"]))
    if kind == "positive":
        w = w.abs() / 8 + 0.75  # far from zero: the case that breaks quantizers that do not widen the range
    elif kind == "negative":
        w = -w.abs() / 8 - 0.75
    elif kind == "constant":
        w = torch.full_like(w, float(w[0, 0]))
    elif kind == "zero row":
        w[0] = 0
    elif kind == "outlier":
        w /= 1000
        w[-1, -1] = 1
    elif kind == "zeros":
        w.zero_()
    # A scale is float32 at most, so float64 weights stay in that range.
    limits = torch.finfo(torch.float32 if dtype == torch.float64 else dtype)
    magnitude = draw(st.sampled_from([1.0, 0.02, 3000.0, 8 * limits.smallest_normal * limits.eps, limits.max]))
    w = (w * magnitude).to(dtype)
    layout = draw(st.sampled_from(["plain", "transposed", "strided"]))
    if layout == "transposed":
        w = w.t().contiguous().t()
    elif layout == "strided":
        w = w.repeat_interleave(2, dim=1)[:, ::2]
    return w


def steps(w: torch.Tensor, bits: int, group_size: affine.GroupSize, symmetric: bool) -> torch.Tensor:
    """float64 (out, in): the ideal step at every weight, from the data alone, with plain loops."""
    w = w.double()
    out = torch.empty(w.shape, dtype=torch.float64)
    width = {"channel": w.shape[1], "tensor": w.shape[1]}.get(group_size, group_size)
    assert isinstance(width, int)
    for row in range(w.shape[0]):
        for start in range(0, w.shape[1], width):
            group = w if group_size == "tensor" else w[row, start : start + width]
            low, high = min(float(group.min()), 0.0), max(float(group.max()), 0.0)
            step = max(-low, high) / (2 ** (bits - 1) - 1) if symmetric else (high - low) / (2**bits - 1)
            out[row, start : start + width] = step
    return out


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("group_size", GRANULARITIES)
@pytest.mark.parametrize("bits", range(2, 9))
@settings(max_examples=60)
@given(w=weights(), scale_dtype=st.sampled_from(DTYPES))
def test_no_weight_moves_by_more_than_half_a_step(
    w: torch.Tensor, scale_dtype: torch.dtype, bits: int, group_size: affine.GroupSize, symmetric: bool
) -> None:
    q = affine.quantize(w, bits, group_size, symmetric, scale_dtype)
    step = steps(w, bits, group_size, symmetric)
    # Half a step, longer by the rounding of the scale. Then the arithmetic: a quotient of at most 255 steps is rounded
    # once (2^-24 of it, which can flip a near-tie) and so is the product in float32: 2 * 255 * 2^-24 < 2^-15 steps.
    # Among subnormals a scale is rounded up by as much as one LEAST, so half a step is longer by half of that.
    bound = step / 2 * (1 + ROUND_UP[scale_dtype]) + step * 2.0**-15 + LEAST / 2
    for dtype in (torch.float32, torch.float64):
        back = q.dequantize(dtype)
        assert back.dtype == dtype and back.shape == w.shape and bool(torch.isfinite(back).all())
        error = (back.double() - w.double()).abs()
        assert bool((error <= bound).all()), f"{float((error / bound).max())} times the bound in {dtype}"
        assert not bool(back[w == 0].any()), "zero is not exact"
    codes = q.codes()
    assert codes.dtype == torch.uint8 and int(codes.max()) < 2**bits
    assert not symmetric or int(codes.min()) >= 1, "the grid is not symmetric"
    assert bool(torch.isfinite(q.dequantize()).all()) and q.dequantize().dtype == w.dtype
    assert torch.equal(affine.rounded(w, bits, group_size, symmetric, scale_dtype), q.dequantize())


@given(
    w=weights(),
    bits=st.integers(2, 8),
    group_size=st.sampled_from(GRANULARITIES),
    symmetric=st.booleans(),
    scale_dtype=st.sampled_from(DTYPES),
)
def test_bytes_are_those_that_are_held(
    w: torch.Tensor, bits: int, group_size: affine.GroupSize, symmetric: bool, scale_dtype: torch.dtype
) -> None:
    q = affine.quantize(w, bits, group_size, symmetric, scale_dtype)
    rows, columns = w.shape
    width = group_size if isinstance(group_size, int) else columns
    scale_rows, groups = (1, 1) if group_size == "tensor" else (rows, math.ceil(columns / width))
    assert q.packed.shape == (rows, math.ceil(columns * bits / 8))
    assert q.scales.shape == q.zero_points().shape == (scale_rows, groups)
    assert q.symmetric == symmetric and (q.zeros is None) == symmetric
    assert q.zeros is None or q.zeros.shape == (scale_rows, math.ceil(groups * bits / 8))
    held = [t for t in (q.packed, q.scales, q.zeros) if t is not None]
    assert q.nbytes == sum(t.untyped_storage().nbytes() for t in held)
    assert q.bits_per_weight == pytest.approx(8 * q.nbytes / w.numel(), rel=1e-12)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, 4.125),
        ({"symmetric": False}, 4.15625),
        ({"scale_dtype": torch.float32}, 4.25),
        ({"bits": 3}, 3.125),
        ({"bits": 8, "group_size": "channel"}, 8 + 16 / 1024),
        ({"bits": 5, "group_size": "tensor"}, 5 + 16 / (4 * 1024)),
    ],
)
def test_bits_per_weight(options: dict[str, Any], expected: float) -> None:
    w = torch.randn(4, 1024, generator=torch.Generator().manual_seed(0))
    assert affine.quantize(w, **options).bits_per_weight == expected


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("row", [[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], [0.8, 0.9, 1.0, 1.1, 1.2]])
def test_one_sided_weights_survive_the_zero_point(row: list[float], sign: int) -> None:
    # Five public courses round the zero-point and clip it without first widening the range to include zero:
    # [1 .. 6] comes back as [1, 2, 3, 4, 5, 5], and the second row as 0.4 everywhere.
    w = sign * torch.tensor([row])
    q = affine.quantize(w, bits=8, group_size="channel", symmetric=False, scale_dtype=torch.float32)
    assert float((q.dequantize() - w).abs().max()) <= max(row) / 255 / 2 * (1 + 1e-4)
    assert q.zero_points().item() == (0 if sign == 1 else 255)


def test_a_group_of_zeros_has_scale_one() -> None:
    w = torch.zeros(2, 6)
    w[1, 4] = 3.0
    q = affine.quantize(w, group_size=3)
    assert q.scales[:, 0].tolist() == [1.0, 1.0] and q.scales[0, 1] == 1.0
    assert torch.equal(q.dequantize()[0], w[0])


@given(w=weights(), bits=st.integers(2, 8), symmetric=st.booleans(), scale_dtype=st.sampled_from(DTYPES))
def test_scales_are_the_next_number_up(w: torch.Tensor, bits: int, symmetric: bool, scale_dtype: torch.dtype) -> None:
    scales, _ = affine.choose_params(w, bits, "channel", symmetric, scale_dtype)
    exact = steps(w, bits, "channel", symmetric)[:, :1]
    exact[exact == 0] = 1
    assert bool((scales > 0).all()) and bool((scales.double() >= exact).all())
    below = torch.nextafter(scales.float(), torch.zeros(1)) if scales.dtype == torch.float32 else None
    if below is not None:
        assert bool((below.double() < exact).all())
    else:
        assert bool((scales.double() <= exact * (1 + ROUND_UP[scales.dtype])).all())


@pytest.mark.parametrize(
    ("magnitude", "scale_dtype", "kept"),
    [
        (1.0, torch.float16, torch.float16),
        (7 * 2.0**-14, torch.float16, torch.float16),  # the smallest normal float16 as a scale
        (7 * 2.0**-15, torch.float16, torch.float32),
        (7 * 65504.0, torch.float16, torch.float16),
        (7 * 65520.0, torch.float16, torch.float32),
        (7 * 65520.0, torch.bfloat16, torch.bfloat16),
        (1e-38, torch.bfloat16, torch.float32),
        (1e-45, torch.float16, torch.float32),
        (3e38, torch.float16, torch.float32),
    ],
)
def test_where_a_small_type_cannot_hold_a_scale_the_tensor_keeps_float32(
    magnitude: float, scale_dtype: torch.dtype, kept: torch.dtype
) -> None:
    w = torch.tensor([[1.0, 0.25], [magnitude, 0.0]])  # one bad group is enough
    assert affine.quantize(w, 4, "channel", scale_dtype=scale_dtype).scales.dtype == kept


def test_a_grid_past_the_range_saturates() -> None:
    # At 2 bits the code for -3e38 stands for -4e38, which float32 does not have.
    w = torch.tensor([[-3e38, 3e38]])
    assert bool(torch.isfinite(affine.quantize(w, 2, "channel", symmetric=False).dequantize()).all())
    assert bool(torch.isfinite(affine.rounded(w, 2, "channel", symmetric=False)).all())
    w = torch.tensor([[65504.0, -65504.0]], dtype=torch.float16)
    assert torch.equal(affine.quantize(w, 4, "channel").dequantize(), w)


def test_dequantize_rounds_once() -> None:
    w = torch.randn(8, 64, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    q = affine.quantize(w, 3, 16, symmetric=False)
    zeros = q.zero_points().double().repeat_interleave(16, dim=1)
    exact = (q.codes().double() - zeros) * q.scales.double().repeat_interleave(16, dim=1)
    assert torch.equal(q.dequantize(torch.float64), exact)
    assert torch.equal(q.dequantize(), exact.float().to(torch.bfloat16))


def test_parts_make_the_whole() -> None:
    w = torch.randn(6, 20, generator=torch.Generator().manual_seed(1))
    scales, zeros = affine.choose_params(w, 4, 8, symmetric=False)
    codes = affine.round_to_codes(w, scales, zeros, 4, 8)
    built = affine.from_codes(codes, scales, zeros, 4, 8, w.dtype)
    whole = affine.quantize(w, 4, 8, symmetric=False)
    assert torch.equal(built.packed, whole.packed) and torch.equal(built.dequantize(), whole.dequantize())
    assert torch.equal(built.codes(), codes) and zeros is not None and torch.equal(built.zero_points(), zeros)
    with pytest.raises(ValueError, match=r"scales: shape \(6, 2\).*\(6, 3\)"):
        affine.from_codes(codes, scales[:, :2], zeros, 4, 8, w.dtype)
    with pytest.raises(ValueError, match="zeros: shape"):
        affine.from_codes(codes, scales, zeros[:, :2], 4, 8, w.dtype)


def test_weights_past_the_grid_take_its_last_code() -> None:
    # A method may choose smaller scales than `choose_params`, and so clip the largest weights.
    w, scales = torch.tensor([[-100.0, -8.0, 3.0, 100.0]]), torch.ones(1, 1)
    assert affine.round_to_codes(w, scales, None, 4, "channel").tolist() == [[1, 1, 11, 15]]
    zeros = torch.tensor([[5]], dtype=torch.uint8)
    assert affine.round_to_codes(w, scales, zeros, 4, "channel").tolist() == [[0, 0, 8, 15]]


def test_a_group_wider_than_the_row_costs_nothing() -> None:
    w = torch.randn(2, 5, generator=torch.Generator().manual_seed(2))
    wide, channel = affine.quantize(w, 4, 10**12), affine.quantize(w, 4, "channel")
    assert torch.equal(wide.dequantize(), channel.dequantize()) and wide.nbytes == channel.nbytes


def near_ties(w: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """Where half a unit in the last place decides: two correct implementations may differ there."""
    quotient = w.double() / scales.double()
    return ((quotient - quotient.floor()) - 0.5).abs() < 1e-4


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("symmetric", [True, False])
def test_rounding_is_that_of_torch(bits: int, symmetric: bool) -> None:
    w = torch.randn(16, 200, generator=torch.Generator().manual_seed(bits)) + 0.3
    q = affine.quantize(w, bits, "channel", symmetric, scale_dtype=torch.float32)
    least = 1 if symmetric else 0
    theirs = torch.fake_quantize_per_channel_affine(
        w, q.scales[:, 0], q.zero_points()[:, 0].int(), 0, least, 2**bits - 1
    )
    clear = ~near_ties(w, q.scales)
    assert float(clear.float().mean()) > 0.99
    torch.testing.assert_close(q.dequantize()[clear], theirs[clear], rtol=1e-6, atol=0)


def test_int8_rows_are_those_of_bitsandbytes() -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    w = torch.randn(16, 200, generator=torch.Generator().manual_seed(0)).half()
    theirs, absmax, _ = functional.int8_vectorwise_quant(w)
    q = affine.quantize(w, 8, "channel", scale_dtype=torch.float32)
    torch.testing.assert_close(q.scales[:, 0], absmax / 127, rtol=2e-7, atol=0)
    clear = ~near_ties(w, q.scales)
    assert torch.equal((q.codes().int() - 128)[clear], theirs.int()[clear])


@pytest.mark.parametrize(
    ("w", "error", "message"),
    [
        (torch.tensor([[1.0, math.nan]]), ValueError, "w: 1 of 2 values are NaN or infinite"),
        (torch.tensor([[1.0, -math.inf]]), ValueError, "w: 1 of 2 values are NaN or infinite"),
        (torch.zeros(0, 4), ValueError, "w: shape .* is empty"),
        (torch.zeros(4, 0), ValueError, "w: shape .* is empty"),
        (torch.zeros(4), ValueError, r"w: shape \(4,\)"),
        (torch.zeros(1, 2, 3), ValueError, r"w: shape \(1, 2, 3\)"),
        (torch.zeros(2, 2, dtype=torch.int8), TypeError, r"w: got torch\.int8"),
        (torch.zeros(2, 2).to(torch.float8_e4m3fn), TypeError, "w: got torch.float8"),
        ([[1.0]], TypeError, "w: got list"),
        (torch.full((1, 1), 1e39, dtype=torch.float64), ValueError, "w: holds 1e.39, past float32"),
    ],
)
def test_bad_weights_are_refused(w: Any, error: type[Exception], message: str) -> None:
    for function in (affine.quantize, affine.rounded):
        with pytest.raises(error, match=message):
            function(w)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bits": 1}, ValueError, "bits: got 1; choose from 2 to 8"),
        ({"bits": 9}, ValueError, "bits: got 9"),
        ({"bits": 4.0}, TypeError, r"bits: got 4\.0"),
        ({"bits": True}, TypeError, "bits: got True"),
        ({"group_size": 0}, ValueError, "group_size: got 0"),
        ({"group_size": -1}, ValueError, "group_size: got -1"),
        ({"group_size": "row"}, ValueError, "group_size: got 'row'"),
        ({"group_size": 32.0}, TypeError, r"group_size: got 32\.0"),
        ({"group_size": None}, TypeError, "group_size: got None"),
        ({"symmetric": 1}, TypeError, "symmetric: got 1"),
        ({"scale_dtype": torch.float64}, ValueError, "scale_dtype: got torch.float64"),
        ({"scale_dtype": "float16"}, ValueError, "scale_dtype: got float16"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    for function in (affine.quantize, affine.rounded):
        with pytest.raises(error, match=message):
            function(torch.ones(2, 2), **options)
