"""HQQ: never worse than round-to-nearest in its own objective, and the published error on N(0, 1)."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlab.formats import affine
from qlab.methods import hqq


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def objective(w: torch.Tensor, q: affine.AffineWeight, p: float = 0.7) -> torch.Tensor:
    """sum |w - dequantized|^p of every group, float64 (rows, groups)."""
    error = (w.double() - q.dequantize(torch.float64)).abs().pow(p)
    width = w.shape[1] if isinstance(q.group_size, str) else min(q.group_size, w.shape[1])
    sums = torch.stack([run.sum(1) for run in error.split(width, 1)], 1)
    return sums.sum().reshape(1, 1) if q.group_size == "tensor" else sums


def test_the_published_error_on_normal_weights() -> None:
    # hqq's own library gives mean |error| .0717 on N(0, 1) in groups of 64; round-to-nearest gives .0782.
    w = normal(1024, 1024)
    q = hqq.quantize(w, bits=4, group_size=64)
    assert float((w - q.dequantize()).abs().mean()) == pytest.approx(0.0717, abs=1e-3)
    nearest = affine.quantize(w, 4, 64, symmetric=False)
    assert float((w - nearest.dequantize()).abs().mean()) == pytest.approx(0.0782, abs=1e-3)


@given(
    rows=st.integers(1, 6),
    columns=st.integers(1, 70),
    bits=st.sampled_from([2, 3, 4, 8]),
    group_size=st.sampled_from([1, 7, 16, 64, "channel", "tensor"]),
    shape=st.sampled_from(["normal", "heavy", "positive", "far off", "flat", "integers"]),
    size=st.sampled_from([1e-6, 0.02, 1.0, 300.0]),
    scale_dtype=st.sampled_from([torch.float16, torch.bfloat16, torch.float32]),
    round_zeros=st.booleans(),
    p=st.sampled_from([0.5, 0.7, 1.0]),
    seed=st.integers(0, 10_000),
)
def test_no_group_is_worse_than_round_to_nearest(
    rows: int,
    columns: int,
    bits: int,
    group_size: affine.GroupSize,
    shape: str,
    size: float,
    scale_dtype: torch.dtype,
    round_zeros: bool,
    p: float,
    seed: int,
) -> None:
    w = normal(rows, columns, seed=seed)
    if shape == "heavy":
        w = w**3
    elif shape == "positive":
        w = w.abs() + 0.5
    elif shape == "far off":
        w = w * 1e-3 - 40
    elif shape == "flat":
        w = torch.full_like(w, float(w[0, 0]))
    elif shape == "integers":
        w = (w * 4).round()
    w = w * size
    q = hqq.quantize(w, bits, group_size, scale_dtype, round_zeros=round_zeros, p=p)
    nearest = affine.quantize(w, bits, group_size, False, scale_dtype)
    assert q.scales.dtype == nearest.scales.dtype
    # The search measures in float32: errors that are mere rounding (of 8-bit or flat groups) may fall either way.
    width = columns if isinstance(group_size, str) else min(group_size, columns)
    noise = (rows if group_size == "tensor" else 1) * width * (float(w.abs().max()) * 2**-21) ** p
    assert bool((objective(w, q, p) <= objective(w, nearest, p) * (1 + 1e-5) + noise).all())


@pytest.mark.parametrize("size", [1.0, 0.02, 1e-6])
@pytest.mark.parametrize("round_zeros", [False, True])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_every_measure_falls_at_any_size_of_weights(bits: int, round_zeros: bool, size: float) -> None:
    w = normal(32, 512, seed=bits) * size
    q = hqq.quantize(w, bits, round_zeros=round_zeros, scale_dtype=torch.float32)
    nearest = affine.quantize(w, bits, 64, False, torch.float32)
    assert float(objective(w, q).sum()) < 0.97 * float(objective(w, nearest).sum())
    for power in (1, 2):
        assert float(objective(w, q, power).sum()) < 0.97 * float(objective(w, nearest, power).sum())


@pytest.mark.parametrize("bits", [3, 4])
def test_shrinking_the_errors_is_what_lowers_the_norm(bits: int) -> None:
    w = normal(128, 512, seed=bits) * 0.02
    least_squares = hqq.quantize(w, bits, beta=1e-9)  # no error survives: the zero-point follows the mean
    assert float(objective(w, hqq.quantize(w, bits)).sum()) < 0.995 * float(objective(w, least_squares).sum())


def test_kappa_counts_from_the_second_iteration() -> None:
    w = normal(16, 64)
    zeros = [[hqq.quantize(w, kappa=k, iterations=i).zero_points() for k in (1.0, 1.5)] for i in (1, 6)]
    assert torch.equal(*zeros[0]) and not torch.equal(*zeros[1])


def test_scales_never_become_subnormal() -> None:
    tiny = torch.finfo(torch.float16).tiny
    w = normal(32, 64, seed=2)
    w *= 15.01 * tiny / (w.amax(1, keepdim=True) - w.amin(1, keepdim=True))  # round-to-nearest is just above the edge
    q = hqq.quantize(w, round_zeros=True)
    assert q.scales.dtype == torch.float16 and float(q.scales.min()) == tiny
    narrow = 1e-3 + 1e-5 * torch.rand(32, 64, generator=torch.Generator().manual_seed(0))  # its own grid would be finer
    q = hqq.quantize(narrow)
    assert q.scales.dtype == torch.float16 and float(q.scales.min()) == tiny


def test_the_result_follows_the_size_of_the_weights() -> None:
    w = normal(8, 256, seed=3)
    large, small = (hqq.quantize(v, scale_dtype=torch.float32) for v in (w, w * 2**-6))
    assert torch.equal(large.codes(), small.codes()) and torch.equal(large.zero_points(), small.zero_points())
    assert torch.equal(large.scales, small.scales * 2**6)


def test_a_group_does_not_depend_on_its_neighbors() -> None:
    w = normal(4, 100, seed=4)
    together = hqq.quantize(w, group_size=32)  # the last group has 4 weights
    for row in range(4):
        for group, run in enumerate(w.split(32, 1)):
            alone = hqq.quantize(run[row : row + 1], group_size=32)
            assert torch.equal(alone.scales[0, 0], together.scales[row, group])
            assert torch.equal(alone.zero_points()[0, 0], together.zero_points()[row, group])
            assert torch.equal(alone.codes()[0], together.codes().split(32, 1)[group][row])


@pytest.mark.parametrize("round_zeros", [False, True])
@pytest.mark.parametrize("group_size", [16, 33, "channel", "tensor"])
def test_no_other_code_is_closer(group_size: affine.GroupSize, round_zeros: bool) -> None:
    w = normal(5, 45, seed=1)
    q = hqq.quantize(w, 3, group_size, round_zeros=round_zeros)
    width = 45 if isinstance(group_size, str) else group_size
    index = torch.arange(45) // width
    scales, zeros = (t.double().expand(5, -1)[:, index, None] for t in (q.scales, q.zero_points()))  # (out, in, 1)
    distance = ((torch.arange(8) - zeros) * scales - w.double()[..., None]).abs()  # (out, in, codes)
    chosen = (q.dequantize(torch.float64) - w.double()).abs()
    assert bool((chosen <= distance.amin(-1) + 1e-5 * scales[..., 0]).all())


def test_what_is_held() -> None:
    w = normal(6, 128).to(torch.bfloat16)
    q = hqq.quantize(w, scale_dtype=torch.bfloat16)
    assert isinstance(q, affine.AffineWeight) and q.dtype == torch.bfloat16 and q.label.endswith("real zero-points")
    assert q.zero_points().dtype == q.scales.dtype == torch.bfloat16
    assert q.bits_per_weight == 4.5  # 16 bits of scale and 16 of zero-point for 64 weights
    assert bool((q.zero_points() != q.zero_points().round()).any())
    integer = hqq.quantize(w, round_zeros=True)
    assert integer.zero_points().dtype == torch.uint8 and integer.bits_per_weight == 4 + 20 / 64
    plain = affine.quantize(w, 4, 64, False)
    assert torch.equal(integer.zero_points(), plain.zero_points())


def test_no_integer_zero_point_beats_that_of_round_to_nearest() -> None:
    # Why `round_zeros` fits the scale instead: with the scale as it is, all other zero-points are worse.
    w = normal(64, 64, seed=5)
    scales, zeros = affine.choose_params(w, 4, 64, False)
    assert zeros is not None
    best = objective(w, affine.quantize(w, 4, 64, False))
    for shift in range(-15, 16):
        moved = (zeros.int() + shift).clamp(0, 15).to(torch.uint8)
        codes = affine.round_to_codes(w, scales, moved, 4, 64)
        assert bool((objective(w, affine.from_codes(codes, scales, moved, 4, 64, w.dtype)) >= best).all())


@pytest.mark.parametrize("round_zeros", [False, True])
@pytest.mark.parametrize("group_size", [4, 3, "channel", "tensor"])
def test_degenerate_groups(group_size: affine.GroupSize, round_zeros: bool) -> None:
    w = torch.tensor([[0.0] * 8, [0.7] * 8, [-0.3] * 8, [0.0] * 7 + [5.0], [-0.0, 1e-7] * 4])
    q = hqq.quantize(w, 4, group_size, round_zeros=round_zeros)
    back = q.dequantize(torch.float64)
    assert bool(back.isfinite().all()) and bool(q.scales.isfinite().all()) and bool(q.zero_points().isfinite().all())
    assert bool((q.scales > 0).all())
    if group_size != "tensor":
        assert bool((back[0] == 0).all())
        torch.testing.assert_close(back[1:4], w[1:4].double(), rtol=2e-3, atol=0)


@pytest.mark.parametrize("round_zeros", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_the_ends_of_every_type(dtype: torch.dtype, round_zeros: bool) -> None:
    largest = torch.finfo(torch.float32 if dtype == torch.float64 else dtype).max
    smallest = torch.finfo(dtype).smallest_normal if dtype != torch.float64 else 1e-300
    for extreme in (largest, smallest):
        w = torch.tensor([[-1.0, 0.25, 0.5, 1.0, 0.0, -0.25]], dtype=torch.float64).mul(extreme).to(dtype)
        q = hqq.quantize(w, 4, 4, round_zeros=round_zeros)
        for part in (q.dequantize(), q.scales, q.zero_points()):
            assert bool(part.isfinite().all())


def test_weights_that_lie_far_from_zero_get_a_finer_grid() -> None:
    w = normal(8, 64, seed=6) * 0.01 + 1.0
    fine = hqq.quantize(w, scale_dtype=torch.float32)
    assert bool((fine.zero_points() < -100).all())
    coarse = affine.quantize(w, 4, 64, False, torch.float32)
    assert bool((objective(w, fine, 1) < 0.25 * objective(w, coarse, 1)).all())


def test_the_weights_given_are_left_alone() -> None:
    w = normal(3, 70)
    before = w.clone()
    hqq.quantize(w)
    hqq.quantize(w.T)  # not contiguous
    assert torch.equal(w, before)
    assert torch.equal(hqq.quantize(w.T).codes(), hqq.quantize(w.T.contiguous()).codes())


def test_shrink_solves_its_step() -> None:
    # It stands for the minimum over e of |e|^p + beta/2 (e - x)^2; for p = 1 it is that minimum exactly.
    x = torch.linspace(-2, 2, 41, dtype=torch.float64)
    e = torch.linspace(-2.5, 2.5, 50_001, dtype=torch.float64)
    cost = e.abs() + 2.0 * (e - x[:, None]).square()  # beta = 4
    torch.testing.assert_close(hqq.shrink(x, 4.0, 1.0), e[cost.argmin(1)], rtol=0, atol=1e-4)
    shrunk = hqq.shrink(x, 10.0, 0.7)
    threshold = 10 ** (-1 / 1.3)  # what the docstring says: below, nothing is left
    assert bool((shrunk[x.abs() < threshold] == 0).all())
    assert bool((shrunk[x.abs() > threshold] * x[x.abs() > threshold] > 0).all())
    assert bool(hqq.shrink(torch.zeros(1), 10.0, 0.7).eq(0).all())


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"bits": 1}, ValueError, "bits: got 1"),
        ({"group_size": 0}, ValueError, "group_size: got 0"),
        ({"scale_dtype": torch.int8}, ValueError, "scale_dtype: got torch.int8"),
        ({"round_zeros": 1}, TypeError, "round_zeros: got 1"),
        ({"p": 0}, ValueError, "p: got 0"),
        ({"p": 1.5}, ValueError, "p: got 1.5"),
        ({"p": "0.7"}, TypeError, "p: got '0.7'"),
        ({"beta": 0.0}, ValueError, "beta: got 0.0"),
        ({"beta": float("nan")}, ValueError, "beta: got nan"),
        ({"kappa": 0.5}, ValueError, "kappa: got 0.5"),
        ({"iterations": -1}, ValueError, "iterations: got -1"),
        ({"iterations": 2.0}, TypeError, "iterations: got 2.0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        hqq.quantize(torch.ones(2, 2), **options)


def test_no_iterations_leave_round_to_nearest() -> None:
    w = normal(4, 64)
    q, nearest = hqq.quantize(w, iterations=0, round_zeros=True), affine.quantize(w, 4, 64, False)
    assert torch.equal(q.packed, nearest.packed) and torch.equal(q.scales, nearest.scales)
