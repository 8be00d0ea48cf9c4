"""What is done inside a block whose inputs are rounded, too: SmoothQuant's scales, and static scales for inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from qlab.formats.activations import static_scale
from qlab.methods import fold, smoothquant
from qlab.methods.smoothquant import InputRanges

from .blocks import Place
from .folding import bias_of, check_unchanged, fold_scales, value_heads, weight_of
from .linear import QuantLinear
from .recipe import METHODS, Recipe

STATISTIC = InputRanges


def quantize_block(place: Place, recipe: Recipe) -> dict[str, float | None]:
    """Quantize the layers of one block. No losses are known: ranges do not tell errors."""
    order = place.stages()
    largest = {name: ranges.largest for name, ranges in place.collect(order, InputRanges).items()}
    if "alpha" in recipe.extra:
        _smooth(place, largest, recipe.extra["alpha"])
    for stage in order:
        for name in stage:
            _round(place.block, name, largest[name], recipe, place.arguments[name])
    return {name: None for stage in order for name in stage}


def quantize_layer(model: nn.Module, name: str, seen: InputRanges, recipe: Recipe) -> None:
    """Replace one layer that is in no block. Nothing is smoothed there."""
    _round(model, name, seen.largest, recipe, recipe.layers[name])


def _round(parent: nn.Module, name: str, largest: torch.Tensor, recipe: Recipe, arguments: dict[str, Any]) -> None:
    layer = parent.get_submodule(name)
    weight = METHODS[recipe.method].quantize(weight_of(layer), **arguments)
    scheme = recipe.activations
    if scheme is not None and recipe.static:
        scheme = replace(scheme, scale=static_scale(float(largest.max()), scheme.data_type))
    parent.set_submodule(name, QuantLinear(weight, bias_of(layer), scheme))


def _smooth(place: Place, largest: dict[str, torch.Tensor], alpha: float) -> None:
    """SmoothQuant's scales, folded into the block wherever it has room; `largest` become those of the new inputs.

    The inner places come first: what goes into the rows of up and v decides how large the weights behind the norms are.
    """
    block = place.block
    before = place.flow.run(place.index, block, 0)
    for edge, chosen in reversed(place.edges(largest)):
        inputs = largest[chosen[0]]
        weights = smoothquant.largest_weights([weight_of(block.get_submodule(name)) for name in edge.layers])
        if shared := value_heads(block, edge):
            inputs, weights = (fold.shared_heads(values, *shared, how="max") for values in (inputs, weights))
        scales = smoothquant.scales(inputs, weights, alpha)
        fold_scales(block, edge, scales)
        for name in chosen:
            largest[name] = largest[name] / scales
    check_unchanged(place.prefix, before, place.flow.run(place.index, block, 0))
