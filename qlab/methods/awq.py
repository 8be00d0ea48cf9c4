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
from torch import nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from qlab.formats import affine

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
        mean_abs: (in,), the mean of |x| over the calibration tokens; see `shared_heads` for o_proj.
        hessian: (in, in), (2/n) Σ x xᵀ of the same tokens.
        bits, group_size, symmetric, scale_dtype: as in `affine.quantize`.
        ratios: how many to try: 0, 1/ratios and so on, below 1.

    Raises:
        TypeError, ValueError: arguments as in `affine.quantize`; weights that are not a list; a mean or a Hessian of
            the wrong shape, with NaN or infinity, or a mean below 0.
    """
    affine.check_arguments(bits, group_size, symmetric, scale_dtype)
    _check_count("ratios", ratios)
    if isinstance(weights, torch.Tensor) or not isinstance(weights, Sequence) or not weights:
        raise TypeError(f"weights: got {type(weights).__name__}; give a list with at least one weight (out, in)")
    for i, w in enumerate(weights):
        affine.check_weight(w, f"weights[{i}]")
        _check_statistic("hessian", hessian, (w.shape[1], w.shape[1]))
    _check_statistic("mean_abs", mean_abs, (hessian.shape[0],))
    if bool((mean_abs < 0).any()):
        raise ValueError("mean_abs: got negative values; it is the mean of |x|, so take abs() before the mean")

    exact = [w.float() for w in weights]
    mean_abs, hessian = mean_abs.to(exact[0]), hessian.to(exact[0])
    tried = [_scales(mean_abs, i / ratios) for i in range(ratios)]
    losses = torch.zeros(ratios, device=hessian.device)
    for i, scales in enumerate(tried):
        for w in exact:
            rounded = affine.quantize(w * scales, bits, group_size, symmetric, scale_dtype).dequantize()
            change = rounded / scales - w
            losses[i] += ((change @ hessian) * change).sum()
    best = int(losses.argmin())
    return ScaleSearch(tried[best], best / ratios, losses)


def shared_heads(mean_abs: torch.Tensor, head_dim: int, repeats: int) -> torch.Tensor:
    """Average what o_proj sees over the query heads that share a value head; (in,) in, (in,) out.

    With grouped-query attention, channel d of query head h comes from channel d of value head h // repeats. A scale can
    be folded into v_proj only if these query heads agree on it, and they do when their statistics are the same.

    Raises:
        ValueError: mean_abs is not made of whole heads, `repeats` for each value head.
    """
    return _by_value_head("mean_abs", mean_abs, head_dim, repeats).mean(1).repeat_interleave(repeats, 0).flatten()


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
    _check_statistic("hessian", hessian, (w.shape[1], w.shape[1]))
    _check_count("steps", steps)
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
            change = affine.quantize(clipped, bits, group_size, symmetric, scale_dtype).dequantize() - rows
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


@torch.no_grad()
def fold_into_norm(norm: nn.Module, layers: Sequence[nn.Module], scales: torch.Tensor) -> None:
    """Divide the outputs of a norm by `scales` and multiply the columns of the layers after it, in place.

    Args:
        norm: a LayerNorm or RMSNorm; its weight, and its bias if there is one, are divided.
        layers: every layer that reads this norm (nn.Linear or GPT-2's Conv1D). One left out would change the model.
        scales: positive (in,).

    Raises:
        TypeError: a layer of another kind, or a norm without weight.
        ValueError: scales that do not fit or overflow a weight, or a norm whose output is not proportional to its
            weight and bias: Gemma stores the gain minus 1. Nothing is changed then.
    """
    scales = _check_scales(scales, layers)
    parameters = {name: p for name, p in norm.named_parameters(recurse=False) if name in ("weight", "bias")}
    if "weight" not in parameters or parameters["weight"].shape != scales.shape:
        raise TypeError(f"norm: got {type(norm).__name__} without a weight of shape {tuple(scales.shape)}; skip it")
    # Rather than know all norms by name, see whether this one does what folding needs, on a few random inputs.
    x = torch.randn(8, len(scales), generator=torch.Generator().manual_seed(0)).to(parameters["weight"].device)
    precise = {name: p.float() for name, p in parameters.items()}
    expected = functional_call(norm, precise, (x,))
    folded = functional_call(norm, {name: _divided(p, scales) for name, p in precise.items()}, (x,)) * scales.to(x)
    if not torch.allclose(folded, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max())):
        raise ValueError(
            f"norm: the output of {type(norm).__name__} is not proportional to its weight and bias (Gemma's norms "
            "multiply by 1 + weight); scales cannot be folded into it, so leave this input unscaled"
        )
    _replace([(p, _divided(p, scales)) for p in parameters.values()] + [_multiplied(layer, scales) for layer in layers])


@torch.no_grad()
def fold_into_linear(
    previous: nn.Module, layers: Sequence[nn.Module], scales: torch.Tensor, head_dim: int | None = None
) -> None:
    """Divide the outputs of a linear layer by `scales` and multiply the columns of the layers after it, in place.

    What lies between must let a positive factor through: nothing, a product with a gate, a ReLU, attention's average
    over values; not a GELU.

    Args:
        previous: nn.Linear or Conv1D; its rows and its bias are divided.
        layers: every layer that reads its outputs.
        scales: positive (in,).
        head_dim: channels of a head, needed where v_proj is narrower than o_proj (grouped-query attention); scales
            must then be equal for the query heads of one value head, as they are after `shared_heads`.

    Raises:
        TypeError: a layer of another kind.
        ValueError: scales that do not fit, differ where they must not, or overflow a weight. Nothing is changed then.
    """
    scales = _check_scales(scales, layers)
    weight = _out_by_in(previous)
    outs, ins = weight.shape[0], len(scales)
    rows = scales
    if outs != ins:
        if head_dim is None or ins % outs:
            raise ValueError(
                f"previous: it has {outs} outputs for {ins} scales; allowed is one each or, with head_dim, value heads "
                "that several query heads share"
            )
        shared = _by_value_head("scales", scales, head_dim, ins // outs)  # (value heads, repeats, head_dim)
        if not torch.equal(shared, shared[:, :1].expand_as(shared)):
            raise ValueError("scales: query heads that share a value head differ; pass mean_abs through shared_heads")
        rows = shared[:, 0].flatten()
    changes = [(weight, _divided(weight, rows[:, None]))] + [_multiplied(layer, scales) for layer in layers]
    if isinstance(previous.bias, torch.Tensor):
        changes.append((previous.bias, _divided(previous.bias, rows)))
    _replace(changes)


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


def _by_value_head(name: str, values: torch.Tensor, head_dim: int, repeats: int) -> torch.Tensor:
    """(in,) as (value heads, repeats, head_dim)."""
    _check_count("head_dim", head_dim)
    _check_count("repeats", repeats)
    if values.ndim != 1 or values.numel() == 0 or values.numel() % (head_dim * repeats):
        raise ValueError(
            f"{name}: got shape {tuple(values.shape)}; allowed is a multiple of {repeats} heads of {head_dim} channels"
        )
    return values.reshape(-1, repeats, head_dim)


def _out_by_in(layer: nn.Module) -> torch.Tensor:
    """The weight itself, seen as (out, in): what is written there is written to the layer."""
    if not isinstance(layer, (nn.Linear, Conv1D)) or layer.weight.dtype not in affine.WEIGHT_DTYPES:
        raise TypeError(f"layer: got {type(layer).__name__}; allowed is nn.Linear or Conv1D, not yet quantized")
    return layer.weight.t() if isinstance(layer, Conv1D) else layer.weight


def _multiplied(layer: nn.Module, scales: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    weight = _out_by_in(layer)
    return weight, (weight * scales.to(weight.device)).to(weight.dtype)


def _divided(values: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    return (values / scales.to(values.device)).to(values.dtype)


def _replace(changes: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Write all new values, or none."""
    for old, new in changes:
        if not bool(torch.isfinite(new).all()):
            raise ValueError(f"scales: folding them overflows {old.dtype}; use smaller ones or a wider type")
    for old, new in changes:
        old.copy_(new)


def _check_scales(scales: torch.Tensor, layers: Sequence[nn.Module]) -> torch.Tensor:
    """The scales, at least float32, if they fit all layers."""
    if not isinstance(layers, Sequence) or not layers:
        raise TypeError(f"layers: got {type(layers).__name__}; give a list with at least one layer")
    for layer in layers:
        _check_statistic("scales", scales, (_out_by_in(layer).shape[1],))
    if not bool((scales > 0).all()):
        raise ValueError(f"scales: got {float(scales.min()):.3g}; all must be above 0")
    return scales.to(torch.promote_types(scales.dtype, torch.float32))


def _check_statistic(name: str, values: torch.Tensor, shape: tuple[int, ...]) -> None:
    if not isinstance(values, torch.Tensor) or not values.is_floating_point():
        got = values.dtype if isinstance(values, torch.Tensor) else type(values).__name__
        raise TypeError(f"{name}: got {got}; give a floating-point tensor of shape {shape}")
    if values.shape != shape:
        raise ValueError(f"{name}: got shape {tuple(values.shape)}; the inputs of the weight ask for {shape}")
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"{name}: holds NaN or infinity; calibrate on inputs that are finite")


def _check_count(name: str, value: int) -> None:
    if type(value) is not int:
        raise TypeError(f"{name}: got {value!r}; give a whole number, 1 or more")
    if value < 1:
        raise ValueError(f"{name}: got {value}; give a whole number, 1 or more")
