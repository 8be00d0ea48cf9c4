"""AWQ (Lin et al. 2023, "AWQ: Activation-aware Weight Quantization for LLM Compression and Acceleration").

The error of a weight hurts in proportion to the input that it meets, and a few input channels are far larger than the
rest. So before rounding, multiply the columns of W by s and divide the inputs by s: the product stays the same, and a
column with s > 1 meets a grid that is finer for it. Dividing the inputs costs nothing where it can be done inside the
norm or linear layer that they come from. How far to go is searched, with s = mean|x|^ratio (eq. 4 and 5):

    minimize over ratio in {0, 1/n, ..., (n-1)/n}    loss = sum over layers of tr(dW H dWᵀ),    dW = Q(W s) / s - W

H = (2/n) Σ x xᵀ is the second-moment matrix of the n calibration inputs. So the loss *is* the squared error of the
outputs on these inputs, summed over outputs, averaged over tokens, and doubled: tr(dW H dWᵀ) = (2/n) Σ |dW x|². No
activations have to be kept. Ratio 0 is round-to-nearest.

Then the largest weights of each group may be clipped: a finer grid can give back more than they lose.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from qlab.formats import affine

from .fold import check_count, check_statistic

_SMALLEST = 1e-4  # scale before normalization, as in the authors' code
_AT_ONCE = 2**22  # weights that are clipped at one time


@dataclass(frozen=True)
class ScaleSearch:
    """What `search_scales` found."""

    scales: torch.Tensor  # float32 (in,): the factor of every column of the weights
    ratio: float
    losses: torch.Tensor  # float32 (ratios,): the loss of every ratio; the first is that of round-to-nearest


@torch.no_grad()
def search_scales(
    weights: Sequence[torch.Tensor],
    mean_abs: torch.Tensor,
    hessian: torch.Tensor,
    bits: int = 4,
    group_size: affine.GroupSize = 128,
    symmetric: bool = True,
    ratios: int = 20,
    scale_dtype: torch.dtype = torch.float16,
) -> ScaleSearch:
    """Find the ratio, and with it the scales, that suit all layers which share an input. No weight is changed.

    Scales are normalized by sqrt(max * min). An input that was 0 on every token tells nothing and keeps the scale 1.
    Computed in float32; of equal losses the smaller ratio wins.

    Args:
        weights: one (out_i, in) for every layer that sees this input, such as q, k and v.
        mean_abs: (in,), the mean of |x| over the calibration tokens; see `fold.shared_heads` for o_proj.
        hessian: (in, in), (2/n) Σ x xᵀ of the same tokens.
        bits, group_size, symmetric, scale_dtype: as in `affine.quantize`.
        ratios: how many to try: 0, 1/ratios and so on, below 1.

    Raises:
        TypeError, ValueError: arguments as in `affine.quantize`; weights that are not a list; a mean or a Hessian of
            the wrong shape, with NaN or infinity, or a mean below 0.
    """
    affine.check_arguments(bits, group_size, symmetric, scale_dtype)
    check_count("ratios", ratios)
    if isinstance(weights, torch.Tensor) or not isinstance(weights, Sequence) or not weights:
        raise TypeError(f"weights: got {type(weights).__name__}; give a list with at least one weight (out, in)")
    for i, w in enumerate(weights):
        affine.check_weight(w, f"weights[{i}]")
        check_statistic("hessian", hessian, (w.shape[1], w.shape[1]))
    check_statistic("mean_abs", mean_abs, (hessian.shape[0],))
    if bool((mean_abs < 0).any()):
        raise ValueError("mean_abs: got negative values; it is the mean of |x|, so take abs() before the mean")

    exact = [w.float() for w in weights]
    mean_abs, hessian = mean_abs.to(exact[0]), hessian.to(exact[0])
    tried = [_scales(mean_abs, i / ratios) for i in range(ratios)]
    losses = torch.zeros(ratios, device=hessian.device)
    for i, scales in enumerate(tried):
        for w in exact:
            rounded = affine.rounded(w * scales, bits, group_size, symmetric, scale_dtype)
            change = rounded / scales - w
            losses[i] += ((change @ hessian) * change).sum()
    best = int(losses.argmin())
    return ScaleSearch(tried[best], best / ratios, losses)


@torch.no_grad()
def search_clip(
    w: torch.Tensor,
    hessian: torch.Tensor,
    bits: int = 4,
    group_size: affine.GroupSize = 128,
    symmetric: bool = True,
    steps: int = 20,
    shrink: float = 0.5,
    scale_dtype: torch.dtype = torch.float16,
) -> torch.Tensor:
    """The largest |w| to keep in every group: (rows, groups), (1, 1) per tensor; float32, or float64 if w is.

    Tried are 1 - shrink * i/steps times the largest |w|, i = 0 to steps - 1; of equal losses the largest limit wins.
    The loss of group g is dW_g H_gg dW_gᵀ with the block of H that belongs to its columns, as if errors of different
    groups never met in an output. A "channel" or "tensor" is one group, and its loss is exact.

    Args:
        w: (out, in), multiplied by the scales if there are any.
        hessian: (in, in), (2/n) Σ x xᵀ of the inputs of this weight: those divided by the scales.
        bits, group_size, symmetric, scale_dtype: as in `affine.quantize`.
        steps: how many limits to try.
        shrink: how much of the largest weight may go, from 0 to below 1.

    Raises:
        TypeError, ValueError: arguments as in `affine.quantize`; a Hessian as in `search_scales`; steps or shrink.
    """
    affine.check_arguments(bits, group_size, symmetric, scale_dtype)
    affine.check_weight(w)
    check_statistic("hessian", hessian, (w.shape[1], w.shape[1]))
    check_count("steps", steps)
    if isinstance(shrink, bool) or not isinstance(shrink, (int, float)) or not 0 <= shrink < 1:
        raise ValueError(f"shrink: got {shrink!r}; allowed is 0 to below 1, 0.5 is usual")
    compute = torch.promote_types(w.dtype, torch.float32)
    blocks = _diagonal_blocks(hessian.to(w.device, compute), _width(w, group_size))

    def limits_of(rows: torch.Tensor) -> torch.Tensor:
        largest = _in_groups(rows.abs(), group_size).amax(-1)  # (rows, groups)
        if group_size == "tensor":
            largest = largest.amax(0, keepdim=True)
        limits, lowest = largest, torch.full_like(largest, torch.inf)
        for i in range(steps):
            limit = largest * (1 - shrink * i / steps)
            clipped = apply_limits(rows, limit, group_size)
            change = affine.rounded(clipped, bits, group_size, symmetric, scale_dtype) - rows
            by_group = _in_groups(change, group_size).transpose(0, 1)  # (groups, rows, group)
            loss = ((by_group @ blocks) * by_group).sum(-1).t()  # (rows, groups)
            if group_size == "tensor":
                loss = loss.sum(0, keepdim=True)
            better = loss < lowest
            limits, lowest = torch.where(better, limit, limits), torch.where(better, loss, lowest)
        return limits

    together = len(w) if group_size == "tensor" else max(1, _AT_ONCE // w.shape[1])
    return torch.cat([limits_of(rows.to(compute)) for rows in w.split(together)])


def apply_limits(w: torch.Tensor, limits: torch.Tensor, group_size: affine.GroupSize) -> torch.Tensor:
    """w (out, in) with every weight pulled inside the limit of its group, as from `search_clip`."""
    limits = limits.repeat_interleave(_width(w, group_size), 1)[:, : w.shape[1]]
    return torch.clamp(w, -limits, limits)


def quantize(
    w: torch.Tensor,
    hessian: torch.Tensor,
    bits: int = 4,
    group_size: affine.GroupSize = 128,
    symmetric: bool = True,
    clip: bool = True,
    scale_dtype: torch.dtype = torch.float16,
) -> affine.AffineWeight:
    """Clip as `search_clip` finds best, then round to nearest: the second half of AWQ, for a weight scaled already.

    Arguments and errors are those of `search_clip`. With clip=False this is round-to-nearest. The authors' code does
    not clip q and k, whose errors meet in a product that this loss does not see.
    """
    if not isinstance(clip, bool):
        raise TypeError(f"clip: got {clip!r}; give True or False")
    if not clip:
        return affine.quantize(w, bits, group_size, symmetric, scale_dtype)
    limits = search_clip(w, hessian, bits, group_size, symmetric, scale_dtype=scale_dtype)
    clipped = apply_limits(w.to(limits.dtype), limits, group_size)
    return replace(affine.quantize(clipped, bits, group_size, symmetric, scale_dtype), dtype=w.dtype)


def _scales(mean_abs: torch.Tensor, ratio: float) -> torch.Tensor:
    """mean|x|^ratio, centered so that the largest and the smallest multiply to 1; float32 (in,)."""
    live = mean_abs > 0
    if not bool(live.any()):
        return torch.ones_like(mean_abs)
    scales = mean_abs.pow(ratio).clamp(min=_SMALLEST)
    center = (scales[live].max() * scales[live].min()).sqrt()
    return torch.where(live, scales / center, 1.0)


def _width(w: torch.Tensor, group_size: affine.GroupSize) -> int:
    return w.shape[1] if isinstance(group_size, str) else min(group_size, w.shape[1])


def _in_groups(w: torch.Tensor, group_size: affine.GroupSize) -> torch.Tensor:
    """(rows, in) as (rows, groups, group), a short last group filled with zeros; rows are groups per tensor as well."""
    width = _width(w, group_size)
    return F.pad(w, (0, -w.shape[1] % width)).reshape(w.shape[0], -1, width)


def _diagonal_blocks(hessian: torch.Tensor, width: int) -> torch.Tensor:
    """(groups, group, group): the block of H (in, in) for the columns of every group."""
    rest = -hessian.shape[0] % width
    padded = F.pad(hessian, (0, rest, 0, rest))
    groups = padded.shape[0] // width
    return padded.reshape(groups, width, groups, width).diagonal(dim1=0, dim2=2).permute(2, 0, 1)
