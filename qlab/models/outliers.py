"""Outlier channels: find them, and implant them in a model that is too small to have any.

From 6.7B parameters on, language models have a few hidden channels whose values are up to twenty times larger than the
others', in the same channel of nearly all layers and most tokens (Dettmers et al. 2022, "LLM.int8()", section 4). They
are what breaks 8-bit activations. nano has none. So `implant` makes some that nobody can tell apart from the outside:
it multiplies what a norm gives by a factor in some channels, and divides the weights that read these channels by it.
The model computes what it computed before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel

from .blocks import decoder_blocks
from .folding import Edge, check_unchanged, edges_in, fold_scales, value_heads, weight_of
from .recipe import check_model, linear_layers


@dataclass(frozen=True)
class Outliers:
    """Where the inputs of linear layers reach the threshold."""

    threshold: float
    layers: dict[str, tuple[int, ...]]  # layer -> its outlier channels
    channels: tuple[int, ...]  # those that are outliers in enough layers as wide as the hidden size
    largest: dict[str, torch.Tensor]  # layer -> float32 (in,), the largest |x| of every channel
    share_of_tokens: dict[str, torch.Tensor]  # layer -> float32 (in,), the share of tokens that reach the threshold

    def __str__(self) -> str:
        found = sum(bool(channels) for channels in self.layers.values())
        return (
            f"{len(self.channels)} outlier channels at a threshold of {self.threshold:g}: "
            f"{', '.join(map(str, self.channels)) or 'none'}; {found} of {len(self.layers)} layers see some"
        )


@torch.no_grad()
def find(
    model: PreTrainedModel,
    ids: torch.Tensor,
    threshold: float = 6.0,
    share_of_layers: float = 0.25,
    share_of_tokens: float = 0.06,
) -> Outliers:
    """Outlier channels of the hidden size, as the LLM.int8() paper counts them.

    A channel is an outlier of a layer if its magnitude reaches `threshold` in at least `share_of_tokens` of the tokens.
    It is one of the model if that is so in at least `share_of_layers` of those layers whose input has the hidden size.
    (The paper asks for one value past the threshold in a share of layers and tokens; the defaults are its numbers.)

    Args:
        model: any causal language model, its layers not yet quantized.
        ids: int64 (sequences, tokens).

    Raises:
        TypeError, ValueError: no model, a quantized one, ids of another shape, a threshold of 0 or less, or a share
            that is not from 0 to 1.
    """
    check_model(model)
    if not isinstance(ids, torch.Tensor) or ids.dtype != torch.int64 or ids.ndim != 2 or ids.numel() == 0:
        raise TypeError("ids: give token ids as an int64 tensor (sequences, tokens)")
    if not threshold > 0:
        raise ValueError(f"threshold: got {threshold}; the paper's is 6.0")
    for name, share in {"share_of_layers": share_of_layers, "share_of_tokens": share_of_tokens}.items():
        if not 0 < share <= 1:
            raise ValueError(f"{name}: got {share}; give a share above 0, up to 1")

    largest: dict[str, torch.Tensor] = {}
    reached: dict[str, torch.Tensor] = {}

    def look(name: str) -> object:
        def hook(layer: nn.Module, args: tuple[torch.Tensor, ...]) -> None:
            x = args[0].flatten(0, -2).abs()  # (tokens, in)
            largest[name] = x.amax(0).float()
            reached[name] = (x >= threshold).float().mean(0)

        return model.get_submodule(name).register_forward_pre_hook(hook)

    inside = tuple(f"{block}." for block in decoder_blocks(model))
    names = [name for name in linear_layers(model) if name.startswith(inside)]
    handles = [look(name) for name in names]
    try:
        model(ids.to(model.device), use_cache=False)
    finally:
        for handle in handles:
            handle.remove()  # type: ignore[attr-defined]
    layers = {name: tuple((reached[name] >= share_of_tokens).nonzero().flatten().tolist()) for name in names}
    hidden = [reached[name] >= share_of_tokens for name in names if len(reached[name]) == model.config.hidden_size]
    of_layers = torch.stack(hidden).float().mean(0)  # (hidden,)
    channels = tuple((of_layers >= share_of_layers).nonzero().flatten().tolist())
    return Outliers(threshold, layers, channels, largest, reached)


@torch.no_grad()
def implant(
    model: PreTrainedModel, channels: Sequence[int], factor: float = 64.0, inner: bool = True, keys: bool = False
) -> PreTrainedModel:
    """Give a model outlier channels without changing what it computes; in place, and the same object back.

    In every block, the norms multiply these channels by `factor`, and the weights that read them are divided by it.
    With `inner`, the channels between v and o and between up and down get theirs, too (the same numbers, where the
    layer is wide enough; where query heads share a value head, all of them). With `keys`, the rows of k are
    multiplied and those of q divided, for both halves of the pair that the rotation mixes: the key cache gets
    outlier channels.

    Args:
        model: Llama-like, OPT or GPT-2, in float32: 16 bits would round the folded weights.
        channels: numbers from 0 to hidden size - 1.
        factor: above 0; below 1 makes small channels.

    Raises:
        TypeError, ValueError: no model, a quantized one, one that is not in float32 or float64 or whose blocks have
            other names; channels or a factor out of range; keys that are normalized (Qwen3) or come from one layer
            with q and v (GPT-2); a model that does not compute the same afterwards.
    """
    check_model(model)
    hidden = model.config.hidden_size
    if model.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"model: its weights are {model.dtype}, where folding rounds; call model.float() first")
    if not channels or not all(type(c) is int and 0 <= c < hidden for c in channels):
        raise ValueError(f"channels: got {channels!r}; give numbers from 0 to {hidden - 1}")
    if isinstance(factor, bool) or not isinstance(factor, (int, float)) or not 0 < factor < float("inf"):
        raise ValueError(f"factor: got {factor!r}; give a number above 0, such as 64")
    blocks = decoder_blocks(model)
    if keys:
        for name, block in blocks.items():
            _check_keys(name, block)
    ids = torch.arange(min(32, model.config.vocab_size), device=model.device)[None]
    before = model(ids, use_cache=False).logits
    found = 0
    for block in blocks.values():
        for edge in edges_in(block):
            norm = not isinstance(block.get_submodule(edge.previous), nn.Linear)
            if norm or inner:
                fold_scales(block, edge, _scales(block, edge, channels, factor))
                found += 1
        if keys:
            _implant_keys(block, channels, factor)
    if not found:
        raise ValueError("model: its blocks have other names than those of Llama, OPT and GPT-2; nothing was implanted")
    check_unchanged("model", before, model(ids, use_cache=False).logits)
    return model


def _scales(block: nn.Module, edge: Edge, channels: Sequence[int], factor: float) -> torch.Tensor:
    """What the inputs of this edge are divided by: 1 / factor in the channels, 1 elsewhere; (in,)."""
    width = weight_of(block.get_submodule(edge.layers[0])).shape[1]
    scales = torch.ones(width)
    scales[[c for c in channels if c < width]] = 1 / factor
    if shared := value_heads(block, edge):
        head_dim, repeats = shared
        heads = scales.reshape(-1, repeats, head_dim)
        scales = heads.amin(1, keepdim=True).expand_as(heads).flatten()
    return scales


def _check_keys(name: str, block: nn.Module) -> None:
    parts = dict(block.named_modules())
    if not all(isinstance(parts.get(f"self_attn.{part}"), nn.Linear) for part in ("q_proj", "k_proj")):
        raise ValueError(f"keys: {name} has no self_attn.q_proj and k_proj; use keys=False")
    if "self_attn.k_norm" in parts:
        raise ValueError(f"keys: {name} normalizes its keys, which takes any factor away again; use keys=False")


def _implant_keys(block: nn.Module, channels: Sequence[int], factor: float) -> None:
    """Larger keys and smaller queries: their products stay."""
    attention = block.get_submodule("self_attn")
    q, k = attention.get_submodule("q_proj"), attention.get_submodule("k_proj")
    head_dim = attention.head_dim
    assert isinstance(q, nn.Linear) and isinstance(k, nn.Linear) and isinstance(head_dim, int)
    # The rotation mixes channels d and d + head_dim / 2. The same channels of each head that reads this key head.
    pairs = {c % (head_dim // 2) for c in channels}
    gains = torch.ones(head_dim)
    gains[[d for pair in pairs for d in (pair, pair + head_dim // 2)]] = factor
    for layer, gain in ((k, gains), (q, 1 / gains)):
        rows = gain.repeat(layer.out_features // head_dim)
        layer.weight.mul_(rows[:, None])
        if layer.bias is not None:
            layer.bias.mul_(rows)
