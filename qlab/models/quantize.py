"""Quantize the linear layers of any Hugging Face causal language model, in place."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from qlab.formats import affine
from qlab.methods import rtn

from .linear import QuantLinear

METHODS: dict[str, Callable[..., affine.AffineWeight]] = {"rtn": rtn.quantize}


@dataclass(frozen=True)
class QuantizationReport:
    """What `quantize_model` did. `bytes_before` and `bytes_after` count parameters and buffers of the whole model."""

    quantized: tuple[str, ...]  # names of the layers
    skipped: tuple[str, ...]  # linear layers left as they were
    bytes_before: int
    bytes_after: int
    bits_per_weight: float  # over the quantized layers, scales and zero-points included
    float32_scales: int  # tensors whose scales did not fit scale_dtype

    def __str__(self) -> str:
        lines = [
            f"{len(self.quantized)} linear layers quantized, {len(self.skipped)} left alone",
            f"{self.bytes_before:,} bytes before, {self.bytes_after:,} after ({self.bytes_before / self.bytes_after:.2f} times smaller)",
            f"{self.bits_per_weight:.4g} bits per quantized weight",
        ]
        if self.float32_scales:
            lines.append(f"{self.float32_scales} tensors keep float32 scales: a 16-bit scale would underflow or overflow there")
        return "\n".join(lines)


def quantize_model(
    model: PreTrainedModel,
    method: str = "rtn",
    bits: int = 4,
    group_size: affine.GroupSize = 128,
    symmetric: bool = True,
    skip: Iterable[str] = ("lm_head",),
    progress: bool = True,
    **options: Any,
) -> PreTrainedModel:
    """Replace every linear layer by a `QuantLinear` and return the same model object.

    Embeddings, norms and biases stay as they are. A head that shares its weight with the embedding keeps sharing it
    when it is skipped; when it is not, it gets a quantized copy of its own and the embedding stays in 16 bits.
    Nothing is changed unless everything can be: arguments and all weights are checked first.

    Args:
        method: "rtn".
        bits, group_size, symmetric: as in `qlab.formats.affine.quantize`; `options` go to the method (`scale_dtype`).
        skip: layers to leave alone: full names, last parts of names, or patterns such as "*.down_proj".
        progress: show a progress bar.

    Raises:
        ValueError: unknown method, bad argument, a weight with NaN or infinity, no linear layer, or already quantized.
    """
    if method not in METHODS:
        raise ValueError(f"method: {method!r} is unknown; choose from {', '.join(METHODS)}")
    affine.check_arguments(bits, group_size, symmetric, options.get("scale_dtype", torch.float16))
    patterns = (skip,) if isinstance(skip, str) else tuple(skip)
    if any(isinstance(module, QuantLinear) for module in model.modules()):
        raise ValueError("model: it is quantized already; load it again to quantize it differently")
    layers = {name: module for name, module in model.named_modules() if isinstance(module, (nn.Linear, Conv1D))}
    chosen = {name: layer for name, layer in layers.items() if not _matches(name, patterns)}
    if not chosen:
        raise ValueError(f"model: no linear layer to quantize ({len(layers)} found, skip={patterns})")
    for name, layer in chosen.items():
        affine.check_weight(_weight_of(layer), name)

    before = _bytes_of(model)
    head = model.get_output_embeddings()
    unties = head is not None and head in chosen.values() and model.config.tie_word_embeddings
    bar = tqdm(chosen.items(), desc=f"quantizing ({method}, {bits} bits)", unit="layer", disable=not progress, file=sys.stdout)
    weights = []
    for name, layer in bar:
        weight = METHODS[method](_weight_of(layer), bits=bits, group_size=group_size, symmetric=symmetric, **options)
        model.set_submodule(name, QuantLinear(weight, layer.bias))
        weights.append(weight)
    if unties:
        model.config.tie_word_embeddings = False  # or a later tie_weights() would undo the head

    asked = options.get("scale_dtype", torch.float16)
    model.quantization_report = QuantizationReport(
        quantized=tuple(chosen),
        skipped=tuple(name for name in layers if name not in chosen),
        bytes_before=before,
        bytes_after=_bytes_of(model),
        bits_per_weight=8 * sum(w.nbytes for w in weights) / sum(w.shape[0] * w.shape[1] for w in weights),
        float32_scales=sum(w.scales.dtype != asked for w in weights),
    )
    return model


def report(model: PreTrainedModel) -> QuantizationReport:
    """What `quantize_model` did to this model. Raises ValueError if it did nothing yet."""
    found = getattr(model, "quantization_report", None)
    if found is None:
        raise ValueError("model: it has not been quantized; call qlab.quantize_model first")
    return found


def _weight_of(layer: nn.Module) -> torch.Tensor:
    """The weight as (out, in). GPT-2's Conv1D stores (in, out)."""
    weight = layer.weight.detach()
    return weight.t() if isinstance(layer, Conv1D) else weight


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, p) or fnmatchcase(name.rpartition(".")[2], p) for p in patterns)


def _bytes_of(model: nn.Module) -> int:
    """Bytes of all parameters and buffers, shared ones counted once."""
    tensors = {id(t): t for t in [*model.parameters(), *model.buffers()]}
    return sum(t.nbytes for t in tensors.values())
