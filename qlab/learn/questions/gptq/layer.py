"""What the questions on GPTQ share: layers whose inputs are correlated, and the loop replayed with a learner's codes.

GPTQ feeds the error of every code into the columns that follow, so no code can be judged by itself. The loop is
therefore replayed with the codes that came back: each is right where it is a nearest one to the place where its weight
stood after all the codes before it. Either code of a tie is right then, and what follows from it, too.
All of it is float64, so that two right routes decide alike.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ... import properties as p
from ...question import Finding

# The example of the cards: two inputs, (1, 2) and (2, 0), and one row of weights.
CARD_HESSIAN = torch.tensor([[5.0, 2.0], [2.0, 4.0]], dtype=torch.float64)
CARD_FACTOR = torch.tensor([[0.5, -0.25], [0.0, 0.5]], dtype=torch.float64)
CARD_WEIGHT = torch.tensor([[1.4, 0.4]], dtype=torch.float64)


def unit(seed: int) -> float:
    """Of the example of a card: 1 for the seed of `check`, and an exact factor for others."""
    return 2.0 ** ((seed + 2) % 5 - 2)


def largest_code(bits: int) -> int:
    return 2 ** (bits - 1) - 1


def normal(random: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=random, dtype=torch.float64)


def correlated(random: torch.Generator, columns: int, noise: float = 0.3) -> torch.Tensor:
    """A Hessian, positive definite: of inputs that are mixtures of a few causes, and some noise."""
    causes = normal(random, 8 * columns, max(columns // 3, 1))
    x = causes @ normal(random, causes.shape[1], columns) + noise * normal(random, 8 * columns, columns)
    size = torch.exp(0.5 * normal(random, columns))  # some inputs are larger than others
    return second_moment(x * size)


def second_moment(x: torch.Tensor) -> torch.Tensor:
    """The Hessian of these tokens, symmetric to the last bit, however a processor adds."""
    h = 2 * x.T @ x / len(x)
    return (h + h.T) / 2


def upper_factor(h: torch.Tensor) -> torch.Tensor:
    """U, upper triangular with a positive diagonal, and U^T U is the inverse of h."""
    return torch.linalg.cholesky(torch.linalg.inv(h), upper=True).contiguous()


def row_scales(w: Any, bits: int) -> Any:
    """(out, 1); 1 for a row of zeros."""
    scales = w.abs().amax(dim=1, keepdim=True) / largest_code(bits)
    return torch.where(scales > 0, scales, 1.0)


def replay(
    w: torch.Tensor, u: torch.Tensor, codes: torch.Tensor, step: Callable[[int, torch.Tensor], torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Walk through the columns with these codes.

    Args:
        step: from a column and the weights as they then are to the steps of that column, (out,).

    Returns:
        The place of every weight when its turn came, in steps, and the steps; both (out, in).
    """
    w, places, steps = w.clone(), torch.empty_like(w), torch.empty_like(w)
    for j in range(w.shape[1]):
        steps[:, j] = step(j, w)
        places[:, j] = w[:, j] / torch.where(steps[:, j] > 0, steps[:, j], 1.0)
        error = (w[:, j] - codes[:, j].double() * steps[:, j]) / u[j, j]
        w[:, j:] -= error[:, None] * u[j, j:]
    return places, steps


def follow_the_loop(codes: torch.Tensor, places: torch.Tensor, bits: int) -> Finding | None:
    """Every code is a nearest one to the place of its weight, after the codes before it."""
    qmax = largest_code(bits)
    return p.codes_between(codes, "codes", -qmax, qmax) or p.codes_near(codes, "codes", places, -qmax, qmax)


def loop(
    w: Any, u: Any, bits: int, step: Callable[[int, Any], Any], *, write: Any = None, feed: Any = None
) -> tuple[Any, Any]:
    """The loop over the columns, in parts that wrong answers replace.

    Args:
        step: as in `replay`.
        write: from the places of one column and the bits to its codes; the nearest ones of the grid.
        feed: from the weights, `u`, the column and its error to nothing: changes the weights of other columns.

    Returns:
        The codes, int8 (out, in), the bits above the eighth cut off; and the steps, (out, in).
    """
    w, codes, steps = w.clone(), torch.zeros_like(w), torch.zeros_like(w)
    for j in range(w.shape[1]):
        steps[:, j] = step(j, w)
        codes[:, j] = (write or nearest)(w[:, j] / steps[:, j], bits)
        (feed or feed_forward)(w, u, j, w[:, j] - codes[:, j] * steps[:, j])
    return codes.to(torch.int64).to(torch.int8), steps


def nearest(places: Any, bits: int) -> Any:
    return torch.round(places).clamp(-largest_code(bits), largest_code(bits))


def feed_forward(w: Any, u: Any, j: int, error: Any) -> None:
    """What GPTQ does: every later column takes its share of the error of column j."""
    w[:, j + 1 :] -= (error / u[j, j])[:, None] * u[j, j + 1 :]


def output_error(w: torch.Tensor, back: torch.Tensor, h: torch.Tensor) -> float:
    """tr(D H D^T) for D = w - back: twice the mean square by which the layer's output changes, over all rows."""
    d = (w - back).double()
    return float(((d @ h) * d).sum())


def close(
    got: Any, what: str, expected: torch.Tensor, relative: float, sizes: torch.Tensor | None = None
) -> Finding | None:
    """A float64 tensor of this shape, each number off by at most that share of its size.

    Sizes are positive, one for each number; without them it is the largest expected number, for all.
    """
    if finding := p.tensor(got, what, torch.float64, tuple(expected.shape)):
        return finding
    if sizes is None:
        sizes = expected.abs().max() if expected.any() else torch.ones(())
    error = ((got - expected).abs() / sizes).nan_to_num(nan=float("inf"))
    if bool((error <= relative).all()):
        return None
    index = tuple(int(i) for i in torch.unravel_index(error.argmax(), error.shape))
    return Finding(
        f"{what}: {int((error > relative).sum())} of {error.numel()} numbers are off",
        index=index,
        expected=f"{expected[index].item():.6g}",
        got=f"{got[index].item():.6g}",
        error=100 * error[index].item(),
        bound=100 * relative,
        unit="% of the largest number" if sizes.ndim == 0 else "%",
    )
