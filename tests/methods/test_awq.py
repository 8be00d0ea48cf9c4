"""AWQ: the losses are those of the outputs, searches never lose."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from qlab.formats import affine
from qlab.methods import awq, fold

OPTIONS: list[dict[str, Any]] = [
    {"bits": bits, "group_size": group_size, "symmetric": symmetric}
    for bits, group_size in ((4, 32), (3, 24), (3, "channel"), (4, "tensor"))
    for symmetric in (True, False)
]


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def inputs(width: int, large: int = 0, tokens: int = 200, seed: int = 0) -> torch.Tensor:
    """(tokens, in): normal, with `large` channels thirty times as large."""
    x = normal(tokens, width, seed=seed)
    x[:, torch.randperm(width, generator=torch.Generator().manual_seed(seed))[:large]] *= 30
    return x


def statistics(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x.abs().mean(0), 2 * x.T @ x / len(x)


def loss(change: torch.Tensor, hessian: torch.Tensor) -> torch.Tensor:
    return ((change @ hessian) * change).sum()


# ---- scales


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_losses_are_twice_the_squared_error_of_the_outputs(options: dict[str, Any]) -> None:
    weights = [normal(20, 72, seed=1), normal(7, 72, seed=2)]
    x = inputs(72, large=2)
    found = awq.search_scales(weights, *statistics(x), **options, ratios=10)
    assert found.losses.shape == (10,) and found.losses.dtype == found.scales.dtype == torch.float32
    for i, got in enumerate(found.losses):
        scales = x.abs().mean(0) ** (i / 10)
        scales = scales / (scales.max() * scales.min()).sqrt()
        outputs = [
            (x / scales).double() @ affine.quantize(w * scales, **options).dequantize().double().T
            - x.double() @ w.double().T
            for w in weights
        ]
        assert float(got) == pytest.approx(sum(2 * float(y.square().sum(1).mean()) for y in outputs), rel=1e-3)
        if i / 10 == found.ratio:
            torch.testing.assert_close(found.scales, scales)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_ratio_0_is_round_to_nearest_exactly(options: dict[str, Any], dtype: torch.dtype) -> None:
    w = normal(20, 72).to(dtype)
    mean_abs, hessian = statistics(inputs(72, large=2))
    found = awq.search_scales([w], mean_abs, hessian, **options)
    assert found.losses[0] == loss(affine.quantize(w, **options).dequantize(torch.float32) - w.float(), hessian)


@given(
    columns=st.integers(1, 70),
    rows=st.integers(1, 5),
    bits=st.sampled_from([2, 3, 4, 8]),
    group_size=st.sampled_from([1, 16, 32, "channel", "tensor"]),
    symmetric=st.booleans(),
    large=st.integers(0, 3),
    dead=st.integers(0, 3),
    scale_dtype=st.sampled_from([torch.float16, torch.bfloat16]),
    seed=st.integers(0, 10_000),
)
def test_the_choice_is_never_worse_than_identity(
    columns: int,
    rows: int,
    bits: int,
    group_size: affine.GroupSize,
    symmetric: bool,
    large: int,
    dead: int,
    scale_dtype: torch.dtype,
    seed: int,
) -> None:
    x = inputs(columns, large, tokens=20, seed=seed)
    x[:, :dead] = 0
    weights = [normal(rows, columns, seed=seed + i) * 0.02 for i in (1, 2)]
    before = [w.clone() for w in weights]
    mean_abs, hessian = statistics(x)
    found = awq.search_scales(weights, mean_abs, hessian, bits, group_size, symmetric, scale_dtype=scale_dtype)
    chosen = round(found.ratio * 20)
    assert found.losses[chosen] == found.losses.min() <= found.losses[0]
    assert bool((found.losses[:chosen] > found.losses[chosen]).all()), "of equal losses the smaller ratio wins"
    assert bool(found.losses.isfinite().all()) and bool((found.scales > 0).all())
    assert all(torch.equal(w, old) for w, old in zip(weights, before, strict=True))


# Not per tensor: there, a column that is scaled up widens the one grid of all rows, and less is won.
@pytest.mark.parametrize("options", [o for o in OPTIONS if o["group_size"] != "tensor"], ids=str)
def test_large_channels_make_the_loss_fall(options: dict[str, Any]) -> None:
    w = normal(64, 256, seed=1) * 0.02
    found = awq.search_scales([w], *statistics(inputs(256, large=3)), **options)
    assert found.ratio > 0 and float(found.losses.min()) < 0.5 * float(found.losses[0])


def test_scales_are_centered_and_clamped() -> None:
    mean_abs = torch.tensor([1e-9, 0.25, 4.0, 1.0])
    weights = [torch.eye(4) * torch.tensor([1.0, 0.3, 0.05, 0.7]) + 0.01 * normal(4, 4)]
    found = awq.search_scales(weights, mean_abs, torch.diag(mean_abs**2), bits=3, group_size="channel", ratios=2)
    assert found.ratio == 0.5  # or the next line says nothing
    plain = torch.tensor([1e-4, 0.5, 2.0, 1.0])  # 1e-9 ** 0.5 = 3e-5 is below the clamp
    torch.testing.assert_close(found.scales, plain / (2.0 * 1e-4) ** 0.5)


def test_an_input_that_calibration_never_moved_keeps_its_weights() -> None:
    x = inputs(64, large=2)
    x[:, 5] = 0
    w = normal(16, 64, seed=1)
    mean_abs, hessian = statistics(x)
    found = awq.search_scales([w], mean_abs, hessian)
    assert found.ratio > 0 and found.scales[5] == 1
    others = found.scales[torch.arange(64) != 5]
    assert float(others.max() * others.min()) == pytest.approx(1, rel=1e-5)
    back = affine.quantize(w * found.scales).dequantize() / found.scales
    assert float((back - w)[:, 5].abs().max()) < float(w[:, 5].abs().max()), "the column was rounded away"


def test_no_live_input_leaves_everything_as_it_is() -> None:
    found = awq.search_scales([normal(4, 8)], torch.zeros(8), torch.zeros(8, 8))
    assert found.ratio == 0 and bool((found.scales == 1).all()) and bool((found.losses == 0).all())


# ---- clipping


def clip_losses(w: torch.Tensor, hessian: torch.Tensor, limit: torch.Tensor, options: dict[str, Any]) -> torch.Tensor:
    """The loss of every group for given limits, float64, by the definition: one row and one group after another."""
    size = options["group_size"]
    if size == "tensor":
        back = affine.quantize(w.clamp(-limit, limit), **options).dequantize(torch.float64)
        return loss(back - w, hessian.double()).reshape(1, 1)
    width = w.shape[1] if size == "channel" else size
    result = torch.empty(limit.shape, dtype=torch.float64)
    for r, row in enumerate(w):
        for g, part in enumerate(row.split(width)):
            block = hessian[g * width :, g * width :][: len(part), : len(part)].double()
            clipped = part.clamp(-limit[r, g], limit[r, g])[None]
            change = affine.quantize(clipped, **options).dequantize(torch.float64) - part
            result[r, g] = loss(change, block)
    return result


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_clip_takes_the_best_limit_of_its_grid(options: dict[str, Any]) -> None:
    w = normal(6, 80, seed=1)  # 80 leaves a short last group of 16 and of 8
    _, hessian = statistics(inputs(80, large=3) @ normal(80, 80, seed=3))
    limits = awq.search_clip(w, hessian, **options, steps=8, shrink=0.6)
    width = 80 if isinstance(options["group_size"], str) else options["group_size"]
    largest = torch.stack([part.abs().amax(1) for part in w.split(width, 1)], 1)
    if options["group_size"] == "tensor":
        largest = largest.max().reshape(1, 1)
    factors = [1 - 0.6 * i / 8 for i in range(8)]
    losses = torch.stack([clip_losses(w, hessian, largest * f, options) for f in factors])
    chosen = clip_losses(w, hessian, limits, options)
    torch.testing.assert_close(chosen, losses.amin(0), rtol=1e-3, atol=0)
    assert bool((chosen <= losses[0] * (1 + 1e-6)).all())
    assert bool((limits < largest).any()), "nothing was clipped: the test sees nothing"
    assert bool(((limits / largest - torch.tensor(factors)[:, None, None]).abs() < 1e-6).any(0).all())


@given(
    rows=st.integers(1, 5),
    columns=st.integers(1, 70),
    bits=st.sampled_from([2, 3, 4, 8]),
    group_size=st.sampled_from([1, 16, 32, "channel"]),
    symmetric=st.booleans(),
    power=st.sampled_from([1, 3]),
    seed=st.integers(0, 10_000),
)
def test_no_group_is_worse_for_being_clipped(
    rows: int, columns: int, bits: int, group_size: affine.GroupSize, symmetric: bool, power: int, seed: int
) -> None:
    w = normal(rows, columns, seed=seed) ** power
    _, hessian = statistics(inputs(columns, large=2, tokens=30, seed=seed))
    options: dict[str, Any] = {"bits": bits, "group_size": group_size, "symmetric": symmetric}
    q, nearest = awq.quantize(w, hessian, **options), affine.quantize(w, **options)
    width = columns if group_size == "channel" else group_size
    for start in range(0, columns, int(width)):
        part = slice(start, start + int(width))
        block = hessian[part, part].double()
        changes = [(q.dequantize(torch.float64) - w)[:, part] for q in (q, nearest)]
        clipped, plain = (((c @ block) * c).sum(1) for c in changes)  # (rows,)
        assert bool((clipped <= plain * (1 + 1e-4) + 1e-9 * float(block.diagonal().max())).all())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_tie_clips_nothing(options: dict[str, Any]) -> None:
    w = normal(4, 72)
    w[-1] *= 3  # the largest weight of the tensor is not in the first row
    hessian = torch.zeros(72, 72)
    assert float(awq.search_clip(w, hessian, **options).max()) == float(w.abs().max())
    q, nearest = awq.quantize(w, hessian, **options), affine.quantize(w, **options)
    assert torch.equal(q.packed, nearest.packed) and torch.equal(q.scales, nearest.scales)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_quantize_rounds_inside_the_limits(options: dict[str, Any], dtype: torch.dtype) -> None:
    w = (normal(6, 80, seed=1) ** 3).to(dtype)
    before = w.clone()
    _, hessian = statistics(inputs(80, large=3))
    limits = awq.search_clip(w, hessian, **options)
    assert limits.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    q = awq.quantize(w, hessian, **options)
    expected = affine.quantize(awq.apply_limits(w.to(limits.dtype), limits, options["group_size"]), **options)
    assert torch.equal(q.packed, expected.packed) and torch.equal(q.scales, expected.scales)
    assert q.dtype == dtype and q.symmetric == options["symmetric"] and torch.equal(w, before)
    unclipped, nearest = awq.quantize(w, hessian, **options, clip=False), affine.quantize(w, **options)
    assert torch.equal(unclipped.packed, nearest.packed) and torch.equal(unclipped.scales, nearest.scales)


def test_the_type_of_the_scales_counts_in_both_searches() -> None:
    w = normal(6, 64, seed=1) * 0.02
    mean_abs, hessian = statistics(inputs(64, large=2))
    options: dict[str, Any] = {"bits": 8, "group_size": 32, "scale_dtype": torch.bfloat16}  # where it shows most
    found = awq.search_scales([w], mean_abs, hessian, **options)
    assert found.losses[0] == loss(affine.quantize(w, **options).dequantize() - w, hessian)
    limits = awq.search_clip(w, hessian, **options)
    assert not torch.equal(limits, awq.search_clip(w, hessian, bits=8, group_size=32))
    q, expected = awq.quantize(w, hessian, **options), affine.quantize(awq.apply_limits(w, limits, 32), **options)
    assert torch.equal(q.packed, expected.packed) and torch.equal(q.scales, expected.scales)
    assert q.scales.dtype == awq.quantize(w, hessian, **options, clip=False).scales.dtype == torch.bfloat16


def test_apply_limits_reaches_into_a_short_last_group() -> None:
    w = torch.tensor([[3.0, -3, 3, -3, 3], [1, 1, 1, 1, -9]])
    limits = torch.tensor([[2.0, 1, 0.5], [9, 9, 0]])
    expected = torch.tensor([[2.0, -2, 1, -1, 0.5], [1, 1, 1, 1, 0]])
    assert torch.equal(awq.apply_limits(w, limits, 2), expected)


def test_rows_are_searched_in_runs_with_one_result(monkeypatch: pytest.MonkeyPatch) -> None:
    w = normal(7, 64) ** 3
    _, hessian = statistics(inputs(64, large=2))
    for size in (32, "channel", "tensor"):
        at_once = awq.search_clip(w, hessian, group_size=size)
        with monkeypatch.context() as patch:
            patch.setattr(awq, "_AT_ONCE", 130)  # two rows
            torch.testing.assert_close(awq.search_clip(w, hessian, group_size=size), at_once, rtol=0, atol=0)


# ---- what real layers contain


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_zeros_everywhere_give_no_nan(options: dict[str, Any]) -> None:
    w = normal(6, 72, seed=1)
    w[0] = 0  # a row
    w[:, :32] = 0  # groups
    w[:, 40] = 0  # a channel
    x = inputs(72, large=2)
    x[:, 10:50] = 0  # dead inputs
    mean_abs, hessian = statistics(x)
    found = awq.search_scales([w, torch.zeros(3, 72)], mean_abs, hessian, **options)
    assert bool(found.losses.isfinite().all()) and bool((found.scales > 0).all())
    scaled = hessian / torch.outer(found.scales, found.scales)
    limits = awq.search_clip(w * found.scales, scaled, **options)
    assert bool(limits.isfinite().all()) and bool((limits >= 0).all())
    q = awq.quantize(w * found.scales, scaled, **options)
    back = q.dequantize()
    assert bool(back.isfinite().all()) and bool((back[0] == 0).all()) and bool((q.scales > 0).all())


def test_scaling_then_rounding_reaches_the_loss_that_the_search_promised() -> None:
    w = normal(32, 128, seed=1) * 0.02
    x = inputs(128, large=3)
    mean_abs, hessian = statistics(x)
    found = awq.search_scales([w], mean_abs, hessian, bits=3)
    layer, norm = nn.Linear(128, 32, bias=False), nn.RMSNorm(128)
    layer.weight.data.copy_(w)
    fold.into_norm(norm, [layer], found.scales)
    scaled = hessian / torch.outer(found.scales, found.scales)
    for clip, bound in ((False, 1.0), (True, 0.9)):
        q = awq.quantize(layer.weight.detach(), scaled, bits=3, clip=clip)
        error = 2 * float(((x / found.scales) @ q.dequantize().T - x @ w.T).square().sum(1).mean())
        if clip:
            assert error < bound * float(found.losses.min())
        else:
            assert error == pytest.approx(bound * float(found.losses.min()), rel=1e-3)


# ---- bad arguments


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"weights": torch.ones(2, 8)}, TypeError, "weights: got Tensor; give a list"),
        ({"weights": []}, TypeError, "weights: got list; .*at least one"),
        ({"weights": [torch.ones(2, 8), torch.ones(2, 9)]}, ValueError, r"hessian: got shape \(8, 8\).*\(9, 9\)"),
        ({"weights": [torch.full((2, 8), torch.nan)]}, ValueError, r"weights\[0\]: 16 of 16 values are NaN"),
        ({"mean_abs": torch.ones(7)}, ValueError, r"mean_abs: got shape \(7,\)"),
        ({"mean_abs": -torch.ones(8)}, ValueError, r"mean_abs: got negative values.*abs\(\)"),
        ({"mean_abs": torch.full((8,), torch.inf)}, ValueError, "mean_abs: holds NaN or infinity"),
        ({"hessian": torch.full((8, 8), torch.nan)}, ValueError, "hessian: holds NaN or infinity"),
        ({"hessian": None}, TypeError, "hessian: got NoneType"),
        ({"hessian": torch.eye(8).long()}, TypeError, "hessian: got torch.int64"),
        ({"ratios": 0}, ValueError, "ratios: got 0"),
        ({"ratios": 2.0}, TypeError, "ratios: got 2.0"),
        ({"bits": 9}, ValueError, "bits: got 9"),
    ],
)
def test_a_scale_search_refuses(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"weights": [torch.ones(2, 8)], "mean_abs": torch.ones(8), "hessian": torch.eye(8)}
    with pytest.raises(error, match=message):
        awq.search_scales(**arguments | change)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"w": torch.ones(8)}, ValueError, r"w: shape \(8,\)"),
        ({"hessian": torch.eye(7)}, ValueError, r"hessian: got shape \(7, 7\)"),
        ({"steps": 0}, ValueError, "steps: got 0"),
        ({"shrink": 1}, ValueError, "shrink: got 1; allowed"),
        ({"shrink": -0.1}, ValueError, "shrink: got -0.1"),
        ({"group_size": "row"}, ValueError, "group_size: got 'row'"),
    ],
)
def test_a_clip_search_refuses(change: dict[str, Any], error: type[Exception], message: str) -> None:
    arguments: dict[str, Any] = {"w": torch.ones(2, 8), "hessian": torch.eye(8)}
    with pytest.raises(error, match=message):
        awq.search_clip(**arguments | change)
    if not {"steps", "shrink"} & set(change):
        with pytest.raises(error, match=message):
            awq.quantize(**arguments | change)


def test_quantize_refuses_what_is_no_flag() -> None:
    with pytest.raises(TypeError, match="clip: got 1"):
        awq.quantize(torch.ones(2, 8), torch.eye(8), clip=1)  # type: ignore[arg-type]
