"""The codebook formats against bounds from the weights alone, and against bitsandbytes and compressed-tensors."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from qlab.formats import codebook

DATA_TYPES = ("nf4", "fp4", "e2m1")
DTYPES = (torch.float16, torch.bfloat16, torch.float32)
BLOCK_SIZES = (1, 2, 3, 5, 7, 16, 64, 4096, 10**12)
TINY = 1e-38  # below it a block loses precision, as in bitsandbytes


@st.composite
def weights(draw: st.DrawFn, dtypes: tuple[torch.dtype, ...] = DTYPES, extremes: bool = True) -> torch.Tensor:
    dtype = draw(st.sampled_from(dtypes))
    rows, columns = draw(st.integers(1, 5)), draw(st.sampled_from([1, 2, 7, 16, 33, 130]))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    w = torch.randn(rows, columns, generator=generator, dtype=torch.float64).clamp(-4, 4) / 4
    kind = draw(st.sampled_from(["normal", "positive", "constant", "zero row", "outlier", "zeros"]))
    if kind == "positive":
        w = w.abs()
    elif kind == "constant":
        w = torch.full_like(w, float(w[0, 0]))
    elif kind == "zero row":
        w[0] = 0
    elif kind == "outlier":
        w[-1, -1] = 50
        w /= 50
    elif kind == "zeros":
        w.zero_()
    magnitudes = [1.0, 0.02, 3000.0]
    if extremes:
        limits = torch.finfo(torch.float32 if dtype == torch.float64 else dtype)
        magnitudes += [8 * limits.smallest_normal * limits.eps, limits.max]
    w = (w * draw(st.sampled_from(magnitudes))).to(dtype)
    return w.t().contiguous().t() if draw(st.booleans()) else w


def scales_by_loop(w: torch.Tensor, block_size: int, top: float) -> torch.Tensor:
    """float64 (out, in): absmax / top of every weight's block."""
    flat = w.double().reshape(-1)
    out = torch.empty_like(flat)
    for start in range(0, len(flat), block_size):
        out[start : start + block_size] = flat[start : start + block_size].abs().max() / top
    return out.view(w.shape)


# --- The tables -----------------------------------------------------------------------------------------------------


def test_nf4_is_what_its_quantiles_give() -> None:
    values = codebook.nf4_from_quantiles()
    assert values.dtype == torch.float32 and torch.equal(values, codebook.CODES["nf4"])
    assert int((values < 0).sum()) == 7 and int((values > 0).sum()) == 8 and values[7] == 0


def test_tables_are_those_of_bitsandbytes() -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    for data_type in ("nf4", "fp4"):
        assert torch.equal(codebook.CODES[data_type], functional.get_4bit_type(data_type, device="cpu"))
    assert torch.equal(codebook.dynamic_map(), functional.create_dynamic_map())


def test_two_floats_that_differ_in_one_magnitude() -> None:
    fp4, e2m1 = (codebook.CODES[name][:8].sort().values for name in ("fp4", "e2m1"))
    e2m1 = e2m1 / 6
    differ = fp4 != e2m1
    assert differ.nonzero().tolist() == [[1]]
    assert fp4[1] == torch.tensor(1 / 192) and e2m1[1] == torch.tensor(1 / 12)


def test_the_dynamic_map() -> None:
    values = codebook.dynamic_map()
    assert len(values.unique()) == 256 and bool((values.diff() > 0).all())
    assert values[-1] == 1 and values[127] == 0
    assert torch.equal(values[:127].flip(0), -values[128:255])  # 1 alone has no negative
    # 2^e fractions at the magnitude 10^(e - 6)
    decade = torch.log10(values[128:255].double()).ceil().long()
    assert torch.bincount(decade + 6).tolist() == [1, 2, 4, 8, 16, 32, 64]


# --- What quantizing promises ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("data_type", DATA_TYPES)
@settings(max_examples=150)
@given(w=weights((*DTYPES, torch.float64)), block_size=st.sampled_from(BLOCK_SIZES))
def test_every_weight_gets_the_nearest_value(w: torch.Tensor, block_size: int, data_type: str) -> None:
    q = codebook.quantize(w, data_type, block_size)
    values = codebook.CODES[data_type].double()
    scales = scales_by_loop(w, block_size, float(values.max()))  # (out, in)
    distances = (values * scales[..., None] - w.double()[..., None]).abs()  # (out, in, 16)
    chosen = distances.gather(-1, q.codes().long()[..., None])[..., 0]
    # The ratio to the scale is rounded three times, which can flip a near-tie.
    slack = values.max() * scales * 2.0**-21 + TINY
    assert bool((chosen <= distances.amin(-1) + slack).all())
    widest = values.sort().values.diff().max()
    back = q.dequantize(torch.float32)
    assert back.dtype == torch.float32 and back.shape == w.shape and bool(torch.isfinite(back).all())
    assert bool(((back.double() - w.double()).abs() <= widest / 2 * scales + slack).all())
    assert not bool(back[w == 0].any()), "zero is not exact"
    assert q.dequantize().dtype == w.dtype and bool(torch.isfinite(q.dequantize()).all())


@pytest.mark.parametrize("data_type", DATA_TYPES)
@given(
    scale=st.floats(2.0**-100, 2.0**100, width=32),
    block_size=st.sampled_from([1, 2, 7, 16, 50]),
    seed=st.integers(0, 2**32),
)
def test_values_of_the_codebook_survive(data_type: str, scale: float, block_size: int, seed: int) -> None:
    values = codebook.CODES[data_type]
    codes = torch.randint(0, 16, (5, 19), generator=torch.Generator().manual_seed(seed))
    codes.view(-1)[::block_size] = int(values.argmax())  # a block needs its largest value, or its scale is another
    w = values[codes] * torch.tensor(scale)
    q = codebook.quantize(w, data_type, block_size)
    assert torch.equal(values[q.codes().long()], values[codes])
    torch.testing.assert_close(q.dequantize(), w, rtol=rounding(data_type, w.dtype), atol=0)


def rounding(data_type: str, dtype: torch.dtype) -> float:
    """How far float32 may move a scale of e2m1: a sixth of absmax is rounded, and so is six times the result."""
    return 2.0**-22 if data_type == "e2m1" and dtype == torch.float32 else 0.0


@pytest.mark.parametrize("data_type", DATA_TYPES)
@given(w=weights(extremes=False), block_size=st.sampled_from(BLOCK_SIZES))
def test_what_was_quantized_stays_as_it_is(w: torch.Tensor, block_size: int, data_type: str) -> None:
    first = codebook.quantize(w, data_type, block_size)
    second = codebook.quantize(first.dequantize(), data_type, block_size)
    rtol = rounding(data_type, w.dtype)
    torch.testing.assert_close(second.absmax, first.absmax, rtol=rtol, atol=0)
    torch.testing.assert_close(second.dequantize(), first.dequantize(), rtol=rtol, atol=0)


@pytest.mark.parametrize("double_quant", [False, True])
@pytest.mark.parametrize("data_type", DATA_TYPES)
@given(
    w=weights((torch.float32,), extremes=False),
    block_size=st.sampled_from([1, 7, 64]),
    exponent=st.integers(-40, 40),
)
def test_a_power_of_two_goes_into_the_scales(
    w: torch.Tensor, block_size: int, exponent: int, data_type: str, double_quant: bool
) -> None:
    rest = w.reshape(-1)[w.numel() - w.numel() % block_size :]
    assume(len(rest) == 0 or bool(rest.any()))  # the absmax of a short block of zeros is a constant
    q = codebook.quantize(w, data_type, block_size, double_quant)
    scaled = codebook.quantize(w * 2.0**exponent, data_type, block_size, double_quant)
    assert torch.equal(scaled.packed, q.packed)
    assert torch.equal(scaled.dequantize(), q.dequantize() * 2.0**exponent)
    if double_quant:
        assert q.nested_absmax is not None and scaled.nested_absmax is not None
        assert torch.equal(scaled.absmax, q.absmax)
        assert torch.equal(scaled.nested_absmax, q.nested_absmax * 2.0**exponent)


def test_e2m1_rounds_ties_to_even() -> None:
    # compressed-tensors rounds NVFP4 and MXFP4 weights with this function.
    cast = pytest.importorskip("compressed_tensors.quantization.utils.fp4_utils").cast_to_fp4
    edges = torch.tensor([0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0])
    near = torch.cat([edges, torch.nextafter(edges, torch.zeros(1)), torch.nextafter(edges, torch.full((1,), 9.0))])
    random = torch.rand(1000, generator=torch.Generator().manual_seed(0)) * 6
    w = torch.cat([near, -near, random, -random, torch.tensor([0.0, 6.0])])[None]
    q = codebook.quantize(w, "e2m1", w.numel())
    assert q.block_scales().tolist() == [1.0]
    assert torch.equal(q.dequantize(), cast(w.clone()))
    assert int(q.codes()[q.dequantize() == 0].max()) == 0, "minus zero was written"


# Constants of bitsandbytes' own tests, for N(0, 1).
PUBLISHED = {
    ("nf4", 32): 0.067746,
    ("nf4", 64): 0.072798,
    ("nf4", 128): 0.076831,
    ("nf4", 256): 0.080337,
    ("nf4", 4096): 0.092547,
    ("fp4", 32): 0.088925,
    ("fp4", 64): 0.096543,
    ("fp4", 128): 0.102969,
    ("fp4", 4096): 0.129536,
}


@pytest.mark.parametrize(("data_type", "block_size"), PUBLISHED)
def test_mean_absolute_errors_are_those_published(data_type: str, block_size: int) -> None:
    w = torch.randn(2048, 2048, generator=torch.Generator().manual_seed(0))
    error = (codebook.quantize(w, data_type, block_size).dequantize() - w).abs()
    blocks = error.view(-1, block_size).mean(-1)  # independent of each other, unlike the weights of one block
    standard_error = float(blocks.std()) / math.sqrt(len(blocks))
    # Both numbers are means of samples of about this size: seven standard errors of their difference.
    assert abs(float(error.mean()) - PUBLISHED[data_type, block_size]) <= 7 * math.sqrt(2) * standard_error


# --- Bytes ----------------------------------------------------------------------------------------------------------


def test_the_first_of_two_codes_is_the_high_nibble() -> None:
    q = codebook.quantize(torch.tensor([[-1.0, 1.0, 0.0]]))
    assert q.packed.tolist() == [0x0F, 0x77]  # the last low nibble is filled with the code of zero
    assert q.codes().tolist() == [[0, 15, 7]] and q.codes().dtype == torch.uint8
    assert codebook.quantize(torch.tensor([[-1.0, 1.0, 0.0]]), "fp4").packed.tolist() == [0xB3, 0x00]


@given(rows=st.integers(1, 6), columns=st.integers(1, 9), seed=st.integers(0, 2**32))
def test_packing_round_trip(rows: int, columns: int, seed: int) -> None:
    codes = torch.randint(0, 16, (rows, columns), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    packed = [0] * ((rows * columns + 1) // 2)
    for i, code in enumerate(codes.reshape(-1).tolist()):
        packed[i // 2] |= code << (4 if i % 2 == 0 else 0)
    absmax = torch.ones(rows * columns)
    q = codebook.CodebookWeight(
        torch.tensor(packed, dtype=torch.uint8), absmax, None, None, "nf4", 1, (rows, columns), torch.float32
    )
    assert torch.equal(q.codes(), codes)
    assert torch.equal(q.dequantize(), codebook.CODES["nf4"][codes.long()])
    assert torch.equal(codebook._pack(torch.nn.functional.pad(codes.view(-1), (0, codes.numel() % 2))), q.packed)


@given(
    w=weights(),
    data_type=st.sampled_from(DATA_TYPES),
    block_size=st.sampled_from(BLOCK_SIZES),
    double_quant=st.booleans(),
)
def test_bytes_are_those_that_are_held(w: torch.Tensor, data_type: str, block_size: int, double_quant: bool) -> None:
    q = codebook.quantize(w, data_type, block_size, double_quant)
    blocks = math.ceil(w.numel() / block_size)
    assert q.packed.shape == (math.ceil(w.numel() / 2),) and q.packed.dtype == torch.uint8
    assert q.absmax.shape == (blocks,) and q.absmax.dtype == (torch.uint8 if double_quant else torch.float32)
    assert q.block_scales().shape == (blocks,) and q.block_scales().dtype == torch.float32
    assert q.double_quant == double_quant == (q.nested_absmax is not None) == (q.nested_offset is not None)
    if q.nested_absmax is not None and q.nested_offset is not None:
        assert q.nested_absmax.shape == (math.ceil(blocks / 256),) and q.nested_absmax.dtype == torch.float32
        assert q.nested_offset.shape == () and q.nested_offset.dtype == torch.float32
    held = [t for t in (q.packed, q.absmax, q.nested_absmax, q.nested_offset) if t is not None]
    assert q.nbytes == sum(t.untyped_storage().nbytes() for t in held)
    assert q.bits_per_weight == pytest.approx(8 * q.nbytes / w.numel(), rel=1e-12)


def test_bits_per_weight_of_a_large_matrix() -> None:
    w = torch.randn(2048, 2048, generator=torch.Generator().manual_seed(0))
    assert codebook.quantize(w, block_size=64).bits_per_weight == 4.5
    nested = codebook.quantize(w, block_size=64, double_quant=True)
    assert nested.bits_per_weight == 4 + 8 / 64 + 32 / (64 * 256) + 32 / w.numel()
    assert round(nested.bits_per_weight, 3) == 4.127


def test_labels() -> None:
    w = torch.ones(2, 2)
    assert codebook.quantize(w).label == "NF4, blocks of 64"
    assert codebook.quantize(w, "e2m1", 32, double_quant=True).label == "E2M1, blocks of 32, double quantization"


# --- Edges ----------------------------------------------------------------------------------------------------------


def test_double_quantization_has_no_error_where_all_blocks_agree() -> None:
    w = torch.full((4, 64), 0.37)
    q = codebook.quantize(w, double_quant=True)
    assert torch.equal(q.dequantize(), w) and q.nested_absmax is not None and not bool(q.nested_absmax.any())


@given(w=weights(), block_size=st.sampled_from([1, 7, 64]))
def test_double_quantization_moves_scales_by_half_a_gap(w: torch.Tensor, block_size: int) -> None:
    plain = codebook.quantize(w, "nf4", block_size)
    q = codebook.quantize(w, "nf4", block_size, double_quant=True)
    assert torch.equal(q.packed, plain.packed)
    assert q.nested_absmax is not None and q.nested_offset is not None
    widest = float(codebook.dynamic_map().diff().max())
    largest = q.nested_absmax.double().repeat_interleave(256)[: len(plain.absmax)]
    # Half a gap and half a step of the 65536 points; then the rounding of the sums.
    bound = largest * (widest / 2 + 1 / 65535) + (largest + q.nested_offset.double().abs()) * 2.0**-22 + TINY
    assert bool(((q.block_scales().double() - plain.block_scales().double()).abs() <= bound).all())


def test_a_value_past_the_range_is_the_largest_one() -> None:
    # Scales differ so much that double quantization moves the largest by more than float16 has room for.
    w = torch.full((256, 64), 65504.0, dtype=torch.float16)
    w[:32] = 0
    q = codebook.quantize(w, double_quant=True)
    assert float(q.block_scales().max()) > 65520
    assert torch.equal(q.dequantize(), w)
    # The sum of these scales, and then some of the scales themselves, are past float32.
    huge = torch.full((256, 64), 3.4e38)
    huge[:32] = 0
    q = codebook.quantize(huge, double_quant=True)
    assert bool(torch.isfinite(q.block_scales()).all()) and bool(torch.isfinite(q.dequantize()).all())
    torch.testing.assert_close(q.dequantize(), huge, rtol=0.01, atol=0)
    assert bool(torch.isfinite(codebook.quantize(torch.full((1, 2), 3.4e38)).dequantize(torch.bfloat16)).all())


def test_blocks_cross_the_ends_of_rows() -> None:
    # bitsandbytes 0.50 takes wrong scales here when it dequantizes with AVX-512: it counts whole blocks in each row.
    w = torch.randn(3, 48, generator=torch.Generator().manual_seed(0)) * torch.tensor([[0.01], [1.0], [100.0]])
    q = codebook.quantize(w, block_size=32)
    scales = [float(block.abs().max()) for block in w.reshape(-1).split(32)]
    expected = [codebook.CODES["nf4"][code] * scales[i // 32] for i, code in enumerate(q.codes().reshape(-1).tolist())]
    assert torch.equal(q.dequantize().reshape(-1), torch.stack(expected))


def test_pieces_do_not_show() -> None:
    # Long enough for several pieces; block sizes that divide a piece, that do not, and that are longer than one.
    w = torch.randn(301, 333, generator=torch.Generator().manual_seed(0))
    for block_size in (1, 3, 64, 100, 40001):
        q = codebook.quantize(w, "fp4", block_size)
        flat, codes = w.reshape(-1), q.codes().reshape(-1)
        for start in range(0, w.numel(), max(block_size, 9999 // block_size * block_size)):
            part = flat[start : start + block_size]
            alone = codebook.quantize(part[None], "fp4", block_size)
            assert torch.equal(alone.codes()[0], codes[start : start + block_size])
            assert torch.equal(alone.absmax, q.absmax[start // block_size : start // block_size + 1])


def test_layout_and_gradients_do_not_matter() -> None:
    w = torch.randn(16, 24, generator=torch.Generator().manual_seed(0))
    expected = codebook.quantize(w).dequantize()
    assert torch.equal(codebook.quantize(w.t().contiguous().t()).dequantize(), expected)
    assert torch.equal(codebook.quantize(torch.nn.Parameter(w)).dequantize(), expected)
    before = w.clone()
    codebook.quantize(w, double_quant=True).dequantize()
    assert torch.equal(w, before)


# --- bitsandbytes, bit for bit --------------------------------------------------------------------------------------


@pytest.fixture
def functional() -> Iterator[Any]:
    module = pytest.importorskip("bitsandbytes.functional")
    version = tuple(map(int, pytest.importorskip("bitsandbytes").__version__.split(".")[:2]))
    if version < (0, 50) or platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("the arithmetic is that of bitsandbytes 0.50 on x86-64")
    with torch.compiler.set_stance("force_eager"):  # it would compile its fallback for every shape
        yield module


def sample(kind: str, shape: tuple[int, int], dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(shape[1])
    w = torch.randn(shape, generator=generator, dtype=torch.float64)
    limits = torch.finfo(dtype)
    if kind == "constant":
        w = torch.full(shape, -0.37, dtype=torch.float64)
    elif kind == "zeros":
        w.zero_()
    elif kind == "zero blocks":
        w.view(-1)[: w.numel() // 2] = 0
    elif kind == "spread":
        w *= torch.logspace(-6, 3, w.numel(), dtype=torch.float64).view(shape)
    elif kind == "tiny":  # around the smallest normal number; for float16 around its subnormal ones
        w *= 1e-38 if dtype != torch.float16 else 1e-7
    elif kind == "subnormal":
        w *= 3e-44
    elif kind == "large":
        w *= limits.max * 0.999 / w.abs().max()
    return w.to(dtype)


@pytest.mark.parametrize("double_quant", [False, True])
@pytest.mark.parametrize("data_type", ["nf4", "fp4"])
@pytest.mark.parametrize("kind", ["normal", "constant", "zeros", "zero blocks", "spread", "tiny", "subnormal", "large"])
def test_bits_are_those_of_bitsandbytes(functional: Any, kind: str, data_type: str, double_quant: bool) -> None:
    for dtype in DTYPES:
        for shape in ((1, 1), (3, 5), (5, 100), (33, 127), (16, 4096), (9, 8269)):
            w = sample(kind, shape, dtype)
            for block_size in (32, 64, 128, 256, 512, 1024, 2048, 4096):
                where = f"{kind} {dtype} {shape} {block_size}"
                packed, state = functional.quantize_4bit(
                    w, blocksize=block_size, compress_statistics=double_quant, quant_type=data_type
                )
                q = codebook.quantize(w, data_type, block_size, double_quant)
                assert torch.equal(q.packed, packed.view(-1)), where
                if double_quant and not bool(torch.isfinite(state.offset)):
                    assert kind == "large" and dtype != torch.float16  # their mean overflows, and nothing is finite
                    assert bool(torch.isfinite(q.block_scales()).all()), where
                    continue
                assert torch.equal(q.absmax, state.absmax), where
                if double_quant:
                    assert q.nested_offset is not None and torch.equal(q.nested_offset, state.offset), where
                    assert torch.equal(q.nested_absmax, state.state2.absmax), where
                # As one row: with AVX-512 it takes wrong scales where rows are not whole blocks.
                state.shape = torch.Size((1, w.numel()))
                theirs = functional.dequantize_4bit(packed, state).view(shape)
                ours = q.dequantize()
                if dtype == torch.bfloat16:  # with AVX-512 BF16 it drops numbers below the smallest normal one
                    theirs = torch.where(ours.abs() <= torch.finfo(dtype).smallest_normal, ours, theirs)
                theirs = theirs.clamp(-torch.finfo(dtype).max, torch.finfo(dtype).max)  # it lets them overflow
                assert torch.equal(ours, theirs), where


def test_scales_of_scales_are_those_of_bitsandbytes(functional: Any) -> None:
    # Deviations of all magnitudes down to 1e-8 of the largest, where the codebook is finer than its 65536 points.
    generator = torch.Generator().manual_seed(0)
    deviations = 10 ** (-8 * torch.rand(100_000, generator=generator))
    absmax = 1 + torch.where(torch.rand(100_000, generator=generator) < 0.5, deviations, -deviations)
    codes, state = functional.quantize_blockwise(absmax - absmax.mean(), blocksize=256)
    ours, largest, offset = codebook.quantize_scales(absmax)
    assert torch.equal(ours, codes) and torch.equal(largest, state.absmax) and torch.equal(offset, absmax.mean())
    table = codebook.dynamic_map()
    ratios = (absmax - offset) / largest.repeat_interleave(256)[: len(absmax)]
    nearest = torch.bucketize(ratios, (table[:-1] + table[1:]) / 2)
    assert float(table[ours.long()].abs().min()) > 1e-5 > float(table[nearest].abs().min())
    assert float((table[ours.long()] - ratios).abs().max()) <= float(table.diff().max()) / 2 + 1 / 65535


@pytest.mark.parametrize("data_type", ["nf4", "fp4"])
def test_ties_go_where_bitsandbytes_puts_them(functional: Any, data_type: str) -> None:
    values = codebook.CODES[data_type].sort().values
    bounds = (values[:-1] + values[1:]) / 2
    above, below = torch.full_like(bounds, 9.0), torch.full_like(bounds, -9.0)
    ties = torch.cat([bounds, torch.nextafter(bounds, above), torch.nextafter(bounds, below), torch.tensor([1.0])])
    w = torch.nn.functional.pad(ties, (0, 64 - len(ties)))[None]
    packed, _ = functional.quantize_4bit(w, blocksize=64, quant_type=data_type)
    assert torch.equal(codebook.quantize(w, data_type).packed, packed.view(-1))


# --- Bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("w", "error", "message"),
    [
        (torch.tensor([[1.0, math.nan]]), ValueError, "w: 1 of 2 values are NaN or infinite"),
        (torch.tensor([[1.0, -math.inf]]), ValueError, "w: 1 of 2 values are NaN or infinite"),
        (torch.zeros(0, 4), ValueError, "w: shape .* is empty"),
        (torch.zeros(4), ValueError, r"w: shape \(4,\)"),
        (torch.zeros(2, 2, dtype=torch.int8), TypeError, r"w: got torch\.int8"),
        ([[1.0]], TypeError, "w: got list"),
        (torch.full((1, 1), 1e39, dtype=torch.float64), ValueError, "w: holds 1e.39, past float32"),
    ],
)
def test_bad_weights_are_refused(w: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        codebook.quantize(w)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"data_type": "nf5"}, ValueError, "data_type: got 'nf5'; choose from 'nf4', 'fp4', 'e2m1'"),
        ({"data_type": ["nf4"]}, TypeError, r"data_type: got \['nf4'\]"),
        ({"data_type": None}, TypeError, "data_type: got None"),
        ({"block_size": 0}, ValueError, "block_size: got 0; it must be positive"),
        ({"block_size": -64}, ValueError, "block_size: got -64"),
        ({"block_size": 64.0}, TypeError, r"block_size: got 64\.0"),
        ({"block_size": True}, TypeError, "block_size: got True"),
        ({"double_quant": 1}, TypeError, "double_quant: got 1"),
    ],
)
def test_bad_arguments_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        codebook.quantize(torch.ones(2, 2), **options)
