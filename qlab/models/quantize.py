"""Quantize the linear layers of any Hugging Face causal language model, in place."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from qlab.formats import affine
from qlab.formats.weight import QuantizedWeight

from . import calibration as calibration_data
from .calibrate import quantize_blocks
from .evaluate import tokenizer_of
from .folding import weight_of
from .linear import QuantLinear
from .recipe import METHODS, check_model, linear_layers, resolve
from .resume import Progress, fingerprint


@dataclass(frozen=True)
class QuantizationReport:
    """What `quantize_model` did. `bytes_before` and `bytes_after` count parameters and buffers of the whole model."""

    quantized: tuple[str, ...]  # names of the layers
    skipped: tuple[str, ...]  # linear layers left as they were
    bytes_before: int
    bytes_after: int
    bits_per_weight: float  # over the quantized layers, scales and zero-points included
    float32_scales: int  # tensors whose scales did not fit scale_dtype
    losses: dict[str, float] = field(default_factory=dict)  # by layer, calibrated methods: error of outputs, relative

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
    bits: int | Mapping[str, int] | None = None,
    group_size: affine.GroupSize | None = None,
    symmetric: bool | None = None,
    calibration: calibration_data.Calibration | None = None,
    skip: str | Iterable[str] = ("lm_head",),
    progress: bool = True,
    resume: str | Path | None = None,
    **options: Any,
) -> PreTrainedModel:
    """Replace every linear layer by a `QuantLinear` and return the same model object; `report` tells what was done.

    Embeddings, norms and biases stay as they are (AWQ moves scales into norms). A head that shares its weight with the
    embedding keeps sharing it when it is skipped; when it is not, it gets a quantized copy of its own and the embedding
    stays as it was. Arguments and all weights are checked before anything is changed. Then one layer after another is
    replaced, so that two full copies never exist at once.

    Args:
        method: "rtn", "nf4", "fp4", "hqq", or with calibration "gptq", "awq": weights only. "w8a8", "llm_int8", "fp8",
            or with calibration "smoothquant": weights and inputs in 8 bits, which are multiplied as such.
        bits: 2 to 8, or {pattern: bits} for some layers, the others keep the default of 4: {"*.down_proj": 8}. Methods
            that round inputs leave no choice.
        group_size: weights that share a scale, "channel" or "tensor". Default 128; 64 for nf4, fp4 and hqq.
        symmetric: a grid around zero. Default True; hqq, nf4 and fp4 leave no choice.
        calibration: what gptq, awq, smoothquant and static scales look at: token ids (sequences, tokens), texts, or a
            name from `qlab.models.calibration.NAMES` such as "sql" or "mix".
        skip: layers to leave alone: full names, last parts of names, or patterns such as "*.down_proj".
        progress: show a progress bar.
        resume: a folder for finished blocks, with calibration. The same call after a kill goes on from there, with the
            same result; delete the folder when you are done.
        options: further arguments of the method: `scale_dtype`, `double_quant` (nf4), `act_order`, `static_groups`,
            `damping`, `true_sequential` (gptq), `scale`, `clip` (awq); where inputs are rounded: `activations` ("token"
            or "tensor": what shares a scale), `static` (one scale, measured on calibration data), `threshold`
            (llm_int8), `alpha` (smoothquant), `data_type`, `granularity` (fp8).

    Raises:
        TypeError: an argument of the wrong kind, or an option that the method does not know.
        ValueError: unknown method, bad argument, a choice that the method does not leave, a weight with NaN or
            infinity, a pattern in `skip` or `bits` that fits no layer, no linear layer, bad calibration data, a folder
            that holds another run, or the model is quantized already.
    """
    check_model(model)
    layers = linear_layers(model)
    recipe = resolve(layers, method, bits, group_size, symmetric, skip, options)
    for name in recipe.layers:
        affine.check_weight(weight_of(layers[name]), name)
    del layers  # these references would keep every replaced layer alive
    calibrated = recipe.calibrated
    if not calibrated and (calibration is not None or resume is not None):
        given = "calibration" if calibration is not None else "resume"
        raise ValueError(f"{given}: {method} looks at no data and needs none; leave it out")
    batches = calibration_data.batches(calibration, tokenizer_of(model)) if calibrated else []
    run = Progress(Path(resume), fingerprint(model, recipe, batches)) if resume is not None else None

    before = bytes_of(model)
    tied = _shares_with_embedding(model)
    held = weights = float32_scales = 0
    losses: dict[str, float] = {}
    default = 4 if recipe.activations is None else 8
    widths = sorted({arguments.get("bits", default) for arguments in recipe.layers.values()})
    name_of_run = f"quantizing ({method}, {' and '.join(map(str, widths))} bits)"
    bar = tqdm(total=len(recipe.layers), desc=name_of_run, unit="layer", disable=not progress, file=sys.stdout)

    def done(name: str, weight: QuantizedWeight, loss: float | None = None) -> None:
        nonlocal held, weights, float32_scales
        held += weight.nbytes
        weights += weight.shape[0] * weight.shape[1]
        if isinstance(weight, affine.AffineWeight) and recipe.scale_dtype is not None:
            float32_scales += weight.scales.dtype != recipe.scale_dtype
        if loss is not None:
            losses[name] = loss
            bar.set_postfix_str(f"{name}, loss {loss:.2g}", refresh=False)
        bar.update()

    with bar:
        if calibrated:
            quantize_blocks(model, recipe, batches, done, run)
        else:
            for name, arguments in recipe.layers.items():
                layer = model.get_submodule(name)
                weight = METHODS[method].quantize(weight_of(layer), **arguments)
                model.set_submodule(name, QuantLinear(weight, layer.bias, recipe.activations))
                done(name, weight)
    if tied and isinstance(model.get_output_embeddings(), QuantLinear):
        model.config.tie_word_embeddings = False  # or a later tie_weights() would undo the head
        model.all_tied_weights_keys = {}

    model.quantization_report = QuantizationReport(
        quantized=tuple(recipe.layers),
        skipped=recipe.skipped,
        bytes_before=before,
        bytes_after=bytes_of(model),
        bits_per_weight=8 * held / weights,
        float32_scales=float32_scales,
        losses=losses,
    )
    return model


def report(model: PreTrainedModel) -> QuantizationReport:
    """What `quantize_model` did to this model. Raises ValueError if it did nothing yet."""
    found = getattr(model, "quantization_report", None)
    if found is None:
        raise ValueError("model: it has not been quantized; call qlab.quantize_model first")
    return found


def _shares_with_embedding(model: PreTrainedModel) -> bool:
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    return head is not None and head.weight is embedding.weight


def bytes_of(model: nn.Module) -> int:
    """Bytes of all parameters and buffers, shared ones counted once."""
    tensors = {id(t): t for t in [*model.parameters(), *model.buffers()]}
    return sum(t.nbytes for t in tensors.values())
