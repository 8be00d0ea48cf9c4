"""Quantize with calibration data, one block after another.

Every block is calibrated on what reaches it through the blocks before it, which are quantized already; so a later
block can make up for what an earlier one lost. What is done inside a block depends on what is rounded: weights alone
(`calibrate_weights`: GPTQ, AWQ) or inputs, too (`calibrate_inputs`: SmoothQuant and static scales).
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import torch
from torch import nn
from transformers import PreTrainedModel

from qlab.formats.weight import QuantizedWeight

from . import calibrate_inputs, calibrate_weights
from .blocks import Place, before_the_blocks, decoder_blocks, enter, watched
from .calibration import Batch
from .folding import weight_of
from .linear import QuantLinear
from .recipe import Recipe
from .resume import Progress

Done = Callable[[str, QuantizedWeight, float | None], None]  # layer, its weight, its loss if it is known


@torch.no_grad()
def quantize_blocks(
    model: PreTrainedModel, recipe: Recipe, batches: list[Batch], done: Done, progress: Progress | None
) -> None:
    """Replace the layers of `recipe` by `QuantLinear`, in place; `done` hears of each.

    Layers outside the blocks are taken in the order in which they run: OPT's project_in first, a head that is not
    skipped last, on what the whole quantized model gives it.

    Raises:
        ValueError: the model has no blocks, a Hessian that cannot be inverted, or a block that cannot be scaled.
    """
    inside = _inside(recipe)
    blocks = decoder_blocks(model)
    outside = [name for name in recipe.layers if not name.startswith(tuple(f"{prefix}." for prefix in blocks))]
    first = before_the_blocks(model, next(iter(blocks.values())), outside, batches[0])
    for name in first:
        done(name, *_round_outside(model, name, recipe, batches))
    flow = enter(model, blocks, batches)
    for index, (prefix, block) in enumerate(blocks.items()):
        arguments = {
            name.removeprefix(f"{prefix}."): of_layer
            for name, of_layer in recipe.layers.items()
            if name.startswith(f"{prefix}.")
        }
        losses = progress.restore(index, block) if progress else None
        if losses is None:
            place = Place(flow, index, block, prefix, arguments)
            losses = inside.quantize_block(place, recipe)
            if progress:
                progress.save(index, block, losses)
        for name, loss in losses.items():
            done(f"{prefix}.{name}", _weight_in(block, name), loss)
        flow.advance(index, block)

    flow.hidden.clear()
    for name in outside:
        if name not in first:
            done(name, *_round_outside(model, name, recipe, batches))


def _round_outside(
    model: PreTrainedModel, name: str, recipe: Recipe, batches: list[Batch]
) -> tuple[QuantizedWeight, float | None]:
    """Replace a layer that is in no block, calibrated by passes of the whole model."""
    inside = _inside(recipe)
    layer = model.get_submodule(name)
    seen = inside.STATISTIC(weight_of(layer).shape[1])
    with watched(layer, seen, [batch.counted.to(model.device) for batch in batches]):
        for batch in batches:
            model(batch.ids.to(model.device), use_cache=False)
    loss = inside.quantize_layer(model, name, seen, recipe)
    return _weight_in(model, name), loss


def _inside(recipe: Recipe) -> ModuleType:
    """What knows how to work inside a block."""
    return calibrate_weights if recipe.activations is None else calibrate_inputs


def _weight_in(parent: nn.Module, name: str) -> QuantizedWeight:
    layer = parent.get_submodule(name)
    assert isinstance(layer, QuantLinear)
    return layer.weight
