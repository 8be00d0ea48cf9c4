"""What the questions of this set share: the example of the cards, and codes and scales of tokens."""

from __future__ import annotations

from typing import Any

import torch

from ... import properties as p
from ...question import Finding

LARGEST = 127  # the largest int8 code that a symmetric grid uses
TIE = 5e-5  # of a step: more than float32 moves a place on the grid of 8 bits

# The example of the cards: two tokens with four channels, the last one an outlier in token 1, and two outputs.
CARD_X = torch.tensor([[0.50, -1.27, 0.20, 0.04], [0.30, 0.10, -0.26, 12.7]])
CARD_X_CODES = torch.tensor([[50, -127, 20, 4], [3, 1, -3, 127]], dtype=torch.int8)
CARD_X_SCALES = torch.tensor([[0.01], [0.1]])
CARD_W_CODES = torch.tensor([[127, 64, -32, 10], [20, -127, 50, 5]], dtype=torch.int8)
CARD_W_SCALES = torch.tensor([[0.01], [0.02]])


def normal(random: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=random)


def int8(random: torch.Generator, *shape: int, low: int = -LARGEST) -> torch.Tensor:
    """Codes from `low` to 127, all equally often."""
    return torch.randint(low, LARGEST + 1, shape, generator=random).to(torch.int8)


def scales(random: torch.Generator, count: int) -> torch.Tensor:
    """float32 (count, 1), from 0.001 to 0.1."""
    return 10.0 ** (-3 + 2 * torch.rand(count, 1, generator=random))


def token_scales(x: Any) -> Any:
    """(tokens, 1); 1 for a token of zeros."""
    largest = x.abs().amax(dim=1, keepdim=True) / LARGEST
    return torch.where(largest > 0, largest, 1.0)


def codes_of(x: Any, steps: Any) -> Any:
    return torch.round(x / steps).clamp(-LARGEST, LARGEST)


def is_near_a_tie(x: torch.Tensor, steps: torch.Tensor) -> bool:
    """Whether some value lies so close to the middle of two codes that float32 decides between them."""
    return bool((((x.double() / steps.double()) % 1 - 0.5).abs() < TIE).any())


def near_products(got: Any, what: str, exact: torch.Tensor, bound: torch.Tensor) -> Finding | None:
    """float32, each as exact as sums of float32 are; `bound` says how far each may be off. Told without that bound."""
    if finding := p.tensor(got, what, torch.float32, tuple(exact.shape)):
        return finding
    finding = p.values_near(got, what, exact, bound, torch.ones(1))
    return Finding(finding.what, finding.index, finding.expected, finding.got) if finding else None
