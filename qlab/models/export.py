"""Write a quantized model in the layout of other engines: vLLM and transformers load the folder as it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from qlab.formats import packing
from qlab.formats.activations import Activations
from qlab.formats.affine import AffineWeight
from qlab.formats.codebook import CodebookWeight
from qlab.formats.disk import awq, bitsandbytes, compressed_tensors, compressed_w8a8, gptq
from qlab.formats.float8 import BLOCK, Float8Weight
from qlab.formats.weight import QuantizedWeight

from .evaluate import tokenizer_of
from .linear import QuantLinear
from .recipe import Recipe, linear_layers
from .shards import ShardWriter


@dataclass(frozen=True)
class Layout:
    """The functions of one of `qlab.formats.disk`, and who reads what they write."""

    check: Callable[..., None]
    encode: Callable[..., dict[str, torch.Tensor]]
    settings: Callable[..., dict[str, Any]]
    readers: str


LAYOUTS = {
    "compressed-tensors": Layout(
        compressed_tensors.check, compressed_tensors.encode, compressed_tensors.settings, "transformers and vLLM"
    ),
    "gptq": Layout(gptq.check, gptq.encode, gptq.settings, "vLLM, and transformers with gptqmodel"),
    "gptq_v2": Layout(
        partial(gptq.check, checkpoint_format="gptq_v2"),
        partial(gptq.encode, checkpoint_format="gptq_v2"),
        partial(gptq.settings, checkpoint_format="gptq_v2"),
        "vLLM, and transformers with gptqmodel",
    ),
    "awq": Layout(awq.check, awq.encode, awq.settings, "vLLM, and transformers with gptqmodel"),
    "bitsandbytes": Layout(
        bitsandbytes.check, bitsandbytes.encode, bitsandbytes.settings, "transformers with bitsandbytes, and vLLM"
    ),
}


def export(
    model: PreTrainedModel,
    folder: str | Path,
    format: str = "compressed-tensors",
    tokenizer: PreTrainedTokenizerBase | None = None,
) -> Path:
    """Write weights, config, tokenizer and a model card; the folder appears when it is complete.

    Args:
        model: as `quantize_model` left it.
        folder: a new or empty folder.
        format: "compressed-tensors", "gptq" (version 1), "gptq_v2", "awq" or "bitsandbytes".
        tokenizer: by default the one saved beside the model.

    Raises:
        ValueError: the model is not quantized, the folder is in use, an unknown format, or layers that the format
            cannot hold: all of them are named, with what would fit.
    """
    target = new_folder(folder)
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, QuantLinear)}
    weights = {name: layer.weight for name, layer in layers.items()}
    if not weights:
        raise ValueError("model: no layer of it is quantized; call qlab.quantize_model first")
    layout = layout_of(format, next(iter(layers.values())).activations)
    check_architecture(model.config, format)
    layout.check(weights, model.dtype)

    partial_folder = target.with_name(f".{target.name}.partial")
    if partial_folder.exists():
        shutil.rmtree(partial_folder)  # of an export that was cut off
    partial_folder.mkdir(parents=True)
    writer = ShardWriter(partial_folder)
    shared = set(model.all_tied_weights_keys) if model.config.tie_word_embeddings else set()
    for name, module in model.named_modules():
        if isinstance(module, QuantLinear):
            tensors = layout.encode(module.weight)
            if module.bias is not None:
                tensors = tensors | {"bias": module.bias}
            if isinstance(module.input_scale, torch.Tensor):
                tensors = tensors | {"input_scale": module.input_scale}
        else:
            tensors = dict(module.named_parameters(recurse=False)) | _kept_buffers(module)
        prefix = f"{name}." if name else ""
        writer.add({f"{prefix}{part}": t for part, t in tensors.items() if f"{prefix}{part}" not in shared})
    writer.finish()
    settings = layout.settings(weights, tuple(linear_layers(model)))
    total = sum(weight.nbytes for weight in weights.values())
    bits_per_weight = 8 * total / sum(weight.shape[0] * weight.shape[1] for weight in weights.values())
    label = next(iter(weights.values())).label
    write_description(
        partial_folder,
        model.config,
        model.dtype,
        settings,
        tokenizer or tokenizer_of(model),
        card(model.config, format, label, bits_per_weight, len(weights)),
    )
    if model.generation_config is not None:
        model.generation_config.save_pretrained(partial_folder)
    if target.exists():
        target.rmdir()  # it is empty
    partial_folder.rename(target)
    return target


def new_folder(folder: str | Path) -> Path:
    """The folder as a path. Raises ValueError if something is in it already."""
    target = Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ValueError(f"folder: {target} exists and is not an empty folder; give a new one")
    return target


def layout_of(format: str, activations: Activations | None = None) -> Layout:
    """The layout for layers that quantize their inputs in this way, or not at all.

    Raises ValueError for a format that is not known, or that holds no such layers.
    """
    if format not in LAYOUTS:
        raise ValueError(f"format: {format!r} is unknown; choose from {', '.join(LAYOUTS)}")
    if activations is None:
        return LAYOUTS[format]
    if format != "compressed-tensors" or activations.threshold is not None:
        held = "no file that engines read" if activations.threshold is not None else "compressed-tensors only"
        raise ValueError(f"format: layers with inputs in {activations.label} go into {held}, got {format!r}")
    return Layout(
        compressed_w8a8.check,
        compressed_w8a8.encode,
        partial(compressed_w8a8.settings, activations=activations),
        "transformers and vLLM",
    )


def check_architecture(config: PreTrainedConfig, format: str) -> None:
    """Refuse GPT-2 where its transposed layers (Conv1D) are not read back as linear ones."""
    if config.model_type == "gpt2" and not format.startswith("gptq"):
        raise ValueError(f"format: readers of {format} do not know GPT-2's Conv1D layers; use gptq")


def check_recipe(shapes: Mapping[str, tuple[int, int]], recipe: Recipe, format: str) -> None:
    """Refuse, before any work is done, a recipe whose weights the format could not hold.

    `shapes` are (out, in) by layer. Raises ValueError as `export` would, with the names of the layers. What depends on
    values (a zero-point 0 in gptq version 1, scales past float16) shows at the end only.
    """
    weights = {name: outline(recipe.method, shapes[name], arguments) for name, arguments in recipe.layers.items()}
    layout_of("gptq_v2" if format == "gptq" else format, recipe.activations).check(weights)


def write_description(
    folder: Path,
    config: PreTrainedConfig,
    dtype: torch.dtype,
    settings: dict[str, Any],
    tokenizer: PreTrainedTokenizerBase | None,
    text: str,
) -> None:
    """config.json with the quantization settings, the tokenizer's files, and the card."""
    config.save_pretrained(folder)
    path = folder / "config.json"
    plain = json.loads(path.read_text(encoding="utf-8"))
    plain |= {"dtype": str(dtype).removeprefix("torch."), "quantization_config": settings}
    path.write_text(json.dumps(plain, indent=2) + "\n", encoding="utf-8")
    if tokenizer is not None:
        tokenizer.save_pretrained(folder)
    (folder / "README.md").write_text(text, encoding="utf-8")


def card(config: PreTrainedConfig, format: str, label: str, bits_per_weight: float, layers: int) -> str:
    """The README.md of an exported folder."""
    name = Path(config.name_or_path or config.model_type).name
    return f"""---
library_name: transformers
tags: [quantized, {format}]
---
# {name}, quantized with qlab

- {layers} linear layers: {label}, {bits_per_weight:.4g} bits per weight, scales and zero-points included
- everything else in its original type
- layout: {format}, read by {LAYOUTS[format].readers}

```python
import qlab
model, tokenizer = qlab.load("this folder")
print(qlab.evaluate(model, tokenizer=tokenizer))
```
"""


def _kept_buffers(module: nn.Module) -> dict[str, torch.Tensor]:
    return {
        name: buffer
        for name, buffer in module.named_buffers(recurse=False)
        if name not in module._non_persistent_buffers_set
    }


def outline(
    method: str, shape: tuple[int, int], arguments: Mapping[str, Any], dtype: torch.dtype = torch.float32
) -> QuantizedWeight:
    """A weight of the right kind and shape without values; `dtype` is that of the weights it would stand for."""
    rows, columns = shape
    if method == "fp8":
        granularity = arguments["granularity"]
        blocks = (-(-rows // BLOCK), -(-columns // BLOCK))
        scales = torch.empty({"tensor": (1, 1), "channel": (rows, 1), "block": blocks}[granularity], device="meta")
        codes = torch.empty(rows, columns, dtype=torch.uint8, device="meta")
        return Float8Weight(codes, scales, arguments["data_type"], granularity, dtype)
    group = arguments.get("group_size", "channel")
    if method in ("nf4", "fp4"):
        blocks = -(-rows * columns // group)
        absmax = torch.empty(blocks, dtype=torch.uint8 if arguments["double_quant"] else torch.float32, device="meta")
        nested = torch.empty(-(-blocks // 256), device="meta") if arguments["double_quant"] else None
        offset = torch.empty((), device="meta") if arguments["double_quant"] else None
        packed = torch.empty(-(-rows * columns // 2), dtype=torch.uint8, device="meta")
        return CodebookWeight(packed, absmax, nested, offset, method, group, shape, dtype)
    bits = arguments.get("bits", 8)
    scale_shape = (1, 1) if group == "tensor" else (rows, 1 if group == "channel" else -(-columns // group))
    symmetric = arguments.get("symmetric", method != "hqq")
    real = method == "hqq" and not arguments["round_zeros"]
    zero_width = scale_shape[1] if real else packing.packed_bytes(scale_shape[1], bits)
    zeros = torch.empty(scale_shape[0], zero_width, dtype=torch.float16 if real else torch.uint8, device="meta")
    scattered = arguments.get("act_order", False) and not arguments["static_groups"] and isinstance(group, int)
    return AffineWeight(
        torch.empty(rows, packing.packed_bytes(columns, bits), dtype=torch.uint8, device="meta"),
        torch.empty(scale_shape, dtype=arguments.get("scale_dtype", torch.float32), device="meta"),
        None if symmetric else zeros,
        bits,
        group,
        shape,
        dtype,
        torch.empty(columns, dtype=torch.int32, device="meta") if scattered else None,
    )
