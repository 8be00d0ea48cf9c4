"""What GPTQ and AWQ do inside a block, with the second moments of the inputs of its layers.

GPTQ goes stage by stage (true-sequential: o_proj sees quantized q, k and v), at the price of one pass for each stage.
AWQ looks once, because it must move scales between layers before any of them is rounded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from qlab.formats.weight import QuantizedWeight
from qlab.methods import awq, fold, gptq
from qlab.methods.gptq import Hessian

from .blocks import Place
from .folding import bias_of, check_unchanged, fold_scales, value_heads, weight_of
from .linear import QuantLinear
from .recipe import Recipe

STATISTIC = Hessian


def quantize_block(place: Place, recipe: Recipe) -> dict[str, float]:
    """Quantize the layers of one block; their losses, relative to the size of their outputs."""
    order = place.stages()
    one_by_one = recipe.extra.get("true_sequential", False)
    losses: dict[str, float] = {}
    for together in [[stage] for stage in order] if one_by_one else [order]:
        seen = place.collect(together, Hessian)
        matrices = {name: hessian.matrix for name, hessian in seen.items()}
        if recipe.extra.get("scale", False):
            _scale(place, seen, matrices)
        for name, matrix in matrices.items():
            full, arguments = f"{place.prefix}.{name}", place.arguments[name]
            losses[name] = _round(place.block, name, full, matrix, seen[name].tokens, recipe.method, arguments)
    return losses


def quantize_layer(model: nn.Module, name: str, seen: Hessian, recipe: Recipe) -> float:
    """Replace one layer that is in no block; its loss as in `quantize_block`. No scales move there."""
    return _round(model, name, name, seen.matrix, seen.tokens, recipe.method, recipe.layers[name])


def _round(
    parent: nn.Module, name: str, full: str, hessian: torch.Tensor, tokens: int, method: str, arguments: dict[str, Any]
) -> float:
    """Replace one layer by its quantized self; the mean squared error of its outputs, relative to their mean square."""
    layer = parent.get_submodule(name)
    w = weight_of(layer)
    if method == "gptq":
        weight: QuantizedWeight = gptq.quantize(w, hessian, **arguments, name=full, tokens=tokens)
    else:
        weight = awq.quantize(w, hessian, **arguments)
    exact = w.to(hessian.dtype)
    change = weight.dequantize(hessian.dtype) - exact
    loss = ((change @ hessian) * change).sum() / ((exact @ hessian) * exact).sum().clamp(min=1e-30)
    parent.set_submodule(name, QuantLinear(weight, bias_of(layer)))
    return float(loss)


def _scale(place: Place, seen: dict[str, Hessian], matrices: dict[str, torch.Tensor]) -> None:
    """AWQ's scales, folded into the block wherever it has room for them; `matrices` become those of the new inputs."""
    block = place.block
    before = place.flow.run(place.index, block, 0)
    for edge, chosen in place.edges(seen):
        mean_abs = seen[chosen[0]].mean_abs
        if shared := value_heads(block, edge):
            mean_abs = fold.shared_heads(mean_abs, *shared)
        arguments = place.arguments[chosen[0]]
        scales = awq.search_scales(
            [weight_of(block.get_submodule(name)) for name in chosen],
            mean_abs,
            matrices[chosen[0]],
            bits=min(place.arguments[name]["bits"] for name in chosen),
            group_size=arguments["group_size"],
            symmetric=arguments["symmetric"],
            scale_dtype=arguments["scale_dtype"],
        ).scales
        fold_scales(block, edge, scales)
        for name in chosen:
            matrices[name] = matrices[name] / torch.outer(scales, scales)
    check_unchanged(place.prefix, before, place.flow.run(place.index, block, 0))
