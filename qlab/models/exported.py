"""Read what `export` wrote, and what others wrote in the same layouts: a model with packed `QuantLinear` layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from qlab.formats import disk

from .linear import QuantLinear
from .shards import ShardReader


def settings_of(folder: Path) -> dict[str, Any] | None:
    """The quantization settings in config.json, or None for an ordinary model."""
    return json.loads((folder / "config.json").read_text(encoding="utf-8")).get("quantization_config")


def load_exported(folder: Path, dtype: torch.dtype | str) -> PreTrainedModel:
    """The model with its quantized layers as they are stored, and the rest in `dtype` ("auto": as in config.json).

    Raises:
        ValueError: a layout that is not known, or tensors that are damaged, missing or left over.
    """
    settings = settings_of(folder)
    assert settings is not None
    layout = disk.layout_of(settings)
    if layout is None:
        raise ValueError(
            f"name_or_path: {folder} is quantized as {settings.get('quant_method')!r}; "
            f"known layouts are {', '.join(disk.LAYOUTS)}"
        )
    config = AutoConfig.from_pretrained(folder)
    del config.quantization_config
    kind = (config.dtype or torch.float32) if dtype == "auto" else dtype
    assert isinstance(kind, torch.dtype)
    reader = ShardReader(folder)
    # Parameters without memory, for the dense weights of a quantized layer will never exist; buffers as usual.
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(config, dtype=kind)
    rest = set(reader.files)
    for name, parts in disk.stored_layers(reader.files, layout).items():
        tensors = {ending: reader[key] for ending, key in parts.items()}
        weight = layout.decode(tensors, settings, kind, name)
        scheme = layout.activations(tensors, settings, name) if hasattr(layout, "activations") else None
        bias = f"{name}.bias"
        held = reader[bias].to(kind) if bias in reader.files else None
        model.set_submodule(name, QuantLinear(weight, held, scheme))
        rest -= {*parts.values(), bias}
    for key in sorted(rest):
        tensor = reader[key]
        owner, _, last = key.rpartition(".")
        try:
            module = model.get_submodule(owner)
            parameter = getattr(module, last)
        except AttributeError:
            raise ValueError(f"name_or_path: {folder} holds {key}, which this model does not have") from None
        if isinstance(parameter, nn.Parameter):
            module.register_parameter(last, nn.Parameter(tensor.to(kind), requires_grad=False))
        else:
            module.register_buffer(last, tensor)
    model.tie_weights()
    if missing := [name for name, parameter in model.named_parameters() if parameter.is_meta]:
        raise ValueError(f"name_or_path: {folder} lacks {', '.join(missing[:8])}; copy or download it again")
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    model.name_or_path = model.config.name_or_path = str(folder)
    return model
