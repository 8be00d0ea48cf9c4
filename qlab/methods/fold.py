"""Move scales between layers without changing what a model computes.

Multiply the columns of a weight by s and divide its inputs by s: W x = (W s)(x / s). The division costs nothing where
it is done once and for all inside the norm or linear layer that the inputs come from. AWQ (Lin et al. 2023) moves
scales to make the grid finer for important columns, SmoothQuant (Xiao et al. 2022, eq. 3) to make activations easier
to round, and `qlab.models.outliers` to make them harder.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.func import functional_call
from transformers.pytorch_utils import Conv1D

from qlab.formats import affine


@torch.no_grad()
def into_norm(norm: nn.Module, layers: Sequence[nn.Module], scales: torch.Tensor) -> None:
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
def into_linear(
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


def shared_heads(mean_abs: torch.Tensor, head_dim: int, repeats: int, how: str = "mean") -> torch.Tensor:
    """Average what o_proj sees over the query heads that share a value head, or take the largest; (in,) in and out.

    With grouped-query attention, channel d of query head h comes from channel d of value head h // repeats. A scale can
    be folded into v_proj only if these query heads agree on it, and they do when their statistics are the same.

    Args:
        mean_abs: (in,), a statistic of the inputs of o_proj.
        head_dim: channels of a head.
        repeats: query heads for each value head.
        how: "mean", or "max" for a statistic that is a maximum.

    Raises:
        ValueError: mean_abs is not made of whole heads, `repeats` for each value head; an unknown `how`.
    """
    if how not in ("mean", "max"):
        raise ValueError(f"how: got {how!r}; choose mean or max")
    heads = _by_value_head("mean_abs", mean_abs, head_dim, repeats)  # (value heads, repeats, head_dim)
    reduced = heads.mean(1) if how == "mean" else heads.amax(1)
    return reduced.repeat_interleave(repeats, 0).flatten()


def _by_value_head(name: str, values: torch.Tensor, head_dim: int, repeats: int) -> torch.Tensor:
    """(in,) as (value heads, repeats, head_dim)."""
    check_count("head_dim", head_dim)
    check_count("repeats", repeats)
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
        check_statistic("scales", scales, (_out_by_in(layer).shape[1],))
    if not bool((scales > 0).all()):
        raise ValueError(f"scales: got {float(scales.min()):.3g}; all must be above 0")
    return scales.to(torch.promote_types(scales.dtype, torch.float32))


def check_statistic(name: str, values: torch.Tensor, shape: tuple[int, ...]) -> None:
    if not isinstance(values, torch.Tensor) or not values.is_floating_point():
        got = values.dtype if isinstance(values, torch.Tensor) else type(values).__name__
        raise TypeError(f"{name}: got {got}; give a floating-point tensor of shape {shape}")
    if values.shape != shape:
        raise ValueError(f"{name}: got shape {tuple(values.shape)}; the inputs of the weight ask for {shape}")
    if not bool(torch.isfinite(values).all()):
        raise ValueError(f"{name}: holds NaN or infinity; calibrate on inputs that are finite")


def check_count(name: str, value: int) -> None:
    if type(value) is not int:
        raise TypeError(f"{name}: got {value!r}; give a whole number, 1 or more")
    if value < 1:
        raise ValueError(f"{name}: got {value}; give a whole number, 1 or more")
