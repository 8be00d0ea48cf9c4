"""Which layers deserve more bits: quantize one layer at a time and see how far the model's answers move.

The measure is the mean KL divergence from the unquantized model, on the same tokens. It needs no labels, and it orders
layers that perplexity cannot tell apart.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from qlab.formats import affine

from .calibration import Batch, Calibration, batches
from .evaluate import tokenizer_of
from .folding import bias_of, weight_of
from .linear import QuantLinear
from .recipe import METHODS, check_model, linear_layers, resolve


@dataclass(frozen=True)
class LayerDamage:
    """What quantizing one layer alone does."""

    name: str
    weights: int
    kl: float  # nats per token, to the model as it was
    bits: int


@dataclass(frozen=True)
class Sensitivity:
    """The layers, the most sensitive first."""

    layers: tuple[LayerDamage, ...]

    def spend(self, average: float, high: int = 8) -> dict[str, int]:
        """Which layers to give `high` bits so that the average stays at `average` bits per weight or below.

        Layers are taken in the order of the damage that is avoided for each weight that grows: the argument for
        `quantize_model(bits=…)`. Damages of single layers are added up, as if layers did not interact.

        Raises:
            ValueError: `high` is not above the bits of the scan, or `average` is not between the two.
        """
        low = self.layers[0].bits
        if not low < high <= 8:
            raise ValueError(f"high: got {high}; the scan was made at {low} bits, give more, up to 8")
        if not low <= average <= high:
            raise ValueError(f"average: got {average}; it must be from {low} to {high} bits")
        total = sum(layer.weights for layer in self.layers)
        left = (average - low) * total / (high - low)  # weights that may grow
        chosen: dict[str, int] = {}
        for layer in sorted(self.layers, key=lambda layer: layer.kl / layer.weights, reverse=True):
            if layer.weights <= left:
                chosen[layer.name] = high
                left -= layer.weights
        return chosen | {layer.name: low for layer in self.layers if layer.name not in chosen}

    def __str__(self) -> str:
        width = max(len(layer.name) for layer in self.layers)
        lines = [f"{'layer':<{width}}  {'weights':>12}  KL alone, nats/token"]
        return "\n".join(lines + [f"{x.name:<{width}}  {x.weights:>12,}  {x.kl:.2e}" for x in self.layers])


@torch.inference_mode()
def scan(
    model: PreTrainedModel,
    tokens: Calibration,
    bits: int = 3,
    group_size: affine.GroupSize | None = None,
    skip: str | Iterable[str] = ("lm_head",),
    progress: bool = True,
    **options: Any,
) -> Sensitivity:
    """Quantize each layer alone by rounding to nearest and measure the damage; the model is left as it was.

    Args:
        tokens: token ids (sequences, tokens), texts, or a name as in `quantize_model(calibration=…)`.
        bits, group_size, skip, options: as in `quantize_model`.

    Raises:
        TypeError, ValueError: as `quantize_model`.
    """
    check_model(model)
    layers = linear_layers(model)
    recipe = resolve(layers, "rtn", bits, group_size, None, skip, options)
    data = batches(tokens, tokenizer_of(model))
    reference = [_log_probabilities(model, batch) for batch in data]
    found = []
    bar = tqdm(recipe.layers.items(), desc="scanning layers", unit="layer", disable=not progress, file=sys.stdout)
    for name, arguments in bar:
        layer = layers[name]
        w = weight_of(layer)
        quantized = METHODS["rtn"].quantize(w, **arguments)
        model.set_submodule(name, QuantLinear(quantized, bias_of(layer)))
        try:
            kl = _mean_kl(model, data, reference)
        finally:
            model.set_submodule(name, layer)
        found.append(LayerDamage(name, w.numel(), kl, arguments["bits"]))
        bar.set_postfix_str(f"{name}, KL {kl:.2g}", refresh=False)
    return Sensitivity(tuple(sorted(found, key=lambda layer: layer.kl, reverse=True)))


def _log_probabilities(model: PreTrainedModel, batch: Batch) -> torch.Tensor:
    logits = model(batch.ids.to(model.device), use_cache=False).logits
    return F.log_softmax(logits[batch.counted.to(logits.device)].float(), dim=-1)  # (tokens, vocabulary)


def _mean_kl(model: PreTrainedModel, data: list[Batch], reference: list[torch.Tensor]) -> float:
    total, tokens = 0.0, 0
    for batch, before in zip(data, reference, strict=True):
        after = _log_probabilities(model, batch)
        total += float((before.exp() * (before - after)).sum())
        tokens += len(before)
    return total / tokens
