"""What the questions of this set share: values that may be a little off, and a rounding away from ties."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ... import properties as p
from ...question import Finding

TIE = 2e-5  # of a step: far more than float32 moves a place on the grid of 4 bits


def near(got: Any, what: str, exact: torch.Tensor, relative: float = 1e-4) -> Finding | None:
    """`got` is float32 and shaped like `exact`, and every element is right to this share of it."""
    if finding := p.tensor(got, what, torch.float32, tuple(exact.shape)):
        return finding
    exact = exact.double()
    error = (got.double() - exact).abs().nan_to_num(nan=float("inf"), posinf=float("inf"))
    wrong = error > relative * exact.abs()
    if not bool(wrong.any()):
        return None
    share = torch.where(wrong, error / exact.abs(), 0.0)  # infinite where zero is expected
    index = tuple(int(i) for i in torch.unravel_index(share.argmax(), share.shape))
    finite = bool(share[index].isfinite())
    return Finding(
        f"{what}: {int(wrong.sum())} of {wrong.numel()} are off",
        index=index,
        expected=f"{exact[index].item():.6g}",
        got=f"{got[index].item():.6g}",
        error=100 * share[index].item() if finite else None,
        bound=100 * relative if finite else None,
        unit="%",
    )


def rounded(w, bits, group_size):
    """Round each weight to the nearest value on its group's symmetric grid.

    w: float32 (out, in), with in a multiple of group_size. It stays as it is.
    """
    qmax = 2 ** (bits - 1) - 1
    groups = w.reshape(len(w), -1, group_size)
    steps = groups.abs().amax(dim=2, keepdim=True) / qmax
    steps = torch.where(steps > 0, steps, 1.0)
    return (torch.round(groups / steps).clamp(-qmax, qmax) * steps).reshape(w.shape)


def second_moment(x: torch.Tensor) -> torch.Tensor:
    """The mean of x xᵀ over tokens: (tokens, in) to (in, in)."""
    return x.T @ x / len(x)


def tokens(random: torch.Generator, count: int, sizes: torch.Tensor) -> torch.Tensor:
    """Activations (count, in) whose channels have these sizes and are correlated, as those of a model are."""
    common = torch.randn(count, 1, generator=random)
    return (torch.randn(count, len(sizes), generator=random) + 0.7 * common) * sizes


def is_near_a_tie(places: torch.Tensor) -> bool:
    """Whether one of these places on a grid is so close to the middle of two codes that float32 decides between them.

    An answer's error depends on that choice, and no bound could tell a right answer from a wrong one.
    """
    return bool(((places.double() % 1 - 0.5).abs() < TIE).any())


def draw(make: Callable[[], torch.Tensor], places: Callable[[torch.Tensor], torch.Tensor]) -> torch.Tensor:
    """Weights from `make`, drawn again until none of their `places` is near a tie."""
    while is_near_a_tie(places(w := make())):
        pass
    return w
