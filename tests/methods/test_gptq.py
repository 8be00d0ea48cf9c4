"""GPTQ against Optimal Brain Surgeon written out with full inverses, against itself, and against round-to-nearest."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from qlab.formats import affine
from qlab.methods import gptq, rtn

GROUP_SIZES: tuple[affine.GroupSize, ...] = (1, 3, 4, 100, "channel", "tensor")


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def inputs(tokens: int, width: int, seed: int, correlated: bool = True) -> torch.Tensor:
    """float64 (tokens, width), channels of different size.

    Correlated: a quarter as many hidden variables as inputs, mixed at random, plus 0.3 of independent noise.
    """
    rng = generator(seed)
    x = torch.randn(tokens, width, generator=rng, dtype=torch.float64)
    if correlated:
        hidden = max(1, width // 4)
        mix = torch.randn(hidden, width, generator=rng, dtype=torch.float64) / math.sqrt(hidden)
        x = torch.randn(tokens, hidden, generator=rng, dtype=torch.float64) @ mix + 0.3 * x
    return x * torch.exp(torch.randn(width, generator=rng, dtype=torch.float64) / 2)


def second_moment(x: torch.Tensor) -> torch.Tensor:
    return 2 * x.T @ x / len(x)


def weighted_error(w: torch.Tensor, q: affine.AffineWeight, h: torch.Tensor) -> float:
    change = q.dequantize(torch.float64) - w.double()
    return float((change @ h.double() * change).sum())


def brain_surgeon(
    w: torch.Tensor,
    h: torch.Tensor,
    bits: int,
    group_size: affine.GroupSize,
    symmetric: bool,
    act_order: bool,
    static_groups: bool,
    damping: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes and rounded weights, in float64: before every column, the least-squares problem of the free columns anew.

    Whatever the fixed columns F do wrong, the free columns R do best at w_R + (w_F - q_F) H_FR (H_RR)⁻¹.
    """
    width = w.shape[1]
    h = h.clone()
    h.diagonal().add_(damping * h.diagonal().mean())
    order = sorted(range(width), key=lambda j: -float(h[j, j])) if act_order else list(range(width))
    step = width if isinstance(group_size, str) else group_size
    rounded, codes = torch.zeros_like(w), torch.zeros(w.shape, dtype=torch.int64)
    for position, j in enumerate(order):
        fixed, free = order[:position], order[position:]
        done = (w[:, fixed] - rounded[:, fixed]) @ h[fixed][:, free] @ torch.linalg.inv(h[free][:, free])
        now = w[:, free] + done  # (out, free)
        if isinstance(group_size, str) or static_groups:
            members = w[:, j // step * step : (j // step + 1) * step]
        elif position % step == 0:
            members = now[:, :step]
        scales, zeros = affine.choose_params(
            members, bits, "tensor" if group_size == "tensor" else "channel", symmetric
        )
        scale, zero = scales.double()[:, 0], torch.tensor(2.0 ** (bits - 1)) if zeros is None else zeros.double()[:, 0]
        code = (torch.round(now[:, 0] / scale) + zero).clamp(1 if symmetric else 0, 2**bits - 1)
        codes[:, j], rounded[:, j] = code.long(), (code - zero) * scale
    return codes, rounded


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize(("act_order", "static_groups"), [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("group_size", GROUP_SIZES)
def test_it_is_optimal_brain_surgeon(
    group_size: affine.GroupSize, act_order: bool, static_groups: bool, symmetric: bool
) -> None:
    for seed, bits in itertools.product(range(3), (2, 3, 4)):
        w = torch.randn(5, 11, generator=generator(seed), dtype=torch.float64)
        h = second_moment(inputs(40, 11, seed))
        options = (bits, group_size, symmetric, act_order, static_groups)
        q = gptq.quantize(w, h, *options, damping=0.02, block_size=4)
        codes, rounded = brain_surgeon(w, h, *options, damping=0.02)
        assert torch.equal(q.codes().long(), codes)
        torch.testing.assert_close(q.dequantize(), rounded, rtol=1e-12, atol=1e-12)


def test_worked_by_hand() -> None:
    # The scale is 1. 0.4 becomes 0; its input moves with the last one, so 1.4 becomes 1.6 and then 2. RTN says 1.
    w = torch.tensor([[-3.0, 0.4, 1.4]], dtype=torch.float64)
    h = torch.tensor([[1.0, 0.0, 0.0], [0.0, 2.0, 1.0], [0.0, 1.0, 2.0]], dtype=torch.float64)
    solution = gptq.solve(w, h, bits=3, group_size="channel", damping=0.0)
    assert solution.weight.dequantize().tolist() == [[-3.0, 0.0, 2.0]]
    assert solution.losses.item() == pytest.approx(0.4**2 / (2 * 2 / 3) + 0.4**2 / (2 * 1 / 2), rel=1e-12)
    assert rtn.quantize(w, 3, "channel").dequantize().tolist() == [[-3.0, 0.0, 1.0]]


@given(
    seed=st.integers(0, 2**32),
    bits=st.integers(2, 8),
    group_size=st.sampled_from(GROUP_SIZES),
    symmetric=st.booleans(),
    act_order=st.booleans(),
    static_groups=st.booleans(),
    block_size=st.sampled_from([1, 3, 128]),
    dtype=st.sampled_from(affine.WEIGHT_DTYPES),
    magnitude=st.sampled_from([1.0, 1e-6]),  # at 1e-6 the scales do not fit float16
)
def test_on_a_diagonal_hessian_it_is_round_to_nearest(
    seed: int,
    bits: int,
    group_size: affine.GroupSize,
    symmetric: bool,
    act_order: bool,
    static_groups: bool,
    block_size: int,
    dtype: torch.dtype,
    magnitude: float,
) -> None:
    assume(static_groups or not act_order or isinstance(group_size, str))  # else act-order makes other groups
    w = (torch.randn(4, 10, generator=generator(seed)) * torch.tensor([1.0] * 5 + [magnitude] * 5)).to(dtype)
    h = torch.diag(torch.rand(10, generator=generator(seed + 1)) + 0.01)
    q = gptq.quantize(w, h, bits, group_size, symmetric, act_order, static_groups, block_size=block_size)
    expected = rtn.quantize(w, bits, group_size, symmetric)
    assert torch.equal(q.packed, expected.packed) and torch.equal(q.scales, expected.scales)
    assert torch.equal(q.zero_points(), expected.zero_points()) and q.group_index is None
    for field in ("bits", "group_size", "shape", "dtype", "symmetric", "nbytes"):
        assert getattr(q, field) == getattr(expected, field)
    assert q.scales.dtype == expected.scales.dtype


problems = st.fixed_dictionaries(
    {
        "bits": st.integers(2, 8),
        "group_size": st.sampled_from(GROUP_SIZES),
        "symmetric": st.booleans(),
        "act_order": st.booleans(),
        "static_groups": st.booleans(),
        "damping": st.sampled_from([0.001, 0.01, 0.5]),
    }
)


@given(seed=st.integers(0, 2**32), block_size=st.integers(1, 16), options=problems)
def test_the_block_size_changes_no_code(seed: int, block_size: int, options: dict[str, Any]) -> None:
    w, h = torch.randn(5, 13, generator=generator(seed), dtype=torch.float64), second_moment(inputs(50, 13, seed))
    one, other = gptq.solve(w, h, **options), gptq.solve(w, h, block_size=block_size, **options)
    assert torch.equal(one.weight.codes(), other.weight.codes())
    torch.testing.assert_close(one.losses, other.losses, rtol=1e-9, atol=0)


@given(
    seed=st.integers(0, 2**32),
    block_size=st.sampled_from([1, 3, 5, 128]),
    dead=st.sets(st.integers(0, 12), max_size=12),
    options=problems,
)
def test_the_losses_add_up(seed: int, block_size: int, dead: set[int], options: dict[str, Any]) -> None:
    w, x = torch.randn(5, 13, generator=generator(seed), dtype=torch.float64), inputs(50, 13, seed)
    x[:, list(dead)] = 0
    h = second_moment(x)
    solution = gptq.solve(w, h, block_size=block_size, **options)
    w[:, list(dead)] = 0
    change = solution.weight.dequantize() - w
    assert not bool(change[:, list(dead)].any())
    live = h.diagonal()[h.diagonal() > 0]
    damped = h + options["damping"] * live.mean() * torch.eye(13, dtype=torch.float64)
    expected = (change @ damped * change).sum(1) / 2  # (out,)
    assert solution.losses.shape == (5,) and solution.losses.dtype == torch.float64
    assert float(solution.losses.sum()) == pytest.approx(float(expected.sum()), rel=1e-9)
    torch.testing.assert_close(solution.losses, expected, rtol=1e-9, atol=1e-12)


@given(seed=st.integers(0, 2**32), options=problems)
def test_act_order_is_the_permuted_problem(seed: int, options: dict[str, Any]) -> None:
    options |= {"static_groups": False, "act_order": False}
    w, h = torch.randn(5, 13, generator=generator(seed), dtype=torch.float64), second_moment(inputs(50, 13, seed))
    order = h.diagonal().argsort(descending=True)
    q = gptq.quantize(w, h, **options | {"act_order": True})
    permuted = gptq.quantize(w[:, order], h[order][:, order], **options)
    assert torch.equal(q.codes()[:, order], permuted.codes())
    assert torch.equal(q.dequantize()[:, order], permuted.dequantize())
    size = options["group_size"]
    if isinstance(size, str):
        assert q.group_index is None
    else:
        assert q.group_index is not None and q.group_index.dtype == torch.int32
        assert q.group_index[order].tolist() == [position // size for position in range(13)]


def test_static_groups_keep_neighbors_together() -> None:
    w, h = torch.randn(6, 24, generator=generator(0)), second_moment(inputs(100, 24, 0)).float()
    plain = rtn.quantize(w, 3, 8, symmetric=False)
    for act_order in (False, True):
        q = gptq.quantize(w, h, 3, 8, symmetric=False, act_order=act_order, static_groups=True)
        assert q.group_index is None and torch.equal(q.scales, plain.scales)
        assert torch.equal(q.zero_points(), plain.zero_points())
    moving = gptq.quantize(w, h, 3, 8, symmetric=False)
    assert torch.equal(moving.scales[:, 0], plain.scales[:, 0]) and not torch.equal(moving.scales, plain.scales)


# The same grid as RTN in both cases, so only the choice of codes differs.
SAME_GRID: tuple[dict[str, Any], ...] = ({"group_size": "channel"}, {"group_size": 32, "static_groups": True})


@pytest.mark.parametrize("correlated", [False, True])
def test_the_error_is_not_above_that_of_round_to_nearest(correlated: bool) -> None:
    ratios = []
    for seed in range(200):
        rng = generator(seed)
        rows, width = (int(n) for n in torch.randint(32, 129, (2,), generator=rng))
        w, x = 0.05 * torch.randn(rows, width, generator=rng), inputs(8 * width, width, seed, correlated)
        bits, options = (2, 3, 4)[seed % 3], SAME_GRID[seed % 2] | {"symmetric": seed % 4 < 2}
        h = second_moment(x)
        q = gptq.quantize(w, h, bits, act_order=seed % 5 == 0, **options)
        plain = rtn.quantize(w, bits, options["group_size"], options["symmetric"])
        assert torch.equal(q.scales, plain.scales)
        ratios.append(weighted_error(w, q, h) / weighted_error(w, plain, h))
    assert len(ratios) == 200 and max(ratios) <= (1.0 if correlated else 1.01), max(ratios)
    assert not correlated or max(ratios) < 1


@pytest.mark.parametrize("symmetric", [True, False])
def test_dead_inputs(symmetric: bool) -> None:
    w, x = torch.randn(5, 12, generator=generator(0), dtype=torch.float64), inputs(60, 12, 0)
    w[:, 3] *= 100  # were it alive, it would set the scale
    x[:, [3, 7]] = 0
    live = [j for j in range(12) if j not in (3, 7)]
    for act_order, factor in itertools.product((False, True), (1.0, 1e-8, 1e8)):  # the 1 for H_ii must not matter
        h = factor * second_moment(x)
        q = gptq.quantize(w, h, 3, "channel", symmetric, act_order)
        alone = gptq.quantize(w[:, live], h[live][:, live], 3, "channel", symmetric, act_order)
        assert not bool(q.dequantize()[:, [3, 7]].any())
        assert torch.equal(q.codes()[:, live], alone.codes()) and torch.equal(q.scales, alone.scales)


def test_a_layer_whose_inputs_are_nearly_all_dead() -> None:
    h = torch.zeros(6, 6)
    h[2, 2] = 5.0
    w = torch.randn(3, 6, generator=generator(0))
    q = gptq.quantize(w, h, 4, 3, act_order=True)
    assert not bool(q.dequantize()[:, [0, 1, 3, 4, 5]].any()) and bool(q.dequantize()[:, 2].all())


@pytest.mark.parametrize("group_size", [2, 4, 7, 128, "channel", "tensor"])
def test_seven_inputs_five_outputs_blocks_of_three(group_size: affine.GroupSize) -> None:
    w, h = torch.randn(5, 7, generator=generator(1), dtype=torch.float64), second_moment(inputs(30, 7, 1))
    for symmetric, act_order, static in itertools.product((True, False), repeat=3):
        options = (3, group_size, symmetric, act_order, static)
        q = gptq.quantize(w, h, *options, block_size=3)
        assert torch.equal(q.codes().long(), brain_surgeon(w, h, *options, damping=0.01)[0])
        assert q.shape == (5, 7) and q.group_size == group_size


def test_one_weight() -> None:
    solution = gptq.solve(torch.tensor([[-0.3]]), torch.tensor([[2.0]]))
    assert solution.weight.dequantize().item() == pytest.approx(-0.3, rel=1e-3)
    assert solution.losses.item() < 1e-6


def test_a_group_far_past_the_block_sees_every_error() -> None:
    # Groups of 5 start inside blocks of 4 and end past them. With one block for all, no such case exists.
    w, h = torch.randn(4, 23, generator=generator(2), dtype=torch.float64), second_moment(inputs(80, 23, 2))
    scales = [gptq.quantize(w, h, 3, 5, block_size=size).scales for size in (4, 23)]
    assert torch.equal(*scales)


def test_scales_become_float32_when_the_moved_weights_need_it() -> None:
    # The second group is zero and gets nothing but the errors of the first: too small for a float16 scale.
    w = torch.cat([torch.full((2, 4), 1e-3).mul(torch.rand(2, 4, generator=generator(0))), torch.zeros(2, 4)], dim=1)
    h = second_moment(inputs(30, 8, 3))
    assert rtn.quantize(w.double(), 4, 4).scales.dtype == torch.float16
    solution = gptq.solve(w.double(), h, 4, 4)
    assert solution.weight.scales.dtype == torch.float32
    change = solution.weight.dequantize() - w.double()
    damped = h + 0.01 * h.diagonal().mean() * torch.eye(8, dtype=torch.float64)
    assert float(solution.losses.sum()) == pytest.approx(float((change @ damped * change).sum()) / 2, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_float32_finds_nearly_the_codes_of_float64(dtype: torch.dtype) -> None:
    w, h = torch.randn(64, 256, generator=generator(0)).to(dtype), second_moment(inputs(1000, 256, 0))
    single, double = gptq.solve(w, h.float(), 4, 64), gptq.solve(w.double(), h, 4, 64)
    assert single.weight.dtype == dtype and single.weight.dequantize().dtype == dtype
    # A weight near an edge can fall on its other side, and then the columns after it differ too.
    assert float((single.weight.codes() != double.weight.codes()).double().mean()) < 0.01
    assert float(single.losses.sum()) == pytest.approx(float(double.losses.sum()), rel=0.01)


def test_a_wide_layer() -> None:
    # Wide enough that the triangular matrix is inverted by halves, of odd sizes and twice over.
    w, h = torch.randn(4, 1031, generator=generator(0), dtype=torch.float64), second_moment(inputs(1500, 1031, 0))
    solution = gptq.solve(w, h, 3, 128)
    change = solution.weight.dequantize() - w
    damped = h + 0.01 * h.diagonal().mean() * torch.eye(1031, dtype=torch.float64)
    assert float(solution.losses.sum()) == pytest.approx(float((change @ damped * change).sum()) / 2, rel=1e-9)
    assert weighted_error(w, solution.weight, h) < weighted_error(w, rtn.quantize(w, 3, 128), h) / 2


def test_nothing_that_was_given_is_changed() -> None:
    w = torch.nn.Parameter(torch.randn(12, 5, generator=generator(0)).t())  # not contiguous, and it wants a gradient
    h = second_moment(inputs(40, 12, 0)).float()
    h[4], h[:, 4] = 0, 0
    before = w.detach().clone(), h.clone()
    solution = gptq.solve(w, h, 3, 4, act_order=True)
    assert torch.equal(w.detach(), before[0]) and torch.equal(h, before[1])
    assert not solution.losses.requires_grad and not solution.weight.scales.requires_grad
    for tensor in (solution.weight.packed, solution.weight.scales, solution.weight.group_index):
        assert tensor is not None and tensor.is_contiguous()
    assert torch.equal(solution.weight.codes(), gptq.quantize(before[0].contiguous(), h, 3, 4, act_order=True).codes())


def test_low_precision_that_the_caller_has_set_is_not_used() -> None:
    w, x = torch.randn(16, 64, generator=generator(0)), inputs(500, 64, 0).float()
    cpu = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]

    def run() -> tuple[torch.Tensor, ...]:
        hessian = gptq.Hessian(64)
        hessian.add(x)
        solution = gptq.solve(w, hessian.matrix, 3, 16)
        return hessian.matrix, hessian.mean_abs, solution.weight.packed, solution.losses

    plain = run()
    before = cpu.fp32_precision
    try:
        cpu.fp32_precision = "bf16"
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert (x.t() @ x).dtype == torch.bfloat16, "autocast is at work"
            lowered = run()
        assert cpu.fp32_precision == "bf16", "the caller's setting is back"
        with pytest.raises(ValueError):
            gptq.quantize(w, torch.zeros(64, 64))
        assert cpu.fp32_precision == "bf16", "also after an error"
    finally:
        cpu.fp32_precision = before
    assert all(torch.equal(a, b) for a, b in zip(plain, lowered, strict=True))


# --- The Hessian ---


@given(
    seed=st.integers(0, 2**32),
    sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6),
    dtype=st.sampled_from(gptq.HESSIAN_DTYPES),
)
def test_any_batches_give_the_same_means(seed: int, sizes: list[int], dtype: torch.dtype) -> None:
    batches = [inputs(size, 5, seed + size) for size in sizes]
    hessian = gptq.Hessian(5, dtype)
    for batch in batches:
        hessian.add(batch)
    x = torch.cat(batches)
    assert hessian.tokens == len(x) and hessian.matrix.dtype == hessian.mean_abs.dtype == dtype
    assume(len(x) > 0)
    tolerance = {torch.float32: 1e-5, torch.float64: 1e-12}[dtype]
    expected = second_moment(x)
    torch.testing.assert_close(
        hessian.matrix.double(), expected, rtol=tolerance, atol=tolerance * float(expected.diagonal().max())
    )
    torch.testing.assert_close(hessian.mean_abs.double(), x.abs().mean(0), rtol=tolerance, atol=0)


def test_leading_axes_are_tokens_and_an_empty_batch_changes_nothing() -> None:
    x = inputs(24, 6, 0)
    flat, shaped, one_by_one = (gptq.Hessian(6, torch.float64) for _ in range(3))
    flat.add(x)
    shaped.add(x.reshape(2, 3, 4, 6))
    before = shaped.matrix.clone(), shaped.mean_abs.clone()
    for empty in (torch.empty(0, 6), torch.empty(2, 0, 6)):
        shaped.add(empty)
    assert torch.equal(shaped.matrix, before[0]) and torch.equal(shaped.mean_abs, before[1]) and shaped.tokens == 24
    assert torch.equal(shaped.matrix, flat.matrix) and torch.equal(shaped.mean_abs, flat.mean_abs)
    for row in x:
        one_by_one.add(row)
    assert one_by_one.tokens == 24
    torch.testing.assert_close(one_by_one.matrix, flat.matrix, rtol=1e-12, atol=1e-12)
    new = gptq.Hessian(6)
    new.add(torch.empty(0, 6))
    assert new.tokens == 0 and not bool(new.matrix.any())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_sixteen_bit_inputs_are_widened_first(dtype: torch.dtype) -> None:
    x = (300 * inputs(50, 4, 0)).to(dtype)  # 300² is past float16
    narrow, wide = gptq.Hessian(4), gptq.Hessian(4)
    narrow.add(x)
    wide.add(x.float())
    assert torch.equal(narrow.matrix, wide.matrix) and torch.equal(narrow.mean_abs, wide.mean_abs)
    assert bool(torch.isfinite(narrow.matrix).all()) and narrow.matrix.dtype == torch.float32


def test_the_mean_is_never_a_sum() -> None:
    hessian = gptq.Hessian(2)
    for _ in range(3):
        hessian.add(torch.full((1000, 2), 1e18))  # squares of 1e36: a sum of 1000 of them is past float32
    torch.testing.assert_close(hessian.matrix, torch.full((2, 2), 2e36), rtol=1e-5, atol=0)
    assert hessian.tokens == 3000


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "x: 1 of 8 values are NaN or infinite"),
        (-math.inf, "x: 1 of 8 values are NaN or infinite"),
        (1e30, "x: squares overflow torch.float32"),
    ],
)
def test_inputs_that_are_not_finite_are_refused(value: float, message: str) -> None:
    hessian = gptq.Hessian(4)
    hessian.add(torch.ones(3, 4))
    x = torch.ones(2, 4)
    x[1, 2] = value
    with pytest.raises(ValueError, match=message):
        hessian.add(x)
    assert hessian.tokens == 3 and torch.equal(hessian.matrix, torch.full((4, 4), 2.0))
    assert torch.equal(hessian.mean_abs, torch.ones(4))


def test_the_hessian_refuses_what_does_not_fit() -> None:
    for bad in (0, -3, 2.0, True):
        with pytest.raises(ValueError, match="in_features: got"):
            gptq.Hessian(bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="dtype: got torch.float16; choose"):
        gptq.Hessian(4, torch.float16)
    hessian = gptq.Hessian(4)
    for shape in ((), (3,), (4, 3), (0, 3)):
        with pytest.raises(ValueError, match="x: got shape .* the last axis must have 4 inputs"):
            hessian.add(torch.ones(shape))
    for wrong in (torch.ones(2, 4, dtype=torch.int64), [[1.0] * 4]):
        with pytest.raises(TypeError, match="x: got"):
            hessian.add(wrong)  # type: ignore[arg-type]


# --- What cannot work ---


def test_too_few_tokens_without_damping() -> None:
    hessian = gptq.Hessian(64)
    hessian.add(inputs(10, 64, 0, correlated=False))
    w = torch.randn(8, 64, generator=generator(0))
    with pytest.raises(ValueError) as caught:
        gptq.quantize(w, hessian.matrix, damping=0.0, name="layers.3.down_proj", tokens=hessian.tokens)
    message = str(caught.value)
    assert message.startswith("layers.3.down_proj: the Hessian is not positive definite")
    for part in ("rank 10 of width 64", "tokens seen: 10", "damping 0)", "more tokens", "damping to 0.1"):
        assert part in message
    assert math.isfinite(float(gptq.solve(w, hessian.matrix).losses.sum())), "the damping is there for this"


def test_a_matrix_that_is_no_hessian() -> None:
    w = torch.randn(3, 4, generator=generator(0))
    with pytest.raises(ValueError, match="w: the Hessian is all zeros \\(rank 0 of width 4, tokens seen: unknown"):
        gptq.quantize(w, torch.zeros(4, 4))
    for bad in (math.nan, math.inf):
        h = torch.eye(4)
        h[1, 2] = bad
        with pytest.raises(ValueError, match="q: the Hessian holds NaN or infinity \\(rank unknown of width 4"):
            gptq.quantize(w, h, name="q")
    for h in (-torch.eye(4), torch.diag(torch.tensor([1.0, -1.0, 1.0, 1.0])), torch.eye(4) - torch.ones(4, 4) / 2):
        with pytest.raises(ValueError, match="not positive definite \\(rank 4 of width 4"):
            gptq.quantize(w, h)
    with pytest.raises(ValueError, match="damping to 5$"):
        gptq.quantize(w, -torch.eye(4), damping=0.5)


def test_dependent_inputs_are_noticed_though_rounding_gives_full_rank() -> None:
    # Rounding leaves a singular matrix with tiny eigenvalues of either sign; ten of them are never all positive here.
    for seed in range(20):
        hessian = gptq.Hessian(48)
        hessian.add(inputs(38, 48, seed, correlated=False))
        with pytest.raises(ValueError, match="not positive definite"):
            gptq.quantize(torch.ones(1, 48), hessian.matrix, damping=0.0)


def test_weights_that_overflow_on_the_way() -> None:
    h = torch.tensor([[1.0, 0.999], [0.999, 1.0]])
    with pytest.raises(ValueError, match="v: weights overflow torch.float32"):
        gptq.quantize(torch.tensor([[1.6e38, 3.4e38]]), h, 2, "channel", name="v")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"bits": 9}, ValueError, "bits: got 9"),
        ({"group_size": 0}, ValueError, "group_size: got 0"),
        ({"w": torch.full((3, 4), math.nan), "name": "up"}, ValueError, "up: 12 of 12 values are NaN"),
        ({"hessian": gptq.Hessian(4)}, TypeError, "hessian: got Hessian; give a tensor .* Hessian.matrix"),
        ({"hessian": torch.eye(4).half()}, TypeError, "hessian: got torch.float16"),
        ({"hessian": torch.eye(3)}, ValueError, "hessian: got shape \\(3, 3\\) for weights \\(3, 4\\).* Conv1D"),
        ({"act_order": 1}, TypeError, "act_order, static_groups: got 1, False"),
        ({"static_groups": None}, TypeError, "act_order, static_groups: got False, None"),
        ({"damping": -0.01}, ValueError, "damping: got -0.01"),
        ({"damping": math.nan}, ValueError, "damping: got nan"),
        ({"damping": "much"}, ValueError, "damping: got 'much'"),
        ({"block_size": 0}, ValueError, "block_size: got 0"),
        ({"block_size": 2.0}, ValueError, "block_size: got 2.0"),
    ],
)
def test_arguments_are_checked(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"w": torch.ones(3, 4), "hessian": torch.eye(4)} | change
    with pytest.raises(error, match=message):
        gptq.quantize(**arguments)
