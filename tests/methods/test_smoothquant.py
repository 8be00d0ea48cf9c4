"""SmoothQuant: the scales are those of the formula, the product stays, and the difficulty moves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from qlab.formats.activations import Activations
from qlab.methods import smoothquant
from qlab.methods.smoothquant import InputRanges, largest_weights, scales, smooth, sweep


def inputs(tokens: int = 64, width: int = 32, large: tuple[int, ...] = (5,), factor: float = 100.0) -> torch.Tensor:
    x = torch.randn(tokens, width, generator=torch.Generator().manual_seed(0))
    x[:, list(large)] *= factor
    return x


def weight(rows: int = 16, width: int = 32, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed)) * 0.1


def test_by_hand() -> None:
    # max|X| = 16, 1 and max|W| = 0.25, 4: at 0.5 the first gets sqrt(64) = 8, the second sqrt(1/4) = 0.5.
    s = scales(torch.tensor([16.0, 1.0]), torch.tensor([0.25, 4.0]), 0.5)
    assert s.tolist() == [8.0, 0.5]


@pytest.mark.parametrize("alpha", [0, 0.3, 0.5, 0.8, 1])
def test_the_product_stays(alpha: float) -> None:
    x, weights = inputs().double(), [weight().double(), weight(7, seed=2).double()]
    smoothed, scaled, s = smooth(x, weights, alpha)
    for w, changed in zip(weights, scaled, strict=True):
        torch.testing.assert_close(smoothed @ changed.T, x @ w.T, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(smoothed * s, x)


def test_the_limits_are_those_of_the_formula() -> None:
    x, weights = inputs(), [weight(), weight(7, seed=2)]
    smoothed, scaled, s = smooth(x, weights, 1)
    torch.testing.assert_close(smoothed.abs().amax(0), torch.ones(32))  # every input channel equally large
    torch.testing.assert_close(s, x.abs().amax(0))
    smoothed, scaled, s = smooth(x, weights, 0)
    torch.testing.assert_close(torch.cat(scaled).abs().amax(0), torch.ones(32))  # every column of the weights
    torch.testing.assert_close(s, 1 / torch.cat(weights).abs().amax(0))
    smoothed, scaled, s = smooth(x, weights, 0.5)
    torch.testing.assert_close(smoothed.abs().amax(0), torch.cat(scaled).abs().amax(0))  # both alike


@given(st.floats(0, 1), st.integers(0, 1000))
def test_scales_are_monotone_and_positive(alpha: float, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    x, w = (torch.rand(9, generator=random).add(1e-3) for _ in range(2))
    s = scales(x, w, alpha)
    assert bool((s > 0).all()) and bool(s.isfinite().all())
    assert bool((scales(2 * x, w, alpha) >= s).all()) and bool((scales(x, 2 * w, alpha) <= s * 1.000001).all())


def test_a_channel_that_is_zero_on_either_side_is_left_alone() -> None:
    s = scales(torch.tensor([0.0, 4.0, 0.0, 4.0]), torch.tensor([1.0, 0.0, 0.0, 1.0]), 0.5)
    assert s.tolist() == [1, 1, 1, 2]
    x, w = inputs(), weight()
    x[:, 3], w[:, 4] = 0, 0
    smoothed, (scaled,), _ = smooth(x, [w], 0.5)
    assert bool(smoothed.isfinite().all()) and bool(scaled.isfinite().all())


def test_outliers_go_and_real_integers_lose_less() -> None:
    x, w = inputs(), weight()
    none, half = sweep(x, [w], [0, 0.5])
    plain = sweep(inputs(factor=1.0), [w], [0.5])[0]
    assert half < 0.1 * none and half < 4 * plain
    assert smooth(x, [w], 0.5)[0].abs().amax(0).max() < 0.1 * x.abs().amax()


def test_a_sweep_measures_each_alpha_by_the_definition() -> None:
    from qlab.methods import w8a8

    x, weights = inputs(), [weight(), weight(7, seed=2)]
    scheme = Activations(granularity="tensor")
    (loss,) = sweep(x, weights, [0.7], scheme, "tensor")
    s = (x.abs().amax(0) ** 0.7) / torch.cat(weights).abs().amax(0) ** 0.3
    error = whole = 0.0
    for w in weights:
        error += float((w8a8.linear(x / s, w8a8.quantize(w * s, "tensor"), None, scheme) - x @ w.T).square().sum())
        whole += float((x @ w.T).square().sum())
    assert loss == pytest.approx(error / whole, rel=1e-5)


def test_ranges_do_not_depend_on_how_tokens_come() -> None:
    x = inputs(60).half()
    whole, parts = InputRanges(32), InputRanges(32)
    whole.add(x.reshape(3, 20, 32))
    for part in x.split([1, 0, 40, 19]):
        parts.add(part)
    assert torch.equal(whole.largest, x.abs().amax(0).float()) and torch.equal(parts.largest, whole.largest)
    assert whole.tokens == parts.tokens == 60 and whole.largest.dtype == torch.float32


def test_weights_that_share_an_input_share_their_largest_value() -> None:
    assert largest_weights([torch.tensor([[1.0, -3.0]]), torch.tensor([[-2.0, 0.5], [0.0, 1.0]])]).tolist() == [2, 3]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"alpha": -0.1}, ValueError, "alpha: got -0.1; allowed is 0 to 1"),
        ({"alpha": 1.1}, ValueError, "alpha: got 1.1"),
        ({"alpha": float("nan")}, ValueError, "alpha: got nan"),
        ({"alpha": "0.5"}, ValueError, "alpha: got '0.5'"),
        ({"alpha": True}, ValueError, "alpha: got True"),
        ({"input_max": torch.ones(3)}, ValueError, r"weight_max: got shape \(4,\)"),
        ({"input_max": torch.tensor([1, 2, 3, torch.inf])}, ValueError, "input_max: holds NaN or infinity"),
        ({"weight_max": torch.tensor([1.0, 2, 3, -1])}, ValueError, "negative values"),
        ({"input_max": torch.ones(4).long()}, TypeError, "input_max: got torch.int64"),
    ],
)
def test_scales_refuse(change: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        scales(**{"input_max": torch.ones(4), "weight_max": torch.ones(4)} | change)


def test_inputs_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="x: holds NaN or infinity"):
        smoothquant.InputRanges(2).add(torch.tensor([[1.0, torch.nan]]))
