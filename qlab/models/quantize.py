"""Quantize the linear layers of any Hugging Face causal language model, in place."""

from __future__ import annotations

import inspect
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
            f"{self.bytes_before:,} bytes before, {self.bytes_after:,} after"
            f" ({self.bytes_before / self.bytes_after:.2f} times smaller)",
            f"{self.bits_per_weight:.4g} bits per quantized weight",
        ]
        if self.float32_scales:
            lines.append(
                f"{self.float32_scales} tensors keep float32 scales: smaller types underflow or overflow there"
            )
        return "\n".join(lines)


def quantize_model(
    model: PreTrainedModel,
    method: str = "rtn",
    bits: int = 4,
    group_size: affine.GroupSize = 128,
    symmetric: bool = True,
    skip: str | Iterable[str] = ("lm_head",),
    progress: bool = True,
    **options: Any,
) -> PreTrainedModel:
    """Replace every linear layer by a `QuantLinear` and return the same model object; `report` tells what was done.

    Embeddings, norms and biases stay as they are. A head that shares its weight with the embedding keeps sharing it
    when it is skipped; when it is not, it gets a quantized copy of its own and the embedding stays as it was.
    Nothing is changed unless everything can be: arguments and all weights are checked first. Then one layer after
    another is replaced, so that two full copies never exist at once.

    Args:
        method: "rtn".
        bits, group_size, symmetric: as in `qlab.formats.affine.quantize`; `options` go to the method (`scale_dtype`).
        skip: layers to leave alone: full names, last parts of names, or patterns such as "*.down_proj".
        progress: show a progress bar.

    Raises:
        TypeError: an argument of the wrong kind, or an option that the method does not know.
        ValueError: unknown method, bad argument, a weight with NaN or infinity, a name in `skip` that fits no layer,
            no linear layer, or the model is quantized already.
    """
    patterns = _check_call(model, method, bits, group_size, symmetric, skip, options)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, (nn.Linear, Conv1D))}
    chosen = tuple(name for name in layers if not _matches(name, patterns))
    skipped = tuple(name for name in layers if name not in chosen)
    if not chosen:
        raise ValueError(f"model: it has no linear layer to quantize ({len(layers)} linear layers, skip={patterns})")
    for pattern in patterns:
        # "lm_head" is the default, and not every model has one.
        if pattern != "lm_head" and not any(_matches(name, (pattern,)) for name in layers):
            raise ValueError(
                f"skip: {pattern!r} fits none of the layers; they are called {', '.join(list(layers)[:8])}, …"
            )
    for name in chosen:
        affine.check_weight(_weight_of(layers[name]), name)
    del layers  # these references would keep every replaced layer alive

    before = _bytes_of(model)
    tied = _shares_with_embedding(model)
    held = weights = float32_scales = 0
    bar = tqdm(chosen, desc=f"quantizing ({method}, {bits} bits)", unit="layer", disable=not progress, file=sys.stdout)
    for name in bar:
        layer = model.get_submodule(name)
        weight = METHODS[method](_weight_of(layer), bits=bits, group_size=group_size, symmetric=symmetric, **options)
        model.set_submodule(name, QuantLinear(weight, layer.bias))
        held += weight.nbytes
        weights += weight.shape[0] * weight.shape[1]
        float32_scales += weight.scales.dtype != options.get("scale_dtype", torch.float16)
    if tied and isinstance(model.get_output_embeddings(), QuantLinear):
        model.config.tie_word_embeddings = False  # or a later tie_weights() would undo the head
        model.all_tied_weights_keys = {}

    model.quantization_report = QuantizationReport(
        quantized=chosen,
        skipped=skipped,
        bytes_before=before,
        bytes_after=_bytes_of(model),
        bits_per_weight=8 * held / weights,
        float32_scales=float32_scales,
    )
    return model


def report(model: PreTrainedModel) -> QuantizationReport:
    """What `quantize_model` did to this model. Raises ValueError if it did nothing yet."""
    found = getattr(model, "quantization_report", None)
    if found is None:
        raise ValueError("model: it has not been quantized; call qlab.quantize_model first")
    return found


def _check_call(
    model: PreTrainedModel,
    method: str,
    bits: int,
    group_size: affine.GroupSize,
    symmetric: bool,
    skip: str | Iterable[str],
    options: dict[str, Any],
) -> tuple[str, ...]:
    """Refuse arguments that make no sense; return the patterns in `skip`."""
    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"model: got {type(model).__name__}; give a Hugging Face model, as from qlab.load()")
    if any(isinstance(module, QuantLinear) for module in model.modules()):
        raise ValueError("model: it is quantized already; load it again to quantize it differently")
    if method not in METHODS:
        raise ValueError(f"method: {method!r} is unknown; choose from {', '.join(METHODS)}")
    known = inspect.signature(METHODS[method]).parameters
    for option in options:
        if option not in known:
            raise TypeError(f"options: {method} has no {option!r}; it takes {', '.join(list(known)[1:])}")
    affine.check_arguments(bits, group_size, symmetric, options.get("scale_dtype", torch.float16))
    patterns = (skip,) if isinstance(skip, str) else tuple(skip) if isinstance(skip, Iterable) else (skip,)
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(f"skip: got {skip!r}; give names or patterns of layers, or () to skip none")
    return patterns


def _weight_of(layer: nn.Module) -> torch.Tensor:
    """The weight as (out, in). GPT-2's Conv1D stores (in, out)."""
    assert isinstance(layer.weight, torch.Tensor)
    weight = layer.weight.detach()
    return weight.t() if isinstance(layer, Conv1D) else weight


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, p) or fnmatchcase(name.rpartition(".")[2], p) for p in patterns)


def _shares_with_embedding(model: PreTrainedModel) -> bool:
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    return head is not None and head.weight is embedding.weight


def _bytes_of(model: nn.Module) -> int:
    """Bytes of all parameters and buffers, shared ones counted once."""
    tensors = {id(t): t for t in [*model.parameters(), *model.buffers()]}
    return sum(t.nbytes for t in tensors.values())
