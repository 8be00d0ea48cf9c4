"""Where scales can move inside a block: AWQ, SmoothQuant and implanted outliers all take these ways."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from qlab.methods import fold


@dataclass(frozen=True)
class Edge:
    """`previous` gives exactly the input of `layers`, up to a product with constants. Names inside a block."""

    previous: str
    layers: tuple[str, ...]


# A scale passes from up_proj through the product with the gate, and through a ReLU, because it is positive; GPT-2's
# GELU lets none through.
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


def edges_in(block: nn.Module) -> list[Edge]:
    """Those edges whose modules this block has, layers that are quantized already left out."""
    parts = dict(block.named_modules())
    return [
        edge
        for edge in EDGES
        if edge.previous in parts and all(isinstance(parts.get(name), (nn.Linear, Conv1D)) for name in edge.layers)
    ]


def value_heads(block: nn.Module, edge: Edge) -> tuple[int, int] | None:
    """(channels of a head, query heads for each value head) where several read the same value head, else None."""
    previous, layer = block.get_submodule(edge.previous), block.get_submodule(edge.layers[0])
    if not isinstance(previous, nn.Linear):
        return None
    repeats = weight_of(layer).shape[1] // previous.out_features
    if repeats <= 1:
        return None
    head_dim = block.get_submodule("self_attn").head_dim
    assert isinstance(head_dim, int)
    return head_dim, repeats


def fold_scales(block: nn.Module, edge: Edge, scales: torch.Tensor) -> None:
    """Divide what the layers of the edge get by `scales` (in,) and multiply their columns, in place.

    Raises what `fold.into_norm` and `fold.into_linear` raise; nothing is changed then.
    """
    previous = block.get_submodule(edge.previous)
    layers = [block.get_submodule(name) for name in edge.layers]
    if isinstance(previous, (nn.Linear, Conv1D)):
        shared = value_heads(block, edge)
        fold.into_linear(previous, layers, scales, None if shared is None else shared[0])
    else:
        fold.into_norm(previous, layers, scales)


def check_unchanged(name: str, before: torch.Tensor, after: torch.Tensor) -> None:
    """Folding scales must not change what a block computes, up to rounding. Raises ValueError if it did."""
    bound = 50 * torch.finfo(before.dtype).eps * float(before.abs().max())
    moved = float((after - before).abs().max())
    if not moved <= bound:
        raise ValueError(
            f"{name}: scaling changed its output by {moved:.3g} (allowed {bound:.3g}): its parts have names that qlab "
            "knows and work differently; load the model again and use a method that moves no scales, such as gptq"
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
