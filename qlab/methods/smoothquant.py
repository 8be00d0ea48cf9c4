"""SmoothQuant (Xiao et al. 2022, "SmoothQuant: Accurate and Efficient Post-Training Quantization for LLMs").

With one scale for a whole token, the few input channels that are a hundred times larger than the rest leave the rest
hardly any codes. Weights have no such channels. So hand a part of the difficulty over: divide every input channel by
s_j and multiply the column of the weight by it (eq. 3); the product stays the same. How much of it goes is α (eq. 4):

    s_j = max|X_j|^α / max|W_j|^(1-α)

α = 1 makes every input channel equally large and leaves it all to the weights; α = 0 does the reverse; 0.5 makes the
largest input and the largest weight of each channel equal. Layers that share an input share s, with the largest weight
of all of them.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from qlab.formats import affine
from qlab.formats.activations import Activations

from . import w8a8
from .fold import check_statistic

DYNAMIC = Activations()  # int8, one scale for every token


class InputRanges:
    """The largest magnitude of every input channel over all tokens given to `add`."""

    def __init__(self, in_features: int) -> None:
        self.largest = torch.zeros(in_features)  # float32 (in,)
        self.tokens = 0

    def add(self, x: torch.Tensor) -> None:
        """Take in the inputs of the layer, (..., in). Raises ValueError for NaN or infinity."""
        x = x.detach().reshape(-1, len(self.largest))  # (tokens, in)
        if len(x) == 0:
            return
        largest = x.abs().amax(0).float()
        if not bool(torch.isfinite(largest).all()):
            raise ValueError("x: holds NaN or infinity; find the layer before this one that breaks them")
        self.largest = torch.maximum(self.largest.to(x.device), largest)
        self.tokens += len(x)


def largest_weights(weights: Sequence[torch.Tensor]) -> torch.Tensor:
    """The largest |w| of every input channel over all layers that share it: (out_i, in) each to float32 (in,)."""
    return torch.stack([w.detach().abs().amax(0).float() for w in weights]).amax(0)


def scales(input_max: torch.Tensor, weight_max: torch.Tensor, alpha: float = 0.5) -> torch.Tensor:
    """s = max|X|^alpha / max|W|^(1 - alpha), float32 (in,); 1 for a channel that is 0 in the inputs or the weights.

    Args:
        input_max: (in,), as `InputRanges.largest`.
        weight_max: (in,), as from `largest_weights`.
        alpha: 0 to 1, the share of the difficulty that goes to the weights.

    Raises:
        TypeError, ValueError: statistics that do not fit each other, hold NaN, infinity or negative values; alpha.
    """
    check_alpha(alpha)
    check_statistic("input_max", input_max, (input_max.numel(),))
    check_statistic("weight_max", weight_max, tuple(input_max.shape))
    if bool((input_max < 0).any()) or bool((weight_max < 0).any()):
        raise ValueError("input_max, weight_max: got negative values; both are maxima of magnitudes")
    x, w = input_max.float(), weight_max.to(input_max.device).float()
    return torch.where((x > 0) & (w > 0), x.pow(alpha) / w.pow(1 - alpha), 1.0)


def check_alpha(alpha: float) -> None:
    """Raise ValueError for anything but a number from 0 to 1."""
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 <= alpha <= 1:
        raise ValueError(f"alpha: got {alpha!r}; allowed is 0 to 1, 0.5 is usual")


def smooth(
    x: torch.Tensor, weights: Sequence[torch.Tensor], alpha: float = 0.5
) -> tuple[torch.Tensor, list[torch.Tensor], torch.Tensor]:
    """The smoothed inputs x / s, the smoothed weights W s, and s: the method on plain tensors.

    In a model the division is folded into what comes before: `qlab.methods.fold`.

    Args:
        x: (tokens, in), calibration inputs.
        weights: one (out_i, in) for every layer that sees them.

    Raises:
        TypeError, ValueError: as `scales`.
    """
    ranges = InputRanges(x.shape[-1])
    ranges.add(x)
    s = scales(ranges.largest, largest_weights(weights), alpha)
    return x / s, [w * s for w in weights], s


def sweep(
    x: torch.Tensor,
    weights: Sequence[torch.Tensor],
    alphas: Sequence[float],
    scheme: Activations = DYNAMIC,
    group_size: affine.GroupSize = "channel",
) -> list[float]:
    """The relative squared error of the outputs, ‖Q(x/s) Q(Ws)ᵀ - x Wᵀ‖² / ‖x Wᵀ‖², for every alpha, in real int8.

    Args:
        x, weights: as in `smooth`.
        alphas: what to try.
        scheme: how the inputs are quantized.
        group_size: "channel" or "tensor", of the weights.
    """
    exact = [x @ w.T for w in weights]
    losses = []
    for alpha in alphas:
        smoothed, scaled, _ = smooth(x, weights, alpha)
        outputs = [w8a8.linear(smoothed, w8a8.quantize(w, group_size), None, scheme) for w in scaled]
        error = sum(float((y - right).square().sum()) for y, right in zip(outputs, exact, strict=True))
        losses.append(error / sum(float(right.square().sum()) for right in exact))
    return losses
