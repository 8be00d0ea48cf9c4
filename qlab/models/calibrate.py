"""Quantize with calibration data: GPTQ and AWQ, one block after another.

Every block is calibrated on what reaches it through the blocks before it, which are quantized already; so a later
block can make up for what an earlier one lost. GPTQ goes on in the same way inside the block (true-sequential: o_proj
sees quantized q, k and v), at the price of one pass for each stage. AWQ looks once, because it must move scales
between layers before any of them is rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from qlab.formats.weight import QuantizedWeight
from qlab.methods import awq, fold, gptq
from qlab.methods.gptq import Hessian

from .blocks import Flow, before_the_blocks, decoder_blocks, enter, stages, watched
from .calibration import Batch
from .linear import QuantLinear
from .recipe import Recipe
from .resume import Progress

Done = Callable[[str, QuantizedWeight, float], None]  # layer, its weight, its loss


@dataclass(frozen=True)
class Edge:
    """Where AWQ can hide scales: `previous` gives exactly the input of `layers`, up to a product with constants."""

    previous: str
    layers: tuple[str, ...]


# Names inside a block. A scale passes from up_proj through the product with the gate, and through a ReLU, because it
# is positive; GPT-2's GELU lets none through.
EDGES = (
    Edge("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
    Edge("self_attn.v_proj", ("self_attn.o_proj",)),
    Edge("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
    Edge("mlp.up_proj", ("mlp.down_proj",)),
    Edge("self_attn_layer_norm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),  # OPT
    Edge("self_attn.v_proj", ("self_attn.out_proj",)),
    Edge("final_layer_norm", ("fc1",)),
    Edge("fc1", ("fc2",)),
    Edge("ln_1", ("attn.c_attn",)),  # GPT-2
    Edge("ln_2", ("mlp.c_fc",)),
)


@torch.no_grad()
def quantize_blocks(
    model: PreTrainedModel, recipe: Recipe, batches: list[Batch], done: Done, progress: Progress | None
) -> None:
    """Replace the layers of `recipe` by `QuantLinear`, in place; `done` hears of each.

    Layers outside the blocks are taken in the order in which they run: OPT's project_in first, a head that is not
    skipped last, on what the whole quantized model gives it.

    Raises:
        ValueError: the model has no blocks, a Hessian that cannot be inverted, or a block that AWQ cannot scale.
    """
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
            place = _Place(flow, index, block, prefix, arguments)
            losses = _quantize_block(place, recipe)
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
) -> tuple[QuantizedWeight, float]:
    """Replace a layer that is in no block, calibrated by passes of the whole model."""
    layer = model.get_submodule(name)
    with watched(layer, _width(layer), [batch.counted.to(model.device) for batch in batches]) as seen:
        for batch in batches:
            model(batch.ids.to(model.device), use_cache=False)
    loss = _round(model, name, name, seen.matrix, seen.tokens, recipe.method, recipe.layers[name])
    return _weight_in(model, name), loss


@dataclass(frozen=True)
class _Place:
    """One block, what flows into it, and the arguments of its layers, by their names inside the block."""

    flow: Flow
    index: int
    block: nn.Module
    prefix: str
    arguments: dict[str, dict[str, Any]]

    def collect(self, stages: list[list[str]]) -> dict[str, Hessian]:
        """The statistics of the inputs of some layers, from one pass; the layers of a stage share theirs."""
        seen: dict[str, Hessian] = {}
        with ExitStack() as stack:
            for stage in stages:
                layer = self.block.get_submodule(stage[0])
                hessian = stack.enter_context(watched(layer, _width(layer), self.flow.counted))
                seen |= dict.fromkeys(stage, hessian)
            for batch in range(len(self.flow.hidden)):
                self.flow.run(self.index, self.block, batch)
        return seen


def _quantize_block(place: _Place, recipe: Recipe) -> dict[str, float]:
    """Quantize the layers of one block; their losses, relative to the size of their outputs."""
    layers = {name: place.block.get_submodule(name) for name in place.arguments}
    order = stages(place.flow, place.index, place.block, layers) if layers else []
    one_by_one = recipe.extra.get("true_sequential", False)
    losses: dict[str, float] = {}
    for together in [[stage] for stage in order] if one_by_one else [order]:
        seen = place.collect(together)
        matrices = {name: hessian.matrix for name, hessian in seen.items()}
        if recipe.extra.get("scale", False):
            _scale(place, seen, matrices)
        for name, matrix in matrices.items():
            full = f"{place.prefix}.{name}"
            arguments, tokens = place.arguments[name], seen[name].tokens
            losses[name] = _round(place.block, name, full, matrix, tokens, recipe.method, arguments)
    return losses


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


def _scale(place: _Place, seen: dict[str, Hessian], matrices: dict[str, torch.Tensor]) -> None:
    """AWQ's scales, folded into the block wherever it has room for them; `matrices` become those of the new inputs."""
    block = place.block
    parts = dict(block.named_modules())
    before = place.flow.run(place.index, block, 0)
    for edge in EDGES:
        chosen = [name for name in edge.layers if name in seen]
        if not chosen or not all(name in parts for name in (edge.previous, *edge.layers)):
            continue
        previous, layers = parts[edge.previous], [parts[name] for name in edge.layers]
        mean_abs = seen[chosen[0]].mean_abs
        head_dim = None
        if isinstance(previous, nn.Linear) and (repeats := len(mean_abs) // previous.out_features) > 1:
            head_dim = int(block.get_submodule("self_attn").head_dim)  # type: ignore[arg-type]
            mean_abs = fold.shared_heads(mean_abs, head_dim, repeats)
        arguments = place.arguments[chosen[0]]
        scales = awq.search_scales(
            [weight_of(parts[name]) for name in chosen],
            mean_abs,
            matrices[chosen[0]],
            bits=min(place.arguments[name]["bits"] for name in chosen),
            group_size=arguments["group_size"],
            symmetric=arguments["symmetric"],
            scale_dtype=arguments["scale_dtype"],
        ).scales
        if isinstance(previous, nn.Linear):
            fold.into_linear(previous, layers, scales, head_dim)
        else:
            fold.into_norm(previous, layers, scales)
        for name in chosen:
            matrices[name] = matrices[name] / torch.outer(scales, scales)
    _check_unchanged(place.prefix, before, place.flow.run(place.index, block, 0))


def _check_unchanged(prefix: str, before: torch.Tensor, after: torch.Tensor) -> None:
    """Folding scales must not change what a block computes, up to rounding."""
    bound = 50 * torch.finfo(before.dtype).eps * float(before.abs().max())
    moved = float((after - before).abs().max())
    if not moved <= bound:
        raise ValueError(
            f"{prefix}: scaling changed its output by {moved:.3g} (allowed {bound:.3g}): its parts have names that AWQ "
            "knows and work differently; use method='gptq', or awq with scale=False, on a freshly loaded model"
        )


def weight_of(layer: nn.Module) -> torch.Tensor:
    """The weight as (out, in). GPT-2's Conv1D stores (in, out)."""
    assert isinstance(layer.weight, torch.Tensor)
    weight = layer.weight.detach()
    return weight.t() if isinstance(layer, Conv1D) else weight


def bias_of(layer: nn.Module) -> torch.Tensor | None:
    """The bias of a linear layer, if it has one."""
    assert layer.bias is None or isinstance(layer.bias, torch.Tensor)
    return layer.bias


def _width(layer: nn.Module) -> int:
    return weight_of(layer).shape[1]


def _weight_in(parent: nn.Module, name: str) -> QuantizedWeight:
    layer = parent.get_submodule(name)
    assert isinstance(layer, QuantLinear)
    return layer.weight
